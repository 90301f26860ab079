//! Sorts result rows into sections, configurations and runs.

use std::collections::{BTreeMap, BTreeSet};

use data::identity::Identity;
use metrics::catalogue::{self, TaskInfo};
use rows::results::ResultRow;
use statistics::estimate::{Estimate, estimate, estimate_over_seeds};

use super::look::Look;

/// Values of a number from which on their order is drawn.
const ORDERED_VALUES: usize = 3;
/// Outcome of a cell whose numbers count.
const COMPLETED: &str = "completed";
/// Outcome of a cell that ran out of time.
const TIMED_OUT: &str = "timed_out";
/// The split that results are about, where there is one.
pub(super) const TEST: &str = "test";

/// Everything about one experiment, task and scale.
pub(super) struct Part<'a> {
    pub experiment: &'a str,
    /// Task as the grid names it.
    pub task: &'a str,
    /// What the task is, such as `language`: it may have another name in the grid.
    pub family: &'a str,
    /// What is known about that; absent for a task of another version of the program.
    pub info: Option<&'static TaskInfo>,
    pub scale: &'a str,
    /// Configurations: models in the order of the plan, sweep points ascending.
    pub groups: Vec<Group<'a>>,
    /// Configuration paths that vary within a model, with their labels.
    pub varying: Vec<Varying<'a>>,
    /// Split that the tables are about.
    pub split: &'a str,
}

/// A configuration path whose values differ between cells of one model.
pub(super) struct Varying<'a> {
    pub path: &'a str,
    pub label: String,
}

/// One configuration: its runs differ in the seed only.
pub(super) struct Group<'a> {
    pub model: &'a str,
    pub kind: &'a str,
    /// Values of the paths that vary within this model, in the order of [`Part::varying`].
    pub point: Vec<(&'a str, Option<&'a str>)>,
    /// By ascending seed.
    pub runs: Vec<Run<'a>>,
}

/// One cell.
pub(super) struct Run<'a> {
    /// Any of its rows: they share everything but the metric.
    pub head: &'a ResultRow,
    /// Its rows that hold a metric.
    pub metrics: Vec<&'a ResultRow>,
}

/// What is known of one metric in one configuration.
pub(super) enum Found {
    /// Over the seeds that have a value.
    Value(Estimate),
    /// It was computed and has no value, such as an AUC without positives.
    Undefined,
    /// No run completed; these are the scores of cells that ran out of time.
    Unfinished(Vec<f64>),
    /// No run has it.
    Missing,
}

/// The sections of these rows, in the order of their first row.
pub(super) fn parts(rows: &[ResultRow]) -> Vec<Part<'_>> {
    let mut keys: Vec<(&str, &str, &str)> = Vec::new();
    let mut by_key: BTreeMap<(&str, &str, &str), Vec<&ResultRow>> = BTreeMap::new();
    for row in rows {
        let key = (row.experiment.as_str(), row.task.as_str(), row.scale.as_str());
        if !by_key.contains_key(&key) {
            keys.push(key);
        }
        by_key.entry(key).or_default().push(row);
    }
    let build = |(experiment, task, scale)| {
        let runs = runs(by_key.get(&(experiment, task, scale))?);
        let split = main_split(&runs);
        let family = runs.iter().find_map(|run| run.head.config.get("task.kind")).map_or(task, String::as_str);
        let (groups, varying) = groups(runs);
        Some(Part { experiment, task, family, info: catalogue::task(family), scale, groups, varying, split })
    };
    keys.into_iter().filter_map(build).collect()
}

/// Rows of one cell together, in the order of their first row.
fn runs<'a>(rows: &[&'a ResultRow]) -> Vec<Run<'a>> {
    // a cell's id leaves names out: two models of one configuration share it
    let mut index: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut runs: Vec<Run> = Vec::new();
    for &row in rows {
        let at = *index.entry((&row.cell, &row.model)).or_insert(runs.len());
        if at == runs.len() {
            runs.push(Run { head: row, metrics: Vec::new() });
        }
        if let Some(run) = runs.get_mut(at).filter(|_| row.metric.is_some()) {
            run.metrics.push(row);
        }
    }
    runs
}

/// `test` if any run was scored on it, otherwise the first split that one was.
fn main_split<'a>(runs: &[Run<'a>]) -> &'a str {
    let splits = || runs.iter().flat_map(|run| run.metrics.iter().filter_map(|row| row.split.as_deref()));
    splits().find(|&split| split == TEST).or_else(|| splits().next()).unwrap_or(TEST)
}

