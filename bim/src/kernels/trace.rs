//! Eligibility traces (paper eqs. 7, 8), advanced once per chunk.
//!
//! `E` traces are `∂h/∂θ`, `F` traces `∂V/∂θ`. Every one obeys `E ← decay·E + source`; over a chunk that is
//! `E ← (Π decay) E + Sᵀ Ψ`, one matrix product, where row `t` of `S` is the source's coefficient times the decays of the
//! steps after `t`. For the membrane's traces that scan is the reverse pass itself with a unit adjoint on every neuron, kept
//! apart by channel because the recurrence is diagonal.

use super::lanes::{LANES, Lane, blocks, load, store};
use super::matmul::{View, matmul};
use super::neuron::Neuron;
use super::scan::{
    Adjoint, Dynamics, DynamicsGrads, ScanTape, Scratch, Span, Step, decay_slow, rate_slow, states_slow,
};
use super::{Decay, Dims, Real, axpy};

/// Traces of one stream and layer. `J'` is `delta_inputs`; rows of `[N, D]` run over states, then channels.
#[derive(Clone, Debug)]
pub struct Traces<T> {
    /// `∂h_{n,d}/∂W_u[d, j]`: `[H, N, J]` with a decay per head (the same for all `d` of a head), else `[N, D, J]`.
    pub u: Vec<T>,
    /// `∂h_{n,d}/∂W_B[n, j]`: `[D, J]` with a decay per head (the same for all `n`), else `[N, D, J]`.
    pub b: Vec<T>,
    /// `∂h_{n,d}/∂W_Δ[h(d), j]`: `[H, N, P, J']`.
    pub delta: Vec<T>,
    /// `∂h_{n,d}/∂b_Δ`: `[N, D]`.
    pub bias: Vec<T>,
    /// `∂h_{n,d}/∂A_log` (of its head, or its own): `[N, D]`.
    pub a_log: Vec<T>,
    /// The membrane's, where they are carried.
    pub membrane: Option<MembraneTraces<T>>,
}

/// Traces through `LIF_out` of one stream and layer.
#[derive(Clone, Debug)]
pub struct MembraneTraces<T> {
    /// `∂V_d/∂W_u[d, j]`: `[D, J]`.
    pub u: Vec<T>,
    /// `∂V_d/∂W_B[n, j]`: `[N, D, J]`.
    pub b: Vec<T>,
    /// `∂V_d/∂W_C[n, j]`: `[N, D, J]`.
    pub c: Vec<T>,
    /// `∂V_d/∂W_Δ[h(d), j]`: `[D, J']`.
    pub delta: Vec<T>,
    /// `∂V_d/∂b_Δ`: `[D]`.
    pub bias: Vec<T>,
    /// `∂V_d/∂A_log`: `[D]` with a decay per head, else `[N, D]`.
    pub a_log: Vec<T>,
    /// `∂V_d/∂D_d`: `[D]`.
    pub skip: Vec<T>,
    /// `∂V_d/∂I_d`: `[D]`.
    pub current: Vec<T>,
}

/// Gradients of one layer that traces contribute to; slices are added to.
#[derive(Debug)]
pub struct CreditGrads<'a, T> {
    /// `W_u`, `W_B`, `W_C` stacked: `[D + 2N, J]`.
    pub projection: &'a mut [T],
    /// `W_Δ`: `[H, J']`.
    pub delta: &'a mut [T],
    /// The dynamics.
    pub dynamics: &'a mut DynamicsGrads<T>,
}

impl<T: Real> Traces<T> {
    /// No history.
    #[must_use]
    pub fn new(dims: &Dims, with_membrane: bool) -> Self {
        let &Dims { inputs: j, channels: d, state: n, heads: h, delta_inputs: jd, decay } = dims;
        let zeros = |len| vec![T::zero(); len];
        let (u, b, a_log) = match decay {
            Decay::Head => (h * n * j, d * j, d),
            Decay::ChannelState => (n * d * j, n * d * j, n * d),
        };
        Self {
            u: zeros(u),
            b: zeros(b),
            delta: zeros(n * d * jd),
            bias: zeros(n * d),
            a_log: zeros(n * d),
            membrane: with_membrane.then(|| MembraneTraces {
                u: zeros(d * j),
                b: zeros(n * d * j),
                c: zeros(n * d * j),
                delta: zeros(d * jd),
                bias: zeros(d),
                a_log: zeros(a_log),
                skip: zeros(d),
                current: zeros(d),
            }),
        }
    }

