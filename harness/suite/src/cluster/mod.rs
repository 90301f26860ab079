//! Cells of a plan as tasks of a Slurm array: what is submitted, what has become of it, and what that means for a cell.
//!
//! A task calls `harness worker` on the shared run directory, which keeps locks, checkpoints and statuses as everywhere. Slurm is asked
//! only about cells whose worker could not say how it ended.

pub mod resources;
mod script;
mod slurm;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::resources::Resources;
pub use self::script::{Script, TEMPLATE};
pub use self::slurm::{State, Task, most_tasks, submit, tasks};
use crate::error::Result;
use crate::plan::Plan;
use crate::schedule::skipped;
use crate::store::seal::{self, Stored};
use crate::store::{Cause, CellDir, Outcome, Status};

/// A submitted array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Slurm's number.
    pub id: u64,
    /// Ids of the cells of each task.
    pub tasks: Vec<Vec<String>>,
}

/// Everything that was submitted for a run directory, the last one last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// The arrays.
    pub jobs: Vec<Job>,
}

impl Submitted {
    /// What was submitted for a run directory.
    ///
    /// # Errors
    /// If the system refuses to read it.
    pub fn read(run: &Path) -> Result<Self> {
        Ok(match seal::read(&run.join("slurm/jobs.json"))? {
            Stored::Whole(submitted) => submitted,
            Stored::Absent => Self::default(),
            Stored::Damaged(problem) => {
                data::tell!("damaged: {problem}; what was submitted before is not known");
                Self::default()
            }
        })
    }

    /// Records it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, run: &Path) -> Result<()> {
        seal::write(&run.join("slurm/jobs.json"), self)
    }

    /// The last task of each cell: job and index.
    fn last(&self) -> BTreeMap<&str, (u64, usize)> {
        let mut last = BTreeMap::new();
        for job in &self.jobs {
            for (index, cells) in job.tasks.iter().enumerate() {
                last.extend(cells.iter().map(|cell| (cell.as_str(), (job.id, index))));
            }
        }
        last
    }
}

/// What is done about cells whose tasks have ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Their outcomes are recorded.
    Record,
    /// Nothing is written.
    Leave,
}

/// Asks what became of the cells that were submitted, and records outcomes that no worker could record. Returned are the cells that wait
/// or run, with words for it.
///
/// # Errors
/// If the system refuses to read what was submitted.
pub fn settle(plan: &Plan, run: &Path, ends: Ends) -> Result<BTreeMap<String, String>> {
    let submitted = Submitted::read(run)?;
    let last = submitted.last();
    let mut active = BTreeMap::new();
    let mut known: BTreeMap<u64, BTreeMap<usize, Task>> = BTreeMap::new();
    for cell in &plan.cells {
        let Some(&(job, index)) = last.get(cell.id.as_str()) else { continue };
        // what cannot even be looked at is damaged like what can
        let stored = CellDir::of(run, &cell.id).status().unwrap_or_else(|e| Stored::Damaged(e.to_string()));
        let before = match stored {
            Stored::Whole(status) if status.outcome != Outcome::Interrupted => continue,
            Stored::Whole(status) => Some(status),
            Stored::Absent | Stored::Damaged(_) => None,
        };
        let tasks = known.entry(job).or_insert_with(|| tasks(job));
        let task = tasks.get(&index).cloned().unwrap_or_default();
        let name = format!("Slurm task {job}_{index}");
        if let Some(words) = task.state.active() {
            active.insert(cell.id.clone(), format!("{name} is {words}"));
            continue;
        }
        let (outcome, cause, why) = verdict(&task);
        let log = format!("see {}", run.join(format!("slurm/{job}_{index}.log")).display());
        let base = before.unwrap_or_else(|| skipped(cell, ""));
        let status = Status { outcome, cause: Some(cause), reason: Some(format!("{name} {why}; {log}")), ..base };
        if ends == Ends::Record
            && let Err(e) = record(run, &status)
        {
            data::tell!("{e}"); // one odd folder must not keep the other cells from being worked on
        }
    }
    Ok(active)
}

/// Writes a status, unless somebody works on the cell after all.
fn record(run: &Path, status: &Status) -> Result<()> {
    let dir = CellDir::open(run, &status.cell)?;
    let Some(_lock) = dir.lock()? else { return Ok(()) };
    dir.log(status.reason.as_deref().unwrap_or_default());
    dir.write_status(status)
}

/// What the end of a task means for a cell that has no outcome of its own.
fn verdict(task: &Task) -> (Outcome, Cause, String) {
    match task.state {
        State::TimedOut => (Outcome::TimedOut, Cause::Resources, "ran into its time limit".to_owned()),
        State::OutOfMemory => {
            (Outcome::OutOfMemory, Cause::Resources, "ran out of the memory that it was given".to_owned())
        }
        State::NodeFailed => (Outcome::Failed, Cause::Outside, "lost its node".to_owned()),
        State::Preempted => {
            (Outcome::Interrupted, Cause::Outside, "was preempted; submit again to continue".to_owned())
        }
        State::Cancelled => {
            (Outcome::Interrupted, Cause::Outside, "was cancelled; submit again to continue".to_owned())
        }
        State::Failed => (
            Outcome::Failed,
            Cause::Outside,
            format!("ended with exit code {} before the cell had an outcome", task.exit),
        ),
        State::Completed => {
            (Outcome::Failed, Cause::Own, "ended without an error, and without an outcome of the cell".to_owned())
        }
        State::Unknown | State::Waiting | State::Running => {
            (Outcome::Failed, Cause::Outside, "is no longer known to Slurm, and the cell has no outcome".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_submission_of_a_cell_counts() {
        let job = |id, cells: &[&[&str]]| Job {
            id,
            tasks: cells.iter().map(|task| task.iter().map(ToString::to_string).collect()).collect(),
        };
        let submitted = Submitted { jobs: vec![job(1, &[&["a", "b"], &["c"]]), job(5, &[&["c"], &["a"]])] };
        assert_eq!(submitted.last(), [("a", (5, 1)), ("b", (1, 0)), ("c", (5, 0))].into());
    }

    #[test]
    fn ends_of_tasks_are_told_apart() {
        let of = |state| verdict(&Task { state, exit: "0:9".into() });
        assert_eq!(of(State::TimedOut).0, Outcome::TimedOut);
        assert_eq!(of(State::OutOfMemory).0, Outcome::OutOfMemory);
        assert_eq!((of(State::NodeFailed).0, of(State::NodeFailed).1), (Outcome::Failed, Cause::Outside));
        assert_eq!(of(State::Preempted).0, Outcome::Interrupted);
        let all = [
            State::TimedOut,
            State::OutOfMemory,
            State::NodeFailed,
            State::Preempted,
            State::Cancelled,
            State::Failed,
            State::Completed,
            State::Unknown,
        ];
        let words: std::collections::BTreeSet<String> = all.into_iter().map(|state| of(state).2).collect();
        assert_eq!(words.len(), all.len());
    }
}
