//! Vocabularies: how text becomes the ids a language model sees, one of bytes, whole words or byte-level BPE.
//!
//! Whatever the vocabulary, the number of *words* of a text is counted the same way, the one of the dataset's authors
//! ([`count_words`]), so that perplexity per word and bits per byte can be compared between vocabularies.

mod bpe;
mod word;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::bpe::BpeVocabulary;
pub use self::word::{EOS, UNK, WordVocabulary};
use crate::error::{At, DataError, DataResult};
use crate::files::{sha256_hex, write_whole};

/// Number of byte values, the smallest vocabulary that can spell any text.
pub const BYTE_VALUES: usize = 256;

/// A text as ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Ids below the vocabulary's size, in the order of the text.
    pub ids: Vec<u32>,
    /// Bytes of the original text that the ids stand for: the divisor of bits per byte.
    pub bytes: u64,
    /// Words of the text with line ends: the divisor of the perplexity per word.
    pub words: u64,
    /// Words that became `<unk>` although the text has something else. Above zero, the ids say less than the text,
    /// and bits per byte must not be reported.
    pub unknown: u64,
}

/// A mapping of text to ids and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Vocabulary {
    /// One id per byte: the byte's value.
    Byte,
    /// One id per word of the training text.
    Word(WordVocabulary),
    /// One id per byte sequence learnt by byte-pair encoding.
    Bpe(Box<BpeVocabulary>),
}

impl Vocabulary {
    /// The 256 bytes.
    pub fn byte() -> Self {
        Self::Byte
    }

    /// The words of a training text, most frequent first, words of equal count by first appearance. `<unk>` and `<eos>`
    /// are always among them.
    ///
    /// # Errors
    /// `Corrupt` with the offset of invalid UTF-8.
    pub fn word(train_bytes: &[u8]) -> DataResult<Self> {
        Ok(Self::Word(WordVocabulary::build(utf8(train_bytes)?)))
    }

    /// Byte-level BPE of exactly `size` entries, the 256 bytes among them, trained on a text. The same text gives the
    /// same vocabulary.
    ///
    /// # Errors
    /// `Corrupt` with the offset of invalid UTF-8, for a size below 256 and for a text with too few different pieces to
    /// fill the size.
    pub fn bpe(train_bytes: &[u8], size: usize) -> DataResult<Self> {
        Ok(Self::Bpe(Box::new(BpeVocabulary::train(utf8(train_bytes)?, size)?)))
    }

    /// Number of ids.
    pub fn size(&self) -> usize {
        match self {
            Self::Byte => BYTE_VALUES,
            Self::Word(words) => words.size(),
            Self::Bpe(bpe) => bpe.size(),
        }
    }

    /// The id that stands before the first of a text, where a line has just ended: byte `\n`, word `<eos>`, or the BPE
    /// entry of `\n`.
    pub fn start_id(&self) -> u32 {
        match self {
            Self::Byte => u32::from(b'\n'),
            Self::Word(words) => words.eos(),
            Self::Bpe(bpe) => bpe.newline(),
        }
    }

    /// Turns text into ids. Lines are independent of each other, so the ids of a text are those of its lines.
    ///
    /// # Errors
    /// `Corrupt` with the offset of invalid UTF-8.
    pub fn encode(&self, bytes: &[u8]) -> DataResult<Encoded> {
        let text = utf8(bytes)?;
        let (ids, unknown) = match self {
            Self::Byte => (bytes.iter().map(|&byte| u32::from(byte)).collect(), 0),
            Self::Word(words) => words.encode(text),
            Self::Bpe(bpe) => (bpe.encode(text)?, 0),
        };
        Ok(Encoded { ids, bytes: bytes.len() as u64, words: count_words(text), unknown })
    }

    /// Turns ids into bytes: for bytes and BPE the text exactly; for words the dataset's form of it, where every word
    /// has a space before it and every line ends with `" \n"`.
    ///
    /// # Errors
    /// `Corrupt` for an id that is not below the size; the offset is its index.
    pub fn decode(&self, ids: &[u32]) -> DataResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len());
        for (index, &id) in ids.iter().enumerate() {
            let known = match self {
                Self::Byte => u8::try_from(id).ok().map(|byte| bytes.push(byte)),
                Self::Word(words) => words.append(id, &mut bytes),
                Self::Bpe(bpe) => bpe.append(id, &mut bytes),
            };
            if known.is_none() {
                let expected = format!("ids below {}", self.size());
                return Err(invalid(At::File, expected, format!("id {id} at index {index} of the sequence")));
            }
        }
        Ok(bytes)
    }

    /// SHA-256 over everything that decides how text is encoded, in hexadecimal.
    ///
    /// # Errors
    /// None in practice; serialising may fail in principle.
    pub fn fingerprint(&self) -> DataResult<String> {
        Ok(sha256_hex(&self.to_json()?))
    }

    /// Writes the vocabulary as JSON.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn save(&self, path: &Path) -> DataResult<()> {
        write_whole(path, &self.to_json()?)
    }

    /// Reads what [`Vocabulary::save`] wrote.
    ///
    /// # Errors
    /// `Io` if the file cannot be read, `Corrupt` with the line if it is no vocabulary.
    pub fn load(path: &Path) -> DataResult<Self> {
        let json = std::fs::read(path).map_err(DataError::io(path))?;
        serde_json::from_slice(&json).map_err(|error| {
            DataError::corrupt(
                path,
                At::Line(error.line() as u64),
                "a vocabulary saved by this program",
                error.to_string(),
            )
        })
    }

    /// As JSON, in the form that [`Vocabulary::save`] writes.
    ///
    /// # Errors
    /// None in practice; serialising may fail in principle.
    pub fn json(&self) -> DataResult<serde_json::Value> {
        serde_json::to_value(self).map_err(|error| no_json(&error))
    }

    fn to_json(&self) -> DataResult<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| no_json(&error))
    }
}

