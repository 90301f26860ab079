//! What acts on single synapses beside the gradient: STDP mixed in by λ (eq. 4, sign corrected), and pruning (eqs. 9, 10).
//!
//! `Δw = −η [λ ĝ − (1−λ) Ω̂]`. `ĝ` is the optimiser's direction; `Ω̂` is the STDP term scaled by running root mean squares to
//! the size of `ĝ`, per pathway: without that λ would mean nothing, since the two differ by orders of magnitude. Both are root
//! mean squares over the living synapses, so that λ means the same however many are pruned.
//!
//! With a decay per head an eligibility trace belongs to a head, not to a synapse: a pruned synapse simply no longer reads
//! it. Its gradient, its direction and its weight are zero from then on.

use candle_core::Tensor;
use learner::{LayerValue, Result, Snapshot, performed, seeded_rng, with_f32, with_f32_mut};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::config::{BimConfig, Bounds, Mixing, Third};
use crate::kernels::prune;
use crate::kernels::stdp::{PairState, Window, accumulate};
use crate::network::{Group, Network};
use crate::third_factor::ThirdFactor;
use crate::time_differences::{self, Quantity, TimeDifferences};

/// Decay of the running mean squares per update: long against one chunk, short against training.
const RMS_DECAY: f64 = 0.99;

/// Which synapses of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `W_u`: from `LIF_in` to `LIF_out` of the same block; the first `D` rows of the stacked projection.
    Input,
    /// `W_out`: from `LIF_out` to the next block's `LIF_in`.
    Output,
}

/// One population of plastic synapses, `[post, pre]`.
pub struct Pathway {
    pub(crate) layer: usize,
    pub(crate) site: Site,
    /// Position of the parameter that holds the weights, in order of creation.
    pub(crate) parameter: usize,
    pub(crate) name: String,
    pub(crate) pre: usize,
    pub(crate) post: usize,
    /// A group of streams an entry.
    pub(crate) pairs: Vec<PairState<f32>>,
    pub(crate) omega: Vec<f32>,
    pub(crate) mask: Vec<f32>,
    pruned: usize,
    theta: f64,
    mean_square: [f64; 2],
    updates: u64,
}

impl Pathway {
    /// After the mask changed; every update asks for the number.
    fn count_pruned(&mut self) {
        self.pruned = self.mask.iter().filter(|m| **m == 0.0).count();
    }

    /// The last block's output has no next neuron: no pairs, gradient alone.
    pub(crate) fn pairs(&self, c: &BimConfig) -> bool {
        self.site == Site::Input || self.layer + 1 < c.layers.0
    }

    /// Name in diagnostics.
    fn label(&self) -> String {
        format!("layers.{}.{}", self.layer, if self.site == Site::Input { "input" } else { "output" })
    }

    /// What the direction is kept by and `Ω` added with, from this update's sums of squares of both: takes them into the running means.
    pub(crate) fn shares(&mut self, mixing: Mixing, lambda: f64, squares: [f64; 2]) -> (f32, f32) {
        let living = self.mask.len() - self.pruned;
        if living > 0 {
            self.updates += 1;
            for (mean, sum) in self.mean_square.iter_mut().zip(squares) {
                *mean = RMS_DECAY * *mean + (1.0 - RMS_DECAY) * sum / living as f64;
            }
        }
        let corrected = 1.0 - RMS_DECAY.powf(self.updates as f64);
        match mixing {
            Mixing::Normalised => {
                let rms = self.mean_square.map(|m| (m / corrected).sqrt());
                let ratio = if rms[1] > 0.0 { rms[0] / rms[1] } else { 0.0 };
                (lambda as f32, ((1.0 - lambda) * ratio) as f32)
            }
            Mixing::AsPrinted => (lambda as f32, (1.0 - lambda) as f32),
        }
    }

    /// Diagnostics of a mix, from the sums `|g|²`, `|Ω|²` and `g·Ω`.
    pub(crate) fn mixed(&self, [g2, o2, go]: [f64; 3]) -> [LayerValue; 3] {
        let cosine = go / (g2 * o2).sqrt().max(f64::MIN_POSITIVE);
        // the term is +Ω in the update and −ĝ: aligned means cos(−ĝ, Ω)
        [("norm_direction", g2.sqrt()), ("norm_stdp", o2.sqrt()), ("cosine_descent_stdp", -cosine)]
            .map(|(quantity, value)| LayerValue { layer: self.label(), quantity, value })
    }

    fn weights<'a>(&self, network: &'a Network<f32>) -> &'a Tensor {
        let block = &network.params.blocks[self.layer];
        if self.site == Site::Input { &block.projection } else { &block.out }
    }
}

/// All plastic synapses of a network.
pub struct Plasticity {
    config: BimConfig,
    window: Window<f32>,
    pub(crate) seed: u64,
    pub(crate) pathways: Vec<Pathway>,
    /// What scales STDP beside spikes, where something does.
    third: Option<ThirdFactor>,
    pub(crate) differences: TimeDifferences,
}

