//! Runs against runs: compared in words, held against a baseline, run again.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Folder, sealed, stderr, stdout, unsealed};
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
    command(folder, arguments).output().expect("starts")
}

/// The program as outside of GitHub, with one thread: memory is compared.
fn command(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = folder.harness(arguments);
    command.env_remove("GITHUB_ACTIONS").env_remove("GITHUB_STEP_SUMMARY").env("RAYON_NUM_THREADS", "1");
    command
}

/// A second's work: one network, three seeds.
const TINY: &str = "\
experiment: small
task: {kind: language, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
models: [{kind: lstm, width: 16, layers: 1}]
train: {seen: 2_000, curve_points: 0, streams: 4, segment: 25, eval_streams: 4}
seeds: [1, 2, 3]
";

/// A run of [`TINY`] in `runs/small`, and its baseline `base.parquet`.
fn tiny() -> Folder {
    ran(TINY)
}

/// As [`tiny`], of another grid.
fn ran(grid: &str) -> Folder {
    let folder = Folder::new();
    folder.grid(grid);
    let run = harness(&folder, &["run", "grid.yaml", "--device", "cpu", "--out", "runs"]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let made = harness(&folder, &["baseline", "runs/small", "--out", "base.parquet"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    folder
}

/// A copy of `base.parquet` with something changed.
fn changed_baseline(folder: &Folder, name: &str, change: impl Fn(&mut compare::Baseline)) -> String {
    let mut baseline = compare::Baseline::read(&folder.path().join("base.parquet")).expect("written");
    change(&mut baseline);
    compare::Baseline::write(&folder.path().join(name), &baseline.rows, &baseline.thresholds).expect("written");
    name.to_owned()
}

/// A copy of the run in `runs/small` whose cells say something else of themselves.
fn changed_run(folder: &Folder, name: &str, change: impl Fn(&mut serde_json::Value)) -> String {
    let (from, to) = (folder.path().join("runs/small"), folder.path().join(name));
    copy(&from, &to);
    for cell in std::fs::read_dir(to.join("cells")).expect("cells") {
        let path = cell.expect("a cell").path().join("status.json");
        let mut status: serde_json::Value = serde_json::from_slice(&unsealed(&path)).expect("JSON");
        change(&mut status);
        std::fs::write(&path, sealed(format!("{status:#}\n").as_bytes())).expect("written");
    }
    name.to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
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
    assert!(text.contains("+5.0 %") && text.lines().all(|line| line.chars().count() <= 100), "{text}");
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

/// What failed by chance alone passes in a second run and is told of; what fails twice fails.
#[test]
fn a_second_run_decides_about_what_may_be_chance() {
    let folder = tiny();
    let more = |status: &mut serde_json::Value| {
        let bytes = status["peak_bytes"].as_u64().expect("counted");
        status["peak_bytes"] = (3 * bytes + 1_000_000).into();
    };
    let run = changed_run(&folder, "more", more);
    let first = harness(&folder, &["gate", "--baseline", "base.parquet", "--no-confirm", &run]);
    assert_eq!(first.status.code(), Some(3), "{}", stdout(&first));
    assert!(stdout(&first).contains("| memory language lstm | noisy | peak "), "{}", stdout(&first));
    let cleared = harness(&folder, &["gate", "--baseline", "base.parquet", "--junit", "junit.xml", &run]);
    assert_eq!(cleared.status.code(), Some(0), "{}\n{}", stdout(&cleared), stderr(&cleared));
    assert!(stderr(&cleared).contains("its cells are run a second time"), "{}", stderr(&cleared));
    let text = stdout(&cleared);
    assert!(
        text.contains("## Gate: passed") && text.contains("when run again:\n\n- memory language lstm: peak "),
        "{text}"
    );
    let junit = std::fs::read_to_string(folder.path().join("junit.xml")).expect("written");
    assert!(junit.contains("failures=\"0\""), "{junit}");
    assert!(
        std::fs::read_dir(folder.path().join(&run))
            .expect("a run")
            .all(|entry| { !entry.expect("an entry").file_name().to_string_lossy().starts_with(".again") })
    );

    let less = changed_baseline(&folder, "less.parquet", |baseline| {
        baseline.rows.iter_mut().for_each(|row| row.peak_bytes = row.peak_bytes.map(|_| 1));
    });
    let confirmed = harness(&folder, &["gate", "--baseline", &less, "runs/small"]);
    assert_eq!(confirmed.status.code(), Some(3), "{}", stdout(&confirmed));
    assert!(stderr(&confirmed).contains("its cells are run a second time"), "{}", stderr(&confirmed));
    let text = stdout(&confirmed);
    assert!(text.contains("| memory language lstm | noisy | peak ") && !text.contains("when run again"), "{text}");
}

/// A difference that is no chance needs no second run, and does not hide what may be chance.
#[test]
fn an_exact_failure_stands_beside_a_noisy_one() {
    let folder = tiny();
    let both = changed_baseline(&folder, "both.parquet", |baseline| {
        for row in &mut baseline.rows {
            row.peak_bytes = row.peak_bytes.map(|_| 1);
            row.state_bytes = row.state_bytes.map(|bytes| bytes + 1);
        }
    });
    let failed = harness(&folder, &["gate", "--baseline", &both, "runs/small"]);
    assert_eq!(failed.status.code(), Some(3), "{}", stdout(&failed));
    assert!(!stderr(&failed).contains("a second time"), "{}", stderr(&failed));
    for words in ["| cell language lstm seed 1 | exact | state_bytes was ", "| memory language lstm | noisy | peak "] {
        assert!(stdout(&failed).contains(words), "{words} in {}", stdout(&failed));
    }
}

/// Unchanged code that was seen to vary a thousandfold is not told to be slower at a hundredfold.
#[test]
fn speed_that_varies_by_itself_is_kept_and_used() {
    let folder = ran(&TINY.replace("seen: 2_000", "seen: 200_000")); // long enough to be timed
    let slow = changed_run(&folder, "slow", |status| {
        status["train_s"] = (1000.0 * status["train_s"].as_f64().expect("timed")).into();
    });
    let base = changed_baseline(&folder, "tenfold.parquet", |baseline| {
        baseline.rows.iter_mut().for_each(|row| row.train_s *= 10.0);
    });
    let gate =
        |more: &[&str]| harness(&folder, &[&["gate", "--baseline", &base, "--no-confirm", &slow], more].concat());
    let failed = gate(&[]);
    assert_eq!(failed.status.code(), Some(3), "{}", stdout(&failed));
    for words in ["| speed lstm | noisy | 9", "| speed over all | noisy | 9"] {
        assert!(stdout(&failed).contains(words), "{words} in {}", stdout(&failed));
    }
    let measured = gate(&["--self-noise", "1"]);
    assert_eq!(measured.status.code(), Some(0), "{}\n{}", stdout(&measured), stderr(&measured));
    assert!(stdout(&measured).contains("speed of lstm: up to 99."), "{}", stdout(&measured));
    let kept = compare::Baseline::read(&folder.path().join(&base)).expect("written").thresholds.noise;
    assert!(kept.len() == 2 && kept.values().all(|share| (0.99..1.0).contains(share)), "{kept:?}");
    let passed = gate(&[]);
    assert_eq!(passed.status.code(), Some(0), "{}", stdout(&passed));
}

/// In a job of GitHub failures are shown beside the job and its page has the summary.
#[test]
fn github_is_told() {
    let folder = tiny();
    let less = changed_baseline(&folder, "less.parquet", |baseline| {
        baseline.rows.iter_mut().for_each(|row| row.peak_bytes = row.peak_bytes.map(|_| 1));
    });
    std::fs::write(folder.path().join("page.md"), "before\n").expect("written");
    let gate = |actions: bool| {
        let mut command = command(&folder, &["gate", "--baseline", &less, "--no-confirm", "runs/small"]);
        if actions {
            command.env("GITHUB_ACTIONS", "true");
        }
        command.env("GITHUB_STEP_SUMMARY", folder.path().join("page.md"));
        stdout(&command.output().expect("starts"))
    };
    let page = || std::fs::read_to_string(folder.path().join("page.md")).expect("a page");
    assert!(!gate(false).contains("::error") && page() == "before\n", "{}", page());
    let text = gate(true);
    assert!(text.lines().any(|line| line.starts_with("::error title=memory language lstm::peak ")), "{text}");
    assert!(page().starts_with("before\n## Gate: failed") && page().contains("| memory language lstm |"), "{}", page());
}

/// A baseline that is written anew keeps what it is not told to change, and says what it kept and what changed.
#[test]
fn a_baseline_written_anew_keeps_its_thresholds() {
    let folder = tiny();
    let show = |name: &str| stdout(&harness(&folder, &["baseline", name, "--show"]));
    assert!(show("base.parquet").contains("speed        0.05\nspeed-all    0.08\n"), "{}", show("base.parquet"));
    let set =
        harness(&folder, &["baseline", "runs/small", "--out", "base.parquet", "--speed", "0.3", "--quality", "0.07"]);
    assert!(
        stdout(&set)
            .contains("kept of the file that was there: --speed-all 0.08, --memory 0.01, --instructions 0.01\n"),
        "{}",
        stdout(&set)
    );
    changed_baseline(&folder, "base.parquet", |baseline| {
        baseline.thresholds.noise = [("lstm".to_owned(), 0.125)].into();
        let metric = |row: &&mut ResultRow| row.metric.as_deref() == Some("bits_per_byte");
        baseline.rows.iter_mut().filter(metric).for_each(|row| row.value = row.value.map(|value| value / 1.05));
    });
    let anew = harness(&folder, &["baseline", "runs/small", "--out", "base.parquet", "--memory", "0.5"]);
    assert_eq!(anew.status.code(), Some(0), "{}", stderr(&anew));
    let text = stdout(&anew);
    assert!(
        text.contains("--quality 0.07, --speed 0.3, --speed-all 0.08, --instructions 0.01, the noise of speed"),
        "{text}"
    );
    assert!(text.contains("1 regressed") && text.contains("language lstm: bits per byte"), "{text}");
    let kept = compare::Baseline::read(&folder.path().join("base.parquet")).expect("written").thresholds;
    assert_eq!((kept.quality, kept.speed, kept.memory, kept.noise["lstm"]), (0.07, 0.3, 0.5, 0.125));
    assert!(show("base.parquet").contains("noise        0.125 lstm"), "{}", show("base.parquet"));
    let first = harness(&folder, &["baseline", "runs/small", "--out", "other.parquet"]);
    assert!(!stdout(&first).contains("kept"), "{}", stdout(&first));
}

/// The script that CI calls: a cell that fails is named by the gate, whatever else stops.
#[test]
fn the_script_of_ci_goes_on_to_the_gate_when_a_cell_failed() {
    let folder = tiny();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join(".ci/gate")).expect("a parent");
    let ci = |grid: &str, out: &str| {
        let mut command = Command::new("bash");
        command.arg(&script).args([grid, "base.parquet", out]).current_dir(folder.path());
        command.env("HARNESS", env!("CARGO_BIN_EXE_harness")).env_remove("HARNESS_DATA");
        command.env("HARNESS_CACHE", std::env::temp_dir().join("harness-tests-cache"));
        command.env_remove("GITHUB_ACTIONS").output().expect("bash")
    };
    let file = |name: PathBuf| std::fs::read_to_string(folder.path().join(name)).expect("written");
    let passed = ci("grid.yaml", "good");
    assert_eq!(passed.status.code(), Some(0), "{}\n{}", stdout(&passed), stderr(&passed));
    assert!(
        file("good/gate.md".into()).contains("## Gate: passed")
            && file("good/gate.xml".into()).contains("failures=\"0\"")
    );

    let wild = TINY.replace("seen: 2_000", "seen: 2_000, learning_rate: 1e9, warmup: 0, clip: 1e9");
    std::fs::write(folder.path().join("wild.yaml"), wild).expect("written");
    let failed = ci("wild.yaml", "bad");
    assert_eq!(failed.status.code(), Some(3), "{}\n{}", stdout(&failed), stderr(&failed));
    assert!(stdout(&failed).contains("| cell language lstm seed 2 | exact | it is diverged: "), "{}", stdout(&failed));
    assert!(
        file("bad/gate.xml".into()).contains("name=\"cell language lstm seed 2\"><failure message=\"it is diverged")
    );
    assert!(file("bad/gate.md".into()).contains("## Gate: failed"));

    std::fs::write(folder.path().join("wrong.yaml"), "experiment: small\nmodel: {}\n").expect("written");
    let wrong = ci("wrong.yaml", "none");
    assert_eq!(wrong.status.code(), Some(2), "{}\n{}", stdout(&wrong), stderr(&wrong));
    assert!(!folder.path().join("none/gate.xml").exists());
}
