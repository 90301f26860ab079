//! The claim that "exact" means exact: chunked online credit against backpropagation through time, and the fused kernels
//! against a step-by-step twin in plain tensor operations under automatic differentiation.

use bim::BimConfig;
use bim::config::{
    Bits, Count, Credit, DecayForm, DeltaInput, Front, Levels, NeuronConfig, Positive, ReadoutConfig, Reset, Share,
    SpikeCode, Step, Surrogate,
};
use bim::diagnose::through_time;
use bim::kernels::Real;
use bim::network::Network;
use bim::rule::Membrane;
use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, ParamSource, Params, Result};

use crate::common::{Grads, add, assert_close, before_blocks, collect, error, named, random, upstream};
use crate::twin::Twin;

const STREAMS: usize = 3;
const FRAME: usize = 5;
const OUTPUTS: usize = 4;
const STEPS: usize = 48;

fn config(layers: usize, neuron: NeuronConfig) -> BimConfig {
    BimConfig {
        width: Count(6),
        channels: Count(9),
        state: Count(4),
        heads: Count(3),
        layers: Count(layers),
        conv: Count(3),
        pre: neuron,
        post: neuron,
        lambda: Share(1.0),
        ..BimConfig::default()
    }
}

/// Neurons that differ in every respect that the credit depends on. `β` is high where the membrane should matter.
fn neurons() -> Vec<(&'static str, NeuronConfig)> {
    let base = NeuronConfig {
        beta: Share(0.85),
        threshold: Positive(0.3),
        resistance: Positive(4.0), // so that every population fires
        ..NeuronConfig::default()
    };
    vec![
        ("integer, detached leaky reset", base),
        ("integer, attached reset", NeuronConfig { attached_reset: true, reset: Reset::Subtract, ..base }),
        (
            "binary, attached subtracting reset, fast sigmoid",
            NeuronConfig {
                levels: Levels::Binary,
                attached_reset: true,
                reset: Reset::Subtract,
                surrogate: Surrogate::FastSigmoid,
                surrogate_slope: Positive(5.0),
                ..base
            },
        ),
        ("signed, no reset", NeuronConfig { levels: Levels::Signed, reset: Reset::None, ..base }),
        ("quantised", {
            // nothing resets it, so it needs the wider range
            let levels = NeuronConfig { levels: Levels::Quantised, bits: Bits(4), ..base };
            NeuronConfig { threshold: Positive(0.6), attached_reset: true, ..levels }
        }),
        ("none", NeuronConfig::none()),
        ("learned step, weighted", NeuronConfig { step: Step::Learned, spikes: SpikeCode::Weighted, ..base }),
        ("learned step, subtracting reset, fast sigmoid", {
            let surrogate = NeuronConfig { surrogate: Surrogate::FastSigmoid, surrogate_slope: Positive(5.0), ..base };
            NeuronConfig { step: Step::Learned, reset: Reset::Subtract, levels: Levels::Unsigned, ..surrogate }
        }),
        ("learned step, quantised", {
            let levels = NeuronConfig { levels: Levels::Quantised, bits: Bits(3), ..base };
            NeuronConfig { threshold: Positive(0.6), step: Step::Learned, ..levels }
        }),
    ]
}

/// A read-out with neurons like these, without their membrane.
fn readout(neuron: &NeuronConfig) -> ReadoutConfig {
    if neuron.levels == Levels::Analog {
        return ReadoutConfig::default(); // no neurons, and so nothing to say of them
    }
    let &NeuronConfig { levels, bits, threshold, step, spikes, surrogate, surrogate_slope, .. } = neuron;
    let burst = Count(2);
    ReadoutConfig {
        levels,
        burst,
        bits,
        threshold,
        step,
        spikes,
        surrogate,
        surrogate_slope,
        ..ReadoutConfig::default()
    }
}

