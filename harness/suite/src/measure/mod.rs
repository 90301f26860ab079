//! What a step costs: memory, operations, and what a price list makes of them.

pub mod allocator;
pub mod calibration;
pub mod energy;
pub mod instructions;
pub mod operations;
pub mod resident;

pub use allocator::{Counting, keep_memory};

/// Keeps candle to one thread, in a program that trains. It adds tensors on threads of its own,
/// which spin while they wait: beside ours on the same cores that costs 4 to 11 % of training. What is large enough to be
/// worth two threads is in our own operations.
///
/// # Safety
/// To be called first thing, before other threads exist: it writes the environment.
pub unsafe fn one_candle_thread() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        // SAFETY: the caller's contract: nobody else can be reading the environment.
        unsafe { std::env::set_var(THREADS, "1") };
    }
}
