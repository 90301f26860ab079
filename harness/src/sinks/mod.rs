//! Where events go: typed Parquet files, written in parts that a kill cannot tear.

pub mod parquet;
pub mod results;
pub mod rows;
