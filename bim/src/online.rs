//! The online learner: the network, its credit rule, plasticity and optimiser behind the common contract.

use candle_core::{DType, Device, Tensor};
use learner::{
    Activity, AdamW, AdamWConfig, Cost, Error, Group, Io, LayerValue, Learner, Params, Predictor, Result, Schedule,
    Snapshot, Targets, Update, global_norm,
};

use crate::config::{BimConfig, Credit};
use crate::credit::{LayerCredit, Membrane, Past, silent_share};
use crate::kernels::scan::ScanTape;
use crate::kernels::trace::CreditGrads;
use crate::network::{Network, Trail};
use crate::ops::{lock, with_slice};
use crate::plasticity::Plasticity;

/// Bits of an `f32` significand: what survives less than this is lost to rounding anyway.
const F32_BITS: i32 = 24;
/// Updates between rows of layer diagnostics.
const DIAGNOSE_EVERY: u64 = 100;

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
    credit: Vec<LayerCredit<f32>>,
    plasticity: Plasticity,
    pending: Option<(Tensor, Vec<Trail<f32>>)>,
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
        let network = Network::new(config, &io, &mut params)?;
        let slots = params.vars().iter().map(|(name, var)| (name.clone(), var.clone(), Group::by_rank(var)));
        let adamw = AdamW::new(train.adamw, slots)?;
        let membrane = Membrane::choose(config, io.segment, F32_BITS);
        let carries = matches!(config.credit, Credit::Hybrid | Credit::Exact);
        let blocks = network.blocks.iter().filter(|_| carries);
        let credit = blocks.map(|b| LayerCredit::new(b.dims, membrane, io.streams)).collect();
        let plasticity = Plasticity::new(config, io.streams, seed);
        Ok(Self { config: config.clone(), io, train, params, network, adamw, credit, plasticity, pending: None })
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.params.vars().iter().position(|(n, _)| n == name)
    }

    /// Adds a layer's carried credit to the gradients of its parameters.
    fn add_credit(&self, layer: usize, credit: &CreditGrads<f32>, grads: &mut [Tensor]) -> Result<()> {
        let heads = self.config.heads.0;
        let (bias, rest) = credit.dynamics.split_at(heads);
        let (a_log, skip) = rest.split_at(heads);
        let parts: [(&str, &[f32]); 5] = [
            ("projection", &credit.projection),
            ("delta.weight", &credit.delta),
            ("delta.bias", bias),
            ("a_log", a_log),
            ("skip", skip),
        ];
        for (name, values) in parts {
            if let Some(i) = self.index_of(&format!("layers.{layer}.{name}")) {
                grads[i] = (&grads[i] + Tensor::from_slice(values, grads[i].dims(), grads[i].device())?)?;
            }
        }
        Ok(())
    }

    /// Weights of all matrices, biases and gains left out.
    fn connections(&self) -> usize {
        self.params.vars().iter().filter(|(_, v)| v.rank() >= 2).map(|(_, v)| v.elem_count()).sum()
    }

    fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let store = loss.backward()?;
        let grad = |(_, var): &(String, candle_core::Var)| match store.get(var) {
            Some(g) => Ok(g.contiguous()?),
            None => Ok(var.zeros_like()?),
        };
        self.params.vars().iter().map(grad).collect()
    }

    fn activity(&self, trails: &[Trail<f32>]) -> Result<Activity> {
        let mut shares = Vec::with_capacity(2 * trails.len());
        for trail in trails {
            let tape = lock(&trail.tape);
            let (j, taps) = (self.config.width.0, self.config.delays.0);
            let pre: f64 = tape.encode.iter().map(|e| silent_share(e.spikes(j, taps))).sum();
            shares.push((pre / tape.encode.len() as f64, j));
            shares.push((with_slice(&trail.spikes, silent_share::<f32>)?, self.config.channels.0));
        }
        let neurons: usize = shares.iter().map(|(_, n)| n).sum();
        let silent: f64 = shares.iter().map(|(s, n)| s * *n as f64).sum();
        Ok(Activity {
            spike_sparsity: Some(silent / neurons as f64),
            activation_sparsity: None,
            connection_sparsity: self.plasticity.pruned().map(|n| n as f64 / self.connections() as f64),
        })
    }
}

