//! Several cells at once, each in a process of its own: its memory is its own, and what kills it leaves the others alone.
//!
//! A worker runs one cell of a plan file. Here its standard input is a pipe that stays open as long as it should go on: when
//! the parent closes it, or dies, the worker stops after its step with a checkpoint.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::plan::{Plan, PlannedCell};
use crate::progress::Display;
use crate::schedule::{Context, device_name, skipped};
use crate::store::{CellDir, Outcome, Status};

/// How often children are looked at.
const POLL: Duration = Duration::from_millis(20);

struct Running<'a> {
    index: usize,
    cell: &'a PlannedCell,
    child: Child,
}

/// Runs every selected cell that is not finished, `jobs` at a time.
///
/// # Errors
/// If workers cannot be started or files cannot be read.
pub fn work_in_processes(
    plan: &Plan,
    plan_file: &Path,
    context: &Context<'_>,
    jobs: usize,
    display: &Display,
) -> Result<Vec<Status>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(jobs)).max(1);
    let mut statuses: Vec<Option<Status>> = vec![None; plan.cells.len()];
    let (mut waiting, mut twins) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (index, cell) in plan.cells.iter().enumerate() {
        let repeated = !seen.insert(&cell.id);
        let known = CellDir::open(context.run, &cell.id)?.status()?;
        match known {
            Some(status) if cell.selected && status.outcome.is_final() => {
                display.cached(cell, &status);
                statuses[index] = Some(status);
            }
            known if !cell.selected => {
                statuses[index] = Some(known.unwrap_or_else(|| skipped(cell, "not selected by --only")));
            }
            // two names for one configuration are one cell: the first runs, the others take its outcome
            _ if repeated => twins.push((index, cell)),
            _ => waiting.push((index, cell)),
        }
    }
    waiting.reverse();
    let mut running: Vec<Running<'_>> = Vec::new();
    loop {
        let stop = context.interrupt.load(Ordering::Relaxed);
        while !stop && running.len() < jobs {
            let Some((index, cell)) = waiting.pop() else { break };
            let child = spawn(plan_file, index, cell, context, threads)?;
            running.push(Running { index, cell, child });
        }
        if running.is_empty() {
            break;
        }
        if stop {
            for job in &mut running {
                drop(job.child.stdin.take()); // the worker sees the end of its input
            }
        }
        std::thread::sleep(POLL);
        let mut i = 0;
        while i < running.len() {
            let ended = running[i].child.try_wait().map_err(Error::io(plan_file))?;
            let Some(exit) = ended else {
                i += 1;
                continue;
            };
            let Running { index, cell, .. } = running.swap_remove(i);
            let status = status_of(cell, context.run, exit, stop)?;
            display.finished(cell, &status);
            statuses[index] = Some(status);
        }
    }
    for (index, cell) in twins {
        statuses[index] = CellDir::open(context.run, &cell.id)?.status()?;
    }
    let rest = |(cell, status): (&PlannedCell, Option<Status>)| {
        status.unwrap_or_else(|| skipped(cell, "interrupted before it began"))
    };
    Ok(plan.cells.iter().zip(statuses).map(rest).collect())
}

fn spawn(plan_file: &Path, index: usize, cell: &PlannedCell, context: &Context<'_>, threads: usize) -> Result<Child> {
    let program = std::env::current_exe().map_err(Error::io(plan_file))?;
    let mut command = Command::new(&program);
    command.args([
        "--quiet",
        "worker",
        "--stop-at-eof",
        "--index",
        &index.to_string(),
        "--device",
        &device_name(context.device),
    ]);
    command.arg("--plan").arg(plan_file).arg("--data").arg(context.data);
    if let Some(limit) = context.limit {
        command.args(["--limit-seconds", &limit.as_secs_f64().to_string()]);
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    let dir = CellDir::open(context.run, &cell.id)?;
    dir.forget_status()?;
    let said = dir.path.join("stderr.txt");
    let stderr = std::fs::File::create(&said).map_err(Error::io(&said))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
    command.spawn().map_err(Error::io(&program))
}

/// What the worker recorded, or what its end tells if it could not record anything.
fn status_of(cell: &PlannedCell, run: &Path, exit: ExitStatus, interrupted: bool) -> Result<Status> {
    let dir = CellDir::open(run, &cell.id)?;
    if let Some(status) = dir.status()? {
        return Ok(status); // written by this worker: what was there before was removed when it started
    }
    if interrupted {
        return Ok(skipped(cell, "interrupted before it began"));
    }
    let said = std::fs::read_to_string(dir.path.join("stderr.txt")).unwrap_or_default();
    let said = said.lines().last().map(|l| format!(": {l}")).unwrap_or_default();
    let mut status = skipped(cell, &format!("its process ended with {exit}{said}"));
    // the kernel's out-of-memory killer sends SIGKILL, and so may a person: the reason says what was seen
    let killed = std::os::unix::process::ExitStatusExt::signal(&exit) == Some(9);
    status.outcome = if killed { Outcome::OutOfMemory } else { Outcome::Failed };
    if killed {
        status.reason = Some("its process was killed by signal 9, as the system does when memory runs out".to_owned());
    }
    dir.write_status(&status)?;
    Ok(status)
}

/// In a worker: sets `interrupt` once standard input ends.
pub fn stop_at_end_of_input(interrupt: &Arc<AtomicBool>) {
    let flag = Arc::clone(interrupt);
    std::thread::spawn(move || {
        let mut sink = [0u8; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|n| n > 0) {}
        flag.store(true, Ordering::Relaxed);
    });
}
