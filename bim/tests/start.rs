//! What a network starts from, what it refuses, and what it says about itself.

use bim::config::{
    Count, Credit, DecayForm, DeltaInput, Front, Initial, Levels, NeuronConfig, NonNegative, Positive, ReadoutConfig,
    Reset, Share, SpikeCode, Step, StepSize,
};
use bim::network::Network;
use bim::rule::Membrane;
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Params, Predictor, Result, Snapshot, Targets};

use crate::common::{numbers, random};

const STREAMS: usize = 3;
const SEGMENT: usize = 8;
const OUTPUTS: usize = 50;

fn config() -> BimConfig {
    BimConfig {
        width: Count(16),
        population: Count(4),
        channels: Count(60),
        state: Count(3),
        heads: Count(4),
        layers: Count(3),
        conv: Count(1),
        delays: Count(3),
        currents: true,
        pre: NeuronConfig { threshold: Positive(0.4), ..NeuronConfig::default() },
        lambda: Share(1.0),
        ..BimConfig::default()
    }
}

fn io(input: InputKind) -> Io {
    Io { input, outputs: OUTPUTS, streams: STREAMS, segment: SEGMENT }
}

fn network(c: &BimConfig, input: InputKind) -> Result<(Params, Network<f64>)> {
    let mut params = Params::new(5, DType::F64, &Device::Cpu);
    let network = Network::new(c, &io(input), Membrane::choose(c, 52), &mut params)?;
    Ok((params, network))
}

#[test]
fn parameters_start_as_the_design_says() -> Result<()> {
    let tokens = InputKind::Tokens { vocabulary: 200 };
    for (input, decay, delta_input) in [
        (tokens, DecayForm::Head, DeltaInput::Group),
        (InputKind::Frames { width: 100 }, DecayForm::ChannelState, DeltaInput::Full),
    ] {
        let c = BimConfig { decay, delta_input, ..config() };
        let (params, _) = network(&c, input)?;
        let of = |name: &str| -> Result<(Vec<usize>, Vec<f64>)> {
            let (_, var) = params.vars().iter().find(|(n, _)| n == name).expect(name);
            Ok((var.dims().to_vec(), numbers(var.as_tensor())?))
        };
        let exact = |name: &str, shape: &[usize], want: &dyn Fn(usize) -> f64| -> Result<()> {
            let (dims, values) = of(name)?;
            assert_eq!(dims, shape, "{name}");
            for (i, got) in values.into_iter().enumerate() {
                assert!((got - want(i)).abs() < 1e-12, "{name}[{i}]: {got} for {}", want(i));
            }
            Ok(())
        };
        let normal = |name: &str, shape: &[usize], deviation: f64| -> Result<()> {
            let (dims, values) = of(name)?;
            assert_eq!(dims, shape, "{name}");
            let rms = (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt();
            // 3 standard errors
            let tolerance = 3.0 / (2.0 * values.len() as f64).sqrt();
            assert!((rms / deviation - 1.0).abs() < tolerance, "{name}: {rms} for {deviation}");
            Ok(())
        };
        let (width, j, d, n, heads) = (16, 64, 60, 3, 4);
        match input {
            InputKind::Tokens { vocabulary } => normal("embedding", &[vocabulary, width], 1.0)?,
            InputKind::Frames { width: frame } => normal("embedding", &[width, frame], 0.1)?,
        }
        exact("norm.gain", &[width], &|_| 1.0)?;
        normal("head.weight", &[OUTPUTS, width], 0.25)?;
        exact("head.bias", &[OUTPUTS], &|_| 0.0)?;
        let first_tap = |width: usize| move |i: usize| f64::from(u8::from(i < width));
        let spread = |i: usize| (i as f64 + 0.5) / 4.0;
        for l in 0..3 {
            let at = |name: &str| format!("layers.{l}.{name}");
            // ON, OFF, ON, OFF; the second pair a threshold higher
            exact(&at("norm.gain"), &[j], &|i| [1.0, -1.0, 1.0, -1.0][i / width])?;
            exact(&at("pre.current"), &[j], &|i| [0.0, 0.0, -0.4, -0.4][i / width])?;
            exact(&at("post.current"), &[d], &|_| 0.0)?;
            exact(&at("delays"), &[3, j], &first_tap(j))?;
            exact(&at("skip"), &[d], &|_| 1.0)?;
            normal(&at("projection"), &[d + 2 * n, j], 0.125)?;
            normal(&at("gate"), &[width, j], 0.125)?;
            normal(&at("out"), &[width, d], 1.0 / 360f64.sqrt())?;
            match delta_input {
                DeltaInput::Group => normal(&at("delta.weight"), &[heads, 16], 0.125)?,
                DeltaInput::Full => normal(&at("delta.weight"), &[heads, j], 0.0625)?,
            }
            // softplus of the bias: step sizes log-uniform from 0.001 to 0.1, neighbours far apart
            let step = |h: usize| 10f64.powf(-3.0 + 2.0 * spread(h * 5 % 4));
            exact(&at("delta.bias"), &[heads], &|h| step(h).exp_m1().ln())?;
            match decay {
                DecayForm::Head => exact(&at("a_log"), &[heads], &|h| (1.0 + 15.0 * spread(h)).ln())?,
                DecayForm::ChannelState => exact(&at("a_log"), &[n, d], &|i| [1.0f64, 2.0, 3.0][i / d].ln())?,
            }
        }
    }
    let c = BimConfig { conv: Count(4), delays: Count(1), population: Count(1), currents: false, ..config() };
    let (params, _) = network(&c, tokens)?;
    let names: Vec<&str> = params.vars().iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.iter().any(|n| n.ends_with("delays") || n.ends_with("current")), "{names:?}");
    let (_, conv) = params.vars().iter().find(|(n, _)| n == "layers.0.conv").expect("a convolution");
    let conv = (conv.dims().to_vec(), numbers(conv.as_tensor())?);
    assert_eq!(conv, (vec![4, 16], (0..64).map(|i| f64::from(u8::from(i < 16))).collect()));
    Ok(())
}

