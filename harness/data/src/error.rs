//! What can be wrong with data, and where.

use std::path::{Path, PathBuf};

/// Where in a file something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The file as a whole.
    File,
    /// A line, from 1.
    Line(u64),
    /// A byte offset, from 0.
    Byte(u64),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(n) => write!(f, ":{n}"),
            Self::Byte(n) => write!(f, " at byte {n}"),
        }
    }
}

/// Data that is missing or not what it should be. The harness exits with 4.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder that must exist does not.
    #[error("{path}: not found\n  expected: {expected}\n  next: {next}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What the user can do.
        next: String,
    },
    /// A file whose content is wrong.
    #[error("{path}{at}: {got}\n  expected: {expected}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: At,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// The system refused to read or write.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl DataError {
    /// A wrong content.
    pub fn corrupt(path: &Path, at: At, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), at, expected: expected.into(), got: got.into() }
    }

    /// Wraps a system error with its path; to be used with `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Result of reading or writing data.
pub type DataResult<T> = Result<T, DataError>;
