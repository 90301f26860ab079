//! From spectrograms to a learner's frames: normalised, masked (`SpecAugment`), stacked.

use learner::seeded_rng;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::Frames;

/// Below this standard deviation a band is taken for constant.
pub const FLAT: f64 = 1e-3;

/// Over what the mean and the standard deviation of each band are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// All training utterances that are used.
    Global,
    /// The utterances of a speaker that are used.
    Speaker,
    /// The utterance.
    #[default]
    Utterance,
}

/// How frames become steps: step `t` holds the frames from `t · stride` on, `stack` of them side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stacking {
    /// Frames in a step.
    pub stack: Span,
    /// Frames between steps; as many as are stacked if absent.
    pub stride: Option<Span>,
}

impl Default for Stacking {
    fn default() -> Self {
        Self { stack: Span(3), stride: None }
    }
}

impl Stacking {
    fn stride(&self) -> usize {
        self.stride.unwrap_or(self.stack).0
    }

    /// Steps of so many frames: every frame is in one, unless the stride is longer than the stack.
    #[must_use]
    pub fn steps(&self, frames: usize) -> usize {
        frames.saturating_sub(self.stack.0).div_ceil(self.stride()) + usize::from(frames > 0)
    }
}

/// A number of frames or bands, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "usize", into = "usize")]
pub struct Span(pub usize);

impl TryFrom<usize> for Span {
    type Error = String;
    fn try_from(n: usize) -> Result<Self, String> {
        if (1..=64).contains(&n) { Ok(Self(n)) } else { Err(format!("expected a whole number from 1 to 64, got {n}")) }
    }
}

impl From<Span> for usize {
    fn from(n: Span) -> Self {
        n.0
    }
}

/// `SpecAugment` (Park et al. 2019) without time warping: bands and frames that are set to the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecAugment {
    /// Masks over bands.
    pub band_masks: usize,
    /// Widest of them, in bands.
    pub bands: usize,
    /// Masks over time.
    pub time_masks: usize,
    /// Longest of them, in frames; never more than a fifth of the utterance.
    pub frames: usize,
}

/// Share of an utterance that one time mask may cover.
const LONGEST_MASK_SHARE: f64 = 0.2;

impl SpecAugment {
    /// Masks normalised frames; what is masked depends on `seed` and `name` alone.
    pub fn apply(&self, frames: &mut Frames, seed: u64, name: &str) {
        let mut rng = seeded_rng(seed, name);
        let (length, bands) = (frames.len(), frames.bands);
        let mut draw = |most: usize, of: usize| -> std::ops::Range<usize> {
            let width = rng.random_range(0..=most.min(of));
            let from = rng.random_range(0..=of - width);
            from..from + width
        };
        for _ in 0..self.band_masks {
            let hidden = draw(self.bands, bands);
            for row in frames.values.chunks_exact_mut(bands) {
                row.get_mut(hidden.clone()).unwrap_or_default().fill(0.0);
            }
        }
        let longest = self.frames.min((length as f64 * LONGEST_MASK_SHARE) as usize);
        for _ in 0..self.time_masks {
            let hidden = draw(longest, length);
            frames.values.get_mut(hidden.start * bands..hidden.end * bands).unwrap_or_default().fill(0.0);
        }
    }
}

/// Sums from which a mean and a standard deviation of each band follow.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    n: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Of some frames.
    #[must_use]
    pub fn of(frames: &Frames) -> Self {
        let (mut sum, mut squares) = (vec![0.0; frames.bands], vec![0.0; frames.bands]);
        for row in frames.values.chunks_exact(frames.bands) {
            for ((sum, squares), &x) in sum.iter_mut().zip(&mut squares).zip(row) {
                *sum += f64::from(x);
                *squares += f64::from(x) * f64::from(x);
            }
        }
        Self { n: frames.len() as f64, sum, squares }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.n += other.n;
        for (all, more) in [(&mut self.sum, &other.sum), (&mut self.squares, &other.squares)] {
            all.resize(more.len(), 0.0);
            all.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        }
    }

    /// Makes each band's mean 0 and its standard deviation 1 where the moments are those of `frames`. A band that is
    /// constant becomes 0.
    pub fn normalise(&self, frames: &mut Frames) {
        let (mean, scale) = self.normaliser();
        for row in frames.values.chunks_exact_mut(frames.bands) {
            let each = row.iter_mut().zip(&mean).zip(&scale);
            each.for_each(|((x, mean), scale)| *x = ((f64::from(*x) - mean) * scale) as f32);
        }
    }

    /// Mean of each band and one over its standard deviation, 0 where the band is constant.
    #[must_use]
    pub fn normaliser(&self) -> (Vec<f64>, Vec<f64>) {
        let band = |(sum, squares): (&f64, &f64)| {
            let mean = sum / self.n;
            let deviation = (squares / self.n - mean * mean).max(0.0).sqrt();
            (mean, if deviation > FLAT { 1.0 / deviation } else { 0.0 })
        };
        self.sum.iter().zip(&self.squares).map(band).unzip()
    }
}

