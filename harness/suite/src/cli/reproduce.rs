//! `harness reproduce CELL`: a finished cell once more, and whether it gives the same.

use std::path::PathBuf;

use clap::Args;

use super::{Scratch, interrupted, parse_device, planned_cell};
use crate::error::{Error, Result, exit};
use crate::plan::OpenTasks;
use crate::progress::Display;
use crate::schedule::{Attempt, Build, Context, attempt};
use crate::store::seal::Stored;
use crate::store::{CellDir, Status};
use ::data::fetch::report::Mode;

#[derive(Args)]
pub(super) struct ReproduceArgs {
    /// Folder of a cell: `RUN/cells/ID`
    cell: PathBuf,
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Metrics that differ: name, stored value, value now.
fn differences(stored: &Status, now: &Status) -> Vec<String> {
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let text = |value: Option<f64>| value.map_or_else(|| "undefined".to_owned(), |value| value.to_string());
    let mut all = Vec::new();
    for metric in &stored.metrics {
        match now.metrics.iter().find(|other| other.name == metric.name) {
            None => all.push(format!("{}: was {}, is not there", metric.name, text(metric.value))),
            Some(other) if bits(other.value) != bits(metric.value) => {
                all.push(format!("{}: was {}, is {}", metric.name, text(metric.value), text(other.value)));
            }
            Some(_) => {}
        }
    }
    let new = now.metrics.iter().filter(|metric| !stored.metrics.iter().any(|other| other.name == metric.name));
    all.extend(new.map(|metric| format!("{}: is {}, was not there", metric.name, text(metric.value))));
    all
}

pub(super) fn run(args: &ReproduceArgs, mode: Mode, build: &Build) -> Result<u8> {
    let (run, plan, index) = planned_cell(&args.cell)?;
    let (cell, names) = (&plan.cells[index], plan.names());
    let id = &cell.id;
    let Stored::Whole(stored) = CellDir::of(run, id).checked_status()? else {
        return Err(Error::Usage(format!("{}: expected a cell of its run's plan that was run", args.cell.display())));
    };
    let devices = parse_device(&args.device)?;
    let interrupt = interrupted()?;
    let folder = Scratch::beside(run);
    let context = Context::new(&folder.0, &args.data, &devices, &interrupt, build);
    let display = Display::new(mode, 1);
    let bar = display.start(&names[index]);
    let done = attempt(cell, None, &context, &mut OpenTasks::new(), &mut |progress| bar.update(progress));
    drop(bar);
    let Attempt::Done(now) = done? else { return Err(Error::Report("another process has the new folder".to_owned())) };
    let (before, after) = (&stored.provenance, &now.provenance);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    for (what, was, is) in [
        ("processor", text(&before.processor), text(&after.processor)),
        ("instruction set", text(&before.instruction_set), text(&after.instruction_set)),
        ("device", before.device.clone(), after.device.clone()),
        ("compiler", text(&before.compiler), text(&after.compiler)),
        ("commit", text(&before.git_commit), text(&after.git_commit)),
    ] {
        if was != is {
            crate::say!("{what}: was {was}, is {is}");
        }
    }
    if stored.outcome != now.outcome {
        let reason = now.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        crate::say!("outcome: was {}, is {}{reason}", stored.outcome.name(), now.outcome.name());
        return Ok(exit::SOME_FAILED);
    }
    let differences = differences(&stored, &now);
    for line in &differences {
        crate::say!("{line}");
    }
    if differences.is_empty() {
        crate::say!("{id}: {} metrics, all bit-identical", stored.metrics.len());
        return Ok(exit::DONE);
    }
    crate::say!("{id}: {} of {} metrics differ", differences.len(), stored.metrics.len());
    Ok(exit::SOME_FAILED)
}
