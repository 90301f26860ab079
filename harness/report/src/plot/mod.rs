//! Plots as SVG: readable on light and dark grounds and at the width of a phone, the same bytes for the same data.
//!
//! A plot of few lines labels each at its end, a plot of many is a panel for each with the others faint behind it, and single points
//! have their labels beside them: nobody has to look a colour up.

mod axis;
mod labels;
mod panels;

use std::fmt::Write as _;

use super::look;
use super::model::{Form, Plot, Point, Series};
use axis::{Axis, tick_label};
use labels::{Area, area, beside, spread};

/// Lines up to which each has its band; of more, bars at the points say the same and can be told apart.
const MOST_BANDS: usize = 5;
/// Points of a line up to which each has its marker.
const MOST_MARKERS: usize = 16;
/// Points up to which each has its name; of more, those on the front have.
pub(super) const MOST_NAMES: usize = 16;
/// Share of the data's range by which a level may make the axis longer; one further away is named at the edge.
const LEVEL_ROOM: f64 = 0.15;
/// Width of most bold letters in parts of the size of the font.
const CHARACTER: f64 = 0.66;

/// A drawing's size in units of SVG.
#[derive(Clone, Copy, Debug)]
struct Size {
    name: &'static str,
    width: f64,
    height: f64,
    font: f64,
    /// Characters of a label that are shown.
    label: usize,
    ticks: (f64, f64),
}

const WIDE: Size = Size { name: "wide", width: 680.0, height: 350.0, font: 13.0, label: 28, ticks: (6.0, 6.0) };
const NARROW: Size = Size { name: "narrow", width: 360.0, height: 262.0, font: 12.0, label: 16, ticks: (4.0, 5.0) };

/// The plot as a whole SVG document.
pub fn svg(plot: &Plot) -> String {
    let style = format!("<style>{}</style>\n", style());
    let drawing = match plot.form {
        Form::Panels | Form::Spikes => panels::sheet(plot, &style),
        Form::Lines | Form::Points => draw(plot, &WIDE, &style),
    };
    drawing.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
}

/// The plot as elements of a page that has the rules of [`style`]: for wide and for narrow windows.
pub fn html(plot: &Plot) -> String {
    match plot.form {
        Form::Panels | Form::Spikes => panels::html(plot),
        Form::Lines | Form::Points => draw(plot, &WIDE, "") + &draw(plot, &NARROW, ""),
    }
}

/// Rules for every drawing.
pub fn style() -> String {
    let (light, dark) = look::style();
    format!(
        ".plot{{color:#24292f;font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif;\
         font-variant-numeric:tabular-nums}}.plot text{{fill:currentColor}}.plot .name{{fill:var(--c);font-weight:600;\
         paint-order:stroke;stroke:var(--ground,#fff);stroke-width:3px;stroke-linejoin:round}}\
         .plot .grid{{stroke:currentColor;opacity:.13}}.plot .axis{{stroke:currentColor;opacity:.55;fill:none}}\
         .plot .line{{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}}.plot .band{{fill:var(--c);opacity:.18}}\
         .plot .dot{{fill:var(--c)}}.plot .bar{{stroke:var(--c);stroke-width:1.2;opacity:.7;fill:none}}\
         .plot .lead{{stroke:var(--c);stroke-width:.8;opacity:.7;fill:none}}\
         .plot .spikes{{stroke:var(--c);stroke-width:1.2;fill:none}}\
         .ghost{{fill:none;stroke:currentColor;stroke-width:1;opacity:.22}}\
         .plot .front{{fill:none;stroke:currentColor;stroke-width:1.4;stroke-dasharray:5 4;opacity:.75}}\
         .plot .level{{stroke:currentColor;stroke-width:1.5;stroke-dasharray:6 4;fill:none;opacity:.8}}{light}\
         @media screen and (prefers-color-scheme:dark){{.plot{{color:#e6e8eb}}{dark}}}"
    )
}

/// Least and greatest of some values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// Ranges of the axes.
fn ranges(plot: &Plot) -> ((f64, f64), (f64, f64)) {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let (mut x, mut y) = (range(points().map(|p| p.x)), range(points().flat_map(|p| [p.low, p.high])));
    if let Some(level) = &plot.level {
        let room = LEVEL_ROOM * (y.1 - y.0);
        if level.y > y.0 - room && level.y < y.1 + room && (!plot.log_y || level.y > 0.0) {
            y = (y.0.min(level.y), y.1.max(level.y));
        }
    }
    if plot.form == Form::Points {
        // markers and labels need room around them
        x = padded(x, plot.log_x);
        y = padded(y, plot.log_y);
    }
    (x, y)
}

