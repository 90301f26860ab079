//! Rows on their way to the disk: the training thread fills one buffer while a thread of the writer's own encodes and
//! writes the other. Training waits only if it fills a buffer before the one before it is written.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Metadata;
use super::parts::{Kept, Parts, Rows, discard_parts};
use crate::Event;
use crate::tensorboard::Board;
use data::error::{DataError, DataResult};

/// Collects a running cell's events and has them written in parts; see [`super::parts`].
#[derive(Debug)]
pub struct PartWriter {
    cell_dir: PathBuf,
    /// Parts that the writer has answered for.
    kept: Kept,
    /// What has not been handed over.
    rows: Rows,
    /// The other buffer, unless the writer has it.
    spare: Option<Rows>,
    /// Why the board was given up.
    unshown: Option<DataError>,
    thread: Thread,
}

/// The writer's thread and the two ends that reach it.
#[derive(Debug)]
struct Thread {
    /// `None` only while it is told to end.
    work: Option<SyncSender<Work>>,
    done: Receiver<Done>,
    handle: Option<JoinHandle<()>>,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Work {
    /// Write one more part.
    Part(Rows),
    /// Merge the parts into the cell's files.
    Merge,
    /// Show what comes from now on there too.
    Show(Board),
}

/// What it answers: the buffer, to be used again and freed where it was allocated, and how it went.
#[derive(Debug)]
struct Done {
    rows: Option<Rows>,
    result: DataResult<()>,
    kept: Kept,
    unshown: Option<DataError>,
}

impl PartWriter {
    /// Opens the parts of a cell for more. `kept` is what the checkpoint to resume from says of them, the default to start
    /// afresh; whatever lies behind them is deleted. The finished files will have `meta` in their metadata. The
    /// writing thread calls `on_start` first.
    ///
    /// # Errors
    /// `Missing` or `Corrupt` if one of the parts to keep is not there or not what was written, `Io` if the system refuses.
    pub fn open(cell_dir: &Path, kept: Kept, meta: Metadata, on_start: fn()) -> DataResult<Self> {
        let parts = Parts::open(cell_dir, kept.clone(), meta)?;
        // one part at a time: the bound is the second buffer
        let ((work, inbox), (outbox, done)) = (sync_channel(1), sync_channel(1));
        let handle = std::thread::Builder::new()
            .name("rows".into())
            .spawn(move || serve(on_start, parts, &inbox, &outbox))
            .map_err(DataError::io(cell_dir))?;
        Ok(Self {
            cell_dir: cell_dir.to_owned(),
            kept,
            rows: Rows::with_room(),
            spare: Some(Rows::with_room()),
            unshown: None,
            thread: Thread { work: Some(work), done, handle: Some(handle) },
        })
    }

    /// Has the rows from now on shown in `TensorBoard`, too, until some cannot be written there: that stops nothing else, and
    /// [`PartWriter::unshown`] says why.
    ///
    /// # Errors
    /// `Io` if rows handed over before could not be written.
    pub fn show(&mut self, board: Board) -> DataResult<()> {
        self.thread.ask(&self.cell_dir, Work::Show(board))
    }

    /// Why rows that were written are not shown, if that is so.
    #[must_use]
    pub fn unshown(&self) -> Option<&DataError> {
        self.unshown.as_ref()
    }

    /// Takes an event. It reaches the disk with the next [`PartWriter::flush`], or before if many have come.
    ///
    /// # Errors
    /// `Io` if rows handed over before could not be written.
    pub fn push(&mut self, event: Event) -> DataResult<()> {
        self.rows.push(event);
        if self.rows.is_full() { self.hand_over() } else { Ok(()) }
    }

    /// Has the events since the last time written as one more part, if there are any, without waiting for it.
    ///
    /// # Errors
    /// `Io` if rows handed over before could not be written.
    pub fn hand_over(&mut self) -> DataResult<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.wait()?;
        let empty = self.spare.take().unwrap_or_else(Rows::with_room);
        let full = mem::replace(&mut self.rows, empty);
        self.thread.ask(&self.cell_dir, Work::Part(full))
    }

    /// Writes the events since the last time as one more part, if there are any, and returns what the checkpoint is to say of
    /// the parts.
    ///
    /// # Errors
    /// `Io` if the system refuses; nothing more can be written then.
    pub fn flush(&mut self) -> DataResult<&Kept> {
        self.hand_over()?;
        self.wait()?;
        Ok(&self.kept)
    }

