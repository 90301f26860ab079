//! Commands that share a run directory, cells that are ended from outside, and files that are damaged: every planned cell has its
//! row in the end, and every row is what was computed.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, GRID, stderr, stdout};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rows::results::{ResultRow, read_results};

/// One model, one task, two seeds, tenths of a second.
const TWO: &str = "\
experiment: small
task: {kind: cardio, generate: 60, frame: 20}
models: [{kind: lstm, width: 8, layers: 1}]
train: {streams: 4, segment: 25, seen: 6_000, curve_points: 2, eval_streams: 4}
seeds: [1, 2]
";

/// As [`Folder::results`], without what a run says about itself.
fn numbers(folder: &Folder, out: &str) -> Vec<ResultRow> {
    folder.results(out).into_iter().map(|row| ResultRow { notes: None, ..row }).collect()
}

fn cells(folder: &Folder, out: &str) -> Vec<PathBuf> {
    let cells = std::fs::read_dir(folder.path().join(out).join("small/cells")).expect("cells");
    cells.map(|entry| entry.expect("a cell").path()).collect()
}

fn starts(folder: &Folder, out: &str) -> Vec<usize> {
    let log = |cell: &PathBuf| std::fs::read_to_string(cell.join("log.txt")).expect("a log");
    cells(folder, out).iter().map(|cell| log(cell).lines().filter(|line| *line == "starting").count()).collect()
}

/// Pairs and a quadruple of commands on one folder, with one and with two cells at once: all end well, no cell is trained twice, and
/// the table is whole.
#[test]
fn commands_that_meet_share_the_work() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert_eq!(folder.run("alone").status.code(), Some(0));
    let rounds = std::env::var("HARNESS_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for round in 0..rounds {
        let out = format!("shared-{round}");
        let number = if round % 5 == 1 { 4 } else { 2 };
        let start = |i: usize| {
            let mut command = folder.command(&out);
            command.args(["--jobs", if (round + i).is_multiple_of(2) { "1" } else { "2" }]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
        };
        let commands: Vec<Child> = (0..number)
            .map(|i| {
                std::thread::sleep(Duration::from_millis(70 * (round as u64 % 4)));
                start(i)
            })
            .collect();
        for command in commands {
            let output = command.wait_with_output().expect("ended");
            assert_eq!(output.status.code(), Some(0), "round {round}: {}", stderr(&output));
        }
        assert_eq!(starts(&folder, &out), [1; 6], "round {round}: each cell is begun once");
        assert_eq!(folder.results(&out), folder.results("alone"), "round {round}");
    }
}

