//! Generated files of each format and layout, and every line of `EXPECTED.tsv` where the real files are at hand.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::*;
use crate::datasets::{ptbxl::generate as ecg, wikitext::generate as text};
use crate::formats::edf::{self, FileToWrite, SignalToWrite};
use crate::formats::flac;
use crate::formats::wfdb::{ChannelToWrite, write_record};

/// The definition, said again: little-endian `i32`, channel after channel.
fn digest_of(channels: &[&[i32]]) -> String {
    let bytes: Vec<u8> = channels.iter().flat_map(|c| c.iter().flat_map(|s| s.to_le_bytes())).collect();
    crate::files::hex(&Sha256::digest(bytes))
}

fn recording(path: &Path) -> Recording {
    match inspect(path).unwrap() {
        Report::Recording(recording) => recording,
        other => panic!("{other:?}"),
    }
}

fn as_folder(path: &Path) -> Folder {
    match inspect(path).unwrap() {
        Report::Folder(folder) => folder,
        other => panic!("{other:?}"),
    }
}

fn count(part: &Part, fact: &str) -> u64 {
    match part.facts.iter().find(|(name, _)| *name == fact) {
        Some((_, Fact::Count(n))) => *n,
        other => panic!("{fact} of {}: {other:?}", part.name),
    }
}

const A: [i32; 5] = [0, -3, 7, 32_000, -32_000];
const B: [i32; 5] = [1, 2, 3, 4, 5];

/// `a.flac`, `b.edf` with annotations inside and beside it, `c.hea` with an annotation file.
fn three_recordings() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.flac"), flac::encode(&[&A, &B], 8000, 16).unwrap()).unwrap();
    let [a, b] = [A, B].map(|samples| samples.map(|s| s as i16));
    let signal = |label, digital| SignalToWrite {
        label,
        unit: "uV",
        physical_min: -100.0,
        physical_max: 100.0,
        digital_range: (-1000, 1000),
        samples_per_record: 5,
        digital,
    };
    let file = FileToWrite {
        kind: edf::Kind::PlusContinuous,
        patient: "X",
        recording: "X",
        start_date: "01.02.03",
        start_time: "04.05.06",
        record_seconds: 0.5,
        signals: &[signal("C3", &a), signal("C4", &b)],
        record_starts_s: &[],
        annotations: &[
            edf::Annotation { onset_s: 0.25, duration_s: None, text: "spike".into() },
            edf::Annotation { onset_s: 0.375, duration_s: Some(0.125), text: "spike".into() },
        ],
    };
    edf::write_file(&dir.path().join("b.edf"), &file).unwrap();
    let channel = |name, digital| ChannelToWrite { name, units: "mV", gain: 200.0, baseline: 4, digital };
    let gap = [1, 2, i16::MIN, 4, 5];
    write_record(dir.path(), "c", 250.0, &[channel("I", &a), channel("II", &gap)]).unwrap();
    // a normal beat at sample 2, and one of ventricular origin three later
    std::fs::write(dir.path().join("c.atr"), [2, 1 << 2, 3, 5 << 2, 0, 0]).unwrap();
    // a seizure from 64 to 128 of 256 a second, as the publisher of CHB-MIT writes it
    let resolution = b"## time resolution: 256\0";
    let mut seizure = vec![0, 22 << 2, 23, 63 << 2];
    seizure.extend(resolution);
    seizure.extend([64, 32 << 2, 64, 33 << 2, 0, 0]);
    std::fs::write(dir.path().join("b.edf.seizures"), seizure).unwrap();
    dir
}

#[test]
fn a_recording_of_each_format() {
    let dir = three_recordings();
    let flac = recording(&dir.path().join("a.flac"));
    assert_eq!((flac.format, flac.duration_s, flac.sha256), ("FLAC", Some(5.0 / 8000.0), digest_of(&[&A, &B])));
    let of = |c: &Channel| (c.name.clone(), c.rate_hz, c.samples, c.lowest, c.highest, c.missing);
    assert_eq!(of(&flac.channels[0]), ("0".into(), Some(8000.0), 5, Some(-32_000), Some(32_000), 0));

    let edf = recording(&dir.path().join("b.edf"));
    assert_eq!((edf.format, edf.duration_s, edf.sha256), ("EDF+C", Some(0.5), digest_of(&[&A, &B])));
    assert_eq!(edf.start, "01.02.03 04.05.06");
    assert_eq!(of(&edf.channels[1]), ("C4".into(), Some(10.0), 5, Some(1), Some(5), 0));
    assert_eq!((edf.channels[0].steps_per_unit, edf.channels[0].at_zero), (Some(10.0), Some(0.0)));
    let [inside, beside] = &edf.annotations[..] else { panic!("{:?}", edf.annotations) };
    assert_eq!((inside.count, inside.first_s, inside.last_s), (2, Some(0.25), Some(0.375)));
    assert_eq!(inside.labels, [("spike".to_owned(), 2)]);
    assert_eq!((beside.source.as_str(), beside.first_s, beside.last_s), ("b.edf.seizures", Some(0.25), Some(0.5)));
    assert_eq!(beside.labels, [("[".to_owned(), 1), ("]".to_owned(), 1)]);

    let wfdb = recording(&dir.path().join("c"));
    assert_eq!((wfdb.format, wfdb.duration_s), ("WFDB", Some(0.02)));
    assert_eq!(wfdb.sha256, digest_of(&[&A, &[1, 2, -32_768, 4, 5]]));
    assert_eq!(of(&wfdb.channels[1]), ("II".into(), Some(250.0), 5, Some(1), Some(5), 1), "a missing sample aside");
    assert_eq!((wfdb.channels[1].steps_per_unit, wfdb.channels[1].at_zero), (Some(200.0), Some(4.0)));
    let beats = &wfdb.annotations[0];
    assert_eq!((beats.count, beats.first_s, beats.last_s), (2, Some(0.008), Some(0.02)));
    assert_eq!(wfdb, recording(&dir.path().join("c.hea")), "with or without .hea");

    let Report::Annotations(alone) = inspect(&dir.path().join("c.atr")).unwrap() else { panic!("annotations") };
    assert_eq!((alone.count, alone.first_s), (2, None), "without a record there is no rate");
}

