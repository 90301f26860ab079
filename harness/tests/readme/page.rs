//! Pages: their lines, tables and sections, and how what is wrong in them is said or mended.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where the pages of results and their index lie.
pub const RESULTS: &str = "reports/results";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether generated lines are to be written anew.
pub fn updates() -> bool {
    std::env::var_os("HARNESS_UPDATE").is_some()
}

/// What a page must say in place of some of its lines.
pub struct Change {
    pub lines: Range<usize>,
    pub right: Vec<String>,
}

/// A table: what the comment before it says, its titles, and its rows as numbers of lines.
pub struct Table<'a> {
    pub comment: &'a str,
    pub titles: Vec<&'a str>,
    pub rows: Range<usize>,
}

pub struct Page {
    /// From the repository's root.
    pub path: String,
    text: String,
}

impl Page {
    pub fn read(path: String) -> Self {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { path, text }
    }

    /// The pages of results, one for each question.
    pub fn all() -> Vec<Self> {
        let mut paths = names(RESULTS, "md");
        paths.retain(|name| name != "README.md");
        paths.sort();
        paths.into_iter().map(|name| Self::read(format!("{RESULTS}/{name}"))).collect()
    }

    /// The index of the pages of results.
    pub fn index() -> Self {
        Self::read(format!("{RESULTS}/README.md"))
    }

    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    /// Titles of the sections, in their order.
    pub fn sections(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("## ")).collect()
    }

    /// The lines under a section's title.
    pub fn section(&self, title: &str) -> Range<usize> {
        let lines = self.lines();
        let found = lines.iter().position(|line| line.strip_prefix("## ") == Some(title));
        let from = found.unwrap_or_else(|| panic!("{} has no section `{title}`", self.path)) + 1;
        let to = lines[from..].iter().position(|line| line.starts_with("## "));
        from..to.map_or(lines.len(), |to| from + to)
    }

    /// The first paragraph of a section, as one line.
    pub fn opening(&self, section: &str) -> String {
        let lines = &self.lines()[self.section(section)];
        let paragraph = lines.iter().skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
        paragraph.copied().collect::<Vec<_>>().join(" ")
    }

    /// The tables within some lines.
    pub fn tables(&self, within: Range<usize>) -> Vec<Table<'_>> {
        let lines = self.lines();
        let heads = within.clone().filter(|&i| lines[i].starts_with("|---"));
        let table = |i: usize| {
            let before = lines[..i - 1].iter().rev().find(|line| !line.is_empty()).unwrap_or(&"");
            let comment = before.strip_prefix("<!-- ").and_then(|c| c.strip_suffix(" -->")).unwrap_or_default();
            let rows = lines[i + 1..within.end].iter().take_while(|line| line.starts_with('|')).count();
            Table { comment, titles: cells(lines[i - 1]), rows: i + 1..i + 1 + rows }
        };
        heads.map(table).collect()
    }

    /// Fails with what is not as it must be, or writes it anew.
    pub fn settle(&self, mut changes: Vec<Change>) {
        if updates() {
            let mut lines: Vec<String> = self.text.lines().map(str::to_owned).collect();
            changes.sort_by_key(|change| change.lines.start);
            for change in changes.into_iter().rev() {
                lines.splice(change.lines, change.right);
            }
            fs::write(root().join(&self.path), lines.join("\n") + "\n").expect("a page that can be written");
            return;
        }
        let wrong = changes.iter().map(|Change { lines, right }| match &right[..] {
            [] => format!("line {}: must not be there", lines.start + 1),
            right => format!("line {}: right is\n{}", lines.start + 1, right.join("\n")),
        });
        let wrong: Vec<String> = wrong.collect();
        assert!(wrong.is_empty(), "{} (HARNESS_UPDATE=1 mends it):\n{}", self.path, wrong.join("\n"));
    }
}

/// Names of a folder's files with an extension.
pub fn names(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder of the repository");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let wanted = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    let name = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
    wanted.map(name).collect()
}

/// Cells of a table's row.
pub fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The target of the first link in a cell.
pub fn link(cell: &str) -> Option<&str> {
    cell.split_once("](")?.1.split(')').next()
}

/// Figures with a decimal point, a per cent sign or a multiplication sign behind them.
pub fn figures(line: &str) -> Vec<String> {
    let words =
        line.split(|c: char| c.is_whitespace() || "()[],;".contains(c)).map(|word| word.trim_end_matches(['.', ':']));
    let is_figure = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && (word.contains('.') || word.ends_with('×') || word.ends_with('%'))
    };
    words.filter(is_figure).map(str::to_owned).collect()
}
