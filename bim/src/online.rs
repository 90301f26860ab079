//! The online learner: the network, its credit rule, plasticity and optimiser behind the common contract.

use candle_core::{DType, Device, Tensor};
use learner::{
    Activity, AdamW, AdamWConfig, Cost, Error, Group, Io, LayerValue, Learner, Params, Predictor, Result, Schedule,
    Snapshot, Targets, Update, norm_of,
};

use crate::block::Membrane;
use crate::config::BimConfig;
use crate::diagnose::Diagnoser;
use crate::network::{Network, NetworkParams};
use crate::operations;
use crate::plasticity::Plasticity;
use crate::time_differences::Quantity;

/// Bits of an `f32` significand: what survives less than this is lost to rounding anyway.
const F32_BITS: i32 = 24;
/// Updates between rows of layer diagnostics.
const DIAGNOSE_EVERY: u64 = 100;
/// A state beyond this has exploded: gradients through it would be noise long before it overflows.
const EXPLODED: f64 = 1e15;

/// How the optimiser moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// Learning rate over updates.
    pub schedule: Schedule,
    /// `AdamW`'s constants.
    pub adamw: AdamWConfig,
    /// Largest L2 norm of the gradient.
    pub clip: f64,
}

/// BIM, learning online.
pub struct Bim {
    config: BimConfig,
    io: Io,
    train: Optimizer,
    params: Params,
    network: Network<f32>,
    adamw: AdamW,
    plasticity: Plasticity,
    diagnoser: Diagnoser,
    starts: Vec<bool>,
    pending: Option<Tensor>,
    d_logits: Vec<f32>,
    grads: NetworkParams<Vec<f32>>,
    directions: Vec<Vec<f32>>,
    state_bytes: u64,
    trace_bytes: u64,
    membrane: Membrane,
}

/// Learning rate and weight decay of a parameter, by its name.
fn group(config: &BimConfig, name: &str, rank: usize) -> Group {
    let rates = &config.rates;
    let part = name.split_once('.').and_then(|(_, rest)| rest.split_once('.')).map(|(_, part)| part);
    let (rate, matrix) = match part {
        Some("a_log") => (rates.decay.0, false),
        Some("delta.weight" | "delta.bias") => (rates.delta.0, rank >= 2),
        Some("norm.gain" | "pre.current" | "post.current" | "conv" | "delays") => (rates.neurons.0, false),
        _ => (1.0, rank >= 2),
    };
    Group { rate, decays: matrix }
}

impl Bim {
    /// A fresh learner with all streams at rest.
    ///
    /// # Errors
    /// If the configuration does not fit together, or the device is not the CPU (the kernels run there alone).
    pub fn new(config: &BimConfig, io: Io, train: Optimizer, seed: u64, device: &Device) -> Result<Self> {
        if !device.is_cpu() {
            let problem = "bim's kernels run on the CPU; use --device cpu for this model".to_owned();
            return Err(Error::Config { key: "device", problem });
        }
        let mut params = Params::new(seed, DType::F32, device);
        let membrane = Membrane::choose(config, F32_BITS);
        let network = Network::new(config, &io, membrane, &mut params)?;
        let slots = params.vars().iter().map(|(name, v)| (name.clone(), v.clone(), group(config, name, v.rank())));
        let adamw = AdamW::new(train.adamw, slots)?;
        let plasticity = Plasticity::new(config, &network, seed);
        let grads = network.zero_grads();
        let directions = vec![Vec::new(); params.vars().len()];
        let traces = network.trace_numbers() + plasticity.carried_numbers();
        let numbers = network.carried_numbers() + plasticity.carried_numbers();
        Ok(Self {
            config: config.clone(),
            io,
            train,
            params,
            adamw,
            plasticity,
            diagnoser: Diagnoser::new(config, io.segment),
            starts: vec![false; io.streams],
            pending: None,
            d_logits: Vec::new(),
            grads,
            directions,
            state_bytes: (numbers * size_of::<f32>()) as u64,
            trace_bytes: (traces * size_of::<f32>()) as u64,
            membrane,
            network,
        })
    }

    /// Counts the chunk last run once more, to measure what that costs.
    #[cfg(test)]
    pub(crate) fn count_again(&self) -> Result<u64> {
        let tally = operations::count(&self.config, &self.network, &self.plasticity, true)?;
        Ok(tally.counts.forward.operations())
    }