#[test]
fn a_folder_reports_all_its_recordings_and_what_is_wrong() {
    let dir = three_recordings();
    let inner = dir.path().join("deep/er");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("bad.edf"), "0       not much").unwrap();
    std::fs::write(inner.join("layout.hea"), "layout 1 250 0\n~ 0 200 12 0 0 0 0 I\n").unwrap();
    std::fs::copy(dir.path().join("a.flac"), inner.join("z.FLAC")).unwrap();
    let folder = as_folder(dir.path());
    assert_eq!((folder.layout, folder.parts.len()), ("recordings", 0));
    let paths: Vec<String> = folder.recordings.iter().map(|r| r.path.display().to_string()).collect();
    assert_eq!(paths, ["a.flac", "b.edf", "c.hea", "deep/er/layout.hea", "deep/er/z.FLAC"]);
    assert_eq!(folder.recordings[0], Recording { path: "a.flac".into(), ..recording(&dir.path().join("a.flac")) });
    assert_eq!((folder.recordings[3].format, folder.recordings[3].channels[0].samples), ("WFDB layout", 0));
    assert_eq!(folder.problems.len(), 1);
    assert_eq!(folder.problems[0].path, Path::new("deep/er/bad.edf"));
    assert!(folder.problems[0].message.contains("the file ends"), "{}", folder.problems[0].message);
    let list: String =
        folder.recordings.iter().map(|r| r.sha256.clone() + "  " + &r.path.display().to_string() + "\n").collect();
    assert_eq!(folder.sha256, crate::files::hex(&Sha256::digest(list)));
}

#[test]
fn what_is_nothing_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(inspect(&dir.path().join("none")), Err(DataError::Missing { .. })));
    let odd = dir.path().join("odd.bin");
    std::fs::write(&odd, "RIFF").unwrap();
    assert!(inspect(&odd).unwrap_err().to_string().contains("none of these"));
    std::fs::write(&odd, b"\xFFBIOSEMI").unwrap();
    assert!(inspect(&odd).is_err());
    // a folder that contains itself
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        let notices = as_folder(dir.path()).notices;
        assert_eq!(notices.iter().map(|group| group.places.clone()).collect::<Vec<_>>(), [["again"]]);
        assert!(notices[0].reason.contains("link"), "{notices:?}");
    }
}

/// What other systems, editors and killed processes leave is told and no recording.
#[test]
fn companions_and_leftovers_are_no_recordings() {
    let clean = three_recordings();
    let expected = as_folder(clean.path());
    assert!(expected.notices.is_empty(), "{:?}", expected.notices);
    for names in [
        &["._a.flac", "._b.edf", ".DS_Store"][..],
        &["Thumbs.db", "desktop.ini", "a.flac.partial-12-0", "b.edf.part"],
        &["__MACOSX/._a.flac", ".Trashes/a.flac", "@eaDir/a.flac", ".x.part-0/a.flac"],
    ] {
        let dir = three_recordings();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"\0\x05\x16\x07\0\x02\0\0Mac OS X").unwrap();
        }
        let found = as_folder(dir.path());
        assert_eq!((&found.sha256, found.recordings.len()), (&expected.sha256, 3));
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.notices.iter().map(|group| group.count).sum::<u64>(), names.len() as u64);
        assert!(found.notices.iter().all(|group| group.kind == Kind::Foreign));
    }
}

