//! `harness run`: plans, works, writes the table and the report.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use super::report::{render, unchanged};
use super::{Select, check_name, interrupted, parse_limit, tell_of_data, unwritable};
use crate::cluster;
use crate::error::{Error, Result, exit};
use crate::plan::{OpenTasks, Plan, PlannedCell};
use crate::progress::Display;
use crate::schedule::{Build, Context, Pool, Worked, table, work};
use crate::store::{Cause, Outcome};
use ::data::fetch::report::Mode;

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    select: Select,
    /// Longest training time of a cell, in seconds
    #[arg(long, value_name = "S")]
    limit_seconds: Option<f64>,
    /// Cells at once, each in a process of its own that gets its share of the processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Folder under --out; default: the experiment's name, with the scale behind it if that is not the grid's default
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take this plan in place of the one that is there, though it leaves out cells that have results
    #[arg(long)]
    replace: bool,
    /// Of cells that failed before, run only those of these causes again
    #[arg(long, value_name = "CAUSE", value_delimiter = ',')]
    retry: Option<Vec<Cause>>,
    /// Start no more cells once one has failed
    #[arg(long)]
    fail_fast: bool,
    /// End a cell that shows no progress for so long, in seconds
    #[arg(long, value_name = "S", default_value_t = 900.0)]
    stall_seconds: f64,
    /// Write event files for `TensorBoard` too, to the folder `tensorboard` of the run directory
    #[arg(long)]
    tensorboard: bool,
}

pub(super) fn run(args: &RunArgs, mode: Mode, build: &Build) -> Result<u8> {
    let select = &args.select;
    let limit = parse_limit(args.limit_seconds)?;
    if args.jobs == 0 {
        return Err(Error::Usage("--jobs 0: expected a number from 1 up".into()));
    }
    args.name.as_deref().map_or(Ok(()), check_name)?;
    let stall = Duration::try_from_secs_f64(args.stall_seconds).ok().filter(|stall| *stall > Duration::ZERO);
    let Some(stall) = stall else {
        return Err(Error::Usage(format!("--stall-seconds {}: expected a number above 0", args.stall_seconds)));
    };
    let pool = Pool { jobs: args.jobs, stall, fail_fast: args.fail_fast, retry: args.retry.clone() };
    let devices = select.devices()?;
    let interrupt = interrupted()?;
    let mut open = OpenTasks::new();
    // every grid is checked before the first cell of any of them starts
    let plans = select
        .grids
        .iter()
        .map(|grid| Plan::build(grid, &select.selection(), &select.data, &devices, &mut open))
        .collect::<Result<Vec<_>>>()?;
    tell_of_data(&open);
    drop(open); // cells run in processes of their own, which open what they need
    if args.name.is_some() && plans.len() > 1 {
        return Err(Error::Usage(format!("--name: {} grids cannot have one folder: expected one grid", plans.len())));
    }
    let folder = |plan: &Plan| select.out.join(args.name.clone().unwrap_or_else(|| plan.folder()));
    let runs: Vec<PathBuf> = plans.iter().map(folder).collect();
    if let Some(twice) = runs.iter().enumerate().find(|(i, run)| runs[..*i].contains(run)).map(|(_, run)| run) {
        return Err(Error::Usage(format!(
            "{}: two of the grids have this folder\n  expected: one grid for each\n  next: run them one after another, one with --name",
            twice.display()
        )));
    }
    // before anything is trained: a folder that cannot be written, or holds another plan, is a wrong command line
    let working = plans.iter().zip(&runs).map(|(plan, run)| plan.write(run, args.replace).map_err(unwritable));
    let _working = working.collect::<Result<Vec<_>>>()?;
    for folder in runs.iter().map(|run| run.join("tensorboard")).filter(|_| args.tensorboard) {
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder)).map_err(unwritable)?;
    }
    let mut code = exit::DONE;
    for (plan, run) in plans.iter().zip(&runs) {
        let active = cluster::settle(plan, run, cluster::Ends::Record)?;
        let plain = Context::new(run, &select.data, &devices, &interrupt, build);
        let context = Context { limit, tensorboard: args.tensorboard, ..plain };
        let display = Display::new(mode, plan.cells.iter().filter(|cell| cell.selected).count() as u64);
        let Worked { statuses, any } = work(plan, &context, &pool, &active, &display)?;
        let held = table::lock(run)?;
        let rows = table::rows(run, &statuses)?;
        let last = if any { None } else { unchanged(&rows, run)? };
        let (text, problems) = if let Some(text) = last {
            (text, Vec::new())
        } else {
            let written = table::write(run, &rows, &held);
            let (text, rendered) = render(&[::report::Stored::Run { dir: run.clone(), rows }], run)?;
            (text, [written, rendered].into_iter().filter_map(Result::err).collect())
        };
        crate::say_on!("{text}");
        drop(held);
        display.total(run, &statuses);
        for e in problems {
            ::data::tell!(
                "{e}\n  next: make room or choose another folder with --out, and run again: nothing is trained twice"
            );
            code = exit::SOME_FAILED;
        }
        let done = |cell: &PlannedCell| statuses.get(&cell.id).is_some_and(|s| s.outcome == Outcome::Completed);
        if !plan.cells.iter().filter(|cell| cell.selected).all(done) {
            code = exit::SOME_FAILED;
        }
    }
    Ok(if interrupt.load(Ordering::Relaxed) { exit::INTERRUPTED } else { code })
}
