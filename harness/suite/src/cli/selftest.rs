//! `harness selftest resume`: kills a run again and again, and holds what comes out against a run that was left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result, exit};
use crate::schedule::own_program;
use ::data::fetch::report::Mode;
use rows::results::{ResultRow, read_results};

/// What is run unless a grid is given.
const GRID: &str = include_str!("selftest.yaml");
/// Kills of one round, after which it is left alone.
const KILLS: u32 = 10;
/// Runs that may fail by themselves before a round is given up.
const MOST_TRIES: u32 = 5;

#[derive(Args)]
pub(super) struct ResumeArgs {
    /// Grid file; default: twelve small cells, every model
    grid: Option<PathBuf>,
    /// Runs that are killed at random moments, up to ten times each
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: u32,
    /// Cells at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Seed of the moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Data directory; default: one that is made for this and goes with it
    #[arg(long, env = "HARNESS_DATA")]
    data: Option<PathBuf>,
}

/// A folder of this process that goes with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bits of numbers by what they are of; `None` where one is undefined.
type Numbers = BTreeMap<String, Option<u64>>;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Command,
    Worker,
    Both,
}

pub(super) fn resume(args: &ResumeArgs, mode: Mode) -> Result<u8> {
    let folder = Folder(std::env::temp_dir().join(format!("harness-selftest-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).map_err(Error::io(&folder.0))?;
    let grid = if let Some(grid) = &args.grid {
        grid.clone()
    } else {
        let path = folder.0.join("selftest.yaml");
        std::fs::write(&path, GRID).map_err(Error::io(&path))?;
        path
    };
    let test = Test {
        grid,
        data: args.data.clone().unwrap_or_else(|| folder.0.join("data")),
        folder: folder.0.clone(),
        jobs: args.jobs,
    };
    let clock = Instant::now();
    let code = test.start("alone")?.wait().map_err(Error::io(&folder.0))?;
    if code.code() != Some(i32::from(exit::DONE)) {
        return Err(Error::Report(format!("the run that is left alone failed: {code}; run it by itself to see why")));
    }
    let length = clock.elapsed();
    let alone = test.numbers("alone")?;
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let (mut differ, mut kills) = (0, 0);
    for round in 1..=args.rounds {
        let out = format!("round-{round}");
        let killed = test.round(&out, length, &mut random)?;
        let numbers = test.numbers(&out)?;
        let wrong = differing(&alone, &numbers);
        differ += wrong.len();
        kills += killed.len();
        let count = |victim| killed.iter().filter(|killed| **killed == victim).count();
        if mode != Mode::Quiet || !wrong.is_empty() {
            crate::say!(
                "round {round}: {} kills ({} of the command, {} of a worker, {} of both): {} of {} numbers differ{}",
                killed.len(),
                count(Victim::Command),
                count(Victim::Worker),
                count(Victim::Both),
                wrong.len(),
                alone.len(),
                wrong.first().map(|first| format!(", such as {first}")).unwrap_or_default(),
            );
        }
    }
    if kills == 0 {
        return Err(Error::Report(
            "every run ended before it was killed: expected a grid that takes longer".to_owned(),
        ));
    }
    crate::say!("{}", if differ == 0 { "all runs are bit-identical" } else { "kills changed results" });
    Ok(if differ == 0 { exit::DONE } else { exit::SOME_FAILED })
}

/// Names under which the two do not have the same number.
fn differing<'a>(alone: &'a Numbers, other: &'a Numbers) -> BTreeSet<&'a String> {
    alone.keys().chain(other.keys()).filter(|name| alone.get(*name) != other.get(*name)).collect()
}

struct Test {
    grid: PathBuf,
    data: PathBuf,
    folder: PathBuf,
    jobs: usize,
}

impl Test {
    fn start(&self, out: &str) -> Result<Child> {
        let program = own_program().map_err(Error::io(&self.folder))?;
        let mut command = Command::new(&program);
        command.args(["--quiet", "run", "--device", "cpu", "--jobs", &self.jobs.to_string(), "--out"]);
        command.arg(self.folder.join(out)).arg("--data").arg(&self.data).arg(&self.grid);
        // a checkpoint every second or so: kills meet the writing of them, and what lies between
        command.env(crate::run::CHECKPOINT_VARIABLE, "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(Error::io(&program))
    }

    /// Kills a run at random moments, then lets it end; what was killed.
    fn round(&self, out: &str, length: Duration, random: &mut ChaCha8Rng) -> Result<Vec<Victim>> {
        let (mut killed, mut tries) = (Vec::new(), 0);
        loop {
            let mut command = self.start(out)?;
            let left = KILLS.saturating_sub(killed.len() as u32);
            // so that the kills together leave room for the whole run
            let moment = length.mul_f64(random.random_range(0.02..0.3));
            let victim = [Victim::Command, Victim::Worker, Victim::Both][random.random_range(0..3)];
            let ended = if left > 0 {
                wait(&mut command, moment)?
            } else {
                Some(command.wait().map_err(Error::io(&self.folder))?)
            };
            match ended {
                Some(status) if status.code() == Some(i32::from(exit::DONE)) => return Ok(killed),
                Some(status) => {
                    tries += 1;
                    if tries > MOST_TRIES {
                        return Err(Error::Report(format!("{out} does not end well when it is left alone: {status}")));
                    }
                }
                None => {
                    kill(&command, victim);
                    killed.push(victim);
                    // one whose worker was killed says so in its table and does the rest
                    command.wait().map_err(Error::io(&self.folder))?;
                }
            }
        }
    }

    /// Bits of every number that does not measure time or memory, and every outcome, by cell and metric.
    fn numbers(&self, out: &str) -> Result<Numbers> {
        let runs = self.folder.join(out);
        let mut numbers = BTreeMap::new();
        for run in std::fs::read_dir(&runs).map_err(Error::io(&runs))?.flatten() {
            for row in read_results(&run.path().join("results.parquet"))? {
                let ResultRow { cell, task, model, seed, outcome, metric, split, value, seen, updates, .. } = row;
                let metric = metric.unwrap_or_default();
                let name =
                    format!("{task} {model} seed {seed} ({cell}) {outcome} {metric} {}", split.unwrap_or_default());
                numbers.insert(format!("{name} after {seen} in {updates} updates"), value.map(f64::to_bits));
            }
        }
        Ok(numbers)
    }
}

/// Waits for a command, but not longer than this.
fn wait(command: &mut Child, longest: Duration) -> Result<Option<ExitStatus>> {
    let clock = Instant::now();
    while clock.elapsed() < longest {
        if let Some(status) = command.try_wait().map_err(Error::io(Path::new("harness")))? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

fn kill(command: &Child, victim: Victim) {
    let parent = Pid::from_child(command);
    let children = format!("/proc/{0}/task/{0}/children", command.id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let workers = children.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    // one that is gone by now cannot be killed, and need not be
    if victim != Victim::Worker {
        let _ = kill_process(parent, Signal::KILL);
    }
    if victim != Victim::Command {
        for worker in workers {
            let _ = kill_process(worker, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_a_missing_and_a_new_number_are_differences() {
        let numbers = |all: &[(&str, Option<f64>)]| -> Numbers {
            all.iter().map(|(name, value)| ((*name).to_owned(), value.map(f64::to_bits))).collect()
        };
        let alone = numbers(&[("a", Some(0.1)), ("b", Some(1.0)), ("c", None)]);
        assert!(differing(&alone, &alone.clone()).is_empty());
        let other = numbers(&[("a", Some(0.1 + f64::EPSILON)), ("b", Some(1.0)), ("d", None)]);
        assert_eq!(differing(&alone, &other).into_iter().collect::<Vec<_>>(), ["a", "c", "d"]);
    }
}
