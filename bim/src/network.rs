//! The network: embedding, blocks of spiking selective state spaces on a residual stream, output layer.
//!
//! Streams are dealt into groups that run independently of each other, forward and reverse through all layers; only weight
//! gradients bring them together, in a fixed order. Groups follow from the shape alone, so that results do not depend on
//! the number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Storage, Tensor};
use learner::{Error, Init, InputKind, Io, LayerValue, ParamSource, Result, Snapshot, performed};
use rayon::prelude::*;

use crate::block::{Block, Shared, Spec};
use crate::config::{BimConfig, DecayForm, DeltaInput, NeuronConfig, Step};
use crate::energy::Population;
use crate::fold::Folded;
use crate::frozen::{Frozen, synapses};
use crate::kernels::encode::{sign, step_gradient};
use crate::kernels::events::Events;
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::DynamicsGrads;
use crate::kernels::trace::CreditGrads;
use crate::kernels::{Real, add, row};
use crate::params::{BlockParams, NetworkParams};
use crate::rule::Membrane;
use learner::product::{View, matmul};

/// Rows of a group's matrices: enough to keep the matrix product busy, few enough to leave work for all cores.
const GROUP_ROWS: usize = 128;

/// A group of streams.
#[derive(Clone, Debug)]
pub struct Group<T> {
    /// Its first stream.
    pub first: usize,
    /// Number of streams.
    pub streams: usize,
    /// The blocks' state and activations.
    pub blocks: Vec<Block<T>>,
    readout: Option<Readout<T>>,
    /// What the read-out's neurons fired, where the output layer's product is made from events.
    events: Events<T>,
    tokens: Vec<u32>,
    pub(crate) frames: Vec<T>,
    pub(crate) x: Vec<T>,
    inverse_rms: Vec<T>,
    normed: Vec<T>,
    logits: Vec<T>,
    d_logits: Vec<T>,
    dx: Vec<T>,
    d_gain: Vec<T>,
    /// Of the logarithms of the read-out's steps.
    d_step: Vec<T>,
    d_scaled: Vec<T>,
    shared: Shared<T>,
}

/// Neurons in front of the output layer.
#[derive(Clone, Copy, Debug)]
struct Readout<T> {
    neuron: Neuron<T>,
    /// What a spike adds to the loss, times steps.
    penalty: f64,
    /// Streams of all groups.
    all_streams: usize,
}

/// The whole network over all streams.
pub struct Network<T> {
    io: Io,
    /// Names of the parameters.
    pub names: NetworkParams<String>,
    /// The parameters.
    pub params: NetworkParams<Tensor>,
    /// The streams, in groups.
    pub groups: Vec<Group<T>>,
    folded: Folded<T>,
    /// What was made of weights that do not change meanwhile; without it they are folded anew for every chunk.
    frozen: Option<Frozen<T>>,
    steps: usize,
    /// Multiplications carried out since they were last taken.
    pub(crate) performed: AtomicU64,
}

/// Calls `f` with the numbers of all parameters, held for reading meanwhile.
pub(crate) fn with_params<T: Real, R>(
    params: &NetworkParams<Tensor>,
    f: impl FnOnce(&NetworkParams<&[T]>) -> R,
) -> Result<R> {
    let held: Vec<_> = params.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: Vec<&[T]> = Vec::with_capacity(held.len());
    for (storage, layout) in &held {
        match (&**storage, layout.contiguous_offsets()) {
            (Storage::Cpu(cpu), Some((start, end))) => slices.push(&T::cpu_storage_as_slice(cpu)?[start..end]),
            _ => return Err(Error::shape("parameter", "contiguous in host memory", layout)),
        }
    }
    let mut next = slices.into_iter();
    let params = params.map(|_| next.next().unwrap_or_default()); // one slice for each tensor, in the same order
    Ok(f(&params))
}

/// How many steps an input has: `[B, K]` tokens or `[B, K, F]` frames.
///
/// # Errors
/// If its shape is not the one the network was built for.
pub(crate) fn steps_of(io: &Io, x: &Tensor) -> Result<usize> {
    let dims = x.dims();
    let expected = match io.input {
        InputKind::Tokens { .. } => dims.len() == 2,
        InputKind::Frames { width } => dims.len() == 3 && dims[2] == width,
    };
    if !expected || dims[0] != io.streams || dims[1] == 0 || dims[1] > io.segment {
        let want = format!("{:?} of {} streams and 1 to {} steps", io.input, io.streams, io.segment);
        return Err(Error::shape("input", want, dims));
    }
    Ok(dims[1])
}

