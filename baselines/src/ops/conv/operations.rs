//! What a convolution computes, from the values that passed.

use learner::operations::{Fan, Product, Seen, Source, nonzero, units};

use super::{Before, Dims, FusedConv};
use crate::count;

impl FusedConv {
    /// Counts the products of the forward pass. `padded` is what the weights were multiplied with, `[B, P, I]`.
    pub(super) fn count(&self, padded: &[f32], w: &[f32]) {
        let Dims { streams, inputs, outputs, taps, ref lengths, .. } = self.dims;
        let fan = Fan::of_rows(w, outputs);
        let streams = padded.chunks_exact(self.dims.padded_len()).zip(lengths).take(streams);
        let seen = streams.map(|(x, &length)| self.seen(&fan, x, self.dims.outputs_of(length)));
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
    fn seen(&self, fan: &Fan, x: &[f32], produced: usize) -> Seen {
        let Dims { inputs, taps, dilation, stride, .. } = self.dims;
        let row = |tap: usize, t: usize| &x[(t * stride + tap * dilation) * inputs..][..inputs];
        if !fan.is_full() {
            return fan.see_taps(taps, produced, Source::Values, row);
        }
        // every input meets the same number of weights: each row is looked at once
        let of_rows: Vec<u64> = x.chunks_exact(inputs).map(nonzero).collect();
        let reads = (0..taps).flat_map(|tap| (0..produced).map(move |t| t * stride + tap * dilation));
        let nonzero = reads.map(|row| of_rows[row]).sum::<u64>();
        let (unit, binary) = units(x);
        let pairs = nonzero * fan.outputs();
        let values = (taps * produced * inputs) as u64;
        Seen { values, nonzero, events: nonzero, pairs, synaptic: pairs, unit, binary }
    }
}
