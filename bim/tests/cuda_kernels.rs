use std::path::{Path, PathBuf};

use bim::config::{Count, Levels, NeuronConfig, Positive, PruneConfig, Reset, Share, StdpConfig, Surrogate};
use bim::kernels::encode::{self, EncodeAdjoint, EncodeDims, EncodeGrads, EncodeParams, EncodeScratch, EncodeTape};
use bim::kernels::neuron::Neuron;
use bim::kernels::scan::{self, Adjoint, Dynamics, DynamicsGrads, ScanGrads, ScanTape, Scratch, Span, Through};
use bim::kernels::stdp::{PairState, Window, accumulate};
use bim::kernels::trace::{StepCredit, Traces, advance};
use bim::kernels::{Decay, Dims, prune, row};
use standins::{Arg, Kernels, close, drawn, prove};

type Found = Result<(), String>;

const FORWARD: f32 = 1e-5;
const GRADIENT: f32 = 1e-4;

/// Steps around a block of 32, and one step.
const STEPS: [usize; 4] = [1, 31, 32, 33];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda").join(name)
}

fn size(n: usize) -> Arg<'static> {
    Arg::I32(n as i32)
}

fn flag(on: bool) -> Arg<'static> {
    Arg::I32(i32::from(on))
}

/// An array that may not be there.
fn maybe(v: Option<&[f32]>) -> Arg<'_> {
    v.map_or(Arg::Null, Arg::In)
}

/// Threads for `count`, over several blocks and with some left over.
fn spread(count: usize) -> ([u32; 3], [u32; 3]) {
    ([(count as u32).div_ceil(32), 1, 1], [32, 1, 1])
}

/// Threads for `count` of each stream.
fn spread_streams(count: usize, streams: usize) -> ([u32; 3], [u32; 3]) {
    ([(count as u32).div_ceil(32), streams as u32, 1], [32, 1, 1])
}

fn scaled(v: &[f32], by: f32) -> Vec<f32> {
    v.iter().map(|x| x * by).collect()
}

/// Sums of `v` `[pieces, len]` over the pieces.
fn summed(v: &[f32], len: usize) -> Vec<f32> {
    (0..len).map(|i| v.iter().skip(i).step_by(len).sum()).collect()
}

/// Every kind of neuron that the configuration has.
fn neurons() -> Vec<NeuronConfig> {
    let base = NeuronConfig { beta: Share(0.6), threshold: Positive(0.5), ..NeuronConfig::default() };
    let kinds = [
        (Levels::Binary, Reset::Subtract, Surrogate::FastSigmoid, false),
        (Levels::Binary, Reset::Leaky, Surrogate::Rectangular, true),
        (Levels::Signed, Reset::Subtract, Surrogate::Rectangular, false),
        (Levels::Integer, Reset::Leaky, Surrogate::FastSigmoid, true),
        (Levels::Unsigned, Reset::None, Surrogate::Rectangular, false),
        (Levels::Quantised, Reset::None, Surrogate::Rectangular, false),
        (Levels::Analog, Reset::None, Surrogate::Rectangular, false),
    ];
    let neuron = |(levels, reset, surrogate, attached_reset)| NeuronConfig {
        levels,
        reset,
        surrogate,
        attached_reset,
        burst: Count(3),
        ..base
    };
    kinds.into_iter().map(neuron).collect()
}

