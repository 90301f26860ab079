//! Operation counts: what a step computed and what it read and wrote, from the data that passed.
//!
//! | count | definition |
//! |---|---|
//! | effective operations of a weight product | `Σ [w ≠ 0]·[x ≠ 0]` over its multiplications |
//! | accumulates (AC) | of these, where the input is a spike by the type of what produced it ([`Source`]); a burst of n spikes is n accumulates, a weighted spike one for each of its signed digits that is not zero |
//! | weighted | of the accumulates, those of weighted spikes: the weight is shifted by the digit's place before it is added |
//! | multiply–accumulates (MAC) | of these, where it is anything else; and all products of activations with activations (attention, scans), in full |
//! | code MACs | of the multiply–accumulates, those of an activation of n bits ([`Source::Codes`]), by n; MACs contain them |
//! | events | the accumulates, a burst or a weighted spike counted once: what a machine pays that sends the burst as one graded spike |
//! | spike synapses | (step, weight) pairs of the forward weight products that spikes enter, the weights that are not zero: accumulates over these are the spikes that a synapse sees per step |
//! | element-wise | every addition, multiplication, comparison, division or function evaluation (exp, tanh, root) on one value: neurons, gates, norms, biases, losses |
//! | weight words | weights read, without reuse between steps or streams: one for each effective operation (one for a burst or a weighted spike); gradients read and written; the optimiser's reads and writes |
//! | state words | recurrent state, remembered keys and values, and traces read and written; in learning what the reverse pass keeps, written once and read once |
//! | dense | the multiplications of the forward pass if nothing were zero |
//!
//! Reverse mode has two products for each weight product. The input's gradient multiplies every weight that is not zero with
//! an adjoint of every row: adjoints are taken as dense, no kernel here skips a zero one. The weight's gradient adds an
//! adjoint for every input that is not zero, pruned weights included: an accumulate where the input is a spike, else a
//! multiply–accumulate. A look-up in a table is no operation, but reads its row.
//!
//! Every pass is paid for. Where learning reads a recording twice, as [`crate::TwoPass`] does, the forward pass is the one
//! that a prediction takes, and the other belongs to learning: a network in use never makes it. So does the alignment of
//! transcripts, in one pass or two.

mod fan;
mod tally;

pub use fan::{Fan, Seen, Source, digits, nonzero, units};
pub use tally::{LayerTally, Product, Tally};

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Element-wise operations and words that one update of `AdamW` takes per parameter.
///
/// Norm of the gradient 2; clipping 1; first moment 3; second 4; corrections, root, sum and quotient 5; decay, step and
/// difference 3; norm of the change 3.
pub const ADAMW_ELEMENTWISE: u64 = 21;
/// Gradient, both moments and weight read; both moments and weight written.
pub const ADAMW_WORDS: u64 = 7;
/// Softmax cross-entropy and its gradient per output and step: maximum, difference, exponential, sum, quotient, target.
pub const LOSS_ELEMENTWISE: u64 = 6;
/// Sum of gradients that wait for an update together, per segment and parameter: weight, sum.
pub const ACCUMULATE_ELEMENTWISE: u64 = 2;
/// Gradient and sum read, sum written.
pub const ACCUMULATE_WORDS: u64 = 3;
/// RMS norm per value: square, sum, scale.
pub const NORM_ELEMENTWISE: u64 = 3;
/// Its reverse per value: `y·dy` (2), `dy − y·mean` (2), scale, sum into the gradient.
pub const NORM_REVERSE_ELEMENTWISE: u64 = 6;
/// RMS norm per row, either way: mean, ε, root, reciprocal.
pub const NORM_ROW_ELEMENTWISE: u64 = 4;
/// `1 / (1 + e^{-x})`: negate, exponential, sum, reciprocal.
pub const SIGMOID_ELEMENTWISE: u64 = 4;
/// `x σ(x)`.
pub const SILU_ELEMENTWISE: u64 = 5;
/// Value and slope of `x σ(x)`: the value, and `σ (1 + x (1 − σ))`.
pub const SILU_REVERSE_ELEMENTWISE: u64 = 9;
/// `max(x, 0) + ln(1 + e^{-|x|})`.
pub const SOFTPLUS_ELEMENTWISE: u64 = 6;

