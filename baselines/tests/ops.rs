//! Every fused operation against its slow twin in f64: the forward pass, all gradients, and what is carried on.

mod common;

use std::sync::Arc;

use baselines::ops::{
    AttentionShape, Before, Cell, Conv, Edge, LifState, MambaShape, MambaState, MambaWeights, Neuron, Pool, Prepare,
    Rotary, Sight, Threshold, attention, attention_slow, conv, conv_slow, lif, lif_slow, linear, linear_slow, lstm,
    lstm_slow, mamba, mamba_slow, mlp, mlp_slow, pool, pool_slow, rnn, rnn_slow,
};
use candle_core::{DType, Tensor, Var};
use common::{bits, distance, normal};
use learner::Result;

/// An operation on inputs of one element type: its output, and whatever else it returns.
type Operation<'a> = dyn Fn(&[Tensor]) -> Result<(Tensor, Option<Tensor>)> + Sync + 'a;

/// Output, carried state and the gradients of `Σ output · weight` for inputs of this type.
fn run(op: &Operation, inputs: &[Tensor], dtype: DType) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = inputs.iter().map(|t| Ok(Var::from_tensor(&t.to_dtype(dtype)?)?)).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let (y, carried) = op(&tensors)?;
    let weight = normal("weight of the loss", y.dims())?.to_dtype(dtype)?;
    let grads = (&y * weight)?.sum_all()?.backward()?;
    let mut all = vec![y.detach()];
    all.extend(carried);
    for v in &vars {
        all.push(grads.get(v).expect("every input has a gradient").clone());
    }
    Ok(all)
}

/// Compares in units of the largest value: products of a few hundred f32 terms of that size round by 1e-6 or so.
fn agree(what: &str, fast: &Operation, slow: &Operation, inputs: &[Tensor]) -> Result<()> {
    agree_within(5e-6, what, fast, slow, inputs)
}

fn agree_within(tolerance: f32, what: &str, fast: &Operation, slow: &Operation, inputs: &[Tensor]) -> Result<()> {
    let (fast_results, exact) = (run(fast, inputs, DType::F32)?, run(slow, inputs, DType::F64)?);
    assert_eq!(fast_results.len(), exact.len());
    for (i, (f, e)) in fast_results.iter().zip(&exact).enumerate() {
        let scale = distance(e, &e.zeros_like()?)?.max(1e-3);
        let gap = distance(f, e)? / scale;
        assert!(gap < tolerance, "{what}: result {i} is off by {gap} of {scale}");
    }
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool");
    let (one, three) =
        (pool(1).install(|| run(fast, inputs, DType::F32))?, pool(3).install(|| run(fast, inputs, DType::F32))?);
    for (i, (a, b)) in one.iter().zip(&three).enumerate() {
        assert_eq!(bits(a)?, bits(b)?, "{what}: result {i} depends on the number of threads");
    }
    Ok(())
}

#[test]
fn linear_equals_its_twin() -> Result<()> {
    for prepare in [Prepare::Nothing, Prepare::Norm] {
        for rows in [1, 3, 300] {
            let inputs = [normal("x", &[rows, 2, 20])?, normal("w", &[20, 33])?, normal("b", &[33])?];
            agree(
                &format!("linear {prepare:?} {rows}"),
                &|t| Ok((linear(&t[0], &t[1], &t[2], prepare)?, None)),
                &|t| Ok((linear_slow(&t[0], &t[1], &t[2], prepare)?, None)),
                &inputs,
            )?;
        }
    }
    Ok(())
}

#[test]
fn mlp_equals_its_twin() -> Result<()> {
    for rows in [1, 150] {
        let inputs =
            [normal("x", &[2, rows, 24])?, (normal("w1", &[24, 40])? * 0.3)?, (normal("w2", &[40, 24])? * 0.3)?];
        agree(
            &format!("mlp {rows}"),
            &|t| Ok((mlp(&t[0], &t[1], &t[2])?, None)),
            &|t| Ok((mlp_slow(&t[0], &t[1], &t[2])?, None)),
            &inputs,
        )?;
    }
    Ok(())
}

