//! The layouts of the four datasets, from their tables, transcripts and texts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::{Fact, Part, Recording};
use crate::account::Account;
use crate::datasets::ptbxl::{self, PtbXl, Rate};
use crate::datasets::vocabulary::count_words;
use crate::datasets::wikitext::{Split, check_text, mend, read_split_telling};
use crate::error::{DataError, DataResult};
use crate::files::sha256_hex;
use crate::folders;
use crate::formats::wfdb;
use crate::plain::Plain;

/// Splits of `LibriSpeech`, which are its folders.
const LIBRISPEECH_SPLITS: [&str; 9] = [
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
    "dev-clean-2",   // of the mini corpus
    "train-clean-5", // likewise
];
/// Layout names.
const WIKITEXT: &str = "WikiText-103";
const LIBRISPEECH: &str = "LibriSpeech";
const CHB_MIT: &str = "CHB-MIT";
const PTB_XL: &str = "PTB-XL";
const RECORDINGS: &str = "recordings";
/// What the publisher of CHB-MIT annotates a seizure's onset with.
const SEIZURE_BEGINS: &str = "[";

/// Which layout a folder has, and its parts. What its texts and tables had to be mended in enters `account`.
pub(super) fn describe(root: &Path, account: &mut Account) -> DataResult<(&'static str, Vec<Part>)> {
    let folders = subfolders(root)?;
    let named = |name: &str| root.join(name).is_file();
    if named(ptbxl::DATABASE) {
        return Ok((PTB_XL, ptb_xl(root, account)?));
    }
    if folders.iter().any(|folder| LIBRISPEECH_SPLITS.contains(&folder.as_str())) {
        return Ok((LIBRISPEECH, librispeech(root, &folders, account)?));
    }
    let is_case = |folder: &&String| is_chb_case(folder) && root.join(folder).join(summary_name(folder)).is_file();
    let cases: Vec<&String> = folders.iter().filter(is_case).collect();
    if !cases.is_empty() {
        return Ok((CHB_MIT, cases.into_iter().map(|case| chb_mit(root, case)).collect::<DataResult<_>>()?));
    }
    let texts = wikitext(root, account)?;
    if !texts.is_empty() {
        return Ok((WIKITEXT, texts));
    }
    Ok((RECORDINGS, Vec::new()))
}

/// Adds what only the recordings tell: how long the parts last.
pub(super) fn add_durations(layout: &str, parts: &mut [Part], recordings: &[Recording]) {
    if !matches!(layout, LIBRISPEECH | CHB_MIT) {
        return;
    }
    for part in parts {
        let of_part = recordings.iter().filter(|r| r.path.starts_with(&part.name));
        let seconds: f64 = of_part.filter_map(|r| r.duration_s).sum();
        part.facts.push(("duration_s", Fact::Number(seconds)));
    }
}

/// Names of the folders in a folder, sorted; what is no part of a dataset is told by who walks through all of it.
fn subfolders(root: &Path) -> DataResult<Vec<String>> {
    let entries = folders::entries(root, root, &mut Account::new())?;
    Ok(entries.into_iter().filter(|entry| entry.is_folder).map(|entry| entry.name).collect())
}

/// Files of a folder with an extension, sorted.
fn files(folder: &Path, extension: &str) -> DataResult<Vec<PathBuf>> {
    let entries = folders::entries(folder, folder, &mut Account::new())?;
    Ok(entries.into_iter().map(|entry| entry.path).filter(|path| super::extension(path) == extension).collect())
}

/// Lines, words, bytes and digest of a text.
fn text_facts(text: &str) -> Vec<(&'static str, Fact)> {
    let distinct: HashSet<&str> = text.split_whitespace().collect();
    vec![
        ("lines", Fact::Count(text.lines().count() as u64)),
        ("words_and_line_ends", Fact::Count(count_words(text))),
        ("distinct_words", Fact::Count(distinct.len() as u64)),
        ("bytes", Fact::Count(text.len() as u64)),
        ("sha256", Fact::Text(sha256_hex(text.as_bytes()))),
    ]
}

/// A token file on its own.
pub(super) fn token_file(path: &Path) -> DataResult<Part> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let mut account = Account::new();
    let mut facts = text_facts(&mend(path, bytes, &mut account)?);
    for group in account.groups() {
        facts.push(("repaired", Fact::Text(group.reason)));
    }
    Ok(Part { name: path.display().to_string(), facts })
}

