//! The selective state space with its postsynaptic neurons, forward and reverse over a chunk of one stream.
//!
//! `a_h = exp(-Δ_h e^{A_log,h})`, `h_{n,d} ← a h_{n,d} + Δ B_n u_d` (eq. 1), `y_d = Σ_n C_n h_{n,d} + D_d u_d` (eq. 2),
//! `V_d ← β V_d + (1-β) R y_d − ρ s_d`, `s_d = fire(V_d)` (eq. 3).

use super::neuron::Neuron;
use super::{Dims, Real, dot, softplus};

/// State of one stream: `h` `[N, D]` and `V` `[D]`.
#[derive(Clone, Debug)]
pub struct ScanState<T> {
    /// State-space state.
    pub h: Vec<T>,
    /// Membrane potentials.
    pub v: Vec<T>,
}

impl<T: Real> ScanState<T> {
    /// At rest.
    #[must_use]
    pub fn new(dims: &Dims) -> Self {
        Self { h: vec![T::zero(); dims.state * dims.channels], v: vec![T::zero(); dims.channels] }
    }

    /// Back to rest.
    pub fn reset(&mut self) {
        self.h.fill(T::zero());
        self.v.fill(T::zero());
    }
}

/// The chunk's activations. Row 0 of `h` and `v` is the state before the chunk.
#[derive(Clone, Debug, Default)]
pub struct ScanTape<T> {
    /// Steps, `K`.
    pub steps: usize,
    /// `u`, `B`, `C`: `[K, D + 2N]`.
    pub p: Vec<T>,
    /// `Δ` `[K, H]`.
    pub delta: Vec<T>,
    /// `a` `[K, H]`.
    pub a: Vec<T>,
    /// `[K + 1, N, D]`.
    pub h: Vec<T>,
    /// `[K + 1, D]`.
    pub v: Vec<T>,
}

/// Adjoints of a state: `∂L/∂h` `[N, D]` and `∂L/∂V` `[D]`.
#[derive(Clone, Debug)]
pub struct Adjoint<T> {
    /// Of `h`.
    pub h: Vec<T>,
    /// Of `V`.
    pub v: Vec<T>,
}

impl<T: Real> Adjoint<T> {
    /// No credit.
    #[must_use]
    pub fn zero(dims: &Dims) -> Self {
        Self { h: vec![T::zero(); dims.state * dims.channels], v: vec![T::zero(); dims.channels] }
    }
}

/// Packed dynamics parameters, split: `b_Δ`, `A_log`, skip `D`.
#[must_use]
pub fn split_dynamics<'a, T>(dims: &Dims, packed: &'a [T]) -> (&'a [T], &'a [T], &'a [T]) {
    let (bias, rest) = packed.split_at(dims.heads);
    let (a_log, skip) = rest.split_at(dims.heads);
    (bias, a_log, skip)
}

fn spread<T: Copy>(per_head: &[T], channels: usize, out: &mut [T]) {
    let p = channels / per_head.len();
    for (block, &x) in out.chunks_exact_mut(p).zip(per_head) {
        block.fill(x);
    }
}

/// Runs one stream over a chunk: `p` `[K, D+2N]` and `z` `[K, H]` → spikes `s` `[K, D]`; advances `state`.
/// The activations go to `tape` if there is one.
pub fn forward<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    (p, z, dynamics): (&[T], &[T], &[T]),
    state: &mut ScanState<T>,
    mut tape: Option<&mut ScanTape<T>>,
    s: &mut [T],
) {
    let (d, n, heads, width) = (dims.channels, dims.state, dims.heads, dims.projected());
    let steps = z.len() / heads;
    let (bias, a_log, skip) = split_dynamics(dims, dynamics);
    let rate: Vec<T> = a_log.iter().map(|x| x.exp()).collect();
    let (mut a, mut a_d, mut du, mut y) =
        (vec![T::zero(); heads], vec![T::zero(); d], vec![T::zero(); d], vec![T::zero(); d]);
    let mut delta = vec![T::zero(); heads];
    if let Some(tape) = tape.as_deref_mut() {
        tape.steps = steps;
        tape.p.clear();
        tape.p.extend_from_slice(p);
        for (buffer, state) in [(&mut tape.h, &state.h), (&mut tape.v, &state.v)] {
            buffer.clear();
            buffer.extend_from_slice(state);
        }
        tape.delta.clear();
        tape.a.clear();
    }
    for t in 0..steps {
        let row = &p[t * width..][..width];
        let (u, bc) = row.split_at(d);
        let (b, c) = bc.split_at(n);
        let (a_d, du, y) = (&mut a_d[..d], &mut du[..d], &mut y[..d]);
        for h in 0..heads {
            delta[h] = softplus(z[t * heads + h] + bias[h]);
            a[h] = (-delta[h] * rate[h]).exp();
        }
        spread(&a, d, a_d);
        spread(&delta, d, du);
        let skip = &skip[..d];
        for i in 0..d {
            du[i] *= u[i];
            y[i] = skip[i] * u[i];
        }
        for k in 0..n {
            let (bk, ck) = (b[k], c[k]);
            let h = &mut state.h[k * d..][..d];
            for i in 0..d {
                h[i] = a_d[i] * h[i] + bk * du[i];
                y[i] += ck * h[i];
            }
        }
        for ((v, &y), s) in state.v.iter_mut().zip(&*y).zip(&mut s[t * d..]) {
            *v = neuron.step(*v, y);
            *s = neuron.fire(*v);
        }
        if let Some(tape) = tape.as_deref_mut() {
            tape.delta.extend_from_slice(&delta);
            tape.a.extend_from_slice(&a);
            tape.h.extend_from_slice(&state.h);
            tape.v.extend_from_slice(&state.v);
        }
    }
}

