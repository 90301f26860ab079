//! Joins header and signal files to a record. Every count is checked against the size of a file before memory is
//! taken for it.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::format::{Format, SUPPORTED};
use super::header::{Body, DEFAULT_RATE, Header, SignalLine};
use super::join::Joint;
use super::{Channel, Piece, Record};
use crate::datasets::error::{At, DataError, DataResult};

/// Name that stands for a gap (segment) or for "no file" (signal).
pub(super) const NONE: &str = "~";

/// Reads the record of a header file, its signal files and, if it has several segments, theirs; all lie in the
/// header's folder. Skew is undone. A checksum that the header gives is compared, and an
/// initial value without a checksum.
///
/// # Errors
/// [`DataError::Missing`] for a file that is not there, [`DataError::Corrupt`] for a header or file that breaks the
/// format, a checksum or initial value that differs, or a FLAC signal file; [`DataError::Io`] if the system refuses.
pub fn read_record(header_path: &Path) -> DataResult<Record> {
    let header = Header::read(header_path)?;
    match &header.body {
        Body::Signals(signals) => read_signals(&header, signals),
        Body::Segments { signals, segments } => Joint::plan(&header, *signals, segments)?.read(&header),
    }
}

/// A record with signals of its own.
pub(super) fn read_signals(header: &Header, signals: &[SignalLine]) -> DataResult<Record> {
    // A signal file holds the signals that name it, interleaved.
    let mut groups: Vec<Group> = Vec::new();
    for (index, signal) in signals.iter().enumerate() {
        match groups.iter_mut().find(|group| group.first.file == signal.file) {
            Some(group) => group.add(header, index, signal)?,
            None => groups.push(Group::new(header, index, signal)?),
        }
    }
    let frames = match (header.frames, groups.first()) {
        (Some(frames), _) => frames,
        (None, Some(group)) => group.frames_in_file()?,
        (None, None) => 0,
    };
    let mut channels: Vec<(usize, Channel)> = Vec::new();
    for group in &groups {
        channels.extend(group.read(header, frames)?);
    }
    channels.sort_by_key(|(index, _)| *index);
    Ok(Record {
        name: header.name.clone(),
        frames_per_second: header.rate.unwrap_or(DEFAULT_RATE),
        frames: usize_of(header, frames)?,
        channels: channels.into_iter().map(|(_, channel)| channel).collect(),
    })
}

/// The signals of one file.
struct Group<'a> {
    path: PathBuf,
    format: Format,
    byte_offset: u64,
    first: &'a SignalLine,
    /// With each signal's place in the record.
    signals: Vec<(usize, &'a SignalLine)>,
}

impl<'a> Group<'a> {
    fn new(header: &Header, index: usize, first: &'a SignalLine) -> DataResult<Self> {
        if first.file == NONE {
            let got = "a layout header, whose signals have no file";
            return Err(wrong(header, first.line, "a signal file (read the record whose layout this is)", got));
        }
        let format = Format::from_code(first.format_code).map_err(|got| wrong(header, first.line, SUPPORTED, got))?;
        let path = header.path.with_file_name(&first.file);
        let byte_offset = first.byte_offset.unwrap_or(0);
        Ok(Self { path, format, byte_offset, first, signals: vec![(index, first)] })
    }

    fn add(&mut self, header: &Header, index: usize, signal: &'a SignalLine) -> DataResult<()> {
        if signal.format_code != self.first.format_code {
            let expected = format!("format {}, as the other signals of {}", self.first.format_code, signal.file);
            return Err(wrong(header, signal.line, expected, format!("format {}", signal.format_code)));
        }
        if let Some(offset) = signal.byte_offset.filter(|&offset| offset != self.byte_offset) {
            let expected = format!("byte offset {}, as the other signals of {}", self.byte_offset, signal.file);
            return Err(wrong(header, signal.line, expected, offset.to_string()));
        }
        self.signals.push((index, signal));
        Ok(())
    }

    fn samples_per_frame(&self) -> u64 {
        self.signals.iter().map(|(_, signal)| u64::from(signal.samples_per_frame)).sum()
    }

    fn open(&self) -> DataResult<(File, u64)> {
        let open = || {
            let file = File::open(&self.path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        open().map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => DataError::Missing {
                path: self.path.clone(),
                expected: "the signal file that its header names".into(),
                next: "fetch the record again".into(),
            },
            _ => DataError::io(&self.path)(error),
        })
    }

    /// For a header without a length: whole frames in the file.
    fn frames_in_file(&self) -> DataResult<u64> {
        let (_, bytes) = self.open()?;
        Ok(self.format.samples_in(bytes.saturating_sub(self.byte_offset)) / self.samples_per_frame())
    }

