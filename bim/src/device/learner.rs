//! The online learner on a device, behind the common contract. The host keeps a learner of the same configuration beside it, which never
//! runs: it is the form of checkpoints, so that they go from device to device, and where operations are counted.

use std::sync::Arc;

use candle_core::Tensor;
use learner::operations::Tally;
use learner::{
    Activity, AdamWConfig, Cost, Error, Io, Learner, OpCounts, Predictor, Result, Snapshot, Targets, Update, with_f32,
};

use super::host;
use super::machine::{Arg, At, Grid, Machine, Source, array, wide, words};
use super::network::Network;
use super::reach::{Chunk, Reach};
use super::synapses::Synapses;
use crate::config::{BimConfig, Credit};
use crate::online::{Bim, DIAGNOSE_EVERY, EXPLODED, F32_BITS, Optimizer, check_length, finite, group};
use crate::operations;
use crate::plasticity::Plasticity;
use crate::rule::Membrane;
use crate::runs_on::check_streams;
use crate::time_differences::Quantity;

/// Numbers of a chunk, the work of a block.
const CHUNK: usize = 4096;
/// Threads of a block that sums.
const SUM: usize = 256;
/// 64-bit numbers of an update: sums of squares of the gradient and of the change; each layer's largest state follows.
const SQUARES: usize = 2;

/// BIM, learning online on a device.
pub(crate) struct OnDevice<M: Machine> {
    /// The host's learner.
    shell: Bim,
    network: Network<M>,
    synapses: Synapses<M>,
    reach: Option<Reach<M>>,
    starts: Vec<bool>,
    /// Of all parameters: gradients, moments, directions.
    gradients: M::Buffer,
    moments: [M::Buffer; 2],
    directions: M::Buffer,
    /// How the parameters are cut into chunks, how many these are, and a 64-bit number for each.
    chunks: Arc<M::Buffer>,
    chunk_count: usize,
    partial: M::Buffer,
    numbers: M::Buffer,
    /// Rate and decay of each parameter.
    groups: Vec<learner::Group>,
    updates: u64,
    pending: Option<Tensor>,
}

impl<M: Machine> OnDevice<M> {
    /// A fresh learner with all streams at rest: the weights are those that the host draws from `seed`.
    pub fn new(machine: &M, config: &BimConfig, io: Io, train: Optimizer, seed: u64) -> Result<Self> {
        let shell = Bim::new(config, io, train, seed, &candle_core::Device::Cpu)?;
        let membrane = Membrane::choose(config, F32_BITS);
        let params = &shell.network.params;
        let (_, parameters) = super::network::layout(params);
        let weights = Arc::new(machine.zeros(parameters)?);
        let network = Network::new(machine, config, io, membrane, params, weights, true)?;
        let synapses = Synapses::new(machine, config, &shell.plasticity, io.streams, io.segment)?;
        let lengths = shell.params.vars().iter().map(|(_, var)| var.elem_count());
        let mut chunks = Vec::new();
        let mut at = 0;
        for (i, len) in lengths.enumerate() {
            chunks.extend((0..len).step_by(CHUNK).flat_map(|c| [i, at + c, CHUNK.min(len - c)]));
            at += len;
        }
        let chunk_count = chunks.len() / 3;
        let groups = shell.params.vars().iter().map(|(name, var)| group(config, name, var.rank())).collect();
        let zeros = |n: usize| machine.zeros(n);
        let learner = Self {
            synapses,
            reach: Reach::new(config, &network, &shell.network)?,
            starts: vec![false; io.streams],
            gradients: zeros(parameters)?,
            moments: [zeros(parameters)?, zeros(parameters)?],
            directions: zeros(parameters)?,
            chunks: array(machine, &words(&chunks.iter().map(|n| *n as u32).collect::<Vec<_>>()))?,
            chunk_count,
            partial: zeros(2 * chunk_count)?,
            numbers: zeros(2 * (SQUARES + config.layers.0))?,
            groups,
            updates: 0,
            pending: None,
            network,
            shell,
        };
        learner.upload_weights()?;
        Ok(learner)
    }

    fn machine(&self) -> &M {
        &self.network.machine
    }

    /// Gives the device the weights that the host has.
    fn upload_weights(&self) -> Result<()> {
        let mut at = 0;
        for (_, var) in self.shell.params.vars() {
            with_f32(var.as_tensor(), |w| self.machine().upload(w, At(&*self.network.weights, at)))??;
            at += var.elem_count();
        }
        Ok(())
    }

    /// The chunk's operations, and its spikes for the host to see, before the chunk is ended.
    fn count(&mut self, learns: bool) -> Result<Tally> {
        let shell = &mut self.shell;
        host::download_weights(&self.network, &shell.network.params)?;
        host::download_activations(&self.network, &mut shell.network)?;
        let paired = shell.plasticity.paired_sites();
        operations::count(&shell.config, &shell.network, &paired, learns)
    }

