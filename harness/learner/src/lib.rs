//! The contract between the harness's loop and every learner: BIM and the baselines differ only behind [`Learner`].
//!
//! | symbol | meaning |
//! |---|---|
//! | `B` | streams processed side by side |
//! | `K` | steps per segment: BIM's credit chunk, a baseline's backpropagation window |
//! | `F` | values per frame (a step of a signal) |
//! | `O` | outputs per step: vocabulary entries or labels |
//!
//! One loop trains everything: `reset → predict → learn`; evaluation is the same loop without `learn`, on a
//! [`Predictor`] from [`Learner::evaluator`] that shares the weights and has streams of its own.

// Kernels call `mul_add` in their innermost loops. Without FMA at compile time each becomes a call into the C library, tens of times
// slower: better no program than that one.
#[cfg(all(target_arch = "x86_64", not(target_feature = "fma"), not(doc)))] // rustdoc takes other flags
compile_error!(
    "compiled without FMA: RUSTFLAGS from the environment replace those in .cargo/config.toml; add `-C target-cpu=x86-64-v3` (or `native`) to them"
);

mod adamw;
pub mod ctc;
#[cfg(feature = "cuda")]
pub mod device;
mod error;
mod exponential;
mod host;
mod loss;
pub mod operations;
mod params;
pub mod performed;
pub mod product;
mod schedule;
mod snapshot;
mod two_pass;

pub use adamw::{AdamW, AdamWConfig, Group, Stepped, global_norm, norm_of};
pub use error::{Error, Result};
pub use exponential::exp_fast;
pub use host::{read_f32, with_f32, with_f32_mut};
pub use loss::{Targets, loss, loss_and_gradient, loss_slow};
pub use operations::OpCounts;
pub use params::{Bound, Init, ParamSource, Params, Shapes, seeded_rng};
pub use schedule::{Decay, Schedule};
pub use snapshot::Snapshot;
pub use two_pass::TwoPass;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// What a learner reads at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Token ids: segments are `u32` tensors of shape `[B, K]`.
    Tokens {
        /// Number of distinct ids.
        vocabulary: usize,
    },
    /// Real-valued frames: segments are `f32` tensors of shape `[B, K, F]`.
    Frames {
        /// Values per frame, `F`.
        width: usize,
    },
}

/// The shapes a learner is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// What arrives at every step.
    pub input: InputKind,
    /// Outputs per step, `O`.
    pub outputs: usize,
    /// Streams trained side by side, `B`.
    pub streams: usize,
    /// Steps per training segment, `K`.
    pub segment: usize,
}

/// Something that maps segments to outputs and carries state from one segment to the next.
pub trait Predictor: Send {
    /// Steps per segment, `K`. A shorter segment is accepted, a longer one is an error.
    fn segment_len(&self) -> usize;
    /// Clears state (and traces) of the streams that start something new; never touches weights.
    ///
    /// # Errors
    /// If `starts` does not have one entry per stream.
    fn reset(&mut self, starts: &[bool]) -> Result<()>;
    /// Maps one segment `[B, K]` or `[B, K, F]` to outputs (logits) `[B, K, O]`. Never sees a target.
    ///
    /// # Errors
    /// If the segment's shape is not the one the learner was built for.
    fn predict(&mut self, x: &Tensor) -> Result<Tensor>;
    /// Whether the operations of predictions are counted, which they are not at first: see [`Predictor::predicted`]. What a
    /// [`Learner`] predicts for itself is counted in [`Update::operations`] instead.
    fn count_predictions(&mut self, on: bool) {
        let _ = on;
    }
    /// Operations of the predictions since the last call, the forward pass alone; `None` if they were not counted.
    fn predicted(&mut self) -> Option<OpCounts> {
        None
    }
    /// Maps a segment as [`Predictor::predict`] does, and says what the neurons of its first stream sent meanwhile, population by
    /// population from the input on. Empty, and nothing done, without spiking neurons or where nothing is known of them.
    ///
    /// # Errors
    /// As those of [`Predictor::predict`].
    fn sent(&mut self, x: &Tensor) -> Result<Vec<Sent>> {
        let _ = x;
        Ok(Vec::new())
    }
}

