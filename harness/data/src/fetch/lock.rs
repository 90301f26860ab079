//! `datasets.lock`: where each dataset comes from and how to check it. Read strictly: an unknown key, a checksum of the
//! wrong length or a path that leaves the data directory is an error with its line.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::address::Address;
use super::checksum::{Basis, Expected, Md5Sum, Sha256Sum};
use super::error::{FetchError, FetchResult};
use super::paths::{PathPattern, SafePath};

/// The only schema this program reads.
const SCHEMA: u32 = 2;
/// The lock file that the program was built with.
const EMBEDDED: &str = include_str!("../../../../datasets.lock");

/// All datasets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the file's own layout.
    pub schema: Spanned<u32>,
    /// The datasets, in the order in which they are shown.
    #[serde(rename = "dataset")]
    pub datasets: Vec<Dataset>,
}

/// One dataset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Name on the command line.
    pub name: Spanned<String>,
    /// The publisher's version.
    pub version: String,
    /// Where the publisher describes it.
    pub homepage: Address,
    /// Licence of the data.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// Folder in the data directory.
    pub folder: SafePath,
    /// Parts that are used for training, choosing and reporting.
    pub splits: Vec<String>,
    /// The dataset's files below `folder`, for `import`.
    pub contents: Vec<PathPattern>,
    /// Other names under which the publisher's tools leave `folder`.
    #[serde(default)]
    pub known_as: Vec<SafePath>,
    /// Ways to get it; the first is the default.
    #[serde(rename = "form")]
    pub forms: Vec<Form>,
}

/// One way to get a dataset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Name for `--form`.
    pub name: Spanned<String>,
    /// What to know before choosing it.
    #[serde(default)]
    pub note: Option<String>,
    /// A checksum list that names (more of) its files.
    #[serde(default)]
    pub list: Option<List>,
    /// Files and archives.
    #[serde(default, rename = "file")]
    pub files: Vec<Entry>,
}

/// A publisher's checksum list; every path in it is a file of the form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The list itself.
    pub url: Address,
    /// Where it goes in the data directory.
    pub to: SafePath,
    /// Its checksum; unknown ones are recorded on first fetch.
    #[serde(default)]
    pub sha256: Option<Sha256Sum>,
    /// Addresses under which the listed paths are found; the first is asked first. They end with `/`.
    pub bases: Vec<Address>,
    /// Number of listed files, where it is known.
    #[serde(default)]
    pub files: Option<u64>,
}

/// A file or an archive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it is.
    pub url: Spanned<Address>,
    /// Where else it is, in the order in which they are tried.
    #[serde(default)]
    pub mirrors: Vec<Address>,
    /// Length as downloaded.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// SHA-256 as downloaded.
    #[serde(default)]
    pub sha256: Option<Sha256Sum>,
    /// MD5 as downloaded.
    #[serde(default)]
    pub md5: Option<Md5Sum>,
    /// Which of the dataset's splits it holds.
    #[serde(default)]
    pub splits: Vec<String>,
    /// A file's place in the data directory. Archives have `unpack` instead.
    #[serde(default)]
    pub to: Option<SafePath>,
    /// What an archive unpacks to.
    #[serde(default)]
    pub unpack: Option<Unpack>,
}

/// How an archive is unpacked. All its members lie in one folder, whose name is replaced by `into`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// Kind of archive.
    pub format: Format,
    /// The data directory's folder for the archive's one top folder.
    pub into: SafePath,
    /// Paths in the data directory that must exist afterwards. Below them every file is the archive's own; other members,
    /// such as a licence that several archives share, yield to a file that is there already.
    pub creates: Vec<SafePath>,
    /// Upper bound of what the members take when unpacked; an archive that wants more is refused.
    pub room_bytes: u64,
}

/// Kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Format {
    /// A tape archive, compressed with gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A zip archive.
    #[serde(rename = "zip")]
    Zip,
}

