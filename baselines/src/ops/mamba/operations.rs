//! What a block computes, from the values that passed.

use learner::operations::{Seen, Source};

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
        see_taps(watch, taps, series, first, u.len() / channels);
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

/// What the taps of the convolution read for `rows` rows from `first` on. Where no tap is zero each row is looked at once, not once
/// for every tap.
fn see_taps(watch: &Watch, taps: usize, series: &Series, first: usize, rows: usize) {
    if !watch.fan().is_full() {
        watch.see_taps(taps, rows, |tap, row| series.at(first + row, taps - 1 - tap));
        return;
    }
    let (mut own, mut all) = (Vec::with_capacity(rows), Seen::NOTHING);
    for i in 0..rows {
        own.push(Seen::of(series.at(first + i, 0), Source::Values));
        let steps_before = ((first + i) % series.steps).min(i);
        for back in 0..taps {
            let before = || Seen::of(series.at(first + i, back), Source::Values);
            all = all.and(if back <= steps_before { own[i - back] } else { before() });
        }
    }
    // every value meets the one weight of its channel and tap
    watch.add(Seen { pairs: all.nonzero, synaptic: all.events, ..all });
}
