//! `LibriSpeech` (Panayotov et al., 2015): read books as 16 kHz FLAC files, in the publisher's layout:
//! `SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac` beside `SPEAKER-CHAPTER.trans.txt`, whose lines are `ID TEXT`.

pub mod generate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::account::{Account, Kind, inert};
use crate::error::{At, DataError, DataResult};
use crate::folders;
use crate::formats::flac;
use crate::plain::Plain;

/// Sampling rate of every file.
pub const RATE_HZ: u32 = 16_000;
/// What a user can do about missing files.
const NEXT: &str = "run `harness data fetch librispeech`, or set `generate` for a made-up stand-in, or name the folder \
                    that has it with --data";

/// What a user can do about a file that is wrong.
const AGAIN: &str = "fetch the file again";

/// One utterance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// Identifier, such as `1089-134686-0000`.
    pub id: String,
    /// Number of the reader.
    pub speaker: u32,
    /// Number of the chapter.
    pub chapter: u32,
    /// What is read: words in capitals with apostrophes, one space between them.
    pub text: String,
    /// The audio.
    pub path: PathBuf,
    /// Samples at [`RATE_HZ`].
    pub samples: u64,
    /// Hash of the audio, see [`flac::Info::content`].
    pub content: String,
}

/// One split: its utterances by rising speaker, chapter and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Name, such as `test-clean`.
    pub name: String,
    /// The utterances.
    pub utterances: Vec<Utterance>,
    /// What was not taken as it was found; its items are the utterances.
    pub account: Account,
}

impl Split {
    /// Reads the index of the split `name` below `root`: transcripts, and the header of every audio file.
    ///
    /// # Errors
    /// [`DataError::Missing`] if the split has no folder, or a transcript has no audio; [`DataError::Corrupt`] with file and
    /// line for a transcript that breaks the format, for transcripts without the line of an audio file, or for audio that
    /// is not one channel of 16 bits at 16 kHz.
    pub fn open(root: &Path, name: &str) -> DataResult<Self> {
        let folder = root.join(name);
        if !folder.is_dir() {
            let expected = "a folder of speakers".to_owned();
            return Err(DataError::Missing { path: folder, expected, next: NEXT.into() });
        }
        let (mut chapters, mut account) = (Vec::new(), Account::new());
        for (speaker, path) in numbered_folders(&folder, root, &mut account)? {
            let inside = numbered_folders(&path, root, &mut account)?;
            chapters.extend(inside.into_iter().map(|(chapter, path)| (speaker, chapter, path)));
        }
        let read: Vec<DataResult<(Vec<Utterance>, Account)>> =
            chapters.par_iter().map(|(speaker, chapter, path)| read_chapter(root, path, *speaker, *chapter)).collect();
        let mut utterances = Vec::new();
        for chapter in read {
            let (chapter, told) = chapter?;
            utterances.extend(chapter);
            account.extend(told);
        }
        if utterances.is_empty() {
            let expected = "SPEAKER/CHAPTER folders with transcripts".to_owned();
            return Err(DataError::Missing { path: folder, expected, next: NEXT.into() });
        }
        account.expect(utterances.len() as u64);
        Ok(Self { name: name.to_owned(), utterances, account })
    }

    /// SHA-256 over identifiers, transcripts and audio hashes, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for u in &self.utterances {
            hash.update(format!("{}\n{}\n{}\n{}\n", u.id, u.text, u.content, u.samples).as_bytes());
        }
        crate::files::hex(&hash.finalize())
    }

    /// The speakers' numbers, each once, rising.
    pub fn speakers(&self) -> Vec<u32> {
        self.utterances.iter().map(|u| u.speaker).collect::<BTreeSet<u32>>().into_iter().collect()
    }
}

