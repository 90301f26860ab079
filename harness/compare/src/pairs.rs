//! Which cell of one run stands against which of the other.

use std::collections::{BTreeMap, BTreeSet};

use rows::results::ResultRow;

/// The outcome of a cell whose numbers count.
const COMPLETED: &str = "completed";
/// Settings that change no result.
const REPORT: &str = "report.";

/// A cell of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What all its rows share.
    pub head: ResultRow,
    /// Values of its metrics by split and name; `None` if undefined.
    pub metrics: BTreeMap<(String, String), Option<f64>>,
}

impl Cell {
    /// Whether it was trained to its end and scored.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.head.outcome == COMPLETED
    }

    /// Whether it has a metric, if only undefined.
    #[must_use]
    pub fn names(&self, metric: &str) -> bool {
        self.metrics.keys().any(|(_, name)| name == metric)
    }

    /// The value of a metric, of whatever split it is.
    #[must_use]
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.metrics.iter().find(|((_, name), _)| name == metric).and_then(|(_, value)| *value)
    }
}

/// What a cell is called in both runs, but for its seed: task, model and the settings that vary in either run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Task as the grid names it.
    pub task: String,
    /// Model as the grid names it.
    pub model: String,
    /// Kind of task.
    pub kind: String,
    /// Settings that vary, such as `model.lambda`, with their values; empty where a cell does not have them.
    pub point: Vec<(String, String)>,
}

impl Group {
    /// For readers: `language bim model.lambda=0.9`.
    #[must_use]
    pub fn name(&self) -> String {
        let settings = self.point.iter().filter(|(_, value)| !value.is_empty());
        let settings = settings.map(|(key, value)| format!(" {key}={value}"));
        format!("{} {}{}", self.task, self.model, settings.collect::<String>())
    }
}

/// Cells of one run by group and seed.
type Cells = BTreeMap<(Group, u64), Cell>;

/// Two runs, cell by cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Cells that both have.
    pub both: BTreeMap<Group, BTreeMap<u64, (Cell, Cell)>>,
    /// Cells that the first alone has.
    pub only_a: Vec<(Group, u64)>,
    /// Cells that the second alone has.
    pub only_b: Vec<(Group, u64)>,
    /// Settings that are the same within each run and not the same in both: task, model, setting, values.
    pub settings: BTreeSet<(String, String, String, String, String)>,
}

/// Puts two runs beside each other.
#[must_use]
pub fn pair(a: &[ResultRow], b: &[ResultRow]) -> Pairs {
    let (a, b) = (heads(a), heads(b));
    let mut varying: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for run in [&a, &b] {
        for ((task, model), cells) in by_model(run) {
            varying.entry((task, model)).or_default().extend(differing(&cells));
        }
    }
    let mut pairs = Pairs { settings: changed(&a, &b, &varying), ..Pairs::default() };
    let (mut a, b) = (named(a, &varying), named(b, &varying));
    for ((group, seed), of_b) in b {
        match a.remove(&(group.clone(), seed)) {
            Some(of_a) => drop(pairs.both.entry(group).or_default().insert(seed, (of_a, of_b))),
            None => pairs.only_b.push((group, seed)),
        }
    }
    pairs.only_a = a.into_keys().collect();
    pairs
}

/// Rows → cells.
fn heads(rows: &[ResultRow]) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut known: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for row in rows {
        // a cell that two names of a grid share has rows under each
        let key = (row.cell.as_str(), row.task.as_str(), row.model.as_str());
        let index = *known.entry(key).or_insert_with(|| {
            cells.push(Cell { head: row.clone(), metrics: BTreeMap::new() });
            cells.len() - 1
        });
        if let Some(metric) = &row.metric {
            let name = (row.split.clone().unwrap_or_default(), metric.clone());
            cells[index].metrics.insert(name, row.value);
        }
    }
    cells
}

fn by_model(cells: &[Cell]) -> BTreeMap<(String, String), Vec<&Cell>> {
    let mut models: BTreeMap<(String, String), Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        models.entry((cell.head.task.clone(), cell.head.model.clone())).or_default().push(cell);
    }
    models
}

