//! Functions of one number that compile to vector code.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
