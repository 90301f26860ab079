//! The `harness` program.

use std::process::ExitCode;

use harness::measure::Counting;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

fn main() -> ExitCode {
    harness::cli::main()
}
