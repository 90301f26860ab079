use bim::config::NeuronConfig;
use bim::kernels::neuron::Neuron;
use bim::kernels::scan::{Scratch, Span};
use bim::kernels::trace::{StepCredit, Traces, advance};
use bim::kernels::{Decay, Dims};
use standins::{Arg, FORWARD, GRADIENT, Kernels, close, drawn, prove};

use super::{Found, STEPS, case, size, sizes, source, spread_streams, summed};

#[test]
fn cuda_kernels_trace() {
    let errors = [
        (
            "behind[(size_t(b) * heads + h) * steps + t] = product;\n    product *=",
            "product *= 1.0f;\n    behind[(size_t(b) * heads + h) * steps + t] = product *=",
        ),
        ("fmaf(-rate * decay, state, in * u)", "in * u"),
        ("to_a = fmaf(-(after[t] * size)", "to_a = fmaf((after[t] * size)"),
        (
            "s_u[((size_t(b) * steps + t) * heads + h) * states + k] = weight * p",
            "s_u[((size_t(b) * steps + t) * heads + h) * states + k] = p",
        ),
        ("s_delta[to] *= product;", ""),
        ("a_log[at] = decay * a_log[at]", "a_log[at] = a_log[at]"),
        // weights of the chunk where those of the history's own time stand
        ("rate = rates[size_t(min(t, lag)) * heads + h];", "rate = rates[size_t(lag) * heads + h];"),
        ("rate = rates[size_t(min(t, lag)) * layer + cell], decay", "rate = rates[size_t(lag) * layer + cell], decay"),
        ("rates[size_t(min(t, lag)) * layer + cell]);", "rates[size_t(lag) * layer + cell]);"),
        ("float sum = trace[at] * left", "float sum = trace[at] + left"),
        ("const size_t from = size_t(r / per_group) * step + j;", "const size_t from = j;"),
        ("h * per + i], trace[row * columns + j], sum);", "i], trace[row * columns + j], sum);"),
    ];
    prove(&source("trace.cu"), &errors, |kernels| {
        for (i, dims) in sizes().into_iter().enumerate() {
            // the history's decays are in what is left of a trace where few steps come after them
            for (lag, steps) in [(0, STEPS[i % 4]), (5, STEPS[(i + 2) % 4]), (5, 7)] {
                trace_against_twin(kernels, dims, Span { streams: 2, lag, steps })?;
            }
        }
        Ok(())
    });
}

