//! The network: embedding, blocks of spiking selective state spaces on a residual stream, output layer.
//!
//! ```text
//! x → RMSNorm → LIF_in → delays → ψ → u, B, C, Δ → selective scan → LIF_out → W_out → (gate) → + x
//! ```

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use candle_core::{D, Module, Tensor};
use learner::{Error, Init, InputKind, Io, ParamSource, Result};

use crate::config::{BimConfig, Credit, DeltaInput};
use crate::kernels::encode::EncodeState;
use crate::kernels::neuron::Neuron;
use crate::kernels::scan::ScanState;
use crate::kernels::{Dims, Real};
use crate::ops::{Encode, Gate, LayerState, LayerTape, RmsNorm, Scan, Shared, lock};

/// Parameters and state of one block.
pub struct Block<T> {
    /// Sizes of the state space.
    pub dims: Dims,
    /// Presynaptic neurons.
    pub pre: Neuron<T>,
    /// Postsynaptic neurons.
    pub post: Neuron<T>,
    /// `RMSNorm` gain `[J]`.
    pub gain: Tensor,
    /// Delay line `[taps, J]`.
    pub taps: Tensor,
    /// `W_u`, `W_B`, `W_C` stacked: `[D + 2N, J]`.
    pub projection: Tensor,
    /// `W_Δ`: `[H, J']`.
    pub delta: Tensor,
    /// `b_Δ` `[H]`.
    pub bias: Tensor,
    /// `A_log` `[H]`.
    pub a_log: Tensor,
    /// Skip `D` `[D]`.
    pub skip: Tensor,
    /// Gate `[J, J]`.
    pub gate: Option<Tensor>,
    /// `W_out` `[J, D]`.
    pub out: Tensor,
    /// Neurons, scan and delay line of every stream.
    pub state: Shared<LayerState<T>>,
    temporal: bool,
    /// Tapes of earlier chunks, to be filled again instead of allocated.
    spare: RefCell<Vec<Shared<LayerTape<T>>>>,
}

/// What a block leaves behind for the credit rule.
pub struct Trail<T> {
    /// Activations and adjoints.
    pub tape: Shared<LayerTape<T>>,
    /// `ψ` `[B, K, J]`, off the graph.
    pub psi: Tensor,
    /// Postsynaptic spikes `[B, K, D]`, off the graph.
    pub spikes: Tensor,
}

/// The whole network.
pub struct Network<T> {
    input: InputKind,
    /// Embedding `[V, J]`, or the linear map of frames `[J, F]`.
    pub embedding: Tensor,
    /// The blocks.
    pub blocks: Vec<Block<T>>,
    /// `RMSNorm` gain before the output layer `[J]`.
    pub gain: Tensor,
    /// Output layer `[O, J]`.
    pub head: Tensor,
    /// Its bias `[O]`.
    pub head_bias: Tensor,
    streams: usize,
}

fn dims(c: &BimConfig) -> Dims {
    let (inputs, heads) = (c.width.0, c.heads.0);
    let delta_inputs = match c.delta_input {
        DeltaInput::Group => inputs / heads,
        DeltaInput::Full => inputs,
    };
    Dims { inputs, channels: c.channels.0, state: c.state.0, heads, delta_inputs }
}

