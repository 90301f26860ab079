//! The text header of a record (header(5)): read line by line, nothing of the signal files touched.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::files::Files;
use crate::error::{At, DataError, DataResult};

/// Longest header that is read. Real ones have a line per signal or segment; week-long records stay below 1 MB.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Frames per second of a header that gives none.
pub(super) const DEFAULT_RATE: f64 = 250.0;
/// Gain of a header that gives none, or zero ("uncalibrated").
const DEFAULT_GAIN: f64 = 200.0;

/// A header as written.
#[derive(Debug)]
pub(super) struct Header {
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// Number of the record line, which comments may precede.
    pub(super) line: u64,
    /// Record name.
    pub(super) name: String,
    /// Frames per second, where given.
    pub(super) rate: Option<f64>,
    /// Length in frames, where given; zero counts as not given.
    pub(super) frames: Option<u64>,
    /// What follows the first line.
    pub(super) body: Body,
}

/// What a record consists of.
#[derive(Debug)]
pub(super) enum Body {
    /// Signals, with samples of their own.
    Signals(Vec<SignalLine>),
    /// Segments: records one after the other, all with at most so many signals.
    Segments { signals: usize, segments: Vec<SegmentLine> },
}

/// Description of one signal.
#[derive(Debug)]
pub(super) struct SignalLine {
    /// Line number, from 1.
    pub(super) line: u64,
    /// Signal file, in the header's folder; `~` if there is none.
    pub(super) file: String,
    /// Number of the storage format.
    pub(super) format_code: u32,
    /// Samples per frame.
    pub(super) samples_per_frame: u32,
    /// Frames by which this signal lags behind in the file.
    pub(super) skew: u64,
    /// Where the samples start in the file, where given.
    pub(super) byte_offset: Option<u64>,
    /// Steps per unit.
    pub(super) gain: f64,
    /// Digital value of physical zero.
    pub(super) baseline: i32,
    /// Physical unit.
    pub(super) units: String,
    /// First sample, where given.
    pub(super) initial: Option<i32>,
    /// Sum of the samples modulo 2^16, where given; written signed or unsigned.
    pub(super) checksum: Option<i64>,
    /// Description.
    pub(super) name: String,
}

/// One segment of a record.
#[derive(Debug)]
pub(super) struct SegmentLine {
    /// Line number, from 1.
    pub(super) line: u64,
    /// Name of a record in the same folder; `~` for a gap.
    pub(super) name: String,
    /// Length in frames.
    pub(super) frames: u64,
}

impl Header {
    /// Reads and checks a header file.
    pub(super) fn read(files: &dyn Files, path: &Path) -> DataResult<Self> {
        let (file, length) = files.open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing_header(path),
            _ => DataError::io(path)(error),
        })?;
        if length > MAX_HEADER_BYTES {
            let expected = format!("a WFDB header: a text file of at most {MAX_HEADER_BYTES} bytes");
            return Err(DataError::corrupt(path, At::File, expected, format!("{length} bytes")));
        }
        let mut bytes = Vec::new();
        file.take(MAX_HEADER_BYTES).read_to_end(&mut bytes).map_err(DataError::io(path))?;
        // Comments may be in any encoding; in the lines that matter a wrong byte shows in the message.
        Self::parse(path, &String::from_utf8_lossy(&bytes))
    }

    fn parse(path: &Path, text: &str) -> DataResult<Self> {
        let mut lines = (1..)
            .zip(text.trim_start_matches('\u{FEFF}').lines())
            .map(|(number, line)| Line { path, number, text: line.trim() })
            .filter(|line| !line.text.is_empty() && !line.text.starts_with('#'));
        let Some(first) = lines.next() else {
            return Err(DataError::corrupt(path, At::File, "a record line", "no line that is not a comment"));
        };
        let mut fields = first.text.split_whitespace();
        let name = fields.next().unwrap_or_default();
        let signals: usize = first.number(fields.next().unwrap_or_default(), "the number of signals")?;
        let rate = fields.next().map(|field| first.rate(field)).transpose()?;
        let frames: Option<u64> =
            fields.next().map(|field| first.number(field, "the length in frames")).transpose()?.filter(|&n| n > 0);
        let (name, segments) = match name.split_once('/') {
            Some((name, count)) => (name, Some(first.number::<usize>(count, "the number of segments")?)),
            None => (name, None),
        };
        let lines: Vec<Line> = lines.take(segments.unwrap_or(signals)).collect();
        if lines.len() < segments.unwrap_or(signals) {
            let what = if segments.is_some() { "segment" } else { "signal" };
            let expected = format!("{} {what} lines", segments.unwrap_or(signals));
            return Err(DataError::corrupt(path, At::File, expected, format!("{} of them", lines.len())));
        }
        let body = match segments {
            None => Body::Signals(lines.iter().map(Line::signal).collect::<DataResult<_>>()?),
            Some(0) => return Err(first.wrong("at least one segment", "a record of 0 segments")),
            Some(_) => {
                Body::Segments { signals, segments: lines.iter().map(Line::segment).collect::<DataResult<_>>()? }
            }
        };
        Ok(Self { path: path.to_owned(), line: first.number, name: name.to_owned(), rate, frames, body })
    }
}

