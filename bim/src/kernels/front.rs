//! Credit for what stands in front of `ψ`: how `ψ` depends on each parameter of the encoder, through all of its past.
//!
//! Every parameter of the encoder acts on one neuron at a time, so `e_j = ∂ψ_j/∂θ_j` is one number for each neuron and kind of
//! parameter, advanced step by step (real-time recurrent learning, where it costs no more than the neuron itself):
//!
//! ```text
//! ∂V_t/∂θ = carry(V_{t-1}) ∂V_{t-1}/∂θ + (1-β) R ∂I_t/∂θ,   ∂s_t/∂θ = φ(V_t) ∂V_t/∂θ
//! e_t     = κ e_{t-1} + Σ_i c_i ∂s_{t-i}/∂θ                 (of the delay line's own tap i: κ e_{t-1} + s_{t-i})
//! ```
//!
//! | kind | `∂I_t/∂θ` |
//! |---|---|
//! | gain | the convolution's output, behind `SiLU` |
//! | current | 1 |
//! | tap `i` of the convolution | gain · `x̂_{t-i}`, through `SiLU`; summed over the neurons of a channel in the end |
//!
//! A learned step is folded into the weights ([`crate::fold`]): what arrives depends on its logarithm as `e = k − φ(V) V` in steps, and
//! nothing of that lasts on the membrane, whose reset is detached.
//!
//! The weights `W` act behind `ψ`. So `∂L/∂θ_j = Σ_t ∂L/∂ψ_j(t) e_j(t)` over the window, and, for what reaches the loss
//! through the state before it, `Σ_i W_ij G_ij`: `G` is what the traces of `W` are contracted to, with `e` in place of `ψ` as their
//! right-hand side ([`super::trace::Side`]).

use learner::performed;

use super::Real;
use super::encode::{EncodeDims, EncodeGrads, EncodeParams, EncodeTape, sign};
use super::neuron::Neuron;
use super::scan::Span;

/// A kind of parameter: one number for each neuron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gain of the input.
    Gain,
    /// Input current.
    Current,
    /// Tap of the convolution, as each neuron of its channel sees it.
    Conv(usize),
    /// Tap of the delay line.
    Delays(usize),
    /// Logarithm of the step.
    Step,
}

impl Kind {
    /// All kinds that an encoder has.
    #[must_use]
    pub fn all(dims: &EncodeDims, currents: bool, steps: bool) -> Vec<Self> {
        let taps = |n: usize| if n > 1 { n } else { 0 };
        let mut kinds = vec![Self::Gain];
        kinds.extend(currents.then_some(Self::Current));
        kinds.extend((0..taps(dims.conv)).map(Self::Conv));
        kinds.extend((0..taps(dims.delays)).map(Self::Delays));
        kinds.extend(steps.then_some(Self::Step));
        kinds
    }

    /// Name in checkpoints: that of the parameter, and which tap.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Gain => "gain".to_owned(),
            Self::Current => "current".to_owned(),
            Self::Conv(i) => format!("conv.{i}"),
            Self::Delays(i) => format!("delays.{i}"),
            Self::Step => "step".to_owned(),
        }
    }

    /// Whether it acts on the membrane.
    #[must_use]
    pub fn on_membrane(self) -> bool {
        matches!(self, Self::Gain | Self::Current | Self::Conv(_))
    }

    /// Where its gradient goes, and how many numbers that has for the taps before it.
    fn place<'a, T>(self, grads: &'a mut EncodeGrads<T>, dims: &EncodeDims) -> &'a mut [T] {
        match self {
            Self::Gain => &mut grads.gain,
            Self::Current => &mut grads.current,
            Self::Conv(i) => &mut grads.conv[i * dims.channels..][..dims.channels],
            Self::Delays(i) => &mut grads.delays[i * dims.neurons()..][..dims.neurons()],
            Self::Step => &mut grads.step,
        }
    }
}

/// How the streams of a group depend on one kind of parameter.
#[derive(Clone, Debug, Default)]
pub struct Sensitivity<T> {
    /// `∂V/∂θ` after the last step `[streams, J]`; empty where nothing of it lasts there.
    pub v: Vec<T>,
    /// Of the levels: `[delays − 1 + K, streams, J]`; empty of the delay line, which stands behind them.
    pub s: Vec<T>,
    /// `∂ψ/∂θ` `[lag + K, streams, J]`.
    pub e: Vec<T>,
    /// `∂ψ/∂θ` of the last step before the chunk `[streams, J]`; empty without a kernel.
    pub psi: Vec<T>,
}

