//! From a form of a dataset to the things to download: archives, files, and the files that a list names.

use std::collections::HashMap;
use std::path::Path;

use super::checksum::{Basis, Expected, Sha256Sum};
use super::error::{FetchError, FetchResult, Mismatch};
use super::lock::{Dataset, Form, List, Unpack};
use super::paths::{PathPattern, SafePath};
use super::record::{FOLDER, Records};
use super::sums;

/// One thing to download.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name of its dataset.
    pub dataset: String,
    /// Archive: its file name. File: its path in the dataset's folder.
    pub name: String,
    /// Addresses, in the order in which they are tried.
    pub sources: Vec<String>,
    /// What it should measure: as published, or else as recorded when it first came.
    pub expected: Expected,
    /// Where it goes.
    pub place: Place,
}

/// Where an item goes.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of the data directory.
    File(SafePath),
    /// Unpacked into the data directory.
    Archive(Unpack),
}

impl Item {
    /// Where its bytes are downloaded to.
    ///
    /// # Errors
    /// If the name cannot be a path; the lock file's check rules it out.
    pub fn target(&self) -> FetchResult<SafePath> {
        match &self.place {
            Place::File(path) => Ok(path.clone()),
            Place::Archive(_) => {
                SafePath::new(&format!("{FOLDER}/archives/{}/{}", self.dataset, self.name)).map_err(FetchError::Usage)
            }
        }
    }

    /// Whether one of the patterns fits its name or its path in the data directory.
    #[must_use]
    pub fn fits(&self, only: &[PathPattern]) -> bool {
        let path = match &self.place {
            Place::File(path) => Some(path.as_str()),
            Place::Archive(_) => None,
        };
        only.is_empty() || only.iter().any(|p| p.matches(&self.name) || path.is_some_and(|path| p.matches(path)))
    }
}

/// The list itself, as an item.
#[must_use]
pub fn list_item(dataset: &Dataset, list: &List, records: &Records) -> Item {
    let published = Expected { sha256: list.sha256, ..Expected::UNKNOWN };
    Item {
        dataset: dataset.name().to_owned(),
        name: name_in(&dataset.folder, &list.to),
        sources: vec![list.url.as_str().to_owned()],
        expected: or_recorded(published, &list.to, records),
        place: Place::File(list.to.clone()),
    }
}

/// All items of a form, the list itself included. `list` is its text, and must be given if the form has one.
///
/// # Errors
/// If the list is damaged, or disagrees with the lock file.
pub fn items(
    dataset: &Dataset,
    form: &Form,
    list: Option<&[(SafePath, Sha256Sum)]>,
    records: &Records,
) -> FetchResult<Vec<Item>> {
    let mut items = Vec::new();
    if let Some(rules) = &form.list {
        items.push(list_item(dataset, rules, records));
    }
    let mut places: HashMap<SafePath, usize> = HashMap::new();
    for entry in &form.files {
        let (name, place, expected) = match (&entry.to, &entry.unpack) {
            (Some(to), _) => {
                (name_in(&dataset.folder, to), Place::File(to.clone()), or_recorded(entry.expected(), to, records))
            }
            (None, Some(unpack)) => {
                let name = entry.address().file_name().to_owned();
                let expected = archive_expected(entry.expected(), &name, records);
                (name, Place::Archive(unpack.clone()), expected)
            }
            // ruled out when the lock file was read
            (None, None) => continue,
        };
        if let Place::File(path) = &place {
            places.insert(path.clone(), items.len());
        }
        items.push(Item { dataset: dataset.name().to_owned(), name, sources: entry.sources(), expected, place });
    }
    let Some(rules) = &form.list else { return Ok(items) };
    for (path, sha256) in list.unwrap_or_default() {
        let to = dataset.folder.join(path).map_err(|e| FetchError::Usage(format!("{}: {e}", rules.to)))?;
        if let Some(item) = places.get(&to).and_then(|&i| items.get_mut(i)) {
            agree(item, *sha256, rules)?;
            continue;
        }
        items.push(Item {
            dataset: dataset.name().to_owned(),
            name: path.as_str().to_owned(),
            sources: rules.bases.iter().map(|base| base.below(path)).collect(),
            expected: Expected { sha256: Some(*sha256), basis: list_basis(rules), ..Expected::UNKNOWN },
            place: Place::File(to),
        });
    }
    Ok(items)
}

/// A list that the lock file does not vouch for is only as good as what was recorded when it came.
fn list_basis(rules: &List) -> Basis {
    if rules.sha256.is_some() { Basis::Published } else { Basis::Recorded }
}

/// The lock file and the publisher's list must not contradict each other.
fn agree(item: &mut Item, listed: Sha256Sum, rules: &List) -> FetchResult<()> {
    match item.expected.sha256 {
        Some(locked) if locked != listed && item.expected.basis == Basis::Published => {
            Err(FetchError::Checksum(Box::new(Mismatch {
                path: item.name.clone(),
                kind: "sha256",
                expected: locked.to_string(),
                basis: "the lock file".into(),
                got: format!("{listed} (in {})", rules.to),
                next: "the publisher may have changed the file without a new version; report it".into(),
            })))
        }
        _ => {
            let locked = item.expected.sha256.is_some() && item.expected.basis == Basis::Published;
            let basis = if locked { Basis::Published } else { list_basis(rules) };
            (item.expected.sha256, item.expected.basis) = (Some(listed), basis);
            Ok(())
        }
    }
}

