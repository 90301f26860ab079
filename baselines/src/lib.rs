//! Baselines that are trained by backpropagation through time, behind the same [`learner::Learner`] as everything else.
//!
//! | symbol | meaning |
//! |---|---|
//! | `B` | streams side by side |
//! | `T`, `K` | steps; steps per segment, the window of backpropagation |
//! | `D` | channels of the residual stream |
//! | `H` | channels of a hidden state, or inside a Mamba block |
//! | `F` | values per frame of the input; hidden width of a feed-forward block |
//! | `N` | states per channel |
//! | `R`, `W` | rank of Mamba's step sizes; taps of its convolution |
//! | `M` | remembered steps before the segment |
//! | `V`, `O` | vocabulary entries; outputs per step |
//! | `I`, `C` | inputs of a map; channels of a resnet |
//!
//! | model | paper | file |
//! |---|---|---|
//! | [`Transformer`] | Vaswani et al. 2017, *Attention is all you need*; norms before: Xiong et al. 2020; rotary positions: Su et al. 2021; memory: Dai et al. 2019, *Transformer-XL* | `transformer.rs` |
//! | [`Cnn`], causal | Bai et al. 2018, *An empirical evaluation of generic convolutional and recurrent networks* (TCN) | `cnn/causal.rs` |
//! | [`Cnn`], resnet | He et al. 2019, *Bag of tricks* (xresnet), in one dimension after Strodthoff et al. 2021, *Deep learning for ECG analysis* | `cnn/resnet.rs` |
//! | [`Lstm`] | Hochreiter & Schmidhuber 1997, *Long short-term memory*; forget gates: Gers et al. 2000 | `lstm.rs` |
//! | [`Rnn`] | GRU: Cho et al. 2014, *Learning phrase representations*; vanilla: Elman 1990, *Finding structure in time* | `rnn.rs` |
//! | [`Mamba`] | Gu & Dao 2023, *Mamba: linear-time sequence modeling with selective state spaces* | `mamba.rs` |
//! | [`Snn`] | leaky integrate-and-fire layers: Eshraghian et al. 2023, *Training spiking neural networks using lessons from deep learning* (snnTorch); surrogate gradient: Zenke & Ganguli 2018; adaptive threshold: Bellec et al. 2018; residual: Fang et al. 2021 | `snn.rs` |
//!
//! A segment whose recording ends within it is filled up behind with frames of zeros and targets of weight zero. A model of
//! streams cannot see what comes later; one of whole recordings (resnet, a Transformer that is not causal) takes frames that are
//! exactly zero up to a segment's end for padding.
//!
//! ```
//! use baselines::learner::{Io, InputKind, Targets};
//! use baselines::{BpttConfig, LstmConfig, ModelConfig, build};
//! use candle_core::{DType, Device, Tensor};
//!
//! # fn main() -> baselines::learner::Result<()> {
//! let (streams, steps) = (2, 16);
//! let io = Io { input: InputKind::Tokens { vocabulary: 256 }, outputs: 256, streams, segment: steps };
//! let model = ModelConfig::Lstm(LstmConfig::default());
//! let mut learner = build(&model, io, BpttConfig::recipe(20), 1, &Device::Cpu)?;
//! let text: Vec<u32> = b"to be or not to be, that is the question".iter().map(|&b| u32::from(b)).collect();
//! let tokens = |from: usize| Tensor::from_slice(&text[from..from + streams * steps], (streams, steps), &Device::Cpu);
//! let targets = Targets::Classes { class: tokens(1)?, weight: Tensor::ones((streams, steps), DType::F32, &Device::Cpu)? };
//! let mut losses = Vec::new();
//! for _ in 0..20 {
//!     learner.reset(&[true; 2])?; // the streams start anew
//!     let logits = learner.predict(&tokens(0)?)?; // [B, K, O]
//!     assert_eq!(logits.dims(), [streams, steps, 256]);
//!     losses.extend(learner.learn(&targets)?.loss); // nats per step
//! }
//! assert!(losses[19] < losses[0]);
//! # Ok(())
//! # }
//! ```
//!
//! `bptt.rs` trains any [`SequenceModel`]; `ops/` holds the fused operations with their slow twins.

mod accumulate;
mod bptt;
mod cnn;
mod config;
mod count;
mod input;
mod kernels;
mod lstm;
mod mamba;
pub mod ops;
mod recording;
mod rnn;
mod scratch;
mod sent;
mod snn;
mod state;
mod transformer;

/// The contract between learners and what trains them: shapes, targets, schedules, the optimiser.
pub use learner;

pub use bptt::{BpttLearner, SequenceModel};
pub use cnn::{Cnn, CnnConfig, Family};
pub use config::{BpttConfig, Layers, ModelConfig, Positive, Share, Whole, Width, build, plan};
pub use lstm::{Lstm, LstmConfig};
pub use mamba::{Mamba, MambaConfig};
pub use rnn::{Rnn, RnnConfig};
pub use scratch::release as release_scratch;
pub use snn::{Adaptation, Snn, SnnConfig};
pub use state::State;
pub use transformer::{Transformer, TransformerConfig};

/// Raise when the same configuration and seed would give other numbers: results of another version are not reused.
pub const CODE_VERSION: u32 = 6;
