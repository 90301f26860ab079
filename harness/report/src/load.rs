//! Reads stored results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bim::time_differences::Quantity;

use data::error::DataResult;
use rows::LayerRow;
use rows::parquet::read_rows;
use rows::results::{ResultRow, read_results};

use super::model::{Difference, Loaded};

/// Configuration path of the furthest spike time difference that a cell measured; 0 is none.
pub(super) const FURTHEST: &str = "model.diagnose.time_differences";

/// What a report is made of.
#[derive(Clone, Debug)]
pub enum Stored {
    /// A results file.
    Table(PathBuf),
    /// A run directory with its rows.
    Run {
        /// The directory.
        dir: PathBuf,
        /// One for each cell and metric.
        rows: Vec<ResultRow>,
    },
}

/// Reads results files, and of run directories every cell's `evals.parquet`, and of `layers.parquet` what was measured by spike
/// time difference.
///
/// A cell of one experiment that more than one directory holds is taken from the first: equal ids mean equal results. A cell without
/// `evals.parquet` has no learning curve; that is not an error, since results may be kept without their cells. A cell without metrics
/// has none either: what its files hold is not whole.
///
/// # Errors
/// `Missing` without a results file, `Corrupt` if a file is no Parquet file with the columns it should have, `Io` if
/// the system refuses.
pub fn load(stored: &[Stored]) -> DataResult<Loaded> {
    let mut loaded = Loaded::default();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for stored in stored {
        let (dir, rows) = match stored {
            Stored::Table(path) => (None, read_results(path)?),
            Stored::Run { dir, rows } => (Some(dir), rows.clone()),
        };
        // two experiments may plan the same cell: each then shows it
        let key = |row: &ResultRow| (row.experiment.clone(), row.cell.clone());
        let new: Vec<ResultRow> = rows.into_iter().filter(|row| !known.contains(&key(row))).collect();
        known.extend(new.iter().map(key));
        if let Some(dir) = dir {
            loaded.questions.extend(question(dir));
            let measures = |row: &ResultRow| row.config.get(FURTHEST).is_some_and(|most| most != "0");
            let cells: BTreeMap<&String, bool> =
                new.iter().filter(|row| row.metric.is_some()).map(|row| (&row.cell, measures(row))).collect();
            // one after another: Polars has threads of its own, and waiting for them from ours would nest without end
            for (cell, measures) in cells {
                let folder = dir.join("cells").join(cell);
                let (evals, layers) = (folder.join("evals.parquet"), folder.join("layers.parquet"));
                if evals.exists() {
                    loaded.evals.insert(cell.clone(), read_rows(&evals)?);
                }
                if measures && layers.exists() {
                    loaded.differences.insert(cell.clone(), differences(read_rows(&layers)?));
                }
            }
        }
        loaded.rows.extend(new);
    }
    Ok(loaded)
}

/// Experiment and description of a run directory's plan. A plan that cannot be read is the business of whoever runs it: its cells are
/// reported without it.
fn question(dir: &Path) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Described {
        experiment: String,
        description: Option<String>,
    }
    let text = std::fs::read(dir.join("plan.json")).ok()?;
    let plan: Described = serde_json::from_slice(&text).ok()?;
    Some((plan.experiment, plan.description?))
}

/// The rows that were measured by spike time difference.
fn differences(rows: Vec<LayerRow>) -> Vec<Difference> {
    let difference = |row: LayerRow| {
        let (quantity, lag) = Quantity::parse(&row.quantity)?;
        Some(Difference { step: row.step, pathway: row.layer, quantity, lag, value: row.value })
    };
    rows.into_iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use data::error::DataError;
    use rows::parquet::{Metadata, write_rows};
    use rows::results::write_results;

    fn store(dir: &Path, loaded: &Loaded) {
        write_results(&dir.join("results.parquet"), &loaded.rows, &Metadata::new()).unwrap();
        for (cell, evals) in &loaded.evals {
            let folder = dir.join("cells").join(cell);
            std::fs::create_dir_all(&folder).unwrap();
            write_rows(&folder.join("evals.parquet"), evals, &Metadata::new()).unwrap();
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
            write_rows(&folder.join("layers.parquet"), &rows, &Metadata::new()).unwrap();
        }
    }

    fn run(dir: &Path) -> Stored {
        Stored::Run { dir: dir.to_owned(), rows: read_results(&dir.join("results.parquet")).unwrap() }
    }

    #[test]
    fn what_the_sinks_wrote_comes_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = fixture::quickstart();
        store(dir.path(), &loaded);
        assert_eq!(load(&[run(dir.path())]).unwrap(), loaded);
        let measured = fixture::time_differences(&[1, 2]);
        let other = tempfile::tempdir().unwrap();
        store(other.path(), &measured);
        assert_eq!(load(&[run(other.path())]).unwrap(), measured);
        let file = load(&[Stored::Table(dir.path().join("results.parquet"))]).unwrap();
        assert_eq!((file.rows, file.evals.len()), (loaded.rows.clone(), 0), "a results file alone has no curves");
        let twice = load(&[run(dir.path()), run(dir.path())]).unwrap();
        assert_eq!(twice, loaded, "a cell that two directories hold must count once");
    }

    #[test]
    fn the_question_is_the_plans_description() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &fixture::quickstart());
        std::fs::write(dir.path().join("plan.json"), r#"{"experiment": "e", "description": "why?", "cells": [{}]}"#)
            .unwrap();
        assert_eq!(load(&[run(dir.path())]).unwrap().questions["e"], "why?");
        std::fs::write(dir.path().join("plan.json"), "{").unwrap();
        assert!(load(&[run(dir.path())]).unwrap().questions.is_empty(), "a damaged plan takes no result away");
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.parquet");
        let table = || load(&[Stored::Table(path.clone())]).unwrap_err();
        assert!(matches!(table(), DataError::Missing { .. }), "{}", table());
        assert!(table().to_string().contains("results.parquet: not found"), "{}", table());
        std::fs::write(&path, b"no Parquet file").unwrap();
        let error = table().to_string();
        assert!(error.contains("results.parquet") && error.contains("a Parquet file"), "{error}");
        write_rows::<LayerRow>(&path, &[], &Metadata::new()).unwrap();
        let error = table().to_string();
        assert!(error.contains("column `experiment` of type Utf8"), "{error}");
    }
}
