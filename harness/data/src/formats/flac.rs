//! FLAC (RFC 9639): decoding of whole files and of streams inside other files, and encoding.
//!
//! Frames are decoded by the crate `flac-codec`. What it leaves open is settled here: metadata other than STREAMINFO are
//! skipped unread, the MD5 of STREAMINFO is compared, a stream must end where its last frame ends, memory grows with what
//! was decoded and never with what a header claims, and a crafted stream that the crate panics on is an error like any
//! other.

use std::cell::Cell;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use flac_codec::decode::{FlacChannelReader, Metadata};
use flac_codec::encode::{FlacChannelWriter, Options};
use md5::{Digest, Md5};

use crate::error::{At, DataError, DataResult};

/// What every stream begins with.
const MARKER: &[u8] = b"fLaC";
/// Bytes of a metadata block's header: last-block flag and type, and a 24-bit length.
const BLOCK_HEADER: usize = 4;
/// Bytes of the block STREAMINFO, which comes first and has the type 0.
const STREAM_INFO: usize = 34;
/// Samples that any stream may hold: 256 MiB. Silence takes a few bytes per block, so small files may be long.
const SAMPLES_ALLOWED: u64 = 1 << 26;
/// Samples per byte that a longer stream may hold. Recordings have less than one; this is far beyond any of them.
const SAMPLES_PER_BYTE: u64 = 64;
/// Bits per sample that a stream can have (RFC 9639, section 8.2).
const BITS: std::ops::RangeInclusive<u32> = 4..=32;
/// What is expected where something is wrong with the stream itself.
const WHOLE: &str = "a whole FLAC stream (RFC 9639)";

/// A decoded stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audio {
    /// Samples per second of each channel; 0 where the stream is no audio.
    pub rate_hz: u32,
    /// Bits per sample, 4 to 32.
    pub bits: u32,
    /// The samples of each of the 1 to 8 channels, all of one length.
    pub channels: Vec<Vec<i32>>,
    /// Whether the stream carries an MD5; if so, it fits the samples.
    pub has_md5: bool,
}

/// What the header of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Samples per second.
    pub rate_hz: u32,
    /// Bits per sample.
    pub bits: u32,
    /// Channels.
    pub channels: u32,
    /// Samples of each channel.
    pub samples: u64,
    /// Hash of what is in it, hexadecimal: the MD5 of the samples, which costs no decoding, or the SHA-256 of the file
    /// where it gives no MD5.
    pub content: String,
}

/// Reads the header of a FLAC file; the whole file only where it leaves length or MD5 open.
///
/// # Errors
/// [`DataError::Io`] if the system refuses, [`DataError::Corrupt`] if it is no FLAC file.
pub fn info(path: &Path) -> DataResult<Info> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(DataError::io(path))?;
    let length = MARKER.len() + BLOCK_HEADER + STREAM_INFO;
    file.take(length as u64).read_to_end(&mut head).map_err(DataError::io(path))?;
    // the metadata that follow are of no interest here: as if STREAMINFO were the last block
    if let Some(kind) = head.get_mut(MARKER.len()) {
        *kind |= 0x80;
    }
    let (info, _) =
        skip_metadata(&head).map_err(|(at, got)| DataError::corrupt(path, At::Byte(at as u64), WHOLE, got))?;
    let word = |at: usize| info.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let sizes = word(10); // 20 bits rate, 3 channels - 1, 5 bits - 1, 36 samples
    let md5 = info.get(18..).unwrap_or_default();
    let (mut samples, mut content) = (sizes & ((1 << 36) - 1), crate::files::hex(md5));
    if md5.iter().all(|&b| b == 0) {
        content = crate::files::sha256_hex(&std::fs::read(path).map_err(DataError::io(path))?);
    }
    if samples == 0 {
        samples = read(path)?.channels.first().map_or(0, Vec::len) as u64;
    }
    Ok(Info {
        rate_hz: (sizes >> 44) as u32,
        channels: (sizes >> 41 & 7) as u32 + 1,
        bits: (sizes >> 36 & 31) as u32 + 1,
        samples,
        content,
    })
}

/// Reads a FLAC file.
///
/// # Errors
/// [`DataError::Io`] if the system refuses, otherwise as [`decode`].
pub fn read(path: &Path) -> DataResult<Audio> {
    decode(&std::fs::read(path).map_err(DataError::io(path))?, path, 0)
}

