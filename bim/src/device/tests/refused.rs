//! What a device cannot do or must not swallow is an error.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::{Learner, Result};

use super::{Batch, SEGMENT, STREAMS, VOCABULARY, batch, firing, machine, pair, small, step, tokens};
use crate::config::{
    BimConfig, Count, Credit, DecayForm, DeltaInput, Levels, NeuronConfig, ReadoutConfig, Reset, Share, Step,
};
use crate::device::host;
use crate::device::machine::{Arg, Grid, Machine, Source};
use crate::device::network::{Network, layout};
use crate::online::F32_BITS;
use crate::rule::Membrane;
use crate::{Bim, Optimizer};

/// Host and device that do not carry the same say so, whichever has more.
#[test]
fn cuda_kernels_states_that_do_not_fit_are_refused() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    let configs = [
        small(),
        BimConfig { conv: Count(1), ..small() },
        BimConfig { conv: Count(3), ..small() },
        BimConfig { layers: Count(1), ..small() },
        BimConfig { decay: DecayForm::ChannelState, ..small() },
        BimConfig { delta_input: DeltaInput::Full, ..small() },
        BimConfig { credit: Credit::Tbptt, ..small() },
        BimConfig { kernel: Share(0.5), ..small() },
        BimConfig { post: NeuronConfig { beta: Share(0.9), ..NeuronConfig::default() }, ..small() },
    ];
    for (i, of_device) in configs.iter().enumerate() {
        let shell = Bim::new(of_device, io, Optimizer::constant(0.01), 3, &Device::Cpu)?;
        let membrane = Membrane::choose(of_device, F32_BITS);
        let params = &shell.network.params;
        let weights = Arc::new(machine.zeros(layout(params).1)?);
        let network = Network::new(&machine, of_device, io, membrane, params, weights, true)?;
        let kept = network.carried_state()?;
        for (j, of_host) in configs.iter().enumerate() {
            let mut host = Bim::new(of_host, io, Optimizer::constant(0.01), 3, &Device::Cpu)?.network;
            for state in [None, Some(&kept[..])] {
                let there = host::download_state(&network, state, &mut host);
                let back = host::upload_state(&network, state, &mut host);
                if i == j {
                    there.expect("the same");
                    back.expect("the same");
                } else {
                    let said = [there, back].map(|r| r.err().map(|e| e.to_string()).unwrap_or_default());
                    assert!(said.iter().all(|s| s.contains("state")), "{i} of the device, {j} of the host: {said:?}");
                }
            }
            assert!(host::download_state(&network, Some(&kept[1..]), &mut host).is_err(), "{i}, {j}: one too few");
        }
        assert!(network.restore_state(&kept[1..]).is_err(), "one too few");
    }
    Ok(())
}

/// A token outside the vocabulary, which the host refuses, never passes for a number: neither its own step nor what comes after it in its
/// stream, whatever neurons it meets.
#[test]
fn cuda_kernels_make_no_number_of_an_unknown_token() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    let (stream, t) = (2, 7);
    let binary = NeuronConfig { levels: Levels::Binary, reset: Reset::Subtract, ..firing() };
    let readout = |levels| ReadoutConfig { levels, ..ReadoutConfig::default() };
    let learned = ReadoutConfig { step: Step::Learned, ..readout(Levels::Integer) };
    for neuron in [firing(), binary, NeuronConfig::none()] {
        for readout in [ReadoutConfig::default(), readout(Levels::Binary), readout(Levels::Integer), learned] {
            let what = format!("{:?} neurons, read-out {:?}", neuron.levels, readout.levels);
            let config = BimConfig { pre: neuron, post: neuron, readout, ..small() };
            let (mut host, mut device) = pair(&config, io, &machine)?;
            // the first token that is none; whether the chunk has targets does not matter
            for targets in [0, 3] {
                let known = batch(&io, 0)?;
                let mut tokens = known.x.flatten_all()?.to_vec1::<u32>()?;
                tokens[stream * SEGMENT + t] = VOCABULARY as u32;
                let x = Tensor::from_vec(tokens, (STREAMS, SEGMENT), &Device::Cpu)?;
                let unknown = Batch { x, y: batch(&io, targets)?.y, ..known };
                for learner in [&mut host as &mut dyn Learner, &mut device] {
                    assert!(step(learner, &unknown).is_err(), "{what}: learned from it");
                }
                let logits = learner::read_f32(&device.evaluator(STREAMS)?.predict(&unknown.x)?)?;
                for (row, logits) in logits.chunks(io.outputs).enumerate() {
                    let lost = row / SEGMENT == stream && row % SEGMENT >= t;
                    assert!(logits.iter().all(|x| x.is_nan() == lost), "{what}: row {row} is {logits:?}");
                }
            }
        }
    }
    Ok(())
}

/// What has no room in 32 bits, or in a launch, is refused before the device sees it.
#[test]
fn cuda_kernels_refuse_what_a_launch_has_no_room_for() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let to = machine.zeros(1)?;
    let fill = |grid, count| {
        let args = [Arg::Size(count), Arg::F32(1.0), Arg::all(&to)];
        machine.launch(Source::Network, "fill", grid, &args).map_err(|e| e.to_string())
    };
    fill(Grid::over(1), 1).expect("room");
    for (grid, count, named) in [
        (Grid::over(1), 1 << 31, "2147483648"),
        (Grid::over(1), (1 << 32) + 1, "lower width"),
        (Grid::of(1 << 31, 1), 1, "2147483648"),
        (Grid::over_each(1, 65_536), 1, "lower streams"),
        (Grid::over_streams(1, 1, 65_536), 1, "65536"),
    ] {
        let said = fill(grid, count).expect_err("no room");
        assert!(said.contains("fill on a GPU") && said.contains(named), "{said}");
    }
    Ok(())
}

/// A state beyond numbers is told as on the host, with its layer.
#[test]
fn cuda_kernels_tell_an_explosion() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    let (mut host, mut device) = pair(&small(), io, &machine)?;
    step(&mut host, &batch(&io, 0)?)?;
    for value in [f32::NAN, f32::INFINITY, 1e20] {
        let mut saved = host.save()?;
        let state = &saved.state["layers.1.h.group.1"];
        let mut values = learner::read_f32(state)?;
        values[3] = value;
        let len = values.len();
        saved.state.insert("layers.1.h.group.1".into(), Tensor::from_vec(values, len, &Device::Cpu)?);
        let mut said = Vec::new();
        for learner in [&mut host as &mut dyn Learner, &mut device] {
            learner.load(&saved)?;
            let batch = Batch { starts: vec![false; STREAMS], ..batch(&io, 1)? };
            said.push(step(learner, &batch).expect_err("an explosion").to_string());
        }
        println!("{said:?}");
        assert!(said.iter().all(|s| s.contains("state is") && s.contains("layers.1")), "{said:?}");
    }
    Ok(())
}
