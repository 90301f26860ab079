//! The index of the pages of results: a row for each page, made of the page's own words and of its table of runs.
//!
//! `<!-- pages -->` stands before the table. Its rows keep their order; a page without a row gets one at the end.

use crate::page::{Change, Page, cells, link};
use crate::runs::{Run, runs};

const COMMENT: &str = "pages";

/// Rows of the index that are not what the pages say: also those whose page is not there, and those that are missing.
pub fn check(index: &Page, pages: &[Page]) -> Vec<Change> {
    let lines = index.lines();
    let tables = index.tables(0..lines.len());
    let table = tables.into_iter().find(|table| table.comment == COMMENT).expect("the index has a table of pages");
    let (mut changes, mut named) = (Vec::new(), Vec::new());
    for at in table.rows.clone() {
        let name = link(cells(lines[at])[0]).unwrap_or_default();
        let right: Vec<String> = pages.iter().filter(|page| page.name() == name).map(row).collect();
        if right != [lines[at]] {
            changes.push(Change { lines: at..at + 1, right });
        }
        named.push(name);
    }
    let missing: Vec<String> = pages.iter().filter(|page| !named.contains(&page.name())).map(row).collect();
    if !missing.is_empty() {
        changes.push(Change { lines: table.rows.end..table.rows.end, right: missing });
    }
    changes
}

/// A page's row: question, verdict, when and of what code its files are, and the files.
fn row(page: &Page) -> String {
    let runs = runs(page);
    let dates = distinct(&runs, |run| date(run).to_owned());
    let commits = distinct(&runs, |run| run.cell("commit").to_owned());
    let code = distinct(&runs, |run| run.cell("code versions").to_owned());
    let files: Vec<String> = runs.iter().map(|run| run.cell("file").to_owned()).collect();
    let question = format!("[{}]({})", page.opening("Question"), page.name());
    let of = [dates, commits, code].join("; ");
    format!("| {question} | {} | {of} | {} |", page.opening("Verdict so far"), files.join(", "))
}

/// The date in a file's folder.
fn date<'a>(run: &'a Run) -> &'a str {
    run.file.rsplit('/').nth(1).unwrap_or_default()
}

fn distinct(runs: &[Run], of: impl Fn(&Run) -> String) -> String {
    let mut found: Vec<String> = Vec::new();
    for text in runs.iter().map(of) {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found.join(" / ")
}
