//! Faults that an audit found, each with the test that would have shown it: prices that grew with the number of groups of
//! streams, differences that cancel, pathways without a synapse, histories read through the weights of today, and a
//! reference of the diagnostics that paid for more than the gradient it is compared with.

use std::collections::BTreeMap;

use bim::config::{Bounds, Count, Credit, DecayForm, DeltaInput, DiagnoseConfig, NeuronConfig, NonNegative};
use bim::config::{Positive, PruneConfig, Share, StdpConfig};
use bim::kernels::Real;
use bim::network::Network;
use bim::params::NetworkParams;
use bim::rule::Membrane;
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Params, Predictor, Result, Snapshot, Targets, seeded_rng};
use rand_distr::{Distribution, StandardNormal};

const FRAME: usize = 5;
const OUTPUTS: usize = 4;

type Grads = BTreeMap<String, Vec<f64>>;

fn config(layers: usize, neuron: NeuronConfig) -> BimConfig {
    BimConfig {
        width: Count(6),
        channels: Count(9),
        state: Count(4),
        heads: Count(3),
        layers: Count(layers),
        conv: Count(3),
        currents: true,
        pre: neuron,
        post: neuron,
        lambda: Share(1.0),
        ..BimConfig::default()
    }
}

fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
    let mut rng = seeded_rng(11, name);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| StandardNormal.sample(&mut rng)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("small tensor")
}

/// A network whose parameters are all off their starting points; the same numbers, to rounding, in every precision.
fn network<T: Real>(c: &BimConfig, streams: usize, segment: usize, membrane: Membrane) -> Result<(Params, Network<T>)> {
    let io = Io { input: InputKind::Frames { width: FRAME }, outputs: OUTPUTS, streams, segment };
    let mut params = Params::new(5, T::DTYPE, &Device::Cpu);
    let network = Network::new(c, &io, membrane, &mut params)?;
    for (name, var) in params.vars() {
        let moved = (var.as_tensor().to_dtype(DType::F64)? + (random(name, var.dims(), DType::F64) * 0.1)?)?;
        var.set(&moved.to_dtype(DType::F32)?.to_dtype(T::DTYPE)?)?;
    }
    Ok((params, network))
}

fn named<T: Real>(network: &Network<T>, grads: &NetworkParams<Vec<T>>) -> Grads {
    let pairs = network.names.iter().zip(grads.iter());
    pairs.map(|(name, g)| (name.clone(), g.iter().map(|v| v.wide()).collect())).collect()
}

/// Largest difference, relative to the largest gradient.
fn error(got: &[f64], want: &[f64]) -> f64 {
    let scale = want.iter().fold(1e-300f64, |m, x| m.max(x.abs()));
    got.iter().zip(want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn assert_close(case: &str, got: &Grads, want: &Grads, tolerance: f64) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, want) in want {
        assert!(want.iter().any(|x| *x != 0.0), "{case}: {name} has no gradient at all, the test would be empty");
        let error = error(&got[name], want);
        assert!(error < tolerance, "{case}: {name} differs by {error:.1e}");
    }
}

/// Gradient of the price alone, of 16 steps of 8 streams, with chunks of up to `segment` steps.
fn price_gradient(c: &BimConfig, segment: usize) -> Result<(usize, Grads)> {
    let (_params, mut network) = network::<f64>(c, 8, segment, Membrane::choose(c, 52))?;
    network.forward(&random("x", &[8, 16, FRAME], DType::F64))?;
    network.reverse(Some(&[0.0; 8 * 16 * OUTPUTS]), false)?;
    let mut grads = network.zero_grads();
    network.add_grads(&mut grads);
    let mut grads = named(&network, &grads);
    grads.retain(|_, g| g.iter().any(|g| *g != 0.0)); // the output layer pays nothing
    Ok((network.groups.len(), grads))
}

/// The price is of the mean number of spikes over all streams: streams are dealt into more groups where segments are longer,
/// and that must not matter.
#[test]
fn learner_price_groups() -> Result<()> {
    let price = NonNegative(0.5);
    let neuron = NeuronConfig { threshold: Positive(0.3), penalty: price, ..NeuronConfig::default() };
    for credit in [Credit::Hybrid, Credit::Diagonal, Credit::Tbptt] {
        let c = BimConfig { credit, ..config(2, neuron) };
        let (groups, want) = price_gradient(&c, 16)?;
        assert_eq!(groups, 1);
        for (segment, groups) in [(64, 4), (128, 8)] {
            let (found, got) = price_gradient(&c, segment)?;
            assert_eq!(found, groups, "the test would be empty");
            let norm = |g: &Grads| g.values().flatten().map(|x| x * x).sum::<f64>().sqrt();
            let ratio = norm(&got) / norm(&want);
            assert!((ratio - 1.0).abs() < 1e-12, "{credit:?}: norm × {ratio} in {groups} groups");
            assert_close(&format!("{credit:?}, segment {segment}"), &got, &want, 1e-12); // rounding of other sums
        }
    }
    Ok(())
}