    /// Sums of squares of `values`, to the 64-bit number `at`.
    fn squares(&self, values: &M::Buffer, at: usize) -> Result<()> {
        let args = [Arg::all(&*self.chunks), Arg::all(values), Arg::all(&self.partial)];
        self.machine().launch(Source::Update, "update_squares", Grid::of(self.chunk_count, SUM), &args)?;
        self.sum(at)
    }

    fn sum(&self, at: usize) -> Result<()> {
        let args = [Arg::Size(self.chunk_count), Arg::all(&self.partial), Arg::from(&self.numbers, 2 * at)];
        self.machine().launch(Source::Update, "update_sum", Grid::of(1, SUM), &args)
    }

    /// Refuses states of which the largest of a layer is beyond all bounds or no number.
    fn exploded(&self, largest: &[f64]) -> Result<()> {
        let found = largest.iter().copied().enumerate().find(|(_, x)| x.is_nan() || *x > EXPLODED);
        found.map_or(Ok(()), |(layer, value)| {
            let layer = Some(format!("layers.{layer}"));
            Err(Error::Diverged { quantity: "state", value, update: self.updates, layer })
        })
    }

    /// Takes the gradients into the moments and writes the directions.
    fn directions(&mut self, scale: f64) -> Result<()> {
        self.updates += 1;
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.shell.train.adamw;
        let t = self.updates as f64;
        let correct = |beta: f64| 1.0 / (1.0 - beta.powf(t));
        let numbers = [beta1, beta2, correct(beta1), correct(beta2), epsilon, scale].map(|x| Arg::F32(x as f32));
        let count = self.network.parameters();
        let mut args = vec![Arg::Size(count)];
        args.extend(numbers);
        args.extend([&self.gradients, &self.moments[0], &self.moments[1], &self.directions].map(Arg::all));
        self.machine().launch(Source::Update, "update_directions", Grid::over(count), &args)
    }

    /// Moves the weights along the directions; the norm of the change.
    fn apply(&self, learning_rate: f64) -> Result<f64> {
        let decay = self.shell.train.adamw.weight_decay;
        let factors = self.groups.iter().flat_map(|group| {
            let rate = learning_rate * group.rate;
            [(1.0 - if group.decays { rate * decay } else { 0.0 }) as f32, rate as f32]
        });
        let factors = array(self.machine(), &factors.collect::<Vec<_>>())?;
        let mut args = vec![Arg::all(&*self.chunks), Arg::all(&*factors), Arg::all(&self.directions)];
        args.extend([Arg::all(&*self.network.weights), Arg::all(&self.partial)]);
        self.machine().launch(Source::Update, "update_weights", Grid::of(self.chunk_count, SUM), &args)?;
        self.sum(1)?;
        Ok(wide(self.machine(), &self.numbers, 1, 1)?[0].sqrt())
    }

    /// Copies what there is of all parameters to the host.
    fn by_parameter(&self, from: &M::Buffer) -> Result<Vec<Vec<f32>>> {
        let mut all = vec![0.0; self.network.parameters()];
        self.machine().download(At(from, 0), &mut all)?;
        Ok(self.network.places.iter().map(|place| all[place.at..][..place.len].to_vec()).collect())
    }

    /// One pruning event if one is due: drawn on the host, where the masks are.
    fn prune(&mut self) -> Result<()> {
        if !self.shell.plasticity.prune_due(self.updates) {
            return Ok(());
        }
        host::download_weights(&self.network, &self.shell.network.params)?;
        self.shell.plasticity.prune(&self.shell.network, self.updates)?;
        self.upload_weights()?;
        self.synapses.upload_masks(&self.network.machine, &self.shell.plasticity)
    }

