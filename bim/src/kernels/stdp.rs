//! Pair-based spike-timing-dependent plasticity (paper eqs. 5, 6), online and exact: each ordered pair of spikes counts
//! once with `W(Δt)`, pairs at the same step with `W(0)`.

use super::Real;
use super::matmul::{View, matmul};
use crate::config::StdpConfig;

/// Constants in the kernel's number type.
#[derive(Clone, Copy, Debug)]
pub struct Window<T> {
    a_plus: T,
    a_minus: T,
    keep_pre: T,
    keep_post: T,
    at_zero: T,
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

/// The trace before each step, times `weight`.
fn history<T: Real>(spikes: &[T], trace: &mut [T], keep: T, weight: T, rows: &mut Vec<T>) {
    rows.clear();
    for row in spikes.chunks_exact(trace.len()) {
        rows.extend(trace.iter().map(|&x| weight * x));
        trace.iter_mut().zip(row).for_each(|(x, &s)| *x = keep * (*x + s));
    }
}

/// Adds the chunk's pairs to `omega` `[D, J]`: `Ω += A₊ S_postᵀ P − A₋ Qᵀ S_pre + W(0) S_postᵀ S_pre`, where `P` and `Q` are
/// the traces before each step. `s_pre` is `[K, streams, J]`, `s_post` `[K, streams, D]`.
pub fn accumulate<T: Real>(window: &Window<T>, s_pre: &[T], s_post: &[T], state: &mut PairState<T>, omega: &mut [T]) {
    let (j, d) = (state.pre.len() / state.streams, state.post.len() / state.streams);
    let rows = s_pre.len() / j;
    let [p, q] = &mut state.rows;
    // P's trace is decayed once per step already: W(Δt) = A₊ e^{−Δt/τ₊}
    history(s_pre, &mut state.pre, window.keep_pre, window.a_plus, p);
    history(s_post, &mut state.post, window.keep_post, -window.a_minus, q);
    if window.at_zero != T::zero() {
        for (p, &s) in p.iter_mut().zip(s_pre) {
            *p += window.at_zero * s;
        }
    }
    let (out, rows_pre, rows_post) = (View::new(d, j), View::new(rows, j), View::new(rows, d).t());
    matmul((omega, out), (s_post, rows_post), (p, rows_pre), T::one());
    matmul((omega, out), (q, rows_post), (s_pre, rows_pre), T::one());
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
