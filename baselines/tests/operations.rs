//! Operation counts: equal to `NeuroBench`'s under its convention, and to what shapes say by hand. `golden/neurobench.py` made
//! the golden counts.

mod common;

use std::collections::BTreeMap;

use baselines::ops::Cell;
use baselines::{BpttConfig, LstmConfig, MambaConfig, ModelConfig, RnnConfig, SnnConfig, TransformerConfig, build};
use candle_core::{DType, Device, Tensor};
use common::{VOCABULARY, classes, io, size, tokens, training, zero_output};
use learner::operations::{ADAMW_ELEMENTWISE, Fan, OpCounts, Product, Source, Synaptic, Tally};
use learner::{Io, Learner, Result, Targets, Update};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    spiking: Spiking,
    perceptron: Perceptron,
}

#[derive(Deserialize)]
struct Spiking {
    model: ModelConfig,
    io: Io,
    weights: BTreeMap<String, Values>,
    input: Values,
    expected: Expected,
}

#[derive(Deserialize)]
struct Perceptron {
    layers: Vec<Layer>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Layer {
    weight: Values,
    input: Values,
}

#[derive(Deserialize)]
struct Values {
    shape: Vec<usize>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Expected {
    macs: u64,
    acs: u64,
    dense: u64,
}

impl Values {
    fn f32s(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.f32s(), self.shape.as_slice(), &Device::Cpu)?)
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/neurobench.json")).expect("golden counts")
}

#[test]
fn a_spiking_network_counts_as_neurobench_counts() -> Result<()> {
    let Spiking { model, io, weights, input, expected } = golden().spiking;
    let mut learner = build(&model, io, training(1e-3), 1, &Device::Cpu)?;
    let mut snapshot = learner.save()?;
    assert_eq!(snapshot.weights.len(), weights.len());
    for (name, values) in &weights {
        snapshot.weights.insert(name.clone(), values.tensor()?);
    }
    learner.load(&snapshot)?;
    learner.predict(&input.tensor()?)?;
    let (streams, steps) = (io.streams, io.segment);
    let label = Tensor::zeros((streams, io.outputs), DType::F32, &Device::Cpu)?;
    let weight = Tensor::ones((streams, steps), DType::F32, &Device::Cpu)?;
    let counts = learner.learn(&Targets::Labels { label, weight })?.operations.expect("counted");
    assert_eq!(counts.conventions.neurobench, Synaptic { macs: expected.macs, acs: expected.acs });
    assert_eq!(counts.macs_dense, expected.dense);
    // here spikes by type are spikes by value, so that our count is the same
    assert_eq!((counts.forward.macs, counts.forward.acs), (expected.macs, expected.acs));
    Ok(())
}

#[test]
fn a_perceptron_counts_as_neurobench_counts() {
    let Perceptron { layers, expected } = golden().perceptron;
    let mut tally = Tally::default();
    for Layer { weight, input } in &layers {
        let fan = Fan::of_rows(&weight.f32s(), weight.shape[1]);
        tally.product(Product::new(Source::Values, &fan, fan.see(&input.f32s(), Source::Values)));
    }
    assert_eq!(tally.counts.conventions.neurobench, Synaptic { macs: expected.macs, acs: expected.acs });
    assert_eq!((tally.counts.forward.macs, tally.counts.macs_dense), (expected.macs, expected.dense));
}

const B: usize = 2;
const K: usize = 5;
const ROWS: u64 = (B * K) as u64;
const V: u64 = VOCABULARY as u64;

/// What two updates on tokens report. The output's weights are zero in the first.
fn updates(model: &ModelConfig) -> Result<(Box<dyn Learner>, [Update; 2])> {
    let mut learner = build(model, io(B, K), training(1e-2), 3, &Device::Cpu)?;
    zero_output(&mut *learner)?;
    let mut update = |seed| -> Result<Update> {
        learner.predict(&tokens(seed, B, K)?)?;
        learner.learn(&classes(&tokens(seed + 1, B, K)?)?)
    };
    let both = [update(1)?, update(2)?];
    Ok((learner, both))
}

/// Gradients that wait for an update together are work, and their update is one.
#[test]
fn sums_of_gradients_are_counted_with_the_optimiser() -> Result<()> {
    let train = BpttConfig { accumulate: size(2), ..training(1e-2) };
    let mut learner = build(&ModelConfig::Lstm(LstmConfig::default()), io(B, K), train, 3, &Device::Cpu)?;
    let parameters = learner.cost().parameters;
    let mut update = |seed| -> Result<(u64, u64)> {
        learner.predict(&tokens(seed, B, K)?)?;
        let update = learner.learn(&classes(&tokens(seed + 1, B, K)?)?)?;
        Ok((update.updates, counts(&update).optimizer.elementwise))
    };
    assert_eq!(update(1)?, (0, 2 * parameters));
    assert_eq!(update(2)?, (1, (2 + ADAMW_ELEMENTWISE) * parameters));
    Ok(())
}

/// A predictor counts the forward pass alone, as learning counts it, and only if it is asked to.
#[test]
fn predictions_are_counted_as_the_forward_pass() -> Result<()> {
    for model in [ModelConfig::Lstm(LstmConfig::default()), ModelConfig::Snn(SnnConfig::default())] {
        let mut learner = build(&model, io(B, K), training(1e-2), 3, &Device::Cpu)?;
        let mut predictor = learner.evaluator(B)?;
        predictor.predict(&tokens(1, B, K)?)?;
        assert_eq!(predictor.predicted(), None);
        predictor.count_predictions(true);
        predictor.reset(&[true; B])?;
        predictor.predict(&tokens(1, B, K)?)?;
        learner.predict(&tokens(1, B, K)?)?;
        let update = learner.learn(&classes(&tokens(2, B, K)?)?)?;
        let predicted = predictor.predicted().expect("counted");
        assert!(predicted.forward.operations() > 0, "{model:?}");
        assert_eq!(predicted, counts(&update).without_learning());
        assert_eq!(update.updates, 1);
        assert_eq!(predictor.predicted(), Some(OpCounts::default()), "what was counted is taken");
    }
    Ok(())
}

fn counts(update: &Update) -> OpCounts {
    update.operations.expect("counted")
}

#[test]
fn recurrent_networks_by_hand() -> Result<()> {
    let h = 6u64;
    let (width, layers) = (size(6), size(2));
    for (model, columns) in [
        (ModelConfig::Lstm(LstmConfig { width, layers, ..LstmConfig::default() }), 4),
        (ModelConfig::Rnn(RnnConfig { width, layers, ..RnnConfig::default() }), 3),
        (ModelConfig::Rnn(RnnConfig { cell: Cell::Vanilla, width, layers, ..RnnConfig::default() }), 1),
    ] {
        let (learner, [first, second]) = updates(&model)?;
        let (a, b) = (counts(&first), counts(&second));
        let matrix = columns * h * h; // from the input, or from the layer itself
        // streams start from silence: their first step has no product with the hidden state
        let silent = B as u64 * matrix;
        assert_eq!(a.forward.macs, 2 * (2 * ROWS * matrix - silent), "{model:?}");
        assert_eq!(b.forward.macs, 2 * 2 * ROWS * matrix + ROWS * h * V);
        for c in [a, b] {
            assert_eq!(c.macs_dense, 2 * 2 * ROWS * matrix + ROWS * h * V);
            assert_eq!((c.forward.acs, c.neuron_updates, c.forward.activation_macs, c.unknown), (0, 0, 0, 0));
            assert_eq!(c.optimizer.elementwise, ADAMW_ELEMENTWISE * learner.cost().parameters);
        }
        // two products back for each forward one; the gradient of zero weights is taken all the same
        assert_eq!(b.reverse.macs, 2 * b.forward.macs);
        assert_eq!(a.reverse.macs, 2 * a.forward.macs + 2 * silent + ROWS * h * V);
        assert_eq!(second.activity.activation_sparsity, Some(0.0));
        assert!(first.activity.connection_sparsity > Some(0.0) && second.activity.connection_sparsity == Some(0.0));
    }
    Ok(())
}

#[test]
fn a_transformer_by_hand() -> Result<()> {
    let (d, layers) = (8u64, 2u64);
    let config = TransformerConfig { width: size(8), layers: size(2), heads: size(2), ..TransformerConfig::default() };
    let (_, [first, second]) = updates(&ModelConfig::Transformer(config))?;
    let weights = layers * (3 * d * d + d * d + 2 * 4 * d * d);
    let causal = (B * K * (K + 1) / 2) as u64;
    let remembered = causal + (B * K * K) as u64; // all steps of the segment before
    for (update, pairs, head) in [(first, causal, 0), (second, remembered, d * V)] {
        let c = counts(&update);
        assert_eq!(c.forward.weight_macs(), ROWS * (weights + head));
        assert_eq!(c.forward.activation_macs, layers * 2 * pairs * d);
        assert_eq!(c.reverse.activation_macs, layers * (3 * pairs + 2 * causal) * d);
    }
    Ok(())
}

#[test]
fn mamba_by_hand() -> Result<()> {
    let (d, h, n, r, w, layers) = (6u64, 12u64, 3u64, 1u64, 4u64, 2u64);
    let config = MambaConfig { width: size(6), layers: size(2), states: size(3), ..MambaConfig::default() };
    let (_, [first, second]) = updates(&ModelConfig::Mamba(config))?;
    let matrices = d * 2 * h + h * (r + 2 * n) + r * h + h * d;
    // the convolution reaches back to before the streams began: three, two and one silent steps
    let silent = B as u64 * h * (3 + 2 + 1);
    for (update, missing, head) in [(first, silent, 0), (second, 0, d * V)] {
        let c = counts(&update);
        assert_eq!(c.forward.weight_macs(), ROWS * (layers * (matrices + w * h) + head) - layers * missing);
        assert_eq!(c.forward.activation_macs, layers * ROWS * 2 * h * n);
    }
    Ok(())
}

#[test]
fn spiking_layers_pay_for_spikes() -> Result<()> {
    let h = 16u64;
    for (recurrent, residual) in [(false, false), (true, false), (false, true)] {
        let config = SnnConfig { width: size(16), layers: size(3), recurrent, residual, ..SnnConfig::default() };
        let (_, [first, _]) = updates(&ModelConfig::Snn(config))?;
        let c = counts(&first);
        let pairs = ROWS * h;
        let fired: Vec<u64> = (0..3)
            .map(|l| {
                let of_layer =
                    |v: &&learner::LayerValue| v.layer == format!("layers.{l}") && v.quantity == "spike_sparsity";
                let sparsity = first.layers.iter().find(of_layer).expect("reported at the first update").value;
                ((1.0 - sparsity) * pairs as f64).round() as u64
            })
            .collect();
        assert!(fired[0] > 0 && fired[1] > 0, "silent: the test would be empty");
        assert_eq!((c.neuron_updates, c.forward.macs), (3 * pairs, pairs * h), "the embedding is no spike");
        // with a residual the third layer reads the sum of both: each spike of it counts
        let between = fired[0] + fired[1] + if residual { fired[0] } else { 0 };
        if recurrent {
            assert!(c.forward.acs > between * h, "their own spikes come on top");
        } else {
            assert_eq!(c.forward.acs, between * h);
        }
        assert!(c.conventions.syops.acs >= c.conventions.spikingjelly.acs);
    }
    Ok(())
}

/// Unsupervised segments are predicted, not learned from.
#[test]
fn without_a_loss_there_is_no_learning() -> Result<()> {
    for model in common::models() {
        let mut learner = build(&model, io(B, K), training(1e-2), 3, &Device::Cpu)?;
        learner.predict(&tokens(1, B, K)?)?;
        let class = tokens(2, B, K)?;
        let weight = Tensor::zeros((B, K), DType::F32, &Device::Cpu)?;
        let counts = counts(&learner.learn(&Targets::Classes { class, weight })?);
        assert_eq!(counts.learning().operations(), 0, "{model:?}");
        assert!(counts.forward.operations() > 0);
    }
    Ok(())
}
