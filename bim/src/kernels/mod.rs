//! Pure functions over slices, generic over `f32` and `f64`. One stream each; callers run streams in parallel.
//!
//! State is laid out `[N, D]` (channel fastest), so that every inner loop runs over channels with the decay per
//! channel and `B_n`, `C_n` as scalars.

pub mod encode;
pub mod matmul;
pub mod neuron;
pub mod prune;
pub mod row;
pub mod scan;
pub mod stdp;
pub mod trace;

use num_traits::{Float, FloatConst, NumAssign};

/// Element type of the kernels.
pub trait Real:
    Float + FloatConst + NumAssign + candle_core::WithDType + std::iter::Sum + Default + Send + Sync + 'static
{
    /// Conversion from a configuration value.
    fn of(x: f64) -> Self {
        <Self as candle_core::WithDType>::from_f64(x)
    }
    /// Conversion for reporting.
    fn wide(self) -> f64 {
        candle_core::WithDType::to_f64(self)
    }
}

impl Real for f32 {}
impl Real for f64 {}

/// Sizes of a layer's selective state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Presynaptic neurons (block inputs), `J`.
    pub inputs: usize,
    /// Channels, `D`; one postsynaptic neuron each.
    pub channels: usize,
    /// State size per channel, `N`.
    pub state: usize,
    /// Heads, `H`; `D / H` channels share one decay.
    pub heads: usize,
    /// Presynaptic neurons that each head's step size reads: `J`, or `J / H` for its own group.
    pub delta_inputs: usize,
}

impl Dims {
    /// Channels per head, `P`.
    #[must_use]
    pub fn per_head(&self) -> usize {
        self.channels / self.heads
    }
    /// Columns of the projection that holds `u`, `B` and `C`.
    #[must_use]
    pub fn projected(&self) -> usize {
        self.channels + 2 * self.state
    }
    /// Length of the packed dynamics vector: `b_Δ [H]`, `A_log [H]`, skip `D [D]`.
    #[must_use]
    pub fn dynamics(&self) -> usize {
        2 * self.heads + self.channels
    }
    /// Offset of head `h`'s inputs to its step size.
    #[must_use]
    pub fn delta_offset(&self, h: usize) -> usize {
        if self.delta_inputs == self.inputs { 0 } else { h * self.delta_inputs }
    }
}

/// Independent partial sums in a dot product: wide enough for one AVX-512 register of `f32`, and the reason why the
/// result does not depend on how the compiler vectorises.
const LANES: usize = 16;

/// Dot product with a fixed order of additions.
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: T = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.into_iter().sum::<T>() + rest
}

/// `ln(1 + e^x)` without overflow.
pub(crate) fn softplus<T: Real>(x: T) -> T {
    Float::max(x, T::zero()) + (-x.abs()).exp().ln_1p()
}
