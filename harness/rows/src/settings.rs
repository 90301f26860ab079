//! The settings of a cell, which its rows share.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Resolved configuration: path, such as `model.lambda`, to value. A copy costs nothing until it is changed.
#[derive(Clone, Debug, Default)]
pub struct Settings(Arc<BTreeMap<String, String>>);

impl Settings {
    /// Whether both are one map in memory, which two copies are; equal maps that were made apart are not.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl Deref for Settings {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Settings {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl From<BTreeMap<String, String>> for Settings {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(Arc::new(map))
    }
}

impl FromIterator<(String, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        BTreeMap::from_iter(entries).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_changed_leaves_the_other_as_it_was() {
        let first: Settings = [("model.width".to_owned(), "8".to_owned())].into_iter().collect();
        let mut second = first.clone();
        assert!(second.is_shared_with(&first));
        second.insert("model.width".to_owned(), "9".to_owned());
        assert_eq!(first["model.width"], "8");
        assert_ne!(first, second);
        second.insert("model.width".to_owned(), "8".to_owned());
        assert!(first == second && !second.is_shared_with(&first));
    }
}
