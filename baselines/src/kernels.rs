//! Arithmetic over slices: the matrix product, functions that compile to vector code, and rows of RMS norm. Sums run in
//! a fixed order, so that a result does not depend on the number of threads.

#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use std::mem::MaybeUninit;
use std::ptr::from_mut;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::scratch::Scratch;

mod panels;

pub(crate) use panels::{Panels, multiply};

/// A strided matrix view: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl View {
    /// A row-major matrix.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self::strided(rows, columns, columns)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    pub fn strided(rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// Elements a slice must have to hold this view.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// What happens to the destination of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is overwritten.
    Nothing,
    /// The product is added to it.
    Sum,
}

/// `dst ← a · b` on the calling thread.
pub(crate) fn matmul(dst: (&mut [f32], View), a: (&[f32], View), b: (&[f32], View), keep: Keep) {
    let (values, view) = dst;
    // Only a bug in a caller of this crate can break this: shapes that users give are checked before.
    assert!(values.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: the view lies within its slice, which is borrowed mutably, so that it overlaps neither operand.
    unsafe { product((values.as_mut_ptr(), view), a, b, keep, Parallelism::None) }
}

/// `a · b` into a new row-major matrix, on all threads. Threads split the result, never a sum.
pub(crate) fn par_matmul(a: (&[f32], View), b: (&[f32], View)) -> Vec<f32> {
    let view = View::new(a.1.rows, b.1.columns);
    let len = view.rows * view.columns;
    let mut dst = Vec::with_capacity(len);
    if a.1.columns == 0 || view.rows == 1 || view.columns == 1 {
        dst.resize(len, 0.0); // an empty sum writes nothing, and the library takes a vector as a slice
    }
    // SAFETY: there is room for the view, nobody else has it, and of a matrix the product of one term or more writes every
    // element without reading one.
    unsafe {
        product((dst.as_mut_ptr(), view), a, b, Keep::Nothing, Parallelism::Rayon(0));
        dst.set_len(len);
    }
    dst
}

/// Adds `a · b` to a row-major matrix, on all threads. Threads split the result, never a sum.
pub(crate) fn par_matmul_add(dst: &mut [f32], a: (&[f32], View), b: (&[f32], View)) {
    let view = View::new(a.1.rows, b.1.columns);
    // Only a bug in a caller of this crate can break this.
    assert!(dst.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: as in `matmul`.
    unsafe { product((dst.as_mut_ptr(), view), a, b, Keep::Sum, Parallelism::Rayon(0)) }
}

/// `dst ← a · b`.
///
/// # Safety
/// The view must lie within memory that nobody else reads or writes meanwhile, and that holds values if they are kept.
unsafe fn product(
    (dst, dv): (*mut f32, View),
    (a, av): (&[f32], View),
    (b, bv): (&[f32], View),
    keep: Keep,
    parallelism: Parallelism,
) {
    // Only a bug in a caller of this crate can break these: shapes that users give are checked before.
    assert!(av.columns == bv.rows && dv.rows == av.rows && dv.columns == bv.columns, "{dv:?} = {av:?} · {bv:?}");
    assert!(a.len() >= av.extent() && b.len() >= bv.extent(), "view exceeds its slice");
    let s = |x: usize| x as isize;
    // SAFETY: the operands' views lie within their slices (asserted above), the destination's as the caller says.
    unsafe {
        gemm::gemm(
            dv.rows,
            dv.columns,
            av.columns,
            dst,
            s(dv.column_stride),
            s(dv.row_stride),
            keep == Keep::Sum,
            a.as_ptr(),
            s(av.column_stride),
            s(av.row_stride),
            b.as_ptr(),
            s(bv.column_stride),
            s(bv.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A new vector of `len` elements, in chunks of `chunk` on all threads: `fill` writes a chunk, which it is given as zeros,
/// with its index and what belongs to it.
pub(crate) fn par_filled<T: Send>(
    len: usize,
    chunk: usize,
    beside: impl IndexedParallelIterator<Item = T>,
    fill: impl Fn(usize, &mut [f32], T) + Sync + Send,
) -> Vec<f32> {
    // Only a bug in a caller of this crate can break this.
    assert_eq!(len.div_ceil(chunk), beside.len(), "chunks");
    let mut out = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(chunk).zip(beside).enumerate().for_each(|(i, (chunk, beside))| {
        chunk.fill(MaybeUninit::new(0.0));
        // SAFETY: every element of the chunk was just written, and `MaybeUninit<f32>` lies in memory as `f32` does.
        fill(i, unsafe { &mut *(from_mut(chunk) as *mut [f32]) }, beside);
    });
    // SAFETY: the chunks cover the first `len` elements, each has been written, and a panic in one does not get here.
    unsafe { out.set_len(len) };
    out
}

/// The transpose of rows of `columns`, so that a product that runs against the rows need not pack them again and again.
pub(crate) fn transposed(rows: &[f32], columns: usize) -> Scratch {
    /// Side of a tile: a line of the cache each way.
    const TILE: usize = 16;
    /// Elements from which on threads share the work.
    const MANY: usize = 1 << 16;
    let height = rows.len() / columns;
    let mut out = Scratch::of(rows.len());
    if rows.is_empty() {
        return out;
    }
    let band = |(index, out): (usize, &mut [f32])| {
        // by way of a tile of its own, so that every line is touched once: lines a power of two apart evict each other
        let mut tile = [[0.0; TILE]; TILE];
        let wide = out.len() / height;
        for r0 in (0..height).step_by(TILE) {
            let tall = TILE.min(height - r0);
            for (r, tile) in tile.iter_mut().take(tall).enumerate() {
                let from = (r0 + r) * columns + index * TILE;
                tile[..wide].copy_from_slice(&rows[from..from + wide]);
            }
            for (c, out) in out.chunks_exact_mut(height).enumerate() {
                for (to, row) in out[r0..r0 + tall].iter_mut().zip(&tile) {
                    *to = row[c];
                }
            }
        }
    };
    if rows.len() < MANY {
        out.chunks_mut(TILE * height).enumerate().for_each(band);
    } else {
        out.par_chunks_mut(TILE * height).enumerate().for_each(band);
    }
    out
}

/// `e^x` to 2 ulp for `-87 ≤ x ≤ 88`, clamped outside, NaN for NaN. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// `1.5 · 2^23`: adding it rounds to a whole number, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // not `clamp` or `max`, which would hide a NaN
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // minimax polynomial of (e^r − 1 − r) / r² on |r| ≤ ln 2 / 2 (Cephes, expf)
    let p = 1.987_569_1e-4 * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^{-x})`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh x`, to an absolute error of 2e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// `a b + c` in one rounding where the processor has it; two where it would be a call.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

/// `2^x` to a relative error of 3e-7 for `-125 ≤ x ≤ 127`, exact at 0, clamped below, NaN for NaN. For decays, of which a
/// scan needs one per state and step: 12 instructions.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    /// `1.5 · 2^23`, as in [`exp`].
    const ROUND: f32 = 12_582_912.0;
    // not `max`, which would hide a NaN
    let x = if x < -125.0 { -125.0 } else { x };
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    // (2^f − 1) / f interpolated at the Chebyshev nodes of |f| ≤ ½
    let p = fma(1.338_130_3e-3, f, 9.666_368e-3);
    let p = fma(p, f, 5.550_381e-2);
    let p = fma(p, f, 2.402_235e-1);
    let p = fma(p, f, std::f32::consts::LN_2);
    let p = fma(p, f, 1.0);
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `x σ(x)` (`SiLU`) and its derivative.
#[inline(always)]
pub(crate) fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, fma(x * s, 1.0 - s, s))
}

/// `ln(1 + e^x)`, to a relative error of 3e-7.
#[inline(always)]
pub(crate) fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    let e = exp(if x < 0.0 { x } else { -x });
    // ln(1 + e) = 2 artanh(e / (2 + e)) for 0 < e ≤ 1: the series of artanh at up to 1/3
    let s = e / (2.0 + e);
    let q = s * s;
    let p = fma(q, 1.0 / 13.0, 1.0 / 11.0);
    let p = fma(p, q, 1.0 / 9.0);
    let p = fma(p, q, 1.0 / 7.0);
    let p = fma(p, q, 1.0 / 5.0);
    let p = fma(p, q, 1.0 / 3.0);
    let p = fma(p, q, 1.0);
    fma(2.0 * s, p, positive)
}

/// `2 √(2/π)`: the tanh form of GELU is `x σ(GELU_SCALE · (x + GELU_CUBE x³))`.
const GELU_SCALE: f32 = 1.595_769_2;
const GELU_CUBE: f32 = 0.044_715;

/// GELU in its tanh form (Hendrycks & Gimpel 2016) and its derivative.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> (f32, f32) {
    let s = sigmoid(GELU_SCALE * (x + GELU_CUBE * x * x * x));
    (x * s, s + x * s * (1.0 - s) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x))
}