/// Rates spread evenly and step sizes by their logarithms, each between what was asked for.
#[test]
fn dynamics_begin_within_what_was_asked() -> Result<()> {
    let initial = Initial {
        decay_min: Positive(0.1),
        decay_max: Positive(0.9),
        delta_min: StepSize(0.01),
        delta_max: StepSize(1.0),
    };
    let (params, _) = network(&BimConfig { initial, ..config() }, InputKind::Tokens { vocabulary: 7 })?;
    let of = |name: &str| numbers(params.vars().iter().find(|(n, _)| n == name).expect(name).1.as_tensor());
    for (got, want) in of("layers.1.a_log")?.iter().zip([0.2, 0.4, 0.6, 0.8]) {
        assert!((got.exp() - want).abs() < 1e-12, "{got} for {want}");
    }
    for (got, want) in of("layers.1.delta.bias")?.iter().zip([-1.75, -1.25, -0.75, -0.25]) {
        assert!((got.exp().ln_1p().log10() - want).abs() < 1e-12, "{got} for {want}");
    }
    let refused = |c: BimConfig| c.check().expect_err("refused").to_string();
    let crossed = Initial { delta_max: StepSize(0.001), ..initial };
    let error = refused(BimConfig { initial: crossed, ..config() });
    assert!(error.contains("initial.delta_max") && error.contains("initial.delta_min = 0.01 or more"), "{error}");
    let error = refused(BimConfig { initial, decay: DecayForm::ChannelState, ..config() });
    assert!(error.contains("expected decay: head"), "{error}");
    let steps = Initial { decay_min: Positive(1.0), decay_max: Positive(16.0), ..initial };
    BimConfig { initial: steps, decay: DecayForm::ChannelState, ..config() }.check()
}

