//! Presynaptic side of a block: from normalised channels to what the synapses see.
//!
//! ```text
//! x̂ → causal convolution (SiLU) → I = gain · c + bias → LIF_in → spikes → axonal delays → post-synaptic kernel → ψ
//! V_t = β V_{t-1} + (1-β) R I_t − ρ s_{t-1},  s_t = fire(V_t)                                              (eq. 3)
//! ψ_{t,m} = κ ψ_{t-1,m} + Σ_i c_{i,m} s_{t-i,m}                                                  (α of eq. 3)
//! ```
//!
//! Everything behind the spikes is linear and per neuron, so a block's credit stays exact whatever is chosen here. Rows are
//! wide: all streams of a group side by side.

use learner::performed;

use super::Real;
use super::neuron::Neuron;

/// Sizes of a group's encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeDims {
    /// Streams of the group.
    pub streams: usize,
    /// Channels of the residual stream.
    pub channels: usize,
    /// Neurons per channel.
    pub population: usize,
    /// Taps of the convolution in front of the neurons; 1 means none.
    pub conv: usize,
    /// Whether `SiLU` follows the convolution.
    pub silu: bool,
    /// Taps of the delay line behind the neurons; 1 means none.
    pub delays: usize,
}

impl EncodeDims {
    /// Neurons, `J`.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.channels * self.population
    }
    fn wide_x(&self) -> usize {
        self.streams * self.channels
    }
    fn wide(&self) -> usize {
        self.streams * self.neurons()
    }
}

/// Parameters; neurons run over populations, then channels.
#[derive(Clone, Copy, Debug)]
pub struct EncodeParams<'a, T> {
    /// Gain of each neuron's input `[J]`: its inverse threshold.
    pub gain: &'a [T],
    /// Input current `I_ext` `[J]`.
    pub current: Option<&'a [T]>,
    /// Convolution `[taps, channels]`, latest first.
    pub conv: Option<&'a [T]>,
    /// Delay line `[taps, J]`, latest first.
    pub delays: Option<&'a [T]>,
    /// `κ` of the post-synaptic kernel.
    pub kernel: T,
    /// Step of each neuron `[J]`, where it is learned.
    pub step: Option<&'a [T]>,
}

/// Gradients of [`EncodeParams`], summed over streams and steps.
#[derive(Clone, Debug, Default)]
pub struct EncodeGrads<T> {
    /// Of the gains.
    pub gain: Vec<T>,
    /// Of the currents.
    pub current: Vec<T>,
    /// Of the convolution.
    pub conv: Vec<T>,
    /// Of the delays.
    pub delays: Vec<T>,
    /// Of the logarithms of the steps.
    pub step: Vec<T>,
}

impl<T: Real> EncodeGrads<T> {
    /// All zero.
    #[must_use]
    pub fn zero(dims: &EncodeDims) -> Self {
        let zeros = |n| vec![T::zero(); n];
        let m = dims.neurons();
        Self {
            gain: zeros(m),
            current: zeros(m),
            conv: zeros(dims.conv * dims.channels),
            delays: zeros(dims.delays * m),
            step: zeros(m),
        }
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        for v in [&mut self.gain, &mut self.current, &mut self.conv, &mut self.delays, &mut self.step] {
            v.fill(T::zero());
        }
    }
}

/// Activations of a chunk, behind the history that is carried between chunks.
#[derive(Clone, Debug, Default)]
pub struct EncodeTape<T> {
    /// `x̂`: `[conv − 1 + K, streams, channels]`.
    pub x: Vec<T>,
    /// Convolution before `SiLU`: `[K, streams, channels]`; empty without a convolution.
    pub c: Vec<T>,
    /// Membrane potentials `[1 + K, streams, J]`.
    pub v: Vec<T>,
    /// Spikes `[delays − 1 + K, streams, J]`.
    pub s: Vec<T>,
    /// Last `ψ` of the chunk before `[streams, J]`; empty without a kernel.
    pub psi: Vec<T>,
}

/// Adjoints of the carried state: what later chunks want from earlier ones.
#[derive(Clone, Debug, Default)]
pub struct EncodeAdjoint<T> {
    /// Of the last `conv − 1` rows of `x̂`.
    pub x: Vec<T>,
    /// Of the membrane.
    pub v: Vec<T>,
    /// Of the last `delays − 1` rows of spikes.
    pub s: Vec<T>,
    /// Of the last `ψ`.
    pub psi: Vec<T>,
}