fn missing_header(path: &Path) -> DataError {
    DataError::Missing {
        path: path.to_owned(),
        expected: "the header of a WFDB record (.hea)".into(),
        next: "check the path, or fetch the record again".into(),
    }
}

/// A line of a header, with what an error message needs.
struct Line<'a> {
    path: &'a Path,
    number: u64,
    text: &'a str,
}

impl Line<'_> {
    fn wrong(&self, expected: impl Into<String>, got: impl Into<String>) -> DataError {
        DataError::corrupt(self.path, At::Line(self.number), expected, got)
    }

    fn number<T: FromStr>(&self, field: &str, what: &str) -> DataResult<T> {
        field.parse().map_err(|_| self.wrong(format!("{what} as a number that fits"), format!("`{field}`")))
    }

    /// `62.4725`, `62.4725/999.56` or `62.4725/999.56(0)`: the counter behind the rate is of no use here.
    fn rate(&self, field: &str) -> DataResult<f64> {
        let rate = self.number(field.split('/').next().unwrap_or_default(), "frames per second")?;
        if f64::is_finite(rate) && rate > 0.0 {
            Ok(rate)
        } else {
            Err(self.wrong("a positive number of frames per second", format!("`{field}`")))
        }
    }

    /// A file or record name: it must stay in the header's folder.
    fn plain_name<'n>(&self, name: &'n str) -> DataResult<&'n str> {
        if name.is_empty() || name == "-" || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(self.wrong("the name of a file beside this header", format!("`{name}`")));
        }
        Ok(name)
    }

    fn segment(&self) -> DataResult<SegmentLine> {
        let mut fields = self.text.split_whitespace();
        let name = self.plain_name(fields.next().unwrap_or_default())?.to_owned();
        let frames = self.number(fields.next().unwrap_or_default(), "the segment's length in frames")?;
        Ok(SegmentLine { line: self.number, name, frames })
    }

    /// `file format gain resolution zero initial checksum block description`: all from the gain on may be left out,
    /// but only from the end.
    fn signal(&self) -> DataResult<SignalLine> {
        let mut rest = self.text;
        let mut next = || {
            let (field, tail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            rest = tail.trim_start();
            Some(field).filter(|field| !field.is_empty())
        };
        let file = self.plain_name(next().unwrap_or_default())?.to_owned();
        let (format_code, samples_per_frame, skew, byte_offset) = self.storage(next().unwrap_or_default())?;
        let (gain, baseline, units) = self.scale(next().unwrap_or_default())?;
        let resolution: Option<u32> = next().map(|f| self.number(f, "the resolution in bits")).transpose()?;
        let zero: Option<i32> = next().map(|f| self.number(f, "the converter's zero")).transpose()?;
        let initial = next().map(|f| self.number(f, "the initial value")).transpose()?;
        let checksum = next().map(|f| self.number(f, "the checksum")).transpose()?;
        let block: Option<u64> = next().map(|f| self.number(f, "the block size")).transpose()?;
        let _ = (resolution, block); // checked for being numbers, so that a shifted line does not pass
        Ok(SignalLine {
            line: self.number,
            file,
            format_code,
            samples_per_frame,
            skew,
            byte_offset,
            gain,
            baseline: baseline.or(zero).unwrap_or(0),
            units,
            initial,
            checksum,
            name: rest.trim().to_owned(),
        })
    }

    /// `212x4:3+24`: format, samples per frame, skew, byte offset.
    fn storage(&self, field: &str) -> DataResult<(u32, u32, u64, Option<u64>)> {
        let (field, offset) = split_off(field, '+');
        let (field, skew) = split_off(field, ':');
        let (code, per_frame) = split_off(field, 'x');
        let per_frame = per_frame.map_or(Ok(1), |f| self.number(f, "samples per frame"))?;
        if per_frame == 0 {
            return Err(self.wrong("at least one sample per frame", "0"));
        }
        Ok((
            self.number(code, "the signal format")?,
            per_frame,
            skew.map_or(Ok(0), |f| self.number(f, "the skew in frames"))?,
            offset.map(|f| self.number(f, "the byte offset")).transpose()?,
        ))
    }

    /// `200(1024)/mV`: gain, baseline, unit.
    fn scale(&self, field: &str) -> DataResult<(f64, Option<i32>, String)> {
        let (number, units) = split_off(field, '/');
        let (gain, baseline) = split_off(number, '(');
        let baseline = baseline.map(|f| self.number(f.strip_suffix(')').unwrap_or(f), "the baseline")).transpose()?;
        let gain = if gain.is_empty() { 0.0 } else { self.number(gain, "the gain")? };
        if !f64::is_finite(gain) {
            return Err(self.wrong("a finite gain", format!("`{field}`")));
        }
        Ok((if gain == 0.0 { DEFAULT_GAIN } else { gain }, baseline, units.unwrap_or("mV").to_owned()))
    }
}