fn no_json(error: &serde_json::Error) -> DataError {
    invalid(At::File, "a vocabulary that JSON can hold", error.to_string())
}

/// Words of a text as the dataset's authors count them: whatever white space separates, and one more (`<eos>`) for
/// every line end.
pub fn count_words(text: &str) -> u64 {
    let ends = text.bytes().filter(|&byte| byte == b'\n').count();
    (text.split_whitespace().count() + ends) as u64
}

/// The text, or where it stops being UTF-8.
fn utf8(bytes: &[u8]) -> DataResult<&str> {
    std::str::from_utf8(bytes)
        .map_err(|error| invalid(At::Byte(error.valid_up_to() as u64), "UTF-8 text", "bytes that are not valid UTF-8"))
}

/// An error about text or ids in memory, which have no path.
fn invalid(at: At, expected: impl Into<String>, got: impl Into<String>) -> DataError {
    DataError::corrupt(Path::new("text to encode"), at, expected, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        " \n = The Cat = \n \n the cat sat on the mat , the cat 's mat . \n 1 @,@ 000 naïve cats — 日本 . \n";

    fn all() -> Vec<Vocabulary> {
        let train = TEXT.as_bytes();
        vec![Vocabulary::byte(), Vocabulary::word(train).unwrap(), Vocabulary::bpe(&train.repeat(2), 280).unwrap()]
    }

    #[test]
    fn every_vocabulary_gives_the_text_back_and_counts_the_same_words() {
        for vocabulary in all() {
            let encoded = vocabulary.encode(TEXT.as_bytes()).unwrap();
            assert_eq!(vocabulary.decode(&encoded.ids).unwrap(), TEXT.as_bytes());
            // 4 words of the heading, 12 and 8 of the sentences, 5 line ends
            assert_eq!((encoded.bytes, encoded.words, encoded.unknown), (TEXT.len() as u64, 29, 0));
            assert!(encoded.ids.iter().all(|&id| (id as usize) < vocabulary.size()));
        }
    }

    #[test]
    fn the_start_is_what_ends_a_line() {
        for vocabulary in all() {
            let last = vocabulary.encode(TEXT.as_bytes()).unwrap().ids.last().copied();
            assert_eq!(last, Some(vocabulary.start_id()));
        }
    }

    #[test]
    fn saving_keeps_every_id() {
        let dir = tempfile::tempdir().unwrap();
        for vocabulary in all() {
            let path = dir.path().join("vocabulary.json");
            vocabulary.save(&path).unwrap();
            let loaded = Vocabulary::load(&path).unwrap();
            assert_eq!(loaded, vocabulary);
            assert_eq!(loaded.fingerprint().unwrap(), vocabulary.fingerprint().unwrap());
            let other = " on a mat 日本語 \n".as_bytes();
            assert_eq!(loaded.encode(other).unwrap(), vocabulary.encode(other).unwrap());
        }
        let prints: std::collections::BTreeSet<_> = all().iter().map(|v| v.fingerprint().unwrap()).collect();
        assert_eq!(prints.len(), 3);
    }

    #[test]
    fn damaged_files_bad_text_and_bad_ids_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.json");
        for json in [
            r#"{"kind":"word","types":["a","a","<unk>","<eos>"]}"#,
            r#"{"kind":"word","types":["a"]}"#,
            r#"{"kind":"bpe","tokens":["a"],"merges":[]}"#,
            r#"{"kind":"char"}"#,
            "{",
        ] {
            std::fs::write(&path, json).unwrap();
            assert!(matches!(Vocabulary::load(&path), Err(DataError::Corrupt { .. })), "{json}");
        }
        for vocabulary in all() {
            let error = vocabulary.encode(b"ab\xffc").unwrap_err().to_string();
            assert!(error.contains("at byte 2"), "{error}");
            assert!(vocabulary.decode(&[vocabulary.size() as u32]).is_err());
        }
    }
}