    /// Writes what is left and merges the parts into `steps.parquet`, `layers.parquet`, `evals.parquet` and
    /// `predictions.parquet` of the cell; all four exist afterwards, if only with their columns. The parts stay: until
    /// the cell's outcome is on disk, its checkpoint must still be good to continue from.
    ///
    /// # Errors
    /// `Io` if the system refuses, `Corrupt` if a part cannot be read.
    pub fn publish(&mut self) -> DataResult<()> {
        self.flush()?;
        self.thread.ask(&self.cell_dir, Work::Merge)?;
        self.thread.answer(&self.cell_dir)?.result
    }

    /// [`PartWriter::publish`], then [`discard_parts`].
    ///
    /// # Errors
    /// As those two.
    pub fn finish(mut self) -> DataResult<()> {
        self.publish()?;
        discard_parts(&self.cell_dir)
    }

    /// Waits for the part that is being written, if one is.
    fn wait(&mut self) -> DataResult<()> {
        if self.spare.is_some() {
            return Ok(());
        }
        let Done { rows, result, kept, unshown } = self.thread.answer(&self.cell_dir)?;
        self.unshown = self.unshown.take().or(unshown);
        result?;
        self.kept = kept;
        self.spare = rows.map(Rows::cleared);
        Ok(())
    }
}

impl Thread {
    fn ask(&self, cell_dir: &Path, work: Work) -> DataResult<()> {
        self.work.as_ref().and_then(|channel| channel.send(work).ok()).ok_or_else(|| gone(cell_dir))
    }

    fn answer(&self, cell_dir: &Path) -> DataResult<Done> {
        self.done.recv().map_err(|_| gone(cell_dir))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.work = None; // the thread ends when nothing more can come
        if let Some(handle) = self.handle.take() {
            // what it could not do has been answered; a panic in it has been printed
            let _ = handle.join();
        }
    }
}

fn gone(cell_dir: &Path) -> DataError {
    DataError::io(cell_dir)(std::io::Error::other("its rows can no longer be written: an earlier attempt failed"))
}