fn wikitext(root: &Path, account: &mut Account) -> DataResult<Vec<Part>> {
    let mut parts = Vec::new();
    for split in [Split::Train, Split::Valid, Split::Test] {
        match read_split_telling(root, split, account) {
            Ok(text) => {
                parts.push(Part { name: split.name().into(), facts: text_facts(check_text(root, &text.bytes)?) });
            }
            // no file at all: not there; a shard too few is an error of its own
            Err(DataError::Missing { path, .. }) if super::extension(&path) == "tokens" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

fn ptb_xl(root: &Path, account: &mut Account) -> DataResult<Vec<Part>> {
    let data = PtbXl::open(root)?;
    account.extend(data.account().clone());
    let absent = [Rate::Hz100, Rate::Hz500].map(|rate| data.missing(rate).into_iter().collect::<HashSet<usize>>());
    let mut folds: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (index, entry) in data.entries().iter().enumerate() {
        folds.entry(entry.fold).or_default().push(index);
    }
    let part = |(fold, members): (u8, Vec<usize>)| {
        let entries = || members.iter().filter_map(|&index| data.entries().get(index));
        let patients: HashSet<u64> = entries().map(|entry| entry.patient_id).collect();
        let there = |absent: &HashSet<usize>| members.iter().filter(|index| !absent.contains(index)).count() as u64;
        let mut facts = vec![
            ("records", Fact::Count(members.len() as u64)),
            ("patients", Fact::Count(patients.len() as u64)),
            ("signals_at_100_hz", Fact::Count(there(&absent[0]))),
            ("signals_at_500_hz", Fact::Count(there(&absent[1]))),
        ];
        for (class, name) in ptbxl::SUPERCLASSES.into_iter().enumerate() {
            let has = entries().filter(|entry| entry.labels.get(class) == Some(&true)).count();
            facts.push((name, Fact::Count(has as u64)));
        }
        Part { name: format!("fold {fold}"), facts }
    };
    Ok(folds.into_iter().map(part).collect())
}

fn librispeech(root: &Path, folders: &[String], account: &mut Account) -> DataResult<Vec<Part>> {
    let splits = folders.iter().filter(|folder| LIBRISPEECH_SPLITS.contains(&folder.as_str()));
    splits.map(|split| librispeech_split(root, split, account)).collect()
}

fn librispeech_split(root: &Path, split: &str, account: &mut Account) -> DataResult<Part> {
    let folder = root.join(split);
    let speakers = subfolders(&folder)?;
    let (mut chapters, mut words) = (0, 0);
    let (mut audio, mut transcripts) = (BTreeSet::new(), BTreeSet::new());
    for speaker in &speakers {
        for chapter in subfolders(&folder.join(speaker))? {
            chapters += 1;
            let chapter = folder.join(speaker).join(chapter);
            let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            audio.extend(files(&chapter, "flac")?.iter().map(|path| name(path)));
            for path in files(&chapter, "txt")? {
                let place = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                let text = Plain::read(&path)?.told(&place, account);
                for line in text.lines().filter(|line| !line.trim().is_empty()) {
                    let mut fields = line.split_whitespace();
                    transcripts.insert(fields.next().unwrap_or_default().to_owned());
                    words += fields.count() as u64;
                }
            }
        }
    }
    Ok(Part {
        name: split.to_owned(),
        facts: vec![
            ("speakers", Fact::Count(speakers.len() as u64)),
            ("chapters", Fact::Count(chapters)),
            ("utterances", Fact::Count(audio.len() as u64)),
            ("words", Fact::Count(words)),
            ("without_transcript", Fact::Count(audio.difference(&transcripts).count() as u64)),
            ("without_audio", Fact::Count(transcripts.difference(&audio).count() as u64)),
        ],
    })
}

/// `chb` and two digits.
fn is_chb_case(folder: &str) -> bool {
    let digits = folder.strip_prefix("chb").unwrap_or_default();
    digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn summary_name(case: &str) -> String {
    format!("{case}-summary.txt")
}

/// Recordings of a case, and seizures by their annotation files.
fn chb_mit(root: &Path, case: &str) -> DataResult<Part> {
    let folder = root.join(case);
    let annotated = files(&folder, "seizures")?;
    let mut seizures = 0;
    for path in &annotated {
        let all = wfdb::read_annotations(path)?;
        seizures += all.iter().filter(|a| a.mnemonic() == SEIZURE_BEGINS).count() as u64;
    }
    Ok(Part {
        name: case.to_owned(),
        facts: vec![
            ("recordings", Fact::Count(files(&folder, "edf")?.len() as u64)),
            ("annotation_files", Fact::Count(annotated.len() as u64)),
            ("annotated_seizures", Fact::Count(seizures)),
        ],
    })
}
