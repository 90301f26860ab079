//! A small network over made-up tokens, and how it learns, for tests.

use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Predictor, Result, Snapshot, Targets, Update};

use crate::config::Count;
use crate::{Bim, BimConfig, Optimizer};

pub const STREAMS: usize = 2;
/// Steps of a chunk, where a test needs no other.
pub const SEGMENT: usize = 8;
pub const VOCABULARY: usize = 7;

/// Two layers of 8 presynaptic and 16 postsynaptic neurons.
pub fn small() -> BimConfig {
    BimConfig {
        width: Count(8),
        channels: Count(16),
        state: Count(4),
        heads: Count(2),
        layers: Count(2),
        ..BimConfig::default()
    }
}

pub fn io(segment: usize) -> Io {
    Io { input: InputKind::Tokens { vocabulary: VOCABULARY }, outputs: VOCABULARY, streams: STREAMS, segment }
}

/// A network that learns at a constant rate.
pub fn bim(config: &BimConfig, segment: usize, rate: f64) -> Result<Bim> {
    Bim::new(config, io(segment), Optimizer::constant(rate), 5, &Device::Cpu)
}

/// Tokens `from..to` of all streams, `[STREAMS, to - from]`.
pub fn tokens(from: usize, to: usize) -> Result<Tensor> {
    let row = |b: usize| (from..to).map(move |t| ((t * t * (b + 3) + t / 3 + b) % VOCABULARY) as u32);
    Ok(Tensor::from_iter((0..STREAMS).flat_map(row), &Device::Cpu)?.reshape((STREAMS, to - from))?)
}

/// Learns what follows `input`; every step counts.
pub fn learn_from(bim: &mut Bim, input: &Tensor, class: Tensor) -> Result<Update> {
    bim.predict(input)?;
    let weight = Tensor::ones(class.dims(), DType::F32, &Device::Cpu)?;
    bim.learn(&Targets::Classes { class, weight })
}

/// Learns tokens `from..to`.
pub fn learn_tokens(bim: &mut Bim, from: usize, to: usize) -> Result<Update> {
    learn_from(bim, &tokens(from, to)?, tokens(from + 1, to + 1)?)
}

/// Learns a chunk of [`SEGMENT`] steps.
pub fn learn(bim: &mut Bim, chunk: usize) -> Result<Update> {
    learn_tokens(bim, chunk * SEGMENT, (chunk + 1) * SEGMENT)
}

/// A run of so many chunks, the same run interrupted after `at` of them and gone on with in another program, and what was stored
/// between.
pub fn interrupted(
    config: &BimConfig,
    learn: impl Fn(&mut Bim, usize) -> Result<Update>,
    at: usize,
    chunks: usize,
) -> Result<(Bim, Bim, Snapshot)> {
    let [mut whole, mut first, mut second] =
        [bim(config, SEGMENT, 0.02)?, bim(config, SEGMENT, 0.02)?, bim(config, SEGMENT, 0.02)?];
    (0..chunks).try_for_each(|chunk| learn(&mut whole, chunk).map(drop))?;
    (0..at).try_for_each(|chunk| learn(&mut first, chunk).map(drop))?;
    let saved = first.save()?;
    second.load(&saved)?;
    (at..chunks).try_for_each(|chunk| learn(&mut second, chunk).map(drop))?;
    Ok((whole, second, saved))
}

/// Asserts that all weights of two networks are the same, bit for bit.
pub fn assert_same_weights(a: &Bim, b: &Bim) -> Result<()> {
    let (a, b) = (a.save()?, b.save()?);
    assert_eq!(a.weights.len(), b.weights.len());
    for (name, want) in &a.weights {
        let bits =
            |t: &Tensor| -> Result<Vec<u32>> { Ok(learner::read_f32(t)?.into_iter().map(f32::to_bits).collect()) };
        assert_eq!(bits(want)?, bits(&b.weights[name])?, "{name}");
    }
    Ok(())
}
