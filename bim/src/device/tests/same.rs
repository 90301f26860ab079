//! What a learner on a device and the host's make of the same chunks is the same.

use learner::{InputKind, Io, Learner, Predictor, Result};

use super::{SEGMENT, STREAMS, batch, compare, firing, io, machine, pair, same, small, step, taken, tokens};
use crate::Optimizer;
use crate::config::{
    BimConfig, Bounds, Count, Credit, DecayForm, DeltaInput, DiagnoseConfig, Lag, Levels, Mixing, NeuronConfig,
    NonNegative, Positive, PruneConfig, ReadoutConfig, Reset, Share, StdpConfig, Step, Surrogate,
};
use crate::device::learner::OnDevice;

#[test]
fn cuda_kernels_train_in_every_credit_mode() -> Result<()> {
    let credits =
        [Credit::Hybrid, Credit::Exact, Credit::Diagonal, Credit::Eprop, Credit::Spatial, Credit::Tbptt, Credit::Bptt];
    for credit in credits {
        let layers = Count(if credit == Credit::Exact { 1 } else { 2 });
        same(&format!("{credit:?}"), &BimConfig { layers, credit, ..small() }, tokens(), 7)?;
    }
    Ok(())
}

/// Credit through a membrane that is slow, or whose reset it passes: traces of its own.
#[test]
fn cuda_kernels_train_through_slow_membranes() -> Result<()> {
    let pre = firing();
    let attached = NeuronConfig { attached_reset: true, beta: Share(0.4), ..firing() };
    let slow = NeuronConfig { beta: Share(0.9), ..firing() };
    let quiet = NeuronConfig { beta: Share(0.9), ..NeuronConfig::none() };
    let per_state = BimConfig { decay: DecayForm::ChannelState, currents: true, ..small() };
    let frames = io(InputKind::Frames { width: 6 });
    for (name, config, io) in [
        ("attached reset", BimConfig { pre, post: attached, ..small() }, tokens()),
        ("slow membrane", BimConfig { post: slow, currents: true, ..small() }, tokens()),
        ("slow membrane, diagonal", BimConfig { post: slow, credit: Credit::Diagonal, ..small() }, tokens()),
        (
            "slow membrane, step sizes from all",
            BimConfig { post: quiet, delta_input: DeltaInput::Full, ..small() },
            frames,
        ),
        ("slow membrane, a decay per state", BimConfig { pre: NeuronConfig::none(), post: quiet, ..per_state }, frames),
    ] {
        assert_eq!(crate::rule::Membrane::choose(&config, 24), crate::rule::Membrane::Traces, "{name}");
        same(name, &config, io, 6)?;
    }
    goes_on(&BimConfig { pre, post: attached, ..small() })
}

/// Credit that reaches three chunks back, over streams that begin anew among them.
#[test]
fn cuda_kernels_reach_behind_their_chunk() -> Result<()> {
    let (pre, post) = (firing(), firing());
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    let truncated = BimConfig { credit: Credit::Tbptt, reach: 3 * SEGMENT as u64, pre, post, ..small() };
    let delayed = BimConfig { delays: Count(2), kernel: Share(0.4), ..truncated.clone() };
    for (name, config) in [
        ("reach", truncated.clone()),
        ("reach with delays", delayed),
        ("reach with learned steps", BimConfig { pre: learned, post: learned, ..truncated.clone() }),
        ("reach with plasticity", BimConfig { lambda: Share(0.8), ..truncated.clone() }),
    ] {
        same(name, &config, tokens(), 9)?;
    }
    goes_on(&truncated)
}

