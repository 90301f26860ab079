//! The tables every section has: results and costs, and the table of failures.

use std::collections::BTreeMap;

use statistics::bca::FEWEST;
use statistics::best::{Mark, marks};
use statistics::estimate::{Estimate, estimate};

use super::catalogue::{self, MetricInfo};
use super::group::{Found, Group, Part};
use super::model::{Cell, Column, NOT_MEASURED, Outcome, Place, Table};
use super::paper::{Paper, Published};
use super::{provenance, unlearned};
use data::identity::Identity;
use rows::results::ResultRow;
use statistics::Better;
use statistics::power::seeds_needed;
use statistics::verdict::{Verdict, judge};

/// Marks the score of a cell that did not get to its end.
pub(super) const TIMED_OUT: &str = "timed out";
/// In place of a value and of a verdict where the paper has none.
const NOT_PUBLISHED: &str = "no published value";
/// In place of a setting or number that a row cannot have.
const DOES_NOT_APPLY: &str = "does not apply";
/// Configuration path of the steps per segment.
const SEGMENT: &str = "train.segment";
/// More steps than any recording has.
const WHOLE_RECORDING: u64 = 1 << 20;
/// Scale at which published numbers can be judged.
const PAPER_SCALE: &str = "paper";
/// Seeds below which no verdict is given.
const VERDICT_SEEDS: usize = 3;

/// Results with their intervals, the published values and a verdict.
pub(super) fn results(part: &Part, paper: &Paper, id: &str) -> Table {
    let mut caption = provenance::caption(part);
    let floor = part.floor();
    if let Some(floor) = floor {
        let source = format!("The text's source has an entropy of {floor:.3} bits per byte: no model can go below it.");
        caption = format!("{caption} {source}");
    }
    let mut table = Table::empty(format!("{id}-results"), "Results", caption);
    label_columns(&mut table, part, None);
    let (mut estimates, mut cut): (Vec<Estimate>, bool) = (Vec::new(), false);
    for &name in &part.main_metrics() {
        let info = metric_info(part, name);
        let found: Vec<Found> = part.groups.iter().map(|group| group.metric(name, Some(part.split))).collect();
        let of_metric: Vec<Estimate> = found.iter().filter_map(Found::estimate).collect();
        cut |= of_metric.iter().any(|e| catalogue::is_cut(name, e));
        estimates.extend(of_metric);
        let mut cells: Vec<Cell> =
            part.groups.iter().zip(&found).map(|(group, found)| metric_cell(group, found, &info)).collect();
        table.marks_best |= mark_best(&mut cells, &part.seeds(name), info.better);
        table.push_column(Column::metric(&info.label, name), cells);
        if let Some(floor) = floor.filter(|_| name == "bits_per_byte") {
            let above = |found: &Found| {
                found
                    .estimate()
                    .map_or_else(|| Cell::absent(NOT_MEASURED), |e| Cell::new(info.supported(e.mean - floor, &e)))
            };
            table.push_column(Column::number("above the floor"), found.iter().map(above).collect());
        }
    }
    let mut add = |column: Column, cell: &dyn Fn(&Group) -> Cell| {
        table.push_column(column, part.groups.iter().map(cell).collect());
    };
    let pruned = |group: &Group| group.metric("pruned_share", None).estimate().map(|e| format!("{:.3}", e.mean));
    if part.groups.iter().any(|group| pruned(group).is_some()) {
        let cell = |group: &Group| pruned(group).map_or_else(|| Cell::absent(DOES_NOT_APPLY), Cell::new);
        add(Column::number("pruned at the end"), &cell);
    }
    training_columns(&mut table, part);
    let mut add = |column: Column, cell: &dyn Fn(&Group) -> Cell| {
        table.push_column(column, part.groups.iter().map(cell).collect());
    };
    add(Column::number("seeds"), &|group| Cell::new(group.completed().count().to_string()));
    if part.runs().any(|run| !run.completed()) {
        add(Column::text("outcome"), &|group| Cell::new(outcomes(group)));
    }
    add(Column::text("published (paper)"), &|group| published_cell(part, &paper.published(part.family, group.kind)));
    // of other data the caption says once that nothing compares
    if part.identity().has_name() {
        add(Column::text("verdict"), &|group| verdict_cell(part, group, &paper.published(part.family, group.kind)));
    }
    (table.place, table.open) = (Place::Everywhere, true);
    table.notes = notes(part, paper, &estimates, cut);
    table
}

