//! Metrics of a stream that is learned from as it comes: their names, which whoever measures and whoever shows share.

/// Mean loss of the whole stream, of segments before they are learned from.
pub const PREQUENTIAL: &str = "prequential_loss";
/// The same of a window of the stream.
pub const WINDOW_LOSS: &str = "window_loss";

/// Loss on the held-out part of a domain after a phase: `matrix_PHASE_DOMAIN`, phase 0 before training.
pub const MATRIX: &str = "matrix_";
/// What domains in turn are judged by: forgetting, backward and forward transfer.
pub const TRANSFERS: [&str; 3] = ["forgetting", "backward_transfer", "forward_transfer"];

/// Loss before a change of the stream: the number of the phase that it begins follows, here and below.
pub const BEFORE: &str = "change_before_";
/// Loss right after it.
pub const AFTER: &str = "change_after_";
/// What was seen of the phase until the loss was back.
pub const RECOVERY: &str = "recovery_";

/// How far above the loss before a change counts as back, as a share, where a grid says nothing.
pub const RECOVERY_MARGIN: f64 = 0.05;

/// Whether a metric is of a change of the stream, not of an evaluation.
#[must_use]
pub fn is_of_change(name: &str) -> bool {
    [BEFORE, AFTER, RECOVERY].iter().any(|begin| name.starts_with(begin))
}