    fn update(&mut self, loss: f64, d_logits: &M::Buffer, mut tally: Option<Tally>, y: &Targets) -> Result<Update> {
        let update = self.updates;
        let counted = tally.as_ref().map_or_else(Activity::default, Tally::activity);
        let activity = Activity { pruned_share: self.shell.plasticity.pruned_share(), ..counted };
        let learning_rate = self.shell.train.schedule.at(update);
        let diagnose = update.is_multiple_of(DIAGNOSE_EVERY);
        let mut layers = Vec::new();
        if diagnose {
            let rows = (self.network.steps() * self.network.io.streams) as u64;
            layers.extend(tally.iter().flat_map(|t| t.layer_values(rows)));
            if tally.is_none() {
                host::download_weights(&self.network, &self.shell.network.params)?;
                host::download_activations(&self.network, &mut self.shell.network)?;
            }
            self.shell.network.fold()?;
            layers.extend(self.shell.firing());
        }
        if let Some(reach) = &mut self.reach {
            let Bim { config, network, .. } = &mut self.shell;
            reach.reverse(&self.network, (d_logits, &self.gradients), config, (network, tally.as_mut()))?;
        } else {
            self.network.reverse(d_logits, &self.gradients)?;
        }
        self.network.finish()?;
        self.synapses.mask(&self.network, &self.shell.plasticity, &self.gradients)?;
        self.squares(&self.gradients, 0)?;
        // one wait for the gradient's norm and the layers' largest states
        let numbers = wide(self.machine(), &self.numbers, 0, SQUARES + self.network.blocks.len())?;
        self.exploded(&numbers[SQUARES..])?;
        let grad_norm = finite("gradient norm", numbers[0].sqrt(), update)?;
        let clip = self.shell.train.clip;
        self.directions(if grad_norm > clip { clip / grad_norm } else { 1.0 })?;
        self.synapses.mask(&self.network, &self.shell.plasticity, &self.directions)?;
        let [_, measured] = self.shell.plasticity.differences.due(update);
        if measured {
            for (quantity, values) in [(Quantity::Gradient, &self.gradients), (Quantity::Direction, &self.directions)] {
                let values = self.by_parameter(values)?;
                self.shell.plasticity.measure(quantity, &values);
            }
        }
        let (network, both) = (&self.network, (&self.gradients, &self.directions));
        let Bim { plasticity, config, .. } = &mut self.shell;
        layers.extend(self.synapses.mix(network, plasticity, config, both, (update, diagnose))?);
        if measured {
            let directions = self.by_parameter(&self.directions)?;
            layers.extend(self.shell.plasticity.measured(&directions));
        }
        let update_norm = finite("update norm", self.apply(learning_rate)?, update)?;
        self.synapses.clip(&self.network, &self.shell.plasticity, &self.shell.config)?;
        self.prune()?;
        let shell = &self.shell;
        let operations = tally.map(|mut tally| {
            let due = shell.plasticity.prune_due(self.updates);
            operations::count_update(&mut tally, &shell.plasticity, 0, due, shell.params.count());
            tally.counts.passes += y.alignment(shell.io.outputs);
            tally.counts
        });
        Ok(Update { loss: Some(loss), updates: 1, learning_rate, grad_norm, update_norm, activity, operations, layers })
    }
}

impl<M: Machine> Predictor for OnDevice<M> {
    fn segment_len(&self) -> usize {
        self.network.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.network.reset(starts)?;
        for (b, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
            self.shell.plasticity.reset(&self.shell.network, b); // of what is measured by time difference
            self.starts[b] = true;
        }
        self.synapses.reset(self.machine(), &self.shell.plasticity, starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.network.io.segment)?;
        if let Some(reach) = &mut self.reach {
            reach.before(&self.network, &self.starts, x)?;
        }
        self.starts.fill(false);
        let logits = self.network.forward(x)?;
        self.pending = Some(logits.clone());
        Ok(logits)
    }
}

impl<M: Machine> Learner for OnDevice<M> {
    fn learn(&mut self, y: &Targets) -> Result<Update> {
        let logits = self
            .pending
            .take()
            .ok_or_else(|| Error::shape("learn", "a predicted segment", "none since the last learn"))?;
        self.network.largest(&self.numbers, SQUARES)?;
        let loss = self.machine().loss(&logits, y)?;
        if loss.as_ref().is_none_or(|(value, _)| !value.is_finite()) {
            self.exploded(&wide(self.machine(), &self.numbers, SQUARES, self.network.blocks.len())?)?;
        }
        let update = self.updates;
        let tally = if self.shell.counting { Some(self.count(loss.is_some())?) } else { None };
        let [wanted, _] = self.shell.plasticity.differences.due(update);
        if wanted {
            if tally.is_none() {
                host::download_activations(&self.network, &mut self.shell.network)?;
            }
            self.shell.plasticity.keep_spikes(&self.shell.network, update);
        }
        self.synapses.observe(&self.network, &self.shell.plasticity, &self.shell.config, update)?;
        if let Some((loss, d_logits)) = loss {
            let loss = finite("loss", loss, update)?;
            return self.update(loss, &d_logits, tally, y);
        }
        self.network.finish()?;
        let counted = tally.as_ref().map_or_else(Activity::default, Tally::activity);
        let activity = Activity { pruned_share: self.shell.plasticity.pruned_share(), ..counted };
        let learning_rate = self.shell.train.schedule.at(update);
        Ok(Update { activity, learning_rate, operations: tally.map(|t| t.counts), ..Update::default() })
    }