impl<T: Real> Sensitivity<T> {
    /// No past, with room for `steps` steps behind `lag` steps of history.
    #[must_use]
    pub fn new(kind: Kind, dims: &EncodeDims, lag: usize, steps: usize, kernel: bool) -> Self {
        let wide = dims.streams * dims.neurons();
        let zeros = |rows: usize| vec![T::zero(); rows * wide];
        Self {
            v: zeros(usize::from(kind.on_membrane())),
            s: zeros(if matches!(kind, Kind::Delays(_)) { 0 } else { dims.delays - 1 + steps }),
            e: zeros(lag + steps),
            psi: zeros(usize::from(kernel)),
        }
    }

    /// Goes through the chunk that [`super::encode::forward`] left on the tape.
    pub fn forward(
        &mut self,
        kind: Kind,
        dims: &EncodeDims,
        neuron: &Neuron<T>,
        params: &EncodeParams<T>,
        span: Span,
        tape: &EncodeTape<T>,
    ) {
        if let Kind::Delays(tap) = kind {
            let wide = dims.streams * dims.neurons();
            let (rows, first) = (span.steps * wide, (dims.delays - 1 - tap) * wide);
            self.e[span.lag * wide..][..rows].copy_from_slice(&tape.s[first..][..rows]);
        } else {
            self.levels(kind, dims, neuron, params, span.steps, tape);
            self.arriving(kind, dims, params, span, tape);
        }
        self.kernel(dims, params.kernel, span);
    }

    /// `∂V/∂θ`, and of the levels.
    fn levels(
        &mut self,
        kind: Kind,
        dims: &EncodeDims,
        neuron: &Neuron<T>,
        params: &EncodeParams<T>,
        steps: usize,
        tape: &EncodeTape<T>,
    ) {
        let (channels, m) = (dims.channels, dims.neurons());
        let (wide_x, wide, history) = (dims.streams * channels, dims.streams * m, dims.delays - 1);
        let one = T::one();
        let mut source = vec![T::zero(); channels];
        for t in 0..steps {
            let (past, now) = (&tape.v[t * wide..][..wide], &tape.v[(t + 1) * wide..][..wide]);
            let s = &mut self.s[(history + t) * wide..][..wide];
            let drive = if params.conv.is_some() { &tape.c } else { &tape.x };
            for b in 0..dims.streams {
                let drive = &drive[t * wide_x + b * channels..][..channels];
                // ∂I/∂θ, but for the gain
                match kind {
                    Kind::Gain => source.copy_from_slice(drive),
                    Kind::Conv(i) => {
                        let at = (t + dims.conv - 1 - i) * wide_x + b * channels;
                        source.copy_from_slice(&tape.x[at..at + channels]);
                    }
                    Kind::Current | Kind::Step | Kind::Delays(_) => source.fill(one),
                }
                if dims.silu && matches!(kind, Kind::Gain | Kind::Conv(_)) {
                    for (source, &x) in source.iter_mut().zip(drive) {
                        let sigma = (one + (-x).exp_fast()).recip();
                        *source *= if kind == Kind::Gain { sigma } else { sigma * (one + x * (one - sigma)) };
                    }
                }
                for c in 0..dims.population {
                    let (at, from) = (b * m + c * channels, c * channels);
                    let (past, now, s) = (&past[at..][..channels], &now[at..][..channels], &mut s[at..][..channels]);
                    let gain = &params.gain[from..][..channels];
                    let own = |j: usize| params.step.map_or(*neuron, |step| neuron.with_step(step[from + j]));
                    if kind == Kind::Step {
                        for j in 0..channels {
                            s[j] = -own(j).surrogate(now[j]) * now[j];
                        }
                        continue;
                    }
                    let through_gain = matches!(kind, Kind::Conv(_));
                    let v = &mut self.v[at..][..channels];
                    for j in 0..channels {
                        let neuron = own(j);
                        let input = if through_gain { gain[j] * source[j] } else { source[j] };
                        v[j] = neuron.carry(past[j]).mul_add(v[j], neuron.gain * input);
                        s[j] = neuron.surrogate(now[j]) * v[j];
                    }
                }
            }
        }
    }

