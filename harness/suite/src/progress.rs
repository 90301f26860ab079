//! What a person sees while cells run: bars on a terminal, one line per cell elsewhere, nothing with `--quiet`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use data::fetch::report::Mode;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::PlannedCell;
use crate::run::{Phase, Progress};
use crate::store::{Outcome, Status};

/// Shows the progress of a run.
pub struct Display {
    mode: Mode,
    bars: MultiProgress,
    all: ProgressBar,
}

impl Display {
    /// For a run of `cells` cells.
    #[must_use]
    pub fn new(mode: Mode, cells: u64) -> Self {
        let bars = MultiProgress::new();
        let terminal = mode == Mode::Human && std::io::stderr().is_terminal();
        bars.set_draw_target(if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        let all = bars.add(ProgressBar::new(cells));
        all.set_style(style("cells {pos}/{len} [{bar:30}] {elapsed_precise}"));
        all.enable_steady_tick(Duration::from_millis(500));
        Self { mode, bars, all }
    }

    /// A bar for a cell that starts.
    #[must_use]
    pub fn start(&self, name: &str) -> CellBar {
        let bar = self.bars.add(ProgressBar::new(1));
        bar.set_style(style("{prefix} [{bar:20}] {percent:>3}% {wide_msg}"));
        bar.set_prefix(name.to_owned());
        CellBar { bar }
    }

    /// A cell that was finished before.
    pub fn cached(&self, cell: &PlannedCell, name: &str, status: &Status) {
        self.line(cell, name, status, "finished before");
    }

    /// A cell that has just ended.
    pub fn finished(&self, cell: &PlannedCell, name: &str, status: &Status) {
        self.line(cell, name, status, &format!("{:.1} s", status.train_s));
    }

    /// Something about a cell that goes on.
    pub fn note(&self, name: &str, text: &str) {
        match self.mode {
            Mode::Quiet => data::tell!("{name}: {text}"),
            Mode::Json => data::tell!("{}", serde_json::json!({"event": "note", "name": name, "note": text})),
            Mode::Human => self.print(&format!("{name}: {text}")),
        }
    }

    /// The end of a run directory.
    pub fn total(&self, run: &Path, statuses: &BTreeMap<String, Status>) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for status in statuses.values() {
            *counts.entry(status.outcome.name()).or_default() += 1;
        }
        let report = run.join("report/index.html");
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => {
                data::tell!("{}", serde_json::json!({"event": "total", "run": run, "cells": counts, "report": report}));
            }
            Mode::Human => self.print(&format!("report: {}", report.display())),
        }
    }

    fn line(&self, cell: &PlannedCell, name: &str, status: &Status, note: &str) {
        self.all.inc(1);
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => {
                let metrics: BTreeMap<&str, Option<f64>> =
                    status.metrics.iter().map(|m| (m.name.as_str(), m.value)).collect();
                let value = serde_json::json!({
                    "event": "cell", "cell": cell.id, "name": name, "outcome": status.outcome.name(),
                    "reason": status.reason, "cause": status.cause, "train_s": status.train_s, "note": note,
                    "metrics": metrics,
                });
                data::tell!("{value}");
            }
            Mode::Human => {
                let main = main_metric(cell, status).map(|text| format!("{text}  "));
                let text = match status.outcome {
                    Outcome::Completed => format!("{name}  {}({note})", main.unwrap_or_default()),
                    outcome => format!("{name}  {}: {}", outcome.name(), status.reason.as_deref().unwrap_or(note)),
                };
                self.print(&text);
            }
        }
    }

    fn print(&self, text: &str) {
        if self.bars.is_hidden() {
            data::tell!("{text}");
        } else {
            // a bar that cannot be drawn over must not end the run
            let _ = self.bars.println(text);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.all.finish_and_clear();
    }
}

/// The task's main metric with its value, such as `auroc 0.912`; `None` if it has none.
pub fn main_metric(cell: &PlannedCell, status: &Status) -> Option<String> {
    let name = cell.config.task.info().metrics.first().copied()?;
    let value = status.metrics.iter().find(|metric| metric.name == name)?.value?;
    Some(format!("{name} {value:.3}"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// The bar of one running cell.
pub struct CellBar {
    bar: ProgressBar,
}

impl CellBar {
    /// Shows where the cell is.
    pub fn update(&self, p: Progress) {
        self.bar.set_length(p.total);
        self.bar.set_position(p.done);
        match p.loss {
            // formatting a message costs more than a small step: now and then is enough
            Some(loss) if p.done.is_multiple_of(16) => {
                self.bar.set_message(format!("loss {loss:.3}, {:.0}/s", p.rate));
            }
            Some(_) => {}
            None => self.bar.set_message(match p.phase {
                Phase::Opening => "opening data",
                Phase::Training => "training",
                Phase::Evaluating => "evaluating",
            }),
        }
    }
}

impl Drop for CellBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