#[test]
fn inputs_that_do_not_fit_are_refused() -> Result<()> {
    let (_params, mut network) = network(&config(), InputKind::Tokens { vocabulary: 7 })?;
    let ids = |streams: usize, steps: usize, id: u32| Tensor::full(id, (streams, steps), &Device::Cpu);
    network.forward(&ids(STREAMS, 1, 0)?)?;
    network.forward(&ids(STREAMS, SEGMENT, 6)?)?;
    for (x, what) in [
        (ids(STREAMS, SEGMENT, 7)?, "below 7"),
        (ids(STREAMS, 0, 0)?, "1 to 8 steps"),
        (ids(STREAMS, SEGMENT + 1, 0)?, "1 to 8 steps"),
        (ids(STREAMS - 1, SEGMENT, 0)?, "3 streams"),
        (ids(STREAMS + 1, SEGMENT, 0)?, "3 streams"),
        (Tensor::zeros((STREAMS, SEGMENT, 1), DType::U32, &Device::Cpu)?, "3 streams"),
    ] {
        let message = network.forward(&x).expect_err("it does not fit").to_string();
        assert!(message.contains(what), "{:?}: {message}", x.dims());
    }
    let (_params, mut network) = self::network(&config(), InputKind::Frames { width: 5 })?;
    network.forward(&random("x", &[STREAMS, 2, 5], DType::F64))?;
    for shape in [&[STREAMS, 2][..], &[STREAMS, 2, 4], &[STREAMS, 2, 6], &[STREAMS, 9, 5], &[STREAMS, 0, 5], &[2, 2, 5]]
    {
        let x = Tensor::zeros(shape, DType::F64, &Device::Cpu)?;
        assert!(network.forward(&x).is_err(), "{shape:?}");
    }
    for marks in [0, STREAMS - 1, STREAMS + 1] {
        let message = network.reset(&vec![true; marks]).expect_err("as many marks as streams").to_string();
        assert!(message.contains("starts"), "{message}");
    }
    Ok(())
}

/// A group holds its own streams' frames, step by step.
#[test]
fn groups_read_their_own_streams() -> Result<()> {
    let (_params, mut network) = network(&config(), InputKind::Frames { width: 5 })?;
    let x = random("x", &[STREAMS, 2, 5], DType::F64);
    network.forward(&x)?;
    assert_eq!(network.groups[0].inputs(), numbers(&x.transpose(0, 1)?)?);
    Ok(())
}

/// The first state or potential beyond the limit, whatever its sign; one at the limit is none.
#[test]
fn an_explosion_is_a_value_beyond_the_limit() -> Result<()> {
    let (_params, mut network) = network(&BimConfig { currents: false, ..config() }, InputKind::Frames { width: 5 })?;
    network.forward(&Tensor::zeros((STREAMS, 2, 5), DType::F64, &Device::Cpu)?)?;
    assert_eq!(network.exploded(1e-9), None, "silence");
    for value in [5.0, -5.0] {
        network.groups[0].blocks[1].h[7] = value;
        assert_eq!((network.exploded(5.0), network.exploded(4.9)), (None, Some((1, value))));
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        network.groups[0].blocks[1].h[7] = value;
        assert_eq!(network.exploded(1e300).map(|(layer, _)| layer), Some(1), "{value}");
    }
    network.groups[0].blocks[1].h[7] = 0.0;
    let block = &mut network.groups[0].blocks[2];
    let row = STREAMS * block.spec.dims.channels;
    let last = (block.spec.membrane.lag() + 2) * row;
    block.tape.v[last + row - 1] = 3.0;
    block.tape.v[last - 1] = 9.0; // a potential of the past
    assert_eq!(network.exploded(2.0), Some((2, 3.0)));
    Ok(())
}

