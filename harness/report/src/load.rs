//! Reads stored results through Polars.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use bim::time_differences::Quantity;
use polars::prelude::{Column, DataFrame, ParquetReader, SerReader};

use data::error::{At, DataError, DataResult};
use rows::parquet::read_layers;
use rows::results::ResultRow;
use rows::{EvalRow, LayerRow};

use super::model::{Difference, Loaded};

/// What the name of a configuration column begins with.
const CONFIG: &str = "config.";

/// Configuration path of the furthest spike time difference that a cell measured; 0 is none.
pub(super) const FURTHEST: &str = "model.diagnose.time_differences";

/// Reads `results.parquet` and every cell's `evals.parquet` of run directories, and of `layers.parquet` what was measured by
/// spike time difference.
///
/// A cell of one experiment that more than one directory holds is taken from the first: equal ids mean equal results. A cell without
/// `evals.parquet` has no learning curve; that is not an error, since results may be kept without their cells.
///
/// # Errors
/// `Missing` without `results.parquet`, `Corrupt` if a file is no Parquet file with the columns it should have, `Io` if
/// the system refuses.
pub fn load(run_dirs: &[PathBuf]) -> DataResult<Loaded> {
    let mut loaded = Loaded::default();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for dir in run_dirs {
        let rows = read_results(&dir.join("results.parquet"))?;
        // two experiments may plan the same cell: each then shows it
        let key = |row: &ResultRow| (row.experiment.clone(), row.cell.clone());
        let new: Vec<ResultRow> = rows.into_iter().filter(|row| !known.contains(&key(row))).collect();
        known.extend(new.iter().map(key));
        let measures = |row: &ResultRow| row.config.get(FURTHEST).is_some_and(|most| most != "0");
        let cells: BTreeMap<&String, bool> = new.iter().map(|row| (&row.cell, measures(row))).collect();
        for (cell, measures) in cells {
            let folder = dir.join("cells").join(cell);
            let (evals, layers) = (folder.join("evals.parquet"), folder.join("layers.parquet"));
            if evals.exists() {
                loaded.evals.insert(cell.clone(), read_evals(&evals)?);
            }
            if measures && layers.exists() {
                loaded.differences.insert(cell.clone(), differences(read_layers(&layers)?));
            }
        }
        loaded.rows.extend(new);
    }
    Ok(loaded)
}

/// The rows that were measured by spike time difference.
fn differences(rows: Vec<LayerRow>) -> Vec<Difference> {
    let difference = |row: LayerRow| {
        let (quantity, lag) = Quantity::parse(&row.quantity)?;
        Some(Difference { step: row.step, pathway: row.layer, quantity, lag, value: row.value })
    };
    rows.into_iter().filter_map(difference).collect()
}

fn read(path: &Path) -> DataResult<DataFrame> {
    if !path.exists() {
        return Err(DataError::Missing {
            path: path.to_owned(),
            expected: "results of a run".into(),
            next: "run the grid first, or name a directory that holds results.parquet".into(),
        });
    }
    let file = File::open(path).map_err(DataError::io(path))?;
    ParquetReader::new(file)
        .finish()
        .map_err(|e| DataError::corrupt(path, At::File, "a Parquet file", first_line(&e.to_string())))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("an unreadable file").to_owned()
}

/// Columns of one file, read by name with the type they must have.
struct Columns<'a> {
    path: &'a Path,
    frame: &'a DataFrame,
}

