//! Colour and marker of each kind of model: the same in every report. All colours have a contrast of 4.5 and more against the
//! page, on light and on dark grounds, also as text.

use std::fmt::Write as _;

use serde::Serialize;

/// Kind of model, as far as drawings tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bio-inspired Mamba.
    Bim,
    /// Transformer.
    Transformer,
    /// Mamba.
    Mamba,
    /// LSTM.
    Lstm,
    /// Plain recurrent network.
    Rnn,
    /// Convolutional network.
    Cnn,
    /// Spiking network.
    Snn,
    /// No model, or one of another version of the program.
    Other,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Look {
    /// Decides colour and marker.
    pub kind: Kind,
    /// Of a series that belongs to one of several ordered values: its place among them from 0 to [`HUES`] − 1, which then decides the
    /// colour.
    pub hue: Option<usize>,
}

/// Number of ordered hues.
pub const HUES: usize = ORDERED.len();

/// Colours of ordered values, from blue over violet to red, for light and dark grounds; of equal lightness (OKLCH).
const ORDERED: [(&str, &str); 9] = [
    ("#0361bd", "#7bb4fd"),
    ("#4351cd", "#97acfe"),
    ("#6744c5", "#b0a2fd"),
    ("#8139b5", "#cb95fa"),
    ("#952d9d", "#e08ee5"),
    ("#a52180", "#f188cb"),
    ("#b0175f", "#fc85ad"),
    ("#b61539", "#fe8990"),
    ("#b02d03", "#fd8e72"),
];

/// The kind of model that the paper and its claims are about.
pub(super) const OURS: &str = Kind::Bim.name();

impl Kind {
    /// Every kind.
    const ALL: [Self; 8] =
        [Self::Bim, Self::Transformer, Self::Mamba, Self::Lstm, Self::Rnn, Self::Cnn, Self::Snn, Self::Other];

    /// The kind by its name in grid files.
    pub(super) fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Other)
    }

    /// Whether its neurons spike.
    pub(super) fn spikes(self) -> bool {
        match self {
            Self::Bim | Self::Snn => true,
            Self::Transformer | Self::Mamba | Self::Lstm | Self::Rnn | Self::Cnn | Self::Other => false,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bim => "bim",
            Self::Transformer => "transformer",
            Self::Mamba => "mamba",
            Self::Lstm => "lstm",
            Self::Rnn => "rnn",
            Self::Cnn => "cnn",
            Self::Snn => "snn",
            Self::Other => "other",
        }
    }

    /// Colour on a light and on a dark ground.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Bim => ("#c11435", "#fd9696"),
            Self::Transformer => ("#055cb2", "#75aef5"),
            Self::Mamba => ("#086d31", "#7ab987"),
            Self::Lstm => ("#763ebd", "#bf9bfe"),
            Self::Rnn => ("#8e4e05", "#d8a173"),
            Self::Cnn => ("#036b70", "#6eb9bd"),
            Self::Snn => ("#aa167d", "#f387c7"),
            Self::Other => ("#555555", "#a1a1a1"),
        }
    }

    /// Its marker about the origin, as the path of an SVG, `r` large.
    pub(super) fn marker(self, x: f64, y: f64, r: f64) -> String {
        let polygon = |corners: &[(f64, f64)]| {
            let corner = |(i, (dx, dy)): (usize, &(f64, f64))| {
                format!("{}{:.1} {:.1}", if i == 0 { "M" } else { "L" }, x + r * dx, y + r * dy)
            };
            corners.iter().enumerate().map(corner).collect::<String>() + "Z"
        };
        let round = |r: f64| {
            format!("M{:.1} {y:.1}a{r:.1} {r:.1} 0 1 0 {:.1} 0a{r:.1} {r:.1} 0 1 0 {:.1} 0Z", x - r, 2.0 * r, -2.0 * r)
        };
        match self {
            Self::Bim => round(r),
            Self::Transformer => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            Self::Mamba => polygon(&[(0.0, -1.2), (1.15, 0.9), (-1.15, 0.9)]),
            Self::Lstm => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            Self::Rnn => polygon(&[(0.0, 1.2), (1.15, -0.9), (-1.15, -0.9)]),
            Self::Cnn => polygon(&[
                (-0.4, -1.2),
                (0.4, -1.2),
                (0.4, -0.4),
                (1.2, -0.4),
                (1.2, 0.4),
                (0.4, 0.4),
                (0.4, 1.2),
                (-0.4, 1.2),
                (-0.4, 0.4),
                (-1.2, 0.4),
                (-1.2, -0.4),
                (-0.4, -0.4),
            ]),
            Self::Snn => polygon(&[
                (0.0, -1.3),
                (0.35, -0.35),
                (1.3, 0.0),
                (0.35, 0.35),
                (0.0, 1.3),
                (-0.35, 0.35),
                (-1.3, 0.0),
                (-0.35, -0.35),
            ]),
            Self::Other => round(0.7 * r),
        }
    }
}

