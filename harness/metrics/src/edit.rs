//! Word and character error rates: the fewest substitutions, deletions and insertions that turn a reference into a
//! hypothesis (Levenshtein 1966), summed over a whole set before they are divided. Texts are cut and rates defined as
//! `jiwer` 4.0.0 does by default.

use super::with_interval;
use crate::Metric;
use statistics::resample::ratio_interval;

/// What an alignment of a reference and a hypothesis found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Units of the reference that the hypothesis has.
    pub hits: u64,
    /// Units that became another.
    pub substitutions: u64,
    /// Units of the reference that are missing.
    pub deletions: u64,
    /// Units that the reference does not have.
    pub insertions: u64,
}

impl Errors {
    /// Errors of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.substitutions + self.deletions + self.insertions
    }

    /// Units of the reference.
    #[must_use]
    pub fn reference(&self) -> u64 {
        self.hits + self.substitutions + self.deletions
    }

    /// Errors per unit of the reference: above 1 where much was inserted. For an empty reference the number of insertions,
    /// as `jiwer` has it: 0 for rightly saying nothing.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.reference().max(1) as f64
    }
}

impl std::iter::Sum for Errors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            hits: a.hits + b.hits,
            substitutions: a.substitutions + b.substitutions,
            deletions: a.deletions + b.deletions,
            insertions: a.insertions + b.insertions,
        })
    }
}

/// Aligns two sequences with the fewest errors. Where several alignments have as few, the split between the kinds is a
/// convention; it is the one of `rapidfuzz`, and so of `jiwer`: common ends first, then from the back a deletion before an
/// insertion before a substitution.
pub fn errors<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Errors {
    let front = reference.iter().zip(hypothesis).take_while(|(r, h)| r == h).count();
    let (reference, hypothesis) = (reference.get(front..), hypothesis.get(front..));
    let (reference, hypothesis) = (reference.unwrap_or_default(), hypothesis.unwrap_or_default());
    let back = reference.iter().rev().zip(hypothesis.iter().rev()).take_while(|(r, h)| r == h).count();
    let reference = reference.get(..reference.len() - back).unwrap_or_default();
    let hypothesis = hypothesis.get(..hypothesis.len() - back).unwrap_or_default();
    let distance = distances(reference, hypothesis);
    let at = |i: usize, j: usize| distance.get(i * (hypothesis.len() + 1) + j).copied().unwrap_or_default();
    let (mut i, mut j) = (reference.len(), hypothesis.len());
    let mut found = Errors { hits: (front + back) as u64, ..Errors::default() };
    while i > 0 && j > 0 {
        if at(i, j) == at(i - 1, j) + 1 {
            found.deletions += 1;
            i -= 1;
        } else if at(i, j - 1) + 1 == at(i - 1, j - 1) {
            found.insertions += 1;
            j -= 1;
        } else {
            (i, j) = (i - 1, j - 1);
            let kind = if reference.get(i) == hypothesis.get(j) { &mut found.hits } else { &mut found.substitutions };
            *kind += 1;
        }
    }
    found.deletions += i as u64;
    found.insertions += j as u64;
    found
}

/// Fewest errors between every two beginnings, `[reference + 1, hypothesis + 1]`.
fn distances<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Vec<u64> {
    let width = hypothesis.len() + 1;
    let mut distance: Vec<u64> = (0..width as u64).collect();
    for (i, r) in reference.iter().enumerate() {
        let above = distance.get(i * width..).unwrap_or_default().to_vec();
        let mut left = i as u64 + 1;
        distance.push(left);
        for (h, pair) in hypothesis.iter().zip(above.windows(2)) {
            let [diagonal, up] = *pair else { continue };
            left = if r == h { diagonal } else { 1 + diagonal.min(up).min(left) };
            distance.push(left);
        }
    }
    distance
}