impl<T: Real> Block<T> {
    fn new(c: &BimConfig, index: usize, streams: usize, src: &mut dyn ParamSource) -> Result<Self> {
        let dims = dims(c);
        let Dims { inputs: j, channels: d, heads: h, delta_inputs, .. } = dims;
        let mut get = |name: &str, shape: &[usize], init| src.get(&format!("layers.{index}.{name}"), shape, init);
        // a delay line that starts as the undelayed spike
        let taps = (0..c.delays.0 * j).map(|i| if i < j { 1.0 } else { 0.0 }).collect();
        // as in Mamba-2: rates 1…16, step sizes log-uniform on [0.001, 0.1], spread over the heads
        let spread = |i: usize| (i as f64 + 0.5) / h as f64;
        let a_log = (0..h).map(|i| (1.0 + 15.0 * spread(i)).ln()).collect();
        let bias = (0..h)
            .map(|i| {
                let step = (1e-3f64.ln() + spread((i * 5) % h) * (1e-1f64 / 1e-3).ln()).exp();
                step.exp_m1().ln() // softplus⁻¹
            })
            .collect();
        let out_std = 1.0 / (d as f64 * 2.0 * c.layers.0 as f64).sqrt();
        Ok(Self {
            dims,
            pre: Neuron::new(&c.pre),
            post: Neuron::new(&c.post),
            gain: get("norm.gain", &[j], Init::Constant(1.0))?,
            taps: get("delays", &[c.delays.0, j], Init::Values(taps))?,
            projection: get("projection", &[dims.projected(), j], Init::fan_in(j))?,
            delta: get("delta.weight", &[h, delta_inputs], Init::Normal(0.5 / (delta_inputs as f64).sqrt()))?,
            bias: get("delta.bias", &[h], Init::Values(bias))?,
            a_log: get("a_log", &[h], Init::Values(a_log))?,
            skip: get("skip", &[d], Init::Constant(1.0))?,
            gate: if c.gate { Some(get("gate", &[j, j], Init::fan_in(j))?) } else { None },
            out: get("out", &[j, d], Init::Normal(out_std))?,
            state: Arc::new(Mutex::new(LayerState {
                encode: vec![EncodeState::new(j, c.delays.0); streams],
                scan: vec![ScanState::new(&dims); streams],
            })),
            temporal: c.credit != Credit::Spatial,
            spare: RefCell::default(),
        })
    }

    fn forward(&self, x: &Tensor, record: bool) -> Result<(Tensor, Trail<T>)> {
        let (b, k, j) = x.dims3()?;
        let Dims { heads, delta_inputs, .. } = self.dims;
        let tape = self.spare.borrow_mut().pop().unwrap_or_default();
        let state = || Arc::clone(&self.state);
        let normed = rms_norm::<T>(x, &self.gain)?; // [B, K, J]
        let encode = Encode { neuron: self.pre, temporal: self.temporal, state: state(), tape: Arc::clone(&tape) };
        let psi = normed.apply_op2(&self.taps, encode)?; // [B, K, J]
        let flat = psi.reshape((b * k, j))?;
        let p = flat.matmul(&self.projection.t()?)?.reshape((b, k, self.dims.projected()))?; // u, B, C
        let z = if delta_inputs == j {
            flat.matmul(&self.delta.t()?)?.reshape((b, k, heads))?
        } else {
            let grouped = psi.reshape((b, k, heads, delta_inputs))?;
            grouped.broadcast_mul(&self.delta)?.sum(D::Minus1)? // [B, K, H]
        };
        let dynamics = Tensor::cat(&[&self.bias, &self.a_log, &self.skip], 0)?; // [2H + D]
        let scan = Scan {
            dims: self.dims,
            neuron: self.post,
            temporal: self.temporal,
            record,
            state: state(),
            tape: Arc::clone(&tape),
        };
        let s = p.apply_op3(&z.contiguous()?, &dynamics, scan)?; // [B, K, D]
        let mut y = s.reshape((b * k, self.dims.channels))?.matmul(&self.out.t()?)?; // [B·K, J]
        if let Some(gate) = &self.gate {
            y = y.apply_op2(&flat.matmul(&gate.t()?)?, Gate::<T>(PhantomData))?;
        }
        let trail = Trail { tape, psi: psi.detach(), spikes: s.detach() };
        Ok(((x + y.reshape((b, k, j))?)?, trail))
    }
}

fn rms_norm<T: Real>(x: &Tensor, gain: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op2(gain, RmsNorm::<T>(PhantomData))?)
}

