//! Works off a plan: skips what is finished, continues what was interrupted, records what fails, and goes on.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candle_core::Device;
use learner::product::InstructionSet;

use crate::error::{Error, Result};
use crate::measure::allocator;
use crate::measure::energy::{CostModel, Sizes};
use crate::measure::operations::Totals;
use crate::plan::{OpenTasks, Plan, PlannedCell, open_task};
use crate::progress::Display;
use crate::run::{Finished, Job, run_cell};
use crate::store::{CellDir, Outcome, Position, Provenance, Status};
use crate::tasks::Metric;
use data::files::sha256_hex;
use metrics::TRAIN_SPLIT;
use rows::parquet::{Metadata, PartWriter, discard_parts};
use rows::results::{ResultRow, write_results};

/// What every cell of an invocation shares.
pub struct Context<'a> {
    /// `RUNS/EXPERIMENT`.
    pub run: &'a Path,
    /// Data directory.
    pub data: &'a Path,
    /// Where tensors live.
    pub device: &'a Device,
    /// Set by a signal.
    pub interrupt: &'a AtomicBool,
    /// The program that runs.
    pub build: &'a Build,
    /// Longest training time per cell.
    pub limit: Option<Duration>,
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
}

/// Runs every selected cell that is not finished.
///
/// # Errors
/// If files cannot be written; what goes wrong inside a cell becomes its outcome instead.
pub fn work(plan: &Plan, context: &Context<'_>, open: &mut OpenTasks, display: &Display) -> Result<Vec<Status>> {
    plan.cells
        .iter()
        .map(|cell| {
            let dir = CellDir::open(context.run, &cell.id)?;
            let known = dir.status()?;
            if !cell.selected || context.interrupt.load(Ordering::Relaxed) {
                let reason = if cell.selected { "interrupted before it began" } else { "not selected by --only" };
                return Ok(known.unwrap_or_else(|| skipped(cell, reason)));
            }
            if let Some(status) = known.filter(|s| s.outcome.is_final()) {
                discard_parts(&dir.path)?; // what a kill right after its end left
                display.cached(cell, &status);
                return Ok(status);
            }
            let Some(_lock) = dir.lock()? else {
                let status = skipped(cell, "another process is working on this cell");
                display.finished(cell, &status);
                return Ok(status);
            };
            let status = run_one(cell, &dir, context, open, display)?;
            dir.write_status(&status)?;
            if status.outcome.is_final() {
                discard_parts(&dir.path)?;
            }
            display.finished(cell, &status);
            Ok(status)
        })
        .collect()
}

/// Runs one cell; whatever happens inside becomes its status.
fn run_one(
    cell: &PlannedCell,
    dir: &CellDir,
    context: &Context<'_>,
    open: &mut OpenTasks,
    display: &Display,
) -> Result<Status> {
    let mut status = Status { provenance: provenance(cell, context.device, context.build), ..skipped(cell, "") };
    if let Some(earlier) = dir.status()? {
        status.provenance.started_unix_s = earlier.provenance.started_unix_s; // of the first run
    }
    let yaml = serde_yaml::to_string(&cell.config).map_err(|e| Error::Report(e.to_string()))?;
    crate::store::write_whole(&dir.path.join("config.yaml"), yaml.as_bytes())?;
    let mut at = Position::default();
    let run = || attempt(cell, dir, context, open, display, &status.provenance, &mut at);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => {
            let facts = open_task(open, &cell.config.task, context.data)?.facts();
            fill(&mut status, &done, &at, &facts, &cell.config.energy);
        }
        Ok(Err(Error::Learner(e @ learner::Error::Diverged { .. }))) => {
            (status.outcome, status.reason) = (Outcome::Diverged, Some(e.to_string()));
        }
        Ok(Err(e)) => (status.outcome, status.reason) = (Outcome::Failed, Some(e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let reason = format!("a bug in this program: {}", text.unwrap_or_default());
            (status.outcome, status.reason) = (Outcome::Failed, Some(reason));
        }
    }
    (status.seen, status.updates, status.train_s) = (at.seen, at.updates, at.elapsed_s);
    status.data_wait_s = (at.step > 0).then_some(at.data_wait_s);
    status.peak_bytes = (crate::measure::allocator::is_counting() && at.step > 0).then_some(at.peak_bytes);
    let reason = status.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    dir.log(&format!("{}{reason}", status.outcome.name()));
    Ok(status)
}

