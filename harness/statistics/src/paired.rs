//! Differences between two models, paired by seed or by test item, and whether they can be told from none.

use std::collections::BTreeMap;

use super::bca::Tails;
use super::estimate::{Estimate, estimate, mean, variance};
use super::resample::mean_interval;
use super::student;

/// Most differences whose signs are all turned: 2²⁰ sums.
const MOST_FLIPPED: usize = 20;
/// Most differences whose ranks are summed in all ways: 5·10⁷ additions.
const MOST_RANKED: usize = 400;
/// Share of the differences' magnitude by which sums that are equal may differ by rounding.
const ROUNDING: f64 = 1e-12;

/// A difference paired by seed, and what each test says of it. A p value is for both sides: how often a difference at least so far
/// from none would be seen if there were none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Mean difference with its 95 % t interval over the shared seeds.
    pub difference: Estimate,
    /// Paired t test.
    pub t: Option<f64>,
    /// Exact permutation test of the mean under changes of sign.
    pub sign_flip: Option<f64>,
    /// Exact signed-rank test of Wilcoxon.
    pub wilcoxon: Option<f64>,
}

/// `value − reference` over the seeds that both have. `None` if they share none or a value is not finite.
pub fn by_seed(values: &BTreeMap<u64, f64>, reference: &BTreeMap<u64, f64>) -> Option<Paired> {
    let differences = shared_differences(values, reference);
    Some(Paired {
        difference: estimate(&differences)?,
        t: t_test(&differences),
        sign_flip: sign_flip(&differences),
        wilcoxon: wilcoxon(&differences),
    })
}

/// `value − reference` for each key that both have, in the order of the keys: seeds, or names of items.
pub fn shared_differences<K: Ord>(values: &BTreeMap<K, f64>, reference: &BTreeMap<K, f64>) -> Vec<f64> {
    values.iter().filter_map(|(key, value)| reference.get(key).map(|other| value - other)).collect()
}

/// Mean of `value − reference` over the test items that both have, with its percentile interval over items: how sure the
/// difference of *these two* trained models is on other items. Items are independent of each other (utterances, recordings,
/// patients). `None` if they share none or a difference is not finite.
pub fn by_item<K: Ord>(
    values: &BTreeMap<K, f64>,
    reference: &BTreeMap<K, f64>,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Estimate> {
    let differences = shared_differences(values, reference);
    if differences.is_empty() || differences.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let interval = mean_interval(&differences, level, Tails::Expanded, resamples, seed);
    Some(Estimate { mean: mean(&differences), interval, n: differences.len() })
}

/// P value of the t test that the mean of the differences is 0. `None` with fewer than two, or one that is not finite.
/// Differences that are all the same are told from 0 with certainty (p = 0) unless they are 0 (p = 1).
pub fn t_test(differences: &[f64]) -> Option<f64> {
    let n = differences.len();
    if n < 2 || differences.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let mean = mean(differences);
    let error = (variance(differences, mean) / n as f64).sqrt();
    Some(p_of(mean, error, (n - 1) as f64))
}

/// P value of Welch's t test that two samples have the same mean, whatever their variances, with Satterthwaite's degrees of
/// freedom. `None` if either has fewer than two values, or one that is not finite.
pub fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 2 || b.len() < 2 || a.iter().chain(b).any(|v| !v.is_finite()) {
        return None;
    }
    let share = |values: &[f64]| variance(values, mean(values)) / values.len() as f64;
    let (of_a, of_b) = (share(a), share(b));
    let freedom = (of_a + of_b).powi(2) / (of_a.powi(2) / (a.len() - 1) as f64 + of_b.powi(2) / (b.len() - 1) as f64);
    Some(p_of(mean(a) - mean(b), (of_a + of_b).sqrt(), freedom))
}

fn p_of(mean: f64, error: f64, freedom: f64) -> f64 {
    if error > 0.0 { student::p_value(mean / error, freedom) } else { f64::from(u8::from(mean == 0.0)) }
}

/// Exact p value of the mean under all changes of sign of the differences (Fisher 1935): the smallest it can be is 2/2ⁿ. `None` without
/// differences, with one that is not finite, or with more than 20.
pub fn sign_flip(differences: &[f64]) -> Option<f64> {
    let n = differences.len();
    if n == 0 || n > MOST_FLIPPED || differences.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let magnitude: f64 = differences.iter().map(|d| d.abs()).sum();
    let bound = differences.iter().sum::<f64>().abs() - ROUNDING * magnitude;
    Some(flips(differences, 0.0, bound) as f64 / (1u64 << n) as f64)
}

/// In how many ways the signs of the rest give a sum at least so far from 0.
fn flips(rest: &[f64], sum: f64, bound: f64) -> u64 {
    match rest.split_first() {
        None => u64::from(sum.abs() >= bound),
        Some((first, rest)) => flips(rest, sum + first, bound) + flips(rest, sum - first, bound),
    }
}

/// Exact p value of Wilcoxon's signed-rank test (1945): differences of 0 are left out, equal ones share their middle rank, and
/// the distribution is that of those very ranks under all changes of sign. `None` without differences, with one that is not
/// finite, or with more than 400; 1 if all are 0.
pub fn wilcoxon(differences: &[f64]) -> Option<f64> {
    if differences.is_empty() || differences.len() > MOST_RANKED || differences.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // twice the ranks: middle ranks are halves
    let mut ranks: Vec<usize> = Vec::with_capacity(sorted.len());
    for ties in sorted.chunk_by(|a, b| b.abs() - a.abs() <= ROUNDING * b.abs()) {
        let first = ranks.len() + 1;
        ranks.extend(std::iter::repeat_n(2 * first + ties.len() - 1, ties.len()));
    }
    let positive: usize = sorted.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    // chances of each sum of positive ranks, a rank after the other
    let all: usize = ranks.iter().sum();
    let mut chances = vec![0.0; all + 1];
    if let Some(none) = chances.first_mut() {
        *none = 1.0;
    }
    for rank in &ranks {
        for sum in (0..=all).rev() {
            let with = sum.checked_sub(*rank).and_then(|before| chances.get(before)).copied().unwrap_or_default();
            if let Some(chance) = chances.get_mut(sum) {
                *chance = f64::midpoint(*chance, with);
            }
        }
    }
    let (below, above) = chances.split_at(positive);
    let at = above.first().copied().unwrap_or_default();
    let (below, above) = (below.iter().sum::<f64>() + at, above.iter().sum::<f64>());
    Some((2.0 * below.min(above)).min(1.0))
}
