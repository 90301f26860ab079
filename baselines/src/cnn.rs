mod causal;
mod resnet;

use candle_core::{DType, Device, Tensor};
use learner::{Error, InputKind, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Whole, Width, whole};
use crate::input::Output;
use crate::ops::Prepare;
use crate::{SequenceModel, State, recording};
use causal::Causal;
use resnet::Resnet;

/// Which convolutional network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Dilated causal convolutions over a stream.
    #[default]
    Causal,
    /// A residual network over whole recordings.
    Resnet,
}

/// Sizes of a [`Cnn`]. Keys of the other family are an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CnnConfig {
    /// Which network.
    pub family: Family,
    /// Causal: channels, `D`. Resnet: channels of the first stage inside its blocks, a multiple of 2.
    pub width: Width,
    /// Steps that a convolution sees; absent means 3 (causal) or 5 (resnet, where it is odd).
    pub kernel: Option<Whole<1, 63>>,
    /// Causal: residual blocks of two convolutions each; absent means 6.
    pub layers: Option<Layers>,
    /// Causal: the dilation starts over at 1 after so many blocks, each of which doubles it; absent means 10.
    pub dilation_cycle: Option<Whole<1, 16>>,
    /// Resnet: residual blocks of each stage; absent means 2, 2, 2, 2, as many as an xresnet18 has.
    pub stages: Option<Vec<Whole<1, 128>>>,
    /// Resnet: channels between blocks as a multiple of those inside; above 1, blocks are bottlenecks; absent means 1.
    pub expansion: Option<Whole<1, 8>>,
    /// Resnet: channels inside the blocks of a stage as a multiple of those of the stage before; absent means 2, as in networks
    /// over images. The xresnet1d of Strodthoff et al. 2021 have as many in all stages, 1.
    #[serde(skip_serializing_if = "Option::is_none")] // as `causal` of a Transformer
    pub growth: Option<Whole<1, 4>>,
}

impl Default for CnnConfig {
    fn default() -> Self {
        Self {
            family: Family::Causal,
            width: whole(128),
            kernel: None,
            layers: None,
            dilation_cycle: None,
            stages: None,
            expansion: None,
            growth: None,
        }
    }
}

impl CnnConfig {
    /// Channels and blocks of xresnet1d101, which Strodthoff et al. 2021 train on PTB-XL: 64 channels in every stage of 3, 4, 23
    /// and 3 bottlenecks with expansion 4, kernels of 5. Norms and their order are those of [`Cnn`].
    #[must_use]
    pub fn xresnet1d101() -> Self {
        Self {
            family: Family::Resnet,
            width: whole(64),
            stages: Some(vec![whole(3), whole(4), whole(23), whole(3)]),
            expansion: Some(whole(4)),
            growth: Some(whole(1)),
            ..Self::default()
        }
    }

    fn check(&self, io: &Io) -> Result<()> {
        let (layers, cycle) = (self.layers.is_some(), self.dilation_cycle.is_some());
        let (stages, expansion, growth) = (self.stages.is_some(), self.expansion.is_some(), self.growth.is_some());
        let foreign = match self.family {
            Family::Causal => vec![("stages", stages), ("expansion", expansion), ("growth", growth)],
            Family::Resnet => vec![("layers", layers), ("dilation_cycle", cycle)],
        };
        if let Some((key, _)) = foreign.into_iter().find(|(_, given)| *given) {
            let problem = format!("does not apply to family {:?}; leave it out", self.family).to_lowercase();
            return Err(Error::Config { key, problem });
        }
        if self.family == Family::Causal {
            return Ok(());
        }
        if matches!(io.input, InputKind::Tokens { .. }) {
            let problem = "resnet reads whole recordings of frames; for a stream of tokens use causal".into();
            return Err(Error::Config { key: "family", problem });
        }
        if self.kernel().is_multiple_of(2) {
            let problem = format!("expected an odd number, got {}", self.kernel());
            return Err(Error::Config { key: "kernel", problem });
        }
        if !self.width.get().is_multiple_of(2) {
            let problem = format!("expected a multiple of 2, got {}", self.width.get());
            return Err(Error::Config { key: "width", problem });
        }
        let stages = self.stages();
        if !(1..=MOST_STAGES).contains(&stages.len()) {
            let problem = format!("expected 1 to {MOST_STAGES}, got {}", stages.len());
            return Err(Error::Config { key: "stages", problem });
        }
        Ok(())
    }

    fn kernel(&self) -> usize {
        let default = match self.family {
            Family::Causal => 3,
            Family::Resnet => 5,
        };
        self.kernel.map_or(default, Whole::get)
    }

    fn stages(&self) -> Vec<usize> {
        self.stages.as_ref().map_or_else(|| vec![2; 4], |s| s.iter().map(|n| n.get()).collect())
    }
}

/// Each halves the steps and may multiply the channels.
const MOST_STAGES: usize = 8;

/// Convolutional network, one of two.
///
/// *Causal* (Bai et al. 2018, TCN): residual blocks of two dilated causal convolutions; what lies before the segment is
/// carried over, so that two segments give what one of twice the length gives.
///
/// *Resnet*: the xresnet family in one dimension (He et al. 2019, "bag of tricks": three-convolution stem, maximum pool, mean
/// pool before the shortcut's map) with the order norm, relu, convolution (He et al. 2016, identity mappings). It sees a recording as
/// a whole, so a recording must be one segment, and a stream that goes on is an error. Steps at the end of a recording
/// whose values are all exactly zero are padding, of which no output depends. Its one answer per recording, `[B, O]`,
/// stands at every step.
///
/// Both normalise each step over its channels (RMS norm without gain, as channel norms stand in for batch norm in Liu et
/// al. 2022). Batch norm would let streams see each other and, in a causal network, the future; its running statistics
/// would make evaluation another function than training, on segments that follow each other and so are anything but
/// independent draws.
pub struct Cnn {
    body: Body,
    output: Output,
    device: Device,
    dtype: DType,
}

enum Body {
    Causal(Causal),
    Resnet(Resnet),
}

impl SequenceModel for Cnn {
    type Config = CnnConfig;

    fn new(config: &CnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        config.check(io)?;
        let (body, output) = match config.family {
            Family::Causal => {
                let body = Body::Causal(Causal::new(config, io, source)?);
                (body, Output::new(io, config.width.get(), Prepare::Norm, source)?)
            }
            Family::Resnet => {
                let resnet = Resnet::new(config, io, source)?;
                let output = Output::new(io, resnet.outputs(), Prepare::Nothing, source)?;
                (Body::Resnet(resnet), output)
            }
        };
        Ok(Self { body, output, device: source.device().clone(), dtype: source.dtype() })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        match &self.body {
            Body::Causal(causal) => causal.initial_state(streams, self.dtype, &self.device),
            Body::Resnet(_) => recording::initial_state(streams, &self.device),
        }
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        match &self.body {
            Body::Causal(causal) => {
                let (y, next) = causal.forward(x, state)?;
                Ok((self.output.forward(&y)?, next))
            }
            Body::Resnet(resnet) => {
                let (b, k, _) = x.dims3()?;
                let next = recording::state_after("resnet", state, b, k, &self.device)?;
                let answer = self.output.forward(&resnet.forward(x)?)?; // [B, O]
                let outputs = answer.dim(1)?;
                Ok((answer.unsqueeze(1)?.broadcast_as((b, k, outputs))?.contiguous()?, next))
            }
        }
    }
}
