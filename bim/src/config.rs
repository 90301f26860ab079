//! Configuration of the network and its learning rule. Every value is checked while it is read, so that an error
//! points at the key that caused it.

use learner::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $type:ty, $low:expr, $high:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "f64", into = "f64")]
        #[schemars(inline, extend("minimum" = $low, "maximum" = $high, "x-expected" = $expected))]
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
    /// A share that is not the whole, such as the decay of a mean.
    BelowOne, f64, 0.0, 0.999_999, "a number from 0 to 0.999999"
);
bounded!(
    /// A positive number.
    Positive, f64, 1e-12, 1e12, "a number above 0 (from 1e-12 to 1e12)"
);
bounded!(
    /// A number that is not negative.
    NonNegative, f64, 0.0, 1e12, "a number from 0 to 1e12"
);
bounded!(
    /// A step size.
    StepSize, f64, 1e-6, 100.0, "a number from 1e-6 to 100"
);
bounded!(
    /// A count of at least one.
    Count, usize, 1, 65_536, "a whole number from 1 to 65536"
);

/// Furthest spike time difference that [`DiagnoseConfig::time_differences`] may ask for, in steps.
pub const FURTHEST: usize = 128;

bounded!(
    /// A number of steps; 0 switches off what it is about.
    Lag, usize, 0, FURTHEST, "a whole number from 0 to 128"
);

bounded!(
    /// Bits of an activation.
    Bits, usize, 1, 8, "a whole number from 1 to 8"
);

impl Bits {
    /// Lowest and highest code: `2ⁿ − 1` whole numbers around zero, or 0 and 1 for one bit, where no sign fits.
    #[must_use]
    pub fn codes(self) -> (i32, i32) {
        let highest = (1 << (self.0 - 1)) - 1;
        if self.0 == 1 { (0, 1) } else { (-highest, highest) }
    }
}

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

/// How a gradient reaches back in time.
///
/// | mode | own layer's past | from layer to layer |
/// |---|---|---|
/// | `hybrid`, `exact` | all of it, by traces | within the chunk |
/// | `diagonal` | all of it, by traces | within the step |
/// | `eprop` | through the state space only, by traces | within the step |
/// | `spatial` | none | within the step |
/// | `tbptt`, `bptt` | within the chunk | within the chunk |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// Each layer's own eligibility traces are carried across chunks (exact within the layer); between layers credit
    /// flows inside the chunk.
    #[default]
    Hybrid,
    /// The same for one layer, where it equals full backpropagation through time; refuses more layers.
    Exact,
    /// The diagonal of the whole network's influence matrix (`SnAp-1`): traces meet learning signals of the same step.
    /// The result does not depend on the chunk; it is `hybrid` at `K = 1`.
    Diagonal,
    /// As `diagonal`, without the credit that lives on the postsynaptic membrane: traces of the state space alone, as in
    /// e-prop's factorisation.
    Eprop,
    /// No temporal credit at all: the null hypothesis.
    Spatial,
    /// Backpropagation inside the chunk only, nothing carried: the control at the same `K`. With `reach`, so many steps back.
    Tbptt,
    /// The yardstick: the same rule under a name that makes segments as long as the baselines' by default. With segments
    /// as long as the recording it is full backpropagation through time.
    Bptt,
}

/// Where the credit of what stands in front of `ψ` comes from: gains, currents, convolution, delays and learned steps of a block's
/// presynaptic neurons. What stands in front of the first block, table of tokens or map of frames, has credit from inside the
/// chunk in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// From inside the chunk.
    #[default]
    Chunk,
    /// From the layer's whole past, as that of the weights behind `ψ`: one more set of traces as large as theirs for each kind of
    /// parameter that a neuron has (gain, current, every tap of the convolution and of the delay line, step). Needs a rule that
    /// carries traces. Worth it where chunks are short or credit has to last.
    Traces,
}

impl Front {
    /// Whether it is the default.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
    pub fn is_chunk(&self) -> bool {
        *self == Self::Chunk
    }
}

