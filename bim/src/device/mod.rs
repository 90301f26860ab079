//! BIM on a GPU: the same network, credit rules and checkpoints as on the host, in kernels (`src/cuda`) and cuBLAS products that take all
//! streams and all steps of a chunk at once. Weights, states and traces stay on the device between updates.
//!
//! | file | has |
//! |---|---|
//! | [`machine`] | what is asked of a device; [`gpu`] is one, the host another in tests |
//! | [`block`], [`back`], [`traces`], [`membrane`], [`scratch`] | a block, forward, backwards and its traces |
//! | [`network`] | the network, with gradients of all parameters in one array |
//! | [`reach`] | backpropagation that reaches behind its chunk |
//! | [`synapses`] | STDP, mixing and masks |
//! | [`learner`] | the contract: an update, evaluation, checkpoints |
//! | [`host`] | state and activations to and from the host's network |
//!
//! The host waits three or four times per update: for the loss, the gradient's norm with the layers' largest states, the moments of STDP's
//! mix, and the norm of the change. Beside these it sees the logits that are scored, what a checkpoint holds, and the activations of chunks
//! whose operations are counted. Pruning events are drawn there, with weights and masks copied to and fro.

mod back;
mod block;
#[cfg(feature = "cuda")]
mod gpu;
mod host;
mod learner;
mod machine;
mod membrane;
mod network;
mod reach;
mod scratch;
mod synapses;
mod traces;

#[cfg(feature = "cuda")]
pub(crate) use gpu::Gpu;
#[cfg(feature = "cuda")]
pub(crate) use learner::OnDevice;

#[cfg(test)]
mod tests;
