//! A finished cell's weights as one safetensors file, with all that is needed to use them.
//!
//! Tensors are those of the checkpoint, byte for byte. What is said of them stands in the header's `__metadata__`, strings in the order
//! of their keys, so that the same cell gives the same file. The page is `baselines/README.md`, under "Exported weights".

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use learner::{InputKind, Snapshot};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::models::ModelConfig;
use crate::plan::PlannedCell;
use crate::run;
use crate::store::seal::Stored;
use crate::store::{CellDir, Outcome, Position, Status, load_checkpoint};
use crate::tasks::Task;
use data::files::sha256_hex;

/// Version of the keys of the metadata and of what they mean.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes before the header: its length.
const LENGTH: usize = size_of::<u64>();
/// Readers refuse headers of more bytes.
const LONGEST_HEADER: usize = 100_000_000;

/// What inputs and outputs mean, beyond what the task's settings say: JSON by key of the metadata.
pub type Meaning = Vec<(&'static str, serde_json::Value)>;

/// The weights file of a completed cell, held against its digest.
///
/// # Errors
/// `Usage` if the cell is not completed, or its final checkpoint is not there or not whole; `Io` if the system refuses.
pub fn weights(dir: &CellDir) -> Result<(Vec<u8>, Status)> {
    let refuse = |problem: String, next: &str| Error::Usage(format!("{problem}\n  next: {next}"));
    let cell = dir.path.display();
    let again = "`harness run` on the same grid computes the cell again";
    let status = match dir.checked_status()? {
        Stored::Whole(status) => status,
        Stored::Damaged(problem) => return Err(refuse(problem, again)),
        Stored::Absent => {
            let problem = format!("{cell}: it is not finished\n  expected: a completed cell, which has final weights");
            return Err(refuse(problem, "finish it with `harness run` on the same grid"));
        }
    };
    match status.outcome {
        Outcome::Completed => {}
        Outcome::Diverged => {
            let problem = format!("{cell}: it diverged\n  expected: a completed cell, which has final weights");
            return Err(refuse(problem, "choose another cell; `harness watch` shows how those of a run ended"));
        }
        outcome @ (Outcome::TimedOut
        | Outcome::OutOfMemory
        | Outcome::Failed
        | Outcome::Skipped
        | Outcome::Interrupted) => {
            let name = outcome.name();
            let problem =
                format!("{cell}: its outcome is {name}\n  expected: a completed cell, which has final weights");
            return Err(refuse(problem, "finish it with `harness run` on the same grid"));
        }
    }
    let train = "copy it from where the cell was trained, or remove the cell's status.json and train it again with `harness run` on the \
                 same grid";
    let Some(checkpoint) = dir.checkpoints()?.into_iter().next() else {
        let path = dir.path.join("checkpoint");
        return Err(refuse(
            format!("{}: expected the cell's final checkpoint, which is not there", path.display()),
            train,
        ));
    };
    let position = match load_checkpoint(&checkpoint)? {
        Stored::Whole((_, position)) => position,
        Stored::Damaged(problem) => return Err(refuse(problem, train)),
        Stored::Absent => return Err(refuse(format!("{}: it is gone", checkpoint.display()), train)),
    };
    if (position.seen, position.updates) != (status.seen, status.updates) {
        let (path, at, end) = (checkpoint.display(), position.updates, status.updates);
        let problem = format!("{path}: it is of update {at}\n  expected: the last one, {end}");
        return Err(refuse(problem, train));
    }
    read_weights(&checkpoint, &position).map(|bytes| (bytes, status))
}

/// The bytes of a checkpoint's weights, read once and held against the digest that `position` has of them.
fn read_weights(checkpoint: &Path, position: &Position) -> Result<Vec<u8>> {
    let [name, ..] = Snapshot::FILES;
    let path = checkpoint.join(name);
    let bytes = fs::read(&path).map_err(Error::io(&path))?;
    if position.files.get(name).is_none_or(|digest| *digest != sha256_hex(&bytes)) {
        return Err(Error::Usage(format!("{}: it changed while it was read\n  next: try again", path.display())));
    }
    Ok(bytes)
}

/// What the file says of itself: only what is stored of the cell, or follows from its settings and data.
///
/// # Errors
/// `Usage` if settings, data and code do not give the cell's id any more; `Data` if data cannot be used.
pub fn metadata(cell: &PlannedCell, status: &Status, task: &dyn Task) -> Result<BTreeMap<String, String>> {
    let config = &cell.config;
    let id = config.id(task.fingerprint());
    if id != cell.id {
        let commit = status.provenance.git_commit.as_deref().unwrap_or("unknown");
        return Err(Error::Usage(format!(
            "cell {}: its settings, data and code give {id}\n  expected: the data and the version of the program that it was trained \
             with (commit {commit})\n  next: name the data with --data, or export with that version",
            cell.id
        )));
    }
    let io = task.io(config.train.streams.0, 1);
    let (input, layout) = (
        match io.input {
            InputKind::Tokens { vocabulary } => json!({"kind": "tokens", "vocabulary": vocabulary}),
            InputKind::Frames { width } => json!({"kind": "frames", "width": width}),
        },
        Layout::of(&config.model),
    );
    let info = config.model.info();
    let mut all = BTreeMap::from([
        ("format_version", FORMAT_VERSION.to_string()),
        ("cell", cell.id.clone()),
        ("experiment", config.experiment.clone()),
        ("scale", config.scale.clone()),
        ("seed", config.seed.to_string()),
        ("model_name", config.model_name.clone()),
        ("model_kind", info.kind.to_owned()),
        ("model", text(&config.model)?),
        ("task_name", config.task_name.clone()),
        ("task_kind", config.task.info().kind.to_owned()),
        ("task", text(&config.task)?),
        ("train", text(&config.train)?),
        ("code_versions", json!({"model": info.code_version, "loop": run::CODE_VERSION}).to_string()),
        ("program_version", status.provenance.version.clone()),
        ("data_digest", cell.data.clone()),
        ("updates", status.updates.to_string()),
        ("seen", status.seen.to_string()),
        ("input", input.to_string()),
        ("outputs", io.outputs.to_string()),
        ("layout", layout.text.to_owned()),
        ("documentation", layout.page.to_owned()),
    ]);
    let provenance = &status.provenance;
    let known = [
        ("data_identity", cell.data_identity.clone()),
        ("git_commit", provenance.git_commit.clone()),
        ("git_dirty", provenance.git_dirty.map(|dirty| dirty.to_string())),
        ("git_diff_sha256", provenance.git_diff_sha256.clone()),
    ];
    all.extend(known.into_iter().filter_map(|(key, value)| Some((key, value?))));
    all.extend(task.meaning()?.into_iter().map(|(key, value)| (key, value.to_string())));
    Ok(all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn text(settings: &impl Serialize) -> Result<String> {
    serde_json::to_string(settings).map_err(|e| Error::Report(e.to_string()))
}

/// How the tensors of a kind lie, and the page that has their names and shapes.
struct Layout {
    text: &'static str,
    page: &'static str,
}

impl Layout {
    fn of(model: &ModelConfig) -> Self {
        const BASELINES: &str = "row-major; matrices are [inputs, outputs]; taps oldest first";
        const BIM: &str = "row-major; matrices are [outputs, inputs]; taps newest first";
        let (text, page) = match model {
            ModelConfig::Bim(_) => (BIM, "bim/README.md"),
            ModelConfig::Transformer(_) => (BASELINES, "baselines/docs/transformer.md"),
            ModelConfig::Lstm(_) => (BASELINES, "baselines/docs/lstm.md"),
            ModelConfig::Rnn(_) => (BASELINES, "baselines/docs/rnn.md"),
            ModelConfig::Cnn(_) => (BASELINES, "baselines/docs/cnn.md"),
            ModelConfig::Mamba(_) => (BASELINES, "baselines/docs/mamba.md"),
            ModelConfig::Snn(_) => (BASELINES, "baselines/docs/snn.md"),
        };
        Self { text, page }
    }
}

/// A safetensors file without metadata, with metadata: tensors stay where they are behind the header.
///
/// # Errors
/// `Usage` if the header would be longer than readers take, or the file is not one of a checkpoint.
pub fn with_metadata(file: &[u8], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let foreign =
        || Error::Usage("the checkpoint's weights: expected a safetensors file as this program writes it".into());
    let (length, rest) = file.split_first_chunk::<LENGTH>().ok_or_else(foreign)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| foreign())?;
    let (header, tensors) = rest.split_at_checked(length).ok_or_else(foreign)?;
    let tail = header.strip_prefix(b"{\"").filter(|tail| !tail.starts_with(b"__metadata__")).ok_or_else(foreign)?;
    let mut new = format!("{{\"__metadata__\":{},\"", text(metadata)?).into_bytes();
    new.extend_from_slice(tail.trim_ascii_end());
    new.resize(new.len().next_multiple_of(LENGTH), b' ');
    if new.len() > LONGEST_HEADER {
        return Err(Error::Usage(format!(
            "the vocabulary makes a header of {} bytes: expected at most {LONGEST_HEADER}, the most that readers of safetensors take",
            new.len()
        )));
    }
    Ok([&(new.len() as u64).to_le_bytes()[..], &new, tensors].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_checkpoint_has_is_refused() {
        let refused = |bytes: &[u8]| with_metadata(bytes, &BTreeMap::new()).unwrap_err().to_string();
        let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        for bytes in [b"short".to_vec(), u64::MAX.to_le_bytes().to_vec(), file("[]"), file("{\"__metadata__\":{}}")] {
            assert!(refused(&bytes).contains("expected a safetensors file"), "{bytes:?}");
        }
    }
}
