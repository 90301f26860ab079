//! Collects the counts of one segment, layer by layer.

use super::{
    Conventions, Fan, NORM_ELEMENTWISE, NORM_REVERSE_ELEMENTWISE, NORM_ROW_ELEMENTWISE, OpCounts, Seen, Source,
    Synaptic, Work,
};
use crate::{Activity, LayerValue};

/// One weight product of the forward pass, with the two that reverse mode makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// What produced its input.
    pub source: Source,
    /// What its input made of its weights.
    pub seen: Seen,
    /// Weights.
    pub weights: u64,
    /// Weights that are not zero.
    pub nonzero_weights: u64,
    /// Multiplications if nothing were zero.
    pub dense: u64,
    /// Multiplications of the input's gradient; 0 if none is wanted.
    pub back: u64,
    /// Multiplications, or accumulates, of the weights' gradient.
    pub gradient: u64,
    /// Of the weights' gradient, a burst of spikes counted once.
    pub gradient_events: u64,
    /// (step, weight that is not zero) pairs.
    pub living: u64,
    /// Numbers that a bias is added to; 0 without one.
    pub biased: u64,
    /// Inputs that the reverse pass keeps.
    pub kept: u64,
}

impl Product {
    /// `x W` for the inputs that `seen` is about.
    #[must_use]
    pub fn new(source: Source, fan: &Fan, seen: Seen) -> Self {
        let rows = seen.values / (fan.inputs() as u64).max(1);
        Self {
            source,
            seen,
            weights: fan.weights(),
            nonzero_weights: fan.nonzero(),
            dense: seen.values * fan.outputs(),
            back: rows * fan.nonzero(),
            gradient: seen.events * fan.outputs(),
            gradient_events: seen.nonzero * fan.outputs(),
            living: rows * fan.nonzero(),
            biased: 0,
            kept: seen.values,
        }
    }

    /// With a bias on each of `outputs` per row.
    #[must_use]
    pub fn biased(self, rows: u64, outputs: u64) -> Self {
        Self { biased: rows * outputs, ..self }
    }

    /// Of inputs that were each counted several times: so many are kept.
    #[must_use]
    pub fn keeping(self, kept: u64) -> Self {
        Self { kept, ..self }
    }

    /// Of data: no gradient of the input is wanted.
    #[must_use]
    pub fn of_data(self) -> Self {
        Self { back: 0, ..self }
    }

    fn work(&self) -> (Work, Work) {
        let mut forward = Work { elementwise: self.biased, weight_words: self.seen.pairs, ..Work::default() };
        forward.multiply(self.source, self.seen.synaptic, self.seen.pairs);
        let mut reverse = Work {
            macs: self.back,
            elementwise: self.biased,
            // weights read once more; gradients read and written
            weight_words: self.back + 2 * self.gradient,
            // the input, written and read
            state_words: 2 * self.kept,
            ..Work::default()
        };
        reverse.multiply(self.source, self.gradient, self.gradient_events);
        (forward, reverse)
    }

    fn conventions(&self) -> Conventions {
        let Seen { values, nonzero, pairs, unit, binary, .. } = self.seen;
        let one = |is_spike: bool, macs: u64, acs: u64| {
            if is_spike { Synaptic { macs: 0, acs } } else { Synaptic { macs, acs: 0 } }
        };
        let share = |n: u64| (u128::from(n) * u128::from(nonzero) / u128::from(values.max(1))) as u64;
        let with_bias = self.dense + self.biased;
        Conventions {
            neurobench: one(unit, pairs, pairs),
            spikingjelly: one(binary, self.dense, share(self.dense)),
            syops: one(binary, with_bias, share(with_bias)),
        }
    }
}

/// What one layer did in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerTally {
    /// Its name.
    pub name: String,
    /// Its forward weight products.
    pub synaptic: Synaptic,
    /// Inputs of weight products.
    pub values: u64,
    /// Of these, not zero.
    pub nonzero: u64,
    /// (neuron, step) pairs.
    pub neurons: u64,
    /// Of these, with a spike.
    pub fired: u64,
}

/// Counts of a segment so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The counts. Reverse mode is counted with the forward pass it belongs to.
    pub counts: OpCounts,
    /// The layers, in the order in which they were first named.
    pub layers: Vec<LayerTally>,
    declared: u64,
    current: usize,
    weights: u64,
    nonzero_weights: u64,
}

impl Tally {
    /// What follows belongs to this layer.
    pub fn layer(&mut self, name: &str) {
        self.current = self.layers.iter().position(|l| l.name == name).unwrap_or_else(|| {
            self.layers.push(LayerTally { name: name.to_owned(), ..LayerTally::default() });
            self.layers.len() - 1
        });
    }

    fn current(&mut self) -> &mut LayerTally {
        if self.layers.is_empty() {
            self.layer("network");
        }
        let at = self.current.min(self.layers.len() - 1);
        &mut self.layers[at]
    }

