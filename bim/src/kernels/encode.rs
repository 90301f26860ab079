//! Presynaptic side of a block: `LIF_in` and the axonal delay line that turns its spikes into `ψ`.
//!
//! `V_t = β V_{t-1} + (1-β) R x_t − ρ s_{t-1}`, `s_t = fire(V_t)` (eq. 3), `ψ_{t,j} = Σ_k c_{k,j} s_{t-k,j}`.
//! Everything is per channel and linear behind the spikes, so a block's credit stays exact.

use super::Real;
use super::neuron::Neuron;

/// Carried between chunks: membrane `[J]` and the last `taps − 1` spikes `[taps − 1, J]`, latest first.
#[derive(Clone, Debug)]
pub struct EncodeState<T> {
    /// Membrane potentials.
    pub v: Vec<T>,
    /// Earlier spikes.
    pub past: Vec<T>,
}

impl<T: Real> EncodeState<T> {
    /// At rest.
    #[must_use]
    pub fn new(inputs: usize, taps: usize) -> Self {
        Self { v: vec![T::zero(); inputs], past: vec![T::zero(); inputs * (taps - 1)] }
    }

    /// Back to rest.
    pub fn reset(&mut self) {
        self.v.fill(T::zero());
        self.past.fill(T::zero());
    }
}

/// What the reverse pass needs: membrane potentials and spikes of the chunk, with the history in front.
#[derive(Clone, Debug, Default)]
pub struct EncodeTape<T> {
    /// `V_0` (before the chunk), then `V_1 … V_K`: `[K + 1, J]`.
    pub v: Vec<T>,
    /// `taps − 1` earlier spikes (earliest first), then the chunk's: `[taps − 1 + K, J]`.
    pub s: Vec<T>,
}

impl<T: Real> EncodeTape<T> {
    /// Spikes of the chunk, `[K, J]`.
    #[must_use]
    pub fn spikes(&self, inputs: usize, taps: usize) -> &[T] {
        &self.s[(taps - 1) * inputs..]
    }
}

/// Runs one stream over a chunk: `x` `[K, J]` → `psi` `[K, J]`; advances `state` and fills `tape`.
pub fn forward<T: Real>(
    neuron: &Neuron<T>,
    x: &[T],
    taps: &[T],
    state: &mut EncodeState<T>,
    tape: &mut EncodeTape<T>,
    psi: &mut [T],
) {
    let j = state.v.len();
    let (history, steps) = (taps.len() / j - 1, x.len() / j);
    tape.v.clear();
    tape.s.clear();
    tape.v.extend_from_slice(&state.v);
    for k in (0..history).rev() {
        tape.s.extend_from_slice(&state.past[k * j..][..j]);
    }
    for t in 0..steps {
        for (v, &x) in state.v.iter_mut().zip(&x[t * j..]) {
            *v = neuron.step(*v, x);
        }
        tape.v.extend_from_slice(&state.v);
        tape.s.extend(state.v.iter().map(|&v| neuron.fire(v)));
        let out = &mut psi[t * j..][..j];
        out.fill(T::zero());
        for k in 0..=history {
            let row = &tape.s[(history + t - k) * j..][..j];
            for ((o, &c), &s) in out.iter_mut().zip(&taps[k * j..]).zip(row) {
                *o += c * s;
            }
        }
    }
    for k in 0..history {
        let row = (history + steps - 1 - k) * j;
        state.past[k * j..][..j].copy_from_slice(&tape.s[row..row + j]);
    }
}

/// Reverse mode within the chunk: from `d_psi` `[K, J]` to `dx` `[K, J]` (overwritten) and `d_taps` (added to).
/// With `temporal` off, credit does not pass through the membrane or the delays.
pub fn reverse<T: Real>(
    neuron: &Neuron<T>,
    tape: &EncodeTape<T>,
    taps: &[T],
    d_psi: &[T],
    temporal: bool,
    dx: &mut [T],
    d_taps: &mut [T],
) {
    let j = tape.v.len() - d_psi.len(); // the tape holds one row more than the chunk
    let (history, steps) = (taps.len() / j - 1, d_psi.len() / j);
    let mut lambda_v = vec![T::zero(); j];
    for t in (0..steps).rev() {
        let v = &tape.v[(t + 1) * j..][..j];
        let out = &mut dx[t * j..][..j];
        out.fill(T::zero()); // ∂L/∂s_t first
        for k in 0..=history {
            let (s, d) = (&tape.s[(history + t - k) * j..][..j], &d_psi[t * j..][..j]);
            for ((g, &s), &d) in d_taps[k * j..][..j].iter_mut().zip(s).zip(d) {
                *g += s * d;
            }
            if t + k < steps && (k == 0 || temporal) {
                let d = &d_psi[(t + k) * j..][..j];
                for ((o, &c), &d) in out.iter_mut().zip(&taps[k * j..]).zip(d) {
                    *o += c * d;
                }
            }
        }
        for i in 0..j {
            let adjoint = lambda_v[i] + neuron.surrogate(v[i]) * out[i];
            out[i] = neuron.gain * adjoint;
            lambda_v[i] = if temporal { neuron.carry(tape.v[t * j + i]) * adjoint } else { T::zero() };
        }
    }
}
