//! Counts by hand, from shapes and from loops over every pair of an input and a weight.

use std::sync::Arc;

use candle_core::{DType, Device};
use learner::operations::{OpCounts, Work};
use learner::{Init, ParamSource, Params, Result};

use super::*;
use crate::ops::{AttentionShape, Before, Conv, Edge, Rotary, Sight, attention, conv, mlp, rms_norm_slow};

/// Standard normal values, of which every `hole`-th is zero; 0 for none.
fn values(name: &str, dims: &[usize], hole: usize) -> Result<Tensor> {
    let t = Params::new(7, DType::F32, &Device::Cpu).get(name, dims, Init::Normal(1.0))?.detach().copy()?;
    if hole > 0 {
        learner::with_f32_mut(&t, |v| v.iter_mut().step_by(hole).for_each(|v| *v = 0.0))?;
    }
    Ok(t)
}

fn counts<R>(f: impl FnOnce() -> candle_core::Result<R>) -> Result<OpCounts> {
    let (result, counted) = during(f);
    result?;
    Ok(counted.whole().counts)
}

#[test]
fn nothing_is_counted_where_nobody_asks() -> Result<()> {
    let w = values("w", &[3, 3], 0)?;
    assert!(!active() && Watch::new(&[1.0], 1, Source::Values).is_none());
    linear(&w, &w, Source::Values, true, false);
    let ((), counted) = during(|| ());
    assert_eq!(counted.whole().counts, OpCounts::default());
    Ok(())
}

