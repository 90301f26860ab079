//! Wrong grids and missing data: exit code, place, what was expected, nearest key; and nothing is started.

mod common;

use common::{Folder, GRID, stderr};

fn fails(text: &str, extra: &[&str], code: i32) -> String {
    let folder = Folder::new();
    folder.grid(text);
    let output = folder.command("runs").args(extra).output().expect("starts");
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(!folder.path().join("runs").exists(), "nothing was started");
    stderr(&output)
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

#[test]
fn unknown_key_names_line_column_and_the_nearest_key() {
    let message = fails(&GRID.replace("lambda: 0.9", "lamda: 0.9"), &[], 2);
    has(&message, &["grid.yaml:17:5", "    lamda: 0.9", "^^^^^", "unknown key `lamda`", "did you mean `lambda`"]);
}

#[test]
fn lambda_out_of_range() {
    let message = fails(&GRID.replace("lambda: 0.9", "lambda: 1.5"), &[], 2);
    has(&message, &["grid.yaml:17:13", "    lambda: 1.5", "expected a number from 0 to 1, got 1.5"]);
}

#[test]
fn wrong_type() {
    let message = fails(&GRID.replace("width: 16\n    channels", "width: wide\n    channels"), &[], 2);
    has(&message, &["grid.yaml:12:12", "width: wide", "expected", "`wide`"]);
}

#[test]
fn a_frame_of_no_samples() {
    let message = fails(&GRID.replace("frame: 20", "frame: 0"), &[], 2);
    has(&message, &["grid.yaml:8:12", "expected a whole number from 1 to 1000, got 0"]);
}

#[test]
fn unknown_model() {
    let message = fails(&GRID.replace("kind: lstm", "kind: lstn"), &[], 2);
    has(&message, &["grid.yaml:22:12", "unknown kind `lstn`", "did you mean `lstm`"]);
}

#[test]
fn empty_sweep() {
    let message = fails(&format!("{GRID}sweep: {{bim.lambda: []}}\n"), &[], 2);
    has(&message, &["grid.yaml:24:", "bim.lambda"]);
}

#[test]
fn settings_that_do_not_fit_together() {
    let message = fails(&GRID.replace("heads: 2\n    layers: 2", "heads: 3\n    layers: 2"), &[], 2);
    has(&message, &["model bim", "channels", "multiple of heads = 3"]);
}

#[test]
fn a_value_from_the_command_line_is_located_there() {
    let message = fails(GRID, &["--set", "bim.lambda=7"], 2);
    has(&message, &["--set", "bim.lambda=7", "expected a number from 0 to 1, got 7"]);
}

#[test]
fn a_test_part_that_is_also_the_selection_part() {
    let both = GRID.replace("  - kind: language\n", "  - kind: language\n    valid_split: 'test[0.5:]'\n");
    let message = fails(&both, &[], 2);
    has(&message, &["grid.yaml:4:18", "'test[0.5:]'", "`valid_split` and `test_split` overlap", "selection: none"]);
    let message = fails(GRID, &["--set", "cardio.train_folds=[1, 10]"], 2);
    has(&message, &["cardio.train_folds", "`train_folds` and `test_folds` overlap: both have fold 10"]);
    let message = fails(&both.replace("'test[0.5:]'", "'valid[0.5]'"), &[], 2);
    has(&message, &["grid.yaml:4:18", "expected `train`, `valid` or `test`, or a part of one", "got `valid[0.5]`"]);
}

#[test]
fn missing_data_folder() {
    let text = GRID.replace("    generate: 60\n", "");
    let message = fails(&text, &["--data", "nowhere"], 4);
    has(&message, &["nowhere/ptb-xl", "not found", "expected", "next"]);
}

/// What is written because of a grid stays in the data directory, and what a grid reads is a grid.
#[test]
fn nothing_leads_out_of_the_project() {
    for root in ["../../evil", "/tmp/evil", "a/../../b"] {
        let grid = GRID.replace("    frame: 20\n", &format!("    frame: 20\n    root: {root}\n"));
        has(&fails(&grid, &[], 2), &["grid.yaml:9:11", "generated data stay under the data directory", root]);
    }
    let read = GRID.replace("    generate: 60\n", "    root: ../elsewhere\n");
    has(&fails(&read, &[], 2), &["`root`: expected an absolute path, or one under the data directory"]);
    for (file, words) in
        [("/etc/passwd", "expected a grid file, .yaml or .yml"), ("../../outside.yaml", "beside the grid")]
    {
        let outside = std::env::temp_dir().join("outside.yaml");
        std::fs::write(&outside, "secret: [1\n").expect("written");
        let file = file.replace("../../outside.yaml", &outside.display().to_string());
        let message = fails(&format!("extends: {file}\n{GRID}"), &[], 2);
        has(&message, &["grid.yaml:1:10", words]);
        assert!(!message.contains("secret") && !message.contains("root:x"), "{message}");
    }
}

#[test]
fn missing_grid_file() {
    let folder = Folder::new();
    let output = folder.run("runs");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    has(&stderr(&output), &["grid.yaml"]);
}

/// What a model that sees recordings as a whole needs is known before anything starts.
#[test]
fn models_of_whole_recordings_where_a_task_has_none_for_them() {
    let grid = |task: &str, model: &str| {
        format!("experiment: whole\ntask: {task}\nmodels: [{model}]\ntrain: {{streams: 2, epochs: 1}}\n")
    };
    let cardio = "{kind: cardio, generate: 40, frame: 20}";
    let seizure = "{kind: seizure, generate: {patients: 3, recordings: 2, seconds: 60}, train_cases: [chb01], \
                   valid_cases: [chb02], test_cases: [chb03], stretch_seconds: 20}";
    let speech = "{kind: speech, generate: 60}";
    let (resnet, encoder) =
        ("{kind: cnn, family: resnet, width: 8}", "{kind: transformer, causal: false, width: 8, layers: 1}");
    for (task, model, expected) in [
        (seizure, resnet, "family: sees a recording as a whole, which this task reads piece by piece: expected causal"),
        (seizure, encoder, "causal: sees a recording as a whole, which this task reads piece by piece: expected true"),
        (speech, resnet, "family: gives one answer per recording, of which this task wants one at every step"),
        (cardio, "{kind: cnn, family: resnet, width: 8, train: {segment: 20}}", "segment: expected 50 or more"),
    ] {
        has(&fails(&grid(task, model), &[], 2), &[expected]);
    }
    for (task, model) in [(cardio, resnet), (cardio, encoder), (speech, encoder)] {
        let folder = Folder::new();
        folder.grid(&grid(task, model));
        let output = folder.run("out");
        assert_eq!(output.status.code(), Some(0), "{task} {model}: {}", stderr(&output));
    }
}

#[test]
fn an_output_that_cannot_be_written_is_a_wrong_command_line() {
    let folder = Folder::new();
    folder.grid(GRID);
    std::fs::write(folder.path().join("a_file"), "").expect("a file");
    let output = folder.command("a_file").output().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    has(&stderr(&output), &["a_file", "choose another folder with --out"]);
}

#[test]
fn a_reader_that_goes_away_ends_nothing_but_the_printing() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["list", "metrics"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    // what is lost because nothing more fits is an error
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let cut = std::process::Command::new(env!("CARGO_BIN_EXE_harness")).args(["list", "metrics"]).stdout(full).output();
    let cut = cut.expect("starts");
    assert_eq!(cut.status.code(), Some(1));
    has(&stderr(&cut), &["standard output could not be written"]);
    // nor does one of the progress
    let folder = Folder::new();
    folder.grid(GRID);
    let mut command = folder.command("runs");
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    assert!(folder.path().join("runs/small/report/index.html").exists());
}
