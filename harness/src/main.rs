//! The `harness` program.

use std::process::ExitCode;

use harness::measure::{Counting, keep_memory};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

/// candle adds tensors on threads of its own, which spin while they wait: beside ours on the same cores that costs 4 to 8 %
/// of training. What is large enough to be worth two threads is in our own operations.
fn one_candle_thread() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        // SAFETY: called first thing, when no other thread can be reading the environment
        unsafe { std::env::set_var(THREADS, "1") };
    }
}

fn main() -> ExitCode {
    one_candle_thread();
    keep_memory();
    harness::cli::main()
}