impl Predictor for Bim {
    fn segment_len(&self) -> usize {
        self.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.network.reset(starts)?;
        for (b, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
            self.credit.iter_mut().for_each(|c| c.reset(b));
            self.plasticity.reset(b);
        }
        Ok(())
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.io.segment)?;
        let (logits, trails) = self.network.forward(x, true)?;
        let output = logits.detach();
        self.pending = Some((logits, trails));
        Ok(output)
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
        let (logits, trails) = self
            .pending
            .take()
            .ok_or_else(|| Error::shape("learn", "a predicted segment", "none since the last learn"))?;
        let update = self.adamw.updates();
        let loss = learner::loss(&logits, y)?;
        let mut grads = match &loss {
            Some(loss) => {
                finite("loss", f64::from(loss.to_scalar::<f32>()?), update)?;
                Some(self.gradients(loss)?)
            }
            None => None,
        };
        for layer in 0..self.credit.len() {
            let carried = self.credit[layer].carry(&self.network.blocks[layer], &trails[layer])?;
            if let Some(grads) = &mut grads {
                self.add_credit(layer, &carried, grads)?;
            }
        }
        self.plasticity.observe(&trails)?;
        let activity = self.activity(&trails)?;
        drop(logits);
        let value = match loss {
            Some(loss) => Some(f64::from(loss.to_scalar::<f32>()?)), // the graph ends here and gives its tapes back
            None => None,
        };
        self.network.recycle(trails);
        let (Some(loss), Some(grads)) = (value, grads) else {
            return Ok(Update { activity, learning_rate: self.train.schedule.at(update), ..Update::default() });
        };
        let names = &self.params;
        let index_of = |name: &str| names.vars().iter().position(|(n, _)| n == name);
        self.plasticity.mask(&grads, index_of)?;
        let grad_norm = finite("gradient norm", global_norm(&grads)?, update)?;
        let scale = if grad_norm > self.train.clip { self.train.clip / grad_norm } else { 1.0 };
        let directions = self.adamw.directions(&grads, scale)?;
        let layers: Vec<LayerValue> =
            self.plasticity.mix(&directions, index_of, update.is_multiple_of(DIAGNOSE_EVERY))?;
        self.plasticity.mask(&directions, index_of)?;
        let learning_rate = self.train.schedule.at(update);
        let update_norm = finite("update norm", self.adamw.apply(&directions, learning_rate)?, update)?;
        self.plasticity.prune(&self.network, self.adamw.updates())?;
        Ok(Update { loss: Some(loss), learning_rate, grad_norm, update_norm, activity, operations: None, layers })
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        let io = Io { streams, ..self.io };
        let network = Network::new(&self.config, &io, &mut self.params.bound())?;
        Ok(Box::new(Evaluator { network, segment: io.segment }))
    }

    fn cost(&self) -> Cost {
        let credit: u64 = self.credit.iter().map(LayerCredit::bytes).sum();
        let (mut numbers, mut plastic) = (0, 0);
        for block in &self.network.blocks {
            let state = lock(&block.state);
            numbers += state.encode.iter().map(|s| s.v.len() + s.past.len()).sum::<usize>();
            numbers += state.scan.iter().map(|s| s.h.len() + s.v.len()).sum::<usize>();
            if self.plasticity.mixes() {
                plastic += 2 * self.io.streams * (block.dims.inputs + block.dims.channels);
            }
        }
        Cost { parameters: self.params.count(), state_bytes: credit + ((numbers + plastic) * size_of::<f32>()) as u64 }
    }

    fn save(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        self.params.save(&mut snapshot)?;
        self.adamw.save(&mut snapshot)?;
        self.plasticity.save(&mut snapshot)?;
        let mut put = |name: String, values: &[f32]| -> Result<()> {
            snapshot.state.insert(name, Tensor::from_slice(values, values.len(), &Device::Cpu)?);
            Ok(())
        };
        for (l, block) in self.network.blocks.iter().enumerate() {
            let state = lock(&block.state);
            for b in 0..self.io.streams {
                put(format!("layers.{l}.pre.v.{b}"), &state.encode[b].v)?;
                put(format!("layers.{l}.pre.past.{b}"), &state.encode[b].past)?;
                put(format!("layers.{l}.h.{b}"), &state.scan[b].h)?;
                put(format!("layers.{l}.post.v.{b}"), &state.scan[b].v)?;
            }
        }
        for (l, credit) in self.credit.iter().enumerate() {
            for (b, (traces, past)) in credit.traces.iter().zip(&credit.past).enumerate() {
                for (name, values) in traces.named() {
                    put(format!("layers.{l}.trace.{name}.{b}"), values)?;
                }
                if past.valid {
                    let tape = &past.tape;
                    let parts = [&tape.p, &tape.delta, &tape.a, &tape.h, &tape.v, &past.psi];
                    for (name, values) in PAST.iter().zip(parts) {
                        put(format!("layers.{l}.past.{name}.{b}"), values)?;
                    }
                }
            }
        }
        Ok(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.params.load(snapshot)?;
        self.adamw.load(snapshot)?;
        self.plasticity.load(snapshot)?;
        self.pending = None;
        let fill = |name: String, into: &mut Vec<f32>| -> Result<()> {
            let values = learner::read_f32(snapshot.state(&name)?)?;
            if values.len() != into.len() {
                return Err(Error::shape(name, into.len(), values.len()));
            }
            *into = values;
            Ok(())
        };
        for (l, block) in self.network.blocks.iter().enumerate() {
            let mut state = lock(&block.state);
            for b in 0..self.io.streams {
                fill(format!("layers.{l}.pre.v.{b}"), &mut state.encode[b].v)?;
                fill(format!("layers.{l}.pre.past.{b}"), &mut state.encode[b].past)?;
                fill(format!("layers.{l}.h.{b}"), &mut state.scan[b].h)?;
                fill(format!("layers.{l}.post.v.{b}"), &mut state.scan[b].v)?;
            }
        }
        for (l, credit) in self.credit.iter_mut().enumerate() {
            for (b, (traces, past)) in credit.traces.iter_mut().zip(&mut credit.past).enumerate() {
                for (name, values) in traces.named_mut() {
                    fill(format!("layers.{l}.trace.{name}.{b}"), values)?;
                }
                *past = load_past(snapshot, l, b, self.config.heads.0)?;
            }
        }
        Ok(())
    }
}

