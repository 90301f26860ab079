//! What datasets there are, and what of them is in the data directory.

use std::path::Path;

use serde_json::{Value, json};

use super::error::FetchResult;
use super::lock::{Dataset, Form, Lock};
use super::plan::{self, Item, Place};
use super::record::Records;
use super::report::human_bytes;
use super::work::{is_recorded, read_list};

/// What of an item is on the disk, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Recorded when it was put there, and unchanged by its length and time.
    Recorded,
    /// There, but not known to be whole.
    Found,
    /// Not there.
    Absent,
}

impl Presence {
    /// Name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Found => "found",
            Self::Absent => "absent",
        }
    }
}

/// Looks for an item.
#[must_use]
pub fn presence(data: &Path, item: &Item, records: &Records) -> Presence {
    if is_recorded(data, item, records) {
        return Presence::Recorded;
    }
    let found = match &item.place {
        Place::File(path) => path.below(data).is_file(),
        Place::Archive(rules) => rules.creates.iter().any(|path| path.below(data).exists()),
    };
    if found { Presence::Found } else { Presence::Absent }
}

/// The items of a form as far as they can be named: the files of a list that is not there yet are left out.
///
/// # Errors
/// If a list or record is damaged.
pub fn known_items(data: &Path, dataset: &Dataset, form: &Form, records: &Records) -> FetchResult<Vec<Item>> {
    let list = match &form.list {
        Some(rules) if rules.to.below(data).is_file() => Some(read_list(&rules.to.below(data), rules)?),
        _ => None,
    };
    plan::items(dataset, form, list.as_deref(), records)
}

/// Bytes of a form as published; whether that is all of it.
fn size(form: &Form) -> (u64, bool) {
    let known: u64 = form.files.iter().filter_map(|f| f.bytes).sum();
    (known, form.list.is_none() && form.files.iter().all(|f| f.bytes.is_some()))
}

fn shown_size(form: &Form) -> String {
    match size(form) {
        (bytes, true) => human_bytes(bytes),
        (0, false) => "unknown".into(),
        (bytes, false) => format!(">= {}", human_bytes(bytes)),
    }
}

/// The table for a terminal.
///
/// # Errors
/// If a list or record is damaged.
pub fn table(lock: &Lock, data: &Path) -> FetchResult<String> {
    let mut rows =
        vec![["dataset", "version", "licence", "form", "files", "download", "in the data directory"].map(String::from)];
    for dataset in &lock.datasets {
        let records = Records::read(data, dataset.name())?;
        for (n, form) in dataset.forms.iter().enumerate() {
            let items = known_items(data, dataset, form, &records)?;
            let count = |p| items.iter().filter(|i| presence(data, i, &records) == p).count();
            let (recorded, found) = (count(Presence::Recorded), count(Presence::Found));
            let listed = form.list.as_ref().and_then(|l| l.files).filter(|_| items.len() == form.files.len() + 1);
            let total = listed.map_or(items.len() as u64, |files| items.len() as u64 + files);
            let state = match (recorded, found) {
                (0, 0) => "-".to_owned(),
                (r, 0) => format!("{r} recorded"),
                (0, f) => format!("{f} found, not checked"),
                (r, f) => format!("{r} recorded, {f} found, not checked"),
            };
            let first = |text: &str| if n == 0 { text.to_owned() } else { String::new() };
            let open =
                if form.list.is_some() && listed.is_none() && items.len() == form.files.len() + 1 { "+" } else { "" };
            rows.push([
                first(dataset.name()),
                first(&dataset.version),
                first(&dataset.licence),
                form.name().to_owned(),
                format!("{total}{open}"),
                shown_size(form),
                state,
            ]);
        }
    }
    let widths: Vec<usize> =
        (0..7).map(|c| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(text, &w)| format!("{text:w$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    });
    Ok(lines.collect())
}

/// The same with every file, its addresses and checksums; unknown values are null.
///
/// # Errors
/// If a list or record is damaged.
pub fn as_json(lock: &Lock, data: &Path) -> FetchResult<Value> {
    let mut datasets = Vec::new();
    for dataset in &lock.datasets {
        let records = Records::read(data, dataset.name())?;
        let mut forms = Vec::new();
        for form in &dataset.forms {
            let items = known_items(data, dataset, form, &records)?;
            let files: Vec<Value> = items.iter().map(|item| item_json(data, item, &records)).collect();
            let (bytes, whole) = size(form);
            forms.push(json!({
                "name": form.name(), "note": form.note, "bytes": whole.then_some(bytes), "bytes_at_least": bytes,
                "listed_files": form.list.as_ref().and_then(|l| l.files), "files": files,
            }));
        }
        datasets.push(json!({
            "name": dataset.name(), "version": dataset.version, "homepage": dataset.homepage, "licence": dataset.licence,
            "citation": dataset.citation, "folder": dataset.folder, "splits": dataset.splits, "forms": forms,
        }));
    }
    Ok(json!({"data": data, "datasets": datasets}))
}

fn item_json(data: &Path, item: &Item, records: &Records) -> Value {
    let (to, unpack) = match &item.place {
        Place::File(path) => (Some(path), None),
        Place::Archive(rules) => (None, Some(rules)),
    };
    let e = &item.expected;
    json!({
        "name": item.name, "sources": item.sources, "bytes": e.bytes, "sha256": e.sha256, "md5": e.md5,
        "basis": e.has_checksum().then_some(e.basis), "to": to, "unpack": unpack,
        "presence": presence(data, item, records).name(),
    })
}
