//! Energy of a section: what a cost model makes of the counts, and quality against energy.
//!
//! An energy is never shown alone: it has six columns, which stand side by side wherever one of them is quoted.
//!
//! | column | what is in it |
//! |---|---|
//! | forward: weight products | operations with weights alone, the synaptic energy |
//! | forward: arithmetic | all operations: with attention, scans, neurons, norms and other element-wise work |
//! | forward: with traffic | arithmetic, and every word of weights and state read and written |
//! | learning: arithmetic | reverse mode, traces, STDP, pruning and the optimiser |
//! | learning: with traffic | the same with weights, gradients, moments, kept activations and traces read and written |
//! | training in all: with traffic | forward and learning, both with traffic: what a step of training costs |

use std::collections::BTreeMap;

use super::catalogue;
use super::curves::{point, wide};
use super::group::{Group, Part};
use super::model::{Cell, Column, Form, Place, Plot, Series, Table};
use super::plot::MOST_NAMES;
use super::provenance;
use super::tables::{label_columns, metric_info};
use metrics::TRAIN_SPLIT as SPLIT;
use statistics::Better;
use statistics::estimate::{Estimate, paired_difference};

/// Which of the prices the plot shows: the whole forward pass, which every cost model prices.
const SHOWN: usize = 1;

/// Energies that span more than this factor are drawn on a logarithmic axis.
const LOG_PRICES: f64 = 10.0;
/// Models of a front that are named.
const MOST_NAMED: usize = 5;
/// Short name of the price that counts everything.
pub(super) const IN_ALL: &str = "training in all";

/// One of the six columns.
struct Price {
    label: &'static str,
    /// Name where several stand in a row.
    short: &'static str,
    /// Metrics whose sum it is.
    metrics: &'static [&'static str],
    /// Shares of the operations that the cost model prices.
    coverage: &'static [&'static str],
}

pub(super) const FORWARD: &str = "energy_coverage_forward";
const LEARNING: &str = "energy_coverage_learning";

const PRICES: [Price; 6] = [
    Price {
        label: "forward: weight products",
        short: "products",
        metrics: &["energy_synaptic_pj"],
        coverage: &[FORWARD],
    },
    Price { label: "forward: arithmetic", short: "forward", metrics: &["energy_forward_pj"], coverage: &[FORWARD] },
    Price {
        label: "forward: with traffic",
        short: "forward with traffic",
        metrics: &["energy_forward_with_traffic_pj"],
        coverage: &[FORWARD],
    },
    Price { label: "learning: arithmetic", short: "learning", metrics: &["energy_learning_pj"], coverage: &[LEARNING] },
    Price {
        label: "learning: with traffic",
        short: "learning with traffic",
        metrics: &["energy_learning_with_traffic_pj"],
        coverage: &[LEARNING],
    },
    Price {
        label: "training in all: with traffic",
        short: IN_ALL,
        metrics: &["energy_forward_with_traffic_pj", "energy_learning_with_traffic_pj"],
        coverage: &[FORWARD, LEARNING],
    },
];

impl Price {
    /// Picojoules per step, mean over seeds; `None` where a part of it was not counted or has no price.
    fn of(&self, group: &Group) -> Option<f64> {
        self.metrics.iter().map(|name| mean(group, name)).sum()
    }

    fn is_bound(&self, group: &Group) -> bool {
        self.coverage.iter().any(|coverage| is_bound(group, coverage))
    }

    /// Picojoules per step of each seed.
    fn by_seed(&self, group: &Group) -> BTreeMap<u64, f64> {
        let mut parts = self.metrics.iter().map(|name| group.by_seed(name, Some(SPLIT)));
        let Some(mut sum) = parts.next() else { return BTreeMap::new() };
        for part in parts {
            sum.retain(|seed, _| part.contains_key(seed));
            for (seed, pj) in &mut sum {
                *pj += part.get(seed).copied().unwrap_or_default();
            }
        }
        sum
    }

