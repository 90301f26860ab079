//! A choice of columns and metrics, for tables that must fit a page.

use std::collections::BTreeSet;

use super::ReportError;
use super::model::{Report, Table};

/// What is kept of a report's tables; an empty list keeps all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Labels of columns, in any case; the columns that name a row are always kept.
    pub columns: Vec<String>,
    /// Metrics by their names in the result files, such as `bits_per_byte`; columns of no metric are kept.
    pub metrics: Vec<String>,
}

/// Leaves of a report what was chosen. Tables without any chosen column go.
///
/// # Errors
/// `Unknown` if no table has such a column or metric, with those that there are.
pub fn choose(report: &mut Report, choice: &Choice) -> Result<(), ReportError> {
    let tables = || report.sections.iter().flat_map(|section| &section.tables);
    let columns = || tables().flat_map(|table| table.columns.iter().skip(table.labels));
    let labels: BTreeSet<String> = columns().map(|column| column.label.clone()).collect();
    let names = columns().filter_map(|column| column.metric.clone());
    let names: BTreeSet<String> = names.chain(report.summaries.iter().map(|summary| summary.metric.clone())).collect();
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let columns = split(&choice.columns, &labels);
    known("column", &columns, &labels)?;
    known("metric", &choice.metrics, &names)?;
    for table in report.sections.iter_mut().flat_map(|section| &mut section.tables) {
        let is_chosen = |label: &str| columns.is_empty() || columns.iter().any(|c| same(c, label));
        let is_measured = |metric: &Option<String>| {
            choice.metrics.is_empty() || metric.as_ref().is_none_or(|m| choice.metrics.iter().any(|c| same(c, m)))
        };
        let keep: Vec<bool> = table
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| i < table.labels || (is_chosen(&column.label) && is_measured(&column.metric)))
            .collect();
        retain(table, &keep);
    }
    for section in &mut report.sections {
        section.tables.retain(|table| table.columns.len() > table.labels);
    }
    if !choice.metrics.is_empty() {
        report.summaries.retain(|summary| choice.metrics.iter().any(|metric| same(metric, &summary.metric)));
    }
    Ok(())
}

/// Labels with commas between them, some of which have commas of their own: as many of the pieces make one as can.
fn split(chosen: &[String], labels: &BTreeSet<String>) -> Vec<String> {
    let is_label = |text: &str| labels.iter().any(|label| label.eq_ignore_ascii_case(text));
    let mut found = Vec::new();
    for text in chosen {
        let pieces: Vec<&str> = text.split(',').collect();
        let mut from = 0;
        while from < pieces.len() {
            let joined = |to: usize| pieces[from..to].join(",").trim().to_owned();
            let to = (from + 1..=pieces.len()).rev().find(|to| is_label(&joined(*to))).unwrap_or(from + 1);
            found.push(joined(to));
            from = to;
        }
    }
    found
}

fn known(what: &'static str, chosen: &[String], all: &BTreeSet<String>) -> Result<(), ReportError> {
    match chosen.iter().find(|name| !all.iter().any(|known| known.eq_ignore_ascii_case(name))) {
        Some(name) => Err(ReportError::Unknown { what, name: name.clone(), known: all.iter().cloned().collect() }),
        None => Ok(()),
    }
}

fn retain(table: &mut Table, keep: &[bool]) {
    fn kept<T>(items: &mut Vec<T>, keep: &[bool]) {
        let mut flags = keep.iter();
        items.retain(|_| flags.next().copied().unwrap_or(true));
    }
    kept(&mut table.columns, keep);
    table.rows.iter_mut().for_each(|row| kept(row, keep));
    table.marks_best &= table.rows.iter().flatten().any(|cell| cell.best);
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Paper, compute, fixture, render};
    use super::*;

    fn chosen(columns: &[&str], metrics: &[&str]) -> Result<Report, ReportError> {
        let mut report = compute(&fixture::quickstart(), &Paper::embedded().unwrap());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        choose(&mut report, &Choice { columns: list(columns), metrics: list(metrics) })?;
        Ok(report)
    }

    #[test]
    fn what_is_chosen_stays() {
        let report = chosen(&["Bits per byte", "seeds"], &[]).unwrap();
        let labels = |table: &Table| table.columns.iter().map(|c| c.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&report.sections[0].tables[0]), ["model", "bits per byte", "seeds"]);
        assert!(report.sections[0].tables.iter().all(|table| !table.id.ends_with("-costs")));
        let tex = render(&report, Format::Latex).unwrap();
        assert!(tex.contains("model & bits per byte & seeds \\\\"), "{tex}");
        let all: BTreeSet<String> = ["a, b", "a", "c"].map(str::to_owned).into();
        let of = |text: &str| split(&[text.to_owned()], &all);
        assert_eq!(of("c, a, b,d"), ["c", "a, b", "d"]);
        assert_eq!(of("A,c"), ["A", "c"]);
        let report = chosen(&[], &["bits_per_byte"]).unwrap();
        assert!(report.summaries.iter().all(|summary| summary.metric == "bits_per_byte"));
        assert!(labels(&report.sections[0].tables[0]).contains(&"seeds".to_owned()), "columns of no metric stay");
        let none = chosen(&[], &[]).unwrap();
        assert_eq!(none, compute(&fixture::quickstart(), &Paper::embedded().unwrap()));
    }

    #[test]
    fn what_there_is_not_is_named() {
        let error = chosen(&["bits per bite"], &[]).unwrap_err().to_string();
        assert!(error.contains("no table has a column `bits per bite`") && error.contains("bits per byte"), "{error}");
        let error = chosen(&[], &["wer"]).unwrap_err().to_string();
        assert!(error.contains("no table has a metric `wer`"), "{error}");
    }
}
