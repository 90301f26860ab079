//! Row-wise and element-wise pieces of a block.

use super::{Real, dot};

/// Added to the mean square before its root.
pub const NORM_EPSILON: f64 = 1e-6;

/// `x̂ = x / rms(x)` of each row of `width`; `inverse` gets `1 / rms` per row.
pub fn normalize<T: Real>(width: usize, x: &[T], y: &mut [T], inverse: &mut [T]) {
    for ((x, y), inverse) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(inverse) {
        *inverse = (dot(x, x) / T::of(width as f64) + T::of(NORM_EPSILON)).sqrt().recip();
        for i in 0..width {
            y[i] = x[i] * *inverse;
        }
    }
}

/// Reverse of [`normalize`], added to `dx`: `∂L/∂x = (dy − x̂ (x̂·dy) / J) / rms`.
pub fn normalize_reverse<T: Real>(width: usize, y: &[T], inverse: &[T], dy: &[T], dx: &mut [T]) {
    let rows = y.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverse);
    for (((y, dy), dx), &inverse) in rows {
        let along = dot(y, dy) / T::of(width as f64);
        for i in 0..width {
            dx[i] += (dy[i] - y[i] * along) * inverse;
        }
    }
}

/// `y · silu(z)`, `silu(z) = z σ(z)`, added to `out`.
pub fn gate<T: Real>(y: &[T], z: &[T], out: &mut [T]) {
    for ((o, &y), &z) in out.iter_mut().zip(y).zip(z) {
        *o += y * z / (T::one() + (-z).exp_fast());
    }
}

/// Reverse of [`gate`].
pub fn gate_reverse<T: Real>(y: &[T], z: &[T], d_out: &[T], dy: &mut [T], dz: &mut [T]) {
    let n = d_out.len();
    let (y, z, dy, dz) = (&y[..n], &z[..n], &mut dy[..n], &mut dz[..n]);
    for i in 0..n {
        let sigma = (T::one() + (-z[i]).exp_fast()).recip();
        dy[i] = d_out[i] * z[i] * sigma;
        dz[i] = d_out[i] * y[i] * sigma * (T::one() + z[i] * (T::one() - sigma));
    }
}
