//! What the tests share: data, models small enough to be fast and large enough to have every kind of edge.
#![allow(dead_code, reason = "each test file uses a part")]

use baselines::{
    Adaptation, BpttConfig, CnnConfig, LstmConfig, MambaConfig, ModelConfig, RnnConfig, SnnConfig, TransformerConfig,
    Whole, build, ops::Cell,
};
use candle_core::{Device, Tensor};
use learner::{Decay, Init, InputKind, Io, Learner, ParamSource, Params, Result, Schedule, Targets};

/// Entries of the vocabulary in every test.
pub const VOCABULARY: usize = 11;

/// Standard normal values of this shape; depends on the name alone.
pub fn normal(name: &str, dims: &[usize]) -> Result<Tensor> {
    Ok(Params::new(7, candle_core::DType::F32, &Device::Cpu).get(name, dims, Init::Normal(1.0))?.detach())
}

/// Tokens `[B, K]` without an obvious pattern.
pub fn tokens(seed: usize, streams: usize, steps: usize) -> Result<Tensor> {
    let ids = (0..streams * steps).map(|i| (((i + 1) * (seed * 2 + 3) * 7919 + i * i * 31) % 1009 % VOCABULARY) as u32);
    Ok(Tensor::from_vec(ids.collect::<Vec<_>>(), (streams, steps), &Device::Cpu)?)
}

/// The class of every step, all weighted.
pub fn classes(class: &Tensor) -> Result<Targets> {
    let weight = Tensor::ones(class.dims(), candle_core::DType::F32, &Device::Cpu)?;
    Ok(Targets::Classes { class: class.clone(), weight })
}

pub fn io(streams: usize, segment: usize) -> Io {
    Io { input: InputKind::Tokens { vocabulary: VOCABULARY }, outputs: VOCABULARY, streams, segment }
}

pub fn training(peak: f64) -> BpttConfig {
    let schedule = Schedule { peak, warmup_updates: 5, total_updates: 1000, decay: Decay::Constant, final_share: 1.0 };
    BpttConfig { schedule, ..BpttConfig::recipe(1) }
}

/// A checked size.
pub fn size<const LOW: usize, const HIGH: usize>(n: usize) -> Whole<LOW, HIGH> {
    n.try_into().expect("in range")
}

/// Every model for streams; widths that no block size divides.
pub fn models() -> Vec<ModelConfig> {
    vec![
        ModelConfig::Transformer(TransformerConfig {
            width: size(24),
            layers: size(2),
            heads: size(3),
            ..TransformerConfig::default()
        }),
        ModelConfig::Lstm(LstmConfig { width: size(20), layers: size(2), ..LstmConfig::default() }),
        ModelConfig::Rnn(RnnConfig { width: size(20), layers: size(2), ..RnnConfig::default() }),
        ModelConfig::Rnn(RnnConfig { cell: Cell::Vanilla, width: size(20), layers: size(2), residual: true }),
        // sees 29 steps: more than the two segments of any test that wants every step to reach every later one
        ModelConfig::Cnn(CnnConfig { width: size(20), layers: Some(size(3)), ..CnnConfig::default() }),
        ModelConfig::Mamba(MambaConfig { width: size(20), layers: size(2), states: size(5), ..MambaConfig::default() }),
        snn(false),
        snn(true),
    ]
}

/// Spiking neurons: plain ones, or with everything that can be switched on.
pub fn snn(full: bool) -> ModelConfig {
    let plain = SnnConfig { width: size(44), layers: size(2), residual: false, ..SnnConfig::default() };
    ModelConfig::Snn(if full {
        SnnConfig { recurrent: true, residual: true, adaptive: Some(Adaptation::default()), ..plain }
    } else {
        plain
    })
}

/// A learner with an output map of normal weights, so that outputs tell something of the inputs.
pub fn learner(model: &ModelConfig, io: Io) -> Result<Box<dyn Learner>> {
    let mut learner = build(model, io, training(1e-2), 3, &Device::Cpu)?;
    let mut snapshot = learner.save()?;
    let dims = snapshot.weights["output.weight"].dims().to_vec();
    snapshot.weights.insert("output.weight".into(), (normal("output", &dims)? * 0.3)?);
    learner.load(&snapshot)?;
    Ok(learner)
}

/// Largest absolute difference of two tensors.
pub fn distance(a: &Tensor, b: &Tensor) -> Result<f32> {
    assert_eq!(a.dims(), b.dims());
    if a.elem_count() == 0 {
        return Ok(0.0);
    }
    let (a, b) = (a.to_dtype(candle_core::DType::F64)?, b.to_dtype(candle_core::DType::F64)?);
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()? as f32)
}

/// The elements, for exact comparison.
pub fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

/// Sets the output's weights to zero: the first prediction is uniform, and no gradient reaches what is in front of it.
pub fn zero_output(learner: &mut dyn Learner) -> Result<()> {
    let mut snapshot = learner.save()?;
    let zero = snapshot.weights["output.weight"].zeros_like()?;
    snapshot.weights.insert("output.weight".into(), zero);
    learner.load(&snapshot)
}
