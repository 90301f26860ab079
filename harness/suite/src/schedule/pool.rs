//! Hands cells to workers, as many at once as asked for, and sees to it that each ends one way or another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::attempt::tidy;
use super::child::{End, Report, Worker};
use super::origin::provenance;
use super::worker::{Message, Order};
use super::{Context, memory, skipped};
use crate::error::Result;
use crate::plan::{Plan, PlannedCell, memory_floor};
use crate::progress::{CellBar, Display};
use crate::store::seal::Stored;
use crate::store::{Cause, CellDir, Outcome, Status};

/// How cells are worked on.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Cells at once.
    pub jobs: usize,
    /// A cell that shows no progress for so long is ended.
    pub stall: Duration,
    /// Start no more cells once one has failed.
    pub fail_fast: bool,
    /// Of cells that failed before, run those of these causes again; `None`: all.
    pub retry: Option<Vec<Cause>>,
}

/// Between asking a worker that shows no progress to end and ending it.
const GRACE: Duration = Duration::from_secs(10);
/// How often workers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A cell that another process has is looked at again after so long.
const HELD_AGAIN: Duration = Duration::from_millis(500);

/// A cell to work on.
struct Task<'a> {
    cell: &'a PlannedCell,
    name: &'a str,
    /// Mark of the status that is known.
    known: Option<String>,
    /// Notes of that status, which were told when they were made.
    told: Vec<String>,
    not_before: Instant,
    /// Whether it was said that another process has it.
    held: bool,
}

/// A cell that a worker has.
struct Running<'a> {
    task: Task<'a>,
    bar: CellBar,
    heard: Instant,
    /// When it was asked to end because it showed no progress.
    terminated: Option<Instant>,
}

/// Room for a worker and the cell it has.
#[derive(Default)]
struct Slot<'a> {
    worker: Option<Worker>,
    running: Option<Running<'a>>,
    started: u64,
}

/// What became of the selected cells.
pub struct Worked {
    /// What is known of each, by id.
    pub statuses: BTreeMap<String, Status>,
    /// Whether there was anything to do.
    pub any: bool,
}

/// Runs every selected cell that is not finished and not submitted `elsewhere`, where words by id say what is known of it.
///
/// # Errors
/// If workers cannot be started; what goes wrong inside a cell becomes its outcome instead.
pub fn work(
    plan: &Plan,
    context: &Context<'_>,
    pool: &Pool,
    elsewhere: &BTreeMap<String, String>,
    display: &Display,
) -> Result<Worked> {
    let names = plan.names();
    let (mut statuses, mut waiting) = sort_out(plan, &names, context, pool, display);
    waiting.retain(|task| {
        let Some(words) = elsewhere.get(&task.cell.id) else { return true };
        display.note(task.name, words);
        statuses.insert(task.cell.id.clone(), skipped(task.cell, words));
        false
    });
    let (reports, inbox) = channel();
    let any = !waiting.is_empty();
    let slots = (0..pool.jobs.min(waiting.len())).map(|_| Slot::default()).collect();
    let mut work = Work { context, pool, display, statuses, waiting, slots, reports, stopped: false };
    work.until_done(&inbox)?;
    Ok(Worked { statuses: work.statuses, any })
}

/// What is finished, with its outcome, and what is to be done.
fn sort_out<'a>(
    plan: &'a Plan,
    names: &'a [String],
    context: &Context<'_>,
    pool: &Pool,
    display: &Display,
) -> (BTreeMap<String, Status>, VecDeque<Task<'a>>) {
    let (mut statuses, mut waiting) = (BTreeMap::new(), Vec::new());
    // two names for one configuration are one cell
    let mut cells: BTreeMap<&str, (usize, &PlannedCell)> = BTreeMap::new();
    for (index, cell) in plan.cells.iter().enumerate().filter(|(_, cell)| cell.selected) {
        cells.entry(&cell.id).or_insert((index, cell));
    }
    let mut cells: Vec<(usize, &PlannedCell)> = cells.into_values().collect();
    cells.sort_by_key(|(index, _)| *index);
    let stored = cells.par_iter().map(|(_, cell)| {
        let dir = CellDir::of(context.run, &cell.id);
        // what cannot even be looked at is damaged like what can
        let status = dir.checked_status().unwrap_or_else(|e| Stored::Damaged(e.to_string()));
        (dir.status_mark(), status)
    });
    let stored: Vec<_> = stored.collect();
    for ((index, cell), (known, stored)) in cells.into_iter().zip(stored) {
        let name = &names[index];
        let told = match stored {
            Stored::Whole(status) if status.outcome.is_final() || !pool.tries_again(&status) => {
                if status.outcome.is_final()
                    && let Err(e) = tidy(&CellDir::of(context.run, &cell.id))
                {
                    display.note(name, &e.to_string()); // what a kill right after its end left takes room and no more
                }
                display.cached(cell, name, &status);
                statuses.insert(cell.id.clone(), status);
                continue;
            }
            Stored::Whole(status) => status.notes,
            // the worker says what is damaged and what was done about it
            Stored::Damaged(_) | Stored::Absent => Vec::new(),
        };
        waiting.push(Task { cell, name, known, told, not_before: Instant::now(), held: false });
    }
    if pool.jobs > 1 {
        // the longest first: it is not what the others wait for at the end
        waiting.sort_by_key(|task| std::cmp::Reverse(u128::from(task.cell.seen) * u128::from(task.cell.parameters)));
    }
    (statuses, waiting.into())
}

