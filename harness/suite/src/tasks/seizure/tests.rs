//! Tests of the task on a generated dataset.

use super::config::GenerateEeg;
use super::*;
use crate::tasks::Settings;
use bim::config::{Positive, Share};
use data::datasets::chbmit::generate::{EegSpec, generate};

fn cases(list: &[&str]) -> Vec<String> {
    list.iter().map(|&case| case.to_owned()).collect()
}

fn config() -> SeizureConfig {
    SeizureConfig {
        generate: Some(GenerateEeg::default()),
        stretch_seconds: Positive(20.0),
        valid_cases: cases(&["chb03"]),
        test_cases: cases(&["chb04"]),
        ..SeizureConfig::default()
    }
}

fn dataset() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    generate(&dir.path().join("chb-mit"), &EegSpec { patients: 4, recordings: 2, seconds: 70, seed: 3 }).unwrap();
    dir
}

fn open(dir: &tempfile::TempDir, config: &SeizureConfig) -> DataResult<Seizure> {
    Seizure::open(config, &dir.path().join("chb-mit"))
}

fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn patients_are_in_one_part_and_statistics_come_from_training() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let names = |part: usize| -> Vec<String> {
        task.parts[part].iter().map(|&r| task.plan.recording(r).unwrap().case.clone()).collect()
    };
    assert_eq!(names(0), ["chb01", "chb01", "chb02", "chb02"]);
    assert_eq!((names(1), names(2)), (cases(&["chb03", "chb03"]), cases(&["chb04", "chb04"])));
    // 70 s at 4 steps per second
    assert!(task.plan.steps.iter().all(|&steps| steps == 280));
    let mut sums = vec![(0.0, 0.0); WIDTH];
    let mut n = 0.0;
    for &r in &task.parts[0] {
        let mut samples = Vec::new();
        task.plan.signals.append(r, 0..280 * 16, &mut samples).unwrap();
        for row in samples.chunks_exact(WIDTH) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum = (sum.0 + f64::from(x), sum.1 + f64::from(x * x));
            }
            n += 1.0;
        }
    }
    for (sum, squares) in sums {
        // what is cut off at 20 standard deviations moves them little
        assert!((sum / n).abs() < 1e-3 && (squares / n - 1.0).abs() < 0.02, "{} {}", sum / n, squares / n);
    }
}

#[test]
fn splits_that_share_a_patient_or_do_not_fit_are_refused() {
    let dir = dataset();
    let message = |change: &dyn Fn(&mut SeizureConfig)| {
        let mut config = config();
        change(&mut config);
        match config.check() {
            Err(misfit) => format!("{}: {}; {}", misfit.key, misfit.expected, misfit.got),
            Ok(()) => open(&dir, &config).err().map(|e| e.to_string()).unwrap_or_default(),
        }
    };
    assert!(message(&|c| c.test_cases = cases(&["chb03"])).contains("each patient in one part"));
    let twins = message(&|c| (c.train_cases, c.test_cases) = (cases(&["chb01"]), cases(&["chb21"])));
    assert!(twins.contains("chb01 in train_cases and test_cases"), "{twins}");
    let absent = message(&|c| c.test_cases = cases(&["chb09"]));
    assert!(absent.contains("run `harness data fetch chb-mit --only 'RECORDS*' --only 'chb09/*'`"), "{absent}");
    assert!(message(&|c| c.window_seconds = Positive(0.3)).contains("window_seconds a multiple of 0.25"));
    assert!(message(&|c| c.high_hz = Positive(30.0)).contains("25.6"));
    assert!(message(&|c| c.rate = bim::config::Count(96)).contains("multiple of 96 Hz"));
    assert!(message(&|c| c.seizure_share = Some(Share(0.0))).contains("seizure_share above 0"));
}

