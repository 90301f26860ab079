//! The selective state space with its postsynaptic neurons, forward and reverse over a window of a group of streams.
//!
//! `a_h = exp(-Δ_h e^{A_log,h})`, `h_{n,d} ← a h_{n,d} + Δ B_n u_d` (eq. 1), `y_d = Σ_n C_n h_{n,d} + D_d u_d + I_d` (eq. 2),
//! `V_d ← β V_d + (1-β) R y_d − ρ s_d`, `s_d = fire(V_d)` (eq. 3).
//!
//! The forward pass keeps no states: the reverse pass computes them again, a block of channels at a time, in a buffer that
//! stays in the first-level cache.

use learner::performed;

use super::encode::step_gradient;
use super::lanes::{LANES, Lane, blocks, load, store, sum};
use super::neuron::Neuron;
use super::{Decay, Dims, Real, softplus};

/// Parameters of the dynamics.
#[derive(Clone, Copy, Debug)]
pub struct Dynamics<'a, T> {
    /// `b_Δ` `[H]`.
    pub bias: &'a [T],
    /// `A_log` `[H]` or `[N, D]`.
    pub a_log: &'a [T],
    /// Skip `D` `[D]`.
    pub skip: &'a [T],
    /// Input current of the postsynaptic neurons, `I_ext` `[D]`.
    pub current: Option<&'a [T]>,
    /// Steps of the postsynaptic neurons, where they are learned `[D]`.
    pub step: Option<&'a [T]>,
}

/// Gradients of [`Dynamics`], summed over streams and steps.
#[derive(Clone, Debug, Default)]
pub struct DynamicsGrads<T> {
    /// Of `b_Δ`.
    pub bias: Vec<T>,
    /// Of `A_log`.
    pub a_log: Vec<T>,
    /// Of the skip.
    pub skip: Vec<T>,
    /// Of the input current.
    pub current: Vec<T>,
    /// Of the logarithms of the neurons' steps, without what a price on spikes adds.
    pub step: Vec<T>,
}

impl<T: Real> DynamicsGrads<T> {
    /// All zero.
    #[must_use]
    pub fn zero(dims: &Dims) -> Self {
        let zeros = |n| vec![T::zero(); n];
        Self {
            bias: zeros(dims.heads),
            a_log: zeros(dims.decays()),
            skip: zeros(dims.channels),
            current: zeros(dims.channels),
            step: zeros(dims.channels),
        }
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        for v in [&mut self.bias, &mut self.a_log, &mut self.skip, &mut self.current, &mut self.step] {
            v.fill(T::zero());
        }
    }
}

/// A window of rows: `lag` steps of history, then the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Streams of the group.
    pub streams: usize,
    /// Steps of history in front of the chunk.
    pub lag: usize,
    /// Steps of the chunk.
    pub steps: usize,
}

impl Span {
    /// Steps of the window.
    #[must_use]
    pub fn window(&self) -> usize {
        self.lag + self.steps
    }
}

/// What the chunk leaves for the reverse pass. Row 0 of `v` and `h0` are the state before the window.
#[derive(Clone, Debug, Default)]
pub struct ScanTape<T> {
    /// `u`, `B`, `C`: `[lag + K, streams, D + 2N]`.
    pub p: Vec<T>,
    /// `Δ` `[lag + K, streams, H]`.
    pub delta: Vec<T>,
    /// `a` `[lag + K, streams, H]`; unused where decays are per channel and state.
    pub a: Vec<T>,
    /// `[1 + lag + K, streams, D]`.
    pub v: Vec<T>,
    /// State before the window: `[streams, N, D]`.
    pub h0: Vec<T>,
    /// Rates `e^{A_log}` in force at each step of the history, then in the chunk: `[lag + 1, H]` or `[lag + 1, N, D]`. Weights
    /// change between chunks, but what a history holds came about under those of its time.
    pub rates: Vec<T>,
    /// Skips `D`, likewise: `[lag + 1, D]`.
    pub skips: Vec<T>,
    /// Learned steps of the neurons in the chunk `[D]`; empty where they are not learned.
    pub steps: Vec<T>,
}

/// The row of a [`ScanTape`]'s rates or skips, each of `len`, that was in force at step `t` of the window.
pub(super) fn in_force<T>(rows: &[T], len: usize, lag: usize, t: usize) -> &[T] {
    &rows[t.min(lag) * len..][..len]
}