fn mixes(c: &BimConfig) -> bool {
    // as printed, the gradient's sign is wrong even without STDP
    c.lambda.0 < 1.0 || c.mixing == Mixing::AsPrinted
}

impl Plasticity {
    /// No spikes seen, nothing pruned.
    #[must_use]
    pub fn new(c: &BimConfig, network: &Network<f32>, seed: u64) -> Self {
        let names: Vec<&String> = network.names.iter().collect();
        let pathway = |layer: usize, site: Site| {
            let block = &network.names.blocks[layer];
            let (name, pre, post) = match site {
                Site::Input => (&block.projection, c.neurons(), c.channels.0),
                Site::Output => (&block.out, c.channels.0, c.width.0),
            };
            Pathway {
                layer,
                site,
                parameter: names.iter().position(|n| *n == name).unwrap_or_default(), // it is one of them
                name: name.clone(),
                pre,
                post,
                pairs: network.groups.iter().map(|g| PairState::new(g.streams, pre, post)).collect(),
                omega: vec![0.0; pre * post],
                mask: vec![1.0; pre * post],
                pruned: 0,
                theta: 0.0,
                mean_square: [0.0; 2],
                updates: 0,
            }
        };
        let pathways: Vec<Pathway> =
            (0..c.layers.0).flat_map(|l| [pathway(l, Site::Input), pathway(l, Site::Output)]).collect();
        let paired = pathways.iter().filter(|p| p.pairs(c)).map(|p| (p.label(), p.parameter, [p.post, p.pre]));
        let differences = TimeDifferences::new(&c.diagnose, paired);
        let third = (c.stdp.third_factor == Third::Error && mixes(c)).then(ThirdFactor::default);
        Self { config: c.clone(), window: Window::new(&c.stdp), seed, pathways, third, differences }
    }

