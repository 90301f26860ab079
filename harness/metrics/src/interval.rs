//! 95 % percentile bootstrap intervals over the items of an evaluation (Efron & Tibshirani 1993, chapter 13).
//!
//! Each resample has a random stream of its own, so the intervals do not depend on the number of threads.

use rayon::prelude::*;
use statistics::resample::{draw, interval};

use super::ranking::{Areas, Ranking};

/// Intervals of the macro averages; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Intervals {
    /// Of the macro AUC-ROC.
    pub roc: Option<(f64, f64)>,
    /// Of the macro average precision.
    pub precision: Option<(f64, f64)>,
}

/// 95 % intervals of the macro areas over items: all classes of an item are drawn together, `resamples` times.
///
/// A resample that misses the positives (or negatives) of a class has no macro area and is left out; where that happens
/// to more than half of them no interval is given, nor with fewer than two items.
pub fn macro_intervals(classes: &[Ranking], resamples: usize, seed: u64) -> Intervals {
    let n = classes.first().map_or(0, Ranking::len);
    if n < 2 || classes.iter().any(|class| class.len() != n) {
        return Intervals::default();
    }
    let draws: Vec<(Option<f64>, Option<f64>)> = (0..resamples)
        .into_par_iter()
        .map_init(
            || vec![0u64; n],
            |counts, resample| {
                draw(counts, seed, resample);
                let areas: Vec<Areas> =
                    classes.iter().map(|class| class.areas(|i| counts.get(i).copied().unwrap_or(0))).collect();
                let mean = |area: fn(&Areas) -> Option<f64>| {
                    areas.iter().map(area).sum::<Option<f64>>().map(|sum| sum / areas.len() as f64)
                };
                (mean(|a| a.roc), mean(|a| a.precision))
            },
        )
        .collect();
    Intervals {
        roc: interval(draws.iter().filter_map(|d| d.0).collect(), resamples),
        precision: interval(draws.iter().filter_map(|d| d.1).collect(), resamples),
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use statistics::resample::stream;

    use super::*;

    #[test]
    fn macro_interval_is_the_same_on_any_number_of_threads() {
        let n = 300;
        let class = |k: u64| {
            let mut rng = stream(k, 7);
            let labels: Vec<bool> = (0..n).map(|_| rng.random_bool(0.3)).collect();
            let scores: Vec<f64> =
                labels.iter().map(|&l| f64::from(u8::from(l)) + rng.random_range(-1.0..1.0)).collect();
            Ranking::new(&scores, &labels).unwrap()
        };
        let classes: Vec<Ranking> = (0..5).map(class).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| macro_intervals(&classes, 500, 3))
        };
        assert_eq!(on(1), on(3));
        let (low, high) = on(1).roc.unwrap();
        let mean = classes.iter().map(|c| c.auc_roc().unwrap()).sum::<f64>() / 5.0;
        assert!(low < mean && mean < high && high - low < 0.1, "{low} {mean} {high}");
    }

    /// Two items are enough to draw from, one is not.
    #[test]
    fn two_items_have_an_interval_and_one_has_none() {
        let class =
            |scores: &[f64]| Ranking::new(scores, &scores.iter().map(|s| *s > 0.5).collect::<Vec<_>>()).unwrap();
        // three of four draws of two items have the positive, and so a precision: of both items or of it alone it is 1
        assert_eq!(macro_intervals(&[class(&[0.9, 0.1])], 100, 0).precision, Some((1.0, 1.0)));
        assert_eq!(macro_intervals(&[class(&[0.9])], 100, 0), Intervals::default());
        assert_eq!(macro_intervals(&[], 100, 0), Intervals::default());
        let unequal = [class(&[0.9, 0.1, 0.2, 0.8]), class(&[0.9, 0.1, 0.8])];
        assert_eq!(macro_intervals(&unequal, 100, 0), Intervals::default());
    }

    #[test]
    fn a_statistic_that_is_mostly_undefined_has_no_interval() {
        // one positive among 200 items is missed by (1 − 1/200)^200 ≈ 37 % of the resamples, two classes by more than half
        let scores: Vec<f64> = (0..200).map(f64::from).collect();
        let labels = |at: usize| (0..200).map(|i| i == at).collect::<Vec<bool>>();
        let one = Ranking::new(&scores, &labels(5)).unwrap();
        let other = Ranking::new(&scores, &labels(9)).unwrap();
        assert!(macro_intervals(std::slice::from_ref(&one), 400, 0).roc.is_some());
        assert_eq!(macro_intervals(&[one, other], 400, 0), Intervals::default());
    }
}