impl<T: Real> EncodeTape<T> {
    /// At rest, with room for `steps` steps.
    #[must_use]
    pub fn new(dims: &EncodeDims, steps: usize, kernel: bool) -> Self {
        let zeros = |n| vec![T::zero(); n];
        let (wide_x, wide) = (dims.wide_x(), dims.wide());
        Self {
            x: zeros((dims.conv - 1 + steps) * wide_x),
            c: zeros(if dims.conv > 1 || dims.silu { steps * wide_x } else { 0 }),
            v: zeros((1 + steps) * wide),
            s: zeros((dims.delays - 1 + steps) * wide),
            psi: zeros(if kernel { wide } else { 0 }),
        }
    }

    /// Spikes of the chunk `[K, streams, J]`.
    #[must_use]
    pub fn spikes(&self, dims: &EncodeDims, steps: usize) -> &[T] {
        &self.s[(dims.delays - 1) * dims.wide()..][..steps * dims.wide()]
    }

    /// Moves what the next chunk needs to the front. `psi` is the chunk's output.
    pub fn shift(&mut self, dims: &EncodeDims, steps: usize, psi: &[T]) {
        let (wide_x, wide) = (dims.wide_x(), dims.wide());
        self.x.copy_within(steps * wide_x..(steps + dims.conv - 1) * wide_x, 0);
        self.v.copy_within(steps * wide..(steps + 1) * wide, 0);
        self.s.copy_within(steps * wide..(steps + dims.delays - 1) * wide, 0);
        if !self.psi.is_empty() {
            self.psi.copy_from_slice(&psi[(steps - 1) * wide..steps * wide]);
        }
    }

    /// The carried state by name: membrane, and the histories.
    pub fn carried(&mut self, dims: &EncodeDims) -> [(&'static str, &mut [T]); 4] {
        let (wide_x, wide) = (dims.wide_x(), dims.wide());
        [
            ("x", &mut self.x[..(dims.conv - 1) * wide_x]),
            ("v", &mut self.v[..wide]),
            ("s", &mut self.s[..(dims.delays - 1) * wide]),
            ("psi", &mut self.psi[..]),
        ]
    }
}

impl<T: Real> EncodeAdjoint<T> {
    /// No credit from later chunks.
    #[must_use]
    pub fn new(dims: &EncodeDims, kernel: bool) -> Self {
        let zeros = |n| vec![T::zero(); n];
        Self {
            x: zeros((dims.conv - 1) * dims.wide_x()),
            v: zeros(dims.wide()),
            s: zeros((dims.delays - 1) * dims.wide()),
            psi: zeros(if kernel { dims.wide() } else { 0 }),
        }
    }