/// Gradients of one stream's chunk with respect to what entered it.
#[derive(Debug)]
pub struct ScanGrads<'a, T> {
    /// Of `u`, `B`, `C`: `[K, D+2N]`, overwritten.
    pub p: &'a mut [T],
    /// Of `z`: `[K, H]`, overwritten.
    pub z: &'a mut [T],
    /// Of the dynamics, `[2H + D]`, added to.
    pub dynamics: &'a mut [T],
}

/// Reverse mode over a chunk. `ds` `[K, D]` is `∂L/∂s` (absent: zero), `adjoint` enters as the adjoint of the state after
/// the chunk and leaves as that of the state before it. With `temporal` off, nothing passes from a step to the one before.
pub fn reverse<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &[T],
    tape: &ScanTape<T>,
    ds: Option<&[T]>,
    temporal: bool,
    adjoint: &mut Adjoint<T>,
    grads: &mut ScanGrads<'_, T>,
) {
    let (d, n, heads, width) = (dims.channels, dims.state, dims.heads, dims.projected());
    let (_, a_log, skip) = split_dynamics(dims, dynamics);
    let mut step = ReverseStep::new(dims, a_log);
    for t in (0..tape.steps).rev() {
        step.load(tape, t);
        let (u, bc) = tape.p[t * width..][..width].split_at(d);
        let (b, c) = bc.split_at(n);
        let v = &tape.v[(t + 1) * d..][..d];
        if let Some(ds) = ds {
            for ((lambda, &v), &ds) in adjoint.v.iter_mut().zip(v).zip(&ds[t * d..]) {
                *lambda += neuron.surrogate(v) * ds;
            }
        }
        let (du, dbc) = grads.p[t * width..][..width].split_at_mut(d);
        let (db, dc) = dbc.split_at_mut(n);
        let d_skip = &mut grads.dynamics[2 * heads..][..d];
        // slices of one known length: without them every access below is checked and nothing vectorises
        let (a_d, delta_d, lv) = (&step.a[..d], &step.delta[..d], &adjoint.v[..d]);
        let (ly, delta_u) = (&mut step.ly[..d], &mut step.delta_u[..d]);
        let (through_input, through_decay) = (&mut step.through_input[..d], &mut step.through_decay[..d]);
        for i in 0..d {
            ly[i] = neuron.gain * lv[i];
            delta_u[i] = delta_d[i] * u[i];
            d_skip[i] += ly[i] * u[i];
            through_input[i] = T::zero();
            through_decay[i] = T::zero();
        }
        for k in 0..n {
            let (h_t, h_tm1) = (&tape.h[((t + 1) * n + k) * d..][..d], &tape.h[(t * n + k) * d..][..d]);
            let lambda = &mut adjoint.h[k * d..][..d];
            dc[k] = dot(ly, h_t);
            let ck = c[k];
            for i in 0..d {
                lambda[i] += ly[i] * ck;
            }
            db[k] = dot(lambda, delta_u);
            let bk = b[k];
            for i in 0..d {
                through_input[i] += lambda[i] * bk;
                through_decay[i] += lambda[i] * h_tm1[i];
                lambda[i] *= a_d[i];
            }
            if !temporal {
                lambda.fill(T::zero());
            }
        }
        let skip = &skip[..d];
        for i in 0..d {
            du[i] = ly[i] * skip[i] + delta_d[i] * through_input[i];
        }
        let (d_bias, rest) = grads.dynamics.split_at_mut(heads);
        let per_head = dims.per_head();
        for h in 0..heads {
            let channels = h * per_head..(h + 1) * per_head;
            let (delta, a, rate) = (tape.delta[t * heads + h], tape.a[t * heads + h], step.rate[h]);
            let (mut input, mut decay) = (T::zero(), T::zero());
            for i in channels {
                input += u[i] * through_input[i];
                decay += through_decay[i];
            }
            // σ(x) = 1 − e^{−softplus(x)}
            let dz = (input - rate * a * decay) * (T::one() - (-delta).exp());
            grads.z[t * heads + h] = dz;
            d_bias[h] += dz;
            rest[h] -= delta * rate * a * decay;
        }
        for (lambda, &v) in adjoint.v.iter_mut().zip(&tape.v[t * d..]) {
            *lambda = if temporal { neuron.carry(v) * *lambda } else { T::zero() };
        }
    }
}

/// Buffers of one reverse step, per channel.
struct ReverseStep<T> {
    rate: Vec<T>,
    a: Vec<T>,
    delta: Vec<T>,
    delta_u: Vec<T>,
    ly: Vec<T>,
    through_input: Vec<T>,
    through_decay: Vec<T>,
}

impl<T: Real> ReverseStep<T> {
    fn new(dims: &Dims, a_log: &[T]) -> Self {
        let zeros = || vec![T::zero(); dims.channels];
        Self {
            rate: a_log.iter().map(|x| x.exp()).collect(),
            a: zeros(),
            delta: zeros(),
            delta_u: zeros(),
            ly: zeros(),
            through_input: zeros(),
            through_decay: zeros(),
        }
    }

    fn load(&mut self, tape: &ScanTape<T>, t: usize) {
        let (heads, d) = (self.rate.len(), self.a.len());
        spread(&tape.a[t * heads..][..heads], d, &mut self.a);
        spread(&tape.delta[t * heads..][..heads], d, &mut self.delta);
    }
}
