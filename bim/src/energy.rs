//! The price of spikes as a controller: `energy_target` in place of a fixed `penalty`.
//!
//! **What is held to the target** is a share: how many accumulates the synapses behind a population of neurons make, over the
//! multiply–accumulates that the same synapses would make of numbers. Both are counts that the network knows of itself, so the target
//! needs no table of prices, and it means the same for any width, chunk or number of streams. Times the number of synapses it is
//! accumulates per token; times the ratio of two prices, AC to MAC, it is the synaptic energy over that of the same network without spikes. With
//! all synapses alive it is the mean number of spikes per neuron and step; with `spikes: weighted` a spike is a signed digit.
//!
//! ```text
//! share = Σ_t Σ_j spikes_tj · fan_out_j  /  Σ_t Σ_j all_j            fan_out: synapses that are alive, all: with the pruned ones
//! price ← max(0, price + rate · clip(share / target − 1, −1, 1))     once per update, in the unit of `penalty`
//! ```
//!
//! Every population (a layer's presynaptic neurons, its postsynaptic ones, those of the read-out) has a price of its own, from 0. A price for all
//! would silence the layers that gain least from a spike. When each population meets the target, so does the network, whose share is the mean of
//! theirs weighed by fan-out. A population that stays below the target on its own keeps a price of 0: the target is a ceiling, and firing is
//! never paid for.

use candle_core::{Device, Tensor};
use learner::{LayerValue, Result, Snapshot};

use crate::config::{BimConfig, DeltaInput, NeuronConfig, SpikeCode};
use crate::network::Network;
use crate::plasticity::{Plasticity, Site};

/// Name in a snapshot.
const PRICES: &str = "energy.prices";

/// Which neurons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Population {
    /// Presynaptic ones of a layer.
    Pre(usize),
    /// Postsynaptic ones of a layer.
    Post(usize),
    /// In front of the output layer.
    Readout,
}

impl Population {
    fn name(self) -> String {
        match self {
            Self::Pre(l) => format!("layers.{l}.pre"),
            Self::Post(l) => format!("layers.{l}.post"),
            Self::Readout => "readout".to_owned(),
        }
    }
}

/// A population and its price.
#[derive(Clone, Debug)]
struct Priced {
    who: Population,
    /// Living synapses behind each neuron.
    fan_out: Vec<u64>,
    /// Synapses behind all of them, pruned ones with them.
    all: u64,
    /// In the unit of `penalty`.
    price: f64,
}

/// Prices that are moved until the target is met.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    config: BimConfig,
    populations: Vec<Priced>,
}

/// Next price, from the present one and the measured share.
pub(crate) fn next_price(price: f64, share: f64, target: f64, rate: f64) -> f64 {
    (price + rate * (share / target - 1.0).clamp(-1.0, 1.0)).max(0.0)
}

/// Spikes in which a level is sent.
fn spikes(neuron: &NeuronConfig) -> fn(f32) -> u64 {
    match neuron.spikes {
        SpikeCode::Burst => |level| level.abs() as u64,
        SpikeCode::Weighted => |level| u64::from(learner::operations::digits(level.abs() as u32)),
    }
}

impl Controller {
    /// Every price 0; `None` where there is no target.
    pub fn new(c: &BimConfig, network: &Network<f32>, plasticity: &Plasticity) -> Option<Self> {
        let [pre, post, readout] = c.controlled();
        let populations = (0..c.layers.0)
            .flat_map(|l| [pre.then_some(Population::Pre(l)), post.then_some(Population::Post(l))])
            .chain([readout.then_some(Population::Readout)])
            .flatten();
        let delta = if c.delta_input == DeltaInput::Full { c.heads.0 } else { 1 };
        let priced = |who: Population| {
            let (neurons, each) = match who {
                Population::Pre(_) => {
                    let gate = if c.gate { c.width.0 } else { 0 };
                    (c.neurons(), c.channels.0 + 2 * c.state.0 + delta + gate)
                }
                Population::Post(_) => (c.channels.0, c.width.0),
                Population::Readout => (c.width.0, network.io().outputs),
            };
            let each = each as u64;
            Priced { who, fan_out: vec![each; neurons], all: each * neurons as u64, price: 0.0 }
        };
        let mut controller = Self { config: c.clone(), populations: populations.map(priced).collect() };
        controller.count_synapses(plasticity);
        (!controller.populations.is_empty()).then_some(controller)
    }

