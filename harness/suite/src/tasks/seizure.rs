//! Seizure detection on CHB-MIT.
//!
//! A step is a frame of `frame` consecutive samples of the 18 channels that all cases share, filtered and resampled; its
//! class is *seizure* if at least half of it lies within an annotated seizure. Training streams read *stretches* of
//! `stretch_seconds`, a stated share of them with a seizure, and begin anew with each. Evaluation reads every recording of
//! a part whole and once, from a fresh state, and scores windows of `window_seconds`: a window's score is the mean
//! log-odds over its steps, its label that of most of its time. The last window of a recording may be shorter.
//!
//! Events are counted at a threshold that is chosen on the validation part (best F1 over windows): see
//! [`metrics::detection`].

mod config;
mod score;
mod signals;
mod source;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use learner::{InputKind, Io};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Metric, Part, Scorer, Scores, Segment, Source, Task, made, repaired};
use crate::export::Meaning;
pub use config::SeizureConfig;
use data::account::Account;
use data::datasets::chbmit::{ChbMit, Recording};
use data::error::{At, DataError, DataResult};
use data::files::hex;
use data::identity::sums::Sums;
use data::identity::{self, Found};
use score::SeizureScorer;
use signals::{Preparation, Signals, WIDTH};
use source::{Evaluation, Stretch, Training};

/// Outputs per step: background, seizure.
const CLASSES: usize = 2;

/// What sources and scorers share: the signals and how time is divided.
struct Plan {
    signals: Arc<Signals>,
    /// Samples per step.
    frame: u64,
    /// Seconds per step.
    frame_s: f64,
    /// Steps per window.
    window: u64,
    /// Steps of each recording.
    steps: Vec<u64>,
}

impl Plan {
    /// Values per step.
    fn width(&self) -> usize {
        self.frame as usize * WIDTH
    }

    fn steps(&self, recording: usize) -> u64 {
        self.steps.get(recording).copied().unwrap_or(0)
    }

    fn seconds(&self, steps: u64) -> f64 {
        steps as f64 * self.frame_s
    }

    fn recording(&self, recording: usize) -> Option<&Recording> {
        self.signals.recordings().get(recording)
    }

    /// Whether at least half of these steps' time lies within seizures.
    fn is_ictal(&self, recording: usize, steps: Range<u64>) -> bool {
        self.ictal_s(recording, &steps) >= 0.5 * self.seconds(steps.end - steps.start)
    }

    /// Seconds of seizure in these steps.
    fn ictal_s(&self, recording: usize, steps: &Range<u64>) -> f64 {
        let (from_s, to_s) = (self.seconds(steps.start), self.seconds(steps.end));
        let seizures = self.recording(recording).map(|r| r.seizures.as_slice()).unwrap_or_default();
        seizures.iter().map(|seizure| seizure.overlap_s(from_s, to_s)).sum()
    }

    /// Start and end of a recording's seizures.
    fn events(&self, recording: usize) -> Vec<(f64, f64)> {
        let seizures = self.recording(recording).map(|r| r.seizures.as_slice()).unwrap_or_default();
        seizures.iter().map(|seizure| (seizure.start_s, seizure.end_s)).collect()
    }
}

/// CHB-MIT with its question.
pub struct Seizure {
    config: SeizureConfig,
    plan: Arc<Plan>,
    /// Recordings of each part.
    parts: [Vec<usize>; 3],
    stretches: Arc<[Stretch]>,
    /// Stretches without a seizure in an epoch.
    quiet: usize,
    /// Steps of a stretch.
    stretch: usize,
    fingerprint: String,
    facts: Vec<Metric>,
    root: PathBuf,
    /// Recordings of the wanted cases that have another montage.
    left_out: Vec<String>,
    account: Account,
}

