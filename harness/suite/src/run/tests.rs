//! The loop calls a learner in one order, and an evaluation never learns: a test double records every call.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::cell::CellConfig;
use crate::measure::energy::CostModel;
use crate::models::ModelConfig;
use crate::run::{Finished, Job, run_loop};
use crate::store::{CellDir, Outcome, Position};
use crate::tasks::TaskConfig;
use crate::tasks::language::LanguageConfig;
use crate::tasks::{Metric, Part, Scorer, Scores, Segment, Source, Task};
use crate::train::TrainConfig;
use bim::config::Count;
use candle_core::{DType, Device, Tensor};
use data::error::DataResult;
use learner::{Cost, InputKind, Io, Learner, Predictor, Result, Snapshot, Targets, Update};
use rows::StepRow;
use rows::parquet::{Kept, Metadata, PartWriter, read_rows};

type Calls = Arc<Mutex<Vec<String>>>;

struct Recorder {
    calls: Calls,
    who: &'static str,
}

impl Recorder {
    fn note(&self, what: &str) {
        self.calls.lock().expect("one thread").push(format!("{} {what}", self.who));
    }
}

impl Predictor for Recorder {
    fn segment_len(&self) -> usize {
        2
    }
    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.note(&format!("reset {starts:?}"));
        Ok(())
    }
    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        self.note("predict");
        Ok(Tensor::zeros((x.dim(0)?, x.dim(1)?, 3), DType::F32, &Device::Cpu)?)
    }
}

impl Learner for Recorder {
    fn learn(&mut self, _: &Targets) -> Result<Update> {
        self.note("learn");
        Ok(Update { loss: Some(1.0), ..Update::default() })
    }
    fn set_counting(&mut self, on: bool) {
        self.note(&format!("counting {on}"));
    }
    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        self.note(&format!("evaluator of {streams}"));
        Ok(Box::new(Recorder { calls: Arc::clone(&self.calls), who: "evaluation:" }))
    }
    fn cost(&self) -> Cost {
        Cost::default()
    }
    fn save(&self) -> Result<Snapshot> {
        self.note("save");
        Ok(Snapshot::default())
    }
    fn load(&mut self, _: &Snapshot) -> Result<()> {
        Ok(())
    }
}

/// Two segments an epoch, the first of which starts the stream.
struct TwoSegments;

impl Source for TwoSegments {
    fn segments(&self) -> u64 {
        2
    }
    fn seen_per_epoch(&self) -> u64 {
        4
    }
    fn segment(&self, index: u64) -> DataResult<Segment> {
        let zeros = |dtype| Tensor::zeros((1, 2), dtype, &Device::Cpu).expect("two numbers");
        Ok(Segment {
            starts: vec![index.is_multiple_of(2)],
            input: zeros(DType::U32),
            targets: Targets::Classes { class: zeros(DType::U32), weight: zeros(DType::F32) },
            seen: 2,
            items: vec![None],
            offset: 0,
        })
    }
}

struct FakeTask;
struct FakeScorer;

impl Scorer for FakeScorer {
    fn observe(&mut self, _: &Segment, _: &Tensor) -> Result<()> {
        Ok(())
    }
    fn finish(self: Box<Self>) -> Scores {
        Scores { metrics: vec![Metric::plain("loss", Some(0.5), 1)], predictions: Vec::new() }
    }
}

impl Task for FakeTask {
    fn io(&self, streams: usize, segment: usize) -> Io {
        Io { input: InputKind::Tokens { vocabulary: 3 }, outputs: 3, streams, segment }
    }
    fn training(&self, _: usize, _: usize, _: u64) -> DataResult<Box<dyn Source + '_>> {
        Ok(Box::new(TwoSegments))
    }
    fn evaluation(&self, _: Part, _: usize, _: usize, _: Option<u64>) -> DataResult<Box<dyn Source + '_>> {
        Ok(Box::new(TwoSegments))
    }
    fn scorer(&self, _: Part, _: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        Ok(Box::new(FakeScorer))
    }
    fn curve_part(&self) -> Part {
        Part::Valid
    }
    fn meaning(&self) -> DataResult<crate::export::Meaning> {
        Ok(Vec::new())
    }
    fn identity(&self, _: &mut data::identity::sums::Sums) -> data::error::DataResult<data::identity::Found> {
        Ok(data::identity::Found::new(data::identity::Identity::Generated, "a test makes them"))
    }

    fn fingerprint(&self) -> &'static str {
        "fake"
    }
    fn facts(&self) -> Vec<Metric> {
        Vec::new()
    }
}

fn config() -> CellConfig {
    CellConfig {
        experiment: "order".into(),
        scale: "mini".into(),
        task_name: "language".into(),
        task: TaskConfig::Language(LanguageConfig::default()),
        model_name: "bim".into(),
        model: ModelConfig::Bim(Box::default()),
        train: TrainConfig {
            seen: std::num::NonZeroU64::new(6),
            curve_points: 1,
            eval_streams: Count(1),
            ..TrainConfig::default()
        },
        energy: CostModel::default(),
        report: crate::report_config::ReportFacts::default(),
        seed: 1,
    }
}