#[test]
fn attention_equals_its_twin_for_every_amount_of_memory() -> Result<()> {
    let (streams, width, heads) = (3, 24, 2);
    // one step, a part of a block, several blocks; memory shorter than, as long as and longer than the segment
    for (steps, m, valid) in
        [(1, 4, [0, 4, 3]), (7, 0, [0, 0, 0]), (70, 70, [0, 70, 33]), (130, 40, [1, 40, 0]), (9, 100, [100, 5, 0])]
    {
        let memory = normal("memory", &[streams, m, 2 * width])?;
        let rotary = Arc::new(Rotary::new(m + steps, width / heads));
        let lengths = vec![0, steps / 2, steps]; // padding only, half of it padding, none
        let inputs = [
            normal("x", &[streams, steps, width])?,
            (normal("w_qkv", &[width, 3 * width])? * 0.3)?,
            (normal("w_o", &[width, width])? * 0.3)?,
        ];
        let wrap = |(y, m): (Tensor, Tensor)| (y, Some(m));
        for sight in [Sight::Causal, Sight::Whole(lengths)] {
            let what = format!("attention {steps} after {m}, {sight:?}");
            let (rotary, memory) = (rotary.clone(), memory.clone());
            let shape = AttentionShape { heads, rotary, memory, valid: valid.to_vec(), sight };
            agree(
                &what,
                &|t| Ok(wrap(attention(&t[0], &t[1], &t[2], &shape)?)),
                &|t| Ok(wrap(attention_slow(&t[0], &t[1], &t[2], &shape)?)),
                &inputs,
            )?;
        }
    }
    Ok(())
}

#[test]
fn lengths_that_do_not_fit_the_streams_are_an_error() -> Result<()> {
    let (x, w_qkv, w_o) = (normal("x", &[2, 5, 8])?, normal("w_qkv", &[8, 24])?, normal("w_o", &[8, 8])?);
    for lengths in [vec![5], vec![5, 6], vec![1, 2, 3]] {
        let (rotary, memory) = (Arc::new(Rotary::new(5, 4)), normal("memory", &[2, 0, 16])?);
        let sight = Sight::Whole(lengths.clone());
        let shape = AttentionShape { heads: 2, rotary, memory, valid: vec![0, 0], sight };
        let error = attention(&x, &w_qkv, &w_o, &shape).expect_err("does not fit").to_string();
        assert!(error.contains("attention lengths: expected 2 of 5 steps or less"), "{lengths:?}: {error}");
    }
    Ok(())
}

#[test]
fn lstm_equals_its_twin() -> Result<()> {
    let (inputs_per_step, width) = (10, 12);
    // fewer streams than a task takes, a task and a part
    for (streams, steps) in [(1, 1), (2, 19), (7, 40)] {
        let (hidden, cell) = (normal("hidden", &[streams, width])?, normal("cell", &[streams, width])?);
        let inputs = [
            normal("x", &[streams, steps, inputs_per_step])?,
            (normal("w", &[inputs_per_step + width, 4 * width])? * 0.3)?,
            normal("b", &[4 * width])?,
        ];
        let wrap = |(y, c): (Tensor, Tensor)| (y, Some(c));
        agree(
            &format!("lstm {streams} x {steps}"),
            &|t| Ok(wrap(lstm(&t[0], &t[1], &t[2], &hidden, &cell)?)),
            &|t| Ok(wrap(lstm_slow(&t[0], &t[1], &t[2], &hidden, &cell)?)),
            &inputs,
        )?;
    }
    Ok(())
}

#[test]
fn rnn_equals_its_twin() -> Result<()> {
    for cell in [Cell::Gru, Cell::Vanilla] {
        // 12 channels are less than the registers hold, 20 are a register and a part
        for (streams, steps, inputs_per_step, width) in [(1, 1, 10, 12), (2, 19, 10, 12), (7, 40, 9, 20)] {
            let hidden = normal("hidden", &[streams, width])?;
            let inputs = [
                normal("x", &[streams, steps, inputs_per_step])?,
                (normal("w", &[inputs_per_step + width, cell.columns() * width])? * 0.3)?,
                normal("b", &[cell.sums() * width])?,
            ];
            agree(
                &format!("{cell:?} {streams} x {steps}"),
                &|t| Ok((rnn(&t[0], &t[1], &t[2], &hidden, cell)?, None)),
                &|t| Ok((rnn_slow(&t[0], &t[1], &t[2], &hidden, cell)?, None)),
                &inputs,
            )?;
        }
    }
    Ok(())
}

