//! How long cells will take and how much memory, by what cells like them took.

use std::path::Path;

use crate::plan::{Plan, PlannedCell};
use crate::store::{CellDir, Outcome};

/// What a finished cell took.
#[derive(Clone, Debug)]
struct Measured {
    task: String,
    model: String,
    parameters: u64,
    seconds_per_seen: f64,
    peak_bytes: Option<u64>,
}

/// What the finished cells of run directories took.
#[derive(Clone, Debug, Default)]
pub struct Rates(Vec<Measured>);

/// A prediction for one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Training time, in seconds.
    pub seconds: Option<f64>,
    /// Highest memory of the cell itself, in bytes.
    pub peak_bytes: Option<u64>,
}

impl Rates {
    /// What is stored under `out` of an experiment, at whatever scale. What cannot be read was not measured.
    #[must_use]
    pub fn of_experiment(out: &Path, experiment: &str) -> Self {
        let of_it =
            |name: &str| name == experiment || name.strip_prefix(experiment).is_some_and(|n| n.starts_with('.'));
        let folders = std::fs::read_dir(out).into_iter().flatten().flatten();
        let mut folders: Vec<_> =
            folders.filter(|f| f.file_name().to_str().is_some_and(of_it)).map(|f| f.path()).collect();
        folders.sort();
        Self(folders.iter().flat_map(|run| of_run(run)).collect())
    }

    /// What a cell will take if it takes what its like took: cells of its task and model, those of the nearest number of parameters;
    /// time goes with parameters.
    #[must_use]
    pub fn predict(&self, cell: &PlannedCell) -> Prediction {
        let (task, model) = (&cell.config.task_name, &cell.config.model_name);
        let distance = |of: &Measured| (of.parameters.max(1) as f64 / cell.parameters.max(1) as f64).ln().abs();
        let like: Vec<&Measured> = self.0.iter().filter(|of| of.task == *task && of.model == *model).collect();
        let Some(nearest) = like.iter().map(|of| distance(of)).min_by(f64::total_cmp) else {
            return Prediction::default();
        };
        let nearest: Vec<&&Measured> = like.iter().filter(|of| distance(of) <= nearest).collect();
        let ratio = |of: &Measured| cell.parameters.max(1) as f64 / of.parameters.max(1) as f64;
        let seconds = nearest.iter().map(|of| of.seconds_per_seen * ratio(of) * cell.seen as f64).collect();
        let exact = nearest.iter().filter(|of| of.parameters == cell.parameters);
        Prediction { seconds: median(seconds), peak_bytes: exact.filter_map(|of| of.peak_bytes).max() }
    }
}

fn of_run(run: &Path) -> Vec<Measured> {
    let Ok(plan) = Plan::read(&run.join("plan.json")) else { return Vec::new() };
    let measured = |cell: &PlannedCell| {
        let status = CellDir::of(run, &cell.id).status().ok()?.whole()?;
        (status.outcome == Outcome::Completed && status.seen > 0).then(|| Measured {
            task: cell.config.task_name.clone(),
            model: cell.config.model_name.clone(),
            parameters: cell.parameters,
            seconds_per_seen: status.train_s / status.seen as f64,
            peak_bytes: status.peak_bytes,
        })
    };
    plan.cells.iter().filter_map(measured).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
