//! Rows of the publisher's tables, with errors that name file and line.

use std::io::Cursor;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use crate::error::{At, DataError, DataResult};
use crate::plain::{Plain, excerpt};

/// A CSV file with a header row. Blanks around fields and rows without any field do not count.
pub(super) struct Table {
    path: PathBuf,
    reader: csv::Reader<Cursor<Vec<u8>>>,
    names: Vec<String>,
    /// What was not taken as it stands.
    pub(super) mended: Vec<&'static str>,
}

/// Counted as mended, once for a table.
const BLANK_ROWS: &str = "rows without any field";

impl Table {
    pub(super) fn open(path: &Path) -> DataResult<Self> {
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::Missing {
                path: path.to_owned(),
                expected: "a table of PTB-XL".into(),
                next: "check the data folder, or run `harness data fetch ptb-xl`".into(),
            },
            _ => DataError::io(path)(error),
        })?;
        Self::parse(path, bytes)
    }

    /// A table from what `path` holds.
    pub(super) fn parse(path: &Path, content: Vec<u8>) -> DataResult<Self> {
        let Plain { text, mended } = Plain::of(path, content)?;
        // rows are held against the header row here: one of blanks alone is none
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(Cursor::new(text.into_bytes()));
        let names = reader.headers().map_err(|error| csv_error(path, &error))?;
        let names = names.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self { path: path.to_owned(), reader, names, mended })
    }

    pub(super) fn column(&self, name: &str) -> DataResult<usize> {
        let missing = || {
            let got = format!("the columns {}", excerpt(&self.names.join(",")));
            DataError::corrupt(&self.path, At::Line(1), format!("a column `{name}`; fetch the file again"), got)
        };
        self.names.iter().position(|column| column == name).ok_or_else(missing)
    }

    pub(super) fn next_row(&mut self) -> DataResult<Option<Row<'_>>> {
        let mut fields = StringRecord::new();
        while self.reader.read_record(&mut fields).map_err(|error| csv_error(&self.path, &error))? {
            if fields.iter().all(|field| field.trim().is_empty()) {
                self.mend(BLANK_ROWS);
                continue;
            }
            if fields.len() != self.names.len() {
                let at = fields.position().map_or(At::File, |position| At::Line(position.line()));
                let got = format!("{} fields, {} in the header row", fields.len(), self.names.len());
                return Err(DataError::corrupt(&self.path, at, ROWS, got));
            }
            return Ok(Some(Row { path: &self.path, fields }));
        }
        Ok(None)
    }

    fn mend(&mut self, what: &'static str) {
        if !self.mended.contains(&what) {
            self.mended.push(what);
        }
    }
}

/// What every row is.
const ROWS: &str = "comma-separated UTF-8 with as many fields as the header row; fetch the file again";

fn csv_error(path: &Path, error: &csv::Error) -> DataError {
    let at = error.position().map_or(At::File, |position| At::Line(position.line()));
    DataError::corrupt(path, at, ROWS, error.to_string())
}

/// A row, with what an error message needs.
pub(super) struct Row<'a> {
    path: &'a Path,
    fields: StringRecord,
}

impl Row<'_> {
    pub(super) fn wrong(&self, expected: impl Into<String>, got: impl Into<String>) -> DataError {
        let at = self.fields.position().map_or(At::File, |position| At::Line(position.line()));
        DataError::corrupt(self.path, at, expected, got)
    }

    /// A field without the blanks around it; the table has checked that every row is as long as the header row.
    pub(super) fn field(&self, column: usize) -> &str {
        self.fields.get(column).unwrap_or_default().trim()
    }

    /// A whole number, which the publisher may have written as `15709.0`.
    pub(super) fn whole(&self, field: &str, name: &str, max: u64) -> DataResult<u64> {
        let digits = field.strip_suffix(".0").unwrap_or(field);
        u64::from_str(digits)
            .ok()
            .filter(|&number| number <= max)
            .ok_or_else(|| self.wrong(format!("{name}: a whole number up to {max}"), format!("`{field}`")))
    }

    pub(super) fn relative_path(&self, field: &str) -> DataResult<String> {
        let inside =
            !field.is_empty() && Path::new(field).components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| field.to_owned()).ok_or_else(|| self.wrong("a path inside the dataset", format!("`{field}`")))
    }
}
