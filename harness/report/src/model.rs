//! What a report is made of: stored results as they were loaded, and the report as plain data that renderers only format.

use std::collections::BTreeMap;

use serde::Serialize;

use rows::EvalRow;
use rows::results::ResultRow;

/// Stored results of one or more run directories.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Rows of every `results.parquet`, in the order of the plan; a cell that several directories hold is kept once.
    pub rows: Vec<ResultRow>,
    /// Evaluations of each cell, by cell id; a cell without a stored `evals.parquet` is absent.
    pub evals: BTreeMap<String, Vec<EvalRow>>,
    /// Updates by spike time difference of each cell that measured them, by cell id; absent without a stored
    /// `layers.parquet`.
    pub differences: BTreeMap<String, Vec<Difference>>,
}

/// One value that was measured at one spike time difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Update.
    pub step: u64,
    /// Pathway, such as `layers.0.input`.
    pub pathway: String,
    /// What was measured.
    pub quantity: bim::time_differences::Quantity,
    /// `t_post − t_pre` in steps.
    pub lag: i64,
    /// Update per pair of spikes, or the number of pairs.
    pub value: f64,
}

/// A computed report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Heading: the experiment, where there is one.
    pub title: String,
    /// How many cells were planned and what became of them.
    pub outcome: String,
    /// One per experiment, task and scale.
    pub sections: Vec<Section>,
    /// Every planned cell that did not complete; absent if all did.
    pub failures: Option<Table>,
    /// The numbers behind the tables, unrounded.
    pub summaries: Vec<Summary>,
}

/// Results of one experiment on one task at one scale.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// Identifier for anchors, file names and labels: lower-case ASCII and hyphens.
    pub id: String,
    /// Heading.
    pub heading: String,
    /// Tables in reading order.
    pub tables: Vec<Table>,
    /// Plots in reading order.
    pub plots: Vec<Plot>,
    /// Where the numbers come from: seeds, scale, splits, device, threads.
    pub provenance: Vec<Fact>,
}

/// A named fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A table. Every row has as many cells as there are columns, and no cell is empty.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// Identifier, unique in the report: lower-case ASCII and hyphens.
    pub id: String,
    /// Heading.
    pub title: String,
    /// What the reader must know to read it.
    pub caption: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: Vec<Vec<Cell>>,
    /// Remarks below it.
    pub notes: Vec<String>,
    /// Whether best values are marked: the renderer says how.
    pub marks_best: bool,
    /// Where it is shown.
    pub place: Place,
}

/// Where a table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Everywhere, the terminal included.
    Everywhere,
    /// In every file.
    Files,
    /// For a closer look: folded in HTML, left out of LaTeX.
    Detail,
}

/// Head of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Label, with the unit.
    pub label: String,
    /// Whether it holds numbers, which are aligned to the right.
    pub numeric: bool,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Text, not yet escaped for any format.
    pub text: String,
    /// Whether it is the best value of its column.
    pub best: bool,
    /// Whether it states why there is no number.
    pub absent: bool,
}

/// A line plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// Identifier, unique in the report; the file is `<id>.svg`.
    pub id: String,
    /// Heading.
    pub title: String,
    /// What lines and bands are.
    pub caption: String,
    /// Label of the horizontal axis.
    pub x_label: String,
    /// Label of the vertical axis.
    pub y_label: String,
    /// Whether the horizontal axis is logarithmic; then every x is positive.
    pub log_x: bool,
    /// Lines.
    pub series: Vec<Series>,
    /// A dashed horizontal line.
    pub level: Option<Level>,
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Name in the legend.
    pub label: String,
    /// Points by ascending x.
    pub points: Vec<Point>,
}

/// A point with the range of the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// Mean over seeds.
    pub y: f64,
    /// Smallest value over seeds.
    pub low: f64,
    /// Largest value over seeds.
    pub high: f64,
}

/// A horizontal line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Name in the legend.
    pub label: String,
    /// Vertical position.
    pub y: f64,
}

/// One metric of one configuration over its seeds: a row of the CSV.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Experiment.
    pub experiment: String,
    /// Scale.
    pub scale: String,
    /// Task.
    pub task: String,
    /// Model as the grid names it.
    pub model: String,
    /// Kind of model.
    pub kind: String,
    /// Settings that tell configurations of one model apart, as `path=value` joined by `;`.
    pub settings: String,
    /// Split; empty for facts about the data.
    pub split: String,
    /// Metric.
    pub metric: String,
    /// Mean over seeds.
    pub mean: f64,
    /// Lower end of the 95 % interval over seeds; absent with one seed.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl Column {
    /// A column of text.
    pub fn text(label: impl Into<String>) -> Self {
        Self { label: label.into(), numeric: false }
    }

    /// A column of numbers.
    pub fn number(label: impl Into<String>) -> Self {
        Self { label: label.into(), numeric: true }
    }
}

impl Cell {
    /// A value.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), best: false, absent: false }
    }

    /// A statement in place of a value, such as "not measured".
    pub fn absent(text: impl Into<String>) -> Self {
        Self { text: text.into(), best: false, absent: true }
    }

    /// The value, or "not measured".
    pub fn measured(text: Option<String>) -> Self {
        text.map_or_else(|| Self::absent(NOT_MEASURED), Self::new)
    }
}

/// In place of a value that was not taken.
pub const NOT_MEASURED: &str = "not measured";

impl Table {
    /// Adds a column, one cell per row of `cells`, unless none of them holds a value.
    pub(super) fn push_column(&mut self, column: Column, cells: Vec<Cell>) {
        if cells.iter().all(|cell| cell.absent) {
            return;
        }
        self.columns.push(column);
        if self.rows.is_empty() {
            self.rows = vec![Vec::new(); cells.len()];
        }
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }

    /// A table without columns yet.
    pub(super) fn empty(id: String, title: impl Into<String>, caption: impl Into<String>) -> Self {
        Self {
            id,
            title: title.into(),
            caption: caption.into(),
            columns: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            marks_best: false,
            place: Place::Files,
        }
    }
}
