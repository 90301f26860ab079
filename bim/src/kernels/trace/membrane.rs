//! Traces through `LIF_out`: `∂V/∂θ`.

use learner::performed;

use super::{MembraneTraces, Side, Traces, scale};
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::{ScanTape, Span, rate_slow, softplus_slope, states_slow};
use crate::kernels::{Decay, Dims, Real, axpy};
use learner::product::{View, matmul};

pub(super) fn advance<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    span: Span,
    tape: &ScanTape<T>,
    psi: &[T],
    stream: usize,
    traces: &mut Traces<T>,
    sides: &mut [Side<'_, T>],
) {
    let &Dims { inputs: j, channels: d, state: n, heads, decay: form, .. } = dims;
    let (p, width, Span { streams, steps, .. }) = (dims.per_head(), dims.projected(), span);
    let Traces { bias: e_bias, a_log: e_a_log, membrane: Some(m), .. } = traces else {
        return;
    };
    // its own sources (3), and the state's traces weighted into its own
    performed::note(n * d * (3 * steps + 2));
    let states = states_slow(dims, tape, streams, stream, steps);
    // r = ∂V_end/∂V_t and g = ∂V_end/∂h_t, both per channel
    let mut r = vec![T::one(); d];
    let mut g = vec![T::zero(); n * d];
    let mut s_u = vec![T::zero(); steps * d];
    let mut s_b = vec![T::zero(); steps * n * d];
    let mut s_c = vec![T::zero(); steps * n * d];
    let mut s_delta = vec![T::zero(); steps * d];
    let mut add_a_log = vec![T::zero(); m.a_log.len()];
    let (mut add_skip, mut add_current) = (vec![T::zero(); d], vec![T::zero(); d]);
    for t in (0..steps).rev() {
        let row = t * streams + stream;
        let (u, bc) = tape.p[row * width..][..width].split_at(d);
        let (b, c) = bc.split_at(n);
        for i in 0..d {
            let delta = tape.delta[row * heads + i / p];
            let dy = neuron.gain * r[i];
            let (mut through_input, mut through_decay) = (T::zero(), T::zero());
            for k in 0..n {
                let at = k * d + i;
                let rate = rate_slow(dims, tape, k, i);
                let a = (-delta * rate).exp();
                g[at] += dy * c[k];
                s_b[t * n * d + at] = g[at] * delta * u[i];
                s_c[t * n * d + at] = dy * states[(t + 1) * n * d + at];
                through_input += g[at] * b[k];
                let decayed = rate * a * g[at] * states[t * n * d + at];
                through_decay += decayed;
                add_a_log[if form == Decay::Head { i } else { at }] -= delta * decayed;
                g[at] *= a;
            }
            s_u[t * d + i] = dy * tape.skips[i] + delta * through_input;
            s_delta[t * d + i] = (u[i] * through_input - through_decay) * softplus_slope(delta);
            add_skip[i] += dy * u[i];
            add_current[i] += dy;
            r[i] *= neuron.carry(tape.v[row * d + i]);
        }
    }
    for i in 0..d {
        let (mut bias, mut from_a_log) = (T::zero(), T::zero());
        for k in 0..n {
            let at = k * d + i;
            bias += g[at] * e_bias[at];
            from_a_log += g[at] * e_a_log[at];
            if form == Decay::ChannelState {
                m.a_log[at] = r[i] * m.a_log[at] + g[at] * e_a_log[at] + add_a_log[at];
            }
        }
        let sources: T = (0..steps).map(|t| s_delta[t * d + i]).sum();
        m.bias[i] = r[i] * m.bias[i] + bias + sources;
        if form == Decay::Head {
            m.a_log[i] = r[i] * m.a_log[i] + from_a_log + add_a_log[i];
        }
        m.skip[i] = r[i] * m.skip[i] + add_skip[i];
        m.current[i] = r[i] * m.current[i] + add_current[i];
    }
    let of = Sources { r: &r, g: &g, u: &s_u, b: &s_b, c: &s_c, delta: &s_delta };
    of.advance(dims, (&psi[stream * j..], streams * j), traces);
    for side in sides {
        of.advance(dims, (&side.rhs[stream * j..], streams * j), side.traces);
    }
}

/// What the membrane's traces of the synapses are advanced with, whatever their right-hand side.
struct Sources<'a, T> {
    /// `∂V_end/∂V_start` `[D]`.
    r: &'a [T],
    /// `∂V_end/∂h_start` `[N, D]`.
    g: &'a [T],
    /// Of `W_u`: `[K, D]`.
    u: &'a [T],
    /// Of `W_B`: `[K, N, D]`.
    b: &'a [T],
    /// Of `W_C`: `[K, N, D]`.
    c: &'a [T],
    /// Of `W_Δ`: `[K, D]`.
    delta: &'a [T],
}

impl<T: Real> Sources<'_, T> {
    /// Advances them, from the state's traces as they stood at the chunk's start; rows of the right-hand side are `stride` apart.
    fn advance(&self, dims: &Dims, (rhs, stride): (&[T], usize), traces: &mut Traces<T>) {
        let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay: form } = dims;
        let (p, steps, Self { r, g, .. }) = (dims.per_head(), self.u.len() / d, self);
        let Traces { u: e_u, b: e_b, delta: e_delta, membrane: Some(m), .. } = traces else { return };
        let MembraneTraces { u, b, c, delta, .. } = m;
        performed::note(n * d * (2 * j + jd));
        for i in 0..d {
            let h = i / p;
            scale(r[i], &mut u[i * j..][..j]);
            scale(r[i], &mut delta[i * jd..][..jd]);
            for k in 0..n {
                let at = k * d + i;
                let e_u_row = if form == Decay::Head { h * n + k } else { at };
                let e_b_row = if form == Decay::Head { i } else { at };
                axpy(g[at], &e_u[e_u_row * j..][..j], &mut u[i * j..][..j]);
                axpy(g[at], &e_delta[((h * n + k) * p + i % p) * jd..][..jd], &mut delta[i * jd..][..jd]);
                scale(r[i], &mut b[at * j..][..j]);
                axpy(g[at], &e_b[e_b_row * j..][..j], &mut b[at * j..][..j]);
                scale(r[i], &mut c[at * j..][..j]);
            }
        }
        let source = (rhs, View::strided(steps, j, stride));
        matmul((u, View::new(d, j)), (self.u, View::new(steps, d).t()), source, T::one());
        matmul((b, View::new(n * d, j)), (self.b, View::new(steps, n * d).t()), source, T::one());
        matmul((c, View::new(n * d, j)), (self.c, View::new(steps, n * d).t()), source, T::one());
        for h in 0..heads {
            let group = (&rhs[dims.delta_offset(h)..], View::strided(steps, jd, stride));
            let rows = View::strided(steps, p, d).t();
            matmul((&mut delta[h * p * jd..], View::new(p, jd)), (&self.delta[h * p..], rows), group, T::one());
        }
    }
}
