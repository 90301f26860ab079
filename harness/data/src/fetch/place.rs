//! Puts a staged tree into the data directory: checked first, then moved, nothing overwritten.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::checksum::{Basis, measure};
use super::error::{FetchError, FetchResult};
use super::lock::Unpack;
use super::members::Member;
use super::paths::{SafePath, refuse_links};
use super::record::{FileRecord, modified_ns};

/// What became of the members.
pub struct Placed {
    /// Every member that is now in place, as a record.
    pub records: Vec<FileRecord>,
    /// Files beside the dataset's own whose present content differs from the archive's, and was kept.
    pub kept: Vec<SafePath>,
}

/// Moves the members below `staging` to their places below `data`.
///
/// # Errors
/// `Conflict` if a file with other content is in the way, `Missing` if the archive does not hold what the lock says it
/// creates; then nothing was moved.
pub fn place(
    data: &Path,
    rules: &Unpack,
    archive: (&str, Basis),
    staging: &Path,
    members: Vec<Member>,
    interrupt: &AtomicBool,
) -> FetchResult<Placed> {
    let mut paths = Vec::with_capacity(members.len());
    for member in &members {
        let path = rules.into.join(&member.path).map_err(|what| FetchError::Archive {
            archive: archive.0.into(),
            member: member.path.to_string(),
            what,
        })?;
        paths.push(path);
    }
    if let Some(absent) = rules.creates.iter().find(|c| !paths.iter().any(|p| p.is_in(c))) {
        let expected = format!("{} to hold it, as the lock file says", archive.0);
        return Err(FetchError::Missing { path: absent.below(data), expected });
    }
    let mut kept = Vec::new();
    for (member, path) in members.iter().zip(&paths) {
        let present = path.below(data);
        if !present.exists() || measure(&present, interrupt)? == member.measured {
            continue;
        }
        if rules.creates.iter().any(|c| path.is_in(c)) {
            return Err(FetchError::Conflict {
                path: present,
                expected: format!("the content of {} with sha256 {}", archive.0, member.measured.sha256),
                next: "move it away, or choose another data directory with --data; nothing was changed".into(),
            });
        }
        kept.push(path.clone());
    }
    for path in &paths {
        let folder = path.below(data);
        refuse_links(data, folder.parent().unwrap_or(data))?;
    }
    move_missing(staging, &rules.into.below(data))?;
    let mut records = Vec::with_capacity(members.len());
    for (member, path) in members.into_iter().zip(paths) {
        if !kept.contains(&path) {
            records.push(FileRecord {
                modified_ns: modified_ns(&path.below(data))?,
                path,
                bytes: member.measured.bytes,
                sha256: member.measured.sha256,
                basis: archive.1,
                archive: Some(archive.0.to_owned()),
                source: String::new(),
            });
        }
    }
    Ok(Placed { records, kept })
}

/// Renames whole folders where there is nothing, and goes into those that exist. Files that exist were compared before.
fn move_missing(from: &Path, to: &Path) -> FetchResult<()> {
    for entry in fs::read_dir(from).map_err(FetchError::io(from))? {
        let entry = entry.map_err(FetchError::io(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if !target.exists() {
            fs::rename(&source, &target).map_err(FetchError::io(&target))?;
        } else if source.is_dir() {
            move_missing(&source, &target)?;
        }
    }
    Ok(())
}
