//! From grid files to validated cells with ids: everything that can be wrong is found before the first step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use learner::Cost;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cell::CellConfig;
use crate::device::Devices;
use crate::error::{Error, Result};
use crate::measure::energy::CostModel;
use crate::models::ModelConfig;
use crate::protocol;
use crate::report_config::ReportConfig;
use crate::run::{check_training, cost, segments_for};
use crate::schedule::table;
use crate::store::CellDir;
use crate::store::seal::{self, Stored};
use crate::tasks::{self, Task, TaskConfig};
use crate::train::TrainConfig;
use data::files::Held;
use data::identity::sums::Sums;
use grid::{Grid, RawCell, Selection, Sources, canonical_json, read_as, short_id};

/// Version of `plan.json`.
const SCHEMA: u32 = 1;

/// What every version of a plan says.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// Content hash.
    pub id: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of state and traces.
    pub state_bytes: u64,
    /// Tokens or frames it will see.
    pub seen: u64,
    /// Digest of its data.
    pub data: String,
    /// What its data are, as `published: reason`; absent in plans of versions before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_identity: Option<String>,
    /// Whether this invocation runs it; others are only listed.
    #[serde(skip, default = "yes")]
    pub selected: bool,
    /// Everything resolved.
    pub config: CellConfig,
}

fn yes() -> bool {
    true
}

/// A file that a plan was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridFile {
    /// Path as it was given.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this file's layout.
    pub schema: u32,
    /// Experiment.
    pub experiment: String,
    /// Description from the grid file.
    pub description: Option<String>,
    /// Scale.
    pub scale: String,
    /// The grid file and those that it extends, as they were read; none in plans of versions before they were kept.
    #[serde(default)]
    pub files: Vec<GridFile>,
    /// All cells, in order.
    pub cells: Vec<PlannedCell>,
    /// Whether the scale is the one that the grid has by default.
    #[serde(skip)]
    pub is_default_scale: bool,
}

/// Datasets that are open, by their settings.
pub type OpenTasks = BTreeMap<String, Arc<dyn Task>>;

/// Opens a task once per distinct configuration.
///
/// # Errors
/// If its data are missing or corrupt.
pub fn open_task(open: &mut OpenTasks, task: &TaskConfig, data: &Path) -> Result<Arc<dyn Task>> {
    let key = canonical_json(&serde_json::json!(task));
    if let Some(t) = open.get(&key) {
        return Ok(Arc::clone(t));
    }
    let t = task.open(data)?;
    open.insert(key, Arc::clone(&t));
    Ok(t)
}

impl Plan {
    /// Reads a grid file and resolves every cell of it: configuration, data, model, budget.
    ///
    /// # Errors
    /// If the grid is wrong (exit code 2) or data are missing or corrupt (4).
    pub fn build(
        grid: &Path,
        selection: &Selection,
        data: &Path,
        devices: &Devices,
        open: &mut OpenTasks,
    ) -> Result<Self> {
        let mut sources = Sources::default();
        let file = grid;
        let grid = Grid::load(file, &mut sources)?;
        let every = Selection { only: None, ..selection.clone() };
        let all = grid.cells(&every, &mut sources)?;
        let chosen = grid.chosen(&all, selection, &mut sources)?;
        // every configuration is read before any data is touched: a typo must not cost a download or a generation
        let typed = read_cells(&grid, file, &every, &all, &mut sources)?;
        drop(all);
        let mut cells = Vec::with_capacity(typed.len());
        let mut costs = Costs::new();
        let mut identities = Identities::new();
        for (index, (selected, config)) in chosen.into_iter().zip(typed).enumerate() {
            let planned = plan_cell(config, data, devices, open, &mut costs, &mut identities);
            let planned = planned.map_err(|e| located(e, index, &grid, &every, &mut sources))?;
            cells.push(PlannedCell { selected, ..planned });
        }
        let scale = cells.first().map(|c| c.config.scale.clone()).unwrap_or_default();
        let is_default_scale = scale == grid.default_scale();
        let Grid { experiment, description, .. } = grid;
        let files = sources.files().map(|(path, text)| GridFile { path: path.to_owned(), text: text.to_owned() });
        Ok(Self { schema: SCHEMA, experiment, description, scale, files: files.collect(), cells, is_default_scale })
    }

