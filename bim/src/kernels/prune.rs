//! Adaptive synaptic pruning (paper eqs. 9, 10), corrected.

use rand::Rng;
use rand::seq::SliceRandom;

use super::Real;
use crate::config::{PruneConfig, PruneRule};

/// Probability that a synapse of magnitude `w` (in units of the layer's root mean square) is a candidate (eq. 9).
#[must_use]
pub fn probability(c: &PruneConfig, magnitude: f64, theta: f64) -> f64 {
    let distance = match c.rule {
        PruneRule::Corrected => theta - magnitude,
        PruneRule::AsPrinted => magnitude - theta,
    };
    1.0 / (1.0 + (-c.steepness.0 * distance).exp())
}

/// One pruning event: draws for every remaining synapse, clears `mask` and the weight where it goes, and moves the
/// threshold (eq. 10: `θ += γ (ρ − sparsity)`). No synapse goes once the target share is reached: where more are candidates
/// than may go, which of them do is drawn too, all equally likely. Growing back is drawn for each synapse that was gone
/// before the event; what the event itself takes stays gone at least until the next one.
pub fn event<T: Real>(c: &PruneConfig, w: &mut [T], mask: &mut [T], theta: &mut f64, rng: &mut impl Rng) {
    let gone: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] == T::zero()).collect();
    let alive = w.len() - gone.len();
    let squares: f64 = w.iter().map(|x| x.wide() * x.wide()).sum();
    let rms = (squares / alive.max(1) as f64).sqrt().max(f64::MIN_POSITIVE);
    let budget = ((c.target.0 * w.len() as f64) as usize).saturating_sub(gone.len());
    let mut candidates = Vec::new();
    for (i, w) in w.iter().enumerate().filter(|(i, _)| mask[*i] != T::zero()) {
        let p = c.hazard.0 * probability(c, w.wide().abs() / rms, *theta);
        if rng.random::<f64>() < p {
            candidates.push(i);
        }
    }
    let chosen =
        if candidates.len() > budget { candidates.partial_shuffle(rng, budget).0 } else { &mut candidates[..] };
    for &mut i in chosen {
        (w[i], mask[i]) = (T::zero(), T::zero());
    }
    if c.regrow.0 > 0.0 {
        for i in gone {
            if rng.random::<f64>() < c.regrow.0 {
                mask[i] = T::one(); // its weight starts again from zero
            }
        }
    }
    let pruned = mask.iter().filter(|&&m| m == T::zero()).count();
    *theta += c.rate.0 * (c.target.0 - pruned as f64 / w.len() as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Share;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    fn run(rule: PruneRule) -> (f64, f64, f64) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut w: Vec<f64> = (0..10_000).map(|_| StandardNormal.sample(&mut rng)).collect();
        let before = w.clone();
        let mut mask = vec![1.0; w.len()];
        let c = PruneConfig { target: Share(0.8), rule, ..PruneConfig::default() };
        let mut theta = 0.0;
        for _ in 0..2_000 {
            event(&c, &mut w, &mut mask, &mut theta, &mut rng);
        }
        let mean = |keep: bool| {
            let chosen: Vec<f64> =
                before.iter().zip(&mask).filter(|(_, m)| (**m > 0.0) == keep).map(|(w, _)| w.abs()).collect();
            chosen.iter().sum::<f64>() / chosen.len().max(1) as f64
        };
        let sparsity = mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64;
        (sparsity, mean(true), mean(false))
    }

    #[test]
    fn corrected_rule_reaches_its_target_by_removing_small_weights() {
        let (sparsity, kept, removed) = run(PruneRule::Corrected);
        assert!((sparsity - 0.8).abs() < 0.01, "{sparsity}");
        assert!(kept > 2.0 * removed, "{kept} {removed}");
    }

    /// Why the rule is corrected. Both start where nothing is pruned (`p ≈ 0`). Corrected, sparsity below the target raises θ,
    /// which raises `p`, and the loop settles at the target. As printed, the same rise of θ lowers `p`: less is pruned, θ
    /// rises further, without end.
    #[test]
    fn printed_rule_runs_away() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut settle = |rule, mut theta: f64| {
            let mut w: Vec<f64> = (0..10_000).map(|_| StandardNormal.sample(&mut rng)).collect();
            let mut mask = vec![1.0; w.len()];
            let c = PruneConfig { target: Share(0.8), rule, ..PruneConfig::default() };
            let mut thetas = Vec::new();
            for _ in 0..4 {
                for _ in 0..500 {
                    event(&c, &mut w, &mut mask, &mut theta, &mut rng);
                }
                thetas.push(theta);
            }
            (mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64, thetas)
        };
        let (sparsity, thetas) = settle(PruneRule::Corrected, -5.0);
        assert!((sparsity - 0.8).abs() < 0.01 && (thetas[3] - thetas[2]).abs() < 0.1, "{sparsity} {thetas:?}");
        let (sparsity, thetas) = settle(PruneRule::AsPrinted, 5.0);
        assert!(sparsity < 0.01, "{sparsity}");
        assert!(thetas.windows(2).all(|t| t[1] > t[0] + 30.0), "θ grows without end: {thetas:?}");
    }

    /// One event that wants far more synapses than the budget leaves, over equal weights; returns which went.
    fn limited(seed: u64, mask: &mut [f64], target: f64, regrow: f64) -> Vec<usize> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let before = mask.to_vec();
        let mut w: Vec<f64> = before.clone();
        let c =
            PruneConfig { target: Share(target), hazard: Share(1.0), regrow: Share(regrow), ..PruneConfig::default() };
        event(&c, &mut w, mask, &mut 10.0, &mut rng);
        assert!(w.iter().zip(mask.iter()).all(|(w, m)| *m > 0.0 || *w == 0.0), "a pruned weight is zero");
        (0..mask.len()).filter(|&i| before[i] > 0.0 && mask[i] == 0.0).collect()
    }

    /// Magnitudes are in units of the root mean square of the living: here √5, so that 1 is below 0.6 of it and 3 is above.
    #[test]
    fn the_unit_of_magnitude_is_that_of_the_living() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (mut w, mut mask) = (vec![0.0, 1.0, 0.0, -3.0], vec![0.0, 1.0, 0.0, 1.0]);
        let steepness = crate::config::Positive(1e6);
        let c = PruneConfig { target: Share(1.0), hazard: Share(1.0), steepness, ..PruneConfig::default() };
        event(&c, &mut w, &mut mask, &mut 0.6, &mut rng);
        assert_eq!(w, [0.0, 0.0, 0.0, -3.0]);
    }

    /// Mean and standard deviation of positions, as shares of all.
    fn spread(at: &[usize], all: usize) -> (f64, f64) {
        let share = |i: &usize| *i as f64 / all as f64;
        let mean = at.iter().map(share).sum::<f64>() / at.len() as f64;
        (mean, (at.iter().map(|i| (share(i) - mean).powi(2)).sum::<f64>() / at.len() as f64).sqrt())
    }

    /// Which synapses a budget is spent on is drawn, not counted off from the first.
    #[test]
    fn a_budget_is_drawn_from_all_candidates() {
        const ALL: usize = 10_000;
        let run = |seed| limited(seed, &mut vec![1.0; ALL], 0.1, 0.0);
        let gone = run(1);
        assert_eq!(gone.len(), ALL / 10);
        let (mean, deviation) = spread(&gone, ALL);
        // uniform: 1/2 and 1/√12, within five standard errors of 1000 draws
        assert!((mean - 0.5).abs() < 0.046 && (deviation - 12f64.sqrt().recip()).abs() < 0.03, "{mean} {deviation}");
        assert_eq!(gone, run(1), "the seed decides");
        assert_ne!(gone, run(2));
    }

    /// What grows back is drawn from those that were gone before the event; what the event takes stays gone for now.
    #[test]
    fn regrowth_is_drawn_from_those_gone_before() {
        const ALL: usize = 10_000;
        let mut mask: Vec<f64> = (0..ALL).map(|i| f64::from(u8::from(i % 2 == 0))).collect();
        let gone = limited(1, &mut mask, 0.6, 0.2);
        assert_eq!(gone.len(), ALL / 10, "each of them is still gone");
        let back: Vec<usize> = (1..ALL).step_by(2).filter(|&i| mask[i] > 0.0).collect();
        assert!((back.len() as f64 - 1000.0).abs() < 5.0 * 28.0, "{} of 5000 with a chance of 0.2", back.len());
        let (mean, deviation) = spread(&back, ALL);
        assert!((mean - 0.5).abs() < 0.046 && (deviation - 12f64.sqrt().recip()).abs() < 0.03, "{mean} {deviation}");
    }

    #[test]
    fn printed_rule_removes_the_large_weights() {
        let (_, kept, removed) = run(PruneRule::AsPrinted);
        assert!(kept < removed, "{kept} {removed}");
    }
}
