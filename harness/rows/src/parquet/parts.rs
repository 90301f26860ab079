//! Parts, which make a running cell's rows safe against interruption.
//!
//! A running cell writes its rows as *parts* (`parts/steps-000002.parquet` and so on), one more whenever there are many and
//! whenever it checkpoints; the checkpoint records how many parts there were. Resuming deletes the parts behind that number,
//! whose rows will be made again, so the result has neither duplicates nor gaps. A finished cell's parts are merged, one
//! part at a time, into the four files.
//!
//! A digest that runs on from part to part goes into the checkpoint too, so that a part that was damaged is found when it is
//! continued from, and again when it is merged.

use std::path::{Path, PathBuf};

use super::{Metadata, open, place, plain, properties, read_batches, refused, schema, sync_folder};
use crate::row::Row;
use crate::tensorboard::Board;
use crate::{EvalRow, Event, LayerRow, PredictionRow, StepRow};
use data::error::{At, DataError, DataResult};
use data::files::{PARTIAL, remove_abandoned, sha256_hex};

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

/// Rows of a kind in a buffer at most, but for a few more that come with the last one.
const MOST_ROWS: usize = 1024;
/// Rows of a row group in the finished files: parts are joined until they have so many.
const GROUP_ROWS: usize = 1 << 16;

/// Rows of all kinds.
#[derive(Debug, Default)]
pub struct Rows {
    steps: Vec<StepRow>,
    layers: Vec<LayerRow>,
    evals: Vec<EvalRow>,
    predictions: Vec<PredictionRow>,
}

impl Rows {
    /// Room from the start, so that what a step is measured to need does not grow with the steps before it.
    pub fn with_room() -> Self {
        Self { steps: Vec::with_capacity(MOST_ROWS), layers: Vec::with_capacity(MOST_ROWS), ..Self::default() }
    }

    /// Shows the rows.
    pub fn show(&self, board: &mut Board) -> DataResult<()> {
        board.write(&self.steps, &self.layers, &self.evals)
    }

    /// Takes an event.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Step(row) => self.steps.push(row),
            Event::Layer(row) => self.layers.push(row),
            Event::Eval(row) => self.evals.push(row),
            Event::Prediction(row) => self.predictions.push(row),
        }
    }

    /// Whether there are enough for a part.
    pub fn is_full(&self) -> bool {
        self.steps.len().max(self.layers.len()).max(self.evals.len()).max(self.predictions.len()) >= MOST_ROWS
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.layers.is_empty() && self.evals.is_empty() && self.predictions.is_empty()
    }

    /// The room without the rows.
    pub fn cleared(mut self) -> Self {
        self.steps.clear();
        self.layers.clear();
        self.evals.clear();
        self.predictions.clear();
        self
    }
}

/// What a checkpoint says of the parts before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many there are.
    pub parts: u64,
    /// Their digest: of the digest of those before the last one and the digests of its files. Empty if there are none.
    pub sha256: String,
}

/// A running cell's parts on the disk; see the top of this file.
#[derive(Debug)]
pub struct Parts {
    cell_dir: PathBuf,
    meta: Metadata,
    /// Complete parts.
    kept: Kept,
}

impl Parts {
    /// See [`super::PartWriter::open`].
    pub fn open(cell_dir: &Path, kept: Kept, meta: Metadata) -> DataResult<Self> {
        let parts = Self { cell_dir: cell_dir.to_owned(), meta, kept };
        // Nothing is deleted before all that must be there has been found.
        for index in 0..parts.kept.parts {
            parts.check::<StepRow>(index)?;
            parts.check::<LayerRow>(index)?;
            parts.check::<EvalRow>(index)?;
            parts.check::<PredictionRow>(index)?;
        }
        parts.check_digest()?;
        parts.remove_merged()?;
        let folder = parts.folder();
        std::fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
        parts.truncate(parts.kept.parts)?;
        Ok(parts)
    }

    /// Writes one more part.
    pub fn write(&mut self, rows: &Rows) -> DataResult<()> {
        // A part is all four files, even without rows: one that is not there is a loss, never a lack of events.
        self.write_part(&rows.steps)?;
        self.write_part(&rows.layers)?;
        self.write_part(&rows.evals)?;
        self.write_part(&rows.predictions)?;
        sync_folder(&self.folder())?;
        self.kept.sha256 = self.digest_after(&self.kept.sha256, self.kept.parts)?;
        self.kept.parts += 1;
        Ok(())
    }

    /// What a checkpoint is to say of them.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The digest that runs on from `before` over the files of one part.
    fn digest_after(&self, before: &str, index: u64) -> DataResult<String> {
        let mut text = before.to_owned();
        let files = [self.part::<StepRow>(index), self.part::<LayerRow>(index)];
        for path in files.into_iter().chain([self.part::<EvalRow>(index), self.part::<PredictionRow>(index)]) {
            text += &sha256_hex(&std::fs::read(&path).map_err(DataError::io(&path))?);
        }
        Ok(sha256_hex(text.as_bytes()))
    }

    /// Finds a part that is not what was written.
    fn check_digest(&self) -> DataResult<()> {
        let mut digest = String::new();
        for index in 0..self.kept.parts {
            digest = self.digest_after(&digest, index)?;
        }
        if digest == self.kept.sha256 {
            return Ok(());
        }
        let expected = format!("the {} parts that were written before the checkpoint", self.kept.parts);
        Err(DataError::corrupt(&self.folder(), At::File, &expected, "other bytes: a part is damaged".to_owned()))
    }

    /// Merges the parts into the cell's four files.
    pub fn merge_all(&self) -> DataResult<()> {
        self.check_digest()?;
        self.merge::<StepRow>()?;
        self.merge::<LayerRow>()?;
        self.merge::<EvalRow>()?;
        self.merge::<PredictionRow>()?;
        sync_folder(&self.cell_dir)
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
        let path = self.part::<R>(self.kept.parts);
        let batch = super::batch(rows).map_err(refused(&path))?;
        place(&path, &schema::<R>(), Ok(plain()), |writer| writer.write(&batch).map_err(refused(&path)))
    }

    /// Deletes the parts from index `kept` on, and what interrupted writing has left in their folder.
    fn truncate(&self, kept: u64) -> DataResult<()> {
        let folder = self.folder();
        for entry in std::fs::read_dir(&folder).map_err(DataError::io(&folder))? {
            let path = entry.map_err(DataError::io(&folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let index = name.strip_suffix(".parquet").and_then(|stem| stem.rsplit_once('-')?.1.parse::<u64>().ok());
            if index.is_some_and(|index| index >= kept) || name.contains(PARTIAL) {
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
                expected: format!("the {} parts that the checkpoint counts", self.kept.parts),
                next: "remove the cell's folder and run it again from the start".into(),
            });
        }
        let found = open(&path)?.schema().clone();
        if found.fields() != schema::<R>().fields() {
            return Err(DataError::corrupt(&path, At::File, "the columns of this version", "other columns"));
        }
        Ok(())
    }

    /// Joins the parts of one kind; no more than a row group is in memory.
    fn merge<R: Row>(&self) -> DataResult<()> {
        let path = self.cell_dir.join(format!("{}.parquet", R::NAME));
        remove_abandoned(&path);
        place(&path, &schema::<R>(), properties(&self.meta), |writer| {
            for index in 0..self.kept.parts {
                let part = self.part::<R>(index);
                read_batches(&part, |batch| writer.write(batch).map_err(refused(&path)))?;
                if writer.in_progress_rows() >= GROUP_ROWS {
                    writer.flush().map_err(refused(&path))?;
                }
            }
            Ok(())
        })
    }
}
