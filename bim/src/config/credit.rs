//! Where credit comes from, and how scoring multiplies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
