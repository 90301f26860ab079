//! Products from events give what dense ones give: the same spikes, and numbers to rounding.

use bim::config::{
    Count, DeltaInput, Inference, Levels, NeuronConfig, Positive, ReadoutConfig, Share, SpikeCode, Step,
};
use bim::kernels::Real;
use bim::network::Network;
use bim::rule::Membrane;
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Params, Predictor, Result, Targets};

use crate::common::{error, numbers, random};

const STREAMS: usize = 5;
const VOCABULARY: usize = 11;

/// Sizes at which register tiles are whole and partial.
fn config() -> BimConfig {
    let neuron = NeuronConfig { beta: Share(0.3), threshold: Positive(1.1), ..NeuronConfig::default() };
    BimConfig {
        width: Count(100),
        channels: Count(120),
        state: Count(3),
        heads: Count(4),
        layers: Count(2),
        pre: neuron,
        post: NeuronConfig { threshold: Positive(0.15), ..neuron },
        ..BimConfig::default()
    }
}

/// Every way in which spikes may arrive.
fn cases() -> Vec<(&'static str, BimConfig)> {
    let c = config();
    let learned = |neuron: NeuronConfig| NeuronConfig { step: Step::Learned, ..neuron };
    let with = |levels: Levels, neuron: NeuronConfig| NeuronConfig { levels, ..neuron };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.6), ..ReadoutConfig::default() };
    let both = |f: &dyn Fn(NeuronConfig) -> NeuronConfig| BimConfig { pre: f(c.pre), post: f(c.post), ..c.clone() };
    vec![
        ("as it is", c.clone()),
        ("without a gate, step sizes from all, spikes read out", {
            BimConfig { gate: false, delta_input: DeltaInput::Full, readout, ..c.clone() }
        }),
        ("learned steps", {
            let readout = ReadoutConfig { step: Step::Learned, ..readout };
            BimConfig { readout, ..both(&learned) }
        }),
        ("learned steps, step sizes from all", BimConfig { delta_input: DeltaInput::Full, ..both(&learned) }),
        ("binary", both(&|neuron| with(Levels::Binary, neuron))),
        ("unsigned, weighted", {
            both(&|neuron| NeuronConfig { spikes: SpikeCode::Weighted, ..with(Levels::Unsigned, neuron) })
        }),
        ("delays, so that the presynaptic side stays dense", BimConfig { delays: Count(3), ..c.clone() }),
        ("numbers in front", BimConfig { pre: with(Levels::Analog, c.pre), ..c.clone() }),
        ("codes behind", BimConfig { post: with(Levels::Quantised, c.post), ..c.clone() }),
        ("two populations", BimConfig { population: Count(2), currents: true, ..c }),
    ]
}

fn io(segment: usize) -> Io {
    Io { input: InputKind::Tokens { vocabulary: VOCABULARY }, outputs: VOCABULARY, streams: STREAMS, segment }
}

fn tokens(streams: usize, steps: usize) -> Tensor {
    let ids = (0..streams * steps).map(|i| (i * i + i / 3) as u32 % VOCABULARY as u32).collect();
    Tensor::from_vec(ids, (streams, steps), &Device::Cpu).expect("small tensor")
}

/// Parameters off their starting points.
fn params(c: &BimConfig, dtype: DType) -> Result<Params> {
    let mut params = Params::new(5, dtype, &Device::Cpu);
    Network::<f64>::new(c, &io(16), Membrane::Lag(0), &mut params).map(drop)?;
    for (name, var) in params.vars() {
        var.set(&(var.as_tensor() + (random(name, var.dims(), dtype) * 0.05)?)?)?;
    }
    Ok(params)
}

