//! Configuration of the network and its learning rule. Every value is checked while it is read, so that an error
//! points at the key that caused it.

use learner::{Error, Result};
use serde::{Deserialize, Serialize};

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $type:ty, $low:expr, $high:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(pub $type);
        impl TryFrom<f64> for $name {
            type Error = String;
            fn try_from(x: f64) -> std::result::Result<Self, String> {
                let whole = <$type>::try_from_f64(x).filter(|v| ($low..=$high).contains(v));
                whole.map(Self).ok_or_else(|| format!(concat!("expected ", $expected, ", got {}"), x))
            }
        }
        impl From<$name> for f64 {
            fn from(x: $name) -> f64 {
                x.0 as f64
            }
        }
    };
}

trait TryFromF64: Sized {
    fn try_from_f64(x: f64) -> Option<Self>;
}
impl TryFromF64 for f64 {
    fn try_from_f64(x: f64) -> Option<Self> {
        x.is_finite().then_some(x)
    }
}
impl TryFromF64 for usize {
    fn try_from_f64(x: f64) -> Option<Self> {
        (x.fract() == 0.0 && (0.0..=1e9).contains(&x)).then_some(x as Self)
    }
}

bounded!(
    /// A share.
    Share, f64, 0.0, 1.0, "a number from 0 to 1"
);
bounded!(
    /// A positive number.
    Positive, f64, 1e-12, 1e12, "a number above 0"
);
bounded!(
    /// A number that is not negative.
    NonNegative, f64, 0.0, 1e12, "a number from 0 up"
);
bounded!(
    /// A count of at least one.
    Count, usize, 1, 65_536, "a whole number from 1 to 65536"
);

/// How many spikes a neuron may fire in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// What a spike does to the membrane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// `−ϑ s_{t-1}` after the leak, as in eq. 3.
    Subtract,
    /// The threshold is taken off before the leak: `β (V − ϑ s)`, so that the part that did not fire is what persists.
    Leaky,
    /// No reset.
    None,
}

/// Stand-in for the derivative of firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surrogate {
    /// Straight-through within the range of levels.
    Rectangular,
    /// `1 / (1 + slope·|V − ϑ|)²`.
    FastSigmoid,
}

/// A population of leaky integrate-and-fire neurons.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NeuronConfig {
    /// Spikes per step.
    pub levels: Levels,
    /// Most spikes per step, for `integer` and `unsigned`.
    pub burst: Count,
    /// Membrane decay per step, `β`.
    pub beta: Share,
    /// Membrane resistance `R_m`.
    pub resistance: Positive,
    /// Threshold `ϑ`; for several levels also the distance between them.
    pub threshold: Positive,
    /// Reset.
    pub reset: Reset,
    /// Whether gradients go through the reset.
    pub attached_reset: bool,
    /// Surrogate derivative.
    pub surrogate: Surrogate,
    /// Slope of the fast sigmoid.
    pub surrogate_slope: Positive,
}

impl Default for NeuronConfig {
    fn default() -> Self {
        Self {
            levels: Levels::Integer,
            burst: Count(4),
            beta: Share(0.1),
            resistance: Positive(1.0),
            threshold: Positive(0.5),
            reset: Reset::Leaky,
            attached_reset: false,
            surrogate: Surrogate::Rectangular,
            surrogate_slope: Positive(2.0),
        }
    }
}

/// How a gradient reaches back in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// Each layer's own eligibility traces are carried across chunks (exact within the layer); between layers credit
    /// flows inside the chunk.
    #[default]
    Hybrid,
    /// The same for one layer, where it equals full backpropagation through time; refuses more layers.
    Exact,
    /// No temporal credit at all: the null hypothesis.
    Spatial,
    /// Backpropagation inside the chunk only, nothing carried: the control at the same `K`.
    Tbptt,
    /// The same rule under the name of the yardstick: with segments as long as the recording it is full backpropagation
    /// through time.
    Bptt,
}

/// Which presynaptic neurons a head's step size `Δ_h` reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeltaInput {
    /// Its own group of `J / H` neurons: the traces of `W_Δ` shrink by the number of heads.
    #[default]
    Group,
    /// All of them.
    Full,
}

/// Pair-based spike-timing-dependent plasticity (paper eqs. 5, 6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StdpConfig {
    /// `A₊`: potentiation where the presynaptic spike comes first.
    pub a_plus: NonNegative,
    /// `A₋`: depression where it comes second.
    pub a_minus: NonNegative,
    /// `τ₊` in steps.
    pub tau_plus: Positive,
    /// `τ₋` in steps.
    pub tau_minus: Positive,
    /// `W(0)`, which the paper leaves undefined.
    pub at_zero: f64,
}