/// The thread: ends with the channel, or after the first failure, as a part that is missing must not be followed by another.
fn serve(on_start: fn(), mut parts: Parts, work: &Receiver<Work>, done: &SyncSender<Done>) {
    on_start();
    let mut board: Option<Board> = None;
    for work in work {
        let answer = match work {
            Work::Show(new) => {
                board = Some(new);
                continue;
            }
            Work::Part(rows) => {
                let result = parts.write(&rows);
                let unshown = board.as_mut().and_then(|board| rows.show(board).err());
                board = board.filter(|_| unshown.is_none());
                Done { rows: Some(rows), result, kept: parts.kept().clone(), unshown }
            }
            Work::Merge => Done { rows: None, result: parts.merge_all(), kept: parts.kept().clone(), unshown: None },
        };
        let failed = answer.result.is_err();
        if done.send(answer).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::row::Drawn;
    use crate::{EvalRow, LayerRow, PredictionRow, StepRow};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::{open, read_metadata, read_rows};
    use super::*;

    /// The events of update `n`, always the same.
    fn events(n: u64) -> Vec<Event> {
        let mut rng = ChaCha8Rng::seed_from_u64(n);
        let mut events = vec![Event::Step(StepRow { step: n, ..StepRow::drawn(&mut rng) })];
        events.extend((0..rng.random_range(0..4)).map(|_| Event::Layer(LayerRow::drawn(&mut rng))));
        events.extend((0..rng.random_range(0..2)).map(|_| Event::Eval(EvalRow::drawn(&mut rng))));
        events.extend((0..rng.random_range(0..3)).map(|_| Event::Prediction(PredictionRow::drawn(&mut rng))));
        events
    }

    fn push_all(writer: &mut PartWriter, n: u64) {
        for event in events(n) {
            writer.push(event).unwrap();
        }
    }

    /// What is in a finished cell, kind by kind.
    fn finished(cell: &Path) -> Vec<Event> {
        let steps = read_rows::<StepRow>(&cell.join("steps.parquet")).unwrap().into_iter().map(Event::Step);
        let layers = read_rows::<LayerRow>(&cell.join("layers.parquet")).unwrap().into_iter().map(Event::Layer);
        let evals = read_rows::<EvalRow>(&cell.join("evals.parquet")).unwrap().into_iter().map(Event::Eval);
        let predictions = read_rows::<PredictionRow>(&cell.join("predictions.parquet")).unwrap().into_iter();
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

    /// A picture of the run that cannot be drawn is no reason to end it, and is told.
    #[test]
    fn a_board_on_a_full_disk_stops_no_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        writer.show(Board::at("/dev/full".into()).unwrap()).unwrap();
        for n in 1..=3 {
            push_all(&mut writer, n);
            writer.flush().unwrap();
        }
        assert!(writer.unshown().is_some_and(|e| e.to_string().contains("/dev/full")));
        writer.finish().unwrap();
        assert_eq!(finished(dir.path()), by_kind((1..=3).flat_map(events).collect()));
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
            let mut checkpoint = (1, Kept::default());
            'resume: loop {
                let (next, parts) = checkpoint.clone();
                let mut writer = PartWriter::open(dir.path(), parts, meta.clone(), || ()).unwrap();
                for n in next..=80 {
                    push_all(&mut writer, n);
                    if rng.random_bool(0.02) {
                        continue 'resume;
                    }
                    if rng.random_bool(0.1) {
                        let now = writer.flush().unwrap().clone();
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
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        assert_eq!(writer.flush().unwrap(), &Kept::default());
        writer.push(events(1).swap_remove(0)).unwrap();
        let once = writer.flush().unwrap().clone();
        assert_eq!((once.parts, writer.flush().unwrap()), (1, &once));
        PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap().finish().unwrap();
        assert_eq!(finished(dir.path()), []);
    }

    #[test]
    fn small_parts_become_one_row_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        for n in 1..=6 {
            writer.push(events(n).swap_remove(0)).unwrap();
            if n % 2 == 0 {
                writer.flush().unwrap();
            }
        }
        writer.finish().unwrap();
        let groups = open(&dir.path().join("steps.parquet")).unwrap().metadata().row_groups().to_vec();
        assert_eq!(groups.iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).collect::<Vec<_>>(), [6]);
    }

    /// Far more rows than the two buffers hold, and not one flush in between.
    #[test]
    fn rows_reach_the_disk_while_more_are_pushed() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        let row = |n| StepRow { step: n, ..StepRow::default() };
        for n in 1..=10_000 {
            writer.push(Event::Step(row(n))).unwrap();
        }
        let parts = std::fs::read_dir(dir.path().join("parts")).unwrap().count();
        assert!(parts >= 4 * 7, "{parts} files: at most two parts of 1024 rows are still in memory");
        writer.finish().unwrap();
        assert_eq!(
            read_rows::<StepRow>(&dir.path().join("steps.parquet")).unwrap(),
            (1..=10_000).map(row).collect::<Vec<_>>()
        );
    }

    /// A disk that refuses is an error, soon and for good: no later part may hide that one is missing.
    #[test]
    fn a_part_that_cannot_be_written_is_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        std::fs::remove_dir(dir.path().join("parts")).unwrap();
        push_all(&mut writer, 1);
        let error = writer.flush().unwrap_err().to_string();
        assert!(error.contains("steps-000000.parquet"), "{error}");
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        push_all(&mut writer, 2);
        let error = writer.publish().unwrap_err().to_string();
        assert!(error.contains("earlier attempt failed"), "{error}");
        assert!(!dir.path().join("steps.parquet").exists());
    }

    #[test]
    fn lost_and_damaged_parts_are_found_before_anything_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::open(dir.path(), Kept::default(), Metadata::new(), || ()).unwrap();
        let mut kept = vec![Kept::default()];
        for n in 1..=3 {
            push_all(&mut writer, n);
            kept.push(writer.flush().unwrap().clone());
        }
        let count = || std::fs::read_dir(dir.path().join("parts")).unwrap().count();
        let damaged = dir.path().join("parts/evals-000001.parquet");
        let whole = std::fs::read(&damaged).unwrap();
        for place in [0, whole.len() / 3, whole.len() - 40] {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&damaged, bytes).unwrap();
            let error = PartWriter::open(dir.path(), kept[2].clone(), Metadata::new(), || ()).unwrap_err();
            assert!(matches!(error, DataError::Corrupt { .. }), "{place}: {error}");
            assert!(writer.publish().is_err(), "what is damaged while it is written is not merged");
            writer = PartWriter::open(dir.path(), kept[1].clone(), Metadata::new(), || ()).unwrap();
            for n in 2..=3 {
                push_all(&mut writer, n);
                assert_eq!(writer.flush().unwrap(), &kept[n as usize], "equal rows are equal bytes");
            }
        }
        std::fs::write(&damaged, "PAR1").unwrap();
        let error = PartWriter::open(dir.path(), kept[2].clone(), Metadata::new(), || ()).unwrap_err().to_string();
        assert!(error.contains("evals-000001.parquet: "), "{error}");
        std::fs::remove_file(&damaged).unwrap();
        let error = PartWriter::open(dir.path(), kept[2].clone(), Metadata::new(), || ()).unwrap_err();
        assert!(matches!(error, DataError::Missing { .. }), "{error}");
        assert_eq!(count(), 11);
        std::fs::write(dir.path().join("parts/steps-000001.parquet.partial-1-0"), "").unwrap();
        PartWriter::open(dir.path(), kept[1].clone(), Metadata::new(), || ()).unwrap();
        assert_eq!(count(), 4);
    }
}
