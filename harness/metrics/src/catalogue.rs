//! Names for readers: each metric with its label, direction and digits, and each task with what its tables and sentences need.
//! A metric or a task is described here and nowhere else; who plans, reports or shows progress looks it up.

use statistics::Better;

/// How a metric's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digits {
    /// So many after the point.
    After(usize),
    /// So many in all, for values that span magnitudes.
    Significant(usize),
}

/// A metric for readers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricInfo {
    /// Name in result files; `*` at its end stands for a class.
    pub name: &'static str,
    /// Label of a column; a `*` in it is the class.
    pub label: &'static str,
    /// `None` if neither direction is good.
    pub better: Option<Better>,
    /// How its values are written.
    pub digits: Digits,
    /// Least and largest value that it can have.
    pub range: (f64, f64),
    /// What it is without a model, where that says something.
    pub unlearned: Option<Unlearned>,
}

/// What a score is before anything is learned: what a model must be better than.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlearned {
    /// Where the number is from.
    pub from: Level,
    /// What reaches it, in a few words.
    pub by: &'static str,
}

/// Where a number is from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// The same on all data.
    Fixed(f64),
    /// Another metric of the same evaluation.
    Metric(&'static str),
    /// The mean of a metric over its classes, each behind this name.
    Classes(&'static str),
    /// A fact about the data.
    Fact(&'static str),
}

/// Which of a result's columns says how much an evaluation was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The metric's value.
    Value(&'static str),
    /// The number of items that the metric was computed over.
    Items(&'static str),
}

/// A task for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// Kind in grid files.
    pub kind: &'static str,
    /// What it is, as a heading.
    pub title: &'static str,
    /// The published dataset; `None` if every number of it is generated.
    pub dataset: Option<&'static str>,
    /// The dataset's folder under the data directory.
    pub root: &'static str,
    /// Configuration path whose value decides what a step of the data is called, where one does.
    pub step_key: Option<&'static str>,
    /// Values of that path and what a step is called, in the plural; the name behind the empty value is for all others.
    pub steps: &'static [(&'static str, &'static str)],
    /// Metrics of the main table in order, the one that counts first.
    pub metrics: &'static [&'static str],
    /// What was scored: where the amount stands, and what the items are called.
    pub scored: &'static [(Amount, &'static str)],
    /// What the items of an evaluation's curve are called, where the number behind its main metric counts them.
    pub curve_items: Option<&'static str>,
    /// Kind of the intervals over items, the metric that counts the items, and what they are called.
    pub intervals: (&'static str, Amount, &'static str),
}

use Better::{Higher, Lower};
use Digits::{After, Significant};

const fn metric(name: &'static str, label: &'static str, better: Option<Better>, digits: Digits) -> MetricInfo {
    MetricInfo { name, label, better, digits, range: (f64::NEG_INFINITY, f64::INFINITY), unlearned: None }
}

impl MetricInfo {
    const fn within(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }

    /// A share of something.
    const fn share(self) -> Self {
        self.within(0.0, 1.0)
    }

    /// Nothing negative.
    const fn positive(self) -> Self {
        self.within(0.0, f64::INFINITY)
    }

    const fn unlearned(self, from: Level, by: &'static str) -> Self {
        Self { unlearned: Some(Unlearned { from, by }), ..self }
    }
}

/// What ranks by chance.
const CHANCE: &str = "a ranking by chance";
/// What knows how often each token comes in the scored text, and nothing of what stands before it.
const UNIGRAM: &str = "the frequencies of the scored text's own tokens";

