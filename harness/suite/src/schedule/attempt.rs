//! One cell, from its lock to its status: what goes wrong inside becomes its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};

use learner::Snapshot;

use super::origin::{keep_diff, provenance};
use super::{Context, skipped};
use crate::error::{Error, Result};
use crate::measure::energy::{CostModel, Sizes};
use crate::measure::{allocator, calibration};
use crate::plan::{OpenTasks, PlannedCell, open_task};
use crate::run::{Finished, Job, Phase, Progress, run_cell};
use crate::store::seal::Stored;
use crate::store::{Cause, CellDir, Outcome, Position, Provenance, Status, load_checkpoint};
use crate::tasks::Metric;
use data::account::Kind;
use metrics::stream::PREQUENTIAL;
use rows::parquet::{Kept, Metadata, PartWriter, discard_parts};
use rows::tensorboard::Board;

/// What became of an attempt.
pub enum Attempt {
    /// Another process has the cell.
    Held,
    /// Its status is on disk: of this attempt, or of another process that was faster.
    Done(Box<Status>),
}

/// Runs one cell unless another process has it, or had it since `known` was the mark of its status.
///
/// # Errors
/// If its outcome cannot be recorded.
pub fn attempt(
    cell: &PlannedCell,
    known: Option<&str>,
    context: &Context<'_>,
    open: &mut OpenTasks,
    tell: &mut dyn FnMut(Progress),
) -> Result<Attempt> {
    let dir = CellDir::open(context.run, &cell.id)?;
    let Some(_lock) = dir.lock()? else { return Ok(Attempt::Held) };
    // read again under the lock: what was to be done may be done by now
    if dir.status_mark().as_deref() != known
        && let Stored::Whole(status) = dir.checked_status()?
        && !matches!(status.outcome, Outcome::Interrupted | Outcome::Skipped)
    {
        return Ok(Attempt::Done(Box::new(status)));
    }
    let status = run_locked(cell, &dir, context, open, tell)?;
    dir.write_status(&status)?;
    if status.outcome.is_final() {
        tidy(&dir)?;
    }
    Ok(Attempt::Done(Box::new(status)))
}

/// Removes what a cell with a final outcome no longer needs.
///
/// # Errors
/// If the system refuses.
pub fn tidy(dir: &CellDir) -> Result<()> {
    discard_parts(&dir.path)?;
    dir.remove_previous()
}

fn run_locked(
    cell: &PlannedCell,
    dir: &CellDir,
    context: &Context<'_>,
    open: &mut OpenTasks,
    tell: &mut dyn FnMut(Progress),
) -> Result<Status> {
    if let Err(e) = keep_diff(context.run, context.build) {
        dir.log(&e.to_string()); // its digest is in the status all the same
    }
    let mut status = Status {
        provenance: provenance(cell, context.devices.of(&cell.config.model), context.build),
        ..skipped(cell, "")
    };
    let mut trace = Trace { at: Position::default(), notes: Vec::new() };
    match dir.checked_status()? {
        Stored::Whole(earlier) if earlier.provenance.started_unix_s > 0 => {
            status.provenance.started_unix_s = earlier.provenance.started_unix_s; // of the first run
            trace.notes = earlier.notes;
        }
        Stored::Damaged(problem) => note(dir, &mut trace, &[problem], "the cell was taken up again"),
        Stored::Whole(_) | Stored::Absent => {}
    }
    let run = || go(cell, dir, context, open, tell, &status.provenance, &mut trace);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => {
            let facts = open_task(open, &cell.config.task, context.data)?.facts();
            fill(&mut status, &done, &trace.at, &facts, &cell.config.energy);
            status.calibration_s = Some(calibration::product_s());
            if let (Outcome::Completed, Some(why)) = (status.outcome, trace.at.losses.diverged()) {
                (status.outcome, status.reason) = (Outcome::Diverged, Some(why));
                status.metrics.clear();
            }
        }
        Ok(Err(Error::Learner(e @ learner::Error::Diverged { .. }))) => {
            (status.outcome, status.reason) = (Outcome::Diverged, Some(e.to_string()));
        }
        Ok(Err(e)) => {
            (status.outcome, status.reason, status.cause) = (Outcome::Failed, Some(e.to_string()), Some(e.cause()));
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let reason = format!("a bug in this program: {}", text.unwrap_or_default());
            (status.outcome, status.reason, status.cause) = (Outcome::Failed, Some(reason), Some(Cause::Own));
        }
    }
    let Trace { at, notes } = trace;
    status.notes = notes;
    (status.seen, status.updates, status.train_s) = (at.seen, at.updates, at.elapsed_s);
    status.data_wait_s = (at.step > 0).then_some(at.data_wait_s);
    status.peak_bytes = (allocator::is_counting() && at.step > 0).then_some(at.peak_bytes);
    status.allocations = status.peak_bytes.map(|_| at.allocations);
    let reason = status.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    dir.log(&format!("{}{reason}", status.outcome.name()));
    Ok(status)
}

