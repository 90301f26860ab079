//! Where a section's numbers come from, in words.

use std::collections::BTreeSet;

use super::catalogue;
use super::group::Part;
use super::model::Fact;
use super::paper::Paper;
use data::identity::Identity;
use metrics::catalogue::Amount;

/// Commands that are shown.
const MOST_COMMANDS: usize = 3;
/// Items of a list that are looked for.
const MOST_ITEMS: usize = 1000;

/// What a step of the data is called in the plural.
pub(super) fn unit(part: &Part) -> &'static str {
    let Some(info) = part.info else { return "steps" };
    let values = info.step_key.map(|key| part.config(key)).unwrap_or_default();
    let mut values = values.iter();
    let only = values.next().filter(|_| values.next().is_none()).copied().unwrap_or_default();
    let name = |value: &str| info.steps.iter().find(|(of, _)| *of == value).map(|(_, name)| *name);
    name(only).or_else(|| name("")).unwrap_or("steps")
}

/// Whether it trained on another split than the published one.
pub(super) fn trains_elsewhere(part: &Part) -> bool {
    let other_splits = |list: String| list.split(", ").any(|split| !split.trim_matches('"').starts_with("train-"));
    part.config("task.train_split").into_iter().any(|split| split != "train")
        || list(part, "task.train_splits").is_some_and(other_splits)
        || list(part, "task.train_folds").is_some_and(|folds| span(&folds) != "1 to 8")
}

/// Whether it was scored on another part than the published results are of.
pub(super) fn evaluates_elsewhere(part: &Part) -> bool {
    part.split != super::group::TEST
        || part.config("task.test_split").into_iter().any(|split| split != "test")
        || list(part, "task.test_splits").is_some_and(|splits| splits.trim_matches('"') != "test-clean")
        || list(part, "task.test_folds").is_some_and(|folds| folds != "10")
}

/// Device, threads and instruction set of the completed runs, such as `cpu with 2 threads (avx512)`.
pub(super) fn machine(part: &Part) -> String {
    let threads = threads(part);
    let sets = join(part.runs().filter(|run| run.completed()).filter_map(|run| run.head.instruction_set.clone()));
    let sets = if sets.is_empty() { sets } else { format!(" ({sets})") };
    format!("{} with {threads} {}{sets}", devices(part), if threads == "1" { "thread" } else { "threads" })
}

fn devices(part: &Part) -> String {
    join(part.runs().filter(|run| run.completed()).map(|run| run.head.device.clone()))
}

fn threads(part: &Part) -> String {
    let runs = part.runs().filter(|run| run.completed());
    let counts: BTreeSet<u64> = runs.map(|run| run.head.threads).collect();
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
    let dataset = part.info.map_or(part.family, |info| info.data());
    let identity = part.identity();
    // what the files hold counts, not what their folder is called
    let elsewhere = other_folder(part).filter(|_| !identity.has_name());
    let own = !matches!(identity, Identity::Published | Identity::Subset) || elsewhere.is_some();
    let owner = if own { "its".to_owned() } else { format!("{dataset}'s") };
    let origin = if part.generated() && is_made(part) {
        "Generated data, for which there is no published dataset. ".to_owned()
    } else if part.generated() {
        format!(
            "Generated data in the file format of {dataset}, not {dataset}: no number here compares with a published one. "
        )
    } else if let Some(folder) = elsewhere {
        format!(
            "Data in the folder `{folder}`, not {dataset} as published: no number here compares with a published one. "
        )
    } else {
        let reason = part.identity_reason();
        let reason = if reason.is_empty() { reason.to_owned() } else { format!(" ({reason})") };
        match identity {
            Identity::Unverified => {
                format!("Unverified data, as given{reason}: no number here compares with a published one. ")
            }
            Identity::Subset => format!("A subset of {dataset}, files verified{reason}. "),
            Identity::Published | Identity::Generated => String::new(),
        }
    };
    let (train, test) = (place(part, "train"), place(part, part.split));
    let mut text = format!("{origin}Trains on {owner} {train} and evaluates on its {test}.");
    if part.has_config("task.drift") {
        text += " What is scored at the end has the electrodes of the stream's end.";
    }
    for selection in part.config("task.selection") {
        text += match selection {
            "here" => " Settings are chosen by these results: the test part is not scored.",
            "none" => " Nothing is chosen by these results.",
            _ => "",
        };
    }
    if trains_elsewhere(part) && !own {
        text += if part.has_config("task.train_split") {
            " Published results train on the train split."
        } else {
            " Published results train on the parts for training."
        };
    }
    text
}

