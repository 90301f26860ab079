//! Writing a generated dataset to a folder: whole or not at all.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{At, DataError, DataResult};
use crate::identity::{MARKER, mark};

/// Fills `root` by `write`, all at once: a scratch folder beside it is filled and renamed. Nothing is done where `is_this`
/// finds the dataset in place; a folder with anything else in it is an error, which says that `this` was expected. An empty
/// folder counts as nothing.
pub(crate) fn fill(
    root: &Path,
    this: &str,
    is_this: impl Fn(&Path) -> bool,
    write: impl FnOnce(&Path) -> DataResult<()>,
) -> DataResult<()> {
    let in_place = || {
        let got = match std::fs::read_dir(root).map(|mut inside| inside.next().is_some()) {
            Ok(true) if is_this(root) => return Ok(true),
            Ok(true) => "something else is in this folder",
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotADirectory => "no folder",
            Err(error) => return Err(DataError::io(root)(error)),
        };
        let expected = format!("nothing, or {this}; remove what is there or choose another place");
        Err(DataError::corrupt(root, At::File, expected, got))
    };
    if in_place()? {
        if !root.join(MARKER).is_file() {
            // of a version that did not mark; where that cannot be written, the configuration still says what it is
            let _ = mark(root);
        }
        return Ok(());
    }
    let scratch = Scratch::beside(root)?;
    write(&scratch.0)?;
    mark(&scratch.0)?;
    match std::fs::rename(&scratch.0, root) {
        // Another process may have been faster.
        Err(_) if in_place()? => Ok(()),
        renamed => renamed.map_err(DataError::io(root)),
    }
}

/// A folder that is removed with what is in it, unless it has been renamed. Its process holds its lock, so that others can tell it from
/// what a killed one left.
struct Scratch(PathBuf, Option<File>);

impl Scratch {
    fn beside(root: &Path) -> DataResult<Self> {
        let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(DataError::io(parent))?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        // Other processes may hold some of the names.
        let mut attempt = 0_u64;
        loop {
            let path = parent.join(format!(".{name}.part-{attempt}"));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
                    // between the two, one that clears up may have taken it for a leftover
                    if path.is_dir() {
                        return Ok(Self(path, lock));
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !remove_leftover(&path) {
                        attempt += 1;
                    }
                }
                Err(error) => return Err(DataError::io(&path)(error)),
            }
        }
    }
}

/// Removes what a killed process left; false where it is somebody's, or cannot be removed.
fn remove_leftover(path: &Path) -> bool {
    // a file system without locks tells nothing: then it stays
    let free = |folder: &File| folder.try_lock().is_ok();
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let folder = File::open(path).ok().filter(|_| is_folder).filter(free);
    folder.is_some() && std::fs::remove_dir_all(path).is_ok()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.1 = None;
        // After a rename there is nothing to remove; after an error, that error is the one to report.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_generator_left_goes_and_what_another_fills_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("d");
        let left = |n: usize| dir.path().join(format!(".d.part-{n}"));
        std::fs::create_dir(left(0)).unwrap();
        std::fs::write(left(0).join("half"), "of a file").unwrap();
        let first = Scratch::beside(&root).unwrap();
        assert_eq!((first.0.clone(), first.0.join("half").exists()), (left(0), false));
        let second = Scratch::beside(&root).unwrap();
        assert_eq!((second.0.clone(), left(0).is_dir()), (left(1), true), "one that is being filled is not taken");
        drop((first, second));
        assert!(!left(0).exists() && !left(1).exists());
        fill(&root, "this", |_| true, |root| std::fs::write(root.join("x"), "y").map_err(DataError::io(root))).unwrap();
        assert!(root.join("x").is_file() && root.join(MARKER).is_file());
    }
}
