//! One block over a group of streams: forward, reverse, and what it carries from chunk to chunk.
//!
//! ```text
//! x → RMSNorm → convolution → LIF_in → delays → ψ → u, B, C, Δ → selective scan → LIF_out → W_out → (gate) → + x
//! ```

use learner::performed;

use crate::config::{BimConfig, DecayForm, DeltaInput, Front as FrontCredit, Step};
use crate::frozen::{BlockColumns, synapses};
use crate::kernels::encode::{self, EncodeAdjoint, EncodeDims, EncodeGrads, EncodeParams, EncodeScratch, EncodeTape};
use crate::kernels::events::Events;
use crate::kernels::front::{self, Kind, Sensitivity};
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::{self, Adjoint, Dynamics, DynamicsGrads, ScanGrads, ScanTape, Scratch, Span};
use crate::kernels::trace::{self, CreditGrads, Readers, Side, StepCredit, Traces};
use crate::kernels::{Decay, Dims, Real, dot, row};
use crate::params::BlockParams;
use crate::rule::{Membrane, Rule};
use learner::product::{View, matmul};

/// Everything about a block but its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Spec<T> {
    /// Sizes of the state space.
    pub dims: Dims,
    /// Sizes of the encoder.
    pub encode: EncodeDims,
    /// Presynaptic neurons.
    pub pre: Neuron<T>,
    /// Postsynaptic neurons.
    pub post: Neuron<T>,
    /// `κ`.
    pub kernel: T,
    /// Credit.
    pub rule: Rule,
    /// Credit through the membrane.
    pub membrane: Membrane,
    /// What stands in front of `ψ` and has traces, if it has.
    pub front: Option<FrontParams>,
    /// Weights of the mean spike counts in the loss.
    pub penalty: [f64; 2],
    /// Streams of all groups: the mean is over them all, since gradients are summed over groups.
    pub all_streams: usize,
}

/// Parameters of the encoder that not every encoder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontParams {
    /// Input currents.
    pub currents: bool,
    /// Learned steps.
    pub steps: bool,
}

impl<T: Real> Spec<T> {
    /// From a checked configuration, for a group of `streams` that is alone.
    #[must_use]
    pub fn new(c: &BimConfig, membrane: Membrane, streams: usize) -> Self {
        let inputs = c.neurons();
        let delta_inputs = match c.delta_input {
            DeltaInput::Group => inputs / c.heads.0,
            DeltaInput::Full => inputs,
        };
        let decay = match c.decay {
            DecayForm::Head => Decay::Head,
            DecayForm::ChannelState => Decay::ChannelState,
        };
        Self {
            dims: Dims { inputs, channels: c.channels.0, state: c.state.0, heads: c.heads.0, delta_inputs, decay },
            encode: EncodeDims {
                streams,
                channels: c.width.0,
                population: c.population.0,
                conv: c.conv.0,
                silu: c.silu,
                delays: c.delays.0,
            },
            pre: Neuron::new(&c.pre),
            post: Neuron::new(&c.post),
            kernel: T::of(c.kernel.0),
            rule: c.credit.into(),
            membrane,
            front: (c.front == FrontCredit::Traces)
                .then_some(FrontParams { currents: c.currents, steps: c.pre.step == Step::Learned }),
            penalty: [c.pre.penalty.0, c.post.penalty.0],
            all_streams: streams,
        }
    }

    fn streams(&self) -> usize {
        self.encode.streams
    }

    /// What a spike at the block's input and one at its output add to the loss, over `steps` steps.
    pub(crate) fn prices(&self, steps: usize) -> [T; 2] {
        let [input, output] = self.penalty;
        let rows = (steps * self.all_streams) as f64;
        [input / (rows * self.dims.inputs as f64), output / (rows * self.dims.channels as f64)].map(T::of)
    }

    fn span(&self, steps: usize) -> Span {
        Span { streams: self.streams(), lag: self.membrane.lag(), steps }
    }
}

