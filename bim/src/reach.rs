//! Truncated backpropagation that reaches further back than the chunk it learns from: `BPTT(h; h′)` of Williams and Peng (1990),
//! with an update every `h′ = K` steps and credit over the last `h` steps. It is the control for traces at equal updates.
//!
//! The state before each of the last chunks is kept with the chunk's input. To learn, a second network on the present weights
//! runs over them again and backpropagates the last chunk's loss through them all.

use std::collections::{BTreeMap, VecDeque};

use candle_core::Tensor;
use learner::operations::{Tally, Work};
use learner::{Bound, Error, Result, Snapshot};

use crate::config::BimConfig;
use crate::diagnose::through_time;
use crate::network::Network;
use crate::operations;
use crate::params::NetworkParams;
use crate::rule::Membrane;

/// Names in a snapshot.
const CHUNKS: &str = "reach.chunks";
const STATE: &str = "reach.state.";
const STARTS: &str = "reach.starts.";
const INPUT: &str = "reach.input.";

/// A chunk that was run, as the network met it.
struct Chunk {
    /// What the network carried before it, by name.
    state: BTreeMap<String, Vec<f32>>,
    /// The streams that began anew with it.
    starts: Vec<bool>,
    input: Tensor,
}

/// The last chunks, and the network that runs over them again.
pub(crate) struct Reach {
    config: BimConfig,
    chunks: usize,
    network: Network<f32>,
    kept: VecDeque<Chunk>,
}

impl Reach {
    /// Nothing run yet; `None` where credit stays within the chunk of at most `segment` steps.
    ///
    /// # Errors
    /// If the network cannot be built.
    pub fn new(config: &BimConfig, segment: usize, network: &Network<f32>, bound: &Bound) -> Result<Option<Self>> {
        let Some(chunks) = chunks(config, segment) else { return Ok(None) };
        let network = Network::new(config, &network.io(), Membrane::Lag(0), &mut bound.clone())?;
        Ok(Some(Self { config: config.clone(), chunks, network, kept: VecDeque::new() }))
    }

    /// Numbers kept: states of the network, one for each chunk, and the state of the second network.
    pub fn carried_numbers(&self) -> usize {
        (self.chunks + 1) * self.network.carried_numbers()
    }

    /// Before a chunk is run. `network` has the state before the chunk, streams that begin anew with it at rest.
    pub fn before(&mut self, network: &mut Network<f32>, starts: &[bool], input: &Tensor) {
        if self.kept.len() == self.chunks {
            self.kept.pop_front();
        }
        self.kept.push_back(Chunk { state: network.carried_state(), starts: starts.to_vec(), input: input.clone() });
    }

    /// What spikes cost is what they cost in the network that learns.
    pub fn take_prices(&mut self, network: &Network<f32>) {
        self.network.take_prices(network);
    }

    /// Adds the gradient of the last chunk's loss through all chunks that are kept. Where a `tally` is given, it gets the passes
    /// over them: forward once more, and back.
    ///
    /// # Errors
    /// If a chunk does not fit the network.
    pub fn add_grads(
        &mut self,
        d_logits: &[f32],
        grads: &mut NetworkParams<Vec<f32>>,
        mut tally: Option<&mut Tally>,
    ) -> Result<()> {
        let Some(first) = self.kept.front() else {
            return Err(Error::shape("learn", "a chunk that was run", "none"));
        };
        self.network.restore_state(&first.state)?;
        let chunks: Vec<(Vec<bool>, Tensor)> = self.kept.iter().map(|c| (c.starts.clone(), c.input.clone())).collect();
        if let Some(tally) = &mut tally {
            tally.counts.reverse = Work::default(); // the chunk is gone back through with the others
        }
        let config = &self.config;
        let windowed = through_time(&mut self.network, &chunks, d_logits, |network| {
            if let Some(tally) = &mut tally {
                let counts = operations::count(config, network, &[], true)?.counts;
                tally.counts.passes += counts.forward;
                tally.counts.reverse += counts.reverse;
            }
            Ok(())
        })?;
        for (to, from) in grads.iter_mut().zip(windowed.iter()) {
            crate::kernels::add(from, to);
        }
        Ok(())
    }

