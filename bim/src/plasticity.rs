//! What acts on single synapses beside the gradient: STDP mixed in by λ (eq. 4, sign corrected), and pruning (eqs. 9, 10).
//!
//! `Δw = −η [λ ĝ − (1−λ) Ω̂]`. `ĝ` is the optimiser's direction; `Ω̂` is the STDP term scaled by running root mean squares to
//! the size of `ĝ`, per pathway: without that λ would mean nothing, since the two differ by orders of magnitude.

use candle_core::Tensor;
use learner::{LayerValue, Result, Snapshot, seeded_rng, with_f32, with_f32_mut};

use crate::config::BimConfig;
use crate::kernels::prune;
use crate::kernels::stdp::{PairState, Window, accumulate};
use crate::network::{Network, Trail};
use crate::ops::{lock, with_slice};

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
    layer: usize,
    site: Site,
    /// Name of the parameter that holds the weights.
    pub parameter: String,
    pre: usize,
    post: usize,
    pairs: Vec<PairState<f32>>,
    omega: Vec<f32>,
    mask: Vec<f32>,
    theta: f64,
    mean_square: [f64; 2],
    updates: u64,
}

/// All plastic synapses of a network.
pub struct Plasticity {
    config: BimConfig,
    window: Window<f32>,
    seed: u64,
    /// The pathways in order of layers.
    pub pathways: Vec<Pathway>,
}

impl Plasticity {
    /// No spikes seen, nothing pruned.
    #[must_use]
    pub fn new(c: &BimConfig, streams: usize, seed: u64) -> Self {
        let (j, d) = (c.width.0, c.channels.0);
        let pathway = |layer: usize, site: Site| {
            let (name, pre, post) = match site {
                Site::Input => ("projection", j, d),
                Site::Output => ("out", d, j),
            };
            Pathway {
                layer,
                site,
                parameter: format!("layers.{layer}.{name}"),
                pre,
                post,
                pairs: vec![PairState::new(pre, post); streams],
                omega: vec![0.0; pre * post],
                mask: vec![1.0; pre * post],
                theta: 0.0,
                mean_square: [0.0; 2],
                updates: 0,
            }
        };
        let pathways = (0..c.layers.0).flat_map(|l| [pathway(l, Site::Input), pathway(l, Site::Output)]).collect();
        Self { config: c.clone(), window: Window::new(&c.stdp), seed, pathways }
    }

    /// Whether STDP takes part at all.
    #[must_use]
    pub fn mixes(&self) -> bool {
        self.config.lambda.0 < 1.0
    }

    fn prunes(&self) -> bool {
        self.config.prune.target.0 > 0.0
    }

    /// Forgets the spikes of one stream.
    pub fn reset(&mut self, stream: usize) {
        self.pathways.iter_mut().for_each(|p| p.pairs[stream].reset());
    }

