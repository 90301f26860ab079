//! Joins header and signal files to a record. Every count is checked against the size of a file before memory is
//! taken for it.

use std::io::{ErrorKind, Read, SeekFrom};
use std::path::{Path, PathBuf};

use super::files::{Disk, Files, Input};
use super::format::{Format, SUPPORTED, Storage};
use super::header::{Body, DEFAULT_RATE, Header, SignalLine};
use super::join::{Joint, empty_channel};
use super::{Channel, Piece, Record};
use crate::error::{At, DataError, DataResult};
use crate::formats::flac;

/// Name that stands for a gap (segment) or for "no file" (signal).
pub(super) const NONE: &str = "~";

/// Reads the record of a header file, its signal files and, if it has several segments, theirs; all lie in the
/// header's folder. Skew is undone. A checksum that the header gives is compared, and an
/// initial value without a checksum.
///
/// # Errors
/// [`DataError::Missing`] for a file that is not there, [`DataError::Corrupt`] for a header or file that breaks the
/// format, or a checksum or initial value that differs; [`DataError::Io`] if the system refuses.
pub fn read_record(header_path: &Path) -> DataResult<Record> {
    read_record_from(&Disk, header_path)
}

/// [`read_record`] from any source of files.
///
/// # Errors
/// As [`read_record`].
pub fn read_record_from(files: &dyn Files, header_path: &Path) -> DataResult<Record> {
    let header = Header::read(files, header_path)?;
    match &header.body {
        Body::Signals(signals) => read_signals(files, &header, signals),
        Body::Segments { signals, segments } => Joint::plan(files, &header, *signals, segments)?.read(&header),
    }
}

/// The signals of a layout header, which names those of a record of several segments and has no samples itself; `None`
/// for any other header.
///
/// # Errors
/// [`DataError::Missing`] if the header is not there, [`DataError::Corrupt`] if it breaks the format,
/// [`DataError::Io`] if the system refuses.
pub fn read_layout(header_path: &Path) -> DataResult<Option<Record>> {
    let header = Header::read(&Disk, header_path)?;
    let Body::Signals(signals) = &header.body else { return Ok(None) };
    if signals.is_empty() || signals.iter().any(|signal| signal.file != NONE) {
        return Ok(None);
    }
    Ok(Some(Record {
        name: header.name.clone(),
        frames_per_second: header.rate.unwrap_or(DEFAULT_RATE),
        frames: 0,
        channels: signals.iter().map(empty_channel).collect(),
    }))
}

