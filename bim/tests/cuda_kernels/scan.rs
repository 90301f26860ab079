use bim::config::{Levels, NeuronConfig};
use bim::kernels::neuron::Neuron;
use bim::kernels::scan::{self, Adjoint, Dynamics, DynamicsGrads, ScanGrads, Scratch, Span, Through};
use bim::kernels::{Decay, Dims};
use standins::{Arg, FORWARD, GRADIENT, Kernels, close, drawn, prove};

use super::{Found, STEPS, case, flag, neurons, size, sizes, source, spread_streams, summed};

#[test]
fn cuda_kernels_scan() {
    let errors = [
        ("float y = fmaf(skip[d], u, current ? current[d] : 0.0f);", "float y = current ? current[d] : 0.0f;"),
        ("y = fmaf(selected[states + k], x, y);", "y = fmaf(selected[k], x, y);"),
        ("x = fmaf(decay, x, __fmul_rn(selected[k], du));", "x = fmaf(decay, x, selected[k]);"),
        ("if (t < first) adjoint_v = 0.0f;", "if (t < first) adjoint_v = 1.0f;"),
        ("d_rate[of_stream + cell] -= size * decayed;", "d_rate[of_stream + cell] -= decayed;"),
        ("rate_sum -= size * through_decay;", "rate_sum -= through_decay;"),
        ("lh[of_stream + cell] = through_state ? l * decay : 0.0f;", "lh[of_stream + cell] = l * decay;"),
        ("through_membrane ? adjoint_v * neuron.carry(v[row * channels + d]) : 0.0f", "adjoint_v * neuron.beta"),
        // weights of the chunk where those of the history's own time stand
        ("skips[size_t(min(t, lag)) * channels + d]", "skips[size_t(lag) * channels + d]"),
        (
            "const float rate = per_state ? rates[in_force + cell + d] : rates[in_force + head];",
            "const float rate = per_state ? rates[size_t(lag) * decays + cell + d] : rates[in_force + head];",
        ),
        (
            "const float rate = per_state ? rates[in_force + cell + d] : rates[in_force + head];\n      const float decay = per_state ? expf(-size * rate)",
            "const float rate = per_state ? rates[in_force + cell + d] : rates[in_force + head];\n      const float decay = per_state ? expf(-size * rates[size_t(lag) * decays + cell + d])",
        ),
        (
            "expf(-size * rates[in_force + cell + d]) : a[row * heads + head];\n      states_of",
            "expf(-size * rates[size_t(lag) * decays + cell + d]) : a[row * heads + head];\n      states_of",
        ),
        ("through_decay *= rates[in_force + head]", "through_decay *= rates[size_t(lag) * decays + head]"),
        ("to_c = fmaf(ly_of[row * channels + d], after", "to_c = fmaf(ly_of[row * channels + d], adjoint"),
        ("sum * -expm1f(-delta[row * heads + h])", "sum"),
    ];
    prove(&source("scan.cu"), &errors, |kernels| {
        for (i, config) in neurons().iter().enumerate() {
            for (j, dims) in sizes().into_iter().enumerate() {
                let steps = STEPS[(i + j) % 4];
                for (lag, through) in [(0, Through::TIME), (5, Through::TIME), (0, Through::STEP)] {
                    scan_against_twin(kernels, config, dims, Span { streams: 2, lag, steps }, through)?;
                }
            }
        }
        Ok(())
    });
}

