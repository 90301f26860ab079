//! Tables for a closer look: differences paired by seed, sweeps as grids, classes one by one, every run.

use std::collections::BTreeSet;

use super::catalogue::MetricInfo;
use super::look::OURS;
use statistics::adjust::adjust;
use statistics::best::FEWEST_SEEDS;
use statistics::estimate::Estimate;
use statistics::paired::by_seed;
use statistics::power::seeds_needed;

use super::catalogue;
use super::group::{Found, Group, Part};
use super::model::{Cell, Column, NOT_MEASURED, Place, Table};
use super::provenance;
use super::tables::{TIMED_OUT, label_columns, mark_best, metric_cell, metric_info, outcome_text};

/// Differences of the main metrics to the reference model, paired by seed; `None` unless exactly one configuration is it.
pub(super) fn differences(part: &Part, id: &str) -> Option<Table> {
    let named = part.config(crate::REFERENCE);
    let is_reference = |group: &&Group| match named.first() {
        Some(name) => group.model == *name,
        None => group.kind == OURS,
    };
    let mut candidates = part.groups.iter().filter(is_reference);
    let reference =
        candidates.next().filter(|group| candidates.next().is_none() && group.completed().next().is_some())?;
    let others: Vec<&Group> = part.groups.iter().filter(|group| !is_reference(group)).collect();
    let metrics: Vec<(&str, MetricInfo)> = part
        .main_metrics()
        .into_iter()
        .map(|name| (name, metric_info(part, name)))
        .filter(|(_, info)| info.better.is_some())
        .collect();
    // one test for each metric and model, in the order of the columns
    let against = |group: &Group, name: &str| {
        by_seed(&group.by_seed(name, Some(part.split)), &reference.by_seed(name, Some(part.split)))
    };
    let p_of =
        |name: &str| others.iter().map(|group| against(group, name).and_then(|paired| paired.t)).collect::<Vec<_>>();
    let all: Vec<Option<f64>> = metrics.iter().flat_map(|(name, _)| p_of(name)).collect();
    let tests: Vec<f64> = all.iter().copied().flatten().collect();
    let (adjusted, adjustment) = adjust(&tests);
    let mut adjusted = adjusted.into_iter();
    let mut adjusted = all.into_iter().map(|p| p.and_then(|_| adjusted.next()));
    let tested = match tests.len() {
        0 => String::new(),
        1 => " p is of the paired t test.".to_owned(),
        n => {
            format!(
                " Each interval is of one comparison; p is of the paired t test, adjusted over all {n} by {} (Holm up to ten tests, Benjamini and Hochberg for more).",
                adjustment.name()
            )
        }
    };
    let caption = format!(
        "Each model minus {}, mean over the seeds that both completed, with the 95 % t interval over those seeds \
         where there is more than one.{tested}",
        reference.model
    );
    let mut table = Table::empty(
        format!("{id}-differences"),
        format!("Difference to {}, paired by seed", reference.model),
        caption,
    );
    table.push_column(Column::text("model"), others.iter().map(|group| Cell::new(part.label(group))).collect());
    let shared = |group: &Group| {
        let seeds = |group: &Group| group.completed().map(|run| run.head.seed).collect::<BTreeSet<_>>();
        seeds(group).intersection(&seeds(reference)).count()
    };
    for (name, info) in &metrics {
        let cell = |group: &&Group| {
            let found = against(group, name).map(|paired| paired.difference);
            found.map_or_else(|| Cell::measured(None), |d| Cell::valued(info.difference(&d), d.mean))
        };
        table.push_column(Column::metric(&info.label, name), others.iter().map(cell).collect());
        let tested: Vec<Option<f64>> = adjusted.by_ref().take(others.len()).collect();
        if tested.iter().all(Option::is_none) {
            continue;
        }
        let p = |p: f64| if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") };
        let cells: Vec<Cell> = tested.into_iter().map(|value| Cell::measured(value.map(p))).collect();
        table.push_column(Column::number("p, adjusted"), cells);
    }
    if table.columns.len() < 2 {
        return None;
    }
    let shared = others.iter().map(|group| Cell::new(shared(group).to_string()));
    table.push_column(Column::number("seeds in common"), shared.collect());
    if let Some((name, info)) = metrics.first() {
        let base = reference.metric(name, Some(part.split)).estimate();
        let cell = |group: &&Group| {
            let Some(paired) = against(group, name) else { return Cell::measured(None) };
            if paired.difference.n < FEWEST_SEEDS {
                return Cell::absent("too few seeds to say");
            }
            let seeds = base.and_then(|base| needed(&base, &paired.difference));
            seeds.map_or_else(
                || Cell::absent("no number up to 100,000"),
                |n| Cell::valued(catalogue::count(n as u64), n as f64),
            )
        };
        let before = table.columns.len();
        table.push_column(Column::number(format!("seeds to tell {STATED} %")), others.iter().map(cell).collect());
        if table.columns.len() > before {
            table.notes.push(format!(
                "Seeds to tell {STATED} %: with so many a true difference of {STATED} % of {}'s {} is found with a chance of 80 % by the \
                 paired t test at 5 %, if differences by seed spread as they do here.",
                reference.model, info.label
            ));
        }
    }
    Some(table)
}