impl Lock {
    /// The lock file that the program was built with.
    ///
    /// # Errors
    /// Never in a released program; a test reads it.
    pub fn embedded() -> FetchResult<Self> {
        Self::parse(Path::new("datasets.lock"), EMBEDDED)
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// If it cannot be read or does not follow the schema.
    pub fn read(path: &Path) -> FetchResult<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| FetchError::Lock { path: path.to_owned(), message: e.to_string() })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a lock file; `path` is for messages.
    ///
    /// # Errors
    /// With the line that does not follow the schema.
    pub fn parse(path: &Path, text: &str) -> FetchResult<Self> {
        let error = |message: String| FetchError::Lock { path: path.to_owned(), message };
        let lock: Self = toml::from_str(text).map_err(|e| error(e.to_string()))?;
        lock.check().map_err(|(at, message)| {
            let line = text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
            error(format!("line {line}: {message}"))
        })?;
        Ok(lock)
    }

    /// The datasets with these names; all of them for none.
    ///
    /// # Errors
    /// With the nearest name that exists.
    pub fn select(&self, names: &[String]) -> FetchResult<Vec<&Dataset>> {
        if names.is_empty() {
            return Ok(self.datasets.iter().collect());
        }
        let mut chosen: Vec<&Dataset> = Vec::new();
        for name in names {
            let found = self.datasets.iter().find(|d| d.name() == name);
            let dataset = found.ok_or_else(|| unknown("dataset", name, self.datasets.iter().map(Dataset::name)))?;
            if !chosen.iter().any(|d| d.name() == name) {
                chosen.push(dataset);
            }
        }
        Ok(chosen)
    }

    /// What the types cannot say; the byte offset is where to look.
    fn check(&self) -> Result<(), (usize, String)> {
        if *self.schema.get_ref() != SCHEMA {
            let got = self.schema.get_ref();
            return Err((self.schema.span().start, format!("schema {got}; this program reads schema {SCHEMA}")));
        }
        let mut names = HashSet::new();
        for dataset in &self.datasets {
            let at = dataset.name.span().start;
            if !names.insert(dataset.name()) {
                return Err((at, format!("the dataset {} a second time", dataset.name())));
            }
            // it becomes part of a file name
            SafePath::new(dataset.name()).ok().filter(|p| !p.as_str().contains('/')).ok_or_else(|| {
                (at, format!("the dataset name {:?}; expected one without separators", dataset.name()))
            })?;
            if dataset.forms.is_empty() {
                return Err((at, format!("the dataset {} has no form", dataset.name())));
            }
            dataset.check()?;
        }
        Ok(())
    }
}

/// The error for a name that does not exist.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> FetchError {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(k, name), *k)).min();
    let near = near.filter(|(distance, _)| *distance <= (name.chars().count() / 3).max(1));
    let next = near.map(|(_, nearest)| format!("\n  next: did you mean {nearest:?}?")).unwrap_or_default();
    FetchError::Usage(format!("no {what} {name:?}\n  expected: one of {}{next}", known.join(", ")))
}

impl Dataset {
    /// Name on the command line.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// The form with this name; the first for none.
    ///
    /// # Errors
    /// With the nearest name that exists.
    pub fn form(&self, name: Option<&str>) -> FetchResult<&Form> {
        let found = match name {
            None => self.forms.first(),
            Some(name) => self.forms.iter().find(|f| f.name() == name),
        };
        let what = format!("form of {}", self.name());
        found.ok_or_else(|| unknown(&what, name.unwrap_or_default(), self.forms.iter().map(Form::name)))
    }