    /// All samples, in file order; for format 8 the differences.
    fn read_stored(&self, frames: u64) -> DataResult<Vec<i32>> {
        let (mut file, file_bytes) = self.open()?;
        let samples = frames.checked_mul(self.samples_per_frame());
        let bytes = samples.and_then(|samples| self.format.bytes_for(samples));
        let end = bytes.and_then(|bytes| bytes.checked_add(self.byte_offset));
        let (Some(samples), Some(bytes)) = (samples, bytes.filter(|_| end.is_some_and(|end| end <= file_bytes))) else {
            let end = end.map_or("more than 2^64".into(), |end| end.to_string());
            let expected = format!("{end} bytes, for {frames} frames of {} samples", self.samples_per_frame());
            return Err(DataError::corrupt(&self.path, At::Byte(file_bytes), expected, "the file ends"));
        };
        let mut stored = Vec::new();
        file.seek(SeekFrom::Start(self.byte_offset)).map_err(DataError::io(&self.path))?;
        file.take(bytes).read_to_end(&mut stored).map_err(DataError::io(&self.path))?;
        // The file is at least as long as `bytes`, so these fit the memory that holds them.
        let decoded = self.format.decode(&stored, samples as usize);
        if decoded.len() as u64 == samples {
            Ok(decoded)
        } else {
            let expected = format!("{bytes} bytes from byte {} on", self.byte_offset);
            Err(DataError::corrupt(&self.path, At::File, expected, format!("{} bytes", stored.len())))
        }
    }

    /// The channels, each with its place in the record.
    fn read(&self, header: &Header, frames: u64) -> DataResult<Vec<(usize, Channel)>> {
        let stored = self.read_stored(frames)?;
        let stride = self.samples_per_frame() as usize;
        let mut start = 0;
        let mut channels = Vec::with_capacity(self.signals.len());
        for &(index, signal) in &self.signals {
            let width = signal.samples_per_frame as usize;
            let mut digital = Vec::with_capacity(stored.len() / stride * width);
            for frame in stored.chunks_exact(stride) {
                digital.extend_from_slice(frame.get(start..start + width).unwrap_or_default());
            }
            start += width;
            if self.format == Format::F8 {
                integrate(&mut digital, signal.initial.unwrap_or(0));
            }
            self.check(header, signal, &digital)?;
            unskew(&mut digital, signal.skew, width, self.format.missing());
            channels.push((index, self.channel(signal, digital)));
        }
        Ok(channels)
    }

    /// Compares with the header's checksum, or with its initial value if it gives no checksum: both are those of the
    /// file, before skew is undone. Where the checksum fits the samples are right, and an initial value that differs is
    /// a mistake in the header alone; such headers are in use (wfdb-python's `test01_00s_frame`).
    fn check(&self, header: &Header, signal: &SignalLine, digital: &[i32]) -> DataResult<()> {
        let whose = format!("of signal `{}` ({}:{})", signal.name, header.path.display(), signal.line);
        if let Some(checksum) = signal.checksum {
            let (expected, sum) = (checksum as u16, digital.iter().fold(0_u16, |sum, &s| sum.wrapping_add(s as u16)));
            if sum != expected {
                let expected = format!("checksum {expected} {whose}");
                return Err(DataError::corrupt(&self.path, At::File, expected, format!("checksum {sum}")));
            }
            return Ok(());
        }
        // The initial value of format 8 is the start of the sum, not a copy of the first sample.
        let initial = signal.initial.filter(|_| self.format != Format::F8);
        match (initial, digital.first()) {
            (Some(initial), Some(&first)) if initial != first => {
                let expected = format!("first sample {initial} {whose}");
                Err(DataError::corrupt(
                    &self.path,
                    At::Byte(self.byte_offset),
                    expected,
                    format!("first sample {first}"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn channel(&self, signal: &SignalLine, digital: Vec<i32>) -> Channel {
        Channel {
            name: signal.name.clone(),
            units: signal.units.clone(),
            gain: signal.gain,
            baseline: signal.baseline,
            samples_per_frame: signal.samples_per_frame as usize,
            digital,
            pieces: vec![piece(signal, 0, self.format)],
        }
    }
}

/// Turns differences into samples.
fn integrate(samples: &mut [i32], initial: i32) {
    let mut sum = initial;
    for sample in samples {
        sum = sum.wrapping_add(*sample);
        *sample = sum;
    }
}

/// Moves a signal that lags by `skew` frames to its place; the file holds nothing for the last `skew` frames.
fn unskew(samples: &mut [i32], skew: u64, samples_per_frame: usize, missing: i32) {
    let shift = usize::try_from(skew).unwrap_or(usize::MAX).saturating_mul(samples_per_frame).min(samples.len());
    samples.rotate_left(shift);
    samples.iter_mut().rev().take(shift).for_each(|sample| *sample = missing);
}

pub(super) fn piece(signal: &SignalLine, start: usize, format: Format) -> Piece {
    Piece { start, gain: signal.gain, baseline: signal.baseline, missing: format.missing() }
}

pub(super) fn usize_of(header: &Header, frames: u64) -> DataResult<usize> {
    usize::try_from(frames)
        .map_err(|_| wrong(header, header.line, "a length that this machine can address", format!("{frames} frames")))
}

pub(super) fn wrong(header: &Header, line: u64, expected: impl Into<String>, got: impl Into<String>) -> DataError {
    DataError::corrupt(&header.path, At::Line(line), expected, got)
}