/// A difference that is worth finding, in per cent of the reference's value.
const STATED: f64 = 2.0;

/// Seeds with which a true difference of [`STATED`] is found.
fn needed(base: &Estimate, difference: &Estimate) -> Option<usize> {
    seeds_needed(STATED / 100.0 * base.mean, difference.deviation()?, 0.8, 0.05)
}

/// Areas class by class, with the prevalence that the area under the precision–recall curve must be read against.
pub(super) fn classes(part: &Part, id: &str) -> Vec<Table> {
    let mut classes: Vec<&str> = Vec::new();
    for row in part.runs().flat_map(|run| &run.metrics) {
        let class = row.metric.as_deref().and_then(|name| name.strip_prefix("auc_roc_"));
        if let Some(class) = class.filter(|class| *class != "macro" && !classes.contains(class)) {
            classes.push(class);
        }
    }
    if classes.is_empty() {
        return Vec::new();
    }
    let kinds = [("auc_roc", "AUC-ROC by class"), ("auc_pr", "AUC-PR (average precision) by class")];
    kinds.into_iter().map(|(prefix, title)| class_table(part, id, &classes, prefix, title)).collect()
}

fn class_table(part: &Part, id: &str, classes: &[&str], prefix: &str, title: &str) -> Table {
    let precision = prefix == "auc_pr";
    let caption = if precision {
        "A ranking by chance has an AUC-PR equal to the prevalence, the share of positive recordings."
    } else {
        "A ranking by chance has an AUC-ROC of 0.5."
    };
    let mut table = Table::empty(format!("{id}-{}", catalogue::slug(title)), title, caption);
    label_columns(&mut table, part, precision.then_some("prevalence"));
    for class in classes {
        let name = format!("{prefix}_{class}");
        let info = metric_info(part, &name);
        let found: Vec<Found> = part.groups.iter().map(|group| group.metric(&name, Some(part.split))).collect();
        let mut cells: Vec<Cell> =
            part.groups.iter().zip(&found).map(|(group, found)| metric_cell(group, found, &info)).collect();
        table.marks_best |= mark_best(&mut cells, &part.seeds(&name), info.better);
        if precision {
            let prevalence = part.groups.iter().find_map(|group| {
                group.metric(&format!("prevalence_{class}"), Some(part.split)).estimate().map(|e| e.mean)
            });
            cells.push(Cell::measured(prevalence.map(|value| info.value(value))));
        }
        table.push_column(Column::metric(*class, &name), cells);
    }
    table
}