/// Streams that are run together, so that a chunk of them is a good size for a product.
pub(crate) fn streams_per_group(io: &Io) -> usize {
    (GROUP_ROWS / io.segment.max(1)).max(1)
}

/// Creates a block's parameters, or finds them.
fn block_params(c: &BimConfig, index: usize, src: &mut dyn ParamSource) -> Result<BlockParams<(String, Tensor)>> {
    let (width, j, d, n, h) = (c.width.0, c.neurons(), c.channels.0, c.state.0, c.heads.0);
    let mut get = |name: &str, shape: &[usize], init| -> Result<(String, Tensor)> {
        let name = format!("layers.{index}.{name}");
        let tensor = src.get(&name, shape, init)?;
        Ok((name, tensor))
    };
    let jd = match c.delta_input {
        DeltaInput::Group => j / h,
        DeltaInput::Full => j,
    };
    let first_tap = |taps: usize, width: usize| {
        Init::Values((0..taps * width).map(|i| if i < width { 1.0 } else { 0.0 }).collect())
    };
    // ON and OFF cells, each pair with a higher threshold than the one before
    let sign = |c: usize| if c.is_multiple_of(2) { 1.0 } else { -1.0 };
    let gains = (0..j).map(|i| sign(i / width)).collect();
    let first_step = |neuron: &NeuronConfig| Init::Constant(neuron.threshold.0.ln());
    let currents = (0..j).map(|i| -((i / width / 2) as f64) * c.pre.threshold.0).collect();
    // as in Mamba-2, where rates are 1…16 and step sizes log-uniform on [0.001, 0.1]: spread over the heads
    let (slowest, fastest, least, greatest) =
        (c.initial.decay_min.0, c.initial.decay_max.0, c.initial.delta_min.0, c.initial.delta_max.0);
    let spread = |i: usize| (i as f64 + 0.5) / h as f64;
    let a_log = match c.decay {
        DecayForm::Head => (0..h).map(|i| (slowest + (fastest - slowest) * spread(i)).ln()).collect(),
        // as in Mamba-1: rates 1…N over the states
        DecayForm::ChannelState => (0..n * d).map(|i| ((i / d + 1) as f64).ln()).collect(),
    };
    let bias = (0..h)
        .map(|i| {
            let step = (least.ln() + spread((i * 5) % h) * (greatest / least).ln()).exp();
            step.exp_m1().ln() // softplus⁻¹
        })
        .collect();
    let a_log_shape: &[usize] = if c.decay == DecayForm::Head { &[h] } else { &[n, d] };
    let [hold_pre, hold_post] = c.homeostasis.holds();
    let out_std = 1.0 / (d as f64 * 2.0 * c.layers.0 as f64).sqrt();
    Ok(BlockParams {
        gain: get("norm.gain", &[j], Init::Values(gains))?,
        current: if c.currents { Some(get("pre.current", &[j], Init::Values(currents))?) } else { None },
        conv: if c.conv.0 > 1 { Some(get("conv", &[c.conv.0, width], first_tap(c.conv.0, width))?) } else { None },
        delays: if c.delays.0 > 1 { Some(get("delays", &[c.delays.0, j], first_tap(c.delays.0, j))?) } else { None },
        pre_step: match (c.pre.step, hold_pre) {
            (Step::Learned, _) => Some(get("pre.step", &[j], first_step(&c.pre))?),
            (Step::Fixed, true) => Some(get("pre.threshold", &[j], first_step(&c.pre))?),
            (Step::Fixed, false) => None,
        },
        projection: get("projection", &[d + 2 * n, j], Init::fan_in(j))?,
        delta: get("delta.weight", &[h, jd], Init::Normal(0.5 / (jd as f64).sqrt()))?,
        bias: get("delta.bias", &[h], Init::Values(bias))?,
        a_log: get("a_log", a_log_shape, Init::Values(a_log))?,
        skip: get("skip", &[d], Init::Constant(1.0))?,
        post_current: if c.currents { Some(get("post.current", &[d], Init::Constant(0.0))?) } else { None },
        post_step: match (c.post.step, hold_post) {
            (Step::Learned, _) => Some(get("post.step", &[d], first_step(&c.post))?),
            (Step::Fixed, true) => Some(get("post.threshold", &[d], first_step(&c.post))?),
            (Step::Fixed, false) => None,
        },
        gate: if c.gate { Some(get("gate", &[width, j], Init::fan_in(j))?) } else { None },
        out: get("out", &[width, d], Init::Normal(out_std))?,
    })
}

