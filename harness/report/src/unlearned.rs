//! What scores are without a model, and which configurations are not shown to be better.

use metrics::catalogue::{Level, Unlearned};
use statistics::Better;
use statistics::best::FEWEST_SEEDS;

use super::argument::names;
use super::group::{Group, Part, Run};
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

/// Which configurations, with three seeds or more, the deciding metric does not show to be better than what needs no model; `None` if
/// there is none.
pub(super) fn no_better(part: &Part) -> Option<String> {
    let name = *part.main_metrics().first()?;
    let info = metric_info(part, name);
    let (unlearned, better) = (info.unlearned?, info.better?);
    let reaches = |group: &Group| -> Option<bool> {
        let e = group.metric(name, Some(part.split)).estimate().filter(|e| e.n >= FEWEST_SEEDS)?;
        let ((low, high), level) = (e.interval?, level_of(group, part.split, &unlearned)?);
        Some(match better {
            Better::Lower => high >= level,
            Better::Higher => low <= level,
        })
    };
    let weak: Vec<String> =
        part.groups.iter().filter(|group| reaches(group) == Some(true)).map(|group| part.label(group)).collect();
    (!weak.is_empty()).then(|| {
        format!(
            "The interval over seeds does not show {} to be better than {} ({}).",
            names(&weak),
            unlearned.by,
            info.label
        )
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

/// The number, where it is the same for all configurations that have it.
fn level(part: &Part, unlearned: &Unlearned) -> Option<f64> {
    let mut all = part.groups.iter().filter_map(|group| level_of(group, part.split, unlearned));
    let first = all.next()?;
    all.all(|other| (other - first).abs() <= 1e-9 * first.abs()).then_some(first)
}

/// The number for one configuration; `None` where nothing recorded it.
fn level_of(group: &Group, split: &str, unlearned: &Unlearned) -> Option<f64> {
    let of = |name: &str, split: Option<&str>| group.completed().find_map(|run| run.row(name, split)?.value);
    match unlearned.from {
        Level::Fixed(value) => Some(value),
        Level::Fact(name) => of(name, None),
        Level::Metric(name) => of(name, Some(split)),
        Level::Classes(prefix) => group.completed().find_map(|run| of_classes(run, prefix, split)),
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
    fn who_is_not_shown_to_be_better_than_chance_is_named() {
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
        let expected =
            "The interval over seeds does not show bim to be better than a ranking by chance (AUC-ROC (macro)).";
        assert_eq!(said([0.4, 0.6, 0.7]).as_deref(), Some(expected));
        assert_eq!(said([0.40, 0.41, 0.42]).as_deref(), Some(expected), "worse is no better either");
    }
}
