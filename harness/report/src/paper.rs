//! Published values, from `reports/paper.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ReportError;
use super::model::{Cell, Column, Table};
use super::spikes::SpikeBounds;
use statistics::Better;
use statistics::verdict::Margin;

/// The paper's tables and other published results.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Title of the paper.
    pub title: String,
    /// Where it is found.
    pub source: String,
    /// How the paper calls each kind of model.
    pub models: BTreeMap<String, String>,
    /// How the paper calls each metric.
    pub metrics: BTreeMap<String, PaperMetric>,
    /// The paper's tables.
    pub tables: Vec<PaperTable>,
    /// Results of others.
    pub references: Vec<Reference>,
    /// How many spikes others say that a network may send; they have a file of their own.
    #[serde(skip)]
    pub spikes: SpikeBounds,
    /// Where the prices of operations are published and what they are, by the name of their list; whoever has the lists fills it.
    #[serde(skip)]
    pub prices: BTreeMap<String, String>,
}

/// A metric as the paper calls it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperMetric {
    /// Label, with the unit.
    pub label: String,
    /// Which direction is good.
    pub better: Better,
    /// Digits after the point in the paper's table.
    pub digits: usize,
    /// How much worse than the published value still counts as equal, as a share of it.
    pub margin: f64,
    /// Whether the share is of the published value's bits (of a perplexity: its binary logarithm).
    #[serde(default)]
    pub margin_in_bits: bool,
}

/// One of the paper's tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperTable {
    /// Name in the paper.
    pub name: String,
    /// Task that it is about.
    pub task: String,
    /// Its columns; the first decides the verdict.
    pub metrics: Vec<String>,
    /// Its rows.
    pub rows: Vec<PaperRow>,
}

/// A model's row in one of the paper's tables.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaperRow {
    /// Kind of model.
    pub kind: String,
    /// One value per metric of the table.
    pub values: Vec<f64>,
}

/// A published result of others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Task.
    pub task: String,
    /// Model, as its authors call it.
    pub model: String,
    /// Metric.
    pub metric: String,
    /// Value.
    pub value: f64,
    /// Where it was published.
    pub source: String,
}

/// A row of the table of published values: model, value per metric, source.
type Line<'a> = (String, Vec<(&'a str, f64)>, String);

/// A value that the paper gives for a model, with its metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published<'a> {
    /// Name in the result files.
    pub name: &'a str,
    pub metric: &'a PaperMetric,
    pub value: f64,
}

impl PaperMetric {
    /// How much worse than a published value still counts as equal.
    pub(super) fn margin(&self) -> Margin {
        if self.margin_in_bits { Margin::ShareOfBits(self.margin) } else { Margin::Share(self.margin) }
    }

    /// The margin on the worse side, in words.
    pub(super) fn allowance(&self) -> String {
        let of = if self.margin_in_bits { " of its bits" } else { "" };
        format!("{} %{of}", crate::catalogue::significant(100.0 * self.margin, 2))
    }

    /// A value with at least the paper's digits.
    pub(super) fn text(&self, value: f64) -> String {
        let exact = value.to_string();
        let padded = format!("{value:.*}", self.digits);
        if exact.len() > padded.len() { exact } else { padded }
    }
}

impl Paper {
    /// The values that come with the program.
    ///
    /// # Errors
    /// If the file that was built in does not have this form: a mistake of the build.
    pub fn embedded() -> Result<Self, ReportError> {
        let paper: Self = serde_yaml::from_str(include_str!("../../../reports/paper.yaml"))?;
        Ok(Self { spikes: SpikeBounds::embedded()?, ..paper })
    }

    /// What the paper gives for a kind of model on a task, its deciding metric first; empty if nothing.
    pub(super) fn published(&self, task: &str, kind: &str) -> Vec<Published<'_>> {
        let tables = self.tables.iter().filter(|table| table.task == task);
        let rows = tables.flat_map(|table| table.rows.iter().map(move |row| (table, row)));
        rows.filter(|(_, row)| row.kind == kind)
            .flat_map(|(table, row)| table.metrics.iter().zip(&row.values))
            .filter_map(|(metric, &value)| {
                let (name, metric) = self.metrics.get_key_value(metric)?;
                Some(Published { name, metric, value })
            })
            .collect()
    }

    /// All published values of a task as a table; `None` if there are none.
    pub(super) fn table(&self, task: &str, id: String) -> Option<Table> {
        let mut rows: Vec<Line> = Vec::new();
        for table in self.tables.iter().filter(|table| table.task == task) {
            for row in &table.rows {
                let values = table.metrics.iter().map(String::as_str).zip(row.values.iter().copied()).collect();
                let source = format!("{}, {}, {}", self.title, self.source, table.name);
                rows.push((self.models.get(&row.kind).unwrap_or(&row.kind).clone(), values, source));
            }
        }
        for reference in self.references.iter().filter(|reference| reference.task == task) {
            let values = vec![(reference.metric.as_str(), reference.value)];
            rows.push((reference.model.clone(), values, reference.source.clone()));
        }
        if rows.is_empty() {
            return None;
        }
        let caption = "Numbers of others, as published: not measured here.";
        let mut table = Table::empty(id, "Published values", caption);
        table.push_column(Column::text("model"), rows.iter().map(|row| Cell::new(&row.0)).collect());
        let mut metrics: Vec<&str> = Vec::new();
        for metric in rows.iter().flat_map(|row| row.1.iter().map(|value| value.0)) {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        for metric in metrics {
            let known = self.metrics.get(metric);
            let text = |value: f64| known.map_or_else(|| value.to_string(), |known| known.text(value));
            let cells = rows.iter().map(|row| {
                let value = row.1.iter().find(|value| value.0 == metric);
                value.map_or_else(|| Cell::absent("not given"), |value| Cell::new(text(value.1)))
            });
            table.push_column(Column::number(known.map_or(metric, |known| &known.label)), cells.collect());
        }
        table.push_column(Column::text("source"), rows.iter().map(|row| Cell::new(&row.2)).collect());
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_whole() {
        let paper = Paper::embedded().unwrap();
        for table in &paper.tables {
            assert!(table.rows.iter().all(|row| row.values.len() == table.metrics.len()), "{}", table.name);
            assert!(table.metrics.iter().all(|metric| paper.metrics.contains_key(metric)), "{}", table.name);
        }
        assert!(paper.references.iter().all(|r| paper.metrics.contains_key(&r.metric) && !r.source.is_empty()));
    }

    #[test]
    fn values_are_found_by_task_and_kind() {
        let paper = Paper::embedded().unwrap();
        let found = paper.published("cardio", "bim");
        assert_eq!(
            found.iter().map(|p| (p.metric.label.as_str(), p.metric.text(p.value))).collect::<Vec<_>>(),
            [("AUC-ROC", "0.92".to_owned()), ("AUC-PR", "0.88".to_owned())]
        );
        assert!(paper.published("cardio", "transformer").is_empty());
    }

    #[test]
    fn a_reference_says_what_its_authors_did_not_give() {
        let table = Paper::embedded().unwrap().table("language", "x".into()).unwrap();
        let labels: Vec<&str> = table.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["model", "perplexity", "bits per char", "source"]);
        let row = table.rows.iter().find(|row| row[0].text == "Transformer-XL large").unwrap();
        assert_eq!((row[1].text.as_str(), row[2].text.as_str()), ("18.3", "not given"));
        assert!(table.rows.iter().any(|row| row[0].text == "LSTM" && row[1].text == "24.0"), "digits are the paper's");
    }
}
