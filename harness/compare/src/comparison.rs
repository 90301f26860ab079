//! Differences between two runs, paired by seed and adjusted for their number.

use serde::Serialize;

use super::pairs::{Cell, Group, Pairs};
use metrics::catalogue;
use statistics::Better;
use statistics::adjust::adjust;
use statistics::paired::by_seed;

/// Chance of calling a difference real that is not.
const LEVEL: f64 = 0.05;

/// What can be said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Worse, beyond chance, by the stated effect or more.
    Regressed,
    /// Better, beyond chance, by the stated effect or more.
    Improved,
    /// Any difference is smaller than the stated effect.
    Equivalent,
    /// Every value is the same.
    Identical,
    /// The data allow for an effect and for none.
    Undecided,
    /// Fewer than two seeds are shared: no interval, no verdict.
    OneSeed,
    /// The values cannot be compared: undefined, or nothing completed.
    Unknown,
}

impl Change {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::Equivalent => "equivalent",
            Self::Identical => "identical",
            Self::Undecided => "undecided",
            Self::OneSeed => "one seed, no verdict",
            Self::Unknown => "not comparable",
        }
    }
}

/// One metric of one configuration in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Task, model and varying settings.
    pub name: String,
    /// Metric.
    pub metric: String,
    /// Its label for readers.
    pub label: String,
    /// Whether it is counted and not measured: without a test, any difference is one.
    pub counted: bool,
    /// Seeds that both have.
    pub seeds: u64,
    /// Mean of the first run.
    pub a: Option<f64>,
    /// Mean of the second.
    pub b: Option<f64>,
    /// Mean of `b − a` over the seeds.
    pub difference: Option<f64>,
    /// Its 95 % t interval.
    pub interval: Option<(f64, f64)>,
    /// P value of the paired t test, adjusted.
    pub p_adjusted: Option<f64>,
    /// What can be said.
    pub change: Change,
}

/// Two runs against each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Every difference, regressions first.
    pub differences: Vec<Difference>,
    /// How p values were adjusted.
    pub adjustment: &'static str,
    /// Tests that were made.
    pub tests: usize,
    /// Smallest difference that matters, as a share of the first run's mean.
    pub effect: f64,
    /// Cells that the first alone has.
    pub only_a: Vec<String>,
    /// Cells that the second alone has.
    pub only_b: Vec<String>,
    /// Cells that one or both did not complete, with what became of them.
    pub not_completed: Vec<String>,
    /// Settings that differ between the runs.
    pub settings: Vec<String>,
}

/// Metrics that are counted exactly, all better when lower.
const COUNTED: [(&str, &str); 9] = [
    ("parameters", "parameters"),
    ("state_bytes", "state bytes"),
    ("macs_forward", "multiply–accumulates, forward"),
    ("acs_forward", "accumulates, forward"),
    ("operations_learning", "operations of learning"),
    ("energy_synaptic_pj", "synaptic energy (pJ)"),
    ("energy_forward_with_traffic_pj", "forward energy with traffic (pJ)"),
    ("energy_learning_with_traffic_pj", "learning energy with traffic (pJ)"),
    ("updates", "updates"),
];

/// A metric's value or a number of the cell itself.
pub(super) fn number(cell: &Cell, metric: &str) -> Option<f64> {
    match metric {
        "parameters" => cell.head.parameters.map(|n| n as f64),
        "state_bytes" => cell.head.state_bytes.map(|n| n as f64),
        "updates" => Some(cell.head.updates as f64),
        "seen" => Some(cell.head.seen as f64),
        "peak_bytes" => cell.head.peak_bytes.map(|n| n as f64),
        "allocations" => cell.head.allocations.map(|n| n as f64),
        _ => cell.value(metric),
    }
}

/// The metrics of a kind of task that say how good a model is, with label and direction.
pub(super) fn quality(kind: &str) -> Vec<(&'static str, &'static str, Better)> {
    let names = catalogue::task(kind).map_or(&[][..], |info| info.metrics);
    let known = names.iter().filter_map(|name| catalogue::find(name));
    known.filter_map(|(info, _)| Some((info.name, info.label, info.better?))).collect()
}

