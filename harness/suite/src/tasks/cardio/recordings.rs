//! The recordings of the chosen folds: in memory as stored if they fit, read again for each use if not.
//!
//! Either way the numbers are the same. A first pass over all signals makes the fingerprint and the statistics for
//! normalising; it holds a few hundred recordings at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::drift::Condition;
use crate::measure::allocator;
use crate::tasks::Part;
use data::account::{Account, Kind};
use data::datasets::ptbxl::{self, Ecg, Labelling, PtbXl, Rate};
use data::error::{At, DataError, DataResult};

/// Leads of a standard ECG.
pub(super) const LEADS: usize = ptbxl::LEADS.len();
/// Signals that take more than this are read as they are needed: all of PTB-XL takes 0.5 GB at 100 Hz and 2.6 GB at
/// 500 Hz. A constant, not the machine's memory, so that memory measured on one machine compares with another's.
pub(super) const HELD_BYTES: usize = 1 << 30;
/// Recordings decoded at once in the first pass: 30 MB at 500 Hz.
const CHUNK: usize = 256;
/// Smallest standard deviation in millivolts: a lead without signal stays without.
const MIN_DEVIATION: f64 = 1e-6;

/// One recording.
pub(super) struct Recording {
    /// Its `ecg_id`.
    pub(super) id: u32,
    /// Which classes it has.
    pub(super) labels: Vec<bool>,
    /// Place in the dataset's list.
    index: usize,
    /// The signal, where signals are held.
    held: Option<Arc<Ecg>>,
    /// Digest of the signal, where it is read again: it must not have changed.
    digest: u64,
}

/// The recordings of three parts.
pub(super) struct Recordings {
    data: PtbXl,
    rate: Rate,
    parts: [Vec<Recording>; 3],
    /// Per lead.
    mean: [f64; LEADS],
    /// One over the standard deviation, per lead.
    scale: [f64; LEADS],
    fingerprint: String,
    /// What was not taken as it was found; its items are the recordings of the chosen folds.
    account: Account,
}

impl Recordings {
    /// Reads the folds of the three parts once, and holds their signals if they take at most `held_bytes`.
    pub(super) fn open(
        root: &Path,
        labelling: Labelling,
        rate: Rate,
        folds: [&Vec<u8>; 3],
        held_bytes: usize,
    ) -> DataResult<Self> {
        let data = PtbXl::open_with(root, labelling)?;
        let absent: std::collections::HashSet<usize> = data.missing(rate).into_iter().collect();
        let mut account = data.account().clone();
        let mut chosen: [Vec<usize>; 3] = Default::default();
        for (chosen, folds) in chosen.iter_mut().zip(folds) {
            let listed = data.select(folds);
            chosen.extend(listed.iter().filter(|&index| !absent.contains(index)));
            account.expect(listed.len() as u64);
            for entry in listed.iter().filter(|index| absent.contains(index)).filter_map(|&i| data.entries().get(i)) {
                account.add(Kind::Missing, entry.filename(rate), "its header or signal file is not there");
            }
            if chosen.is_empty() {
                return Err(DataError::corrupt(
                    &root.join(ptbxl::DATABASE),
                    At::File,
                    format!("recordings with strat_fold {}, a label of the set and a signal file", listed_folds(folds)),
                    "none",
                ));
            }
        }
        let bytes = chosen.iter().map(Vec::len).sum::<usize>() * rate.samples() * LEADS * size_of::<i16>();
        let pass = FirstPass { hold: bytes <= held_bytes, ..FirstPass::new(&data, rate)? };
        pass.run(&chosen).map(|(parts, statistics, fingerprint)| {
            let (mean, scale) = statistics.normaliser();
            Self { data, rate, parts, mean, scale, fingerprint, account }
        })
    }

    pub(super) fn part(&self, part: Part) -> &[Recording] {
        match part {
            Part::Train => &self.parts[0],
            Part::Valid => &self.parts[1],
            Part::Test => &self.parts[2],
        }
    }

    pub(super) fn classes(&self) -> &[String] {
        self.data.classes()
    }