#[test]
fn a_chronological_split_keeps_the_order_of_time() {
    let dir = dataset();
    let config = SeizureConfig {
        split: super::config::Split::Chronological,
        cases: cases(&["chb01", "chb02"]),
        valid_share: Share(0.0),
        test_share: Share(0.5),
        ..config()
    };
    assert!(open(&dir, &config).err().unwrap().to_string().contains("valid part"));
    let data = ChbMit::open(&dir.path().join("chb-mit"), |case| config.wants(case)).unwrap();
    let config = SeizureConfig { valid_share: Share(0.2), test_share: Share(0.2), ..config };
    // four equal recordings in one case: middles at 1/8, 3/8, 5/8, 7/8
    let mut four = data.recordings().to_vec();
    for recording in &mut four {
        recording.case = "chb01".into();
    }
    let config = SeizureConfig { cases: cases(&["chb01"]), ..config };
    assert_eq!(config.parts(&four).unwrap(), [vec![0, 1], vec![2], vec![3]]);
}

/// Every step of every recording of a part is evaluated exactly once, whatever the streams and the segment.
#[test]
fn evaluation_reads_everything_once_and_starts_each_recording_anew() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let whole: Vec<Vec<f32>> = (0..8)
        .map(|r| {
            let mut samples = Vec::new();
            task.plan.signals.append(r, 0..280 * 16, &mut samples).unwrap();
            samples
        })
        .collect();
    for (streams, segment) in [(1, 80), (2, 33), (3, 7)] {
        let source = task.evaluation(Part::Test, streams, segment, None).unwrap();
        let mut read: Vec<Vec<f32>> = vec![Vec::new(); 8];
        let mut classes = vec![Vec::new(); 8];
        for index in 0..source.segments() {
            let s = source.segment(index).unwrap();
            let (input, weight) = (values(&s.input), values(s.targets.weight()));
            let learner::Targets::Classes { class, .. } = &s.targets else { panic!("classes") };
            let class: Vec<u32> = class.flatten_all().unwrap().to_vec1().unwrap();
            for (b, item) in s.items.iter().enumerate() {
                assert_eq!(s.starts[b], item.is_some_and(|r| read[r].is_empty()));
                for t in 0..segment {
                    let at = b * segment + t;
                    let frame = &input[at * 288..][..288];
                    if weight[at] > 0.0 {
                        read[item.unwrap()].extend_from_slice(frame);
                        classes[item.unwrap()].push(class[at]);
                    } else {
                        assert!(frame.iter().all(|x| x.to_bits() == 0), "padding is zero");
                    }
                }
            }
        }
        for r in 0..8 {
            let expected: &[f32] = if task.parts[2].contains(&r) { &whole[r] } else { &[] };
            assert!(read[r] == expected, "recording {r}");
        }
        for &r in &task.parts[2] {
            let ictal = classes[r].iter().filter(|&&c| c == 1).count() as f64 / 4.0;
            let annotated: f64 = task.plan.events(r).iter().map(|(from, to)| to - from).sum();
            assert!((ictal - annotated).abs() < 1e-9, "whole seconds are whole steps");
        }
        assert_eq!(source.seen_per_epoch(), 560);
    }
}

#[test]
fn training_draws_the_share_it_states_in_an_order_of_the_seed() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let ictal = task.stretches.iter().filter(|s| s.ictal).count();
    assert_eq!((task.stretches.len(), task.quiet), (16, ictal), "one half has seizures; 4 stretches of each recording");
    assert_eq!(task.stretches[3], Stretch { recording: 0, first: 240, steps: 40, ictal: task.stretches[3].ictal });
    let inputs = |seed: u64, segment: usize| -> Vec<Vec<f32>> {
        let source = task.training(2, segment, seed).unwrap();
        assert_eq!(source.segments(), (2 * ictal as u64 / 2) * 80_u64.div_ceil(segment as u64));
        (0..2 * source.segments()).map(|i| values(&source.segment(i).unwrap().input)).collect()
    };
    let a = inputs(1, 80);
    assert!(a == inputs(1, 80));
    assert!(a != inputs(2, 80));
    let (first, second) = a.split_at(a.len() / 2);
    assert!(first != second, "each epoch has an order of its own");
    // a shorter segment reads the same stretches
    let parts = inputs(1, 30);
    let joined: Vec<f32> = parts[..3].iter().flat_map(|p| p[..p.len() / 2].to_vec()).collect();
    assert!(joined == a[0][..a[0].len() / 2]);
}

