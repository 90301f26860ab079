use candle_core::{DType, Tensor};
use learner::{Learner, Params, Predictor};

use super::*;
use crate::config::{
    BelowOne, Count, Credit, DecayForm, Front, Levels, NeuronConfig, NonNegative, Positive, Share, Step,
};
use crate::fixture::{SEGMENT, STREAMS, VOCABULARY, assert_same_weights, interrupted, io, learn, small, tokens};
use crate::params::NetworkParams;
use crate::rule::Membrane;
use crate::{Bim, Optimizer};

fn config(pre: f64, post: f64) -> BimConfig {
    let neuron = NeuronConfig { threshold: Positive(0.4), ..NeuronConfig::default() };
    let targets = HomeostasisConfig { pre: NonNegative(pre), post: NonNegative(post), ..HomeostasisConfig::default() };
    BimConfig { pre: neuron, post: neuron, homeostasis: targets, ..small() }
}

fn bim(config: &BimConfig, rate: f64) -> Result<Bim> {
    crate::fixture::bim(config, SEGMENT, rate)
}

/// Logarithms of all thresholds, in the order of [`Homeostasis`].
fn logarithms(bim: &Bim) -> Result<Vec<Vec<f32>>> {
    let held = bim.homeostasis.as_ref().map_or(&[][..], |h| &h.held);
    let tensors = held.iter().filter_map(|held| Homeostasis::tensor(&bim.network, held));
    tensors.map(learner::read_f32).collect()
}

#[test]
fn a_threshold_follows_its_rate() {
    for (mean, want) in [(0.3, 0.5), (0.5, 0.52), (0.2, 0.49), (0.0, 0.47)] {
        let got = next_threshold(0.5, 0.0, mean, 0.3, 0.1);
        assert!((got - want).abs() < 1e-12, "{mean}: {got}");
    }
    let widest = 1024f64.ln();
    assert_eq!(next_threshold(widest, 0.0, 4.0, 0.3, 0.1).to_bits(), widest.to_bits());
    assert_eq!(next_threshold(1.0 - widest, 1.0, 0.0, 0.3, 0.1).to_bits(), (1.0 - widest).to_bits());
}

/// Thresholds, neuron by neuron, from spikes alone: the running mean of the mean level over steps and streams, then the step.
#[test]
fn thresholds_move_as_the_equation_says() -> Result<()> {
    let mut c = config(0.5, 0.2);
    (c.homeostasis.rate, c.homeostasis.decay) = (Positive(0.3), BelowOne(0.75));
    let mut bim = bim(&c, 0.02)?;
    let ends = [(0, false, 8, 0.5), (0, true, 16, 0.2), (1, false, 8, 0.5), (1, true, 16, 0.2)];
    let mut running: Vec<Vec<f64>> = Vec::new();
    let (mut moved, mut silent) = (0, 0);
    for chunk in 0..6 {
        let before = logarithms(&bim)?;
        learn(&mut bim, chunk)?;
        let after = logarithms(&bim)?;
        assert_eq!(after.len(), 4);
        for (i, (layer, post, n, target)) in ends.into_iter().enumerate() {
            let rates = rates_of(&bim, (layer, post, n));
            if running.len() <= i {
                running.push(rates.clone());
            }
            for j in 0..n {
                running[i][j] = 0.75 * running[i][j] + 0.25 * rates[j];
                let want = f64::from(before[i][j]) + 0.3 * (running[i][j] - target);
                let got = f64::from(after[i][j]);
                assert!((got - want).abs() < 1e-6, "{chunk}: {layer} {post} {j}: {got} for {want}"); // f32 rounding
                moved += usize::from((got - f64::from(before[i][j])).abs() > 1e-3);
                silent += usize::from(rates[j] == 0.0);
            }
        }
    }
    assert!(moved > 100 && silent < 200, "{moved} {silent}: hardly a test");
    Ok(())
}

/// Rates of a population in the chunk last run, from its spikes.
fn rates_of(bim: &Bim, (layer, post, n): (usize, bool, usize)) -> Vec<f64> {
    let mut rates = vec![0.0; n];
    for block in bim.network.groups.iter().map(|group| &group.blocks[layer]) {
        let levels = if post { block.spikes_out(SEGMENT) } else { block.spikes_in(SEGMENT) };
        for (at, level) in levels.iter().enumerate() {
            rates[at % n] += f64::from(level.abs()) / (SEGMENT * STREAMS) as f64;
        }
    }
    rates
}

