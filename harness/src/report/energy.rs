//! Operations and energy of a section: what a cost model makes of the counts, the counts as other tools would give them, and
//! quality against energy.

use super::catalogue::{self, Better};
use super::curves::{point, wide};
use super::group::{Group, Part};
use super::model::{Cell, Column, Place, Plot, Series, Table};
use super::provenance;
use super::tables::{label_columns, metric_info};
use crate::measure::operations::SPLIT;

/// Crossings of models that are listed.
const MOST_CROSSINGS: usize = 12;

fn mean(group: &Group, name: &str) -> Option<f64> {
    group.metric(name, Some(SPLIT)).estimate().map(|e| e.mean)
}

/// Whether a figure is a lower bound: operations that the counter did not understand, or that have no price.
fn is_bound(group: &Group, coverage: &str) -> bool {
    ["op_coverage", coverage].into_iter().any(|name| mean(group, name).is_some_and(|share| share < 1.0))
}

fn bounded(group: &Group, coverage: &str, text: String) -> String {
    if is_bound(group, coverage) { format!("≥ {text}") } else { text }
}

/// The cost models that this section's figures stand on.
fn cost_models(part: &Part) -> String {
    let names: Vec<&str> = part.config("energy").into_iter().collect();
    names.join(" or ")
}

/// Energies per step of the data; `None` if nothing was counted.
pub(super) fn energies(part: &Part, id: &str) -> Option<Table> {
    part.groups.iter().find(|group| mean(group, "energy_forward_pj").is_some())?;
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let caption = format!(
        "Per {one}, mean over the last fifth of training. Cost model {}: published prices times counted operations, not a \
         measurement. Weight products: operations with weights alone; arithmetic adds attention, scans and element-wise work; \
         traffic adds weights and state read and written, without reuse between steps or streams.",
        cost_models(part)
    );
    let mut table = Table::empty(format!("{id}-energy"), "Operations and energy", caption);
    table.place = Place::Everywhere;
    label_columns(&mut table, part, None);
    let (forward, learning) = ("energy_coverage_forward", "energy_coverage_learning");
    for (label, name, coverage) in [
        ("forward: weight products", "energy_synaptic_pj", forward),
        ("forward: arithmetic", "energy_forward_pj", forward),
        ("forward: with traffic", "energy_forward_with_traffic_pj", forward),
        ("learning: arithmetic", "energy_learning_pj", learning),
        ("learning: with traffic", "energy_learning_with_traffic_pj", learning),
    ] {
        let cell =
            |group: &Group| Cell::measured(mean(group, name).map(|pj| bounded(group, coverage, catalogue::energy(pj))));
        table.push_column(Column::number(label), part.groups.iter().map(cell).collect());
    }
    for (label, name) in [("counted", "op_coverage"), ("priced, forward", forward), ("priced, learning", learning)] {
        if part.groups.iter().any(|group| mean(group, name).is_some_and(|share| share < 1.0)) {
            let cell = |group: &Group| Cell::measured(mean(group, name).map(|share| format!("{share:.3}")));
            table.push_column(Column::number(label), part.groups.iter().map(cell).collect());
        }
    }
    if part.groups.iter().any(|group| is_bound(group, forward) || is_bound(group, learning)) {
        table.notes.push("≥: operations that were not understood, or have no price here, come on top.".into());
    }
    if part.config("energy").len() > 1 {
        let cell = |group: &Group| {
            let name = group.runs.first().and_then(|run| run.head.config.get("energy"));
            Cell::measured(name.cloned())
        };
        table.push_column(Column::text("cost model"), part.groups.iter().map(cell).collect());
        table.notes.push("Figures of different cost models do not compare.".into());
    }
    Some(table)
}