/// The worker of a running command that has this text in its command line.
fn worker_of(command: &Child) -> Option<i32> {
    let children = format!("/proc/{0}/task/{0}/children", command.id());
    std::fs::read_to_string(children).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Sends a signal to the first worker of a command, once it trains.
fn signal_worker(command: &Child, name: &str, out: &Path) {
    let clock = Instant::now();
    loop {
        assert!(clock.elapsed() < Duration::from_secs(20), "no worker that trains");
        std::thread::sleep(Duration::from_millis(20));
        let training = std::fs::read_dir(out.join("small/cells"))
            .is_ok_and(|cells| cells.flatten().any(|cell| cell.path().join("checkpoint/position.json").exists()));
        if let Some(worker) = worker_of(command).filter(|_| training) {
            let sent = Command::new("kill").args([name, &worker.to_string()]).status().expect("kill");
            assert!(sent.success());
            return;
        }
    }
}

/// A cell that is killed, and one that stands still, have rows that say so; the others are trained, with one and with two at once.
#[test]
fn what_ends_one_cell_leaves_the_others_alone() {
    for (jobs, signal, words) in [
        ("1", "-KILL", "killed by signal 9, and not by the system for memory"),
        ("2", "-STOP", "showed no progress for 1 s"),
    ] {
        let folder = Folder::new();
        folder.grid(&TWO.replace("seen: 6_000", "seen: 300_000"));
        let mut command = folder.command("runs");
        command.args(["--jobs", jobs, "--stall-seconds", "1"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        signal_worker(&command, signal, &folder.path().join("runs"));
        let output = command.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let rows = folder.results("runs");
        let failed: Vec<&ResultRow> = rows.iter().filter(|row| row.outcome == "failed").collect();
        let [row] = failed[..] else { panic!("one cell was ended: {rows:?}") };
        assert!(row.reason.as_deref().is_some_and(|reason| reason.contains(words)), "{row:?}");
        assert_eq!(row.cause.as_deref(), Some("outside"));
        assert!(rows.iter().any(|row| row.outcome == "completed"), "{rows:?}");
        // only what is asked for is tried again
        let again = folder.command("runs").args(["--retry", "data"]).output().expect("starts");
        assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
        let again = folder.command("runs").args(["--retry", "data,outside"]).output().expect("starts");
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    }
}

/// Where there is too little memory for one cell, that one says so and the others are trained.
#[test]
fn a_cell_that_does_not_fit_into_memory_is_said_to() {
    let big = "models: [{kind: lstm, width: 8, layers: 1}, {kind: lstm, name: huge, width: 4096, layers: 4}]";
    for (jobs, models, words) in [
        ("1", big.to_owned(), "not started: weights, gradients, moments and state alone need"),
        ("2", big.replace("4096, layers: 4", "2048, layers: 2"), "its process ran out of memory: memory allocation of"),
    ] {
        let folder = Folder::new();
        folder.grid(&TWO.replace("models: [{kind: lstm, width: 8, layers: 1}]", &models).replace("[1, 2]", "1"));
        let program = env!("CARGO_BIN_EXE_harness");
        let limited = format!("ulimit -v 1500000; exec {program} run grid.yaml --device cpu --out runs --jobs {jobs}");
        let output = Command::new("sh").current_dir(folder.path()).args(["-c", &limited]).output().expect("starts");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let rows = folder.results("runs");
        let huge = rows.iter().find(|row| row.model == "huge").expect("a row");
        assert_eq!((huge.outcome.as_str(), huge.cause.as_deref()), ("out_of_memory", Some("resources")), "{huge:?}");
        assert!(huge.reason.as_deref().is_some_and(|reason| reason.contains(words)), "{huge:?}");
        assert!(rows.iter().any(|row| row.model == "lstm" && row.outcome == "completed"), "{rows:?}");
    }
}

/// Every file under a folder that a bit may flip in: what a person reads only is left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !matches!(name, "log.txt" | ".lock") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(drop).expect("copied") }
    }
}

/// Random bits of a stopped run and of a finished one flip: the next run says so where it matters, and ends with the numbers of a run
/// that nothing happened to.
#[test]
fn no_flipped_bit_is_taken_for_a_result() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("whole").status.code(), Some(0));
    let whole = numbers(&folder, "whole");
    let every = [("HARNESS_CHECKPOINT_SECONDS", "0")];
    let stopped = folder.command("stopped").envs(every).args(["--limit-seconds", "0.004"]).output().expect("starts");
    assert_eq!(stopped.status.code(), Some(1), "{}", stderr(&stopped));
    let kinds = files(&folder.path().join("stopped/small/cells"));
    for name in ["position.json", "weights.safetensors", "steps-000000.parquet", "status.json"] {
        assert!(kinds.iter().any(|path| path.ends_with(name)), "{name} in {kinds:?}");
    }
    let flips: usize = std::env::var("HARNESS_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let mut rng = ChaCha8Rng::seed_from_u64(19);
    let (mut said, mut by_file) = (0, BTreeMap::<String, u32>::new());
    for flip in 0..flips {
        let (from, to) = (["stopped", "whole"][flip % 2], folder.path().join("flipped/small"));
        let _ = std::fs::remove_dir_all(&to);
        copy(&folder.path().join(from).join("small"), &to);
        let files = files(&to.join("cells"));
        let path = &files[rng.random_range(0..files.len())];
        let mut bytes = std::fs::read(path).expect("there");
        let bit = rng.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(path, bytes).expect("written");
        let output = folder.command("flipped").envs(every).output().expect("starts");
        let place = format!("{from}: bit {bit} of {}", path.display());
        assert_eq!(output.status.code(), Some(0), "{place}: {}", stderr(&output));
        assert_eq!(numbers(&folder, "flipped"), whole, "{place}: {}", stderr(&output));
        let notes = read_results(&to.join("results.parquet")).expect("results").iter().any(|row| row.notes.is_some());
        said += u32::from(notes || stderr(&output).contains("damaged"));
        *by_file.entry(path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!("{flips} flips, {said} said: {by_file:?}");
    assert!(said as usize * 3 > flips, "{said} of {flips} said");
}

/// A cell that was started again because of damage says so then, keeps it in its row, and does not say it at every later run.
#[test]
fn damage_is_told_once() {
    let folder = Folder::new();
    folder.grid(TWO);
    let run = |limit: &str| {
        let mut command = folder.command("runs");
        command.env("HARNESS_CHECKPOINT_SECONDS", "0").args(["--limit-seconds", limit]);
        command.output().expect("starts")
    };
    assert_eq!(run("0.004").status.code(), Some(1));
    let weights = files(&folder.path().join("runs/small/cells"));
    for path in weights.iter().filter(|path| path.ends_with("weights.safetensors")) {
        std::fs::write(path, "cut").expect("written");
    }
    let again = stderr(&run("0.004"));
    assert!(again.contains("damaged: ") && again.contains("the cell was started again"), "{again}");
    let later = stderr(&run("60"));
    assert!(!later.contains("damaged"), "{later}");
    let rows = read_results(&folder.path().join("runs/small/results.parquet")).expect("results");
    assert!(rows.iter().any(|row| row.notes.as_ref().is_some_and(|notes| notes.contains("damaged"))), "{rows:?}");
}

/// A damaged cell has a row in the report that says so, and a damaged status stops no other.
#[test]
fn the_report_says_what_is_damaged() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let cells = cells(&folder, "runs");
    std::fs::write(cells[0].join("status.json"), "{").expect("written");
    std::fs::write(cells[1].join("evals.parquet"), "PAR1").expect("written");
    let report = || {
        Command::new(env!("CARGO_BIN_EXE_harness")).current_dir(folder.path()).args(["report", "runs/small"]).output()
    };
    let output = report().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = std::fs::read_to_string(folder.path().join("runs/small/report.md")).expect("a report");
    assert_eq!(page.matches("it will be run again").count(), 2, "{page}");
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let mended = stdout(&report().expect("starts"));
    assert!(mended.contains("2 cells were planned, 2 completed.") && !mended.contains("run again"), "{mended}");
    // without a plan nobody knows what is missing: an old table is no answer
    std::fs::remove_file(folder.path().join("runs/small/plan.json")).expect("there");
    let output = report().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("plan.json: no such plan"), "{}", stderr(&output));
}

