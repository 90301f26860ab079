//! Memory against length: peak bytes of a training step by how far the model looks back, and where online learning becomes
//! cheaper than backpropagation through time.

use super::catalogue::{self, significant};
use super::curves::point;
use super::group::{Group, Part};
use super::look::Look;
use super::look::OURS;
use super::model::{Cell, Column, Form, Outcome, Place, Plot, Series, Table};
use super::provenance;
use statistics::fit::{Line, line};

/// Configuration path of the window: the steps that one update backpropagates through, or BIM's credit chunk.
const WINDOW: &str = "train.segment";
/// Configuration path of the budget: with one stream, its length.
const SEEN: &str = "train.seen";
/// Lengths from which on a model has a line.
const LEAST_LENGTHS: usize = 3;
/// Share by which memory may rise between the shortest and the longest length and still be called level.
const LEVEL: f64 = 0.05;
/// Below this share of the variance a line does not describe how memory grows, and what follows from it is rough.
const STRAIGHT: f64 = 0.99;
/// Bytes in a mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

/// What of a model's training was made longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// The window, and the stream with it.
    Window,
    /// The stream alone: the window stayed.
    Stream,
}

/// One model at several lengths.
struct Growth<'a> {
    model: &'a str,
    length: Length,
    /// Steps, and the highest live bytes of each seed.
    bytes: Vec<(f64, Vec<f64>)>,
    line: Line,
}

impl Growth<'_> {
    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// Steps and mean bytes at the shortest and the longest length.
    fn ends(&self) -> Option<[(f64, f64); 2]> {
        let at = |entry: &(f64, Vec<f64>)| (entry.0, Self::mean(&entry.1));
        Some([at(self.bytes.first()?), at(self.bytes.last()?)])
    }

    fn is_straight(&self) -> bool {
        self.line.r_squared.is_none_or(|r| r >= STRAIGHT)
    }
}

/// Models that were run at several lengths and at nothing else; none unless some window was among them.
fn growths<'a>(part: &'a Part) -> Vec<Growth<'a>> {
    let mut models: Vec<&str> = Vec::new();
    for group in &part.groups {
        if !models.contains(&group.model) {
            models.push(group.model);
        }
    }
    let all: Vec<Growth> = models.into_iter().filter_map(|model| growth(part, model)).collect();
    if all.iter().any(|growth| growth.length == Length::Window) { all } else { Vec::new() }
}

fn growth<'a>(part: &'a Part, model: &'a str) -> Option<Growth<'a>> {
    let groups: Vec<&Group> = part.groups.iter().filter(|group| group.model == model).collect();
    let paths: Vec<&str> = groups.first()?.point.iter().map(|(path, _)| *path).collect();
    if paths.iter().any(|path| ![WINDOW, SEEN].contains(path)) {
        return None;
    }
    let length = if paths.contains(&WINDOW) { Length::Window } else { Length::Stream };
    let steps = |group: &Group| -> Option<f64> {
        let number = |path: &str| group.runs.first()?.head.config.get(path)?.parse::<f64>().ok();
        match length {
            Length::Window => number(WINDOW),
            Length::Stream => Some(number(SEEN)? / number("train.streams").unwrap_or(1.0)),
        }
    };
    let peaks = |group: &Group| -> Vec<f64> {
        group.completed().filter_map(|run| run.head.peak_bytes.map(|bytes| bytes as f64)).collect()
    };
    let mut bytes: Vec<(f64, Vec<f64>)> =
        groups.iter().filter_map(|group| Some((steps(group)?, peaks(group)))).filter(|b| !b.1.is_empty()).collect();
    bytes.sort_by(|a, b| a.0.total_cmp(&b.0));
    if bytes.len() < LEAST_LENGTHS {
        return None;
    }
    let means: Vec<(f64, f64)> = bytes.iter().map(|(steps, values)| (*steps, Growth::mean(values))).collect();
    Some(Growth { model, length, line: line(&means)?, bytes })
}