fn groups(runs: Vec<Run<'_>>) -> (Vec<Group<'_>>, Vec<Varying<'_>>) {
    let mut models: Vec<((&str, &str), Vec<Run>)> = Vec::new();
    for run in runs {
        let key = (run.head.model.as_str(), run.head.kind.as_str());
        match models.iter_mut().find(|model| model.0 == key) {
            Some(model) => model.1.push(run),
            None => models.push((key, vec![run])),
        }
    }
    let paths: Vec<BTreeSet<&str>> = models.iter().map(|model| varying_paths(&model.1)).collect();
    let all: BTreeSet<&str> = paths.iter().flatten().copied().collect();
    let varying = all.iter().map(|&path| Varying { path, label: label(path, &all) }).collect();
    let mut groups = Vec::new();
    for (((model, kind), runs), paths) in models.into_iter().zip(&paths) {
        let mut points: Vec<Group> = Vec::new();
        for run in runs {
            let point: Vec<_> =
                paths.iter().map(|&path| (path, run.head.config.get(path).map(String::as_str))).collect();
            match points.iter_mut().find(|group| group.point == point) {
                Some(group) => group.runs.push(run),
                None => points.push(Group { model, kind, point, runs: vec![run] }),
            }
        }
        points.sort_by(|a, b| compare_points(&a.point, &b.point));
        for group in &mut points {
            group.runs.sort_by(|a, b| (a.head.seed, &a.head.cell).cmp(&(b.head.seed, &b.head.cell)));
        }
        groups.append(&mut points);
    }
    (groups, varying)
}

/// Paths with more than one value among these runs, but for the seed under whatever name.
fn varying_paths<'a>(runs: &[Run<'a>]) -> BTreeSet<&'a str> {
    let paths: BTreeSet<&str> = runs.iter().flat_map(|run| run.head.config.keys().map(String::as_str)).collect();
    let differs = |path: &&str| {
        let mut values = runs.iter().map(|run| run.head.config.get(*path));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let is_seed = |path: &&str| runs.iter().all(|run| run.head.config.get(*path) == Some(&run.head.seed.to_string()));
    paths.into_iter().filter(|path| differs(path) && !is_seed(path)).collect()
}

/// The shortest end of a dotted path that no other path shares.
fn label(path: &str, all: &BTreeSet<&str>) -> String {
    let starts = path.rmatch_indices('.').map(|(at, _)| at + 1).chain([0]);
    for start in starts {
        let end = path.get(start..).unwrap_or(path);
        let suffix = format!(".{end}");
        if !all.iter().any(|&other| other != path && (other == end || other.ends_with(&suffix))) {
            return end.to_owned();
        }
    }
    path.to_owned()
}

