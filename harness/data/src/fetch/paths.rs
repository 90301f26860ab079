//! Relative paths that stay below the folder they are joined to, and patterns over them.

use std::path::{Path, PathBuf};

use super::error::{FetchError, FetchResult};

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

/// Longest path accepted, in bytes; the limit of Linux.
const PATH_BYTES_MAX: usize = 4096;
/// Deepest path accepted. The datasets' deepest has four components.
const PATH_DEPTH_MAX: usize = 32;

/// A relative path in portable form: UTF-8, components separated by `/`, none of them empty, `.` or `..`, without
/// backslash, colon, NUL or control characters. Joined to a folder it cannot leave it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SafePath(String);

impl SafePath {
    /// Checks a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > PATH_BYTES_MAX {
            return Err(format!("a path of {} bytes; expected 1 to {PATH_BYTES_MAX}", text.len()));
        }
        if text.starts_with('/') {
            return Err(format!("the absolute path {text:?}; expected a relative one"));
        }
        if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '\\' | ':')) {
            return Err(format!("{bad:?} in the path {text:?}; expected names separated by `/`"));
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("the path {text:?}; expected one without empty parts, `.` and `..`"));
        }
        if text.split('/').count() > PATH_DEPTH_MAX {
            return Err(format!("a path of more than {PATH_DEPTH_MAX} folders"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This path below `folder`.
    #[must_use]
    pub fn below(&self, folder: &Path) -> PathBuf {
        // Component by component, so that the system's own separator is used.
        self.0.split('/').fold(folder.to_owned(), |path, part| path.join(part))
    }

    /// `self/other`.
    ///
    /// # Errors
    /// If it becomes too long or too deep.
    pub fn join(&self, other: &Self) -> Result<Self, String> {
        Self::new(&format!("{}/{}", self.0, other.0))
    }

    /// Whether this is `folder` or lies below it.
    #[must_use]
    pub fn is_in(&self, folder: &Self) -> bool {
        self.0.strip_prefix(&folder.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl TryFrom<String> for SafePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<SafePath> for String {
    fn from(path: SafePath) -> Self {
        path.0
    }
}

impl std::fmt::Display for SafePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shell pattern over paths: `*` and `?` stay within a component, `**` crosses them.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern(Pattern);

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Pattern::new(&text).map(Self).map_err(|e| format!("the pattern {text:?}: {e}"))
    }
}

impl PathPattern {
    /// Whether the whole of `path` fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let options =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
        self.0.matches_with(path, options)
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Refuses a link among the folders of `data` that lead to `path`, and in its own place: whoever wrote to it would write elsewhere. The
/// data directory itself may be one.
///
/// # Errors
/// [`FetchError::Link`] with the first.
pub fn refuse_links(data: &Path, path: &Path) -> FetchResult<()> {
    let inside = path.strip_prefix(data).unwrap_or(path);
    let mut place = data.to_owned();
    for part in inside.components() {
        place.push(part);
        if std::fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_symlink()) {
            let target = std::fs::read_link(&place).unwrap_or_default();
            return Err(FetchError::Link { path: place, target });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_folder() {
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "a\\b", "c:/x", "a\0b", "a\nb", "a/", ".."] {
            assert!(SafePath::new(bad).is_err(), "{bad:?}");
        }
        assert!(SafePath::new(&"a/".repeat(40)).is_err());
        assert!(SafePath::new(&"a".repeat(5000)).is_err());
        let path = SafePath::new("chb02/chb02_16+.edf").unwrap();
        assert_eq!(path.below(Path::new("/d")), Path::new("/d/chb02/chb02_16+.edf"));
        assert_eq!(path.name(), "chb02_16+.edf");
        assert!(path.is_in(&SafePath::new("chb02").unwrap()) && !path.is_in(&SafePath::new("chb0").unwrap()));
    }

    #[test]
    fn patterns_keep_to_components() {
        let pattern = |text: &str| PathPattern::try_from(text.to_owned()).unwrap();
        assert!(pattern("chb01/*").matches("chb01/chb01_01.edf") && !pattern("chb*").matches("chb01/chb01_01.edf"));
        assert!(pattern("**/*.edf").matches("a/b/c.edf") && !pattern("*.edf").matches("a/c.edf"));
        assert!(PathPattern::try_from("a[".to_owned()).is_err());
    }
}