    /// Takes over masks, thresholds, running statistics and what is measured, but no pairs of spikes, of a plasticity of the same shape.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn take_statistics(&mut self, from: &Self) {
        for (path, from) in self.pathways.iter_mut().zip(&from.pathways) {
            path.mask.clone_from(&from.mask);
            (path.pruned, path.theta) = (from.pruned, from.theta);
            (path.mean_square, path.updates) = (from.mean_square, from.updates);
        }
        self.differences.take_history(&from.differences);
    }

    /// Whether STDP takes part at all.
    #[must_use]
    pub fn mixes(&self) -> bool {
        mixes(&self.config)
    }

    /// Whether synapses are pruned.
    #[must_use]
    pub fn prunes(&self) -> bool {
        self.config.prune.target.0 > 0.0
    }

    /// Whether a pruning event follows so many updates.
    #[must_use]
    pub fn prune_due(&self, updates: u64) -> bool {
        let c = self.config.prune;
        self.prunes() && updates >= c.start && (updates - c.start).is_multiple_of(c.interval.0 as u64)
    }

    /// `λ` at an update: it falls from 1 over the warm-up.
    #[must_use]
    pub fn lambda(&self, update: u64) -> f64 {
        let share = (update as f64 / self.config.lambda_warmup.max(1) as f64).min(1.0);
        if self.config.lambda_warmup == 0 { self.config.lambda.0 } else { 1.0 - (1.0 - self.config.lambda.0) * share }
    }

    /// Forgets the spikes of one stream.
    pub fn reset(&mut self, network: &Network<f32>, stream: usize) {
        if let Some((i, group)) = network.groups.iter().enumerate().rfind(|(_, g)| g.first <= stream) {
            self.pathways.iter_mut().for_each(|p| p.pairs[i].reset(stream - group.first));
            self.differences.reset(i, stream - group.first);
        }
    }

    /// Collects the chunk's pairs of spikes.
    pub fn observe(&mut self, network: &Network<f32>, update: u64) {
        let steps = network.steps();
        self.keep_spikes(network, update);
        if !self.mixes() {
            return;
        }
        let (window, seed, config) = (&self.window, self.seed, &self.config);
        let plastic = self.pathways.par_iter_mut().filter(|p| p.pairs(config));
        plastic.for_each(|path| {
            let (layer, site) = (path.layer, path.site);
            for (pairs, group) in path.pairs.iter_mut().zip(&network.groups) {
                let (mut pre, post) = spikes(layer, site, group, config, steps);
                if config.stdp.shuffled {
                    pre = Spikes::Owned(shuffled(&pre, steps, group, |stream| {
                        shuffled_steps(steps, (seed, update), &path.name, stream)
                    }));
                }
                performed::during(&network.performed, || accumulate(window, &pre, &post, pairs, &mut path.omega));
            }
        });
    }

    /// For the measurement of time differences, where one is due.
    pub(crate) fn keep_spikes(&mut self, network: &Network<f32>, update: u64) {
        let (config, steps) = (&self.config, network.steps());
        let paired: Vec<&Pathway> = self.pathways.iter().filter(|p| p.pairs(config)).collect();
        self.differences.keep(update, |i| {
            let of_group = |group: &Group<f32>| {
                let (pre, post) = paired.get(i).map(|p| spikes(p.layer, p.site, group, config, steps))?;
                let (streams, pre, post) = (group.streams, pre.into_owned(), post.into_owned());
                Some(time_differences::Spikes { streams, pre, post, history: 0 })
            };
            network.groups.iter().filter_map(of_group).collect()
        });
    }

    /// Measures by time difference what descent along these gradients or directions, one for each parameter, would do to pairs
    /// of spikes, if the chunk last observed is to be measured. The STDP term is measured in [`Plasticity::mix`].
    pub fn measure(&mut self, quantity: Quantity, of_parameters: &[impl AsRef<[f32]>]) {
        self.differences.measure_descent(quantity, of_parameters);
    }

    /// What was measured of this update by time difference.
    pub fn measured(&mut self, directions: &[Vec<f32>]) -> Vec<LayerValue> {
        if self.mixes() {
            self.differences.measure_descent(Quantity::Mixed, directions);
        }
        self.differences.take()
    }

    /// Clears gradients, or directions, at pruned synapses: the optimiser's momentum must not bring them back either.
    pub fn mask<'a>(&self, values: impl Iterator<Item = &'a mut Vec<f32>>) {
        if self.prunes() {
            for (i, values) in values.enumerate() {
                for path in self.pathways.iter().filter(|p| p.parameter == i) {
                    values.iter_mut().zip(&path.mask).for_each(|(g, m)| *g *= m);
                }
            }
        }
    }

    /// Whether a third factor scales STDP.
    #[must_use]
    pub fn modulated(&self) -> bool {
        self.third.is_some()
    }

    /// Scales what pairs of spikes did since the last update by the third factor, if there is one: that of this loss. Pairs of
    /// chunks without a loss have waited for it.
    pub fn modulate(&mut self, loss: f64) -> Option<LayerValue> {
        let factor = self.third.as_mut()?.of(loss);
        let config = &self.config;
        for path in self.pathways.iter_mut().filter(|p| p.pairs(config)) {
            path.omega.iter_mut().for_each(|o| *o *= factor as f32);
        }
        Some(LayerValue { layer: "synapses".to_owned(), quantity: "third_factor", value: factor })
    }

    /// Mixes STDP into the optimiser's directions (eq. 4) and returns diagnostics if asked. `grads` are the raw gradients,
    /// which the rule as printed uses. Both come with zeros at pruned synapses ([`Plasticity::mask`]); STDP's term gets them
    /// here, so that root mean squares, norms and cosine are those of the living synapses.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn mix(
        &mut self,
        network: &Network<f32>,
        grads: &[&[f32]],
        directions: &mut [Vec<f32>],
        update: u64,
        diagnose: bool,
    ) -> Result<Vec<LayerValue>> {
        let mut values = Vec::new();
        if !self.mixes() {
            return Ok(values);
        }
        let lambda = self.lambda(update);
        let (mixing, stdp, prunes) = (self.config.mixing, self.config.stdp, self.prunes());
        let config = &self.config;
        for (i, path) in self.pathways.iter_mut().filter(|p| p.pairs(config)).enumerate() {
            let Pathway { omega, mask, .. } = path;
            if prunes {
                // what spikes did where no synapse is left says nothing about those that are
                omega.iter_mut().zip(&*mask).for_each(|(o, m)| *o *= m);
            }
            if !matches!(stdp.bounds, Bounds::None | Bounds::Hard) {
                let weights = if path.site == Site::Input {
                    &network.params.blocks[path.layer].projection
                } else {
                    &network.params.blocks[path.layer].out
                };
                with_f32(weights, |w| bound(stdp.bounds, stdp.limit.0, &w[..omega.len()], omega))?;
            }
            self.differences.measure(i, Quantity::Stdp, &path.omega, 1.0);
            // the pathway's synapses are the first rows of the parameter
            let direction = &directions[path.parameter][..path.omega.len()];
            let sums = moments(direction, &path.omega);
            let (keep, add) = path.shares(mixing, lambda, [sums[0], sums[1]]);
            let direction = &mut directions[path.parameter][..path.omega.len()];
            match mixing {
                Mixing::Normalised => {
                    for (g, &o) in direction.iter_mut().zip(&path.omega) {
                        *g = keep * *g - add * o;
                    }
                }
                Mixing::AsPrinted => {
                    let raw = grads[path.parameter];
                    for ((d, &g), &o) in direction.iter_mut().zip(raw).zip(&path.omega) {
                        *d = -(keep * g + add * o); // the optimiser subtracts, the printed rule adds
                    }
                }
            }
            path.omega.fill(0.0); // pairs of unsupervised chunks had added up to here
            if diagnose {
                values.extend(path.mixed(sums));
            }
        }
        Ok(values)
    }

    /// Cuts weights off at their bound, where bounds are hard.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn clip(&self, network: &Network<f32>) -> Result<()> {
        if !self.mixes() || self.config.stdp.bounds != Bounds::Hard {
            return Ok(());
        }
        for path in &self.pathways {
            let (n, limit) = (path.omega.len(), self.config.stdp.limit.0);
            with_f32_mut(path.weights(network), |w| {
                let w = &mut w[..n];
                let limit = (limit * rms(w)) as f32;
                for w in w.iter_mut() {
                    *w = w.clamp(-limit, limit);
                }
            })?;
        }
        Ok(())
    }

    /// One pruning event if one is due after `updates` updates.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn prune(&mut self, network: &Network<f32>, updates: u64) -> Result<()> {
        let c = self.config.prune;
        if !self.prune_due(updates) {
            return Ok(());
        }
        for path in &mut self.pathways {
            let mut rng = seeded_rng(self.seed, &format!("prune.{}.{updates}", path.name));
            let count = path.pre * path.post;
            let weights = path.weights(network).clone();
            let (mask, theta) = (&mut path.mask, &mut path.theta);
            with_f32_mut(&weights, |w| prune::event(&c, &mut w[..count], mask, theta, &mut rng))?;
            path.count_pruned();
        }
        Ok(())
    }

    /// Plastic synapses: those that pruning may remove.
    #[must_use]
    pub fn synapses(&self) -> u64 {
        self.pathways.iter().map(|p| p.mask.len() as u64).sum()
    }

    /// Of these, the ones whose spikes are paired.
    #[must_use]
    pub fn paired(&self) -> u64 {
        self.pathways.iter().filter(|p| p.pairs(&self.config)).map(|p| p.mask.len() as u64).sum()
    }

    /// Layer and place of the synapses whose spikes are paired; none where λ leaves nothing to pairing.
    pub fn paired_sites(&self) -> Vec<(usize, Site)> {
        let paired = self.pathways.iter().filter(|p| self.mixes() && p.pairs(&self.config));
        paired.map(|p| (p.layer, p.site)).collect()
    }

    /// Number of pruned synapses; `None` where pruning is off.
    #[must_use]
    pub fn pruned(&self) -> Option<usize> {
        self.prunes().then(|| self.pathways.iter().map(|p| p.pruned).sum())
    }

    /// Share of the plastic synapses that are pruned.
    #[must_use]
    pub fn pruned_share(&self) -> Option<f64> {
        let all: usize = self.pathways.iter().map(|p| p.mask.len()).sum();
        self.pruned().map(|n| n as f64 / all as f64)
    }

    /// Numbers that a stream carries for the pairing of spikes.
    pub(crate) fn pair_numbers(c: &BimConfig) -> usize {
        let layer = (c.neurons() + c.channels.0) + (c.channels.0 + c.width.0);
        if mixes(c) { layer * c.layers.0 } else { 0 }
    }

    /// Numbers carried for the pairing of spikes.
    #[must_use]
    pub fn carried_numbers(&self) -> usize {
        if !self.mixes() {
            return 0;
        }
        self.pathways.iter().flat_map(|p| &p.pairs).map(|p| p.pre.len() + p.post.len()).sum()
    }

    /// Writes pair traces, masks, thresholds and running statistics into a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let cpu = &candle_core::Device::Cpu;
        for path in &self.pathways {
            let name = format!("{}.plasticity", path.name);
            for (i, pair) in path.pairs.iter().enumerate() {
                snapshot.state.insert(format!("{name}.pre.{i}"), Tensor::new(&pair.pre[..], cpu)?);
                snapshot.state.insert(format!("{name}.post.{i}"), Tensor::new(&pair.post[..], cpu)?);
            }
            snapshot.optimizer.insert(format!("{name}.mask"), Tensor::new(&path.mask[..], cpu)?);
            snapshot.optimizer.insert(format!("{name}.omega"), Tensor::new(&path.omega[..], cpu)?);
            let scalars = [path.theta, path.mean_square[0], path.mean_square[1]];
            snapshot.optimizer.insert(format!("{name}.statistics"), Tensor::new(&scalars, cpu)?);
            snapshot.counters.insert(name, path.updates);
        }
        if let Some(third) = &self.third {
            third.save(snapshot)?;
        }
        self.differences.save(snapshot)
    }

    /// Restores what [`Plasticity::save`] wrote.
    ///
    /// # Errors
    /// If something is missing or has another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        for path in &mut self.pathways {
            let name = format!("{}.plasticity", path.name);
            for (i, pair) in path.pairs.iter_mut().enumerate() {
                for (part, into) in [("pre", &mut pair.pre), ("post", &mut pair.post)] {
                    let saved = snapshot.state(&format!("{name}.{part}.{i}"))?;
                    if saved.elem_count() != into.len() {
                        return Err(learner::Error::shape(
                            format!("{name}.{part}.{i}"),
                            into.len(),
                            saved.elem_count(),
                        ));
                    }
                    with_f32(saved, |v| into.copy_from_slice(v))?;
                }
            }
            let n = path.mask.len();
            with_f32(snapshot.moment(&format!("{name}.mask"), &[n])?, |v| path.mask.copy_from_slice(v))?;
            path.count_pruned();
            with_f32(snapshot.moment(&format!("{name}.omega"), &[n])?, |v| path.omega.copy_from_slice(v))?;
            let scalars = snapshot.moment(&format!("{name}.statistics"), &[3])?.to_vec1::<f64>()?;
            (path.theta, path.mean_square) = (scalars[0], [scalars[1], scalars[2]]);
            path.updates = snapshot.counter(&name)?;
        }
        if let Some(third) = &mut self.third {
            third.load(snapshot)?;
        }
        let streams: Vec<usize> =
            self.pathways.first().into_iter().flat_map(|p| p.pairs.iter().map(|pair| pair.pre.len() / p.pre)).collect();
        self.differences.load(&streams, snapshot)
    }
}

