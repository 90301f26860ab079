//! Tests of the index on a dataset of two tiny recordings.

use std::path::Path;

use super::*;
use crate::formats::edf::{FileToWrite, SignalToWrite, write_file};

/// Ten seconds at 4 Hz: signal `i` is the constant `i + 1` in digital steps of 1 µV.
fn recording(path: &Path, labels: &[&str], unit: &str) {
    let samples: Vec<Vec<i16>> = (1..).take(labels.len()).map(|value| vec![value; 40]).collect();
    let signals: Vec<SignalToWrite<'_>> = labels
        .iter()
        .zip(&samples)
        .map(|(label, digital)| SignalToWrite {
            label,
            unit: if unit.is_ascii() { unit } else { "@@@@" },
            physical_min: -1000.0,
            physical_max: 1000.0,
            digital_range: (-1000, 1000),
            samples_per_record: 4,
            digital,
        })
        .collect();
    let file = FileToWrite {
        kind: Kind::Edf,
        patient: "X",
        recording: "X",
        start_date: "01.01.00",
        start_time: "00.00.00",
        record_seconds: 1.0,
        signals: &signals,
        record_starts_s: &[],
        annotations: &[],
    };
    write_file(path, &file).unwrap();
    if !unit.is_ascii() {
        // the writer writes what the format allows
        let mut bytes = std::fs::read(path).unwrap();
        let mut field = unit.as_bytes().to_vec();
        field.resize(4, b' ');
        for at in 0..bytes.len() - 4 {
            if bytes[at..].starts_with(b"@@@@") {
                bytes[at..at + 4].copy_from_slice(&field);
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
}

struct Dataset(tempfile::TempDir);

impl Dataset {
    /// `chb12_01` in bipolar channels with a seizure from 2 to 5 s, `chb12_02` without.
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path("chb12")).unwrap();
        dir.write("RECORDS", "chb12/chb12_01.edf\nchb12/chb12_02.edf\nchb13/chb13_01.edf\n");
        dir.write("RECORDS-WITH-SEIZURES", "chb12/chb12_01.edf\n");
        dir.write(
            "chb12/chb12-summary.txt",
            "File Name: chb12_01.edf\nNumber of Seizures in File: 1\nSeizure Start Time: 2 seconds\n\
             Seizure End Time: 5 seconds\n",
        );
        recording(&dir.path("chb12/chb12_01.edf"), &montage::CHANNELS, "uV");
        recording(&dir.path("chb12/chb12_02.edf"), &montage::CHANNELS, "uV");
        dir
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn open(&self) -> DataResult<ChbMit> {
        ChbMit::open(self.0.path(), |case| case == "chb12")
    }

    fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

const SPAN: Seizure = Seizure { start_s: 2.0, end_s: 5.0 };

#[test]
fn seizures_come_from_annotations_else_the_summary_else_the_list() {
    let dataset = Dataset::new();
    let data = dataset.open().unwrap();
    // the second recording is in no summary, as in chb24, and RECORDS-WITH-SEIZURES does not list it
    let seizures: Vec<&[Seizure]> = data.recordings().iter().map(|r| r.seizures.as_slice()).collect();
    assert_eq!(seizures, [&[SPAN][..], &[]]);
    assert!(data.missing().is_empty(), "chb13 is not wanted");
    dataset.write("chb12/chb12_01.edf.seizures", annotations::to_bytes(&[Seizure { end_s: 5.5, ..SPAN }], 4));
    let data = dataset.open().unwrap();
    assert_eq!(data.recordings()[0].seizures, [Seizure { end_s: 5.5, ..SPAN }], "half a second is rounding");
    assert!(data.disagreements().is_empty());
    dataset.write("chb12/chb12_01.edf.seizures", annotations::to_bytes(&[Seizure { end_s: 8.0, ..SPAN }], 4));
    assert_eq!(dataset.open().unwrap().disagreements(), ["chb12/chb12_01.edf"]);
    std::fs::remove_file(dataset.path("RECORDS-WITH-SEIZURES")).unwrap();
    assert!(dataset.error().contains("seizures of chb12/chb12_02.edf"), "nothing says that it has none");
    dataset.write("chb12/chb12_01.edf.seizures", annotations::to_bytes(&[Seizure { end_s: 30.0, ..SPAN }], 4));
    assert!(dataset.error().contains("one annotated from 2 to 30 s"));
}

#[test]
fn samples_are_those_of_the_channels_by_name() {
    let dataset = Dataset::new();
    let shuffled: Vec<&str> = ["-", "P7-T7"].into_iter().chain(montage::CHANNELS.into_iter().rev()).collect();
    recording(&dataset.path("chb12/chb12_02.edf"), &shuffled, "uV");
    let data = dataset.open().unwrap();
    let read = data.recordings()[1].read(3..9).unwrap();
    assert_eq!((read.len(), read[0].len()), (18, 6));
    // the channels in reverse, behind two others
    assert!(read.iter().enumerate().all(|(c, x)| x.iter().all(|x| (x - (20 - c) as f64).abs() < 1e-9)));
    // against one reference: FP1 … CZ, PZ in the order of their first use
    let mut electrodes: Vec<String> = Vec::new();
    for electrode in montage::CHANNELS.iter().flat_map(|name| name.split('-')) {
        let label = format!("{electrode}-CS2");
        if !electrodes.contains(&label) {
            electrodes.push(label);
        }
    }
    let labels: Vec<&str> = electrodes.iter().map(String::as_str).collect();
    recording(&dataset.path("chb12/chb12_02.edf"), &labels, "uV");
    let read = dataset.open().unwrap().recordings()[1].read(0..40).unwrap();
    // FP1-F7 is the first minus the second
    assert!((read[0][0] + 1.0).abs() < 1e-9 && read[0].len() == 40);
    recording(&dataset.path("chb12/chb12_02.edf"), &labels[1..], "uV");
    assert_eq!(dataset.open().unwrap().without_montage(), ["chb12/chb12_02.edf"], "FP1 is missing");
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let dataset = Dataset::new();
    std::fs::remove_file(dataset.path("chb12/chb12_02.edf")).unwrap();
    assert_eq!(dataset.open().unwrap().missing(), ["chb12/chb12_02.edf"]);
    recording(&dataset.path("chb12/chb12_02.edf"), &montage::CHANNELS, "mV");
    assert!(dataset.error().contains("channels in uV"));
    for (records, message) in [
        ("chb12_01.edf\n", "RECORDS:1: "),
        ("chb12/chb12_01.edf\n../x/a.edf\n", "RECORDS:2: "),
        ("chb12/chb12_01.edf\n\nchb12/chb12_01.edf\n", "RECORDS:3: "),
    ] {
        dataset.write("RECORDS", records);
        assert!(dataset.error().contains(message), "{records}: {}", dataset.error());
    }
    std::fs::remove_file(dataset.path("RECORDS")).unwrap();
    assert!(matches!(dataset.open(), Err(DataError::Missing { .. })));
    assert_eq!((patient("chb21"), patient("chb02")), ("chb01", "chb02"));
}

/// The electrodes of [`montage::CHANNELS`] in the order of their first use.
fn electrodes() -> Vec<&'static str> {
    let mut found: Vec<&str> = Vec::new();
    for electrode in montage::CHANNELS.iter().flat_map(|name| name.split('-')) {
        if !found.contains(&electrode) {
            found.push(electrode);
        }
    }
    found
}

type Change<'a> = &'a dyn Fn(&str) -> String;

#[test]
fn labels_by_other_names_give_the_montage_and_are_told() {
    let dataset = Dataset::new();
    let read = |labels: &[String], told: u64| {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        recording(&dataset.path("chb12/chb12_02.edf"), &labels, "uV");
        let data = dataset.open().unwrap();
        assert!(data.without_montage().is_empty(), "{labels:?}");
        assert_eq!(data.account().count(Fate::Repaired), told, "{labels:?}");
        data.recordings()[1].read(0..1).unwrap().concat()
    };
    let of =
        |names: &[&str], change: &dyn Fn(&str) -> String| names.iter().map(|name| change(name)).collect::<Vec<_>>();
    // electrodes alone, against a reference, with what programs put around them, and by digits and old names
    let differences = read(&of(&electrodes(), &|e| format!("{e}-CS2")), 0);
    let alone: [(Change<'_>, u64); 6] = [
        (&str::to_owned, 0),
        (&|e| format!("{e}-Ref"), 0),
        (&|e| format!("EEG {e}-REF"), 1),
        (&|e| format!("EEG {}-LE", e.replace("FP", "Fp").replace('Z', "z")), 1),
        (&|e| e.replace('O', "0"), 1),
        (&|e| e.replace("T7", "T3").replace("P7", "T5").replace("T8", "T4").replace("P8", "T6"), 1),
    ];
    for (change, told) in alone {
        assert_eq!(read(&of(&electrodes(), change), told), differences);
    }
    let channels = read(&of(&montage::CHANNELS, &str::to_owned), 0);
    let bipolar: [Change<'_>; 3] =
        [&|c| c.replace('O', "0"), &|c| format!("EEG {c}"), &|c| c.replace("-O", "-0").replace('-', " - ")];
    for change in bipolar {
        assert_eq!(read(&of(&montage::CHANNELS, change), 1), channels);
    }
    // what cannot give the montage is left out and told with what it lacks
    let labels = of(&electrodes(), &|e| format!("{e}-{}", if e == "PZ" { "A1" } else { "REF" }));
    recording(&dataset.path("chb12/chb12_02.edf"), &labels.iter().map(String::as_str).collect::<Vec<_>>(), "uV");
    let data = dataset.open().unwrap();
    let [notice] = data.account().notices() else { panic!("{:?}", data.account()) };
    assert_eq!((notice.kind, notice.reason.as_str()), (Fate::Skipped, "no signals that give CZ-PZ"));
    assert!((data.account().share_left_out() - 0.5).abs() < 1e-12);
}

#[test]
fn microvolts_have_three_letters_and_other_units_are_refused_in_words() {
    let dataset = Dataset::new();
    let clean = dataset.open().unwrap().recordings()[1].read(0..4).unwrap();
    for unit in ["uV", "µV", "μV"] {
        recording(&dataset.path("chb12/chb12_02.edf"), &montage::CHANNELS, unit);
        assert_eq!(dataset.open().unwrap().recordings()[1].read(0..4).unwrap(), clean, "{unit}");
    }
    recording(&dataset.path("chb12/chb12_02.edf"), &montage::CHANNELS, "mV");
    let error = dataset.error();
    assert!(error.contains("`FP1-F7` in `mV` with a scale") && error.contains("take it out of RECORDS"), "{error}");
}

#[test]
fn padding_behind_a_recording_is_told() {
    let dataset = Dataset::new();
    let path = dataset.path("chb12/chb12_02.edf");
    let whole = std::fs::read(&path).unwrap();
    let clean = dataset.open().unwrap().recordings()[1].read(0..40).unwrap();
    for rest in [1, 64, 4096] {
        std::fs::write(&path, [&whole[..], &vec![0; rest]].concat()).unwrap();
        let data = dataset.open().unwrap();
        assert_eq!((data.recordings()[1].samples(), data.recordings()[1].read(0..40).unwrap()), (40, clean.clone()));
        assert_eq!(
            (data.account().count(Fate::Repaired), data.account().notices()[0].place.as_str()),
            (1, "chb12/chb12_02.edf")
        );
    }
}

#[test]
fn lists_that_went_through_other_programs_are_read_and_told() {
    let clean = Dataset::new();
    let seizures =
        |data: &ChbMit| data.recordings().iter().map(|r| (r.name.clone(), r.seizures.clone())).collect::<Vec<_>>();
    let expected = seizures(&clean.open().unwrap());
    let lists = ["RECORDS", "RECORDS-WITH-SEIZURES", "chb12/chb12-summary.txt"];
    let changes: [(Change<'_>, u64); 4] = [
        (&|text| format!("\u{FEFF}{text}"), 3),
        (&|text| text.replace('\n', "\r\n"), 3),
        (&|text| text.replace('\n', "  \n\n \t\n"), 0),
        (&|text| format!("\u{FEFF}\r\n{}", text.trim_end().replace('\n', " \r\n")), 6),
    ];
    for (change, told) in changes {
        let dataset = Dataset::new();
        for list in lists {
            dataset.write(list, change(&std::fs::read_to_string(dataset.path(list)).unwrap()));
        }
        let data = dataset.open().unwrap();
        assert_eq!(seizures(&data), expected);
        assert_eq!(data.account().count(Fate::Repaired), told, "{:?}", data.account().notices());
    }
    for list in lists {
        for damaged in ["<html>\n", "a\0", "\u{FEFF}<?xml?>"] {
            let dataset = Dataset::new();
            dataset.write(list, damaged);
            let error = dataset.error();
            assert!(error.contains(&format!("{list} at byte ")) && error.contains("fetch the file again"), "{error}");
        }
    }
}

#[test]
fn files_beside_the_recordings_and_missing_ones_are_told() {
    let dataset = Dataset::new();
    for name in ["._chb12_01.edf", ".DS_Store", "chb12_02.edf.partial-3-0"] {
        dataset.write(&format!("chb12/{name}"), "x");
    }
    recording(&dataset.path("chb12/chb12_99.edf"), &montage::CHANNELS, "uV");
    std::fs::remove_file(dataset.path("chb12/chb12_02.edf")).unwrap();
    let account = dataset.open().unwrap().account().clone();
    assert_eq!(Fate::ALL.map(|kind| account.count(kind)), [1, 0, 0, 4], "{account:?}");
    assert_eq!(account.items(), 2);
    assert!(account.notices().iter().any(|notice| notice.place == "chb12/chb12_99.edf"));
}

#[test]
fn what_is_missing_is_said_with_the_command_that_fetches_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = |wanted: &dyn Fn(&str) -> bool| ChbMit::open(dir.path(), wanted).unwrap_err().to_string();
    let one = told(&|case| case == "chb01");
    assert!(one.contains("run `harness data fetch chb-mit --only 'RECORDS*' --only 'chb01/*'`"), "{one}");
    for all in [told(&|_| true), told(&|_| false), told(&|case| case < "chb20")] {
        assert!(all.contains("run `harness data fetch chb-mit`"), "{all}");
    }
    // and it is a command that the lock file of the program knows
    let lock = crate::fetch::Lock::embedded().unwrap();
    let note = lock.select(&["chb-mit".to_owned()]).unwrap();
    assert_eq!(note.len(), 1);
}
