//! All tasks of an experiment together: how often a run of BIM is better than one of another model, and how good each is on one scale.
//! After rliable (Agarwal et al., 2021): what one task says by luck, several do not.

use statistics::Better;
use statistics::aggregate::{
    interquartile_mean, interquartile_mean_interval, probability_of_improvement, probability_of_improvement_interval,
};
use statistics::bca::FEWEST;
use statistics::best::FEWEST_SEEDS;

use super::catalogue;
use super::group::{Group, Part};
use super::look::OURS;
use super::model::{Cell, Column, Fact, Place, Section, Table};
use super::tables::metric_info;
use super::{provenance, unlearned};

/// Share of cases in which an interval covers.
const LEVEL: f64 = 0.95;
/// Resamples of an interval, and the seed of the generator: an interval is a function of the results.
const RESAMPLES: (usize, u64) = (2000, 0);

/// One for each experiment and scale with more than one task, each model in one configuration.
pub(super) fn sections(parts: &[Part]) -> Vec<Section> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for part in parts {
        if !keys.contains(&(part.experiment, part.scale)) {
            keys.push((part.experiment, part.scale));
        }
    }
    let several = keys.len() > 1;
    let of = |(experiment, scale): (&str, &str)| {
        let tasks: Vec<&Part> = parts.iter().filter(|p| p.experiment == experiment && p.scale == scale).collect();
        section(&tasks, several)
    };
    keys.into_iter().filter_map(of).collect()
}

fn section(tasks: &[&Part], several: bool) -> Option<Section> {
    let first = tasks.first()?;
    if tasks.len() < 2 || tasks.iter().any(|part| !part.varying.is_empty()) {
        return None;
    }
    let kinds: Vec<&str> = std::iter::once(OURS).chain(first.kinds_but(OURS)).collect();
    let models: Vec<Model> = kinds.into_iter().filter_map(|kind| Model::of(tasks, kind)).collect();
    let (ours, others) = models.split_first().filter(|(ours, others)| ours.kind == OURS && !others.is_empty())?;
    let id = catalogue::slug(&format!("{} all tasks {}", first.experiment, first.scale));
    let names: Vec<&str> = tasks.iter().map(|part| part.task).collect();
    let heading =
        if several { format!("{}: all tasks together", first.experiment) } else { "All tasks together".into() };
    Some(Section {
        heading,
        short: "all tasks".into(),
        argument: vec![argument(ours, others, tasks)],
        tables: vec![table(ours, others, &names, &id)],
        front: None,
        plots: Vec::new(),
        folded: Vec::new(),
        provenance: tasks
            .iter()
            .map(|part| Fact { name: format!("data, {}", part.task), value: provenance::data_in_short(part) })
            .chain([Fact { name: "scale".into(), value: first.scale.into() }])
            .collect(),
        id,
    })
}

/// The deciding metric of one model on every task, so that more is better.
struct Model<'a> {
    kind: &'a str,
    label: &'a str,
    /// By task and seed, each task in its own unit.
    scores: Vec<Vec<f64>>,
    /// The same, 0 for what needs no model and 1 for a score that cannot be better; `None` where a task has no such scale.
    scaled: Option<Vec<Vec<f64>>>,
}

impl<'a> Model<'a> {
    /// `None` unless the kind has a score on every task.
    fn of(tasks: &[&'a Part<'a>], kind: &'a str) -> Option<Self> {
        let groups: Vec<&Group> = tasks.iter().map(|part| only(part, kind)).collect::<Option<_>>()?;
        let label = groups.first()?.model;
        if groups.iter().any(|group| group.model != label) {
            return None;
        }
        let mut scores = Vec::new();
        let mut scaled = Some(Vec::new());
        for (part, group) in tasks.iter().zip(&groups) {
            let name = *part.main_metrics().first()?;
            let better = metric_info(part, name).better?;
            let values: Vec<f64> = group.by_seed(name, Some(part.split)).into_values().collect();
            if values.is_empty() {
                return None;
            }
            let ends = unlearned::ends(part, name);
            scaled = scaled.zip(ends).map(|(mut all, (low, high))| {
                all.push(values.iter().map(|value| (value - low) / (high - low)).collect());
                all
            });
            let sign = if better == Better::Higher { 1.0 } else { -1.0 };
            scores.push(values.into_iter().map(|value| sign * value).collect());
        }
        Some(Self { kind, label, scores, scaled })
    }

    fn fewest(&self) -> usize {
        self.scores.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// Chance that a run of this model is better than one of another on the same task.
    fn beats(&self, other: &Self) -> Option<f64> {
        probability_of_improvement(&self.scores, &other.scores, Better::Higher)
    }
}

/// The one configuration of a kind; `None` where there are several or none.
fn only<'a>(part: &'a Part<'a>, kind: &str) -> Option<&'a Group<'a>> {
    let mut of_kind = part.groups.iter().filter(|group| group.kind == kind);
    of_kind.next().filter(|_| of_kind.next().is_none())
}

