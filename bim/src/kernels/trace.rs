//! Eligibility traces (paper eqs. 7, 8), advanced once per chunk.
//!
//! `E` traces are `∂h/∂θ`, `F` traces `∂V/∂θ`. Every one obeys `E ← decay·E + source`; over a chunk that is
//! `E ← (Π decay) E + Sᵀ Ψ`, one matrix product, where row `t` of `S` is the source's coefficient times the decays of the
//! steps after `t`: a reverse scan. For the membrane's traces that scan is the reverse pass itself with a unit adjoint on
//! every neuron, kept apart by channel because the recurrence is diagonal.

use super::matmul::{View, matmul};
use super::neuron::Neuron;
use super::scan::{Adjoint, ScanTape, split_dynamics};
use super::{Dims, Real};

/// Traces of one stream and layer. `J'` is `delta_inputs`.
#[derive(Clone, Debug)]
pub struct Traces<T> {
    /// `∂h_{n,d}/∂W_u[d, j]`, the same for all `d` of a head: `[H, N, J]`.
    pub u: Vec<T>,
    /// `∂h_{n,d}/∂W_B[n, j]`, the same for all `n`: `[D, J]`.
    pub b: Vec<T>,
    /// `∂h_{n,d}/∂W_Δ[h(d), j]`: `[H, N, P, J']`.
    pub delta: Vec<T>,
    /// `∂h_{n,d}/∂b_Δ`: `[N, D]`.
    pub bias: Vec<T>,
    /// `∂h_{n,d}/∂A_log`: `[N, D]`.
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
    /// `∂V_d/∂A_log`: `[D]`.
    pub a_log: Vec<T>,
    /// `∂V_d/∂D_d`: `[D]`.
    pub skip: Vec<T>,
}

/// Gradients of one layer's synapses and dynamics that traces contribute to.
#[derive(Clone, Debug)]
pub struct CreditGrads<T> {
    /// `W_u`, `W_B`, `W_C` stacked: `[D + 2N, J]`.
    pub projection: Vec<T>,
    /// `W_Δ`: `[H, J']`.
    pub delta: Vec<T>,
    /// `b_Δ`, `A_log`, skip: `[2H + D]`.
    pub dynamics: Vec<T>,
}

impl<T: Real> CreditGrads<T> {
    /// All zero.
    #[must_use]
    pub fn zero(dims: &Dims) -> Self {
        Self {
            projection: vec![T::zero(); dims.projected() * dims.inputs],
            delta: vec![T::zero(); dims.heads * dims.delta_inputs],
            dynamics: vec![T::zero(); dims.dynamics()],
        }
    }

    /// Adds another set, element by element.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in [
            (&mut self.projection, &other.projection),
            (&mut self.delta, &other.delta),
            (&mut self.dynamics, &other.dynamics),
        ] {
            a.iter_mut().zip(b).for_each(|(a, &b)| *a += b);
        }
    }
}

impl<T: Real> Traces<T> {
    /// No history.
    #[must_use]
    pub fn new(dims: &Dims, with_membrane: bool) -> Self {
        let &Dims { inputs: j, channels: d, state: n, heads: h, delta_inputs: jd } = dims;
        let zeros = |len| vec![T::zero(); len];
        Self {
            u: zeros(h * n * j),
            b: zeros(d * j),
            delta: zeros(n * d * jd),
            bias: zeros(n * d),
            a_log: zeros(n * d),
            membrane: with_membrane.then(|| MembraneTraces {
                u: zeros(d * j),
                b: zeros(n * d * j),
                c: zeros(n * d * j),
                delta: zeros(d * jd),
                bias: zeros(d),
                a_log: zeros(d),
                skip: zeros(d),
            }),
        }
    }

