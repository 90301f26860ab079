//! `.edf.seizures`: annotations in the MIT format of WFDB. A seizure lies between an annotation `[` and one `]`.

use std::path::Path;

use super::Seizure;
use crate::error::{At, DataError, DataResult};
use crate::formats::wfdb::parse_annotations;

/// `[`: a seizure begins.
const BEGIN: u8 = 32;
/// `]`: it ends.
const END: u8 = 33;
/// What a note at time 0 says before the annotations' rate.
const RESOLUTION: &str = "## time resolution: ";

/// Reads the seizures of a file in seconds from its start.
///
/// # Errors
/// [`DataError::Corrupt`] with what the file says and should say, [`DataError::Io`] if the system refuses.
pub fn read(path: &Path, rate_hz: f64) -> DataResult<Vec<Seizure>> {
    parse(path, &std::fs::read(path).map_err(DataError::io(path))?, rate_hz)
}

fn parse(path: &Path, bytes: &[u8], recording_hz: f64) -> DataResult<Vec<Seizure>> {
    let wrong = |expected: &str, got: String| DataError::corrupt(path, At::File, expected, got);
    let (mut seizures, mut begin, mut rate_hz) = (Vec::new(), None, recording_hz);
    for note in parse_annotations(path, bytes)? {
        if let Some(said) = note.text.strip_prefix(RESOLUTION) {
            let given = said.trim().parse().ok().filter(|&rate: &f64| rate > 0.0 && rate.is_finite());
            rate_hz = given.ok_or_else(|| wrong("a number behind `## time resolution:`", format!("`{said}`")))?;
        }
        match (note.code, begin) {
            (BEGIN, None) if note.sample >= 0 => begin = Some(note.sample),
            (END, Some(start)) if note.sample > start => {
                let seconds = |sample: i64| sample as f64 / rate_hz;
                seizures.push(Seizure { start_s: seconds(start), end_s: seconds(note.sample) });
                begin = None;
            }
            (BEGIN | END, _) => {
                let got = format!("`{}` at sample {}", note.mnemonic(), note.sample);
                return Err(wrong("seizures that begin (`[`) and then end (`]`)", got));
            }
            _ => {} // a note
        }
    }
    match begin {
        None => Ok(seizures),
        Some(start) => {
            Err(wrong("an end (`]`) of the last seizure", format!("a seizure begins at sample {start}, and none ends")))
        }
    }
}

/// The file that the publisher would write for these seizures.
pub fn to_bytes(seizures: &[Seizure], rate_hz: u32) -> Vec<u8> {
    const NOTE: u16 = 22;
    const SKIP: u16 = 59;
    const AUX: u16 = 63;
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
            skip(time - before, u16::from(kind) << 10);
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
        let parse = |bytes: &[u8], rate_hz| super::parse(Path::new("x.seizures"), bytes, rate_hz);
        assert_eq!(parse(&CHB01_03, 256.0).unwrap(), [SPAN]);
        assert_eq!(parse(&CHB01_03, 1.0).unwrap(), [SPAN], "the file's own rate counts");
        assert_eq!(to_bytes(&[SPAN], 256), CHB01_03);
        let two = [SPAN, Seizure { start_s: 4000.5, end_s: 4001.0 }];
        assert_eq!(parse(&to_bytes(&two, 256), 256.0).unwrap(), two);
        assert_eq!(parse(&to_bytes(&[], 256), 256.0).unwrap(), []);
    }

    #[test]
    fn broken_files_are_errors_and_none_panics() {
        let parse =
            |bytes: &[u8]| super::parse(Path::new("x.seizures"), bytes, 256.0).map_err(|error| error.to_string());
        for end in 0..CHB01_03.len() {
            assert!(parse(&CHB01_03[..end]).is_err(), "{end}");
        }
        assert!(parse(&[&CHB01_03[..], &[7, 0]].concat()).unwrap_err().contains("2 bytes more"));
        let message = |place: usize, byte: u8| {
            let mut bytes = CHB01_03;
            bytes[place] = byte;
            parse(&bytes)
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
