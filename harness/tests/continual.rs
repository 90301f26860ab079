//! Streams that change, through the program: texts in turn, and electrodes that drift.

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use common::{Folder, stderr};
use rows::parquet::read_rows;
use rows::results::ResultRow;
use rows::{EvalRow, StepRow};

const GRID: &str = "\
experiment: small
tasks:
  - kind: language
    generate: {train_bytes: 6_000, valid_bytes: 2_000, test_bytes: 2_000}
    domains: [{name: a}, {name: b, seed: 2}, {name: c, seed: 2, cipher: 1}]
    train: {segment: 16}
  - kind: cardio
    generate: 60
    frame: 20
    drift: [{after: 1_000, gain: 3}, {after: 2_000, permute: 1}]
    train: {seen: 3_000, segment: 25}
models:
  - {kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 2, lambda: 0.9}
  - {name: bim_frozen, kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 2, lambda: 0.9, train: {frozen_after: 1}}
  - {kind: lstm, width: 16, layers: 1}
  - {name: lstm_frozen, kind: lstm, width: 16, layers: 1, train: {frozen_after: 1}}
train: {streams: 4, learning_rate: 1e-2, decay: constant, curve_points: 2, eval_streams: 4}
";

fn of<'a>(rows: &'a [ResultRow], task: &str, model: &str) -> BTreeMap<&'a str, &'a ResultRow> {
    let own = rows.iter().filter(|row| row.task == task && row.model == model);
    own.filter_map(|row| Some((row.metric.as_deref()?, row))).collect()
}

fn steps(folder: &Folder, row: &ResultRow) -> Vec<StepRow> {
    read_rows(&folder.path().join("out/small/cells").join(&row.cell).join("steps.parquet")).expect("steps")
}