/// Blocks that differ in everything in front of `ψ` and in the form of the state space.
fn blocks(c: &BimConfig) -> Vec<(&'static str, BimConfig)> {
    let full = DeltaInput::Full;
    let mut blocks = vec![
        ("convolution", c.clone()),
        ("SiLU, full Δ", BimConfig { silu: true, delta_input: full, ..c.clone() }),
        ("delays, kernel", BimConfig { conv: Count(1), delays: Count(3), kernel: Share(0.4), ..c.clone() }),
        ("ON and OFF cells, currents", BimConfig { population: Count(2), currents: true, ..c.clone() }),
        ("decay per state", BimConfig { decay: DecayForm::ChannelState, currents: true, ..c.clone() }),
        ("decay per state, full Δ, no gate", {
            BimConfig { decay: DecayForm::ChannelState, delta_input: full, gate: false, ..c.clone() }
        }),
        ("read-out through neurons", BimConfig { readout: readout(&c.pre), ..c.clone() }),
    ];
    // a step in front of a delay line is refused
    blocks.retain(|(_, c)| c.pre.step == Step::Fixed || c.delays.0 == 1);
    blocks
}

/// The same with traces for what stands in front of `ψ`, and one block more, in which it has everything at once.
fn fronts(c: &BimConfig) -> Vec<(&'static str, BimConfig)> {
    let mut blocks = blocks(c);
    if c.pre.step == Step::Fixed {
        blocks.push(("all in front of ψ", {
            let conv = BimConfig { conv: Count(3), silu: true, delays: Count(3), kernel: Share(0.4), ..c.clone() };
            BimConfig { population: Count(2), currents: true, ..conv }
        }));
    }
    blocks.into_iter().map(|(name, c)| (name, BimConfig { front: Front::Traces, ..c })).collect()
}

/// A network whose parameters are all off their symmetric starting points.
fn network<T: Real>(c: &BimConfig, streams: usize, segment: usize, membrane: Membrane) -> Result<(Params, Network<T>)> {
    let io = Io { input: InputKind::Frames { width: FRAME }, outputs: OUTPUTS, streams, segment };
    let mut params = Params::new(5, T::DTYPE, &Device::Cpu);
    let network = Network::new(c, &io, membrane, &mut params)?;
    for (name, var) in params.vars() {
        var.set(&(var.as_tensor() + (random(name, var.dims(), T::DTYPE) * 0.1)?)?)?;
    }
    Ok((params, network))
}

/// Gradient by chunks of `k` steps, with weights held still. `starts` lists (step, stream) where a stream begins anew; a
/// chunk never spans one. The loss is half the squared distance to fixed targets: additive over steps.
fn chunked<T: Real>(c: &BimConfig, k: usize, membrane: Membrane, starts: &[(usize, usize)]) -> Result<Grads> {
    let (_params, mut network) = network::<T>(c, STREAMS, k, membrane)?;
    let x = random("x", &[STREAMS, STEPS, FRAME], T::DTYPE);
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], T::DTYPE);
    let mut grads = network.zero_grads();
    let mut t = 0;
    while t < STEPS {
        let marks: Vec<bool> = (0..STREAMS).map(|b| starts.contains(&(t, b))).collect();
        network.reset(&marks)?;
        let next_start = starts.iter().map(|s| s.0).filter(|s| *s > t).min().unwrap_or(STEPS);
        let len = k.min(STEPS - t).min(next_start - t);
        let logits = network.forward(&x.narrow(1, t, len)?.contiguous()?)?;
        let d = (logits - target.narrow(1, t, len)?)?.flatten_all()?.to_vec1::<T>()?;
        network.reverse(Some(&d), false)?;
        network.add_grads_and_finish(&mut grads)?; // as the learner does; the other tests take the two apart
        t += len;
    }
    Ok(named(&network, &grads))
}

/// Logits of every step `[B, T, O]` on the graph.
fn forward_slow(c: &BimConfig, params: &Params, x: &Tensor) -> Result<Tensor> {
    Ok(Twin::new(c, x.dim(0)?, Twin::on(params.vars()))?.run(x)?.0)
}