/// How each model's memory grows; `None` unless models were run at several lengths.
pub(super) fn table(part: &Part, id: &str) -> Option<Table> {
    let all = growths(part);
    all.first()?;
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let caption = format!(
        "Highest live bytes of the allocator within a training step: weights, optimiser, segments of data and all, without \
         what the process held before the cell began. \
         Window: the {unit} that one update backpropagates through, the stream being longer. Stream: the {unit} seen, in one \
         stream unless stated, with the window as it is. Line of least squares through the means over seeds."
    );
    let mut table = Table::empty(format!("{id}-memory"), "Memory against length", caption);
    (table.place, table.open) = (Place::Everywhere, true);
    let mut add = |column: Column, cell: &dyn Fn(&Growth) -> String| {
        table.push_column(column, all.iter().map(|growth| Cell::new(cell(growth))).collect());
    };
    let end = |growth: &Growth, i: usize| growth.ends().and_then(|ends| ends.get(i).copied()).unwrap_or_default();
    let count = |x: f64| catalogue::count(x.round() as u64);
    add(Column::text("model"), &|g| g.model.to_owned());
    add(Column::text("length of the"), &|g| if g.length == Length::Window { "window" } else { "stream" }.to_owned());
    add(Column::number(format!("from ({unit})")), &|g| count(end(g, 0).0));
    add(Column::number("bytes there"), &|g| catalogue::bytes(end(g, 0).1));
    add(Column::number(format!("to ({unit})")), &|g| count(end(g, 1).0));
    add(Column::number("bytes there"), &|g| catalogue::bytes(end(g, 1).1));
    add(Column::number(format!("bytes per {one}")), &|g| significant(g.line.slope, 3));
    add(Column::number("bytes at length 0"), &|g| catalogue::bytes(g.line.intercept));
    add(Column::number("R²"), &|g| g.line.r_squared.map_or("constant".to_owned(), |r| format!("{r:.4}")));
    Some(table)
}

/// The length from which on each online model needs fewer bytes than each model with a window.
pub(super) fn crossovers(part: &Part, id: &str) -> Option<Table> {
    let all = growths(part);
    let (windows, streams): (Vec<&Growth>, Vec<&Growth>) = all.iter().partition(|g| g.length == Length::Window);
    if streams.is_empty() || windows.is_empty() {
        return None;
    }
    let unit = provenance::unit(part);
    let caption = format!(
        "Length in {unit} at which the two lines of the table above meet: for longer ones the model of the column, whose \
         memory does not depend on how far it looks back, needs fewer bytes than backpropagation through a window of that \
         length by the model of the row. Lines, not measurements: the sizes of the networks differ too."
    );
    let mut table =
        Table::empty(format!("{id}-crossover"), "Length from which online learning needs less memory", caption);
    (table.place, table.open) = (Place::Everywhere, true);
    table.push_column(Column::text("window of"), windows.iter().map(|g| Cell::new(g.model)).collect());
    for stream in &streams {
        let cells = windows.iter().map(|window| Cell::new(crossover(stream, window)));
        table.push_column(Column::number(stream.model), cells.collect());
    }
    table.notes.push("*: outside the lengths that were measured.".into());
    let bent: Vec<&str> = windows.iter().filter(|g| !g.is_straight()).map(|g| g.model).collect();
    if !bent.is_empty() {
        table.notes.push(format!(
            "R² of the line is below {STRAIGHT} for {}: memory does not grow in a straight line there, and the length is rough.",
            bent.join(", ")
        ));
    }
    Some(table)
}

fn crossover(stream: &Growth, window: &Growth) -> String {
    if window.line.slope <= stream.line.slope {
        return "none".into();
    }
    match (stream.line.meets(&window.line), window.ends()) {
        (Some(length), _) if length <= 0.0 => "any".into(),
        (Some(length), Some([(low, _), (high, _)])) => {
            let mark = if (low..=high).contains(&length) { "" } else { "*" };
            format!("{}{mark}", catalogue::count(length.round() as u64))
        }
        _ => "none".into(),
    }
}

/// What the lengths say of the paper's claim that online learning takes memory that does not grow: whether it stays, and whether that of
/// backpropagation through time grows.
pub(super) fn claim(part: &Part) -> Option<(Outcome, String, String)> {
    let all = growths(part);
    let kind = |growth: &Growth| part.groups.iter().find(|group| group.model == growth.model).map(|group| group.kind);
    let ratio = |growth: &Growth| growth.ends().map_or(f64::NAN, |[first, last]| last.1 / first.1);
    let (windows, streams): (Vec<&Growth>, Vec<&Growth>) = all.iter().partition(|g| g.length == Length::Window);
    let online: Vec<&Growth> = streams.into_iter().filter(|growth| kind(growth) == Some(OURS)).collect();
    if online.is_empty() || windows.is_empty() {
        return None;
    }
    let flat = online.iter().filter(|growth| ratio(growth) < 1.0 + LEVEL).count();
    let grow = windows.iter().filter(|growth| ratio(growth) > 1.0 + LEVEL).count();
    let outcome = match (flat, grow) {
        (0, _) | (_, 0) => Outcome::DidNotHold,
        _ if flat == online.len() && grow == windows.len() => Outcome::Held,
        _ => Outcome::InPart,
    };
    let unit = provenance::unit(part);
    let text = |growth: &&Growth| {
        let [first, last] = growth.ends()?;
        let of = if growth.length == Length::Window { "window" } else { "stream" };
        let (from, to) = (catalogue::bytes(first.1), catalogue::bytes(last.1));
        let (short, long) = (catalogue::count(first.0.round() as u64), catalogue::count(last.0.round() as u64));
        Some(format!("{} {from} to {to} ({of} of {short} to {long} {unit})", growth.model))
    };
    let texts: Vec<String> = online.iter().chain(&windows).filter_map(text).collect();
    Some((outcome, outcome.words().into(), format!("peak memory: {}", texts.join("; "))))
}

