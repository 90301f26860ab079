//! Parquet files of rows. A file is written beside its name, synced, and renamed when whole; equal rows and metadata
//! give equal bytes.

mod parts;
mod writer;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use polars::prelude::{DataFrame, ParquetReader, SerReader};

pub use self::parts::{Kept, discard_parts};
pub use self::writer::PartWriter;
use crate::row::Row;
use data::error::{At, DataError, DataResult};
use data::files::{Partial, remove_abandoned, sync_folder};

/// What a file's key-value metadata says: configuration, versions, hashes.
pub type Metadata = BTreeMap<String, String>;

/// Version of the tables' form, in every file's metadata: a column that goes or changes its meaning raises it.
const SCHEMA: (&str, &str) = ("schema", "1");

/// The metadata that every table begins with.
#[must_use]
pub fn versioned() -> Metadata {
    Metadata::from([(SCHEMA.0.to_owned(), SCHEMA.1.to_owned())])
}

/// Refuses a table of another version than this program's; one without a version is of before there was one.
///
/// # Errors
/// `Corrupt` with both versions.
pub fn check_version(path: &Path, meta: &Metadata) -> DataResult<()> {
    match meta.get(SCHEMA.0) {
        Some(version) if version != SCHEMA.1 => {
            let expected = format!("a table of version {}, which this program writes", SCHEMA.1);
            let got = format!("version {version}: read it with the program that wrote it");
            Err(DataError::corrupt(path, At::File, expected, got))
        }
        _ => Ok(()),
    }
}

/// zstd's own default level.
const ZSTD_LEVEL: i32 = 3;

/// Key under which the `parquet` crate keeps the Arrow schema; not the caller's metadata.
const ARROW_KEY: &str = "ARROW:schema";

/// Writes `rows` to `path`, with `meta` in the file's metadata.
///
/// # Errors
/// `Io` if the system refuses.
pub fn write_rows<R: Row>(path: &Path, rows: &[R], meta: &Metadata) -> DataResult<()> {
    write_batch(path, &batch(rows).map_err(refused(path))?, meta)
}

/// Reads what [`write_rows`] or a [`PartWriter`] wrote.
///
/// # Errors
/// `Missing` if there is no such file, `Corrupt` if it is no Parquet file with the table's columns.
pub fn read_rows<R: Row>(path: &Path) -> DataResult<Vec<R>> {
    let frame = read_frame(path)?;
    check_version(path, &read_metadata(path)?)?;
    R::from_frame(path, &frame)
}

/// Reads a table as it is.
///
/// # Errors
/// `Missing` if there is no such file, `Corrupt` if it is no Parquet file, `Io` if it cannot be opened.
pub fn read_frame(path: &Path) -> DataResult<DataFrame> {
    if !path.exists() {
        return Err(DataError::Missing {
            path: path.to_owned(),
            expected: "results of a run".into(),
            next: "run the grid first, or name a directory that holds results.parquet".into(),
        });
    }
    let file = File::open(path).map_err(DataError::io(path))?;
    let unreadable = |text: &str| {
        DataError::corrupt(path, At::File, "a Parquet file", text.lines().next().unwrap_or("an unreadable file"))
    };
    // on damaged files both readers panic where they should fail
    let read = || {
        check_pages(path).map_err(|error| match error {
            ParquetError::General(text) => text,
            other => other.to_string(),
        })?;
        ParquetReader::new(file).finish().map_err(|error| error.to_string())
    };
    match caught(read) {
        Ok(read) => read.map_err(|error| unreadable(&error)),
        Err(_) => Err(unreadable("bytes that cannot be decoded")),
    }
}

/// Holds the number of values that each page announces against the footer. Polars makes room for what a page announces before it looks
/// at the page, and a process that asks for too much ends.
fn check_pages(path: &Path) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    for i in 0..reader.num_row_groups() {
        let group = reader.get_row_group(i)?;
        for j in 0..group.num_columns() {
            let column = group.metadata().column(j);
            let mut pages = group.get_column_page_reader(j)?;
            let mut values = Some(0_i64);
            while let Some(page) = pages.peek_next_page()? {
                if !page.is_dict {
                    let more = page.num_levels.and_then(|levels| i64::try_from(levels).ok());
                    values = values.zip(more).and_then(|(values, more)| values.checked_add(more));
                }
                pages.skip_next_page()?;
            }
            let flat = column.column_descr().max_rep_level() == 0;
            if values != Some(column.num_values()) || (flat && column.num_values() != group.metadata().num_rows()) {
                let name = column.column_path().string();
                return Err(ParquetError::General(format!(
                    "pages of column `{name}` with another number of values than its footer"
                )));
            }
        }
    }
    Ok(())
}

