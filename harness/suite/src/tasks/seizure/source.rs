//! Segments of training stretches and of whole recordings.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::{Targets, seeded_rng};
use rand::seq::SliceRandom;

use super::{Plan, Segment, Source};
use crate::tasks::Epoch;
use data::error::{At, DataError, DataResult};

/// Steps of one recording that are trained on in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) recording: usize,
    pub(super) first: u64,
    pub(super) steps: u64,
    /// Whether a seizure is in it.
    pub(super) ictal: bool,
}

/// What one stream reads of a segment: the recording, and its steps; the rest is padding.
type Piece = Option<(usize, Range<u64>)>;

impl Plan {
    fn samples(&self, steps: &Range<u64>) -> Range<u64> {
        steps.start * self.frame..steps.end * self.frame
    }

    fn wanted(&self, pieces: impl Iterator<Item = Piece>) -> Vec<(usize, Range<u64>)> {
        pieces.flatten().map(|(r, steps)| (r, self.samples(&steps))).collect()
    }

    /// A segment of `steps` steps from one piece per stream.
    fn build(&self, pieces: &[Piece], starts: Vec<bool>, steps: usize, offset: usize) -> DataResult<Segment> {
        let width = self.width();
        let b = pieces.len();
        self.signals.load(&self.wanted(pieces.iter().cloned()))?;
        let (mut input, mut class, mut weight) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = 0;
        for (stream, piece) in (1..).zip(pieces) {
            if let Some((recording, range)) = piece {
                self.signals.append(*recording, self.samples(range), &mut input)?;
                class.extend(range.clone().map(|step| u32::from(self.is_ictal(*recording, step..step + 1))));
                weight.extend(range.clone().map(|_| 1_f32));
                seen += range.end - range.start;
            }
            input.resize(stream * steps * width, 0_f32);
            class.resize(stream * steps, 0_u32);
            weight.resize(stream * steps, 0_f32);
        }
        let build = || -> candle_core::Result<Segment> {
            Ok(Segment {
                starts,
                input: Tensor::from_vec(input, (b, steps, width), &Device::Cpu)?,
                targets: Targets::Classes {
                    class: Tensor::from_vec(class, (b, steps), &Device::Cpu)?,
                    weight: Tensor::from_vec(weight, (b, steps), &Device::Cpu)?,
                },
                seen,
                items: pieces.iter().map(|piece| piece.as_ref().map(|(recording, _)| *recording)).collect(),
                offset,
            })
        };
        build().map_err(|e| DataError::corrupt(Path::new("chb-mit"), At::File, "a segment of frames", e.to_string()))
    }
}

/// Stretches in an order of their own in each epoch: all with a seizure, and as many without as the share asks for, other
/// ones each time.
pub(super) struct Training {
    pub(super) plan: Arc<Plan>,
    pub(super) stretches: Arc<[Stretch]>,
    /// Stretches without a seizure in an epoch.
    pub(super) quiet: usize,
    pub(super) streams: usize,
    pub(super) segment: usize,
    /// Steps of a stretch; shorter ones are padded at the end.
    pub(super) steps: usize,
    pub(super) seed: u64,
    /// The epoch whose order was asked for last.
    order: Epoch<Vec<usize>>,
}

impl Training {
    pub(super) fn new(
        plan: Arc<Plan>,
        (stretches, quiet): (Arc<[Stretch]>, usize),
        (streams, segment, steps): (usize, usize, usize),
        seed: u64,
    ) -> Self {
        Self { plan, stretches, quiet, streams, segment, steps, seed, order: Epoch::default() }
    }

    fn per_stretch(&self) -> u64 {
        self.steps.div_ceil(self.segment) as u64
    }

    /// Stretches of an epoch.
    fn drawn(&self) -> usize {
        self.stretches.iter().filter(|stretch| stretch.ictal).count() + self.quiet
    }

    /// The last incomplete group of an epoch is dropped: another one each time.
    fn groups(&self) -> u64 {
        (self.drawn() / self.streams) as u64
    }

    /// Indices of an epoch's stretches.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut rng = seeded_rng(self.seed, &format!("seizure.epoch.{epoch}"));
        let (mut chosen, mut quiet): (Vec<usize>, Vec<usize>) =
            (0..self.stretches.len()).partition(|&i| self.stretches.get(i).is_some_and(|stretch| stretch.ictal));
        quiet.shuffle(&mut rng);
        chosen.extend(quiet.into_iter().take(self.quiet));
        chosen.shuffle(&mut rng);
        chosen
    }

    /// Stretches of a group, which may belong to the next epoch.
    fn group(&self, group: u64) -> Vec<Option<Stretch>> {
        let (epoch, group) = (group / self.groups().max(1), (group % self.groups().max(1)) as usize);
        let order = self.order.get(epoch, || self.epoch(epoch));
        let stretch = |b| order.get(group * self.streams + b).and_then(|&i| self.stretches.get(i)).copied();
        (0..self.streams).map(stretch).collect()
    }
}