/// Compares two runs. `effect` is the smallest difference that matters, as a share of the first run's mean.
#[must_use]
pub fn compare(pairs: &Pairs, effect: f64) -> Comparison {
    let mut differences = Vec::new();
    let mut tests: Vec<(usize, f64)> = Vec::new();
    let mut not_completed = Vec::new();
    for (group, cells) in &pairs.both {
        for (seed, (a, b)) in cells.iter().filter(|(_, (a, b))| !a.completed() || !b.completed()) {
            not_completed.push(format!("{} seed {seed}: {} → {}", group.name(), a.head.outcome, b.head.outcome));
        }
        let done: Vec<(u64, &Cell, &Cell)> =
            cells.iter().filter(|(_, (a, b))| a.completed() && b.completed()).map(|(s, (a, b))| (*s, a, b)).collect();
        let has = |metric: &str| done.iter().any(|(_, a, b)| [a, b].iter().any(|cell| cell.names(metric)));
        for (metric, label, better) in quality(&group.kind).into_iter().filter(|(metric, _, _)| has(metric)) {
            let (difference, p) = measured(group, metric, label, better, &done, effect);
            tests.extend(p.map(|p| (differences.len(), p)));
            differences.push(difference);
        }
        differences.extend(COUNTED.iter().filter_map(|(metric, label)| counted(group, metric, label, &done, effect)));
    }
    let p: Vec<f64> = tests.iter().map(|(_, p)| *p).collect();
    let (adjusted, adjustment) = adjust(&p);
    for ((index, _), p) in tests.iter().zip(adjusted) {
        let difference: &mut Difference = &mut differences[*index];
        difference.p_adjusted = Some(p);
        // what was taken for an effect must survive the number of tests
        if p > LEVEL && matches!(difference.change, Change::Regressed | Change::Improved) {
            difference.change = Change::Undecided;
        }
    }
    differences.sort_by(|a, b| (a.change, &a.name).cmp(&(b.change, &b.name)));
    let names = |cells: &[(Group, u64)]| cells.iter().map(|(g, seed)| format!("{} seed {seed}", g.name())).collect();
    Comparison {
        differences,
        adjustment: adjustment.name(),
        tests: tests.len(),
        effect,
        only_a: names(&pairs.only_a),
        only_b: names(&pairs.only_b),
        not_completed,
        settings: pairs
            .settings
            .iter()
            .map(|(task, model, key, from, to)| format!("{task} {model}: {key} {from} → {to}"))
            .collect(),
    }
}

/// A metric that varies with the seed, and the p value of its test.
fn measured(
    group: &Group,
    metric: &str,
    label: &str,
    better: Better,
    cells: &[(u64, &Cell, &Cell)],
    effect: f64,
) -> (Difference, Option<f64>) {
    let mut difference = Difference {
        name: group.name(),
        metric: metric.to_owned(),
        label: label.to_owned(),
        counted: false,
        seeds: 0,
        a: None,
        b: None,
        difference: None,
        interval: None,
        p_adjusted: None,
        change: Change::Unknown,
    };
    let values: Vec<(u64, f64, f64)> = cells
        .iter()
        .filter_map(|(seed, a, b)| Some((*seed, number(a, metric)?, number(b, metric)?)))
        .filter(|(_, a, b)| a.is_finite() && b.is_finite())
        .collect();
    difference.seeds = values.len() as u64;
    let (of_a, of_b) = (
        values.iter().map(|(seed, a, _)| (*seed, *a)).collect(),
        values.iter().map(|(seed, _, b)| (*seed, *b)).collect(),
    );
    let Some(paired) = by_seed(&of_b, &of_a) else { return (difference, None) };
    let n = values.len() as f64;
    let mean_a = values.iter().map(|(_, a, _)| a).sum::<f64>() / n;
    difference.a = Some(mean_a);
    difference.b = Some(values.iter().map(|(_, _, b)| b).sum::<f64>() / n);
    difference.difference = Some(paired.difference.mean);
    difference.interval = paired.difference.interval;
    let identical = values.iter().all(|(_, a, b)| a.to_bits() == b.to_bits());
    let margin = effect * mean_a.abs();
    let worse = match better {
        Better::Lower => 1.0,
        Better::Higher => -1.0,
    };
    difference.change = match paired.difference.interval {
        _ if identical => Change::Identical,
        None => Change::OneSeed,
        Some((low, high)) if low > -margin && high < margin => Change::Equivalent,
        Some((low, high)) if low * high > 0.0 && paired.difference.mean.abs() >= margin => {
            if paired.difference.mean * worse > 0.0 { Change::Regressed } else { Change::Improved }
        }
        Some(_) => Change::Undecided,
    };
    (difference, if identical { None } else { paired.t })
}

