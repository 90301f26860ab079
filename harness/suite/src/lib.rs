//! Plans, runs and records experiments: everything of the `harness` program but the stamp of its commit.
//!
//! ```text
//! YAML grid → plan (cells) → dataset → task (segments) → learner (predict, learn) → events → Parquet → statistics → tables
//! grid        plan, cell     data      tasks             run                        rows     record    metrics      report
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

/// Prints a line on standard output. A reader that goes away ends the printing and nothing else.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        $crate::note_output(writeln!(std::io::stdout(), $($argument)*));
    }};
}

/// As [`say`], without the end of the line.
macro_rules! say_on {
    ($($argument:tt)*) => {{
        use std::io::Write;
        $crate::note_output(write!(std::io::stdout(), $($argument)*));
    }};
}

pub(crate) use {say, say_on};

/// Whether something that was to be printed is lost, and not because its reader went away.
static CUT_OFF: AtomicBool = AtomicBool::new(false);

fn note_output(result: std::io::Result<()>) {
    if result.is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
        CUT_OFF.store(true, Ordering::Relaxed);
    }
}

/// Writes what is still to be printed; whether some of it is lost.
fn cut_off() -> bool {
    use std::io::Write;
    note_output(std::io::stdout().flush());
    CUT_OFF.load(Ordering::Relaxed)
}

mod cell;
pub mod cli;
mod cluster;
pub mod device;
mod error;
mod export;
mod feed;
pub mod measure;
mod models;
mod phases;
mod plan;
mod predict;
mod progress;
mod protocol;
mod record;
mod registry;
mod report_config;
mod run;
mod schedule;
mod schema;
mod store;
mod tasks;
mod train;

pub use schedule::Build;

/// What the benchmarks and fuzz targets take apart; no interface for anyone else.
#[doc(hidden)]
pub mod parts {
    pub use crate::error::Result;
    pub use crate::plan::{OpenTasks, Plan, open_task};
    pub use crate::record::Recorder;
    pub use crate::run::{build, segments_for, step};
    pub use crate::store::{CellDir, Position, load_checkpoint};
    pub use crate::tasks::Source;
}