/// Updates, data seen and steps per segment, where configurations that are compared differ in one of them: as much data in
/// longer segments is fewer updates.
fn training_columns(table: &mut Table, part: &Part) {
    let whole = |mean: Option<f64>| mean.map(|mean| catalogue::count(mean.round() as u64));
    let updates: Vec<_> = part.groups.iter().map(|group| whole(group.mean(|row| Some(row.updates as f64)))).collect();
    let seen: Vec<_> = part.groups.iter().map(|group| whole(group.mean(|row| Some(row.seen as f64)))).collect();
    let segments: Vec<_> = part.groups.iter().map(segment).collect();
    let differ = |column: &[Option<String>]| {
        let mut known = column.iter().flatten();
        known.next().is_some_and(|first| known.any(|other| other != first))
    };
    if ![&updates, &seen, &segments].into_iter().any(|column| differ(column)) {
        return;
    }
    let swept = |path: &str| part.varying.iter().any(|varying| varying.path == path);
    let unit = provenance::unit(part);
    let columns = [
        ("updates".to_owned(), updates),
        (format!("{unit} seen"), seen),
        (format!("{unit} per segment"), if swept(SEGMENT) { Vec::new() } else { segments }),
    ];
    for (label, column) in columns {
        if !column.is_empty() {
            table.push_column(Column::number(label), column.into_iter().map(Cell::measured).collect());
        }
    }
}

/// Steps per segment of a configuration; a segment longer than any recording is the recording.
fn segment(group: &Group) -> Option<String> {
    let text = group.completed().find_map(|run| run.head.config.get(SEGMENT))?;
    let whole = text.parse::<u64>().ok().is_some_and(|steps| steps >= WHOLE_RECORDING);
    Some(if whole { "whole recordings".into() } else { text.clone() })
}

/// A column of numbers: its label, where they stand and how they are written.
type Measure<'a> = (&'a str, &'a dyn Fn(&ResultRow) -> Option<f64>, &'a dyn Fn(f64) -> String);

/// What training took; `None` if no run completed.
pub(super) fn costs(part: &Part, id: &str) -> Option<Table> {
    part.runs().find(|run| run.completed())?;
    let unit = provenance::unit(part);
    let caption = format!(
        "Means over completed seeds, on {}. Training time leaves out evaluation and writing. Peak memory is the \
         allocator's highest within a step, without what the process held before; state is recurrent state and traces.",
        provenance::machine(part)
    );
    let mut table = Table::empty(format!("{id}-costs"), "Costs", caption);
    table.place = Place::Everywhere;
    label_columns(&mut table, part, None);
    let whole = |mean: f64| catalogue::count(mean.round() as u64);
    let seen = format!("{unit} seen");
    let speed = format!("{unit}/s");
    let columns: [Measure; 6] = [
        ("parameters", &|row| row.parameters.map(|n| n as f64), &whole),
        (&seen, &|row| Some(row.seen as f64), &whole),
        ("training time", &|row| Some(row.train_s), &catalogue::duration),
        (&speed, &|row| (row.train_s > 0.0).then(|| row.seen as f64 / row.train_s), &whole),
        ("peak memory", &|row| row.peak_bytes.map(|n| n as f64), &catalogue::bytes),
        ("state", &|row| row.state_bytes.map(|n| n as f64), &catalogue::bytes),
    ];
    for (label, value, text) in columns {
        let cells = part.groups.iter().map(|group| Cell::number(group.mean(value), text));
        table.push_column(Column::number(label), cells.collect());
    }
    // only models with spiking neurons have it: a note, not a column of gaps
    let sparsity = |group: &Group| group.metric("spike_sparsity", None).estimate().map(|e| e.mean);
    let spiking = part.groups.iter().filter_map(|g| Some(format!("{} {:.3}", part.label(g), sparsity(g)?)));
    let spiking: Vec<String> = spiking.collect();
    if !spiking.is_empty() {
        table
            .notes
            .push(format!("Spike sparsity (share of neuron-step pairs without a spike): {}.", spiking.join(", ")));
    }
    Some(table)
}

