//! Texts as ids: a whole token file is not kept beside its ids, and the bytes of a text are their own ids.

use std::ops::Range;
use std::path::Path;

use data::datasets::vocabulary::Vocabulary;
use data::datasets::wikitext::articles::{Article, articles};
use data::datasets::wikitext::{self, Split};
use data::error::DataResult;

/// An article in the tokens of a part.
pub struct Piece {
    /// Its heading.
    pub title: Option<String>,
    /// Its tokens among those of the part.
    pub tokens: Range<usize>,
    /// Its bytes.
    pub bytes: u64,
    /// Its words and ends of lines.
    pub words: u64,
}

/// Ids, as narrow as they are.
#[derive(Debug, PartialEq, Eq)]
pub enum Ids {
    /// Of the vocabulary of bytes: the text itself.
    Bytes(Vec<u8>),
    /// Of any other.
    Wide(Vec<u32>),
}

impl Ids {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(ids) => ids.len(),
            Self::Wide(ids) => ids.len(),
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<u32> {
        match self {
            Self::Bytes(ids) => ids.get(index).copied().map(u32::from),
            Self::Wide(ids) => ids.get(index).copied(),
        }
    }

    /// All of them, for tests.
    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<u32> {
        (0..self.len()).filter_map(|index| self.get(index)).collect()
    }
}

/// Where a text that is not kept can be read again.
pub struct Again<'a> {
    /// The dataset's folder.
    pub root: &'a Path,
    /// The split, whole.
    pub split: Split,
    /// SHA-256 of its text.
    pub sha256: &'a str,
}

/// A part, encoded.
pub struct Tokens {
    /// Its ids.
    pub ids: Ids,
    /// Words and ends of lines.
    pub words: u64,
    /// Words that became `<unk>` although the text has something else.
    pub unknown: u64,
    /// In order: all tokens are in one of them.
    pub articles: Vec<Piece>,
    /// Bytes that were encoded.
    done: usize,
}

impl Tokens {
    /// Encodes a text article by article, which gives the tokens of the whole: lines are independent of each other.
    ///
    /// # Errors
    /// If the text cannot be encoded.
    pub fn new(vocabulary: &Vocabulary, bytes: &[u8]) -> DataResult<Self> {
        let found = articles(wikitext::check_text(Path::new("wikitext-103"), bytes)?);
        let mut tokens =
            Self { ids: none(vocabulary), words: 0, unknown: 0, articles: Vec::with_capacity(found.len()), done: 0 };
        let ends = found.iter().skip(1).map(|next| next.start).chain([bytes.len()]).collect::<Vec<_>>();
        for (Article { start, title }, end) in found.into_iter().zip(ends) {
            tokens.add(vocabulary, bytes.get(start..end).unwrap_or_default(), title, bytes.len())?;
        }
        Ok(tokens)
    }

    /// Encodes a text that nobody scores, as one article. The text goes before its ids come where it can be read `again`.
    ///
    /// # Errors
    /// If the text cannot be encoded, or is another one when it is read again.
    pub fn unscored(vocabulary: &Vocabulary, bytes: Vec<u8>, again: Option<Again>) -> DataResult<Self> {
        let total = bytes.len();
        let mut tokens = Self { ids: none(vocabulary), words: 0, unknown: 0, articles: Vec::new(), done: 0 };
        match (again, vocabulary) {
            (_, Vocabulary::Byte) => {
                tokens.words =
                    data::datasets::vocabulary::count_words(wikitext::check_text(Path::new("wikitext-103"), &bytes)?);
                tokens.ids = Ids::Bytes(bytes);
            }
            (Some(Again { root, split, sha256 }), Vocabulary::Word(_) | Vocabulary::Bpe(_))
                if wikitext::is_file(root, split) =>
            {
                drop(bytes);
                wikitext::read_again(root, split, sha256, |piece| {
                    tokens.add(vocabulary, piece.as_bytes(), None, total)
                })?;
            }
            (_, Vocabulary::Word(_) | Vocabulary::Bpe(_)) => tokens.add(vocabulary, &bytes, None, total)?,
        }
        let (all, words) = (0..tokens.ids.len(), tokens.words);
        tokens.articles = vec![Piece { title: None, tokens: all, bytes: total as u64, words }];
        Ok(tokens)
    }

