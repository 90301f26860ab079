//! Log-mel spectrograms, equal to torchaudio's:
//!
//! ```python
//! torchaudio.transforms.MelSpectrogram(
//!     sample_rate=rate_hz, n_fft=window, win_length=window, hop_length=hop, f_min=0, f_max=rate_hz / 2, n_mels=bands,
//!     window_fn=torch.hann_window, power=2.0, normalized=False, center=True, pad_mode="reflect", norm=None,
//!     mel_scale="htk")(samples / 32768)
//! ```
//!
//! and the natural logarithm of that plus 1e-6. Everything is computed in `f64` and kept as `f32`.

use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Added to a band's power before the logarithm: below the noise of any recording of 16 bits, above silence's zero.
pub const FLOOR: f64 = 1e-6;
/// Most bands: more than bins of a 25 ms window at 16 kHz would leave some of them empty.
const MAX_BANDS: usize = 128;

/// What a spectrogram looks like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
pub struct LogMelConfig {
    /// Mel bands, 1 to 128.
    pub bands: usize,
    /// Length of the window, 5 to 100 ms.
    pub window_ms: f64,
    /// Time between frames, 1 to 100 ms.
    pub hop_ms: f64,
}

/// A configuration before it is checked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Written {
    /// Mel bands, 1 to 128.
    bands: usize,
    /// Length of the window, 5 to 100 ms.
    window_ms: f64,
    /// Time between frames, 1 to 100 ms.
    hop_ms: f64,
}

impl Default for Written {
    fn default() -> Self {
        LogMelConfig::default().into()
    }
}

impl Default for LogMelConfig {
    fn default() -> Self {
        Self { bands: 80, window_ms: 25.0, hop_ms: 10.0 }
    }
}

impl From<LogMelConfig> for Written {
    fn from(LogMelConfig { bands, window_ms, hop_ms }: LogMelConfig) -> Self {
        Self { bands, window_ms, hop_ms }
    }
}

impl TryFrom<Written> for LogMelConfig {
    type Error = String;

    fn try_from(Written { bands, window_ms, hop_ms }: Written) -> Result<Self, String> {
        if !(1..=MAX_BANDS).contains(&bands) {
            return Err(format!("expected 1 to {MAX_BANDS} bands, got {bands}"));
        }
        if !(5.0..=100.0).contains(&window_ms) || !(1.0..=100.0).contains(&hop_ms) {
            return Err(format!(
                "expected a window of 5 to 100 ms and a hop of 1 to 100 ms, got {window_ms} and {hop_ms}"
            ));
        }
        Ok(Self { bands, window_ms, hop_ms })
    }
}

/// A spectrogram of [`LogMelConfig`] at one sampling rate, ready to be computed.
#[derive(Clone)]
pub struct LogMel {
    bands: usize,
    hop: usize,
    window: Vec<f64>,
    fft: Arc<dyn RealToComplex<f64>>,
    /// Of each band: its first bin and its weights from there on.
    filters: Vec<(usize, Vec<f64>)>,
}

impl LogMel {
    /// Plans the transform for samples at `rate_hz`.
    #[must_use]
    pub fn new(config: &LogMelConfig, rate_hz: u32) -> Self {
        let samples = |ms: f64| ((ms * f64::from(rate_hz) / 1000.0).round() as usize).max(1);
        let length = samples(config.window_ms).max(2);
        let window = (0..length).map(|t| 0.5 - 0.5 * (TAU * t as f64 / length as f64).cos()).collect(); // periodic Hann
        let filters = filters(config.bands, length / 2 + 1, f64::from(rate_hz));
        Self {
            bands: config.bands,
            hop: samples(config.hop_ms),
            window,
            fft: RealFftPlanner::new().plan_fft_forward(length),
            filters,
        }
    }

    /// Values per frame.
    #[must_use]
    pub fn bands(&self) -> usize {
        self.bands
    }

