//! Byte-level byte-pair encoding (Sennrich et al., 2016, over bytes as in GPT-2), trained by the `tokenizers` crate.
//!
//! Text is cut into pieces before any merging: a line end; or white space; or a run of letters, of digits or of other
//! signs, with one space before it. No entry crosses a piece, so a line end is always an id of its own and lines can be
//! encoded one by one. The cut is by bytes and every byte has an entry, so any text is spelt without loss.
//! The crate spells bytes as printable characters (GPT-2's alphabet); the tables here are in that spelling.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, BpeTrainer, Vocab};

use super::{BYTE_VALUES, invalid};
use crate::error::{At, DataResult};

/// A pair seen once would only memorise its place in the training text.
const MIN_PAIR_COUNT: u64 = 2;

/// The learnt byte sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Tables", into = "Tables")]
pub struct BpeVocabulary {
    tables: Tables,
    /// Bytes of each id.
    bytes: Vec<Vec<u8>>,
    /// Merges text; its own cache is off because the encoder has one that is freed with it.
    model: BPE,
    newline: u32,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    /// Spelling of each id.
    tokens: Vec<String>,
    /// Pairs of ids to merge, most urgent first.
    merges: Vec<(u32, u32)>,
}

impl TryFrom<Tables> for BpeVocabulary {
    type Error = String;

    fn try_from(tables: Tables) -> Result<Self, String> {
        let alphabet = alphabet();
        let spelt: HashMap<char, u8> = alphabet.iter().copied().zip(0..=u8::MAX).collect();
        let bytes = tables.tokens.iter().map(|token| token.chars().map(|sign| spelt.get(&sign).copied()).collect());
        let bytes: Vec<Vec<u8>> = bytes.collect::<Option<_>>().ok_or("an entry is not spelt in bytes")?;
        let vocab: Vocab = tables.tokens.iter().cloned().zip(0..).collect();
        if vocab.len() != tables.tokens.len() {
            return Err("an entry occurs twice".into());
        }
        let byte_id = |byte: u8| alphabet.get(usize::from(byte)).and_then(|sign| vocab.get(&sign.to_string())).copied();
        if (0..=u8::MAX).any(|byte| byte_id(byte).is_none()) {
            return Err("a byte has no entry, expected all 256".into());
        }
        let newline = byte_id(b'\n').ok_or("a line end has no entry")?;
        let merges = tables.merges.iter().map(|&(left, right)| {
            let part = |id: u32| tables.tokens.get(id as usize).cloned();
            let (left, right) = (part(left)?, part(right)?);
            vocab.contains_key(&format!("{left}{right}")).then_some((left, right))
        });
        let merges = merges.collect::<Option<Vec<_>>>().ok_or("a merge names or makes an entry that is not there")?;
        let model = BPE::builder().vocab_and_merges(vocab, merges).cache_capacity(0).build();
        let model = model.map_err(|error| error.to_string())?;
        Ok(Self { tables, bytes, model, newline })
    }
}

impl From<BpeVocabulary> for Tables {
    fn from(vocabulary: BpeVocabulary) -> Self {
        vocabulary.tables
    }
}

impl BpeVocabulary {
    /// Learns `size` entries, see [`super::Vocabulary::bpe`].
    pub(super) fn train(text: &str, size: usize) -> DataResult<Self> {
        if size < BYTE_VALUES {
            return Err(invalid(At::File, format!("a BPE size of at least {BYTE_VALUES}"), format!("size {size}")));
        }
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        for piece in pieces(text.as_bytes()) {
            *counts.entry(piece).or_default() += 1;
        }
        let alphabet = alphabet();
        let trainer = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(MIN_PAIR_COUNT)
            .show_progress(false)
            .initial_alphabet(alphabet.iter().copied().collect::<HashSet<char>>())
            .build();
        let counts = counts.into_iter().map(|(piece, count)| (spell(&alphabet, piece).into(), count)).collect();
        let mut model = BPE::default();
        let failed = |error: String| invalid(At::File, "text that BPE can be trained on", error);
        trainer.do_train(&counts, &mut model).map_err(|error| failed(error.to_string()))?;
        if model.get_vocab_size() != size {
            let expected = format!("text with enough repeated pieces for {size} BPE entries; ask for fewer");
            return Err(invalid(At::File, expected, format!("text for only {}", model.get_vocab_size())));
        }
        let tables = Tables::of(&model).map_err(failed)?;
        Self::try_from(tables).map_err(failed)
    }

