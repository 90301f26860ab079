//! Intervals where both seeds and test items matter: what other seeds *and* other items would have given.
//!
//! Items are drawn anew, the same ones for every seed, since every seed is scored on the same test set. Drawing the seeds anew too
//! (the pigeonhole bootstrap, Owen 2007) would cover too little with the few that there are: half of the cases with two. So what
//! the seeds say comes from their spread, as in the t interval, and is joined to the bootstrap over items: to either side the two
//! variances add, and Student's quantile of Satterthwaite's degrees of freedom (1946) widens the root. Those degrees are too many where
//! two or three seeds happen to lie close together, so the seeds' share counts 5.5 times in them: by simulation the interval then covers
//! within about two points of what it says with 2, 3, 5 and 8 seeds, whatever the share (`tests/simulation.rs`).

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::estimate::{Estimate, mean, variance};
use super::resample::{indices, percentile_interval};
use super::special::normal_quantile;
use super::student;

/// How much more the seeds' share of the variance counts in the degrees of freedom.
const SEEDS_COUNT: f64 = 5.5;

/// Interval with the share `level` of the mean over `seeds` seeds of a statistic over `items` independent items.
/// `statistic(seed, drawn)` says what it is for one seed on the items drawn, or `None` where it is not defined.
///
/// `None` with fewer than two seeds or items, or where the statistic is undefined on all items or in more than half of the
/// resamples.
pub fn interval(
    seeds: usize,
    items: usize,
    level: f64,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(usize, &[usize]) -> Option<f64> + Sync,
) -> Option<(f64, f64)> {
    if seeds < 2 || items < 2 {
        return None;
    }
    let on = |drawn: &[usize]| (0..seeds).map(|seed| statistic(seed, drawn)).collect::<Option<Vec<f64>>>();
    let values = on(&(0..items).collect::<Vec<usize>>())?;
    let centre = mean(&values);
    let of_seeds = variance(&values, centre) / seeds as f64;
    let draw = |resample| on(&indices(items, seed, resample).collect::<Vec<usize>>()).map(|values| mean(&values));
    let draws: Vec<f64> = (0..resamples).into_par_iter().filter_map(draw).filter(|v| v.is_finite()).collect();
    let tail = (1.0 - level) / 2.0;
    let (low, high) = percentile_interval(draws, resamples, tail)?;
    // resamples of n items have the variance of n, not of n − 1
    let (deviations, more) = (normal_quantile(tail), items as f64 / (items - 1) as f64);
    let reach = |end: f64| {
        let of_items = ((end - centre) / deviations).powi(2) * more;
        let counted = SEEDS_COUNT * of_seeds;
        let squares = counted.powi(2) / (seeds - 1) as f64 + of_items.powi(2) / (items - 1) as f64;
        if squares > 0.0 {
            let freedom = (counted + of_items).powi(2) / squares;
            student::quantile_of(level, freedom) * (of_seeds + of_items).sqrt()
        } else {
            0.0
        }
    };
    Some((centre - reach(low), centre + reach(high))).filter(|(low, high)| low.is_finite() && high.is_finite())
}

/// Values by seed and, for each, by item.
pub type BySeedAndItem<K> = BTreeMap<u64, BTreeMap<K, f64>>;

/// Mean over seeds and items with its two-level interval; `n` is the number of seeds. Only items that every seed has count. `None`
/// if there are none or a value is not finite.
pub fn estimate<K: Ord>(values: &BySeedAndItem<K>, level: f64, resamples: usize, seed: u64) -> Option<Estimate> {
    let shared = values.values().map(|items| items.keys().collect::<BTreeSet<&K>>());
    let shared = shared.reduce(|a, b| a.intersection(&b).copied().collect())?;
    let of_seed = |items: &BTreeMap<K, f64>| shared.iter().filter_map(|key| items.get(*key).copied()).collect();
    let rows: Vec<Vec<f64>> = values.values().map(of_seed).collect();
    if shared.is_empty() || rows.iter().flatten().any(|v| !v.is_finite()) {
        return None;
    }
    let of_items = |seed: usize, drawn: &[usize]| {
        let row = rows.get(seed)?;
        Some(drawn.iter().filter_map(|i| row.get(*i)).sum::<f64>() / drawn.len() as f64)
    };
    let means: Vec<f64> = rows.iter().map(|row| mean(row)).collect();
    let interval = interval(rows.len(), shared.len(), level, resamples, seed, of_items);
    Some(Estimate { mean: mean(&means), interval, n: rows.len() })
}

/// Mean of `values − reference` over the seeds and items that both have: as [`estimate`] of those differences.
pub fn paired<K: Ord + Clone>(
    values: &BySeedAndItem<K>,
    reference: &BySeedAndItem<K>,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Estimate> {
    let of_seed = |(key, items): (&u64, &BTreeMap<K, f64>)| {
        let other = reference.get(key)?;
        let each = items.iter().filter_map(|(key, value)| Some((key.clone(), value - other.get(key)?)));
        Some((*key, each.collect()))
    };
    estimate(&values.iter().filter_map(of_seed).collect(), level, resamples, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seeds: u64, items: u32) -> BySeedAndItem<u32> {
        let row = |seed: u64| (0..items).map(|i| (i, f64::from(i % 7) + seed as f64 * 0.1)).collect();
        (0..seeds).map(|seed| (seed, row(seed))).collect()
    }

    #[test]
    fn what_has_no_interval() {
        assert_eq!(estimate(&values(1, 9), 0.95, 100, 1).unwrap().interval, None);
        assert_eq!(estimate(&values(3, 1), 0.95, 100, 1).unwrap().interval, None);
        assert_eq!(estimate(&values(0, 1), 0.95, 100, 1), None);
        assert_eq!(paired(&values(3, 9), &values(0, 9), 0.95, 100, 1), None);
    }

    /// What all models find hard or easy cancels: items that differ by 7 and seeds that differ by 0.1 leave nothing.
    #[test]
    fn pairing_removes_what_seeds_and_items_share() {
        let mut shifted = values(4, 30);
        shifted.values_mut().flat_map(BTreeMap::values_mut).for_each(|v| *v += 0.25);
        shifted.insert(9, BTreeMap::from([(3, 1e9)]));
        let found = paired(&shifted, &values(4, 40), 0.95, 300, 1).unwrap();
        let (low, high) = found.interval.unwrap();
        assert_eq!(found.n, 4);
        assert!((found.mean - 0.25).abs() < 1e-12 && (low - 0.25).abs() < 1e-9 && (high - 0.25).abs() < 1e-9);
    }

    #[test]
    fn only_items_that_every_seed_has_count() {
        let mut ragged = values(3, 20);
        ragged.get_mut(&1).unwrap().insert(99, 1e6);
        ragged.get_mut(&2).unwrap().remove(&5);
        let mut even = values(3, 20);
        for items in even.values_mut() {
            items.remove(&5);
        }
        assert_eq!(estimate(&ragged, 0.95, 200, 1), estimate(&even, 0.95, 200, 1));
    }

    #[test]
    fn it_is_the_same_on_any_number_of_threads() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| estimate(&values(3, 50), 0.95, 500, 3))
        };
        assert_eq!(on(1), on(3));
    }
}
