//! One update, number by number: `Δw = −η [λ ĝ − (1−λ) Ω̂]` (eq. 4, sign corrected) with bounds, warm-up of λ, clipping of the
//! gradient, weight decay and rates by kind of parameter, and the masks of pruning.

use bim::config::{
    Bounds, Count, DecayForm, Levels, Mixing, NeuronConfig, NonNegative, Positive, PruneConfig, PruneRule, Rates,
    ReadoutConfig, Share, StdpConfig, Step, Third,
};
use bim::kernels::prune;
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor};
use learner::{AdamWConfig, InputKind, Io, Learner, Predictor, Result, Snapshot, Targets, seeded_rng};

use crate::common::{Grads, numbers, random};
use crate::pairs::{pair_sum, pathways, twin_of, unequal, wide};

const STREAMS: usize = 3;
const SEGMENT: usize = 8;
const VOCABULARY: usize = 7;
const RATE: f64 = 0.05;
const ADAMW: AdamWConfig = AdamWConfig { beta1: 0.8, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };

fn config() -> BimConfig {
    let neuron = NeuronConfig { threshold: Positive(0.4), beta: Share(0.3), ..NeuronConfig::default() };
    BimConfig {
        width: Count(6),
        channels: Count(8),
        state: Count(3),
        heads: Count(2),
        layers: Count(2),
        delays: Count(2),
        currents: true,
        pre: neuron,
        post: neuron,
        lambda: Share(0.7),
        lambda_warmup: 3,
        stdp: unequal(),
        rates: Rates {
            decay: NonNegative(0.5),
            delta: NonNegative(0.25),
            neurons: NonNegative(2.0),
            steps: NonNegative(3.0),
        },
        ..BimConfig::default()
    }
}

fn learner(c: &BimConfig, clip: f64) -> Result<Bim> {
    let input = InputKind::Tokens { vocabulary: VOCABULARY };
    let io = Io { input, outputs: VOCABULARY, streams: STREAMS, segment: SEGMENT };
    Bim::new(c, io, Optimizer { adamw: ADAMW, clip, ..Optimizer::constant(RATE) }, 4, &Device::Cpu)
}

fn chunk(index: u64) -> Result<Tensor> {
    let ids = numbers(&random(&format!("tokens {index}"), &[STREAMS, SEGMENT], DType::F64))?;
    let ids: Vec<u32> = ids.into_iter().map(|x| (x.abs() * 1e6) as u32 % VOCABULARY as u32).collect();
    Ok(Tensor::from_vec(ids, (STREAMS, SEGMENT), &Device::Cpu)?)
}

/// Predicts and learns one chunk; the norm of its gradient, and its loss.
fn norm_and_loss(bim: &mut Bim, index: u64) -> Result<(f64, f64)> {
    bim.predict(&chunk(index)?)?;
    let weight = Tensor::ones((STREAMS, SEGMENT), DType::F32, &Device::Cpu)?;
    let update = bim.learn(&Targets::Classes { class: chunk(index + 1000)?, weight })?;
    Ok((update.grad_norm, update.loss.expect("a loss")))
}

/// The norm alone.
fn update(bim: &mut Bim, index: u64) -> Result<f64> {
    Ok(norm_and_loss(bim, index)?.0)
}

/// The third factor of the last of a few losses: how far it lies below the mean of those before, over the root mean square of what each of
/// these was off the mean before it.
fn third_factor(c: &StdpConfig, losses: &[f64]) -> f64 {
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    match (c.third_factor, losses.len()) {
        (Third::None, _) => 1.0,
        (Third::Error, 0..=2) => 0.0,
        (Third::Error, n) => {
            let (last, before) = (losses[n - 1], &losses[..n - 1]);
            let off: Vec<f64> = (1..n - 1).map(|k| (before[k] - mean(&before[..k])).powi(2)).collect();
            ((mean(before) - last) / mean(&off).sqrt()).clamp(-3.0, 3.0)
        }
    }
}