/// What an attempt leaves behind, whatever its result.
struct Trace {
    /// How far it came.
    at: Position,
    /// What happened to it that did not stop it.
    notes: Vec<String>,
}

/// One go at a cell.
fn go(
    cell: &PlannedCell,
    dir: &CellDir,
    context: &Context<'_>,
    open: &mut OpenTasks,
    tell: &mut dyn FnMut(Progress),
    provenance: &Provenance,
    trace: &mut Trace,
) -> Result<Finished> {
    tell(Progress::of(Phase::Opening));
    let task = open_task(open, &cell.config.task, context.data)?;
    let id = cell.config.id(task.fingerprint());
    if id != cell.id {
        return Err(Error::Usage(format!(
            "cell {}: its settings, data and code give {id}: the plan or the data were changed, or are of another version\n  next: \
             plan again with `harness run` on the same grid",
            cell.id
        )));
    }
    let account = task.account();
    account.allow(cell.config.train.left_out.0, context.data)?;
    for group in account.groups().into_iter().filter(|group| group.kind != Kind::Foreign) {
        let text = format!("data: {group}");
        if !trace.notes.contains(&text) {
            trace.notes.push(text);
        }
    }
    let yaml = serde_yaml::to_string(&cell.config).map_err(|e| Error::Report(e.to_string()))?;
    crate::store::write_whole(&dir.path.join("config.yaml"), yaml.as_bytes())?;
    let mut meta = metadata(cell, provenance);
    let outputs = task.outputs();
    if !outputs.is_empty() {
        meta.insert("outputs".to_owned(), serde_json::json!(outputs).to_string());
    }
    let (mut sink, start) = resume(dir, &meta, trace)?;
    if context.tensorboard {
        let short = cell.id.get(..8).unwrap_or(&cell.id);
        let name = format!(
            "{}/{}-seed{}-{short}",
            plain(&cell.config.task_name),
            plain(&cell.config.model_name),
            cell.config.seed
        );
        match Board::create(&context.run.join("tensorboard").join(name)) {
            Ok(board) => sink.show(board)?,
            Err(e) => dir.log(&format!("nothing is shown in TensorBoard: {e}")),
        }
    }
    let mut job = Job {
        config: &cell.config,
        task: &*task,
        dir,
        device: context.devices.of(&cell.config.model),
        interrupt: context.interrupt,
        limit: context.limit,
        progress: tell,
    };
    let outcome = run_cell(&mut job, &mut sink, start.as_ref(), &mut trace.at);
    // rows of a cell that failed or was stopped are worth reading too
    let published = sink.publish();
    if let Some(e) = sink.unshown() {
        dir.log(&format!("not all of it is shown in TensorBoard: {e}"));
    }
    match (&outcome, published) {
        (Ok(_), Err(e)) => return Err(e.into()),
        (Err(_), Err(e)) => dir.log(&format!("its rows could not be written: {e}")),
        _ => {}
    }
    outcome
}

/// A model's name as a folder's.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect()
}

