//! Speech recognition on `LibriSpeech`: log-mel frames in, characters or pieces of words out, taught by transcripts without
//! times (connectionist temporal classification).
//!
//! A stream is one utterance, a step some frames side by side. Segments are whole utterances: learners whose own segments
//! are shorter take two passes ([`learner::TwoPass`]).

mod batches;
mod decode;
mod score;
mod units;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bim::config::{Count, Positive};
use learner::ctc::steps_needed;
use learner::{InputKind, Io};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use self::batches::Batches;
use self::score::SpeechScorer;
pub use self::units::{Unit, Units};
use super::{Epoch, Metric, Part, Scorer, Segmentation, Settings, Source, Task, made, repaired};
use crate::export::Meaning;
use crate::protocol::{Overlap, Selection, pairs};
use data::account::Account;
use data::datasets::librispeech::generate::{self as speech, SpeechSpec};
use data::datasets::librispeech::{RATE_HZ, Split, Utterance};
use data::error::{At, DataError, DataResult};
use data::features::transform::{FLAT, Moments, Normalise, SpecAugment, Stacking, stacked};
use data::features::{Cache, LogMelConfig};
use data::identity::sums::Sums;
use data::identity::{self, Found, Wanted};

/// How many utterances of each part are used, from the first on; all where a number is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Utterances {
    /// For training.
    pub train: Option<Count>,
    /// For the curve during training.
    pub valid: Option<Count>,
    /// For the result.
    pub test: Option<Count>,
}

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Splits to train on.
    pub train_splits: Vec<String>,
    /// Splits that settings are chosen on, and that the curve during training is of.
    pub valid_splits: Vec<String>,
    /// Splits for the result.
    pub test_splits: Vec<String>,
    /// What these results are used to choose.
    #[serde(skip_serializing_if = "Selection::is_default")]
    pub selection: Selection,
    /// How many utterances are used.
    pub utterances: Utterances,
    /// Training utterances that last longer, in seconds, are left out, and the results say how many.
    pub longest_s: Positive,
    /// What is recognised.
    pub units: Unit,
    /// Pieces of a BPE vocabulary, the 256 bytes among them.
    pub vocabulary_size: usize,
    /// The spectrogram.
    pub mel: LogMelConfig,
    /// How frames become steps.
    pub stacking: Stacking,
    /// Over what each band is normalised.
    pub normalise: Normalise,
    /// Masks on training utterances.
    pub augment: Option<SpecAugment>,
    /// Prefixes of the beam search; the best path is taken if absent.
    pub beam: Option<Count>,
    /// Generated data: number of utterances; absent for published data.
    pub generate: Option<NonZeroUsize>,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        let split = |name: &str| vec![name.to_owned()];
        Self {
            root: "LibriSpeech".into(),
            train_splits: split("train-clean-100"),
            valid_splits: split("dev-clean"),
            test_splits: split("test-clean"),
            selection: Selection::default(),
            utterances: Utterances::default(),
            longest_s: Positive(20.0),
            units: Unit::default(),
            vocabulary_size: 512,
            mel: LogMelConfig::default(),
            stacking: Stacking::default(),
            normalise: Normalise::default(),
            augment: None,
            beam: None,
            generate: None,
        }
    }
}

impl Settings for SpeechConfig {
    fn selection(&self) -> Selection {
        self.selection
    }

    fn overlap(&self) -> Option<Overlap> {
        let parts = [
            ("train_splits", &self.train_splits),
            ("valid_splits", &self.valid_splits),
            ("test_splits", &self.test_splits),
        ];
        pairs(&parts, |a, b| a.iter().find(|split| b.contains(split)).map(|split| format!("`{split}`")))
    }