impl<T: Real> Network<T> {
    /// Builds the network from new or existing parameters, with all streams at rest, for chunks of up to `io.segment` steps.
    ///
    /// # Errors
    /// If the configuration does not fit together.
    pub fn new(c: &BimConfig, io: &Io, membrane: Membrane, src: &mut dyn ParamSource) -> Result<Self> {
        c.check()?;
        let named = Self::named(c, io, src)?;
        let groups = (0..io.streams)
            .step_by(streams_per_group(io))
            .map(|first| {
                let streams = streams_per_group(io).min(io.streams - first);
                let spec = Spec { all_streams: io.streams, ..Spec::new(c, membrane, streams) };
                let readout = c.readout.is_there().then(|| Readout {
                    neuron: Neuron::new(&c.readout.neuron()),
                    penalty: c.readout.penalty.0,
                    all_streams: io.streams,
                });
                Group { readout, ..Group::new(spec, c.layers.0, io, first) }
            })
            .collect();
        let (names, params) = (named.map(|(n, _)| n.clone()), named.map(|(_, t)| t.clone()));
        let folded = Folded::new(c, &params);
        Ok(Self { io: *io, names, params, groups, folded, frozen: None, steps: 0, performed: AtomicU64::new(0) })
    }

    /// Creates all parameters, or finds them, with their names.
    pub(crate) fn named(c: &BimConfig, io: &Io, src: &mut dyn ParamSource) -> Result<NetworkParams<(String, Tensor)>> {
        let width = c.width.0;
        let get = |name: &str, shape: &[usize], init, src: &mut dyn ParamSource| -> Result<(String, Tensor)> {
            Ok((name.to_owned(), src.get(name, shape, init)?))
        };
        let embedding = match io.input {
            InputKind::Tokens { vocabulary } => get("embedding", &[vocabulary, width], Init::Normal(1.0), src)?,
            InputKind::Frames { width: frame } => get("embedding", &[width, frame], Init::fan_in(frame), src)?,
        };
        let blocks = (0..c.layers.0).map(|i| block_params(c, i, src)).collect::<Result<_>>()?;
        Ok(NetworkParams {
            embedding,
            blocks,
            gain: get("norm.gain", &[width], Init::Constant(1.0), src)?,
            head: get("head.weight", &[io.outputs, width], Init::fan_in(width), src)?,
            head_bias: get("head.bias", &[io.outputs], Init::Constant(0.0), src)?,
            readout_step: match c.readout.step {
                Step::Learned => {
                    let first = Init::Constant(c.readout.threshold.0.ln());
                    Some(get("readout.step", &[width], first, src)?)
                }
                Step::Fixed => None,
            },
        })
    }

    /// What the network reads and writes.
    #[must_use]
    pub fn io(&self) -> Io {
        self.io
    }

    /// Multiplications of products and loops since this was last asked, see [`performed`].
    pub fn take_performed(&self) -> u64 {
        self.performed.swap(0, Ordering::Relaxed)
    }

    /// Steps of the chunk last run.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Puts the marked streams to rest and forgets their credit.
    ///
    /// # Errors
    /// If there is not one mark per stream.
    pub fn reset(&mut self, starts: &[bool]) -> Result<()> {
        if starts.len() != self.io.streams {
            return Err(Error::shape("starts", self.io.streams, starts.len()));
        }
        for (b, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
            let group = self.groups.iter_mut().rfind(|g| g.first <= b);
            if let Some(group) = group {
                let stream = b - group.first;
                group.blocks.iter_mut().for_each(|block| block.reset(stream));
            }
        }
        Ok(())
    }

    /// Makes once what the forward pass needs of the weights: steps folded into them and, where `config.inference` says so, the
    /// columns that products from events read. From then on weights that change are seen when this is called again.
    ///
    /// # Errors
    /// If a parameter cannot be read.
    pub fn freeze(&mut self, config: &BimConfig) -> Result<()> {
        let folded = &mut self.folded;
        self.frozen = None; // its memory is free before there is more
        self.frozen = Some(with_params(&self.params, |params| Frozen::new(config, &folded.fold(params)))?);
        Ok(())
    }

