use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::conv::mask;
use super::{add, fused, slice, with_values};

/// Pooling over steps, halving their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Mean of two steps, `2t` and `2t + 1`.
    Mean,
    /// Largest of three steps, `2t − 1` to `2t + 1`; of equal ones the first.
    Max,
}

impl Pool {
    /// Steps that output `t` of a stream of `length` steps sees.
    fn window(self, t: usize, length: usize) -> std::ops::Range<usize> {
        let from = match self {
            Self::Mean => 2 * t,
            Self::Max => (2 * t).saturating_sub(1),
        };
        from..(2 * t + 2).min(length)
    }
}

/// Pools `x` `[B, K, D]` to `[B, ⌈K / 2⌉, D]`, each channel for itself. Of stream `b` the first `lengths[b]` steps are
/// there; the others are in no mean and no maximum, and outputs beyond `⌈lengths[b] / 2⌉` are zero.
///
/// # Errors
/// If shapes do not fit.
pub fn pool(x: &Tensor, lengths: &[usize], pool: Pool) -> Result<Tensor> {
    check(x, lengths)?;
    if !fused(x) {
        return pool_slow(x, lengths, pool);
    }
    x.contiguous()?.apply_op1(FusedPool { pool, lengths: lengths.to_vec(), dims: x.dims3()? })
}

/// [`pool`] in tensor operations.
///
/// # Errors
/// If shapes do not fit.
pub fn pool_slow(x: &Tensor, lengths: &[usize], pool: Pool) -> Result<Tensor> {
    /// Below any value that can win.
    const ABSENT: f64 = -1e30;
    check(x, lengths)?;
    let (b, k, d) = x.dims3()?;
    let produced = k.div_ceil(2);
    let there = mask(lengths, k, x)?;
    let beside =
        |value: f64, steps: usize| Tensor::full(value as f32, (b, steps, d), &Device::Cpu)?.to_device(x.device());
    // every second step of the padded input from `from`
    let steps = |padded: &Tensor, from: usize| -> Result<Tensor> {
        let rows: Vec<u32> = (0..produced).map(|t| (2 * t + from) as u32).collect();
        padded.index_select(&Tensor::from_vec(rows, produced, x.device())?, 1)
    };
    let y = match pool {
        Pool::Mean => {
            let zeros = beside(0.0, 1)?.to_dtype(x.dtype())?;
            let padded = Tensor::cat(&[&x.broadcast_mul(&there)?, &zeros], 1)?;
            let counts = Tensor::cat(&[&there.broadcast_as(x.dims())?.contiguous()?, &zeros], 1)?;
            let count = (steps(&counts, 0)? + steps(&counts, 1)?)?.clamp(1.0, 2.0)?;
            ((steps(&padded, 0)? + steps(&padded, 1)?)? / count)?
        }
        Pool::Max => {
            let absent = beside(ABSENT, 1)?.to_dtype(x.dtype())?;
            let kept = x.broadcast_mul(&there)?.broadcast_add(&there.affine(-ABSENT, ABSENT)?)?;
            let padded = Tensor::cat(&[&absent, &kept, &absent], 1)?;
            Tensor::stack(&[steps(&padded, 0)?, steps(&padded, 1)?, steps(&padded, 2)?], 0)?.max(0)?
        }
    };
    let lengths: Vec<usize> = lengths.iter().map(|n| n.div_ceil(2)).collect();
    y.broadcast_mul(&mask(&lengths, produced, x)?)
}

fn check(x: &Tensor, lengths: &[usize]) -> Result<()> {
    let (b, k, _) = x.dims3()?;
    if lengths.len() != b || lengths.iter().any(|&n| n > k) || x.elem_count() == 0 {
        bail!("pooled steps: expected {b} lengths of {k} or less for something, got {lengths:?} for {:?}", x.dims());
    }
    Ok(())
}

struct FusedPool {
    pool: Pool,
    lengths: Vec<usize>,
    /// `B`, `K`, `D`.
    dims: (usize, usize, usize),
}

impl FusedPool {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (streams, steps, width) = self.dims;
        let produced = steps.div_ceil(2);
        let mut y = vec![0.0; streams * produced * width];
        (y.par_chunks_mut(produced * width), x.par_chunks(steps * width), &self.lengths).into_par_iter().for_each(
            |(y, x, &length)| {
                for (t, y) in y.chunks_exact_mut(width).take(length.div_ceil(2)).enumerate() {
                    let window = self.pool.window(t, length);
                    let row = |step: usize| &x[step * width..(step + 1) * width];
                    y.copy_from_slice(row(window.start));
                    for step in window.start + 1..window.end {
                        match self.pool {
                            Pool::Mean => y.iter_mut().zip(row(step)).for_each(|(y, &x)| *y = 0.5 * (*y + x)),
                            // a NaN stays, so that divergence is seen
                            Pool::Max => {
                                y.iter_mut().zip(row(step)).for_each(|(y, &x)| *y = if *y >= x { *y } else { x });
                            }
                        }
                    }
                }
            },
        );
        y
    }

    fn backward(&self, x: &[f32], y: &[f32], dy: &[f32]) -> Vec<f32> {
        let (_, steps, width) = self.dims;
        let per_stream = steps.div_ceil(2) * width;
        let mut dx = vec![0.0; x.len()];
        let forward = (x.par_chunks(steps * width), y.par_chunks(per_stream), dy.par_chunks(per_stream));
        (dx.par_chunks_mut(steps * width), forward.into_par_iter(), &self.lengths).into_par_iter().for_each(
            |(dx, (x, y, dy), &length)| {
                for (t, dy) in dy.chunks_exact(width).take(length.div_ceil(2)).enumerate() {
                    let window = self.pool.window(t, length);
                    match self.pool {
                        Pool::Mean => {
                            let share = 1.0 / window.len() as f32;
                            let part: Vec<f32> = dy.iter().map(|d| d * share).collect();
                            window.for_each(|step| add(&mut dx[step * width..(step + 1) * width], &part));
                        }
                        Pool::Max => {
                            for (c, d) in dy.iter().enumerate() {
                                let top = y[t * width + c];
                                let mut steps = window.clone();
                                if let Some(step) = steps.find(|s| x[s * width + c].to_bits() == top.to_bits()) {
                                    dx[step * width + c] += d;
                                }
                            }
                        }
                    }
                }
            },
        );
        dx
    }
}

impl CustomOp1 for FusedPool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (streams, steps, width) = self.dims;
        Ok((CpuStorage::F32(self.forward(slice(s, l, "x")?)), Shape::from((streams, steps.div_ceil(2), width))))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values([x, y, dy], |[x, y, dy]| self.backward(x, y, dy))?;
        Ok(Some(Tensor::from_vec(dx, x.dims(), x.device())?))
    }
}