/// A number that is counted and not measured; `None` where a run does not have it or nothing changed.
fn counted(group: &Group, metric: &str, label: &str, cells: &[(u64, &Cell, &Cell)], effect: f64) -> Option<Difference> {
    let values: Vec<(f64, f64)> =
        cells.iter().filter_map(|(_, a, b)| Some((number(a, metric)?, number(b, metric)?))).collect();
    let n = values.len() as f64;
    let (a, b) = (values.iter().map(|v| v.0).sum::<f64>() / n, values.iter().map(|v| v.1).sum::<f64>() / n);
    if values.is_empty() || values.iter().all(|(a, b)| a.to_bits() == b.to_bits()) {
        return None;
    }
    let change = match (b - a) / a.abs().max(f64::MIN_POSITIVE) {
        share if share >= effect => Change::Regressed,
        share if share <= -effect => Change::Improved,
        _ => Change::Equivalent,
    };
    Some(Difference {
        name: group.name(),
        metric: metric.to_owned(),
        label: label.to_owned(),
        counted: true,
        seeds: values.len() as u64,
        a: Some(a),
        b: Some(b),
        difference: Some(b - a),
        interval: None,
        p_adjusted: None,
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{pair, tests::row};
    use super::*;

    fn changes(a: &[f64], b: &[f64]) -> Change {
        let rows = |values: &[f64]| -> Vec<_> {
            values.iter().enumerate().map(|(seed, v)| row("bim", seed as u64, "1", *v)).collect()
        };
        let comparison = compare(&pair(&rows(a), &rows(b)), 0.01);
        comparison.differences.iter().find(|d| d.metric == "bits_per_byte").unwrap().change
    }

    #[test]
    fn a_change_is_called_so_only_beyond_chance_and_beyond_the_effect() {
        assert_eq!(changes(&[2.0, 2.1, 2.2], &[2.0, 2.1, 2.2]), Change::Identical);
        assert_eq!(changes(&[2.0, 2.1, 2.2], &[2.2, 2.31, 2.42]), Change::Regressed);
        assert_eq!(changes(&[2.2, 2.31, 2.42], &[2.0, 2.1, 2.2]), Change::Improved);
        // beyond chance, and too small to matter
        assert_eq!(changes(&[2.0, 2.1, 2.2], &[2.001, 2.1011, 2.2011]), Change::Equivalent);
        // a large mean difference that one lucky seed makes
        assert_eq!(changes(&[2.0, 2.1, 2.2], &[2.0, 2.1, 2.9]), Change::Undecided);
        assert_eq!(changes(&[2.0], &[2.5]), Change::OneSeed);
        assert_eq!(changes(&[2.0, f64::NAN], &[f64::NAN, 2.5]), Change::Unknown);
    }

    #[test]
    fn one_of_many_comparisons_must_be_surer() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for model in 0..9 {
            for (seed, noise) in [(1, 0.0), (2, 0.03), (3, 0.06)] {
                a.push(row(&format!("m{model}"), seed, "1", 2.0));
                // one model is worse by about as much as chance allows once in twenty times
                let worse = if model == 0 { 0.15 } else { 0.0 };
                let sign = if seed == 2 { -1.0 } else { 1.0 };
                b.push(row(&format!("m{model}"), seed, "1", 2.0 + worse + noise * sign));
            }
        }
        let alone = compare(&pair(&a[..3], &b[..3]), 0.01);
        assert_eq!(alone.differences[0].change, Change::Regressed, "{:?}", alone.differences[0]);
        let all = compare(&pair(&a, &b), 0.01);
        assert!(all.differences.iter().all(|d| d.change != Change::Regressed), "{:?}", all.differences[0]);
        assert_eq!((all.adjustment, all.tests), ("Holm", 9));
    }

    #[test]
    fn what_is_counted_needs_no_test_and_what_is_missing_is_listed() {
        let a = [row("bim", 1, "1", 2.0), row("lstm", 1, "1", 2.0)];
        let mut b = [row("bim", 1, "1", 2.0), row("rnn", 1, "1", 2.0)];
        b[0].parameters = Some(102);
        b[0].outcome = "completed".into();
        let comparison = compare(&pair(&a, &b), 0.01);
        let parameters = comparison.differences.iter().find(|d| d.metric == "parameters").unwrap();
        assert_eq!((parameters.change, parameters.counted), (Change::Regressed, true));
        assert_eq!((comparison.only_a.len(), comparison.only_b.len()), (1, 1));
        b[0].outcome = "diverged".into();
        let comparison = compare(&pair(&a, &b), 0.01);
        assert_eq!(comparison.not_completed, ["text bim seed 1: completed → diverged"]);
    }
}
