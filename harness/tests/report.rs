//! `harness report`: formats, a template of one's own, a choice of columns, and what is wrong with either.

mod common;

use std::process::Output;

use common::{Folder, stderr, stdout};

const GRID: &str = "\
experiment: small
description: Does the report say what it should?
task: {kind: language, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
models:
  - {kind: lstm, width: 16, layers: 1}
  - {kind: rnn, width: 16, layers: 1}
train: {streams: 4, segment: 25, seen: 1_000, curve_points: 0, eval_streams: 4}
";

fn report(folder: &Folder, arguments: &[&str]) -> Output {
    folder.harness(&["report"]).args(arguments).output().expect("starts")
}

#[test]
fn every_format_is_written_where_it_was_asked_for() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert!(folder.run("runs").status.success());
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect(path);
    let output = report(&folder, &["runs/small", "--format", "md,html,tex,csv,json", "--out", "all"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for file in ["report.md", "report/index.html", "tables.tex", "summary.csv", "report.json"] {
        assert!(stdout(&output).contains(file), "{}", stdout(&output));
        assert!(!read(&format!("all/{file}")).is_empty());
    }
    let question = "Does the report say what it should?";
    assert!(read("all/report/index.html").contains(question) && read("all/report.json").contains(question));
    // the same input gives the same bytes
    let page = read("all/report/index.html");
    assert_eq!(report(&folder, &["runs/small", "--format", "html", "--out", "all"]).status.code(), Some(0));
    assert_eq!(page, read("all/report/index.html"));
    // columns for a narrow page
    let chosen = ["runs/small", "--format", "tex", "--columns", "bits per byte,seeds", "--out", "narrow"];
    assert_eq!(report(&folder, &chosen).status.code(), Some(0));
    assert!(read("narrow/tables.tex").contains("model & bits per byte & seeds \\\\"), "{}", read("narrow/tables.tex"));
    // a template of one's own
    std::fs::write(folder.path().join("own.txt.tera"), "{{ title }} of {{ sections[0].short }}\n").expect("written");
    let output = report(&folder, &["runs/small", "--template", "own.txt.tera", "--out", "own"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(read("own/own.txt"), "small of language\n");
    assert!(!folder.path().join("own/report.md").exists(), "nothing else was asked for");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_written() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert!(folder.run("runs").status.success());
    for (name, text) in [("bad.txt.tera", "{{ titel }}"), ("results.parquet.tera", "x"), ("plain.txt", "x")] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let results = std::fs::read(folder.path().join("runs/small/results.parquet")).expect("results");
    for (arguments, expected) in [
        (&["runs/small", "--columns", "bits per bite", "--out", "x"][..], "no table has a column `bits per bite`"),
        (&["runs/small", "--metrics", "wer", "--out", "x"], "no table has a metric `wer`"),
        (&["runs/small", "--template", "none.tera", "--out", "x"], "none.tera"),
        (&["runs/small", "--template", "bad.txt.tera", "--out", "x"], "reports/templates/README.md"),
        (&["runs/small/results.parquet", "--format", "csv"], "name one with --out"),
        (&["runs/small", "--format", "docx"], "docx"),
        (&["runs/small", "--template", "results.parquet.tera"], "it would be overwritten"),
        (&["runs/small", "--template", "plain.txt", "--out", "."], "it would be overwritten"),
    ] {
        let output = report(&folder, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!folder.path().join("x").exists());
    assert_eq!(std::fs::read(folder.path().join("runs/small/results.parquet")).expect("results"), results);
    assert_eq!(std::fs::read_to_string(folder.path().join("plain.txt")).expect("the template"), "x");
}

/// A finished run writes its report again only where something is missing or asks another question.
#[test]
fn a_finished_run_mends_its_report() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert!(folder.run("runs").status.success());
    let path = |name: &str| folder.path().join("runs/small").join(name);
    let read = |name: &str| std::fs::read_to_string(path(name)).expect(name);
    let (text, tables) = (read("report.md"), read("tables.tex"));
    std::fs::remove_file(path("report.md")).expect("removed");
    std::fs::write(path("tables.tex"), "cut").expect("written");
    assert!(folder.run("runs").status.success());
    assert_eq!((read("report.md"), read("tables.tex")), (text, tables));
    folder.grid(&GRID.replace("what it should?", "something else?"));
    assert!(folder.run("runs").status.success());
    assert!(read("report/index.html").contains("Does the report say something else?"));
}

/// A log beside the results that changes nothing in them.
#[test]
fn tensorboard_gets_the_rows_of_every_cell() {
    let folder = Folder::new();
    folder.grid(GRID);
    assert!(folder.run("plain").status.success());
    let output = folder.command("runs").arg("--tensorboard").output().expect("starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let rows = |out: &str| rows::results::read_results(&folder.path().join(out).join("small/results.parquet"));
    let values = |out: &str| -> Vec<(String, Option<String>, Option<f64>)> {
        let measured = rows(out).expect("results").into_iter().filter(|row| row.split.as_deref() == Some("test"));
        measured.map(|row| (row.cell, row.metric, row.value)).collect()
    };
    assert_eq!(values("plain"), values("runs"));
    assert!(!values("runs").is_empty());
    let of = |model: &str| {
        let found =
            std::fs::read_dir(folder.path().join("runs/small/tensorboard/language")).expect("the task's folder");
        let of = |name: &str| name.starts_with(&format!("{model}-seed1-"));
        let folders: Vec<_> = found.flatten().filter(|entry| entry.file_name().to_str().is_some_and(of)).collect();
        assert_eq!(folders.len(), 1, "{model}");
        let files: Vec<_> = std::fs::read_dir(folders[0].path()).expect("the cell's folder").flatten().collect();
        assert!(files.len() == 1 && files[0].file_name().to_string_lossy().starts_with("events.out.tfevents."));
        String::from_utf8_lossy(&std::fs::read(files[0].path()).expect("an event file")).into_owned()
    };
    for model in ["lstm", "rnn"] {
        let text = of(model);
        assert!(text.contains("brain.Event:2") && text.contains("train/loss") && text.contains("test/bits_per_byte"));
    }
    assert!(!folder.path().join("plain/small/tensorboard").exists());
    // a folder that cannot be made is said before anything starts
    std::fs::create_dir_all(folder.path().join("full/small")).expect("a folder");
    std::fs::write(folder.path().join("full/small/tensorboard"), "a file").expect("written");
    let refused = folder.command("full").arg("--tensorboard").output().expect("starts");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("tensorboard") && !folder.path().join("full/small/cells").exists());
}
