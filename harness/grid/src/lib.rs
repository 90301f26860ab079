//! The grid language: a YAML file → the cells of an experiment, every value with the place it was written at.
//!
//! ```yaml
//! experiment: lambda               # required: a-z, 0-9, _ and -
//! description: How much of the learning signal should be local?
//! extends: common.yaml             # optional; mappings merge, everything else in this file replaces what it says
//! tasks:                           # or one `task: {kind: …}`
//!   - kind: language
//!     vocabulary: byte
//!     train: {seen: 4_000_000}     # numbers may be written 4_000_000 or 4e6
//!   - {kind: cardio, frame: 10}
//! models:
//!   - kind: bim                    # `name` defaults to the kind
//!     width: 128
//!     train: {learning_rate: 1e-3}
//!     tasks: {cardio: {width: 64, train: {learning_rate: 3e-4}}}   # this model on that task
//!   - {kind: lstm, name: small_lstm, width: 32, only: [cardio]}    # on those tasks only
//!   - mamba                        # short for {kind: mamba}
//! train: {streams: 16}             # for every cell
//! report: {reference: small_lstm}  # the model that tables compare with; `rates_from: GRID` names who chose learning rates
//! resources: {time: "04:00:00", memory: 8G, cpus: 4}   # what one cell gets on a cluster
//! energy: horowitz-2014-fp32       # prices of operations: a known list, or a .yaml file beside this one
//! seeds: [1, 2, 3]                 # default [1]; one number means that seed
//! sweep:
//!   bim.lambda: [0, 0.5, 1]        # `bim.…`: cells of that model only; other models are not multiplied
//!   train.clip: [0.5, 1.0]         # `train.…`, `model.…`, `task.…`: every cell; `small_lstm.train.clip`: training of one
//!   zip: {bim.width: [64, 128], bim.layers: [4, 2]}   # in step; a list of such mappings makes several groups
//!   include: [{bim.lambda: 0.9, bim.layers: 8}]       # points beside the product; `model:`, `task:` limit them
//!   exclude: [{task: language, bim.lambda: 1}, {model: mamba, seed: [2, 3]}]
//! scale: mini                      # the default of `--scale`
//! scales:                          # what a scale changes
//!   mini:
//!     seeds: 1
//!     train: {streams: 2}
//!     task: {selection: here}      # every task; `tasks: {cardio: {…}}` one of them
//!     models: {bim: {width: 16}}   # one model; `model: {…}` every one
//!     report: {reference: bim}     # keys over those of `report`
//!   paper: {}
//! ```
//!
//! `sweep: {sample: {points: 20, seed: 1, bim.lambda: {low: 0, high: 1}, bim.width: [64, 128]}}` draws `points` values of each of its
//! paths and walks them in step. A range is `{low, high}` with `scale: log` or
//! `multiple_of: 16` where that is meant; a list is drawn from. `method: latin_hypercube` (the default) spreads the points
//! evenly over each range; `method: random` draws every point by itself, and then a larger `points` keeps the points before.
//!
//! A cell is a task × a model × a sweep point × a seed, in that order. Its keys come, the later over the earlier, from
//! `train`, the task, the model, the model's `tasks`, the scale (`train`, then `task`, `tasks`, `model`, `models`), the
//! sweep point and `--set path=value`. A mapping laid over one with another `kind` replaces it. Cells that come out
//! equal are run once. `null` drops an inherited top-level key. An inherited file may hold overrides for tasks and
//! models that the grid does not have; the grid's own file may not.
//!
//! `--only model=bim|mamba,seed!=1,bim.lambda=0.5` keeps the cells that meet all conditions; `|` separates
//! alternatives, and a cell without the key meets `!=`.