    /// The traces by name, in a fixed order: for checkpoints and for counting bytes.
    pub fn named(&self) -> Vec<(&'static str, &Vec<T>)> {
        let mut all =
            vec![("u", &self.u), ("b", &self.b), ("delta", &self.delta), ("bias", &self.bias), ("a_log", &self.a_log)];
        if let Some(m) = &self.membrane {
            all.extend([("v_u", &m.u), ("v_b", &m.b), ("v_c", &m.c), ("v_delta", &m.delta)]);
            all.extend([("v_bias", &m.bias), ("v_a_log", &m.a_log), ("v_skip", &m.skip)]);
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

/// Adds the credit that reaches back before the chunk: the adjoints at its start contracted with the traces as they stood
/// there (eq. 8).
pub fn contract<T: Real>(dims: &Dims, traces: &Traces<T>, adjoint: &Adjoint<T>, grads: &mut CreditGrads<T>) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd } = dims;
    let p = dims.per_head();
    let one = T::one();
    let (du, dbc) = grads.projection.split_at_mut(d * j);
    let (db, dc) = dbc.split_at_mut(n * j);
    for h in 0..heads {
        // λ_h restricted to the head's channels, [N, P] with row stride D
        let lambda = (&adjoint.h[h * p..], View::strided(n, p, d).t());
        matmul((&mut du[h * p * j..], View::new(p, j)), lambda, (&traces.u[h * n * j..], View::new(n, j)), one);
        let block = &traces.delta[h * n * p * jd..][..n * p * jd];
        let out = &mut grads.delta[h * jd..][..jd];
        for k in 0..n {
            let row = &adjoint.h[k * d + h * p..][..p];
            matmul((out, View::new(1, jd)), (row, View::new(1, p)), (&block[k * p * jd..], View::new(p, jd)), one);
        }
    }
    matmul((db, View::new(n, j)), (&adjoint.h, View::new(n, d)), (&traces.b, View::new(d, j)), one);
    let (d_bias, rest) = grads.dynamics.split_at_mut(heads);
    let (d_a_log, d_skip) = rest.split_at_mut(heads);
    for k in 0..n {
        for i in 0..d {
            d_bias[i / p] += adjoint.h[k * d + i] * traces.bias[k * d + i];
            d_a_log[i / p] += adjoint.h[k * d + i] * traces.a_log[k * d + i];
        }
    }
    let Some(m) = &traces.membrane else { return };
    for i in 0..d {
        let lambda = adjoint.v[i];
        axpy(lambda, &m.u[i * j..][..j], &mut du[i * j..][..j]);
        axpy(lambda, &m.delta[i * jd..][..jd], &mut grads.delta[i / p * jd..][..jd]);
        d_bias[i / p] += lambda * m.bias[i];
        d_a_log[i / p] += lambda * m.a_log[i];
        d_skip[i] += lambda * m.skip[i];
    }
    for k in 0..n {
        let lambda = (&adjoint.v[..], View::new(1, d));
        matmul((&mut db[k * j..], View::new(1, j)), lambda, (&m.b[k * d * j..], View::new(d, j)), one);
        matmul((&mut dc[k * j..], View::new(1, j)), lambda, (&m.c[k * d * j..], View::new(d, j)), one);
    }
}

/// Advances all traces over the chunk on the tape; `psi` is `[K, J]`.
pub fn advance<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &[T],
    tape: &ScanTape<T>,
    psi: &[T],
    traces: &mut Traces<T>,
) {
    // the membrane's traces read the state's traces as they stood at the chunk's start
    if traces.membrane.is_some() {
        advance_membrane(dims, neuron, dynamics, tape, psi, traces);
    }
    advance_state(dims, dynamics, tape, psi, traces);
}

fn advance_state<T: Real>(dims: &Dims, dynamics: &[T], tape: &ScanTape<T>, psi: &[T], traces: &mut Traces<T>) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd } = dims;
    let (p, width, steps) = (dims.per_head(), dims.projected(), tape.steps);
    let (_, a_log, _) = split_dynamics(dims, dynamics);
    // suffix[h] = Π of the decays after step t; after the loop, of the whole chunk
    let mut suffix = vec![T::one(); heads];
    let mut s_u = vec![T::zero(); steps * heads * n];
    let mut s_b = vec![T::zero(); steps * d];
    let mut s_delta = vec![T::zero(); steps * n * d]; // [K, H, N, P]
    let (mut add_bias, mut add_a_log) = (vec![T::zero(); n * d], vec![T::zero(); n * d]);
    for t in (0..steps).rev() {
        let (u, bc) = tape.p[t * width..][..width].split_at(d);
        let b = &bc[..n];
        for h in 0..heads {
            let (delta, a) = (tape.delta[t * heads + h], tape.a[t * heads + h]);
            let decay = a_log[h].exp() * a; // −∂a/∂Δ
            let slope = (T::one() - (-delta).exp()) * suffix[h]; // σ'(z) times what is left of it at the chunk's end
            for k in 0..n {
                s_u[(t * heads + h) * n + k] = suffix[h] * delta * b[k];
                let row = &mut s_delta[((t * heads + h) * n + k) * p..][..p];
                let at = k * d + h * p;
                let h_tm1 = &tape.h[t * n * d + at..][..p];
                for i in 0..p {
                    row[i] = (b[k] * u[h * p + i] - decay * h_tm1[i]) * slope;
                    add_bias[at + i] += row[i];
                    add_a_log[at + i] -= suffix[h] * delta * decay * h_tm1[i];
                }
            }
            for i in h * p..(h + 1) * p {
                s_b[t * d + i] = suffix[h] * delta * u[i];
            }
            suffix[h] *= a;
        }
    }
    let source = (psi, View::new(steps, j));
    for h in 0..heads {
        scale(suffix[h], &mut traces.u[h * n * j..][..n * j]);
        scale(suffix[h], &mut traces.b[h * p * j..][..p * j]);
        let block = &mut traces.delta[h * n * p * jd..][..n * p * jd];
        scale(suffix[h], block);
        let rows = View::strided(steps, n * p, n * d).t();
        let group = (&psi[dims.delta_offset(h)..], View::strided(steps, jd, j));
        matmul((block, View::new(n * p, jd)), (&s_delta[h * n * p..], rows), group, T::one());
        for k in 0..n {
            let at = k * d + h * p;
            for i in at..at + p {
                traces.bias[i] = suffix[h] * traces.bias[i] + add_bias[i];
                traces.a_log[i] = suffix[h] * traces.a_log[i] + add_a_log[i];
            }
        }
    }
    matmul((&mut traces.u, View::new(heads * n, j)), (&s_u, View::new(steps, heads * n).t()), source, T::one());
    matmul((&mut traces.b, View::new(d, j)), (&s_b, View::new(steps, d).t()), source, T::one());
}

