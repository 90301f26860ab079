//! Aggregates over tasks, as rliable defines them (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
//! precipice"): interquartile mean, probability of improvement, performance profile, with stratified bootstrap intervals.
//!
//! Scores are `scores[task][run]`, on one scale over tasks: that is the caller's to see to. Tasks may have different numbers of runs.
//! Intervals draw the runs of each task anew, of each task by itself: they say what other seeds would give on the same tasks.

use rand::Rng;
use rayon::prelude::*;

use super::Better;
use super::estimate::mean;
use super::resample::{percentile_interval, stream};

/// Scores by task and run.
pub type Scores = [Vec<f64>];

/// The mean of the middle half of all scores of all tasks: a quarter of them, rounded down, is left out at either end. `None` without
/// scores or with one that is not finite.
pub fn interquartile_mean(scores: &Scores) -> Option<f64> {
    whole(scores)?;
    let mut all: Vec<f64> = scores.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let cut = all.len() / 4;
    all.get(cut..all.len() - cut).map(mean)
}

/// Percentile interval of [`interquartile_mean`] with the share `level` (0.95).
pub fn interquartile_mean_interval(scores: &Scores, level: f64, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    whole(scores)?;
    let draw = |resample| interquartile_mean(&redrawn(scores, &mut stream(seed, resample)));
    percentile_interval((0..resamples).into_par_iter().filter_map(draw).collect(), resamples, (1.0 - level) / 2.0)
}

/// Chance that a run of `x` is better than one of `y` on the same task (equal counts half), mean over tasks. `None` unless both have
/// the same tasks, each with a run, and all scores are finite.
pub fn probability_of_improvement(x: &Scores, y: &Scores, better: Better) -> Option<f64> {
    whole(x)?;
    whole(y)?;
    let wins = |x: &Vec<f64>, y: &Vec<f64>| {
        let each = x.iter().flat_map(|x| y.iter().map(move |y| (x > y, x < y)));
        let points = each.map(|(above, below)| match (better, above, below) {
            (Better::Higher, true, _) | (Better::Lower, _, true) => 1.0,
            (_, false, false) => 0.5,
            (Better::Higher, false, true) | (Better::Lower, true, false) => 0.0,
        });
        points.sum::<f64>() / (x.len() * y.len()) as f64
    };
    let tasks: Vec<f64> = x.iter().zip(y).map(|(x, y)| wins(x, y)).collect();
    (x.len() == y.len()).then(|| mean(&tasks))
}

/// Percentile interval of [`probability_of_improvement`] with the share `level`: the runs of `x` and of `y` are drawn independently.
pub fn probability_of_improvement_interval(
    x: &Scores,
    y: &Scores,
    better: Better,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<(f64, f64)> {
    probability_of_improvement(x, y, better)?;
    let draw = |resample| {
        let mut rng = stream(seed, resample);
        let (x, y) = (redrawn(x, &mut rng), redrawn(y, &mut rng));
        probability_of_improvement(&x, &y, better)
    };
    percentile_interval((0..resamples).into_par_iter().filter_map(draw).collect(), resamples, (1.0 - level) / 2.0)
}

/// A point of a performance profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfilePoint {
    /// Score that is to be passed.
    pub threshold: f64,
    /// Share of the runs that pass it, mean over tasks.
    pub share: f64,
    /// Percentile interval of that share.
    pub interval: (f64, f64),
}

