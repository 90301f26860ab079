//! Sums of operation counts over a run, and what is reported of them.

use learner::OpCounts;
use learner::operations::Synaptic;
use serde::{Deserialize, Serialize};

use super::energy::{CostModel, Sizes};
use crate::tasks::Metric;

/// The last so-manieth of the segments is what the metrics are about: nearly the trained network, and long enough for a mean.
const TAIL: u64 = 5;

/// Counts of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Over the last fifth of the segments.
    pub tail: OpCounts,
    /// Tokens or frames of these segments.
    pub tail_seen: u64,
    /// Over the whole run.
    pub whole: OpCounts,
    /// Tokens or frames of the whole run.
    pub whole_seen: u64,
}

impl Totals {
    /// Adds segment `done` of `total`.
    pub fn add(&mut self, counts: OpCounts, seen: u64, done: u64, total: u64) {
        self.whole += counts;
        self.whole_seen += seen;
        if done > total - total.div_ceil(TAIL).min(total) {
            self.tail += counts;
            self.tail_seen += seen;
        }
    }

    /// The metrics of `results.parquet`, each per token or frame of the last fifth of training, but for the shares. What has
    /// the name of a column of `steps.parquet` is the sum of that column over these segments, divided by their tokens or
    /// frames.
    #[must_use]
    pub fn metrics(&self, model: &CostModel, sizes: Sizes) -> Vec<Metric> {
        if self.tail_seen == 0 {
            return Vec::new();
        }
        let (counts, n) = (self.tail, self.tail_seen);
        let [forward, learning] = model.energies(&counts, sizes);
        let share = |name: &str, value: f64| Metric::plain(name, Some(value), n);
        let each = |name: &str, value: f64| Metric::plain(name, Some(value / n as f64), n);
        let count = |name: &str, value: u64| each(name, value as f64);
        let optional = |name: &str, value: Option<f64>| value.map(|v| each(name, v));
        let mut metrics = vec![
            each("energy_synaptic_pj", forward.synaptic_pj),
            each("energy_forward_pj", forward.arithmetic_pj),
            each("energy_learning_pj", learning.arithmetic_pj),
        ];
        metrics.extend(optional("energy_forward_with_traffic_pj", forward.with_traffic_pj));
        metrics.extend(optional("energy_learning_with_traffic_pj", learning.with_traffic_pj));
        metrics.extend([
            share("op_coverage", counts.coverage()),
            share("energy_coverage_forward", forward.coverage),
            share("energy_coverage_learning", learning.coverage),
            count("macs_forward", counts.forward.macs),
            count("acs_forward", counts.forward.acs),
            count("weight_macs_forward", counts.forward.weight_macs()),
            count("events_forward", counts.forward.events),
            count("code_macs_forward", counts.forward.code_macs.sum()),
            count("activation_macs_forward", counts.forward.activation_macs),
            count("elementwise_forward", counts.forward.elementwise),
            count("macs_dense", counts.macs_dense),
            count("operations_learning", counts.learning().operations()),
        ]);
        let c = counts.conventions;
        let tools = [("neurobench", c.neurobench), ("spikingjelly", c.spikingjelly), ("syops", c.syops)];
        for (tool, Synaptic { macs, acs }) in tools {
            metrics.extend([count(&format!("{tool}_macs"), macs), count(&format!("{tool}_acs"), acs)]);
        }
        // undefined without spikes
        let per = |name: &str, value: u64, of: u64| Metric::plain(name, (of > 0).then(|| value as f64 / of as f64), n);
        metrics.extend([
            per("spikes_per_synapse", counts.forward.acs, counts.spike_synapses),
            per("events_per_synapse", counts.forward.events, counts.spike_synapses),
            per("spikes_per_neuron", counts.spikes, counts.neuron_updates),
            per("spike_rate", counts.neurons_fired, counts.neuron_updates),
        ]);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_are_shared_out_over_the_synapses_they_enter() {
        let mut counts = OpCounts { spike_synapses: 200, neuron_updates: 40, neurons_fired: 10, ..OpCounts::default() };
        (counts.forward.acs, counts.forward.events, counts.spikes) = (300, 100, 30);
        let of = |counts: OpCounts, name: &str| {
            let mut totals = Totals::default();
            totals.add(counts, 8, 1, 1);
            let metrics = totals.metrics(&CostModel::default(), Sizes::default());
            metrics.iter().find(|m| m.name == name).expect("always there").value
        };
        let values = ["spikes_per_synapse", "events_per_synapse", "spikes_per_neuron", "spike_rate", "events_forward"];
        assert_eq!(values.map(|name| of(counts, name)), [1.5, 0.5, 0.75, 0.25, 12.5].map(Some));
        assert_eq!(of(OpCounts::default(), "spikes_per_synapse"), None, "no spikes, no share");
    }

    #[test]
    fn the_tail_is_the_last_fifth_and_at_least_one_segment() {
        for (total, expected) in [(1, 1), (4, 1), (5, 1), (10, 2), (11, 3)] {
            let mut totals = Totals::default();
            for done in 1..=total {
                let counts = OpCounts { macs_dense: done, ..OpCounts::default() };
                totals.add(counts, 2, done, total);
            }
            assert_eq!((totals.tail_seen, totals.whole_seen), (2 * expected, 2 * total));
            assert_eq!(totals.tail.macs_dense, (total - expected + 1..=total).sum::<u64>());
        }
        assert!(Totals::default().metrics(&CostModel::default(), Sizes::default()).is_empty(), "nothing is not zero");
    }
}
