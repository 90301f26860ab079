//! `harness export CELL`: a finished cell's weights for other programs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{planned_cell, unwritable};
use crate::error::{Error, Result, exit};
use crate::export;
use crate::plan::{OpenTasks, open_task};
use crate::store::{CellDir, write_whole};

const EXAMPLES: &str = "\
Example:
  harness export runs/quickstart/cells/0123456789abcdef --out weights.safetensors

The file has every tensor of the model, its settings, and what inputs and outputs mean: vocabulary
and normalisation, computed again from the data. baselines/README.md lists tensors and keys.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// Folder of a completed cell: `RUN/cells/ID`
    cell: PathBuf,
    /// Form of the file
    #[arg(long, value_enum, default_value_t = Format::Safetensors)]
    format: Format,
    /// File to write; ID.safetensors in this folder if left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    replace: bool,
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// All tensors in one file, what is said of them in its header
    Safetensors,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
        }
    }
}

pub(super) fn run(args: &ExportArgs) -> Result<u8> {
    let given = args.out.as_deref();
    given.map_or(Ok(()), |out| check_free(out, args.replace))?; // before anything is read
    let (run, plan, index) = planned_cell(&args.cell)?;
    let cell = &plan.cells[index];
    let own = PathBuf::from(format!("{}.{}", cell.id, args.format.extension()));
    let out = given.unwrap_or(&own);
    check_free(out, args.replace)?;
    let (weights, status) = export::weights(&CellDir::of(run, &cell.id))?;
    let task = open_task(&mut OpenTasks::new(), &cell.config.task, &args.data)?;
    let metadata = export::metadata(cell, &status, &*task)?;
    let bytes = match args.format {
        Format::Safetensors => export::with_metadata(&weights, &metadata)?,
    };
    write_whole(out, &bytes).map_err(unwritable)?;
    crate::say!("{}: {} bytes, weights of {}", out.display(), bytes.len(), plan.names()[index]);
    Ok(exit::DONE)
}

/// Refuses to write over a file, unless that was asked for.
fn check_free(out: &Path, replace: bool) -> Result<()> {
    if replace || !out.exists() {
        return Ok(());
    }
    let next = "name another file with --out, or write over it with --replace";
    Err(Error::Usage(format!("{}: it is there already\n  next: {next}", out.display())))
}
