//! The network on a device, all streams in one group: what [`crate::network`] does. Weights stand one after the other in one array, in
//! the order of [`NetworkParams::iter`], which a learner and its evaluators share; so do their gradients.

use std::sync::Arc;

use candle_core::Tensor;
use learner::product::View;
use learner::{Error, InputKind, Io, Result};

use super::block::{Block, Place, ROW, STEPS, constants};
use super::machine::{Arg, At, Grid, Machine, Source, marks, matrix};
use super::scratch::{Adjoints, Scratch, clear, sum_rows};
use crate::block::Spec;
use crate::config::BimConfig;
use crate::kernels::row;
use crate::network::steps_of;
use crate::params::NetworkParams;
use crate::rule::Membrane;

/// Where each parameter is among all of them, and how many numbers these are.
pub(crate) fn layout(params: &NetworkParams<Tensor>) -> (NetworkParams<Place>, usize) {
    let mut end = 0;
    let places = params.map(|t| {
        let place = Place { at: end, len: t.elem_count() };
        end += place.len;
        place
    });
    (places, end)
}

/// Neurons in front of the output layer.
struct Readout<M: Machine> {
    constants: M::Buffer,
    penalty: f64,
}

/// What learning needs beside the blocks' scratch.
pub(crate) struct Back<M: Machine> {
    scratch: Scratch<M>,
    d_logits: M::Buffer,
    d_scaled: M::Buffer,
    dx: M::Buffer,
    d_gain: M::Buffer,
}

/// The network over all streams.
pub(crate) struct Network<M: Machine> {
    pub machine: M,
    pub io: Io,
    pub places: NetworkParams<Place>,
    pub weights: Arc<M::Buffer>,
    /// Steps folded into the weights that read spikes; none where no step is learned.
    folded: Option<M::Buffer>,
    parameters: usize,
    pub blocks: Vec<Block<M>>,
    readout: Option<Readout<M>>,
    input: Option<M::Buffer>,
    /// Frames by steps, then streams.
    pub frames: M::Buffer,
    pub x: M::Buffer,
    inverse_rms: M::Buffer,
    normed: M::Buffer,
    rows: M::Buffer,
    z: M::Buffer,
    back: Option<Back<M>>,
    steps: usize,
}

impl<M: Machine> Network<M> {
    /// All streams at rest, for chunks of up to `io.segment` steps on these weights; `learns` or is only asked for predictions.
    pub fn new(
        machine: &M,
        c: &BimConfig,
        io: Io,
        membrane: Membrane,
        params: &NetworkParams<Tensor>,
        weights: Arc<M::Buffer>,
        learns: bool,
    ) -> Result<Self> {
        let spec = Spec::<f32>::new(c, membrane, io.streams);
        let (places, parameters) = layout(params);
        let (rows, width) = (io.segment * io.streams, c.width.0);
        let zeros = |n: usize| machine.zeros(n);
        let block = |_| Block::new(machine, spec, [&c.pre, &c.post], io.segment);
        let blocks = (0..c.layers.0).map(block).collect::<Result<Vec<_>>>()?;
        let back = |sizes| -> Result<Back<M>> {
            let split = spec.rule.own != spec.rule.across;
            Ok(Back {
                scratch: Scratch::new(
                    machine,
                    sizes,
                    io.segment,
                    (spec.rule.carries, membrane == Membrane::Traces, split),
                )?,
                d_logits: zeros(rows * io.outputs)?,
                d_scaled: zeros(rows * width)?,
                dx: zeros(rows * width)?,
                d_gain: zeros(io.streams * width)?,
            })
        };
        let back = blocks.first().filter(|_| learns).map(|block| back(&block.sizes)).transpose()?;
        let learned = params.blocks.iter().any(|b| b.pre_step.is_some() || b.post_step.is_some());
        Ok(Self {
            machine: machine.clone(),
            io,
            places,
            weights,
            folded: if learned || params.readout_step.is_some() { Some(zeros(parameters)?) } else { None },
            parameters,
            blocks,
            readout: if c.readout.is_there() {
                Some(Readout {
                    constants: constants(machine, &c.readout.neuron(), width)?,
                    penalty: c.readout.penalty.0,
                })
            } else {
                None
            },
            input: None,
            frames: zeros(match io.input {
                InputKind::Tokens { .. } => 0,
                InputKind::Frames { width } => rows * width,
            })?,
            x: zeros(rows * width)?,
            inverse_rms: zeros(rows)?,
            normed: zeros(rows * width)?,
            rows: zeros(rows * io.outputs)?,
            z: zeros(rows * c.heads.0)?,
            back,
            steps: 0,
        })
    }

