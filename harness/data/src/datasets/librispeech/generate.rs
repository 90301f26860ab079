//! A small `LibriSpeech` in the publisher's layout, made up: several voices that read random words of a small lexicon, with
//! formants, bursts and noise for each letter (see `voice`). For tests and first steps; it says nothing about real speech.

mod voice;

use std::fmt::Write;
use std::path::Path;

use learner::seeded_rng;
use rand::Rng;
use rayon::prelude::*;

use crate::datasets::fill::fill;
use crate::datasets::librispeech::RATE_HZ;
use crate::error::{At, DataError, DataResult};
use crate::formats::flac;
use voice::Voice;

/// Rises whenever the same specification gives other bytes.
pub const GENERATOR_VERSION: u32 = 1;

/// Fewest utterances: every split needs one for each of its readers.
const MIN_UTTERANCES: usize = 20;
/// Most utterances: two hours of speech.
const MAX_UTTERANCES: usize = 5_000;
/// Utterances of a chapter.
const CHAPTER: usize = 25;
/// Splits, their shares of the utterances in percent, and their readers, who read nowhere else.
const SPLITS: [(&str, usize, u32); 3] = [("train-clean-100", 80, 12), ("dev-clean", 10, 2), ("test-clean", 10, 2)];
/// Words of an utterance.
const WORDS: std::ops::RangeInclusive<usize> = 2..=5;
/// The lexicon: every letter is one sound, and no two letters are the same sound.
const LEXICON: [&str; 40] = [
    "MALO", "TIRE", "SUNA", "KOPI", "FELU", "RAMI", "NOTE", "PASI", "LUKE", "SOFA", "MITU", "KARE", "TONU", "PELO",
    "FIMA", "RUSE", "NAKI", "LETO", "SIPU", "MURA", "FOKE", "TALI", "KEMU", "PINO", "RELA", "SATO", "NIFE", "LOMI",
    "KUSA", "TERU", "PAFO", "MENI", "SO", "LA", "KU", "TI", "TAMIRO", "KOLUSE", "PENATI", "SURIFA",
];
/// What lists the readers; its first line names the generator.
const READERS: &str = "SPEAKERS.TXT";

/// What to generate. The same specification gives the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeechSpec {
    /// Utterances of all splits together, 20 to 5000, of about 1.6 s and 40 kB each. About 400 suffice to learn something.
    pub utterances: usize,
    /// Seed of everything drawn.
    pub seed: u64,
}

/// One chapter, to be written.
struct Chapter {
    split: &'static str,
    reader: u32,
    number: u32,
    utterances: usize,
}

/// Writes the dataset to `root`, which appears when it is whole. If `root` already is this dataset, nothing happens.
///
/// # Errors
/// [`DataError::Corrupt`] if the specification has too few or too many utterances, or if `root` exists and is something
/// else; [`DataError::Io`] if the system refuses to write.
pub fn generate(root: &Path, spec: &SpeechSpec) -> DataResult<()> {
    if !(MIN_UTTERANCES..=MAX_UTTERANCES).contains(&spec.utterances) {
        let expected = format!("{MIN_UTTERANCES} to {MAX_UTTERANCES} utterances");
        return Err(DataError::corrupt(root, At::File, expected, format!("{} asked for", spec.utterances)));
    }
    let readers = readers(spec);
    let this = format!("what `{}` says", readers.lines().next().unwrap_or_default());
    let is_this = |root: &Path| std::fs::read(root.join(READERS)).is_ok_and(|found| found == readers.as_bytes());
    fill(root, &this, is_this, |root| {
        chapters(spec).par_iter().try_for_each(|chapter| write_chapter(root, chapter, spec.seed))?;
        let path = root.join(READERS);
        std::fs::write(&path, &readers).map_err(DataError::io(&path))
    })
}

/// Utterances of each reader of each split: `(split, reader, utterances)`.
fn shares(spec: &SpeechSpec) -> Vec<(&'static str, u32, usize)> {
    let mut all = Vec::new();
    let mut reader = 0;
    let mut left = spec.utterances;
    for (i, (split, percent, readers)) in SPLITS.into_iter().enumerate().rev() {
        // the training split takes what rounding leaves
        let share = if i == 0 { left } else { (spec.utterances * percent / 100).max(readers as usize) };
        left = left.saturating_sub(share);
        for r in 0..readers as usize {
            reader += 1;
            all.push((split, reader, share / readers as usize + usize::from(r < share % readers as usize)));
        }
    }
    all
}

