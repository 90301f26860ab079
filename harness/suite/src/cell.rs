//! A cell: one task, one model, one seed, everything resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::measure::energy::CostModel;
use crate::models::ModelConfig;
use crate::report_config::ReportFacts;
use crate::tasks::TaskConfig;
use crate::train::TrainConfig;
use grid::{canonical_json, short_id};

/// What a cell is, as stored in `plan.json` and `config.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellConfig {
    /// Experiment.
    pub experiment: String,
    /// Scale.
    pub scale: String,
    /// Name of the task in the grid.
    pub task_name: String,
    /// The task.
    pub task: TaskConfig,
    /// Name of the model in the grid.
    pub model_name: String,
    /// The model.
    pub model: ModelConfig,
    /// Training.
    pub train: TrainConfig,
    /// Prices of operations.
    #[serde(default)]
    pub energy: CostModel,
    /// What the report says beside its numbers.
    #[serde(default, skip_serializing_if = "ReportFacts::is_empty")]
    pub report: ReportFacts,
    /// Seed of weights, order and everything else that is drawn.
    pub seed: u64,
}

impl CellConfig {
    /// Content hash of everything that determines the result: configuration, data and code version. Names are left out:
    /// they change nothing.
    #[must_use]
    pub fn id(&self, data_fingerprint: &str) -> String {
        let json = serde_json::json!({
            "task": self.task,
            "model": self.model,
            "train": self.train,
            "seed": self.seed,
            "energy": self.energy.key(),
            "data": data_fingerprint,
            "code": [self.model.info().code_version, crate::run::CODE_VERSION],
        });
        short_id(&canonical_json(&json))
    }

    /// `model.lambda → 0.95` and so on, for the configuration columns of the results.
    #[must_use]
    pub fn flat(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::from([("energy".to_owned(), self.energy.name.clone())]);
        for (name, value) in [
            ("task", serde_json::to_value(&self.task)),
            ("model", serde_json::to_value(&self.model)),
            ("train", serde_json::to_value(&self.train)),
            ("report", serde_json::to_value(&self.report)),
        ] {
            flatten(name.to_owned(), &value.unwrap_or(Value::Null), &mut out);
        }
        // what the model makes of a segment that is not given
        out.entry("train.segment".to_owned()).or_insert_with(|| self.model.default_segment().to_string());
        out
    }
}

fn flatten(path: String, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| flatten(format!("{path}.{k}"), v, out)),
        Value::Null => {}
        Value::String(s) => {
            out.insert(path, s.clone());
        }
        // 4.0 and 4 are the same setting
        Value::Number(n) if n.as_f64().is_some_and(|x| x.fract() == 0.0 && x.abs() < 1e15) => {
            out.insert(path, format!("{}", n.as_f64().unwrap_or_default() as i64));
        }
        other => {
            out.insert(path, other.to_string());
        }
    }
}
