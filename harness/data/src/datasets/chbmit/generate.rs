//! A small CHB-MIT in the publisher's layout, made up: a background of 1/f noise and alpha, artefacts, and seizures of
//! rhythmic spike-and-wave that spread from a focus and slow down. For tests and first steps; it says nothing about real
//! patients.

mod signal;

use std::fmt::Write as _;
use std::path::Path;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::datasets::chbmit::{Seizure, annotations};
use crate::datasets::fill::fill;
use crate::error::{At, DataError, DataResult};
use crate::formats::edf::{FileToWrite, Kind, SignalToWrite, write_file};
use signal::Brain;

/// Rises whenever the same specification gives other bytes.
pub const GENERATOR_VERSION: u32 = 1;

/// chb21 would be the patient of chb01.
const MOST_PATIENTS: usize = 20;
/// File names have two digits.
const MOST_RECORDINGS: usize = 99;
/// Room for a seizure and what surrounds it.
const FEWEST_SECONDS: usize = 60;
/// 4 hours, as the longest of the publisher's.
const MOST_SECONDS: usize = 4 * 3600;
/// Samples per second, as the publisher's.
const RATE_HZ: usize = 256;
/// Channels in the order of the publisher's first case; T8-P8 is there twice, as in the original.
const CHANNELS: [&str; 23] = [
    "FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4", "P4-O2",
    "FP2-F8", "F8-T8", "T8-P8", "P8-O2", "FZ-CZ", "CZ-PZ", "P7-T7", "T7-FT9", "FT9-FT10", "FT10-T8", "T8-P8",
];
/// Places at which some of the publisher's cases have dummy channels.
const DUMMIES: [usize; 5] = [4, 9, 12, 17, 22];

/// What to generate. The same specification gives the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EegSpec {
    /// Patients, 1 to 20.
    pub patients: usize,
    /// Recordings of each, 1 to 99; every other one has a seizure.
    pub recordings: usize,
    /// Seconds of each, 60 to 14 400; a second takes 12 kB.
    pub seconds: usize,
    /// Seed of everything drawn.
    pub seed: u64,
}

/// A recording before its signal.
struct Planned {
    /// From 1.
    patient: usize,
    /// From 1.
    number: usize,
    seizures: Vec<Seizure>,
}

impl Planned {
    fn case(&self) -> String {
        format!("chb{:02}", self.patient)
    }

    fn file(&self) -> String {
        format!("{}_{:02}.edf", self.case(), self.number)
    }

    /// Whether its channels are in the order with dummies: the second half of the third patient's recordings.
    fn has_dummies(&self, spec: &EegSpec) -> bool {
        self.patient == 3 && self.number > spec.recordings.div_ceil(2)
    }

    fn labels(&self, spec: &EegSpec) -> Vec<&'static str> {
        let mut labels = CHANNELS.to_vec();
        if self.has_dummies(spec) {
            for place in DUMMIES {
                labels.insert(place, "-");
            }
        }
        labels
    }
}

/// Writes the dataset to `root`, which appears when it is whole: it is built in a folder beside it and renamed.
/// If `root` already is this dataset, nothing happens.
///
/// # Errors
/// [`DataError::Corrupt`] if the specification is out of range, or if `root` exists and is something else;
/// [`DataError::Io`] if the system refuses to write.
pub fn generate(root: &Path, spec: &EegSpec) -> DataResult<()> {
    let ranges = [
        (spec.patients, 1, MOST_PATIENTS, "patients"),
        (spec.recordings, 1, MOST_RECORDINGS, "recordings of each patient"),
        (spec.seconds, FEWEST_SECONDS, MOST_SECONDS, "seconds of each recording"),
    ];
    if let Some((value, low, high, what)) =
        ranges.into_iter().find(|(value, low, high, _)| !(low..=high).contains(&value))
    {
        return Err(DataError::corrupt(
            root,
            At::File,
            format!("{low} to {high} {what}"),
            format!("{value} asked for"),
        ));
    }
    let plan = plan(spec);
    let is_this = |root: &Path| std::fs::read_to_string(root.join(INFO)).is_ok_and(|found| found == info(spec));
    fill(root, info(spec).trim(), is_this, |root| {
        let write = |name: &str, content: &[u8]| {
            let path = root.join(name);
            std::fs::write(&path, content).map_err(DataError::io(&path))
        };
        for case in plan.chunk_by(|a, b| a.patient == b.patient) {
            let Some(name) = case.first().map(Planned::case) else { continue };
            let folder = root.join(&name);
            std::fs::create_dir(&folder).map_err(DataError::io(&folder))?;
            write(&format!("{name}/{name}-summary.txt"), summary(case, spec).as_bytes())?;
        }
        let lines = |list: &mut dyn Iterator<Item = &Planned>| -> String {
            list.flat_map(|planned| [planned.case(), "/".into(), planned.file(), "\n".into()]).collect()
        };
        write("RECORDS", lines(&mut plan.iter()).as_bytes())?;
        let with = lines(&mut plan.iter().filter(|planned| !planned.seizures.is_empty()));
        write("RECORDS-WITH-SEIZURES", with.as_bytes())?;
        write(INFO, info(spec).as_bytes())?;
        plan.par_iter().try_for_each(|planned| write_recording(root, planned, spec))
    })
}

