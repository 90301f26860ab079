use super::*;
use crate::config::Credit;
use std::collections::BTreeMap;

/// Two streams of five tokens.
fn two_streams(segment: usize) -> Io {
    Io { input: learner::InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 2, segment }
}

/// Pruned weights stay exactly zero: momentum, weight decay and STDP must not bring them back, at any λ.
#[test]
fn pruned_synapses_stay_pruned() -> Result<()> {
    use crate::config::{Count, PruneConfig, Share};
    for lambda in [1.0, 0.5] {
        let prune = PruneConfig { target: Share(0.5), start: 5, interval: Count(2), ..PruneConfig::default() };
        let config = BimConfig {
            width: Count(8),
            channels: Count(16),
            heads: Count(2),
            layers: Count(2),
            lambda: Share(lambda),
            prune,
            ..BimConfig::default()
        };
        let io = two_streams(8);
        let mut bim = Bim::new(&config, io, Optimizer::constant(0.01), 1, &Device::Cpu)?;
        for step in 0..60u32 {
            let tokens: Vec<u32> = (0..16).map(|i| (i * 7 + step * 3) % 5).collect();
            let x = Tensor::from_vec(tokens, (2, 8), &Device::Cpu)?;
            bim.predict(&x)?;
            let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
            bim.learn(&Targets::Classes { class: x, weight })?;
        }
        let mut zeros = 0;
        for block in &bim.network.params.blocks {
            let u = block.projection.narrow(0, 0, 16)?;
            for w in [&u, &block.out] {
                zeros += learner::read_f32(w)?.iter().filter(|w| **w == 0.0).count();
            }
        }
        let pruned = bim.plasticity.pruned().unwrap_or_default();
        assert!(pruned > 50, "only {pruned} pruned: the test would be empty");
        assert_eq!(zeros, pruned, "λ = {lambda}");
    }
    Ok(())
}

/// Mean loss before and after some training on a periodic sequence.
fn trained(config: &BimConfig, updates: u64) -> Result<[f64; 2]> {
    let io = two_streams(8);
    let mut bim = Bim::new(config, io, Optimizer::constant(0.02), 1, &Device::Cpu)?;
    let mut losses = Vec::new();
    for step in 0..updates as u32 {
        let token = |t: u32| (t * t) % 5;
        let row = |shift: u32| (0..16u32).map(move |i| token(step * 8 + i % 8 + shift));
        bim.predict(&Tensor::from_iter(row(0), &Device::Cpu)?.reshape((2, 8))?)?;
        let class = Tensor::from_iter(row(1), &Device::Cpu)?.reshape((2, 8))?;
        let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
        losses.extend(bim.learn(&Targets::Classes { class, weight })?.loss);
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    Ok([mean(&losses[..5]), mean(&losses[losses.len() - 5..])])
}

fn small() -> BimConfig {
    use crate::config::Count;
    BimConfig { width: Count(16), channels: Count(32), heads: Count(2), layers: Count(2), ..BimConfig::default() }
}

/// Eq. 4 with its printed sign moves every synapse up the gradient; corrected and normalised it moves down, and the loss
/// falls.
#[test]
fn printed_mixing_ascends_and_corrected_mixing_descends() -> Result<()> {
    use crate::config::{Mixing, Share};
    // AdamW's first direction has the sign of the gradient, whatever its size
    let still = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
    let first_move = |mixing: Mixing| -> Result<Vec<f32>> {
        let config = BimConfig { lambda: Share(1.0), mixing, ..small() };
        let train = Optimizer { adamw: still, ..Optimizer::constant(0.01) };
        let mut bim = Bim::new(&config, two_streams(8), train, 1, &Device::Cpu)?;
        let class = Tensor::from_iter((0..16u32).map(|i| i * i % 5), &Device::Cpu)?.reshape((2, 8))?;
        let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
        let before = learner::read_f32(&bim.network.params.blocks[0].out)?;
        bim.predict(&class)?;
        bim.learn(&Targets::Classes { class, weight })?;
        let after = learner::read_f32(&bim.network.params.blocks[0].out)?;
        Ok(after.iter().zip(before).map(|(after, before)| after - before).collect())
    };
    let (printed, corrected) = (first_move(Mixing::AsPrinted)?, first_move(Mixing::Normalised)?);
    let moved = printed.iter().zip(&corrected).filter(|(p, c)| **p != 0.0 && **c != 0.0);
    let products: Vec<f32> = moved.map(|(p, c)| p * c).collect();
    assert!(
        products.len() > printed.len() / 4,
        "{} of {} moved: the test would be empty",
        products.len(),
        printed.len()
    );
    assert!(products.iter().all(|&p| p < 0.0), "the same gradient, opposite ways");
    let [before, after] = trained(&BimConfig { lambda: Share(0.9), ..small() }, 150)?;
    assert!(after < 0.5 * before, "corrected: {before} to {after}");
    Ok(())
}

/// Diagnostics against backpropagation through time: one layer's online gradient is nearly that, and what is left is the
/// age of its traces; without temporal credit it is not.
#[test]
fn diagnostics_tell_exact_credit_from_none() -> Result<()> {
    use crate::config::{Count, DiagnoseConfig};
    let measure = |credit: Credit| -> Result<BTreeMap<&'static str, f64>> {
        let diagnose = DiagnoseConfig { every: 40, window: Count(96), ..DiagnoseConfig::default() };
        let config = BimConfig { layers: Count(1), credit, diagnose, lambda: crate::config::Share(1.0), ..small() };
        let io = two_streams(4);
        let mut bim = Bim::new(&config, io, Optimizer::constant(1e-3), 1, &Device::Cpu)?;
        let mut rng = learner::seeded_rng(1, "tokens");
        let mut found = BTreeMap::new();
        for step in 0..81u32 {
            if step == 70 {
                bim.reset(&[false, true])?; // inside the window of the last diagnosis
            }
            let tokens: Vec<u32> = (0..8).map(|_| rand::Rng::random_range(&mut rng, 0..5)).collect();
            let x = Tensor::from_vec(tokens, (2, 4), &Device::Cpu)?;
            bim.predict(&x)?;
            let weight = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
            let update = bim.learn(&Targets::Classes { class: x, weight })?;
            found.extend(update.layers.iter().filter(|v| v.layer == "layers.0").map(|v| (v.quantity, v.value)));
        }
        Ok(found)
    };
    let (hybrid, spatial) = (measure(Credit::Hybrid)?, measure(Credit::Spatial)?);
    let cosine = |m: &BTreeMap<&str, f64>| m["cosine_gradient_bptt"];
    assert!(cosine(&hybrid) > 0.98, "{hybrid:?}");
    assert!((hybrid["norm_ratio_gradient_bptt"] - 1.0).abs() < 0.1, "{hybrid:?}");
    assert!(hybrid["trace_staleness"] > 0.0 && hybrid["trace_staleness"] < 0.2, "{hybrid:?}");
    assert!(cosine(&spatial) < cosine(&hybrid) - 0.01, "{spatial:?}");
    Ok(())
}

