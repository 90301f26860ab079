//! How numbers and names are written.

use metrics::catalogue::{self, Digits, Unlearned};
use statistics::Better;
use statistics::estimate::Estimate;

/// A metric for readers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MetricInfo {
    pub label: String,
    pub better: Option<Better>,
    pub unlearned: Option<Unlearned>,
    pub range: (f64, f64),
    digits: Digits,
}

/// What is known about a metric by its name.
pub(super) fn metric(name: &str) -> MetricInfo {
    match catalogue::find(name) {
        Some((info, class)) => {
            let label = info.label.replacen('*', class.unwrap_or_default(), 1);
            MetricInfo { label, better: info.better, unlearned: info.unlearned, range: info.range, digits: info.digits }
        }
        None => MetricInfo {
            label: name.to_owned(),
            better: None,
            unlearned: None,
            range: (f64::NEG_INFINITY, f64::INFINITY),
            digits: Digits::Significant(4),
        },
    }
}

/// An estimate of a metric, its interval cut where the metric's range ends.
pub(super) fn possible(name: &str, e: Estimate) -> Estimate {
    Estimate { interval: e.interval.map(|interval| catalogue::possible(name, interval)), ..e }
}

/// Whether an interval ends where the range of its metric does, and its mean does not.
pub(super) fn is_cut(name: &str, e: &Estimate) -> bool {
    let Some((low, high)) = catalogue::find(name).map(|(info, _)| info.range) else { return false };
    let ends = |at: f64, bound: f64| at.total_cmp(&bound).is_eq() && e.mean.total_cmp(&bound).is_ne();
    e.interval.is_some_and(|(from, to)| ends(from, low) || ends(to, high))
}

impl MetricInfo {
    /// A value with this metric's digits.
    pub(super) fn value(&self, value: f64) -> String {
        match self.digits {
            Digits::After(digits) => format!("{value:.digits$}"),
            Digits::Significant(digits) => significant(value, digits),
        }
    }

    /// A value with the digits that the interval of an estimate supports: two of its half width, and at most one more than the metric
    /// has by itself.
    pub(super) fn supported(&self, value: f64, e: &Estimate) -> String {
        let half = e.interval.map_or(0.0, |(low, high)| (high - low) / 2.0);
        // seeds that agree to the last bit say nothing about digits, and large numbers keep their power of ten
        if !half.is_finite() || half <= 1e-12 * e.mean.abs() || e.mean.abs() >= 1e6 || !value.is_finite() {
            return self.value(value);
        }
        let most = match self.digits {
            Digits::After(digits) => digits as i32 + 1,
            Digits::Significant(digits) if e.mean != 0.0 => digits as i32 - e.mean.abs().log10().floor() as i32,
            Digits::Significant(digits) => digits as i32,
        };
        let digits = (1 - half.log10().floor() as i32).min(most);
        if digits >= 0 {
            return format!("{value:.*}", digits.unsigned_abs() as usize);
        }
        let unit = 10f64.powi(-digits);
        format!("{:.0}", (value / unit).round() * unit)
    }

    /// A mean with its interval, or with "(1 seed)".
    pub(super) fn estimate(&self, e: &Estimate) -> String {
        let text = |value: f64| self.supported(value, e);
        match e.interval {
            Some((low, high)) => format!("{} [{}, {}]", text(e.mean), text(low), text(high)),
            None => format!("{} (1 seed)", text(e.mean)),
        }
    }

    /// A difference: as [`Self::estimate`], with signs.
    pub(super) fn difference(&self, e: &Estimate) -> String {
        let signed = |value: f64| {
            let text = self.supported(value, e);
            let zero = !text.contains(|c: char| ('1'..='9').contains(&c));
            if zero {
                text.trim_start_matches('-').to_owned()
            } else if value > 0.0 {
                format!("+{text}")
            } else {
                text
            }
        };
        match e.interval {
            Some((low, high)) => format!("{} [{}, {}]", signed(e.mean), signed(low), signed(high)),
            None => format!("{} (1 seed)", signed(e.mean)),
        }
    }
}

/// `value` with about `digits` significant digits; in scientific notation from a million on and below a hundredth.
pub(super) fn significant(value: f64, digits: usize) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude >= 1e6 || (magnitude > 0.0 && magnitude < 1e-2) {
        return format!("{value:.*e}", digits.saturating_sub(1));
    }
    let before = if magnitude < 1.0 { 1 } else { magnitude.log10().floor() as usize + 1 };
    format!("{value:.*}", digits.saturating_sub(before))
}

