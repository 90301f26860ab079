//! WikiText-103 by the text of its splits. Nobody publishes checksums of the token files; their sizes are published.

use std::path::Path;

use super::{Found, Identity, generated};
use crate::datasets::wikitext::{Split, Text};

/// What a split's text measures, whatever the layout it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFacts {
    /// Which split it is said to be.
    pub split: Split,
    /// Lines.
    pub(super) lines: u64,
    /// Bytes of the Hub's rows: the text, where a line with nothing but a blank counts nothing.
    pub(super) row_bytes: u64,
    /// SHA-256 of the text.
    pub(super) sha256: String,
    /// Words and ends of lines, where they were counted.
    pub tokens: Option<u64>,
}

impl TextFacts {
    /// Measures a whole split; the tokens are left open.
    #[must_use]
    pub fn of(split: Split, text: &Text) -> Self {
        let (mut lines, mut empty) = (0, 0);
        for line in text.bytes.split_inclusive(|&byte| byte == b'\n') {
            lines += 1;
            empty += u64::from(line == b" \n");
        }
        let row_bytes = text.bytes.len() as u64 - 2 * empty;
        Self { split, lines, row_bytes, sha256: text.fingerprint.clone(), tokens: None }
    }

    /// Whether the two have one text.
    #[must_use]
    pub fn has_text_of(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

/// What is published of a split.
struct Published {
    split: Split,
    /// `NUM_LINES` of pytorch/text, torchtext/datasets/wikitext103.py @ 01085ab916ab9397649da3724f4eba0cdc15a480, and
    /// `num_examples` of huggingface/datasets, `datasets/wikitext/dataset_infos.json` @ 040102f100964a33fd334e2695f1c493fa6b92db.
    lines: u64,
    /// `num_bytes` of that `dataset_infos.json`: the rows and four bytes for the offset of each row and of each chunk of rows.
    hub_bytes: u64,
    /// As Merity et al. (2016) count, ends of lines with them. The training split's 103,227,021 stands in several public loaders.
    tokens: u64,
    /// SHA-256 of the text, where it is known: of files rebuilt from the Hub's rows, whose sizes are all as published.
    sha256: Option<&'static str>,
}

const PUBLISHED: [Published; 3] = [
    Published { split: Split::Train, lines: 1_801_350, hub_bytes: 545_142_639, tokens: 103_227_021, sha256: None },
    Published {
        split: Split::Valid,
        lines: 3760,
        hub_bytes: 1_154_755,
        tokens: 217_646,
        sha256: Some("9aee9f52d6e77de6c7751fc5e7c44287db3ec0eaf15477098acc6b93c1c4250b"),
    },
    Published {
        split: Split::Test,
        lines: 4358,
        hub_bytes: 1_295_579,
        tokens: 245_569,
        sha256: Some("56db52eb157b1ab5c89646eef70510c1eca6e12a3bfdb99f0d6b05b4eacb75b9"),
    },
];

/// Rows of the smallest chunk in which the Hub's loader writes.
const ROWS_OF_A_CHUNK: u64 = 1000;

impl Published {
    fn fits(&self, facts: &TextFacts) -> bool {
        let chunks = 1..=1 + self.lines / ROWS_OF_A_CHUNK;
        let offsets = self.hub_bytes.saturating_sub(facts.row_bytes);
        facts.lines == self.lines
            && offsets.is_multiple_of(4)
            && chunks.contains(&(offsets / 4).saturating_sub(self.lines))
            && facts.tokens.is_none_or(|tokens| tokens == self.tokens)
            && self.sha256.is_none_or(|sha256| sha256 == facts.sha256)
    }
}

/// WikiText-103 by what its splits measure. `used` are the splits that are read; `whole` says that the three are used as the dataset
/// divides them.
#[must_use]
pub fn language(root: &Path, used: &[TextFacts], whole: bool) -> Found {
    if let Some(found) = generated(root) {
        return found;
    }
    let fits = |facts: &TextFacts| PUBLISHED.iter().any(|p| p.split == facts.split && p.fits(facts));
    if let Some(other) = used.iter().find(|facts| !fits(facts)) {
        return Found::unverified(format!("the {} split is not the published one", other.split.name()));
    }
    let names: Vec<&str> = used.iter().map(|facts| facts.split.name()).collect();
    match (used.is_empty(), whole) {
        (true, _) => Found::unverified("no split is read"),
        (false, true) => Found::new(Identity::Published, "lines, bytes and tokens of all splits are as published"),
        (false, false) => Found::new(Identity::Subset, format!("parts of {}, which are as published", and(&names))),
    }
}

/// `a`, `a and b`.
fn and(names: &[&str]) -> String {
    match names {
        [one] => format!("the {one} split"),
        _ => format!("the {} splits", names.join(" and ")),
    }
}
