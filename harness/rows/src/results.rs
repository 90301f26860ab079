//! The results table: one row per cell and metric, failures included, and one column per configuration path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema};

use crate::parquet::{Metadata, read_batches, refused, write_batch};
use crate::row::{Value, column, field};
use data::error::DataResult;

/// What the name of a configuration column begins with.
const CONFIG: &str = "config.";

/// One metric of one cell, or a cell without metrics: a row of `results.parquet`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultRow {
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
    /// Device, such as `cpu`.
    pub device: String,
    /// Threads the cell could use.
    pub threads: u64,
    /// Vector instructions of the matrix products, such as `avx512`; null in files of versions before it was recorded.
    pub instruction_set: Option<String>,
    /// Resolved configuration: path, such as `model.lambda`, to value. Column `config.<path>`, null where a cell does
    /// not have the path.
    pub config: BTreeMap<String, String>,
}

/// Implements both directions for the fixed columns.
macro_rules! columns {
    ($($field:ident: $type:ty),+ $(,)?) => {
        fn fixed(rows: &[ResultRow]) -> Vec<(Field, ArrayRef)> {
            vec![$((field::<$type>(stringify!($field)), <$type>::array(rows.iter().map(|row| &row.$field)))),+]
        }

        /// The rows without their configuration.
        fn read_fixed(path: &Path, batch: &RecordBatch) -> DataResult<Vec<ResultRow>> {
            $(let mut $field = column::<$type>(path, batch, stringify!($field))?.into_iter();)+
            let next = || Some(ResultRow { $($field: $field.next()?,)+ config: BTreeMap::new() });
            Ok(std::iter::from_fn(next).collect())
        }
    };
}

columns! {
    experiment: String,
    scale: String,
    cell: String,
    task: String,
    model: String,
    kind: String,
    seed: u64,
    outcome: String,
    reason: Option<String>,
    split: Option<String>,
    metric: Option<String>,
    value: Option<f64>,
    n: Option<u64>,
    low: Option<f64>,
    high: Option<f64>,
    parameters: Option<u64>,
    seen: u64,
    updates: u64,
    train_s: f64,
    data_wait_s: Option<f64>,
    state_bytes: Option<u64>,
    peak_bytes: Option<u64>,
    device: String,
    threads: u64,
    instruction_set: Option<String>,
}

/// Writes the table to `path`: beside the name, synced, then renamed. After the fixed columns come the configuration
/// columns, the sorted union over all rows. Equal rows and metadata give equal bytes.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write_results(path: &Path, rows: &[ResultRow], meta: &Metadata) -> DataResult<()> {
    let mut columns = fixed(rows);
    let paths: BTreeSet<&String> = rows.iter().flat_map(|row| row.config.keys()).collect();
    for name in paths {
        let values: Vec<Option<String>> = rows.iter().map(|row| row.config.get(name).cloned()).collect();
        columns.push((field::<Option<String>>(&format!("{CONFIG}{name}")), Value::array(values.iter())));
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema, arrays).map_err(refused(path))?;
    write_batch(path, &batch, meta)
}

/// Reads what [`write_results`] wrote, also where other columns were added.
///
/// # Errors
/// `Io` if the file cannot be opened, `Corrupt` if it is no Parquet file with the fixed columns.
pub fn read_results(path: &Path) -> DataResult<Vec<ResultRow>> {
    let mut all = Vec::new();
    read_batches(path, |batch| {
        let mut rows = read_fixed(path, batch)?;
        for field in batch.schema().fields() {
            let Some(name) = field.name().strip_prefix(CONFIG) else { continue };
            let values = column::<Option<String>>(path, batch, field.name())?;
            for (row, value) in rows.iter_mut().zip(values) {
                row.config.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        all.extend(rows);
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let meta = Metadata::from([("schema".into(), "1".into())]);
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
    fn configuration_columns_are_the_sorted_union() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        write_results(&path, &rows(), &Metadata::new()).unwrap();
        let mut names = Vec::new();
        let take = |batch: &RecordBatch| {
            names = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            Ok(())
        };
        read_batches(&path, take).unwrap();
        assert_eq!(names[..3], ["experiment", "scale", "cell"]);
        assert_eq!(names[25..], ["config.budget.updates", "config.model.kind", "config.model.lambda"]);
    }

    #[test]
    fn another_table_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        let row = crate::LayerRow { step: 1, layer: String::new(), quantity: String::new(), value: 0.0 };
        for rows in [&[row][..], &[]] {
            crate::parquet::write_layers(&path, rows, &Metadata::new()).unwrap();
            let error = read_results(&path).unwrap_err().to_string();
            assert!(error.contains("column `experiment`"), "{error}");
        }
    }
}
