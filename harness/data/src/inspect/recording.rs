//! Recordings: each format's reader put to one form.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Annotations, Channel, LABELS_SHOWN, Recording, extension, with_suffix};
use crate::error::{DataError, DataResult};
use crate::files::hex;
use crate::formats::edf;
use crate::formats::flac;
use crate::formats::wfdb::{self, ANNOTATORS};

/// Samples of an EDF signal that are read at once: 16 MiB.
const EDF_BLOCK_SAMPLES: u64 = 8 << 20;

/// The recording in a file, by its extension.
pub(super) fn read(path: &Path) -> DataResult<Recording> {
    match extension(path).as_str() {
        "flac" => flac(path),
        "edf" => edf(path),
        _ => wfdb(path),
    }
}

type Reader = fn(&Path) -> DataResult<Recording>;

/// How to read a file, by what it begins with.
pub(super) fn by_content(path: &Path) -> DataResult<Option<Reader>> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(DataError::io(path))?;
    file.take(8).read_to_end(&mut start).map_err(DataError::io(path))?;
    Ok(match start.as_slice() {
        [b'f', b'L', b'a', b'C', ..] => Some(flac),
        // EDF's version field, or that of its sister BDF, which the reader refuses by name
        b"0       " | b"\xFFBIOSEMI" => Some(edf),
        _ if extension(path) == "flac" => Some(flac),
        _ if extension(path) == "edf" => Some(edf),
        _ => None,
    })
}

/// What is summed up while samples pass.
#[derive(Default)]
struct Passing {
    lowest: Option<i32>,
    highest: Option<i32>,
}

impl Passing {
    /// Takes samples of a channel in; those for which `missing` holds count for the digest alone.
    fn add(&mut self, hash: &mut Sha256, samples: &[i32], missing: impl Fn(usize) -> bool) {
        for block in samples.chunks(1 << 14) {
            hash.update(block.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>());
        }
        let there = || samples.iter().enumerate().filter(|(i, _)| !missing(*i)).map(|(_, &sample)| sample);
        self.lowest = self.lowest.into_iter().chain(there()).min();
        self.highest = self.highest.into_iter().chain(there()).max();
    }
}

fn flac(path: &Path) -> DataResult<Recording> {
    let audio = flac::read(path)?;
    let rate_hz = (audio.rate_hz > 0).then_some(f64::from(audio.rate_hz));
    let mut hash = Sha256::new();
    let mut channels = Vec::new();
    for (number, samples) in audio.channels.iter().enumerate() {
        let mut passing = Passing::default();
        passing.add(&mut hash, samples, |_| false);
        channels.push(Channel {
            name: number.to_string(),
            unit: String::new(),
            rate_hz,
            samples: samples.len() as u64,
            steps_per_unit: None,
            at_zero: None,
            lowest: passing.lowest,
            highest: passing.highest,
            missing: 0,
        });
    }
    let length = audio.channels.first().map_or(0, Vec::len) as f64;
    let around = (audio.bytes_around > 0).then_some("tags or zeros around its samples are passed over");
    Ok(Recording {
        path: path.to_owned(),
        format: "FLAC",
        duration_s: rate_hz.map(|rate| length / rate),
        start: String::new(),
        channels,
        annotations: Vec::new(),
        sha256: hex(&hash.finalize()),
        repairs: around.into_iter().collect(),
    })
}

fn edf(path: &Path) -> DataResult<Recording> {
    let mut reader = edf::Reader::open(path)?;
    let header = reader.header().clone();
    let mut hash = Sha256::new();
    let mut channels = Vec::new();
    for index in header.data_signals() {
        let Some(signal) = header.signals.get(index) else { continue };
        let mut passing = Passing::default();
        let per_block = (EDF_BLOCK_SAMPLES / signal.samples_per_record.max(1)).max(1);
        let mut record = 0;
        while record < header.records {
            let end = header.records.min(record + per_block);
            let block = reader.read_records(record..end, &[index])?;
            let samples: Vec<i32> = block.iter().flatten().map(|&sample| i32::from(sample)).collect();
            passing.add(&mut hash, &samples, |_| false);
            record = end;
        }
        let scale = signal.scale();
        channels.push(Channel {
            name: signal.label.clone(),
            unit: signal.unit.clone(),
            rate_hz: header.rate_hz(signal),
            samples: signal.samples_per_record * header.records,
            steps_per_unit: scale.map(|scale| 1.0 / scale.unit_per_step),
            at_zero: scale.map(|scale| -scale.at_zero / scale.unit_per_step),
            lowest: passing.lowest,
            highest: passing.highest,
            missing: 0,
        });
    }
    let mut annotations = Vec::new();
    if header.signals.iter().any(edf::Signal::is_annotations) {
        reader.record_starts_s()?; // the records' own times must make sense
        let all = reader.annotations()?;
        let labels = all.iter().map(|a| a.text.clone());
        let onsets = (all.first().map(|a| a.onset_s), all.last().map(|a| a.onset_s));
        annotations.push(summary("EDF Annotations".into(), all.len(), onsets, labels));
    }
    let rate = channels.first().and_then(|channel| channel.rate_hz);
    annotations.extend(beside(path, &path.file_name().unwrap_or_default().to_string_lossy(), rate)?);
    Ok(Recording {
        path: path.to_owned(),
        format: header.kind.name(),
        duration_s: (header.record_seconds > 0.0).then(|| header.seconds()),
        start: format!("{} {}", header.start_date, header.start_time),
        channels,
        annotations,
        sha256: hex(&hash.finalize()),
        repairs: reader.repairs(),
    })
}

