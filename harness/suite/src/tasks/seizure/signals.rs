//! Recordings as filtered, resampled and normalised frames, decoded when they are asked for.
//!
//! A recording is filtered in *blocks* of a minute; the filter starts `SETTLE_SECONDS` before each, so a block does not
//! depend on what was decoded before it and any place of the dataset costs the same. The blocks used last stay in memory,
//! up to `CACHE_BYTES` whatever the size of the dataset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::json;

use crate::measure::allocator;
use data::datasets::chbmit::Recording;
use data::datasets::chbmit::montage::CHANNELS;
use data::error::{At, DataError, DataResult};
use data::features::filter::Filter;

/// Channels of a frame's samples.
pub(super) const WIDTH: usize = CHANNELS.len();
/// Seconds of a block.
const BLOCK_SECONDS: u64 = 60;
/// Seconds before a block from which its filter runs: at a high pass of 0.5 Hz, what the start left is down to
/// 1e-7 by then, at 0.1 Hz (the lowest allowed) to a few percent.
const SETTLE_SECONDS: u64 = 8;
/// Decoded samples kept in memory.
const CACHE_BYTES: usize = 256 << 20;
/// Order of the low pass, by two: 39 dB at 40 Hz for a corner of 24 Hz and 256 samples per second, 76 dB at the mains.
const LOW_PASS_PAIRS: usize = 4;
/// Width of the notch: its frequency by 30.
const NOTCH_QUALITY: f64 = 30.0;
/// Normalised values beyond are cut off there: electrodes that lose contact jump by a hundred times the EEG.
const LARGEST: f32 = 20.0;
/// A channel that is quieter throughout is not connected, and is not to be blown up.
const QUIETEST_UV: f64 = 0.1;
/// Blocks of the training part that its statistics come from, evenly spaced: 17 hours of recording.
const STATISTICS_BLOCKS: usize = 1000;

/// From recorded to prepared samples; all in Hz, as the names say.
#[allow(clippy::struct_field_names)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Preparation {
    /// Samples per second afterwards.
    pub(super) rate_hz: u32,
    /// Corner of the high pass.
    pub(super) low_hz: f64,
    /// Corner of the low pass, below half of `rate_hz`.
    pub(super) high_hz: f64,
    /// Mains frequency to be removed.
    pub(super) notch_hz: Option<f64>,
}

impl Preparation {
    fn filter(&self, rate_hz: f64) -> Filter {
        let band = Filter::high_pass(1, self.low_hz, rate_hz);
        let band = match self.notch_hz.filter(|&hz| hz < rate_hz / 2.0) {
            Some(hz) => band.then(Filter::notch(hz, NOTCH_QUALITY, rate_hz)),
            None => band,
        };
        band.then(Filter::low_pass(LOW_PASS_PAIRS, self.high_hz, rate_hz))
    }

    /// Recorded samples per prepared sample, if that is a whole number.
    fn step(&self, recording: &Recording) -> DataResult<u64> {
        let step = recording.rate_hz / f64::from(self.rate_hz);
        if step >= 1.0 && step.fract() == 0.0 {
            return Ok(step as u64);
        }
        let expected = format!("a sampling rate that is a multiple of {} Hz (the task's `rate`)", self.rate_hz);
        Err(DataError::corrupt(&recording.path, At::File, expected, format!("{} Hz", recording.rate_hz)))
    }

    /// Prepared samples of a whole recording.
    pub(super) fn samples(&self, recording: &Recording) -> DataResult<u64> {
        Ok(recording.samples() / self.step(recording)?)
    }

    fn block_samples(&self) -> u64 {
        BLOCK_SECONDS * u64::from(self.rate_hz)
    }

    /// One block in microvolts: `[time, channel]`, flat.
    fn decode(&self, recording: &Recording, block: u64) -> DataResult<Vec<f32>> {
        let step = self.step(recording)?;
        let start = block * self.block_samples() * step;
        let end = (start + self.block_samples() * step).min(recording.samples() / step * step);
        let settle = SETTLE_SECONDS * u64::from(self.rate_hz) * step;
        let from = start.saturating_sub(settle);
        let channels = recording.read(from..end.max(from))?;
        let kept = (end.saturating_sub(start) / step) as usize;
        let mut samples = vec![0.0; kept * WIDTH];
        for (c, channel) in channels.iter().enumerate() {
            let mut filter = self.filter(recording.rate_hz);
            // as if the first value had been there forever, whose output is zero behind the high pass
            let offset = channel.first().copied().unwrap_or_default();
            let filtered = channel.iter().map(|x| filter.next(x - offset));
            let wanted = filtered.skip((start - from) as usize).step_by(step as usize);
            for (to, y) in samples.iter_mut().skip(c).step_by(WIDTH).zip(wanted) {
                *to = y as f32;
            }
        }
        if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
            let got = format!("sample {} of the block from {} s is not", at / WIDTH, block * BLOCK_SECONDS);
            return Err(DataError::corrupt(&recording.path, At::File, "finite samples", got));
        }
        Ok(samples)
    }
}