    fn check(&self) -> Result<(), (usize, String)> {
        let mut forms = HashSet::new();
        for form in &self.forms {
            let at = form.name.span().start;
            if !forms.insert(form.name()) {
                return Err((at, format!("the form {} a second time", form.name())));
            }
            if form.files.is_empty() && form.list.is_none() {
                return Err((at, format!("the form {} has neither files nor a list", form.name())));
            }
            let mut names = HashSet::new();
            for entry in &form.files {
                let at = entry.url.span().start;
                let file_name = entry.address().file_name();
                SafePath::new(file_name).map_err(|e| (at, format!("the address ends with {e}")))?;
                let name = entry.to.as_ref().map_or(file_name, SafePath::as_str);
                if !names.insert(name) {
                    return Err((at, format!("{name} a second time")));
                }
                if entry.to.is_some() == entry.unpack.is_some() {
                    return Err((at, format!("{name} needs one of `to` (a file) and `unpack` (an archive)")));
                }
                if let Some(split) = entry.splits.iter().find(|s| !self.splits.contains(s)) {
                    return Err((at, format!("{name} names the split {split:?}, which the dataset does not have")));
                }
            }
            if let Some(base) = form.list.iter().flat_map(|l| &l.bases).find(|b| !b.as_str().ends_with('/')) {
                return Err((at, format!("the base {:?} must end with `/`", base.as_str())));
            }
            if form.list.as_ref().is_some_and(|l| l.bases.is_empty()) {
                return Err((at, format!("the list of the form {} has no bases", form.name())));
            }
        }
        Ok(())
    }
}

impl Form {
    /// Name for `--form`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }
}

impl Entry {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.url.get_ref()
    }

    /// What it should measure.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected { bytes: self.bytes, sha256: self.sha256, md5: self.md5, basis: Basis::Published }
    }

    /// All addresses, in the order in which they are tried.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        std::iter::once(self.address()).chain(&self.mirrors).map(|a| a.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Lock::parse(Path::new("L"), text).unwrap_err().to_string()
    }

    const HEAD: &str = "schema = 2\n[[dataset]]\nname = \"d\"\nversion = \"1\"\nhomepage = \"https://h/\"\nlicence = \"l\"\n\
                        citation = \"c\"\nfolder = \"d\"\nsplits = [\"train\"]\ncontents = [\"*\"]\n[[dataset.form]]\n\
                        name = \"f\"\n";

    #[test]
    fn the_embedded_lock_has_every_dataset_of_the_suite() {
        let lock = Lock::embedded().unwrap();
        let names: Vec<&str> = lock.datasets.iter().map(Dataset::name).collect();
        assert_eq!(names, ["wikitext-103", "librispeech", "mini-librispeech", "chb-mit", "ptb-xl"]);
        let known: u64 =
            lock.select(&["librispeech".into()]).unwrap()[0].forms[0].files.iter().filter_map(|f| f.bytes).sum();
        // the seven archives' sizes, added up by hand from the publisher's list
        assert_eq!(known, 61_357_943_031);
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        let file = |rest: &str| format!("{HEAD}[[dataset.form.file]]\nurl = \"https://h/a.zip\"\n{rest}");
        for (text, line, want) in [
            (file("to = \"d/a\"\nsha265 = \"00\"\n"), "line 16", "unknown field `sha265`"),
            (file("to = \"d/a\"\nsha256 = \"00\"\n"), "line 16", "64 hexadecimal digits"),
            (file("to = \"../a\"\n"), "line 15", "without empty parts"),
            (file("bytes = -1\n"), "line 15", "u64"),
            (file("\n"), "line 14", "needs one of `to`"),
            (file("to = \"d/a\"\nsplits = [\"dev\"]\n"), "line 14", "split \"dev\""),
            (
                file("to = \"d/a\"\n[[dataset.form.file]]\nurl = \"https://h/b\"\nto = \"d/a\"\n"),
                "line 17",
                "a second time",
            ),
            (file("to = \"d/a\"\nmirrors = [\"ftp://h/a\"]\n"), "line 16", "https://"),
            (HEAD.replace("schema = 2", "schema = 1"), "line 1", "reads schema 2"),
            (HEAD.to_owned(), "line 12", "neither files nor a list"),
            ("schema = 2\n[[dataset]\n".to_owned(), "line 2", ""),
        ] {
            let error = error(&text);
            assert!(error.contains(line) && error.contains(want), "{text}\n{error}");
        }
    }
}
