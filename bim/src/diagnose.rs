//! How far the online gradient is from full backpropagation through time, and for which of three reasons.
//!
//! Some chunks before a diagnosis is due, the state is copied and the inputs from there on are kept. When it is due, two
//! shadows of the network, on the present weights, run over the same inputs, so that four gradients of the last chunk's loss
//! (with the price of its own spikes and of no earlier ones) lie side by side:
//!
//! | gradient | states | traces |
//! |---|---|---|
//! | *online*, what is learned from | as they came about, under weights that moved | carried along, under the same |
//! | *renewed* | as they came about | of the rerun |
//! | *fresh* | rerun under the present weights | of the rerun |
//! | *reference* | rerun | none: backpropagation through the whole window |
//!
//! Rows of `layers.parquet`, layer `layers.<l>`, over all parameters of the block, living synapses alone:
//!
//! | quantity | is |
//! |---|---|
//! | `cosine_gradient_bptt`, `norm_ratio_gradient_bptt` | *online* against *reference*: all reasons together |
//! | `cosine_fresh_bptt`, `norm_ratio_fresh_bptt` | *fresh* against *reference*, at the same states: what the rule leaves out |
//! | `trace_staleness` | norm of *online* − *renewed*, in units of *renewed*: what old weights in the traces do |
//! | `state_drift` | norm of *renewed* − *fresh*, in units of *fresh*: what old weights in the states do |
//!
//! With `front: traces` also, over what stands in front of `ψ` alone:
//!
//! | quantity | is |
//! |---|---|
//! | `cosine_front_gradient_bptt` | *online* against *reference* |
//! | `cosine_front_fresh_bptt` | *fresh* against *reference* |
//! | `cosine_front_chunk_bptt` | what comes from inside the chunk, at the states of *fresh*, against *reference*: what `front: chunk` has |
//!
//! Credit from before the window is in the carried traces alone and counts as staleness.

use candle_core::Tensor;
use learner::{Bound, LayerValue, Result, Snapshot};

use crate::config::{BimConfig, Credit, Front};
use crate::network::{Group, Network};
use crate::params::{BlockParams, NetworkParams};
use crate::plasticity::Plasticity;
use crate::rule::Membrane;

/// Names in a snapshot: the shadow's state, and the chunks since.
const PREFIX: &str = "diagnose.state.";
const CHUNKS: &str = "diagnose.chunks";
const STARTS: &str = "diagnose.starts.";
const INPUT: &str = "diagnose.input.";

/// Inputs since the copy.
struct Recording {
    shadow: Network<f32>,
    chunks: Vec<(Vec<bool>, Tensor)>,
}

/// The diagnostics of a learner.
pub struct Diagnoser {
    config: BimConfig,
    chunks: usize,
    recording: Option<Recording>,
}

impl Diagnoser {
    /// Nothing recorded. `segment` is the longest chunk.
    #[must_use]
    pub fn new(config: &BimConfig, segment: usize) -> Self {
        let chunks = config.diagnose.window.0.div_ceil(segment.max(1));
        Self { config: config.clone(), chunks, recording: None }
    }

    fn due_in(&self, update: u64) -> Option<u64> {
        let every = self.config.diagnose.every;
        (every > 0).then(|| (every - update % every) % every)
    }

    /// Before a chunk is run: starts or continues a recording. `network` has the state before the chunk.
    ///
    /// # Errors
    /// If the shadow cannot be built.
    pub fn before(
        &mut self,
        network: &mut Network<f32>,
        bound: &Bound,
        starts: &[bool],
        x: &Tensor,
        update: u64,
    ) -> Result<()> {
        let Some(due) = self.due_in(update) else { return Ok(()) };
        if due > self.chunks as u64 {
            self.recording = None;
            return Ok(());
        }
        if self.recording.is_none() {
            let mut shadow = self.shadow(network, bound)?;
            shadow.copy_state(network);
            self.recording = Some(Recording { shadow, chunks: Vec::new() });
        }
        if let Some(recording) = &mut self.recording {
            recording.chunks.push((starts.to_vec(), x.clone()));
        }
        Ok(())
    }

    fn shadow(&self, network: &Network<f32>, bound: &Bound) -> Result<Network<f32>> {
        let config = self.config.without_traces(Credit::Bptt);
        Network::new(&config, &network.io(), Membrane::Lag(0), &mut bound.clone())
    }

