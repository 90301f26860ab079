//! Learning that goes on: what each model lost on its stream before it learned from it, and what it gains by learning from the scored part.

use super::curves::along_the_stream;
use super::group::{Group, Part};
use super::model::{Cell, Column, Loaded, Place, Plot, Table};
use super::tables::{label_columns, metric_info};
use metrics::TRAIN_SPLIT;
use metrics::stream::{PREQUENTIAL, TRANSFERS};
use statistics::estimate::paired_difference;

/// What the names of metrics begin with that are of a learner that went on learning.
const DYNAMIC: &str = "dynamic_";

/// The loss of each window of a stream without phases; these have a plot of their own.
pub(super) fn plot(part: &Part, loaded: &Loaded, id: &str) -> Option<Plot> {
    along_the_stream(part, loaded, id, PREQUENTIAL, "each twentieth of training, over the first pass of the data")
}

/// Prequential loss, and the main metric of frozen weights beside that of a learner that goes on, where one did.
pub(super) fn table(part: &Part, id: &str) -> Option<Table> {
    let frozen = *part.main_metrics().first()?;
    let dynamic = format!("{DYNAMIC}{frozen}");
    let has = |name: &str, split: &str| part.groups.iter().any(|g| g.metric(name, Some(split)).estimate().is_some());
    let goes_on = has(&dynamic, part.split);
    // in turn the domains have a table that says it
    if !goes_on && (!has(PREQUENTIAL, TRAIN_SPLIT) || has(TRANSFERS[0], part.split)) {
        return None;
    }
    let mut caption =
        "Prequential loss: mean loss of the segments of the training stream, each before it is learned from, over its \
                       first pass."
            .to_owned();
    if goes_on {
        caption += " Dynamic: the scored part, read once by a learner that goes on learning from it, each segment scored first; \
                    frozen: the same part by the weights as they were. Change: paired by seed.";
    }
    let title = if goes_on { "Learning that goes on" } else { "Loss on the stream" };
    let mut table = Table::empty(format!("{id}-online"), title, caption);
    table.place = if goes_on { Place::Everywhere } else { Place::Detail };
    label_columns(&mut table, part, None);
    let mut add = |label: String, name: &str, split: &str| {
        let info = metric_info(part, name);
        let cell = |group: &Group| {
            let e = group.metric(name, Some(split)).estimate();
            e.map_or_else(|| Cell::measured(None), |e| Cell::valued(info.estimate(&e), e.mean))
        };
        table.push_column(Column::metric(label, name), part.groups.iter().map(cell).collect());
    };
    let info = metric_info(part, frozen);
    add(metric_info(part, PREQUENTIAL).label, PREQUENTIAL, TRAIN_SPLIT);
    if !goes_on {
        return Some(table);
    }
    add(format!("{}, frozen", info.label), frozen, part.split);
    add(format!("{}, dynamic", info.label), &dynamic, part.split);
    let change = |group: &Group| {
        let of = |name: &str| group.by_seed(name, Some(part.split));
        let e = paired_difference(&of(&dynamic), &of(frozen));
        e.map_or_else(|| Cell::measured(None), |e| Cell::valued(info.difference(&e), e.mean))
    };
    table.push_column(Column::number("change"), part.groups.iter().map(change).collect());
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::super::group::parts;
    use super::super::{ResultRow, fixture};
    use super::*;

    fn rows(model: &str, values: &[(&str, &str, [f64; 3])]) -> Vec<ResultRow> {
        let row = |seed: u64, &(split, name, values): &(&str, &str, [f64; 3])| ResultRow {
            split: Some(split.into()),
            metric: Some(name.into()),
            value: Some(values[seed as usize - 1]),
            ..fixture::cell(model, seed)
        };
        (1..=3).flat_map(|seed| values.iter().map(move |value| row(seed, value))).collect()
    }

    #[test]
    fn what_going_on_changes_is_paired_by_seed() {
        let frozen = ("test", "bits_per_byte", [2.0, 2.2, 2.4]);
        let all = [
            rows(
                "bim",
                &[frozen, ("test", "dynamic_bits_per_byte", [1.9, 2.1, 2.3]), ("train", PREQUENTIAL, [1.5, 1.6, 1.7])],
            ),
            rows("lstm", &[frozen]),
        ]
        .concat();
        let table = table(&parts(&all)[0], "x").unwrap();
        let labels: Vec<&str> = table.columns.iter().map(|column| column.label.as_str()).collect();
        assert_eq!(
            labels,
            ["model", "prequential loss (nats)", "bits per byte, frozen", "bits per byte, dynamic", "change"]
        );
        // seeds differ by 0.2, and the change of each is −0.1: an interval over unpaired seeds would hold zero
        let change = &table.rows[0][4];
        assert!(change.text.starts_with("-0.1") && change.value.is_some_and(|v| (v + 0.1).abs() < 1e-12), "{change:?}");
        assert!(table.rows[1][3].absent && table.rows[1][4].absent && !table.rows[1][2].absent);
    }

    #[test]
    fn where_no_model_went_on_the_loss_on_the_stream_is_there() {
        assert!(table(&parts(&fixture::quickstart().rows)[0], "x").is_none(), "nothing recorded it");
        let all = rows("bim", &[("test", "bits_per_byte", [2.0; 3]), ("train", PREQUENTIAL, [1.5, 1.6, 1.7])]);
        let table = table(&parts(&all)[0], "x").unwrap();
        assert_eq!((table.columns.len(), table.place), (2, Place::Detail));
        assert!(table.rows[0][1].text.starts_with("1.6") && !table.caption.contains("Dynamic"), "{table:?}");
    }

    #[test]
    fn windows_of_a_stream_are_drawn() {
        let mut loaded = fixture::quickstart();
        assert!(plot(&parts(&loaded.rows)[0], &loaded, "x").is_none());
        for evals in loaded.evals.values_mut() {
            let windows = evals.iter().map(|row| rows::EvalRow {
                split: "train".into(),
                metric: PREQUENTIAL.into(),
                ..row.clone()
            });
            let windows: Vec<_> = windows.collect();
            evals.extend(windows);
        }
        let drawn = plot(&parts(&loaded.rows)[0], &loaded, "x").unwrap();
        assert!(drawn.series.len() == 3 && drawn.series[0].points.len() == 5, "{drawn:?}");
        assert!(drawn.caption.starts_with(
            "Mean loss of each twentieth of training, over the first pass of the data, before it was learned from."
        ));
    }
}
