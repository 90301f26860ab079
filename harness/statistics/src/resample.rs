//! 95 % percentile bootstrap intervals over the items of an evaluation (Efron & Tibshirani 1993, chapter 13).
//!
//! Each resample has a random stream of its own, so the intervals do not depend on the number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Lower and upper tail of a 95 % interval.
const TAILS: (f64, f64) = (0.025, 0.975);
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
        let mut rng = stream(seed, resample);
        let (mut part, mut whole) = (0.0, 0.0);
        for _ in 0..n {
            let item = rng.random_range(0..n);
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

/// How often each item is in this resample.
pub fn draw(counts: &mut [u64], seed: u64, resample: usize) {
    counts.fill(0);
    let mut rng = stream(seed, resample);
    for _ in 0..counts.len() {
        let item = rng.random_range(0..counts.len());
        if let Some(count) = counts.get_mut(item) {
            *count += 1;
        }
    }
}

/// The percentile interval of the values that `resamples` resamples gave.
pub fn interval(mut values: Vec<f64>, resamples: usize) -> Option<(f64, f64)> {
    if values.is_empty() || (values.len() as f64) < DEFINED_SHARE * resamples as f64 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some((percentile(&values, TAILS.0)?, percentile(&values, TAILS.1)?))
}

/// The value below which the share `q` of the sorted values lies, linear between neighbours as `numpy.percentile` does.
fn percentile(sorted: &[f64], q: f64) -> Option<f64> {
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