fn padded((low, high): (f64, f64), log: bool) -> (f64, f64) {
    if log {
        let factor = (high / low).powf(0.12).max(1.1);
        return (low / factor, high * factor);
    }
    let room = 0.06 * (high - low);
    let from = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
    (from, high + room)
}

fn open(out: &mut String, plot: &Plot, size: &Size, style: &str) {
    let Size { name, width, height, font, .. } = size;
    let _ = write!(
        out,
        "<svg class=\"plot {name}\" viewBox=\"0 0 {width} {height}\" font-size=\"{font}\" role=\"img\" \
         aria-labelledby=\"{id}-{name}-title\">\n<title id=\"{id}-{name}-title\">{}</title>\n<desc>{}</desc>\n{style}",
        escape(&plot.title),
        escape(&plot.caption),
        id = escape(&plot.id),
    );
}

fn draw(plot: &Plot, size: &Size, style: &str) -> String {
    let (x_range, y_range) = ranges(plot);
    let gap = size.font + 3.0;
    let top = 1.2 * size.font;
    // labels of lines stand right of them; what many lines need, the drawing gets
    let height = if plot.form == Form::Lines {
        size.height.max(gap * plot.series.len() as f64 + 5.5 * size.font)
    } else {
        size.height
    };
    let size = &Size { height, ..*size };
    let labels: Vec<String> = plot.series.iter().map(|series| shorten(&series.label, size.label)).collect();
    let longest = labels.iter().map(|label| text_width(label, size)).fold(0.0, f64::max);
    let left = 4.6 * size.font;
    let right = size.width - if plot.form == Form::Lines { longest + 24.0 } else { 1.4 * size.font };
    let x = Axis::new(x_range, (left, right), plot.log_x, size.ticks.0);
    let y = Axis::new(y_range, (height - 3.4 * size.font, top), plot.log_y, size.ticks.1);
    let mut out = String::new();
    open(&mut out, plot, size, style);
    axes(&mut out, plot, &x, &y, size);
    if let Some(level) = &plot.level {
        draw_level(&mut out, &level.label, level.y, &x, &y, size);
    }
    match plot.form {
        Form::Points => points(&mut out, plot, &labels, &x, &y, size),
        Form::Lines | Form::Panels | Form::Spikes => {
            let bands = plot.series.len() <= MOST_BANDS;
            for (i, series) in plot.series.iter().enumerate() {
                line(&mut out, series, bands, repeat(plot, i), &x, &y);
            }
            ends(&mut out, plot, &labels, &x, &y, size);
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Width of a bold text, about: letters differ by a factor of three.
fn text_width(text: &str, size: &Size) -> f64 {
    let one = |c: char| match c {
        'm' | 'w' | 'M' | 'W' | '…' => 0.98,
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | ' ' | ',' | '.' | ':' | '(' | ')' => 0.4,
        _ => CHARACTER,
    };
    text.chars().map(one).sum::<f64>() * size.font
}

/// How many series before this one look the same: each gets other dashes.
fn repeat(plot: &Plot, index: usize) -> usize {
    let own = plot.series.get(index).map(|series| series.look);
    plot.series.iter().take(index).filter(|other| Some(other.look) == own).count()
}

fn dashes(repeat: usize) -> &'static str {
    match repeat % 4 {
        0 => "",
        1 => " stroke-dasharray=\"7 4\"",
        2 => " stroke-dasharray=\"2 3\"",
        _ => " stroke-dasharray=\"9 3 2 3\"",
    }
}

fn axes(out: &mut String, plot: &Plot, x: &Axis, y: &Axis, size: &Size) {
    let font = size.font;
    for &tick in &y.ticks {
        let at = y.at(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
        let label = tick_label(tick, &y.ticks);
        let (lx, ly) = (x.from - 7.0, at + 0.35 * font);
        let _ = writeln!(out, "<text x=\"{lx:.1}\" y=\"{ly:.1}\" text-anchor=\"end\">{label}</text>");
    }
    for &tick in &x.ticks {
        let at = x.at(tick);
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{at:.1} {:.1}v5\"/>", y.from);
        let label = tick_label(tick, &x.ticks);
        let ly = y.from + 1.5 * font;
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{ly:.1}\" text-anchor=\"middle\">{label}</text>");
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{:.1} {:.1}V{:.1}H{:.1}\"/>", x.from, y.to, y.from, x.to);
    let scale = |log: bool| if log { ", log" } else { "" };
    let middle = f64::midpoint(x.from, x.to);
    let below = y.from + 2.95 * font;
    let (x_label, y_label) = (escape(&plot.x_label), escape(&plot.y_label));
    let _ = writeln!(
        out,
        "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{x_label}{}</text>",
        scale(plot.log_x)
    );
    let middle = f64::midpoint(y.from, y.to);
    let _ = writeln!(
        out,
        "<text transform=\"translate({font} {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{y_label}{}</text>",
        scale(plot.log_y)
    );
}

/// A dashed line, or its name at the edge beyond which it lies.
fn draw_level(out: &mut String, label: &str, value: f64, x: &Axis, y: &Axis, size: &Size) {
    let text = |out: &mut String, at: f64, text: &str| {
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{at:.1}\">{}</text>", x.from + 6.0, escape(text));
    };
    if y.holds(value) {
        let at = y.at(value);
        let _ = writeln!(out, "<path class=\"level\" d=\"M{:.1} {at:.1}H{:.1}\"/>", x.from, x.to);
        text(out, at - 5.0, label);
    } else {
        let below = y.ticks.first().is_none_or(|first| value < *first);
        let (at, arrow) = if below { (y.from - 6.0, '↓') } else { (y.to + size.font, '↑') };
        text(out, at, &format!("{arrow} {label}: {}", super::catalogue::significant(value, 4)));
    }
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut out = String::new();
    for (px, py) in points {
        let _ = write!(out, "{}{px:.1} {py:.1}", if out.is_empty() { 'M' } else { 'L' });
    }
    out
}

