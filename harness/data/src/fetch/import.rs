//! Takes files that the user already has, as publishers ship them, into the data directory: archives are verified and
//! unpacked, trees are verified as far as checksums are published and linked or copied. Nothing is overwritten.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::archive::Archive;
use super::checksum::{Basis, CHUNK_BYTES, Expected, Hasher, Measured, Sha256Sum, measure};
use super::error::{FetchError, FetchResult};
use super::lock::{Dataset, Form, Lock};
use super::partial::with_suffix;
use super::paths::{SafePath, refuse_links};
use super::plan::{self, Item, Place};
use super::record::{Journal, Records, file_record, lock_data};
use super::report::Report;
use super::transfer::Transfer;
use super::work::{is_recorded, read_list};
use crate::account::inert;

/// Deepest folder looked into below a dataset's root; the datasets themselves need four. It also ends loops of links.
const DEPTH_MAX: usize = 8;

/// How a file gets into the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A second name of the same file where the disk is the same, a copy elsewhere.
    HardLinkOrCopy,
    /// A copy.
    Copy,
    /// A symbolic link to the file where it is.
    SymbolicLink,
}

/// What to import, and where to.
pub struct Order<'a> {
    /// Where datasets come from.
    pub lock: &'a Lock,
    /// The data directory.
    pub data: &'a Path,
    /// Where the user's files are.
    pub from: &'a Path,
    /// Names of datasets; none: whatever is found of all.
    pub names: &'a [String],
    /// How.
    pub manner: Manner,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files that were verified and taken.
    pub verified: usize,
    /// Files that were taken, for which no checksum is published.
    pub unverified: usize,
    /// Files and archives that were there already.
    pub present: usize,
    /// Archives that were verified (as far as possible) and unpacked.
    pub archives: usize,
    /// What was not taken, and why.
    pub failed: Vec<(String, FetchError)>,
}

/// Imports.
///
/// # Errors
/// Wrong usage, nothing found, an interruption. Files that are refused are in the outcome.
pub fn import(order: &Order, transfer: &Transfer, report: &Report) -> FetchResult<Outcome> {
    if !order.from.is_dir() {
        let expected = "a folder with the datasets' files".to_owned();
        return Err(FetchError::Missing { path: order.from.to_owned(), expected });
    }
    let _held = lock_data(order.data)?;
    let mut outcome = Outcome::default();
    for dataset in order.lock.select(order.names)? {
        let found = import_dataset(order, dataset, transfer, report, &mut outcome)?;
        if !found && !order.names.is_empty() {
            let roots: Vec<String> = roots(order.from, dataset).iter().map(|r| r.display().to_string()).collect();
            let patterns: Vec<&str> = dataset.contents.iter().map(super::paths::PathPattern::as_str).collect();
            let expected =
                format!("archives of {}, or {} in one of {}", dataset.name(), patterns.join(", "), roots.join(", "));
            return Err(FetchError::Missing { path: order.from.to_owned(), expected });
        }
    }
    Ok(outcome)
}

/// Folders that may be the dataset's: as it is called here, as the publisher's tools leave it, or the given one itself.
fn roots(from: &Path, dataset: &Dataset) -> Vec<PathBuf> {
    let named = std::iter::once(&dataset.folder).chain(&dataset.known_as).map(|path| path.below(from));
    named.chain([from.to_owned()]).collect()
}

fn import_dataset(
    order: &Order,
    dataset: &Dataset,
    transfer: &Transfer,
    report: &Report,
    outcome: &mut Outcome,
) -> FetchResult<bool> {
    let journal = Journal::open(order.data, dataset.name())?;
    let mut found = false;
    for form in &dataset.forms {
        let records = Records::read(order.data, dataset.name())?;
        for item in plan::items(dataset, form, None, &records)? {
            let archive = order.from.join(&item.name);
            if matches!(item.place, Place::Archive(_)) && archive.is_file() {
                found = true;
                let result = import_archive(order, &item, &archive, &records, &journal, transfer, report);
                settle(result, &item.name, &item, report, outcome, |o| o.archives += 1)?;
            }
        }
    }
    let archives: Vec<&str> = archive_names(dataset).collect();
    for root in roots(order.from, dataset) {
        let mut files = files_of(&root, dataset)?;
        files.retain(|f| !archives.contains(&f.as_str()));
        if !files.is_empty() {
            import_tree(order, dataset, &root, files, &journal, transfer, report, outcome)?;
            return Ok(true);
        }
    }
    Ok(found)
}

