//! An annotation file in the MIT format.
#![no_main]

use std::path::Path;

use data::formats::wfdb::parse_annotations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(all) = parse_annotations(Path::new("x.atr"), data) else { return };
    assert!(2 * all.len() < data.len());
    assert!(all.iter().all(|a| !a.mnemonic().is_empty() && a.code < 59));
});
