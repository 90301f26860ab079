//! `e^x` for loops over slices.

/// `e^x` by Cephes' polynomial after taking out the power of two: 2 units in the last place between -87.3 and 88.3, clamped
/// outside, NaN for NaN. Without a branch or a call, so that loops over it turn into vector code.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a call would keep loops from becoming vector code")]
#[allow(clippy::excessive_precision, reason = "the constants as published")]
#[must_use]
pub fn exp_fast(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.3);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (-n).mul_add(-2.121_944_4e-4, (-n).mul_add(0.693_359_375, x));
    let mut p = 1.987_569_15e-4_f32;
    for c in [1.398_199_950_7e-3, 8.333_451_907_3e-3, 4.166_579_589_4e-2, 1.666_666_545_9e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let e = (p * r).mul_add(r, r) + 1.0;
    e * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::exp_fast;

    #[test]
    fn two_units_in_the_last_place() {
        for i in -873..=883 {
            let x = i as f32 / 10.0; // -87.3 to 88.3
            let (got, want) = (f64::from(exp_fast(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}: {got} for {want}");
        }
        assert!(exp_fast(f32::NAN).is_nan());
        assert!(exp_fast(-1e9) > 0.0 && exp_fast(1e9).is_finite());
    }
}