/// The price as it is documented, by finite differences: neurons without spikes are smooth.
#[test]
fn price_is_of_the_mean_count() -> Result<()> {
    let neuron = |price| NeuronConfig { penalty: NonNegative(price), ..NeuronConfig::none() };
    let c = BimConfig { pre: neuron(0.3), post: neuron(0.7), credit: Credit::Bptt, ..config(2, NeuronConfig::none()) };
    let (params, mut network) = network::<f64>(&c, 8, 64, Membrane::Lag(0))?;
    let x = random("x", &[8, 16, FRAME], DType::F64);
    network.forward(&x)?;
    network.reverse(Some(&[0.0; 8 * 16 * OUTPUTS]), false)?;
    let mut grads = network.zero_grads();
    network.add_grads(&mut grads);
    let grads = named(&network, &grads);
    let mut price = |name: &str, at: usize, by: f64| -> Result<f64> {
        let (_, var) = params.vars().iter().find(|(n, _)| n == name).expect("a parameter");
        let before = var.as_tensor().copy()?;
        let mut values = before.flatten_all()?.to_vec1::<f64>()?;
        values[at] += by;
        var.set(&Tensor::from_vec(values, before.dims(), &Device::Cpu)?)?;
        network.reset(&[true; 8])?;
        network.forward(&x)?;
        var.set(&before)?;
        let mean = |spikes: &[f64], width: usize| spikes.iter().map(|s| s.abs()).sum::<f64>() / (8 * 16 * width) as f64;
        let blocks = network.groups.iter().flat_map(|g| &g.blocks);
        Ok(blocks.map(|b| 0.3 * mean(b.spikes_in(16), 6) + 0.7 * mean(b.spikes_out(16), 9)).sum())
    };
    for (name, at) in
        [("embedding", 3), ("layers.0.projection", 7), ("layers.1.norm.gain", 2), ("layers.1.post.current", 4)]
    {
        let by = 1e-6;
        let want = (price(name, at, by)? - price(name, at, -by)?) / (2.0 * by);
        let got = grads[name][at];
        assert!((got - want).abs() < 1e-6 * want.abs().max(1e-3), "{name}: {got} for {want}"); // of the difference
    }
    Ok(())
}

/// Gradient of fixed wants in chunks of seven, all step sizes at `delta`.
fn at_step_size<T: Real>(c: &BimConfig, membrane: Membrane, delta: f64) -> Result<Grads> {
    const STEPS: usize = 42;
    let (params, mut network) = network::<T>(c, 3, 7, membrane)?;
    for (name, var) in params.vars() {
        if name.ends_with("delta.weight") {
            var.set(&var.zeros_like()?)?;
        }
        if name.ends_with("delta.bias") {
            let bias = delta.exp_m1().ln() as f32;
            var.set(&Tensor::full(bias, var.dims(), &Device::Cpu)?.to_dtype(T::DTYPE)?)?;
        }
    }
    let x = random("x", &[3, STEPS, FRAME], T::DTYPE);
    let d: Vec<T> = random("d", &[3 * 7 * OUTPUTS], T::DTYPE).to_vec1()?;
    let mut grads = network.zero_grads();
    for t in (0..STEPS).step_by(7) {
        network.forward(&x.narrow(1, t, 7)?.contiguous()?)?;
        network.reverse(Some(&d), false)?;
        network.add_grads_and_finish(&mut grads)?;
    }
    Ok(named(&network, &grads))
}

/// `σ'` of a small step size is that step size, not the difference of two numbers near 1.
#[test]
fn small_delta() -> Result<()> {
    let smooth = NeuronConfig { beta: Share(0.1), ..NeuronConfig::none() }; // no spike that rounding could move
    for decay in [DecayForm::Head, DecayForm::ChannelState] {
        for membrane in [Membrane::Lag(7), Membrane::Traces] {
            let c = BimConfig { decay, ..config(1, smooth) };
            for delta in [4e-8, 1e-4] {
                let (got, want) =
                    (at_step_size::<f32>(&c, membrane, delta)?, at_step_size::<f64>(&c, membrane, delta)?);
                for name in ["layers.0.delta.bias", "layers.0.delta.weight"] {
                    let error = error(&got[name], &want[name]);
                    assert!(error < 1e-5, "{decay:?}, {membrane:?}, Δ = {delta}: {name} is off by {error:.1e}");
                }
            }
        }
    }
    Ok(())
}

