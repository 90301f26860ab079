//! WikiText-103 (Merity et al., 2016): one split as the bytes of its token file.
//!
//! Two layouts hold the same text. The archive has `wiki.{train,valid,test}.tokens`: one paragraph or heading a line,
//! each beginning with a space and ending with `" \n"`, an empty line being `" \n"`. The Hub has Parquet shards with one
//! line a row, column `text`: a row is the line with its end, but an empty line is stored as `""`. Undoing that one
//! change gives the token file byte for byte, so whatever is computed from a split does not depend on its layout.

pub mod articles;
pub mod generate;

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::account::{Account, Kind};
use crate::error::{At, DataError, DataResult};
use crate::plain::{Plain, excerpt};

/// What the token file holds where the Hub's rows hold an empty string.
const EMPTY_LINE: &str = " \n";
/// Folder of the Hub's repository that holds the shards.
const HUB_FOLDER: &str = "wikitext-103-v1";
/// What a user can do about missing files.
const NEXT: &str = "run `harness data fetch wikitext-103`, or `harness data mini wikitext-103` for a generated stand-in, \
                    or name the folder that has them with --data";

/// A part of the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Text to learn from.
    Train,
    /// Text to choose settings by.
    Valid,
    /// Text to report on.
    Test,
}

impl Split {
    /// The split's name in the token files: `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }

    /// The split's name in the Hub's files.
    fn hub_name(self) -> &'static str {
        match self {
            Self::Valid => "validation",
            other => other.name(),
        }
    }
}

/// The text of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The token file's bytes: valid UTF-8.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes in lower-case hexadecimal.
    pub fingerprint: String,
}

/// Reads one split from `root`: `wiki.SPLIT.tokens` if it is there, otherwise the Hub's Parquet shards, which lie in
/// `root` or in `root/wikitext-103-v1`. A byte order mark and other line ends are mended, as is a last line without an end.
///
/// # Errors
/// `Missing` if neither layout, or not every shard, is there; `Corrupt` with the byte offset of what is not the dataset's
/// text, or with the row of a shard that is not a line; `Io` if the system refuses.
pub fn read_split(root: &Path, split: Split) -> DataResult<Text> {
    read_split_telling(root, split, &mut Account::new())
}

/// [`read_split`], which tells `account` what it mended.
///
/// # Errors
/// As [`read_split`].
pub fn read_split_telling(root: &Path, split: Split, account: &mut Account) -> DataResult<Text> {
    let tokens = root.join(format!("wiki.{}.tokens", split.name()));
    let (path, bytes) = if tokens.is_file() {
        let bytes = std::fs::read(&tokens).map_err(DataError::io(&tokens))?;
        (tokens, bytes)
    } else {
        let mut text = String::new();
        let shards = shards(root, split, &tokens)?;
        for shard in &shards {
            read_shard(shard, &mut text)?;
        }
        (shards.into_iter().next().unwrap_or(tokens), text.into_bytes())
    };
    account.expect(1);
    let bytes = mend(&path, bytes, account)?.into_bytes();
    let fingerprint = crate::files::sha256_hex(&bytes);
    Ok(Text { bytes, fingerprint })
}

/// What a message about a text that is none of the dataset says.
const EXPECTED: &str = "the text of WikiText-103, with a blank before each word; fetch the file again";

/// The text of a token file, which `path` holds.
///
/// # Errors
/// `Corrupt` with the byte offset of what is not text, and for a text without words or of which no line begins with a
/// blank, as all of the dataset do.
pub(crate) fn mend(path: &Path, bytes: Vec<u8>, account: &mut Account) -> DataResult<String> {
    let wrong = |at: At, got: String| Err(DataError::corrupt(path, at, EXPECTED, got));
    let length = bytes.len();
    let place = path.file_name().unwrap_or_default().to_string_lossy();
    let mut text = Plain::of(path, bytes)?.told(&place, account);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let Some(first) = lines.next() else {
        return wrong(At::File, format!("{length} bytes without a word"));
    };
    if !first.starts_with(' ') && !lines.any(|line| line.starts_with(' ')) {
        return wrong(At::Byte(0), format!("no line begins with a blank: `{}`", excerpt(first)));
    }
    if !text.ends_with('\n') {
        account.add(Kind::Repaired, &place, "the end of its last line was missing; perhaps the file is cut");
        text.push_str(if text.ends_with(' ') { "\n" } else { " \n" });
    }
    Ok(text)
}

