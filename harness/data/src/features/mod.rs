//! Features of sound: log-mel spectrograms, kept on disk by the content of the audio.

pub mod cache;
pub mod filter;
pub mod logmel;
pub mod transform;

pub use cache::Cache;
pub use logmel::{LogMel, LogMelConfig};