fn archive_names(dataset: &Dataset) -> impl Iterator<Item = &str> {
    let entries = dataset.forms.iter().flat_map(|form| &form.files);
    entries.filter(|e| e.unpack.is_some()).map(|e| e.address().file_name())
}

/// Whether something was taken.
enum Taken {
    Now,
    Before,
}

fn settle(
    result: FetchResult<Taken>,
    name: &str,
    item: &Item,
    report: &Report,
    outcome: &mut Outcome,
    count: impl FnOnce(&mut Outcome),
) -> FetchResult<()> {
    match result {
        Ok(Taken::Now) => count(outcome),
        Ok(Taken::Before) => outcome.present += 1,
        Err(e @ (FetchError::Interrupted | FetchError::NoRoom { .. })) => return Err(e),
        Err(e) => {
            report.failed(item, &e);
            outcome.failed.push((name.to_owned(), e));
        }
    }
    Ok(())
}

fn import_archive(
    order: &Order,
    item: &Item,
    path: &Path,
    records: &Records,
    journal: &Journal,
    transfer: &Transfer,
    report: &Report,
) -> FetchResult<Taken> {
    let Place::Archive(rules) = &item.place else { return Ok(Taken::Before) };
    if is_recorded(order.data, item, records) {
        return Ok(Taken::Before);
    }
    let measured = measure(path, &transfer.interrupt)?;
    item.expected.check(&measured, &path.display().to_string(), "fetch it again; nothing was unpacked")?;
    if !item.expected.has_checksum() {
        report.notice(&format!("{}: no checksum is published; sha256 {} is recorded", item.name, measured.sha256));
    }
    transfer.room.require(order.data, rules.room_bytes)?;
    let source = path.display().to_string();
    let files =
        Archive { item, rules, path, measured, source }.into_place(order.data, records, journal, transfer, report)?;
    report.done(item, &format!("{files} files unpacked from {}", path.display()));
    Ok(Taken::Now)
}

