//! The storage formats of signal files: how samples lie in bytes (signal(5)).

/// A storage format whose samples have a fixed place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// 8-bit first differences.
    F8,
    /// 16-bit two's complement, little-endian.
    F16,
    /// 24-bit two's complement, little-endian.
    F24,
    /// 32-bit two's complement, little-endian.
    F32,
    /// 16-bit two's complement, big-endian.
    F61,
    /// 8-bit offset binary.
    F80,
    /// 16-bit offset binary, little-endian.
    F160,
    /// Two 12-bit samples in three bytes.
    F212,
    /// Three 10-bit samples in the upper 15 bits of two 16-bit words.
    F310,
    /// Three 10-bit samples in the lower 30 bits of a 32-bit word.
    F311,
}

/// What a header must name, for error messages.
pub(super) const SUPPORTED: &str = "one of the formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311, 508, 516, 524";

/// How the samples of a signal file are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// In fixed places.
    Packed(Format),
    /// As a FLAC stream of at most so many bits, with a channel for each signal.
    Flac {
        /// 8, 16 or 24.
        bits: u32,
    },
}

impl Storage {
    /// The storage of a header's number; otherwise what is wrong with it.
    pub(super) fn from_code(code: u32) -> Result<Self, String> {
        Ok(Self::Packed(match code {
            8 => Format::F8,
            16 => Format::F16,
            24 => Format::F24,
            32 => Format::F32,
            61 => Format::F61,
            80 => Format::F80,
            160 => Format::F160,
            212 => Format::F212,
            310 => Format::F310,
            311 => Format::F311,
            508 | 516 | 524 => return Ok(Self::Flac { bits: code - 500 }),
            other => return Err(format!("unknown signal format {other}")),
        }))
    }

    /// Value that stands for a missing sample: the lowest of the format.
    pub(super) fn missing(self) -> i32 {
        match self {
            Self::Packed(format) => format.missing(),
            Self::Flac { bits } => -1 << (bits - 1),
        }
    }
}

impl Format {
    /// Samples and bytes of the smallest group of whole bytes.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F8 | Self::F80 => (1, 1),
            Self::F16 | Self::F61 | Self::F160 => (1, 2),
            Self::F24 => (1, 3),
            Self::F32 => (1, 4),
            Self::F212 => (2, 3),
            Self::F310 | Self::F311 => (3, 4),
        }
    }

    /// Bytes that hold the first `samples` samples; a last, partial block needs only those its samples touch.
    /// `None` on overflow.
    pub(super) fn bytes_for(self, samples: u64) -> Option<u64> {
        let (block_samples, block_bytes) = self.block();
        let rest = match (self, samples % block_samples) {
            (_, 0) => 0,
            (Self::F310, 2) => 4,
            (Self::F311, 2) => 3,
            _ => 2, // one sample of 10 or 12 bits
        };
        (samples / block_samples).checked_mul(block_bytes)?.checked_add(rest)
    }

    /// Whole samples in so many bytes.
    pub(super) fn samples_in(self, bytes: u64) -> u64 {
        let (block_samples, block_bytes) = self.block();
        let whole = (bytes / block_bytes).saturating_mul(block_samples);
        let rest =
            (1..block_samples).rev().find(|&n| self.bytes_for(n).is_some_and(|need| need <= bytes % block_bytes));
        whole.saturating_add(rest.unwrap_or(0))
    }

    /// Value that stands for a missing sample: the lowest of the format. Format 8 has none of its own; the lowest
    /// `i32` stands in, which no sum of differences reaches.
    pub(super) fn missing(self) -> i32 {
        match self {
            Self::F80 => -(1 << 7),
            Self::F310 | Self::F311 => -(1 << 9),
            Self::F212 => -(1 << 11),
            Self::F16 | Self::F61 | Self::F160 => -(1 << 15),
            Self::F24 => -(1 << 23),
            Self::F32 | Self::F8 => i32::MIN,
        }
    }

    /// The byte of the first word with bits where the format has none, which readers do not agree on.
    pub(super) fn set_where_unused(self, bytes: &[u8]) -> Option<usize> {
        match self {
            // C's library leaves the two highest bits of a word alone; wfdb-python adds one of them to the third sample
            Self::F311 => bytes.as_chunks::<4>().0.iter().position(|word| word[3] & 0xC0 != 0).map(|word| 4 * word + 3),
            Self::F8
            | Self::F16
            | Self::F24
            | Self::F32
            | Self::F61
            | Self::F80
            | Self::F160
            | Self::F212
            | Self::F310 => None,
        }
    }

    /// The first `samples` samples in file order, fewer if the bytes run out. For [`Format::F8`] these are the
    /// differences as stored.
    pub(super) fn decode(self, bytes: &[u8], samples: usize) -> Vec<i32> {
        let mut out = match self {
            Self::F8 => bytes.iter().map(|&b| i32::from(b as i8)).collect(),
            Self::F80 => bytes.iter().map(|&b| i32::from(b) - 128).collect(),
            Self::F16 => words(bytes, |w| i32::from(i16::from_le_bytes(w))),
            Self::F61 => words(bytes, |w| i32::from(i16::from_be_bytes(w))),
            Self::F160 => words(bytes, |w| i32::from(u16::from_le_bytes(w)) - (1 << 15)),
            Self::F24 => words(bytes, |[a, b, c]| i32::from_le_bytes([0, a, b, c]) >> 8),
            Self::F32 => words(bytes, i32::from_le_bytes),
            Self::F212 => blocks(bytes, |[a, b, c]| {
                let [a, b, c] = [a, b, c].map(i32::from);
                [a | (b & 0x0F) << 8, c | (b >> 4) << 8].map(|v| signed(v, 12))
            }),
            Self::F310 => blocks(bytes, |[a, b, c, d]: [u8; 4]| {
                let (low, high) = (i32::from(u16::from_le_bytes([a, b])), i32::from(u16::from_le_bytes([c, d])));
                [low >> 1, high >> 1, low >> 11 | (high >> 11) << 5].map(|v| signed(v, 10))
            }),
            Self::F311 => blocks(bytes, |word: [u8; 4]| {
                let word = i32::from_le_bytes(word);
                [word, word >> 10, word >> 20].map(|v| signed(v, 10))
            }),
        };
        out.truncate(samples);
        out
    }
}