impl Pool {
    /// Whether a cell without a final outcome is run again.
    fn tries_again(&self, status: &Status) -> bool {
        let failed = matches!(status.outcome, Outcome::Failed | Outcome::OutOfMemory | Outcome::TimedOut);
        match (&self.retry, status.cause) {
            (Some(causes), Some(cause)) if failed => causes.contains(&cause),
            _ => true,
        }
    }
}

struct Work<'a> {
    context: &'a Context<'a>,
    pool: &'a Pool,
    display: &'a Display,
    statuses: BTreeMap<String, Status>,
    waiting: VecDeque<Task<'a>>,
    slots: Vec<Slot<'a>>,
    reports: Sender<Report>,
    /// No more cells are started.
    stopped: bool,
}

impl Work<'_> {
    fn until_done(&mut self, inbox: &Receiver<Report>) -> Result<()> {
        loop {
            if self.context.interrupt.load(Ordering::Relaxed) {
                self.stopped = true;
                for worker in self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut()) {
                    worker.stop();
                }
            }
            if !self.stopped {
                self.give_out()?;
            }
            if self.slots.iter().all(|slot| slot.running.is_none()) && (self.stopped || self.waiting.is_empty()) {
                return Ok(());
            }
            match inbox.recv_timeout(TICK) {
                Ok(report) => {
                    self.hear(&report);
                    // many may have come
                    while let Ok(report) = inbox.try_recv() {
                        self.hear(&report);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.end_what_stands_still();
        }
    }

    /// Gives every slot that has none a cell that can be started now.
    fn give_out(&mut self) -> Result<()> {
        for index in 0..self.slots.len() {
            if self.slots[index].running.is_some() {
                continue;
            }
            let now = Instant::now();
            let Some(next) = self.waiting.iter().position(|task| task.not_before <= now) else { return Ok(()) };
            let alone = self.slots.iter().all(|slot| slot.running.is_none());
            match admit(self.waiting[next].cell, alone) {
                Admission::Now => {}
                Admission::Later => return Ok(()),
                Admission::Never(reason) => {
                    let Some(task) = self.waiting.remove(next) else { continue };
                    let resources = (Outcome::OutOfMemory, Cause::Resources, reason);
                    self.record(&task, resources, &[]);
                    continue;
                }
            }
            if let Some(task) = self.waiting.remove(next) {
                self.start(index, task)?;
            }
        }
        Ok(())
    }
}

impl<'a> Work<'a> {
    fn start(&mut self, index: usize, task: Task<'a>) -> Result<()> {
        let slot = &mut self.slots[index];
        if slot.worker.is_none() {
            slot.started += 1;
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads = (self.pool.jobs > 1).then(|| cores.div_ceil(self.pool.jobs));
            slot.worker = Some(Worker::start(self.context, threads, index, slot.started, &self.reports)?);
        }
        if let Some(worker) = &mut slot.worker {
            worker.order(&Order { cell: task.cell.clone(), known: task.known.clone() });
        }
        let bar = self.display.start(task.name);
        slot.running = Some(Running { task, bar, heard: Instant::now(), terminated: None });
        Ok(())
    }

    /// Takes what a worker said.
    fn hear(&mut self, report: &Report) {
        let slot = &mut self.slots[report.slot];
        if slot.worker.as_ref().is_none_or(|worker| worker.number != report.number) {
            return; // of one that is gone
        }
        match report.message {
            Some(Message::Progress(progress)) => {
                if let Some(running) = &mut slot.running {
                    running.heard = Instant::now();
                    running.bar.update(progress);
                }
            }
            Some(Message::Held) => {
                if let Some(Running { mut task, .. }) = slot.running.take() {
                    if !task.held {
                        self.display.note(task.name, "another process works on it");
                    }
                    (task.held, task.not_before) = (true, Instant::now() + HELD_AGAIN);
                    self.waiting.push_back(task);
                }
            }
            Some(Message::Done) => match slot.running.take() {
                Some(running) if running.terminated.is_some() => self.ended(report.slot, running),
                Some(running) => self.done(&running.task),
                None => {}
            },
            None => {
                if let Some(running) = slot.running.take() {
                    self.ended(report.slot, running);
                } else {
                    slot.worker = None;
                }
            }
        }
    }

    /// A cell's status is on disk.
    fn done(&mut self, task: &Task<'_>) {
        let stored = CellDir::of(self.context.run, &task.cell.id).status();
        let status = match stored.unwrap_or_else(|e| Stored::Damaged(e.to_string())) {
            Stored::Whole(status) => status,
            Stored::Absent => skipped(task.cell, "its status is gone"),
            Stored::Damaged(problem) => skipped(task.cell, &problem),
        };
        self.finish(task, status);
    }

    /// A worker has ended, or was made to, with a cell in its hands.
    fn ended(&mut self, index: usize, running: Running<'a>) {
        let Running { task, terminated, .. } = running;
        let Some(mut worker) = self.slots[index].worker.take() else { return };
        if terminated.is_some() {
            worker.kill();
        }
        let end: End = worker.end();
        let verdict = if terminated.is_some() {
            let stall = self.pool.stall.as_secs_f64();
            let reason = format!("it showed no progress for {stall:.0} s (--stall-seconds) and was ended");
            (Outcome::Failed, Cause::Outside, reason)
        } else if self.stopped && self.context.interrupt.load(Ordering::Relaxed) {
            (Outcome::Interrupted, Cause::Outside, "its process was interrupted; run again to continue".to_owned())
        } else {
            end.verdict()
        };
        self.record(&task, verdict, &end.said);
    }

    /// Records an outcome that the cell's worker could not record, unless another process has the cell or has finished it.
    fn record(&mut self, task: &Task<'a>, (outcome, cause, reason): (Outcome, Cause, String), said: &[String]) {
        let mut status = Status { outcome, cause: Some(cause), ..skipped(task.cell, &reason) };
        status.provenance = provenance(task.cell, self.context.devices.of(&task.cell.config.model), self.context.build);
        match self.store(task, &status, said) {
            Ok(Some(newer)) => status = newer,
            Ok(None) => {}
            // a folder that cannot be written must not take the outcome away from the table, nor the other cells with it
            Err(e) => self.display.note(task.name, &e.to_string()),
        }
        self.finish(task, status);
    }

    /// Writes a status to the cell's folder; another process's status that is there by now is returned instead.
    fn store(&self, task: &Task<'_>, status: &Status, said: &[String]) -> Result<Option<Status>> {
        let dir = CellDir::open(self.context.run, &task.cell.id)?;
        let Some(_lock) = dir.lock()? else { return Ok(None) };
        if dir.status_mark() != task.known
            && let Stored::Whole(newer) = dir.checked_status()?
            && (newer.outcome.is_final() || status.outcome == Outcome::Interrupted)
        {
            return Ok(Some(newer));
        }
        for line in said {
            dir.log(line);
        }
        dir.log(&format!("{}: {}", status.outcome.name(), status.reason.as_deref().unwrap_or_default()));
        dir.write_status(status)?;
        Ok(None)
    }

    fn finish(&mut self, task: &Task<'_>, status: Status) {
        for note in status.notes.iter().filter(|note| !task.told.contains(note)) {
            self.display.note(task.name, note);
        }
        let failed = !matches!(status.outcome, Outcome::Completed | Outcome::Interrupted | Outcome::Skipped);
        self.stopped |= failed && self.pool.fail_fast;
        self.display.finished(task.cell, task.name, &status);
        self.statuses.insert(task.cell.id.clone(), status);
    }

    /// Asks, then makes, workers end that have shown no progress for too long.
    fn end_what_stands_still(&mut self) {
        for slot in &mut self.slots {
            let (Some(running), Some(worker)) = (&mut slot.running, &mut slot.worker) else { continue };
            match running.terminated {
                None if running.heard.elapsed() > self.pool.stall => {
                    self.display.note(running.task.name, "shows no progress: it is ended");
                    worker.terminate();
                    running.terminated = Some(Instant::now());
                }
                Some(since) if since.elapsed() > GRACE => worker.kill(),
                None | Some(_) => {}
            }
        }
    }
}

/// Whether there is memory for a cell.
enum Admission {
    Now,
    /// When those that run have ended.
    Later,
    /// Why not.
    Never(String),
}

/// Holds what a cell needs at least against what there is.
fn admit(cell: &PlannedCell, alone: bool) -> Admission {
    let (need, Some(room)) = (memory_floor(cell), memory::room()) else { return Admission::Now };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    if need > room.total {
        return Admission::Never(format!(
            "not started: weights, gradients, moments and state alone need {:.0} MiB, and {:.0} MiB are there in all",
            mib(need),
            mib(room.total)
        ));
    }
    if need <= room.now {
        Admission::Now
    } else if alone {
        Admission::Never(format!(
            "not started: weights, gradients, moments and state alone need {:.0} MiB, and {:.0} of {:.0} MiB are free",
            mib(need),
            mib(room.now),
            mib(room.total)
        ))
    } else {
        Admission::Later
    }
}
