//! What recording costs: `cargo bench -p harness --bench recording -- GRID.yaml [--only EXPR] [--seconds S] [--data DIR]`, by
//! default the quick start's cells, one of each model and task.
//!
//! Two learners of a cell train in turn, an update each on the same segment: one counts its operations and has every step
//! written to Parquet, the other does neither. Printed is by how much the first takes longer: the median over blocks of updates, each
//! a ratio of sums, with its 95 % interval.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use harness::cell::CellConfig;
use harness::error::Result;
use harness::grid::Selection;
use harness::measure::{Counting, allocator, keep_memory};
use harness::plan::{OpenTasks, Plan, open_task};
use harness::record::Recorder;
use harness::run::{build, segments_for, step};
use harness::sinks::parquet::{Metadata, PartWriter};
use harness::store::Position;
use harness::tasks::Source;
use learner::Learner;

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

/// Updates of a block.
const BLOCK: u32 = 20;

/// One of the two.
struct Runner<'a> {
    learner: Box<dyn Learner>,
    source: &'a dyn Source,
    total: u64,
    at: Position,
    record: Option<(Recorder<'a>, PartWriter)>,
}

impl<'a> Runner<'a> {
    fn new(
        config: &'a CellConfig,
        learner: Box<dyn Learner>,
        source: &'a dyn Source,
        dir: Option<&Path>,
    ) -> Result<Self> {
        let total = segments_for(config, source);
        let record = match dir {
            Some(dir) => Some((Recorder::new(config, total), PartWriter::open(dir, 0, Metadata::new())?)),
            None => None,
        };
        let mut runner = Self { learner, source, total, at: Position::default(), record };
        runner.learner.set_counting(dir.is_some());
        Ok(runner)
    }

    /// Seconds that one update takes.
    fn train(&mut self) -> Result<f64> {
        let segment = self.source.segment(self.at.segment % self.total)?;
        let clock = Instant::now();
        allocator::begin_step();
        let update = step(&mut *self.learner, &segment, &Device::Cpu)?;
        self.at.elapsed_s += clock.elapsed().as_secs_f64();
        if let Some((recorder, sink)) = &mut self.record {
            recorder.record(sink, &mut self.at, segment.seen, &self.learner.cost(), update)?;
        } else {
            self.at.segment += 1;
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
    keep_memory();
    let (mut grid, mut only, mut seconds, mut data) = (None, None, 4.0, PathBuf::from("data"));
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let grid = grid.unwrap_or_else(|| root.join("experiments/quickstart.yaml"));
    let mut open = OpenTasks::new();
    let selection = Selection { only, ..Selection::default() };
    let plan = Plan::build(&grid, &selection, &data, &Device::Cpu, &mut open)?;
    let mut done = BTreeSet::new();
    println!("{:<10} {:<12} {:>12} {:>26}", "task", "model", "us/update", "cost of recording, %");
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
        let learner = || build(config, &*task, io, &*source, total, &Device::Cpu);
        let dir = tempfile::tempdir()?;
        let mut with = Runner::new(config, learner()?, &*source, Some(dir.path()))?;
        let mut without = Runner::new(config, learner()?, &*source, None)?;
        with.train()?;
        without.train()?;
        let (start, mut ratios, mut times) = (Instant::now(), Vec::new(), Vec::new());
        while start.elapsed().as_secs_f64() < seconds || ratios.len() < 5 {
            let mut sums = [0.0; 2];
            for i in 0..BLOCK {
                // in turn, so that neither always finds the segment in the cache
                if i % 2 == 0 {
                    sums[0] += with.train()?;
                    sums[1] += without.train()?;
                } else {
                    sums[1] += without.train()?;
                    sums[0] += with.train()?;
                }
            }
            ratios.push(100.0 * (sums[0] / sums[1] - 1.0));
            times.push(sums[1] / f64::from(BLOCK));
        }
        let ([low, found, high], [_, time, _]) = (median(ratios), median(times));
        let (task, model) = (&config.task_name, &config.model_name);
        println!("{task:<10} {model:<12} {:>12.0} {found:>10.2} [{low:.2}, {high:.2}]", 1e6 * time);
    }
    Ok(())
}