type Spikes<'a> = std::borrow::Cow<'a, [f32]>;

/// Pre- and postsynaptic spikes of the chunk last run at a pathway that has both.
fn spikes<'a>(
    layer: usize,
    site: Site,
    group: &'a Group<f32>,
    c: &BimConfig,
    steps: usize,
) -> (Spikes<'a>, Spikes<'a>) {
    let block = &group.blocks[layer];
    let s = &block.s[..steps * group.streams * c.channels.0];
    match site {
        Site::Input => (Spikes::Borrowed(block.spikes_in(steps)), Spikes::Borrowed(s)),
        Site::Output => (Spikes::Borrowed(s), onto_channels(group.blocks[layer + 1].spikes_in(steps), c)),
    }
}

/// The order of time in which a stream's presynaptic spikes of a chunk are paired in the control.
pub(crate) fn shuffled_steps(steps: usize, (seed, update): (u64, u64), pathway: &str, stream: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..steps).collect();
    order.shuffle(&mut seeded_rng(seed, &format!("shuffle.{pathway}.{stream}.{update}")));
    order
}

/// A chunk's spikes `[K, streams, J]` with the steps of each stream in an order of its own, which follows from the stream's
/// number among all: how streams are grouped does not matter.
fn shuffled(spikes: &[f32], steps: usize, group: &Group<f32>, order: impl Fn(usize) -> Vec<usize>) -> Vec<f32> {
    let row = spikes.len() / steps;
    let width = row / group.streams;
    let mut out = vec![0.0; spikes.len()];
    for b in 0..group.streams {
        for (to, from) in order(group.first + b).into_iter().enumerate() {
            let [to, from] = [to, from].map(|t| t * row + b * width);
            out[to..to + width].copy_from_slice(&spikes[from..from + width]);
        }
    }
    out
}

