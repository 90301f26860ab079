//! What is recognised: characters or pieces of words. Output 0 is the blank.

use std::path::Path;

use learner::ctc::BLANK;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use data::datasets::vocabulary::Vocabulary;
use data::error::{At, DataError, DataResult};

/// Characters of `LibriSpeech`'s transcripts, in the order of their labels from 1 on.
const CHARACTERS: &str = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Unit of recognition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Space, apostrophe and the letters A to Z.
    #[default]
    Characters,
    /// Byte-level byte-pair encoding learned on the training transcripts.
    Bpe,
}

/// A mapping of transcripts to labels and back.
pub enum Units {
    /// [`Unit::Characters`].
    Characters,
    /// [`Unit::Bpe`]: ids one higher than the vocabulary's.
    Bpe(Box<Vocabulary>),
}

impl Units {
    /// Learns pieces from the training transcripts, if there is anything to learn.
    ///
    /// # Errors
    /// If there are too few transcripts for so many pieces.
    pub fn new<'a>(unit: Unit, size: usize, training: impl Iterator<Item = &'a str>) -> DataResult<Self> {
        Ok(match unit {
            Unit::Characters => Self::Characters,
            Unit::Bpe => {
                let text = training.flat_map(|line| [line, "\n"]).collect::<String>();
                Self::Bpe(Box::new(Vocabulary::bpe(text.as_bytes(), size)?))
            }
        })
    }

    /// Labels and the blank.
    pub fn outputs(&self) -> usize {
        1 + match self {
            Self::Characters => CHARACTERS.len(),
            Self::Bpe(vocabulary) => vocabulary.size(),
        }
    }

    /// The labels of a transcript.
    ///
    /// # Errors
    /// If a character has no label.
    pub fn encode(&self, text: &str) -> DataResult<Vec<u32>> {
        match self {
            Self::Characters => text
                .chars()
                .map(|c| {
                    let label = CHARACTERS.find(c).map(|at| at as u32 + BLANK + 1);
                    label.ok_or_else(|| {
                        let expected = format!("characters of `{CHARACTERS}`");
                        DataError::corrupt(Path::new("transcript"), At::File, expected, format!("`{c}` in `{text}`"))
                    })
                })
                .collect(),
            Self::Bpe(vocabulary) => {
                Ok(vocabulary.encode(text.as_bytes())?.ids.into_iter().map(|id| id + BLANK + 1).collect())
            }
        }
    }

    /// The text of labels. Pieces that do not make up characters become the replacement character.
    pub fn decode(&self, labels: &[u32]) -> String {
        let ids = labels.iter().filter_map(|label| label.checked_sub(BLANK + 1));
        match self {
            Self::Characters => {
                ids.filter_map(|id| CHARACTERS.as_bytes().get(id as usize)).map(|&byte| char::from(byte)).collect()
            }
            Self::Bpe(vocabulary) => {
                let ids: Vec<u32> = ids.collect();
                String::from_utf8_lossy(&vocabulary.decode(&ids).unwrap_or_default()).replace('\n', " ")
            }
        }
    }

    /// Which output is the blank, and what the others stand for, from output `first` on.
    ///
    /// # Errors
    /// None in practice; serialising may fail in principle.
    pub fn json(&self) -> DataResult<serde_json::Value> {
        let first = BLANK + 1;
        Ok(match self {
            Self::Characters => json!({"kind": "characters", "blank": BLANK, "first": first, "characters": CHARACTERS}),
            Self::Bpe(pieces) => json!({"kind": "bpe", "blank": BLANK, "first": first, "pieces": pieces.json()?}),
        })
    }

    /// What decides the labels of a text.
    ///
    /// # Errors
    /// None in practice; serialising may fail in principle.
    pub fn fingerprint(&self) -> DataResult<String> {
        match self {
            Self::Characters => Ok("characters".into()),
            Self::Bpe(vocabulary) => vocabulary.fingerprint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_come_back_and_no_label_is_the_blank() {
        let texts = ["IT'S A ZOO", "THE THE THE THE", "A"];
        for units in [Units::Characters, Units::new(Unit::Bpe, 258, texts.iter().copied()).unwrap()] {
            for text in texts {
                let labels = units.encode(text).unwrap();
                assert!(labels.iter().all(|&l| l != BLANK && (l as usize) < units.outputs()));
                assert_eq!(units.decode(&labels), text);
            }
        }
        assert_eq!(Units::Characters.outputs(), 29);
        assert!(Units::Characters.encode("É").unwrap_err().to_string().contains('É'));
    }
}