impl<T: Real> ScanTape<T> {
    /// Rates at step `t` of a window behind `lag` steps of history: `[H]` or `[N, D]`.
    #[must_use]
    pub fn rates_at(&self, dims: &Dims, lag: usize, t: usize) -> &[T] {
        in_force(&self.rates, dims.decays(), lag, t)
    }

    /// Skips at step `t` of a window behind `lag` steps of history: `[D]`.
    #[must_use]
    pub fn skips_at(&self, dims: &Dims, lag: usize, t: usize) -> &[T] {
        in_force(&self.skips, dims.channels, lag, t)
    }

    /// The chunk's last steps become history: what was in force in them moves to the front.
    pub fn shift_in_force(&mut self, dims: &Dims, lag: usize, steps: usize) {
        for (rows, len) in [(&mut self.rates, dims.decays()), (&mut self.skips, dims.channels)] {
            let kept = lag.saturating_sub(steps);
            rows.copy_within(steps.min(lag) * len..lag * len, 0);
            for row in kept..lag {
                rows.copy_within(lag * len..(lag + 1) * len, row * len);
            }
        }
    }
}

/// Adjoints of the state of a group: `∂L/∂h` `[streams, N, D]` and `∂L/∂V` `[streams, D]`.
#[derive(Clone, Debug, Default)]
pub struct Adjoint<T> {
    /// Of `h`.
    pub h: Vec<T>,
    /// Of `V`.
    pub v: Vec<T>,
}

/// What credit may pass from a step to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    /// Through the state space.
    pub state: bool,
    /// Through the postsynaptic membrane.
    pub membrane: bool,
}

impl Through {
    /// Everything.
    pub const TIME: Self = Self { state: true, membrane: true };
    /// Nothing: each step by itself.
    pub const STEP: Self = Self { state: false, membrane: false };
}

/// Buffers that are used again from call to call.
#[derive(Clone, Debug, Default)]
pub struct Scratch<T> {
    states: Vec<Lane<T>>,
    decays: Vec<Lane<T>>,
    adjoint: Vec<Lane<T>>,
    d_b: Vec<Lane<T>>,
    d_c: Vec<Lane<T>>,
    /// Rows of sources for the traces, with a decay per channel and state.
    pub(super) source: Vec<T>,
    /// The same with a decay per head.
    pub(super) sources: super::trace::Sources<T>,
}

/// What the traces of a head need of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step<T> {
    pub a: T,
    pub delta: T,
    pub weight: T,
    pub decay: T,
    pub slope: T,
    pub weighted_decay: T,
}

fn grow<X: Clone>(v: &mut Vec<X>, len: usize, x: X) {
    if v.len() < len {
        v.resize(len, x);
    }
}

/// `Δ` and `a` of the chunk's rows, from `z` `[K, streams, H]`, and the rates and skips that are in force in it.
pub fn step_sizes<T: Real>(dims: &Dims, dynamics: &Dynamics<T>, span: Span, z: &[T], tape: &mut ScanTape<T>) {
    let heads = dims.heads;
    let start = span.lag * span.streams * heads;
    let len = span.steps * span.streams * heads;
    for (i, (z, delta)) in z[..len].iter().zip(&mut tape.delta[start..][..len]).enumerate() {
        *delta = softplus(*z + dynamics.bias[i % heads]);
    }
    tape.skips[span.lag * dims.channels..].copy_from_slice(dynamics.skip);
    tape.steps.clear();
    tape.steps.extend_from_slice(dynamics.step.unwrap_or_default());
    let rates = &mut tape.rates[span.lag * dims.decays()..];
    match dims.decay {
        Decay::Head => {
            for (h, (rate, a_log)) in rates.iter_mut().zip(dynamics.a_log).enumerate() {
                *rate = a_log.exp();
                for i in (h..len).step_by(heads) {
                    tape.a[start + i] = (-tape.delta[start + i] * *rate).exp();
                }
            }
        }
        Decay::ChannelState => rates.iter_mut().zip(dynamics.a_log).for_each(|(rate, x)| *rate = x.exp_fast()),
    }
}

