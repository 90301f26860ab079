//! The recordings in memory and on disk, against the plain way of normalising them all at once.

use candle_core::Tensor;

use super::*;
use data::account::Kind;
use data::datasets::ptbxl::PtbXl;
use data::datasets::ptbxl::generate::{EcgSpec, generate};

const RECORDS: usize = 60;

fn dataset(with_500_hz: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    generate(&dir.path().join("ptb-xl"), &EcgSpec { records: RECORDS, seed: 4, with_500_hz }).unwrap();
    dir
}

/// Training folds of the data, normalised at once: what the lazy way must equal bit for bit.
fn normalised_at_once(root: &Path, rate: Rate) -> Vec<Vec<f32>> {
    let data = PtbXl::open(root).unwrap();
    let mut records = data.load_many(&data.select(&[1, 2, 3, 4, 5, 6, 7, 8]), rate).unwrap();
    let (mut sum, mut squares, mut n) = ([0f64; 12], [0f64; 12], 0f64);
    for row in records.iter().flat_map(|r| r.chunks_exact(12)) {
        for (l, &x) in row.iter().enumerate() {
            sum[l] += f64::from(x);
            squares[l] += f64::from(x) * f64::from(x);
        }
        n += 1.0;
    }
    for row in records.iter_mut().flat_map(|r| r.chunks_exact_mut(12)) {
        for (l, x) in row.iter_mut().enumerate() {
            let mean = sum[l] / n;
            let scale = 1.0 / (squares[l] / n - mean * mean).sqrt().max(1e-6);
            *x = ((f64::from(*x) - mean) * scale) as f32;
        }
    }
    records
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn signals_in_memory_and_on_disk_give_the_same_bits() {
    let dir = dataset(true);
    let root = dir.path().join("ptb-xl");
    for rate in [Rate::Hz100, Rate::Hz500] {
        let config = CardioConfig { rate: Hertz(rate.hz() as u32), frame: Frame(30), ..CardioConfig::default() };
        let held = Cardio::open(&config, &root).unwrap();
        let streamed = Cardio::open_holding(&config, &root, 1000).unwrap();
        assert_eq!(held.fingerprint(), streamed.fingerprint());
        let [a, b] = [&held, &streamed].map(|task| task.training(5, 7, 3).unwrap());
        assert_eq!(a.segments(), b.segments());
        let expected = normalised_at_once(&root, rate);
        for index in 0..a.segments() + 3 {
            let (a, b) = (a.segment(index).unwrap(), b.segment(index).unwrap());
            assert_eq!(bits(&a.input), bits(&b.input), "segment {index}");
            assert_eq!(a.items, b.items);
            let at_once: Vec<u32> = a
                .items
                .iter()
                .flat_map(|item| &expected[item.unwrap()][a.offset * 360..][..a.input.dim(1).unwrap() * 360])
                .map(|x| x.to_bits())
                .collect();
            assert_eq!(bits(&a.input), at_once, "segment {index}");
        }
        // a last group that is not full
        let [a, b] = [&held, &streamed].map(|task| task.evaluation(Part::Test, 4, 100, None).unwrap());
        for index in 0..a.segments() {
            assert_eq!(bits(&a.segment(index).unwrap().input), bits(&b.segment(index).unwrap().input));
        }
    }
}

/// The fingerprint is part of every cell's id: it must not change with the way signals are kept.
#[test]
fn fingerprint_covers_tables_and_signals() {
    use sha2::{Digest, Sha256};
    let dir = dataset(false);
    let root = dir.path().join("ptb-xl");
    let data = PtbXl::open(&root).unwrap();
    let mut digest = Sha256::new();
    digest.update(data.fingerprint().unwrap());
    for folds in [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9], &[10]] {
        for index in data.select(folds) {
            digest.update(data.entries()[index].ecg_id.to_le_bytes());
            data.load(index, Rate::Hz100).unwrap().iter().for_each(|x| digest.update(x.to_le_bytes()));
        }
    }
    let expected = data::files::hex(&digest.finalize());
    assert_eq!(Cardio::open(&CardioConfig::default(), &root).unwrap().fingerprint(), expected);
}