    /// With its ratio to that of `reference`, unless one of them is only a lower bound.
    fn cell(&self, group: &Group, reference: Option<&Group>) -> Cell {
        let Some(pj) = self.of(group) else { return Cell::measured(None) };
        let text = catalogue::energy(pj);
        if self.is_bound(group) {
            return Cell::valued(format!("≥ {text}"), pj);
        }
        let base = reference.filter(|r| !self.is_bound(r) && same_prices(r, group)).and_then(|r| self.of(r));
        let ratio = base.filter(|base| *base > 0.0).map(|base| pj / base);
        let text = ratio.map_or_else(|| text.clone(), |r| format!("{text} ({}×)", catalogue::significant(r, 3)));
        Cell::valued(text, pj)
    }
}

/// By each price that both have, whole and from one list: its short name, and what `group` uses of what `other` uses, geometric mean over
/// the seeds that both completed with its 95 % t interval.
pub(super) fn ratios(group: &Group, other: &Group) -> Vec<(&'static str, Estimate)> {
    if !same_prices(group, other) {
        return Vec::new();
    }
    let whole = |price: &&Price| !price.is_bound(group) && !price.is_bound(other);
    let ratio = |price: &Price| {
        let logarithms = |group: &Group| -> BTreeMap<u64, f64> {
            price.by_seed(group).into_iter().filter(|(_, pj)| *pj > 0.0).map(|(seed, pj)| (seed, pj.ln())).collect()
        };
        let e = paired_difference(&logarithms(group), &logarithms(other))?;
        let interval = e.interval.map(|(low, high)| (low.exp(), high.exp()));
        Some((price.short, Estimate { mean: e.mean.exp(), interval, n: e.n }))
    };
    PRICES.iter().filter(whole).filter_map(ratio).collect()
}

/// Whether two configurations were priced by one list.
fn same_prices(a: &Group, b: &Group) -> bool {
    let list = |group: &Group| group.runs.first().and_then(|run| run.head.config.get("energy").cloned());
    list(a) == list(b)
}

pub(super) fn mean(group: &Group, name: &str) -> Option<f64> {
    group.metric(name, Some(SPLIT)).estimate().map(|e| e.mean)
}