    fn generated(&self) -> Option<String> {
        Some(format!("speech-v{}-{}", speech::GENERATOR_VERSION, self.generate?))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn open(&self, root: &Path, cache: &Path) -> DataResult<Arc<dyn Task>> {
        if let Some(utterances) = self.generate.map(NonZeroUsize::get) {
            speech::generate(root, &SpeechSpec { utterances, seed: 1 })?;
        }
        Ok(Arc::new(Speech::open(self, root, &cache.join("logmel"))?))
    }
}

/// An utterance, ready to be used.
struct Item {
    id: String,
    text: String,
    /// Its place among [`Speech::audio`].
    audio: usize,
    labels: Vec<u32>,
    steps: usize,
}

/// `LibriSpeech`: transcripts in memory, spectrograms on disk.
pub struct Speech {
    config: SpeechConfig,
    units: Units,
    cache: Cache,
    parts: [Vec<Item>; 3],
    audio: Vec<Utterance>,
    /// Moments of speakers by their number, or of all training utterances under 0.
    moments: BTreeMap<u32, Moments>,
    longest: usize,
    fingerprint: String,
    /// Training utterances left out: too long, transcript too long for the steps.
    left_out: [u64; 2],
    identity: Found,
    account: Account,
}

impl Speech {
    /// Indexes the splits that the configuration names and computes the spectrograms that `cache` lacks.
    ///
    /// # Errors
    /// If files are missing or corrupt, or a part is empty.
    pub fn open(config: &SpeechConfig, root: &Path, cache: &Path) -> DataResult<Self> {
        let limits = [config.utterances.train, config.utterances.valid, config.utterances.test];
        let names = [&config.train_splits, &config.valid_splits, &config.test_splits];
        let (mut digest, mut account) = (Sha256::new(), Account::new());
        let mut parts: [Vec<Utterance>; 3] = Default::default();
        let mut splits: Vec<(Split, usize)> = Vec::new();
        for ((part, names), limit) in parts.iter_mut().zip(names).zip(limits) {
            let limit = limit.map_or(usize::MAX, |n| n.0);
            for name in names {
                let mut split = Split::open(root, name)?;
                digest.update(split.fingerprint().as_bytes());
                account.extend(std::mem::take(&mut split.account));
                let used = split.utterances.len().min(limit.saturating_sub(part.len()));
                part.extend(split.utterances.iter().take(used).cloned());
                splits.push((split, used));
            }
            if part.is_empty() {
                let expected = "utterances in every part".to_owned();
                return Err(DataError::corrupt(root, At::File, expected, format!("none in {}", names.join(", "))));
            }
        }
        if config.selection != Selection::None {
            refuse_copies(root, &parts)?;
        }
        let wanted: Vec<Wanted> = splits.iter().map(|(split, used)| Wanted { split, used: *used }).collect();
        let identity = config.generate.map_or_else(|| identity::librispeech(root, &wanted), |_| made());
        drop(splits);
        let units = Units::new(config.units, config.vocabulary_size, parts[0].iter().map(|u| u.text.as_str()))?;
        digest.update(units.fingerprint()?.as_bytes());
        let fingerprint = data::files::hex(&digest.finalize());
        let mut speech = Self {
            config: config.clone(),
            units,
            cache: Cache::new(cache, config.mel, RATE_HZ),
            parts: Default::default(),
            audio: Vec::new(),
            moments: BTreeMap::new(),
            longest: 0,
            fingerprint,
            left_out: [0; 2],
            identity,
            account,
        };
        for (i, utterances) in parts.into_iter().enumerate() {
            speech.add(i, utterances)?;
        }
        if speech.parts[0].is_empty() {
            let expected =
                format!("training utterances of at most {} s that hold their transcript", config.longest_s.0);
            return Err(DataError::corrupt(root, At::File, expected, "none"));
        }
        speech.prepare()?;
        Ok(speech)
    }

    /// Takes the utterances of a part that can be used.
    fn add(&mut self, part: usize, utterances: Vec<Utterance>) -> DataResult<()> {
        let most = (self.config.longest_s.0 * f64::from(RATE_HZ)) as u64;
        for u in utterances {
            let steps = self.config.stacking.steps(self.cache.frames(u.samples as usize));
            let labels = self.units.encode(&u.text)?;
            if part == 0 && u.samples > most {
                self.left_out[0] += 1;
                continue;
            }
            if part == 0 && steps_needed(&labels) > steps {
                self.left_out[1] += 1;
                continue;
            }
            self.longest = self.longest.max(steps);
            self.parts[part].push(Item {
                id: u.id.clone(),
                text: u.text.clone(),
                audio: self.audio.len(),
                labels,
                steps,
            });
            self.audio.push(u);
        }
        Ok(())
    }

    /// Computes what the cache lacks, and the moments. Sums run in the order of the index, so that they do not depend on
    /// the number of threads.
    fn prepare(&mut self) -> DataResult<()> {
        let wanted = self.config.normalise;
        let training = self.parts[0].len();
        let each: Vec<DataResult<Option<(u32, Moments)>>> = (0..self.audio.len())
            .into_par_iter()
            .map(|i| {
                let u = &self.audio[i];
                let frames = self.cache.load(&u.path, &u.content)?;
                if frames.len() != self.cache.frames(u.samples as usize) {
                    let expected = format!("{} samples, as the header says", u.samples);
                    return Err(DataError::corrupt(&u.path, At::File, expected, format!("{} frames", frames.len())));
                }
                let key = match wanted {
                    Normalise::Global => (i < training).then_some(0),
                    Normalise::Speaker => Some(u.speaker),
                    Normalise::Utterance => None,
                };
                Ok(key.map(|key| (key, Moments::of(&frames))))
            })
            .collect();
        for moments in each {
            if let Some((key, moments)) = moments? {
                self.moments.entry(key).or_default().add(&moments);
            }
        }
        Ok(())
    }

    fn part(&self, part: Part) -> &[Item] {
        &self.parts[part as usize]
    }