fn bptt_slow(c: &BimConfig) -> Result<Grads> {
    let (params, _) = network::<f64>(c, STREAMS, STEPS, Membrane::Lag(0))?;
    let logits = forward_slow(c, &params, &random("x", &[STREAMS, STEPS, FRAME], DType::F64))?;
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], DType::F64);
    collect(params.vars(), &((logits - target)?.sqr()?.sum_all()? * 0.5)?)
}

fn bptt(c: &BimConfig) -> Result<Grads> {
    let c = BimConfig { credit: Credit::Bptt, front: Front::Chunk, ..c.clone() };
    chunked::<f64>(&c, STEPS, Membrane::Lag(0), &[])
}

#[test]
fn fused_kernels_equal_step_by_step_autograd() -> Result<()> {
    for (name, neuron) in neurons() {
        for (block, c) in blocks(&config(2, neuron)) {
            // two orders of summation in f64
            assert_close(&format!("{name}, {block}"), &bptt(&c)?, &bptt_slow(&c)?, 1e-10, |_| true);
        }
    }
    Ok(())
}

#[test]
fn one_layer_is_exact_for_any_chunk_length() -> Result<()> {
    for (name, neuron) in neurons() {
        for (block, c) in blocks(&BimConfig { credit: Credit::Exact, ..config(1, neuron) }) {
            let want = bptt(&c)?;
            for k in [1, 7, 32, STEPS] {
                let got = chunked::<f64>(&c, k, Membrane::Traces, &[])?;
                assert_close(&format!("{name}, {block}, K = {k}"), &got, &want, 1e-10, |p| !upstream(p));
            }
        }
    }
    Ok(())
}

#[test]
fn lag_is_exact_where_the_membrane_forgets_within_it() -> Result<()> {
    let neuron = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (block, c) in blocks(&config(1, neuron)) {
        let want = bptt(&c)?;
        let membrane = Membrane::choose(&c, 52);
        assert_eq!(membrane, Membrane::Lag(15), "0.1^16 is below f64 rounding");
        for k in [1, 7, 32, STEPS] {
            let got = chunked::<f64>(&c, k, membrane, &[])?;
            assert_close(&format!("{block}, K = {k}"), &got, &want, 1e-10, |p| !upstream(p));
        }
        let short = chunked::<f64>(&c, 7, Membrane::Lag(1), &[])?;
        assert!(error(&short["layers.0.projection"], &want["layers.0.projection"]) > 1e-10, "the lag matters");
    }
    Ok(())
}

#[test]
fn the_top_layer_of_a_stack_is_exact_and_whole_sequences_are_exact_everywhere() -> Result<()> {
    let (_, neuron) = neurons().swap_remove(1);
    for (block, c) in blocks(&config(3, neuron)) {
        let want = bptt(&c)?;
        for k in [1, 7, 32] {
            let got = chunked::<f64>(&c, k, Membrane::Traces, &[])?;
            let top = |p: &str| (p.starts_with("layers.2.") || !p.starts_with("layers.")) && !upstream(p);
            assert_close(&format!("{block}: top layer, K = {k}"), &got, &want, 1e-10, top);
            let lower = error(&got["layers.0.projection"], &want["layers.0.projection"]);
            assert!(lower > 1e-3, "a lower layer is an approximation");
        }
        let got = chunked::<f64>(&c, STEPS, Membrane::Traces, &[])?;
        assert_close(&format!("{block}: K = T"), &got, &want, 1e-10, |_| true);
    }
    Ok(())
}

