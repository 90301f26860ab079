//! From outputs to negative log-likelihoods of articles, and from those to metrics with intervals over articles.

use std::collections::BTreeMap;

use candle_core::Tensor;
use learner::Targets;
use rayon::prelude::*;

use super::Language;
use super::tokens::{Piece, Tokens};
use crate::tasks::{Metric, Part, Scorer, Scores, Segment};
use data::datasets::vocabulary::Vocabulary;
use metrics::{bits_per_byte, perplexity, with_interval};
use rows::PredictionRow;
use statistics::resample::ratio_interval;

/// Resamples for the intervals over articles.
const RESAMPLES: usize = 1000;
/// Seed of the resampling: an interval is a function of the scores alone.
const SEED: u64 = 0;

/// What `scores` in `predictions.parquet` holds for each article.
pub(super) const SCORES: [&str; 3] = ["tokens", "bytes", "words"];

pub(super) struct LanguageScorer<'a> {
    task: &'a Language,
    part: Part,
    kept: usize,
    lane: usize,
    /// Sum of −ln p per article, in the order of the file.
    nll: Vec<f64>,
    scored: u64,
}

impl<'a> LanguageScorer<'a> {
    /// For the first `kept` tokens of a part in lanes of `lane`.
    pub(super) fn new(task: &'a Language, part: Part, kept: usize, lane: usize) -> Self {
        Self { task, part, kept, lane, nll: vec![0.0; task.part(part).articles.len()], scored: 0 }
    }
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
        let articles = &self.task.part(self.part).articles;
        for b in 0..streams {
            let first = b * self.lane + segment.offset;
            // the article of the first step; later ones follow in order
            let mut article = articles.partition_point(|article| article.tokens.end <= first);
            for t in 0..steps {
                let at = first + t;
                if at >= self.kept {
                    break;
                }
                while articles.get(article).is_some_and(|article| article.tokens.end <= at) {
                    article += 1;
                }
                if let Some(sum) = self.nll.get_mut(article) {
                    *sum += nll[b * steps + t];
                    self.scored += 1;
                }
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Scores {
        let tokens = self.task.part(self.part);
        let whole = self.kept == tokens.ids.len();
        // the last article of a prefix may be cut: only of whole parts are bytes and words known, except where tokens are bytes
        let byte_level = matches!(self.task.vocabulary, Vocabulary::Byte);
        let seen: Vec<Seen> = tokens
            .articles
            .iter()
            .zip(&self.nll)
            .filter(|(article, _)| article.tokens.start < self.kept)
            .map(|(article, &nll)| {
                let scored = article.tokens.end.min(self.kept) - article.tokens.start;
                let bytes = if byte_level { Some(scored as u64) } else { whole.then_some(article.bytes) };
                Seen { article, nll, tokens: scored as u64, bytes, words: whole.then_some(article.words) }
            })
            .collect();
        let mut metrics = metrics(tokens, &seen, self.scored);
        metrics.extend(unigram(tokens, &seen, self.scored));
        let predictions = seen.iter().map(|seen| seen.row(self.part)).collect();
        Scores { metrics, predictions }
    }
}

/// An article as far as it was scored.
struct Seen<'a> {
    article: &'a Piece,
    nll: f64,
    tokens: u64,
    /// `None` where they are not known.
    bytes: Option<u64>,
    words: Option<u64>,
}

impl Seen<'_> {
    fn row(&self, part: Part) -> PredictionRow {
        let (from, title) =
            (self.article.tokens.start, self.article.title.as_deref().unwrap_or("before the first title"));
        let sizes = self.bytes.zip(self.words).map(|(bytes, words)| vec![self.tokens, bytes, words]);
        PredictionRow {
            item: format!("{title} (tokens {from}..{})", from as u64 + self.tokens),
            split: part.name().into(),
            target: None,
            scores: sizes.unwrap_or_default().into_iter().map(|n| n as f64).collect(),
            hypothesis: None,
            nll: Some(self.nll),
        }
    }
}

fn metrics(part: &Tokens, seen: &[Seen], scored: u64) -> Vec<Metric> {
    let nll: Vec<f64> = seen.iter().map(|seen| seen.nll).collect();
    let nats: f64 = nll.iter().sum();
    // nats per unit: the interval of a ratio over articles
    let interval = |units: &dyn Fn(&Seen) -> Option<u64>| {
        let units: Option<Vec<f64>> = seen.iter().map(|seen| units(seen).map(|n| n as f64)).collect();
        units.and_then(|units| ratio_interval(&nll, &units, RESAMPLES, SEED))
    };
    let through = |f: fn(f64) -> f64, interval: Option<(f64, f64)>| interval.map(|(low, high)| (f(low), f(high)));
    let total = |units: fn(&Seen) -> Option<u64>| seen.iter().map(units).sum::<Option<u64>>();
    let mut result = Vec::new();
    if let Some(bytes) = total(|seen| seen.bytes).filter(|_| part.unknown == 0) {
        let over = through(|nats| nats / std::f64::consts::LN_2, interval(&|seen| seen.bytes));
        result.push(with_interval("bits_per_byte", Some(bits_per_byte(nats, bytes)), bytes, over));
        result.push(Metric::plain("scored_bytes", Some(bytes as f64), bytes));
    }
    if let Some(words) = total(|seen| seen.words) {
        let over = through(f64::exp, interval(&|seen| seen.words));
        result.push(with_interval("perplexity_per_word", Some(perplexity(nats, words)), words, over));
    }
    let over = interval(&|seen| Some(seen.tokens));
    result.push(with_interval("perplexity", Some(perplexity(nats, scored)), scored, through(f64::exp, over)));
    result.push(Metric::plain("scored_tokens", Some(scored as f64), scored));
    result.push(with_interval("loss", Some(nats / scored.max(1) as f64), scored, over));
    result.push(Metric::plain("scored_articles", Some(seen.len() as f64), seen.len() as u64));
    if part.unknown > 0 {
        result.push(Metric::plain("oov_rate", Some(part.unknown as f64 / part.words as f64), part.words));
    }
    result
}

/// What a model reaches that knows how often each token comes in the scored text and looks at nothing before it: the metrics of the
/// entropy of these frequencies. No fixed distribution is better on this text.
fn unigram(part: &Tokens, seen: &[Seen], scored: u64) -> Vec<Metric> {
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    let tokens = seen.iter().flat_map(|seen| seen.article.tokens.clone().take(seen.tokens as usize));
    tokens.filter_map(|at| part.ids.get(at)).for_each(|id| *counts.entry(id).or_default() += 1);
    let total = counts.values().sum::<u64>() as f64;
    let nats: f64 = counts.values().map(|&n| -(n as f64) * (n as f64 / total).ln()).sum();
    let sum = |units: fn(&Seen) -> Option<u64>| seen.iter().map(units).sum::<Option<u64>>();
    let bits = sum(|seen| seen.bytes).filter(|_| part.unknown == 0);
    let mut all: Vec<Metric> = Vec::new();
    all.extend(bits.map(|n| Metric::plain("unigram_bits_per_byte", Some(bits_per_byte(nats, n)), n)));
    all.extend(
        sum(|seen| seen.words).map(|n| Metric::plain("unigram_perplexity_per_word", Some(perplexity(nats, n)), n)),
    );
    all.push(Metric::plain("unigram_perplexity", Some(perplexity(nats, scored)), scored));
    all
}

/// `−ln softmax(row)[class]` in f64.
fn negative_log_likelihood(row: &[f32], class: usize) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&z| f64::from((z - max).exp())).sum();
    sum.ln() + f64::from(max) - f64::from(row[class])
}
