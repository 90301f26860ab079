//! A tiny WikiText-103 in the real layout whose entropy rate is known exactly.
//!
//! The source is a Markov chain. Its states are the words of a small lexicon (once in body text, once in titles) and
//! four marks: the end of a sentence, the end of a paragraph, the beginning and the end of a heading. Every state has a
//! fixed spelling. A word has a few favourite successors, mixed with Zipf's law over the whole lexicon. All spellings
//! begin with a space and words have letters only, so text can be read back into states in one way only, and
//! `bits per byte = (stationary entropy per state) / (stationary mean bytes per state)` with nothing left out.
//! A model of the text can come close to that rate and cannot beat it.

mod source;

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::source::{Entropy, Source};
use self::source::{FAVOURITES, HEADING, PARAGRAPH_END, SENTENCE_END, TITLE_END, ZIPF_SHARE, ZIPF_SHIFT};
use crate::datasets::fill::fill;
use crate::datasets::wikitext::Split;
use crate::error::{DataError, DataResult};
use crate::files::sha256_hex;

/// Version of the generator: any change of the bytes it makes for a given [`TextSpec`] raises it.
pub const GENERATOR_VERSION: u32 = 1;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSpec {
    /// Least bytes of the training split; a split ends with the first paragraph that reaches its size.
    pub train_bytes: u64,
    /// Least bytes of the validation split.
    pub valid_bytes: u64,
    /// Least bytes of the test split.
    pub test_bytes: u64,
    /// Seed of the lexicon, of the chain and of the text.
    pub seed: u64,
}

impl TextSpec {
    fn bytes(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.train_bytes,
            Split::Valid => self.valid_bytes,
            Split::Test => self.test_bytes,
        }
    }
}

/// Entropy rate of the text of a spec in bits per byte.
pub fn entropy_bits_per_byte(spec: &TextSpec) -> f64 {
    Source::new(spec.seed).entropy().bits_per_byte
}

/// Entropy rate of the text of a spec in bits per word, words counted as the dataset does, line ends included.
pub fn entropy_bits_per_word(spec: &TextSpec) -> f64 {
    Source::new(spec.seed).entropy().bits_per_word
}

/// What `source.json` holds.
#[derive(Serialize)]
struct Description<'a> {
    generator: &'static str,
    generator_version: u32,
    #[serde(flatten)]
    spec: &'a TextSpec,
    model: &'static str,
    lexicon: Vec<&'a str>,
    zipf_shift: f64,
    zipf_share: f64,
    favourite_shares: [f64; 4],
    sentence_end: f64,
    paragraph_end: f64,
    heading: f64,
    title_end: f64,
    entropy: Entropy,
    sha256: Vec<(String, String)>,
}

const MODEL: &str = "Markov chain of words: after a word the sentence ends with `sentence_end`, otherwise the next word \
                     is one of four favourites of the word (shares `favourite_shares`, together 1 - `zipf_share`) or \
                     drawn with weight 1 / (rank + `zipf_shift`)";

/// Writes `wiki.{train,valid,test}.tokens` and `source.json` (the model and its entropy) into the folder `root`, which
/// appears whole or not at all. A folder that already holds exactly this is left alone.
///
/// # Errors
/// `Corrupt` if `root` holds anything else; `Io` if the system refuses.
pub fn generate(root: &Path, spec: &TextSpec) -> DataResult<()> {
    let source = Source::new(spec.seed);
    let splits = [(Split::Train, 1), (Split::Valid, 2), (Split::Test, 3)];
    let mut files: Vec<(String, Vec<u8>)> = splits
        .map(|(split, stream)| {
            (format!("wiki.{}.tokens", split.name()), source.text(spec.seed, stream, spec.bytes(split)))
        })
        .into();
    let description = Description {
        generator: "harness data mini wikitext-103",
        generator_version: GENERATOR_VERSION,
        spec,
        model: MODEL,
        lexicon: source.words().collect(),
        zipf_shift: ZIPF_SHIFT,
        zipf_share: ZIPF_SHARE,
        favourite_shares: FAVOURITES,
        sentence_end: SENTENCE_END,
        paragraph_end: PARAGRAPH_END,
        heading: HEADING,
        title_end: TITLE_END,
        entropy: source.entropy(),
        sha256: files.iter().map(|(name, bytes)| (name.clone(), sha256_hex(bytes))).collect(),
    };
    let json = serde_json::to_vec_pretty(&description).map_err(|error| DataError::io(root)(error.into()))?;
    files.push(("source.json".into(), json));
    fill(root, "the same generated text", |root| holds(root, &files), |root| write_all(root, &files))
}

/// Whether the folder already has all files with exactly these bytes.
fn holds(root: &Path, files: &[(String, Vec<u8>)]) -> bool {
    files.iter().all(|(name, bytes)| std::fs::read(root.join(name)).is_ok_and(|there| there == *bytes))
}

fn write_all(folder: &Path, files: &[(String, Vec<u8>)]) -> DataResult<()> {
    for (name, bytes) in files {
        let path = folder.join(name);
        let mut file = std::fs::File::create(&path).map_err(DataError::io(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(DataError::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::wikitext::read_split;

    const SPEC: TextSpec = TextSpec { train_bytes: 20_000, valid_bytes: 4_000, test_bytes: 4_000, seed: 7 };

    #[test]
    fn files_look_like_the_dataset_and_share_no_paragraph() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("wikitext-103");
        generate(&root, &SPEC).unwrap();
        let texts = [Split::Train, Split::Valid, Split::Test].map(|split| read_split(&root, split).unwrap().bytes);
        for (text, bytes) in texts.iter().zip([20_000, 4_000, 4_000]) {
            assert!(text.len() >= bytes && text.starts_with(b" \n = ") && text.ends_with(b" . \n"));
            let text = std::str::from_utf8(text).unwrap();
            assert!(text.lines().all(|line| line.starts_with(' ') && line.ends_with(' ')));
            assert!(text.contains(" = \n \n "));
        }
        assert_ne!(texts[1], texts[2]);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(root.join("source.json")).unwrap()).unwrap();
        for (name, want) in
            [("bits_per_byte", entropy_bits_per_byte(&SPEC)), ("bits_per_word", entropy_bits_per_word(&SPEC))]
        {
            // The reader of JSON may be one unit in the last place off.
            let got = json["entropy"][name].as_f64().unwrap();
            assert!((got - want).abs() < 4.0 * f64::EPSILON * want, "{name}: {got} {want}");
        }
        assert_eq!((json["seed"].as_u64(), json["generator_version"].as_u64()), (Some(7), Some(1)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn generating_again_is_allowed_and_overwriting_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("w");
        std::fs::create_dir(&root).unwrap();
        generate(&root, &SPEC).unwrap();
        generate(&root, &SPEC).unwrap();
        let error = generate(&root, &TextSpec { seed: 8, ..SPEC }).unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        generate(&root, &SPEC).unwrap();
    }

    /// Fails if a change alters the bytes: then raise `GENERATOR_VERSION`.
    #[test]
    fn bytes_are_those_of_this_version() {
        let source = Source::new(SPEC.seed);
        let hashes = [1, 2, 3].map(|stream| sha256_hex(&source.text(SPEC.seed, stream, 4_000)));
        let want = [
            "6dd5c518eb5ac95e8b7219a6906f1ae8c1abc04c401b8c70b5fb452fcd010200",
            "872ff80e8b531af682bb6388a75c8941144d33850639164870dbbca3e209ab47",
            "0b51aa0074bf217800e88bfa3f41d76a274d9405fc0d6f07f242973d15fcdfa8",
        ];
        assert_eq!(hashes, want);
    }
}
