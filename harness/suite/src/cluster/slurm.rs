//! Slurm's own commands: `sbatch` to submit, `squeue`, `scontrol` and `sacct` to ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};

/// What a task is doing, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// In the queue.
    Waiting,
    /// Running, or about to end.
    Running,
    /// Ended with exit code 0.
    Completed,
    /// Ended with another.
    Failed,
    /// Ran into its time limit.
    TimedOut,
    /// Needed more memory than it was given.
    OutOfMemory,
    /// Its node failed.
    NodeFailed,
    /// Another job took its place.
    Preempted,
    /// A person ended it.
    Cancelled,
    /// Slurm does not know.
    #[default]
    Unknown,
}

impl State {
    /// Reads Slurm's word, such as `NODE_FAIL` or `CANCELLED by 1000`.
    fn parse(word: &str) -> Self {
        match word.split([' ', '+']).next().unwrap_or_default() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => Self::Waiting,
            "RUNNING" | "CONFIGURING" | "COMPLETING" | "RESIZING" | "SIGNALING" | "STAGE_OUT" | "STOPPED"
            | "SUSPENDED" => Self::Running,
            "COMPLETED" => Self::Completed,
            "FAILED" => Self::Failed,
            "TIMEOUT" | "DEADLINE" => Self::TimedOut,
            "OUT_OF_MEMORY" => Self::OutOfMemory,
            "NODE_FAIL" | "BOOT_FAIL" | "LAUNCH_FAILED" => Self::NodeFailed,
            "PREEMPTED" => Self::Preempted,
            "CANCELLED" | "REVOKED" => Self::Cancelled,
            _ => Self::Unknown,
        }
    }

    /// In words, while it is not over.
    pub fn active(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("waiting"),
            Self::Running => Some("running"),
            Self::Completed
            | Self::Failed
            | Self::TimedOut
            | Self::OutOfMemory
            | Self::NodeFailed
            | Self::Preempted
            | Self::Cancelled
            | Self::Unknown => None,
        }
    }
}

/// What is known of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// What it is doing, or how it ended.
    pub state: State,
    /// Exit code and signal, as Slurm writes them: `0:9`.
    pub exit: String,
}

/// Submits a script and returns the job's number.
///
/// # Errors
/// `Usage` if there is no Slurm or it refuses.
pub fn submit(script: &Path) -> Result<u64> {
    let output = Command::new("sbatch").arg("--parsable").arg(script).output().map_err(|e| {
        Error::Usage(format!(
            "sbatch: {e}\n  next: run this on a machine with Slurm's commands, or see the script with --dry-run"
        ))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let id = text.trim().split(';').next().and_then(|id| id.parse().ok());
    id.filter(|_| output.status.success()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::Usage(format!("sbatch {}: {}", script.display(), said.trim()))
    })
}

/// Tasks that an array may have.
pub fn most_tasks() -> usize {
    const DEFAULT: usize = 1001;
    let config = said("scontrol", &["show", "config"]).unwrap_or_default();
    let line = config.lines().find_map(|line| line.strip_prefix("MaxArraySize"));
    let number = line.and_then(|line| line.trim_start_matches([' ', '=']).trim().parse().ok());
    number.unwrap_or(DEFAULT).max(1)
}

/// What is known of a job's tasks, by their index.
pub fn tasks(job: u64) -> BTreeMap<usize, Task> {
    let id = job.to_string();
    // what ended long ago is in the accounts alone, what ended just now with the controller, what waits or runs in the queue
    let mut known = said("sacct", &["-n", "-P", "-X", "-j", &id, "-o", "JobID,State,ExitCode"])
        .map_or_else(BTreeMap::new, |text| accounts(&text, job));
    known.extend(said("scontrol", &["-o", "show", "job", &id]).map_or_else(BTreeMap::new, |text| controller(&text)));
    known.extend(
        said("squeue", &["-h", "-r", "-j", &id, "-o", "%K|%T"]).map_or_else(BTreeMap::new, |text| queue(&text)),
    );
    known
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lines such as `17_3|TIMEOUT|0:15`.
fn accounts(text: &str, job: u64) -> BTreeMap<usize, Task> {
    let line = |line: &str| {
        let mut fields = line.split('|');
        let index = fields.next()?.strip_prefix(&format!("{job}_"))?.parse().ok()?;
        Some((index, Task { state: State::parse(fields.next()?), exit: fields.next()?.to_owned() }))
    };
    text.lines().filter_map(line).collect()
}

/// Lines such as `JobId=19 ArrayJobId=17 ArrayTaskId=3 … JobState=FAILED … ExitCode=1:0 …`.
fn controller(text: &str) -> BTreeMap<usize, Task> {
    let mut tasks = BTreeMap::new();
    for line in text.lines() {
        let field = |key: &str| line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        let (Some(indices), Some(state)) = (field("ArrayTaskId"), field("JobState")) else { continue };
        let task = Task { state: State::parse(state), exit: field("ExitCode").unwrap_or_default().to_owned() };
        tasks.extend(ranges(indices).map(|index| (index, task.clone())));
    }
    tasks
}

/// Lines such as `3|RUNNING`.
fn queue(text: &str) -> BTreeMap<usize, Task> {
    let line = |line: &str| {
        let (index, state) = line.split_once('|')?;
        Some((index.parse().ok()?, Task { state: State::parse(state), exit: String::new() }))
    };
    text.lines().filter_map(line).collect()
}

/// The numbers of `2,5-7%3`.
fn ranges(text: &str) -> impl Iterator<Item = usize> {
    text.split('%').next().unwrap_or_default().split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_slurm_writes_them() {
        let task = |state, exit: &str| Task { state, exit: exit.into() };
        assert_eq!(
            accounts("17_0|COMPLETED|0:0\n17_3|CANCELLED by 1000|0:15\n17_[4-9]|PENDING|0:0\n18_1|FAILED|1:0\n", 17),
            [(0, task(State::Completed, "0:0")), (3, task(State::Cancelled, "0:15"))].into()
        );
        let line = "JobId=19 ArrayJobId=17 ArrayTaskId=2,5-6%3 JobName=x JobState=NODE_FAIL Reason=None ExitCode=1:0 RunTime=00:00:02";
        assert_eq!(controller(line).keys().copied().collect::<Vec<_>>(), [2, 5, 6]);
        assert_eq!(controller(line)[&5], task(State::NodeFailed, "1:0"));
        assert_eq!(queue("3|RUNNING\n4|PENDING\nN/A|RUNNING\n").len(), 2);
        assert_eq!(State::parse("OUT_OF_MEMORY"), State::OutOfMemory);
        assert_eq!(State::parse("SOMETHING_NEW"), State::Unknown);
    }
}
