//! ECG classification on PTB-XL: superclasses or another set of labels, several at once.
//!
//! A stream is one recording; a step is a frame of `frame` consecutive samples of all twelve leads. The recording's labels
//! are the target of every step (or of the last), and a recording's score is the mean logit over its supervised steps.

mod drift;
mod recordings;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::{InputKind, Io, Targets, seeded_rng};
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Epoch, Metric, Misfit, Part, Scorer, Scores, Segment, Segmentation, Settings, Source, Stream, Task, made, repaired,
};
use crate::export::Meaning;
use crate::protocol::{Overlap, Selection, pairs};
use data::account::Account;
use data::datasets::ptbxl::generate::{self as ecg, EcgSpec};
use data::datasets::ptbxl::{LabelSet, Labelling, Rate};
use data::error::{At, DataError, DataResult};
use data::identity::sums::Sums;
use data::identity::{self, Found, Used};
use drift::Condition;
pub use drift::Drift;
use recordings::{HELD_BYTES, LEADS, Loaded, Recording, Recordings, listed_folds};
use rows::PredictionRow;

/// Resamples for the interval over recordings.
const RESAMPLES: usize = 1000;

/// Where the label supervises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Supervise {
    /// At every step, equally.
    #[default]
    EveryStep,
    /// At the last step of the recording.
    LastStep,
}

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CardioConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Sampling rate in Hz: 100 or 500.
    pub rate: Hertz,
    /// Samples per step.
    pub frame: Frame,
    /// Which statements are the classes: superclass, subclass, diagnostic, form, rhythm or all.
    pub labels: LabelSet,
    /// Lowest likelihood, in percent, of a diagnostic statement that counts; 0 counts every statement present.
    pub min_likelihood: Percent,
    /// Supervision.
    pub supervise: Supervise,
    /// `strat_fold`s to train on.
    pub train_folds: Vec<u8>,
    /// `strat_fold`s that settings are chosen on, and that the curve during training is of.
    pub valid_folds: Vec<u8>,
    /// `strat_fold`s for the result.
    pub test_folds: Vec<u8>,
    /// What these results are used to choose.
    #[serde(skip_serializing_if = "Selection::is_default")]
    pub selection: Selection,
    /// Generated data: number of recordings; absent for published data.
    pub generate: Option<NonZeroUsize>,
    /// Changes of the electrodes within the training stream, in their order, which no label tells; what is scored is under the last one.
    #[serde(skip_serializing_if = "Vec::is_empty")] // cells from before it keep their id
    pub drift: Vec<Drift>,
}

impl Default for CardioConfig {
    fn default() -> Self {
        Self {
            root: "ptb-xl".into(),
            rate: Hertz(100),
            frame: Frame(5),
            labels: LabelSet::Superclass,
            min_likelihood: Percent(0.0),
            supervise: Supervise::EveryStep,
            train_folds: (1..=8).collect(),
            valid_folds: vec![9],
            test_folds: vec![10],
            selection: Selection::default(),
            generate: None,
            drift: Vec::new(),
        }
    }
}

/// A sampling rate that PTB-XL has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(inline, extend("enum" = [100, 500], "x-expected" = "100 or 500"))]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "usize", into = "usize")]
#[schemars(inline, extend("minimum" = 1, "maximum" = 1000, "x-expected" = "a whole number from 1 to 1000"))]
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

/// A share in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(inline, extend("minimum" = 0, "maximum" = 100, "x-expected" = "a percentage from 0 to 100"))]
pub struct Percent(pub f64);