/// Memory for state and traces is four bytes for each number that a snapshot holds of them.
#[test]
fn costs_are_what_a_snapshot_holds() -> Result<()> {
    let size = |s: &Snapshot, of: &dyn Fn(&str) -> bool| -> u64 {
        s.state.iter().filter(|(name, _)| of(name)).map(|(_, t)| 4 * t.elem_count() as u64).sum()
    };
    let (chunk, front) = (Front::Chunk, Front::Traces);
    for (lambda, credit, reach, front) in [
        (1.0, Credit::Hybrid, 0, chunk),
        (0.9, Credit::Hybrid, 0, chunk),
        (0.9, Credit::Hybrid, 0, front),
        (0.9, Credit::Tbptt, 0, chunk),
        (1.0, Credit::Tbptt, 20, chunk),
    ] {
        let c = BimConfig { lambda: Share(lambda), credit, reach, front, kernel: Share(0.3), ..config() };
        let bim = Bim::new(&c, io(InputKind::Frames { width: 5 }), Optimizer::constant(0.1), 1, &Device::Cpu)?;
        let (cost, saved) = (bim.cost(), bim.save()?);
        let pairs = if lambda < 1.0 { size(&saved, &|name| name.contains("plasticity")) } else { 0 };
        let carried = size(&saved, &|name| name.contains(".group."));
        let traces = size(&saved, &|name| name.contains(".trace.") || name.contains(".front."));
        // three chunks of eight steps reach back over twenty, and the network that runs over them has a state
        let kept = if reach > 0 { 4 * carried } else { 0 };
        assert!(carried > 0 && (pairs > 0) == (lambda < 1.0) && (traces > 0) == (credit == Credit::Hybrid));
        assert_eq!(cost.state_bytes, carried + pairs + kept, "λ = {lambda}, {credit:?}");
        assert_eq!(cost.trace_bytes, traces + pairs, "λ = {lambda}, {credit:?}");
        assert_eq!(size(&saved, &|name| name.contains(".front.")) > 0, front == Front::Traces);
        let planned = bim::plan(&c, io(InputKind::Frames { width: 5 }), Optimizer::constant(0.1), &Device::Cpu)?;
        assert_eq!((planned.state_bytes, planned.trace_bytes), (cost.state_bytes, cost.trace_bytes), "planned");
        assert_eq!(cost.parameters, saved.weights.values().map(Tensor::elem_count).sum::<usize>() as u64);
    }
    Ok(())
}

/// Traces of the front belong to rules that carry traces, and a configuration without them is stored as before there were any.
#[test]
fn traces_of_the_front_need_a_rule_with_traces() {
    let of = |credit| BimConfig { front: Front::Traces, credit, ..config() };
    for credit in [Credit::Hybrid, Credit::Diagonal, Credit::Eprop] {
        of(credit).check().expect("it carries traces");
    }
    BimConfig { layers: Count(1), ..of(Credit::Exact) }.check().expect("it carries traces");
    for credit in [Credit::Spatial, Credit::Tbptt, Credit::Bptt] {
        let message = of(credit).check().expect_err("no traces").to_string();
        assert!(message.starts_with("front: ") && message.contains("expected chunk"), "{message}");
    }
}

