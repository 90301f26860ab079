//! The header: fields of fixed width in ASCII.

use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::legacy;
use crate::error::{At, DataError, DataResult};

/// Bytes of the fixed part, and of each signal's part.
pub(super) const PART_BYTES: usize = 256;
/// Label of the signals that hold text.
pub(super) const ANNOTATIONS: &str = "EDF Annotations";
/// Bytes of a sample.
pub(super) const SAMPLE_BYTES: u64 = 2;
/// Most signals the format's field of four characters can name.
const MOST_SIGNALS: i64 = 9999;

/// Which form of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EDF of 1992.
    Edf,
    /// EDF+, records follow each other without gaps.
    PlusContinuous,
    /// EDF+, each record has a time of its own.
    PlusDiscontinuous,
}

impl Kind {
    /// As the header's reserved field has it; `EDF` for plain EDF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edf => "EDF",
            Self::PlusContinuous => "EDF+C",
            Self::PlusDiscontinuous => "EDF+D",
        }
    }
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The file.
    pub path: PathBuf,
    /// EDF, EDF+C or EDF+D.
    pub kind: Kind,
    /// Patient identification, as written.
    pub patient: String,
    /// Recording identification, as written.
    pub recording: String,
    /// `dd.mm.yy`, as written: anonymised files hold anything.
    pub start_date: String,
    /// `hh.mm.ss`, as written.
    pub start_time: String,
    /// Data records in the file.
    pub records: u64,
    /// Whether the header leaves the number of records open (−1), so that it was found from the file's size.
    pub records_unknown: bool,
    /// Bytes behind the records, which are not read: of a record that was cut where the number of records was left open,
    /// or of anything where it was not.
    pub rest_bytes: u64,
    /// Duration of a record; 0 in files that hold only annotations.
    pub record_seconds: f64,
    /// All signals in file order, those with annotations too.
    pub signals: Vec<Signal>,
}

/// One signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Label, such as `FP1-F7`.
    pub label: String,
    /// Transducer type.
    pub transducer: String,
    /// Physical unit, such as `uV`.
    pub unit: String,
    /// Physical value of [`Signal::digital_min`]; may lie above [`Signal::physical_max`] (an inverted signal).
    pub physical_min: f64,
    /// Physical value of [`Signal::digital_max`].
    pub physical_max: f64,
    /// Smallest digital value of the scale; samples may lie outside.
    pub digital_min: i64,
    /// Largest digital value of the scale.
    pub digital_max: i64,
    /// Filters that were applied.
    pub prefilter: String,
    /// Samples in each record.
    pub samples_per_record: u64,
    /// First sample within a record, in samples of any signal.
    pub(super) offset: u64,
}

/// From digital to physical values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Physical units per digital step; negative for an inverted signal.
    pub unit_per_step: f64,
    /// Physical value of digital zero.
    pub at_zero: f64,
}

impl Scale {
    /// The physical value of a sample.
    pub fn physical(&self, digital: i16) -> f64 {
        self.at_zero + self.unit_per_step * f64::from(digital)
    }
}

impl Signal {
    /// Whether its bytes are text.
    pub fn is_annotations(&self) -> bool {
        self.label == ANNOTATIONS
    }

    /// Its scale; `None` if the header gives none: a digital range that is empty or upside down, or a physical range of
    /// zero.
    pub fn scale(&self) -> Option<Scale> {
        if self.is_annotations() || self.digital_max <= self.digital_min {
            return None;
        }
        let unit_per_step = (self.physical_max - self.physical_min) / (self.digital_max - self.digital_min) as f64;
        let usable = unit_per_step.is_finite() && unit_per_step != 0.0;
        usable.then_some(Scale { unit_per_step, at_zero: self.physical_min - unit_per_step * self.digital_min as f64 })
    }

    /// Its samples within a record's samples.
    pub(super) fn place(&self) -> Range<u64> {
        self.offset..self.offset + self.samples_per_record
    }
}

impl Header {
    /// Samples of all signals in one record.
    pub fn samples_per_record(&self) -> u64 {
        self.signals.last().map_or(0, |last| last.place().end)
    }

    /// Bytes before the first record.
    pub fn header_bytes(&self) -> u64 {
        (PART_BYTES * (self.signals.len() + 1)) as u64
    }

