//! What tells how to fetch data: a lock file, a zero byte, a publisher's list of checksums.
#![no_main]

use std::path::Path;

use data::fetch::{lock::Lock, sums};
use harness_fuzz::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = split(data, 2).map(std::str::from_utf8);
    if let Some(Ok(text)) = parts.next() {
        let _ = Lock::parse(Path::new("datasets.lock"), text);
    }
    if let Some(Ok(text)) = parts.next() {
        let _ = sums::parse(Path::new("SHA256SUMS.txt"), text);
    }
});