#[test]
fn mamba_equals_its_twin() -> Result<()> {
    // one channel to several groups of them; one step, parts of a block, several blocks; runs of rows across streams
    for (streams, steps, width, channels, states, rank, taps) in
        [(1, 1, 6, 1, 1, 1, 1), (2, 5, 10, 20, 3, 2, 4), (3, 50, 12, 40, 16, 1, 4), (2, 70, 20, 100, 5, 3, 2)]
    {
        let shape = MambaShape { width, channels, states, rank, taps };
        let before = MambaState {
            inputs: normal("inputs", &[streams, taps - 1, channels])?,
            hidden: normal("hidden", &[streams, channels, states])?,
        };
        let inputs = [
            normal("x", &[streams, steps, width])?,
            (normal("input", &[width, 2 * channels])? * 0.3)?,
            (normal("conv", &[taps, channels])? * 0.5)?,
            (normal("conv bias", &[channels])? * 0.5)?,
            (normal("select", &[channels, rank + 2 * states])? * 0.3)?,
            normal("step", &[rank, channels])?,
            normal("step bias", &[channels])?.affine(1.0, -1.0)?,
            normal("log decay", &[channels, states])?,
            normal("skip", &[channels])?,
            (normal("output", &[channels, width])? * 0.3)?,
        ];
        let weights = |t: &[Tensor]| MambaWeights {
            input: t[1].clone(),
            conv: t[2].clone(),
            conv_bias: t[3].clone(),
            select: t[4].clone(),
            step: t[5].clone(),
            step_bias: t[6].clone(),
            log_decay: t[7].clone(),
            skip: t[8].clone(),
            output: t[9].clone(),
        };
        let carried = |(y, s): (Tensor, MambaState)| -> Result<_> {
            Ok((y, Some(Tensor::cat(&[s.inputs.flatten_all()?, s.hidden.flatten_all()?], 0)?)))
        };
        agree(
            &format!("mamba {streams} x {steps} of {shape:?}"),
            &|t| carried(mamba(&t[0], &weights(t), &before, shape)?),
            &|t| carried(mamba_slow(&t[0], &weights(t), &before, shape)?),
            &inputs,
        )?;
    }
    Ok(())
}

#[test]
fn lif_equals_its_twin() -> Result<()> {
    let (inputs_per_step, width) = (10, 21);
    let fixed = Neuron { decay: 0.9, threshold: 1.0, slope: 25.0, adaptive: None };
    let rising = Neuron { adaptive: Some(Threshold { decay: 0.95, strength: 0.2 }), ..fixed };
    // fewer streams than a task takes, a task and a part
    for ((streams, steps), neuron) in
        [(1, 1), (2, 19), (7, 40)].into_iter().flat_map(|size| [fixed, rising].map(|neuron| (size, neuron)))
    {
        for rows in [inputs_per_step, inputs_per_step + width] {
            let before = LifState {
                membrane: normal("membrane", &[streams, width])?,
                adaptation: match neuron.adaptive {
                    Some(_) => Some(normal("adaptation", &[streams, width])?.abs()?),
                    None => None,
                },
            };
            let inputs = [
                normal("x", &[streams, steps, inputs_per_step])?,
                (normal("w", &[rows, width])? * 0.3)?,
                (normal("b", &[width])? * 0.3)?,
            ];
            let carried = |(y, s): (Tensor, LifState)| -> Result<_> {
                let adaptation = s.adaptation.unwrap_or(s.membrane.zeros_like()?);
                Ok((y, Some(Tensor::cat(&[s.membrane, adaptation], 0)?)))
            };
            let fired = lif(&inputs[0], &inputs[1], &inputs[2], &before, neuron)?.0.mean_all()?.to_scalar::<f32>()?;
            assert!(steps == 1 || (0.05..0.6).contains(&fired), "spikes that test something: {fired}");
            // the twin runs in f64: should a membrane come to lie within f32 rounding of the threshold, a spike would differ
            // the derivative of a fast sigmoid of steepness k magnifies the rounding of a membrane 2 k = 50 times
            agree_within(
                5e-5,
                &format!("lif {streams} x {steps} with {rows} rows, {neuron:?}"),
                &|t| carried(lif(&t[0], &t[1], &t[2], &before, neuron)?),
                &|t| carried(lif_slow(&t[0], &t[1], &t[2], &before, neuron)?),
                &inputs,
            )?;
        }
    }
    Ok(())
}

fn conv_agrees(what: &str, [streams, steps, inputs, outputs]: [usize; 4], shape: &Conv) -> Result<()> {
    let operands = [
        normal("x", &[streams, steps, inputs])?,
        (normal("w", &[shape.taps * inputs, outputs])? * 0.3)?,
        normal("b", &[outputs])?,
    ];
    agree(
        &format!("conv {what} {:?}: {} taps, dilation {}", shape.before, shape.taps, shape.dilation),
        &|t| Ok((conv(&t[0], &t[1], &t[2], shape)?, None)),
        &|t| Ok((conv_slow(&t[0], &t[1], &t[2], shape)?, None)),
        &operands,
    )
}

