//! What a reader did not take as it found it: skipped, repaired, missing, or no part of the dataset.
//!
//! Readers fill an [`Account`] while they read and hand it out with what they read. Nothing is left out in silence: whoever
//! uses the data shows the counts, and may refuse when too much is left out ([`Account::share_left_out`]).

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, DataError, DataResult};

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Data that should be there and are not.
    Missing,
    /// Data that are there and cannot be used.
    Skipped,
    /// Data that are used, but not as they stand.
    Repaired,
    /// No part of the dataset, such as a companion file of another system: nothing is lost.
    Foreign,
}

impl Kind {
    /// All of them, the gravest first.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Skipped, Self::Repaired, Self::Foreign];

    /// As tables and sentences have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Skipped => "skipped",
            Self::Repaired => "repaired",
            Self::Foreign => "not of the dataset",
        }
    }

    /// Whether data are lost by it.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::Missing | Self::Skipped)
    }
}

/// One thing that was not taken as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// What became of it.
    pub kind: Kind,
    /// Why; the same words for the same reason, so that notices can be counted by it.
    pub reason: String,
    /// What: a recording or file, without control characters.
    pub place: String,
}

/// Notices of one kind and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What became of them.
    pub kind: Kind,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The first of them, at most [`PLACES_SHOWN`].
    pub places: Vec<String>,
}

/// Places that a [`Group`] names.
pub const PLACES_SHOWN: usize = 3;

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} ({}", self.count, self.kind.name(), self.reason, self.places.join(", "))?;
        if self.count > self.places.len() as u64 {
            write!(f, ", …")?;
        }
        write!(f, ")")
    }
}

/// What was read, and what was not taken as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    items: u64,
    notices: Vec<Notice>,
}

impl Account {
    /// Without notices.
    #[must_use]
    pub const fn new() -> Self {
        Self { items: 0, notices: Vec::new() }
    }

    /// Counts items that the dataset says it has (recordings, utterances, texts), whatever became of them.
    pub fn expect(&mut self, items: u64) {
        self.items += items;
    }

    /// Adds a notice about `place`.
    pub fn add(&mut self, kind: Kind, place: impl fmt::Display, reason: impl Into<String>) {
        self.notices.push(Notice { kind, reason: reason.into(), place: inert(&place.to_string()) });
    }

    /// Takes in another account: of another split or part.
    pub fn extend(&mut self, other: Self) {
        self.items += other.items;
        self.notices.extend(other.notices);
    }

    /// Items that the dataset says it has.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// All notices, in the order in which they came.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// How many notices of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.notices.iter().filter(|notice| notice.kind == kind).count() as u64
    }

    /// Share of the items that is missing or skipped, 0 to 1; 0 without items.
    #[must_use]
    pub fn share_left_out(&self) -> f64 {
        let lost = self.notices.iter().filter(|notice| notice.kind.is_loss()).count();
        if self.items == 0 { 0.0 } else { lost as f64 / self.items as f64 }
    }

    /// Refuses a dataset of which more than this share (0 to 1) is missing or skipped; `path` is where it lies.
    ///
    /// # Errors
    /// `Corrupt` with the counts and the first of each reason.
    pub fn allow(&self, share: f64, path: &Path) -> DataResult<()> {
        let left_out = self.share_left_out();
        if left_out <= share {
            return Ok(());
        }
        let why: Vec<String> = self.groups().iter().filter(|g| g.kind.is_loss()).map(ToString::to_string).collect();
        let got = format!("{:.1} % of {} cannot be used: {}", 100.0 * left_out, self.items, why.join("; "));
        let expected = format!(
            "at most {} % left out; get what is missing, or allow a larger share with `train.left_out`",
            100.0 * share
        );
        Err(DataError::corrupt(path, At::File, expected, got))
    }

    /// The notices by kind and reason, the gravest kind first and then the most frequent.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut sorted: Vec<&Notice> = self.notices.iter().collect();
        sorted.sort();
        let mut groups: Vec<Group> = Vec::new();
        for notice in sorted {
            match groups.last_mut().filter(|group| group.kind == notice.kind && group.reason == notice.reason) {
                Some(group) => {
                    group.count += 1;
                    if group.places.len() < PLACES_SHOWN {
                        group.places.push(notice.place.clone());
                    }
                }
                None => groups.push(Group {
                    kind: notice.kind,
                    reason: notice.reason.clone(),
                    count: 1,
                    places: vec![notice.place.clone()],
                }),
            }
        }
        groups.sort_by_key(|group| (group.kind, std::cmp::Reverse(group.count))); // stable: by reason among equals
        groups
    }
}

/// A text that does nothing to a terminal: control characters, and what turns the direction of writing, are escaped.
#[must_use]
pub fn inert(text: &str) -> String {
    let acts = |c: char| {
        c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_counted_by_kind_and_reason() {
        let mut account = Account::new();
        account.expect(200);
        for n in 0..5 {
            account.add(Kind::Repaired, format_args!("b{n}"), "padding");
        }
        account.add(Kind::Skipped, "a", "no montage");
        let mut other = Account::new();
        other.expect(100);
        other.add(Kind::Missing, "c\u{1b}[2J", "no file");
        other.add(Kind::Missing, "d", "no file");
        other.add(Kind::Foreign, "._d", "a companion file");
        account.extend(other);
        assert_eq!(Kind::ALL.map(|kind| account.count(kind)), [2, 1, 5, 1]);
        assert!((account.share_left_out() - 0.01).abs() < 1e-12, "repaired and foreign lose nothing");
        assert_eq!((account.items(), account.notices().len()), (300, 9));
        let groups: Vec<String> = account.groups().iter().map(ToString::to_string).collect();
        assert_eq!(
            groups,
            [
                "2 missing: no file (c\\u{1b}[2J, d)",
                "1 skipped: no montage (a)",
                "5 repaired: padding (b0, b1, b2, …)",
                "1 not of the dataset: a companion file (._d)",
            ]
        );
        assert!(account.allow(0.01, Path::new("d")).is_ok());
        let refused = account.allow(0.005, Path::new("d")).unwrap_err().to_string();
        let expected = "d: 1.0 % of 300 cannot be used: 2 missing: no file (c\\u{1b}[2J, d); 1 skipped: no montage (a)\n  \
                        expected: at most 0.5 % left out";
        assert!(refused.starts_with(expected), "{refused}");
        assert!(Account::new().share_left_out().abs() < 1e-12 && Account::new().allow(0.0, Path::new("d")).is_ok());
    }
}
