//! Spectrograms on disk, found by the content of their audio: an MD5 of the samples and the transform's settings.
//!
//! ```text
//! magic (8 bytes) | frames, bands (u32 LE) | frames × bands f32 LE | MD5 of all before (16 bytes)
//! ```
//! A file appears under its name when it is whole. One that is not what it should be is computed anew. A folder that cannot be read or
//! written costs time alone, and is told.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};

use super::logmel::{LogMel, LogMelConfig};
use crate::error::{At, DataError, DataResult};
use crate::files::sha256_hex;
use crate::formats::flac::{self, Audio};

/// What a file begins with. Its last digit rises whenever the same audio gives other numbers.
const MAGIC: &[u8; 8] = b"LOGMEL01";
/// Bytes before the numbers.
const HEADER: usize = MAGIC.len() + 8;
/// Bytes of the checksum behind them.
const CHECKSUM: usize = 16;

/// A spectrogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// Values per frame.
    pub bands: usize,
    /// `[frames, bands]`.
    pub values: Vec<f32>,
}

impl Frames {
    /// Number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.bands.max(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// A folder of spectrograms of one kind.
pub struct Cache {
    folder: PathBuf,
    config: LogMelConfig,
    rate_hz: u32,
    mel: LogMel,
    computed: AtomicU64,
    damaged: AtomicU64,
    refused: OnceLock<String>,
}

impl Cache {
    /// A cache below `folder` for mono audio at `rate_hz`.
    #[must_use]
    pub fn new(folder: &Path, config: LogMelConfig, rate_hz: u32) -> Self {
        let mel = LogMel::new(&config, rate_hz);
        Self {
            folder: folder.to_owned(),
            config,
            rate_hz,
            mel,
            computed: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            refused: OnceLock::new(),
        }
    }

    /// Spectrograms computed so far, and how many of these because their file was damaged.
    #[must_use]
    pub fn computed(&self) -> (u64, u64) {
        (self.computed.load(Ordering::Relaxed), self.damaged.load(Ordering::Relaxed))
    }

    /// What the system said when it first refused the folder, if it did.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    /// Keeps the first refusal and tells it.
    fn refuse(&self, error: &DataError) {
        self.refused.get_or_init(|| {
            let text = error.to_string();
            crate::tell!(
                "data: {}: spectrograms are computed whenever they are needed, which takes longer; name a folder that can be read and \
                 written with --cache",
                crate::account::inert(&text)
            );
            text
        });
    }

    /// Frames that audio of so many samples has.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        self.mel.frames(samples)
    }

    /// The spectrogram of a FLAC file, whose content has the hash `content` (see [`flac::Info`]).
    ///
    /// # Errors
    /// If the audio is corrupt, has another rate, several channels or less than a window, or the system refuses to read it.
    pub fn load(&self, audio: &Path, content: &str) -> DataResult<Frames> {
        let path = self.path(content);
        match std::fs::read(&path) {
            Ok(bytes) => match self.parse(&bytes) {
                Some(frames) => return Ok(frames),
                None => self.damaged.fetch_add(1, Ordering::Relaxed),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => {
                self.refuse(&DataError::io(&path)(error));
                0
            }
        };
        let frames = self.compute(audio)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.store(&path, &frames) {
            self.refuse(&error);
        }
        Ok(frames)
    }

    fn path(&self, content: &str) -> PathBuf {
        let LogMelConfig { bands, window_ms, hop_ms } = self.config;
        let key = format!("{}-{content}-{}-{bands}-{window_ms}-{hop_ms}", String::from_utf8_lossy(MAGIC), self.rate_hz);
        let name = sha256_hex(key.as_bytes());
        self.folder.join(name.get(..2).unwrap_or_default()).join(format!("{name}.logmel"))
    }

    fn compute(&self, path: &Path) -> DataResult<Frames> {
        let audio = flac::read(path)?;
        let mono = mono(&audio, self.rate_hz).map_err(|got| {
            DataError::corrupt(path, At::File, format!("one channel of 16 bits at {} Hz", self.rate_hz), got)
        })?;
        let scale = 1.0 / f64::from(1u32 << (audio.bits - 1));
        let samples: Vec<f64> = mono.iter().map(|&s| f64::from(s) * scale).collect();
        let values = self.mel.compute(&samples);
        if values.is_empty() {
            let expected = format!("at least {} samples, one window's reflection", self.mel.shortest());
            return Err(DataError::corrupt(path, At::File, expected, format!("{} samples", samples.len())));
        }
        Ok(Frames { bands: self.mel.bands(), values })
    }

    fn store(&self, path: &Path, frames: &Frames) -> DataResult<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let mut bytes = Vec::with_capacity(HEADER + frames.values.len() * 4 + CHECKSUM);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(frames.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(frames.bands as u32).to_le_bytes());
        frames.values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        let checksum: [u8; 16] = Md5::digest(&bytes).into();
        bytes.extend_from_slice(&checksum);
        crate::files::write_unsynced(path, &bytes)
    }

