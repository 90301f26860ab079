//! Unpacks an archive into a staging folder beside its later place. Whatever is wrong with it, nothing of it is left.

mod tape;
mod zip;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::error::{FetchError, FetchResult};
use super::lock::{Format, Unpack};
use super::members::{Member, Staging};
use super::room::Room;

/// A staging folder, removed with all it holds when dropped.
pub struct StagingFolder(PathBuf);

impl StagingFolder {
    /// Makes it inside `into`, and removes what a killed process left of it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(into: &Path, archive_name: &str) -> FetchResult<Self> {
        let path = into.join(format!(".unpacking-{archive_name}"));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(FetchError::io(&path))?;
        }
        fs::create_dir_all(&path).map_err(FetchError::io(&path))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        // what cannot be removed now is removed by the next `create`
        let _ = fs::remove_dir_all(&self.0);
        if let Some(into) = self.0.parent() {
            // only if it is empty: then nothing was put there
            let _ = fs::remove_dir(into);
        }
    }
}

/// Unpacks all members below `staging`.
///
/// # Errors
/// `Archive` with the member that is damaged or not allowed; `NoRoom`, `Io`, `Interrupted`.
pub fn unpack(
    archive: &Path,
    rules: &Unpack,
    staging: &StagingFolder,
    room: &Room,
    interrupt: &AtomicBool,
) -> FetchResult<Vec<Member>> {
    let mut sink = Staging::new(archive, staging.path(), rules.room_bytes, room, interrupt);
    match rules.format {
        Format::TarGz => tape::read(archive, rules.room_bytes, &mut sink)?,
        Format::Zip => zip::read(archive, &mut sink)?,
    }
    sink.finish()
}
