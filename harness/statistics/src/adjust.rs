//! P values adjusted for the number of comparisons, so that each may be held against the level itself.

/// How p values were adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Holm's, for few.
    Holm,
    /// Benjamini and Hochberg's, for many.
    BenjaminiHochberg,
}

impl Adjustment {
    /// Comparisons up to which Holm's is taken.
    const FEW: usize = 10;

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Holm => "Holm",
            Self::BenjaminiHochberg => "Benjamini and Hochberg",
        }
    }
}

/// Adjusts by what suits their number: Holm up to ten, then Benjamini and Hochberg. Every table and comparison does it so.
pub fn adjust(p: &[f64]) -> (Vec<f64>, Adjustment) {
    if p.len() <= Adjustment::FEW {
        (holm(p), Adjustment::Holm)
    } else {
        (benjamini_hochberg(p), Adjustment::BenjaminiHochberg)
    }
}

/// Holm's step-down adjustment (Holm 1979): the chance of one wrong rejection or more among all is bounded, whatever their
/// dependence. For few comparisons. In the order given; a p value that is not a number counts as 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut adjusted = vec![1.0; n];
    let mut highest = 0.0f64;
    for (rank, (i, p)) in ascending(p).into_iter().enumerate() {
        highest = highest.max((n - rank) as f64 * p).min(1.0);
        if let Some(place) = adjusted.get_mut(i) {
            *place = highest;
        }
    }
    adjusted
}

/// Benjamini and Hochberg's step-up adjustment (1995): the expected share of wrong ones among the rejections is bounded, for
/// comparisons that are independent or positively dependent. For grids. In the order given; not a number counts as 1.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut adjusted = vec![1.0; n];
    let mut lowest = 1.0f64;
    for (rank, (i, p)) in ascending(p).into_iter().enumerate().rev() {
        lowest = lowest.min(n as f64 / (rank + 1) as f64 * p);
        if let Some(place) = adjusted.get_mut(i) {
            *place = lowest;
        }
    }
    adjusted
}

/// The p values from the smallest on, each with its place.
fn ascending(p: &[f64]) -> Vec<(usize, f64)> {
    let mut sorted: Vec<(usize, f64)> =
        p.iter().map(|p| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) }).enumerate().collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    sorted
}