    /// The traces by name, in a fixed order: for checkpoints and for counting bytes.
    pub fn named(&self) -> Vec<(&'static str, &Vec<T>)> {
        let mut all =
            vec![("u", &self.u), ("b", &self.b), ("delta", &self.delta), ("bias", &self.bias), ("a_log", &self.a_log)];
        if let Some(m) = &self.membrane {
            all.extend([("v_u", &m.u), ("v_b", &m.b), ("v_c", &m.c), ("v_delta", &m.delta), ("v_bias", &m.bias)]);
            all.extend([("v_a_log", &m.a_log), ("v_skip", &m.skip), ("v_current", &m.current)]);
        }
        all
    }

    /// The same, mutable.
    pub fn named_mut(&mut self) -> Vec<(&'static str, &mut Vec<T>)> {
        let mut all = vec![
            ("u", &mut self.u),
            ("b", &mut self.b),
            ("delta", &mut self.delta),
            ("bias", &mut self.bias),
            ("a_log", &mut self.a_log),
        ];
        if let Some(m) = &mut self.membrane {
            all.extend([("v_u", &mut m.u), ("v_b", &mut m.b), ("v_c", &mut m.c), ("v_delta", &mut m.delta)]);
            all.extend([("v_bias", &mut m.bias), ("v_a_log", &mut m.a_log), ("v_skip", &mut m.skip)]);
            all.push(("v_current", &mut m.current));
        }
        all
    }

    /// Forgets everything: a new recording begins.
    pub fn reset(&mut self) {
        for (_, trace) in self.named_mut() {
            trace.fill(T::zero());
        }
    }
}

/// Adds the credit of stream `b` that reaches back before the window: the adjoints at its start contracted with the traces
/// as they stood there (eq. 8).
pub fn contract<T: Real>(dims: &Dims, traces: &Traces<T>, adjoint: &Adjoint<T>, b: usize, grads: &mut CreditGrads<T>) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay } = dims;
    let p = dims.per_head();
    let one = T::one();
    let (du, dbc) = grads.projection.split_at_mut(d * j);
    let (db, dc) = dbc.split_at_mut(n * j);
    let lambda_h = &adjoint.h[b * n * d..][..n * d];
    for h in 0..heads {
        let block = &traces.delta[h * n * p * jd..][..n * p * jd];
        let out = &mut grads.delta[h * jd..][..jd];
        for k in 0..n {
            let row = &lambda_h[k * d + h * p..][..p];
            for (i, &l) in row.iter().enumerate() {
                axpy(l, &block[(k * p + i) * jd..][..jd], out);
            }
        }
    }
    match decay {
        Decay::Head => {
            for h in 0..heads {
                // λ_h restricted to the head's channels, [N, P] with row stride D
                let lambda = (&lambda_h[h * p..], View::strided(n, p, d).t());
                let trace = (&traces.u[h * n * j..], View::new(n, j));
                matmul((&mut du[h * p * j..], View::new(p, j)), lambda, trace, one);
            }
            matmul((db, View::new(n, j)), (lambda_h, View::new(n, d)), (&traces.b, View::new(d, j)), one);
        }
        Decay::ChannelState => {
            for k in 0..n {
                for i in 0..d {
                    let (l, at) = (lambda_h[k * d + i], (k * d + i) * j);
                    axpy(l, &traces.u[at..at + j], &mut du[i * j..][..j]);
                    axpy(l, &traces.b[at..at + j], &mut db[k * j..][..j]);
                }
            }
        }
    }
    let dynamics = &mut *grads.dynamics;
    for k in 0..n {
        for i in 0..d {
            let at = k * d + i;
            dynamics.bias[i / p] += lambda_h[at] * traces.bias[at];
            dynamics.a_log[if decay == Decay::Head { i / p } else { at }] += lambda_h[at] * traces.a_log[at];
        }
    }
    let Some(m) = &traces.membrane else { return };
    let lambda_v = &adjoint.v[b * d..][..d];
    for (i, &lambda) in lambda_v.iter().enumerate() {
        axpy(lambda, &m.u[i * j..][..j], &mut du[i * j..][..j]);
        axpy(lambda, &m.delta[i * jd..][..jd], &mut grads.delta[i / p * jd..][..jd]);
        dynamics.bias[i / p] += lambda * m.bias[i];
        dynamics.skip[i] += lambda * m.skip[i];
        dynamics.current[i] += lambda * m.current[i];
        match decay {
            Decay::Head => dynamics.a_log[i / p] += lambda * m.a_log[i],
            Decay::ChannelState => {
                for at in (i..n * d).step_by(d) {
                    dynamics.a_log[at] += lambda * m.a_log[at];
                }
            }
        }
    }
    for k in 0..n {
        let lambda = (lambda_v, View::new(1, d));
        matmul((&mut db[k * j..], View::new(1, j)), lambda, (&m.b[k * d * j..], View::new(d, j)), one);
        matmul((&mut dc[k * j..], View::new(1, j)), lambda, (&m.c[k * d * j..], View::new(d, j)), one);
    }
}

