//! What a step costs: memory now; operations and energy come with the counters.

pub mod allocator;
pub mod resident;

pub use allocator::{Counting, keep_memory};
