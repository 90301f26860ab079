//! Losses that need a whole sequence, for learners that see less of it at once.

use candle_core::{DType, Device, Tensor};

use crate::ctc::{Transcripts, align};
use crate::operations::Work;
use crate::{Activity, Cost, Error, Learner, OpCounts, Predictor, Result, Sent, Snapshot, Targets, Update};

/// A learner of chunks, taught by transcripts of whole utterances in two passes.
///
/// [`Predictor::predict`] takes whole utterances. The first pass runs them through the learner's weights without learning
/// and keeps the logits alone; [`Learner::learn`] aligns the transcripts to these and runs the utterances again, chunk by
/// chunk, with the posteriors as targets. At frozen weights the gradients of the chunks add up to that of the transcripts'
/// loss; what the learner needs does not grow with the utterance, but for its input and its logits.
///
/// Both passes are paid for: the second is the forward pass of the update's operations, the first and the alignment are
/// [`OpCounts::passes`], a part of learning. A network in use makes one pass.
pub struct TwoPass {
    inner: Box<dyn Learner>,
    first: Chunked,
    streams: usize,
    starts: Vec<bool>,
    /// Input and logits of the first pass.
    pending: Option<(Tensor, Tensor)>,
}

impl TwoPass {
    /// Around a learner of `streams` streams; `longest` is the number of steps of the longest utterance.
    ///
    /// # Errors
    /// If the learner cannot make a predictor.
    pub fn new(inner: Box<dyn Learner>, streams: usize, longest: usize) -> Result<Self> {
        let mut first = Chunked { inner: inner.evaluator(streams)?, longest };
        first.count_predictions(true); // as learners do at first
        Ok(Self { inner, first, streams, starts: vec![true; streams], pending: None })
    }
}

impl Predictor for TwoPass {
    fn segment_len(&self) -> usize {
        self.first.longest
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.pending = None;
        self.starts.clear();
        self.starts.extend_from_slice(starts);
        self.first.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        if self.starts.len() != self.streams || self.starts.contains(&false) {
            let got = format!("{} of {} streams", self.starts.iter().filter(|s| **s).count(), self.streams);
            return Err(Error::shape("two passes", "utterances that start in every stream", got));
        }
        self.first.predicted(); // of a pass that nothing was learned from
        let logits = self.first.predict(x)?;
        self.pending = Some((x.clone(), logits.clone()));
        Ok(logits)
    }
}

impl Learner for TwoPass {
    fn learn(&mut self, y: &Targets) -> Result<Update> {
        let Targets::Transcripts { transcripts, weight } = y else {
            return Err(Error::shape("two passes", "transcripts as targets", "others"));
        };
        let Some((x, logits)) = self.pending.take() else {
            return Err(Error::shape("learn", "a prediction before it", "none"));
        };
        let (loss, posterior) = posteriors(transcripts, &logits)?;
        let before = self.first.predicted().map(|counts| first_pass(&counts, transcripts, &logits)).transpose()?;
        let chunk = self.inner.segment_len();
        let steps = x.dim(1)?;
        self.inner.reset(&self.starts)?;
        let mut whole = Whole::default();
        for from in (0..steps).step_by(chunk) {
            let part = |t: &Tensor| -> Result<Tensor> { Ok(t.narrow(1, from, chunk.min(steps - from))?.contiguous()?) };
            self.inner.predict(&part(&x)?)?;
            let targets =
                Targets::Posteriors { probability: part(&posterior)?.to_device(x.device())?, weight: part(weight)? };
            whole.add(self.inner.learn(&targets)?, chunk.min(steps - from));
        }
        self.starts.fill(false);
        let mut update = whole.update();
        match (&mut update.operations, before) {
            (Some(operations), Some(before)) => *operations += before,
            (Some(_) | None, _) => update.operations = None, // half of them would pass for all
        }
        Ok(Update { loss, ..update })
    }

    fn set_counting(&mut self, on: bool) {
        self.inner.set_counting(on);
        self.first.count_predictions(on);
    }

    fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(Chunked { inner: self.inner.evaluator(streams)?, longest: self.first.longest }))
    }

    fn cost(&self) -> Cost {
        self.inner.cost()
    }

    fn save(&self) -> Result<Snapshot> {
        self.inner.save()
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.pending = None;
        self.inner.load(snapshot)
    }
}

/// Loss per step, `None` without steps, and the posteriors `[B, K, O]`; zeros in padding.
fn posteriors(transcripts: &Transcripts, logits: &Tensor) -> Result<(Option<f64>, Tensor)> {
    let (b, k, o) = logits.dims3()?;
    if (transcripts.labels.len(), transcripts.steps.len()) != (b, b) {
        let got = (transcripts.labels.len(), transcripts.steps.len());
        return Err(Error::shape("CTC transcripts and lengths", (b, b), got));
    }
    let logits = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (mut sum, mut all) = (0.0, Vec::with_capacity(b * k * o));
    for (z, (labels, &steps)) in logits.chunks(k * o).zip(transcripts.labels.iter().zip(&transcripts.steps)) {
        if steps > k {
            return Err(Error::shape("CTC utterance", format!("at most {k} steps"), steps));
        }
        let end = all.len() + k * o;
        if steps > 0 {
            let aligned = align(&z[..steps * o], o, labels, transcripts.blank)?;
            if !aligned.loss.is_finite() {
                let got = format!("{} labels in {steps} steps, loss {}", labels.len(), aligned.loss);
                return Err(Error::shape("CTC utterance", "labels that fit and logits that are numbers", got));
            }
            sum += aligned.loss;
            all.extend(aligned.posterior);
        }
        all.resize(end, 0.0);
    }
    let total = transcripts.total_steps();
    let loss = (total > 0).then(|| sum / total as f64);
    Ok((loss, Tensor::from_vec(all, (b, k, o), &Device::Cpu)?))
}

/// The first pass and the alignment as a part of learning. Neither is in what is said of the forward pass alone: its dense
/// number, its neurons, the conventions.
fn first_pass(counts: &OpCounts, transcripts: &Transcripts, logits: &Tensor) -> Result<OpCounts> {
    let mut passes = counts.forward;
    passes += transcripts.work(logits.dim(2)?);
    // the logits, written and read
    passes += Work { state_words: 2 * logits.elem_count() as u64, ..Work::default() };
    let passes_neuron_updates = counts.neuron_updates;
    Ok(OpCounts { passes, passes_neuron_updates, unknown: counts.unknown, ..OpCounts::default() })
}

/// The updates of an utterance's chunks as one. The gradient norm is the largest, the way of the weights and the counts are
/// sums, shares of spikes and values are means over steps, and the rest is that of the last chunk.
#[derive(Default)]
struct Whole {
    update: Update,
    /// Sums over steps of the shares that [`Activity`] has of them.
    spikes: Option<f64>,
    values: Option<f64>,
    steps: usize,
}

impl Whole {
    fn add(&mut self, chunk: Update, steps: usize) {
        let before = std::mem::take(&mut self.update);
        let is_first = self.steps == 0;
        let sum = |sum: Option<f64>, share: Option<f64>| {
            let share = share.map(|share| share * steps as f64);
            if is_first { share } else { sum.zip(share).map(|(sum, share)| sum + share) }
        };
        self.spikes = sum(self.spikes, chunk.activity.spike_sparsity);
        self.values = sum(self.values, chunk.activity.activation_sparsity);
        self.steps += steps;
        let operations = match (before.operations, chunk.operations) {
            (Some(mut sum), Some(more)) => {
                sum += more;
                Some(sum)
            }
            (_, more) => more.filter(|_| is_first),
        };
        let mut layers = before.layers;
        layers.extend(chunk.layers);
        self.update = Update {
            grad_norm: before.grad_norm.max(chunk.grad_norm),
            update_norm: before.update_norm + chunk.update_norm,
            updates: before.updates + chunk.updates,
            operations,
            layers,
            ..chunk
        };
    }

    fn update(self) -> Update {
        let mean = |sum: Option<f64>| sum.map(|sum| sum / self.steps as f64);
        let (spike_sparsity, activation_sparsity) = (mean(self.spikes), mean(self.values));
        let activity = Activity { spike_sparsity, activation_sparsity, ..self.update.activity };
        Update { activity, ..self.update }
    }
}