#[test]
fn diagonal_and_eprop_do_not_depend_on_the_chunk() -> Result<()> {
    for (name, neuron) in neurons() {
        for (block, c) in blocks(&config(2, neuron)) {
            let case = format!("{name}, {block}");
            let stepwise =
                chunked::<f64>(&BimConfig { credit: Credit::Hybrid, ..c.clone() }, 1, Membrane::Traces, &[])?;
            let diagonal = BimConfig { credit: Credit::Diagonal, ..c.clone() };
            for k in [1, 7, STEPS] {
                // by definition: hybrid with chunks of one step
                let got = chunked::<f64>(&diagonal, k, Membrane::Traces, &[])?;
                assert_close(&format!("{case}: diagonal, K = {k}"), &got, &stepwise, 1e-10, |p| !upstream(p));
            }
            let eprop = BimConfig { credit: Credit::Eprop, ..c.clone() };
            let want = chunked::<f64>(&eprop, 1, Membrane::choose(&eprop, 52), &[])?;
            let got = chunked::<f64>(&eprop, 7, Membrane::choose(&eprop, 52), &[])?;
            assert_close(&format!("{case}: eprop"), &got, &want, 1e-10, |_| true);
        }
    }
    // without a membrane that remembers there is nothing that eprop drops from a single layer
    let c = config(1, NeuronConfig { beta: Share(0.0), threshold: Positive(0.3), ..NeuronConfig::default() });
    let got = chunked::<f64>(&BimConfig { credit: Credit::Eprop, ..c.clone() }, 7, Membrane::Lag(0), &[])?;
    assert_close("eprop, β = 0", &got, &bptt(&c)?, 1e-10, |p| !upstream(p));
    Ok(())
}

#[test]
fn streams_that_start_at_different_times_do_not_mix() -> Result<()> {
    let starts = [(0, 0), (0, 1), (0, 2), (13, 1), (20, 0), (20, 2), (35, 1)];
    let slow = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (neuron, membrane) in [(neurons().swap_remove(1).1, Membrane::Traces), (slow, Membrane::Lag(15))] {
        for (block, c) in blocks(&config(1, neuron)) {
            let alone = recordings_alone(&c, &starts)?;
            for k in [1, 7, STEPS] {
                let got = chunked::<f64>(&c, k, membrane, &starts)?;
                assert_close(&format!("{block}, {membrane:?}, K = {k}"), &got, &alone, 1e-10, |p| !upstream(p));
            }
        }
    }
    Ok(())
}

/// Every recording by itself in a network of one stream, by backpropagation over its whole length.
fn recordings_alone(c: &BimConfig, starts: &[(usize, usize)]) -> Result<Grads> {
    let c = BimConfig { credit: Credit::Bptt, front: Front::Chunk, ..c.clone() };
    let x = random("x", &[STREAMS, STEPS, FRAME], DType::F64);
    let target = random("y", &[STREAMS, STEPS, OUTPUTS], DType::F64);
    let mut sum = Grads::new();
    for &(from, stream) in starts {
        let to = starts.iter().filter(|s| s.1 == stream && s.0 > from).map(|s| s.0).min().unwrap_or(STEPS);
        let (_params, mut network) = network::<f64>(&c, 1, to - from, Membrane::Lag(0))?;
        let part = |t: &Tensor| t.narrow(0, stream, 1)?.narrow(1, from, to - from)?.contiguous();
        let d = (network.forward(&part(&x)?)? - part(&target)?)?.flatten_all()?.to_vec1::<f64>()?;
        network.reverse(Some(&d), false)?;
        let mut grads = network.zero_grads();
        network.add_grads(&mut grads);
        for (name, values) in named(&network, &grads) {
            add(&mut sum, &name, values);
        }
    }
    Ok(sum)
}

/// With traces for what stands in front of `ψ` too, nothing of a layer is left to the chunk.
#[test]
fn the_front_is_exact_for_any_chunk_length() -> Result<()> {
    for (name, neuron) in neurons() {
        for (block, c) in fronts(&BimConfig { credit: Credit::Exact, ..config(1, neuron) }) {
            let want = bptt(&c)?;
            for k in [1, 3, 7, 32, STEPS] {
                let got = chunked::<f64>(&c, k, Membrane::Traces, &[])?;
                let case = format!("{name}, {block}, K = {k}");
                assert_close(&case, &got, &want, 1e-10, |p| !before_blocks(p));
            }
            // without them it is not, so the test is one
            let chunk = chunked::<f64>(&BimConfig { front: Front::Chunk, ..c }, 7, Membrane::Traces, &[])?;
            let lost = error(&chunk["layers.0.norm.gain"], &want["layers.0.norm.gain"]);
            assert!(lost > 1e-6, "{name}, {block}: credit for the gain inside the chunk is within {lost:.0e}");
        }
    }
    Ok(())
}

