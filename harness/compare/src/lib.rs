//! Two runs against each other: what differs, by how much, and whether that can be told from chance.
//!
//! ```text
//! rows of A, rows of B → pairs (a cell of A and one of B: same task, model, settings that vary, seed)
//!                      → comparison: paired differences over seeds, adjusted, in words      `harness compare`
//!                      → gate: what must be equal, what must not be worse                   `harness gate`
//! ```

mod comparison;
mod forms;
mod gate;
mod pairs;
mod words;

pub use comparison::{Change, Comparison, Difference, compare};
pub use forms::{annotations, junit, summary};
pub use gate::{Baseline, Check, Gate, Instructions, Outcome, Thresholds, counted, gate, noise};
pub use pairs::{Cell, Group, Pairs, pair};
pub use words::{json, text};
