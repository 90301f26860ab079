//! One block on a device, all streams together: what [`crate::block`] does, in launches that do not grow with the steps.

use learner::Result;
use learner::product::View;

use super::machine::{Arg, At, Grid, Machine, Source, matrix};
use super::scratch::Scratch;
use super::traces::Traces;
use crate::block::Spec;
use crate::config::{NeuronConfig, Step};
use crate::kernels::neuron::Neuron;
use crate::kernels::{Decay, row};
use crate::params::BlockParams;
use crate::rule::Membrane;

/// Where the constants that all neurons of a population share end, and their own steps begin.
pub(super) const STEPS: usize = 14;
/// The constant that says whether steps follow.
const OWN_STEPS: usize = 13;
/// Threads that sum a row.
pub(super) const ROW: usize = 128;

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
    pub c: M::Buffer,
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
    pub y: M::Buffer,
    pub gate: M::Buffer,
    pub inverse_rms: M::Buffer,
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
            traces: if spec.rule.carries {
                Some(Traces::new(machine, &sizes, spec.membrane == Membrane::Traces)?)
            } else {
                None
            },
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

    pub(super) fn encode_sizes(&self, steps: usize) -> Vec<Arg<'_, M>> {
        let Sizes { b, width, population, conv, silu, delays, .. } = self.sizes;
        [steps, b, width, population, conv, usize::from(silu), delays].map(Arg::Size).into()
    }

    pub(super) fn scan_sizes(&self, steps: usize) -> Vec<Arg<'_, M>> {
        let Sizes { b, d, n, heads, per_state, lag, .. } = self.sizes;
        [lag, steps, b, d, n, heads, usize::from(per_state)].map(Arg::Size).into()
    }

    fn last_psi(&self) -> Arg<'_, M> {
        self.pre_psi.as_ref().map_or(Arg::Null, Arg::all)
    }

    /// Takes over the state that another block of the same shape, without history, has behind its chunk of `steps` steps.
    pub fn continue_from(&self, machine: &M, from: &Self, steps: usize) -> Result<()> {
        let Sizes { b, width, j, d, conv, delays, .. } = self.sizes;
        let mut all = vec![
            (&from.h, 0, &self.h, b * self.sizes.layer()),
            (&from.v, steps * b * d, &self.v, b * d),
            (&from.x, steps * b * width, &self.x, (conv - 1) * b * width),
            (&from.pre_v, steps * b * j, &self.pre_v, b * j),
            (&from.pre_s, steps * b * j, &self.pre_s, (delays - 1) * b * j),
        ];
        all.extend(self.pre_psi.as_ref().map(|psi| (&from.psi, (steps - 1) * b * j, psi, b * j)));
        for (from, at, to, len) in all.into_iter().filter(|(.., len)| *len > 0) {
            let args = [Arg::Size(len), Arg::from(from, at), Arg::all(to)];
            machine.launch(Source::Network, "copy", Grid::over(len), &args)?;
        }
        Ok(())
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

    /// Puts the streams to rest that `marks` [streams] marks.
    pub fn reset(&self, machine: &M, marks: &M::Buffer) -> Result<()> {
        let b = self.sizes.b;
        for (_, buffer, kind) in self.carried() {
            let (rows, columns) = match kind {
                Carried::Rows { rows, columns } => (rows, columns),
                Carried::Streams { columns } => (1, columns),
                Carried::Shared { .. } => continue,
            };
            let args = [Arg::Size(rows), Arg::Size(b), Arg::Size(columns), Arg::all(marks), Arg::all(buffer)];
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

impl Carried {
    /// Numbers of so many streams.
    pub fn len(self, streams: usize) -> usize {
        match self {
            Self::Rows { rows, columns } => rows * streams * columns,
            Self::Streams { columns } => streams * columns,
            Self::Shared { len } => len,
        }
    }
}