#[test]
fn the_front_is_exact_behind_a_lag_too() -> Result<()> {
    let fast = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    let stepped = NeuronConfig { step: Step::Learned, burst: Count(8), ..fast };
    // presynaptic neurons may remember longer than postsynaptic ones
    let slow = NeuronConfig { beta: Share(0.85), attached_reset: true, reset: Reset::Subtract, ..fast };
    for (pre, post) in [(fast, fast), (stepped, stepped), (slow, fast)] {
        for (block, c) in fronts(&BimConfig { post, ..config(1, pre) }) {
            let want = bptt(&c)?;
            for k in [1, 3, 7, 32, STEPS] {
                let got = chunked::<f64>(&c, k, Membrane::Lag(15), &[])?;
                assert_close(&format!("{block}, K = {k}"), &got, &want, 1e-10, |p| !before_blocks(p));
            }
        }
    }
    Ok(())
}

#[test]
fn the_front_of_streams_that_start_at_different_times_does_not_mix() -> Result<()> {
    let starts = [(0, 0), (0, 1), (0, 2), (13, 1), (20, 0), (20, 2), (35, 1)];
    let fast = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (neuron, membrane) in [(neurons().swap_remove(1).1, Membrane::Traces), (fast, Membrane::Lag(15))] {
        for (block, c) in fronts(&config(1, neuron)) {
            let alone = recordings_alone(&c, &starts)?;
            for k in [1, 3, 7, 32] {
                let got = chunked::<f64>(&c, k, membrane, &starts)?;
                assert_close(&format!("{block}, {membrane:?}, K = {k}"), &got, &alone, 1e-10, |p| !before_blocks(p));
            }
        }
    }
    Ok(())
}

/// The top layer of a stack with all that is its own; the layers below, and what stands before them, are approximations.
#[test]
fn the_front_of_the_top_layer_of_a_stack_is_exact() -> Result<()> {
    let (_, neuron) = neurons().swap_remove(1);
    for (block, c) in fronts(&config(3, neuron)) {
        let want = bptt(&c)?;
        for k in [1, 3, 7, 32] {
            let got = chunked::<f64>(&c, k, Membrane::Traces, &[])?;
            let top = |p: &str| (p.starts_with("layers.2.") || !p.starts_with("layers.")) && !before_blocks(p);
            assert_close(&format!("{block}: top layer, K = {k}"), &got, &want, 1e-10, top);
            assert!(error(&got["layers.0.norm.gain"], &want["layers.0.norm.gain"]) > 1e-3, "{block}, K = {k}");
        }
        let got = chunked::<f64>(&c, STEPS, Membrane::Traces, &[])?;
        assert_close(&format!("{block}: K = T"), &got, &want, 1e-10, |_| true);
    }
    Ok(())
}

