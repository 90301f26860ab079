//! Sums over pairs of spikes by time difference, and their fits with bootstrap intervals.

use std::collections::BTreeMap;

use bim::time_differences::Quantity;
use rand::Rng;
use rayon::prelude::*;

use super::super::group::Group;
use super::super::model::{Difference, Loaded};
use statistics::fit::{Decay, Exponential};
use statistics::resample::{interval, stream};

/// What is fitted.
const UPDATES: [Quantity; 4] = [Quantity::Gradient, Quantity::Direction, Quantity::Stdp, Quantity::Mixed];
/// Resamples: an interval's ends move by a few per cent of its width between seeds of the resampling.
const RESAMPLES: usize = 1000;
/// Seed of the resampling: an interval is a function of the values alone.
const SEED: u64 = 0;

/// Sign of the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Δ > 0: the presynaptic spike came first.
    After,
    /// Δ < 0: the postsynaptic spike came first.
    Before,
}

/// Sums over the pairs of one update, or of many, for every difference from −M to M.
#[derive(Clone, Debug)]
struct Sums {
    pairs: Vec<f64>,
    updates: [Vec<f64>; 4],
}

impl Sums {
    fn new(most: i64) -> Self {
        let zeros = || vec![0.0; 2 * most.unsigned_abs() as usize + 1];
        Self { pairs: zeros(), updates: [zeros(), zeros(), zeros(), zeros()] }
    }

    fn add(&mut self, other: &Self) {
        let parts = std::iter::once((&mut self.pairs, &other.pairs)).chain(self.updates.iter_mut().zip(&other.updates));
        for (to, from) in parts {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }

    /// Mean per pair at each difference that has pairs.
    fn curve(&self, quantity: usize, most: i64) -> Vec<(i64, f64)> {
        let sums = self.updates.get(quantity).map_or(&[][..], Vec::as_slice);
        let each = (-most..).zip(sums.iter().zip(&self.pairs));
        each.filter(|(_, (_, pairs))| **pairs > 0.0).map(|(lag, (sum, pairs))| (lag, sum / pairs)).collect()
    }

    /// Means and numbers of pairs at these differences; where there are no pairs, both are 0.
    fn at(&self, quantity: usize, places: &[usize]) -> (Vec<f64>, Vec<f64>) {
        let value = |i: &usize| {
            let sum = self.updates.get(quantity).and_then(|sums| sums.get(*i)).copied().unwrap_or_default();
            let pairs = self.pairs.get(*i).copied().unwrap_or_default();
            (if pairs > 0.0 { sum / pairs } else { 0.0 }, pairs)
        };
        places.iter().map(value).unzip()
    }
}

/// A fit to one side of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct SideFit {
    /// Over all seeds and updates.
    pub fit: Exponential,
    /// 95 % interval of τ; `None` with one measured update.
    pub tau: Option<(f64, f64)>,
    /// Longest τ that was looked for: an end there has no limit.
    pub longest: f64,
}

/// An exponential and where it was fitted.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    pub side: Side,
    pub fit: Exponential,
    /// Differences that it was fitted to, by rising distance.
    pub lags: Vec<i64>,
}

/// Everything measured of one configuration at one kind of pathway.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    most: i64,
    /// Whether each of [`UPDATES`] was measured.
    present: [bool; 4],
    /// The measured updates of each seed.
    seeds: Vec<Vec<Sums>>,
    total: Sums,
}

impl Measured {
    /// The updates of the last half of training at pathways whose name ends in `kind`; `None` if there are none.
    pub(super) fn collect(group: &Group, loaded: &Loaded, kind: &str) -> Option<Self> {
        let of_run = |cell: &str, updates: u64| -> Vec<&Difference> {
            let rows = loaded.differences.get(cell).into_iter().flatten();
            let here = |pathway: &str| pathway.rsplit_once('.').is_some_and(|(_, end)| end == kind);
            rows.filter(|row| row.step.saturating_mul(2) > updates && here(&row.pathway)).collect()
        };
        let runs: Vec<_> = group.completed().map(|run| of_run(&run.head.cell, run.head.updates)).collect();
        let most = runs.iter().flatten().map(|row| row.lag.abs()).max()?;
        let mut present = [false; 4];
        let seeds: Vec<Vec<Sums>> =
            runs.iter().filter(|r| !r.is_empty()).map(|r| sums(r, most, &mut present)).collect();
        let mut total = Sums::new(most);
        seeds.iter().flatten().for_each(|update| total.add(update));
        Some(Self { most, present, seeds, total })
    }

    pub(super) fn furthest(&self) -> i64 {
        self.most
    }

    pub(super) fn seeds(&self) -> usize {
        self.seeds.len()
    }

