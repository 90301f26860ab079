//! `--device cuda:0` from end to end without a card: the program that was built with `--features cuda` runs over stand-ins for the
//! driver, cuBLAS and cuRAND (`harness/standins`). Shown is that every model trains, is scored, stopped and continued there, with
//! the CPU's losses; nothing is shown of speed, of races between blocks or of rounding in tensor cores.
//!
//! `HARNESS_CUDA_PROGRAM` names the program and `HARNESS_CUDA` the folder of the toolkit, as `.ci/cuda` sets them. Without them
//! the tests say so and pass.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::{Folder, stderr, stdout};
use rows::results::{ResultRow, read_results};
use rows::{StepRow, parquet::read_rows};
use standins::StandIns;

/// Every model on every task it suits, in all its forms, some twenty updates each.
const GRID: &str = "\
experiment: small
tasks:
  - kind: language
    generate: {train_bytes: 30_000, valid_bytes: 1_000, test_bytes: 1_000}
    train: {seen: 1_200, segment: 20}
  - kind: recall
    delay: 18
    tests: 16
    train: {seen: 1_200, segment: 20}
  - kind: speech
    generate: 20
    mel: {bands: 8}
    train: {epochs: 5, segment: 4096}
  - kind: seizure
    generate: {patients: 3, recordings: 2, seconds: 60}
    train_cases: [chb01]
    valid_cases: [chb02]
    test_cases: [chb03]
    stretch_seconds: 10
    train: {epochs: 6, segment: 10}
  - kind: cardio
    generate: 60
    frame: 50
    train: {seen: 1_200}
models:
  - {kind: transformer, width: 16, layers: 1, heads: 2}
  - {kind: mamba, width: 8, layers: 2}
  - {kind: lstm, width: 12, layers: 2}
  - {kind: rnn, name: gru, width: 12, layers: 2}
  - {kind: rnn, name: vanilla, cell: vanilla, width: 12, layers: 1}
  - {kind: cnn, width: 8, layers: 2}
  - {kind: snn, width: 16, layers: 2}
  - {kind: snn, name: recurrent, width: 12, layers: 2, recurrent: true, adaptive: {}}
  - {kind: bim, width: 8, channels: 16, state: 4, heads: 2, layers: 2, lambda: 0.9, prune: {target: 0.3, start: 3, interval: 4}}
  - {kind: bim, name: bim_bptt, width: 8, channels: 16, state: 4, heads: 2, layers: 2, credit: bptt, pre: {step: learned, penalty: 0.02}, post: {step: learned}}
train: {streams: 3, learning_rate: 4e-3, curve_points: 1, eval_streams: 4, curve_limit: 200}
";

/// The program and what it runs over.
struct Program {
    path: PathBuf,
    libraries: PathBuf,
    stand_ins: StandIns,
}

/// The program, or why the test skips.
fn program() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        standins::compiler()?;
        let variable = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).ok_or(format!("{name} is not set (.ci/cuda builds and sets it)"))
        };
        let (path, toolkit) = (variable("HARNESS_CUDA_PROGRAM")?, variable("HARNESS_CUDA")?);
        // from here on what is missing is a fault and no reason to skip
        let stand_ins = StandIns::build(&candle_kernels(), &own_kernels()).unwrap_or_else(|e| panic!("{e}"));
        Ok(Program { path, libraries: toolkit.join("nvidia/cu13/lib"), stand_ins })
    });
    found.as_ref().inspect_err(|reason| println!("skipped: {reason}")).ok()
}

/// Sources of the version of `candle-kernels` that is in the lock file.
fn candle_kernels() -> PathBuf {
    let lock = include_str!("../../Cargo.lock");
    let (_, rest) = lock.split_once("name = \"candle-kernels\"\nversion = \"").expect("it is in the lock file");
    let version = rest.split('"').next().expect("a version");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).expect("a home");
    let registries = std::fs::read_dir(home.join("registry/src")).expect("cargo's registry").flatten();
    let mut folders = registries.map(|r| r.path().join(format!("candle-kernels-{version}/src")));
    folders.find(|f| f.is_dir()).expect("the program was built from them")
}

