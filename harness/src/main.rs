//! The `harness` program.

use std::process::ExitCode;

use harness::measure::{Counting, keep_memory, one_candle_thread};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fn main() -> ExitCode {
    // SAFETY: there is no other thread yet.
    unsafe { one_candle_thread() };
    keep_memory();
    harness::cli::main()
}
