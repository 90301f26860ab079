//! Text files as people's machines have them: a byte order mark, other line ends, and what is no text at all.
//!
//! What other readers pass over is passed over and told ([`Plain::mended`]); a file that was damaged on its way is refused
//! with the place.

use std::path::Path;

use crate::account::{Account, Kind};
use crate::error::{At, DataError, DataResult};

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xEF\xBB\xBF";
/// The marks of UTF-16.
const WIDE: [&[u8]; 2] = [b"\xFF\xFE", b"\xFE\xFF"];
/// What every message here ends with.
const AGAIN: &str = "fetch the file again, or copy it byte for byte";
/// Bytes of a file that a message shows.
const SHOWN: usize = 60;

/// A text in UTF-8 whose lines end with `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) text: String,
    /// What was not taken as it stands, in a few words each.
    pub(crate) mended: Vec<&'static str>,
}

impl Plain {
    /// Reads a file.
    ///
    /// # Errors
    /// As [`Plain::of`]; `Io` if the system refuses.
    pub(crate) fn read(path: &Path) -> DataResult<Self> {
        Self::of(path, std::fs::read(path).map_err(DataError::io(path))?)
    }

    /// The text in a file's bytes.
    ///
    /// # Errors
    /// `Corrupt` with the byte of what is not UTF-8 or is zero, and for a page of markup.
    pub(crate) fn of(path: &Path, mut bytes: Vec<u8>) -> DataResult<Self> {
        let wrong = |at: usize, expected: &str, got: String| {
            Err(DataError::corrupt(path, At::Byte(at as u64), format!("{expected}; {AGAIN}"), got))
        };
        let mut mended = Vec::new();
        if WIDE.iter().any(|mark| bytes.starts_with(mark)) {
            return wrong(0, "UTF-8 text", "UTF-16, by its byte order mark".into());
        }
        // more than one where files with marks were joined
        let skipped = MARK.len() * bytes.chunks(MARK.len()).take_while(|start| *start == MARK).count();
        if bytes.contains(&0) {
            let at = bytes.iter().position(|&byte| byte == 0).unwrap_or_default();
            let zeros = bytes.split(|&byte| byte == 0).count() - 1;
            return wrong(at, "text, which has no zero bytes", format!("a zero byte, the first of {zeros}"));
        }
        if skipped > 0 {
            bytes.drain(..skipped);
            mended.push("a byte order mark in front of its text");
        }
        let mut text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = skipped + error.utf8_error().valid_up_to();
                return wrong(at, "UTF-8 text", "bytes that are not valid UTF-8".into());
            }
        };
        if is_markup(&text) {
            return wrong(0, "plain text", format!("a page of markup: `{}`", excerpt(&text)));
        }
        let has_cr = text.contains('\r'); // the usual text has none: one look is enough
        if has_cr && text.contains("\r\n") {
            text = with_line_feeds(&text);
            mended.push("lines that end in CR LF");
        } else if has_cr && !text.contains('\n') {
            text = text.replace('\r', "\n");
            mended.push("lines that end in CR");
        }
        Ok(Self { text, mended })
    }

    /// The text; what was mended enters `account` under `place`.
    pub(crate) fn told(self, place: &str, account: &mut Account) -> String {
        for what in self.mended {
            account.add(Kind::Repaired, place, what);
        }
        self.text
    }
}

/// The first characters of a text, on one line and without effect on a terminal.
pub(crate) fn excerpt(text: &str) -> String {
    let start: String = text.trim_start().chars().take(SHOWN).collect();
    crate::account::inert(start.lines().next().unwrap_or_default())
}

/// Whether a text begins as pages of HTML and XML do. `<unk>` and the like are words of the dataset's.
fn is_markup(text: &str) -> bool {
    const WORDS: [&str; 2] = ["<unk>", "<eos>"];
    let start = text.trim_start();
    let opens = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '!' | '?' | '/'));
    start.strip_prefix('<').is_some_and(opens) && !WORDS.iter().any(|word| start.starts_with(word))
}

/// Line ends of one or more CR and a LF become a LF.
fn with_line_feeds(text: &str) -> String {
    let lines = text.split_inclusive('\n').flat_map(|line| match line.strip_suffix('\n') {
        Some(body) => [body.trim_end_matches('\r'), "\n"],
        None => [line.trim_end_matches('\r'), ""], // cut within its end
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Plain, String> {
        Plain::of(Path::new("x.txt"), bytes.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn marks_and_line_ends_are_mended_and_told() {
        for (bytes, text, mended) in [
            (&b"a\nb\n"[..], "a\nb\n", 0),
            (b"\xEF\xBB\xBFa\n", "a\n", 1),
            (b"\xEF\xBB\xBF\xEF\xBB\xBFa\n", "a\n", 1),
            (b"a\r\nb\r\n", "a\nb\n", 1),
            (b"\xEF\xBB\xBFa\r\n\nb\r\r\nc\r", "a\n\nb\nc", 2),
            (b"a\rb\r", "a\nb\n", 1),
            (b"a\rb\n", "a\rb\n", 0),
            (b"", "", 0),
            (b" <unk> a \n", " <unk> a \n", 0),
            (b" < 3 \n", " < 3 \n", 0),
        ] {
            let plain = of(bytes).unwrap();
            assert_eq!((plain.text.as_str(), plain.mended.len()), (text, mended), "{}", bytes.escape_ascii());
        }
        let mut account = Account::new();
        assert_eq!(of(b"\xEF\xBB\xBFa\r\n").unwrap().told("f", &mut account), "a\n");
        assert_eq!(account.count(Kind::Repaired), 2);
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        for (bytes, at, got) in [
            (&b"ab\0c\0"[..], 2, "the first of 2"),
            (b"\0", 0, "zero byte"),
            (b"\xEF\xBB\xBFab\0", 5, "zero byte"),
            (b"a\xFF", 1, "not valid UTF-8"),
            (b"\xEF\xBB\xBFa\xE9", 4, "not valid UTF-8"),
            (b"\xFF\xFEa\0", 0, "UTF-16"),
            (b"<html><body>503 Service Unavailable</body></html>\n", 0, "`<html><body>503"),
            (b"\r\n  <!DOCTYPE HTML PUBLIC>\r\n", 0, "markup"),
            (b"\xEF\xBB\xBF<?xml version='1.0'?><Error/>", 0, "markup"),
        ] {
            let error = of(bytes).unwrap_err();
            let place = format!("x.txt at byte {at}: ");
            assert!(error.starts_with(&place) && error.contains(got), "{}: {error}", bytes.escape_ascii());
            assert!(error.contains("fetch the file again"), "{error}");
        }
    }
}
