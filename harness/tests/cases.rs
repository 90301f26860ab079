//! Kinds of faults that people report of tools like this one, three inputs of each where no other test has them.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Folder, stderr, stdout};

/// What happens to a file or folder.
type Damage = fn(&Path);

const TRAIN: &str = "train: {streams: 2, segment: 25, seen: 1_000, curve_points: 1, eval_streams: 2}\n";

fn grid(task: &str) -> String {
    format!("experiment: small\ntask: {task}\nmodels: [{{kind: lstm, width: 8, layers: 1}}]\n{TRAIN}")
}

const ECG: &str = "{kind: cardio, frame: 20, WHENCE}";
const EEG: &str =
    "{kind: seizure, train_cases: [chb01], valid_cases: [chb02], test_cases: [chb03], stretch_seconds: 20, WHENCE}";

fn below(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(below(&path, wanted));
        } else if wanted(&path.display().to_string()) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Generates a task's data and moves them to `given`, where they are as good as somebody's own.
fn given(folder: &Folder, task: &str, generate: &str) -> PathBuf {
    folder.grid(&grid(&task.replace("WHENCE", &format!("generate: {generate}"))));
    let output = folder.run("first");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table =
        below(&folder.path().join("data"), &|path| path.ends_with("RECORDS") || path.ends_with("ptbxl_database.csv"));
    let given = folder.path().join("given");
    std::fs::rename(table[0].parent().expect("a folder"), &given).expect("moved");
    given
}

/// Overwrites every label of a recording's signals.
fn rename_channels(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a recording");
    let count: usize = std::str::from_utf8(&bytes[252..256]).expect("text").trim().parse().expect("a number");
    for i in 0..count {
        bytes[256 + 16 * i..][..16].copy_from_slice(format!("{:16}", format!("X{i}")).as_bytes());
    }
    std::fs::write(path, bytes).expect("written");
}

/// What is left out stands in the terminal, in the rows and in the report; above the share that a grid allows it refuses the cell.
#[test]
fn what_is_left_out_is_told_wherever_a_person_looks() {
    let lose_signals: Damage = |root| {
        let signals = below(root, &|path| path.ends_with("_lr.dat"));
        signals.iter().step_by(9).for_each(|path| std::fs::remove_file(path).expect("removed"));
    };
    let lose_recording: Damage =
        |root| std::fs::remove_file(&below(root, &|path| path.ends_with("chb01_02.edf"))[0]).expect("removed");
    let other_montage: Damage = |root| rename_channels(&below(root, &|path| path.ends_with("chb01_02.edf"))[0]);
    let eeg = "{patients: 3, recordings: 2, seconds: 60}";
    for (task, generate, damage, told) in [
        (ECG, "60", lose_signals, " missing: "),
        (EEG, eeg, lose_recording, "1 missing: its file is not there"),
        (EEG, eeg, other_montage, "1 skipped: no signals that give "),
    ] {
        let folder = Folder::new();
        let root = given(&folder, task, generate);
        damage(&root);
        let text = grid(&task.replace("WHENCE", &format!("root: {}", root.display())));
        folder.grid(&text);
        let refused = folder.run("refused");
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let reason = folder.results("refused")[0].reason.clone().expect("a reason");
        assert!(reason.contains("train.left_out") && reason.contains(told), "{reason}");
        folder.grid(&text.replace("streams: 2, segment", "left_out: 0.5, streams: 2, segment"));
        let output = folder.run("told");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let page = std::fs::read_to_string(folder.path().join("told/small/report.md")).expect("a report");
        let notes = folder.results("told")[0].notes.clone().unwrap_or_default();
        for (place, text) in [("terminal", &stderr(&output)), ("rows", &notes), ("report", &page)] {
            assert!(text.contains(told), "{told:?} is not in the {place}:\n{text}");
        }
    }
}

fn small(folder: &Folder) {
    folder.grid(&grid(&ECG.replace("WHENCE", "generate: 40")));
}

fn harness(folder: &Folder, arguments: &[&str]) -> Output {
    folder.harness(arguments).output().expect("starts")
}