/// Whether there is no published dataset for what a section is about: its data are always made.
fn is_made(part: &Part) -> bool {
    part.info.is_none_or(|info| info.dataset.is_none())
}

/// Which data a section is of, in a few words: what they are, what trains and what is scored. (What is known of their identity belongs
/// here and in [`data`].)
pub(super) fn data_in_short(part: &Part) -> String {
    let dataset = part.info.map_or(part.family, |info| info.data());
    let elsewhere = other_folder(part).filter(|_| !part.identity().has_name());
    let what = match (part.identity(), elsewhere) {
        (Identity::Generated, _) if is_made(part) => "generated".to_owned(),
        (Identity::Generated, _) => format!("generated in the format of {dataset}"),
        (_, Some(folder)) => format!("folder `{folder}`, not {dataset} as published"),
        (Identity::Unverified, None) => "unverified data".to_owned(),
        (Identity::Subset, None) => format!("a subset of {dataset}"),
        (Identity::Published, None) => dataset.to_owned(),
    };
    format!("{what}; trains on {}, scored on {}", place(part, "train"), place(part, part.split))
}

/// The data that plays a role (`train`, `valid` or `test`), such as `valid split` or `folds 1, 2`: a configuration may
/// give a split another role than its name's.
pub(super) fn place(part: &Part, role: &str) -> String {
    if let Some(folds) = list(part, &format!("task.{role}_folds")) {
        return format!("{} {}", if folds.contains([',', ' ']) { "folds" } else { "fold" }, span(&folds));
    }
    if part.has_config("task.split") {
        return patients(part, role);
    }
    if let Some(splits) = list(part, &format!("task.{role}_splits")).map(|list| list.replace('"', "")) {
        let of = if splits.contains([',', ' ']) { "splits" } else { "split" };
        let first = join(part.config(&format!("task.utterances.{role}")).into_iter().map(str::to_owned));
        let first = if first.is_empty() { first } else { format!(" (the first {first} utterances)") };
        return format!("{of} {splits}{first}");
    }
    let chosen = join(part.config(&format!("task.{role}_split")).into_iter().map(stretch));
    if chosen.is_empty() { format!("{role} split") } else { chosen }
}

/// `valid` and `valid[:0.9]` in words: a split, or a stretch of one.
fn stretch(text: &str) -> String {
    let Some((split, shares)) = text.split_once('[') else { return format!("{text} split") };
    let percent = |share: &str| share.parse::<f64>().map_or_else(|_| share.to_owned(), |x| format!("{}", 1e2 * x));
    let (from, to) = shares.trim_end_matches(']').split_once(':').unwrap_or((shares, ""));
    let rest = || to.is_empty().then(|| from.parse::<f64>().ok()).flatten();
    let which = match (from.is_empty(), rest()) {
        (true, _) => format!("first {} %", percent(to)),
        (false, Some(from)) => format!("last {} %", (1e4 * (1.0 - from)).round() / 1e2),
        (false, None) => format!("{} to {} %", percent(from), percent(to)),
    };
    format!("{split} split ({which}, cut at an article)")
}

/// The folder, where the task reads another than the dataset's.
fn other_folder(part: &Part) -> Option<String> {
    let root = join(part.config("task.root").into_iter().map(str::to_owned));
    part.info.filter(|info| !root.is_empty() && root != info.root).map(|_| root)
}

/// Cases of CHB-MIT that play a role.
fn patients(part: &Part, role: &str) -> String {
    let cases =
        |key: &str| list(part, &format!("task.{key}")).map(|list| list.replace('"', "")).filter(|l| !l.is_empty());
    let plural = |list: &str| if list.contains([',', ' ']) { "cases" } else { "case" };
    if part.config("task.split").contains(&"chronological") {
        let of = cases("cases").map_or_else(|| "every case".to_owned(), |list| format!("{} {list}", plural(&list)));
        let when = match role {
            "train" => "earliest",
            "valid" => "middle",
            _ => "latest",
        };
        return format!("{when} recordings of {of}");
    }
    let listed = cases(&format!("{role}_cases"));
    listed.map_or_else(|| "other cases".to_owned(), |list| format!("{} {list}", plural(&list)))
}

