//! A stream that comes in phases: what each model forgets and carries over from domain to domain, and how it takes a change.

use std::collections::BTreeSet;

use super::catalogue;
use super::curves::along_the_stream;
use super::group::{Group, Part};
use super::model::{Cell, Column, Loaded, NOT_MEASURED, Place, Plot, Table};
use super::provenance;
use super::tables::{label_columns, mark_best, metric_cell, metric_info};
use metrics::TRAIN_SPLIT;
use metrics::stream::{AFTER, BEFORE, MATRIX, PREQUENTIAL, RECOVERY, RECOVERY_MARGIN, TRANSFERS, WINDOW_LOSS};

/// Names of a part's metrics that begin with something, without that.
fn ends<'a>(part: &'a Part, begin: &str) -> BTreeSet<&'a str> {
    let names = part.runs().flat_map(|run| &run.metrics).filter_map(|row| row.metric.as_deref());
    names.filter_map(|name| name.strip_prefix(begin)).collect()
}

/// Numbers among them, rising.
fn numbers(part: &Part, begin: &str) -> BTreeSet<u64> {
    ends(part, begin).into_iter().filter_map(|end| end.split('_').next()?.parse().ok()).collect()
}

/// Forgetting and transfers; `None` without domains.
pub(super) fn transfers(part: &Part, id: &str) -> Option<Table> {
    ends(part, TRANSFERS[0]).first()?;
    let caption = "Losses on the held-out part of each domain, by frozen weights, domains numbered as they come, each once before one \
                   comes back. Forgetting: loss after all of them above the lowest before, mean over all but the last (Chaudhry et al., \
                   2018). Backward transfer: loss after its own phase minus loss after all of them. Forward transfer: loss of the \
                   untrained weights minus loss right before its own phase, mean over all but the first (Lopez-Paz and Ranzato, 2017, with \
                   the sign of a loss: above zero is good). Prequential loss: over the whole stream, of segments before they are learned from; \
                   who learns nothing forgets nothing, and it shows here.";
    let mut table = Table::empty(format!("{id}-transfers"), "Domains in turn", caption);
    table.place = Place::Everywhere;
    label_columns(&mut table, part, None);
    for name in TRANSFERS {
        let info = metric_info(part, name);
        let cell = |group: &Group| metric_cell(group, &group.metric(name, Some(part.split)), &info);
        let mut cells: Vec<Cell> = part.groups.iter().map(cell).collect();
        table.marks_best |= mark_best(&mut cells, &part.seeds(name), info.better);
        table.push_column(Column::metric(&info.label, name), cells);
    }
    // who learns nothing forgets nothing
    let info = metric_info(part, PREQUENTIAL);
    let cell = |group: &Group| metric_cell(group, &group.metric(PREQUENTIAL, Some(TRAIN_SPLIT)), &info);
    table.push_column(Column::metric(&info.label, PREQUENTIAL), part.groups.iter().map(cell).collect());
    Some(table)
}

/// Loss on every domain after every phase; `None` without domains.
pub(super) fn matrix(part: &Part, id: &str) -> Option<Table> {
    let phases: Vec<u64> = numbers(part, MATRIX).into_iter().collect();
    let mut domains: Vec<&str> = Vec::new();
    for (_, domain) in ends(part, MATRIX).iter().filter_map(|end| end.split_once('_')) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    if phases.is_empty() || domains.is_empty() {
        return None;
    }
    let caption =
        "Loss in nats on the held-out part of each domain by the weights after each phase; 0 is before training.";
    let mut table = Table::empty(format!("{id}-matrix"), "Loss on each domain after each phase", caption);
    let rows: Vec<(&Group, u64)> =
        part.groups.iter().flat_map(|group| phases.iter().map(move |&phase| (group, phase))).collect();
    table.push_column(Column::text("model"), rows.iter().map(|(group, _)| Cell::new(part.label(group))).collect());
    table.push_column(Column::number("phase"), rows.iter().map(|(_, phase)| Cell::new(phase.to_string())).collect());
    table.labels = 2;
    for domain in domains {
        let cell = |&(group, phase): &(&Group, u64)| {
            let name = format!("{MATRIX}{phase}_{domain}");
            metric_cell(group, &group.metric(&name, Some(part.split)), &metric_info(part, &name))
        };
        table.push_column(Column::number(format!("on {domain}")), rows.iter().map(cell).collect());
    }
    Some(table)
}

