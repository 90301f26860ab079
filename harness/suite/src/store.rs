//! The run directory: every file is written beside its name and renamed when whole, so that a kill at any moment leaves
//! either the old file or the new one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use learner::Snapshot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::measure::operations::Totals;
use crate::tasks::Metric;
use data::error::DataError;
use data::files::{self, Held};

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
    /// The system killed it for memory.
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

/// Where the numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the program.
    pub version: String,
    /// Commit it was built from, if known.
    pub git_commit: Option<String>,
    /// Whether the tree had changes when it was built.
    pub git_dirty: Option<bool>,
    /// sha256 of Cargo.lock.
    pub lock_sha256: String,
    /// Device.
    pub device: String,
    /// Vector instructions of the matrix products, such as `avx512`; unknown in files of versions before it was recorded.
    #[serde(default)]
    pub instruction_set: Option<String>,
    /// Threads.
    pub threads: u64,
    /// Digest of the data used.
    pub data: String,
    /// Start of the first run, seconds since 1970.
    pub started_unix_s: u64,
}

/// `status.json`: what became of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless completed.
    pub reason: Option<String>,
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
    /// Provenance.
    pub provenance: Provenance,
}

/// Writes a whole file of a run.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write_whole(path, bytes).map_err(|e| match e {
        // what cannot be written is no fault of the data
        DataError::Io { path, source } => Error::Io { path, source },
        other => other.into(),
    })
}

/// Reads JSON; `None` if there is no such file.
///
/// # Errors
/// If it is there and cannot be understood.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path)(e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::Usage(format!(
            "{}:{}:{}: {e}\n  next: delete the file to run its cell again",
            path.display(),
            e.line(),
            e.column()
        ))
    })
}

/// Serialises to indented JSON with a final newline.
///
/// # Errors
/// If a value cannot be represented.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Report(e.to_string()))?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

/// Where training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Segments done.
    pub segment: u64,
    /// Rows of steps made, one for each segment.
    pub step: u64,
    /// Updates the optimiser made.
    #[serde(default)]
    pub updates: u64,
    /// Tokens or frames seen.
    pub seen: u64,
    /// Training time.
    pub elapsed_s: f64,
    /// Of this, time spent waiting for data.
    #[serde(default)]
    pub data_wait_s: f64,
    /// Highest live bytes within any step.
    pub peak_bytes: u64,
    /// Sum of the steps' spike sparsity, and their number.
    pub sparsity: (f64, u64),
    /// Share of prunable connections that are pruned, where there is pruning.
    #[serde(default)]
    pub pruned_share: Option<f64>,
    /// Operation counts so far.
    #[serde(default)]
    pub operations: Totals,
    /// Complete parts of the Parquet files.
    pub parts: u64,
}

/// Removes a checkpoint so that no half of it can be taken for a whole: first what makes it whole.
fn remove_checkpoint(dir: &Path) -> Result<()> {
    let position = dir.join("position.json");
    if position.exists() {
        fs::remove_file(&position).map_err(Error::io(&position))?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    }
    Ok(())
}

/// One cell's folder.
#[derive(Clone, Debug)]
pub struct CellDir {
    /// `RUN/cells/ID`.
    pub path: PathBuf,
}

