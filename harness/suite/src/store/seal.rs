//! JSON files that carry a digest of themselves, so that a damaged one is never taken for what was written.
//!
//! The digest is the last key of the object: the SHA-256 of the file as it would be without it. A file without one was not written
//! by this program, or was changed since.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::write_whole;
use crate::error::{Error, Result};
use data::files::sha256_hex;

/// Between the last value and the digest.
const KEY: &str = ",\n  \"digest\": \"";
/// Behind the digest.
const TAIL: &str = "\"\n}\n";
/// End of an object that has no digest.
const END: &str = "\n}\n";

/// What is in the place of a file.
#[derive(Debug, PartialEq)]
pub enum Stored<T> {
    /// No file.
    Absent,
    /// What was written.
    Whole(T),
    /// Something else: what is wrong with it, with its path.
    Damaged(String),
}

impl<T> Stored<T> {
    /// The value, if it is whole.
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Absent | Self::Damaged(_) => None,
        }
    }
}

/// Writes a value, whose JSON must be an object that is not empty, with the digest of itself.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Report(e.to_string()))?;
    text.push('\n');
    let body = text.strip_suffix(END).unwrap_or(&text);
    write_whole(path, format!("{body}{KEY}{}{TAIL}", sha256_hex(text.as_bytes())).as_bytes())
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// `Io` if the system refuses to read what is there.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Stored<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Stored::Absent),
        Err(e) => return Err(Error::io(path)(e)),
    };
    let damaged = |problem: String| Stored::Damaged(format!("{}: {problem}", path.display()));
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(damaged("expected JSON, got bytes that are no text".to_owned()));
    };
    let Some((body, digest)) = text.strip_suffix(TAIL).and_then(|rest| rest.rsplit_once(KEY)) else {
        return Ok(damaged("it was changed after it was written: it does not end in its digest".to_owned()));
    };
    let body = format!("{body}{END}");
    if sha256_hex(body.as_bytes()) != digest {
        return Ok(damaged("it was changed after it was written: its digest is of other content".to_owned()));
    }
    Ok(serde_json::from_str(&body).map_or_else(
        |e| damaged(format!("line {}, column {}: not what this program writes: {e}", e.line(), e.column())),
        Stored::Whole,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        name: String,
        value: Option<f64>,
        #[serde(default)]
        later: u64,
    }

    /// Every bit of the file, one at a time: what is read is what was written, or damage is found.
    #[test]
    fn no_flipped_bit_gives_another_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let small = Small { name: "a \" b".into(), value: Some(0.1 + 0.2), later: 7 };
        write(&path, &small).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(
            read::<Small>(&path).unwrap(),
            Stored::Whole(Small { name: "a \" b".into(), value: Some(0.1 + 0.2), later: 7 })
        );
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            assert!(matches!(read::<Small>(&path).unwrap(), Stored::Damaged(_)), "bit {bit}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(read::<Small>(&path).unwrap(), Stored::Damaged(_)), "{length} bytes");
        }
    }

    #[test]
    fn what_was_not_written_here_is_damaged_and_absent_ones_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        assert_eq!(read::<Small>(&path).unwrap(), Stored::Absent);
        fs::write(&path, "{\"name\": \"x\", \"value\": null}").unwrap();
        let Stored::Damaged(text) = read::<Small>(&path).unwrap() else { panic!("no digest") };
        assert!(text.contains("status.json: it was changed") && text.contains("does not end in its digest"), "{text}");
        // another version's keys, under a digest that is right
        write(&path, &serde_json::json!({"name": "x", "value": null, "latex": 3})).unwrap();
        let Stored::Damaged(text) = read::<Small>(&path).unwrap() else { panic!("an unknown key") };
        assert!(text.contains("latex"), "{text}");
    }
}
