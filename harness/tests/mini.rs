//! `harness data mini` as a newcomer runs it.

use std::path::Path;
use std::process::{Command, Output};

fn harness(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.args(args).env("HARNESS_DATA", data).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn datasets_are_generated_by_name_and_size_and_not_over_others() {
    let dir = tempfile::tempdir().expect("folder");
    let out = harness(dir.path(), &["data", "mini", "wikitext-103", "ptb-xl", "--size", "2"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let roots: Vec<_> = text(&out.stdout).lines().map(str::to_owned).collect();
    assert_eq!(roots, ["wikitext-103", "ptb-xl"].map(|d| dir.path().join("mini").join(d).display().to_string()));
    let bytes = std::fs::metadata(dir.path().join("mini/wikitext-103/wiki.train.tokens")).expect("text").len();
    assert!((600_000..610_000).contains(&bytes), "{bytes}");
    let table = std::fs::read_to_string(dir.path().join("mini/ptb-xl/ptbxl_database.csv")).expect("table");
    assert_eq!(table.lines().count(), 1 + 400);
    // the publishers' layouts: what reads those reads these
    let data = dir.path().join("mini");
    let listed = harness(&data, &["data", "inspect", "--json", &data.join("ptb-xl").display().to_string()]);
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    // the same again is nothing to do, another size in the same place is refused
    assert!(harness(dir.path(), &["data", "mini", "ptb-xl", "--size", "2"]).status.success());
    let other = harness(dir.path(), &["data", "mini", "ptb-xl"]);
    assert_eq!(other.status.code(), Some(4));
    assert!(text(&other.stderr).contains("something else is in this folder"), "{}", text(&other.stderr));
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    let dir = tempfile::tempdir().expect("folder");
    let out = harness(dir.path(), &["data", "mini", "ptb-xl", "chb_mitt"]);
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr);
    assert!(message.contains("`chb_mitt`") && message.contains("did you mean `chb-mit`?"), "{message}");
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("folder").count(),
        0,
        "nothing is generated before all is understood"
    );
    let none = harness(dir.path(), &["data", "mini", "--size", "0"]);
    assert_eq!(none.status.code(), Some(2));
}