fn weights(snapshot: &Snapshot) -> Result<Grads> {
    snapshot.weights.iter().map(|(name, w)| Ok((name.clone(), numbers(w)?))).collect()
}

/// `ĝ` after `updates` updates, and the clipped gradient of the last: both from the optimiser's moments.
fn directions(before: &Snapshot, after: &Snapshot, name: &str, updates: i32) -> Result<[Vec<f64>; 2]> {
    let moment = |s: &Snapshot, which: &str| numbers(&s.optimizer[&format!("{name}.{which}")]);
    let (m0, m, v) = (moment(before, "first")?, moment(after, "first")?, moment(after, "second")?);
    let (correct1, correct2) = (1.0 - ADAMW.beta1.powi(updates), 1.0 - ADAMW.beta2.powi(updates));
    let direction = m.iter().zip(&v).map(|(m, v)| m / correct1 / ((v / correct2).sqrt() + ADAMW.epsilon)).collect();
    let gradient = m0.iter().zip(&m).map(|(m0, m)| (m - ADAMW.beta1 * m0) / (1.0 - ADAMW.beta1)).collect();
    Ok([direction, gradient])
}

fn rms(w: &[f64]) -> f64 {
    (w.iter().map(|w| w * w).sum::<f64>() / w.len() as f64).sqrt()
}

/// STDP's change by how far the weight is from its bounds: `x = w / w_max`.
fn bounded(c: &StdpConfig, omega: f64, w: f64, w_max: f64) -> f64 {
    let x = (w / w_max).clamp(-1.0, 1.0);
    match c.bounds {
        Bounds::None | Bounds::Hard => omega,
        Bounds::Soft if omega > 0.0 => omega * (1.0 - x) / 2.0,
        Bounds::Soft => omega * (1.0 + x) / 2.0,
        Bounds::Symmetric => omega * (1.0 - x * x),
    }
}

/// Factor on the rate, and whether weight decay applies: matrices of synapses yes; gains, biases, decays and taps no.
fn group(c: &BimConfig, name: &str) -> (f64, bool) {
    let kind = name.trim_start_matches("layers.").trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    match (name.starts_with("layers."), kind) {
        (false, "embedding" | "head.weight") | (true, "projection" | "gate" | "out") => (1.0, true),
        (false, "norm.gain" | "head.bias") | (true, "skip") => (1.0, false),
        (true, "delta.weight") => (c.rates.delta.0, true),
        (true, "delta.bias") => (c.rates.delta.0, false),
        (true, "a_log") => (c.rates.decay.0, false),
        (true, "pre.step" | "post.step") | (false, "readout.step") => (c.rates.steps.0, false),
        (true, "norm.gain" | "conv" | "delays" | "pre.current" | "post.current") => (c.rates.neurons.0, false),
        _ => panic!("{name} is new: say how it learns"),
    }
}

/// Follows a learner through some updates and predicts every weight after each.
fn follow(c: &BimConfig) -> Result<()> {
    follow_clipped(c, 1.0)
}

