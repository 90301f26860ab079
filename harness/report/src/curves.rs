//! Learning curves and sweep curves as data.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue;
use super::group::{Group, Part};
use super::look::Look;
use super::model::{Form, Level, Loaded, Plot, Point, Series};
use super::provenance;
use super::tables::metric_info;
use metrics::TRAIN_SPLIT;
use metrics::stream::PREQUENTIAL;
use statistics::Better;

/// Split that is evaluated during training.
const VALID: &str = "valid";
/// A horizontal axis that spans more than this factor is logarithmic.
const LOG_FACTOR: f64 = 50.0;
/// A vertical axis that spans more than this factor is logarithmic.
const LOG_HEIGHT: f64 = 3.0;
/// Lines up to which one drawing holds them all.
const MOST_LINES: usize = 8;
/// Panels that are drawn.
const MOST_PANELS: usize = 12;
/// Values from which on a sweep is worth a line.
const SWEEP_POINTS: usize = 3;

/// The first main metric against the data seen; `None` unless it was evaluated at least twice during some run.
pub(super) fn learning(part: &Part, loaded: &Loaded, id: &str) -> Option<Plot> {
    let metric = *part.main_metrics().first()?;
    let split = curve_split(part, loaded, metric)?;
    let mut series = Vec::new();
    for group in &part.groups {
        let points = curve(group, loaded, metric, &split);
        if !points.is_empty() {
            series.push(Series { label: part.label(group), look: part.look(group), points });
        }
    }
    let info = metric_info(part, metric);
    let unit = provenance::unit(part);
    let place = provenance::place(part, &split);
    let level = (metric == "bits_per_byte").then(|| part.floor()).flatten();
    let without = part.runs().filter(|run| run.completed() && !loaded.evals.contains_key(&run.head.cell)).count();
    let mut caption = band_caption(part);
    if let Some(extent) = extent(part, loaded, metric, &split) {
        caption = format!("{caption} Each point is over {extent}.");
    }
    let form = laid_out(&mut series, info.better, &mut caption);
    if without > 0 {
        let cells = if without == 1 { "1 completed cell has" } else { &format!("{without} completed cells have") };
        caption = format!("{caption} {cells} no stored evaluations and cannot be drawn.");
    }
    Some(Plot {
        id: format!("{id}-learning-curve"),
        title: format!("Learning curves: {} on {place}", info.label),
        caption,
        x_label: format!("{unit} seen"),
        y_label: info.label,
        log_x: wide(&series, LOG_FACTOR),
        log_y: info.better == Some(Better::Lower) && high(&series),
        form,
        series,
        frontier: Vec::new(),
        level: level.map(|y| Level { label: "entropy floor".into(), y }),
    })
}

/// The loss of each window of the training stream, before the learner learned from it; `None` where nobody has two windows.
pub(super) fn along_the_stream(part: &Part, loaded: &Loaded, id: &str, metric: &str, window: &str) -> Option<Plot> {
    let line = |group: &Group| {
        let points = curve(group, loaded, metric, TRAIN_SPLIT);
        (points.len() > 1).then(|| Series { label: part.label(group), look: part.look(group), points })
    };
    let mut series: Vec<Series> = part.groups.iter().filter_map(line).collect();
    if series.is_empty() {
        return None;
    }
    let mut caption = format!("Mean loss of {window}, before it was learned from. {}", band_caption(part));
    let form = laid_out(&mut series, Some(Better::Lower), &mut caption);
    Some(Plot {
        id: format!("{id}-stream"),
        title: "Loss along the stream".into(),
        caption,
        x_label: format!("{} seen", provenance::unit(part)),
        y_label: metric_info(part, PREQUENTIAL).label,
        log_x: false,
        log_y: false,
        form,
        series,
        frontier: Vec::new(),
        level: None,
    })
}

/// The first main metric against a setting, for every model that was swept over one number.
pub(super) fn sweeps(part: &Part, id: &str) -> Vec<Plot> {
    let Some(&metric) = part.main_metrics().first() else { return Vec::new() };
    let info = metric_info(part, metric);
    let mut by_path: BTreeMap<&str, Vec<Series>> = BTreeMap::new();
    let models: BTreeSet<&str> = part.groups.iter().map(|group| group.model).collect();
    for model in models {
        let groups = part.groups.iter().filter(|group| group.model == model);
        let mut points = Vec::new();
        let mut path = None;
        for group in groups {
            let [(only, Some(value))] = group.point.as_slice() else { continue };
            let Ok(x) = value.parse::<f64>() else { continue };
            path = Some(*only);
            points.extend(point(x, group.by_seed(metric, Some(part.split)).into_values()));
        }
        if let Some(path) = path.filter(|_| points.len() >= SWEEP_POINTS) {
            by_path.entry(path).or_default().push(Series {
                label: model.to_owned(),
                look: part.groups.iter().find(|group| group.model == model).map_or(Look::of(""), |g| Look::of(g.kind)),
                points,
            });
        }
    }
    let plot = |(path, series): (&str, Vec<Series>)| {
        let label = part.varying.iter().find(|v| v.path == path).map_or(path, |v| v.label.as_str());
        Plot {
            id: format!("{id}-by-{}", catalogue::slug(label)),
            title: format!("{} by {label}", info.label),
            caption: band_caption(part),
            x_label: label.to_owned(),
            y_label: info.label.clone(),
            log_x: wide(&series, LOG_FACTOR),
            log_y: info.better == Some(Better::Lower) && high(&series),
            form: Form::Lines,
            series,
            frontier: Vec::new(),
            level: None,
        }
    };
    by_path.into_iter().map(plot).collect()
}

