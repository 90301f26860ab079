//! WikiText-103 (Merity et al., 2016): one split as the bytes of its token file.
//!
//! Two layouts hold the same text. The archive has `wiki.{train,valid,test}.tokens`: one paragraph or heading a line,
//! each beginning with a space and ending with `" \n"`, an empty line being `" \n"`. The Hub has Parquet shards with one
//! line a row, column `text`: a row is the line with its end, but an empty line is stored as `""`. Undoing that one
//! change gives the token file byte for byte, so whatever is computed from a split does not depend on its layout.

pub mod articles;
pub mod generate;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow_array::{Array, RecordBatch, cast::AsArray};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use sha2::{Digest, Sha256};

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
    let tokens = token_file(root, split);
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

/// Whether a split is a token file, which can be read again piece by piece.
#[must_use]
pub fn is_file(root: &Path, split: Split) -> bool {
    token_file(root, split).is_file()
}

fn token_file(root: &Path, split: Split) -> PathBuf {
    root.join(format!("wiki.{}.tokens", split.name()))
}

/// Bytes of a piece of a file that is read again.
const PIECE_BYTES: usize = 8 << 20;

/// Reads a token file that needed no mending once more, in pieces of whole lines that `take` is given in order: so the whole of it need
/// not stay in memory.
///
/// # Errors
/// `Corrupt` if its SHA-256 is not `sha256`: it has changed meanwhile; `Io` if the system refuses; and what `take` says.
pub fn read_again(
    root: &Path,
    split: Split,
    sha256: &str,
    mut take: impl FnMut(&str) -> DataResult<()>,
) -> DataResult<()> {
    let path = token_file(root, split);
    let changed = || {
        let got = "it was changed while it was read".to_owned();
        DataError::corrupt(&path, At::File, "the text that was read a moment ago; run again", got)
    };
    let file = File::open(&path).map_err(DataError::io(&path))?;
    let mut hash = Sha256::new();
    let text = |lines: &[u8]| take(std::str::from_utf8(lines).map_err(|_| changed())?);
    pieces(file, PIECE_BYTES, &mut hash, &path, text)?;
    if crate::files::hex(&hash.finalize()) == sha256 { Ok(()) } else { Err(changed()) }
}

/// Hands out what is read in pieces of whole lines, of about so many bytes; the last one may lack its line end. All of it enters `hash`.
fn pieces(
    mut file: impl Read,
    piece_bytes: usize,
    hash: &mut Sha256,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> DataResult<()>,
) -> DataResult<()> {
    let mut piece = Vec::with_capacity(piece_bytes);
    loop {
        let before = piece.len();
        let read = (&mut file).take(piece_bytes as u64).read_to_end(&mut piece).map_err(DataError::io(path))?;
        hash.update(piece.get(before..).unwrap_or_default());
        // a line that is longer than a piece grows until it ends
        let whole =
            if read == 0 { piece.len() } else { piece.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1) };
        if whole > 0 {
            take(piece.get(..whole).unwrap_or_default())?;
        }
        piece.drain(..whole);
        if read == 0 {
            return Ok(());
        }
    }
}

/// What a message about a text that is none of the dataset says.
const EXPECTED: &str = "the text of WikiText-103, with a blank before each word; fetch the file again";

/// The text of a token file, which `path` holds; what was mended enters `account`.
///
/// # Errors
/// `Corrupt` with the byte offset of what is not text, and for a text without words or of which no line begins with a
/// blank, as all of the dataset do.
pub fn mend(path: &Path, bytes: Vec<u8>, account: &mut Account) -> DataResult<String> {
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
        return Err(DataError::corrupt(
            path,
            At::File,
            "a column `text`",
            format!("the columns {}", excerpt(&names.join(", "))),
        ));
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
                let got = format!(
                    "row {row} (from 0) is {}",
                    other.map_or("null".into(), |line| format!("`{}`", excerpt(line)))
                );
                return Err(DataError::corrupt(
                    path,
                    At::File,
                    "rows that are one line with its end, or empty; fetch the file again",
                    got,
                ));
            }
        }
        *row += 1;
    }
    Ok(())
}