/// Decodes the stream that `bytes` hold from first to last; they lie at `offset` in the file `path`, which errors name.
///
/// # Errors
/// [`DataError::Corrupt`] with the byte offset of the frame (or header) that is broken, if the stream is cut, goes on
/// behind its last sample, has another MD5 than it says, or decodes to an absurd multiple of its size.
pub fn decode(bytes: &[u8], path: &Path, offset: u64) -> DataResult<Audio> {
    let wrong =
        |at: usize, expected: &str, got: String| DataError::corrupt(path, At::Byte(offset + at as u64), expected, got);
    let (info, frames_at) = skip_metadata(bytes).map_err(|(at, got)| wrong(at, WHOLE, got))?;
    let frames = bytes.get(frames_at..).unwrap_or_default();
    let done = Cell::new(0);
    // An undecodable stream must not take the program down; nothing that was half changed is used afterwards.
    let frames_of = || decode_frames(info, frames, &done);
    let decoded = catch_unwind(AssertUnwindSafe(frames_of)).unwrap_or_else(|_| Err("a frame that cannot be".into()));
    let at = frames_at + done.get();
    let (audio, md5) = decoded.map_err(|got| wrong(at, WHOLE, got))?;
    if let Some(left) = bytes.len().checked_sub(at).filter(|left| *left > 0) {
        return Err(wrong(at, "the end, behind the last sample", format!("{left} bytes more")));
    }
    if let Some(expected) = md5 {
        let got = md5_of(&audio);
        if got != expected {
            let expected = format!("samples whose MD5 is {}", crate::files::hex(&expected));
            return Err(wrong(0, &expected, format!("samples whose MD5 is {}", crate::files::hex(&got))));
        }
    }
    Ok(audio)
}

/// The 34 bytes of STREAMINFO, and where the first frame begins; otherwise where what is wrong.
fn skip_metadata(bytes: &[u8]) -> Result<(&[u8], usize), (usize, String)> {
    if !bytes.starts_with(MARKER) {
        return Err((0, "no `fLaC` in front".into()));
    }
    let info_at = MARKER.len() + BLOCK_HEADER;
    let (mut at, mut last) = (MARKER.len(), false);
    while !last {
        let Some(&[kind, a, b, c]) = bytes.get(at..at + BLOCK_HEADER) else {
            return Err((bytes.len(), "the end, within the metadata".into()));
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if at == MARKER.len() && (kind & 0x7F, length) != (0, STREAM_INFO) {
            return Err((at, format!("a block of type {} and {length} bytes before STREAMINFO", kind & 0x7F)));
        }
        last = kind & 0x80 != 0;
        at += BLOCK_HEADER + length;
    }
    match bytes.get(info_at..info_at + STREAM_INFO) {
        Some(info) if at <= bytes.len() => Ok((info, at)),
        _ => Err((bytes.len(), "the end, within the metadata".into())),
    }
}

/// The frames from the first on, and the MD5 that STREAMINFO gives. `done` tells where in `frames` the last whole frame
/// ends.
fn decode_frames(info: &[u8], frames: &[u8], done: &Cell<usize>) -> Result<(Audio, Option<[u8; 16]>), String> {
    let header = [MARKER, &[0x80, 0, 0, STREAM_INFO as u8], info].concat();
    let read = Cell::new(0);
    let stream = header.as_slice().chain(Counted { bytes: frames, read: &read });
    let mut reader = FlacChannelReader::new(stream).map_err(|e| e.to_string())?;
    let (rate_hz, bits) = (reader.sample_rate(), reader.bits_per_sample());
    if !BITS.contains(&bits) {
        return Err(format!("{bits} bits per sample, of 4 to 32"));
    }
    let (total, md5) = (reader.total_samples(), reader.md5().copied());
    let width = u64::from(reader.channel_count());
    let allowed = SAMPLES_ALLOWED.max((frames.len() as u64).saturating_mul(SAMPLES_PER_BYTE)) / width;
    let mut channels = vec![Vec::new(); width as usize];
    let length = |channels: &[Vec<i32>]| channels.first().map_or(0, Vec::len) as u64;
    // The crate takes a header that is cut for the end of a stream whose length is unknown, so the end is seen here.
    while total.map_or(done.get() < frames.len(), |total| length(&channels) < total) {
        let frame = reader.fill_buf().map_err(|e| format!("a broken frame: {e}"))?;
        let steps = frame.first().map_or(0, |channel| channel.len());
        let after = length(&channels) + steps as u64;
        if steps == 0 || frame.len() as u64 != width {
            return Err("the end, within a frame".into());
        }
        if total.is_some_and(|total| after > total) {
            return Err(format!("a frame that goes beyond the {} samples of STREAMINFO", total.unwrap_or_default()));
        }
        if after > allowed {
            return Err(format!("more than {allowed} samples per channel from {} bytes", frames.len()));
        }
        channels.iter_mut().zip(frame).for_each(|(to, from)| to.extend_from_slice(from));
        reader.consume(steps);
        done.set(read.get());
    }
    Ok((Audio { rate_hz, bits, channels, has_md5: md5.is_some() }, md5))
}

/// Bytes that are counted as they are read.
struct Counted<'a> {
    bytes: &'a [u8],
    read: &'a Cell<usize>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.read.set(self.read.get() + count);
        Ok(count)
    }
}