/// Reads the text of a list and holds it against what the lock file says of it.
///
/// # Errors
/// If it is damaged, or has another number of files.
pub fn parse_list(path: &Path, text: &str, rules: &List) -> FetchResult<Vec<(SafePath, Sha256Sum)>> {
    let entries = sums::parse(path, text)?;
    match rules.files {
        Some(files) if files != entries.len() as u64 => Err(FetchError::Format {
            path: path.to_owned(),
            line: entries.len() as u64,
            expected: format!("{files} files, as the lock file says"),
            got: format!("{} files", entries.len()),
        }),
        _ => Ok(entries),
    }
}

/// What is published; where no checksum is, what was recorded.
fn or_recorded(published: Expected, path: &SafePath, records: &Records) -> Expected {
    match records.files.get(path) {
        Some(record) if !published.has_checksum() => {
            Expected { bytes: Some(record.bytes), sha256: Some(record.sha256), md5: None, basis: Basis::Recorded }
        }
        _ => published,
    }
}

fn archive_expected(published: Expected, name: &str, records: &Records) -> Expected {
    match records.archives.get(name) {
        Some(record) if !published.has_checksum() => {
            Expected { bytes: Some(record.bytes), sha256: Some(record.sha256), md5: None, basis: Basis::Recorded }
        }
        _ => published,
    }
}

/// A path as it is called inside the dataset's folder.
fn name_in(folder: &SafePath, path: &SafePath) -> String {
    let inside = path.as_str().strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/'));
    inside.unwrap_or(path.as_str()).to_owned()
}

/// Keeps the items that fit the patterns.
///
/// # Errors
/// If none does.
pub fn choose(items: Vec<Item>, only: &[PathPattern]) -> FetchResult<Vec<Item>> {
    let shown: Vec<String> = items.iter().take(3).map(|i| i.name.clone()).collect();
    let chosen: Vec<Item> = items.into_iter().filter(|i| i.fits(only)).collect();
    if chosen.is_empty() {
        let patterns: Vec<&str> = only.iter().map(PathPattern::as_str).collect();
        let message = format!(
            "nothing fits --only {}\n  expected: names such as {}\n  next: `*` stays within a folder, `**/` crosses \
             them",
            patterns.join(","),
            shown.join(", ")
        );
        return Err(FetchError::Usage(message));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::lock::Lock;

    fn lock(list_sum: &str, file_sum: &str) -> Lock {
        let text = format!(
            "schema = 2\n[[dataset]]\nname = \"d\"\nversion = \"1\"\nhomepage = \"https://h/\"\nlicence = \"l\"\ncitation = \
             \"c\"\nfolder = \"d\"\nsplits = []\ncontents = [\"*\"]\n[[dataset.form]]\nname = \"f\"\n[dataset.form.list]\nurl = \
             \"https://h/S\"\nto = \"d/S\"\nfiles = 2\nbases = [\"https://a/\", \"https://b/\"]\n{list_sum}\n\
             [[dataset.form.file]]\nurl = \"https://h/x\"\nto = \"d/x\"\n{file_sum}\n"
        );
        Lock::parse(Path::new("L"), &text).unwrap()
    }

    #[test]
    fn a_list_names_files_and_vouches_for_those_of_the_lock() {
        let (ones, twos) = ("11".repeat(32), "22".repeat(32));
        let text = format!("{ones} x\n{twos} a/y+\n");
        let lock_file = lock("", "");
        let dataset = &lock_file.datasets[0];
        let form = dataset.form(None).unwrap();
        let list = parse_list(Path::new("S"), &text, form.list.as_ref().unwrap()).unwrap();
        let items = items(dataset, form, Some(&list), &Records::default()).unwrap();
        let names: Vec<&str> = items.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["S", "x", "a/y+"]);
        assert_eq!(items[1].expected.sha256.unwrap().to_string(), ones);
        assert_eq!(items[2].sources, ["https://a/a/y%2B", "https://b/a/y%2B"]);
        assert_eq!(items[2].target().unwrap().as_str(), "d/a/y+");

        let only = |p: &str| vec![PathPattern::try_from(p.to_owned()).unwrap()];
        assert_eq!(choose(items.clone(), &only("a/*")).unwrap().len(), 1);
        assert_eq!(choose(items.clone(), &only("d/**/*")).unwrap().len(), 3);
        assert!(choose(items, &only("z*")).unwrap_err().to_string().contains("--only z*"));

        let other = lock("", &format!("sha256 = \"{twos}\""));
        let dataset = &other.datasets[0];
        let error = super::items(dataset, &dataset.forms[0], Some(&list), &Records::default()).unwrap_err();
        assert!(error.to_string().contains("the lock file"), "{error}");
        assert!(parse_list(Path::new("S"), &format!("{ones} x\n"), form.list.as_ref().unwrap()).is_err());
    }
}
