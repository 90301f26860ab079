//! Writes small files of all three forms.

use std::path::Path;

use super::annotation::{Annotation, DURATION, END};
use super::header::{ANNOTATIONS, Kind, SAMPLE_BYTES};
use crate::error::{At, DataError, DataResult};

/// A signal to be written.
#[derive(Clone, Copy, Debug)]
pub struct SignalToWrite<'a> {
    /// Label, at most 16 characters.
    pub label: &'a str,
    /// Physical unit, at most 8 characters.
    pub unit: &'a str,
    /// Physical value of the smallest digital value.
    pub physical_min: f64,
    /// Physical value of the largest digital value.
    pub physical_max: f64,
    /// Smallest and largest digital value of the scale; samples outside are written as they are.
    pub digital_range: (i16, i16),
    /// Samples in each record.
    pub samples_per_record: usize,
    /// All samples: whole records of them, as many as the other signals have.
    pub digital: &'a [i16],
}

/// A file to be written.
#[derive(Clone, Copy, Debug)]
pub struct FileToWrite<'a> {
    /// EDF, EDF+C or EDF+D.
    pub kind: Kind,
    /// Patient identification, at most 80 characters.
    pub patient: &'a str,
    /// Recording identification, at most 80 characters.
    pub recording: &'a str,
    /// `dd.mm.yy`.
    pub start_date: &'a str,
    /// `hh.mm.ss`.
    pub start_time: &'a str,
    /// Duration of a record; above 0.
    pub record_seconds: f64,
    /// The signals.
    pub signals: &'a [SignalToWrite<'a>],
    /// Start of each record, for EDF+D; empty otherwise.
    pub record_starts_s: &'a [f64],
    /// Annotations, for EDF+; each goes into the record that is nearest before its onset.
    pub annotations: &'a [Annotation],
}

/// Writes `path` beside its name and renames it when it is whole. Same input, same bytes. The folder must exist.
///
/// # Errors
/// [`DataError::Corrupt`] if the format cannot hold it, [`DataError::Io`] if the system refuses.
pub fn write_file(path: &Path, file: &FileToWrite<'_>) -> DataResult<()> {
    let bytes = file
        .bytes()
        .map_err(|(expected, got)| DataError::corrupt(path, At::File, format!("to be written: {expected}"), got))?;
    crate::files::write_unsynced(path, &bytes)
}

