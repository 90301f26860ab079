//! The worker's side: cells come as lines on standard input, what happens to them goes out as lines on standard output.
//!
//! When the input ends, because the other side closed it or died, the worker stops after its step with a checkpoint.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Context;
use super::attempt::{Attempt, attempt};
use crate::error::{Error, Result};
use crate::plan::{OpenTasks, PlannedCell};
use crate::run::{Phase, Progress};

/// A cell to work on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The cell.
    pub cell: PlannedCell,
    /// Mark of the status that is known; if there is another one by now, somebody else has worked on it.
    pub known: Option<String>,
}

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Where the cell is.
    Progress(Progress),
    /// Another process has the cell.
    Held,
    /// The cell's status is on disk.
    Done,
}

/// Time between messages of progress.
const EVERY: Duration = Duration::from_millis(100);
/// Time between messages while data are opened.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Works until the input ends.
///
/// # Errors
/// If an outcome cannot be recorded, or what comes in is no order.
pub fn serve(context: &Context<'_>, interrupt: &Arc<AtomicBool>) -> Result<()> {
    let (lines, inbox) = channel();
    let flag = Arc::clone(interrupt);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || line.is_ok_and(|line| lines.send(line).is_err()) {
                break;
            }
        }
        flag.store(true, Ordering::Relaxed);
    });
    let opening = Arc::new(AtomicBool::new(false));
    beat(&opening);
    let mut open = OpenTasks::new();
    for line in inbox {
        let order: Order = serde_json::from_str(&line).map_err(|e| Error::Usage(format!("standard input: {e}")))?;
        let (mut last, mut phase) = (None::<Instant>, None::<Phase>);
        let mut tell = |progress: Progress| {
            opening.store(progress.phase == Phase::Opening, Ordering::Relaxed);
            if phase != Some(progress.phase) || last.is_none_or(|last| last.elapsed() >= EVERY) {
                (last, phase) = (Some(Instant::now()), Some(progress.phase));
                say(Message::Progress(progress));
            }
        };
        say(match attempt(&order.cell, order.known.as_deref(), context, &mut open, &mut tell)? {
            Attempt::Held => Message::Held,
            Attempt::Done(_) => Message::Done,
        });
    }
    Ok(())
}

/// Opening data has no steps that could be told: that the process runs is told instead.
fn beat(opening: &Arc<AtomicBool>) {
    let opening = Arc::clone(opening);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(HEARTBEAT);
            if opening.load(Ordering::Relaxed) {
                say(Message::Progress(Progress::of(Phase::Opening)));
            }
        }
    });
}

fn say(message: Message) {
    let mut out = std::io::stdout().lock();
    if let Ok(text) = serde_json::to_string(&message) {
        // nobody is there to hear it: then the input has ended too
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
