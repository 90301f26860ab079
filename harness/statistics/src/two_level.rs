//! Intervals where both seeds and test items matter: what other seeds *and* other items would have given.
//!
//! Items are drawn anew, the same ones for every seed, since every seed is scored on the same test set. Drawing the seeds anew too
//! (the pigeonhole bootstrap, Owen 2007) would cover too little with the few that there are: half of the cases with two. So each
//! resample moves the mean over seeds by Student's variable times its standard error on the items drawn, which is what the seeds
//! alone would have to say (the t interval), and the interval is the percentiles of that. It is a little wide where both matter
//! equally and the seeds are very few, and what it says elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rayon::prelude::*;

use super::estimate::{Estimate, mean, variance};
use super::resample::{percentile_interval, stream};

/// Interval with the share `level` of the mean over `seeds` seeds of a statistic over `items` independent items.
/// `statistic(seed, drawn)` says what it is for one seed on the items drawn, or `None` where it is not defined.
///
/// `None` with fewer than two seeds or items, or where the statistic is undefined in more than half of the resamples.
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
    let draw = |resample: usize| -> Option<f64> {
        let mut rng = stream(seed, resample);
        let drawn: Vec<usize> = (0..items).map(|_| rng.random_range(0..items)).collect();
        let values = (0..seeds).map(|seed| statistic(seed, &drawn)).collect::<Option<Vec<f64>>>()?;
        let mean = mean(&values);
        let error = (variance(&values, mean) / seeds as f64).sqrt();
        Some(mean + error * student(&mut rng, seeds - 1))
    };
    let draws = (0..resamples).into_par_iter().filter_map(draw).filter(|v| v.is_finite()).collect();
    percentile_interval(draws, resamples, (1.0 - level) / 2.0)
}

/// A draw of Student's variable: a normal over the root of a mean of squared ones.
fn student(rng: &mut impl Rng, freedom: usize) -> f64 {
    let normal = normal(rng);
    let squares: f64 = (0..freedom).map(|_| self::normal(rng).powi(2)).sum();
    normal / (squares / freedom as f64).sqrt()
}

/// A standard normal draw (Box and Muller 1958).
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    // 1 − u is never 0
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
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
    fn it_is_the_same_on_any_number_of_threads() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| estimate(&values(3, 50), 0.95, 500, 3))
        };
        assert_eq!(on(1), on(3));
    }
}
