use std::collections::BTreeSet;

use baselines::{BpttConfig, BpttLearner, Rnn, RnnConfig};
use candle_core::{DType, Device};
use learner::{Decay, Learner, Predictor, Schedule, Targets};

use super::*;
use data::account::Kind;
use data::datasets::librispeech::generate::{SpeechSpec, generate};

/// A generated dataset of 60 utterances, opened.
fn open(change: impl Fn(&mut SpeechConfig)) -> DataResult<(tempfile::TempDir, Speech)> {
    let dir = tempfile::tempdir().unwrap();
    let mel = LogMelConfig { bands: 8, ..LogMelConfig::default() };
    let mut config = SpeechConfig { mel, ..SpeechConfig::default() };
    change(&mut config);
    generate(&dir.path().join("L"), &SpeechSpec { utterances: 60, seed: 1 })?;
    let speech = Speech::open(&config, &dir.path().join("L"), &dir.path().join("cache"))?;
    Ok((dir, speech))
}

fn lengths(targets: &Targets) -> (Vec<usize>, Vec<Vec<f32>>) {
    match targets {
        Targets::Transcripts { transcripts, weight } => (transcripts.steps.clone(), weight.to_vec2().unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_are_alike_in_length_padded_and_seeded() {
    let (_dir, task) = open(|_| {}).unwrap();
    let source = task.training(5, 0, 3).unwrap();
    assert_eq!(source.segments(), 48 / 5);
    let mut seen = BTreeSet::new();
    let mut padded = 0.0;
    for index in 0..source.segments() {
        let segment = source.segment(index).unwrap();
        assert_eq!(segment.starts, [true; 5]);
        let (steps, weight) = lengths(&segment.targets);
        let (_, longest, width) = segment.input.dims3().unwrap();
        assert_eq!((longest, width), (*steps.iter().max().unwrap(), 24));
        assert_eq!(segment.seen, steps.iter().sum::<usize>() as u64);
        let input = segment.input.to_vec3::<f32>().unwrap();
        for (b, &length) in steps.iter().enumerate() {
            let expected: Vec<f32> = (0..longest).map(|t| f32::from(u8::from(t < length))).collect();
            assert_eq!(weight[b], expected);
            assert!(input[b][length..].iter().flatten().all(|x| *x == 0.0));
            assert!(input[b][..length].iter().all(|row| row.iter().any(|x| *x != 0.0)));
            padded += (longest - length) as f64;
        }
        seen.extend(segment.items.iter().flatten().copied());
    }
    assert_eq!(seen.len(), 45, "each at most once in an epoch");
    assert!(padded < 0.2 * source.seen_per_epoch() as f64, "{padded} steps of padding");
    let items = |seed, index| task.training(5, 0, seed).unwrap().segment(index).unwrap().items;
    assert_eq!(items(3, 0), source.segment(0).unwrap().items);
    assert_ne!(items(3, 0), items(4, 0));
    assert_ne!(items(3, 0), items(3, source.segments()), "the next epoch is another");
    assert_eq!(task.most_streams().map(|(most, _)| most), Some(48));
}

#[test]
fn an_evaluation_has_every_utterance_once() {
    let (_dir, task) = open(|_| {}).unwrap();
    for streams in [1, 4, 5] {
        let source = task.evaluation(Part::Test, streams, 0, None).unwrap();
        let mut items: Vec<usize> =
            (0..source.segments()).flat_map(|i| source.segment(i).unwrap().items).flatten().collect();
        items.sort_unstable();
        assert_eq!(items, (0..6).collect::<Vec<_>>(), "{streams} streams");
    }
    let few = task.evaluation(Part::Valid, 2, 0, Some(60)).unwrap();
    assert!((1..=3).contains(&few.segments()) && few.seen_per_epoch() >= 60);
}

fn rnn(task: &Speech, streams: usize, segment: usize) -> BpttLearner<Rnn> {
    rnn_at(task, streams, segment, 1e-2)
}

/// At this learning rate.
fn rnn_at(task: &Speech, streams: usize, segment: usize, peak: f64) -> BpttLearner<Rnn> {
    let schedule = Schedule { peak, warmup_updates: 0, total_updates: 99, decay: Decay::Constant, final_share: 1.0 };
    let train = BpttConfig { schedule, ..BpttConfig::recipe(1) };
    BpttLearner::new(RnnConfig::default(), task.io(streams, segment), train, 1, &Device::Cpu).unwrap()
}

/// Padding and the other utterances of a batch change nothing.
#[test]
fn scores_do_not_depend_on_the_batches() {
    let (_dir, task) = open(|_| {}).unwrap();
    let learner = rnn(&task, 2, usize::MAX);
    let scores = |streams| {
        let source = task.evaluation(Part::Test, streams, 0, None).unwrap();
        let mut scorer = task.scorer(Part::Test, streams, None).unwrap();
        let mut predictor = learner.evaluator(streams).unwrap();
        for i in 0..source.segments() {
            let segment = source.segment(i).unwrap();
            predictor.reset(&segment.starts).unwrap();
            scorer.observe(&segment, &predictor.predict(&segment.input).unwrap()).unwrap();
        }
        scorer.finish()
    };
    let (one, four) = (scores(1), scores(4));
    assert_eq!(one.predictions.len(), 6);
    for (a, b) in one.predictions.iter().zip(&four.predictions) {
        assert_eq!((&a.item, &a.target), (&b.item, &b.target));
        let (x, y) = (a.nll.unwrap(), b.nll.unwrap());
        assert!((x - y).abs() < 1e-4 * x, "{} {x} {y}", a.item); // f32 products summed in another order
    }
    assert!(one.metrics.iter().any(|m| m.name == "word_error_rate_percent" && m.value.is_some()));
}

/// A whole window and two passes in chunks see the same loss at the same weights, and both learn.
#[test]
fn one_pass_and_two_passes_learn() {
    let (_dir, task) = open(|_| {}).unwrap();
    let source = task.training(8, 0, 1).unwrap();
    let longest = task.longest().unwrap();
    let mut whole: Box<dyn Learner> = Box::new(rnn(&task, 8, longest));
    let mut chunks: Box<dyn Learner> =
        Box::new(learner::TwoPass::new(Box::new(rnn(&task, 8, 10)), 8, longest).unwrap());
    for learner in [&mut whole, &mut chunks] {
        let losses: Vec<f64> = (0..18)
            .map(|i| {
                let segment = source.segment(i).unwrap();
                learner.reset(&segment.starts).unwrap();
                learner.predict(&segment.input).unwrap();
                learner.learn(&segment.targets).unwrap().loss.unwrap()
            })
            .collect();
        assert!(losses[12..].iter().sum::<f64>() < 0.7 * losses[..6].iter().sum::<f64>(), "{losses:?}");
    }
    let fresh = |learner: &mut dyn Learner| {
        let segment = source.segment(0).unwrap();
        learner.reset(&segment.starts).unwrap();
        learner.predict(&segment.input).unwrap();
        learner.learn(&segment.targets).unwrap().loss.unwrap()
    };
    let (a, b) = (
        fresh(&mut rnn(&task, 8, longest)),
        fresh(&mut learner::TwoPass::new(Box::new(rnn(&task, 8, 10)), 8, longest).unwrap()),
    );
    assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
}

/// What two passes cost is twice the forward pass of one, and the alignment; at frozen weights to the operation.
#[test]
fn a_recording_that_is_read_twice_is_charged_twice() {
    let (_dir, task) = open(|_| {}).unwrap();
    let source = task.training(4, 0, 1).unwrap();
    let longest = task.longest().unwrap();
    let segment = source.segment(0).unwrap();
    let chunk = 10;
    let chunks = segment.input.dim(1).unwrap().div_ceil(chunk) as u64;
    let io = task.io(4, chunk);
    let bim = bim::BimConfig {
        width: Count(16),
        channels: Count(16),
        state: Count(4),
        heads: Count(2),
        layers: Count(2),
        ..bim::BimConfig::default()
    };
    let bim = bim::Bim::new(&bim, io, bim::Optimizer::constant(0.0), 1, &Device::Cpu).unwrap();
    let learners: [Box<dyn Learner>; 2] = [Box::new(rnn_at(&task, 4, chunk, 0.0)), Box::new(bim)];
    for learner in learners {
        let mut learner = learner::TwoPass::new(learner, 4, longest).unwrap();
        learner.reset(&segment.starts).unwrap();
        learner.predict(&segment.input).unwrap();
        let update = learner.learn(&segment.targets).unwrap();
        let counts = update.operations.expect("counted");
        assert_eq!(update.updates, chunks);
        let aligned = segment.targets.alignment(io.outputs);
        assert!(counts.forward.operations() > 0 && aligned.elementwise > 0);
        let (first, second) = (counts.passes, counts.forward);
        assert_eq!((first.macs, first.acs), (second.macs, second.acs));
        assert_eq!(first.elementwise, second.elementwise + aligned.elementwise);
        assert_eq!((counts.unknown, counts.optimizer.elementwise % chunks), (0, 0));
    }
    // one pass aligns as well
    let mut whole = rnn_at(&task, 4, longest, 0.0);
    whole.reset(&segment.starts).unwrap();
    whole.predict(&segment.input).unwrap();
    let counts = whole.learn(&segment.targets).unwrap().operations.expect("counted");
    assert_eq!(counts.passes, segment.targets.alignment(io.outputs));
}

#[test]
fn normalisation_uses_the_utterances_it_says() {
    for normalise in [Normalise::Utterance, Normalise::Speaker, Normalise::Global] {
        let stack = Stacking { stack: data::features::transform::Span(1), stride: None };
        let (_dir, task) = open(|c| (c.normalise, c.stacking) = (normalise, stack)).unwrap();
        let mean = |items: &[&Item]| {
            let values: Vec<f32> = items.iter().flat_map(|item| task.frames(item, None).unwrap()).collect();
            values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64
        };
        let train: Vec<&Item> = task.part(Part::Train).iter().collect();
        let speaker = task.audio[train[0].audio].speaker;
        let same: Vec<&Item> = train.iter().copied().filter(|i| task.audio[i.audio].speaker == speaker).collect();
        let flat = |items: &[&Item]| mean(items).abs() < 1e-5;
        let expected = match normalise {
            Normalise::Utterance => [true, true, true],
            Normalise::Speaker => [false, true, true],
            Normalise::Global => [false, false, true],
        };
        assert_eq!([flat(&train[..1]), flat(&same), flat(&train)], expected, "{normalise:?}");
    }
}

#[test]
fn masks_are_for_training_alone() {
    let masks = SpecAugment { band_masks: 1, bands: 4, time_masks: 1, frames: 10 };
    let (_dir, task) = open(|c| c.augment = Some(masks)).unwrap();
    let item = &task.part(Part::Train)[0];
    assert_ne!(task.frames(item, Some((1, 0))).unwrap(), task.frames(item, None).unwrap());
    let source = task.evaluation(Part::Train, 1, 0, None).unwrap();
    let zeros = (0..source.segments())
        .map(|i| source.segment(i).unwrap().input.eq(0f32).unwrap().to_dtype(DType::U32).unwrap())
        .map(|zero| zero.sum_all().unwrap().to_scalar::<u32>().unwrap())
        .max();
    assert!(zeros < Some(17), "no more than the filled end of the last step: {zeros:?}");
}

#[test]
fn what_is_left_out_is_said_and_what_is_empty_refused() {
    let (_dir, task) = open(|c| c.longest_s = Positive(1.5)).unwrap();
    let facts = task.facts();
    assert_eq!(facts[0].name, "training_utterances_too_long");
    assert_eq!(facts[0].value.unwrap() as usize + task.part(Part::Train).len(), 48);
    let refused = open(|c| c.longest_s = Positive(0.01)).err().unwrap().to_string();
    assert!(refused.contains("at most 0.01 s"), "{refused}");
    assert!(open(|c| c.train_splits = vec!["train-other-500".into()]).err().unwrap().to_string().contains("not found"));
    let (_dir, few) = open(|c| c.utterances.train = Some(Count(7))).unwrap();
    assert_eq!(few.part(Part::Train).len(), 7);
    // 30 ms a step are few for transcripts of one step a character at 10 Hz: then training leaves utterances out
    let coarse = |c: &mut SpeechConfig| c.stacking.stack = data::features::transform::Span(12);
    let (_dir, coarse) = open(coarse).unwrap();
    assert!(coarse.facts().iter().any(|m| m.name == "training_transcripts_too_long"));
}

#[test]
fn companions_are_no_utterances_and_stand_in_the_account() {
    let (dir, clean) = open(|_| {}).unwrap();
    assert!(clean.account().notices().is_empty());
    let u = &clean.audio[0].path;
    let name = u.file_name().unwrap().to_str().unwrap();
    std::fs::write(u.with_file_name(format!("._{name}")), b"\0\x05\x16\x07").unwrap();
    let chapter = u.parent().unwrap();
    let transcripts = chapter.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
        + "-"
        + chapter.file_name().unwrap().to_str().unwrap()
        + ".trans.txt";
    let text = std::fs::read_to_string(chapter.join(&transcripts)).unwrap();
    std::fs::write(chapter.join(&transcripts), text.replace('\n', "\r\n")).unwrap();
    let task = Speech::open(&clean.config, &dir.path().join("L"), &dir.path().join("cache")).unwrap();
    assert_eq!(task.fingerprint(), clean.fingerprint());
    let kinds = [Kind::Foreign, Kind::Repaired].map(|kind| task.account().count(kind));
    assert_eq!((kinds, task.account().notices().len()), ([1, 1], 2), "{:?}", task.account());
    assert!(task.facts().iter().any(|fact| fact.name == "data_repaired"));
}

#[test]
fn the_fingerprint_follows_the_data() {
    let print = |change: &dyn Fn(&mut SpeechConfig)| {
        let unchosen = |c: &mut SpeechConfig| {
            c.selection = Selection::None;
            change(c);
        };
        open(unchosen).unwrap().1.fingerprint().to_owned()
    };
    let plain = print(&|_| {});
    assert_eq!(plain, print(&|_| {}));
    assert_ne!(plain, print(&|c| c.train_splits = vec!["dev-clean".into()]));
}

/// Parts that share audio are refused whatever their splits are called.
#[test]
fn copies_of_a_split_under_another_name_are_refused() {
    let (dir, clean) = open(|_| {}).unwrap();
    assert_eq!(clean.identity.identity, data::identity::Identity::Generated, "the folder has the marker");
    let root = dir.path().join("L");
    for (of, called) in
        [("test-clean", "train-clean-360"), ("dev-clean", "train-other-500"), ("train-clean-100", "dev-other")]
    {
        std::fs::rename(root.join(of), root.join("x")).unwrap();
        std::os::unix::fs::symlink("x", root.join(of)).unwrap();
        std::os::unix::fs::symlink("x", root.join(called)).unwrap();
        let mut config = clean.config.clone();
        if called.starts_with("train") {
            config.train_splits = vec![called.into()];
        } else {
            config.valid_splits = vec![called.into()];
        }
        let error = Speech::open(&config, &root, &dir.path().join("cache")).err().unwrap().to_string();
        assert!(error.contains("have the same audio"), "{called}: {error}");
        std::fs::remove_file(root.join(of)).unwrap();
        std::fs::remove_file(root.join(called)).unwrap();
        std::fs::rename(root.join("x"), root.join(of)).unwrap();
    }
}
