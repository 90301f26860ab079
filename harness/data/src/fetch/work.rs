//! Fetches: what is missing of the chosen datasets, several items at once.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::archive::Archive;
use super::checksum::{Basis, Measured, measure};
use super::error::{FetchError, FetchResult};
use super::lock::{Dataset, Form, Lock};
use super::partial::with_suffix;
use super::paths::{PathPattern, SafePath, refuse_links};
use super::plan::{self, Item, Place};
use super::record::{Journal, Records, file_record, lock_data};
use super::report::{Report, human_bytes};
use super::sums::LIST_BYTES_MAX;
use super::transfer::{Transfer, Wanted};

/// What to fetch, and where to.
pub struct Order<'a> {
    /// Where datasets come from.
    pub lock: &'a Lock,
    /// The data directory.
    pub data: &'a Path,
    /// Names of datasets; none: all.
    pub names: &'a [String],
    /// Form; none: each dataset's first.
    pub form: Option<&'a str>,
    /// Patterns; none: everything.
    pub only: &'a [PathPattern],
    /// Downloads at once.
    pub jobs: usize,
    /// Whether archives stay after they were unpacked.
    pub keep_archives: bool,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Items that were fetched.
    pub fetched: usize,
    /// Items that were there already.
    pub present: usize,
    /// Items that failed, by name; the reasons were shown.
    pub failed: Vec<(String, FetchError)>,
}

/// One dataset's part of an order.
struct Part {
    journal: Journal,
    records: Records,
    missing: Vec<Item>,
}

/// Whether an item is in place.
enum State {
    Present,
    Missing,
}

/// Fetches what is missing.
///
/// # Errors
/// What stops everything: wrong usage, no room, an interruption, a list that cannot be had. Items that fail on their own
/// are in the outcome.
pub fn fetch(order: &Order, transfer: &Transfer, report: &Report) -> FetchResult<Outcome> {
    let _held = lock_data(order.data)?;
    let mut outcome = Outcome::default();
    let mut parts = Vec::new();
    for dataset in order.lock.select(order.names)? {
        let form = dataset.form(order.form)?;
        let journal = Journal::open(order.data, dataset.name())?;
        let listed = fetch_list(order, dataset, form, &journal, transfer, report)?;
        let records = Records::read(order.data, dataset.name())?;
        let items = plan::choose(plan::items(dataset, form, listed.as_deref(), &records)?, order.only)?;
        let mut missing = Vec::new();
        for item in items {
            match state(order.data, &item, &records, &journal, transfer, report) {
                Ok(State::Present) => outcome.present += 1,
                Ok(State::Missing) => missing.push(item),
                Err(e @ FetchError::Interrupted) => return Err(e),
                Err(e) => {
                    report.failed(&item, &e);
                    outcome.failed.push((item.name, e));
                }
            }
        }
        parts.push(Part { journal, records, missing });
    }
    let missing: Vec<&Item> = parts.iter().flat_map(|p| &p.missing).collect();
    report.intent(&describe(&missing, outcome.present));
    transfer.room.require(order.data, room_bytes(order.data, &missing, order.jobs))?;
    work(order, &parts, transfer, report, &mut outcome)?;
    Ok(outcome)
}

/// Says what would be fetched. Writes nothing and asks no server.
///
/// # Errors
/// Wrong usage, or a damaged list or record.
pub fn dry_run(order: &Order, report: &Report) -> FetchResult<Vec<Item>> {
    let mut all = Vec::new();
    for dataset in order.lock.select(order.names)? {
        let form = dataset.form(order.form)?;
        let records = Records::read(order.data, dataset.name())?;
        let listed = match &form.list {
            None => None,
            Some(rules) => {
                let path = rules.to.below(order.data);
                if path.is_file() {
                    Some(read_list(&path, rules)?)
                } else {
                    let count = rules.files.map_or("an unknown number of".into(), |n| n.to_string());
                    report.notice(&format!(
                        "{}: {count} files are named by {}, which is fetched first",
                        dataset.name(),
                        rules.url.as_str()
                    ));
                    // then a pattern cannot be held against its names yet
                    all.push(plan::list_item(dataset, rules, &records));
                    continue;
                }
            }
        };
        let items = plan::choose(plan::items(dataset, form, listed.as_deref(), &records)?, order.only)?;
        all.extend(items.into_iter().filter(|i| !is_recorded(order.data, i, &records)));
    }
    Ok(all)
}

