//! Training settings of a cell and what follows from them.

use std::num::NonZeroU64;

use baselines::ops::Precision;
use bim::config::{BelowOne, Count, NonNegative, Positive, Share};
use learner::{AdamWConfig, Decay, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `train:` keys of a grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Budget in tokens or frames. Rounded up to whole segments.
    pub seen: Option<NonZeroU64>,
    /// Budget in passes over the training part, if `seen` is not given.
    pub epochs: Option<Positive>,
    /// Streams side by side, `B`.
    pub streams: Count,
    /// Steps per segment, `K`: BIM's credit chunk, the baselines' window. Default 32 for bim (256 with `credit:
    /// bptt`), a whole recording for a residual network and a Transformer that is not causal, 256 for the others.
    pub segment: Option<Count>,
    /// Peak learning rate.
    pub learning_rate: Positive,
    /// Share of the updates over which it rises.
    pub warmup: Share,
    /// How it falls.
    pub decay: Decay,
    /// Final rate as a share of the peak.
    pub final_share: Share,
    /// Decoupled weight decay of matrices.
    pub weight_decay: NonNegative,
    /// `AdamW`'s first decay.
    pub beta1: BelowOne,
    /// `AdamW`'s second decay.
    pub beta2: BelowOne,
    /// Largest L2 norm of the gradient.
    pub clip: Positive,
    /// Segments with supervised steps whose gradients make one update (baselines; bim learns from every segment).
    pub accumulate: Count,
    /// In what matrix products are made: `full`, or `mixed` on a device that has half precision (baselines).
    #[serde(skip_serializing_if = "is_full")] // cells from before it keep their id
    pub precision: Precision,
    /// Points of the learning curve.
    pub curve_points: u64,
    /// Tokens or frames scored for each of them.
    pub curve_limit: Option<u64>,
    /// Tokens or frames scored at the end, where that is not to be the whole part; no published value compares with it.
    #[serde(skip_serializing_if = "Option::is_none")] // cells from before it keep their id
    pub eval_limit: Option<NonZeroU64>,
    /// Whether the scored part is read once more by a learner that goes on learning from it, at the last learning rate: each segment is
    /// scored before it is learned from. Its metrics begin with `dynamic_`. For tasks that are streams.
    #[serde(skip_serializing_if = "std::ops::Not::not")] // cells from before it keep their id
    pub dynamic_evaluation: bool,
    /// Phases of the stream after which the weights stay as they are: the rest of it is predicted and not learned from. For tasks whose
    /// stream has phases: `domains` of a language, `drift` of an ECG.
    #[serde(skip_serializing_if = "Option::is_none")] // cells from before it keep their id
    pub frozen_after: Option<NonZeroU64>,
    /// A change of the stream is recovered from at the end of the first tenth of a phase whose mean loss is at most this share above
    /// what it was before the change. For tasks whose stream has phases.
    #[serde(skip_serializing_if = "is_default_margin")] // cells from before it keep their id
    pub recovery_margin: NonNegative,
    /// Streams of an evaluation.
    pub eval_streams: Count,
    /// Largest share of a dataset's recordings, utterances or texts that may be missing or skipped.
    #[serde(skip_serializing_if = "is_default_share")] // cells from before it keep their id
    pub left_out: Share,
}

/// Share of a dataset that may be left out where a grid says nothing.
const LEFT_OUT: Share = Share(0.01);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_default_share(share: &Share) -> bool {
    *share == LEFT_OUT
}

/// How far above the loss before a change counts as back, where a grid says nothing.
const RECOVERY_MARGIN: NonNegative = NonNegative(metrics::stream::RECOVERY_MARGIN);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_default_margin(margin: &NonNegative) -> bool {
    *margin == RECOVERY_MARGIN
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_full(precision: &Precision) -> bool {
    *precision == Precision::Full
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seen: None,
            epochs: None,
            streams: Count(8),
            segment: None,
            learning_rate: Positive(2e-3),
            warmup: Share(0.03),
            decay: Decay::Cosine,
            final_share: Share(0.05),
            weight_decay: NonNegative(0.01),
            beta1: BelowOne(0.9),
            beta2: BelowOne(0.99),
            clip: Positive(1.0),
            accumulate: Count(1),
            precision: Precision::Full,
            curve_points: 8,
            curve_limit: Some(50_000),
            eval_limit: None,
            dynamic_evaluation: false,
            frozen_after: None,
            recovery_margin: RECOVERY_MARGIN,
            eval_streams: Count(32),
            left_out: LEFT_OUT,
        }
    }
}

impl TrainConfig {
    /// Learning rate over `updates` updates.
    #[must_use]
    pub fn schedule(&self, updates: u64) -> Schedule {
        Schedule {
            peak: self.learning_rate.0,
            warmup_updates: (updates as f64 * self.warmup.0) as u64,
            total_updates: updates,
            decay: self.decay,
            final_share: self.final_share.0,
        }
    }

    /// `AdamW`'s constants.
    #[must_use]
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.beta1.0,
            beta2: self.beta2.0,
            weight_decay: self.weight_decay.0,
            ..AdamWConfig::default()
        }
    }
}
