//! The online learner: the network, its credit rule, plasticity and optimiser behind the common contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Tensor};
use learner::operations::Tally;
use learner::{
    Activity, AdamW, AdamWConfig, Cost, Error, Group, Io, LayerValue, Learner, OpCounts, Params, Predictor, Result,
    Schedule, Sent, Snapshot, Targets, Update, norm_of,
};

use crate::config::{BimConfig, NeuronConfig, SpikeCode};
use crate::diagnose::Diagnoser;
use crate::energy::Controller;
use crate::homeostasis::Homeostasis;
use crate::network::Network;
use crate::operations;
use crate::params::NetworkParams;
use crate::plasticity::Plasticity;
use crate::reach::Reach;
use crate::rule::Membrane;
use crate::time_differences::Quantity;

/// Bits of an `f32` significand: what survives less than this is lost to rounding anyway.
pub(crate) const F32_BITS: i32 = 24;
/// Updates between rows of layer diagnostics.
pub(crate) const DIAGNOSE_EVERY: u64 = 100;
/// A state beyond this has exploded: gradients through it would be noise long before it overflows.
pub(crate) const EXPLODED: f64 = 1e15;

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

impl Optimizer {
    /// `AdamW` at one rate throughout, gradients clipped at 1.
    #[must_use]
    pub fn constant(rate: f64) -> Self {
        Self { schedule: Schedule::constant(rate), adamw: AdamWConfig::default(), clip: 1.0 }
    }
}

/// BIM, learning online.
pub struct Bim {
    pub(crate) config: BimConfig,
    pub(crate) io: Io,
    pub(crate) train: Optimizer,
    pub(crate) params: Params,
    /// How often the weights changed: predictors over them keep what they made of them until it does.
    changes: Arc<AtomicU64>,
    pub(crate) network: Network<f32>,
    pub(crate) adamw: AdamW,
    pub(crate) plasticity: Plasticity,
    /// Prices of spikes, where they follow a target.
    pub(crate) controller: Option<Controller>,
    /// Thresholds that hold firing rates.
    pub(crate) homeostasis: Option<Homeostasis>,
    diagnoser: Diagnoser,
    pub(crate) reach: Option<Reach>,
    starts: Vec<bool>,
    pub(crate) counting: bool,
    pending: Option<Tensor>,
    d_logits: Vec<f32>,
    grads: NetworkParams<Vec<f32>>,
    directions: Vec<Vec<f32>>,
    state_bytes: u64,
    trace_bytes: u64,
}