/// A run directory holds what was planned for it: a plan may grow, and one that drops stored cells needs a folder of its own or says
/// that it replaces them.
#[test]
fn a_plan_grows_but_drops_nothing() {
    let folder = Folder::new();
    let grid = |seeds: &str| folder.grid(&TWO.replace("[1, 2]", seeds));
    grid("[1]");
    assert_eq!(folder.run("runs").status.code(), Some(0));
    grid("[1, 2]");
    let output = folder.run("runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("finished before"), "{}", stderr(&output));
    let count = |out: &str| {
        let rows = read_results(&folder.path().join(out)).expect("results");
        rows.iter().map(|row| row.seed).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(count("runs/small/results.parquet"), 2);
    let stored = folder.results("runs");
    for (change, args) in [("[2]", vec![]), ("[1, 2]", vec!["--set", "train.clip=0.5"])] {
        grid(change);
        let output = folder.command("runs").args(&args).output().expect("starts");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        for words in ["this plan leaves out", "--name NAME", "--replace"] {
            assert!(stderr(&output).contains(words), "{}", stderr(&output));
        }
        assert_eq!(folder.results("runs"), stored, "nothing was touched");
    }
    let trial = folder.command("runs").args(["--set", "train.clip=0.5", "--name", "trial"]).output().expect("starts");
    assert_eq!(trial.status.code(), Some(0), "{}", stderr(&trial));
    assert_eq!(count("runs/trial/results.parquet"), 2);
    let replaced = folder.command("runs").args(["--set", "train.clip=0.5", "--replace"]).output().expect("starts");
    assert_eq!(replaced.status.code(), Some(0), "{}", stderr(&replaced));
    let back = folder.command("runs").arg("--replace").output().expect("starts");
    assert!(stderr(&back).matches("finished before").count() == 2, "what was stored is still there: {}", stderr(&back));
    for name in ["../evil", "", "a/b", ".hidden"] {
        let output = folder.command("runs").args(["--name", name]).output().expect("starts");
        assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
    }
}

/// Two grids of one name are a wrong command line before either trains, and a planned cell is found by its id, wherever it stands.
#[test]
fn grids_do_not_share_a_folder_and_ids_outlive_a_plan() {
    let folder = Folder::new();
    folder.grid(TWO);
    let twice = folder.command("runs").arg("grid.yaml").output().expect("starts");
    assert_eq!(twice.status.code(), Some(2), "{}", stderr(&twice));
    assert!(stderr(&twice).contains("two of the grids have this folder"), "{}", stderr(&twice));
    assert!(!folder.path().join("runs").exists(), "nothing was begun");
    let planned = |seeds: &str| {
        folder.grid(&TWO.replace("[1, 2]", seeds));
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(folder.path()).args(["plan", "grid.yaml", "--write", "--out", "runs"]);
        assert_eq!(command.output().expect("starts").status.code(), Some(0));
        std::fs::read_to_string(folder.path().join("runs/small/plan.json")).expect("a plan")
    };
    let id =
        |plan: &str| plan.split("\"id\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned();
    let first = id(&planned("[2]"));
    let grown = planned("[1, 2]");
    assert_ne!(first, id(&grown), "another cell stands there now");
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.current_dir(folder.path()).args(["worker", "--plan", "runs/small/plan.json", "--cell", &first]);
    assert_eq!(command.output().expect("starts").status.code(), Some(0));
    assert_eq!(cells(&folder, "runs").len(), 1);
    let status = std::fs::read_to_string(cells(&folder, "runs")[0].join("status.json")).expect("a status");
    assert!(status.contains("completed") && status.contains(&first), "{status}");
}

/// A share of the data above what a grid allows refuses the cell, and less is told.
#[test]
fn what_is_left_out_of_the_data_is_told_or_refused() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("first").status.code(), Some(0));
    let signal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "dat");
    let lost = files(&folder.path().join("data")).into_iter().find(signal).expect("a signal");
    // outside of the generated folder, so that nothing makes it again
    let root = files(&folder.path().join("data"))
        .into_iter()
        .find(|path| path.ends_with("ptbxl_database.csv"))
        .expect("a table");
    copy(root.parent().expect("a folder"), &folder.path().join("given"));
    let inside = lost.strip_prefix(root.parent().expect("a folder")).expect("inside");
    std::fs::remove_file(folder.path().join("given").join(inside)).expect("removed");
    let given = TWO.replace("generate: 60,", &format!("root: {}/given,", folder.path().display()));
    folder.grid(&given);
    let refused = folder.run("refused");
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let rows = folder.results("refused");
    assert!(rows.iter().all(|row| row.cause.as_deref() == Some("data")), "{rows:?}");
    assert!(rows[0].reason.as_deref().is_some_and(|reason| reason.contains("train.left_out")), "{rows:?}");
    folder.grid(&given.replace("eval_streams: 4", "eval_streams: 4, left_out: 0.1"));
    let told = folder.run("told");
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    assert!(stderr(&told).contains("data: 1 missing"), "{}", stderr(&told));
    assert!(
        folder.results("told").iter().all(|row| row.notes.as_deref().is_some_and(|notes| notes.contains("1 missing")))
    );
    let page = std::fs::read_to_string(folder.path().join("told/small/report.md")).expect("a report");
    assert!(page.contains("1 missing"), "{page}");
}