const LANES: usize = 16;

/// Sum in a fixed order of 16 partial sums.
pub(crate) fn sum(v: &[f32]) -> f32 {
    fold(v, 0.0, |a, x| a + x, |a, b| a + b)
}

/// Largest element; NaN elements are passed over.
pub(crate) fn max(v: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(v, f32::NEG_INFINITY, larger, larger)
}

#[inline(always)]
fn fold(v: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let mut blocks = v.chunks_exact(LANES);
    for block in &mut blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = step(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(blocks.remainder()) {
        *lane = step(*lane, x);
    }
    lanes.iter().fold(start, |a, &b| join(a, b))
}

/// `Σ a b`, in a fixed order of 16 partial sums.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (mut ab, mut bb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut ab).zip(&mut bb) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(ab.remainder()).zip(bb.remainder()) {
        *lane += a * b;
    }
    lanes.iter().sum()
}

/// Added to the mean square under the root of RMS norm.
pub(crate) const NORM_EPSILON: f32 = 1e-6;

/// `1 / √(mean x² + ε)` of one row.
fn inverse_rms(row: &[f32]) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + NORM_EPSILON).sqrt()
}

/// RMS norm without gain (Zhang & Sennrich 2019) of rows of `width`: the matrix behind it learns the scale.
pub(crate) fn rms_norm(x: &[f32], out: &mut [f32], width: usize) {
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let r = inverse_rms(x);
        for (o, &x) in out.iter_mut().zip(x) {
            *o = x * r;
        }
    }
}

