//! Parts, which make a running cell's rows safe against interruption.
//!
//! A running cell writes the rows since its last checkpoint as one more *part* (`parts/steps-000002.parquet` and so on)
//! when it checkpoints; the checkpoint records how many parts there were. Resuming deletes the parts behind that number,
//! whose rows will be made again, so the result has neither duplicates nor gaps. A finished cell's parts are merged, one
//! part at a time, into the four files.

use std::path::{Path, PathBuf};

use super::{Metadata, open, place, read_batches, refused, sync_folder};
use crate::datasets::error::{At, DataError, DataResult};
use crate::event::{EvalRow, Event, LayerRow, PredictionRow, StepRow};
use crate::sinks::rows::Row;

/// Where parts go before they are removed.
const MERGED: &str = ".parts-merged";

/// Removes the parts of a cell whose outcome is recorded; its checkpoint can no longer be continued from.
///
/// # Errors
/// `Io` if the system refuses.
pub fn discard_parts(cell_dir: &Path) -> DataResult<()> {
    let (folder, merged) = (cell_dir.join("parts"), cell_dir.join(MERGED));
    remove_all(&merged)?;
    if folder.exists() {
        // renamed first: an interrupted removal must not leave some of the parts for a resumed run to miss the rest of
        std::fs::rename(&folder, &merged).map_err(DataError::io(&folder))?;
        sync_folder(cell_dir)?;
        remove_all(&merged)?;
    }
    Ok(())
}

fn remove_all(folder: &Path) -> DataResult<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::io(folder)(e)),
        _ => Ok(()),
    }
}

/// Rows of a kind that wait in memory at most, but for a few more that come before the next step.
const MOST_ROWS: usize = 4096;

/// Collects a running cell's events and writes them in parts; see the top of this file.
#[derive(Debug)]
pub struct PartWriter {
    cell_dir: PathBuf,
    meta: Metadata,
    /// Complete parts on the disk.
    parts: u64,
    steps: Vec<StepRow>,
    layers: Vec<LayerRow>,
    evals: Vec<EvalRow>,
    predictions: Vec<PredictionRow>,
}

impl PartWriter {
    /// Opens the parts of a cell for more. `kept` is the number of parts that the checkpoint to resume from records, 0
    /// to start afresh; whatever lies behind them is deleted. The finished files will have `meta` in their metadata.
    ///
    /// # Errors
    /// `Missing` or `Corrupt` if one of the parts to keep is not there or cannot be read, `Io` if the system refuses.
    pub fn open(cell_dir: &Path, kept: u64, meta: Metadata) -> DataResult<Self> {
        let writer = Self {
            cell_dir: cell_dir.to_owned(),
            meta,
            parts: kept,
            // room from the start, so that what a step is measured to need does not grow with the steps before it
            steps: Vec::with_capacity(MOST_ROWS),
            layers: Vec::with_capacity(MOST_ROWS),
            evals: Vec::new(),
            predictions: Vec::new(),
        };
        // Nothing is deleted before all that must be there has been found.
        for index in 0..kept {
            writer.check::<StepRow>(index)?;
            writer.check::<LayerRow>(index)?;
            writer.check::<EvalRow>(index)?;
            writer.check::<PredictionRow>(index)?;
        }
        writer.remove_merged()?;
        let folder = writer.folder();
        std::fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
        writer.truncate(kept)?;
        Ok(writer)
    }

