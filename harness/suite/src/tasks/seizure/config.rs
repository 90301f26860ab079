//! The task's keys in a grid file, and what follows from them alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bim::config::{Count, Positive, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Seizure;
use super::source::Stretch;
use crate::protocol::{Overlap, Selection};
use crate::tasks::{Misfit, Settings, Task};
use data::datasets::chbmit::generate::{self as eeg, EegSpec};
use data::datasets::chbmit::{Recording, fetching, patient};
use data::error::DataResult;

/// How recordings are divided into training, validation and test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// By patient: `train_cases`, `valid_cases`, `test_cases`. No patient is in two parts.
    #[default]
    Patients,
    /// By time within each of `cases`: the earliest recordings train, the latest test.
    Chronological,
}

/// Size of a generated dataset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateEeg {
    /// Patients, 1 to 20.
    pub patients: Count,
    /// Recordings of each.
    pub recordings: Count,
    /// Seconds of each recording, at least 60.
    pub seconds: Count,
}

impl Default for GenerateEeg {
    fn default() -> Self {
        Self { patients: Count(8), recordings: Count(4), seconds: Count(120) }
    }
}

/// The task's keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeizureConfig {
    /// Folder under the data directory.
    pub root: String,
    /// Generated data: its size; absent for published data.
    pub generate: Option<GenerateEeg>,
    /// Samples per second after resampling; the recordings' 256 Hz must be a multiple.
    pub rate: Count,
    /// Corner of the high pass in Hz.
    pub low_hz: Positive,
    /// Corner of the low pass in Hz, at most 0.8 of half the rate.
    pub high_hz: Positive,
    /// Mains frequency to be removed before resampling; absent: none.
    pub notch_hz: Option<Positive>,
    /// Samples per step.
    pub frame: Count,
    /// Length of the windows that are scored: whole steps.
    pub window_seconds: Positive,
    /// Length of the stretches that training streams read: whole steps.
    pub stretch_seconds: Positive,
    /// Share of an epoch's stretches that have a seizure in them, as far as there are enough without; absent: all
    /// stretches as they come.
    pub seizure_share: Option<Share>,
    /// How recordings are divided.
    pub split: Split,
    /// Cases to train on; empty means all whose patient is in no other part.
    pub train_cases: Vec<String>,
    /// Cases for the learning curve and the threshold.
    pub valid_cases: Vec<String>,
    /// Cases for the result.
    pub test_cases: Vec<String>,
    /// What these results are used to choose. Whatever it is, no patient is in two parts (of a split by patients) and no
    /// recording is (of any).
    #[serde(skip_serializing_if = "Selection::is_default")]
    pub selection: Selection,
    /// Cases of a chronological split; empty means all.
    pub cases: Vec<String>,
    /// Share of each case's time that validates, in a chronological split.
    pub valid_share: Share,
    /// Share of each case's time that tests, in a chronological split.
    pub test_share: Share,
}

impl Default for SeizureConfig {
    fn default() -> Self {
        let cases = |list: &[&str]| list.iter().map(|&case| case.to_owned()).collect();
        Self {
            root: "chb-mit".into(),
            generate: None,
            rate: Count(64),
            low_hz: Positive(0.5),
            high_hz: Positive(24.0),
            notch_hz: None,
            frame: Count(16),
            window_seconds: Positive(4.0),
            stretch_seconds: Positive(60.0),
            seizure_share: Some(Share(0.5)),
            split: Split::Patients,
            train_cases: Vec::new(),
            valid_cases: cases(&["chb11", "chb17", "chb22"]),
            test_cases: cases(&["chb03", "chb08", "chb10", "chb20", "chb23"]),
            selection: Selection::default(),
            cases: Vec::new(),
            valid_share: Share(0.2),
            test_share: Share(0.3),
        }
    }
}

/// What was expected and what there is.
type Problem = (String, String);

fn problem<T>(expected: impl Into<String>, got: impl Into<String>) -> Result<T, Problem> {
    Err((expected.into(), got.into()))
}