fn line(out: &mut String, series: &Series, band: bool, repeat: usize, x: &Axis, y: &Axis) {
    let at = |value: fn(&Point) -> f64| move |p: &Point| (x.at(p.x), y.at(value(p)));
    let _ = writeln!(out, "<g class=\"{}\">", series.look.class());
    if band && series.points.len() > 1 && series.points.iter().any(|p| p.high > p.low) {
        let upper = series.points.iter().map(at(|p| p.high));
        let lower = series.points.iter().rev().map(at(|p| p.low));
        let _ = writeln!(out, "<path class=\"band\" d=\"{}Z\"/>", path(upper.chain(lower)));
    } else {
        bars(out, &series.points, x, y);
    }
    if series.points.len() > 1 {
        let mean = path(series.points.iter().map(at(|p| p.y)));
        let _ = writeln!(out, "<path class=\"line\"{} d=\"{mean}\"/>", dashes(repeat));
    }
    if series.points.len() <= MOST_MARKERS {
        for p in &series.points {
            mark(out, series, x.at(p.x), y.at(p.y), if series.points.len() > 1 { 3.2 } else { 5.0 });
        }
    }
    out.push_str("</g>\n");
}

/// The range of the seeds at each point, where there is one.
fn bars(out: &mut String, points: &[Point], x: &Axis, y: &Axis) {
    let one = |p: &Point| format!("M{:.1} {:.1}V{:.1}", x.at(p.x), y.at(p.low), y.at(p.high));
    let all: String = points.iter().filter(|p| p.high > p.low).map(one).collect();
    if !all.is_empty() {
        let _ = writeln!(out, "<path class=\"bar\" d=\"{all}\"/>");
    }
}

fn mark(out: &mut String, series: &Series, x: f64, y: f64, r: f64) {
    let _ = writeln!(out, "<path class=\"dot\" d=\"{}\"/>", series.look.kind.marker(x, y, r));
}

/// Names behind the ends of the lines.
fn ends(out: &mut String, plot: &Plot, labels: &[String], x: &Axis, y: &Axis, size: &Size) {
    let end = |series: &Series| series.points.last().map_or((x.to, y.from), |p| (x.at(p.x), y.at(p.y)));
    let wanted: Vec<f64> = plot.series.iter().map(|series| end(series).1).collect();
    let placed = spread(&wanted, size.font + 3.0, y.to + 0.3 * size.font, y.from);
    for ((series, label), height) in plot.series.iter().zip(labels).zip(placed) {
        let (px, py) = end(series);
        let _ = writeln!(
            out,
            "<g class=\"{}\"><path class=\"lead\" d=\"M{:.1} {py:.1}L{:.1} {height:.1}\"/><text class=\"name\" x=\"{:.1}\" \
             y=\"{:.1}\">{}</text></g>",
            series.look.class(),
            px + 4.0,
            x.to + 14.0,
            x.to + 17.0,
            height + 0.35 * size.font,
            escape(label)
        );
    }
}

