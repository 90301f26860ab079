use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use learner::operations::Source;

use super::linear::check_last;
use super::{ROWS_PER_TASK, Tape, fused, gradient, matmul_slow, rms_norm_slow, slice, with_values};
use crate::count::{self, Watch, see};
use crate::kernels::{Keep, Panels, View, gelu, multiply, par_filled, par_matmul, rms_norm, rms_norm_backward};
use crate::scratch::Scratch;

/// Feed-forward block with its residual, `x + gelu(norm(x) · w1) · w2`: `x` `[…, D]`, `w1` `[D, F]`, `w2` `[F, D]`.
///
/// # Errors
/// If shapes do not fit.
pub fn mlp(x: &Tensor, w1: &Tensor, w2: &Tensor) -> Result<Tensor> {
    if !fused(x) {
        count::unknown(2 * x.elem_count() * w1.dim(1)?);
        return mlp_slow(x, w1, w2);
    }
    let (width, hidden) = w1.dims2()?;
    check_last("x", x, width)?;
    check_last("w1", w1, hidden)?;
    if w2.dims2()? != (hidden, width) {
        candle_core::bail!("w2: expected [{hidden}, {width}], got {:?}", w2.dims());
    }
    let record = x.track_op() || w1.track_op() || w2.track_op();
    x.contiguous()?.apply_op3(&w1.contiguous()?, &w2.contiguous()?, Mlp { width, hidden, record, tape: Tape::new() })
}

/// [`mlp`] in tensor operations.
///
/// # Errors
/// If shapes do not fit.
pub fn mlp_slow(x: &Tensor, w1: &Tensor, w2: &Tensor) -> Result<Tensor> {
    let h = matmul_slow(&rms_norm_slow(x)?, w1)?; // [B, K, F]
    // tanh form of GELU, written with the logistic function
    let inner =
        (&h + ((&h * &h)? * &h)?.affine(0.044_715, 0.0)?)?.affine(2.0 * (2.0 / std::f64::consts::PI).sqrt(), 0.0)?;
    let a = (&h / inner.neg()?.exp()?.affine(1.0, 1.0)?)?;
    x + matmul_slow(&a, w2)?
}

struct Mlp {
    width: usize,
    hidden: usize,
    record: bool,
    /// `norm(x) · w1`, `[rows, F]`.
    tape: Tape<Scratch>,
}

impl CustomOp3 for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
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
        let Self { width, hidden, record, .. } = *self;
        let (x, w1, w2) = (slice(s1, l1, "x")?, slice(s2, l2, "w1")?, slice(s3, l3, "w2")?);
        let panels = [Panels::of((w1, View::new(width, hidden))), Panels::of((w2, View::new(hidden, width)))];
        let chunk = ROWS_PER_TASK * hidden;
        let watches = [Watch::new(w1, hidden, Source::Values), Watch::new(w2, width, Source::Values)];
        let forward = |x: &[f32], h: &mut [f32], y: &mut [f32]| {
            let rows = x.len() / width;
            y.copy_from_slice(x);
            let mut n = Scratch::of(x.len());
            rms_norm(x, &mut n, width);
            see(watches.first(), &n);
            multiply((h, View::new(rows, hidden)), (&n, View::new(rows, width)), &panels[0], Keep::Nothing);
            let mut a = Scratch::of(h.len());
            a.iter_mut().zip(h.iter()).for_each(|(a, &h)| *a = gelu(h).0);
            see(watches.last(), &a);
            multiply((y, View::new(rows, width)), (&a, View::new(rows, hidden)), &panels[1], Keep::Sum);
        };
        let inputs = x.par_chunks(ROWS_PER_TASK * width);
        let y = if record {
            let mut h = Scratch::of(x.len() / width * hidden);
            let beside = inputs.zip(h.par_chunks_mut(chunk));
            let y = par_filled(x.len(), ROWS_PER_TASK * width, beside, |_, y, (x, h)| forward(x, h, y));
            self.tape.put(h);
            y
        } else {
            let fill = |_, y: &mut [f32], x: &[f32]| forward(x, &mut Scratch::of(x.len() / width * hidden), y);
            par_filled(x.len(), ROWS_PER_TASK * width, inputs, fill)
        };
        count::mlp(watches, x.len() / width, width, hidden);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w1: &Tensor,
        w2: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let h = self.tape.take()?;
        let [dx, d_w1, d_w2] = with_values([x, w1, w2, dy], |[x, w1, w2, dy]| self.backward((x, w1, w2), h, dy))?;
        Ok((gradient(dx, x)?, gradient(d_w1, w1)?, gradient(d_w2, w2)?))
    }
}

impl Mlp {
    /// Gradients of `x`, `w1`, `w2`. `h` becomes `gelu(h)` on the way.
    fn backward(&self, (x, w1, w2): (&[f32], &[f32], &[f32]), mut h: Scratch, dy: &[f32]) -> [Vec<f32>; 3] {
        let Self { width, hidden, .. } = *self;
        let (narrow, wide) = (ROWS_PER_TASK * width, ROWS_PER_TASK * hidden);
        let w1_t = Panels::of((w1, View::new(width, hidden).t()));
        let w2_t = Panels::of((w2, View::new(hidden, width).t()));
        let (mut dh, mut n) = (Scratch::of(h.len()), Scratch::of(x.len()));
        let inputs = (x.par_chunks(narrow), dy.par_chunks(narrow));
        let outputs = (h.par_chunks_mut(wide), dh.par_chunks_mut(wide), n.par_chunks_mut(narrow));
        let beside = (inputs.into_par_iter(), outputs.into_par_iter()).into_par_iter();
        let dx = par_filled(x.len(), narrow, beside, |_, dx, ((x, dy), (h, dh, n))| {
            dx.copy_from_slice(dy);
            let rows = x.len() / width;
            let (thin, thick) = (View::new(rows, width), View::new(rows, hidden));
            multiply((dh, thick), (dy, thin), &w2_t, Keep::Nothing);
            for (h, dh) in h.iter_mut().zip(dh.iter_mut()) {
                let (value, slope) = gelu(*h);
                *h = value;
                *dh *= slope;
            }
            let mut dn = Scratch::of(x.len());
            multiply((&mut dn, thin), (dh, thick), &w1_t, Keep::Nothing);
            rms_norm(x, n, width);
            rms_norm_backward(x, n, &dn, dx, width);
        });
        let rows = x.len() / width;
        let (thin, thick) = (View::new(rows, width), View::new(rows, hidden));
        let d_w1 = par_matmul((&n, thin.t()), (&dh, thick));
        let d_w2 = par_matmul((&h, thick.t()), (dy, thin));
        [dx, d_w1, d_w2]
    }
}