/// How the products of spikes are made while scoring: in evaluations, and in the first of two passes over a recording. Learning makes
/// them densely, as its weights change at every update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Inference {
    /// As matrix products, zeros with them.
    #[default]
    Dense,
    /// From events: the columns of the weights at levels that are not zero are added up, and silent synapses cost nothing. The same
    /// sums, rounded in another order: logits within 1e-5 of the largest, spikes the same unless a membrane lies within rounding of
    /// its threshold. What sees numbers or codes stays dense. On the CPU alone.
    Events,
}

impl Inference {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Form of the state space's decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayForm {
    /// One per head, as in Mamba-2.
    #[default]
    Head,
    /// One per channel and state, as in Mamba-1: traces are `N` (or `D / H`) times larger.
    ChannelState,
}

/// Which presynaptic neurons a head's step size `Δ_h` reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeltaInput {
    /// Its own group of `J / H` neurons: the traces of `W_Δ` shrink by the number of heads.
    #[default]
    Group,
    /// All of them.
    Full,
}

/// Pair-based spike-timing-dependent plasticity (paper eqs. 5, 6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What keeps weights from growing without end.
    pub bounds: Bounds,
    /// Bound of `|w|`, in units of the layer's root mean square weight.
    pub limit: Positive,
    /// Control: presynaptic spikes of each chunk in random order of time, so that rates stay and timing goes.
    pub shuffled: bool,
    /// What scales the changes of all pairs of spikes beside the spikes themselves: `none` (the default), or the `error`.
    #[serde(skip_serializing_if = "Third::is_none")] // cells from before it keep their id
    #[schemars(extend("default" = "none"))] // what is not stored has none in the schema otherwise
    pub third_factor: Third,
}

/// The third factor of STDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Third {
    /// None: `Ω` is of spikes alone.
    #[default]
    None,
    /// How far the chunk's loss lies below its running mean, in running standard deviations within ±3: `Ω` is multiplied by it, so that a
    /// chunk that went better than usual strengthens what its spikes say, and a worse one unlearns it. [`crate::third_factor`] has
    /// the equations.
    Error,
}

impl Third {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How STDP's changes depend on the weight they act on, with `x = w / w_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bounds {
    /// Not at all.
    None,
    /// Not at all, but weights beyond `±w_max` are cut off there.
    Hard,
    /// Potentiation fades as `w → w_max`, depression as `w → −w_max`: `Ω (1 ∓ x) / 2`.
    Soft,
    /// Both fade with `|w|`: `Ω (1 − x²)`. Suits signed weights.
    #[default]
    Symmetric,
}

/// How gradient and STDP are brought together (eq. 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// `Δw = −η [λ ĝ − (1−λ) Ω̂]`: Ω is scaled to the running root mean square of the gradient that the optimiser has normalised.
    #[default]
    Normalised,
    /// `Δw = η (λ ∂L/∂w + (1−λ) Ω)` as printed, raw: it ascends the loss.
    AsPrinted,
}

impl Default for StdpConfig {
    fn default() -> Self {
        Self {
            a_plus: NonNegative(1.0),
            a_minus: NonNegative(1.0),
            tau_plus: Positive(5.0),
            tau_minus: Positive(5.0),
            at_zero: 0.0,
            bounds: Bounds::default(),
            limit: Positive(4.0),
            shuffled: false,
            third_factor: Third::None,
        }
    }
}

/// Which way round eq. 9 is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneRule {
    /// `p = σ(β(θ − |w|))`: small weights go.
    #[default]
    Corrected,
    /// `p = σ(β(|w| − θ))`, as the paper prints it: large weights go.
    AsPrinted,
}

/// Adaptive synaptic pruning (paper eqs. 9, 10). Magnitudes and `θ` are in units of the layer's root mean square weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Share of the pruned synapses that grow back, from zero, at one pruning event.
    pub regrow: Share,
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
            regrow: Share(0.0),
        }
    }
}

/// Factors on the learning rate of groups of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// `A_log`.
    pub decay: NonNegative,
    /// `W_Δ` and `b_Δ`.
    pub delta: NonNegative,
    /// Gains and currents of the neurons, convolution and delays.
    pub neurons: NonNegative,
    /// Learned steps.
    pub steps: NonNegative,
}

impl Default for Rates {
    fn default() -> Self {
        let one = NonNegative(1.0);
        Self { decay: one, delta: one, neurons: one, steps: one }
    }
}

