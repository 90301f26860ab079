//! The `report:` mapping of a grid: what its tables compare with, and which grid chose its learning rates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use grid::{ConfigResult, Grid, Node, RawCell, Selection, Sources, read_as};

/// The keys as they are written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Written {
    /// Name of the model that the others are compared with; a single BIM if absent.
    reference: Option<String>,
    /// The grid that chose the learning rates, named as its run directory is: `GRID`, or `GRID.SCALE` for another scale than
    /// its default. Its file lies beside this one.
    rates_from: Option<String>,
}

/// What a cell's rows carry into the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportFacts {
    /// Name of the model that the others are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The grid that chose the learning rates of this cell's task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates_from: Option<String>,
    /// Learning rates that it tried for each model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates_tried: Option<u64>,
}

impl ReportFacts {
    /// Whether a grid says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Learning rates tried, by kind of task.
type Tried = BTreeMap<String, u64>;

/// The checked mapping of a grid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportConfig {
    reference: Option<String>,
    rates_from: Option<(String, Tried)>,
}

impl ReportConfig {
    /// Reads and checks the mapping of a grid with these cells, all of one scale, which lies in `file`.
    ///
    /// # Errors
    /// At its line: unknown keys, also of another scale, a reference that is no model of the grid, a grid of learning rates that is not
    /// there, that lacks a kind of model, or that does not try as many rates for each of its models.
    pub fn read(grid: &Grid, file: &Path, cells: &[RawCell], sources: &mut Sources) -> ConfigResult<Self> {
        for node in grid.scales().filter_map(|scale| grid.report(scale)) {
            read_as::<Written>(&node, "`report`", sources)?;
        }
        let Some(node) = cells.first().and_then(|cell| grid.report(&cell.scale)) else { return Ok(Self::default()) };
        let Written { reference, rates_from } = read_as(&node, "`report`", sources)?;
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        if let Some(name) = &reference {
            let known: BTreeSet<&str> = cells.iter().map(RawCell::model_name).collect();
            if !known.contains(name.as_str()) {
                let known: Vec<&str> = known.into_iter().collect();
                let error = sources.error(at("reference"), format!("this grid has no model `{name}`"));
                return Err(error.expected_one_of(name, &known));
            }
        }
        let rates_from = match rates_from {
            Some(name) => {
                let tried = tried(&name, file, cells, &node, sources)?;
                Some((name, tried))
            }
            None => None,
        };
        Ok(Self { reference, rates_from })
    }

    /// What it says about a cell on this kind of task.
    #[must_use]
    pub fn facts(&self, task_kind: &str) -> ReportFacts {
        let rates = self.rates_from.as_ref().and_then(|(name, tried)| Some((name, tried.get(task_kind)?)));
        ReportFacts {
            reference: self.reference.clone(),
            rates_from: rates.map(|(name, _)| name.clone()),
            rates_tried: rates.map(|(_, tried)| *tried),
        }
    }
}

