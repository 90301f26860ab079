//! What intervals, adjustments and marks promise, by simulation: values whose truth is known, drawn again and again.
#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;
use statistics::Better;
use statistics::bca::{self, Tails};
use statistics::best::{Mark, marks};
use statistics::resample::stream;
use statistics::{adjust, estimate, paired, resample, two_level};

const LEVEL: f64 = 0.95;
/// Two points. A share of 4,000 trials has a standard error of 0.35 points.
const ALLOWED: f64 = 0.02;

fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn normals(rng: &mut impl Rng, n: usize) -> Vec<f64> {
    (0..n).map(|_| normal(rng)).collect()
}

/// Share of trials, each with random numbers of its own, in which the interval that it gives covers 0.
fn coverage(trials: usize, interval: impl Fn(usize) -> (f64, f64) + Sync + Send) -> f64 {
    let hits = (0..trials).into_par_iter().map(interval).filter(|(low, high)| *low <= 0.0 && 0.0 <= *high);
    hits.count() as f64 / trials as f64
}

#[test]
fn t_intervals_cover_what_they_say() {
    for n in [2, 3, 5, 8] {
        for level in [0.9, LEVEL] {
            let share = coverage(4000, |t| estimate::t_interval(&normals(&mut stream(1, t), n), level).unwrap());
            assert!((share - level).abs() <= ALLOWED, "{n} seeds at {level}: {share}");
        }
        // paired: what both share by seed does not matter
        let share = coverage(4000, |t| {
            let mut rng = stream(2, t);
            let pair = |rng: &mut _| (10.0 * normal(rng), normal(rng), normal(rng));
            let pairs: Vec<(f64, f64, f64)> = (0..n).map(|_| pair(&mut rng)).collect();
            let model = |own: fn(&(f64, f64, f64)) -> f64| {
                (0u64..).zip(pairs.iter().map(|pair| pair.0 + own(pair))).collect::<BTreeMap<_, _>>()
            };
            let found = paired::by_seed(&model(|pair| pair.1), &model(|pair| pair.2)).unwrap();
            found.difference.interval.unwrap()
        });
        assert!((share - LEVEL).abs() <= ALLOWED, "{n} pairs: {share}");
    }
}

#[test]
fn over_seeds_covers_what_it_says_on_either_side_of_ten() {
    for n in [2, 3, 5, 8, 10, 11, 15, 30] {
        let share =
            coverage(4000, |t| estimate::over_seeds(&normals(&mut stream(3, t), n), LEVEL, 600, t as u64).unwrap().1);
        assert!((share - LEVEL).abs() <= ALLOWED, "{n} seeds: {share}");
    }
    let plain =
        coverage(4000, |t| bca::interval(&normals(&mut stream(3, t), 11), LEVEL, Tails::Plain, 600, t as u64).unwrap());
    assert!(plain < LEVEL - ALLOWED, "the textbook's tails are too narrow: {plain}");
}

#[test]
fn item_intervals_cover_what_they_say() {
    for n in [12, 40, 200] {
        let share = coverage(2000, |t| {
            let values = normals(&mut stream(5, t), n);
            resample::mean_interval(&values, LEVEL, Tails::Expanded, 400, t as u64).unwrap()
        });
        assert!((share - LEVEL).abs() <= ALLOWED, "{n} items: {share}");
    }
}

/// Seeds, items, and both together move what is measured, in three proportions.
#[test]
fn two_level_intervals_cover_what_they_say() {
    for seeds in [2, 3, 5, 8] {
        for (by_seed, by_item, rest) in [(1.0, 0.5, 0.5), (0.3, 2.0, 1.0), (0.1, 1.0, 0.1), (0.0, 1.0, 0.1)] {
            let share = coverage(1500, |t| {
                let mut rng = stream(6, t);
                let items = normals(&mut rng, 40);
                let row = |rng: &mut _| {
                    let seed = by_seed * normal(rng);
                    let value = |item: &f64| seed + by_item * item + rest * normal(rng);
                    (0..).zip(items.iter().map(value)).collect()
                };
                let values = (0..seeds).map(|seed| (seed, row(&mut rng))).collect::<two_level::BySeedAndItem<u32>>();
                two_level::estimate(&values, LEVEL, 300, t as u64).unwrap().interval.unwrap()
            });
            assert!((share - LEVEL).abs() <= ALLOWED + 0.01, "{seeds} seeds, {by_seed} {by_item} {rest}: {share}");
        }
    }
}

