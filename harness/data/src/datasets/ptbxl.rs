//! PTB-XL (Wagner et al., 2020): 12-lead clinical ECGs of 10 s, in the publisher's layout: `ptbxl_database.csv`,
//! `scp_statements.csv`, `records100/…` and `records500/…`.

pub mod generate;
mod signal;
mod statements;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::account::{Account, Kind};
use crate::error::{DataError, DataResult};
pub use signal::Ecg;
use statements::Statements;
pub use statements::{LabelSet, Labelling};
use table::Table;

/// The five diagnostic superclasses, in the order of [`Entry::labels`] under [`LabelSet::Superclass`].
pub const SUPERCLASSES: [&str; 5] = ["NORM", "MI", "STTC", "CD", "HYP"];
/// The leads, in the order of [`PtbXl::load`]; headers write them in capitals.
pub const LEADS: [&str; 12] = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
/// Length of every record.
pub const SECONDS: usize = 10;

/// Name of the table of records.
pub const DATABASE: &str = "ptbxl_database.csv";
/// Name of the table of statements.
pub const STATEMENTS: &str = "scp_statements.csv";

/// The two sampling rates every record comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    /// 100 samples per second (`records100`).
    Hz100,
    /// 500 samples per second (`records500`).
    Hz500,
}

impl Rate {
    /// Samples per second of each lead.
    pub fn hz(self) -> usize {
        match self {
            Self::Hz100 => 100,
            Self::Hz500 => 500,
        }
    }

    /// Samples of each lead of a record.
    pub fn samples(self) -> usize {
        self.hz() * SECONDS
    }
}

/// One record, as the database describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Number of the record.
    pub ecg_id: u32,
    /// Number of the patient; one patient may have several records, all in one fold.
    pub patient_id: u64,
    /// Recommended fold, 1 to 10: 9 for validation, 10 for test.
    pub fold: u8,
    /// Which of [`PtbXl::classes`] it has.
    pub labels: Vec<bool>,
    /// The 100 Hz record, relative to the root, without extension.
    pub filename_lr: String,
    /// The 500 Hz record, likewise.
    pub filename_hr: String,
}

impl Entry {
    /// The record of one rate, relative to the root, without extension.
    pub fn filename(&self, rate: Rate) -> &str {
        match rate {
            Rate::Hz100 => &self.filename_lr,
            Rate::Hz500 => &self.filename_hr,
        }
    }
}

/// The dataset: its index in memory, its signals on disk.
#[derive(Clone, Debug)]
pub struct PtbXl {
    root: PathBuf,
    labelling: Labelling,
    classes: Vec<String>,
    entries: Vec<Entry>,
    account: Account,
}

impl PtbXl {
    /// Reads the two tables below `root` with the default [`Labelling`].
    ///
    /// # Errors
    /// As [`PtbXl::open_with`].
    pub fn open(root: &Path) -> DataResult<Self> {
        Self::open_with(root, Labelling::default())
    }

    /// Reads the two tables below `root`. Signals may be absent: see [`PtbXl::missing`].
    ///
    /// # Errors
    /// [`DataError::Missing`] without the tables, [`DataError::Corrupt`] with the line of a field that is not what it
    /// should be.
    pub fn open_with(root: &Path, labelling: Labelling) -> DataResult<Self> {
        let [statements, database] = [STATEMENTS, DATABASE].map(|name| root.join(name));
        Self::from_tables(root, Table::open(&statements)?, Table::open(&database)?, labelling)
    }

    /// [`PtbXl::open_with`] with the tables' bytes, `scp_statements.csv` and `ptbxl_database.csv`; `root` is where they
    /// are said to be from.
    ///
    /// # Errors
    /// As [`PtbXl::open_with`].
    pub fn parse(root: &Path, statements: &[u8], database: &[u8], labelling: Labelling) -> DataResult<Self> {
        let statements = Table::parse(&root.join(STATEMENTS), statements.to_vec())?;
        Self::from_tables(root, statements, Table::parse(&root.join(DATABASE), database.to_vec())?, labelling)
    }

