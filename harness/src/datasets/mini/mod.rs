//! Tiny generated datasets in the real on-disk formats, so that a newcomer needs no download.

pub mod ecg;
pub mod eeg;
mod place;
pub mod speech;
pub mod text;