fn argument(ours: &Model, others: &[Model], tasks: &[&Part]) -> String {
    let fewest = std::iter::once(ours).chain(others).map(Model::fewest).min().unwrap_or(0);
    if fewest < FEWEST_SEEDS {
        let word = if fewest == 1 { "seed" } else { "seeds" };
        return format!("{fewest} {word} cannot rank models over {} tasks, {FEWEST_SEEDS} could.", tasks.len());
    }
    let mut all: Vec<(&str, f64)> = others.iter().filter_map(|other| Some((other.label, ours.beats(other)?))).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let each: Vec<String> = all.iter().map(|(name, p)| format!("{name} {p:.2}")).collect();
    format!(
        "Chance that a run of {} is better than one of another model on the same task, mean over {} tasks: {}.",
        ours.label,
        tasks.len(),
        each.join(", ")
    )
}

fn table(ours: &Model, others: &[Model], tasks: &[&str], id: &str) -> Table {
    let all = || std::iter::once(ours).chain(others);
    let fewest = all().map(Model::fewest).min().unwrap_or(0);
    let intervals = fewest >= FEWEST;
    let scaled = all().all(|model| model.scaled.is_some());
    let mut caption = format!(
        "The deciding metric of {}. Chance: that a run of {} is better than one of the model on the same task, ties at a half, mean over \
         tasks (probability of improvement, Agarwal et al., 2021).",
        tasks.join(", "),
        ours.label
    );
    if scaled {
        caption += " Score: interquartile mean over all runs, on a scale from 0 for what needs no model to 1 for what cannot be better.";
    }
    caption += if intervals {
        " Intervals are 95 %, by drawing the seeds of each task anew: they say what other seeds would give on these tasks, and nothing of \
         other tasks."
    } else {
        " A bootstrap over so few seeds covers too seldom: there are no intervals."
    };
    let mut table = Table::empty(format!("{id}-across"), "All tasks together", caption);
    table.place = Place::Everywhere;
    table.push_column(Column::text("model"), all().map(|model| Cell::new(model.label)).collect());
    if scaled {
        table.push_column(Column::number("score"), all().map(|model| score(model, intervals)).collect());
    }
    let cells =
        std::iter::once(Cell::absent("itself")).chain(others.iter().map(|other| chance(ours, other, intervals)));
    table.push_column(Column::number(format!("chance that {} is better", ours.label)), cells.collect());
    table.push_column(
        Column::number("fewest seeds of a task"),
        all().map(|m| Cell::new(m.fewest().to_string())).collect(),
    );
    table
}

fn score(model: &Model, intervals: bool) -> Cell {
    let Some(scaled) = &model.scaled else { return Cell::measured(None) };
    let (resamples, seed) = RESAMPLES;
    let interval = || interquartile_mean_interval(scaled, LEVEL, resamples, seed).filter(|_| intervals);
    Cell::number(interquartile_mean(scaled), |mean| with_interval(mean, interval()))
}

fn chance(ours: &Model, other: &Model, intervals: bool) -> Cell {
    let (resamples, seed) = RESAMPLES;
    let (x, y) = (&ours.scores, &other.scores);
    let interval =
        || probability_of_improvement_interval(x, y, Better::Higher, LEVEL, resamples, seed).filter(|_| intervals);
    Cell::number(ours.beats(other), |mean| with_interval(mean, interval()))
}

