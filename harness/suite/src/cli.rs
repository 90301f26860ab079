//! The command line.

mod data;
mod gate;
mod inspect;
mod launch;
mod list;
mod mini;
mod reproduce;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;
use clap::{Args, Parser, Subcommand, ValueEnum};
use learner::product::InstructionSet;

use crate::cluster;
use crate::error::{Error, Result, exit};
use crate::plan::{OpenTasks, Plan, PlannedCell, memory_floor};
use crate::progress::Display;
use crate::schedule::{Attempt, Build, Context, Pool, Worked, attempt, device_name, table, work, worker};
use crate::store::seal::{self, Stored};
use crate::store::{Cause, CellDir, Outcome, Status};
use ::data::fetch::report::Mode;
use grid::Selection;
use rows::results::ResultRow;
use serde::{Deserialize, Serialize};

const EXIT_CODES: &str = "\
Exit codes:
  0    all selected cells are done
  1    some cells failed; the rest are done and reported
  2    wrong usage or configuration; nothing was started
  3    regression (gate)
  4    data missing or corrupt
  130  interrupted; a checkpoint was written

--only EXPR: conditions joined by `,`, alternatives by `|`: model=bim|lstm,seed!=1,bim.lambda=0.5

Examples:
  harness run experiments/quickstart.yaml
  harness run experiments/table1_language.yaml --scale sample --data DIR --jobs 2
  harness plan experiments/ablation_lambda.yaml --only 'model=bim,seed=1'
  harness compare runs/before runs/after
  harness gate --baseline reports/baselines/ci.parquet runs/ci";

/// Runs experiment grids, records every step to Parquet, and renders comparison tables.
#[derive(Parser)]
#[command(name = "harness", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Show no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Form of progress lines on stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Train every cell of the grids that is not finished, write results, render the report, print the table
    Run(RunArgs),
    /// Show what would run; train nothing
    Plan(PlanArgs),
    /// Render reports from stored results alone
    Report(ReportArgs),
    /// Run one cell of a plan
    Worker(WorkerArgs),
    /// Hold one run against another, cell by cell: what differs, by how much, and whether that can be told from chance
    Compare(gate::CompareArgs),
    /// Fail where a run is worse than a baseline, for CI
    Gate(gate::GateArgs),
    /// Write the file that `gate` holds runs against
    Baseline(gate::BaselineArgs),
    /// Run a finished cell again and say whether it is bit-identical
    Reproduce(reproduce::ReproduceArgs),
    /// Submit the cells of a grid to a cluster
    #[command(subcommand)]
    Launch(LaunchCommand),
    /// Datasets
    #[command(subcommand)]
    Data(DataCommand),
    /// Show what there is: kinds of models and tasks, metrics, cost models
    List(list::ListArgs),
}

#[derive(Args)]
struct Select {
    /// Grid files
    #[arg(required = true)]
    grids: Vec<PathBuf>,
    /// Folder of run directories
    #[arg(long, default_value = "runs")]
    out: PathBuf,
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Override a value, such as train.seen=100000 or bim.lambda=1
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Run a part of the cells, such as model=bim|lstm,seed=1
    #[arg(long, value_name = "EXPR")]
    only: Option<String>,
    /// Prices of operations: a known list such as horowitz-2014-fp32 or loihi-2018, or a .yaml file
    #[arg(long, value_name = "NAME|FILE")]
    cost_model: Option<String>,
    /// Named scale of the grid file
    #[arg(long, value_name = "NAME")]
    scale: Option<String>,
}

#[derive(Args)]
struct RunArgs {
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
}

#[derive(Args)]
struct WorkerArgs {
    /// Plan file of a run directory
    #[arg(long)]
    plan: PathBuf,
    /// Which cell of it, from 0; several with commas between them, one after another
    #[arg(long, value_delimiter = ',', required_unless_present = "serve")]
    index: Vec<usize>,
    /// Take cells from standard input until it ends
    #[arg(long, hide = true, conflicts_with = "index")]
    serve: bool,
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Longest training time, in seconds
    #[arg(long, value_name = "S")]
    limit_seconds: Option<f64>,
}

#[derive(Args)]
struct PlanArgs {
    #[command(flatten)]
    select: Select,
    /// Machine-readable
    #[arg(long)]
    json: bool,
    /// Write `plan.json` to the run directory
    #[arg(long)]
    write: bool,
}

