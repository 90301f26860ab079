//! The bias-corrected and accelerated bootstrap (Efron 1987; Efron and Tibshirani 1993, chapter 14), over more than ten seeds.

use rayon::prelude::*;

use super::resample::{indices, percentile};
use super::special::{normal_cdf, normal_quantile};
use super::student;

/// Fewest values of which an interval over seeds is a bootstrap; below, resampling says too little and Student's t is used.
pub const FEWEST: usize = 11;

/// How far into the tails of the resamples an interval reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tails {
    /// As the textbook has it, and scipy: by the normal quantile. Too narrow with few values: with eleven normal ones 91 % are
    /// covered where 95 % are meant.
    Plain,
    /// By Student's quantile times `√(n/(n−1))`: resamples of `n` values have the variance of `n`, not of `n − 1`, and the values'
    /// spread is itself known from `n` alone (Hesterberg 2015, "What teachers should know about the bootstrap", 5.3).
    Expanded,
}

impl Tails {
    /// Standard deviations to either side of an interval of the share `level` over `n ≥ 2` values.
    pub fn deviations(self, level: f64, n: usize) -> f64 {
        match self {
            Self::Plain => normal_quantile(f64::midpoint(1.0, level)),
            Self::Expanded => student::quantile(level, n - 1) * (n as f64 / (n - 1) as f64).sqrt(),
        }
    }
}

/// `BCa` interval of the mean of `values` with the share `level` (0.95), from `resamples` draws of a generator's `seed`.
///
/// `None` with fewer than two values, one that is not finite, or no resamples. Values that are all the same have an interval
/// without width. Over seeds it is for [`FEWEST`] values and more.
pub fn interval(values: &[f64], level: f64, tails: Tails, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    let n = values.len();
    if n < 2 || resamples == 0 || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    // draws must not depend on the order of the seeds
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let draw = |resample: usize| {
        let drawn = indices(n, seed, resample);
        drawn.filter_map(|i| sorted.get(i)).sum::<f64>() / n as f64
    };
    let draws = (0..resamples).into_par_iter().map(draw).collect();
    of_draws(draws, &sorted, tails.deviations(level, n))
}

/// The interval from the means of resamples: the percentiles that bias and acceleration move the ends to.
fn of_draws(mut draws: Vec<f64>, values: &[f64], deviations: f64) -> Option<(f64, f64)> {
    draws.sort_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    if values.iter().all(|v| Some(v) == values.first()) {
        return values.first().map(|v| (*v, *v));
    }
    let below = draws.partition_point(|draw| *draw < mean);
    let up_to = draws.partition_point(|draw| *draw <= mean);
    let bias = normal_quantile((below + up_to) as f64 / 2.0 / draws.len() as f64);
    let acceleration = acceleration(values);
    let end = |deviations: f64| {
        let moved = bias + deviations;
        percentile(&draws, normal_cdf(bias + moved / (1.0 - acceleration * moved)))
    };
    Some((end(-deviations)?, end(deviations)?)).filter(|(low, high)| low.is_finite() && high.is_finite())
}

/// A sixth of the skewness of the jackknife's values of the mean; they are linear in the values.
fn acceleration(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let sum = |power: i32| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>();
    sum(3) / (6.0 * sum(2).powf(1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        bca: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        values: Vec<f64>,
        acceleration: f64,
        low: f64,
        high: f64,
    }

    /// The draws of `golden.py`, and what its formulas (scipy's) make of them.
    #[test]
    fn ends_of_given_draws_are_scipys() {
        let golden: Golden = serde_json::from_str(include_str!("../tests/golden/golden.json")).unwrap();
        assert_eq!(golden.bca.len(), 3);
        for case in golden.bca {
            let n = case.values.len();
            let mut state = 12345u64;
            let draws = (0..2000).map(|_| {
                let mut total = 0.0;
                for _ in 0..n {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    total += case.values[(state >> 33) as usize % n];
                }
                total / n as f64
            });
            let draws = draws.collect();
            assert!((acceleration(&case.values) - case.acceleration).abs() < 1e-12);
            let (low, high) = of_draws(draws, &case.values, Tails::Plain.deviations(0.95, n)).unwrap();
            assert!((low - case.low).abs() < 1e-9 && (high - case.high).abs() < 1e-9, "{low} {high}");
        }
    }

    #[test]
    fn what_has_no_interval() {
        let of = |values: &[f64]| interval(values, 0.95, Tails::Expanded, 200, 1);
        assert_eq!(of(&[1.0]), None);
        assert_eq!(of(&[1.0, f64::NAN]), None);
        assert_eq!(of(&[0.1; 12]), Some((0.1, 0.1)));
        assert_eq!(interval(&[1.0, 2.0], 0.95, Tails::Plain, 0, 1), None);
    }

    #[test]
    fn the_order_of_the_seeds_does_not_matter() {
        let values: Vec<f64> = (0..12).map(|i| f64::from(i * i % 7)).collect();
        let mut turned = values.clone();
        turned.rotate_left(5);
        let of = |values: &[f64]| interval(values, 0.95, Tails::Expanded, 300, 4);
        assert_eq!(of(&values), of(&turned));
    }
}