impl Seizure {
    /// Reads the index, annotations and headers of the cases that the split names, and the statistics of the training
    /// part; signals are decoded when they are needed.
    ///
    /// # Errors
    /// If the configuration does not fit together, files are missing or corrupt, or a part has no recording.
    pub fn open(config: &SeizureConfig, root: &Path) -> DataResult<Self> {
        let records = root.join("RECORDS");
        let wrong = |(expected, got): (String, String)| DataError::corrupt(&records, At::File, expected, got);
        let data = ChbMit::open(root, |case| config.wants(case))?;
        let facts = data_facts(&data);
        let recordings = data.recordings().to_vec();
        let parts = config.parts(&recordings).map_err(wrong)?;
        let preparation = Preparation {
            rate_hz: config.rate.0 as u32,
            low_hz: config.low_hz.0,
            high_hz: config.high_hz.0,
            notch_hz: config.notch_hz.map(|hz| hz.0),
        };
        let frame = config.frame.0 as u64;
        let steps = recordings.iter().map(|r| Ok(preparation.samples(r)? / frame)).collect::<DataResult<Vec<u64>>>()?;
        let fingerprint = fingerprint(&recordings, &parts)?;
        let (window, stretch) = (config.window_steps().map_err(wrong)?, config.stretch_steps().map_err(wrong)?);
        let signals = Arc::new(Signals::new(recordings, preparation, &parts[0])?);
        let frame_s = frame as f64 / f64::from(preparation.rate_hz);
        let plan = Arc::new(Plan { signals, frame, frame_s, window, steps });
        let stretches = stretches(&plan, &parts[0], stretch);
        let quiet = config.quiet_stretches(&stretches).map_err(wrong)?;
        let mut task = Self {
            config: config.clone(),
            plan,
            parts,
            stretches: stretches.into(),
            quiet,
            stretch: stretch as usize,
            fingerprint,
            facts,
            root: root.to_owned(),
            left_out: data.without_montage().to_vec(),
            account: data.account().clone(),
        };
        task.add_training_facts();
        Ok(task)
    }

    fn part(&self, part: Part) -> &[usize] {
        self.parts.get(part as usize).map(Vec::as_slice).unwrap_or_default()
    }

    fn add_training_facts(&mut self) {
        let steps: u64 = self.parts[0].iter().map(|&r| self.plan.steps(r)).sum();
        let seizures: usize = self.parts[0].iter().map(|&r| self.plan.events(r).len()).sum();
        let n = self.parts[0].len() as u64;
        self.facts.push(Metric::plain("training_hours", Some(self.plan.seconds(steps) / 3600.0), n));
        self.facts.push(Metric::plain("training_seizures", Some(seizures as f64), n));
    }

    /// The recordings of an evaluation. A limited one alternates between recordings with and without seizures, in their
    /// order, so that it has both.
    fn evaluated(&self, part: Part, limit: Option<u64>) -> Vec<usize> {
        let all = self.part(part).to_vec();
        let Some(limit) = limit else { return all };
        let (with, without): (Vec<usize>, Vec<usize>) = all.into_iter().partition(|&r| !self.plan.events(r).is_empty());
        let mut chosen = Vec::new();
        let mut steps = 0;
        for i in 0..with.len().max(without.len()) {
            for r in [with.get(i), without.get(i)].into_iter().flatten() {
                if steps < limit {
                    steps += self.plan.steps(*r);
                    chosen.push(*r);
                }
            }
        }
        chosen
    }
}

/// What was left out or is doubtful, where there is any.
fn data_facts(data: &ChbMit) -> Vec<Metric> {
    let n = (data.recordings().len() + data.missing().len() + data.without_montage().len()) as u64;
    let facts = [
        ("recordings_missing", data.missing()),
        ("recordings_without_montage", data.without_montage()),
        ("annotation_disagreements", data.disagreements()),
    ];
    let some = facts.into_iter().filter(|(_, list)| !list.is_empty());
    let some = some.map(|(name, list)| Metric::plain(name, Some(list.len() as f64), n));
    some.chain(repaired(data.account())).collect()
}

/// The training recordings cut into stretches from their beginnings; the last of each may be shorter.
fn stretches(plan: &Plan, recordings: &[usize], length: u64) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for &recording in recordings {
        let all = plan.steps(recording);
        for first in (0..all).step_by(length as usize) {
            let steps = length.min(all - first);
            let ictal = (first..first + steps).any(|step| plan.is_ictal(recording, step..step + 1));
            stretches.push(Stretch { recording, first, steps, ictal });
        }
    }
    stretches
}

