//! Tables of figures: what their cells must say.
//!
//! `<!-- figures of FILE against MODEL -->` names the model that ratios are held against (`MODEL of FILE` if it stands in another
//! file), and what a cell must say follows from its column's title; `<!-- METRIC by SETTING of FILE -->` has a column for each value of
//! a setting (`learning rate` is short for its path; `peak_bytes` is in MiB). The first cell of a row names its model in backticks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use metrics::catalogue::{METRICS, possible};
use metrics::stream::RECOVERY;
use rows::results::{ResultRow, read_results};
use statistics::estimate::estimate_over_seeds;

use crate::page::{Change, Page, Table, cells, root};

/// A value for each seed of a model, sorted; of the validation part only where no other was scored.
fn values(rows: &[ResultRow], model: &str, metric: &str) -> Vec<f64> {
    let of = || rows.iter().filter(|r| r.model == model && r.metric.as_deref() == Some(metric));
    let judged = |r: &&ResultRow| r.split.as_deref() == Some("valid");
    let only_judged = of().all(|r| judged(&r));
    let mut found: Vec<(u64, f64)> =
        of().filter(|r| only_judged || !judged(r)).filter_map(|r| Some((r.seed, r.value?))).collect();
    found.sort_by_key(|(seed, _)| *seed);
    found.into_iter().map(|(_, value)| value).collect()
}

fn mean(rows: &[ResultRow], model: &str, metrics: &[&str]) -> f64 {
    let one = |metric: &&str| estimate_over_seeds(&values(rows, model, metric)).map_or(f64::NAN, |e| e.mean);
    metrics.iter().map(one).sum()
}

/// What a cell must say.
fn expected(rows: &[ResultRow], model: &str, reference: &str, title: &str) -> String {
    let energy = |metrics: &[&str]| {
        let (own, other) = (mean(rows, model, metrics), mean(rows, reference, metrics));
        format!("{:.0} ({:.2}×)", own / 1e3, own / other)
    };
    let whole = |value: fn(&ResultRow) -> String| {
        let all: BTreeSet<String> = rows.iter().filter(|r| r.model == model).map(value).collect();
        all.into_iter().collect::<Vec<_>>().join(" or ")
    };
    let learning = ["energy_learning_with_traffic_pj"];
    let interval = |metric: &str| interval(rows, model, metric);
    match title {
        "bits per byte" => interval("bits_per_byte"),
        "AUC-ROC (macro)" => interval("auc_roc_macro"),
        "AUC-PR (macro)" => interval("auc_pr_macro"),
        "accuracy" => interval("accuracy"),
        "accuracy by seed" => {
            let all: Vec<String> = values(rows, model, "accuracy").iter().map(|v| format!("{v:.3}")).collect();
            all.join(", ")
        }
        "ratio" => format!("{:.3}×", mean(rows, model, &["bits_per_byte"]) / mean(rows, reference, &["bits_per_byte"])),
        "updates" => whole(|r| r.updates.to_string()),
        "steps an update" => whole(|r| r.config.get("train.segment").cloned().unwrap_or_default()),
        "learning rate" => whole(|r| r.config.get("train.learning_rate").cloned().unwrap_or_default()),
        "synaptic" => energy(&["energy_synaptic_pj"]),
        "forward" => energy(&["energy_forward_pj"]),
        "forward with traffic" => energy(&["energy_forward_with_traffic_pj"]),
        "learning" => energy(&["energy_learning_pj"]),
        "learning with traffic" => energy(&learning),
        "training with traffic" => energy(&["energy_forward_with_traffic_pj", learning[0]]),
        "prequential loss" => format!("{:.3}", mean(rows, model, &["prequential_loss"])),
        "bits per byte, frozen" => format!("{:.3}", mean(rows, model, &["bits_per_byte"])),
        "bits per byte, dynamic" => format!("{:.3}", mean(rows, model, &["dynamic_bits_per_byte"])),
        "change" => {
            let change = mean(rows, model, &["dynamic_bits_per_byte"]) - mean(rows, model, &["bits_per_byte"]);
            format!("{change:+.3}").replace('-', "−")
        }
        other => {
            let metric = by_label(other).unwrap_or_else(|| panic!("no test knows what a column `{other}` must say"));
            if metric.starts_with(RECOVERY) { recoveries(rows, model, &metric) } else { interval(&metric) }
        }
    }
}

/// The metric that has a label.
fn by_label(label: &str) -> Option<String> {
    METRICS.iter().find_map(|info| match info.label.split_once('*') {
        None => (info.label == label).then(|| info.name.to_owned()),
        Some((before, after)) => {
            let class = label.strip_prefix(before)?.strip_suffix(after)?;
            Some(info.name.replace('*', class))
        }
    })
}

/// What each seed saw until it was back; what never was says so.
fn recoveries(rows: &[ResultRow], model: &str, metric: &str) -> String {
    let of = rows.iter().filter(|r| r.model == model && r.metric.as_deref() == Some(metric));
    let mut all: Vec<(u64, Option<f64>)> = of.map(|r| (r.seed, r.value)).collect();
    all.sort_by_key(|(seed, _)| *seed);
    let text = |(_, value): (u64, Option<f64>)| value.map_or_else(|| "never".to_owned(), |v| format!("{v:.0}"));
    let all: Vec<String> = all.into_iter().map(text).collect();
    if all.is_empty() { "not measured".to_owned() } else { all.join(", ") }
}