/// The form's list, fetched if it is not there.
fn fetch_list(
    order: &Order,
    dataset: &Dataset,
    form: &Form,
    journal: &Journal,
    transfer: &Transfer,
    report: &Report,
) -> FetchResult<Option<Vec<(SafePath, super::checksum::Sha256Sum)>>> {
    let Some(rules) = &form.list else { return Ok(None) };
    let records = Records::read(order.data, dataset.name())?;
    let item = plan::list_item(dataset, rules, &records);
    if matches!(state(order.data, &item, &records, journal, transfer, report)?, State::Missing) {
        one(order, &item, &records, journal, transfer, report)?;
    }
    read_list(&rules.to.below(order.data), rules).map(Some)
}

/// Reads a list that is in place.
///
/// # Errors
/// If it is damaged.
pub fn read_list(path: &Path, rules: &super::lock::List) -> FetchResult<Vec<(SafePath, super::checksum::Sha256Sum)>> {
    let bytes = fs::metadata(path).map_err(FetchError::io(path))?.len();
    if bytes > LIST_BYTES_MAX {
        let (expected, got) = (format!("a list of at most {LIST_BYTES_MAX} bytes"), format!("{bytes} bytes"));
        return Err(FetchError::Format { path: path.to_owned(), line: 1, expected, got });
    }
    let text = fs::read_to_string(path).map_err(FetchError::io(path))?;
    plan::parse_list(path, &text, rules)
}

/// Whether the records say that an item is in place, and nothing looks changed since.
#[must_use]
pub fn is_recorded(data: &Path, item: &Item, records: &Records) -> bool {
    match &item.place {
        Place::File(path) => records.files.get(path).is_some_and(|record| {
            item.expected.sha256.is_none_or(|sum| sum == record.sha256) && record.looks_unchanged(data)
        }),
        Place::Archive(_) => records.archives.get(&item.name).is_some_and(|record| {
            let measured = Measured { bytes: record.bytes, sha256: record.sha256, md5: record.md5 };
            item.expected.check(&measured, &item.name, "").is_ok()
                && records.members(&item.name).all(|m| m.path.below(data).is_file())
        }),
    }
}

/// Looks whether an item is in place; a file that nobody recorded is read.
fn state(
    data: &Path,
    item: &Item,
    records: &Records,
    journal: &Journal,
    transfer: &Transfer,
    report: &Report,
) -> FetchResult<State> {
    if is_recorded(data, item, records) {
        return Ok(State::Present);
    }
    let Place::File(path) = &item.place else { return Ok(State::Missing) };
    let present = path.below(data);
    if !present.exists() {
        return Ok(State::Missing);
    }
    let measured = measure(&present, &transfer.interrupt)?;
    let next = "move it away, or choose another data directory with --data; it was not changed";
    item.expected.check(&measured, &present.display().to_string(), next)?;
    let basis = item.expected.record_basis();
    if !item.expected.has_checksum() {
        report.notice(&unknown_sum(item, &measured, "was there already"));
    }
    journal.file(file_record(data, path, &measured, basis, &present.display().to_string())?)?;
    Ok(State::Present)
}

fn unknown_sum(item: &Item, measured: &Measured, how: &str) -> String {
    format!(
        "{} {}: no checksum is published; it {how}, and {} bytes with sha256 {} are recorded and held against it from now on",
        item.dataset, item.name, measured.bytes, measured.sha256
    )
}

fn describe(missing: &[&Item], present: usize) -> String {
    let known: u64 = missing.iter().filter_map(|i| i.expected.bytes).sum();
    let unknown = missing.iter().filter(|i| i.expected.bytes.is_none()).count();
    let sizes = match unknown {
        0 => human_bytes(known),
        _ => format!("{} and {unknown} of unknown size", human_bytes(known)),
    };
    format!("{} to fetch ({sizes}), {present} there already", missing.len())
}

/// Most room that the items take at any moment beyond what is here: everything unpacked, and the archives that are in work
/// at once.
fn room_bytes(data: &Path, missing: &[&Item], jobs: usize) -> u64 {
    let mut archives = Vec::new();
    let mut stays = 0_u64;
    for item in missing {
        let bytes = item.expected.bytes.unwrap_or(0).saturating_sub(held_bytes(data, item));
        match &item.place {
            Place::File(_) => stays = stays.saturating_add(bytes),
            Place::Archive(rules) => {
                archives.push(bytes);
                stays = stays.saturating_add(rules.room_bytes);
            }
        }
    }
    archives.sort_unstable_by(|a, b| b.cmp(a));
    archives.iter().take(jobs).fold(stays, |sum, bytes| sum.saturating_add(*bytes))
}