/// The same with gradients clipped at `clip`, which some of them must exceed.
fn follow_clipped(c: &BimConfig, clip: f64) -> Result<()> {
    let mut bim = learner(c, clip)?;
    let mut twin = twin_of(c, STREAMS, &bim.save()?)?;
    let (mut spikes, mut mean_square) = (Vec::new(), std::collections::BTreeMap::new());
    let (mut cut, mut clipped, mut losses) = (0, 0, Vec::new());
    for t in 0..6 {
        let before = bim.save()?;
        let (norm, loss) = norm_and_loss(&mut bim, t)?;
        losses.push(loss);
        let factor = third_factor(&c.stdp, &losses);
        let after = bim.save()?;
        let lambda = 1.0 - (1.0 - c.lambda.0) * (t as f64 / c.lambda_warmup.max(1) as f64).min(1.0);
        let lambda = if c.lambda_warmup == 0 { c.lambda.0 } else { lambda };
        twin.set_params(wide(&before)?);
        let from = spikes.len();
        spikes.extend(twin.run(&chunk(t)?)?.1);
        let paired = pathways(c, &spikes)?;
        let scale = if norm > clip { norm / clip } else { 1.0 };
        clipped += usize::from(norm > clip);
        let mut squares = 0.0;
        for ((name, w), got) in weights(&before)?.iter().zip(weights(&after)?.values()) {
            let [mut direction, gradient] = directions(&before, &after, name, t as i32 + 1)?;
            squares += gradient.iter().map(|g| g * g).sum::<f64>();
            let mut limit = f64::INFINITY;
            if let Some((_, pre, post)) = paired.iter().find(|p| p.0 == *name) {
                let omega = pair_sum(&c.stdp, pre, post, from, &[])?;
                let n = omega.len();
                let w_max = c.stdp.limit.0 * rms(&w[..n]);
                let omega: Vec<f64> =
                    omega.iter().zip(w).map(|(o, w)| bounded(&c.stdp, factor * o, *w, w_max)).collect();
                let means: &mut [f64; 2] = mean_square.entry(name.clone()).or_default();
                for (mean, now) in means.iter_mut().zip([rms(&direction[..n]), rms(&omega)]) {
                    *mean = 0.99 * *mean + 0.01 * now * now;
                }
                let ratio = if means[1] > 0.0 { (means[0] / means[1]).sqrt() } else { 0.0 };
                for ((d, g), o) in direction.iter_mut().zip(&gradient).zip(&omega) {
                    *d = match c.mixing {
                        Mixing::Normalised => lambda * *d - (1.0 - lambda) * ratio * o,
                        Mixing::AsPrinted => -(lambda * g * scale + (1.0 - lambda) * o),
                    };
                }
            }
            let (rate, decays) = group(c, name);
            let keep = if decays { 1.0 - RATE * rate * ADAMW.weight_decay } else { 1.0 };
            let mut want: Vec<f64> = w.iter().zip(&direction).map(|(w, d)| keep * w - RATE * rate * d).collect();
            let plastic = match name.as_str() {
                n if n.ends_with("projection") => c.channels.0 * c.neurons(),
                n if n.starts_with("layers") && n.ends_with("out") => want.len(),
                _ => 0,
            };
            if c.stdp.bounds == Bounds::Hard && plastic > 0 {
                limit = c.stdp.limit.0 * rms(&want[..plastic]);
            }
            for w in want[..plastic].iter_mut().filter(|w| w.abs() > limit) {
                (*w, cut) = (limit * w.signum(), cut + 1);
            }
            let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // steps are about 0.05, and STDP's part of them as many times larger as the third factor is
            assert!(worst < 1e-5 * (1.0 + factor.abs()) / 2.0, "update {t}: {name} differs by {worst:.1e} at {factor}");
        }
        assert!((squares.sqrt() - norm.min(clip)).abs() < 1e-4, "{} of {norm}", squares.sqrt());
    }
    assert!(twin.margin > 1e-6, "a spike hangs on {:.1e}, rounding could turn it; change the data", twin.margin);
    let factors: Vec<f64> = (3..=losses.len()).map(|n| third_factor(&c.stdp, &losses[..n])).collect();
    let [better, worse] = [factors.iter().any(|m| *m > 0.1), factors.iter().any(|m| *m < -0.1)];
    assert!(c.stdp.third_factor == Third::None || better && worse, "{factors:?}: one sign alone");
    assert!(clipped > 0, "no gradient was clipped");
    assert_eq!(cut > 0, c.stdp.bounds == Bounds::Hard, "{cut} weights were cut off");
    Ok(())
}

