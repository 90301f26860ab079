//! The fused operations. Each has a hand-written backward pass for `f32` in host memory and a `_slow` twin in tensor
//! operations, which is its oracle in the tests and what runs on other devices and element types; layers with a recurrence have
//! kernels for a GPU too (`device/`).
//!
//! Work is split over rows, heads or streams into pieces whose size does not depend on the number of threads.

mod attend;
mod attention;
mod conv;
mod device;
mod gradients;
mod lif;
mod linear;
mod lstm;
mod mamba;
mod mlp;
mod pool;
mod precision;
mod rnn;
mod rotary;

pub use attention::{AttentionShape, Sight, attention, attention_slow};
pub use conv::{Before, Conv, Edge, conv, conv_slow};
pub use lif::{LifState, Neuron, Threshold, lif, lif_slow};
pub use linear::{Prepare, linear, linear_slow};
pub use lstm::{lstm, lstm_slow};
pub use mamba::{MambaShape, MambaState, MambaWeights, mamba, mamba_slow, scan_slow};
pub use mlp::{mlp, mlp_slow};
pub use pool::{Pool, pool, pool_slow};
pub use precision::Precision;
pub use rnn::{Cell, rnn, rnn_slow};
pub use rotary::Rotary;

pub(crate) use gradients::beside;
use gradients::gradient;
use precision::product;
pub(crate) use precision::with_products_in;

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, D, DType, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::NORM_EPSILON;

/// Rows that one task works on: whole tiles of a product, few enough to stay in the cache.
const ROWS_PER_TASK: usize = 96;

/// Whether the fused form runs on this tensor.
fn fused(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32
}

/// Elements of a contiguous `f32` operand.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout, operand: &str) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("{operand}: expected a contiguous f32 tensor"),
    }
}

/// Calls `f` with the elements of `f32` tensors in host memory.
fn with_values<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let tensors: Vec<Tensor> = tensors.into_iter().map(Tensor::contiguous).collect::<Result<_>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut values = [&[][..]; N];
    for (values, (storage, layout)) in values.iter_mut().zip(&storages) {
        let Storage::Cpu(storage) = &**storage else { bail!("expected a tensor in host memory") };
        *values = slice(storage, layout, "operand")?;
    }
    Ok(f(values))
}

/// A copy of the elements.
fn values_of(t: &Tensor) -> Result<Vec<f32>> {
    with_values([t], |[values]| values.to_vec())
}

/// `1 / (1 + e^{-z})` in tensor operations.
fn sigmoid_slow(z: &Tensor) -> Result<Tensor> {
    z.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

/// What the forward pass keeps for the backward pass, once.
struct Tape<T>(Mutex<Option<T>>);

impl<T> Tape<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }

    fn take(&self) -> Result<T> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("the backward pass runs once, after a recorded forward pass"),
        }
    }
}

/// Sums of the columns of rows of `width`, in the order of the rows.
fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
    let partial: Vec<Vec<f32>> = rows
        .par_chunks(ROWS_PER_TASK * width)
        .map(|chunk| {
            let mut sum = vec![0.0; width];
            for row in chunk.chunks_exact(width) {
                add(&mut sum, row);
            }
            sum
        })
        .collect();
    sum_in_order(partial, width)
}

fn sum_in_order(partial: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut partial = partial.into_iter();
    let mut sum = partial.next().unwrap_or_else(|| vec![0.0; width]);
    for p in partial {
        add(&mut sum, &p);
    }
    sum
}

fn add(sum: &mut [f32], terms: &[f32]) {
    for (s, t) in sum.iter_mut().zip(terms) {
        *s += t;
    }
}

/// RMS norm over the last dimension in tensor operations.
pub(crate) fn rms_norm_slow(x: &Tensor) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&mean_square.affine(1.0, f64::from(NORM_EPSILON))?.sqrt()?)
}

/// `x · w` for `x` of any rank, in tensor operations.
fn matmul_slow(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let rows = x.elem_count() / w.dim(0)?;
    let y = product(&x.reshape((rows, w.dim(0)?))?, w)?;
    if let Some(last) = dims.last_mut() {
        *last = w.dim(1)?;
    }
    y.reshape(dims)
}