/// `σ'` of softplus where it gave `delta`: `σ(x) = 1 − e^{−softplus(x)}`, without the cancellation near 0.
#[must_use]
pub fn softplus_slope<T: Real>(delta: T) -> T {
    -(-delta).exp_m1()
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "a call inside the step would keep it from becoming vector code")]
fn per_head<T: Real>(values: &[T], p: usize, at: usize, len: usize) -> Lane<T> {
    let first = at / p;
    if (at + len - 1) / p == first {
        return [values[first]; LANES];
    }
    let mut out = [T::zero(); LANES];
    for (i, o) in out[..len].iter_mut().enumerate() {
        *o = values[(at + i) / p];
    }
    out
}

/// Decays of state `k` in a block of channels.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn decay<T: Real, const PER_STATE: bool>(
    shared: &Lane<T>,
    rate: &[T],
    at: usize,
    len: usize,
    delta: &Lane<T>,
) -> Lane<T> {
    if !PER_STATE {
        return *shared;
    }
    let mut a = load(rate, at, len);
    for i in 0..LANES {
        a[i] = (-delta[i] * a[i]).exp_fast();
    }
    a
}

/// The neurons of a block of channels, each with its own step; those beyond the last channel have a step of one.
fn stepped<T: Real>(neuron: &Neuron<T>, steps: &[T], at: usize, len: usize) -> Option<[Neuron<T>; LANES]> {
    (!steps.is_empty())
        .then(|| std::array::from_fn(|i| neuron.with_step(if i < len { steps[at + i] } else { T::one() })))
}

/// Runs the chunk: the rows of `tape.p` behind the lag and what [`step_sizes`] left there → spikes `s` `[K, streams, D]`; advances
/// `h` `[streams, N, D]` and writes `V` behind row `lag` of the tape.
pub fn forward<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &Dynamics<T>,
    span: Span,
    tape: &mut ScanTape<T>,
    h: &mut [T],
    s: &mut [T],
    scratch: &mut Scratch<T>,
) {
    match dims.decay {
        Decay::Head => forward_with::<T, false>(dims, neuron, dynamics, span, tape, h, s, scratch),
        Decay::ChannelState => forward_with::<T, true>(dims, neuron, dynamics, span, tape, h, s, scratch),
    }
}

fn forward_with<T: Real, const PER_STATE: bool>(
    dims: &Dims,
    neuron: &Neuron<T>,
    dynamics: &Dynamics<T>,
    span: Span,
    tape: &mut ScanTape<T>,
    h: &mut [T],
    s: &mut [T],
    scratch: &mut Scratch<T>,
) {
    let (d, n, heads, width, per) = (dims.channels, dims.state, dims.heads, dims.projected(), dims.per_head());
    let Span { streams, lag, steps } = span;
    performed::note(2 * streams * steps * n * d); // the state and what is read of it
    grow(&mut scratch.states, n, [T::zero(); LANES]);
    let states = &mut scratch.states[..n];
    let rate = in_force(&tape.rates, dims.decays(), lag, lag);
    for b in 0..streams {
        for (at, len) in blocks(d) {
            for (k, x) in states.iter_mut().enumerate() {
                *x = load(h, (b * n + k) * d + at, len);
            }
            let mut v = load(&tape.v, (lag * streams + b) * d + at, len);
            let skip = load(dynamics.skip, at, len);
            let current = dynamics.current.map_or([T::zero(); LANES], |c| load(c, at, len));
            let stepped = stepped(neuron, &tape.steps, at, len);
            for t in 0..steps {
                let row = (lag + t) * streams + b;
                let u = load(&tape.p, row * width + at, len);
                let bc = &tape.p[row * width + d..][..2 * n];
                let (b_row, c_row) = bc.split_at(n);
                let delta = per_head(&tape.delta[row * heads..][..heads], per, at, len);
                let shared = if PER_STATE { delta } else { per_head(&tape.a[row * heads..][..heads], per, at, len) };
                let (mut y, mut du) = ([T::zero(); LANES], [T::zero(); LANES]);
                for i in 0..LANES {
                    y[i] = skip[i].mul_add(u[i], current[i]);
                    du[i] = delta[i] * u[i];
                }
                for k in 0..n {
                    let a = decay::<T, PER_STATE>(&shared, rate, k * d + at, len, &delta);
                    let (bk, ck, x) = (b_row[k], c_row[k], &mut states[k]);
                    for i in 0..LANES {
                        x[i] = a[i].mul_add(x[i], bk * du[i]);
                        y[i] = ck.mul_add(x[i], y[i]);
                    }
                }
                let mut spikes = [T::zero(); LANES];
                if let Some(neurons) = &stepped {
                    for i in 0..LANES {
                        v[i] = neurons[i].step(v[i], y[i]);
                        spikes[i] = neurons[i].fire(v[i]);
                    }
                } else {
                    for i in 0..LANES {
                        v[i] = neuron.step(v[i], y[i]);
                        spikes[i] = neuron.fire(v[i]);
                    }
                }
                store(&mut tape.v, (row + streams) * d + at, len, &v);
                store(s, (t * streams + b) * d + at, len, &spikes);
            }
            for (k, x) in states.iter().enumerate() {
                store(h, (b * n + k) * d + at, len, x);
            }
        }
    }
}

