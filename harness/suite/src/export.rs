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
    let segment = config.train.segment.map_or(config.model.default_segment(), |steps| steps.0);
    let io = task.io(config.train.streams.0, segment);
    let input = match io.input {
        InputKind::Tokens { vocabulary } => json!({"kind": "tokens", "vocabulary": vocabulary}),
        InputKind::Frames { width } => json!({"kind": "frames", "width": width}),
    };
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
        ("segment", io.segment.to_string()),
        ("input", input.to_string()),
        ("outputs", io.outputs.to_string()),
        ("layout", info.layout.to_owned()),
        ("documentation", info.page.to_owned()),
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
    use std::collections::BTreeSet;

    use candle_core::Device;
    use learner::Io;

    use super::*;
    use crate::models::ModelConfig;
    use crate::train::TrainConfig;

    /// Small models that have every tensor between them, whatever the input.
    const MODELS: [&str; 15] = [
        "{kind: bim, width: 8, channels: 8, heads: 2, state: 2, layers: 2}",
        "{kind: bim, width: 8, channels: 8, heads: 2, state: 2, layers: 1, gate: false, conv: 1, delays: 3, currents: true}",
        "{kind: bim, width: 8, channels: 8, heads: 2, state: 2, layers: 1, pre: {threshold: 0.5, step: learned}, \
         post: {threshold: 0.5, step: learned}, readout: {levels: integer, burst: 8, threshold: 0.5, step: learned}}",
        "{kind: bim, width: 8, channels: 8, heads: 2, state: 2, layers: 1, homeostasis: {pre: 0.3, post: 0.3}}",
        "{kind: transformer, width: 8, heads: 2, layers: 2}",
        "{kind: mamba, width: 8, layers: 2}",
        "{kind: lstm, width: 8, layers: 2}",
        "{kind: rnn, width: 8, layers: 2}",
        "{kind: rnn, width: 8, layers: 1, cell: vanilla}",
        "{kind: cnn, width: 8, layers: 2}",
        "{kind: cnn, family: resnet, width: 8, stages: [1, 2]}",
        "{kind: cnn, family: resnet, width: 8, stages: [1, 1], expansion: 2}",
        "{kind: snn, width: 8, layers: 2}",
        "{kind: snn, width: 8, layers: 1, recurrent: true}",
        "{kind: snn, width: 8, layers: 1, adaptive: {}}",
    ];

    /// Tensors of weights that a page lists, each with the numbers of dimensions that its shapes have.
    fn listed(page: &str) -> Vec<(String, BTreeSet<usize>)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
        let text = fs::read_to_string(&path).unwrap();
        let section = text.split("## Checkpoint tensors\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let (mut is_table, mut found) = (false, Vec::new());
        for line in section.lines() {
            let cells: Vec<&str> = line.split('|').collect();
            let [_, names, shapes, _, ..] = cells[..] else {
                is_table = false;
                continue;
            };
            is_table |= ["tensor", "weight"].contains(&names.trim());
            let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<String>>();
            let shapes = code(shapes).into_iter().filter(|shape| shape.starts_with('['));
            let ranks: Vec<usize> = shapes.map(|shape| shape.split(',').count()).collect();
            let names = if is_table { code(names) } else { Vec::new() };
            for (i, name) in names.iter().enumerate() {
                let own = if names.len() == ranks.len() { &ranks[i..=i] } else { &ranks[..] };
                assert!(!own.is_empty(), "{page}: {name} has no shape");
                found.push((name.clone(), own.iter().copied().collect()));
            }
        }
        found
    }

    /// A name with numbers in place of the letters that stand for them.
    fn is_named(name: &str, pattern: &str) -> bool {
        let (name, pattern): (Vec<&str>, Vec<&str>) = (name.split('.').collect(), pattern.split('.').collect());
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_letter = |part: &str| matches!(part.as_bytes(), [b'a'..=b'z']);
        let fits = |(part, own): (&&str, &&str)| part == own || (is_letter(own) && is_number(part));
        name.len() == pattern.len() && name.iter().zip(&pattern).all(fits)
    }

    #[test]
    fn the_pages_list_every_tensor_of_every_model_and_no_other() {
        let ends = listed("baselines/README.md");
        let (mut kinds, mut unseen) = (BTreeSet::new(), BTreeSet::new());
        let mut seen = BTreeSet::new();
        for text in MODELS {
            let model: ModelConfig = serde_yaml::from_str(text).unwrap();
            kinds.insert(model.info().kind);
            let page = model.info().page;
            let own = listed(page);
            let all = if page.starts_with("bim") { own } else { [own, ends.clone()].concat() };
            unseen.extend(all.iter().map(|(pattern, _)| (page, pattern.clone())));
            for input in [InputKind::Tokens { vocabulary: 11 }, InputKind::Frames { width: 5 }] {
                let io = Io { input, outputs: 3, streams: 2, segment: 16 };
                // some see frames alone
                let Ok(learner) = model.build(io, &TrainConfig::default(), 4, 1, &Device::Cpu) else {
                    assert!(matches!(input, InputKind::Tokens { .. }), "{text}");
                    continue;
                };
                for (name, tensor) in learner.save().unwrap().weights {
                    let Some((pattern, ranks)) = all.iter().find(|(pattern, _)| is_named(&name, pattern)) else {
                        panic!("{page} does not list {name} of {text}");
                    };
                    assert!(ranks.contains(&tensor.rank()), "{page}: {name} of {text} is {:?}", tensor.dims());
                    seen.insert((page, pattern.clone()));
                }
            }
        }
        assert_eq!(kinds.len(), ModelConfig::ALL.len(), "{kinds:?}");
        let unseen: Vec<_> = unseen.difference(&seen).collect();
        assert_eq!(unseen, Vec::<&(&str, String)>::new(), "no model has them");
    }

    #[test]
    fn a_file_that_no_checkpoint_has_is_refused() {
        let refused = |bytes: &[u8]| with_metadata(bytes, &BTreeMap::new()).unwrap_err().to_string();
        let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        for bytes in [b"short".to_vec(), u64::MAX.to_le_bytes().to_vec(), file("[]"), file("{\"__metadata__\":{}}")] {
            assert!(refused(&bytes).contains("expected a safetensors file"), "{bytes:?}");
        }
    }
}