/// Results that were deleted, emptied or cut are never taken for results: the report says so, and the next run makes them again.
#[test]
fn results_that_are_damaged_are_said_to_be_and_made_again() {
    let folder = Folder::new();
    small(&folder);
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let whole = folder.results("runs");
    let cell = std::fs::read_dir(folder.path().join("runs/small/cells")).expect("cells").next().expect("a cell");
    let cell = cell.expect("a cell").path();
    let damages: [(&str, Damage); 3] = [
        ("evals.parquet", |path| std::fs::remove_file(path).expect("removed")),
        ("steps.parquet", |path| std::fs::write(path, "").expect("written")),
        ("predictions.parquet", |path| {
            let bytes = std::fs::read(path).expect("a file");
            std::fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
        }),
    ];
    for (name, damage) in damages {
        damage(&cell.join(name));
        let reported = harness(&folder, &["report", "runs/small"]);
        assert_eq!(reported.status.code(), Some(0), "{name}: {}", stderr(&reported));
        let page =
            stdout(&reported) + &std::fs::read_to_string(folder.path().join("runs/small/report.md")).expect("a report");
        assert!(page.contains(name) && page.contains("it will be run again"), "{name}:\n{page}");
        let output = folder.run("runs");
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(name), "{name}: {}", stderr(&output));
        let mended: Vec<_> = folder.results("runs").into_iter().map(|row| (row.metric, row.value)).collect();
        let before: Vec<_> = whole.iter().map(|row| (row.metric.clone(), row.value)).collect();
        assert_eq!(mended, before, "{name}");
    }
}

/// An output that cannot be written is a wrong command line, whatever is in its place and whichever command would write: exit 2, and
/// nothing is started.
#[test]
fn outputs_that_cannot_be_written() {
    let folder = Folder::new();
    small(&folder);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("file"), "").expect("a file");
    std::fs::create_dir(path("taken")).expect("a folder");
    std::fs::write(path("taken/small"), "").expect("a file in the place of the run directory");
    std::os::unix::fs::symlink("gone/far", path("dangling")).expect("a link");
    for out in ["file", "file/below", "taken", "dangling", "/proc/here"] {
        for arguments in [&["run", "grid.yaml", "--device", "cpu"][..], &["plan", "grid.yaml", "--write"]] {
            let output = harness(&folder, &[arguments, &["--out", out]].concat());
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {out}: {}", stderr(&output));
            assert!(stderr(&output).contains("--out"), "{arguments:?} {out}: {}", stderr(&output));
        }
    }
    assert!(!path("gone").exists(), "nothing is made where a link leads");
}

/// Whether a text has what Rust prints of a value for programmers.
fn has_debug_text(text: &str) -> bool {
    ["Some(", "None,", "Ok(", "Err(", "Error {", " { ", "Kind::", "\\\""].iter().any(|mark| text.contains(mark))
}

/// A message is for people: of a recording whose channels differ, whose unit is another, or whose ranges make no scale.
#[test]
fn messages_of_odd_recordings_are_for_people() {
    /// Writes a field of the second signal of a recording's header; fields before it take so many bytes of each signal.
    fn field(path: &Path, before: usize, size: usize, value: &str) {
        let mut bytes = std::fs::read(path).expect("a recording");
        let count: usize = std::str::from_utf8(&bytes[252..256]).expect("text").trim().parse().expect("a number");
        let mut text = value.as_bytes().to_vec();
        text.resize(size, b' ');
        bytes[256 + count * before + size..][..size].copy_from_slice(&text);
        std::fs::write(path, bytes).expect("written");
    }
    let inputs: [(Damage, &str); 4] = [
        (|path| field(path, 96, 8, "nV"), "`nV`"),
        (|path| field(path, 104, 8, "800"), "no scale"), // the lowest value is the highest
        (|path| field(path, 120, 8, "lots"), "lots"),
        (|path| field(path, 216, 8, "128"), "128"), // samples of a record
    ];
    for (damage, told) in inputs {
        let folder = Folder::new();
        let root = given(&folder, EEG, "{patients: 3, recordings: 2, seconds: 60}");
        damage(&below(&root, &|path| path.ends_with("chb02_01.edf"))[0]);
        folder.grid(&grid(&EEG.replace("WHENCE", &format!("root: {}", root.display()))));
        let output = folder.run("out");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains(told) && text.contains("chb02_01.edf") && text.contains("expected"), "{told}: {text}");
        assert!(!has_debug_text(&text), "{text}");
    }
    assert!(
        has_debug_text("Some(128.0) Hz") && has_debug_text("Scale { unit: 1 }") && !has_debug_text("`a` at 128 Hz")
    );
}