    /// `∂ψ/∂θ` without the kernel: of the levels as they come through the delay line, or as they are.
    fn arriving(&mut self, kind: Kind, dims: &EncodeDims, params: &EncodeParams<T>, span: Span, tape: &EncodeTape<T>) {
        let m = dims.neurons();
        let (wide, history, rows) = (dims.streams * m, dims.delays - 1, span.steps * dims.streams);
        let e = &mut self.e[span.lag * wide..][..rows * m];
        let Some(taps) = params.delays else {
            e.copy_from_slice(&self.s[history * wide..][..rows * m]);
            if kind == Kind::Step {
                super::add(&tape.s[history * wide..][..rows * m], e); // what is sent grows with the step, too
            }
            return;
        };
        performed::note(rows * m * dims.delays);
        e.fill(T::zero());
        for (i, taps) in taps.chunks_exact(m).enumerate() {
            let s = &self.s[(history - i) * wide..][..rows * m];
            for (e, s) in e.chunks_exact_mut(m).zip(s.chunks_exact(m)) {
                for j in 0..m {
                    e[j] = taps[j].mul_add(s[j], e[j]);
                }
            }
        }
    }

    /// The kernel's `κ e_{t-1}`.
    fn kernel(&mut self, dims: &EncodeDims, kappa: T, span: Span) {
        if self.psi.is_empty() {
            return;
        }
        let wide = dims.streams * dims.neurons();
        for row in self.e[span.lag * wide..][..span.steps * wide].chunks_exact_mut(wide) {
            for (e, last) in row.iter_mut().zip(&mut self.psi) {
                *e += kappa * *last;
                *last = *e;
            }
        }
    }

    /// Adds the credit inside the window to `out` `[J]`: `Σ ∂L/∂ψ e`, with `d_psi` `[lag + K, streams, J]`, and the price of the chunk's
    /// `spikes` `[K, streams, J]`.
    pub fn add_credit(&self, dims: &EncodeDims, span: Span, d_psi: &[T], (price, spikes): (T, &[T]), out: &mut [T]) {
        let m = dims.neurons();
        let rows = span.window() * dims.streams;
        performed::note(rows * m);
        for (d, e) in d_psi[..rows * m].chunks_exact(m).zip(self.e.chunks_exact(m)) {
            for j in 0..m {
                out[j] = d[j].mul_add(e[j], out[j]);
            }
        }
        if price > T::zero() && !self.s.is_empty() {
            let s = &self.s[(dims.delays - 1) * dims.streams * m..];
            for (spikes, s) in spikes.chunks_exact(m).zip(s.chunks_exact(m)) {
                for j in 0..m {
                    out[j] += price * sign(spikes[j]) * s[j];
                }
            }
        }
    }

    /// Moves what the next chunk needs to the front.
    pub fn shift(&mut self, dims: &EncodeDims, span: Span) {
        let wide = dims.streams * dims.neurons();
        let Span { lag, steps, .. } = span;
        if !self.s.is_empty() {
            self.s.copy_within(steps * wide..(steps + dims.delays - 1) * wide, 0);
        }
        self.e.copy_within(steps * wide..(steps + lag) * wide, 0);
    }

    /// What is carried from chunk to chunk, by name: rows of all streams.
    pub fn carried(&mut self, dims: &EncodeDims, lag: usize) -> [(&'static str, &mut [T]); 4] {
        let [levels, history] = self.histories(dims, lag);
        [
            ("dv", &mut self.v[..]),
            ("ds", &mut self.s[..levels]),
            ("dpsi", &mut self.psi[..]),
            ("history", &mut self.e[..history]),
        ]
    }

    /// Numbers of [`Sensitivity::carried`].
    #[must_use]
    pub fn numbers(&self, dims: &EncodeDims, lag: usize) -> usize {
        let [levels, history] = self.histories(dims, lag);
        self.v.len() + levels + self.psi.len() + history
    }

    /// Numbers of the levels, and of `∂ψ/∂θ`, that lie before the chunk.
    fn histories(&self, dims: &EncodeDims, lag: usize) -> [usize; 2] {
        let wide = dims.streams * dims.neurons();
        [if self.s.is_empty() { 0 } else { (dims.delays - 1) * wide }, lag * wide]
    }
}

/// Adds a sum for each neuron `[J]` to the gradient of a kind of parameter; neurons of a channel share their taps.
pub fn add_grads<T: Real>(kind: Kind, dims: &EncodeDims, sums: &[T], grads: &mut EncodeGrads<T>) {
    let place = kind.place(grads, dims);
    for sums in sums.chunks_exact(place.len()) {
        super::add(sums, place);
    }
}