    /// Samples per second of a signal; `None` where records have no duration.
    pub fn rate_hz(&self, signal: &Signal) -> Option<f64> {
        (self.record_seconds > 0.0).then(|| signal.samples_per_record as f64 / self.record_seconds)
    }

    /// Duration of all records together, gaps left out.
    pub fn seconds(&self) -> f64 {
        self.records as f64 * self.record_seconds
    }

    /// Indices of the signals that are no annotations, in file order.
    pub fn data_signals(&self) -> Vec<usize> {
        (0..self.signals.len()).filter(|&i| self.signals.get(i).is_some_and(|s| !s.is_annotations())).collect()
    }

    /// Reads a header and checks it against the size of its file.
    pub(super) fn read(path: &Path, from: &mut impl Read, file_bytes: u64) -> DataResult<Self> {
        let fixed = read_exactly(path, from, 0, PART_BYTES)?;
        let fixed = Fields { path, bytes: &fixed, start: 0 };
        let version = fixed.text(0, 8);
        if version != "0" {
            let got = match fixed.bytes.first() {
                Some(0xFF) => "BDF (24-bit samples), which is not supported".to_owned(),
                _ => format!("version `{}`", version.escape_debug()),
            };
            return Err(DataError::corrupt(path, At::Byte(0), "an EDF file: version `0`", got));
        }
        let signals = fixed.whole(252, 4, "the number of signals", 0..=MOST_SIGNALS)? as usize;
        let expected_bytes = (PART_BYTES * (signals + 1)) as i64;
        let said = fixed.whole(184, 8, "the number of bytes in the header", 0..=i64::from(i32::MAX))?;
        if said != expected_bytes {
            return fixed.wrong(184, format!("{expected_bytes} bytes of header, for {signals} signals"), said);
        }
        let each = read_exactly(path, from, PART_BYTES, PART_BYTES * signals)?;
        let each = Fields { path, bytes: &each, start: PART_BYTES };
        let reserved = fixed.text(192, 44);
        let mut header = Self {
            path: path.to_owned(),
            kind: match reserved.get(..5) {
                Some("EDF+C") => Kind::PlusContinuous,
                Some("EDF+D") => Kind::PlusDiscontinuous,
                _ => Kind::Edf, // plain EDF leaves the field to its writer
            },
            patient: fixed.text(8, 80),
            recording: fixed.text(88, 80),
            start_date: fixed.text(168, 8),
            start_time: fixed.text(176, 8),
            records: 0,
            records_unknown: false,
            rest_bytes: 0,
            record_seconds: fixed.number(244, 8, "the duration of a record")?,
            signals: read_signals(&each, signals)?,
        };
        if header.record_seconds < 0.0 {
            return fixed.wrong(244, "a duration of 0 or more seconds".into(), header.record_seconds);
        }
        header.count_records(&fixed, file_bytes)?;
        Ok(header)
    }

    /// What was not taken as it stands, in a few words; `None` for a file that is as its header says.
    pub fn repair(&self) -> Option<&'static str> {
        let record_bytes = self.samples_per_record() * SAMPLE_BYTES;
        match self.rest_bytes {
            0 => None,
            _ if self.records_unknown => Some("its last record is cut: the whole ones before it are read"),
            rest if rest < record_bytes => Some("bytes behind its last record are passed over"),
            _ => Some("it has more records than its header announces: those behind are passed over"),
        }
    }

    /// The number of records, which the file must hold. What comes behind them is none of the file's content, as other
    /// readers have it too: the published `chb17b_69.edf` ends with 256 zeros.
    fn count_records(&mut self, fixed: &Fields<'_>, file_bytes: u64) -> DataResult<()> {
        let said = fixed.whole(236, 8, "the number of records", -1..=i64::from(i32::MAX))?;
        let record_bytes = self.samples_per_record() * SAMPLE_BYTES;
        let data_bytes = file_bytes.saturating_sub(self.header_bytes());
        let (whole, rest) = match record_bytes {
            0 => (0, data_bytes), // no signals, or signals without samples
            bytes => (data_bytes / bytes, data_bytes % bytes),
        };
        self.records_unknown = said < 0;
        self.records = if said < 0 { whole } else { said as u64 };
        let some_behind = data_bytes > 0 && self.records == 0;
        if self.records > whole || some_behind {
            let expected = if self.records_unknown {
                format!("at least one record of {record_bytes} bytes (the header leaves their number open)")
            } else {
                let all = u128::from(self.records) * u128::from(record_bytes);
                format!("{said} records of {record_bytes} bytes, {all} bytes in all; fetch the file again")
            };
            let got = format!("{data_bytes} bytes: {whole} whole records and {rest} bytes of another");
            return Err(DataError::corrupt(fixed.path, At::Byte(file_bytes), expected, got));
        }
        self.rest_bytes = data_bytes - self.records * record_bytes;
        Ok(())
    }
}

