//! What a network carries from chunk to chunk, number by number: histories are the last steps, one stream is put to rest
//! alone, and a network of another lag takes over where the first one stood.

use std::collections::BTreeMap;

use bim::BimConfig;
use bim::config::{Count, Credit, DecayForm, Front, NeuronConfig, Positive, Share};
use bim::network::Network;
use bim::rule::Membrane;
use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Params, Result};

use crate::common::{assert_close, named, numbers, random};

/// In groups of two.
const STREAMS: usize = 6;
const SEGMENT: usize = 60;
const FRAME: usize = 4;
const OUTPUTS: usize = 3;
const LAG: usize = 2;

/// Everything that has a history: convolution, delays, kernel, membranes, state.
fn config(credit: Credit) -> BimConfig {
    let neuron = NeuronConfig { beta: Share(0.1), threshold: Positive(0.2), ..NeuronConfig::default() };
    BimConfig {
        width: Count(6),
        channels: Count(8),
        state: Count(3),
        heads: Count(2),
        layers: Count(2),
        conv: Count(4),
        delays: Count(3),
        kernel: Share(0.4),
        pre: neuron,
        post: neuron,
        credit,
        ..BimConfig::default()
    }
}

fn network(c: &BimConfig, membrane: Membrane) -> Result<Network<f64>> {
    let io = Io { input: InputKind::Frames { width: FRAME }, outputs: OUTPUTS, streams: STREAMS, segment: SEGMENT };
    Network::new(c, &io, membrane, &mut Params::new(5, DType::F64, &Device::Cpu))
}

fn chunk(name: &str, steps: usize) -> Tensor {
    random(name, &[STREAMS, steps, FRAME], DType::F64)
}

/// What each block of each group carries, by name.
fn carried(network: &mut Network<f64>) -> Vec<BTreeMap<String, Vec<f64>>> {
    let blocks = network.groups.iter_mut().flat_map(|g| &mut g.blocks);
    blocks.map(|b| b.carried().into_iter().map(|(name, values)| (name, values.to_vec())).collect()).collect()
}

#[test]
fn histories_are_the_last_steps() -> Result<()> {
    let mut network = network(&config(Credit::Hybrid), Membrane::Lag(LAG))?;
    network.forward(&chunk("first", 7))?;
    let last: Vec<_> = network
        .groups
        .iter()
        .flat_map(|g| &g.blocks)
        .map(|b| {
            let row = b.spec.encode.streams * b.spec.dims.inputs;
            assert_eq!(b.last_potentials(7).len(), b.spec.encode.streams * b.spec.dims.channels);
            (b.psi_of_chunk(7)[5 * row..].to_vec(), b.last_potentials(7).to_vec())
        })
        .collect();
    network.finish()?;
    for ((_, potentials), block) in last.iter().zip(carried(&mut network)) {
        assert_eq!(block["v"].len(), (LAG + 1) * potentials.len());
        assert_eq!(block["v"][LAG * potentials.len()..], potentials[..]);
        assert!(potentials.iter().any(|v| *v != 0.0), "no potential: the test would be empty");
    }
    network.forward(&chunk("second", 5))?;
    assert_eq!(network.groups.len(), 3, "several groups of streams");
    for ((psi, _), block) in last.iter().zip(network.groups.iter().flat_map(|g| &g.blocks)) {
        assert_eq!(block.psi_before_chunk(), psi);
        let row = psi.len() / LAG;
        assert_eq!(block.psi_of_window(5), [&psi[..], &block.psi_of_chunk(5)[..3 * row]].concat());
        assert!(psi.iter().any(|s| *s != 0.0), "silent: the test would be empty");
    }
    Ok(())
}

/// Places in a carried array of one of the group's streams.
fn places(c: &BimConfig, name: &str, len: usize, streams: usize, stream: usize) -> Vec<usize> {
    let (width, j, d, n, h) = (c.width.0, c.neurons(), c.channels.0, c.state.0, c.heads.0);
    let columns = match name {
        "h" | "h0" => return (stream * n * d..(stream + 1) * n * d).collect(),
        "rates" | "skips" => return Vec::new(), // of no stream
        "v" => d,
        "p" => d + 2 * n,
        "delta" | "a" => h,
        "psi" | "pre.v" | "pre.s" | "pre.psi" => j,
        "pre.x" => width,
        // sensitivities of what stands in front of ψ: rows of all streams
        front if front.starts_with("front.") && !front.contains(".trace.") => j,
        trace if trace.contains("trace.") => {
            return if trace.ends_with(&format!(".{stream}")) { (0..len).collect() } else { Vec::new() };
        }
        other => panic!("{other} is new: say whose it is"),
    };
    (0..len).filter(|i| i / columns % streams == stream).collect()
}

#[test]
fn one_stream_is_put_to_rest_alone() -> Result<()> {
    for (decay, front) in [
        (DecayForm::Head, Front::Chunk),
        (DecayForm::ChannelState, Front::Chunk),
        (DecayForm::Head, Front::Traces),
        (DecayForm::ChannelState, Front::Traces),
    ] {
        let c = BimConfig { decay, front, ..config(Credit::Hybrid) };
        let mut network = network(&c, Membrane::Lag(LAG))?;
        network.forward(&chunk("first", 7))?;
        network.finish()?;
        let mut want = carried(&mut network);
        network.reset(&[false, false, false, true, false, false])?;
        for (block, values) in want[2..4].iter_mut().flatten().enumerate() {
            let (name, values) = values;
            let mine = places(&c, name, values.len(), 2, 1);
            let nothing = mine.is_empty() || mine.iter().any(|i| values[*i] != 0.0);
            assert!(nothing, "{name} of block {block} is zero: the test would be empty");
            for i in mine {
                values[i] = 0.0;
            }
        }
        assert_eq!(carried(&mut network), want, "the second stream of the second group");
    }
    Ok(())
}

