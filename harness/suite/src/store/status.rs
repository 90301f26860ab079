//! What became of a cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tasks::Metric;

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Trained to the end of its budget and evaluated.
    Completed,
    /// A loss, gradient or state left the range of numbers.
    Diverged,
    /// It used up its time; it continues when run again.
    TimedOut,
    /// There was not enough memory.
    OutOfMemory,
    /// An error.
    Failed,
    /// Planned, not run.
    Skipped,
    /// Stopped by a signal; it continues when run again.
    Interrupted,
}

impl Outcome {
    /// Name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Diverged => "diverged",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether running the cell again would give the same.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Diverged)
    }
}

/// Who is to blame for a cell that has no result, and so what may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its own settings, or a mistake of this program: it will fail again.
    Own,
    /// Its data are missing or corrupt.
    Data,
    /// Memory, disk or time did not suffice.
    Resources,
    /// Somebody or something else ended it.
    Outside,
}

impl Cause {
    /// Name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Data => "data",
            Self::Resources => "resources",
            Self::Outside => "outside",
        }
    }
}

/// Where the numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of the program.
    pub version: String,
    /// Commit it was built from, if known.
    pub git_commit: Option<String>,
    /// Whether the tree had changes when it was built.
    pub git_dirty: Option<bool>,
    /// SHA-256 of those changes, which lie in the run directory as `diffs/<sha256>.diff`.
    #[serde(default)]
    pub git_diff_sha256: Option<String>,
    /// Compiler and profile; this and what follows up to the lock is unknown in files of versions before it was recorded.
    #[serde(default)]
    pub compiler: Option<String>,
    /// Optional parts of the program.
    #[serde(default)]
    pub features: Option<String>,
    /// The command that asked for the cell.
    #[serde(default)]
    pub command: Option<String>,
    /// Variables of the environment that may matter, and were set.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// sha256 of Cargo.lock.
    pub lock_sha256: String,
    /// Device.
    pub device: String,
    /// Vector instructions of the matrix products, such as `avx512`; unknown in files of versions before it was recorded.
    #[serde(default)]
    pub instruction_set: Option<String>,
    /// Model of the processor.
    #[serde(default)]
    pub processor: Option<String>,
    /// Threads.
    pub threads: u64,
    /// Digest of the data used.
    pub data: String,
    /// Start of the first run, seconds since 1970.
    pub started_unix_s: u64,
}

/// `status.json`: what became of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Id of the cell.
    pub cell: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless completed.
    pub reason: Option<String>,
    /// Who is to blame, if it failed.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// What happened to it that did not stop it, such as damage that was mended.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Metrics of the final evaluation, and facts.
    pub metrics: Vec<Metric>,
    /// Split of the metrics.
    pub split: String,
    /// Parameters; `None` if it was never built.
    pub parameters: Option<u64>,
    /// State and traces.
    pub state_bytes: Option<u64>,
    /// Tokens or frames trained on.
    pub seen: u64,
    /// Updates the optimiser made.
    pub updates: u64,
    /// Training time.
    pub train_s: f64,
    /// Of this, time spent waiting for data; older runs did not record it.
    #[serde(default)]
    pub data_wait_s: Option<f64>,
    /// Highest live bytes within any step, without what the process held when the cell began.
    pub peak_bytes: Option<u64>,
    /// Blocks of memory asked for within steps; older runs did not record it.
    #[serde(default)]
    pub allocations: Option<u64>,
    /// Time of one product of 512 × 512 matrices with the cell's threads, right after its training.
    #[serde(default)]
    pub calibration_s: Option<f64>,
    /// Provenance.
    pub provenance: Provenance,
    /// SHA-256 of its finished files, by name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}