/// Single points with their names beside them, and the front.
fn points(out: &mut String, plot: &Plot, labels: &[String], x: &Axis, y: &Axis, size: &Size) {
    let inside: Vec<(f64, f64)> = plot.frontier.iter().map(|p| (x.at(p[0]), y.at(p[1]))).collect();
    if let [first, rest @ ..] = inside.as_slice() {
        let _ = write!(out, "<path class=\"front\" d=\"M{:.1} {:.1}", first.0, first.1);
        for (px, py) in rest {
            let _ = write!(out, "H{px:.1}V{py:.1}");
        }
        let _ = writeln!(out, "H{:.1}\"/>", x.to);
    }
    let mut taken: Vec<Area> = Vec::new();
    let at = |series: &Series| series.points.first().map(|p| (x.at(p.x), y.at(p.y)));
    for (px, py) in plot.series.iter().filter_map(at) {
        taken.push([px - 6.0, py - 6.0, px + 6.0, py + 6.0]);
    }
    // names stand beside the front and the bars too, not on them
    for (corner, next) in inside.iter().zip(inside.iter().skip(1).map(|p| p.0).chain([x.to])) {
        taken.push([corner.0, corner.1 - 1.0, next, corner.1 + 1.0]);
    }
    for (from, to) in inside.iter().zip(inside.iter().skip(1)) {
        taken.push([to.0 - 1.0, from.1.min(to.1), to.0 + 1.0, from.1.max(to.1)]);
    }
    let bounds = [x.from + 2.0, y.to, x.to, y.from - 2.0];
    let named = named(plot);
    for (i, (series, label)) in plot.series.iter().zip(labels).enumerate() {
        let Some((px, py)) = at(series) else { continue };
        if !named.contains(&i) {
            let _ = writeln!(out, "<g class=\"{}\">", series.look.class());
            bars(out, &series.points, x, y);
            out.push_str("</g>\n");
            continue;
        }
        let (width, height) = (text_width(label, size), size.font + 2.0);
        let (lx, ly) = beside((px, py), (width, height), &bounds, &taken);
        taken.push(area(lx, ly, width, height));
        let _ = writeln!(out, "<g class=\"{}\">", series.look.class());
        bars(out, &series.points, x, y);
        // a label that had to go far away is led to
        let near = (px.clamp(lx, lx + width), py.clamp(ly - height / 2.0, ly + height / 2.0));
        if (near.0 - px).hypot(near.1 - py) > 13.0 {
            let _ = writeln!(out, "<path class=\"lead\" d=\"M{px:.1} {py:.1}L{:.1} {:.1}\"/>", near.0, near.1);
        }
        let baseline = ly + 0.35 * size.font;
        let _ = writeln!(out, "<text class=\"name\" x=\"{lx:.1}\" y=\"{baseline:.1}\">{}</text></g>", escape(label));
    }
    // over the grounds of the names
    for series in &plot.series {
        if let Some((px, py)) = at(series) {
            let _ = writeln!(out, "<g class=\"{}\">", series.look.class());
            mark(out, series, px, py, 5.0);
            out.push_str("</g>\n");
        }
    }
}

/// Which points have their names beside them: all of few, of many those on the front, and as many as fit of the rest.
fn named(plot: &Plot) -> Vec<usize> {
    let on_front = |series: &Series| series.points.first().is_some_and(|p| plot.frontier.contains(&[p.x, p.y]));
    let (front, rest): (Vec<usize>, Vec<usize>) =
        (0..plot.series.len()).partition(|i| plot.series.get(*i).is_some_and(on_front));
    let room = if plot.series.len() > MOST_NAMES { 0 } else { rest.len() };
    let mut all: Vec<usize> = front.into_iter().take(MOST_NAMES).chain(rest.into_iter().take(room)).collect();
    all.sort_unstable();
    all
}

fn shorten(label: &str, most: usize) -> String {
    if label.chars().count() <= most {
        return label.to_owned();
    }
    let kept: String = label.chars().take(most - 1).collect();
    format!("{kept}…")
}

/// Text for XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