/// Every run with the intervals over its items.
pub(super) fn runs(part: &Part, id: &str) -> Table {
    let runs: Vec<_> = part.groups.iter().flat_map(|group| group.runs.iter().map(move |run| (group, run))).collect();
    let caption = format!(
        "One row per cell. Intervals here are 95 % {} of the evaluation, not over seeds; values without one have none.",
        provenance::item_intervals(part)
    );
    let mut table = Table::empty(format!("{id}-runs"), "Every run", caption);
    table.place = Place::Detail;
    table.push_column(Column::text("model"), runs.iter().map(|r| Cell::new(part.label(r.0))).collect());
    table.push_column(Column::number("seed"), runs.iter().map(|r| Cell::new(r.1.head.seed.to_string())).collect());
    table.labels = 2;
    let mut names = part.main_metrics();
    names.push("loss");
    for name in names {
        let info = metric_info(part, name);
        let cells = runs.iter().map(|(_, run)| {
            let Some(row) = run.row(name, Some(part.split)) else { return Cell::absent(NOT_MEASURED) };
            let Some(value) = row.value else { return Cell::absent("undefined") };
            let e = Estimate { mean: value, interval: row.low.zip(row.high), n: 1 };
            let text = if e.interval.is_some() { info.estimate(&e) } else { info.value(value) };
            let mark = if run.timed_out() { format!(" ({TIMED_OUT})") } else { String::new() };
            Cell::valued(text + &mark, value)
        });
        table.push_column(Column::metric(&info.label, name), cells.collect());
    }
    let mut add = |column: Column, text: &dyn Fn(&rows::results::ResultRow) -> String| {
        table.push_column(column, runs.iter().map(|(_, run)| Cell::new(text(run.head))).collect());
    };
    add(Column::number("updates"), &|row| catalogue::count(row.updates));
    let times = runs.iter().map(|(_, run)| Cell::valued(catalogue::duration(run.head.train_s), run.head.train_s));
    table.push_column(Column::number("training time"), times.collect());
    let mut add = |column: Column, text: &dyn Fn(&rows::results::ResultRow) -> String| {
        table.push_column(column, runs.iter().map(|(_, run)| Cell::new(text(run.head))).collect());
    };
    add(Column::number("waiting for data"), &|row| {
        let share = row.data_wait_s.filter(|_| row.train_s > 0.0).map(|wait| 100.0 * wait / row.train_s);
        share.map_or_else(|| "not recorded".into(), |share| format!("{share:.1} %"))
    });
    add(Column::text("outcome"), &|row| outcome_text(&row.outcome));
    add(Column::text("cell"), &|row| row.cell.clone());
    table
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cell, config};
    use super::super::group::parts;
    use super::*;

    #[test]
    fn the_reference_is_the_one_that_the_grid_names() {
        let row = |model: &str, named: Option<&str>, value: f64| {
            let mut row = cell(model, 1);
            row.kind = "bim".into();
            if let Some(named) = named {
                row = config(row, &[("report.reference", named)]);
            }
            (row.split, row.metric, row.value) = (Some("test".into()), Some("bits_per_byte".into()), Some(value));
            row
        };
        let named = [row("rich", Some("base"), 2.5), row("base", Some("base"), 2.0)];
        let table = differences(&parts(&named)[0], "x").unwrap();
        assert_eq!(table.title, "Difference to base, paired by seed");
        assert_eq!(
            table.rows[0].iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>()[..2],
            ["rich", "+0.500 (1 seed)"]
        );
        let unnamed = [row("rich", None, 2.5), row("base", None, 2.0)];
        assert!(differences(&parts(&unnamed)[0], "x").is_none(), "two BIMs and no word which is meant");
    }

    #[test]
    fn seeds_for_a_stated_difference_are_told() {
        let row = |model: &str, seed: u64, value: f64| {
            let mut row = config(cell(model, seed), &[("report.reference", "base")]);
            (row.split, row.metric, row.value) = (Some("test".into()), Some("bits_per_byte".into()), Some(value));
            row
        };
        let values = [("base", [2.0, 2.1, 2.2]), ("rich", [2.5, 2.7, 2.6])];
        let all: Vec<_> =
            values.iter().flat_map(|(model, of)| (1..).zip(of).map(|(seed, v)| row(model, seed, *v))).collect();
        let table = differences(&parts(&all)[0], "x").unwrap();
        let last = (table.columns.last().unwrap().label.as_str(), table.rows[0].last().unwrap());
        // differences 0.5, 0.6 and 0.4; 2 % of 2.1 is 0.42 of their deviation
        let expected = seeds_needed(0.42, 1.0, 0.8, 0.05).unwrap();
        assert_eq!((last.0, last.1.text.as_str()), ("seeds to tell 2 %", expected.to_string().as_str()));
        assert!(table.notes[0].contains("2 % of base's bits per byte"), "{:?}", table.notes);
        let two: Vec<_> = all.into_iter().filter(|row| row.seed < 3).collect();
        let table = differences(&parts(&two)[0], "x").unwrap();
        assert_eq!(table.columns.last().unwrap().label, "seeds in common", "two seeds say too little of a spread");
    }
}