#[test]
fn cuda_kernels_train_every_kind_of_block() -> Result<()> {
    let frames = io(InputKind::Frames { width: 6 });
    let (pre, post) = (firing(), firing());
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    let binary =
        NeuronConfig { levels: Levels::Binary, surrogate: Surrogate::FastSigmoid, reset: Reset::Subtract, ..pre };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.5), ..ReadoutConfig::default() };
    let readout = ReadoutConfig { penalty: NonNegative(0.1), ..readout };
    let kinds = [
        ("price", BimConfig { pre, post, ..small() }, tokens()),
        ("frames", BimConfig { pre, post, ..small() }, frames),
        ("no gate, no convolution", BimConfig { gate: false, conv: Count(1), pre, ..small() }, tokens()),
        (
            "delays and kernel",
            BimConfig { conv: Count(1), delays: Count(3), kernel: Share(0.5), pre, ..small() },
            frames,
        ),
        ("silu", BimConfig { silu: true, pre, post, ..small() }, tokens()),
        ("silu alone", BimConfig { silu: true, conv: Count(1), ..small() }, tokens()),
        ("population", BimConfig { population: Count(2), currents: true, pre: binary, post, ..small() }, tokens()),
        ("no neurons", BimConfig { pre: NeuronConfig::none(), post: NeuronConfig::none(), ..small() }, frames),
        ("a decay per state", BimConfig { decay: DecayForm::ChannelState, pre, post, ..small() }, tokens()),
        ("step sizes from all", BimConfig { delta_input: DeltaInput::Full, pre, post, ..small() }, tokens()),
        ("both", BimConfig { decay: DecayForm::ChannelState, delta_input: DeltaInput::Full, pre, ..small() }, frames),
        ("read-out", BimConfig { pre, post, readout, ..small() }, tokens()),
        (
            "learned steps",
            BimConfig {
                pre: learned,
                post: learned,
                readout: ReadoutConfig { step: Step::Learned, ..readout },
                ..small()
            },
            tokens(),
        ),
        (
            "learned steps of the read-out",
            BimConfig { readout: ReadoutConfig { step: Step::Learned, ..readout }, ..small() },
            frames,
        ),
        (
            "learned steps, step sizes from all",
            BimConfig { pre: learned, delta_input: DeltaInput::Full, gate: false, ..small() },
            tokens(),
        ),
    ];
    for (name, config, io) in kinds {
        same(name, &config, io, 6)?;
    }
    Ok(())
}

#[test]
fn cuda_kernels_train_with_plasticity() -> Result<()> {
    let (pre, post) = (firing(), firing());
    let mixed = BimConfig { lambda: Share(0.8), pre, post, ..small() };
    let bounds = |bounds, limit| StdpConfig {
        bounds,
        limit: Positive(limit),
        a_minus: NonNegative(0.7),
        ..StdpConfig::default()
    };
    let prune = PruneConfig {
        target: Share(0.4),
        start: 2,
        interval: Count(2),
        hazard: Share(0.9),
        regrow: Share(0.1),
        ..PruneConfig::default()
    };
    let diagnose =
        DiagnoseConfig { time_differences: Lag(5), time_differences_every: Count(3), ..DiagnoseConfig::default() };
    let population = BimConfig { population: Count(2), currents: true, ..mixed.clone() };
    let kinds = [
        ("symmetric bounds", BimConfig { stdp: bounds(Bounds::Symmetric, 4.0), ..mixed.clone() }),
        ("soft bounds", BimConfig { stdp: bounds(Bounds::Soft, 2.0), ..mixed.clone() }),
        ("hard bounds", BimConfig { stdp: bounds(Bounds::Hard, 1.5), ..mixed.clone() }),
        ("no bounds", BimConfig { stdp: bounds(Bounds::None, 4.0), lambda_warmup: 4, ..mixed.clone() }),
        ("as printed", BimConfig { mixing: Mixing::AsPrinted, ..mixed.clone() }),
        ("shuffled", BimConfig { stdp: StdpConfig { shuffled: true, ..StdpConfig::default() }, ..mixed.clone() }),
        ("population", population),
        ("measured by time difference", BimConfig { diagnose, ..mixed.clone() }),
        ("measured without plasticity", BimConfig { diagnose, lambda: Share(1.0), ..mixed.clone() }),
        ("pruning", BimConfig { prune, lambda: Share(1.0), ..mixed.clone() }),
        ("pruning and plasticity", BimConfig { prune, ..mixed }),
    ];
    for (name, config) in kinds {
        same(name, &config, tokens(), 9)?;
    }
    Ok(())
}

