//! SHA-256 of files that do not change from run to run: each is read once, and again when its size or times are others.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{DataError, DataResult};
use crate::files::{hex, write_unsynced};

/// Name in the cache folder.
const FILE: &str = "sha256.json";
/// A file that changed so recently may change again without another time: clocks of file systems tick slowly.
const FRESH: Duration = Duration::from_secs(2);
/// More bytes than this to read, and the user is told why it takes a while.
const TOLD_BYTES: u64 = 4 << 30;

/// Bytes that are hashed at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// What tells that a file is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970: last change of the content, and of the file's entry.
    modified_ns: i64,
    changed_ns: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    sha256: String,
}

/// Known SHA-256 by path, kept in a file of the cache folder.
pub struct Sums {
    file: PathBuf,
    read: AtomicU64,
}

impl Sums {
    /// Sums that are kept in the folder `cache`. Where that cannot be written they are computed each time.
    #[must_use]
    pub fn in_folder(cache: &Path) -> Self {
        Self { file: cache.join(FILE), read: AtomicU64::new(0) }
    }

    /// Bytes of files that had to be read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The SHA-256 of files in lower-case hexadecimal, in order; `None` for what is no file.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub fn of(&mut self, paths: &[PathBuf]) -> DataResult<Vec<Option<String>>> {
        let mut known = self.stored();
        let keys: Vec<Option<String>> = paths.iter().map(|path| key(path)).collect();
        let stamps: Vec<Option<Stamp>> = paths.iter().map(|path| stamp(path)).collect();
        let recall = |key: &Option<String>, now: &Stamp| {
            let found = key.as_ref().and_then(|key| known.get(key))?;
            (found.stamp == *now).then(|| found.sha256.clone())
        };
        let mut found: Vec<Option<String>> =
            keys.iter().zip(&stamps).map(|(key, now)| recall(key, now.as_ref()?)).collect();
        let unread: Vec<usize> = (0..paths.len()).filter(|&i| found[i].is_none() && stamps[i].is_some()).collect();
        let bytes: u64 = unread.iter().filter_map(|&i| stamps[i].as_ref()).map(|stamp| stamp.bytes).sum();
        if bytes > TOLD_BYTES {
            crate::tell!(
                "data: reading {} files, {:.1} GB, to hold them against published checksums; the next run will not",
                unread.len(),
                bytes as f64 / 1e9
            );
        }
        let sums: Vec<(usize, DataResult<String>)> =
            unread.into_par_iter().map(|i| (i, self.compute(&paths[i]))).collect();
        let mut learned = false;
        for (i, sum) in sums {
            let sum = sum?;
            // only what has stood still meanwhile and for a while
            if let (Some(key), Some(now)) = (&keys[i], stamp(&paths[i]))
                && stamps[i].as_ref() == Some(&now)
                && !is_fresh(&now)
            {
                known.insert(key.clone(), Known { stamp: now, sha256: sum.clone() });
                learned = true;
            }
            found[i] = Some(sum);
        }
        if learned {
            self.store(known);
        }
        Ok(found)
    }

    fn compute(&self, path: &Path) -> DataResult<String> {
        let mut file = std::fs::File::open(path).map_err(DataError::io(path))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let bytes = file.read(&mut buffer).map_err(DataError::io(path))?;
            if bytes == 0 {
                break;
            }
            hash.update(buffer.get(..bytes).unwrap_or_default());
            self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(hex(&hash.finalize()))
    }

    /// What is kept; nothing if that cannot be read.
    fn stored(&self) -> BTreeMap<String, Known> {
        std::fs::read(&self.file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps sums beside what others have kept meanwhile. It is no error if that cannot be done: they are computed again.
    fn store(&self, known: BTreeMap<String, Known>) {
        let mut all = self.stored();
        all.extend(known);
        if let (Some(folder), Ok(bytes)) = (self.file.parent(), serde_json::to_vec(&all)) {
            let _ = std::fs::create_dir_all(folder).map(|()| write_unsynced(&self.file, &bytes));
        }
    }
}

/// The path without links, as text: that of one that is no UTF-8 as hexadecimal behind two slashes, with which no other begins.
fn key(path: &Path) -> Option<String> {
    let whole = path.canonicalize().ok()?;
    Some(whole.to_str().map_or_else(|| format!("//{}", hex(whole.as_os_str().as_encoded_bytes())), str::to_owned))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    // a time that cannot be told, or is out of range, is the same each time
    let modified_ns = meta.modified().ok().and_then(since_1970).unwrap_or_default();
    #[cfg(unix)]
    let changed_ns = {
        use std::os::unix::fs::MetadataExt;
        meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed_ns = modified_ns;
    Some(Stamp { bytes: meta.len(), modified_ns, changed_ns })
}

/// Nanoseconds since 1970, below zero before it.
fn since_1970(time: SystemTime) -> Option<i64> {
    let after = time.duration_since(SystemTime::UNIX_EPOCH);
    after.map_or_else(
        |before| i64::try_from(before.duration().as_nanos()).map(|ns| -ns).ok(),
        |after| i64::try_from(after.as_nanos()).ok(),
    )
}

/// Whether a file may still change without another time.
fn is_fresh(stamp: &Stamp) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    let last = stamp.modified_ns.max(stamp.changed_ns);
    i128::from(last) + FRESH.as_nanos() as i128 > now as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until a file is no longer fresh.
    fn settle() {
        std::thread::sleep(FRESH + Duration::from_millis(50));
    }

    #[test]
    fn files_are_read_once_and_again_when_they_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let (path, cache) = (dir.path().join("a.edf"), dir.path().join("cache"));
        let paths = [path.clone(), dir.path().join("none"), dir.path().to_owned()];
        std::fs::write(&path, "one").unwrap();
        let sum_of = |text: &str| crate::files::sha256_hex(text.as_bytes());
        let ask = || {
            let mut sums = Sums::in_folder(&cache);
            let found = sums.of(&paths).unwrap();
            assert_eq!(found[1..], [None, None]);
            (found[0].clone().unwrap(), sums.bytes_read())
        };
        assert_eq!(ask(), (sum_of("one"), 3));
        assert_eq!(ask(), (sum_of("one"), 3), "a file that was just written is not trusted to stay");
        settle();
        assert_eq!((ask(), ask()), ((sum_of("one"), 3), (sum_of("one"), 0)));
        // other content of the same length and with the same time
        let times = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(times).unwrap();
        assert_eq!(ask(), (sum_of("two"), 3));
        std::fs::write(cache.join(FILE), "{").unwrap();
        assert_eq!(ask(), (sum_of("two"), 3), "a damaged cache is none");
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_and_times_before_1970_are_files_as_any_other() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(std::ffi::OsStr::from_bytes(b"EEG \xE9\xFF"));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("a.edf");
        std::fs::write(&path, "one").unwrap();
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400 * 365);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        settle();
        for read in [3, 0] {
            let mut sums = Sums::in_folder(&dir.path().join("cache"));
            assert_eq!(sums.of(std::slice::from_ref(&path)).unwrap(), [Some(crate::files::sha256_hex(b"one"))]);
            assert_eq!(sums.bytes_read(), read, "it is remembered");
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_costs_time_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let mut sums = Sums::in_folder(&path);
        assert_eq!(sums.of(&[path]).unwrap(), [Some(crate::files::sha256_hex(b"x"))]);
    }
}
