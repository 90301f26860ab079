//! Whole words, as in the published WikiText-103 results: closed vocabulary with `<unk>`, line ends as `<eos>`.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What stands for a word outside the vocabulary; the published text already contains it.
pub const UNK: &str = "<unk>";
/// What stands for a line end.
pub const EOS: &str = "<eos>";

/// The words of a training text with their ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Types", into = "Types")]
pub struct WordVocabulary {
    /// Word of each id.
    types: Vec<String>,
    /// Id of each word.
    ids: HashMap<String, u32>,
    unk: u32,
    eos: u32,
}

/// What is stored: the words in the order of their ids.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "word", deny_unknown_fields)]
struct Types {
    types: Vec<String>,
}

impl TryFrom<Types> for WordVocabulary {
    type Error = String;

    fn try_from(Types { types }: Types) -> Result<Self, String> {
        let mut ids = HashMap::with_capacity(types.len());
        for (id, word) in types.iter().enumerate() {
            let id = u32::try_from(id).map_err(|_| format!("{} words, at most 2^32 expected", types.len()))?;
            if ids.insert(word.clone(), id).is_some() {
                return Err(format!("word {word:?} has two ids, expected one"));
            }
        }
        let id = |word: &str| ids.get(word).copied().ok_or_else(|| format!("no {word}, expected among the words"));
        let (unk, eos) = (id(UNK)?, id(EOS)?);
        Ok(Self { types, ids, unk, eos })
    }
}

impl From<WordVocabulary> for Types {
    fn from(vocabulary: WordVocabulary) -> Self {
        Self { types: vocabulary.types }
    }
}

impl WordVocabulary {
    /// Counts the words of a text and numbers them, see [`super::Vocabulary::word`].
    pub(super) fn build(text: &str) -> Self {
        // Word → (count, order of first appearance).
        let mut counts: HashMap<&str, (u64, usize)> = HashMap::new();
        for word in words(text).chain([UNK, EOS]) {
            let order = counts.len();
            counts.entry(word).or_insert((0, order)).0 += 1;
        }
        // The two that are always there were counted once too often.
        for word in [UNK, EOS] {
            counts.entry(word).and_modify(|(count, _)| *count -= 1);
        }
        let mut ordered: Vec<(&str, (u64, usize))> = counts.into_iter().collect();
        ordered.sort_unstable_by_key(|&(_, (count, order))| (Reverse(count), order));
        let types: Vec<String> = ordered.iter().map(|&(word, _)| word.to_owned()).collect();
        let ids: HashMap<String, u32> = types.iter().cloned().zip(0..).collect();
        let id = |word| ids.get(word).copied().unwrap_or_default();
        let (unk, eos) = (id(UNK), id(EOS));
        Self { types, ids, unk, eos }
    }

    /// Number of words, `<unk>` and `<eos>` among them.
    pub fn size(&self) -> usize {
        self.types.len()
    }

    /// Id of `<eos>`.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Id of `<unk>`.
    pub fn unk(&self) -> u32 {
        self.unk
    }

    /// Ids of a text, and how many of its words are not in the vocabulary.
    pub(super) fn encode(&self, text: &str) -> (Vec<u32>, u64) {
        let mut unknown = 0;
        let ids = words(text).map(|word| {
            self.ids.get(word).copied().unwrap_or_else(|| {
                unknown += 1;
                self.unk
            })
        });
        (ids.collect(), unknown)
    }

    /// Appends the dataset's spelling of an id; `None` if it is unknown.
    pub(super) fn append(&self, id: u32, bytes: &mut Vec<u8>) -> Option<()> {
        let word = self.types.get(id as usize)?;
        bytes.push(b' ');
        bytes.extend_from_slice(if id == self.eos { b"\n" } else { word.as_bytes() });
        Some(())
    }
}

/// The words of a text with line ends.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').flat_map(|line| {
        let end = line.ends_with('\n').then_some(EOS);
        line.split_whitespace().chain(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_count_then_first_appearance() {
        let vocabulary = WordVocabulary::build(" b a \n c a <unk> \n c");
        // counts: a 2, <eos> 2, c 2, b 1, <unk> 1; b appears first of all
        assert_eq!(vocabulary.types, ["a", EOS, "c", "b", UNK]);
        let (ids, unknown) = vocabulary.encode("c zz\n<unk> a");
        assert_eq!((ids, unknown), (vec![2, 4, 1, 4, 0], 1));
    }

    #[test]
    fn both_special_words_exist_without_being_in_the_text() {
        let vocabulary = WordVocabulary::build("x");
        assert_eq!(vocabulary.types, ["x", UNK, EOS]);
        assert_eq!((vocabulary.unk(), vocabulary.eos(), vocabulary.size()), (1, 2, 3));
    }

    #[test]
    fn a_last_line_without_an_end_has_no_eos() {
        assert_eq!(words("a\n\nb").collect::<Vec<_>>(), ["a", EOS, EOS, "b"]);
    }
}
