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
    lowest: T,
    highest: T,
    offset: T,
    surrogate: Surrogate,
    slope: T,
    attached: bool,
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
        };
        let reset = match c.reset {
            Reset::Subtract => c.threshold.0,
            Reset::Leaky => c.beta.0 * c.threshold.0,
            Reset::None => 0.0,
        };
        Self {
            beta: T::of(c.beta.0),
            gain: T::of((1.0 - c.beta.0) * c.resistance.0),
            threshold: T::of(c.threshold.0),
            reset: T::of(reset),
            lowest: T::of(lowest),
            highest: T::of(highest),
            offset: T::of(offset),
            surrogate: c.surrogate,
            slope: T::of(c.surrogate_slope.0),
            attached: c.attached_reset,
        }
    }

    /// Spikes fired at membrane potential `v`: a count within the neuron's levels.
    #[inline]
    pub fn fire(&self, v: T) -> T {
        if self.offset == T::zero() {
            return if v > self.threshold { T::one() } else { T::zero() };
        }
        (v / self.threshold + self.offset).floor().clamp(self.lowest, self.highest)
    }

    /// Surrogate derivative `φ(v)` of [`Neuron::fire`].
    #[inline]
    pub fn surrogate(&self, v: T) -> T {
        match self.surrogate {
            // one step of the staircase per ϑ, flat beyond the outermost levels
            Surrogate::Rectangular => {
                let x = v / self.threshold;
                let margin = T::of(0.5);
                let (low, high) = if self.offset == T::zero() {
                    (margin, margin + T::one())
                } else {
                    (self.lowest - margin, self.highest + margin)
                };
                if x >= low && x <= high { T::one() / self.threshold } else { T::zero() }
            }
            // fast sigmoid around the nearest threshold (Zenke & Ganguli 2018)
            Surrogate::FastSigmoid => {
                let nearest = if self.offset == T::zero() {
                    self.threshold
                } else {
                    let half = T::of(0.5);
                    ((v / self.threshold).floor().clamp(self.lowest, self.highest - T::one()) + half) * self.threshold
                };
                let x = T::one() + self.slope * (v - nearest).abs();
                T::one() / (x * x)
            }
        }
    }

    /// `∂V_t / ∂V_{t-1}` at `V_{t-1} = v`: `β`, less the reset's share if gradients go through it.
    #[inline]
    pub fn carry(&self, v: T) -> T {
        if self.attached { self.beta - self.reset * self.surrogate(v) } else { self.beta }
    }

    /// Next membrane potential from the last one and the input current.
    #[inline]
    pub fn step(&self, v: T, current: T) -> T {
        self.beta * v + self.gain * current - self.reset * self.fire(v)
    }
}
