use candle_core::{DType, Device, Tensor};
use learner::operations::Source;
use learner::{Init, Io, ParamSource, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Layers, Positive, Share, Width, positive, share, whole};
use crate::count;
use crate::input::{Input, Output};
use crate::ops::{LifState, Neuron, Prepare, Threshold, lif};
use crate::{SequenceModel, State, sent};

/// Sizes and neurons of an [`Snn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnnConfig {
    /// Channels of the input and neurons of every layer, `H`.
    pub width: Width,
    /// Layers.
    pub layers: Layers,
    /// What a membrane keeps from step to step, `β`.
    pub decay: Share,
    /// Membrane above which a neuron fires, `ϑ`; also what a spike takes off it.
    pub threshold: Positive,
    /// Steepness of the fast sigmoid whose derivative stands in for that of firing.
    pub slope: Positive,
    /// Whether the neurons of a layer are connected among themselves.
    pub recurrent: bool,
    /// Whether each layer after the first adds its input to its spikes (Fang et al. 2021): what enters a product is then a
    /// count of spikes. Without it four layers learn no more of bytes in 500 updates than how frequent each is.
    pub residual: bool,
    /// How spikes raise a neuron's own threshold; absent means that it is fixed.
    pub adaptive: Option<Adaptation>,
}

/// A threshold that rises by `strength` with every spike and falls back by `decay` per step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptation {
    /// What of the rise is left after a step.
    pub decay: Share,
    /// Rise per spike.
    pub strength: Positive,
}

impl Default for Adaptation {
    fn default() -> Self {
        // a few tens of steps; the strength of Bellec et al. (2018) is 1.8 times a threshold that drives go well above
        Self { decay: share(0.97), strength: positive(0.1) }
    }
}

impl Default for SnnConfig {
    fn default() -> Self {
        Self {
            width: whole(128),
            layers: whole(4),
            decay: share(0.9),
            threshold: positive(1.0),
            slope: positive(25.0),
            recurrent: false,
            residual: true,
            adaptive: None,
        }
    }
}

impl SnnConfig {
    fn neuron(&self) -> Neuron {
        let f = |x: f64| x as f32;
        let threshold = |a: Adaptation| Threshold { decay: f(a.decay.into()), strength: f(a.strength.into()) };
        Neuron {
            decay: f(self.decay.into()),
            threshold: f(self.threshold.into()),
            slope: f(self.slope.into()),
            adaptive: self.adaptive.map(threshold),
        }
    }
}

/// Layers of leaky integrate-and-fire neurons, trained through a surrogate of their derivative.
pub struct Snn {
    input: Input,
    layers: Vec<Layer>,
    output: Output,
    neuron: Neuron,
    residual: bool,
    width: usize,
    device: Device,
    dtype: DType,
}

struct Layer {
    /// `[H, H]`, or `[2H, H]`: rows of the input, then of the layer's own spikes.
    weight: Tensor,
    /// `[H]`.
    bias: Tensor,
    name: String,
    /// Names in the state.
    membrane: String,
    adaptation: String,
}

impl Layer {
    fn new(index: usize, config: &SnnConfig, source: &mut dyn ParamSource) -> Result<Self> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let width = config.width.get();
        let rows = if config.recurrent { 2 * width } else { width };
        Ok(Self {
            weight: source.get(&name("weight"), &[rows, width], Init::fan_in(rows))?,
            bias: source.get(&name("bias"), &[width], Init::Constant(0.0))?,
            name: format!("layers.{index}"),
            membrane: name("membrane"),
            adaptation: name("adaptation"),
        })
    }
}

impl SequenceModel for Snn {
    type Config = SnnConfig;
    const SPIKES: bool = true;

    fn new(config: &SnnConfig, io: &Io, source: &mut dyn ParamSource) -> Result<Self> {
        let width = config.width.get();
        Ok(Self {
            input: Input::new(io, width, EMBEDDING_STD, source)?,
            layers: (0..config.layers.get()).map(|i| Layer::new(i, config, source)).collect::<Result<_>>()?,
            output: Output::new(io, width, Prepare::Nothing, source)?.of_spikes(),
            neuron: config.neuron(),
            residual: config.residual,
            width,
            device: source.device().clone(),
            dtype: source.dtype(),
        })
    }

    fn initial_state(&self, streams: usize) -> Result<State> {
        let dims = [streams, self.width];
        self.layers.iter().try_fold(State::new(), |state, l| {
            let state = state.zeros(l.membrane.clone(), &dims, self.dtype, &self.device)?;
            match self.neuron.adaptive {
                Some(_) => state.zeros(l.adaptation.clone(), &dims, self.dtype, &self.device),
                None => Ok(state),
            }
        })
    }

    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)> {
        let mut x = self.input.forward(x)?; // [B, K, H]
        let mut next = State::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let adaptation = match self.neuron.adaptive {
                Some(_) => Some(state.get(&layer.adaptation)?.clone()),
                None => None,
            };
            let before = LifState { membrane: state.get(&layer.membrane)?.clone(), adaptation };
            let (spikes, after) = lif(&x, &layer.weight, &layer.bias, &before, self.neuron)?;
            sent::population(&layer.name, &spikes)?;
            next.set(layer.membrane.clone(), &after.membrane);
            if let Some(a) = &after.adaptation {
                next.set(layer.adaptation.clone(), a);
            }
            let connected = layer.weight.dim(0)? > self.width;
            let fired_before = if connected && count::active() { Some(fired(&before, self.neuron)?) } else { None };
            // what the first layer reads is no spike; what the others read are spikes, or counts of them
            let source = if i == 0 { Source::Values } else { Source::Spikes };
            count::layer(&layer.name);
            count::lif((&x, source), &layer.weight, &spikes, fired_before.as_ref(), self.neuron);
            if self.residual && i > 0 {
                count::residual(&x);
            }
            x = if self.residual && i > 0 { (x + spikes)? } else { spikes };
        }
        Ok((self.output.forward(&x)?, next))
    }
}

/// Spikes of the step before the segment.
fn fired(before: &LifState, neuron: Neuron) -> Result<Tensor> {
    let threshold = match (&before.adaptation, neuron.adaptive) {
        (Some(a), Some(t)) => a.affine(f64::from(t.strength), f64::from(neuron.threshold))?,
        _ => Tensor::full(neuron.threshold, before.membrane.dims(), before.membrane.device())?,
    };
    Ok(before.membrane.gt(&threshold.to_dtype(before.membrane.dtype())?)?.to_dtype(before.membrane.dtype())?)
}

/// Standard deviation of the input's channels: with it and weights of unit gain about a fifth of the neurons fire, in
/// deep layers as in the first.
const EMBEDDING_STD: f64 = 1.0;