#[test]
fn cuda_kernels_row() {
    let errors = [
        ("/ float(width) + epsilon)", "/ float(width))"),
        ("dx[row + i] += (dy[row + i]", "dx[row + i] = (dy[row + i]"),
        ("out[i] += y[i] * z[i] / (1.0f + expf(-z[i]));", "out[i] += y[i] / (1.0f + expf(-z[i]));"),
        ("(1.0f + z[i] * (1.0f - sigma))", "(1.0f + z[i] * sigma)"),
        ("parts[threadIdx.x + by];\n    __syncthreads();", "parts[threadIdx.x + by];"),
    ];
    prove(&source("row.cu"), &errors, |kernels| {
        for (rows, width) in [(3, 48), (1, 192), (5, 768), (2, 7), (2, 1)] {
            // values so small that the epsilon has a say
            let (x, dy) = (scaled(&drawn(1, rows * width), 3e-3), drawn(2, rows * width));
            let (mut y, mut inverse) = (vec![0.0; rows * width], vec![0.0; rows]);
            row::normalize(width, &x, &mut y, &mut inverse);
            let (mut got, mut got_inverse) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows]);
            let epsilon = row::NORM_EPSILON as f32;
            let (grid, block) = ([rows as u32, 1, 1], [64, 1, 1]);
            let mut args =
                [size(width), Arg::F32(epsilon), Arg::In(&x), Arg::Out(&mut got), Arg::Out(&mut got_inverse)];
            kernels.launch("normalize", grid, block, &mut args);
            close(&format!("norm of {rows} x {width}"), &got, &y, FORWARD)?;
            close("one over the root mean square", &got_inverse, &inverse, FORWARD)?;
            let mut dx = drawn(3, rows * width);
            let mut got = dx.clone();
            row::normalize_reverse(width, &y, &inverse, &dy, &mut dx);
            let mut args = [size(width), Arg::In(&y), Arg::In(&inverse), Arg::In(&dy), Arg::Out(&mut got)];
            kernels.launch("normalize_reverse", grid, block, &mut args);
            close(&format!("gradient of the norm of {rows} x {width}"), &got, &dx, GRADIENT)?;
            let n = rows * width;
            let (y, z, d_out) = (drawn(4, n), scaled(&drawn(5, n), 4.0), drawn(6, n));
            let mut out = drawn(7, n);
            let mut got = out.clone();
            row::gate(&y, &z, &mut out);
            let (grid, block) = spread(n);
            kernels.launch("gate", grid, block, &mut [size(n), Arg::In(&y), Arg::In(&z), Arg::Out(&mut got)]);
            close(&format!("gate of {n}"), &got, &out, FORWARD)?;
            let (mut dy, mut dz) = (vec![0.0; n], vec![0.0; n]);
            row::gate_reverse(&y, &z, &d_out, &mut dy, &mut dz);
            let (mut got_y, mut got_z) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            let mut args =
                [size(n), Arg::In(&y), Arg::In(&z), Arg::In(&d_out), Arg::Out(&mut got_y), Arg::Out(&mut got_z)];
            kernels.launch("gate_reverse", grid, block, &mut args);
            close("gradient of what is gated", &got_y, &dy, GRADIENT)?;
            close("gradient of the gate", &got_z, &dz, GRADIENT)?;
        }
        Ok(())
    });
}

#[test]
fn cuda_kernels_encode() {
    let errors = [
        ("x[size_t(t + conv - 1 - i) * wide_x + at_x]", "x[size_t(t + i) * wide_x + at_x]"),
        ("if (current) input = __fadd_rn(input, current[m]);", ""),
        (
            "return clip(floorf(fmaf(v, inverse, offset)), lowest, highest);",
            "return clip(floorf(fmaf(v, inverse, offset)), lowest, 2.0f);",
        ),
        ("__fmul_rn(-reset, fire(v))", "0.0f"),
        ("if (last) out = __fadd_rn(out, __fmul_rn(kernel, before));", ""),
        ("lpsi[at] = kernel * d;", "lpsi[at] = d;"),
        ("if (temporal || i == 0) ds[row]", "ds[row]"),
        ("attached ? beta - reset * surrogate(v) : beta", "beta"),
        (
            "const float fired = ds[size_t(history + t) * wide + at] + penalty * sign;",
            "const float fired = ds[size_t(history + t) * wide + at];",
        ),
        ("const float x = 1.0f + slope * fabsf(v - nearest);", "const float x = 1.0f + fabsf(v - nearest);"),
        ("d *= sigma * (1.0f + z * (1.0f - sigma));", "d *= sigma;"),
        ("lx[size_t(r) * wide_x + at] = d_drive", "lx[size_t(r) * wide_x + at] += d_drive"),
        ("r < steps ? 0.0f : ls[size_t(r - steps) * wide + at]", "0.0f"),
    ];
    prove(&source("encode.cu"), &errors, |kernels| {
        for (i, config) in neurons().iter().enumerate() {
            let steps = STEPS[i % 4];
            for (channels, population, conv, silu, delays, kernel) in
                [(7, 1, 1, false, 1, 0.0), (48, 1, 4, false, 3, 0.7), (9, 2, 3, true, 4, 0.0), (6, 2, 1, true, 1, 0.5)]
            {
                let dims = EncodeDims { streams: 3, channels, population, conv, silu, delays };
                for temporal in [true, false] {
                    encode_against_twin(kernels, config, dims, steps, kernel, temporal)?;
                }
            }
        }
        Ok(())
    });
}

