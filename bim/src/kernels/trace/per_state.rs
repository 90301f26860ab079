//! Traces with a decay per channel and state (Mamba-1).

use super::{Traces, scale};
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
    scratch: &mut Scratch<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, .. } = dims;
    let (p, width, Span { streams, steps, .. }) = (dims.per_head(), dims.projected(), span);
    let psi = &psi[b * j..];
    let source = (psi, View::strided(steps, j, streams * j));
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
            for k in 0..n {
                for i in 0..len {
                    let (cell, at) = (k * len + i, k * d + h * p + from + i);
                    scale(left[cell], &mut traces.u[at * j..][..j]);
                    scale(left[cell], &mut traces.b[at * j..][..j]);
                    scale(left[cell], &mut traces.delta[((h * n + k) * p + from + i) * jd..][..jd]);
                }
                let rows = View::strided(steps, len, cells).t();
                let at = k * d + h * p + from;
                matmul((&mut traces.u[at * j..], View::new(len, j)), (&s_u[k * len..], rows), source, T::one());
                matmul((&mut traces.b[at * j..], View::new(len, j)), (&s_b[k * len..], rows), source, T::one());
                let group = (&psi[dims.delta_offset(h)..], View::strided(steps, jd, streams * j));
                let trace = &mut traces.delta[((h * n + k) * p + from) * jd..];
                matmul((trace, View::new(len, jd)), (&s_delta[k * len..], rows), group, T::one());
            }
        }
    }
}
