//! THE LOOP: `reset → predict → learn → record`, for every learner and task; evaluation is the same without `learn`.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use learner::{Cost, Io, Learner, Predictor, Targets, TwoPass, Update};
use serde::{Deserialize, Serialize};

use crate::cell::CellConfig;
use crate::error::Result;
use crate::feed::Feed;
use crate::measure::allocator;
use crate::phases::{Followed, Phases};
use crate::record::Recorder;
use crate::store::{CellDir, Outcome, Position};
use crate::tasks::{Metric, Part, Scores, Segment, Segmentation, Source, Task};
use metrics::TRAIN_SPLIT;
use metrics::stream::{PREQUENTIAL, WINDOW_LOSS};
use rows::parquet::PartWriter;
use rows::{EvalRow, Event};

/// Raise when the loop would give other numbers for the same cell, or rows with other columns.
pub const CODE_VERSION: u32 = 7;

/// Windows of the stream that have a prequential loss of their own.
const WINDOWS: u64 = 20;
/// What the names of metrics begin with that are of a learner that went on learning.
const DYNAMIC: &str = "dynamic_";
/// What the names of scores begin with that are of the data and of no learner.
const OF_DATA: [&str; 2] = ["scored_", "unigram_"];
/// What domains are scored by: every task has it.
const LOSS: &str = "loss";

/// Wall-clock time between checkpoints: what a kill loses at most, where saving is quick.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// Where it is not, this many times as long is trained as the last one took to save.
const CHECKPOINT_SHARE: u32 = 20;
/// Overrides it, in seconds: 0 checkpoints after every step.
pub const CHECKPOINT_VARIABLE: &str = "HARNESS_CHECKPOINT_SECONDS";

/// What a cell is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Data are opened or made.
    Opening,
    /// Segments are learned from.
    Training,
    /// A part is scored.
    Evaluating,
}

/// How far a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Segments done.
    pub done: u64,
    /// Segments in all.
    pub total: u64,
    /// Last loss in nats.
    pub loss: Option<f64>,
    /// Tokens or frames per second of training.
    pub rate: f64,
    /// What is going on.
    pub phase: Phase,
}

impl Progress {
    /// The beginning of a phase of unknown length.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        Self { done: 0, total: 1, loss: None, rate: 0.0, phase }
    }
}

/// Everything the loop needs from outside.
pub struct Job<'a> {
    /// The cell.
    pub config: &'a CellConfig,
    /// Its task.
    pub task: &'a dyn Task,
    /// Its folder.
    pub dir: &'a CellDir,
    /// Where tensors live.
    pub device: &'a Device,
    /// Set by a signal.
    pub interrupt: &'a AtomicBool,
    /// Longest training time.
    pub limit: Option<Duration>,
    /// Told about every step.
    pub progress: &'a mut dyn FnMut(Progress),
}

/// What training and evaluation gave.
pub struct Finished {
    /// How it ended; a divergence arrives as an error instead.
    pub outcome: Outcome,
    /// Metrics of the final evaluation.
    pub scores: Scores,
    /// Sizes.
    pub cost: learner::Cost,
}

/// Segments that cover the budget.
#[must_use]
pub fn segments_for(config: &CellConfig, source: &dyn Source) -> u64 {
    let (per_epoch, seen) = (source.segments(), source.seen_per_epoch().max(1));
    let train = &config.train;
    let epochs = match (train.seen, train.epochs) {
        (Some(budget), _) => budget.get() as f64 / seen as f64,
        (None, Some(epochs)) => epochs.0,
        (None, None) => 1.0,
    };
    ((epochs * per_epoch as f64).ceil() as u64).max(1)
}