/// The other rules with traces: nothing hangs on the chunk, and where they drop nothing they are exact.
#[test]
fn the_front_under_diagonal_and_eprop_does_not_depend_on_the_chunk() -> Result<()> {
    for (name, neuron) in neurons() {
        for (block, c) in fronts(&config(2, neuron)) {
            let stepwise = chunked::<f64>(&c, 1, Membrane::Traces, &[])?;
            let diagonal = BimConfig { credit: Credit::Diagonal, ..c.clone() };
            for k in [7, STEPS] {
                let got = chunked::<f64>(&diagonal, k, Membrane::Traces, &[])?;
                let case = format!("{name}, {block}: diagonal, K = {k}");
                assert_close(&case, &got, &stepwise, 1e-10, |p| !before_blocks(p));
            }
            let eprop = BimConfig { credit: Credit::Eprop, ..c };
            let want = chunked::<f64>(&eprop, 1, Membrane::Lag(0), &[])?;
            let got = chunked::<f64>(&eprop, 7, Membrane::Lag(0), &[])?;
            assert_close(&format!("{name}, {block}: eprop"), &got, &want, 1e-10, |_| true);
        }
    }
    let forgets = NeuronConfig { beta: Share(0.0), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (block, c) in fronts(&config(1, forgets)) {
        for credit in [Credit::Diagonal, Credit::Eprop] {
            let got = chunked::<f64>(&BimConfig { credit, ..c.clone() }, 7, Membrane::Lag(0), &[])?;
            assert_close(&format!("{block}: {credit:?}, β = 0"), &got, &bptt(&c)?, 1e-10, |p| !before_blocks(p));
        }
    }
    Ok(())
}

#[test]
fn the_front_in_single_precision_is_close_too() -> Result<()> {
    let neuron = NeuronConfig { beta: Share(0.3), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (block, c) in fronts(&config(1, neuron)) {
        let whole = BimConfig { credit: Credit::Bptt, front: Front::Chunk, ..c.clone() };
        let want = chunked::<f32>(&whole, STEPS, Membrane::Lag(0), &[])?;
        for (k, membrane) in [(1, Membrane::Traces), (7, Membrane::choose(&c, 24)), (32, Membrane::choose(&c, 24))] {
            let got = chunked::<f32>(&c, k, membrane, &[])?;
            let case = format!("{block}, K = {k}, {membrane:?}");
            assert_close(&case, &got, &want, 1e-4, |p| !before_blocks(p));
        }
    }
    Ok(())
}

#[test]
fn adjoints_handed_from_chunk_to_chunk_are_backpropagation_through_time() -> Result<()> {
    let starts = [(21, 1)];
    for (_, neuron) in neurons() {
        for (block, c) in blocks(&BimConfig { credit: Credit::Bptt, ..config(2, neuron) }) {
            let x = random("x", &[STREAMS, STEPS, FRAME], DType::F64);
            let d: Vec<f64> = random("d", &[STREAMS * 7 * OUTPUTS], DType::F64).to_vec1()?;
            // the whole sequence with a loss at its last seven steps; stream 1 begins at step 21, so it is given alone
            let mut want = Grads::new();
            for stream in 0..STREAMS {
                let from = if stream == 1 { 21 } else { 0 };
                let (_params, mut network) = network::<f64>(&c, 1, STEPS, Membrane::Lag(0))?;
                network.forward(&x.narrow(0, stream, 1)?.narrow(1, from, STEPS - from)?.contiguous()?)?;
                let mut d_all = vec![0.0; (STEPS - from) * OUTPUTS];
                let at = d_all.len() - 7 * OUTPUTS;
                d_all[at..].copy_from_slice(&d[stream * 7 * OUTPUTS..][..7 * OUTPUTS]);
                network.reverse(Some(&d_all), false)?;
                let mut grads = network.zero_grads();
                network.add_grads(&mut grads);
                for (name, values) in named(&network, &grads) {
                    add(&mut want, &name, values);
                }
            }
            let cuts = [0, 2, 21, 22, 34, 41, STEPS];
            let chunks: Vec<(Vec<bool>, Tensor)> = cuts
                .windows(2)
                .map(|w| {
                    let marks = (0..STREAMS).map(|b| starts.contains(&(w[0], b))).collect();
                    Ok((marks, x.narrow(1, w[0], w[1] - w[0])?.contiguous()?))
                })
                .collect::<Result<_>>()?;
            let (_params, mut network) = network::<f64>(&c, STREAMS, 19, Membrane::Lag(0))?;
            let grads = through_time(&mut network, &chunks, &d, |_| Ok(()))?;
            assert_close(block, &named(&network, &grads), &want, 1e-10, |_| true);
        }
    }
    Ok(())
}

#[test]
fn single_precision_is_close_too() -> Result<()> {
    // spikes can differ where a potential rounds across a threshold, so the reference is the same precision at K = T
    let neuron = NeuronConfig { beta: Share(0.3), threshold: Positive(0.3), ..NeuronConfig::default() };
    for (block, c) in blocks(&config(1, neuron)) {
        let want = chunked::<f32>(&c, STEPS, Membrane::Traces, &[])?;
        for (k, membrane) in [(1, Membrane::Traces), (7, Membrane::choose(&c, 24)), (32, Membrane::choose(&c, 24))] {
            let got = chunked::<f32>(&c, k, membrane, &[])?;
            assert_close(&format!("{block}, K = {k}, {membrane:?}"), &got, &want, 1e-4, |p| !upstream(p));
        }
    }
    Ok(())
}

/// Two passes: logits alone, then `softmax − γ` step by step. The reference is the loss by its definition, as a sum over all
/// paths, under automatic differentiation.
#[test]
fn ctc_in_two_passes_is_exact_at_frozen_weights() -> Result<()> {
    const FEW: usize = 6;
    let labels = [1u32, 3];
    let (_, neuron) = neurons().swap_remove(0);
    let c = config(1, neuron);
    let x = random("x", &[1, FEW, FRAME], DType::F64);
    let (params, _) = network::<f64>(&c, 1, FEW, Membrane::Lag(0))?;
    let logits = forward_slow(&c, &params, &x)?.squeeze(0)?; // [T, V]
    let log_p = logits.broadcast_sub(&logits.exp()?.sum_keepdim(1)?.log()?)?;
    let mut paths = Vec::new();
    for code in 0..OUTPUTS.pow(FEW as u32) {
        let path: Vec<u32> = (0..FEW).map(|t| (code / OUTPUTS.pow(t as u32) % OUTPUTS) as u32).collect();
        let mut collapsed: Vec<u32> = path.clone();
        collapsed.dedup();
        collapsed.retain(|&s| s != 0);
        if collapsed == labels {
            let index = Tensor::from_vec(path, (FEW, 1), &Device::Cpu)?;
            paths.push(log_p.gather(&index, 1)?.sum_all()?);
        }
    }
    let loss = Tensor::stack(&paths, 0)?.exp()?.sum_all()?.log()?.neg()?;
    let want = collect(params.vars(), &loss)?;

    let (_params, mut network) = network::<f64>(&c, 1, 2, Membrane::Traces)?;
    let mut logits: Vec<f64> = Vec::new();
    for t in (0..FEW).step_by(2) {
        logits.extend(network.forward(&x.narrow(1, t, 2)?.contiguous()?)?.flatten_all()?.to_vec1::<f64>()?);
        network.finish()?;
    }
    let narrow: Vec<f32> = logits.iter().map(|&z| z as f32).collect();
    let aligned = learner::ctc::align(&narrow, OUTPUTS, &labels, 0)?;
    assert!((aligned.loss - loss.to_scalar::<f64>()?).abs() < 1e-5, "logits are kept as f32");
    network.reset(&[true])?;
    let mut grads = network.zero_grads();
    for t in (0..FEW).step_by(2) {
        network.forward(&x.narrow(1, t, 2)?.contiguous()?)?;
        let rows = t * OUTPUTS..(t + 2) * OUTPUTS;
        let mut d = Vec::new();
        for (z, gamma) in logits[rows.clone()].chunks(OUTPUTS).zip(aligned.posterior[rows].chunks(OUTPUTS)) {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            d.extend(z.iter().zip(gamma).map(|(z, &g)| z.exp() / sum - f64::from(g)));
        }
        network.reverse(Some(&d), false)?;
        network.add_grads(&mut grads);
        network.finish()?;
    }
    // posteriors are kept as f32
    assert_close("CTC", &named(&network, &grads), &want, 1e-5, |p| !upstream(p));
    Ok(())
}

/// A source of parameters must be asked for every one in the same order, or gradients would go to the wrong ones.
#[test]
fn names_follow_the_order_of_creation() -> Result<()> {
    let (_, neuron) = neurons().swap_remove(0);
    for (block, c) in blocks(&config(2, neuron)) {
        let (params, network) = network::<f64>(&c, 1, 4, Membrane::Lag(0))?;
        let created: Vec<&String> = params.vars().iter().map(|(n, _)| n).collect();
        assert_eq!(created, network.names.iter().collect::<Vec<_>>(), "{block}");
        let shapes = params.vars().iter().map(|(_, v)| v.elem_count());
        assert!(shapes.eq(network.params.iter().map(Tensor::elem_count)), "{block}");
        assert!(params.dtype() == DType::F64);
    }
    Ok(())
}