/// Settings in which cells differ.
fn differing(cells: &[&Cell]) -> BTreeSet<String> {
    let keys: BTreeSet<&String> = cells.iter().flat_map(|cell| cell.head.config.keys()).collect();
    let differs = |key: &&&String| {
        let values: BTreeSet<_> = cells.iter().map(|cell| cell.head.config.get(**key)).collect();
        values.len() > 1
    };
    keys.iter().filter(|key| !key.starts_with(REPORT)).filter(differs).map(|key| (*key).clone()).collect()
}

/// What is constant in each run and differs between them.
fn changed(
    a: &[Cell],
    b: &[Cell],
    varying: &BTreeMap<(String, String), BTreeSet<String>>,
) -> BTreeSet<(String, String, String, String, String)> {
    let (a, b) = (by_model(a), by_model(b));
    let mut changed = BTreeSet::new();
    for (name, of_a) in &a {
        let (Some(first), Some(other)) = (of_a.first(), b.get(name).and_then(|of_b| of_b.first())) else { continue };
        let (first, other) = (&first.head.config, &other.head.config);
        let keys: BTreeSet<&String> = first.keys().chain(other.keys()).collect();
        for key in keys {
            let (from, to) = (first.get(key), other.get(key));
            if from != to && !key.starts_with(REPORT) && !varying.get(name).is_some_and(|keys| keys.contains(key)) {
                let text = |value: Option<&String>| value.cloned().unwrap_or_else(|| "unset".to_owned());
                changed.insert((name.0.clone(), name.1.clone(), key.clone(), text(from), text(to)));
            }
        }
    }
    changed
}

fn named(cells: Vec<Cell>, varying: &BTreeMap<(String, String), BTreeSet<String>>) -> Cells {
    let name = |cell: Cell| {
        let head = &cell.head;
        let keys = varying.get(&(head.task.clone(), head.model.clone())).into_iter().flatten();
        let point = keys.map(|key| (key.clone(), head.config.get(key).cloned().unwrap_or_default())).collect();
        let kind = head.config.get("task.kind").cloned().unwrap_or_default();
        let group = Group { task: head.task.clone(), model: head.model.clone(), kind, point };
        ((group, head.seed), cell)
    };
    cells.into_iter().map(name).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A completed cell of a language task with one metric.
    pub fn row(model: &str, seed: u64, lambda: &str, value: f64) -> ResultRow {
        let config = [("task.kind", "language"), ("model.lambda", lambda), ("train.clip", "1")];
        ResultRow {
            cell: format!("{model}-{seed}-{lambda}"),
            task: "text".into(),
            model: model.into(),
            seed,
            outcome: COMPLETED.into(),
            split: Some("test".into()),
            metric: Some("bits_per_byte".into()),
            value: Some(value),
            parameters: Some(100),
            state_bytes: Some(64),
            seen: 1000,
            updates: 10,
            train_s: 1.0,
            config: config.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ..ResultRow::default()
        }
    }

    #[test]
    fn cells_meet_by_what_varies_and_what_changed_is_said_once() {
        let a = [row("bim", 1, "0.5", 2.0), row("bim", 1, "1", 2.1), row("bim", 2, "1", 2.2)];
        let mut b: Vec<ResultRow> = vec![row("bim", 1, "1", 2.3), row("bim", 1, "0.5", 2.4), row("lstm", 1, "", 2.5)];
        for row in &mut b {
            row.config.insert("train.clip".into(), "0.5".into());
            row.config.insert("report.reference".into(), "bim".into());
            row.cell += "x"; // another setting, another id
        }
        let pairs = pair(&a, &b);
        assert_eq!(pairs.both.len(), 2);
        let half = pairs.both.iter().find(|(group, _)| group.name() == "text bim model.lambda=0.5").unwrap().1;
        assert_eq!((half[&1].0.value("bits_per_byte"), half[&1].1.value("bits_per_byte")), (Some(2.0), Some(2.4)));
        assert_eq!(pairs.only_a.len(), 1);
        assert_eq!(pairs.only_b.iter().map(|(group, _)| group.name()).collect::<Vec<_>>(), ["text lstm"]);
        let changed: Vec<_> = pairs.settings.iter().map(|(_, model, key, from, to)| (model, key, from, to)).collect();
        assert_eq!(changed, [(&"bim".to_owned(), &"train.clip".to_owned(), &"1".to_owned(), &"0.5".to_owned())]);
    }
}
