//! Free room on the disk that holds the data directory.

use std::path::Path;
use std::sync::Arc;

use super::error::{FetchError, FetchResult};

/// Room that is left free whatever happens: a disk filled to the last byte breaks more than this program.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// While bytes stream in, room is asked for again after this many.
pub const CHECK_EVERY_BYTES: u64 = 64 << 20;

/// Asks how many bytes are free for the user at a path. A function so that tests can fill a disk.
#[derive(Clone)]
pub struct Room(Arc<FreeBytes>);

type FreeBytes = dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync;

impl Room {
    /// The system's answer (`statvfs`).
    #[must_use]
    pub fn of_system() -> Self {
        Self::from_fn(|path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
    }

    /// Any other answer.
    pub fn from_fn(free_bytes: impl Fn(&Path) -> std::io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(free_bytes))
    }

    /// Refuses unless `need_bytes` fit at `path` (or where its nearest existing parent is) with the reserve left over.
    ///
    /// # Errors
    /// [`FetchError::NoRoom`], or the system's refusal.
    pub fn require(&self, path: &Path, need_bytes: u64) -> FetchResult<()> {
        let folder = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
        let free_bytes = (self.0)(folder).map_err(FetchError::io(folder))?;
        let need_bytes = need_bytes.saturating_add(RESERVE_BYTES);
        if free_bytes < need_bytes {
            return Err(FetchError::NoRoom { path: path.to_owned(), need_bytes, free_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers_for_folders_that_do_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert!(matches!(Room::of_system().require(&deep, u64::MAX), Err(FetchError::NoRoom { .. })));
        let room = Room::from_fn(|_| Ok(RESERVE_BYTES + 10));
        assert!(room.require(&deep, 10).is_ok() && room.require(&deep, 11).is_err());
    }
}