/// The folders inside one whose names are numbers, by rising number; others enter `account`.
fn numbered_folders(folder: &Path, root: &Path, account: &mut Account) -> DataResult<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in folders::entries(folder, root, account)?.into_iter().filter(|entry| entry.is_folder) {
        match entry.name.parse() {
            Ok(number) => found.push((number, entry.path)),
            Err(_) => account.add(Kind::Foreign, below(root, &entry.path), "a folder whose name is no number"),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A path without the folder of the dataset, for an account.
fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// What the lines of a transcript file may have around them without harm.
const BLANK_LINES: &str = "blank lines";
const BLANKS: &str = "blanks around its lines";

fn read_chapter(root: &Path, folder: &Path, speaker: u32, chapter: u32) -> DataResult<(Vec<Utterance>, Account)> {
    let transcripts = folder.join(format!("{speaker}-{chapter}.trans.txt"));
    let bytes = std::fs::read(&transcripts).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing {
            path: transcripts.clone(),
            expected: "the chapter's transcripts".into(),
            next: NEXT.into(),
        },
        _ => DataError::io(&transcripts)(error),
    })?;
    let mut account = Account::new();
    let mut plain = Plain::of(&transcripts, bytes)?;
    let lines = || plain.text.lines();
    let blank_lines = lines().any(|line| line.trim().is_empty()).then_some(BLANK_LINES);
    let blanks = lines().any(|line| line != line.trim() && !line.trim().is_empty()).then_some(BLANKS);
    plain.mended.extend(blank_lines.into_iter().chain(blanks));
    let text = plain.told(&below(root, &transcripts), &mut account);
    let mut utterances = Vec::new();
    let mut known = BTreeSet::new();
    for (line, number) in text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty()) {
        let wrong = |expected: String, got: &str| {
            let got = format!("`{}`", inert(got));
            Err(DataError::corrupt(&transcripts, At::Line(number), format!("{expected}; {AGAIN}"), got))
        };
        let (id, words) = line.split_once(' ').unwrap_or((line, ""));
        if id.strip_prefix(&format!("{speaker}-{chapter}-")).is_none_or(|rest| rest.parse::<u32>().is_err()) {
            return wrong(format!("an identifier `{speaker}-{chapter}-NNNN` and its text"), line);
        }
        if words.is_empty() || words.split(' ').any(str::is_empty) {
            return wrong("words behind the identifier, one space between them".into(), line);
        }
        if let Some(odd) = words.chars().find(|c| !matches!(c, 'A'..='Z' | '\'' | ' ')) {
            return wrong("capitals A to Z, apostrophes and spaces".into(), &odd.to_string());
        }
        if !known.insert(id.to_owned()) {
            return wrong("each identifier once".into(), id);
        }
        let path = folder.join(format!("{id}.flac"));
        let (samples, content) = read_header(&path)?;
        utterances.push(Utterance { id: id.into(), speaker, chapter, text: words.into(), path, samples, content });
    }
    if utterances.is_empty() {
        let expected = format!("a line `{speaker}-{chapter}-NNNN TEXT` for each utterance; {AGAIN}");
        return Err(DataError::corrupt(
            &transcripts,
            At::File,
            expected,
            format!("{} bytes without a word", text.len()),
        ));
    }
    for entry in folders::entries(folder, root, &mut account)? {
        let stem = entry.name.strip_suffix(".flac");
        if let Some(stem) = stem.filter(|stem| !known.contains(*stem)) {
            let expected = format!("a line for {stem}, whose audio is there");
            let got = format!("no such line among {}", utterances.len());
            return Err(DataError::corrupt(&transcripts, At::File, format!("{expected}; {AGAIN}"), got));
        }
    }
    utterances.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((utterances, account))
}