/// How many rates the named grid tries for each model, on each kind of task that it shares with these cells.
fn tried(name: &str, file: &Path, cells: &[RawCell], report: &Node, sources: &mut Sources) -> ConfigResult<Tried> {
    let origin = report.get("rates_from").map_or(report.origin, |node| node.origin);
    let (stem, scale) = name.split_once('.').map_or((name, None), |(stem, scale)| (stem, Some(scale.to_owned())));
    let path = file.with_file_name(format!("{stem}.yaml"));
    if !path.is_file() {
        let error = sources.error(origin, format!("`rates_from`: there is no grid file {}", path.display()));
        return Err(
            error.help("name a grid beside this one, as in `baseline_learning_rates.sample` (its scale `sample`)")
        );
    }
    let rates = Grid::load(&path, sources)?;
    if let Some(scale) = scale.as_ref().filter(|scale| !rates.scales().any(|known| known == *scale)) {
        let error = sources.error(origin, format!("`rates_from`: {stem} has no scale `{scale}`"));
        return Err(error.expected_one_of(scale, &rates.scales().collect::<Vec<_>>()));
    }
    let its = rates.cells(&Selection { scale, ..Selection::default() }, sources)?;
    let kind = |node: &Node| node.get("kind").and_then(Node::scalar).unwrap_or_default().to_owned();
    let mut found = Tried::new();
    for task in cells.iter().map(|cell| kind(&cell.task)).collect::<BTreeSet<_>>() {
        let on_task: Vec<&RawCell> = its.iter().filter(|cell| kind(&cell.task) == task).collect();
        let mut by_model: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for cell in &on_task {
            let rate = cell.train.get("learning_rate").map(Node::one_line).unwrap_or_default();
            by_model.entry(cell.model_name()).or_default().insert(rate);
        }
        let Some((first, rates)) = by_model.first_key_value() else { continue };
        if let Some((other, more)) = by_model.iter().find(|(_, more)| *more != rates) {
            let message = format!(
                "`rates_from`: {name} tries {} learning rates for `{first}` and {} for `{other}`, or others",
                rates.len(),
                more.len()
            );
            return Err(sources.error(origin, message).help("give every model the same tries over the same range"));
        }
        let kinds: BTreeSet<String> = on_task.iter().map(|cell| kind(&cell.model)).collect();
        let here = cells.iter().filter(|cell| kind(&cell.task) == task).map(|cell| kind(&cell.model));
        if let Some(missing) = here.into_iter().find(|kind| !kinds.contains(kind)) {
            let message = format!("`rates_from`: {name} tries no learning rate for kind `{missing}` on {task}");
            return Err(sources.error(origin, message).help("add a model of this kind to that grid"));
        }
        found.insert(task, rates.len() as u64);
    }
    if found.is_empty() {
        return Err(sources.error(origin, format!("`rates_from`: {name} has no task of this grid")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::typed_cells;

    const RATES: &str = "experiment: rates\ntask: {kind: language, selection: here}\nmodels: [lstm, rnn]\n\
                         sweep: {train.learning_rate: [1e-3, 2e-3, 4e-3]}\nscales: {mini: {}, sample: {}}\n";

    /// The facts of the first cell of a grid with this `report:`, beside `rates.yaml`.
    fn facts(report: &str, rates: &str) -> Result<ReportFacts, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.yaml");
        let grid = format!("experiment: x\ntask: {{kind: language}}\nmodels: [lstm, rnn]\nreport: {report}\n");
        std::fs::write(&path, grid).unwrap();
        std::fs::write(dir.path().join("rates.yaml"), rates).unwrap();
        let mut sources = Sources::default();
        let grid = Grid::load(&path, &mut sources).unwrap();
        typed_cells(&grid, &path, &Selection::default(), &mut sources)
            .map(|mut cells| cells.remove(0).report)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_grid_that_chose_the_rates_is_found_and_counted() {
        let found = facts("{reference: rnn, rates_from: rates.sample}", RATES).unwrap();
        let expected = ReportFacts {
            reference: Some("rnn".into()),
            rates_from: Some("rates.sample".into()),
            rates_tried: Some(3),
        };
        assert_eq!(found, expected);
        assert!(facts("{}", RATES).unwrap().is_empty());
    }

    /// Rates that a scale lays over a grid are chosen for that scale alone.
    #[test]
    fn a_scale_has_a_report_of_its_own() {
        let scales = "{reference: rnn}\nscales: {mini: {}, sample: {report: {rates_from: rates.sample}}}";
        let at = |scale: &str| facts(&format!("{scales}\nscale: {scale}"), RATES).unwrap();
        assert_eq!((at("mini").reference.as_deref(), at("mini").rates_from), (Some("rnn"), None));
        let sample = at("sample");
        assert_eq!((sample.reference.as_deref(), sample.rates_from.as_deref()), (Some("rnn"), Some("rates.sample")));
        // a key that is misspelt at one scale is refused at every scale
        let misspelt =
            "{reference: rnn}\nscales: {mini: {}, sample: {report: {rates_form: rates.sample}}}\nscale: mini";
        let error = facts(misspelt, RATES).unwrap_err();
        assert!(error.contains("unknown key `rates_form`") && error.contains("rates_from"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is_written() {
        let other_rates = RATES.replace("models: [lstm, rnn]", "models: [lstm, rnn, gru]");
        let unequal = RATES.replace("train.learning_rate: [1e-3, 2e-3, 4e-3]", "rnn.train.learning_rate: [1e-3, 2e-3]");
        for (report, rates, expected) in [
            ("{refrence: rnn}", RATES, "unknown key `refrence` in `report`"),
            ("{paper_table: language}", RATES, "unknown key `paper_table`"),
            ("{reference: bim}", RATES, "this grid has no model `bim`"),
            ("{rates_from: none}", RATES, "there is no grid file"),
            ("{rates_from: rates.paper}", RATES, "rates has no scale `paper`"),
            ("{rates_from: rates}", &unequal, "tries 1 learning rates for `lstm` and 2 for `rnn`"),
            ("{rates_from: rates}", &RATES.replace(", rnn]", "]"), "tries no learning rate for kind `rnn` on language"),
            ("{rates_from: rates}", &RATES.replace("language", "cardio"), "rates has no task of this grid"),
        ] {
            let error = facts(report, rates).unwrap_err();
            assert!(error.contains(expected) && error.contains("g.yaml:4:"), "{report}: {error}");
        }
        assert!(facts("{rates_from: rates}", &other_rates).is_ok(), "more models than are used may be tried");
    }
}
