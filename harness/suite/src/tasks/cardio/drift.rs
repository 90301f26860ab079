//! Electrodes that change within the stream: another gain, other places.

use std::num::NonZeroU64;

use bim::config::Positive;
use learner::seeded_rng;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LEADS;
use crate::tasks::Misfit;

/// A change of the electrodes. What it says holds until the next, in place of what the one before said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Frames of all streams before it sets in, rounded up to whole recordings.
    pub after: NonZeroU64,
    /// Factor of the signal of all leads; 1 is as recorded, and the default. Normalisation stays as it was.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub gain: Positive,
    /// Seed of a permutation of the leads, as if electrodes had been swapped; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permute: Option<u64>,
}

const fn one() -> Positive {
    Positive(1.0)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(gain: &Positive) -> bool {
    *gain == one()
}

impl Drift {
    pub(super) fn condition(&self) -> Condition {
        let mut order = Condition::default().order;
        if let Some(seed) = self.permute {
            order.shuffle(&mut seeded_rng(seed, "cardio.drift"));
        }
        Condition { gain: self.gain.0 as f32, order }
    }
}

/// Checks that drifts come one after the other, and that each changes something.
pub(super) fn check(drifts: &[Drift]) -> Result<(), Misfit> {
    let misfit = |expected: &str, got: String| Err(Misfit { key: "drift", expected: expected.into(), got });
    for pair in drifts.windows(2) {
        if pair[0].after >= pair[1].after {
            return misfit("each `after` above the one before", format!("{} after {}", pair[1].after, pair[0].after));
        }
    }
    let mut before = Condition::default();
    for drift in drifts {
        if drift.condition() == before {
            let expected = "another `gain` or `permute` than before: by default the signal is as recorded";
            return misfit(expected, format!("what is after {} frames changes nothing", drift.after));
        }
        before = drift.condition();
    }
    Ok(())
}

/// How a signal is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Condition {
    gain: f32,
    /// The lead that each channel has.
    order: [usize; LEADS],
}

impl Default for Condition {
    /// As the dataset has it.
    fn default() -> Self {
        Self { gain: 1.0, order: std::array::from_fn(|lead| lead) }
    }
}

impl Condition {
    /// Whether this changes anything.
    pub(super) fn changes(&self) -> bool {
        *self != Self::default()
    }

    /// Changes one sample of all leads.
    pub(super) fn apply(&self, row: &mut [f32; LEADS]) {
        *row = self.order.map(|lead| row[lead] * self.gain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(after: u64, gain: f64, permute: Option<u64>) -> Drift {
        Drift { after: NonZeroU64::new(after).unwrap(), gain: Positive(gain), permute }
    }

    #[test]
    fn a_signal_as_recorded_keeps_every_bit_and_swapped_leads_are_all_there() {
        let row: [f32; LEADS] = std::array::from_fn(|lead| lead as f32 / 7.0 - 0.3);
        let under = |condition: Condition| {
            let mut changed = row;
            condition.apply(&mut changed);
            changed.map(f32::to_bits)
        };
        let (same, twice) = (row.map(f32::to_bits), row.map(|x| (2.0 * x).to_bits()));
        assert_eq!(under(Condition::default()), same);
        let swapped = under(drift(1, 2.0, Some(1)).condition());
        assert_ne!(swapped, twice);
        let sorted = |mut row: [u32; LEADS]| {
            row.sort_unstable();
            row
        };
        assert_eq!(sorted(swapped), sorted(twice));
        assert_ne!(swapped, under(drift(1, 2.0, Some(2)).condition()));
    }

    #[test]
    fn drifts_rise_and_change_something() {
        let said = |drifts: &[Drift]| check(drifts).map_err(|misfit| format!("{}, {}", misfit.got, misfit.expected));
        assert_eq!(said(&[drift(5, 2.0, None), drift(9, 1.0, Some(1)), drift(12, 1.0, None)]), Ok(()));
        assert!(said(&[drift(5, 2.0, None), drift(5, 1.0, None)]).unwrap_err().contains("5 after 5"));
        assert!(said(&[drift(5, 1.0, None)]).unwrap_err().contains("changes nothing"));
        assert!(said(&[drift(5, 2.0, None), drift(6, 2.0, None)]).unwrap_err().contains("after 6 frames"));
    }
}
