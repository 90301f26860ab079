//! `.edf.seizures`: annotations in the MIT format of WFDB (annot(5)), binary words of 16 bits, little-endian. The upper
//! 6 bits are a type, the lower 10 a number. A seizure lies between an annotation of type 32 (`[`) and one of type 33
//! (`]`).

use std::path::Path;

use super::Seizure;
use crate::datasets::error::{At, DataError, DataResult};

/// `[`: a seizure begins.
const BEGIN: u16 = 32;
/// `]`: it ends.
const END: u16 = 33;
/// The first word that is not an annotation.
const SKIP: u16 = 59;
/// Number, subtype and channel of the annotation before: the number is the word's own.
const FIELDS: std::ops::RangeInclusive<u16> = 60..=62;
/// Text follows; the number is its length.
const AUX: u16 = 63;
/// What the note at time 0 says before the annotations' rate.
const RESOLUTION: &str = "## time resolution: ";

/// Reads the seizures of a file in seconds from its start.
///
/// # Errors
/// [`DataError::Corrupt`] with the byte at which the file is not what it should be, [`DataError::Io`] if the system
/// refuses.
pub fn read(path: &Path, rate_hz: f64) -> DataResult<Vec<Seizure>> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    parse(&bytes, rate_hz).map_err(|(at, expected, got)| DataError::corrupt(path, At::Byte(at as u64), expected, got))
}

/// Byte, what is expected there, what there is.
type Problem = (usize, &'static str, String);

pub(super) fn parse(bytes: &[u8], recording_hz: f64) -> Result<Vec<Seizure>, Problem> {
    let (words, rest) = bytes.as_chunks::<2>();
    let word = |i: usize| words.get(i).map(|&pair| u16::from_le_bytes(pair));
    let (mut seizures, mut begin, mut rate_hz) = (Vec::new(), None, recording_hz);
    let (mut i, mut time) = (0, 0_i64);
    while let Some(here) = word(i) {
        let at = 2 * i;
        i += 1;
        let (kind, number) = (here >> 10, here & 0x3FF);
        match kind {
            0 if number == 0 => {
                let left = words.len() - i;
                if begin.is_some() {
                    return Err((at, "the end of the last seizure", "the end of the annotations".into()));
                }
                if left > 0 || !rest.is_empty() {
                    return Err((at, "the end of the file", format!("{left} more words")));
                }
                return Ok(seizures);
            }
            SKIP => {
                // the high half first
                let (Some(high), Some(low)) = (word(i), word(i + 1)) else { break };
                time += i64::from((u32::from(high) << 16 | u32::from(low)) as i32);
                i += 2;
            }
            AUX => {
                let length = usize::from(number);
                let Some(text) = bytes.get(at + 2..at + 2 + length) else { break };
                if let Some(said) = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix(RESOLUTION)) {
                    let given = said.trim_end_matches('\0').trim().parse().ok();
                    let given = given.filter(|&rate: &f64| rate > 0.0 && rate.is_finite());
                    rate_hz = given.ok_or((at, "a number behind `## time resolution:`", format!("`{said}`")))?;
                }
                i += length.div_ceil(2);
            }
            kind if FIELDS.contains(&kind) => {}
            kind => {
                time += i64::from(number);
                match (kind, begin) {
                    (BEGIN, None) if time >= 0 => begin = Some(time),
                    (END, Some(start)) if time > start => {
                        let seconds = |time: i64| time as f64 / rate_hz;
                        seizures.push(Seizure { start_s: seconds(start), end_s: seconds(time) });
                        begin = None;
                    }
                    (BEGIN | END, _) => {
                        let got = format!("type {kind} at sample {time}");
                        return Err((at, "seizures that begin (type 32) and then end (type 33)", got));
                    }
                    _ => {} // a note
                }
            }
        }
    }
    Err((bytes.len(), "annotations that end with a word of zero", "the file ends".into()))
}

/// The file that the publisher would write for these seizures.
pub fn to_bytes(seizures: &[Seizure], rate_hz: u32) -> Vec<u8> {
    const NOTE: u16 = 22;
    let mut bytes = Vec::new();
    let mut word = |word: u16| bytes.extend_from_slice(&word.to_le_bytes());
    let text = format!("{RESOLUTION}{rate_hz}");
    word(NOTE << 10);
    word(AUX << 10 | text.len() as u16);
    let mut padded = text.into_bytes();
    padded.resize(padded.len().next_multiple_of(2), 0);
    for pair in padded.as_chunks().0 {
        word(u16::from_le_bytes(*pair));
    }
    let mut skip = |by: i32, then: u16| {
        word(SKIP << 10);
        word((by as u32 >> 16) as u16);
        word(by as u16);
        word(then);
    };
    skip(-1, 1); // an annotation of type 0 at time 0 closes the notes
    let mut before = 0;
    for seizure in seizures {
        for (seconds, kind) in [(seizure.start_s, BEGIN), (seizure.end_s, END)] {
            let time = (seconds * f64::from(rate_hz)).round() as i32;
            skip(time - before, kind << 10);
            before = time;
        }
    }
    word(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `chb01_03.edf.seizures` of CHB-MIT 1.0.0: one seizure from 2996 to 3036 s.
    const CHB01_03: [u8; 54] = [
        0x00, 0x58, 0x17, 0xfc, 0x23, 0x23, 0x20, 0x74, 0x69, 0x6d, 0x65, 0x20, 0x72, 0x65, 0x73, 0x6f, 0x6c, 0x75,
        0x74, 0x69, 0x6f, 0x6e, 0x3a, 0x20, 0x32, 0x35, 0x36, 0x00, 0x00, 0xec, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00,
        0x00, 0xec, 0x0b, 0x00, 0x00, 0xb4, 0x00, 0x80, 0x00, 0xec, 0x00, 0x00, 0x00, 0x28, 0x00, 0x84, 0x00, 0x00,
    ];
    const SPAN: Seizure = Seizure { start_s: 2996.0, end_s: 3036.0 };

    #[test]
    fn the_publishers_file_is_read_and_written() {
        assert_eq!(parse(&CHB01_03, 256.0).unwrap(), [SPAN]);
        assert_eq!(parse(&CHB01_03, 1.0).unwrap(), [SPAN], "the file's own rate counts");
        assert_eq!(to_bytes(&[SPAN], 256), CHB01_03);
        let two = [SPAN, Seizure { start_s: 4000.5, end_s: 4001.0 }];
        assert_eq!(parse(&to_bytes(&two, 256), 256.0).unwrap(), two);
        assert_eq!(parse(&to_bytes(&[], 256), 256.0).unwrap(), []);
    }

    #[test]
    fn broken_files_are_errors_and_none_panics() {
        for end in 0..CHB01_03.len() {
            assert!(parse(&CHB01_03[..end], 256.0).is_err(), "{end}");
        }
        assert!(parse(&[&CHB01_03[..], &[0, 0]].concat(), 256.0).unwrap_err().2.contains("1 more"));
        let message = |place: usize, byte: u8| {
            let mut bytes = CHB01_03;
            bytes[place] = byte;
            parse(&bytes, 256.0).map_err(|problem| problem.1)
        };
        assert!(message(43, 0x84).unwrap_err().contains("begin"));
        assert!(message(51, 0x80).unwrap_err().contains("begin"));
        assert!(message(51, 0x00).is_err(), "a seizure without an end");
        assert!(message(24, b'x').unwrap_err().contains("time resolution"));
        for place in 0..CHB01_03.len() {
            for byte in 0..=u8::MAX {
                let _ = message(place, byte);
            }
        }
    }
}
