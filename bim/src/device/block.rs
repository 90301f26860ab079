//! One block on a device, all streams together: what [`crate::block`] does, in launches that do not grow with the steps.

use learner::Result;
use learner::product::View;

use super::machine::{Arg, At, Grid, Machine, Source, array, matrix};
use super::scratch::{Adjoints, Scratch};
use super::traces::Traces;
use crate::block::Spec;
use crate::config::{NeuronConfig, Step};
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::Through;
use crate::kernels::{Decay, row};
use crate::params::BlockParams;

/// Where the constants that all neurons of a population share end, and their own steps begin.
pub(super) const STEPS: usize = 14;
/// The constant that says whether steps follow.
const OWN_STEPS: usize = 13;
/// Threads that sum a row.
const ROW: usize = 128;

/// Where a parameter is in the array of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub at: usize,
    pub len: usize,
}

/// A neuron's constants for the kernels, with room for the steps of `count` neurons where they are learned.
pub(super) fn constants<M: Machine>(machine: &M, c: &NeuronConfig, count: usize) -> Result<M::Buffer> {
    let mut values = Neuron::<f32>::new(c).constants().to_vec();
    if c.step == Step::Learned {
        values[OWN_STEPS] = 1.0;
        values.resize(STEPS + count, 1.0);
    }
    let buffer = machine.zeros(values.len())?;
    machine.upload(&values, At(&buffer, 0))?;
    Ok(buffer)
}

/// Sizes of a block, by the names of the glossary in [`crate`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub b: usize,
    pub width: usize,
    pub population: usize,
    pub conv: usize,
    pub silu: bool,
    pub delays: usize,
    pub j: usize,
    pub d: usize,
    pub n: usize,
    pub heads: usize,
    /// Inputs of a head's step size.
    pub jd: usize,
    /// `D + 2N`.
    pub projected: usize,
    /// Decays, and whether there is one for each channel and state.
    pub decays: usize,
    pub per_state: bool,
    /// Steps of history in front of the chunk.
    pub lag: usize,
}

impl Sizes {
    pub fn of(spec: &Spec<f32>) -> Self {
        let (dims, encode) = (spec.dims, spec.encode);
        Self {
            b: encode.streams,
            width: encode.channels,
            population: encode.population,
            conv: encode.conv,
            silu: encode.silu,
            delays: encode.delays,
            j: dims.inputs,
            d: dims.channels,
            n: dims.state,
            heads: dims.heads,
            jd: dims.delta_inputs,
            projected: dims.projected(),
            decays: dims.decays(),
            per_state: dims.decay == Decay::ChannelState,
            lag: spec.membrane.lag(),
        }
    }

    /// Numbers of a stream's state.
    pub fn layer(&self) -> usize {
        self.n * self.d
    }

    /// Whether a head's step size reads its own neurons alone.
    pub fn grouped(&self) -> bool {
        self.jd != self.j
    }
}

/// State and activations of a block, for all streams. Names and layouts are those of [`crate::block::Block`].
pub(crate) struct Block<M: Machine> {
    pub spec: Spec<f32>,
    pub sizes: Sizes,
    /// Constants of the presynaptic and the postsynaptic neurons.
    pub neurons: [M::Buffer; 2],
    pub h: M::Buffer,
    pub x: M::Buffer,
    c: M::Buffer,
    pub pre_v: M::Buffer,
    pub pre_s: M::Buffer,
    pub pre_psi: Option<M::Buffer>,
    pub psi: M::Buffer,
    pub p: M::Buffer,
    pub delta: M::Buffer,
    pub a: M::Buffer,
    pub v: M::Buffer,
    pub h0: M::Buffer,
    pub rates: M::Buffer,
    pub skips: M::Buffer,
    pub s: M::Buffer,
    y: M::Buffer,
    gate: M::Buffer,
    inverse_rms: M::Buffer,
    pub traces: Option<Traces<M>>,
}

