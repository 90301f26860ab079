//! Statistics over seeds: the mean with a 95 % interval, and differences paired by seed.
//!
//! The interval is the percentile bootstrap over seeds. It can only resample the seeds that were run, so with few of them
//! it is narrower than its name says (for normal values it covers the true mean in about 50 % of cases with 2 seeds, 75 %
//! with 3, 84 % with 5 and 89 % with 8): whoever shows one says over how many seeds it is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::metrics::interval::mean_interval;

/// Resamples of the seeds: cheap, and enough for the third digit of an interval's end.
const RESAMPLES: usize = 10_000;
/// Seed of the resampling: an interval is a function of the values alone.
const SEED: u64 = 0;

/// Below this number of seeds an interval deserves a warning beside it: its real coverage is under about 90 %.
pub const FEW_SEEDS: usize = 9;

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean over seeds.
    pub mean: f64,
    /// Ends of the 95 % bootstrap interval over seeds; `None` with one seed: it has no interval.
    pub interval: Option<(f64, f64)>,
    /// Number of seeds.
    pub n: usize,
}

/// Mean and interval of one value per seed, in any order. `None` without values or if one is not finite.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    Some(Estimate { mean, interval: mean_interval(&sorted, RESAMPLES, SEED), n: sorted.len() })
}

/// Mean of `value − reference` over the seeds that both have. `None` if they share none.
pub fn paired_difference(values: &BTreeMap<u64, f64>, reference: &BTreeMap<u64, f64>) -> Option<Estimate> {
    let differences: Vec<f64> =
        values.iter().filter_map(|(seed, value)| reference.get(seed).map(|other| value - other)).collect();
    estimate(&differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(estimate(&[2.0]), Some(Estimate { mean: 2.0, interval: None, n: 1 }));
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn three_seeds_span_their_range() {
        // the smallest resampled mean of 3 values (all the minimum) has probability 1/27 > 2.5 %
        let e = estimate(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((e.mean, e.interval, e.n), (2.0, Some((1.0, 3.0)), 3));
        assert_eq!(Some(e), estimate(&[1.0, 2.0, 3.0]), "the order of the seeds must not matter");
    }

    #[test]
    fn pairing_removes_what_the_seeds_share() {
        let a = BTreeMap::from([(1, 10.0), (2, 20.0), (3, 30.0), (9, 0.0)]);
        let b = BTreeMap::from([(1, 9.0), (2, 19.5), (3, 29.0), (8, 0.0)]);
        let d = paired_difference(&a, &b).unwrap();
        assert_eq!(d.n, 3);
        assert!((d.mean - 2.5 / 3.0).abs() < 1e-12);
        let (low, high) = d.interval.unwrap();
        assert!(low >= 0.5 && high <= 1.0, "{low} {high}");
        assert_eq!(paired_difference(&a, &BTreeMap::from([(7, 1.0)])), None);
    }

    /// The numbers in the module's text: coverage of the interval's ends for normal values, by simulation.
    #[test]
    fn coverage_is_what_the_text_says() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        for (n, expected) in [(2usize, 0.50), (3, 0.75), (5, 0.84), (8, 0.89)] {
            let trials = 600;
            let hits = (0..trials)
                .filter(|_| {
                    let values: Vec<f64> = (0..n).map(|_| normal()).collect();
                    mean_interval(&values, 200, 5).is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high)
                })
                .count();
            let share = hits as f64 / f64::from(trials);
            // binomial standard error of 600 trials is at most 2 %
            assert!((share - expected).abs() < 0.05, "{n} seeds: {share}");
        }
    }
}