/// As many rows as the next chunk reads, and no more.
#[test]
fn histories_are_as_long_as_they_are_read() -> Result<()> {
    let c = config(Credit::Hybrid);
    for block in carried(&mut network(&c, Membrane::Lag(LAG))?) {
        let rows = |name: &str, columns: usize| {
            assert!(block[name].len().is_multiple_of(2 * columns), "{name}");
            block[name].len() / (2 * columns)
        };
        let (width, j) = (c.width.0, c.neurons());
        let of_encoder = [("pre.x", width), ("pre.v", j), ("pre.s", j), ("pre.psi", j)].map(|(n, w)| rows(n, w));
        assert_eq!(of_encoder, [3, 1, 2, 1]);
        let lag = [("psi", j), ("p", 14), ("delta", 2), ("a", 2)].map(|(n, w)| rows(n, w));
        assert_eq!(lag, [LAG; 4]);
        assert_eq!([rows("v", 8), rows("h", 24), rows("h0", 24)], [LAG + 1, 1, 1]);
        assert_eq!([block["rates"].len(), block["skips"].len()], [LAG * 2, LAG * 8]);
    }
    Ok(())
}

/// What stands in front of `ψ` carries how the membrane, the levels and `ψ` depend on it; the delay line has no membrane, and its levels
/// are the spikes.
#[test]
fn the_front_carries_what_the_next_chunk_reads() -> Result<()> {
    let c = BimConfig { front: Front::Traces, ..config(Credit::Hybrid) };
    let j = c.neurons();
    for block in carried(&mut network(&c, Membrane::Lag(LAG))?) {
        let rows = |name: &str| block.get(name).map(|v| v.len() / (2 * j));
        for kind in ["gain", "conv.0", "conv.3"] {
            let of = ["dv", "ds", "dpsi", "history"].map(|part| rows(&format!("front.{kind}.{part}")));
            assert_eq!(of, [Some(1), Some(2), Some(1), Some(LAG)], "{kind}");
        }
        let of = ["dv", "ds", "dpsi", "history"].map(|part| rows(&format!("front.delays.2.{part}")));
        assert_eq!(of, [None, None, Some(1), Some(LAG)]);
        for (set, own) in [("front.gain.trace.u.1", "trace.u.1"), ("front.delays.0.trace.delta.0", "trace.delta.0")] {
            assert_eq!(block[set].len(), block[own].len(), "{set}");
        }
        assert!(!block.contains_key("front.gain.trace.bias.0"), "b_Δ stands behind ψ");
    }
    Ok(())
}

/// What is not there has no name.
#[test]
fn nothing_carried_is_empty() -> Result<()> {
    for membrane in [Membrane::Lag(0), Membrane::Lag(1), Membrane::Traces] {
        for front in [Front::Chunk, Front::Traces] {
            let c = BimConfig { front, ..config(Credit::Hybrid) };
            for block in carried(&mut network(&c, membrane)?) {
                assert!(block.values().all(|v| !v.is_empty()), "{membrane:?}: {:?}", block.keys());
                assert_eq!(block.contains_key("psi"), membrane == Membrane::Lag(1));
                assert_eq!(block.keys().any(|name| name.starts_with("front.")), front == Front::Traces);
            }
        }
    }
    Ok(())
}

/// Forward from the same state, and back without what came before: the lag makes no difference.
#[test]
fn a_copy_goes_on_from_where_the_other_stood() -> Result<()> {
    for (from, to) in [(0, LAG), (LAG, 0), (LAG, LAG), (LAG, 1)] {
        let of =
            |lag: usize| network(&config(if lag == 0 { Credit::Tbptt } else { Credit::Hybrid }), Membrane::Lag(lag));
        let (mut first, mut copy) = (of(from)?, of(to)?);
        copy.forward(&chunk("other", 9))?; // something to overwrite, but no credit
        first.forward(&chunk("first", 7))?;
        first.finish()?;
        let mut copy = if to == 0 { copy } else { of(to)? };
        copy.copy_state(&mut first);
        let mut truncated = of(0)?;
        truncated.copy_state(&mut first);
        let x = chunk("second", 5);
        let want = numbers(&first.forward(&x)?)?;
        assert_eq!(numbers(&copy.forward(&x)?)?, want, "lag {from} to {to}");
        truncated.forward(&x)?;
        let d = numbers(&random("d", &[STREAMS, 5, OUTPUTS], DType::F64))?;
        let [want, got] = [truncated, copy].map(|mut network| {
            network.reverse(Some(&d), false)?;
            let mut grads = network.zero_grads();
            network.add_grads(&mut grads);
            Ok(named(&network, &grads))
        });
        let (want, got): (Result<_>, Result<_>) = (want, got);
        assert_close(&format!("lag {from} to {to}"), &got?, &want?, 1e-12, |_| true);
    }
    Ok(())
}