/// Logits, and the spikes of all layers, of three chunks of these lengths; the multiplications that were noted.
fn run<T: Real>(c: &BimConfig, params: &Params, lengths: [usize; 3]) -> Result<(Vec<f64>, Vec<T>, u64)> {
    let mut network = Network::<T>::new(c, &io(16), Membrane::Lag(0), &mut params.bound())?;
    network.freeze(c)?;
    let x = tokens(STREAMS, lengths.iter().sum());
    let (mut logits, mut spikes, mut t) = (Vec::new(), Vec::new(), 0);
    for len in lengths {
        logits.push(network.forward(&x.narrow(1, t, len)?.contiguous()?)?);
        for block in network.groups.iter().flat_map(|g| &g.blocks) {
            spikes.extend_from_slice(block.spikes_in(len));
            spikes.extend_from_slice(block.spikes_out(len));
        }
        network.finish()?;
        t += len;
    }
    Ok((numbers(&Tensor::cat(&logits, 1)?)?, spikes, network.take_performed()))
}

fn equals_the_dense_path<T: Real>(dtype: DType, tolerance: f64) -> Result<()> {
    for (case, dense) in cases() {
        let params = params(&dense, dtype)?;
        let events = BimConfig { inference: Inference::Events, ..dense.clone() };
        events.check()?;
        // a step alone runs along whole columns, many of them in tiles
        for lengths in [[16, 7, 1], [1, 1, 2]] {
            let (want, spikes, noted) = run::<T>(&dense, &params, lengths)?;
            let (got, of_events, noted_too) = run::<T>(&events, &params, lengths)?;
            let silent = spikes.iter().filter(|s| **s == T::zero()).count() as f64 / spikes.len() as f64;
            assert!(
                (0.05..0.95).contains(&silent),
                "{case}: {silent} of the neurons are silent, the test would be empty"
            );
            assert!(
                of_events == spikes,
                "{case}: a spike differs; none of these data lies within rounding of its threshold"
            );
            assert_eq!(noted_too, noted, "{case}: counters hold dense products against dense products");
            let worst = error(&got, &want);
            assert!(worst < tolerance, "{case}, {lengths:?}: logits differ by {worst:.1e} of the largest");
        }
    }
    Ok(())
}

/// What the README promises: 1e-5 of the largest logit in single precision, 1e-12 in double.
#[test]
fn logits_and_spikes_are_those_of_the_dense_path() -> Result<()> {
    equals_the_dense_path::<f64>(DType::F64, 1e-12)?;
    equals_the_dense_path::<f32>(DType::F32, 1e-5)
}

fn learner(c: &BimConfig) -> Result<Bim> {
    let mut bim = Bim::new(c, io(16), Optimizer::constant(0.05), 3, &Device::Cpu)?;
    let mut start = bim.save()?;
    for (name, values) in &mut start.weights {
        *values = (&*values + (random(name, values.dims(), DType::F32) * 0.05)?)?;
    }
    bim.load(&start)?;
    Ok(bim)
}

fn answers(predictor: &mut dyn Predictor, streams: usize, lengths: &[usize]) -> Result<Vec<f64>> {
    let x = tokens(streams, lengths.iter().sum());
    predictor.reset(&vec![true; streams])?;
    let (mut parts, mut t) = (Vec::new(), 0);
    for len in lengths {
        parts.push(predictor.predict(&x.narrow(1, t, *len)?.contiguous()?)?);
        t += len;
    }
    numbers(&Tensor::cat(&parts, 1)?)
}

/// Columns are made once and again when the weights have changed: by learning or by loading.
#[test]
fn predictors_follow_the_learner() -> Result<()> {
    for (step, inference) in [Step::Fixed, Step::Learned].into_iter().flat_map(|s| {
        [Inference::Dense, Inference::Events].map(|i| (s, i)) // dense ones fold learned steps once, too
    }) {
        let c = config();
        let c =
            BimConfig { pre: NeuronConfig { step, ..c.pre }, post: NeuronConfig { step, ..c.post }, inference, ..c };
        let mut bim = learner(&c)?;
        let start = bim.save()?;
        let mut kept = bim.evaluator(STREAMS)?;
        let before = answers(&mut *kept, STREAMS, &[16, 3])?;
        bim.predict(&tokens(STREAMS, 16))?;
        let weight = Tensor::ones((STREAMS, 16), DType::F32, &Device::Cpu)?;
        bim.learn(&Targets::Classes { class: tokens(STREAMS, 16), weight })?;
        let after = answers(&mut *kept, STREAMS, &[16, 3])?;
        assert_ne!(after, before);
        assert_eq!(
            after,
            answers(&mut *bim.evaluator(STREAMS)?, STREAMS, &[16, 3])?,
            "{step:?}, {inference:?}: learned"
        );
        bim.load(&start)?;
        assert_eq!(answers(&mut *kept, STREAMS, &[16, 3])?, before, "{step:?}, {inference:?}: loaded");
    }
    Ok(())
}

