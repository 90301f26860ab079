//! Statistics over seeds, items and tasks: intervals, paired tests, adjusted comparisons, verdicts and aggregates.
//! Nothing here knows a metric, a task or a model.
//!
//! The seed is the unit: values over seeds have Student's t interval ([`estimate`]), beyond ten of them the `BCa` bootstrap
//! ([`bca`]). Items that are independent of each other are drawn anew ([`resample`]), together with seeds where both matter
//! ([`two_level`]). Every resampling is a function of its seed: each resample has a stream of its own of one `ChaCha` generator,
//! so results do not depend on the number of threads.

pub mod adjust;
pub mod aggregate;
pub mod bca;
pub mod best;
pub mod estimate;
pub mod fit;
pub mod paired;
pub mod power;
pub mod resample;
mod special;
pub mod student;
pub mod two_level;
pub mod verdict;

use serde::Deserialize;

/// Which direction of a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Smaller values.
    Lower,
    /// Larger values.
    Higher,
}