    /// Frames of so many samples: the first is centred on the first sample, so there is one more than hops fit.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        samples / self.hop + 1
    }

    /// Fewest samples that can be reflected at both ends.
    #[must_use]
    pub fn shortest(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// The spectrogram `[frames, bands]` of samples in −1..1; empty if there are fewer than [`Self::shortest`].
    #[must_use]
    pub fn compute(&self, samples: &[f64]) -> Vec<f32> {
        let power = self.power(samples);
        power.into_iter().map(|p| (p + FLOOR).ln() as f32).collect()
    }

    /// Power in each band, `[frames, bands]`.
    fn power(&self, samples: &[f64]) -> Vec<f64> {
        if samples.len() < self.shortest() {
            return Vec::new();
        }
        let (length, half) = (self.window.len(), (self.window.len() / 2) as isize);
        let last = samples.len() as isize - 1;
        // the samples go on as their mirror image at both ends, without repeating the outermost
        let reflected = |t: isize| {
            if t < 0 {
                -t
            } else if t > last {
                2 * last - t
            } else {
                t
            }
        };
        let frames = self.frames(samples.len());
        let mut out = Vec::with_capacity(frames * self.bands);
        let (mut input, mut scratch) = (self.fft.make_input_vec(), self.fft.make_scratch_vec());
        let mut spectrum = self.fft.make_output_vec();
        let mut power = vec![0.0; spectrum.len()];
        for frame in 0..frames {
            let from = (frame * self.hop) as isize - half;
            let inside = (from >= 0).then(|| samples.get(from as usize..from as usize + length)).flatten();
            match inside {
                Some(part) => input.iter_mut().zip(part.iter().zip(&self.window)).for_each(|(x, (s, w))| *x = s * w),
                None => {
                    for (k, (x, w)) in input.iter_mut().zip(&self.window).enumerate() {
                        let at = reflected(from + k as isize);
                        *x = usize::try_from(at).ok().and_then(|at| samples.get(at)).copied().unwrap_or_default() * w;
                    }
                }
            }
            // lengths fit: the buffers are the plan's own
            if self.fft.process_with_scratch(&mut input, &mut spectrum, &mut scratch).is_err() {
                return Vec::new();
            }
            power.iter_mut().zip(&spectrum).for_each(|(p, z)| *p = z.norm_sqr());
            out.extend(self.filters.iter().map(|(first, weights)| {
                let bins = power.get(*first..).unwrap_or_default();
                bins.iter().zip(weights).map(|(p, w)| p * w).sum::<f64>()
            }));
        }
        out
    }
}

/// Mel of a frequency (O'Shaughnessy; HTK's form).
fn mel(hz: f64) -> f64 {
    2595.0 * (1.0 + hz / 700.0).log10()
}

/// Triangles over the bins, equally wide on the mel scale; as `torchaudio.functional.melscale_fbanks`.
fn filters(bands: usize, bins: usize, rate_hz: f64) -> Vec<(usize, Vec<f64>)> {
    let top = rate_hz / 2.0;
    let corner = |i: usize| {
        let m = mel(top) * i as f64 / (bands + 1) as f64;
        700.0 * (10f64.powf(m / 2595.0) - 1.0)
    };
    let bin_hz = |k: usize| top * k as f64 / (bins - 1) as f64;
    (0..bands)
        .map(|band| {
            let (low, middle, high) = (corner(band), corner(band + 1), corner(band + 2));
            let weight = |k: usize| ((bin_hz(k) - low) / (middle - low)).min((high - bin_hz(k)) / (high - middle));
            let first = (0..bins).find(|&k| weight(k) > 0.0).unwrap_or(0);
            (first, (first..bins).map(weight).take_while(|w| *w > 0.0).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of `tests/golden/mel.py`.
    fn samples(n: usize) -> Vec<i32> {
        let mut x = 1u64;
        (0..n)
            .map(|t| {
                x = (1_103_515_245 * x + 12345) % (1 << 31);
                let noise = (x >> 18) as i32 - 4096;
                let tone = |height: f64, pace: f64| (height * (pace * t as f64).sin()).floor() as i32;
                noise + tone(6000.0, 0.05) + tone(3000.0, 0.7)
            })
            .collect()
    }

    #[test]
    fn equals_torchaudio() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/mel.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let (n, bands) = (case["samples"].as_u64().unwrap() as usize, case["bands"].as_u64().unwrap() as usize);
            let mel = LogMel::new(&LogMelConfig { bands, ..LogMelConfig::default() }, 16_000);
            let wave: Vec<f64> = samples(n).into_iter().map(|s| f64::from(s) / 32768.0).collect();
            let ours = mel.power(&wave);
            let rows = case["mel"].as_array().unwrap();
            let theirs: Vec<f64> =
                rows.iter().flat_map(|row| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap())).collect();
            assert_eq!((rows.len(), ours.len()), (mel.frames(n), theirs.len()));
            for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                // both in f64: what is left is rounding in the Fourier transform, relative to the loudest bin
                assert!((a - b).abs() <= 1e-9 * b, "{n} samples, value {i}: {a} {b}");
            }
            let logs = mel.compute(&wave);
            assert!(logs.iter().zip(&theirs).all(|(a, b)| (f64::from(*a) - (b + FLOOR).ln()).abs() < 1e-4));
        }
    }

    #[test]
    fn short_audio_has_no_frames_and_silence_is_finite() {
        let mel = LogMel::new(&LogMelConfig::default(), 16_000);
        assert!(mel.compute(&vec![0.1; mel.shortest() - 1]).is_empty());
        let silence = mel.compute(&vec![0.0; 1000]);
        assert_eq!(silence.len(), mel.frames(1000) * 80);
        assert!(silence.iter().all(|&x| (f64::from(x) - FLOOR.ln()).abs() < 1e-6));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for text in
            [r#"{"bands": 0}"#, r#"{"bands": 400}"#, r#"{"window_ms": 1.0}"#, r#"{"hop_ms": 0.0}"#, r#"{"hop": 10.0}"#]
        {
            assert!(serde_json::from_str::<LogMelConfig>(text).is_err(), "{text}");
        }
        let forty = LogMelConfig { bands: 40, ..LogMelConfig::default() };
        assert_eq!(serde_json::from_str::<LogMelConfig>(r#"{"bands": 40}"#).unwrap(), forty);
    }
}