#[allow(clippy::too_many_lines, reason = "one case from its making to its end")]
fn trace_against_twin(kernels: &Kernels, dims: Dims, span: Span) -> Found {
    let neuron = Neuron::<f32>::new(&NeuronConfig::default());
    let (case, _) = case(dims, span, &neuron);
    let Span { streams, lag, steps } = span;
    let Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay } = dims;
    let (per_state, per, layer) = (decay == Decay::ChannelState, dims.per_head(), n * d);
    let what = format!("traces of {dims:?}, {steps} steps behind {lag}");
    let psi: Vec<f32> = drawn(50, steps * streams * j).iter().map(|s| s.round()).collect();
    let lambda = drawn(51, streams * layer);
    let mut tape = case.tape.clone();
    let mut all: Vec<Traces<f32>> = Vec::new();
    for b in 0..streams {
        let mut traces = Traces::new(&dims, false);
        for (i, (_, trace)) in traces.named_mut().into_iter().enumerate() {
            *trace = drawn(60 + (b * 8 + i) as u64, trace.len());
        }
        all.push(traces);
    }
    let start = all.clone();
    let mut d_delta = vec![0.0; heads * jd];
    for (b, traces) in all.iter_mut().enumerate() {
        let credit = StepCredit { adjoint: &lambda[b * layer..][..layer], delta: &mut d_delta };
        advance(&dims, &neuron, span, &mut tape, &psi, b, traces, &mut [], Some(credit), &mut Scratch::default());
    }
    let beside = |of: fn(&Traces<f32>) -> &Vec<f32>| -> Vec<f32> { start.iter().flat_map(|t| of(t).clone()).collect() };
    let (mut u, mut b, mut delta) = (beside(|t| &t.u), beside(|t| &t.b), beside(|t| &t.delta));
    let (mut bias, mut a_log, mut h0) = (beside(|t| &t.bias), beside(|t| &t.a_log), case.tape.h0.clone());
    // the credit that reaches back is that of the traces before they advance
    let mut contracted = vec![0.0; streams * heads * jd];
    let columns = |n: usize| (n as u32).div_ceil(32);
    kernels.launch(
        "trace_contract",
        [heads as u32, columns(jd), streams as u32],
        [32, 1, 1],
        &mut [size(d), size(n), size(heads), size(jd), Arg::In(&lambda), Arg::In(&delta), Arg::Out(&mut contracted)],
    );
    close(&format!("credit of {what}"), &summed(&contracted, heads * jd), &d_delta, GRADIENT)?;
    let tape_args = (&case.tape.p, &case.tape.delta, &case.tape.a, &case.tape.rates);
    let (rows_u, rows_b) = if per_state { (layer, layer) } else { (heads * n, d) };
    let [mut s_u, mut s_b, mut s_delta] = [rows_u, rows_b, layer].map(|rows| vec![f32::NAN; streams * steps * rows]);
    let mut left = vec![f32::NAN; streams * if per_state { layer } else { heads }];
    let shape = || [size(lag), size(steps), size(streams), size(d), size(n), size(heads)];
    if per_state {
        let mut args = Vec::from(shape());
        args.extend([Arg::In(tape_args.0), Arg::In(tape_args.1), Arg::In(tape_args.3), Arg::Out(&mut left)]);
        args.extend([Arg::Out(&mut s_u), Arg::Out(&mut s_b), Arg::Out(&mut s_delta)]);
        args.extend([Arg::Out(&mut bias), Arg::Out(&mut a_log), Arg::Out(&mut h0)]);
        let (grid, block) = spread_streams(layer, streams);
        kernels.launch("trace_sources_per_state", grid, block, &mut args);
    } else {
        let mut behind = vec![f32::NAN; streams * heads * steps];
        let (grid, block) = spread_streams(heads, streams);
        let mut args =
            [size(steps), size(streams), size(heads), Arg::In(tape_args.2), Arg::Out(&mut behind), Arg::Out(&mut left)];
        kernels.launch("trace_left", grid, block, &mut args);
        let mut args = Vec::from(shape());
        args.extend([Arg::In(tape_args.0), Arg::In(tape_args.1), Arg::In(tape_args.2), Arg::In(tape_args.3)]);
        args.extend([Arg::In(&behind), Arg::In(&left)]);
        args.extend([Arg::Out(&mut s_u), Arg::Out(&mut s_b), Arg::Out(&mut s_delta)]);
        args.extend([Arg::Out(&mut bias), Arg::Out(&mut a_log), Arg::Out(&mut h0)]);
        let (grid, block) = spread_streams(d, streams);
        kernels.launch("trace_sources", grid, block, &mut args);
    }
    let want = |of: fn(&Traces<f32>) -> &Vec<f32>| -> Vec<f32> { all.iter().flat_map(|t| of(t).clone()).collect() };
    close(&format!("state, {what}"), &h0, &tape.h0, FORWARD)?;
    close(&format!("b_delta, {what}"), &bias, &want(|t| &t.bias), FORWARD)?;
    close(&format!("A_log, {what}"), &a_log, &want(|t| &t.a_log), FORWARD)?;
    // with a decay per state the rows of W_delta are kept by heads: those of a head are [N, P]
    let (s_delta, left_delta) = if per_state {
        let by_heads = |v: &[f32]| -> Vec<f32> {
            let cell =
                |c: &[f32], h: usize| (0..n * per).map(|i| c[i / per * d + h * per + i % per]).collect::<Vec<_>>();
            v.chunks(layer).flat_map(|c| (0..heads).flat_map(|h| cell(c, h)).collect::<Vec<_>>()).collect()
        };
        (by_heads(&s_delta), by_heads(&left))
    } else {
        (s_delta, left.clone())
    };
    let offset = if jd == j { 0 } else { jd };
    for (name, rows, columns_of, per_left, step, left, s, trace, want) in [
        ("W_u", rows_u, j, if per_state { 1 } else { n }, 0, &left, &s_u, &mut u, want(|t| &t.u)),
        ("W_B", rows_b, j, if per_state { 1 } else { per }, 0, &left, &s_b, &mut b, want(|t| &t.b)),
        (
            "W_delta",
            layer,
            jd,
            if per_state { 1 } else { n * per },
            offset,
            &left_delta,
            &s_delta,
            &mut delta,
            want(|t| &t.delta),
        ),
    ] {
        kernels.launch(
            "trace_advance",
            [rows as u32, columns(columns_of), streams as u32],
            [32, 1, 1],
            &mut [
                size(steps),
                size(streams),
                size(rows),
                size(columns_of),
                size(j),
                size(per_left),
                size(n * per),
                size(step),
                Arg::In(left),
                Arg::In(s),
                Arg::In(&psi),
                Arg::Out(trace),
            ],
        );
        close(&format!("{name}, {what}"), trace, &want, FORWARD)?;
    }
    Ok(())
}
