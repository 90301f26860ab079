//! What is made of the weights once for as long as they do not change: steps folded into them ([`crate::fold`]), and their columns
//! where spikes arrive and products are made from events ([`crate::kernels::events`]).

use learner::performed;
use learner::product::{View, matmul};

use crate::config::{BimConfig, DeltaInput, Inference};
use crate::kernels::Real;
use crate::kernels::events::{Columns, Events};
use crate::params::{BlockParams, NetworkParams};

/// Columns of a block's weights; none where a product stays dense.
#[derive(Debug, Default)]
pub struct BlockColumns<T> {
    /// Of `W_u`, `W_B`, `W_C`.
    pub(crate) projection: Option<Columns<T>>,
    /// Of `W_Δ`, where it reads all neurons. Where heads read their own, each weight meets one neuron, and there is nothing to skip.
    pub(crate) delta: Option<Columns<T>>,
    /// Of the gate.
    pub(crate) gate: Option<Columns<T>>,
    /// Of `W_out`.
    pub(crate) out: Option<Columns<T>>,
}

/// Columns of the network's weights.
#[derive(Debug)]
pub(crate) struct Frozen<T> {
    pub blocks: Vec<BlockColumns<T>>,
    /// Of the output layer.
    pub head: Option<Columns<T>>,
}

impl<T: Real> Frozen<T> {
    /// Of folded weights.
    pub fn new(c: &BimConfig, params: &NetworkParams<&[T]>) -> Self {
        let [psi, post, readout] = c.spikes_arrive().map(|spikes| spikes && c.inference == Inference::Events);
        let columns = |spikes: bool, outputs: usize, weights: &[T]| {
            (spikes && outputs > 0).then(|| Columns::new(outputs, weights.len() / outputs, weights))
        };
        let block = |b: &BlockParams<&[T]>| BlockColumns {
            projection: columns(psi, c.channels.0 + 2 * c.state.0, b.projection),
            delta: columns(psi && c.delta_input == DeltaInput::Full, b.bias.len(), b.delta),
            gate: b.gate.and_then(|gate| columns(psi, c.width.0, gate)),
            out: columns(post, c.width.0, b.out),
        };
        let head = columns(readout, params.head_bias.len(), params.head);
        Self { blocks: params.blocks.iter().map(block).collect(), head }
    }
}

/// `y ← keep · y + x Wᵀ`, with `y` `[rows, outputs]`, `x` `[rows, inputs]` and `W` `[outputs, inputs]`. What was gathered of `x` is
/// used where there are columns. Counters see the dense product in either case: zeros count like any other factor.
pub(crate) fn synapses<T: Real>(
    (y, outputs): (&mut [T], usize),
    (x, inputs): (&[T], usize),
    weights: &[T],
    columns: Option<&Columns<T>>,
    events: &Events<T>,
    keep: bool,
) {
    let rows = y.len() / outputs;
    let Some(columns) = columns else {
        let keep = if keep { T::one() } else { T::zero() };
        let (x, weights) = ((x, View::new(rows, inputs)), (weights, View::new(outputs, inputs).t()));
        return matmul((y, View::new(rows, outputs)), x, weights, keep);
    };
    if !keep {
        y.fill(T::zero());
    }
    performed::note(rows * outputs * inputs);
    columns.add(events, y);
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use learner::{InputKind, Io, Params, Result};

    use super::*;
    use crate::config::{Count, Levels, NeuronConfig, ReadoutConfig, Share};
    use crate::network::{Network, with_params};
    use crate::rule::Membrane;

    /// Whether there are columns of projection, step sizes, gate, output and output layer.
    fn frozen(c: &BimConfig) -> Result<[bool; 5]> {
        let io = Io { input: InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 1, segment: 2 };
        let mut params = Params::new(1, DType::F32, &Device::Cpu);
        let network = Network::<f32>::new(c, &io, Membrane::Lag(0), &mut params)?;
        let Frozen::<f32> { blocks, head } = with_params(&network.params, |params| Frozen::new(c, params))?;
        let BlockColumns { projection, delta, gate, out } = &blocks[0];
        Ok([projection, delta, gate, out, &head].map(Option::is_some))
    }

    #[test]
    fn columns_are_where_spikes_arrive() -> Result<()> {
        let c = BimConfig { width: Count(16), channels: Count(16), layers: Count(1), ..BimConfig::default() };
        assert_eq!(frozen(&c)?, [false; 5], "dense");
        let c = BimConfig { inference: Inference::Events, ..c };
        assert_eq!(frozen(&c)?, [true, false, true, true, false]);
        let full = BimConfig { delta_input: DeltaInput::Full, gate: false, ..c.clone() };
        assert_eq!(frozen(&full)?, [true, true, false, true, false]);
        let readout = ReadoutConfig { levels: Levels::Integer, ..ReadoutConfig::default() };
        let quantised = NeuronConfig { levels: Levels::Quantised, ..NeuronConfig::default() };
        let read_out = BimConfig { readout, post: quantised, ..c.clone() };
        assert_eq!(frozen(&read_out)?, [true, false, true, false, true]);
        for delayed in [BimConfig { delays: Count(2), ..c.clone() }, BimConfig { kernel: Share(0.5), ..c.clone() }] {
            assert_eq!(frozen(&delayed)?, [false, false, false, true, false]);
        }
        Ok(())
    }
}
