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
//! What measurement says so far (`experiments/{ablation_lambda,ablation_sparsity,credit_modes}.yaml`, scale `mini`, generated
//! text and ECGs, three seeds; `reports/results`). STDP's share λ costs nothing between 0.9 and 1 (1.787 to 1.791 bits per
//! byte on text, intervals overlapping), a little at 0.8 and much below; λ = 0 does not learn the task. Nor does its timing
//! help: with the presynaptic spikes of each chunk in random order, λ = 0.9 gives 1.782 instead of 1.789, and λ = 0.5 gives
//! 1.804 instead of 1.976, so in this setting the pairing in time is noise to the gradient, not a signal. Pruning
//! reaches its target to a tenth of a per cent of the plastic synapses at every λ, and costs 0.04, 0.10, 0.15 and 0.22 bits
//! per byte at ρ = 0.5, 0.8, 0.9 and 0.95. On ECGs λ is as flat from 0.8 to 1 (AUC-ROC 0.90 to 0.93), shuffled spikes again do as
//! well, and pruning costs nothing that three seeds can show up to ρ = 0.8, 0.05 to 0.07 at 0.95. Updates decay with the time
//! between spikes as the STDP window does only as far as the window is mixed in: the gradient itself is flat
//! (`stdp_window.yaml`).
//!
//! Among the credit modes, `hybrid`, `diagonal`, `eprop` and `tbptt` lie within 0.02 bits per byte of each other on text whose
//! dependencies are short, and all are ahead of `spatial` by 0.03 or more; on ECGs `tbptt` is ahead of the rules with traces
//! (AUC-ROC 0.935 [0.922, 0.949] against 0.908 [0.893, 0.920] for `hybrid`); why is open. `bptt` in windows as long
//! as the recording makes the fewest updates and is last at this budget. What traces buy is reach: on `recall.yaml`, where a
//! cue must be named twenty chunks later, they are what makes the difference (`bim/tests/long_range.rs`).
//!
//! Read in this order: [`config`], [`kernels::scan`], [`kernels::trace`], [`block`], [`network`], [`online`].

pub mod block;
pub mod config;
pub mod diagnose;
pub mod kernels;
pub mod network;
pub mod online;
mod operations;
pub mod params;
pub mod plasticity;
mod reach;
pub mod rule;
pub mod time_differences;

pub use config::BimConfig;
pub use online::{Bim, Optimizer};

/// Raise when the same configuration and seed would give other numbers: results of another version are not reused.
pub const CODE_VERSION: u32 = 8;