    /// Spikes per neuron and step of the chunk last run, for each layer and end.
    fn firing(&self) -> Vec<LayerValue> {
        let steps = self.network.steps();
        let mut values = Vec::new();
        for l in 0..self.config.layers.0 {
            for (end, name) in ["pre", "post"].into_iter().enumerate() {
                let blocks = self.network.groups.iter().map(|g| &g.blocks[l]);
                let spikes = blocks.map(|b| if end == 0 { b.spikes_in(steps) } else { b.spikes_out(steps) });
                let sum = |(count, all): (f64, usize), s: &[f32]| {
                    (count + s.iter().map(|s| f64::from(s.abs())).sum::<f64>(), all + s.len())
                };
                let (count, all) = spikes.fold((0.0, 0), sum);
                let (layer, quantity) = (format!("layers.{l}.{name}"), "spikes_per_step");
                values.push(LayerValue { layer, quantity, value: count / all as f64 });
            }
        }
        if let Some(share) = self.plasticity.pruned_share() {
            values.push(LayerValue { layer: "synapses".to_owned(), quantity: "pruned_share", value: share });
        }
        values
    }
}

impl Predictor for Bim {
    fn segment_len(&self) -> usize {
        self.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.network.reset(starts)?;
        for (b, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
            self.plasticity.reset(&self.network, b);
            self.starts[b] = true;
        }
        Ok(())
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.io.segment)?;
        let update = self.adamw.updates();
        self.diagnoser.before(&mut self.network, &self.params.bound(), &self.starts, x, update)?;
        self.starts.fill(false);
        let logits = self.network.forward(x)?;
        self.pending = Some(logits.clone());
        Ok(logits)
    }
}

fn check_length(x: &Tensor, segment: usize) -> Result<()> {
    match x.dims().get(1) {
        Some(&k) if (1..=segment).contains(&k) => Ok(()),
        _ => Err(Error::shape("segment length", format!("1..={segment}"), x.dims())),
    }
}

impl Learner for Bim {
    fn learn(&mut self, y: &Targets) -> Result<Update> {
        let logits = self
            .pending
            .take()
            .ok_or_else(|| Error::shape("learn", "a predicted segment", "none since the last learn"))?;
        let update = self.adamw.updates();
        if let Some((layer, value)) = self.network.exploded(EXPLODED) {
            return Err(Error::Diverged { quantity: "state", value, update, layer: Some(format!("layers.{layer}")) });
        }
        self.d_logits.resize(logits.elem_count(), 0.0);
        let loss = learner::loss_and_gradient(&logits, y, &mut self.d_logits)?;
        self.plasticity.observe(&self.network, update);
        let mut tally = operations::count(&self.config, &self.network, &self.plasticity, loss.is_some())?;
        let activity = Activity { pruned_share: self.plasticity.pruned_share(), ..tally.activity() };
        let learning_rate = self.train.schedule.at(update);
        let Some(loss) = loss else {
            self.network.finish()?;
            return Ok(Update { activity, learning_rate, operations: Some(tally.counts), ..Update::default() });
        };
        finite("loss", loss, update)?;
        self.network.reverse(Some(&self.d_logits), false)?;
        self.grads.iter_mut().for_each(|g| g.fill(0.0));
        let mut layers = Vec::new();
        if update.is_multiple_of(DIAGNOSE_EVERY) {
            layers.extend(tally.layer_values((self.network.steps() * self.io.streams) as u64));
            layers.extend(self.firing());
        }
        self.network.add_grads_and_finish(&mut self.grads)?;
        let bound = self.params.bound();
        layers.extend(self.diagnoser.diagnose(self.membrane, &bound, &self.d_logits, &self.grads, update)?);
        self.plasticity.mask(self.grads.iter_mut());
        let grads: Vec<&[f32]> = self.grads.iter().map(Vec::as_slice).collect();
        let grad_norm = finite("gradient norm", norm_of(&grads), update)?;
        let scale = if grad_norm > self.train.clip { self.train.clip / grad_norm } else { 1.0 };
        self.adamw.directions_into(&grads, scale, &mut self.directions)?;
        self.plasticity.measure(Quantity::Gradient, &grads);
        self.plasticity.measure(Quantity::Direction, &self.directions);
        let diagnose = update.is_multiple_of(DIAGNOSE_EVERY);
        layers.extend(self.plasticity.mix(&self.network, &grads, &mut self.directions, update, diagnose)?);
        self.plasticity.mask(self.directions.iter_mut());
        layers.extend(self.plasticity.measured(&self.directions));
        let update_norm = finite("update norm", self.adamw.apply_from(&self.directions, learning_rate)?, update)?;
        self.plasticity.clip(&self.network)?;
        let updates = self.adamw.updates();
        self.plasticity.prune(&self.network, updates)?;
        let due = self.plasticity.prune_due(updates);
        operations::count_update(&mut tally, &self.plasticity, due, self.params.count());
        let operations = Some(tally.counts);
        Ok(Update { loss: Some(loss), learning_rate, grad_norm, update_norm, activity, operations, layers })
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        let io = Io { streams, ..self.io };
        // nothing is learned there: no traces, no history
        let config = BimConfig { credit: crate::config::Credit::Tbptt, ..self.config.clone() };
        let network = Network::new(&config, &io, Membrane::Lag(0), &mut self.params.bound())?;
        Ok(Box::new(Evaluator { network, segment: io.segment, started: false }))
    }

