//! Evaluation: what a network answers does not depend on how its input was cut into segments, and streams keep to themselves.

use bim::config::{Count, NeuronConfig, Positive, Share};
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor, Var};
use learner::{InputKind, Io, Learner, Predictor, Result};

use crate::common::{numbers, random};
use crate::twin::Twin;

const STREAMS: usize = 3;
const STEPS: usize = 40;
const FRAME: usize = 4;

/// Everything that has a history: convolution, delays, kernel, membranes, state.
fn config() -> BimConfig {
    let neuron = NeuronConfig {
        beta: Share(0.8),
        resistance: Positive(4.0),
        threshold: Positive(0.3),
        ..NeuronConfig::default()
    };
    BimConfig {
        width: Count(8),
        channels: Count(12),
        state: Count(3),
        heads: Count(2),
        layers: Count(2),
        conv: Count(4),
        delays: Count(3),
        kernel: Share(0.4),
        pre: neuron,
        post: neuron,
        ..BimConfig::default()
    }
}

/// A learner whose parameters are off their starting points; training has left a state behind that evaluation must not see.
fn learner() -> Result<Bim> {
    let io = Io { input: InputKind::Frames { width: FRAME }, outputs: 4, streams: STREAMS, segment: 16 };
    let mut bim = Bim::new(&config(), io, Optimizer::constant(0.0), 3, &Device::Cpu)?;
    let mut start = bim.save()?;
    for (name, values) in &mut start.weights {
        *values = (&*values + (random(name, values.dims(), DType::F32) * 0.1)?)?;
    }
    bim.load(&start)?;
    bim.predict(&random("training", &[STREAMS, 16, FRAME], DType::F32))?;
    Ok(bim)
}

/// Logits `[B, T, O]` by segments of these lengths, again and again; stream 1 begins anew at step 12, which ends a segment.
fn by_segments(bim: &Bim, lengths: &[usize]) -> Result<Vec<f64>> {
    let mut evaluator = bim.evaluator(STREAMS)?;
    let x = random("x", &[STREAMS, STEPS, FRAME], DType::F32);
    evaluator.reset(&[true; STREAMS])?;
    let (mut parts, mut t) = (Vec::new(), 0);
    for len in lengths.iter().cycle() {
        if t == STEPS {
            break;
        }
        if t == 12 {
            evaluator.reset(&[false, true, false])?;
        }
        let stop = if t < 12 { 12 } else { STEPS };
        let len = (*len).min(stop - t);
        parts.push(evaluator.predict(&x.narrow(1, t, len)?.contiguous()?)?);
        t += len;
    }
    numbers(&Tensor::cat(&parts, 1)?)
}

#[test]
fn segments_of_any_length_give_the_same_answers() -> Result<()> {
    let bim = learner()?;
    let vars = bim.save()?.weights.into_iter().map(|(n, w)| Ok((n, Var::from_tensor(&w.to_dtype(DType::F64)?)?)));
    let mut twin = Twin::new(&config(), STREAMS, Twin::on(&vars.collect::<Result<Vec<_>>>()?))?;
    let x = random("x", &[STREAMS, STEPS, FRAME], DType::F32).to_dtype(DType::F64)?;
    let first = twin.run(&x.narrow(1, 0, 12)?)?.0;
    twin.reset(&[false, true, false])?;
    let want = numbers(&Tensor::cat(&[first, twin.run(&x.narrow(1, 12, STEPS - 12)?)?.0], 1)?)?;
    assert!(twin.margin > 1e-6, "a spike hangs on {:.1e}, rounding could turn it; change the data", twin.margin);
    for lengths in [&[1][..], &[3], &[16], &[2, 7, 1, 5]] {
        let got = by_segments(&bim, lengths)?;
        let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(got.len() == want.len() && worst < 1e-4, "segments of {lengths:?}: {worst}"); // single precision
    }
    Ok(())
}
