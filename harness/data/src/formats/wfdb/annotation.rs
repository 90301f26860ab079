//! Annotation files in the MIT format (annot(5)): two-byte words, six bits of code and ten of time since the annotation
//! before, with longer intervals, numbers and texts in words of special codes.

use std::path::Path;

use crate::error::{At, DataError, DataResult};

/// Extensions of annotation files beside a record that are in use on `PhysioNet`; the format has no mark of its own.
pub const ANNOTATORS: [&str; 17] = [
    "apn", "ari", "atr", "ecg", "event", "gqrs", "gqrsh", "gqrsl", "man", "pu0", "pwave", "qrs", "seizures", "sqrs",
    "st", "stf", "wqrs",
];

/// Codes that are no annotations of their own.
mod special {
    /// A four-byte interval follows.
    pub(super) const SKIP: u16 = 59;
    /// The number of this and the following annotations.
    pub(super) const NUMBER: u16 = 60;
    /// The subtype of this annotation.
    pub(super) const SUBTYPE: u16 = 61;
    /// The signal of this and the following annotations.
    pub(super) const CHANNEL: u16 = 62;
    /// A text follows.
    pub(super) const TEXT: u16 = 63;
}

/// What codes from 0 on mean, as the WFDB library prints them; a blank where none is defined.
const MNEMONICS: [&str; 42] = [
    " ", "N", "L", "R", "a", "V", "F", "J", "A", "S", "E", "j", "/", "Q", "~", " ", "|", " ", "s", "T", "*", "D", "\"",
    "=", "p", "B", "^", "t", "+", "u", "?", "!", "[", "]", "e", "n", "@", "x", "f", "(", ")", "r",
];

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// When, in samples from the record's start. The rate is the record's frames per second, unless the file's first
    /// annotations give a time resolution of their own.
    pub sample: i64,
    /// What, as a number from 0 to 58.
    pub code: u8,
    /// A number whose meaning depends on the code.
    pub subtype: i8,
    /// The signal it is about.
    pub channel: u8,
    /// A number whose meaning depends on the annotator.
    pub number: i8,
    /// Text, without the zero that may end it.
    pub text: String,
}

impl Annotation {
    /// The code as the WFDB library prints it: `N` for a normal beat; the number in brackets where it has no name.
    pub fn mnemonic(&self) -> String {
        match MNEMONICS.get(usize::from(self.code)) {
            Some(&name) if name != " " => name.to_owned(),
            _ => format!("[{}]", self.code),
        }
    }
}

/// Reads an annotation file.
///
/// # Errors
/// [`DataError::Io`] if the system refuses, otherwise as [`parse_annotations`].
pub fn read_annotations(path: &Path) -> DataResult<Vec<Annotation>> {
    parse_annotations(path, &std::fs::read(path).map_err(DataError::io(path))?)
}

/// The annotations in the bytes of a file, which errors call `path`, in the file's order.
///
/// # Errors
/// [`DataError::Corrupt`] with the byte at which the file ends too early, or a word is none of the format's.
pub fn parse_annotations(path: &Path, bytes: &[u8]) -> DataResult<Vec<Annotation>> {
    let mut words = Words { path, bytes, at: 0 };
    let mut all: Vec<Annotation> = Vec::new();
    // a number or channel holds until it is given anew
    let (mut time, mut channel, mut number) = (0_i64, 0, 0);
    loop {
        let at = words.at;
        let word = words.next()?;
        let (code, value) = (word >> 10, word & 0x3FF);
        let current = all.last_mut();
        let wrong = |got: &str| Err(DataError::corrupt(path, At::Byte(at as u64), "an annotation first", got));
        match code {
            0 if value == 0 => return words.end(all),
            special::SKIP => {
                // the high half comes first
                let (high, low) = (words.next()?, words.next()?);
                time += i64::from((u32::from(high) << 16 | u32::from(low)) as i32);
            }
            special::NUMBER => {
                let Some(current) = current else { return wrong("a number") };
                number = value as u8 as i8;
                current.number = number;
            }
            special::SUBTYPE => {
                let Some(current) = current else { return wrong("a subtype") };
                current.subtype = value as u8 as i8;
            }
            special::CHANNEL => {
                let Some(current) = current else { return wrong("a channel") };
                channel = value as u8;
                current.channel = channel;
            }
            special::TEXT => {
                let text = words.text(usize::from(value))?;
                let Some(current) = current else { return wrong("a text") };
                current.text = text;
            }
            50..=58 => {
                let expected = "a code from 0 to 49 or 59 to 63";
                return Err(DataError::corrupt(path, At::Byte(at as u64), expected, format!("code {code}")));
            }
            _ => {
                time += i64::from(value);
                all.push(Annotation {
                    sample: time,
                    code: code as u8,
                    subtype: 0,
                    channel,
                    number,
                    text: String::new(),
                });
            }
        }
    }
}