/// Gradient in chunks of `k` steps while the weights move after each, as in training. At `interrupt`, everything carried goes
/// through a snapshot.
fn moving(c: &BimConfig, k: usize, membrane: Membrane, interrupt: Option<usize>) -> Result<Grads> {
    const STEPS: usize = 40;
    let (params, mut net) = network::<f64>(c, 3, k, membrane)?;
    let x = random("x", &[3, STEPS, FRAME], DType::F64);
    let target = random("y", &[3, STEPS, OUTPUTS], DType::F64);
    let mut grads = net.zero_grads();
    for t in (0..STEPS).step_by(k) {
        if interrupt == Some(t) {
            let mut snapshot = Snapshot::default();
            net.save(&mut snapshot)?;
            let io = net.io();
            net = Network::new(c, &io, membrane, &mut params.bound())?;
            net.load(&snapshot)?;
        }
        let len = k.min(STEPS - t);
        let logits = net.forward(&x.narrow(1, t, len)?.contiguous()?)?;
        let d = (logits - target.narrow(1, t, len)?)?.flatten_all()?.to_vec1::<f64>()?;
        net.reverse(Some(&d), false)?;
        net.add_grads_and_finish(&mut grads)?;
        for (name, var) in params.vars() {
            let by = (random(&format!("{name}.{t}"), var.dims(), DType::F64) * 0.02)?;
            var.set(&(var.as_tensor() + by)?)?;
        }
    }
    Ok(named(&net, &grads))
}

/// A history holds what the weights of its time made of it. Traces through the membrane keep exactly that; the lag must run
/// back over the same decays and skips, whatever the weights have become since.
#[test]
fn history_is_read_through_the_weights_of_its_time() -> Result<()> {
    let neuron = NeuronConfig { beta: Share(0.1), threshold: Positive(0.3), ..NeuronConfig::default() };
    for decay in [DecayForm::Head, DecayForm::ChannelState] {
        for delta_input in [DeltaInput::Group, DeltaInput::Full] {
            let c = BimConfig { decay, delta_input, ..config(1, neuron) };
            let lag = Membrane::choose(&c, 52);
            assert_eq!(lag, Membrane::Lag(15));
            for k in [1, 4, 7, 20] {
                let (got, want) = (moving(&c, k, lag, None)?, moving(&c, k, Membrane::Traces, None)?);
                assert_close(&format!("{decay:?}, {delta_input:?}, K = {k}"), &got, &want, 1e-10);
            }
            for k in [4, 20] {
                let (got, want) = (moving(&c, k, lag, Some(20))?, moving(&c, k, lag, None)?);
                assert_close(&format!("{decay:?}, interrupted, K = {k}"), &got, &want, 1e-14);
            }
        }
    }
    Ok(())
}

fn tokens(streams: usize, segment: usize) -> Io {
    Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams, segment }
}

fn small() -> BimConfig {
    BimConfig { width: Count(16), channels: Count(32), heads: Count(2), layers: Count(2), ..BimConfig::default() }
}

/// Every synapse gone, in every pathway: what is left still learns, in finite numbers.
#[test]
fn fully_pruned() -> Result<()> {
    for regrow in [0.0, 0.2] {
        for bounds in [Bounds::Symmetric, Bounds::Soft, Bounds::Hard, Bounds::None] {
            let prune = PruneConfig {
                target: Share(1.0),
                rate: Positive(10.0),
                hazard: Share(1.0),
                interval: Count(3),
                start: 5,
                regrow: Share(regrow),
                ..PruneConfig::default()
            };
            let stdp = StdpConfig { bounds, ..StdpConfig::default() };
            let c = BimConfig { lambda: Share(0.9), stdp, prune, ..small() };
            let mut bim = Bim::new(&c, tokens(2, 8), Optimizer::constant(0.01), 1, &Device::Cpu)?;
            let (mut most, mut last) = (0.0f64, 0.0);
            for step in 0..120u32 {
                let x = Tensor::from_iter((0..16u32).map(|i| (i * i + step) % 5), &Device::Cpu)?.reshape((2, 8))?;
                bim.predict(&x)?;
                let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
                let update = bim.learn(&Targets::Classes { class: x, weight })?;
                for value in &update.layers {
                    assert!(value.value.is_finite(), "{bounds:?}, update {step}: {value:?}");
                }
                last = update.activity.pruned_share.unwrap_or_default();
                most = most.max(last);
            }
            // what grows back lives until the next event
            assert!(if regrow > 0.0 { most > 0.9 } else { most >= 1.0 }, "{bounds:?}: at most {most} pruned");
            assert!(if regrow > 0.0 { last < 0.9 } else { last >= 1.0 }, "{bounds:?}: {last} at the end");
            for (name, values) in bim.save()?.weights {
                let values = learner::read_f32(&values)?;
                assert!(values.iter().all(|v| v.is_finite()), "{bounds:?}: {name} is not finite");
            }
        }
    }
    Ok(())
}