mod cells;
mod error;
mod id;
mod layout;
mod merge;
mod node;
mod parse;
mod path;
mod read;
mod sample;
mod select;
mod sweep;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigResult, Origin, Sources, nearest};
pub use id::{canonical_json, short_id};
pub use merge::merge;
pub use node::{Key, Kind, Node};
pub use parse::parse_text;
pub use read::{read, read_as, take_kind};

use layout::{Context, Entry, Scale, is_name, parse_models, parse_seeds, parse_tasks};
use path::Names;
use std::path::Path;
use sweep::Sweep;

const KEYS: [&str; 14] = [
    "experiment",
    "description",
    "extends",
    "task",
    "tasks",
    "models",
    "train",
    "seeds",
    "sweep",
    "scale",
    "scales",
    "report",
    "resources",
    "energy",
];

/// The scale of a grid that does not name one.
const DEFAULT_SCALE: &str = "mini";

/// A grid file, read and checked as far as this language goes; tasks, models and training check their own keys.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Name of the experiment.
    pub experiment: String,
    /// What it is about.
    pub description: Option<String>,
    /// The `resources` mapping, as written.
    pub resources: Option<Node>,
    /// The cost model, as written.
    pub energy: Option<Node>,
    report: Option<Node>,
    origin: Origin,
    tasks: Vec<Entry>,
    models: Vec<Entry>,
    names: Names,
    train: Option<Node>,
    seeds: Vec<u64>,
    sweep: Sweep,
    default_scale: String,
    scales: Vec<Scale>,
}

/// What the command line selects and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--scale`; the grid's own default if `None`.
    pub scale: Option<String>,
    /// Each `--set path=value`, later ones over earlier ones.
    pub set: Vec<String>,
    /// `--only`.
    pub only: Option<String>,
    /// `--cost-model`, over what the grid says.
    pub cost_model: Option<String>,
}

/// A cell whose keys are put together but not yet read as those of its task, model and training.
#[derive(Clone, Debug, PartialEq)]
pub struct RawCell {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the scale.
    pub scale: String,
    /// The task: `kind`, `name` and its keys.
    pub task: Node,
    /// The model: `kind`, `name` and its keys.
    pub model: Node,
    /// Training.
    pub train: Node,
    /// The seed.
    pub seed: u64,
    /// Swept paths and their values, as written.
    pub sweep_point: Vec<(String, String)>,
}

impl RawCell {
    /// Name of the task.
    pub fn task_name(&self) -> &str {
        self.task.get("name").and_then(Node::scalar).unwrap_or("")
    }

    /// Name of the model.
    pub fn model_name(&self) -> &str {
        self.model.get("name").and_then(Node::scalar).unwrap_or("")
    }
}

impl Grid {
    /// Reads a grid file and what it extends.
    ///
    /// # Errors
    /// Whatever is wrong with it, at its place.
    pub fn load(path: &Path, sources: &mut Sources) -> ConfigResult<Self> {
        let root = merge::load_extended(path, sources)?;
        Self::from_root(&root, sources)
    }