    /// Adds a recording that is under way: a run that goes on from here diagnoses what an uninterrupted one would.
    ///
    /// # Errors
    /// If a tensor cannot be built.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let Some(Recording { shadow, chunks }) = &self.recording else { return Ok(()) };
        let mut state = Snapshot::default();
        shadow.save(&mut state)?;
        snapshot.state.extend(state.state.into_iter().map(|(name, t)| (format!("{PREFIX}{name}"), t)));
        snapshot.counters.insert(CHUNKS.into(), chunks.len() as u64);
        for (i, (starts, x)) in chunks.iter().enumerate() {
            let marks: Vec<u8> = starts.iter().map(|s| u8::from(*s)).collect();
            let marks = Tensor::from_vec(marks, starts.len(), &candle_core::Device::Cpu)?;
            snapshot.state.insert(format!("{STARTS}{i}"), marks);
            snapshot.state.insert(format!("{INPUT}{i}"), x.clone());
        }
        Ok(())
    }

    /// Restores what [`Diagnoser::save`] added.
    ///
    /// # Errors
    /// If something is missing or has another length.
    pub fn load(&mut self, network: &Network<f32>, bound: &Bound, snapshot: &Snapshot) -> Result<()> {
        self.recording = None;
        let Some(&count) = snapshot.counters.get(CHUNKS) else { return Ok(()) };
        let own = snapshot.state.iter().filter_map(|(n, t)| Some((n.strip_prefix(PREFIX)?.to_owned(), t.clone())));
        let mut shadow = self.shadow(network, bound)?;
        shadow.load(&Snapshot { state: own.collect(), ..Snapshot::default() })?;
        let chunk = |i| {
            let starts = snapshot.state(&format!("{STARTS}{i}"))?.to_vec1::<u8>()?;
            Ok((starts.into_iter().map(|s| s != 0).collect(), snapshot.state(&format!("{INPUT}{i}"))?.clone()))
        };
        self.recording = Some(Recording { shadow, chunks: (0..count).map(chunk).collect::<Result<_>>()? });
        Ok(())
    }

    /// If a diagnosis is due: compares the online gradient of the chunk last run with the references. `network` stands between
    /// [`Network::reverse`] of that chunk and the end of it.
    ///
    /// # Errors
    /// If a shadow cannot run.
    pub fn diagnose(
        &mut self,
        network: &Network<f32>,
        plasticity: &Plasticity,
        bound: &Bound,
        d_logits: &[f32],
        update: u64,
    ) -> Result<Vec<LayerValue>> {
        if self.due_in(update) != Some(0) {
            return Ok(Vec::new());
        }
        let Some(recording) = self.recording.take() else { return Ok(Vec::new()) };
        let Recording { mut shadow, chunks } = recording;
        let membrane = network.groups.first().and_then(|g| g.blocks.first()).map(|b| b.spec.membrane);
        let membrane = membrane.unwrap_or(Membrane::Lag(0)); // nothing to run where there is no block
        let mut rerun = Network::new(&self.config, &shadow.io(), membrane, &mut bound.clone())?;
        rerun.copy_state(&mut shadow);
        rerun.take_prices(network);
        shadow.take_prices(network);
        let gradients = |network: &Network<f32>| {
            let mut grads = network.zero_grads();
            network.add_grads(&mut grads);
            grads
        };
        let online = gradients(network);
        let reference = through_time(&mut shadow, &chunks, d_logits, |_| Ok(()))?;
        let last = chunks.len() - 1;
        for (i, (starts, x)) in chunks.iter().enumerate() {
            rerun.reset(starts)?;
            rerun.forward(x)?;
            if i < last {
                rerun.finish()?;
            }
        }
        rerun.reverse(Some(d_logits), false)?;
        let fresh = gradients(&rerun);
        let inside: Vec<Vec<f32>> = match self.config.front {
            Front::Chunk => Vec::new(),
            Front::Traces => (0..self.config.layers.0).map(|l| front_inside_chunk(&rerun, l)).collect(),
        };
        // the states as they came about, the traces of the rerun
        let groups = std::mem::replace(&mut rerun.groups, network.groups.clone());
        rerun.set_steps(network.steps());
        rerun.take_traces(&groups);
        let renewed = gradients(&rerun);
        let mut all = [online, renewed, fresh, reference];
        for grads in &mut all {
            plasticity.mask(grads.iter_mut());
        }
        let mut values = Vec::new();
        for l in 0..self.config.layers.0 {
            let layer = format!("layers.{l}");
            if let Some(inside) = inside.get(l) {
                let [online, _, fresh, reference] = all.each_ref().map(|g| front(&g.blocks[l]));
                values.extend(
                    [
                        ("cosine_front_gradient_bptt", &online),
                        ("cosine_front_fresh_bptt", &fresh),
                        ("cosine_front_chunk_bptt", inside),
                    ]
                    .map(|(quantity, of)| LayerValue {
                        layer: layer.clone(),
                        quantity,
                        value: cosine(of, &reference),
                    }),
                );
            }
            let [online, renewed, fresh, reference] =
                all.each_ref().map(|g| g.blocks[l].iter().flatten().copied().collect::<Vec<f32>>());
            let ratio = |a: &[f32], b: &[f32]| norm(a) / norm(b).max(f64::MIN_POSITIVE);
            for (quantity, value) in [
                ("cosine_gradient_bptt", cosine(&online, &reference)),
                ("norm_ratio_gradient_bptt", ratio(&online, &reference)),
                ("cosine_fresh_bptt", cosine(&fresh, &reference)),
                ("norm_ratio_fresh_bptt", ratio(&fresh, &reference)),
                ("trace_staleness", ratio(&difference(&online, &renewed), &renewed)),
                ("state_drift", ratio(&difference(&renewed, &fresh), &fresh)),
            ] {
                values.push(LayerValue { layer: layer.clone(), quantity, value });
            }
        }
        Ok(values)
    }
}