    fn from_tables(root: &Path, mut first: Table, mut table: Table, labelling: Labelling) -> DataResult<Self> {
        let statements = Statements::read(&mut first, labelling)?;
        let columns = [
            table.column("ecg_id")?,
            table.column("patient_id")?,
            table.column("strat_fold")?,
            table.column("scp_codes")?,
            table.column("filename_lr")?,
            table.column("filename_hr")?,
        ];
        let (mut entries, mut ids) = (Vec::new(), HashSet::new());
        while let Some(row) = table.next_row()? {
            let [ecg_id, patient_id, fold, codes, lr, hr] = columns.map(|column| row.field(column));
            let entry = Entry {
                ecg_id: row.whole(ecg_id, "ecg_id", u64::from(u32::MAX))? as u32,
                patient_id: row.whole(patient_id, "patient_id", 1 << 53)?,
                fold: row.whole(fold, "strat_fold", 10)? as u8,
                labels: statements.labels(&row, codes)?,
                filename_lr: row.relative_path(lr)?,
                filename_hr: row.relative_path(hr)?,
            };
            if entry.fold == 0 {
                return Err(row.wrong("a strat_fold from 1 to 10", "0"));
            }
            if !ids.insert(entry.ecg_id) {
                return Err(row.wrong("each ecg_id once", format!("{} again", entry.ecg_id)));
            }
            entries.push(entry);
        }
        let mut account = Account::new();
        for (name, mended) in [(STATEMENTS, first.mended), (DATABASE, table.mended)] {
            for what in mended {
                account.add(Kind::Repaired, name, what);
            }
        }
        Ok(Self { root: root.to_owned(), labelling, classes: statements.classes, entries, account })
    }

    /// The folder that it was opened in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names of the classes of [`Entry::labels`], in order: [`SUPERCLASSES`], or as `scp_statements.csv` first names them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What was not taken as it stands in the tables. Absent signals are not in it, nor are items: which records matter is
    /// up to [`PtbXl::select`].
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// All records of the database, in its order; functions that take or give an index mean this list's.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Records of these folds, in the database's order. Records without any of the classes are left out unless
    /// [`Labelling::keep_unlabelled`] is set. Whether their signals are there is another matter: [`PtbXl::missing`].
    pub fn select(&self, folds: &[u8]) -> Vec<usize> {
        let wanted = |entry: &Entry| {
            folds.contains(&entry.fold) && (self.labelling.keep_unlabelled || entry.labels.contains(&true))
        };
        self.entries.iter().enumerate().filter(|(_, entry)| wanted(entry)).map(|(index, _)| index).collect()
    }

    /// Records whose header or signal file of this rate is absent.
    pub fn missing(&self, rate: Rate) -> Vec<usize> {
        let absent =
            |entry: &Entry| !["hea", "dat"].iter().all(|extension| self.path(entry, rate, extension).is_file());
        self.entries.iter().enumerate().filter(|(_, entry)| absent(entry)).map(|(index, _)| index).collect()
    }

    /// The signal of one record as stored, with the scales that turn it into millivolts.
    ///
    /// # Errors
    /// What [`wfdb::read_record`] says, [`DataError::Missing`] if there is no such index, or [`DataError::Corrupt`] if
    /// leads, unit, rate or length are not those of PTB-XL or a sample is marked as missing.
    pub fn load_ecg(&self, index: usize, rate: Rate) -> DataResult<Ecg> {
        let entry = self.entries.get(index).ok_or_else(|| DataError::Missing {
            path: self.root.join(DATABASE),
            expected: format!("a record of index {index}; there are {}", self.entries.len()),
            next: "use indices that were selected from this dataset".into(),
        })?;
        signal::load_record(&self.path(entry, rate, "hea"), rate)
    }

    /// The signal of one record in millivolts: [time, lead], flat, with [`Rate::samples`] times and the leads of
    /// [`LEADS`].
    ///
    /// # Errors
    /// As [`PtbXl::load_ecg`].
    pub fn load(&self, index: usize, rate: Rate) -> DataResult<Vec<f32>> {
        Ok(self.load_ecg(index, rate)?.physical().collect())
    }

    fn path(&self, entry: &Entry, rate: Rate, extension: &str) -> PathBuf {
        self.root.join(format!("{}.{extension}", entry.filename(rate)))
    }

    /// [`PtbXl::load_ecg`] of several records, on all cores; in the order of `indices`.
    ///
    /// # Errors
    /// That of the first record, in this order, that cannot be loaded.
    pub fn load_ecgs(&self, indices: &[usize], rate: Rate) -> DataResult<Vec<Ecg>> {
        let loaded: Vec<_> = indices.par_iter().map(|&index| self.load_ecg(index, rate)).collect();
        loaded.into_iter().collect()
    }

    /// [`PtbXl::load`] of several records, on all cores; in the order of `indices`.
    ///
    /// # Errors
    /// That of the first record, in this order, that cannot be loaded.
    pub fn load_many(&self, indices: &[usize], rate: Rate) -> DataResult<Vec<Vec<f32>>> {
        let loaded: Vec<_> = indices.par_iter().map(|&index| self.load(index, rate)).collect();
        loaded.into_iter().collect()
    }

    /// SHA-256, in hexadecimal, of the bytes of `ptbxl_database.csv` followed by those of `scp_statements.csv`.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn fingerprint(&self) -> DataResult<String> {
        let mut hash = Sha256::new();
        for name in [DATABASE, STATEMENTS] {
            let path = self.root.join(name);
            hash.update(std::fs::read(&path).map_err(DataError::io(&path))?);
        }
        Ok(crate::files::hex(&hash.finalize()))
    }
}
