//! The Markov chain behind the generated text: its words, its chances, its entropy.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::datasets::vocabulary::count_words;
use crate::error::{At, DataError, DataResult};

/// How many words of the lexicon have how many letters, most frequent first: common words are short.
pub(super) const WORD_LENGTHS: [(usize, usize); 7] = [(24, 2), (72, 3), (64, 4), (40, 5), (24, 6), (10, 7), (6, 8)];
/// Number of words.
pub(super) const WORDS: usize = 240;
/// Zipf–Mandelbrot shift: word of rank r (from 0) has weight 1 / (r + shift).
pub(super) const ZIPF_SHIFT: f64 = 10.0;
/// Shares of a word's favourite successors.
pub(super) const FAVOURITES: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
/// Share of Zipf's law in what follows a word; the rest is its favourites.
pub(super) const ZIPF_SHARE: f64 = 0.5;
/// Chance that a sentence ends after a word: 12 words on average.
pub(super) const SENTENCE_END: f64 = 1.0 / 12.0;
/// Chance that a paragraph ends after a sentence.
pub(super) const PARAGRAPH_END: f64 = 0.2;
/// Chance that a heading follows a paragraph.
pub(super) const HEADING: f64 = 0.125;
/// Chance that a title ends after a word.
pub(super) const TITLE_END: f64 = 0.5;
/// The chain's distribution is stationary once a step moves less probability than this.
pub(super) const STATIONARY: f64 = 1e-15;
/// More steps than any chain with these chances needs (it mixes by more than a third a step).
pub(super) const MAX_STEPS: usize = 10_000;

/// Entropy of the source, exact up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entropy {
    /// Bits per byte: the least any model can reach on average.
    pub bits_per_byte: f64,
    /// Bits per state: a word, or one of the marks between words.
    pub bits_per_state: f64,
    /// Bits per word as the dataset counts words, line ends included.
    pub bits_per_word: f64,
    /// Mean bytes of a state's spelling.
    pub bytes_per_state: f64,
}

/// What follows a state: one of the words in order, or the exit.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Chance of each word, then of the exit; sums to 1.
    chances: Vec<f64>,
    /// Running sums of the chances.
    running: Vec<f64>,
    /// State of the first word.
    first: usize,
    /// State behind the exit.
    exit: usize,
}

/// The chain of one seed.
#[derive(Clone, Debug)]
pub struct Source {
    /// Spelling of each state: body words, title words, then the marks.
    spellings: Vec<String>,
    /// Rows of the body words, of a title word, and of the marks.
    rows: Vec<Row>,
}

// States: body words, then title words, then the marks.
const TITLES: usize = WORDS;
const SENTENCE: usize = 2 * WORDS;
const PARAGRAPH: usize = SENTENCE + 1;
const OPEN: usize = SENTENCE + 2;
const CLOSE: usize = SENTENCE + 3;
const STATES: usize = SENTENCE + 4;
/// Spellings of the marks; a heading stands between empty lines, `" \n"`.
const MARKS: [&str; 4] = [" .", " \n", " \n =", " = \n \n"];