/// A cache far smaller than the data gives the same values and keeps its bound.
#[test]
fn values_do_not_depend_on_what_was_decoded_before() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let data = ChbMit::open(&dir.path().join("chb-mit"), |_| true).unwrap();
    let preparation = Preparation { rate_hz: 64, low_hz: 0.5, high_hz: 24.0, notch_hz: None };
    // a block of a minute has 276 480 bytes
    let block = 60 * 64 * WIDTH * 4;
    let small = Signals::new(data.recordings().to_vec(), preparation, &task.parts[0]).unwrap().with_capacity(2 * block);
    for range in [4400..4480, 0..100, 3800..3900, 100..4480] {
        for r in [7, 0, 3] {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            small.append(r, range.clone(), &mut a).unwrap();
            task.plan.signals.append(r, range.clone(), &mut b).unwrap();
            assert!(a == b, "recording {r}, samples {range:?}");
            assert!(small.cached_bytes() <= 2 * block, "{}", small.cached_bytes());
        }
    }
}

/// A block whose filter started shortly before it equals the filter run over the whole recording.
#[test]
fn blocks_join_without_a_seam() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let recording = task.plan.recording(0).unwrap().clone();
    let channel = recording.read(0..recording.samples()).unwrap().swap_remove(5);
    let mut filter = data::features::filter::Filter::high_pass(1, 0.5, 256.0)
        .then(data::features::filter::Filter::low_pass(4, 24.0, 256.0));
    let whole: Vec<f64> = channel.iter().map(|x| filter.next(x - channel[0])).step_by(4).collect();
    let raw =
        Signals::new(vec![recording], Preparation { rate_hz: 64, low_hz: 0.5, high_hz: 24.0, notch_hz: None }, &[])
            .unwrap();
    let mut samples = Vec::new();
    raw.append(0, 0..4480, &mut samples).unwrap();
    // without training recordings the mean is 0 and the scale that of a silent channel: 10 per microvolt, cut off at 20
    for (t, row) in samples.chunks_exact(WIDTH).enumerate() {
        let expected = (whole[t] * 10.0).clamp(-20.0, 20.0);
        // f32, and what the filter has not forgotten: 1e-7 of some 100 µV
        assert!((f64::from(row[5]) - expected).abs() < 1e-3, "{t}: {} {expected}", row[5]);
    }
}

/// A detector that knows the answer scores 1, finds every event at the threshold of the validation part and raises no
/// false alarm; one that says the opposite scores 0.
#[test]
fn scores_are_those_of_a_known_detector() {
    let dir = dataset();
    let task = open(&dir, &config()).unwrap();
    let run = |part: Part, sign: f32, calibration: Option<&Scores>| -> Scores {
        let source = task.evaluation(part, 2, 64, None).unwrap();
        let mut scorer = task.scorer(part, 2, None).unwrap();
        for index in 0..source.segments() {
            let s = source.segment(index).unwrap();
            let learner::Targets::Classes { class, .. } = &s.targets else { panic!("classes") };
            let on = class.to_dtype(candle_core::DType::F32).unwrap().affine(f64::from(sign), 0.1).unwrap();
            let logits = candle_core::Tensor::stack(&[on.zeros_like().unwrap(), on], 2).unwrap();
            scorer.observe(&s, &logits).unwrap();
        }
        if let Some(on) = calibration {
            scorer.calibrate(on);
        }
        scorer.finish()
    };
    let value = |scores: &Scores, name: &str| scores.metrics.iter().find(|m| m.name == name).unwrap().value;
    let valid = run(Part::Valid, 1.0, None);
    let test = run(Part::Test, 1.0, Some(&valid));
    assert_eq!(value(&test, "auc_roc"), Some(1.0));
    assert_eq!(value(&test, "auc_pr"), Some(1.0));
    assert_eq!(value(&test, "event_sensitivity"), Some(1.0));
    assert_eq!(value(&test, "false_alarms_per_hour"), Some(0.0));
    assert!((value(&test, "scored_hours").unwrap() - 140.0 / 3600.0).abs() < 1e-12);
    // 70 s are 17 windows of 4 s and one of 2 s
    assert_eq!(test.predictions.len(), 36);
    assert!(test.predictions.iter().any(|p| p.item.ends_with("@68")), "the short last window");
    let worst = run(Part::Test, -1.0, Some(&valid));
    assert_eq!(value(&worst, "auc_roc"), Some(0.0));
    let alone = run(Part::Test, 1.0, None);
    assert_eq!(value(&alone, "event_sensitivity"), None, "no threshold without a validation part");
    let nll = value(&test, "loss").unwrap();
    let (steps, ictal) =
        (560.0, task.parts[2].iter().flat_map(|&r| task.plan.events(r)).map(|(a, b)| 4.0 * (b - a)).sum::<f64>());
    let expected = (ictal * (-1.1_f64).exp().ln_1p() + (steps - ictal) * 0.1_f64.exp().ln_1p()) / steps;
    assert!((nll - expected).abs() < 1e-6, "{nll} {expected}");
}

