//! What a person sees while data come: bars on a terminal, one line per file elsewhere, JSON lines on request.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::FetchError;
use super::plan::Item;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bars on a terminal, lines elsewhere.
    Human,
    /// One JSON object per line on stderr.
    Json,
    /// Nothing.
    Quiet,
}

/// Shows what happens to the items of one command.
pub struct Report {
    mode: Mode,
    bars: MultiProgress,
}

impl Report {
    /// For stderr.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let bars = MultiProgress::new();
        let terminal = mode == Mode::Human && std::io::stderr().is_terminal();
        bars.set_draw_target(if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        Self { mode, bars }
    }

    /// A bar for an item that starts.
    #[must_use]
    pub fn bar(&self, item: &Item) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::new(item.expected.bytes.unwrap_or(0)));
        let template = "{prefix:28} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_prefix(item.name.clone());
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }

    /// An item that is in place now.
    pub fn done(&self, item: &Item, what: &str) {
        let value = serde_json::json!({"event": "fetched", "dataset": item.dataset, "name": item.name, "note": what});
        self.say(&value, &format!("{} {}: {what}", item.dataset, item.name));
    }

    /// An item that failed.
    pub fn failed(&self, item: &Item, error: &FetchError) {
        let text = error.to_string();
        let value = serde_json::json!({"event": "failed", "dataset": item.dataset, "name": item.name, "error": text});
        match self.mode {
            // an error is no progress: it is told even when quiet
            Mode::Json => crate::tell!("{value}"),
            Mode::Human | Mode::Quiet => self.line(&format!("error: {} {}: {text}", item.dataset, item.name)),
        }
    }

    /// Something to know. It is told even when quiet: nothing is done in silence that a reader of results should know.
    pub fn notice(&self, text: &str) {
        match self.mode {
            Mode::Json => crate::tell!("{}", serde_json::json!({"event": "notice", "text": text})),
            Mode::Human | Mode::Quiet => self.line(&format!("notice: {text}")),
        }
    }

    /// What is about to happen.
    pub fn intent(&self, text: &str) {
        self.say(&serde_json::json!({"event": "plan", "text": text}), text);
    }

    fn say(&self, value: &serde_json::Value, text: &str) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => crate::tell!("{value}"),
            Mode::Human => self.line(text),
        }
    }

    fn line(&self, text: &str) {
        if self.bars.is_hidden() || self.bars.println(text).is_err() {
            crate::tell!("{text}");
        }
    }
}

/// Bytes in decimal units, as publishers state them.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        let shown: Vec<String> = [0, 999, 190_229_076, 61_357_943_031, 3_000_000_000_000].map(human_bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "190.2 MB", "61.4 GB", "3.0 TB"]);
    }
}