/// The mean rate of every neuron comes to its target and stays there, from far off. Weights learn meanwhile, and what they do to rates
/// thresholds follow with a lag: hence 15 %.
#[test]
fn rates_converge_to_the_target() -> Result<()> {
    let mut bim = bim(&config(0.5, 0.25), 0.0005)?;
    let ends = [(0, false, 8), (0, true, 16), (1, false, 8), (1, true, 16)];
    let (updates, last) = (1500, 600);
    let mut sums = [vec![0.0; 8], vec![0.0; 16], vec![0.0; 8], vec![0.0; 16]];
    let mut first = Vec::new();
    for chunk in 0..updates {
        learn(&mut bim, chunk)?;
        if chunk == 0 {
            first = ends.map(|end| rates_of(&bim, end)).to_vec();
        }
        if chunk + last >= updates {
            for (sum, end) in sums.iter_mut().zip(ends) {
                sum.iter_mut().zip(rates_of(&bim, end)).for_each(|(sum, rate)| *sum += rate / last as f64);
            }
        }
    }
    for ((first, mean), (layer, post, _)) in first.iter().zip(&sums).zip(ends) {
        let target = if post { 0.25 } else { 0.5 };
        let far = |rates: &[f64]| rates.iter().filter(|r| (*r / target - 1.0).abs() > 0.15).count();
        assert!(far(first) * 4 > 3 * first.len(), "{layer} {post}: {first:.2?}: hardly a test");
        assert_eq!(far(mean), 0, "{layer} {post}: {first:.2?} → {mean:.3?} at {:.2?}", logarithms(&bim)?);
    }
    Ok(())
}

/// Numbers of each parameter.
type ByName = std::collections::BTreeMap<String, Vec<f64>>;

/// Runs chunks at weights that stand still: logits and the sum of their gradients, by name.
fn gradients(
    c: &BimConfig,
    membrane: Membrane,
    chunk: usize,
    set: &dyn Fn(&str, &Tensor) -> Result<Option<Tensor>>,
) -> Result<(Vec<f64>, ByName)> {
    const STEPS: usize = 24;
    let mut params = Params::new(5, DType::F64, &Device::Cpu);
    let mut network = Network::<f64>::new(c, &io(chunk), membrane, &mut params)?;
    for (name, var) in params.vars() {
        if let Some(value) = set(name, var.as_tensor())? {
            var.set(&value)?;
        }
    }
    let mut grads: NetworkParams<Vec<f64>> = network.zero_grads();
    let mut logits = Vec::new();
    for at in (0..STEPS).step_by(chunk) {
        let out = network.forward(&tokens(at, (at + chunk).min(STEPS))?)?.flatten_all()?.to_vec1::<f64>()?;
        // a loss that depends on the step alone, not on the chunk
        let steps = out.len() / STREAMS / VOCABULARY;
        let want = |i: usize| {
            let (b, t, o) = (i / VOCABULARY / steps, at + i / VOCABULARY % steps, i % VOCABULARY);
            ((b * 31 + t * 17 + o * 7) % 13) as f64 / 6.5 - 1.0
        };
        let d: Vec<f64> = (0..out.len()).map(want).collect();
        network.reverse(Some(&d), false)?;
        network.add_grads_and_finish(&mut grads)?;
        logits.extend(out);
    }
    Ok((logits, network.names.iter().cloned().zip(grads.iter().cloned()).collect()))
}