/// Loss before and right after each change, and how long it took to recover; `None` where nothing changes.
pub(super) fn changes(part: &Part, id: &str) -> Option<Table> {
    let numbers = numbers(part, RECOVERY);
    numbers.first()?;
    let unit = provenance::unit(part);
    let margins = part.config("train.recovery_margin");
    let percent = |share: f64| format!("{} %", catalogue::significant(100.0 * share, 3));
    let margin = match margins.into_iter().collect::<Vec<_>>()[..] {
        [] => percent(RECOVERY_MARGIN),
        [only] => only.parse().map_or_else(|_| only.to_owned(), percent),
        _ => "its margin".to_owned(),
    };
    let against = if ends(part, MATRIX).is_empty() { "the phase before" } else { "the last phase of the same domain" };
    let caption = format!(
        "Prequential loss: of segments before they are learned from. Before: mean over the last fifth of {against}. Right after: over \
         the first tenth of the phase that begins. Recovery: {unit} of that phase seen until the end of the first tenth whose mean is at \
         most {margin} above the loss before; never where there is none in the phase. Mean over seeds, with their range."
    );
    let mut table = Table::empty(format!("{id}-changes"), "Changes of the stream", caption);
    table.place = Place::Everywhere;
    label_columns(&mut table, part, None);
    for number in numbers {
        for begin in [BEFORE, AFTER] {
            let name = format!("{begin}{number}");
            let info = metric_info(part, &name);
            let cell = |group: &Group| metric_cell(group, &group.metric(&name, Some(TRAIN_SPLIT)), &info);
            table.push_column(Column::metric(&info.label, &name), part.groups.iter().map(cell).collect());
        }
        let name = format!("{RECOVERY}{number}");
        let label = format!("{} ({unit})", metric_info(part, &name).label);
        table.push_column(
            Column::metric(label, &name),
            part.groups.iter().map(|group| recovery(group, &name)).collect(),
        );
    }
    Some(table)
}

/// How long a configuration took, seed by seed; that it never came back is said and enters no mean.
fn recovery(group: &Group, name: &str) -> Cell {
    let rows = || group.completed().filter_map(|run| run.row(name, Some(TRAIN_SPLIT)));
    let Some(most) = rows().filter_map(|row| row.n).max() else { return Cell::absent(NOT_MEASURED) };
    let values: Vec<f64> = rows().filter_map(|row| row.value).collect();
    let count = |value: f64| catalogue::count(value.round() as u64);
    let low = values.iter().copied().min_by(f64::total_cmp);
    let high = values.iter().copied().max_by(f64::total_cmp);
    let never = rows().count() - values.len();
    match low.zip(high) {
        None => Cell::new(format!("never in {}", catalogue::count(most))),
        Some((low, high)) if never > 0 => {
            let range = if low < high { format!("{} to {}", count(low), count(high)) } else { count(low) };
            Cell::new(format!("{range} in {} of {} seeds, never in {never}", values.len(), values.len() + never))
        }
        Some((low, high)) => {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let range = if low < high { format!(" ({} to {})", count(low), count(high)) } else { String::new() };
            Cell::valued(format!("{}{range}", count(mean)), mean)
        }
    }
}

/// The loss of every window of the stream; `None` where it has no phases.
pub(super) fn plot(part: &Part, loaded: &Loaded, id: &str) -> Option<Plot> {
    along_the_stream(part, loaded, id, WINDOW_LOSS, "each tenth of a phase")
}

#[cfg(test)]
mod tests {
    use super::super::group::parts;
    use super::super::{ResultRow, fixture};
    use super::*;

