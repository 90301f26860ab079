//! Runs against runs: compared in words, held against a baseline, run again.

mod common;

use std::process::Output;

use common::{Folder, stderr, stdout};
use rows::parquet::Metadata;
use rows::results::{ResultRow, read_results, write_results};

const GRID: &str = "\
experiment: small
tasks:
  - kind: language
    generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}
    train: {seen: 12_000, curve_points: 0}
  - {kind: cardio, generate: 60, frame: 20, train: {seen: 4_000, curve_points: 0}}
models: [{kind: lstm, width: 16, layers: 1}, {kind: snn, width: 16, layers: 1}]
train: {streams: 4, segment: 25, eval_streams: 4}
seeds: [1, 2, 3]
";

fn harness(folder: &Folder, arguments: &[&str]) -> Output {
    folder.harness(arguments).env_remove("GITHUB_ACTIONS").output().expect("starts")
}

/// A copy of a run's results with something changed.
fn changed(folder: &Folder, name: &str, change: impl Fn(&mut Vec<ResultRow>)) -> String {
    let mut rows = read_results(&folder.path().join("runs/small/results.parquet")).expect("results");
    change(&mut rows);
    write_results(&folder.path().join(name), &rows, &Metadata::new()).expect("written");
    name.to_owned()
}

#[test]
fn a_run_is_compared_held_against_a_baseline_and_reproduced() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert_eq!(folder.run("runs").status.code(), Some(0));

    let same = harness(&folder, &["compare", "runs/small", "runs/small/results.parquet"]);
    assert_eq!(same.status.code(), Some(0), "{}", stderr(&same));
    let text = stdout(&same);
    assert!(text.contains("identical.") && !text.contains("regressed") && !text.contains("Only in"), "{text}");

    let worse = changed(&folder, "worse.parquet", |rows| {
        for row in rows.iter_mut().filter(|row| row.metric.as_deref() == Some("bits_per_byte") && row.model == "lstm") {
            row.value = row.value.map(|value| value * 1.05);
        }
    });
    let text = stdout(&harness(&folder, &["compare", "runs/small", &worse]));
    assert!(text.contains("1 regressed") && text.contains("language lstm: bits per byte"), "{text}");
    assert!(text.contains("+5.0 %") && text.lines().all(|line| line.chars().count() <= 120), "{text}");
    let json = stdout(&harness(&folder, &["compare", "runs/small", &worse, "--json"]));
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["differences"][0]["change"], "regressed");

    let made = harness(&folder, &["baseline", "runs/small", "--out", "base.parquet"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let arguments = ["gate", "--baseline", "base.parquet", "--junit", "junit.xml", "--summary", "summary.md"];
    let gate = |candidate: &str| harness(&folder, &[&arguments[..], &[candidate]].concat());
    let passed = gate("runs/small");
    assert_eq!(passed.status.code(), Some(0), "{}\n{}", stdout(&passed), stderr(&passed));
    assert!(stdout(&passed).contains("## Gate: passed"), "{}", stdout(&passed));
    let failed = gate(&worse);
    assert_eq!(failed.status.code(), Some(3), "{}", stdout(&failed));
    for words in ["quality language lstm bits_per_byte", "cell language lstm seed 1", "bits_per_byte of test was"] {
        assert!(stdout(&failed).contains(words), "{words} in {}", stdout(&failed));
    }
    let file = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    assert!(file("junit.xml").contains("<failure message=") && file("summary.md").contains("## Gate: failed"));
    let missing = changed(&folder, "missing.parquet", |rows| rows.retain(|row| row.seed < 3 || row.model != "snn"));
    assert!(
        stdout(&gate(&missing)).contains("cell cardio snn seed 3 | exact | it is missing"),
        "{}",
        stdout(&gate(&missing))
    );
    let diverged = changed(&folder, "diverged.parquet", |rows| {
        rows.iter_mut()
            .filter(|row| row.seed == 2 && row.task == "cardio")
            .for_each(|row| row.outcome = "diverged".into());
    });
    assert!(stdout(&gate(&diverged)).contains("it is diverged"), "{}", stdout(&gate(&diverged)));
    let bad = harness(&folder, &["baseline", "diverged.parquet", "--out", "no.parquet"]);
    assert_eq!(bad.status.code(), Some(2), "{}", stderr(&bad));
    assert!(!folder.path().join("no.parquet").exists());

    let cell = &read_results(&folder.path().join("runs/small/results.parquet")).expect("results")[0].cell;
    let reproduced = harness(&folder, &["reproduce", &format!("runs/small/cells/{cell}"), "--device", "cpu"]);
    assert_eq!(reproduced.status.code(), Some(0), "{}\n{}", stdout(&reproduced), stderr(&reproduced));
    assert!(stdout(&reproduced).contains("all bit-identical"), "{}", stdout(&reproduced));
    let nothing = harness(&folder, &["reproduce", "runs/small/cells/0123456789abcdef"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", stderr(&nothing));
}

/// Counted twice by valgrind, the same program needs the same instructions; a baseline that had half of them finds twice as many.
#[test]
fn instructions_are_counted_and_held_against_the_baseline() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: no valgrind here");
        return;
    }
    let folder = Folder::new();
    folder.grid(
        "experiment: small\n\
         task: {kind: language, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}\n\
         models: [{kind: lstm, width: 16, layers: 1}]\n\
         train: {seen: 2_000, curve_points: 0, streams: 4, segment: 25, eval_streams: 4}\nseeds: [1]\n",
    );
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let made = harness(&folder, &["baseline", "runs/small", "--out", "base.parquet", "--count-instructions"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let gate =
        |baseline: &str| harness(&folder, &["gate", "--baseline", baseline, "--junit", "junit.xml", "runs/small"]);
    let passed = gate("base.parquet");
    assert_eq!(passed.status.code(), Some(0), "{}\n{}", stdout(&passed), stderr(&passed));
    let junit = std::fs::read_to_string(folder.path().join("junit.xml")).expect("written");
    assert!(junit.contains("classname=\"counted\" name=\"instructions language lstm\"/>"), "{junit}");
    let mut baseline = compare::Baseline::read(&folder.path().join("base.parquet")).expect("written");
    let counted = baseline.thresholds.counted.as_mut().expect("counted");
    assert!(counted.of["language lstm"] > 100_000, "{counted:?}");
    counted.of.values_mut().for_each(|count| *count /= 2);
    compare::Baseline::write(&folder.path().join("half.parquet"), &baseline.rows, &baseline.thresholds)
        .expect("written");
    let failed = gate("half.parquet");
    assert_eq!(failed.status.code(), Some(3), "{}", stdout(&failed));
    assert!(stdout(&failed).contains("instructions language lstm | counted |"), "{}", stdout(&failed));
}
