//! Detection of events in recordings: windows above a threshold make alarms, alarms find seizures or are false.

use rand::Rng;
use rayon::prelude::*;

use super::ranking::{Areas, Ranking};
use statistics::resample::{interval, stream};

/// A stretch of a recording with its score and label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Start in seconds.
    pub start_s: f64,
    /// End in seconds.
    pub end_s: f64,
    /// Higher means more likely an event.
    pub score: f64,
    /// Whether it is one.
    pub label: bool,
}

/// What was found in a recording, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Events {
    /// Annotated events.
    pub events: u64,
    /// Those of them that an alarm overlaps.
    pub detected: u64,
    /// Alarms that overlap no event.
    pub false_alarms: u64,
    /// Hours of recording.
    pub hours: f64,
}

impl Events {
    /// Share of the events that were detected; `None` without events.
    pub fn sensitivity(&self) -> Option<f64> {
        (self.events > 0).then(|| self.detected as f64 / self.events as f64)
    }

    /// False alarms per hour of recording; `None` without recording.
    pub fn false_alarms_per_hour(&self) -> Option<f64> {
        (self.hours > 0.0).then(|| self.false_alarms as f64 / self.hours)
    }

    fn add(&mut self, other: &Self, times: u64) {
        self.events += times * other.events;
        self.detected += times * other.detected;
        self.false_alarms += times * other.false_alarms;
        self.hours += times as f64 * other.hours;
    }

    /// The sum of several recordings.
    pub fn sum(all: &[Self]) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.add(one, 1);
        }
        sum
    }
}

/// Counts events in one recording: an alarm is a run of consecutive windows whose score is at least `threshold`. It
/// detects each event (start and end in seconds) that it overlaps, and is false if it overlaps none.
pub fn count_events(windows: &[Window], events: &[(f64, f64)], threshold: f64) -> Events {
    let mut alarms: Vec<(f64, f64)> = Vec::new();
    let mut running = false;
    for window in windows {
        let above = window.score >= threshold;
        match alarms.last_mut().filter(|_| above && running) {
            Some(alarm) => alarm.1 = window.end_s,
            None if above => alarms.push((window.start_s, window.end_s)),
            None => {}
        }
        running = above;
    }
    let overlap = |a: &(f64, f64), b: &(f64, f64)| a.0 < b.1 && b.0 < a.1;
    Events {
        events: events.len() as u64,
        detected: events.iter().filter(|event| alarms.iter().any(|alarm| overlap(alarm, event))).count() as u64,
        false_alarms: alarms.iter().filter(|alarm| !events.iter().any(|event| overlap(alarm, event))).count() as u64,
        hours: windows.iter().map(|window| window.end_s - window.start_s).sum::<f64>() / 3600.0,
    }
}

/// The threshold with the highest F1 of `score ≥ threshold`, and that F1; of several the highest threshold. `None`
/// without a positive or if a score is NaN.
pub fn best_f1_threshold(scores: &[f64], labels: &[bool]) -> Option<(f64, f64)> {
    if scores.len() != labels.len() || scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut items: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = labels.iter().filter(|&&label| label).count();
    let (mut hits, mut best) = (0_usize, None::<(f64, f64)>);
    for (i, &(score, label)) in items.iter().enumerate() {
        hits += usize::from(label);
        // a threshold takes all items of one score
        if items.get(i + 1).is_some_and(|next| next.0 >= score) {
            continue;
        }
        let f1 = 2.0 * hits as f64 / (all + i + 1) as f64;
        if all > 0 && best.is_none_or(|(_, highest)| f1 > highest + F1_ROUNDING) {
            best = Some((score, f1));
        }
    }
    best
}

/// Differences of F1 below this are rounding.
const F1_ROUNDING: f64 = 1e-12;

/// 95 % intervals over recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Intervals {
    /// Of the AUC-ROC over windows.
    pub roc: Option<(f64, f64)>,
    /// Of the average precision over windows.
    pub precision: Option<(f64, f64)>,
    /// Of the share of events that were detected.
    pub sensitivity: Option<(f64, f64)>,
    /// Of the false alarms per hour.
    pub false_alarms_per_hour: Option<(f64, f64)>,
}

