//! Language modelling on WikiText-103: bytes, words or BPE pieces, as contiguous streams with state carried over.
//!
//! A part's tokens are cut into `B` lanes of equal length; the input of every step is the token before it in the file, so
//! that each token is scored exactly once and none is skipped, whatever the number of lanes.

use std::path::Path;

use candle_core::{Device, Tensor};
use learner::{InputKind, Io, Targets};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Metric, Part, Scorer, Scores, Segment, Source, Task};
use crate::datasets::error::{At, DataError, DataResult};
use crate::datasets::mini::text::{self, TextSpec};
use crate::datasets::vocabulary::Vocabulary;
use crate::datasets::wikitext::{self, Split};
use crate::event::PredictionRow;
use crate::metrics;

/// Tokens per row of `predictions.parquet`, and the unit that the interval over items resamples.
const BLOCK: usize = 1024;

/// Unit of prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 256 byte values.
    #[default]
    Byte,
    /// The dataset's own words with `<unk>` and `<eos>`.
    Word,
    /// Byte-level byte-pair encoding learned on the training part.
    Bpe,
}

/// Sizes of a generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateText {
    /// Bytes of the training split.
    pub train_bytes: u64,
    /// Bytes of the validation split.
    pub valid_bytes: u64,
    /// Bytes of the test split.
    pub test_bytes: u64,
}

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Unit of prediction.
    pub vocabulary: Unit,
    /// Pieces of a BPE vocabulary.
    pub vocabulary_size: usize,
    /// Split to train on.
    pub train_split: Part,
    /// Split for the curve during training.
    pub valid_split: Part,
    /// Split for the result.
    pub test_split: Part,
    /// Generated text; absent for published data.
    pub generate: Option<GenerateText>,
}

impl Default for LanguageConfig {
    fn default() -> Self {
        Self {
            root: "wikitext-103".into(),
            vocabulary: Unit::Byte,
            vocabulary_size: 4096,
            train_split: Part::Train,
            valid_split: Part::Valid,
            test_split: Part::Test,
            generate: None,
        }
    }
}

impl LanguageConfig {
    /// What the generator is asked for; `None` for published data.
    #[must_use]
    pub fn spec(&self) -> Option<TextSpec> {
        let g = self.generate.as_ref()?;
        Some(TextSpec { train_bytes: g.train_bytes, valid_bytes: g.valid_bytes, test_bytes: g.test_bytes, seed: 1 })
    }
}

struct Tokens {
    ids: Vec<u32>,
    bytes: u64,
    words: u64,
    unknown: u64,
}

/// WikiText-103 in memory, encoded.
pub struct Language {
    vocabulary: Vocabulary,
    parts: [Tokens; 3],
    fingerprint: String,
    floor: Option<f64>,
}

impl Language {
    /// Reads and encodes the three parts.
    ///
    /// # Errors
    /// If files are missing or corrupt.
    pub fn open(config: &LanguageConfig, root: &Path) -> DataResult<Self> {
        let splits = [config.train_split, config.valid_split, config.test_split];
        let texts = splits.map(|part| {
            let split = match part {
                Part::Train => Split::Train,
                Part::Valid => Split::Valid,
                Part::Test => Split::Test,
            };
            wikitext::read_split(root, split)
        });
        let [train, valid, test] = texts;
        let texts = [train?, valid?, test?];
        let vocabulary = match config.vocabulary {
            Unit::Byte => Vocabulary::byte(),
            Unit::Word => Vocabulary::word(&texts[0].bytes)?,
            Unit::Bpe => Vocabulary::bpe(&texts[0].bytes, config.vocabulary_size)?,
        };
        let encode = |text: &wikitext::Text| -> DataResult<Tokens> {
            let e = vocabulary.encode(&text.bytes)?;
            Ok(Tokens { ids: e.ids, bytes: e.bytes, words: e.words, unknown: e.unknown })
        };
        let parts = [encode(&texts[0])?, encode(&texts[1])?, encode(&texts[2])?];
        let fingerprint = format!(
            "{}+{}+{}+{}",
            texts[0].fingerprint,
            texts[1].fingerprint,
            texts[2].fingerprint,
            vocabulary.fingerprint()?
        );
        let floor = config.spec().map(|spec| text::entropy_bits_per_byte(&spec));
        Ok(Self { vocabulary, parts, fingerprint, floor })
    }

    fn part(&self, part: Part) -> &Tokens {
        &self.parts[part as usize]
    }

    /// Tokens of a part that an evaluation with this limit scores.
    fn kept(&self, part: Part, limit: Option<u64>) -> usize {
        let n = self.part(part).ids.len();
        limit.map_or(n, |l| n.min(l as usize))
    }
}

struct Lanes<'a> {
    task: &'a Language,
    ids: &'a [u32],
    streams: usize,
    segment: usize,
    /// Tokens per lane.
    lane: usize,
}

impl Source for Lanes<'_> {
    fn segments(&self) -> u64 {
        self.lane.div_ceil(self.segment) as u64
    }

    fn seen_per_epoch(&self) -> u64 {
        self.ids.len().min(self.lane * self.streams) as u64
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let piece = (index % self.segments()) as usize;
        let offset = piece * self.segment;
        let steps = self.segment.min(self.lane - offset);
        let count = self.streams * steps;
        let (mut input, mut class, mut weight) =
            (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        for b in 0..self.streams {
            for t in b * self.lane + offset..b * self.lane + offset + steps {
                let before = t.checked_sub(1).and_then(|t| self.ids.get(t));
                input.push(before.copied().unwrap_or_else(|| self.task.vocabulary.start_id()));
                class.push(self.ids.get(t).copied().unwrap_or(0));
                weight.push(f32::from(u8::from(t < self.ids.len())));
            }
        }
        let seen = weight.iter().filter(|w| **w > 0.0).count() as u64;
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
                items: vec![None; self.streams],
                offset,
            })
        };
        build()
            .map_err(|e| DataError::corrupt(Path::new("wikitext-103"), At::File, "a segment of tokens", e.to_string()))
    }
}