/// The outcome of a cell that was not begun.
pub(super) const SKIPPED: &str = "skipped";

/// Every cell that was begun and did not complete; `None` if all did.
pub(super) fn failures(parts: &[Part]) -> Option<Table> {
    let mut failed = Vec::new();
    for part in parts {
        for group in &part.groups {
            let ended = group.runs.iter().filter(|run| !run.completed() && run.head.outcome != SKIPPED);
            failed.extend(ended.map(|run| (part, group, run.head)));
        }
    }
    if failed.is_empty() {
        return None;
    }
    let caption = "Cells that were begun and did not complete. None of their numbers counts in a mean, a mark or a verdict above.";
    let mut table = Table::empty("failures".into(), "Failures", caption);
    table.place = Place::Everywhere;
    let mut add = |column: Column, text: &dyn Fn(&(&Part, &Group, &ResultRow)) -> Cell| {
        table.push_column(column, failed.iter().map(text).collect());
    };
    if parts.len() > 1 {
        add(Column::text("experiment"), &|f| Cell::new(format!("{} ({}, {})", f.0.experiment, f.0.task, f.0.scale)));
    }
    add(Column::text("model"), &|f| Cell::new(f.0.label(f.1)));
    add(Column::number("seed"), &|f| Cell::new(f.2.seed.to_string()));
    add(Column::text("outcome"), &|f| Cell::new(outcome_text(&f.2.outcome)));
    if failed.iter().any(|f| f.2.cause.is_some()) {
        add(Column::text("cause"), &|f| f.2.cause.as_ref().map_or_else(|| Cell::absent("none recorded"), Cell::new));
    }
    add(Column::number("updates made"), &|f| Cell::new(catalogue::count(f.2.updates)));
    add(Column::text("reason"), &|f| {
        let reason = f.2.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
        Cell::new(reason.unwrap_or("no reason recorded"))
    });
    add(Column::text("cell"), &|f| Cell::new(&f.2.cell));
    Some(table)
}

/// Adds the model's name and the value of every setting that varies; `extra` names one more row.
pub(super) fn label_columns(table: &mut Table, part: &Part, extra: Option<&str>) {
    let models = part.groups.iter().map(|group| Cell::new(group.model)).chain(extra.map(Cell::new));
    table.push_column(Column::text("model"), models.collect());
    for varying in &part.varying {
        let cell = |group: &Group| {
            let value = group.runs.first().and_then(|run| run.head.config.get(varying.path));
            value.filter(|value| !value.is_empty()).map_or_else(|| Cell::absent(DOES_NOT_APPLY), Cell::new)
        };
        let cells = part.groups.iter().map(cell).chain(extra.map(|_| Cell::absent(DOES_NOT_APPLY)));
        table.push_column(Column::number(&varying.label), cells.collect());
    }
    table.labels = table.columns.len().max(1);
}

/// What is known of a metric, with the unit of this section's tokens in its label.
pub(super) fn metric_info(part: &Part, name: &str) -> MetricInfo {
    let mut info = catalogue::metric(name);
    if name == "perplexity" {
        let unit = provenance::unit(part);
        info.label = format!("perplexity per {}", unit.strip_suffix('s').unwrap_or(unit));
    }
    info
}

