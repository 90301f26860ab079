//! The results table: one row per cell and metric, failures included, and one column per configuration path.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use polars::prelude::DataFrame;

use crate::parquet::{Metadata, check_version, read_frame, read_metadata, refused, write_batch};
use crate::row::{Row, Value, column, table};
use crate::settings::Settings;
use data::error::{At, DataError, DataResult};
use data::files::hex;
use sha2::{Digest, Sha256};

/// What the name of a configuration column begins with.
const CONFIG: &str = "config.";

table! {
    /// One metric of one cell, or a cell without metrics: a row of `results.parquet`.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct ResultRow = "results" {
        /// Experiment name.
        pub experiment: String,
        /// Scale, such as `mini` or `paper`.
        pub scale: String,
        /// Cell id.
        pub cell: String,
        /// Task, such as `language`.
        pub task: String,
        /// Model as the grid names it.
        pub model: String,
        /// Kind of model, such as `bim`.
        pub kind: String,
        /// Seed of the cell.
        pub seed: u64,
        /// `completed`, `diverged`, `timed_out`, `out_of_memory`, `failed` or `skipped`.
        pub outcome: String,
        /// Why, unless completed.
        pub reason: Option<String>,
        /// Of a cell that failed: `own`, `data`, `resources` or `outside`; null in files of versions before it was recorded.
        pub cause: Option<String>,
        /// What happened to a cell that went on nevertheless, such as damage that was mended.
        pub notes: Option<String>,
        /// Split the metric is of.
        pub split: Option<String>,
        /// Metric; null for a cell that has none.
        pub metric: Option<String>,
        /// Value; null if undefined.
        pub value: Option<f64>,
        /// Items the metric was computed over.
        pub n: Option<u64>,
        /// Lower end of the 95 % interval over items.
        pub low: Option<f64>,
        /// Upper end.
        pub high: Option<f64>,
        /// Number of parameters of the model; null if it was never built.
        pub parameters: Option<u64>,
        /// Tokens, frames or samples trained on.
        pub seen: u64,
        /// Updates the optimiser made.
        pub updates: u64,
        /// Training time.
        pub train_s: f64,
        /// Of this, time spent waiting for data.
        pub data_wait_s: Option<f64>,
        /// Recurrent state and traces.
        pub state_bytes: Option<u64>,
        /// Highest live bytes of the allocator within any step, without what the process held when the cell began.
        pub peak_bytes: Option<u64>,
        /// Blocks of memory asked for within training steps; with several threads it depends on which of them did what. Null in files of
        /// versions before it was recorded.
        pub allocations: Option<u64>,
        /// Device, such as `cpu`.
        pub device: String,
        /// Threads the cell could use.
        pub threads: u64,
        /// Vector instructions of the matrix products, such as `avx512`; null in files of versions before it was recorded.
        pub instruction_set: Option<String>,
        /// Version of the program; this and what follows is null in files of versions before it was recorded.
        pub version: Option<String>,
        /// Commit that the program was built from.
        pub git_commit: Option<String>,
        /// Whether tracked files differed from it.
        pub git_dirty: Option<bool>,
        /// SHA-256 of those differences.
        pub git_diff_sha256: Option<String>,
        /// Compiler and profile of the program.
        pub compiler: Option<String>,
        /// The command that asked for the cell.
        pub command: Option<String>,
        /// Model of the processor, such as `AMD EPYC 9R14`: equal ids promise equal numbers on one kind of it.
        pub processor: Option<String>,
        /// Time of one product of 512 × 512 matrices with the cell's threads, right after its training.
        pub calibration_s: Option<f64>,
        /// Digest of the data.
        pub data: Option<String>,
        /// Whether the data are the published dataset, as `published: reason`, or `subset`, `generated`, `unverified`; null in
        /// files of versions before it was recorded.
        pub data_identity: Option<String>,
        /// Price list of the energies.
        pub cost_model: Option<String>,
    } beside {
        /// Resolved configuration: path, such as `model.lambda`, to value. Column `config.<path>`, null where a cell does
        /// not have the path.
        pub config: Settings,
    }
}

/// Writes the table to `path`: beside the name, synced, then renamed. After the fixed columns come the configuration
/// columns, the sorted union over all rows: booleans or numbers where every value is one, text otherwise. Equal rows and metadata give
/// equal bytes.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write_results(path: &Path, rows: &[ResultRow], meta: &Metadata) -> DataResult<()> {
    let (mut fields, mut arrays) = (ResultRow::columns(), ResultRow::arrays(rows));
    // a cell's rows have one configuration
    let cells: Vec<&[ResultRow]> = rows.chunk_by(|a, b| a.config.is_shared_with(&b.config)).collect();
    let paths: BTreeSet<&String> = cells.iter().flat_map(|rows| rows[0].config.keys()).collect();
    for name in paths {
        let texts = cells.iter().flat_map(|rows| std::iter::repeat_n(rows[0].config.get(name), rows.len()));
        let texts: Vec<Option<&String>> = texts.collect();
        let (data_type, array) = config_column(&texts);
        fields.push(Field::new(format!("{CONFIG}{name}"), data_type, true));
        arrays.push(array);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(refused(path))?;
    let mut meta = meta.clone();
    meta.insert(DIGEST.to_owned(), digest(rows));
    write_batch(path, &batch, &meta)
}

