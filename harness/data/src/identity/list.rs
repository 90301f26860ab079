//! Lists of files with their SHA-256, in the form of `sha256sum`.

use std::collections::HashMap;
use std::path::Path;

use super::sums::Sums;
use crate::error::DataResult;

/// SHA-256 by name.
pub(super) struct List(HashMap<&'static str, &'static str>);

/// What became of files that were held against a list.
pub(super) enum Compared {
    /// Every one is as the list has it.
    Same,
    /// The first, by name, that is not, with what is wrong.
    Other(String),
}

impl List {
    /// Reads `SHA256 NAME` lines.
    pub(super) fn of(text: &'static str) -> Self {
        let line = |line: &'static str| line.split_once(' ').map(|(sum, name)| (name.trim_start(), sum));
        Self(text.lines().filter_map(line).collect())
    }

    /// Whether it has a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Its names that fulfil a condition.
    pub(super) fn count(&self, condition: impl Fn(&str) -> bool) -> usize {
        self.0.keys().filter(|name| condition(name)).count()
    }

    /// Holds files below `root` against the list.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub(super) fn compare(&self, root: &Path, mut names: Vec<String>, sums: &mut Sums) -> DataResult<Compared> {
        names.sort_unstable();
        names.dedup();
        if let Some(name) = names.iter().find(|name| !self.has(name)) {
            return Ok(Compared::Other(format!("{} is no file of the dataset", crate::account::inert(name))));
        }
        let paths: Vec<_> = names.iter().map(|name| root.join(name)).collect();
        for (name, sum) in names.iter().zip(sums.of(&paths)?) {
            let expected = self.0.get(name.as_str()).copied();
            match sum {
                None => return Ok(Compared::Other(format!("{name} is not there"))),
                Some(sum) if Some(sum.as_str()) != expected => {
                    return Ok(Compared::Other(format!("{name} is not the published file")));
                }
                Some(_) => {}
            }
        }
        Ok(Compared::Same)
    }
}