/// Names of the kept chunk's parts in a checkpoint.
const PAST: [&str; 6] = ["p", "delta", "a", "h", "v", "psi"];

fn load_past(snapshot: &Snapshot, layer: usize, stream: usize, heads: usize) -> Result<Past<f32>> {
    let name = |part: &str| format!("layers.{layer}.past.{part}.{stream}");
    if !snapshot.state.contains_key(&name(PAST[0])) {
        return Ok(Past::default());
    }
    let mut parts = PAST.iter().map(|part| learner::read_f32(snapshot.state(&name(part))?));
    let mut next = || parts.next().unwrap_or_else(|| Ok(Vec::new()));
    let (p, delta, a, h, v, psi) = (next()?, next()?, next()?, next()?, next()?, next()?);
    Ok(Past { valid: true, tape: ScanTape { steps: delta.len() / heads, p, delta, a, h, v }, psi })
}

fn finite(quantity: &'static str, value: f64, update: u64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::Diverged { quantity, value, update, layer: None }) }
}

/// Prediction alone, over the weights of a learner.
struct Evaluator {
    network: Network<f32>,
    segment: usize,
}

impl Predictor for Evaluator {
    fn segment_len(&self) -> usize {
        self.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.network.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.segment)?;
        Ok(self.network.forward(x, false)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            for block in &bim.network.blocks {
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

    #[test]
    fn exact_credit_refuses_a_stack_and_says_why() {
        let config = BimConfig { credit: Credit::Exact, ..BimConfig::default() };
        let message = config.check().expect_err("four layers").to_string();
        assert!(message.contains("one layer, got 4") && message.contains("hybrid"), "{message}");
    }
}