/// A worker does not believe a plan: neither a place outside the run directory nor settings that are not those of the id.
#[test]
fn a_worker_holds_its_cell_against_its_id() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let plan = folder.path().join("runs/small/plan.json");
    let text = std::fs::read_to_string(&plan).expect("a plan");
    let sealed = text.rfind(",\n  \"digest\"").expect("a digest");
    let body = format!("{}\n}}\n", &text[..sealed]);
    // as somebody would write it who knows how
    let seal = |body: &str| {
        let digest = data::files::sha256_hex(body.as_bytes());
        format!("{},\n  \"digest\": \"{digest}\"\n}}\n", body.strip_suffix("\n}\n").expect("an object"))
    };
    let worker = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(folder.path()).args(["worker", "--plan", "runs/small/plan.json", "--index", "0"]);
        command.output().expect("starts")
    };
    let id = body.split("\"id\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned();
    std::fs::write(&plan, seal(&body.replace(&id, "../../../../evil"))).expect("written");
    let output = worker();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(!folder.path().parent().expect("a parent").join("evil").exists());
    let other = body.replace(&id, "0123456789abcdef");
    std::fs::write(&plan, seal(&other)).expect("written");
    let output = worker();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("its settings, data and code give"), "{}", stderr(&output));
    std::fs::write(&plan, text.replacen("cardio", "cardie", 1)).expect("written");
    let output = worker();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("changed after it was written"), "{}", stderr(&output));
}

