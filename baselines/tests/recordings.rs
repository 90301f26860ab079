//! What a network over whole recordings must do: answers from the whole of a recording, and from that recording alone.

mod common;

use baselines::{CnnConfig, Family, ModelConfig, TransformerConfig, build};
use candle_core::{DType, Device, IndexOp, Tensor};
use common::{bits, distance, io, normal, size, training};
use learner::{Error, InputKind, Io, Learner, Predictor, Result, Targets};

const FRAME: usize = 3;
const LABELS: usize = 2;

fn recordings(streams: usize, steps: usize) -> Io {
    Io { input: InputKind::Frames { width: FRAME }, outputs: LABELS, streams, segment: steps }
}

/// Plain blocks, bottlenecks, and attention to both sides.
fn networks() -> Vec<ModelConfig> {
    let resnet = |expansion| CnnConfig {
        family: Family::Resnet,
        width: size(6),
        stages: Some(vec![size(1), size(2)]),
        expansion: Some(size(expansion)),
        ..CnnConfig::default()
    };
    let transformer =
        TransformerConfig { width: size(8), layers: size(2), heads: size(2), causal: false, ..Default::default() };
    vec![ModelConfig::Cnn(resnet(1)), ModelConfig::Cnn(resnet(4)), ModelConfig::Transformer(transformer)]
}

fn network(model: &ModelConfig, io: Io) -> Result<Box<dyn Learner>> {
    common::learner(model, io)
}

/// The first answer after a fresh start.
fn answer(l: &mut dyn Predictor, x: &Tensor) -> Result<Tensor> {
    l.reset(&vec![true; x.dim(0)?])?;
    l.predict(x)
}

#[test]
fn labels_are_learned_by_heart_at_every_step_or_the_last() -> Result<()> {
    let label = Tensor::new(&[[1f32, 0.], [0., 0.], [1., 1.], [0., 1.]], &Device::Cpu)?;
    let every = Tensor::ones((4, 40), DType::F32, &Device::Cpu)?;
    let last: Vec<f32> = (0..160).map(|i| if i % 40 == 39 { 1.0 } else { 0.0 }).collect();
    for weight in [every, Tensor::from_vec(last, (4, 40), &Device::Cpu)?] {
        for model in networks() {
            let mut l = build(&model, recordings(4, 40), training(1e-2), 3, &Device::Cpu)?;
            let x = normal("recordings", &[4, 40, FRAME])?;
            let y = Targets::Labels { label: label.clone(), weight: weight.clone() };
            let mut loss = f64::MAX;
            for _ in 0..200 {
                l.reset(&[true; 4])?;
                l.predict(&x)?;
                loss = l.learn(&y)?.loss.unwrap_or(f64::MAX);
            }
            assert!(loss < 0.02, "{model:?}: {loss}");
        }
    }
    Ok(())
}

#[test]
fn every_step_has_a_part_in_every_answer() -> Result<()> {
    for model in networks() {
        let mut l = network(&model, recordings(1, 24))?;
        let x = normal("recording", &[1, 24, FRAME])?;
        let base = answer(&mut *l, &x)?;
        let one_for_all = matches!(model, ModelConfig::Cnn(_));
        for t in 1..24 {
            assert_eq!(bits(&base.i((0, t))?)? == bits(&base.i((0, 0))?)?, one_for_all, "{model:?}: {t}");
        }
        for t in 0..24 {
            let changed = answer(&mut *l, &(&x + one_step(24, t)?)?)?;
            for at in 0..24 {
                let change = distance(&base.i((0, at))?, &changed.i((0, at))?)?;
                assert!(change > 0.0, "{model:?}: {t} has no part in {at}");
            }
        }
    }
    Ok(())
}

/// `[1, steps, FRAME]`: ones at step `t`.
fn one_step(steps: usize, t: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..steps * FRAME).map(|i| if i / FRAME == t { 1.0 } else { 0.0 }).collect();
    Ok(Tensor::from_vec(values, (1, steps, FRAME), &Device::Cpu)?)
}