/// One go at a cell; `at` tells afterwards how far it came, whatever the result.
fn attempt(
    cell: &PlannedCell,
    dir: &CellDir,
    context: &Context<'_>,
    open: &mut OpenTasks,
    display: &Display,
    provenance: &Provenance,
    at: &mut Position,
) -> Result<Finished> {
    let task = open_task(open, &cell.config.task, context.data)?;
    let mut meta = metadata(cell, provenance);
    let outputs = task.outputs();
    if !outputs.is_empty() {
        meta.insert("outputs".to_owned(), serde_json::json!(outputs).to_string());
    }
    let mut start = dir.load()?;
    let kept = start.as_ref().map_or(0, |(_, p)| p.parts);
    let mut sink = match PartWriter::open(&dir.path, kept, meta.clone(), allocator::exclude_this_thread) {
        Ok(sink) => sink,
        // its parts were taken away by someone: without them its rows would have a gap
        Err(e) if kept > 0 => {
            dir.log(&format!("starting again: {e}"));
            dir.clear()?;
            start = None;
            PartWriter::open(&dir.path, 0, meta, allocator::exclude_this_thread)?
        }
        Err(e) => return Err(e.into()),
    };
    match &start {
        Some((_, p)) => {
            dir.log(&format!("continuing at update {} of its checkpoint", p.updates));
            *at = p.clone();
        }
        None => dir.log("starting"),
    }
    let bar = display.start(cell);
    let mut progress = |p| bar.update(p);
    let mut job = Job {
        config: &cell.config,
        task: &*task,
        dir,
        device: context.device,
        interrupt: context.interrupt,
        limit: context.limit,
        progress: &mut progress,
    };
    let outcome = run_cell(&mut job, &mut sink, start.as_ref().map(|(s, _)| s), at);
    // rows of a cell that failed or was stopped are worth reading too
    match (&outcome, sink.publish()) {
        (Ok(_), Err(e)) => return Err(e.into()),
        (Err(_), Err(e)) => dir.log(&format!("its rows could not be written: {e}")),
        _ => {}
    }
    outcome
}

fn fill(status: &mut Status, done: &Finished, at: &Position, facts: &[Metric], energy: &CostModel) {
    status.outcome = done.outcome;
    status.reason = match done.outcome {
        Outcome::TimedOut => {
            Some(format!("stopped after {:.0} s of training; run again with more time to continue", at.elapsed_s))
        }
        Outcome::Interrupted => Some(format!("interrupted after update {}; run again to continue", at.updates)),
        _ => None,
    };
    status.metrics.clone_from(&done.scores.metrics);
    if done.outcome == Outcome::Completed {
        status.metrics.extend_from_slice(facts);
        if at.sparsity.1 > 0 {
            let mean = at.sparsity.0 / at.sparsity.1 as f64;
            status.metrics.push(Metric::plain(SPIKE_SPARSITY, Some(mean), at.sparsity.1));
        }
        status.metrics.extend(at.operations.metrics(energy, Sizes::of(&done.cost)));
        if let Some(share) = at.pruned_share {
            status.metrics.push(Metric::plain(PRUNED_SHARE, Some(share), at.step));
        }
    }
    status.state_bytes = Some(done.cost.state_bytes);
}

