use candle_core::{D, Device, Result, Tensor};

/// Rotary positions (Su et al. 2021): channel `i < d/2` of a head turns against channel `i + d/2` by the angle
/// `position · 10000^{-2i/d}`.
#[derive(Debug)]
pub struct Rotary {
    half: usize,
    positions: usize,
    /// `[positions, d/2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// Angles of positions `0 .. positions` for heads of an even size `dim`.
    #[must_use]
    pub fn new(positions: usize, dim: usize) -> Self {
        let half = dim / 2;
        let angle = |i: usize| (i / half) as f64 * 10_000f64.powf(-((i % half) as f64) / half as f64);
        let table = |f: fn(f64) -> f64| (0..positions * half).map(|i| f(angle(i)) as f32).collect();
        Self { half, positions, cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Channels of a head.
    pub(super) fn dim(&self) -> usize {
        2 * self.half
    }

    /// Positions with a table entry.
    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    fn table(&self, position: usize) -> (&[f32], &[f32]) {
        let at = position * self.half;
        (&self.cos[at..][..self.half], &self.sin[at..][..self.half])
    }

    /// `out = factor · rotated x`.
    pub(super) fn rotate(&self, position: usize, x: &[f32], factor: f32, out: &mut [f32]) {
        let (cos, sin) = self.table(position);
        let ((x1, x2), (out1, out2)) = (x.split_at(self.half), out.split_at_mut(self.half));
        // of one length, which the compiler then need not check at every element
        let (x2, out2) = (&x2[..self.half], &mut out2[..self.half]);
        for i in 0..self.half {
            out1[i] = factor * (x1[i] * cos[i] - x2[i] * sin[i]);
            out2[i] = factor * (x1[i] * sin[i] + x2[i] * cos[i]);
        }
    }

    /// The transpose of [`Rotary::rotate`].
    pub(super) fn rotate_back(&self, position: usize, x: &[f32], factor: f32, out: &mut [f32]) {
        let (cos, sin) = self.table(position);
        let ((x1, x2), (out1, out2)) = (x.split_at(self.half), out.split_at_mut(self.half));
        // of one length, which the compiler then need not check at every element
        let (x2, out2) = (&x2[..self.half], &mut out2[..self.half]);
        for i in 0..self.half {
            out1[i] = factor * (x1[i] * cos[i] + x2[i] * sin[i]);
            out2[i] = factor * (x2[i] * cos[i] - x1[i] * sin[i]);
        }
    }

    /// Rotates `x` `[B, heads, steps, d]`, whose first step is at `position`, in tensor operations.
    pub(super) fn rotate_slow(&self, position: usize, x: &Tensor) -> Result<Tensor> {
        let (steps, half) = (x.dim(2)?, self.half);
        let part = |table: &[f32]| -> Result<Tensor> {
            let rows = &table[position * half..(position + steps) * half];
            Tensor::from_slice(rows, (steps, half), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
        };
        let (cos, sin) = (part(&self.cos)?, part(&self.sin)?);
        let (x1, x2) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let first = (x1.broadcast_mul(&cos)? - x2.broadcast_mul(&sin)?)?;
        let second = (x1.broadcast_mul(&sin)? + x2.broadcast_mul(&cos)?)?;
        Tensor::cat(&[first, second], D::Minus1)
    }
}
