//! A residual network over whole recordings.

use candle_core::{D, Tensor};
use learner::{Error, Init, InputKind, Io, ParamSource, Result};

use super::CnnConfig;
use crate::config::Whole;
use crate::ops::{Before, Conv, Edge, Pool, conv, pool, rms_norm_slow};
use crate::{count, recording};

/// Per value of what is left of a recording: norm (3), relu, sum of its mean, comparison of its maximum; back their
/// gradients.
const POOLED_ELEMENTWISE: (u64, u64) = (6, 9);

/// Stem, stages of blocks, and what is left of a recording: mean and maximum of every channel.
pub(super) struct Resnet {
    stem: Vec<Convolution>,
    blocks: Vec<Block>,
    /// Channels after the last block.
    channels: usize,
}

/// `shortcut(x) + branch(x)`.
struct Block {
    branch: Vec<Convolution>,
    /// Whether the shortcut halves the steps.
    halves: bool,
    /// The shortcut's map where the number of channels changes.
    shortcut: Option<Convolution>,
}

struct Convolution {
    /// `[taps · I, O]`.
    weight: Tensor,
    /// `[O]`.
    bias: Tensor,
    taps: usize,
    stride: usize,
    before: Before,
}

/// Shape of a [`Convolution`].
#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    outputs: usize,
    taps: usize,
    stride: usize,
}

impl Convolution {
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
    pub fn new(config: &CnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
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
            stem.push(Convolution::new(&format!("stem.{i}"), sizes, before, 1.0, source)?);
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

    /// Values per recording, `2C`.
    pub fn outputs(&self) -> usize {
        2 * self.channels
    }

    /// `[B, K, F]` → `[B, 2C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
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
            Convolution::new(&format!("{name}.branch.{i}"), sizes, Before::NormRelu, share, source)
        });
        let branch = branch.collect::<Result<_>>()?;
        let shortcut = if inputs == outputs {
            None
        } else {
            let name = format!("{name}.shortcut");
            Some(Convolution::new(&name, sizes(inputs, outputs, 1, 1), Before::Nothing, 1.0, source)?)
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