#[test]
fn what_was_mended_in_a_recording_is_told() {
    let dir = three_recordings();
    let append = |name: &str, rest: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, [&std::fs::read(&path).unwrap()[..], rest].concat()).unwrap();
    };
    let expected = as_folder(dir.path()).sha256;
    append("a.flac", &[0; 77]);
    append("b.edf", &[0; 7]);
    let found = as_folder(dir.path());
    assert_eq!(found.sha256, expected);
    assert_eq!(
        found.notices.iter().map(|group| (group.kind, group.count)).collect::<Vec<_>>(),
        [(Kind::Repaired, 1); 2]
    );
    assert!(recording(&dir.path().join("b.edf")).repairs[0].contains("behind its last record"));
    let json = serde_json::to_string(&recording(&dir.path().join("c.hea"))).unwrap();
    assert!(!json.contains("repairs"), "what is as it should be says nothing");
}

#[test]
fn layouts_are_recognised_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ptb-xl");
    ecg::generate(&root, &ecg::EcgSpec { records: 30, seed: 1, with_500_hz: false }).unwrap();
    let data = as_folder(&root);
    assert_eq!((data.layout, data.recordings.len(), data.parts.len()), ("PTB-XL", 30, 10));
    let sum = |fact: &str| data.parts.iter().map(|part| count(part, fact)).sum::<u64>();
    assert_eq!([sum("records"), sum("signals_at_100_hz"), sum("signals_at_500_hz")], [30, 30, 0]);
    assert!(sum("NORM") > 0);

    let root = dir.path().join("wikitext-103");
    let spec = text::TextSpec { train_bytes: 4000, valid_bytes: 1000, test_bytes: 1000, seed: 1 };
    text::generate(&root, &spec).unwrap();
    let data = as_folder(&root);
    let names: Vec<&str> = data.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!((data.layout, names), ("WikiText-103", vec!["train", "valid", "test"]));
    let bytes = std::fs::read(root.join("wiki.valid.tokens")).unwrap();
    assert_eq!(count(&data.parts[1], "bytes"), bytes.len() as u64);
    let Report::Text(alone) = inspect(&root.join("wiki.valid.tokens")).unwrap() else { panic!("text") };
    assert_eq!(alone.facts, data.parts[1].facts);

    let root = dir.path().join("LibriSpeech");
    let chapter = root.join("dev-clean/84/121550");
    std::fs::create_dir_all(&chapter).unwrap();
    let utterance = flac::encode(&[&[1; 800]], 16_000, 16).unwrap();
    std::fs::write(chapter.join("84-121550-0000.flac"), &utterance).unwrap();
    std::fs::write(chapter.join("84-121550-0002.flac"), &utterance).unwrap();
    std::fs::write(chapter.join("84-121550.trans.txt"), "84-121550-0000 AND SO\n84-121550-0001 ON\n").unwrap();
    let data = as_folder(&root);
    let part = &data.parts[0];
    assert_eq!((data.layout, part.name.as_str()), ("LibriSpeech", "dev-clean"));
    let facts = ["speakers", "chapters", "utterances", "words", "without_transcript", "without_audio"];
    assert_eq!(facts.map(|fact| count(part, fact)), [1, 1, 2, 3, 1, 1]);
    assert_eq!(part.facts.last(), Some(&("duration_s", Fact::Number(0.1))));
}

/// Every line of `EXPECTED.tsv` in the folder that `HARNESS_REAL_DATA` names, as decoded by soundfile, pyedflib and
/// wfdb-python: shape, rate and digest.
#[test]
fn real_files_decode_as_other_readers_do() {
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    let folder = as_folder(root);
    let found: HashMap<String, &Recording> =
        folder.recordings.iter().map(|r| (r.path.display().to_string(), r)).collect();
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let mut lines = 0;
    for row in table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()) {
        let (path, shape, rate, sha256) = (row[0], row[2], row[3], row[4]);
        let r = found.get(path).unwrap_or_else(|| panic!("{path}: {:?}", folder.problems));
        assert_eq!(r.sha256, sha256, "{path}");
        let mut lengths: Vec<String> = r.channels.iter().map(|c| c.samples.to_string()).collect();
        lengths.sort();
        lengths.dedup();
        if let Some((channels, samples)) = shape.split_once('x') {
            let mut samples: Vec<&str> = samples.split('/').collect();
            samples.sort_unstable();
            assert_eq!(
                (r.channels.len().to_string().as_str(), lengths),
                (channels, samples.iter().map(ToString::to_string).collect()),
                "{path}"
            );
            let rate: f64 = rate.parse().unwrap(); // printed with six digits; of the slowest channel where they differ
            let slowest = r.channels.iter().filter_map(|c| c.rate_hz).fold(f64::INFINITY, f64::min);
            assert!((slowest / rate - 1.0).abs() < 1e-5, "{path}: {slowest}");
        } else {
            assert!(r.channels.is_empty(), "{path}");
        }
        lines += 1;
    }
    println!("{lines} lines, {} recordings, problems: {:?}", folder.recordings.len(), folder.problems);
    assert!(lines > 0);
}
