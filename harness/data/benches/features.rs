//! Speed of log-mel extraction from FLAC files, against real time: `cargo bench -p harness --bench features -- [LibriSpeech
//! folder] [split] [threads]`. Without a folder, on generated speech.
//!
//! Prints how many seconds of audio a second of extraction covers: decoding alone, extraction into an empty cache, and
//! reading the cache.

use std::path::PathBuf;
use std::time::Instant;

use data::datasets::librispeech::generate::{SpeechSpec, generate};
use data::datasets::librispeech::{RATE_HZ, Split};
use data::error::DataResult;
use data::features::{Cache, LogMelConfig};
use data::formats::flac;
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cargo passes a flag of its own
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let threads = words.get(2).map_or(Ok(0), |word| word.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let dir = tempfile::tempdir()?;
    let (root, name) = if let Some(root) = words.first() {
        (PathBuf::from(root), words.get(1).map_or("test-clean", String::as_str))
    } else {
        let root = dir.path().join("LibriSpeech");
        generate(&root, &SpeechSpec { utterances: 600, seed: 1 })?;
        (root, "train-clean-100")
    };
    let split = Split::open(&root, name)?;
    let samples: u64 = split.utterances.iter().map(|u| u.samples).sum();
    let audio_s = samples as f64 / f64::from(RATE_HZ);
    let threads = rayon::current_num_threads();
    println!("{} utterances of {}, {audio_s:.0} s of audio, {threads} threads", split.utterances.len(), root.display());
    let timed = |what: &str, work: &dyn Fn() -> DataResult<()>| -> DataResult<()> {
        let start = Instant::now();
        work()?;
        let took_s = start.elapsed().as_secs_f64();
        println!("{what:<10} {took_s:7.3} s  {:8.0} × real time", audio_s / took_s);
        Ok(())
    };
    timed("decode", &|| split.utterances.par_iter().try_for_each(|u| flac::read(&u.path).map(drop)))?;
    let cache = Cache::new(&dir.path().join("cache"), LogMelConfig::default(), RATE_HZ);
    let load = || split.utterances.par_iter().try_for_each(|u| cache.load(&u.path, &u.content).map(drop));
    timed("extract", &load)?;
    timed("from cache", &load)?;
    Ok(())
}