/// State, activations, gradients of activations and traces of one block for one group of streams.
#[derive(Clone, Debug)]
pub struct Block<T> {
    /// What it is.
    pub spec: Spec<T>,
    /// State of the state space `[streams, N, D]`.
    pub h: Vec<T>,
    /// Presynaptic activations.
    pub encode: EncodeTape<T>,
    /// `ψ` `[lag + K, streams, J]`.
    pub psi: Vec<T>,
    /// Activations of the scan.
    pub tape: ScanTape<T>,
    /// Postsynaptic spikes `[K, streams, D]`.
    pub s: Vec<T>,
    /// Adjoints of the state: before the window after a reverse pass.
    pub adjoint: Adjoint<T>,
    /// Adjoints of the encoder's state.
    pub encode_adjoint: EncodeAdjoint<T>,
    /// Traces, a stream an entry; empty where none are carried.
    pub traces: Vec<Traces<T>>,
    /// Credit for what stands in front of `ψ`, where it has traces.
    pub front: Option<Front<T>>,
    /// Gradients of the encoder's parameters from inside the chunk.
    pub encode_grads: EncodeGrads<T>,
    /// Gradients of the dynamics, from the window.
    pub dynamics_grads: DynamicsGrads<T>,
    /// Gradient of `W_Δ` through the states before the window `[H, J']`, where [`Block::finish`] was asked for it.
    pub step_credit: Vec<T>,
    z: Vec<T>,
    y: Vec<T>,
    gate: Vec<T>,
    inverse_rms: Vec<T>,
    dp: Vec<T>,
    dz: Vec<T>,
    dy: Vec<T>,
    d_gate: Vec<T>,
    events: Events<T>,
    scratch: Scratch<T>,
}

/// Traces for what stands in front of `ψ`, and what their credit is made of.
#[derive(Clone, Debug)]
pub struct Front<T> {
    /// One for each kind of parameter.
    pub sets: Vec<FrontSet<T>>,
    /// `∂L/∂ψ` by the block's own credit: `[lag + K, streams, J]`.
    d_psi: Vec<T>,
    /// Price of a spike.
    price: T,
    /// The weights that read `ψ`, in the last reverse pass: `[D + 2N, J]` and `[H, J']`.
    projection: Vec<T>,
    delta: Vec<T>,
}

/// Traces for one kind of parameter in front of `ψ`.
#[derive(Clone, Debug)]
pub struct FrontSet<T> {
    /// Of what.
    pub kind: Kind,
    /// How the encoder depends on it.
    pub sensitivity: Sensitivity<T>,
    /// Traces of the synapses with this right-hand side, a stream an entry.
    pub traces: Vec<Traces<T>>,
}

impl<T: Real> FrontSet<T> {
    /// How many of its numbers are carried from chunk to chunk.
    fn numbers(&self, encode: &EncodeDims, lag: usize) -> usize {
        let traces = self.traces.iter().flat_map(Traces::named);
        self.sensitivity.numbers(encode, lag) + traces.map(|(_, v)| v.len()).sum::<usize>()
    }
}

impl<T: Real> Front<T> {
    fn new(spec: &Spec<T>, params: FrontParams, steps: usize) -> Self {
        let (encode, membrane) = (&spec.encode, spec.membrane);
        let sets = Kind::all(encode, params.currents, params.steps).into_iter().map(|kind| FrontSet {
            kind,
            sensitivity: Sensitivity::new(kind, encode, membrane.lag(), steps, spec.kernel != T::zero()),
            traces: vec![Traces::of_synapses(&spec.dims, membrane == Membrane::Traces); encode.streams],
        });
        Self { sets: sets.collect(), d_psi: Vec::new(), price: T::zero(), projection: Vec::new(), delta: Vec::new() }
    }

    /// Everything carried from chunk to chunk, by name.
    fn carried(&mut self, encode: &EncodeDims, lag: usize) -> Vec<(String, &mut [T])> {
        let mut all: Vec<(String, &mut [T])> = Vec::new();
        for FrontSet { kind, sensitivity, traces } in &mut self.sets {
            let kind = kind.name();
            let local = sensitivity.carried(encode, lag).into_iter().filter(|(_, v)| !v.is_empty());
            all.extend(local.map(|(name, v)| (format!("front.{kind}.{name}"), v)));
            for (b, traces) in traces.iter_mut().enumerate() {
                let traces = traces.named_mut().into_iter();
                all.extend(traces.map(|(name, v)| (format!("front.{kind}.trace.{name}.{b}"), &mut v[..])));
            }
        }
        all
    }

    /// Puts one stream to rest.
    fn reset(&mut self, encode: &EncodeDims, lag: usize, stream: usize) {
        let (wide, j) = (encode.streams * encode.neurons(), encode.neurons());
        for set in &mut self.sets {
            set.traces[stream].reset();
            for (_, values) in set.sensitivity.carried(encode, lag) {
                for row in values.chunks_exact_mut(wide) {
                    row[stream * j..][..j].fill(T::zero());
                }
            }
        }
    }
}