    pub(super) fn most_updates(&self) -> usize {
        self.seeds.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// What was measured.
    pub(super) fn quantities(&self) -> impl Iterator<Item = Quantity> {
        UPDATES.into_iter().zip(self.present).filter(|(_, present)| *present).map(|(quantity, _)| quantity)
    }

    /// Mean per pair at each difference, over all seeds.
    pub(super) fn curve(&self, quantity: Quantity) -> Vec<(i64, f64)> {
        self.total.curve(quantity as usize, self.most)
    }

    /// The same of one seed.
    pub(super) fn curve_of_seed(&self, seed: usize, quantity: Quantity) -> Vec<(i64, f64)> {
        let mut total = Sums::new(self.most);
        self.seeds.get(seed).into_iter().flatten().for_each(|update| total.add(update));
        total.curve(quantity as usize, self.most)
    }

    /// The exponential through a quantity's curve on each side that has one.
    pub(super) fn fitted(&self, quantity: Quantity) -> Vec<Fitted> {
        let of_side = |side: Side| {
            let sided = Sided::new(self, side);
            let fit = sided.fit(&self.total, quantity)?;
            let lags = sided.places.iter().map(|place| *place as i64 - self.most).collect();
            Some(Fitted { side, fit, lags })
        };
        [Side::After, Side::Before].into_iter().filter_map(of_side).collect()
    }

    /// The fit of everything measured on both sides.
    pub(super) fn fits(&self) -> Vec<(Quantity, Side, Option<SideFit>)> {
        let sides: Vec<Sided> = [Side::After, Side::Before].into_iter().map(|side| Sided::new(self, side)).collect();
        let cases: Vec<(Quantity, &Sided)> =
            self.quantities().flat_map(|q| sides.iter().map(move |s| (q, s))).collect();
        let several = self.seeds.iter().any(|updates| updates.len() > 1);
        let resampled: Vec<Vec<Option<f64>>> = (0..if several { RESAMPLES } else { 0 })
            .into_par_iter()
            .map(|resample| {
                let total = self.resample(resample);
                cases.iter().map(|(q, side)| side.fit(&total, *q).map(|fit| fit.tau)).collect()
            })
            .collect();
        let of_case = |(i, (quantity, side)): (usize, &(Quantity, &Sided))| {
            let fit = side.fit(&self.total, *quantity).map(|fit| {
                let taus = resampled.iter().filter_map(|case| case.get(i).copied().flatten()).collect();
                SideFit { fit, tau: interval(taus, RESAMPLES), longest: side.longest() }
            });
            (*quantity, side.side, fit)
        };
        cases.iter().enumerate().map(of_case).collect()
    }

    /// Seeds drawn with replacement, then as many updates of each as it has.
    fn resample(&self, resample: usize) -> Sums {
        let mut rng = stream(SEED, resample);
        let mut total = Sums::new(self.most);
        for _ in 0..self.seeds.len() {
            let updates = self.seeds.get(rng.random_range(0..self.seeds.len())).map_or(&[][..], Vec::as_slice);
            for _ in 0..updates.len() {
                if let Some(update) = updates.get(rng.random_range(0..updates.len())) {
                    total.add(update);
                }
            }
        }
        total
    }
}

/// One side of the differences: which they are, and the fits to them.
struct Sided {
    side: Side,
    /// Places in [`Sums`], by ascending distance.
    places: Vec<usize>,
    decay: Option<Decay>,
}

impl Sided {
    fn new(measured: &Measured, side: Side) -> Self {
        let zero = measured.most.unsigned_abs() as usize;
        let place = |distance: usize| if side == Side::After { zero + distance } else { zero - distance };
        let has_pairs = |i: usize| measured.total.pairs.get(i).is_some_and(|pairs| *pairs > 0.0);
        let distances: Vec<usize> = (1..=zero).filter(|distance| has_pairs(place(*distance))).collect();
        let decay = Decay::new(&distances.iter().map(|d| *d as f64).collect::<Vec<_>>());
        Self { side, places: distances.into_iter().map(place).collect(), decay }
    }

    fn fit(&self, sums: &Sums, quantity: Quantity) -> Option<Exponential> {
        let (values, pairs) = sums.at(quantity as usize, &self.places);
        self.decay.as_ref()?.fit(&values, &pairs)
    }

    fn longest(&self) -> f64 {
        self.decay.as_ref().map_or(f64::INFINITY, Decay::longest)
    }
}

/// The sums of each measured update of one run over its pathways.
fn sums(rows: &[&Difference], most: i64, present: &mut [bool; 4]) -> Vec<Sums> {
    let mut pairs: BTreeMap<(u64, &str, i64), f64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.quantity == Quantity::Pairs) {
        pairs.insert((row.step, &row.pathway, row.lag), row.value);
    }
    let mut updates: BTreeMap<u64, Sums> = BTreeMap::new();
    for row in rows {
        let sums = updates.entry(row.step).or_insert_with(|| Sums::new(most));
        let place = (row.lag + most).unsigned_abs() as usize;
        let pairs = pairs.get(&(row.step, row.pathway.as_str(), row.lag)).copied().unwrap_or_default();
        let (to, value) = match row.quantity {
            Quantity::Pairs => (&mut sums.pairs, row.value),
            quantity => {
                let (Some(to), Some(seen)) =
                    (sums.updates.get_mut(quantity as usize), present.get_mut(quantity as usize))
                else {
                    continue;
                };
                *seen = true;
                (to, row.value * pairs)
            }
        };
        if let Some(to) = to.get_mut(place) {
            *to += value;
        }
    }
    updates.into_values().collect()
}
