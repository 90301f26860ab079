//! Tasks turn a dataset into segments for the loop and outputs into metrics.
//!
//! A [`Source`] gives segments by index, so that the position in training is one number and resuming needs no replay.

pub mod cardio;
pub mod language;
pub mod recall;
pub mod seizure;
pub mod speech;

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use learner::{Io, Targets};
use serde::{Deserialize, Serialize};

use crate::export::Meaning;
use crate::protocol::{Overlap, Selection};
use crate::registry::registry;
use crate::train::TrainConfig;
use data::account::{Account, Kind};
use data::error::{At, DataError, DataResult};
use data::identity::sums::Sums;
use data::identity::{Found, Identity};
use grid::{ConfigResult, Node, Sources};
use metrics::catalogue::{self, TaskInfo};
use rows::PredictionRow;

registry! {
    /// A task with its settings.
    pub enum TaskConfig, "task", TaskInfo;
    /// WikiText-103.
    Language(language::LanguageConfig) = catalogue::LANGUAGE;
    /// PTB-XL.
    Cardio(cardio::CardioConfig) = catalogue::CARDIO;
    /// CHB-MIT.
    Seizure(seizure::SeizureConfig) = catalogue::SEIZURE;
    /// `LibriSpeech`.
    Speech(Box<speech::SpeechConfig>) = catalogue::SPEECH;
    /// A generated test of long-range credit.
    Recall(recall::RecallConfig) = catalogue::RECALL;
}

/// Settings that do not fit together: no key can tell alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The key to show.
    pub key: &'static str,
    /// What would fit.
    pub expected: String,
    /// What there is.
    pub got: String,
}

/// How a training stream changes on its way, as the settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// It does not.
    Same,
    /// It is one pass over so many phases.
    OnePass {
        /// Phases of the pass.
        phases: u64,
    },
    /// It changes after so many tokens or frames.
    Drifts {
        /// Phases: one more than changes.
        phases: u64,
        /// Tokens or frames before the last change.
        last: u64,
    },
}

/// What a task's settings say about themselves, before any data is touched, and how they become the task.
pub trait Settings {
    /// Checks what no key can tell alone.
    ///
    /// # Errors
    /// The first settings that do not fit together.
    fn check(&self) -> Result<(), Misfit> {
        Ok(())
    }
    /// What its results are used to choose.
    fn selection(&self) -> Selection {
        Selection::Valid
    }
    /// The first two parts that share data.
    fn overlap(&self) -> Option<Overlap> {
        None
    }
    /// How parts that overlap can be told apart, for a person.
    fn way_apart(&self) -> &'static str {
        "give each of them to one part"
    }
    /// How the training stream changes on its way.
    fn stream(&self) -> Stream {
        Stream::Same
    }
    /// Folder of generated data under the data directory's `generated`; `None` for published data.
    fn generated(&self) -> Option<String>;
    /// Folder of the dataset, under the data directory or that of generated data.
    fn root(&self) -> &str;
    /// Generates the data in `root` if they are to be generated and absent. A task may keep what it computes in `cache`.
    ///
    /// # Errors
    /// If data are missing or corrupt.
    fn open(&self, root: &Path, cache: &Path) -> DataResult<Arc<dyn Task>>;
}

impl TaskConfig {
    /// The settings, whatever the kind.
    #[must_use]
    pub fn settings(&self) -> &dyn Settings {
        match self {
            Self::Language(c) => c,
            Self::Cardio(c) => c,
            Self::Seizure(c) => c,
            Self::Speech(c) => c.as_ref(),
            Self::Recall(c) => c,
        }
    }

    /// Refuses a folder that leads out of the data directory: only published data may lie elsewhere, under an absolute path.
    fn check_root(&self) -> Result<(), String> {
        let settings = self.settings();
        let root = Path::new(settings.root());
        let inside = root.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if inside || (root.is_absolute() && settings.generated().is_none()) {
            return Ok(());
        }
        let expected = if settings.generated().is_some() {
            "generated data stay under the data directory: expected a relative path without `..`"
        } else {
            "expected an absolute path, or one under the data directory, without `..`"
        };
        Err(format!("{expected}, got {}", data::account::inert(settings.root())))
    }