    /// Runs one chunk and advances the state: `[B, K]` tokens or `[B, K, F]` frames → logits `[B, K, O]`.
    ///
    /// # Errors
    /// If the input's shape is not the one the network was built for, or a token is outside the vocabulary.
    pub fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let io = self.io;
        let steps = steps_of(&io, x)?;
        self.steps = steps;
        match io.input {
            InputKind::Tokens { vocabulary } => {
                let tokens = x.flatten_all()?.to_vec1::<u32>()?;
                if let Some(bad) = tokens.iter().find(|t| **t as usize >= vocabulary) {
                    return Err(Error::shape("token", format!("below {vocabulary}"), bad));
                }
                for group in &mut self.groups {
                    let (first, streams) = (group.first, group.streams);
                    group.tokens.clear();
                    let rows = (0..steps * streams).map(|i| tokens[(first + i % streams) * steps + i / streams]);
                    group.tokens.extend(rows);
                }
            }
            InputKind::Frames { width } => {
                let frames = x.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1::<T>()?;
                for group in &mut self.groups {
                    let (first, streams) = (group.first, group.streams);
                    group.frames.clear();
                    for i in 0..steps * streams {
                        let at = ((first + i % streams) * steps + i / streams) * width;
                        group.frames.extend_from_slice(&frames[at..at + width]);
                    }
                }
            }
        }
        let (groups, folded, noted) = (&mut self.groups, &mut self.folded, &self.performed);
        let frozen = self.frozen.as_ref();
        with_params(&self.params, |params| {
            let params = &if frozen.is_some() { folded.folded(params) } else { folded.fold(params) };
            let forward = |g: &mut Group<T>| performed::during(noted, || g.forward(params, frozen, io.input, steps));
            groups.par_iter_mut().for_each(forward);
        })?;
        let mut logits = vec![T::zero(); io.streams * steps * io.outputs];
        self.exchange(|group, i, at| logits[at..at + io.outputs].copy_from_slice(&group.logits[i..i + io.outputs]));
        Ok(Tensor::from_vec(logits, (io.streams, steps, io.outputs), x.device())?)
    }

    /// Calls `f` with each group, the offset of a row of outputs in it, and the offset of the same row in `[B, K, O]`.
    fn exchange(&self, mut f: impl FnMut(&Group<T>, usize, usize)) {
        let outputs = self.io.outputs;
        for group in &self.groups {
            for i in 0..self.steps * group.streams {
                let (t, b) = (i / group.streams, group.first + i % group.streams);
                f(group, i * outputs, (b * self.steps + t) * outputs);
            }
        }
    }

    /// The layer of the first state that is not finite, with its value. Silence is not an explosion: only NaN, infinities
    /// and states beyond `limit` count.
    #[must_use]
    pub fn exploded(&self, limit: f64) -> Option<(usize, f64)> {
        let bad = |v: &T| {
            let x = v.wide().abs();
            x.is_nan() || x > limit
        };
        self.groups.iter().flat_map(|g| g.blocks.iter().enumerate()).find_map(|(l, block)| {
            block.h.iter().chain(block.last_potentials(self.steps)).find(|v| bad(v)).map(|v| (l, v.wide()))
        })
    }

    /// Reverse mode through the chunk last run, from `∂L/∂logits` `[B, K, O]`. Unless `chained`, no credit comes from later
    /// chunks. Without `d_logits` there was no loss: all adjoints are zero, and spikes have no price.
    ///
    /// # Errors
    /// If a parameter cannot be read.
    pub fn reverse(&mut self, d_logits: Option<&[T]>, chained: bool) -> Result<()> {
        let (outputs, steps) = (self.io.outputs, self.steps);
        for group in &mut self.groups {
            group.d_logits.clear();
            group.d_logits.resize(steps * group.streams * outputs, T::zero());
            if let Some(d) = d_logits {
                for i in 0..steps * group.streams {
                    let at = ((group.first + i % group.streams) * steps + i / group.streams) * outputs;
                    group.d_logits[i * outputs..][..outputs].copy_from_slice(&d[at..at + outputs]);
                }
            }
        }
        let (groups, folded, noted) = (&mut self.groups, &mut self.folded, &self.performed);
        let priced = d_logits.is_some();
        with_params(&self.params, |params| {
            let params = &folded.fold(params);
            groups.par_iter_mut().for_each(|g| performed::during(noted, || g.reverse(params, steps, chained, priced)));
        })
    }

    /// Adds the gradients of all parameters that the last reverse pass and the traces give.
    pub fn add_grads(&self, grads: &mut NetworkParams<Vec<T>>) {
        self.unfolded(grads, |grads| self.add_grads_but(true, grads));
    }

    /// Adds gradients that `of_folded` adds up for the folded weights.
    fn unfolded(&self, grads: &mut NetworkParams<Vec<T>>, of_folded: impl FnOnce(&mut NetworkParams<Vec<T>>)) {
        if !self.folded.any() {
            return of_folded(grads);
        }
        let mut own = self.zero_grads();
        of_folded(&mut own);
        self.folded.unfold(&mut own);
        for (to, from) in grads.iter_mut().zip(own.iter()) {
            add(from, to);
        }
    }

    /// [`Network::add_grads`] and [`Network::finish`] in one: the largest traces are read once for both.
    ///
    /// # Errors
    /// None at present, as for [`Network::finish`].
    pub fn add_grads_and_finish(&mut self, grads: &mut NetworkParams<Vec<T>>) -> Result<()> {
        let mut own = if self.folded.any() { self.zero_grads() } else { std::mem::take(grads) };
        self.add_grads_but(false, &mut own);
        self.end_chunk(true);
        for (l, own) in own.blocks.iter_mut().enumerate() {
            for group in &self.groups {
                add(&group.blocks[l].step_credit, &mut own.delta);
            }
        }
        if self.folded.any() {
            self.folded.unfold(&mut own);
            for (to, from) in grads.iter_mut().zip(own.iter()) {
                add(from, to);
            }
        } else {
            *grads = own;
        }
        Ok(())
    }

    fn add_grads_but(&self, with_steps: bool, grads: &mut NetworkParams<Vec<T>>) {
        let (groups, steps, io, noted) = (&self.groups, self.steps, self.io, &self.performed);
        let NetworkParams { embedding, blocks, gain, head, head_bias, readout_step } = grads;
        let ends = || {
            for group in groups {
                performed::during(noted, || group.end_grads(io, steps, embedding, gain, head, head_bias));
                if let Some(step) = &mut *readout_step {
                    add(&group.d_step, step);
                }
            }
        };
        let inner = || {
            blocks.par_iter_mut().enumerate().for_each(|(l, grads)| {
                let BlockParams { gain, current, conv, delays, pre_step, projection, delta, bias, a_log, skip, .. } =
                    grads;
                let (post_current, post_step) = (&mut grads.post_current, &mut grads.post_step);
                let (gate, out) = (&mut grads.gate, &mut grads.out);
                rayon::join(
                    || {
                        let Some(first) = groups.first() else { return };
                        let mut dynamics = DynamicsGrads::zero(&first.blocks[l].spec.dims);
                        let mut credit = CreditGrads { projection, delta, dynamics: &mut dynamics };
                        for group in groups {
                            performed::during(noted, || group.blocks[l].synapse_grads(steps, with_steps, &mut credit));
                        }
                        add(&dynamics.bias, bias);
                        add(&dynamics.a_log, a_log);
                        add(&dynamics.skip, skip);
                        if let Some(current) = post_current {
                            add(&dynamics.current, current);
                        }
                        if let Some(step) = post_step {
                            add(&dynamics.step, step);
                        }
                    },
                    || {
                        for group in groups {
                            let block = &group.blocks[l];
                            performed::during(noted, || block.output_grads(steps, out, gate.as_deref_mut()));
                            let front = performed::during(noted, || block.front_grads(steps));
                            let from = front.as_ref().unwrap_or(&block.encode_grads);
                            add(&from.gain, gain);
                            for (to, from) in [
                                (&mut *current, &from.current),
                                (&mut *conv, &from.conv),
                                (&mut *delays, &from.delays),
                                (&mut *pre_step, &from.step),
                            ] {
                                if let Some(to) = to {
                                    add(from, to);
                                }
                            }
                        }
                    },
                );
            });
        };
        rayon::join(ends, inner);
    }

    /// Mean learned step of each population of neurons when the chunk last run began.
    pub(crate) fn mean_steps(&self) -> Vec<LayerValue> {
        let mean = |layer: String, steps: &Option<Vec<T>>| {
            let steps = steps.as_ref().filter(|steps| !steps.is_empty())?;
            let value = steps.iter().map(|s| s.wide()).sum::<f64>() / steps.len() as f64;
            Some(LayerValue { layer, quantity: "step", value })
        };
        let steps = self.folded.steps();
        let blocks = steps.blocks.iter().enumerate().flat_map(|(l, block)| {
            let [pre, post] = ["pre", "post"].map(|end| format!("layers.{l}.{end}"));
            let [learned_pre, learned_post] = self.folded.learned();
            [mean(pre, &block.pre_step).filter(|_| learned_pre), mean(post, &block.post_step).filter(|_| learned_post)]
        });
        blocks.chain([mean("readout".to_owned(), &steps.readout_step)]).flatten().collect()
    }

    /// Sets what spikes of a population cost, in the unit of `penalty`.
    pub(crate) fn set_price(&mut self, of: Population, price: f64) {
        for group in &mut self.groups {
            match of {
                Population::Pre(l) => group.blocks[l].spec.penalty[0] = price,
                Population::Post(l) => group.blocks[l].spec.penalty[1] = price,
                Population::Readout => group.readout.iter_mut().for_each(|r| r.penalty = price),
            }
        }
    }

    /// Takes over what spikes cost from a network of the same shape.
    pub(crate) fn take_prices(&mut self, from: &Self) {
        for (group, from) in self.groups.iter_mut().zip(&from.groups) {
            for (block, from) in group.blocks.iter_mut().zip(&from.blocks) {
                block.spec.penalty = from.spec.penalty;
            }
            for (readout, from) in group.readout.iter_mut().zip(&from.readout) {
                readout.penalty = from.penalty;
            }
        }
    }

    /// Zeros for every parameter.
    #[must_use]
    pub fn zero_grads(&self) -> NetworkParams<Vec<T>> {
        self.params.map(|t| vec![T::zero(); t.elem_count()])
    }

    /// Ends the chunk: traces advance, histories move on.
    ///
    /// # Errors
    /// None at present: what is needed of the weights is kept since the forward pass.
    pub fn finish(&mut self) -> Result<()> {
        self.end_chunk(false);
        Ok(())
    }

    fn end_chunk(&mut self, with_credit: bool) {
        let (groups, steps, noted) = (&mut self.groups, self.steps, &self.performed);
        let finish = |block: &mut Block<T>| performed::during(noted, || block.finish(steps, with_credit));
        groups.par_iter_mut().for_each(|g| g.blocks.par_iter_mut().for_each(finish));
    }

    /// Takes over the traces, and nothing else, of groups of the same shape. How `ψ` depends on what stands in front of it counts
    /// as a trace, inside the chunk too.
    pub(crate) fn take_traces(&mut self, from: &[Group<T>]) {
        for (group, from) in self.groups.iter_mut().zip(from) {
            for (block, from) in group.blocks.iter_mut().zip(&from.blocks) {
                block.take_traces(from);
            }
        }
    }

    /// Takes over state and histories, but no credit, from a network of the same shape.
    pub fn copy_state(&mut self, from: &mut Self) {
        for (group, from) in self.groups.iter_mut().zip(&mut from.groups) {
            for (block, from) in group.blocks.iter_mut().zip(&mut from.blocks) {
                block.copy_state(from);
            }
        }
    }

    /// Folds the steps as they are now, for what asks for them without a chunk being run.
    ///
    /// # Errors
    /// If a parameter cannot be read.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn fold(&mut self) -> Result<()> {
        let folded = &mut self.folded;
        with_params(&self.params, |params| {
            folded.fold(params);
        })
    }

    /// Pretends that the chunk last run had this many steps: its activations were put back.
    pub(crate) fn set_steps(&mut self, steps: usize) {
        self.steps = steps;
    }

    /// Continues a reverse pass: the adjoints that the chunk after this one left, but for streams that began anew there.
    pub(crate) fn take_adjoints(&mut self, later: &[Group<T>], starts: &[bool]) {
        for (group, later) in self.groups.iter_mut().zip(later) {
            for (block, later) in group.blocks.iter_mut().zip(&later.blocks) {
                block.adjoint.clone_from(&later.adjoint);
                block.encode_adjoint.clone_from(&later.encode_adjoint);
                for stream in (0..group.streams).filter(|b| starts[group.first + b]) {
                    block.cut_adjoint(stream);
                }
            }
        }
    }

    /// Numbers carried from chunk to chunk: state, histories and traces of all streams.
    #[must_use]
    pub fn carried_numbers(&self) -> usize {
        Self::carried(&mut self.groups.clone()).into_values().map(|v| v.len()).sum()
    }

    /// Numbers of all streams' eligibility traces.
    #[must_use]
    pub fn trace_numbers(&self) -> usize {
        self.groups.iter().flat_map(|g| &g.blocks).map(Block::trace_numbers).sum()
    }

    fn carried(groups: &mut [Group<T>]) -> BTreeMap<String, &mut [T]> {
        let mut all = BTreeMap::new();
        for (i, group) in groups.iter_mut().enumerate() {
            for (l, block) in group.blocks.iter_mut().enumerate() {
                all.extend(block.carried().into_iter().map(|(n, v)| (format!("layers.{l}.{n}.group.{i}"), v)));
            }
        }
        all
    }

    /// A copy of what is carried, by name.
    pub(crate) fn carried_state(&mut self) -> BTreeMap<String, Vec<T>> {
        Self::carried(&mut self.groups).into_iter().map(|(name, values)| (name, values.to_vec())).collect()
    }

    /// Puts back what [`Network::carried_state`] copied, of a network of the same shape.
    pub(crate) fn restore_state(&mut self, state: &BTreeMap<String, Vec<T>>) -> Result<()> {
        for (name, values) in Self::carried(&mut self.groups) {
            match state.get(&name) {
                Some(saved) if saved.len() == values.len() => values.copy_from_slice(saved),
                saved => return Err(Error::shape(name, values.len(), saved.map_or(0, Vec::len))),
            }
        }
        Ok(())
    }

    /// Writes what is carried into a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        for (name, values) in Self::carried(&mut self.groups.clone()) {
            let tensor = Tensor::from_slice(values, values.len(), &candle_core::Device::Cpu)?;
            snapshot.state.insert(name, tensor);
        }
        Ok(())
    }

    /// Restores what [`Network::save`] wrote.
    ///
    /// # Errors
    /// If something is missing or has another length.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        for (name, values) in Self::carried(&mut self.groups) {
            let saved = snapshot.state(&name)?.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1::<T>()?;
            if saved.len() != values.len() {
                return Err(Error::shape(name, values.len(), saved.len()));
            }
            values.copy_from_slice(&saved);
        }
        Ok(())
    }
}