/// The lowest `bits` bits of `value` as two's complement.
fn signed(value: i32, bits: u32) -> i32 {
    let unused = 32 - bits;
    value << unused >> unused
}

/// One sample from each whole word of `N` bytes.
fn words<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> i32) -> Vec<i32> {
    bytes.as_chunks::<N>().0.iter().map(|&word| decode(word)).collect()
}

/// `S` samples from each block of `N` bytes. The last block may be cut short behind the bytes its samples touch; what
/// it lacks counts as zero, and the caller drops the samples that would come from there.
fn blocks<const N: usize, const S: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> [i32; S]) -> Vec<i32> {
    let (whole, rest) = bytes.as_chunks::<N>();
    let mut out: Vec<i32> = whole.iter().flat_map(|&block| decode(block)).collect();
    if !rest.is_empty() {
        let mut last = [0; N];
        last.iter_mut().zip(rest).for_each(|(to, &from)| *to = from);
        out.extend(decode(last));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Format; 10] = [
        Format::F8,
        Format::F16,
        Format::F24,
        Format::F32,
        Format::F61,
        Format::F80,
        Format::F160,
        Format::F212,
        Format::F310,
        Format::F311,
    ];

    /// Bytes of known samples, worked out by hand from signal(5).
    #[test]
    fn each_format_decodes_a_hand_made_block() {
        let cases: [(Format, &[u8], &[i32]); 10] = [
            (Format::F8, &[0x01, 0xFF, 0x80], &[1, -1, -128]),
            (Format::F16, &[0x34, 0x12, 0xFF, 0xFF, 0x00, 0x80], &[0x1234, -1, -32768]),
            (Format::F24, &[0x56, 0x34, 0x12, 0xFE, 0xFF, 0xFF], &[0x12_3456, -2]),
            (Format::F32, &[0x78, 0x56, 0x34, 0x12, 0xFD, 0xFF, 0xFF, 0xFF], &[0x1234_5678, -3]),
            (Format::F61, &[0x12, 0x34, 0xFF, 0xFE], &[0x1234, -2]),
            (Format::F80, &[0x80, 0x00, 0xFF], &[0, -128, 127]),
            (Format::F160, &[0x00, 0x80, 0x00, 0x00, 0xFF, 0xFF], &[0, -32768, 32767]),
            // 0x7FF = 2047 and 0x801 = -2047: low byte, both high nibbles (second one high), low byte
            (Format::F212, &[0xFF, 0x87, 0x01], &[2047, -2047]),
            // 0x155 = 341, 0x2AA = -342 and 0x201 = -511: words 341·2 | 1<<11 and 682·2 | 16<<11
            (Format::F310, &[0xAA, 0x0A, 0x54, 0x85], &[341, -342, -511]),
            // 341 | 682<<10 | 513<<20 = 0x201A_A955
            (Format::F311, &[0x55, 0xA9, 0x1A, 0x20], &[341, -342, -511]),
        ];
        for (format, bytes, samples) in cases {
            assert_eq!(format.decode(bytes, samples.len()), samples, "{format:?}");
            assert_eq!(format.bytes_for(samples.len() as u64), Some(bytes.len() as u64), "{format:?}");
        }
    }

    #[test]
    fn partial_blocks_need_only_the_bytes_their_samples_touch() {
        assert_eq!(Format::F212.decode(&[0xFF, 0x07], 1), [2047]);
        assert_eq!(Format::F310.decode(&[0xAA, 0x0A], 1), [341]);
        assert_eq!(Format::F311.decode(&[0x55, 0xA9, 0x1A], 2), [341, -342]);
        assert_eq!(Format::F212.bytes_for(3), Some(5));
        assert_eq!(Format::F310.bytes_for(5), Some(8));
        assert_eq!(Format::F311.bytes_for(5), Some(7));
    }

    #[test]
    fn samples_in_is_the_inverse_of_bytes_for() {
        for format in ALL {
            for bytes in 0..40 {
                let samples = format.samples_in(bytes);
                assert!(format.bytes_for(samples).unwrap() <= bytes, "{format:?} {bytes}");
                assert!(format.bytes_for(samples + 1).unwrap() > bytes, "{format:?} {bytes}");
            }
            assert!(format.decode(&[], 3).is_empty());
        }
        assert_eq!(Format::F32.bytes_for(u64::MAX), None);
    }

    #[test]
    fn codes_are_those_of_the_manual() {
        assert_eq!(Storage::from_code(212), Ok(Storage::Packed(Format::F212)));
        assert_eq!(Storage::from_code(516).map(Storage::missing), Ok(-32768));
        assert_eq!(Storage::from_code(508).map(Storage::missing), Ok(-128));
        assert!(Storage::from_code(7).unwrap_err().contains('7'));
    }
}