/// What the dynamics of a block begin as. A head forgets over about `1 / (Δ e^{A_log})` steps, and what it writes is in proportion to
/// `Δ`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Initial {
    /// Least rate `e^{A_log}`. Heads are spread evenly between it and `decay_max`.
    pub decay_min: Positive,
    /// Greatest rate `e^{A_log}`. 1 and 16 are Mamba-2's; rates per channel and state (`decay: channel_state`) begin as 1 to `N`.
    pub decay_max: Positive,
    /// Least step size `Δ`, where the input adds nothing. Heads are spread evenly between the logarithms of it and of `delta_max`.
    pub delta_min: StepSize,
    /// Greatest step size `Δ`. 0.001 and 0.1 are Mamba's.
    pub delta_max: StepSize,
}

impl Default for Initial {
    fn default() -> Self {
        Self {
            decay_min: Positive(1.0),
            decay_max: Positive(16.0),
            delta_min: StepSize(1e-3),
            delta_max: StepSize(1e-1),
        }
    }
}

impl Initial {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that least is not above greatest, and that rates are those of heads.
    fn check(&self, decay: DecayForm) -> Result<()> {
        let pairs = [
            ("initial.decay_max", "initial.decay_min", self.decay_min.0, self.decay_max.0),
            ("initial.delta_max", "initial.delta_min", self.delta_min.0, self.delta_max.0),
        ];
        for (key, least_key, least, greatest) in pairs {
            if greatest < least {
                let problem = format!("expected {least_key} = {least} or more, got {greatest}");
                return Err(Error::Config { key, problem });
            }
        }
        let default = Self::default();
        let rates = (self.decay_min, self.decay_max) != (default.decay_min, default.decay_max);
        if decay == DecayForm::ChannelState && rates {
            let problem = "rates per channel and state begin as 1 to N; expected decay: head, or leave initial.decay_min and \
                           initial.decay_max out";
            return Err(Error::Config { key: "initial", problem: problem.to_owned() });
        }
        Ok(())
    }
}

/// Gradient diagnostics: how far the online gradient is from backpropagation through time, and what pairs of spikes receive
/// by their difference in time. They change nothing else. Values go to `layers.parquet`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiagnoseConfig {
    /// Updates between diagnoses; 0 switches them off.
    pub every: u64,
    /// Steps before the chunk that the reference backpropagates through. Full backpropagation through time if no recording
    /// is longer.
    pub window: Count,
    /// `M`: measures the update that goes with a pair of spikes at every time difference from `−M` to `M` steps; 0 measures none.
    /// [`crate::time_differences`] names the rows.
    pub time_differences: Lag,
    /// Updates between these measurements.
    pub time_differences_every: Count,
}

