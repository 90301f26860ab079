//! `harness watch RUN`: what the cells of a run directory are doing, whoever works on them and wherever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::error::{Error, Result, exit};
use crate::plan::{Plan, PlannedCell};
use crate::progress::main_metric;
use crate::store::seal::{self, Stored};
use crate::store::{CellDir, Outcome, Position, Status};

/// Lines of cells that are shown; of more only the number is.
const MOST_LINES: usize = 12;

#[derive(Args)]
pub(super) struct WatchArgs {
    /// Run directory
    run: PathBuf,
    /// Time between two looks, in seconds
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    every: f64,
    /// Look once and end
    #[arg(long)]
    once: bool,
}

/// What is known of one cell.
enum Seen {
    /// It has an outcome.
    Ended(Box<Status>),
    /// It has a checkpoint and no outcome.
    Begun(Box<Position>, Option<Duration>),
    /// Nothing is stored of it.
    Waiting,
    /// What is stored cannot be read.
    Damaged(String),
}

pub(super) fn run(args: &WatchArgs) -> Result<u8> {
    let every = Duration::try_from_secs_f64(args.every).ok().filter(|every| *every >= Duration::from_millis(100));
    let Some(every) = every else {
        return Err(Error::Usage(format!("--every {}: expected a number from 0.1 up", args.every)));
    };
    let plan_file = args.run.join("plan.json");
    let terminal = std::io::stdout().is_terminal();
    let (mut plan, mut read_at, mut last) = (Plan::read(&plan_file)?, modified(&plan_file), String::new());
    let mut names = plan.names();
    loop {
        // a plan may grow
        if modified(&plan_file) != read_at {
            (plan, read_at) = (Plan::read(&plan_file)?, modified(&plan_file));
            names = plan.names();
        }
        let cells: Vec<Seen> = plan.cells.iter().map(|cell| look(&args.run, cell)).collect();
        let text = picture(&plan, &names, &cells);
        let mut out = std::io::stdout().lock();
        let written = if terminal && !args.once {
            write!(out, "\x1b[H\x1b[2J{text}") // from the upper left corner of an empty screen
        } else if text != last {
            write!(out, "{text}")
        } else {
            Ok(())
        };
        if written.and_then(|()| out.flush()).is_err() {
            break; // nobody is there to see it
        }
        drop(out);
        last = text;
        if args.once || cells.iter().all(|cell| matches!(cell, Seen::Ended(_))) {
            break;
        }
        std::thread::sleep(every);
    }
    Ok(exit::DONE)
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn look(run: &Path, cell: &PlannedCell) -> Seen {
    let dir = CellDir::of(run, &cell.id);
    let position = dir.path.join("checkpoint/position.json");
    let ended = match dir.status() {
        Ok(Stored::Whole(status)) => Some(status),
        Ok(Stored::Absent) => None,
        Ok(Stored::Damaged(problem)) => return Seen::Damaged(problem),
        Err(e) => return Seen::Damaged(e.to_string()),
    };
    // one that was interrupted, or failed and is tried again, has an outcome of before
    let newer = |status: &Status| {
        let final_ = status.outcome.is_final();
        !final_ && modified(&position) > modified(&dir.path.join("status.json"))
    };
    match ended {
        Some(status) if !newer(&status) && status.outcome != Outcome::Interrupted => Seen::Ended(Box::new(status)),
        Some(_) | None => match seal::read::<Position>(&position) {
            Ok(Stored::Whole(at)) => {
                let age = modified(&position).and_then(|written| written.elapsed().ok());
                Seen::Begun(Box::new(at), age)
            }
            Ok(Stored::Absent | Stored::Damaged(_)) | Err(_) => Seen::Waiting,
        },
    }
}

/// The whole run on one screen.
fn picture(plan: &Plan, names: &[String], cells: &[Seen]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut failed, mut begun, mut done, mut trained) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for ((name, seen), cell) in names.iter().zip(cells).zip(&plan.cells) {
        let kind = match seen {
            Seen::Ended(status) => {
                trained += status.train_s;
                if status.outcome == Outcome::Completed {
                    let metric = main_metric(cell, status).map(|text| format!("  {text}")).unwrap_or_default();
                    done.push((status.provenance.started_unix_s, format!("{name}{metric}  ({:.1} s)", status.train_s)));
                } else {
                    let reason = status.reason.as_deref().unwrap_or_default();
                    failed.push(format!(
                        "{name}  {}: {}",
                        status.outcome.name(),
                        reason.lines().next().unwrap_or_default()
                    ));
                }
                status.outcome.name()
            }
            Seen::Begun(at, age) => {
                trained += at.elapsed_s;
                let share = 100.0 * at.seen as f64 / cell.seen.max(1) as f64;
                let left = at.elapsed_s * (cell.seen.saturating_sub(at.seen)) as f64 / at.seen.max(1) as f64;
                let age = age.map(|age| format!(", checkpoint {} ago", spoken(age.as_secs_f64()))).unwrap_or_default();
                begun.push(format!("{name}  {share:.0} %, {} of training left{age}", spoken(left)));
                "begun"
            }
            Seen::Waiting => "waiting",
            Seen::Damaged(problem) => {
                failed.push(format!("{name}  damaged: {}", problem.lines().next().unwrap_or_default()));
                "damaged"
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    done.sort();
    let done: Vec<String> = done.into_iter().rev().map(|(_, line)| line).collect();
    let counts: Vec<String> = counts.into_iter().map(|(kind, n)| format!("{n} {}", kind.replace('_', " "))).collect();
    let mut text = format!(
        "{} at scale {}: {} cells, {}; {} of training so far\n",
        plan.experiment,
        plan.scale,
        cells.len(),
        counts.join(", "),
        spoken(trained)
    );
    for (title, lines) in [("begun", begun), ("not completed", failed), ("completed, the last first", done)] {
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{title}"); // writing to a String cannot fail
        for line in lines.iter().take(MOST_LINES) {
            let _ = writeln!(text, "  {line}");
        }
        if lines.len() > MOST_LINES {
            let _ = writeln!(text, "  and {} more", lines.len() - MOST_LINES);
        }
    }
    text
}

/// A time as a person says it.
pub(super) fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_the_unit_that_suits_them() {
        let said = [0.4, 99.0, 100.0, 5_999.0, 7_200.0, 200_000.0].map(spoken);
        assert_eq!(said, ["0 s", "99 s", "2 min", "1.7 h", "2.0 h", "2.3 days"]);
    }
}
