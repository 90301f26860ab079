//! Percentile bootstrap intervals over the items of an evaluation (Efron & Tibshirani 1993, chapter 13).
//!
//! Each resample has a random stream of its own, so the intervals do not depend on the number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::bca::Tails;
use super::special::normal_cdf;

/// Either tail of a 95 % interval.
const TAIL: f64 = 0.025;
/// Share of resamples in which a statistic must be defined for its interval to be given.
const DEFINED_SHARE: f64 = 0.5;

/// 95 % interval of Σ `parts` / Σ `wholes` over items, each drawn with both its numbers. A resample whose wholes are all
/// zero has no ratio. `None` with fewer than two items.
pub fn ratio_interval(parts: &[f64], wholes: &[f64], resamples: usize, seed: u64) -> Option<(f64, f64)> {
    let n = parts.len();
    if n < 2 || wholes.len() != n {
        return None;
    }
    let ratio = |resample: usize| -> Option<f64> {
        let (mut part, mut whole) = (0.0, 0.0);
        for item in indices(n, seed, resample) {
            part += parts.get(item)?;
            whole += wholes.get(item)?;
        }
        (whole > 0.0).then(|| part / whole)
    };
    interval((0..resamples).into_par_iter().filter_map(ratio).collect(), resamples)
}

/// The random numbers of one resample.
pub fn stream(seed: u64, resample: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(resample as u64);
    rng
}

/// The items of one resample: `n` times one of `n`.
pub(crate) fn indices(n: usize, seed: u64, resample: usize) -> impl Iterator<Item = usize> {
    let mut rng = stream(seed, resample);
    (0..n).map(move |_| rng.random_range(0..n))
}