impl Default for DiagnoseConfig {
    fn default() -> Self {
        Self { every: 0, window: Count(256), time_differences: Lag(0), time_differences_every: Count(100) }
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
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether thresholds of presynaptic neurons move, and of postsynaptic ones.
    #[must_use]
    pub(crate) fn holds(&self) -> [bool; 2] {
        [self.pre, self.post].map(|target| target.0 > 0.0)
    }
}

/// How fast prices move unless a configuration says so: slow beside the neurons, and a target of half the activity is met within 300
/// updates.
const ENERGY_RATE: Positive = Positive(0.004);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_energy_rate(rate: &Positive) -> bool {
    *rate == ENERGY_RATE
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn no_target(target: &NonNegative) -> bool {
    target.0 == 0.0
}

/// The network and its learning rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BimConfig {
    /// Width of the residual stream. A block has `J = width · population` presynaptic neurons.
    pub width: Count,
    /// Channels of the state space and postsynaptic neurons per block, `D`.
    pub channels: Count,
    /// State size per channel, `N`.
    pub state: Count,
    /// Heads, `H`.
    pub heads: Count,
    /// Blocks.
    pub layers: Count,
    /// Presynaptic neurons per channel of the residual stream: each has its own gain and current, odd ones with the
    /// opposite sign (OFF cells). With `currents`, every pair begins with a higher threshold than the one before.
    pub population: Count,
    /// Taps of the causal convolution in front of the presynaptic neurons: 1 means none.
    pub conv: Count,
    /// Whether `SiLU` follows that convolution.
    pub silu: bool,
    /// Taps of the axonal delay line behind the presynaptic neurons: 1 means none.
    pub delays: Count,
    /// `κ`, decay per step of the post-synaptic kernel; 0 means none.
    pub kernel: Share,
    /// Whether both populations of neurons get a learned input current, `I_ext` of eq. 3.
    pub currents: bool,
    /// Whether a `SiLU` gate multiplies the block's output.
    pub gate: bool,
    /// Form of the decay.
    pub decay: DecayForm,
    /// Inputs of the step size.
    pub delta_input: DeltaInput,
    /// What rates of decay and step sizes begin as.
    #[serde(skip_serializing_if = "Initial::is_default")] // cells from before it keep their id
    #[schemars(extend("default" = Initial::default()))] // what is not stored has none in the schema otherwise
    pub initial: Initial,
    /// Presynaptic neurons (`LIF_in`).
    pub pre: NeuronConfig,
    /// Postsynaptic neurons (`LIF_out`).
    pub post: NeuronConfig,
    /// Neurons in front of the output layer.
    pub readout: ReadoutConfig,
    /// Credit assignment.
    pub credit: Credit,
    /// Credit of gains, currents, convolution, delays and learned steps of the presynaptic neurons.
    #[serde(skip_serializing_if = "Front::is_chunk")] // cells from before it keep their id
    #[schemars(extend("default" = "chunk"))] // what is not stored has none in the schema otherwise
    pub front: Front,
    /// Steps that `tbptt` backpropagates through at every update, rounded up to whole chunks; 0 is the chunk alone. With more,
    /// updates still come every chunk (`BPTT(h; h′)` of Williams and Peng 1990) and every pass is charged.
    pub reach: u64,
    /// Factors on the learning rate.
    pub rates: Rates,
    /// `λ`: 1 is gradient alone, 0 is STDP alone.
    pub lambda: Share,
    /// Updates over which `λ` falls from 1 to its value.
    pub lambda_warmup: u64,
    /// Reading of eq. 4.
    pub mixing: Mixing,
    /// Gradient diagnostics.
    pub diagnose: DiagnoseConfig,
    /// STDP.
    pub stdp: StdpConfig,
    /// Pruning.
    pub prune: PruneConfig,
    /// Target for what spikes cost, in place of a fixed `penalty`: accumulates of the synapses behind a population of neurons, as a share of
    /// the multiply–accumulates that the same synapses would make of numbers. Every population (presynaptic and postsynaptic neurons of
    /// each layer, read-out) has a price of its own, from 0, which rises while its share is above the target and falls while it is
    /// below. With nothing pruned the share is the number of spikes per neuron and step. 0 is no target. [`crate::energy`] has the
    /// controller.
    #[serde(skip_serializing_if = "no_target")] // cells from before it keep their id
    #[schemars(extend("default" = 0.0))] // as above
    pub energy_target: NonNegative,
    /// Most that such a price moves at an update: it moves by `energy_rate · (share / energy_target − 1)`, and by no more where the share is
    /// twice the target and higher.
    #[serde(skip_serializing_if = "is_energy_rate")] // as above
    #[schemars(extend("default" = 0.004))] // as above
    pub energy_rate: Positive,
    /// Firing rates that thresholds hold: of each presynaptic neuron and of each postsynaptic one.
    #[serde(skip_serializing_if = "HomeostasisConfig::is_default")] // as above
    #[schemars(extend("default" = HomeostasisConfig::default()))] // as above
    pub homeostasis: HomeostasisConfig,
    /// How the products of spikes are made while scoring: `dense` (the default), or from `events`, so that silent synapses cost nothing.
    #[serde(skip_serializing_if = "Inference::is_default")] // cells from before it keep their id
    #[schemars(extend("default" = "dense"))] // as above
    pub inference: Inference,
}

impl Default for BimConfig {
    fn default() -> Self {
        Self {
            width: Count(128),
            channels: Count(256),
            state: Count(16),
            heads: Count(8),
            layers: Count(4),
            population: Count(1),
            conv: Count(4),
            silu: false,
            delays: Count(1),
            kernel: Share(0.0),
            currents: false,
            gate: true,
            decay: DecayForm::Head,
            delta_input: DeltaInput::Group,
            initial: Initial::default(),
            pre: NeuronConfig::default(),
            post: NeuronConfig::default(),
            readout: ReadoutConfig::default(),
            credit: Credit::Hybrid,
            front: Front::Chunk,
            reach: 0,
            rates: Rates::default(),
            lambda: Share(0.98),
            lambda_warmup: 0,
            mixing: Mixing::default(),
            diagnose: DiagnoseConfig::default(),
            stdp: StdpConfig::default(),
            prune: PruneConfig::default(),
            energy_target: NonNegative(0.0),
            energy_rate: ENERGY_RATE,
            homeostasis: HomeostasisConfig::default(),
            inference: Inference::default(),
        }
    }
}

impl BimConfig {
    /// Presynaptic neurons of a block, `J`.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.width.0 * self.population.0
    }

