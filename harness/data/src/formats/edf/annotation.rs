//! Time-stamped annotation lists (TALs), the text in signals labelled `EDF Annotations`:
//! `+onset[\x15 duration]\x14 text\x14 … text\x14\0`.

use super::legacy;

/// An annotation of EDF+.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Seconds after the file's start time.
    pub onset_s: f64,
    /// Duration in seconds, where given.
    pub duration_s: Option<f64>,
    /// What it says.
    pub text: String,
}

/// Between onset and duration.
pub(super) const DURATION: u8 = 0x15;
/// Behind onset, duration and each text.
pub(super) const END: u8 = 0x14;

/// One list: several texts at one time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    pub(super) onset_s: f64,
    pub(super) duration_s: Option<f64>,
    /// The first is empty in the list that tells a record's time.
    pub(super) texts: Vec<String>,
    /// Whether all texts are UTF-8, as the format wants it.
    pub(super) is_utf_8: bool,
}

impl List {
    pub(super) fn annotations(self) -> impl Iterator<Item = Annotation> {
        let Self { onset_s, duration_s, texts, .. } = self;
        let said = texts.into_iter().filter(|text| !text.is_empty());
        said.map(move |text| Annotation { onset_s, duration_s, text })
    }
}

/// Reads the lists of one signal in one record.
///
/// # Errors
/// With the byte at which something is wrong, what is expected there and what there is.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<List>, (usize, &'static str, String)> {
    let mut lists = Vec::new();
    let mut at = 0;
    for part in bytes.split(|&byte| byte == 0) {
        if !part.is_empty() {
            lists.push(list(part).map_err(|(place, expected)| (at + place, expected, excerpt(part)))?);
        }
        at += part.len() + 1;
    }
    Ok(lists)
}

fn excerpt(part: &[u8]) -> String {
    /// Enough to recognise it by.
    const MOST: usize = 40;
    format!("`{}`", part.get(..MOST).unwrap_or(part).escape_ascii())
}

fn list(part: &[u8]) -> Result<List, (usize, &'static str)> {
    const CLOSED: &str = "an annotation list that ends with 0x14 0x00";
    let Some((&END, body)) = part.split_last() else { return Err((part.len() - 1, CLOSED)) };
    let mut texts = body.split(|&byte| byte == END);
    let time = texts.next().unwrap_or_default();
    let (onset, duration) = match time.iter().position(|&byte| byte == DURATION) {
        Some(place) => (time.get(..place).unwrap_or_default(), time.get(place + 1..)),
        None => (time, None),
    };
    let onset_s = onset
        .first()
        .filter(|sign| matches!(sign, b'+' | b'-'))
        .and_then(|_| seconds(onset))
        .ok_or((0, "an onset such as `+12.5`"))?;
    let duration_s = match duration {
        Some(text) => {
            let value = seconds(text).filter(|_| text.first().is_some_and(u8::is_ascii_digit));
            Some(value.ok_or((onset.len() + 1, "a duration such as `0.25`"))?)
        }
        None => None,
    };
    let (mut said, mut is_utf_8) = (Vec::new(), true);
    for text in texts {
        let (text, fits) = legacy::decode(text);
        said.push(text.into_owned());
        is_utf_8 &= fits;
    }
    Ok(List { onset_s, duration_s, texts: said, is_utf_8 })
}

/// A number of digits and a point; exponents, infinities and the like are none of the format's.
fn seconds(text: &[u8]) -> Option<f64> {
    let digits = text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text);
    let allowed = !digits.is_empty() && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    std::str::from_utf8(text).ok().filter(|_| allowed)?.parse().ok().filter(|x: &f64| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_specification_are_read() {
        let bytes = b"+0\x14\x14\0+180\x14Lights off\x14Close door\x14\0-0.5\x1510\x14Apn\xC3\xA9e\x14\0\0\0\0";
        let lists = parse(bytes).unwrap();
        assert_eq!(lists[0], List { onset_s: 0.0, duration_s: None, texts: vec![String::new()], is_utf_8: true });
        assert_eq!(lists[1].texts, ["Lights off", "Close door"]);
        let last = Annotation { onset_s: -0.5, duration_s: Some(10.0), text: "Apnée".into() };
        assert_eq!(lists[2].clone().annotations().collect::<Vec<_>>(), [last]);
        assert_eq!(lists.len(), 3);
        assert_eq!(parse(&[0; 8]).unwrap(), []);
    }

    #[test]
    fn an_empty_text_list_has_no_annotation() {
        let list = List { onset_s: 1.0, duration_s: None, texts: vec![String::new()], is_utf_8: true };
        assert_eq!(list.annotations().count(), 0);
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (bytes, place) in [
            (&b"12\x14\x14\0"[..], 0),
            (b"\0+\x14\x14", 1),
            (b"+1e5\x14\x14", 0),
            (b"+inf\x14\x14", 0),
            (b"+1\x15-2\x14\x14", 3),
            (b"+1\x15\x14\x14", 3),
            (b"+1\x14a", 3),
        ] {
            assert_eq!(parse(bytes).unwrap_err().0, place, "{}", bytes.escape_ascii());
        }
    }
}
