//! What the tests share: a data directory, a lock file, a patient transfer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use data::fetch::checksum::Hasher;
use data::fetch::client::Client;
use data::fetch::paths::PathPattern;
use data::fetch::report::Mode;
use data::fetch::report::Report;
use data::fetch::room::Room;
use data::fetch::transfer::{Patience, Transfer};
use data::fetch::work::{self, Order, Outcome};
use data::fetch::{FetchResult, Lock};
use tempfile::TempDir;

/// A data directory, and the transfer that fills it.
pub struct Bench {
    folder: TempDir,
    pub transfer: Transfer,
    pub keep_archives: bool,
}

/// Pseudorandom bytes (xorshift): they do not compress, and every offset is told from every other.
pub fn bytes(n: usize) -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    let mut step = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..n).map(|_| step()).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.measured().sha256.to_string()
}

pub fn md5(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.measured().md5.to_string()
}

/// The text of a lock file with one dataset `d` in the folder `d`, and this form.
pub fn lock_text(form: &str) -> String {
    format!(
        "schema = 2\n[[dataset]]\nname = \"d\"\nversion = \"1\"\nhomepage = \"https://h/\"\nlicence = \"l\"\ncitation = \
         \"c\"\nfolder = \"d\"\nsplits = [\"train\"]\ncontents = [\"*\", \"*/*\"]\nknown_as = [\"d-1.0\"]\n[[dataset.form]]\nname \
         = \"f\"\n{form}"
    )
}

/// A file of a lock file.
pub fn file(url: &str, to: &str, more: &str) -> String {
    format!("[[dataset.form.file]]\nurl = \"{url}\"\nto = \"{to}\"\n{more}\n")
}

/// An archive of a lock file.
pub fn archive(url: &str, format: &str, creates: &str, more: &str) -> String {
    format!(
        "[[dataset.form.file]]\nurl = \"{url}\"\n{more}\nunpack = {{ format = \"{format}\", into = \"d\", creates = \
         [\"{creates}\"], room_bytes = 100_000 }}\n"
    )
}

pub fn lock(form: &str) -> Lock {
    Lock::parse(Path::new("L"), &lock_text(form)).unwrap()
}

impl Bench {
    pub fn new() -> Self {
        let transfer = Transfer {
            client: Client::with(Duration::from_secs(5), None),
            room: Room::from_fn(|_| Ok(1 << 40)),
            patience: Patience {
                rounds: 3,
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(5),
            },
            hosts: Vec::new(),
            interrupt: Arc::new(AtomicBool::new(false)),
        };
        Self { folder: tempfile::tempdir().unwrap(), transfer, keep_archives: false }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    pub fn fetch_only(&self, lock: &Lock, only: &[&str]) -> FetchResult<Outcome> {
        let only: Vec<PathPattern> = only.iter().map(|p| PathPattern::try_from((*p).to_owned()).unwrap()).collect();
        let (data, keep_archives) = (self.data(), self.keep_archives);
        let order = Order { lock, data: &data, names: &[], form: None, only: &only, jobs: 2, keep_archives };
        work::fetch(&order, &self.transfer, &Report::new(Mode::Quiet))
    }

    pub fn fetch(&self, lock: &Lock) -> FetchResult<Outcome> {
        self.fetch_only(lock, &[])
    }

    /// The reason of the only failure.
    pub fn failure(&self, lock: &Lock) -> String {
        let outcome = self.fetch(lock).unwrap();
        assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
        outcome.failed[0].1.to_string()
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.data().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Every file below the data directory, without the records.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.data(), &self.data(), &mut files);
        files.retain(|f| f != ".fetched/lock" && f != ".fetched/d.jsonl");
        files.sort();
        files
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            walk(root, &entry.path(), files);
        } else {
            files.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
