use candle_core::{DType, Device, Tensor};
use learner::{Init, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Width, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{Prepare, lstm};
use crate::{SequenceModel, State};

/// Sizes of an [`Lstm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LstmConfig {
    /// Channels of the input and of every hidden state, `H`.
    pub width: Width,
    /// Layers.
    pub layers: Layers,
    /// Whether each layer after the first adds its input to its output.
    pub residual: bool,
}

impl Default for LstmConfig {
    fn default() -> Self {
        Self { width: whole(128), layers: whole(4), residual: true }
    }
}

/// Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000), layer on layer.
pub struct Lstm {
    input: Input,
    layers: Vec<Layer>,
    output: Output,
    residual: bool,
    width: usize,
    device: Device,
    dtype: DType,
}

struct Layer {
    /// `[2H, 4H]`: rows of the input, then of the hidden state.
    weight: Tensor,
    /// `[4H]`: input, forget, candidate, output gate.
    bias: Tensor,
    name: String,
    /// Names in the state.
    hidden: String,
    cell: String,
}

impl Layer {
    fn new(index: usize, width: usize, source: &mut dyn ParamSource) -> Result<Self> {
        let name = |part: &str| format!("layers.{index}.{part}");
        Ok(Self {
            weight: source.get(&name("weight"), &[2 * width, 4 * width], start(width))?,
            bias: source.get(&name("bias"), &[4 * width], Init::Constant(0.0))?,
            name: format!("layers.{index}"),
            hidden: name("hidden"),
            cell: name("cell"),
        })
    }
}

impl SequenceModel for Lstm {
    type Config = LstmConfig;

    fn new(config: &LstmConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let width = config.width.get();
        Ok(Self {
            input: Input::new(io, width, EMBEDDING_STD, source)?,
            layers: (0..config.layers.get()).map(|i| Layer::new(i, width, source)).collect::<Result<_>>()?,
            output: Output::new(io, width, Prepare::Nothing, source)?,
            residual: config.residual,
            width,
            device: source.device().clone(),
            dtype: source.dtype(),
        })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        self.layers.iter().flat_map(|l| [&l.hidden, &l.cell]).try_fold(State::new(), |state, name| {
            state.zeros(name.clone(), &[streams, self.width], self.dtype, &self.device)
        })
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut x = self.input.forward(x)?; // [B, K, H]
        let last = x.dim(1)? - 1;
        let mut next = State::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let (hidden, cell) =
                lstm(&x, &layer.weight, &layer.bias, state.get(&layer.hidden)?, state.get(&layer.cell)?)?;
            count::layer(&layer.name);
            count::lstm(&x, &layer.weight, &hidden, state.get(&layer.hidden)?);
            if self.residual && i > 0 {
                count::residual(&x);
            }
            next.set(layer.hidden.clone(), &hidden.detach().narrow(1, last, 1)?.squeeze(1)?.contiguous()?);
            next.set(layer.cell.clone(), &cell);
            x = if self.residual && i > 0 { (x + hidden)? } else { hidden };
        }
        Ok((self.output.forward(&x)?, next))
    }
}

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 1.0;

/// How the layers' weights start: as in `torch.nn.LSTM`. Four layers of bytes learn faster from there than from normal weights and
/// open forget gates.
fn start(width: usize) -> Init {
    Init::Uniform(1.0 / (width as f64).sqrt())
}
