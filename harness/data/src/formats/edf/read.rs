//! Reads records as they are asked for: memory and input follow the request, not the file.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::annotation::{self, Annotation};
use super::header::{Header, Kind, SAMPLE_BYTES};
use crate::error::{At, DataError, DataResult};
use crate::files::hex;

/// Bytes read at once, at least one record.
const BLOCK_BYTES: u64 = 1 << 20;

/// An open file: its header, and its samples on request.
#[derive(Debug)]
pub struct Reader<R = File> {
    header: Header,
    input: R,
    /// Annotations read so far that are not in UTF-8.
    odd_texts: u64,
}

impl Reader {
    /// Opens a file and reads its header, nothing else.
    ///
    /// # Errors
    /// [`DataError::Missing`] without the file; [`DataError::Corrupt`] for a header that breaks the format, or a file that
    /// does not hold the records its header tells of; [`DataError::Io`] if the system refuses.
    pub fn open(path: &Path) -> DataResult<Self> {
        let open = || {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => DataError::Missing {
                path: path.to_owned(),
                expected: "an EDF file".into(),
                next: "check the path, or fetch the dataset again".into(),
            },
            _ => DataError::io(path)(error),
        })?;
        Self::new(path, file, bytes)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// As [`Reader::open`], from any input of `bytes` bytes; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(path: &Path, mut input: R, bytes: u64) -> DataResult<Self> {
        let header = Header::read(path, &mut input, bytes)?;
        Ok(Self { header, input, odd_texts: 0 })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was not taken as it stands: of the file's size, and of annotations if they were read.
    pub fn repairs(&self) -> Vec<&'static str> {
        let texts = (self.odd_texts > 0).then_some("annotations that are not UTF-8 are read as Latin-1");
        self.header.repair().into_iter().chain(texts).collect()
    }

    /// Digital samples of these signals in these records, one list per signal in the order asked for.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] if there is no such signal or record, [`DataError::Io`] if the system refuses.
    pub fn read_records(&mut self, records: Range<u64>, signals: &[usize]) -> DataResult<Vec<Vec<i16>>> {
        let places = self.places(signals)?;
        let mut samples: Vec<Vec<i16>> = vec![Vec::new(); signals.len()];
        self.for_each_record(records, &places, |_, _, parts| {
            for (to, part) in samples.iter_mut().zip(parts) {
                to.extend(part.as_chunks().0.iter().map(|&pair| i16::from_le_bytes(pair)));
            }
            Ok(())
        })?;
        Ok(samples)
    }

    /// Digital samples of one signal by their number in the file.
    ///
    /// # Errors
    /// As [`Reader::read_records`].
    pub fn read_samples(&mut self, signal: usize, samples: Range<u64>) -> DataResult<Vec<i16>> {
        let per_record = self.places(&[signal])?.first().map_or(0, |place| place.end - place.start);
        if samples.is_empty() || per_record == 0 {
            return Ok(Vec::new());
        }
        let records = samples.start / per_record..samples.end.div_ceil(per_record);
        let before = (samples.start - records.start * per_record) as usize;
        let mut read = self.read_records(records, &[signal])?.pop().unwrap_or_default();
        read.drain(..before.min(read.len()));
        read.truncate((samples.end - samples.start) as usize);
        Ok(read)
    }

    /// All annotations, by onset; the lists that only tell a record's time are left out. Texts that are not UTF-8 are read
    /// as Latin-1, see [`Reader::repairs`].
    ///
    /// # Errors
    /// [`DataError::Corrupt`] with the byte of a list that breaks the format, [`DataError::Io`] if the system refuses.
    pub fn annotations(&mut self) -> DataResult<Vec<Annotation>> {
        let (mut all, mut odd) = (Vec::new(), 0);
        self.for_each_list(|lists| {
            odd += lists.iter().filter(|list| !list.is_utf_8).count() as u64;
            all.extend(lists.into_iter().flat_map(annotation::List::annotations));
            Ok(())
        })?;
        self.odd_texts = odd;
        all.sort_by(|a, b| a.onset_s.total_cmp(&b.onset_s)); // stable: file order among equals
        Ok(all)
    }

    /// When each record begins, in seconds after the file's start time. EDF+ tells it in each record's first list; EDF has
    /// records without gaps from 0 on.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] if a record of EDF+ does not tell its time, or tells one before the record before it ends;
    /// what [`Reader::annotations`] says.
    pub fn record_starts_s(&mut self) -> DataResult<Vec<f64>> {
        if self.header.kind == Kind::Edf {
            return Ok((0..self.header.records).map(|i| i as f64 * self.header.record_seconds).collect());
        }
        let path = self.header.path.clone();
        let (kind, duration) = (self.header.kind, self.header.record_seconds);
        let Some(signal) = self.header.signals.iter().position(super::Signal::is_annotations) else {
            let expected = format!("a signal `EDF Annotations`, as {} has it", kind.name());
            return Err(DataError::corrupt(&path, At::File, expected, "none"));
        };
        let mut starts: Vec<f64> = Vec::new();
        let places = self.places(&[signal])?;
        self.for_each_record(0..self.header.records, &places, |byte, record, parts| {
            let wrong = |expected: String, got: String| Err(DataError::corrupt(&path, At::Byte(byte), expected, got));
            let lists = parse(&path, byte, parts.first().copied().unwrap_or_default())?;
            let Some(first) = lists.first().filter(|list| list.texts.first().is_some_and(String::is_empty)) else {
                return wrong(format!("the time of record {record}"), "no annotation list with an empty text".into());
            };
            if let Some(&before) = starts.last() {
                let earliest = before + duration;
                let gap = first.onset_s - earliest;
                let gaps_allowed = kind == Kind::PlusDiscontinuous;
                if gap < -TIME_TOLERANCE_S || (gap > TIME_TOLERANCE_S && !gaps_allowed) {
                    let order = if gaps_allowed { "not before" } else { "at" };
                    return wrong(format!("record {record} {order} {earliest} s"), format!("{} s", first.onset_s));
                }
            }
            starts.push(first.onset_s);
            Ok(())
        })?;
        Ok(starts)
    }

    /// SHA-256, in hexadecimal, of the digital samples as little-endian `i32`, signal after signal; annotations left out.
    /// Reads the file once per signal rather than hold it.
    ///
    /// # Errors
    /// [`DataError::Io`] if the system refuses.
    pub fn digest(&mut self) -> DataResult<String> {
        let mut hash = Sha256::new();
        for signal in self.header.data_signals() {
            let places = self.places(&[signal])?;
            self.for_each_record(0..self.header.records, &places, |_, _, parts| {
                for part in parts {
                    let wide = part.as_chunks().0.iter().map(|&pair| i32::from(i16::from_le_bytes(pair)));
                    hash.update(wide.flat_map(i32::to_le_bytes).collect::<Vec<u8>>());
                }
                Ok(())
            })?;
        }
        Ok(hex(&hash.finalize()))
    }

    /// Calls `f` with the lists of each annotation signal in each record.
    fn for_each_list(&mut self, mut f: impl FnMut(Vec<annotation::List>) -> DataResult<()>) -> DataResult<()> {
        let path = self.header.path.clone();
        let text: Vec<usize> =
            (0..self.header.signals.len()).filter(|i| !self.header.data_signals().contains(i)).collect();
        let places = self.places(&text)?;
        let start = places.iter().map(|place| place.start).min().unwrap_or(0);
        self.for_each_record(0..self.header.records, &places, |byte, _, parts| {
            for (part, place) in parts.iter().zip(&places) {
                f(parse(&path, byte + (place.start - start) * SAMPLE_BYTES, part)?)?;
            }
            Ok(())
        })
    }

    /// Where the signals' samples lie within a record.
    fn places(&self, signals: &[usize]) -> DataResult<Vec<Range<u64>>> {
        let place = |&signal: &usize| {
            self.header.signals.get(signal).map(super::Signal::place).ok_or_else(|| {
                let expected = format!("one of {} signals", self.header.signals.len());
                DataError::corrupt(&self.header.path, At::File, expected, format!("signal {signal} asked for"))
            })
        };
        signals.iter().map(place).collect()
    }

    /// Calls `f` with the bytes of these places in each record, preceded by the offset in the file of the earliest of them
    /// and the record's number. Of a record, only the part from the first to the last place is kept.
    fn for_each_record(
        &mut self,
        records: Range<u64>,
        places: &[Range<u64>],
        mut f: impl FnMut(u64, u64, &[&[u8]]) -> DataResult<()>,
    ) -> DataResult<()> {
        let Header { path, records: all, .. } = &self.header;
        if records.start > records.end || records.end > *all {
            let got = format!("records {} to {} asked for", records.start, records.end);
            return Err(DataError::corrupt(path, At::File, format!("{all} records"), got));
        }
        let (Some(start), Some(end)) = (places.iter().map(|p| p.start).min(), places.iter().map(|p| p.end).max())
        else {
            return Ok(());
        };
        let record_bytes = self.header.samples_per_record() * SAMPLE_BYTES;
        let span = (end - start) * SAMPLE_BYTES;
        // Where little of each record is wanted, that little is sought; else whole records are read, many at once.
        let per_block = if 2 * span < record_bytes { 1 } else { (BLOCK_BYTES / record_bytes.max(1)).max(1) };
        let (mut record, mut block) = (records.start, Vec::new());
        while record < records.end {
            let in_block = per_block.min(records.end - record);
            let byte = self.header.header_bytes() + record * record_bytes + start * SAMPLE_BYTES;
            let bytes = (in_block - 1) * record_bytes + span;
            self.read_block(byte, bytes, &mut block)?;
            for i in 0..in_block {
                let base = i * record_bytes;
                let part = |place: &Range<u64>| {
                    let [from, to] = [place.start, place.end].map(|s| (base + (s - start) * SAMPLE_BYTES) as usize);
                    block.get(from..to).unwrap_or_default()
                };
                f(byte + base, record + i, &places.iter().map(part).collect::<Vec<_>>())?;
            }
            record += in_block;
        }
        Ok(())
    }

    fn read_block(&mut self, byte: u64, bytes: u64, block: &mut Vec<u8>) -> DataResult<()> {
        let path = &self.header.path;
        self.input.seek(SeekFrom::Start(byte)).map_err(DataError::io(path))?;
        block.clear();
        let read = (&mut self.input).take(bytes).read_to_end(block).map_err(DataError::io(path))?;
        if read as u64 == bytes {
            return Ok(());
        }
        // it was long enough when it was opened
        let end = At::Byte(byte + read as u64);
        Err(DataError::corrupt(path, end, format!("{bytes} bytes from byte {byte} on"), "the file ends"))
    }
}

/// Differences of times below this are rounding of decimal text.
const TIME_TOLERANCE_S: f64 = 1e-4;

fn parse(path: &Path, byte: u64, bytes: &[u8]) -> DataResult<Vec<annotation::List>> {
    annotation::parse(bytes)
        .map_err(|(place, expected, got)| DataError::corrupt(path, At::Byte(byte + place as u64), expected, got))
}