    /// The numbers of a file, if it is whole and of this kind.
    fn parse(&self, bytes: &[u8]) -> Option<Frames> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        let (header, numbers) = content.split_at_checked(HEADER)?;
        let (magic, sizes) = header.split_at_checked(MAGIC.len())?;
        let size = |at: usize| sizes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let (frames, bands) = (size(0)? as usize, size(4)? as usize);
        let fits = frames.checked_mul(bands)?.checked_mul(4)? == numbers.len();
        if magic != MAGIC
            || bands != self.mel.bands()
            || frames == 0
            || !fits
            || Md5::digest(content)[..] != checksum[..]
        {
            return None;
        }
        Some(Frames { bands, values: numbers.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect() })
    }
}

/// The only channel, if the audio is what is expected.
fn mono(audio: &Audio, rate_hz: u32) -> Result<&[i32], String> {
    match audio.channels.as_slice() {
        [channel] if audio.rate_hz == rate_hz && audio.bits == 16 => Ok(channel),
        channels => Err(format!("{} channels of {} bits at {} Hz", channels.len(), audio.bits, audio.rate_hz)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(folder: &Path, rate_hz: u32, channels: usize) -> PathBuf {
        let samples: Vec<i32> = (0..4000).map(|t| (t * 37) % 2000 - 1000).collect();
        let path = folder.join(format!("{rate_hz}-{channels}.flac"));
        std::fs::write(&path, flac::encode(&vec![samples.as_slice(); channels], rate_hz, 16).unwrap()).unwrap();
        path
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let inside = |p: &Path| std::fs::read_dir(p).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        inside(folder).iter().flat_map(|p| inside(p)).collect()
    }

    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

    #[test]
    fn computes_once_and_again_where_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (audio, folder) = (wav(dir.path(), 16_000, 1), dir.path().join("cache"));
        let content = flac::info(&audio).unwrap().content;
        let cache = Cache::new(&folder, LogMelConfig::default(), 16_000);
        let first = cache.load(&audio, &content).unwrap();
        assert_eq!((first.len(), cache.computed()), (cache.frames(4000), (1, 0)));
        assert_eq!(cache.load(&audio, &content).unwrap(), first);
        assert_eq!(cache.computed(), (1, 0));
        let [file] = files(&folder).try_into().unwrap();
        let whole = std::fs::read(&file).unwrap();
        let damage: [Damage; 5] =
            [&|b| b[100] ^= 1, &|b| b.truncate(50), &|b| b.clear(), &|b| b[8] = 0xFF, &|b| b.extend([0; 16])];
        for (i, damage) in damage.iter().enumerate() {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(cache.load(&audio, &content).unwrap(), first, "damage {i}");
            assert_eq!(cache.computed(), (2 + i as u64, 1 + i as u64));
            assert_eq!(std::fs::read(&file).unwrap(), whole, "and mended");
        }
        // other settings are other files
        Cache::new(&folder, LogMelConfig { bands: 40, ..LogMelConfig::default() }, 16_000)
            .load(&audio, &content)
            .unwrap();
        assert_eq!(files(&folder).len(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_used_costs_time_alone_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let audio = wav(dir.path(), 16_000, 1);
        let of = |folder: &Path| Cache::new(folder, LogMelConfig::default(), 16_000);
        let content = flac::info(&audio).unwrap().content;
        let whole = of(&dir.path().join("cache"));
        let first = whole.load(&audio, &content).unwrap();
        assert_eq!(whole.refused(), None);
        // a file in the place of the folder, which cannot be made; a folder in the place of a file, which cannot be read
        let other = dir.path().join("other");
        std::fs::create_dir_all(of(&other).path(&content)).unwrap();
        for (folder, said) in [(audio.as_path(), "16000-1.flac"), (other.as_path(), "directory")] {
            let cache = of(folder);
            for computed in 1..3 {
                assert_eq!(cache.load(&audio, &content).unwrap(), first);
                assert_eq!(cache.computed(), (computed, 0));
            }
            assert!(cache.refused().is_some_and(|text| text.contains(said)), "{:?}", cache.refused());
        }
    }

    #[test]
    fn wrong_audio_is_refused_with_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("cache"), LogMelConfig::default(), 16_000);
        for (path, what) in [(wav(dir.path(), 8000, 1), "8000 Hz"), (wav(dir.path(), 16_000, 2), "2 channels")] {
            let error = cache.load(&path, "x").unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
