//! Eligibility traces (paper eqs. 7, 8), advanced once per chunk.
//!
//! `E` traces are `∂h/∂θ`, `F` traces `∂V/∂θ`. Every one obeys `E ← decay·E + source`; over a chunk that is
//! `E ← (Π decay) E + Sᵀ Ψ`, one matrix product, where row `t` of `S` is the source's coefficient times the decays of the
//! steps after `t`. For the membrane's traces that scan is the reverse pass itself with a unit adjoint on every neuron, kept
//! apart by channel because the recurrence is diagonal.

mod membrane;
mod per_head;
mod per_state;

use learner::performed;

use super::neuron::Neuron;
use super::scan::{Adjoint, DynamicsGrads, ScanTape, Scratch, Span};
use super::{Decay, Dims, Real, axpy};
use learner::product::{View, matmul};
pub(super) use per_head::Sources;

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

/// A right-hand side beside `ψ`, and traces of the synapses that have it in place of `ψ`: what a parameter in front of `ψ` makes of
/// them ([`super::front`]). They share their sources with the traces of the synapses themselves.
#[derive(Debug)]
pub struct Side<'a, T> {
    /// In place of `ψ`: `[lag + K, streams, J]`.
    pub rhs: &'a [T],
    /// Its traces, of one stream.
    pub traces: &'a mut Traces<T>,
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

    /// No history, and of the synapses alone: those of a [`Side`]. What is not there is empty.
    #[must_use]
    pub fn of_synapses(dims: &Dims, with_membrane: bool) -> Self {
        let all = Self::new(dims, with_membrane);
        let none = Vec::new;
        let membrane =
            all.membrane.map(|m| MembraneTraces { bias: none(), a_log: none(), skip: none(), current: none(), ..m });
        Self { bias: none(), a_log: none(), membrane, ..all }
    }

    /// The traces by name, in a fixed order: for checkpoints and for counting bytes.
    pub fn named(&self) -> Vec<(&'static str, &Vec<T>)> {
        let mut all =
            vec![("u", &self.u), ("b", &self.b), ("delta", &self.delta), ("bias", &self.bias), ("a_log", &self.a_log)];
        if let Some(m) = &self.membrane {
            all.extend([("v_u", &m.u), ("v_b", &m.b), ("v_c", &m.c), ("v_delta", &m.delta), ("v_bias", &m.bias)]);
            all.extend([("v_a_log", &m.a_log), ("v_skip", &m.skip), ("v_current", &m.current)]);
        }
        all.retain(|(_, trace)| !trace.is_empty());
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
        all.retain(|(_, trace)| !trace.is_empty());
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
/// as they stood there (eq. 8). Without `with_steps`, the part through the step sizes is left to [`advance`], which has to read
/// those traces, the largest, anyway.
pub fn contract<T: Real>(
    dims: &Dims,
    traces: &Traces<T>,
    adjoint: &Adjoint<T>,
    b: usize,
    with_steps: bool,
    grads: &mut CreditGrads<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay } = dims;
    let p = dims.per_head();
    let one = T::one();
    let (du, dbc) = grads.projection.split_at_mut(d * j);
    let (db, dc) = dbc.split_at_mut(n * j);
    let lambda_h = &adjoint.h[b * n * d..][..n * d];
    performed::note(2 * n * d); // of b_Δ and A_log
    if with_steps {
        contract_steps(dims, &traces.delta, lambda_h, grads.delta);
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
            performed::note(2 * n * d * j);
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
    performed::note(d * (j + jd + 3) + if decay == Decay::Head { d } else { n * d });
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

/// `∂L/∂W_Δ` through the states before the window: `Σ λ_{n,d} ∂h_{n,d}/∂W_Δ[h(d), j]`.
fn contract_steps<T: Real>(dims: &Dims, traces: &[T], lambda_h: &[T], grads: &mut [T]) {
    let &Dims { channels: d, state: n, delta_inputs: jd, .. } = dims;
    let p = dims.per_head();
    performed::note(n * d * jd);
    for ((h, block), out) in traces.chunks_exact(n * p * jd).enumerate().zip(grads.chunks_exact_mut(jd)) {
        for k in 0..n {
            let row = &lambda_h[k * d + h * p..][..p];
            for (i, &l) in row.iter().enumerate() {
                axpy(l, &block[(k * p + i) * jd..][..jd], out);
            }
        }
    }
}

/// The weights that read `ψ`, behind which a [`Side`] stands.
#[derive(Clone, Copy, Debug)]
pub struct Readers<'a, T> {
    /// `W_u`, `W_B`, `W_C` stacked: `[D + 2N, J]`.
    pub projection: &'a [T],
    /// `W_Δ`: `[H, J']`.
    pub delta: &'a [T],
}

/// Adds to `out`, one sum `[J]` for each of the traces, the credit of stream `b` that reaches a [`Side`]'s parameter through the state
/// before the window: `Σ_i W_ij G_ij`, where `G` is what [`contract`] would make of its traces.
pub fn contract_sides<'a, T: Real>(
    dims: &Dims,
    readers: Readers<'_, T>,
    adjoint: &Adjoint<T>,
    b: usize,
    sides: &[&'a Traces<T>],
    out: &mut [Vec<T>],
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, decay } = dims;
    let (p, each) = (dims.per_head(), sides.len());
    let (w_u, w_bc) = readers.projection.split_at(d * j);
    let (w_b, w_c) = w_bc.split_at(n * j);
    let lambda_h = &adjoint.h[b * n * d..][..n * d];
    // what a row of traces is worth is the same for all of them: the adjoint times the weights
    let mut rows_b = vec![T::zero(); d * j];
    match decay {
        Decay::Head => {
            let mut rows_u = vec![T::zero(); heads * n * j];
            for h in 0..heads {
                let lambda = (&lambda_h[h * p..], View::strided(n, p, d));
                let weights = (&w_u[h * p * j..], View::new(p, j));
                matmul((&mut rows_u[h * n * j..], View::new(n, j)), lambda, weights, T::zero());
            }
            let lambda = (lambda_h, View::new(n, d).t());
            matmul((&mut rows_b, View::new(d, j)), lambda, (w_b, View::new(n, j)), T::zero());
            performed::note(each * (heads * n + d) * j);
            for (traces, out) in sides.iter().zip(&mut *out) {
                add_products(&rows_u, &traces.u, out);
                add_products(&rows_b, &traces.b, out);
            }
        }
        Decay::ChannelState => {
            performed::note(2 * (1 + each) * n * d * j);
            let mut row = vec![T::zero(); j];
            for (at, &lambda) in lambda_h.iter().enumerate() {
                let (k, i) = (at / d, at % d);
                for (weights, of) in [(&w_u[i * j..][..j], 0), (&w_b[k * j..][..j], 1)] {
                    row.iter_mut().zip(weights).for_each(|(x, &w)| *x = lambda * w);
                    for (traces, out) in sides.iter().zip(&mut *out) {
                        let trace = if of == 0 { &traces.u } else { &traces.b };
                        add_products(&row, &trace[at * j..][..j], out);
                    }
                }
            }
        }
    }
    let lambda_v = &adjoint.v[b * d..][..d];
    performed::note(each * heads * jd);
    for (traces, out) in sides.iter().zip(&mut *out) {
        let mut wanted = vec![T::zero(); heads * jd];
        contract_steps(dims, &traces.delta, lambda_h, &mut wanted);
        if let Some(m) = &traces.membrane {
            performed::note(d * jd);
            for (i, &lambda) in lambda_v.iter().enumerate() {
                axpy(lambda, &m.delta[i * jd..][..jd], &mut wanted[i / p * jd..][..jd]);
            }
        }
        for h in 0..heads {
            let out = &mut out[dims.delta_offset(h)..][..jd];
            add_products(&wanted[h * jd..][..jd], &readers.delta[h * jd..][..jd], out);
        }
    }
    if sides.iter().all(|traces| traces.membrane.is_none()) {
        return;
    }
    performed::note((1 + each) * (1 + 2 * n) * d * j);
    let mut row = vec![T::zero(); j];
    for (i, &lambda) in lambda_v.iter().enumerate() {
        let mut worth = |weights: &[T], of: &dyn Fn(&'a MembraneTraces<T>) -> &'a [T]| {
            row.iter_mut().zip(weights).for_each(|(x, &w)| *x = lambda * w);
            for (membrane, out) in sides.iter().filter_map(|traces| traces.membrane.as_ref()).zip(&mut *out) {
                add_products(&row, of(membrane), out);
            }
        };
        worth(&w_u[i * j..][..j], &|m| &m.u[i * j..][..j]);
        for k in 0..n {
            let at = (k * d + i) * j;
            worth(&w_b[k * j..][..j], &|m| &m.b[at..at + j]);
            worth(&w_c[k * j..][..j], &|m| &m.c[at..at + j]);
        }
    }
}

/// `out[j] ← out[j] + Σ_r a[r, j] b[r, j]` over rows as long as `out`.
fn add_products<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    let len = out.len();
    for (a, b) in a.chunks_exact(len).zip(b.chunks_exact(len)) {
        for i in 0..len {
            out[i] = a[i].mul_add(b[i], out[i]);
        }
    }
}

