//! `LibriSpeech` by what its splits measure: checksums are published of the archives, not of the files in them.

use std::collections::HashMap;
use std::path::Path;

use super::{Found, Identity, generated};
use crate::datasets::librispeech::{RATE_HZ, Split};
use crate::files::sha256_hex;

/// What is published of a split.
struct Published {
    name: &'static str,
    /// `num_examples` of huggingface/datasets, `datasets/librispeech_asr/dataset_infos.json` @
    /// 040102f100964a33fd334e2695f1c493fa6b92db.
    utterances: usize,
    /// By the corpus's own SPEAKERS.TXT (sha256 3350f093382f8baa1d589c9f5a5cee8ec3705e656f521d6eafbaa31a5fcd8f76, in
    /// resemble-ai/Resemblyzer @ 15d828edebe06bc72b9cabc8ef8ca5ab2cb457ce): readers of the subset, and the sum of their minutes.
    speakers: usize,
    minutes: f64,
}

const fn published(name: &'static str, utterances: usize, speakers: usize, minutes: f64) -> Published {
    Published { name, utterances, speakers, minutes }
}

const PUBLISHED: [Published; 7] = [
    published("dev-clean", 2703, 40, 323.28),
    published("dev-other", 2864, 33, 307.28),
    published("test-clean", 2620, 40, 324.20),
    published("test-other", 2939, 33, 320.51),
    published("train-clean-100", 28_539, 251, 6035.41),
    published("train-clean-360", 104_014, 921, 21_816.4),
    published("train-other-500", 148_688, 1166, 29_811.4),
];

/// Share by which the minutes may differ: they are rounded for each reader, to a hundredth of 8 to 25.
const MINUTES_APART: f64 = 0.001;

/// What was looked at to tell: decoding a split takes minutes. The samples are held against their header's MD5 when they are decoded,
/// so that a header that is not theirs ends a run, but not a plan.
const BY_HEADERS: &str = "by the lengths and checksums that the headers of its audio files state";

/// 98 utterances, as `SPLIT/ID MD5 TEXT`: the MD5 of the samples and the first half of the SHA-256 of the transcript. The audio is that
/// of nine public repositories, with the encoder and the MD5 of the corpus; four were re-encoded without loss. Transcripts of test-clean
/// agree between two sources.
const UTTERANCES: &str = include_str!("librispeech-98.md5");

/// A split that a part is made of, and how many of its utterances are used.
pub struct Wanted<'a> {
    /// The whole split as it is on disk.
    pub split: &'a Split,
    /// Utterances that are used, from the first on.
    pub used: usize,
}

/// `LibriSpeech` by the splits that are used: whole ones by their sizes, others by their utterances. Known utterances must be as they
/// are known in either case.
#[must_use]
pub fn librispeech(root: &Path, wanted: &[Wanted]) -> Found {
    if let Some(found) = generated(root) {
        return found;
    }
    let known: HashMap<&str, &str> = UTTERANCES.lines().filter_map(|line| line.split_once(' ')).collect();
    let (mut whole, mut on_disk, mut used) = (true, true, 0);
    for Wanted { split, used: of_this } in wanted {
        if *of_this == 0 {
            whole = false; // and whatever it is, nothing is read of it
            continue;
        }
        let Some(published) = PUBLISHED.iter().find(|published| published.name == split.name) else {
            return Found::unverified(format!("{} is no split of the dataset", crate::account::inert(&split.name)));
        };
        let is_whole = published.fits(split);
        for utterance in &split.utterances {
            let name = format!("{}/{}", split.name, utterance.id);
            let has_text = |half: &str| sha256_hex(utterance.text.as_bytes()).starts_with(half);
            match known.get(name.as_str()).map(|known| known.split_once(' ').unwrap_or_default()) {
                Some((md5, half)) if md5 == utterance.content && has_text(half) => {}
                Some(_) => return Found::unverified(format!("{name} is not the published utterance")),
                None if is_whole => {}
                None => {
                    let got = format!("{} has {}", split.name, measured(split));
                    let more = format!("{got}, not {}, and {name} is not known", published.sizes());
                    return Found::unverified(more);
                }
            }
        }
        on_disk &= is_whole;
        whole &= is_whole && *of_this >= split.utterances.len();
        used += of_this.min(&split.utterances.len());
    }
    match (used, whole) {
        (0, _) => Found::unverified("no utterance is read"),
        (_, true) => Found::new(
            Identity::Published,
            format!("utterances, speakers and minutes of its splits are as published, {BY_HEADERS}"),
        ),
        (_, false) if on_disk => {
            Found::new(Identity::Subset, format!("{used} utterances of splits that are as published, {BY_HEADERS}"))
        }
        (_, false) => {
            let reason = format!("{used} utterances, each with the text and audio of a public copy, {BY_HEADERS}");
            Found::new(Identity::Subset, reason)
        }
    }
}

fn minutes(split: &Split) -> f64 {
    split.utterances.iter().map(|utterance| utterance.samples as f64).sum::<f64>() / f64::from(RATE_HZ) / 60.0
}

fn measured(split: &Split) -> String {
    let (utterances, speakers) = (split.utterances.len(), split.speakers().len());
    format!("{utterances} utterances of {speakers} speakers, {:.1} minutes", minutes(split))
}

impl Published {
    fn fits(&self, split: &Split) -> bool {
        split.utterances.len() == self.utterances
            && split.speakers().len() == self.speakers
            && (minutes(split) / self.minutes - 1.0).abs() <= MINUTES_APART
    }

    fn sizes(&self) -> String {
        format!("{} of {}, {:.1}", self.utterances, self.speakers, self.minutes)
    }
}