/// As the published `chb17b_69.edf` is: its samples are those of the file without the zeros behind.
#[test]
fn zeros_behind_a_recording_change_no_sample_and_make_a_fact() {
    let dir = dataset();
    let clean = open(&dir, &config()).unwrap();
    let name = clean.plan.recording(clean.parts[0][1]).unwrap().name.clone();
    let path = dir.path().join("chb-mit").join(&name);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes[..], &[0; 256]].concat()).unwrap();
    let task = open(&dir, &config()).unwrap();
    let samples = |task: &Seizure| {
        let mut samples = Vec::new();
        task.plan.signals.append(task.parts[0][1], 0..280 * 16, &mut samples).unwrap();
        samples
    };
    assert_eq!(samples(&task), samples(&clean));
    assert_eq!((task.account().notices().len(), task.account().notices()[0].place.as_str()), (1, name.as_str()));
    assert!(task.facts().iter().any(|fact| fact.name == "data_repaired" && fact.value == Some(1.0)));
    assert!(clean.account().notices().is_empty() && clean.facts().iter().all(|fact| fact.name != "data_repaired"));
}

/// The real clips below the folder that `HARNESS_REAL_DATA` names: summaries, annotations and signals.
#[test]
fn real_clips_are_read() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    let data = ChbMit::open(&root.join("chb-mit-clips"), |_| true).unwrap();
    assert!(data.missing().is_empty() && data.without_montage().is_empty() && data.disagreements().is_empty());
    assert!(data.account().notices().is_empty(), "{:?}", data.account().groups());
    let seizure_s: f64 = data.recordings().iter().flat_map(|r| &r.seizures).map(|s| s.end_s - s.start_s).sum();
    println!("{} clips, {seizure_s} s of seizure", data.recordings().len());
    let first = &data.recordings()[0];
    let samples = first.read(100..612).unwrap();
    assert!(samples.len() == WIDTH && samples.iter().all(|channel| channel.len() == 512));
    // the publisher's summaries and annotation files, without recordings
    let official = root.join("chb-mit");
    let records = std::fs::read_to_string(official.join("RECORDS")).unwrap();
    let data = ChbMit::open(&official, |_| true).unwrap();
    assert_eq!(data.missing().len(), records.lines().count());
    for case in ["chb01", "chb05", "chb08"] {
        let listed =
            data::datasets::chbmit::summary::read(&official.join(case).join(format!("{case}-summary.txt"))).unwrap();
        assert!(listed.iter().map(|l| l.seizures.len()).sum::<usize>() >= 5, "{case}");
        assert!(listed.iter().all(|l| l.start_s.is_some() && l.channels.len() == 23), "{case}");
        for l in &listed {
            let path = official.join(case).join(format!("{}.seizures", l.file));
            if path.exists() {
                assert_eq!(data::datasets::chbmit::annotations::read(&path, 256.0).unwrap(), l.seizures, "{}", l.file);
            }
        }
    }
}
