//! What is written about recordings of CHB-MIT: a summary, a zero byte, an annotation file.
#![no_main]

use data::datasets::chbmit::{annotations, summary};
use harness_fuzz::{split, with_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = split(data, 2);
    if let Some(Ok(listed)) = parts.next().map(|text| with_file(text, summary::read)) {
        for file in &listed {
            assert!(!file.file.is_empty() && !file.file.contains('/'));
            assert!(file.seizures.iter().all(|seizure| seizure.start_s < seizure.end_s));
        }
    }
    if let Some(Ok(seizures)) = parts.next().map(|bytes| with_file(bytes, |path| annotations::read(path, 256.0))) {
        assert!(seizures.iter().all(|seizure| seizure.start_s < seizure.end_s));
    }
});