/// Every metric that has a label of its own.
pub const METRICS: &[MetricInfo] = &[
    metric("bits_per_byte", "bits per byte", Some(Lower), After(3))
        .positive()
        .unlearned(Level::Metric("unigram_bits_per_byte"), UNIGRAM),
    metric("perplexity", "perplexity per token", Some(Lower), Significant(4))
        .within(1.0, f64::INFINITY)
        .unlearned(Level::Metric("unigram_perplexity"), UNIGRAM),
    metric("perplexity_per_word", "perplexity per word", Some(Lower), Significant(4))
        .within(1.0, f64::INFINITY)
        .unlearned(Level::Metric("unigram_perplexity_per_word"), UNIGRAM),
    metric("loss", "loss (nats)", Some(Lower), After(4)).positive(),
    metric("prequential_loss", "prequential loss (nats)", Some(Lower), After(4)).positive(),
    metric("dynamic_bits_per_byte", "bits per byte, dynamic", Some(Lower), After(3)).positive(),
    metric("dynamic_perplexity_per_word", "perplexity per word, dynamic", Some(Lower), Significant(4))
        .within(1.0, f64::INFINITY),
    metric("dynamic_loss", "loss (nats), dynamic", Some(Lower), After(4)).positive(),
    metric("dynamic_auc_roc", "AUC-ROC, dynamic", Some(Higher), After(3)).share().unlearned(Level::Fixed(0.5), CHANCE),
    metric("window_loss", "prequential loss (nats), window", Some(Lower), After(4)).positive(),
    metric("matrix_*", "loss (nats) after phase, on domain: *", Some(Lower), After(3)).positive(),
    metric("forgetting", "forgetting (nats)", Some(Lower), After(3)),
    metric("backward_transfer", "backward transfer (nats)", Some(Higher), After(3)),
    metric("forward_transfer", "forward transfer (nats)", Some(Higher), After(3)),
    metric("change_before_*", "loss (nats) before change to phase *", Some(Lower), After(3)).positive(),
    metric("change_after_*", "loss (nats) right after change to phase *", Some(Lower), After(3)).positive(),
    metric("recovery_*", "recovery, seen in phase *", Some(Lower), Significant(3)).positive(),
    metric("accuracy", "accuracy", Some(Higher), After(3)).share().unlearned(Level::Fact("chance_accuracy"), "a guess"),
    metric("oov_rate", "unknown words", None, After(4)).share(),
    metric("auc_roc_macro", "AUC-ROC (macro)", Some(Higher), After(3)).share().unlearned(Level::Fixed(0.5), CHANCE),
    metric("auc_pr_macro", "AUC-PR (macro)", Some(Higher), After(3))
        .share()
        .unlearned(Level::Classes("prevalence_"), CHANCE),
    metric("auc_roc", "AUC-ROC", Some(Higher), After(3)).share().unlearned(Level::Fixed(0.5), CHANCE),
    metric("auc_pr", "AUC-PR", Some(Higher), After(3)).share().unlearned(Level::Metric("prevalence"), CHANCE),
    metric("auc_roc_*", "AUC-ROC *", Some(Higher), After(3)).share().unlearned(Level::Fixed(0.5), CHANCE),
    metric("auc_pr_*", "AUC-PR *", Some(Higher), After(3)).share(),
    metric("event_sensitivity", "event sensitivity", Some(Higher), After(3)).share(),
    metric("false_alarms_per_hour", "false alarms per hour", Some(Lower), Significant(3)).positive(),
    metric("prevalence", "prevalence", None, After(3)).share(),
    metric("scored_hours", "hours scored", None, Significant(3)).positive(),
    metric("word_error_rate_percent", "WER (%)", Some(Lower), After(2))
        .positive()
        .unlearned(Level::Fixed(100.0), "an empty transcript"),
    metric("character_error_rate_percent", "CER (%)", Some(Lower), After(2))
        .positive()
        .unlearned(Level::Fixed(100.0), "an empty transcript"),
];

/// WikiText-103.
pub const LANGUAGE: TaskInfo = TaskInfo {
    kind: "language",
    title: "Language modelling",
    dataset: Some("WikiText-103"),
    root: "wikitext-103",
    step_key: Some("task.vocabulary"),
    steps: &[("byte", "bytes"), ("word", "words"), ("bpe", "pieces"), ("", "tokens")],
    metrics: &["bits_per_byte", "perplexity_per_word", "perplexity", "oov_rate"],
    scored: &[(Amount::Value("scored_tokens"), "tokens"), (Amount::Value("scored_bytes"), "bytes")],
    curve_items: Some("bytes"),
    intervals: ("bootstrap", Amount::Items("scored_articles"), "articles"),
};

/// PTB-XL.
pub const CARDIO: TaskInfo = TaskInfo {
    kind: "cardio",
    title: "ECG classification",
    dataset: Some("PTB-XL"),
    root: "ptb-xl",
    step_key: None,
    steps: &[("", "frames")],
    metrics: &["auc_roc_macro", "auc_pr_macro"],
    scored: &[(Amount::Items("auc_roc_macro"), "recordings")],
    curve_items: Some("recordings"),
    intervals: ("bootstrap", Amount::Items("auc_roc_macro"), "recordings"),
};

