//! Tags that players put around a stream: ID3 in front and behind, APE and Lyrics3 behind.

/// Bytes of the header, and of the footer, of an `ID3v2` tag.
const ID3V2_HEAD: usize = 10;
/// Bytes of an `ID3v1` tag, and of its extension that stands before it.
const ID3V1: usize = 128;
const ID3V1_MORE: usize = 227;
/// Bytes of the header, and of the footer, of an APE tag.
const APE_HEAD: usize = 32;
const APE: &[u8] = b"APETAGEX";

/// Bytes of the `ID3v2` tag that `bytes` begin with, as it says itself; 0 if there is none.
pub(super) fn in_front(bytes: &[u8]) -> u64 {
    let Some(&[b'I', b'D', b'3', version, revision, flags, a, b, c, d]) = bytes.first_chunk::<ID3V2_HEAD>() else {
        return 0;
    };
    if version == 0xFF || revision == 0xFF || [a, b, c, d].iter().any(|&part| part > 0x7F) {
        return 0;
    }
    let size = [a, b, c, d].iter().fold(0, |size, &part| size << 7 | u64::from(part));
    let footer = if flags & 0x10 == 0 { 0 } else { ID3V2_HEAD as u64 };
    ID3V2_HEAD as u64 + size + footer
}

/// Whether these bytes are nothing but tags and zeros.
pub(super) fn are_all(mut bytes: &[u8]) -> bool {
    loop {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        bytes = bytes.get(zeros..).unwrap_or_default();
        if bytes.is_empty() {
            return true;
        }
        match bytes.get(one(bytes)..) {
            Some(rest) if rest.len() < bytes.len() => bytes = rest,
            _ => return false,
        }
    }
}

/// Bytes of the tag that `bytes` begin with; 0 if there is none.
fn one(bytes: &[u8]) -> usize {
    match bytes {
        [0xFF, ..] => 0, // a frame of audio
        [b'I', b'D', b'3', ..] => in_front(bytes) as usize,
        [b'T', b'A', b'G', b'+', ..] if bytes.len() >= ID3V1_MORE + ID3V1 => ID3V1_MORE,
        [b'T', b'A', b'G', ..] => ID3V1,
        _ if bytes.starts_with(b"LYRICSBEGIN") => lyrics(bytes),
        _ if bytes.starts_with(APE) => APE_HEAD + ape_size(bytes, 0),
        _ => ape_without_header(bytes),
    }
}

/// The size that a header or footer of an APE tag at `at` gives: of the items and the footer.
fn ape_size(bytes: &[u8], at: usize) -> usize {
    let field = bytes.get(at + 12..at + 16).and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_le_bytes) as usize
}

/// An APE tag that only has a footer, which says where it begins.
fn ape_without_header(bytes: &[u8]) -> usize {
    let footers = bytes.windows(APE.len()).enumerate().filter(|(_, window)| *window == APE);
    let mut ends = footers.map(|(at, _)| (at, at + APE_HEAD));
    ends.find(|&(at, end)| end <= bytes.len() && ape_size(bytes, at) == end).map_or(0, |(_, end)| end)
}

fn lyrics(bytes: &[u8]) -> usize {
    let end = |mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark).map(|at| at + mark.len());
    end(b"LYRICS200").or_else(|| end(b"LYRICSEND")).unwrap_or(0)
}
