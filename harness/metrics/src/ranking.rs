//! Areas under the ROC and precision–recall curves by counting, without interpolation.

/// Items of one class in descending order of score: sorted once, evaluated often.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Item index and label, best score first.
    order: Vec<(usize, bool)>,
    /// One past the last position of each group of equal scores.
    group_ends: Vec<usize>,
}

/// Areas of one class over weighted items; `None` where undefined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Areas {
    pub roc: Option<f64>,
    pub precision: Option<f64>,
}

impl Ranking {
    /// Sorts the items. `None` if a score is NaN (it has no rank) or the lengths differ. Infinite scores are ranked.
    pub fn new(scores: &[f64], labels: &[bool]) -> Option<Self> {
        if scores.len() != labels.len() || scores.iter().any(|s| s.is_nan()) {
            return None;
        }
        let mut items: Vec<(f64, usize, bool)> =
            scores.iter().zip(labels).enumerate().map(|(i, (&score, &label))| (score, i, label)).collect();
        // no NaN is left, and −0 and 0 must tie: partial_cmp, not total_cmp
        items.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal).then(a.1.cmp(&b.1)));
        let ends = (1..=items.len()).filter(|&i| match (items.get(i - 1), items.get(i)) {
            (Some(last), Some(next)) => last.0 > next.0,
            _ => true,
        });
        Some(Self { group_ends: ends.collect(), order: items.iter().map(|&(_, i, label)| (i, label)).collect() })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Area under the ROC curve: the share of (positive, negative) pairs that the scores order rightly, ties at half.
    /// `None` without a positive or without a negative.
    pub fn auc_roc(&self) -> Option<f64> {
        self.areas(|_| 1).roc
    }

    /// Average precision `Σ (Rₙ − Rₙ₋₁)·Pₙ` over the distinct scores as thresholds. `None` without a positive.
    pub fn average_precision(&self) -> Option<f64> {
        self.areas(|_| 1).precision
    }

    /// Share of positives; `None` without items.
    pub fn prevalence(&self) -> Option<f64> {
        let positives = self.order.iter().filter(|item| item.1).count();
        (!self.is_empty()).then(|| positives as f64 / self.len() as f64)
    }

    /// Both areas where item `i` counts `weight(i)` times: one pass, exact counts.
    pub(super) fn areas(&self, weight: impl Fn(usize) -> u64) -> Areas {
        let (mut positives, mut negatives) = (0u64, 0u64);
        // twice the number of rightly ordered pairs, so that a tie's half is a whole number
        let mut pairs_twice = 0u64;
        // Σ of (positives of the group) · precision after the group
        let mut precision_sum = 0.0;
        let mut start = 0;
        for &end in &self.group_ends {
            let (mut p, mut q) = (0u64, 0u64);
            for &(item, label) in self.order.get(start..end).unwrap_or_default() {
                let w = weight(item);
                if label {
                    p += w;
                } else {
                    q += w;
                }
            }
            pairs_twice += q * (2 * positives + p);
            positives += p;
            negatives += q;
            if p > 0 {
                precision_sum += p as f64 * (positives as f64 / (positives + negatives) as f64);
            }
            start = end;
        }
        let pairs = positives * negatives;
        Areas {
            roc: (pairs > 0).then(|| pairs_twice as f64 / 2.0 / pairs as f64),
            precision: (positives > 0).then(|| precision_sum / positives as f64),
        }
    }
}

/// Area under the ROC curve of scores against labels; see [`Ranking::auc_roc`].
pub fn auc_roc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    Ranking::new(scores, labels)?.auc_roc()
}

/// Average precision of scores against labels; see [`Ranking::average_precision`].
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    Ranking::new(scores, labels)?.average_precision()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        scores: Vec<f64>,
        labels: Vec<bool>,
        auc_roc: f64,
        average_precision: f64,
    }

    /// Values of scikit-learn's `roc_auc_score` and `average_precision_score`: see `ranking.py` beside the file.
    #[test]
    fn equals_scikit_learn() {
        let golden = include_str!("../tests/golden/ranking.json");
        let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
        assert!(cases.len() >= 20);
        for c in cases {
            // both sides sum a few hundred f64: 1e-9 is far above rounding and far below any difference of definition
            let roc = auc_roc(&c.scores, &c.labels).unwrap();
            assert!((roc - c.auc_roc).abs() < 1e-9, "{}: roc {roc}, expected {}", c.name, c.auc_roc);
            let ap = average_precision(&c.scores, &c.labels).unwrap();
            assert!((ap - c.average_precision).abs() < 1e-9, "{}: ap {ap}, expected {}", c.name, c.average_precision);
        }
    }

    #[test]
    fn equals_the_definition_over_all_pairs() {
        let scores = [0.5, 0.1, 0.5, 0.9, 0.1, 0.3, -0.0, 0.0, f64::INFINITY];
        let labels = [true, false, false, true, true, false, true, false, false];
        let (mut right, mut pairs) = (0.0, 0.0);
        for (s, _) in scores.iter().zip(labels).filter(|x| x.1) {
            for (z, _) in scores.iter().zip(labels).filter(|x| !x.1) {
                right += if s > z { 1.0 } else { f64::from(u8::from((s - z).abs() == 0.0)) / 2.0 };
                pairs += 1.0;
            }
        }
        assert_eq!(auc_roc(&scores, &labels), Some(right / pairs));
    }

    #[test]
    fn what_cannot_be_ranked_is_undefined() {
        assert_eq!(auc_roc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(average_precision(&[0.1, 0.2], &[true, true]), Some(1.0));
        assert_eq!(average_precision(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(auc_roc(&[0.1, f64::NAN], &[true, false]), None);
        assert_eq!(auc_roc(&[0.1], &[true, false]), None);
        assert_eq!(auc_roc(&[], &[]), None);
        let [nothing, one] = [Ranking::new(&[], &[]).unwrap(), Ranking::new(&[0.1], &[true]).unwrap()];
        assert!((nothing.is_empty(), nothing.prevalence()) == (true, None));
        assert!((one.is_empty(), one.prevalence()) == (false, Some(1.0)));
    }

    #[test]
    fn weights_are_repetitions() {
        let (scores, labels) = ([0.4, 0.4, 0.9, 0.2, 0.7], [true, false, true, false, false]);
        let weights = [3u64, 1, 0, 2, 1];
        let ranking = Ranking::new(&scores, &labels).unwrap();
        let repeat = |i: usize| std::iter::repeat_n(i, weights[i] as usize);
        let items: Vec<usize> = (0..5).flat_map(repeat).collect();
        let s: Vec<f64> = items.iter().map(|&i| scores[i]).collect();
        let l: Vec<bool> = items.iter().map(|&i| labels[i]).collect();
        let areas = ranking.areas(|i| weights[i]);
        assert_eq!(areas, Areas { roc: auc_roc(&s, &l), precision: average_precision(&s, &l) });
    }
}