/// Samples and hash of an audio file.
fn read_header(path: &Path) -> DataResult<(u64, String)> {
    if !path.is_file() {
        let expected = "the audio that its transcript names".to_owned();
        return Err(DataError::Missing { path: path.to_owned(), expected, next: NEXT.into() });
    }
    let info = flac::info(path)?;
    if (info.rate_hz, info.channels, info.bits) != (RATE_HZ, 1, 16) {
        let got = format!("{} channels of {} bits at {} Hz", info.channels, info.bits, info.rate_hz);
        return Err(DataError::corrupt(path, At::File, format!("1 channel of 16 bits at {RATE_HZ} Hz"), got));
    }
    Ok((info.samples, info.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A split with one chapter of two utterances.
    fn dataset() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let chapter = dir.path().join("dev-clean/12/345");
        std::fs::create_dir_all(&chapter).unwrap();
        for (n, length) in [(0, 500), (1, 700)] {
            write(&chapter.join(format!("12-345-000{n}.flac")), length, RATE_HZ);
        }
        std::fs::write(chapter.join("12-345.trans.txt"), "12-345-0001 IT'S B\n12-345-0000 A\n").unwrap();
        (dir, chapter)
    }

    fn write(path: &Path, length: i32, rate_hz: u32) {
        let samples: Vec<i32> = (0..length).map(|t| t % 50).collect();
        std::fs::write(path, flac::encode(&[&samples], rate_hz, 16).unwrap()).unwrap();
    }

    #[test]
    fn reads_the_publishers_layout() {
        let (dir, chapter) = dataset();
        std::fs::write(dir.path().join("dev-clean/README.TXT"), "x").unwrap();
        let split = Split::open(dir.path(), "dev-clean").unwrap();
        let found: Vec<_> = split.utterances.iter().map(|u| (u.id.as_str(), u.text.as_str(), u.samples)).collect();
        assert_eq!(found, [("12-345-0000", "A", 500), ("12-345-0001", "IT'S B", 700)]);
        assert_eq!(split.utterances[1].path, chapter.join("12-345-0001.flac"));
        assert_eq!((split.speakers(), split.utterances[0].chapter), (vec![12], 345));
        let before = split.fingerprint();
        write(&chapter.join("12-345-0000.flac"), 501, RATE_HZ);
        assert_ne!(Split::open(dir.path(), "dev-clean").unwrap().fingerprint(), before);
    }

    #[test]
    fn transcripts_that_went_through_other_programs_are_read_and_told() {
        let (dir, chapter) = dataset();
        let clean = Split::open(dir.path(), "dev-clean").unwrap();
        assert!(clean.account.notices().is_empty());
        for (text, told) in [
            ("12-345-0001 IT'S B\r\n12-345-0000 A\r\n", 1),
            ("\u{FEFF}12-345-0001 IT'S B\n12-345-0000 A\n", 1),
            ("12-345-0001 IT'S B\n\n  \n12-345-0000 A", 1),
            ("12-345-0001 IT'S B \n12-345-0000 A\t\n", 1),
            ("\u{FEFF}12-345-0001 IT'S B  \r\n\r\n12-345-0000 A", 4),
        ] {
            std::fs::write(chapter.join("12-345.trans.txt"), text).unwrap();
            let split = Split::open(dir.path(), "dev-clean").unwrap();
            assert_eq!((&split.utterances, split.fingerprint()), (&clean.utterances, clean.fingerprint()), "{text:?}");
            assert_eq!(split.account.count(Kind::Repaired), told, "{:?}", split.account.notices());
            assert_eq!(split.account.notices()[0].place, "dev-clean/12/345/12-345.trans.txt");
        }
        for (text, message) in [
            ("", "trans.txt: 0 bytes without a word"),
            ("\n \n", "without a word"),
            ("<html><body>404</body></html>", "at byte 0: a page of markup"),
            ("12-345-0000 A\0\n", "at byte 13: a zero byte"),
            ("Not found", "trans.txt:1: `Not found`"),
        ] {
            std::fs::write(chapter.join("12-345.trans.txt"), text).unwrap();
            let error = Split::open(dir.path(), "dev-clean").unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("fetch the file again"), "{text:?}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_utterance_is_told() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;

        let (dir, chapter) = dataset();
        let clean = Split::open(dir.path(), "dev-clean").unwrap();
        let put = |path: PathBuf| std::fs::write(path, b"\0\x05\x16\x07").unwrap();
        let kinds: [&dyn Fn(); 5] = [
            &|| {
                ["._12-345-0000.flac", ".DS_Store", "Thumbs.db"]
                    .map(|name| chapter.join(name))
                    .into_iter()
                    .for_each(put);
            },
            &|| put(chapter.join(std::ffi::OsStr::from_bytes(b"12-345-\xFF.flac"))),
            &|| {
                ["12-345-0009.flac.partial-7-1", "12-345-0009.flac.part", ".12-345-0009.flac"]
                    .map(|name| chapter.join(name))
                    .into_iter()
                    .for_each(put);
            },
            &|| {
                symlink("..", dir.path().join("dev-clean/12/77")).unwrap();
                symlink(".", dir.path().join("dev-clean/78")).unwrap();
                symlink("79", dir.path().join("dev-clean/79")).unwrap();
            },
            &|| std::fs::create_dir_all(dir.path().join("dev-clean/12 (copy)/345")).unwrap(),
        ];
        let mut told = 0;
        for (make, more) in kinds.into_iter().zip([3, 1, 3, 2, 1]) {
            make();
            told += more;
            let split = Split::open(dir.path(), "dev-clean").unwrap();
            assert_eq!(split.utterances, clean.utterances);
            assert_eq!((split.account.count(Kind::Foreign), split.account.items()), (told, 2), "{:?}", split.account);
        }
        // a speaker on another disk is a speaker
        std::fs::rename(dir.path().join("dev-clean/12"), dir.path().join("elsewhere")).unwrap();
        symlink("../elsewhere", dir.path().join("dev-clean/12")).unwrap();
        assert_eq!(Split::open(dir.path(), "dev-clean").unwrap().utterances, clean.utterances);
    }

    type Change<'a> = &'a dyn Fn(&Path);

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let message = |change: &dyn Fn(&Path)| {
            let (dir, chapter) = dataset();
            change(&chapter);
            Split::open(dir.path(), "dev-clean").unwrap_err().to_string()
        };
        let transcripts =
            |text: &'static str| move |c: &Path| std::fs::write(c.join("12-345.trans.txt"), text).unwrap();
        let cases: [(Change, &str); 9] = [
            (&|c| std::fs::remove_file(c.join("12-345-0001.flac")).unwrap(), "12-345-0001.flac: not found"),
            (&|c| std::fs::remove_file(c.join("12-345.trans.txt")).unwrap(), "12-345.trans.txt: not found"),
            (&|c| write(&c.join("12-345-0002.flac"), 9, RATE_HZ), "a line for 12-345-0002"),
            (&|c| write(&c.join("12-345-0000.flac"), 9, 8000), "12-345-0000.flac: 1 channels of 16 bits at 8000 Hz"),
            (&|c| std::fs::write(c.join("12-345-0000.flac"), "RIFF").unwrap(), "12-345-0000.flac at byte 0"),
            (&transcripts("12-345-0000 A\n12-346-0001 B\n"), "trans.txt:2: `12-346-0001 B`"),
            (&transcripts("12-345-0000\n"), "trans.txt:1"),
            (&transcripts("12-345-0000 A\n12-345-0001 a\n"), "trans.txt:2: `a`"),
            (&transcripts("12-345-0000 A\n12-345-0000 A\n"), "each identifier once"),
        ];
        for (change, expected) in cases {
            let got = message(change);
            assert!(got.contains(expected), "{expected}: {got}");
        }
        let (dir, _) = dataset();
        assert!(Split::open(dir.path(), "test-clean").unwrap_err().to_string().contains("test-clean: not found"));
    }
}
