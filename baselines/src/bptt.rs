use candle_core::{DType, Device, Tensor, Var};
use learner::{
    Activity, AdamW, Cost, Error, Group, InputKind, Io, Learner, OpCounts, ParamSource, Params, Predictor, Result,
    Sent, Shapes, Snapshot, Targets, Update, global_norm, loss,
};

use learner::operations::{ACCUMULATE_ELEMENTWISE, ACCUMULATE_WORDS, LOSS_ELEMENTWISE};

use crate::accumulate::Accumulator;
use crate::count::Counted;
use crate::{BpttConfig, State, count, ops, sent};

/// Updates between rows of layer diagnostics.
const DIAGNOSE_EVERY: u64 = 100;

/// A model over segments. Built from new parameters it is trained, from [`learner::Bound`] ones it only predicts.
pub trait SequenceModel: Send + Sized + 'static {
    /// Sizes and choices.
    type Config: Clone + Send;

    /// Whether it has spiking neurons.
    const SPIKES: bool = false;

    /// The model with its parameters from `source`.
    ///
    /// # Errors
    /// If the configuration cannot work or a parameter cannot be had.
    fn new(config: &Self::Config, io: &Io, source: &mut dyn ParamSource) -> Result<Self>;

    /// State at the start of `streams` streams: all zeros.
    ///
    /// # Errors
    /// If it cannot be allocated.
    fn initial_state(&self, streams: usize) -> Result<State>;

    /// Maps a segment and the state before it to outputs and the state after it: `u32` tokens `[B, K]` or frames `[B, K, F]`, `K`
    /// at most [`Io::segment`], to logits `[B, K, O]` in the parameters' element type. Steps behind a recording's end are
    /// zeros; outputs before them do not depend on them.
    ///
    /// # Errors
    /// If shapes do not fit.
    fn forward(&self, x: &Tensor, state: &State) -> Result<(Tensor, State)>;

    /// How the optimiser treats the parameter `name`; `by_rank` is what it does unless a model knows better.
    #[must_use]
    fn group(name: &str, by_rank: Group) -> Group {
        let _ = name;
        by_rank
    }
}

/// Truncated backpropagation through time (Werbos 1990; Williams & Peng 1990): the state is carried from segment to
/// segment, the gradient stops at the segment's start.
pub struct BpttLearner<M: SequenceModel> {
    config: M::Config,
    train: BpttConfig,
    params: Params,
    optimizer: AdamW,
    accumulated: Accumulator,
    runner: Runner<M>,
    counting: bool,
    /// Outputs of the last prediction, with their graph, and what was counted on the way.
    pending: Option<(Tensor, Option<Counted>)>,
}

/// Runs `f` on a thread of the pool: from there it hands work to the others without going to sleep until they have done all of
/// it, which a thread outside does at every parallel loop.
fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// A model and its streams.
struct Runner<M> {
    model: M,
    io: Io,
    state: State,
    /// What products are made in, if not in the operands' element type.
    products: Option<DType>,
}

impl<M: SequenceModel> Runner<M> {
    fn new(config: &M::Config, io: Io, products: Option<DType>, source: &mut dyn ParamSource) -> Result<Self> {
        for (key, value) in [("streams", io.streams), ("segment", io.segment), ("outputs", io.outputs)] {
            if value == 0 {
                return Err(Error::Config { key, problem: "expected 1 or more, got 0".into() });
            }
        }
        let model = M::new(config, &io, source)?;
        let state = model.initial_state(io.streams)?;
        Ok(Self { model, io, state, products })
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        if starts.len() != self.io.streams {
            return Err(Error::shape("reset", format!("{} streams", self.io.streams), starts.len()));
        }
        self.state.reset(starts)
    }

    /// Outputs with their graph, if the model has one; advances the state.
    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        let (outputs, state) = ops::with_products_in(self.products, || self.model.forward(x, &self.state))?;
        self.state = state;
        Ok(outputs)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let Io { streams, segment, input, .. } = self.io;
        let (fits, frame, dtype) = match (input, x.dims()) {
            (InputKind::Tokens { .. }, &[b, k]) => {
                (b == streams && (1..=segment).contains(&k), String::new(), DType::U32)
            }
            (InputKind::Frames { width }, &[b, k, f]) => {
                (b == streams && (1..=segment).contains(&k) && f == width, format!(", {width}"), DType::F32)
            }
            (InputKind::Tokens { .. }, _) => (false, String::new(), DType::U32),
            (InputKind::Frames { width }, _) => (false, format!(", {width}"), DType::F32),
        };
        if !fits || x.dtype() != dtype {
            return Err(Error::Shape {
                operand: "segment".into(),
                expected: format!("{dtype:?} [{streams}, 1 to {segment}{frame}]"),
                got: format!("{:?} {:?}", x.dtype(), x.dims()),
            });
        }
        Ok(())
    }
}