/// The project's own kernels.
fn own_kernels() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["harness/learner/src/cuda", "baselines/src/cuda", "bim/src/cuda"];
    let sources = folders.into_iter().filter_map(|f| std::fs::read_dir(root.join(f)).ok()).flatten().flatten();
    let mut sources: Vec<PathBuf> =
        sources.map(|s| s.path()).filter(|s| s.extension().is_some_and(|e| e == "cu")).collect();
    sources.sort();
    sources
}

impl Program {
    /// `run grid.yaml` in a folder; what it asked the driver for is added to `log` there.
    fn command(&self, folder: &Folder, device: &str, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(folder.path()).args(["run", "grid.yaml", "--device", device, "--out", out]).args(more);
        command.env_remove("HARNESS_DATA").env("RAYON_NUM_THREADS", "2");
        self.stand_ins.equip(&mut command, Some(&self.libraries), Some(&folder.path().join("log")));
        command
    }

    fn run(&self, folder: &Folder, device: &str, out: &str, more: &[&str]) -> Output {
        self.command(folder, device, out, more).output().expect("the program starts")
    }
}

/// What the driver was asked for: counts by name.
fn log(folder: &Folder) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(folder.path().join("log")).unwrap_or_default().lines() {
        let (what, n) = line.rsplit_once(' ').expect("a name and a number");
        *counts.entry(what.to_owned()).or_default() += n.parse::<u64>().expect("a number");
    }
    counts
}

fn results(folder: &Folder, out: &str) -> Vec<ResultRow> {
    read_results(&folder.path().join(out).join("small/results.parquet")).expect("results")
}

/// Losses of every step of each cell, and the gradient's norm at the first.
fn losses(folder: &Folder, out: &str) -> BTreeMap<String, (Vec<f64>, f64)> {
    let cells = std::fs::read_dir(folder.path().join(out).join("small/cells")).expect("cells").flatten();
    cells
        .map(|cell| {
            let steps = read_rows::<StepRow>(&cell.path().join("steps.parquet")).expect("steps");
            let losses = steps.iter().filter_map(|s| s.loss).collect();
            let norm = steps.iter().find(|s| s.loss.is_some()).expect("a loss").grad_norm;
            (cell.file_name().to_string_lossy().into_owned(), (losses, norm))
        })
        .collect()
}

/// Names of cells for messages.
fn names(rows: &[ResultRow]) -> BTreeMap<String, String> {
    rows.iter().map(|r| (r.cell.clone(), format!("{} {}", r.task, r.model))).collect()
}

/// Two runs' losses are the same to 1e-4, relative for losses above 1, and their first gradient norms too. Of spiking networks the
/// first losses are, and the others are near: a surrogate as steep as theirs makes 50 times as much of a rounding in every update, until a
/// membrane falls on the other side of its threshold. Returns the largest difference of each cell, for people to read.
fn compare(folder: &Folder, a: &str, b: &str, least: usize) -> BTreeMap<String, String> {
    const SAME: f64 = 1e-4;
    let (a, b, names) = (losses(folder, a), losses(folder, b), names(&results(folder, a)));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let mut found = BTreeMap::new();
    for (cell, (x, norm)) in &a {
        let ((y, other_norm), name) = (&b[cell], &names[cell]);
        assert_eq!(x.len(), y.len(), "{name}");
        assert!(x.len() >= least, "{name}: {} updates", x.len());
        let difference = |n: usize| {
            let errors = x.iter().zip(y).take(n).map(|(x, y)| (x - y).abs() / x.abs().max(1.0));
            errors.fold(0.0, f64::max)
        };
        let (first, all) = (difference(3), difference(x.len()));
        let spiking = name.ends_with("snn") || name.ends_with("recurrent");
        let within = first < SAME && all < if spiking { 0.1 } else { SAME } && (norm - other_norm).abs() < SAME * norm;
        found.insert(name.clone(), (all, within));
    }
    assert!(found.values().all(|(_, within)| *within), "{found:?}");
    found.into_iter().map(|(name, (error, _))| (name, format!("{error:.1e}"))).collect()
}