struct LanguageScorer<'a> {
    task: &'a Language,
    part: Part,
    kept: usize,
    lane: usize,
    /// Sum of −ln p per block of tokens, in the order of the file.
    blocks: Vec<f64>,
    scored: u64,
}

impl Scorer for LanguageScorer<'_> {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let (streams, steps, vocabulary) = output.dims3()?;
        let Targets::Classes { class, .. } = &segment.targets else {
            return Err(learner::Error::shape("targets", "classes", "labels"));
        };
        let class = class.flatten_all()?.to_vec1::<u32>()?;
        let output = output.contiguous()?;
        let nll: Vec<f64> = learner::with_f32(&output, |logits| {
            logits
                .par_chunks(vocabulary)
                .zip(&class)
                .map(|(row, &c)| negative_log_likelihood(row, c as usize))
                .collect()
        })?;
        for b in 0..streams {
            for t in 0..steps {
                let at = b * self.lane + segment.offset + t;
                if at < self.kept {
                    self.blocks[at / BLOCK] += nll[b * steps + t];
                    self.scored += 1;
                }
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Scores {
        let tokens = self.task.part(self.part);
        let nats: f64 = self.blocks.iter().sum();
        let n = self.scored;
        let whole = self.kept == tokens.ids.len();
        // a prefix of the file: its bytes in proportion would be a guess, except where tokens are bytes
        let byte_level = matches!(self.task.vocabulary, Vocabulary::Byte);
        let bytes = if byte_level { Some(n) } else { whole.then_some(tokens.bytes) };
        let mut result = Vec::new();
        if let Some(bytes) = bytes.filter(|_| tokens.unknown == 0) {
            let per_byte = metrics::bits_per_byte(nats, bytes);
            let mut metric = Metric::plain("bits_per_byte", Some(per_byte), bytes);
            if let Some((low, high)) = metrics::block_interval(&self.blocks, nats) {
                (metric.low, metric.high) = (Some(per_byte * low), Some(per_byte * high));
            }
            result.push(metric);
            result.push(Metric::plain("scored_bytes", Some(bytes as f64), bytes));
        }
        if whole {
            result.push(Metric::plain(
                "perplexity_per_word",
                Some(metrics::perplexity(nats, tokens.words)),
                tokens.words,
            ));
        }
        result.push(Metric::plain("perplexity", Some(metrics::perplexity(nats, n)), n));
        result.push(Metric::plain("scored_tokens", Some(n as f64), n));
        result.push(Metric::plain("loss", Some(nats / n.max(1) as f64), n));
        if tokens.unknown > 0 {
            result.push(Metric::plain("oov_rate", Some(tokens.unknown as f64 / tokens.words as f64), tokens.words));
        }
        let predictions = self
            .blocks
            .iter()
            .enumerate()
            .map(|(i, &nll)| PredictionRow {
                item: format!("tokens {}..{}", i * BLOCK, ((i + 1) * BLOCK).min(self.kept)),
                split: self.part.name().into(),
                target: None,
                scores: Vec::new(),
                hypothesis: None,
                nll: Some(nll),
            })
            .collect();
        Scores { metrics: result, predictions }
    }
}

/// `−ln softmax(row)[class]` in f64.
fn negative_log_likelihood(row: &[f32], class: usize) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&z| f64::from((z - max).exp())).sum();
    sum.ln() + f64::from(max) - f64::from(row[class])
}

impl Task for Language {
    fn io(&self, streams: usize, segment: usize) -> Io {
        let vocabulary = self.vocabulary.size();
        Io { input: InputKind::Tokens { vocabulary }, outputs: vocabulary, streams, segment }
    }

    fn training(&self, streams: usize, segment: usize, _: u64) -> DataResult<Box<dyn Source + '_>> {
        let ids = &self.part(Part::Train).ids;
        let lane = ids.len() / streams;
        if lane == 0 {
            let got = format!("{} tokens", ids.len());
            return Err(DataError::corrupt(
                Path::new("wikitext-103"),
                At::File,
                format!("at least {streams} tokens"),
                got,
            ));
        }
        Ok(Box::new(Lanes { task: self, ids: &ids[..lane * streams], streams, segment, lane }))
    }

    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>> {
        let kept = self.kept(part, limit);
        let ids = &self.part(part).ids[..kept];
        Ok(Box::new(Lanes { task: self, ids, streams, segment, lane: kept.div_ceil(streams).max(1) }))
    }

    fn scorer(&self, part: Part, streams: usize, limit: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        let kept = self.kept(part, limit);
        let lane = kept.div_ceil(streams).max(1);
        Ok(Box::new(LanguageScorer {
            task: self,
            part,
            kept,
            lane,
            blocks: vec![0.0; kept.div_ceil(BLOCK)],
            scored: 0,
        }))
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn facts(&self) -> Vec<Metric> {
        self.floor.map(|f| Metric::plain("entropy_floor_bits_per_byte", Some(f), 0)).into_iter().collect()
    }
}