/// Bytes against length, a line per model.
pub(super) fn plot(part: &Part, id: &str) -> Option<Plot> {
    let all = growths(part);
    all.first()?;
    let unit = provenance::unit(part);
    let series = |growth: &Growth| {
        let points = growth.bytes.iter().filter_map(|(steps, bytes)| point(*steps, bytes.iter().map(|b| b / MIB)));
        let of = if growth.length == Length::Window { "window" } else { "stream" };
        let look =
            part.groups.iter().find(|group| group.model == growth.model).map_or(Look::of(""), |g| Look::of(g.kind));
        Series { label: format!("{} ({of})", growth.model), look, points: points.collect() }
    };
    let series: Vec<Series> = all.iter().map(series).collect();
    Some(Plot {
        id: format!("{id}-memory"),
        title: "Peak memory of training against length".into(),
        caption: "Highest live bytes within a training step against the length of the window that is backpropagated through, \
                  or of the stream where the window stays; bands or bars span the seeds. Both \
                  axes are logarithmic: what is flat is level, what grows in proportion rises by one decade in one."
            .into(),
        x_label: format!("length ({unit})"),
        y_label: "MiB".into(),
        log_x: true,
        log_y: true,
        form: Form::Lines,
        series,
        frontier: Vec::new(),
        level: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cell, config};
    use super::super::group::parts;
    use super::*;
    use rows::results::ResultRow;

    fn row(model: &str, window: Option<u64>, seen: u64, bytes: u64) -> ResultRow {
        let (window, seen) = (window.unwrap_or(32).to_string(), seen.to_string());
        let pairs = [(WINDOW, window.as_str()), (SEEN, seen.as_str()), ("task.vocabulary", "byte")];
        let kind = if model == "online" { "bim" } else { model };
        ResultRow { peak_bytes: Some(bytes), kind: kind.into(), ..config(cell(model, 1), &pairs) }
    }

    /// Online 10 MB at any length; backpropagation 1 MB and 10 kB a step, or 50 kB a step squared by and by.
    fn rows() -> Vec<ResultRow> {
        let mut rows: Vec<ResultRow> = [100, 1000, 10_000].map(|seen| row("online", None, seen, 10_000_000)).into();
        rows.extend([100, 1000, 4000].map(|t| row("lstm", Some(t), 2 * t, 1_000_000 + 10_000 * t)));
        rows.extend([100, 1000, 4000].map(|t| row("attention", Some(t), 2 * t, 1_000_000 + 50 * t * t)));
        rows.extend([100, 1000, 4000].map(|t| row("small", Some(t), 2 * t, 100 * t)));
        rows
    }

    #[test]
    fn lines_meet_where_they_must() {
        let rows = rows();
        let parts = parts(&rows);
        let table = table(&parts[0], "x").unwrap();
        let lstm: Vec<&str> = table.rows[1].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(lstm[..3], ["lstm", "window", "100"]);
        assert_eq!(lstm[6..], ["10000", "977 KiB", "1.0000"]);
        assert_eq!(table.rows[0].last().unwrap().text, "constant");
        let crossovers = crossovers(&parts[0], "x").unwrap();
        let found = |i: usize| crossovers.rows[i].iter().map(|c| c.text.as_str()).collect::<Vec<_>>();
        assert_eq!(found(0), ["lstm", "900"]);
        assert_eq!(found(2), ["small", "100,000*"], "beyond what was measured");
        assert!(crossovers.notes[1].contains("for attention:"), "{:?}", crossovers.notes);
        let (outcome, _, number) = claim(&parts[0]).expect("lengths of both");
        assert_eq!(outcome, Outcome::Held, "{number}");
        assert!(number.contains("online 9.54 MiB to 9.54 MiB (stream of 100 to 10,000"), "{number}");
        let plot = plot(&parts[0], "x").unwrap();
        assert_eq!(plot.series.len(), 4);
        assert!(plot.log_x && plot.log_y, "the claim is about growth");
    }

    #[test]
    fn other_sweeps_are_not_about_memory() {
        let rows: Vec<ResultRow> = [100, 1000, 10_000].map(|seen| row("online", None, seen, 10_000_000)).into();
        assert!(table(&parts(&rows)[0], "x").is_none(), "no window among them");
        let mut rows = super::super::fixture::sweep().rows;
        rows.extend([100, 1000].map(|t| row("lstm", Some(t), 2 * t, 10_000 * t)));
        assert!(parts(&rows).iter().all(|part| table(part, "x").is_none()));
    }
}
