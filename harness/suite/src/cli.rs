//! The command line.

mod data;
mod examples;
mod explain;
mod export;
mod gate;
mod inspect;
mod launch;
mod list;
mod mini;
mod plan;
mod report;
mod reproduce;
mod run;
mod selftest;
mod watch;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use learner::product::InstructionSet;

use crate::device::Devices;
use crate::error::{Error, Result, exit};
use crate::plan::{OpenTasks, Plan};
use crate::schedule::Build;
use ::data::fetch::report::Mode;
use grid::Selection;

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
#[command(name = "harness", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Show no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Form of progress lines on stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    /// Folder for what can be computed again, such as spectrograms and checksums; default: harness in the user's cache folder
    #[arg(long, global = true, env = "HARNESS_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Train every cell of the grids that is not finished, write results, render the report, print the table
    #[command(after_help = examples::RUN)]
    Run(run::RunArgs),
    /// Show what would run; train nothing
    #[command(after_help = examples::PLAN)]
    Plan(plan::PlanArgs),
    /// Render reports from stored results alone
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// Run one cell of a plan
    Worker(worker::WorkerArgs),
    /// Hold one run against another, cell by cell: what differs, by how much, and whether that can be told from chance
    #[command(after_help = examples::COMPARE)]
    Compare(gate::CompareArgs),
    /// Fail where a run is worse than a baseline, for CI
    #[command(after_help = examples::GATE)]
    Gate(gate::GateArgs),
    /// Write the file that `gate` holds runs against
    #[command(after_help = examples::BASELINE)]
    Baseline(gate::BaselineArgs),
    /// Run a finished cell again and say whether it is bit-identical
    #[command(after_help = examples::REPRODUCE)]
    Reproduce(reproduce::ReproduceArgs),
    /// Write a finished cell's weights to one file, with all that is needed to use them
    Export(export::ExportArgs),
    /// Show what the cells of a run directory are doing, whoever works on them
    Watch(watch::WatchArgs),
    /// Tests of this program on this machine
    #[command(subcommand)]
    Selftest(SelftestCommand),
    /// Submit the cells of a grid to a cluster
    #[command(subcommand)]
    Launch(LaunchCommand),
    /// Datasets
    #[command(subcommand)]
    Data(DataCommand),
    /// Show what there is: kinds of models and tasks, metrics, cost models
    List(list::ListArgs),
    /// Say what a key of a grid file means, what it may be, and what it is by default
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::ExplainArgs),
    /// Print what a grid file may say as JSON Schema, for editors
    Schema,
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

#[derive(Subcommand)]
enum LaunchCommand {
    /// Write the plan and array scripts, submit them, and return; `harness run` on the same folder collects
    #[command(after_help = examples::SLURM)]
    Slurm(Box<launch::SlurmArgs>),
}

#[derive(Subcommand)]
enum SelftestCommand {
    /// Kill a run at random moments, resume it, and demand bit-identical results
    Resume(selftest::ResumeArgs),
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
    if let Some(folder) = cli.cache.clone().filter(|folder| !folder.as_os_str().is_empty()) {
        ::data::cache::set(folder);
    }
    rows::parquet::hide_caught_panics();
    let mode = match (cli.quiet, cli.log_format) {
        (true, _) => Mode::Quiet,
        (false, LogFormat::Json) => Mode::Json,
        (false, LogFormat::Human) => Mode::Human,
    };
    let result = match &cli.command {
        Command::Run(args) => run::run(args, mode, build),
        Command::Plan(args) => plan::run(args),
        Command::Report(args) => report::run(args),
        Command::Worker(args) => worker::run(args, mode, build),
        Command::Compare(args) => gate::run_compare(args),
        Command::Gate(args) => gate::run_gate(args, mode, build),
        Command::Baseline(args) => gate::run_baseline(args, build),
        Command::Reproduce(args) => reproduce::run(args, mode, build),
        Command::Export(args) => export::run(args),
        Command::Launch(LaunchCommand::Slurm(args)) => launch::slurm(args),
        Command::Watch(args) => watch::run(args),
        Command::Selftest(SelftestCommand::Resume(args)) => selftest::resume(args, mode),
        Command::List(args) => Ok(list::run(args)),
        Command::Explain(args) => explain::run(args),
        Command::Schema => explain::schema(),
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

    fn devices(&self) -> Result<Devices> {
        parse_device(&self.device)
    }
}

/// The devices of `--device`; checks that matrix products run where `HARNESS_ISA` says, if it does.
fn parse_device(text: &str) -> Result<Devices> {
    InstructionSet::choose().map_err(Error::Usage)?;
    Devices::parse(text)
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

/// The run directory of a cell's folder, its plan, and the cell's place in it.
fn planned_cell(cell: &Path) -> Result<(&Path, Plan, usize)> {
    let (id, run) = (cell.file_name().and_then(|name| name.to_str()), cell.ancestors().nth(2));
    let (Some(id), Some(run)) = (id, run) else {
        return Err(Error::Usage(format!("{}: expected the folder of a cell, RUN/cells/ID", cell.display())));
    };
    let path = run.join("plan.json");
    let plan = Plan::read(&path)?;
    let Some(index) = plan.cells.iter().position(|cell| cell.id == id) else {
        return Err(Error::Usage(format!(
            "{}: expected one of the {} cells of {}\n  next: see their folders in {}",
            cell.display(),
            plan.cells.len(),
            path.display(),
            run.join("cells").display()
        )));
    };
    Ok((run, plan, index))
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

/// A folder for cells that are run again, which goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    /// Beside the cells that are run again, and of this process alone.
    fn beside(run: &Path) -> Self {
        Self(run.join(format!(".again-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
