//! How many seeds tell a difference of a stated size from none.

use super::student::{noncentral_cdf, quantile};

/// Most seeds that are considered.
const MOST: usize = 100_000;

/// Chance that the paired t test of both sides at `level` (0.05) with `n ≥ 2` seeds finds a true mean difference of `effect`
/// standard deviations of the differences. By the noncentral t distribution (Cohen 1988; `TTestPower` of statsmodels).
pub fn paired_power(effect: f64, n: usize, level: f64) -> f64 {
    let (freedom, shift) = ((n - 1) as f64, effect.abs() * (n as f64).sqrt());
    let critical = quantile(1.0 - level, n - 1);
    1.0 - noncentral_cdf(critical, freedom, shift) + noncentral_cdf(-critical, freedom, shift)
}

/// The fewest seeds with which a true mean difference of `difference`, where differences by seed have the standard deviation
/// `deviation`, is found with the chance `power` (0.8) by the paired t test of both sides at `level` (0.05).
///
/// `None` if either is not finite, there is no difference, or more than 100,000 would be needed. Two at least, also where differences do not
/// vary.
pub fn seeds_needed(difference: f64, deviation: f64, power: f64, level: f64) -> Option<usize> {
    if !difference.is_finite() || !deviation.is_finite() || difference == 0.0 || deviation < 0.0 {
        return None;
    }
    let effect = (difference / deviation).abs();
    let enough = |n: usize| !effect.is_finite() || paired_power(effect, n, level) >= power;
    let mut high = 2;
    while !enough(high) {
        if high >= MOST {
            return None;
        }
        high = (2 * high).min(MOST);
    }
    // the power rises with the seeds
    let mut low = high / 2;
    while high - low > 1 && high > 2 {
        let middle = usize::midpoint(low, high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told() {
        assert_eq!(seeds_needed(0.0, 1.0, 0.8, 0.05), None);
        assert_eq!(seeds_needed(f64::NAN, 1.0, 0.8, 0.05), None);
        assert_eq!(seeds_needed(1.0, 0.0, 0.8, 0.05), Some(2));
        assert_eq!(seeds_needed(1e9, 1.0, 0.8, 0.05), Some(2));
        assert_eq!(seeds_needed(1.0, 1e4, 0.8, 0.05), None);
        assert_eq!(seeds_needed(-3.0, 6.0, 0.8, 0.05), seeds_needed(0.5, 1.0, 0.8, 0.05));
    }

    #[test]
    fn one_seed_fewer_is_not_enough() {
        for effect in [0.02, 0.3, 0.9, 1.7, 3.3, 6.0] {
            let n = seeds_needed(effect, 1.0, 0.8, 0.05).unwrap();
            assert!(paired_power(effect, n, 0.05) >= 0.8, "{effect}: {n}");
            assert!(n == 2 || paired_power(effect, n - 1, 0.05) < 0.8, "{effect}: {n}");
        }
    }
}