/// What the cells of a row must say that has a column for each value of a setting; of learning rates, which are chosen by them, the best
/// is in bold.
fn by_setting(rows: &[ResultRow], model: &str, metric: &str, path: &str, titles: &[&str]) -> Vec<String> {
    let value = |r: &ResultRow| r.config.get(path).and_then(|text| text.parse::<f64>().ok());
    let at = |title: &str| -> Vec<ResultRow> {
        let wanted: f64 = title.replace(',', "").parse().expect("a value of the setting as the title of a column");
        let is_wanted = |v: f64| (v - wanted).abs() <= 1e-9 * wanted.abs();
        rows.iter().filter(|r| value(r).is_some_and(is_wanted)).cloned().collect()
    };
    if path != LEARNING_RATE {
        return titles.iter().map(|title| figure(&at(title), model, metric)).collect();
    }
    let means: Vec<f64> = titles.iter().map(|title| mean(&at(title), model, &[metric])).collect();
    let lower = metrics::catalogue::find(metric).is_some_and(|(m, _)| m.better == Some(statistics::Better::Lower));
    let best = means.iter().copied().reduce(|a, b| if lower { a.min(b) } else { a.max(b) });
    let text = |m: &f64| if Some(*m) == best { format!("**{m:.3}**") } else { format!("{m:.3}") };
    means.iter().map(text).collect()
}

/// A metric with its interval, or peak memory in MiB.
fn figure(rows: &[ResultRow], model: &str, metric: &str) -> String {
    if metric == PEAK {
        let cells: BTreeMap<u64, u64> =
            rows.iter().filter(|r| r.model == model).filter_map(|r| Some((r.seed, r.peak_bytes?))).collect();
        let mean = cells.values().sum::<u64>() as f64 / cells.len() as f64;
        return if cells.is_empty() { "not run".to_owned() } else { format!("{:.2}", mean / f64::from(1 << 20)) };
    }
    interval(rows, model, metric)
}

/// A metric's mean with its interval.
fn interval(rows: &[ResultRow], model: &str, metric: &str) -> String {
    match estimate_over_seeds(&values(rows, model, metric)).map(|e| (e.mean, e.interval)) {
        Some((mean, Some(interval))) => {
            let (low, high) = possible(metric, interval);
            format!("{mean:.3} [{low:.3}, {high:.3}]")
        }
        Some((mean, None)) => format!("{mean:.3}"),
        None => "not measured".to_owned(),
    }
}

/// The setting whose best value is chosen by what its table shows.
const LEARNING_RATE: &str = "train.learning_rate";
/// Peak memory, which is no metric of a score.
const PEAK: &str = "peak_bytes";

/// What a table's comment says its figures are.
enum Source<'a> {
    /// Of a file, against a model that may stand in another.
    Figures { file: &'a str, reference: &'a str, of: &'a str },
    /// A metric by the values of a setting, of a file.
    By { file: &'a str, metric: &'a str, path: &'a str },
}

fn source<'a>(table: &Table<'a>) -> Option<Source<'a>> {
    if let Some((metric, rest)) = table.comment.split_once(" by ")
        && let Some((path, file)) = rest.split_once(" of ")
    {
        let path = if path == "learning rate" { LEARNING_RATE } else { path };
        return Some(Source::By { file, metric, path });
    }
    let (file, reference) = table.comment.strip_prefix("figures of ")?.split_once(" against ")?;
    let (reference, of) = reference.split_once(" of ").unwrap_or((reference, file));
    Some(Source::Figures { file, reference, of })
}

/// The file whose figures a table has, if it has any.
pub fn file<'a>(table: &Table<'a>) -> Option<&'a str> {
    source(table).map(|(Source::Figures { file, .. } | Source::By { file, .. })| file)
}

/// Rows of a file, with those of the reference where it stands in another.
fn read(source: &Source) -> Vec<ResultRow> {
    let (Source::Figures { file, .. } | Source::By { file, .. }) = source;
    let mut rows = read_results(&root().join(file)).expect(file);
    if let Source::Figures { reference, of, .. } = source
        && of != file
    {
        assert!(
            !rows.iter().any(|row| row.model == *reference && row.value.is_some()),
            "{file} has its own `{reference}`"
        );
        let others = read_results(&root().join(of)).expect(of);
        rows.extend(others.into_iter().filter(|row| row.model == *reference));
    }
    rows
}

/// The tables of figures within some lines of a page: how many there are, and rows that are not what the files say. A table without
/// figures has the titles `row` and `is`, or one of the comments of other modules.
pub fn check(page: &Page, within: Range<usize>) -> (usize, Vec<Change>) {
    let (lines, mut found, mut changes) = (page.lines(), 0, Vec::new());
    for table in page.tables(within) {
        if table.titles == ["row", "is"] || table.comment == crate::runs::COMMENT {
            continue;
        }
        found += 1;
        let source =
            source(&table).unwrap_or_else(|| panic!("{}: a table without its file: {:?}", page.path, table.titles));
        let rows = read(&source);
        for at in table.rows.clone() {
            let cells = cells(lines[at]);
            let model = cells[0].split('`').nth(1).expect("a model in backticks");
            assert!(
                rows.iter().any(|row| row.model == model && row.value.is_some()),
                "{}: no `{model}`",
                table.comment
            );
            let titles = &table.titles[1..];
            let right: Vec<String> = match source {
                Source::Figures { reference, .. } => {
                    titles.iter().map(|title| expected(&rows, model, reference, title)).collect()
                }
                Source::By { metric, path, .. } => by_setting(&rows, model, metric, path, titles),
            };
            if right != cells[1..] {
                changes.push(Change {
                    lines: at..at + 1,
                    right: vec![format!("| {} | {} |", cells[0], right.join(" | "))],
                });
            }
        }
    }
    (found, changes)
}