impl Columns<'_> {
    fn refuse(&self, name: &str, expected: &str, got: impl Into<String>) -> DataError {
        DataError::corrupt(self.path, At::File, format!("a column `{name}` of {expected}"), got)
    }

    fn column(&self, name: &str, expected: &str) -> DataResult<&Column> {
        self.frame.column(name).map_err(|_| self.refuse(name, expected, "no such column"))
    }

    fn text(&self, name: &str) -> DataResult<Vec<Option<String>>> {
        let column = self.column(name, "text")?;
        let values = column.str().map_err(|_| self.refuse(name, "text", column.dtype().to_string()))?;
        Ok(values.iter().map(|value| value.map(str::to_owned)).collect())
    }

    fn whole(&self, name: &str) -> DataResult<Vec<Option<u64>>> {
        let column = self.column(name, "u64")?;
        let values = column.u64().map_err(|_| self.refuse(name, "u64", column.dtype().to_string()))?;
        Ok(values.iter().collect())
    }

    fn real(&self, name: &str) -> DataResult<Vec<Option<f64>>> {
        let column = self.column(name, "f64")?;
        let values = column.f64().map_err(|_| self.refuse(name, "f64", column.dtype().to_string()))?;
        Ok(values.iter().collect())
    }

    /// Values of a column that must not hold nulls.
    fn all<T>(&self, name: &str, values: Vec<Option<T>>) -> DataResult<Vec<T>> {
        let nulls = values.iter().filter(|value| value.is_none()).count();
        let whole: Option<Vec<T>> = values.into_iter().collect();
        whole.ok_or_else(|| self.refuse(name, "values without nulls", format!("{nulls} nulls")))
    }

    fn all_text(&self, name: &str) -> DataResult<std::vec::IntoIter<String>> {
        Ok(self.all(name, self.text(name)?)?.into_iter())
    }

    fn all_whole(&self, name: &str) -> DataResult<std::vec::IntoIter<u64>> {
        Ok(self.all(name, self.whole(name)?)?.into_iter())
    }
}

fn read_results(path: &Path) -> DataResult<Vec<ResultRow>> {
    let frame = read(path)?;
    let c = Columns { path, frame: &frame };
    let (mut experiment, mut scale, mut cell) = (c.all_text("experiment")?, c.all_text("scale")?, c.all_text("cell")?);
    let (mut task, mut model, mut kind) = (c.all_text("task")?, c.all_text("model")?, c.all_text("kind")?);
    let (mut seed, mut outcome) = (c.all_whole("seed")?, c.all_text("outcome")?);
    let mut reason = c.text("reason")?.into_iter();
    let (mut split, mut metric) = (c.text("split")?.into_iter(), c.text("metric")?.into_iter());
    let (mut value, mut n) = (c.real("value")?.into_iter(), c.whole("n")?.into_iter());
    let (mut low, mut high) = (c.real("low")?.into_iter(), c.real("high")?.into_iter());
    let mut parameters = c.whole("parameters")?.into_iter();
    let (mut seen, mut updates) = (c.all_whole("seen")?, c.all_whole("updates")?);
    let mut train_s = c.all("train_s", c.real("train_s")?)?.into_iter();
    // versions before this column was added did not record it
    let recorded = c.frame.get_column_names().iter().any(|name| name.as_str() == "data_wait_s");
    let mut data_wait_s = if recorded { c.real("data_wait_s")? } else { vec![None; frame.height()] }.into_iter();
    let (mut state_bytes, mut peak_bytes) = (c.whole("state_bytes")?.into_iter(), c.whole("peak_bytes")?.into_iter());
    let (mut device, mut threads) = (c.all_text("device")?, c.all_whole("threads")?);
    let recorded = c.frame.get_column_names().iter().any(|name| name.as_str() == "instruction_set");
    let mut instruction_set =
        if recorded { c.text("instruction_set")? } else { vec![None; frame.height()] }.into_iter();
    let mut config = configs(&c)?.into_iter();
    let next = || {
        Some(ResultRow {
            experiment: experiment.next()?,
            scale: scale.next()?,
            cell: cell.next()?,
            task: task.next()?,
            model: model.next()?,
            kind: kind.next()?,
            seed: seed.next()?,
            outcome: outcome.next()?,
            reason: reason.next()?,
            split: split.next()?,
            metric: metric.next()?,
            value: value.next()?,
            n: n.next()?,
            low: low.next()?,
            high: high.next()?,
            parameters: parameters.next()?,
            seen: seen.next()?,
            updates: updates.next()?,
            train_s: train_s.next()?,
            data_wait_s: data_wait_s.next()?,
            state_bytes: state_bytes.next()?,
            peak_bytes: peak_bytes.next()?,
            device: device.next()?,
            threads: threads.next()?,
            instruction_set: instruction_set.next()?,
            config: config.next()?,
        })
    };
    Ok(std::iter::from_fn(next).collect())
}