/// Whole files up to this size enter the fingerprint.
const WHOLE_BYTES: u64 = 1 << 20;
/// Larger ones with so many pieces, evenly spaced, the header among them: reading 40 GB to name the data would take longer
/// than many a training.
const PIECES: u64 = 64;
const PIECE_BYTES: u64 = 8192;

/// SHA-256 over each used recording's name, part, size, seizures and content (of large files: a sample of the content).
fn fingerprint(recordings: &[Recording], parts: &[Vec<usize>; 3]) -> DataResult<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut hash = Sha256::new();
    for (part, list) in parts.iter().enumerate() {
        for recording in list.iter().filter_map(|&r| recordings.get(r)) {
            let path = &recording.path;
            let mut file = std::fs::File::open(path).map_err(DataError::io(path))?;
            let bytes = file.metadata().map_err(DataError::io(path))?.len();
            hash.update(format!("{part} {} {bytes}\n", recording.name));
            for seizure in &recording.seizures {
                hash.update(format!("{} {}\n", seizure.start_s, seizure.end_s));
            }
            let (pieces, each) = if bytes <= WHOLE_BYTES { (1, bytes) } else { (PIECES, PIECE_BYTES) };
            for piece in 0..pieces {
                let mut content = Vec::new();
                file.seek(SeekFrom::Start((bytes - each) / (pieces - 1).max(1) * piece))
                    .map_err(DataError::io(path))?;
                (&mut file).take(each).read_to_end(&mut content).map_err(DataError::io(path))?;
                hash.update(content);
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

impl Task for Seizure {
    fn io(&self, streams: usize, segment: usize) -> Io {
        Io {
            input: InputKind::Frames { width: self.plan.width() },
            outputs: CLASSES,
            streams,
            segment: segment.min(self.stretch),
        }
    }

    fn most_streams(&self) -> Option<(usize, String)> {
        let drawn = self.stretches.iter().filter(|stretch| stretch.ictal).count() + self.quiet;
        let seconds = self.config.stretch_seconds.0;
        Some((drawn, format!("the stretches of {seconds} s that an epoch draws from the training part")))
    }

    fn training(&self, streams: usize, segment: usize, seed: u64) -> DataResult<Box<dyn Source + '_>> {
        let stretches = (Arc::clone(&self.stretches), self.quiet);
        let sizes = (streams, segment.min(self.stretch), self.stretch);
        Ok(Box::new(Training::new(Arc::clone(&self.plan), stretches, sizes, seed)))
    }

    fn evaluation(
        &self,
        part: Part,
        streams: usize,
        segment: usize,
        limit: Option<u64>,
    ) -> DataResult<Box<dyn Source + '_>> {
        let recordings = self.evaluated(part, limit);
        Ok(Box::new(Evaluation::new(Arc::clone(&self.plan), &recordings, streams, segment.min(self.stretch))))
    }

    fn scorer(&self, part: Part, streams: usize, _: Option<u64>) -> DataResult<Box<dyn Scorer + '_>> {
        Ok(Box::new(SeizureScorer::new(Arc::clone(&self.plan), part, streams)))
    }

    fn curve_part(&self) -> Part {
        Part::Valid
    }

    fn calibration_part(&self) -> Option<Part> {
        Some(Part::Valid)
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn identity(&self, sums: &mut Sums) -> DataResult<Found> {
        if self.config.generate.is_some() {
            return Ok(made());
        }
        let recordings = self.parts.iter().flatten().filter_map(|&r| self.plan.recording(r));
        let names: Vec<&str> = recordings.map(|recording| recording.name.as_str()).collect();
        let left_out: Vec<&str> = self.left_out.iter().map(String::as_str).collect();
        identity::chbmit(&self.root, &names, &left_out, sums)
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn meaning(&self) -> DataResult<Meaning> {
        let classes = json!(["background", "seizure"]);
        Ok(vec![("normalisation", self.plan.signals.normalisation()), ("classes", classes)])
    }

    fn facts(&self) -> Vec<Metric> {
        self.facts.clone()
    }
}