/// CHB-MIT.
pub const SEIZURE: TaskInfo = TaskInfo {
    kind: "seizure",
    title: "Seizure detection",
    dataset: Some("CHB-MIT"),
    root: "chb-mit",
    step_key: None,
    steps: &[("", "frames")],
    metrics: &["auc_roc", "auc_pr", "prevalence", "event_sensitivity", "false_alarms_per_hour"],
    scored: &[(Amount::Items("auc_roc"), "windows")],
    curve_items: Some("windows"),
    intervals: ("bootstrap", Amount::Items("scored_hours"), "recordings"),
};

/// `LibriSpeech`.
pub const SPEECH: TaskInfo = TaskInfo {
    kind: "speech",
    title: "Speech recognition",
    dataset: Some("LibriSpeech"),
    root: "LibriSpeech",
    step_key: None,
    steps: &[("", "frames")],
    metrics: &["word_error_rate_percent", "character_error_rate_percent"],
    scored: &[(Amount::Items("word_error_rate_percent"), "words")],
    curve_items: None,
    intervals: ("bootstrap", Amount::Items("loss"), "utterances"),
};

/// A generated test of long-range credit.
pub const RECALL: TaskInfo = TaskInfo {
    kind: "recall",
    title: "Selective recall",
    dataset: None,
    root: "",
    step_key: None,
    steps: &[("", "steps")],
    metrics: &["accuracy", "loss"],
    scored: &[(Amount::Items("accuracy"), "items")],
    curve_items: None,
    intervals: ("Wilson", Amount::Items("accuracy"), "recordings"),
};

/// Every task.
pub const TASKS: &[&TaskInfo] = &[&LANGUAGE, &CARDIO, &SEIZURE, &SPEECH, &RECALL];

/// A task by its kind.
pub fn task(kind: &str) -> Option<&'static TaskInfo> {
    TASKS.iter().copied().find(|info| info.kind == kind)
}

/// What is known about a metric by its name, with the class that a `*` stands for.
pub fn find(name: &str) -> Option<(&'static MetricInfo, Option<&str>)> {
    let exact = METRICS.iter().find(|info| info.name == name).map(|info| (info, None));
    exact.or_else(|| {
        METRICS.iter().find_map(|info| {
            let class = name.strip_prefix(info.name.strip_suffix('*')?)?;
            Some((info, Some(class)))
        })
    })
}

/// An interval of a metric, cut where the metric's range ends: what lies beyond is no value it can have, so the interval covers as often as
/// before. That of an unknown metric stays.
#[must_use]
pub fn possible(name: &str, (low, high): (f64, f64)) -> (f64, f64) {
    let (least, most) = find(name).map_or((f64::NEG_INFINITY, f64::INFINITY), |(info, _)| info.range);
    (low.clamp(least, most), high.clamp(least, most))
}

impl TaskInfo {
    /// Its title with the dataset, as a heading.
    pub fn heading(&self) -> String {
        format!("{} ({})", self.title, self.dataset.unwrap_or("generated"))
    }

    /// The published dataset, or its own kind if there is none.
    pub fn data(&self) -> &'static str {
        self.dataset.unwrap_or(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_a_main_table_has_a_label_and_names_are_unique() {
        for name in TASKS.iter().flat_map(|task| task.metrics) {
            assert!(METRICS.iter().any(|info| info.name == *name), "{name}");
        }
        for (i, info) in METRICS.iter().enumerate() {
            assert!(METRICS[..i].iter().all(|other| other.name != info.name), "{}", info.name);
            assert_eq!(info.name.ends_with('*'), info.label.contains('*'), "{}", info.name);
        }
    }

    #[test]
    fn a_class_is_found_behind_its_metric() {
        assert_eq!(find("auc_roc_NORM").map(|(info, class)| (info.label, class)), Some(("AUC-ROC *", Some("NORM"))));
        assert_eq!(find("auc_roc_macro").map(|(info, class)| (info.label, class)), Some(("AUC-ROC (macro)", None)));
        assert_eq!(find("nothing"), None);
        assert_eq!(task("speech").map(TaskInfo::heading).as_deref(), Some("Speech recognition (LibriSpeech)"));
        assert!(task("Speech").is_none());
    }
}
