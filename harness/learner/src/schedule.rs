use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It stays at its peak.
    Constant,
    /// It follows half a cosine to `final_share` of the peak.
    Cosine,
    /// It falls on a straight line to `final_share` of the peak.
    Linear,
}

/// Learning rate as a function of the number of updates made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Learning rate after warm-up.
    pub peak: f64,
    /// Updates over which it rises linearly from zero.
    pub warmup_updates: u64,
    /// Updates in all; the rate stays at its final value after them.
    pub total_updates: u64,
    /// Shape of the fall.
    pub decay: Decay,
    /// Final rate as a share of the peak.
    pub final_share: f64,
}

impl Schedule {
    /// The same rate throughout.
    #[must_use]
    pub const fn constant(rate: f64) -> Self {
        Self { peak: rate, warmup_updates: 0, total_updates: 1, decay: Decay::Constant, final_share: 1.0 }
    }

    /// Learning rate of update number `update`, counted from zero.
    #[must_use]
    pub fn at(&self, update: u64) -> f64 {
        if update < self.warmup_updates {
            return self.peak * (update + 1) as f64 / self.warmup_updates as f64;
        }
        let span = self.total_updates.saturating_sub(self.warmup_updates).max(1);
        let progress = ((update - self.warmup_updates) as f64 / span as f64).min(1.0);
        let share = match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => {
                self.final_share + (1.0 - self.final_share) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Decay::Linear => 1.0 - (1.0 - self.final_share) * progress,
        };
        self.peak * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_final_share() {
        let s = Schedule { peak: 2.0, warmup_updates: 10, total_updates: 110, decay: Decay::Cosine, final_share: 0.1 };
        assert!([0, 1, 1000].iter().all(|&n| (Schedule::constant(0.3).at(n) - 0.3).abs() < 1e-12));
        assert!((s.at(0) - 0.2).abs() < 1e-12);
        assert!((s.at(9) - 2.0).abs() < 1e-12);
        assert!((s.at(10) - 2.0).abs() < 1e-12);
        assert!((s.at(60) - 2.0 * 0.55).abs() < 1e-12);
        assert!((s.at(110) - 0.2).abs() < 1e-12);
        assert!((s.at(1_000_000) - 0.2).abs() < 1e-12);
    }
}