fn compare_points(a: &[(&str, Option<&str>)], b: &[(&str, Option<&str>)]) -> std::cmp::Ordering {
    let value = |x: Option<&str>, y: Option<&str>| match (x, y) {
        (Some(x), Some(y)) => compare_values(x, y),
        _ => x.cmp(&y),
    };
    let pairs = a.iter().zip(b).map(|(x, y)| value(x.1, y.1));
    pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

/// Numbers by size and before text, text by bytes.
pub(super) fn compare_values(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y).then_with(|| a.cmp(b)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl Part<'_> {
    /// All its runs.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run<'_>> {
        self.groups.iter().flat_map(|group| &group.runs)
    }

    /// Distinct values of a configuration path among the runs, sorted; `null` and the empty string are no values.
    pub(super) fn config(&self, path: &str) -> BTreeSet<&str> {
        let values = self.runs().filter_map(|run| run.head.config.get(path).map(String::as_str));
        values.filter(|value| !value.is_empty() && *value != "null").collect()
    }

    /// Whether a run has a configuration path, or one below it.
    pub(super) fn has_config(&self, path: &str) -> bool {
        let below = format!("{path}.");
        let used = |value: &String| !value.is_empty() && value != "null";
        self.runs().any(|run| {
            // its keys are in order: a cell has a hundred, and a page asks for a few of them at every turn
            let mut inside = run.head.config.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
            run.head.config.get(path).is_some_and(used) || inside.any(|(_, value)| used(value))
        })
    }

    /// Every configuration's values of a metric by seed.
    pub(super) fn seeds(&self, name: &str) -> Vec<BTreeMap<u64, f64>> {
        self.groups.iter().map(|group| group.by_seed(name, Some(self.split))).collect()
    }

    /// Whether the data was generated and not a published dataset.
    pub(super) fn generated(&self) -> bool {
        let recorded = || self.runs().any(|run| run.identity() == Identity::Generated);
        self.has_config("task.generate") || self.floor().is_some() || recorded()
    }

    /// What the data of all runs are: the least of what they are by themselves.
    pub(super) fn identity(&self) -> Identity {
        if self.generated() {
            return Identity::Generated;
        }
        let of_runs: Vec<Identity> = self.runs().map(Run::identity).collect();
        let least = [Identity::Unverified, Identity::Generated, Identity::Subset];
        least.into_iter().find(|identity| of_runs.contains(identity)).unwrap_or(Identity::Published)
    }

    /// How that was found out; empty in files of versions before it was recorded.
    pub(super) fn identity_reason(&self) -> &str {
        let mut reasons = self.runs().filter(|run| run.identity() == self.identity());
        let recorded = reasons.find_map(|run| run.head.data_identity.as_deref());
        recorded.and_then(|text| text.split_once(": ")).map_or("", |(_, reason)| reason)
    }

    /// Entropy floor of generated text in bits per byte.
    pub(super) fn floor(&self) -> Option<f64> {
        self.runs().find_map(|run| run.row("entropy_floor_bits_per_byte", None).and_then(|row| row.value))
    }

    /// Metrics of the main table that some run has, the one that counts first.
    pub(super) fn main_metrics(&self) -> Vec<&str> {
        let known = self.info.map_or(&[][..], |info| info.metrics);
        let present: BTreeSet<&str> =
            self.runs().flat_map(|run| run.metrics.iter()).filter_map(|row| row.metric.as_deref()).collect();
        if known.is_empty() {
            return present.into_iter().filter(|&name| name != "loss").collect();
        }
        // a byte's perplexity is two to the power of its bits, a word's is there by name: the same column twice
        let repeats = |name: &str| name == "perplexity" && matches!(super::provenance::unit(self), "bytes" | "words");
        known.iter().copied().filter(|name| present.contains(name) && !repeats(name)).collect()
    }

    /// The configuration that the grid says the others are held against; `None` unless it is exactly one.
    pub(super) fn reference(&self) -> Option<&Group<'_>> {
        let [name] = self.config(crate::REFERENCE).into_iter().collect::<Vec<_>>()[..] else { return None };
        let mut candidates = self.groups.iter().filter(|group| group.model == name);
        candidates.next().filter(|_| candidates.next().is_none())
    }

    /// The first configuration of a kind that has spikes, or the first of that kind if none has: the one that the grid puts first
    /// stands for its kind, so that no result chooses it.
    pub(super) fn first_of(&self, kind: &str) -> Option<&Group<'_>> {
        let of_kind = || self.groups.iter().filter(|group| group.kind == kind && group.completed().next().is_some());
        let spikes = |group: &&Group| group.metric("spike_sparsity", None).estimate().is_some();
        of_kind().find(spikes).or_else(|| of_kind().next())
    }

    /// Kinds of models but one, in the order of the plan.
    pub(super) fn kinds_but(&self, kind: &str) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for group in &self.groups {
            if group.kind != kind && !kinds.contains(&group.kind) {
                kinds.push(group.kind);
            }
        }
        kinds
    }

    /// How a configuration is drawn: in its kind's colour, or where configurations are the values of one number, by its place among
    /// these.
    pub(super) fn look(&self, group: &Group) -> Look {
        let value = |group: &Group| match group.point.as_slice() {
            [(path, Some(value))] => value.parse::<f64>().ok().map(|v| ((*path).to_owned(), v)),
            _ => None,
        };
        let Some((path, own)) = value(group) else { return Look::of(group.kind) };
        let mut all: Vec<f64> = self.groups.iter().filter_map(value).filter(|v| v.0 == path).map(|v| v.1).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let swept = self.groups.iter().filter(|other| other.model == group.model).count();
        // where several kinds were swept, their colours tell them apart
        let one_kind = self.groups.iter().filter(|other| !other.point.is_empty()).all(|other| other.kind == group.kind);
        if swept < ORDERED_VALUES || !one_kind {
            return Look::of(group.kind);
        }
        Look::ordered(group.kind, all.iter().position(|v| v.total_cmp(&own).is_eq()).unwrap_or(0), all.len())
    }

    /// The label of a configuration: the model, and its settings where it was swept.
    pub(super) fn label(&self, group: &Group) -> String {
        let settings = group.point.iter().map(|(path, value)| {
            let name = self.varying.iter().find(|v| v.path == *path).map_or(*path, |v| &v.label);
            format!("{name} {}", value.unwrap_or("not set"))
        });
        let parts: Vec<String> = std::iter::once(group.model.to_owned()).chain(settings).collect();
        parts.join(", ")
    }
}