    /// Whether its data lie in files; false where they are made as they are used.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.settings().root().is_empty()
    }

    /// Folder of the dataset; where generated data live if it is generated: in the data directory, or in the cache folder where that
    /// cannot be written.
    #[must_use]
    pub fn root(&self, data: &Path) -> PathBuf {
        let settings = self.settings();
        let Some(folder) = settings.generated() else { return data.join(settings.root()) };
        let place = Path::new("generated").join(folder).join(settings.root());
        let own = data.join(&place);
        if own.exists() || is_writable(&own) { own } else { data::cache::folder().join(place) }
    }

    /// Opens the dataset, generating it first if it is to be generated and absent.
    ///
    /// # Errors
    /// If data are missing or corrupt.
    pub fn open(&self, data: &Path) -> DataResult<Arc<dyn Task>> {
        // a plan need not come from a grid
        self.check_root()
            .map_err(|problem| DataError::corrupt(Path::new("root"), At::File, "a folder of data", problem))?;
        self.settings().open(&self.root(data), &data::cache::folder())
    }
}

/// Whether something could be made at a path, by the nearest folder above it that there is.
fn is_writable(path: &Path) -> bool {
    let above = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
    above.is_dir() && rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Refuses settings that do not fit together; `written` is the task as the grid has it.
///
/// # Errors
/// At the line of the key, or of the task if it is a default.
pub fn check(task: &TaskConfig, written: &Node, sources: &Sources) -> ConfigResult<()> {
    if let Err(problem) = task.check_root() {
        let origin = written.get("root").map_or(written.origin, |node| node.origin);
        return Err(sources.error(origin, format!("`root`: {problem}")));
    }
    task.settings().check().map_err(|Misfit { key, expected, got }| {
        let origin = written.get(key).map_or(written.origin, |node| node.origin);
        sources.error(origin, format!("`{key}`: {got}")).note(format!("expected {expected}"))
    })
}

/// Refuses settings of training that do not fit how the task's stream changes; `written` are both as the grid has them.
///
/// # Errors
/// At the line of the key, or of the other one if it is left out.
pub fn check_stream(
    task: &TaskConfig,
    train: &TrainConfig,
    [written, trained]: [&Node; 2],
    sources: &Sources,
) -> ConfigResult<()> {
    let place = |key: &str| trained.get(key).map_or(written.origin, |node| node.origin);
    let refuse = |key: &str, got: String, expected: String| {
        Err(sources.error(place(key), format!("`{key}`: {got}")).note(format!("expected {expected}")))
    };
    let stream = task.settings().stream();
    let phases = match stream {
        Stream::Same => 1,
        Stream::OnePass { phases } | Stream::Drifts { phases, .. } => phases,
    };
    match (stream, train.seen, train.epochs) {
        (Stream::OnePass { .. }, Some(seen), _) => {
            let expected = "it left out: texts in turn are one stream, which is read once and whole";
            return refuse("seen", seen.to_string(), expected.into());
        }
        (Stream::OnePass { .. }, None, Some(epochs)) if epochs.0.total_cmp(&1.0).is_ne() => {
            let expected = "1: texts in turn are one stream, which is read once and whole";
            return refuse("epochs", epochs.0.to_string(), expected.into());
        }
        (Stream::Drifts { last, .. }, seen, _) if seen.is_none_or(|seen| seen.get() <= last) => {
            let got = seen.map_or_else(|| "not given".to_owned(), |seen| seen.to_string());
            return refuse("seen", got, format!("more than the {last} frames after which the signal drifts last"));
        }
        _ => {}
    }
    let Some(frozen) = train.frozen_after else { return Ok(()) };
    if phases < 2 {
        let expected = "it left out: the stream of this task has no phases, such as `domains` of a language";
        return refuse("frozen_after", frozen.to_string(), expected.into());
    }
    if frozen.get() >= phases {
        let expected = format!("a number of phases from 1 to {}: the stream has {phases}", phases - 1);
        return refuse("frozen_after", frozen.to_string(), expected);
    }
    if train.dynamic_evaluation {
        let expected = "it left out with `frozen_after`: weights that stay as they are learn from nothing";
        return refuse("dynamic_evaluation", "true".into(), expected.into());
    }
    Ok(())
}

/// The identity of data that the configuration has generated.
fn made() -> Found {
    Found::new(Identity::Generated, "the configuration generates them")
}

/// The fact that data were repaired, if any were. What is missing or skipped each task tells by names of its own.
fn repaired(account: &Account) -> Option<Metric> {
    let count = account.count(Kind::Repaired);
    (count > 0).then(|| Metric::plain("data_repaired", Some(count as f64), account.items()))
}

/// Which part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Training data.
    Train,
    /// Validation data.
    Valid,
    /// Test data.
    Test,
}

