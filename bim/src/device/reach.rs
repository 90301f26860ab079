//! Truncated backpropagation that reaches further back than its chunk, on a device: what [`crate::reach`] does. The last chunks run over
//! again, each in a network of its own on the present weights, and the last chunk's loss goes back through them all.

use std::collections::VecDeque;

use candle_core::Tensor;
use learner::operations::{Tally, Work};
use learner::{Error, Result};

use super::host;
use super::machine::{Machine, marks};
use super::network::Network;
use super::scratch::Adjoints;
use crate::config::BimConfig;
use crate::network::Network as Host;
use crate::operations;
use crate::rule::Membrane;

/// A chunk that was run, as the network met it.
pub(super) struct Chunk<M: Machine> {
    /// What the network carried before it.
    pub state: Vec<M::Buffer>,
    /// The streams that began anew with it.
    pub starts: Vec<bool>,
    pub input: Tensor,
}

/// The last chunks, and the networks that run over them again.
pub(super) struct Reach<M: Machine> {
    windows: Vec<Network<M>>,
    /// Of each layer.
    adjoints: Vec<Adjoints<M>>,
    pub kept: VecDeque<Chunk<M>>,
}

impl<M: Machine> Reach<M> {
    /// Nothing run yet; `None` where credit stays within the chunk.
    pub fn new(config: &BimConfig, network: &Network<M>, host: &Host<f32>) -> Result<Option<Self>> {
        let Some(chunks) = crate::reach::chunks(config, network.io.segment) else { return Ok(None) };
        let (machine, io) = (&network.machine, network.io);
        let window =
            |_| Network::new(machine, config, io, Membrane::Lag(0), &host.params, network.weights.clone(), false);
        Ok(Some(Self {
            windows: (0..chunks).map(window).collect::<Result<_>>()?,
            adjoints: network.blocks.iter().map(|b| Adjoints::new(machine, &b.sizes)).collect::<Result<_>>()?,
            kept: VecDeque::new(),
        }))
    }

    /// Before a chunk is run. `network` has the state before the chunk, streams that begin anew with it at rest.
    pub fn before(&mut self, network: &Network<M>, starts: &[bool], input: &Tensor) -> Result<()> {
        if self.kept.len() == self.windows.len() {
            self.kept.pop_front();
        }
        self.kept.push_back(Chunk { state: network.carried_state()?, starts: starts.to_vec(), input: input.clone() });
        Ok(())
    }

    /// Overwrites the gradients `g` with those of the last chunk's loss through all chunks that are kept, with what `network` goes back
    /// with. Where a `tally` is given, it gets the passes over them, counted on the host.
    pub fn reverse(
        &mut self,
        network: &Network<M>,
        (d_logits, g): (&M::Buffer, &M::Buffer),
        config: &BimConfig,
        (host, mut tally): (&mut Host<f32>, Option<&mut Tally>),
    ) -> Result<()> {
        let Some(first) = self.kept.front() else {
            return Err(Error::shape("learn", "a chunk that was run", "none"));
        };
        if let Some(tally) = &mut tally {
            tally.counts.reverse = Work::default(); // the chunk is gone back through with the others
        }
        for (i, chunk) in self.kept.iter().enumerate() {
            let (before, now) = self.windows.split_at_mut(i);
            let Some(window) = now.first_mut() else { continue };
            match before.last() {
                None => window.restore_state(&first.state)?,
                Some(before) => window.continue_from(before)?,
            }
            window.reset(&chunk.starts)?;
            window.forward(&chunk.input)?;
            if let Some(tally) = &mut tally {
                host::download_activations(window, host)?;
                let counts = operations::count(config, host, &[], true)?.counts;
                tally.counts.passes += counts.forward;
                tally.counts.reverse += counts.reverse;
            }
        }
        network.clear(g)?;
        let last = self.kept.len() - 1;
        for (i, window) in self.windows.iter().enumerate().take(last + 1).rev() {
            if let Some(later) = self.kept.get(i + 1).filter(|later| later.starts.contains(&true)) {
                let marks = marks(&network.machine, &later.starts)?;
                for (adjoints, block) in self.adjoints.iter().zip(&window.blocks) {
                    adjoints.cut(&network.machine, &block.sizes, &marks)?;
                }
            }
            let loss = (i == last).then_some(d_logits);
            window.add_grads(network.back()?, loss, g, Some((&self.adjoints, i < last)))?;
        }
        network.unfold(g)
    }
}
