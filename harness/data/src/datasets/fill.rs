//! Writing a generated dataset to a folder: whole or not at all.

use std::fs::{File, Metadata, TryLockError};
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
    write(&scratch.path)?;
    mark(&scratch.path)?;
    match std::fs::rename(&scratch.path, root) {
        // Another process may have been faster.
        Err(_) if in_place()? => Ok(()),
        renamed => renamed.map_err(DataError::io(root)),
    }
}

/// A folder that is removed with what is in it, unless it has been renamed. Its process holds its lock, so that others can tell it from
/// what a killed one left: who has the lock of the folder that is at the path may remove it, and nobody else.
struct Scratch {
    path: PathBuf,
    folder: File,
}

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
                Ok(()) => match Self::hold(path)? {
                    Some(scratch) => return Ok(scratch),
                    None => attempt += 1,
                },
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !remove_leftover(&path) {
                        attempt += 1;
                    }
                }
                Err(error) => return Err(DataError::io(&path)(error)),
            }
        }
    }

    /// Takes the folder that was just made; `None` if one that clears up took it for a leftover before it had a lock.
    fn hold(path: PathBuf) -> DataResult<Option<Self>> {
        let folder = match File::open(&path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io(&path)(error)),
        };
        Ok(Self::take(folder, path))
    }

    /// Takes the folder that was opened at a path, unless another holds it, or it is no longer the one there.
    fn take(folder: File, path: PathBuf) -> Option<Self> {
        // on a file system without locks nobody removes what may be somebody's
        let is_taken = matches!(folder.try_lock(), Err(TryLockError::WouldBlock));
        // a scratch that is not this process's must not come to be: dropping it would remove the folder
        if !is_taken && is_at(&folder, &path) { Some(Self { path, folder }) } else { None }
    }
}

/// Whether this open folder is the one at a path.
fn is_at(folder: &File, path: &Path) -> bool {
    #[cfg(unix)]
    let same = |a: &Metadata, b: &Metadata| {
        use std::os::unix::fs::MetadataExt;
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    };
    #[cfg(not(unix))]
    let same = |_: &Metadata, _: &Metadata| true;
    let there = std::fs::symlink_metadata(path).ok().filter(Metadata::is_dir);
    folder.metadata().ok().zip(there).is_some_and(|(a, b)| same(&a, &b))
}

/// Removes what a killed process left; false where it is somebody's, or cannot be removed.
fn remove_leftover(path: &Path) -> bool {
    File::open(path).is_ok_and(|folder| clear(&folder, path))
}

/// Removes the folder that was opened at a path, unless another holds it, or it is no longer the one there.
fn clear(folder: &File, path: &Path) -> bool {
    // a file system without locks tells nothing: then it stays; since it was opened, others may have removed it and made one of their own
    folder.try_lock().is_ok() && is_at(folder, path) && std::fs::remove_dir_all(path).is_ok()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a rename another may have made a folder by this name; after an error, that error is the one to report.
        if is_at(&self.folder, &self.path) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
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
        assert_eq!((first.path.clone(), first.path.join("half").exists()), (left(0), false));
        let second = Scratch::beside(&root).unwrap();
        assert_eq!((second.path.clone(), left(0).is_dir()), (left(1), true), "one that is being filled is not taken");
        drop((first, second));
        assert!(!left(0).exists() && !left(1).exists());
        fill(&root, "this", |_| true, |root| std::fs::write(root.join("x"), "y").map_err(DataError::io(root))).unwrap();
        assert!(root.join("x").is_file() && root.join(MARKER).is_file());
    }

    /// What happens between any two steps of one process: another one works on the same name.
    #[test]
    fn no_process_touches_what_another_has_made_by_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("d");
        let path = dir.path().join(".d.part-0");
        // one is about to clear up what another has just made: that one goes on to the next name
        std::fs::create_dir(&path).unwrap();
        let clearing = File::open(&path).unwrap();
        clearing.try_lock().unwrap();
        assert!(Scratch::hold(path.clone()).unwrap().is_none());
        drop(clearing);
        // it was cleared up, and a third made its own, before it was opened, or before it was locked
        let old = File::open(&path).unwrap();
        std::fs::remove_dir(&path).unwrap();
        assert!(Scratch::hold(path.clone()).unwrap().is_none(), "it is gone");
        std::fs::create_dir(&path).unwrap();
        assert!(!is_at(&old, &path) && is_at(&File::open(&path).unwrap(), &path));
        assert!(!clear(&old, &path) && path.is_dir(), "another's");
        assert!(Scratch::take(old, path.clone()).is_none() && path.is_dir(), "another's");
        // after a rename the name is free: whoever makes it then keeps it
        let first = Scratch::beside(&root).unwrap();
        std::fs::rename(&first.path, &root).unwrap();
        let second = Scratch::beside(&root).unwrap();
        std::fs::write(second.path.join("x"), "of the second").unwrap();
        assert_eq!(first.path, second.path);
        drop(first);
        assert!(second.path.join("x").is_file());
    }

    /// Many at once, each with a folder of its own until it drops it.
    #[test]
    fn many_at_once_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("d");
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let root = &root;
                scope.spawn(move || {
                    for round in 0..50 {
                        let scratch = Scratch::beside(root).unwrap();
                        let mine = scratch.path.join("mine");
                        std::fs::write(&mine, format!("{worker} {round}")).unwrap();
                        std::thread::yield_now();
                        assert_eq!(std::fs::read_to_string(&mine).unwrap(), format!("{worker} {round}"));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