/// Key of the metadata under which the digest of the rows stands.
const DIGEST: &str = "rows_sha256";

/// A digest of all that the rows say.
#[must_use]
pub fn digest(rows: &[ResultRow]) -> String {
    let mut sha = Sha256::new();
    let (mut text, mut config) = (String::new(), None);
    for row in rows {
        text.clear();
        row.write_text(&mut text);
        // a cell's rows have one configuration
        if config.replace(&row.config) != Some(&row.config) {
            for (name, value) in row.config.iter() {
                text.extend([CONFIG, name, "=", value, "\n"]);
            }
        }
        sha.update(&text);
    }
    hex(&sha.finalize())
}

/// The narrowest column that gives every text back as it was.
fn config_column(texts: &[Option<&String>]) -> (DataType, ArrayRef) {
    fn all<T: ToString + std::str::FromStr>(texts: &[Option<&String>]) -> Option<Vec<Option<T>>>
    where
        Option<T>: Value,
    {
        let parse = |text: &String| text.parse::<T>().ok().filter(|value| value.to_string() == *text);
        texts.iter().map(|text| text.map_or(Some(None), |text| parse(text).map(Some))).collect()
    }
    fn typed<V: Value>(values: &[V]) -> (DataType, ArrayRef) {
        (V::data_type(), V::array(values.iter()))
    }
    if let Some(values) = all::<bool>(texts) {
        return typed(&values);
    }
    if let Some(values) = all::<f64>(texts) {
        return typed(&values);
    }
    typed(&texts.iter().map(|text| text.cloned()).collect::<Vec<Option<String>>>())
}

/// Reads what [`write_results`] wrote, also where other columns were added.
///
/// # Errors
/// `Missing` if there is no such file, `Corrupt` if it is no Parquet file with the fixed columns or its rows are not those that
/// were written (files of versions before there was a digest are taken as they are).
pub fn read_results(path: &Path) -> DataResult<Vec<ResultRow>> {
    let frame = read_frame(path)?;
    let meta = read_metadata(path)?;
    check_version(path, &meta)?;
    let mut rows = ResultRow::from_frame(path, &frame)?;
    for name in frame.get_column_names() {
        let Some(setting) = name.strip_prefix(CONFIG) else { continue };
        for (row, text) in rows.iter_mut().zip(texts(path, &frame, name)?) {
            row.config.extend(text.map(|text| (setting.to_owned(), text)));
        }
    }
    if meta.get(DIGEST).is_some_and(|written| *written != digest(&rows)) {
        let expected = "the rows that were written".to_owned();
        return Err(DataError::corrupt(path, At::File, expected, "other values: the file was damaged or changed"));
    }
    Ok(rows)
}

/// Names and types of a table's columns, but for those of the configuration.
///
/// # Errors
/// As [`read_results`].
pub fn columns(path: &Path) -> DataResult<Vec<(String, String)>> {
    let frame = read_frame(path)?;
    let columns = frame.columns().iter().map(|column| (column.name().to_string(), column.dtype().to_string()));
    Ok(columns.filter(|(name, _)| !name.starts_with(CONFIG)).collect())
}

