//! What a step costs: memory, operations, and what a price list makes of them.

pub mod allocator;
pub mod energy;
pub mod operations;
pub mod resident;

pub use allocator::{Counting, keep_memory};
