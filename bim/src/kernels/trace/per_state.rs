//! Traces with a decay per channel and state (Mamba-1).

use super::{Side, Traces, scale};
use crate::kernels::lanes::LANES;
use crate::kernels::scan::{ScanTape, Scratch, Span, in_force, softplus_slope};
use crate::kernels::{Dims, Real};
use learner::product::{View, matmul};

/// A decay per channel and state: nothing is shared, every trace has a row per state.
pub(super) fn advance<T: Real>(
    dims: &Dims,
    span: Span,
    tape: &mut ScanTape<T>,
    psi: &[T],
    b: usize,
    traces: &mut Traces<T>,
    sides: &mut [Side<'_, T>],
    scratch: &mut Scratch<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, .. } = dims;
    let (p, width, Span { streams, steps, .. }) = (dims.per_head(), dims.projected(), span);
    // channels of a head, a few at a time: rows of one block are [steps, N, len]
    for h in 0..heads {
        for from in (0..p).step_by(LANES) {
            let len = LANES.min(p - from);
            let cells = n * len;
            let needed = 4 * steps * cells;
            if scratch.source.len() < needed {
                scratch.source.resize(needed, T::zero());
            }
            let (decays, rest) = scratch.source[..needed].split_at_mut(steps * cells);
            let (s_u, rest) = rest.split_at_mut(steps * cells);
            let (s_b, s_delta) = rest.split_at_mut(steps * cells);
            for t in 0..steps {
                let row = t * streams + b;
                let delta = tape.delta[row * heads + h];
                let slope = softplus_slope(delta);
                let rates = in_force(&tape.rates, dims.decays(), span.lag, t);
                let u = &tape.p[row * width + h * p + from..][..len];
                let b_row = &tape.p[row * width + d..][..n];
                for k in 0..n {
                    let at = k * d + h * p + from;
                    let state = &mut tape.h0[b * n * d + at..][..len];
                    for i in 0..len {
                        let rate = rates[at + i];
                        let a = (-delta * rate).exp_fast();
                        let cell = (t * n + k) * len + i;
                        decays[cell] = a;
                        s_u[cell] = delta * b_row[k];
                        s_b[cell] = delta * u[i];
                        s_delta[cell] = slope * (b_row[k] * u[i] - rate * a * state[i]);
                        traces.a_log[at + i] = a * traces.a_log[at + i] - delta * rate * a * state[i];
                        traces.bias[at + i] = a * traces.bias[at + i] + s_delta[cell];
                        state[i] = a.mul_add(state[i], b_row[k] * (delta * u[i]));
                    }
                }
            }
            // multiply each source by the decays after its step
            let mut left = vec![T::one(); cells];
            for t in (0..steps).rev() {
                let at = t * cells;
                for c in 0..cells {
                    s_u[at + c] *= left[c];
                    s_b[at + c] *= left[c];
                    s_delta[at + c] *= left[c];
                    left[c] *= decays[at + c];
                }
            }
            let of = Sources { block: (h, from, len), left: &left, u: s_u, b: s_b, delta: s_delta };
            of.advance(dims, (&psi[b * j..], streams * j), traces);
            for side in &mut *sides {
                of.advance(dims, (&side.rhs[b * j..], streams * j), side.traces);
            }
        }
    }
}

/// Sources of a block of channels of a head, each times the decays after its step: `[K, N, len]`.
struct Sources<'a, T> {
    /// Head, first channel in it, channels.
    block: (usize, usize, usize),
    /// What is left of a trace at the chunk's end: `[N, len]`.
    left: &'a [T],
    u: &'a [T],
    b: &'a [T],
    delta: &'a [T],
}

impl<T: Real> Sources<'_, T> {
    /// Advances the block's traces; rows of the right-hand side are `stride` apart.
    fn advance(&self, dims: &Dims, (rhs, stride): (&[T], usize), traces: &mut Traces<T>) {
        let &Dims { inputs: j, channels: d, state: n, delta_inputs: jd, .. } = dims;
        let (p, (h, from, len)) = (dims.per_head(), self.block);
        let cells = n * len;
        let steps = self.u.len() / cells;
        let source = (rhs, View::strided(steps, j, stride));
        let group = (&rhs[dims.delta_offset(h)..], View::strided(steps, jd, stride));
        let rows = View::strided(steps, len, cells).t();
        for k in 0..n {
            for i in 0..len {
                let (cell, at) = (k * len + i, k * d + h * p + from + i);
                scale(self.left[cell], &mut traces.u[at * j..][..j]);
                scale(self.left[cell], &mut traces.b[at * j..][..j]);
                scale(self.left[cell], &mut traces.delta[((h * n + k) * p + from + i) * jd..][..jd]);
            }
            let at = k * d + h * p + from;
            matmul((&mut traces.u[at * j..], View::new(len, j)), (&self.u[k * len..], rows), source, T::one());
            matmul((&mut traces.b[at * j..], View::new(len, j)), (&self.b[k * len..], rows), source, T::one());
            let trace = &mut traces.delta[((h * n + k) * p + from) * jd..];
            matmul((trace, View::new(len, jd)), (&self.delta[k * len..], rows), group, T::one());
        }
    }
}