/// Gradients with respect to what entered the window.
#[derive(Debug)]
pub struct ScanGrads<'a, T> {
    /// Of `u`, `B`, `C`: `[lag + K, streams, D + 2N]`, overwritten.
    pub p: &'a mut [T],
    /// Of `z`: `[lag + K, streams, H]`, overwritten.
    pub z: &'a mut [T],
    /// Of the dynamics, added to.
    pub dynamics: &'a mut DynamicsGrads<T>,
}

/// Reverse mode over the window. `ds` `[K, streams, D]` is `∂L/∂s`; `adjoint` enters as the adjoint of the state after the
/// chunk and leaves as that of the state before the window.
pub fn reverse<T: Real>(
    dims: &Dims,
    neuron: &Neuron<T>,
    span: Span,
    tape: &ScanTape<T>,
    ds: &[T],
    through: Through,
    adjoint: &mut Adjoint<T>,
    grads: &mut ScanGrads<'_, T>,
    scratch: &mut Scratch<T>,
) {
    let args = (dims, neuron, span);
    match dims.decay {
        Decay::Head => reverse_with::<T, false>(args, tape, ds, through, adjoint, grads, scratch),
        Decay::ChannelState => reverse_with::<T, true>(args, tape, ds, through, adjoint, grads, scratch),
    }
}

/// A block of channels of a stream.
#[derive(Clone, Copy)]
struct Block {
    stream: usize,
    at: usize,
    len: usize,
}

/// What a block of channels is multiplied with in a step of the window.
struct StepOf<'a, T> {
    /// Row of the tape.
    row: usize,
    u: Lane<T>,
    b: &'a [T],
    c: &'a [T],
    /// Rates in force.
    rate: &'a [T],
    delta: Lane<T>,
    /// `a` where channels of a head share it, else `Δ`.
    shared: Lane<T>,
}

impl<'a, T: Real> StepOf<'a, T> {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    fn read<const PER_STATE: bool>(dims: &Dims, span: Span, tape: &'a ScanTape<T>, block: Block, t: usize) -> Self {
        let (d, n, heads, per) = (dims.channels, dims.state, dims.heads, dims.per_head());
        let Block { stream, at, len } = block;
        let row = t * span.streams + stream;
        let first = row * dims.projected();
        let (b, c) = tape.p[first + d..][..2 * n].split_at(n);
        let delta = per_head(&tape.delta[row * heads..][..heads], per, at, len);
        let shared = if PER_STATE { delta } else { per_head(&tape.a[row * heads..][..heads], per, at, len) };
        Self { row, u: load(&tape.p, first + at, len), b, c, rate: tape.rates_at(dims, span.lag, t), delta, shared }
    }

    /// `Δ u`, what enters the states but for `B`.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    fn input(&self) -> Lane<T> {
        std::array::from_fn(|i| self.delta[i] * self.u[i])
    }
}

/// The states of a block of channels once more, from those before the window on: `[window + 1, N]`; and, where they are per state, the
/// decays.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn states_again<T: Real, const PER_STATE: bool>(
    dims: &Dims,
    span: Span,
    tape: &ScanTape<T>,
    block: Block,
    states: &mut [Lane<T>],
    decays: &mut [Lane<T>],
) {
    let n = dims.state;
    for (k, x) in states[..n].iter_mut().enumerate() {
        *x = load(&tape.h0, (block.stream * n + k) * dims.channels + block.at, block.len);
    }
    for t in 0..span.window() {
        let step = StepOf::read::<PER_STATE>(dims, span, tape, block, t);
        let du = step.input();
        let (past, next) = states[t * n..][..2 * n].split_at_mut(n);
        for k in 0..n {
            let a =
                decay::<T, PER_STATE>(&step.shared, step.rate, k * dims.channels + block.at, block.len, &step.delta);
            if PER_STATE {
                decays[t * n + k] = a;
            }
            let bk = step.b[k];
            for i in 0..LANES {
                next[k][i] = a[i].mul_add(past[k][i], bk * du[i]);
            }
        }
    }
}

