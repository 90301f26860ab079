//! What a running cell tells the world: the loop emits these rows, sinks (Parquet, progress) consume them.
//! Field order is column order; `None` is null and means "not measured", never zero.

/// One update: a row of `steps.parquet`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepRow {
    /// Number of this update, from 1.
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
    /// Allocator's live bytes after the step.
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
    /// Share of weights exactly zero.
    pub connection_sparsity: Option<f64>,
    /// Multiply–accumulates of the forward pass.
    pub macs_forward: Option<u64>,
    /// Accumulates of the forward pass.
    pub acs_forward: Option<u64>,
    /// Multiply–accumulates of learning.
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
}

/// One diagnostic value: a row of `layers.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRow {
    /// Update number.
    pub step: u64,
    /// Layer name.
    pub layer: String,
    /// Quantity.
    pub quantity: String,
    /// Value.
    pub value: f64,
}

/// One metric of one evaluation: a row of `evals.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalRow {
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

/// One item of the final evaluation: a row of `predictions.parquet`.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictionRow {
    /// Item, such as an ECG id or the byte offset of a block of text.
    pub item: String,
    /// Split.
    pub split: String,
    /// Target: class names joined by `+`, a transcript, or null.
    pub target: Option<String>,
    /// One score per output, in the order of the file's `outputs` metadata; empty where there are none.
    pub scores: Vec<f64>,
    /// Decoded hypothesis, where there is one.
    pub hypothesis: Option<String>,
    /// Negative log-likelihood of the item in nats.
    pub nll: Option<f64>,
}

/// Everything a cell may emit.
#[derive(Clone, Debug, PartialEq)]
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
