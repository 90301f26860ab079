//! How weights change beside the gradient: STDP, mixing, pruning; factors on learning rates; what is measured of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::{Count, Lag, NonNegative, Positive, Share};

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
    #[serde(skip_serializing_if = "super::is_default")] // cells from before it keep their id
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
