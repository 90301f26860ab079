//! ECG classification on PTB-XL: five superclasses, several at once.
//!
//! A stream is one recording; a step is a frame of `frame` consecutive samples of all twelve leads. The recording's labels
//! are the target of every step (or of the last), and a recording's score is the mean logit over its supervised steps.

use std::path::Path;

use candle_core::{Device, Tensor};
use learner::{InputKind, Io, Targets, seeded_rng};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Metric, Part, Scorer, Scores, Segment, Source, Task};
use crate::datasets::error::{At, DataError, DataResult};
use crate::datasets::ptbxl::{PtbXl, Rate, SUPERCLASSES};
use crate::event::PredictionRow;
use crate::metrics;

/// Leads of a standard ECG.
const LEADS: usize = 12;
/// Resamples for the interval over recordings.
const RESAMPLES: usize = 1000;

/// Where the label supervises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supervise {
    /// At every step, equally.
    #[default]
    EveryStep,
    /// At the last step of the recording.
    LastStep,
}

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CardioConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Sampling rate in Hz: 100 or 500.
    pub rate: Hertz,
    /// Samples per step.
    pub frame: Frame,
    /// Supervision.
    pub supervise: Supervise,
    /// `strat_fold`s to train on.
    pub train_folds: Vec<u8>,
    /// `strat_fold`s for the curve during training.
    pub valid_folds: Vec<u8>,
    /// `strat_fold`s for the result.
    pub test_folds: Vec<u8>,
    /// Generated data: number of recordings; absent for published data.
    pub generate: Option<usize>,
}

impl Default for CardioConfig {
    fn default() -> Self {
        Self {
            root: "ptb-xl".into(),
            rate: Hertz(100),
            frame: Frame(5),
            supervise: Supervise::EveryStep,
            train_folds: (1..=8).collect(),
            valid_folds: vec![9],
            test_folds: vec![10],
            generate: None,
        }
    }
}

/// A sampling rate that PTB-XL has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Hertz(pub u32);

impl TryFrom<u32> for Hertz {
    type Error = String;
    fn try_from(rate: u32) -> Result<Self, String> {
        if matches!(rate, 100 | 500) { Ok(Self(rate)) } else { Err(format!("expected 100 or 500, got {rate}")) }
    }
}

impl From<Hertz> for u32 {
    fn from(rate: Hertz) -> Self {
        rate.0
    }
}

/// Samples per step: at least one, at most the 1000 of a recording at 100 Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Frame(pub usize);

impl TryFrom<usize> for Frame {
    type Error = String;
    fn try_from(samples: usize) -> Result<Self, String> {
        let fits = (1..=1000).contains(&samples);
        if fits { Ok(Self(samples)) } else { Err(format!("expected a whole number from 1 to 1000, got {samples}")) }
    }
}

impl From<Frame> for usize {
    fn from(samples: Frame) -> Self {
        samples.0
    }
}

struct Recording {
    id: u32,
    labels: [bool; SUPERCLASSES.len()],
    /// `[steps, frame · LEADS]`, normalised.
    frames: Vec<f32>,
}

/// PTB-XL in memory, normalised by the training folds' statistics.
pub struct Cardio {
    config: CardioConfig,
    parts: [Vec<Recording>; 3],
    steps: usize,
    fingerprint: String,
    /// Recordings of the chosen folds without a signal file.
    missing: u64,
}

impl Cardio {
    /// Loads the folds that the configuration names.
    ///
    /// # Errors
    /// If files are missing or corrupt, or a part has no recording.
    pub fn open(config: &CardioConfig, root: &Path) -> DataResult<Self> {
        let index = PtbXl::open(root)?;
        let rate = if config.rate.0 == 500 { Rate::Hz500 } else { Rate::Hz100 };
        let absent: std::collections::HashSet<usize> = index.missing(rate).into_iter().collect();
        let mut parts: [Vec<Recording>; 3] = Default::default();
        let mut missing = 0;
        let mut digest = Sha256::new();
        digest.update(index.fingerprint()?);
        for (part, folds) in parts.iter_mut().zip([&config.train_folds, &config.valid_folds, &config.test_folds]) {
            let listed = index.select(folds);
            let chosen: Vec<usize> = listed.iter().copied().filter(|i| !absent.contains(i)).collect();
            missing += (listed.len() - chosen.len()) as u64;
            if chosen.is_empty() {
                return Err(DataError::corrupt(
                    &root.join("ptbxl_database.csv"),
                    At::File,
                    format!("recordings with strat_fold in {folds:?} and a signal file"),
                    "none",
                ));
            }
            for (&i, frames) in chosen.iter().zip(index.load_many(&chosen, rate)?) {
                let entry = &index.entries()[i];
                digest.update(entry.ecg_id.to_le_bytes());
                for x in &frames {
                    digest.update(x.to_le_bytes());
                }
                part.push(Recording { id: entry.ecg_id, labels: entry.labels, frames });
            }
        }
        normalise(&mut parts);
        let width = config.frame.0 * LEADS;
        let steps = parts[0][0].frames.len() / width;
        for r in parts.iter_mut().flatten() {
            r.frames.truncate(steps * width);
        }
        let fingerprint = digest.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Ok(Self { config: config.clone(), parts, steps, fingerprint, missing })
    }

