//! What a block computes, from the values that passed.

use learner::operations::{Fan, Product, Source};

use super::MambaShape;
use super::block::{Block, Weights};
use crate::count::{self, Watch};

/// Watches of the products whose inputs do not outlive their task.
pub(super) struct Watches {
    pub input: Option<Watch>,
    pub output: Option<Watch>,
}

impl Watches {
    pub fn new(shape: &MambaShape, input: &[f32], w: &Weights) -> Self {
        Self {
            input: Watch::new(input, 2 * shape.channels, Source::Values),
            output: Watch::new(w.output, shape.width, Source::Values),
        }
    }
}

impl Block {
    /// Counts the forward pass: `vz` `[B·K, 2H]`, `u` `[B·K, H]`, `select` `[B·K, R + 2N]`.
    pub(super) fn count(&self, watches: Watches, [vz, u, select]: [&[f32]; 3], w: &Weights) {
        if !count::active() {
            return;
        }
        let MambaShape { channels, rank, taps, .. } = self.shape;
        let selected = Watch::new(w.select, self.shape.selected(), Source::Values);
        let step = Watch::new(w.step, channels, Source::Values);
        let rows = u.len() / channels;
        let mut low_rank = Vec::with_capacity(rows * rank);
        select.chunks_exact(self.shape.selected()).for_each(|row| low_rank.extend_from_slice(&row[..rank]));
        for (watch, x) in [(&selected, u), (&step, &low_rank)] {
            count::see(Some(watch), x);
        }
        let fan = Fan::of_rows(w.conv, 1);
        let series = self.series(vz);
        let seen = fan.see_taps(taps, rows, Source::Values, |tap, row| series.at(row, taps - 1 - tap));
        let taps = Product::new(Source::Values, &fan, seen);
        count::mamba([watches.input, selected, step, watches.output], taps, rows, self.shape);
    }
}