    fn cost(&self) -> Cost {
        Cost { parameters: self.params.count(), state_bytes: self.state_bytes, trace_bytes: self.trace_bytes }
    }

    fn save(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        self.params.save(&mut snapshot)?;
        self.adamw.save(&mut snapshot)?;
        self.plasticity.save(&mut snapshot)?;
        self.network.save(&mut snapshot)?;
        self.diagnoser.save(&mut snapshot)?;
        Ok(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.params.load(snapshot)?;
        self.adamw.load(snapshot)?;
        self.plasticity.load(snapshot)?;
        self.network.load(snapshot)?;
        self.diagnoser.load(&self.network, &self.params.bound(), snapshot)?;
        self.pending = None;
        Ok(())
    }
}

fn finite(quantity: &'static str, value: f64, update: u64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::Diverged { quantity, value, update, layer: None }) }
}

/// Prediction alone, over the weights of a learner.
struct Evaluator {
    network: Network<f32>,
    segment: usize,
    started: bool,
}

impl Predictor for Evaluator {
    fn segment_len(&self) -> usize {
        self.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.finish()?;
        self.network.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.segment)?;
        self.finish()?;
        self.started = true;
        self.network.forward(x)
    }
}

impl Evaluator {
    /// Moves the histories on behind the chunk last run.
    fn finish(&mut self) -> Result<()> {
        if std::mem::take(&mut self.started) { self.network.finish() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credit;
    use std::collections::BTreeMap;

    /// Pruned weights stay exactly zero: momentum, weight decay and STDP must not bring them back, at any λ.
    #[test]
    fn pruned_synapses_stay_pruned() -> Result<()> {
        use crate::config::{Count, PruneConfig, Share};
        for lambda in [1.0, 0.5] {
            let prune = PruneConfig { target: Share(0.5), start: 5, interval: Count(2), ..PruneConfig::default() };
            let config = BimConfig {
                width: Count(8),
                channels: Count(16),
                heads: Count(2),
                layers: Count(2),
                lambda: Share(lambda),
                prune,
                ..BimConfig::default()
            };
            let io = Io { input: learner::InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 2, segment: 8 };
            let schedule = Schedule {
                peak: 0.01,
                warmup_updates: 0,
                total_updates: 60,
                decay: learner::Decay::Constant,
                final_share: 1.0,
            };
            let train = Optimizer { schedule, adamw: AdamWConfig::default(), clip: 1.0 };
            let mut bim = Bim::new(&config, io, train, 1, &Device::Cpu)?;
            for step in 0..60u32 {
                let tokens: Vec<u32> = (0..16).map(|i| (i * 7 + step * 3) % 5).collect();
                let x = Tensor::from_vec(tokens, (2, 8), &Device::Cpu)?;
                bim.predict(&x)?;
                let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
                bim.learn(&Targets::Classes { class: x, weight })?;
            }
            let mut zeros = 0;
            for block in &bim.network.params.blocks {
                let u = block.projection.narrow(0, 0, 16)?;
                for w in [&u, &block.out] {
                    zeros += learner::read_f32(w)?.iter().filter(|w| **w == 0.0).count();
                }
            }
            let pruned = bim.plasticity.pruned().unwrap_or_default();
            assert!(pruned > 50, "only {pruned} pruned: the test would be empty");
            assert_eq!(zeros, pruned, "λ = {lambda}");
        }
        Ok(())
    }

    /// Mean loss before and after some training on a periodic sequence.
    fn trained(config: &BimConfig, updates: u64) -> Result<[f64; 2]> {
        let io = Io { input: learner::InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 2, segment: 8 };
        let schedule = Schedule {
            peak: 0.02,
            warmup_updates: 0,
            total_updates: updates,
            decay: learner::Decay::Constant,
            final_share: 1.0,
        };
        let train = Optimizer { schedule, adamw: AdamWConfig::default(), clip: 1.0 };
        let mut bim = Bim::new(config, io, train, 1, &Device::Cpu)?;
        let mut losses = Vec::new();
        for step in 0..updates as u32 {
            let token = |t: u32| (t * t) % 5;
            let row = |shift: u32| (0..16u32).map(move |i| token(step * 8 + i % 8 + shift));
            bim.predict(&Tensor::from_iter(row(0), &Device::Cpu)?.reshape((2, 8))?)?;
            let class = Tensor::from_iter(row(1), &Device::Cpu)?.reshape((2, 8))?;
            let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
            losses.extend(bim.learn(&Targets::Classes { class, weight })?.loss);
        }
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        Ok([mean(&losses[..5]), mean(&losses[losses.len() - 5..])])
    }

    fn small() -> BimConfig {
        use crate::config::Count;
        BimConfig { width: Count(16), channels: Count(32), heads: Count(2), layers: Count(2), ..BimConfig::default() }
    }

    /// Eq. 4 with its printed sign climbs the loss; corrected and normalised it descends.
    #[test]
    fn printed_mixing_ascends_and_corrected_mixing_descends() -> Result<()> {
        use crate::config::{Mixing, Share};
        let [before, after] = trained(&BimConfig { lambda: Share(0.9), ..small() }, 150)?;
        assert!(after < 0.5 * before, "corrected: {before} to {after}");
        // raw gradients are small beside Adam's directions on the other weights, so these are held still by their rate
        let printed = BimConfig { lambda: Share(0.999), mixing: Mixing::AsPrinted, ..small() };
        let [_, with_printed_sign] = trained(&printed, 150)?;
        assert!(with_printed_sign > after, "printed: {with_printed_sign}, corrected: {after}");
        Ok(())
    }

    /// Diagnostics against backpropagation through time: one layer's online gradient is nearly that, and what is left is the
    /// age of its traces; without temporal credit it is not.
    #[test]
    fn diagnostics_tell_exact_credit_from_none() -> Result<()> {
        use crate::config::{Count, DiagnoseConfig};
        let measure = |credit: Credit| -> Result<BTreeMap<&'static str, f64>> {
            let diagnose = DiagnoseConfig { every: 40, window: Count(96), ..DiagnoseConfig::default() };
            let config = BimConfig { layers: Count(1), credit, diagnose, lambda: crate::config::Share(1.0), ..small() };
            let io = Io { input: learner::InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 2, segment: 4 };
            let schedule = Schedule {
                peak: 1e-3,
                warmup_updates: 0,
                total_updates: 81,
                decay: learner::Decay::Constant,
                final_share: 1.0,
            };
            let mut bim = Bim::new(
                &config,
                io,
                Optimizer { schedule, adamw: AdamWConfig::default(), clip: 1.0 },
                1,
                &Device::Cpu,
            )?;
            let mut rng = learner::seeded_rng(1, "tokens");
            let mut found = BTreeMap::new();
            for step in 0..81u32 {
                if step == 70 {
                    bim.reset(&[false, true])?; // inside the window of the last diagnosis
                }
                let tokens: Vec<u32> = (0..8).map(|_| rand::Rng::random_range(&mut rng, 0..5)).collect();
                let x = Tensor::from_vec(tokens, (2, 4), &Device::Cpu)?;
                bim.predict(&x)?;
                let weight = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
                let update = bim.learn(&Targets::Classes { class: x, weight })?;
                found.extend(update.layers.iter().filter(|v| v.layer == "layers.0").map(|v| (v.quantity, v.value)));
            }
            Ok(found)
        };
        let (hybrid, spatial) = (measure(Credit::Hybrid)?, measure(Credit::Spatial)?);
        let cosine = |m: &BTreeMap<&str, f64>| m["cosine_gradient_bptt"];
        assert!(cosine(&hybrid) > 0.98, "{hybrid:?}");
        assert!((hybrid["norm_ratio_gradient_bptt"] - 1.0).abs() < 0.1, "{hybrid:?}");
        assert!(hybrid["staleness"] > 0.0 && hybrid["staleness"] < 0.2, "{hybrid:?}");
        assert!(cosine(&spatial) < cosine(&hybrid) - 0.01, "{spatial:?}");
        Ok(())
    }

    /// What is measured changes nothing that is learned, and every pathway with neurons at both ends is measured.
    #[test]
    fn time_differences_are_measured_beside_the_learning() -> Result<()> {
        use crate::config::{Count, DiagnoseConfig, Lag, Share};
        let run = |lambda: f64, most: usize| -> Result<(Vec<f64>, Vec<LayerValue>)> {
            let diagnose = DiagnoseConfig {
                time_differences: Lag(most),
                time_differences_every: Count(3),
                ..DiagnoseConfig::default()
            };
            let config = BimConfig { lambda: Share(lambda), diagnose, ..small() };
            let io = Io { input: learner::InputKind::Tokens { vocabulary: 5 }, outputs: 5, streams: 2, segment: 8 };
            let schedule = Schedule {
                peak: 0.02,
                warmup_updates: 0,
                total_updates: 12,
                decay: learner::Decay::Constant,
                final_share: 1.0,
            };
            let train = Optimizer { schedule, adamw: AdamWConfig::default(), clip: 1.0 };
            let mut bim = Bim::new(&config, io, train, 1, &Device::Cpu)?;
            let (mut losses, mut layers) = (Vec::new(), Vec::new());
            for step in 0..12u32 {
                let tokens: Vec<u32> = (0..16).map(|i| (i * 7 + step * 3) % 5).collect();
                let x = Tensor::from_vec(tokens, (2, 8), &Device::Cpu)?;
                bim.predict(&x)?;
                let weight = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
                let update = bim.learn(&Targets::Classes { class: x, weight })?;
                losses.extend([update.loss.unwrap_or_default(), update.update_norm]);
                layers.extend(update.layers.into_iter().filter(|v| v.quantity.contains("_at_dt_")));
            }
            Ok((losses, layers))
        };
        let (losses, none) = run(0.5, 0)?;
        let (same, layers) = run(0.5, 4)?;
        assert_eq!(losses, same);
        assert!(none.is_empty());
        let has = |rows: &[LayerValue], layer: &str, quantity: &str| {
            rows.iter().any(|v| v.layer == layer && v.quantity == quantity && v.value.is_finite())
        };
        for layer in ["layers.0.input", "layers.0.output", "layers.1.input"] {
            for quantity in ["gradient", "direction", "stdp", "mixed", "pairs"] {
                for lag in -4..=4 {
                    assert!(has(&layers, layer, &format!("{quantity}_at_dt_{lag}")), "{layer} {quantity} {lag}");
                }
            }
        }
        assert!(!layers.iter().any(|v| v.layer == "layers.1.output"), "no neuron is behind the last block");
        let (_, gradient_alone) = run(1.0, 4)?;
        assert!(has(&gradient_alone, "layers.0.input", "gradient_at_dt_1"));
        assert!(!gradient_alone.iter().any(|v| v.quantity.starts_with("stdp") || v.quantity.starts_with("mixed")));
        Ok(())
    }

    /// A state that runs away ends the cell with the layer's name and the value, not with a table of NaN.
    #[test]
    fn divergence_names_update_layer_and_value() -> Result<()> {
        let io = Io { input: learner::InputKind::Frames { width: 2 }, outputs: 2, streams: 1, segment: 4 };
        let schedule = Schedule {
            peak: 1e-3,
            warmup_updates: 0,
            total_updates: 1,
            decay: learner::Decay::Constant,
            final_share: 1.0,
        };
        let train = Optimizer { schedule, adamw: AdamWConfig::default(), clip: 1.0 };
        let mut bim = Bim::new(&small(), io, train, 1, &Device::Cpu)?;
        bim.predict(&Tensor::new(&[[[0f32, 1.], [0., 1.], [f32::NAN, 1.], [0., 1.]]], &Device::Cpu)?)?;
        let class = Tensor::zeros((1, 4), DType::U32, &Device::Cpu)?;
        let weight = Tensor::ones((1, 4), DType::F32, &Device::Cpu)?;
        match bim.learn(&Targets::Classes { class, weight }) {
            Err(Error::Diverged { quantity: "state", value, update: 0, layer: Some(layer) }) => {
                assert!(value.is_nan() && layer == "layers.0", "{layer} {value}");
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    #[test]
    fn exact_credit_refuses_a_stack_and_says_why() {
        let config = BimConfig { credit: Credit::Exact, ..BimConfig::default() };
        let message = config.check().expect_err("four layers").to_string();
        assert!(message.contains("one layer, got 4") && message.contains("hybrid"), "{message}");
    }
}
