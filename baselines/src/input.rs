use candle_core::Tensor;
use learner::operations::Source;
use learner::{Init, InputKind, Io, ParamSource, Result};

use crate::count;
use crate::ops::{Prepare, linear};

/// What turns segments into channels: a table for tokens, a linear map for frames.
pub(crate) enum Input {
    /// `[V, D]`.
    Table(Tensor),
    /// `[F, D]` and `[D]`.
    Map(Tensor, Tensor),
}

impl Input {
    /// Rows start with `std` per channel, for tokens as for frames of unit variance.
    pub fn new(io: &Io, width: usize, std: f64, source: &mut dyn ParamSource) -> Result<Self> {
        Ok(match io.input {
            InputKind::Tokens { vocabulary } => {
                Self::Table(source.get("embedding.weight", &[vocabulary, width], Init::Normal(std))?)
            }
            InputKind::Frames { width: frame } => Self::Map(
                source.get("input.weight", &[frame, width], Init::Normal(std / (frame.max(1) as f64).sqrt()))?,
                source.get("input.bias", &[width], Init::Constant(0.0))?,
            ),
        })
    }

    /// `[B, K]` or `[B, K, F]` → `[B, K, D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        count::layer("input");
        Ok(match self {
            Self::Table(table) => {
                let (b, k) = x.dims2()?;
                count::lookup(x, table.dim(1)?);
                table.index_select(&x.contiguous()?.flatten_all()?, 0)?.reshape((b, k, table.dim(1)?))?
            }
            Self::Map(w, b) => {
                count::linear(x, w, Source::Values, false, true);
                linear(x, w, b, Prepare::Nothing)?
            }
        })
    }
}

/// The map from channels to outputs.
pub(crate) struct Output {
    weight: Tensor,
    bias: Tensor,
    prepare: Prepare,
    source: Source,
}

impl Output {
    /// Starts as `torch.nn.Linear` does. From weights of zero, which make the first prediction uniform, nothing reaches the body at
    /// first: all models here learn slower from them, by 0.06 to 0.27 bits per byte after 300,000 bytes.
    pub fn new(io: &Io, width: usize, prepare: Prepare, source: &mut dyn ParamSource) -> Result<Self> {
        let start = Init::Uniform(1.0 / (width.max(1) as f64).sqrt());
        let weight = source.get("output.weight", &[width, io.outputs], start)?;
        let bias = source.get("output.bias", &[io.outputs], Init::Constant(0.0))?;
        Ok(Self { weight, bias, prepare, source: Source::Values })
    }

    /// The same behind spiking neurons.
    pub fn of_spikes(self) -> Self {
        Self { source: Source::Spikes, ..self }
    }

    /// `[B, K, D]` → `[B, K, O]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        count::layer("output");
        count::linear(x, &self.weight, self.source, self.prepare == Prepare::Norm, false);
        Ok(linear(x, &self.weight, &self.bias, self.prepare)?)
    }
}