#[test]
fn every_weight_moves_by_equation_4() -> Result<()> {
    for bounds in [Bounds::None, Bounds::Hard, Bounds::Soft, Bounds::Symmetric] {
        let stdp = StdpConfig { bounds, limit: Positive(1.5), ..unequal() };
        follow(&BimConfig { stdp, ..config() })?;
    }
    follow(&BimConfig { lambda_warmup: 0, ..config() })?;
    follow(&BimConfig { mixing: Mixing::AsPrinted, ..config() })?;
    let learned = |n: NeuronConfig| NeuronConfig { step: Step::Learned, ..n };
    let (pre, post) = (learned(config().pre), learned(config().post));
    let readout = ReadoutConfig { levels: Levels::Integer, step: Step::Learned, ..ReadoutConfig::default() };
    let readout = ReadoutConfig { threshold: Positive(0.3), burst: Count(2), ..readout };
    follow_clipped(&BimConfig { pre, post, readout, delays: Count(1), ..config() }, 0.5)?;
    follow(&BimConfig { decay: DecayForm::ChannelState, ..config() })
}

/// With a third factor every weight moves by eq. 4 with `M Ω` in place of `Ω`, in front of the bounds.
#[test]
fn the_third_factor_scales_stdp() -> Result<()> {
    for bounds in [Bounds::None, Bounds::Soft, Bounds::Symmetric] {
        let stdp = StdpConfig { bounds, limit: Positive(1.5), third_factor: Third::Error, ..unequal() };
        follow(&BimConfig { stdp, ..config() })?;
        follow(&BimConfig { stdp, mixing: Mixing::AsPrinted, ..config() })?;
    }
    Ok(())
}

/// Clipping scales the gradient and keeps its direction; the norm that is reported is the one before.
#[test]
fn a_long_gradient_is_scaled_to_the_clip() -> Result<()> {
    let c = config();
    let (mut free, mut short) = (learner(&c, 1e12)?, learner(&c, 0.01)?);
    let norm = update(&mut free, 0)?;
    assert!((update(&mut short, 0)? - norm).abs() < 1e-9 && norm > 0.01, "{norm}");
    let (free, short) = (free.save()?, short.save()?);
    for name in free.weights.keys() {
        let [long, short] = [&free, &short].map(|s| numbers(&s.optimizer[&format!("{name}.first")]));
        let (long, short) = (long?, short?);
        for (long, short) in long.iter().zip(short) {
            assert!((short - long * 0.01 / norm).abs() < 1e-6 * 0.01, "{name}: {long} became {short}");
        }
    }
    Ok(())
}