thread_local! {
    /// Whether this thread looks at a file whose panics are caught.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic.
fn caught<R>(run: impl FnOnce() -> R) -> std::thread::Result<R> {
    CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(false);
    result
}

/// Keeps the panics that [`read_frame`] turns into errors from being printed; all others are printed as before. Polars also panics in
/// threads of its own, where only the place tells whose panic it is.
pub fn hide_caught_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !CAUGHT.get() && !info.location().is_some_and(|at| at.file().contains("/polars-")) {
            print(info);
        }
    }));
}

/// The columns that every file of a table has.
fn schema<R: Row>() -> SchemaRef {
    Arc::new(Schema::new(R::columns()))
}

fn batch<R: Row>(rows: &[R]) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(schema::<R>(), R::arrays(rows))
}

/// The metadata that the writer of a file gave it.
///
/// # Errors
/// `Io` if the file cannot be opened, `Corrupt` if it is no Parquet file.
pub fn read_metadata(path: &Path) -> DataResult<Metadata> {
    let reader = open(path)?;
    let pairs = reader.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let pairs = pairs.filter(|pair| pair.key != ARROW_KEY);
    Ok(pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect())
}

/// Writes a table to `path`: beside the name, synced, then renamed, and the renaming synced.
pub(super) fn write_batch(path: &Path, batch: &RecordBatch, meta: &Metadata) -> DataResult<()> {
    remove_abandoned(path);
    place(path, &batch.schema(), properties(meta), |writer| writer.write(batch).map_err(refused(path)))?;
    sync_folder(path.parent().unwrap_or(path))
}

/// Writes a table as [`write_batch`] does, but leaves syncing the folder to the caller, who may have more files for it.
fn place(
    path: &Path,
    schema: &SchemaRef,
    properties: Result<WriterProperties, ParquetError>,
    fill: impl FnOnce(&mut ArrowWriter<File>) -> DataResult<()>,
) -> DataResult<()> {
    let partial = Partial::create(path)?;
    let properties = properties.map_err(refused(path))?;
    let mut writer = ArrowWriter::try_new(partial.file()?, schema.clone(), Some(properties)).map_err(refused(path))?;
    fill(&mut writer)?;
    writer.close().map_err(refused(path))?;
    partial.finish()
}

/// Reads a table batch by batch, an empty one first: so the columns of a file without rows are looked at too.
pub(super) fn read_batches(path: &Path, mut take: impl FnMut(&RecordBatch) -> DataResult<()>) -> DataResult<()> {
    let reader = open(path)?;
    take(&RecordBatch::new_empty(reader.schema().clone()))?;
    for batch in reader.build().map_err(corrupt(path))? {
        take(&batch.map_err(|error| corrupt(path)(error.into()))?)?;
    }
    Ok(())
}

/// A system's or library's refusal to write.
pub(super) fn refused<E: Into<ParquetError>>(path: &Path) -> impl FnOnce(E) -> DataError + '_ {
    move |error| DataError::io(path)(std::io::Error::other(error.into()))
}

fn corrupt(path: &Path) -> impl FnOnce(ParquetError) -> DataError + '_ {
    move |error| DataError::corrupt(path, At::File, "a Parquet file of this program", error.to_string())
}

fn open(path: &Path) -> DataResult<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(DataError::io(path))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(corrupt(path))
}

fn properties(meta: &Metadata) -> Result<WriterProperties, ParquetError> {
    let pairs = meta.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let compression = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
    Ok(WriterProperties::builder().set_compression(compression).set_key_value_metadata(Some(pairs)).build())
}