/// Adds to `dx` what comes back through [`rms_norm`] from `dn`, the gradient of its output `n`:
/// `dx += r (dn − n · mean(n dn))`.
pub(crate) fn rms_norm_backward(x: &[f32], n: &[f32], dn: &[f32], dx: &mut [f32], width: usize) {
    let rows = x.chunks_exact(width).zip(n.chunks_exact(width)).zip(dn.chunks_exact(width));
    for (((x, n), dn), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        let r = inverse_rms(x);
        let mean = dot(n, dn) / width as f32;
        for ((dx, &n), &dn) in dx.iter_mut().zip(n).zip(dn) {
            *dx += r * (dn - n * mean);
        }
    }
}

/// `relu` of [`rms_norm`].
pub(crate) fn norm_relu(x: &[f32], out: &mut [f32], width: usize) {
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let r = inverse_rms(x);
        for (o, &x) in out.iter_mut().zip(x) {
            // not `max`, which would hide a NaN
            *o = if x <= 0.0 { 0.0 } else { x * r };
        }
    }
}

/// Writes to `dx` what comes back through [`norm_relu`] from `da`, the gradient of its output `a`; `da` is used up.
pub(crate) fn norm_relu_backward(x: &[f32], a: &[f32], da: &mut [f32], dx: &mut [f32], width: usize) {
    let rows = x.chunks_exact(width).zip(a.chunks_exact(width)).zip(da.chunks_exact_mut(width));
    for (((x, a), da), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        let r = inverse_rms(x);
        for (da, &a) in da.iter_mut().zip(a) {
            *da = if a > 0.0 { *da } else { 0.0 };
        }
        let mean = dot(a, da) / width as f32 * r; // where `a` is zero, so is `da`: this is the mean over norm · gradient
        for ((dx, &x), &da) in dx.iter_mut().zip(x).zip(da.iter()) {
            *dx = r * (da - x * mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_equals_the_triple_loop_for_plain_transposed_and_strided_views() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32).sin()).collect();
        let b: Vec<f32> = (0..k * (n + 2)).map(|i| (i as f32).cos()).collect();
        let start: Vec<f32> = (0..m * n).map(|i| i as f32).collect();
        let expected = |keep: f32, i: usize| -> f32 {
            let (r, c) = (i / n, i % n);
            keep * i as f32 + (0..k).map(|l| a[l * m + r] * b[l * (n + 2) + c]).sum::<f32>()
        };
        let (av, bv) = (View::new(k, m).t(), View::strided(k, n, n + 2));
        for (keep, share) in [(Keep::Nothing, 0.0), (Keep::Sum, 1.0)] {
            let mut dst = start.clone();
            matmul((&mut dst, View::new(m, n)), (&a, av), (&b, bv), keep);
            for (i, x) in dst.iter().enumerate() {
                assert!((x - expected(share, i)).abs() < 1e-5, "{i}: {x} {}", expected(share, i)); // three f32 terms up to 35
            }
        }
        for (i, x) in par_matmul((&a, av), (&b, bv)).iter().enumerate() {
            assert!((x - expected(0.0, i)).abs() < 1e-6);
        }
    }

    #[test]
    fn functions_agree_with_the_library_and_pass_nan_on() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2.5e-7, "{x}"); // 2 ulp of f32
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 2e-7);
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7);
        }
        for i in -2500..2540 {
            let x = i as f32 * 0.05;
            assert!((f64::from(exp2(x)) / f64::from(x).exp2() - 1.0).abs() < 3.5e-7, "{x}"); // 2e-7 is the polynomial's
            let want = f64::from(x).exp().ln_1p();
            assert!(x < -80.0 || (f64::from(softplus(x)) / want - 1.0).abs() < 5e-7, "{x}");
        }
        assert!(exp2(f32::NAN).is_nan() && softplus(f32::NAN).is_nan() && silu(f32::NAN).0.is_nan());
        assert_eq!((exp2(0.0), exp2(-1.0), exp2(-400.0) < 1e-37), (1.0, 0.5, true));
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!((exp(0.0), tanh(0.0), sigmoid(200.0), sigmoid(-200.0) < 1e-37), (1.0, 0.0, 1.0, true));
    }

    #[test]
    fn derivatives_are_those_of_central_differences() {
        for i in -40..40 {
            let (x, h) = (i as f32 * 0.2, 1e-2);
            let numeric = (gelu(x + h).0 - gelu(x - h).0) / (2.0 * h);
            let of_silu = (silu(x + h).0 - silu(x - h).0) / (2.0 * h);
            assert!((of_silu - silu(x).1).abs() < 1e-3, "{x}");
            assert!((numeric - gelu(x).1).abs() < 1e-3, "{x}"); // h² error of the difference and f32 rounding over h
        }
    }

    #[test]
    fn a_transpose_swaps_the_indices() {
        let (height, columns) = (19, 35);
        let rows: Vec<f32> = (0..height * columns).map(|i| i as f32).collect();
        let t = transposed(&rows, columns);
        for (i, x) in t.iter().enumerate() {
            assert_eq!(x.to_bits(), rows[i % height * columns + i / height].to_bits());
        }
    }

    #[test]
    fn reductions_cover_the_remainder() {
        let v: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!((sum(&v), max(&v), dot(&v, &v)), (666.0, 36.0, 16206.0));
        assert!(max(&[-3.0, -2.0]) < -1.9);
    }
}