impl<T: Real> Group<T> {
    /// What the linear map of frames read `[K, streams, F]`; empty for tokens.
    #[must_use]
    pub fn inputs(&self) -> &[T] {
        &self.frames
    }

    /// What the output layer read `[K, streams, width]`.
    #[must_use]
    pub fn head_inputs(&self, steps: usize) -> &[T] {
        &self.x[..steps * self.streams * self.width()]
    }

    fn width(&self) -> usize {
        self.blocks.first().map_or(0, |b| b.spec.encode.channels)
    }

    fn new(spec: Spec<T>, layers: usize, io: &Io, first: usize) -> Self {
        let streams = spec.encode.streams;
        let (rows, width) = (io.segment * streams, spec.encode.channels);
        let zeros = |n: usize| vec![T::zero(); n];
        Self {
            first,
            streams,
            blocks: (0..layers).map(|_| Block::new(spec, io.segment)).collect(),
            readout: None,
            events: Events::default(),
            tokens: Vec::new(),
            frames: Vec::new(),
            x: zeros(rows * width),
            inverse_rms: zeros(rows),
            normed: zeros(rows * width),
            logits: zeros(rows * io.outputs),
            d_logits: Vec::new(),
            dx: Vec::new(),
            d_gain: Vec::new(),
            d_step: Vec::new(),
            d_scaled: Vec::new(),
            shared: Shared::default(),
        }
    }