/// A configuration column as text, whatever its type.
fn texts(path: &Path, frame: &DataFrame, name: &str) -> DataResult<Vec<Option<String>>> {
    fn shown<T: ToString>(values: Vec<Option<T>>) -> Vec<Option<String>> {
        values.into_iter().map(|value| value.map(|value| value.to_string())).collect()
    }
    if let Ok(values) = column::<Option<bool>>(path, frame, name) {
        return Ok(shown(values));
    }
    if let Ok(values) = column::<Option<f64>>(path, frame, name) {
        return Ok(shown(values));
    }
    column::<Option<String>>(path, frame, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet::versioned;

    fn rows() -> Vec<ResultRow> {
        let base = ResultRow {
            experiment: "e".into(),
            cell: "c0".into(),
            outcome: "completed".into(),
            seed: 3,
            ..ResultRow::default()
        };
        let config = |pairs: &[(&str, &str)]| pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        vec![
            ResultRow {
                split: Some("test".into()),
                metric: Some("bits_per_byte".into()),
                value: Some(1.25),
                n: Some(u64::MAX),
                low: Some(1.0),
                parameters: Some(7),
                train_s: 0.1,
                data_wait_s: Some(0.01),
                config: config(&[("model.lambda", "0.9"), ("model.kind", "bim")]),
                ..base.clone()
            },
            ResultRow {
                outcome: "failed".into(),
                reason: Some("no data".into()),
                config: config(&[("budget.updates", ""), ("model.kind", "rnn")]),
                ..base
            },
        ]
    }

    #[test]
    fn rows_come_back_exactly_and_deterministically() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        let meta = versioned();
        let many: Vec<ResultRow> = rows().into_iter().cycle().take(3001).collect();
        for rows in [rows(), Vec::new(), many] {
            write_results(&path, &rows, &meta).unwrap();
            assert_eq!(read_results(&path).unwrap(), rows);
            let bytes = std::fs::read(&path).unwrap();
            write_results(&path, &rows, &meta).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_table_of_another_version_is_refused_by_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        write_results(&path, &rows(), &Metadata::from([("schema".into(), "2".into())])).unwrap();
        let said = read_results(&path).unwrap_err().to_string();
        assert!(said.contains("a table of version 1") && said.contains("version 2: read it with"), "{said}");
        write_results(&path, &rows(), &Metadata::new()).unwrap();
        assert_eq!(read_results(&path).unwrap(), rows(), "of before there were versions");
    }

    #[test]
    fn configuration_columns_are_the_sorted_union() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        write_results(&path, &rows(), &Metadata::new()).unwrap();
        let frame = read_frame(&path).unwrap();
        let names: Vec<&str> = frame.get_column_names().into_iter().map(polars::prelude::PlSmallStr::as_str).collect();
        assert_eq!(names[..3], ["experiment", "scale", "cell"]);
        assert_eq!(names[39..], ["config.budget.updates", "config.model.kind", "config.model.lambda"]);
    }

    #[test]
    fn configuration_columns_have_the_type_of_their_values_and_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        let settings = [
            [("a", "0.006"), ("b", "true"), ("c", "1e-3"), ("d", "12"), ("e", "4")],
            [("a", "32"), ("b", "false"), ("c", "0.5"), ("d", "012"), ("e", "byte")],
        ];
        let row = |pairs: [(&str, &str); 5]| ResultRow {
            config: pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            git_dirty: Some(true),
            ..ResultRow::default()
        };
        let mut rows: Vec<ResultRow> = settings.into_iter().map(row).collect();
        rows.push(ResultRow::default()); // has none of them
        write_results(&path, &rows, &Metadata::new()).unwrap();
        assert_eq!(read_results(&path).unwrap(), rows);
        let frame = read_frame(&path).unwrap();
        let types =
            ["a", "b", "c", "d", "e"].map(|name| frame.column(&format!("config.{name}")).unwrap().dtype().to_string());
        // what a number would not give back as it was written stays text
        assert_eq!(types, ["f64", "bool", "str", "str", "str"]);
    }

    /// Every value counts: a row with another one, under the digest of what was written, is refused.
    #[test]
    fn a_changed_value_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("results.parquet"), dir.path().join("other.parquet"));
        write_results(&path, &rows(), &Metadata::new()).unwrap();
        let written = Metadata::from([(DIGEST.to_owned(), digest(&rows()))]);
        let changes: [fn(&mut Vec<ResultRow>); 6] = [
            |rows| rows[0].value = rows[0].value.map(|value| value + 1e-15),
            |rows| rows[0].n = Some(4),
            |rows| rows[1].outcome = "completed".into(),
            |rows| rows[1].reason = None,
            |rows| rows[0].config.extend([("model.lambda".to_owned(), "0.8".to_owned())]),
            |rows| rows.truncate(1),
        ];
        for change in changes {
            let mut changed = rows();
            change(&mut changed);
            assert_ne!(digest(&changed), digest(&rows()));
            let batch = RecordBatch::try_new(Arc::new(Schema::new(ResultRow::columns())), ResultRow::arrays(&changed));
            write_batch(&other, &batch.unwrap(), &written).unwrap();
            let error = read_results(&other).unwrap_err().to_string();
            assert!(error.contains("other.parquet: ") && error.contains("damaged or changed"), "{error}");
        }
        // whatever bit of the file flips: the rows are right, or it is refused
        let whole = std::fs::read(&path).unwrap();
        for bit in (0..whole.len() * 8).step_by(101) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(read) = read_results(&path) {
                assert_eq!(read, rows(), "bit {bit}");
            }
        }
    }

    #[test]
    fn another_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        let row = crate::LayerRow { step: 1, layer: String::new(), quantity: String::new(), value: 0.0 };
        for rows in [&[row][..], &[]] {
            crate::parquet::write_rows(&path, rows, &Metadata::new()).unwrap();
            let error = read_results(&path).unwrap_err().to_string();
            assert!(error.contains("column `experiment`"), "{error}");
        }
    }
}