    /// As JSON: each value in millivolts becomes `(value − mean) · scale`, lead by lead, in f64.
    pub(super) fn normalisation(&self) -> serde_json::Value {
        let Self { mean, scale, .. } = self;
        json!({"over": "training part", "unit": "mV", "channels": ptbxl::LEADS, "mean": mean, "scale": scale})
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The folder of the dataset.
    pub(super) fn root(&self) -> &Path {
        self.data.root()
    }

    /// Names of the records of all parts, as the table has them.
    pub(super) fn names(&self) -> Vec<&str> {
        let entries = self.data.entries();
        let of = |recording: &Recording| entries.get(recording.index).map(|entry| entry.filename(self.rate));
        self.parts.iter().flatten().filter_map(of).collect()
    }

    /// Whether every record with a label of the set, of whatever fold, is in a part.
    pub(super) fn are_all(&self) -> bool {
        let folds: Vec<u8> = (1..=10).collect();
        self.len() == self.data.select(&folds).len()
    }

    pub(super) fn missing(&self) -> u64 {
        self.account.count(Kind::Missing)
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Adds at most `times` samples of all leads from `start` on, with zero mean and unit variance per lead by the training
    /// part's statistics, recorded under `condition`: [time, lead], flat.
    pub(super) fn normalised(&self, ecg: &Ecg, start: usize, times: usize, condition: &Condition, into: &mut Vec<f32>) {
        let changes = condition.changes();
        for mut row in ecg.rows_from(start, times) {
            if changes {
                condition.apply(&mut row);
            }
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = ((f64::from(*x) - mean) * scale) as f32;
            }
            into.extend_from_slice(&row);
        }
    }

    fn load(&self, recording: &Recording) -> DataResult<Arc<Ecg>> {
        if let Some(held) = &recording.held {
            return Ok(Arc::clone(held));
        }
        let ecg = self.data.load_ecg(recording.index, self.rate)?;
        if digest(&ecg) == recording.digest {
            return Ok(Arc::new(ecg));
        }
        let name = self.data.entries().get(recording.index).map_or("", |entry| entry.filename(self.rate));
        Err(DataError::corrupt(Path::new(name), At::File, "the samples it had when it was first read", "other samples"))
    }
}

/// Folds as a message has them.
pub(super) fn listed_folds(folds: &[u8]) -> String {
    let names: Vec<String> = folds.iter().map(u8::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The signals a source used last; the segments of a group use the same.
#[derive(Default)]
pub(super) struct Loaded(Mutex<Vec<(usize, Arc<Ecg>)>>);

impl Loaded {
    /// The signals of these recordings, in order: read on all cores unless they are those of the last call.
    pub(super) fn get(&self, from: &Recordings, recordings: &[&Recording]) -> DataResult<Vec<Arc<Ecg>>> {
        // a thread that panicked while it held the lock left the list whole
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.len() == recordings.len() && last.iter().zip(recordings).all(|(l, r)| l.0 == r.index);
        if !same {
            let ahead = allocator::is_ahead();
            let load = |r: &&Recording| allocator::on_behalf(ahead, || Ok((r.index, from.load(r)?)));
            let loaded: Vec<_> = recordings.par_iter().map(load).collect();
            *last = loaded.into_iter().collect::<DataResult<_>>()?;
        }
        Ok(last.iter().map(|(_, ecg)| Arc::clone(ecg)).collect())
    }
}

/// The pass over all signals.
struct FirstPass<'a> {
    data: &'a PtbXl,
    rate: Rate,
    hold: bool,
    hash: Sha256,
}

impl<'a> FirstPass<'a> {
    fn new(data: &'a PtbXl, rate: Rate) -> DataResult<Self> {
        let mut hash = Sha256::new();
        hash.update(data.fingerprint()?);
        Ok(Self { data, rate, hold: false, hash })
    }

    fn run(mut self, chosen: &[Vec<usize>; 3]) -> DataResult<([Vec<Recording>; 3], Statistics, String)> {
        let mut parts: [Vec<Recording>; 3] = Default::default();
        let mut statistics = Statistics::default();
        for (place, (part, chosen)) in parts.iter_mut().zip(chosen).enumerate() {
            for indices in chosen.chunks(CHUNK) {
                for (&index, ecg) in indices.iter().zip(self.data.load_ecgs(indices, self.rate)?) {
                    let Some(entry) = self.data.entries().get(index) else { continue };
                    let physical: Vec<f32> = ecg.physical().collect();
                    self.hash.update(entry.ecg_id.to_le_bytes());
                    self.hash.update(physical.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
                    if place == Part::Train as usize {
                        statistics.add(&physical);
                    }
                    let digest = if self.hold { 0 } else { digest(&ecg) };
                    let held = self.hold.then(|| Arc::new(ecg));
                    part.push(Recording { id: entry.ecg_id, labels: entry.labels.clone(), index, held, digest });
                }
            }
        }
        let fingerprint = data::files::hex(&self.hash.finalize());
        Ok((parts, statistics, fingerprint))
    }
}

/// The first eight bytes of the SHA-256 of the samples.
fn digest(ecg: &Ecg) -> u64 {
    let bytes: Vec<u8> = ecg.digital().iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().take(8).fold(0, |all, &byte| all << 8 | u64::from(byte))
}

/// Sums over times, per lead.
#[derive(Default)]
struct Statistics {
    sum: [f64; LEADS],
    squares: [f64; LEADS],
    times: f64,
}

impl Statistics {
    fn add(&mut self, samples: &[f32]) {
        for row in samples.chunks_exact(LEADS) {
            for ((&x, sum), squares) in row.iter().zip(&mut self.sum).zip(&mut self.squares) {
                *sum += f64::from(x);
                *squares += f64::from(x) * f64::from(x);
            }
            self.times += 1.0;
        }
    }

    /// Mean and one over the standard deviation, per lead.
    fn normaliser(&self) -> ([f64; LEADS], [f64; LEADS]) {
        let mean = self.sum.map(|sum| sum / self.times);
        let mut scale = [1.0; LEADS];
        for ((scale, squares), mean) in scale.iter_mut().zip(self.squares).zip(mean) {
            *scale = 1.0 / (squares / self.times - mean * mean).sqrt().max(MIN_DEVIATION);
        }
        (mean, scale)
    }
}