#[test]
fn causal_convolution_equals_its_twin() -> Result<()> {
    for before in [Before::Nothing, Before::NormRelu] {
        // no tap beside the present; short streams; a reach longer than the segment; several blocks of rows; outputs in
        // pairs, for every rest of taps by three, with and without a part of a pair at the end, and pairs too far apart
        for (taps, dilation, steps) in [
            (1, 1, 5),
            (2, 1, 7),
            (3, 4, 20),
            (3, 8, 5),
            (2, 1, 300),
            (3, 1, 256),
            (3, 16, 256),
            (4, 1, 301),
            (5, 8, 299),
            (3, 100, 300),
        ] {
            let (streams, inputs, outputs) = (3, 33, 20);
            let context = normal("context", &[streams, (taps - 1) * dilation, inputs])?;
            let shape = Conv { taps, dilation, edge: Edge::Causal(context), before };
            conv_agrees("causal", [streams, steps, inputs, outputs], &shape)?;
        }
    }
    Ok(())
}

#[test]
fn centred_convolution_equals_its_twin_for_every_length_and_stride() -> Result<()> {
    for before in [Before::Nothing, Before::NormRelu] {
        for (taps, dilation, stride, steps) in [
            (1, 1, 1, 6),
            (5, 1, 1, 6),
            (5, 1, 2, 11),
            (3, 2, 2, 12),
            (3, 3, 3, 4),
            (5, 1, 2, 600),
            (7, 1, 1, 2),
            (3, 1, 1, 50),
            (3, 1, 1, 105),
            (5, 2, 1, 160),
            (1, 1, 2, 400),
        ] {
            // short streams as one product, long ones each in its own, and outputs in pairs
            let lengths = vec![steps, 0, 1, steps - 1, steps / 2];
            let shape = Conv { taps, dilation, edge: Edge::Centred { lengths, stride }, before };
            conv_agrees(&format!("stride {stride}"), [5, steps, 12, 10], &shape)?;
        }
    }
    Ok(())
}

/// Outputs in pairs share products, but only of what both of them see: not even their rounding depends on anything else.
#[test]
fn no_output_of_a_convolution_depends_on_a_later_step() -> Result<()> {
    let (streams, steps, width) = (2, 288, 8);
    for (taps, dilation) in [(3, 1), (3, 4), (5, 2)] {
        let context = normal("context", &[streams, (taps - 1) * dilation, width])?;
        let shape = Conv { taps, dilation, edge: Edge::Causal(context), before: Before::NormRelu };
        let (w, b) = (normal("w", &[taps * width, width])?, normal("b", &[width])?);
        let x = normal("x", &[streams, steps, width])?;
        let plain = conv(&x, &w, &b, &shape)?;
        for t in [1, 2, 3, 100, 143, steps - 1] {
            let absurd = Tensor::full(f32::NAN, (streams, steps - t, width), x.device())?;
            let other = conv(&Tensor::cat(&[&x.narrow(1, 0, t)?, &absurd], 1)?, &w, &b, &shape)?;
            assert_eq!(bits(&other.narrow(1, 0, t)?)?, bits(&plain.narrow(1, 0, t)?)?, "{taps} taps, step {t}");
        }
    }
    Ok(())
}

/// More pairs, inputs and taps than one task or one product takes.
#[test]
fn convolution_in_several_tasks_equals_its_twin() -> Result<()> {
    for (taps, stride, sizes) in [(7, 1, [3, 1500, 140, 5]), (3, 2, [13, 20, 70, 5])] {
        let lengths = (0..sizes[0]).map(|s| sizes[1] - s).collect();
        let edge = Edge::Centred { lengths, stride };
        conv_agrees("tasks", sizes, &Conv { taps, dilation: 1, edge, before: Before::NormRelu })?;
    }
    Ok(())
}

/// Short streams are worked on together: in pairs several by task, as columns several by product.
#[test]
fn convolution_of_many_short_streams_equals_its_twin() -> Result<()> {
    let streams = 13usize;
    for (taps, stride, steps) in [(3, 1, 41), (5, 1, 60), (3, 2, 199), (5, 3, 300)] {
        let lengths = (0..streams).map(|s| (steps * s).div_ceil(streams - 1)).collect();
        let edge = Edge::Centred { lengths, stride };
        let shape = Conv { taps, dilation: 1, edge, before: Before::NormRelu };
        conv_agrees(&format!("stride {stride}"), [streams, steps, 9, 7], &shape)?;
    }
    Ok(())
}

