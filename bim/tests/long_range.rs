//! Credit that reaches further than a chunk: a cue must be named fifteen chunks later, and only the last step is supervised.

use bim::config::{Count, Credit, NeuronConfig, Positive, Share};
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{Device, Tensor};
use learner::{AdamWConfig, Decay, InputKind, Io, Learner, Predictor, Result, Schedule, Targets, seeded_rng};
use rand::Rng;

const STREAMS: usize = 16;
const CHUNK: usize = 8;
const CHUNKS: usize = 15;
const SYMBOLS: u32 = 4;
const DISTRACTORS: u32 = 4;

/// Share of right answers over the last of `rounds` rounds of recordings, each answered before it is learned from.
fn accuracy(credit: Credit, rounds: usize) -> Result<f64> {
    let neuron = NeuronConfig { threshold: Positive(0.5), ..NeuronConfig::default() };
    let config = BimConfig {
        width: Count(32),
        channels: Count(64),
        state: Count(4),
        heads: Count(4),
        layers: Count(1),
        conv: Count(1),
        pre: neuron,
        post: neuron,
        lambda: Share(1.0),
        credit,
        ..BimConfig::default()
    };
    let vocabulary = (SYMBOLS + DISTRACTORS + 1) as usize;
    let io =
        Io { input: InputKind::Tokens { vocabulary }, outputs: SYMBOLS as usize, streams: STREAMS, segment: CHUNK };
    let schedule = Schedule {
        peak: 5e-3,
        warmup_updates: 20,
        total_updates: rounds as u64,
        decay: Decay::Cosine,
        final_share: 0.1,
    };
    let adamw = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
    let mut bim = Bim::new(&config, io, Optimizer { schedule, adamw, clip: 1.0 }, 1, &Device::Cpu)?;
    let mut rng = seeded_rng(7, "recall");
    let (mut right, mut counted) = (0, 0);
    for round in 0..rounds {
        let cues: Vec<u32> = (0..STREAMS).map(|_| rng.random_range(0..SYMBOLS)).collect();
        bim.reset(&[true; STREAMS])?;
        for chunk in 0..CHUNKS {
            let mut token = |b: usize, t: usize| match (chunk, t) {
                (0, 0) => cues[b],
                (c, t) if c == CHUNKS - 1 && t == CHUNK - 1 => SYMBOLS + DISTRACTORS,
                _ => SYMBOLS + rng.random_range(0..DISTRACTORS),
            };
            let x: Vec<u32> = (0..STREAMS * CHUNK).map(|i| token(i / CHUNK, i % CHUNK)).collect();
            let logits = bim.predict(&Tensor::from_vec(x, (STREAMS, CHUNK), &Device::Cpu)?)?;
            let last = chunk == CHUNKS - 1;
            if last && round >= rounds - 20 {
                let answers = logits.narrow(1, CHUNK - 1, 1)?.squeeze(1)?.argmax(1)?.to_vec1::<u32>()?;
                right += answers.iter().zip(&cues).filter(|(a, c)| a == c).count();
                counted += STREAMS;
            }
            let class: Vec<u32> = (0..STREAMS * CHUNK).map(|i| cues[i / CHUNK]).collect();
            let weight: Vec<f32> =
                (0..STREAMS * CHUNK).map(|i| f32::from(u8::from(last && i % CHUNK == CHUNK - 1))).collect();
            bim.learn(&Targets::Classes {
                class: Tensor::from_vec(class, (STREAMS, CHUNK), &Device::Cpu)?,
                weight: Tensor::from_vec(weight, (STREAMS, CHUNK), &Device::Cpu)?,
            })?;
        }
    }
    Ok(f64::from(right as u32) / counted as f64)
}

#[test]
fn traces_solve_what_truncated_backpropagation_cannot() -> Result<()> {
    const ROUNDS: usize = 600;
    let (hybrid, tbptt) = (accuracy(Credit::Hybrid, ROUNDS)?, accuracy(Credit::Tbptt, ROUNDS)?);
    // chance is 0.25; truncated credit still learns to read what an untrained state happens to keep
    assert!(hybrid > 0.95, "hybrid: {hybrid}");
    assert!(tbptt < 0.8, "tbptt: {tbptt}");
    Ok(())
}
