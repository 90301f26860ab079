//! CUDA without a card, for tests.
//!
//! - [`Kernels`]: a CUDA C source, compiled for the host by the system's C++ compiler and launched from a test.
//! - [`StandIns`]: libraries in place of the driver, cuBLAS and cuRAND, on which a program that was built with `--features cuda`
//!   runs without a card: device memory is the host's, and launches call host builds of candle's kernels and of ours.
//!
//! What this shows: layouts, strides, arguments, arithmetic, missing kernels, barriers that a block needs, round trips to the host,
//! checkpoints across devices. What it cannot show: races between blocks, faults of the memory model, limits of registers and
//! shared memory, speed. Those need a card.

mod build;
mod kernels;
mod prove;
mod stand_ins;

pub use build::compiler;
pub use kernels::{Arg, Kernels};
pub use prove::{FORWARD, GRADIENT, close, drawn, near, prove};
pub use stand_ins::StandIns;