/// Gradient diagnostics of the last of 31 updates in chunks of four steps, through a window that reaches back to where both
/// streams began, after the first.
fn diagnosed(change: impl Fn(&mut BimConfig), rate: f64) -> Result<BTreeMap<&'static str, f64>> {
    let diagnose = DiagnoseConfig { every: 30, window: Count(128), ..DiagnoseConfig::default() };
    let mut c = BimConfig { layers: Count(1), lambda: Share(1.0), diagnose, ..small() };
    change(&mut c);
    let mut bim = Bim::new(&c, tokens(2, 4), Optimizer::constant(rate), 1, &Device::Cpu)?;
    let mut rng = seeded_rng(1, "tokens");
    let mut found = BTreeMap::new();
    for step in 0..31u32 {
        if step == 1 {
            bim.reset(&[true; 2])?;
        }
        let x: Vec<u32> = (0..8).map(|_| rand::Rng::random_range(&mut rng, 0..5)).collect();
        let x = Tensor::from_vec(x, (2, 4), &Device::Cpu)?;
        bim.predict(&x)?;
        let weight = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
        let update = bim.learn(&Targets::Classes { class: x, weight })?;
        found.extend(update.layers.iter().filter(|v| v.layer == "layers.0").map(|v| (v.quantity, v.value)));
    }
    Ok(found)
}

/// The online gradient pays for the spikes of its chunk, so the reference must pay for these alone.
#[test]
fn reference_pays_for_the_last_chunk_only() -> Result<()> {
    let price = |c: &mut BimConfig| {
        (c.pre.penalty, c.post.penalty) = (NonNegative(1e4), NonNegative(1e4)); // nearly all of the gradient
    };
    let found = diagnosed(price, 0.0)?;
    assert!((found["norm_ratio_gradient_bptt"] - 1.0).abs() < 0.05, "{found:?}");
    assert!(found["cosine_gradient_bptt"] > 0.99, "{found:?}");
    Ok(())
}

/// Three causes, told apart: weights that stand still leave neither staleness nor drift; without traces there is none to be
/// stale; and with fresh traces what is left is what the rule leaves out, more of it where no credit is carried.
#[test]
fn causes_are_told_apart() -> Result<()> {
    let of = |credit: Credit, rate: f64| diagnosed(|c| c.credit = credit, rate);
    let (still, moving) = (of(Credit::Hybrid, 0.0)?, of(Credit::Hybrid, 3e-3)?);
    let (tbptt, spatial) = (of(Credit::Tbptt, 3e-3)?, of(Credit::Spatial, 3e-3)?);
    for quantity in ["trace_staleness", "state_drift"] {
        // rounding of f32, and steps behind the lag that end in other chunks
        assert!(still[quantity] < 1e-4, "{still:?}");
        assert!(moving[quantity] > 1e-3 && moving[quantity] < 0.5, "{moving:?}");
    }
    let same = (still["cosine_fresh_bptt"] - still["cosine_gradient_bptt"]).abs();
    assert!(same < 1e-6, "{still:?}");
    assert!(moving["cosine_fresh_bptt"] > moving["cosine_gradient_bptt"], "{moving:?}");
    for none in [&tbptt, &spatial] {
        assert!(none["trace_staleness"].abs() < f64::EPSILON && none["state_drift"] > 1e-3, "{none:?}");
    }
    let fresh = |m: &BTreeMap<&str, f64>| m["cosine_fresh_bptt"];
    assert!(fresh(&moving) > 0.99 && fresh(&moving) > fresh(&tbptt) && fresh(&tbptt) > fresh(&spatial), "{tbptt:?}");
    Ok(())
}
