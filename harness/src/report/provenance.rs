//! Where a section's numbers come from, in words.

use std::collections::BTreeSet;

use super::catalogue;
use super::group::Part;
use super::model::Fact;

/// Items of a list that are looked for.
const MOST_ITEMS: usize = 1000;

/// What a step of the data is called in the plural.
pub(super) fn unit(part: &Part) -> &'static str {
    let vocabularies = part.config("task.vocabulary");
    let mut vocabularies = vocabularies.iter();
    match (part.task, vocabularies.next(), vocabularies.next()) {
        ("language", Some(&"byte"), None) => "bytes",
        ("language", Some(&"word"), None) => "words",
        ("language", Some(&"bpe"), None) => "pieces",
        ("language", _, _) => "tokens",
        ("cardio" | "speech" | "seizure", _, _) => "frames",
        _ => "steps",
    }
}

/// Whether it trained on another split than the published one.
pub(super) fn trains_elsewhere(part: &Part) -> bool {
    part.config("task.train_split").into_iter().any(|split| split != "train")
}

/// Device and threads, such as `cpu with 2 threads`.
pub(super) fn machine(part: &Part) -> String {
    let threads = threads(part);
    format!("{} with {threads} {}", devices(part), if threads == "1" { "thread" } else { "threads" })
}

fn devices(part: &Part) -> String {
    join(part.runs().map(|run| run.head.device.clone()))
}

fn threads(part: &Part) -> String {
    let counts: BTreeSet<u64> = part.runs().map(|run| run.head.threads).collect();
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    counts.join(" or ")
}

/// Distinct values, sorted and joined.
fn join(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect::<BTreeSet<_>>().into_iter().collect();
    values.join(" or ")
}

/// The caption of the main table: data, splits and scale.
pub(super) fn caption(part: &Part) -> String {
    format!("{} Scale {}.", data(part), part.scale)
}

/// On which data a section trains and evaluates, in whole sentences.
pub(super) fn data(part: &Part) -> String {
    let dataset = catalogue::dataset(part.task);
    let owner = if part.generated() { "its".to_owned() } else { format!("{dataset}'s") };
    let origin = if part.generated() {
        format!(
            "Generated data in the file format of {dataset}, not {dataset}: no number here compares with a published one. "
        )
    } else {
        String::new()
    };
    let (train, test) = splits(part);
    let mut text = format!("{origin}Trains on {owner} {train} and evaluates on its {test}.");
    if trains_elsewhere(part) && !part.generated() {
        text += " Published results train on the train split.";
    }
    text
}

/// What it trains and what it evaluates on, such as `valid split` and `folds 10`.
fn splits(part: &Part) -> (String, String) {
    let folds = |path: &str| {
        list(part, path).map(|folds| format!("{} {folds}", if folds.contains([',', ' ']) { "folds" } else { "fold" }))
    };
    let split = |path: &str, default: &str| {
        let chosen = join(part.config(path).into_iter().map(str::to_owned));
        format!("{} split", if chosen.is_empty() { default } else { &chosen })
    };
    let (train, test) = match part.split {
        "valid" => (folds("task.train_folds"), folds("task.valid_folds")),
        _ => (folds("task.train_folds"), folds("task.test_folds")),
    };
    (
        train.unwrap_or_else(|| split("task.train_split", "train")),
        test.unwrap_or_else(|| split(&format!("task.{}_split", part.split), part.split)),
    )
}

/// A configuration value that is a list, stored as one text or as one column per item.
fn list(part: &Part, path: &str) -> Option<String> {
    let whole = part.config(path);
    if !whole.is_empty() {
        let texts = whole.into_iter().map(|text| text.trim_matches(|c| c == '[' || c == ']').replace(',', ", "));
        return Some(join(texts.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))));
    }
    let item = |i: usize| join(part.config(&format!("{path}.{i}")).into_iter().map(str::to_owned));
    let items: Vec<String> = (0..MOST_ITEMS).map(item).take_while(|item| !item.is_empty()).collect();
    (!items.is_empty()).then(|| items.join(", "))
}

/// Facts below a section's tables.
pub(super) fn facts(part: &Part) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push(Fact { name: name.into(), value });
        }
    };
    let seeds: BTreeSet<u64> = part.runs().map(|run| run.head.seed).collect();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let completed = part.runs().filter(|run| run.completed()).count();
    add("experiment", part.experiment.into());
    add("scale", part.scale.into());
    add("cells", format!("{completed} of {} completed", part.runs().count()));
    add("seeds", seeds.join(", "));
    add("data", data(part));
    add("vocabulary", join(part.config("task.vocabulary").into_iter().map(str::to_owned)));
    add("scored", scored(part));
    add("device", devices(part));
    add("threads", threads(part));
    facts
}

/// How much was scored, where all completed runs scored the same.
fn scored(part: &Part) -> String {
    let amounts = |metric: &str| -> BTreeSet<u64> {
        let rows = part.runs().filter(|run| run.completed()).filter_map(|run| run.row(metric, Some(part.split)));
        rows.filter_map(|row| row.value.map(|value| value as u64)).collect()
    };
    let items = || -> BTreeSet<u64> {
        let main = part.main_metrics();
        let rows = part.runs().filter_map(|run| run.row(main.first()?, Some(part.split)));
        rows.filter_map(|row| row.n).collect()
    };
    let text = |amounts: BTreeSet<u64>, what: &str| {
        let each: Vec<String> = amounts.into_iter().map(catalogue::count).collect();
        (!each.is_empty()).then(|| format!("{} {what}", each.join(" or ")))
    };
    let mut parts: Vec<String> = Vec::new();
    if part.task == "language" {
        if unit(part) != "bytes" {
            parts.extend(text(amounts("scored_tokens"), unit(part)));
        }
        parts.extend(text(amounts("scored_bytes"), "bytes"));
    } else {
        parts.extend(text(items(), if part.task == "cardio" { "recordings" } else { "items" }));
    }
    parts.join(", ")
}