/// Bootstrap over recordings: all windows and events of a recording are drawn together, since they depend on each other.
///
/// `recording[i]` says to which of the recordings item `i` of the ranking belongs; `events` has one entry for each
/// recording, or none where there is no threshold. No interval with fewer than two recordings or where a statistic is
/// undefined in more than half of the resamples.
pub fn recording_intervals(
    ranking: &Ranking,
    recording: &[usize],
    recordings: usize,
    events: &[Events],
    resamples: usize,
) -> Intervals {
    if recordings < 2 {
        return Intervals::default();
    }
    let draws: Vec<(Areas, Events)> = (0..resamples)
        .into_par_iter()
        .map_init(
            || vec![0_u64; recordings],
            |counts, resample| {
                counts.fill(0);
                let mut rng = stream(super::SEED, resample);
                for _ in 0..recordings {
                    if let Some(count) = counts.get_mut(rng.random_range(0..recordings)) {
                        *count += 1;
                    }
                }
                let times = |recording: usize| counts.get(recording).copied().unwrap_or(0);
                let areas = ranking.areas(|item| recording.get(item).map_or(0, |&r| times(r)));
                let mut sum = Events::default();
                events.iter().enumerate().for_each(|(r, one)| sum.add(one, times(r)));
                (areas, sum)
            },
        )
        .collect();
    let of = |f: &dyn Fn(&(Areas, Events)) -> Option<f64>| interval(draws.iter().filter_map(f).collect(), resamples);
    Intervals {
        roc: of(&|d| d.0.roc),
        precision: of(&|d| d.0.precision),
        sensitivity: of(&|d| d.1.sensitivity()),
        false_alarms_per_hour: of(&|d| d.1.false_alarms_per_hour()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        scores: Vec<f64>,
        labels: Vec<bool>,
        threshold: f64,
        f1: f64,
    }

    /// Values of scikit-learn's `f1_score` over all thresholds: see `detection.py` beside the file.
    #[test]
    fn threshold_is_scikit_learns() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../tests/golden/detection.json")).unwrap();
        assert!(cases.len() >= 10);
        for c in cases {
            let (threshold, f1) = best_f1_threshold(&c.scores, &c.labels).unwrap();
            assert!((threshold - c.threshold).abs() < 1e-12, "{}: {threshold}, expected {}", c.name, c.threshold);
            assert!((f1 - c.f1).abs() < 1e-12, "{}: {f1}, expected {}", c.name, c.f1);
        }
        assert_eq!(best_f1_threshold(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(best_f1_threshold(&[f64::NAN], &[true]), None);
        assert_eq!(best_f1_threshold(&[], &[]), None);
    }

    fn windows(scores: &[f64]) -> Vec<Window> {
        let window = |(i, &score): (usize, &f64)| Window {
            start_s: 4.0 * i as f64,
            end_s: 4.0 * (i + 1) as f64,
            score,
            label: false,
        };
        scores.iter().enumerate().map(window).collect()
    }

    #[test]
    fn alarms_are_runs_and_detect_what_they_overlap() {
        //                      0    4    8    12   16   20   24   28   32
        let windows = windows(&[0.9, 0.1, 0.5, 0.8, 0.2, 0.7, 0.1, 0.6, 0.6]);
        // the first alarm is false; the second (8 to 16) finds both first events; 20 to 24 touches none; the last finds one
        let events = [(9.0, 10.0), (15.0, 19.0), (24.0, 26.0), (35.0, 40.0)];
        let found = count_events(&windows, &events, 0.5);
        assert_eq!((found.events, found.detected, found.false_alarms), (4, 3, 2));
        assert!((found.hours - 0.01).abs() < 1e-12);
        assert_eq!(found.sensitivity(), Some(0.75));
        assert!((found.false_alarms_per_hour().unwrap() - 200.0).abs() < 1e-9);
        assert_eq!(count_events(&windows, &events, 2.0).detected, 0);
        assert_eq!(count_events(&[], &[], 0.0).sensitivity(), None);
        assert_eq!(count_events(&[], &[], 0.0).false_alarms_per_hour(), None);
    }

    /// An alarm that ends where an event begins, or begins where one ends, does not overlap it; nor does one long after it.
    #[test]
    fn alarms_that_touch_an_event_are_false() {
        //                      0    4    8    12   16
        let windows = windows(&[0.1, 0.1, 0.9, 0.1, 0.1]);
        for event in [(0.0, 2.0), (4.0, 8.0), (12.0, 16.0), (18.0, 20.0)] {
            let found = count_events(&windows, &[event], 0.5);
            assert_eq!((found.detected, found.false_alarms), (0, 1), "{event:?}");
        }
        let found = count_events(&windows, &[(0.0, 8.1), (11.9, 20.0)], 0.5);
        assert_eq!((found.detected, found.false_alarms), (2, 0));
    }

    #[test]
    fn recordings_add_up() {
        let one = Events { events: 2, detected: 1, false_alarms: 5, hours: 0.5 };
        let two = Events { events: 4, detected: 3, false_alarms: 7, hours: 1.5 };
        assert_eq!(Events::sum(&[one, two]), Events { events: 6, detected: 4, false_alarms: 12, hours: 2.0 });
        let mut drawn = two;
        drawn.add(&one, 3);
        assert_eq!(drawn, Events { events: 10, detected: 6, false_alarms: 22, hours: 3.0 });
        drawn.add(&one, 0);
        assert_eq!(drawn, Events { events: 10, detected: 6, false_alarms: 22, hours: 3.0 });
    }

    /// The first of four items and all four have F1 = 2/3.
    #[test]
    fn of_equal_scores_the_highest_threshold_is_taken() {
        let (threshold, f1) = best_f1_threshold(&[0.9, 0.8, 0.7, 0.6], &[true, false, false, true]).unwrap();
        assert!((threshold - 0.9).abs() < 1e-15 && (f1 - 2.0 / 3.0).abs() < 1e-15, "{threshold} {f1}");
    }

    #[test]
    fn recordings_are_drawn_as_wholes() {
        // one recording ranks perfectly, the other upside down: resamples give 0, 1 or what both give together
        let scores = [4.0, 1.0, 1.5, 3.5];
        let labels = [true, false, true, false];
        let ranking = Ranking::new(&scores, &labels).unwrap();
        let events = [
            Events { events: 1, detected: 1, false_alarms: 0, hours: 1.0 },
            Events { events: 1, detected: 0, false_alarms: 3, hours: 1.0 },
        ];
        let found = recording_intervals(&ranking, &[0, 0, 1, 1], 2, &events, 500);
        assert_eq!(found.roc, Some((0.0, 1.0)));
        assert_eq!(found.sensitivity, Some((0.0, 1.0)));
        assert_eq!(found.false_alarms_per_hour, Some((0.0, 3.0)));
        assert_eq!(recording_intervals(&ranking, &[0; 4], 1, &events[..1], 500), Intervals::default());
    }
}
