//! Special functions that distributions are made of, to about 1e-13.

use std::f64::consts::{PI, TAU};

/// Smallest number that the continued fractions divide by.
const TINY: f64 = 1e-300;
/// Terms after which a continued fraction or series is taken as it is; about the root of the parameters are needed.
const MOST_TERMS: usize = 100_000;

/// ln Γ(x) for `x > 0`: Lanczos' approximation (g = 7, nine terms; Numerical Recipes 6.1 explains it).
pub fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        // the approximation holds from a half on: reflect
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = (1u32..).zip(COEFFICIENTS).fold(0.999_999_999_999_809_9, |sum, (i, c)| sum + c / (x + f64::from(i)));
    let base = x + 7.5;
    0.5 * TAU.ln() + (x + 0.5) * base.ln() - base + sum.ln()
}

/// What Stirling's formula leaves of ln Γ(x), for `x ≥ 10` (Abramowitz and Stegun 6.1.41).
fn stirling_rest(x: f64) -> f64 {
    let square = 1.0 / (x * x);
    let series = -1.0 / 360.0
        + square * (1.0 / 1260.0 + square * (-1.0 / 1680.0 + square * (1.0 / 1188.0 - square * 691.0 / 360_360.0)));
    (1.0 / 12.0 + square * series) / x
}

/// ln B(a, b). Where one parameter is large the large terms of its gammas cancel by formula and not by subtraction.
fn ln_beta(a: f64, b: f64) -> f64 {
    let (small, large) = (a.min(b), a.max(b));
    if large < 10.0 {
        return ln_gamma(small) + ln_gamma(large) - ln_gamma(small + large);
    }
    let sum = small + large;
    let ratio = (0.5 - large) * (small / large).ln_1p() - small * sum.ln() + small;
    ln_gamma(small) + ratio + stirling_rest(large) - stirling_rest(sum)
}

/// The regularised incomplete beta function `I_x(a, b)`, with `y = 1 − x` given too: it may be too small to be told from `x`.
/// The continued fraction of Abramowitz and Stegun 26.5.8 by Lentz' method, on the side where it converges fast.
pub fn incomplete_beta(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 || y <= 0.0 {
        return f64::from(u8::from(x > 0.0));
    }
    let front = (a * x.ln() + b * y.ln() - ln_beta(a, b)).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, y) / b
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let safe = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / safe(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..MOST_TERMS {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / safe(1.0 + term * d);
            c = safe(1.0 + term / c);
            change = d * c;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

/// Density of the standard normal distribution.
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / TAU.sqrt()
}

/// P(Z ≤ x) of a standard normal variable: the series about 0 (Marsaglia 2004), in the tails the continued fraction
/// (Abramowitz and Stegun 26.2.14), so that small tails keep their digits.
pub fn normal_cdf(x: f64) -> f64 {
    const TAIL: f64 = 3.0;
    if x < -TAIL {
        return tail(-x);
    }
    if x > TAIL {
        return 1.0 - tail(x);
    }
    let (mut term, mut sum) = (x, x);
    for odd in (3..MOST_TERMS).step_by(2) {
        term *= x * x / odd as f64;
        sum += term;
        if term.abs() <= 1e-17 * sum.abs() {
            break;
        }
    }
    0.5 + normal_density(x) * sum
}

/// P(Z > x) for `x` of three and more: 100 terms of the fraction, from the last to the first.
fn tail(x: f64) -> f64 {
    let fraction = (1..=100u32).rev().fold(x, |rest, k| x + f64::from(k) / rest);
    normal_density(x) / fraction
}

/// The `x` with P(Z ≤ x) = `p`: by halving, since few are needed. Infinite at 0 and 1, NaN outside.
pub fn normal_quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p <= 0.0 || p >= 1.0 {
        return if p <= 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let (mut low, mut high) = (-40.0, 0.0);
    // 40 / 2⁶⁰ is below rounding
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        normal_cdf: Vec<Cdf>,
        normal_quantile: Vec<Quantile>,
    }

    #[derive(serde::Deserialize)]
    struct Cdf {
        x: f64,
        value: f64,
    }

    #[derive(serde::Deserialize)]
    struct Quantile {
        p: f64,
        value: f64,
    }

    #[test]
    fn the_normal_distribution_is_scipys() {
        let golden: Golden = serde_json::from_str(include_str!("../tests/golden/golden.json")).unwrap();
        assert!(golden.normal_cdf.len() >= 10 && golden.normal_quantile.len() >= 8);
        for c in golden.normal_cdf {
            assert!((normal_cdf(c.x) - c.value).abs() < 1e-12 * c.value, "{}: {}", c.x, normal_cdf(c.x));
        }
        for c in golden.normal_quantile {
            assert!((normal_quantile(c.p) - c.value).abs() < 1e-11, "{}: {}", c.p, normal_quantile(c.p));
        }
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(normal_quantile(1.5).is_nan());
    }

    #[test]
    fn gammas_of_whole_and_half_numbers_are_products() {
        let (mut whole, mut half) = (0.0, (PI.sqrt()).ln());
        for n in 1..150u32 {
            let n = f64::from(n);
            assert!((ln_gamma(n) - whole).abs() < 1e-12 * whole.abs().max(1.0), "{n}");
            assert!((ln_gamma(n - 0.5) - half).abs() < 1e-12 * half.abs().max(1.0), "{n} − ½");
            whole += n.ln();
            half += (n - 0.5).ln();
        }
        assert!((ln_gamma(0.25) - 1.288_022_524_698_077_4).abs() < 1e-12);
    }

    #[test]
    fn the_beta_function_is_one_of_gammas() {
        for (a, b) in [(0.5, 9.9), (0.5, 10.1), (3.0, 40.0), (12.0, 0.5), (25.0, 30.0)] {
            let gammas = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
            assert!((ln_beta(a, b) - gammas).abs() < 1e-12, "{a} {b}: {} {gammas}", ln_beta(a, b));
        }
    }
}