/// Builds a cell's learner and runs it from `at`, continuing from a checkpoint if there is one.
///
/// # Errors
/// If training diverges, data cannot be read, or files cannot be written; `at` then tells how far it came.
pub fn run_cell(
    job: &mut Job<'_>,
    sink: &mut PartWriter,
    start: Option<&learner::Snapshot>,
    at: &mut Position,
) -> Result<Finished> {
    let config = job.config;
    let segment = config.train.segment.map_or(config.model.default_segment(), |c| c.0);
    learner::product::warm_up();
    baselines::release_scratch(); // an earlier cell's, in a process that runs several
    allocator::begin_cell(); // data that several cells share, and what belongs to threads, is there by now
    let io = job.task.io(config.train.streams.0, segment);
    check_training(job.task, config)?; // a plan need not come from a grid
    let source = job.task.training(io.streams, io.segment, config.seed)?;
    let total = segments_for(config, &*source);
    let mut learner = build(config, job.task, io, &*source, total, job.device)?;
    if let Some(snapshot) = start {
        learner.load(snapshot)?;
    }
    run_loop(job, &*source, total, &mut *learner, sink, at)
}

/// Refuses settings of training that do not fit the task: more streams than it can fill, and learning on while it is scored where it
/// is no stream.
///
/// # Errors
/// `Config` with the key.
pub fn check_training(task: &dyn Task, config: &CellConfig) -> learner::Result<()> {
    let streams = config.train.streams.0;
    if let Some((most, what)) = task.most_streams().filter(|(most, _)| streams > *most) {
        let problem = format!("expected at most {most}, {what}: each stream reads at least one of them; got {streams}");
        return Err(learner::Error::Config { key: "streams", problem });
    }
    if config.train.dynamic_evaluation && task.segmentation() != Segmentation::Streams {
        let problem =
            "expected a task that is a stream, such as language: this one is scored by whole recordings".into();
        return Err(learner::Error::Config { key: "dynamic_evaluation", problem });
    }
    Ok(())
}

/// Builds a cell's learner for `total` segments of `source`: as it is where its segments hold those of the task, otherwise
/// in two passes.
///
/// # Errors
/// If settings do not fit together or the device cannot run the model.
pub fn build(
    config: &CellConfig,
    task: &dyn Task,
    io: Io,
    source: &dyn Source,
    total: u64,
    device: &Device,
) -> learner::Result<Box<dyn Learner>> {
    let (updates, longest) = updates_of(task, io, source, total);
    let model = config.model.build(io, &config.train, updates, config.seed, device)?;
    Ok(match longest {
        None => model,
        Some(longest) => Box::new(TwoPass::new(model, io.streams, longest)?),
    })
}

/// What the learner that [`build`] would make costs, without making it.
///
/// # Errors
/// If settings do not fit together or the device cannot run the model.
pub fn cost(
    config: &CellConfig,
    task: &dyn Task,
    io: Io,
    source: &dyn Source,
    total: u64,
    device: &Device,
) -> learner::Result<Cost> {
    // two passes share the learner's own state
    config.model.plan(io, &config.train, updates_of(task, io, source, total).0, device)
}

/// Segments with supervised steps that a learner sees, and the longest recording if it takes two passes.
fn updates_of(task: &dyn Task, io: Io, source: &dyn Source, total: u64) -> (u64, Option<usize>) {
    let longest = task.longest().filter(|longest| io.segment < *longest);
    let updates = if longest.is_some() {
        let chunks = u128::from(total) * u128::from(source.chunks(io.segment));
        (chunks / u128::from(source.segments().max(1))).max(1) as u64
    } else {
        updates_for(total, source)
    };
    (updates, longest)
}

/// Updates in `total` segments: those with a supervised step.
#[must_use]
pub fn updates_for(total: u64, source: &dyn Source) -> u64 {
    (u128::from(total) * u128::from(source.supervised()) / u128::from(source.segments().max(1))).max(1) as u64
}

