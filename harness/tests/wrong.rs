//! Wrong grids and wrong command lines, with all that the program says of them: `wrong.txt`. Each case changes [`GRID`] (`-` what is
//! replaced, `+` by what) or gives a command (`$`), in which `CELL` is the folder of a cell that was planned and never run; below `----`
//! stand the exit code and what goes to standard error.
//! `HARNESS_UPDATE=1` writes the file anew, to be read before it is committed.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Folder, GRID, stderr};

struct Case<'a> {
    name: &'a str,
    head: &'a str,
    expected: &'a str,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let case = |block: &'static str| {
        let (name, rest) = block.split_once('\n').expect("a name");
        let (head, expected) = rest.split_once("----\n").expect("a line of four dashes");
        Case { name, head, expected }
    };
    // the file lives as long as the test
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    text.split("==== ").skip(1).map(case).collect()
}

/// The grid of a case and the arguments of its command.
fn made(head: &str) -> (String, String) {
    let (mut grid, mut command, mut replaced) =
        (GRID.to_owned(), "run grid.yaml --device cpu --out runs".to_owned(), None);
    for line in head.lines() {
        let text = |line: &str| line.replace("\\n", "\n").replace("\\t", "\t");
        match line.split_at(2.min(line.len())) {
            ("- ", old) => replaced = Some(text(old)),
            ("+ " | "+", new) => {
                let old = replaced.take().expect("what is replaced");
                assert!(grid.contains(&old), "{old:?} is not in the grid");
                grid = grid.replacen(&old, &text(new), 1);
            }
            ("$ ", line) => line.strip_prefix("harness").expect("the program").trim().clone_into(&mut command),
            _ => panic!("{line}"),
        }
    }
    (grid, command)
}

/// The folder of a cell that was planned and never run.
fn planned(folder: &Folder, program: &dyn Fn(&str) -> Output) -> String {
    let output = program("plan grid.yaml --write --device cpu --out planned --json");
    assert!(output.status.success(), "{}", stderr(&output));
    let plan = std::fs::read_to_string(folder.path().join("planned/small/plan.json")).expect("a plan");
    let (_, rest) = plan.split_once("\"id\": \"").expect("a cell");
    format!("planned/small/cells/{}", rest.split('"').next().unwrap_or_default())
}

/// What no case may do.
const STARTED: &str = "(something was started)\n";

fn said(case: &Case<'_>) -> String {
    let folder = Folder::new();
    let (grid, command) = made(case.head);
    folder.grid(&grid);
    std::fs::write(folder.path().join("prices.yaml"), "name: mine\nsource: none\n").expect("a cost model");
    let program = |arguments: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_harness"));
        program.current_dir(folder.path()).args(arguments.split_whitespace()).env_remove("HARNESS_DATA");
        program.output().expect("the program starts")
    };
    let planned = if command.contains("CELL") { planned(&folder, &program) } else { String::new() };
    let output = program(&command.replace("CELL", &planned));
    let started = if folder.path().join("runs").exists() || !output.stdout.is_empty() { STARTED } else { "" };
    let code = output.status.code().expect("an exit code");
    let text = stderr(&output).replace(&folder.path().display().to_string(), "FOLDER");
    let text = if planned.is_empty() { text } else { text.replace(&planned, "CELL") };
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("exit {code}\n{started}{}\n", lines.join("\n"))
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_a_way_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong.txt");
    let text = std::fs::read_to_string(&path).expect("the cases");
    let cases = cases(&text);
    assert!(cases.len() >= 80, "{}", cases.len());
    let said: Vec<String> = cases.iter().map(said).collect();
    if std::env::var_os("HARNESS_UPDATE").is_some() {
        let whole =
            cases.iter().zip(&said).map(|(case, said)| format!("==== {}\n{}----\n{said}", case.name, case.head));
        std::fs::write(&path, whole.collect::<String>()).expect("written");
        return;
    }
    assert!(!text.contains(STARTED));
    for (case, said) in cases.iter().zip(said) {
        assert_eq!(said, case.expected, "{}", case.name);
    }
}
