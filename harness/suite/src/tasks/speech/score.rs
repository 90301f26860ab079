//! Recognition and its errors.

use candle_core::Tensor;
use learner::ctc::{BLANK, align};
use rayon::prelude::*;

use super::{Item, Speech, decode};
use crate::tasks::{Metric, Part, Scorer, Scores, Segment};
use rows::PredictionRow;

/// Resamples for the intervals over utterances.
const RESAMPLES: usize = 1000;

/// An utterance, recognised.
struct Recognised {
    item: usize,
    hypothesis: String,
    /// In nats; `None` where the transcript does not fit into the steps.
    nll: Option<f64>,
    steps: usize,
}

pub(super) struct SpeechScorer<'a> {
    task: &'a Speech,
    items: &'a [Item],
    part: Part,
    found: Vec<Recognised>,
}

impl<'a> SpeechScorer<'a> {
    pub(super) fn new(task: &'a Speech, items: &'a [Item], part: Part) -> Self {
        Self { task, items, part, found: Vec::new() }
    }

    fn recognise(&self, index: usize, logits: &[f32], outputs: usize) -> learner::Result<Recognised> {
        let item = &self.items[index];
        let logits = logits.get(..item.steps * outputs).unwrap_or(logits);
        let labels = match self.task.config.beam {
            Some(width) => decode::beam(logits, outputs, BLANK, width.0).0,
            None => decode::greedy(logits, outputs, BLANK),
        };
        let loss = align(logits, outputs, &item.labels, BLANK)?.loss;
        Ok(Recognised {
            item: index,
            hypothesis: self.task.units.decode(&labels),
            nll: Some(loss).filter(|loss| loss.is_finite()),
            steps: item.steps,
        })
    }
}

impl Scorer for SpeechScorer<'_> {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let (_, steps, outputs) = output.dims3()?;
        let logits = learner::read_f32(output)?;
        let streams: Vec<(usize, &[f32])> =
            segment.items.iter().zip(logits.chunks(steps * outputs)).filter_map(|(i, z)| Some(((*i)?, z))).collect();
        let found: learner::Result<Vec<Recognised>> =
            streams.into_par_iter().map(|(item, z)| self.recognise(item, z, outputs)).collect();
        self.found.extend(found?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Scores {
        let mut found = self.found;
        found.sort_by_key(|r| r.item);
        let reference = |r: &Recognised| self.items[r.item].text.clone();
        let pairs: Vec<(String, String)> = found.iter().map(|r| (reference(r), r.hypothesis.clone())).collect();
        let mut scores = metrics::error_rates(&pairs, RESAMPLES);
        let steps: usize = found.iter().map(|r| r.steps).sum();
        // per step, as in training; undefined as soon as one transcript does not fit
        let nats: Option<f64> = found.iter().map(|r| r.nll).sum();
        let loss = nats.filter(|_| steps > 0).map(|nats| nats / steps as f64);
        scores.push(Metric::plain("loss", loss, found.len() as u64));
        let predictions = found
            .iter()
            .map(|r| PredictionRow {
                item: self.items[r.item].id.clone(),
                split: self.part.name().into(),
                target: Some(reference(r)),
                scores: Vec::new(),
                hypothesis: Some(r.hypothesis.clone()),
                nll: r.nll,
            })
            .collect();
        Scores { metrics: scores, predictions }
    }
}