/// Trains a learner to the end of its budget and evaluates it.
///
/// # Errors
/// If training diverges, data cannot be read, or files cannot be written; `at` then tells how far it came.
pub fn run_loop(
    job: &mut Job<'_>,
    source: &dyn Source,
    total: u64,
    learner: &mut dyn Learner,
    sink: &mut PartWriter,
    at: &mut Position,
) -> Result<Finished> {
    let stopped = std::thread::scope(|scope| {
        let mut feed = Feed::new(scope, source, at.segment, total);
        let phases = Phases::of(source, total);
        train(job, &mut feed, (total, source.segments()), &phases, learner, sink, at)
    })?;
    let outcome = match stopped {
        Some(Outcome::Interrupted) => {
            return Ok(Finished { outcome: Outcome::Interrupted, scores: Scores::default(), cost: learner.cost() });
        }
        Some(outcome) => outcome, // at the end of its time it is scored as it is
        None => {
            // what follows is made again after a kill, so its rows must lie behind the checkpoint
            checkpoint(job, learner, sink, at)?;
            Outcome::Completed
        }
    };
    let scored = job.config.task.settings().selection().scored();
    let calibration = job.task.calibration_part().filter(|part| *part != scored);
    let limit = job.config.train.eval_limit.map(NonZeroU64::get);
    let calibrated = calibration.map(|part| evaluate(job, job.task, learner, part, limit, None)).transpose()?;
    let mut scores = evaluate(job, job.task, learner, scored, limit, calibrated.as_ref())?;
    // a sample to look at is no reason to lose what was scored; learning goes on below
    if let Err(e) = sample::write(job, learner, scored) {
        job.dir.log(&format!("what neurons send on a sample input was not written: {e}"));
    }
    if job.config.train.dynamic_evaluation {
        let dynamic = dynamic_evaluation(job, learner, scored, limit)?;
        let of_learner = |metric: &Metric| OF_DATA.iter().all(|start| !metric.name.starts_with(start));
        scores.metrics.extend(dynamic.metrics.into_iter().filter(of_learner).map(|metric| {
            let name = format!("{DYNAMIC}{}", metric.name);
            Metric { name, ..metric }
        }));
    }
    let (domains, changes) = phase_metrics(job, &at.phases);
    scores.metrics.extend(domains);
    push_evals(sink, at, scored.name(), scores.metrics.clone())?;
    push_evals(sink, at, TRAIN_SPLIT, changes.clone())?;
    scores.metrics.extend(changes);
    for row in scores.predictions.drain(..) {
        sink.push(Event::Prediction(row))?;
    }
    Ok(Finished { outcome, scores, cost: learner.cost() })
}

/// Trains to the end of the budget, or until something stops it.
fn train(
    job: &mut Job<'_>,
    feed: &mut Feed<'_>,
    (total, first_pass): (u64, u64),
    phases: &Phases,
    learner: &mut dyn Learner,
    sink: &mut PartWriter,
    at: &mut Position,
) -> Result<Option<Outcome>> {
    let recorder = Recorder::new(job.config, total, first_pass);
    let given = std::env::var(CHECKPOINT_VARIABLE).ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let (mut saved, mut saving) = (Instant::now(), Duration::ZERO);
    let frozen_after = job.config.train.frozen_after.map_or(usize::MAX, |phases| phases.get() as usize);
    if at.phases.scores.is_empty() {
        score_domains(job, learner, at)?;
    }
    while at.segment < total {
        let stop = if job.interrupt.load(Ordering::Relaxed) {
            Some(Outcome::Interrupted)
        } else {
            job.limit.filter(|l| at.elapsed_s > l.as_secs_f64()).map(|_| Outcome::TimedOut)
        };
        let every = given.unwrap_or_else(|| CHECKPOINT_EVERY.max(saving * CHECKPOINT_SHARE));
        if stop.is_some() || saved.elapsed() > every {
            let clock = Instant::now();
            checkpoint(job, learner, sink, at)?;
            (saved, saving) = (Instant::now(), clock.elapsed());
        }
        if let Some(outcome) = stop {
            return Ok(Some(outcome));
        }
        let clock = Instant::now();
        let segment = feed.segment()?;
        at.data_wait_s += clock.elapsed().as_secs_f64();
        allocator::begin_step();
        let learns = phases.over(at.segment) < frozen_after;
        let update = if learns { step } else { watch }(learner, &segment, job.device)?;
        at.elapsed_s += clock.elapsed().as_secs_f64();
        let loss = update.loss;
        recorder.record(sink, at, segment.seen, &learner.cost(), update)?;
        if is_curve_point(at.segment, total, WINDOWS)
            && let Some((loss, n)) = at.prequential.end_window()
        {
            push_evals(sink, at, TRAIN_SPLIT, vec![Metric::plain(PREQUENTIAL, Some(loss), n)])?;
        }
        if let Some((loss, n)) = at.phases.add(phases, at.segment - 1, loss, segment.seen) {
            push_evals(sink, at, TRAIN_SPLIT, vec![Metric::plain(WINDOW_LOSS, Some(loss), n)])?;
        }
        let rate = at.seen as f64 / at.elapsed_s;
        (job.progress)(Progress { done: at.segment, total, loss, rate, phase: Phase::Training });
        if phases.is_end(at.segment) {
            score_domains(job, learner, at)?;
        }
        // the end of training is no point of its own where the same part is scored whole right after
        let last = at.segment == total && job.config.task.settings().selection().scored() == job.task.curve_part();
        if is_curve_point(at.segment, total, job.config.train.curve_points) && !last {
            let (task, limit) = (job.task, job.config.train.curve_limit);
            let scores = evaluate(job, task, learner, task.curve_part(), limit, None)?;
            push_evals(sink, at, job.task.curve_part().name(), scores.metrics)?;
        }
    }
    Ok(None)
}

