//! Every model against `PyTorch` (the SNN against snnTorch): outputs, loss and all gradients for the same weights. The scripts in `golden/` made the
//! values, in f64.

use std::collections::BTreeMap;

use baselines::{Cnn, Lstm, Mamba, ModelConfig, Rnn, SequenceModel, Snn, Transformer};
use candle_core::{DType, Device, Tensor};
use learner::{Io, Params, Result, Targets, loss, read_f32};
use serde::Deserialize;

/// Largest error of outputs and loss, in units of the largest value: sums of a few dozen f32 terms.
const FORWARD: f64 = 1e-5;
/// Largest error of a parameter's gradient, in units of its largest value.
const GRADIENT: f64 = 1e-4;

/// One network, its inputs one after the other (the last has the targets) and what comes out.
#[derive(Deserialize)]
struct Case {
    model: ModelConfig,
    io: Io,
    weights: BTreeMap<String, Values>,
    inputs: Vec<Values>,
    outputs: Vec<Values>,
    targets: BTreeMap<String, Values>,
    loss: f64,
    gradients: BTreeMap<String, Values>,
}

#[derive(Deserialize)]
struct Values {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Values {
    fn tensor(&self, dtype: DType) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, self.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?)
    }

    /// Largest difference in units of the largest value.
    fn error(&self, got: &Tensor) -> Result<f64> {
        assert_eq!(got.dims(), self.shape);
        let scale = self.values.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
        let differences = self.values.iter().zip(read_f32(got)?).map(|(want, got)| (want - f64::from(got)).abs());
        Ok(differences.fold(0.0, f64::max) / scale)
    }
}

fn compare<M: SequenceModel>(what: &str, config: &M::Config, case: &Case) -> Result<()> {
    let mut params = Params::new(1, DType::F32, &Device::Cpu);
    let model = M::new(config, &case.io, &mut params)?;
    let ours: Vec<&str> = params.vars().iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(ours.len(), case.weights.len(), "{what}: {ours:?}");
    for (name, var) in params.vars() {
        var.set(&case.weights[name].tensor(DType::F32)?)?;
    }
    let mut state = model.initial_state(case.io.streams)?;
    let mut last = None;
    for (i, (input, want)) in case.inputs.iter().zip(&case.outputs).enumerate() {
        let dtype = if matches!(case.io.input, learner::InputKind::Tokens { .. }) { DType::U32 } else { DType::F32 };
        let (got, next) = model.forward(&input.tensor(dtype)?, &state)?;
        let error = want.error(&got)?;
        assert!(error < FORWARD, "{what}: outputs of segment {i} are off by {error}");
        (last, state) = (Some(got), next);
    }
    let weight = case.targets["weight"].tensor(DType::F32)?;
    let targets = match case.targets.get("class") {
        Some(class) => Targets::Classes { class: class.tensor(DType::U32)?, weight },
        None => Targets::Labels { label: case.targets["label"].tensor(DType::F32)?, weight },
    };
    let loss = loss(&last.expect("a segment"), &targets)?.expect("weighted steps");
    let error = (f64::from(loss.to_scalar::<f32>()?) / case.loss - 1.0).abs();
    assert!(error < FORWARD, "{what}: the loss is off by {error}");
    let gradients = loss.backward()?;
    for (name, var) in params.vars() {
        let error = case.gradients[name].error(gradients.get(var).expect("a gradient"))?;
        assert!(error < GRADIENT, "{what}: the gradient of {name} is off by {error}");
    }
    Ok(())
}

fn golden(json: &str) -> Result<()> {
    let cases: Vec<Case> = serde_json::from_str(json).expect("golden values");
    for (i, case) in cases.iter().enumerate() {
        let what = format!("{:?}, case {i}", case.model);
        match &case.model {
            ModelConfig::Transformer(c) => compare::<Transformer>(&what, c, case)?,
            ModelConfig::Lstm(c) => compare::<Lstm>(&what, c, case)?,
            ModelConfig::Rnn(c) => compare::<Rnn>(&what, c, case)?,
            ModelConfig::Cnn(c) => compare::<Cnn>(&what, c, case)?,
            ModelConfig::Mamba(c) => compare::<Mamba>(&what, c, case)?,
            ModelConfig::Snn(c) => compare::<Snn>(&what, c, case)?,
        }
    }
    Ok(())
}

#[test]
fn transformer_equals_pytorch() -> Result<()> {
    golden(include_str!("golden/transformer.json"))
}

#[test]
fn lstm_equals_pytorch() -> Result<()> {
    golden(include_str!("golden/lstm.json"))
}

#[test]
fn gru_and_vanilla_rnn_equal_pytorch() -> Result<()> {
    golden(include_str!("golden/rnn.json"))
}

#[test]
fn causal_and_residual_cnn_equal_pytorch() -> Result<()> {
    golden(include_str!("golden/cnn.json"))
}

#[test]
fn mamba_equals_pytorch() -> Result<()> {
    golden(include_str!("golden/mamba.json"))
}

#[test]
fn leaky_and_recurrent_snn_equal_snntorch() -> Result<()> {
    golden(include_str!("golden/snn.json"))
}