/// Of the training part, per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Normalisation {
    mean: [f32; WIDTH],
    scale: [f32; WIDTH],
}

/// Which recording, which block.
type Key = (usize, u64);

#[derive(Default)]
struct Cache {
    blocks: HashMap<Key, (Arc<[f32]>, u64)>,
    /// Rises with every use.
    clock: u64,
    bytes: usize,
}

impl Cache {
    fn get(&mut self, key: Key) -> Option<Arc<[f32]>> {
        self.clock += 1;
        let clock = self.clock;
        self.blocks.get_mut(&key).map(|(block, used)| {
            *used = clock;
            Arc::clone(block)
        })
    }

    /// Keeps a block and drops those used longest ago until all fit.
    fn put(&mut self, key: Key, block: &Arc<[f32]>, capacity: usize) {
        self.clock += 1;
        match self.blocks.insert(key, (Arc::clone(block), self.clock)) {
            Some((same, _)) => allocator::taken_over(allocated(&same)),
            None => self.bytes += size_of_val(&**block),
        }
        while self.bytes > capacity {
            let oldest = self.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            let Some((dropped, _)) = oldest.and_then(|key| self.blocks.remove(&key)) else { return };
            self.bytes -= size_of_val(&*dropped);
            allocator::taken_over(allocated(&dropped)); // a segment may still use it
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.blocks.values().for_each(|(block, _)| allocator::taken_over(allocated(block)));
    }
}

/// Bytes that a block takes, with the two counts of its owners.
fn allocated(block: &[f32]) -> usize {
    size_of_val(block) + 2 * size_of::<usize>()
}

/// The recordings and what of them is decoded.
pub(super) struct Signals {
    recordings: Vec<Recording>,
    preparation: Preparation,
    normalisation: Normalisation,
    cache: Mutex<Cache>,
    capacity: usize,
}

impl Signals {
    /// Takes the statistics from the recordings of `training`.
    pub(super) fn new(recordings: Vec<Recording>, preparation: Preparation, training: &[usize]) -> DataResult<Self> {
        let normalisation = Normalisation { mean: [0.0; WIDTH], scale: [1.0; WIDTH] };
        let mut signals =
            Self { recordings, preparation, normalisation, cache: Mutex::default(), capacity: CACHE_BYTES };
        signals.normalisation = signals.statistics(training)?;
        Ok(signals)
    }

    /// As JSON: each value in microvolts becomes `(value − mean) · scale`, cut off at `± clip`, channel by channel, in f32.
    pub(super) fn normalisation(&self) -> serde_json::Value {
        let Normalisation { mean, scale } = self.normalisation;
        json!({
            "over": "training part", "unit": "uV", "channels": CHANNELS, "mean": mean, "scale": scale, "clip": LARGEST,
        })
    }

    pub(super) fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    fn recording(&self, index: usize) -> DataResult<&Recording> {
        self.recordings.get(index).ok_or_else(|| {
            let got = format!("recording {index} of {}", self.recordings.len());
            DataError::corrupt(std::path::Path::new("RECORDS"), At::File, "a recording of the dataset", got)
        })
    }