    /// Three seeds, of which the last has no value where `never` says so.
    fn rows(model: &str, never: bool) -> Vec<ResultRow> {
        let row = |seed: u64, split: &str, name: &str, value: Option<f64>| ResultRow {
            split: Some(split.into()),
            metric: Some(name.into()),
            value,
            n: Some(60_000),
            ..fixture::cell(model, seed)
        };
        let of = |seed: u64| {
            let own = seed as f64 / 10.0;
            let back = Some(3000.0 * seed as f64).filter(|_| !(never && seed == 3));
            vec![
                row(seed, "test", "bits_per_byte", Some(2.0)),
                row(seed, "test", "matrix_0_a", Some(5.5)),
                row(seed, "test", "matrix_0_b", Some(5.6)),
                row(seed, "test", "matrix_10_a", Some(1.0 + own)),
                row(seed, "test", "matrix_10_b", Some(2.0 + own)),
                row(seed, "test", "forgetting", Some(0.5 + own)),
                row(seed, "test", "backward_transfer", Some(-0.5 - own)),
                row(seed, "test", "forward_transfer", Some(own)),
                row(seed, "train", "prequential_loss", Some(1.75)),
                row(seed, "train", "change_before_4", Some(1.5)),
                row(seed, "train", "change_after_4", Some(2.5)),
                row(seed, "train", "recovery_4", back),
            ]
        };
        (1..=3).flat_map(of).collect()
    }

    fn text(table: &Table, row: usize, column: &str) -> String {
        let at = table.columns.iter().position(|c| c.label == column).unwrap_or_else(|| panic!("{column}"));
        table.rows[row][at].text.clone()
    }

    #[test]
    fn what_never_recovers_is_said_and_enters_no_mean() {
        let never = rows("mamba", true).into_iter().map(|row| {
            let is_recovery = row.metric.as_deref() == Some("recovery_4");
            ResultRow { value: row.value.filter(|_| !is_recovery), ..row }
        });
        let all: Vec<ResultRow> = [rows("bim", false), rows("lstm", true)].concat().into_iter().chain(never).collect();
        let table = changes(&parts(&all)[0], "x").unwrap();
        let column = "recovery, seen in phase 4 (tokens)";
        let labels: Vec<&str> = table.columns.iter().map(|c| c.label.as_str()).collect();
        assert!(labels.contains(&column), "{labels:?}");
        assert_eq!(text(&table, 0, column), "6,000 (3,000 to 9,000)");
        assert_eq!(text(&table, 1, column), "3,000 to 6,000 in 2 of 3 seeds, never in 1");
        assert_eq!(text(&table, 2, column), "never in 60,000");
        assert!(text(&table, 0, "loss (nats) right after change to phase 4").starts_with("2.5"));
        assert!(
            table.caption.contains("the last phase of the same domain") && table.caption.contains("at most 5.00 %")
        );
    }

    #[test]
    fn phases_are_rows_in_their_order_and_domains_columns() {
        let all = rows("bim", false);
        let table = matrix(&parts(&all)[0], "x").unwrap();
        let labels: Vec<&str> = table.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["model", "phase", "on a", "on b"]);
        assert_eq!([text(&table, 0, "phase"), text(&table, 1, "phase")], ["0", "10"]);
        assert!(text(&table, 1, "on b").starts_with("2.2"), "{}", text(&table, 1, "on b"));
        let table = transfers(&parts(&all)[0], "x").unwrap();
        assert!(text(&table, 0, "forgetting (nats)").starts_with("0.7"), "{:?}", table.rows);
        assert!(text(&table, 0, "backward transfer (nats)").starts_with("-0.7"), "{:?}", table.rows);
        assert!(text(&table, 0, "prequential loss (nats)").starts_with("1.75"), "{:?}", table.rows);
    }

    #[test]
    fn where_nothing_changes_there_is_nothing_to_say() {
        let loaded = fixture::quickstart();
        let parts = parts(&loaded.rows);
        assert!(transfers(&parts[0], "x").is_none() && matrix(&parts[0], "x").is_none());
        assert!(changes(&parts[0], "x").is_none() && plot(&parts[0], &loaded, "x").is_none());
    }
}
