//! What scores are without a model, and which configurations are no better.

use metrics::catalogue::{Level, Unlearned};
use statistics::Better;
use statistics::estimate::Estimate;

use super::argument::names;
use super::group::{Part, Run};
use super::tables::metric_info;

/// The main metrics that something reaches without learning, in a sentence.
pub(super) fn note(part: &Part) -> Option<String> {
    let each = part.main_metrics().into_iter().filter_map(|name| {
        let info = metric_info(part, name);
        let unlearned = info.unlearned?;
        Some(format!("{} {} ({})", info.label, info.value(level(part, &unlearned)?), unlearned.by))
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| format!("Reached without a model: {}.", each.join(", ")))
}

/// Which configurations the deciding metric cannot tell from what needs no model; `None` if there is none.
pub(super) fn no_better(part: &Part) -> Option<String> {
    let name = *part.main_metrics().first()?;
    let info = metric_info(part, name);
    let (unlearned, better) = (info.unlearned?, info.better?);
    let level = level(part, &unlearned)?;
    let reaches = |e: &Estimate| {
        let (low, high) = e.interval.unwrap_or((e.mean, e.mean));
        match better {
            Better::Lower => high >= level,
            Better::Higher => low <= level,
        }
    };
    let scored = part.groups.iter().filter_map(|group| Some((group, group.metric(name, Some(part.split)).estimate()?)));
    let weak: Vec<String> = scored.filter(|(_, e)| reaches(e)).map(|(group, _)| part.label(group)).collect();
    (!weak.is_empty()).then(|| {
        format!("{} cannot be told from {}, {} {}.", names(&weak), unlearned.by, info.label, info.value(level))
    })
}

/// A metric of what needs no model and the best that it can be; `None` where either is not known.
pub(super) fn ends(part: &Part, name: &str) -> Option<(f64, f64)> {
    let info = metric_info(part, name);
    let best = match info.better? {
        Better::Lower => info.range.0,
        Better::Higher => info.range.1,
    };
    Some((level(part, &info.unlearned?)?, best)).filter(|(low, best)| best.is_finite() && low.total_cmp(best).is_ne())
}

/// The number; `None` where nothing recorded it.
fn level(part: &Part, unlearned: &Unlearned) -> Option<f64> {
    let of = |name: &str, split: Option<&str>| {
        part.runs().filter(|run| run.completed()).find_map(|run| run.row(name, split)?.value)
    };
    match unlearned.from {
        Level::Fixed(value) => Some(value),
        Level::Fact(name) => of(name, None),
        Level::Metric(name) => of(name, Some(part.split)),
        Level::Classes(prefix) => {
            part.runs().filter(|run| run.completed()).find_map(|run| of_classes(run, prefix, part.split))
        }
    }
}

fn of_classes(run: &Run, prefix: &str, split: &str) -> Option<f64> {
    let is_class = |row: &&&super::ResultRow| {
        row.split.as_deref() == Some(split) && row.metric.as_deref().is_some_and(|name| name.starts_with(prefix))
    };
    let values: Vec<f64> = run.metrics.iter().filter(is_class).filter_map(|row| row.value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    #[test]
    fn what_needs_no_model_stands_below_the_table() {
        let loaded = fixture::quickstart();
        let all = parts(&loaded.rows);
        assert_eq!(note(&all[0]), None, "nothing recorded the frequencies of the text");
        let cardio = all.iter().find(|part| part.family == "cardio").expect("the fixture has it");
        let expected = "Reached without a model: AUC-ROC (macro) 0.500 (a ranking by chance), AUC-PR (macro) 0.325 (a ranking \
                        by chance).";
        assert_eq!(note(cardio).as_deref(), Some(expected));
    }

    #[test]
    fn who_cannot_be_told_from_chance_is_named() {
        let said = |values: [f64; 3]| {
            let mut loaded = fixture::quickstart();
            loaded.rows.retain(|row| row.task == "cardio" && row.model == "bim" && row.seed == 1);
            let one = loaded.rows.clone();
            for (seed, value) in (1..).zip(values) {
                for row in &one {
                    let name = row.metric.as_deref();
                    let value = if name == Some("auc_roc_macro") { Some(value) } else { row.value };
                    let cell = format!("{}-{seed}", row.cell);
                    loaded.rows.push(super::super::ResultRow { seed, cell, value, ..row.clone() });
                }
            }
            loaded.rows.drain(..one.len());
            no_better(&parts(&loaded.rows)[0])
        };
        assert_eq!(said([0.71, 0.72, 0.73]), None);
        let expected = "bim cannot be told from a ranking by chance, AUC-ROC (macro) 0.500.";
        assert_eq!(said([0.4, 0.6, 0.7]).as_deref(), Some(expected));
        assert_eq!(said([0.40, 0.41, 0.42]).as_deref(), Some(expected), "worse is no better either");
    }
}