/// Bytes of an item that an earlier command has downloaded.
fn held_bytes(data: &Path, item: &Item) -> u64 {
    let Ok(target) = item.target().map(|t| t.below(data)) else { return 0 };
    let length = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    length(&target).max(length(&with_suffix(&target, ".part")))
}

/// Works off the missing items on `jobs` threads.
fn work(order: &Order, parts: &[Part], transfer: &Transfer, report: &Report, outcome: &mut Outcome) -> FetchResult<()> {
    let queue: VecDeque<(&Part, &Item)> = parts.iter().flat_map(|p| p.missing.iter().map(move |i| (p, i))).collect();
    let threads = order.jobs.min(queue.len());
    let (queue, done) = (Mutex::new(queue), Mutex::new(outcome));
    let worker = || {
        while !transfer.interrupt.load(Ordering::Relaxed) {
            let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
            let Some((part, item)) = next else { break };
            let result = one(order, item, &part.records, &part.journal, transfer, report);
            let mut outcome = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match result {
                Ok(()) => outcome.fetched += 1,
                Err(FetchError::Interrupted) => {}
                Err(e) => {
                    report.failed(item, &e);
                    outcome.failed.push((item.name.clone(), e));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    if transfer.interrupt.load(Ordering::Relaxed) { Err(FetchError::Interrupted) } else { Ok(()) }
}

/// Fetches one item and puts it in place.
fn one(
    order: &Order,
    item: &Item,
    records: &Records,
    journal: &Journal,
    transfer: &Transfer,
    report: &Report,
) -> FetchResult<()> {
    let target = item.target()?.below(order.data);
    refuse_links(order.data, &target)?;
    if let Place::Archive(rules) = &item.place {
        refuse_links(order.data, &rules.into.below(order.data))?;
    }
    let bar = report.bar(item);
    let result = (|| {
        let (measured, source) = bring(item, &target, records, transfer, &bar)?;
        if !item.expected.has_checksum() && matches!(item.place, Place::Archive(_)) {
            // should unpacking fail, the record vouches for the archive the next time
            journal.file(file_record(order.data, &item.target()?, &measured, Basis::Recorded, &source)?)?;
        }
        if !item.expected.has_checksum() {
            report.notice(&unknown_sum(item, &measured, "was fetched for the first time"));
        }
        match &item.place {
            Place::File(path) => {
                journal.file(file_record(order.data, path, &measured, item.expected.record_basis(), &source)?)?;
                Ok(format!("{}, sha256 {}", human_bytes(measured.bytes), measured.sha256))
            }
            Place::Archive(rules) => {
                bar.set_message("unpacking");
                let archive = Archive { item, rules, path: &target, measured, source };
                let files = archive.into_place(order.data, records, journal, transfer, report)?;
                if !order.keep_archives {
                    fs::remove_file(&target).map_err(FetchError::io(&target))?;
                }
                Ok(format!("{}, {files} files unpacked", human_bytes(measured.bytes)))
            }
        }
    })();
    bar.finish_and_clear();
    report.done(item, &result?);
    Ok(())
}

/// Downloads, unless the whole archive was left behind by an earlier run that could not unpack it.
fn bring(
    item: &Item,
    target: &Path,
    records: &Records,
    transfer: &Transfer,
    bar: &indicatif::ProgressBar,
) -> FetchResult<(Measured, String)> {
    if matches!(item.place, Place::Archive(_)) && target.is_file() {
        let measured = measure(target, &transfer.interrupt)?;
        let known = records.files.get(&item.target()?).is_some_and(|r| r.sha256 == measured.sha256);
        if (known || item.expected.has_checksum()) && item.expected.check(&measured, &item.name, "").is_ok() {
            return Ok((measured, item.sources.first().cloned().unwrap_or_default()));
        }
        // it cannot be vouched for, and it is ours to fetch again
        fs::remove_file(target).map_err(FetchError::io(target))?;
    }
    let progress = |bytes: u64, total: Option<u64>| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(bytes);
    };
    let wanted =
        Wanted { name: &item.name, sources: &item.sources, expected: item.expected, target, progress: &progress };
    let fetched = transfer.download(&wanted)?;
    Ok((fetched.measured, fetched.source))
}