#[test]
fn cuda_path_every_model_on_every_task_has_the_losses_of_the_cpu() {
    let Some(program) = program() else { return };
    let folder = Folder::new();
    folder.grid(GRID);
    let cpu = program.run(&folder, "cpu", "cpu", &[]);
    assert_eq!(cpu.status.code(), Some(0), "{}{}", stdout(&cpu), stderr(&cpu));
    let _ = std::fs::remove_file(folder.path().join("log"));
    let gpu = program.run(&folder, "cuda:0", "gpu", &[]);
    assert_eq!(gpu.status.code(), Some(0), "{}{}", stdout(&gpu), stderr(&gpu));
    let rows = results(&folder, "gpu");
    assert!(rows.iter().all(|r| r.outcome == "completed" && r.metric.is_some()), "{rows:?}");
    assert!(rows.iter().all(|r| r.device == "cuda:0"));
    println!("losses differ by {:?}", compare(&folder, "cpu", "gpu", 15));
    let log = log(&folder);
    // threads hand tensors to each other, so all of them must use one stream
    assert_eq!(log.get("stream per-thread"), None);
    let baselines =
        ["lif_backward", "lstm_backward", "gru_backward", "vanilla_backward", "scan_backward", "adamw_step", "ctc"];
    let bim = ["encode_reverse", "state_reverse", "trace_advance", "mix", "step_reverse", "update_weights"];
    for kernel in baselines.into_iter().chain(bim) {
        assert!(log.contains_key(&format!("launch {kernel}")), "{kernel}: {log:?}");
    }
}

/// A segment of twice the steps takes no more launches: the recurrences are in kernels, and so are the losses and the optimiser.
#[test]
fn cuda_path_launches_do_not_grow_with_the_steps() {
    let Some(program) = program() else { return };
    let models = [
        "mamba, width: 8",
        "lstm, width: 8",
        "rnn, width: 8",
        "snn, width: 8",
        "transformer, width: 8, heads: 2, memory: 0",
        "bim, width: 8, channels: 16, state: 4, heads: 2",
    ];
    for model in models {
        let launches = |segment: usize| {
            let folder = Folder::new();
            folder.grid(&format!(
                "\
experiment: small
task: {{kind: language, generate: {{train_bytes: 30_000, valid_bytes: 1_000, test_bytes: 1_000}}}}
models: [{{kind: {model}, layers: 2}}]
train: {{streams: 2, segment: {segment}, seen: {}, curve_points: 0, eval_streams: 4}}
",
                2 * 20 * segment
            ));
            let output = program.run(&folder, "cuda:0", "gpu", &[]);
            assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
            let (log, updates) =
                (log(&folder), losses(&folder, "gpu").values().map(|(losses, _)| losses.len()).sum::<usize>());
            let of = |what: &str| log.iter().filter(|(k, _)| k.starts_with(what)).map(|(_, n)| n).sum::<u64>();
            // evaluation has launches of its own, as many segments as the test part has
            let segments = 1_000usize.div_ceil(4 * segment) as f64;
            (of("launch "), of("copy to-host"), updates, segments)
        };
        let (short, long) = (launches(16), launches(32));
        println!("{model}: {short:?} {long:?}");
        assert!(long.0 as f64 <= short.0 as f64 * 1.05, "{model}: {short:?} {long:?}");
        // the loss, the norms, operands whose zeros are counted, and whatever is scored: not one wait for each step
        assert!(long.1 < 30 * long.2 as u64 && long.1 as f64 <= short.1 as f64 * 1.5, "{model}: {short:?} {long:?}");
    }
}