    /// What tells each cell from the others of its task and model: the settings that differ among them, as
    /// `model.lambda=0.9`.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (i, c) in self.cells.iter().enumerate() {
            groups.entry((&c.config.task_name, &c.config.model_name)).or_default().push(i);
        }
        // a cell's settings are many more than those that tell it apart, so they are put together twice and never kept
        let flat = |i: usize| self.cells[i].config.flat();
        let mut settings = vec![String::new(); self.cells.len()];
        for members in groups.into_values() {
            let first = flat(members[0]);
            let differing = |&i: &usize| {
                let other = flat(i);
                let keys = first.keys().chain(other.keys());
                keys.filter(|key| first.get(*key) != other.get(*key)).cloned().collect::<BTreeSet<String>>()
            };
            let varied = members.par_iter().map(differing).reduce(BTreeSet::new, |mut a, b| {
                a.extend(b);
                a
            });
            let text = |&i: &usize| {
                let flat = flat(i);
                let value = |key: &String| format!("{key}={}", flat.get(key).map_or("unset", String::as_str));
                (i, varied.iter().map(value).collect::<Vec<_>>().join(" "))
            };
            let texts: Vec<(usize, String)> = members.par_iter().map(text).collect();
            for (i, text) in texts {
                settings[i] = text;
            }
        }
        settings
    }

    /// What people call each cell: task, model, seed and the settings that tell it from the others.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let name = |(cell, settings): (&PlannedCell, String)| {
            let CellConfig { task_name, model_name, seed, .. } = &cell.config;
            let space = if settings.is_empty() { "" } else { " " };
            format!("{task_name} {model_name}{space}{settings} seed {seed}")
        };
        self.cells.iter().zip(self.settings()).map(name).collect()
    }

    /// Its folder among the run directories, unless another name is given: a scale of its own has a folder of its own.
    #[must_use]
    pub fn folder(&self) -> String {
        if self.is_default_scale { self.experiment.clone() } else { format!("{}.{}", self.experiment, self.scale) }
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// `Usage` if it is not there or is not what was written.
    pub fn read(path: &Path) -> Result<Self> {
        // of another version nothing else may be as it is here
        if let Some(Version { schema }) = seal::read::<Version>(path)?.whole().filter(|plan| plan.schema != SCHEMA) {
            return Err(Error::Usage(format!(
                "{}: a plan of version {schema}\n  expected: version {SCHEMA}, which this program writes\n  next: use the program that \
                 wrote it, or plan again with `harness run` on the same grid",
                path.display()
            )));
        }
        match seal::read(path)? {
            Stored::Whole(plan) => Ok(plan),
            Stored::Absent => Err(Error::Usage(format!(
                "{}: no such plan\n  next: write one with `harness run` or `harness plan --write`",
                path.display()
            ))),
            Stored::Damaged(problem) => {
                Err(Error::Usage(format!("{problem}\n  next: plan again with `harness run` on the same grid")))
            }
        }
    }

    /// Writes `plan.json`. A plan may grow: one that leaves out cells of which something is stored is refused, unless it is to
    /// `replace` the plan that is there, which is then kept under its own hash. While another command works on the run directory, none of
    /// its cells may be left out at all. What is returned says to others that this one works on it.
    ///
    /// # Errors
    /// `Usage` for a plan that is refused, `Io` if the system refuses.
    pub fn write(&self, run: &Path, replace: bool) -> Result<Option<Held>> {
        std::fs::create_dir_all(run).map_err(Error::io(run))?;
        let _held = table::lock(run)?;
        let path = run.join("plan.json");
        let planned: HashSet<&str> = self.cells.iter().map(|cell| cell.id.as_str()).collect();
        // what is stored of a plan that cannot be read is found again by the ids of its cells
        if let Some(old) = seal::read::<Outline>(&path)?.whole() {
            let dropped: Vec<&OutlineCell> =
                old.cells.iter().filter(|cell| !planned.contains(cell.id.as_str())).collect();
            let lost: Vec<&&OutlineCell> =
                dropped.iter().filter(|cell| CellDir::of(run, &cell.id).is_begun()).collect();
            if let (false, Some(first)) = (replace, lost.first()) {
                return Err(Error::Usage(format!(
                    "{}: this plan leaves out {} of the {} cells that are planned there and have results or a checkpoint, such as \
                     {} ({} {} seed {}): its settings, its data or the program are others\n  expected: a plan with all of them\n  \
                     next: choose cells with --only, give this run a folder of its own with --name NAME, or leave those cells out of \
                     its report with --replace",
                    run.display(),
                    lost.len(),
                    old.cells.len(),
                    first.id,
                    first.config.task_name,
                    first.config.model_name,
                    first.config.seed,
                )));
            }
            let working = run.join(WORKING);
            if !dropped.is_empty() && Held::take(&working).map_err(Error::io(&working))?.is_none() {
                return Err(Error::Usage(format!(
                    "{}: another command works on it, and this plan leaves out {} of its cells\n  next: wait for it, or give this run a \
                     folder of its own with --name NAME",
                    run.display(),
                    dropped.len()
                )));
            }
            if !dropped.is_empty() {
                let ids: Vec<&str> = old.cells.iter().map(|cell| cell.id.as_str()).collect();
                let kept = run.join(format!("plan-{}.json", short_id(&ids.join(" "))));
                std::fs::rename(&path, &kept).map_err(Error::io(&kept))?;
            }
        }
        seal::write(&path, self)?;
        let working = run.join(WORKING);
        Held::share(&working).map_err(Error::io(&working))
    }
}

