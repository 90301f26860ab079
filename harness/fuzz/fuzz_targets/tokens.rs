//! A token file: its text is read once and for all, its words become ids, the ids text, and that text the same ids.
#![no_main]

use std::path::Path;

use data::account::Account;
use data::datasets::vocabulary::Vocabulary;
use data::datasets::wikitext::mend;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let path = Path::new("wiki.test.tokens");
    if let Ok(mended) = mend(path, text.to_vec(), &mut Account::new()) {
        assert!(mended.ends_with('\n') && !mended.contains("\r\n") && !mended.contains('\0'));
        let mut account = Account::new();
        assert_eq!(mend(path, mended.clone().into_bytes(), &mut account).expect("it was read before"), mended);
        assert!(account.notices().is_empty(), "what was mended needs no mending");
    }
    let Ok(words) = Vocabulary::word(text) else { return };
    let encoded = words.encode(text).expect("it is UTF-8");
    assert_eq!(encoded.unknown, 0, "a vocabulary knows the text it was made from");
    assert!(encoded.ids.iter().all(|&id| (id as usize) < words.size()));
    let again = words.decode(&encoded.ids).expect("an id has its word");
    let second = Vocabulary::word(&again).expect("words are UTF-8");
    assert_eq!(second.encode(&again).expect("words are UTF-8").ids, encoded.ids);
});