/// The signals' part: each field for all signals, then the next field.
fn read_signals(fields: &Fields<'_>, signals: usize) -> DataResult<Vec<Signal>> {
    let (mut list, mut offset) = (Vec::with_capacity(signals), 0);
    for i in 0..signals {
        // `before`: width of the fields before this one, per signal
        let at = |before: usize, width: usize| before * signals + i * width;
        let samples = fields.whole(at(216, 8), 8, "the number of samples in a record", 0..=i64::from(i32::MAX))? as u64;
        let label = fields.text(at(0, 16), 16);
        // the ranges of a text signal mean nothing, and some writers leave them empty
        let text = label == ANNOTATIONS;
        let range = |before, what| if text { Ok(0.0) } else { fields.number(at(before, 8), 8, what) };
        let whole = |before, what| if text { Ok(0) } else { fields.whole(at(before, 8), 8, what, DIGITAL) };
        list.push(Signal {
            label,
            transducer: fields.text(at(16, 80), 80),
            unit: fields.text(at(96, 8), 8),
            physical_min: range(104, "the physical minimum")?,
            physical_max: range(112, "the physical maximum")?,
            digital_min: whole(120, "the digital minimum")?,
            digital_max: whole(128, "the digital maximum")?,
            prefilter: fields.text(at(136, 80), 80),
            samples_per_record: samples,
            offset,
        });
        offset += samples;
    }
    Ok(list)
}

/// What a field of eight characters can hold.
const DIGITAL: std::ops::RangeInclusive<i64> = -9_999_999..=99_999_999;

fn read_exactly(path: &Path, from: &mut impl Read, start: usize, bytes: usize) -> DataResult<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    from.read_exact(&mut buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => {
            let expected = format!("{bytes} bytes of header from byte {start} on");
            DataError::corrupt(path, At::File, expected, "the file ends")
        }
        _ => DataError::io(path)(error),
    })?;
    Ok(buffer)
}

/// Fields by their place.
struct Fields<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Place of `bytes` in the file.
    start: usize,
}

impl Fields<'_> {
    /// A field without its padding, which some writers make of zeros. The format allows ASCII alone; writers put their
    /// `µV` in UTF-8, or in Latin-1.
    fn text(&self, at: usize, width: usize) -> String {
        let field = self.bytes.get(at..at + width).unwrap_or_default();
        legacy::decode(field).0.trim_matches([' ', '\0']).to_owned()
    }

    fn wrong<T>(&self, at: usize, expected: String, got: impl std::fmt::Display) -> DataResult<T> {
        Err(DataError::corrupt(self.path, At::Byte((self.start + at) as u64), expected, got.to_string()))
    }

    /// A whole number; a fraction of zero (`256.0`) is no obstacle.
    fn whole(&self, at: usize, width: usize, what: &str, range: std::ops::RangeInclusive<i64>) -> DataResult<i64> {
        let text = self.text(at, width);
        let digits = text.split_once('.').filter(|(_, f)| f.bytes().all(|b| b == b'0')).map_or(&*text, |(w, _)| w);
        if let Some(number) = digits.parse::<i64>().ok().filter(|number| range.contains(number)) {
            return Ok(number);
        }
        let expected = format!("{what}, a whole number from {} to {}", range.start(), range.end());
        self.wrong(at, expected, format!("`{}`", text.escape_debug()))
    }

    fn number(&self, at: usize, width: usize, what: &str) -> DataResult<f64> {
        let text = self.text(at, width);
        match text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) => Ok(number),
            None => self.wrong(at, format!("{what}, a number"), format!("`{}`", text.escape_debug())),
        }
    }
}
