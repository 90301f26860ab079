//! Statistics over seeds: the mean with a 95 % interval, and differences paired by seed.
//!
//! The seed is the unit, and the interval is Student's t: of values that are normal about their mean it covers that mean in
//! 95 % of cases with two seeds as with ten. (A bootstrap over so few covers it in half of the cases with two seeds and in
//! three quarters with three.) It is wide with few seeds because they say little, and it may leave the range that a metric
//! can have. [`estimate`] stays with it whatever the number; [`over_seeds`] and [`estimate_over_seeds`] take the `BCa` bootstrap
//! beyond ten seeds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{bca, student};

/// Share of cases in which an interval covers the mean.
const COVERAGE: f64 = 0.95;

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean over seeds.
    pub mean: f64,
    /// Ends of the 95 % interval over seeds; `None` with one seed: it has no interval.
    pub interval: Option<(f64, f64)>,
    /// Number of seeds.
    pub n: usize,
}

impl Estimate {
    /// Standard deviation of the values, from their t interval; `None` without one.
    pub fn deviation(&self) -> Option<f64> {
        let (low, high) = self.interval?;
        Some((high - low) / 2.0 * (self.n as f64).sqrt() / student::quantile(COVERAGE, self.n - 1))
    }
}

/// Mean and t interval of one value per seed, in any order. `None` without values or if one is not finite.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let sorted = sorted(values)?;
    let mean = mean(&sorted);
    Some(Estimate { mean, interval: student_interval(&sorted, mean, COVERAGE), n: sorted.len() })
}

/// Student's t interval of the mean with the share `level` (0.95) over values in any order. `None` with fewer than two values or
/// one that is not finite.
pub fn t_interval(values: &[f64], level: f64) -> Option<(f64, f64)> {
    let sorted = sorted(values)?;
    student_interval(&sorted, mean(&sorted), level)
}

/// How an interval over seeds was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Student's t.
    Student,
    /// `BCa` bootstrap, its tails expanded.
    Bca,
}

/// The interval of the mean over seeds, with the share `level`: Student's t, from [`bca::FEWEST`] values on the `BCa` bootstrap
/// with `resamples` draws of a generator's `seed`. `None` with fewer than two values or one that is not finite.
pub fn over_seeds(values: &[f64], level: f64, resamples: usize, seed: u64) -> Option<(Method, (f64, f64))> {
    if values.len() < bca::FEWEST {
        return Some((Method::Student, t_interval(values, level)?));
    }
    Some((Method::Bca, bca::interval(values, level, bca::Tails::Expanded, resamples, seed)?))
}

/// Resamples of an interval in a table: its ends then differ by a hundredth of its width between seeds of the generator.
const RESAMPLES: usize = 4_000;

/// As [`estimate`], with the interval of [`over_seeds`]: what tables show.
pub fn estimate_over_seeds(values: &[f64]) -> Option<Estimate> {
    let t = estimate(values)?;
    let interval = over_seeds(values, COVERAGE, RESAMPLES, 0).map(|(_, interval)| interval);
    Some(Estimate { interval, ..t })
}

