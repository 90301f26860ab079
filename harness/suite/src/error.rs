//! Errors of the program, each with its documented exit code.

use std::path::{Path, PathBuf};

use data::error::DataError;
use data::fetch::FetchError;
use grid::ConfigError;
use report::ReportError;

use crate::store::Cause;

/// Exit codes, as documented.
pub mod exit {
    /// All cells are done.
    pub const DONE: u8 = 0;
    /// Some cells failed; the rest are done and reported.
    pub const SOME_FAILED: u8 = 1;
    /// Wrong usage or configuration; nothing was started.
    pub const USAGE: u8 = 2;
    /// A run is worse than its baseline.
    pub const REGRESSION: u8 = 3;
    /// Data are missing or corrupt.
    pub const DATA: u8 = 4;
    /// Interrupted; a checkpoint was written.
    pub const INTERRUPTED: u8 = 130;
}

/// What ends the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong grid file.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A wrong command line or environment.
    #[error("error: {0}")]
    Usage(String),
    /// Missing or corrupt data.
    #[error("error: {0}")]
    Data(#[from] DataError),
    /// Data that could not be fetched, verified or imported.
    #[error("error: {0}")]
    Fetch(#[from] FetchError),
    /// A learner that cannot be built.
    #[error("error: {0}")]
    Learner(#[from] learner::Error),
    /// A setting of a cell that does not fit what it is used with.
    #[error("error: {of}: {key}: {problem}")]
    Setting {
        /// Whose it is, such as ``model `bim` ``.
        of: String,
        /// The key, such as `heads`.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The system refused.
    #[error("error: {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The report could not be rendered.
    #[error("error: {0}")]
    Report(String),
}

impl Error {
    /// Wraps a system error with its path; to be used with `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// An error of the disk while results are written is none of the data.
    #[must_use]
    pub fn of_output(self) -> Self {
        match self {
            Self::Data(DataError::Io { path, source }) => Self::Io { path, source },
            other => other,
        }
    }

    /// Who is to blame for a cell that ends with it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Config(_) | Self::Usage(_) | Self::Learner(_) | Self::Setting { .. } | Self::Report(_) => Cause::Own,
            Self::Data(_) | Self::Fetch(_) => Cause::Data,
            Self::Io { .. } => Cause::Resources,
        }
    }

    /// The documented exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Usage(_)
            | Self::Learner(_)
            | Self::Setting { .. }
            | Self::Fetch(FetchError::Usage(_) | FetchError::Lock { .. }) => exit::USAGE,
            Self::Fetch(FetchError::Interrupted) => exit::INTERRUPTED,
            Self::Data(_) | Self::Fetch(_) => exit::DATA,
            Self::Io { .. } | Self::Report(_) => exit::SOME_FAILED,
        }
    }
}

impl From<ReportError> for Error {
    fn from(e: ReportError) -> Self {
        match e {
            ReportError::Data(e) => Self::Data(e),
            other => Self::Report(other.to_string()),
        }
    }
}

/// Result of the program's operations.
pub type Result<T> = std::result::Result<T, Error>;