/// Buffers that the blocks of a group share.
#[derive(Clone, Debug, Default)]
pub struct Shared<T> {
    d_psi: Vec<T>,
    ds: Vec<T>,
    dx: Vec<T>,
    dp: Vec<T>,
    dz: Vec<T>,
    dynamics: Option<DynamicsGrads<T>>,
    encode: EncodeScratch<T>,
}

/// Adds to `d_psi` `[rows, J]` what the gradients of the projections `[rows, D + 2N]` and of `z` `[rows, H]` want of it.
fn through_projections<T: Real>(dims: &Dims, readers: Readers<'_, T>, dp: &[T], dz: &[T], d_psi: &mut [T]) {
    let (j, projected, heads) = (dims.inputs, dims.projected(), dims.heads);
    let rows = d_psi.len() / j;
    let weights = (readers.projection, View::new(projected, j));
    matmul((d_psi, View::new(rows, j)), (dp, View::new(rows, projected)), weights, T::one());
    if dims.delta_inputs == j {
        let weights = (readers.delta, View::new(heads, j));
        matmul((d_psi, View::new(rows, j)), (dz, View::new(rows, heads)), weights, T::one());
    } else {
        performed::note(rows * heads * dims.delta_inputs);
        for (d_psi, dz) in d_psi.chunks_exact_mut(j).zip(dz.chunks_exact(heads)) {
            let groups = d_psi.chunks_exact_mut(dims.delta_inputs).zip(readers.delta.chunks_exact(dims.delta_inputs));
            for ((d_psi, w), &dz) in groups.zip(dz) {
                crate::kernels::axpy(dz, w, d_psi);
            }
        }
    }
}

fn dynamics<'a, T>(params: &BlockParams<&'a [T]>) -> Dynamics<'a, T> {
    Dynamics {
        bias: params.bias,
        a_log: params.a_log,
        skip: params.skip,
        current: params.post_current,
        step: params.post_step,
    }
}

impl<T: Real> Block<T> {
    /// At rest, for chunks of up to `steps` steps.
    #[must_use]
    pub fn new(spec: Spec<T>, steps: usize) -> Self {
        let dims = spec.dims;
        let g = spec.streams();
        let (window, rows) = ((spec.membrane.lag() + steps) * g, steps * g);
        let zeros = |n: usize| vec![T::zero(); n];
        let width = spec.encode.channels;
        let kernel = spec.kernel != T::zero();
        let carries = spec.rule.carries;
        let front = spec.front.filter(|_| carries).map(|params| Front::new(&spec, params, steps));
        Self {
            front,
            spec,
            h: zeros(g * dims.states()),
            encode: EncodeTape::new(&spec.encode, steps, kernel),
            psi: zeros(window * dims.inputs),
            tape: ScanTape {
                p: zeros(window * dims.projected()),
                delta: zeros(window * dims.heads),
                a: zeros(if dims.decay == Decay::Head { window * dims.heads } else { 0 }),
                v: zeros((window + g) * dims.channels),
                h0: zeros(g * dims.states()),
                rates: zeros((spec.membrane.lag() + 1) * dims.decays()),
                skips: zeros((spec.membrane.lag() + 1) * dims.channels),
                steps: Vec::new(),
            },
            s: zeros(rows * dims.channels),
            adjoint: Adjoint { h: zeros(g * dims.states()), v: zeros(g * dims.channels) },
            encode_adjoint: EncodeAdjoint::new(&spec.encode, kernel),
            traces: (0..if carries { g } else { 0 })
                .map(|_| Traces::new(&dims, spec.membrane == Membrane::Traces))
                .collect(),
            encode_grads: EncodeGrads::zero(&spec.encode),
            dynamics_grads: DynamicsGrads::zero(&dims),
            step_credit: zeros(dims.heads * dims.delta_inputs),
            z: zeros(rows * dims.heads),
            y: zeros(rows * width),
            gate: zeros(rows * width),
            inverse_rms: zeros(rows),
            dp: Vec::new(),
            dz: Vec::new(),
            dy: Vec::new(),
            d_gate: Vec::new(),
            events: Events::default(),
            scratch: Scratch::default(),
        }
    }