    fn statistics(&self, training: &[usize]) -> DataResult<Normalisation> {
        let mut keys: Vec<Key> = Vec::new();
        for &r in training {
            let samples = self.preparation.samples(self.recording(r)?)?;
            keys.extend((0..samples.div_ceil(self.preparation.block_samples())).map(|block| (r, block)));
        }
        let every = keys.len().div_ceil(STATISTICS_BLOCKS).max(1);
        let keys: Vec<Key> = keys.into_iter().step_by(every).collect();
        // sums per block, added in order: the same on any number of threads
        let sums: Vec<DataResult<([[f64; 2]; WIDTH], f64)>> = keys
            .par_iter()
            .map(|&key| {
                let block = self.block(key)?;
                let mut sums = [[0.0; 2]; WIDTH];
                for row in block.chunks_exact(WIDTH) {
                    for (sum, &x) in sums.iter_mut().zip(row) {
                        let x = f64::from(x);
                        *sum = [sum[0] + x, sum[1] + x * x];
                    }
                }
                Ok((sums, (block.len() / WIDTH) as f64))
            })
            .collect();
        let (mut total, mut n) = ([[0.0; 2]; WIDTH], 0.0);
        for one in sums {
            let (sums, samples) = one?;
            for (total, sum) in total.iter_mut().zip(sums) {
                *total = [total[0] + sum[0], total[1] + sum[1]];
            }
            n += samples;
        }
        let n = f64::max(n, 1.0);
        let mean = total.map(|[sum, _]| sum / n);
        let mut scale = [1.0; WIDTH];
        for ((scale, [_, squares]), mean) in scale.iter_mut().zip(total).zip(mean) {
            *scale = 1.0 / (squares / n - mean * mean).max(0.0).sqrt().max(QUIETEST_UV);
        }
        Ok(Normalisation { mean: mean.map(|x| x as f32), scale: scale.map(|x: f64| x as f32) })
    }

    fn cached(&self, key: Key) -> Option<Arc<[f32]>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    /// A block, decoded if it is not in memory. Two threads may decode the same block; both get the same.
    fn block(&self, key: Key) -> DataResult<Arc<[f32]>> {
        if let Some(block) = self.cached(key) {
            return Ok(block);
        }
        // kept for all cells of the process: no cell's own, whichever needs it first
        let block: Arc<[f32]> =
            allocator::apart(|| DataResult::Ok(self.preparation.decode(self.recording(key.0)?, key.1)?.into()))?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(key, &block, self.capacity);
        Ok(block)
    }

    /// Blocks that hold these samples.
    fn keys(&self, recording: usize, samples: &std::ops::Range<u64>) -> impl Iterator<Item = Key> + use<> {
        let each = self.preparation.block_samples();
        (samples.start / each..samples.end.div_ceil(each)).map(move |block| (recording, block))
    }

    /// Decodes what is needed for these samples on all cores.
    pub(super) fn load(&self, wanted: &[(usize, std::ops::Range<u64>)]) -> DataResult<()> {
        let keys = self.absent(wanted);
        let ahead = allocator::is_ahead();
        let block = |&key: &Key| allocator::on_behalf(ahead, || self.block(key));
        let loaded: Vec<DataResult<Arc<[f32]>>> = keys.par_iter().map(block).collect();
        loaded.into_iter().try_for_each(|block| block.map(drop))
    }

    /// Starts decoding in the background. What fails there fails again, with its message, when it is asked for.
    pub(super) fn read_ahead(self: &Arc<Self>, wanted: &[(usize, std::ops::Range<u64>)]) {
        for key in self.absent(wanted) {
            let signals = Arc::clone(self);
            rayon::spawn(move || drop(allocator::on_behalf(true, || signals.block(key))));
        }
    }

    fn absent(&self, wanted: &[(usize, std::ops::Range<u64>)]) -> Vec<Key> {
        let mut keys: Vec<Key> = wanted.iter().flat_map(|(r, samples)| self.keys(*r, samples)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|&key| self.cached(key).is_none());
        keys
    }

    /// Appends samples, `[time, channel]`, normalised.
    pub(super) fn append(&self, recording: usize, samples: std::ops::Range<u64>, to: &mut Vec<f32>) -> DataResult<()> {
        let each = self.preparation.block_samples();
        for key in self.keys(recording, &samples) {
            let block = self.block(key)?;
            let first = key.1 * each;
            let [from, end] = [samples.start.max(first), samples.end.min(first + each)];
            let rows = (from - first) as usize * WIDTH..(end - first) as usize * WIDTH;
            let Some(rows) = block.get(rows) else {
                let path = &self.recording(recording)?.path;
                let got = format!("{} in block {}", block.len() / WIDTH, key.1);
                return Err(DataError::corrupt(path, At::File, format!("samples {from} to {end}"), got));
            };
            let Normalisation { mean, scale } = &self.normalisation;
            for row in rows.chunks_exact(WIDTH) {
                let each = row.iter().zip(mean).zip(scale);
                to.extend(each.map(|((x, mean), scale)| ((x - mean) * scale).clamp(-LARGEST, LARGEST)));
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn with_capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self.cache = Mutex::default();
        self
    }

    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> usize {
        self.cache.lock().unwrap().bytes
    }
}