/// White space to Python, and so to `jiwer`: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The words of a text: a space parts them, and so does white space of two characters or more; around the text all of it
/// goes. Other white space that stands alone is part of its word.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut text = text.trim_matches(is_space).chars().peekable();
    while let Some(c) = text.next() {
        let several = is_space(c) && text.next_if(|next| is_space(*next)).is_some();
        while several && text.next_if(|next| is_space(*next)).is_some() {}
        match words.last_mut() {
            Some(word) if !several && c != ' ' => word.push(c),
            Some(_) | None => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Errors between the words of two texts. Spaces part words, and so does white space of two characters or more.
pub fn word_errors(reference: &str, hypothesis: &str) -> Errors {
    errors(&words(reference), &words(hypothesis))
}

/// Errors between the characters of two texts: white space within them is characters, around them it is none.
pub fn character_errors(reference: &str, hypothesis: &str) -> Errors {
    let characters = |text: &str| text.trim_matches(is_space).chars().collect::<Vec<char>>();
    errors(&characters(reference), &characters(hypothesis))
}

/// Metrics of a set of utterances, given as reference and hypothesis: word and character error rates in percent over the
/// whole set with 95 % intervals over utterances, and how many errors of each kind. Rates of no utterances are undefined.
pub fn error_rates(pairs: &[(String, String)], resamples: usize) -> Vec<Metric> {
    let mut rates = Vec::new();
    let mut counts = Vec::new();
    for unit in ["word", "character"] {
        let count = if unit == "word" { word_errors } else { character_errors };
        let errors: Vec<Errors> = pairs.iter().map(|(reference, hypothesis)| count(reference, hypothesis)).collect();
        let all: Errors = errors.iter().copied().sum();
        let (wrong, of): (Vec<f64>, Vec<f64>) = errors.iter().map(|e| (e.total() as f64, e.reference() as f64)).unzip();
        let interval = ratio_interval(&wrong, &of, resamples, super::SEED).map(|(a, b)| (100.0 * a, 100.0 * b));
        let (percent, n) = ((!pairs.is_empty()).then(|| 100.0 * all.rate()), all.reference());
        rates.push(with_interval(&format!("{unit}_error_rate_percent"), percent, n, interval));
        for (kind, number) in
            [("substitutions", all.substitutions), ("deletions", all.deletions), ("insertions", all.insertions)]
        {
            counts.push(Metric::plain(format!("{unit}_{kind}"), Some(number as f64), n));
        }
    }
    rates.extend(counts);
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates_are_jiwers() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../tests/golden/wer.json")).unwrap();
        let expected = |v: &serde_json::Value| -> [u64; 4] { std::array::from_fn(|i| v[i].as_u64().unwrap()) };
        let ours = |e: &Errors| [e.hits, e.substitutions, e.deletions, e.insertions];
        let mut pairs = Vec::new();
        for pair in golden["pairs"].as_array().unwrap() {
            let (reference, hypothesis) = (pair["reference"].as_str().unwrap(), pair["hypothesis"].as_str().unwrap());
            for (unit, rate, found) in [
                ("words", "wer", word_errors(reference, hypothesis)),
                ("characters", "cer", character_errors(reference, hypothesis)),
            ] {
                assert_eq!(ours(&found), expected(&pair[unit]), "{unit}: {reference:?} {hypothesis:?}");
                let theirs = pair[rate].as_f64().unwrap();
                assert!((found.rate() - theirs).abs() < 1e-15, "{rate}: {reference:?} {hypothesis:?}");
            }
            pairs.push((reference.to_owned(), hypothesis.to_owned()));
        }
        let metrics = error_rates(&pairs, 200);
        let value = |name: &str| metrics.iter().find(|m| m.name == name).unwrap().clone();
        for (name, key) in [("word_error_rate_percent", "wer"), ("character_error_rate_percent", "cer")] {
            let (metric, theirs) = (value(name), 100.0 * golden[key].as_f64().unwrap());
            assert!((metric.value.unwrap() - theirs).abs() < 1e-12, "{name}");
            assert!(metric.low.unwrap() <= theirs && theirs <= metric.high.unwrap(), "{metric:?}");
        }
        let words = expected(&golden["words"]);
        assert_eq!(value("word_deletions").value, Some(words[2] as f64));
        assert_eq!(value("word_deletions").n, words[..3].iter().sum::<u64>());
    }

    #[test]
    fn distance_is_that_of_the_definition() {
        // against the recursive definition, on all short words of two letters
        fn slow(a: &[u8], b: &[u8]) -> u64 {
            match (a, b) {
                ([], rest) | (rest, []) => rest.len() as u64,
                ([x, a @ ..], [y, b @ ..]) if x == y => slow(a, b),
                ([_, a1 @ ..], [_, b1 @ ..]) => 1 + slow(a1, b1).min(slow(a, b1)).min(slow(a1, b)),
            }
        }
        let words: Vec<Vec<u8>> = (0..5u32)
            .flat_map(|n| (0..1 << n).map(move |code| (0..n).map(|i| (code >> i & 1) as u8).collect()))
            .collect();
        for a in &words {
            for b in &words {
                let e = errors(a, b);
                assert_eq!(e.total(), slow(a, b), "{a:?} {b:?}");
                assert_eq!(e.reference(), a.len() as u64);
                assert_eq!(e.hits + e.substitutions + e.insertions, b.len() as u64);
            }
        }
    }

    /// The interval is in percent as the rate is: that of the words over utterances, a hundred times.
    #[test]
    fn the_interval_is_in_percent() {
        let pairs: Vec<(String, String)> =
            ["a b c", "a b", "a x c d", "a", "b c", "x y z"].map(|said| ("a b c".to_owned(), said.to_owned())).to_vec();
        let (wrong, of) = ([0.0, 1.0, 2.0, 2.0, 1.0, 3.0], [3.0; 6]);
        let (low, high) = ratio_interval(&wrong, &of, 200, super::super::SEED).unwrap();
        let metric = &error_rates(&pairs, 200)[0];
        assert!(low > 0.1 && high < 0.9, "{low} {high}");
        assert!((metric.low.unwrap() - 100.0 * low).abs() < 1e-12, "{metric:?} for {low}");
        assert!((metric.high.unwrap() - 100.0 * high).abs() < 1e-12, "{metric:?} for {high}");
    }

    #[test]
    fn no_utterances_have_no_rate_and_silent_ones_have() {
        let metrics = error_rates(&[], 10);
        assert_eq!((metrics[0].value, metrics[0].low), (None, None));
        let pair = |hypothesis: &str| (String::new(), hypothesis.to_owned());
        let percent = |pairs: &[(String, String)]| error_rates(pairs, 10)[0].value;
        assert_eq!((percent(&[pair("")]), percent(&[pair(""), pair("A B")])), (Some(0.0), Some(200.0)));
    }
}