    fn encode_params<'a>(&self, params: &BlockParams<&'a [T]>) -> EncodeParams<'a, T> {
        EncodeParams {
            gain: params.gain,
            current: params.current,
            conv: params.conv,
            delays: params.delays,
            kernel: self.spec.kernel,
            step: params.pre_step,
        }
    }

    /// Presynaptic spikes of the chunk `[K, streams, J]`.
    #[must_use]
    pub fn spikes_in(&self, steps: usize) -> &[T] {
        self.encode.spikes(&self.spec.encode, steps)
    }

    /// `ψ` of the chunk `[K, streams, J]`.
    #[must_use]
    pub fn psi_of_chunk(&self, steps: usize) -> &[T] {
        let row = self.spec.streams() * self.spec.dims.inputs;
        &self.psi[self.spec.membrane.lag() * row..][..steps * row]
    }

    /// `ψ` of the history in front of the chunk `[lag, streams, J]`.
    #[must_use]
    pub fn psi_before_chunk(&self) -> &[T] {
        &self.psi[..self.spec.membrane.lag() * self.spec.streams() * self.spec.dims.inputs]
    }

    /// `ψ` of the first `steps` steps of the window `[steps, streams, J]`, over which the traces advance.
    #[must_use]
    pub fn psi_of_window(&self, steps: usize) -> &[T] {
        &self.psi[..steps * self.spec.streams() * self.spec.dims.inputs]
    }

    /// Postsynaptic spikes of the chunk `[K, streams, D]`.
    #[must_use]
    pub fn spikes_out(&self, steps: usize) -> &[T] {
        &self.s[..steps * self.spec.streams() * self.spec.dims.channels]
    }

    /// Membrane potentials after the chunk `[streams, D]`.
    #[must_use]
    pub fn last_potentials(&self, steps: usize) -> &[T] {
        let row = self.spec.streams() * self.spec.dims.channels;
        &self.tape.v[(self.spec.membrane.lag() + steps) * row..][..row]
    }

    /// Runs `steps` steps on folded weights ([`crate::fold`]) and adds the block's output to `x` `[K, streams, width]`. Products of
    /// weights whose `columns` are there are made from events.
    pub fn forward(
        &mut self,
        params: &BlockParams<&[T]>,
        columns: Option<&BlockColumns<T>>,
        steps: usize,
        x: &mut [T],
    ) {
        let Spec { dims, encode: encoder, .. } = self.spec;
        let span = self.spec.span(steps);
        let (g, width, j) = (span.streams, encoder.channels, dims.inputs);
        let (rows, lag) = (steps * g, span.lag * g);
        let encode_params = self.encode_params(params);
        row::normalize(width, x, &mut self.encode.x[(encoder.conv - 1) * g * width..], &mut self.inverse_rms);
        let psi = &mut self.psi[lag * j..][..rows * j];
        encode::forward(&encoder, &self.spec.pre, &encode_params, steps, &mut self.encode, psi);
        for FrontSet { kind, sensitivity, .. } in self.front.iter_mut().flat_map(|f| &mut f.sets) {
            sensitivity.forward(*kind, &encoder, &self.spec.pre, &encode_params, span, &self.encode);
        }
        let psi = &*psi;
        let [projection, delta, gate, out] =
            columns.map_or([None; 4], |c| [&c.projection, &c.delta, &c.gate, &c.out].map(Option::as_ref));
        if [projection, delta, gate].iter().any(Option::is_some) {
            self.events.gather(j, psi);
        }
        let projected = dims.projected();
        let p = &mut self.tape.p[lag * projected..][..rows * projected];
        synapses((p, projected), (psi, j), params.projection, projection, &self.events, false);
        let z = &mut self.z[..rows * dims.heads];
        if dims.delta_inputs == j {
            synapses((z, dims.heads), (psi, j), params.delta, delta, &self.events, false);
        } else {
            let weights = params.delta.chunks_exact(dims.delta_inputs);
            performed::note(rows * dims.heads * dims.delta_inputs);
            for (z, psi) in z.chunks_exact_mut(dims.heads).zip(psi.chunks_exact(j)) {
                for ((z, w), psi) in z.iter_mut().zip(weights.clone()).zip(psi.chunks_exact(dims.delta_inputs)) {
                    *z = dot(w, psi);
                }
            }
        }
        if let Some(weights) = params.gate {
            let z = &mut self.gate[..rows * width];
            synapses((z, width), (psi, j), weights, gate, &self.events, false);
        }
        if !self.spec.rule.carries {
            self.tape.h0.copy_from_slice(&self.h);
        }
        let dynamics = dynamics(params);
        scan::step_sizes(&dims, &dynamics, span, &self.z, &mut self.tape);
        let s = &mut self.s[..rows * dims.channels];
        scan::forward(&dims, &self.spec.post, &dynamics, span, &mut self.tape, &mut self.h, s, &mut self.scratch);
        let s = &*s;
        if out.is_some() {
            self.events.gather(dims.channels, s);
        }
        let x = &mut x[..rows * width];
        if params.gate.is_none() {
            return synapses((x, width), (s, dims.channels), params.out, out, &self.events, true);
        }
        let y = &mut self.y[..rows * width];
        synapses((y, width), (s, dims.channels), params.out, out, &self.events, false);
        row::gate(y, &self.gate[..rows * width], x);
    }

    /// Adds the price of each postsynaptic spike to the gradient of the levels.
    fn price_levels(&self, weight: T, ds: &mut [T]) {
        let zero = T::zero();
        if weight > zero {
            for (ds, &s) in ds.iter_mut().zip(&self.s) {
                *ds += if s > zero {
                    weight
                } else if s < zero {
                    -weight
                } else {
                    zero
                };
            }
        }
    }

    /// The price is on spikes, not on what they arrive as: takes it out of what the scan made the steps' gradient of it.
    fn price_steps(&mut self, weight: T, rows: usize) {
        let d = self.spec.dims.channels;
        for row in self.s[..rows * d].chunks_exact(d) {
            for (d_step, s) in self.dynamics_grads.step.iter_mut().zip(row) {
                *d_step -= weight * s.abs();
            }
        }
    }

    /// Reverse mode over the window: `dx` `[K, streams, width]` enters as the gradient of the block's output and leaves as
    /// that of its input. Unless `chained`, no credit comes from later chunks; unless `priced`, spikes cost nothing.
    pub fn reverse(
        &mut self,
        params: &BlockParams<&[T]>,
        steps: usize,
        dx: &mut [T],
        (chained, priced): (bool, bool),
        shared: &mut Shared<T>,
    ) {
        let Spec { dims, encode: encoder, rule, .. } = self.spec;
        let span = self.spec.span(steps);
        let (g, width, j) = (span.streams, encoder.channels, dims.inputs);
        let (rows, lag, window) = (steps * g, span.lag * g, span.window() * g);
        let (projected, d, heads) = (dims.projected(), dims.channels, dims.heads);
        let zero = T::zero();
        if !chained {
            self.adjoint.h.fill(zero);
            self.adjoint.v.fill(zero);
            self.encode_adjoint.parts_mut().into_iter().for_each(|p| p.fill(zero));
        }
        self.encode_grads.clear();
        self.dynamics_grads.clear();
        for (buffer, len) in [
            (&mut self.dp, window * projected),
            (&mut self.dz, window * heads),
            (&mut self.dy, rows * width),
            (&mut self.d_gate, if params.gate.is_some() { rows * width } else { 0 }),
            (&mut shared.d_psi, rows * j),
            (&mut shared.ds, rows * d),
            (&mut shared.dx, rows * width),
        ] {
            buffer.resize(len, zero);
        }
        if let Some(gate) = params.gate {
            row::gate_reverse(&self.y, &self.gate, &dx[..rows * width], &mut self.dy, &mut self.d_gate);
            let d_gate = (&self.d_gate[..], View::new(rows, width));
            matmul((&mut shared.d_psi, View::new(rows, j)), d_gate, (gate, View::new(width, j)), zero);
        } else {
            self.dy.copy_from_slice(&dx[..rows * width]);
            shared.d_psi.fill(zero);
        }
        let dy = (&self.dy[..], View::new(rows, width));
        matmul((&mut shared.ds, View::new(rows, d)), dy, (params.out, View::new(width, d)), zero);
        let [price_in, weight] = if priced { self.spec.prices(steps) } else { [zero; 2] };
        self.price_levels(weight, &mut shared.ds);
        let post = self.spec.post;
        let (own_dp, own_dz);
        if rule.across == rule.own {
            (own_dp, own_dz) = (&mut self.dp, &mut self.dz);
        } else {
            // what goes down stays within the step; the block's own gradient does not
            shared.dp.resize(window * projected, zero);
            shared.dz.resize(window * heads, zero);
            let unused = shared.dynamics.get_or_insert_with(|| DynamicsGrads::zero(&dims));
            let mut none = Adjoint { h: vec![zero; self.adjoint.h.len()], v: vec![zero; self.adjoint.v.len()] };
            let mut grads = ScanGrads { p: &mut shared.dp, z: &mut shared.dz, dynamics: unused };
            let (tape, scratch) = (&self.tape, &mut self.scratch);
            scan::reverse(&dims, &post, span, tape, &shared.ds, rule.across, &mut none, &mut grads, scratch);
            (own_dp, own_dz) = (&mut self.dp, &mut self.dz);
        }
        let mut grads = ScanGrads { p: own_dp, z: own_dz, dynamics: &mut self.dynamics_grads };
        let (tape, scratch, adjoint) = (&self.tape, &mut self.scratch, &mut self.adjoint);
        scan::reverse(&dims, &post, span, tape, &shared.ds, rule.own, adjoint, &mut grads, scratch);
        if params.post_step.is_some() {
            self.price_steps(weight, rows);
        }
        let (dp, dz) = if rule.across == rule.own { (&self.dp, &self.dz) } else { (&shared.dp, &shared.dz) };
        let (dp, dz) = (&dp[lag * projected..], &dz[lag * heads..]);
        let d_psi = &mut shared.d_psi;
        let readers = Readers { projection: params.projection, delta: params.delta };
        if let Some(front) = &mut self.front {
            // what is wanted of ψ by the block's own credit: in the history too, and in the chunk where it differs from what goes down
            let differs = rule.across != rule.own;
            front.d_psi.clear();
            front.d_psi.resize(window * j, zero);
            if differs {
                front.d_psi[lag * j..].copy_from_slice(d_psi);
            }
            let rows = if differs { window } else { lag };
            through_projections(&dims, readers, &self.dp, &self.dz, &mut front.d_psi[..rows * j]);
            front.price = price_in;
            for (to, from) in [(&mut front.projection, params.projection), (&mut front.delta, params.delta)] {
                to.clear();
                to.extend_from_slice(from);
            }
        }
        through_projections(&dims, readers, dp, dz, d_psi);
        if let Some(front) = self.front.as_mut().filter(|_| rule.across == rule.own) {
            front.d_psi[lag * j..].copy_from_slice(d_psi);
        }
        let encode_params = self.encode_params(params);
        encode::reverse(
            &encoder,
            &self.spec.pre,
            &encode_params,
            steps,
            &self.encode,
            d_psi,
            (rule.across.state, price_in),
            &mut self.encode_adjoint,
            &mut self.encode_grads,
            &mut shared.dx,
            &mut shared.encode,
        );
        let x = &self.encode.x[(encoder.conv - 1) * g * width..][..rows * width];
        row::normalize_reverse(width, x, &self.inverse_rms, &shared.dx, dx);
    }

    /// Adds the gradients of the projections from the window, and the credit that the traces carry from before it; that
    /// through the step sizes only `with_steps`.
    pub fn synapse_grads(&self, steps: usize, with_steps: bool, grads: &mut CreditGrads<'_, T>) {
        let dims = self.spec.dims;
        let span = self.spec.span(steps);
        let (j, projected, heads, jd) = (dims.inputs, dims.projected(), dims.heads, dims.delta_inputs);
        let window = span.window() * span.streams;
        let psi = (&self.psi[..], View::new(window, j));
        let dp = (&self.dp[..], View::new(window, projected).t());
        matmul((grads.projection, View::new(projected, j)), dp, psi, T::one());
        if jd == j {
            let dz = (&self.dz[..], View::new(window, heads).t());
            matmul((grads.delta, View::new(heads, j)), dz, psi, T::one());
        } else {
            performed::note(window * heads * jd);
            for (psi, dz) in self.psi.chunks_exact(j).zip(self.dz.chunks_exact(heads)) {
                for ((out, psi), &dz) in grads.delta.chunks_exact_mut(jd).zip(psi.chunks_exact(jd)).zip(dz) {
                    crate::kernels::axpy(dz, psi, out);
                }
            }
        }
        for (to, from) in [
            (&mut grads.dynamics.bias, &self.dynamics_grads.bias),
            (&mut grads.dynamics.a_log, &self.dynamics_grads.a_log),
            (&mut grads.dynamics.skip, &self.dynamics_grads.skip),
            (&mut grads.dynamics.current, &self.dynamics_grads.current),
            (&mut grads.dynamics.step, &self.dynamics_grads.step),
        ] {
            crate::kernels::add(from, to);
        }
        for (b, traces) in self.traces.iter().enumerate() {
            trace::contract(&dims, traces, &self.adjoint, b, with_steps, grads);
        }
    }

    /// Gradients of what stands in front of `ψ`, where it has traces: in place of [`Block::encode_grads`], which come from inside the
    /// chunk alone.
    #[must_use]
    pub fn front_grads(&self, steps: usize) -> Option<EncodeGrads<T>> {
        let front = self.front.as_ref()?;
        let Spec { dims, encode, .. } = &self.spec;
        let span = self.spec.span(steps);
        let mut sums = vec![vec![T::zero(); dims.inputs]; front.sets.len()];
        let spikes = (front.price, self.spikes_in(steps));
        for (set, sums) in front.sets.iter().zip(&mut sums) {
            set.sensitivity.add_credit(encode, span, &front.d_psi, spikes, sums);
        }
        let readers = Readers { projection: &front.projection, delta: &front.delta };
        for b in 0..span.streams {
            let traces: Vec<&Traces<T>> = front.sets.iter().map(|set| &set.traces[b]).collect();
            trace::contract_sides(dims, readers, &self.adjoint, b, &traces, &mut sums);
        }
        let mut grads = EncodeGrads::zero(encode);
        for (set, sums) in front.sets.iter().zip(&sums) {
            front::add_grads(set.kind, encode, sums, &mut grads);
        }
        Some(grads)
    }

    /// Takes over the traces, and nothing else, of a block of the same shape.
    pub(crate) fn take_traces(&mut self, from: &Self) {
        self.traces.clone_from(&from.traces);
        if let (Some(front), Some(from)) = (&mut self.front, &from.front) {
            front.sets.clone_from(&from.sets);
        }
    }

    /// Numbers of all streams' eligibility traces.
    #[must_use]
    pub fn trace_numbers(&self) -> usize {
        let own: usize = self.traces.iter().flat_map(Traces::named).map(|(_, v)| v.len()).sum();
        let sets = self.front.iter().flat_map(|front| &front.sets);
        let beside: usize = sets.map(|set| set.numbers(&self.spec.encode, self.spec.membrane.lag())).sum();
        own + beside
    }

    /// Adds the gradients of `W_out` and the gate.
    pub fn output_grads(&self, steps: usize, out: &mut [T], gate: Option<&mut [T]>) {
        let dims = self.spec.dims;
        let (rows, width) = (steps * self.spec.streams(), self.spec.encode.channels);
        let s = (&self.s[..], View::new(rows, dims.channels));
        matmul((out, View::new(width, dims.channels)), (&self.dy, View::new(rows, width).t()), s, T::one());
        if let Some(gate) = gate {
            let psi = (self.psi_of_chunk(steps), View::new(rows, dims.inputs));
            matmul((gate, View::new(width, dims.inputs)), (&self.d_gate, View::new(rows, width).t()), psi, T::one());
        }
    }

    /// Ends the chunk: traces advance if credit is carried, and what the next chunk needs moves to the front. With
    /// `with_credit`, [`Block::step_credit`] is afterwards the credit that [`Block::synapse_grads`] left out.
    pub fn finish(&mut self, steps: usize, with_credit: bool) {
        let dims = self.spec.dims;
        let span = self.spec.span(steps);
        self.step_credit.fill(T::zero());
        for (b, traces) in self.traces.iter_mut().enumerate() {
            let (tape, scratch) = (&mut self.tape, &mut self.scratch);
            let states = dims.states();
            let adjoint = &self.adjoint.h[b * states..][..states];
            let credit = with_credit.then_some(StepCredit { adjoint, delta: &mut self.step_credit });
            let sets = self.front.iter_mut().flat_map(|front| &mut front.sets);
            let sides = sets.map(|set| Side { rhs: &set.sensitivity.e, traces: &mut set.traces[b] });
            let (post, mut sides) = (&self.spec.post, sides.collect::<Vec<_>>());
            trace::advance(&dims, post, span, tape, &self.psi, b, traces, &mut sides, credit, scratch);
        }
        for set in self.front.iter_mut().flat_map(|front| &mut front.sets) {
            set.sensitivity.shift(&self.spec.encode, span);
        }
        let g = span.streams;
        let new = &self.psi[span.lag * g * dims.inputs..];
        self.encode.shift(&self.spec.encode, steps, new);
        let shift = |v: &mut Vec<T>, columns: usize, rows: usize| {
            v.copy_within(steps * g * columns..(steps + rows) * g * columns, 0);
        };
        shift(&mut self.psi, dims.inputs, span.lag);
        shift(&mut self.tape.p, dims.projected(), span.lag);
        shift(&mut self.tape.delta, dims.heads, span.lag);
        if dims.decay == Decay::Head {
            shift(&mut self.tape.a, dims.heads, span.lag);
        }
        shift(&mut self.tape.v, dims.channels, span.lag + 1);
        self.tape.shift_in_force(&dims, span.lag, steps);
    }

    /// Everything that is carried from chunk to chunk, by name; a whole number of rows of all streams each, but for `rates` and
    /// `skips`, which all streams share.
    pub fn carried(&mut self) -> Vec<(String, &mut [T])> {
        let dims = self.spec.dims;
        let (g, lag) = (self.spec.streams(), self.spec.membrane.lag());
        let mut all: Vec<(String, &mut [T])> = vec![("h".into(), &mut self.h)];
        all.push(("v".into(), &mut self.tape.v[..(lag + 1) * g * dims.channels]));
        if self.spec.rule.carries {
            all.push(("h0".into(), &mut self.tape.h0));
        }
        if lag > 0 {
            all.push(("psi".into(), &mut self.psi[..lag * g * dims.inputs]));
            all.push(("p".into(), &mut self.tape.p[..lag * g * dims.projected()]));
            all.push(("delta".into(), &mut self.tape.delta[..lag * g * dims.heads]));
            if dims.decay == Decay::Head {
                all.push(("a".into(), &mut self.tape.a[..lag * g * dims.heads]));
            }
            all.push(("rates".into(), &mut self.tape.rates[..lag * dims.decays()]));
            all.push(("skips".into(), &mut self.tape.skips[..lag * dims.channels]));
        }
        let encode = self.encode.carried(&self.spec.encode);
        all.extend(encode.into_iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (format!("pre.{n}"), v)));
        for (b, traces) in self.traces.iter_mut().enumerate() {
            all.extend(traces.named_mut().into_iter().map(|(n, v)| (format!("trace.{n}.{b}"), &mut v[..])));
        }
        if let Some(front) = &mut self.front {
            all.extend(front.carried(&self.spec.encode, lag));
        }
        all
    }

    /// Takes over state and histories, but no credit, from a block of the same shape (its lag may differ).
    pub fn copy_state(&mut self, from: &mut Self) {
        let row = self.spec.streams() * self.spec.dims.channels;
        self.tape.a.fill(T::one()); // rows of history that never were: they leave the state as it is
        let (to, at) = (self.spec.membrane.lag() * row, from.spec.membrane.lag() * row);
        self.h.copy_from_slice(&from.h);
        self.tape.h0.copy_from_slice(&from.h);
        self.tape.v[to..to + row].copy_from_slice(&from.tape.v[at..at + row]);
        let encode = self.spec.encode;
        for ((_, to), (_, from)) in self.encode.carried(&encode).into_iter().zip(from.encode.carried(&encode)) {
            to.copy_from_slice(from);
        }
    }

    /// Puts one stream to rest.
    pub fn reset(&mut self, stream: usize) {
        let spec = self.spec;
        if let Some(traces) = self.traces.get_mut(stream) {
            traces.reset();
        }
        if let Some(front) = &mut self.front {
            front.reset(&spec.encode, spec.membrane.lag(), stream);
        }
        for (name, values) in self.carried() {
            let columns = match name.as_str() {
                "h" | "h0" => {
                    let states = spec.dims.states();
                    values[stream * states..][..states].fill(T::zero());
                    continue;
                }
                "v" => spec.dims.channels,
                "p" => spec.dims.projected(),
                "delta" | "a" => spec.dims.heads,
                "pre.x" => spec.encode.channels,
                "psi" | "pre.v" | "pre.s" | "pre.psi" => spec.dims.inputs,
                _ => continue, // traces and what is in front of ψ, above, and what is not a stream's
            };
            for row in values.chunks_exact_mut(spec.streams() * columns) {
                row[stream * columns..][..columns].fill(T::zero());
            }
        }
    }

    /// Forgets what later chunks want of one stream: it began anew after this chunk.
    pub fn cut_adjoint(&mut self, stream: usize) {
        let g = self.spec.streams();
        let Adjoint { h, v } = &mut self.adjoint;
        for part in [&mut h[..], v].into_iter().take(2) {
            let per_stream = part.len() / g; // both are stream-major
            part[stream * per_stream..][..per_stream].fill(T::zero());
        }
        let Spec { encode, dims, .. } = self.spec;
        let columns = [encode.channels, dims.inputs, dims.inputs, dims.inputs];
        for (part, columns) in self.encode_adjoint.parts_mut().into_iter().zip(columns) {
            for row in part.chunks_exact_mut(g * columns) {
                row[stream * columns..][..columns].fill(T::zero());
            }
        }
    }
}
