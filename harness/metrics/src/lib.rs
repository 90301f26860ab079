//! Numbers that say how well a model does, as functions of scores and labels or of summed log-likelihoods. Nothing here knows a
//! task or a model.

pub mod catalogue;
pub mod detection;
pub mod edit;
pub mod interval;
pub mod language;
pub mod ranking;
pub mod stream;

pub use self::edit::error_rates;
pub use self::interval::macro_intervals;
pub use self::language::{bits_per_byte, perplexity};
pub use self::ranking::{Ranking, auc_roc, average_precision};

use serde::{Deserialize, Serialize};

/// Split of metrics that are taken while training, not by an evaluation.
pub const TRAIN_SPLIT: &str = "train";

/// One metric of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name, such as `bits_per_byte`.
    pub name: String,
    /// Value; `None` if undefined.
    pub value: Option<f64>,
    /// Items (bytes, tokens, recordings) it was computed over.
    pub n: u64,
    /// Lower end of the 95 % interval over items.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Metric {
    /// A metric without interval.
    #[must_use]
    pub fn plain(name: impl Into<String>, value: Option<f64>, n: u64) -> Self {
        Self { name: name.into(), value, n, low: None, high: None }
    }
}

/// Seed of the resampling: an interval is a function of the scores alone.
const SEED: u64 = 0;

/// Metrics of a multi-label classification: macro averages with their 95 % intervals over items, then each class's
/// AUC-ROC, AUC-PR and prevalence.
///
/// `scores[i][c]` ranks item `i` for class `c`, `labels[i][c]` is the truth; `resamples` is how often the items are drawn
/// again for the intervals. An area is undefined (null) where the items have no positive (for the ROC also: no negative)
/// or a score is not a number, and a macro average is undefined as soon as one of its classes is: leaving that class out
/// would change the meaning of the number without a word. Where that happens, `auc_roc_macro_present` and
/// `auc_pr_macro_present` average the classes with both areas, and `classes_present` says how many they are.
pub fn multi_label(scores: &[Vec<f64>], labels: &[Vec<bool>], classes: &[&str], resamples: usize) -> Vec<Metric> {
    let n = labels.len() as u64;
    let rankings: Vec<Option<Ranking>> = (0..classes.len())
        .map(|c| {
            let score: Option<Vec<f64>> = scores.iter().map(|item| item.get(c).copied()).collect();
            let label: Option<Vec<bool>> = labels.iter().map(|item| item.get(c).copied()).collect();
            Ranking::new(&score?, &label?)
        })
        .collect();
    let mut per_class = Vec::new();
    let (mut rocs, mut precisions) = (Vec::new(), Vec::new());
    for (class, ranking) in classes.iter().zip(&rankings) {
        let roc = ranking.as_ref().and_then(Ranking::auc_roc);
        let precision = ranking.as_ref().and_then(Ranking::average_precision);
        rocs.push(roc);
        precisions.push(precision);
        per_class.push(Metric::plain(format!("auc_roc_{class}"), roc, n));
        per_class.push(Metric::plain(format!("auc_pr_{class}"), precision, n));
        let prevalence = ranking.as_ref().and_then(Ranking::prevalence);
        per_class.push(Metric::plain(format!("prevalence_{class}"), prevalence, n));
    }
    let whole: Vec<Ranking> = rankings.into_iter().flatten().collect();
    let intervals = if whole.len() == classes.len() {
        macro_intervals(&whole, resamples, SEED)
    } else {
        interval::Intervals::default()
    };
    let mut metrics = vec![
        with_interval("auc_roc_macro", macro_average(&rocs), n, intervals.roc),
        with_interval("auc_pr_macro", macro_average(&precisions), n, intervals.precision),
    ];
    metrics.extend(macro_of_present(&rocs, &precisions, n));
    metrics.append(&mut per_class);
    metrics
}

/// Where some classes have no area, their number and the macro averages over the others, under names of their own.
fn macro_of_present(rocs: &[Option<f64>], precisions: &[Option<f64>], n: u64) -> Vec<Metric> {
    let present: Vec<(f64, f64)> = rocs.iter().zip(precisions).filter_map(|(r, p)| r.zip(*p)).collect();
    if present.is_empty() || present.len() == rocs.len() {
        return Vec::new();
    }
    let mean = |area: fn(&(f64, f64)) -> f64| present.iter().map(area).sum::<f64>() / present.len() as f64;
    vec![
        Metric::plain("auc_roc_macro_present", Some(mean(|p| p.0)), n),
        Metric::plain("auc_pr_macro_present", Some(mean(|p| p.1)), n),
        Metric::plain("classes_present", Some(present.len() as f64), rocs.len() as u64),
    ]
}

