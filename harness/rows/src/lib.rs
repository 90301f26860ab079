//! What a cell tells the world, as rows of Parquet tables: each table is one struct, from which its schema, its writer and its
//! reader follow. Files are written in parts that a kill cannot tear.

mod event;
pub mod parquet;
pub mod results;
pub mod row;
mod settings;
pub mod tensorboard;

pub use event::{EvalRow, Event, LayerRow, PredictionRow, SpikeRow, StepRow};
pub use settings::Settings;
