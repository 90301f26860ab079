//! Text of writers that know nothing of UTF-8.

use std::borrow::Cow;

/// Characters of the bytes 0x80 to 0x9F in Windows-1252, which is Latin-1 elsewhere; Latin-1 has control characters there,
/// which nobody writes. U+FFFD where there is none.
const WINDOWS: [char; 32] = [
    '€', '\u{FFFD}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{FFFD}', 'Ž', '\u{FFFD}', '\u{FFFD}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{FFFD}', 'ž', 'Ÿ',
];

/// Bytes as UTF-8 if they are, else as Windows-1252, which has Latin-1 in it; and whether they are UTF-8.
pub(super) fn decode(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (Cow::Borrowed(text), true);
    }
    let place = |byte: u8| WINDOWS.get(usize::from(byte.wrapping_sub(0x80)));
    let of = |&byte: &u8| place(byte).copied().unwrap_or_else(|| char::from(byte));
    (Cow::Owned(bytes.iter().map(of).collect()), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_8_is_kept_and_all_else_is_latin() {
        for (bytes, text, is_utf_8) in [
            (&b"uV"[..], "uV", true),
            ("µV Ω".as_bytes(), "µV Ω", true),
            (b"\xB5V", "µV", false),
            (b"Apn\xE9e \xFF", "Apnée ÿ", false),
            (b"\x80 \x93q\x94 \x9F\x81 \x7F\xA0", "€ “q” Ÿ\u{FFFD} \u{7F}\u{A0}", false),
        ] {
            let (got, utf_8) = decode(bytes);
            assert_eq!((got.as_ref(), utf_8), (text, is_utf_8));
        }
    }
}