/// Killed on one device and continued on another, both ways: the losses are those of an uninterrupted run on the CPU.
#[test]
fn cuda_path_a_checkpoint_goes_from_device_to_device() {
    let Some(program) = program() else { return };
    let folder = Folder::new();
    folder.grid(GRID);
    let long = ["--set", "language.train.seen=9000"];
    let args = [&["--only", "task=language"], &long[..]].concat();
    let whole = program.run(&folder, "cpu", "whole", &args);
    assert_eq!(whole.status.code(), Some(0), "{}{}", stdout(&whole), stderr(&whole));
    for (name, first, second) in
        [("to_cpu", "cuda:0", "cpu"), ("to_gpu", "cpu", "cuda:0"), ("on_gpu", "cuda:0", "cuda:0")]
    {
        let models: Vec<String> = results(&folder, "whole").into_iter().map(|r| r.model).collect();
        for model in models.iter().collect::<std::collections::BTreeSet<_>>() {
            let only = format!("task=language,model={model}");
            let args = [&["--only", only.as_str()], &long[..]].concat();
            let mut command = program.command(&folder, first, name, &args);
            command.env("HARNESS_CHECKPOINT_SECONDS", "0").stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("starts");
            // until a checkpoint is there, of a cell that is not done
            let began = std::time::Instant::now();
            while unfinished(&folder, name) == 0 && began.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(2));
            }
            child.kill().expect("SIGKILL");
            child.wait().expect("ended");
        }
        let on = program.run(&folder, second, name, &args);
        assert_eq!(on.status.code(), Some(0), "{name}: {}{}", stdout(&on), stderr(&on));
        let continued = logs(&folder, name).matches("continuing at update").count();
        let errors = compare(&folder, "whole", name, 100);
        println!("{name}: {continued} cells continued, losses differ by {errors:?}");
        assert!(continued > 3, "no kill fell into training: the test did not test");
    }
}

fn cell_folders(folder: &Folder, out: &str) -> Vec<PathBuf> {
    let cells = std::fs::read_dir(folder.path().join(out).join("small/cells"));
    cells.into_iter().flatten().flatten().map(|cell| cell.path()).collect()
}

/// Cells with a checkpoint and no outcome.
fn unfinished(folder: &Folder, out: &str) -> usize {
    let begun = |cell: &PathBuf| cell.join("checkpoint/position.json").exists() && !cell.join("status.json").exists();
    let logged =
        |cell: &PathBuf| !std::fs::read_to_string(cell.join("log.txt")).unwrap_or_default().contains("continuing");
    cell_folders(folder, out).iter().filter(|cell| begun(cell) && logged(cell) && !killed(cell)).count()
}

/// Whether a cell was waited for before: it is marked then.
fn killed(cell: &Path) -> bool {
    let mark = cell.join("waited");
    let before = mark.exists();
    let _ = std::fs::write(mark, "");
    before
}

/// What the cells wrote about their runs.
fn logs(folder: &Folder, out: &str) -> String {
    let log = |cell: PathBuf| std::fs::read_to_string(cell.join("log.txt")).unwrap_or_default();
    cell_folders(folder, out).into_iter().map(log).collect()
}

/// Models that cannot run on a GPU are refused before anything starts, with the line that names them; `auto` puts each cell where
/// it can run.
#[test]
fn cuda_path_what_a_gpu_cannot_do_is_refused_by_the_plan() {
    let Some(program) = program() else { return };
    let folder = Folder::new();
    folder.grid(
        "\
experiment: small
task: {kind: language, generate: {train_bytes: 30_000, valid_bytes: 1_000, test_bytes: 1_000}}
models:
  - {kind: lstm, width: 8, layers: 1}
  - {kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 1}
  - {kind: bim, name: measured, width: 16, channels: 32, state: 4, heads: 2, layers: 1, diagnose: {every: 4}}
train: {streams: 2, segment: 16, seen: 320, curve_points: 0, eval_streams: 4}
",
    );
    let refused = program.run(&folder, "cuda:0", "gpu", &[]);
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("measured") && said.contains("--device cpu") && said.contains("grid.yaml:6"), "{said}");
    assert!(!folder.path().join("gpu/small/cells").exists(), "nothing was started");
    let auto = program.run(&folder, "auto", "auto", &[]);
    assert_eq!(auto.status.code(), Some(0), "{}{}", stdout(&auto), stderr(&auto));
    let devices: BTreeMap<String, String> = results(&folder, "auto").into_iter().map(|r| (r.model, r.device)).collect();
    assert_eq!(devices["lstm"], "cuda:0");
    assert_eq!(devices["bim"], "cuda:0");
    assert_eq!(devices["measured"], "cpu");
}
