//! What a running cell tells the world: the loop emits these rows, sinks (Parquet, progress) consume them.
//! Field order is column order; `None` is null and means "not measured", never zero.

use crate::row::table;

table! {
    /// One update: a row of `steps.parquet`.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct StepRow = "steps" {
        /// Number of this segment, from 1. How many updates it made is told by `updates`.
        pub step: u64,
        /// Tokens, frames or samples seen so far.
        pub seen: u64,
        /// Training time so far; the clock stops while evaluating or writing.
        pub elapsed_s: f64,
        /// Mean loss of the segment in nats; null where no step of it was supervised.
        pub loss: Option<f64>,
        /// Learning rate.
        pub learning_rate: f64,
        /// L2 norm of the gradient before clipping.
        pub grad_norm: f64,
        /// L2 norm of the change of the parameters.
        pub update_norm: f64,
        /// Recurrent state and traces.
        pub state_bytes: Option<u64>,
        /// Allocator's live bytes after the step. This and the peaks are the cell's own: what the process held when the cell
        /// began is taken off.
        pub live_bytes: Option<u64>,
        /// Allocator's highest live bytes within the step.
        pub peak_bytes: Option<u64>,
        /// Resident set of the process.
        pub rss_bytes: Option<u64>,
        /// Bytes in use on the accelerator; null on the CPU.
        pub device_bytes: Option<u64>,
        /// Share of (neuron, step) pairs without a spike; null without spiking neurons.
        pub spike_sparsity: Option<f64>,
        /// Share of exact zeros entering a weight product.
        pub activation_sparsity: Option<f64>,
        /// Share of weights exactly zero; biases, gains and look-up tables are no connections.
        pub connection_sparsity: Option<f64>,
        /// Multiply–accumulates of the forward pass, of one pass even where learning makes two, at whatever precision: products with
        /// weights and of activations (`activation_macs_forward`); `code_macs_forward` is a part of them. Per token or frame it is the
        /// metric of this name in the results.
        pub macs_forward: Option<u64>,
        /// Accumulates of the forward pass.
        pub acs_forward: Option<u64>,
        /// Multiply–accumulates of learning, further passes over the data included.
        pub macs_learning: Option<u64>,
        /// Accumulates of learning.
        pub acs_learning: Option<u64>,
        /// Multiply–accumulates of a dense forward pass.
        pub macs_dense: Option<u64>,
        /// Share of operations the counter understands.
        pub op_coverage: Option<f64>,
        /// Energy of the forward pass under the cost model named in the metadata.
        pub energy_forward_pj: Option<f64>,
        /// Energy of learning under the same model.
        pub energy_learning_pj: Option<f64>,
        /// Element-wise operations of the forward pass: neurons, gates, norms, scans.
        pub elementwise_forward: Option<u64>,
        /// Element-wise operations of learning.
        pub elementwise_learning: Option<u64>,
        /// Of `macs_forward`, products of activations with activations or states: attention, scans.
        pub activation_macs_forward: Option<u64>,
        /// The same of `macs_learning`.
        pub activation_macs_learning: Option<u64>,
        /// (neuron, step) pairs of spiking neurons.
        pub neuron_updates: Option<u64>,
        /// Words of weights that the forward pass reads, without reuse between steps or streams.
        pub weight_words_forward: Option<u64>,
        /// Words of weights, gradients and moments that learning reads and writes.
        pub weight_words_learning: Option<u64>,
        /// Words of state that the forward pass reads and writes.
        pub state_words_forward: Option<u64>,
        /// Words of kept activations and traces that learning reads and writes.
        pub state_words_learning: Option<u64>,
        /// Operations of reverse mode; this, the four that follow and `operations_passes` are all of learning.
        pub operations_reverse: Option<u64>,
        /// Operations of eligibility traces.
        pub operations_traces: Option<u64>,
        /// Operations of spike pairing and mixing.
        pub operations_stdp: Option<u64>,
        /// Operations of pruning.
        pub operations_pruning: Option<u64>,
        /// Operations of the optimiser.
        pub operations_optimizer: Option<u64>,
        /// As `energy_forward_pj`, with weights and state read and written.
        pub energy_forward_with_traffic_pj: Option<f64>,
        /// As `energy_learning_pj`, with weights and state read and written.
        pub energy_learning_with_traffic_pj: Option<f64>,
        /// Share of the forward operations that the cost model prices; below 1 the energy is a lower bound.
        pub energy_coverage_forward: Option<f64>,
        /// The same of learning.
        pub energy_coverage_learning: Option<f64>,
        /// Multiply–accumulates of the forward pass as `NeuroBench` counts them.
        pub neurobench_macs: Option<u64>,
        /// Accumulates as `NeuroBench` counts them.
        pub neurobench_acs: Option<u64>,
        /// Multiply–accumulates as `SpikingJelly` counts them.
        pub spikingjelly_macs: Option<u64>,
        /// Accumulates as `SpikingJelly` counts them.
        pub spikingjelly_acs: Option<u64>,
        /// Multiply–accumulates as `syops-counter` counts them.
        pub syops_macs: Option<u64>,
        /// Accumulates as `syops-counter` counts them.
        pub syops_acs: Option<u64>,
        /// Of `elapsed_s`, time spent waiting for data.
        pub data_wait_s: f64,
        /// Highest live bytes of the forward pass.
        pub peak_bytes_forward: Option<u64>,
        /// Highest live bytes of learning; the larger of the two is `peak_bytes`.
        pub peak_bytes_learning: Option<u64>,
        /// Updates the optimiser has made so far.
        pub updates: u64,
        /// Operations of passes over the data that prediction does not need, and of the alignment of transcripts.
        pub operations_passes: Option<u64>,
        /// The accumulates of the forward pass, a burst of spikes counted once.
        pub events_forward: Option<u64>,
        /// The same of learning.
        pub events_learning: Option<u64>,
        /// (step, weight that is not zero) pairs of the forward weight products that spikes enter.
        pub spike_synapses: Option<u64>,
        /// Of `neuron_updates`, those with a spike.
        pub neurons_fired: Option<u64>,
        /// Spikes of these neurons, each of a burst counted.
        pub spikes: Option<u64>,
        /// Of `macs_forward`, products of weights with activations of n bits, by n from 1 on; ends with the last that is not zero,
        /// so empty where there are none.
        pub code_macs_forward: Vec<u64>,
        /// The same of `macs_learning`.
        pub code_macs_learning: Vec<u64>,
        /// Blocks of memory asked for within the step, wherever. Preparing data is left out. With several threads it depends on which of
        /// them did what.
        pub allocations: Option<u64>,
    }
}