/// `1 to 8` for `1, 2, 3, 4, 5, 6, 7, 8`; other lists as they are.
fn span(list: &str) -> String {
    let numbers: Option<Vec<u64>> = list.split(", ").map(|item| item.parse().ok()).collect();
    match numbers.as_deref() {
        Some([first, .., last]) if numbers.iter().flatten().copied().eq(*first..=*last) && last - first > 2 => {
            format!("{first} to {last}")
        }
        _ => list.to_owned(),
    }
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
pub(super) fn facts(part: &Part, paper: &Paper) -> Vec<Fact> {
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
    add("of the data", notes(part, |note| note.starts_with(OF_DATA)));
    add("vocabulary", join(part.config("task.vocabulary").into_iter().map(str::to_owned)));
    add("scored", scored(part));
    add("device", devices(part));
    add("threads", threads(part));
    add("instruction set", join(part.runs().filter_map(|run| run.head.instruction_set.clone())));
    add("program", programs(part));
    add("compiler", join(part.runs().filter_map(|run| run.head.compiler.clone())));
    add("prices", prices(part, paper));
    add("command", commands(part));
    add("mended", notes(part, |note| !note.starts_with(OF_DATA)));
    facts
}

/// The lists that energies are priced by, with their sources and prices where these are known.
fn prices(part: &Part, paper: &Paper) -> String {
    let words = |name: &str| paper.prices.get(name).map_or_else(|| name.to_owned(), |words| format!("{name}, {words}"));
    join(part.runs().filter_map(|run| run.head.cost_model.as_deref().map(words)))
}

/// What a cell's notes on its data begin with.
const OF_DATA: &str = "data: ";

/// The distinct notes of a kind.
fn notes(part: &Part, of_kind: impl Fn(&str) -> bool) -> String {
    let lines = part.runs().flat_map(|run| run.head.notes.as_deref().unwrap_or_default().lines());
    let lines = lines.filter(|note| of_kind(note)).map(|note| note.trim_start_matches(OF_DATA).to_owned());
    lines.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join("; ")
}

/// Version and commit of the programs that ran the cells.
pub(super) fn programs(part: &Part) -> String {
    let program = |run: &super::group::Run| {
        let commit = run.head.git_commit.as_deref().map(|commit| commit.get(..12).unwrap_or(commit));
        let dirty = if run.head.git_dirty == Some(true) { ", with changes that are not committed" } else { "" };
        let Some(version) = run.head.version.as_deref() else {
            return run.completed().then(|| "commit not recorded by this version of the program".to_owned());
        };
        Some(format!("{version}, commit {}{dirty}", commit.unwrap_or("unknown")))
    };
    join(part.runs().filter_map(program))
}

/// The commands that asked for the cells, as a shell takes them.
fn commands(part: &Part) -> String {
    let commands: BTreeSet<&str> = part.runs().filter_map(|run| run.head.command.as_deref()).collect();
    let mut shown: Vec<String> = commands.iter().take(MOST_COMMANDS).map(|command| (*command).to_owned()).collect();
    if let Some(more) = commands.len().checked_sub(MOST_COMMANDS).filter(|more| *more > 0) {
        shown.push(format!("{more} others"));
    }
    shown.join(" or ")
}

/// Which grid chose the learning rates, in a sentence.
pub(super) fn rates(part: &Part) -> String {
    let grids = join(part.config("report.rates_from").into_iter().map(|name| format!("`{name}`")));
    if grids.is_empty() {
        return "Learning rates: as this grid gives them; it names no grid that chose them.".into();
    }
    let tries = join(part.config("report.rates_tried").into_iter().map(str::to_owned));
    format!("Learning rates: chosen by {grids}, which tries the same {tries} for each model.")
}

/// What the intervals of single runs are over, such as `bootstrap intervals over 60 articles`.
pub(super) fn item_intervals(part: &Part) -> String {
    let (kind, counts, items) = match part.info.map(|info| info.intervals) {
        None => ("bootstrap", BTreeSet::new(), "items"),
        Some((kind, amount, items)) => (kind, amounts(part, amount), items),
    };
    let counts = counts.into_iter().map(catalogue::count).collect::<Vec<_>>().join(" or ");
    let counts = if counts.is_empty() { counts } else { format!("{counts} ") };
    format!("{kind} intervals over the {counts}{items}")
}

/// What the runs were over, by the rows of their results.
fn amounts(part: &Part, amount: Amount) -> BTreeSet<u64> {
    let (metric, of): (_, fn(&super::ResultRow) -> Option<u64>) = match amount {
        Amount::Value(metric) => (metric, |row| row.value.map(|value| value as u64)),
        Amount::Items(metric) => (metric, |row| row.n),
    };
    let rows = part.runs().filter(|run| run.completed()).filter_map(|run| run.row(metric, Some(part.split)));
    rows.filter_map(of).collect()
}

/// How much was scored, where all completed runs scored the same.
fn scored(part: &Part) -> String {
    let text = |amounts: BTreeSet<u64>, what: &str| {
        let each: Vec<String> = amounts.into_iter().map(catalogue::count).collect();
        (!each.is_empty()).then(|| format!("{} {what}", each.join(" or ")))
    };
    let scored = part.info.map_or(&[][..], |info| info.scored);
    // what a step is called says more than the name of what is counted: words, for tokens
    let name = |items| if items == "tokens" { unit(part) } else { items };
    let mut parts: Vec<String> =
        scored.iter().filter_map(|&(amount, items)| text(amounts(part, amount), name(items))).collect();
    parts.dedup();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::ResultRow;
    use super::super::fixture::{cell, config};
    use super::super::group::parts;
    use super::*;

    #[test]
    fn splits_are_named_by_what_they_are_not_by_their_role() {
        let pairs = [("task.train_split", "valid"), ("task.valid_split", "test"), ("task.vocabulary", "bpe")];
        let mut row = config(cell("bim", 1), &pairs);
        row.split = Some("test".into());
        let rows = [row];
        let parts = parts(&rows);
        let expected = "Trains on WikiText-103's valid split and evaluates on its test split. Published results train on \
                        the train split.";
        assert_eq!(data(&parts[0]), expected);
        assert_eq!(place(&parts[0], "valid"), "test split");
        assert_eq!(unit(&parts[0]), "pieces");
    }

    #[test]
    fn the_short_line_names_a_dataset_only_where_its_files_match() {
        let of = |identity: &str, pairs: &[(&str, &str)]| {
            let mut row = config(cell("bim", 1), pairs);
            row.data_identity = Some(identity.into());
            let rows = [row];
            let text = data_in_short(&parts(&rows)[0]);
            text.split(';').next().unwrap_or_default().to_owned()
        };
        assert_eq!(of("published: every file", &[]), "WikiText-103");
        assert_eq!(of("subset: 2 of 3 files", &[]), "a subset of WikiText-103");
        assert_eq!(of("unverified: another size", &[]), "unverified data");
        assert_eq!(of("generated: here", &[]), "generated in the format of WikiText-103");
        let root = [("task.root", "my-text")];
        assert_eq!(of("unverified: another size", &root), "folder `my-text`, not WikiText-103 as published");
        assert_eq!(of("published: every file", &root), "WikiText-103", "a published copy under another name");
    }

    /// What is generated because nobody published it is no stand-in for a dataset.
    #[test]
    fn whose_electrodes_are_scored_is_said() {
        let said = |pairs: &[(&str, &str)]| {
            let rows = [config(ResultRow { task: "cardio".into(), ..cell("bim", 1) }, pairs)];
            data(&parts(&rows)[0]).contains("has the electrodes of the stream's end")
        };
        assert!(said(&[("task.drift.0.gain", "5")]) && said(&[("task.drift", "[{after: 80}]")]) && !said(&[]));
    }

    #[test]
    fn generated_data_without_a_dataset_are_not_in_its_format() {
        let row = ResultRow { task: "recall".into(), data_identity: Some("generated: here".into()), ..cell("bim", 1) };
        let rows = [row];
        let all = parts(&rows);
        assert!(data(&all[0]).starts_with("Generated data, for which there is no published dataset. Trains on its "));
        assert!(data_in_short(&all[0]).starts_with("generated; "), "{}", data_in_short(&all[0]));
    }

    #[test]
    fn stretches_and_choices_are_said() {
        let pairs = [
            ("task.train_split", "valid[:0.9]"),
            ("task.valid_split", "valid[0.9:]"),
            ("task.test_split", "valid[0.2:0.35]"),
            ("task.selection", "here"),
        ];
        let mut row = config(cell("bim", 1), &pairs);
        row.split = Some("valid".into());
        row.metric = Some("bits_per_byte".into());
        let rows = [row];
        let parts = parts(&rows);
        let expected = "Trains on WikiText-103's valid split (first 90 %, cut at an article) and evaluates on its valid split \
                        (last 10 %, cut at an article). Settings are chosen by these results: the test part is not scored. \
                        Published results train on the train split.";
        assert_eq!(data(&parts[0]), expected);
        assert_eq!(place(&parts[0], "test"), "valid split (20 to 35 %, cut at an article)");
        let speech =
            ResultRow { task: "speech".into(), ..config(cell("bim", 1), &[("task.train_splits", "[\"a\",\"b\"]")]) };
        assert_eq!(place(&super::super::group::parts(&[speech])[0], "train"), "splits a, b");
    }

    #[test]
    fn what_was_trained_on_is_what_the_task_did() {
        let of = |pairs: &[(&str, &str)], task: &str| {
            let mut row = config(cell("bim", 1), pairs);
            (row.task, row.split) = (task.into(), Some("test".into()));
            row.metric = Some("loss".into());
            let rows = [config(row, &[("task.kind", task)])];
            let parts = parts(&rows);
            (data(&parts[0]), trains_elsewhere(&parts[0]), evaluates_elsewhere(&parts[0]))
        };
        let splits = [("task.train_splits", "[\"test-other\"]"), ("task.test_splits", "[\"test-clean\"]")];
        let (text, trains, evaluates) = of(&[&splits[..], &[("task.utterances.train", "128")]].concat(), "speech");
        assert!(text.starts_with("Trains on LibriSpeech's split test-other (the first 128 utterances)"), "{text}");
        assert!(text.ends_with("Published results train on the parts for training."), "{text}");
        assert!(trains && !evaluates);
        let (text, trains, evaluates) =
            of(&[("task.train_splits", "[\"train-clean-100\"]"), ("task.test_splits", "[\"dev-clean\"]")], "speech");
        assert!(
            text == "Trains on LibriSpeech's split train-clean-100 and evaluates on its split dev-clean.",
            "{text}"
        );
        assert!(!trains && evaluates);
        let folds = [("task.train_folds", "[1,2,3,4,5,6,7,8]"), ("task.test_folds", "[10]")];
        assert_eq!((of(&folds, "cardio").1, of(&folds, "cardio").2), (false, false));
        let folds = [("task.train_folds", "[1,2]"), ("task.test_folds", "[9]")];
        assert_eq!((of(&folds, "cardio").1, of(&folds, "cardio").2), (true, true));
    }

    #[test]
    fn cases_are_named_by_their_split() {
        let place_of = |pairs: &[(&str, &str)], role: &str| {
            let mut row = config(cell("bim", 1), pairs);
            row.task = "seizure".into();
            let rows = [config(row, &[("task.kind", "seizure")])];
            place(&parts(&rows)[0], role)
        };
        let patients =
            [("task.split", "patients"), ("task.train_cases", "[]"), ("task.test_cases", "[\"chb03\",\"chb08\"]")];
        assert_eq!(place_of(&patients, "test"), "cases chb03, chb08");
        assert_eq!(place_of(&patients, "train"), "other cases");
        let time = [("task.split", "chronological"), ("task.cases", "[\"chb01\"]")];
        assert_eq!(place_of(&time, "test"), "latest recordings of case chb01");
    }

    #[test]
    fn lists_are_read_whole_or_by_item_and_shortened() {
        let whole = config(cell("bim", 1), &[("task.train_folds", "[1,2,3,4]"), ("task.test_folds", "[10]")]);
        let items = config(cell("bim", 1), &[("task.train_folds.0", "2"), ("task.train_folds.1", "5")]);
        let (whole, items) = ([whole], [items]);
        let (whole, items) = (parts(&whole), parts(&items));
        assert_eq!(place(&whole[0], "train"), "folds 1 to 4");
        assert_eq!(place(&whole[0], "test"), "fold 10");
        assert_eq!(place(&items[0], "train"), "folds 2, 5");
    }
}