    /// Number of entries.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Id of the line end.
    pub fn newline(&self) -> u32 {
        self.newline
    }

    /// Bytes that an id stands for; `None` if there is no such id.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id as usize).map(Vec::as_slice)
    }

    /// Ids of a text. Every different piece is merged once.
    pub(super) fn encode(&self, text: &str) -> DataResult<Vec<u32>> {
        let alphabet = alphabet();
        let mut merged: Vec<u32> = Vec::new();
        let mut known: HashMap<&[u8], Range<usize>> = HashMap::new();
        let mut ids = Vec::new();
        for piece in pieces(text.as_bytes()) {
            let range = if let Some(range) = known.get(piece) {
                range.clone()
            } else {
                let tokens = self.model.tokenize(&spell(&alphabet, piece));
                let tokens =
                    tokens.map_err(|error| invalid(At::File, "text that BPE can encode", error.to_string()))?;
                let start = merged.len();
                merged.extend(tokens.iter().map(|token| token.id));
                known.insert(piece, start..merged.len());
                start..merged.len()
            };
            ids.extend_from_slice(merged.get(range).unwrap_or_default());
        }
        Ok(ids)
    }

    /// Appends the bytes of an id; `None` if it is unknown.
    pub(super) fn append(&self, id: u32, bytes: &mut Vec<u8>) -> Option<()> {
        bytes.extend_from_slice(self.token_bytes(id)?);
        Some(())
    }
}

impl Tables {
    /// The tables of a trained model, which shows its merges only when serialised.
    fn of(model: &BPE) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Shown {
            merges: Vec<(String, String)>,
        }
        let ids = model.get_vocab();
        let mut tokens: Vec<(u32, String)> = ids.iter().map(|(token, &id)| (id, token.clone())).collect();
        tokens.sort_unstable();
        let shown = serde_json::to_value(model).and_then(serde_json::from_value::<Shown>);
        let pairs = shown.map_err(|error| error.to_string())?.merges;
        let merges = pairs.iter().map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?)));
        let merges = merges.collect::<Option<Vec<_>>>().ok_or("a merge of entries that are not there")?;
        Ok(Self { tokens: tokens.into_iter().map(|(_, token)| token).collect(), merges })
    }
}

/// GPT-2's character for each byte: itself where it is printable in Latin-1, otherwise the next one from U+0100.
fn alphabet() -> Vec<char> {
    let mut stand_ins = '\u{100}'..;
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => stand_ins.next().unwrap_or(char::REPLACEMENT_CHARACTER),
        })
        .collect()
}

/// A piece in the alphabet's characters.
fn spell(alphabet: &[char], piece: &[u8]) -> String {
    piece.iter().filter_map(|&byte| alphabet.get(usize::from(byte))).collect()
}

/// What a byte is for the cut into pieces. Bytes of other scripts count as letters, so no character is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    LineEnd,
    Space,
    Letter,
    Digit,
    Sign,
}

fn class(byte: u8) -> Class {
    match byte {
        b'\n' => Class::LineEnd,
        b' ' | b'\t' | b'\r' | 0x0B | 0x0C => Class::Space,
        b'0'..=b'9' => Class::Digit,
        b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => Class::Letter,
        _ => Class::Sign,
    }
}