/// A record with signals of its own.
pub(super) fn read_signals(files: &dyn Files, header: &Header, signals: &[SignalLine]) -> DataResult<Record> {
    // A signal file holds the signals that name it, interleaved.
    let mut groups: Vec<Group> = Vec::new();
    for (index, signal) in signals.iter().enumerate() {
        match groups.iter_mut().find(|group| group.first.file == signal.file) {
            Some(group) => group.add(header, index, signal)?,
            None => groups.push(Group::new(files, header, index, signal)?),
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
    files: &'a dyn Files,
    path: PathBuf,
    storage: Storage,
    /// Where the samples start: a byte of the file, or a sample of each channel of a FLAC stream.
    offset: u64,
    first: &'a SignalLine,
    /// With each signal's place in the record.
    signals: Vec<(usize, &'a SignalLine)>,
}

impl<'a> Group<'a> {
    fn new(files: &'a dyn Files, header: &Header, index: usize, first: &'a SignalLine) -> DataResult<Self> {
        if first.file == NONE {
            let got = "a layout header, whose signals have no file";
            return Err(wrong(header, first.line, "a signal file (read the record whose layout this is)", got));
        }
        let storage = Storage::from_code(first.format_code).map_err(|got| wrong(header, first.line, SUPPORTED, got))?;
        let path = header.path.with_file_name(&first.file);
        let offset = first.byte_offset.unwrap_or(0);
        Ok(Self { files, path, storage, offset, first, signals: vec![(index, first)] })
    }

    fn add(&mut self, header: &Header, index: usize, signal: &'a SignalLine) -> DataResult<()> {
        if signal.format_code != self.first.format_code {
            let expected = format!("format {}, as the other signals of {}", self.first.format_code, signal.file);
            return Err(wrong(header, signal.line, expected, format!("format {}", signal.format_code)));
        }
        if let Some(offset) = signal.byte_offset.filter(|&offset| offset != self.offset) {
            let expected = format!("byte offset {}, as the other signals of {}", self.offset, signal.file);
            return Err(wrong(header, signal.line, expected, offset.to_string()));
        }
        if matches!(self.storage, Storage::Flac { .. }) && signal.samples_per_frame != self.first.samples_per_frame {
            let expected = format!("{} samples per frame, as the other channels", self.first.samples_per_frame);
            return Err(wrong(header, signal.line, expected, signal.samples_per_frame.to_string()));
        }
        self.signals.push((index, signal));
        Ok(())
    }

    fn samples_per_frame(&self) -> u64 {
        self.signals.iter().map(|(_, signal)| u64::from(signal.samples_per_frame)).sum()
    }

    fn open(&self) -> DataResult<(Box<dyn Input + '_>, u64)> {
        self.files.open(&self.path).map_err(|error| match error.kind() {
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
        match self.storage {
            Storage::Packed(format) => {
                let (_, bytes) = self.open()?;
                Ok(format.samples_in(bytes.saturating_sub(self.offset)) / self.samples_per_frame())
            }
            Storage::Flac { bits } => {
                let length = self.decode_flac(bits)?.first().map_or(0, Vec::len) as u64;
                Ok(length.saturating_sub(self.offset) / u64::from(self.first.samples_per_frame))
            }
        }
    }

    /// The samples of each signal in a file of fixed places; for format 8 the differences.
    fn unpack(&self, format: Format, frames: u64) -> DataResult<Vec<Vec<i32>>> {
        let (mut file, file_bytes) = self.open()?;
        let samples = frames.checked_mul(self.samples_per_frame());
        let bytes = samples.and_then(|samples| format.bytes_for(samples));
        let end = bytes.and_then(|bytes| bytes.checked_add(self.offset));
        let (Some(samples), Some(bytes)) = (samples, bytes.filter(|_| end.is_some_and(|end| end <= file_bytes))) else {
            let end = end.map_or("more than 2^64".into(), |end| end.to_string());
            let expected = format!("{end} bytes, for {frames} frames of {} samples", self.samples_per_frame());
            return Err(DataError::corrupt(&self.path, At::Byte(file_bytes), expected, "the file ends"));
        };
        let mut stored = Vec::new();
        file.seek(SeekFrom::Start(self.offset)).map_err(DataError::io(&self.path))?;
        file.take(bytes).read_to_end(&mut stored).map_err(DataError::io(&self.path))?;
        if let Some(at) = format.set_where_unused(&stored) {
            let expected = "words of format 311, whose two highest bits are 0; is this the signal's format?";
            return Err(DataError::corrupt(
                &self.path,
                At::Byte(self.offset + at as u64),
                expected,
                "a bit that is set",
            ));
        }
        // The file is at least as long as `bytes`, so these fit the memory that holds them.
        let decoded = format.decode(&stored, samples as usize);
        if decoded.len() as u64 != samples {
            let expected = format!("{bytes} bytes from byte {} on", self.offset);
            return Err(DataError::corrupt(&self.path, At::File, expected, format!("{} bytes", stored.len())));
        }
        let stride = self.samples_per_frame() as usize;
        let mut start = 0;
        let parts = self.signals.iter().map(|(_, signal)| {
            let width = signal.samples_per_frame as usize;
            let mut digital = Vec::with_capacity(decoded.len() / stride * width);
            for frame in decoded.chunks_exact(stride) {
                digital.extend_from_slice(frame.get(start..start + width).unwrap_or_default());
            }
            start += width;
            digital
        });
        Ok(parts.collect())
    }

    /// All channels of a FLAC stream.
    fn decode_flac(&self, bits: u32) -> DataResult<Vec<Vec<i32>>> {
        let (mut file, _) = self.open()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(DataError::io(&self.path))?;
        let audio = flac::decode(&bytes, &self.path, 0)?;
        if audio.bits > bits || audio.channels.len() != self.signals.len() {
            let expected = format!("{} channels of at most {bits} bits, as the header has", self.signals.len());
            let got = format!("{} channels of {} bits", audio.channels.len(), audio.bits);
            return Err(DataError::corrupt(&self.path, At::File, expected, got));
        }
        Ok(audio.channels)
    }

    /// The samples of each signal in a FLAC stream.
    fn unflac(&self, bits: u32, frames: u64) -> DataResult<Vec<Vec<i32>>> {
        let mut channels = self.decode_flac(bits)?;
        let length = channels.first().map_or(0, Vec::len);
        let samples = frames.checked_mul(u64::from(self.first.samples_per_frame));
        let end = samples.and_then(|samples| samples.checked_add(self.offset));
        let (Some(samples), Some(_)) = (samples, end.filter(|&end| end <= length as u64)) else {
            let end = end.map_or("more than 2^64".into(), |end| end.to_string());
            let expected = format!("{end} samples of each channel, for {frames} frames");
            return Err(DataError::corrupt(&self.path, At::File, expected, format!("{length} samples")));
        };
        for channel in &mut channels {
            // both are at most `length`
            channel.drain(..self.offset as usize);
            channel.truncate(samples as usize);
        }
        Ok(channels)
    }

    /// The channels, each with its place in the record.
    fn read(&self, header: &Header, frames: u64) -> DataResult<Vec<(usize, Channel)>> {
        let parts = match self.storage {
            Storage::Packed(format) => self.unpack(format, frames)?,
            Storage::Flac { bits } => self.unflac(bits, frames)?,
        };
        let mut channels = Vec::with_capacity(parts.len());
        for (&(index, signal), mut digital) in self.signals.iter().zip(parts) {
            if self.is_differences() {
                integrate(&mut digital, signal.initial.unwrap_or(0));
            }
            self.check(header, signal, &digital)?;
            unskew(&mut digital, signal.skew, signal.samples_per_frame as usize, self.storage.missing());
            channels.push((index, self.channel(signal, digital)));
        }
        Ok(channels)
    }

    fn is_differences(&self) -> bool {
        self.storage == Storage::Packed(Format::F8)
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
        let initial = signal.initial.filter(|_| !self.is_differences());
        match (initial, digital.first()) {
            (Some(initial), Some(&first)) if initial != first => {
                let expected = format!("first sample {initial} {whose}");
                Err(DataError::corrupt(&self.path, At::Byte(self.offset), expected, format!("first sample {first}")))
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
            pieces: vec![piece(signal, 0, self.storage.missing())],
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

pub(super) fn piece(signal: &SignalLine, start: usize, missing: i32) -> Piece {
    Piece { start, gain: signal.gain, baseline: signal.baseline, missing }
}

pub(super) fn usize_of(header: &Header, frames: u64) -> DataResult<usize> {
    usize::try_from(frames)
        .map_err(|_| wrong(header, header.line, "a length that this machine can address", format!("{frames} frames")))
}

pub(super) fn wrong(header: &Header, line: u64, expected: impl Into<String>, got: impl Into<String>) -> DataError {
    DataError::corrupt(&header.path, At::Line(line), expected, got)
}