/// Whether a metric is of training, not of the evaluated split.
fn is_of_training(name: &str) -> bool {
    let counts = Totals { tail_seen: 1, ..Totals::default() }.metrics(&CostModel::default(), Sizes::default());
    name == SPIKE_SPARSITY || counts.iter().any(|m| m.name == name)
}

/// Mean over training, not over the evaluated split.
const SPIKE_SPARSITY: &str = "spike_sparsity";
/// At the end of training.
const PRUNED_SHARE: &str = "pruned_share";

/// A status for a cell that was not run, with the reason.
pub(crate) fn skipped(cell: &PlannedCell, reason: &str) -> Status {
    Status {
        outcome: Outcome::Skipped,
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        metrics: Vec::new(),
        split: cell.config.task.settings().selection().scored().name().into(),
        parameters: Some(cell.parameters),
        state_bytes: None,
        seen: 0,
        updates: 0,
        train_s: 0.0,
        data_wait_s: None,
        peak_bytes: None,
        provenance: Provenance::default(),
    }
}

fn provenance(cell: &PlannedCell, device: &Device, build: &Build) -> Provenance {
    Provenance {
        version: build.version.to_owned(),
        git_commit: build.git_commit.map(str::to_owned),
        git_dirty: build.git_dirty,
        lock_sha256: sha256_hex(include_bytes!("../../../Cargo.lock")),
        device: device_name(device),
        instruction_set: Some(InstructionSet::in_use().name().to_owned()),
        threads: rayon::current_num_threads() as u64,
        data: cell.data.clone(),
        started_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    }
}

/// `cpu` or `cuda:N`.
#[must_use]
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

fn metadata(cell: &PlannedCell, p: &Provenance) -> Metadata {
    let config = serde_json::to_string(&cell.config).unwrap_or_default();
    let mut meta = BTreeMap::from([
        ("schema".to_owned(), "1".to_owned()),
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

/// Writes `results.parquet`: every planned cell has a row, whatever became of it.
///
/// # Errors
/// If the system refuses.
pub fn write_table(plan: &Plan, statuses: &[Status], run: &Path) -> Result<PathBuf> {
    let mut rows = Vec::new();
    for (cell, status) in plan.cells.iter().zip(statuses) {
        let c = &cell.config;
        let base = ResultRow {
            experiment: plan.experiment.clone(),
            scale: c.scale.clone(),
            cell: cell.id.clone(),
            task: c.task_name.clone(),
            model: c.model_name.clone(),
            kind: c.model.info().kind.into(),
            seed: c.seed,
            outcome: status.outcome.name().into(),
            reason: status.reason.clone(),
            parameters: status.parameters,
            seen: status.seen,
            updates: status.updates,
            train_s: status.train_s,
            data_wait_s: status.data_wait_s,
            state_bytes: status.state_bytes,
            peak_bytes: status.peak_bytes,
            device: status.provenance.device.clone(),
            threads: status.provenance.threads,
            instruction_set: status.provenance.instruction_set.clone(),
            version: Some(status.provenance.version.clone()).filter(|version| !version.is_empty()),
            git_commit: status.provenance.git_commit.clone(),
            git_dirty: status.provenance.git_dirty,
            data: Some(cell.data.clone()),
            cost_model: Some(c.energy.name.clone()),
            config: c.flat(),
            ..ResultRow::default()
        };
        if status.metrics.is_empty() {
            rows.push(base.clone());
        }
        for m in &status.metrics {
            rows.push(ResultRow {
                split: Some(if is_of_training(&m.name) { TRAIN_SPLIT.to_owned() } else { status.split.clone() }),
                metric: Some(m.name.clone()),
                value: m.value,
                n: Some(m.n),
                low: m.low,
                high: m.high,
                ..base.clone()
            });
        }
    }
    let path = run.join("results.parquet");
    write_results(&path, &rows, &BTreeMap::from([("schema".to_owned(), "1".to_owned())]))?;
    Ok(path)
}
