//! The leaky integrate-and-fire neuron (paper eq. 3, discretised exactly over one step):
//! `V_t = β V_{t-1} + (1-β) R_m I_t − ρ s_{t-1}`, `s_t = fire(V_t)`.

use super::Real;
use crate::config::{Levels, NeuronConfig, Reset, Surrogate};

/// A neuron's constants in the kernel's number type.
#[derive(Clone, Copy, Debug)]
pub struct Neuron<T> {
    /// Membrane decay per step, `β = exp(-dt/τ_m)`.
    pub beta: T,
    /// `(1-β) R_m`: how much of the input current enters per step.
    pub gain: T,
    /// Threshold `ϑ`.
    pub threshold: T,
    /// What one spike takes off the membrane at the next step, `ρ`.
    pub reset: T,
    /// The same in thresholds.
    reset_share: T,
    inverse: T,
    lowest: T,
    highest: T,
    offset: T,
    surrogate: Surrogate,
    slope: T,
    attached: bool,
    analog: bool,
}

impl<T: Real> Neuron<T> {
    /// Converts a checked configuration.
    #[must_use]
    pub fn new(c: &NeuronConfig) -> Self {
        let fires = c.fires();
        let (lowest, highest, offset) = match c.levels {
            // binary: fires where V > ϑ
            Levels::Binary => (0.0, 1.0, 0.0),
            // several levels: level k where V/ϑ rounds to k, so that the quantisation error is centred
            Levels::Signed => (-1.0, 1.0, 0.5),
            Levels::Integer => (-(c.burst.0 as f64), c.burst.0 as f64, 0.5),
            Levels::Unsigned => (0.0, c.burst.0 as f64, 0.5),
            Levels::Quantised => {
                let (lowest, highest) = c.bits.codes();
                (lowest.into(), highest.into(), 0.5)
            }
            Levels::Analog => (f64::NEG_INFINITY, f64::INFINITY, 0.5),
        };
        let analog = c.levels == Levels::Analog;
        let reset_share = match c.reset {
            _ if !fires => 0.0,
            Reset::Subtract => 1.0,
            Reset::Leaky => c.beta.0,
            Reset::None => 0.0,
        };
        Self {
            beta: T::of(c.beta.0),
            gain: T::of((1.0 - c.beta.0) * c.resistance.0),
            threshold: T::of(c.threshold.0),
            inverse: T::of(1.0 / c.threshold.0),
            reset: T::of(reset_share * c.threshold.0),
            reset_share: T::of(reset_share),
            lowest: T::of(lowest),
            highest: T::of(highest),
            offset: T::of(offset),
            surrogate: if fires { c.surrogate } else { Surrogate::Rectangular },
            slope: T::of(c.surrogate_slope.0),
            attached: c.attached_reset && fires,
            analog,
        }
    }

    /// This neuron with a step of its own in place of the threshold.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for fire")]
    pub fn with_step(&self, step: T) -> Self {
        Self { threshold: step, inverse: step.recip(), reset: self.reset_share * step, ..*self }
    }

    /// Spikes fired at membrane potential `v`: a count within the neuron's levels.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "called from loops that should become vector code")]
    pub fn fire(&self, v: T) -> T {
        if self.analog {
            return v;
        }
        if self.offset == T::zero() {
            return if v > self.threshold { T::one() } else { T::zero() };
        }
        clip(v.mul_add(self.inverse, self.offset).floor(), self.lowest, self.highest)
    }

    /// Surrogate derivative `φ(v)` of [`Neuron::fire`].
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for fire")]
    pub fn surrogate(&self, v: T) -> T {
        if self.analog {
            return T::one();
        }
        match self.surrogate {
            // one step of the staircase per ϑ, flat beyond the outermost levels
            Surrogate::Rectangular => {
                let x = v * self.inverse;
                let margin = T::of(0.5);
                let (low, high) = if self.offset == T::zero() {
                    (margin, margin + T::one())
                } else {
                    (self.lowest - margin, self.highest + margin)
                };
                if x >= low && x <= high { self.inverse } else { T::zero() }
            }
            // fast sigmoid around the nearest threshold (Zenke & Ganguli 2018)
            Surrogate::FastSigmoid => {
                let nearest = if self.offset == T::zero() {
                    self.threshold
                } else {
                    let half = T::of(0.5);
                    (clip((v * self.inverse).floor(), self.lowest, self.highest - T::one()) + half) * self.threshold
                };
                let x = T::one() + self.slope * (v - nearest).abs();
                T::one() / (x * x)
            }
        }
    }

