//! A token file: its words become ids, the ids text, and that text the same ids.
#![no_main]

use data::datasets::vocabulary::Vocabulary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(words) = Vocabulary::word(text) else { return };
    let encoded = words.encode(text).expect("it is UTF-8");
    assert_eq!(encoded.unknown, 0, "a vocabulary knows the text it was made from");
    assert!(encoded.ids.iter().all(|&id| (id as usize) < words.size()));
    let again = words.decode(&encoded.ids).expect("an id has its word");
    let second = Vocabulary::word(&again).expect("words are UTF-8");
    assert_eq!(second.encode(&again).expect("words are UTF-8").ids, encoded.ids);
});
