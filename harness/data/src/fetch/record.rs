//! `DATA/.fetched/DATASET.jsonl`: one line per file that was put into the data directory and per archive that was
//! unpacked there. An archive's line comes after those of its members and says that all of them are in place.
//!
//! Lines are only ever appended, so a kill leaves at most one torn line at the end, which is cut off when the file is
//! next opened. Of several lines about one path the last counts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::checksum::{Basis, Md5Sum, Measured, Sha256Sum};
use super::error::{FetchError, FetchResult};
use super::paths::{SafePath, refuse_links};
use crate::files::Held;

/// Folder in the data directory for records and for archives that are being downloaded.
pub const FOLDER: &str = ".fetched";

/// A file in the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path in the data directory.
    pub path: SafePath,
    /// Length.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: Sha256Sum,
    /// Whether a publisher states this checksum, or that of the archive.
    pub basis: Basis,
    /// Name of the archive it was a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// Address, or path for what was imported; empty for a member, whose archive has a line of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Time of the file's last change, in nanoseconds since 1970: if neither it nor the length differs, the file need not
    /// be read again to know that it is in place.
    pub modified_ns: u64,
}

/// An archive whose members are all in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRecord {
    /// File name.
    pub archive: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: Sha256Sum,
    /// MD5.
    pub md5: Md5Sum,
    /// Whether a publisher states the checksum.
    pub basis: Basis,
    /// Address, or path for what was imported.
    pub source: String,
    /// Number of members that are files.
    pub files: u64,
    /// When it was unpacked, in seconds since 1970.
    pub at_s: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Archive(ArchiveRecord),
    File(FileRecord),
}

/// What is recorded about one dataset.
#[derive(Debug, Default)]
pub struct Records {
    /// Files by path.
    pub files: BTreeMap<SafePath, FileRecord>,
    /// Archives by file name.
    pub archives: BTreeMap<String, ArchiveRecord>,
}

impl Records {
    /// Reads what is recorded; nothing if there is no record. A torn last line is left out.
    ///
    /// # Errors
    /// With the line that is damaged.
    pub fn read(data: &Path, dataset: &str) -> FetchResult<Self> {
        let path = record_path(data, dataset);
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(FetchError::io(&path)(e)),
        };
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let mut records = Self::default();
        for (line, n) in text.get(..whole).unwrap_or_default().split(|&b| b == b'\n').zip(1_u64..) {
            if line.is_empty() {
                continue;
            }
            let line = serde_json::from_slice(line).map_err(|e| FetchError::Format {
                path: path.clone(),
                line: n,
                expected: "a record; delete the file to have everything checked and recorded again".into(),
                got: e.to_string(),
            })?;
            records.insert(line);
        }
        Ok(records)
    }

    fn insert(&mut self, line: Line) {
        match line {
            Line::File(f) => drop(self.files.insert(f.path.clone(), f)),
            Line::Archive(a) => drop(self.archives.insert(a.archive.clone(), a)),
        }
    }

    /// The files that came from an archive.
    pub fn members<'a>(&'a self, archive: &'a str) -> impl Iterator<Item = &'a FileRecord> {
        self.files.values().filter(move |f| f.archive.as_deref() == Some(archive))
    }
}

fn record_path(data: &Path, dataset: &str) -> PathBuf {
    data.join(FOLDER).join(format!("{dataset}.jsonl"))
}

/// Appends to the record of one dataset, from any thread.
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the record for appending, and makes it if need be.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(data: &Path, dataset: &str) -> FetchResult<Self> {
        let path = record_path(data, dataset);
        refuse_links(data, &path)?;
        fs::create_dir_all(data.join(FOLDER)).map_err(FetchError::io(&path))?;
        let file =
            OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(FetchError::io(&path))?;
        let text = fs::read(&path).map_err(FetchError::io(&path))?;
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(FetchError::io(&path))?;
        }
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// Records a file.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn file(&self, record: FileRecord) -> FetchResult<()> {
        self.append(&[Line::File(record)])
    }

    /// Records an archive after its members.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn archive(&self, members: Vec<FileRecord>, archive: ArchiveRecord) -> FetchResult<()> {
        let lines: Vec<Line> = members.into_iter().map(Line::File).chain([Line::Archive(archive)]).collect();
        self.append(&lines)
    }

    fn append(&self, lines: &[Line]) -> FetchResult<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|e| FetchError::io(&self.path)(e.into()))?;
            text.push(b'\n');
        }
        // A thread that panicked while it held the lock left at most a torn line, which readers leave out.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Not synced: a record that a power cut takes along is made again from the file it described.
        file.write_all(&text).map_err(FetchError::io(&self.path))
    }
}

