//! What a report is made of: stored results as they were loaded, and the report as plain data that renderers only format.

use std::collections::BTreeMap;

use serde::Serialize;

use rows::results::ResultRow;
use rows::{EvalRow, SpikeRow};

use super::look::Look;

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
    /// Silence of each population of a cell whose model spikes, by cell id, from the input on.
    pub silence: BTreeMap<String, Vec<(String, f64)>>,
    /// What neurons sent on a sample input, by cell; of the first cell of the first models that have such.
    pub spikes: BTreeMap<String, Vec<SpikeRow>>,
    /// Description of the grid, by experiment, where a run directory has its plan.
    pub questions: BTreeMap<String, String>,
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

/// Version of the form in which a computed report is given to templates and written as JSON.
pub const REPORT_SCHEMA: u32 = 1;

/// A computed report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// Heading: the experiment, where there is one.
    pub title: String,
    /// Whose claims these results are about.
    pub paper: String,
    /// What each experiment asks: the description of its grid, where the run directory has it.
    pub questions: Vec<Fact>,
    /// What the paper says, and what these results say of it.
    pub claims: Vec<Claim>,
    /// What was run, by which program on which machine, on which data.
    pub run: Vec<Fact>,
    /// Commands that run it again.
    pub commands: Vec<String>,
    /// How many cells were planned and what became of them.
    pub outcome: String,
    /// One per experiment, task and scale.
    pub sections: Vec<Section>,
    /// Every cell that was begun and did not complete; absent if there is none.
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
    /// The task as the grid names it.
    pub short: String,
    /// What the results say, in sentences.
    pub argument: Vec<String>,
    /// Tables in reading order.
    pub tables: Vec<Table>,
    /// Quality against energy.
    pub front: Option<Plot>,
    /// Plots in reading order.
    pub plots: Vec<Plot>,
    /// Plots for a closer look: folded in HTML.
    pub folded: Vec<Plot>,
    /// Where the numbers come from: seeds, scale, splits, device, threads.
    pub provenance: Vec<Fact>,
}

impl Report {
    /// Every plot, in reading order.
    pub fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.sections.iter().flat_map(|section| section.front.iter().chain(&section.plots).chain(&section.folded))
    }
}

/// A claim of the paper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// The claim in a sentence.
    pub statement: String,
    /// Where the paper makes it.
    pub place: String,
    /// What the numbers of the evidence are.
    pub basis: String,
    /// What all the evidence together says.
    pub verdict: Outcome,
    /// The verdict in words.
    pub words: String,
    /// What was measured, task by task; empty where nothing was.
    pub evidence: Vec<Evidence>,
    /// Shipped grids that are about it.
    pub grids: Vec<String>,
}

/// What the results of one section say of a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Identifier of the section.
    pub section: String,
    /// Its task, short.
    pub task: String,
    /// What it says.
    pub verdict: Outcome,
    /// The verdict in words.
    pub words: String,
    /// The number behind it.
    pub number: String,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It held.
    Held,
    /// It did not hold.
    DidNotHold,
    /// It held in part: by some measures, for some configurations or on some tasks.
    InPart,
    /// The measurements do not decide it.
    Undecided,
    /// Measured on other data or at another scale than it is about.
    NotComparable,
    /// Nothing here is about it.
    NotMeasured,
}

impl Outcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::DidNotHold => "did not hold",
            Self::InPart => "held in part",
            Self::Undecided => "undecided",
            Self::NotComparable => "not comparable",
            Self::NotMeasured => "not measured here",
        }
    }
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
    /// Number of columns at the left that name a row: the model and the settings that tell configurations apart.
    pub labels: usize,
    /// Rows.
    pub rows: Vec<Vec<Cell>>,
    /// Remarks below it.
    pub notes: Vec<String>,
    /// Whether best values are marked: the renderer says how.
    pub marks_best: bool,
    /// Where it is shown.
    pub place: Place,
    /// Whether it is a map: its first column and its head are settings, its cells one quantity.
    pub map: bool,
    /// Whether the page shows it at once, and not only when it is asked for.
    pub open: bool,
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
    /// Name in the result files of the metric that it holds, where it holds one.
    pub metric: Option<String>,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Text, not yet escaped for any format.
    pub text: String,
    /// Whether it is the best value of its column.
    pub best: bool,
    /// Whether it states why there is no number.
    pub absent: bool,
    /// The number itself, where the text is one with a unit or an interval: what the page sorts by.
    pub value: Option<f64>,
    /// Of a map of values: its place in their range from 0, best or lowest, to 4.
    pub heat: Option<u8>,
}

/// What a plot draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Lines in one drawing.
    Lines,
    /// A small drawing for each line.
    Panels,
    /// A single point for each series.
    Points,
    /// A small drawing for each series, whose points are the spikes of neurons: step and number of the neuron.
    Spikes,
}

/// A plot.
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
    /// Whether the vertical axis is logarithmic; then every value is positive.
    pub log_y: bool,
    /// What is drawn.
    pub form: Form,
    /// Lines, or single points.
    pub series: Vec<Series>,
    /// Horizontal and vertical position of the points that no other beats in both directions, by ascending x; empty where that is
    /// not asked.
    pub frontier: Vec<[f64; 2]>,
    /// A dashed horizontal line.
    pub level: Option<Level>,
}

/// One line of a plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// Name beside it.
    pub label: String,
    /// Colour and marker.
    pub look: Look,
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
    /// Name beside it.
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
        Self { label: label.into(), numeric: false, metric: None }
    }

    /// A column of numbers.
    pub fn number(label: impl Into<String>) -> Self {
        Self { label: label.into(), numeric: true, metric: None }
    }

    /// A column of a metric's values.
    pub fn metric(label: impl Into<String>, name: &str) -> Self {
        Self { label: label.into(), numeric: true, metric: Some(name.to_owned()) }
    }
}

impl Cell {
    /// A value.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), best: false, absent: false, value: None, heat: None }
    }

    /// A number in words, with the number itself.
    pub fn valued(text: impl Into<String>, value: f64) -> Self {
        Self { value: Some(value).filter(|v| v.is_finite()), ..Self::new(text) }
    }

    /// A statement in place of a value, such as "not measured".
    pub fn absent(text: impl Into<String>) -> Self {
        Self { absent: true, ..Self::new(text) }
    }

    /// The number in the words that `text` finds for it, or "not measured".
    pub(super) fn number(value: Option<f64>, text: impl Fn(f64) -> String) -> Self {
        value.map_or_else(|| Self::absent(NOT_MEASURED), |value| Self::valued(text(value), value))
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
            labels: 1,
            rows: Vec::new(),
            notes: Vec::new(),
            marks_best: false,
            place: Place::Files,
            map: false,
            open: false,
        }
    }
}
