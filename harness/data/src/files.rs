//! Files: whole or not at all, their hashes, and locks that one process at a time holds (a data directory while a command
//! writes to it, a cell while it is worked on).

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{DataError, DataResult};

/// Between a file's name and what tells its unfinished copies apart.
pub const PARTIAL: &str = ".partial-";

/// An unfinished copy that nobody has written to for so long is what a killed process left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A file that is written beside its name and takes the name when it is whole; dropped before that, it is removed. Any number of
/// processes and threads may write the same file: each has a copy of its own, and the last to finish wins.
#[derive(Debug)]
pub struct Partial {
    file: Option<File>,
    beside: PathBuf,
    path: PathBuf,
}

impl Partial {
    /// Begins the file `path`, whose folder must exist.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn create(path: &Path) -> DataResult<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!("{PARTIAL}{}-{number}", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(DataError::io(&beside))?;
        Ok(Self { file: Some(file), beside, path: path.to_owned() })
    }

    /// The file to write to: a handle of its own on the same file.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn file(&self) -> DataResult<File> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("it is finished"));
        file.and_then(File::try_clone).map_err(DataError::io(&self.beside))
    }

    /// Gives the file its name once its content is on the disk. That the name is there as well after a power cut is up to
    /// [`sync_folder`].
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn finish(mut self) -> DataResult<()> {
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(DataError::io(&self.beside))?;
        }
        self.rename()
    }

    fn rename(&self) -> DataResult<()> {
        fs::rename(&self.beside, &self.path).map_err(DataError::io(&self.path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // A copy that has taken its name is not there any more; and whoever failed says more than this could.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Removes what killed processes left of the file `path`. It reads the whole folder, so it is not for folders of many files.
pub fn remove_abandoned(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let left = entry.file_name();
        let is_copy = left.to_str().is_some_and(|left| left.strip_prefix(name).is_some_and(|l| l.starts_with(PARTIAL)));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_copy && age().is_some_and(|age| age > ABANDONED) {
            // Should another process have been faster, there is nothing to do.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a whole file that can be made again: beside its name, then renamed, with no wait for the disk.
///
/// # Errors
/// `Io` if the system refuses; what was there before is there still.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> DataResult<()> {
    let partial = Partial::create(path)?;
    partial.file()?.write_all(bytes).map_err(DataError::io(path))?;
    partial.rename()
}

/// Writes a whole file: beside its name, synced, renamed, and the renaming synced. What killed processes left of it is removed.
///
/// # Errors
/// `Io` if the system refuses; what was there before is there still.
pub fn write_whole(path: &Path, bytes: &[u8]) -> DataResult<()> {
    remove_abandoned(path);
    let partial = Partial::create(path)?;
    partial.file()?.write_all(bytes).map_err(DataError::io(path))?;
    partial.finish()?;
    sync_folder(path.parent().unwrap_or(path))
}

/// Makes renames and removals in a folder last.
///
/// # Errors
/// `Io` if the system refuses.
pub fn sync_folder(folder: &Path) -> DataResult<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(DataError::io(folder))
}

/// A lock on a file, given back when it is dropped. Closing the file would not be enough: a process that was started meanwhile
/// has a copy of every open file until it becomes the program it is to run, and the lock would stay with that copy.
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// Takes the lock of the file at `path`, which is made if it is not there; `None` if another process or thread has it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Takes a lock that any number may have at once, unless one has it alone; `None` if one has.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn share(path: &Path) -> io::Result<Option<Self>> {
        let file = File::create(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Takes the lock of the file at `path`, which is made if it is not there, and waits until it is free.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        file.lock()?;
        Ok(Self(file))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If the system refuses, the lock goes when the last copy of the file is closed.
        drop(self.0.unlock());
    }
}

/// Bytes as lower-case hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|half| char::from_digit(half.into(), 16)).collect()
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_gives_it_back_though_a_copy_of_the_file_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Held::take(&path).unwrap().unwrap();
        assert!(Held::take(&path).unwrap().is_none());
        let copy = held.0.try_clone().unwrap(); // as a process has it that is about to run another program
        drop(held);
        assert!(Held::take(&path).unwrap().is_some());
        drop(copy);
        assert!(Held::take(&dir.path().join("missing/lock")).is_err());
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        write_whole(&path, b"first").unwrap();
        let partial = Partial::create(&path).unwrap();
        partial.file().unwrap().write_all(b"half of the sec").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        drop(partial);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "an unfinished copy must be removed");
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        write_unsynced(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_whole(&dir.path().join("missing/x"), b"").unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn what_a_killed_process_left_goes_with_the_next_writing_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let names = ["a.json.partial-1-0", "a.json.partial-2-0", "ab.json.partial-1-0", "a.json.parts"];
        for name in names {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let old = std::time::SystemTime::now() - 2 * ABANDONED;
        for name in [names[0], names[2], names[3]] {
            File::options().write(true).open(dir.path().join(name)).unwrap().set_modified(old).unwrap();
        }
        write_whole(&path, b"whole").unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert_eq!(names.map(there), [false, true, true, true]);
    }
}
