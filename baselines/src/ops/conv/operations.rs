//! What a convolution computes, from the values that passed: the products of its definition, in whatever form they are made.

use learner::operations::{Fan, Product, Seen, Source, units};

use super::{Before, Dims, FusedConv};
use crate::count;

/// How many values of each row are not exactly zero. A NaN is not zero.
pub(super) fn nonzero_of_rows(x: &[f32], counts: &mut [u32]) {
    let width = x.len() / counts.len().max(1);
    for (count, row) in counts.iter_mut().zip(x.chunks_exact(width.max(1))) {
        *count = row.iter().map(|v| u32::from(*v != 0.0)).sum();
    }
}

impl FusedConv {
    /// Counts the products of the forward pass. `padded` is what the weights were multiplied with, `[B, P, I]`, and `nonzero`
    /// how many values of each step are not zero, `[B, P]`.
    pub(super) fn count(&self, padded: &[f32], nonzero: &[u32], w: &[f32]) {
        let Dims { streams, inputs, outputs, taps, ref lengths, .. } = self.dims;
        let fan = Fan::of_rows(w, outputs);
        let each = padded.chunks_exact(self.dims.padded_len()).zip(nonzero.chunks_exact(self.dims.padded()));
        let streams = each.zip(lengths).take(streams);
        let seen = streams.map(|((x, nonzero), &length)| self.seen(&fan, x, nonzero, self.dims.outputs_of(length)));
        let seen = seen.fold(Seen::NOTHING, Seen::and);
        let produced = seen.values / (taps * inputs).max(1) as u64;
        let product = Product::new(Source::Values, &fan, seen);
        let product = if self.of_data { product.of_data() } else { product };
        // a causal network reads what it remembers and writes as much
        let remembered = 2 * self.context.len() as u64;
        let normed = self.before == Before::NormRelu;
        count::conv(product, (padded.len(), inputs), normed, produced * outputs as u64, remembered);
    }

    /// One stream's inputs `[P, I]`, each counted for every output and tap that reads it.
    fn seen(&self, fan: &Fan, x: &[f32], of_rows: &[u32], produced: usize) -> Seen {
        let Dims { inputs, taps, dilation, stride, .. } = self.dims;
        let row = |tap: usize, t: usize| &x[(t * stride + tap * dilation) * inputs..][..inputs];
        if !fan.is_full() {
            return fan.see_taps(taps, produced, Source::Values, row);
        }
        // every input meets the same number of weights: each step was looked at once
        let of_tap = |tap: usize| of_rows[tap * dilation..].iter().step_by(stride).take(produced);
        let nonzero = (0..taps).flat_map(of_tap).map(|&n| u64::from(n)).sum::<u64>();
        let (unit, binary) = units(x);
        let pairs = nonzero * fan.outputs();
        let values = (taps * produced * inputs) as u64;
        Seen { values, nonzero, events: nonzero, pairs, synaptic: pairs, unit, binary }
    }
}