/// Advances all traces of stream `b` over the first `span.steps` rows of the window, and `tape.h0` with them; `psi` is
/// `[lag + K, streams, J]`. Membrane traces need a window without lag.
pub fn advance<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &Dynamics<T>,
    span: Span,
    tape: &mut ScanTape<T>,
    psi: &[T],
    b: usize,
    traces: &mut Traces<T>,
    scratch: &mut Scratch<T>,
) {
    // the membrane's traces read the state's traces as they stood at the chunk's start
    if traces.membrane.is_some() {
        advance_membrane(dims, neuron, dynamics, span, tape, psi, b, traces);
    }
    match dims.decay {
        Decay::Head => advance_per_head(dims, dynamics, span, tape, psi, b, traces, scratch),
        Decay::ChannelState => advance_per_state(dims, dynamics, span, tape, psi, b, traces, scratch),
    }
}

/// Columns up to which a trace is advanced without a library's product.
const NARROW: usize = 4 * LANES;

/// A decay per head. All three traces share the right-hand side `Ψ`; their rows are built a head at a time, so that they
/// are still in cache when the product reads them.
fn advance_per_head<T: Real>(
    dims: &Dims,
    dynamics: &Dynamics<T>,
    span: Span,
    tape: &mut ScanTape<T>,
    psi: &[T],
    b: usize,
    traces: &mut Traces<T>,
    scratch: &mut Scratch<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, .. } = dims;
    let (p, width, Span { streams, steps, .. }) = (dims.per_head(), dims.projected(), span);
    let rows_u = steps * n;
    let wide = jd > NARROW;
    let needed = rows_u + steps * p * if wide { 2 } else { 1 };
    if scratch.source.len() < needed {
        scratch.source.resize(needed, T::zero());
    }
    scratch.steps.resize(steps, Step::default());
    let times = &mut scratch.steps[..steps];
    let tiles = if wide { 0 } else { jd.div_ceil(LANES) };
    scratch.lanes.resize(steps * (1 + tiles), [T::zero(); LANES]);
    let (s_delta, psi_lanes) = scratch.lanes[..steps * (1 + tiles)].split_at_mut(steps);
    let (s_u, rest) = scratch.source.split_at_mut(rows_u);
    let (s_b, s_wide) = rest.split_at_mut(steps * p);
    let psi = &psi[b * j..];
    let source = (psi, View::strided(steps, j, streams * j));
    for h in 0..heads {
        let rate = dynamics.a_log[h].exp();
        let mut left = T::one(); // Π of the decays after a step
        for t in (0..steps).rev() {
            let row = t * streams + b;
            let (delta, a) = (tape.delta[row * heads + h], tape.a[row * heads + h]);
            let weight = left * delta;
            times[t] = Step {
                a,
                delta,
                decay: -rate * a,                          // ∂a/∂Δ
                slope: (T::one() - (-delta).exp()) * left, // σ'(z) times what is left of it at the chunk's end
                weighted_decay: -weight * rate * a,
            };
            let u = &tape.p[row * width + h * p..][..p];
            for (s, &u) in s_b[t * p..].iter_mut().zip(u) {
                *s = weight * u;
            }
            for (s, &b) in s_u[t * n..].iter_mut().zip(&tape.p[row * width + d..][..n]) {
                *s = weight * b;
            }
            left *= a;
        }
        if !wide {
            let from = dims.delta_offset(h);
            for ((at, len), lanes) in blocks(jd).zip(psi_lanes.chunks_exact_mut(steps)) {
                for (t, lane) in lanes.iter_mut().enumerate() {
                    *lane = load(psi, t * streams * j + from + at, len);
                }
            }
        }
        for k in 0..n {
            for (from, len) in blocks(p) {
                let at = k * d + h * p + from;
                let mut state = load(&tape.h0, b * n * d + at, len);
                let (mut bias, mut a_log) = (load(&traces.bias, at, len), load(&traces.a_log, at, len));
                for i in 0..LANES {
                    bias[i] *= left;
                    a_log[i] *= left;
                }
                for (t, step) in times.iter().enumerate() {
                    let row = (t * streams + b) * width;
                    let u = load(&tape.p, row + h * p + from, len);
                    let bk = tape.p[row + d + k];
                    let mut out = [T::zero(); LANES];
                    for i in 0..LANES {
                        out[i] = step.slope * step.decay.mul_add(state[i], bk * u[i]);
                    }
                    for i in 0..LANES {
                        bias[i] += out[i];
                    }
                    for i in 0..LANES {
                        a_log[i] = step.weighted_decay.mul_add(state[i], a_log[i]);
                    }
                    for i in 0..LANES {
                        state[i] = step.a.mul_add(state[i], bk * (step.delta * u[i])); // as the forward pass rounds it
                    }
                    s_delta[t] = out;
                }
                let rows = &mut traces.delta[((h * n + k) * p + from) * jd..][..len * jd];
                if wide {
                    for (t, s) in s_delta.iter().enumerate() {
                        store(s_wide, t * p + from, len, s);
                    }
                } else {
                    advance_rows(rows, jd, left, s_delta, psi_lanes);
                }
                store(&mut tape.h0, b * n * d + at, len, &state);
                store(&mut traces.bias, at, len, &bias);
                store(&mut traces.a_log, at, len, &a_log);
            }
            if wide {
                let rows = (&mut traces.delta[(h * n + k) * p * jd..], View::new(p, jd));
                let group = (&psi[dims.delta_offset(h)..], View::strided(steps, jd, streams * j));
                matmul(rows, (s_wide, View::new(steps, p).t()), group, left);
            }
        }
        let decayed = |rows: usize, columns: usize| (View::new(rows, columns), left);
        let (view, keep) = decayed(n, j);
        matmul((&mut traces.u[h * n * j..], view), (s_u, View::new(steps, n).t()), source, keep);
        let (view, keep) = decayed(p, j);
        matmul((&mut traces.b[h * p * j..], view), (s_b, View::new(steps, p).t()), source, keep);
    }
}

