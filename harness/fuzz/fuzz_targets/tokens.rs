//! A token file: its words become ids, the ids text, and that text the same ids.
#![no_main]

use harness_fuzz::datasets::vocabulary::round_trip;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (size, ids, unknown, bytes) = round_trip(text);
    assert_eq!(unknown, 0, "a vocabulary knows the text it was made from");
    assert!(ids.iter().all(|&id| (id as usize) < size));
    let again = String::from_utf8(bytes).expect("words are UTF-8");
    let (_, same, _, _) = round_trip(&again);
    assert_eq!(same, ids);
});