/// Whoever works on a run directory shares the lock of this file.
const WORKING: &str = ".working";

/// As much of a plan as is needed to tell what another one would drop.
#[derive(Deserialize)]
struct Outline {
    cells: Vec<OutlineCell>,
}

#[derive(Deserialize)]
struct OutlineCell {
    id: String,
    config: OutlineConfig,
}

#[derive(Deserialize)]
struct OutlineConfig {
    task_name: String,
    model_name: String,
    seed: u64,
}

/// Weights, their gradients and two moments in f32, and state; activations come on top.
#[must_use]
pub fn memory_floor(cell: &PlannedCell) -> u64 {
    16 * cell.parameters + cell.state_bytes
}

/// The price list of the command line, of the grid, or the default.
fn cost_model(grid: &Grid, file: &Path, selection: &Selection, sources: &Sources) -> Result<CostModel> {
    if let Some(name) = &selection.cost_model {
        return CostModel::find(name, Path::new(""));
    }
    let Some(node) = &grid.energy else { return Ok(CostModel::default()) };
    let Some(name) = node.scalar() else {
        let message = format!("`energy`: expected the name of a cost model, got {}", node.describe());
        return Err(sources.error(node.origin, message).expected_one_of("", &CostModel::names()).into());
    };
    CostModel::find(name, file.parent().unwrap_or(Path::new(""))).map_err(|e| match e {
        Error::Usage(problem) => sources.error(node.origin, problem).into(),
        other => other,
    })
}

/// The error of a cell's setting with the place where it was written; where it was left out, where the model was.
fn located(e: Error, index: usize, grid: &Grid, selection: &Selection, sources: &mut Sources) -> Error {
    let Error::Setting { of, key, problem } = &e else { return e };
    // the cells as written are many, and are not kept for the case that one of them is wrong
    let Ok(Some(cell)) = grid.cells(selection, sources).map(|cells| cells.into_iter().nth(index)) else { return e };
    let written = [&cell.model, &cell.train, &cell.task].into_iter().find_map(|tree| tree.get(key));
    sources.error(written.unwrap_or(&cell.model).origin, format!("{of}: {key}: {problem}")).into()
}

/// Typed configurations of all cells, every value checked; no data is touched.
///
/// # Errors
/// If the grid is wrong.
fn read_cells(
    grid: &Grid,
    file: &Path,
    selection: &Selection,
    raw: &[RawCell],
    sources: &mut Sources,
) -> Result<Vec<CellConfig>> {
    let energy = cost_model(grid, file, selection, sources)?;
    let report = ReportConfig::read(grid, file, raw, sources)?;
    let sources = &*sources;
    raw.par_iter().map(|raw| typed(raw, &energy, &report, sources)).collect()
}