    /// Encodes the next article or piece of a text of `total` bytes.
    fn add(&mut self, vocabulary: &Vocabulary, bytes: &[u8], title: Option<String>, total: usize) -> DataResult<()> {
        let first = self.ids.len();
        let (words, unknown, length) = match &mut self.ids {
            Ids::Bytes(ids) => {
                ids.extend_from_slice(bytes);
                let text = wikitext::check_text(Path::new("wikitext-103"), bytes)?;
                (data::datasets::vocabulary::count_words(text), 0, bytes.len() as u64)
            }
            Ids::Wide(ids) => {
                let encoded = vocabulary.encode(bytes)?;
                if ids.is_empty() && bytes.len() == total {
                    *ids = encoded.ids;
                } else {
                    self.done += bytes.len();
                    make_room(ids, &encoded.ids, self.done, total);
                    ids.extend_from_slice(&encoded.ids);
                }
                (encoded.words, encoded.unknown, encoded.bytes)
            }
        };
        self.words += words;
        self.unknown += unknown;
        self.articles.push(Piece { title, tokens: first..self.ids.len(), bytes: length, words });
        Ok(())
    }
}

fn none(vocabulary: &Vocabulary) -> Ids {
    match vocabulary {
        Vocabulary::Byte => Ids::Bytes(Vec::new()),
        Vocabulary::Word(_) | Vocabulary::Bpe(_) => Ids::Wide(Vec::new()),
    }
}

/// By how much a text may have more tokens than its first bytes tell. What is not used of it is never touched.
const MARGIN: f64 = 1.05;

/// Makes room for all ids of a text at once, judged by its first `done` bytes of `total`: to grow by doubling would take up to three
/// times as much while the ids move.
fn make_room(ids: &mut Vec<u32>, more: &[u32], done: usize, total: usize) {
    if ids.capacity() - ids.len() < more.len() {
        let so_far = ids.len() + more.len();
        let all = so_far as f64 * (total as f64 / done.max(1) as f64).max(1.0) * MARGIN;
        ids.reserve_exact((all as usize).max(so_far) - ids.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever way a text comes, its ids are those of the text as a whole.
    #[test]
    fn a_text_that_is_read_again_has_the_same_ids_and_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let line = |i: u32| format!(" the {} cat Ω {} . \n", i % 97, i % 7);
        let text = (0..9000).map(line).collect::<Vec<String>>().concat();
        let bytes = text.into_bytes();
        std::fs::write(dir.path().join("wiki.train.tokens"), &bytes).unwrap();
        let sha256 = data::files::sha256_hex(&bytes);
        let again = |sha256| Some(Again { root: dir.path(), split: Split::Train, sha256 });
        let vocabularies =
            [Vocabulary::byte(), Vocabulary::word(&bytes).unwrap(), Vocabulary::bpe(&bytes, 300).unwrap()];
        for vocabulary in &vocabularies {
            let whole = Tokens::unscored(vocabulary, bytes.clone(), None).unwrap();
            let streamed = Tokens::unscored(vocabulary, bytes.clone(), again(&sha256)).unwrap();
            let expected = vocabulary.encode(&bytes).unwrap();
            for tokens in [whole, streamed] {
                assert_eq!((tokens.ids.to_vec(), tokens.words), (expected.ids.clone(), expected.words));
                assert_eq!((tokens.articles.len(), tokens.articles[0].bytes), (1, bytes.len() as u64));
                assert_eq!(tokens.articles[0].tokens, 0..expected.ids.len());
            }
        }
        let other = data::files::sha256_hex(b"another text");
        let error = Tokens::unscored(&vocabularies[1], bytes, again(&other)).err().unwrap().to_string();
        assert!(error.contains("wiki.train.tokens") && error.contains("changed while it was read"), "{error}");
    }

    #[test]
    fn room_is_made_once_for_a_text_whose_pieces_are_alike() {
        let (mut ids, piece) = (Vec::new(), vec![1_u32; 1000]);
        let mut moved = 0;
        for done in 1..=50 {
            let before = ids.capacity();
            make_room(&mut ids, &piece, done * 4000, 50 * 4000);
            moved += usize::from(ids.capacity() != before);
            ids.extend_from_slice(&piece);
        }
        assert_eq!((moved, ids.len()), (1, 50_000));
        assert!(ids.capacity() < 53_000, "{}", ids.capacity());
    }
}
