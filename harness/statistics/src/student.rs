//! Student's t distribution, central and not.

use std::f64::consts::{FRAC_PI_2, PI};

use super::special::{incomplete_beta, ln_gamma, normal_cdf};

/// The `t` that Student's variable of so many degrees of freedom stays within (to either side) in the share `level` of cases.
/// `freedom` is at least 1 and `level` between 0 and 1.
pub fn quantile(level: f64, freedom: usize) -> f64 {
    // in the angle θ = atan(t / √ν), where the share rises from 0 at 0 to 1 at π/2
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // each step halves the interval: 60 of them leave less than rounding
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if share_within(middle, freedom) < level { low = middle } else { high = middle }
    }
    low.tan() * (freedom as f64).sqrt()
}

/// As [`quantile`], for degrees of freedom that need not be whole (1 and more).
pub fn quantile_of(level: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    let at = |theta: f64| theta.tan() * freedom.sqrt();
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if p_value(at(middle), freedom) > 1.0 - level { low = middle } else { high = middle }
    }
    at(low)
}

/// P(|T| ≤ √ν tan θ) for ν degrees of freedom: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn share_within(theta: f64, freedom: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    // powers of the cosine up to ν − 2, each with its factor from the one before
    let first = if odd { 3 } else { 2 };
    for power in (first..freedom.saturating_sub(1)).step_by(2) {
        term *= (power - 1) as f64 / power as f64 * cos * cos;
        sum += term;
    }
    if odd { 2.0 / PI * (theta + sin * sum) } else { sin * sum }
}

/// P(|T| ≥ |t|) for `freedom` degrees, whole or not: the p value of both sides. 0 where `t` is infinite.
pub fn p_value(t: f64, freedom: f64) -> f64 {
    let square = t * t;
    if square.is_infinite() {
        return 0.0;
    }
    let all = freedom + square;
    incomplete_beta(freedom / 2.0, 0.5, freedom / all, square / all)
}

/// P(T ≤ t) for `T = (Z + shift) / √(χ²/ν)`, the noncentral t variable of ν degrees of freedom: `Φ(t s − shift)` averaged over
/// the density of `s = √(χ²/ν)` (Johnson, Kotz and Balakrishnan 1995, chapter 31), by Simpson's rule.
pub fn noncentral_cdf(t: f64, freedom: f64, shift: f64) -> f64 {
    const PANELS: usize = 8192;
    // s is about 1 with deviation 1/√2ν; beyond these ends less than 1e-15 of it is left
    let spread = 12.0 / (2.0 * freedom).sqrt();
    let (low, high) = ((1.0 - spread).max(0.0), 1.0 + spread);
    let half = freedom / 2.0;
    let scale = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let density = |s: f64| match s {
        0.0 if freedom > 1.0 => 0.0,
        0.0 => scale.exp(),
        s => (scale + (freedom - 1.0) * s.ln() - half * s * s).exp(),
    };
    let step = (high - low) / PANELS as f64;
    let sum: f64 = (0..=PANELS)
        .map(|i| {
            let s = low + step * i as f64;
            let weight = if i == 0 || i == PANELS { 1.0 } else { f64::from(2 + 2 * (i as u32 % 2)) };
            weight * density(s) * normal_cdf(t * s - shift)
        })
        .sum();
    (sum * step / 3.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `[stats.t.ppf(0.975, df) for df in (1, 2, 3, 4, 5, 8, 9, 10, 19, 30, 99, 1000)]`
    #[test]
    fn quantiles_are_scipys() {
        for (freedom, expected) in [
            (1, 12.706_204_736_174_694),
            (2, 4.302_652_729_749_462),
            (3, 3.182_446_305_283_707_8),
            (4, 2.776_445_105_197_793_4),
            (5, 2.570_581_835_636_314_6),
            (8, 2.306_004_135_204_166),
            (9, 2.262_157_162_798_205),
            (10, 2.228_138_851_986_274),
            (19, 2.093_024_054_408_308_7),
            (30, 2.042_272_456_301_237_8),
            (99, 1.984_216_951_586_417_4),
            (1000, 1.962_339_080_826_408_3),
        ] {
            assert!(
                (quantile(0.95, freedom) - expected).abs() < 1e-9 * expected,
                "{freedom}: {}",
                quantile(0.95, freedom)
            );
        }
    }
}
