//! What can go wrong between a publisher's server and the data directory.

use std::path::{Path, PathBuf};

/// Why data could not be fetched, verified or imported.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The lock file or the command line is wrong; nothing was started.
    #[error("{0}")]
    Usage(String),
    /// A lock file that does not follow its schema.
    #[error("{path}: {message}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Line, column, the line itself, and what was expected.
        message: String,
    },
    /// A server answered with an error.
    #[error("{url}: the server answered {status}")]
    Status {
        /// The address asked for.
        url: String,
        /// HTTP status code.
        status: u16,
        /// Seconds after which the server wants to be asked again, if it says so.
        retry_after_s: Option<u64>,
    },
    /// No connection, or it broke.
    #[error("{url}: {message} (after {received_bytes} bytes)")]
    Network {
        /// The address asked for.
        url: String,
        /// What happened.
        message: String,
        /// Bytes that are safe on disk.
        received_bytes: u64,
    },
    /// The server's answer cannot be what was asked for.
    #[error("{url}: {got}\n  expected: {expected}")]
    Answer {
        /// The address asked for.
        url: String,
        /// What should have been answered.
        expected: String,
        /// What was answered.
        got: String,
    },
    /// Bytes that are not the published (or recorded) ones.
    #[error("{0}")]
    Checksum(Box<Mismatch>),
    /// Not enough room on the disk.
    #[error(
        "{path}: not enough room: {need_bytes} bytes are needed, {free_bytes} are free\n  next: free some, or choose \
         another data directory with --data"
    )]
    NoRoom {
        /// A folder on that disk.
        path: PathBuf,
        /// Bytes needed.
        need_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// An archive that must not be unpacked.
    #[error("{archive}: {member}: {what}; nothing was unpacked")]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// The member at fault.
        member: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another content is in the place of a file.
    #[error("{path}: there is a file with other content\n  expected: {expected}\n  next: {next}")]
    Conflict {
        /// The file that is in the way.
        path: PathBuf,
        /// What was to be there.
        expected: String,
        /// What the user can do.
        next: String,
    },
    /// A link where this program writes.
    #[error(
        "{path}: a link to {target}, which this program did not make: it would write there\n  expected: a folder or file of \
         the data directory itself\n  next: name the folder that it leads to with --data, or remove the link"
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file that should be there is not.
    #[error("{path}: not found\n  expected: {expected}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What should be there.
        expected: String,
    },
    /// Files that nothing vouches for: no checksum of them is published, and none was recorded.
    #[error(
        "{path}: nothing there has a checksum to be held against\n  expected: files whose checksums are \
         published or were recorded when they came\n  next: take them in from where they lie with `harness data import DIR`, which \
         records theirs, or fetch them with `harness data fetch`"
    )]
    Unvouched {
        /// The data directory.
        path: PathBuf,
    },
    /// A text file that is not in its format.
    #[error("{path}:{line}: {got}\n  expected: {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Every source failed.
    #[error("no source gave {name}\n{failures}\n  next: run the same command again to go on from where it stopped")]
    AllSources {
        /// What was to be downloaded.
        name: String,
        /// One paragraph per source.
        failures: String,
    },
    /// Stopped by the user; what was downloaded stays for the next time.
    #[error("interrupted; run the same command again to go on from where it stopped")]
    Interrupted,
}

/// A file that does not measure what it should.
#[derive(Debug, thiserror::Error)]
#[error("{path}: wrong {kind}\n  expected: {expected} ({basis})\n  got:      {got}\n  next: {next}")]
pub struct Mismatch {
    /// The file, or the address it came from.
    pub path: String,
    /// `sha256`, `md5` or `size`.
    pub kind: &'static str,
    /// The published or recorded value.
    pub expected: String,
    /// Where the expected value comes from.
    pub basis: String,
    /// The value found.
    pub got: String,
    /// What the user can do.
    pub next: String,
}

/// Result of fetching, verifying or importing.
pub type FetchResult<T> = Result<T, FetchError>;

impl FetchError {
    /// Wraps a system error with its path; to be used with `map_err`. A full disk becomes [`FetchError::NoRoom`].
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| {
            if source.kind() == std::io::ErrorKind::StorageFull {
                // How much more would have been needed is not known here.
                Self::NoRoom { path: path.to_owned(), need_bytes: 1, free_bytes: 0 }
            } else {
                Self::Io { path: path.to_owned(), source }
            }
        }
    }
}
