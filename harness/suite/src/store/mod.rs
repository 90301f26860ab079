//! The run directory: every file is written beside its name and renamed when whole, so that a kill at any moment leaves
//! either the old file or the new one; and every file has a digest somewhere, so that damage is found.

mod checkpoint;
pub mod seal;
mod status;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use self::checkpoint::{Position, load_checkpoint};
use self::seal::Stored;
pub use self::status::{Cause, Outcome, Provenance, Status};
use crate::error::{Error, Result};
use data::error::DataError;
use data::files::{self, Held, sha256_hex};

/// Files of a finished cell that have a digest in `status.json`.
const FINISHED: [&str; 6] =
    ["config.yaml", "steps.parquet", "layers.parquet", "evals.parquet", "predictions.parquet", "spikes.parquet"];

/// Writes a whole file of a run.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write_whole(path, bytes).map_err(|e| match e {
        // what cannot be written is no fault of the data
        DataError::Io { path, source } => Error::Io { path, source },
        other => other.into(),
    })
}

/// Digests of files of a folder, by name.
fn digests(folder: &Path, names: &[&str]) -> Result<BTreeMap<String, String>> {
    let digest = |name: &&str| {
        let path = folder.join(name);
        Ok(((*name).to_owned(), sha256_hex(&fs::read(&path).map_err(Error::io(&path))?)))
    };
    names.iter().map(digest).collect()
}

/// The first file of a folder that is not what its digest says: what is wrong, with its path.
fn differs(folder: &Path, files: &BTreeMap<String, String>) -> Option<String> {
    files.iter().find_map(|(name, digest)| {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(bytes) if sha256_hex(&bytes) == *digest => None,
            Ok(_) => Some(format!("{}: it was changed after it was written: its digest is another", path.display())),
            Err(e) => Some(format!("{}: {e}", path.display())),
        }
    })
}

/// One cell's folder.
#[derive(Clone, Debug)]
pub struct CellDir {
    /// `RUN/cells/ID`.
    pub path: PathBuf,
}

impl CellDir {
    /// The folder of a cell, which may not be there.
    #[must_use]
    pub fn of(run: &Path, id: &str) -> Self {
        Self { path: run.join("cells").join(id) }
    }

    /// Opens (and makes) the folder of a cell.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(run: &Path, id: &str) -> Result<Self> {
        let dir = Self::of(run, id);
        fs::create_dir_all(&dir.path).map_err(Error::io(&dir.path))?;
        Ok(dir)
    }

    /// What became of the cell, as its `status.json` says.
    ///
    /// # Errors
    /// If the system refuses to read it.
    pub fn status(&self) -> Result<Stored<Status>> {
        let status = seal::read::<Status>(&self.path.join("status.json"))?;
        if let Stored::Whole(Status { cell, .. }) = &status
            && !self.is_of(cell)
        {
            return Ok(Stored::Damaged(format!("{}: it is of cell {cell}", self.path.join("status.json").display())));
        }
        Ok(status)
    }

    /// Whether this is the folder of a cell: files are copied now and then.
    fn is_of(&self, cell: &str) -> bool {
        self.path.file_name().is_some_and(|name| name == cell)
    }

    /// As [`CellDir::status`], with the finished files held against their digests.
    ///
    /// # Errors
    /// If the system refuses to read it.
    pub fn checked_status(&self) -> Result<Stored<Status>> {
        let status = self.status()?;
        if let Stored::Whole(Status { files, .. }) = &status
            && let Some(problem) = differs(&self.path, files)
        {
            return Ok(Stored::Damaged(problem));
        }
        Ok(status)
    }

    /// Records what became of it. Of a cell whose outcome is final the finished files get digests.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write_status(&self, status: &Status) -> Result<()> {
        let mut status = status.clone();
        if status.outcome.is_final() {
            let there: Vec<&str> = FINISHED.into_iter().filter(|name| self.path.join(name).exists()).collect();
            status.files = digests(&self.path, &there)?;
        }
        seal::write(&self.path.join("status.json"), &status)
    }

    /// Something that changes whenever `status.json` is written; `None` if there is none.
    #[must_use]
    pub fn status_mark(&self) -> Option<String> {
        fs::read(self.path.join("status.json")).ok().map(|bytes| sha256_hex(&bytes))
    }

    /// Whether something is stored that would be lost with the cell: an outcome or a checkpoint.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        ["status.json", "checkpoint", "checkpoint.previous"].iter().any(|name| self.path.join(name).exists())
    }

    /// Takes the cell for this process; `None` if another one works on it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lock(&self) -> Result<Option<Held>> {
        let path = self.path.join(".lock");
        Held::take(&path).map_err(Error::io(&path))
    }

    /// Appends a line to the cell's log.
    pub fn log(&self, line: &str) {
        let path = self.path.join("log.txt");
        // a log that cannot be written must not end the training it describes
        if let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}