/// The configuration of each row.
fn configs(columns: &Columns) -> DataResult<Vec<BTreeMap<String, String>>> {
    let mut configs = vec![BTreeMap::new(); columns.frame.height()];
    for name in columns.frame.get_column_names() {
        let Some(path) = name.strip_prefix(CONFIG) else { continue };
        for (config, value) in configs.iter_mut().zip(columns.text(name)?) {
            config.extend(value.map(|value| (path.to_owned(), value)));
        }
    }
    Ok(configs)
}

fn read_evals(path: &Path) -> DataResult<Vec<EvalRow>> {
    let frame = read(path)?;
    let c = Columns { path, frame: &frame };
    let (mut step, mut seen) = (c.all_whole("step")?, c.all_whole("seen")?);
    let (mut split, mut metric) = (c.all_text("split")?, c.all_text("metric")?);
    let (mut value, mut n) = (c.real("value")?.into_iter(), c.all_whole("n")?);
    let (mut low, mut high) = (c.real("low")?.into_iter(), c.real("high")?.into_iter());
    let next = || {
        Some(EvalRow {
            step: step.next()?,
            seen: seen.next()?,
            split: split.next()?,
            metric: metric.next()?,
            value: value.next()?,
            n: n.next()?,
            low: low.next()?,
            high: high.next()?,
        })
    };
    Ok(std::iter::from_fn(next).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use rows::parquet::{Metadata, write_evals, write_layers};
    use rows::results::write_results;

    fn store(dir: &Path, loaded: &Loaded) {
        write_results(&dir.join("results.parquet"), &loaded.rows, &Metadata::new()).unwrap();
        for (cell, evals) in &loaded.evals {
            let folder = dir.join("cells").join(cell);
            std::fs::create_dir_all(&folder).unwrap();
            write_evals(&folder.join("evals.parquet"), evals, &Metadata::new()).unwrap();
        }
        for (cell, rows) in &loaded.differences {
            let folder = dir.join("cells").join(cell);
            std::fs::create_dir_all(&folder).unwrap();
            let row = |d: &Difference| LayerRow {
                step: d.step,
                layer: d.pathway.clone(),
                quantity: d.quantity.at(d.lag),
                value: d.value,
            };
            let other = LayerRow { step: 1, layer: "layers.0".into(), quantity: "staleness".into(), value: 0.1 };
            let rows: Vec<LayerRow> = std::iter::once(other).chain(rows.iter().map(row)).collect();
            write_layers(&folder.join("layers.parquet"), &rows, &Metadata::new()).unwrap();
        }
    }

    #[test]
    fn what_the_sinks_wrote_comes_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = fixture::quickstart();
        store(dir.path(), &loaded);
        assert_eq!(load(&[dir.path().to_owned()]).unwrap(), loaded);
        let measured = fixture::time_differences(&[1, 2]);
        let other = tempfile::tempdir().unwrap();
        store(other.path(), &measured);
        assert_eq!(load(&[other.path().to_owned()]).unwrap(), measured);
        let twice = load(&[dir.path().to_owned(), dir.path().to_owned()]).unwrap();
        assert_eq!(twice, loaded, "a cell that two directories hold must count once");
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(&[dir.path().to_owned()]).unwrap_err();
        assert!(matches!(&error, DataError::Missing { .. }), "{error}");
        let path = dir.path().join("results.parquet");
        std::fs::write(&path, b"no Parquet file").unwrap();
        let error = load(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("results.parquet") && error.contains("a Parquet file"), "{error}");
        write_layers(&path, &[], &Metadata::new()).unwrap();
        let error = load(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("column `experiment` of text"), "{error}");
    }
}
