//! Pure functions over slices, generic over `f32` and `f64`.
//!
//! A chunk's rows are time-major over the streams of a group: row `(t, b)` is `t · streams + b`. So the rows of a chunk are
//! one matrix for every projection, and the element-wise kernels see one wide row per step. State is laid out `[N, D]`
//! (channel fastest).

pub mod encode;
pub mod events;
pub mod front;
pub mod lanes;
pub mod neuron;
pub mod prune;
pub mod row;
pub mod scan;
pub mod stdp;
pub mod trace;

use num_traits::{Float, FloatConst, NumAssign};

/// Element type of the kernels.
pub trait Real:
    Float + FloatConst + NumAssign + candle_core::WithDType + learner::product::Element + std::iter::Sum + Default + 'static
{
    /// Conversion from a configuration value.
    fn of(x: f64) -> Self {
        <Self as candle_core::WithDType>::from_f64(x)
    }
    /// Conversion for reporting.
    fn wide(self) -> f64 {
        candle_core::WithDType::to_f64(self)
    }
    /// `e^x`, in a form that loops turn into vector code where the type has one.
    #[must_use]
    fn exp_fast(self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call would keep loops from becoming vector code")]
    fn exp_fast(self) -> Self {
        learner::exp_fast(self)
    }
}

impl Real for f64 {
    fn exp_fast(self) -> Self {
        self.exp()
    }
}

/// How many decays a layer's state has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// One per head (Mamba-2): traces collapse over channels or states.
    Head,
    /// One per channel and state (Mamba-1): `a_{n,d} = exp(-Δ_{h(d)} e^{A_log[n,d]})`.
    ChannelState,
}

/// Sizes of a layer's selective state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Presynaptic neurons (inputs of the projections), `J`.
    pub inputs: usize,
    /// Channels, `D`; one postsynaptic neuron each.
    pub channels: usize,
    /// State size per channel, `N`.
    pub state: usize,
    /// Heads, `H`; `D / H` channels share one step size.
    pub heads: usize,
    /// Presynaptic neurons that each head's step size reads: `J`, or `J / H` for its own group.
    pub delta_inputs: usize,
    /// Form of the decay.
    pub decay: Decay,
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
    /// Numbers of one stream's state, `N · D`.
    #[must_use]
    pub fn states(&self) -> usize {
        self.state * self.channels
    }
    /// Number of `A_log` parameters.
    #[must_use]
    pub fn decays(&self) -> usize {
        match self.decay {
            Decay::Head => self.heads,
            Decay::ChannelState => self.states(),
        }
    }
    /// Offset of head `h`'s inputs to its step size.
    #[must_use]
    pub fn delta_offset(&self, h: usize) -> usize {
        if self.delta_inputs == self.inputs { 0 } else { h * self.delta_inputs }
    }
}

/// Independent partial sums in a dot product: the reason why the result does not depend on how the compiler vectorises.
const PARTIAL: usize = 16;

/// Dot product with a fixed order of additions.
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); PARTIAL];
    let (a_blocks, b_blocks) = (a.chunks_exact(PARTIAL), b.chunks_exact(PARTIAL));
    let rest: T = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for i in 0..PARTIAL {
            lanes[i] = x[i].mul_add(y[i], lanes[i]);
        }
    }
    lanes.into_iter().sum::<T>() + rest
}

/// `y ← y + factor · x`.
pub(crate) fn axpy<T: Real>(factor: T, x: &[T], y: &mut [T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
}

/// `y ← y + x`.
pub(crate) fn add<T: Real>(x: &[T], y: &mut [T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
}

/// `ln(1 + e^x)` without overflow.
pub(crate) fn softplus<T: Real>(x: T) -> T {
    Float::max(x, T::zero()) + (-x.abs()).exp().ln_1p()
}