/// Sweeps; 1,000 would leave the share of a few per cent uncertain by 0.7 points.
const SWEEPS: usize = 10_000;

/// P values of a sweep: 40 settings that change nothing, each against one reference, paired over five seeds.
fn null_sweep(t: usize) -> Vec<f64> {
    let mut rng = stream(7, t);
    let mut model = || normals(&mut rng, 5);
    let reference = model();
    let against = |values: Vec<f64>| {
        let differences: Vec<f64> = values.iter().zip(&reference).map(|(a, b)| a - b).collect();
        paired::t_test(&differences).unwrap()
    };
    (0..40).map(|_| against(model())).collect()
}

#[test]
fn null_sweeps_have_few_discoveries() {
    let sweeps: Vec<Vec<f64>> = (0..SWEEPS).into_par_iter().map(null_sweep).collect();
    let with =
        |adjust: &dyn Fn(&[f64]) -> Vec<f64>| sweeps.iter().filter(|p| adjust(p).iter().any(|p| *p < 0.05)).count();
    let (holm, hochberg, plain) = (with(&adjust::holm), with(&adjust::benjamini_hochberg), with(&<[f64]>::to_vec));
    // under the null every discovery is false, and the share of sweeps with one is the rate that both bound
    assert!(holm * 20 <= SWEEPS, "{holm}");
    // it is 5 % exactly for independent comparisons: three standard errors more
    assert!(hochberg * 20 <= SWEEPS + SWEEPS * 13 / 100, "{hochberg}");
    assert!(plain * 2 > SWEEPS, "unadjusted, most sweeps find something: {plain}");
}

/// Share of tables of equal models in which one is called worse.
fn wrongly_told(models: usize, seeds: usize, shared: bool, tables: usize) -> f64 {
    let wrong = |t: &usize| {
        let mut rng = stream(8, *t);
        let common = normals(&mut rng, seeds);
        let model = |m: usize| -> BTreeMap<u64, f64> {
            let first = if shared { 0 } else { 100 * m as u64 };
            (first..).zip(common.iter().map(|c| c * f64::from(u8::from(shared)) + normal(&mut rng))).collect()
        };
        let table: Vec<_> = (0..models).map(model).collect();
        marks(&table, Better::Higher).contains(&Mark::Worse)
    };
    (0..tables).into_par_iter().filter(wrong).count() as f64 / tables as f64
}

#[test]
fn equal_models_are_seldom_told_apart() {
    for (models, seeds, shared, tables) in [
        (2, 3, true, 4000),
        (2, 5, true, 4000),
        (2, 5, false, 4000),
        (8, 3, true, 2000),
        (8, 5, true, 2000),
        (41, 5, true, 1000),
    ] {
        let share = wrongly_told(models, seeds, shared, tables);
        assert!(share <= 0.06, "{models} models, {seeds} seeds, shared {shared}: {share}");
    }
}

/// Two equal models lead two that are worse by fifteen deviations; one seed of one of the worse is as lucky, or as unlucky, as can be.
#[test]
fn an_astray_seed_marks_nothing_that_is_worse() {
    let trials = 500;
    for astray in [-1000.0, -30.0, 30.0, 1000.0] {
        let marked: usize = (0..trials)
            .into_par_iter()
            .map(|t| {
                let mut rng = stream(9, t);
                let mut model =
                    |mean: f64| -> BTreeMap<u64, f64> { (0..).zip((0..6).map(|_| mean + normal(&mut rng))).collect() };
                let mut table = [model(0.0), model(0.0), model(15.0), model(15.0)];
                *table[3].get_mut(&2).unwrap() += astray;
                let found = marks(&table, Better::Lower);
                assert!(found[..2].contains(&Mark::Best), "{found:?}");
                found[2..].iter().filter(|mark| **mark == Mark::Best).count()
            })
            .sum();
        assert!(marked * 100 <= trials, "{astray}: {marked} of {trials}");
    }
}