/// Cuts text into pieces; together they are the text.
fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at_checked(piece_len(rest))?;
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Length of the first piece of `text`; 0 only for an empty text.
fn piece_len(text: &[u8]) -> usize {
    let run = |from: usize, of: Class| {
        text.get(from..).unwrap_or_default().iter().take_while(|&&byte| class(byte) == of).count()
    };
    match text.first().map(|&byte| class(byte)) {
        None => 0,
        Some(Class::LineEnd) => 1,
        Some(Class::Space) => {
            let spaces = run(0, Class::Space);
            let next = text.get(spaces).map(|&byte| class(byte));
            let joins = text.get(spaces - 1) == Some(&b' ');
            match next {
                // The last space belongs to what follows: alone it begins that piece, otherwise it is left for it.
                Some(of) if of != Class::LineEnd && joins && spaces == 1 => 1 + run(1, of),
                Some(of) if of != Class::LineEnd && joins => spaces - 1,
                _ => spaces,
            }
        }
        Some(of) => run(0, of),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        pieces(text.as_bytes()).map(|piece| std::str::from_utf8(piece).unwrap()).collect()
    }

    /// Words of three letters out of four: most pairs are as frequent as many others.
    fn text_of_ties(seed: u64, words: usize) -> String {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = String::new();
        for _ in 0..words {
            text.push(' ');
            let len = rng.random_range(2..7);
            text.extend((0..len).map(|_| *b"abcd".get(rng.random_range(0..4)).unwrap() as char));
        }
        text + " \n"
    }

    #[test]
    fn text_is_cut_where_the_kind_of_sign_changes() {
        assert_eq!(cut(" = The 'x' \n"), [" =", " The", " '", "x", "'", " ", "\n"]);
        assert_eq!(cut("a  b\t c42é日.\n\n "), ["a", " ", " b", "\t", " c", "42", "é日", ".", "\n", "\n", " "]);
        assert_eq!(cut(" \n \n"), [" ", "\n", " ", "\n"]);
        assert_eq!(cut(""), Vec::<&str>::new());
    }

    #[test]
    fn the_alphabet_is_that_of_the_crate() {
        let ours: HashSet<char> = alphabet().into_iter().collect();
        let theirs: HashSet<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(alphabet().get(32), Some(&'Ġ'));
        assert_eq!(alphabet().get(10), Some(&'Ċ'));
    }

    /// The crate's hash maps are seeded at random, so a tie that their order decided would differ between these runs.
    #[test]
    fn training_twice_gives_the_same_tables() {
        for seed in 0..4 {
            let text = text_of_ties(seed, 1500);
            let first = BpeVocabulary::train(&text, 500).unwrap();
            for _ in 0..5 {
                assert_eq!(BpeVocabulary::train(&text, 500).unwrap().tables, first.tables);
            }
        }
    }

    #[test]
    fn any_text_is_spelt_without_loss_and_line_by_line() {
        let vocabulary = BpeVocabulary::train(&text_of_ties(1, 300), 300).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..50 {
            let text: String = (0..200)
                .map(|_| match rng.random_range(0..4) {
                    0 => ' ',
                    1 => rng.random_range('\0'..'\u{80}'),
                    2 => rng.random_range('a'..'e'),
                    _ => rng.random::<char>(),
                })
                .collect();
            let ids = vocabulary.encode(&text).unwrap();
            let mut bytes = Vec::new();
            for &id in &ids {
                vocabulary.append(id, &mut bytes).unwrap();
            }
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            let lines = text.split_inclusive('\n').flat_map(|line| vocabulary.encode(line).unwrap());
            assert_eq!(lines.collect::<Vec<_>>(), ids);
        }
    }

    #[test]
    fn frequent_pairs_are_merged_first_and_shorten_the_text() {
        let vocabulary = BpeVocabulary::train(&" abab abab cd \n".repeat(20), 260).unwrap();
        // 80 × ab, then 40 × abab (or Ġab) and so on: each merge joins the most frequent pair there is.
        assert_eq!(vocabulary.token_bytes(256), Some(b"ab".as_slice()));
        assert_eq!(vocabulary.encode(" abab\n").unwrap().len(), 2);
        assert_eq!(vocabulary.encode("\n").unwrap(), [vocabulary.newline()]);
    }

    #[test]
    fn a_size_the_text_cannot_fill_is_an_error() {
        let error = BpeVocabulary::train("abc abc", 255).unwrap_err().to_string();
        assert!(error.contains("at least 256"), "{error}");
        let error = BpeVocabulary::train("abc abc", 1000).unwrap_err().to_string();
        assert!(error.contains("only 258"), "{error}");
    }
}
