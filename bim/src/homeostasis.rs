//! Homeostasis (paper §5.3): intrinsic plasticity holds each neuron's firing rate to a target by its threshold.
//!
//! ```text
//! r̄ ← r + decay · (r̄ − r)                      r: mean level of the neuron in the chunk, over steps and streams; r̄ begins as the first r
//! ln ϑ ← ln ϑ + rate · (r̄ − target)            once per update, never further than 1024 times from where it began
//! ```
//!
//! A threshold is a number of the model, like a weight: it is stored with them (`layers.l.pre.threshold`, as its logarithm) and evaluation uses
//! it. No gradient moves it, and it is no learned step: a level of `k` still arrives as `k`, so that a higher threshold makes a neuron
//! quieter and what it sends is worth as much as before. The membrane's reset takes off the threshold that is in force.
//!
//! **Credit.** Thresholds stand still inside a chunk and move where weights move, so the chunk's gradient and the traces are those of a network
//! whose neurons have these thresholds: as exact as with one threshold for all. What traces hold from before is of older
//! thresholds, as it is of older weights. Only a gradient through the reset would need each neuron's threshold in the traces of the membrane:
//! `attached_reset` is refused.

use candle_core::{Device, Tensor};
use learner::{LayerValue, Result, Snapshot, with_f32, with_f32_mut};

use crate::config::{BimConfig, HomeostasisConfig};
use crate::network::Network;

/// Most by which a threshold grows or shrinks: a neuron that nothing drives would lower its own for ever.
const RANGE: f64 = 1024.0;
/// Names in a snapshot.
const RATES: &str = "homeostasis.rates";

/// A layer's presynaptic or postsynaptic neurons.
#[derive(Clone, Debug)]
struct Held {
    layer: usize,
    post: bool,
    target: f64,
    /// Logarithm of the threshold that they began with.
    first: f64,
    /// Running rate of each, in spikes per step.
    rates: Vec<f64>,
}

/// Running rates of all neurons whose rate is held to a target.
#[derive(Clone, Debug)]
pub(crate) struct Homeostasis {
    config: HomeostasisConfig,
    held: Vec<Held>,
    /// Whether rates were measured already.
    begun: bool,
}

/// Next logarithm of a threshold, from the present one and the running rate.
pub(crate) fn next_threshold(logarithm: f64, first: f64, mean: f64, target: f64, rate: f64) -> f64 {
    (logarithm + rate * (mean - target)).clamp(first - RANGE.ln(), first + RANGE.ln())
}

impl Homeostasis {
    /// Nothing measured; `None` where no rate is held.
    pub fn new(c: &BimConfig) -> Option<Self> {
        let ends = [(false, c.homeostasis.pre, &c.pre, c.neurons()), (true, c.homeostasis.post, &c.post, c.channels.0)];
        let held = (0..c.layers.0).flat_map(|layer| {
            ends.iter().filter(|(_, target, ..)| target.0 > 0.0).map(move |&(post, target, neuron, count)| Held {
                layer,
                post,
                target: target.0,
                first: neuron.threshold.0.ln(),
                rates: vec![0.0; count],
            })
        });
        let held: Vec<Held> = held.collect();
        (!held.is_empty()).then_some(Self { config: c.homeostasis, held, begun: false })
    }

    /// Takes the chunk last run into the running rates. Levels are whole numbers, so no order of their sum gives another.
    pub fn measure(&mut self, network: &Network<f32>) {
        let steps = network.steps();
        let rows = (steps * network.io().streams) as f64;
        let decay = if self.begun { self.config.decay.0 } else { 0.0 };
        for Held { layer, post, rates, .. } in &mut self.held {
            let mut sums = vec![0u64; rates.len()];
            for block in network.groups.iter().map(|group| &group.blocks[*layer]) {
                let levels = if *post { block.spikes_out(steps) } else { block.spikes_in(steps) };
                for row in levels.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(row).for_each(|(sum, level)| *sum += level.abs() as u64);
                }
            }
            for (mean, sum) in rates.iter_mut().zip(sums) {
                let rate = sum as f64 / rows;
                *mean = rate + decay * (*mean - rate);
            }
        }
        self.begun = true;
    }

    /// Moves every threshold.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn adapt(&self, network: &Network<f32>) -> Result<()> {
        for held in &self.held {
            let Some(thresholds) = Self::tensor(network, held) else { continue };
            with_f32_mut(thresholds, |thresholds| {
                for (t, mean) in thresholds.iter_mut().zip(&held.rates) {
                    *t = next_threshold(f64::from(*t), held.first, *mean, held.target, self.config.rate.0) as f32;
                }
            })?;
        }
        Ok(())
    }

    fn tensor<'a>(network: &'a Network<f32>, held: &Held) -> Option<&'a Tensor> {
        let block = &network.params.blocks[held.layer];
        if held.post { block.post_step.as_ref() } else { block.pre_step.as_ref() }
    }

    /// Numbers of neurons whose rate is held.
    pub fn neurons(&self) -> u64 {
        self.held.iter().map(|held| held.rates.len() as u64).sum()
    }

    /// For diagnostics: of each population the mean distance of running rates from the target, and the mean threshold.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn values(&self, network: &Network<f32>) -> Result<Vec<LayerValue>> {
        let mut values = Vec::new();
        for held in &self.held {
            let layer = format!("layers.{}.{}", held.layer, if held.post { "post" } else { "pre" });
            let n = held.rates.len() as f64;
            let distance = held.rates.iter().map(|r| (r - held.target).abs()).sum::<f64>() / n;
            let Some(thresholds) = Self::tensor(network, held) else { continue };
            let threshold = with_f32(thresholds, |t| t.iter().map(|t| f64::from(*t).exp()).sum::<f64>() / n)?;
            for (quantity, value) in [("rate_distance", distance), ("threshold", threshold)] {
                values.push(LayerValue { layer: layer.clone(), quantity, value });
            }
        }
        Ok(values)
    }

    /// Adds the running rates to a snapshot. Thresholds are among the weights.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let rates: Vec<f64> = self.held.iter().flat_map(|held| held.rates.iter().copied()).collect();
        snapshot.optimizer.insert(RATES.to_owned(), Tensor::new(&rates[..], &Device::Cpu)?);
        snapshot.counters.insert(RATES.to_owned(), u64::from(self.begun));
        Ok(())
    }

    /// Restores what [`Homeostasis::save`] wrote.
    ///
    /// # Errors
    /// If it is missing or has another length.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        let rates = snapshot.moment(RATES, &[self.neurons() as usize])?.to_vec1::<f64>()?;
        self.begun = snapshot.counter(RATES)? > 0;
        self.held.iter_mut().flat_map(|held| &mut held.rates).zip(rates).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
