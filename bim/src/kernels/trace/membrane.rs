//! Traces through `LIF_out`: `∂V/∂θ`.

use learner::performed;

use super::{Traces, scale};
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
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay: form } = dims;
    let (p, width, Span { streams, steps, .. }) = (dims.per_head(), dims.projected(), span);
    let Traces { u: e_u, b: e_b, delta: e_delta, bias: e_bias, a_log: e_a_log, membrane: Some(m) } = traces else {
        return;
    };
    // its own sources (3), and the state's traces weighted into its own
    performed::note(n * d * (3 * steps + 2 * j + jd + 2));
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
        let h = i / p;
        scale(r[i], &mut m.u[i * j..][..j]);
        scale(r[i], &mut m.delta[i * jd..][..jd]);
        let (mut bias, mut from_a_log) = (T::zero(), T::zero());
        for k in 0..n {
            let at = k * d + i;
            let e_u_row = if form == Decay::Head { h * n + k } else { at };
            let e_b_row = if form == Decay::Head { i } else { at };
            axpy(g[at], &e_u[e_u_row * j..][..j], &mut m.u[i * j..][..j]);
            axpy(g[at], &e_delta[((h * n + k) * p + i % p) * jd..][..jd], &mut m.delta[i * jd..][..jd]);
            scale(r[i], &mut m.b[at * j..][..j]);
            axpy(g[at], &e_b[e_b_row * j..][..j], &mut m.b[at * j..][..j]);
            scale(r[i], &mut m.c[at * j..][..j]);
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
    let psi = &psi[stream * j..];
    let source = (psi, View::strided(steps, j, streams * j));
    matmul((&mut m.u, View::new(d, j)), (&s_u, View::new(steps, d).t()), source, T::one());
    matmul((&mut m.b, View::new(n * d, j)), (&s_b, View::new(steps, n * d).t()), source, T::one());
    matmul((&mut m.c, View::new(n * d, j)), (&s_c, View::new(steps, n * d).t()), source, T::one());
    for h in 0..heads {
        let group = (&psi[dims.delta_offset(h)..], View::strided(steps, jd, streams * j));
        let rows = View::strided(steps, p, d).t();
        matmul((&mut m.delta[h * p * jd..], View::new(p, jd)), (&s_delta[h * p..], rows), group, T::one());
    }
}