/// The last checkpoint whose files, and the rows before it, are what was written; without one the cell starts again.
fn resume(dir: &CellDir, meta: &Metadata, trace: &mut Trace) -> Result<(PartWriter, Option<Snapshot>)> {
    let writer = |kept: Kept| PartWriter::open(&dir.path, kept, meta.clone(), allocator::exclude_this_thread);
    let mut damage = Vec::new();
    for checkpoint in dir.checkpoints()? {
        match load_checkpoint(&checkpoint)? {
            Stored::Absent => {}
            Stored::Damaged(problem) => damage.push(problem),
            // a cell that was finished has no parts any more: it is run again from its start, and that is no damage
            Stored::Whole((_, position)) if position.parts > 0 && !dir.path.join("parts").is_dir() => {}
            Stored::Whole((snapshot, position)) => match writer(position.kept()) {
                Ok(sink) => {
                    note(dir, trace, &damage, "the checkpoint before it was continued from");
                    dir.log(&format!("continuing at update {} of its checkpoint", position.updates));
                    trace.at = position;
                    return Ok((sink, Some(snapshot)));
                }
                Err(e) => damage.push(e.to_string()),
            },
        }
    }
    note(dir, trace, &damage, "the cell was started again");
    dir.clear()?;
    dir.log("starting");
    Ok((writer(Kept::default())?, None))
}

/// Says what was damaged and what was done about it.
fn note(dir: &CellDir, trace: &mut Trace, damage: &[String], done: &str) {
    for problem in damage {
        let problem: Vec<&str> = problem.lines().map(str::trim).collect();
        let text = format!("damaged: {}; {done}", problem.join(", "));
        dir.log(&text);
        trace.notes.push(text);
    }
}

fn fill(status: &mut Status, done: &Finished, at: &Position, facts: &[Metric], energy: &CostModel) {
    status.outcome = done.outcome;
    status.reason = match done.outcome {
        Outcome::TimedOut => Some(format!(
            "stopped after {:.0} s of training and scored as it was; run again with more time to continue",
            at.elapsed_s
        )),
        Outcome::Interrupted => Some(format!("interrupted after update {}; run again to continue", at.updates)),
        Outcome::Completed | Outcome::Diverged | Outcome::OutOfMemory | Outcome::Failed | Outcome::Skipped => None,
    };
    if done.outcome == Outcome::TimedOut {
        status.cause = Some(Cause::Resources);
    }
    status.metrics.clone_from(&done.scores.metrics);
    if done.outcome == Outcome::Completed {
        status.metrics.extend_from_slice(facts);
        if at.sparsity.1 > 0 {
            let mean = at.sparsity.0 / at.sparsity.1 as f64;
            status.metrics.push(Metric::plain(SPIKE_SPARSITY, Some(mean), at.sparsity.1));
        }
        if let Some((loss, n)) = at.prequential.mean() {
            status.metrics.push(Metric::plain(PREQUENTIAL, Some(loss), n));
        }
        status.metrics.extend(at.operations.metrics(energy, Sizes::of(&done.cost)));
        if let Some(share) = at.pruned_share {
            status.metrics.push(Metric::plain(PRUNED_SHARE, Some(share), at.step));
        }
    }
    status.state_bytes = Some(done.cost.state_bytes);
}

/// Mean over training, not over the evaluated split.
pub const SPIKE_SPARSITY: &str = "spike_sparsity";
/// At the end of training.
const PRUNED_SHARE: &str = "pruned_share";

fn metadata(cell: &PlannedCell, p: &Provenance) -> Metadata {
    let config = serde_json::to_string(&cell.config).unwrap_or_default();
    let mut meta = rows::parquet::versioned();
    meta.extend([
        ("cell".to_owned(), cell.id.clone()),
        ("config".to_owned(), config),
        ("version".to_owned(), p.version.clone()),
        ("lock_sha256".to_owned(), p.lock_sha256.clone()),
        ("data".to_owned(), p.data.clone()),
        ("device".to_owned(), p.device.clone()),
        ("cost_model".to_owned(), cell.config.energy.name.clone()),
        ("cost_model_source".to_owned(), cell.config.energy.source.clone()),
        ("threads".to_owned(), p.threads.to_string()),
        ("started_unix_s".to_owned(), p.started_unix_s.to_string()),
    ]);
    if let Some(set) = &p.instruction_set {
        meta.insert("instruction_set".to_owned(), set.clone());
    }
    if let Some(commit) = &p.git_commit {
        meta.insert("git_commit".to_owned(), commit.clone());
        meta.insert("git_dirty".to_owned(), p.git_dirty.unwrap_or_default().to_string());
    }
    meta
}
