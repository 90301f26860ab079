//! `chbNN-summary.txt`: what each recording of a case has, in lines such as `Seizure 1 Start Time: 2996 seconds`.
//!
//! Lines that say nothing known are notes and are passed over, unless they speak of a seizure or of a file.

use std::path::Path;

use super::Seizure;
use crate::error::{At, DataError, DataResult};
use crate::plain::Plain;

/// A recording as the summary lists it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// File name, such as `chb01_03.edf`.
    pub file: String,
    /// Seconds since midnight; hours may run beyond 24. Some cases (chb24) give no times.
    pub start_s: Option<u32>,
    /// Seconds since midnight.
    pub end_s: Option<u32>,
    /// Channel labels in force for this file.
    pub channels: Vec<String>,
    /// Annotated seizures, in seconds from the start of the file.
    pub seizures: Vec<Seizure>,
}

/// Reads a summary.
///
/// # Errors
/// [`DataError::Corrupt`] with the line that is not what it should be, or with the file whose number of seizures is not
/// that of its list; [`DataError::Io`] if the system refuses.
pub fn read(path: &Path) -> DataResult<Vec<Listed>> {
    parse(path, &Plain::read(path)?.text)
}

/// A recording that is being read.
#[derive(Default)]
struct Open {
    listed: Listed,
    /// Line of its name.
    line: u64,
    /// How many seizures it is said to have.
    count: Option<usize>,
    /// Start without an end so far.
    start: Option<f64>,
}

pub(super) fn parse(path: &Path, text: &str) -> DataResult<Vec<Listed>> {
    let mut files: Vec<Listed> = Vec::new();
    let mut channels: Vec<String> = Vec::new();
    let mut open: Option<Open> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |expected: &str| {
            Err(DataError::corrupt(path, At::Line(number), expected, format!("`{}`", line.escape_debug())))
        };
        let lower = line.trim().to_ascii_lowercase();
        let (key, value) =
            lower.split_once(':').map_or((lower.as_str(), ""), |(key, value)| (key.trim(), value.trim()));
        if key == "file name" {
            if let Some(done) = open.take() {
                files.push(close(path, done)?);
            }
            // the name keeps its capitals
            let file = line.split_once(':').map_or("", |(_, name)| name.trim()).to_owned();
            if file.is_empty() || file.contains(['/', '\\']) {
                return wrong("a file name such as `chb01_03.edf`");
            }
            let listed = Listed { file, channels: channels.clone(), ..Listed::default() };
            open = Some(Open { listed, line: number, ..Open::default() });
        } else if key == "channels in edf files" || key.starts_with("channels changed") {
            channels.clear();
        } else if let Some(index) = key.strip_prefix("channel ") {
            let label = line.split_once(':').map_or("", |(_, label)| label.trim());
            if index.trim().parse::<u32>().is_err() {
                return wrong("a channel such as `Channel 1: FP1-F7`");
            }
            channels.push(label.to_owned());
        } else if let Some(open) = &mut open {
            match entry(key, value, open) {
                Some(false) => return wrong("a time `h:m:s`, a number of seizures, or whole seconds"),
                None if key.contains("seizure") => return wrong("a seizure's start or end after its file's name"),
                _ => {}
            }
        } else if key.contains("seizure") || key.starts_with("file ") {
            return wrong("`File Name:` before what is said of a file");
        }
    }
    if let Some(done) = open.take() {
        files.push(close(path, done)?);
    }
    Ok(files)
}

/// Takes one line about a file: whether its value is right, or nothing if the line is not of this kind.
fn entry(key: &str, value: &str, open: &mut Open) -> Option<bool> {
    match key {
        "file start time" | "file end time" => {
            let Some(time) = clock(value) else { return Some(false) };
            let of = if key == "file start time" { &mut open.listed.start_s } else { &mut open.listed.end_s };
            *of = Some(time);
        }
        "number of seizures in file" => match value.parse() {
            Ok(count) => open.count = Some(count),
            Err(_) => return Some(false),
        },
        _ => {
            // `seizure start time`, `seizure 2 start time`
            let rest = key
                .strip_prefix("seizure")?
                .trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
            let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end(); // the unit
            let seconds = digits.parse::<u32>().ok().map(f64::from);
            match (rest, seconds, open.start) {
                ("start time", Some(start), None) => open.start = Some(start),
                ("end time", Some(end_s), Some(start_s)) if start_s < end_s => {
                    open.start = None;
                    open.listed.seizures.push(Seizure { start_s, end_s });
                }
                ("start time" | "end time", _, _) => return Some(false),
                _ => return None,
            }
        }
    }
    Some(true)
}

