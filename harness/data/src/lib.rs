//! Everything between the disk and the tasks: files, formats, datasets, features, and how data is fetched.
//!
//! | module | what it holds |
//! |---|---|
//! | [`account`] | what was not taken as it was found: skipped, repaired, missing |
//! | [`cache`] | where computed things are kept |
//! | [`files`] | hashes and locks |
//! | [`formats`] | FLAC, EDF(+) and WFDB |
//! | [`datasets`] | WikiText-103, LibriSpeech, CHB-MIT and PTB-XL, each with its layout, its reader and its generator |
//! | [`features`] | log-mel spectrograms, kept on disk |
//! | [`identity`] | whether data are the published dataset |
//! | [`fetch`] | downloads and imports by `datasets.lock`, and their verification |
//! | [`inspect`](mod@inspect) | what is in a file or folder |

/// Prints a line on standard error. A reader that goes away ends the printing and nothing else.
#[macro_export]
macro_rules! tell {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

pub mod account;
pub mod cache;
pub mod datasets;
pub mod error;
pub mod features;
pub mod fetch;
pub mod files;
mod folders;
pub mod formats;
pub mod identity;
pub mod inspect;
mod plain;