/// One turn of the loop.
///
/// # Errors
/// If training diverges or shapes disagree.
pub fn step(learner: &mut dyn Learner, segment: &Segment, device: &Device) -> Result<Update> {
    if segment.starts.contains(&true) {
        learner.reset(&segment.starts)?;
    }
    learner.predict(&to(device, &segment.input)?)?;
    allocator::begin_learning();
    Ok(learner.learn(&segment.targets.to_device(device)?)?)
}

fn to(device: &Device, t: &Tensor) -> Result<Tensor> {
    Ok(t.to_device(device).map_err(learner::Error::from)?)
}

/// One turn of the loop for weights that stay as they are: the segment is predicted, and the loss is what it is.
///
/// # Errors
/// If the loss is no number or shapes disagree.
fn watch(learner: &mut dyn Learner, segment: &Segment, device: &Device) -> Result<Update> {
    if segment.starts.contains(&true) {
        learner.reset(&segment.starts)?;
    }
    let output = learner.predict(&to(device, &segment.input)?)?;
    let loss = learner::loss(&to(&Device::Cpu, &output)?, &segment.targets)?;
    let loss = loss.map(|loss| loss.to_scalar::<f32>().map_err(learner::Error::from)).transpose()?.map(f64::from);
    if let Some(value) = loss.filter(|loss| !loss.is_finite()) {
        let (quantity, update, layer) = ("loss", 0, None);
        return Err(learner::Error::Diverged { quantity, value, update, layer }.into());
    }
    allocator::begin_learning();
    // without a weight nothing is learned; the state goes on, and what is kept for credit has no use and no price
    let update = learner.learn(&unweighted(&segment.targets)?.to_device(device)?)?;
    let operations = update.operations.map(learner::OpCounts::without_learning);
    Ok(Update { loss, learning_rate: 0.0, operations, ..update })
}

/// Targets of which no step counts.
fn unweighted(targets: &Targets) -> Result<Targets> {
    let mut targets = targets.clone();
    match &mut targets {
        Targets::Classes { weight, .. }
        | Targets::Labels { weight, .. }
        | Targets::Posteriors { weight, .. }
        | Targets::Transcripts { weight, .. } => *weight = weight.zeros_like().map_err(learner::Error::from)?,
    }
    Ok(targets)
}

/// Scores every domain of the stream by the weights as they are, and adds a row to what was followed.
fn score_domains(job: &mut Job<'_>, learner: &dyn Learner, at: &mut Position) -> Result<()> {
    let (part, limit) = (job.config.task.settings().selection().scored(), job.config.train.eval_limit);
    let task = job.task;
    let mut row = Vec::new();
    for domain in task.domains() {
        let scores = evaluate(job, domain.task, learner, part, limit.map(NonZeroU64::get), None)?;
        row.push(scores.metrics.iter().find(|metric| metric.name == LOSS).and_then(|metric| metric.value));
    }
    if !row.is_empty() {
        at.phases.scores.push(row);
    }
    Ok(())
}