/// What a population of spiking neurons sent on one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Name of the population, such as `layers.0.pre`.
    pub layer: String,
    /// Its neurons.
    pub neurons: usize,
    /// Level sent at every step: `[K, neurons]`. Zero is silence; below zero are spikes of the OFF neuron of a pair.
    pub levels: Vec<f32>,
}

impl Sent {
    /// From levels as the kernels have them: whole numbers, of which `streams` rows belong to each step.
    #[must_use]
    pub fn first_stream(layer: String, levels: &[f32], streams: usize, neurons: usize) -> Self {
        let rows = levels.chunks_exact((streams * neurons).max(1)).filter_map(|step| step.get(..neurons));
        Self { layer, neurons, levels: rows.flatten().copied().collect() }
    }

    /// Appends what the same populations sent in the segment after that of `all`, which is empty before the first.
    pub fn append(all: &mut Vec<Self>, next: Vec<Self>) {
        if all.is_empty() {
            *all = next;
            return;
        }
        for (sent, next) in all.iter_mut().zip(next) {
            sent.levels.extend(next.levels);
        }
    }
}

/// A [`Predictor`] that can be trained.
pub trait Learner: Predictor {
    /// Learns from the targets of the segment that was predicted last.
    ///
    /// # Errors
    /// If nothing was predicted, shapes disagree, or the loss or an update is not finite ([`Error::Diverged`]).
    fn learn(&mut self, y: &Targets) -> Result<Update>;
    /// Whether operations and activity are counted, as they are at first. Without it [`Update::operations`] is `None`; what
    /// is learned is the same.
    fn set_counting(&mut self, on: bool);
    /// A predictor over the same weights with `streams` fresh streams; training state is left alone.
    ///
    /// # Errors
    /// If its state cannot be allocated.
    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>>;
    /// Sizes: parameters, state and trace bytes.
    fn cost(&self) -> Cost;
    /// Everything needed to continue exactly: weights, optimiser, state, traces, counters.
    ///
    /// # Errors
    /// If a tensor cannot be read from its device.
    fn save(&self) -> Result<Snapshot>;
    /// Restores what [`Learner::save`] returned.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the message names it.
    fn load(&mut self, snapshot: &Snapshot) -> Result<()>;
}

/// What one call of [`Learner::learn`] did.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Mean loss over the weighted steps of the segment, in nats. `None` if no step carried weight.
    pub loss: Option<f64>,
    /// Updates that the optimiser made: 0 where gradients add up to a later one or there was no loss, several where the
    /// segment was worked off in chunks.
    pub updates: u64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// L2 norm of the gradient over all parameters, before clipping.
    pub grad_norm: f64,
    /// L2 norm of the change of all parameters.
    pub update_norm: f64,
    /// What the neurons and weights did; `None` means not measured.
    pub activity: Activity,
    /// Operations of this step; `None` means not measured.
    pub operations: Option<OpCounts>,
    /// Long-form diagnostics, one row each in `layers.parquet`.
    pub layers: Vec<LayerValue>,
}

/// Shares of zeros; `None` where there is nothing to measure or it is not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    /// Share of (neuron, step) pairs without a spike.
    pub spike_sparsity: Option<f64>,
    /// Share of exact zeros among the values that entered a weight product.
    pub activation_sparsity: Option<f64>,
    /// Share of weights that are exactly zero. Biases, gains and look-up tables are no connections.
    pub connection_sparsity: Option<f64>,
    /// Share of the connections that a pruning rule may remove that it has removed.
    pub pruned_share: Option<f64>,
}

/// One diagnostic value of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerValue {
    /// Layer name, such as `layers.0`.
    pub layer: String,
    /// What was measured, such as `cosine_gradient_stdp`.
    pub quantity: &'static str,
    /// Its value.
    pub value: f64,
}

/// Sizes of a learner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Trainable parameters.
    pub parameters: u64,
    /// Bytes of recurrent state and eligibility traces over all streams.
    pub state_bytes: u64,
    /// How many of them are traces, which the forward pass never touches.
    #[serde(default)]
    pub trace_bytes: u64,
}
