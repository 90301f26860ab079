//! What lies in a folder of data, and what lies there that is none of it: companions that other systems leave beside files,
//! leftovers of killed processes, names that no dataset has, links in a circle.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::account::{Account, Kind};
use crate::error::{DataError, DataResult};
use crate::files::PARTIAL;
use crate::identity::MARKER;

/// Names that systems give to files and folders of their own, in small letters.
const OF_SYSTEMS: [&str; 12] = [
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "@eadir",
    "#recycle",
    "lost+found",
    "autorun.inf",
];

/// Something in a folder that may be of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    /// A folder, or a link to one.
    pub(crate) is_folder: bool,
}

/// What lies in a folder, by name. What is no part of any dataset is left out and enters `account` with its path below
/// `root`.
///
/// # Errors
/// `Io` if the system refuses to list the folder.
pub(crate) fn entries(folder: &Path, root: &Path, account: &mut Account) -> DataResult<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if entry.file_name() == MARKER {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(DataError::io(&path))?;
        let (mut is_folder, mut odd) = (kind.is_dir(), foreign(&entry.file_name()));
        if kind.is_symlink() && odd.is_none() {
            is_folder = path.is_dir();
            odd = (is_folder && leads_above(folder, &path)).then_some("a link to a folder that it lies in");
        }
        // to open one would wait for somebody who writes to it; a link that leads nowhere is an error where it is read
        let opens = kind.is_file() || is_folder || std::fs::metadata(&path).map_or(true, |target| target.is_file());
        if let Some(reason) = odd.or((!opens).then_some("neither a file nor a folder")) {
            account.add(Kind::Foreign, path.strip_prefix(root).unwrap_or(&path).display(), reason);
        } else if let Some(name) = entry.file_name().to_str() {
            found.push(Entry { name: name.to_owned(), path, is_folder });
        }
    }
    found.sort();
    Ok(found)
}

/// Why a name is none that a dataset has; `None` if it may be.
pub(crate) fn foreign(name: &OsStr) -> Option<&'static str> {
    let Some(name) = name.to_str() else { return Some("a name that is not UTF-8") };
    let lower = name.to_ascii_lowercase();
    let unfinished = [PARTIAL, ".part-"].iter().any(|part| lower.contains(part));
    if unfinished || [".part", ".part.json"].iter().any(|end| lower.ends_with(end)) {
        return Some("what a killed process left unfinished");
    }
    if name.starts_with('.') {
        return Some("a hidden file or folder");
    }
    if OF_SYSTEMS.contains(&lower.as_str()) || lower.ends_with('~') || lower.starts_with("~$") {
        return Some("a file that an operating system or editor left");
    }
    None
}

/// Whether a link in `folder` leads to that folder or to one above it: whoever followed it would not come back.
fn leads_above(folder: &Path, link: &Path) -> bool {
    match (folder.canonicalize(), link.canonicalize()) {
        (Ok(folder), Ok(target)) => folder.starts_with(target),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_dataset_has() {
        for name in ["._a.flac", ".DS_Store", "Thumbs.db", "DESKTOP.INI", "__MACOSX", "a.edf~", "@eaDir", ".a.part-0"] {
            assert!(foreign(OsStr::new(name)).is_some(), "{name}");
        }
        for name in ["a.flac.partial-17-0", "a.edf.part", "a.edf.part.json", ".LibriSpeech.part-3"] {
            assert!(foreign(OsStr::new(name)).unwrap().contains("killed"), "{name}");
        }
        for name in ["a.flac", "chb17b_69.edf", "chb02_16+.edf", "parts", "a.partial", "1272", "Ωmega.edf", "~a"] {
            assert_eq!(foreign(OsStr::new(name)), None, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_lies_there_is_found_and_the_rest_is_told() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let (root, inside) = (dir.path(), dir.path().join("a/b"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir(root.join("c")).unwrap();
        for name in
            [OsStr::new("x.edf"), OsStr::new("._x.edf"), OsStr::new("desktop.ini"), OsStr::from_bytes(b"y\xFF.edf")]
        {
            std::fs::write(inside.join(name), "x").unwrap();
        }
        for (target, name) in [
            ("..", "up"),
            (".", "self"),
            ("../../c", "aside"),
            ("x.edf", "z.edf"),
            ("gone", "gone.edf"),
            ("loop", "loop"),
        ] {
            symlink(target, inside.join(name)).unwrap();
        }
        let _socket = std::os::unix::net::UnixListener::bind(inside.join("s.edf")).unwrap();
        let mut account = Account::new();
        let found = entries(&inside, root, &mut account).unwrap();
        let names: Vec<(&str, bool)> = found.iter().map(|entry| (entry.name.as_str(), entry.is_folder)).collect();
        assert_eq!(names, [("aside", true), ("gone.edf", false), ("loop", false), ("x.edf", false), ("z.edf", false)]);
        let mut told: Vec<&str> = account.notices().iter().map(|notice| notice.place.as_str()).collect();
        told.sort_unstable();
        assert_eq!(told, ["a/b/._x.edf", "a/b/desktop.ini", "a/b/s.edf", "a/b/self", "a/b/up", "a/b/y\u{FFFD}.edf"]);
        assert!(entries(&root.join("nowhere"), root, &mut account).is_err());
    }
}