/// Files that were copied from another cell are not taken for the cell's own, finished or not.
#[test]
fn a_cell_that_was_copied_over_another_is_noticed() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let whole = numbers(&folder, "runs");
    let over = |names: &[&str], out: &str| {
        let cells = cells(&folder, out);
        for name in names {
            let (from, to) = (cells[0].join(name), cells[1].join(name));
            let _ = std::fs::remove_dir_all(&to);
            copy(&from, &to);
        }
    };
    over(&[""], "runs");
    let again = folder.run("runs");
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(stderr(&again).contains("it is of cell"), "{}", stderr(&again));
    assert_eq!(numbers(&folder, "runs"), whole);
    let every = [("HARNESS_CHECKPOINT_SECONDS", "0")];
    let stopped = folder.command("stopped").envs(every).args(["--limit-seconds", "0.004"]).output().expect("starts");
    assert_eq!(stopped.status.code(), Some(1), "{}", stderr(&stopped));
    over(&["checkpoint", "checkpoint.previous", "parts"], "stopped");
    let continued = folder.run("stopped");
    assert!(stderr(&continued).contains("it is of cell"), "{}", stderr(&continued));
    assert_eq!(numbers(&folder, "stopped"), whole);
}

/// A folder that cannot be used costs its cell and no other.
#[test]
fn an_odd_folder_stops_its_own_cell_only() {
    let folder = Folder::new();
    folder.grid(TWO);
    assert_eq!(folder.run("whole").status.code(), Some(0));
    let id = cells(&folder, "whole")[0].file_name().expect("a name").to_owned();
    std::fs::create_dir_all(folder.path().join("runs/small/cells")).expect("a folder");
    std::fs::write(folder.path().join("runs/small/cells").join(id), "").expect("a file");
    let output = folder.run("runs");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let rows = folder.results("runs");
    assert_eq!(rows.iter().filter(|row| row.outcome == "failed").count(), 1, "{rows:?}");
    assert!(rows.iter().any(|row| row.outcome == "completed"));
}

