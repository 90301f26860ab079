//! A stream that comes in phases: what is lost in each of them, and what is still known of each domain after every phase.
//!
//! With `L[p][i]` the loss on the held-out part of domain `i` by the weights after phase `p` (`p = 0` is before training), domains
//! numbered in the order in which they come, and `T` of them, each seen once before one comes back:
//!
//! ```text
//! forward transfer  = mean over i = 2…T of    L[0][i] − L[i−1][i]
//! backward transfer = mean over i = 1…T−1 of  L[i][i] − L[T][i]
//! forgetting        = mean over i = 1…T−1 of  L[T][i] − min over p = 1…T−1 of L[p][i]
//! ```
//!
//! The transfers are those of Lopez-Paz and Ranzato (Gradient Episodic Memory for Continual Learning, NIPS 2017), forgetting that of
//! Chaudhry et al. (Riemannian Walk for Incremental Learning, ECCV 2018). Theirs are of accuracies, of which more is better; a loss has
//! the other sign, so that transfer above zero is good here too.

use serde::{Deserialize, Serialize};

use crate::tasks::{Metric, Source};
use metrics::stream::{AFTER, BEFORE, MATRIX, RECOVERY, TRANSFERS};

/// Windows of a phase that have a mean loss of their own.
pub const WINDOWS: u64 = 10;
/// The last windows of a phase that say what its loss was: a fifth of it.
const LEVEL: usize = 2;

/// Where the phases of a run end, in segments: the last at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    ends: Vec<u64>,
}

impl Phases {
    /// Those of a run of `total` segments; none if its stream does not change.
    #[must_use]
    pub fn of(source: &dyn Source, total: u64) -> Self {
        let changes: Vec<u64> = source.changes().into_iter().filter(|end| *end < total).collect();
        let ends = if changes.is_empty() { changes } else { changes.into_iter().chain([total]).collect() };
        Self { ends }
    }

    /// Phases that are over after so many segments.
    #[must_use]
    pub fn over(&self, segments: u64) -> usize {
        self.ends.partition_point(|end| *end <= segments)
    }

    /// Whether a phase ends after so many segments.
    #[must_use]
    pub fn is_end(&self, segments: u64) -> bool {
        self.ends.binary_search(&segments).is_ok()
    }

    /// The phase that a segment is in, and its window there; `None` without phases.
    fn place(&self, segment: u64) -> Option<(usize, usize)> {
        let phase = self.over(segment);
        let end = *self.ends.get(phase)?;
        let start = phase.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some((phase, ((segment - start) * WINDOWS / (end - start)) as usize))
    }
}

/// Mean losses of a window of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Sum and number of losses, one for each segment that has one, in nats per supervised step.
    pub losses: (f64, u64),
    /// Tokens or frames.
    pub seen: u64,
}

impl Window {
    fn mean(&self) -> Option<f64> {
        let (sum, count) = self.losses;
        (count > 0).then(|| sum / count as f64)
    }
}

/// What became of a stream in phases so far: part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// Windows of each phase.
    pub windows: Vec<Vec<Window>>,
    /// Loss on each domain: before training, then after each phase.
    pub scores: Vec<Vec<Option<f64>>>,
}

impl Followed {
    /// Whether there is nothing to follow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.scores.is_empty()
    }

    /// Takes in a segment, counted from zero, and what was lost on it before it was learned from. Gives the mean of the window that it
    /// ends, with the number of segments.
    pub fn add(&mut self, phases: &Phases, segment: u64, loss: Option<f64>, seen: u64) -> Option<(f64, u64)> {
        let (phase, window) = phases.place(segment)?;
        if self.windows.len() <= phase {
            self.windows.resize(phase + 1, Vec::new());
        }
        let windows = self.windows.get_mut(phase)?;
        if windows.len() <= window {
            windows.resize(window + 1, Window::default());
        }
        let own = windows.get_mut(window)?;
        own.seen += seen;
        if let Some(loss) = loss {
            own.losses.0 += loss;
            own.losses.1 += 1;
        }
        let ends = phases.place(segment + 1) != Some((phase, window));
        own.mean().filter(|_| ends).map(|mean| (mean, own.losses.1))
    }

    /// Metrics of the stream: for each change of it the loss before, right after, and what was seen until the loss was back within `margin`
    /// of what it was, undefined if it never was.
    #[must_use]
    pub fn changes(&self, held_against: &[Option<usize>], margin: f64) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (phase, windows) in self.windows.iter().enumerate() {
            let earlier = held_against.get(phase).copied().flatten().and_then(|earlier| self.windows.get(earlier));
            let Some(before) = earlier.and_then(|windows| level(windows)) else { continue };
            let all: u64 = windows.iter().map(|window| window.seen).sum();
            let back =
                windows.iter().position(|window| window.mean().is_some_and(|mean| mean <= before * (1.0 + margin)));
            let seen = back.map(|window| windows.iter().take(window + 1).map(|window| window.seen).sum::<u64>() as f64);
            let after = windows.iter().find_map(Window::mean);
            let named = [(BEFORE, Some(before)), (AFTER, after), (RECOVERY, seen)];
            metrics.extend(
                named.into_iter().map(|(name, value)| Metric::plain(format!("{name}{}", phase + 1), value, all)),
            );
        }
        metrics
    }

    /// Metrics of the domains: the matrix of losses, and what follows from it.
    #[must_use]
    pub fn transfers(&self, names: &[&str], first_visits: &[usize]) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (phase, row) in self.scores.iter().enumerate() {
            let cells = names.iter().zip(row);
            metrics.extend(cells.map(|(name, value)| Metric::plain(format!("{MATRIX}{phase}_{name}"), *value, 1)));
        }
        if names.is_empty() {
            return metrics;
        }
        let last = names.len();
        let loss = |phase: usize, number: usize| *self.scores.get(phase)?.get(*first_visits.get(number - 1)?)?;
        let mean = |terms: Vec<Option<f64>>| {
            let count = terms.len() as f64;
            terms.into_iter().sum::<Option<f64>>().map(|sum| sum / count)
        };
        let forward = mean((2..=last).map(|i| Some(loss(0, i)? - loss(i - 1, i)?)).collect());
        let backward = mean((1..last).map(|i| Some(loss(i, i)? - loss(last, i)?)).collect());
        let best = |i: usize| {
            let all = (1..last).map(|phase| loss(phase, i)).collect::<Option<Vec<f64>>>()?;
            all.into_iter().reduce(f64::min)
        };
        let forgetting = mean((1..last).map(|i| Some(loss(last, i)? - best(i)?)).collect());
        let n = last as u64 - 1;
        let all = TRANSFERS.into_iter().zip([forgetting, backward, forward]);
        metrics.extend(all.map(|(name, value)| Metric::plain(name, value, n)));
        metrics
    }
}

