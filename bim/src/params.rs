//! One of something for each parameter: values, gradients, indices or names.

/// One of something for each parameter of a block: values, gradients, indices or names.
#[derive(Clone, Debug, Default)]
pub struct BlockParams<X> {
    /// Gain of each presynaptic neuron `[J]`.
    pub gain: X,
    /// Its input current `[J]`.
    pub current: Option<X>,
    /// Convolution in front of the neurons `[taps, width]`.
    pub conv: Option<X>,
    /// Delay line `[taps, J]`.
    pub delays: Option<X>,
    /// Logarithm of each presynaptic neuron's step, where it is learned, or of its threshold, where it holds a rate `[J]`.
    pub pre_step: Option<X>,
    /// `W_u`, `W_B`, `W_C` stacked: `[D + 2N, J]`.
    pub projection: X,
    /// `W_Δ`: `[H, J']`.
    pub delta: X,
    /// `b_Δ` `[H]`.
    pub bias: X,
    /// `A_log` `[H]` or `[N, D]`.
    pub a_log: X,
    /// Skip `D` `[D]`.
    pub skip: X,
    /// Input current of the postsynaptic neurons `[D]`.
    pub post_current: Option<X>,
    /// Logarithm of each postsynaptic neuron's step or threshold, likewise `[D]`.
    pub post_step: Option<X>,
    /// Gate `[width, J]`.
    pub gate: Option<X>,
    /// `W_out` `[width, D]`.
    pub out: X,
}

impl<X> BlockParams<X> {
    /// The same for something else.
    pub fn map<'a, Y>(&'a self, mut f: impl FnMut(&'a X) -> Y) -> BlockParams<Y> {
        BlockParams {
            gain: f(&self.gain),
            current: self.current.as_ref().map(&mut f),
            conv: self.conv.as_ref().map(&mut f),
            delays: self.delays.as_ref().map(&mut f),
            pre_step: self.pre_step.as_ref().map(&mut f),
            projection: f(&self.projection),
            delta: f(&self.delta),
            bias: f(&self.bias),
            a_log: f(&self.a_log),
            skip: f(&self.skip),
            post_current: self.post_current.as_ref().map(&mut f),
            post_step: self.post_step.as_ref().map(&mut f),
            gate: self.gate.as_ref().map(&mut f),
            out: f(&self.out),
        }
    }

    /// All of them, in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut X> {
        let Self { gain, current, conv, delays, pre_step, projection, delta, bias, a_log, skip, .. } = self;
        let (post_current, post_step, gate, out) =
            (&mut self.post_current, &mut self.post_step, &mut self.gate, &mut self.out);
        [Some(gain), current.as_mut(), conv.as_mut(), delays.as_mut(), pre_step.as_mut(), Some(projection)]
            .into_iter()
            .chain([Some(delta), Some(bias), Some(a_log), Some(skip)])
            .chain([post_current.as_mut(), post_step.as_mut(), gate.as_mut(), Some(out)])
            .flatten()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &X> {
        [Some(&self.gain), self.current.as_ref(), self.conv.as_ref(), self.delays.as_ref(), self.pre_step.as_ref()]
            .into_iter()
            .chain([Some(&self.projection), Some(&self.delta), Some(&self.bias), Some(&self.a_log), Some(&self.skip)])
            .chain([self.post_current.as_ref(), self.post_step.as_ref(), self.gate.as_ref(), Some(&self.out)])
            .flatten()
    }
}

/// One of something for each parameter of the network.
#[derive(Clone, Debug, Default)]
pub struct NetworkParams<X> {
    /// Embedding `[V, width]`, or the linear map of frames `[width, F]`.
    pub embedding: X,
    /// The blocks.
    pub blocks: Vec<BlockParams<X>>,
    /// Gain before the output layer `[width]`.
    pub gain: X,
    /// Output layer `[O, width]`.
    pub head: X,
    /// Its bias `[O]`.
    pub head_bias: X,
    /// Logarithm of the step of each neuron in front of it `[width]`.
    pub readout_step: Option<X>,
}

impl<X> NetworkParams<X> {
    /// The same for something else.
    pub fn map<'a, Y>(&'a self, mut f: impl FnMut(&'a X) -> Y) -> NetworkParams<Y> {
        NetworkParams {
            embedding: f(&self.embedding),
            blocks: self.blocks.iter().map(|b| b.map(&mut f)).collect(),
            gain: f(&self.gain),
            head: f(&self.head),
            head_bias: f(&self.head_bias),
            readout_step: self.readout_step.as_ref().map(&mut f),
        }
    }

    /// All of them, in the same order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut X> {
        let Self { embedding, blocks, gain, head, head_bias, readout_step } = self;
        std::iter::once(embedding)
            .chain(blocks.iter_mut().flat_map(BlockParams::iter_mut))
            .chain([gain, head, head_bias])
            .chain(readout_step)
    }

    /// All of them, in the order in which the network creates its parameters.
    pub fn iter(&self) -> impl Iterator<Item = &X> {
        let blocks = self.blocks.iter().flat_map(BlockParams::iter);
        let ends = [&self.gain, &self.head, &self.head_bias].into_iter().chain(&self.readout_step);
        std::iter::once(&self.embedding).chain(blocks).chain(ends)
    }
}
