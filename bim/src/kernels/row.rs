//! Row-wise and element-wise pieces of a block that would otherwise be many small tensor operations.

use super::{Real, dot};

/// Added to the mean square before its root.
pub const NORM_EPSILON: f64 = 1e-6;

fn inverse_rms<T: Real>(x: &[T]) -> T {
    (dot(x, x) / T::of(x.len() as f64) + T::of(NORM_EPSILON)).sqrt().recip()
}

/// `RMSNorm` of each row: `y = x / rms(x) · gain`.
pub fn rms_norm<T: Real>(x: &[T], gain: &[T], y: &mut [T]) {
    let j = gain.len();
    for (x, y) in x.chunks_exact(j).zip(y.chunks_exact_mut(j)) {
        let scale = inverse_rms(x);
        for i in 0..j {
            y[i] = x[i] * scale * gain[i];
        }
    }
}

/// Reverse of [`rms_norm`]: `dx` is overwritten, `d_gain` added to.
pub fn rms_norm_reverse<T: Real>(x: &[T], gain: &[T], dy: &[T], dx: &mut [T], d_gain: &mut [T]) {
    let j = gain.len();
    for ((x, dy), dx) in x.chunks_exact(j).zip(dy.chunks_exact(j)).zip(dx.chunks_exact_mut(j)) {
        let scale = inverse_rms(x);
        for i in 0..j {
            d_gain[i] += dy[i] * x[i] * scale;
            dx[i] = dy[i] * gain[i]; // ∂L/∂(x / rms)
        }
        let along = dot(x, dx) * scale * scale * scale / T::of(j as f64);
        for i in 0..j {
            dx[i] = dx[i] * scale - along * x[i];
        }
    }
}

/// `y · silu(z)`, `silu(z) = z σ(z)`.
pub fn gate<T: Real>(y: &[T], z: &[T], out: &mut [T]) {
    for ((o, &y), &z) in out.iter_mut().zip(y).zip(z) {
        *o = y * z / (T::one() + (-z).exp());
    }
}

/// Reverse of [`gate`].
pub fn gate_reverse<T: Real>(y: &[T], z: &[T], d_out: &[T], dy: &mut [T], dz: &mut [T]) {
    for i in 0..y.len() {
        let sigma = (T::one() + (-z[i]).exp()).recip();
        dy[i] = d_out[i] * z[i] * sigma;
        dz[i] = d_out[i] * y[i] * sigma * (T::one() + z[i] * (T::one() - sigma));
    }
}
