//! Values of scipy, statsmodels and rliable: see `golden/golden.py`. What is deterministic equals them to 1e-9, what is resampled
//! within the error of the resampling.
#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeMap;

use serde::Deserialize;
use statistics::Better;
use statistics::bca::{self, Tails};
use statistics::{adjust, aggregate, estimate, paired, power, resample, student};

#[derive(Deserialize)]
struct Golden {
    t_two_sided: Vec<Quantile>,
    t_two_sided_of: Vec<QuantileOf>,
    t_p_value: Vec<PValue>,
    noncentral_t: Vec<Noncentral>,
    t_interval: Vec<Interval>,
    paired: Vec<Paired>,
    welch: Vec<Welch>,
    adjusted: Vec<Adjusted>,
    power: Vec<Power>,
    seeds: Vec<Seeds>,
    bca: Vec<Bca>,
    aggregate: Vec<Aggregate>,
}

#[derive(Deserialize)]
struct Quantile {
    level: f64,
    freedom: usize,
    value: f64,
}

#[derive(Deserialize)]
struct QuantileOf {
    level: f64,
    freedom: f64,
    value: f64,
}

#[derive(Deserialize)]
struct PValue {
    t: f64,
    freedom: f64,
    value: f64,
}

#[derive(Deserialize)]
struct Noncentral {
    t: f64,
    freedom: f64,
    shift: f64,
    value: f64,
}

#[derive(Deserialize)]
struct Interval {
    values: Vec<f64>,
    level: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Paired {
    a: Vec<f64>,
    b: Vec<f64>,
    t: f64,
    sign_flip: f64,
    wilcoxon: f64,
}

#[derive(Deserialize)]
struct Welch {
    a: Vec<f64>,
    b: Vec<f64>,
    value: f64,
}

#[derive(Deserialize)]
struct Adjusted {
    p: Vec<f64>,
    holm: Vec<f64>,
    benjamini_hochberg: Vec<f64>,
}

#[derive(Deserialize)]
struct Power {
    effect: f64,
    n: usize,
    value: f64,
}

#[derive(Deserialize)]
struct Seeds {
    effect: f64,
    power: f64,
    n: usize,
}

#[derive(Deserialize)]
struct Bca {
    values: Vec<f64>,
    scipy: (f64, f64),
    percentile: (f64, f64),
}

#[derive(Deserialize)]
struct Aggregate {
    x: Vec<Vec<f64>>,
    y: Vec<Vec<f64>>,
    iqm: f64,
    iqm_interval: (f64, f64),
    improvement: f64,
    improvement_interval: (f64, f64),
    taus: Vec<f64>,
    profile: Vec<f64>,
    profile_mean_scores: Vec<f64>,
    profile_low: Vec<f64>,
    profile_high: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/golden.json")).unwrap()
}

/// To 1e-9 of the value, or of 1 where it is less.
#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found}, expected {expected}");
}

fn numbered(values: &[f64]) -> BTreeMap<u64, f64> {
    (0u64..).zip(values.iter().copied()).collect()
}

#[test]
fn student_is_scipys() {
    let golden = golden();
    assert!(golden.t_two_sided.len() >= 54 && golden.t_p_value.len() >= 63 && golden.noncentral_t.len() >= 80);
    for c in &golden.t_two_sided {
        let found = student::quantile(c.level, c.freedom);
        assert!((found - c.value).abs() < 1e-10 * c.value, "{} {}: {found}, {}", c.level, c.freedom, c.value);
    }
    for c in &golden.t_two_sided_of {
        let found = student::quantile_of(c.level, c.freedom);
        assert!((found - c.value).abs() < 1e-10 * c.value, "{} {}: {found}, {}", c.level, c.freedom, c.value);
    }
    for c in &golden.t_p_value {
        let found = student::p_value(c.t, c.freedom);
        // of the value, also where it is small
        assert!((found - c.value).abs() < 1e-9 * c.value, "t {} ν {}: {found}, {}", c.t, c.freedom, c.value);
        assert_eq!(student::p_value(-c.t, c.freedom).to_bits(), found.to_bits());
    }
    for c in &golden.noncentral_t {
        near(student::noncentral_cdf(c.t, c.freedom, c.shift), c.value);
    }
}

#[test]
fn t_intervals_are_scipys() {
    for c in golden().t_interval {
        let (low, high) = estimate::t_interval(&c.values, c.level).unwrap();
        near(low, c.low);
        near(high, c.high);
    }
}

#[test]
fn paired_tests_are_scipys() {
    let golden = golden();
    assert!(golden.paired.len() >= 7 && golden.welch.len() >= 4);
    for c in &golden.paired {
        let found = paired::by_seed(&numbered(&c.a), &numbered(&c.b)).unwrap();
        near(found.t.unwrap(), c.t);
        near(found.sign_flip.unwrap(), c.sign_flip);
        near(found.wilcoxon.unwrap(), c.wilcoxon);
        assert_eq!(found.difference.n, c.a.len());
    }
    for c in &golden.welch {
        near(paired::welch(&c.a, &c.b).unwrap(), c.value);
    }
}