#[test]
fn a_signal_that_changes_after_the_first_reading_is_an_error() {
    let dir = dataset(false);
    let root = dir.path().join("ptb-xl");
    let task = Cardio::open_holding(&CardioConfig::default(), &root, 0).unwrap();
    let source = task.training(1, 200, 0).unwrap();
    let item = source.segment(0).unwrap().items[0].unwrap();
    let id = task.part(Part::Train)[item].id;
    let other = if id == 1 { 2 } else { 1 };
    for extension in ["hea", "dat"] {
        let path = |id: u32| root.join(format!("records100/00000/{id:05}_lr.{extension}"));
        let text = std::fs::read(path(other)).unwrap();
        std::fs::write(path(id), text).unwrap();
    }
    let header = root.join(format!("records100/00000/{id:05}_lr.hea"));
    let text = std::fs::read_to_string(&header).unwrap().replace(&format!("{other:05}_lr"), &format!("{id:05}_lr"));
    std::fs::write(&header, text).unwrap();
    let again = task.training(1, 200, 0).unwrap();
    let error = again.segment(0).unwrap_err().to_string();
    assert!(error.contains(&format!("{id:05}_lr")) && error.contains("first read"), "{error}");
    std::fs::remove_file(&header).unwrap();
    assert!(matches!(task.training(1, 200, 0).unwrap().segment(0), Err(DataError::Missing { .. })));
}

#[test]
fn missing_signals_and_mended_tables_stand_in_the_account() {
    let dir = dataset(false);
    let root = dir.path().join("ptb-xl");
    let clean = Cardio::open(&CardioConfig::default(), &root).unwrap();
    assert!(clean.account().notices().is_empty() && clean.facts().is_empty());
    let items = clean.account().items();
    let data = PtbXl::open(&root).unwrap();
    for (index, ending) in data.select(&[1, 2, 3]).into_iter().zip(["hea", "dat", "hea"]) {
        std::fs::remove_file(root.join(format!("{}.{ending}", data.entries()[index].filename_lr))).unwrap();
    }
    let table = root.join(data::datasets::ptbxl::DATABASE);
    let text = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, format!("\u{FEFF}{text}")).unwrap();
    let task = Cardio::open(&CardioConfig::default(), &root).unwrap();
    let account = task.account();
    assert_eq!([Kind::Missing, Kind::Repaired].map(|kind| account.count(kind)), [3, 1], "{:?}", account.groups());
    assert_eq!(account.items(), items);
    assert!((account.share_left_out() - 3.0 / items as f64).abs() < 1e-12);
    let facts: Vec<(String, Option<f64>)> = task.facts().into_iter().map(|fact| (fact.name, fact.value)).collect();
    assert_eq!(facts, [("recordings_missing".into(), Some(3.0)), ("data_repaired".into(), Some(1.0))]);
}

#[test]
fn label_sets_name_the_outputs() {
    let dir = dataset(false);
    let root = dir.path().join("ptb-xl");
    let open = |labels| Cardio::open(&CardioConfig { labels, ..CardioConfig::default() }, &root).unwrap();
    assert_eq!(open(LabelSet::Superclass).outputs(), ["NORM", "MI", "STTC", "CD", "HYP"]);
    let rhythm = open(LabelSet::Rhythm);
    assert_eq!(rhythm.outputs(), ["SR", "STACH", "SARRH", "SBRAD"]);
    assert_eq!(rhythm.io(2, 10).outputs, 4);
    let source = rhythm.evaluation(Part::Train, 3, 1000, None).unwrap();
    let mut scorer = rhythm.scorer(Part::Train, 3, None).unwrap();
    for index in 0..source.segments() {
        let segment = source.segment(index).unwrap();
        let (streams, steps, _) = segment.input.dims3().unwrap();
        // a perfect score: the label itself
        let Targets::Labels { label, .. } = &segment.targets else { panic!("labels") };
        assert_eq!(label.dims(), [streams, 4]);
        let output = label.reshape((streams, 1, 4)).unwrap().broadcast_as((streams, steps, 4)).unwrap();
        scorer.observe(&segment, &output.contiguous().unwrap()).unwrap();
    }
    let scores = scorer.finish();
    let value = |name: &str| scores.metrics.iter().find(|m| m.name == name).and_then(|m| m.value);
    assert_eq!(value("auc_roc_SR"), Some(1.0));
    assert!(scores.predictions.iter().all(|row| row.target.as_deref().is_some_and(|t| !t.is_empty())));
}

#[test]
fn a_threshold_needs_likelihoods() {
    let config = |labels, percent| CardioConfig { labels, min_likelihood: Percent(percent), ..CardioConfig::default() };
    assert!(config(LabelSet::Rhythm, 50.0).check().is_err());
    assert!(config(LabelSet::Form, 0.0).check().is_ok());
    assert!(config(LabelSet::Subclass, 50.0).check().is_ok());
    assert!(serde_yaml::from_str::<CardioConfig>("{labels: subclass, min_likelihood: 50}").is_ok());
    assert!(serde_yaml::from_str::<CardioConfig>("{min_likelihood: 101}").is_err());
    assert!(serde_yaml::from_str::<CardioConfig>("{labels: superklass}").is_err());
}