/// Forward weight products in four conventions, and where the order of models turns over.
pub(super) fn conventions(part: &Part, id: &str) -> Option<Table> {
    part.groups.iter().find(|group| mean(group, "neurobench_macs").is_some())?;
    let unit = provenance::unit(part);
    let caption = format!(
        "Multiply–accumulates (MAC) and accumulates (AC) of the forward weight products per {}, mean over the last fifth of \
         training. Ours: neither weight nor input zero; AC where the input is a spike by type, a burst of n as n. NeuroBench: \
         AC where a whole input tensor is -1, 0 or 1. SpikingJelly: AC where it is 0 or 1; zero weights count. syops-counter: \
         as SpikingJelly, with biases. Attention, scans and element-wise work are in none of them.",
        unit.strip_suffix('s').unwrap_or(unit)
    );
    let mut table = Table::empty(format!("{id}-conventions"), "Operations in four conventions", caption);
    table.place = Place::Detail;
    label_columns(&mut table, part, None);
    for (label, names) in CONVENTIONS {
        for (kind, name) in ["MAC", "AC"].into_iter().zip(names) {
            let cell = |group: &Group| {
                let count = |n: f64| catalogue::count(n.round() as u64);
                Cell::measured(mean(group, name).map(|n| bounded(group, "op_coverage", count(n))))
            };
            table.push_column(Column::number(format!("{label} {kind}")), part.groups.iter().map(cell).collect());
        }
    }
    for (label, names) in CONVENTIONS {
        table.notes.extend(crossings(part, label, names));
    }
    Some(table)
}

const CONVENTIONS: [(&str, [&str; 2]); 4] = [
    ("ours", ["weight_macs_forward", "acs_forward"]),
    ("NeuroBench", ["neurobench_macs", "neurobench_acs"]),
    ("SpikingJelly", ["spikingjelly_macs", "spikingjelly_acs"]),
    ("syops", ["syops_macs", "syops_acs"]),
];