impl CellDir {
    /// Opens (and makes) the folder of a cell.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(run: &Path, id: &str) -> Result<Self> {
        let path = run.join("cells").join(id);
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
        Ok(Self { path })
    }

    /// What became of the cell, if it was ever run.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn status(&self) -> Result<Option<Status>> {
        read_json(&self.path.join("status.json"))
    }

    /// Removes what was recorded; the cell is about to run.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn forget_status(&self) -> Result<()> {
        let path = self.path.join("status.json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
            _ => Ok(()),
        }
    }

    /// Records what became of it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write_status(&self, status: &Status) -> Result<()> {
        write_json(&self.path.join("status.json"), status)
    }

    fn checkpoint(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("checkpoint{suffix}"))
    }

    /// Saves weights, state and position. `position.json` is written last and makes the folder whole; the old checkpoint
    /// stays until the new one is in place.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, snapshot: &Snapshot, position: &Position) -> Result<()> {
        let (new, current, old) = (self.checkpoint(".new"), self.checkpoint(""), self.checkpoint(".old"));
        self.settle()?;
        for stale in [&new, &old] {
            remove_checkpoint(stale)?;
        }
        fs::create_dir_all(&new).map_err(Error::io(&new))?;
        snapshot.write(&new)?;
        write_json(&new.join("position.json"), position)?;
        if current.exists() {
            fs::rename(&current, &old).map_err(Error::io(&old))?;
        }
        fs::rename(&new, &current).map_err(Error::io(&current))?;
        remove_checkpoint(&old)
    }

    /// The last whole checkpoint.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub fn load(&self) -> Result<Option<(Snapshot, Position)>> {
        self.settle()?;
        let dir = self.checkpoint("");
        match read_json::<Position>(&dir.join("position.json"))? {
            Some(position) => Ok(Some((Snapshot::read(&dir)?, position))),
            None => Ok(None),
        }
    }

    /// After a kill between the two renames of [`CellDir::save`] there is no current checkpoint, but a whole new one.
    fn settle(&self) -> Result<()> {
        let current = self.checkpoint("");
        for suffix in [".new", ".old"] {
            let other = self.checkpoint(suffix);
            if !current.exists() && other.join("position.json").exists() {
                fs::rename(&other, &current).map_err(Error::io(&current))?;
            }
        }
        Ok(())
    }

    /// Takes the cell for this process; `None` if another one works on it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lock(&self) -> Result<Option<Held>> {
        let path = self.path.join(".lock");
        Held::take(&path).map_err(Error::io(&path))
    }

    /// Forgets checkpoints and parts: the cell starts again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn clear(&self) -> Result<()> {
        for name in ["checkpoint", "checkpoint.new", "checkpoint.old", "parts"] {
            let dir = self.path.join(name);
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(Error::io(&dir))?;
            }
        }
        Ok(())
    }

    /// Appends a line to the cell's log.
    pub fn log(&self, line: &str) {
        let path = self.path.join("log.txt");
        // a log that cannot be written must not end the training it describes
        if let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn snapshot(x: f32) -> Snapshot {
        let mut s = Snapshot::default();
        s.weights.insert("w".into(), Tensor::new(&[x], &Device::Cpu).expect("one number"));
        s.counters.insert("updates".into(), u64::MAX - 3);
        s
    }

    #[test]
    fn a_checkpoint_survives_a_kill_between_its_renames() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let cell = CellDir::open(dir.path(), "abc")?;
        assert!(cell.load()?.is_none());
        cell.save(&snapshot(1.0), &Position { step: 1, ..Position::default() })?;
        cell.save(&snapshot(2.0), &Position { step: 2, ..Position::default() })?;
        let (s, p) = cell.load()?.expect("saved");
        assert_eq!(
            (s.weights["w"].to_vec1::<f32>().expect("one number"), p.step, s.counters["updates"]),
            (vec![2.0], 2, u64::MAX - 3)
        );
        // as if killed after `checkpoint` became `checkpoint.old` and before `checkpoint.new` took its place
        fs::rename(cell.checkpoint(""), cell.checkpoint(".new")).expect("rename");
        assert_eq!(cell.load()?.expect("the new one").1.step, 2);
        // twice in a row, and saving straight after it: one whole checkpoint is there at any moment
        fs::rename(cell.checkpoint(""), cell.checkpoint(".new")).expect("rename");
        cell.save(&snapshot(2.5), &Position { step: 2, ..Position::default() })?;
        // as if killed while the new one was being written: no position yet, the old one counts
        fs::create_dir_all(cell.checkpoint(".new")).expect("mkdir");
        assert_eq!(cell.load()?.expect("the current one").1.step, 2);
        cell.save(&snapshot(3.0), &Position { step: 3, ..Position::default() })?;
        assert_eq!(cell.load()?.expect("saved over the debris").1.step, 3);
        Ok(())
    }
}