    /// The parts, each a whole number of rows of all streams.
    pub fn parts_mut(&mut self) -> [&mut [T]; 4] {
        [&mut self.x, &mut self.v, &mut self.s, &mut self.psi]
    }
}

/// Runs the chunk whose `x̂` is on the tape behind the history: → `psi` `[K, streams, J]`.
pub fn forward<T: Real>(
    dims: &EncodeDims,
    neuron: &Neuron<T>,
    params: &EncodeParams<T>,
    steps: usize,
    tape: &mut EncodeTape<T>,
    psi: &mut [T],
) {
    let (channels, m) = (dims.channels, dims.neurons());
    let (wide_x, wide) = (dims.wide_x(), dims.wide());
    let history = dims.delays - 1;
    let taps = |taps: usize, wide: usize| if taps > 1 { taps * wide } else { 0 };
    performed::note(steps * (taps(dims.conv, wide_x) + taps(dims.delays, wide)));
    for t in 0..steps {
        let drive: &[T] = match params.conv {
            Some(taps) => {
                let out = &mut tape.c[t * wide_x..][..wide_x];
                out.fill(T::zero());
                for (i, taps) in taps.chunks_exact(channels).enumerate() {
                    let row = &tape.x[(t + dims.conv - 1 - i) * wide_x..][..wide_x];
                    for (out, x) in out.chunks_exact_mut(channels).zip(row.chunks_exact(channels)) {
                        for j in 0..channels {
                            out[j] = taps[j].mul_add(x[j], out[j]);
                        }
                    }
                }
                out
            }
            None => &tape.x[t * wide_x..][..wide_x],
        };
        let (before, after) = tape.v.split_at_mut((t + 1) * wide);
        let past = &before[t * wide..];
        let spikes = &mut tape.s[(history + t) * wide..][..wide];
        for b in 0..dims.streams {
            let drive = &drive[b * channels..][..channels];
            for c in 0..dims.population {
                let at = b * m + c * channels;
                let gain = &params.gain[c * channels..][..channels];
                let (past, v, s) =
                    (&past[at..][..channels], &mut after[at..][..channels], &mut spikes[at..][..channels]);
                for j in 0..channels {
                    let x = if dims.silu { drive[j] / (T::one() + (-drive[j]).exp_fast()) } else { drive[j] };
                    v[j] = gain[j] * x;
                }
                if let Some(current) = params.current {
                    let current = &current[c * channels..][..channels];
                    for j in 0..channels {
                        v[j] += current[j];
                    }
                }
                match params.step {
                    None => {
                        for j in 0..channels {
                            v[j] = neuron.step(past[j], v[j]);
                            s[j] = neuron.fire(v[j]);
                        }
                    }
                    Some(step) => {
                        let step = &step[c * channels..][..channels];
                        for j in 0..channels {
                            let neuron = neuron.with_step(step[j]);
                            v[j] = neuron.step(past[j], v[j]);
                            s[j] = neuron.fire(v[j]);
                        }
                    }
                }
            }
        }
        let (earlier, now) = psi.split_at_mut(t * wide);
        let out = &mut now[..wide];
        match params.delays {
            None => out.copy_from_slice(&tape.s[(history + t) * wide..][..wide]),
            Some(taps) => {
                out.fill(T::zero());
                for (i, taps) in taps.chunks_exact(m).enumerate() {
                    let row = &tape.s[(history + t - i) * wide..][..wide];
                    for (out, s) in out.chunks_exact_mut(m).zip(row.chunks_exact(m)) {
                        for j in 0..m {
                            out[j] = taps[j].mul_add(s[j], out[j]);
                        }
                    }
                }
            }
        }
        if !tape.psi.is_empty() {
            let last = if t == 0 { &tape.psi[..] } else { &earlier[(t - 1) * wide..] };
            for (o, &l) in out.iter_mut().zip(last) {
                *o += params.kernel * l;
            }
        }
    }
}

/// Buffers of the reverse pass.
#[derive(Clone, Debug, Default)]
pub struct EncodeScratch<T> {
    ds: Vec<T>,
    dx: Vec<T>,
}

/// Reverse mode over the chunk: from `d_psi` `[K, streams, J]` (spent) to `dx` `[K, streams, channels]`, the gradient of
/// `x̂`. `adjoint` enters with what later chunks want and leaves with what earlier ones owe. With `temporal` off, credit
/// stays within each step. `penalty` is added along the sign of every spike.
#[allow(clippy::too_many_lines, reason = "one pass in the order of the equations, backwards")]
pub fn reverse<T: Real>(
    dims: &EncodeDims,
    neuron: &Neuron<T>,
    params: &EncodeParams<T>,
    steps: usize,
    tape: &EncodeTape<T>,
    d_psi: &mut [T],
    (temporal, penalty): (bool, T),
    adjoint: &mut EncodeAdjoint<T>,
    grads: &mut EncodeGrads<T>,
    dx: &mut [T],
    scratch: &mut EncodeScratch<T>,
) {
    let (channels, m) = (dims.channels, dims.neurons());
    let (wide_x, wide) = (dims.wide_x(), dims.wide());
    let (history, before) = (dims.delays - 1, dims.conv - 1);
    // gradients of all taps, and what goes back through those that credit reaches
    let taps = |taps: usize| if taps > 1 { taps + if temporal { taps } else { 1 } } else { 0 };
    performed::note(steps * (taps(dims.conv) * wide_x + taps(dims.delays) * wide));
    if !adjoint.psi.is_empty() && temporal {
        for t in (0..steps).rev() {
            for (d, l) in d_psi[t * wide..][..wide].iter_mut().zip(&mut adjoint.psi) {
                *d += *l;
                *l = params.kernel * *d;
            }
        }
    }
    let ds = &mut scratch.ds;
    ds.clear();
    ds.resize(steps * wide, T::zero());
    ds.extend_from_slice(&adjoint.s); // rows K … K + history − 1 of the spikes with their history
    match params.delays {
        None => super::add(&d_psi[..steps * wide], &mut ds[..steps * wide]),
        Some(taps) => {
            for t in 0..steps {
                let d = &d_psi[t * wide..][..wide];
                for i in 0..if temporal { dims.delays } else { 1 } {
                    let at = (history + t - i) * wide;
                    let (taps, d_taps) = (&taps[i * m..][..m], &mut grads.delays[i * m..][..m]);
                    for b in 0..dims.streams {
                        let (d, s) = (&d[b * m..][..m], &tape.s[at + b * m..][..m]);
                        let ds = &mut ds[at + b * m..][..m];
                        for j in 0..m {
                            ds[j] = taps[j].mul_add(d[j], ds[j]);
                            d_taps[j] = s[j].mul_add(d[j], d_taps[j]);
                        }
                    }
                }
                if !temporal {
                    // the delay line's own weights see the past even where credit does not reach it
                    for i in 1..dims.delays {
                        let at = (history + t - i) * wide;
                        for b in 0..dims.streams {
                            let (d, s) = (&d[b * m..][..m], &tape.s[at + b * m..][..m]);
                            for j in 0..m {
                                grads.delays[i * m + j] += s[j] * d[j];
                            }
                        }
                    }
                }
            }
        }
    }
    let d_drive = &mut scratch.dx;
    d_drive.clear();
    d_drive.resize(steps * wide_x, T::zero());
    d_drive.extend_from_slice(&adjoint.x);
    // the neurons: d_drive[before + t] holds the gradient of the convolution's output until the taps are applied
    let drive_row = |t: usize| -> &[T] {
        if params.conv.is_some() { &tape.c[t * wide_x..][..wide_x] } else { &tape.x[t * wide_x..][..wide_x] }
    };
    for t in (0..steps).rev() {
        let ds = &ds[(history + t) * wide..][..wide];
        let (past, now) = (&tape.v[t * wide..][..wide], &tape.v[(t + 1) * wide..][..wide]);
        let spikes = &tape.s[(history + t) * wide..][..wide];
        let out = &mut dx[t * wide_x..][..wide_x];
        out.fill(T::zero());
        let drive = drive_row(t);
        for b in 0..dims.streams {
            let (drive, out) = (&drive[b * channels..][..channels], &mut out[b * channels..][..channels]);
            for c in 0..dims.population {
                let (at, from) = (b * m + c * channels, c * channels);
                let (past, now, spikes) = (&past[at..][..channels], &now[at..][..channels], &spikes[at..][..channels]);
                let (ds, lv) = (&ds[at..][..channels], &mut adjoint.v[at..][..channels]);
                let gain = &params.gain[from..][..channels];
                let (d_gain, d_current) = (&mut grads.gain[from..][..channels], &mut grads.current[from..][..channels]);
                let mut back = |j: usize, neuron: &Neuron<T>| {
                    let x = if dims.silu { drive[j] / (T::one() + (-drive[j]).exp_fast()) } else { drive[j] };
                    let fired = ds[j] + penalty * sign(spikes[j]);
                    let adjoint = neuron.surrogate(now[j]).mul_add(fired, lv[j]);
                    let d_input = neuron.gain * adjoint;
                    lv[j] = if temporal { neuron.carry(past[j]) * adjoint } else { T::zero() };
                    d_gain[j] = d_input.mul_add(x, d_gain[j]);
                    d_current[j] += d_input;
                    out[j] = d_input.mul_add(gain[j], out[j]);
                };
                match params.step {
                    None => {
                        for j in 0..channels {
                            back(j, neuron);
                        }
                    }
                    Some(step) => {
                        let (step, d_step) = (&step[from..][..channels], &mut grads.step[from..][..channels]);
                        for j in 0..channels {
                            let neuron = neuron.with_step(step[j]);
                            back(j, &neuron);
                            d_step[j] += step_gradient(&neuron, now[j], ds[j], penalty);
                        }
                    }
                }
            }
            if dims.silu {
                for j in 0..channels {
                    let sigma = (T::one() + (-drive[j]).exp_fast()).recip();
                    out[j] *= sigma * (T::one() + drive[j] * (T::one() - sigma));
                }
            }
        }
    }
    adjoint.s.copy_from_slice(&ds[..history * wide]);
    let Some(taps) = params.conv else { return };
    for t in 0..steps {
        let d = &dx[t * wide_x..][..wide_x];
        for i in 0..dims.conv {
            let at = (before + t - i) * wide_x;
            let (taps, d_taps) = (&taps[i * channels..][..channels], &mut grads.conv[i * channels..][..channels]);
            for b in 0..dims.streams {
                let (d, x) = (&d[b * channels..][..channels], &tape.x[at + b * channels..][..channels]);
                let d_drive = &mut d_drive[at + b * channels..][..channels];
                for j in 0..channels {
                    d_taps[j] = x[j].mul_add(d[j], d_taps[j]);
                    if temporal || i == 0 {
                        d_drive[j] = taps[j].mul_add(d[j], d_drive[j]);
                    }
                }
            }
        }
    }
    adjoint.x.copy_from_slice(&d_drive[..before * wide_x]);
    dx[..steps * wide_x].copy_from_slice(&d_drive[before * wide_x..][..steps * wide_x]);
}

/// Gradient of the logarithm of a neuron's step at potential `v`: what arrives is `k` steps, so with `∂L/∂k = wanted` through that
/// alone, and a price on `|k|`, it is `wanted · k − (wanted + price · sign k) · φ(V) V`. See [`crate::fold`].
pub(crate) fn step_gradient<T: Real>(neuron: &Neuron<T>, v: T, wanted: T, price: T) -> T {
    let k = neuron.fire(v);
    wanted * k - (wanted + price * sign(k)) * (neuron.surrogate(v) * v)
}

pub(crate) fn sign<T: Real>(x: T) -> T {
    if x > T::zero() {
        T::one()
    } else if x < T::zero() {
        -T::one()
    } else {
        T::zero()
    }
}
