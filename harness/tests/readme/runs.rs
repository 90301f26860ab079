//! Runs: what results files say of how they were made.
//!
//! `<!-- runs -->` stands before a table with a row for each results file of a page. The first cell links to the file; what the others
//! must say follows from their column's title. Code versions are not in the files: they are those of the commit, and checked where the
//! history has it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rows::results::{ResultRow, read_results};

use crate::page::{Change, Page, RESULTS, cells, link, names, root};

pub const COMMENT: &str = "runs";

/// Titles of a table of runs.
const TITLES: [&str; 8] =
    ["file", "grid, scale", "seeds", "finished cells", "data", "instructions", "commit", "code versions"];

/// What a cell says that the file does not.
const NOT_RECORDED: &str = "not recorded";

/// The outcome of cells that were not asked for.
const SKIPPED: &str = "skipped";

/// Where each code version stands.
const VERSIONS: [(&str, &str); 3] =
    [("bim", "bim/src/lib.rs"), ("baselines", "baselines/src/lib.rs"), ("harness", "harness/suite/src/run.rs")];

/// A row of a page's table of runs.
pub struct Run<'a> {
    line: usize,
    /// The results file, from the repository's root.
    pub file: String,
    cells: Vec<&'a str>,
}

impl Run<'_> {
    /// What the row says in a column.
    pub fn cell(&self, title: &str) -> &str {
        let column = TITLES.iter().position(|other| *other == title);
        column.and_then(|column| self.cells.get(column)).unwrap_or_else(|| panic!("{}: no `{title}`", self.file))
    }
}

/// Rows of a page's table of runs.
pub fn runs(page: &Page) -> Vec<Run<'_>> {
    let lines = page.lines();
    let tables = page.tables(page.section("What was run"));
    let table = tables.into_iter().find(|table| table.comment == COMMENT);
    let table = table.unwrap_or_else(|| panic!("{} has no table of runs", page.path));
    assert_eq!(table.titles, TITLES, "{}", page.path);
    let run = |line: usize| {
        let cells = cells(lines[line]);
        let file =
            link(cells[0]).unwrap_or_else(|| panic!("{}: no link to a results file: {}", page.path, lines[line]));
        Run { line, file: format!("{RESULTS}/{file}"), cells }
    };
    table.rows.map(run).collect()
}

/// Results files that the pages must quote, from the repository's root: those in folders named after a date.
pub fn files() -> Vec<String> {
    let folders = fs::read_dir(root().join(RESULTS)).expect("the folder of results");
    let folders = folders.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
    let dates = folders.filter(|name| name.starts_with('2')).map(|date| format!("{RESULTS}/{date}"));
    let of = |date: String| names(&date, "parquet").into_iter().map(move |file| format!("{date}/{file}"));
    dates.flat_map(of).collect()
}

/// Rows of a page's table of runs that are not what the files say.
pub fn check(page: &Page) -> Vec<Change> {
    let mut changes = Vec::new();
    for run in runs(page) {
        let rows = read_results(&root().join(&run.file)).unwrap_or_else(|e| panic!("{}: {e}", page.path));
        let stated = |i: usize| run.cells.get(i).copied().unwrap_or_default();
        let titles = TITLES.iter().enumerate().skip(1);
        let right: Vec<String> = titles.map(|(i, title)| expected(&rows, title, stated(i))).collect();
        if right != run.cells[1..] {
            let right = format!("| {} | {} |", run.cells[0], right.join(" | "));
            changes.push(Change { lines: run.line..run.line + 1, right: vec![right] });
        }
    }
    changes
}

/// What a cell must say, if it says `stated`.
fn expected(rows: &[ResultRow], title: &str, stated: &str) -> String {
    // `--only` leaves cells out: they have rows, with nothing else to say
    let ran: Vec<&ResultRow> = rows.iter().filter(|row| row.outcome != SKIPPED).collect();
    let all = |value: &dyn Fn(&ResultRow) -> String| {
        let found: BTreeSet<String> = ran.iter().map(|row| value(row)).collect();
        found.into_iter().collect::<Vec<_>>().join(" or ")
    };
    let recorded = |value: Option<&str>| value.unwrap_or(NOT_RECORDED).to_owned();
    match title {
        "grid, scale" => all(&|r| format!("`{}`, {}", r.experiment, r.scale)),
        "seeds" => {
            let seeds: BTreeSet<u64> = ran.iter().map(|r| r.seed).collect();
            seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        }
        "finished cells" => finished(rows),
        "data" => all(&|r| recorded(r.data_identity.as_deref())),
        "instructions" => all(&|r| recorded(r.instruction_set.as_deref())),
        "commit" => all(&commit),
        "code versions" => {
            let commits: BTreeSet<Option<&str>> = ran.iter().map(|r| r.git_commit.as_deref()).collect();
            let known: Option<BTreeSet<String>> = commits.into_iter().map(|commit| versions(commit?)).collect();
            let known = known.map(|known| known.into_iter().collect::<Vec<_>>().join(" or "));
            known.unwrap_or_else(|| if stated.is_empty() { NOT_RECORDED } else { stated }.to_owned())
        }
        other => panic!("no test knows what a column `{other}` of a table of runs must say"),
    }
}

/// How many cells finished of those that were run, and what became of the others.
fn finished(rows: &[ResultRow]) -> String {
    let cells: BTreeSet<(&str, &str)> = rows.iter().map(|r| (r.cell.as_str(), r.outcome.as_str())).collect();
    let with = |outcome: &str| cells.iter().filter(|(_, other)| *other == outcome).count();
    let outcomes: BTreeSet<&str> = cells.iter().map(|(_, outcome)| *outcome).collect();
    let mut parts = vec![format!("{} of {}", with("completed"), cells.len() - with(SKIPPED))];
    for outcome in outcomes.into_iter().filter(|outcome| *outcome != "completed") {
        let name = if outcome == SKIPPED { "not run".to_owned() } else { outcome.replace('_', " ") };
        parts.push(format!("{} {name}", with(outcome)));
    }
    parts.join("; ")
}

fn commit(row: &ResultRow) -> String {
    let Some(commit) = row.git_commit.as_deref() else { return NOT_RECORDED.to_owned() };
    let changes = if row.git_dirty == Some(true) { " with uncommitted changes" } else { "" };
    format!("{}{changes}", commit.get(..7).unwrap_or(commit))
}

/// Code versions at a commit, if the history has it.
fn versions(commit: &str) -> Option<String> {
    let version = |file: &str| {
        let shown =
            Command::new("git").current_dir(root()).args(["show", &format!("{commit}:{file}")]).output().ok()?;
        let text = String::from_utf8(shown.stdout).ok().filter(|_| shown.status.success())?;
        let line = text.lines().find_map(|line| line.strip_prefix("pub const CODE_VERSION: u32 = "))?;
        Some(line.trim_end_matches(';').to_owned())
    };
    let all = VERSIONS.iter().map(|(name, file)| Some(format!("{name} {}", version(file)?)));
    Some(all.collect::<Option<Vec<_>>>()?.join(", "))
}
