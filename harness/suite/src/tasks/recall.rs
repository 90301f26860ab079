//! Selective recall: the first token of a recording must be named at its end, many distractors later.
//!
//! ```text
//! cue  distractor … distractor  query → cue
//! ```
//!
//! Only the last step is supervised, so a rule whose credit does not reach from the query back to the cue cannot learn to
//! store it. With more distractors than a segment has steps, truncated backpropagation is such a rule.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::{InputKind, Io, Targets, seeded_rng};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Metric, Misfit, Part, Scorer, Scores, Segment, Settings, Source, Task, made};
use crate::export::Meaning;
use data::error::{At, DataError, DataResult};
use data::identity::Found;
use data::identity::sums::Sums;
use rows::PredictionRow;

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecallConfig {
    /// Different cues; chance is one in so many.
    pub symbols: u32,
    /// Different distractors.
    pub distractors: u32,
    /// Distractors between cue and query.
    pub delay: usize,
    /// Recordings of an epoch.
    pub recordings: usize,
    /// Recordings of a validation or test.
    pub tests: usize,
}

impl Default for RecallConfig {
    fn default() -> Self {
        Self { symbols: 4, distractors: 4, delay: 320, recordings: 4096, tests: 256 }
    }
}

impl Settings for RecallConfig {
    fn check(&self) -> Result<(), Misfit> {
        let least: [(&str, usize, usize); 5] = [
            ("symbols", self.symbols as usize, 2),
            ("distractors", self.distractors as usize, 1),
            ("delay", self.delay, 1),
            ("recordings", self.recordings, 1),
            ("tests", self.tests, 1),
        ];
        match least.into_iter().find(|(_, got, least)| got < least) {
            Some((key, got, least)) => Err(Misfit { key, expected: format!("{least} or more"), got: got.to_string() }),
            None => Ok(()),
        }
    }

    fn generated(&self) -> Option<String> {
        Some(String::new()) // nothing is stored
    }

    fn root(&self) -> &'static str {
        ""
    }

    fn open(&self, _: &Path, _: &Path) -> DataResult<Arc<dyn Task>> {
        Ok(Arc::new(Recall::new(self)))
    }
}

/// The task.
pub struct Recall {
    config: RecallConfig,
    fingerprint: String,
}

impl Recall {
    /// The task of these settings.
    #[must_use]
    pub fn new(config: &RecallConfig) -> Self {
        let RecallConfig { symbols, distractors, delay, .. } = *config;
        Self { config: config.clone(), fingerprint: format!("recall-1-{symbols}-{distractors}-{delay}") }
    }

    fn length(&self) -> usize {
        self.config.delay + 2
    }

    fn recordings(&self, part: Part, limit: Option<u64>) -> usize {
        let all = if part == Part::Train { self.config.recordings } else { self.config.tests };
        limit.map_or(all, |steps| all.min((steps as usize / self.length()).max(1)))
    }

    /// Tokens of a recording, and its cue. Depends on the part, the seed and the number alone.
    fn recording(&self, part: Part, seed: u64, number: u64) -> (Vec<u32>, u32) {
        let RecallConfig { symbols, distractors, delay, .. } = self.config;
        let mut rng = seeded_rng(seed, &format!("recall.{}.{number}", part.name()));
        let cue = rng.random_range(0..symbols);
        let mut tokens = vec![cue];
        tokens.extend((0..delay).map(|_| symbols + rng.random_range(0..distractors)));
        tokens.push(symbols + distractors);
        (tokens, cue)
    }
}

fn broken(expected: impl Into<String>, got: impl Into<String>) -> DataError {
    DataError::corrupt(std::path::Path::new("recall"), At::File, expected.into(), got.into())
}

struct Recordings<'a> {
    task: &'a Recall,
    part: Part,
    seed: u64,
    streams: usize,
    segment: usize,
    count: usize,
}

impl Recordings<'_> {
    fn pieces(&self) -> u64 {
        self.task.length().div_ceil(self.segment) as u64
    }
}

impl Source for Recordings<'_> {
    fn segments(&self) -> u64 {
        self.count.div_ceil(self.streams) as u64 * self.pieces()
    }

    fn supervised(&self) -> u64 {
        self.count.div_ceil(self.streams) as u64
    }

    fn seen_per_epoch(&self) -> u64 {
        (self.count * self.task.length()) as u64
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let (round, piece) = (index / self.pieces(), (index % self.pieces()) as usize);
        let per_epoch = (self.count.div_ceil(self.streams)) as u64;
        // an evaluation repeats its recordings; training goes on to new ones
        let round_in_epoch = round % per_epoch;
        let offset = piece * self.segment;
        let steps = self.segment.min(self.task.length() - offset);
        let last = offset + steps == self.task.length();
        let (mut input, mut class, mut weight) = (Vec::new(), Vec::new(), Vec::new());
        let mut items = Vec::new();
        let mut seen = 0;
        for b in 0..self.streams {
            let item = round_in_epoch as usize * self.streams + b;
            let real = item < self.count;
            let number = if self.part == Part::Train { round * self.streams as u64 + b as u64 } else { item as u64 };
            let (tokens, cue) = self.task.recording(self.part, self.seed, number);
            input.extend_from_slice(&tokens[offset..offset + steps]);
            class.extend(std::iter::repeat_n(cue, steps));
            weight.extend((0..steps).map(|t| f32::from(u8::from(real && last && t + 1 == steps))));
            items.push(real.then_some(item));
            seen += if real { steps as u64 } else { 0 };
        }
        let shape = (self.streams, steps);
        let build = || -> candle_core::Result<Segment> {
            Ok(Segment {
                starts: vec![piece == 0; self.streams],
                input: Tensor::from_vec(input, shape, &Device::Cpu)?,
                targets: Targets::Classes {
                    class: Tensor::from_vec(class, shape, &Device::Cpu)?,
                    weight: Tensor::from_vec(weight, shape, &Device::Cpu)?,
                },
                seen,
                items,
                offset,
            })
        };
        build().map_err(|e| broken("a segment of tokens", e.to_string()))
    }
}

