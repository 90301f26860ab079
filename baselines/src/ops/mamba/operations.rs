//! What a block computes, from the values that passed.

use learner::operations::Source;

use super::MambaShape;
use super::block::Weights;
use super::conv::Series;
use crate::count::{self, Watch, see};
use crate::scratch::Scratch;

/// Watches of a block's products, which look at what passes where it is computed.
pub(super) struct Watches {
    pub input: Option<Watch>,
    pub taps: Option<Watch>,
    pub select: Option<Watch>,
    pub step: Option<Watch>,
    pub output: Option<Watch>,
}

impl Watches {
    pub fn new(shape: &MambaShape, input: &[f32], w: &Weights) -> Self {
        let watch = |weights, outputs| Watch::new(weights, outputs, Source::Values);
        Self {
            input: watch(input, 2 * shape.channels),
            taps: watch(w.conv, 1),
            select: watch(w.select, shape.selected()),
            step: watch(w.step, shape.channels),
            output: watch(w.output, shape.width),
        }
    }

    /// Some rows on their way to the scan, from row `first` on: `u` `[rows, H]`, `select` `[rows, R + 2N]`.
    pub fn see(&self, shape: &MambaShape, series: &Series, first: usize, [u, select]: [&[f32]; 2]) {
        let MambaShape { channels, rank, taps, .. } = *shape;
        let Some(watch) = &self.taps else { return };
        watch.see_taps(taps, u.len() / channels, |tap, row| series.at(first + row, taps - 1 - tap));
        see(Some(&self.select), u);
        let mut low_rank = Scratch::of(u.len() / channels * rank);
        for (to, from) in low_rank.chunks_exact_mut(rank).zip(select.chunks_exact(shape.selected())) {
            to.copy_from_slice(&from[..rank]);
        }
        see(Some(&self.step), &low_rank);
    }

    /// Counts the forward pass of `rows` rows.
    pub fn count(self, rows: usize, shape: MambaShape) {
        let Self { input, taps, select, step, output } = self;
        if let Some(taps) = taps {
            count::mamba([input, select, step, output], taps.product(), rows, shape);
        }
    }
}
