//! The main tables as plain text for a terminal: ASCII, aligned, no line longer than [`WIDTH`].

use serde::Serialize;
use tera::Context;

use super::super::ReportError;
use super::super::model::{Cell, Place, Report, Table};
use super::escape::ascii;
use super::fill;

/// Columns of the terminal.
const WIDTH: usize = 100;
/// Characters between two columns.
const GAP: usize = 2;
/// Characters below which a column of text is not made narrower.
const LEAST: usize = 18;

/// The main tables as aligned plain text, ASCII only, for a terminal of 100 columns. Of several sections only the results are printed,
/// so that they fit a screen or two; everything else is in the page.
///
/// # Errors
/// `Template` if the template does not fit the data: a mistake of the build.
pub fn terminal(report: &Report) -> Result<String, ReportError> {
    let one = report.sections.len() == 1;
    let sections = report.sections.iter().map(|section| {
        let shown = section.tables.iter().filter(|table| table.place == Place::Everywhere);
        let most = if one { usize::MAX } else { 1 };
        TextSection { heading: ascii(&section.heading), tables: shown.take(most).map(TextTable::new).collect() }
    });
    let mut context = Context::new();
    context.insert("sections", &sections.collect::<Vec<_>>());
    context.insert("failures", &report.failures.as_ref().map(TextTable::new));
    context.insert("outcome", &report.outcome);
    fill("table.txt", include_str!("../../../../reports/templates/table.txt.tera"), &context)
}

#[derive(Serialize)]
struct TextSection {
    heading: String,
    tables: Vec<TextTable>,
}

/// A table as lines of text.
#[derive(Serialize)]
struct TextTable {
    title: String,
    caption: Vec<String>,
    lines: Vec<String>,
    notes: Vec<String>,
}

impl TextTable {
    fn new(table: &Table) -> Self {
        let best = "* cannot be told from the best at 5 % (paired t tests over seeds, Holm over all pairs)";
        let mut notes: Vec<String> = table.marks_best.then(|| best.to_owned()).into_iter().collect();
        notes.extend(table.notes.iter().flat_map(|note| wrap(&ascii(note), WIDTH)));
        Self { title: ascii(&table.title), caption: wrap(&ascii(&table.caption), WIDTH), lines: lines(table), notes }
    }
}

/// A column as text, and how it is set.
struct Column {
    numeric: bool,
    head: String,
    cells: Vec<String>,
    /// Characters of its lines, and those that it would have with room for all.
    width: usize,
    whole: usize,
}

impl Column {
    fn of(table: &Table, index: usize) -> Self {
        let column = table.columns.get(index);
        let text = |cell: &Cell| ascii(&cell.text) + if cell.best { " *" } else { "" };
        let cells: Vec<String> = table.rows.iter().map(|row| row.get(index).map_or_else(String::new, text)).collect();
        let head = column.map_or_else(String::new, |column| ascii(&column.label));
        let width = cells.iter().map(String::len).max().unwrap_or(0).max(head.len());
        Self { numeric: column.is_some_and(|column| column.numeric), head, cells, width, whole: width }
    }

    /// Characters that it needs with its head broken between words.
    fn least(&self) -> usize {
        let word = self.head.split(' ').map(str::len).max().unwrap_or(0);
        let widest = self.cells.iter().map(String::len).max().unwrap_or(0);
        let body = if self.numeric { widest } else { widest.min(LEAST) };
        let words = self.cells.iter().flat_map(|cell| cell.split(' ')).map(str::len).max().unwrap_or(0);
        word.max(body).max(if self.numeric { 0 } else { words })
    }

    fn set(&self, text: &str) -> String {
        let width = self.width;
        if self.numeric { format!("{text:>width$}") } else { format!("{text:<width$}") }
    }
}