fn advance_membrane<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &[T],
    tape: &ScanTape<T>,
    psi: &[T],
    traces: &mut Traces<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd } = dims;
    let (p, width, steps) = (dims.per_head(), dims.projected(), tape.steps);
    let (_, a_log, skip) = split_dynamics(dims, dynamics);
    let Traces { u: e_u, b: e_b, delta: e_delta, bias: e_bias, a_log: e_a_log, membrane: Some(m) } = traces else {
        return;
    };
    // r = ∂V_end/∂V_t and g = ∂V_end/∂h_t, both per channel
    let mut r = vec![T::one(); d];
    let mut g = vec![T::zero(); n * d];
    let mut s_u = vec![T::zero(); steps * d];
    let mut s_b = vec![T::zero(); steps * n * d];
    let mut s_c = vec![T::zero(); steps * n * d];
    let mut s_delta = vec![T::zero(); steps * d];
    let (mut add_a_log, mut add_skip) = (vec![T::zero(); d], vec![T::zero(); d]);
    for t in (0..steps).rev() {
        let (u, bc) = tape.p[t * width..][..width].split_at(d);
        let (b, c) = bc.split_at(n);
        for i in 0..d {
            let h = i / p;
            let (delta, a) = (tape.delta[t * heads + h], tape.a[t * heads + h]);
            let decay = a_log[h].exp() * a;
            let dy = neuron.gain * r[i];
            let (mut through_input, mut through_decay) = (T::zero(), T::zero());
            for k in 0..n {
                let at = k * d + i;
                g[at] += dy * c[k];
                s_b[t * n * d + at] = g[at] * delta * u[i];
                s_c[t * n * d + at] = dy * tape.h[(t + 1) * n * d + at];
                through_input += g[at] * b[k];
                through_decay += g[at] * tape.h[t * n * d + at];
                g[at] *= a;
            }
            s_u[t * d + i] = dy * skip[i] + delta * through_input;
            s_delta[t * d + i] = (u[i] * through_input - decay * through_decay) * (T::one() - (-delta).exp());
            add_a_log[i] -= delta * decay * through_decay;
            add_skip[i] += dy * u[i];
            r[i] *= neuron.carry(tape.v[t * d + i]);
        }
    }
    for i in 0..d {
        let h = i / p;
        scale(r[i], &mut m.u[i * j..][..j]);
        scale(r[i], &mut m.delta[i * jd..][..jd]);
        let (mut bias, mut from_a_log) = (T::zero(), T::zero());
        for k in 0..n {
            let at = k * d + i;
            axpy(g[at], &e_u[(h * n + k) * j..][..j], &mut m.u[i * j..][..j]);
            axpy(g[at], &e_delta[((h * n + k) * p + i % p) * jd..][..jd], &mut m.delta[i * jd..][..jd]);
            scale(r[i], &mut m.b[at * j..][..j]);
            axpy(g[at], &e_b[i * j..][..j], &mut m.b[at * j..][..j]);
            scale(r[i], &mut m.c[at * j..][..j]);
            bias += g[at] * e_bias[at];
            from_a_log += g[at] * e_a_log[at];
        }
        let sources: T = (0..steps).map(|t| s_delta[t * d + i]).sum();
        m.bias[i] = r[i] * m.bias[i] + bias + sources;
        m.a_log[i] = r[i] * m.a_log[i] + from_a_log + add_a_log[i];
        m.skip[i] = r[i] * m.skip[i] + add_skip[i];
    }
    let source = (psi, View::new(steps, j));
    matmul((&mut m.u, View::new(d, j)), (&s_u, View::new(steps, d).t()), source, T::one());
    matmul((&mut m.b, View::new(n * d, j)), (&s_b, View::new(steps, n * d).t()), source, T::one());
    matmul((&mut m.c, View::new(n * d, j)), (&s_c, View::new(steps, n * d).t()), source, T::one());
    for h in 0..heads {
        let group = (&psi[dims.delta_offset(h)..], View::strided(steps, jd, j));
        let rows = View::strided(steps, p, d).t();
        matmul((&mut m.delta[h * p * jd..], View::new(p, jd)), (&s_delta[h * p..], rows), group, T::one());
    }
}

fn scale<T: Real>(factor: T, v: &mut [T]) {
    for x in v {
        *x *= factor;
    }
}

fn axpy<T: Real>(factor: T, x: &[T], y: &mut [T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
}
