//! A small grid and the program run on it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rows::results::{ResultRow, read_results};

/// Two tasks, three models, seconds in all.
pub const GRID: &str = "\
experiment: small
tasks:
  - kind: language
    generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}
    train: {seen: 12_000, curve_limit: 1_000}
  - kind: cardio
    generate: 60
    frame: 20
    train: {seen: 4_000}
models:
  - kind: bim
    width: 16
    channels: 32
    state: 4
    heads: 2
    layers: 2
    lambda: 0.9
    prune: {target: 0.3, start: 2, interval: 2, hazard: 0.5}
    diagnose: {every: 16, window: 96}
    train: {segment: 16}
  - {kind: transformer, width: 16, layers: 1, heads: 2}
  - {kind: lstm, width: 16, layers: 2}
train: {streams: 4, segment: 25, curve_points: 2, eval_streams: 4}
";

pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn grid(&self, text: &str) -> PathBuf {
        let path = self.path().join("grid.yaml");
        std::fs::write(&path, text).expect("write the grid");
        path
    }

    /// The program in this folder, with neither the user's data nor the user's cache.
    pub fn harness(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(self.path()).args(arguments);
        command.env_remove("HARNESS_DATA").env("HARNESS_CACHE", std::env::temp_dir().join("harness-tests-cache"));
        command
    }

    pub fn command(&self, out: &str) -> Command {
        self.harness(&["run", "grid.yaml", "--device", "cpu", "--out", out])
    }

    pub fn run(&self, out: &str) -> Output {
        self.command(out).output().expect("the program starts")
    }

    /// The results without what legitimately differs between runs: times and memory.
    pub fn results(&self, out: &str) -> Vec<ResultRow> {
        let rows = read_results(&self.path().join(out).join("small/results.parquet")).expect("results");
        rows.into_iter()
            .map(|r| ResultRow {
                train_s: 0.0,
                data_wait_s: None,
                peak_bytes: None,
                allocations: None, // a worker that is new asks for more, and threads wait as it comes
                calibration_s: None,
                threads: 0,
                command: None,
                ..r
            })
            .collect()
    }
}

/// A file's text without the digest at its end.
pub fn unsealed(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (body, _) = text.rsplit_once(",\n  \"digest\": \"").expect("a digest");
    format!("{body}\n}}\n").into_bytes()
}

/// The text with the digest that the program would have given it.
pub fn sealed(text: &[u8]) -> Vec<u8> {
    let body = text.strip_suffix(b"\n}\n").unwrap_or(text);
    let sum = data::files::sha256_hex(&[body, b"\n}\n"].concat());
    [body, b",\n  \"digest\": \"", sum.as_bytes(), b"\"\n}\n"].concat()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