#[test]
fn padding_changes_no_answer_and_no_gradient() -> Result<()> {
    for model in networks() {
        // 70 steps are more than one block of attention
        for steps in [1, 2, 13, 40, 70] {
            let x = normal("recordings", &[2, steps, FRAME])?;
            let longer = Tensor::cat(&[&x, &Tensor::zeros((2, 23, FRAME), DType::F32, &Device::Cpu)?], 1)?;
            let learned = |x: &Tensor| -> Result<(Tensor, u64, u64)> {
                let mut l = network(&model, recordings(2, 93))?;
                let got = answer(&mut *l, x)?.narrow(1, 0, steps)?;
                let label = Tensor::new(&[[1f32, 0.], [0., 0.]], &Device::Cpu)?;
                let weight: Vec<f32> =
                    (0..2 * x.dim(1)?).map(|i| f32::from(u8::from(i % x.dims()[1] < steps))).collect();
                let weight = Tensor::from_vec(weight, (2, x.dim(1)?), &Device::Cpu)?;
                let update = l.learn(&Targets::Labels { label, weight })?;
                Ok((got, update.loss.unwrap_or(f64::NAN).to_bits(), update.grad_norm.to_bits()))
            };
            let (a, b) = (learned(&x)?, learned(&longer)?);
            assert!(distance(&a.0, &b.0)? < 1e-6, "{model:?} {steps}");
            let close = |a: u64, b: u64| (f64::from_bits(a) / f64::from_bits(b) - 1.0).abs() < 1e-5; // sums of other lengths
            assert!(close(a.1, b.1) && close(a.2, b.2), "{model:?} {steps}: {a:?} {b:?}");
        }
    }
    Ok(())
}

#[test]
fn recordings_do_not_touch_each_other() -> Result<()> {
    for model in networks() {
        let (mut many, mut one) = (network(&model, recordings(5, 30))?, network(&model, recordings(1, 30))?);
        let x = normal("recordings", &[5, 30, FRAME])?;
        let together = answer(&mut *many, &x)?;
        for s in 0..5 {
            // products over another number of rows may round differently
            assert!(distance(&together.narrow(0, s, 1)?, &answer(&mut *one, &x.narrow(0, s, 1)?)?)? < 1e-5);
        }
    }
    Ok(())
}

#[test]
fn a_recording_that_goes_on_is_an_error_until_it_is_reset() -> Result<()> {
    for model in networks() {
        let mut l = network(&model, recordings(2, 8))?;
        let x = normal("recordings", &[2, 8, FRAME])?;
        l.predict(&x)?;
        let error = l.predict(&x).expect_err("goes on").to_string();
        assert!(error.starts_with("segment: ") && error.contains("sees a recording as a whole"), "{error}");
        l.reset(&[true, false])?;
        assert!(l.predict(&x).is_err(), "one of them goes on");
        l.reset(&[true, true])?;
        l.predict(&x)?;
    }
    Ok(())
}

#[test]
fn a_stream_of_padding_alone_is_no_trouble() -> Result<()> {
    for model in networks() {
        let mut l = network(&model, recordings(2, 12))?;
        let x = Tensor::cat(
            &[normal("recording", &[1, 12, FRAME])?, Tensor::zeros((1, 12, FRAME), DType::F32, &Device::Cpu)?],
            0,
        )?;
        l.predict(&x)?;
        let label = Tensor::new(&[[1f32, 0.], [0., 0.]], &Device::Cpu)?;
        let weight = Tensor::cat(
            &[Tensor::ones((1, 12), DType::F32, &Device::Cpu)?, Tensor::zeros((1, 12), DType::F32, &Device::Cpu)?],
            0,
        )?;
        let update = l.learn(&Targets::Labels { label, weight })?;
        assert!(update.loss.is_some_and(f64::is_finite) && update.grad_norm.is_finite(), "{model:?}: {update:?}");
    }
    Ok(())
}

#[test]
fn settings_that_do_not_fit_a_transformer_of_recordings_are_errors_that_name_the_key() {
    let problem = |memory, io: Io| {
        let config = TransformerConfig { causal: false, memory, ..TransformerConfig::default() };
        let built = build(&ModelConfig::Transformer(config), io, training(1e-2), 3, &Device::Cpu);
        built.err().map_or_else(|| "no error".into(), |e: Error| e.to_string())
    };
    assert!(problem(None, io(1, 8)).starts_with("causal: false is for whole recordings"));
    assert!(problem(Some(size(3)), recordings(1, 8)).starts_with("memory: does not apply"));
    assert_eq!(problem(Some(size(0)), recordings(1, 8)), "no error");
}