/// The bytes of a token file as text.
///
/// # Errors
/// `Corrupt` with the byte offset of invalid UTF-8.
pub fn check_text<'b>(path: &Path, bytes: &'b [u8]) -> DataResult<&'b str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = At::Byte(error.valid_up_to() as u64);
        DataError::corrupt(path, at, "UTF-8 text", "bytes that are not valid UTF-8")
    })
}

/// The Hub's shards of a split in order, all of them.
fn shards(root: &Path, split: Split, tokens: &Path) -> DataResult<Vec<PathBuf>> {
    let pattern = format!("{}-?????-of-?????.parquet", split.hub_name());
    for folder in [root.to_path_buf(), root.join(HUB_FOLDER)] {
        let Some(total) = shard_total(&folder, split)? else { continue };
        let paths = (0..total).map(|n| folder.join(format!("{}-{n:05}-of-{total:05}.parquet", split.hub_name())));
        let paths: Vec<PathBuf> = paths.collect();
        if let Some(missing) = paths.iter().find(|path| !path.is_file()) {
            return Err(DataError::Missing {
                path: missing.clone(),
                expected: format!("all {total} shards of the {} split", split.name()),
                next: NEXT.into(),
            });
        }
        return Ok(paths);
    }
    Err(DataError::Missing {
        path: tokens.to_owned(),
        expected: format!("the token file, or {pattern} in {} or in its {HUB_FOLDER}/", root.display()),
        next: NEXT.into(),
    })
}

/// How many shards the files in `folder` say the split has; `None` without any.
fn shard_total(folder: &Path, split: Split) -> DataResult<Option<u32>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut total: Option<u32> = None;
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        let Some((_, of)) = path.file_name().and_then(|name| name.to_str()).and_then(|name| parse_shard(name, split))
        else {
            continue;
        };
        match total {
            Some(other) if other != of => {
                let got = format!("a shard of {of} beside a shard of {other}");
                return Err(DataError::corrupt(&path, At::File, "shards of one revision only", got));
            }
            _ => total = Some(of),
        }
    }
    Ok(total)
}

/// Index and total of `SPLIT-NNNNN-of-MMMMM.parquet`; `None` for any other name.
fn parse_shard(name: &str, split: Split) -> Option<(u32, u32)> {
    let rest = name.strip_prefix(split.hub_name())?.strip_prefix('-')?.strip_suffix(".parquet")?;
    let (index, total) = rest.split_once("-of-")?;
    let number = |digits: &str| if digits.len() == 5 { digits.parse::<u32>().ok() } else { None };
    let (index, total) = (number(index)?, number(total)?);
    (index < total).then_some((index, total))
}

