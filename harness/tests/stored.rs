//! Plans, statuses and positions that were changed by somebody who gave them the digest that they should have: read, or refused in words;
//! never a panic. `HARNESS_FLIPS=100000` is the long form; the fuzz target `stored` does the same with coverage.

mod common;

use std::path::PathBuf;

use common::{Folder, sealed, stderr, unsealed};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use suite::parts::{CellDir, Plan, load_checkpoint};

const GRID: &str = "\
experiment: small
task: {kind: cardio, generate: 60, frame: 20}
models: [{kind: lstm, width: 8, layers: 1}, {kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 1}]
train: {streams: 4, segment: 25, seen: 300_000, curve_points: 2, eval_streams: 4}
";

/// Values that a careless or a hostile hand would write.
const VALUES: [&str; 16] = [
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "NaN",
    "null",
    "\"\"",
    "[]",
    "{}",
    "true",
    "\"../../../../evil\"",
    "\"\\u001b[2J\"",
    "0.1",
    "\"a/b\"",
];

/// One to three changes: a value is another, a line is gone, doubled or moved, bytes are others.
fn changed(text: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let line = rng.random_range(0..lines.len());
        match rng.random_range(0..6) {
            0 | 1 => {
                let Some((key, old)) = lines[line].split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned())) else {
                    continue;
                };
                let comma = if old.trim_end().ends_with(',') { "," } else { "" };
                lines[line] = format!("{key}: {}{comma}\n", VALUES[rng.random_range(0..VALUES.len())]);
            }
            2 => drop(lines.remove(line)),
            3 => {
                let copy = lines[line].clone();
                lines.insert(rng.random_range(0..=lines.len()), copy);
            }
            4 => {
                let other = rng.random_range(0..lines.len());
                lines.swap(line, other);
            }
            _ => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
                continue;
            }
        }
        bytes = lines.concat().into_bytes();
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

/// A run that was stopped, whose cells have positions, and a finished one, whose cells have statuses.
fn files(folder: &Folder) -> (PathBuf, Vec<PathBuf>) {
    folder.grid(GRID);
    let every = [("HARNESS_CHECKPOINT_SECONDS", "0")];
    let stopped = folder.command("runs").envs(every).args(["--limit-seconds", "0.2"]).output().expect("starts");
    assert_eq!(stopped.status.code(), Some(1), "{}", stderr(&stopped));
    let cells = std::fs::read_dir(folder.path().join("runs/small/cells")).expect("cells");
    (folder.path().join("runs/small/plan.json"), cells.map(|cell| cell.expect("a cell").path()).collect())
}

#[test]
fn whatever_stands_in_a_stored_file_is_read_or_refused() {
    let rounds: u64 = std::env::var("HARNESS_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let folder = Folder::new();
    let (plan, cells) = files(&folder);
    let (plan, status) = (unsealed(&plan), unsealed(&cells[0].join("status.json")));
    let position = unsealed(&cells[0].join("checkpoint/position.json"));
    let scratch = folder.path().join("scratch");
    let id = cells[0].file_name().and_then(|name| name.to_str()).expect("a name");
    let (mut read, mut refused) = ([0_u64; 3], [0_u64; 3]);
    let mut count = |kind: usize, is_read: bool| if is_read { read[kind] += 1 } else { refused[kind] += 1 };
    for round in 0..rounds {
        let mut rng = ChaCha8Rng::seed_from_u64(round);
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).expect("a folder");
        match round % 3 {
            0 => {
                std::fs::write(scratch.join("plan.json"), sealed(&changed(&plan, &mut rng))).expect("written");
                let result = Plan::read(&scratch.join("plan.json"));
                count(0, result.is_ok());
                match result {
                    Ok(plan) => {
                        assert_eq!(plan.names().len(), plan.cells.len(), "round {round}");
                        if plan.write(&scratch.join("again"), false).is_ok() {
                            let again = Plan::read(&scratch.join("again/plan.json")).expect("it was just written");
                            assert_eq!(again.cells.len(), plan.cells.len(), "round {round}");
                        }
                    }
                    Err(e) => assert!(e.to_string().contains("next: "), "round {round}: {e}"),
                }
            }
            1 => {
                let cell = CellDir::open(&scratch, id).expect("a folder");
                std::fs::write(cell.path.join("status.json"), sealed(&changed(&status, &mut rng))).expect("written");
                count(1, cell.status().expect("no fault of the system").whole().is_some());
                // the files whose digests it has are not there
                assert!(cell.checked_status().is_ok(), "round {round}");
            }
            _ => {
                let cell = CellDir::open(&scratch, id).expect("a folder");
                let checkpoint = cell.path.join("checkpoint");
                std::fs::create_dir(&checkpoint).expect("a folder");
                for file in std::fs::read_dir(cells[0].join("checkpoint")).expect("a checkpoint") {
                    let path = file.expect("a file").path();
                    std::fs::copy(&path, checkpoint.join(path.file_name().expect("a name"))).expect("copied");
                }
                let path = checkpoint.join("position.json");
                std::fs::write(path, sealed(&changed(&position, &mut rng))).expect("written");
                count(2, load_checkpoint(&checkpoint).expect("no fault of the system").whole().is_some());
            }
        }
    }
    println!("read {read:?}, refused {refused:?}: plans, statuses, positions");
    assert!(
        read.iter().chain(&refused).all(|&n| n > rounds / 100),
        "{read:?} {refused:?}: the changes are all of one kind"
    );
    for up in ["evil", "../evil", "../../evil"] {
        assert!(!folder.path().join(up).exists(), "{up}");
    }
}
