//! How long cells will take and how much memory, by what cells like them took.

use std::collections::BTreeMap;
use std::path::Path;

use crate::plan::{Plan, PlannedCell};
use crate::store::seal::Stored;
use crate::store::{CellDir, Outcome, Status};

/// What finished cells of one task, model and number of parameters took.
#[derive(Clone, Debug, Default)]
struct Measured {
    /// Seconds of training for each token or frame, one value for each cell.
    seconds_per_seen: Vec<f64>,
    /// The highest of them.
    peak_bytes: Option<u64>,
}

/// What the finished cells of an experiment took, by task and model, and by parameters.
#[derive(Clone, Debug, Default)]
pub struct Rates(BTreeMap<(String, String), BTreeMap<u64, Measured>>);

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
        let folders = folders.filter(|folder| folder.file_name().to_str().is_some_and(of_it));
        let mut rates = Self::default();
        for run in folders.map(|folder| folder.path()) {
            let Ok(plan) = Plan::read(&run.join("plan.json")) else { continue };
            for cell in &plan.cells {
                if let Some(status) = CellDir::of(&run, &cell.id).status().ok().and_then(Stored::whole) {
                    rates.add(cell, &status);
                }
            }
        }
        for measured in rates.0.values_mut().flat_map(BTreeMap::values_mut) {
            measured.seconds_per_seen.sort_by(f64::total_cmp);
        }
        rates
    }

    fn add(&mut self, cell: &PlannedCell, status: &Status) {
        if status.outcome != Outcome::Completed || status.seen == 0 {
            return;
        }
        let of_model = self.0.entry((cell.config.task_name.clone(), cell.config.model_name.clone())).or_default();
        let measured = of_model.entry(cell.parameters).or_default();
        measured.seconds_per_seen.push(status.train_s / status.seen as f64);
        measured.peak_bytes = measured.peak_bytes.max(status.peak_bytes);
    }

    /// What a cell will take if it takes what its like took: cells of its task and model, those of the nearest number of parameters.
    /// Time goes with parameters and with what is seen; memory is known of equal parameters alone.
    #[must_use]
    pub fn predict(&self, cell: &PlannedCell) -> Prediction {
        let key = (cell.config.task_name.clone(), cell.config.model_name.clone());
        let ratio = |parameters: u64| cell.parameters.max(1) as f64 / parameters.max(1) as f64;
        let distance = |parameters: u64| ratio(parameters).ln().abs();
        let of_model = self.0.get(&key).into_iter().flatten();
        let nearest = of_model.min_by(|(a, _), (b, _)| distance(**a).total_cmp(&distance(**b)));
        let Some((&parameters, measured)) = nearest else { return Prediction::default() };
        let middle = measured.seconds_per_seen.get(measured.seconds_per_seen.len() / 2);
        Prediction {
            seconds: middle.map(|seconds| seconds * ratio(parameters) * cell.seen as f64),
            peak_bytes: measured.peak_bytes.filter(|_| parameters == cell.parameters),
        }
    }
}
