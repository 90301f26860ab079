//! `harness compare`, `baseline` and `gate`: one run against another.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::report::as_stored;
use super::{Scratch, interrupted, parse_device};
use crate::error::{Error, Result, exit};
use crate::measure::instructions;
use crate::plan::Plan;
use crate::progress::Display;
use crate::schedule::{Build, Context, Pool, table, work};
use ::data::fetch::report::Mode;
use compare::{Baseline, Gate, Instructions, Thresholds};
use rows::results::{ResultRow, columns, read_results};

#[derive(Args)]
pub(super) struct CompareArgs {
    /// Run directory or results file
    a: PathBuf,
    /// What to hold against it
    b: PathBuf,
    /// Smallest difference that matters, as a share of A
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    effect: f64,
    /// Machine-readable
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct BaselineArgs {
    /// Run directory or results file, all of whose cells completed; with --show, a baseline
    run: PathBuf,
    /// The file to write; what is not given anew of the thresholds stays as it is there
    #[arg(long, value_name = "FILE", required_unless_present = "show")]
    out: Option<PathBuf>,
    /// Print a baseline's thresholds, noise and what was counted; write nothing
    #[arg(long, conflicts_with_all = ["out", "count_instructions"])]
    show: bool,
    /// Loss of quality that fails the gate, as a share [default: 0.02]
    #[arg(long, value_name = "SHARE")]
    quality: Option<f64>,
    /// Loss of speed of a model that fails the gate, as a share [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    speed: Option<f64>,
    /// Loss of speed over all cells together that fails the gate, as a share [default: 0.08]
    #[arg(long, value_name = "SHARE")]
    speed_all: Option<f64>,
    /// Growth of memory that fails the gate, as a share [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    memory: Option<f64>,
    /// Growth of the instructions of a step that fails the gate, as a share [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    instructions: Option<f64>,
    /// Count the instructions of a step of every configuration with valgrind, for the gate to compare
    #[arg(long)]
    count_instructions: bool,
    /// Data directory, for what is counted
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
}

#[derive(Args)]
pub(super) struct GateArgs {
    /// Run directory or results file
    candidate: PathBuf,
    /// File that `harness baseline` wrote
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,
    #[allow(clippy::doc_markdown, reason = "help has no markup")]
    /// Write the checks as XML in the form of JUnit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Append a summary in Markdown; in a job of GitHub it is appended to that job's own as well
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Run the candidate's cells so many times, and store in the baseline how much speed varies by itself
    #[arg(long, value_name = "N")]
    self_noise: Option<usize>,
    /// Data directory, for cells that are run again
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// Take the first failure: run nothing a second time
    #[arg(long)]
    no_confirm: bool,
}

/// Rows of a run directory or results file.
fn rows_of(path: &Path) -> Result<Vec<ResultRow>> {
    match as_stored(path)? {
        ::report::Stored::Table(path) => Ok(read_results(&path)?),
        ::report::Stored::Run { rows, .. } => Ok(rows),
    }
}

fn share(name: &str, value: f64) -> Result<f64> {
    if (0.0..1.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::Usage(format!("--{name} {value}: expected a share from 0 up and below 1")))
}

pub(super) fn run_compare(args: &CompareArgs) -> Result<u8> {
    let effect = share("effect", args.effect)?;
    let comparison = compare::compare(&compare::pair(&rows_of(&args.a)?, &rows_of(&args.b)?), effect);
    if args.json {
        crate::say!("{}", compare::json(&comparison));
    } else {
        crate::say_on!("{}", compare::text(&comparison));
    }
    Ok(exit::DONE)
}

pub(super) fn run_baseline(args: &BaselineArgs, build: &Build) -> Result<u8> {
    let Some(out) = &args.out else {
        crate::say_on!("{}", shown(&Baseline::read(&args.run)?.thresholds));
        return Ok(exit::DONE);
    };
    let rows = rows_of(&args.run)?;
    if let Some(row) = rows.iter().find(|row| row.outcome != "completed") {
        return Err(Error::Usage(format!(
            "{}: cell {} ({} {} seed {}) is {}\n  expected: a run all of whose cells completed",
            args.run.display(),
            row.cell,
            row.task,
            row.model,
            row.seed,
            row.outcome
        )));
    }
    let before = if out.exists() { Some(Baseline::read(out)?) } else { None };
    let known = before.as_ref().map(|baseline| baseline.thresholds.clone());
    let (mut thresholds, kept) = thresholds(args, known.unwrap_or_default())?;
    let counted = args.count_instructions.then(|| count_instructions(&args.run, &args.data, build));
    thresholds.counted = counted.transpose()?.transpose().map_err(Error::Usage)?;
    Baseline::write(out, &rows, &thresholds)?;
    crate::say!("{}: {} rows", out.display(), rows.len());
    if let Some(before) = before {
        crate::say!("kept of the file that was there: {kept}");
        if before.thresholds.counted.is_some() && !args.count_instructions {
            ::data::tell!(
                "the instructions that it had are gone: they were of another program; count with --count-instructions"
            );
        }
        crate::say_on!("{}", compare::text(&compare::compare(&compare::pair(&before.rows, &rows), 0.0)));
    }
    Ok(exit::DONE)
}

/// The thresholds of the command line, those it does not give as they are known, and which these are.
fn thresholds(args: &BaselineArgs, known: Thresholds) -> Result<(Thresholds, String)> {
    let mut kept = Vec::new();
    let mut of = |name: &str, given: Option<f64>, known: f64| {
        if let Some(given) = given {
            return share(name, given);
        }
        kept.push(format!("--{name} {known}"));
        Ok(known)
    };
    let thresholds = Thresholds {
        quality: of("quality", args.quality, known.quality)?,
        speed: of("speed", args.speed, known.speed)?,
        speed_all: of("speed-all", args.speed_all, known.speed_all)?,
        memory: of("memory", args.memory, known.memory)?,
        instructions: of("instructions", args.instructions, known.instructions)?,
        ..known
    };
    if !thresholds.noise.is_empty() {
        kept.push("the noise of speed".to_owned());
    }
    Ok((thresholds, if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") }))
}

/// Thresholds, a line each; `counted` is there only if instructions were.
fn shown(thresholds: &Thresholds) -> String {
    let Thresholds { quality, speed, speed_all, memory, instructions, counted, noise } = thresholds;
    let mut lines: Vec<String> = [
        ("quality", quality),
        ("speed", speed),
        ("speed-all", speed_all),
        ("memory", memory),
        ("instructions", instructions),
    ]
    .map(|(name, share)| format!("{name:<12} {share}"))
    .into();
    lines.extend(noise.iter().map(|(model, share)| format!("noise        {share:.3} {model}")));
    lines.extend(counted.iter().map(|c| format!("counted      {} configurations, {}", c.of.len(), c.by)));
    lines.join("\n") + "\n"
}

pub(super) fn run_gate(args: &GateArgs, mode: Mode, build: &Build) -> Result<u8> {
    let mut baseline = Baseline::read(&args.baseline)?;
    let candidate = rows_of(&args.candidate)?;
    let table = if args.candidate.is_dir() { args.candidate.join("results.parquet") } else { args.candidate.clone() };
    let columns = columns(&table)?;
    if let Some(times) = args.self_noise {
        let mut runs = vec![candidate.clone()];
        for _ in 0..times {
            runs.push(again(args, mode, build)?);
        }
        baseline.thresholds.noise = compare::noise(&runs);
        Baseline::write(&args.baseline, &baseline.rows, &baseline.thresholds)?;
        for (model, share) in &baseline.thresholds.noise {
            crate::say!("speed of {model}: up to {:.1} % by itself over {times} runs", 100.0 * share);
        }
    }
    let mut gate = compare::gate(&baseline, &candidate, &columns);
    let now = match baseline.thresholds.counted {
        // what else was found is worth telling where they cannot be counted
        Some(_) => count_instructions(&args.candidate, &args.data, build).unwrap_or_else(|e| Err(e.to_string())),
        None => Ok(Instructions::default()),
    };
    gate.checks.extend(compare::counted(&baseline.thresholds, &now));
    if gate.might_be_chance() && !args.no_confirm && args.candidate.join("plan.json").is_file() {
        ::data::tell!("what failed may be chance: its cells are run a second time");
        let second = compare::gate(&baseline, &again(args, mode, build)?, &columns);
        gate = gate.confirmed_by(&second);
    }
    report_of(args, &gate)?;
    Ok(if gate.failures().next().is_some() { exit::REGRESSION } else { exit::DONE })
}

fn report_of(args: &GateArgs, gate: &Gate) -> Result<()> {
    let summary = compare::summary(gate);
    if let Some(path) = &args.junit {
        crate::store::write_whole(path, compare::junit(gate).as_bytes())?;
    }
    let github = std::env::var_os("GITHUB_ACTIONS").is_some();
    let job = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| github && !path.is_empty()).map(PathBuf::from);
    let job = job.filter(|job| args.summary.as_ref() != Some(job));
    for path in args.summary.iter().chain(&job) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(summary.as_bytes())).map_err(Error::io(path))?;
    }
    if github {
        crate::say_on!("{}", compare::annotations(gate));
    }
    crate::say_on!("{summary}");
    Ok(())
}

