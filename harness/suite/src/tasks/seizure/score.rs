//! From outputs to windows, and from windows to metrics.

use candle_core::Tensor;

use super::{Metric, Part, Plan, Scorer, Scores, Segment};
use metrics::detection::{self, Events, Window};
use metrics::{Ranking, with_interval};
use rows::PredictionRow;

/// Resamples for the intervals over recordings.
const RESAMPLES: usize = 1000;
/// Name of the metric that carries the threshold from the validation part to the test part.
const THRESHOLD: &str = "threshold_log_odds";

/// Sums over the steps of a window.
#[derive(Clone, Copy, Default)]
struct Sum {
    log_odds: f64,
    nll: f64,
    steps: u64,
}

/// A window's score is the mean log-odds of a seizure over its steps.
pub(super) struct SeizureScorer {
    plan: std::sync::Arc<Plan>,
    part: Part,
    /// Of each recording of the dataset, its windows; empty while it has not been seen.
    windows: Vec<Vec<Sum>>,
    /// Steps of its recording that each stream has seen.
    position: Vec<u64>,
    threshold: Option<f64>,
}

impl SeizureScorer {
    pub(super) fn new(plan: std::sync::Arc<Plan>, part: Part, streams: usize) -> Self {
        let windows = vec![Vec::new(); plan.signals.recordings().len()];
        Self { plan, part, windows, position: vec![0; streams], threshold: None }
    }
}

impl Scorer for SeizureScorer {
    fn observe(&mut self, segment: &Segment, output: &Tensor) -> learner::Result<()> {
        let steps = output.dim(1)?;
        let logits = learner::read_f32(output)?;
        let weights = learner::read_f32(segment.targets.weight())?;
        for (b, item) in segment.items.iter().enumerate() {
            let Some(position) = self.position.get_mut(b) else { continue };
            if segment.starts.get(b) == Some(&true) {
                *position = 0;
            }
            let Some(recording) = *item else { continue };
            let Some(windows) = self.windows.get_mut(recording) else { continue };
            for t in 0..steps {
                let at = b * steps + t;
                let (Some([off, on]), Some(true)) = (logits.as_chunks().0.get(at), weights.get(at).map(|&w| w > 0.0))
                else {
                    continue;
                };
                let log_odds = f64::from(on - off);
                let window = (*position / self.plan.window) as usize;
                if windows.len() <= window {
                    windows.resize(window + 1, Sum::default());
                }
                let ictal = self.plan.is_ictal(recording, *position..*position + 1);
                if let Some(sum) = windows.get_mut(window) {
                    sum.log_odds += log_odds;
                    sum.nll += softplus(if ictal { -log_odds } else { log_odds });
                    sum.steps += 1;
                }
                *position += 1;
            }
        }
        Ok(())
    }

    fn calibrate(&mut self, on: &Scores) {
        self.threshold = on.metrics.iter().find(|metric| metric.name == THRESHOLD).and_then(|metric| metric.value);
    }

    fn finish(self: Box<Self>) -> Scores {
        let seen: Vec<usize> =
            self.windows.iter().enumerate().filter(|(_, windows)| !windows.is_empty()).map(|(r, _)| r).collect();
        let windows: Vec<Vec<Window>> = seen.iter().map(|&r| self.windows_of(r)).collect();
        let all = || windows.iter().flatten();
        let scores: Vec<f64> = all().map(|window| window.score).collect();
        let labels: Vec<bool> = all().map(|window| window.label).collect();
        let of: Vec<usize> = windows.iter().enumerate().flat_map(|(i, list)| list.iter().map(move |_| i)).collect();
        // the test part must not choose its own threshold
        let threshold = match self.part {
            Part::Test => self.threshold,
            _ => detection::best_f1_threshold(&scores, &labels).map(|(threshold, _)| threshold),
        };
        let events: Vec<Events> = threshold.map_or_else(Vec::new, |threshold| {
            let count =
                |(&r, list): (&usize, &Vec<Window>)| detection::count_events(list, &self.plan.events(r), threshold);
            seen.iter().zip(&windows).map(count).collect()
        });
        let metrics = self.metrics(&scores, &labels, &of, &events, threshold, seen.len());
        Scores { metrics, predictions: self.predictions(&seen, &windows) }
    }
}

impl SeizureScorer {
    fn windows_of(&self, recording: usize) -> Vec<Window> {
        let sums = self.windows.get(recording).map(Vec::as_slice).unwrap_or_default();
        let window = |(i, sum): (u64, &Sum)| {
            let steps = i * self.plan.window..i * self.plan.window + sum.steps;
            Window {
                start_s: self.plan.seconds(steps.start),
                end_s: self.plan.seconds(steps.end),
                score: sum.log_odds / sum.steps.max(1) as f64,
                label: self.plan.is_ictal(recording, steps),
            }
        };
        (0..).zip(sums).map(window).collect()
    }

    fn metrics(
        &self,
        scores: &[f64],
        labels: &[bool],
        of: &[usize],
        events: &[Events],
        threshold: Option<f64>,
        recordings: usize,
    ) -> Vec<Metric> {
        let n = scores.len() as u64;
        let ranking = Ranking::new(scores, labels);
        let intervals = ranking
            .as_ref()
            .map(|ranking| detection::recording_intervals(ranking, of, recordings, events, RESAMPLES))
            .unwrap_or_default();
        let sum = Events::sum(events);
        let area = |f: fn(&Ranking) -> Option<f64>| ranking.as_ref().and_then(f);
        let mut metrics = vec![
            with_interval("auc_roc", area(Ranking::auc_roc), n, intervals.roc),
            with_interval("auc_pr", area(Ranking::average_precision), n, intervals.precision),
        ];
        if self.part == Part::Test {
            let rate = sum.false_alarms_per_hour();
            let recordings = recordings as u64;
            metrics.extend([
                with_interval("event_sensitivity", sum.sensitivity(), sum.events, intervals.sensitivity),
                with_interval("false_alarms_per_hour", rate, recordings, intervals.false_alarms_per_hour),
                Metric::plain("scored_hours", Some(scored_hours(&self.plan, &self.windows)), recordings),
            ]);
        }
        let (nll, steps) = self.windows.iter().flatten().fold((0.0, 0), |(a, n), w| (a + w.nll, n + w.steps));
        metrics.extend([
            Metric::plain(THRESHOLD, threshold, n),
            Metric::plain("prevalence", area(Ranking::prevalence), n),
            Metric::plain("loss", (steps > 0).then(|| nll / steps as f64), steps),
        ]);
        metrics
    }

    fn predictions(&self, seen: &[usize], windows: &[Vec<Window>]) -> Vec<PredictionRow> {
        let mut rows = Vec::new();
        for (&r, list) in seen.iter().zip(windows) {
            let name =
                self.plan.signals.recordings().get(r).map(|recording| recording.name.as_str()).unwrap_or_default();
            for (window, sum) in list.iter().zip(self.windows.get(r).into_iter().flatten()) {
                rows.push(PredictionRow {
                    item: format!("{name}@{}", window.start_s),
                    split: self.part.name().into(),
                    target: Some(if window.label { "seizure" } else { "background" }.into()),
                    scores: vec![1.0 / (1.0 + (-window.score).exp())],
                    hypothesis: None,
                    nll: Some(sum.nll / sum.steps.max(1) as f64),
                });
            }
        }
        rows
    }
}

fn scored_hours(plan: &Plan, windows: &[Vec<Sum>]) -> f64 {
    plan.seconds(windows.iter().flatten().map(|window| window.steps).sum()) / 3600.0
}

/// `ln(1 + eˣ)`, finite for any finite `x`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