fn run(dir: &Path, interrupt: bool) -> (Vec<String>, Outcome, Position) {
    let (calls, done, at) = run_as(dir, interrupt, &config());
    (calls, done.outcome, at)
}

fn run_as(dir: &Path, interrupt: bool, config: &CellConfig) -> (Vec<String>, Finished, Position) {
    let calls = Calls::default();
    let mut learner = Recorder { calls: Arc::clone(&calls), who: "training:" };
    let cell = CellDir::open(dir, "x").expect("folder");
    let mut sink = PartWriter::open(&cell.path, Kept::default(), Metadata::new(), || ()).expect("sink");
    let interrupt = AtomicBool::new(interrupt);
    let mut progress = |_| ();
    let mut job = Job {
        config,
        task: &FakeTask,
        dir: &cell,
        device: &Device::Cpu,
        interrupt: &interrupt,
        limit: None,
        progress: &mut progress,
    };
    let mut at = Position::default();
    let done = run_loop(&mut job, &TwoSegments, 3, &mut learner, &mut sink, &mut at).expect("runs");
    sink.finish().expect("files");
    let calls = calls.lock().expect("one thread").clone();
    (calls, done, at)
}

/// What is learned from while it is scored is predicted first, by the learner itself, and after all else.
#[test]
fn dynamic_evaluation_predicts_before_it_learns() {
    let dir = tempfile::tempdir().expect("folder");
    let mut config = config();
    config.train.dynamic_evaluation = true;
    let (calls, done, _) = run_as(dir.path(), false, &config);
    let (plain, _, _) = run(&dir.path().join("plain"), false);
    assert_eq!(calls[..plain.len()], plain[..]);
    let dynamic = [
        "training: counting false",
        "training: reset [true]",
        "training: predict",
        "training: learn",
        "training: predict",
        "training: learn",
    ];
    assert_eq!(calls[plain.len()..], dynamic);
    let names: Vec<&str> = done.scores.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["loss", "dynamic_loss"]);
}

/// The prequential loss is that of the first pass over the data; the recorder's task has two segments, of three that are seen.
#[test]
fn prequential_loss_is_of_the_first_pass() {
    let dir = tempfile::tempdir().expect("folder");
    let (_, _, at) = run(dir.path(), false);
    let steps = read_rows::<StepRow>(&dir.path().join("cells/x/steps.parquet")).expect("steps");
    let losses: Vec<f64> = steps.iter().map(|step| step.loss.expect("a loss")).collect();
    assert_eq!(losses.len(), 3);
    assert_eq!(at.prequential.mean(), Some((f64::midpoint(losses[0], losses[1]), 2)));
    let evals = read_rows::<rows::EvalRow>(&dir.path().join("cells/x/evals.parquet")).expect("evaluations");
    let windows: Vec<(u64, Option<f64>)> =
        evals.iter().filter(|row| row.metric == "prequential_loss").map(|row| (row.step, row.value)).collect();
    assert_eq!(windows, [(1, Some(losses[0])), (2, Some(losses[1]))]);
}

#[test]
fn reset_predict_learn_and_evaluation_without_learn() {
    let dir = tempfile::tempdir().expect("folder");
    let (calls, outcome, position) = run(dir.path(), false);
    let evaluation =
        ["training: evaluator of 1", "evaluation: reset [true]", "evaluation: predict", "evaluation: predict"];
    let mut expected = vec![
        "training: reset [true]",
        "training: predict",
        "training: learn",
        "training: predict", // the stream goes on: no reset
        "training: learn",
        "training: reset [true]",
        "training: predict",
        "training: learn",
    ];
    expected.extend(evaluation); // the point of the curve
    expected.push("training: save"); // before what follows: a kill there makes it again
    expected.extend(evaluation); // the result
    expected.extend(["training: evaluator of 1", "evaluation: reset [true]"]); // what neurons send on a sample input
    assert_eq!(calls, expected);
    assert_eq!((outcome, position.segment, position.step, position.seen), (Outcome::Completed, 3, 3, 6));
    let steps = read_rows::<StepRow>(&dir.path().join("cells/x/steps.parquet")).expect("steps");
    assert_eq!(steps.iter().map(|s| (s.step, s.seen)).collect::<Vec<_>>(), [(1, 2), (2, 4), (3, 6)]);
}

#[test]
fn an_interrupt_saves_before_the_next_step() {
    let dir = tempfile::tempdir().expect("folder");
    let (calls, outcome, position) = run(dir.path(), true);
    assert_eq!((calls, outcome, position.segment), (vec!["training: save".to_owned()], Outcome::Interrupted, 0));
}