/// Highest corner of the low pass by half the rate: the filter needs room to fall before frequencies fold back.
const HIGHEST_CORNER: f64 = 0.8;
/// Lowest corner of the high pass in Hz: a lower one does not settle in the time given before a block.
const LOWEST_CORNER_HZ: f64 = 0.1;

impl Settings for SeizureConfig {
    fn check(&self) -> Result<(), Misfit> {
        let (low, high, highest) = (self.low_hz.0, self.high_hz.0, HIGHEST_CORNER * self.rate.0 as f64 / 2.0);
        if low < LOWEST_CORNER_HZ || low >= high || high > highest {
            let expected = format!("{LOWEST_CORNER_HZ} <= low_hz < high_hz <= {highest} (of rate: {})", self.rate.0);
            return Err(Misfit { key: "high_hz", expected, got: format!("low_hz: {low}, high_hz: {high}") });
        }
        if self.valid_share.0 + self.test_share.0 >= 1.0 {
            let got = format!("{} and {}", self.valid_share.0, self.test_share.0);
            return Err(Misfit {
                key: "test_share",
                expected: "valid_share and test_share below 1 together".into(),
                got,
            });
        }
        if let Some(([a, b], case)) = self.shared_patient() {
            let expected = "each patient in one part (chb01 and chb21 are one)".into();
            return Err(Misfit { key: b, expected, got: format!("{case} in {a} and {b}") });
        }
        let misfit = |key| move |(expected, got)| Misfit { key, expected, got };
        self.window_steps().map_err(misfit("window_seconds"))?;
        self.stretch_steps().map_err(misfit("stretch_seconds"))?;
        Ok(())
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    fn overlap(&self) -> Option<Overlap> {
        self.shared_patient().map(|(keys, case)| Overlap {
            keys,
            within: None,
            shared: format!("the patient of {case}"),
        })
    }

    fn generated(&self) -> Option<String> {
        let GenerateEeg { patients, recordings, seconds } = self.generate?;
        Some(format!("eeg-v{}-{}-{}-{}", eeg::GENERATOR_VERSION, patients.0, recordings.0, seconds.0))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn open(&self, root: &Path, _: &Path) -> DataResult<Arc<dyn Task>> {
        if let Some(g) = self.generate {
            let (patients, recordings, seconds) = (g.patients.0, g.recordings.0, g.seconds.0);
            eeg::generate(root, &EegSpec { patients, recordings, seconds, seed: 1 })?;
        }
        Ok(Arc::new(Seizure::open(self, root)?))
    }
}

impl SeizureConfig {
    /// Two lists that name the same patient, and a case of the first that is of this patient, in a split by patients.
    pub(crate) fn shared_patient(&self) -> Option<([&'static str; 2], &str)> {
        let lists =
            [("train_cases", &self.train_cases), ("valid_cases", &self.valid_cases), ("test_cases", &self.test_cases)];
        for (i, (a, first)) in lists.iter().enumerate() {
            for (b, second) in lists.iter().skip(i + 1) {
                let shared = first.iter().find(|case| second.iter().any(|other| patient(other) == patient(case)));
                if let Some(case) = shared.filter(|_| self.split == Split::Patients) {
                    return Some(([*a, *b], case));
                }
            }
        }
        None
    }

    /// Whether a case is in any part.
    pub(super) fn wants(&self, case: &str) -> bool {
        match self.split {
            Split::Chronological => self.cases.is_empty() || self.cases.iter().any(|c| c == case),
            Split::Patients => self.part_of(case).is_some(),
        }
    }

    /// Part of a case, by patients.
    fn part_of(&self, case: &str) -> Option<usize> {
        let has = |list: &[String]| list.iter().any(|c| c == case);
        let same = |list: &[String]| list.iter().any(|c| patient(c) == patient(case));
        if has(&self.valid_cases) {
            Some(1)
        } else if has(&self.test_cases) {
            Some(2)
        } else if has(&self.train_cases)
            || (self.train_cases.is_empty() && !same(&self.valid_cases) && !same(&self.test_cases))
        {
            Some(0)
        } else {
            None
        }
    }

    /// Divides the recordings, which are in order of time within each case.
    pub(super) fn parts(&self, recordings: &[Recording]) -> Result<[Vec<usize>; 3], Problem> {
        let mut parts: [Vec<usize>; 3] = Default::default();
        let cases: BTreeSet<&str> = recordings.iter().map(|r| r.case.as_str()).collect();
        let named = match self.split {
            Split::Patients => [&self.train_cases, &self.valid_cases, &self.test_cases].into_iter().flatten().collect(),
            Split::Chronological => self.cases.iter().collect::<Vec<_>>(),
        };
        if let Some(case) = named.into_iter().find(|case| !cases.contains(case.as_str())) {
            let expected = format!(
                "recordings of {case}, which the split names, with their files; run `{}`",
                fetching(|of| of == case)
            );
            return problem(expected, "none");
        }
        for case in cases {
            let of_case: Vec<usize> =
                (0..recordings.len()).filter(|&i| recordings.get(i).is_some_and(|r| r.case == case)).collect();
            let seconds = |i: usize| recordings.get(i).map_or(0.0, |r| r.header.seconds());
            let all: f64 = of_case.iter().map(|&i| seconds(i)).sum();
            let mut before = 0.0;
            for i in of_case {
                // a recording belongs where its middle lies
                let middle = (before + seconds(i) / 2.0) / all.max(f64::MIN_POSITIVE);
                before += seconds(i);
                let part = match self.split {
                    Split::Patients => self.part_of(case),
                    Split::Chronological if middle < 1.0 - self.valid_share.0 - self.test_share.0 => Some(0),
                    Split::Chronological if middle < 1.0 - self.test_share.0 => Some(1),
                    Split::Chronological => Some(2),
                };
                if let Some(list) = part.and_then(|part| parts.get_mut(part)) {
                    list.push(i);
                }
            }
        }
        for (name, part) in ["train", "valid", "test"].into_iter().zip(&parts) {
            if part.is_empty() {
                return problem(format!("recordings for the {name} part"), "none with a file");
            }
        }
        Ok(parts)
    }

    fn whole_steps(&self, seconds: f64, key: &str) -> Result<u64, Problem> {
        let steps = seconds * self.rate.0 as f64 / self.frame.0 as f64;
        if steps >= 1.0 && (steps - steps.round()).abs() < 1e-6 && steps < 1e6 {
            return Ok(steps.round() as u64);
        }
        let step = self.frame.0 as f64 / self.rate.0 as f64;
        problem(format!("{key} a multiple of {step} s (frame by rate)"), format!("{seconds} s"))
    }

    /// Steps of a window.
    pub(super) fn window_steps(&self) -> Result<u64, Problem> {
        self.whole_steps(self.window_seconds.0, "window_seconds")
    }

    /// Steps of a stretch.
    pub(super) fn stretch_steps(&self) -> Result<u64, Problem> {
        self.whole_steps(self.stretch_seconds.0, "stretch_seconds")
    }

    /// Stretches without a seizure in an epoch.
    pub(super) fn quiet_stretches(&self, stretches: &[Stretch]) -> Result<usize, Problem> {
        let ictal = stretches.iter().filter(|stretch| stretch.ictal).count();
        let quiet = stretches.len() - ictal;
        let Some(share) = self.seizure_share else { return Ok(quiet) };
        if share.0 <= 0.0 || ictal == 0 {
            let expected = "seizure_share above 0 and seizures in the training part (or no seizure_share)";
            return problem(expected, format!("seizure_share: {}, {ictal} stretches with a seizure", share.0));
        }
        Ok(((ictal as f64 * (1.0 - share.0) / share.0).round() as usize).min(quiet))
    }
}
