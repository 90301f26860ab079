//! Every fused operation against its slow twin in f64: the forward pass, all gradients, and what is carried on.

mod common;

use std::sync::Arc;

use baselines::ops::{
    AttentionShape, LifState, MambaShape, MambaState, MambaWeights, Neuron, Prepare, Rotary, Threshold, attention,
    attention_slow, lif, lif_slow, linear, linear_slow, lstm, lstm_slow, mamba, mamba_slow, mlp, mlp_slow,
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
        let shape = AttentionShape { heads, rotary, memory, valid: valid.to_vec() };
        let inputs = [
            normal("x", &[streams, steps, width])?,
            (normal("w_qkv", &[width, 3 * width])? * 0.3)?,
            (normal("w_o", &[width, width])? * 0.3)?,
        ];
        let wrap = |(y, m): (Tensor, Tensor)| (y, Some(m));
        agree(
            &format!("attention {steps} after {m}"),
            &|t| Ok(wrap(attention(&t[0], &t[1], &t[2], &shape)?)),
            &|t| Ok(wrap(attention_slow(&t[0], &t[1], &t[2], &shape)?)),
            &inputs,
        )?;
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

#[test]
fn shapes_that_do_not_fit_are_errors_that_name_the_operand() -> Result<()> {
    let said = |r: candle_core::Result<Tensor>| r.map_or_else(|e| e.to_string(), |_| "no error".into());
    let (x, w) = (normal("x", &[2, 3, 8])?, normal("w", &[8, 8])?);
    assert!(said(linear(&x, &w, &normal("b", &[7])?, Prepare::Norm)).contains("b: expected […, 8]"));
    assert!(said(mlp(&x, &normal("w1", &[8, 16])?, &normal("w2", &[8, 16])?)).contains("w2: expected [16, 8]"));
    let state = normal("s", &[2, 4])?;
    assert!(said(lstm(&x, &w, &normal("b", &[16])?, &state, &state).map(|r| r.0)).contains("expected [12, 16]"));
    let fixed = Neuron { decay: 0.9, threshold: 1.0, slope: 25.0, adaptive: None };
    let before = LifState { membrane: state.clone(), adaptation: Some(state) };
    let (w, b) = (normal("w", &[8, 4])?, normal("b", &[4])?);
    assert!(said(lif(&x, &w, &b, &before, fixed).map(|r| r.0)).contains("lif adaptation: expected none"));
    Ok(())
}