#[allow(clippy::too_many_lines, reason = "one case from its making to its end")]
fn encode_against_twin(
    kernels: &Kernels,
    config: &NeuronConfig,
    dims: EncodeDims,
    steps: usize,
    kernel: f32,
    temporal: bool,
) -> Found {
    let EncodeDims { streams, channels, population, conv, silu, delays } = dims;
    let (neuron, m, with_kernel) = (Neuron::<f32>::new(config), dims.neurons(), kernel > 0.0);
    let (wide, wide_x) = (streams * m, streams * channels);
    let what = format!("{:?} neurons, {dims:?}, {steps} steps, temporal {temporal}", config.levels);
    let gain: Vec<f32> = drawn(1, m).iter().map(|g| 1.5 + 0.5 * g).collect();
    let (current, taps) = (scaled(&drawn(2, m), 0.3), drawn(3, conv * channels));
    let delay = drawn(4, delays * m);
    let params = EncodeParams {
        gain: &gain,
        current: (population == 2).then_some(&current[..]),
        conv: (conv > 1).then_some(&taps[..]),
        delays: (delays > 1).then_some(&delay[..]),
        kernel,
        step: None,
    };
    let mut tape = EncodeTape::new(&dims, steps, with_kernel);
    tape.x = scaled(&drawn(5, tape.x.len()), 2.0);
    tape.v[..wide].copy_from_slice(&drawn(6, wide));
    let old = (delays - 1) * wide;
    tape.s[..old].copy_from_slice(&drawn(7, old).iter().map(|s| s.round()).collect::<Vec<_>>());
    tape.psi = drawn(8, tape.psi.len());
    let start = tape.clone();
    let mut psi = vec![0.0; steps * wide];
    encode::forward(&dims, &neuron, &params, steps, &mut tape, &mut psi);
    let constants = neuron.constants();
    let mut got = start.clone();
    let mut c = vec![f32::NAN; steps * wide_x];
    let mut got_psi = vec![f32::NAN; steps * wide];
    let (grid, block) = spread_streams(m, streams);
    kernels.launch(
        "encode_forward",
        grid,
        block,
        &mut [
            size(steps),
            size(streams),
            size(channels),
            size(population),
            size(conv),
            flag(silu),
            size(delays),
            Arg::F32(kernel),
            Arg::In(&constants),
            Arg::In(&gain),
            maybe(params.current),
            maybe(params.conv),
            maybe(params.delays),
            Arg::In(&start.x),
            Arg::Out(&mut c),
            Arg::Out(&mut got.v),
            Arg::Out(&mut got.s),
            maybe(with_kernel.then_some(&start.psi[..])),
            Arg::Out(&mut got_psi),
        ],
    );
    // numbers that pass through SiLU or no levels at all are those of another exponential
    let exact = if silu || config.levels == Levels::Analog { FORWARD } else { 0.0 };
    close(&format!("spikes of {what}"), &got.s, &tape.s, if config.levels == Levels::Analog { FORWARD } else { 0.0 })?;
    close(&format!("membrane of {what}"), &got.v, &tape.v, exact)?;
    close(&format!("psi of {what}"), &got_psi, &psi, exact)?;
    if conv > 1 {
        close(&format!("convolution of {what}"), &c, &tape.c, 0.0)?;
    }
    // back
    let penalty = 0.05;
    let mut adjoint = EncodeAdjoint::new(&dims, with_kernel);
    for (i, part) in adjoint.parts_mut().into_iter().enumerate() {
        part.copy_from_slice(&drawn(20 + i as u64, part.len()));
    }
    let mut late = adjoint.clone();
    let d_psi = drawn(9, steps * wide);
    let (mut grads, mut dx, mut scratch) =
        (EncodeGrads::zero(&dims), vec![0.0; steps * wide_x], EncodeScratch::default());
    let mut spent = d_psi.clone();
    encode::reverse(
        &dims,
        &neuron,
        &params,
        steps,
        &tape,
        &mut spent,
        (temporal, penalty),
        &mut adjoint,
        &mut grads,
        &mut dx,
        &mut scratch,
    );
    let drive = if conv > 1 { &tape.c } else { &tape.x };
    let [mut ds, mut d_input, mut d_gain, mut d_current, mut d_delay] =
        [(delays - 1 + steps) * wide, steps * wide, wide, wide, delays * wide].map(|n| vec![f32::NAN; n]);
    let mut spent = d_psi;
    let lpsi = if with_kernel { Arg::Out(&mut late.psi) } else { Arg::Null };
    kernels.launch(
        "encode_reverse",
        grid,
        block,
        &mut [
            size(steps),
            size(streams),
            size(channels),
            size(population),
            size(conv),
            flag(silu),
            size(delays),
            flag(temporal),
            Arg::F32(penalty),
            Arg::F32(kernel),
            Arg::In(&constants),
            maybe(params.delays),
            Arg::In(drive),
            Arg::In(&tape.v),
            Arg::In(&tape.s),
            Arg::Out(&mut spent),
            Arg::Out(&mut late.v),
            Arg::Out(&mut late.s),
            lpsi,
            Arg::Out(&mut ds),
            Arg::Out(&mut d_input),
            Arg::Out(&mut d_gain),
            Arg::Out(&mut d_current),
            Arg::Out(&mut d_delay),
        ],
    );
    let [mut d_drive, mut got_dx, mut d_taps] =
        [(conv - 1 + steps) * wide_x, steps * wide_x, conv * wide_x].map(|n| vec![f32::NAN; n]);
    let (grid, block) = spread_streams(channels, streams);
    kernels.launch(
        "encode_reverse_inputs",
        grid,
        block,
        &mut [
            size(steps),
            size(streams),
            size(channels),
            size(population),
            size(conv),
            flag(silu),
            flag(temporal),
            Arg::In(&gain),
            maybe(params.conv),
            Arg::In(drive),
            Arg::In(&tape.x),
            Arg::In(&d_input),
            Arg::Out(&mut late.x),
            Arg::Out(&mut d_drive),
            Arg::Out(&mut got_dx),
            Arg::Out(&mut d_taps),
        ],
    );
    close(&format!("gradient of the input of {what}"), &got_dx, &dx, GRADIENT)?;
    close(&format!("gradient of the gains of {what}"), &summed(&d_gain, m), &grads.gain, GRADIENT)?;
    close(&format!("gradient of the currents of {what}"), &summed(&d_current, m), &grads.current, GRADIENT)?;
    if conv > 1 {
        close(&format!("gradient of the taps of {what}"), &summed(&d_taps, conv * channels), &grads.conv, GRADIENT)?;
    }
    if delays > 1 {
        close(&format!("gradient of the delays of {what}"), &summed(&d_delay, delays * m), &grads.delays, GRADIENT)?;
    }
    let [x, v, s, psi] = adjoint.parts_mut();
    for ((name, want), got) in
        [("x", x), ("v", v), ("s", s), ("psi", psi)].into_iter().zip([&late.x, &late.v, &late.s, &late.psi])
    {
        close(&format!("adjoint of {name} of {what}"), got, want, GRADIENT)?;
    }
    Ok(())
}