/// The dataset's files below `root`, by their paths in it.
fn files_of(root: &Path, dataset: &Dataset) -> FetchResult<Vec<SafePath>> {
    let mut files = Vec::new();
    if root.is_dir() {
        walk(root, "", DEPTH_MAX, dataset, &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, depth: usize, dataset: &Dataset, files: &mut Vec<SafePath>) -> FetchResult<()> {
    for entry in fs::read_dir(folder).map_err(FetchError::io(folder))? {
        let entry = entry.map_err(FetchError::io(folder))?;
        let name = entry.file_name();
        // what is no portable name is no file of a dataset
        let Some(name) = name.to_str().filter(|n| !n.starts_with('.')) else { continue };
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        // through links: datasets often lie elsewhere
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if meta.is_dir() {
            if depth > 1 && dataset.contents.iter().any(|p| may_be_below(p.as_str(), &path)) {
                walk(&entry.path(), &path, depth - 1, dataset, files)?;
            }
        } else if meta.is_file() && dataset.contents.iter().any(|p| p.matches(&path)) {
            files.extend(SafePath::new(&path));
        }
    }
    Ok(())
}

/// Whether anything below the folder can fit the pattern, judged by as many components as the folder has.
fn may_be_below(pattern: &str, folder: &str) -> bool {
    let mut parts = pattern.split('/');
    for name in folder.split('/') {
        match parts.next() {
            Some("**") => return true,
            Some(part) if glob::Pattern::new(part).is_ok_and(|p| p.matches(name)) => {}
            _ => return false,
        }
    }
    parts.next().is_some()
}

fn import_tree(
    order: &Order,
    dataset: &Dataset,
    root: &Path,
    mut files: Vec<SafePath>,
    journal: &Journal,
    transfer: &Transfer,
    report: &Report,
    outcome: &mut Outcome,
) -> FetchResult<()> {
    let records = Records::read(order.data, dataset.name())?;
    let expected = expectations(order, dataset, root, &records, transfer, report)?;
    // the list first: what is imported after it is held against it the next time, too
    files.sort_by_key(|f| (!dataset.forms.iter().any(|form| is_list(dataset, form, f)), f.clone()));
    let from = fs::canonicalize(order.from).map_err(FetchError::io(order.from))?;
    let mut told = BTreeSet::new();
    for file in files {
        if transfer.interrupt.load(Ordering::Relaxed) {
            return Err(FetchError::Interrupted);
        }
        let to = dataset.folder.join(&file).map_err(FetchError::Usage)?;
        let known = expected.get(&to).copied().unwrap_or(Expected::UNKNOWN);
        let (name, place) = (file.to_string(), Place::File(to));
        let item = Item { dataset: dataset.name().to_owned(), name, sources: Vec::new(), expected: known, place };
        let place = file.below(root);
        let outside = fs::canonicalize(&place).ok().filter(|whole| !whole.starts_with(&from));
        if let Some(folder) = outside.as_ref().and_then(|whole| whole.parent())
            && told.insert(folder.to_owned())
        {
            let how = match order.manner {
                Manner::SymbolicLink => "linked to there, as you asked",
                Manner::HardLinkOrCopy | Manner::Copy => "copied",
            };
            report.notice(&format!(
                "{}: a link leads out of {}, to {}; what is there is {how}",
                inert(&place.display().to_string()),
                inert(&order.from.display().to_string()),
                inert(&folder.display().to_string())
            ));
        }
        let manner = match order.manner {
            Manner::HardLinkOrCopy if outside.is_some() => Manner::Copy,
            manner => manner,
        };
        let result = import_file(order, manner, &item, &place, &records, journal, transfer);
        settle(result, &item.name, &item, report, outcome, |o| {
            if known.has_checksum() && known.basis == Basis::Published { o.verified += 1 } else { o.unverified += 1 }
        })?;
    }
    Ok(())
}

fn is_list(dataset: &Dataset, form: &Form, file: &SafePath) -> bool {
    form.list.as_ref().is_some_and(|l| dataset.folder.join(file).as_ref() == Ok(&l.to))
}

/// What the lock file and its lists say of the dataset's files. A list is taken from the user's own files, if it is the
/// one that the lock file vouches for, or from the data directory.
fn expectations(
    order: &Order,
    dataset: &Dataset,
    root: &Path,
    records: &Records,
    transfer: &Transfer,
    report: &Report,
) -> FetchResult<HashMap<SafePath, Expected>> {
    let mut known = HashMap::new();
    for form in &dataset.forms {
        let mut list: Option<Vec<(SafePath, Sha256Sum)>> = None;
        if let Some(rules) = &form.list {
            let own = root.join(rules.to.name());
            let placed = rules.to.below(order.data);
            for path in [own, placed].iter().filter(|p| p.is_file()) {
                let measured = measure(path, &transfer.interrupt)?;
                if rules.sha256.is_some_and(|sum| sum != measured.sha256) {
                    report
                        .notice(&format!("{}: not the list that the lock file vouches for; not used", path.display()));
                    continue;
                }
                list = Some(read_list(path, rules)?);
                break;
            }
            if list.is_none() {
                report.notice(&format!(
                    "{}: no {}; the files it names cannot be verified",
                    dataset.name(),
                    rules.to.name()
                ));
            }
        }
        for item in plan::items(dataset, form, list.as_deref(), records)? {
            if let Place::File(path) = item.place
                && item.expected.has_checksum()
            {
                known.insert(path, item.expected);
            }
        }
    }
    Ok(known)
}

fn import_file(
    order: &Order,
    manner: Manner,
    item: &Item,
    from: &Path,
    records: &Records,
    journal: &Journal,
    transfer: &Transfer,
) -> FetchResult<Taken> {
    let Place::File(path) = &item.place else { return Ok(Taken::Before) };
    if is_recorded(order.data, item, records) {
        return Ok(Taken::Before);
    }
    let target = path.below(order.data);
    let measured = measure(from, &transfer.interrupt)?;
    item.expected.check(&measured, &from.display().to_string(), "fetch it again; it was not imported")?;
    let before = target.exists();
    if before {
        let present = measure(&target, &transfer.interrupt)?;
        if present != measured {
            return Err(FetchError::Conflict {
                path: target,
                expected: format!("the content of {} with sha256 {}", from.display(), measured.sha256),
                next: "move it away, or choose another data directory with --data; it was not changed".into(),
            });
        }
    } else {
        refuse_links(order.data, &target)?;
        refuse_links(order.data, &part_of(&target))?;
        bring(manner, from, &target, &measured, transfer)?;
    }
    let basis = item.expected.record_basis();
    journal.file(file_record(order.data, path, &measured, basis, &from.display().to_string())?)?;
    Ok(if before { Taken::Before } else { Taken::Now })
}

/// Makes `target` in one step.
fn bring(manner: Manner, from: &Path, target: &Path, measured: &Measured, transfer: &Transfer) -> FetchResult<()> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(FetchError::io(folder))?;
    }
    let whole = fs::canonicalize(from).map_err(FetchError::io(from))?;
    match manner {
        Manner::SymbolicLink => std::os::unix::fs::symlink(&whole, target).map_err(FetchError::io(target)),
        Manner::HardLinkOrCopy if fs::hard_link(&whole, target).is_ok() => Ok(()),
        Manner::HardLinkOrCopy | Manner::Copy => copy(&whole, target, measured, transfer),
    }
}