#[derive(Args)]
struct ReportArgs {
    /// Run directories or results files
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write to; default: each run directory. Of a results file only the tables are printed
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum LaunchCommand {
    /// Write the plan and array scripts, submit them, and return; `harness run` on the same folder collects
    Slurm(Box<launch::SlurmArgs>),
}

#[derive(Subcommand)]
enum DataCommand {
    /// Show the datasets, their licences and sizes, and what of them is there
    List(data::ListArgs),
    /// Download what is missing: resumed, verified, unpacked
    Fetch(data::FetchArgs),
    /// Hold what is there against published and recorded checksums
    Verify(data::VerifyArgs),
    /// Take files that you already have into the data directory
    Import(data::ImportArgs),
    /// Show what is in recordings and dataset folders, with digests of the decoded samples
    Inspect(inspect::InspectArgs),
    /// Generate small datasets in the publishers' layouts, or those that a grid file asks for
    Mini(mini::MiniArgs),
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main(build: &Build) -> ExitCode {
    let cli = Cli::parse();
    rows::parquet::hide_caught_panics();
    let mode = match (cli.quiet, cli.log_format) {
        (true, _) => Mode::Quiet,
        (false, LogFormat::Json) => Mode::Json,
        (false, LogFormat::Human) => Mode::Human,
    };
    let result = match &cli.command {
        Command::Run(args) => run(args, mode, build),
        Command::Plan(args) => plan(args),
        Command::Report(args) => run_report(args),
        Command::Worker(args) => work_alone(args, mode, build),
        Command::Compare(args) => gate::run_compare(args),
        Command::Gate(args) => gate::run_gate(args, mode, build),
        Command::Baseline(args) => gate::run_baseline(args),
        Command::Reproduce(args) => reproduce::run(args, mode, build),
        Command::Launch(LaunchCommand::Slurm(args)) => launch::slurm(args),
        Command::List(args) => Ok(list::run(args)),
        Command::Data(DataCommand::List(args)) => data::list(args),
        Command::Data(DataCommand::Fetch(args)) => data::fetch(args, mode),
        Command::Data(DataCommand::Verify(args)) => data::verify(args, mode),
        Command::Data(DataCommand::Import(args)) => data::import(args, mode),
        Command::Data(DataCommand::Inspect(args)) => inspect::run(args),
        Command::Data(DataCommand::Mini(args)) => mini::run(args),
    };
    match result {
        Ok(_) if crate::cut_off() => {
            ::data::tell!("error: standard output could not be written to its end");
            ExitCode::from(exit::SOME_FAILED)
        }
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            ::data::tell!("{e}");
            ExitCode::from(e.exit_code())
        }
    }
}

impl Select {
    fn selection(&self) -> Selection {
        Selection {
            scale: self.scale.clone(),
            set: self.set.clone(),
            only: self.only.clone(),
            cost_model: self.cost_model.clone(),
        }
    }

    fn device(&self) -> Result<Device> {
        parse_device(&self.device)
    }
}

/// The device of `--device`; checks that matrix products run where `HARNESS_ISA` says, if it does.
fn parse_device(text: &str) -> Result<Device> {
    InstructionSet::choose().map_err(Error::Usage)?;
    let cuda = |n| Device::new_cuda(n).map_err(|e| Error::Usage(format!("--device cuda:{n}: {e}")));
    match text {
        "auto" if candle_core::utils::cuda_is_available() => cuda(0),
        "auto" | "cpu" => Ok(Device::Cpu),
        other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(n) => cuda(n),
            None => Err(Error::Usage(format!("--device {other}: expected auto, cpu or cuda:N"))),
        },
    }
}

fn run(args: &RunArgs, mode: Mode, build: &Build) -> Result<u8> {
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
    let device = select.device()?;
    let interrupt = interrupted()?;
    let mut open = OpenTasks::new();
    // every grid is checked before the first cell of any of them starts
    let plans = select
        .grids
        .iter()
        .map(|grid| Plan::build(grid, &select.selection(), &select.data, &device, &mut open))
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
    let mut code = exit::DONE;
    for (plan, run) in plans.iter().zip(&runs) {
        let active = cluster::settle(plan, run)?;
        let context = Context { run, data: &select.data, device: &device, interrupt: &interrupt, build, limit };
        let display = Display::new(mode, plan.cells.iter().filter(|cell| cell.selected).count() as u64);
        let Worked { statuses, any } = work(plan, &context, &pool, &active, &display)?;
        let held = table::lock(run)?;
        let rows = table::rows(run, &statuses)?;
        let written = table::write(run, &rows, &held);
        let stored = report::Stored::Run { dir: run.clone(), rows };
        let (text, rendered) =
            if any || written.is_err() { render(&[stored], run)? } else { last_report(stored, run)? };
        crate::say_on!("{text}");
        drop(held);
        display.total(run, &statuses);
        for e in [written, rendered].into_iter().filter_map(Result::err) {
            ::data::tell!(
                "{e}\n  next: make room or choose another folder with --out, and run again: nothing is trained twice"
            );
            code = exit::SOME_FAILED;
        }
        let done =
            |cell: &crate::plan::PlannedCell| statuses.get(&cell.id).is_some_and(|s| s.outcome == Outcome::Completed);
        if !plan.cells.iter().filter(|cell| cell.selected).all(done) {
            code = exit::SOME_FAILED;
        }
    }
    Ok(if interrupt.load(Ordering::Relaxed) { exit::INTERRUPTED } else { code })
}