/// A run goes on from a checkpoint of the other device as if nothing had happened, and what is saved is the same on both.
#[test]
fn cuda_kernels_checkpoints_go_from_device_to_device() -> Result<()> {
    let (pre, post) = (firing(), firing());
    let prune = PruneConfig { target: Share(0.3), start: 2, interval: Count(3), ..PruneConfig::default() };
    let every = Count(6); // the chunk before the checkpoint is the history of one that is measured
    let diagnose =
        DiagnoseConfig { time_differences: Lag(4), time_differences_every: every, ..DiagnoseConfig::default() };
    let delays = Count(2);
    goes_on(&BimConfig { lambda: Share(0.9), pre, post, prune, delays, kernel: Share(0.3), diagnose, ..small() })?;
    // every form of what is carried; with a decay per state other exponentials would tip spikes now and then
    let (none, delta_input) = (NeuronConfig::none(), DeltaInput::Full);
    let per_state = BimConfig { decay: DecayForm::ChannelState, currents: true, pre: none, post: none, ..small() };
    goes_on(&per_state)?;
    goes_on(&BimConfig { delta_input, ..per_state.clone() })?;
    goes_on(&BimConfig { post: NeuronConfig { beta: Share(0.9), ..none }, delta_input, ..per_state })?;
    let population = Count(2);
    goes_on(&BimConfig { population, currents: true, delta_input, lambda: Share(0.9), pre, post, ..small() })
}

/// More states and channels than a launch has rows in its second dimension.
#[test]
fn cuda_kernels_train_many_states() -> Result<()> {
    let io = Io { streams: 2, segment: 3, ..tokens() };
    let many = BimConfig { width: Count(2), channels: Count(1024), state: Count(65), heads: Count(1), ..small() };
    let (pre, post) = (NeuronConfig::none(), NeuronConfig { beta: Share(0.9), ..NeuronConfig::none() });
    for (name, config) in [
        ("many states", many.clone()),
        ("many states under slow membranes", BimConfig { layers: Count(1), pre, post, ..many.clone() }),
        ("many states, without traces", BimConfig { credit: Credit::Tbptt, ..many }),
    ] {
        same(name, &config, io, 2)?;
    }
    Ok(())
}

/// The host waits for the loss, for norm and states together, for the moments of the mix, and for the change; for streams that begin anew
/// nothing is launched where there are none.
#[test]
fn cuda_kernels_make_the_host_wait_as_little_as_said() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    for (lambda, downloads) in [(0.9, 3), (1.0, 2)] {
        let config = BimConfig { lambda: Share(lambda), ..small() };
        let mut device = OnDevice::new(&machine, &config, io, Optimizer::constant(0.01), 3)?;
        device.set_counting(false);
        step(&mut device, &batch(&io, 0)?)?; // the first update has diagnostics
        taken(&machine.waits);
        step(&mut device, &batch(&io, 1)?)?;
        let waits = taken(&machine.waits);
        assert_eq!(waits, [("download", downloads), ("loss", 1)].into(), "lambda {lambda}");
        taken(&machine.launches);
        device.reset(&[false; STREAMS])?;
        assert_eq!(taken(&machine.launches), [].into(), "lambda {lambda}");
        device.reset(&[false, true, false, false, false])?;
        assert!(taken(&machine.launches).contains_key("reset_streams"), "lambda {lambda}");
    }
    Ok(())
}