#[test]
fn settings_that_do_not_fit_the_family_are_errors_that_name_the_key() {
    let problem = |config: &CnnConfig, io: Io| {
        let built = build(&ModelConfig::Cnn(config.clone()), io, training(1e-2), 3, &Device::Cpu);
        built.err().map_or_else(|| "no error".into(), |e: Error| e.to_string())
    };
    let resnet = CnnConfig { family: Family::Resnet, ..CnnConfig::default() };
    assert!(problem(&resnet, io(1, 8)).starts_with("family: resnet reads whole recordings"));
    let frames = recordings(1, 8);
    for (config, key) in [
        (CnnConfig { layers: Some(size(2)), ..resnet.clone() }, "layers"),
        (CnnConfig { dilation_cycle: Some(size(2)), ..resnet.clone() }, "dilation_cycle"),
        (CnnConfig { stages: Some(vec![size(2)]), ..CnnConfig::default() }, "stages"),
        (CnnConfig { expansion: Some(size(2)), ..CnnConfig::default() }, "expansion"),
        (CnnConfig { growth: Some(size(2)), ..CnnConfig::default() }, "growth"),
        (CnnConfig { kernel: Some(size(4)), ..resnet.clone() }, "kernel"),
        (CnnConfig { width: size(7), ..resnet.clone() }, "width"),
        (CnnConfig { stages: Some(Vec::new()), ..resnet.clone() }, "stages"),
        (CnnConfig { stages: Some(vec![size(1); 9]), ..resnet }, "stages"),
    ] {
        let got = problem(&config, frames);
        assert!(got.starts_with(&format!("{key}: ")), "{got}");
    }
}

/// torch.nn modules with the same sizes: stem 12 → 32 → 32 → 64, 33 bottlenecks of 64 channels between 256; no norm has parameters
/// here.
#[test]
fn the_network_for_electrocardiograms_has_its_published_sizes() -> Result<()> {
    let io = Io { input: InputKind::Frames { width: 12 }, outputs: 5, streams: 1, segment: 64 };
    let stem = (5 * 12 * 32 + 32) + (5 * 32 * 32 + 32) + (5 * 32 * 64 + 64);
    let bottleneck = |inputs: u64| (inputs * 64 + 64) + (5 * 64 * 64 + 64) + (64 * 256 + 256);
    let blocks = bottleneck(64) + (64 * 256 + 256) + 32 * bottleneck(256);
    let cost = build(&ModelConfig::Cnn(CnnConfig::xresnet1d101()), io, training(1e-2), 3, &Device::Cpu)?.cost();
    assert_eq!(cost.parameters, stem + blocks + (2 * 256 * 5 + 5));
    Ok(())
}

#[test]
fn sizes_are_counted_through_stages_and_bottlenecks() -> Result<()> {
    let stem = |w: u64| (5 * 3 * w / 2 + w / 2) + (5 * w / 2 * w / 2 + w / 2) + (5 * w / 2 * w + w);
    let conv = |taps: u64, i: u64, o: u64| taps * i * o + o;
    let plain = conv(5, 6, 6) * 2 + (conv(5, 6, 12) + conv(5, 12, 12) + conv(1, 6, 12)) + 2 * conv(5, 12, 12);
    let first = conv(1, 6, 6) + conv(5, 6, 6) + conv(1, 6, 24) + conv(1, 6, 24);
    let second = conv(1, 24, 12) + conv(5, 12, 12) + conv(1, 12, 48) + conv(1, 24, 48);
    let third = conv(1, 48, 12) + conv(5, 12, 12) + conv(1, 12, 48);
    for (model, body, channels) in
        networks().iter().zip([plain, first + second + third]).zip([12, 48]).map(|((m, b), c)| (m, b, c))
    {
        let cost = build(model, recordings(3, 40), training(1e-2), 3, &Device::Cpu)?.cost();
        assert_eq!(cost.parameters, stem(6) + body + conv(1, 2 * channels, 2), "{model:?}");
        assert_eq!(cost.state_bytes, 3 * 4);
    }
    Ok(())
}
