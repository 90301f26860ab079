//! File formats: readers, and the writers that generators need.

pub mod edf;
pub mod flac;
pub mod wfdb;