fn close(path: &Path, open: Open) -> DataResult<Listed> {
    let Open { listed, line, count, start } = open;
    let found = listed.seizures.len();
    if start.is_some() || count.is_some_and(|count| count != found) {
        let expected = match count {
            Some(count) => format!("{count} seizures with start and end in `{}`", listed.file),
            None => format!("an end for each seizure in `{}`", listed.file),
        };
        let got = format!("{found}{}", if start.is_some() { " and a start without an end" } else { "" });
        return Err(DataError::corrupt(path, At::Line(line), expected, got));
    }
    Ok(listed)
}

/// Seconds of `h:m:s`. Hours run on beyond midnight in the publisher's end times.
fn clock(text: &str) -> Option<u32> {
    let mut parts = text.split(':').map(|part| part.trim().parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = parts.next().is_none() && hours < 100 && minutes < 60 && seconds < 60;
    fits.then(|| 3600 * hours + 60 * minutes + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Listed>, String> {
        parse(Path::new("chb99-summary.txt"), text).map_err(|error| error.to_string())
    }

    const TWO_FORMS: &str = "Data Sampling Rate: 256 Hz\n*****\n\nChannels in EDF Files:\n****\nChannel 1: FP1-F7\n\
        Channel 2: F7-T7\n\nFile Name: chb99_01.edf\nFile Start Time: 23:42:54\nFile End Time: 24:42:54\n\
        Number of Seizures in File: 1\nSeizure Start Time: 2996 seconds\nSeizure End Time: 3036 seconds\n\n\
        Channels changed:\nChannel 1: -\nChannel 2: F7-T7\nChannel 3: T8-P8\n\nFile Name: chb99_02+.edf\n\
        Number of Seizures in File: 2\nSeizure 1 Start Time:             130 seconds\n\
        Seizure 1 End Time: 212 seconds\nSeizure 2 Start Time: 2972 seconds\nSeizure 2 End Time: 3004 seconds\n";

    #[test]
    fn both_forms_changed_channels_and_missing_times_are_read() {
        let files = read(TWO_FORMS).unwrap();
        assert_eq!(files[0].file, "chb99_01.edf");
        assert_eq!((files[0].start_s, files[0].end_s), (Some(85_374), Some(88_974)));
        assert_eq!(files[0].seizures, [Seizure { start_s: 2996.0, end_s: 3036.0 }]);
        assert_eq!(files[0].channels, ["FP1-F7", "F7-T7"]);
        assert_eq!((files[1].file.as_str(), files[1].start_s), ("chb99_02+.edf", None));
        assert_eq!(files[1].channels, ["-", "F7-T7", "T8-P8"]);
        let spans = [Seizure { start_s: 130.0, end_s: 212.0 }, Seizure { start_s: 2972.0, end_s: 3004.0 }];
        assert_eq!(files[1].seizures, spans);
        assert_eq!(read(&TWO_FORMS.replace('\n', "\r\n")).unwrap(), files, "line ends do not matter");
    }

    /// Found by fuzzing: the product was formed before its range was checked.
    #[test]
    fn hours_beyond_all_days_are_no_time() {
        assert_eq!(clock("24:42:54"), Some(88_974));
        for text in ["4294967295:00:00", "100:00:00", "23:60:00", "23:00", "1:2:3:4"] {
            assert_eq!(clock(text), None, "{text}");
        }
    }

    #[test]
    fn errors_carry_the_line() {
        for (wrong, with, line) in [
            ("3036 seconds", "minutes", 14),
            ("3036 seconds", "2990 seconds", 14),
            ("Seizure End Time: 3036 seconds\n", "", 9),
            ("Seizure Start Time: 2996 seconds\n", "", 13),
            ("in File: 1", "in File: 2", 9),
            ("in File: 1", "in File: many", 12),
            ("23:42:54", "23:42", 10),
            ("23:42:54", "23:60:54", 10),
            ("File Name: chb99_01.edf\n", "", 9),
            ("chb99_01.edf", "../chb99_01.edf", 9),
            ("Channel 2: F7", "Channel two: F7", 7),
            ("Seizure 1 Start Time:", "Seizure one Start:", 23),
        ] {
            let error = read(&TWO_FORMS.replacen(wrong, with, 1)).unwrap_err();
            assert!(error.starts_with(&format!("chb99-summary.txt:{line}: ")), "{wrong} -> {with}: {error}");
        }
    }
}