/// The split with at least two evaluations during some run; `valid` before others.
fn curve_split(part: &Part, loaded: &Loaded, metric: &str) -> Option<String> {
    let mut splits: BTreeSet<&str> = BTreeSet::new();
    for run in part.runs().filter(|run| run.completed()) {
        let mut first: BTreeMap<&str, u64> = BTreeMap::new();
        for row in loaded.evals.get(&run.head.cell).into_iter().flatten().filter(|row| row.metric == metric) {
            if *first.entry(&row.split).or_insert(row.seen) != row.seen {
                splits.insert(&row.split);
            }
        }
    }
    let chosen = splits.get(VALID).or_else(|| splits.first())?;
    Some((*chosen).to_owned())
}

/// Over how much each evaluation of a curve is, where it is the same for all and its unit is known.
fn extent(part: &Part, loaded: &Loaded, metric: &str, split: &str) -> Option<String> {
    let unit = part.info.filter(|info| info.metrics.first() == Some(&metric))?.curve_items?;
    let rows = part.runs().filter_map(|run| loaded.evals.get(&run.head.cell)).flatten();
    let mut amounts = rows.filter(|row| row.metric == metric && row.split == split).map(|row| row.n);
    let first = amounts.next()?;
    amounts.all(|n| n == first).then(|| format!("{} {unit}", catalogue::count(first)))
}

/// A configuration's curve: at each update after which all its runs were evaluated, against what they had seen by then on the
/// mean. Seeds whose batches differ in length see different amounts in as many updates.
pub(super) fn curve(group: &Group, loaded: &Loaded, metric: &str, split: &str) -> Vec<Point> {
    let mut at: BTreeMap<u64, BTreeMap<&str, (u64, f64)>> = BTreeMap::new();
    let mut cells = BTreeSet::new();
    for run in group.completed() {
        for row in loaded.evals.get(&run.head.cell).into_iter().flatten() {
            if row.metric == metric && row.split == split {
                cells.insert(&run.head.cell);
                let value = row.value.filter(|value| value.is_finite());
                at.entry(row.step).or_default().extend(value.map(|v| (run.head.cell.as_str(), (row.seen, v))));
            }
        }
    }
    // a mean over changing sets of seeds would jump where a seed joins or leaves
    let whole = at.into_values().filter(|values| values.len() == cells.len());
    let mean_seen = |values: &BTreeMap<&str, (u64, f64)>| {
        values.values().map(|(seen, _)| *seen as f64).sum::<f64>() / values.len().max(1) as f64
    };
    whole.filter_map(|values| point(mean_seen(&values), values.values().map(|(_, value)| *value))).collect()
}

/// Magnitudes that a drawing can hold: results of others may say anything.
const DRAWABLE: std::ops::RangeInclusive<f64> = 1e-100..=1e100;

/// The mean of values with their lowest and highest; values that no drawing can hold are left out.
pub(super) fn point(x: f64, values: impl Iterator<Item = f64>) -> Option<Point> {
    let is_drawable = |v: &f64| *v == 0.0 || DRAWABLE.contains(&v.abs());
    let values: Vec<f64> = values.filter(is_drawable).collect();
    if !is_drawable(&x) {
        return None;
    }
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some(Point { x, y: values.iter().sum::<f64>() / values.len() as f64, low, high })
}

/// Whether horizontal positions are positive and span more than a factor.
pub(super) fn wide(series: &[Series], factor: f64) -> bool {
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| p.x));
    let (low, high) = (xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max));
    low > 0.0 && high / low > factor
}

/// Whether the values span so much that a linear axis would squeeze most of them.
fn high(series: &[Series]) -> bool {
    let all = || series.iter().flat_map(|s| &s.points);
    let low = all().map(|p| p.low).fold(f64::INFINITY, f64::min);
    low > 0.0 && all().map(|p| p.high).fold(0.0, f64::max) / low > LOG_HEIGHT
}

/// How lines are drawn: each in a panel where they are many, the best of them where they are more than panels; what is left out is said
/// behind the caption.
fn laid_out(series: &mut Vec<Series>, better: Option<Better>, caption: &mut String) -> Form {
    let form = if series.len() > MOST_LINES { Form::Panels } else { Form::Lines };
    let left_out = keep_best(series, better);
    if left_out > 0 {
        *caption = format!("{caption} The {MOST_PANELS} that end best are drawn, {left_out} are not.");
    }
    form
}