/// A uniform number in [0, 1) with 53 bits; spelt out because the bytes of the dataset depend on it.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Running sums.
fn running(weights: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    weights
        .iter()
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

/// Draws an index by running sums that end at about 1.
fn draw(running: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let u = uniform(rng);
    // Rounding may leave the last sum just below 1.
    running.partition_point(|&sum| sum <= u).min(running.len().saturating_sub(1))
}

/// Distinct words of alternating consonants and vowels.
fn lexicon(rng: &mut ChaCha8Rng) -> Vec<String> {
    const CONSONANTS: [char; 15] = ['b', 'd', 'f', 'g', 'h', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z'];
    const VOWELS: [char; 5] = ['a', 'e', 'i', 'o', 'u'];
    let mut seen = HashSet::new();
    let mut words = Vec::with_capacity(WORDS);
    for letters in WORD_LENGTHS.iter().flat_map(|&(count, letters)| std::iter::repeat_n(letters, count)) {
        // There are 75 words of two letters and more of every other length, so a new one is always found.
        loop {
            let mut pick = |from: &[char]| from.get((uniform(rng) * from.len() as f64) as usize).copied();
            let word: String =
                (0..letters).filter_map(|at| if at % 2 == 0 { pick(&CONSONANTS) } else { pick(&VOWELS) }).collect();
            if seen.insert(word.clone()) {
                words.push(word);
                break;
            }
        }
    }
    words
}

impl Row {
    /// Words by `weights` (sum 1), then the exit with chance `end`.
    fn new(weights: &[f64], end: f64, first: usize, exit: usize) -> Self {
        let chances: Vec<f64> = weights.iter().map(|weight| weight * (1.0 - end)).chain([end]).collect();
        Self { running: running(&chances), chances, first, exit }
    }

    /// State of an outcome.
    fn state(&self, outcome: usize) -> usize {
        if outcome < WORDS { self.first + outcome } else { self.exit }
    }

    /// Outcome that leads to a state, if any does.
    fn outcome(&self, state: usize) -> Option<usize> {
        match state.checked_sub(self.first) {
            Some(word) if word < WORDS => Some(word),
            _ => (state == self.exit).then_some(WORDS),
        }
    }

    /// Entropy of the outcome in bits.
    fn bits(&self) -> f64 {
        self.chances.iter().filter(|&&p| p > 0.0).map(|p| -p * p.log2()).sum()
    }
}

/// Which row a state has.
fn row_of(state: usize) -> usize {
    match state {
        0..TITLES => state,
        TITLES..SENTENCE => TITLES,
        _ => state - SENTENCE + TITLES + 1,
    }
}

impl Source {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        // Stream 0 is the language; the splits have streams of their own.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let words = lexicon(&mut rng);
        let weights: Vec<f64> = (0..WORDS).map(|rank| 1.0 / (rank as f64 + ZIPF_SHIFT)).collect();
        let total: f64 = weights.iter().sum();
        let zipf: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let zipf_running = running(&zipf);
        let mut rows: Vec<Row> = (0..WORDS)
            .map(|word| {
                let mut next: Vec<f64> = zipf.iter().map(|p| p * ZIPF_SHARE).collect();
                let mut taken = vec![word];
                for share in FAVOURITES {
                    let mut favourite = draw(&zipf_running, &mut rng);
                    while taken.contains(&favourite) {
                        favourite = draw(&zipf_running, &mut rng);
                    }
                    taken.push(favourite);
                    if let Some(chance) = next.get_mut(favourite) {
                        *chance += share * (1.0 - ZIPF_SHARE);
                    }
                }
                Row::new(&next, SENTENCE_END, 0, SENTENCE)
            })
            .collect();
        rows.push(Row::new(&zipf, TITLE_END, TITLES, CLOSE));
        rows.push(Row::new(&zipf, PARAGRAPH_END, 0, PARAGRAPH));
        rows.push(Row::new(&zipf, HEADING, 0, OPEN));
        // A heading has a word before it can end, and so has a paragraph.
        rows.push(Row::new(&zipf, 0.0, TITLES, OPEN));
        rows.push(Row::new(&zipf, 0.0, 0, CLOSE));
        let spelt = words.iter().map(|word| format!(" {word}"));
        let spellings = spelt.clone().chain(spelt).chain(MARKS.map(String::from)).collect();
        Self { spellings, rows }
    }

    fn row(&self, state: usize) -> Option<&Row> {
        self.rows.get(row_of(state))
    }

    fn spelling(&self, state: usize) -> &str {
        self.spellings.get(state).map_or("", String::as_str)
    }

    /// The words, most frequent first.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.spellings.iter().take(WORDS).map(|spelt| spelt.trim_start())
    }

    /// Share of each state in the long run.
    fn stationary(&self) -> Vec<f64> {
        let mut share = vec![1.0 / STATES as f64; STATES];
        for _ in 0..MAX_STEPS {
            let mut next = vec![0.0; STATES];
            for (state, mass) in share.iter().enumerate() {
                let Some(row) = self.row(state) else { continue };
                for (outcome, chance) in row.chances.iter().enumerate() {
                    if let Some(target) = next.get_mut(row.state(outcome)) {
                        *target += mass * chance;
                    }
                }
            }
            let moved: f64 = share.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
            share = next;
            if moved < STATIONARY {
                break;
            }
        }
        share
    }

    /// The source's entropy, from its stationary distribution.
    pub fn entropy(&self) -> Entropy {
        let (mut bits, mut bytes, mut words) = (0.0, 0.0, 0.0);
        for (state, share) in self.stationary().iter().enumerate() {
            bits += share * self.row(state).map_or(0.0, Row::bits);
            bytes += share * self.spelling(state).len() as f64;
            words += share * count_words(self.spelling(state)) as f64;
        }
        Entropy {
            bits_per_byte: bits / bytes,
            bits_per_state: bits,
            bits_per_word: bits / words,
            bytes_per_state: bytes,
        }
    }

    /// Text of at least `bytes` bytes, from a heading to the end of a paragraph. Streams of the same seed share the
    /// source and nothing else.
    pub fn text(&self, seed: u64, stream: u64, bytes: u64) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        // Longer than any paragraph that is likely to follow.
        let mut text = Vec::with_capacity(bytes as usize + 4096);
        let mut state = OPEN;
        text.extend_from_slice(self.spelling(state).as_bytes());
        while let Some(row) = self.row(state) {
            state = row.state(draw(&row.running, &mut rng));
            text.extend_from_slice(self.spelling(state).as_bytes());
            if state == PARAGRAPH && text.len() as u64 >= bytes {
                break;
            }
        }
        text
    }

    /// Reads text back into states and gives, for each after the first, its bits under the chain and its bytes.
    ///
    /// # Errors
    /// `Corrupt` with the byte offset where the text is not one of this source.
    pub fn score(&self, text: &[u8]) -> DataResult<Vec<(f64, usize)>> {
        let words: HashMap<&[u8], usize> =
            self.spellings.iter().take(WORDS).enumerate().map(|(word, spelt)| (spelt.as_bytes(), word)).collect();
        let refuse = |at: usize| {
            DataError::corrupt(Path::new("text to score"), At::Byte(at as u64), "text of this source", "something else")
        };
        let mut state = OPEN;
        let mut at = self.spelling(OPEN).len();
        if !text.starts_with(self.spelling(OPEN).as_bytes()) {
            return Err(refuse(0));
        }
        let mut scores = Vec::new();
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let row = self.row(state).ok_or_else(|| refuse(at))?;
            let letters = rest.iter().skip(1).take_while(|byte| byte.is_ascii_lowercase()).count();
            let next = if letters > 0 {
                rest.get(..=letters).and_then(|spelt| words.get(spelt)).map(|word| row.first + word)
            } else {
                rest.starts_with(self.spelling(row.exit).as_bytes()).then_some(row.exit)
            };
            let next = next.ok_or_else(|| refuse(at))?;
            let chance = row.outcome(next).and_then(|outcome| row.chances.get(outcome)).copied();
            let chance = chance.filter(|&p| p > 0.0).ok_or_else(|| refuse(at))?;
            let bytes = self.spelling(next).len();
            scores.push((-chance.log2(), bytes));
            (state, at) = (next, at + bytes);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distributions_and_words_are_unique() {
        let source = Source::new(1);
        assert_eq!(source.rows.len(), WORDS + 5);
        for row in &source.rows {
            // 241 terms rounded at 1e-16 each
            assert!((row.chances.iter().sum::<f64>() - 1.0).abs() < 1e-13);
        }
        let words: HashSet<_> = source.spellings.iter().take(WORDS).collect();
        assert_eq!(words.len(), WORDS);
        assert_eq!(WORD_LENGTHS.iter().map(|(count, _)| count).sum::<usize>(), WORDS);
    }

    #[test]
    fn the_stationary_distribution_is_a_fixed_point_of_counts_known_by_hand() {
        let share = Source::new(1).stationary();
        assert!((share.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let body: f64 = share[..WORDS].iter().sum();
        let titles: f64 = share[TITLES..SENTENCE].iter().sum();
        // Every sentence comes from a body word with chance 1/12, and so on down the hierarchy.
        for (got, want) in [
            (share[SENTENCE], body * SENTENCE_END),
            (share[PARAGRAPH], share[SENTENCE] * PARAGRAPH_END),
            (share[OPEN], share[PARAGRAPH] * HEADING),
            (share[CLOSE], share[OPEN]),
            (titles, share[OPEN] / TITLE_END),
        ] {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    /// The mean of (bits − rate × bytes) over states is zero if and only if the analytic rate is right. Its standard
    /// error is estimated from batches longer than the chain's memory; five of them is a false alarm in 10⁶, and the
    /// text is long enough that five are less than 0.5 % of the rate.
    #[test]
    fn long_texts_cost_the_analytic_rate() {
        const BATCH: usize = 4096;
        for seed in [1, 2] {
            let source = Source::new(seed);
            let entropy = source.entropy();
            let scores = source.score(&source.text(seed, 9, 6_000_000)).unwrap();
            let excess: Vec<f64> = scores
                .chunks_exact(BATCH)
                .map(|batch| {
                    batch.iter().map(|&(bits, bytes)| bits - entropy.bits_per_byte * bytes as f64).sum::<f64>()
                        / BATCH as f64
                })
                .collect();
            let n = excess.len() as f64;
            let mean = excess.iter().sum::<f64>() / n;
            let error = (excess.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
            eprintln!("seed {seed}: {entropy:?}, excess {mean:.5} ± {error:.5} bits per state");
            assert!(mean.abs() < 5.0 * error, "{mean} ± {error}");
            assert!(5.0 * error < 0.005 * entropy.bits_per_state, "too little text to tell");
            assert!((1.2..1.6).contains(&entropy.bits_per_byte));
        }
    }

    #[test]
    fn text_of_another_source_is_refused_where_it_differs() {
        let source = Source::new(1);
        let mut text = source.text(1, 1, 1000);
        assert!(source.score(&text).is_ok());
        text.truncate(500);
        let cut = text.iter().rposition(|&byte| byte == b' ').unwrap();
        text.truncate(cut);
        text.extend_from_slice(b" qqq");
        let error = source.score(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("at byte {cut}")), "{error}");
    }
}