/// A network whose neurons have thresholds of their own is, at frozen thresholds, one with a threshold for all and other weights: a
/// presynaptic neuron's gain and current, and a postsynaptic neuron's row of `W_u` and current, are divided by its threshold, in units of
/// the common one. Logits and gradients are the same, but for that factor: forward, inside the chunk and by traces, whose exactness for
/// such a network other tests prove.
#[test]
fn credit_at_frozen_thresholds_is_that_of_the_rescaled_network() -> Result<()> {
    let base = BimConfig { currents: true, ..config(0.5, 0.25) };
    let slow = |mut c: BimConfig| {
        (c.pre.beta, c.post.beta, c.kernel) = (Share(0.8), Share(0.99), Share(0.3));
        c
    };
    let factor = |j: usize| [1.0f64, 0.5, 2.0, 0.25, 4.0][j % 5]; // powers of two: divisions are exact, so spikes are the same
    for (name, c) in [
        ("hybrid", base.clone()),
        ("front", BimConfig { front: Front::Traces, ..base.clone() }),
        ("slow", slow(BimConfig { front: Front::Traces, conv: Count(2), ..base.clone() })),
        ("per state", slow(BimConfig { decay: DecayForm::ChannelState, delays: Count(2), ..base.clone() })),
        ("eprop", BimConfig { credit: Credit::Eprop, front: Front::Traces, ..base.clone() }),
        ("spatial", BimConfig { credit: Credit::Spatial, ..base.clone() }),
    ] {
        let plain = BimConfig { homeostasis: HomeostasisConfig::default(), ..c.clone() };
        let membrane = Membrane::choose(&c, 52);
        for chunk in [1, 7, 24] {
            let own = |name: &str, t: &Tensor| -> Result<Option<Tensor>> {
                let n = t.elem_count();
                if !name.ends_with("threshold") {
                    return Ok(None);
                }
                let values: Vec<f64> = (0..n).map(|j| (0.4 * factor(j)).ln()).collect();
                Ok(Some(Tensor::new(&values[..], &Device::Cpu)?))
            };
            let columns = |name: &str| match name.split('.').collect::<Vec<_>>()[..] {
                ["layers", _, "norm", "gain"] | ["layers", _, "pre" | "post", "current"] => Some(1),
                ["layers", _, "projection"] => Some(8),
                _ => None,
            };
            // rows of W_u alone: those of W_B and W_C stay
            let divisor = move |name: &str, at: usize| match columns(name) {
                Some(1) => factor(at),
                Some(columns) if at / columns < 16 => factor(at / columns),
                _ => 1.0,
            };
            let rescaled = |name: &str, t: &Tensor| -> Result<Option<Tensor>> {
                let values = t.flatten_all()?.to_vec1::<f64>()?;
                let values: Vec<f64> = values.into_iter().enumerate().map(|(i, w)| w / divisor(name, i)).collect();
                Ok(Some(Tensor::from_vec(values, t.dims(), &Device::Cpu)?))
            };
            let (logits, got) = gradients(&c, membrane, chunk, &own)?;
            let (same, want) = gradients(&plain, membrane, chunk, &rescaled)?;
            let (untouched, _) = gradients(&plain, membrane, chunk, &|_, _| Ok(None))?;
            let far = |a: &[f64], b: &[f64]| {
                let scale = b.iter().fold(1e-12f64, |m, x| m.max(x.abs()));
                a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
            };
            assert!(far(&logits, &same) < 1e-9, "{name}, {chunk}: logits differ by {}", far(&logits, &same));
            assert!(far(&logits, &untouched) > 1e-2, "{name}, {chunk}: thresholds do nothing");
            for (parameter, got) in &got {
                if parameter.ends_with("threshold") {
                    assert!(got.iter().all(|g| *g == 0.0), "{name}: the gradient moves {parameter}");
                    continue;
                }
                let want: Vec<f64> =
                    want[parameter].iter().enumerate().map(|(i, g)| g / divisor(parameter, i)).collect();
                assert!(want.iter().any(|g| *g != 0.0), "{name}: {parameter} has no gradient");
                assert!(far(got, &want) < 1e-9, "{name}, {chunk}: {parameter} differs by {}", far(got, &want));
            }
        }
    }
    Ok(())
}

/// Scoring uses the thresholds that learning has reached, also after they moved on.
#[test]
fn evaluation_follows_the_thresholds() -> Result<()> {
    let mut c = config(0.5, 0.2);
    c.homeostasis.rate = Positive(0.2);
    let mut bim = bim(&c, 0.0)?; // weights stand still: thresholds alone change answers
    let mut evaluator = bim.evaluator(STREAMS)?;
    let mut answers: Vec<Vec<f32>> = Vec::new();
    for round in 0..3 {
        for chunk in 0..4 {
            learn(&mut bim, 4 * round + chunk)?;
        }
        bim.reset(&[true; STREAMS])?;
        evaluator.reset(&[true; STREAMS])?;
        let x = tokens(0, SEGMENT)?;
        let of = |t: Tensor| learner::read_f32(&t.flatten_all()?);
        let (a, b) = (of(evaluator.predict(&x)?)?, of(bim.predict(&x)?)?);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{round}");
        answers.push(a);
    }
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "thresholds do nothing");
    Ok(())
}

