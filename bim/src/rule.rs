//! Where credit goes: what each mode of credit keeps of it, and how it gets through the postsynaptic membrane.

use crate::config::{BimConfig, Credit};
use crate::kernels::scan::Through;

/// How the gradient of a block is formed; follows from [`Credit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For the block's own parameters.
    pub own: Through,
    /// For what the block passes down to the layer below.
    pub across: Through,
    /// Whether traces are carried across chunks.
    pub carries: bool,
}

impl From<Credit> for Rule {
    fn from(credit: Credit) -> Self {
        let state_only = Through { state: true, membrane: false };
        let (own, across, carries) = match credit {
            Credit::Hybrid | Credit::Exact => (Through::TIME, Through::TIME, true),
            Credit::Diagonal => (Through::TIME, Through::STEP, true),
            Credit::Eprop => (state_only, Through::STEP, true),
            Credit::Spatial => (Through::STEP, Through::STEP, false),
            Credit::Tbptt | Credit::Bptt => (Through::TIME, Through::TIME, false),
        };
        Self { own, across, carries }
    }
}

/// How credit passes the postsynaptic membrane between chunks. Both are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membrane {
    /// `F` traces: `N·D·J` numbers for `W_B` and for `W_C`, for any neuron.
    Traces,
    /// The state's traces lag this many steps behind, and the adjoint runs back through those steps again: exact to rounding
    /// if nothing survives them on the membrane, `β^lag ≈ 0`. Far smaller and faster where it applies.
    Lag(usize),
}

/// Longest lag that is still cheaper than membrane traces.
const LONGEST_LAG: usize = 64;

impl Membrane {
    /// Lag where it loses nothing in numbers of `bits` of precision, traces elsewhere.
    #[must_use]
    pub fn choose(c: &BimConfig, bits: i32) -> Self {
        if !Rule::from(c.credit).own.membrane || !Rule::from(c.credit).carries {
            return Self::Lag(0);
        }
        if c.post.attached_reset && c.post.fires() {
            return Self::Traces;
        }
        let (beta, tiny) = (c.post.beta.0, 2f64.powi(-bits));
        (0..=LONGEST_LAG).find(|&lag| beta.powi(lag as i32 + 1) <= tiny).map_or(Self::Traces, Self::Lag)
    }

    /// Steps of history in front of the chunk.
    #[must_use]
    pub fn lag(self) -> usize {
        match self {
            Self::Traces => 0,
            Self::Lag(lag) => lag,
        }
    }
}
