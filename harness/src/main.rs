//! The `harness` program.

use std::process::ExitCode;

use harness::measure::{Counting, keep_memory};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

fn main() -> ExitCode {
    keep_memory();
    harness::cli::main()
}
