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
        let (lowest, highest, offset) = match c.levels {
            // binary: fires where V > ϑ
            Levels::Binary => (0.0, 1.0, 0.0),
            // several levels: level k where V/ϑ rounds to k, so that the quantisation error is centred
            Levels::Signed => (-1.0, 1.0, 0.5),
            Levels::Integer => (-(c.burst.0 as f64), c.burst.0 as f64, 0.5),
            Levels::Unsigned => (0.0, c.burst.0 as f64, 0.5),
            Levels::Analog => (f64::NEG_INFINITY, f64::INFINITY, 0.5),
        };
        let analog = c.levels == Levels::Analog;
        let reset = match c.reset {
            _ if analog => 0.0,
            Reset::Subtract => c.threshold.0,
            Reset::Leaky => c.beta.0 * c.threshold.0,
            Reset::None => 0.0,
        };
        Self {
            beta: T::of(c.beta.0),
            gain: T::of((1.0 - c.beta.0) * c.resistance.0),
            threshold: T::of(c.threshold.0),
            inverse: T::of(1.0 / c.threshold.0),
            reset: T::of(reset),
            lowest: T::of(lowest),
            highest: T::of(highest),
            offset: T::of(offset),
            surrogate: c.surrogate,
            slope: T::of(c.surrogate_slope.0),
            attached: c.attached_reset && !analog,
            analog,
        }
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

/// `x` within `[low, high]`; without the check of the bounds and the care for NaN that keep `clamp` from vector code.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for fire")]
fn clip<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}
