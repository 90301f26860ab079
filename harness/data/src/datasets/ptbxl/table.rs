//! Rows of the publisher's tables, with errors that name file and line.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use crate::error::{At, DataError, DataResult};

/// A CSV file with a header row.
pub(super) struct Table<R> {
    path: PathBuf,
    reader: csv::Reader<R>,
    names: StringRecord,
}

impl Table<File> {
    pub(super) fn open(path: &Path) -> DataResult<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::Missing {
                path: path.to_owned(),
                expected: "a table of PTB-XL".into(),
                next: "check the data folder, or run `harness data fetch ptb-xl`".into(),
            },
            _ => DataError::io(path)(error),
        })?;
        Self::parse(path, file)
    }
}

impl<R: Read> Table<R> {
    /// A table from what `path` holds.
    pub(super) fn parse(path: &Path, content: R) -> DataResult<Self> {
        let mut reader = csv::Reader::from_reader(content);
        let names = reader.headers().map_err(|error| csv_error(path, &error))?.clone();
        Ok(Self { path: path.to_owned(), reader, names })
    }

    pub(super) fn column(&self, name: &str) -> DataResult<usize> {
        let missing = || {
            let got = self.names.iter().collect::<Vec<_>>().join(",");
            DataError::corrupt(&self.path, At::Line(1), format!("a column `{name}`"), format!("the columns {got}"))
        };
        self.names.iter().position(|column| column == name).ok_or_else(missing)
    }

    pub(super) fn next_row(&mut self) -> DataResult<Option<Row<'_>>> {
        let mut fields = StringRecord::new();
        let found = self.reader.read_record(&mut fields).map_err(|error| csv_error(&self.path, &error))?;
        Ok(found.then_some(Row { path: &self.path, fields }))
    }
}

fn csv_error(path: &Path, error: &csv::Error) -> DataError {
    let at = error.position().map_or(At::File, |position| At::Line(position.line()));
    DataError::corrupt(path, at, "comma-separated UTF-8 with as many fields as the header row", error.to_string())
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

    /// The reader has checked that every row is as long as the header row.
    pub(super) fn field(&self, column: usize) -> &str {
        self.fields.get(column).unwrap_or_default()
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