/// A metric of a configuration, or why there is none.
pub(super) fn metric_cell(group: &Group, found: &Found, info: &MetricInfo) -> Cell {
    let completed = group.completed().count();
    match found {
        Found::Value(e) if e.n == completed || e.n == 1 => Cell::valued(info.estimate(e), e.mean),
        Found::Value(e) => Cell::valued(format!("{} ({} seeds)", info.estimate(e), e.n), e.mean),
        Found::Unfinished(scores) => {
            let texts: Vec<String> = scores.iter().map(|score| info.value(*score)).collect();
            Cell::new(format!("{} ({TIMED_OUT})", texts.join(", ")))
        }
        Found::Undefined => Cell::absent("undefined"),
        Found::Missing if completed == 0 => Cell::absent(outcomes(group)),
        Found::Missing => Cell::absent(NOT_MEASURED),
    }
}

/// Marks what cannot be told from the best, by the values of each configuration's seeds; whether it marked any.
pub(super) fn mark_best(cells: &mut [Cell], seeds: &[BTreeMap<u64, f64>], better: Option<Better>) -> bool {
    let Some(better) = better else { return false };
    for (cell, mark) in cells.iter_mut().zip(marks(seeds, better)) {
        cell.best = mark == Mark::Best;
    }
    cells.iter().any(|cell| cell.best)
}

/// An outcome in words.
pub(super) fn outcome_text(outcome: &str) -> String {
    outcome.replace('_', " ")
}

/// What became of a configuration's cells: `completed`, or how many of each.
fn outcomes(group: &Group) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &group.runs {
        *counts.entry(&run.head.outcome).or_default() += 1;
    }
    let several = counts.len() > 1;
    let text = |(outcome, n): (&&str, &usize)| {
        if several { format!("{n} {}", outcome_text(outcome)) } else { outcome_text(outcome) }
    };
    counts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The published values, beside results on the published data or a part of them.
fn published_cell(part: &Part, published: &[Published]) -> Cell {
    if !part.identity().has_name() {
        return Cell::absent("not the published data");
    }
    let each: Vec<String> =
        published.iter().map(|p| format!("{} {}", p.metric.label, p.metric.text(p.value))).collect();
    if each.is_empty() { Cell::absent(NOT_PUBLISHED) } else { Cell::new(each.join(", ")) }
}

/// Whether the paper's deciding number was reproduced, if that can be said, and in words.
pub(super) fn verdict(part: &Part, group: &Group, published: &[Published]) -> (Outcome, String) {
    let Some(p) = published.first() else { return (Outcome::NotMeasured, NOT_PUBLISHED.into()) };
    if let Some(why) = not_comparable(part) {
        return (Outcome::NotComparable, format!("not comparable{why}"));
    }
    let Found::Value(e) = group.metric(p.name, Some(part.split)) else {
        return (Outcome::NotMeasured, NOT_MEASURED.into());
    };
    if e.n < VERDICT_SEEDS {
        return (Outcome::Undecided, "underpowered".into());
    }
    match judge(Some(&e), p.value, p.metric.margin(), p.metric.better) {
        Verdict::Reproduced => (Outcome::Held, "reproduced".into()),
        Verdict::NotReproduced => (Outcome::DidNotHold, "not reproduced".into()),
        Verdict::Underpowered => {
            let values: Vec<f64> = group.by_seed(p.name, Some(part.split)).into_values().collect();
            (Outcome::Undecided, underpowered(&values, p))
        }
        Verdict::NotComparable => (Outcome::NotComparable, "not comparable".into()),
    }
}

/// How many seeds would tell on which side of the margin the mean lies, if it is where it seems to be.
fn underpowered(values: &[f64], p: &Published) -> String {
    let bound = p.metric.margin().worst_equal(p.value, p.metric.better);
    // the interval in the table may be cut, this one is not
    let seeds = estimate(values).and_then(|e| seeds_needed(bound - e.mean, e.deviation()?, 0.8, 0.05));
    seeds.map_or_else(
        || "underpowered".into(),
        |n| format!("underpowered: about {} seeds would tell", catalogue::count(n as u64)),
    )
}

