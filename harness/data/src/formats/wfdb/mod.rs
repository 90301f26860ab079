//! WFDB records (PhysioNet): a text header (`.hea`) that describes one or more binary signal files.
//! Written after the header(5) and signal(5) manual pages; where these leave a choice, after wfdb-python.
//!
//! A *frame* holds one sample of every signal, or several of those sampled faster. Samples are kept as the stored
//! integers ("digital"); `Channel::physical` turns them into the header's units.

mod annotation;
mod files;
mod format;
mod header;
mod join;
mod read;
#[cfg(test)]
mod read_tests;
mod write;

pub use annotation::{ANNOTATORS, Annotation, parse_annotations, read_annotations};
pub use files::{Files, Input};
pub use read::{read_layout, read_record, read_record_from};
pub use write::{ChannelToWrite, write_record};

use sha2::{Digest, Sha256};

/// A record, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Name in the header's first line.
    pub name: String,
    /// Frames per second.
    pub frames_per_second: f64,
    /// Length in frames.
    pub frames: usize,
    /// The signals, in the header's order.
    pub channels: Vec<Channel>,
}

/// One signal of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Description in the header, such as a lead name.
    pub name: String,
    /// Physical unit, such as `mV`.
    pub units: String,
    /// Steps per physical unit; of the first segment that has this signal, see [`Channel::physical`].
    pub gain: f64,
    /// Digital value of physical zero; of the first segment that has this signal.
    pub baseline: i32,
    /// Samples in each frame.
    pub samples_per_frame: usize,
    /// The stored integers, `frames × samples_per_frame` of them.
    pub digital: Vec<i32>,
    /// Scales in force, by rising start; the first starts at 0.
    pieces: Vec<Piece>,
}

/// The scale of the samples from `start` on: the segments of one record may be amplified differently.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// First sample it applies to.
    start: usize,
    /// Steps per physical unit.
    gain: f64,
    /// Digital value of physical zero.
    baseline: i32,
    /// Digital value that stands for a missing sample.
    missing: i32,
}

impl Channel {
    /// The samples in [`Channel::units`]: (digital − baseline) / gain with the scale of each sample's own segment.
    /// A missing sample is NaN.
    pub fn physical(&self) -> impl Iterator<Item = f32> + '_ {
        let ends = self.pieces.iter().skip(1).map(|next| next.start).chain([self.digital.len()]);
        self.pieces.iter().zip(ends).flat_map(|(piece, end)| {
            let samples = self.digital.get(piece.start..end).unwrap_or_default();
            samples.iter().map(|&sample| {
                if sample == piece.missing {
                    f32::NAN
                } else {
                    ((f64::from(sample) - f64::from(piece.baseline)) / piece.gain) as f32
                }
            })
        })
    }
}

/// SHA-256, in hexadecimal, of the digital samples as little-endian `i32`, channel after channel.
pub fn digest(record: &Record) -> String {
    let mut hash = Sha256::new();
    for channel in &record.channels {
        for block in channel.digital.chunks(1 << 14) {
            let bytes: Vec<u8> = block.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    crate::files::hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_uses_the_scale_of_each_piece() {
        let first = Piece { start: 0, gain: 2.0, baseline: 0, missing: -128 };
        let second = Piece { start: 3, gain: 4.0, baseline: 1, missing: -2048 };
        let channel = Channel {
            name: "I".into(),
            units: "mV".into(),
            gain: 2.0,
            baseline: 0,
            samples_per_frame: 1,
            digital: vec![4, -128, 1, -128, -2048, 5],
            pieces: vec![first, second],
        };
        let physical: Vec<f32> = channel.physical().collect();
        assert_eq!(physical.len(), 6);
        assert_eq!(&physical[..1], [2.0]);
        assert!(physical[1].is_nan());
        assert_eq!(&physical[2..4], [0.5, -32.25]); // -128 is a sample like any other in the second piece
        assert!(physical[4].is_nan());
        assert_eq!(&physical[5..], [1.0]);
    }

    #[test]
    fn digest_is_sha256_of_le_i32() {
        let record = Record { name: "empty".into(), frames_per_second: 1.0, frames: 0, channels: vec![] };
        assert_eq!(digest(&record), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