/// MD5 as STREAMINFO has it: of all samples, interleaved, signed, little-endian, in whole bytes.
fn md5_of(audio: &Audio) -> [u8; 16] {
    const STEPS: usize = 4096;
    let bytes_per_sample = audio.bits.div_ceil(8) as usize;
    let mut hash = Md5::new();
    let length = audio.channels.first().map_or(0, Vec::len);
    let mut buffer = Vec::with_capacity(STEPS * audio.channels.len() * bytes_per_sample);
    for start in (0..length).step_by(STEPS) {
        buffer.clear();
        for t in start..length.min(start + STEPS) {
            for sample in audio.channels.iter().filter_map(|channel| channel.get(t)) {
                buffer.extend(sample.to_le_bytes().iter().take(bytes_per_sample));
            }
        }
        hash.update(&buffer);
    }
    hash.finalize().into()
}

/// Encodes channels of one length, losslessly and with an MD5; the same samples give the same bytes.
///
/// # Errors
/// Says what is wrong with the samples: none or more than eight channels, different lengths, no sample at all, or one
/// that does not fit into `bits`.
pub fn encode(channels: &[&[i32]], rate_hz: u32, bits: u32) -> Result<Vec<u8>, String> {
    let mut out = Cursor::new(Vec::new());
    if !BITS.contains(&bits) {
        return Err(format!("expected 4 to 32 bits per sample, got {bits}"));
    }
    let fits = |sample: &i32| (*sample << (32 - bits)) >> (32 - bits) == *sample;
    if let Some(sample) = channels.iter().flat_map(|channel| channel.iter()).find(|sample| !fits(sample)) {
        return Err(format!("sample {sample} does not fit into {bits} bits"));
    }
    let length = channels.first().map_or(0, |channel| channel.len()) as u64;
    if length == 0 {
        return Err("expected samples, got none".into()); // the crate would panic
    }
    let options = Options::default().no_padding().no_seektable();
    let width = u8::try_from(channels.len()).map_err(|e| e.to_string())?;
    let mut writer =
        FlacChannelWriter::new(&mut out, options, rate_hz, bits, width, Some(length)).map_err(|e| e.to_string())?;
    writer.write(channels).map_err(|e| e.to_string())?;
    writer.finalize().map_err(|e| e.to_string())?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
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
            assert_eq!(audio, Audio { rate_hz: 16_000, bits, channels, has_md5: true });
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
        let longer = [&bytes[..], &[0]].concat();
        assert!(error(&longer).contains(&format!("at byte {}: 1 bytes more", 100 + bytes.len())), "{}", error(&longer));
        // without a total and without an MD5 a cut frame is found all the same
        let mut open = bytes.clone();
        open[21] &= 0xF0;
        open[22..42].fill(0);
        assert_eq!(decode(&open, Path::new("x"), 0).unwrap().channels, std::slice::from_ref(&samples));
        assert!(error(&open[..open.len() - 5]).contains("broken frame"));
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
            assert_eq!(
                (info.channels as usize, info.samples as usize),
                (audio.channels.len(), audio.channels[0].len())
            );
            let mut hash = Sha256::new();
            audio.channels.iter().flatten().for_each(|sample| hash.update(sample.to_le_bytes()));
            assert_eq!(crate::files::hex(&hash.finalize()), row[4], "{}", row[0]);
            decoded += 1;
        }
        println!("{decoded} decoded as expected");
        assert!(decoded > 0);
    }
}