/// File that names the specification.
const INFO: &str = "SUBJECT-INFO";

fn info(spec: &EegSpec) -> String {
    let EegSpec { patients, recordings, seconds, seed } = spec;
    format!(
        "Made-up data, not CHB-MIT: generator version {GENERATOR_VERSION}, {patients} patients, {recordings} recordings \
         of {seconds} s each, seed {seed}\n"
    )
}

/// Draws who has seizures when.
fn plan(spec: &EegSpec) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let mut plan = Vec::new();
    for patient in 1..=spec.patients {
        for number in 1..=spec.recordings {
            let mut seizures = Vec::new();
            // drawn for all, so that one recording's seizure does not move another's
            let length = rng.random_range(spec.seconds / 6..=spec.seconds / 4).clamp(10, 60);
            let start = rng.random_range(spec.seconds / 6..spec.seconds - length - spec.seconds / 6);
            if number % 2 == patient % 2 || spec.recordings == 1 {
                seizures.push(Seizure { start_s: start as f64, end_s: (start + length) as f64 });
            }
            plan.push(Planned { patient, number, seizures });
        }
    }
    plan
}

/// `chbNN-summary.txt` in the forms the publisher's have: seizures with and without a number, channels that change, and a
/// case without times (the fourth patient, as chb24).
fn summary(case: &[Planned], spec: &EegSpec) -> String {
    let mut text = format!("Data Sampling Rate: {RATE_HZ} Hz\n*************************\n");
    let mut labels: Vec<&str> = Vec::new();
    // writing to a String cannot fail
    for planned in case {
        if planned.labels(spec) != labels {
            let heading = if labels.is_empty() { "Channels in EDF Files:" } else { "Channels changed:" };
            labels = planned.labels(spec);
            let _ = write!(text, "\n{heading}\n**********************\n");
            for (i, label) in labels.iter().enumerate() {
                let _ = writeln!(text, "Channel {}: {label}", i + 1);
            }
        }
        let _ = writeln!(text, "\nFile Name: {}", planned.file());
        if planned.patient != 4 {
            // end times run on beyond midnight
            let start = start_s(planned, spec);
            let _ = writeln!(text, "File Start Time: {}", clock(start, ':'));
            let _ = writeln!(text, "File End Time: {}", clock(start + spec.seconds, ':'));
        }
        let _ = writeln!(text, "Number of Seizures in File: {}", planned.seizures.len());
        for (i, seizure) in planned.seizures.iter().enumerate() {
            let which = if planned.patient % 2 == 0 { format!("{} ", i + 1) } else { String::new() };
            let _ = writeln!(text, "Seizure {which}Start Time: {} seconds", seizure.start_s);
            let _ = writeln!(text, "Seizure {which}End Time: {} seconds", seizure.end_s);
        }
    }
    text
}

/// Seconds since midnight.
fn start_s(planned: &Planned, spec: &EegSpec) -> usize {
    /// Between recordings, as the publisher's recorder needed.
    const PAUSE_S: usize = 7;
    (23 * 3600 + 57 * 60 + (planned.number - 1) * (spec.seconds + PAUSE_S)) % 86_400
}