/// Price of a multiply–accumulate in accumulates at which two models cost the same; `None` where one always costs less.
fn crossing(a: [f64; 2], b: [f64; 2]) -> Option<f64> {
    let ratio = (b[1] - a[1]) / (a[0] - b[0]);
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn crossings(part: &Part, convention: &str, [macs, acs]: [&str; 2]) -> Option<String> {
    let counted: Vec<(String, [f64; 2])> =
        part.groups.iter().filter_map(|g| Some((part.label(g), [mean(g, macs)?, mean(g, acs)?]))).collect();
    let mut found = Vec::new();
    for (i, (first, a)) in counted.iter().enumerate() {
        for (second, b) in counted.iter().skip(i + 1) {
            if let Some(ratio) = crossing(*a, *b) {
                // above it, whoever has more multiply–accumulates costs more
                let (less, more) = if a[0] < b[0] { (first, second) } else { (second, first) };
                found.push((ratio, format!("{less} below {more} from {}", catalogue::significant(ratio, 3))));
            }
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = found.len();
    let mut texts: Vec<String> = found.into_iter().take(MOST_CROSSINGS).map(|(_, text)| text).collect();
    if all > texts.len() {
        texts.push(format!("and {} more", all - texts.len()));
    }
    let what = "price of a MAC in ACs at which the order of two models turns over";
    (!texts.is_empty()).then(|| format!("By {convention} counts, {what}: {}.", texts.join("; ")))
}

/// The first main metric against the energy of the forward pass, a point per configuration.
pub(super) fn pareto(part: &Part, id: &str) -> Option<Plot> {
    let metric = *part.main_metrics().first()?;
    let info = metric_info(part, metric);
    let better = info.better?;
    // figures of different price lists do not belong in one picture
    if part.config("energy").len() != 1 {
        return None;
    }
    let mut series = Vec::new();
    for group in &part.groups {
        let Some(pj) = mean(group, "energy_forward_pj").filter(|pj| *pj > 0.0) else { continue };
        let values = group.by_seed(metric, Some(part.split));
        let points: Vec<_> = point(pj / 1e3, values.into_values()).into_iter().collect();
        if !points.is_empty() {
            series.push(Series { label: part.label(group), points });
        }
    }
    if series.len() < 2 {
        return None;
    }
    let front: Vec<&str> = front(&series, better).into_iter().map(|s| s.label.as_str()).collect();
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let mut caption = format!(
        "Mean over seeds. Energy of the forward pass, arithmetic alone, by cost model {}. No model is both better and cheaper \
         than: {}.",
        cost_models(part),
        front.join(", ")
    );
    if part.groups.iter().any(|group| is_bound(group, "energy_coverage_forward")) {
        caption.push_str(" Some energies are lower bounds, see the table.");
    }
    Some(Plot {
        id: format!("{id}-energy"),
        title: format!("{} against energy per {one}", info.label),
        caption,
        x_label: format!("nJ per {one}, forward"),
        y_label: info.label,
        log_x: wide(&series),
        series,
        level: None,
    })
}

/// Series of one point each that no other beats in both directions.
fn front(series: &[Series], better: Better) -> Vec<&Series> {
    let at = |s: &Series| s.points.first().map(|p| (p.x, if better == Better::Lower { p.y } else { -p.y }));
    let beaten = |s: &Series| {
        let Some((x, y)) = at(s) else { return true };
        series.iter().filter_map(at).any(|(ox, oy)| ox <= x && oy <= y && (ox < x || oy < y))
    };
    series.iter().filter(|s| !beaten(s)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::group::parts;
    use super::super::model::Point;
    use super::super::{ResultRow, fixture};
    use super::*;

    /// One cell with these metrics of training and a main metric.
    fn rows(model: &str, bits: f64, metrics: &[(&str, f64)]) -> Vec<ResultRow> {
        let cell = fixture::config(fixture::cell(model, 1), &[("energy", "prices-1999"), ("task.vocabulary", "byte")]);
        let row = |split: &str, name: &str, value: f64| ResultRow {
            split: Some(split.into()),
            metric: Some(name.into()),
            value: Some(value),
            ..cell.clone()
        };
        let mut all = vec![row("test", "bits_per_byte", bits)];
        all.extend(metrics.iter().map(|(name, value)| row(SPLIT, name, *value)));
        all
    }

    fn counted(model: &str, bits: f64, energy: f64, counts: [f64; 2], coverage: f64) -> Vec<ResultRow> {
        let [macs, acs] = counts;
        rows(
            model,
            bits,
            &[
                ("energy_forward_pj", energy),
                ("op_coverage", coverage),
                ("energy_coverage_forward", 1.0),
                ("energy_coverage_learning", 1.0),
                ("weight_macs_forward", macs),
                ("acs_forward", acs),
                ("neurobench_macs", macs),
                ("neurobench_acs", acs),
            ],
        )
    }

    #[test]
    fn bounds_and_cost_models_are_named() {
        let all = [counted("bim", 2.0, 1500.0, [100.0, 900.0], 0.5), counted("lstm", 2.2, 9e6, [400.0, 0.0], 1.0)];
        let rows = all.concat();
        let parts = parts(&rows);
        let table = energies(&parts[0], "x").unwrap();
        assert!(
            table.caption.contains("prices-1999") && table.caption.contains("not a measurement"),
            "{}",
            table.caption
        );
        let text = |row: usize| table.rows[row].iter().map(|c| c.text.as_str()).collect::<Vec<_>>();
        assert_eq!(text(0), ["bim", "≥ 1.50 nJ", "0.500"]);
        assert_eq!(text(1), ["lstm", "9.00 µJ", "1.000"]);
        assert!(table.notes[0].starts_with('≥'));
        let plain = fixture::quickstart();
        assert!(energies(&super::super::group::parts(&plain.rows)[0], "x").is_none(), "nothing counted, no table");
    }

    #[test]
    fn the_order_turns_over_where_the_prices_say() {
        assert_eq!(crossing([100.0, 900.0], [400.0, 0.0]), Some(3.0)); // 100·3 + 900 = 400·3
        assert_eq!(crossing([100.0, 0.0], [400.0, 900.0]), None);
        assert_eq!(crossing([100.0, 0.0], [100.0, 900.0]), None);
        let all = [counted("bim", 2.0, 1.0, [100.0, 900.0], 1.0), counted("lstm", 2.2, 2.0, [400.0, 0.0], 1.0)];
        let rows = all.concat();
        let parts = parts(&rows);
        let table = conventions(&parts[0], "x").unwrap();
        assert!(table.notes[0].ends_with("turns over: bim below lstm from 3.00."), "{:?}", table.notes);
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let at =
            |label: &str, x: f64, y: f64| Series { label: label.into(), points: vec![Point { x, y, low: y, high: y }] };
        let all = [at("cheap", 1.0, 3.0), at("beaten", 2.0, 3.5), at("good", 3.0, 1.0), at("equal", 1.0, 3.0)];
        let labels = |better| front(&all, better).into_iter().map(|s| s.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(Better::Lower), ["cheap", "good", "equal"]);
        assert_eq!(labels(Better::Higher), ["cheap", "beaten", "equal"]);
        let all = [counted("bim", 2.0, 1.0, [1.0, 1.0], 1.0), counted("lstm", 2.2, 2.0, [1.0, 1.0], 1.0)];
        let rows = all.concat();
        let parts = parts(&rows);
        let plot = pareto(&parts[0], "x").unwrap();
        assert!(plot.caption.contains("than: bim."), "{}", plot.caption);
    }
}