/// `E ← left · E + Sᵀ Ψ` for the rows of one block of channels, `[len, columns]`, with the block's `S` `[steps, LANES]` still
/// in the first-level cache and `Ψ` as blocks of columns, `[blocks, steps, LANES]`. A library's product would pack `S` first,
/// which for few columns costs as much as the product.
fn advance_rows<T: Real>(rows: &mut [T], columns: usize, left: T, s: &[Lane<T>], psi: &[Lane<T>]) {
    let len = rows.len() / columns;
    let zero = [T::zero(); LANES];
    for ((at, width), psi) in blocks(columns).zip(psi.chunks_exact(s.len())) {
        // loops of fixed length, so that the sums stay in registers
        let mut sum = [zero; LANES];
        for r in 0..LANES {
            let row = if r < len { load(rows, r * columns + at, width) } else { zero };
            for i in 0..LANES {
                sum[r][i] = left * row[i];
            }
        }
        for (s, psi) in s.iter().zip(psi) {
            for r in 0..LANES {
                for i in 0..LANES {
                    sum[r][i] = s[r].mul_add(psi[i], sum[r][i]);
                }
            }
        }
        for r in 0..LANES {
            if r < len {
                store(rows, r * columns + at, width, &sum[r]);
            }
        }
    }
}

/// A decay per channel and state: nothing is shared, every trace has a row per state.
fn advance_per_state<T: Real>(
    dims: &Dims,
    dynamics: &Dynamics<T>,
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
                let slope = T::one() - (-delta).exp();
                let u = &tape.p[row * width + h * p + from..][..len];
                let b_row = &tape.p[row * width + d..][..n];
                for k in 0..n {
                    let at = k * d + h * p + from;
                    let state = &mut tape.h0[b * n * d + at..][..len];
                    for i in 0..len {
                        let rate = dynamics.a_log[at + i].exp_fast();
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

fn advance_membrane<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &Dynamics<T>,
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
    let states = states_slow(dims, dynamics, tape, streams, stream, steps);
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
                let (rate, a) = (rate_slow(dims, dynamics, k, i), decay_slow(dims, dynamics, delta, k, i));
                g[at] += dy * c[k];
                s_b[t * n * d + at] = g[at] * delta * u[i];
                s_c[t * n * d + at] = dy * states[(t + 1) * n * d + at];
                through_input += g[at] * b[k];
                let decayed = rate * a * g[at] * states[t * n * d + at];
                through_decay += decayed;
                add_a_log[if form == Decay::Head { i } else { at }] -= delta * decayed;
                g[at] *= a;
            }
            s_u[t * d + i] = dy * dynamics.skip[i] + delta * through_input;
            s_delta[t * d + i] = (u[i] * through_input - through_decay) * (T::one() - (-delta).exp());
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

fn scale<T: Real>(factor: T, v: &mut [T]) {
    for x in v {
        *x *= factor;
    }
}
