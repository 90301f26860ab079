//! Seizure detection from generated EDF files to the report, through the program.

mod common;

use common::{Folder, stderr, stdout};

const GRID: &str = "\
experiment: small
task:
  kind: seizure
  generate: {patients: 4, recordings: 2, seconds: 60}
  train_cases: [chb01, chb02]
  valid_cases: [chb03]
  test_cases: [chb04]
  stretch_seconds: 20
models:
  - {kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 1, train: {segment: 20}}
  - {kind: cnn, width: 8, layers: 2, train: {segment: 40}}
train: {streams: 2, epochs: 1, curve_points: 2, eval_streams: 2}
";

#[test]
fn from_edf_files_to_the_report() {
    let folder = Folder::new();
    folder.grid(GRID);
    let output = folder.run("out");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("AUC-ROC"), "{}", stdout(&output));
    let report = std::fs::read_to_string(folder.path().join("out/small/report.md")).unwrap();
    // the paper's values are of other data
    assert!(!report.contains("AUC-ROC 0.95, AUC-PR 0.90") && report.contains("Generated data"), "{report}");
    assert!(report.contains("cases chb01, chb02 and evaluates on its case chb04"), "{report}");
    let rows = folder.results("out");
    for model in ["bim", "cnn"] {
        let value = |metric: &str| {
            let row = rows.iter().find(|r| r.model == model && r.metric.as_deref() == Some(metric));
            row.unwrap_or_else(|| panic!("{model} has no {metric}"))
        };
        for metric in ["auc_roc", "auc_pr", "event_sensitivity", "false_alarms_per_hour", "threshold_log_odds"] {
            assert!(value(metric).value.is_some_and(f64::is_finite), "{model} {metric}");
        }
        // two recordings of 60 s in windows of 4 s
        assert_eq!(value("auc_roc").n, Some(30));
        assert!((value("scored_hours").value.unwrap() - 120.0 / 3600.0).abs() < 1e-9);
        assert_eq!(value("training_seizures").value, Some(2.0));
        assert_eq!(value("auc_roc").split.as_deref(), Some("test"));
    }
    // the same again from the same files, in another folder
    let again = folder.run("again");
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(folder.results("again"), rows);
}

/// A configuration that cannot be right ends with 2, data that are not there with 4, and both say what is expected.
#[test]
fn what_is_wrong_is_told_before_anything_starts() {
    let folder = Folder::new();
    folder.grid(&GRID.replace("test_cases: [chb04]", "test_cases: [chb03]"));
    let output = folder.run("out");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("both have the patient of chb03"), "{}", stderr(&output));
    folder.grid(&GRID.replace("  generate: {patients: 4, recordings: 2, seconds: 60}\n", ""));
    let output = folder.run("out");
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("chb-mit/RECORDS: not found"), "{}", stderr(&output));
}
