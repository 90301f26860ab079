//! The harness's readers, compiled from its own files, for the fuzz targets: everything they need and nothing else.

#![allow(dead_code, missing_docs, clippy::all)]

#[path = "../../src/datasets"]
pub mod datasets {
    pub mod chbmit;
    pub mod edf;
    pub mod error;
    pub mod flac;
    pub mod ptbxl;
    pub mod wfdb;

    /// The one function of it that the readers use; the rest needs Parquet.
    pub mod wikitext {
        pub fn sha256_hex(bytes: &[u8]) -> String {
            use sha2::Digest;
            sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
        }
    }

    #[path = "vocabulary"]
    pub mod vocabulary {
        pub mod word;

        /// Words of a text, its ids, how many of its words are unknown, and the text of the ids.
        pub fn round_trip(text: &str) -> (usize, Vec<u32>, u64, Vec<u8>) {
            let words = word::WordVocabulary::build(text);
            let (ids, unknown) = words.encode(text);
            let mut bytes = Vec::new();
            let known = ids.iter().all(|&id| words.append(id, &mut bytes).is_some());
            assert!(known, "an id without a word");
            (words.size(), ids, unknown, bytes)
        }
    }
}

#[path = "../../src/fetch"]
pub mod fetch {
    pub mod address;
    pub mod checksum;
    pub mod error;
    pub mod lock;
    pub mod paths;
    pub mod sums;

    pub use error::{FetchError, FetchResult};
}

/// What `fetch` needs of the program's errors.
pub mod error {
    pub mod exit {
        pub const DONE: u8 = 0;
        pub const SOME_FAILED: u8 = 1;
        pub const USAGE: u8 = 2;
        pub const DATA: u8 = 4;
        pub const INTERRUPTED: u8 = 130;
    }
}

use std::collections::BTreeMap;
use std::io::{Cursor, Error, ErrorKind, Result};
use std::path::Path;

/// Files in memory, by name.
pub struct Memory<'a>(pub BTreeMap<&'a str, &'a [u8]>);

impl datasets::wfdb::Files for Memory<'_> {
    fn open(&self, path: &Path) -> Result<(Box<dyn datasets::wfdb::Input + '_>, u64)> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = *self.0.get(name).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        Ok((Box::new(Cursor::new(bytes)), bytes.len() as u64))
    }
}

/// The parts of an input between zero bytes: the first `parts - 1` end at one, the last takes the rest.
pub fn split(data: &[u8], parts: usize) -> impl Iterator<Item = &[u8]> {
    data.splitn(parts, |&byte| byte == 0)
}

/// Calls `read` with a file that holds `data`, for readers that take a path; the file lies in memory where the system
/// has a place for that.
pub fn with_file<T>(data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let path = folder.join(format!("harness-fuzz-{}", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file can be written");
    let result = read(&path);
    std::fs::remove_file(&path).expect("it can be removed");
    result
}

/// Replaces the hook that ends the program at any panic, for readers that catch those of a library; a panic that is not
/// caught still ends it.
pub fn let_readers_catch() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
