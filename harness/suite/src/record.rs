//! What a step did, as rows.

use learner::{Cost, OpCounts, Update};

use crate::cell::CellConfig;
use crate::error::Result;
use crate::measure::allocator;
use crate::measure::energy::{CostModel, Sizes};
use crate::measure::resident::Resident;
use crate::store::Position;
use rows::parquet::PartWriter;
use rows::{Event, LayerRow, StepRow};

/// Makes the rows of a cell's updates.
pub struct Recorder<'a> {
    energy: &'a CostModel,
    resident: Resident,
    /// Segments of the whole run.
    total: u64,
    /// Segments of the first pass over the data.
    first_pass: u64,
}

impl<'a> Recorder<'a> {
    /// For a cell of `total` segments, whose data are seen for the first time in `first_pass` of them.
    #[must_use]
    pub fn new(config: &'a CellConfig, total: u64, first_pass: u64) -> Self {
        Self { energy: &config.energy, resident: Resident::default(), total, first_pass }
    }

    /// Moves `at` behind a segment of `seen` tokens or frames, and writes down what the update did.
    ///
    /// # Errors
    /// If earlier rows could not be written.
    pub fn record(
        &self,
        sink: &mut PartWriter,
        at: &mut Position,
        seen: u64,
        cost: &Cost,
        update: Update,
    ) -> Result<()> {
        let allocations = allocator::allocations(); // before what is written down here asks for some
        at.segment += 1;
        at.step += 1;
        at.seen += seen;
        at.updates += update.updates;
        if let Some(loss) = update.loss {
            at.losses.add(loss);
            if at.segment <= self.first_pass {
                at.prequential.add(loss);
            }
        }
        let counted = allocator::is_counting();
        at.allocations += allocations;
        let peaks = allocator::peaks();
        at.peak_bytes = at.peak_bytes.max(peaks.step());
        if let Some(s) = update.activity.spike_sparsity {
            at.sparsity = (at.sparsity.0 + s, at.sparsity.1 + 1);
        }
        at.pruned_share = update.activity.pruned_share;
        if let Some(counts) = update.operations {
            at.operations.add(counts, seen, at.segment, self.total);
        }
        sink.push(Event::Step(StepRow {
            step: at.step,
            seen: at.seen,
            elapsed_s: at.elapsed_s,
            loss: update.loss,
            learning_rate: update.learning_rate,
            grad_norm: update.grad_norm,
            update_norm: update.update_norm,
            state_bytes: Some(cost.state_bytes),
            live_bytes: counted.then(allocator::live_bytes),
            peak_bytes: counted.then(|| peaks.step()),
            peak_bytes_forward: counted.then_some(peaks.forward),
            peak_bytes_learning: counted.then_some(peaks.learning),
            updates: at.updates,
            rss_bytes: self.resident.bytes(),
            spike_sparsity: update.activity.spike_sparsity,
            activation_sparsity: update.activity.activation_sparsity,
            connection_sparsity: update.activity.connection_sparsity,
            data_wait_s: at.data_wait_s,
            allocations: counted.then_some(allocations),
            ..update.operations.map_or_else(StepRow::default, |counts| self.operations(&counts, cost))
        }))?;
        for v in update.layers {
            let row = LayerRow { step: at.step, layer: v.layer, quantity: v.quantity.to_owned(), value: v.value };
            sink.push(Event::Layer(row))?;
        }
        Ok(())
    }

    /// The columns of operations and energy.
    fn operations(&self, counts: &OpCounts, cost: &Cost) -> StepRow {
        let [forward, learning] = self.energy.energies(counts, Sizes::of(cost));
        let (work, learned, tools) = (counts.forward, counts.learning(), counts.conventions);
        StepRow {
            macs_forward: Some(work.macs),
            acs_forward: Some(work.acs),
            macs_learning: Some(learned.macs),
            acs_learning: Some(learned.acs),
            macs_dense: Some(counts.macs_dense),
            op_coverage: Some(counts.coverage()),
            energy_forward_pj: Some(forward.arithmetic_pj),
            energy_learning_pj: Some(learning.arithmetic_pj),
            elementwise_forward: Some(work.elementwise),
            elementwise_learning: Some(learned.elementwise),
            activation_macs_forward: Some(work.activation_macs),
            activation_macs_learning: Some(learned.activation_macs),
            neuron_updates: Some(counts.neuron_updates),
            weight_words_forward: Some(work.weight_words),
            weight_words_learning: Some(learned.weight_words),
            state_words_forward: Some(work.state_words),
            state_words_learning: Some(learned.state_words),
            operations_reverse: Some(counts.reverse.operations()),
            operations_traces: Some(counts.traces.operations()),
            operations_stdp: Some(counts.stdp.operations()),
            operations_pruning: Some(counts.pruning.operations()),
            operations_optimizer: Some(counts.optimizer.operations()),
            operations_passes: Some(counts.passes.operations()),
            energy_forward_with_traffic_pj: forward.with_traffic_pj,
            energy_learning_with_traffic_pj: learning.with_traffic_pj,
            energy_coverage_forward: Some(forward.coverage),
            energy_coverage_learning: Some(learning.coverage),
            neurobench_macs: Some(tools.neurobench.macs),
            neurobench_acs: Some(tools.neurobench.acs),
            spikingjelly_macs: Some(tools.spikingjelly.macs),
            spikingjelly_acs: Some(tools.spikingjelly.acs),
            syops_macs: Some(tools.syops.macs),
            syops_acs: Some(tools.syops.acs),
            events_forward: Some(work.events),
            events_learning: Some(learned.events),
            spike_synapses: Some(counts.spike_synapses),
            neurons_fired: Some(counts.neurons_fired),
            spikes: Some(counts.spikes),
            code_macs_forward: work.code_macs.listed(),
            code_macs_learning: learned.code_macs.listed(),
            ..StepRow::default()
        }
    }
}
