//! What the neurons of a trained network send on a sample input: the beginning of the part that is scored.

use learner::{Learner, Sent};

use super::{Job, to};
use crate::error::Result;
use crate::tasks::Part;
use rows::SpikeRow;
use rows::parquet::write_rows;

/// Steps that are looked at, at most.
const STEPS: usize = 128;
/// Neurons of a population that are looked at, at most.
const NEURONS: usize = 256;

/// Writes `spikes.parquet` of a learner with spiking neurons.
///
/// # Errors
/// If data cannot be read, the network cannot be run, or the file cannot be written.
pub(super) fn write(job: &Job<'_>, learner: &dyn Learner, part: Part) -> Result<()> {
    let sent = sent(job, learner, part)?;
    if sent.is_empty() {
        return Ok(());
    }
    let rows: Vec<SpikeRow> = sent.iter().flat_map(rows_of).collect();
    let mut meta = rows::parquet::versioned();
    meta.insert("input".to_owned(), format!("the beginning of the {} part", part.name()));
    Ok(write_rows(&job.dir.path.join("spikes.parquet"), &rows, &meta)?)
}

/// What is sent on the beginning of the part's first recording or text, by a network without a past.
fn sent(job: &Job<'_>, learner: &dyn Learner, part: Part) -> Result<Vec<Sent>> {
    let source = job.task.evaluation(part, 1, learner.segment_len(), Some(STEPS as u64))?;
    let mut predictor = learner.evaluator(1)?;
    let mut all: Vec<Sent> = Vec::new();
    for index in 0..source.segments() {
        let segment = source.segment(index)?;
        if index > 0 && segment.starts.contains(&true) {
            break; // another recording
        }
        if index == 0 {
            predictor.reset(&[true])?;
        }
        let input = to(job.device, &segment.input)?;
        let steps = input.dim(1).map_err(learner::Error::from)?.min(STEPS);
        let input = input.narrow(1, 0, steps).and_then(|x| x.contiguous()).map_err(learner::Error::from)?;
        Sent::append(&mut all, predictor.sent(&input)?);
        let steps = all.first().map_or(STEPS, |sent| sent.levels.len() / sent.neurons.max(1));
        if steps >= STEPS {
            break;
        }
    }
    Ok(all)
}

/// The spikes of a population, by time.
fn rows_of(sent: &Sent) -> Vec<SpikeRow> {
    let neurons = sent.neurons.min(NEURONS);
    let steps: Vec<&[f32]> = sent.levels.chunks_exact(sent.neurons.max(1)).take(STEPS).collect();
    let row = |step: usize, neuron: usize, level: f32| SpikeRow {
        layer: sent.layer.clone(),
        neurons: neurons as u64,
        steps: steps.len() as u64,
        neuron: neuron as u64,
        step: step as u64,
        level: f64::from(level),
    };
    let of_step = |(step, levels): (usize, &&[f32])| -> Vec<SpikeRow> {
        let fired = levels.iter().take(neurons).enumerate().filter(|(_, level)| **level != 0.0);
        fired.map(|(neuron, level)| row(step, neuron, *level)).collect()
    };
    let rows: Vec<SpikeRow> = steps.iter().enumerate().flat_map(of_step).collect();
    if rows.is_empty() { vec![row(0, 0, 0.0)] } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_become_rows_and_silence_is_kept() {
        let sent = |levels: &[f32]| Sent { layer: "layers.0.pre".into(), neurons: 2, levels: levels.to_vec() };
        let found: Vec<_> =
            rows_of(&sent(&[0.0, 300.0, 0.0, 0.0, -1.0, 0.0])).iter().map(|r| (r.step, r.neuron, r.level)).collect();
        assert_eq!(found, [(0, 1, 300.0), (2, 0, -1.0)]);
        let silent = rows_of(&sent(&[0.0; 6]));
        assert_eq!(silent.len(), 1);
        assert_eq!((silent[0].steps, silent[0].neurons, silent[0].level), (3, 2, 0.0));
    }
}
