use candle_core::{DType, Device, Tensor};
use learner::{Init, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Width, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{Cell, Prepare, rnn};
use crate::{SequenceModel, State};

/// Sizes of an [`Rnn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RnnConfig {
    /// The recurrence: `gru` or `vanilla`.
    pub cell: Cell,
    /// Channels of the input and of every hidden state, `H`.
    pub width: Width,
    /// Layers.
    pub layers: Layers,
    /// Whether each layer after the first adds its input to its output.
    pub residual: bool,
}

impl Default for RnnConfig {
    fn default() -> Self {
        Self { cell: Cell::Gru, width: whole(128), layers: whole(4), residual: true }
    }
}

/// Gated recurrent units (Cho et al. 2014) or a simple recurrent network (Elman 1990), layer on layer; [`Cell`] has the
/// equations.
pub struct Rnn {
    input: Input,
    layers: Vec<Layer>,
    output: Output,
    cell: Cell,
    residual: bool,
    width: usize,
    device: Device,
    dtype: DType,
}

struct Layer {
    /// `[2H, G·H]`: rows of the input, then of the hidden state.
    weight: Tensor,
    /// `[S·H]`.
    bias: Tensor,
    name: String,
    /// Name in the state.
    hidden: String,
}

impl Layer {
    fn new(index: usize, cell: Cell, width: usize, source: &mut dyn ParamSource) -> Result<Self> {
        let name = |part: &str| format!("layers.{index}.{part}");
        // weights as in torch.nn.GRU, biases at zero
        let start = Init::Uniform(1.0 / (width as f64).sqrt());
        Ok(Self {
            weight: source.get(&name("weight"), &[2 * width, cell.columns() * width], start)?,
            bias: source.get(&name("bias"), &[cell.sums() * width], Init::Constant(0.0))?,
            name: format!("layers.{index}"),
            hidden: name("hidden"),
        })
    }
}

impl SequenceModel for Rnn {
    type Config = RnnConfig;

    fn new(config: &RnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let (cell, width) = (config.cell, config.width.get());
        Ok(Self {
            input: Input::new(io, width, EMBEDDING_STD, source)?,
            layers: (0..config.layers.get()).map(|i| Layer::new(i, cell, width, source)).collect::<Result<_>>()?,
            output: Output::new(io, width, Prepare::Nothing, source)?,
            cell,
            residual: config.residual,
            width,
            device: source.device().clone(),
            dtype: source.dtype(),
        })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        self.layers.iter().try_fold(State::new(), |state, layer| {
            state.zeros(layer.hidden.clone(), &[streams, self.width], self.dtype, &self.device)
        })
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut x = self.input.forward(x)?; // [B, K, H]
        let last = x.dim(1)? - 1;
        let mut next = State::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let hidden = rnn(&x, &layer.weight, &layer.bias, state.get(&layer.hidden)?, self.cell)?;
            count::layer(&layer.name);
            count::rnn(&x, &layer.weight, &hidden, state.get(&layer.hidden)?, self.cell);
            if self.residual && i > 0 {
                count::residual(&x);
            }
            next.set(layer.hidden.clone(), &hidden.detach().narrow(1, last, 1)?.squeeze(1)?.contiguous()?);
            x = if self.residual && i > 0 { (x + hidden)? } else { hidden };
        }
        Ok((self.output.forward(&x)?, next))
    }
}

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 1.0;
