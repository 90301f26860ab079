//! What a learner costs, from its configuration and shapes alone: no weights, no traces of all streams.

use candle_core::{DType, Device};
use learner::{AdamW, Cost, Io, Result, Shapes};

use crate::block::{Block, Spec};
use crate::config::BimConfig;
use crate::network::{Network, streams_per_group};
use crate::online::{F32_BITS, Optimizer};
use crate::plasticity::Plasticity;
use crate::reach::chunks;
use crate::rule::Membrane;
use crate::runs_on::check_device;

/// Carried values that the streams of a group share; of everything else each stream has its own.
const SHARED: [&str; 2] = ["rates", "skips"];

/// What [`Bim::new`](crate::Bim::new) would make costs.
///
/// # Errors
/// What it refuses.
pub fn plan(config: &BimConfig, io: Io, train: Optimizer, device: &Device) -> Result<Cost> {
    config.check()?;
    check_device(config, &io, device)?;
    let mut shapes = Shapes::new(DType::F32);
    Network::<f32>::named(config, &io, &mut shapes)?;
    AdamW::new(train.adamw, [])?;
    let pairs = Plasticity::pair_numbers(config) * io.streams;
    let (carried, traces) = network_numbers(config, &io, Membrane::choose(config, F32_BITS));
    let kept = match chunks(config, io.segment) {
        Some(chunks) => (chunks + 1) * network_numbers(config, &io, Membrane::Lag(0)).0,
        None => 0,
    };
    let bytes = |numbers: usize| (numbers * size_of::<f32>()) as u64;
    Ok(Cost {
        parameters: shapes.count(),
        state_bytes: bytes(carried + pairs + kept),
        trace_bytes: bytes(traces + pairs),
    })
}

/// Numbers that a network carries from chunk to chunk, and how many of them are traces: those of one stream in one layer, times
/// the streams and layers.
fn network_numbers(config: &BimConfig, io: &Io, membrane: Membrane) -> (usize, usize) {
    let mut block = Block::<f32>::new(Spec::new(config, membrane, 1), io.segment.max(1));
    let groups = io.streams.div_ceil(streams_per_group(io));
    let times = |name: &str| if SHARED.contains(&name) { groups } else { io.streams };
    let carried: usize = block.carried().iter().map(|(name, values)| values.len() * times(name)).sum();
    (carried * config.layers.0, block.trace_numbers() * io.streams * config.layers.0)
}
