//! Small multiples: a panel for each line, all on the same axes, the others faint behind it.

use std::fmt::Write as _;

use super::super::model::{Form, Plot, Point, Series};
use super::axis::{Axis, tick_label};
use super::{draw_level, escape, line, path, ranges, shorten};

/// A panel.
const PANEL: super::Size =
    super::Size { name: "panel", width: 220.0, height: 150.0, font: 11.0, label: 34, ticks: (3.0, 3.0) };
/// Panels of a row of the sheet.
const COLUMNS: usize = 3;

fn axes(plot: &Plot) -> (Axis, Axis) {
    let (x, y) = ranges(plot);
    let font = PANEL.font;
    let bottom = PANEL.height - 1.8 * font;
    let (across, up) = ((3.4 * font, PANEL.width - 14.0), (bottom, 1.9 * font));
    if plot.form == Form::Spikes {
        // to the end of the last step, with half a neuron below the first and above the last
        let (steps, neurons) = ((x.0.min(0.0), x.1.max(0.0) + 1.0), (y.0.min(0.0) - 0.5, y.1.max(0.0) + 0.5));
        return (Axis::tight(steps, across, PANEL.ticks.0), Axis::tight(neurons, up, PANEL.ticks.1));
    }
    (Axis::new(x, across, plot.log_x, PANEL.ticks.0), Axis::new(y, up, plot.log_y, PANEL.ticks.1))
}

/// Spikes, one bar for all that a neuron sent at steps next to each other. Points are in the order of neurons, then of steps.
fn runs(series: &Series, x: &Axis, y: &Axis) -> String {
    let mut out = String::new();
    let follows = |a: &Point, b: &Point| a.y.total_cmp(&b.y).is_eq() && (b.x - a.x - 1.0).abs() < 0.5;
    for run in series.points.chunk_by(follows) {
        if let Some(first) = run.first() {
            let (from, to) = (x.at(first.x), x.at(first.x + run.len() as f64));
            let _ = write!(out, "M{from:.1} {:.1}h{:.1}", y.at(first.y), to - from);
        }
    }
    out
}

/// The lines of all, to lie behind each.
fn ghosts(plot: &Plot, x: &Axis, y: &Axis) -> String {
    if plot.form == Form::Spikes {
        return String::new();
    }
    let one = |series: &Series| path(series.points.iter().map(|p| (x.at(p.x), y.at(p.y))));
    format!("<path class=\"ghost\" d=\"{}\"/>", plot.series.iter().map(one).collect::<String>())
}

/// What is inside a panel.
fn inside(plot: &Plot, series: &Series, behind: &str, x: &Axis, y: &Axis) -> String {
    let mut out = String::new();
    let font = PANEL.font;
    for &tick in &y.ticks {
        let at = y.at(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
        let (lx, ly, label) = (x.from - 4.0, at + 0.35 * font, tick_label(tick, &y.ticks));
        let _ = writeln!(out, "<text x=\"{lx:.1}\" y=\"{ly:.1}\" text-anchor=\"end\">{label}</text>");
    }
    for &tick in &x.ticks {
        let (at, below, label) = (x.at(tick), y.from + 1.35 * font, tick_label(tick, &x.ticks));
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>");
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{:.1} {:.1}V{:.1}H{:.1}\"/>", x.from, y.to, y.from, x.to);
    out.push_str(behind);
    if let Some(level) = plot.level.as_ref().filter(|level| y.holds(level.y)) {
        draw_level(&mut out, "", level.y, x, y, &PANEL);
    }
    if plot.form == Form::Spikes {
        let _ = writeln!(
            out,
            "<g class=\"{}\"><path class=\"spikes\" d=\"{}\"/></g>",
            series.look.class(),
            runs(series, x, y)
        );
    } else {
        line(&mut out, series, true, 0, x, y);
    }
    let (at, label) = (1.1 * font, escape(&shorten(&series.label, PANEL.label)));
    let _ = writeln!(
        out,
        "<g class=\"{}\"><text class=\"name\" x=\"2\" y=\"{at:.1}\">{label}</text></g>",
        series.look.class()
    );
    out
}

/// Panels as elements of a page, each a drawing of its own, so that as many stand in a row as fit.
pub(super) fn html(plot: &Plot) -> String {
    let (x, y) = axes(plot);
    let mut out = String::from("<div class=\"panels\">\n");
    let id = escape(&plot.id);
    for (i, series) in plot.series.iter().enumerate() {
        let behind = if i == 0 {
            format!("<g id=\"{id}-all\">{}</g>\n", ghosts(plot, &x, &y))
        } else {
            format!("<use href=\"#{id}-all\"/>\n")
        };
        let _ = writeln!(
            out,
            "<svg class=\"plot panel\" viewBox=\"0 0 {} {}\" font-size=\"{}\" role=\"img\" aria-label=\"{}: {}\">\n{}</svg>",
            PANEL.width,
            PANEL.height,
            PANEL.font,
            escape(&plot.title),
            escape(&series.label),
            inside(plot, series, &behind, &x, &y)
        );
    }
    out.push_str("</div>\n");
    let scale = |log: bool| if log { ", log" } else { "" };
    let (x_label, y_label) = (escape(&plot.x_label), escape(&plot.y_label));
    let _ = writeln!(
        out,
        "<p class=\"axes\">Across: {x_label}{}. Up: {y_label}{}. All panels have the same axes.</p>",
        scale(plot.log_x),
        scale(plot.log_y)
    );
    out
}

/// Panels as one drawing.
pub(super) fn sheet(plot: &Plot, style: &str) -> String {
    let (x, y) = axes(plot);
    let rows = plot.series.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (PANEL.width * COLUMNS as f64, PANEL.height * rows as f64 + 2.0 * PANEL.font);
    let mut out = String::new();
    super::open(&mut out, plot, &super::Size { width, height, ..PANEL }, style);
    let behind = ghosts(plot, &x, &y);
    for (i, series) in plot.series.iter().enumerate() {
        let (left, top) = (PANEL.width * (i % COLUMNS) as f64, PANEL.height * (i / COLUMNS) as f64);
        let _ =
            writeln!(out, "<g transform=\"translate({left} {top})\">\n{}</g>", inside(plot, series, &behind, &x, &y));
    }
    let labels = format!("across: {}; up: {}", plot.x_label, plot.y_label);
    let _ = writeln!(out, "<text x=\"4\" y=\"{:.1}\">{}</text>", height - 0.6 * PANEL.font, escape(&labels));
    out.push_str("</svg>\n");
    out
}