/// What a stream in phases gives: metrics of its domains, which are of the scored part, and of its changes, which are of the stream.
fn phase_metrics(job: &Job<'_>, followed: &Followed) -> (Vec<Metric>, Vec<Metric>) {
    let domains = job.task.domains();
    let names: Vec<&str> = domains.iter().map(|domain| domain.name).collect();
    let changes = followed.changes(&job.task.held_against(), job.config.train.recovery_margin.0);
    (followed.transfers(&names, &job.task.first_visits()), changes)
}

/// Runs a part of a task through the learner's weights and scores it.
fn evaluate(
    job: &mut Job<'_>,
    task: &dyn Task,
    learner: &dyn Learner,
    part: Part,
    limit: Option<u64>,
    calibrated: Option<&Scores>,
) -> Result<Scores> {
    let streams = job.config.train.eval_streams.0;
    let source = task.evaluation(part, streams, learner.segment_len(), limit)?;
    let mut scorer = task.scorer(part, streams, limit)?;
    let mut predictor: Box<dyn Predictor> = learner.evaluator(streams)?;
    for index in 0..source.segments() {
        let segment = source.segment(index)?;
        if segment.starts.contains(&true) {
            predictor.reset(&segment.starts)?;
        }
        let output = predictor.predict(&to(job.device, &segment.input)?)?;
        scorer.observe(&segment, &to(&Device::Cpu, &output)?)?; // scores are made on the host
        (job.progress)(Progress {
            done: index,
            total: source.segments(),
            loss: None,
            rate: 0.0,
            phase: Phase::Evaluating,
        });
    }
    if let Some(on) = calibrated {
        scorer.calibrate(on);
    }
    Ok(scorer.finish())
}

/// Scores a part with a learner that goes on learning from it: each segment is predicted, scored, and then learned from. The learner is
/// another one afterwards.
fn dynamic_evaluation(job: &mut Job<'_>, learner: &mut dyn Learner, part: Part, limit: Option<u64>) -> Result<Scores> {
    let streams = job.config.train.streams.0;
    let source = job.task.evaluation(part, streams, learner.segment_len(), limit)?;
    let mut scorer = job.task.scorer(part, streams, limit)?;
    learner.set_counting(false);
    for index in 0..source.segments() {
        let segment = source.segment(index)?;
        if segment.starts.contains(&true) {
            learner.reset(&segment.starts)?;
        }
        let output = learner.predict(&to(job.device, &segment.input)?)?;
        scorer.observe(&segment, &to(&Device::Cpu, &output)?)?; // as in `evaluate`
        learner.learn(&segment.targets.to_device(job.device)?)?;
        (job.progress)(Progress {
            done: index,
            total: source.segments(),
            loss: None,
            rate: 0.0,
            phase: Phase::Evaluating,
        });
    }
    Ok(scorer.finish())
}

fn checkpoint(job: &Job<'_>, learner: &dyn Learner, sink: &mut PartWriter, at: &mut Position) -> Result<()> {
    sink.hand_over()?; // they are written while the learner is copied
    let snapshot = learner.save()?;
    // rows first: a checkpoint never points at rows that are not on disk, and rows behind the last one are dropped
    let kept = sink.flush()?;
    (at.parts, at.parts_sha256) = (kept.parts, kept.sha256.clone());
    job.dir.save(&snapshot, at)
}

fn is_curve_point(done: u64, total: u64, points: u64) -> bool {
    // the last point is the end of training, where the final evaluation follows anyway
    let reached = |segment: u64| u128::from(segment) * u128::from(points) / u128::from(total);
    points > 0 && reached(done) > reached(done - 1)
}

fn push_evals(sink: &mut PartWriter, at: &Position, split: &str, metrics: Vec<Metric>) -> Result<()> {
    for m in metrics {
        let (value, n, low, high) = (m.value, m.n, m.low, m.high);
        let split = split.to_owned();
        sink.push(Event::Eval(EvalRow { step: at.step, seen: at.seen, split, metric: m.name, value, n, low, high }))?;
    }
    Ok(())
}

mod sample;
#[cfg(test)]
mod tests;