impl Look {
    /// Of a kind of model.
    pub(super) fn of(kind: &str) -> Self {
        Self { kind: Kind::of(kind), hue: None }
    }

    /// The `i`-th of `n` ordered values of a kind of model.
    pub(super) fn ordered(kind: &str, i: usize, n: usize) -> Self {
        let hue = if n > 1 { i * (HUES - 1) / (n - 1) } else { 0 };
        Self { kind: Kind::of(kind), hue: Some(hue) }
    }

    /// Its class in [`style`].
    pub(super) fn class(self) -> String {
        self.hue.map_or_else(|| format!("k-{}", self.kind.name()), |hue| format!("o{hue}"))
    }
}

/// The rules that give each class of [`Look::class`] its colour `--c`, for light grounds and for dark ones.
pub(super) fn style() -> (String, String) {
    let (mut light, mut dark) = (String::new(), String::new());
    let kinds = Kind::ALL.into_iter().map(|kind| (format!("k-{}", kind.name()), kind.colours()));
    let ordered = ORDERED.iter().enumerate().map(|(i, colours)| (format!("o{i}"), *colours));
    for (class, (on_light, on_dark)) in kinds.chain(ordered) {
        let _ = write!(light, ".{class}{{--c:{on_light}}}");
        let _ = write!(dark, ".{class}{{--c:{on_dark}}}");
    }
    (light, dark)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast by WCAG 2.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |at: usize| {
                let v = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_can_be_read_as_text() {
        let page = include_str!("../../../reports/templates/page.css");
        let grounds = |name: &str| -> Vec<&str> {
            page.split(name).skip(1).filter_map(|rest| rest.split([';', '}']).next()).map(str::trim).collect()
        };
        for ground in ["--ground:", "--tint:"] {
            let [light, dark] = grounds(ground)[..] else { panic!("{ground} once for light and once for dark") };
            for (on_light, on_dark) in Kind::ALL.map(Kind::colours).into_iter().chain(ORDERED) {
                assert!(contrast(on_light, light) >= 4.5, "{on_light} on {light}");
                assert!(contrast(on_dark, dark) >= 4.5, "{on_dark} on {dark}");
            }
        }
    }

    #[test]
    fn kinds_differ_in_colour_and_in_marker() {
        for (i, a) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::of(a.name()), a);
            for b in Kind::ALL.into_iter().skip(i + 1) {
                assert!(
                    a.colours().0 != b.colours().0 && a.marker(0.0, 0.0, 4.0) != b.marker(0.0, 0.0, 4.0),
                    "{a:?} {b:?}"
                );
            }
        }
        assert_eq!(Kind::of("perceptron"), Kind::Other);
        assert_eq!([0, 1, 2].map(|i| Look::ordered("bim", i, 3).class()), ["o0", "o4", "o8"]);
    }
}
