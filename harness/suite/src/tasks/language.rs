//! Language modelling on WikiText-103: bytes, words or BPE pieces, as contiguous streams with state carried over.
//!
//! A part's tokens are cut into `B` lanes of equal length; the input of every step is the token before it in the file, so
//! that each token is scored exactly once and none is skipped, whatever the number of lanes.

mod domains;
mod part;
mod score;
#[cfg(test)]
mod tests;
mod tokens;

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::{InputKind, Io, Targets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Domain, Metric, Misfit, Part, Scorer, Segment, Settings, Source, Stream, Task, made, repaired};
use crate::export::Meaning;
use crate::protocol::{Overlap, Selection, pairs};
use data::account::{Account, Kind};
use data::datasets::vocabulary::Vocabulary;
use data::datasets::wikitext::generate::{self as text, TextSpec};
use data::datasets::wikitext::{self, Split};
use data::error::{At, DataError, DataResult};
use data::identity::sums::Sums;
use data::identity::{self, Found, TextFacts};
pub use domains::TextDomain;
use domains::{Domains, InTurn};
pub use part::TextPart;
use score::{LanguageScorer, SCORES};
use tokens::{Again, Ids, Tokens};

/// Unit of prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Unit {
    /// As a grid writes it.
    const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Word => "word",
            Self::Bpe => "bpe",
        }
    }
}

/// Sizes of a generated text.
#[allow(clippy::struct_field_names, reason = "the keys of a grid name their unit")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateText {
    /// Bytes of the training split.
    pub train_bytes: NonZeroU64,
    /// Bytes of the validation split.
    pub valid_bytes: NonZeroU64,
    /// Bytes of the test split.
    pub test_bytes: NonZeroU64,
}

/// The task's keys in a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Unit of prediction.
    pub vocabulary: Unit,
    /// Pieces of a BPE vocabulary.
    pub vocabulary_size: usize,
    /// What to train on: a file or a part of one, such as `'valid[:0.9]'`, cut where an article begins.
    pub train_split: TextPart,
    /// What settings are chosen on, and the curve during training is of.
    pub valid_split: TextPart,
    /// What the result is of.
    pub test_split: TextPart,
    /// What these results are used to choose.
    #[serde(skip_serializing_if = "Selection::is_default")]
    pub selection: Selection,
    /// Generated text; absent for published data.
    pub generate: Option<GenerateText>,
    /// Texts that one stream is made of in turn, as bytes. Each is scored by itself before training and after every phase, on the part
    /// that is scored at the end; curve and result are of the parts of all.
    #[serde(skip_serializing_if = "Vec::is_empty")] // cells from before it keep their id
    pub domains: Vec<TextDomain>,
    /// Names of `domains` in the order in which they are read: each once before one comes back. A phase has as many bytes as every
    /// other, and a domain that comes back goes on where it stopped. By default as they are listed, and then the first again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<String>,
}

impl Default for LanguageConfig {
    fn default() -> Self {
        Self {
            root: "wikitext-103".into(),
            vocabulary: Unit::Byte,
            vocabulary_size: 4096,
            train_split: TextPart::whole(Split::Train),
            valid_split: TextPart::whole(Split::Valid),
            test_split: TextPart::whole(Split::Test),
            selection: Selection::default(),
            generate: None,
            domains: Vec::new(),
            phases: Vec::new(),
        }
    }
}

/// Seed of generated text where there is one.
const SEED: u64 = 1;

impl LanguageConfig {
    /// What the generator is asked for; `None` for published data.
    #[must_use]
    pub fn spec(&self) -> Option<TextSpec> {
        self.spec_of(SEED)
    }

    /// The same for the language of another seed.
    fn spec_of(&self, seed: u64) -> Option<TextSpec> {
        let g = self.generate.as_ref()?;
        let [train_bytes, valid_bytes, test_bytes] = [g.train_bytes, g.valid_bytes, g.test_bytes].map(NonZeroU64::get);
        Some(TextSpec { train_bytes, valid_bytes, test_bytes, seed })
    }

    /// Refuses files of two names and one text, unless nothing is chosen: their parts overlap whatever they are called.
    fn refuse_copies(&self, root: &Path, facts: &[TextFacts]) -> DataResult<()> {
        if self.selection == Selection::None {
            return Ok(());
        }
        for (i, a) in facts.iter().enumerate() {
            if let Some(b) = facts.iter().skip(i + 1).find(|b| b.has_text_of(a)) {
                let expected = "training, validation and test parts that share nothing; fetch the files again";
                let got = format!("the {} and the {} split have the same text", a.split.name(), b.split.name());
                return Err(DataError::corrupt(root, At::File, expected, got));
            }
        }
        Ok(())
    }
}