    /// Names of its models.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| model.name.as_str())
    }

    /// The scale that is taken if none is named.
    pub fn default_scale(&self) -> &str {
        &self.default_scale
    }

    /// The `report` mapping, with what a scale lays over it.
    pub fn report(&self, scale: &str) -> Option<Node> {
        let over = self.scales.iter().find(|known| known.name == scale).and_then(|scale| scale.report.as_ref());
        match (&self.report, over) {
            (Some(below), Some(over)) => Some(merge(below, over)),
            (below, over) => over.or(below.as_ref()).cloned(),
        }
    }

    /// The scales it defines.
    pub fn scales(&self) -> impl Iterator<Item = &str> {
        self.scales.iter().map(|scale| scale.name.as_str())
    }

    fn from_root(root: &Node, sources: &Sources) -> ConfigResult<Self> {
        read::check_keys(root, &KEYS, "the grid", sources)?;
        let root = without_nulls(root, sources)?;
        let Some(experiment) = root.get("experiment") else {
            return Err(sources
                .error(root.origin, "missing key `experiment`")
                .help("name it, as in `experiment: lambda`"));
        };
        let tasks = parse_tasks(&root, sources)?;
        let models = parse_models(&root, &tasks, sources)?;
        let of = |entries: &[Entry]| entries.iter().map(|entry| entry.name.clone()).collect();
        let names = Names { tasks: of(&tasks), models: of(&models) };
        let context = Context { names: &names, file: root.origin.source, sources };
        let scales = match root.get("scales") {
            Some(node) => read::expect_map(node, "`scales`", sources)?
                .entries()
                .iter()
                .map(|(key, value)| Scale::parse(key, value, context))
                .collect::<ConfigResult<_>>()?,
            None => Vec::new(),
        };
        let grid = Self {
            experiment: experiment_name(experiment, sources)?,
            description: root.get("description").map(|node| read(node, sources)).transpose()?,
            report: root.get("report").cloned(),
            resources: root.get("resources").cloned(),
            energy: root.get("energy").cloned(),
            origin: root.origin,
            train: root.get("train").map(|node| read::expect_map(node, "`train`", sources)).transpose()?,
            seeds: root.get("seeds").map_or(Ok(vec![1]), |node| parse_seeds(node, sources))?,
            sweep: root.get("sweep").map_or(Ok(Sweep::default()), |node| Sweep::parse(node, &names, sources))?,
            default_scale: default_scale(&root, &scales, sources)?,
            tasks,
            models,
            names,
            scales,
        };
        grid.check_exclude(sources)?;
        Ok(grid)
    }
}

/// Drops top-level keys that are `null`; a key with nothing behind it is more likely unfinished than meant.
fn without_nulls(root: &Node, sources: &Sources) -> ConfigResult<Node> {
    let mut kept = Vec::new();
    for (key, value) in root.entries() {
        if value.is_null() && value.scalar() == Some("") {
            let error = sources.error(key.origin, format!("`{}` is empty", key.text));
            return Err(error.help(format!("give it a value, leave it out, or write `{}: null`", key.text)));
        }
        if !value.is_null() {
            kept.push((key.clone(), value.clone()));
        }
    }
    Ok(Node::map(root.origin, kept))
}

fn experiment_name(node: &Node, sources: &Sources) -> ConfigResult<String> {
    match node.scalar() {
        Some(text) if is_name(text) && !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(text.to_owned()),
        _ => {
            let message = format!("`experiment`: expected a name of a-z, 0-9, _ and -, got {}", node.describe());
            Err(sources.error(node.origin, message))
        }
    }
}

fn default_scale(root: &Node, scales: &[Scale], sources: &Sources) -> ConfigResult<String> {
    let known: Vec<&str> = scales.iter().map(|scale| scale.name.as_str()).collect();
    let Some(node) = root.get("scale") else {
        if known.is_empty() || known.contains(&DEFAULT_SCALE) {
            return Ok(DEFAULT_SCALE.to_owned());
        }
        let origin = root.entry("scales").map_or(root.origin, |(key, _)| key.origin);
        let error = sources.error(origin, format!("none of the scales is `{DEFAULT_SCALE}`, the default"));
        return Err(error.help(format!("say which is, as in `scale: {}`", known.join("` or `scale: "))));
    };
    match node.scalar() {
        Some(name) if known.is_empty() => {
            let error = sources.error(node.origin, format!("`scale: {name}`, and this grid has no `scales`"));
            Err(error.help("leave it out, or say under `scales:` what the scale changes"))
        }
        Some(name) if known.contains(&name) => Ok(name.to_owned()),
        Some(name) => {
            let error = sources.error(node.origin, format!("this grid has no scale `{name}`"));
            Err(error.expected_one_of(name, &known))
        }
        None => Err(sources.error(node.origin, format!("`scale`: expected a name, got {}", node.describe()))),
    }
}