/// One thread has to do: what it asked for beside, it looks at itself.
#[test]
fn looking_waits_for_no_thread_that_waits_for_it() -> Result<()> {
    let (x, w) = (Tensor::ones((1 << 12, 1 << 8), DType::F32, &Device::Cpu)?, values("w", &[1 << 8, 2], 0)?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let count = || during(|| linear(&x, &w, Source::Values, false, false)).1.whole().counts.forward.macs;
    assert_eq!(pool.install(count), x.elem_count() as u64 * 2);
    Ok(())
}

#[test]
fn a_feed_forward_block_by_hand() -> Result<()> {
    let (rows, d, f) = (5u64, 4u64, 6u64);
    let (x, up, down) = (values("x", &[1, 5, 4], 3)?, values("up", &[4, 6], 0)?, values("down", &[6, 4], 4)?);
    let c = counts(|| mlp(&x, &up, &down))?;
    // 7 of 20 inputs are zero and meet 6 weights each; none of 30 inner values is, on 18 of 24 weights
    assert_eq!(c.forward.macs, 13 * f + rows * 18);
    assert_eq!(c.macs_dense, 2 * rows * d * f);
    assert_eq!((c.forward.acs, c.forward.activation_macs), (0, 0));
    assert_eq!(c.reverse.macs, (rows * d * f + 13 * f) + (rows * 18 + rows * f * d));
    // norm 3 per value and 4 per row, GELU 9 per inner value, residual
    assert_eq!(c.forward.elementwise, rows * (3 * d + 4 + 9 * f + d));
    Ok(())
}

#[test]
fn attention_counts_what_a_query_may_look_at() -> Result<()> {
    let (streams, k, d, m) = (2, 3, 4, 5);
    let shape = AttentionShape {
        heads: 2,
        rotary: Arc::new(Rotary::new(m + k, d / 2)),
        memory: values("memory", &[streams, m, 2 * d], 0)?,
        valid: vec![0, 5],
        sight: Sight::Causal,
    };
    let x = values("x", &[streams, k, d], 0)?;
    let (w_qkv, w_o) = (values("qkv", &[d, 3 * d], 0)?, values("o", &[d, d], 0)?);
    let c = counts(|| attention(&x, &w_qkv, &w_o, &shape))?;
    // queries see 1, 2 and 3 steps; those of the second stream five more each
    let (own, pairs) = (2 * 6, 6 + 6 + 3 * 5);
    assert_eq!(c.forward.activation_macs, 2 * pairs * d as u64);
    assert_eq!(c.reverse.activation_macs, (3 * pairs + 2 * own) * d as u64);
    let weights = (4 * d * d) as u64;
    assert_eq!(c.forward.weight_macs(), (streams * k) as u64 * weights);
    assert_eq!(c.reverse.weight_macs(), 2 * c.forward.weight_macs());
    assert_eq!(c.forward.state_words, 2 * pairs * d as u64 + 2 * (streams * k * d) as u64);
    // all three queries see the two or three steps that are there, and those of the second stream five more each
    let shape = AttentionShape { sight: Sight::Whole(vec![2, 3]), ..shape };
    let c = counts(|| attention(&x, &w_qkv, &w_o, &shape))?;
    let (own, pairs) = (6 + 9, 6 + 9 + 3 * 5);
    assert_eq!(c.forward.activation_macs, 2 * pairs * d as u64);
    assert_eq!(c.reverse.activation_macs, (3 * pairs + 2 * own) * d as u64);
    Ok(())
}

/// Every output, tap and pair of channels of a convolution over values that were prepared in tensor operations.
fn convolved_slow(x: &Tensor, w: &Tensor, shape: &Conv) -> Result<u64> {
    let prepared = match shape.before {
        Before::Nothing => x.clone(),
        Before::NormRelu => rms_norm_slow(x)?.relu()?,
    };
    let (x, w) = (prepared.to_vec3::<f32>()?, w.to_vec2::<f32>()?);
    let inputs = x[0][0].len();
    let (left, stride, lengths) = match &shape.edge {
        Edge::Causal(_) => ((shape.taps - 1) * shape.dilation, 1, vec![x[0].len(); x.len()]),
        Edge::Centred { lengths, stride } => ((shape.taps - 1) / 2, *stride, lengths.clone()),
    };
    let mut pairs = 0;
    for (x, length) in x.iter().zip(lengths) {
        for t in 0..length.div_ceil(stride) {
            for tap in 0..shape.taps {
                // beyond the input lie zeros, also before a causal segment here
                let Some(step) = (t * stride + tap * shape.dilation).checked_sub(left).filter(|&s| s < length) else {
                    continue;
                };
                for (i, v) in x[step].iter().enumerate() {
                    let alive = w[tap * inputs + i].iter().filter(|w| **w != 0.0).count();
                    pairs += if *v == 0.0 { 0 } else { alive as u64 };
                }
            }
        }
    }
    Ok(pairs)
}

#[test]
fn convolutions_equal_the_loop_over_outputs_taps_and_channels() -> Result<()> {
    let (streams, steps, inputs, outputs) = (3, 11, 4, 5);
    let x = values("x", &[streams, steps, inputs], 5)?;
    let bias = values("b", &[outputs], 0)?;
    let silence = |reach| Tensor::zeros((streams, reach, inputs), DType::F32, &Device::Cpu);
    for hole in [0, 3] {
        for before in [Before::Nothing, Before::NormRelu] {
            for (taps, dilation, edge) in [
                (3, 1, Edge::Causal(silence(2)?)),
                (3, 4, Edge::Causal(silence(8)?)),
                (5, 1, Edge::Centred { lengths: vec![11, 7, 0], stride: 2 }),
                (1, 1, Edge::Centred { lengths: vec![11, 11, 4], stride: 1 }),
            ] {
                let w = values("w", &[taps * inputs, outputs], hole)?;
                let shape = Conv { taps, dilation, edge, before };
                let c = counts(|| conv(&x, &w, &bias, &shape))?;
                assert_eq!(c.forward.macs, convolved_slow(&x, &w, &shape)?, "{shape:?}, hole {hole}");
                assert!(c.macs_dense > c.forward.macs && c.forward.acs == 0);
            }
        }
    }
    Ok(())
}

#[test]
fn spikes_by_type_are_accumulates_and_bursts_are_paid_one_by_one() -> Result<()> {
    let w = Tensor::ones((3, 2), DType::F32, &Device::Cpu)?;
    let x = Tensor::new(&[[[0f32, 1.0, 3.0]]], &Device::Cpu)?;
    let c = counts(|| {
        linear(&x, &w, Source::Spikes, false, false);
        Ok(())
    })?;
    assert_eq!((c.forward.acs, c.forward.macs, c.forward.weight_words), (8, 0, 4));
    let c = counts(|| {
        linear(&x, &w, Source::Values, false, true);
        Ok(())
    })?;
    assert_eq!((c.forward.acs, c.forward.macs), (0, 4));
    assert_eq!(c.reverse.macs, 4, "of data no gradient is wanted");
    Ok(())
}

#[test]
fn an_operation_elsewhere_is_unknown_and_not_zero() -> Result<()> {
    let f64s = |name, dims: &[usize]| -> Result<Tensor> { Ok(values(name, dims, 0)?.to_dtype(DType::F64)?) };
    let (x, up, down) = (f64s("x", &[1, 5, 4])?, f64s("up", &[4, 6])?, f64s("down", &[6, 4])?);
    let c = counts(|| mlp(&x, &up, &down))?;
    assert_eq!((c.unknown, c.forward), (2 * 5 * 4 * 6, Work::default()));
    assert!(c.coverage() < 1.0);
    Ok(())
}