/// What a step of the reverse pass leaves in the states of a block of channels.
struct States<'a, T> {
    /// Before the step, and after it.
    past: &'a [Lane<T>],
    next: &'a [Lane<T>],
    /// Their decays, where they are per state.
    decays: &'a [Lane<T>],
    /// Adjoint: comes in as that of `next`, leaves as that of `past`.
    adjoint: &'a mut [Lane<T>],
    /// Gradients, by channel, of the step's `B` and `C`.
    d_b: &'a mut [Lane<T>],
    d_c: &'a mut [Lane<T>],
    /// Gradients of `A_log`, where decays are per state.
    a_log: &'a mut [T],
}

/// Back through the states of a step, whose output has the adjoint `ly`: `∂L/∂(Δ u)`, and what comes through the decays.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn through_states<T: Real, const PER_STATE: bool>(
    step: &StepOf<'_, T>,
    channels: usize,
    block: Block,
    ly: &Lane<T>,
    States { past, next, decays, adjoint, d_b, d_c, a_log }: States<'_, T>,
) -> (Lane<T>, Lane<T>) {
    let Block { at, len, .. } = block;
    let zero = [T::zero(); LANES];
    let du = step.input();
    let (mut through_input, mut through_decay) = (zero, zero);
    for k in 0..adjoint.len() {
        let (bk, ck) = (step.b[k], step.c[k]);
        let a = if PER_STATE { decays[k] } else { step.shared };
        // whole blocks in and out, one operation per loop: each becomes one vector instruction
        let (x, before) = (next[k], past[k]);
        let (mut l, mut to_b, mut to_c) = (adjoint[k], d_b[k], d_c[k]);
        for i in 0..LANES {
            to_c[i] = ly[i].mul_add(x[i], to_c[i]);
        }
        for i in 0..LANES {
            l[i] = ly[i].mul_add(ck, l[i]);
        }
        for i in 0..LANES {
            to_b[i] = l[i].mul_add(du[i], to_b[i]);
        }
        for i in 0..LANES {
            through_input[i] = l[i].mul_add(bk, through_input[i]);
        }
        if PER_STATE {
            let rates = load(step.rate, k * channels + at, len);
            let (mut decayed, mut d_a) = (zero, load(a_log, k * channels + at, len));
            for i in 0..LANES {
                decayed[i] = rates[i] * a[i] * (l[i] * before[i]); // −∂L/∂Δ through this decay
            }
            for i in 0..LANES {
                through_decay[i] += decayed[i];
            }
            for i in 0..LANES {
                d_a[i] -= step.delta[i] * decayed[i];
            }
            store(a_log, k * channels + at, len, &d_a);
        } else {
            for i in 0..LANES {
                through_decay[i] = l[i].mul_add(before[i], through_decay[i]);
            }
        }
        for i in 0..LANES {
            l[i] *= a[i];
        }
        (adjoint[k], d_b[k], d_c[k]) = (l, to_b, to_c);
    }
    (through_input, through_decay)
}

/// What came through the input and the decays, summed by head: `∂L/∂Δ` into `d_delta` `[H]`, and `∂L/∂A_log` where heads share it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn by_head<T: Real, const PER_STATE: bool>(
    step: &StepOf<'_, T>,
    per: usize,
    block: Block,
    through_input: &Lane<T>,
    through_decay: &Lane<T>,
    d_delta: &mut [T],
    a_log: &mut [T],
) {
    let Block { at, len, .. } = block;
    let direct: Lane<T> = std::array::from_fn(|i| step.u[i] * through_input[i]);
    let first = at / per;
    if (at + len - 1) / per == first {
        let decayed = sum(through_decay);
        d_delta[first] += if PER_STATE {
            sum(&direct) - decayed
        } else {
            let x = step.rate[first] * step.shared[0] * decayed;
            a_log[first] -= step.delta[0] * x;
            sum(&direct) - x
        };
        return;
    }
    for i in 0..len {
        let h = (at + i) / per;
        let x = if PER_STATE { through_decay[i] } else { step.rate[h] * step.shared[i] * through_decay[i] };
        if !PER_STATE {
            a_log[h] -= step.delta[i] * x;
        }
        d_delta[h] += direct[i] - x;
    }
}