/// While a command works on a run directory no other plan takes its place, even if nothing is stored yet.
#[test]
fn a_plan_that_is_worked_on_is_not_replaced() {
    let folder = Folder::new();
    folder.grid(&TWO.replace("seen: 6_000", "seen: 300_000"));
    let first = folder.command("runs").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let clock = Instant::now();
    while !folder.path().join("runs/small/plan.json").exists() {
        assert!(clock.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    let other = folder.command("runs").args(["--set", "lstm.width=9", "--replace"]).output().expect("starts");
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(stderr(&other).contains("another command works on it"), "{}", stderr(&other));
    let first = first.wait_with_output().expect("ended");
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(folder.results("runs").iter().all(|row| row.outcome == "completed"));
}

/// A scale that is not the grid's own has a folder of its own.
#[test]
fn scales_do_not_meet() {
    let folder = Folder::new();
    folder.grid(&format!("{TWO}scale: mini\nscales: {{mini: {{}}, sample: {{train: {{seen: 3_000}}}}}}\n"));
    assert_eq!(folder.run("runs").status.code(), Some(0));
    let before = folder.results("runs");
    let sample = folder.command("runs").args(["--scale", "sample"]).output().expect("starts");
    assert_eq!(sample.status.code(), Some(0), "{}", stderr(&sample));
    assert!(folder.path().join("runs/small.sample/results.parquet").exists());
    assert_eq!(folder.results("runs"), before);
}

/// Once a cell has failed no other is begun, if that is asked for.
#[test]
fn fail_fast_begins_no_more() {
    let folder = Folder::new();
    folder.grid(&TWO.replace("segment: 25", "segment: 25, learning_rate: 1e9, warmup: 0, clip: 1e9"));
    let output = folder.command("runs").arg("--fail-fast").output().expect("starts");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let outcomes: Vec<String> = folder.results("runs").into_iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, ["diverged", "skipped"]);
}

/// A program that is replaced during a run goes on to the end of it: workers that start later are of the program that began.
#[test]
fn a_program_that_is_gone_finishes_its_run() {
    let folder = Folder::new();
    folder.grid(&TWO.replace("seen: 6_000", "seen: 300_000"));
    let program = folder.path().join("harness");
    std::fs::copy(env!("CARGO_BIN_EXE_harness"), &program).expect("a copy");
    let mut command = Command::new(&program);
    command.current_dir(folder.path()).args(["run", "grid.yaml", "--device", "cpu", "--out", "runs"]);
    let command = command.env_remove("HARNESS_DATA").stdout(Stdio::piped()).stderr(Stdio::piped());
    let command = command.spawn().expect("starts");
    std::fs::remove_file(&program).expect("removed");
    // the next cell needs another worker
    signal_worker(&command, "-KILL", &folder.path().join("runs"));
    let output = command.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let rows = folder.results("runs");
    assert!(rows.iter().any(|row| row.outcome == "completed"), "{rows:?}");
}

/// The self-test kills, resumes and compares; a run that is over before it is killed proves nothing and is said to.
#[test]
fn the_self_test_kills_and_finds_nothing() {
    let folder = Folder::new();
    let selftest = |grid: &str| {
        folder.grid(grid);
        let mut program = Command::new(env!("CARGO_BIN_EXE_harness"));
        program.current_dir(folder.path()).env_remove("HARNESS_DATA");
        program.args(["selftest", "resume", "grid.yaml", "--rounds", "1", "--data", "data"]).output().expect("starts")
    };
    let output = selftest(&TWO.replace("seen: 6_000", "seen: 200_000"));
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let said = stdout(&output);
    assert!(said.contains(" kills (") && said.ends_with("all runs are bit-identical\n"), "{said}");
}