/// A pruned synapse has no gradient and does not move, whatever momentum, weight decay and STDP say; when it has grown back
/// it starts from zero and learns again.
#[test]
fn pruned_synapses_are_still_and_regrown_ones_learn() -> Result<()> {
    let prune = PruneConfig {
        target: Share(0.5),
        start: 4,
        interval: Count(1000),
        hazard: Share(0.0),
        regrow: Share(1.0),
        ..PruneConfig::default()
    };
    let c = BimConfig { prune, ..config() };
    let mut bim = learner(&c, 1.0)?;
    update(&mut bim, 0)?; // so that there is momentum
    let mut cut = bim.save()?;
    let plastic: Vec<String> = ["layers.0.projection", "layers.1.out"].map(str::to_owned).to_vec();
    for name in &plastic {
        let mask = format!("{name}.plasticity.mask");
        let n = cut.optimizer[&mask].elem_count();
        let alive: Vec<f32> = (0..n).map(|i| f32::from(u8::from(i % 3 > 0))).collect();
        let shape = cut.weights[name].dims().to_vec();
        let w = numbers(&cut.weights[name])?;
        let w: Vec<f32> =
            w.iter().enumerate().map(|(i, &w)| if i < n { w as f32 * alive[i] } else { w as f32 }).collect();
        cut.weights.insert(name.clone(), Tensor::from_vec(w, shape, &Device::Cpu)?);
        cut.optimizer.insert(mask, Tensor::from_vec(alive, n, &Device::Cpu)?);
    }
    bim.load(&cut)?;
    for t in 1..5 {
        let before = bim.save()?;
        update(&mut bim, t)?;
        let now = bim.save()?;
        for name in &plastic {
            let n = now.optimizer[&format!("{name}.plasticity.mask")].elem_count();
            let [_, gradient] = directions(&before, &now, name, t as i32 + 1)?;
            let w = numbers(&now.weights[name])?;
            let gone: Vec<usize> = (0..n).step_by(3).collect();
            if t < 4 {
                assert!(gone.iter().all(|&i| w[i] == 0.0), "{name}: a pruned synapse moved at update {t}");
                assert!(gone.iter().all(|&i| gradient[i].abs() < 1e-6), "{name}: a pruned synapse has a gradient");
                let moving = (0..n).filter(|i| i % 3 > 0 && gradient[*i].abs() > 1e-6).count();
                assert!(moving > n / 4, "{name}: {moving} of {n} have a gradient: the test would be empty");
            } else {
                let back = gone.iter().filter(|&&i| w[i] != 0.0).count();
                assert!(back > gone.len() / 2, "{name}: {back} of {} regrown synapses learn", gone.len());
            }
            if t == 3 {
                let mask = numbers(&now.optimizer[&format!("{name}.plasticity.mask")])?;
                assert!(mask.iter().all(|m| *m > 0.0), "{name}: all grow back after four updates");
            }
        }
    }
    Ok(())
}

/// `σ(β(θ − |w|))`, and as printed the other way round.
#[test]
fn the_probability_of_pruning_is_equation_9() {
    let c = PruneConfig { steepness: Positive(3.0), ..PruneConfig::default() };
    let printed = PruneConfig { rule: PruneRule::AsPrinted, ..c };
    let want = 1.0 / (1.0 + (-3.0f64 * (0.9 - 0.4)).exp());
    assert!((prune::probability(&c, 0.4, 0.9) - want).abs() < 1e-12);
    assert!((prune::probability(&printed, 0.4, 0.9) - (1.0 - want)).abs() < 1e-12);
}

/// Growing back: a share of the pruned, drawn anywhere, from zero; θ then follows the sparsity that is left (eq. 10).
#[test]
fn a_share_of_the_pruned_grows_back_from_zero() {
    let c = PruneConfig {
        target: Share(0.4),
        hazard: Share(0.0),
        regrow: Share(0.25),
        rate: Positive(0.5),
        ..PruneConfig::default()
    };
    let draw = numbers(&random("weights", &[10_000], DType::F64)).expect("numbers");
    let before: Vec<f64> = draw.iter().enumerate().map(|(i, x)| if i % 5 < 2 { 0.0 } else { *x }).collect();
    let was: Vec<f64> = before.iter().map(|w| f64::from(u8::from(*w != 0.0))).collect();
    let (mut w, mut mask, mut theta) = (before.clone(), was.clone(), 0.3);
    prune::event(&c, &mut w, &mut mask, &mut theta, &mut seeded_rng(1, "prune"));
    assert_eq!(w, before, "living weights stay, regrown ones start from zero");
    let back: Vec<usize> = (0..mask.len()).filter(|&i| (mask[i] - was[i]).abs() > 0.0).collect();
    assert!(back.iter().all(|&i| was[i] == 0.0 && mask[i] > 0.0));
    // 1000 of 4000, standard deviation 27
    assert!((850..1150).contains(&back.len()), "{}", back.len());
    let middle = back.iter().sum::<usize>() as f64 / back.len() as f64;
    assert!((middle - 5000.0).abs() < 500.0, "they lie anywhere, not at one end: {middle}");
    let sparsity = (4000 - back.len()) as f64 / 10_000.0;
    assert!((theta - (0.3 + 0.5 * (0.4 - sparsity))).abs() < 1e-12, "{theta}");
}