fn chapters(spec: &SpeechSpec) -> Vec<Chapter> {
    let mut all = Vec::new();
    for (split, reader, utterances) in shares(spec) {
        for (number, from) in (reader * 1000..).zip((0..utterances).step_by(CHAPTER)) {
            all.push(Chapter { split, reader, number, utterances: CHAPTER.min(utterances - from) });
        }
    }
    all
}

/// The list of readers, in the publisher's form.
fn readers(spec: &SpeechSpec) -> String {
    let mut text =
        format!("; generated, version {GENERATOR_VERSION}: {} utterances, seed {}\n", spec.utterances, spec.seed);
    text += "; ID | SEX | SUBSET | MINUTES | NAME\n";
    for (split, reader, utterances) in shares(spec) {
        let sex = if Voice::of(reader, spec.seed).is_low() { 'M' } else { 'F' };
        let minutes = utterances as f64 * 1.6 / 60.0;
        // writing to a String cannot fail
        let _ = writeln!(text, "{reader} | {sex} | {split} | {minutes:.2} | Generated {reader}");
    }
    text
}

fn write_chapter(root: &Path, chapter: &Chapter, seed: u64) -> DataResult<()> {
    let Chapter { split, reader, number, utterances } = *chapter;
    let folder = root.join(split).join(reader.to_string()).join(number.to_string());
    std::fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
    let voice = Voice::of(reader, seed);
    let mut transcripts = String::new();
    for n in 0..utterances {
        let id = format!("{reader}-{number}-{n:04}");
        let mut rng = seeded_rng(seed, &format!("mini.speech.{id}"));
        let words: Vec<&str> =
            (0..rng.random_range(WORDS)).map(|_| LEXICON[rng.random_range(0..LEXICON.len())]).collect();
        let samples = voice.read(&words, &mut rng);
        let path = folder.join(format!("{id}.flac"));
        let bytes = flac::encode(&[&samples], RATE_HZ, 16)
            .map_err(|got| DataError::corrupt(&path, At::File, "samples that FLAC can hold", got))?;
        std::fs::write(&path, bytes).map_err(DataError::io(&path))?;
        let _ = writeln!(transcripts, "{id} {}", words.join(" "));
    }
    let path = folder.join(format!("{reader}-{number}.trans.txt"));
    std::fs::write(&path, transcripts).map_err(DataError::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::librispeech::Split;
    use std::collections::BTreeSet;

    #[test]
    fn is_a_whole_librispeech_and_the_same_each_time() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let spec = SpeechSpec { utterances: 60, seed: 1 };
        let mut readers = BTreeSet::new();
        let mut count = 0;
        for dir in [&a, &b] {
            generate(&dir.path().join("L"), &spec).unwrap();
        }
        for (name, _, speakers) in SPLITS {
            let split = Split::open(&a.path().join("L"), name).unwrap();
            assert_eq!(split, relocated(Split::open(&b.path().join("L"), name).unwrap(), b.path(), a.path()));
            assert_eq!(split.speakers().len(), speakers as usize);
            assert!(split.speakers().into_iter().all(|s| readers.insert(s)), "no reader is in two splits");
            count += split.utterances.len();
            for u in &split.utterances {
                let seconds = u.samples as f64 / f64::from(RATE_HZ);
                assert!((0.4..5.0).contains(&seconds), "{seconds}");
                let audio = flac::read(&u.path).unwrap();
                let loudest = audio.channels[0].iter().map(|s| s.abs()).max().unwrap();
                assert!((2_000..32_768).contains(&loudest), "{loudest}");
            }
        }
        assert_eq!(count, 60);
        generate(&a.path().join("L"), &spec).unwrap(); // nothing happens
        let other = generate(&a.path().join("L"), &SpeechSpec { utterances: 61, seed: 1 }).unwrap_err().to_string();
        assert!(other.contains("something else"), "{other}");
        assert!(generate(&a.path().join("M"), &SpeechSpec { utterances: 3, seed: 1 }).is_err());
    }

    fn relocated(mut split: Split, from: &Path, to: &Path) -> Split {
        for u in &mut split.utterances {
            u.path = to.join(u.path.strip_prefix(from).unwrap());
        }
        split
    }

    #[test]
    fn every_letter_of_the_lexicon_has_a_sound() {
        for word in LEXICON {
            assert!(word.chars().all(|c| voice::sound(c).is_some()), "{word}");
        }
        let words: BTreeSet<&str> = LEXICON.into_iter().collect();
        assert_eq!(words.len(), LEXICON.len());
    }
}
