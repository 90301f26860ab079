//! Neurons: what they send, what a spike takes off them, and the rates that their thresholds hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::{BelowOne, Bits, Count, NonNegative, Positive, Share};

/// How many spikes a neuron may fire in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// 0 or 1.
    Binary,
    /// −1, 0 or 1: an ON/OFF pair of neurons.
    Signed,
    /// A burst of up to `burst` spikes of either sign (ON/OFF pairs); paid as that many accumulates.
    Integer,
    /// A burst of 0 to `burst` spikes.
    Unsigned,
    /// No spikes, but numbers of `bits` bits: `V/ϑ` rounded to the nearest of `2ⁿ − 1` codes around zero (0 and 1 for one bit).
    /// Its synapses multiply, at that precision. `reset`, `attached_reset` and `surrogate` have no say: nothing is taken off the
    /// membrane, and gradients pass straight through within the range of the codes. With `beta: 0` it is a memoryless quantiser,
    /// and the network is the quantised twin of one whose spikes have `L` levels, for `bits = ⌈log₂ L⌉`: the control that says
    /// what spikes are worth beside small numbers.
    Quantised,
    /// No spikes: the membrane potential itself. With `beta: 0` the neuron is not there at all, which makes the network a
    /// selective state-space model without spikes: the reference that quality is held against.
    Analog,
}

/// What a spike does to the membrane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// `−ϑ s_{t-1}` after the leak. The paper's eq. 3 prints no reset; this is the usual one.
    Subtract,
    /// The threshold is taken off before the leak: `β (V − ϑ s)`, so that the part that did not fire is what persists.
    Leaky,
    /// No reset.
    None,
}

/// Stand-in for the derivative of firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Surrogate {
    /// Straight-through within the range of levels.
    Rectangular,
    /// `1 / (1 + slope·|V − ϑ|)²`.
    FastSigmoid,
}

/// What the distance between a neuron's levels is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// `threshold`, the same for all neurons. A level of `k` arrives at the synapses as `k`.
    #[default]
    Fixed,
    /// A parameter of each neuron, learned as its logarithm (learned step size quantisation, Esser et al. 2020), which begins as
    /// `threshold`. A level of `k` arrives as `k` steps: the step is folded into the weights behind it, which are still added
    /// for each spike. [`crate::fold`] says which credit it gets.
    Learned,
}

/// How a level of several spikes is sent, and so how it is paid. It changes counts and prices, no number of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpikeCode {
    /// As so many spikes: an accumulate each.
    #[default]
    Burst,
    /// As weighted spikes (phase code, Kim et al. 2018): one for each signed digit of the level that is not zero, in canonical form
    /// (7 = 8 − 1 is two), an accumulate of a shifted weight each.
    Weighted,
}

/// A population of leaky integrate-and-fire neurons.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NeuronConfig {
    /// Spikes per step.
    pub levels: Levels,
    /// Most spikes per step, for `integer` and `unsigned`.
    pub burst: Count,
    /// Bits of a code, for `quantised`. The nine levels of bursts up to 4 need four.
    pub bits: Bits,
    /// Membrane decay per step, `β`.
    pub beta: Share,
    /// Membrane resistance `R_m`.
    pub resistance: Positive,
    /// Threshold `ϑ`; for several levels also the distance between them. Where `step` is learned, what it begins as.
    pub threshold: Positive,
    /// Distance between levels.
    pub step: Step,
    /// How a level of several spikes is sent, for `integer` and `unsigned`.
    pub spikes: SpikeCode,
    /// Reset.
    pub reset: Reset,
    /// Whether gradients go through the reset.
    pub attached_reset: bool,
    /// Surrogate derivative.
    pub surrogate: Surrogate,
    /// Slope of the fast sigmoid.
    pub surrogate_slope: Positive,
    /// Price: weight in the loss of the mean magnitude of what a neuron sends in a step. Of bursts that is their number of spikes;
    /// of weighted spikes and codes the level, not its digits; of numbers what they are.
    pub penalty: NonNegative,
}

impl NeuronConfig {
    /// No neuron: the input passes as it is.
    #[must_use]
    pub fn none() -> Self {
        Self { levels: Levels::Analog, beta: Share(0.0), ..Self::default() }
    }

