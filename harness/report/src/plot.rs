//! Line plots as SVG: one file each, readable on light and dark grounds, the same bytes for the same data.

use std::fmt::Write as _;

use super::model::{Plot, Point, Series};

/// Width of the drawing in SVG units.
const WIDTH: f64 = 820.0;
/// Least height of the drawing; a long legend makes it higher.
const HEIGHT: f64 = 400.0;
/// Room for the vertical axis.
const LEFT: f64 = 76.0;
/// Room above the axes.
const TOP: f64 = 14.0;
/// Room for the horizontal axis.
const BOTTOM: f64 = 54.0;
/// Height of a line of the legend.
const LEGEND_LINE: f64 = 22.0;
/// Mean width of a character at the legend's size.
const CHARACTER: f64 = 6.8;
/// Characters of a legend's label that are shown; the whole is in its tooltip.
const LABEL_CHARACTERS: usize = 34;
/// About so many ticks on an axis.
const TICKS: f64 = 6.0;
/// Colours of the lines: Okabe and Ito's, which stay apart for colour-blind readers, one lightened for dark grounds.
const COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#4fa8e0"),
    ("#d55e00", "#f08a4b"),
    ("#009e73", "#2fc79a"),
    ("#b5548f", "#e08fc0"),
    ("#b8860b", "#e6b84a"),
    ("#5b4bb7", "#a99bf5"),
    ("#7a6a5d", "#c2b1a3"),
    ("#3a8fb7", "#86d0ee"),
];
/// Dashes of the lines once the colours are used up.
const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// A range of values along an axis, and where it is drawn.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn new(low: f64, high: f64, from: f64, to: f64, log: bool) -> Self {
        let ticks = if log { log_ticks(low, high) } else { linear_ticks(low, high) };
        let low = ticks.first().map_or(low, |&tick| if log { low } else { tick.min(low) });
        let high = ticks.last().map_or(high, |&tick| if log { high } else { tick.max(high) });
        Self { low, high, from, to, log, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.log { v.log10() } else { v };
        let span = scale(self.high) - scale(self.low);
        let share = if span > 0.0 { (scale(value) - scale(self.low)) / span } else { 0.5 };
        self.from + share * (self.to - self.from)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten that enclose the range.
fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
    let rough = (high - low) / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Powers of ten within the range, with 2 and 5 times them if those alone are few.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let ticks = |multiples: &'static [f64]| -> Vec<f64> {
        let all = (first..=last).flat_map(|e| multiples.iter().map(move |m| m * 10f64.powi(e)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let powers = ticks(&[1.0]);
    if powers.len() < 3 { ticks(&[1.0, 2.0, 5.0]) } else { powers }
}

/// A tick's number, with k, M or G for large ones and no more digits than the step needs.
fn tick_label(value: f64, ticks: &[f64]) -> String {
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

/// The plot as a whole SVG document.
pub fn svg(plot: &Plot) -> String {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (x_low, x_high) = range(&mut points().map(|p| p.x));
    let level = plot.level.iter().map(|level| level.y);
    let (y_low, y_high) = range(&mut points().flat_map(|p| [p.low, p.high]).chain(level));
    let entries = plot.series.len() + usize::from(plot.level.is_some());
    let height = HEIGHT.max(TOP + BOTTOM + LEGEND_LINE * entries as f64);
    let labels = plot.series.iter().map(|s| &s.label).chain(plot.level.iter().map(|level| &level.label));
    let longest = labels.map(|label| label.chars().count().min(LABEL_CHARACTERS)).max().unwrap_or(0);
    let right = WIDTH - 50.0 - longest as f64 * CHARACTER;
    let x = Axis::new(x_low, x_high, LEFT, right - 12.0, plot.log_x);
    let y = Axis::new(y_low, y_high, height - BOTTOM, TOP, false);

    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-title\">\n<title id=\"{id}-title\">{}</title>\n<desc>{}</desc>\n<style>{}</style>\n",
        escape(&plot.title),
        escape(&plot.caption),
        style(),
        id = escape(&plot.id),
    );
    axes(&mut out, plot, &x, &y);
    for (i, series) in plot.series.iter().enumerate() {
        line(&mut out, series, i, &x, &y);
    }
    if let Some(level) = &plot.level {
        let at = y.at(level.y);
        let _ = writeln!(out, "<path class=\"level\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
    }
    legend(&mut out, plot, right);
    out.push_str("</svg>\n");
    out
}

fn style() -> String {
    let mut css = String::from(
        ".plot{color:#24292f;font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif;\
         font-variant-numeric:tabular-nums}.plot text{fill:currentColor}.plot .grid{stroke:currentColor;opacity:.13}\
         .plot .axis{stroke:currentColor;opacity:.55;fill:none}.plot .line{fill:none;stroke:var(--c);stroke-width:2;\
         stroke-linejoin:round}.plot .band{fill:var(--c);opacity:.16}.plot .dot{fill:var(--c)}\
         .plot .ring{fill:none;stroke:var(--c);stroke-width:2}\
         .plot .level{stroke:currentColor;stroke-width:1.5;stroke-dasharray:6 4;fill:none;opacity:.8}",
    );
    let mut dark = String::from(".plot{color:#e6e8eb}");
    for (i, (light, on_dark)) in COLOURS.iter().enumerate() {
        let _ = write!(css, ".plot .c{i}{{--c:{light}}}");
        let _ = write!(dark, ".plot .c{i}{{--c:{on_dark}}}");
    }
    let _ = write!(css, "@media(prefers-color-scheme:dark){{{dark}}}");
    css
}

fn axes(out: &mut String, plot: &Plot, x: &Axis, y: &Axis) {
    for &tick in &y.ticks {
        let at = y.at(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
        let label = tick_label(tick, &y.ticks);
        let _ =
            writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", x.from - 8.0, at + 4.5);
    }
    for &tick in &x.ticks {
        let at = x.at(tick);
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{at:.1} {:.1}v5\"/>", y.from);
        let label = tick_label(tick, &x.ticks);
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", y.from + 20.0);
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{:.1} {:.1}V{:.1}H{:.1}\"/>", x.from, y.to, y.from, x.to);
    let log = if plot.log_x { " (logarithmic)" } else { "" };
    let middle = f64::midpoint(x.from, x.to);
    let x_label = escape(&plot.x_label);
    let _ = writeln!(
        out,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_label}{log}</text>",
        y.from + 42.0
    );
    let middle = f64::midpoint(y.from, y.to);
    let _ = writeln!(
        out,
        "<text transform=\"translate(18 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&plot.y_label)
    );
}

fn line(out: &mut String, series: &Series, index: usize, x: &Axis, y: &Axis) {
    let class = index % COLOURS.len();
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let steps =
            points.enumerate().map(|(i, (px, py))| format!("{}{px:.1} {py:.1}", if i == 0 { "M" } else { "L" }));
        steps.collect::<String>()
    };
    let at = |value: fn(&Point) -> f64| move |p: &Point| (x.at(p.x), y.at(value(p)));
    let _ = writeln!(out, "<g class=\"c{class}\"><title>{}</title>", escape(&series.label));
    if let [only] = series.points.as_slice() {
        // no line: a mark, and the range of the seeds through it
        let at = x.at(only.x);
        let _ = writeln!(out, "<path class=\"line\" d=\"M{at:.1} {:.1}V{:.1}\"/>", y.at(only.low), y.at(only.high));
        mark(out, index, at, y.at(only.y));
        out.push_str("</g>\n");
        return;
    }
    if series.points.iter().any(|p| p.high > p.low) {
        let upper = series.points.iter().map(at(|p| p.high));
        let lower = series.points.iter().rev().map(at(|p| p.low));
        let _ = writeln!(out, "<path class=\"band\" d=\"{}Z\"/>", path(&mut upper.chain(lower)));
    }
    let mean = path(&mut series.points.iter().map(at(|p| p.y)));
    let _ = writeln!(out, "<path class=\"line\"{} d=\"{mean}\"/>", dashes(index));
    out.push_str("</g>\n");
}

/// A point of its own: full, or a ring once the colours are used up.
fn mark(out: &mut String, index: usize, x: f64, y: f64) {
    let class = if index < COLOURS.len() { "dot" } else { "ring" };
    let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
}

fn dashes(index: usize) -> String {
    match DASHES.get(index / COLOURS.len() % DASHES.len()) {
        Some(&pattern) if !pattern.is_empty() => format!(" stroke-dasharray=\"{pattern}\""),
        _ => String::new(),
    }
}

fn legend(out: &mut String, plot: &Plot, left: f64) {
    let mut y = TOP + 10.0;
    let mut entry = |class: &str, sample: &dyn Fn(&mut String, f64), label: &str| {
        let _ = write!(out, "<g class=\"{class}\"><title>{}</title>", escape(label));
        sample(out, y);
        let (x, y_text, shown) = (left + 28.0, y + 4.5, escape(&shorten(label)));
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y_text:.1}\">{shown}</text></g>");
        y += LEGEND_LINE;
    };
    let stroke = |out: &mut String, y: f64, class: &str, extra: &str| {
        let _ = write!(out, "<path class=\"{class}\"{extra} d=\"M{left:.1} {y:.1}h22\"/>");
    };
    for (i, series) in plot.series.iter().enumerate() {
        let sample = |out: &mut String, y: f64| match series.points.as_slice() {
            [_] => mark(out, i, left + 11.0, y),
            _ => stroke(out, y, "line", &dashes(i)),
        };
        entry(&format!("c{}", i % COLOURS.len()), &sample, &series.label);
    }
    if let Some(level) = &plot.level {
        entry("reference", &|out, y| stroke(out, y, "level", ""), &level.label);
    }
}