    fn part(&self, part: Part) -> &[Recording] {
        &self.parts[part as usize]
    }
}

/// Zero mean and unit variance per lead, by the training part's statistics alone.
fn normalise(parts: &mut [Vec<Recording>; 3]) {
    let (mut sum, mut squares, mut n) = ([0f64; LEADS], [0f64; LEADS], 0f64);
    for r in &parts[0] {
        for row in r.frames.chunks_exact(LEADS) {
            for (l, &x) in row.iter().enumerate() {
                sum[l] += f64::from(x);
                squares[l] += f64::from(x) * f64::from(x);
            }
            n += 1.0;
        }
    }
    let mean = sum.map(|s| s / n);
    let mut scale = [1f64; LEADS];
    for l in 0..LEADS {
        scale[l] = 1.0 / (squares[l] / n - mean[l] * mean[l]).sqrt().max(1e-6);
    }
    for r in parts.iter_mut().flatten() {
        for row in r.frames.chunks_exact_mut(LEADS) {
            for (l, x) in row.iter_mut().enumerate() {
                *x = ((f64::from(*x) - mean[l]) * scale[l]) as f32;
            }
        }
    }
}

struct CardioSource<'a> {
    task: &'a Cardio,
    recordings: &'a [Recording],
    streams: usize,
    segment: usize,
    /// Shuffled per epoch with this seed; in order and once if absent.
    seed: Option<u64>,
}

impl CardioSource<'_> {
    fn per_recording(&self) -> u64 {
        self.task.steps.div_ceil(self.segment) as u64
    }

    /// Training drops the last incomplete group of an epoch (another one each time); evaluation leaves streams idle.
    fn groups(&self) -> u64 {
        let n = self.recordings.len();
        (if self.seed.is_some() { n / self.streams } else { n.div_ceil(self.streams) }) as u64
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.recordings.len()).collect();
        if let Some(seed) = self.seed {
            order.shuffle(&mut seeded_rng(seed, &format!("cardio.epoch.{epoch}")));
        }
        order
    }
}

impl Source for CardioSource<'_> {
    fn segments(&self) -> u64 {
        self.groups() * self.per_recording()
    }

    fn supervised(&self) -> u64 {
        match self.task.config.supervise {
            Supervise::EveryStep => self.segments(),
            Supervise::LastStep => self.groups(),
        }
    }

    fn seen_per_epoch(&self) -> u64 {
        let recordings =
            if self.seed.is_some() { self.groups() * self.streams as u64 } else { self.recordings.len() as u64 };
        recordings * self.task.steps as u64
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let (epoch, within) = (index / self.segments(), index % self.segments());
        let (group, piece) = ((within / self.per_recording()) as usize, (within % self.per_recording()) as usize);
        let order = self.order(epoch);
        let offset = piece * self.segment;
        let steps = self.segment.min(self.task.steps - offset);
        let width = self.task.config.frame.0 * LEADS;
        let outputs = SUPERCLASSES.len();
        let (mut input, mut label, mut weight) = (Vec::new(), Vec::new(), Vec::new());
        let mut items = Vec::with_capacity(self.streams);
        for b in 0..self.streams {
            let item = order.get(group * self.streams + b).copied();
            items.push(item);
            if let Some(i) = item {
                let r = &self.recordings[i];
                input.extend_from_slice(&r.frames[offset * width..][..steps * width]);
                label.extend(r.labels.iter().map(|&l| f32::from(u8::from(l))));
                weight.extend((offset..offset + steps).map(|t| match self.task.config.supervise {
                    Supervise::EveryStep => 1.0,
                    Supervise::LastStep => f32::from(u8::from(t + 1 == self.task.steps)),
                }));
            } else {
                input.resize(input.len() + steps * width, 0f32);
                label.resize(label.len() + outputs, 0f32);
                weight.resize(weight.len() + steps, 0f32);
            }
        }
        let active = items.iter().flatten().count();
        let b = self.streams;
        let tensor = |v: Vec<f32>, shape: &[usize]| Tensor::from_vec(v, shape, &Device::Cpu);
        let build = || -> candle_core::Result<Segment> {
            Ok(Segment {
                starts: vec![piece == 0; b],
                input: tensor(input, &[b, steps, width])?,
                targets: Targets::Labels { label: tensor(label, &[b, outputs])?, weight: tensor(weight, &[b, steps])? },
                seen: (active * steps) as u64,
                items,
                offset,
            })
        };
        build().map_err(|e| DataError::corrupt(Path::new("ptb-xl"), At::File, "a segment of frames", e.to_string()))
    }
}