/// Performance profile: for each threshold the share of runs, mean over tasks, that are better than it (not equal to it), with a
/// pointwise interval of the share `level`. `None` without scores or with one that is not finite.
pub fn performance_profile(
    scores: &Scores,
    thresholds: &[f64],
    better: Better,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Vec<ProfilePoint>> {
    whole(scores)?;
    let draw = |resample| profile(&redrawn(scores, &mut stream(seed, resample)), thresholds, better);
    let draws: Vec<Vec<f64>> = (0..resamples).into_par_iter().map(draw).collect();
    let points = profile(scores, thresholds, better).into_iter().zip(thresholds).enumerate().map(|(i, (share, at))| {
        let of_point = draws.iter().filter_map(|draw| draw.get(i).copied()).collect();
        let interval = percentile_interval(of_point, resamples, (1.0 - level) / 2.0)?;
        Some(ProfilePoint { threshold: *at, share, interval })
    });
    points.collect()
}

/// Profile of the tasks' means: the share of tasks whose mean score is better than each threshold.
pub fn profile_of_means(scores: &Scores, thresholds: &[f64], better: Better) -> Option<Vec<f64>> {
    whole(scores)?;
    let means: Vec<Vec<f64>> = scores.iter().map(|runs| vec![mean(runs)]).collect();
    Some(profile(&means, thresholds, better))
}

fn profile(scores: &Scores, thresholds: &[f64], better: Better) -> Vec<f64> {
    let passes = |score: f64, threshold: f64| match better {
        Better::Lower => score < threshold,
        Better::Higher => score > threshold,
    };
    let share = |threshold: f64| {
        let of_task =
            |runs: &Vec<f64>| runs.iter().filter(|v| passes(**v, threshold)).count() as f64 / runs.len() as f64;
        scores.iter().map(of_task).sum::<f64>() / scores.len() as f64
    };
    thresholds.iter().map(|threshold| share(*threshold)).collect()
}

/// Whether there are tasks, every task has a run, and every score is finite.
fn whole(scores: &Scores) -> Option<()> {
    let good = |runs: &Vec<f64>| !runs.is_empty() && runs.iter().all(|v| v.is_finite());
    (!scores.is_empty() && scores.iter().all(good)).then_some(())
}

/// The runs of each task drawn anew.
fn redrawn(scores: &Scores, rng: &mut impl Rng) -> Vec<Vec<f64>> {
    let task = |runs: &Vec<f64>| {
        let n = runs.len();
        (0..n).filter_map(|_| runs.get(rng.random_range(0..n)).copied()).collect()
    };
    scores.iter().map(task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_has_no_aggregate() {
        let good = vec![vec![0.1, 0.2], vec![0.3]];
        for bad in [vec![], vec![vec![]], vec![vec![0.1], vec![]], vec![vec![0.1], vec![f64::NAN]]] {
            assert_eq!(interquartile_mean(&bad), None);
            assert_eq!(interquartile_mean_interval(&bad, 0.95, 50, 1), None);
            assert_eq!(probability_of_improvement(&good, &bad, Better::Higher), None);
            assert_eq!(probability_of_improvement_interval(&bad, &good, Better::Higher, 0.95, 50, 1), None);
            assert_eq!(performance_profile(&bad, &[0.1], Better::Higher, 0.95, 50, 1), None);
            assert_eq!(profile_of_means(&bad, &[0.1], Better::Higher), None);
        }
        assert_eq!(probability_of_improvement(&good, &good[..1], Better::Higher), None, "other tasks");
    }

    #[test]
    fn lower_is_the_mirror_of_higher() {
        let (x, y) = (vec![vec![1.0, 2.0, 2.0], vec![5.0]], vec![vec![2.0, 3.0], vec![4.0, 5.0, 6.0]]);
        let turn = |s: &Scores| s.iter().map(|runs| runs.iter().map(|v| -v).collect()).collect::<Vec<Vec<f64>>>();
        let higher = probability_of_improvement(&x, &y, Better::Higher).unwrap();
        assert_eq!(probability_of_improvement(&turn(&x), &turn(&y), Better::Lower), Some(higher));
        // task 1: 2 of 6 pairs equal, none better; task 2: one better, one equal of 3
        assert!((higher - f64::midpoint(1.0 / 6.0, 0.5)).abs() < 1e-15);
        assert_eq!(profile(&x, &[2.0], Better::Higher), [0.5]);
        assert_eq!(profile(&turn(&x), &[-2.0], Better::Lower), [0.5]);
    }
}