fn shorten(label: &str) -> String {
    if label.chars().count() <= LABEL_CHARACTERS {
        return label.to_owned();
    }
    let kept: String = label.chars().take(LABEL_CHARACTERS - 1).collect();
    format!("{kept}…")
}

/// Text for XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::model::Level;
    use super::*;

    fn plot() -> Plot {
        let point = |x: f64, y: f64| Point { x, y, low: y - 0.1, high: y + 0.1 };
        Plot {
            id: "p".into(),
            title: "a < b".into(),
            caption: "c".into(),
            x_label: "bytes seen".into(),
            y_label: "bits per byte".into(),
            log_x: true,
            series: vec![Series { label: "bim".into(), points: vec![point(1e3, 4.0), point(1e5, 2.2)] }],
            level: Some(Level { label: "entropy floor".into(), y: 1.5 }),
        }
    }

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(linear_ticks(1.48, 4.1), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]);
        assert_eq!(linear_ticks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((linear_ticks(2.0, 2.0)[0] - 1.4).abs() < 1e-12);
        assert_eq!(log_ticks(1e3, 1e6), [1e3, 1e4, 1e5, 1e6]);
        assert_eq!(log_ticks(0.3, 2.0), [0.5, 1.0, 2.0]);
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

    #[test]
    fn a_drawing_has_title_lines_band_and_level() {
        let svg = svg(&plot());
        for part in
            ["<title id=\"p-title\">a &lt; b</title>", "class=\"band\"", "class=\"level\"", "entropy floor", ">100k<"]
        {
            assert!(svg.contains(part), "{part} in\n{svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    }

    #[test]
    fn constant_and_single_values_are_drawn() {
        let mut p = plot();
        p.log_x = false;
        p.level = None;
        p.series[0].points = vec![Point { x: 5.0, y: 1.0, low: 1.0, high: 1.0 }];
        // as many as there are colours, and one more in the first colour again, which must not look like the first
        let of =
            |i: usize| Series { label: format!("m{i}"), points: vec![Point { x: i as f64, ..p.series[0].points[0] }] };
        p.series = (0..=COLOURS.len()).map(of).collect();
        let svg = svg(&p);
        assert!(!svg.contains("NaN"), "{svg}");
        // in the plot and in the legend
        let count = |class: &str| svg.matches(&format!("<circle class=\"{class}\"")).count();
        assert_eq!((count("dot"), count("ring")), (2 * COLOURS.len(), 2));
    }
}
