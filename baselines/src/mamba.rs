use candle_core::{DType, Device, Tensor};
use learner::{Group, Init, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Whole, Width, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{MambaShape, MambaState, MambaWeights, Prepare, mamba};
use crate::{SequenceModel, State};

/// Sizes of a [`Mamba`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MambaConfig {
    /// Channels of the residual stream, `D`.
    pub width: Width,
    /// Blocks.
    pub layers: Layers,
    /// Channels inside a block, `H`, as a multiple of `width`.
    pub expand: Whole<1, 8>,
    /// States per channel, `N`.
    pub states: Whole<1, 256>,
    /// Taps of the convolution, `W`.
    pub taps: Whole<1, 64>,
    /// Rank of the step sizes' projection, `R`; absent means a sixteenth of `width`, rounded up.
    pub rank: Option<Width>,
}

impl Default for MambaConfig {
    fn default() -> Self {
        let (expand, states, taps) = (whole(2), whole(16), whole(4));
        Self { width: whole(128), layers: whole(4), expand, states, taps, rank: None }
    }
}

impl MambaConfig {
    fn shape(&self) -> MambaShape {
        let width = self.width.get();
        MambaShape {
            width,
            channels: self.expand.get() * width,
            states: self.states.get(),
            rank: self.rank.map_or(width.div_ceil(16), Whole::get),
            taps: self.taps.get(),
        }
    }
}

/// Mamba (Gu & Dao 2023): residual blocks of a selective state space, RMS norm without gain before each and before the
/// output. Starts as the authors' implementation does, but for the distribution of the matrices (normal, of the same
/// kind as every baseline here).
pub struct Mamba {
    input: Input,
    layers: Vec<Layer>,
    output: Output,
    shape: MambaShape,
    device: Device,
    dtype: DType,
}

struct Layer {
    weights: MambaWeights,
    name: String,
    /// Names in the state.
    inputs: String,
    hidden: String,
}

impl Layer {
    fn new(index: usize, shape: MambaShape, layers: usize, source: &mut dyn ParamSource) -> Result<Self> {
        let MambaShape { width, channels, states, rank, taps } = shape;
        let name = |part: &str| format!("layers.{index}.{part}");
        let taps_bound = 1.0 / (taps as f64).sqrt();
        // A_n = -n for every channel: S4D-Real (Gu et al. 2022)
        let log_decay = (0..channels * states).map(|i| ((i % states + 1) as f64).ln()).collect();
        // every block adds once to the residual stream: its variance stays near that of the input (Radford et al. 2019)
        let residual = Init::Normal(1.0 / ((channels * layers) as f64).sqrt());
        Ok(Self {
            weights: MambaWeights {
                input: source.get(&name("input.weight"), &[width, 2 * channels], Init::fan_in(width))?,
                conv: source.get(&name("conv.weight"), &[taps, channels], Init::Uniform(taps_bound))?,
                conv_bias: source.get(&name("conv.bias"), &[channels], Init::Uniform(taps_bound))?,
                select: source.get(&name("select.weight"), &[channels, rank + 2 * states], Init::fan_in(channels))?,
                step: source.get(&name("step.weight"), &[rank, channels], Init::Uniform(1.0 / (rank as f64).sqrt()))?,
                step_bias: source.get(&name("step.bias"), &[channels], Init::Values(step_biases(index, channels)))?,
                log_decay: source.get(&name(LOG_DECAY), &[channels, states], Init::Values(log_decay))?,
                skip: source.get(&name("skip"), &[channels], Init::Constant(1.0))?,
                output: source.get(&name("output.weight"), &[channels, width], residual)?,
            },
            name: format!("layers.{index}"),
            inputs: name("inputs"),
            hidden: name("hidden"),
        })
    }
}

/// Biases whose softplus is log-uniform on `STEP_SIZES`. The points are those of a golden-ratio sequence: spread more
/// evenly than draws, in no order, and another stretch of it in every layer.
fn step_biases(layer: usize, channels: usize) -> Vec<f64> {
    let (low, high) = (STEP_SIZES.0.ln(), STEP_SIZES.1.ln());
    (1..=channels)
        .map(|i| {
            let share = ((layer * channels + i) as f64 * GOLDEN).fract();
            let step = (low + share * (high - low)).exp();
            step.exp_m1().ln() // the inverse of softplus
        })
        .collect()
}

impl SequenceModel for Mamba {
    type Config = MambaConfig;

    fn new(config: &MambaConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let (shape, layers) = (config.shape(), config.layers.get());
        Ok(Self {
            input: Input::new(io, shape.width, EMBEDDING_STD, source)?,
            layers: (0..layers).map(|i| Layer::new(i, shape, layers, source)).collect::<Result<_>>()?,
            output: Output::new(io, shape.width, Prepare::Norm, source)?,
            shape,
            device: source.device().clone(),
            dtype: source.dtype(),
        })
    }

    /// The decays of the states are no weights to be made small.
    fn group(name: &str, by_rank: Group) -> Group {
        Group { decays: by_rank.decays && !name.ends_with(LOG_DECAY), ..by_rank }
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        let MambaShape { channels, states, taps, .. } = self.shape;
        self.layers.iter().try_fold(State::new(), |state, l| {
            state.zeros(l.inputs.clone(), &[streams, taps - 1, channels], self.dtype, &self.device)?.zeros(
                l.hidden.clone(),
                &[streams, channels, states],
                self.dtype,
                &self.device,
            )
        })
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut x = self.input.forward(x)?; // [B, K, D]
        let mut next = State::new();
        for layer in &self.layers {
            count::layer(&layer.name);
            let before =
                MambaState { inputs: state.get(&layer.inputs)?.clone(), hidden: state.get(&layer.hidden)?.clone() };
            let (y, after) = mamba(&x, &layer.weights, &before, self.shape)?;
            next.set(layer.inputs.clone(), &after.inputs);
            next.set(layer.hidden.clone(), &after.hidden);
            x = y;
        }
        Ok((self.output.forward(&x)?, next))
    }
}

/// Last part of the name of `ln(-A)`.
const LOG_DECAY: &str = "log_decay";

/// Range of the step sizes at the start.
const STEP_SIZES: (f64, f64) = (1e-3, 1e-1);

/// `(√5 - 1) / 2`, the worst approximable number.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Standard deviation of the input's channels.
const EMBEDDING_STD: f64 = 0.5;