struct RecallScorer {
    part: Part,
    rows: Vec<(usize, u32, Vec<f32>)>,
}

impl Scorer for RecallScorer {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let (_, steps, outputs) = output.dims3()?;
        let Targets::Classes { class, weight } = &segment.targets else {
            return Err(learner::Error::shape("targets", "classes", "labels"));
        };
        let (class, weight) = (class.flatten_all()?.to_vec1::<u32>()?, learner::read_f32(weight)?);
        let output = learner::read_f32(output)?;
        for (b, item) in segment.items.iter().enumerate() {
            let at = b * steps + steps - 1;
            if let Some(item) = item.filter(|_| weight[at] > 0.0) {
                self.rows.push((item, class[at], output[at * outputs..][..outputs].to_vec()));
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Scores {
        let n = self.rows.len() as u64;
        let mut rows = self.rows;
        rows.sort_by_key(|(item, ..)| *item);
        let best = |z: &[f32]| (0..z.len()).max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap_or(0) as u32;
        let nll = |z: &[f32], class: u32| {
            let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = z.iter().map(|&z| f64::from(z - max).exp()).sum();
            sum.ln() + f64::from(max) - f64::from(z[class as usize])
        };
        let right = rows.iter().filter(|(_, class, z)| best(z) == *class).count();
        let share = right as f64 / n.max(1) as f64;
        let loss: f64 = rows.iter().map(|(_, class, z)| nll(z, *class)).sum();
        // Wilson's interval over recordings
        let (z2, count) = (1.96f64 * 1.96, n.max(1) as f64);
        let centre = (share + z2 / (2.0 * count)) / (1.0 + z2 / count);
        let half = (share * (1.0 - share) / count + z2 / (4.0 * count * count)).sqrt() * 1.96 / (1.0 + z2 / count);
        let mut accuracy = Metric::plain("accuracy", Some(share), n);
        (accuracy.low, accuracy.high) = (Some((centre - half).max(0.0)), Some((centre + half).min(1.0)));
        let predictions = rows
            .iter()
            .map(|(item, class, z)| PredictionRow {
                item: format!("recording {item}"),
                split: self.part.name().into(),
                target: Some(class.to_string()),
                scores: z.iter().map(|&z| f64::from(z)).collect(),
                hypothesis: Some(best(z).to_string()),
                nll: Some(nll(z, *class)),
            })
            .collect();
        let metrics = vec![accuracy, Metric::plain("loss", Some(loss / n.max(1) as f64), n)];
        Scores { metrics, predictions }
    }
}

impl Task for Recall {
    fn io(&self, streams: usize, segment: usize) -> Io {
        let vocabulary = (self.config.symbols + self.config.distractors + 1) as usize;
        Io { input: InputKind::Tokens { vocabulary }, outputs: self.config.symbols as usize, streams, segment }
    }

    fn training(&self, streams: usize, segment: usize, seed: u64) -> DataResult<Box<dyn Source + '_>> {
        let count = self.recordings(Part::Train, None);
        Ok(Box::new(Recordings { task: self, part: Part::Train, seed, streams, segment, count }))
    }

    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>> {
        let count = self.recordings(part, limit);
        Ok(Box::new(Recordings { task: self, part, seed: 0, streams, segment, count }))
    }

    fn scorer(&self, part: Part, _: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        Ok(Box::new(RecallScorer { part, rows: Vec::new() }))
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn identity(&self, _: &mut Sums) -> DataResult<Found> {
        Ok(made())
    }

    fn meaning(&self) -> DataResult<Meaning> {
        let RecallConfig { symbols, distractors, .. } = self.config;
        let query = symbols + distractors;
        // each range of tokens by its first and the one behind its last
        let vocabulary =
            json!({"kind": "recall", "cues": [0, symbols], "distractors": [symbols, query], "query": query});
        Ok(vec![("vocabulary", vocabulary)])
    }

    fn facts(&self) -> Vec<Metric> {
        vec![Metric::plain("chance_accuracy", Some(1.0 / f64::from(self.config.symbols)), 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_whole_recordings_and_only_the_query_counts() -> DataResult<()> {
        let task = Recall::new(&RecallConfig { delay: 9, recordings: 5, ..RecallConfig::default() });
        let source = task.training(2, 4, 3)?;
        assert_eq!((source.segments(), source.supervised(), source.seen_per_epoch()), (9, 3, 55));
        let pieces: Vec<Segment> = (0..3).map(|i| source.segment(i)).collect::<DataResult<_>>()?;
        let rows = |s: &Segment| s.input.to_vec2::<u32>().expect("tokens");
        let whole: Vec<u32> = pieces.iter().flat_map(|s| rows(s)[1].clone()).collect();
        assert_eq!(whole, task.recording(Part::Train, 3, 1).0);
        assert_eq!(pieces.iter().map(|s| s.starts[0]).collect::<Vec<_>>(), [true, false, false]);
        let weights: Vec<f32> =
            pieces.iter().flat_map(|s| learner::read_f32(s.targets.weight()).expect("f32")).collect();
        assert_eq!(weights.iter().filter(|w| **w > 0.0).count(), 2);
        assert_eq!(weights.last(), Some(&1.0));
        // the last round of an epoch has one recording for two streams
        assert_eq!(source.segment(6)?.items, [Some(4), None]);
        // and the next epoch brings new ones
        assert_ne!(rows(&source.segment(9)?), rows(&pieces[0]));
        Ok(())
    }
}
