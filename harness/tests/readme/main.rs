//! Every figure that the README and the pages of results state as measured stands in a committed results file.
//!
//! The pages of results are the Markdown files of `reports/results`, one for each question; `README.md` there is their index. Each has
//! the same sections. Generated are the cells of tables of figures ([`tables`]), those of tables of runs ([`runs`]) and the
//! index ([`index`]): `HARNESS_UPDATE=1` writes them. A new table needs its comment, its titles, and rows with their first cells.
//!
//! A figure in README's text beside the tables must stand in one of them, and so must one in a page's verdict.

mod index;
mod page;
mod runs;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use page::{Page, figures, link, root};

/// The section of the README that states figures.
const MEASURED: &str = "Measured";

/// Sections of a page of results, in their order.
const SECTIONS: [&str; 6] = ["Question", "Verdict so far", "What was run", "Tables", "What held", "What did not"];

/// Tests that may write pages go one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static WRITES: Mutex<()> = Mutex::new(());
    WRITES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the tables of every page against the files, or writes them anew.
fn settle_pages() {
    for page in Page::all() {
        let (found, mut changes) = tables::check(&page, 0..page.lines().len());
        assert!(found > 0, "{} has no table of figures", page.path);
        changes.extend(runs::check(&page));
        page.settle(changes);
    }
}

/// Figures within some lines that stand in no table there or in `tables`.
fn without_table(page: &Page, within: std::ops::Range<usize>, tables: std::ops::Range<usize>) -> Vec<String> {
    let lines = page.lines();
    let in_tables: String = lines[tables].iter().filter(|line| line.starts_with('|')).copied().collect();
    let beside = lines[within].iter().filter(|line| !line.starts_with('|') && !line.starts_with("<!--"));
    beside.flat_map(|line| figures(line)).filter(|figure| !in_tables.contains(figure)).collect()
}

#[test]
fn every_figure_of_the_readme_stands_in_a_committed_file() {
    let _alone = alone();
    let readme = Page::read("README.md".to_owned());
    let section = readme.section(MEASURED);
    let (found, changes) = tables::check(&readme, section.clone());
    assert!(found > 0, "no table under {MEASURED}");
    readme.settle(changes);
    let without = without_table(&readme, section.clone(), section);
    assert!(without.is_empty(), "figures under {MEASURED} that stand in no table: {without:?}");
}

#[test]
fn the_tables_of_the_pages_of_results_are_what_the_files_say() {
    let _alone = alone();
    settle_pages();
}

#[test]
fn pages_of_results_have_the_same_sections_and_a_verdict_with_figures_of_their_tables() {
    let _alone = alone();
    for page in Page::all() {
        assert_eq!(page.sections(), SECTIONS, "{}", page.path);
        for section in SECTIONS {
            assert!(!page.opening(section).is_empty(), "{}: nothing under `{section}`", page.path);
        }
        let without = without_table(&page, page.section("Verdict so far"), page.section("Tables"));
        assert!(without.is_empty(), "{}: figures of the verdict that stand in no table: {without:?}", page.path);
    }
}

#[test]
fn every_results_file_is_quoted_by_one_page() {
    let _alone = alone();
    let mut quoted: BTreeMap<String, Vec<String>> = runs::files().into_iter().map(|file| (file, Vec::new())).collect();
    for page in Page::all() {
        let runs = runs::runs(&page);
        for run in &runs {
            let pages = quoted.get_mut(&run.file).unwrap_or_else(|| panic!("{}: there is no {}", page.path, run.file));
            pages.push(page.path.clone());
        }
        for table in page.tables(0..page.lines().len()) {
            let run = |file| assert!(runs.iter().any(|run| run.file == file), "{}: {file} is no run of it", page.path);
            tables::file(&table).into_iter().for_each(run);
        }
    }
    for (file, pages) in quoted {
        assert_eq!(pages.len(), 1, "{file} must be a run of one page, it is one of {pages:?}");
    }
}

#[test]
fn the_index_has_a_row_for_every_page() {
    let _alone = alone();
    if page::updates() {
        settle_pages(); // rows of the index take what tables of runs say
    }
    let index = Page::index();
    index.settle(index::check(&index, &Page::all()));
    let index = Page::index();
    for target in index.lines().into_iter().filter(|line| line.starts_with('|')).filter_map(link) {
        let file = target.split('#').next().unwrap_or_default();
        assert!(root().join(page::RESULTS).join(file).exists(), "{}: there is no {target}", index.path);
    }
}

#[test]
fn a_figure_is_told_from_a_number() {
    assert_eq!(
        figures("costs 1.049× the bits (0.30×), 12 % of 4 layers, 95% and 2.5."),
        ["1.049×", "0.30×", "95%", "2.5"]
    );
}