/// Spikes of a population of neurons per channel as one signed count per channel: OFF cells count negative.
fn onto_channels<'a>(spikes: &'a [f32], c: &BimConfig) -> Spikes<'a> {
    if c.population.0 == 1 {
        return Spikes::Borrowed(spikes);
    }
    let width = c.width.0;
    let sum = |row: &[f32], i: usize| -> f32 {
        row.iter().skip(i).step_by(width).enumerate().map(|(c, &s)| if c % 2 == 0 { s } else { -s }).sum()
    };
    spikes.chunks_exact(c.neurons()).flat_map(|row| (0..width).map(move |i| sum(row, i))).collect()
}

/// `|g|²`, `|Ω|²`, `g·Ω`.
fn moments(g: &[f32], omega: &[f32]) -> [f64; 3] {
    let mut sums = [0.0f64; 3];
    for (&g, &o) in g.iter().zip(omega) {
        let (g, o) = (f64::from(g), f64::from(o));
        sums[0] += g * g;
        sums[1] += o * o;
        sums[2] += g * o;
    }
    sums
}

fn rms(w: &[f32]) -> f64 {
    let alive = w.iter().filter(|w| **w != 0.0).count().max(1);
    (w.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / alive as f64).sqrt()
}

/// Scales STDP's changes by how far each weight is from its bounds. Weights that are all zero have no bound: they are far
/// from any.
fn bound(bounds: Bounds, limit: f64, w: &[f32], omega: &mut [f32]) {
    let largest = limit * rms(w);
    let inverse = if largest > 0.0 { (1.0 / largest).min(f64::from(f32::MAX)) as f32 } else { 0.0 };
    for (&w, o) in w.iter().zip(omega) {
        let x = (w * inverse).clamp(-1.0, 1.0);
        *o *= match bounds {
            Bounds::None | Bounds::Hard => 1.0,
            Bounds::Soft if *o > 0.0 => (1.0 - x) / 2.0,
            Bounds::Soft => f32::midpoint(1.0, x),
            Bounds::Symmetric => 1.0 - x * x,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Count, PruneConfig, Share, StdpConfig};
    use crate::rule::Membrane;
    use candle_core::{DType, Device};
    use learner::{InputKind, Io};

    #[test]
    fn bounds_stop_growth_at_the_limit() {
        let w = [2.0, -2.0, 0.0, 1.0];
        let limit = 2.0 / rms(&w); // so that w_max = 2
        for (bounds, up, down) in [
            (Bounds::None, [1.0; 4], [-1.0; 4]),
            (Bounds::Soft, [0.0, 1.0, 0.5, 0.25], [-1.0, 0.0, -0.5, -0.75]),
            (Bounds::Symmetric, [0.0, 0.0, 1.0, 0.75], [0.0, 0.0, -1.0, -0.75]),
        ] {
            for (sign, want) in [(1.0, up), (-1.0, down)] {
                let mut omega = [sign; 4];
                bound(bounds, limit, &w, &mut omega);
                for (got, want) in omega.iter().zip(want) {
                    assert!((got - want).abs() < 1e-6, "{bounds:?}: {omega:?}"); // f32 rounding
                }
            }
        }
    }

    fn network(c: &BimConfig, segment: usize) -> Result<Network<f32>> {
        let io = Io { input: InputKind::Frames { width: 3 }, outputs: 2, streams: 8, segment };
        let mut params = learner::Params::new(5, DType::F32, &Device::Cpu);
        Network::new(c, &io, Membrane::choose(c, 24), &mut params)
    }

    fn config() -> BimConfig {
        let stdp = StdpConfig { bounds: Bounds::None, ..StdpConfig::default() };
        let prune = PruneConfig { target: Share(0.5), ..PruneConfig::default() };
        let (width, channels, heads, layers) = (Count(8), Count(16), Count(2), Count(2));
        BimConfig { width, channels, heads, layers, lambda: Share(0.9), stdp, prune, ..BimConfig::default() }
    }

    /// STDP's share is a share among the synapses that are there: what spikes did at the others does not count, in the mix,
    /// in the running means or in the diagnostics.
    #[test]
    fn the_share_of_stdp_is_one_among_living_synapses() -> Result<()> {
        let c = config();
        let network = network(&c, 16)?;
        let mut plasticity = Plasticity::new(&c, &network, 1);
        let sign = |i: usize| if (i * 7 + i / 5).is_multiple_of(3) { 1.0f32 } else { -1.0 };
        for path in &mut plasticity.pathways {
            for i in 0..path.mask.len() {
                let alive = i % 4 == 0;
                path.mask[i] = f32::from(u8::from(alive));
                path.omega[i] = if alive { 3.0 * sign(i + 1) } else { 100.0 };
            }
            path.count_pruned();
        }
        let mut directions: Vec<Vec<f32>> =
            network.params.iter().map(|t| (0..t.elem_count()).map(|i| 0.2 * sign(i)).collect()).collect();
        plasticity.mask(directions.iter_mut());
        let grads: Vec<Vec<f32>> = directions.clone();
        let grads: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
        let rows = plasticity.mix(&network, &grads, &mut directions, 1_000, true)?;
        let path = &plasticity.pathways[0];
        let n = path.mask.len();
        for (i, got) in directions[path.parameter][..n].iter().enumerate() {
            let want = if i % 4 == 0 { 0.9 * 0.2 * sign(i) - 0.1 * 0.2 * sign(i + 1) } else { 0.0 };
            assert!((got - want).abs() < 1e-6, "{i}: {got} for {want}"); // f32 rounding
        }
        let row = |quantity: &str| {
            rows.iter().find(|r| r.layer == "layers.0.input" && r.quantity == quantity).map_or(f64::NAN, |r| r.value)
        };
        let alive = (n as f64 / 4.0).sqrt();
        assert!((row("norm_stdp") - 3.0 * alive).abs() < 1e-4, "{rows:?}");
        assert!((row("norm_direction") - 0.2 * alive).abs() < 1e-4, "{rows:?}");
        let product: f64 = (0..n).step_by(4).map(|i| f64::from(0.2 * sign(i) * 3.0 * sign(i + 1))).sum();
        let cosine = product / (0.2 * 3.0 * n as f64 / 4.0);
        assert!(cosine.abs() > 0.01, "{cosine}: the test would be empty");
        // descent goes against the direction
        assert!((row("cosine_descent_stdp") + cosine).abs() < 1e-6, "{rows:?}, but {cosine}");
        let [rms_direction, rms_stdp] = path.mean_square.map(|m| (m / (1.0 - RMS_DECAY)).sqrt());
        assert!((rms_direction - 0.2).abs() < 1e-6 && (rms_stdp - 3.0).abs() < 1e-6, "{rms_direction} {rms_stdp}");
        Ok(())
    }

    /// The control of shuffled spikes is another draw for every stream, not for every group of streams.
    #[test]
    fn shuffled_pairs_do_not_depend_on_the_grouping() -> Result<()> {
        let mut c = config();
        c.stdp.shuffled = true;
        let omega = |segment: usize| -> Result<(usize, Vec<f32>)> {
            let mut network = network(&c, segment)?;
            let x: Vec<f32> = (0..8 * 16 * 3).map(|i| ((i * 37 % 101) as f32 - 50.0) / 20.0).collect();
            network.forward(&Tensor::from_vec(x, (8, 16, 3), &Device::Cpu)?)?;
            let mut plasticity = Plasticity::new(&c, &network, 1);
            plasticity.observe(&network, 0);
            Ok((network.groups.len(), plasticity.pathways[0].omega.clone()))
        };
        let ((one, want), (eight, got)) = (omega(16)?, omega(128)?);
        assert_eq!((one, eight), (1, 8));
        assert!(want.iter().any(|o| *o != 0.0), "silent: the test would be empty");
        let close = |(x, y): (&f32, &f32)| (x - y).abs() < 1e-4 * (1.0 + y.abs()); // other sums of f32
        assert!(got.iter().zip(&want).all(close));
        Ok(())
    }

    /// Runs a chunk and takes note of its spikes, with streams in groups of three, three and two.
    fn observed(c: &BimConfig) -> Result<(Network<f32>, Plasticity)> {
        let mut network = network(c, 40)?;
        let x: Vec<f32> = (0..8 * 16 * 3).map(|i| ((i * 37 % 101) as f32 - 50.0) / 20.0).collect();
        network.forward(&Tensor::from_vec(x, (8, 16, 3), &Device::Cpu)?)?;
        let mut plasticity = Plasticity::new(c, &network, 1);
        plasticity.observe(&network, 0);
        assert_eq!(network.groups.iter().map(|g| g.streams).collect::<Vec<_>>(), [3, 3, 2]);
        Ok((network, plasticity))
    }

    fn measuring() -> BimConfig {
        let diagnose = crate::config::DiagnoseConfig {
            time_differences: crate::config::Lag(4),
            time_differences_every: Count(1),
            ..crate::config::DiagnoseConfig::default()
        };
        BimConfig { diagnose, ..config() }
    }

    /// A stream that begins anew loses its own spikes, in the pairs and in the measurement, and no other stream's.
    #[test]
    fn a_stream_of_a_later_group_is_forgotten_alone() -> Result<()> {
        let (network, mut plasticity) = observed(&measuring())?;
        let saved = |plasticity: &Plasticity| -> Result<std::collections::BTreeMap<String, Vec<f32>>> {
            let mut snapshot = Snapshot::default();
            plasticity.save(&mut snapshot)?;
            snapshot.state.iter().map(|(name, t)| Ok((name.clone(), t.to_vec1::<f32>()?))).collect()
        };
        let before = saved(&plasticity)?;
        plasticity.reset(&network, 7);
        let after = saved(&plasticity)?;
        // the second of two streams in the last group; every pathway has eight neurons at one end and sixteen at the other
        for (name, before) in &before {
            let mine = name.ends_with(".2") || name.contains(".2.");
            let (at, width) = match (name.contains(".input"), name.contains("pre"), name.starts_with("time")) {
                (false, _, true) if !name.contains("output") => panic!("{name} is new"),
                (input, pre, _) => (1, if (input || name.contains("projection")) == pre { 8 } else { 16 }),
            };
            let want: Vec<f32> =
                before.iter().enumerate().map(|(i, &s)| if mine && i / width % 2 == at { 0.0 } else { s }).collect();
            assert_eq!(after[name], want, "{name}");
        }
        assert_ne!(before, after, "silent: the test would be empty");
        assert!(before.keys().any(|name| name.starts_with("time_differences")), "nothing was measured");
        Ok(())
    }

    /// A checkpoint gives every group its own spikes back.
    #[test]
    fn groups_of_streams_are_restored() -> Result<()> {
        let c = measuring();
        let (network, plasticity) = observed(&c)?;
        let (mut saved, mut again) = (Snapshot::default(), Snapshot::default());
        plasticity.save(&mut saved)?;
        let mut restored = Plasticity::new(&c, &network, 1);
        restored.load(&saved)?;
        restored.save(&mut again)?;
        assert_eq!(saved.state.keys().collect::<Vec<_>>(), again.state.keys().collect::<Vec<_>>());
        for (name, t) in &saved.state {
            assert_eq!(t.to_vec1::<f32>()?, again.state[name].to_vec1::<f32>()?, "{name}");
        }
        Ok(())
    }

    /// Streams are drawn for by their number among all.
    #[test]
    fn every_stream_is_shuffled_by_its_own_draws() -> Result<()> {
        let (network, _) = observed(&config())?;
        let asked = std::cell::RefCell::new(Vec::new());
        for group in &network.groups {
            let spikes = group.blocks[0].spikes_in(16);
            shuffled(spikes, 16, group, |stream| {
                asked.borrow_mut().push(stream);
                shuffled_steps(16, (1, 0), "", stream)
            });
        }
        assert_eq!(asked.into_inner(), (0..8).collect::<Vec<_>>());
        Ok(())
    }

    /// Where spikes have done nothing yet, STDP has no share to take; what is left of the gradient is λ of it.
    #[test]
    fn silence_leaves_the_gradient_its_share() -> Result<()> {
        let c = config();
        let network = network(&c, 16)?;
        let mut plasticity = Plasticity::new(&c, &network, 1);
        let mut directions: Vec<Vec<f32>> = network.params.iter().map(|t| vec![0.5; t.elem_count()]).collect();
        let grads = directions.clone();
        let grads: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
        plasticity.mix(&network, &grads, &mut directions, 1_000, false)?;
        let path = &plasticity.pathways[0];
        assert!(directions[path.parameter][..path.mask.len()].iter().all(|d| (d - 0.45).abs() < 1e-6));
        Ok(())
    }

    /// No synapse, no mean: what is known of the pathway waits for synapses to grow back.
    #[test]
    fn an_empty_pathway_keeps_its_running_means() -> Result<()> {
        let c = config();
        let network = network(&c, 16)?;
        let mut plasticity = Plasticity::new(&c, &network, 1);
        for path in &mut plasticity.pathways {
            path.mask.fill(0.0);
            path.count_pruned();
        }
        let mut directions = network.params.iter().map(|t| vec![0.0; t.elem_count()]).collect::<Vec<Vec<f32>>>();
        let grads = directions.clone();
        let grads: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
        plasticity.mix(&network, &grads, &mut directions, 1_000, false)?;
        assert!(plasticity.pathways.iter().all(|p| p.mean_square.iter().all(|m| m.is_finite())));
        Ok(())
    }

    #[test]
    fn schedules_are_what_the_configuration_says() -> Result<()> {
        let prune = PruneConfig { target: Share(0.5), start: 4, interval: Count(3), ..PruneConfig::default() };
        let c = BimConfig { lambda_warmup: 4, prune, ..config() };
        let network = network(&c, 16)?;
        let of = |c: &BimConfig| Plasticity::new(c, &network, 1);
        let plasticity = of(&c);
        let due: Vec<u64> = (0..12).filter(|updates| plasticity.prune_due(*updates)).collect();
        assert_eq!(due, [4, 7, 10]);
        for (update, want) in [(0, 1.0), (1, 0.975), (2, 0.95), (4, 0.9), (9, 0.9)] {
            assert!((plasticity.lambda(update) - want).abs() < 1e-12, "{update}: {}", plasticity.lambda(update));
        }
        assert!((of(&BimConfig { lambda_warmup: 0, ..c.clone() }).lambda(0) - 0.9).abs() < 1e-12);
        let never = BimConfig { prune: PruneConfig { target: Share(0.0), ..prune }, ..c };
        assert!((0..12).all(|updates| !of(&never).prune_due(updates)));
        Ok(())
    }

    /// Both pathways of two layers; the last leads to no neuron.
    #[test]
    fn synapses_are_counted() -> Result<()> {
        let c = config();
        let mut plasticity = Plasticity::new(&c, &network(&c, 16)?, 1);
        assert_eq!((plasticity.synapses(), plasticity.paired()), (4 * 128, 3 * 128));
        let sites = [(0, Site::Input), (0, Site::Output), (1, Site::Input)];
        assert_eq!(plasticity.paired_sites(), sites);
        plasticity.pathways[1].mask[..64].fill(0.0);
        plasticity.pathways[1].count_pruned();
        assert_eq!((plasticity.pruned(), plasticity.pruned_share()), (Some(64), Some(0.125)));
        Ok(())
    }

    /// One decaying sum for every neuron at both ends of every pathway and every stream; nothing where nothing is paired.
    #[test]
    fn numbers_carried_for_pairs_are_counted() -> Result<()> {
        let carried =
            |c: &BimConfig| -> Result<usize> { Ok(Plasticity::new(c, &network(c, 40)?, 1).carried_numbers()) };
        assert_eq!(carried(&config())?, 8 * 2 * 2 * (8 + 16));
        assert_eq!(carried(&BimConfig { lambda: Share(1.0), ..config() })?, 0);
        Ok(())
    }

    /// A pathway without a weight has no scale: bounds leave its term as it is.
    #[test]
    fn bounds_of_nothing_are_finite() {
        for bounds in [Bounds::None, Bounds::Hard, Bounds::Soft, Bounds::Symmetric] {
            let mut omega = [1.0, -1.0];
            bound(bounds, 4.0, &[0.0, 0.0], &mut omega);
            assert!(omega.iter().all(|o| o.is_finite()), "{bounds:?}: {omega:?}");
        }
    }
}