/// The words of a file.
struct Words<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn cut<T>(&self, expected: &str) -> DataResult<T> {
        Err(DataError::corrupt(self.path, At::Byte(self.bytes.len() as u64), expected, "the file ends"))
    }

    fn next(&mut self) -> DataResult<u16> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(&word) = rest.first_chunk() else { return self.cut("a word of two bytes, the last of them zero") };
        self.at += word.len();
        Ok(u16::from_le_bytes(word))
    }

    /// A text of so many bytes, which one more byte makes even.
    fn text(&mut self, bytes: usize) -> DataResult<String> {
        let Some(text) = self.bytes.get(self.at..self.at + bytes) else {
            return self.cut(&format!("a text of {bytes} bytes from byte {} on", self.at));
        };
        self.at += bytes.next_multiple_of(2);
        Ok(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }

    /// Behind the last word may be zeros, as old programs wrote whole blocks.
    fn end(&self, all: Vec<Annotation>) -> DataResult<Vec<Annotation>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.iter().position(|&byte| byte != 0) {
            None => Ok(all),
            Some(place) => {
                let got = format!("{} bytes more", rest.len() - place);
                Err(DataError::corrupt(
                    self.path,
                    At::Byte((self.at + place) as u64),
                    "the end of the annotations",
                    got,
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[u16]) -> DataResult<Vec<Annotation>> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        parse_annotations(Path::new("r.atr"), &bytes)
    }

    fn word(code: u16, value: u16) -> u16 {
        code << 10 | value
    }

    #[test]
    fn words_of_the_manual() {
        // a rhythm change with a text of three bytes, a skip of 70 000, two beats on another signal, a negative skip
        let text = [u16::from_le_bytes(*b"(A"), u16::from_le_bytes(*b"F\0")];
        let words = [
            word(28, 18),
            word(special::TEXT, 3),
            text[0],
            text[1],
            word(special::SKIP, 0),
            1,
            4464, // 2^16 + 4464 = 70 000
            word(1, 5),
            word(special::CHANNEL, 1),
            word(special::NUMBER, 0x3FF),
            word(5, 100),
            word(special::SUBTYPE, 0xFE),
            word(special::SKIP, 0),
            0xFFFF,
            0xFFFF,
            word(41, 0),
            0,
            0,
        ];
        let all = parse(&words).unwrap();
        let of = |a: &Annotation| (a.sample, a.mnemonic(), a.subtype, a.channel, a.number, a.text.clone());
        let empty = String::new;
        assert_eq!(
            all.iter().map(of).collect::<Vec<_>>(),
            [
                (18, "+".to_owned(), 0, 0, 0, "(AF".to_owned()),
                (70_023, "N".to_owned(), 0, 1, -1, empty()),
                (70_123, "V".to_owned(), -2, 1, -1, empty()),
                (70_122, "r".to_owned(), 0, 1, -1, empty()),
            ]
        );
        assert_eq!(parse(&[word(42, 1), 0]).unwrap()[0].mnemonic(), "[42]");
        assert_eq!(parse(&[0]).unwrap(), []);
    }

    #[test]
    fn what_is_no_annotation_file_is_refused_with_its_place() {
        for (words, message) in [
            (&[][..], "at byte 0: the file ends"),
            (&[word(1, 1)], "at byte 2: the file ends"),
            (&[word(special::SKIP, 0), 1], "at byte 4: the file ends"),
            (&[word(1, 1), word(special::TEXT, 9), 0], "at byte 6: the file ends"),
            (&[word(special::CHANNEL, 1), 0], "at byte 0: a channel"),
            (&[word(1, 1), word(50, 0), 0], "at byte 2: code 50"),
            (&[word(1, 1), 0, 0, 7], "at byte 6: 2 bytes more"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(message), "{words:?}: {error}");
        }
    }

    /// Record 100 of the MIT-BIH arrhythmia database has 2273 beats and one rhythm label, in the database's directory.
    #[test]
    fn the_real_annotations_are_as_many_as_published() {
        let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
            println!("skipped: HARNESS_REAL_DATA is not set");
            return;
        };
        let all = read_annotations(&Path::new(&root).join("wfdb-samples/100.atr")).unwrap();
        let count = |name: &str| all.iter().filter(|a| a.mnemonic() == name).count();
        assert_eq!([count("N"), count("A"), count("V"), count("+"), all.len()], [2239, 33, 1, 1, 2274]);
        assert_eq!((all[0].sample, all[0].text.as_str()), (18, "(N"));
        assert!(all.is_sorted_by_key(|a| a.sample));
    }
}