/// The first step of a stream's window that was: rows of a history that never was are zero, `Δ` included, which no softplus is.
fn first_step<T: Real>(heads: usize, span: Span, tape: &ScanTape<T>, stream: usize) -> usize {
    let was = |t: &usize| tape.delta[(t * span.streams + stream) * heads..][..heads].iter().any(|x| *x != T::zero());
    (0..span.lag).find(was).unwrap_or(span.lag)
}

/// The gradients of a stream's `B` and `C` summed over channels, and those of `Δ` through the softplus.
fn rows_of_stream<T: Real>(
    dims: &Dims,
    span: Span,
    tape: &ScanTape<T>,
    stream: usize,
    (d_b, d_c): (&[Lane<T>], &[Lane<T>]),
    grads: &mut ScanGrads<'_, T>,
) {
    let (d, n, heads) = (dims.channels, dims.state, dims.heads);
    for t in 0..span.window() {
        let row = t * span.streams + stream;
        let (db, dc) = grads.p[row * dims.projected() + d..][..2 * n].split_at_mut(n);
        for k in 0..n {
            db[k] = sum(&d_b[t * n + k]);
            dc[k] = sum(&d_c[t * n + k]);
        }
        for h in 0..heads {
            let dz = grads.z[row * heads + h] * softplus_slope(tape.delta[row * heads + h]);
            grads.z[row * heads + h] = dz;
            grads.dynamics.bias[h] += dz;
        }
    }
}