fn with_interval(mean: f64, interval: Option<(f64, f64)>) -> String {
    interval.map_or_else(|| format!("{mean:.2}"), |(low, high)| format!("{mean:.2} [{low:.2}, {high:.2}]"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    /// Scores of three seeds on two tasks, on one of which more is better.
    fn rows(model: &str, bits: [f64; 3], auc: [f64; 3]) -> Vec<super::super::ResultRow> {
        let of = |task: &str, metric: &str, values: [f64; 3]| -> Vec<super::super::ResultRow> {
            let row = |(seed, value): (u64, f64)| {
                let mut row = fixture::config(fixture::cell(model, seed), &[("task.kind", task)]);
                (row.task, row.cell) = (task.into(), format!("{model}-{task}-{seed}"));
                (row.split, row.metric, row.value) = (Some("test".into()), Some(metric.into()), Some(value));
                row
            };
            (1..).zip(values).map(row).collect()
        };
        let unigram = of("language", "unigram_bits_per_byte", [4.0; 3]);
        [of("language", "bits_per_byte", bits), unigram, of("cardio", "auc_roc_macro", auc)].concat()
    }

    #[test]
    fn what_several_tasks_say_together() {
        let all = [
            rows("bim", [2.0, 2.1, 2.2], [0.9, 0.9, 0.9]),
            rows("lstm", [3.0, 3.0, 3.0], [0.7, 0.95, 0.9]),
            rows("rnn", [1.0, 1.0, 1.0], [0.5, 0.5, 0.5]),
        ]
        .concat();
        let sections = sections(&parts(&all));
        let [section] = sections.as_slice() else { panic!("one experiment") };
        let expected = "Chance that a run of bim is better than one of another model on the same task, mean over 2 tasks: rnn 0.50, \
                        lstm 0.75.";
        assert_eq!(section.argument, [expected]);
        let table = &section.tables[0];
        let labels: Vec<&str> = table.columns.iter().map(|column| column.label.as_str()).collect();
        assert_eq!(labels, ["model", "score", "chance that bim is better", "fewest seeds of a task"]);
        let text = |row: usize, column: usize| table.rows[row][column].text.as_str();
        assert_eq!((text(0, 2), text(0, 3)), ("itself", "3"));
        // of 9 pairs on ECG 3 won, 3 lost and 3 equal: a half; on text all won
        assert!(text(1, 2) == "0.75" && text(2, 2) == "0.50", "{:?}", table.rows);
        // 0.5, 0.475, 0.45 of the way on text and 0.8 on ECG: the middle four
        let middle = (0.475 + 0.5 + 0.8 + 0.8) / 4.0;
        assert!(table.rows[0][1].value.is_some_and(|v| (v - middle).abs() < 1e-12), "{:?}", table.rows[0]);
    }

    #[test]
    fn two_seeds_have_no_interval_and_one_task_no_table() {
        let all = [rows("bim", [2.0; 3], [0.9; 3]), rows("lstm", [3.0; 3], [0.7; 3])].concat();
        let two: Vec<_> = all.iter().filter(|row| row.seed < 3).cloned().collect();
        let of_two = sections(&parts(&two));
        assert_eq!(of_two[0].tables[0].rows[1][2].text, "1.00");
        assert!(of_two[0].tables[0].caption.ends_with("there are no intervals."));
        assert_eq!(of_two[0].argument, ["2 seeds cannot rank models over 2 tasks, 3 could."]);
        let one: Vec<_> = all.into_iter().filter(|row| row.task == "cardio").collect();
        assert!(sections(&parts(&one)).is_empty());
    }

    #[test]
    fn eleven_seeds_have_intervals() {
        let many = |model: &str, bits: f64| -> Vec<super::super::ResultRow> {
            let three = |k: u64| rows(model, [bits, bits + 0.1, bits + 0.2], [0.9, 0.8, 0.85 - k as f64 / 100.0]);
            let renumber = |k: u64, mut row: super::super::ResultRow| {
                row.seed += 3 * k;
                row.cell = format!("{}-{k}", row.cell);
                row
            };
            (0..4).flat_map(|k| three(k).into_iter().map(move |row| renumber(k, row))).collect()
        };
        let all = [many("bim", 2.0), many("lstm", 2.1)].concat();
        let found = sections(&parts(&all));
        let table = &found[0].tables[0];
        assert!(
            table.caption.contains("Intervals are 95 %, by drawing the seeds of each task anew"),
            "{}",
            table.caption
        );
        let cell = &table.rows[1][2];
        let (low, high) = cell.text.split_once(" [").unwrap().1.trim_end_matches(']').split_once(", ").unwrap();
        let (low, high): (f64, f64) = (low.parse().unwrap(), high.parse().unwrap());
        assert!(low < cell.value.unwrap() && cell.value.unwrap() < high && high <= 1.0, "{cell:?}");
        assert!(table.rows[0][1].text.contains(" ["), "{:?}", table.rows[0]);
    }

    #[test]
    fn a_sweep_or_a_model_that_is_missing_somewhere_is_left_out() {
        let mut all =
            [rows("bim", [2.0; 3], [0.9; 3]), rows("lstm", [3.0; 3], [0.7; 3]), rows("rnn", [3.0; 3], [0.7; 3])]
                .concat();
        all.retain(|row| row.model != "rnn" || row.task != "cardio");
        let found = sections(&parts(&all));
        assert_eq!(found[0].tables[0].rows.len(), 2, "rnn has no ECG");
        let swept: Vec<_> = all
            .into_iter()
            .map(|row| {
                let rate = format!("0.{}", row.seed);
                fixture::config(row, &[("train.learning_rate", &rate)])
            })
            .collect();
        assert!(sections(&parts(&swept)).is_empty());
    }
}
