//! What is in a file or folder of data: channels, rates, units, samples, annotations, and a digest of the decoded
//! samples that other readers can be compared with.
//!
//! The digest of a recording is the SHA-256 of its digital samples as little-endian `i32`, each channel whole, then the
//! next; annotation channels of EDF+ are left out. That of a folder is the SHA-256 of the lines `DIGEST  PATH` of its
//! recordings (as `sha256sum` would print them), sorted by path.

mod dataset;
mod recording;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::account::{Account, Group, Kind};
use crate::error::{At, DataError, DataResult};
use crate::folders;
use crate::formats::wfdb::ANNOTATORS;

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// One recording.
    Recording(Recording),
    /// A file of annotations on its own.
    Annotations(Annotations),
    /// The text of a token file.
    Text(Part),
    /// A folder.
    Folder(Folder),
}

/// One recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recording {
    /// The file; a WFDB record's header. Relative to the folder, where it is reported as a part of one.
    pub path: PathBuf,
    /// `FLAC`, `EDF`, `EDF+C`, `EDF+D`, `WFDB`, or `WFDB layout` for a header that names signals without samples.
    pub format: &'static str,
    /// Duration of its samples in seconds, gaps within an EDF+D file left out; `None` if the file gives no rate.
    pub duration_s: Option<f64>,
    /// When it began, as the file writes it; empty where it does not say.
    pub start: String,
    /// Channels that hold samples.
    pub channels: Vec<Channel>,
    /// Annotations in the file and in files beside it.
    pub annotations: Vec<Annotations>,
    /// Digest of the samples.
    pub sha256: String,
    /// What was not taken as it stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<&'static str>,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Channel {
    /// Name or label.
    pub name: String,
    /// Physical unit; empty where the file gives none.
    pub unit: String,
    /// Samples per second, where the file gives a rate.
    pub rate_hz: Option<f64>,
    /// Number of samples.
    pub samples: u64,
    /// Digital steps per physical unit, where the file gives a scale; of the first segment, if segments differ.
    pub steps_per_unit: Option<f64>,
    /// Digital value of physical zero, likewise.
    pub at_zero: Option<f64>,
    /// Smallest digital sample, missing ones aside.
    pub lowest: Option<i32>,
    /// Largest digital sample.
    pub highest: Option<i32>,
    /// Samples that are marked as missing.
    pub missing: u64,
}

/// Annotations of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Annotations {
    /// Name of the file, or of the signals that hold them.
    pub source: String,
    /// How many.
    pub count: u64,
    /// When the first begins, in seconds from the start, where there is a rate; in EDF+ by onset.
    pub first_s: Option<f64>,
    /// When the last begins.
    pub last_s: Option<f64>,
    /// What they say and how often, the most frequent first: at most [`LABELS_SHOWN`] of them.
    pub labels: Vec<(String, u64)>,
    /// How many different labels there are.
    pub distinct: u64,
}

/// Labels of a source of annotations that are listed.
pub const LABELS_SHOWN: usize = 20;

/// A folder of recordings, or a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Name of the dataset whose layout it has, or `recordings`.
    pub layout: &'static str,
    /// Its parts: splits, folds or cases.
    pub parts: Vec<Part>,
    /// All recordings, by path.
    pub recordings: Vec<Recording>,
    /// Files that should be recordings and cannot be read, with the reason.
    pub problems: Vec<Problem>,
    /// Digest over the recordings' digests.
    pub sha256: String,
    /// What was not taken as it was found, or is no part of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Group>,
}

/// A part of a dataset, or a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What is known about it, in the order to be shown.
    #[serde(serialize_with = "as_map")]
    pub facts: Vec<(&'static str, Fact)>,
}

/// A number or text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fact {
    /// How many.
    Count(u64),
    /// How much.
    Number(f64),
    /// A text.
    Text(String),
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// The file, relative to the folder.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

fn as_map<S: Serializer>(facts: &[(&'static str, Fact)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(facts.iter().map(|(name, fact)| (name, fact)))
}

/// Folders within folders that are followed: a chain of links must end.
const DEEPEST: usize = 12;

/// Looks into a file or folder. A WFDB record may be named with or without `.hea`.
///
/// # Errors
/// [`DataError::Missing`] if there is nothing, [`DataError::Corrupt`] with the place if a file is none of the formats or
/// breaks its own, or a dataset's tables do; [`DataError::Io`] if the system refuses. Broken recordings in a folder are
/// [`Folder::problems`], not errors.
pub fn inspect(path: &Path) -> DataResult<Report> {
    if path.is_dir() {
        return folder(path).map(Report::Folder);
    }
    if path.is_file() {
        return file(path);
    }
    let header = with_suffix(path, ".hea");
    if header.is_file() {
        return recording::wfdb(&header).map(Report::Recording);
    }
    Err(DataError::Missing {
        path: path.to_owned(),
        expected: "a FLAC, EDF or WFDB recording, an annotation or token file, or a folder of such".into(),
        next: "check the path".into(),
    })
}

/// A path with something behind its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// A file, by its extension or by what it begins with.
fn file(path: &Path) -> DataResult<Report> {
    match extension(path).as_str() {
        "hea" => return recording::wfdb(path).map(Report::Recording),
        "tokens" => return dataset::token_file(path).map(Report::Text),
        annotator if ANNOTATORS.contains(&annotator) => {
            return recording::annotations(path, None).map(Report::Annotations);
        }
        _ => {}
    }
    match recording::by_content(path)? {
        Some(read) => read(path).map(Report::Recording),
        None => Err(DataError::corrupt(
            path,
            At::Byte(0),
            "FLAC, EDF(+), a WFDB header (.hea), an annotation file or a token file (.tokens)",
            "none of these",
        )),
    }
}

fn folder(root: &Path) -> DataResult<Folder> {
    let mut account = Account::new();
    let (layout, mut parts) = dataset::describe(root, &mut account)?;
    let mut files = Vec::new();
    recordings_below(root, root, 0, &mut files, &mut account)?;
    files.sort();
    let read: Vec<_> = files.par_iter().map(|path| (path, recording::read(path))).collect();
    let (mut recordings, mut problems) = (Vec::new(), Vec::new());
    for (path, result) in read {
        let relative = path.strip_prefix(root).unwrap_or(path).to_owned();
        match result {
            Ok(recording) => recordings.push(Recording { path: relative, ..recording }),
            Err(error) => problems.push(Problem { path: relative, message: error.to_string() }),
        }
    }
    dataset::add_durations(layout, &mut parts, &recordings);
    let lines = recordings.iter().map(|r| format!("{}  {}\n", r.sha256, r.path.display()));
    let sha256 = crate::files::sha256_hex(lines.collect::<Vec<_>>().concat().as_bytes());
    for recording in &recordings {
        for repair in &recording.repairs {
            account.add(Kind::Repaired, recording.path.display(), *repair);
        }
    }
    Ok(Folder { path: root.to_owned(), layout, parts, recordings, problems, sha256, notices: account.groups() })
}

/// Files with the extension of a recording.
fn recordings_below(
    folder: &Path,
    root: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    account: &mut Account,
) -> DataResult<()> {
    if depth > DEEPEST {
        let expected = format!("folders at most {DEEPEST} deep");
        return Err(DataError::corrupt(folder, At::File, expected, "more; perhaps links to each other"));
    }
    for entry in folders::entries(folder, root, account)? {
        if entry.is_folder {
            recordings_below(&entry.path, root, depth + 1, files, account)?;
        } else if matches!(extension(&entry.path).as_str(), "flac" | "edf" | "hea") {
            files.push(entry.path);
        }
    }
    Ok(())
}
