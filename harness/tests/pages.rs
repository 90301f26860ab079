//! The pages on models stay true: their links lead to files, the code that they name exists, and rows of figures that they copy
//! stand where they come from.
//!
//! A page names code as `` `file.rs` · `name`, `other` ``. The file lies under the page's crate in `src`, in the crate, or in the
//! repository. A table with a column `code` names some in every row. Rows that follow `<!-- rows of FILE -->` stand in that file.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

/// Markdown files below a folder, as paths from the root.
fn markdown(folder: &str) -> Vec<String> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the repository") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let path = format!("{folder}/{name}");
            if entry.file_type().expect("a type").is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if has_extension(&path, "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The pages on models.
fn models() -> Vec<String> {
    let mut pages = markdown("baselines/docs");
    pages.push("bim/README.md".to_owned());
    pages
}

/// Lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// Targets of the links in a line, but for those in code.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split('`').step_by(2).flat_map(|text| text.split("](").skip(1));
    targets.filter_map(|target| target.split([')', ' ']).next()).collect()
}

/// Whether a page has the heading that a link's fragment means, as GitHub names headings: in lower case, hyphens for spaces, without
/// other punctuation. Of equal headings the first is meant.
fn has_heading(page: &Path, fragment: &str) -> bool {
    let text = fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let letter = |c: char| match c {
        ' ' => Some('-'),
        c => (c.is_alphanumeric() || c == '-' || c == '_').then_some(c),
    };
    let slug = |heading: &str| heading.to_lowercase().chars().filter_map(letter).collect::<String>();
    prose(&text).any(|line| line.starts_with('#') && slug(line.trim_start_matches('#').trim_start()) == fragment)
}

/// Files and names of code in a line.
fn references(line: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = line.split('`').collect(); // code at the odd places
    let (mut file, mut found) = (None, Vec::new());
    for (i, &code) in parts.iter().enumerate().skip(1).step_by(2) {
        if has_extension(code, "rs") {
            file = Some(code);
        } else if let (Some(file), " · " | ", ") = (file, parts[i - 1]) {
            found.push((file, code));
        } else {
            file = None;
        }
    }
    found
}

/// Cells of a row of a table; a bar inside a cell is written with a backslash.
fn cells(line: &str) -> Vec<String> {
    line.replace("\\|", "/").trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Rows of tables with a column `code` that name none.
fn rows_without_code(text: &str) -> Vec<&str> {
    let (mut above, mut column, mut found) = ("", None, Vec::new());
    for line in prose(text) {
        if line.starts_with("|---") {
            column = cells(above).iter().position(|title| title == "code");
        } else if !line.starts_with('|') {
            column = None;
        } else if let Some(column) = column {
            let row = cells(line);
            if row.get(column).is_none_or(|cell| references(cell).is_empty()) {
                found.push(line);
            }
        }
        above = line;
    }
    found
}

/// The source file that a page means.
fn source(page: &str, file: &str) -> Option<String> {
    let home = page.split('/').next().unwrap_or_default();
    let places = [format!("{home}/src/{file}"), format!("{home}/{file}"), file.to_owned()];
    places.iter().find_map(|place| fs::read_to_string(root().join(place)).ok())
}

/// Whether every part of `Type::name` is a whole word of the source.
fn names(source: &str, name: &str) -> bool {
    let is_word = |part: &str| source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == part);
    name.split("::").all(is_word)
}

#[test]
fn every_link_leads_to_a_file() {
    let mut pages = ["README.md", "CONTRIBUTING.md"].map(str::to_owned).to_vec();
    pages.extend(["bim", "baselines", "reports/results"].into_iter().flat_map(markdown));
    let (mut followed, mut broken) = (0, Vec::new());
    for page in &pages {
        let (path, text) = (root().join(page), read(page));
        let folder = path.parent().expect("a page lies in a folder");
        for target in prose(&text).flat_map(links) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { folder.join(file) };
            let to_heading = !heading.is_empty() && file.extension().is_some_and(|e| e == "md");
            if !file.exists() || to_heading && !has_heading(&file, heading) {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(followed > 0, "no link was found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn code_that_a_page_names_exists() {
    let mut wrong = Vec::new();
    for page in ["bim", "baselines"].into_iter().flat_map(markdown) {
        let text = read(&page);
        for (file, name) in prose(&text).flat_map(references) {
            match source(&page, file) {
                None => wrong.push(format!("{page}: there is no {file}")),
                Some(found) if !names(&found, name) => wrong.push(format!("{page}: {file} has no {name}")),
                Some(_) => {}
            }
        }
        wrong.extend(rows_without_code(&text).into_iter().map(|row| format!("{page}: a row without code: {row}")));
    }
    for page in models() {
        if prose(&read(&page)).flat_map(references).next().is_none() {
            wrong.push(format!("{page}: names no code at all"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn copied_rows_stand_where_they_come_from() {
    let (mut copied, mut wrong) = (0, Vec::new());
    for page in models() {
        let mut from = None;
        for line in read(&page).lines() {
            if let Some(file) = line.strip_prefix("<!-- rows of ").and_then(|rest| rest.strip_suffix(" -->")) {
                from = Some(read(file));
            } else if !line.starts_with('|') {
                from = from.filter(|_| line.is_empty()); // what comes between ends the rows
            } else if let Some(from) = &from {
                copied += 1;
                if !from.lines().any(|other| other == line) {
                    wrong.push(format!("{page}: {line}"));
                }
            }
        }
    }
    assert!(copied > 0, "no row was found");
    assert!(wrong.is_empty(), "rows that do not stand where they come from:\n{}", wrong.join("\n"));
}

#[test]
fn a_line_is_taken_apart_as_it_is_meant() {
    let line =
        "| `h_t` | `ops/a.rs` · `step`, `Neuron::fire`; `b.rs` · `gate` | see [`c.rs`](../src/c.rs#top), `[x](y)` |";
    assert_eq!(references(line), [("ops/a.rs", "step"), ("ops/a.rs", "Neuron::fire"), ("b.rs", "gate")]);
    assert_eq!(links(line), ["../src/c.rs#top"]);
    assert_eq!(cells("| `\\|w\\|` | | b |"), ["`/w/`", "", "b"]);
    assert_eq!(rows_without_code("| a | code |\n|---|---|\n| 1 | `x.rs` · `f` |\n| 2 | `f` |"), ["| 2 | `f` |"]);
    assert!(names("impl Neuron { fn fire_slow() }", "Neuron::fire_slow"));
    assert!(!names("impl Neuron { fn fire_slow() }", "fire"));
    assert_eq!(prose("a\n```sh\nb\n```\nc").collect::<Vec<_>>(), ["a", "c"]);
}