/// A scan's operands: everything that the network leaves on the tape.
struct Case {
    tape: ScanTape<f32>,
    skip: Vec<f32>,
    current: Vec<f32>,
    a_log: Vec<f32>,
    bias: Vec<f32>,
    h: Vec<f32>,
}

fn case(dims: Dims, span: Span, neuron: &Neuron<f32>) -> (Case, Vec<f32>) {
    let Span { streams, lag, .. } = span;
    let window = span.window();
    let zeros = |n: usize| vec![0.0; n];
    let mut tape = ScanTape {
        p: drawn(1, window * streams * dims.projected()),
        delta: zeros(window * streams * dims.heads),
        a: zeros(window * streams * dims.heads),
        v: zeros((1 + window) * streams * dims.channels),
        h0: drawn(2, streams * dims.states()),
        rates: zeros((lag + 1) * dims.decays()),
        skips: zeros((lag + 1) * dims.channels),
        steps: Vec::new(),
    };
    tape.v[lag * streams * dims.channels..][..streams * dims.channels]
        .copy_from_slice(&drawn(3, streams * dims.channels));
    let (skip, current) = (drawn(4, dims.channels), scaled(&drawn(5, dims.channels), 0.3));
    let (a_log, bias) = (scaled(&drawn(6, dims.decays()), 0.7), drawn(7, dims.heads));
    let dynamics = Dynamics { bias: &bias, a_log: &a_log, skip: &skip, current: Some(&current), step: None };
    // a history is made as the network makes it: the chunks before it, one step after another
    for t in 0..lag {
        let row = Span { streams, lag: t, steps: 1 };
        let z = drawn(30 + t as u64, streams * dims.heads);
        let mut one =
            ScanTape { rates: zeros((t + 1) * dims.decays()), skips: zeros((t + 1) * dims.channels), ..tape.clone() };
        scan::step_sizes(&dims, &dynamics, row, &z, &mut one);
        (tape.delta, tape.a) = (one.delta, one.a);
        tape.rates[t * dims.decays()..][..dims.decays()]
            .copy_from_slice(&one.rates[t * dims.decays()..][..dims.decays()]);
        tape.skips[t * dims.channels..][..dims.channels].copy_from_slice(&skip);
    }
    let z = drawn(8, span.steps * streams * dims.heads);
    scan::step_sizes(&dims, &dynamics, span, &z, &mut tape);
    let mut h = drawn(9, streams * dims.states());
    let before = h.clone();
    let mut s = zeros(span.steps * streams * dims.channels);
    scan::forward(&dims, neuron, &dynamics, span, &mut tape, &mut h, &mut s, &mut Scratch::default());
    (Case { tape, skip, current, a_log, bias, h: before }, s)
}

