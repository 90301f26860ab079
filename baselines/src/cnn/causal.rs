//! Dilated causal convolutions over a stream.

use candle_core::{DType, Device, Tensor};
use learner::{Init, Io, ParamSource, Result};

use super::CnnConfig;
use crate::config::Whole;
use crate::input::Input;
use crate::ops::{Before, Conv, Edge, conv};
use crate::{State, count};

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 0.5;

/// Input and residual blocks.
pub(super) struct Causal {
    input: Input,
    width: usize,
    layers: Vec<Block>,
}

impl Causal {
    pub fn new(config: &CnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let width = config.width.get();
        let (layers, cycle) = (config.layers.map_or(6, Whole::get), config.dilation_cycle.map_or(10, Whole::get));
        let input = Input::new(io, width, EMBEDDING_STD, source)?;
        let layers = (0..layers)
            .map(|i| Block::new(i, (width, config.kernel()), 1 << (i % cycle), layers, source))
            .collect::<Result<_>>()?;
        Ok(Self { input, width, layers })
    }

    /// What lies before the segment of every convolution: zeros.
    pub fn initial_state(&self, streams: usize, dtype: DType, device: &Device) -> Result<State> {
        self.layers.iter().flat_map(Block::convolutions).try_fold(State::new(), |state, c| {
            state.zeros(c.name.clone(), &[streams, c.reach(), self.width], dtype, device)
        })
    }

    /// Channels `[B, K, D]` and the state after the segment.
    pub fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut next = State::new();
        let mut x = self.input.forward(x)?; // [B, K, D]
        for (i, block) in self.layers.iter().enumerate() {
            count::layer(&format!("layers.{i}"));
            count::residual(&x);
            let inner = block.first.forward(&x, state, &mut next)?;
            x = (block.second.forward(&inner, state, &mut next)? + x)?;
        }
        Ok((x, next))
    }
}

/// `x + conv(conv(x))`, each convolution after norm and relu.
struct Block {
    first: Convolution,
    second: Convolution,
}

struct Convolution {
    /// `[taps · D, D]`: the first rows belong to the earliest step.
    weight: Tensor,
    /// `[D]`.
    bias: Tensor,
    taps: usize,
    dilation: usize,
    /// Name in the state of the steps before the segment, `[B, (taps − 1) · dilation, D]`.
    name: String,
}

impl Block {
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
        let mut new = |part: &str, variance: f64| -> Result<Convolution> {
            let name = |what: &str| format!("layers.{index}.{part}.{what}");
            Ok(Convolution {
                weight: source.get(&name("weight"), &[taps * width, width], Init::Normal(variance.sqrt()))?,
                bias: source.get(&name("bias"), &[width], Init::Constant(0.0))?,
                taps,
                dilation,
                name: name("before"),
            })
        };
        Ok(Self { first: new("first", 2.0 / fan_in)?, second: new("second", 2.0 / (fan_in * layers as f64))? })
    }

    fn convolutions(&self) -> [&Convolution; 2] {
        [&self.first, &self.second]
    }
}

impl Convolution {
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
