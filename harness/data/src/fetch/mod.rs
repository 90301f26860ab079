//! Datasets by `datasets.lock`: fetched, verified, unpacked and imported, never half-written.
//!
//! ```text
//! datasets.lock → items → transfer (.part, resumed, hashed) → unpack (staging folder) → place (rename) → record
//! lock            plan    client, transfer, partial           unpack, members            place            record
//! ```
//!
//! | term | meaning |
//! |---|---|
//! | form | one of several ways to get the same dataset, such as an archive or single files; the first is the default |
//! | item | one thing to download: a file with its place in the data directory, or an archive with what it unpacks to |
//! | list | a publisher's `SHA256SUMS.txt`, fetched first and checked, which then names the files of a form |
//! | record | `DATA/.fetched/DATASET.jsonl`: what was put into the data directory, with the checksums it had then |
//! | basis | whether a checksum was published (lock or list) or only recorded when the file first came |
//!
//! What no publisher states stays unknown in the lock. On first fetch or import the checksum is recorded, with a notice,
//! and from then on the file is held against the record.

pub mod address;
pub mod archive;
pub mod checksum;
pub mod client;
pub mod error;
pub mod import;
pub mod list;
pub mod lock;
pub mod members;
pub mod partial;
pub mod paths;
pub mod place;
pub mod plan;
pub mod record;
pub mod report;
pub mod room;
pub mod sums;
pub mod transfer;
pub mod unpack;
pub mod verify;
pub mod work;

pub use error::{FetchError, FetchResult};
pub use lock::Lock;