    /// A weight product.
    pub fn product(&mut self, product: Product) {
        let (forward, reverse) = product.work();
        self.counts.forward += forward;
        self.counts.reverse += reverse;
        self.counts.macs_dense += product.dense;
        if matches!(product.source, Source::Spikes | Source::WeightedSpikes) {
            self.counts.spike_synapses += product.living;
        }
        self.counts.conventions += product.conventions();
        self.weights += product.weights;
        self.nonzero_weights += product.nonzero_weights;
        let layer = self.current();
        layer.synaptic += Synaptic { macs: forward.macs, acs: forward.acs };
        layer.values += product.seen.values;
        layer.nonzero += product.seen.nonzero;
    }

    /// Products of activations with activations or states.
    pub fn activations(&mut self, forward: u64, reverse: u64) {
        let work = |n| Work { macs: n, activation_macs: n, ..Work::default() };
        self.counts.forward += work(forward);
        self.counts.reverse += work(reverse);
        self.counts.macs_dense += forward;
    }

    /// Element-wise work.
    pub fn elementwise(&mut self, forward: u64, reverse: u64) {
        self.counts.forward.elementwise += forward;
        self.counts.reverse.elementwise += reverse;
    }

    /// Words of state read and written.
    pub fn state(&mut self, forward: u64, reverse: u64) {
        self.counts.forward.state_words += forward;
        self.counts.reverse.state_words += reverse;
    }

    /// An RMS norm without gain, which the reverse pass takes anew if `again`.
    pub fn norm(&mut self, rows: u64, width: u64, again: bool) {
        let once = rows * (NORM_ELEMENTWISE * width + NORM_ROW_ELEMENTWISE);
        let back = rows * (NORM_REVERSE_ELEMENTWISE * width + NORM_ROW_ELEMENTWISE);
        self.elementwise(once, back + if again { once } else { 0 });
    }

    /// A look-up of `rows` rows of `width`: no operation forward; backward every row is added to its gradient.
    pub fn lookup(&mut self, rows: u64, width: u64) {
        let n = rows * width;
        self.counts.forward.weight_words += n;
        self.counts.reverse += Work { elementwise: n, weight_words: 2 * n, ..Work::default() };
    }

    /// Spiking neurons: (neuron, step) pairs, those of them with a spike, and their spikes, each of a burst counted.
    pub fn neurons(&mut self, pairs: u64, fired: u64, spikes: u64) {
        self.counts.neuron_updates += pairs;
        self.counts.neurons_fired += fired;
        self.counts.spikes += spikes;
        let layer = self.current();
        layer.neurons += pairs;
        layer.fired += fired;
    }

    /// Multiplications that are not understood.
    pub fn unknown(&mut self, dense: u64) {
        self.counts.unknown += dense;
    }

    /// Multiplications that the counted work is carried out with, zeros or not, where they are noted as
    /// [`crate::performed`] describes.
    pub fn declare(&mut self, multiplications: u64) {
        self.declared += multiplications;
    }

    /// Multiplications declared so far.
    #[must_use]
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// Counts as unknown what was carried out and not declared.
    pub fn reconcile(&mut self, performed: u64) {
        self.unknown(performed.saturating_sub(self.declared));
    }

