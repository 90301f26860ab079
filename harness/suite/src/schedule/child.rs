//! A worker, seen from the process that gives it orders.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::origin::{self, COMMAND_VARIABLE};
use super::worker::{Message, Order};
use super::{Context, memory};
use crate::error::{Error, Result};
use crate::store::{Cause, Outcome};

/// Lines that a worker wrote to standard error last, as many as are kept.
const LINES: usize = 20;

/// What came from the worker in a slot.
pub struct Report {
    /// Which slot.
    pub slot: usize,
    /// Which worker of those that the slot has had.
    pub number: u64,
    /// What it said; `None` when it ended.
    pub message: Option<Message>,
}

/// A running worker.
pub struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    said: Arc<Mutex<VecDeque<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Processes that the system had killed for memory before it began.
    kills: Option<u64>,
    /// Which worker of its slot it is.
    pub number: u64,
}

/// The program that this process runs, also where another one was built in its place since: all cells of a run are of one program.
pub fn own_program() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

impl Worker {
    /// Starts a worker for a slot; what it says goes to `reports`.
    ///
    /// # Errors
    /// If the system refuses to start it.
    pub fn start(
        context: &Context<'_>,
        threads: Option<usize>,
        slot: usize,
        number: u64,
        reports: &Sender<Report>,
    ) -> Result<Self> {
        let program = own_program().map_err(Error::io(context.run))?;
        let mut command = Command::new(&program);
        command.args(["--quiet", "worker", "--serve", "--device", &context.devices.value()]);
        command.env(data::cache::VARIABLE, data::cache::folder());
        command.arg("--plan").arg(context.run.join("plan.json")).arg("--data").arg(context.data);
        if let Some(limit) = context.limit {
            command.args(["--limit-seconds", &limit.as_secs_f64().to_string()]);
        }
        if context.tensorboard {
            command.arg("--tensorboard");
        }
        if let Some(threads) = threads.filter(|_| std::env::var_os("RAYON_NUM_THREADS").is_none()) {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command.env(COMMAND_VARIABLE, origin::command());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(Error::io(&program))?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let mut readers = Vec::new();
        if let Some(errors) = process.stderr.take() {
            let said = Arc::clone(&said);
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(errors).lines().map_while(std::io::Result::ok) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push_back(line);
                    if said.len() > LINES {
                        said.pop_front();
                    }
                }
            }));
        }
        if let Some(out) = process.stdout.take() {
            let reports = reports.clone();
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                    // anything else that is printed is of no interest
                    if let Ok(message) = serde_json::from_str(&line) {
                        let _ = reports.send(Report { slot, number, message: Some(message) });
                    }
                }
                let _ = reports.send(Report { slot, number, message: None });
            }));
        }
        let orders = process.stdin.take();
        Ok(Self { process, orders, said, threads: readers, kills: memory::kills(), number })
    }

    /// Gives it a cell. A worker that has died meanwhile is noticed by its end.
    pub fn order(&mut self, order: &Order) {
        if let (Some(orders), Ok(text)) = (&mut self.orders, serde_json::to_string(order)) {
            let _ = writeln!(orders, "{text}").and_then(|()| orders.flush());
        }
    }

    /// No more orders: it stops after its step, with a checkpoint.
    pub fn stop(&mut self) {
        self.orders = None;
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
    }

    /// Ends it.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
    }

    /// How it ended, once it has: waits for that.
    pub fn end(mut self) -> End {
        self.orders = None;
        let exit = self.process.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let killed_for_memory = self.kills.zip(memory::kills()).is_some_and(|(before, now)| now > before);
        End { exit: exit.ok(), said, killed_for_memory }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // one that does not heed the end of its input must not outlive the command
        let patience = Duration::from_millis(10);
        for _ in 0..50 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(patience);
        }
        self.kill();
        let _ = self.process.wait();
    }
}

/// How a worker ended.
pub struct End {
    exit: Option<ExitStatus>,
    /// Its last lines on standard error.
    pub said: Vec<String>,
    /// Whether the system killed a process for memory meanwhile.
    killed_for_memory: bool,
}

impl End {
    /// What its end means for the cell that it had: what was seen, and no more.
    pub fn verdict(&self) -> (Outcome, Cause, String) {
        let signal = self.exit.as_ref().and_then(std::os::unix::process::ExitStatusExt::signal);
        // the standard library's words before it aborts
        if let Some(line) = self.said.iter().find(|line| line.contains("memory allocation of")) {
            return (Outcome::OutOfMemory, Cause::Resources, format!("its process ran out of memory: {line}"));
        }
        let last = self.said.last().map(|line| format!(": {line}")).unwrap_or_default();
        match signal {
            Some(9) if self.killed_for_memory => (
                Outcome::OutOfMemory,
                Cause::Resources,
                "its process was killed by the system because memory ran out".to_owned(),
            ),
            Some(9) => (
                Outcome::Failed,
                Cause::Outside,
                "its process was killed by signal 9, and not by the system for memory: by someone, or by a job scheduler"
                    .to_owned(),
            ),
            Some(15) => (Outcome::Failed, Cause::Outside, "its process was ended by signal 15".to_owned()),
            Some(n) => (Outcome::Failed, Cause::Own, format!("its process crashed with signal {n}{last}")),
            None => {
                let code = self.exit.as_ref().and_then(ExitStatus::code);
                let code = code.map_or("an unknown code".to_owned(), |code| format!("code {code}"));
                (Outcome::Failed, Cause::Own, format!("its process ended with {code}{last}"))
            }
        }
    }
}
