//! `harness worker`: cells of a plan in this process, as array tasks want them, or as they come on standard input.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Args;

use super::{interrupted, parse_device, parse_limit};
use crate::error::{Error, Result, exit};
use crate::measure::instructions::count_steps;
use crate::plan::{OpenTasks, Plan, PlannedCell};
use crate::progress::Display;
use crate::schedule::{Attempt, Build, Context, attempt, worker};
use crate::store::seal::Stored;
use crate::store::{CellDir, Outcome, Status};
use ::data::fetch::report::Mode;

#[derive(Args)]
pub(super) struct WorkerArgs {
    /// Plan file of a run directory
    #[arg(long)]
    plan: PathBuf,
    /// Which cell of it, from 0
    #[arg(long, required_unless_present_any = ["cell", "serve"])]
    index: Option<usize>,
    /// Which cells of it, by their ids with commas between them, one after another; unlike indices they mean the same when a plan grows
    #[arg(long, value_name = "ID", value_delimiter = ',', conflicts_with = "index")]
    cell: Vec<String>,
    /// Take cells from standard input until it ends
    #[arg(long, hide = true, conflicts_with_all = ["index", "cell"])]
    serve: bool,
    /// Train so many steps of one cell for valgrind to count, and store nothing
    #[arg(long, hide = true, value_name = "N", conflicts_with = "serve")]
    count_steps: Option<u64>,
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Longest training time, in seconds
    #[arg(long, value_name = "S")]
    limit_seconds: Option<f64>,
    /// Write event files for `TensorBoard` too, to the folder `tensorboard` of the run directory
    #[arg(long)]
    tensorboard: bool,
}

pub(super) fn run(args: &WorkerArgs, mode: Mode, build: &Build) -> Result<u8> {
    let devices = parse_device(&args.device)?;
    let interrupt = interrupted()?;
    let run = args.plan.parent().unwrap_or(Path::new("."));
    let limit = parse_limit(args.limit_seconds)?;
    let plain = Context::new(run, &args.data, &devices, &interrupt, build);
    let context = Context { limit, tensorboard: args.tensorboard, ..plain };
    if args.serve {
        worker::serve(&context, &interrupt)?;
        return Ok(exit::DONE);
    }
    let (plan, mut code) = (Plan::read(&args.plan)?, exit::DONE);
    let (names, mut open) = (plan.names(), OpenTasks::new());
    if let Some(steps) = args.count_steps {
        for cell in indices(args, &plan)?.into_iter().filter_map(|index| plan.cells.get(index)) {
            count_steps(cell, steps, &args.data, &devices)?;
        }
        return Ok(exit::DONE);
    }
    for index in indices(args, &plan)? {
        let (Some(cell), Some(name)) = (plan.cells.get(index), names.get(index)) else {
            let have = plan.cells.len();
            return Err(Error::Usage(format!("--index {index}: {} has {have} cells, from 0", args.plan.display())));
        };
        if !cell.id.bytes().all(|byte| byte.is_ascii_hexdigit()) || cell.id.is_empty() {
            return Err(Error::Usage(format!("{}: cell {index} has no id of a cell", args.plan.display())));
        }
        code = code.max(one_of_plan(cell, name, &context, &mut open, mode)?);
        if interrupt.load(Ordering::Relaxed) {
            return Ok(exit::INTERRUPTED);
        }
    }
    Ok(code)
}

/// The cells that are asked for, by their places in the plan.
fn indices(args: &WorkerArgs, plan: &Plan) -> Result<Vec<usize>> {
    let of = |id: &String| {
        let place = plan.cells.iter().position(|cell| cell.id == *id);
        place.ok_or_else(|| Error::Usage(format!("--cell {id}: {} has no such cell", args.plan.display())))
    };
    args.index.map_or_else(|| args.cell.iter().map(of).collect(), |index| Ok(vec![index]))
}

/// Runs a cell in this process, unless it is finished or another process has it.
fn one_of_plan(cell: &PlannedCell, name: &str, context: &Context<'_>, open: &mut OpenTasks, mode: Mode) -> Result<u8> {
    let display = Display::new(mode, 1);
    let dir = CellDir::open(context.run, &cell.id)?;
    let known = dir.status_mark();
    if let Stored::Whole(status) = dir.checked_status()?
        && status.outcome.is_final()
    {
        display.cached(cell, name, &status);
        return Ok(code_of(&status));
    }
    let bar = display.start(name);
    let done = attempt(cell, known.as_deref(), context, open, &mut |progress| bar.update(progress))?;
    drop(bar);
    Ok(match done {
        Attempt::Held => {
            display.note(name, "another process works on it");
            exit::SOME_FAILED
        }
        Attempt::Done(status) => {
            display.finished(cell, name, &status);
            code_of(&status)
        }
    })
}

fn code_of(status: &Status) -> u8 {
    if status.outcome == Outcome::Completed { exit::DONE } else { exit::SOME_FAILED }
}
