//! Reads what is on the disk and holds it against what is published, or recorded when it came.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::checksum::{Basis, Expected, measure};
use super::error::{FetchError, FetchResult};
use super::list::{Presence, known_items, presence};
use super::lock::{Dataset, Form, Lock};
use super::paths::{PathPattern, SafePath};
use super::plan::{self, Item, Place};
use super::record::{FOLDER, Records};

/// What was found out about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It measures what it should.
    Ok,
    /// It is there, and nothing says what it should measure.
    Unknown,
    /// It should be there and is not.
    Missing,
    /// It measures something else.
    Wrong,
}

impl Verdict {
    /// Name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The verdict.
    pub verdict: Verdict,
    /// Path in the data directory, or name of an archive.
    pub name: String,
    /// Why, or by what.
    pub note: String,
}

/// What to verify.
pub struct Question<'a> {
    /// Where datasets come from.
    pub lock: &'a Lock,
    /// The data directory.
    pub data: &'a Path,
    /// Datasets that must be there; none: whatever is there of all.
    pub names: &'a [String],
    /// Form; none: of each dataset the first that anything is there of.
    pub form: Option<&'a str>,
    /// Patterns; none: everything.
    pub only: &'a [PathPattern],
}

/// Verifies. Named datasets must be whole; without names, what was never there is not missed.
///
/// # Errors
/// Wrong usage, a damaged list or record, an interruption; a data directory that is not there.
pub fn verify(question: &Question, interrupt: &AtomicBool) -> FetchResult<Vec<Row>> {
    let nothing =
        |expected: &str| FetchError::Missing { path: question.data.to_owned(), expected: expected.to_owned() };
    if !question.data.is_dir() {
        return Err(nothing("a data directory; check --data"));
    }
    let mut rows = Vec::new();
    for dataset in question.lock.select(question.names)? {
        let records = Records::read(question.data, dataset.name())?;
        let form = form_on_disk(question, dataset, &records)?;
        rows.extend(verify_form(question, dataset, form, &records, interrupt)?);
    }
    Ok(rows)
}

/// The form that was asked for, or the first of which anything is there, or the first.
fn form_on_disk<'a>(question: &Question, dataset: &'a Dataset, records: &Records) -> FetchResult<&'a Form> {
    if question.form.is_some() {
        return dataset.form(question.form);
    }
    // recorded beats found: several forms create the same paths
    for wanted in [Presence::Recorded, Presence::Found] {
        for form in &dataset.forms {
            let items = known_items(question.data, dataset, form, records)?;
            if items.iter().any(|i| presence(question.data, i, records) == wanted) {
                return Ok(form);
            }
        }
    }
    dataset.form(None)
}

fn verify_form(
    question: &Question,
    dataset: &Dataset,
    form: &Form,
    records: &Records,
    interrupt: &AtomicBool,
) -> FetchResult<Vec<Row>> {
    let data = question.data;
    let named = !question.names.is_empty();
    let mut items = known_items(data, dataset, form, records)?;
    if named {
        items = plan::choose(items, question.only)?;
    } else {
        items.retain(|i| i.fits(question.only));
    }
    let mut rows = Vec::new();
    let mut files: BTreeMap<SafePath, Expected> = BTreeMap::new();
    for item in &items {
        match (&item.place, presence(data, item, records)) {
            (_, Presence::Absent) if !named && !was_recorded(item, records) => {}
            (Place::File(path), _) => drop(files.insert(path.clone(), item.expected)),
            (Place::Archive(_), _) if records.archives.contains_key(&item.name) => {
                for member in records.members(&item.name) {
                    let known = Expected {
                        bytes: Some(member.bytes),
                        sha256: Some(member.sha256),
                        md5: None,
                        basis: member.basis,
                    };
                    files.entry(member.path.clone()).or_insert(known);
                }
            }
            (Place::Archive(_), presence) => rows.push(unrecorded(item, presence)),
        }
    }
    if named && form.list.as_ref().is_some_and(|l| !l.to.below(data).is_file()) {
        let note = "and with it the names of the dataset's other files".to_owned();
        let name = form.list.as_ref().map(|l| l.to.to_string()).unwrap_or_default();
        rows.push(Row { verdict: Verdict::Missing, name, note });
        files.retain(|path, _| form.list.as_ref().is_none_or(|l| l.to != *path));
    }
    // files that came by `import` and belong to no item of the form
    let own = |path: &SafePath| path.as_str().starts_with(FOLDER);
    for record in records.files.values().filter(|r| r.archive.is_none() && !own(&r.path)) {
        let fits = question.only.is_empty() || question.only.iter().any(|p| p.matches(record.path.as_str()));
        if fits {
            let known =
                Expected { bytes: Some(record.bytes), sha256: Some(record.sha256), md5: None, basis: record.basis };
            files.entry(record.path.clone()).or_insert(known);
        }
    }
    let checked: Vec<Row> =
        files.par_iter().map(|(path, e)| check(data, path, e, interrupt)).collect::<FetchResult<_>>()?;
    rows.extend(checked);
    Ok(rows)
}

fn was_recorded(item: &Item, records: &Records) -> bool {
    match &item.place {
        Place::File(path) => records.files.contains_key(path),
        Place::Archive(_) => records.archives.contains_key(&item.name),
    }
}

/// An archive that was never unpacked here, although what it creates may be there.
fn unrecorded(item: &Item, presence: Presence) -> Row {
    let (verdict, note) = match presence {
        Presence::Absent => (Verdict::Missing, "neither fetched nor imported".to_owned()),
        _ => (
            Verdict::Unknown,
            "what it unpacks to is there, but was not put there by `fetch` or `import`, and no checksums of unpacked files \
             are published; `harness data fetch` compares it with the archive"
                .to_owned(),
        ),
    };
    Row { verdict, name: item.name.clone(), note }
}

fn check(data: &Path, path: &SafePath, expected: &Expected, interrupt: &AtomicBool) -> FetchResult<Row> {
    let row = |verdict, note| Ok(Row { verdict, name: path.to_string(), note });
    if interrupt.load(Ordering::Relaxed) {
        return Err(FetchError::Interrupted);
    }
    let file = path.below(data);
    let Ok(meta) = fs::metadata(&file) else { return row(Verdict::Missing, String::new()) };
    // a wrong length needs no reading
    if let Some(bytes) = expected.bytes.filter(|&b| b != meta.len()) {
        return row(Verdict::Wrong, format!("{} bytes, expected {bytes}", meta.len()));
    }
    let measured = match measure(&file, interrupt) {
        Err(e @ FetchError::Interrupted) => return Err(e),
        Err(e) => return row(Verdict::Wrong, e.to_string()),
        Ok(measured) => measured,
    };
    match expected.check(&measured, path.as_str(), "") {
        Err(_) if expected.sha256.is_some_and(|sum| sum != measured.sha256) => {
            let expected = expected.sha256.map(|sum| sum.to_string()).unwrap_or_default();
            row(Verdict::Wrong, format!("sha256 {}, expected {expected}", measured.sha256))
        }
        Err(e) => row(Verdict::Wrong, e.to_string().replace('\n', " ")),
        Ok(()) if !expected.has_checksum() => row(Verdict::Unknown, format!("sha256 {}", measured.sha256)),
        Ok(()) if expected.basis == Basis::Recorded => row(Verdict::Ok, "as recorded when it first came".into()),
        Ok(()) => row(Verdict::Ok, String::new()),
    }
}
