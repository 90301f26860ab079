//! Layers in kernels of a GPU: all steps of a segment in a launch. Each function gives `None` where it has none for the operands,
//! and the caller takes its form in tensor operations.
//!
//! The input's product is the library's, over all steps at once; the recurrence is a kernel. What is kept for the way back stays
//! on the GPU, and the host waits for nothing.

#[cfg(feature = "cuda")]
mod kernels;

#[cfg(feature = "cuda")]
pub(super) use kernels::{lif, lstm, rnn, scan};

#[cfg(not(feature = "cuda"))]
pub(super) use without::{lif, lstm, rnn, scan};

#[cfg(not(feature = "cuda"))]
mod without {
    //! A program without CUDA has no tensors that these take.
    #![allow(clippy::unnecessary_wraps, reason = "the signatures are those of the kernels")]

    use candle_core::{Result, Tensor};

    use super::super::{Cell, LifState, Neuron};

    pub(in super::super) fn lif(
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &LifState,
        _: Neuron,
    ) -> Result<Option<(Tensor, LifState)>> {
        Ok(None)
    }

    pub(in super::super) fn lstm(
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<Option<(Tensor, Tensor)>> {
        Ok(None)
    }

    pub(in super::super) fn rnn(_: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor, _: Cell) -> Result<Option<Tensor>> {
        Ok(None)
    }

    pub(in super::super) fn scan(
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<Option<(Tensor, Tensor)>> {
        Ok(None)
    }
}