    /// Collects the chunk's pairs of spikes.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn observe(&mut self, trails: &[Trail<f32>]) -> Result<()> {
        if !self.mixes() {
            return Ok(());
        }
        let taps = self.config.delays.0;
        let j = self.config.width.0;
        for path in &mut self.pathways {
            let trail = &trails[path.layer];
            let (window, pairs, omega) = (&self.window, &mut path.pairs, &mut path.omega);
            // the last block's output has no next neuron: no pairs, gradient alone
            let next = match path.site {
                Site::Input => trail,
                Site::Output => match trails.get(path.layer + 1) {
                    Some(next) => next,
                    None => continue,
                },
            };
            let tape = lock(&next.tape);
            with_slice(&trail.spikes, |spikes: &[f32]| {
                let per_stream = spikes.len() / pairs.len();
                for ((state, s), encode) in pairs.iter_mut().zip(spikes.chunks(per_stream)).zip(&tape.encode) {
                    let s_in = encode.spikes(j, taps);
                    match path.site {
                        Site::Input => accumulate(window, s_in, s, state, omega),
                        Site::Output => accumulate(window, s, s_in, state, omega),
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Clears gradients, or directions, at pruned synapses: the optimiser's momentum must not bring them back either.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn mask(&self, grads: &[Tensor], index_of: impl Fn(&str) -> Option<usize>) -> Result<()> {
        if !self.prunes() {
            return Ok(());
        }
        for path in &self.pathways {
            if let Some(i) = index_of(&path.parameter) {
                with_f32_mut(&grads[i], |g| g.iter_mut().zip(&path.mask).for_each(|(g, m)| *g *= m))?;
            }
        }
        Ok(())
    }

    /// Mixes STDP into the optimiser's directions (eq. 4) and returns diagnostics if asked.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn mix(
        &mut self,
        directions: &[Tensor],
        index_of: impl Fn(&str) -> Option<usize>,
        diagnose: bool,
    ) -> Result<Vec<LayerValue>> {
        let mut values = Vec::new();
        if !self.mixes() {
            return Ok(values);
        }
        let lambda = self.config.lambda.0;
        let last = self.config.layers.0 - 1;
        for path in self.pathways.iter_mut().filter(|p| p.site == Site::Input || p.layer < last) {
            let Some(i) = index_of(&path.parameter) else { continue };
            path.updates += 1;
            let (omega, mean_square) = (&path.omega, &mut path.mean_square);
            let corrected = 1.0 - RMS_DECAY.powf(path.updates as f64);
            let mut stats = [0.0f64; 3]; // |ĝ|², |Ω|², ĝ·Ω
            with_f32_mut(&directions[i], |direction| {
                // the pathway's synapses are the first rows of the parameter
                let g = &mut direction[..omega.len()];
                for (&g, &o) in g.iter().zip(omega) {
                    let (g, o) = (f64::from(g), f64::from(o));
                    stats[0] += g * g;
                    stats[1] += o * o;
                    stats[2] += g * o;
                }
                let n = omega.len() as f64;
                for k in 0..2 {
                    mean_square[k] = RMS_DECAY * mean_square[k] + (1.0 - RMS_DECAY) * stats[k] / n;
                }
                let rms = mean_square.map(|m| (m / corrected).sqrt());
                let ratio = if rms[1] > 0.0 { rms[0] / rms[1] } else { 0.0 };
                let (keep, add) = (lambda as f32, ((1.0 - lambda) * ratio) as f32);
                for (g, &o) in g.iter_mut().zip(omega) {
                    *g = keep * *g - add * o;
                }
            })?;
            path.omega.fill(0.0); // pairs of unsupervised chunks had added up to here
            if diagnose {
                let layer =
                    format!("layers.{}.{}", path.layer, if path.site == Site::Input { "input" } else { "output" });
                let cosine = stats[2] / (stats[0] * stats[1]).sqrt().max(f64::MIN_POSITIVE);
                // the term is +Ω in the update and −ĝ: aligned means cos(−ĝ, Ω)
                for (quantity, value) in [
                    ("norm_direction", stats[0].sqrt()),
                    ("norm_stdp", stats[1].sqrt()),
                    ("cosine_descent_stdp", -cosine),
                ] {
                    values.push(LayerValue { layer: layer.clone(), quantity, value });
                }
            }
        }
        Ok(values)
    }

    /// One pruning event if one is due after `updates` updates.
    ///
    /// # Errors
    /// If a tensor is not in host memory.
    pub fn prune(&mut self, network: &Network<f32>, updates: u64) -> Result<()> {
        let c = self.config.prune;
        if !self.prunes() || updates < c.start || !(updates - c.start).is_multiple_of(c.interval.0 as u64) {
            return Ok(());
        }
        for path in &mut self.pathways {
            let block = &network.blocks[path.layer];
            let weights = if path.site == Site::Input { &block.projection } else { &block.out };
            let mut rng = seeded_rng(self.seed, &format!("prune.{}.{updates}", path.parameter));
            let (mask, theta, count) = (&mut path.mask, &mut path.theta, path.pre * path.post);
            with_f32_mut(weights, |w| prune::event(&c, &mut w[..count], mask, theta, &mut rng))?;
        }
        Ok(())
    }

    /// Number of pruned synapses; `None` where pruning is off.
    #[must_use]
    pub fn pruned(&self) -> Option<usize> {
        let dead = |path: &Pathway| path.mask.iter().filter(|m| **m == 0.0).count();
        self.prunes().then(|| self.pathways.iter().map(dead).sum())
    }

    /// Writes pair traces, masks, thresholds and running statistics into a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        let cpu = &candle_core::Device::Cpu;
        for path in &self.pathways {
            let name = format!("{}.plasticity", path.parameter);
            for (b, pair) in path.pairs.iter().enumerate() {
                snapshot.state.insert(format!("{name}.pre.{b}"), Tensor::new(&pair.pre[..], cpu)?);
                snapshot.state.insert(format!("{name}.post.{b}"), Tensor::new(&pair.post[..], cpu)?);
            }
            snapshot.optimizer.insert(format!("{name}.mask"), Tensor::new(&path.mask[..], cpu)?);
            let scalars = [path.theta, path.mean_square[0], path.mean_square[1]];
            snapshot.optimizer.insert(format!("{name}.statistics"), Tensor::new(&scalars, cpu)?);
            snapshot.counters.insert(name, path.updates);
        }
        Ok(())
    }

    /// Restores what [`Plasticity::save`] wrote.
    ///
    /// # Errors
    /// If something is missing or has another shape.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        for path in &mut self.pathways {
            let name = format!("{}.plasticity", path.parameter);
            for (b, pair) in path.pairs.iter_mut().enumerate() {
                with_f32(snapshot.state(&format!("{name}.pre.{b}"))?, |v| pair.pre.copy_from_slice(v))?;
                with_f32(snapshot.state(&format!("{name}.post.{b}"))?, |v| pair.post.copy_from_slice(v))?;
            }
            with_f32(snapshot.moment(&format!("{name}.mask"), &[path.mask.len()])?, |v| path.mask.copy_from_slice(v))?;
            let scalars = snapshot.moment(&format!("{name}.statistics"), &[3])?.to_vec1::<f64>()?;
            (path.theta, path.mean_square) = (scalars[0], [scalars[1], scalars[2]]);
            path.updates = snapshot.counter(&name)?;
        }
        Ok(())
    }
}
