//! A part of one of the dataset's files, as a grid names it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use data::datasets::wikitext::articles::{articles, cut};
use data::datasets::wikitext::{Split, Text};
use data::error::{At, DataError, DataResult};
use data::files::sha256_hex;

/// What is accepted, for messages.
const EXPECTED: &str = "expected `train`, `valid` or `test`, or a part of one as in `'valid[:0.9]'` (its first nine tenths) \
                        and `'valid[0.9:]'` (the rest), with shares from 0 to 1 that rise";

/// A file or a stretch of it, cut where an article begins: `valid`, `valid[:0.9]`, `valid[0.9:]`, `valid[0.2:0.4]`.
///
/// Each end is the beginning of an article that is nearest to its share of the file's bytes, so that no article is in two
/// parts, and parts that meet at a share have every article between them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline)]
pub struct TextPart {
    split: Split,
    from: f64,
    to: f64,
}

impl TextPart {
    /// A whole file.
    #[must_use]
    pub fn whole(split: Split) -> Self {
        Self { split, from: 0.0, to: 1.0 }
    }

    /// Whether it is a whole file.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::whole(self.split)
    }

    /// The file.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// Whether the two have text in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.split == other.split && self.from < other.to && other.from < self.to
    }

    /// This part of the whole file's text.
    ///
    /// # Errors
    /// `Corrupt` if the file has too few articles for the part to have one.
    pub fn of(&self, whole: Text, path: &std::path::Path) -> DataResult<Text> {
        if self.is_whole() {
            return Ok(whole);
        }
        let all = articles(data::datasets::wikitext::check_text(path, &whole.bytes)?);
        let end = |share| cut(&all, whole.bytes.len(), share);
        let (from, to, found) = (end(self.from), end(self.to), all.len());
        let mut bytes = whole.bytes;
        bytes.truncate(to);
        bytes.drain(..from.min(to));
        if bytes.is_empty() {
            let expected = format!("an article in `{self}`: a part is cut where articles begin");
            return Err(DataError::corrupt(path, At::File, expected, format!("{found} articles in the file")));
        }
        let fingerprint = sha256_hex(&bytes);
        Ok(Text { bytes, fingerprint })
    }
}

impl fmt::Display for TextPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.split.name())?;
        match (self.from > 0.0, self.to < 1.0) {
            (false, false) => Ok(()),
            (true, false) => write!(f, "[{}:]", self.from),
            (false, true) => write!(f, "[:{}]", self.to),
            (true, true) => write!(f, "[{}:{}]", self.from, self.to),
        }
    }
}

impl From<TextPart> for String {
    fn from(part: TextPart) -> Self {
        part.to_string()
    }
}

impl TryFrom<String> for TextPart {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text).ok_or_else(|| format!("{EXPECTED}, got `{text}`"))
    }
}

fn parse(text: &str) -> Option<TextPart> {
    let text = text.trim();
    let (name, shares) = match text.split_once('[') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(']')?.split_once(':')?)),
        None => (text, None),
    };
    let split = [Split::Train, Split::Valid, Split::Test].into_iter().find(|split| split.name() == name)?;
    let share = |text: &str, absent: f64| match text.trim() {
        "" => Some(absent),
        text => text.parse::<f64>().ok(),
    };
    let (from, to) = match shares {
        Some((from, to)) => (share(from, 0.0)?, share(to, 1.0)?),
        None => (0.0, 1.0),
    };
    (0.0 <= from && from < to && to <= 1.0).then_some(TextPart { split, from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> TextPart {
        TextPart::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn names_come_back_and_nonsense_is_refused() {
        for text in ["train", "valid", "test", "valid[:0.9]", "valid[0.9:]", "test[0.25:0.5]"] {
            assert_eq!(part(text).to_string(), text);
        }
        assert_eq!(part("valid[:]"), part("valid"));
        assert_eq!(part("valid[0:1]"), part("valid"));
        let bad =
            ["", "dev", "valid[0.9]", "valid[0.9:", "valid[0.5:0.5]", "valid[0.9:0.1]", "valid[:1.5]", "valid[-1:]"];
        for text in bad.into_iter().chain(["valid[a:]", "valid[nan:]", "valid[:nan]"]) {
            let error = TextPart::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains("valid[:0.9]") && error.ends_with(&format!("got `{text}`")), "{error}");
        }
    }

    #[test]
    fn overlap_is_judged_by_what_is_in_the_parts() {
        for (a, b, expected) in [
            ("valid[:0.9]", "valid[0.9:]", false),
            ("valid[:0.9]", "valid[0.85:]", true),
            ("valid", "valid[0.9:]", true),
            ("valid[0.2:0.4]", "valid[0.3:0.35]", true),
            ("valid", "test", false),
            ("test", "test", true),
        ] {
            assert_eq!(part(a).overlaps(&part(b)), expected, "{a} {b}");
            assert_eq!(part(b).overlaps(&part(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn parts_meet_at_an_article_and_are_the_whole_together() {
        let articles: Vec<String> =
            (0..7).map(|i| format!(" \n = T{i} = \n \n{} . \n", " x".repeat(i * 9 + 1))).collect();
        let text = Text { bytes: articles.concat().into_bytes(), fingerprint: "whole".into() };
        let path = std::path::Path::new("t");
        let of = |name: &str| part(name).of(text.clone(), path).unwrap();
        for share in ["0.1", "0.35", "0.5", "0.77"] {
            let (head, tail) = (of(&format!("valid[:{share}]")), of(&format!("valid[{share}:]")));
            assert_eq!([head.bytes.clone(), tail.bytes.clone()].concat(), text.bytes);
            assert!(tail.bytes.starts_with(b" \n = T") && head.bytes.starts_with(b" \n = T"), "{share}");
            assert_ne!(head.fingerprint, tail.fingerprint);
        }
        assert_eq!(of("valid"), text);
        let error = part("valid[0.99:]").of(text.clone(), path).unwrap_err().to_string();
        assert!(error.contains("an article in `valid[0.99:]`") && error.contains("7 articles"), "{error}");
    }
}
