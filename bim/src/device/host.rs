//! Between a network on a device, whose streams are one group, and one of the host, whose streams are dealt into several.

use candle_core::Tensor;
use learner::{Error, InputKind, Result, with_f32_mut};

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
///
/// # Errors
/// If the two do not carry the same.
pub(super) fn download_state<M: Machine>(
    network: &Network<M>,
    state: Option<&[M::Buffer]>,
    host: &mut Host<f32>,
) -> Result<()> {
    copy_state(network, state, host, Way::ToHost)
}

/// Takes over everything that the host carries from chunk to chunk, into the network or into `state`.
///
/// # Errors
/// If the two do not carry the same.
pub(super) fn upload_state<M: Machine>(
    network: &Network<M>,
    state: Option<&[M::Buffer]>,
    host: &mut Host<f32>,
) -> Result<()> {
    copy_state(network, state, host, Way::ToDevice)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToHost,
    ToDevice,
}

fn copy_state<M: Machine>(
    network: &Network<M>,
    state: Option<&[M::Buffer]>,
    host: &mut Host<f32>,
    way: Way,
) -> Result<()> {
    let (streams, layers) = (network.io.streams, network.blocks.len());
    if host.io().streams != streams {
        return Err(Error::shape("streams of a state", streams, host.io().streams));
    }
    let expected = network.blocks.iter().map(|block| block.carried().len()).sum::<usize>();
    if let Some(state) = state.filter(|state| state.len() != expected) {
        return Err(Error::shape("state kept", expected, state.len()));
    }
    let mut kept = state.map(<[_]>::iter);
    for (l, block) in network.blocks.iter().enumerate() {
        let carried = block.carried();
        let buffer = |own| kept.as_mut().and_then(Iterator::next).unwrap_or(own);
        let buffers: Vec<&M::Buffer> = carried.iter().map(|(_, own, _)| *own).map(buffer).collect();
        let piece =
            |(name, _, kind): (&'static str, _, Carried)| Piece { name, kind, all: vec![0.0; kind.len(streams)] };
        let mut pieces: Vec<Piece> = carried.into_iter().map(piece).collect();
        if way == Way::ToHost {
            for (piece, buffer) in pieces.iter_mut().zip(buffers.iter().copied()) {
                network.machine.download(At(buffer, 0), &mut piece.all)?;
            }
        }
        for group in &mut host.groups {
            if group.blocks.len() != layers {
                return Err(Error::shape("layers of a state", layers, group.blocks.len()));
            }
            exchange(group, l, &mut pieces, streams, way)?;
        }
        if way == Way::ToDevice {
            for (piece, buffer) in pieces.iter().zip(buffers.iter().copied()) {
                network.machine.upload(&piece.all, At(buffer, 0))?;
            }
        }
    }
    Ok(())
}

/// What a block on the device carries by one name, for all streams.
struct Piece {
    name: &'static str,
    kind: Carried,
    all: Vec<f32>,
}

/// What of a [`Piece`] the host has by one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// That of a group of streams.
    Group,
    /// That of one stream of a group: traces.
    Stream(usize),
}

impl Piece {
    /// What of it the host's `name` is, if anything.
    fn part(&self, name: &str) -> Option<Part> {
        if name == self.name {
            return Some(Part::Group);
        }
        name.strip_prefix(self.name)?.strip_prefix('.')?.parse().ok().map(Part::Stream)
    }

    /// The numbers of a part, in pieces: the group has so many streams from `first` on.
    fn numbers(&mut self, all_streams: usize, [first, streams]: [usize; 2], part: Part) -> Vec<&mut [f32]> {
        let [first, streams] = match part {
            Part::Group => [first, streams],
            Part::Stream(b) if b < streams => [first + b, 1],
            Part::Stream(_) => return Vec::new(),
        };
        match self.kind {
            Carried::Rows { columns, .. } => {
                let rows = self.all.chunks_exact_mut(all_streams * columns);
                rows.map(|row| &mut row[first * columns..][..streams * columns]).collect()
            }
            Carried::Streams { columns } => vec![&mut self.all[first * columns..][..streams * columns]],
            Carried::Shared { .. } => vec![&mut self.all],
        }
    }
}

/// Copies between what a group's block carries and the same of `pieces`, by name.
///
/// # Errors
/// If the one carries what the other does not, or more of it.
fn exchange(group: &mut Group<f32>, l: usize, pieces: &mut [Piece], all_streams: usize, way: Way) -> Result<()> {
    let of_group = [group.first, group.streams];
    let mut met = vec![0; pieces.len()];
    for (name, values) in group.blocks[l].carried() {
        let what = || format!("state layers.{l}.{name}");
        let found = pieces.iter_mut().zip(&mut met).find_map(|(piece, met)| Some((piece.part(&name)?, piece, met)));
        let Some((part, piece, met)) = found else {
            return Err(Error::shape(what(), "a state of the device", "none"));
        };
        let parts = piece.numbers(all_streams, of_group, part);
        let count: usize = parts.iter().map(|part| part.len()).sum();
        if count != values.len() {
            return Err(Error::shape(what(), count, values.len()));
        }
        *met += count;
        let mut rest = values;
        for part in parts {
            let (own, behind) = rest.split_at_mut(part.len());
            match way {
                Way::ToHost => own.copy_from_slice(part),
                Way::ToDevice => part.copy_from_slice(own),
            }
            rest = behind;
        }
    }
    for (piece, met) in pieces.iter().zip(met) {
        let count = piece.kind.len(of_group[1]);
        if met != count {
            return Err(Error::shape(format!("state layers.{l}.{} of the host", piece.name), count, met));
        }
    }
    Ok(())
}