#[allow(clippy::too_many_lines, reason = "one case from its making to its end")]
fn scan_against_twin(kernels: &Kernels, config: &NeuronConfig, dims: Dims, span: Span, through: Through) -> Found {
    let neuron = Neuron::<f32>::new(config);
    let (mut case, s) = case(dims, span, &neuron);
    let Span { streams, lag, steps } = span;
    let (d, n, heads, window) = (dims.channels, dims.state, dims.heads, span.window());
    let per_state = dims.decay == Decay::ChannelState;
    let what = format!("{:?} neurons, {dims:?}, {span:?}", config.levels);
    let constants = neuron.constants();
    let sizes = [lag, steps, streams, d, n, heads, usize::from(per_state)];
    let shape = || Vec::from(sizes.map(size));
    // forward: the same from the state before
    let dynamics =
        Dynamics { bias: &case.bias, a_log: &case.a_log, skip: &case.skip, current: Some(&case.current), step: None };
    let mut after = case.h.clone();
    let mut again = case.tape.clone();
    let mut s_again = vec![0.0; s.len()];
    scan::forward(&dims, &neuron, &dynamics, span, &mut again, &mut after, &mut s_again, &mut Scratch::default());
    let (mut v, mut h, mut got) = (case.tape.v.clone(), case.h.clone(), vec![f32::NAN; s.len()]);
    let first = (lag + 1) * streams * d;
    v[first..].fill(f32::NAN);
    let (grid, block) = spread_streams(d, streams);
    let rates = &case.tape.rates[lag * dims.decays()..];
    let mut args = shape();
    args.extend([
        Arg::In(&constants),
        Arg::In(&case.tape.p),
        Arg::In(&case.tape.delta),
        Arg::In(&case.tape.a),
        Arg::In(rates),
        Arg::In(&case.skip),
        Arg::In(&case.current),
        Arg::Out(&mut v),
        Arg::Out(&mut h),
        Arg::Out(&mut got),
    ]);
    kernels.launch("state_forward", grid, block, &mut args);
    drop(args);
    // with a decay per head every number is rounded alike; otherwise the exponential is another
    let exact = if per_state { FORWARD } else { 0.0 };
    let of_spikes = if config.levels == Levels::Analog { exact } else { 0.0 };
    close(&format!("spikes of {what}"), &got, &s, of_spikes)?;
    close(&format!("membrane of {what}"), &v, &case.tape.v, exact)?;
    close(&format!("state of {what}"), &h, &after, exact)?;
    // back
    let ds = drawn(40, s.len());
    let mut adjoint = Adjoint { h: drawn(41, streams * n * d), v: drawn(42, streams * d) };
    let (mut lh, mut lv) = (adjoint.h.clone(), adjoint.v.clone());
    if lag > 0 {
        // the first stream's history begins within the window
        let rows = (lag / 2) * streams;
        for t in 0..lag / 2 {
            case.tape.delta[t * streams * heads..][..heads].fill(0.0);
            case.tape.a[t * streams * heads..][..heads].fill(0.0);
        }
        assert!(rows > 0);
    }
    let width = dims.projected();
    let (mut p, mut z) = (vec![f32::NAN; window * streams * width], vec![f32::NAN; window * streams * heads]);
    let mut of_dynamics = DynamicsGrads::zero(&dims);
    let mut grads = ScanGrads { p: &mut p, z: &mut z, dynamics: &mut of_dynamics };
    scan::reverse(&dims, &neuron, span, &case.tape, &ds, through, &mut adjoint, &mut grads, &mut Scratch::default());
    let layer = n * d;
    let [mut states_of, mut adjoint_of, mut ly, mut dz, mut got_p, mut d_skip, mut d_current, mut d_rate, mut got_z] =
        [
            (window + 1) * streams * layer,
            window * streams * layer,
            window * streams * d,
            window * streams * d,
            window * streams * width,
            streams * d,
            streams * d,
            streams * if per_state { layer } else { d },
            window * streams * heads,
        ]
        .map(|n| vec![f32::NAN; n]);
    let mut args = shape();
    args.extend([
        flag(through.state),
        flag(through.membrane),
        Arg::In(&constants),
        Arg::In(&case.tape.p),
        Arg::In(&case.tape.delta),
        Arg::In(&case.tape.a),
        Arg::In(&case.tape.rates),
        Arg::In(&case.tape.skips),
        Arg::In(&case.tape.v),
        Arg::In(&case.tape.h0),
        Arg::In(&ds),
        Arg::Out(&mut lh),
        Arg::Out(&mut lv),
        Arg::Out(&mut states_of),
        Arg::Out(&mut adjoint_of),
        Arg::Out(&mut ly),
        Arg::Out(&mut dz),
        Arg::Out(&mut got_p),
        Arg::Out(&mut d_skip),
        Arg::Out(&mut d_current),
        Arg::Out(&mut d_rate),
    ]);
    kernels.launch("state_reverse", grid, block, &mut args);
    drop(args);
    kernels.launch(
        "state_reverse_sums",
        [(window * streams) as u32, 1, 1],
        [32, 1, 1],
        &mut [
            size(streams),
            size(d),
            size(n),
            size(heads),
            Arg::In(&case.tape.p),
            Arg::In(&case.tape.delta),
            Arg::In(&states_of),
            Arg::In(&adjoint_of),
            Arg::In(&ly),
            Arg::In(&dz),
            Arg::Out(&mut got_p),
            Arg::Out(&mut got_z),
        ],
    );
    close(&format!("gradient of u, B and C of {what}"), &got_p, &p, GRADIENT)?;
    close(&format!("gradient of z of {what}"), &got_z, &z, GRADIENT)?;
    close(&format!("gradient of the skip of {what}"), &summed(&d_skip, d), &of_dynamics.skip, GRADIENT)?;
    close(&format!("gradient of the current of {what}"), &summed(&d_current, d), &of_dynamics.current, GRADIENT)?;
    let d_rate = summed(&d_rate, if per_state { layer } else { d });
    let d_rate = if per_state { d_rate } else { d_rate.chunks(d / heads).map(|head| head.iter().sum()).collect() };
    close(&format!("gradient of the decays of {what}"), &d_rate, &of_dynamics.a_log, GRADIENT)?;
    close(&format!("adjoint of the state of {what}"), &lh, &adjoint.h, GRADIENT)?;
    close(&format!("adjoint of the membrane of {what}"), &lv, &adjoint.v, GRADIENT)
}