/// The copy beside `target` that is not yet whole.
fn part_of(target: &Path) -> std::path::PathBuf {
    with_suffix(target, ".part")
}

/// Copies beside the target and renames, if what was copied is what was measured.
fn copy(from: &Path, target: &Path, measured: &Measured, transfer: &Transfer) -> FetchResult<()> {
    use std::io::{Read, Write};
    transfer.room.require(target, measured.bytes)?;
    let part = part_of(target);
    let result = (|| {
        let mut input = fs::File::open(from).map_err(FetchError::io(from))?;
        let mut output = fs::File::create(&part).map_err(FetchError::io(&part))?;
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            if transfer.interrupt.load(Ordering::Relaxed) {
                return Err(FetchError::Interrupted);
            }
            let n = input.read(&mut chunk).map_err(FetchError::io(from))?;
            let bytes = chunk.get(..n).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            output.write_all(bytes).map_err(FetchError::io(&part))?;
        }
        let expected =
            Expected { bytes: Some(measured.bytes), sha256: Some(measured.sha256), md5: None, basis: Basis::Recorded };
        expected.check(&hasher.measured(), &from.display().to_string(), "it changed while it was read; try again")?;
        output.sync_all().map_err(FetchError::io(&part))?;
        fs::rename(&part, target).map_err(FetchError::io(target))
    })();
    if result.is_err() {
        // a copy can be made again at any time
        let _ = fs::remove_file(&part);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::may_be_below;

    #[test]
    fn only_folders_that_can_hold_files_are_entered() {
        assert!(may_be_below("chb*/*", "chb01") && !may_be_below("chb*/*", "other"));
        assert!(may_be_below("*/*/*/*.flac", "dev-clean/84") && !may_be_below("*/*/*.flac", "a/b/c"));
        assert!(may_be_below("records100/**/*", "records100/00000") && !may_be_below("*.csv", "records100"));
    }
}