/// For files that are read once and then removed: neither compressed nor with dictionaries.
fn plain() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::UNCOMPRESSED).set_dictionary_enabled(false).build()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::row::Drawn;
    use crate::{EvalRow, LayerRow, PredictionRow, StepRow};

    /// Rows of random content come back equal, whatever is null and however many there are; a batch of the reader
    /// has 1024 rows.
    #[test]
    fn rows_come_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let meta = Metadata::from([("b".into(), String::new()), ("a".into(), "{\"x\": 1}".into())]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for rows in [0, 1, 7, 1024, 3000] {
            let (mut steps, mut layers) = (Vec::new(), Vec::new());
            let (mut evals, mut predictions) = (Vec::new(), Vec::new());
            for _ in 0..rows {
                steps.push(StepRow::drawn(&mut rng));
                layers.push(LayerRow::drawn(&mut rng));
                evals.push(EvalRow::drawn(&mut rng));
                predictions.push(PredictionRow::drawn(&mut rng));
            }
            write_rows(&path, &steps, &meta).unwrap();
            assert_eq!(read_rows::<StepRow>(&path).unwrap(), steps);
            assert_eq!(read_metadata(&path).unwrap(), meta);
            write_rows(&path, &layers, &meta).unwrap();
            assert_eq!(read_rows::<LayerRow>(&path).unwrap(), layers);
            write_rows(&path, &evals, &meta).unwrap();
            assert_eq!(read_rows::<EvalRow>(&path).unwrap(), evals);
            write_rows(&path, &predictions, &meta).unwrap();
            assert_eq!(read_rows::<PredictionRow>(&path).unwrap(), predictions);
            let first = std::fs::read(&path).unwrap();
            write_rows(&path, &predictions, &meta).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), first, "equal rows give equal bytes");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_diverged_loss_is_kept_and_is_not_null() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("steps.parquet");
        write_rows(&path, &[StepRow { loss: Some(f64::NAN), ..StepRow::default() }], &Metadata::new()).unwrap();
        assert!(read_rows::<StepRow>(&path).unwrap()[0].loss.unwrap().is_nan());
    }

    /// Polars makes room for as many values as a page announces: a process that asks for more than there is ends.
    /// Whose panic nobody catches is printed, wherever it comes from.
    #[test]
    fn panics_that_are_caught_are_not_printed_and_others_are() {
        thread_local! {
            static PRINTED: Cell<u32> = const { Cell::new(0) };
        }
        std::panic::set_hook(Box::new(|_| PRINTED.set(PRINTED.get() + 1)));
        hide_caught_panics();
        let hidden = caught(|| panic!("caught"));
        assert_eq!((hidden.is_err(), PRINTED.get()), (true, 0));
        assert!(catch_unwind(|| panic!("another's")).is_err());
        assert_eq!(PRINTED.get(), 1);
        drop(std::panic::take_hook());
    }

    #[test]
    fn no_changed_byte_ends_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evals.parquet");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let rows: Vec<EvalRow> = (0..5).map(|_| EvalRow::drawn(&mut rng)).collect(); // with columns that hold nulls
        write_rows(&path, &rows, &Metadata::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            for change in [0x80, 0xff, 0x01] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                std::fs::write(&path, &bytes).unwrap();
                refused += usize::from(read_rows::<EvalRow>(&path).is_err());
            }
        }
        assert!(refused > whole.len() / 2, "{refused} of {} changes were noticed", 3 * whole.len());
    }

    #[test]
    fn what_is_no_such_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("steps.parquet");
        assert!(matches!(read_rows::<StepRow>(&path), Err(DataError::Missing { .. })));
        std::fs::write(&path, "not parquet").unwrap();
        let error = read_rows::<StepRow>(&path).unwrap_err().to_string();
        assert!(error.contains("steps.parquet: "), "{error}");
        write_rows::<LayerRow>(&path, &[], &Metadata::new()).unwrap();
        // Without rows there is no batch to look into, so the columns must be checked before.
        assert!(matches!(read_rows::<StepRow>(&path), Err(DataError::Corrupt { .. })));
        let nowhere = dir.path().join("no/such/folder.parquet");
        assert!(matches!(write_rows::<StepRow>(&nowhere, &[], &Metadata::new()), Err(DataError::Io { .. })));
    }
}
