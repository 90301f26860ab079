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
            unit,
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