/// What is measured changes nothing that is learned, and every pathway with neurons at both ends is measured.
#[test]
fn time_differences_are_measured_beside_the_learning() -> Result<()> {
    use crate::config::{Count, DiagnoseConfig, Lag, Share};
    let run = |lambda: f64, most: usize| -> Result<(Vec<f64>, Vec<LayerValue>)> {
        let diagnose = DiagnoseConfig {
            time_differences: Lag(most),
            time_differences_every: Count(3),
            ..DiagnoseConfig::default()
        };
        let config = BimConfig { lambda: Share(lambda), diagnose, ..small() };
        let io = two_streams(8);
        let mut bim = Bim::new(&config, io, Optimizer::constant(0.02), 1, &Device::Cpu)?;
        let (mut losses, mut layers) = (Vec::new(), Vec::new());
        for step in 0..12u32 {
            let tokens: Vec<u32> = (0..16).map(|i| (i * 7 + step * 3) % 5).collect();
            let x = Tensor::from_vec(tokens, (2, 8), &Device::Cpu)?;
            bim.predict(&x)?;
            let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
            let update = bim.learn(&Targets::Classes { class: x, weight })?;
            losses.extend([update.loss.unwrap_or_default(), update.update_norm]);
            layers.extend(update.layers.into_iter().filter(|v| v.quantity.contains("_at_dt_")));
        }
        Ok((losses, layers))
    };
    let (losses, none) = run(0.5, 0)?;
    let (same, layers) = run(0.5, 4)?;
    assert_eq!(losses, same);
    assert!(none.is_empty());
    let has = |rows: &[LayerValue], layer: &str, quantity: &str| {
        rows.iter().any(|v| v.layer == layer && v.quantity == quantity && v.value.is_finite())
    };
    for layer in ["layers.0.input", "layers.0.output", "layers.1.input"] {
        for quantity in ["gradient", "direction", "stdp", "mixed", "pairs"] {
            for lag in -4..=4 {
                assert!(has(&layers, layer, &format!("{quantity}_at_dt_{lag}")), "{layer} {quantity} {lag}");
            }
        }
    }
    assert!(!layers.iter().any(|v| v.layer == "layers.1.output"), "no neuron is behind the last block");
    let (_, gradient_alone) = run(1.0, 4)?;
    assert!(has(&gradient_alone, "layers.0.input", "gradient_at_dt_1"));
    assert!(!gradient_alone.iter().any(|v| v.quantity.starts_with("stdp") || v.quantity.starts_with("mixed")));
    Ok(())
}

