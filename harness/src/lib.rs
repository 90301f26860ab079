//! Reproducible experiment grids: YAML in, Parquet and tables out.
//!
//! ```text
//! YAML grid → plan (cells) → dataset → task (segments) → learner (predict, learn) → events → Parquet → statistics → tables
//! grid        plan, cell     datasets  tasks             run                        event    sinks     stats        report
//! ```

pub mod cell;
pub mod cli;
pub mod error;
pub mod event;
pub mod feed;
pub mod filter;
pub mod fit;
pub mod jobs;
pub mod measure;
pub mod metrics;
pub mod models;
pub mod plan;
pub mod progress;
pub mod protocol;
pub mod record;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sinks;
pub mod stats;
pub mod store;
pub mod tasks;
pub mod train;