#[test]
fn what_paired_tests_cannot_say() {
    let one = paired::by_seed(&numbered(&[1.0]), &numbered(&[0.5])).unwrap();
    assert_eq!((one.t, one.sign_flip, one.wilcoxon), (None, Some(1.0), Some(1.0)));
    assert_eq!(paired::by_seed(&numbered(&[1.0]), &BTreeMap::new()), None);
    assert_eq!(paired::t_test(&[0.0, 0.0, 0.0]), Some(1.0));
    assert_eq!(paired::t_test(&[0.5, 0.5, 0.5]), Some(0.0));
    assert_eq!(paired::wilcoxon(&[0.0, 0.0]), Some(1.0));
    // ranks 2, 2, 2, 4, 5: of the 32 sums 9 are up to 5
    assert_eq!(paired::wilcoxon(&[1.0, 1.0, 1.0, 2.0, -3.0]), Some(2.0 * 9.0 / 32.0));
    assert_eq!(paired::sign_flip(&[1.0; 21]), None, "too many to turn them all");
    assert_eq!(paired::sign_flip(&[0.1; 20]), Some(2.0 / f64::from(1 << 20)));
    for test in [paired::t_test, paired::sign_flip, paired::wilcoxon] {
        assert_eq!(test(&[]), None);
        assert_eq!(test(&[1.0, f64::INFINITY]), None);
    }
    assert_eq!(paired::welch(&[1.0], &[1.0, 2.0]), None);
}

#[test]
fn adjusted_p_values_are_those_of_statsmodels() {
    let golden = golden();
    assert!(golden.adjusted.len() >= 5);
    for c in &golden.adjusted {
        for (found, expected) in adjust::holm(&c.p).iter().zip(&c.holm) {
            near(*found, *expected);
        }
        for (found, expected) in adjust::benjamini_hochberg(&c.p).iter().zip(&c.benjamini_hochberg) {
            near(*found, *expected);
        }
    }
    assert_eq!(adjust::holm(&[f64::NAN, 0.01]), [1.0, 0.02]);
    assert_eq!(adjust::benjamini_hochberg(&[f64::NAN, 0.01]), [1.0, 0.02]);
    assert!(adjust::holm(&[]).is_empty() && adjust::benjamini_hochberg(&[]).is_empty());
}

#[test]
fn power_and_seeds_are_those_of_statsmodels() {
    let golden = golden();
    assert!(golden.power.len() >= 15 && golden.seeds.len() >= 26);
    for c in &golden.power {
        near(power::paired_power(c.effect, c.n, 0.05), c.value);
    }
    for c in &golden.seeds {
        assert_eq!(power::seeds_needed(2.0 * c.effect, 2.0, c.power, 0.05), Some(c.n), "{}", c.effect);
    }
}

/// Ends of 20,000 resamples, to a share of the interval's width: about four standard errors of such an end.
#[track_caller]
fn resampled(found: (f64, f64), expected: (f64, f64)) {
    let tolerance = 0.03 * (expected.1 - expected.0);
    let (low, high) = (found.0 - expected.0, found.1 - expected.1);
    assert!(low.abs() <= tolerance && high.abs() <= tolerance, "{found:?}, expected {expected:?}");
}

#[test]
fn bootstrap_intervals_are_scipys() {
    for c in golden().bca {
        resampled(bca::interval(&c.values, 0.95, Tails::Plain, 20_000, 1).unwrap(), c.scipy);
        resampled(resample::mean_interval(&c.values, 0.95, Tails::Plain, 20_000, 1).unwrap(), c.percentile);
        let items =
            paired::by_item(&numbered(&c.values), &numbered(&vec![1.0; c.values.len()]), 0.95, 20_000, 1).unwrap();
        near(items.mean, c.values.iter().sum::<f64>() / c.values.len() as f64 - 1.0);
        let (low, high) = items.interval.unwrap();
        assert!(low + 1.0 < c.percentile.0 && c.percentile.1 < high + 1.0, "expanded tails are wider");
    }
}

#[test]
fn aggregates_are_rliables() {
    let golden = golden();
    assert!(golden.aggregate.len() >= 3);
    for c in &golden.aggregate {
        near(aggregate::interquartile_mean(&c.x).unwrap(), c.iqm);
        near(aggregate::probability_of_improvement(&c.x, &c.y, Better::Higher).unwrap(), c.improvement);
        let points = aggregate::performance_profile(&c.x, &c.taus, Better::Higher, 0.95, 20_000, 1).unwrap();
        for (point, share) in points.iter().zip(&c.profile) {
            near(point.share, *share);
        }
        let means = aggregate::profile_of_means(&c.x, &c.taus, Better::Higher).unwrap();
        for (found, share) in means.iter().zip(&c.profile_mean_scores) {
            near(*found, *share);
        }
        resampled(aggregate::interquartile_mean_interval(&c.x, 0.95, 20_000, 1).unwrap(), c.iqm_interval);
        let of = aggregate::probability_of_improvement_interval;
        resampled(of(&c.x, &c.y, Better::Higher, 0.95, 20_000, 1).unwrap(), c.improvement_interval);
        // shares are multiples of one over the number of scores: an end is at the same one or the next
        let step = 1.0 / c.x.iter().flatten().count() as f64 + 1e-9;
        for (point, (low, high)) in points.iter().zip(c.profile_low.iter().zip(&c.profile_high)) {
            let (found_low, found_high) = point.interval;
            assert!((found_low - low).abs() <= step && (found_high - high).abs() <= step, "{point:?} {low} {high}");
        }
    }
}