    fn forward(&mut self, params: &NetworkParams<&[T]>, frozen: Option<&Frozen<T>>, input: InputKind, steps: usize) {
        let width = params.gain.len();
        let rows = steps * self.streams;
        let x = &mut self.x[..rows * width];
        match input {
            InputKind::Tokens { .. } => {
                for (x, &token) in x.chunks_exact_mut(width).zip(&self.tokens) {
                    x.copy_from_slice(&params.embedding[token as usize * width..][..width]);
                }
            }
            InputKind::Frames { width: f } => {
                let frames = (&self.frames[..], View::new(rows, f));
                matmul((x, View::new(rows, width)), frames, (params.embedding, View::new(width, f).t()), T::zero());
            }
        }
        for (l, (block, params)) in self.blocks.iter_mut().zip(&params.blocks).enumerate() {
            block.forward(params, frozen.and_then(|f| f.blocks.get(l)), steps, x);
        }
        // the gain is part of the output layer's input: x̂ · gain
        row::normalize(width, x, &mut self.normed, &mut self.inverse_rms);
        for (x, normed) in x.chunks_exact_mut(width).zip(self.normed.chunks_exact(width)) {
            for i in 0..width {
                x[i] = normed[i] * params.gain[i];
            }
            if let Some(Readout { neuron, .. }) = &self.readout {
                for (i, x) in x.iter_mut().enumerate() {
                    *x = params.readout_step.map_or(*neuron, |step| neuron.with_step(step[i])).fire(*x);
                }
            }
        }
        let outputs = params.head_bias.len();
        let logits = &mut self.logits[..rows * outputs];
        for row in logits.chunks_exact_mut(outputs) {
            row.copy_from_slice(params.head_bias);
        }
        let head = frozen.and_then(|f| f.head.as_ref());
        if head.is_some() {
            self.events.gather(width, x);
        }
        synapses((logits, outputs), (x, width), params.head, head, &self.events, true);
    }