#[test]
fn what_is_beyond_a_length_changes_nothing_and_gets_no_gradient() -> Result<()> {
    let (steps, lengths) = (9, vec![9, 4, 0, 7]);
    let x = normal("x", &[4, steps, 6])?;
    let there: Vec<f32> =
        lengths.iter().flat_map(|&n| (0..steps).map(move |t| if t < n { 1.0 } else { 0.0 })).collect();
    let there = Tensor::from_vec(there, (4, steps, 1), x.device())?;
    let absurd = (x.broadcast_mul(&there)? + (there.broadcast_as(x.dims())?.affine(-1e6, 1e6)?))?;
    let (w, b) = (normal("w", &[3 * 6, 5])?, normal("b", &[5])?);
    let edge = Edge::Centred { lengths: lengths.clone(), stride: 2 };
    let shape = Conv { taps: 3, dilation: 1, edge, before: Before::NormRelu };
    let operation = |t: &[Tensor]| -> Result<(Tensor, Option<Tensor>)> {
        let pooled = pool(&pool(&t[0], &lengths, Pool::Max)?, &[5, 2, 0, 4], Pool::Mean)?;
        Ok((conv(&t[0], &t[1], &t[2], &shape)?, Some(pooled.detach())))
    };
    let plain = run(&operation, &[x, w.clone(), b.clone()], DType::F32)?;
    let padded = run(&operation, &[absurd, w, b], DType::F32)?;
    for (p, q) in plain.iter().zip(&padded) {
        assert_eq!(bits(p)?, bits(q)?);
    }
    let beyond = plain[2].broadcast_mul(&there.affine(-1.0, 1.0)?)?; // gradient of x
    assert_eq!(distance(&beyond, &beyond.zeros_like()?)?.to_bits(), 0);
    Ok(())
}

#[test]
fn pooling_equals_its_twin() -> Result<()> {
    for kind in [Pool::Mean, Pool::Max] {
        for steps in [1, 2, 9, 64] {
            let lengths = vec![steps, 0, 1, steps - 1, steps / 2];
            agree(
                &format!("pool {kind:?} {steps}"),
                &|t| Ok((pool(&t[0], &lengths, kind)?, None)),
                &|t| Ok((pool_slow(&t[0], &lengths, kind)?, None)),
                &[normal("x", &[5, steps, 7])?],
            )?;
        }
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_errors_that_name_the_operand() -> Result<()> {
    let said = |r: candle_core::Result<Tensor>| r.map_or_else(|e| e.to_string(), |_| "no error".into());
    let (x, w) = (normal("x", &[2, 3, 8])?, normal("w", &[8, 8])?);
    assert!(said(linear(&x, &w, &normal("b", &[7])?, Prepare::Norm)).contains("b: expected […, 8]"));
    assert!(said(mlp(&x, &normal("w1", &[8, 16])?, &normal("w2", &[8, 16])?)).contains("w2: expected [16, 8]"));
    let state = normal("s", &[2, 4])?;
    assert!(said(lstm(&x, &w, &normal("b", &[16])?, &state, &state).map(|r| r.0)).contains("expected [12, 16]"));
    assert!(said(rnn(&x, &w, &normal("b", &[16])?, &state, Cell::Gru)).contains("Gru weights: expected [12, 12]"));
    let shape = |taps, edge| Conv { taps, dilation: 1, edge, before: Before::Nothing };
    let centred = |lengths: &[usize], stride| Edge::Centred { lengths: lengths.to_vec(), stride };
    let b = normal("b", &[8])?;
    assert!(said(conv(&x, &w, &b, &shape(3, centred(&[3, 3], 1)))).contains("expected [3 · 8, 8]"));
    assert!(said(conv(&x, &w, &b, &shape(1, centred(&[3, 4], 1)))).contains("expected 2 of 3 or less"));
    assert!(said(conv(&x, &w, &b, &shape(1, centred(&[3, 3], 0)))).contains("expected a stride"));
    let context = Edge::Causal(normal("c", &[2, 3, 8])?);
    assert!(said(conv(&x, &w, &b, &shape(1, context))).contains("steps before: expected [2, 0, 8]"));
    assert!(said(pool(&x, &[3], Pool::Mean)).contains("expected 2 lengths of 3 or less"));
    let fixed = Neuron { decay: 0.9, threshold: 1.0, slope: 25.0, adaptive: None };
    let before = LifState { membrane: state.clone(), adaptation: Some(state) };
    let (w, b) = (normal("w", &[8, 4])?, normal("b", &[4])?);
    assert!(said(lif(&x, &w, &b, &before, fixed).map(|r| r.0)).contains("lif adaptation: expected none"));
    Ok(())
}