/// A count with its thousands separated.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a binary unit.
pub(super) fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = "B";
    for next in UNITS {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    if unit == "B" { format!("{scaled:.0} B") } else { format!("{} {unit}", significant(scaled, 3)) }
}

/// Picojoules with a unit.
pub(super) fn energy(picojoules: f64) -> String {
    const UNITS: [&str; 5] = ["nJ", "µJ", "mJ", "J", "kJ"];
    let mut scaled = picojoules;
    let mut unit = "pJ";
    for next in UNITS {
        if scaled < 1000.0 {
            break;
        }
        (scaled, unit) = (scaled / 1000.0, next);
    }
    format!("{} {unit}", significant(scaled, 3))
}

/// Seconds as a reader would say them.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{} s", significant(seconds, 3));
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (seconds / 60.0).round() as u64;
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}

/// Lower-case ASCII letters and digits with single hyphens between them.
pub(super) fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    out.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(3.0 * 1024f64.powi(3)), "3.00 GiB");
        assert_eq!(duration(0.1234), "0.12 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(7325.0), "2 h 02 min");
        assert_eq!(significant(1234.56, 4), "1235");
        assert_eq!(significant(20.126, 4), "20.13");
        assert_eq!(significant(12_345_678.0, 4), "1.235e7");
        assert_eq!(significant(-0.000_489_7, 3), "-4.90e-4");
        assert_eq!(slug("Table 3, seizure!"), "table-3-seizure");
    }

    #[test]
    fn an_estimate_says_when_it_has_no_interval() {
        let info = metric("bits_per_byte");
        let e = Estimate { mean: 2.31, interval: Some((2.29, 2.33)), n: 3 };
        assert_eq!(info.estimate(&e), "2.310 [2.290, 2.330]");
        assert_eq!(info.estimate(&Estimate { interval: None, n: 1, ..e }), "2.310 (1 seed)");
        let d = Estimate { mean: -0.02, interval: Some((-0.05, 0.000_01)), n: 3 };
        assert_eq!(info.difference(&d), "-0.020 [-0.050, 0.000]");
    }

    /// A t interval over seeds may leave what a metric can be; tables do not.
    #[test]
    fn intervals_end_where_the_metric_does() {
        let e = Estimate { mean: 0.9, interval: Some((0.7, 1.1)), n: 3 };
        let cut = possible("accuracy", e);
        assert_eq!(cut.interval, Some((0.7, 1.0)));
        assert!(is_cut("accuracy", &cut) && !is_cut("accuracy", &Estimate { interval: Some((0.7, 0.95)), ..e }));
        let best = Estimate { mean: 1.0, interval: Some((1.0, 1.0)), n: 3 };
        assert!(!is_cut("accuracy", &possible("accuracy", best)), "nothing was cut");
        let loss = Estimate { mean: 0.1, interval: Some((-0.2, 0.4)), n: 3 };
        assert_eq!(possible("loss", loss).interval, Some((0.0, 0.4)));
        assert_eq!(
            possible("word_error_rate_percent", Estimate { interval: Some((80.0, 120.0)), ..e }).interval,
            Some((80.0, 120.0))
        );
        assert_eq!(possible("auc_pr_MI", e).interval, Some((0.7, 1.0)));
        assert_eq!(possible("forgetting", loss).interval, loss.interval, "forgetting may be negative");
        assert_eq!(possible("somebody's own", e), e);
    }

    /// A wide interval hides what stands behind its second digit.
    #[test]
    fn digits_are_those_that_the_interval_supports() {
        let text = |name: &str, mean: f64, half: f64| {
            metric(name).estimate(&Estimate { mean, interval: Some((mean - half, mean + half)), n: 3 })
        };
        assert_eq!(text("bits_per_byte", 2.3404, 0.1268), "2.34 [2.21, 2.47]");
        assert_eq!(text("bits_per_byte", 2.3404, 1.268), "2.3 [1.1, 3.6]");
        assert_eq!(text("bits_per_byte", 2.637_71, 0.000_44), "2.6377 [2.6373, 2.6382]");
        assert_eq!(text("bits_per_byte", 2.5, 0.0), "2.500 [2.500, 2.500]");
        assert_eq!(text("perplexity_per_word", 8996.3, 699.2), "9000 [8300, 9700]");
        assert_eq!(text("word_error_rate_percent", 97.312, 12.0), "97 [85, 109]");
    }

    #[test]
    fn class_metrics_have_labels_too() {
        assert_eq!(metric("auc_roc_NORM").label, "AUC-ROC NORM");
        assert_eq!(metric("auc_pr_MI").better, Some(Better::Higher));
        assert_eq!(metric("something_else").label, "something_else");
    }
}