    /// Shares of zeros. Connections are the weights of products: biases, gains and look-up tables are none.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let zeros = |all: u64, nonzero: u64| (all > 0).then(|| 1.0 - nonzero as f64 / all as f64);
        let sum = |f: fn(&LayerTally) -> u64| self.layers.iter().map(f).sum::<u64>();
        let whole = self.counts.unknown == 0;
        Activity {
            spike_sparsity: zeros(sum(|l| l.neurons), sum(|l| l.fired)),
            activation_sparsity: zeros(sum(|l| l.values), sum(|l| l.nonzero)).filter(|_| whole),
            connection_sparsity: zeros(self.weights, self.nonzero_weights).filter(|_| whole),
            pruned_share: None,
        }
    }

    /// Diagnostics of the layers; operations per step and stream (`rows` of them).
    #[must_use]
    pub fn layer_values(&self, rows: u64) -> Vec<LayerValue> {
        let mut values = Vec::new();
        for layer in &self.layers {
            let mut put = |quantity, value| values.push(LayerValue { layer: layer.name.clone(), quantity, value });
            if layer.values > 0 {
                put("activation_sparsity", 1.0 - layer.nonzero as f64 / layer.values as f64);
            }
            if layer.neurons > 0 {
                put("spike_sparsity", 1.0 - layer.fired as f64 / layer.neurons as f64);
            }
            if layer.values > 0 {
                put("synaptic_acs", layer.synaptic.acs as f64 / rows.max(1) as f64);
                put("synaptic_macs", layer.synaptic.macs as f64 / rows.max(1) as f64);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three inputs on weights [3, 2] of which one is zero, counted by hand.
    #[test]
    fn a_product_by_hand() {
        let fan = Fan::of_rows(&[1.0, 2.0, 0.0, 3.0, 4.0, 5.0], 2);
        let x = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let count = |source| {
            let mut tally = Tally::default();
            tally.product(Product::new(source, &fan, fan.see(&x, source)).biased(2, 2));
            tally.counts
        };
        // inputs 0 and 2 of the first row meet 2 weights each, input 1 of the second row meets 1
        let spikes = count(Source::Spikes);
        assert_eq!((spikes.forward.macs, spikes.forward.acs, spikes.forward.weight_words), (0, 5, 5));
        // back: 2 rows × 5 weights; gradient: 3 spikes × 2 outputs
        assert_eq!((spikes.reverse.macs, spikes.reverse.acs), (10, 6));
        assert_eq!((spikes.reverse.weight_words, spikes.reverse.state_words), (10 + 12, 12));
        assert_eq!((spikes.forward.elementwise, spikes.reverse.elementwise), (4, 4));
        assert_eq!(spikes.macs_dense, 12);
        let values = count(Source::Values);
        assert_eq!((values.forward.macs, values.forward.acs), (5, 0));
        assert_eq!((values.reverse.macs, values.reverse.acs), (16, 0));
        // the values happen to be 0 and 1, and that is all the other tools look at
        for counts in [spikes, values] {
            let c = counts.conventions;
            assert_eq!(c.neurobench, Synaptic { macs: 0, acs: 5 });
            assert_eq!(c.spikingjelly, Synaptic { macs: 0, acs: 6 });
            assert_eq!(c.syops, Synaptic { macs: 0, acs: 8 }); // (12 + 4) · 3/6
        }
    }

    /// A burst is as many accumulates as spikes but one event, and a code a multiply–accumulate of its bits; by hand.
    #[test]
    fn bursts_and_codes_by_hand() {
        let fan = Fan::of_rows(&[1.0, 2.0, 0.0, 3.0], 2); // the second of two inputs meets one weight
        let x = [3.0, -2.0, 0.0, 4.0];
        let count = |source| {
            let mut tally = Tally::default();
            tally.product(Product::new(source, &fan, fan.see(&x, source)));
            tally.counts
        };
        let spikes = count(Source::Spikes);
        assert_eq!((spikes.forward.acs, spikes.forward.events, spikes.forward.macs), (3 * 2 + 2 + 4, 2 + 1 + 1, 0));
        // the gradient is dense: two outputs
        assert_eq!((spikes.reverse.acs, spikes.reverse.events), ((3 + 2 + 4) * 2, 3 * 2));
        assert_eq!(spikes.spike_synapses, 2 * 3, "two steps, three weights that are not zero");
        let codes = count(Source::Codes { bits: 4 });
        assert_eq!((codes.forward.acs, codes.forward.events, codes.spike_synapses), (0, 0, 0));
        assert_eq!(
            (codes.forward.macs, codes.forward.code_macs.sum()),
            (4, 4),
            "zeros are skipped, magnitudes are not"
        );
        assert_eq!(codes.forward.code_macs.each().collect::<Vec<_>>(), [(4, 4)]);
        // the input's gradient is a product of adjoints with weights, in full precision
        assert_eq!((codes.reverse.macs, codes.reverse.code_macs.sum()), (6 + 6, 6));
        assert_eq!(codes.forward.weight_words, spikes.forward.weight_words, "one word for a burst");
    }

    #[test]
    fn shares_and_layers_add_up() {
        let mut tally = Tally::default();
        let fan = Fan::of_rows(&[1.0, 0.0], 1);
        for name in ["a", "b", "a"] {
            tally.layer(name);
            tally.product(Product::new(Source::Values, &fan, fan.see(&[0.5, 0.5], Source::Values)));
            tally.neurons(4, 1, 3);
        }
        let names: Vec<&str> = tally.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!((names, tally.layers[0].synaptic.macs), (vec!["a", "b"], 2));
        let activity = tally.activity();
        assert_eq!((activity.spike_sparsity, activity.activation_sparsity), (Some(0.75), Some(0.0)));
        assert_eq!(activity.connection_sparsity, Some(0.5));
        tally.unknown(10);
        assert_eq!(tally.activity().activation_sparsity, None, "what was not seen has no share");
        assert!(tally.counts.coverage() < 1.0);
        tally.declare(7);
        let before = tally.counts;
        tally.reconcile(7);
        assert_eq!(tally.counts, before, "all of it was declared");
        tally.reconcile(9);
        assert_eq!((tally.counts.unknown, tally.declared()), (12, 7));
        assert_eq!((tally.counts.neuron_updates, tally.counts.neurons_fired, tally.counts.spikes), (12, 3, 9));
        let counts = tally.counts.without_learning();
        assert_eq!((counts.learning(), counts.forward), (Work::default(), tally.counts.forward));
    }
}
