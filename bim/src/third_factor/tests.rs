use candle_core::{DType, Tensor};
use learner::{InputKind, Io, Learner, OpCounts, Predictor, Targets, Update};

use super::*;
use crate::config::{Count, NeuronConfig, Positive, Share, StdpConfig, Third};
use crate::{Bim, BimConfig, Optimizer};

/// The same from all losses at once: the mean of those before, and the root mean square of what each of them was off the mean
/// before it.
fn slow(losses: &[f64]) -> f64 {
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    let (last, before) = losses.split_last().expect("a loss");
    if before.len() < 2 {
        return 0.0;
    }
    let off: Vec<f64> = (1..before.len()).map(|k| (before[k] - mean(&before[..k])).powi(2)).collect();
    ((mean(before) - last) / mean(&off).sqrt()).clamp(-3.0, 3.0)
}

#[test]
fn the_factor_is_the_improvement_in_spreads() {
    let losses: Vec<f64> = (0..60).map(|i| 3.0 / (1.0 + 0.1 * f64::from(i)) + f64::from(i * 7 % 5) * 0.2).collect();
    let mut third = ThirdFactor::default();
    let factors: Vec<f64> = losses.iter().map(|loss| third.of(*loss)).collect();
    for (i, factor) in factors.iter().enumerate() {
        assert!((factor - slow(&losses[..=i])).abs() < 1e-9, "{i}: {factor}");
    }
    assert!(factors[..2].iter().all(|f| f.abs() == 0.0), "nothing to compare with");
    let next = |loss: f64| {
        let mut third = third;
        third.of(loss)
    };
    let bits = [next(99.0), next(-99.0)].map(f64::to_bits);
    assert_eq!(bits, [-3.0f64, 3.0].map(f64::to_bits), "worse, better, and no more than three spreads");
    assert!(factors.iter().filter(|f| f.abs() < 3.0 && **f != 0.0).count() > 40);
}

/// Old losses fade: after another level of losses for a few hundred updates, that level is the usual.
#[test]
fn old_losses_fade() {
    let mut third = ThirdFactor::default();
    let noise = |i: u32| f64::from(i * 7 % 5) * 0.1;
    (0..300).for_each(|i| _ = third.of(9.0 + noise(i)));
    (0..1000).for_each(|i| _ = third.of(1.0 + noise(i)));
    assert!((third.mean - 1.2).abs() < 0.05 && third.square < 0.05, "{third:?}");
}

/// A loss that never changes has no spread and no factor.
#[test]
fn no_spread_no_factor() {
    let mut third = ThirdFactor::default();
    assert!((0..10).all(|_| third.of(2.0) == 0.0));
}

fn config(third_factor: Third) -> BimConfig {
    let neuron = NeuronConfig { threshold: Positive(0.4), ..NeuronConfig::default() };
    BimConfig {
        width: Count(8),
        channels: Count(16),
        state: Count(4),
        heads: Count(2),
        layers: Count(2),
        pre: neuron,
        post: neuron,
        lambda: Share(0.7),
        stdp: StdpConfig { third_factor, ..StdpConfig::default() },
        ..BimConfig::default()
    }
}

fn bim(config: &BimConfig) -> Result<Bim> {
    let io = Io { input: InputKind::Tokens { vocabulary: 7 }, outputs: 7, streams: 2, segment: 8 };
    Bim::new(config, io, Optimizer::constant(0.02), 5, &Device::Cpu)
}

fn learn(bim: &mut Bim, chunk: usize) -> Result<Update> {
    let row = |shift: usize| (0..16).map(move |i| ((i * i + i * chunk / 2 + shift * 3) % 7) as u32);
    bim.predict(&Tensor::from_iter(row(0), &Device::Cpu)?.reshape((2, 8))?)?;
    let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
    bim.learn(&Targets::Classes { class: Tensor::from_iter(row(1), &Device::Cpu)?.reshape((2, 8))?, weight })
}

/// A run that is interrupted goes on to the same bits, and would not without what is remembered.
#[test]
fn losses_survive_a_snapshot() -> Result<()> {
    let c = config(Third::Error);
    let (mut whole, mut first, mut second) = (bim(&c)?, bim(&c)?, bim(&c)?);
    for chunk in 0..8 {
        learn(&mut whole, chunk)?;
        if chunk < 5 {
            learn(&mut first, chunk)?;
        }
    }
    let saved = first.save()?;
    second.load(&saved)?;
    for chunk in 5..8 {
        learn(&mut second, chunk)?;
    }
    let bits = |bim: &Bim| -> Result<Vec<f32>> {
        let saved = bim.save()?;
        Ok(saved.weights.values().map(learner::read_f32).collect::<Result<Vec<_>>>()?.concat())
    };
    assert_eq!(bits(&whole)?, bits(&second)?);
    let mut other = bim(&config(Third::None))?;
    assert!(!other.save()?.optimizer.contains_key(NAME));
    (0..8).try_for_each(|chunk| learn(&mut other, chunk).map(|_| ()))?;
    assert_ne!(bits(&whole)?, bits(&other)?, "the factor does nothing");
    Ok(())
}

/// One product for every paired synapse, by learning.
#[test]
fn the_factor_is_paid() -> Result<()> {
    let counts = |third| -> Result<OpCounts> { Ok(learn(&mut bim(&config(third))?, 0)?.operations.expect("counted")) };
    let (without, mut with) = (counts(Third::None)?, counts(Third::Error)?);
    assert_eq!(with.stdp.elementwise - without.stdp.elementwise, 3 * 8 * 16);
    with.stdp.elementwise = without.stdp.elementwise;
    assert_eq!(with, without);
    Ok(())
}