/// The record of a header.
pub(super) fn wfdb(path: &Path) -> DataResult<Recording> {
    let (format, record) = match wfdb::read_layout(path)? {
        Some(layout) => ("WFDB layout", layout),
        None => ("WFDB", wfdb::read_record(path)?),
    };
    let mut hash = Sha256::new();
    let mut channels = Vec::new();
    for channel in &record.channels {
        let mut passing = Passing::default();
        let missing: Vec<bool> = channel.physical().map(f32::is_nan).collect();
        passing.add(&mut hash, &channel.digital, |i| missing.get(i).copied().unwrap_or_default());
        channels.push(Channel {
            name: channel.name.clone(),
            unit: channel.units.clone(),
            rate_hz: Some(record.frames_per_second * channel.samples_per_frame as f64),
            samples: channel.digital.len() as u64,
            steps_per_unit: Some(channel.gain),
            at_zero: Some(f64::from(channel.baseline)),
            lowest: passing.lowest,
            highest: passing.highest,
            missing: missing.iter().filter(|&&missing| missing).count() as u64,
        });
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Recording {
        path: path.to_owned(),
        format,
        duration_s: Some(record.frames as f64 / record.frames_per_second),
        start: String::new(),
        channels,
        annotations: beside(path, &stem, Some(record.frames_per_second))?,
        sha256: hex(&hash.finalize()),
        repairs: Vec::new(),
    })
}

/// Annotation files of a recording, which are called `stem` and an annotator's extension.
fn beside(path: &Path, stem: &str, rate_hz: Option<f64>) -> DataResult<Vec<Annotations>> {
    let base = path.with_file_name(stem);
    let files = ANNOTATORS.iter().map(|annotator| with_suffix(&base, &format!(".{annotator}")));
    files.filter(|file| file.is_file()).map(|file| annotations(&file, rate_hz)).collect()
}

/// Text of the first annotation of a file whose times are in a unit of their own.
const TIME_RESOLUTION: &str = "## time resolution: ";
/// Code of notes, which such texts are.
const NOTE: &str = "\"";

/// An annotation file; `rate_hz` is its recording's.
pub(super) fn annotations(path: &Path, rate_hz: Option<f64>) -> DataResult<Annotations> {
    let all = wfdb::read_annotations(path)?;
    let is_setting =
        |a: &wfdb::Annotation| a.sample == 0 && a.mnemonic() == NOTE && a.text.starts_with(TIME_RESOLUTION);
    let own =
        all.iter().find(|a| is_setting(a)).and_then(|a| a.text.strip_prefix(TIME_RESOLUTION)?.trim().parse().ok());
    let rate_hz = own.or(rate_hz).filter(|&rate: &f64| rate.is_finite() && rate > 0.0);
    let said: Vec<&wfdb::Annotation> = all.iter().filter(|a| !is_setting(a)).collect();
    let seconds = |a: Option<&&wfdb::Annotation>| Some(a?.sample as f64 / rate_hz?);
    let labels = said.iter().map(|a| match a.text.as_str() {
        "" => a.mnemonic(),
        text => format!("{} {text}", a.mnemonic()),
    });
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(summary(name, said.len(), (seconds(said.first()), seconds(said.last())), labels))
}

fn summary(
    source: String,
    count: usize,
    (first_s, last_s): (Option<f64>, Option<f64>),
    labels: impl Iterator<Item = String>,
) -> Annotations {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    labels.for_each(|label| *counts.entry(label).or_default() += 1);
    let mut labels: Vec<(String, u64)> = counts.into_iter().collect();
    labels.sort_by_key(|(_, count)| std::cmp::Reverse(*count)); // stable: by name among equals
    let distinct = labels.len() as u64;
    labels.truncate(LABELS_SHOWN);
    Annotations { source, count: count as u64, first_s, last_s, labels, distinct }
}
