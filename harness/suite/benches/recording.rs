//! What recording costs: `cargo bench -p harness --bench recording -- GRID.yaml [--only EXPR] [--seconds S] [--data DIR]`, by
//! default the quick start's cells, one of each model and task.
//!
//! One learner trains on every segment three times, in all orders by turns: plainly, with its operations counted, and with the
//! step written to Parquet too. (Learners of their own would differ by where their memory happens to lie.) Printed is by how much
//! the latter two take longer: the median over blocks of updates, each a ratio of sums, with its 95 % interval. The last column is
//! what the counting of bytes costs in the allocator, which all have: allocations of an update times what counting adds to one, as
//! a share of the update.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use candle_core::Device;
use grid::Selection;
use learner::Learner;
use rows::parquet::{Kept, Metadata, PartWriter};
use suite::device::Devices;
use suite::measure::{Counting, allocator, keep_memory, one_candle_thread};
use suite::parts::Position;
use suite::parts::Recorder;
use suite::parts::Result;
use suite::parts::Source;
use suite::parts::{OpenTasks, Plan, open_task};
use suite::parts::{build, segments_for, step};

#[global_allocator]
static ALLOCATOR: Calls = Calls(Counting::new());

/// Times that a block was asked for.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The program's allocator, with its calls counted.
struct Calls(Counting);

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Calls {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the inner allocator's, here and below.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(p, layout) }
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { self.0.realloc(p, layout, size) }
    }
}

/// Seconds that a block of this size takes to be asked for and given back: the best of many rounds.
fn pair(allocator: &dyn GlobalAlloc, bytes: usize) -> f64 {
    const PAIRS: u32 = 20_000;
    let layout = Layout::from_size_align(bytes, 16).unwrap_or(Layout::new::<u128>());
    let round = || {
        let clock = Instant::now();
        for _ in 0..PAIRS {
            // SAFETY: given back with the layout it has.
            unsafe { allocator.dealloc(std::hint::black_box(allocator.alloc(layout)), layout) };
        }
        clock.elapsed().as_secs_f64() / f64::from(PAIRS)
    };
    (0..50).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// What is done beside training.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Counting,
    Recording,
}

/// No place in a row of three is any one's own.
const ORDERS: [[Beside; 3]; 6] = {
    use Beside::{Counting as C, Nothing as N, Recording as R};
    [[N, C, R], [R, C, N], [C, R, N], [N, R, C], [R, N, C], [C, N, R]]
};

/// Times that the orders are gone through in a block.
const ROUNDS: u32 = 3;

/// A learner and what it needs to train.
struct Runner<'a> {
    learner: Box<dyn Learner>,
    source: &'a dyn Source,
    total: u64,
    done: u64,
    at: Position,
    recorder: Recorder<'a>,
    sink: PartWriter,
}

impl Runner<'_> {
    /// Seconds that one update takes.
    fn train(&mut self, beside: Beside) -> Result<f64> {
        // every segment three times in a row: they differ in length
        let segment = self.source.segment(self.done / 3 % self.total)?;
        self.done += 1;
        self.learner.set_counting(!matches!(beside, Beside::Nothing));
        let clock = Instant::now();
        allocator::begin_step();
        let update = step(&mut *self.learner, &segment, &Device::Cpu)?;
        self.at.elapsed_s += clock.elapsed().as_secs_f64();
        if matches!(beside, Beside::Recording) {
            self.recorder.record(&mut self.sink, &mut self.at, segment.seen, &self.learner.cost(), update)?;
        }
        Ok(clock.elapsed().as_secs_f64())
    }
}

/// Median with the order statistics between which the true one lies 95 times of 100.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (n, half) = (values.len() as f64, 0.98 * (values.len() as f64).sqrt());
    let at = |place: f64| values[(place.max(0.0) as usize).min(values.len() - 1)];
    [at(n / 2.0 - half), at(n / 2.0), at(n / 2.0 + half)]
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // SAFETY: there is no other thread yet.
    unsafe { one_candle_thread() };
    keep_memory();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // cargo runs benches in their package: what is generated belongs beside what the program generates
    let (mut grid, mut only, mut seconds, mut data) = (None, None, 4.0, root.join("data"));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // cargo's own
            "--only" => only = words.next(),
            "--seconds" => seconds = words.next().unwrap_or_default().parse()?,
            "--data" => data = words.next().unwrap_or_default().into(),
            _ => grid = Some(PathBuf::from(word)),
        }
    }
    let grid = grid.unwrap_or_else(|| root.join("experiments/quickstart.yaml"));
    let mut open = OpenTasks::new();
    let selection = Selection { only, ..Selection::default() };
    let plan = Plan::build(&grid, &selection, &data, &Devices::One(Device::Cpu), &mut open)?;
    let mut done = BTreeSet::new();
    let counting = |bytes| pair(&Counting::new(), bytes) - pair(&mimalloc::MiMalloc, bytes);
    let added = counting(64).max(counting(4096)).max(0.0);
    println!("counting adds {:.1} ns to an allocation and its end", 1e9 * added);
    println!(
        "{:<10} {:<12} {:>10} {:>22} {:>22} {:>14}",
        "task", "model", "us/update", "counting, %", "recording, %", "allocator, %"
    );
    for cell in plan.cells.iter().filter(|c| c.selected) {
        let config = &cell.config;
        if !done.insert((&config.task_name, &config.model_name)) {
            continue; // another seed
        }
        let task = open_task(&mut open, &config.task, &data)?;
        let segment = config.train.segment.map_or(config.model.default_segment(), |c| c.0);
        let io = task.io(config.train.streams.0, segment);
        let source = task.training(io.streams, io.segment, config.seed)?;
        let total = segments_for(config, &*source);
        let dir = tempfile::tempdir()?;
        let mut runner = Runner {
            learner: build(config, &*task, io, &*source, total, &Device::Cpu)?,
            source: &*source,
            total,
            done: 0,
            at: Position::default(),
            recorder: Recorder::new(config, total, total),
            sink: PartWriter::open(dir.path(), Kept::default(), Metadata::new(), allocator::exclude_this_thread)?,
        };
        let (calls, updates) = (CALLS.load(Ordering::Relaxed), 40);
        for _ in 0..updates {
            runner.train(Beside::Nothing)?;
        }
        let calls = (CALLS.load(Ordering::Relaxed) - calls) as f64 / f64::from(updates);
        let start = Instant::now();
        let (mut counted, mut recorded, mut times) = (Vec::new(), Vec::new(), Vec::new());
        while start.elapsed().as_secs_f64() < seconds || times.len() < 5 {
            let mut sums = [0.0; 3];
            for beside in (0..ROUNDS).flat_map(|_| ORDERS).flatten() {
                sums[beside as usize] += runner.train(beside)?;
            }
            counted.push(100.0 * (sums[1] / sums[0] - 1.0));
            recorded.push(100.0 * (sums[2] / sums[0] - 1.0));
            times.push(sums[0] / f64::from(ROUNDS * ORDERS.len() as u32));
        }
        let [_, time, _] = median(times);
        let [counted, recorded] = [counted, recorded].map(|found| {
            let [low, found, high] = median(found);
            format!("{found:.2} [{low:.2}, {high:.2}]")
        });
        let (task, model, allocator) = (&config.task_name, &config.model_name, 100.0 * calls * added / time);
        println!("{task:<10} {model:<12} {:>10.0} {counted:>22} {recorded:>22} {allocator:>14.3}", 1e6 * time);
    }
    Ok(())
}