/// What a run stops with, another goes on from, traces of the front and all.
#[test]
fn a_learner_with_traces_of_the_front_goes_on_where_it_stopped() -> Result<()> {
    for (decay, beta) in [(DecayForm::Head, 0.1), (DecayForm::ChannelState, 0.9)] {
        let neuron = NeuronConfig { beta: Share(beta), threshold: Positive(0.3), ..NeuronConfig::default() };
        let c = BimConfig { decay, pre: neuron, post: neuron, conv: Count(2), kernel: Share(0.3), ..config() };
        let of = |front| BimConfig { front, ..c.clone() };
        let make = |c: &BimConfig| {
            Bim::new(c, io(InputKind::Tokens { vocabulary: 7 }), Optimizer::constant(0.02), 1, &Device::Cpu)
        };
        let learn = |bim: &mut Bim, updates: std::ops::Range<u32>| -> Result<()> {
            for i in updates {
                bim.reset(&[i == 0, i == 0 || i == 3, i == 0])?;
                let tokens: Vec<u32> = (0..(STREAMS * SEGMENT) as u32).map(|at| (at * 5 + i * i) % 7).collect();
                let class = Tensor::from_vec(tokens, (STREAMS, SEGMENT), &Device::Cpu)?;
                bim.predict(&class)?;
                let weight = Tensor::ones((STREAMS, SEGMENT), DType::F32, &Device::Cpu)?;
                bim.learn(&Targets::Classes { class, weight })?;
            }
            Ok(())
        };
        let c = of(Front::Traces);
        let (mut whole, mut first, mut second) = (make(&c)?, make(&c)?, make(&c)?);
        learn(&mut whole, 0..6)?;
        learn(&mut first, 0..4)?;
        second.load(&first.save()?)?;
        learn(&mut second, 4..6)?;
        let (want, got) = (whole.save()?, second.save()?);
        for (want, got) in [(&want.weights, &got.weights), (&want.state, &got.state)] {
            assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
            for (name, want) in want {
                assert_eq!(numbers(want)?, numbers(&got[name])?, "{decay:?}: {name}");
            }
        }
        let mut other = make(&of(Front::Chunk))?;
        learn(&mut other, 0..6)?;
        let gains = [want, other.save()?].map(|s| numbers(&s.weights["layers.2.norm.gain"]));
        let [with, without] = gains;
        assert_ne!(with?, without?, "{decay:?}: the traces of the front teach nothing");
    }
    Ok(())
}

/// A snapshot of another shape is refused with the name of what does not fit.
#[test]
fn a_snapshot_of_another_shape_is_refused() -> Result<()> {
    let (_params, mut network) = network(&config(), InputKind::Frames { width: 5 })?;
    let mut saved = Snapshot::default();
    network.save(&mut saved)?;
    network.load(&saved)?;
    let name = "layers.1.h.group.0";
    let n = saved.state[name].elem_count();
    for len in [n - 1, n + 1] {
        saved.state.insert(name.to_owned(), Tensor::zeros(len, DType::F64, &Device::Cpu)?);
        let message = network.load(&saved).expect_err("another length").to_string();
        assert!(message.contains(name), "{message}");
    }
    saved.state.remove(name);
    assert!(network.load(&saved).is_err());
    Ok(())
}

/// Steps begin as the threshold says, one for each neuron, and are there only where they are learned.
#[test]
fn learned_steps_begin_as_the_threshold() -> Result<()> {
    let of =
        |threshold| NeuronConfig { step: Step::Learned, threshold: Positive(threshold), ..NeuronConfig::default() };
    let readout = ReadoutConfig { levels: Levels::Integer, step: Step::Learned, ..ReadoutConfig::default() };
    let readout = ReadoutConfig { threshold: Positive(0.125), ..readout };
    let c = BimConfig { delays: Count(1), kernel: Share(0.0), pre: of(0.5), post: of(0.25), readout, ..config() };
    let (params, _) = network(&c, InputKind::Tokens { vocabulary: 7 })?;
    for (name, len, begins) in [
        ("layers.1.pre.step", c.neurons(), 0.5),
        ("layers.2.post.step", c.channels.0, 0.25),
        ("readout.step", c.width.0, 0.125),
    ] {
        let (_, step) = params.vars().iter().find(|(n, _)| n == name).expect(name);
        assert_eq!(step.dims(), [len], "{name}");
        assert!(numbers(step.as_tensor())?.iter().all(|x| (x.exp() - begins).abs() < 1e-7), "{name}");
    }
    let (params, _) = network(&config(), InputKind::Tokens { vocabulary: 7 })?;
    assert!(params.vars().iter().all(|(name, _)| !name.ends_with("step")));
    Ok(())
}