/// The text of one field of a signal.
type Column = fn(&SignalToWrite<'_>) -> String;

/// What was expected and what there is.
type Problem = (String, String);

impl FileToWrite<'_> {
    fn bytes(&self) -> Result<Vec<u8>, Problem> {
        let records = self.records()?;
        let texts = if self.kind == Kind::Edf { Vec::new() } else { self.texts(records) };
        // samples of text in each record: the longest decides
        let text_samples = texts.iter().map(Vec::len).max().unwrap_or(0).div_ceil(SAMPLE_BYTES as usize);
        let mut bytes = self.header(records, text_samples)?;
        for record in 0..records {
            for signal in self.signals {
                let from = record * signal.samples_per_record;
                let samples = signal.digital.get(from..from + signal.samples_per_record).unwrap_or_default();
                bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
            }
            if let Some(text) = texts.get(record) {
                bytes.extend_from_slice(text);
                bytes.resize(bytes.len() + text_samples * SAMPLE_BYTES as usize - text.len(), 0);
            }
        }
        Ok(bytes)
    }

    /// The number of records, which all signals must agree on.
    fn records(&self) -> Result<usize, Problem> {
        let mut records = (!self.record_starts_s.is_empty()).then_some(self.record_starts_s.len());
        if (self.kind == Kind::PlusDiscontinuous) != records.is_some() {
            return Err(("record starts for EDF+D and only for it".into(), self.kind.name().into()));
        }
        if self.kind == Kind::Edf && !self.annotations.is_empty() {
            return Err(("no annotations in EDF".into(), format!("{} annotations", self.annotations.len())));
        }
        for signal in self.signals {
            let (length, each) = (signal.digital.len(), signal.samples_per_record);
            if each == 0 || length % each != 0 || records.is_some_and(|records| records != length / each) {
                let expected = format!("as many whole records of `{}` as of the others", signal.label);
                return Err((expected, format!("{length} samples, {each} per record")));
            }
            records = Some(length / each);
        }
        records.ok_or_else(|| ("at least one signal".into(), "none".into()))
    }

    /// The text of each record: its time, then the annotations that fall into it.
    fn texts(&self, records: usize) -> Vec<Vec<u8>> {
        let start = |record: usize| {
            let listed = self.record_starts_s.get(record).copied();
            listed.unwrap_or(record as f64 * self.record_seconds)
        };
        let mut texts: Vec<Vec<u8>> = (0..records).map(|i| list(start(i), None, "")).collect();
        for a in self.annotations {
            let record = (0..records).rev().find(|&i| start(i) <= a.onset_s).unwrap_or(0);
            if let Some(text) = texts.get_mut(record) {
                text.extend(list(a.onset_s, a.duration_s, &a.text));
            }
        }
        texts
    }

    fn header(&self, records: usize, text_samples: usize) -> Result<Vec<u8>, Problem> {
        let signals = self.signals.len() + usize::from(text_samples > 0);
        let kind = if self.kind == Kind::Edf { "" } else { self.kind.name() };
        let mut bytes = Vec::new();
        for (width, text) in [
            (8, "0".to_owned()),
            (80, self.patient.to_owned()),
            (80, self.recording.to_owned()),
            (8, self.start_date.to_owned()),
            (8, self.start_time.to_owned()),
            (8, (256 * (signals + 1)).to_string()),
            (44, kind.to_owned()),
            (8, records.to_string()),
            (8, self.record_seconds.to_string()),
            (4, signals.to_string()),
        ] {
            field(&mut bytes, width, &text)?;
        }
        let text = SignalToWrite {
            label: ANNOTATIONS,
            unit: "",
            physical_min: -1.0,
            physical_max: 1.0,
            digital_range: (i16::MIN, i16::MAX),
            samples_per_record: text_samples,
            digital: &[],
        };
        let all: Vec<&SignalToWrite<'_>> = self.signals.iter().chain((text_samples > 0).then_some(&text)).collect();
        let columns: [(usize, Column); 9] = [
            (16, |s| s.label.to_owned()),
            (80, |_| String::new()), // transducer
            (8, |s| s.unit.to_owned()),
            (8, |s| s.physical_min.to_string()),
            (8, |s| s.physical_max.to_string()),
            (8, |s| s.digital_range.0.to_string()),
            (8, |s| s.digital_range.1.to_string()),
            (80, |_| String::new()), // filters
            (8, |s| s.samples_per_record.to_string()),
        ];
        for (width, text) in columns {
            for signal in &all {
                field(&mut bytes, width, &text(signal))?;
            }
        }
        for _ in &all {
            field(&mut bytes, 32, "")?; // reserved
        }
        Ok(bytes)
    }
}

/// Appends a field, padded with blanks.
fn field(bytes: &mut Vec<u8>, width: usize, text: &str) -> Result<(), Problem> {
    if text.len() > width || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err((format!("at most {width} printable ASCII characters"), format!("`{}`", text.escape_debug())));
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len() + width - text.len(), b' ');
    Ok(())
}

/// A time-stamped annotation list with one text.
fn list(onset_s: f64, duration_s: Option<f64>, text: &str) -> Vec<u8> {
    let mut bytes = format!("{onset_s:+}").into_bytes();
    if let Some(duration_s) = duration_s {
        bytes.push(DURATION);
        bytes.extend_from_slice(duration_s.to_string().as_bytes());
    }
    bytes.push(END);
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&[END, 0]);
    bytes
}
