//! Where a record's files come from: a folder on disk, or anything that gives bytes for a path.

use std::fs::File;
use std::io::{Error, Read, Result, Seek};
use std::path::Path;

/// What can be read from any place on.
pub trait Input: Read + Seek {}

impl<T: Read + Seek> Input for T {}

/// A source of files.
pub trait Files {
    /// Opens a file: its content from the start, and its length in bytes.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, otherwise what the system says.
    fn open(&self, path: &Path) -> Result<(Box<dyn Input + '_>, u64)>;
}

/// The file system.
pub(super) struct Disk;

impl Files for Disk {
    fn open(&self, path: &Path) -> Result<(Box<dyn Input + '_>, u64)> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Error::other("not a regular file"));
        }
        Ok((Box::new(file), meta.len()))
    }
}
