//! Reductions over slices, and rows of RMS norm.

/// Sums that a reduction keeps beside each other.
const PARTIAL_SUMS: usize = 16;

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
    let mut lanes = [start; PARTIAL_SUMS];
    let mut blocks = v.chunks_exact(PARTIAL_SUMS);
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
    let mut lanes = [0.0; PARTIAL_SUMS];
    let (mut ab, mut bb) = (a.chunks_exact(PARTIAL_SUMS), b.chunks_exact(PARTIAL_SUMS));
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
    fn reductions_cover_the_remainder() {
        let v: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!((sum(&v), max(&v), dot(&v, &v)), (666.0, 36.0, 16206.0));
        assert!(max(&[-3.0, -2.0]) < -1.9);
    }
}
