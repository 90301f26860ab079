use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use learner::{Error, Init, InputKind, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Whole, Width, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{AttentionShape, Prepare, Rotary, Sight, attention, mlp};
use crate::{SequenceModel, State, recording};

/// Sizes of a [`Transformer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// Channels, `D`; a multiple of twice the heads.
    pub width: Width,
    /// Layers, each attention and feed-forward.
    pub layers: Layers,
    /// Attention heads.
    pub heads: Whole<1, 64>,
    /// Hidden width of the feed-forward part as a multiple of `width`.
    pub mlp_ratio: Whole<1, 16>,
    /// Steps before the segment that attention still sees, `M`; absent means as many as a segment has, none if it is not
    /// `causal`.
    pub memory: Option<Whole<0, 65_536>>,
    /// Whether a step sees only itself and what was before it. If not, it sees all of its recording, which must be one segment of
    /// frames, and so is no model of a stream that is predicted step by step.
    #[serde(skip_serializing_if = "is_true")]
    // an identity that is made of the written form stays what it was without the key
    pub causal: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_true(x: &bool) -> bool {
    *x
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self { width: whole(128), layers: whole(4), heads: whole(4), mlp_ratio: whole(4), memory: None, causal: true }
    }
}

/// Transformer (Vaswani et al. 2017) with norms before each part (Xiong et al. 2020), RMS norm without gain and rotary
/// positions.
///
/// *Causal*, a decoder: with a memory of the keys and values before the segment (after Dai et al. 2019), which carries context
/// across segments as a recurrent model's state does.
///
/// *Not causal*, an encoder: every step sees the whole recording, which must be one segment; a stream that goes on is an error.
/// Steps at the end of a recording whose values are all exactly zero are padding, which no step sees.
pub struct Transformer {
    input: Input,
    layers: Vec<Layer>,
    output: Output,
    heads: usize,
    width: usize,
    memory: usize,
    causal: bool,
    rotary: Arc<Rotary>,
    device: Device,
    dtype: DType,
}

struct Layer {
    /// `[D, 3D]`.
    qkv: Tensor,
    /// `[D, D]`.
    out: Tensor,
    /// `[D, F]`.
    up: Tensor,
    /// `[F, D]`.
    down: Tensor,
    name: String,
    /// Name of its memory in the state.
    memory: String,
}

/// Name of the number of remembered steps in the state, `u32` `[B]`.
const VALID: &str = "valid";

impl Layer {
    fn new(index: usize, width: usize, hidden: usize, layers: usize, source: &mut dyn ParamSource) -> Result<Self> {
        let name = |part: &str| format!("layers.{index}.{part}");
        // every layer adds twice to the residual stream: its variance stays near that of the input (Radford et al. 2019)
        let residual = |fan_in: usize| Init::Normal(1.0 / (fan_in as f64 * 2.0 * layers as f64).sqrt());
        Ok(Self {
            qkv: source.get(&name("attention.qkv"), &[width, 3 * width], Init::fan_in(width))?,
            out: source.get(&name("attention.output"), &[width, width], residual(width))?,
            up: source.get(&name("mlp.up"), &[width, hidden], Init::fan_in(width))?,
            down: source.get(&name("mlp.down"), &[hidden, width], residual(hidden))?,
            name: format!("layers.{index}"),
            memory: name("memory"),
        })
    }
}

impl SequenceModel for Transformer {
    type Config = TransformerConfig;

    fn new(config: &TransformerConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let (width, heads, layers) = (config.width.get(), config.heads.get(), config.layers.get());
        if !width.is_multiple_of(2 * heads) {
            let problem = format!("expected a divisor of width / 2 = {}, got {heads}", width as f64 / 2.0);
            return Err(Error::Config { key: "heads", problem });
        }
        if !config.causal {
            if matches!(io.input, InputKind::Tokens { .. }) {
                let problem = "false is for whole recordings of frames; a stream of tokens needs true".into();
                return Err(Error::Config { key: "causal", problem });
            }
            if config.memory.is_some_and(|m| m.get() > 0) {
                let problem = "does not apply if `causal` is false; leave it out".into();
                return Err(Error::Config { key: "memory", problem });
            }
        }
        let memory = config.memory.map_or(if config.causal { io.segment } else { 0 }, Whole::get);
        Ok(Self {
            input: Input::new(io, width, EMBEDDING_STD, source)?,
            layers: (0..layers)
                .map(|i| Layer::new(i, width, config.mlp_ratio.get() * width, layers, source))
                .collect::<Result<_>>()?,
            output: Output::new(io, width, Prepare::Norm, source)?,
            heads,
            width,
            memory,
            causal: config.causal,
            rotary: Arc::new(Rotary::new(memory + io.segment, width / heads)),
            device: source.device().clone(),
            dtype: source.dtype(),
        })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        if !self.causal {
            return recording::initial_state(streams, &self.device);
        }
        let valid = State::new().zeros(VALID, &[streams], DType::U32, &self.device)?;
        let dims = [streams, self.memory, 2 * self.width];
        self.layers.iter().try_fold(valid, |state, l| state.zeros(l.memory.clone(), &dims, self.dtype, &self.device))
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let (streams, steps) = (x.dim(0)?, x.dim(1)?);
        if !self.causal {
            let next = recording::state_after(MODEL, state, streams, steps, &self.device)?;
            let sight = Sight::Whole(recording::lengths(x)?);
            let memory = Tensor::zeros((streams, 0, 2 * self.width), self.dtype, &self.device)?;
            let (y, _) = self.through_layers(x, &vec![0; streams], &sight, |_| Ok(memory.clone()))?;
            return Ok((y, next));
        }
        let valid = state.get(VALID)?.to_vec1::<u32>()?;
        let valid: Vec<usize> = valid.into_iter().map(|v| v as usize).collect();
        let remembered = |layer: &Layer| Ok(state.get(&layer.memory)?.clone());
        let (y, memories) = self.through_layers(x, &valid, &Sight::Causal, remembered)?;
        let mut next = State::new();
        for (layer, memory) in self.layers.iter().zip(memories) {
            next.set(layer.memory.clone(), &memory);
        }
        let valid: Vec<u32> = valid.iter().map(|v| (v + steps).min(self.memory) as u32).collect();
        next.set(VALID, &Tensor::from_vec(valid, streams, &self.device)?);
        Ok((y, next))
    }
}

impl Transformer {
    /// Outputs `[B, K, O]`, and what every layer remembers.
    fn through_layers(
        &self,
        x: &Tensor,
        valid: &[usize],
        sight: &Sight,
        remembered: impl Fn(&Layer) -> Result<Tensor>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut x = self.input.forward(x)?; // [B, K, D]
        let mut memories = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            count::layer(&layer.name);
            let shape = AttentionShape {
                heads: self.heads,
                rotary: self.rotary.clone(),
                memory: remembered(layer)?,
                valid: valid.to_vec(),
                sight: sight.clone(),
            };
            let (attended, memory) = attention(&x, &layer.qkv, &layer.out, &shape)?;
            memories.push(memory);
            x = mlp(&attended, &layer.up, &layer.down)?;
        }
        Ok((self.output.forward(&x)?, memories))
    }
}

/// As an error calls it.
const MODEL: &str = "a transformer that is not causal";

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 0.5;
