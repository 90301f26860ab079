//! Causal filters for signals: Butterworth sections and a notch, by the bilinear transform with the corner frequency
//! kept where it is asked for (Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients"). The
//! Butterworth filters are those of `scipy.signal.butter(…, output="sos")`, which the tests compare with.

use std::f64::consts::PI;

/// Second-order section in transposed direct form II.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Section {
    /// Numerator.
    b: [f64; 3],
    /// Denominator after its leading 1.
    a: [f64; 2],
    /// What earlier samples left.
    state: [f64; 2],
}

impl Section {
    /// From the cookbook's unnormalised coefficients.
    fn new(b: [f64; 3], a: [f64; 3]) -> Self {
        Self { b: b.map(|x| x / a[0]), a: [a[1] / a[0], a[2] / a[0]], state: [0.0; 2] }
    }

    fn next(&mut self, x: f64) -> f64 {
        let y = self.b[0] * x + self.state[0];
        self.state = [self.b[1] * x - self.a[0] * y + self.state[1], self.b[2] * x - self.a[1] * y];
        y
    }
}

/// Sections one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    sections: Vec<Section>,
}

impl Filter {
    /// Butterworth low pass of even order `2 · pairs` with its −3 dB point at `corner_hz`, which must lie below half the
    /// rate.
    pub fn low_pass(pairs: usize, corner_hz: f64, rate_hz: f64) -> Self {
        let section = |(cos, alpha): (f64, f64)| {
            Section::new([(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
        };
        Self { sections: butterworth(pairs, corner_hz, rate_hz).map(section).collect() }
    }

    /// Butterworth high pass, otherwise as [`Filter::low_pass`].
    pub fn high_pass(pairs: usize, corner_hz: f64, rate_hz: f64) -> Self {
        let section = |(cos, alpha): (f64, f64)| {
            let b = [f64::midpoint(1.0, cos), -1.0 - cos, f64::midpoint(1.0, cos)];
            Section::new(b, [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
        };
        Self { sections: butterworth(pairs, corner_hz, rate_hz).map(section).collect() }
    }

    /// Removes one frequency; `quality` is that frequency by the width of what is removed (−3 dB).
    pub fn notch(frequency_hz: f64, quality: f64, rate_hz: f64) -> Self {
        let (cos, _) = angle(frequency_hz, quality, rate_hz);
        // the width, too, is kept through the transform, as `scipy.signal.iirnotch` does
        let alpha = (PI * frequency_hz / quality / rate_hz).tan();
        Self { sections: vec![Section::new([1.0, -2.0 * cos, 1.0], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])] }
    }

    /// This filter, then another.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.sections.extend(other.sections);
        self
    }

    /// The next output.
    pub fn next(&mut self, x: f64) -> f64 {
        self.sections.iter_mut().fold(x, |x, section| section.next(x))
    }
}

/// `(cos ω, α)` of the cookbook.
fn angle(frequency_hz: f64, quality: f64, rate_hz: f64) -> (f64, f64) {
    let omega = 2.0 * PI * frequency_hz / rate_hz;
    (omega.cos(), omega.sin() / (2.0 * quality))
}

/// The sections of a Butterworth filter differ in their quality: poles lie evenly on a half circle.
fn butterworth(pairs: usize, corner_hz: f64, rate_hz: f64) -> impl Iterator<Item = (f64, f64)> {
    (0..pairs).map(move |k| {
        let quality = 0.5 / (PI * (2 * k + 1) as f64 / (4 * pairs) as f64).cos();
        angle(corner_hz, quality, rate_hz)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        kind: String,
        order: usize,
        corner_hz: f64,
        rate_hz: f64,
        input: Vec<f64>,
        output: Vec<f64>,
    }

    /// Values of `scipy.signal.sosfilt(butter(…), …)`: see `filter.py` beside the file.
    #[test]
    fn butterworth_filters_are_scipys() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/golden/filter.json")).unwrap();
        assert!(cases.len() >= 4);
        for c in cases {
            let pairs = c.order / 2;
            let mut filter = match c.kind.as_str() {
                "low" => Filter::low_pass(pairs, c.corner_hz, c.rate_hz),
                _ => Filter::high_pass(pairs, c.corner_hz, c.rate_hz),
            };
            for (t, (&x, y)) in c.input.iter().zip(&c.output).enumerate() {
                let got = filter.next(x);
                // f64 on both sides, order 8 at most: rounding stays far below 1e-9 of inputs near 1
                assert!((got - y).abs() < 1e-9, "{} order {} at {t}: {got}, expected {y}", c.kind, c.order);
            }
        }
    }

    /// Amplitude of a sine after the filter, once it has settled.
    fn gain(filter: &Filter, hz: f64, rate_hz: f64) -> f64 {
        let mut filter = filter.clone();
        let n = (20.0 * rate_hz) as usize;
        let y: Vec<f64> = (0..n).map(|t| filter.next((2.0 * PI * hz * t as f64 / rate_hz).sin())).collect();
        let tail = &y[n / 2..];
        (2.0 * tail.iter().map(|y| y * y).sum::<f64>() / tail.len() as f64).sqrt()
    }

    #[test]
    fn gains_are_those_asked_for() {
        let low = Filter::low_pass(4, 24.0, 256.0);
        assert!((gain(&low, 24.0, 256.0) - 0.5f64.sqrt()).abs() < 0.01);
        assert!(gain(&low, 10.0, 256.0) > 0.99 && gain(&low, 40.0, 256.0) < 0.02 && gain(&low, 60.0, 256.0) < 1e-3);
        let notch = Filter::notch(60.0, 30.0, 256.0);
        assert!(gain(&notch, 60.0, 256.0) < 0.01 && gain(&notch, 55.0, 256.0) > 0.97);
        assert!((gain(&notch, 61.0, 256.0) - 0.5f64.sqrt()).abs() < 0.05, "30 is 60 Hz by 2 Hz");
        let both = Filter::high_pass(1, 0.5, 256.0).then(low);
        assert!(gain(&both, 0.05, 256.0) < 0.02 && gain(&both, 5.0, 256.0) > 0.98);
    }
}
