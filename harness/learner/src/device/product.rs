//! Matrix products on a GPU: what [`crate::product`] is on the host, by cuBLAS.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{Device, Result, Tensor, bail};

use super::address;
use crate::product::View;

/// Matrices of a batch in a contiguous tensor of `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The tensor.
    pub tensor: &'a Tensor,
    /// Its element where the first matrix begins.
    pub at: usize,
    /// Each matrix.
    pub view: View,
    /// Elements from one matrix to the next.
    pub stride: usize,
}

impl Operand<'_> {
    /// How cuBLAS, which counts by columns, reads the matrix turned on its side: as it stands or turned, and the distance of its columns.
    fn turned(&self) -> Result<(sys::cublasOperation_t, i32)> {
        let View { row_stride, column_stride, rows, columns } = self.view;
        if column_stride == 1 {
            Ok((sys::cublasOperation_t::CUBLAS_OP_N, row_stride.max(columns) as i32))
        } else if row_stride == 1 {
            Ok((sys::cublasOperation_t::CUBLAS_OP_T, column_stride.max(rows) as i32))
        } else {
            bail!("a product's operand: expected rows or columns side by side, got {:?}", self.view)
        }
    }
}

/// `batch` products `to ← keep · to + a · b`, in full precision. `to` is nobody else's, and its rows are side by side.
///
/// # Errors
/// If the shapes do not chain, an operand is not a contiguous `f32` tensor on `device` that holds its matrices, or cuBLAS refuses.
pub fn product(
    device: &Device,
    batch: usize,
    to: Operand<'_>,
    a: Operand<'_>,
    b: Operand<'_>,
    keep: f32,
) -> Result<()> {
    let Device::Cuda(gpu) = device else { bail!("a product: expected a GPU, got {device:?}") };
    let (rows, columns, inner) = (to.view.rows, to.view.columns, a.view.columns);
    if a.view.rows != rows || b.view.columns != columns || b.view.rows != inner || to.view.column_stride != 1 {
        bail!("a product: {:?} = {:?} · {:?}", to.view, a.view, b.view);
    }
    for operand in [&to, &a, &b] {
        let end = operand.at + batch.saturating_sub(1) * operand.stride + operand.view.extent();
        if end > operand.tensor.elem_count() {
            bail!("a product's operand: expected {end} elements, got {}", operand.tensor.elem_count());
        }
    }
    let pointer = |o: &Operand<'_>| Ok::<_, candle_core::Error>(address(o.tensor, gpu)? + 4 * o.at as u64);
    // (a b)ᵀ = bᵀ aᵀ: the library counts by columns
    let ((of_b, b_columns), (of_a, a_columns)) = (b.turned()?, a.turned()?);
    let (one, float) = (1f32, sys::cudaDataType_t::CUDA_R_32F);
    let number = |x: &f32| std::ptr::from_ref(x).cast();
    let blas = gpu.cublas_handle();
    // SAFETY: the matrices lie within their tensors (checked above), which are alive until this returns; memory that is given back
    // later is given back in the order of the same stream.
    unsafe {
        result::gemm_strided_batched_ex(
            *blas.handle(),
            of_b,
            of_a,
            columns as i32,
            rows as i32,
            inner as i32,
            number(&one),
            pointer(&b)? as *const _,
            float,
            b_columns,
            b.stride as i64,
            pointer(&a)? as *const _,
            float,
            a_columns,
            a.stride as i64,
            number(&keep),
            pointer(&to)? as *mut _,
            float,
            to.view.row_stride as i32,
            to.stride as i64,
            batch as i32,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()
}