impl Source for Training {
    fn segments(&self) -> u64 {
        self.groups() * self.per_stretch()
    }

    fn seen_per_epoch(&self) -> u64 {
        // stretches differ in length only at the ends of recordings: the mean is what an epoch has in expectation
        let (mut ictal, mut quiet) = ((0, 0), (0, 0));
        for stretch in &*self.stretches {
            let sum = if stretch.ictal { &mut ictal } else { &mut quiet };
            *sum = (sum.0 + stretch.steps, sum.1 + 1);
        }
        let drawn = ictal.0 as f64 + quiet.0 as f64 * self.quiet as f64 / f64::from(quiet.1.max(1));
        (drawn * (self.groups() as usize * self.streams) as f64 / self.drawn().max(1) as f64).round() as u64
    }

    fn is_work(&self) -> bool {
        true
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let (group, piece) = (index / self.per_stretch(), (index % self.per_stretch()) as usize);
        let offset = piece * self.segment;
        let steps = self.segment.min(self.steps - offset);
        let part = |stretch: Option<Stretch>, from: usize, to: usize| {
            let stretch = stretch?;
            let [from, to] = [from, to].map(|step| stretch.first + stretch.steps.min(step as u64));
            (from < to).then_some((stretch.recording, from..to))
        };
        let pieces: Vec<Piece> =
            self.group(group).into_iter().map(|stretch| part(stretch, offset, offset + steps)).collect();
        let segment = self.plan.build(&pieces, vec![piece == 0; self.streams], steps, offset)?;
        if piece == 0 && (group + 1) % self.groups().max(1) != 0 {
            let next = self.group(group + 1).into_iter().map(|stretch| part(stretch, 0, self.steps));
            self.plan.signals.read_ahead(&self.plan.wanted(next));
        }
        Ok(segment)
    }
}

/// Whole recordings, each once: every lane reads one after the other from its beginning to its end.
pub(super) struct Evaluation {
    plan: Arc<Plan>,
    /// Of each lane, the recordings with the number of their first segment.
    lanes: Vec<Vec<(u64, usize)>>,
    segment: usize,
    segments: u64,
    steps: u64,
}

impl Evaluation {
    pub(super) fn new(plan: Arc<Plan>, recordings: &[usize], streams: usize, segment: usize) -> Self {
        let length = |r: usize| plan.steps(r).div_ceil(segment as u64);
        // the longest first, each into the lane that ends first: lanes end near each other
        let mut order = recordings.to_vec();
        order.sort_by_key(|&r| std::cmp::Reverse(length(r)));
        let mut lanes: Vec<(u64, Vec<(u64, usize)>)> = vec![(0, Vec::new()); streams];
        for r in order {
            if let Some((end, lane)) = lanes.iter_mut().min_by_key(|(end, _)| *end) {
                lane.push((*end, r));
                *end += length(r);
            }
        }
        let segments = lanes.iter().map(|(end, _)| *end).max().unwrap_or(0);
        let steps = recordings.iter().map(|&r| plan.steps(r)).sum();
        Self { plan, lanes: lanes.into_iter().map(|(_, lane)| lane).collect(), segment, segments, steps }
    }

    /// What a lane reads in a segment, and whether a recording begins there.
    fn piece(&self, lane: &[(u64, usize)], index: u64) -> (Piece, bool) {
        let Some(&(start, recording)) =
            lane.partition_point(|(start, _)| *start <= index).checked_sub(1).and_then(|i| lane.get(i))
        else {
            return (None, false);
        };
        let from = (index - start) * self.segment as u64;
        let to = (from + self.segment as u64).min(self.plan.steps(recording));
        ((from < to).then_some((recording, from..to)), index == start)
    }
}

impl Source for Evaluation {
    fn segments(&self) -> u64 {
        self.segments
    }

    fn seen_per_epoch(&self) -> u64 {
        self.steps
    }

    fn is_work(&self) -> bool {
        true
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let parts: Vec<(Piece, bool)> = self.lanes.iter().map(|lane| self.piece(lane, index)).collect();
        let starts = parts.iter().map(|(_, starts)| *starts).collect();
        let pieces: Vec<Piece> = parts.into_iter().map(|(piece, _)| piece).collect();
        let segment = self.plan.build(&pieces, starts, self.segment, index as usize * self.segment)?;
        let ahead = self.lanes.iter().map(|lane| self.piece(lane, index + 1).0);
        self.plan.signals.read_ahead(&self.plan.wanted(ahead));
        Ok(segment)
    }
}
