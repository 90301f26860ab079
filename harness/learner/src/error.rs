use std::path::PathBuf;

/// Result of a learner's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong inside a learner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operand does not have the shape that was expected.
    #[error("{operand}: expected {expected}, got {got}")]
    Shape {
        /// Name of the operand.
        operand: String,
        /// What was expected.
        expected: String,
        /// What arrived.
        got: String,
    },
    /// A configuration value that cannot work.
    #[error("{key}: {problem}")]
    Config {
        /// The key, such as `heads`.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Training left the range of numbers.
    #[error("diverged: {quantity} is {value} at update {update}{}", .layer.as_ref().map(|l| format!(" in {l}")).unwrap_or_default())]
    Diverged {
        /// What is not finite, such as `loss`.
        quantity: &'static str,
        /// Its value.
        value: f64,
        /// Number of updates made before.
        update: u64,
        /// The layer, where known.
        layer: Option<String>,
    },
    /// A checkpoint that does not fit.
    #[error("checkpoint {path}: {problem}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// A shape mismatch.
    pub fn shape(operand: impl Into<String>, expected: impl std::fmt::Debug, got: impl std::fmt::Debug) -> Self {
        Self::Shape { operand: operand.into(), expected: format!("{expected:?}"), got: format!("{got:?}") }
    }
}
