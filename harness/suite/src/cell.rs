//! A cell: one task, one model, one seed, everything resolved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::measure::energy::CostModel;
use crate::models::ModelConfig;
use crate::report_config::ReportFacts;
use crate::tasks::Task;
use crate::tasks::cardio::{Cardio, CardioConfig};
use crate::tasks::language::{Language, LanguageConfig};
use crate::tasks::recall::{Recall, RecallConfig};
use crate::tasks::seizure::{Seizure, SeizureConfig};
use crate::tasks::speech::{Speech, SpeechConfig};
use crate::train::TrainConfig;
use data::datasets::chbmit::generate::{self as eeg, EegSpec};
use data::datasets::librispeech::generate::{self as speech, SpeechSpec};
use data::datasets::ptbxl::generate::{self as ecg, EcgSpec};
use data::datasets::wikitext::generate as text;
use grid::{canonical_json, short_id};

/// Tasks that a grid file may name.
pub const TASKS: [&str; 5] = ["language", "cardio", "seizure", "speech", "recall"];

/// A task with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TaskConfig {
    /// WikiText-103.
    Language(LanguageConfig),
    /// PTB-XL.
    Cardio(CardioConfig),
    /// CHB-MIT.
    Seizure(SeizureConfig),
    /// `LibriSpeech`.
    Speech(Box<SpeechConfig>),
    /// A generated test of long-range credit.
    Recall(RecallConfig),
}

impl TaskConfig {
    /// Folder of the dataset; where generated data live if it is generated.
    #[must_use]
    pub fn root(&self, data: &Path) -> PathBuf {
        let generated = |what: String, root: &str| data.join("generated").join(what).join(root);
        match self {
            Self::Language(c) => match c.spec() {
                Some(s) => {
                    let what = format!(
                        "text-v{}-{}-{}-{}",
                        text::GENERATOR_VERSION,
                        s.train_bytes,
                        s.valid_bytes,
                        s.test_bytes
                    );
                    generated(what, &c.root)
                }
                None => data.join(&c.root),
            },
            Self::Cardio(c) => match c.generate {
                Some(n) => generated(format!("ecg-v{}-{n}-{}", ecg::GENERATOR_VERSION, c.rate.0), &c.root),
                None => data.join(&c.root),
            },
            Self::Seizure(c) => match c.generate {
                Some(g) => {
                    let size = format!("{}-{}-{}", g.patients.0, g.recordings.0, g.seconds.0);
                    generated(format!("eeg-v{}-{size}", eeg::GENERATOR_VERSION), &c.root)
                }
                None => data.join(&c.root),
            },
            Self::Speech(c) => match c.generate {
                Some(n) => generated(format!("speech-v{}-{n}", speech::GENERATOR_VERSION), &c.root),
                None => data.join(&c.root),
            },
            Self::Recall(_) => data.join("generated"), // nothing is stored
        }
    }

    /// Opens the dataset, generating it first if it is to be generated and absent.
    ///
    /// # Errors
    /// If data are missing or corrupt.
    pub fn open(&self, data: &Path) -> Result<Arc<dyn Task>> {
        let root = self.root(data);
        Ok(match self {
            Self::Language(c) => {
                if let Some(spec) = c.spec() {
                    text::generate(&root, &spec)?;
                }
                Arc::new(Language::open(c, &root)?)
            }
            Self::Cardio(c) => {
                c.check().map_err(|e| Error::Usage(format!("task `cardio`: {e}")))?;
                if let Some(records) = c.generate {
                    ecg::generate(&root, &EcgSpec { records, seed: 1, with_500_hz: c.rate.0 == 500 })?;
                }
                Arc::new(Cardio::open(c, &root)?)
            }
            Self::Seizure(c) => {
                c.check().map_err(|(expected, got)| {
                    Error::Usage(format!("task `seizure`: {got}\n  expected: {expected}"))
                })?;
                if let Some(g) = c.generate {
                    let (patients, recordings, seconds) = (g.patients.0, g.recordings.0, g.seconds.0);
                    eeg::generate(&root, &EegSpec { patients, recordings, seconds, seed: 1 })?;
                }
                Arc::new(Seizure::open(c, &root)?)
            }
            Self::Speech(c) => {
                if let Some(utterances) = c.generate {
                    speech::generate(&root, &SpeechSpec { utterances, seed: 1 })?;
                }
                Arc::new(Speech::open(c, &root, &data.join("cache").join("logmel"))?)
            }
            Self::Recall(c) => Arc::new(Recall::new(c)?),
        })
    }
}

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
            "code": [self.model.code_version(), crate::run::CODE_VERSION],
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