impl<T: Real> Network<T> {
    /// Builds the network from new or existing parameters, with all streams at rest.
    ///
    /// # Errors
    /// If the configuration does not fit together.
    pub fn new(c: &BimConfig, io: &Io, src: &mut dyn ParamSource) -> Result<Self> {
        c.check()?;
        let j = c.width.0;
        let embedding = match io.input {
            InputKind::Tokens { vocabulary } => src.get("embedding", &[vocabulary, j], Init::Normal(1.0))?,
            InputKind::Frames { width } => src.get("embedding", &[j, width], Init::fan_in(width))?,
        };
        let blocks = (0..c.layers.0).map(|i| Block::new(c, i, io.streams, src)).collect::<Result<_>>()?;
        Ok(Self {
            input: io.input,
            embedding,
            blocks,
            gain: src.get("norm.gain", &[j], Init::Constant(1.0))?,
            head: src.get("head.weight", &[io.outputs, j], Init::fan_in(j))?,
            head_bias: src.get("head.bias", &[io.outputs], Init::Constant(0.0))?,
            streams: io.streams,
        })
    }

    /// Streams side by side, `B`.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Puts the marked streams to rest.
    ///
    /// # Errors
    /// If there is not one mark per stream.
    pub fn reset(&self, starts: &[bool]) -> Result<()> {
        if starts.len() != self.streams {
            return Err(Error::shape("starts", self.streams, starts.len()));
        }
        for block in &self.blocks {
            let mut state = lock(&block.state);
            for (b, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
                state.encode[b].reset();
                state.scan[b].reset();
            }
        }
        Ok(())
    }

    /// Takes back what [`Network::forward`] left, so that the next chunk need not allocate it.
    pub fn recycle(&self, trails: Vec<Trail<T>>) {
        for (block, trail) in self.blocks.iter().zip(trails) {
            // an operation still on a graph may hold the tape: then it is not free
            if Arc::strong_count(&trail.tape) == 1 {
                block.spare.borrow_mut().push(trail.tape);
            }
        }
    }

    /// Runs one chunk and advances the state: `[B, K]` tokens or `[B, K, F]` frames → logits `[B, K, O]`, with what each
    /// block leaves for the credit rule if `record` is set.
    ///
    /// # Errors
    /// If the input's shape is not the one the network was built for.
    pub fn forward(&self, x: &Tensor, record: bool) -> Result<(Tensor, Vec<Trail<T>>)> {
        let (b, k, mut x) = self.embed(x)?;
        let mut trails = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, trail) = block.forward(&x, record)?;
            x = y;
            trails.push(trail);
        }
        let flat = rms_norm::<T>(&x, &self.gain)?.reshape((b * k, ()))?;
        let logits = flat.matmul(&self.head.t()?)?.broadcast_add(&self.head_bias)?;
        Ok((logits.reshape((b, k, ()))?, trails))
    }

    fn embed(&self, x: &Tensor) -> Result<(usize, usize, Tensor)> {
        let dims = x.dims();
        let expected = match self.input {
            InputKind::Tokens { .. } => dims.len() == 2 && dims[0] == self.streams,
            InputKind::Frames { width } => dims.len() == 3 && dims[0] == self.streams && dims[2] == width,
        };
        if !expected {
            return Err(Error::shape("input", format!("{:?} with {} streams", self.input, self.streams), dims));
        }
        let (b, k) = (dims[0], dims[1]);
        let embedded = match self.input {
            InputKind::Tokens { .. } => {
                candle_nn::Embedding::new(self.embedding.clone(), self.embedding.dim(1)?).forward(x)?
            }
            InputKind::Frames { width } => {
                let x = x.to_dtype(self.embedding.dtype())?;
                x.reshape((b * k, width))?.matmul(&self.embedding.t()?)?.reshape((b, k, ()))?
            }
        };
        Ok((b, k, embedded))
    }
}