fn clock(seconds: usize, separator: char) -> String {
    format!("{:02}{separator}{:02}{separator}{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn write_recording(root: &Path, planned: &Planned, spec: &EegSpec) -> DataResult<()> {
    // Stream 0 drew the plan; a stream for each patient and recording makes the order of writing irrelevant.
    let stream = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
        rng.set_stream(index as u64);
        rng
    };
    let brain = Brain::of_patient(&mut stream(1000 * planned.patient));
    let rng = &mut stream(1000 * planned.patient + planned.number);
    let channels = brain.record(&CHANNELS, spec.seconds * RATE_HZ, &planned.seizures, rng);
    let silence = vec![0; spec.seconds * RATE_HZ];
    let mut recorded = channels.iter();
    let signals: Vec<SignalToWrite<'_>> = planned
        .labels(spec)
        .into_iter()
        .map(|label| SignalToWrite {
            label,
            unit: "uV",
            physical_min: -800.0,
            physical_max: 800.0,
            digital_range: (-2048, 2047),
            samples_per_record: RATE_HZ,
            digital: if label == "-" { &silence } else { recorded.next().map_or(&silence, |channel| channel) },
        })
        .collect();
    let path = root.join(planned.case()).join(planned.file());
    let file = FileToWrite {
        kind: Kind::Edf,
        patient: "X X X X",
        recording: "made up",
        start_date: "01.01.00",
        start_time: &clock(start_s(planned, spec), '.'),
        record_seconds: 1.0,
        signals: &signals,
        record_starts_s: &[],
        annotations: &[],
    };
    write_file(&path, &file)?;
    if planned.seizures.is_empty() {
        return Ok(());
    }
    let path = path.with_file_name(format!("{}.seizures", planned.file()));
    std::fs::write(&path, annotations::to_bytes(&planned.seizures, RATE_HZ as u32)).map_err(DataError::io(&path))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::datasets::chbmit::ChbMit;
    use crate::formats::edf::Reader;

    const SPEC: EegSpec = EegSpec { patients: 4, recordings: 2, seconds: 60, seed: 7 };

    fn digest(root: &Path) -> String {
        let mut hash = Sha256::new();
        let list = std::fs::read_to_string(root.join("RECORDS")).unwrap();
        for name in list.lines() {
            hash.update(std::fs::read(root.join(name)).unwrap());
        }
        for case in ["chb01", "chb02", "chb03", "chb04"] {
            hash.update(std::fs::read(root.join(case).join(format!("{case}-summary.txt"))).unwrap());
        }
        crate::files::hex(&hash.finalize())
    }

    #[test]
    fn the_same_bytes_on_any_number_of_threads_and_the_loader_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, threads: usize| {
            let root = dir.path().join(name);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| generate(&root, &SPEC)).unwrap();
            root
        };
        let root = make("one", 1);
        let sha256 = digest(&root);
        assert_eq!(digest(&make("three", 3)), sha256);
        generate(&root, &SPEC).unwrap();
        assert!(generate(&root, &EegSpec { seed: 8, ..SPEC }).is_err());
        assert!(generate(&root, &EegSpec { seconds: 10, ..SPEC }).is_err());

        let data = ChbMit::open(&root, |_| true).unwrap();
        assert_eq!((data.recordings().len(), data.missing().len(), data.without_montage().len()), (8, 0, 0));
        assert!(data.disagreements().is_empty(), "summary and annotations agree");
        assert_eq!(data.recordings().iter().filter(|r| r.seizures.len() == 1).count(), 4);
        let dummies: Vec<usize> = data.recordings().iter().map(|r| r.header.signals.len()).collect();
        assert_eq!(dummies, [23, 23, 23, 23, 23, 28, 23, 23]);
        for recording in data.recordings() {
            let mut reader = Reader::open(&recording.path).unwrap();
            let all = reader.read_records(0..60, &recording.header.data_signals()).unwrap();
            let place = |label: &str| recording.header.signals.iter().position(|s| s.label == label).unwrap();
            let twice: Vec<usize> = (0..all.len()).filter(|&i| recording.header.signals[i].label == "T8-P8").collect();
            assert_eq!(all[twice[0]], all[twice[1]]);
            // both left chains run from FP1 to O1
            let chain = |names: [&str; 4], t: usize| names.iter().map(|n| i32::from(all[place(n)][t])).sum::<i32>();
            for t in (0..60 * RATE_HZ).step_by(97) {
                let a = chain(["FP1-F7", "F7-T7", "T7-P7", "P7-O1"], t);
                let b = chain(["FP1-F3", "F3-C3", "C3-P3", "P3-O1"], t);
                // each of four is rounded, and zero lies half a step off
                assert!((a - b).abs() <= 4, "{a} {b}");
            }
        }
    }

    /// Power of the seizures stands out, but not in every window: amplitude alone is no perfect detector.
    #[test]
    fn seizures_differ_from_background_and_artefacts_are_loud_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("chb-mit");
        generate(&root, &EegSpec { patients: 3, recordings: 2, seconds: 120, seed: 2 }).unwrap();
        let data = ChbMit::open(&root, |_| true).unwrap();
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for recording in data.recordings() {
            let channels = recording.read(0..recording.samples()).unwrap();
            for second in (0..120).step_by(4) {
                let window = second * RATE_HZ..(second + 4) * RATE_HZ;
                let power: f64 = channels.iter().map(|c| c[window.clone()].iter().map(|x| x * x).sum::<f64>()).sum();
                scores.push(power);
                let (from, to) = (second as f64, second as f64 + 4.0);
                labels.push(recording.seizures.iter().any(|s| s.overlap_s(from, to) >= 2.0));
            }
        }
        let of = |seizing: bool| {
            scores.iter().zip(&labels).filter(move |(_, label)| **label == seizing).map(|(score, _)| *score)
        };
        let pairs = of(true).flat_map(|high| of(false).map(move |low| f64::from(u8::from(high > low))));
        let area = pairs.clone().sum::<f64>() / pairs.count() as f64;
        assert!(area > 0.6 && area < 0.995, "{area}");
    }
}