/// Typed configurations of all cells of a grid.
#[cfg(test)]
pub fn typed_cells(grid: &Grid, file: &Path, selection: &Selection, sources: &mut Sources) -> Result<Vec<CellConfig>> {
    let raw = grid.cells(selection, sources)?;
    read_cells(grid, file, selection, &raw, sources)
}

/// Typed configuration of a cell.
fn typed(raw: &RawCell, energy: &CostModel, report: &ReportConfig, sources: &Sources) -> Result<CellConfig> {
    let task = TaskConfig::read(&raw.task, sources)?;
    let report = report.facts(task.info().kind);
    let model = ModelConfig::read(&raw.model, sources)?;
    protocol::check(&task, &raw.task, sources)?;
    tasks::check(&task, &raw.task, sources)?;
    let mut train: TrainConfig = read_as(&raw.train, "`train`", sources)?;
    if task.settings().selection() == protocol::Selection::None {
        train.curve_points = 0;
    }
    tasks::check_stream(&task, &train, [&raw.task, &raw.train], sources)?;
    Ok(CellConfig {
        experiment: raw.experiment.clone(),
        scale: raw.scale.clone(),
        task_name: raw.task_name().to_owned(),
        task,
        model_name: raw.model_name().to_owned(),
        model,
        train,
        energy: energy.clone(),
        report,
        seed: raw.seed,
    })
}

/// What data are, by the open task that has them.
type Identities = BTreeMap<*const (), String>;

/// Costs by everything that they follow from: cells that differ in their seed alone share one.
type Costs = BTreeMap<String, Cost>;