    /// `∂V_t / ∂V_{t-1}` at `V_{t-1} = v`: `β`, less the reset's share if gradients go through it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for fire")]
    pub fn carry(&self, v: T) -> T {
        if self.attached { self.beta - self.reset * self.surrogate(v) } else { self.beta }
    }

    /// Next membrane potential from the last one and the input current.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as for fire")]
    pub fn step(&self, v: T, current: T) -> T {
        self.beta.mul_add(v, self.gain.mul_add(current, -self.reset * self.fire(v)))
    }
}

impl<T: Real> Neuron<T> {
    /// What `cuda/encode.cu`, `cuda/scan.cu` and `cuda/readout.cu` take: `β`, gain, threshold, reset, `1/ϑ`, lowest and highest level,
    /// offset, slope, and as 1 or 0 whether the surrogate is the fast sigmoid, whether gradients go through the reset, and whether there
    /// are no levels; then the reset in thresholds and a 0: 1 where each neuron's own step follows.
    #[must_use]
    pub fn constants(&self) -> [T; 14] {
        let flag = |on: bool| if on { T::one() } else { T::zero() };
        let Self { beta, gain, threshold, reset, reset_share, inverse, lowest, highest, offset, slope, .. } = *self;
        let fast = flag(self.surrogate == Surrogate::FastSigmoid);
        let (attached, analog) = (flag(self.attached), flag(self.analog));
        let own = T::zero();
        [
            beta,
            gain,
            threshold,
            reset,
            inverse,
            lowest,
            highest,
            offset,
            slope,
            fast,
            attached,
            analog,
            reset_share,
            own,
        ]
    }
}

/// `x` within `[low, high]`; without the check of the bounds and the care for NaN that keep `clamp` from vector code.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for fire")]
fn clip<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bits, Positive, Share};

    fn quantised(bits: usize) -> NeuronConfig {
        NeuronConfig {
            levels: Levels::Quantised,
            bits: Bits(bits),
            threshold: Positive(0.25),
            beta: Share(0.0),
            // none of these has a say
            reset: Reset::Subtract,
            attached_reset: true,
            surrogate: Surrogate::FastSigmoid,
            ..NeuronConfig::default()
        }
    }

    /// Every code of every number of bits is reached where `V/ϑ` rounds to it, and none beyond.
    #[test]
    fn a_quantiser_has_as_many_codes_as_its_bits_hold() {
        for bits in 1..=8_usize {
            let neuron = Neuron::<f64>::new(&quantised(bits));
            let mut codes: Vec<i64> = (-4000..=4000).map(|i| neuron.fire(f64::from(i) * 0.01) as i64).collect();
            codes.dedup();
            let highest = (1_i64 << (bits - 1)) - 1;
            let expected: Vec<i64> = if bits == 1 { vec![0, 1] } else { (-highest..=highest).collect() };
            assert_eq!(codes, expected, "{bits} bits");
        }
        let neuron = Neuron::<f64>::new(&quantised(3));
        let fired = [-9.0, -0.40, -0.36, 0.12, 0.13, 0.25, 0.60, 0.70, 9.0].map(|v| neuron.fire(v) as i64);
        assert_eq!(fired, [-3, -2, -1, 0, 1, 1, 2, 3, 3], "steps of a quarter");
    }

    /// Straight through within the range of the codes and half a step beyond, nothing outside, nothing off the membrane.
    #[test]
    fn gradients_pass_straight_through_a_quantiser() {
        let neuron = Neuron::<f64>::new(&quantised(3));
        let slope = 1.0 / 0.25;
        for (v, expected) in [(-0.9, 0.0), (-0.87, slope), (0.0, slope), (0.3, slope), (0.87, slope), (0.9, 0.0)] {
            assert!((neuron.surrogate(v) - expected).abs() < f64::EPSILON, "{v}");
        }
        // the mean slope of the staircase over its range is the surrogate's
        let rise = (neuron.fire(0.874) - neuron.fire(-0.874)) / 1.75;
        assert!((rise / slope - 6.0 / 7.0).abs() < 1e-12, "six steps within seven: {rise}");
        assert_eq!((neuron.step(0.7, 0.3), neuron.carry(0.7)), (0.3, 0.0), "no memory without beta");
        let slow = Neuron::<f64>::new(&NeuronConfig { beta: Share(0.5), ..quantised(3) });
        assert_eq!((slow.step(0.6, 0.4), slow.carry(0.6)), (0.5, 0.5), "that of beta alone");
    }
}