/// The lines of a table; what does not fit beside each other stands below, with the columns that name the rows again.
fn lines(table: &Table) -> Vec<String> {
    let mut columns: Vec<Column> = (0..table.columns.len()).map(|i| Column::of(table, i)).collect();
    let total = |columns: &[Column]| columns.iter().map(|c| c.width + GAP).sum::<usize>().saturating_sub(GAP);
    // the widest first gives way, as far as its words allow
    while total(&columns) > WIDTH {
        let Some(widest) = columns.iter_mut().filter(|c| c.width > c.least()).max_by_key(|c| c.width) else { break };
        widest.width -= 1;
    }
    let labels = table.labels.clamp(1, columns.len().max(1)).min(columns.len());
    let room = WIDTH.saturating_sub(columns.iter().take(labels).map(|c| c.width + GAP).sum::<usize>());
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new()];
    let mut used = 0;
    for (i, column) in columns.iter().enumerate().skip(labels) {
        if used > 0 && used + column.width > room {
            blocks.push(Vec::new());
            used = 0;
        }
        used += column.width + GAP;
        if let Some(block) = blocks.last_mut() {
            block.push(i);
        }
    }
    for block in &blocks {
        widen(&mut columns, block, room);
    }
    let mut out = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        if i > 0 {
            out.push(String::new());
        }
        let shown: Vec<&Column> = (0..labels).chain(block.iter().copied()).filter_map(|i| columns.get(i)).collect();
        out.extend(self::block(&shown, table.rows.len()));
    }
    out
}

/// Gives the columns of a block what is left of its room.
fn widen(columns: &mut [Column], block: &[usize], room: usize) {
    let width = |columns: &[Column]| block.iter().filter_map(|i| columns.get(*i)).map(|c| c.width + GAP).sum::<usize>();
    let mut left = room.saturating_sub(width(columns).saturating_sub(GAP));
    for i in block {
        if let Some(column) = columns.get_mut(*i) {
            let more = (column.whole - column.width).min(left);
            column.width += more;
            left -= more;
        }
    }
}

/// Head, rule and rows of the columns that stand beside each other.
fn block(columns: &[&Column], rows: usize) -> Vec<String> {
    // what a line of cells is, each broken within its column
    let line = |texts: Vec<Vec<String>>, from_below: bool| -> Vec<String> {
        let height = texts.iter().map(Vec::len).max().unwrap_or(0);
        let at = |i: usize| {
            let cells = texts.iter().zip(columns).map(|(lines, column)| {
                let skip = if from_below { height - lines.len() } else { 0 };
                let text = i.checked_sub(skip).and_then(|i| lines.get(i)).map_or("", String::as_str);
                column.set(text)
            });
            cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
        };
        (0..height).map(at).collect()
    };
    let mut out = line(columns.iter().map(|column| wrap(&column.head, column.width)).collect(), true);
    out.push(columns.iter().map(|column| "-".repeat(column.width)).collect::<Vec<_>>().join(&" ".repeat(GAP)));
    for row in 0..rows {
        let cell = |column: &&Column| wrap(column.cells.get(row).map_or("", String::as_str), column.width);
        out.extend(line(columns.iter().map(cell).collect(), false));
    }
    out
}

/// Breaks running text between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::super::model::Column as Head;
    use super::*;

    #[test]
    fn a_wide_table_is_broken_and_names_its_rows_again() {
        let mut table = Table::empty("t".into(), "T", "c");
        table.push_column(Head::text("model"), vec![Cell::new("first"), Cell::new("second")]);
        for i in 0..9 {
            let label = format!("a rather long heading {i}");
            table.push_column(Head::number(label), vec![Cell::new("1.234 [1.111, 1.333]"), Cell::new("2")]);
        }
        table.push_column(Head::text("why"), vec![Cell::new("many words ".repeat(12).trim()), Cell::new("few")]);
        let lines = lines(&table);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{}", lines.join("\n"));
        assert!(lines.iter().filter(|line| line.starts_with("second")).count() > 1, "{}", lines.join("\n"));
        assert_eq!(lines.iter().map(|line| line.matches("1.234").count()).sum::<usize>(), 9);
        assert_eq!(lines.iter().map(|line| line.matches("many").count()).sum::<usize>(), 12);
    }

    #[test]
    fn a_narrow_table_is_left_as_it_is() {
        let mut table = Table::empty("t".into(), "T", "c");
        table.push_column(Head::text("model"), vec![Cell::new("bim")]);
        table.push_column(Head::number("a b c"), vec![Cell::new("1")]);
        assert_eq!(lines(&table), ["model  a b c", "-----  -----", "bim        1"]);
    }
}