fn plan_cell(
    config: CellConfig,
    data: &Path,
    devices: &Devices,
    open: &mut OpenTasks,
    costs: &mut Costs,
    identities: &mut Identities,
) -> Result<PlannedCell> {
    let task = open_task(open, &config.task, data)?;
    let segment = config.train.segment.map_or(config.model.default_segment(), |c| c.0);
    let io = task.io(config.train.streams.0, segment);
    let of = || format!("model {} on {}", config.model_name, config.task_name);
    let named = |e: learner::Error| match e {
        learner::Error::Config { key, problem } => Error::Setting { of: of(), key, problem },
        other => Error::Usage(format!("{}: {other}", of())),
    };
    check_training(&*task, &config).map_err(named)?;
    let source = task.training(io.streams, io.segment, config.seed)?;
    let total = segments_for(&config, &*source);
    let key = canonical_json(&serde_json::json!([&config.task, &config.model, &config.train, total]));
    let cost = if let Some(&known) = costs.get(&key) {
        known
    } else {
        // this finds settings that do not fit together
        let cost = cost(&config, &*task, io, &*source, total, devices.of(&config.model)).map_err(named)?;
        config.model.check_task(&*task, io.segment).map_err(named)?;
        costs.insert(key, cost);
        cost
    };
    let seen = (total as f64 / source.segments() as f64 * source.seen_per_epoch() as f64).round() as u64;
    let fingerprint = task.fingerprint().to_owned();
    let identity = match identities.entry(Arc::as_ptr(&task).cast::<()>()) {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(new) => {
            new.insert(task.identity(&mut Sums::in_folder(&data::cache::folder()))?.to_string()).clone()
        }
    };
    Ok(PlannedCell {
        id: config.id(&fingerprint),
        parameters: cost.parameters,
        state_bytes: cost.state_bytes,
        seen,
        data: fingerprint,
        data_identity: Some(identity),
        selected: true,
        config,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use learner::{InputKind, Io};

    use super::*;

    fn right<T, E: std::fmt::Display>(file: &Path, read: std::result::Result<T, E>) -> T {
        read.unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// Every grid file that is shipped, at every scale it has: configurations are read without touching data.
    #[test]
    fn shipped_grids_are_right_at_every_scale() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let (mut read, mut published) = (0, 0);
        for entry in std::fs::read_dir(&folder).expect("experiments") {
            let file = entry.expect("entry").path();
            if file.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            let mut sources = Sources::default();
            let grid = right(&file, Grid::load(&file, &mut sources));
            let scales: Vec<String> = grid.scales().map(str::to_owned).collect();
            for scale in scales.iter().map(Some).chain([None]) {
                let selection = Selection { scale: scale.cloned(), ..Selection::default() };
                // this checks the parts against each other too
                for cell in right(&file, typed_cells(&grid, &file, &selection, &mut sources)) {
                    read += 1;
                    if let ("table3_biomedical", Some("paper"), "cardio", ModelConfig::Cnn(cnn)) =
                        (cell.experiment.as_str(), scale.map(String::as_str), cell.task_name.as_str(), &cell.model)
                    {
                        assert_eq!(*cnn, baselines::CnnConfig::xresnet1d101());
                        published += 1;
                    }
                }
            }
        }
        assert!(read > 500 && published > 0, "{read}, {published}");
    }

    /// The example in the documentation of the language is a grid: every key of it is known, at each of its scales.
    #[test]
    fn the_documented_example_is_a_grid() {
        let (_, yaml) = include_str!("../../grid/src/lib.rs").split_once("//! ```yaml\n").unwrap();
        let yaml: Vec<&str> = yaml.split("//! ```").next().unwrap().lines().map(|line| &line[4..]).collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("common.yaml"), "train: {streams: 8, clip: 1.5}\n").unwrap();
        let file = dir.path().join("example.yaml");
        std::fs::write(&file, yaml.join("\n")).unwrap();
        for scale in ["mini", "paper"] {
            let mut sources = Sources::default();
            let grid = right(&file, Grid::load(&file, &mut sources));
            let selection = Selection { scale: Some(scale.into()), ..Selection::default() };
            assert!(right(&file, typed_cells(&grid, &file, &selection, &mut sources)).len() > 20);
        }
    }

    /// What a model is planned to cost is what the learner that is built costs, and what it refuses is refused with the same words:
    /// every model of every shipped grid at every scale, as far as it is small enough to be built here.
    #[test]
    fn planned_costs_are_those_of_the_learner_that_is_built() {
        const MOST_PARAMETERS: u64 = 1_500_000;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        let (mut known, mut compared, mut refused) = (std::collections::BTreeSet::new(), 0, 0);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let file = entry.unwrap().path();
            for scale in ["mini", "sample", "paper"] {
                let mut sources = Sources::default();
                let grid = right(&file, Grid::load(&file, &mut sources));
                let selection = Selection { scale: Some(scale.into()), ..Selection::default() };
                let Ok(cells) = typed_cells(&grid, &file, &selection, &mut sources) else { continue };
                for cell in cells {
                    let segment = cell.train.segment.map_or(cell.model.default_segment(), |c| c.0).min(40);
                    if !known.insert((serde_json::to_string(&cell.model).unwrap(), segment)) {
                        continue;
                    }
                    for input in [InputKind::Tokens { vocabulary: 40 }, InputKind::Frames { width: 12 }] {
                        // 5 streams are two groups of BIM's at a chunk of 32
                        let io = Io { input, outputs: 7, streams: 5, segment };
                        let planned = cell.model.plan(io, &cell.train, 10, &Device::Cpu);
                        if planned.as_ref().is_ok_and(|cost| cost.parameters > MOST_PARAMETERS) {
                            continue;
                        }
                        let built =
                            cell.model.build(io, &cell.train, 10, 1, &Device::Cpu).map(|learner| learner.cost());
                        match (planned, built) {
                            (Ok(planned), Ok(built)) => {
                                assert_eq!(planned, built, "{} {:?}", file.display(), cell.model);
                                compared += 1;
                            }
                            (planned, built) => {
                                let text = |cost: learner::Result<learner::Cost>| cost.map_err(|e| e.to_string());
                                assert_eq!(text(planned), text(built), "{} {:?}", file.display(), cell.model);
                                refused += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(compared > 100 && refused > 0, "{compared}, {refused}");
    }
}
