//! FLAC (RFC 9639): decoding of whole files and of streams inside other files, and encoding.
//!
//! Frames are decoded by the crate `flac-codec`. What it leaves open is settled here: metadata other than STREAMINFO are
//! skipped unread, the MD5 of STREAMINFO is compared, a stream must end where its last frame ends (tags of players in front
//! and behind are passed over, and zeros behind), memory grows with what
//! was decoded and never with what a header claims, and a crafted stream that the crate panics on is an error like any
//! other.

mod tags;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io::{Cursor, Read, Seek, SeekFrom};
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
/// Tags in front of a stream that are passed over.
const TAGS_ALLOWED: usize = 16;
/// What is expected where something is wrong with the stream itself.
const WHOLE: &str = "a whole FLAC stream (RFC 9639); fetch the file again";

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
    /// Bytes of tags and zeros in front of the stream and behind it. They hold no samples, and the samples are whole.
    pub bytes_around: u64,
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
    let mut file = std::fs::File::open(path).map_err(DataError::io(path))?;
    let length = (MARKER.len() + BLOCK_HEADER + STREAM_INFO) as u64;
    let (mut start, mut head) = (0, Vec::new());
    for _ in 0..=TAGS_ALLOWED {
        head.clear();
        let mut read = || {
            file.seek(SeekFrom::Start(start))?;
            (&mut file).take(length).read_to_end(&mut head)
        };
        read().map_err(DataError::io(path))?;
        match tags::in_front(&head) {
            0 => break,
            tag => start += tag,
        }
    }
    // the metadata that follow are of no interest here: as if STREAMINFO were the last block
    if let Some(kind) = head.get_mut(MARKER.len()) {
        *kind |= 0x80;
    }
    let (info, _) =
        skip_metadata(&head).map_err(|(at, got)| DataError::corrupt(path, At::Byte(start + at as u64), WHOLE, got))?;
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
    let mut front = 0;
    for _ in 0..TAGS_ALLOWED {
        front += tags::in_front(bytes.get(front..).unwrap_or_default()) as usize;
    }
    let stream = bytes.get(front..).unwrap_or_default();
    let (info, frames_at) = skip_metadata(stream).map_err(|(at, got)| wrong(front + at, WHOLE, got))?;
    let frames = stream.get(frames_at..).unwrap_or_default();
    let done = Cell::new(0);
    // An undecodable stream must not take the program down; nothing that was half changed is used afterwards.
    let frames_of = || decode_frames(info, frames, &done);
    let decoded = catch_unwind(AssertUnwindSafe(frames_of)).unwrap_or_else(|_| Err("a frame that cannot be".into()));
    let at = front + frames_at + done.get();
    let (mut audio, md5) = decoded.map_err(|got| wrong(at, WHOLE, got))?;
    let behind = frames.get(done.get()..).unwrap_or_default();
    if !tags::are_all(behind) {
        return Err(wrong(
            at,
            "the end, behind the last sample, or tags; fetch the file again",
            format!("{} bytes more", behind.len()),
        ));
    }
    audio.bytes_around = (front + behind.len()) as u64;
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
    let more = || !tags::are_all(frames.get(done.get()..).unwrap_or_default());
    while total.map_or_else(more, |total| length(&channels) < total) {
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
    Ok((Audio { rate_hz, bits, channels, has_md5: md5.is_some(), bytes_around: 0 }, md5))
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
