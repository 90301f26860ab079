//! Files: their hashes, and locks that one process at a time holds (a data directory while a command writes to it, a cell while
//! it is worked on).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

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
}
