//! Axes: where a value is drawn, round ticks and their labels.

/// A range of values along an axis, and where it is drawn.
pub(super) struct Axis {
    low: f64,
    high: f64,
    pub from: f64,
    pub to: f64,
    log: bool,
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis over `low` to `high`, drawn between `from` and `to`, with about `ticks` ticks.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64), log: bool, ticks: f64) -> Self {
        if log {
            return Self { low, high, from, to, log, ticks: log_ticks(low, high, ticks) };
        }
        let ticks = linear_ticks(low, high, ticks);
        let low = ticks.first().map_or(low, |&tick| tick.min(low));
        let high = ticks.last().map_or(high, |&tick| tick.max(high));
        Self { low, high, from, to, log, ticks }
    }

    /// An axis over `low` to `high` and no further, with the ticks that lie there.
    pub(super) fn tight((low, high): (f64, f64), (from, to): (f64, f64), ticks: f64) -> Self {
        let mut ticks = linear_ticks(low, high, ticks);
        ticks.retain(|tick| (low..=high).contains(tick));
        Self { low, high, from, to, log: false, ticks }
    }

    /// Where a value is drawn.
    pub(super) fn at(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.log { v.log10() } else { v };
        let span = scale(self.high) - scale(self.low);
        let share = if span > 0.0 { (scale(value) - scale(self.low)) / span } else { 0.5 };
        self.from + share * (self.to - self.from)
    }

    /// Whether a value lies on the axis.
    pub(super) fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten that enclose the range.
pub(super) fn linear_ticks(low: f64, high: f64, about: f64) -> Vec<f64> {
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
    let rough = (high - low) / about;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Powers of ten within the range; with 2 and 5 times them if those alone are few, every other one if they are many.
pub(super) fn log_ticks(low: f64, high: f64, about: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let ticks = |multiples: &'static [f64]| -> Vec<f64> {
        let all = (first..=last).flat_map(|e| multiples.iter().map(move |m| m * 10f64.powi(e)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let powers = ticks(&[1.0]);
    if powers.len() >= 3 {
        let every = (powers.len() as f64 / about).ceil().max(1.0) as usize;
        return powers.into_iter().step_by(every).collect();
    }
    let fine = ticks(&[1.0, 2.0, 5.0]);
    if fine.len() >= 2 {
        return fine;
    }
    linear_ticks(low, high, about).into_iter().filter(|tick| (low..=high).contains(tick)).collect()
}

/// A tick's number, with k, M or G for large ones and no more digits than the step needs.
pub(super) fn tick_label(value: f64, ticks: &[f64]) -> String {
    let step = ticks.windows(2).map(|w| (w[1] - w[0]).abs()).fold(f64::INFINITY, f64::min);
    let largest = ticks.iter().fold(0f64, |m, t| m.max(t.abs()));
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let reference = if step.is_finite() && step > 0.0 { step.max(value.abs()).min(largest) } else { largest };
    let (divisor, unit) = units.into_iter().find(|u| reference >= u.0 && value != 0.0).unwrap_or((1.0, ""));
    let fine = (if step.is_finite() { step } else { largest }) / divisor;
    let digits = if fine > 0.0 && fine < 1.0 { (-fine.log10()).ceil().min(6.0) as usize } else { 0 };
    let text = format!("{:.digits$}", value / divisor);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{unit}", if text == "-0" { "0" } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(linear_ticks(1.48, 4.1, 6.0), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]);
        assert_eq!(linear_ticks(0.0, 100.0, 6.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((linear_ticks(2.0, 2.0, 6.0)[0] - 1.4).abs() < 1e-12);
        assert_eq!(log_ticks(1e3, 1e6, 6.0), [1e3, 1e4, 1e5, 1e6]);
        assert_eq!(log_ticks(0.3, 2.0, 6.0), [0.5, 1.0, 2.0]);
        assert_eq!(log_ticks(1.0, 1e8, 5.0), [1.0, 1e2, 1e4, 1e6, 1e8]);
        assert_eq!(log_ticks(2.1, 4.4, 4.0), [3.0, 4.0], "where powers and their halves say too little");
    }

    #[test]
    fn tick_labels_are_short() {
        let ticks = [0.0, 50_000.0, 100_000.0];
        assert_eq!(ticks.map(|t| tick_label(t, &ticks)), ["0", "50k", "100k"]);
        let ticks = [0.5, 0.55, 0.6];
        assert_eq!(ticks.map(|t| tick_label(t, &ticks)), ["0.5", "0.55", "0.6"]);
        let ticks = [1e3, 1e6];
        assert_eq!(ticks.map(|t| tick_label(t, &ticks)), ["1k", "1M"]);
        let ticks = [0.0, 500_000.0, 1_000_000.0, 1_500_000.0];
        assert_eq!(ticks.map(|t| tick_label(t, &ticks)), ["0", "500k", "1M", "1.5M"]);
    }
}
