//! Whether a published value was reproduced: an equivalence test by the interval (Schuirmann 1987; Walker and Nowacki 2011 on its
//! one-sided form, noninferiority).

use super::Better;
use super::estimate::Estimate;

/// What can be said of a published value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of the interval is better than the published value, or worse by no more than the margin.
    Reproduced,
    /// None of it is.
    NotReproduced,
    /// Part of it is, or there is no interval: too few seeds to say.
    Underpowered,
    /// Data, scale or protocol differ, or there is no number to compare with.
    NotComparable,
}

/// How much worse than a published value still counts as equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// A share of the published value's magnitude.
    Share(f64),
    /// A share of the published value's binary logarithm: of a perplexity's bits.
    ShareOfBits(f64),
    /// So much.
    Absolute(f64),
}

impl Margin {
    /// The worst value that counts as equal to a published one. Not a number if the margin is of the bits of nothing.
    pub fn worst_equal(self, published: f64, better: Better) -> f64 {
        let sign = match better {
            Better::Lower => 1.0,
            Better::Higher => -1.0,
        };
        match self {
            Self::Share(share) if published < 0.0 => published * (1.0 - sign * share),
            Self::Share(share) => published * (1.0 + sign * share),
            Self::ShareOfBits(share) => (published.log2() * (1.0 + sign * share)).exp2(),
            Self::Absolute(amount) => published + sign * amount,
        }
    }
}

/// The verdict on a published value from the estimate over seeds that is held against it; `None` where nothing comparable was
/// measured. More spread about the same mean never makes it [`Verdict::Reproduced`].
pub fn judge(estimate: Option<&Estimate>, published: f64, margin: Margin, better: Better) -> Verdict {
    let bound = margin.worst_equal(published, better);
    let Some(estimate) = estimate.filter(|e| e.mean.is_finite() && bound.is_finite()) else {
        return Verdict::NotComparable;
    };
    let Some((low, high)) = estimate.interval else { return Verdict::Underpowered };
    let (best, worst) = match better {
        Better::Lower => (low <= bound, high <= bound),
        Better::Higher => (high >= bound, low >= bound),
    };
    match (best, worst) {
        (_, true) => Verdict::Reproduced,
        (false, false) => Verdict::NotReproduced,
        (true, false) => Verdict::Underpowered,
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::super::estimate::estimate;
    use super::super::resample::stream;
    use super::*;

    fn of(values: &[f64], published: f64, margin: Margin, better: Better) -> Verdict {
        judge(estimate(values).as_ref(), published, margin, better)
    }

    #[test]
    fn both_directions_and_all_margins() {
        use Verdict::{NotComparable, NotReproduced, Reproduced, Underpowered};
        let tenth = Margin::Share(0.1);
        assert_eq!(of(&[10.8, 10.81, 10.8], 10.0, tenth, Better::Lower), Reproduced, "worse, within the margin");
        assert_eq!(of(&[5.0, 5.1, 5.0], 10.0, tenth, Better::Lower), Reproduced, "better");
        assert_eq!(of(&[11.2, 11.21, 11.2], 10.0, tenth, Better::Lower), NotReproduced);
        assert_eq!(of(&[10.9, 11.0, 11.1], 10.0, tenth, Better::Lower), Underpowered, "straddles");
        assert_eq!(of(&[10.0], 10.0, tenth, Better::Lower), Underpowered, "one seed");
        assert_eq!(of(&[9.2, 9.21, 9.2], 10.0, tenth, Better::Higher), Reproduced);
        assert_eq!(of(&[20.0, 20.1, 20.0], 10.0, tenth, Better::Higher), Reproduced);
        assert_eq!(of(&[8.8, 8.81, 8.8], 10.0, tenth, Better::Higher), NotReproduced);
        assert_eq!(of(&[-10.8, -10.81, -10.8], -10.0, tenth, Better::Higher), Reproduced, "worse by less than a tenth");
        assert_eq!(of(&[0.48, 0.481, 0.48], 0.5, Margin::Absolute(0.03), Better::Higher), Reproduced);
        assert_eq!(of(&[0.46, 0.461, 0.46], 0.5, Margin::Absolute(0.03), Better::Higher), NotReproduced);
        // 16 has 4 bits, a tenth more of them are 21.1
        assert_eq!(of(&[21.0, 21.01, 21.0], 16.0, Margin::ShareOfBits(0.1), Better::Lower), Reproduced);
        assert_eq!(of(&[21.2, 21.21, 21.2], 16.0, Margin::ShareOfBits(0.1), Better::Lower), NotReproduced);
        assert_eq!(of(&[1.0, 1.0], -1.0, Margin::ShareOfBits(0.1), Better::Lower), NotComparable);
        assert_eq!(judge(None, 1.0, tenth, Better::Lower), NotComparable);
        assert_eq!(of(&[1.0, 1.0], f64::NAN, tenth, Better::Lower), NotComparable);
    }

    /// The cases: an interval that is wide must not reproduce what a narrow one does not.
    #[test]
    fn more_spread_never_helps() {
        let mut rng = stream(20, 0);
        let mut counts = [0; 3];
        for _ in 0..20_000 {
            let published = rng.random_range(-3.0..30.0);
            let n = rng.random_range(2..9);
            let mean = published + rng.random_range(-4.0..4.0);
            let values: Vec<f64> = (0..n).map(|_| mean + rng.random_range(-0.6..0.6)).collect();
            let centre = values.iter().sum::<f64>() / f64::from(n);
            let factor = rng.random_range(1.0..5.0);
            let wider: Vec<f64> = values.iter().map(|v| centre + factor * (v - centre)).collect();
            let margin = match rng.random_range(0..3) {
                0 => Margin::Share(rng.random_range(0.0..0.2)),
                1 => Margin::ShareOfBits(rng.random_range(0.0..0.2)),
                _ => Margin::Absolute(rng.random_range(0.0..2.0)),
            };
            let better = if rng.random_bool(0.5) { Better::Lower } else { Better::Higher };
            let (narrow, wide) = (of(&values, published, margin, better), of(&wider, published, margin, better));
            match narrow {
                Verdict::Reproduced => counts[0] += 1,
                Verdict::NotReproduced => counts[1] += 1,
                Verdict::Underpowered => counts[2] += 1,
                Verdict::NotComparable => {}
            }
            assert!(wide != Verdict::Reproduced || narrow == Verdict::Reproduced, "{values:?} × {factor}: {published}");
            assert!(wide == narrow || wide == Verdict::Underpowered, "{values:?} × {factor}: {narrow:?} → {wide:?}");
        }
        assert!(counts.iter().all(|n| *n > 1000), "{counts:?}");
    }
}