impl Settings for LanguageConfig {
    fn check(&self) -> Result<(), Misfit> {
        domains::check(self)
    }

    fn stream(&self) -> Stream {
        if self.domains.is_empty() {
            Stream::Same
        } else {
            Stream::OnePass { phases: domains::order(self).len() as u64 }
        }
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    fn overlap(&self) -> Option<Overlap> {
        if !self.domains.is_empty() {
            return domains::overlap(self);
        }
        let parts =
            [("train_split", self.train_split), ("valid_split", self.valid_split), ("test_split", self.test_split)];
        pairs(&parts, |a, b| {
            a.overlaps(b).then(|| if a == b { format!("all of `{a}`") } else { format!("`{a}` and `{b}`") })
        })
    }

    fn way_apart(&self) -> &'static str {
        "cut one file in two, as in `train_split: 'valid[:0.9]'` and `valid_split: 'valid[0.9:]'`"
    }

    fn generated(&self) -> Option<String> {
        let TextSpec { train_bytes, valid_bytes, test_bytes, .. } = self.spec()?;
        // languages of several seeds lie side by side in a folder of their own
        let several = if self.domains.is_empty() { "" } else { "-domains" };
        Some(format!("text-v{}-{train_bytes}-{valid_bytes}-{test_bytes}{several}", text::GENERATOR_VERSION))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn open(&self, root: &Path, _: &Path) -> DataResult<Arc<dyn Task>> {
        if !self.domains.is_empty() {
            return Ok(Arc::new(domains::open(self, root)?));
        }
        if let Some(spec) = self.spec() {
            text::generate(root, &spec)?;
        }
        Ok(Arc::new(Language::open(self, root)?))
    }
}

/// WikiText-103 in memory, encoded.
pub struct Language {
    vocabulary: Vocabulary,
    parts: [Tokens; 3],
    fingerprint: String,
    floor: Option<f64>,
    identity: Found,
    account: Account,
    /// What its stream is made of in turn, if of several texts.
    domains: Option<Domains>,
}

impl Language {
    /// Reads and encodes the three parts.
    ///
    /// # Errors
    /// If files are missing or corrupt.
    pub fn open(config: &LanguageConfig, root: &Path) -> DataResult<Self> {
        Self::open_as(config, root, config.spec(), |_| ())
    }

    /// [`Language::open`] of text that may be generated as `spec` says, every part of it rewritten.
    fn open_as(
        config: &LanguageConfig,
        root: &Path,
        spec: Option<TextSpec>,
        rewrite: impl Fn(&mut wikitext::Text),
    ) -> DataResult<Self> {
        let (mut account, mut facts) = (Account::new(), Vec::<TextFacts>::new());
        let mut is_mended = false;
        let mut read = |part: TextPart| {
            let path = root.join(format!("wiki.{}.tokens", part.split().name()));
            let mut of_this = Account::new();
            let whole = wikitext::read_split_telling(root, part.split(), &mut of_this)?;
            if facts.iter().all(|known| known.split != part.split()) {
                facts.push(TextFacts::of(part.split(), &whole));
                is_mended |= of_this.count(Kind::Repaired) > 0;
                account.extend(of_this); // two parts of one file have it once
            }
            let mut text = part.of(whole, &path)?;
            rewrite(&mut text);
            Ok::<_, DataError>(text)
        };
        let mut texts = [read(config.train_split)?, read(config.valid_split)?, read(config.test_split)?];
        config.refuse_copies(root, &facts)?;
        let vocabulary = match config.vocabulary {
            Unit::Byte => Vocabulary::byte(),
            Unit::Word => Vocabulary::word(&texts[0].bytes)?,
            Unit::Bpe => Vocabulary::bpe(&texts[0].bytes, config.vocabulary_size)?,
        };
        let train = std::mem::take(&mut texts[0].bytes);
        let is_file = config.train_split.is_whole() && !is_mended;
        let again = is_file.then(|| Again { root, split: config.train_split.split(), sha256: &texts[0].fingerprint });
        let parts = [
            Tokens::unscored(&vocabulary, train, again)?,
            Tokens::new(&vocabulary, &texts[1].bytes)?,
            Tokens::new(&vocabulary, &texts[2].bytes)?,
        ];
        let fingerprint = format!(
            "{}+{}+{}+{}",
            texts[0].fingerprint,
            texts[1].fingerprint,
            texts[2].fingerprint,
            vocabulary.fingerprint()?
        );
        let wanted = [config.train_split, config.valid_split, config.test_split];
        for (part, tokens) in wanted.iter().zip(&parts).filter(|(part, _)| part.is_whole()) {
            for known in facts.iter_mut().filter(|known| known.split == part.split()) {
                known.tokens = Some(tokens.words);
            }
        }
        let whole = [Split::Train, Split::Valid, Split::Test].map(TextPart::whole) == wanted;
        let identity = config.generate.as_ref().map_or_else(|| identity::language(root, &facts, whole), |_| made());
        let floor = spec.map(|spec| text::entropy_bits_per_byte(&spec));
        Ok(Self { vocabulary, parts, fingerprint, floor, identity, account, domains: None })
    }