/// Sizes: one channel a head and many, widths that are no multiple of anything, one state and many.
fn sizes() -> Vec<Dims> {
    let dims = |inputs, channels, state, heads, delta_inputs, decay| Dims {
        inputs,
        channels,
        state,
        heads,
        delta_inputs,
        decay,
    };
    vec![
        dims(12, 48, 8, 4, 12, Decay::Head),
        dims(12, 10, 1, 2, 6, Decay::Head),
        dims(10, 33, 16, 1, 10, Decay::Head),
        dims(12, 10, 8, 2, 12, Decay::ChannelState),
        dims(8, 33, 1, 1, 8, Decay::ChannelState),
        dims(8, 12, 16, 4, 2, Decay::ChannelState),
    ]
}

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
        ("skips[size_t(min(t, lag)) * channels + d]", "skips[d] * 0.5f"),
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
    kernels.launch(
        "state_forward",
        grid,
        block,
        &mut [
            size(lag),
            size(steps),
            size(streams),
            size(d),
            size(n),
            size(heads),
            flag(per_state),
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
        ],
    );
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
    kernels.launch(
        "state_reverse",
        grid,
        block,
        &mut [
            size(lag),
            size(steps),
            size(streams),
            size(d),
            size(n),
            size(heads),
            flag(per_state),
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
        ],
    );
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
        ("float sum = trace[at] * left", "float sum = trace[at] + left"),
        ("const size_t from = size_t(r / per_group) * step + j;", "const size_t from = j;"),
        ("h * per + i], trace[row * columns + j], sum);", "i], trace[row * columns + j], sum);"),
    ];
    prove(&source("trace.cu"), &errors, |kernels| {
        for (i, dims) in sizes().into_iter().enumerate() {
            for steps in [STEPS[i % 4], STEPS[(i + 2) % 4]] {
                trace_against_twin(kernels, dims, Span { streams: 2, lag: 0, steps })?;
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
    let what = format!("traces of {dims:?}, {steps} steps");
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
        advance(&dims, &neuron, span, &mut tape, &psi, b, traces, Some(credit), &mut Scratch::default());
    }
    let beside = |of: fn(&Traces<f32>) -> &Vec<f32>| -> Vec<f32> { start.iter().flat_map(|t| of(t).clone()).collect() };
    let (mut u, mut b, mut delta) = (beside(|t| &t.u), beside(|t| &t.b), beside(|t| &t.delta));
    let (mut bias, mut a_log, mut h0) = (beside(|t| &t.bias), beside(|t| &t.a_log), case.tape.h0.clone());
    // the credit that reaches back is that of the traces before they advance
    let mut contracted = vec![0.0; streams * heads * jd];
    let columns = |n: usize| (n as u32).div_ceil(32);
    kernels.launch(
        "trace_contract",
        [columns(jd), heads as u32, streams as u32],
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
            [columns(columns_of), rows as u32, streams as u32],
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

#[test]
fn cuda_kernels_plasticity() {
    let errors = [
        ("fmaf(a_plus, p, at_zero * s)", "fmaf(a_plus, p, s)"),
        ("p = keep_pre * (p + s);", "p = keep_pre * p + s;"),
        ("weighted[size_t(t) * wide + i] -= a_minus * decayed;", ""),
        ("after[i] = -a_minus * later;", "after[i] = later;"),
        ("q = keep_post * (q + spikes", "q = (q + spikes"),
        ("sum = fmaf(before[size_t(b) * post + d], after[size_t(b) * pre + j], sum);", ""),
        ("go += g * o;", "go += g;"),
        ("o2 = block_sum(o2, parts);", ""),
        (
            "__fsub_rn(__fmul_rn(keep, direction[i]), __fmul_rn(add, omega[i]))",
            "__fadd_rn(__fmul_rn(keep, direction[i]), __fmul_rn(add, omega[i]))",
        ),
        ("omega[i] = 0.0f;", ""),
        ("mask[i] != 0.0f && drawn[i] < p", "drawn[i] < p"),
        ("if (i >= count || !gone[i]) return;", "if (i >= count) return;"),
    ];
    prove(&source("plasticity.cu"), &errors, |kernels| {
        for (steps, streams, j, d) in [(1, 1, 5, 4), (31, 2, 48, 7), (32, 3, 33, 33), (33, 1, 192, 16)] {
            pairs_against_twin(kernels, steps, streams, j, d)?;
        }
        for count in [1, 31, 48 * 33] {
            mixing_by_definition(kernels, count)?;
            pruning_against_twin(kernels, count)?;
        }
        Ok(())
    });
}

fn pairs_against_twin(kernels: &Kernels, steps: usize, streams: usize, j: usize, d: usize) -> Found {
    let config = StdpConfig { at_zero: 0.3, tau_minus: Positive(8.0), ..StdpConfig::default() };
    let keep = |tau: f64| (-1.0 / tau).exp() as f32;
    let window = Window::<f32>::new(&config);
    let spikes = |seed, n| drawn(seed, n).iter().map(|s| (1.4 * s).round()).collect::<Vec<f32>>();
    let (s_pre, s_post) = (spikes(1, steps * streams * j), spikes(2, steps * streams * d));
    let mut state = PairState::new(streams, j, d);
    state.pre.copy_from_slice(&drawn(3, streams * j));
    state.post.copy_from_slice(&drawn(4, streams * d));
    let mut omega = drawn(5, d * j);
    let (mut got, mut pre, mut post) = (omega.clone(), state.pre.clone(), state.post.clone());
    let before = post.clone();
    accumulate(&window, &s_pre, &s_post, &mut state, &mut omega);
    let (keep_pre, keep_post) = (keep(config.tau_plus.0), keep(config.tau_minus.0));
    let (mut weighted, mut after) = (vec![f32::NAN; s_pre.len()], vec![f32::NAN; streams * j]);
    let (grid, block) = spread(streams * j);
    kernels.launch(
        "stdp_pre",
        grid,
        block,
        &mut [
            size(steps),
            size(streams * j),
            Arg::F32(config.a_plus.0 as f32),
            Arg::F32(config.a_minus.0 as f32),
            Arg::F32(keep_pre),
            Arg::F32(keep_post),
            Arg::F32(config.at_zero as f32),
            Arg::In(&s_pre),
            Arg::Out(&mut pre),
            Arg::Out(&mut weighted),
            Arg::Out(&mut after),
        ],
    );
    let (grid, block) = ([(j as u32).div_ceil(32), d as u32, 1], [32, 1, 1]);
    let mut args = vec![size(steps), size(streams), size(j), size(d), Arg::In(&s_post), Arg::In(&weighted)];
    args.extend([Arg::In(&before), Arg::In(&after), Arg::Out(&mut got)]);
    kernels.launch("stdp_pairs", grid, block, &mut args);
    drop(args);
    let (grid, block) = spread(streams * d);
    let mut args = [size(steps), size(streams * d), Arg::F32(keep_post), Arg::In(&s_post), Arg::Out(&mut post)];
    kernels.launch("stdp_post", grid, block, &mut args);
    let what = format!("{steps} steps, {streams} streams, {j} x {d}");
    close(&format!("presynaptic sums, {what}"), &pre, &state.pre, FORWARD)?;
    close(&format!("postsynaptic sums, {what}"), &post, &state.post, FORWARD)?;
    close(&format!("pairs, {what}"), &got, &omega, FORWARD)
}

/// The mix is written out in `plasticity.rs` as these lines; there it is private to the update.
fn mixing_by_definition(kernels: &Kernels, count: usize) -> Found {
    let (direction, omega, raw) = (drawn(1, count), drawn(2, count), drawn(3, count));
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let want = [product(&direction, &direction), product(&omega, &omega), product(&direction, &omega)];
    let mut sums = [f64::NAN; 3];
    let mut args = [size(count), Arg::In(&direction), Arg::In(&omega), Arg::Wide(&mut sums)];
    kernels.launch("mix_moments", [1, 1, 1], [64, 1, 1], &mut args);
    close("moments", &sums.map(|s| s as f32), &want.map(|s| s as f32), FORWARD)?;
    let (keep, add) = (0.7, 0.4);
    let (grid, block) = spread(count);
    for printed in [false, true] {
        let (mut got, mut left) = (direction.clone(), omega.clone());
        let raw_arg = if printed { Arg::In(&raw) } else { Arg::Null };
        let mut args = [size(count), Arg::F32(keep), Arg::F32(add), raw_arg, Arg::Out(&mut got), Arg::Out(&mut left)];
        kernels.launch("mix", grid, block, &mut args);
        let mixed =
            |i: usize| if printed { -(keep * raw[i] + add * omega[i]) } else { keep * direction[i] - add * omega[i] };
        close(&format!("mix of {count}, printed {printed}"), &got, &(0..count).map(mixed).collect::<Vec<_>>(), 0.0)?;
        close("pairs start again", &left, &vec![0.0; count], 0.0)?;
    }
    Ok(())
}

fn pruning_against_twin(kernels: &Kernels, count: usize) -> Found {
    let mask: Vec<f32> = (0..count).map(|i| f32::from(u8::from(i % 5 != 2))).collect();
    let w: Vec<f32> = drawn(1, count).iter().zip(&mask).map(|(w, m)| w * m).collect();
    let draws: Vec<f64> = drawn(2, count).iter().map(|d| f64::from(d.abs())).collect();
    let config = PruneConfig { hazard: Share(0.8), ..PruneConfig::default() };
    let (theta, rms) = (0.4, 0.6);
    let mut got = vec![7; count];
    let (grid, block) = spread(count);
    let numbers = [config.hazard.0, config.steepness.0, theta, 1.0, rms].map(Arg::F64);
    let mut args = vec![size(count)];
    args.extend(numbers);
    args.extend([Arg::In(&w), Arg::In(&mask), Arg::WideIn(&draws), Arg::Counts(&mut got)]);
    kernels.launch("prune_candidates", grid, block, &mut args);
    drop(args);
    let wanted = |i: usize| {
        let p = config.hazard.0 * prune::probability(&config, f64::from(w[i]).abs() / rms, theta);
        u32::from(mask[i] != 0.0 && draws[i] < p)
    };
    let want: Vec<u32> = (0..count).map(wanted).collect();
    if got != want {
        return Err(format!("candidates of {count}: {got:?} for {want:?}"));
    }
    let (mut got_w, mut got_mask) = (w.clone(), mask.clone());
    let mut args = [size(count), Arg::Index(&want), Arg::Out(&mut got_w), Arg::Out(&mut got_mask)];
    kernels.launch("prune", grid, block, &mut args);
    let kept = |v: &[f32]| v.iter().zip(&want).map(|(v, gone)| if *gone == 1 { 0.0 } else { *v }).collect::<Vec<f32>>();
    close("weights", &got_w, &kept(&w), 0.0)?;
    close("mask", &got_mask, &kept(&mask), 0.0)
}
