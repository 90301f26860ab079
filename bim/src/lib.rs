//! Bio-Inspired Mamba (arXiv 2409.11263): a selective state-space model with spiking neurons at both ends, trained online.
//!
//! | symbol | meaning | where |
//! |---|---|---|
//! | `B`, `T`, `K` | streams, steps, steps per chunk | |
//! | `J`, `D`, `N`, `H` | block inputs, channels, state size, heads | [`kernels::Dims`] |
//! | `ψ` | presynaptic activity behind the delay line | [`kernels::encode`] |
//! | `u`, `B`, `C`, `Δ` | selective input, input map, output map, step size | [`network`] |
//! | `h`, `y` | state and output of the state space (eqs. 1, 2) | [`kernels::scan`] |
//! | `V`, `s`, `ϑ`, `β` | membrane potential, spikes, threshold, decay (eq. 3) | [`kernels::neuron`] |
//! | `φ` | surrogate derivative of firing | [`kernels::neuron`] |
//! | `λ`, `Ω` | mixing factor, STDP term (eqs. 4–6) | [`plasticity`], [`kernels::stdp`] |
//! | `E`, `F` | eligibility traces of `h` and `V` (eqs. 7, 8) | [`kernels::trace`], [`block`] |
//! | `Δ = t_post − t_pre` | spike time difference (§4.6) | [`time_differences`] |
//! | `p`, `θ`, `ρ` | pruning probability, threshold, target (eqs. 9, 10) | [`kernels::prune`] |
//!
//! What was measured of it stands in `reports/results/README.md`, with the commands and files.
//!
//! Read in this order: [`config`], [`kernels::scan`], [`kernels::trace`], [`block`], [`network`], [`online`].

pub mod block;
pub mod config;
mod cost;
#[cfg(any(feature = "cuda", test))]
mod device;
pub mod diagnose;
mod energy;
#[cfg(test)]
mod fixture;
pub mod fold;
pub mod frozen;
mod homeostasis;
pub mod kernels;
pub mod network;
pub mod online;
mod operations;
pub mod params;
pub mod plasticity;
mod reach;
pub mod rule;
mod runs_on;
mod third_factor;
pub mod time_differences;

pub use config::BimConfig;
pub use cost::plan;
pub use online::{Bim, Optimizer};
pub use runs_on::{build, check_gpu};

/// Raise when the same configuration and seed would give other numbers: results of another version are not reused.
pub const CODE_VERSION: u32 = 8;