fn reverse_with<T: Real, const PER_STATE: bool>(
    (dims, neuron, span): (&Dims, &Neuron<T>, Span),
    tape: &ScanTape<T>,
    ds: &[T],
    through: Through,
    adjoint: &mut Adjoint<T>,
    grads: &mut ScanGrads<'_, T>,
    scratch: &mut Scratch<T>,
) {
    let (d, n, heads, width) = (dims.channels, dims.state, dims.heads, dims.projected());
    let Span { streams, lag, .. } = span;
    let window = span.window();
    let zero = [T::zero(); LANES];
    // the states once more, and the gradients of C, h, B, of what entered and of the decay
    performed::note(6 * streams * window * n * d);
    grow(&mut scratch.states, (window + 1) * n, zero);
    grow(&mut scratch.decays, if PER_STATE { window * n } else { 0 }, zero);
    grow(&mut scratch.adjoint, n, zero);
    grow(&mut scratch.d_b, window * n, zero);
    grow(&mut scratch.d_c, window * n, zero);
    let Scratch { states, decays, adjoint: lambda, d_b, d_c, .. } = scratch;
    let (states, lambda) = (&mut states[..(window + 1) * n], &mut lambda[..n]);
    let (d_b, d_c) = (&mut d_b[..window * n], &mut d_c[..window * n]);
    grads.z[..window * streams * heads].fill(T::zero());
    for b in 0..streams {
        let first = first_step(heads, span, tape, b);
        d_b.fill(zero);
        d_c.fill(zero);
        for (at, len) in blocks(d) {
            let block = Block { stream: b, at, len };
            states_again::<T, PER_STATE>(dims, span, tape, block, states, decays);
            for (k, l) in lambda.iter_mut().enumerate() {
                *l = load(&adjoint.h, (b * n + k) * d + at, len);
            }
            let mut lv = load(&adjoint.v, b * d + at, len);
            let (mut d_skip, mut d_current, mut d_step) = (zero, zero, zero);
            let stepped = stepped(neuron, &tape.steps, at, len);
            for t in (0..window).rev() {
                let step = StepOf::read::<PER_STATE>(dims, span, tape, block, t);
                let skip = load(tape.skips_at(dims, lag, t), at, len);
                if t >= lag {
                    let v = load(&tape.v, (step.row + streams) * d + at, len);
                    let ds = load(ds, ((t - lag) * streams + b) * d + at, len);
                    if let Some(neurons) = &stepped {
                        for i in 0..LANES {
                            lv[i] = neurons[i].surrogate(v[i]).mul_add(ds[i], lv[i]);
                            d_step[i] += step_gradient(&neurons[i], v[i], ds[i], T::zero());
                        }
                    } else {
                        for i in 0..LANES {
                            lv[i] = neuron.surrogate(v[i]).mul_add(ds[i], lv[i]);
                        }
                    }
                }
                if t < first {
                    lv = zero; // the membrane was at rest there
                }
                let mut ly = zero;
                for i in 0..LANES {
                    ly[i] = neuron.gain * lv[i];
                    d_skip[i] = ly[i].mul_add(step.u[i], d_skip[i]);
                    d_current[i] += ly[i];
                }
                let (past, next) = states[t * n..][..2 * n].split_at(n);
                let of = States {
                    past,
                    next,
                    decays: if PER_STATE { &decays[t * n..][..n] } else { &[] },
                    adjoint: lambda,
                    d_b: &mut d_b[t * n..][..n],
                    d_c: &mut d_c[t * n..][..n],
                    a_log: &mut grads.dynamics.a_log,
                };
                let (input, decayed) = through_states::<T, PER_STATE>(&step, d, block, &ly, of);
                let dp = std::array::from_fn(|i| ly[i].mul_add(skip[i], step.delta[i] * input[i]));
                store(grads.p, step.row * width + at, len, &dp);
                let d_delta = &mut grads.z[step.row * heads..][..heads];
                let a_log = &mut grads.dynamics.a_log;
                by_head::<T, PER_STATE>(&step, dims.per_head(), block, &input, &decayed, d_delta, a_log);
                if !through.state {
                    lambda.fill(zero);
                }
                if through.membrane {
                    let v = load(&tape.v, step.row * d + at, len);
                    for i in 0..LANES {
                        lv[i] *= neuron.carry(v[i]);
                    }
                } else {
                    lv = zero;
                }
            }
            for (k, l) in lambda.iter().enumerate() {
                store(&mut adjoint.h, (b * n + k) * d + at, len, l);
            }
            store(&mut adjoint.v, b * d + at, len, &lv);
            for i in 0..len {
                grads.dynamics.skip[at + i] += d_skip[i];
                grads.dynamics.current[at + i] += d_current[i];
                grads.dynamics.step[at + i] += d_step[i];
            }
        }
        rows_of_stream(dims, span, tape, b, (d_b, d_c), grads);
    }
}

/// The states of stream `b` before and after the first `rows` steps of a window without history, step by step:
/// `[rows + 1, N, D]`. The traces of slow membranes read them.
pub(super) fn states_slow<T: Real>(dims: &Dims, tape: &ScanTape<T>, streams: usize, b: usize, rows: usize) -> Vec<T> {
    let (d, n, width, per) = (dims.channels, dims.state, dims.projected(), dims.per_head());
    let mut all = tape.h0[b * n * d..][..n * d].to_vec();
    for t in 0..rows {
        let row = t * streams + b;
        for k in 0..n {
            for i in 0..d {
                let delta = tape.delta[row * dims.heads + i / per];
                let a = (-delta * rate_slow(dims, tape, k, i)).exp();
                let x = a * all[(t * n + k) * d + i] + delta * tape.p[row * width + d + k] * tape.p[row * width + i];
                all.push(x);
            }
        }
    }
    all
}

/// `e^{A_log}` of state `k` and channel `i` in a chunk without history.
pub(super) fn rate_slow<T: Real>(dims: &Dims, tape: &ScanTape<T>, k: usize, i: usize) -> T {
    match dims.decay {
        Decay::Head => tape.rates[i / dims.per_head()],
        Decay::ChannelState => tape.rates[k * dims.channels + i],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every channel of a block has the value of its own head, wherever heads begin and end.
    #[test]
    fn channels_have_the_values_of_their_heads() {
        for p in 1..=20 {
            let values: Vec<f64> = (1..=5).map(f64::from).collect();
            for (at, len) in blocks(5 * p) {
                let want: Vec<f64> = (at..at + len).map(|d| values[d / p]).collect();
                assert_eq!(per_head(&values, p, at, len)[..len], want, "{p} channels a head, from {at}");
            }
        }
    }
}