impl<M: SequenceModel> BpttLearner<M> {
    /// A model with new parameters, drawn from `seed`.
    ///
    /// # Errors
    /// If the configuration cannot work or the parameters cannot be allocated.
    pub fn new(config: M::Config, io: Io, train: BpttConfig, seed: u64, device: &Device) -> Result<Self> {
        train.check()?;
        let mut params = Params::new(seed, DType::F32, device);
        let products =
            train.precision.products(device).map_err(|problem| Error::Config { key: "precision", problem })?;
        let runner = Runner::new(&config, io, products, &mut params)?;
        let groups = params.vars().iter().map(|(n, var)| (n.clone(), var.clone(), M::group(n, Group::by_rank(var))));
        let optimizer = AdamW::new(train.adamw, groups)?;
        let accumulated = Accumulator::default();
        Ok(Self { config, train, params, optimizer, accumulated, runner, counting: true, pending: None })
    }

    /// What a learner of these settings would cost, from its shapes alone: nothing of it is made.
    ///
    /// # Errors
    /// What [`BpttLearner::new`] refuses.
    pub fn plan(config: &M::Config, io: Io, train: BpttConfig, device: &Device) -> Result<Cost> {
        train.check()?;
        let products =
            train.precision.products(device).map_err(|problem| Error::Config { key: "precision", problem })?;
        let mut shapes = Shapes::new(DType::F32);
        let runner = Runner::<M>::new(config, io, products, &mut shapes)?;
        AdamW::new(train.adamw, [])?;
        Ok(Cost { parameters: shapes.count(), state_bytes: runner.state.bytes(), trace_bytes: 0 })
    }

    /// Gradients in the order of the parameters; zeros for one that the outputs do not depend on.
    fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let (store, mut beside) = ops::beside(|| loss.backward());
        let mut store = store?;
        let gradient = |var: &Var| match (store.remove(var), beside.remove(&var.id())) {
            (Some(a), Some(b)) => a + b,
            (Some(gradient), None) | (None, Some(gradient)) => Ok(gradient),
            (None, None) => var.zeros_like(),
        };
        Ok(self.params.vars().iter().map(|(_, var)| var).map(gradient).collect::<candle_core::Result<_>>()?)
    }

    /// An update from the outputs of a segment and what was counted on the way.
    fn learn_from(&mut self, outputs: &Tensor, counted: Option<Counted>, y: &Targets) -> Result<Update> {
        let learning_rate = self.train.schedule.at(self.optimizer.updates());
        let Some(loss) = loss(outputs, y)? else {
            let tally = counted.map(Counted::whole);
            let operations = tally.as_ref().map(|t| t.counts.without_learning());
            let activity = tally.map_or_else(Activity::default, |t| t.activity());
            return Ok(Update { learning_rate, activity, operations, ..Update::default() });
        };
        let value = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(self.diverged("loss", value, None));
        }
        let gradients = self.gradients(&loss)?;
        let mut update = Update { loss: Some(value), learning_rate, ..Update::default() };
        let accumulate = self.train.accumulate.get();
        let ready = if accumulate > 1 {
            update.grad_norm = self.finite_norm(&gradients)?; // of this segment, if others are still to come
            self.accumulated.take(&gradients, y, accumulate)?
        } else {
            Some(gradients)
        };
        let updates = ready.is_some();
        // the update changes the weights that are looked at
        let tally = counted.map(Counted::whole);
        if let Some(gradients) = ready {
            let stepped = self.optimizer.clipped_step(&gradients, self.train.clip, learning_rate)?;
            update.grad_norm = stepped.grad_norm;
            let Some(update_norm) = stepped.update_norm else {
                self.finite_norm(&gradients)?; // says where it is not
                return Err(self.diverged("gradient norm", stepped.grad_norm, None));
            };
            update.update_norm = update_norm;
            if !update.update_norm.is_finite() {
                return Err(self.diverged("update norm", update.update_norm, None));
            }
            update.updates = 1;
        }
        if let Some(tally) = tally {
            let mut operations = tally.counts;
            operations.reverse.elementwise += LOSS_ELEMENTWISE * outputs.elem_count() as u64;
            operations.passes += y.alignment(self.runner.io.outputs);
            if accumulate > 1 {
                operations.optimizer.elementwise += ACCUMULATE_ELEMENTWISE * self.params.count();
                operations.optimizer.weight_words += ACCUMULATE_WORDS * self.params.count();
            }
            if updates {
                operations.add_adamw(self.params.count());
            }
            update.operations = Some(operations);
            update.activity = tally.activity();
            // the update just made was counted already
            if updates && (self.optimizer.updates() - 1).is_multiple_of(DIAGNOSE_EVERY) {
                update.layers = tally.layer_values((outputs.elem_count() / self.runner.io.outputs) as u64);
            }
        }
        Ok(update)
    }

    fn diverged(&self, quantity: &'static str, value: f64, layer: Option<String>) -> Error {
        Error::Diverged { quantity, value, update: self.optimizer.updates(), layer }
    }

    /// Norm of the whole gradient; an error that names the first parameter whose gradient is not finite.
    fn finite_norm(&self, gradients: &[Tensor]) -> Result<f64> {
        let norm = global_norm(gradients)?;
        if norm.is_finite() {
            return Ok(norm);
        }
        for ((name, _), gradient) in self.params.vars().iter().zip(gradients) {
            if !global_norm(std::slice::from_ref(gradient))?.is_finite() {
                return Err(self.diverged("gradient norm", norm, Some(name.clone())));
            }
        }
        Err(self.diverged("gradient norm", norm, None))
    }
}