/// A predictor that takes sequences longer than its segments.
struct Chunked {
    inner: Box<dyn Predictor>,
    longest: usize,
}

impl Predictor for Chunked {
    fn segment_len(&self) -> usize {
        self.longest
    }

    fn reset(&mut self, starts: &[bool]) -> Result<()> {
        self.inner.reset(starts)
    }

    fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
        let (chunk, steps) = (self.inner.segment_len(), x.dim(1)?);
        if !(1..=self.longest).contains(&steps) {
            return Err(Error::shape("utterance", format!("1 to {} steps", self.longest), steps));
        }
        let mut outputs = Vec::new();
        for from in (0..steps).step_by(chunk) {
            outputs.push(self.inner.predict(&x.narrow(1, from, chunk.min(steps - from))?.contiguous()?)?);
        }
        Ok(Tensor::cat(&outputs, 1)?)
    }

    fn count_predictions(&mut self, on: bool) {
        self.inner.count_predictions(on);
    }

    fn predicted(&mut self) -> Option<OpCounts> {
        self.inner.predicted()
    }

    fn sent(&mut self, x: &Tensor) -> Result<Vec<Sent>> {
        let (chunk, steps) = (self.inner.segment_len(), x.dim(1)?);
        let mut all: Vec<Sent> = Vec::new();
        for from in (0..steps).step_by(chunk) {
            let segment = x.narrow(1, from, chunk.min(steps - from))?.contiguous()?;
            Sent::append(&mut all, self.inner.sent(&segment)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const OUTPUTS: usize = 3;

    /// Adds up what it has seen of each stream, and writes down what is done to it.
    #[derive(Default)]
    struct Recorder {
        sums: Vec<f32>,
        counted: Option<OpCounts>,
        log: Arc<Mutex<Vec<String>>>,
        taught: Arc<Mutex<Vec<Vec<f32>>>>,
        name: &'static str,
    }

    impl Predictor for Recorder {
        fn segment_len(&self) -> usize {
            2
        }

        fn reset(&mut self, starts: &[bool]) -> Result<()> {
            self.sums.resize(starts.len(), 0.0);
            self.sums.iter_mut().zip(starts).filter(|(_, start)| **start).for_each(|(sum, _)| *sum = 0.0);
            self.log.lock().expect("lock").push(format!("{} reset", self.name));
            Ok(())
        }

        fn predict(&mut self, x: &Tensor) -> Result<Tensor> {
            let (b, k, _) = x.dims3()?;
            self.log.lock().expect("lock").push(format!("{} predict {k}", self.name));
            let x = x.squeeze(2)?.to_vec2::<f32>()?;
            if let Some(counted) = &mut self.counted {
                counted.forward.acs += 10 * k as u64;
                counted.macs_dense += 1;
                counted.neuron_updates += 100 * k as u64;
            }
            let mut logits = Vec::new();
            for (sum, row) in self.sums.iter_mut().zip(&x) {
                for x in row {
                    *sum += x;
                    logits.extend([*sum, 0.1 * *sum * *sum, -*sum]);
                }
            }
            Ok(Tensor::from_vec(logits, (b, k, OUTPUTS), &Device::Cpu)?)
        }

        fn count_predictions(&mut self, on: bool) {
            self.counted = on.then(OpCounts::default);
        }

        fn predicted(&mut self) -> Option<OpCounts> {
            self.counted.as_mut().map(std::mem::take)
        }

        fn sent(&mut self, x: &Tensor) -> Result<Vec<Sent>> {
            let levels = x.get(0)?.flatten_all()?.to_vec1()?;
            self.predict(x)?;
            Ok(vec![Sent { layer: "all".to_owned(), neurons: 1, levels }])
        }
    }

    impl Learner for Recorder {
        fn learn(&mut self, y: &Targets) -> Result<Update> {
            let Targets::Posteriors { probability, weight } = y else { panic!("{y:?}") };
            self.log.lock().expect("lock").push(format!("learn {:?}", weight.to_vec2::<f32>()?));
            self.taught.lock().expect("lock").push(probability.flatten_all()?.to_vec1()?);
            let forward = Work { acs: 10 * weight.dim(1)? as u64, ..Work::default() };
            let operations = Some(OpCounts { macs_dense: 5, forward, ..OpCounts::default() });
            let activity = Activity { spike_sparsity: Some(weight.dim(1)? as f64), ..Activity::default() };
            let grad_norm = weight.dim(1)? as f64;
            Ok(Update { grad_norm, update_norm: 0.5, updates: 1, activity, operations, ..Update::default() })
        }

        fn set_counting(&mut self, on: bool) {
            self.log.lock().expect("lock").push(format!("counting {on}"));
        }

        fn evaluator(&self, streams: usize) -> Result<Box<dyn Predictor>> {
            let name = if streams == 2 { "first" } else { "evaluation" };
            Ok(Box::new(Self { log: Arc::clone(&self.log), sums: vec![0.0; streams], name, ..Self::default() }))
        }

        fn cost(&self) -> Cost {
            Cost::default()
        }

        fn save(&self) -> Result<Snapshot> {
            Ok(Snapshot::default())
        }

        fn load(&mut self, _: &Snapshot) -> Result<()> {
            Ok(())
        }
    }

    fn targets() -> Result<Targets> {
        let transcripts = Transcripts { labels: vec![vec![1, 2], vec![2]], steps: vec![5, 2], blank: 0 };
        let weight = Tensor::new(&[[1f32, 1., 1., 1., 1.], [1., 1., 0., 0., 0.]], &Device::Cpu)?;
        Ok(Targets::Transcripts { transcripts, weight })
    }

    fn input() -> Result<Tensor> {
        let x = Tensor::new(&[[0.5f32, 1., -1., 2., 0.], [1., 1., 0., 0., 0.]], &Device::Cpu)?;
        Ok(x.unsqueeze(2)?)
    }

    #[test]
    fn first_without_learning_then_again_with_the_posteriors_of_the_first() -> Result<()> {
        let recorder = Recorder { name: "second", ..Recorder::default() };
        let (log, taught) = (Arc::clone(&recorder.log), Arc::clone(&recorder.taught));
        let mut learner = TwoPass::new(Box::new(recorder), 2, 5)?;
        learner.reset(&[true, true])?;
        let logits = learner.predict(&input()?)?;
        let update = learner.learn(&targets()?)?;
        assert_eq!(
            *log.lock().expect("lock"),
            [
                "first reset",
                "first predict 2",
                "first predict 2",
                "first predict 1",
                "second reset",
                "second predict 2",
                "learn [[1.0, 1.0], [1.0, 1.0]]",
                "second predict 2",
                "learn [[1.0, 1.0], [0.0, 0.0]]",
                "second predict 1",
                "learn [[1.0], [0.0]]",
            ]
        );
        // what was taught is the alignment of the logits that were returned
        let rows = logits.to_vec3::<f32>()?;
        let flat = |b: usize, steps: usize| rows[b][..steps].concat();
        let (a, b) = (align(&flat(0, 5), OUTPUTS, &[1, 2], 0)?, align(&flat(1, 2), OUTPUTS, &[2], 0)?);
        let taught = taught.lock().expect("lock");
        assert_eq!(taught[0][..6], a.posterior[..6]);
        assert_eq!(taught[0][6..], b.posterior[..]);
        assert_eq!(taught[1][..6], a.posterior[6..12]);
        assert_eq!(taught[1][6..], [0.0; 6]);
        assert_eq!(taught[2][..3], a.posterior[12..]);
        assert!((update.loss.expect("loss") - (a.loss + b.loss) / 7.0).abs() < 1e-12);
        assert!((update.update_norm - 1.5).abs() < 1e-12 && (update.grad_norm - 2.0).abs() < 1e-12);
        assert_eq!(update.updates, 3);
        // chunks of 2, 2 and 1 steps
        assert_eq!((update.activity.spike_sparsity, update.activity.activation_sparsity), (Some(9.0 / 5.0), None));
        Ok(())
    }

    /// An utterance is read twice: once forward, once more as a part of learning, which also aligns it.
    #[test]
    fn both_passes_and_the_alignment_are_counted() -> Result<()> {
        let mut learner = TwoPass::new(Box::new(Recorder::default()), 2, 5)?;
        let mut counts = || -> Result<OpCounts> {
            learner.reset(&[true, true])?;
            learner.predict(&input()?)?; // and nothing is learned from it
            learner.predict(&input()?)?;
            Ok(learner.learn(&targets()?)?.operations.expect("counted"))
        };
        let c = counts()?;
        assert_eq!(c, counts()?, "what was counted is taken");
        // five steps of 10, in three chunks
        assert_eq!((c.forward.acs, c.macs_dense), (50, 15));
        assert_eq!((c.passes.acs, c.learning().acs), (50, 50));
        assert_eq!((c.neuron_updates, c.passes_neuron_updates), (0, 500));
        let mut aligned = crate::ctc::alignment_work(5, OUTPUTS, &[1, 2]);
        aligned += crate::ctc::alignment_work(2, OUTPUTS, &[2]);
        assert!(aligned.elementwise > 0);
        assert_eq!(c.passes.elementwise, aligned.elementwise);
        assert_eq!(c.passes.state_words, aligned.state_words + 2 * (2 * 5 * OUTPUTS) as u64);
        assert_eq!(c.without_learning().learning(), Work::default());
        Ok(())
    }

    #[test]
    fn a_pass_that_is_not_counted_leaves_no_half_counts() -> Result<()> {
        let mut learner = TwoPass::new(Box::new(Recorder::default()), 2, 5)?;
        learner.set_counting(false); // the recorder goes on
        learner.reset(&[true, true])?;
        learner.predict(&input()?)?;
        assert!(learner.learn(&targets()?)?.operations.is_none());
        Ok(())
    }

    #[test]
    fn the_loss_is_that_of_one_pass() -> Result<()> {
        let mut learner = TwoPass::new(Box::new(Recorder::default()), 2, 5)?;
        learner.reset(&[true, true])?;
        let logits = learner.predict(&input()?)?;
        let whole = crate::loss(&logits, &targets()?)?.expect("steps").to_scalar::<f32>()?;
        let two = learner.learn(&targets()?)?.loss.expect("steps");
        assert!((f64::from(whole) - two).abs() < 1e-6 * two, "{whole} {two}");
        Ok(())
    }

    #[test]
    fn what_it_cannot_do_it_says() -> Result<()> {
        let mut learner = TwoPass::new(Box::new(Recorder::default()), 2, 5)?;
        assert!(learner.learn(&targets()?).is_err(), "nothing was predicted");
        learner.reset(&[true, false])?;
        assert!(learner.predict(&input()?).is_err(), "the second stream goes on");
        learner.reset(&[true, true])?;
        learner.predict(&input()?)?;
        let weight = Tensor::zeros((2, 5), DType::F32, &Device::Cpu)?;
        let class = Tensor::zeros((2, 5), DType::U32, &Device::Cpu)?;
        assert!(learner.learn(&Targets::Classes { class, weight: weight.clone() }).is_err(), "no transcripts");
        learner.reset(&[true, true])?;
        learner.predict(&input()?)?;
        let tight = Transcripts { labels: vec![vec![1, 1], vec![]], steps: vec![2, 0], blank: 0 };
        let error = learner.learn(&Targets::Transcripts { transcripts: tight, weight }).expect_err("does not fit");
        assert!(error.to_string().contains("2 labels in 2 steps"), "{error}");
        assert!(learner.predict(&Tensor::zeros((2, 6, 1), DType::F32, &Device::Cpu)?).is_err(), "too long");
        Ok(())
    }

    /// What neurons send on a recording that is longer than a segment is all of it, in order.
    #[test]
    fn what_is_sent_goes_on_from_segment_to_segment() -> Result<()> {
        let mut chunked =
            Chunked { inner: Box::new(Recorder { sums: vec![0.0; 2], ..Recorder::default() }), longest: 7 };
        let x = Tensor::arange(0f32, 10.0, &Device::Cpu)?.reshape((2, 5, 1))?;
        let sent = chunked.sent(&x)?;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].levels, [0.0, 1.0, 2.0, 3.0, 4.0]);
        Ok(())
    }
}
