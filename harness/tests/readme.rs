//! Every figure that the README and the page of results state as measured stands in a committed results file.
//!
//! A table of figures follows a comment that says where they are from: `<!-- figures of FILE against MODEL -->` names the model that
//! ratios are held against (`MODEL of FILE` if it stands in another one), and what a cell must say follows from its column's title; `<!-- METRIC by learning rate of FILE -->` has a
//! column for each rate. The first cell of a row names its model in backticks. A figure in README's text beside the tables must stand
//! in one of them.
//!
//! `HARNESS_UPDATE=1` writes the figures of all tables anew: a new table needs its comment, its titles, and rows with their models.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rows::results::{ResultRow, read_results};
use statistics::estimate::estimate_over_seeds;

const SECTION: &str = "## Measured";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The section's lines.
fn section(readme: &str) -> Vec<&str> {
    let from = readme.lines().skip_while(|line| *line != SECTION).skip(1);
    from.take_while(|line| !line.starts_with("## ")).collect()
}

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
    let interval = |metric: &str| match estimate_over_seeds(&values(rows, model, metric)).map(|e| (e.mean, e.interval))
    {
        Some((mean, Some((low, high)))) => format!("{mean:.3} [{low:.3}, {high:.3}]"),
        Some((mean, None)) => format!("{mean:.3}"),
        None => "not measured".to_owned(),
    };
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
        other => panic!("no test knows what a column `{other}` must say"),
    }
}

/// What the cells of a row must say that has a column for each learning rate, the best of them in bold.
fn by_rate(rows: &[ResultRow], model: &str, metric: &str, titles: &[&str]) -> Vec<String> {
    let rate = |r: &ResultRow| r.config.get("train.learning_rate").and_then(|rate| rate.parse::<f64>().ok());
    let at = |title: &str| {
        let wanted: f64 = title.parse().expect("a learning rate as the title of a column");
        let these: Vec<ResultRow> =
            rows.iter().filter(|r| rate(r).is_some_and(|r| (r / wanted - 1.0).abs() < 1e-9)).cloned().collect();
        mean(&these, model, &[metric])
    };
    let means: Vec<f64> = titles.iter().map(|title| at(title)).collect();
    let lower = metrics::catalogue::find(metric).is_some_and(|(m, _)| m.better == Some(statistics::Better::Lower));
    let best = means.iter().copied().reduce(|a, b| if lower { a.min(b) } else { a.max(b) });
    let text = |m: &f64| if Some(*m) == best { format!("**{m:.3}**") } else { format!("{m:.3}") };
    means.iter().map(text).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// Figures with a decimal point, a per cent sign or a multiplication sign behind them.
fn figures(line: &str) -> Vec<String> {
    let words =
        line.split(|c: char| c.is_whitespace() || "()[],;".contains(c)).map(|word| word.trim_end_matches(['.', ':']));
    let is_figure = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && (word.contains('.') || word.ends_with('×') || word.ends_with('%'))
    };
    words.filter(is_figure).map(str::to_owned).collect()
}

/// Checks every table of figures: the number of tables, and of rows that are not what the files say the line and what would be right.
fn wrong_rows(lines: &[&str]) -> (usize, Vec<(usize, String)>) {
    let (mut tables, mut wrong) = (0, Vec::new());
    for (i, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("|---")) {
        let titles = cells(lines[i - 1]);
        if titles == ["row", "is"] {
            continue;
        }
        tables += 1;
        let comment = lines[..i - 1].iter().rev().find(|line| !line.is_empty()).expect("something before a table");
        let comment = comment.strip_prefix("<!-- ").and_then(|c| c.strip_suffix(" -->")).unwrap_or_default();
        let figures = comment.strip_prefix("figures of ").and_then(|n| n.split_once(" against "));
        let rates = comment.split_once(" by learning rate of ");
        let (file, kind) = figures.or(rates.map(|(metric, file)| (file, metric))).expect("a table without its file");
        let mut rows = read_results(&root().join(file)).expect(file);
        let reference = figures.map(|(_, reference)| reference.split_once(" of ").unwrap_or((reference, file)));
        if let Some((model, other)) = reference.filter(|(_, other)| *other != file) {
            assert!(!rows.iter().any(|row| row.model == model && row.value.is_some()), "{file} has its own `{model}`");
            let others = read_results(&root().join(other)).expect(other);
            rows.extend(others.into_iter().filter(|row| row.model == model));
        }
        for (at, line) in lines.iter().enumerate().skip(i + 1).take_while(|(_, line)| line.starts_with('|')) {
            let cells = cells(line);
            assert!(updates() || cells.len() == titles.len(), "{line}");
            let model = cells[0].split('`').nth(1).expect("a model in backticks");
            assert!(rows.iter().any(|row| row.model == model && row.value.is_some()), "{file} has no `{model}`");
            let right: Vec<String> = match reference {
                Some((reference, _)) => titles[1..].iter().map(|t| expected(&rows, model, reference, t)).collect(),
                None => by_rate(&rows, model, kind, &titles[1..]),
            };
            if right != cells[1..] {
                wrong.push((at, format!("| {} | {} |", cells[0], right.join(" | "))));
            }
        }
    }
    (tables, wrong)
}

/// Whether tables are to be written anew.
fn updates() -> bool {
    std::env::var_os("HARNESS_UPDATE").is_some()
}

/// Fails with rows that are not what the files say, or writes them anew into the file whose lines begin `before` those that were checked.
fn settle(file: &str, text: &str, before: usize, wrong: Vec<(usize, String)>) {
    if updates() {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, right) in wrong {
            lines[before + at] = right;
        }
        fs::write(root().join(file), lines.join("\n") + "\n").expect("a file that can be written");
        return;
    }
    let rows: Vec<String> = wrong.into_iter().map(|(_, right)| right).collect();
    assert!(rows.is_empty(), "rows of {file} that are not what the files say; right is:\n{}", rows.join("\n"));
}

#[test]
fn every_figure_of_the_readme_stands_in_a_committed_file() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let lines = section(&readme);
    let (tables, wrong) = wrong_rows(&lines);
    assert!(tables > 0, "no table under {SECTION}");
    let before = readme.lines().take_while(|line| *line != SECTION).count() + 1;
    settle("README.md", &readme, before, wrong);
    let in_tables: String = lines.iter().filter(|line| line.starts_with('|')).copied().collect();
    let beside = lines.iter().filter(|line| !line.starts_with('|') && !line.starts_with("<!--"));
    for figure in beside.flat_map(|line| figures(line)) {
        assert!(in_tables.contains(&figure), "the figure {figure} under {SECTION} stands in no table");
    }
}

#[test]
fn the_tables_of_the_page_of_results_are_what_the_files_say() {
    let page = fs::read_to_string(root().join("reports/results/README.md")).expect("the page of results");
    let (tables, wrong) = wrong_rows(&page.lines().collect::<Vec<_>>());
    assert!(tables > 3, "{tables} tables");
    settle("reports/results/README.md", &page, 0, wrong);
}

#[test]
fn a_figure_is_told_from_a_number() {
    assert_eq!(
        figures("costs 1.049× the bits (0.30×), 12 % of 4 layers, 95% and 2.5."),
        ["1.049×", "0.30×", "95%", "2.5"]
    );
}