/// Leaves as many lines as there are panels, those whose last value is best, in their order; how many were left out.
fn keep_best(series: &mut Vec<Series>, better: Option<Better>) -> usize {
    let count = series.len();
    if count <= MOST_PANELS {
        return 0;
    }
    let loss = |series: &Series| {
        let last = series.points.last().map_or(f64::INFINITY, |p| p.y);
        if better == Some(Better::Higher) { -last } else { last }
    };
    let mut losses: Vec<f64> = series.iter().map(loss).collect();
    losses.sort_by(f64::total_cmp);
    let worst = losses.get(MOST_PANELS - 1).copied().unwrap_or(f64::INFINITY);
    series.retain(|series| loss(series) <= worst);
    series.truncate(MOST_PANELS);
    count - series.len()
}

fn band_caption(part: &Part) -> String {
    let most = part.groups.iter().map(|group| group.completed().count()).max().unwrap_or(0);
    if most > 1 {
        "Lines are means over completed seeds; bands or bars span the smallest and the largest seed.".into()
    } else {
        "1 seed per line, no interval.".into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, cell, config};
    use super::super::group::parts;
    use super::super::{Paper, compute};
    use super::*;

    #[test]
    fn curves_are_means_of_completed_runs_with_the_range_of_the_seeds() {
        let report = compute(&fixture::quickstart(), &Paper::embedded().unwrap());
        let plot = &report.sections[0].plots[0];
        let labels: Vec<&str> = plot.series.iter().map(|s| s.label.as_str()).collect();
        assert_eq!(labels, ["bim", "lstm", "rnn"]);
        assert!(plot.log_x && plot.level.as_ref().is_some_and(|level| (level.y - 1.9).abs() < 1e-12));
        let first = plot.series[0].points[0];
        assert!((first.x - 1000.0).abs() < 1e-9 && (first.y - 7.5).abs() < 1e-9);
        let last = plot.series[0].points[4];
        assert!(last.low < last.y && last.y < last.high);
        assert_eq!(plot.title, "Learning curves: bits per byte on valid split");
        assert!(plot.caption.ends_with("Each point is over 4,096 bytes."), "{}", plot.caption);
        assert!(report.sections[1].plots[0].level.is_none());
    }

    /// A scale cannot hold what overflows or vanishes: such a value is no point, and the rest of the curve stands.
    #[test]
    fn what_no_drawing_can_hold_is_left_out() {
        let of = |x: f64, values: &[f64]| point(x, values.iter().copied()).map(|p| (p.y, p.low, p.high));
        assert_eq!(of(1.0, &[2.0, f64::INFINITY, 4.0, f64::NAN]), Some((3.0, 2.0, 4.0)));
        assert_eq!(of(1.0, &[0.0, 5e-324]), Some((0.0, 0.0, 0.0)));
        assert_eq!(of(1.0, &[-1e300]), None);
        assert_eq!((of(f64::INFINITY, &[1.0]), of(5e-324, &[1.0])), (None, None));
    }

    #[test]
    fn a_seed_that_stops_early_does_not_bend_the_mean() {
        let mut loaded = fixture::quickstart();
        loaded.evals.get_mut("bim-2-byte-200000").unwrap().truncate(3);
        let parts = parts(&loaded.rows);
        let plot = learning(&parts[0], &loaded, "x").unwrap();
        assert_eq!(plot.series[0].points.len(), 3, "only where both seeds were evaluated");
        assert_eq!(plot.series[1].points.len(), 5);
    }

    /// Batches of whole utterances: as many updates, not as many frames.
    #[test]
    fn seeds_that_saw_different_amounts_share_a_curve() {
        let mut loaded = fixture::quickstart();
        let shift = |rows: &mut Vec<rows::EvalRow>| rows.iter_mut().for_each(|row| row.seen += 100);
        shift(loaded.evals.get_mut("bim-2-byte-200000").unwrap());
        let before = learning(&parts(&fixture::quickstart().rows)[0], &fixture::quickstart(), "x").unwrap();
        let after = learning(&parts(&loaded.rows)[0], &loaded, "x").unwrap();
        assert_eq!(after.series[0].points.len(), 5);
        for (before, after) in before.series[0].points.iter().zip(&after.series[0].points) {
            assert_eq!((after.x, after.y), (before.x + 50.0, before.y));
        }
    }

    #[test]
    fn a_sweep_over_one_number_is_a_line() {
        let row = |lambda: &str, seed: u64, bits: f64| {
            let mut row = config(cell("bim", seed), &[("model.lambda", lambda)]);
            (row.metric, row.split, row.value) = (Some("bits_per_byte".into()), Some("test".into()), Some(bits));
            row
        };
        let rows = [row("1", 1, 2.4), row("0", 1, 2.0), row("0.5", 1, 2.1), row("0.5", 2, 2.3)];
        let parts = parts(&rows);
        let plots = sweeps(&parts[0], "x");
        assert_eq!((plots.len(), plots[0].x_label.as_str(), plots[0].id.as_str()), (1, "lambda", "x-by-lambda"));
        let points = &plots[0].series[0].points;
        assert_eq!(points.iter().map(|p| p.x).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
        assert_eq!((points[1].low, points[1].high), (2.1, 2.3));
        assert!(!plots[0].log_x, "zero has no logarithm");
    }
}