    /// Whether it fires spikes, which take something off its membrane. Otherwise it passes numbers on.
    #[must_use]
    pub fn fires(&self) -> bool {
        match self.levels {
            Levels::Binary | Levels::Signed | Levels::Integer | Levels::Unsigned => true,
            Levels::Quantised | Levels::Analog => false,
        }
    }
}

impl Default for NeuronConfig {
    fn default() -> Self {
        Self {
            levels: Levels::Integer,
            burst: Count(4),
            bits: Bits(4),
            beta: Share(0.1),
            resistance: Positive(1.0),
            threshold: Positive(1.0),
            step: Step::Fixed,
            spikes: SpikeCode::Burst,
            reset: Reset::Leaky,
            attached_reset: false,
            surrogate: Surrogate::Rectangular,
            surrogate_slope: Positive(2.0),
            penalty: NonNegative(0.0),
        }
    }
}

/// What the read-out sees of the residual stream: as it is, or through neurons of its own, one per channel. They have no
/// membrane, so that their credit is exact within the step. Keys mean what they mean for [`NeuronConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReadoutConfig {
    /// Spikes per step; `analog` is none: the read-out sees numbers and multiplies.
    pub levels: Levels,
    /// Most spikes per step, for `integer` and `unsigned`.
    pub burst: Count,
    /// Bits of a code, for `quantised`.
    pub bits: Bits,
    /// Threshold, distance between levels, or what the step begins as.
    pub threshold: Positive,
    /// Distance between levels.
    pub step: Step,
    /// How a level of several spikes is sent, for `integer` and `unsigned`.
    pub spikes: SpikeCode,
    /// Surrogate derivative.
    pub surrogate: Surrogate,
    /// Slope of the fast sigmoid.
    pub surrogate_slope: Positive,
    /// Price: weight in the loss of the mean level per neuron and step.
    pub penalty: NonNegative,
}

impl Default for ReadoutConfig {
    fn default() -> Self {
        let NeuronConfig { bits, threshold, step, spikes, surrogate, surrogate_slope, penalty, .. } =
            NeuronConfig::default();
        let (levels, burst) = (Levels::Analog, Count(16));
        Self { levels, burst, bits, threshold, step, spikes, surrogate, surrogate_slope, penalty }
    }
}

impl ReadoutConfig {
    /// Whether the read-out has neurons.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.levels != Levels::Analog
    }

    /// Its neurons.
    #[must_use]
    pub fn neuron(&self) -> NeuronConfig {
        let &Self { levels, burst, bits, threshold, step, spikes, surrogate, surrogate_slope, penalty } = self;
        let rest = NeuronConfig { beta: Share(0.0), reset: Reset::None, ..NeuronConfig::default() };
        NeuronConfig { levels, burst, bits, threshold, step, spikes, surrogate, surrogate_slope, penalty, ..rest }
    }
}

/// Homeostasis: each neuron's firing rate is held to a target by its threshold, which moves at updates alone: `ln ϑ` by
/// `rate · (running rate − target)`. It begins as `threshold` and stays within 1024 times of it. [`crate::homeostasis`] derives the credit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HomeostasisConfig {
    /// Target of each presynaptic neuron, in spikes per step (of weighted spikes, the levels that they amount to); 0 is none.
    pub pre: NonNegative,
    /// Target of each postsynaptic neuron; 0 is none.
    pub post: NonNegative,
    /// How far a logarithm of a threshold moves at an update, for each spike per step that the neuron is off its target. While gains grow by some
    /// share at each update, rates stay off the target by that share over this number.
    pub rate: Positive,
    /// What a running rate keeps of itself at an update.
    pub decay: BelowOne,
}

impl Default for HomeostasisConfig {
    fn default() -> Self {
        let none = NonNegative(0.0);
        Self { pre: none, post: none, rate: Positive(0.1), decay: BelowOne(0.9) }
    }
}

impl HomeostasisConfig {
    /// Whether thresholds of presynaptic neurons move, and of postsynaptic ones.
    #[must_use]
    pub(crate) fn holds(&self) -> [bool; 2] {
        [self.pre, self.post].map(|target| target.0 > 0.0)
    }
}