impl Default for StdpConfig {
    fn default() -> Self {
        Self {
            a_plus: NonNegative(1.0),
            a_minus: NonNegative(1.0),
            tau_plus: Positive(5.0),
            tau_minus: Positive(5.0),
            at_zero: 0.0,
        }
    }
}

/// Which way round eq. 9 is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneRule {
    /// `p = σ(β(θ − |w|))`: small weights go.
    #[default]
    Corrected,
    /// `p = σ(β(|w| − θ))`, as the paper prints it: large weights go.
    AsPrinted,
}

/// Adaptive synaptic pruning (paper eqs. 9, 10). Magnitudes and `θ` are in units of the layer's root mean square weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PruneConfig {
    /// Target share of pruned connections, `ρ`; 0 switches pruning off.
    pub target: Share,
    /// Steepness `β` of eq. 9.
    pub steepness: Positive,
    /// Rate `γ` of eq. 10 per pruning event.
    pub rate: Positive,
    /// Hazard: how likely a synapse with `p = 1` goes at one pruning event.
    pub hazard: Share,
    /// Updates between pruning events.
    pub interval: Count,
    /// Updates before the first one.
    pub start: u64,
    /// Reading of eq. 9.
    pub rule: PruneRule,
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            target: Share(0.0),
            steepness: Positive(20.0),
            rate: Positive(0.1),
            hazard: Share(0.2),
            interval: Count(20),
            start: 100,
            rule: PruneRule::Corrected,
        }
    }
}

/// The network and its learning rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BimConfig {
    /// Width of the residual stream and number of presynaptic neurons per block, `J`.
    pub width: Count,
    /// Channels of the state space and postsynaptic neurons per block, `D`.
    pub channels: Count,
    /// State size per channel, `N`.
    pub state: Count,
    /// Heads, `H`.
    pub heads: Count,
    /// Blocks.
    pub layers: Count,
    /// Length of the axonal delay line before the projections: 1 means none.
    pub delays: Count,
    /// Whether a `SiLU` gate multiplies the block's output.
    pub gate: bool,
    /// Inputs of the step size.
    pub delta_input: DeltaInput,
    /// Presynaptic neurons (`LIF_in`).
    pub pre: NeuronConfig,
    /// Postsynaptic neurons (`LIF_out`).
    pub post: NeuronConfig,
    /// Credit assignment.
    pub credit: Credit,
    /// `λ`: 1 is gradient alone, 0 is STDP alone.
    pub lambda: Share,
    /// STDP.
    pub stdp: StdpConfig,
    /// Pruning.
    pub prune: PruneConfig,
}

impl Default for BimConfig {
    fn default() -> Self {
        Self {
            width: Count(128),
            channels: Count(256),
            state: Count(16),
            heads: Count(8),
            layers: Count(4),
            delays: Count(4),
            gate: true,
            delta_input: DeltaInput::Group,
            pre: NeuronConfig::default(),
            post: NeuronConfig::default(),
            credit: Credit::Hybrid,
            lambda: Share(0.95),
            stdp: StdpConfig::default(),
            prune: PruneConfig::default(),
        }
    }
}

impl BimConfig {
    /// Checks what no single key can know.
    ///
    /// # Errors
    /// Names the key and what would be right.
    pub fn check(&self) -> Result<()> {
        let err = |key, problem: String| Err(Error::Config { key, problem });
        if !self.channels.0.is_multiple_of(self.heads.0) {
            return err(
                "channels",
                format!("expected a multiple of heads = {}, got {}", self.heads.0, self.channels.0),
            );
        }
        if self.delta_input == DeltaInput::Group && !self.width.0.is_multiple_of(self.heads.0) {
            let problem =
                format!("expected a multiple of heads = {} (delta_input is group), got {}", self.heads.0, self.width.0);
            return err("width", problem);
        }
        if self.credit == Credit::Exact && self.layers.0 > 1 {
            let problem = format!(
                "exact needs one layer, got {}: across layers, credit that persists partly in one layer's state and partly in a higher layer's is not carried by per-layer traces; use hybrid, or bptt for the full gradient",
                self.layers.0
            );
            return err("credit", problem);
        }
        Ok(())
    }
}