    /// Whether so many rows wait that they should be flushed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.steps.len().max(self.layers.len()) >= MOST_ROWS
    }

    /// Takes an event; it reaches the disk with the next [`PartWriter::flush`].
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Step(row) => self.steps.push(row),
            Event::Layer(row) => self.layers.push(row),
            Event::Eval(row) => self.evals.push(row),
            Event::Prediction(row) => self.predictions.push(row),
        }
    }

    /// Writes the events since the last flush as one more part, if there are any, and returns how many parts there are
    /// now: the number to record in the checkpoint.
    ///
    /// # Errors
    /// `Io` if the system refuses; the events are kept, so the flush may be tried again.
    pub fn flush(&mut self) -> DataResult<u64> {
        if self.steps.is_empty() && self.layers.is_empty() && self.evals.is_empty() && self.predictions.is_empty() {
            return Ok(self.parts);
        }
        // A part is all four files, even without rows: one that is not there is a loss, never a lack of events.
        self.write_part(&self.steps)?;
        self.write_part(&self.layers)?;
        self.write_part(&self.evals)?;
        self.write_part(&self.predictions)?;
        sync_folder(&self.folder())?;
        self.steps.clear();
        self.layers.clear();
        self.evals.clear();
        self.predictions.clear();
        self.parts += 1;
        Ok(self.parts)
    }

    /// Writes what is left and merges the parts into `steps.parquet`, `layers.parquet`, `evals.parquet` and
    /// `predictions.parquet` of the cell; all four exist afterwards, if only with their columns. The parts stay: until
    /// the cell's outcome is on disk, its checkpoint must still be good to continue from.
    ///
    /// # Errors
    /// `Io` if the system refuses, `Corrupt` if a part cannot be read.
    pub fn publish(&mut self) -> DataResult<()> {
        self.flush()?;
        self.merge::<StepRow>()?;
        self.merge::<LayerRow>()?;
        self.merge::<EvalRow>()?;
        self.merge::<PredictionRow>()?;
        sync_folder(&self.cell_dir)
    }

    /// [`PartWriter::publish`], then [`discard_parts`].
    ///
    /// # Errors
    /// As those two.
    pub fn finish(mut self) -> DataResult<()> {
        self.publish()?;
        discard_parts(&self.cell_dir)
    }

    fn remove_merged(&self) -> DataResult<()> {
        remove_all(&self.cell_dir.join(MERGED))
    }

    fn folder(&self) -> PathBuf {
        self.cell_dir.join("parts")
    }

    fn part<R: Row>(&self, index: u64) -> PathBuf {
        self.folder().join(format!("{}-{index:06}.parquet", R::NAME))
    }

    fn write_part<R: Row>(&self, rows: &[R]) -> DataResult<()> {
        // The metadata belongs to the whole; in every part it would be most of the file.
        let path = self.part::<R>(self.parts);
        let batch = R::to_batch(rows).map_err(refused(&path))?;
        place(&path, &R::schema(), &Metadata::new(), |writer| writer.write(&batch).map_err(refused(&path)))
    }

    /// Deletes the parts from index `kept` on, and what interrupted writing has left in their folder.
    fn truncate(&self, kept: u64) -> DataResult<()> {
        let folder = self.folder();
        for entry in std::fs::read_dir(&folder).map_err(DataError::io(&folder))? {
            let path = entry.map_err(DataError::io(&folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let index = name.strip_suffix(".parquet").and_then(|stem| stem.rsplit_once('-')?.1.parse::<u64>().ok());
            if index.is_some_and(|index| index >= kept) || name.contains(".parquet.tmp-") {
                std::fs::remove_file(&path).map_err(DataError::io(&path))?;
            }
        }
        sync_folder(&folder)
    }

    /// Checks that a part to keep is there and whole.
    fn check<R: Row>(&self, index: u64) -> DataResult<()> {
        let path = self.part::<R>(index);
        if !path.is_file() {
            return Err(DataError::Missing {
                path,
                expected: format!("the {} parts that the checkpoint counts", self.parts),
                next: "remove the cell's folder and run it again from the start".into(),
            });
        }
        let schema = open(&path)?.schema().clone();
        if schema.fields() != R::schema().fields() {
            return Err(DataError::corrupt(&path, At::File, "the columns of this version", "other columns"));
        }
        Ok(())
    }

    /// Joins the parts of one kind; each keeps its row groups, and no more than a batch is in memory unencoded.
    fn merge<R: Row>(&self) -> DataResult<()> {
        let path = self.cell_dir.join(format!("{}.parquet", R::NAME));
        place(&path, &R::schema(), &self.meta, |writer| {
            for index in 0..self.parts {
                let part = self.part::<R>(index);
                read_batches(&part, |batch| writer.write(batch).map_err(refused(&path)))?;
                writer.flush().map_err(refused(&path))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::{read_evals, read_layers, read_metadata, read_predictions, read_steps, tests};
    use super::*;

    /// The events of update `n`, always the same.
    fn events(n: u64) -> Vec<Event> {
        let mut rng = ChaCha8Rng::seed_from_u64(n);
        let mut events = vec![Event::Step(StepRow { step: n, ..tests::step(&mut rng) })];
        events.extend((0..rng.random_range(0..4)).map(|_| Event::Layer(tests::layer(&mut rng))));
        events.extend((0..rng.random_range(0..2)).map(|_| Event::Eval(tests::eval(&mut rng))));
        events.extend((0..rng.random_range(0..3)).map(|_| Event::Prediction(tests::prediction(&mut rng))));
        events
    }

    fn push_all(writer: &mut PartWriter, n: u64) {
        for event in events(n) {
            writer.push(event);
        }
    }

    /// What is in a finished cell, kind by kind.
    fn finished(cell: &Path) -> Vec<Event> {
        let steps = read_steps(&cell.join("steps.parquet")).unwrap().into_iter().map(Event::Step);
        let layers = read_layers(&cell.join("layers.parquet")).unwrap().into_iter().map(Event::Layer);
        let evals = read_evals(&cell.join("evals.parquet")).unwrap().into_iter().map(Event::Eval);
        let predictions = read_predictions(&cell.join("predictions.parquet")).unwrap().into_iter();
        steps.chain(layers).chain(evals).chain(predictions.map(Event::Prediction)).collect()
    }

    /// Events in the order of [`finished`].
    fn by_kind(mut all: Vec<Event>) -> Vec<Event> {
        // A stable sort: within a kind the order is that of pushing.
        all.sort_by_key(|event| match event {
            Event::Step(_) => 0,
            Event::Layer(_) => 1,
            Event::Eval(_) => 2,
            Event::Prediction(_) => 3,
        });
        all
    }

    /// Runs 80 updates, checkpoints at random ones, dies at random ones (also between writing a part and recording
    /// it), and resumes each time from the last checkpoint.
    #[test]
    fn interruptions_leave_neither_duplicates_nor_gaps() {
        for seed in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let meta = Metadata::from([("seed".into(), seed.to_string())]);
            // Next update and number of parts, as a checkpoint records them.
            let mut checkpoint = (1, 0);
            'resume: loop {
                let (next, parts) = checkpoint;
                let mut writer = PartWriter::open(dir.path(), parts, meta.clone()).unwrap();
                for n in next..=80 {
                    push_all(&mut writer, n);
                    if rng.random_bool(0.02) {
                        continue 'resume;
                    }
                    if rng.random_bool(0.1) {
                        let now = writer.flush().unwrap();
                        if rng.random_bool(0.2) {
                            continue 'resume;
                        }
                        checkpoint = (n + 1, now);
                    }
                }
                writer.finish().unwrap();
                break;
            }
            assert_eq!(finished(dir.path()), by_kind((1..=80).flat_map(events).collect()), "seed {seed}");
            assert_eq!(read_metadata(&dir.path().join("layers.parquet")).unwrap(), meta);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "only the four files are left");
        }
    }

    #[test]
    fn a_cell_without_events_has_its_files_and_empty_flushes_make_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), 0, Metadata::new()).unwrap();
        assert_eq!(writer.flush().unwrap(), 0);
        writer.push(events(1).swap_remove(0));
        assert_eq!((writer.flush().unwrap(), writer.flush().unwrap()), (1, 1));
        PartWriter::open(dir.path(), 0, Metadata::new()).unwrap().finish().unwrap();
        assert_eq!(finished(dir.path()), []);
    }

    #[test]
    fn row_groups_are_those_of_the_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), 0, Metadata::new()).unwrap();
        for n in 1..=6 {
            writer.push(events(n).swap_remove(0));
            if n % 2 == 0 {
                writer.flush().unwrap();
            }
        }
        writer.finish().unwrap();
        let groups = open(&dir.path().join("steps.parquet")).unwrap().metadata().row_groups().to_vec();
        assert_eq!(groups.iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).collect::<Vec<_>>(), [2; 3]);
    }

    #[test]
    fn lost_and_damaged_parts_are_found_before_anything_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), 0, Metadata::new()).unwrap();
        for n in 1..=3 {
            push_all(&mut writer, n);
            writer.flush().unwrap();
        }
        let count = || std::fs::read_dir(dir.path().join("parts")).unwrap().count();
        let damaged = dir.path().join("parts/evals-000001.parquet");
        std::fs::write(&damaged, "PAR1").unwrap();
        let error = PartWriter::open(dir.path(), 2, Metadata::new()).unwrap_err().to_string();
        assert!(error.contains("evals-000001.parquet: "), "{error}");
        std::fs::remove_file(&damaged).unwrap();
        let error = PartWriter::open(dir.path(), 2, Metadata::new()).unwrap_err();
        assert!(matches!(error, DataError::Missing { .. }), "{error}");
        assert_eq!(count(), 11);
        std::fs::write(dir.path().join("parts/steps-000001.parquet.tmp-1"), "").unwrap();
        PartWriter::open(dir.path(), 1, Metadata::new()).unwrap();
        assert_eq!(count(), 4);
    }
}
