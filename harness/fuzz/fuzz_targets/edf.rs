//! An EDF or EDF+ file: header, times, annotations and all samples.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use data::formats::edf::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::new(Path::new("x.edf"), Cursor::new(data), data.len() as u64) else { return };
    let _ = reader.record_starts_s();
    let _ = reader.annotations();
    let (records, signals) = (reader.header().records, reader.header().data_signals());
    let samples = reader.read_records(0..records, &signals).expect("the header was checked against the file's size");
    let read: usize = samples.iter().map(Vec::len).sum();
    assert!(2 * read <= data.len(), "{read} samples from {} bytes", data.len());
    if let Some(&signal) = signals.last() {
        let _ = reader.read_samples(signal, 1..5);
    }
    reader.digest().expect("its samples were read");
});