    fn part(&self, part: Part) -> &Tokens {
        &self.parts[part as usize]
    }

    /// The bytes of a part whose tokens are bytes.
    fn bytes(&self, part: Part) -> &[u8] {
        match &self.part(part).ids {
            Ids::Bytes(bytes) => bytes,
            Ids::Wide(_) => &[],
        }
    }

    /// Tokens of a part that an evaluation with this limit scores.
    fn kept(&self, part: Part, limit: Option<u64>) -> usize {
        let n = self.part(part).ids.len();
        limit.map_or(n, |l| n.min(l as usize))
    }
}

struct Lanes<'a> {
    task: &'a Language,
    ids: &'a Ids,
    /// The first of them that is used, and the one behind the last.
    from: usize,
    used: usize,
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
        (self.used - self.from).min(self.lane * self.streams) as u64
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let piece = (index % self.segments()) as usize;
        let offset = piece * self.segment;
        let steps = self.segment.min(self.lane - offset);
        let count = self.streams * steps;
        let (mut input, mut class, mut weight) =
            (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        for b in 0..self.streams {
            let first = self.from + b * self.lane + offset;
            for t in first..first + steps {
                let at = |t: usize| self.ids.get(t).filter(|_| t < self.used);
                input.push(t.checked_sub(1).and_then(at).unwrap_or_else(|| self.task.vocabulary.start_id()));
                class.push(at(t).unwrap_or(0));
                weight.push(f32::from(u8::from(t < self.used)));
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

impl Task for Language {
    fn most_streams(&self) -> Option<(usize, String)> {
        let tokens = self.part(Part::Train).ids.len();
        Some(match self.domains.as_ref().map(Domains::phases) {
            None => (tokens, "the tokens of the training part".into()),
            Some(phases) => (tokens / phases, format!("the tokens of each of the {phases} phases")),
        })
    }

    fn io(&self, streams: usize, segment: usize) -> Io {
        let vocabulary = self.vocabulary.size();
        Io { input: InputKind::Tokens { vocabulary }, outputs: vocabulary, streams, segment }
    }

    fn training(&self, streams: usize, segment: usize, _: u64) -> DataResult<Box<dyn Source + '_>> {
        let ids = &self.part(Part::Train).ids;
        let phases = self.domains.as_ref().map_or(1, Domains::phases);
        let lane = ids.len() / phases / streams;
        if lane == 0 {
            let got = format!("{} tokens", ids.len());
            return Err(DataError::corrupt(
                Path::new("wikitext-103"),
                At::File,
                format!("at least {} tokens", streams * phases),
                got,
            ));
        }
        let lanes = |from: usize| Lanes { task: self, ids, from, used: from + lane * streams, streams, segment, lane };
        if self.domains.is_none() {
            return Ok(Box::new(lanes(0)));
        }
        Ok(Box::new(InTurn((0..phases).map(|phase| lanes(phase * (ids.len() / phases))).collect())))
    }

    fn domains(&self) -> Vec<Domain<'_>> {
        self.domains.iter().flat_map(Domains::all).collect()
    }

    fn held_against(&self) -> Vec<Option<usize>> {
        self.domains.as_ref().map(Domains::held_against).unwrap_or_default()
    }

    fn first_visits(&self) -> Vec<usize> {
        self.domains.as_ref().map(Domains::first_visits).unwrap_or_default()
    }

    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>> {
        let kept = self.kept(part, limit);
        let (ids, lane) = (&self.part(part).ids, kept.div_ceil(streams).max(1));
        Ok(Box::new(Lanes { task: self, ids, from: 0, used: kept, streams, segment, lane }))
    }

    fn scorer(&self, part: Part, streams: usize, limit: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        let kept = self.kept(part, limit);
        let lane = kept.div_ceil(streams).max(1);
        Ok(Box::new(LanguageScorer::new(self, part, kept, lane)))
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
        Ok(vec![("vocabulary", self.vocabulary.json()?), ("start_token", json!(self.vocabulary.start_id()))])
    }

    fn facts(&self) -> Vec<Metric> {
        let floor = self.floor.map(|f| Metric::plain("entropy_floor_bits_per_byte", Some(f), 0));
        floor.into_iter().chain(repaired(&self.account)).collect()
    }

    fn outputs(&self) -> Vec<String> {
        SCORES.map(str::to_owned).into()
    }
}