    /// After synapses were pruned, or grew back.
    pub fn count_synapses(&mut self, plasticity: &Plasticity) {
        if !plasticity.prunes() {
            return;
        }
        for Priced { who, fan_out, all, .. } in &mut self.populations {
            let (layer, site) = match *who {
                Population::Pre(l) => (l, Site::Input),
                Population::Post(l) => (l, Site::Output),
                Population::Readout => continue,
            };
            let neurons = fan_out.len() as u64;
            fan_out.fill(*all / neurons);
            for path in plasticity.pathways.iter().filter(|p| (p.layer, p.site) == (layer, site)) {
                for row in path.mask.chunks_exact(path.pre) {
                    fan_out.iter_mut().zip(row).for_each(|(n, alive)| *n -= u64::from(*alive == 0.0));
                }
            }
        }
    }

    /// Share of each population in the chunk last run. Sums of whole numbers: no order of them gives another.
    pub fn measure(&self, network: &Network<f32>) -> Vec<f64> {
        let (c, steps) = (&self.config, network.steps());
        let readout = c.readout.neuron();
        let share = |of: &Priced| {
            let count = spikes(match of.who {
                Population::Pre(_) => &c.pre,
                Population::Post(_) => &c.post,
                Population::Readout => &readout,
            });
            let levels = network.groups.iter().map(|group| match of.who {
                Population::Pre(l) => group.blocks[l].spikes_in(steps),
                Population::Post(l) => group.blocks[l].spikes_out(steps),
                Population::Readout => group.head_inputs(steps),
            });
            let row = |row: &[f32]| row.iter().zip(&of.fan_out).map(|(s, n)| count(*s) * n).sum::<u64>();
            let accumulates: u64 = levels.flat_map(|s| s.chunks_exact(of.fan_out.len())).map(row).sum();
            accumulates as f64 / (of.all * (steps * network.io().streams) as u64) as f64
        };
        self.populations.iter().map(share).collect()
    }

    /// Moves every price by what was measured.
    pub fn steer(&mut self, shares: &[f64]) {
        let (target, rate) = (self.config.energy_target.0, self.config.energy_rate.0);
        for (of, share) in self.populations.iter_mut().zip(shares) {
            of.price = next_price(of.price, *share, target, rate);
        }
    }

    /// The prices, by population.
    pub fn prices(&self) -> impl Iterator<Item = (Population, f64)> {
        self.populations.iter().map(|of| (of.who, of.price))
    }

    /// For diagnostics.
    pub fn values(&self, shares: &[f64]) -> Vec<LayerValue> {
        let values = self.populations.iter().zip(shares).flat_map(|(of, &share)| {
            [("energy_share", share), ("price", of.price)].map(|(quantity, value)| LayerValue {
                layer: of.who.name(),
                quantity,
                value,
            })
        });
        values.collect()
    }

    /// Adds the prices to a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let prices: Vec<f64> = self.populations.iter().map(|of| of.price).collect();
        snapshot.optimizer.insert(PRICES.to_owned(), Tensor::new(&prices[..], &Device::Cpu)?);
        Ok(())
    }

    /// Restores what [`Controller::save`] wrote; `plasticity` is restored already.
    ///
    /// # Errors
    /// If it is missing or has another length.
    pub fn load(&mut self, plasticity: &Plasticity, snapshot: &Snapshot) -> Result<()> {
        let prices = snapshot.moment(PRICES, &[self.populations.len()])?.to_vec1::<f64>()?;
        self.populations.iter_mut().zip(prices).for_each(|(of, price)| of.price = price);
        self.count_synapses(plasticity);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