/// How a level is sent changes what is counted and no number of the network.
#[test]
fn the_code_of_spikes_changes_no_number() -> Result<()> {
    let learn = |spikes| -> Result<Snapshot> {
        let neuron = NeuronConfig { spikes, threshold: Positive(0.3), ..NeuronConfig::default() };
        let c = BimConfig { pre: neuron, post: neuron, delays: Count(1), ..config() };
        let mut bim = Bim::new(&c, io(InputKind::Tokens { vocabulary: 7 }), Optimizer::constant(0.1), 1, &Device::Cpu)?;
        for i in 0..3_u32 {
            let class = Tensor::full(i, (STREAMS, SEGMENT), &Device::Cpu)?;
            bim.predict(&class)?;
            let weight = Tensor::ones((STREAMS, SEGMENT), DType::F32, &Device::Cpu)?;
            bim.learn(&Targets::Classes { class, weight })?;
        }
        bim.save()
    };
    let (burst, weighted) = (learn(SpikeCode::Burst)?, learn(SpikeCode::Weighted)?);
    for (name, values) in &burst.weights {
        assert_eq!(numbers(values)?, numbers(&weighted.weights[name])?, "{name}");
    }
    Ok(())
}

#[test]
fn steps_and_codes_that_make_no_sense_are_refused_with_their_key() {
    let of = |change: fn(&mut BimConfig)| {
        let mut c = BimConfig { delays: Count(1), kernel: Share(0.0), ..config() };
        change(&mut c);
        c.check()
    };
    let refused = |key: &str, change: fn(&mut BimConfig)| {
        let message = of(change).expect_err(key).to_string();
        assert!(message.contains(key) && message.contains("expected"), "{key}: {message}");
    };
    refused("pre.step", |c| (c.pre.levels, c.pre.step) = (Levels::Analog, Step::Learned));
    refused("post.step", |c| (c.post.levels, c.post.step) = (Levels::Analog, Step::Learned));
    refused("readout.step", |c| c.readout.step = Step::Learned);
    refused("pre.attached_reset", |c| (c.pre.attached_reset, c.pre.step) = (true, Step::Learned));
    refused("post.attached_reset", |c| (c.post.attached_reset, c.post.step) = (true, Step::Learned));
    refused("pre.step", |c| (c.delays, c.pre.step) = (Count(2), Step::Learned));
    refused("pre.step", |c| (c.kernel, c.pre.step) = (Share(0.5), Step::Learned));
    refused("pre.spikes", |c| (c.pre.levels, c.pre.spikes) = (Levels::Binary, SpikeCode::Weighted));
    refused("post.spikes", |c| (c.post.levels, c.post.spikes) = (Levels::Signed, SpikeCode::Weighted));
    refused("readout.spikes", |c| c.readout.spikes = SpikeCode::Weighted);
    // keys of neurons that are not there would do nothing
    refused("readout", |c| c.readout.threshold = Positive(0.5));
    refused("readout", |c| c.readout.penalty = NonNegative(0.02));
    for fine in [
        |c: &mut BimConfig| (c.pre.step, c.pre.spikes) = (Step::Learned, SpikeCode::Weighted),
        |c: &mut BimConfig| (c.post.step, c.delays) = (Step::Learned, Count(3)),
        |c: &mut BimConfig| (c.pre.levels, c.pre.step) = (Levels::Quantised, Step::Learned),
        |c: &mut BimConfig| (c.readout.levels, c.readout.step) = (Levels::Signed, Step::Learned),
        |c: &mut BimConfig| {
            (c.pre.attached_reset, c.pre.reset, c.pre.step) = (true, Reset::None, Step::Learned);
        },
    ] {
        of(|_| ()).expect("the base");
        let mut c = BimConfig { delays: Count(1), kernel: Share(0.0), ..config() };
        fine(&mut c);
        c.check().expect("it fits together");
    }
}
