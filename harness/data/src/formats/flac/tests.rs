//! Tests of the decoder: streams made here, and real ones where they are at hand.

use super::*;
use rand::Rng;

fn noise(length: usize, bits: u32, stream: &str) -> Vec<i32> {
    let mut rng = learner::seeded_rng(1, stream);
    let top = 1i64 << (bits - 1);
    // a loud tone under noise, so that predictors and several Rice parameters are in use
    let tone = |t: usize| ((t as f64 * 0.05).sin() * (top / 2) as f64) as i64;
    (0..length).map(|t| (tone(t) + rng.random_range(-top / 8..top / 8)) as i32).collect()
}

fn error(bytes: &[u8]) -> String {
    decode(bytes, Path::new("x.flac"), 100).unwrap_err().to_string()
}

#[test]
fn round_trip_of_widths_and_channels() {
    for (bits, width) in [(8, 1), (16, 2), (24, 3), (16, 8)] {
        let channels: Vec<Vec<i32>> = (0..width).map(|c| noise(5000, bits, &format!("{bits}.{c}"))).collect();
        let views: Vec<&[i32]> = channels.iter().map(Vec::as_slice).collect();
        let bytes = encode(&views, 16_000, bits).unwrap();
        let audio = decode(&bytes, Path::new("x"), 0).unwrap();
        assert_eq!(audio, Audio { rate_hz: 16_000, bits, channels, has_md5: true, bytes_around: 0 });
    }
}

#[test]
fn the_header_alone_tells_what_is_inside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.flac");
    let mut bytes = encode(&[&noise(777, 24, "a"), &noise(777, 24, "b")], 44_100, 24).unwrap();
    let md5 = crate::files::hex(&bytes[26..42]);
    std::fs::write(&path, &bytes).unwrap();
    let known = info(&path).unwrap();
    assert_eq!(known, Info { rate_hz: 44_100, bits: 24, channels: 2, samples: 777, content: md5 });
    bytes[21] &= 0xF0;
    bytes[22..42].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let open = info(&path).unwrap();
    assert_eq!((open.samples, open.content.len()), (777, 64), "counted, and the file's own hash");
    std::fs::write(&path, b"RIFF").unwrap();
    assert!(matches!(info(&path), Err(DataError::Corrupt { at: At::Byte(0), .. })));
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    assert!(encode(&[&[128]], 16_000, 8).unwrap_err().contains("128"));
    assert!(encode(&[&[1, 2], &[1]], 16_000, 8).is_err());
    assert!(encode(&[&[]], 16_000, 8).unwrap_err().contains("got none"));
    assert!(encode(&[&[0]], 16_000, 1).unwrap_err().contains("4 to 32 bits"));
    assert!(encode(&[], 16_000, 8).is_err());
}

