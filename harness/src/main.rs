//! The `harness` program.

use std::process::ExitCode;

use suite::Build;
use suite::measure::{Counting, keep_memory, one_candle_thread};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fn main() -> ExitCode {
    // SAFETY: there is no other thread yet.
    unsafe { one_candle_thread() };
    keep_memory();
    suite::cli::main(&Build {
        version: env!("CARGO_PKG_VERSION"),
        git_commit: option_env!("HARNESS_GIT_COMMIT"),
        git_dirty: option_env!("HARNESS_GIT_DIRTY").map(|dirty| dirty == "true"),
        git_diff: include_str!(concat!(env!("OUT_DIR"), "/changes.diff")),
        compiler: env!("HARNESS_COMPILER"),
        features: if cfg!(feature = "cuda") { "cuda" } else { "" },
    })
}
