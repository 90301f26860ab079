//! A FLAC stream. What is decoded is encoded and decoded again.
#![no_main]

use std::path::Path;

use data::formats::flac;
use harness_fuzz::let_readers_catch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let_readers_catch();
    let Ok(audio) = flac::decode(data, Path::new("x.flac"), 0) else { return };
    let length = audio.channels.first().map_or(0, Vec::len);
    assert!(audio.channels.iter().all(|channel| channel.len() == length));
    let views: Vec<&[i32]> = audio.channels.iter().map(Vec::as_slice).collect();
    if length > 4096 {
        return; // long silences take long to encode
    }
    if let Ok(bytes) = flac::encode(&views, audio.rate_hz, audio.bits) {
        let again = flac::decode(&bytes, Path::new("x.flac"), 0).expect("what was encoded can be decoded");
        assert_eq!(again.channels, audio.channels);
    }
});