impl Part {
    /// Name in result files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

/// `B` streams for at most `K` steps.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Streams that begin something new with this segment.
    pub starts: Vec<bool>,
    /// Tokens `[B, K]` or frames `[B, K, F]`.
    pub input: Tensor,
    /// Targets with the weight of each step.
    pub targets: Targets,
    /// Steps that count: tokens or frames that are not padding.
    pub seen: u64,
    /// Which item each stream is in, where items are whole recordings; `None` for an idle stream.
    pub items: Vec<Option<usize>>,
    /// Steps before this segment in its recording or lane.
    pub offset: usize,
}

/// Segments by index.
pub trait Source: Send + Sync {
    /// Number of segments after which the data repeats (an epoch), or ends (an evaluation).
    fn segments(&self) -> u64;
    /// Segments of an epoch with at least one supervised step: those that make an update.
    fn supervised(&self) -> u64 {
        self.segments()
    }
    /// Updates of an epoch where each segment is worked off in chunks of at most `length` steps; about, if epochs differ.
    fn chunks(&self, length: usize) -> u64 {
        let _ = length;
        self.supervised()
    }
    /// Steps that count in an epoch.
    fn seen_per_epoch(&self) -> u64;
    /// Segment number `index`; indices run on over epochs.
    ///
    /// # Errors
    /// If its data cannot be read.
    fn segment(&self, index: u64) -> DataResult<Segment>;
    /// Whether making a segment is worth another thread's time: signals are read, decoded or scaled.
    fn is_work(&self) -> bool {
        false
    }
    /// Segments before the end of each phase but the last, rising; none where the stream does not change.
    fn changes(&self) -> Vec<u64> {
        Vec::new()
    }
}

/// The epoch whose order was asked for last: segments of an epoch follow each other.
struct Epoch<T>(Mutex<Option<(u64, Arc<T>)>>);

impl<T> Default for Epoch<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Epoch<T> {
    /// The order of epoch `number`, drawn unless it is the last one's.
    fn get(&self, number: u64, draw: impl FnOnce() -> T) -> Arc<T> {
        // a thread that panicked while it held the lock left it whole
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, order)) if *known == number => Arc::clone(order),
            _ => {
                let order = Arc::new(draw());
                *last = Some((number, Arc::clone(&order)));
                order
            }
        }
    }
}

pub use metrics::Metric;

/// What an evaluation found.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Metrics in display order.
    pub metrics: Vec<Metric>,
    /// One row per item.
    pub predictions: Vec<PredictionRow>,
}

/// Collects outputs of an evaluation.
pub trait Scorer {
    /// Takes the outputs `[B, K, O]` for a segment.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()>;
    /// Takes what the same weights scored on [`Task::calibration_part`], before the end.
    fn calibrate(&mut self, _on: &Scores) {}
    /// The metrics.
    fn finish(self: Box<Self>) -> Scores;
}

/// How a task hands recordings to a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// As streams that go on from segment to segment for as long as they last.
    Streams,
    /// So that each fits in one segment, with an answer asked of every step.
    Whole,
    /// So that each fits in one segment, with one answer asked of all of it.
    OneAnswer,
}