/// Every sum is taken in order of the neurons: the same to the last bit for any number of threads. Where no product is left that is
/// dense, it is so for segments of any length, too.
#[test]
fn answers_depend_on_neither_threads_nor_segments() -> Result<()> {
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.6), ..ReadoutConfig::default() };
    let c = BimConfig { readout, inference: Inference::Events, ..config() };
    let bim = learner(&c)?;
    let with = |threads: usize, lengths: &[usize]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        // more streams than a group has
        pool.install(|| answers(&mut *bim.evaluator(19)?, 19, lengths))
    };
    let want = with(1, &[16, 8])?;
    assert_eq!(with(3, &[16, 8])?, want);
    for lengths in [&[1; 24][..], &[2, 7, 1, 5, 9], &[16, 4, 4]] {
        assert_eq!(with(2, lengths)?, want, "segments of {lengths:?}");
    }
    Ok(())
}

/// Operations are counted from events in either case, and no product goes undeclared.
#[test]
fn operations_are_those_of_the_dense_path() -> Result<()> {
    let counts = |inference| -> Result<_> {
        let bim = learner(&BimConfig { inference, ..config() })?;
        let mut evaluator = bim.evaluator(STREAMS)?;
        evaluator.count_predictions(true);
        answers(&mut *evaluator, STREAMS, &[16, 3])?;
        Ok(evaluator.predicted().expect("counted"))
    };
    let (dense, events) = (counts(Inference::Dense)?, counts(Inference::Events)?);
    assert!(events.forward.operations() > 0 && events.unknown == 0);
    assert_eq!(events, dense);
    Ok(())
}

/// Learning stays dense: its weights change at every update.
#[test]
fn learning_is_the_same_to_the_last_bit() -> Result<()> {
    let losses = |inference| -> Result<_> {
        let mut bim = learner(&BimConfig { inference, ..config() })?;
        let weight = Tensor::ones((STREAMS, 16), DType::F32, &Device::Cpu)?;
        let mut losses = Vec::new();
        for _ in 0..3 {
            bim.predict(&tokens(STREAMS, 16))?;
            losses.extend(bim.learn(&Targets::Classes { class: tokens(STREAMS, 16), weight: weight.clone() })?.loss);
        }
        Ok(losses)
    };
    let dense = losses(Inference::Dense)?;
    assert_eq!((losses(Inference::Events)?, dense.len()), (dense, 3));
    Ok(())
}

#[test]
fn networks_without_spikes_refuse_events_with_their_key() {
    let c = BimConfig { inference: Inference::Events, ..config() };
    let analog = NeuronConfig { levels: Levels::Analog, ..c.pre };
    let quantised = NeuronConfig { levels: Levels::Quantised, ..c.post };
    for pre in [analog, quantised] {
        let without = BimConfig { pre, post: quantised, ..c.clone() };
        let said = without.check().expect_err("nothing to skip").to_string();
        assert!(said.starts_with("inference: ") && said.contains("dense"), "{said}");
        BimConfig { inference: Inference::Dense, ..without }.check().expect("dense needs no spikes");
    }
    let delayed = BimConfig { kernel: Share(0.5), post: quantised, ..c.clone() };
    assert!(delayed.check().is_err(), "behind a kernel spikes are numbers");
    let read_out = ReadoutConfig { levels: Levels::Integer, ..ReadoutConfig::default() };
    BimConfig { readout: read_out, ..delayed }.check().expect("spikes at the read-out");
}