/// An output that cannot be written is a wrong command line.
fn unwritable(e: Error) -> Error {
    match e {
        Error::Io { path, source } => {
            Error::Usage(format!("{}: {source}\n  next: choose another folder with --out", path.display()))
        }
        other => other,
    }
}

/// A folder's name from the command line.
fn check_name(name: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.chars().all(known) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::Usage(format!("--name {name}: expected letters, digits, `_`, `-` and `.`, and no `.` at the beginning")))
}

/// What of the data was not taken as it was found.
fn tell_of_data(open: &OpenTasks) {
    for task in open.values() {
        for group in task.account().groups() {
            ::data::tell!("data: {group}");
        }
    }
}

fn parse_limit(seconds: Option<f64>) -> Result<Option<Duration>> {
    match seconds {
        Some(s) if s > 0.0 => Ok(Duration::try_from_secs_f64(s).ok()), // longer than a clock can tell: no limit
        Some(s) => Err(Error::Usage(format!("--limit-seconds {s}: expected a number above 0"))),
        None => Ok(None),
    }
}

fn work_alone(args: &WorkerArgs, mode: Mode, build: &Build) -> Result<u8> {
    let device = parse_device(&args.device)?;
    let interrupt = interrupted()?;
    let run = args.plan.parent().unwrap_or(Path::new("."));
    let limit = parse_limit(args.limit_seconds)?;
    let context = Context { run, data: &args.data, device: &device, interrupt: &interrupt, build, limit };
    if args.serve {
        worker::serve(&context, &interrupt)?;
        return Ok(exit::DONE);
    }
    let (plan, mut code) = (Plan::read(&args.plan)?, exit::DONE);
    let (names, mut open) = (plan.names(), OpenTasks::new());
    for &index in &args.index {
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

/// Signals within so long are one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// What a signal sets; signals are caught from the first call on.
fn interrupted() -> Result<Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(Arc::clone(flag));
    }
    let flag = Arc::clone(FLAG.get_or_init(Arc::default));
    let set = Arc::clone(&flag);
    let first = Mutex::new(None::<Instant>);
    ctrlc::set_handler(move || {
        // a process and its group may each be sent the same signal
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        let again = first.is_some_and(|first| first.elapsed() > ONE_SIGNAL);
        if first.is_some() && !again {
            return;
        }
        first.get_or_insert_with(Instant::now);
        set.store(true, Ordering::Relaxed);
        if again {
            // asked twice: no checkpoint, at once; what was finished is on disk
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
        ::data::tell!("stopping after this step; a checkpoint will be written (again to stop at once)");
    })
    .map_err(|e| Error::Usage(format!("signals cannot be caught: {e}")))?;
    Ok(flag)
}

fn plan(args: &PlanArgs) -> Result<u8> {
    let select = &args.select;
    let device = select.device()?;
    let mut open = OpenTasks::new();
    for grid in &select.grids {
        let plan = Plan::build(grid, &select.selection(), &select.data, &device, &mut open)?;
        tell_of_data(&open);
        let run = select.out.join(plan.folder());
        if args.write {
            plan.write(&run, false).map_err(unwritable)?;
        }
        let settings = plan.settings();
        let rows = plan
            .cells
            .iter()
            .zip(&settings)
            .filter(|(c, _)| c.selected)
            .map(|(c, settings)| Ok((c, settings, known(&run, &c.id)?)))
            .collect::<Result<Vec<_>>>()?;
        if args.json {
            let cells: Vec<_> = rows
                .iter()
                .map(|(c, _, status)| {
                    serde_json::json!({
                        "id": c.id, "task": c.config.task_name, "model": c.config.model_name, "seed": c.config.seed,
                        "parameters": c.parameters, "seen": c.seen, "cached": status.is_some_and(Outcome::is_final),
                        "outcome": status.map(Outcome::name), "memory_bytes_at_least": memory_floor(c),
                        "config": c.config,
                    })
                })
                .collect();
            crate::say!("{}", serde_json::json!({"experiment": plan.experiment, "scale": plan.scale, "cells": cells}));
            continue;
        }
        crate::say!("{} at scale {}, {} cells on {}", plan.experiment, plan.scale, rows.len(), device_name(&device));
        crate::say!(
            "{:16}  {:28}  {:>10}  {:>12}  {:>10}  {:11}  settings",
            "cell",
            "task model seed",
            "parameters",
            "seen",
            "memory",
            "state"
        );
        for (c, settings, status) in rows {
            let name = format!("{} {} {}", c.config.task_name, c.config.model_name, c.config.seed);
            let memory = format!(">= {:.0} MiB", memory_floor(c) as f64 / f64::from(1 << 20));
            let state = status.map_or("to run", Outcome::name);
            crate::say!(
                "{:16}  {name:28}  {:>10}  {:>12}  {memory:>10}  {state:11}  {settings}",
                c.id,
                c.parameters,
                c.seen
            );
        }
    }
    Ok(exit::DONE)
}

fn known(run: &Path, id: &str) -> Result<Option<Outcome>> {
    Ok(CellDir::of(run, id).status()?.whole().map(|status| status.outcome))
}

fn run_report(args: &ReportArgs) -> Result<u8> {
    let stored = args.runs.iter().map(|run| as_stored(run)).collect::<Result<Vec<_>>>()?;
    let print = |stored: &[report::Stored], out: &Path| {
        let (text, written) = render(stored, out)?;
        written.map_err(unwritable)?;
        crate::say_on!("{text}");
        Ok::<(), Error>(())
    };
    if let Some(out) = &args.out {
        print(&stored, out)?;
        return Ok(exit::DONE);
    }
    for stored in stored {
        match &stored {
            // it may lie beside others, whose report one of it would replace
            report::Stored::Table(_) => crate::say_on!("{}", report::terminal(&compute_report(&[stored])?)?),
            report::Stored::Run { dir, .. } => {
                let dir = dir.clone();
                print(&[stored], &dir)?;
            }
        }
    }
    Ok(exit::DONE)
}

/// A results file as it is, a run directory as its cells are now; a folder that has only a table left is that table.
fn as_stored(path: &Path) -> Result<report::Stored> {
    if path.is_file() || path.extension().is_some_and(|extension| extension == "parquet") {
        return Ok(report::Stored::Table(path.to_owned()));
    }
    let dir = path.to_owned();
    if path.join("plan.json").exists() || path.join("cells").exists() {
        let rows = table::rows(path, &BTreeMap::new())?;
        return Ok(report::Stored::Run { dir, rows });
    }
    let rows = rows::results::read_results(&path.join("results.parquet"))?;
    Ok(report::Stored::Run { dir, rows })
}

fn compute_report(stored: &[report::Stored]) -> Result<report::Report> {
    Ok(report::compute(&report::load(stored)?, &report::Paper::embedded()?))
}

/// What is printed of a run directory whose cells were all finished before: as the last time, if its report was rendered from the same
/// rows by the same program, and rendered again if not.
fn last_report(stored: report::Stored, dir: &Path) -> Result<(String, Result<()>)> {
    let report::Stored::Run { rows, .. } = &stored else { return render(&[stored], dir) };
    let of = Rendered::key(rows);
    let known: Option<Rendered> = seal::read(&dir.join(RENDERED))?.whole();
    match known {
        Some(Rendered { key, text }) if key == of && dir.join("report/index.html").is_file() => Ok((text, Ok(()))),
        _ => render(&[stored], dir),
    }
}

/// Where it is kept what a report was rendered from.
const RENDERED: &str = "report/.rendered.json";

/// What a report was rendered from, and what was printed of it.
#[derive(Serialize, Deserialize)]
struct Rendered {
    key: String,
    text: String,
}

impl Rendered {
    /// Of the rows and of the program's file.
    fn key(rows: &[ResultRow]) -> String {
        let program = std::env::current_exe().and_then(std::fs::metadata);
        let program = program.map(|file| (file.len(), file.modified().ok())).ok();
        format!("{} {program:?}", rows::results::digest(rows))
    }
}

/// Renders every format of one report over these results: the table for the terminal, and whether the files could be written.
fn render(stored: &[report::Stored], out: &Path) -> Result<(String, Result<()>)> {
    let report = compute_report(stored)?;
    let text = report::terminal(&report)?;
    let written = report::write_all(out, &report).map(drop).map_err(Error::from).map_err(Error::of_output);
    if let (Ok(()), [report::Stored::Run { dir, rows }]) = (&written, stored)
        && dir == out
    {
        let kept = seal::write(&out.join(RENDERED), &Rendered { key: Rendered::key(rows), text: text.clone() });
        return Ok((text, kept));
    }
    Ok((text, written))
}
