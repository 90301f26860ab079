//! The state space: its decay, its step sizes, and what both begin as.

use learner::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::numbers::{Positive, StepSize};

/// Form of the state space's decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayForm {
    /// One per head, as in Mamba-2.
    #[default]
    Head,
    /// One per channel and state, as in Mamba-1: traces are `N` (or `D / H`) times larger.
    ChannelState,
}

/// Which presynaptic neurons a head's step size `Δ_h` reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeltaInput {
    /// Its own group of `J / H` neurons: the traces of `W_Δ` shrink by the number of heads.
    #[default]
    Group,
    /// All of them.
    Full,
}

/// What the dynamics of a block begin as. A head forgets over about `1 / (Δ e^{A_log})` steps, and what it writes is in proportion to
/// `Δ`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Initial {
    /// Least rate `e^{A_log}`. Heads are spread evenly between it and `decay_max`.
    pub decay_min: Positive,
    /// Greatest rate `e^{A_log}`. 1 and 16 are Mamba-2's; rates per channel and state (`decay: channel_state`) begin as 1 to `N`.
    pub decay_max: Positive,
    /// Least step size `Δ`, where the input adds nothing. Heads are spread evenly between the logarithms of it and of `delta_max`.
    pub delta_min: StepSize,
    /// Greatest step size `Δ`. 0.001 and 0.1 are Mamba's.
    pub delta_max: StepSize,
}

impl Default for Initial {
    fn default() -> Self {
        Self {
            decay_min: Positive(1.0),
            decay_max: Positive(16.0),
            delta_min: StepSize(1e-3),
            delta_max: StepSize(1e-1),
        }
    }
}

impl Initial {
    /// Checks that least is not above greatest, and that rates are those of heads.
    pub(super) fn check(&self, decay: DecayForm) -> Result<()> {
        let pairs = [
            ("initial.decay_max", "initial.decay_min", self.decay_min.0, self.decay_max.0),
            ("initial.delta_max", "initial.delta_min", self.delta_min.0, self.delta_max.0),
        ];
        for (key, least_key, least, greatest) in pairs {
            if greatest < least {
                let problem = format!("expected {least_key} = {least} or more, got {greatest}");
                return Err(Error::Config { key, problem });
            }
        }
        let default = Self::default();
        let rates = (self.decay_min, self.decay_max) != (default.decay_min, default.decay_max);
        if decay == DecayForm::ChannelState && rates {
            let problem = "rates per channel and state begin as 1 to N; expected decay: head, or leave initial.decay_min and \
                           initial.decay_max out";
            return Err(Error::Config { key: "initial", problem: problem.to_owned() });
        }
        Ok(())
    }
}