    fn set_counting(&mut self, on: bool) {
        self.shell.counting = on;
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        check_streams("eval_streams", streams)?;
        let io = Io { streams, ..self.network.io };
        // nothing is learned there: no traces, no history
        let config = self.shell.config.without_traces(Credit::Tbptt);
        let weights = self.network.weights.clone();
        let params = &self.shell.network.params;
        let network = Network::new(self.machine(), &config, io, Membrane::Lag(0), params, weights, false)?;
        let shell = crate::network::Network::new(&config, &io, Membrane::Lag(0), &mut self.shell.params.bound())?;
        Ok(Box::new(Evaluator { config, network, shell, started: false, counted: None }))
    }

    fn cost(&self) -> Cost {
        self.shell.cost()
    }

    fn save(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let Bim { config, io, params, .. } = &self.shell;
        let membrane = Membrane::choose(config, F32_BITS);
        let mut network = crate::network::Network::new(config, io, membrane, &mut params.bound())?;
        host::download_weights(&self.network, &network.params)?;
        params.save(&mut snapshot)?;
        if let Some(reach) = &self.reach {
            let mut kept = Vec::new();
            for chunk in &reach.kept {
                host::download_state(&self.network, Some(&chunk.state), &mut network)?;
                let input = chunk.input.to_device(&candle_core::Device::Cpu)?;
                kept.push((network.carried_state(), chunk.starts.clone(), input));
            }
            let chunks = kept.iter().map(|(state, starts, input): &(_, Vec<bool>, Tensor)| (state, &starts[..], input));
            crate::reach::save(chunks, &mut snapshot)?;
        }
        host::download_state(&self.network, None, &mut network)?;
        network.save(&mut snapshot)?;
        let mut plasticity = Plasticity::new(config, &network, self.shell.plasticity.seed);
        plasticity.take_statistics(&self.shell.plasticity);
        self.synapses.download(self.machine(), &mut plasticity)?;
        plasticity.save(&mut snapshot)?;
        let mut at = 0;
        for (name, var) in self.shell.params.vars() {
            for (moments, part) in self.moments.iter().zip(["first", "second"]) {
                let mut values = vec![0.0; var.elem_count()];
                self.machine().download(At(moments, at), &mut values)?;
                let tensor = Tensor::from_vec(values, var.dims(), &candle_core::Device::Cpu)?;
                snapshot.optimizer.insert(format!("{name}.{part}"), tensor);
            }
            at += var.elem_count();
        }
        snapshot.counters.insert("updates".into(), self.updates);
        Ok(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.shell.load(snapshot)?;
        self.upload_weights()?;
        if let (Some(reach), Some(from)) = (&mut self.reach, &self.shell.reach) {
            reach.kept.clear();
            let own = self.shell.network.carried_state();
            for (state, starts, input) in from.chunks() {
                self.shell.network.restore_state(state)?;
                let kept = self.network.carried_state()?;
                host::upload_state(&self.network, Some(&kept), &mut self.shell.network)?;
                let (starts, input) = (starts.to_vec(), self.network.machine.place(input)?);
                reach.kept.push_back(Chunk { state: kept, starts, input });
            }
            self.shell.network.restore_state(&own)?;
        }
        host::upload_state(&self.network, None, &mut self.shell.network)?;
        self.synapses.upload(&self.network.machine, &self.shell.plasticity)?;
        let mut at = 0;
        for (name, var) in self.shell.params.vars() {
            for (moments, part) in self.moments.iter().zip(["first", "second"]) {
                let saved = snapshot.moment(&format!("{name}.{part}"), var.dims())?;
                self.machine().upload(&learner::read_f32(saved)?, At(moments, at))?;
            }
            at += var.elem_count();
        }
        self.updates = self.shell.adamw.updates();
        self.pending = None;
        Ok(())
    }
}

/// Prediction alone, over the weights of a learner.
struct Evaluator<M: Machine> {
    config: BimConfig,
    network: Network<M>,
    /// Where operations are counted.
    shell: crate::network::Network<f32>,
    started: bool,
    counted: Option<OpCounts>,
}

impl<M: Machine> Evaluator<M> {
    /// Moves the histories on behind the chunk last run.
    fn finish(&mut self) -> Result<()> {
        if std::mem::take(&mut self.started) { self.network.finish() } else { Ok(()) }
    }
}

impl<M: Machine> Predictor for Evaluator<M> {
    fn segment_len(&self) -> usize {
        self.network.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.finish()?;
        self.network.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        check_length(x, self.network.io.segment)?;
        self.finish()?;
        self.started = true;
        let logits = self.network.forward(x)?;
        if let Some(sum) = &mut self.counted {
            host::download_weights(&self.network, &self.shell.params)?;
            host::download_activations(&self.network, &mut self.shell)?;
            *sum += operations::count(&self.config, &self.shell, &[], false)?.counts;
        }
        Ok(logits)
    }

    fn count_predictions(&mut self, on: bool) {
        self.counted = on.then(OpCounts::default);
    }

    fn predicted(&mut self) -> Option<OpCounts> {
        self.counted.as_mut().map(std::mem::take)
    }
}