/// A part of a stream that comes in phases, and has held-out parts of its own.
pub struct Domain<'a> {
    /// Its name.
    pub name: &'a str,
    /// The task that it is by itself.
    pub task: &'a dyn Task,
}

/// A dataset with its question.
pub trait Task: Send + Sync {
    /// Shapes a learner must have for this task.
    fn io(&self, streams: usize, segment: usize) -> Io;
    /// How recordings come.
    fn segmentation(&self) -> Segmentation {
        Segmentation::Streams
    }
    /// Steps of the longest segment where the loss needs whole segments, whatever a learner's own length; learners of
    /// shorter ones then take two passes.
    fn longest(&self) -> Option<usize> {
        None
    }
    /// How many streams the training part fills, and what fills them, in words; `None` where it fills any number.
    fn most_streams(&self) -> Option<(usize, String)> {
        None
    }

    /// Endless training segments, in an order that depends on `seed` alone.
    ///
    /// # Errors
    /// If there is less data than one segment of all streams.
    fn training(&self, streams: usize, segment: usize, seed: u64) -> DataResult<Box<dyn Source + '_>>;
    /// Every item of a part exactly once; at most about `limit` steps of it if given.
    ///
    /// # Errors
    /// If the part is empty.
    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>>;
    /// A scorer for [`Task::evaluation`] of the same part and limit.
    ///
    /// # Errors
    /// If the part is empty.
    fn scorer(&self, part: Part, streams: usize, limit: Option<u64>) -> DataResult<Box<dyn Scorer + '_>>;
    /// What the phases of the stream are of: each is scored by itself before training and after every phase.
    fn domains(&self) -> Vec<Domain<'_>> {
        Vec::new()
    }
    /// For each phase of the stream the one whose end it is held against: the last one of the same domain, or the one before a drift.
    fn held_against(&self) -> Vec<Option<usize>> {
        Vec::new()
    }
    /// Domains in the order in which they come for the first time.
    fn first_visits(&self) -> Vec<usize> {
        Vec::new()
    }
    /// Part whose metric is plotted during training.
    fn curve_part(&self) -> Part;
    /// Part that the final evaluation is calibrated on, such as the threshold of an alarm: evaluated first and given to
    /// [`Scorer::calibrate`].
    fn calibration_part(&self) -> Option<Part> {
        None
    }
    /// Digest of the data that is used: part of every cell's id.
    fn fingerprint(&self) -> &str;
    /// Whether the data that are used are the published dataset, by what their files hold. `sums` remembers the checksums of files.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    fn identity(&self, sums: &mut Sums) -> DataResult<Found>;
    /// What the readers did not take as they found it: missing, skipped, repaired, not of the dataset.
    fn account(&self) -> &Account {
        static NOTHING: Account = Account::new();
        &NOTHING
    }
    /// Facts about the data worth a row in the results (name, value), such as an entropy floor.
    fn facts(&self) -> Vec<Metric>;
    /// What inputs and outputs mean beyond what the settings say: a vocabulary, values of normalisation, as they were computed from the
    /// training part. Exported weights carry it.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    fn meaning(&self) -> DataResult<Meaning>;
    /// Names of the outputs, where they have names: the order of scores in `predictions.parquet`.
    fn outputs(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a data directory that is a file nothing can be made, by nobody: permissions do not bind root.
    #[test]
    fn generated_data_go_to_the_cache_where_the_data_directory_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskConfig::Cardio(cardio::CardioConfig {
            generate: std::num::NonZeroUsize::new(60),
            ..cardio::CardioConfig::default()
        });
        let data = dir.path().join("data");
        assert!(task.root(&data).starts_with(&data), "it can be made");
        std::fs::create_dir(&data).unwrap();
        assert!(task.root(&data).starts_with(&data));
        std::fs::remove_dir(&data).unwrap();
        std::fs::write(&data, "").unwrap();
        assert!(task.root(&data).starts_with(data::cache::folder()));
        let published = TaskConfig::Cardio(cardio::CardioConfig::default());
        assert!(published.root(&data).starts_with(&data), "published data are where they are said to be");
    }
}
