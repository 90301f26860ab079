//! Reads stored results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bim::time_differences::Quantity;

use data::account::inert;
use data::error::DataResult;
use rows::LayerRow;
use rows::parquet::read_rows;
use rows::results::{ResultRow, read_results};

use super::model::{Difference, Loaded};
use super::{raster, silence};

/// Configuration path of the furthest spike time difference that a cell measured; 0 is none.
pub(super) const FURTHEST: &str = "model.diagnose.time_differences";

/// Metric that models have whose neurons spike.
const SPIKING: &str = "spike_sparsity";

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
/// time difference and the last silence of each population, and what neurons sent on a sample input.
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
        let rows: Vec<ResultRow> = rows.into_iter().map(quiet).collect();
        // two experiments may plan the same cell: each then shows it
        let key = |row: &ResultRow| (row.experiment.clone(), row.cell.clone());
        let new: Vec<ResultRow> = rows.into_iter().filter(|row| !known.contains(&key(row))).collect();
        known.extend(new.iter().map(key));
        if let Some(dir) = dir {
            loaded.questions.extend(question(dir));
            let measures = |row: &ResultRow| row.config.get(FURTHEST).is_some_and(|most| most != "0");
            let mut cells: BTreeMap<&String, (bool, bool)> = BTreeMap::new();
            for row in new.iter().filter(|row| row.metric.is_some()) {
                let (differs, spikes) = cells.entry(&row.cell).or_default();
                *differs |= measures(row);
                *spikes |= row.metric.as_deref() == Some(SPIKING) && row.value.is_some();
            }
            let drawn = drawn(&new);
            // one after another: Polars has threads of its own, and waiting for them from ours would nest without end
            for (cell, (differs, spikes)) in cells.into_iter().filter(|(cell, _)| is_id(cell)) {
                let folder = dir.join("cells").join(cell);
                let (evals, layers) = (folder.join("evals.parquet"), folder.join("layers.parquet"));
                if evals.exists() {
                    loaded.evals.insert(cell.clone(), read_rows(&evals)?);
                }
                let sample = folder.join("spikes.parquet");
                if drawn.contains(cell) && sample.exists() {
                    loaded.spikes.insert(cell.clone(), raster::quiet(read_rows(&sample)?));
                }
                if (differs || spikes) && layers.exists() {
                    let rows = read_rows(&layers)?;
                    if spikes {
                        loaded.silence.insert(cell.clone(), silence::last(&rows));
                    }
                    if differs {
                        loaded.differences.insert(cell.clone(), differences(rows));
                    }
                }
            }
        }
        loaded.rows.extend(new);
    }
    Ok(loaded)
}

/// Cells whose spikes are drawn: of each experiment, scale and task the first cell of the first models that spike.
fn drawn(rows: &[ResultRow]) -> BTreeSet<String> {
    let mut models: BTreeMap<(&str, &str, &str), BTreeMap<&str, &str>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.metric.as_deref() == Some(SPIKING) && row.value.is_some()) {
        let of_part = models.entry((&row.experiment, &row.scale, &row.task)).or_default();
        if of_part.len() < raster::MODELS {
            of_part.entry(&row.model).or_insert(&row.cell);
        }
    }
    models.into_values().flat_map(BTreeMap::into_values).map(str::to_owned).collect()
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

/// Whether a cell's id is one: results of others may say anything, and this is the name of a folder.
fn is_id(cell: &str) -> bool {
    let mut parts = Path::new(cell).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == cell)
}

/// A row without characters that act on a terminal or turn text around: results may come from anybody.
fn quiet(mut row: ResultRow) -> ResultRow {
    let is_loud = |text: &str| text.chars().any(|c| !c.is_ascii_graphic() && c != ' ');
    let mend = |text: &mut String| {
        if is_loud(text) {
            *text = inert(text);
        }
    };
    // these have several lines
    for text in [&mut row.reason, &mut row.notes].into_iter().flatten().filter(|text| is_loud(text)) {
        *text = text.lines().map(inert).collect::<Vec<_>>().join("\n");
    }
    let texts = [
        &mut row.experiment,
        &mut row.scale,
        &mut row.cell,
        &mut row.task,
        &mut row.model,
        &mut row.kind,
        &mut row.outcome,
        &mut row.device,
    ];
    texts.into_iter().for_each(mend);
    let optional = [
        &mut row.cause,
        &mut row.split,
        &mut row.metric,
        &mut row.instruction_set,
        &mut row.version,
        &mut row.git_commit,
        &mut row.processor,
        &mut row.git_diff_sha256,
        &mut row.compiler,
        &mut row.command,
        &mut row.data,
        &mut row.data_identity,
        &mut row.cost_model,
    ];
    optional.into_iter().flatten().for_each(mend);
    // most rows share settings that are quiet, and go on sharing them
    if row.config.iter().any(|(key, value)| is_loud(key) || is_loud(value)) {
        let mended = row.config.iter().map(|(key, value)| {
            let (mut key, mut value) = (key.clone(), value.clone());
            mend(&mut key);
            mend(&mut value);
            (key, value)
        });
        row.config = mended.collect();
    }
    row
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
    fn what_acts_on_a_terminal_or_leads_out_of_the_folder_is_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut row = fixture::cell("bim\u{1b}[2J", 1);
        row.notes = Some("one\ntwo\u{202E}".into());
        row.config.insert("model.x\u{7}".into(), "y\r".into());
        row.experiment = "a\nrm -rf $HOME".into();
        (row.cell, row.metric) = ("../../outside".into(), Some("loss".into()));
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("evals.parquet"), "no Parquet file").unwrap();
        let run = Stored::Run { dir: dir.path().join("a/b"), rows: vec![row] };
        let found = load(&[run]).unwrap();
        let row = &found.rows[0];
        assert_eq!((row.model.as_str(), row.notes.as_deref()), ("bim\\u{1b}[2J", Some("one\ntwo\\u{202e}")));
        assert_eq!(row.experiment, "a\\nrm -rf $HOME", "one line, wherever it is printed");
        assert_eq!(row.config.get("model.x\\u{7}").map(String::as_str), Some("y\\r"));
        assert!(found.evals.is_empty());
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
