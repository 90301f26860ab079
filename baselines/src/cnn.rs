use candle_core::{D, DType, Device, Tensor};
use learner::{Error, Init, InputKind, Io, ParamSource, Result};
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Whole, Width, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{Before, Conv, Edge, Pool, Prepare, conv, pool, rms_norm_slow};
use crate::{SequenceModel, State, recording};

/// Which convolutional network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Dilated causal convolutions over a stream.
    #[default]
    Causal,
    /// A residual network over whole recordings.
    Resnet,
}

/// Sizes of a [`Cnn`]. Keys of the other family are an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// xresnet1d101 as Strodthoff et al. 2021 train it on PTB-XL (He et al. 2019 in one dimension): 64 channels in every
    /// stage of 3, 4, 23 and 3 bottlenecks with expansion 4, kernels of 5.
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
    Causal { input: Input, width: usize, layers: Vec<CausalBlock> },
    Resnet(Box<Resnet>),
}

impl SequenceModel for Cnn {
    type Config = CnnConfig;

    fn new(config: &CnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        config.check(io)?;
        let width = config.width.get();
        let (body, output) = match config.family {
            Family::Causal => {
                let (layers, cycle) =
                    (config.layers.map_or(6, Whole::get), config.dilation_cycle.map_or(10, Whole::get));
                let input = Input::new(io, width, EMBEDDING_STD, source)?;
                let blocks = (0..layers)
                    .map(|i| CausalBlock::new(i, (width, config.kernel()), 1 << (i % cycle), layers, source))
                    .collect::<Result<_>>()?;
                let output = Output::new(io, width, Prepare::Norm, source)?;
                (Body::Causal { input, width, layers: blocks }, output)
            }
            Family::Resnet => {
                let resnet = Resnet::new(config, io, source)?;
                let output = Output::new(io, 2 * resnet.channels, Prepare::Nothing, source)?;
                (Body::Resnet(Box::new(resnet)), output)
            }
        };
        Ok(Self { body, output, device: source.device().clone(), dtype: source.dtype() })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        match &self.body {
            Body::Causal { width, layers, .. } => {
                layers.iter().flat_map(CausalBlock::convolutions).try_fold(State::new(), |state, c| {
                    state.zeros(c.name.clone(), &[streams, c.reach(), *width], self.dtype, &self.device)
                })
            }
            Body::Resnet(_) => recording::initial_state(streams, &self.device),
        }
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        match &self.body {
            Body::Causal { input, layers, .. } => {
                let mut next = State::new();
                let mut x = input.forward(x)?; // [B, K, D]
                for (i, block) in layers.iter().enumerate() {
                    count::layer(&format!("layers.{i}"));
                    count::residual(&x);
                    let inner = block.first.forward(&x, state, &mut next)?;
                    x = (block.second.forward(&inner, state, &mut next)? + x)?;
                }
                Ok((self.output.forward(&x)?, next))
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

/// Per value of what is left of a recording: norm (3), relu, sum of its mean, comparison of its maximum; back their
/// gradients.
const POOLED_ELEMENTWISE: (u64, u64) = (6, 9);

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 0.5;

/// `x + conv(conv(x))`, each convolution after norm and relu.
struct CausalBlock {
    first: CausalConv,
    second: CausalConv,
}

struct CausalConv {
    /// `[taps · D, D]`: the first rows belong to the earliest step.
    weight: Tensor,
    /// `[D]`.
    bias: Tensor,
    taps: usize,
    dilation: usize,
    /// Name in the state of the steps before the segment, `[B, (taps − 1) · dilation, D]`.
    name: String,
}

impl CausalBlock {
    fn new(
        index: usize,
        (width, taps): (usize, usize),
        dilation: usize,
        layers: usize,
        source: &mut dyn ParamSource,
    ) -> Result<Self> {
        // the relu halves the mean square (He et al. 2015); every block adds once to the residual stream, whose variance
        // stays near that of the input
        let fan_in = (taps * width) as f64;
        let mut new = |part: &str, variance: f64| -> Result<CausalConv> {
            let name = |what: &str| format!("layers.{index}.{part}.{what}");
            Ok(CausalConv {
                weight: source.get(&name("weight"), &[taps * width, width], Init::Normal(variance.sqrt()))?,
                bias: source.get(&name("bias"), &[width], Init::Constant(0.0))?,
                taps,
                dilation,
                name: name("before"),
            })
        };
        Ok(Self { first: new("first", 2.0 / fan_in)?, second: new("second", 2.0 / (fan_in * layers as f64))? })
    }

    fn convolutions(&self) -> [&CausalConv; 2] {
        [&self.first, &self.second]
    }
}

impl CausalConv {
    /// Steps before the segment that it sees.
    fn reach(&self) -> usize {
        (self.taps - 1) * self.dilation
    }

    fn forward(&self, x: &Tensor, state: &State, next: &mut State) -> Result<Tensor> {
        let before = state.get(&self.name)?;
        let (steps, reach) = (x.dim(1)?, self.reach());
        let last = if steps >= reach {
            x.detach().narrow(1, steps - reach, reach)?
        } else {
            Tensor::cat(&[&before.narrow(1, steps, reach - steps)?, &x.detach()], 1)?
        };
        next.set(self.name.clone(), &last.force_contiguous()?); // not a view, which would keep the whole segment
        let (taps, dilation, edge) = (self.taps, self.dilation, Edge::Causal(before.clone()));
        Ok(conv(x, &self.weight, &self.bias, &Conv { taps, dilation, edge, before: Before::NormRelu })?)
    }
}

/// Stem, stages of blocks, and what is left of a recording: mean and maximum of every channel.
struct Resnet {
    stem: Vec<CentredConv>,
    blocks: Vec<Block>,
    /// Channels after the last block.
    channels: usize,
}

/// `shortcut(x) + branch(x)`.
struct Block {
    branch: Vec<CentredConv>,
    /// Whether the shortcut halves the steps.
    halves: bool,
    /// The shortcut's map where the number of channels changes.
    shortcut: Option<CentredConv>,
}

struct CentredConv {
    /// `[taps · I, O]`.
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
    taps: usize,
    stride: usize,
    before: Before,
}

/// Shape of a [`CentredConv`].
#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    outputs: usize,
    taps: usize,
    stride: usize,
}

impl CentredConv {
    /// `share` is this convolution's part of the variance that its block adds.
    fn new(name: &str, sizes: Sizes, before: Before, share: f64, source: &mut dyn ParamSource) -> Result<Self> {
        let Sizes { inputs, outputs, taps, stride } = sizes;
        let gain = match before {
            Before::Nothing => 1.0,
            Before::NormRelu => 2.0, // He et al. 2015
        };
        let std = (gain * share / (taps * inputs) as f64).sqrt();
        Ok(Self {
            weight: source.get(&format!("{name}.weight"), &[taps * inputs, outputs], Init::Normal(std))?,
            bias: source.get(&format!("{name}.bias"), &[outputs], Init::Constant(0.0))?,
            taps,
            stride,
            before,
        })
    }

    /// Output `[B, ⌈K / stride⌉, O]`; `lengths` become those of the output.
    fn forward(&self, x: &Tensor, lengths: &mut Vec<usize>) -> Result<Tensor> {
        let edge = Edge::Centred { lengths: lengths.clone(), stride: self.stride };
        let shape = Conv { taps: self.taps, dilation: 1, edge, before: self.before };
        *lengths = lengths.iter().map(|n| n.div_ceil(self.stride)).collect();
        Ok(conv(x, &self.weight, &self.bias, &shape)?)
    }
}

impl Resnet {
    fn new(config: &CnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let (kernel, width) = (config.kernel(), config.width.get());
        let expansion = config.expansion.map_or(1, Whole::get);
        let InputKind::Frames { width: frame } = io.input else {
            return Err(Error::Config { key: "family", problem: "resnet reads frames".into() });
        };
        let mut stem = Vec::new();
        let mut inputs = frame;
        for (i, outputs) in [width / 2, width / 2, width].into_iter().enumerate() {
            let (stride, before) = if i == 0 { (2, Before::Nothing) } else { (1, Before::NormRelu) };
            let sizes = Sizes { inputs, outputs, taps: kernel, stride };
            stem.push(CentredConv::new(&format!("stem.{i}"), sizes, before, 1.0, source)?);
            inputs = outputs;
        }
        let stages = config.stages();
        let share = 1.0 / stages.iter().sum::<usize>() as f64;
        let (mut blocks, mut inner) = (Vec::new(), width);
        for (stage, count) in stages.into_iter().enumerate() {
            if stage > 0 {
                inner *= config.growth.map_or(2, Whole::get);
            }
            for i in 0..count {
                let halves = stage > 0 && i == 0;
                let name = format!("stages.{stage}.{i}");
                blocks.push(Block::new(&name, inputs, inner, (expansion, kernel), halves, share, source)?);
                inputs = inner * expansion;
            }
        }
        Ok(Self { stem, blocks, channels: inputs })
    }

    /// `[B, K, F]` → `[B, 2C]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut lengths = recording::lengths(x)?;
        let mut x = x.clone();
        count::layer("stem");
        for c in &self.stem {
            x = c.forward(&x, &mut lengths)?;
        }
        count::elementwise(&x, 1, 1);
        x = pool(&x, &lengths, Pool::Max)?;
        lengths = lengths.iter().map(|n| n.div_ceil(2)).collect();
        for (i, block) in self.blocks.iter().enumerate() {
            count::layer(&format!("blocks.{i}"));
            x = block.forward(&x, &mut lengths)?;
        }
        count::elementwise(&x, POOLED_ELEMENTWISE.0, POOLED_ELEMENTWISE.1);
        // what is not there is zero, which neither adds to a sum nor is above a maximum of what a relu left
        let x = rms_norm_slow(&x)?.relu()?; // [B, K', C]
        let share: Vec<f32> = lengths.iter().map(|&n| 1.0 / n.max(1) as f32).collect();
        let share = Tensor::from_vec(share, (lengths.len(), 1), x.device())?.to_dtype(x.dtype())?;
        let mean = x.sum(1)?.broadcast_mul(&share)?;
        Ok(Tensor::cat(&[mean, x.max(1)?], D::Minus1)?)
    }
}

impl Block {
    fn new(
        name: &str,
        inputs: usize,
        inner: usize,
        (expansion, kernel): (usize, usize),
        halves: bool,
        share: f64,
        source: &mut dyn ParamSource,
    ) -> Result<Self> {
        let (outputs, stride) = (inner * expansion, if halves { 2 } else { 1 });
        let sizes = |inputs, outputs, taps, stride| Sizes { inputs, outputs, taps, stride };
        let shapes = if expansion == 1 {
            vec![sizes(inputs, inner, kernel, stride), sizes(inner, outputs, kernel, 1)]
        } else {
            vec![sizes(inputs, inner, 1, 1), sizes(inner, inner, kernel, stride), sizes(inner, outputs, 1, 1)]
        };
        let last = shapes.len() - 1;
        let branch = shapes.into_iter().enumerate().map(|(i, sizes)| {
            let share = if i == last { share } else { 1.0 };
            CentredConv::new(&format!("{name}.branch.{i}"), sizes, Before::NormRelu, share, source)
        });
        let branch = branch.collect::<Result<_>>()?;
        let shortcut = if inputs == outputs {
            None
        } else {
            let name = format!("{name}.shortcut");
            Some(CentredConv::new(&name, sizes(inputs, outputs, 1, 1), Before::Nothing, 1.0, source)?)
        };
        Ok(Self { branch, halves, shortcut })
    }

    /// Output; `lengths` become those of the output.
    fn forward(&self, x: &Tensor, lengths: &mut Vec<usize>) -> Result<Tensor> {
        let mut beside = x.clone();
        let mut beside_lengths = lengths.clone();
        if self.halves {
            count::elementwise(x, 1, 1);
            beside = pool(x, lengths, Pool::Mean)?;
            beside_lengths = lengths.iter().map(|n| n.div_ceil(2)).collect();
        }
        if let Some(map) = &self.shortcut {
            beside = map.forward(&beside, &mut beside_lengths)?;
        }
        let mut x = x.clone();
        for c in &self.branch {
            x = c.forward(&x, lengths)?;
        }
        count::residual(&x);
        Ok((x + beside)?)
    }
}
