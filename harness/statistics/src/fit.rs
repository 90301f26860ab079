//! Least squares: straight lines, and exponentials that decay with distance.

/// A straight line `intercept + slope · x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Value at 0.
    pub intercept: f64,
    /// Change per unit of `x`.
    pub slope: f64,
    /// Share of the variance about the mean that the line explains; `None` where the values do not vary.
    pub r_squared: Option<f64>,
}

impl Line {
    /// Where this line and another meet; `None` if they are parallel.
    #[must_use]
    pub fn meets(&self, other: &Self) -> Option<f64> {
        let x = (self.intercept - other.intercept) / (other.slope - self.slope);
        x.is_finite().then_some(x)
    }
}

/// The line of least squares through `(x, y)`. `None` with fewer than two different `x`, or values that are not finite.
#[must_use]
pub fn line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|p| f(p.0 - mean_x, p.1 - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    let slope = xy / xx;
    let residual = sum(&|x, y| (y - slope * x).powi(2));
    let r_squared = (yy > 0.0).then(|| 1.0 - residual / yy);
    slope.is_finite().then_some(Line { intercept: mean_y - slope * mean_x, slope, r_squared })
}

/// `amplitude · e^{−x/τ}`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    /// Value at 0.
    pub amplitude: f64,
    /// Distance over which it falls to 1/e.
    pub tau: f64,
    /// `1 − Σ w (y − fit)² / Σ w (y − ȳ)²`: the share of the weighted variance about the mean that is explained. Below 0 where
    /// a constant fits better.
    pub r_squared: f64,
    /// Whether the best `τ` lies inside the range that was searched; at its ends the values do not decay (or do within less
    /// than a step), and `tau` is that end.
    pub inside: bool,
}

/// Shortest `τ` looked for, in units of the smallest distance: of the next step `e^{−10}` is left, so shorter ones look alike.
const SHORTEST: f64 = 0.1;
/// Longest `τ` looked for, in units of the largest distance: the values then fall by 5 % over the whole range.
const LONGEST: f64 = 20.0;
/// Values of `τ` on the grid that finds the neighbourhood of the best one: 6 % apart for distances from 1 to 16.
const GRID: usize = 128;
/// Golden-section steps, each to 0.618 of the interval: to 1e-10 of it.
const REFINEMENTS: usize = 48;

/// Fits of `A e^{−x/τ}` to values at the same distances again and again: what depends on the distances alone is computed once.
///
/// For a given `τ` the best `A` is a ratio of sums, so what is left is a search in one variable: over a grid of `τ`, even in
/// `ln τ`, then by golden section between the best one's neighbours.
#[derive(Clone, Debug)]
pub struct Decay {
    distances: Vec<f64>,
    /// `ln τ` of the grid.
    grid: Vec<f64>,
    /// `e^{−x/τ}`, a row for each `τ` of the grid.
    shapes: Vec<Vec<f64>>,
}

impl Decay {
    /// For values at these distances. `None` unless there are at least three and all are positive and finite.
    #[must_use]
    pub fn new(distances: &[f64]) -> Option<Self> {
        let low = distances.iter().copied().fold(f64::INFINITY, f64::min);
        let high = distances.iter().copied().fold(0.0, f64::max);
        if distances.len() < 3 || !(low > 0.0 && high.is_finite()) {
            return None;
        }
        let (from, to) = ((SHORTEST * low).ln(), (LONGEST * high).ln());
        let grid: Vec<f64> = (0..GRID).map(|i| from + (to - from) * i as f64 / (GRID - 1) as f64).collect();
        let shapes = grid.iter().map(|ln_tau| shape(distances, *ln_tau)).collect();
        Some(Self { distances: distances.to_vec(), grid, shapes })
    }

    /// Longest `τ` that is looked for.
    #[must_use]
    pub fn longest(&self) -> f64 {
        self.grid.last().map_or(f64::INFINITY, |ln_tau| ln_tau.exp())
    }

    /// The exponential of least squares, each value with its weight. `None` where values and weights do not match the
    /// distances, are not finite, or do not vary.
    #[must_use]
    pub fn fit(&self, values: &[f64], weights: &[f64]) -> Option<Exponential> {
        let n = self.distances.len();
        if values.len() != n || weights.len() != n {
            return None;
        }
        let all = weights.iter().sum::<f64>();
        let mean = values.iter().zip(weights).map(|(y, w)| w * y).sum::<f64>() / all;
        let variance = values.iter().zip(weights).map(|(y, w)| w * (y - mean).powi(2)).sum::<f64>();
        if !(variance.is_finite() && variance > 0.0) {
            return None;
        }
        let costs = self.shapes.iter().map(|shape| amplitude(shape, values, weights).1);
        let (best, _) = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let at = |i: usize| self.grid.get(i).copied();
        let (ln_tau, inside) = match (best.checked_sub(1).and_then(at), at(best + 1)) {
            (Some(low), Some(high)) => {
                let cost = |ln_tau: f64| amplitude(&shape(&self.distances, ln_tau), values, weights).1;
                (golden_section(low, high, cost), true)
            }
            _ => (at(best)?, false),
        };
        let (amplitude, cost) = amplitude(&shape(&self.distances, ln_tau), values, weights);
        Some(Exponential { amplitude, tau: ln_tau.exp(), r_squared: 1.0 - cost / variance, inside })
    }
}

fn shape(distances: &[f64], ln_tau: f64) -> Vec<f64> {
    let rate = (-ln_tau).exp();
    distances.iter().map(|x| (-x * rate).exp()).collect()
}