/// Values in order, so that their sums do not depend on the order of the seeds; `None` without values or if one is not finite.
fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!values.is_empty() && values.iter().all(|v| v.is_finite())).then_some(sorted)
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample variance about the mean that is given, with n − 1.
pub(crate) fn variance(values: &[f64], mean: f64) -> f64 {
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

fn student_interval(values: &[f64], mean: f64, level: f64) -> Option<(f64, f64)> {
    let n = values.len();
    (n > 1).then(|| {
        let half = student::quantile(level, n - 1) * (variance(values, mean) / n as f64).sqrt();
        (mean - half, mean + half)
    })
}

/// Mean of `value − reference` over the seeds that both have. `None` if they share none.
pub fn paired_difference(values: &BTreeMap<u64, f64>, reference: &BTreeMap<u64, f64>) -> Option<Estimate> {
    let differences: Vec<f64> =
        values.iter().filter_map(|(seed, value)| reference.get(seed).map(|other| value - other)).collect();
    estimate(&differences)
}

#[cfg(test)]
#[allow(clippy::unreadable_literal, reason = "golden values, digit by digit as the references print them")]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_the_values() {
        for values in [&[1.0, 2.0][..], &[0.3, 0.7, 0.4], &[5.0, 5.0, 5.0]] {
            let e = estimate(values).unwrap();
            let expected = variance(values, e.mean).sqrt();
            assert!((e.deviation().unwrap() - expected).abs() < 1e-12, "{values:?}");
        }
        assert_eq!(estimate(&[1.0]).unwrap().deviation(), None);
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs()
    }

    /// scipy 1.17.1: `stats.t.interval(0.95, len(v) - 1, loc=v.mean(), scale=stats.sem(v))`
    #[test]
    fn intervals_are_scipys() {
        let twelve = [0.81, 0.79, 0.83, 0.80, 0.82, 0.85, 0.78, 0.81, 0.80, 0.84, 0.79, 0.83];
        for (values, mean, low, high) in [
            (&[1.0, 2.0][..], 1.5, -4.853_102_368_087_347, 7.853_102_368_087_347),
            (&[3.0, 1.0, 2.0], 2.0, -0.484_137_711_750_330_27, 4.484_137_711_750_33),
            (&[2.31, 2.335, 2.29, 2.302], 2.30925, 2.278_964_462_465_318, 2.339_535_537_534_682_2),
            (&twelve, 0.8125, 0.798_652_438_705_683_7, 0.826_347_561_294_316_5),
        ] {
            let e = estimate(values).unwrap();
            let (from, to) = e.interval.unwrap();
            assert!(near(e.mean, mean) && near(from, low) && near(to, high), "{e:?}");
            assert_eq!(e.n, values.len());
        }
    }

    /// Up to ten seeds as before; beyond, an interval that follows a skewed sample.
    #[test]
    fn tables_take_the_bootstrap_beyond_ten_seeds() {
        let skewed: Vec<f64> = (0..12).map(|i| f64::from(i * i * i)).collect();
        assert_eq!(estimate_over_seeds(&skewed[..10]), estimate(&skewed[..10]));
        let (e, t) = (estimate_over_seeds(&skewed).unwrap(), estimate(&skewed).unwrap());
        let ((low, high), (t_low, t_high)) = (e.interval.unwrap(), t.interval.unwrap());
        assert!(e.mean.to_bits() == t.mean.to_bits() && e.n == 12);
        assert!(low > t_low && high > t_high, "{low} {high} against {t_low} {t_high}");
        assert_eq!(estimate_over_seeds(&skewed), Some(e), "the same every time");
        assert_eq!(estimate_over_seeds(&[1.0]), estimate(&[1.0]));
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(estimate(&[2.0]), Some(Estimate { mean: 2.0, interval: None, n: 1 }));
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn the_order_of_the_seeds_does_not_matter() {
        let values = [0.1, 0.7, 0.2, 0.4];
        let e = estimate(&values);
        for turn in 1..4 {
            let mut turned = values;
            turned.rotate_left(turn);
            assert_eq!(estimate(&turned), e);
        }
    }

    #[test]
    fn pairing_removes_what_the_seeds_share() {
        let a = BTreeMap::from([(1, 10.0), (2, 20.0), (3, 30.0), (9, 0.0)]);
        let b = BTreeMap::from([(1, 9.0), (2, 19.5), (3, 29.0), (8, 0.0)]);
        let d = paired_difference(&a, &b).unwrap();
        // differences 1, 0.5, 1: standard error 1/6
        let (low, high) = d.interval.unwrap();
        assert!(d.n == 3 && near(d.mean, 2.5 / 3.0));
        assert!(near(high - low, 2.0 * 4.302_652_729_749_462 / 6.0), "{low} {high}");
        assert_eq!(paired_difference(&a, &BTreeMap::from([(7, 1.0)])), None);
    }

    /// What the interval is for: its ends have the mean between them in 95 % of cases, however few the seeds.
    #[test]
    fn coverage_is_what_the_interval_says() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        for n in [2usize, 3, 5, 8] {
            let trials = 4000;
            let hits = (0..trials)
                .filter(|_| {
                    let values: Vec<f64> = (0..n).map(|_| normal()).collect();
                    estimate(&values).and_then(|e| e.interval).is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high)
                })
                .count();
            let share = hits as f64 / f64::from(trials);
            // four standard errors of 4000 trials
            assert!((share - COVERAGE).abs() < 0.014, "{n} seeds: {share}");
        }
    }
}