/// Why no number of a section compares with a published one, as the end of "not comparable"; `None` if they do.
pub(super) fn not_comparable(part: &Part) -> Option<String> {
    let identity = part.identity();
    match identity {
        Identity::Generated => return Some(": generated data".into()),
        Identity::Unverified => return Some(": unverified data".into()),
        Identity::Published | Identity::Subset => {}
    }
    if part.scale != PAPER_SCALE {
        return Some(" at this scale".into());
    }
    if identity == Identity::Subset {
        return Some(": a subset of the data".into());
    }
    if part.has_config("task.drift") || part.has_config("task.domains") {
        return Some(": the stream changes".into());
    }
    if !part.config("train.eval_limit").is_empty() {
        return Some(": scored on a part (train.eval_limit)".into());
    }
    if provenance::trains_elsewhere(part) {
        return Some(": other training split".into());
    }
    provenance::evaluates_elsewhere(part).then(|| ": other test part".into())
}

fn verdict_cell(part: &Part, group: &Group, published: &[Published]) -> Cell {
    let (_, words) = verdict(part, group, published);
    if words == NOT_PUBLISHED || words == NOT_MEASURED { Cell::absent(words) } else { Cell::new(words) }
}

/// What intervals over between `fewest` and `most` seeds are.
fn interval_name(fewest: usize, most: usize) -> &'static str {
    match (fewest < FEWEST, most < FEWEST) {
        (_, true) => "t interval",
        (false, false) => "interval (BCa bootstrap)",
        (true, false) => "interval (t up to ten seeds, BCa bootstrap beyond)",
    }
}

fn notes(part: &Part, paper: &Paper, estimates: &[Estimate], cut: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for (better, word) in [(Better::Lower, "Lower"), (Better::Higher, "Higher")] {
        let infos = part.main_metrics().into_iter().map(|name| metric_info(part, name));
        let labels: Vec<String> = infos.filter(|info| info.better == Some(better)).map(|info| info.label).collect();
        if !labels.is_empty() {
            notes.push(format!("{word} is better: {}.", labels.join(", ")));
        }
    }
    let with_interval = || estimates.iter().filter(|e| e.interval.is_some()).map(|e| e.n);
    if let (Some(fewest), Some(most)) = (with_interval().min(), with_interval().max()) {
        let seeds = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
        let cut = if cut { ", cut where the range of a metric ends" } else { "" };
        notes.push(format!("Mean with its 95 % {} over {seeds} seeds{cut}.", interval_name(fewest, most)));
    }
    if estimates.iter().any(|e| e.interval.is_none()) {
        notes.push("1 seed, no interval.".into());
    }
    notes.extend(unlearned::note(part));
    notes.push(provenance::rates(part));
    if part.runs().any(|run| !run.completed()) {
        let begun = part.runs().any(|run| !run.completed() && run.head.outcome != SKIPPED);
        let listed = if begun { "; those that were begun and did not complete are listed under Failures" } else { "" };
        notes.push(format!("Only completed cells count{listed}."));
    }
    if part.groups.iter().any(|group| {
        matches!(
            part.main_metrics().first().map(|name| group.metric(name, Some(part.split))),
            Some(Found::Unfinished(_))
        )
    }) {
        notes.push(format!(
            "({TIMED_OUT}): the score of a cell that ran out of time, as it was then; it is compared with nothing."
        ));
    }
    let judged = part.groups.iter().any(|group| !paper.published(part.family, group.kind).is_empty());
    if part.scale == PAPER_SCALE && judged {
        notes.push(format!(
            "Verdict, with at least {VERDICT_SEEDS} seeds: reproduced if all of the interval is better than the paper's first \
             value or worse by no more than its margin in `reports/paper.yaml`, not reproduced if none of it is, otherwise \
             underpowered."
        ));
    }
    notes
}

impl Found {
    /// The estimate, if there is one.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        match self {
            Self::Value(e) => Some(*e),
            Self::Undefined | Self::Unfinished(_) | Self::Missing => None,
        }
    }
}

#[cfg(test)]
mod tests;