/// What is before and behind the first `mark`.
fn split_off(field: &str, mark: char) -> (&str, Option<&str>) {
    field.split_once(mark).map_or((field, None), |(before, behind)| (before, Some(behind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DataResult<Header> {
        Header::parse(Path::new("r.hea"), text)
    }

    fn signals(text: &str) -> Vec<SignalLine> {
        match parse(text).unwrap().body {
            Body::Signals(signals) => signals,
            Body::Segments { .. } => panic!("segments"),
        }
    }

    #[test]
    fn reads_every_field() {
        let header =
            parse("# comment\r\n\r\nr 1 62.4725/999.56(3) 14400 8:26:04 26/10/1994\r\nr.dat 16 200\r\n").unwrap();
        assert_eq!((header.name.as_str(), header.rate, header.frames), ("r", Some(62.4725), Some(14400)));
        let lines = signals("r 1 500\na.dat 212x4:3+24 1.052e+04(-1600)/mmHg 12 1024 -8 822 0 ECG lead II, left \n");
        let line = &lines[0];
        assert_eq!((line.line, line.file.as_str(), line.format_code, line.samples_per_frame), (2, "a.dat", 212, 4));
        assert_eq!((line.skew, line.byte_offset, line.baseline, line.units.as_str()), (3, Some(24), -1600, "mmHg"));
        assert_eq!((line.gain, line.initial, line.checksum), (10520.0, Some(-8), Some(822)));
        assert_eq!(line.name, "ECG lead II, left");
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let lines = signals("r 3\na 16\nb 16 0 12\nc 16 100/uV 12 1024\n");
        assert_eq!((lines[0].gain, lines[0].baseline, lines[0].units.as_str()), (200.0, 0, "mV"));
        assert_eq!((lines[0].initial, lines[0].checksum), (None, None));
        assert_eq!((lines[1].gain, lines[1].baseline), (200.0, 0), "a gain of 0 means uncalibrated");
        assert_eq!(lines[2].baseline, 1024, "the baseline defaults to the converter's zero");
        assert_eq!(parse("r 0 250 0\n").unwrap().frames, None, "a length of 0 means not given");
    }

    #[test]
    fn errors_name_the_line() {
        for (text, at) in [
            ("", "r.hea:"),
            ("# nothing\n", "r.hea:"),
            ("r\n", "r.hea:1"),
            ("r -1 250\n", "r.hea:1"),
            ("r 1 0\na 16\n", "r.hea:1"),
            ("r 99999999999999999999\n", "r.hea:1"),
            ("r 18446744073709551615 250\na 16\n", "r.hea:"),
            ("r/0 1 250 9\n", "r.hea:1"),
            ("r/2 1 250 9\ns 4\n\ns x\n", "r.hea:4"),
            ("r 1 250\n../../a 16\n", "r.hea:2"),
            ("r 1 250\na 16x0\n", "r.hea:2"),
            ("r 1 250\na\n", "r.hea:2"),
            ("r 1 250\na 16 nan\n", "r.hea:2"),
            ("r 1 250\na 16 200 II\n", "r.hea:2"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(at), "{text:?}: {error}");
        }
    }
}