/// Whether a figure is a lower bound: operations that the counter did not understand, or that have no price.
pub(super) fn is_bound(group: &Group, coverage: &str) -> bool {
    ["op_coverage", coverage].into_iter().any(|name| mean(group, name).is_some_and(|share| share < 1.0))
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
         traffic adds weights and state read and written, without reuse between steps or streams. Learning comes on top of \
         the forward pass; training in all is both.",
        cost_models(part)
    );
    let mut table = Table::empty(format!("{id}-energy"), "Operations and energy", caption);
    table.place = Place::Everywhere;
    label_columns(&mut table, part, None);
    let reference = part.reference();
    for price in &PRICES {
        let cells = part.groups.iter().map(|group| price.cell(group, reference));
        table.push_column(Column::number(price.label), cells.collect());
    }
    for (label, name) in [("counted", "op_coverage"), ("priced, forward", FORWARD), ("priced, learning", LEARNING)] {
        if part.groups.iter().any(|group| mean(group, name).is_some_and(|share| share < 1.0)) {
            let cell = |group: &Group| Cell::measured(mean(group, name).map(|share| format!("{share:.3}")));
            table.push_column(Column::number(label), part.groups.iter().map(cell).collect());
        }
    }
    if part.groups.iter().any(|group| is_bound(group, FORWARD) || is_bound(group, LEARNING)) {
        table.notes.push("≥: operations that were not understood, or have no price here, come on top.".into());
    }
    if let Some(reference) = reference {
        table.notes.push(format!("×: of what {} takes.", part.label(reference)));
    }
    if part.groups.iter().all(|group| mean(group, "energy_forward_with_traffic_pj").is_none()) {
        table.notes.push("The cost model prices no memory apart: there are no figures with traffic.".into());
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

/// The first main metric against the energy of the forward pass, a point per configuration.
pub(super) fn pareto(part: &Part, id: &str) -> Option<Plot> {
    let metric = *part.main_metrics().first()?;
    let info = metric_info(part, metric);
    let better = info.better?;
    // figures of different price lists do not belong in one picture
    if part.config("energy").len() != 1 {
        return None;
    }
    let by = |price: &Price| -> Vec<Series> {
        let one = |group: &Group| {
            let pj = price.of(group).filter(|pj| *pj > 0.0)?;
            let values = group.by_seed(metric, Some(part.split));
            let points: Vec<_> = point(pj / 1e3, values.into_values()).into_iter().collect();
            (!points.is_empty()).then(|| Series { label: part.label(group), look: part.look(group), points })
        };
        part.groups.iter().filter_map(one).collect()
    };
    let series = by(&PRICES[SHOWN]);
    if series.len() < 2 {
        return None;
    }
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let mut caption = format!(
        "Mean over seeds, bars span them; the dashed line is the front. Energy of the forward pass, arithmetic alone, by cost model {}; the table has the other prices. No \
         model is both better and cheaper than: {}.",
        cost_models(part),
        fronts(&PRICES.iter().map(|price| (price.label, by(price))).collect::<Vec<_>>(), better)
    );
    if series.len() > MOST_NAMES {
        caption.push_str(" Only those on the front are named in the drawing.");
    }
    if part.groups.iter().any(|group| is_bound(group, FORWARD)) {
        caption.push_str(" Some energies are lower bounds, see the table.");
    }
    Some(Plot {
        id: format!("{id}-energy"),
        title: format!("{} against energy per {one}", info.label),
        caption,
        x_label: format!("nJ per {one}, forward"),
        y_label: info.label,
        log_x: wide(&series, LOG_PRICES),
        log_y: false,
        form: Form::Points,
        frontier: stairs(&series, better),
        series,
        level: None,
    })
}

/// The corners of the front, by ascending energy.
fn stairs(series: &[Series], better: Better) -> Vec<[f64; 2]> {
    let mut corners: Vec<[f64; 2]> =
        front(series, better).into_iter().filter_map(|s| s.points.first()).map(|p| [p.x, p.y]).collect();
    corners.sort_by(|a, b| a[0].total_cmp(&b[0]));
    corners.dedup();
    corners
}

/// Who is on the front by each price; prices by which it is the same models are named together.
fn fronts(all: &[(&str, Vec<Series>)], better: Better) -> String {
    let mut found: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for (price, series) in all.iter().filter(|(_, series)| !series.is_empty()) {
        let models: Vec<&str> = front(series, better).into_iter().map(|s| s.label.as_str()).collect();
        match found.iter_mut().find(|(known, _)| *known == models) {
            Some((_, prices)) => prices.push(price),
            None => found.push((models, vec![price])),
        }
    }
    let text = |(models, prices): &(Vec<&str>, Vec<&str>)| {
        let named: Vec<&str> = models.iter().copied().take(MOST_NAMED).collect();
        let more = models.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more} (by {})", named.join(", "), prices.join(", "))
    };
    found.iter().map(text).collect::<Vec<_>>().join("; ")
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
pub(super) mod tests {
    use super::super::group::parts;
    use super::super::look::Look;
    use super::super::model::Point;
    use super::super::{ResultRow, fixture};
    use super::*;

    /// One cell with these metrics of training and a main metric.
    pub(crate) fn rows(model: &str, bits: f64, metrics: &[(&str, f64)]) -> Vec<ResultRow> {
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

    pub(crate) fn counted(model: &str, bits: f64, energy: f64, counts: [f64; 2], coverage: f64) -> Vec<ResultRow> {
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

    /// The six columns stand side by side, each with its ratio to the reference's; sums are of one price list.
    #[test]
    fn energy_is_told_whole_and_held_against_the_reference() {
        let metrics = |scale: f64| {
            let of = |name: &'static str, pj: f64| (name, pj * scale);
            vec![
                of("energy_synaptic_pj", 100.0),
                of("energy_forward_pj", 200.0),
                of("energy_forward_with_traffic_pj", 3000.0),
                of("energy_learning_pj", 800.0),
                of("energy_learning_with_traffic_pj", 5000.0),
                ("op_coverage", 1.0),
                (FORWARD, 1.0),
                (LEARNING, 1.0),
            ]
        };
        let mut all = [rows("plain", 2.0, &metrics(1.0)), rows("bim", 2.1, &metrics(0.5))].concat();
        for row in &mut all {
            row.config.insert("report.reference".into(), "plain".into());
        }
        let texts = |all: &[ResultRow]| {
            let table = energies(&parts(all)[0], "x").unwrap();
            let labels: Vec<String> = table.columns.iter().map(|c| c.label.clone()).collect();
            let row: Vec<String> = table.rows[1].iter().map(|c| c.text.clone()).collect();
            (labels, row, table.notes)
        };
        let (labels, row, notes) = texts(&all);
        assert_eq!(labels[1..], PRICES.map(|p| p.label.to_owned()));
        let (half, sum) = ("(0.50×)", "4.00 nJ (0.50×)");
        assert!(row[1..].iter().all(|text| text.ends_with(half)) && row[6] == sum, "{row:?}");
        assert_eq!(notes, ["×: of what plain takes."]);
        // a figure of another list does not compare, and a lower bound has no ratio
        let mut other = all.clone();
        let bim = |row: &&mut ResultRow| row.model == "bim";
        other.iter_mut().filter(bim).for_each(|row| drop(row.config.insert("energy".into(), "other".into())));
        assert!(texts(&other).1[1..7].iter().all(|text| !text.contains('×')));
        for row in all.iter_mut().filter(|row| row.model == "bim" && row.metric.as_deref() == Some(LEARNING)) {
            row.value = Some(0.9);
        }
        let row = texts(&all).1;
        assert_eq!(row[3..7], ["1.50 nJ (0.50×)", "≥ 400 pJ", "≥ 2.50 nJ", "≥ 4.00 nJ"]);
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let at = |label: &str, x: f64, y: f64| Series {
            label: label.into(),
            look: Look::of("bim"),
            points: vec![Point { x, y, low: y, high: y }],
        };
        let all = [at("cheap", 1.0, 3.0), at("beaten", 2.0, 3.5), at("good", 3.0, 1.0), at("equal", 1.0, 3.0)];
        let labels = |better| front(&all, better).into_iter().map(|s| s.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(Better::Lower), ["cheap", "good", "equal"]);
        assert_eq!(labels(Better::Higher), ["cheap", "beaten", "equal"]);
        let both = [("synaptic", all[..2].to_vec()), ("forward", all[..2].to_vec()), ("learning", all[1..3].to_vec())];
        assert_eq!(fronts(&both, Better::Lower), "cheap (by synaptic, forward); beaten, good (by learning)");
        let all = [counted("bim", 2.0, 1.0, [1.0, 1.0], 1.0), counted("lstm", 2.2, 2.0, [1.0, 1.0], 1.0)];
        let rows = all.concat();
        let parts = parts(&rows);
        let plot = pareto(&parts[0], "x").unwrap();
        assert!(plot.caption.contains("than: bim (by forward: arithmetic)."), "{}", plot.caption);
        assert_eq!(plot.frontier, [[1e-3, 2.0]]);
        assert_eq!(
            stairs(&[at("good", 3.0, 1.0), at("cheap", 1.0, 3.0), at("beaten", 2.0, 3.5)], Better::Lower),
            [[1.0, 3.0], [3.0, 1.0]]
        );
    }
}