#[test]
fn cuts_and_additions_are_found_where_they_are() {
    let samples = noise(20_000, 16, "cut");
    let bytes = encode(&[&samples], 16_000, 16).unwrap();
    for cut in [0, 3, 6, 20, 42, 60, bytes.len() / 2, bytes.len() - 1] {
        let message = error(&bytes[..cut]);
        let at: usize = message.split("at byte ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        assert!((100..=100 + cut).contains(&at), "cut at {cut}: {message}");
    }
    let longer = [&bytes[..], &[1]].concat();
    assert!(error(&longer).contains(&format!("at byte {}: 1 bytes more", 100 + bytes.len())), "{}", error(&longer));
    // without a total and without an MD5 a cut frame is found all the same
    let mut open = bytes.clone();
    open[21] &= 0xF0;
    open[22..42].fill(0);
    assert_eq!(decode(&open, Path::new("x"), 0).unwrap().channels, std::slice::from_ref(&samples));
    assert!(error(&open[..open.len() - 5]).contains("broken frame"));
}

/// An `ID3v2` tag of so many bytes, with a footer or without.
fn id3v2(length: u32, footer: bool) -> Vec<u8> {
    let size: Vec<u8> = (0..4).rev().map(|n| (length >> (7 * n)) as u8 & 0x7F).collect();
    let head = |name: &[u8]| [name, &[4, 0, u8::from(footer) << 4], &size].concat();
    let body = vec![b'x'; length as usize];
    [head(b"ID3"), body, if footer { head(b"3DI") } else { Vec::new() }].concat()
}

/// An APE tag of one item, with its header or without (as in version 1).
fn ape(header: bool) -> Vec<u8> {
    let item = b"\x03\0\0\0\0\0\0\0Artist\0abc";
    let part = |is_header: bool| {
        let flags = u32::from(header) << 31 | u32::from(is_header) << 29;
        let numbers = [2000, item.len() as u32 + 32, 1, flags, 0, 0];
        [&b"APETAGEX"[..], &numbers.map(u32::to_le_bytes).concat()].concat()
    };
    [if header { part(true) } else { Vec::new() }, item.to_vec(), part(false)].concat()
}

#[test]
fn tags_and_zeros_around_the_stream_hold_no_samples() {
    let samples = noise(5000, 16, "tags");
    let bytes = encode(&[&samples], 16_000, 16).unwrap();
    let mut open = bytes.clone(); // without a total and without an MD5
    open[21] &= 0xF0;
    open[22..42].fill(0);
    let id3v1 = [&b"TAG"[..], &[0; 125]].concat();
    let lyrics = b"LYRICSBEGININD0000200LYR00003abc000036LYRICS200".to_vec();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.flac");
    let none = Vec::new();
    for (front, behind) in [
        (id3v2(300, false), none.clone()),
        ([id3v2(0, true), id3v2(20_000, false)].concat(), vec![0; 5000]),
        (none.clone(), id3v1.clone()),
        (none.clone(), vec![0]),
        (none.clone(), vec![0; 128]),
        (none.clone(), [ape(true), id3v1.clone()].concat()),
        (id3v2(10, true), [vec![0; 3], ape(false), vec![0; 9]].concat()),
        (none.clone(), [id3v2(7, true), lyrics, id3v1].concat()),
    ] {
        for stream in [&bytes, &open] {
            let tagged = [&front[..], stream, &behind].concat();
            let audio = decode(&tagged, Path::new("x"), 0).unwrap();
            assert_eq!(audio.channels, std::slice::from_ref(&samples));
            assert_eq!(audio.bytes_around, (front.len() + behind.len()) as u64);
            std::fs::write(&path, &tagged).unwrap();
            let info = info(&path).unwrap();
            assert_eq!((info.samples, info.rate_hz, info.bits, info.channels), (5000, 16_000, 16, 1));
            // one byte of anything else is still seen
            assert!(decode(&[&tagged[..], b"x"].concat(), Path::new("x"), 0).is_err());
            assert!(decode(&[b"x", &tagged[..]].concat(), Path::new("x"), 0).is_err());
        }
    }
    // errors count the tags: 10 bytes and what is behind them
    let message = error(&[&id3v2(40, false)[..], &bytes[..100]].concat());
    let at: usize = message.split("at byte ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!((150..=250).contains(&at), "{message}");
    assert!(decode(&bytes[..bytes.len() - 9], Path::new("x"), 0).is_err());
    let zeroed = [&bytes[..bytes.len() - 500], &[0; 500]].concat();
    assert!(decode(&zeroed, Path::new("x"), 0).is_err(), "zeros in place of samples are none behind them");
}

#[test]
fn no_changed_byte_goes_unseen() {
    let samples = noise(600, 16, "flip");
    let bytes = encode(&[&samples], 16_000, 16).unwrap();
    let clean = decode(&bytes, Path::new("x"), 0).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            // what remains are fields that carry no samples: block and frame sizes, rate, tags
            if let Ok(audio) = decode(&changed, Path::new("x"), 0) {
                assert_eq!(audio.channels, clean.channels, "byte {at} bit {bit:#x}");
            }
        }
    }
}

#[test]
fn random_bytes_and_false_claims_are_errors() {
    let mut rng = learner::seeded_rng(1, "bytes");
    let head = encode(&[&noise(100, 16, "head")], 16_000, 16).unwrap();
    for length in 0..400 {
        let mut bytes = head[..42].to_vec();
        bytes.extend([0xFF, 0xF8, 0xC9, 0x08]);
        bytes.extend((0..length).map(|_| rng.random::<u8>()));
        assert!(decode(&bytes, Path::new("x"), 0).is_err());
        assert!(decode(&bytes[42..], Path::new("x"), 0).is_err());
    }
    // found by fuzzing: one bit per sample and no frame
    let mut thin = head[..42].to_vec();
    thin[4] |= 0x80;
    thin[18..26].fill(0);
    assert!(decode(&thin, Path::new("x"), 0).unwrap_err().to_string().contains("of 4 to 32"));
    // 2^36 − 1 samples claimed, none there: refused without memory for them
    let mut claim = head;
    claim[21] |= 0x0F;
    claim[22..26].fill(0xFF);
    assert!(decode(&claim, Path::new("x"), 0).is_err());
}

/// Every FLAC line of `EXPECTED.tsv` in the folder that `HARNESS_REAL_DATA` names, as decoded by libsndfile.
#[test]
fn real_files_decode_as_libsndfile_does() {
    use sha2::{Digest, Sha256};
    let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
        println!("skipped: HARNESS_REAL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    let table = std::fs::read_to_string(root.join("EXPECTED.tsv")).unwrap();
    let rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|row| row[1] == "flac");
    let mut decoded = 0;
    for row in rows {
        let path = root.join(row[0]);
        let (audio, info) = (read(&path).unwrap(), info(&path).unwrap());
        let shape = format!("{}x{}", audio.channels.len(), audio.channels[0].len());
        assert_eq!((shape.as_str(), audio.rate_hz.to_string().as_str()), (row[2], row[3]), "{}", row[0]);
        assert_eq!((info.channels as usize, info.samples as usize), (audio.channels.len(), audio.channels[0].len()));
        let mut hash = Sha256::new();
        audio.channels.iter().flatten().for_each(|sample| hash.update(sample.to_le_bytes()));
        assert_eq!(crate::files::hex(&hash.finalize()), row[4], "{}", row[0]);
        decoded += 1;
    }
    println!("{decoded} decoded as expected");
    assert!(decoded > 0);
}