impl<M: Machine> Block<M> {
    /// At rest, for chunks of up to `steps` steps.
    pub fn new(machine: &M, spec: Spec<f32>, neurons: [&NeuronConfig; 2], steps: usize) -> Result<Self> {
        let sizes = Sizes::of(&spec);
        let Sizes { b, width, j, d, lag, .. } = sizes;
        let (window, rows) = ((lag + steps) * b, steps * b);
        let zeros = |n: usize| machine.zeros(n);
        Ok(Self {
            spec,
            sizes,
            neurons: [constants(machine, neurons[0], j)?, constants(machine, neurons[1], d)?],
            h: zeros(b * sizes.layer())?,
            x: zeros((sizes.conv - 1) * b * width + rows * width)?,
            c: zeros(if sizes.conv > 1 { rows * width } else { 0 })?,
            pre_v: zeros(b * j + rows * j)?,
            pre_s: zeros((sizes.delays - 1) * b * j + rows * j)?,
            pre_psi: if spec.kernel > 0.0 { Some(zeros(b * j)?) } else { None },
            psi: zeros(window * j)?,
            p: zeros(window * sizes.projected)?,
            delta: zeros(window * sizes.heads)?,
            a: zeros(if sizes.per_state { 0 } else { window * sizes.heads })?,
            v: zeros((window + b) * d)?,
            h0: zeros(b * sizes.layer())?,
            rates: zeros((lag + 1) * sizes.decays)?,
            skips: zeros((lag + 1) * d)?,
            s: zeros(rows * d)?,
            y: zeros(rows * width)?,
            gate: zeros(rows * width)?,
            inverse_rms: zeros(rows)?,
            traces: if spec.rule.carries { Some(Traces::new(machine, &sizes)?) } else { None },
        })
    }

    /// Runs `steps` steps on the (folded) weights `w` and adds the block's output to `x` `[K, streams, width]`; `z` `[K, streams, H]`
    /// is scratch.
    pub fn forward(
        &mut self,
        machine: &M,
        w: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        x: &M::Buffer,
        z: &M::Buffer,
    ) -> Result<()> {
        let Sizes { b, width, j, d, heads, jd, projected, lag, .. } = self.sizes;
        let (rows, before) = (steps * b, lag * b);
        let at = |place: Place| Arg::from(w, place.at);
        let maybe = |place: Option<Place>| Arg::maybe(place.map(|p| At(w, p.at)));
        let new_x = (self.sizes.conv - 1) * b * width;
        let epsilon = Arg::F32(row::NORM_EPSILON as f32);
        let args = [Arg::Size(width), epsilon, Arg::all(x), Arg::from(&self.x, new_x), Arg::all(&self.inverse_rms)];
        machine.launch(Source::Row, "normalize", Grid::of(rows, ROW), &args)?;
        let mut args = self.encode_sizes(steps);
        args.extend([Arg::F32(self.spec.kernel), Arg::all(&self.neurons[0]), at(params.gain), maybe(params.current)]);
        args.extend([maybe(params.conv), maybe(params.delays), Arg::all(&self.x), Arg::all(&self.c)]);
        args.extend([Arg::all(&self.pre_v), Arg::all(&self.pre_s), self.last_psi(), Arg::from(&self.psi, before * j)]);
        machine.launch(Source::Encode, "encode_forward", Grid::over_each(j, b), &args)?;
        let psi = || matrix(&self.psi, before * j, View::new(rows, j));
        let p = matrix(&self.p, before * projected, View::new(rows, projected));
        machine.product(1, p, psi(), matrix(w, params.projection.at, View::new(projected, j).t()), 0.0)?;
        if self.sizes.grouped() {
            let mut out = matrix(z, 0, View::strided(rows, 1, heads));
            let mut group = matrix(&self.psi, before * j, View::strided(rows, jd, j));
            let mut weights = matrix(w, params.delta.at, View::new(1, jd).t());
            (out.stride, group.stride, weights.stride) = (1, jd, jd);
            machine.product(heads, out, group, weights, 0.0)?;
        } else {
            let out = matrix(z, 0, View::new(rows, heads));
            machine.product(1, out, psi(), matrix(w, params.delta.at, View::new(heads, j).t()), 0.0)?;
        }
        if !self.spec.rule.carries {
            let n = b * self.sizes.layer();
            let args = [Arg::Size(n), Arg::all(&self.h), Arg::all(&self.h0)];
            machine.launch(Source::Network, "copy", Grid::over(n), &args)?;
        }
        self.step_sizes(machine, w, params, steps, z)?;
        let mut args = self.scan_sizes(steps);
        args.extend([Arg::all(&self.neurons[1]), Arg::all(&self.p), Arg::all(&self.delta), Arg::all(&self.a)]);
        args.extend([Arg::from(&self.rates, lag * self.sizes.decays), at(params.skip), maybe(params.post_current)]);
        args.extend([Arg::all(&self.v), Arg::all(&self.h), Arg::all(&self.s)]);
        machine.launch(Source::Scan, "state_forward", Grid::over_each(d, b), &args)?;
        let s = matrix(&self.s, 0, View::new(rows, d));
        let out = matrix(w, params.out.at, View::new(width, d).t());
        let Some(gate) = params.gate else {
            return machine.product(1, matrix(x, 0, View::new(rows, width)), s, out, 1.0);
        };
        machine.product(1, matrix(&self.y, 0, View::new(rows, width)), s, out, 0.0)?;
        let weights = matrix(w, gate.at, View::new(width, j).t());
        machine.product(1, matrix(&self.gate, 0, View::new(rows, width)), psi(), weights, 0.0)?;
        let args = [Arg::Size(rows * width), Arg::all(&self.y), Arg::all(&self.gate), Arg::all(x)];
        machine.launch(Source::Row, "gate", Grid::over(rows * width), &args)
    }

