//! The CUDA kernels, compiled for the host, against their twins in Rust, a file for each source. Runs wherever a C++ compiler is.

mod encode;
mod plasticity;
mod row;
mod scan;
mod trace;

use std::path::{Path, PathBuf};

use bim::config::{Count, Levels, NeuronConfig, Positive, Reset, Share, Surrogate};
use bim::kernels::neuron::Neuron;
use bim::kernels::scan::{self as twin, Dynamics, ScanTape, Scratch, Span};
use bim::kernels::{Decay, Dims};
use standins::{Arg, drawn};

type Found = Result<(), String>;

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
    // a history is made as the network makes it: the chunks before it, one step after another, under the weights of their time
    for t in 0..lag {
        let way = 0.1 * (lag - t) as f32;
        let a_log: Vec<f32> = a_log.iter().map(|a| a - way).collect();
        let skip = scaled(&skip, 1.0 - way);
        let dynamics = Dynamics { a_log: &a_log, skip: &skip, ..dynamics };
        let row = Span { streams, lag: t, steps: 1 };
        let z = drawn(30 + t as u64, streams * dims.heads);
        let mut one =
            ScanTape { rates: zeros((t + 1) * dims.decays()), skips: zeros((t + 1) * dims.channels), ..tape.clone() };
        twin::step_sizes(&dims, &dynamics, row, &z, &mut one);
        (tape.delta, tape.a) = (one.delta, one.a);
        tape.rates[t * dims.decays()..][..dims.decays()]
            .copy_from_slice(&one.rates[t * dims.decays()..][..dims.decays()]);
        tape.skips[t * dims.channels..][..dims.channels].copy_from_slice(&skip);
    }
    let z = drawn(8, span.steps * streams * dims.heads);
    twin::step_sizes(&dims, &dynamics, span, &z, &mut tape);
    let mut h = drawn(9, streams * dims.states());
    let before = h.clone();
    let mut s = zeros(span.steps * streams * dims.channels);
    twin::forward(&dims, neuron, &dynamics, span, &mut tape, &mut h, &mut s, &mut Scratch::default());
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