impl TryFrom<f64> for Percent {
    type Error = String;
    fn try_from(percent: f64) -> Result<Self, String> {
        let fits = (0.0..=100.0).contains(&percent);
        if fits { Ok(Self(percent)) } else { Err(format!("expected a percentage from 0 to 100, got {percent}")) }
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl CardioConfig {
    fn labelling(&self) -> Labelling {
        Labelling { set: self.labels, min_likelihood: self.min_likelihood.0, ..Labelling::default() }
    }

    fn rate(&self) -> Rate {
        if self.rate.0 == 500 { Rate::Hz500 } else { Rate::Hz100 }
    }
}

impl Settings for CardioConfig {
    fn check(&self) -> Result<(), Misfit> {
        if self.min_likelihood.0 > 0.0 && !self.labels.has_likelihoods() {
            let expected = "it left out with these labels: statements on form and rhythm have a likelihood of 0, which \
                            means \"not given\", so a threshold would drop nearly all of them";
            let got = self.min_likelihood.0.to_string();
            return Err(Misfit { key: "min_likelihood", expected: expected.into(), got });
        }
        drift::check(&self.drift)
    }

    fn stream(&self) -> Stream {
        self.drift
            .last()
            .map_or(Stream::Same, |last| Stream::Drifts { phases: self.drift.len() as u64 + 1, last: last.after.get() })
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    fn overlap(&self) -> Option<Overlap> {
        let parts =
            [("train_folds", &self.train_folds), ("valid_folds", &self.valid_folds), ("test_folds", &self.test_folds)];
        pairs(&parts, |a, b| a.iter().find(|fold| b.contains(fold)).map(|fold| format!("fold {fold}")))
    }

    fn generated(&self) -> Option<String> {
        Some(format!("ecg-v{}-{}-{}", ecg::GENERATOR_VERSION, self.generate?, self.rate.0))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn open(&self, root: &Path, _: &Path) -> DataResult<Arc<dyn Task>> {
        if let Some(records) = self.generate.map(NonZeroUsize::get) {
            ecg::generate(root, &EcgSpec { records, seed: 1, with_500_hz: self.rate.0 == 500 })?;
        }
        Ok(Arc::new(Cardio::open(self, root)?))
    }
}

/// PTB-XL, in memory or read as it is needed, normalised by the training folds' statistics.
pub struct Cardio {
    config: CardioConfig,
    recordings: Recordings,
    /// Steps of a recording; samples behind the last whole frame are left out.
    steps: usize,
}

impl Cardio {
    /// Reads the folds that the configuration names.
    ///
    /// # Errors
    /// If files are missing or corrupt, or a part has no recording.
    pub fn open(config: &CardioConfig, root: &Path) -> DataResult<Self> {
        Self::open_holding(config, root, HELD_BYTES)
    }

    /// [`Cardio::open`] that holds the signals in memory if they take no more than so many bytes.
    fn open_holding(config: &CardioConfig, root: &Path, held_bytes: usize) -> DataResult<Self> {
        let folds = [&config.train_folds, &config.valid_folds, &config.test_folds];
        let recordings = Recordings::open(root, config.labelling(), config.rate(), folds, held_bytes)?;
        Ok(Self { config: config.clone(), recordings, steps: config.rate().samples() / config.frame.0 })
    }

    fn part(&self, part: Part) -> &[Recording] {
        self.recordings.part(part)
    }

    fn classes(&self) -> &[String] {
        self.recordings.classes()
    }
}

struct CardioSource<'a> {
    task: &'a Cardio,
    recordings: &'a [Recording],
    streams: usize,
    segment: usize,
    /// Shuffled per epoch with this seed; in order and once if absent.
    seed: Option<u64>,
    order: Epoch<Vec<usize>>,
    /// The recordings of the last group, which following segments continue.
    loaded: Loaded,
    /// How the signal is recorded from which segment on, rising.
    conditions: Vec<(u64, Condition)>,
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

    fn draw(&self, epoch: u64) -> Vec<usize> {
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

    fn is_work(&self) -> bool {
        true
    }

    fn changes(&self) -> Vec<u64> {
        self.conditions.iter().skip(1).map(|(segment, _)| *segment).collect()
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let (epoch, within) = (index / self.segments(), index % self.segments());
        let (group, piece) = ((within / self.per_recording()) as usize, (within % self.per_recording()) as usize);
        let order = self.order.get(epoch, || self.draw(epoch));
        let offset = piece * self.segment;
        let steps = self.segment.min(self.task.steps - offset);
        let width = self.task.config.frame.0 * LEADS;
        let outputs = self.task.classes().len();
        let members: Vec<Option<usize>> =
            (0..self.streams).map(|b| order.get(group * self.streams + b).copied()).collect();
        let chosen: Vec<&Recording> = members.iter().flatten().filter_map(|&i| self.recordings.get(i)).collect();
        let condition = self.conditions.iter().rev().find(|(from, _)| *from <= index).map(|(_, condition)| condition);
        let condition = condition.copied().unwrap_or_default();
        let ecgs = self.loaded.get(&self.task.recordings, &chosen)?;
        let mut ecgs = ecgs.iter();
        let mut input = Vec::with_capacity(self.streams * steps * width);
        let (mut label, mut weight) = (Vec::new(), Vec::new());
        let mut items = Vec::with_capacity(self.streams);
        for item in members {
            items.push(item);
            if let (Some(i), Some(ecg)) = (item, item.and_then(|_| ecgs.next())) {
                let r = &self.recordings[i];
                let frame = self.task.config.frame.0;
                self.task.recordings.normalised(ecg, offset * frame, steps * frame, &condition, &mut input);
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
    sums: Vec<(Vec<f64>, f64)>,
}

impl Scorer for CardioScorer<'_> {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let steps = output.dim(1)?;
        let logits = learner::read_f32(output)?;
        let weights = learner::read_f32(segment.targets.weight())?;
        let classes = self.task.classes().len();
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
        let mean = |(sum, weight): &(Vec<f64>, f64)| sum.iter().map(|s| s / weight).collect();
        let scores: Vec<Vec<f64>> = seen.iter().map(|&i| mean(&self.sums[i])).collect();
        let labels: Vec<Vec<bool>> = seen.iter().map(|&i| recordings[i].labels.clone()).collect();
        let classes: Vec<&str> = self.task.classes().iter().map(String::as_str).collect();
        let nll: Vec<f64> = scores.iter().zip(&labels).map(|(s, l)| binary_nll(s, l)).collect();
        let n = seen.len() as u64;
        let mut result = metrics::multi_label(&scores, &labels, &classes, RESAMPLES);
        result.push(Metric::plain("loss", (n > 0).then(|| nll.iter().sum::<f64>() / n as f64), n));
        let predictions = seen
            .iter()
            .zip(scores)
            .zip(nll)
            .map(|((&i, scores), nll)| PredictionRow {
                item: recordings[i].id.to_string(),
                split: self.part.name().into(),
                target: Some(class_names(&classes, &recordings[i].labels)),
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

fn class_names(classes: &[&str], labels: &[bool]) -> String {
    let names: Vec<&str> = classes.iter().zip(labels).filter(|(_, l)| **l).map(|(n, _)| *n).collect();
    names.join("+")
}

impl Task for Cardio {
    fn io(&self, streams: usize, segment: usize) -> Io {
        let segment = segment.min(self.steps);
        Io {
            input: InputKind::Frames { width: self.config.frame.0 * LEADS },
            outputs: self.classes().len(),
            streams,
            segment,
        }
    }

    fn segmentation(&self) -> Segmentation {
        Segmentation::OneAnswer
    }

    fn most_streams(&self) -> Option<(usize, String)> {
        let folds = listed_folds(&self.config.train_folds);
        Some((self.part(Part::Train).len(), format!("the training recordings, in folds {folds}")))
    }

    fn training(&self, streams: usize, segment: usize, seed: u64) -> DataResult<Box<dyn Source + '_>> {
        let recordings = self.part(Part::Train);
        let segment = segment.min(self.steps);
        // a drift sets in between recordings
        let first = |frames: u64| frames.div_ceil((streams * self.steps) as u64) * self.steps.div_ceil(segment) as u64;
        let drifts = self.config.drift.iter().map(|drift| (first(drift.after.get()), drift.condition()));
        Ok(Box::new(CardioSource {
            task: self,
            recordings,
            streams,
            segment,
            seed: Some(seed),
            order: Epoch::default(),
            loaded: Loaded::default(),
            conditions: [(0, Condition::default())].into_iter().chain(drifts).collect(),
        }))
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
        Ok(Box::new(CardioSource {
            task: self,
            recordings: &all[..keep],
            streams,
            segment,
            seed: None,
            order: Epoch::default(),
            loaded: Loaded::default(),
            conditions: vec![(0, self.config.drift.last().map(Drift::condition).unwrap_or_default())],
        }))
    }

    fn scorer(&self, part: Part, _: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        let sums = vec![(vec![0.0; self.classes().len()], 0.0); self.part(part).len()];
        Ok(Box::new(CardioScorer { task: self, part, sums }))
    }

    fn held_against(&self) -> Vec<Option<usize>> {
        (0..=self.config.drift.len()).map(|phase| phase.checked_sub(1)).collect()
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn fingerprint(&self) -> &str {
        self.recordings.fingerprint()
    }

    fn identity(&self, sums: &mut Sums) -> DataResult<Found> {
        if self.config.generate.is_some() {
            return Ok(made());
        }
        let used = Used { records: self.recordings.names(), whole: self.recordings.are_all() };
        identity::ptbxl(self.recordings.root(), &used, sums)
    }

    fn account(&self) -> &Account {
        self.recordings.account()
    }

    fn meaning(&self) -> DataResult<Meaning> {
        Ok(vec![("normalisation", self.recordings.normalisation()), ("classes", json!(self.classes()))])
    }

    fn facts(&self) -> Vec<Metric> {
        // a partly downloaded dataset is used as far as it goes, and the results say so
        let (there, missing) = (self.recordings.len() as u64, self.recordings.missing());
        let fact = Metric::plain("recordings_missing", Some(missing as f64), there + missing);
        Some(fact).filter(|_| missing > 0).into_iter().chain(repaired(self.account())).collect()
    }

    fn outputs(&self) -> Vec<String> {
        self.classes().to_vec()
    }
}