table! {
    /// One diagnostic value: a row of `layers.parquet`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LayerRow = "layers" {
        /// Update number.
        pub step: u64,
        /// Layer name.
        pub layer: String,
        /// Quantity.
        pub quantity: String,
        /// Value.
        pub value: f64,
    }
}

table! {
    /// One metric of one evaluation: a row of `evals.parquet`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct EvalRow = "evals" {
        /// Updates made before this evaluation.
        pub step: u64,
        /// Tokens, frames or samples seen before it.
        pub seen: u64,
        /// `valid` or `test`.
        pub split: String,
        /// Metric name, such as `bits_per_byte` or `auc_roc_macro`.
        pub metric: String,
        /// Value; null if undefined (an AUC without positives).
        pub value: Option<f64>,
        /// Items the metric was computed over.
        pub n: u64,
        /// Lower end of the 95 % interval over items, where there is one.
        pub low: Option<f64>,
        /// Upper end.
        pub high: Option<f64>,
    }
}

table! {
    /// One item of the final evaluation: a row of `predictions.parquet`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PredictionRow = "predictions" {
        /// Item, such as an ECG id or the title of an article with the tokens that it is.
        pub item: String,
        /// Split.
        pub split: String,
        /// Target: class names joined by `+`, a transcript, or null.
        pub target: Option<String>,
        /// One score per output, in the order of the file's `outputs` metadata; empty where there are none. Of a text, where
        /// outputs would be whole distributions: the tokens, bytes and words of the article.
        pub scores: Vec<f64>,
        /// Decoded hypothesis, where there is one.
        pub hypothesis: Option<String>,
        /// Negative log-likelihood of the item in nats.
        pub nll: Option<f64>,
    }
}

table! {
    /// A spike on a sample input: a row of `spikes.parquet`, which only cells with spiking neurons have. A population that sent nothing has
    /// one row, of level 0.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SpikeRow = "spikes" {
        /// Name of the population, such as `layers.0.pre`.
        pub layer: String,
        /// Its neurons that were looked at: the first ones.
        pub neurons: u64,
        /// Steps that were looked at.
        pub steps: u64,
        /// Which neuron, from 0.
        pub neuron: u64,
        /// At which step, from 0.
        pub step: u64,
        /// What it sent: the number of spikes of a burst; below zero those of the OFF neuron of a pair.
        pub level: f64,
    }
}

/// Everything a cell may emit.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all events are steps, and each goes straight into its sink's buffer"
)]
pub enum Event {
    /// An update.
    Step(StepRow),
    /// A diagnostic.
    Layer(LayerRow),
    /// A metric.
    Eval(EvalRow),
    /// An item of the final evaluation.
    Prediction(PredictionRow),
}
