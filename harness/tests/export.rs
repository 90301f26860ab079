//! Weights for other programs: read back as such a program reads them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Folder, stderr, stdout};
use safetensors::SafeTensors;
use serde_json::Value;

const GRID: &str = "\
experiment: small
tasks:
  - {kind: language, name: bytes, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
  - {kind: language, name: words, vocabulary: word, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
  - {kind: language, name: pieces, vocabulary: bpe, vocabulary_size: 300, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
  - {kind: cardio, generate: 60, frame: 20}
  - {kind: recall, delay: 9, recordings: 8, tests: 8}
  - {kind: speech, name: global, generate: 24, normalise: global}
  - {kind: speech, name: utterance, generate: 24}
  - kind: seizure
    generate: {patients: 5, recordings: 4, seconds: 60}
    train_cases: [chb01, chb02, chb03]
    valid_cases: [chb04]
    test_cases: [chb05]
    stretch_seconds: 10
models: [{kind: rnn, width: 8, layers: 1}]
train: {seen: 200, streams: 2, segment: 16, curve_points: 0, eval_streams: 4, eval_limit: 200}
";

fn export(folder: &Folder, cell: &str, more: &[&str]) -> Output {
    folder.harness(&[&["export", cell], more].concat()).output().expect("starts")
}

/// Folders of the cells of a run, as the program is given them.
fn cells(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path().join("runs/small/cells")).expect("cells");
    let name = |entry: fs::DirEntry| format!("runs/small/cells/{}", entry.file_name().display());
    entries.map(|entry| name(entry.expect("an entry"))).collect()
}

fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors file");
    header.metadata().clone().expect("metadata").into_iter().collect()
}

/// Keys that the page lists.
fn documented() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../baselines/README.md");
    let text = fs::read_to_string(page).expect("the page");
    let section = text.split("## Exported weights\n").nth(1).expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.flat_map(|row| row.split('|').next().into_iter().flat_map(|keys| keys.split('`').step_by(2)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn weights_come_back_bit_for_bit_with_all_that_their_use_takes() {
    let folder = Folder::new();
    folder.grid(GRID);
    let output = folder.run("runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (mut keys, mut of) = (BTreeSet::new(), BTreeMap::new());
    for cell in cells(&folder) {
        let done = export(&folder, &cell, &[]);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let id = Path::new(&cell).file_name().and_then(|id| id.to_str()).expect("an id");
        let bytes = fs::read(folder.path().join(format!("{id}.safetensors"))).expect("written");
        let again = export(&folder, &cell, &["--out", "again.safetensors", "--replace"]);
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
        assert!(
            bytes == fs::read(folder.path().join("again.safetensors")).expect("written"),
            "the same cell, the same file"
        );

        let stored = fs::read(folder.path().join(&cell).join("checkpoint/weights.safetensors")).expect("a checkpoint");
        let (new, old) =
            (SafeTensors::deserialize(&bytes).expect("tensors"), SafeTensors::deserialize(&stored).expect("tensors"));
        assert!(new.len() >= 5, "embedding or input, layer, output");
        assert_eq!(new.len(), old.len());
        for (name, tensor) in old.tensors() {
            let same = new.tensor(&name).expect("every tensor");
            assert_eq!(
                (same.dtype(), same.shape(), same.data()),
                (tensor.dtype(), tensor.shape(), tensor.data()),
                "{name}"
            );
        }
        let said = metadata(&bytes);
        assert_eq!((said["cell"].as_str(), said["format_version"].as_str(), said["seed"].as_str()), (id, "1", "1"));
        let status: Value =
            serde_json::from_slice(&fs::read(folder.path().join(&cell).join("status.json")).expect("a status"))
                .expect("JSON");
        assert_eq!(
            (said["updates"].clone(), said["seen"].clone()),
            (status["updates"].to_string(), status["seen"].to_string())
        );
        assert_eq!(said["data_digest"], status["provenance"]["data"].as_str().expect("a digest"));
        assert_eq!(said.get("git_commit").map(String::as_str), status["provenance"]["git_commit"].as_str());
        let model: Value = serde_json::from_str(&said["model"]).expect("JSON");
        assert_eq!((model["kind"].as_str(), model["width"].as_u64()), (Some("rnn"), Some(8)));
        keys.extend(said.keys().cloned());
        of.insert(said["task_name"].clone(), said);
    }
    let optional = BTreeSet::from(["git_commit", "git_dirty", "git_diff_sha256"].map(str::to_owned));
    assert_eq!(documented().difference(&optional).collect::<Vec<_>>(), keys.difference(&optional).collect::<Vec<_>>());

    let json = |task: &str, key: &str| -> Value { serde_json::from_str(&of[task][key]).expect("JSON") };
    let length = |value: &Value| value.as_array().map(Vec::len);
    assert_eq!(json("bytes", "vocabulary"), serde_json::json!({"kind": "byte"}));
    for (task, entries) in [("words", "types"), ("pieces", "tokens")] {
        let said = length(&json(task, "vocabulary")[entries]).map(|n| n.to_string());
        assert_eq!(said.as_ref(), Some(&of[task]["outputs"]), "an entry for each output");
    }
    assert_eq!(
        json("global", "vocabulary")["characters"].as_str().map(|all| (all.len() + 1).to_string()),
        Some(of["global"]["outputs"].clone())
    );
    for (task, channels) in [("global", 80), ("cardio", 12), ("seizure", 18)] {
        let normalisation = json(task, "normalisation");
        assert_eq!(
            (length(&normalisation["mean"]), length(&normalisation["scale"])),
            (Some(channels), Some(channels)),
            "{task}"
        );
    }
    assert_eq!(json("utterance", "normalisation").get("mean"), None, "nothing of the training part is used");
    for task in ["cardio", "seizure"] {
        assert_eq!(length(&json(task, "classes")).map(|n| n.to_string()), Some(of[task]["outputs"].clone()), "{task}");
    }

    what_cannot_be_exported(&folder);
}

/// Of a run that is there: each is said, with a way out, and nothing is written.
fn what_cannot_be_exported(folder: &Folder) {
    let cell = cells(folder).remove(0);
    let refused = |cell: &str, more: &[&str], code: i32, words: &[&str]| {
        let output = export(folder, cell, &[&["--out", "new.safetensors"], more].concat());
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(code), ""), "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && text.contains("next: "), "{text}");
        assert!(!folder.path().join("new.safetensors").exists());
    };
    refused("runs/small/cells/0123456789abcdef", &[], 2, &["expected one of the 8 cells of runs/small/plan.json"]);
    let at = |name: &str| -> PathBuf { folder.path().join(&cell).join(name) };
    let changed = |name: &str, words: &[&str]| {
        let whole = fs::read(at(name)).expect("there");
        let mut bytes = whole.clone();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        fs::write(at(name), bytes).expect("written");
        refused(&cell, &[], 2, words);
        fs::remove_file(at(name)).expect("removed");
        refused(&cell, &[], 2, &[]);
        fs::write(at(name), whole).expect("written");
    };
    changed("checkpoint/weights.safetensors", &["weights.safetensors", "its digest is another"]);
    changed("checkpoint/position.json", &["position.json"]);
    changed("status.json", &["status.json"]);
    fs::rename(at("checkpoint"), at("away")).expect("renamed");
    refused(&cell, &[], 2, &["expected the cell's final checkpoint, which is not there"]);
    fs::rename(at("away"), at("checkpoint")).expect("renamed");
    fs::rename(at("status.json"), at("away")).expect("renamed");
    refused(&cell, &[], 2, &["it is not finished"]);
    fs::rename(at("away"), at("status.json")).expect("renamed");
    let no_room = export(folder, &cell, &["--out", "grid.yaml/weights"]);
    assert_eq!(no_room.status.code(), Some(2), "{}", stderr(&no_room));
    assert!(
        stderr(&no_room).contains("grid.yaml/weights") && stderr(&no_room).contains("--out"),
        "{}",
        stderr(&no_room)
    );
    let other = export(folder, &cell, &["--out", "new.safetensors", "--data", "elsewhere"]);
    assert_eq!(other.status.code(), Some(0), "generated data are made again: {}", stderr(&other));
    fs::remove_file(folder.path().join("new.safetensors")).expect("removed");
    assert_eq!(export(folder, &cell, &["--out", "new.safetensors"]).status.code(), Some(0), "it is as it was");
}