/// The steps `[steps, stack · bands]` of some frames. The last step is filled up with zeros, the mean.
#[must_use]
pub fn stacked(frames: &Frames, stacking: &Stacking) -> Vec<f32> {
    let (bands, width) = (frames.bands, stacking.stack.0 * frames.bands);
    let steps = stacking.steps(frames.len());
    let mut out = Vec::with_capacity(steps * width);
    for t in 0..steps {
        let from = t * stacking.stride() * bands;
        let to = frames.values.len().min(from + width);
        out.extend_from_slice(frames.values.get(from..to).unwrap_or_default());
        out.resize((t + 1) * width, 0.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(n: usize) -> Frames {
        Frames { bands: 2, values: (0..n).flat_map(|t| [t as f32, 100.0]).collect() }
    }

    #[test]
    fn stacking_keeps_every_frame_and_subsampling_every_nth() {
        let of = |stack, stride: Option<usize>| Stacking { stack: Span(stack), stride: stride.map(Span) };
        let first = |steps: &[f32], width: usize| steps.chunks(width).map(|row| row[0]).collect::<Vec<_>>();
        let steps = stacked(&frames(7), &of(3, None));
        assert_eq!(first(&steps, 6), [0.0, 3.0, 6.0]);
        assert_eq!(steps[12..], [6.0, 100.0, 0.0, 0.0, 0.0, 0.0], "filled up");
        assert_eq!(first(&stacked(&frames(7), &of(1, Some(3))), 2), [0.0, 3.0, 6.0]);
        assert_eq!(first(&stacked(&frames(8), &of(4, Some(2))), 8), [0.0, 2.0, 4.0]);
        for (stack, stride) in [(1, None), (3, None), (4, Some(2)), (1, Some(3)), (2, Some(5))] {
            for n in 0..20 {
                let s = of(stack, stride);
                assert_eq!(stacked(&frames(n), &s).len(), s.steps(n) * stack * 2, "{n} {stack} {stride:?}");
            }
        }
    }

    #[test]
    fn normalised_bands_have_mean_zero_and_deviation_one() {
        let mut all = Moments::default();
        let (mut a, mut b) = (frames(10), frames(30));
        all.add(&Moments::of(&a));
        all.add(&Moments::of(&b));
        all.normalise(&mut a);
        all.normalise(&mut b);
        let values: Vec<f64> = a.values.iter().chain(&b.values).step_by(2).map(|&x| f64::from(x)).collect();
        let mean = values.iter().sum::<f64>() / 40.0;
        let square = values.iter().map(|x| x * x).sum::<f64>() / 40.0;
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "{mean} {square}");
        assert!(a.values.iter().skip(1).step_by(2).all(|&x| x == 0.0), "a constant band carries nothing");
    }

    #[test]
    fn masks_are_bounded_seeded_and_zero() {
        let whole = || Frames { bands: 20, values: vec![1.0; 20 * 100] };
        let augment = SpecAugment { band_masks: 1, bands: 5, time_masks: 2, frames: 10 };
        let masked = |seed| {
            let mut f = whole();
            augment.apply(&mut f, seed, "utterance 3");
            f
        };
        assert_eq!(masked(1), masked(1));
        assert_ne!(masked(1), masked(2));
        for seed in 0..50 {
            let f = masked(seed);
            let hidden_rows = f.values.chunks(20).filter(|row| row.iter().all(|x| *x == 0.0)).count();
            assert!(hidden_rows <= 20);
            let open = f.values.chunks(20).find(|row| row.iter().any(|x| *x != 0.0)).unwrap();
            assert!(open.iter().filter(|x| **x == 0.0).count() <= 5);
        }
        // a mask never covers more than a fifth of a short utterance
        let mut short = Frames { bands: 1, values: vec![1.0; 9] };
        SpecAugment { band_masks: 0, bands: 0, time_masks: 1, frames: 100 }.apply(&mut short, 1, "x");
        assert!(short.values.iter().filter(|x| **x == 0.0).count() <= 1);
    }
}