struct CardioScorer<'a> {
    task: &'a Cardio,
    part: Part,
    /// Sum of logits and of weights per recording.
    sums: Vec<([f64; SUPERCLASSES.len()], f64)>,
}

impl Scorer for CardioScorer<'_> {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let steps = output.dim(1)?;
        let logits = learner::read_f32(output)?;
        let weights = learner::read_f32(segment.targets.weight())?;
        let classes = SUPERCLASSES.len();
        for (b, item) in segment.items.iter().enumerate() {
            let Some(item) = *item else { continue };
            let (sum, total) = &mut self.sums[item];
            for t in 0..steps {
                let w = f64::from(weights[b * steps + t]);
                *total += w;
                for (c, s) in sum.iter_mut().enumerate() {
                    *s += w * f64::from(logits[(b * steps + t) * classes + c]);
                }
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Scores {
        let recordings = self.task.part(self.part);
        let seen: Vec<usize> = (0..recordings.len()).filter(|&i| self.sums[i].1 > 0.0).collect();
        let scores: Vec<Vec<f64>> = seen.iter().map(|&i| self.sums[i].0.map(|s| s / self.sums[i].1).to_vec()).collect();
        let labels: Vec<Vec<bool>> = seen.iter().map(|&i| recordings[i].labels.to_vec()).collect();
        let nll: Vec<f64> = scores.iter().zip(&labels).map(|(s, l)| binary_nll(s, l)).collect();
        let n = seen.len() as u64;
        let mut result = metrics::multi_label(&scores, &labels, &SUPERCLASSES, RESAMPLES);
        result.push(Metric::plain("loss", (n > 0).then(|| nll.iter().sum::<f64>() / n as f64), n));
        let predictions = seen
            .iter()
            .zip(scores)
            .zip(nll)
            .map(|((&i, scores), nll)| PredictionRow {
                item: recordings[i].id.to_string(),
                split: self.part.name().into(),
                target: Some(class_names(&recordings[i].labels)),
                scores: scores.into_iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
                hypothesis: None,
                nll: Some(nll),
            })
            .collect();
        Scores { metrics: result, predictions }
    }
}

/// Mean binary cross-entropy of logits in nats.
fn binary_nll(logits: &[f64], labels: &[bool]) -> f64 {
    let each =
        logits.iter().zip(labels).map(|(&z, &y)| z.max(0.0) - if y { z } else { 0.0 } + (-z.abs()).exp().ln_1p());
    each.sum::<f64>() / logits.len() as f64
}

fn class_names(labels: &[bool]) -> String {
    let names: Vec<&str> = SUPERCLASSES.iter().zip(labels).filter(|(_, l)| **l).map(|(n, _)| *n).collect();
    names.join("+")
}

impl Task for Cardio {
    fn io(&self, streams: usize, segment: usize) -> Io {
        let segment = segment.min(self.steps);
        Io {
            input: InputKind::Frames { width: self.config.frame.0 * LEADS },
            outputs: SUPERCLASSES.len(),
            streams,
            segment,
        }
    }

    fn training(&self, streams: usize, segment: usize, seed: u64) -> DataResult<Box<dyn Source + '_>> {
        let recordings = self.part(Part::Train);
        if recordings.len() < streams {
            return Err(DataError::corrupt(
                Path::new(&self.config.root),
                At::File,
                format!("at least {streams} training recordings, one per stream"),
                format!("{} in folds {:?}", recordings.len(), self.config.train_folds),
            ));
        }
        let segment = segment.min(self.steps);
        Ok(Box::new(CardioSource { task: self, recordings, streams, segment, seed: Some(seed) }))
    }

    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>> {
        let all = self.part(part);
        let keep = limit.map_or(all.len(), |l| ((l as usize).div_ceil(self.steps)).clamp(1, all.len()));
        let segment = segment.min(self.steps);
        Ok(Box::new(CardioSource { task: self, recordings: &all[..keep], streams, segment, seed: None }))
    }

    fn scorer(&self, part: Part, _: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        let sums = vec![([0.0; SUPERCLASSES.len()], 0.0); self.part(part).len()];
        Ok(Box::new(CardioScorer { task: self, part, sums }))
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn facts(&self) -> Vec<Metric> {
        // a partly downloaded dataset is used as far as it goes, and the results say so
        let loaded = self.parts.iter().map(Vec::len).sum::<usize>() as u64;
        let missing = Metric::plain("recordings_missing", Some(self.missing as f64), loaded + self.missing);
        Some(missing).filter(|_| self.missing > 0).into_iter().collect()
    }
}