/// Instructions of a step of every configuration of a run, its first seed; the inner error is why they cannot be counted here.
fn count_instructions(run: &Path, data: &Path, build: &Build) -> Result<std::result::Result<Instructions, String>> {
    let path = run.join("plan.json");
    if !path.is_file() {
        return Ok(Err(format!("{}: instructions are counted of a run directory with its plan", run.display())));
    }
    let Some(valgrind) = instructions::valgrind() else {
        return Ok(Err("instructions are counted by valgrind on x86-64 Linux, which is not here".to_owned()));
    };
    let plan = Plan::read(&path)?;
    let mut cells: BTreeMap<String, &str> = BTreeMap::new();
    for cell in &plan.cells {
        cells.entry(format!("{} {}", cell.config.task_name, cell.config.model_name)).or_insert(&cell.id);
    }
    ::data::tell!("instructions: {} configurations, some seconds each", cells.len());
    let (set, of) = instructions::of_cells(&path, &cells, data)?;
    Ok(Ok(Instructions { by: format!("{}, {set}, {valgrind}", build.compiler), of }))
}

/// The candidate's cells once more, from its plan, in a folder that is removed afterwards.
fn again(args: &GateArgs, mode: Mode, build: &Build) -> Result<Vec<ResultRow>> {
    let plan = Plan::read(&args.candidate.join("plan.json"))?;
    let folder = Scratch::beside(&args.candidate);
    let run = &folder.0;
    plan.write(run, true)?;
    // the device that the candidate ran on: numbers of another would not be compared
    let on_cpu = rows_of(&args.candidate)?.iter().all(|row| row.device == "cpu");
    let devices = parse_device(if on_cpu { "cpu" } else { "auto" })?;
    let interrupt = interrupted()?;
    let context = Context::new(run, &args.data, &devices, &interrupt, build);
    let pool = Pool { jobs: 1, stall: Duration::from_secs(900), fail_fast: false, retry: None };
    let display = Display::new(mode, plan.cells.len() as u64);
    let worked = work(&plan, &context, &pool, &BTreeMap::new(), &display)?;
    table::rows(run, &worked.statuses)
}
