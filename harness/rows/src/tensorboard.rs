//! The numbers of a running cell as scalars for `TensorBoard`.
//!
//! An event file is a sequence of records (length, its checksum, data, its checksum: `tensorflow/core/lib/io/record_writer.h`),
//! each with one message `tensorflow.Event` of protocol buffers (`tensorflow/core/util/event.proto`). It stands beside the Parquet
//! files and nothing is read from it again: a run that goes on begins another file in the same folder, as `TensorBoard` expects.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::row::Row;
use crate::{EvalRow, LayerRow, StepRow};
use data::error::{DataError, DataResult};

/// An event file that is being written.
#[derive(Debug)]
pub struct Board {
    path: PathBuf,
    out: BufWriter<File>,
}

/// Kinds of fields on the wire.
const VARINT: u64 = 0;
const DOUBLE: u64 = 1;
const BYTES: u64 = 2;
const FLOAT: u64 = 5;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(field: u64, kind: u64, out: &mut Vec<u8>) {
    varint(field << 3 | kind, out);
}

fn bytes(field: u64, content: &[u8], out: &mut Vec<u8>) {
    key(field, BYTES, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// `tensorflow.Event` of a step.
#[derive(Default)]
struct Message {
    summary: Vec<u8>,
}

impl Message {
    /// Adds a `Summary.Value`: a tag and a number.
    fn scalar(&mut self, tag: &str, value: f64) {
        let mut one = Vec::with_capacity(tag.len() + 8);
        bytes(1, tag.as_bytes(), &mut one);
        key(2, FLOAT, &mut one);
        one.extend_from_slice(&(value as f32).to_le_bytes());
        bytes(1, &one, &mut self.summary);
    }

    fn finish(self, wall: f64, step: u64) -> Vec<u8> {
        let mut out = head(wall);
        key(2, VARINT, &mut out);
        varint(step, &mut out);
        bytes(5, &self.summary, &mut out);
        out
    }
}

/// Wall time in seconds since 1970.
fn head(wall: f64) -> Vec<u8> {
    let mut out = Vec::new();
    key(1, DOUBLE, &mut out);
    out.extend_from_slice(&wall.to_le_bytes());
    out
}

/// A checksum as records have it, so that one of data with checksums is not weak.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Board {
    /// Begins a file of its own in `folder`, which is made.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn create(folder: &Path) -> DataResult<Self> {
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let wall = now();
        let path = folder.join(format!("events.out.tfevents.{:010}.{}.harness", wall as u64, std::process::id()));
        let mut board = Self::at(path)?;
        let mut first = head(wall);
        bytes(3, b"brain.Event:2", &mut first);
        board.record(&first)?;
        board.flush()?;
        Ok(board)
    }

    /// A file with nothing in it yet.
    pub(crate) fn at(path: PathBuf) -> DataResult<Self> {
        let file = File::options().append(true).create(true).open(&path).map_err(DataError::io(&path))?;
        Ok(Self { path, out: BufWriter::new(file) })
    }

    /// Writes rows: a column of steps as `train/COLUMN`, a metric as `SPLIT/METRIC`, a diagnostic as `LAYER/QUANTITY`.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub(crate) fn write(&mut self, steps: &[StepRow], layers: &[LayerRow], evals: &[EvalRow]) -> DataResult<()> {
        let wall = now();
        for row in steps {
            let mut message = Message::default();
            row.numbers(&mut |column, value| {
                if column != "step" {
                    message.scalar(&format!("train/{column}"), value);
                }
            });
            self.record(&message.finish(wall, row.step))?;
        }
        let layers = layers.iter().map(|row| (row.step, format!("{}/{}", row.layer, row.quantity), row.value));
        let evals =
            evals.iter().filter_map(|row| Some((row.step, format!("{}/{}", row.split, row.metric), row.value?)));
        for (step, tag, value) in layers.chain(evals) {
            let mut message = Message::default();
            message.scalar(&tag, value);
            self.record(&message.finish(wall, step))?;
        }
        self.flush()
    }

    fn record(&mut self, data: &[u8]) -> DataResult<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut write = || {
            self.out.write_all(&length)?;
            self.out.write_all(&masked(&length).to_le_bytes())?;
            self.out.write_all(data)?;
            self.out.write_all(&masked(data).to_le_bytes())
        };
        write().map_err(DataError::io(&self.path))
    }

    fn flush(&mut self) -> DataResult<()> {
        self.out.flush().map_err(DataError::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of a file, whose checksums must be right.
    fn records(mut data: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while !data.is_empty() {
            let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
            assert_eq!(word(8), masked(&data[..8]));
            let message = data[12..12 + length].to_vec();
            assert_eq!(word(12 + length), masked(&message));
            all.push(message);
            data = &data[16 + length..];
        }
        all
    }

    fn with(step: u64, tag: &str, value: f32) -> Vec<u8> {
        let mut one = vec![0x0a, tag.len() as u8];
        one.extend_from_slice(tag.as_bytes());
        one.push(0x15);
        one.extend_from_slice(&value.to_le_bytes());
        let mut out = vec![0x10, step as u8, 0x2a, one.len() as u8 + 2, 0x0a, one.len() as u8];
        out.extend(one);
        out
    }

    #[test]
    fn rows_are_scalars_under_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut board = Board::create(&dir.path().join("a/b")).unwrap();
        let step = StepRow { step: 7, loss: Some(0.5), ..StepRow::default() };
        let layer = LayerRow { step: 7, layer: "layers.0".into(), quantity: "rate".into(), value: 0.25 };
        let eval = |value| EvalRow {
            step: 7,
            seen: 1,
            split: "valid".into(),
            metric: "loss".into(),
            value,
            n: 1,
            low: None,
            high: None,
        };
        board.write(&[step], &[layer], &[eval(Some(2.0)), eval(None)]).unwrap();
        let data = std::fs::read(&board.path).unwrap();
        let all = records(&data);
        assert_eq!(all.len(), 4, "a version, a step, a diagnostic, and of the metrics the one that was measured");
        assert!(all[0].ends_with(b"brain.Event:2"));
        let text = String::from_utf8_lossy(&all[1]);
        assert!(text.contains("train/loss") && text.contains("train/learning_rate"));
        assert!(!text.contains("train/step") && !text.contains("train/peak_bytes"), "null is no number");
        assert_eq!(all[2][9..], with(7, "layers.0/rate", 0.25));
        assert_eq!(all[3][9..], with(7, "valid/loss", 2.0));
    }

    /// RFC 3720, B.4, masked as TensorFlow's `crc32c.h` does.
    #[test]
    fn checksums_are_masked_castagnoli() {
        let expected = 0x8a91_36aa_u32;
        assert_eq!(masked(&[0; 32]), expected.rotate_right(15).wrapping_add(0xa282_ead8));
        let mut long = Vec::new();
        varint(300, &mut long);
        assert_eq!(long, [0xac, 0x02]);
    }
}