/// Mean over classes; undefined if one of them is, or if there are none.
fn macro_average(values: &[Option<f64>]) -> Option<f64> {
    let sum = values.iter().copied().sum::<Option<f64>>()?;
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

/// A metric with the ends of its interval.
pub fn with_interval(name: &str, value: Option<f64>, n: u64, interval: Option<(f64, f64)>) -> Metric {
    let interval = interval.filter(|_| value.is_some());
    Metric { low: interval.map(|i| i.0), high: interval.map(|i| i.1), ..Metric::plain(name, value, n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        metrics.iter().find(|m| m.name == name).unwrap().value
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        scores: Vec<Vec<f64>>,
        labels: Vec<Vec<bool>>,
        auc_roc: Vec<f64>,
        auc_roc_macro: f64,
        average_precision: Vec<f64>,
        average_precision_macro: f64,
    }

    /// Values of scikit-learn's `roc_auc_score` and `average_precision_score`: see `multi_label.py` beside the file.
    #[test]
    fn equals_scikit_learn() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/golden/multi_label.json")).unwrap();
        assert!(cases.len() >= 9);
        for c in cases {
            let names: Vec<String> = (0..c.auc_roc.len()).map(|n| n.to_string()).collect();
            let classes: Vec<&str> = names.iter().map(String::as_str).collect();
            let m = multi_label(&c.scores, &c.labels, &classes, 2);
            let mut expected = vec![
                ("auc_roc_macro".to_owned(), c.auc_roc_macro),
                ("auc_pr_macro".to_owned(), c.average_precision_macro),
            ];
            expected.extend(names.iter().zip(&c.auc_roc).map(|(n, &value)| (format!("auc_roc_{n}"), value)));
            expected.extend(names.iter().zip(&c.average_precision).map(|(n, &value)| (format!("auc_pr_{n}"), value)));
            for (name, expected) in expected {
                let got = value(&m, &name).unwrap();
                // sums of a few hundred f64: far above rounding, far below any difference of definition
                assert!((got - expected).abs() < 1e-9, "{}: {name} {got}, expected {expected}", c.name);
            }
        }
    }

    #[test]
    fn macro_is_the_mean_of_the_classes_beside_it() {
        let scores: Vec<Vec<f64>> = (0..8).map(|i| vec![f64::from(i), f64::from(7 - i), f64::from(i % 3)]).collect();
        let labels: Vec<Vec<bool>> = (0..8).map(|i| vec![i > 3, i > 3, i % 2 == 0]).collect();
        let m = multi_label(&scores, &labels, &["A", "B", "C"], 200);
        assert_eq!(value(&m, "auc_roc_A"), Some(1.0));
        assert_eq!(value(&m, "auc_roc_B"), Some(0.0));
        assert_eq!(value(&m, "prevalence_C"), Some(0.5));
        let mean = (1.0 + value(&m, "auc_roc_C").unwrap()) / 3.0;
        assert!((value(&m, "auc_roc_macro").unwrap() - mean).abs() < 1e-15);
        assert!(m[0].low.unwrap() <= mean && mean <= m[0].high.unwrap(), "{:?}", m[0]);
        assert_eq!(m[0].name, "auc_roc_macro");
        assert_eq!(m[1].name, "auc_pr_macro");
    }

    #[test]
    fn a_class_without_positives_makes_the_macro_undefined_but_not_the_others() {
        let scores = vec![vec![0.1, 0.2], vec![0.3, 0.4]];
        let labels = vec![vec![false, false], vec![true, false]];
        let m = multi_label(&scores, &labels, &["A", "B"], 50);
        assert_eq!(value(&m, "auc_roc_A"), Some(1.0));
        assert_eq!(value(&m, "auc_roc_B"), None);
        assert_eq!(value(&m, "auc_roc_macro"), None);
        assert_eq!((m[0].low, m[0].high), (None, None));
        assert_eq!(value(&m, "prevalence_B"), Some(0.0));
        assert_eq!(value(&m, "auc_roc_macro_present"), Some(1.0), "of A alone");
        assert_eq!(value(&m, "classes_present"), Some(1.0));
    }

    /// Of three classes two have areas, of one none; where all have them or none has, there is nothing to say.
    #[test]
    fn averages_of_the_present_are_theirs() {
        let macros = |rocs: &[Option<f64>], precisions: &[Option<f64>]| -> Vec<(String, Option<f64>, u64)> {
            macro_of_present(rocs, precisions, 9).into_iter().map(|m| (m.name, m.value, m.n)).collect()
        };
        let row = |name: &str, value: f64, n: u64| (name.to_owned(), Some(value), n);
        assert_eq!(
            macros(&[Some(0.5), None, Some(1.0)], &[Some(0.25), Some(0.5), Some(0.75)]),
            [
                row("auc_roc_macro_present", 0.75, 9),
                row("auc_pr_macro_present", 0.5, 9),
                row("classes_present", 2.0, 3)
            ]
        );
        assert_eq!(macros(&[Some(0.5), Some(1.0)], &[Some(0.25), Some(0.75)]), []);
        assert_eq!(macros(&[None, None], &[None, Some(1.0)]), []);
        assert_eq!(macros(&[], &[]), []);
    }

    #[test]
    fn scores_that_are_no_numbers_give_no_area() {
        let m = multi_label(&[vec![f64::NAN], vec![0.5]], &[vec![true], vec![false]], &["A"], 50);
        assert_eq!(value(&m, "auc_roc_A"), None);
        assert_eq!(value(&m, "auc_pr_macro"), None);
    }
}