/// A run that is interrupted goes on to the same bits.
#[test]
fn rates_and_thresholds_survive_a_snapshot() -> Result<()> {
    let c = config(0.5, 0.2);
    let (whole, mut second, saved) = interrupted(&c, learn, 4, 8)?;
    assert_same_weights(&whole, &second)?;
    let (want, got) = (whole.save()?, second.save()?);
    let rates = |s: &Snapshot| -> Result<Vec<u64>> {
        Ok(s.optimizer[RATES].to_vec1::<f64>()?.into_iter().map(f64::to_bits).collect())
    };
    assert_eq!(rates(&want)?, rates(&got)?);
    let threshold = learner::read_f32(&want.weights["layers.1.post.threshold"])?;
    assert!(threshold.iter().any(|t| (f64::from(*t) - 0.4f64.ln()).abs() > 1e-3), "{threshold:?}");
    let mut short = saved;
    short.optimizer.insert(RATES.to_owned(), Tensor::new(&[0.0f64; 2], &Device::Cpu)?);
    assert!(second.load(&short).expect_err("another shape").to_string().contains(RATES));
    Ok(())
}

/// Without targets nothing is there. With them, learning alone pays; a threshold is a parameter.
#[test]
fn homeostasis_is_paid_by_learning_and_off_by_default() -> Result<()> {
    let (mut without, mut with) = (bim(&config(0.0, 0.0), 0.01)?, bim(&config(0.5, 0.2), 0.01)?);
    let saved = without.save()?;
    assert!(!saved.optimizer.contains_key(RATES) && !saved.weights.keys().any(|name| name.ends_with("threshold")));
    let neurons = 2 * (8 + 16);
    assert_eq!(with.cost().parameters - without.cost().parameters, neurons);
    let [a, b] = [&mut without, &mut with].map(|bim| learn(bim, 0).map(|u| u.operations.expect("counted")));
    let (a, b) = (a?, b?);
    assert_eq!(b.reverse.elementwise - a.reverse.elementwise, neurons * (2 * (STREAMS * SEGMENT) as u64 + 10));
    assert_eq!((a.forward, a.traces, a.stdp), (b.forward, b.traces, b.stdp));
    assert_eq!(b.coverage().to_bits(), 1f64.to_bits());
    let planned = crate::plan(&config(0.5, 0.2), io(SEGMENT), Optimizer::constant(0.01), &Device::Cpu)?;
    assert_eq!(planned.parameters, with.cost().parameters);
    Ok(())
}

#[test]
fn rates_that_make_no_sense_are_refused_with_their_key() {
    let refused = |key: &str, change: fn(&mut BimConfig)| {
        let mut c = config(0.5, 0.25);
        change(&mut c);
        let message = c.check().expect_err(key).to_string();
        assert!(message.starts_with(&format!("{key}: ")), "{key}: {message}");
    };
    config(0.5, 0.25).check().expect("it fits together");
    refused("homeostasis", |c| {
        (c.homeostasis.pre, c.homeostasis.post, c.homeostasis.rate) =
            (NonNegative(0.0), NonNegative(0.0), Positive(0.3));
    });
    refused("homeostasis.pre", |c| c.pre = NeuronConfig::none());
    refused("homeostasis.post", |c| c.post.levels = Levels::Quantised);
    refused("homeostasis.pre", |c| c.homeostasis.pre = NonNegative(4.0));
    refused("homeostasis.post", |c| (c.post.levels, c.homeostasis.post) = (Levels::Binary, NonNegative(1.0)));
    refused("homeostasis.pre", |c| c.energy_target = NonNegative(0.3));
    refused("pre.step", |c| c.pre.step = Step::Learned);
    refused("post.attached_reset", |c| c.post.attached_reset = true);
}