/// A state that runs away ends the cell with the layer's name and the value, not with a table of NaN.
#[test]
fn divergence_names_update_layer_and_value() -> Result<()> {
    let io = Io { input: learner::InputKind::Frames { width: 2 }, outputs: 2, streams: 1, segment: 4 };
    let mut bim = Bim::new(&small(), io, Optimizer::constant(1e-3), 1, &Device::Cpu)?;
    bim.predict(&Tensor::new(&[[[0f32, 1.], [0., 1.], [f32::NAN, 1.], [0., 1.]]], &Device::Cpu)?)?;
    let class = Tensor::zeros((1, 4), DType::U32, &Device::Cpu)?;
    let weight = Tensor::ones((1, 4), DType::F32, &Device::Cpu)?;
    match bim.learn(&Targets::Classes { class, weight }) {
        Err(Error::Diverged { quantity: "state", value, update: 0, layer: Some(layer) }) => {
            assert!(value.is_nan() && layer == "layers.0", "{layer} {value}");
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn exact_credit_refuses_a_stack_and_says_why() {
    let config = BimConfig { credit: Credit::Exact, ..BimConfig::default() };
    let message = config.check().expect_err("four layers").to_string();
    assert!(message.contains("one layer, got 4") && message.contains("hybrid"), "{message}");
}

/// Frames of two numbers for four streams in two groups, and what learning from them said.
fn learned(bim: &mut Bim, steps: usize) -> Result<Update> {
    let x: Vec<f32> = (0..4 * steps * 2).map(|i| ((i * 37 % 101) as f32 - 50.0) / 20.0).collect();
    bim.predict(&Tensor::from_vec(x, (4, steps, 2), &Device::Cpu)?)?;
    let class = Tensor::zeros((4, steps), DType::U32, &Device::Cpu)?;
    let weight = Tensor::ones((4, steps), DType::F32, &Device::Cpu)?;
    bim.learn(&Targets::Classes { class, weight })
}

fn four_streams() -> Result<Bim> {
    let io = Io { input: learner::InputKind::Frames { width: 2 }, outputs: 2, streams: 4, segment: 64 };
    Bim::new(&small(), io, Optimizer::constant(1e-3), 1, &Device::Cpu)
}

/// Rates of firing are over all neurons, steps and groups of streams.
#[test]
fn firing_is_per_neuron_and_step() -> Result<()> {
    let mut bim = four_streams()?;
    let update = learned(&mut bim, 64)?;
    // the spikes are still there: the chunk's tape is overwritten by the next
    let mut spikes = [0.0; 2];
    assert_eq!(bim.network.groups.len(), 2);
    for block in bim.network.groups.iter().map(|g| &g.blocks[0]) {
        for (sum, part) in spikes.iter_mut().zip([block.spikes_in(64), block.spikes_out(64)]) {
            *sum += part.iter().map(|s| f64::from(s.abs())).sum::<f64>();
        }
    }
    let neurons = [16.0, 32.0];
    for (i, name) in ["layers.0.pre", "layers.0.post"].into_iter().enumerate() {
        let row = update.layers.iter().find(|v| v.layer == name && v.quantity == "spikes_per_step").map(|v| v.value);
        let want = spikes[i] / (neurons[i] * 4.0 * 64.0);
        assert!(want > 0.0 && row.is_some_and(|got| (got - want).abs() < 1e-12), "{name}: {row:?} for {want}");
    }
    // operations too are per step and stream
    let per_row = update.layers.iter().filter(|v| v.quantity == "synaptic_acs").map(|v| v.value).sum::<f64>();
    let all = update.operations.map_or(0.0, |o| o.forward.acs as f64);
    assert!(all > 0.0 && (per_row * 4.0 * 64.0 / all - 1.0).abs() < 1e-9, "{per_row} a row of {all}");
    Ok(())
}

/// A chunk without a loss teaches nothing, but what it did is told.
#[test]
fn a_chunk_without_a_loss_tells_its_rate_and_activity() -> Result<()> {
    let prune =
        crate::config::PruneConfig { target: crate::config::Share(0.5), ..crate::config::PruneConfig::default() };
    let io = Io { input: learner::InputKind::Frames { width: 2 }, outputs: 2, streams: 4, segment: 64 };
    let mut bim = Bim::new(&BimConfig { prune, ..small() }, io, Optimizer::constant(1e-3), 1, &Device::Cpu)?;
    let mut tell = |weight: f64| -> Result<Update> {
        bim.predict(&Tensor::ones((4, 8, 2), DType::F32, &Device::Cpu)?)?;
        let class = Tensor::zeros((4, 8), DType::U32, &Device::Cpu)?;
        bim.learn(&Targets::Classes { class, weight: Tensor::full(weight as f32, (4, 8), &Device::Cpu)? })
    };
    let silent = tell(0.0)?;
    assert!(silent.loss.is_none() && silent.updates == 0 && (silent.learning_rate - 1e-3).abs() < 1e-15);
    let Activity { spike_sparsity, activation_sparsity, connection_sparsity, pruned_share } = silent.activity;
    assert!(spike_sparsity.is_some() && activation_sparsity.is_some() && connection_sparsity.is_some());
    assert_eq!(pruned_share, Some(0.0));
    assert_eq!(tell(1.0)?.activity.pruned_share, Some(0.0));
    Ok(())
}

#[test]
fn operations_are_counted_until_it_is_switched_off() -> Result<()> {
    let mut bim = four_streams()?;
    assert!(learned(&mut bim, 8)?.operations.is_some());
    bim.set_counting(false);
    assert!(learned(&mut bim, 8)?.operations.is_none());
    bim.set_counting(true);
    assert!(learned(&mut bim, 8)?.operations.is_some());
    Ok(())
}

/// Segments may be shorter than was said, but neither empty nor longer: that is told before anything takes note of them.
#[test]
fn segments_are_as_long_as_was_said() -> Result<()> {
    let mut bim = four_streams()?;
    let mut evaluator = bim.evaluator(4)?;
    assert_eq!((bim.segment_len(), evaluator.segment_len()), (64, 64));
    // an evaluator has as many streams as it was asked for
    bim.evaluator(2)?.predict(&Tensor::zeros((2, 3, 2), DType::F32, &Device::Cpu)?)?;
    for predictor in [&mut bim as &mut dyn Predictor, &mut *evaluator] {
        for steps in [0, 65] {
            let x = Tensor::zeros((4, steps, 2), DType::F32, &Device::Cpu)?;
            let message = predictor.predict(&x).expect_err("a wrong length").to_string();
            assert!(message.contains("segment length") && message.contains("1..=64"), "{message}");
        }
        for steps in [1, 64] {
            predictor.predict(&Tensor::zeros((4, steps, 2), DType::F32, &Device::Cpu)?)?;
        }
    }
    Ok(())
}

/// What a sample shows is what the kernels sent: the first stream of each population, in its place.
#[test]
fn what_is_sent_is_what_the_first_stream_fired() -> Result<()> {
    use crate::config::{Count, Levels, ReadoutConfig};
    let readout = ReadoutConfig { levels: Levels::Integer, ..ReadoutConfig::default() };
    let config = BimConfig {
        width: Count(8),
        channels: Count(16),
        heads: Count(2),
        layers: Count(2),
        readout,
        ..BimConfig::default()
    };
    let bim = Bim::new(&config, two_streams(8), Optimizer::constant(0.01), 1, &Device::Cpu)?;
    let x = Tensor::from_iter((0..16u32).map(|i| i * i % 5), &Device::Cpu)?.reshape((2, 8))?;
    let sent = bim.evaluator(2)?.sent(&x)?;
    let names: Vec<&str> = sent.iter().map(|s| s.layer.as_str()).collect();
    assert_eq!(names, ["layers.0.pre", "layers.0.post", "layers.1.pre", "layers.1.post", "readout"]);
    let mut network = Network::<f32>::new(&config, &two_streams(8), Membrane::Lag(0), &mut bim.params.bound())?;
    network.forward(&x)?;
    let group = &network.groups[0];
    for (s, (fired, neurons)) in sent.iter().zip([
        (group.blocks[0].spikes_in(8), 8),
        (group.blocks[0].spikes_out(8), 16),
        (group.blocks[1].spikes_in(8), 8),
        (group.blocks[1].spikes_out(8), 16),
        (group.head_inputs(8), 8),
    ]) {
        let first: Vec<f32> = fired.chunks(neurons).step_by(2).flatten().copied().collect();
        assert_eq!((s.neurons, &s.levels), (neurons, &first), "{}", s.layer);
        assert!(s.levels.iter().any(|level| *level != 0.0), "{} is silent: the test would be empty", s.layer);
    }
    let analog = NeuronConfig::none();
    let silent = BimConfig { pre: analog, post: analog, readout: ReadoutConfig::default(), ..config };
    let bim = Bim::new(&silent, two_streams(8), Optimizer::constant(0.01), 1, &Device::Cpu)?;
    assert!(bim.evaluator(2)?.sent(&x)?.is_empty(), "numbers are no spikes");
    Ok(())
}