/// Most bits of an activation that is priced by its bits.
pub const MOST_BITS: usize = 8;

/// Multiply–accumulates of activations of n bits, by n: the first is of one bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeMacs(pub [u64; MOST_BITS]);

impl CodeMacs {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Bits and how many there are of these bits, fewest bits first, without those that are none.
    pub fn each(&self) -> impl Iterator<Item = (u32, u64)> {
        (1..).zip(self.0).filter(|(_, n)| *n > 0)
    }

    /// How many of one bit, two bits and so on, up to the most bits of which there are any.
    #[must_use]
    pub fn listed(&self) -> Vec<u64> {
        let len = self.0.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        self.0.iter().take(len).copied().collect()
    }

    fn add(&mut self, bits: u8, n: u64) {
        self.0[usize::from(bits).clamp(1, MOST_BITS) - 1] += n;
    }
}

impl AddAssign for CodeMacs {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a += b);
    }
}

/// Work of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Multiply–accumulates, products of activations included.
    pub macs: u64,
    /// Of these, products of activations with activations or states: attention and scans.
    pub activation_macs: u64,
    /// Of `macs`, those of activations of few bits with weights.
    #[serde(default)]
    pub code_macs: CodeMacs,
    /// Accumulates.
    pub acs: u64,
    /// The accumulates, a burst of spikes or a weighted spike counted once.
    #[serde(default)]
    pub events: u64,
    /// Of the accumulates, those of the digits of weighted spikes: of a weight that is shifted first.
    #[serde(default)]
    pub weighted: u64,
    /// Element-wise operations.
    pub elementwise: u64,
    /// Words of weights, gradients and moments read or written.
    pub weight_words: u64,
    /// Words of state, traces and kept activations read or written.
    pub state_words: u64,
}

impl Work {
    /// Operations of every kind.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.macs + self.acs + self.elementwise
    }

    /// Multiply–accumulates with weights: without products of activations.
    #[must_use]
    pub fn weight_macs(&self) -> u64 {
        self.macs - self.activation_macs
    }

    /// Adds products of inputs from `source`: so many with each spike of a burst, or digit, counted, `once` with a burst counted once.
    pub fn multiply(&mut self, source: Source, products: u64, once: u64) {
        match source {
            Source::Values => self.macs += products,
            Source::Spikes => {
                self.acs += products;
                self.events += once;
            }
            Source::WeightedSpikes => {
                self.acs += products;
                self.events += once;
                self.weighted += products;
            }
            Source::Codes { bits } => {
                self.macs += products;
                self.code_macs.add(bits, products);
            }
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.macs += other.macs;
        self.activation_macs += other.activation_macs;
        self.code_macs += other.code_macs;
        self.acs += other.acs;
        self.events += other.events;
        self.weighted += other.weighted;
        self.elementwise += other.elementwise;
        self.weight_words += other.weight_words;
        self.state_words += other.state_words;
    }
}

/// Multiply–accumulates and accumulates of the forward weight products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synaptic {
    /// Multiply–accumulates.
    pub macs: u64,
    /// Accumulates.
    pub acs: u64,
}

impl AddAssign for Synaptic {
    fn add_assign(&mut self, other: Self) {
        self.macs += other.macs;
        self.acs += other.acs;
    }
}

