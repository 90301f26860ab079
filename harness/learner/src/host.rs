//! Access to the elements of a contiguous `f32` tensor in host memory, without copies.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor};
use std::cell::RefCell;

use crate::{Error, Result};

fn contiguous_range(t: &Tensor) -> Result<(usize, usize)> {
    t.layout().contiguous_offsets().ok_or_else(|| Error::shape("tensor layout", "contiguous", t.layout().stride()))
}

/// Calls `f` with the elements of a contiguous `f32` tensor on the CPU, in row-major order.
///
/// # Errors
/// If the tensor is not contiguous, not `f32`, or not on the CPU.
pub fn with_f32<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (start, end) = contiguous_range(t)?;
    let (storage, _) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(f(&values[start..end])),
        _ => Err(Error::shape("tensor", "f32 on the CPU", format!("{:?} on {:?}", t.dtype(), t.device()))),
    }
}

/// Calls `f` with the mutable elements of a contiguous `f32` tensor on the CPU.
///
/// # Errors
/// If the tensor is not contiguous, not `f32`, or not on the CPU.
pub fn with_f32_mut<R>(t: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    struct Apply<F, R>(RefCell<Option<F>>, RefCell<Option<R>>);
    impl<F: FnOnce(&mut [f32]) -> R, R> InplaceOp1 for Apply<F, R> {
        fn name(&self) -> &'static str {
            "with-f32-mut"
        }
        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let (Some((start, end)), Some(f)) = (layout.contiguous_offsets(), self.0.borrow_mut().take()) else {
                candle_core::bail!("with-f32-mut needs a contiguous tensor")
            };
            let CpuStorage::F32(values) = storage else { candle_core::bail!("with-f32-mut needs f32") };
            *self.1.borrow_mut() = Some(f(&mut values[start..end]));
            Ok(())
        }
    }
    let op = Apply(RefCell::new(Some(f)), RefCell::new(None));
    t.inplace_op1(&op)?;
    op.1.into_inner().ok_or_else(|| Error::shape("tensor", "f32 on the CPU", t.dtype()))
}

/// The elements of a tensor of any device and float type as `f32`.
///
/// # Errors
/// If the tensor cannot be read.
pub fn read_f32(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}
