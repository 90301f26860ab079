//! Between a network on a device, whose streams are one group, and one of the host, whose streams are dealt into several.

use candle_core::Tensor;
use learner::{InputKind, Result, with_f32_mut};

use super::block::Carried;
use super::machine::{At, Machine};
use super::network::Network;
use crate::network::{Group, Network as Host};
use crate::params::NetworkParams;

/// Copies the weights into the host's parameters.
pub(super) fn download_weights<M: Machine>(network: &Network<M>, params: &NetworkParams<Tensor>) -> Result<()> {
    let mut all = vec![0.0; network.parameters()];
    network.machine.download(At(&*network.weights, 0), &mut all)?;
    for (tensor, place) in params.iter().zip(network.places.iter()) {
        with_f32_mut(tensor, |w| w.copy_from_slice(&all[place.at..][..place.len]))?;
    }
    Ok(())
}

/// Copies what an account of the chunk's operations looks at, before the chunk is ended.
pub(super) fn download_activations<M: Machine>(network: &Network<M>, host: &mut Host<f32>) -> Result<()> {
    let (io, steps) = (network.io, network.steps());
    host.set_steps(steps);
    let download = |from: &M::Buffer, [rows, columns]: [usize; 2]| -> Result<(Vec<f32>, usize)> {
        let mut all = vec![0.0; rows * io.streams * columns];
        network.machine.download(At(from, 0), &mut all)?;
        Ok((all, columns))
    };
    for (l, block) in network.blocks.iter().enumerate() {
        let s = block.sizes;
        let x = download(&block.x, [s.conv - 1 + steps, s.width])?;
        let fired = download(&block.pre_s, [s.delays - 1 + steps, s.j])?;
        let psi = download(&block.psi, [s.lag + steps, s.j])?;
        let sent = download(&block.s, [steps, s.d])?;
        for group in &mut host.groups {
            let (first, streams) = (group.first, group.streams);
            let to = &mut group.blocks[l];
            for ((all, columns), to) in
                [(&x, &mut to.encode.x), (&fired, &mut to.encode.s), (&psi, &mut to.psi), (&sent, &mut to.s)]
            {
                deal((all, io.streams), (first, streams), *columns, to, |all, to| to.copy_from_slice(all));
            }
        }
    }
    let width = network.places.gain.len;
    let (x, _) = download(&network.x, [steps, width])?;
    let frame = match io.input {
        InputKind::Tokens { .. } => None,
        InputKind::Frames { width } => Some(download(&network.frames, [steps, width])?),
    };
    for group in &mut host.groups {
        let dealt = (group.first, group.streams);
        deal((&x, io.streams), dealt, width, &mut group.x, |all, to| to.copy_from_slice(all));
        if let Some((frames, width)) = &frame {
            group.frames.resize(steps * group.streams * width, 0.0);
            deal((frames, io.streams), dealt, *width, &mut group.frames, |all, to| to.copy_from_slice(all));
        }
    }
    Ok(())
}

/// Calls `f` with the part of each row of `all` `[rows, all streams, columns]` that is of the streams from `first` on, and its place in
/// `to` `[rows, streams, columns]`.
fn deal(
    (all, all_streams): (&[f32], usize),
    (first, streams): (usize, usize),
    columns: usize,
    to: &mut [f32],
    f: impl Fn(&[f32], &mut [f32]),
) {
    let rows = all.chunks_exact(all_streams * columns);
    for (row, to) in rows.zip(to.chunks_exact_mut(streams * columns)) {
        f(&row[first * columns..][..streams * columns], to);
    }
}

/// Copies everything that is carried from chunk to chunk to the host: what the network carries, or what it carried before and is in
/// `state` ([`Network::carried_state`]).
pub(super) fn download_state<M: Machine>(
    network: &Network<M>,
    state: Option<&[M::Buffer]>,
    host: &mut Host<f32>,
) -> Result<()> {
    let streams = network.io.streams;
    for (i, (l, name, own, kind)) in carried(network).enumerate() {
        let mut all = vec![0.0; kind.len(streams)];
        network.machine.download(At(state.and_then(|s| s.get(i)).unwrap_or(own), 0), &mut all)?;
        exchange(&mut host.groups, (l, name, kind), &mut all, streams, |all, host| host.copy_from_slice(all));
    }
    Ok(())
}

/// Takes over everything that the host carries from chunk to chunk, into the network or into `state`.
pub(super) fn upload_state<M: Machine>(
    network: &Network<M>,
    state: Option<&[M::Buffer]>,
    host: &mut Host<f32>,
) -> Result<()> {
    let streams = network.io.streams;
    for (i, (l, name, own, kind)) in carried(network).enumerate() {
        let mut all = vec![0.0; kind.len(streams)];
        exchange(&mut host.groups, (l, name, kind), &mut all, streams, |all, host| all.copy_from_slice(host));
        network.machine.upload(&all, At(state.and_then(|s| s.get(i)).unwrap_or(own), 0))?;
    }
    Ok(())
}

/// What each block carries, with the block's number.
fn carried<M: Machine>(network: &Network<M>) -> impl Iterator<Item = (usize, &'static str, &M::Buffer, Carried)> {
    network
        .blocks
        .iter()
        .enumerate()
        .flat_map(|(l, block)| block.carried().into_iter().map(move |(name, buffer, kind)| (l, name, buffer, kind)))
}

/// Calls `f` with each piece of `all` and the same piece of the groups' own, by name.
fn exchange(
    groups: &mut [Group<f32>],
    (l, name, kind): (usize, &str, Carried),
    all: &mut [f32],
    all_streams: usize,
    f: impl Fn(&mut [f32], &mut [f32]),
) {
    for group in groups {
        let (first, streams) = (group.first, group.streams);
        for (own, values) in group.blocks[l].carried() {
            let stream = own.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).and_then(|b| b.parse().ok());
            match (kind, stream) {
                (Carried::Rows { columns, .. }, None) if own == name => {
                    let rows = all.chunks_exact_mut(all_streams * columns);
                    for (row, values) in rows.zip(values.chunks_exact_mut(streams * columns)) {
                        f(&mut row[first * columns..][..streams * columns], values);
                    }
                }
                (Carried::Streams { columns }, None) if own == name => {
                    f(&mut all[first * columns..][..streams * columns], values);
                }
                // traces have an entry for each stream
                (Carried::Streams { columns }, Some(b)) => {
                    let b: usize = b;
                    f(&mut all[(first + b) * columns..][..columns], values);
                }
                (Carried::Shared { .. }, None) if own == name => f(&mut *all, values),
                (Carried::Rows { .. } | Carried::Streams { .. } | Carried::Shared { .. }, _) => {}
            }
        }
    }
}