/// What [`advance`] needs to add the credit through the step sizes on its way.
#[derive(Debug)]
pub struct StepCredit<'a, T> {
    /// `∂L/∂h` at the window's start, of one stream: `[N, D]`.
    pub adjoint: &'a [T],
    /// Gradient of `W_Δ`: `[H, J']`.
    pub delta: &'a mut [T],
}

/// Advances all traces of stream `b` over the first `span.steps` rows of the window, and `tape.h0` with them; `psi` is
/// `[lag + K, streams, J]`. Membrane traces need a window without lag. With `credit`, the state's adjoint `[N, D]` at the
/// window's start and the gradient of `W_Δ` `[H, J']`, adds the credit through the step sizes that [`contract`] left out. The traces of
/// `sides` have other right-hand sides and advance with them.
pub fn advance<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    span: Span,
    tape: &mut ScanTape<T>,
    psi: &[T],
    b: usize,
    traces: &mut Traces<T>,
    sides: &mut [Side<'_, T>],
    credit: Option<StepCredit<T>>,
    scratch: &mut Scratch<T>,
) {
    // the membrane's traces read the state's traces as they stood at the chunk's start
    if traces.membrane.is_some() {
        membrane::advance(dims, neuron, span, tape, psi, b, traces, sides);
    }
    match dims.decay {
        Decay::Head => per_head::advance(dims, span, tape, psi, b, traces, sides, credit, scratch),
        Decay::ChannelState => {
            if let Some(StepCredit { adjoint, delta }) = credit {
                contract_steps(dims, &traces.delta, adjoint, delta);
            }
            per_state::advance(dims, span, tape, psi, b, traces, sides, scratch);
        }
    }
}

fn scale<T: Real>(factor: T, v: &mut [T]) {
    for x in v {
        *x *= factor;
    }
}