    /// Values per step.
    fn width(&self) -> usize {
        self.config.stacking.stack.0 * self.config.mel.bands
    }

    /// The steps of an utterance, `[steps, width]`; masked if a seed and an epoch are given and masks are configured.
    fn frames(&self, item: &Item, augment: Option<(u64, u64)>) -> DataResult<Vec<f32>> {
        let u = &self.audio[item.audio];
        let mut frames = self.cache.load(&u.path, &u.content)?;
        match self.config.normalise {
            Normalise::Utterance => Moments::of(&frames).normalise(&mut frames),
            Normalise::Global | Normalise::Speaker => {
                let key = if self.config.normalise == Normalise::Global { 0 } else { u.speaker };
                if let Some(moments) = self.moments.get(&key) {
                    moments.normalise(&mut frames);
                }
            }
        }
        if let (Some(masks), Some((seed, epoch))) = (self.config.augment, augment) {
            masks.apply(&mut frames, seed, &format!("speech.augment.{epoch}.{}", item.id));
        }
        Ok(stacked(&frames, &self.config.stacking))
    }

    /// The first utterances of a part with about `limit` steps.
    fn chosen(&self, part: Part, limit: Option<u64>) -> Vec<usize> {
        let mut steps = 0;
        let items = self.part(part).iter().enumerate();
        let enough = |item: &Item| {
            let before = steps;
            steps += item.steps as u64;
            limit.is_none_or(|limit| before < limit)
        };
        let mut enough = enough;
        items.take_while(|(_, item)| enough(item)).map(|(i, _)| i).collect()
    }
}

/// Refuses parts with the same audio under other names: they overlap whatever their splits are called.
fn refuse_copies(root: &Path, parts: &[Vec<Utterance>; 3]) -> DataResult<()> {
    let mut known: HashMap<&str, (usize, &str)> = HashMap::new();
    for (part, utterances) in parts.iter().enumerate() {
        for utterance in utterances {
            let (of, id) = *known.entry(&utterance.content).or_insert((part, &utterance.id));
            if of != part {
                let expected = "training, validation and test parts that share nothing; fetch the files again";
                let got = format!("{id} and {}, of two parts, have the same audio", utterance.id);
                return Err(DataError::corrupt(root, At::File, expected, got));
            }
        }
    }
    Ok(())
}

impl Task for Speech {
    fn io(&self, streams: usize, segment: usize) -> Io {
        let segment = segment.min(self.longest);
        Io { input: InputKind::Frames { width: self.width() }, outputs: self.units.outputs(), streams, segment }
    }

    fn segmentation(&self) -> Segmentation {
        Segmentation::Whole
    }

    fn longest(&self) -> Option<usize> {
        Some(self.longest)
    }

    fn most_streams(&self) -> Option<(usize, String)> {
        let splits = self.config.train_splits.join(", ");
        Some((self.part(Part::Train).len(), format!("the training utterances, in {splits}")))
    }

    fn training(&self, streams: usize, _: usize, seed: u64) -> DataResult<Box<dyn Source + '_>> {
        let items = self.part(Part::Train);
        let chosen = (0..items.len()).collect();
        Ok(Box::new(Batches { task: self, items, chosen, streams, seed: Some(seed), epoch: Epoch::default() }))
    }

    fn evaluation(&self, part: Part, streams: usize, _: usize, limit: Option<u64>) -> DataResult<Box<dyn Source + '_>> {
        let (items, chosen) = (self.part(part), self.chosen(part, limit));
        Ok(Box::new(Batches { task: self, items, chosen, streams, seed: None, epoch: Epoch::default() }))
    }

    fn scorer(&self, part: Part, _: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        Ok(Box::new(SpeechScorer::new(self, self.part(part), part)))
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn identity(&self, _: &mut Sums) -> DataResult<Found> {
        Ok(self.identity.clone())
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn meaning(&self) -> DataResult<Meaning> {
        let values = match self.config.normalise {
            // of one utterance or speaker: nothing of the training part is used
            Normalise::Utterance | Normalise::Speaker => None,
            Normalise::Global => self.moments.get(&0).map(Moments::normaliser),
        };
        let over = self.config.normalise;
        let normalisation = values.map_or_else(
            || json!({"over": over, "least_deviation": FLAT}),
            |(mean, scale)| json!({"over": over, "mean": mean, "scale": scale}),
        );
        Ok(vec![("vocabulary", self.units.json()?), ("normalisation", normalisation), ("rate_hz", json!(RATE_HZ))])
    }

    fn facts(&self) -> Vec<Metric> {
        // whatever is not trained on is said
        let used = self.parts[0].len() as u64;
        let [long, dense] = self.left_out;
        [("training_utterances_too_long", long), ("training_transcripts_too_long", dense)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(name, n)| Metric::plain(name, Some(n as f64), used + long + dense))
            .chain(repaired(&self.account))
            .collect()
    }
}

#[cfg(test)]
mod tests;