    fn reverse(&mut self, params: &NetworkParams<&[T]>, steps: usize, chained: bool, priced: bool) {
        let (width, outputs) = (params.gain.len(), params.head_bias.len());
        let rows = steps * self.streams;
        self.dx.clear();
        self.dx.resize(rows * width, T::zero());
        self.d_gain.clear();
        self.d_gain.resize(width, T::zero());
        self.d_scaled.resize(rows * width, T::zero());
        let d_logits = (&self.d_logits[..], View::new(rows, outputs));
        let head = (params.head, View::new(outputs, width));
        matmul((&mut self.d_scaled, View::new(rows, width)), d_logits, head, T::zero());
        if let Some(Readout { neuron, penalty, all_streams }) = self.readout {
            let weight = if priced { penalty / ((steps * all_streams) as f64 * width as f64) } else { 0.0 };
            let weight = T::of(weight);
            self.d_step.clear();
            self.d_step.resize(width, T::zero());
            for (d, normed) in self.d_scaled.chunks_exact_mut(width).zip(self.normed.chunks_exact(width)) {
                for i in 0..width {
                    let v = normed[i] * params.gain[i];
                    let neuron = params.readout_step.map_or(neuron, |step| neuron.with_step(step[i]));
                    self.d_step[i] += step_gradient(&neuron, v, d[i], weight);
                    d[i] = neuron.surrogate(v) * (d[i] + weight * sign(neuron.fire(v)));
                }
            }
        }
        for (d, normed) in self.d_scaled.chunks_exact_mut(width).zip(self.normed.chunks_exact(width)) {
            for i in 0..width {
                self.d_gain[i] += d[i] * normed[i];
                d[i] *= params.gain[i];
            }
        }
        row::normalize_reverse(width, &self.normed[..rows * width], &self.inverse_rms, &self.d_scaled, &mut self.dx);
        for (block, params) in self.blocks.iter_mut().zip(&params.blocks).rev() {
            block.reverse(params, steps, &mut self.dx, (chained, priced), &mut self.shared);
        }
    }

    fn end_grads(&self, io: Io, steps: usize, embedding: &mut [T], gain: &mut [T], head: &mut [T], bias: &mut [T]) {
        let (width, outputs, rows) = (gain.len(), bias.len(), steps * self.streams);
        match io.input {
            InputKind::Tokens { .. } => {
                for (dx, &token) in self.dx.chunks_exact(width).zip(&self.tokens) {
                    add(dx, &mut embedding[token as usize * width..][..width]);
                }
            }
            InputKind::Frames { width: f } => {
                let frames = (&self.frames[..], View::new(rows, f));
                let dx = (&self.dx[..], View::new(rows, width).t());
                matmul((embedding, View::new(width, f)), dx, frames, T::one());
            }
        }
        add(&self.d_gain, gain);
        let d_logits = (&self.d_logits[..], View::new(rows, outputs).t());
        matmul((head, View::new(outputs, width)), d_logits, (&self.x, View::new(rows, width)), T::one());
        for d in self.d_logits.chunks_exact(outputs) {
            add(d, bias);
        }
    }
}