    /// The same network under a rule that carries no traces.
    #[must_use]
    pub(crate) fn without_traces(&self, credit: Credit) -> Self {
        Self { credit, front: Front::Chunk, ..self.clone() }
    }

    /// Whether spikes arrive otherwise than they were fired: behind a delay line or a kernel they are numbers.
    #[must_use]
    pub(crate) fn delayed(&self) -> bool {
        self.delays.0 > 1 || self.kernel.0 > 0.0
    }

    /// Whether spikes arrive at the synapses behind the presynaptic neurons, behind the postsynaptic ones, and at the read-out.
    #[must_use]
    pub(crate) fn spikes_arrive(&self) -> [bool; 3] {
        [self.pre.fires() && !self.delayed(), self.post.fires(), self.readout.neuron().fires()]
    }

    /// Whether the price of a spike of the presynaptic neurons, of the postsynaptic ones, and of the read-out is a controller's.
    #[must_use]
    pub(crate) fn controlled(&self) -> [bool; 3] {
        if no_target(&self.energy_target) { [false; 3] } else { self.spikes_arrive() }
    }

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
        if self.delta_input == DeltaInput::Group && !self.neurons().is_multiple_of(self.heads.0) {
            let problem = format!(
                "expected width · population to be a multiple of heads = {} (delta_input is group), got {} · {}",
                self.heads.0, self.width.0, self.population.0
            );
            return err("width", problem);
        }
        self.initial.check(self.decay)?;
        self.check_spikes()?;
        self.check_energy()?;
        self.check_homeostasis()?;
        if self.front == Front::Traces && !crate::rule::Rule::from(self.credit).carries {
            let problem =
                "traces need a rule that carries some: expected chunk, or credit: hybrid, exact, diagonal or eprop";
            return err("front", problem.into());
        }
        if self.inference == Inference::Events && !self.spikes_arrive().contains(&true) {
            let problem = "no synapse of this network sees spikes (they are codes, numbers, or delayed), so nothing would come from \
                           events; expected dense";
            return err("inference", problem.to_owned());
        }
        if self.reach > 0 && self.credit != Credit::Tbptt {
            return err(
                "reach",
                "only credit: tbptt reaches behind its chunk by backpropagation; leave reach out".into(),
            );
        }
        if self.reach > 0 && self.diagnose.every > 0 {
            let problem = "compares the gradient inside a chunk; leave it out where reach is given".to_owned();
            return err("diagnose.every", problem);
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

    /// Checks the target for what spikes cost.
    fn check_energy(&self) -> Result<()> {
        let err = |key, problem: &str| Err(Error::Config { key, problem: problem.to_owned() });
        if no_target(&self.energy_target) {
            if !is_energy_rate(&self.energy_rate) {
                let problem = "says how fast a price moves towards a target, but there is none: expected energy_target above 0, or \
                               nothing here";
                return err("energy_rate", problem);
            }
            return Ok(());
        }
        let penalties = [
            ("pre.penalty", self.pre.penalty),
            ("post.penalty", self.post.penalty),
            ("readout.penalty", self.readout.penalty),
        ];
        if let Some((key, _)) = penalties.into_iter().find(|(_, penalty)| penalty.0 > 0.0) {
            return err(key, "energy_target sets the prices: expected no penalty beside it, or no energy_target");
        }
        if self.pre.fires() && self.delayed() {
            let problem = "behind delays or a kernel spikes arrive as numbers, which synapses multiply, so there are no accumulates \
                           to count: expected neither delays nor a kernel, or no energy_target";
            return err("energy_target", problem);
        }
        if !self.spikes_arrive().contains(&true) {
            let problem = "no neuron of this network fires, so there is nothing to price: expected neurons with spikes, or no \
                           energy_target";
            return err("energy_target", problem);
        }
        Ok(())
    }

    /// Checks the firing rates that thresholds are to hold.
    fn check_homeostasis(&self) -> Result<()> {
        let c = &self.homeostasis;
        let err = |key, problem: String| Err(Error::Config { key, problem });
        if c.holds() == [false; 2] && !c.is_default() {
            let problem = "says how thresholds move, but no rate is to be held: expected pre or post above 0, or nothing under \
                           homeostasis";
            return err("homeostasis", problem.to_owned());
        }
        for (neuron, target, key, [step, reset]) in [
            (self.pre, c.pre.0, "homeostasis.pre", ["pre.step", "pre.attached_reset"]),
            (self.post, c.post.0, "homeostasis.post", ["post.step", "post.attached_reset"]),
        ] {
            if target == 0.0 {
                continue;
            }
            let most = match neuron.levels {
                Levels::Binary | Levels::Signed => 1,
                Levels::Integer | Levels::Unsigned => neuron.burst.0,
                Levels::Quantised | Levels::Analog => {
                    return err(
                        key,
                        "these neurons do not fire, so they have no rate: expected 0, or other levels".to_owned(),
                    );
                }
            };
            if target >= most as f64 {
                let problem =
                    format!("a rate that these neurons can reach is below {most} spikes per step, got {target}");
                return err(key, problem);
            }
            if neuron.step == Step::Learned {
                let problem = "the gradient moves a learned step, homeostasis a threshold, and they are one: expected fixed, or no rate \
                               to hold";
                return err(step, problem.to_owned());
            }
            if neuron.attached_reset && neuron.reset != Reset::None {
                let problem = "gradients through the reset would need each neuron's threshold in the traces of its membrane: expected \
                               false, reset: none, or no rate to hold";
                return err(reset, problem.to_owned());
            }
            if !no_target(&self.energy_target) {
                let problem = "a price and a threshold would both hold one population's activity: expected 0, or no energy_target";
                return err(key, problem.to_owned());
            }
        }
        Ok(())
    }

    /// Checks steps and codes of all populations of neurons.
    fn check_spikes(&self) -> Result<()> {
        let populations = [
            (self.pre, ["pre.step", "pre.spikes", "pre.attached_reset"]),
            (self.post, ["post.step", "post.spikes", "post.attached_reset"]),
            (self.readout.neuron(), ["readout.step", "readout.spikes", "readout"]),
        ];
        for (neuron, [step, spikes, reset]) in populations {
            let err = |key, problem: &str| Err(Error::Config { key, problem: problem.to_owned() });
            let learned = neuron.step == Step::Learned;
            if learned && neuron.levels == Levels::Analog {
                return err(step, "analog has no levels and so no step between them; expected fixed, or other levels");
            }
            let resets = neuron.fires() && neuron.reset != Reset::None;
            if learned && neuron.attached_reset && resets {
                let problem = "with a learned step the reset depends on that step, whose credit would need a trace of its own; \
                               expected false, reset: none, or step: fixed";
                return err(reset, problem);
            }
            let several = matches!(neuron.levels, Levels::Integer | Levels::Unsigned);
            if neuron.spikes == SpikeCode::Weighted && !several {
                return err(
                    spikes,
                    "weighted spikes need levels of several spikes: expected integer or unsigned, or burst",
                );
            }
        }
        if !self.readout.is_there() && self.readout != ReadoutConfig::default() {
            let problem = "says what its neurons are like, but there are none: expected levels of their own \
                           (levels: integer, say), or nothing under readout";
            return Err(Error::Config { key: "readout", problem: problem.to_owned() });
        }
        if self.pre.step == Step::Learned && (self.delays.0 > 1 || self.kernel.0 > 0.0) {
            let problem = "a learned step is folded into the weights that read the spikes; with delays or a kernel these are not \
                           the projections; expected fixed, or neither delays nor a kernel";
            return Err(Error::Config { key: "pre.step", problem: problem.to_owned() });
        }
        Ok(())
    }
}
