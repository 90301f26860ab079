//! Works off a plan: skips what is finished, continues what was interrupted, records what fails, and goes on.
//!
//! ```text
//! pool (this process) ── orders on standard input ──► worker (a process) ──► attempt (lock, checkpoint, loop, status)
//!                     ◄─ messages on standard output ─
//! ```
//!
//! Cells run in processes of their own, whatever `--jobs` says: what kills one leaves the others alone. Any number of invocations,
//! on any number of machines, may share a run directory: a cell belongs to whoever holds its lock, which the system gives back
//! when its process ends. Who finds a cell held looks at it again later.

mod attempt;
mod child;
mod memory;
mod origin;
mod pool;
pub mod table;
pub mod worker;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use self::attempt::{Attempt, attempt};
pub use self::child::own_program;
pub use self::pool::{Pool, Worked, work};
use crate::device::Devices;
use crate::plan::PlannedCell;
use crate::store::{Outcome, Provenance, Status};

/// What every cell of an invocation shares.
pub struct Context<'a> {
    /// The run directory.
    pub run: &'a Path,
    /// Data directory.
    pub data: &'a Path,
    /// Where cells run.
    pub devices: &'a Devices,
    /// Set by a signal.
    pub interrupt: &'a AtomicBool,
    /// The program that runs.
    pub build: &'a Build,
    /// Longest training time per cell.
    pub limit: Option<Duration>,
    /// whether rows are shown in `TensorBoard` too, from the run directory's folder of that name.
    pub tensorboard: bool,
}

impl<'a> Context<'a> {
    /// Without a limit, and shown nowhere.
    #[must_use]
    pub fn new(
        run: &'a Path,
        data: &'a Path,
        devices: &'a Devices,
        interrupt: &'a AtomicBool,
        build: &'a Build,
    ) -> Self {
        Self { run, data, devices, interrupt, build, limit: None, tensorboard: false }
    }
}

/// What a program was built from; the library does not know, so that it need not be built again when only that changes.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Version of the program.
    pub version: &'static str,
    /// Commit, if it was built in a git repository.
    pub git_commit: Option<&'static str>,
    /// Whether tracked files differed from that commit.
    pub git_dirty: Option<bool>,
    /// Those differences, as `git diff` shows them.
    pub git_diff: &'static str,
    /// Compiler and profile.
    pub compiler: &'static str,
    /// Optional parts that were built in, with commas between them.
    pub features: &'static str,
}

/// A status for a cell that was not run, with the reason.
pub(crate) fn skipped(cell: &PlannedCell, reason: &str) -> Status {
    Status {
        cell: cell.id.clone(),
        outcome: Outcome::Skipped,
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        cause: None,
        notes: Vec::new(),
        metrics: Vec::new(),
        split: cell.config.task.settings().selection().scored().name().into(),
        parameters: Some(cell.parameters),
        state_bytes: None,
        seen: 0,
        updates: 0,
        train_s: 0.0,
        data_wait_s: None,
        peak_bytes: None,
        allocations: None,
        calibration_s: None,
        provenance: Provenance::default(),
        files: BTreeMap::new(),
    }
}