/// The same forward weight products as other tools count them. None counts attention, scans or element-wise work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conventions {
    /// `NeuroBench` (`SynapticOperations`): `[w ≠ 0]·[x ≠ 0]`; accumulates where every value of an input tensor is −1, 0 or
    /// 1, whatever made it. What it adds for the gates of recurrent cells is left out.
    pub neurobench: Synaptic,
    /// `SpikingJelly` (`SynOpCounter` and `MACCounter`): where every value is 0 or 1, an accumulate for each 1 and each weight, zero or not; else the dense
    /// number of multiply–accumulates.
    pub spikingjelly: Synaptic,
    /// `syops-counter` (its hooks of linear and convolution layers): where every value is 0 or 1, the dense number with biases times the rate of ones, rounded down;
    /// else the dense number with biases.
    pub syops: Synaptic,
}

impl AddAssign for Conventions {
    fn add_assign(&mut self, other: Self) {
        self.neurobench += other.neurobench;
        self.spikingjelly += other.spikingjelly;
        self.syops += other.syops;
    }
}

/// Exact operation counts of one step, over all streams and steps of its segment. Sums of them are counts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpCounts {
    /// The forward pass.
    pub forward: Work,
    /// Learning: reverse mode, the loss included.
    pub reverse: Work,
    /// Learning: eligibility traces, their advance and their contraction.
    pub traces: Work,
    /// Learning: pairing of spikes and mixing it into the update.
    pub stdp: Work,
    /// Learning: pruning events and masks.
    pub pruning: Work,
    /// Learning: the optimiser.
    pub optimizer: Work,
    /// Learning: passes over the data that prediction does not need, and the alignment of transcripts.
    pub passes: Work,
    /// (neuron, step) pairs of the forward pass whose neuron spikes.
    pub neuron_updates: u64,
    /// The same of further passes: their price is learning's.
    pub passes_neuron_updates: u64,
    /// Of these, with a spike.
    #[serde(default)]
    pub neurons_fired: u64,
    /// Their spikes, each of a burst counted.
    #[serde(default)]
    pub spikes: u64,
    /// (step, weight that is not zero) pairs of the forward weight products that spikes enter.
    #[serde(default)]
    pub spike_synapses: u64,
    /// Multiply–accumulates of the forward pass if nothing were zero.
    pub macs_dense: u64,
    /// Multiplications that were seen but not understood.
    pub unknown: u64,
    /// The forward weight products in other tools' conventions.
    pub conventions: Conventions,
}

impl OpCounts {
    /// All of learning.
    #[must_use]
    pub fn learning(&self) -> Work {
        let mut sum = self.reverse;
        for part in [self.traces, self.stdp, self.pruning, self.optimizer, self.passes] {
            sum += part;
        }
        sum
    }

    /// Share of the operations that the counter understands; 1 if there were none.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        let known = self.forward.operations() + self.learning().operations();
        if self.unknown == 0 { 1.0 } else { known as f64 / (known + self.unknown) as f64 }
    }

    /// The forward pass alone: nothing was learned from it.
    #[must_use]
    pub fn without_learning(self) -> Self {
        let [reverse, traces, stdp, pruning, optimizer, passes] = [Work::default(); 6];
        Self { reverse, traces, stdp, pruning, optimizer, passes, passes_neuron_updates: 0, ..self }
    }

    /// Adds one update of `AdamW` over so many parameters.
    pub fn add_adamw(&mut self, parameters: u64) {
        self.optimizer.elementwise += ADAMW_ELEMENTWISE * parameters;
        self.optimizer.weight_words += ADAMW_WORDS * parameters;
    }
}

impl AddAssign for OpCounts {
    fn add_assign(&mut self, other: Self) {
        self.forward += other.forward;
        self.reverse += other.reverse;
        self.traces += other.traces;
        self.stdp += other.stdp;
        self.pruning += other.pruning;
        self.optimizer += other.optimizer;
        self.passes += other.passes;
        self.neuron_updates += other.neuron_updates;
        self.passes_neuron_updates += other.passes_neuron_updates;
        self.neurons_fired += other.neurons_fired;
        self.spikes += other.spikes;
        self.spike_synapses += other.spike_synapses;
        self.macs_dense += other.macs_dense;
        self.unknown += other.unknown;
        self.conventions += other.conventions;
    }
}