    fn step_sizes(
        &self,
        machine: &M,
        w: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        z: &M::Buffer,
    ) -> Result<()> {
        let Sizes { b, d, heads, decays, per_state, lag, .. } = self.sizes;
        let sizes = [lag, steps, b, d, heads, decays, usize::from(per_state)].map(Arg::Size);
        let mut args = Vec::from(sizes);
        args.push(Arg::all(z));
        args.extend([params.bias, params.a_log, params.skip].map(|p| Arg::from(w, p.at)));
        args.extend([&self.delta, &self.a, &self.rates, &self.skips].map(Arg::all));
        let count = (steps * b * heads).max(decays).max(d);
        machine.launch(Source::Network, "step_sizes", Grid::over(count), &args)
    }

    fn encode_sizes(&self, steps: usize) -> Vec<Arg<'_, M>> {
        let Sizes { b, width, population, conv, silu, delays, .. } = self.sizes;
        [steps, b, width, population, conv, usize::from(silu), delays].map(Arg::Size).into()
    }

    fn scan_sizes(&self, steps: usize) -> Vec<Arg<'_, M>> {
        let Sizes { b, d, n, heads, per_state, lag, .. } = self.sizes;
        [lag, steps, b, d, n, heads, usize::from(per_state)].map(Arg::Size).into()
    }

    fn last_psi(&self) -> Arg<'_, M> {
        self.pre_psi.as_ref().map_or(Arg::Null, Arg::all)
    }

    /// Reverse mode over the window: `dx` `[K, streams, width]` enters as the gradient of the block's output and leaves as that of its
    /// input. Adds the gradients of all parameters to `g`, those that the traces carry included.
    pub fn reverse(
        &self,
        machine: &M,
        (w, g): (&M::Buffer, &M::Buffer),
        params: &BlockParams<Place>,
        steps: usize,
        dx: &M::Buffer,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, width, j, d, heads, jd, projected, lag, .. } = self.sizes;
        let rows = steps * b;
        let rule = self.spec.rule;
        let Scratch { d_psi, ds, dy, d_gate, .. } = scratch;
        let [price_in, price_out] = self.spec.prices(steps);
        let on_psi = || matrix(d_psi, 0, View::new(rows, j));
        if let Some(gate) = params.gate {
            let count = rows * width;
            let mut args = vec![Arg::Size(count), Arg::all(&self.y), Arg::all(&self.gate), Arg::all(dx)];
            args.extend([Arg::all(dy), Arg::all(d_gate)]);
            machine.launch(Source::Row, "gate_reverse", Grid::over(count), &args)?;
            let weights = matrix(w, gate.at, View::new(width, j));
            machine.product(1, on_psi(), matrix(d_gate, 0, View::new(rows, width)), weights, 0.0)?;
        } else {
            let args = [Arg::Size(rows * width), Arg::all(dx), Arg::all(dy)];
            machine.launch(Source::Network, "copy", Grid::over(rows * width), &args)?;
        }
        let weights = matrix(w, params.out.at, View::new(width, d));
        machine.product(1, matrix(ds, 0, View::new(rows, d)), matrix(dy, 0, View::new(rows, width)), weights, 0.0)?;
        if let Some(step) = params.post_step {
            let potentials = At(&self.v, (lag + 1) * b * d);
            self.step_reverse(machine, (1, price_out), steps, potentials, ds, (g, step), scratch)?;
        }
        if price_out > 0.0 {
            let args = [Arg::Size(rows * d), Arg::F32(price_out), Arg::all(&self.s), Arg::all(ds)];
            machine.launch(Source::Network, "price_spikes", Grid::over(rows * d), &args)?;
        }
        scratch.adjoints.clear(machine)?;
        let down = if rule.across == rule.own {
            &scratch.own
        } else {
            // what goes down stays within the step; the block's own gradient does not
            self.scan_reverse(machine, steps, rule.across, &scratch.across, scratch)?;
            scratch.adjoints.clear(machine)?;
            &scratch.across
        };
        self.scan_reverse(machine, steps, rule.own, &scratch.own, scratch)?;
        let own = At(&down[0], lag * b * projected);
        let dp = super::machine::Matrix { at: own, view: View::new(rows, projected), stride: 0 };
        let keep = if params.gate.is_some() { 1.0 } else { 0.0 };
        machine.product(1, on_psi(), dp, matrix(w, params.projection.at, View::new(projected, j)), keep)?;
        let dz_at = lag * b * heads;
        if self.sizes.grouped() {
            let mut to = matrix(d_psi, 0, View::strided(rows, jd, j));
            let mut dz = matrix(&down[1], dz_at, View::strided(rows, 1, heads));
            let mut weights = matrix(w, params.delta.at, View::new(1, jd));
            (to.stride, dz.stride, weights.stride) = (jd, 1, jd);
            machine.product(heads, to, dz, weights, 1.0)?;
        } else {
            let dz = matrix(&down[1], dz_at, View::new(rows, heads));
            machine.product(1, on_psi(), dz, matrix(w, params.delta.at, View::new(heads, j)), 1.0)?;
        }
        // before the encoder, which spends what arrives of psi: the rest of the gradients reads the synapses' side alone
        self.dynamics_grads(machine, g, params, steps, scratch)?;
        self.synapse_grads(machine, g, params, steps, scratch)?;
        self.encode_reverse(machine, (w, g), params, (steps, price_in), scratch)?;
        let x = Arg::from(&self.x, (self.sizes.conv - 1) * b * width);
        let args = [Arg::Size(width), x, Arg::all(&self.inverse_rms), Arg::all(&scratch.dx), Arg::all(dx)];
        machine.launch(Source::Row, "normalize_reverse", Grid::of(rows, ROW), &args)
    }

    /// The scan backwards: leaves `dp` and `dz` in `to`.
    fn scan_reverse(
        &self,
        machine: &M,
        steps: usize,
        through: Through,
        to: &[M::Buffer; 2],
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, d, n, heads, lag, .. } = self.sizes;
        let Adjoints { buffer, at, .. } = &scratch.adjoints;
        let mut args = self.scan_sizes(steps);
        args.extend([through.state, through.membrane].map(|on| Arg::Size(usize::from(on))));
        args.extend([&self.neurons[1], &self.p, &self.delta, &self.a, &self.rates, &self.skips].map(Arg::all));
        args.extend([&self.v, &self.h0, &scratch.ds].map(Arg::all));
        args.extend([Arg::from(buffer, at[0]), Arg::from(buffer, at[1])]);
        args.extend([&scratch.states, &scratch.state_adjoints, &scratch.ly, &scratch.dz, &to[0]].map(Arg::all));
        args.extend([&scratch.d_skip, &scratch.d_current, &scratch.d_rate].map(Arg::all));
        machine.launch(Source::Scan, "state_reverse", Grid::over_each(d, b), &args)?;
        let mut args = Vec::from([b, d, n, heads].map(Arg::Size));
        args.extend([&self.p, &self.delta, &scratch.states, &scratch.state_adjoints].map(Arg::all));
        args.extend([&scratch.ly, &scratch.dz, &to[0], &to[1]].map(Arg::all));
        machine.launch(Source::Scan, "state_reverse_sums", Grid::of((lag + steps) * b, 32), &args)
    }

    /// Adds the gradients of what the scan has for itself.
    fn dynamics_grads(
        &self,
        machine: &M,
        g: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, d, heads, lag, per_state, .. } = self.sizes;
        let layer = self.sizes.layer();
        scratch.sum_rows(machine, ((lag + steps) * b, heads, 1), &scratch.own[1], At(g, params.bias.at))?;
        let (columns, per) = if per_state { (layer, 1) } else { (d, d / heads) };
        scratch.sum_rows(machine, (b, columns, per), &scratch.d_rate, At(g, params.a_log.at))?;
        scratch.sum_rows(machine, (b, d, 1), &scratch.d_skip, At(g, params.skip.at))?;
        if let Some(current) = params.post_current {
            scratch.sum_rows(machine, (b, d, 1), &scratch.d_current, At(g, current.at))?;
        }
        Ok(())
    }

    /// Adds the gradients of the projections from the window, the credit that the traces carry from before it, and the gradients of
    /// `W_out` and the gate.
    fn synapse_grads(
        &self,
        machine: &M,
        g: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, width, j, d, heads, jd, projected, lag, .. } = self.sizes;
        let (rows, window) = (steps * b, (lag + steps) * b);
        let [dp, dz] = &scratch.own;
        let psi = || matrix(&self.psi, 0, View::new(window, j));
        let to = matrix(g, params.projection.at, View::new(projected, j));
        machine.product(1, to, matrix(dp, 0, View::new(window, projected).t()), psi(), 1.0)?;
        if self.sizes.grouped() {
            let mut to = matrix(g, params.delta.at, View::new(1, jd));
            let mut of_heads = matrix(dz, 0, View::strided(window, 1, heads).t());
            let mut group = matrix(&self.psi, 0, View::strided(window, jd, j));
            (to.stride, of_heads.stride, group.stride) = (jd, 1, jd);
            machine.product(heads, to, of_heads, group, 1.0)?;
        } else {
            let to = matrix(g, params.delta.at, View::new(heads, j));
            machine.product(1, to, matrix(dz, 0, View::new(window, heads).t()), psi(), 1.0)?;
        }
        if let Some(traces) = &self.traces {
            traces.contract(machine, &self.sizes, g, params, scratch)?;
        }
        let s = matrix(&self.s, 0, View::new(rows, d));
        let dy = matrix(&scratch.dy, 0, View::new(rows, width).t());
        machine.product(1, matrix(g, params.out.at, View::new(width, d)), dy, s, 1.0)?;
        if let Some(gate) = params.gate {
            let d_gate = matrix(&scratch.d_gate, 0, View::new(rows, width).t());
            let psi = matrix(&self.psi, lag * b * j, View::new(rows, j));
            machine.product(1, matrix(g, gate.at, View::new(width, j)), d_gate, psi, 1.0)?;
        }
        Ok(())
    }

    fn encode_reverse(
        &self,
        machine: &M,
        (w, g): (&M::Buffer, &M::Buffer),
        params: &BlockParams<Place>,
        (steps, price): (usize, f32),
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, width, j, conv, delays, silu, population, .. } = self.sizes;
        let Adjoints { buffer, at, .. } = &scratch.adjoints;
        let [_, _, at_x, at_v, at_s, at_psi] = *at;
        let temporal = Arg::Size(usize::from(self.spec.rule.across.state));
        if let Some(step) = params.pre_step {
            // a learned step has neither delays nor a kernel behind it: what is wanted of psi is wanted of the spikes
            self.step_reverse(machine, (0, price), steps, At(&self.pre_v, b * j), &scratch.d_psi, (g, step), scratch)?;
        }
        let drive = || Arg::all(if params.conv.is_some() { &self.c } else { &self.x });
        let maybe = |place: Option<Place>| Arg::maybe(place.map(|p| At(w, p.at)));
        let mut args = self.encode_sizes(steps);
        args.extend([temporal, Arg::F32(price), Arg::F32(self.spec.kernel), Arg::all(&self.neurons[0])]);
        args.extend([maybe(params.delays), drive(), Arg::all(&self.pre_v), Arg::all(&self.pre_s)]);
        args.extend([Arg::all(&scratch.d_psi), Arg::from(buffer, at_v), Arg::from(buffer, at_s)]);
        args.push(if self.pre_psi.is_some() { Arg::from(buffer, at_psi) } else { Arg::Null });
        args.extend([&scratch.d_spikes, &scratch.d_input, &scratch.d_gain, &scratch.d_input_current].map(Arg::all));
        args.push(Arg::all(&scratch.d_delay));
        machine.launch(Source::Encode, "encode_reverse", Grid::over_each(j, b), &args)?;
        let temporal = Arg::Size(usize::from(self.spec.rule.across.state));
        let sizes = [steps, b, width, population, conv, usize::from(silu)].map(Arg::Size);
        let mut args = Vec::from(sizes);
        args.extend([temporal, Arg::from(w, params.gain.at), maybe(params.conv), drive(), Arg::all(&self.x)]);
        args.extend([Arg::all(&scratch.d_input), Arg::from(buffer, at_x)]);
        args.extend([&scratch.d_drive, &scratch.dx, &scratch.d_taps].map(Arg::all));
        machine.launch(Source::Encode, "encode_reverse_inputs", Grid::over_each(width, b), &args)?;
        scratch.sum_rows(machine, (b, j, 1), &scratch.d_gain, At(g, params.gain.at))?;
        for (place, columns, from) in [
            (params.current, j, &scratch.d_input_current),
            (params.conv, conv * width, &scratch.d_taps),
            (params.delays, delays * j, &scratch.d_delay),
        ] {
            if let Some(place) = place {
                scratch.sum_rows(machine, (b, columns, 1), from, At(g, place.at))?;
            }
        }
        Ok(())
    }

    /// Adds the gradient of the learned steps of one population, `which` of the two.
    fn step_reverse(
        &self,
        machine: &M,
        (which, price): (usize, f32),
        steps: usize,
        potentials: At<'_, M>,
        wanted: &M::Buffer,
        (g, place): (&M::Buffer, Place),
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let (b, count) = (self.sizes.b, place.len);
        let mut args = Vec::from([steps, b, count].map(Arg::Size));
        args.extend([Arg::F32(price), Arg::all(&self.neurons[which]), Arg::At(potentials)]);
        args.extend([Arg::all(wanted), Arg::all(&scratch.d_step)]);
        machine.launch(Source::Readout, "step_reverse", Grid::over_each(count, b), &args)?;
        scratch.sum_rows(machine, (b, count, 1), &scratch.d_step, At(g, place.at))
    }

    /// Ends the chunk: traces advance if credit is carried, and what the next chunk needs moves to the front.
    pub fn finish(&mut self, machine: &M, steps: usize, scratch: Option<&Scratch<M>>) -> Result<()> {
        if let (Some(traces), Some(scratch)) = (&self.traces, scratch) {
            traces.advance(machine, self, steps, scratch)?;
        }
        let Sizes { b, width, j, d, heads, projected, conv, delays, decays, lag, per_state, .. } = self.sizes;
        if let Some(last) = &self.pre_psi {
            let args = [Arg::Size(b * j), Arg::from(&self.psi, (lag + steps - 1) * b * j), Arg::all(last)];
            machine.launch(Source::Network, "copy", Grid::over(b * j), &args)?;
        }
        for (buffer, wide, rows) in [
            (&self.x, b * width, conv - 1),
            (&self.pre_v, b * j, 1),
            (&self.pre_s, b * j, delays - 1),
            (&self.psi, b * j, lag),
            (&self.p, b * projected, lag),
            (&self.delta, b * heads, lag),
            (&self.a, b * heads, if per_state { 0 } else { lag }),
            (&self.v, b * d, lag + 1),
        ] {
            if rows > 0 {
                let args = [Arg::Size(rows), Arg::Size(steps), Arg::Size(wide), Arg::all(buffer)];
                machine.launch(Source::Network, "shift_rows", Grid::over(wide), &args)?;
            }
        }
        if lag > 0 {
            for (buffer, len) in [(&self.rates, decays), (&self.skips, d)] {
                let args = [Arg::Size(lag), Arg::Size(steps), Arg::Size(len), Arg::all(buffer)];
                machine.launch(Source::Network, "shift_in_force", Grid::over(len), &args)?;
            }
        }
        Ok(())
    }

    /// Puts the marked streams to rest.
    pub fn reset(&self, machine: &M, marks: &[f32]) -> Result<()> {
        let marks = array(machine, marks)?;
        let b = self.sizes.b;
        for (_, buffer, kind) in self.carried() {
            let (rows, columns) = match kind {
                Carried::Rows { rows, columns } => (rows, columns),
                Carried::Streams { columns } => (1, columns),
                Carried::Shared { .. } => continue,
            };
            let args = [Arg::Size(rows), Arg::Size(b), Arg::Size(columns), Arg::all(&*marks), Arg::all(buffer)];
            machine.launch(Source::Network, "reset_streams", Grid::over_each(columns, b), &args)?;
        }
        Ok(())
    }

    /// Everything that is carried from chunk to chunk, by the names of [`crate::block::Block::carried`]; traces without their streams.
    pub fn carried(&self) -> Vec<(&'static str, &M::Buffer, Carried)> {
        let Sizes { b: _, width, j, d, heads, projected, conv, delays, decays, lag, per_state, .. } = self.sizes;
        let layer = self.sizes.layer();
        let rows = |rows: usize, columns: usize| Carried::Rows { rows, columns };
        let streams = |columns: usize| Carried::Streams { columns };
        let mut all = vec![("h", &self.h, streams(layer)), ("v", &self.v, rows(lag + 1, d))];
        if self.spec.rule.carries {
            all.push(("h0", &self.h0, streams(layer)));
        }
        if lag > 0 {
            all.push(("psi", &self.psi, rows(lag, j)));
            all.push(("p", &self.p, rows(lag, projected)));
            all.push(("delta", &self.delta, rows(lag, heads)));
            if !per_state {
                all.push(("a", &self.a, rows(lag, heads)));
            }
            all.push(("rates", &self.rates, Carried::Shared { len: lag * decays }));
            all.push(("skips", &self.skips, Carried::Shared { len: lag * d }));
        }
        if conv > 1 {
            all.push(("pre.x", &self.x, rows(conv - 1, width)));
        }
        all.push(("pre.v", &self.pre_v, rows(1, j)));
        if delays > 1 {
            all.push(("pre.s", &self.pre_s, rows(delays - 1, j)));
        }
        if let Some(psi) = &self.pre_psi {
            all.push(("pre.psi", psi, rows(1, j)));
        }
        if let Some(traces) = &self.traces {
            all.extend(traces.named(&self.sizes).map(|(name, buffer, columns)| (name, buffer, streams(columns))));
        }
        all
    }
}

/// How something that is carried is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// `[rows, streams, columns]`.
    Rows { rows: usize, columns: usize },
    /// `[streams, columns]`.
    Streams { columns: usize },
    /// The same for all streams.
    Shared { len: usize },
}
