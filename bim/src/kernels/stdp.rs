//! Pair-based spike-timing-dependent plasticity (paper eqs. 5, 6), online and exact: each ordered pair of spikes counts
//! once with `W(Δt)`, pairs at the same step with `W(0)`.

use super::Real;
use crate::config::StdpConfig;
use learner::product::{View, matmul};

/// Constants in the kernel's number type.
#[derive(Clone, Copy, Debug)]
pub struct Window<T> {
    /// Of a pair whose presynaptic spike comes first.
    pub a_plus: T,
    /// Of a pair whose postsynaptic spike comes first.
    pub a_minus: T,
    /// What a step leaves of the presynaptic sum.
    pub keep_pre: T,
    /// What a step leaves of the postsynaptic sum.
    pub keep_post: T,
    /// Of a pair at the same step.
    pub at_zero: T,
}

impl<T: Real> Window<T> {
    /// From a checked configuration.
    #[must_use]
    pub fn new(c: &StdpConfig) -> Self {
        Self {
            a_plus: T::of(c.a_plus.0),
            a_minus: T::of(c.a_minus.0),
            keep_pre: T::of((-1.0 / c.tau_plus.0).exp()),
            keep_post: T::of((-1.0 / c.tau_minus.0).exp()),
            at_zero: T::of(c.at_zero),
        }
    }
}

/// Decaying sums of the spikes strictly before now, of a group of streams: presynaptic `[streams, J]`, postsynaptic
/// `[streams, D]`.
#[derive(Clone, Debug)]
pub struct PairState<T> {
    streams: usize,
    /// Presynaptic.
    pub pre: Vec<T>,
    /// Postsynaptic.
    pub post: Vec<T>,
    rows: [Vec<T>; 2],
}

impl<T: Real> PairState<T> {
    /// No spikes yet.
    #[must_use]
    pub fn new(streams: usize, pre: usize, post: usize) -> Self {
        let zeros = |n| vec![T::zero(); n];
        Self { streams, pre: zeros(streams * pre), post: zeros(streams * post), rows: [Vec::new(), Vec::new()] }
    }

    /// Forgets all spikes of one stream.
    pub fn reset(&mut self, stream: usize) {
        for trace in [&mut self.pre, &mut self.post] {
            let width = trace.len() / self.streams;
            trace[stream * width..][..width].fill(T::zero());
        }
    }
}

/// Adds the chunk's pairs to `omega` `[D, J]`. `s_pre` is `[K, streams, J]`, `s_post` `[K, streams, D]`.
///
/// A pair inside the chunk belongs to its postsynaptic spike, whichever comes first, so that one product serves both halves
/// of the window: `Ω += S_postᵀ (A₊ P − A₋ R + W(0) S_pre) − A₋ q ⊗ r`, where `P_t` are the presynaptic spikes before a step
/// and `R_t` those after it in the chunk, decayed, and `q ⊗ r` are the postsynaptic spikes before the chunk with the
/// presynaptic ones in it.
pub fn accumulate<T: Real>(window: &Window<T>, s_pre: &[T], s_post: &[T], state: &mut PairState<T>, omega: &mut [T]) {
    let streams = state.streams;
    let (j, d) = (state.pre.len() / streams, state.post.len() / streams);
    let rows = s_pre.len() / j;
    let [weighted, after] = &mut state.rows;
    weighted.clear();
    for row in s_pre.chunks_exact(streams * j) {
        // decayed once per step already: W(Δt) = A₊ e^{−Δt/τ₊}
        weighted.extend(state.pre.iter().zip(row).map(|(&p, &s)| window.a_plus.mul_add(p, window.at_zero * s)));
        state.pre.iter_mut().zip(row).for_each(|(p, &s)| *p = window.keep_pre * (*p + s));
    }
    after.clear();
    after.resize(streams * j, T::zero());
    for (out, row) in weighted.chunks_exact_mut(streams * j).zip(s_pre.chunks_exact(streams * j)).rev() {
        for ((out, after), &s) in out.iter_mut().zip(after.iter_mut()).zip(row) {
            let decayed = window.keep_post * *after;
            *out -= window.a_minus * decayed;
            *after = s + decayed;
        }
    }
    for r in after.iter_mut() {
        *r *= -window.a_minus;
    }
    let (out, before) = (View::new(d, j), View::new(streams, d).t());
    matmul((omega, out), (s_post, View::new(rows, d).t()), (weighted, View::new(rows, j)), T::one());
    matmul((omega, out), (&state.post, before), (after, View::new(streams, j)), T::one());
    for row in s_post.chunks_exact(streams * d) {
        state.post.iter_mut().zip(row).for_each(|(q, &s)| *q = window.keep_post * (*q + s));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: a double sum over all pairs of spikes.
    fn pair_sum_slow(c: &StdpConfig, s_pre: &[f64], s_post: &[f64], j: usize, d: usize) -> Vec<f64> {
        let steps = s_pre.len() / j;
        let window = |dt: f64| match dt {
            dt if dt > 0.0 => c.a_plus.0 * (-dt / c.tau_plus.0).exp(),
            dt if dt < 0.0 => -c.a_minus.0 * (dt / c.tau_minus.0).exp(),
            _ => c.at_zero,
        };
        let mut omega = vec![0.0; d * j];
        for t_post in 0..steps {
            for t_pre in 0..steps {
                let w = window(t_post as f64 - t_pre as f64);
                for i in 0..d {
                    for k in 0..j {
                        omega[i * j + k] += w * s_post[t_post * d + i] * s_pre[t_pre * j + k];
                    }
                }
            }
        }
        omega
    }

    #[test]
    fn chunks_of_any_length_equal_the_double_sum() {
        let (j, d, steps) = (5, 4, 40);
        let bit = |i: usize, seed: usize| f64::from(u8::from((i * 7919 + seed * 104_729) % 11 < 4));
        let s_pre: Vec<f64> = (0..steps * j).map(|i| bit(i, 1)).collect();
        let s_post: Vec<f64> = (0..steps * d).map(|i| bit(i, 2)).collect();
        let c = StdpConfig { at_zero: 0.3, tau_minus: crate::config::Positive(8.0), ..StdpConfig::default() };
        let expected = pair_sum_slow(&c, &s_pre, &s_post, j, d);
        let window = Window::new(&c);
        for chunk in [1, 7, 32, steps] {
            let mut state = PairState::new(1, j, d);
            let mut omega = vec![0.0; d * j];
            for t in (0..steps).step_by(chunk) {
                let end = (t + chunk).min(steps);
                accumulate(&window, &s_pre[t * j..end * j], &s_post[t * d..end * d], &mut state, &mut omega);
            }
            for (x, y) in omega.iter().zip(&expected) {
                assert!((x - y).abs() < 1e-12 * (1.0 + y.abs()), "chunk {chunk}: {x} {y}"); // f64 rounding of 40 terms
            }
        }
    }
}