    /// Steps of the chunk last run.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Numbers of all parameters.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Puts the marked streams to rest.
    pub fn reset(&self, starts: &[bool]) -> Result<()> {
        if starts.len() != self.io.streams {
            return Err(Error::shape("starts", self.io.streams, starts.len()));
        }
        if !starts.contains(&true) {
            return Ok(());
        }
        let marks = marks(&self.machine, starts)?;
        self.blocks.iter().try_for_each(|block| block.reset(&self.machine, &marks))
    }

    /// What the network runs on: the weights, with steps folded in where they are learned.
    fn in_use(&self) -> &M::Buffer {
        self.folded.as_ref().unwrap_or(&self.weights)
    }

    /// Each matrix that reads spikes with a step: its place, shape and parts, and where the steps are.
    fn folds(&self) -> Vec<(Place, [usize; 3], At<'_, M>)> {
        let mut all = Vec::new();
        for (block, places) in self.blocks.iter().zip(&self.places.blocks) {
            let s = block.sizes;
            if places.pre_step.is_some() {
                let steps = At(&block.neurons[0], STEPS);
                let parts = if s.grouped() { s.heads } else { 1 };
                all.push((places.projection, [s.projected, s.j, 1], steps));
                all.push((places.delta, [s.heads, s.jd, parts], steps));
                all.extend(places.gate.map(|gate| (gate, [s.width, s.j, 1], steps)));
            }
            if places.post_step.is_some() {
                all.push((places.out, [s.width, s.d, 1], At(&block.neurons[1], STEPS)));
            }
        }
        if let (Some(_), Some(readout)) = (self.places.readout_step, &self.readout) {
            let width = self.places.gain.len;
            all.push((self.places.head, [self.io.outputs, width, 1], At(&readout.constants, STEPS)));
        }
        all
    }

    fn fold_columns(
        &self,
        [rows, width, parts]: [usize; 3],
        steps: At<'_, M>,
        from: At<'_, M>,
        to: At<'_, M>,
    ) -> Result<()> {
        let mut args = Vec::from([rows, width, parts].map(Arg::Size));
        args.extend([steps, from, to].map(Arg::At));
        self.machine.launch(Source::Readout, "fold_columns", Grid::over(rows * width), &args)
    }

    /// Folds learned steps into the weights, as [`crate::fold`] says.
    fn fold(&self) -> Result<()> {
        let Some(folded) = &self.folded else { return Ok(()) };
        let args = [Arg::Size(self.parameters), Arg::all(&*self.weights), Arg::all(folded)];
        self.machine.launch(Source::Network, "copy", Grid::over(self.parameters), &args)?;
        let of_blocks =
            self.blocks.iter().zip(&self.places.blocks).flat_map(|(block, places)| {
                [(places.pre_step, &block.neurons[0]), (places.post_step, &block.neurons[1])]
            });
        let of_readout = self.readout.iter().map(|r| (self.places.readout_step, &r.constants));
        for (place, constants) in of_blocks.chain(of_readout) {
            let Some(Place { at, len }) = place else { continue };
            let args = [Arg::Size(len), Arg::from(&*self.weights, at), Arg::from(constants, STEPS)];
            self.machine.launch(Source::Readout, "fold_steps", Grid::over(len), &args)?;
        }
        for (place, shape, steps) in self.folds() {
            self.fold_columns(shape, steps, At(&*self.weights, place.at), At(folded, place.at))?;
        }
        Ok(())
    }