/// What stands in front of a block's `ψ`, of its gradients.
fn front(grads: &BlockParams<Vec<f32>>) -> Vec<f32> {
    let BlockParams { gain, current, conv, delays, pre_step, .. } = grads;
    [Some(gain), current.as_ref(), conv.as_ref(), delays.as_ref(), pre_step.as_ref()]
        .into_iter()
        .flatten()
        .flatten()
        .copied()
        .collect()
}

/// The same from inside the chunk, after its reverse pass.
fn front_inside_chunk(network: &Network<f32>, l: usize) -> Vec<f32> {
    let mut sum = network.zero_grads().blocks.swap_remove(l);
    for group in &network.groups {
        let from = &group.blocks[l].encode_grads;
        crate::kernels::add(&from.gain, &mut sum.gain);
        for (to, from) in [
            (&mut sum.current, &from.current),
            (&mut sum.conv, &from.conv),
            (&mut sum.delays, &from.delays),
            (&mut sum.pre_step, &from.step),
        ] {
            if let Some(to) = to {
                crate::kernels::add(from, to);
            }
        }
    }
    front(&sum)
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    product / (norm(a) * norm(b)).max(f64::MIN_POSITIVE)
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Gradient of the last chunk's loss through all chunks: each chunk's activations are kept, and the reverse pass hands its
/// adjoints from chunk to chunk. Streams that begin anew are cut there. `look` sees the network after each chunk's forward pass.
///
/// # Errors
/// If an input does not fit the network, or what `look` says.
pub fn through_time<T: crate::kernels::Real>(
    network: &mut Network<T>,
    chunks: &[(Vec<bool>, Tensor)],
    d_logits: &[T],
    mut look: impl FnMut(&Network<T>) -> Result<()>,
) -> Result<NetworkParams<Vec<T>>> {
    let mut kept: Vec<(Vec<Group<T>>, usize)> = Vec::with_capacity(chunks.len());
    for (starts, x) in chunks {
        network.reset(starts)?;
        network.forward(x)?;
        look(network)?;
        kept.push((network.groups.clone(), network.steps()));
        network.finish()?;
    }
    let mut grads = network.zero_grads();
    let last = kept.len() - 1;
    for i in (0..=last).rev() {
        let (groups, steps) = kept.swap_remove(i);
        let adjoints = std::mem::replace(&mut network.groups, groups);
        network.set_steps(steps);
        if i < last {
            network.take_adjoints(&adjoints, &chunks[i + 1].0);
        }
        network.reverse((i == last).then_some(d_logits), i < last)?;
        network.add_grads(&mut grads);
    }
    Ok(grads)
}
