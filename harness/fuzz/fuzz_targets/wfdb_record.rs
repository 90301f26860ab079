//! A WFDB record: its header, a signal file, a second header that may be a segment, another signal file. The parts are
//! separated by zero bytes, so that headers can be long and the last file holds any bytes.
#![no_main]

use std::path::Path;

use data::formats::wfdb;
use harness_fuzz::{Memory, let_readers_catch, split};
use libfuzzer_sys::fuzz_target;

/// Most samples that a record may decode to, whatever its size: the readers' own limits on gaps and on FLAC's silence.
const MOST_SAMPLES: usize = 1 << 30;

fuzz_target!(|data: &[u8]| {
    let_readers_catch();
    let parts: Vec<&[u8]> = split(data, 4).collect();
    // long gaps are allowed up to the reader's limit of 2^30 samples, and only cost time here; absurd ones are tried
    let long = |header: &&[u8]| header.split(|b| !b.is_ascii_digit()).any(|digits| (5..18).contains(&digits.len()));
    if parts.iter().step_by(2).any(long) {
        return;
    }
    let files = ["r.hea", "b.dat", "s.hea", "a.dat"].into_iter().zip(parts).collect();
    let Ok(record) = wfdb::read_record_from(&Memory(files), Path::new("r.hea")) else { return };
    let mut all = 0;
    for channel in &record.channels {
        assert_eq!(channel.digital.len(), record.frames * channel.samples_per_frame);
        assert_eq!(channel.physical().count(), channel.digital.len());
        all += channel.digital.len();
    }
    assert!(all <= MOST_SAMPLES, "{all} samples from {} bytes", data.len());
    assert_eq!(wfdb::digest(&record).len(), 64);
});
