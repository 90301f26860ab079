#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use candle_core::{D, Device, Result, Tensor};

use crate::kernels::load;

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
        turn((cos, sin), x, out, |c, s, x1, x2| (factor * (x1 * c - x2 * s), factor * (x1 * s + x2 * c)));
    }

    /// The transpose of [`Rotary::rotate`].
    pub(super) fn rotate_back(&self, position: usize, x: &[f32], factor: f32, out: &mut [f32]) {
        let (cos, sin) = self.table(position);
        turn((cos, sin), x, out, |c, s, x1, x2| (factor * (x1 * c + x2 * s), factor * (x2 * c - x1 * s)));
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

/// Writes to the halves of `out` what `f` makes of cosine, sine and the halves of `x`.
#[inline(always)]
fn turn((cos, sin): (&[f32], &[f32]), x: &[f32], out: &mut [f32], f: impl Fn(f32, f32, f32, f32) -> (f32, f32)) {
    /// Angles at once. Copies of a fixed length come first, so that the compiler need not ask at every call of a few
    /// elements whether `out` is one of the others.
    const LANES: usize = 8;
    let half = cos.len();
    let ((x1, x2), (out1, out2)) = (x.split_at(half), out.split_at_mut(half));
    let whole = half / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let [c, s, a, b]: [[f32; LANES]; 4] = [load(cos, at), load(sin, at), load(x1, at), load(x2, at)];
        let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
        for k in 0..LANES {
            (first[k], second[k]) = f(c[k], s[k], a[k], b[k]);
        }
        out1[at..at + LANES].copy_from_slice(&first);
        out2[at..at + LANES].copy_from_slice(&second);
    }
    for i in whole..half {
        (out1[i], out2[i]) = f(cos[i], sin[i], x1[i], x2[i]);
    }
}