/// Learning rate and weight decay of a parameter, by its name.
pub(crate) fn group(config: &BimConfig, name: &str, rank: usize) -> Group {
    let rates = &config.rates;
    let part = name.split_once('.').and_then(|(_, rest)| rest.split_once('.')).map(|(_, part)| part);
    let part = if name == "readout.step" { Some(name) } else { part };
    let (rate, matrix) = match part {
        Some("a_log") => (rates.decay.0, false),
        Some("delta.weight" | "delta.bias") => (rates.delta.0, rank >= 2),
        Some("pre.threshold" | "post.threshold") => (0.0, false), // not the gradient's
        Some("pre.step" | "post.step" | "readout.step") => (rates.steps.0, false),
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
        check_device(device)?;
        let mut params = Params::new(seed, DType::F32, device);
        let membrane = Membrane::choose(config, F32_BITS);
        let network = Network::new(config, &io, membrane, &mut params)?;
        let slots = params.vars().iter().map(|(name, v)| (name.clone(), v.clone(), group(config, name, v.rank())));
        let adamw = AdamW::new(train.adamw, slots)?;
        let plasticity = Plasticity::new(config, &network, seed);
        let controller = Controller::new(config, &network, &plasticity);
        let grads = network.zero_grads();
        let directions = vec![Vec::new(); params.vars().len()];
        let reach = Reach::new(config, io.segment, &network, &params.bound())?;
        let traces = network.trace_numbers() + plasticity.carried_numbers();
        let kept = reach.as_ref().map_or(0, Reach::carried_numbers);
        let numbers = network.carried_numbers() + plasticity.carried_numbers() + kept;
        Ok(Self {
            config: config.clone(),
            io,
            train,
            params,
            changes: Arc::default(),
            adamw,
            plasticity,
            controller,
            homeostasis: Homeostasis::new(config),
            diagnoser: Diagnoser::new(config, io.segment),
            reach,
            starts: vec![false; io.streams],
            counting: true,
            pending: None,
            d_logits: Vec::new(),
            grads,
            directions,
            state_bytes: (numbers * size_of::<f32>()) as u64,
            trace_bytes: (traces * size_of::<f32>()) as u64,
            network,
        })
    }

    /// Spikes per neuron and step of the chunk last run, for each layer and end, and the mean step where it is learned.
    pub(crate) fn firing(&self) -> Vec<LayerValue> {
        let steps = self.network.steps();
        let mut values = self.network.mean_steps();
        let code = |neuron: &NeuronConfig| match neuron.spikes {
            SpikeCode::Burst => |s: f32| f64::from(s.abs()),
            SpikeCode::Weighted => |s: f32| f64::from(learner::operations::digits(s.abs() as u32)),
        };
        let codes = [code(&self.config.pre), code(&self.config.post)];
        for l in 0..self.config.layers.0 {
            for (end, name) in ["pre", "post"].into_iter().enumerate() {
                let blocks = self.network.groups.iter().map(|g| &g.blocks[l]);
                let spikes = blocks.map(|b| if end == 0 { b.spikes_in(steps) } else { b.spikes_out(steps) });
                let sum = |(count, all): (f64, usize), s: &[f32]| {
                    (count + s.iter().map(|s| codes[end](*s)).sum::<f64>(), all + s.len())
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
        if let Some(reach) = &mut self.reach {
            reach.before(&mut self.network, &self.starts, x);
        }
        self.starts.fill(false);
        self.network.take_performed(); // of a chunk that nothing was learned from
        let logits = self.network.forward(x)?;
        self.pending = Some(logits.clone());
        Ok(logits)
    }
}

impl Bim {
    /// The counts of a chunk that is over: products and loops that were carried out without being declared are unknown.
    fn reconciled(&self, mut tally: Tally) -> OpCounts {
        tally.reconcile(self.network.take_performed());
        tally.counts
    }

    /// Carries out a product of so many multiplications that nothing declares.
    #[cfg(test)]
    pub(crate) fn carry_out(&self, multiplications: u64) {
        use learner::product::{View, matmul};
        let n = multiplications as usize;
        let product = || {
            let (row, column) = ((&*vec![1f32; n], View::new(1, n)), (&*vec![1f32; n], View::new(n, 1)));
            matmul((&mut [0.0], View::new(1, 1)), row, column, 0.0);
        };
        learner::performed::during(&self.network.performed, product);
    }

    /// Pairs the spikes of the chunk last run, and counts its operations if they are counted: side by side, as neither keeps
    /// every core.
    fn observe(&mut self, update: u64, learns: bool) -> Result<Option<Tally>> {
        let (network, plasticity) = (&self.network, &mut self.plasticity);
        if !self.counting {
            plasticity.observe(network, update);
            return Ok(None);
        }
        let paired = plasticity.paired_sites();
        let count = || operations::count(&self.config, network, &paired, learns);
        let ((), tally) = rayon::join(|| plasticity.observe(network, update), count);
        tally.map(Some)
    }
}

impl Bim {
    /// Moves the prices of spikes by the shares that were measured; `pruned` where a pruning event followed.
    fn steer(&mut self, shares: &[f64], pruned: bool) {
        if let Some(controller) = &mut self.controller {
            controller.steer(shares);
            if pruned {
                controller.count_synapses(&self.plasticity);
            }
        }
        self.set_prices();
    }

    fn set_prices(&mut self) {
        for (of, price) in self.controller.iter().flat_map(Controller::prices) {
            self.network.set_price(of, price);
        }
    }
}

/// This learner's kernels are the host's.
fn check_device(device: &Device) -> Result<()> {
    if device.is_cpu() {
        return Ok(());
    }
    let problem = "this learner's kernels run on the CPU; bim::build makes one for other devices".to_owned();
    Err(Error::Config { key: "device", problem })
}

pub(crate) fn check_length(x: &Tensor, segment: usize) -> Result<()> {
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
        let mut tally = self.observe(update, loss.is_some())?;
        let counted = tally.as_ref().map_or_else(Activity::default, Tally::activity);
        let activity = Activity { pruned_share: self.plasticity.pruned_share(), ..counted };
        let learning_rate = self.train.schedule.at(update);
        let Some(loss) = loss else {
            self.network.finish()?;
            let operations = tally.map(|t| self.reconciled(t));
            return Ok(Update { activity, learning_rate, operations, ..Update::default() });
        };
        finite("loss", loss, update)?;
        self.grads.iter_mut().for_each(|g| g.fill(0.0));
        let mut layers = Vec::new();
        if update.is_multiple_of(DIAGNOSE_EVERY) {
            let rows = (self.network.steps() * self.io.streams) as u64;
            layers.extend(tally.iter().flat_map(|t| t.layer_values(rows)));
            layers.extend(self.firing());
        }
        if let Some(homeostasis) = &mut self.homeostasis {
            homeostasis.measure(&self.network);
            if update.is_multiple_of(DIAGNOSE_EVERY) {
                layers.extend(homeostasis.values(&self.network)?);
            }
        }
        let shares = self.controller.as_ref().map(|controller| controller.measure(&self.network));
        if let (Some(controller), Some(shares)) = (&self.controller, &shares)
            && update.is_multiple_of(DIAGNOSE_EVERY)
        {
            layers.extend(controller.values(shares));
        }
        if let Some(reach) = &mut self.reach {
            reach.take_prices(&self.network);
            reach.add_grads(&self.d_logits, &mut self.grads, tally.as_mut())?;
            self.network.finish()?;
        } else {
            self.network.reverse(Some(&self.d_logits), false)?;
            let bound = self.params.bound();
            let noted = self.network.take_performed();
            layers.extend(self.diagnoser.diagnose(&self.network, &self.plasticity, &bound, &self.d_logits, update)?);
            self.network.performed.store(noted, Ordering::Relaxed); // diagnostics are no work of the rule
            self.network.add_grads_and_finish(&mut self.grads)?;
        }
        self.plasticity.mask(self.grads.iter_mut());
        let grads: Vec<&[f32]> = self.grads.iter().map(Vec::as_slice).collect();
        let grad_norm = finite("gradient norm", norm_of(&grads), update)?;
        let scale = if grad_norm > self.train.clip { self.train.clip / grad_norm } else { 1.0 };
        self.adamw.directions_into(&grads, scale, &mut self.directions)?;
        self.plasticity.mask(self.directions.iter_mut());
        self.plasticity.measure(Quantity::Gradient, &grads);
        self.plasticity.measure(Quantity::Direction, &self.directions);
        let diagnose = update.is_multiple_of(DIAGNOSE_EVERY);
        layers.extend(self.plasticity.modulate(loss).filter(|_| diagnose));
        layers.extend(self.plasticity.mix(&self.network, &grads, &mut self.directions, update, diagnose)?);
        layers.extend(self.plasticity.measured(&self.directions));
        self.changes.fetch_add(1, Ordering::Release);
        let update_norm = finite("update norm", self.adamw.apply_from(&self.directions, learning_rate)?, update)?;
        self.plasticity.clip(&self.network)?;
        if let Some(homeostasis) = &self.homeostasis {
            homeostasis.adapt(&self.network)?;
        }
        let updates = self.adamw.updates();
        self.plasticity.prune(&self.network, updates)?;
        let due = self.plasticity.prune_due(updates);
        if let Some(shares) = shares {
            self.steer(&shares, due);
        }
        if let Some(tally) = &mut tally {
            let held = self.homeostasis.as_ref().map_or(0, Homeostasis::neurons);
            operations::count_update(tally, &self.plasticity, held, due, self.params.count());
            tally.counts.passes += y.alignment(self.io.outputs);
        }
        let operations = tally.map(|t| self.reconciled(t));
        Ok(Update { loss: Some(loss), updates: 1, learning_rate, grad_norm, update_norm, activity, operations, layers })
    }

    fn set_counting(&mut self, on: bool) {
        self.counting = on;
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        let io = Io { streams, ..self.io };
        // nothing is learned there: no traces, no history
        let config = self.config.without_traces(crate::config::Credit::Tbptt);
        let network = Network::new(&config, &io, Membrane::Lag(0), &mut self.params.bound())?;
        let changes = Arc::clone(&self.changes);
        let (segment, started, counted) = (io.segment, false, None);
        Ok(Box::new(Evaluator { config, network, changes, frozen_at: None, segment, started, counted }))
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
        if let Some(homeostasis) = &self.homeostasis {
            homeostasis.save(&mut snapshot)?;
        }
        if let Some(controller) = &self.controller {
            controller.save(&mut snapshot)?;
        }
        if let Some(reach) = &self.reach {
            reach.save(&mut snapshot)?;
        }
        Ok(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.changes.fetch_add(1, Ordering::Release);
        self.params.load(snapshot)?;
        self.adamw.load(snapshot)?;
        self.plasticity.load(snapshot)?;
        self.network.load(snapshot)?;
        if let Some(controller) = &mut self.controller {
            controller.load(&self.plasticity, snapshot)?;
        }
        self.set_prices();
        if let Some(homeostasis) = &mut self.homeostasis {
            homeostasis.load(snapshot)?;
        }
        self.diagnoser.load(&self.network, &self.params.bound(), snapshot)?;
        if let Some(reach) = &mut self.reach {
            reach.load(&mut self.network, snapshot)?;
        }
        self.pending = None;
        Ok(())
    }
}

pub(crate) fn finite(quantity: &'static str, value: f64, update: u64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::Diverged { quantity, value, update, layer: None }) }
}

/// Prediction alone, over the weights of a learner.
struct Evaluator {
    config: BimConfig,
    network: Network<f32>,
    /// How often the learner's weights changed, now and when the network was last frozen.
    changes: Arc<AtomicU64>,
    frozen_at: Option<u64>,
    segment: usize,
    started: bool,
    /// Operations so far, if they are counted.
    counted: Option<OpCounts>,
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
        let changes = self.changes.load(Ordering::Acquire);
        if self.frozen_at != Some(changes) {
            self.network.freeze(&self.config)?;
            self.frozen_at = Some(changes);
        }
        self.started = true;
        self.network.take_performed();
        let logits = self.network.forward(x)?;
        if let Some(sum) = &mut self.counted {
            let mut tally = operations::count(&self.config, &self.network, &[], false)?;
            tally.reconcile(self.network.take_performed());
            *sum += tally.counts;
        }
        Ok(logits)
    }

    fn count_predictions(&mut self, on: bool) {
        self.counted = on.then(OpCounts::default);
    }

    fn predicted(&mut self) -> Option<OpCounts> {
        self.counted.as_mut().map(std::mem::take)
    }

    fn sent(&mut self, x: &Tensor) -> Result<Vec<Sent>> {
        let [pre, post] = [self.config.pre, self.config.post].map(|neuron| neuron.fires());
        let readout = self.config.readout.neuron().fires();
        if !pre && !post && !readout {
            return Ok(Vec::new());
        }
        self.predict(x)?;
        let (steps, width) = (self.network.steps(), self.config.width.0);
        let Some(group) = self.network.groups.first() else { return Ok(Vec::new()) };
        let streams = group.streams;
        let mut all = Vec::new();
        for (l, block) in group.blocks.iter().enumerate() {
            let name = |end: &str| format!("layers.{l}.{end}");
            let (j, d) = (self.config.neurons(), self.config.channels.0);
            all.extend(pre.then(|| Sent::first_stream(name("pre"), block.spikes_in(steps), streams, j)));
            all.extend(post.then(|| Sent::first_stream(name("post"), block.spikes_out(steps), streams, d)));
        }
        let read = || Sent::first_stream("readout".to_owned(), group.head_inputs(steps), streams, width);
        all.extend(readout.then(read));
        Ok(all)
    }
}

impl Evaluator {
    /// Moves the histories on behind the chunk last run.
    fn finish(&mut self) -> Result<()> {
        if std::mem::take(&mut self.started) { self.network.finish() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