impl Group<'_> {
    /// Runs that completed.
    pub(super) fn completed(&self) -> impl Iterator<Item = &Run<'_>> {
        self.runs.iter().filter(|run| run.completed())
    }

    /// A metric over the completed runs.
    pub(super) fn metric(&self, name: &str, split: Option<&str>) -> Found {
        let rows: Vec<&ResultRow> = self.completed().filter_map(|run| run.row(name, split)).collect();
        let values: Vec<f64> = rows.iter().filter_map(|row| row.value).collect();
        match estimate_over_seeds(&values) {
            Some(e) => Found::Value(super::catalogue::possible(name, e)),
            None if rows.is_empty() => self.unfinished(name, split),
            None => Found::Undefined,
        }
    }

    /// A metric of the runs that ran out of time and were scored as they were, where none completed.
    fn unfinished(&self, name: &str, split: Option<&str>) -> Found {
        let timed_out = self.runs.iter().filter(|run| run.timed_out());
        let scores: Vec<f64> = timed_out.filter_map(|run| run.row(name, split)?.value).collect();
        if scores.is_empty() || self.completed().next().is_some() { Found::Missing } else { Found::Unfinished(scores) }
    }

    /// A metric of each completed run by seed.
    pub(super) fn by_seed(&self, name: &str, split: Option<&str>) -> BTreeMap<u64, f64> {
        self.completed().filter_map(|run| Some((run.head.seed, run.row(name, split)?.value?))).collect()
    }

    /// Mean of something over the completed runs that have it.
    pub(super) fn mean(&self, value: impl Fn(&ResultRow) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.completed().filter_map(|run| value(run.head)).collect();
        estimate(&values).map(|e| e.mean)
    }
}

impl<'a> Run<'a> {
    /// What its data are.
    pub(super) fn identity(&self) -> Identity {
        Identity::recorded(self.head.data_identity.as_deref())
    }

    /// Whether its numbers count.
    pub(super) fn completed(&self) -> bool {
        self.head.outcome == COMPLETED
    }

    /// Whether it ran out of time: it was scored as it was, but its numbers count in no mean.
    pub(super) fn timed_out(&self) -> bool {
        self.head.outcome == TIMED_OUT
    }

    /// The row of a metric, of any split if none is named.
    pub(super) fn row(&self, metric: &str, split: Option<&str>) -> Option<&'a ResultRow> {
        let matches = |row: &&&ResultRow| {
            row.metric.as_deref() == Some(metric) && (split.is_none() || row.split.as_deref() == split)
        };
        self.metrics.iter().find(matches).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cell, config};
    use super::*;

    #[test]
    fn sweep_points_are_rows_and_seeds_are_not() {
        let mut rows = Vec::new();
        for (lambda, seed) in [("1.0", 2), ("0.5", 1), ("0.5", 2), ("10", 1)] {
            let seed_text = seed.to_string();
            let pairs = [("model.lambda", lambda), ("seed", seed_text.as_str()), ("train.seen", "10")];
            rows.push(config(cell("bim", seed), &pairs));
        }
        rows.push(config(cell("rnn", 1), &[("seed", "1"), ("train.seen", "99")]));
        let parts = parts(&rows);
        let part = &parts[0];
        let labels: Vec<String> = part.groups.iter().map(|g| part.label(g)).collect();
        assert_eq!(labels, ["bim, lambda 0.5", "bim, lambda 1.0", "bim, lambda 10", "rnn"]);
        let seeds: Vec<u64> = part.groups[0].runs.iter().map(|r| r.head.seed).collect();
        assert_eq!(seeds, [1, 2]);
    }

    #[test]
    fn names_in_the_grid_do_not_hide_what_a_task_is() {
        let mut row = config(cell("bim", 1), &[("task.kind", "language")]);
        row.task = "words".into();
        (row.metric, row.value) = (Some("bits_per_byte".into()), Some(1.0));
        let other = ResultRow { model: "bim-again".into(), ..row.clone() };
        let rows = [row, other];
        let parts = parts(&rows);
        assert_eq!((parts[0].task, parts[0].family), ("words", "language"));
        assert_eq!(parts[0].main_metrics(), ["bits_per_byte"]);
        assert_eq!(parts[0].groups.len(), 2, "equal configurations under two names share the cell's id");
    }

    #[test]
    fn labels_are_as_long_as_needed() {
        let all = BTreeSet::from(["model.a.rate", "train.rate", "depth"]);
        assert_eq!(label("model.a.rate", &all), "a.rate");
        assert_eq!(label("train.rate", &all), "train.rate");
        assert_eq!(label("depth", &all), "depth");
    }

    #[test]
    fn values_sort_as_numbers_where_they_are() {
        let mut values = ["on", "10", "9", "1e-3", "off"];
        values.sort_by(|a, b| compare_values(a, b));
        assert_eq!(values, ["1e-3", "9", "10", "off", "on"]);
    }
}