    /// Runs one chunk and advances the state: `[B, K]` tokens or `[B, K, F]` frames → logits `[B, K, O]`. A token outside the
    /// vocabulary gives logits that are no numbers, since the host does not see it.
    pub fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let io = self.io;
        let steps = steps_of(&io, x)?;
        self.steps = steps;
        self.fold()?;
        let machine = self.machine.clone();
        let input = machine.input(x)?;
        let (b, width, rows) = (io.streams, self.places.gain.len, steps * io.streams);
        let w = self.folded.as_ref().unwrap_or(&self.weights);
        match io.input {
            InputKind::Tokens { vocabulary } => {
                let mut args = Vec::from([steps, b, width, vocabulary].map(Arg::Size));
                args.extend([Arg::all(&input), Arg::from(w, self.places.embedding.at), Arg::all(&self.x)]);
                machine.launch(Source::Network, "embed", Grid::over_rows(rows, width), &args)?;
            }
            InputKind::Frames { width: f } => {
                swap(&machine, [b, steps, f], &input, &self.frames)?;
                let frames = matrix(&self.frames, 0, View::new(rows, f));
                let map = matrix(w, self.places.embedding.at, View::new(width, f).t());
                machine.product(1, matrix(&self.x, 0, View::new(rows, width)), frames, map, 0.0)?;
            }
        }
        self.input = Some(input);
        for (block, places) in self.blocks.iter_mut().zip(&self.places.blocks) {
            block.forward(&machine, w, places, steps, &self.x, &self.z)?;
        }
        let mut args = vec![Arg::Size(width), Arg::F32(row::NORM_EPSILON as f32)];
        args.extend([&self.x, &self.normed, &self.inverse_rms].map(Arg::all));
        machine.launch(Source::Row, "normalize", Grid::of(rows, ROW), &args)?;
        let neurons = self.readout.as_ref().map(|r| At(&r.constants, 0));
        let mut args = vec![Arg::Size(rows * width), Arg::Size(width), Arg::maybe(neurons)];
        args.extend([Arg::from(w, self.places.gain.at), Arg::all(&self.normed), Arg::all(&self.x)]);
        machine.launch(Source::Readout, "readout_forward", Grid::over(rows * width), &args)?;
        let outputs = io.outputs;
        let mut args = Vec::from([rows, outputs].map(Arg::Size));
        args.extend([Arg::from(w, self.places.head_bias.at), Arg::all(&self.rows)]);
        machine.launch(Source::Network, "repeat_row", Grid::over(rows * outputs), &args)?;
        let (to, x) = (matrix(&self.rows, 0, View::new(rows, outputs)), matrix(&self.x, 0, View::new(rows, width)));
        machine.product(1, to, x, matrix(w, self.places.head.at, View::new(outputs, width).t()), 1.0)?;
        let logits = machine.zeros(rows * outputs)?;
        swap(&machine, [steps, b, outputs], &self.rows, &logits)?;
        machine.output(&logits, [b, steps, outputs])
    }

    /// Leaves the largest magnitude of each layer's states, or what is no number, in `to`, from its 64-bit number `at` on.
    pub fn largest(&self, to: &M::Buffer, at: usize) -> Result<()> {
        for (l, block) in self.blocks.iter().enumerate() {
            let s = block.sizes;
            let last = (s.lag + self.steps) * s.b * s.d;
            for (more, from, count) in [(0, At(&block.h, 0), s.b * s.layer()), (1, At(&block.v, last), s.b * s.d)] {
                let args = [Arg::Size(count), Arg::Size(more), Arg::At(from), Arg::from(to, 2 * (at + l))];
                self.machine.launch(Source::Network, "largest", Grid::of(1, ROW), &args)?;
            }
        }
        Ok(())
    }

    /// What a network that learns goes back with.
    pub fn back(&self) -> Result<&Back<M>> {
        self.back.as_ref().ok_or_else(|| Error::shape("reverse", "a network that learns", "one that predicts"))
    }

    /// Zeros in the gradients of all parameters.
    pub fn clear(&self, g: &M::Buffer) -> Result<()> {
        clear(&self.machine, g, self.parameters)
    }

    /// Reverse mode through the chunk last run, from `∂L/∂logits` `[B, K, O]`: overwrites the gradients `g` of all parameters.
    pub fn reverse(&self, d_logits: &M::Buffer, g: &M::Buffer) -> Result<()> {
        self.clear(g)?;
        self.add_grads(self.back()?, Some(d_logits), g, None)?;
        self.unfold(g)
    }

    /// Gradients of folded weights become those of the weights.
    pub fn unfold(&self, g: &M::Buffer) -> Result<()> {
        if self.folded.is_some() {
            for (place, shape, steps) in self.folds() {
                self.fold_columns(shape, steps, At(g, place.at), At(g, place.at))?;
            }
        }
        Ok(())
    }

    /// Adds the gradients of the (folded) weights. Without `d_logits` there was no loss: spikes have no price. With `chain`, adjoints of
    /// each layer, credit goes on from what the chunk after this one left there.
    pub fn add_grads(
        &self,
        back: &Back<M>,
        d_logits: Option<&M::Buffer>,
        g: &M::Buffer,
        chain: Option<(&[Adjoints<M>], bool)>,
    ) -> Result<()> {
        let (machine, io, steps, w) = (&self.machine, self.io, self.steps, self.in_use());
        let (b, outputs, width, rows) = (io.streams, io.outputs, self.places.gain.len, steps * io.streams);
        let Back { scratch, d_scaled, dx, d_gain, .. } = back;
        match d_logits {
            Some(d_logits) => swap(machine, [b, steps, outputs], d_logits, &back.d_logits)?,
            None => clear(machine, &back.d_logits, rows * outputs)?,
        }
        let on_rows = || matrix(&back.d_logits, 0, View::new(rows, outputs));
        let head = matrix(w, self.places.head.at, View::new(outputs, width));
        machine.product(1, matrix(d_scaled, 0, View::new(rows, width)), on_rows(), head, 0.0)?;
        // what the output layer reads is still there
        let to = matrix(g, self.places.head.at, View::new(outputs, width));
        let d_rows = matrix(&back.d_logits, 0, View::new(rows, outputs).t());
        machine.product(1, to, d_rows, matrix(&self.x, 0, View::new(rows, width)), 1.0)?;
        sum_rows(machine, (rows, outputs, 1), &back.d_logits, At(g, self.places.head_bias.at))?;
        let penalty = self.readout.as_ref().map_or(0.0, |r| r.penalty);
        let price = if d_logits.is_some() { (penalty / (rows as f64 * width as f64)) as f32 } else { 0.0 };
        let mut args = Vec::from([steps, b, width].map(Arg::Size));
        args.extend([Arg::F32(price), Arg::maybe(self.readout.as_ref().map(|r| At(&r.constants, 0)))]);
        args.extend([Arg::from(w, self.places.gain.at), Arg::all(&self.normed), Arg::all(d_scaled), Arg::all(d_gain)]);
        let learned = self.places.readout_step;
        args.push(learned.map_or(Arg::Null, |_| Arg::all(&scratch.d_step)));
        machine.launch(Source::Readout, "readout_reverse", Grid::over_each(width, b), &args)?;
        sum_rows(machine, (b, width, 1), d_gain, At(g, self.places.gain.at))?;
        if let Some(step) = learned {
            sum_rows(machine, (b, width, 1), &scratch.d_step, At(g, step.at))?;
        }
        clear(machine, dx, rows * width)?;
        let mut args = vec![Arg::Size(width)];
        args.extend([&self.normed, &self.inverse_rms, d_scaled, dx].map(Arg::all));
        machine.launch(Source::Row, "normalize_reverse", Grid::of(rows, ROW), &args)?;
        for (l, (block, places)) in self.blocks.iter().zip(&self.places.blocks).enumerate().rev() {
            let (adjoints, chained) =
                chain.and_then(|(all, chained)| Some((all.get(l)?, chained))).unwrap_or((&scratch.adjoints, false));
            let how = (steps, chained, d_logits.is_some());
            block.reverse(machine, (w, g), places, how, dx, (adjoints, scratch))?;
        }
        self.input_grads(g, dx)
    }

    fn input_grads(&self, g: &M::Buffer, dx: &M::Buffer) -> Result<()> {
        let (b, steps, width) = (self.io.streams, self.steps, self.places.gain.len);
        let (rows, at) = (steps * b, self.places.embedding.at);
        let Some(input) = &self.input else { return Err(Error::shape("reverse", "a chunk that was run", "none")) };
        match self.io.input {
            InputKind::Tokens { vocabulary } => {
                let mut args = Vec::from([steps, b, width].map(Arg::Size));
                args.extend([Arg::all(input), Arg::all(dx), Arg::from(g, at)]);
                self.machine.launch(Source::Network, "embed_reverse", Grid::over_rows(vocabulary, width), &args)
            }
            InputKind::Frames { width: f } => {
                let dx = matrix(dx, 0, View::new(rows, width).t());
                let frames = matrix(&self.frames, 0, View::new(rows, f));
                self.machine.product(1, matrix(g, at, View::new(width, f)), dx, frames, 1.0)
            }
        }
    }

    /// A copy of what is carried, in the order of the blocks' own lists.
    pub fn carried_state(&self) -> Result<Vec<M::Buffer>> {
        let copy = |(_, from, kind): (_, &M::Buffer, super::block::Carried)| {
            let len = kind.len(self.io.streams);
            let to = self.machine.zeros(len)?;
            let args = [Arg::Size(len), Arg::all(from), Arg::all(&to)];
            self.machine.launch(Source::Network, "copy", Grid::over(len), &args)?;
            Ok(to)
        };
        self.blocks.iter().flat_map(Block::carried).map(copy).collect()
    }

    /// Puts back what [`Network::carried_state`] copied, of a network of the same shape.
    pub fn restore_state(&self, state: &[M::Buffer]) -> Result<()> {
        let carried: Vec<_> = self.blocks.iter().flat_map(Block::carried).collect();
        if carried.len() != state.len() {
            return Err(Error::shape("state kept", carried.len(), state.len()));
        }
        for ((_, to, kind), from) in carried.into_iter().zip(state) {
            let len = kind.len(self.io.streams);
            let args = [Arg::Size(len), Arg::all(from), Arg::all(to)];
            self.machine.launch(Source::Network, "copy", Grid::over(len), &args)?;
        }
        Ok(())
    }

    /// Takes over the state behind the chunk that another network of the same shape, without history, has run.
    pub fn continue_from(&self, from: &Self) -> Result<()> {
        let blocks = self.blocks.iter().zip(&from.blocks);
        blocks.into_iter().try_for_each(|(to, block)| to.continue_from(&self.machine, block, from.steps))
    }

    /// Ends the chunk: traces advance, histories move on.
    pub fn finish(&mut self) -> Result<()> {
        let (machine, steps) = (self.machine.clone(), self.steps);
        let scratch = self.back.as_ref().map(|back| &back.scratch);
        self.blocks.iter_mut().try_for_each(|block| block.finish(&machine, steps, scratch))
    }
}

/// `to` `[inner, outer, width]` from `from` `[outer, inner, width]`.
fn swap<M: Machine>(machine: &M, sizes: [usize; 3], from: &M::Buffer, to: &M::Buffer) -> Result<()> {
    let mut args = Vec::from(sizes.map(Arg::Size));
    args.extend([from, to].map(Arg::all));
    machine.launch(Source::Network, "swap_rows", Grid::over(sizes.iter().product()), &args)
}
