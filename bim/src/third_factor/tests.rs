use learner::{Learner, OpCounts};

use super::*;
use crate::BimConfig;
use crate::config::{NeuronConfig, Positive, Share, StdpConfig, Third};
use crate::fixture::{SEGMENT, assert_same_weights, bim, interrupted, learn, small};

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
    let stdp = StdpConfig { third_factor, ..StdpConfig::default() };
    BimConfig { pre: neuron, post: neuron, lambda: Share(0.7), stdp, ..small() }
}

/// A run that is interrupted goes on to the same bits, and would not without what is remembered.
#[test]
fn losses_survive_a_snapshot() -> Result<()> {
    let (whole, second, _) = interrupted(&config(Third::Error), learn, 5, 8)?;
    assert_same_weights(&whole, &second)?;
    let (other, ..) = interrupted(&config(Third::None), learn, 5, 8)?;
    assert!(!other.save()?.optimizer.contains_key(NAME));
    let projection = |bim: &crate::Bim| learner::read_f32(&bim.save()?.weights["layers.0.projection"]);
    assert_ne!(projection(&whole)?, projection(&other)?, "the factor does nothing");
    Ok(())
}

/// One product for every paired synapse, by learning.
#[test]
fn the_factor_is_paid() -> Result<()> {
    let counts = |third| -> Result<OpCounts> {
        Ok(learn(&mut bim(&config(third), SEGMENT, 0.02)?, 0)?.operations.expect("counted"))
    };
    let (without, mut with) = (counts(Third::None)?, counts(Third::Error)?);
    assert_eq!(with.stdp.elementwise - without.stdp.elementwise, 3 * 8 * 16);
    with.stdp.elementwise = without.stdp.elementwise;
    assert_eq!(with, without);
    Ok(())
}