/// The best factor of a shape, and the weighted squares that it leaves.
fn amplitude(shape: &[f64], values: &[f64], weights: &[f64]) -> (f64, f64) {
    let product: f64 = shape.iter().zip(values).zip(weights).map(|((e, y), w)| w * y * e).sum();
    let square: f64 = shape.iter().zip(weights).map(|(e, w)| w * e * e).sum();
    let amplitude = if square > 0.0 { product / square } else { 0.0 };
    let left = shape.iter().zip(values).zip(weights).map(|((e, y), w)| w * (y - amplitude * e).powi(2)).sum();
    (amplitude, left)
}

/// Where a function with one minimum between `low` and `high` has it.
fn golden_section(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_a, mut at_b) = (f(a), f(b));
    for _ in 0..REFINEMENTS {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - ratio * (high - low);
            at_a = f(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + ratio * (high - low);
            at_b = f(b);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn distances() -> Vec<f64> {
        (1..=16).map(f64::from).collect()
    }

    #[test]
    fn exact_exponentials_come_back() {
        let decay = Decay::new(&distances()).unwrap();
        for (a, tau) in [(1.0, 5.0), (-2.5, 5.0), (1e-6, 0.7), (40.0, 90.0)] {
            let values: Vec<f64> = distances().iter().map(|x| a * (-x / tau).exp()).collect();
            let fit = decay.fit(&values, &[1.0; 16]).unwrap();
            // the cost is flat to rounding within about the root of 1e-16 of its minimum
            assert!((fit.tau / tau - 1.0).abs() < 1e-5 && (fit.amplitude / a - 1.0).abs() < 1e-5, "{fit:?}");
            assert!(fit.inside && fit.r_squared > 1.0 - 1e-9, "{fit:?}");
        }
    }

    #[test]
    fn noise_moves_tau_by_about_its_standard_error() {
        let decay = Decay::new(&distances()).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut noise = || (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        let mut errors = Vec::new();
        for _ in 0..200 {
            let values: Vec<f64> = distances().iter().map(|x| (-x / 5.0).exp() + 0.02 * noise()).collect();
            let fit = decay.fit(&values, &[1.0; 16]).unwrap();
            assert!(fit.inside && fit.r_squared > 0.97, "{fit:?}");
            errors.push(fit.tau - 5.0);
        }
        let rms = (errors.iter().map(|e| e * e).sum::<f64>() / 200.0).sqrt();
        let mean = errors.iter().sum::<f64>() / 200.0;
        // σ √[(JᵀJ)⁻¹]_ττ with σ = 0.02 at A = 1, τ = 5 is 0.146; 200 draws place it within 5 %, a fifth is allowed
        assert!((0.117..0.175).contains(&rms) && mean.abs() < 0.05, "{mean} {rms}");
    }

    /// The weighted best fit is a stationary point of the weighted squares, and a weight of 0 leaves a value out.
    #[test]
    fn weights_count() {
        let decay = Decay::new(&distances()).unwrap();
        let mut values: Vec<f64> = distances().iter().map(|x| 3.0 * (-x / 4.0).exp()).collect();
        values[9] = 100.0;
        let mut weights = vec![2.0; 16];
        weights[9] = 0.0;
        let fit = decay.fit(&values, &weights).unwrap();
        assert!((fit.tau - 4.0).abs() < 1e-4 && fit.r_squared > 1.0 - 1e-9, "{fit:?}");
    }

    #[test]
    fn what_does_not_decay_is_said() {
        let decay = Decay::new(&distances()).unwrap();
        let level: Vec<f64> = (0..16).map(|i| 1.0 + 0.01 * f64::from(i)).collect();
        let fit = decay.fit(&level, &[1.0; 16]).unwrap();
        assert!(!fit.inside && (fit.tau - decay.longest()).abs() < 1e-6, "{fit:?}");
        let mut first = vec![0.0; 16];
        first[0] = 1.0;
        assert!(!decay.fit(&first, &[1.0; 16]).unwrap().inside, "gone after one step: any short τ fits");
        assert_eq!(decay.fit(&[1.0; 16], &[1.0; 16]), None, "no variance, no share of it");
        assert_eq!(decay.fit(&[f64::NAN; 16], &[1.0; 16]), None);
        assert!(Decay::new(&[1.0, 2.0]).is_none() && Decay::new(&[0.0, 1.0, 2.0]).is_none());
    }

    #[test]
    fn lines_of_least_squares() {
        let exact = line(&[(0.0, 1.0), (1.0, 3.0), (4.0, 9.0)]).unwrap();
        let near = |x: f64, y: f64| (x - y).abs() < 1e-12; // rounding
        assert!(
            near(exact.intercept, 1.0) && near(exact.slope, 2.0) && near(exact.r_squared.unwrap(), 1.0),
            "{exact:?}"
        );
        // by hand: x̄ = 1, ȳ = 1, slope = 1/2, residuals 0.5², 1², 0.5² of 2
        let rough = line(&[(0.0, 1.0), (1.0, 0.0), (2.0, 2.0)]).unwrap();
        assert_eq!((rough.intercept, rough.slope, rough.r_squared), (0.5, 0.5, Some(0.25)));
        assert_eq!(line(&[(2.0, 1.0), (2.0, 3.0)]), None);
        let flat = line(&[(0.0, 5.0), (9.0, 5.0)]).unwrap();
        assert_eq!(flat.r_squared, None);
        assert!(near(exact.meets(&flat).unwrap(), 2.0));
        assert_eq!(flat.meets(&flat), None);
    }
}
