//! The program as its users run it: whole grids, killed, repeated, with other thread counts.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{Folder, GRID, stderr, stdout};
use rows::parquet::read_rows;
use rows::results::read_results;
use rows::{EvalRow, LayerRow, PredictionRow, SpikeRow, StepRow};

#[test]
fn a_grid_leaves_complete_files_and_a_table_without_gaps() {
    let folder = Folder::new();
    folder.grid(GRID);
    let output = folder.run("runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    for model in ["bim", "transformer", "lstm"] {
        assert!(table.contains(model), "{table}");
    }
    let rows = folder.results("runs");
    assert!(rows.iter().all(|r| r.outcome == "completed" && r.metric.is_some()), "{rows:?}");
    // every byte of the generated test file is scored, by every model
    let scored: Vec<f64> =
        rows.iter().filter(|r| r.metric.as_deref() == Some("scored_bytes")).filter_map(|r| r.value).collect();
    let cells: std::collections::BTreeSet<&String> = rows.iter().map(|r| &r.cell).collect();
    assert_eq!((scored.len(), cells.len()), (3, 6));
    let mut file_bytes = Vec::new();
    for entry in walk(&folder.path().join("data")) {
        if entry.ends_with("wiki.test.tokens") {
            file_bytes.push(std::fs::metadata(&entry).expect("generated").len() as f64);
        }
    }
    assert_eq!(file_bytes.len(), 1);
    assert!(scored.iter().all(|s| (*s - file_bytes[0]).abs() < 0.5), "{scored:?} {file_bytes:?}");
    for cell in cells {
        let dir = folder.path().join("runs/small/cells").join(cell);
        let steps = read_rows::<StepRow>(&dir.join("steps.parquet")).expect("steps");
        assert!(
            !steps.is_empty() && steps.iter().enumerate().all(|(i, s)| s.step == i as u64 + 1),
            "steps are numbered"
        );
        // a segment with a loss makes its update, one without makes none
        let losses = steps.iter().scan(0, |n, s| {
            *n += u64::from(s.loss.is_some());
            Some(*n)
        });
        assert!(steps.iter().zip(losses).all(|(s, n)| s.updates == n), "updates are the optimiser's");
        let updates = rows.iter().find(|r| r.cell == *cell).map(|r| r.updates);
        assert_eq!(updates, steps.last().map(|s| s.updates));
        assert!(steps.iter().all(|s| s.peak_bytes >= s.live_bytes && s.rss_bytes > Some(1 << 20)));
        assert!(steps.iter().all(|s| s.peak_bytes == s.peak_bytes_forward.max(s.peak_bytes_learning)));
        assert!(steps.iter().all(|s| s.peak_bytes_forward > Some(0) && s.peak_bytes_learning > Some(0)));
        assert!(
            steps
                .iter()
                .all(|s| s.macs_forward > Some(0) && s.energy_forward_pj > Some(0.0) && s.op_coverage == Some(1.0)),
            "every operation is counted"
        );
        assert!(steps.iter().all(|s| s.device_bytes.is_none()), "not measured is null");
        let evals = read_rows::<EvalRow>(&dir.join("evals.parquet")).expect("evals");
        assert!(evals.iter().any(|e| e.split == "valid") && evals.iter().any(|e| e.split == "test"));
        assert!(!read_rows::<PredictionRow>(&dir.join("predictions.parquet")).expect("predictions").is_empty());
        let layers = read_rows::<LayerRow>(&dir.join("layers.parquet")).expect("layers");
        let config = std::fs::read_to_string(dir.join("config.yaml")).expect("configuration");
        for quantity in ["cosine_gradient_bptt", "norm_ratio_gradient_bptt", "trace_staleness", "cosine_descent_stdp"] {
            let diagnosed = layers.iter().any(|l| l.quantity == quantity && l.layer.starts_with("layers.1"));
            assert_eq!(diagnosed, config.contains("kind: bim"), "{quantity}: {layers:?}");
        }
        let fires = config.contains("kind: bim") || config.contains("kind: snn");
        assert_eq!(dir.join("spikes.parquet").exists(), fires, "{config}");
        if fires {
            let spikes = read_rows::<SpikeRow>(&dir.join("spikes.parquet")).expect("spikes");
            assert!(spikes.iter().any(|s| s.level != 0.0) && spikes.iter().all(|s| s.step < s.steps), "{spikes:?}");
        }
        assert!(dir.join("checkpoint/weights.safetensors").exists() && dir.join("config.yaml").exists());
        assert!(!dir.join("parts").exists());
    }
    for file in ["report.md", "tables.tex", "report/index.html", "plan.json"] {
        assert!(folder.path().join("runs/small").join(file).exists(), "{file}");
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(walk(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

#[test]
fn running_again_trains_nothing_and_changes_nothing() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let file = |name: &str| std::fs::read(folder.path().join("runs/small").join(name)).expect(name);
    let (results, html) = (file("results.parquet"), file("report/index.html"));
    let again = folder.run("runs");
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(stderr(&again).matches("finished before").count(), 6, "{}", stderr(&again));
    assert_eq!(results, file("results.parquet"));
    assert_eq!(html, file("report/index.html"));
}

#[test]
fn any_number_of_threads_gives_the_same_results() {
    let folder = Folder::new();
    folder.grid(GRID);
    for threads in ["1", "2", "3"] {
        let output = folder.command(threads).env("RAYON_NUM_THREADS", threads).output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let one = folder.results("1");
    assert_eq!(one, folder.results("2"));
    assert_eq!(one, folder.results("3"));
}

#[test]
fn killed_at_any_moment_and_run_again_the_results_are_those_of_an_uninterrupted_run() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert_eq!(folder.run("whole").status.code(), Some(0));
    // a checkpoint after every step, so that resuming is what is tested and not starting over
    for pause_ms in [40, 90, 150, 230, 310, 420, 560, 700, 900] {
        let mut child = folder
            .command("killed")
            .env("HARNESS_CHECKPOINT_SECONDS", "0")
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(pause_ms));
        child.kill().expect("SIGKILL");
        child.wait().expect("ended");
    }
    let output = folder.command("killed").env("HARNESS_CHECKPOINT_SECONDS", "0").output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (whole, killed) = (folder.results("whole"), folder.results("killed"));
    assert_eq!(whole, killed);
    let mut resumed = 0;
    for cell in whole.iter().map(|r| &r.cell).collect::<std::collections::BTreeSet<_>>() {
        let dir = |out: &str| folder.path().join(out).join("small/cells").join(cell);
        let steps = |out: &str| read_rows::<StepRow>(&dir(out).join("steps.parquet")).expect("steps");
        let (a, b) = (steps("whole"), steps("killed"));
        assert_eq!(a.len(), b.len(), "no row lost, none twice");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!((a.step, a.loss, a.grad_norm, a.update_norm), (b.step, b.loss, b.grad_norm, b.update_norm));
        }
        let rows = |out: &str| {
            let evals = read_rows::<EvalRow>(&dir(out).join("evals.parquet")).expect("evals");
            let layers = read_rows::<LayerRow>(&dir(out).join("layers.parquet")).expect("layers");
            (evals, layers, read_rows::<PredictionRow>(&dir(out).join("predictions.parquet")).expect("predictions"))
        };
        assert_eq!(rows("whole"), rows("killed"));
        let log = std::fs::read_to_string(dir("killed").join("log.txt")).expect("log");
        resumed += log.matches("continuing at update").count();
    }
    assert!(resumed > 0, "no kill fell into training: the test did not test");
}

/// Where the grid itself chooses, the test part is not scored; where nothing is chosen, nothing is scored during training.
#[test]
fn what_is_scored_follows_from_what_is_chosen() {
    let splits = |selection: &str| {
        let folder = Folder::new();
        folder
            .grid(&GRID.replace("  - kind: language\n", &format!("  - kind: language\n    selection: {selection}\n")));
        let output = folder.command("runs").args(["--only", "task=language,model=lstm"]).output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows = folder.results("runs");
        let row = rows.iter().find(|r| r.metric.as_deref() == Some("bits_per_byte")).expect("a row");
        let cell = folder.path().join("runs/small/cells").join(&row.cell);
        let evals = read_rows::<EvalRow>(&cell.join("evals.parquet")).expect("evals");
        let predictions = read_rows::<PredictionRow>(&cell.join("predictions.parquet")).expect("predictions");
        assert!(predictions.iter().all(|p| Some(&p.split) == row.split.as_ref()), "{selection}");
        let of = |split: &str| {
            let rows = evals.iter().filter(|e| e.split == split && e.metric == "bits_per_byte");
            rows.map(|e| e.n).collect::<Vec<_>>()
        };
        (row.split.clone().expect("a split"), of("valid"), of("test"))
    };
    let (split, valid, test) = splits("valid");
    assert_eq!((split.as_str(), valid, test.len()), ("test", vec![1_000, 1_000], 1));
    let (split, valid, test) = splits("here");
    assert_eq!((split.as_str(), valid.len(), valid[0], test), ("valid", 2, 1_000, vec![]));
    assert!(valid[1] >= 3_000, "all of the validation part: {valid:?}");
    let (split, valid, test) = splits("none");
    assert_eq!((split.as_str(), valid, test.len()), ("test", vec![], 1));
}

#[test]
fn set_and_only_work_together() {
    let folder = Folder::new();
    folder.grid(&format!("{GRID}sweep: {{bim.lambda: [0.5, 1.0]}}\n"));
    let args =
        ["--set", "language.train.seen=2000", "--set", "lstm.layers=1", "--only", "task=language,model=bim|lstm"];
    let output = folder.command("runs").args(args).output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rows = folder.results("runs");
    let done: std::collections::BTreeSet<(String, Option<String>, u64)> = rows
        .iter()
        .filter(|r| r.outcome == "completed")
        .map(|r| (r.model.clone(), r.config.get("model.lambda").cloned(), r.seen))
        .collect();
    let row = |model: &str, lambda: Option<&str>, seen| (model.to_owned(), lambda.map(str::to_owned), seen);
    assert_eq!(done, [row("bim", Some("0.5"), 2048), row("bim", Some("1"), 2048), row("lstm", None, 2000)].into());
}

#[test]
fn several_processes_give_the_same_results() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert_eq!(folder.run("one").status.code(), Some(0));
    let output = folder.command("three").args(["--jobs", "3"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(folder.results("one"), folder.results("three"));
}

/// A cell's memory is its own: beside the data of another task, which a process that runs all cells holds, and behind the
/// cells before it, it is what it is in a process of its own.
#[test]
fn memory_is_the_cells_own_whatever_the_process_holds() {
    let folder = Folder::new();
    folder.grid(&GRID.replace("train_bytes: 30_000", "train_bytes: 6_000_000"));
    let peaks = |out: &str, jobs: &str| {
        // scratch of threads is a cell's own, so both have as many
        let output = folder.command(out).args(["--jobs", jobs]).env("RAYON_NUM_THREADS", "1").output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let rows = read_results(&folder.path().join(out).join("small/results.parquet")).expect("results");
        rows.into_iter()
            .map(|row| (row.cell, (row.task, row.model, row.peak_bytes.expect("counted") as f64)))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let (one, several) = (peaks("one", "1"), peaks("several", "2"));
    assert_eq!(one.len(), 6);
    for ((cell, (task, model, a)), (other, (_, _, b))) in one.iter().zip(&several) {
        assert_eq!(cell, other);
        // rows that wait to be written come and go with the clock
        assert!((a - b).abs() < 0.01 * b + 16_384.0, "{task} {model}: {a} bytes of its own in one process, {b} alone");
        assert!(*b < 5e6, "{task} {model}: the six megabytes of text are not the cell's: {b}");
    }
}

#[test]
fn a_signal_stops_with_a_checkpoint_and_exit_code_130() {
    let folder = Folder::new();
    folder.grid(&GRID.replace("seen: 12_000", "seen: 3_000_000"));
    let child = folder
        .command("runs")
        .args(["--only", "model=bim,task=language"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    std::thread::sleep(Duration::from_millis(1500));
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let rows = folder.results("runs");
    assert_eq!(rows.len(), 6, "every planned cell has a row: {rows:?}");
    assert_eq!(rows.iter().filter(|r| r.outcome == "interrupted").count(), 1);
    assert!(rows.iter().filter(|r| r.outcome == "skipped").all(|r| r.reason.as_deref() == Some("not run yet")));
}

#[test]
fn a_cell_that_diverges_has_a_row_and_the_others_go_on() {
    let folder = Folder::new();
    folder
        .grid(&GRID.replace("train: {segment: 16}", "train: {segment: 16, learning_rate: 1e9, warmup: 0, clip: 1e9}"));
    let output = folder.command("runs").args(["--only", "task=language"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let rows = folder.results("runs");
    let bim = rows.iter().find(|r| r.model == "bim" && r.task == "language").expect("a row");
    assert_eq!(bim.outcome, "diverged");
    assert!(bim.reason.as_deref().is_some_and(|r| r.contains("update")), "{bim:?}");
    assert!(rows.iter().any(|r| r.model == "lstm" && r.outcome == "completed"));
    assert!(stdout(&output).contains("diverged"), "{}", stdout(&output));
}

#[test]
fn time_out_is_an_outcome_and_more_time_continues() {
    let folder = Folder::new();
    folder.grid(GRID);
    let only = ["--only", "model=lstm,task=language"];
    let output = folder.command("runs").args(only).args(["--limit-seconds", "0.001"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(folder.results("runs").iter().any(|r| r.outcome == "timed_out"));
    assert_eq!(folder.command("runs").args(only).output().expect("starts").status.code(), Some(0));
    let logs: Vec<_> = walk(&folder.path().join("runs")).into_iter().filter(|p| p.ends_with("log.txt")).collect();
    let log: String = logs.iter().map(|p| std::fs::read_to_string(p).expect("log")).collect();
    assert!(log.contains("continuing at update") && !log.contains("starting again"), "{log}");
    assert_eq!(folder.command("whole").args(only).output().expect("starts").status.code(), Some(0));
    assert_eq!(folder.results("runs"), folder.results("whole"));
}

/// Of a run that is known, `plan` says what cells like its own will take, and `watch` what became of them.
#[test]
fn what_was_measured_is_predicted_and_watched() {
    let folder = Folder::new();
    folder.grid(GRID);
    let harness = |arguments: &[&str]| {
        let output = folder.harness(arguments).output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let plan = ["plan", "grid.yaml", "--device", "cpu", "--set", "seeds=[1, 2]"];
    assert!(harness(&plan).contains("unknown for 12 cells: none like them has run under runs"));
    let only = ["--only", "model=lstm"];
    assert_eq!(folder.command("runs").args(only).output().expect("starts").status.code(), Some(0));
    let cells: serde_json::Value = serde_json::from_str(&harness(&[&plan[..], &["--json"]].concat())).expect("JSON");
    let mut known = Vec::new();
    for cell in cells["cells"].as_array().expect("cells") {
        let predicted = [&cell["predicted_seconds"], &cell["predicted_peak_bytes"]].map(|p| p.as_f64().unwrap_or(0.0));
        assert_eq!(predicted.iter().all(|p| *p > 0.0), cell["model"] == "lstm", "{cell}");
        known.extend((cell["model"] == "lstm").then(|| predicted.map(f64::to_bits)));
    }
    // two seeds of one task and model, and one task apart from the other
    assert_eq!((known.len(), known[0] == known[1], known[0] == known[2]), (4, true, false));
    // twice as much to see takes twice as long
    let more: serde_json::Value =
        serde_json::from_str(&harness(&[&plan[..], &["--json", "--set", "language.train.seen=24000"]].concat()))
            .expect("JSON");
    let lstm =
        more["cells"].as_array().expect("cells").iter().find(|c| c["model"] == "lstm" && c["task"] == "language");
    let seconds = lstm.and_then(|cell| cell["predicted_seconds"].as_f64()).expect("a prediction");
    let before = f64::from_bits(known[0][0]);
    assert!((1.9..2.1).contains(&(seconds / before)), "{seconds} {before}");
    let seen = harness(&["watch", "runs/small", "--once"]);
    assert!(
        seen.contains("6 cells, 2 completed, 4 waiting") && seen.contains("language lstm seed 1  bits_per_byte"),
        "{seen}"
    );
}

/// `train.eval_limit` bounds what is scored at the end.
#[test]
fn scoring_ends_at_its_limit() {
    let folder = Folder::new();
    folder.grid(GRID);
    let arguments = ["--only", "model=lstm,task=language", "--set", "train.eval_limit=700"];
    assert_eq!(folder.command("runs").args(arguments).output().expect("starts").status.code(), Some(0));
    let rows = folder.results("runs");
    let scored: Vec<f64> =
        rows.iter().filter(|r| r.metric.as_deref() == Some("scored_tokens")).filter_map(|r| r.value).collect();
    assert_eq!(scored, [700.0]);
}

/// What a result needs to be made again stands beside it.
#[test]
fn results_name_the_program_the_command_and_the_grid() {
    let folder = Folder::new();
    folder.grid(GRID);
    let arguments = ["--only", "model=lstm,task=language", "--set", "train.clip=0.5"];
    let output = folder.command("runs").args(arguments).env("HARNESS_NOTE", "a note").output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rows = read_results(&folder.path().join("runs/small/results.parquet")).expect("results");
    let row = rows.iter().find(|row| row.outcome == "completed").expect("a row");
    let command =
        "harness run grid.yaml --device cpu --out runs --only 'model=lstm,task=language' --set 'train.clip=0.5'";
    assert_eq!(row.command.as_deref().map(|c| c.replace('"', "'")).as_deref(), Some(command));
    assert!(row.compiler.as_deref().is_some_and(|c| c.starts_with("rustc ") && c.ends_with(", release")), "{row:?}");
    let read = |path: &str| std::fs::read_to_string(folder.path().join("runs/small").join(path)).expect("a file");
    assert!(read(&format!("cells/{}/status.json", row.cell)).contains("\"HARNESS_NOTE\": \"a note\""));
    let plan: serde_json::Value = serde_json::from_str(&read("plan.json")).expect("JSON");
    assert_eq!(plan["files"][0]["text"], GRID);
}