/// Trains, saves, and goes on from the other device's checkpoint.
fn goes_on(config: &BimConfig) -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    let ((mut host, mut device), (mut new_host, mut new_device)) =
        (pair(config, io, &machine)?, pair(config, io, &machine)?);
    compare(&mut host, &mut device, &io, 0..6).unwrap_or_else(|e| panic!("{e}"));
    let (of_host, of_device) = (host.save()?, device.save()?);
    for (a, b) in [
        (&of_host.weights, &of_device.weights),
        (&of_host.optimizer, &of_device.optimizer),
        (&of_host.state, &of_device.state),
    ] {
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, x) in a {
            let (x, y) = (learner::read_f32(x)?, learner::read_f32(&b[name])?);
            standins::close(name, &y, &x, 1e-4).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    assert_eq!(of_host.counters, of_device.counters);
    new_host.load(&of_device)?;
    new_device.load(&of_host)?;
    for (a, b) in [(&mut host as &mut dyn Learner, &mut new_device as &mut dyn Learner), (&mut device, &mut new_host)] {
        compare(a, b, &io, 6..10).unwrap_or_else(|e| panic!("{e}"));
    }
    // and back on the same device, to the bit
    let mut again = OnDevice::new(&machine, config, io, Optimizer::constant(0.01), 3)?;
    again.load(&device.save()?)?;
    let (x, y) = (step(&mut device, &batch(&io, 10)?)?, step(&mut again, &batch(&io, 10)?)?);
    assert_eq!((x.loss, x.grad_norm, x.update_norm), (y.loss, y.grad_norm, y.update_norm));
    Ok(())
}

/// Evaluation sees the weights of the learner and has streams of its own.
#[test]
fn cuda_kernels_evaluate_as_the_host() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    for config in [BimConfig { delays: Count(2), ..small() }, BimConfig { pre: learned, post: learned, ..small() }] {
        let io = tokens();
        let (mut host, mut device) = pair(&config, io, &machine)?;
        let (mut of_host, mut of_device) = (host.evaluator(3)?, device.evaluator(3)?);
        for predictor in [&mut of_host, &mut of_device] {
            predictor.count_predictions(true);
        }
        for round in 0..2 {
            compare(&mut host, &mut device, &io, 3 * round..3 * round + 3).unwrap_or_else(|e| panic!("{e}"));
            for chunk in 0..3 {
                let batch = batch(&Io { streams: 3, ..io }, chunk)?;
                let predict = |predictor: &mut Box<dyn Predictor>| -> Result<Vec<f32>> {
                    predictor.reset(&batch.starts)?;
                    learner::read_f32(&predictor.predict(&batch.x)?)
                };
                let (want, got) = (predict(&mut of_host)?, predict(&mut of_device)?);
                standins::close("logits", &got, &want, 1e-4).unwrap_or_else(|e| panic!("{e}"));
            }
            assert_eq!(of_host.predicted(), of_device.predicted());
        }
    }
    Ok(())
}

/// Launches do not grow with the steps of a chunk, nor with the streams.
#[test]
fn cuda_kernels_are_launched_once_per_chunk() -> Result<()> {
    let launches = |segment: usize, streams: usize| -> Result<Option<u64>> {
        let Some(machine) = machine() else { return Ok(None) };
        let config = BimConfig { lambda: Share(0.9), ..small() };
        let io = Io { segment, streams, ..tokens() };
        let mut device = OnDevice::new(&machine, &config, io, Optimizer::constant(0.01), 3)?;
        step(&mut device, &batch(&io, 0)?)?;
        taken(&machine.launches);
        step(&mut device, &batch(&io, 1)?)?;
        let launches = taken(&machine.launches);
        println!("{segment} steps of {streams} streams: {launches:?}");
        Ok(Some(launches.values().sum()))
    };
    let (short, long, wide) = (launches(8, 2)?, launches(40, 2)?, launches(8, 5)?);
    println!("{short:?} launches and products per update of two layers");
    assert_eq!(short, long);
    assert_eq!(short, wide);
    Ok(())
}