/// Mean loss at the end of a phase.
fn level(windows: &[Window]) -> Option<f64> {
    let last = windows.iter().rev().filter(|window| window.losses.1 > 0).take(LEVEL);
    let (sum, count) = last.fold((0.0, 0), |(sum, count), window| (sum + window.losses.0, count + window.losses.1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}")).value
    }

    /// Three domains, the losses of which make other means if a row, a column or a sign is another.
    #[test]
    fn transfers_are_those_of_the_definitions() {
        let rows = [[9.0, 8.0, 7.0], [3.0, 7.5, 6.5], [5.0, 2.0, 6.0], [6.0, 2.5, 1.0], [2.8, 4.0, 3.0]];
        let scores = rows.map(|row| row.map(Some).to_vec()).to_vec();
        let followed = Followed { scores, ..Followed::default() };
        let metrics = followed.transfers(&["a", "b", "c"], &[0, 1, 2]);
        assert_eq!(value(&metrics, "matrix_2_a"), Some(5.0));
        // (8 − 7.5 + 7 − 6) / 2, (3 − 6 + 2 − 2.5) / 2, (6 − 3 + 2.5 − 2) / 2
        assert_eq!(value(&metrics, "forward_transfer"), Some(0.75));
        assert_eq!(value(&metrics, "backward_transfer"), Some(-1.75));
        assert_eq!(value(&metrics, "forgetting"), Some(1.75));
        // in another order of coming: b, a, c
        let other = followed.transfers(&["a", "b", "c"], &[1, 0, 2]);
        assert_eq!(value(&other, "forward_transfer"), Some(f64::midpoint(9.0 - 3.0, 7.0 - 6.0)));
        // a run that ran out of time after two phases
        let early = Followed { scores: followed.scores[..3].to_vec(), ..Followed::default() };
        let early = early.transfers(&["a", "b", "c"], &[0, 1, 2]);
        assert_eq!((value(&early, "forgetting"), value(&early, "forward_transfer")), (None, Some(0.75)));
    }

    struct Changing;

    impl Source for Changing {
        fn segments(&self) -> u64 {
            120
        }
        fn seen_per_epoch(&self) -> u64 {
            120
        }
        fn segment(&self, _: u64) -> data::error::DataResult<crate::tasks::Segment> {
            unreachable!("nothing is learned here")
        }
        fn changes(&self) -> Vec<u64> {
            vec![40, 80]
        }
    }

    /// A loss that jumps at a change and falls again, or does not.
    #[test]
    fn a_change_is_recovered_from_at_the_end_of_a_window_or_never() {
        let phases = Phases::of(&Changing, 120);
        assert_eq!((phases.over(39), phases.over(40), phases.is_end(40), phases.is_end(41)), (0, 1, true, false));
        let mut followed = Followed::default();
        let loss = |segment: u64| match segment {
            0..32 => 5.0,
            32..40 => 1.0,
            40..52 => 2.0,
            52..60 => 1.05,
            60..80 => 1.2,
            _ => 1.5,
        };
        let means: Vec<(f64, u64)> =
            (0..120).filter_map(|segment| followed.add(&phases, segment, Some(loss(segment)), 10)).collect();
        assert_eq!((means.len(), means[0], means[29]), (30, (5.0, 4), (1.5, 4)));
        let metrics = followed.changes(&[None, Some(0), Some(0)], 0.1);
        assert_eq!((value(&metrics, "change_before_2"), value(&metrics, "change_after_2")), (Some(1.0), Some(2.0)));
        assert_eq!(value(&metrics, "recovery_2"), Some(160.0), "of windows of four segments the fourth is back");
        assert_eq!(value(&metrics, "recovery_3"), None, "it never is");
        assert!(metrics.iter().all(|metric| !metric.name.ends_with("_1") && metric.n == 400));
        // held against the end of the phase before, it is back at once
        assert_eq!(value(&followed.changes(&[None, None, Some(1)], 0.3), "recovery_3"), Some(40.0));
        assert_eq!(value(&followed.changes(&[None, Some(0)], 0.0), "recovery_2"), None, "1.05 is not 1");
    }

    #[test]
    fn a_stream_that_does_not_change_has_no_phases() {
        let phases = Phases::of(&Changing, 40);
        let mut followed = Followed::default();
        assert_eq!((phases.over(40), followed.add(&phases, 3, Some(1.0), 1)), (0, None));
        assert!(followed.is_empty() && followed.changes(&[], 0.1).is_empty());
    }
}