    /// Adds the kept chunks to a snapshot.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn save(&self, snapshot: &mut Snapshot) -> Result<()> {
        save(self.kept.iter().map(|c| (&c.state, &c.starts[..], &c.input)), snapshot)
    }

    /// The kept chunks: the state before each, the streams that began anew with it, its input.
    #[cfg(any(feature = "cuda", test))]
    pub fn chunks(&self) -> impl Iterator<Item = (&BTreeMap<String, Vec<f32>>, &[bool], &Tensor)> {
        self.kept.iter().map(|c| (&c.state, &c.starts[..], &c.input))
    }

    /// Restores what [`Reach::save`] added.
    ///
    /// # Errors
    /// If something is missing.
    pub fn load(&mut self, network: &mut Network<f32>, snapshot: &Snapshot) -> Result<()> {
        self.kept.clear();
        let names: Vec<String> = network.carried_state().into_keys().collect();
        for i in 0..snapshot.counter(CHUNKS)? {
            let starts = snapshot.state(&format!("{STARTS}{i}"))?.to_vec1::<u8>()?;
            let input = snapshot.state(&format!("{INPUT}{i}"))?.clone();
            let read = |name: &String| -> Result<(String, Vec<f32>)> {
                Ok((name.clone(), learner::read_f32(snapshot.state(&format!("{STATE}{i}.{name}"))?)?))
            };
            let state = names.iter().map(read).collect::<Result<_>>()?;
            self.kept.push_back(Chunk { state, starts: starts.iter().map(|s| *s != 0).collect(), input });
        }
        Ok(())
    }
}

/// Adds chunks to a snapshot: the state before each, the streams that began anew with it, its input.
///
/// # Errors
/// If a tensor cannot be made.
pub(crate) fn save<'a>(
    chunks: impl Iterator<Item = (&'a BTreeMap<String, Vec<f32>>, &'a [bool], &'a Tensor)>,
    snapshot: &mut Snapshot,
) -> Result<()> {
    let cpu = &candle_core::Device::Cpu;
    let mut count = 0u64;
    for (i, (state, starts, input)) in chunks.enumerate() {
        let marks: Vec<u8> = starts.iter().map(|s| u8::from(*s)).collect();
        snapshot.state.insert(format!("{STARTS}{i}"), Tensor::new(&marks[..], cpu)?);
        snapshot.state.insert(format!("{INPUT}{i}"), input.clone());
        for (name, values) in state {
            snapshot.state.insert(format!("{STATE}{i}.{name}"), Tensor::new(&values[..], cpu)?);
        }
        count += 1;
    }
    snapshot.counters.insert(CHUNKS.into(), count);
    Ok(())
}

