use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{ROWS_PER_TASK, add, column_sums, fused, gradient, matmul_slow, rms_norm_slow, slice, with_values};
use crate::kernels::{Keep, Panels, View, multiply, par_filled, par_matmul, rms_norm, rms_norm_backward};
use crate::scratch::Scratch;

/// What happens to the rows of a linear map's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Nothing.
    Nothing,
    /// RMS norm without gain.
    Norm,
}

/// `prepare(x) · w + b`: `x` `[…, I]`, `w` `[I, O]`, `b` `[O]` → `[…, O]`.
///
/// # Errors
/// If shapes do not fit.
pub fn linear(x: &Tensor, w: &Tensor, b: &Tensor, prepare: Prepare) -> Result<Tensor> {
    if !fused(x) {
        return linear_slow(x, w, b, prepare);
    }
    let (inputs, outputs) = w.dims2()?;
    check_last("x", x, inputs)?;
    check_last("b", b, outputs)?;
    x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, Linear { inputs, outputs, prepare })
}

/// [`linear`] in tensor operations.
///
/// # Errors
/// If shapes do not fit.
pub fn linear_slow(x: &Tensor, w: &Tensor, b: &Tensor, prepare: Prepare) -> Result<Tensor> {
    let x = match prepare {
        Prepare::Nothing => x.clone(),
        Prepare::Norm => rms_norm_slow(x)?,
    };
    matmul_slow(&x, w)?.broadcast_add(b)
}

/// An error unless the last dimension of `t` is `width` and there is something in it.
pub(super) fn check_last(operand: &str, t: &Tensor, width: usize) -> Result<()> {
    match t.dims().last() {
        Some(&got) if got == width && t.elem_count() > 0 => Ok(()),
        _ => candle_core::bail!("{operand}: expected […, {width}], got {:?}", t.dims()),
    }
}

struct Linear {
    inputs: usize,
    outputs: usize,
    prepare: Prepare,
}

impl Linear {
    fn prepared(&self, x: &[f32], n: &mut [f32]) {
        match self.prepare {
            Prepare::Nothing => n.copy_from_slice(x),
            Prepare::Norm => rms_norm(x, n, self.inputs),
        }
    }

    /// Gradients of `x` and `w`.
    fn backward(&self, x: &[f32], w: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Self { inputs, outputs, prepare } = *self;
        let w_t = Panels::of((w, View::new(inputs, outputs).t()));
        let mut n = Scratch::of(x.len());
        let beside = (
            x.par_chunks(ROWS_PER_TASK * inputs),
            dy.par_chunks(ROWS_PER_TASK * outputs),
            n.par_chunks_mut(ROWS_PER_TASK * inputs),
        )
            .into_par_iter();
        let dx = par_filled(x.len(), ROWS_PER_TASK * inputs, beside, |_, dx, (x, dy, n)| {
            let rows = x.len() / inputs;
            let back = (dy, View::new(rows, outputs));
            self.prepared(x, n);
            match prepare {
                Prepare::Nothing => multiply((dx, View::new(rows, inputs)), back, &w_t, Keep::Nothing),
                Prepare::Norm => {
                    let mut dn = Scratch::of(x.len());
                    multiply((&mut dn, View::new(rows, inputs)), back, &w_t, Keep::Nothing);
                    rms_norm_backward(x, n, &dn, dx, inputs);
                }
            }
        });
        let rows = x.len() / inputs;
        let dw = par_matmul((&n, View::new(rows, inputs).t()), (dy, View::new(rows, outputs)));
        (dx, dw)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Self { inputs, outputs, .. } = *self;
        let (x, w, b) = (slice(s1, l1, "x")?, slice(s2, l2, "w")?, slice(s3, l3, "b")?);
        let panels = Panels::of((w, View::new(inputs, outputs)));
        let len = x.len() / inputs * outputs;
        let y = par_filled(len, ROWS_PER_TASK * outputs, x.par_chunks(ROWS_PER_TASK * inputs), |_, y, x| {
            let rows = x.len() / inputs;
            let mut n = Scratch::of(x.len());
            self.prepared(x, &mut n);
            multiply((y, View::new(rows, outputs)), (&n, View::new(rows, inputs)), &panels, Keep::Nothing);
            y.chunks_exact_mut(outputs).for_each(|y| add(y, b));
        });
        let mut dims = l1.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = outputs;
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, db) = with_values([x, w, dy], |[x, w, dy]| {
            let (dx, dw) = self.backward(x, w, dy);
            (dx, dw, column_sums(dy, self.outputs))
        })?;
        Ok((gradient(dx, x)?, gradient(dw, w)?, gradient(db, b)?))
    }
}
