//! Writes records in format 16, the one PTB-XL uses.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::{At, DataError, DataResult};

/// A signal to be written.
#[derive(Clone, Copy, Debug)]
pub struct ChannelToWrite<'a> {
    /// Description, such as a lead name.
    pub name: &'a str,
    /// Physical unit, without blanks.
    pub units: &'a str,
    /// Steps per physical unit; finite, not zero.
    pub gain: f64,
    /// Digital value of physical zero.
    pub baseline: i32,
    /// Samples; -32768 marks a missing one.
    pub digital: &'a [i16],
}

/// Writes `dir/name.dat` (format 16, interleaved) and then `dir/name.hea`, over what may be there.
/// Same input, same bytes. The folder must exist.
///
/// # Errors
/// [`DataError::Corrupt`] if the channels cannot be written as a record (unequal lengths, a name that a header cannot
/// hold, a gain of zero, no channel), [`DataError::Io`] if the system refuses.
pub fn write_record(dir: &Path, name: &str, frames_per_second: f64, channels: &[ChannelToWrite<'_>]) -> DataResult<()> {
    let header_path = dir.join(format!("{name}.hea"));
    let wrong = |expected: &str, got: String| Err(DataError::corrupt(&header_path, At::File, expected, got));
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return wrong("a record name of letters, digits, `_` and `-`", format!("`{name}`"));
    }
    if !(frames_per_second.is_finite() && frames_per_second > 0.0) {
        return wrong("a positive number of frames per second", frames_per_second.to_string());
    }
    let Some(frames) = channels.first().map(|channel| channel.digital.len()) else {
        return wrong("at least one channel", "none".into());
    };
    for channel in channels {
        if channel.digital.len() != frames {
            return wrong("channels of one length", format!("{frames} and {} samples", channel.digital.len()));
        }
        if !(channel.gain.is_finite() && channel.gain != 0.0) {
            return wrong("a finite gain other than 0", channel.gain.to_string());
        }
        if channel.units.is_empty()
            || channel.units.contains(char::is_whitespace)
            || channel.name.contains(['\n', '\r'])
        {
            return wrong(
                "a unit without blanks and a name on one line",
                format!("{:?} {:?}", channel.units, channel.name),
            );
        }
    }

    let data_name = format!("{name}.dat");
    let mut data = Vec::with_capacity(frames * channels.len() * 2);
    for frame in 0..frames {
        for sample in channels.iter().filter_map(|channel| channel.digital.get(frame)) {
            data.extend_from_slice(&sample.to_le_bytes());
        }
    }
    let data_path = dir.join(&data_name);
    std::fs::write(&data_path, data).map_err(DataError::io(&data_path))?;
    let header = header_text(name, &data_name, frames_per_second, frames, channels);
    std::fs::write(&header_path, header).map_err(DataError::io(&header_path))
}

/// The header in the words of wfdb-python, which wrote PTB-XL's: checksums unsigned, gains with a decimal point.
fn header_text(name: &str, data: &str, rate: f64, frames: usize, channels: &[ChannelToWrite<'_>]) -> String {
    let mut text = format!("{name} {} {rate} {frames}\n", channels.len());
    for ChannelToWrite { name, units, gain, baseline, digital } in channels {
        let initial = digital.first().copied().unwrap_or(0);
        let checksum = digital.iter().fold(0_u16, |sum, &sample| sum.wrapping_add(sample as u16));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{data} 16 {gain:?}({baseline})/{units} 16 0 {initial} {checksum} 0 {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{digest, read_record};
    use super::*;

    fn channel<'a>(name: &'a str, digital: &'a [i16]) -> ChannelToWrite<'a> {
        ChannelToWrite { name, units: "mV", gain: 1000.0, baseline: 0, digital }
    }

    #[test]
    fn header_is_that_of_the_publisher() {
        let samples = [-119, 1508 + 119];
        let text = header_text("00001_lr", "00001_lr.dat", 100.0, 2, &[channel("I", &samples)]);
        assert_eq!(text, "00001_lr 1 100 2\n00001_lr.dat 16 1000.0(0)/mV 16 0 -119 1508 0 I\n");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = ([1, -2, i16::MIN, i16::MAX], [-32767, 0, 5, 6]);
        write_record(dir.path(), "r", 62.5, &[channel("I", &a), channel("II a", &b)]).unwrap();
        let record = read_record(&dir.path().join("r.hea")).unwrap();
        assert_eq!((record.frames, record.frames_per_second), (4, 62.5));
        assert_eq!(record.channels[0].digital, a.map(i32::from));
        assert_eq!(record.channels[1].digital, b.map(i32::from));
        assert_eq!(record.channels[1].name, "II a");
        let physical: Vec<f32> = record.channels[0].physical().collect();
        assert_eq!(&physical[..2], [0.001, -0.002]);
        assert!(physical[2].is_nan());
        assert_eq!(digest(&record).len(), 64);
    }

    #[test]
    fn refuses_what_a_header_cannot_say() {
        let dir = tempfile::tempdir().unwrap();
        let one = [0_i16];
        let write =
            |name: &str, rate: f64, channels: &[ChannelToWrite<'_>]| write_record(dir.path(), name, rate, channels);
        assert!(write("a b", 1.0, &[channel("I", &one)]).is_err());
        assert!(write("a/b", 1.0, &[channel("I", &one)]).is_err());
        assert!(write("r", 0.0, &[channel("I", &one)]).is_err());
        assert!(write("r", 1.0, &[]).is_err());
        assert!(write("r", 1.0, &[channel("I", &one), channel("II", &[])]).is_err());
        assert!(write("r", 1.0, &[ChannelToWrite { gain: 0.0, ..channel("I", &one) }]).is_err());
        assert!(write("r", 1.0, &[ChannelToWrite { units: "a b", ..channel("I", &one) }]).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written on error");
    }
}