impl<M: SequenceModel> Predictor for BpttLearner<M> {
    fn segment_len(&self) -> usize {
        self.runner.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.runner.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        in_pool(|| {
            self.pending = None; // frees the old graph before the new one grows
            let (outputs, counted) = if self.counting {
                let (outputs, counted) = count::during(|| self.runner.predict(x));
                (outputs?, Some(counted))
            } else {
                (self.runner.predict(x)?, None)
            };
            let detached = outputs.detach();
            self.pending = Some((outputs, counted));
            Ok(detached)
        })
    }
}

impl<M: SequenceModel> Learner for BpttLearner<M> {
    fn learn(&mut self, y: &Targets) -> Result<Update> {
        let Some((outputs, counted)) = self.pending.take() else {
            return Err(Error::shape("learn", "a prediction before it", "none"));
        };
        in_pool(move || self.learn_from(&outputs, counted, y))
    }

    fn set_counting(&mut self, on: bool) {
        self.counting = on;
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        let io = Io { streams, ..self.runner.io };
        let runner = Runner::<M>::new(&self.config, io, self.runner.products, &mut self.params.bound())?;
        Ok(Box::new(Evaluator { runner, counted: None }))
    }

    fn cost(&self) -> Cost {
        Cost { parameters: self.params.count(), state_bytes: self.runner.state.bytes(), trace_bytes: 0 }
    }

    fn save(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        self.params.save(&mut snapshot)?;
        self.optimizer.save(&mut snapshot)?;
        self.accumulated.save(&self.params, &mut snapshot)?;
        self.runner.state.save(&mut snapshot);
        Ok(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.pending = None;
        self.params.load(snapshot)?;
        self.optimizer.load(snapshot)?;
        self.accumulated.load(&self.params, snapshot)?;
        self.runner.state.load(snapshot)
    }
}

/// The same weights without gradients, on streams of its own. Sees every later update.
struct Evaluator<M> {
    runner: Runner<M>,
    /// Operations so far, if they are counted.
    counted: Option<OpCounts>,
}

impl<M: SequenceModel> Predictor for Evaluator<M> {
    fn segment_len(&self) -> usize {
        self.runner.io.segment
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.runner.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        in_pool(|| {
            let Some(sum) = &mut self.counted else { return self.runner.predict(x) };
            let (outputs, counted) = count::during(|| self.runner.predict(x));
            // the reverse pass that was counted with it is not made
            *sum += counted.whole().counts.without_learning();
            outputs
        })
    }

    fn count_predictions(&mut self, on: bool) {
        self.counted = on.then(OpCounts::default);
    }

    fn predicted(&mut self) -> Option<OpCounts> {
        self.counted.as_mut().map(std::mem::take)
    }

    fn sent(&mut self, x: &Tensor) -> Result<Vec<Sent>> {
        if !M::SPIKES {
            return Ok(Vec::new());
        }
        in_pool(|| Ok(sent::during(|| self.runner.predict(x))?.1))
    }
}