/// Percentile interval with the share `level` of a statistic over `n` independent items. `statistic` gets the indices of the items
/// that a resample drew (the same ones again and again, in no order) and says what it is of them, or `None` where it is not
/// defined. Whatever belongs together (two models' scores of an item, all windows of a recording, all recordings of a patient)
/// is drawn together by being one item.
///
/// [`Tails::Expanded`] makes up for few items, as far as resamples reach. `None` with fewer than two items or where the statistic
/// is undefined in more than half of the resamples.
pub fn items_interval(
    n: usize,
    level: f64,
    tails: Tails,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Option<(f64, f64)> {
    if n < 2 {
        return None;
    }
    let draw = |resample: usize| statistic(&indices(n, seed, resample).collect::<Vec<_>>());
    let draws = (0..resamples).into_par_iter().filter_map(draw).collect();
    percentile_interval(draws, resamples, normal_cdf(-tails.deviations(level, n)))
}

/// Percentile interval of the mean of `values`, one per independent item: see [`items_interval`].
pub fn mean_interval(values: &[f64], level: f64, tails: Tails, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    let mean = |drawn: &[usize]| Some(drawn.iter().filter_map(|i| values.get(*i)).sum::<f64>() / drawn.len() as f64);
    let finite = values.iter().all(|v| v.is_finite());
    finite.then(|| items_interval(values.len(), level, tails, resamples, seed, mean)).flatten()
}

/// How often each item is in this resample.
pub fn draw(counts: &mut [u64], seed: u64, resample: usize) {
    counts.fill(0);
    for item in indices(counts.len(), seed, resample) {
        if let Some(count) = counts.get_mut(item) {
            *count += 1;
        }
    }
}

/// The 95 % percentile interval of the values that `resamples` resamples gave; `None` if fewer than half gave one.
pub fn interval(values: Vec<f64>, resamples: usize) -> Option<(f64, f64)> {
    percentile_interval(values, resamples, TAIL)
}

/// As [`interval`], leaving the share `tail` out at either end.
pub(crate) fn percentile_interval(mut values: Vec<f64>, resamples: usize, tail: f64) -> Option<(f64, f64)> {
    if values.is_empty() || (values.len() as f64) < DEFINED_SHARE * resamples as f64 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some((percentile(&values, tail)?, percentile(&values, 1.0 - tail)?))
}

/// The value below which the share `q` of the sorted values lies, linear between neighbours as `numpy.percentile` does.
pub(crate) fn percentile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * (sorted.len().checked_sub(1)?) as f64;
    let low = *sorted.get(position.floor() as usize)?;
    let high = *sorted.get(position.ceil() as usize)?;
    Some(low + (high - low) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile([1, 2, 4, 8], [0, 2.5, 50, 97.5, 100]) = [1, 1.075, 3, 7.7, 8]
        let expected = [(0.0, 1.0), (0.025, 1.075), (0.5, 3.0), (0.975, 7.7), (1.0, 8.0)];
        for (q, value) in expected {
            assert!((percentile(&[1.0, 2.0, 4.0, 8.0], q).unwrap() - value).abs() < 1e-12);
        }
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn interval_of_a_mean_is_two_standard_errors() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let (low, high) = ratio_interval(&values, &[1.0; 400], 4000, 1).unwrap();
        // uniform on 0..20: variance (20² − 1) / 12, standard error of 400 values 0.2883
        let half = 1.96 * (399f64 / 12.0 / 400.0).sqrt();
        // 4000 resamples place an end within about 5 % of the standard error; twice that is allowed
        assert!((low - (9.5 - half)).abs() < 0.03 && (high - (9.5 + half)).abs() < 0.03, "{low} {high}");
    }

    #[test]
    fn interval_of_a_ratio_is_that_of_the_delta_method() {
        // errors of utterances of 5 to 15 words, one word in five wrong, independently
        let mut rng = stream(5, 0);
        let wholes: Vec<f64> = (0..300).map(|_| f64::from(rng.random_range(5..=15))).collect();
        let parts: Vec<f64> =
            wholes.iter().map(|&w| (0..w as usize).filter(|_| rng.random_bool(0.2)).count() as f64).collect();
        let (sum, words) = (parts.iter().sum::<f64>(), wholes.iter().sum::<f64>());
        let ratio = sum / words;
        let residual: f64 = parts.iter().zip(&wholes).map(|(p, w)| (p - ratio * w).powi(2)).sum();
        let half = 1.96 * residual.sqrt() / words;
        let (low, high) = ratio_interval(&parts, &wholes, 4000, 1).unwrap();
        // as for the mean: the ends are within a tenth of the half width
        assert!(
            (low - (ratio - half)).abs() < 0.1 * half && (high - (ratio + half)).abs() < 0.1 * half,
            "{low} {high}"
        );
        assert_eq!(ratio_interval(&[1.0], &[2.0], 10, 1), None);
        assert_eq!(ratio_interval(&[0.0; 3], &[0.0; 3], 10, 1), None);
    }

    /// Two items are enough to draw from, one is not, and parts without their wholes are none.
    #[test]
    fn two_items_have_an_interval_and_one_has_none() {
        assert_eq!(ratio_interval(&[1.0, 3.0], &[2.0, 2.0], 1000, 0), Some((0.5, 1.5)));
        assert_eq!(ratio_interval(&[1.0], &[2.0], 1000, 0), None);
        assert_eq!(ratio_interval(&[1.0, 3.0, 2.0], &[2.0, 2.0], 1000, 0), None);
    }

    /// As often defined as not is enough.
    #[test]
    fn half_of_the_resamples_make_an_interval() {
        assert_eq!(interval(vec![2.0; 2], 4), Some((2.0, 2.0)));
        assert_eq!(interval(vec![2.0], 3), None);
        assert_eq!(interval(Vec::new(), 0), None);
    }

    #[test]
    fn a_resample_draws_as_many_items_as_there_are() {
        let mut counts = vec![7; 5];
        for resample in 0..20 {
            draw(&mut counts, 3, resample);
            assert_eq!(counts.iter().sum::<u64>(), 5, "{counts:?}");
            assert!(counts.iter().all(|n| *n <= 5), "{counts:?}");
        }
    }
}