#[test]
fn from_the_grid_to_the_report() {
    let folder = Folder::new();
    folder.grid(GRID);
    let output = folder.run("out");
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = folder.results("out");
    for model in ["bim", "lstm"] {
        let (goes_on, frozen) = (of(&rows, "language", model), of(&rows, "language", &format!("{model}_frozen")));
        for phase in 0..=4 {
            for domain in ["a", "b", "c"] {
                let name = format!("matrix_{phase}_{domain}");
                let value = |rows: &BTreeMap<&str, &ResultRow>| rows[name.as_str()].value.expect("a loss").to_bits();
                assert_eq!(goes_on[name.as_str()].split.as_deref(), Some("test"));
                assert_eq!(value(&goes_on) == value(&frozen), phase < 2, "{model} {name}: frozen from phase 2 on");
                let first = frozen[format!("matrix_1_{domain}").as_str()].value.map(f64::to_bits);
                assert_eq!(Some(value(&frozen)) == first, phase > 0, "{model} {name}: the same weights");
            }
        }
        let value = |rows: &BTreeMap<&str, &ResultRow>, name: &str| rows[name].value;
        // the weights of phase 1 are those of the end, and each domain's own phase taught it nothing
        assert_eq!(value(&frozen, "backward_transfer"), Some(0.0), "{model}");
        assert_eq!(value(&frozen, "forgetting"), Some(0.0), "{model}");
        let matrix = |phase: u32, domain: &str| value(&goes_on, &format!("matrix_{phase}_{domain}")).expect("a loss");
        let backward = (matrix(1, "a") - matrix(3, "a") + matrix(2, "b") - matrix(3, "b")) / 2.0;
        assert_eq!(value(&goes_on, "backward_transfer"), Some(backward));
        assert!(value(&goes_on, "forward_transfer").is_some_and(f64::is_finite));
        let recovery = goes_on["recovery_4"];
        assert_eq!((recovery.split.as_deref(), goes_on.contains_key("recovery_2")), (Some("train"), false));
        // each change of the signal is held against the phase before it
        let (goes_on, frozen) = (of(&rows, "cardio", model), of(&rows, "cardio", &format!("{model}_frozen")));
        assert_eq!(value(&goes_on, "change_before_2"), value(&frozen, "change_before_2"), "{model}");
        assert_ne!(value(&goes_on, "change_before_3"), value(&frozen, "change_before_3"), "{model}");
        assert!(goes_on.contains_key("recovery_3") && !goes_on.contains_key("forgetting"));
        assert!(goes_on["auc_roc_macro"].value.is_some());
    }
    // learned from until the phase ends, only predicted from there on
    for (task, phases) in [("language", 4), ("cardio", 3)] {
        let (goes_on, frozen) = (of(&rows, task, "lstm")["loss"], of(&rows, task, "lstm_frozen")["loss"]);
        let (a, b) = (steps(&folder, goes_on), steps(&folder, frozen));
        assert_eq!(a.len(), b.len());
        assert_eq!(goes_on.updates, a.len() as u64, "{task}");
        assert_eq!(frozen.updates, a.len() as u64 / phases, "{task}: phases are of one length");
        let (learned, rest) = b.split_at(frozen.updates as usize);
        assert!(a.iter().zip(learned).all(|(a, b)| (a.loss, a.update_norm) == (b.loss, b.update_norm)), "{task}");
        assert!(rest.iter().all(|step| step.loss.is_some() && (step.update_norm, step.learning_rate) == (0.0, 0.0)));
        assert!(rest.iter().all(|step| step.macs_learning == Some(0)), "{task}: nothing is spent on learning");
        let bim = steps(&folder, of(&rows, task, "bim_frozen")["loss"]);
        assert_eq!(bim.last().map(|step| step.macs_learning), Some(Some(0)), "{task}");
    }
    let cell = &of(&rows, "language", "bim")["loss"].cell;
    let evals: Vec<EvalRow> =
        read_rows(&folder.path().join("out/small/cells").join(cell).join("evals.parquet")).expect("evals");
    assert_eq!(evals.iter().filter(|row| row.metric == "window_loss" && row.split == "train").count(), 4 * 10);
    let report = std::fs::read_to_string(folder.path().join("out/small/report.md")).expect("a report");
    for title in
        ["Domains in turn", "Changes of the stream", "Loss on each domain after each phase", "Loss along the stream"]
    {
        assert!(report.contains(title), "{title}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_results() {
    let folder = Folder::new();
    folder.grid(GRID);
    for threads in ["1", "3"] {
        let output = folder.command(threads).env("RAYON_NUM_THREADS", threads).output().expect("starts");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(folder.results("1"), folder.results("3"));
}

#[test]
fn killed_in_any_phase_and_run_again_the_results_are_the_same_bits() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert!(folder.run("whole").status.success());
    let kept = |out: &str| folder.command(out).env("HARNESS_CHECKPOINT_SECONDS", "0").stderr(Stdio::null()).spawn();
    for pause_ms in [200, 350, 500, 700, 900, 1200, 1500] {
        let mut child = kept("killed").expect("starts");
        std::thread::sleep(Duration::from_millis(pause_ms));
        child.kill().expect("SIGKILL");
        child.wait().expect("ended");
    }
    assert!(kept("killed").expect("starts").wait().expect("ends").success());
    let (whole, killed) = (folder.results("whole"), folder.results("killed"));
    assert_eq!(whole, killed);
    let cells: std::collections::BTreeSet<&str> = whole.iter().map(|row| row.cell.as_str()).collect();
    let mut resumed = 0;
    for cell in cells {
        let dir = |out: &str| folder.path().join(out).join("small/cells").join(cell);
        let evals = |out: &str| read_rows::<EvalRow>(&dir(out).join("evals.parquet")).expect("evals");
        assert_eq!(evals("whole"), evals("killed"));
        let log = std::fs::read_to_string(dir("killed").join("log.txt")).expect("log");
        resumed += log.matches("continuing at update").count();
    }
    assert!(resumed > 0, "no kill fell into training: the test did not test");
}