/// Appends a shard's lines to `text`.
fn read_shard(path: &Path, text: &mut String) -> DataResult<()> {
    let bad = |error: parquet::errors::ParquetError| {
        DataError::corrupt(path, At::File, "a Parquet file with a column `text`; fetch it again", error.to_string())
    };
    let file = File::open(path).map_err(DataError::io(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(bad)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["text"]);
    let mut row = 0_u64;
    for batch in builder.with_projection(mask).build().map_err(bad)? {
        append_lines(path, &batch.map_err(|error| bad(error.into()))?, &mut row, text)?;
    }
    Ok(())
}

/// Appends a batch's rows; `row` counts the rows of the file, from 0.
fn append_lines(path: &Path, batch: &RecordBatch, row: &mut u64, text: &mut String) -> DataResult<()> {
    let Some(column) = batch.column_by_name("text") else {
        let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        return Err(DataError::corrupt(path, At::File, "a column `text`", format!("columns {names:?}")));
    };
    let rows: Box<dyn Iterator<Item = Option<&str>>> = if let Some(strings) = column.as_string_opt::<i32>() {
        Box::new(strings.iter())
    } else if let Some(strings) = column.as_string_opt::<i64>() {
        Box::new(strings.iter())
    } else if let Some(strings) = column.as_string_view_opt() {
        Box::new(strings.iter())
    } else {
        let got = format!("column `text` of type {}", column.data_type());
        return Err(DataError::corrupt(path, At::File, "column `text` of strings", got));
    };
    for value in rows {
        match value {
            Some("") => text.push_str(EMPTY_LINE),
            // One row, one line: otherwise the token file cannot be rebuilt from the rows.
            Some(line) if line.find('\n') == Some(line.len() - 1) => text.push_str(line),
            other => {
                let got = format!("row {row} (from 0) is {}", other.map_or("null".into(), |line| format!("{line:?}")));
                return Err(DataError::corrupt(path, At::File, "rows that are one line with its end, or empty", got));
            }
        }
        *row += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::StringArray;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::datasets::vocabulary::{Vocabulary, count_words};

    fn write_shard(path: &Path, rows: &[Option<&str>]) {
        let column: Arc<dyn Array> = Arc::new(StringArray::from(rows.to_vec()));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn both_layouts_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (files, hub) = (dir.path().join("files"), dir.path().join("hub"));
        std::fs::create_dir_all(&files).unwrap();
        std::fs::create_dir_all(hub.join(HUB_FOLDER)).unwrap();
        std::fs::write(files.join("wiki.valid.tokens"), " \n = A = \n \n b Ω c . \n").unwrap();
        let shard = |n: u32| hub.join(HUB_FOLDER).join(format!("validation-{n:05}-of-00002.parquet"));
        write_shard(&shard(1), &[Some(""), Some(" b Ω c . \n")]);
        write_shard(&shard(0), &[Some(""), Some(" = A = \n")]);
        let want = read_split(&files, Split::Valid).unwrap();
        assert_eq!(read_split(&hub, Split::Valid).unwrap(), want);
        assert_eq!(read_split(&hub.join(HUB_FOLDER), Split::Valid).unwrap(), want);
        assert_eq!(want.fingerprint, crate::files::sha256_hex(&want.bytes));
        let hub_text = read_split(&hub, Split::Valid).unwrap();
        for vocabulary in [Vocabulary::byte(), Vocabulary::word(&want.bytes).unwrap()] {
            assert_eq!(vocabulary.encode(&want.bytes).unwrap(), vocabulary.encode(&hub_text.bytes).unwrap());
        }

        std::fs::remove_file(shard(0)).unwrap();
        let error = read_split(&hub, Split::Valid).unwrap_err().to_string();
        assert!(error.contains("validation-00000-of-00002.parquet: not found"), "{error}");
    }

    #[test]
    fn what_is_not_the_dataset_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("wiki.test.tokens: not found") && error.contains("harness data fetch"), "{error}");

        std::fs::write(dir.path().join("wiki.test.tokens"), b" ab \xff \n").unwrap();
        let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("wiki.test.tokens at byte 4"), "{error}");

        for rows in [[Some(" a \n"), None], [Some(" a \n"), Some(" no end")], [Some(" a \n"), Some(" two \n lines \n")]]
        {
            write_shard(&dir.path().join("train-00000-of-00001.parquet"), &rows);
            let error = read_split(dir.path(), Split::Train).unwrap_err().to_string();
            assert!(error.contains("row 1"), "{error}");
        }
        write_shard(&dir.path().join("train-00000-of-00003.parquet"), &[Some("")]);
        let error = read_split(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("one revision"), "{error}");
    }

    const CLEAN: &str = " \n = A = \n \n b <unk> Ω . \n \n";

    fn read_as(bytes: &[u8]) -> (Result<Text, String>, Account) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wiki.test.tokens"), bytes).unwrap();
        let mut account = Account::new();
        let text = read_split_telling(dir.path(), Split::Test, &mut account);
        (text.map_err(|error| error.to_string()), account)
    }

    #[test]
    fn marks_line_ends_and_a_missing_end_are_mended_and_told() {
        let clean = read_as(CLEAN.as_bytes());
        assert_eq!((clean.0.as_ref().unwrap().bytes.as_slice(), clean.1.notices()), (CLEAN.as_bytes(), &[][..]));
        let crlf = CLEAN.replace('\n', "\r\n");
        let marked = format!("\u{FEFF}{CLEAN}");
        let unended = CLEAN.trim_end_matches('\n').to_owned();
        let all = format!("\u{FEFF}{}", crlf.trim_end_matches(['\r', '\n']));
        let half = CLEAN.replacen('\n', "\r\n", 2);
        for (bytes, told) in [(crlf, 1), (marked, 1), (unended, 1), (all, 3), (half, 1), (CLEAN.replace('\n', "\r"), 1)]
        {
            let (text, account) = read_as(bytes.as_bytes());
            assert_eq!(text.as_ref(), clean.0.as_ref(), "{bytes:?}");
            assert_eq!(account.count(Kind::Repaired), told, "{:?}", account.notices());
            assert_eq!(account.notices()[0].place, "wiki.test.tokens");
        }
        let (text, account) = read_as(b" a b\n c");
        assert_eq!((text.unwrap().bytes, account.count(Kind::Repaired)), (b" a b\n c \n".to_vec(), 1));
    }

    #[test]
    fn damaged_downloads_are_refused() {
        for (bytes, place) in [
            (&b""[..], ": 0 bytes without a word"),
            (b" ", ": 1 bytes without a word"),
            (b" \n \n\t\n", ": 6 bytes without a word"),
            (b"\xEF\xBB\xBF\r\n", ": 5 bytes without a word"),
            (b" \n = A = \n \0\0", " at byte 11: a zero byte, the first of 2"),
            (&[0; 700], " at byte 0: a zero byte"),
            (b" a \n b\0 \n", " at byte 6: a zero byte"),
            (b"<html><body>503 Service Unavailable</body></html>\n", " at byte 0: a page of markup"),
            (b"\n<!doctype html>\n<html>\n  <p>\n", " at byte 0: a page of markup"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", " at byte 0: a page of markup"),
            (b"404: Not Found", " at byte 0: no line begins with a blank: `404: Not Found`"),
            (b"{\"message\": \"\x1b[2J\"}", " at byte 0: no line begins with a blank: `{"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", " at byte 0: no line begins"),
            (b"\xFF\xFE \0a\0", " at byte 0: UTF-16"),
        ] {
            let (text, _) = read_as(bytes);
            let error = text.unwrap_err();
            assert!(error.contains(&format!("wiki.test.tokens{place}")), "{place}: {error}");
            assert!(
                error.contains("expected: ") && error.contains("fetch the file again") && !error.contains('\x1b'),
                "{error}"
            );
        }
    }

    #[test]
    fn shards_are_judged_like_token_files() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("test-00000-of-00001.parquet");
        for rows in [vec![], vec![Some("")], vec![Some(" \n"), Some("")], vec![Some(" a\0 \n")], vec![Some("<html>\n")]]
        {
            write_shard(&shard, &rows);
            let error = read_split(dir.path(), Split::Test).unwrap_err().to_string();
            assert!(error.contains("test-00000-of-00001.parquet") && error.contains("again"), "{rows:?}: {error}");
        }
        write_shard(&shard, &[Some(" a \r\n"), Some(""), Some(" b \r\n")]);
        let mut account = Account::new();
        let text = read_split_telling(dir.path(), Split::Test, &mut account).unwrap();
        assert_eq!((text.bytes.as_slice(), account.count(Kind::Repaired)), (&b" a \n \n b \n"[..], 1));
    }

    #[test]
    fn shard_names_are_taken_literally() {
        assert_eq!(parse_shard("train-00001-of-00002.parquet", Split::Train), Some((1, 2)));
        for name in ["train-00002-of-00002.parquet", "train-1-of-2.parquet", "test-00000-of-00001.parquet", "x"] {
            assert_eq!(parse_shard(name, Split::Train), None, "{name}");
        }
    }

    /// The published sizes: the reader and the definition of a word agree with the dataset's authors.
    #[test]
    fn the_real_splits_have_the_published_number_of_words() {
        let Some(data) = std::env::var_os("HARNESS_REAL_DATA").map(PathBuf::from) else {
            eprintln!("skipped: set HARNESS_REAL_DATA to a folder with wikitext-103/ and wikitext-103-parquet/");
            return;
        };
        for (split, words) in [(Split::Valid, 217_646), (Split::Test, 245_569)] {
            let text = read_split(&data.join("wikitext-103"), split).unwrap();
            assert_eq!(read_split(&data.join("wikitext-103-parquet"), split).unwrap(), text);
            assert_eq!(count_words(std::str::from_utf8(&text.bytes).unwrap()), words);
            let vocabulary = Vocabulary::word(&text.bytes).unwrap();
            let encoded = vocabulary.encode(&text.bytes).unwrap();
            assert_eq!((encoded.words, encoded.ids.len() as u64, encoded.unknown), (words, words, 0));
            assert!(vocabulary.decode(&encoded.ids).unwrap() == text.bytes);
        }
        // 103 227 021 words of 267 735 types in the whole training text, `<unk>` and `<eos>` among them
        if data.join("wikitext-103/wiki.train.tokens").is_file() {
            let text = read_split(&data.join("wikitext-103"), Split::Train).unwrap();
            assert_eq!(count_words(std::str::from_utf8(&text.bytes).unwrap()), 103_227_021);
            assert_eq!(Vocabulary::word(&text.bytes).unwrap().size(), 267_735);
        } else {
            eprintln!("not checked: the training text, whose vocabulary is published, is not there");
        }
    }
}
