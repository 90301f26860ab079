//! `harness data inspect` as a user meets it: text, JSON, and exit codes for missing and broken files.

use std::path::Path;
use std::process::{Command, Output};

use data::formats::wfdb::{ChannelToWrite, write_record};

fn inspect(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.current_dir(folder).args(["data", "inspect"]).args(arguments);
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with the record `good` and a file that is no EDF.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    let channel = ChannelToWrite { name: "lead II", units: "mV", gain: 200.0, baseline: 0, digital: &[1, -1, 400] };
    write_record(dir.path(), "good", 100.0, &[channel]).expect("written");
    std::fs::write(dir.path().join("bad.edf"), "0       too short").expect("written");
    dir
}

/// Of the samples 1, −1 and 400 as little-endian `i32` (Python: `sha256(struct.pack("<3i", 1, -1, 400))`).
const SHA256: &str = "bb78d553579e4a499e3aef65499ccede805bd1d926319a9d930a23848a4879f8";

#[test]
fn a_record_as_text() {
    let dir = folder();
    let output = inspect(dir.path(), &["good"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = format!(
        "good.hea: WFDB, 1 channels, 0.03 s\n  \
         channel  unit  rate Hz  samples  digital range  steps per unit  at zero  missing\n  \
         lead II    mV      100        3      -1 to 400             200        0        0\n  \
         sha256 {SHA256}\n"
    );
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_folder_with_a_broken_file_as_json() {
    let dir = folder();
    let output = inspect(dir.path(), &[".", "--json"]);
    assert_eq!(output.status.code(), Some(4), "data that are missing or corrupt");
    assert!(
        text(&output.stderr).contains("bad.edf") && text(&output.stderr).contains("byte 0"),
        "{}",
        text(&output.stderr)
    );
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let report = &reports[0];
    assert_eq!((&report["kind"], &report["layout"]), (&"folder".into(), &"recordings".into()));
    let recording = &report["recordings"][0];
    assert_eq!((&recording["path"], &recording["sha256"]), (&"good.hea".into(), &SHA256.into()));
    let channel = &recording["channels"][0];
    assert_eq!((&channel["name"], &channel["unit"]), (&"lead II".into(), &"mV".into()));
    assert_eq!((&channel["rate_hz"], &channel["samples"]), (&100.0.into(), &3.into()));
    assert_eq!(report["problems"][0]["path"], "bad.edf");
}

#[test]
fn nothing_there_is_missing_data() {
    let dir = folder();
    let output = inspect(dir.path(), &["none", "good", "--json"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("none: not found"), "{}", text(&output.stderr));
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(reports.as_array().map(Vec::len), Some(1), "the other path is reported all the same");
    assert_eq!(inspect(dir.path(), &[]).status.code(), Some(2));
}
