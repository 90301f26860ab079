//! A comparison for readers and for programs.

use std::fmt::Write;

use super::comparison::{Change, Comparison, Difference};

/// Differences that are listed one by one in words; the table has all.
const MOST_LISTED: usize = 20;
/// Characters of a line.
const WIDTH: usize = 100;
/// Characters that a column of the table keeps, however little room there is.
const NARROWEST: usize = 16;

/// In words, with a table behind.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let count = |change: Change| comparison.differences.iter().filter(|d| d.change == change).count();
    let all = [
        Change::Regressed,
        Change::Improved,
        Change::Equivalent,
        Change::Identical,
        Change::Undecided,
        Change::OneSeed,
        Change::Unknown,
    ];
    let counts: Vec<String> =
        all.into_iter().filter(|c| count(*c) > 0).map(|c| format!("{} {}", count(c), c.name())).collect();
    let counts = if counts.is_empty() { "nothing to compare".to_owned() } else { counts.join(", ") };
    wrap(&mut out, &format!("B against A, paired by seed: {counts}."), 0);
    if comparison.tests > 0 {
        let tests = format!(
            "{} paired t tests, adjusted by {}. Differences below {} % of A do not matter (--effect).",
            comparison.tests,
            comparison.adjustment,
            100.0 * comparison.effect
        );
        wrap(&mut out, &tests, 0);
    }
    for (title, lines) in [
        ("Settings that differ", &comparison.settings),
        ("Only in A", &comparison.only_a),
        ("Only in B", &comparison.only_b),
        ("Not completed in both", &comparison.not_completed),
    ] {
        list(&mut out, title, lines);
    }
    for change in [Change::Regressed, Change::Improved] {
        let sentences: Vec<String> =
            comparison.differences.iter().filter(|d| d.change == change).map(sentence).collect();
        list(&mut out, if change == Change::Regressed { "Regressed" } else { "Improved" }, &sentences);
    }
    let rows: Vec<&Difference> = comparison.differences.iter().filter(|d| !d.counted).collect();
    if !rows.is_empty() {
        out.push('\n');
        table(&mut out, &rows);
    }
    out
}

/// Running text as lines; those after the first are indented by two more. A word that has no room on any line is broken.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let (further, mut line, mut empty) = (indent + 2, " ".repeat(indent), true);
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            (line, empty) = (" ".repeat(further), true);
        }
        if !empty {
            line.push(' ');
        }
        for letter in word.chars() {
            if line.chars().count() == WIDTH {
                let _ = writeln!(out, "{line}");
                line = " ".repeat(further);
            }
            line.push(letter);
        }
        empty = false;
    }
    let _ = writeln!(out, "{line}");
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title} ({}):", lines.len());
    for line in lines.iter().take(MOST_LISTED) {
        wrap(out, line, 2);
    }
    if lines.len() > MOST_LISTED {
        let _ = writeln!(out, "  … and {} more (--json has all)", lines.len() - MOST_LISTED);
    }
}

/// `text bim: bits per byte 2.310 → 2.441 (+5.7 % [+3.1, +8.0], p = 0.003 adjusted, 3 seeds)`.
fn sentence(d: &Difference) -> String {
    let value = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), digits);
    let mut facts = vec![share(d)];
    facts.extend(d.p_adjusted.map(|p| format!("p = {p:.2} adjusted").replace("p = 0.00", "p < 0.01")));
    facts.push(if d.counted { "counted".to_owned() } else { format!("{} seeds", d.seeds) });
    facts.retain(|fact| !fact.is_empty());
    format!("{}: {} {} → {} ({})", d.name, d.label, value(d.a), value(d.b), facts.join(", "))
}

/// The difference as a share of the first mean, with its interval.
fn share(d: &Difference) -> String {
    let (Some(a), Some(difference)) = (d.a.filter(|a| *a != 0.0), d.difference) else { return String::new() };
    let percent = |x: f64| format!("{:+.1}", 100.0 * x / a.abs());
    match d.interval {
        Some((low, high)) => format!("{} % [{}, {}]", percent(difference), percent(low), percent(high)),
        None => format!("{} %", percent(difference)),
    }
}

fn digits(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) { format!("{value:.3e}") } else { format!("{value:.4}") }
}

fn table(out: &mut String, rows: &[&Difference]) {
    let of = |d: &&Difference| {
        let value = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), digits);
        let label = d.label.clone();
        [d.name.clone(), label, value(d.a), value(d.b), share(d), d.change.name().to_owned()]
    };
    let mut lines = vec![["configuration", "metric", "A", "B", "B − A", "verdict"].map(str::to_owned)];
    lines.extend(rows.iter().map(of));
    let mut widths = [0; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // names give way, in this order: what a reader can do without most easily
    for column in [0, 1, 4] {
        let others = widths.iter().map(|width| width + 2).sum::<usize>() - 2 - widths[column];
        widths[column] = widths[column].min(WIDTH.saturating_sub(others).max(NARROWEST));
    }
    for line in lines {
        let mut text = String::new();
        for (i, (cell, width)) in line.iter().zip(widths).enumerate() {
            let cell = if cell.chars().count() > width {
                let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
                format!("{kept}…")
            } else {
                cell.clone()
            };
            let gap = if i == 0 { "" } else { "  " };
            let _ = if (2..4).contains(&i) {
                write!(text, "{gap}{cell:>width$}")
            } else {
                write!(text, "{gap}{cell:width$}")
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

/// All of it as JSON.
#[must_use]
pub fn json(comparison: &Comparison) -> String {
    serde_json::json!(comparison).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{pair, tests::row};
    use super::super::{compare, comparison};
    use super::*;

    #[test]
    fn a_reader_sees_the_regression_first_and_lines_fit() {
        let rows = |offset: f64| -> Vec<_> {
            (1..=3)
                .flat_map(|seed| {
                    let noise = 0.001 * seed as f64 * offset;
                    [
                        row("a_model_with_a_long_name_that_no_terminal_has_room_for", seed, "1", 2.0 + offset + noise),
                        row("lstm", seed, "1", 2.0),
                    ]
                })
                .collect()
        };
        let comparison: comparison::Comparison = compare(&pair(&rows(0.0), &rows(0.2)), 0.01);
        let text = text(&comparison);
        assert!(text.starts_with("B against A, paired by seed: 1 regressed, 1 identical"), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(
            words
                .join(" ")
                .contains("bits per byte 2.0000 → 2.2004 (+10.0 % [+10.0, +10.0], p < 0.01 adjusted, 3 seeds)"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("configuration")).collect();
        assert_eq!(table.len(), 3, "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&comparison)).unwrap();
        assert_eq!(value["differences"][0]["change"], "regressed");
    }

    #[test]
    fn text_is_broken_between_words_and_a_long_word_within() {
        let of = |text: &str| {
            let mut out = String::new();
            wrap(&mut out, text, 2);
            out.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of("a few words"), ["  a few words"]);
        let lines = of(&"word ".repeat(40));
        assert!(lines.len() == 3 && lines[0].starts_with("  word") && lines[1].starts_with("    word"), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.matches("word").count()).sum::<usize>(), 40);
        let long = of(&format!("key was {}", "→".repeat(250)));
        assert!(long.len() == 4 && long.iter().all(|line| line.chars().count() <= WIDTH), "{long:?}");
        assert_eq!(long.iter().map(|line| line.matches('→').count()).sum::<usize>(), 250);
    }
}
