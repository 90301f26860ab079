//! Utterances in batches of like lengths, padded at their ends.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use learner::ctc::{BLANK, Transcripts};
use learner::{Targets, seeded_rng};
use rand::seq::SliceRandom;

use super::{Item, Speech};
use crate::tasks::{Epoch, Segment, Source};
use data::error::{At, DataError, DataResult};

/// Lengths within a bucket differ by no more than this factor, so that little is padding.
const BUCKET: f64 = 1.15;

/// Whole utterances, `streams` at a time.
pub(super) struct Batches<'a> {
    pub task: &'a Speech,
    pub items: &'a [Item],
    /// Indices of the utterances that take part.
    pub chosen: Vec<usize>,
    pub streams: usize,
    /// Shuffled per epoch with this seed; by length and once if absent.
    pub seed: Option<u64>,
    /// The epoch last asked for.
    pub epoch: Epoch<Vec<Vec<usize>>>,
}

impl Batches<'_> {
    fn steps(&self, index: usize) -> usize {
        self.items.get(index).map_or(0, |item| item.steps)
    }

    /// Training leaves out what does not fill a batch, other utterances each epoch; evaluation leaves streams idle.
    fn batches(&self) -> u64 {
        let n = self.chosen.len();
        (if self.seed.is_some() { n / self.streams } else { n.div_ceil(self.streams) }) as u64
    }

    fn draw(&self, number: u64) -> Vec<Vec<usize>> {
        let mut order = self.chosen.clone();
        let Some(seed) = self.seed else {
            order.sort_by_key(|&i| std::cmp::Reverse(self.steps(i)));
            return order.chunks(self.streams).map(<[usize]>::to_vec).collect();
        };
        let mut rng = seeded_rng(seed, &format!("speech.epoch.{number}"));
        order.shuffle(&mut rng);
        order.truncate(self.batches() as usize * self.streams);
        // stable: within a bucket the order remains random
        order.sort_by_key(|&i| ((self.steps(i).max(1) as f64).ln() / BUCKET.ln()) as u64);
        let mut batches: Vec<Vec<usize>> = order.chunks(self.streams).map(<[usize]>::to_vec).collect();
        batches.shuffle(&mut rng);
        batches
    }

    fn epoch(&self, number: u64) -> Arc<Vec<Vec<usize>>> {
        self.epoch.get(number, || self.draw(number))
    }
}

impl Source for Batches<'_> {
    fn segments(&self) -> u64 {
        self.batches()
    }

    fn seen_per_epoch(&self) -> u64 {
        // the mean where some utterances are left out
        let all: usize = self.chosen.iter().map(|&i| self.steps(i)).sum();
        let taken = if self.seed.is_some() { self.batches() * self.streams as u64 } else { self.chosen.len() as u64 };
        (all as f64 * taken as f64 / self.chosen.len().max(1) as f64).round() as u64
    }

    fn chunks(&self, length: usize) -> u64 {
        let longest = |batch: &Vec<usize>| batch.iter().map(|&i| self.steps(i)).max().unwrap_or(0);
        self.epoch(0).iter().map(|batch| longest(batch).div_ceil(length.max(1)) as u64).sum()
    }

    fn is_work(&self) -> bool {
        true
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let (number, within) = (index / self.segments(), (index % self.segments()) as usize);
        let epoch = self.epoch(number);
        let batch = epoch.get(within).map(Vec::as_slice).unwrap_or_default();
        let longest = batch.iter().map(|&i| self.steps(i)).max().unwrap_or(0);
        let width = self.task.width();
        let (mut input, mut weight) = (Vec::new(), Vec::new());
        let (mut labels, mut steps) = (Vec::new(), Vec::new());
        let mut items = Vec::new();
        for stream in 0..self.streams {
            let item = batch.get(stream).and_then(|&i| Some((i, self.items.get(i)?)));
            let length = item.map_or(0, |(_, item)| item.steps);
            if let Some((_, item)) = item {
                let augment = self.seed.map(|seed| (seed, number));
                input.extend(self.task.frames(item, augment)?);
            }
            input.resize((stream + 1) * longest * width, 0.0);
            weight.extend((0..longest).map(|t| f32::from(u8::from(t < length))));
            labels.push(item.map(|(_, item)| item.labels.clone()).unwrap_or_default());
            steps.push(length);
            items.push(item.map(|(i, _)| i));
        }
        let seen = steps.iter().sum::<usize>() as u64;
        let transcripts = Transcripts { labels, steps, blank: BLANK };
        let build = || -> candle_core::Result<Segment> {
            let weight = Tensor::from_vec(weight, (self.streams, longest), &Device::Cpu)?;
            Ok(Segment {
                starts: vec![true; self.streams],
                input: Tensor::from_vec(input, (self.streams, longest, width), &Device::Cpu)?,
                targets: Targets::Transcripts { transcripts, weight },
                seen,
                items,
                offset: 0,
            })
        };
        build().map_err(|e| DataError::corrupt(Path::new("LibriSpeech"), At::File, "a batch of frames", e.to_string()))
    }
}
