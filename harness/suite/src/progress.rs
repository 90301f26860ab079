//! What a person sees while cells run: bars on a terminal, one line per cell elsewhere, nothing with `--quiet`.

use std::io::IsTerminal;
use std::time::Duration;

use data::fetch::report::Mode;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::PlannedCell;
use crate::run::Progress;
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
    pub fn start(&self, cell: &PlannedCell) -> CellBar {
        let bar = self.bars.add(ProgressBar::new(1));
        bar.set_style(style("{prefix:28} [{bar:30}] {percent:>3}% {msg}"));
        bar.set_prefix(name(cell));
        CellBar { bar }
    }

    /// A cell that was finished before.
    pub fn cached(&self, cell: &PlannedCell, status: &Status) {
        self.line(cell, status, "finished before");
    }

    /// A cell that has just ended.
    pub fn finished(&self, cell: &PlannedCell, status: &Status) {
        let took = format!("{:.1} s", status.train_s);
        self.line(cell, status, &took);
    }

    fn line(&self, cell: &PlannedCell, status: &Status, note: &str) {
        self.all.inc(1);
        let main = ["bits_per_byte", "perplexity", "auc_roc_macro"]
            .iter()
            .find_map(|name| status.metrics.iter().find(|m| m.name == *name))
            .and_then(|m| m.value.map(|v| format!("{} {v:.3}", m.name)));
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => {
                let value = serde_json::json!({
                    "event": "cell", "cell": cell.id, "name": name(cell), "outcome": status.outcome.name(),
                    "reason": status.reason, "train_s": status.train_s, "note": note,
                });
                eprintln!("{value}");
            }
            Mode::Human => {
                let text = match (&status.outcome, main) {
                    (Outcome::Completed, Some(main)) => format!("{:28} {main}  ({note})", name(cell)),
                    (outcome, _) => {
                        format!("{:28} {}: {}", name(cell), outcome.name(), status.reason.as_deref().unwrap_or(note))
                    }
                };
                if self.bars.is_hidden() {
                    eprintln!("{text}");
                } else {
                    // a bar that cannot be drawn over must not end the run
                    let _ = self.bars.println(text);
                }
            }
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.all.finish_and_clear();
    }
}

fn name(cell: &PlannedCell) -> String {
    let c = &cell.config;
    format!("{} {} seed {}", c.task_name, c.model_name, c.seed)
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
            None if p.phase != "training" => self.bar.set_message(p.phase),
            _ => {}
        }
    }
}

impl Drop for CellBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