/// Chunks that credit reaches back over; `None` if it stays in one.
pub(crate) fn chunks(config: &BimConfig, segment: usize) -> Option<usize> {
    let chunks = (config.reach as usize).div_ceil(segment.max(1));
    (chunks >= 2).then_some(chunks)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use learner::{Learner, Predictor, Result, Targets};

    use crate::BimConfig;
    use crate::config::{Credit, Share};
    use crate::fixture::{bim, learn_tokens, small, tokens};

    fn config(credit: Credit, reach: u64) -> BimConfig {
        BimConfig { lambda: Share(1.0), credit, reach, ..small() }
    }

    /// At weights that stand still, chunks of 4 with a reach of 16 give the gradient that one window of 16 gives, if only its last four
    /// steps have a loss; with the chunk's own reach they do not.
    #[test]
    fn the_gradient_is_that_of_the_whole_window() -> Result<()> {
        let last = |credit, reach, segment: usize| -> Result<f64> {
            let mut bim = bim(&config(credit, reach), segment, 0.0)?;
            if segment == 4 {
                for chunk in 0..3 {
                    learn_tokens(&mut bim, 4 * chunk, 4 * chunk + 4)?;
                }
                return Ok(learn_tokens(&mut bim, 12, 16)?.grad_norm);
            }
            bim.predict(&tokens(0, 16)?)?;
            let weight: Vec<f32> = (0..32).map(|i| if i % 16 >= 12 { 1.0 } else { 0.0 }).collect();
            let weight = Tensor::from_vec(weight, (2, 16), &Device::Cpu)?;
            Ok(bim.learn(&Targets::Classes { class: tokens(1, 17)?, weight })?.grad_norm)
        };
        let whole = last(Credit::Bptt, 0, 16)?;
        let reaching = last(Credit::Tbptt, 16, 4)?;
        let short = last(Credit::Tbptt, 0, 4)?;
        assert!((reaching / whole - 1.0).abs() < 1e-5, "{reaching} {whole}"); // sums of f32 in another order
        assert!((short / whole - 1.0).abs() > 1e-4, "{short} {whole}: the test would show nothing");
        Ok(())
    }

    /// No credit passes the start of a recording.
    #[test]
    fn a_stream_that_begins_anew_is_cut_there() -> Result<()> {
        let mut a = bim(&config(Credit::Tbptt, 16), 4, 0.0)?;
        let mut b = bim(&config(Credit::Tbptt, 16), 4, 0.0)?;
        learn_tokens(&mut a, 0, 4)?;
        learn_tokens(&mut b, 20, 24)?; // another past
        for bim in [&mut a, &mut b] {
            bim.reset(&[true, true])?;
        }
        let (x, y) = (learn_tokens(&mut a, 4, 8)?.grad_norm, learn_tokens(&mut b, 4, 8)?.grad_norm);
        assert!((x / y - 1.0).abs() < 1e-9, "{x} {y}");
        Ok(())
    }

    /// A run that is interrupted goes on to the same numbers.
    #[test]
    fn what_is_kept_survives_a_snapshot() -> Result<()> {
        let config = config(Credit::Tbptt, 12);
        let (mut whole, mut first) = (bim(&config, 4, 0.01)?, bim(&config, 4, 0.01)?);
        for chunk in 0..4 {
            for bim in [&mut whole, &mut first] {
                learn_tokens(bim, 4 * chunk, 4 * chunk + 4)?;
            }
        }
        let mut second = bim(&config, 4, 0.01)?;
        second.load(&first.save()?)?;
        for chunk in 4..7 {
            let (a, b) = (
                learn_tokens(&mut whole, 4 * chunk, 4 * chunk + 4)?,
                learn_tokens(&mut second, 4 * chunk, 4 * chunk + 4)?,
            );
            assert_eq!(a.grad_norm.to_bits(), b.grad_norm.to_bits(), "chunk {chunk}");
        }
        Ok(())
    }

    /// A kept state of another length is an error, not a panic.
    #[test]
    fn a_kept_state_of_another_length_is_refused() -> Result<()> {
        let mut bim = bim(&config(Credit::Tbptt, 12), 4, 0.01)?;
        learn_tokens(&mut bim, 0, 4)?;
        let mut saved = bim.save()?;
        let name = "reach.state.0.layers.0.h.group.0".to_owned();
        assert!(saved.state.contains_key(&name), "{:?}", saved.state.keys());
        saved.state.insert(name, Tensor::zeros(3, DType::F32, &Device::Cpu)?);
        bim.load(&saved)?;
        let message = learn_tokens(&mut bim, 4, 8).expect_err("another length").to_string();
        assert!(message.contains("layers.0.h.group.0"), "{message}");
        Ok(())
    }

    /// Four windows of a chunk are charged, and the forward pass of prediction is still one.
    #[test]
    fn every_pass_over_a_chunk_is_charged() -> Result<()> {
        let counts = |reach| -> Result<learner::OpCounts> {
            let mut bim = bim(&config(Credit::Tbptt, reach), 4, 0.0)?;
            let mut last = None;
            for chunk in 0..4 {
                last = learn_tokens(&mut bim, 4 * chunk, 4 * chunk + 4)?.operations;
            }
            Ok(last.unwrap_or_default())
        };
        let (short, long) = (counts(0)?, counts(16)?);
        assert_eq!(short.forward, long.forward);
        // at weights that stand still the reruns are the passes of the last four chunks, about four times one
        for (four, one) in [(long.reverse, short.reverse), (long.passes, short.forward)] {
            let ratio = four.operations() as f64 / one.operations() as f64;
            assert!((3.6..4.4).contains(&ratio), "{ratio}");
        }
        Ok(())
    }
}
