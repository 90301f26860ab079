//! Instructions of a cell's training steps, counted by valgrind's `callgrind`: equal from run to run where times are not, also on a
//! machine that others use.
//!
//! The program counts itself: it starts again under valgrind as `harness worker --count-steps N`, which opens the cell, makes one step
//! so that buffers are there, turns counting on, makes `N` steps on one thread, and turns it off. What runs before and after
//! is run, but not counted.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use learner::product::InstructionSet;

use crate::device::Devices;
use crate::error::{Error, Result};
use crate::plan::{OpenTasks, PlannedCell, open_task};
use crate::run::{build, segments_for, step};
use crate::schedule::own_program;

/// Steps that are counted.
const STEPS: u64 = 2;

/// valgrind's version; `None` where it is not installed, or this program could not tell it where to count.
#[must_use]
pub fn valgrind() -> Option<String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return None;
    }
    let output = Command::new("valgrind").arg("--version").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The vector instructions that run under valgrind, and the instructions of a step of cells of `plan`, given by a name and an id each; as
/// many at a time as there are processors.
///
/// # Errors
/// The first of [`of_cell`].
pub fn of_cells(plan: &Path, cells: &BTreeMap<String, &str>, data: &Path) -> Result<(String, BTreeMap<String, u64>)> {
    let (next, counts) = (Mutex::new(cells.iter()), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            // the lock is not held while a cell is counted
            let Some((name, cell)) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
            let count = of_cell(plan, cell, data);
            counts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), count);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(work);
        }
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut set = String::new();
    let mut all = BTreeMap::new();
    for (name, count) in counts {
        let (own, count) = count?;
        set = own;
        all.insert(name, count);
    }
    Ok((set, all))
}

/// The vector instructions that run, and the instructions of a step of a cell of `plan`, in a process of its own under valgrind.
///
/// # Errors
/// If valgrind cannot be started, ends with an error, or prints no count; the message has what it printed last.
fn of_cell(plan: &Path, cell: &str, data: &Path) -> Result<(String, u64)> {
    let program = own_program().and_then(|program| program.canonicalize()).map_err(Error::io(plan))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--instr-atstart=no"]).arg(program);
    command.args(["--quiet", "worker", "--device", "cpu", "--count-steps", &STEPS.to_string(), "--cell", cell]);
    command.arg("--plan").arg(plan).arg("--data").arg(data);
    command.env("RAYON_NUM_THREADS", "1").env(::data::cache::VARIABLE, ::data::cache::folder());
    let output = command.output().map_err(Error::io(Path::new("valgrind")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = collected(&said).filter(|_| output.status.success());
    let set = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    counted.map(|all| (set, all / STEPS)).ok_or_else(|| {
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Error::Report(format!("valgrind counted nothing for cell {cell}: {}\n  {}", output.status, last.join("\n  ")))
    })
}

/// The count in what valgrind prints at its end: `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    let count = said.lines().rev().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.filter(|count| *count > 0)
}

/// Says which vector instructions run, makes `steps` steps of a cell, and has them counted if valgrind runs this program. Nothing is stored.
///
/// # Errors
/// As those of training.
pub fn count_steps(cell: &PlannedCell, steps: u64, data: &Path, devices: &Devices) -> Result<()> {
    crate::say!("{}", InstructionSet::in_use().name());
    // on the one thread of a pool: work that is handed to another thread costs as much as it happens to wait
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|e| Error::Report(format!("no thread could be started: {e}")))?;
    pool.install(|| {
        let config = &cell.config;
        let task = open_task(&mut OpenTasks::new(), &config.task, data)?;
        let segment = config.train.segment.map_or(config.model.default_segment(), |count| count.0);
        let device = devices.of(&config.model);
        let io = task.io(config.train.streams.0, segment);
        let source = task.training(io.streams, io.segment, config.seed)?;
        let total = segments_for(config, &*source);
        let mut learner = build(config, &*task, io, &*source, total, device)?;
        for index in 0..=steps {
            let segment = source.segment(index % source.segments().max(1))?;
            if index == 1 {
                request(Request::Start);
            }
            step(&mut *learner, &segment, device)?;
        }
        request(Request::Stop);
        Ok(())
    })
}

/// What valgrind's tool can be asked by the program that it runs.
#[derive(Clone, Copy)]
enum Request {
    /// Count from now on.
    Start,
    /// Count no more.
    Stop,
}

/// Asks valgrind; without it nothing happens.
#[cfg(target_arch = "x86_64")]
fn request(request: Request) {
    /// `VG_USERREQ_TOOL_BASE('C', 'T')` of valgrind.h.
    const CALLGRIND: u64 = (b'C' as u64) << 24 | (b'T' as u64) << 16;
    // places in `Vg_CallgrindClientRequest` of callgrind.h
    let place = match request {
        Request::Start => 4,
        Request::Stop => 5,
    };
    let arguments = [CALLGRIND + place, 0, 0, 0, 0, 0];
    // SAFETY: the rotations add up to 128 bits and the exchange is of a register with itself, so a processor does nothing; valgrind knows
    // the sequence (`__SPECIAL_INSTRUCTION_PREAMBLE`), reads the six words at `rax` and writes `rdx`.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_u64 => _,
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn request(_: Request) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_valgrind_prints() {
        let said = "==7== \n==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==7== Collected : 0\n"), None, "counting was never turned on");
        assert_eq!(collected("valgrind: failed to start"), None);
    }

    #[test]
    fn asking_without_valgrind_does_nothing() {
        request(Request::Start);
        request(Request::Stop);
    }
}