/// Only one process at a time writes to a data directory.
///
/// # Errors
/// If another process holds it, or the system refuses.
pub fn lock_data(data: &Path) -> FetchResult<Held> {
    let folder = data.join(FOLDER);
    refuse_links(data, &folder.join("lock"))?;
    fs::create_dir_all(&folder).map_err(FetchError::io(&folder))?;
    let path = folder.join("lock");
    Held::take(&path).map_err(FetchError::io(&path))?.ok_or_else(|| {
        FetchError::Usage(format!(
            "{}: another `harness data` command is writing to this data directory\n  next: wait for it",
            data.display()
        ))
    })
}

/// Describes a file in the data directory.
///
/// # Errors
/// If it cannot be asked for.
pub fn file_record(data: &Path, path: &SafePath, m: &Measured, basis: Basis, source: &str) -> FetchResult<FileRecord> {
    let modified_ns = modified_ns(&path.below(data))?;
    let (path, source) = (path.clone(), source.to_owned());
    Ok(FileRecord { path, bytes: m.bytes, sha256: m.sha256, basis, archive: None, source, modified_ns })
}

/// A file's last change in nanoseconds since 1970.
///
/// # Errors
/// If the system refuses.
pub fn modified_ns(path: &Path) -> FetchResult<u64> {
    let modified = fs::metadata(path).and_then(|m| m.modified()).map_err(FetchError::io(path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Now, in seconds since 1970.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl FileRecord {
    /// Whether the file is there and looks as it did, by length and time of change.
    #[must_use]
    pub fn looks_unchanged(&self, data: &Path) -> bool {
        let path = self.path.below(data);
        let same_length = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == self.bytes);
        same_length && modified_ns(&path).is_ok_and(|ns| ns == self.modified_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::checksum::Hasher;

    #[test]
    fn a_torn_line_is_left_out_and_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let path = SafePath::new("d/a").unwrap();
        fs::create_dir_all(data.join("d")).unwrap();
        fs::write(data.join("d/a"), "").unwrap();
        let record = file_record(data, &path, &Hasher::default().measured(), Basis::Recorded, "s").unwrap();
        Journal::open(data, "d").unwrap().file(record.clone()).unwrap();
        let mut file = OpenOptions::new().append(true).open(record_path(data, "d")).unwrap();
        file.write_all(b"{\"path\": \"d/b").unwrap();
        assert_eq!(Records::read(data, "d").unwrap().files.len(), 1);
        let other = FileRecord { path: SafePath::new("d/c").unwrap(), ..record.clone() };
        Journal::open(data, "d").unwrap().file(other).unwrap();
        let records = Records::read(data, "d").unwrap();
        assert_eq!(records.files.keys().map(SafePath::as_str).collect::<Vec<_>>(), ["d/a", "d/c"]);
        assert!(record.looks_unchanged(data));
        fs::write(data.join("d/a"), "x").unwrap();
        assert!(!record.looks_unchanged(data));

        file.write_all(b"nonsense\n").unwrap();
        let error = Records::read(data, "d").unwrap_err().to_string();
        assert!(error.contains("d.jsonl:3"), "{error}");
    }

    #[test]
    fn two_writers_are_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_data(dir.path()).unwrap();
        assert!(matches!(lock_data(dir.path()), Err(FetchError::Usage(_))));
        drop(held);
        assert!(lock_data(dir.path()).is_ok());
    }
}
