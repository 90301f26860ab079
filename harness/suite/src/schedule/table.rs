//! The table of a run: every planned cell has a row, whatever became of it, and every row is what is on disk now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use rayon::prelude::*;

use super::skipped;
use crate::error::{Error, Result};
use crate::measure::energy::{CostModel, Sizes};
use crate::measure::operations::Totals;
use crate::plan::{Plan, PlannedCell};
use crate::store::seal::Stored;
use crate::store::{Cause, CellDir, Outcome, Status};
use crate::tasks::Metric;
use data::files::Held;
use metrics::TRAIN_SPLIT;
use metrics::stream::{PREQUENTIAL, is_of_change};
use rows::results::{ResultRow, write_results};

use super::attempt::SPIKE_SPARSITY;

/// Takes a run directory's lock, under which its plan, its table and its report are written: whoever takes it last has read what all the
/// others left.
///
/// # Errors
/// If the system refuses.
pub fn lock(run: &Path) -> Result<Held> {
    let path = run.join(".lock");
    Held::wait(&path).map_err(Error::io(&path))
}

/// Writes `results.parquet`, under the directory's lock.
///
/// # Errors
/// If the system refuses.
pub fn write(run: &Path, rows: &[ResultRow], _: &Held) -> Result<()> {
    write_results(&run.join("results.parquet"), rows, &rows::parquet::versioned())
        .map_err(Error::from)
        .map_err(Error::of_output)
}

/// The rows of a run directory as its cells are now. `known` holds what could not be written to a cell's folder.
///
/// # Errors
/// If there is no plan, or it is damaged, or the system refuses to read.
pub fn rows(run: &Path, known: &BTreeMap<String, Status>) -> Result<Vec<ResultRow>> {
    let plan = Plan::read(&run.join("plan.json"))?;
    let of = |cell: &PlannedCell| cell_rows(&plan, cell, &status(run, cell, known));
    let rows: Vec<Vec<ResultRow>> = plan.cells.par_iter().map(of).collect();
    Ok(rows.into_iter().flatten().collect())
}

/// What is known of a cell.
fn status(run: &Path, cell: &PlannedCell, known: &BTreeMap<String, Status>) -> Status {
    // what cannot even be looked at is damaged like what can
    let stored = CellDir::of(run, &cell.id).checked_status().unwrap_or_else(|e| Stored::Damaged(e.to_string()));
    match (stored, known.get(&cell.id)) {
        (Stored::Whole(status), _) => status,
        (Stored::Absent | Stored::Damaged(_), Some(known)) => known.clone(),
        (Stored::Absent, None) => skipped(cell, NOT_RUN),
        (Stored::Damaged(problem), None) => Status {
            outcome: Outcome::Failed,
            cause: Some(Cause::Outside),
            ..skipped(cell, &format!("damaged: {problem}; it will be run again"))
        },
    }
}

/// Why a cell has no outcome yet.
pub const NOT_RUN: &str = "not run yet";

/// One row for each of a cell's metrics, or one without a metric.
fn cell_rows(plan: &Plan, cell: &PlannedCell, status: &Status) -> Vec<ResultRow> {
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
        cause: status.cause.map(|cause| cause.name().to_owned()),
        notes: Some(status.notes.join("\n")).filter(|notes| !notes.is_empty()),
        parameters: status.parameters,
        seen: status.seen,
        updates: status.updates,
        train_s: status.train_s,
        data_wait_s: status.data_wait_s,
        state_bytes: status.state_bytes,
        peak_bytes: status.peak_bytes,
        allocations: status.allocations,
        device: status.provenance.device.clone(),
        threads: status.provenance.threads,
        instruction_set: status.provenance.instruction_set.clone(),
        version: Some(status.provenance.version.clone()).filter(|version| !version.is_empty()),
        git_commit: status.provenance.git_commit.clone(),
        git_dirty: status.provenance.git_dirty,
        git_diff_sha256: status.provenance.git_diff_sha256.clone(),
        compiler: status.provenance.compiler.clone(),
        command: status.provenance.command.clone(),
        processor: status.provenance.processor.clone(),
        calibration_s: status.calibration_s,
        data: Some(cell.data.clone()),
        data_identity: cell.data_identity.clone(),
        cost_model: Some(c.energy.name.clone()),
        config: c.flat().into(),
        ..ResultRow::default()
    };
    if status.metrics.is_empty() {
        return vec![base];
    }
    let row = |m: &Metric| ResultRow {
        split: Some(if is_of_training(&m.name) { TRAIN_SPLIT.to_owned() } else { status.split.clone() }),
        metric: Some(m.name.clone()),
        value: m.value,
        n: Some(m.n),
        low: m.low,
        high: m.high,
        ..base.clone()
    };
    status.metrics.iter().map(row).collect()
}

/// Whether a metric is of training, not of the evaluated split.
fn is_of_training(name: &str) -> bool {
    static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let counts = Totals { tail_seen: 1, ..Totals::default() }.metrics(&CostModel::default(), Sizes::default());
        counts.into_iter().map(|m| m.name).chain([SPIKE_SPARSITY, PREQUENTIAL].map(str::to_owned)).collect()
    });
    NAMES.contains(name) || is_of_change(name)
}
