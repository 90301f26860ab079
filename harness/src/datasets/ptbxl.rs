//! PTB-XL (Wagner et al., 2020): 12-lead clinical ECGs of 10 s, in the publisher's layout: `ptbxl_database.csv`,
//! `scp_statements.csv`, `records100/…` and `records500/…`.

mod table;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::error::{At, DataError, DataResult};
use super::wfdb;
use table::{Row, Table};

/// The five diagnostic superclasses, in the order of [`Entry::labels`].
pub const SUPERCLASSES: [&str; 5] = ["NORM", "MI", "STTC", "CD", "HYP"];
/// The leads, in the order of [`PtbXl::load`]; headers write them in capitals.
pub const LEADS: [&str; 12] = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
/// Length of every record.
pub const SECONDS: usize = 10;

const DATABASE: &str = "ptbxl_database.csv";
const STATEMENTS: &str = "scp_statements.csv";

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

/// What counts as a label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelling {
    /// Lowest likelihood, in percent, of a diagnostic statement that counts. The publisher's example counts every
    /// statement present, even at 0, which means "likelihood not given": so does the default.
    pub min_likelihood: f64,
    /// Whether [`PtbXl::select`] keeps records without any superclass. The default leaves them out, as the published
    /// benchmark does.
    pub keep_unlabelled: bool,
}

impl Default for Labelling {
    fn default() -> Self {
        Self { min_likelihood: 0.0, keep_unlabelled: false }
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
    /// Which of [`SUPERCLASSES`] it has.
    pub labels: [bool; 5],
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
    entries: Vec<Entry>,
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
        let superclasses = read_statements(&root.join(STATEMENTS))?;
        let mut table = Table::open(&root.join(DATABASE))?;
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
                labels: labels(&row, codes, &superclasses, labelling.min_likelihood)?,
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
        Ok(Self { root: root.to_owned(), labelling, entries })
    }

    /// All records of the database, in its order; functions that take or give an index mean this list's.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Records of these folds, in the database's order. Records without a superclass are left out unless
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

    /// The signal of one record in millivolts: [time, lead], flat, with [`Rate::samples`] times and the leads of
    /// [`LEADS`].
    ///
    /// # Errors
    /// What [`wfdb::read_record`] says, [`DataError::Missing`] if there is no such index, or [`DataError::Corrupt`] if
    /// leads, unit, rate or length are not those of PTB-XL or a sample is marked as missing.
    pub fn load(&self, index: usize, rate: Rate) -> DataResult<Vec<f32>> {
        let entry = self.entries.get(index).ok_or_else(|| DataError::Missing {
            path: self.root.join(DATABASE),
            expected: format!("a record of index {index}; there are {}", self.entries.len()),
            next: "use indices that were selected from this dataset".into(),
        })?;
        load_record(&self.path(entry, rate, "hea"), rate)
    }

    fn path(&self, entry: &Entry, rate: Rate, extension: &str) -> PathBuf {
        self.root.join(format!("{}.{extension}", entry.filename(rate)))
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
        Ok(wfdb::hex(&hash.finalize()))
    }
}

fn load_record(path: &Path, rate: Rate) -> DataResult<Vec<f32>> {
    let record = wfdb::read_record(path)?;
    let wrong = |expected: String, got: String| Err(DataError::corrupt(path, At::File, expected, got));
    if record.frames != rate.samples() || (record.frames_per_second - rate.hz() as f64).abs() > 1e-6 {
        let got = format!("{} frames at {} per second", record.frames, record.frames_per_second);
        return wrong(format!("{} frames at {} per second", rate.samples(), rate.hz()), got);
    }
    let names: Vec<&str> = record.channels.iter().map(|channel| channel.name.as_str()).collect();
    if names.len() != LEADS.len() || !names.iter().zip(LEADS).all(|(name, lead)| name.eq_ignore_ascii_case(lead)) {
        return wrong(format!("the leads {}", LEADS.join(" ")), names.join(" "));
    }
    if let Some(channel) = record.channels.iter().find(|c| c.units != "mV" || c.samples_per_frame != 1) {
        let got =
            format!("lead {} in {}, {} samples per frame", channel.name, channel.units, channel.samples_per_frame);
        return wrong("every lead in mV, one sample per frame".into(), got);
    }
    let mut samples = vec![0.0; rate.samples() * LEADS.len()]; // [time, lead]
    for (lead, channel) in record.channels.iter().enumerate() {
        samples.iter_mut().skip(lead).step_by(LEADS.len()).zip(channel.physical()).for_each(|(to, from)| *to = from);
    }
    match samples.iter().position(|sample| !sample.is_finite()) {
        None => Ok(samples),
        Some(at) => {
            let lead = LEADS.get(at % LEADS.len()).copied().unwrap_or_default();
            wrong("no missing samples".into(), format!("sample {} of lead {lead} is missing", at / LEADS.len()))
        }
    }
}

/// Superclass, as index into [`SUPERCLASSES`], of each diagnostic statement; none for the other statements.
fn read_statements(path: &Path) -> DataResult<HashMap<String, Option<usize>>> {
    let mut table = Table::open(path)?;
    let code = table.column("")?; // the publisher's first column has no name
    let (diagnostic, class) = (table.column("diagnostic")?, table.column("diagnostic_class")?);
    let mut superclasses = HashMap::new();
    while let Some(row) = table.next_row()? {
        let superclass = match row.field(diagnostic) {
            "" => None,
            "1" | "1.0" => {
                let class = row.field(class);
                let known = SUPERCLASSES.iter().position(|&superclass| superclass == class);
                Some(known.ok_or_else(|| row.wrong(format!("one of {}", SUPERCLASSES.join(", ")), class))?)
            }
            other => return Err(row.wrong("`1.0` or nothing as `diagnostic`", other)),
        };
        superclasses.insert(row.field(code).to_owned(), superclass);
    }
    Ok(superclasses)
}

/// Which superclasses the statements of a row belong to.
fn labels(
    row: &Row<'_>,
    field: &str,
    superclasses: &HashMap<String, Option<usize>>,
    min_likelihood: f64,
) -> DataResult<[bool; 5]> {
    let codes = parse_codes(field)
        .map_err(|problem| row.wrong("scp_codes such as `{'NORM': 100.0, 'SR': 0.0}`", problem + " in " + field))?;
    let mut labels = [false; 5];
    for (code, likelihood) in codes {
        let Some(superclass) = superclasses.get(&code) else {
            return Err(row.wrong(format!("statements that {STATEMENTS} lists"), format!("`{code}`")));
        };
        if let Some(label) = superclass.and_then(|index| labels.get_mut(index)) {
            *label |= likelihood >= min_likelihood;
        }
    }
    Ok(labels)
}

/// Reads the Python literal of the `scp_codes` column, a dict from text to number, in its order.
fn parse_codes(text: &str) -> Result<Vec<(String, f64)>, String> {
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or("no braces")?;
    let mut rest = inner.trim();
    let mut codes = Vec::new();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c)).ok_or("a key without quotes")?;
        let (key, behind) =
            rest.strip_prefix(quote).and_then(|key| key.split_once(quote)).ok_or("a key without its second quote")?;
        if key.contains('\\') {
            return Err("an escaped key".into());
        }
        let behind = behind.trim_start().strip_prefix(':').ok_or("a key without `:`")?;
        let (value, next) = behind.split_once(',').unwrap_or((behind, ""));
        let number = value.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        codes.push((key.to_owned(), number.ok_or_else(|| format!("`{}` for a number", value.trim()))?));
        rest = next.trim_start();
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT_ROWS: &str = ",description,diagnostic,form,rhythm,diagnostic_class\n\
        NORM,normal,1.0,,,NORM\nIMI,infarction,1.0,,,MI\nLAO/LAE,atrium,1.0,,,HYP\nSR,rhythm,,,1.0,\n";
    const HEADER: &str = "ecg_id,patient_id,report,scp_codes,strat_fold,filename_lr,filename_hr\n";

    fn dataset(rows: &str) -> (tempfile::TempDir, DataResult<PtbXl>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(STATEMENTS), STATEMENT_ROWS).unwrap();
        std::fs::write(dir.path().join(DATABASE), format!("{HEADER}{rows}")).unwrap();
        let opened = PtbXl::open(dir.path());
        (dir, opened)
    }

    const TWO: &str = "1,7.0,\"a\nb\",\"{'NORM': 100.0, 'SR': 0.0}\",3,r/1,h/1\n\
                       2,8,x,\"{'IMI': 0.0, \"\"LAO/LAE\"\": 15}\",10,r/2,h/2\n3,8.0,,{'SR': 0.0},10,r/3,h/3\n";

    #[test]
    fn reads_the_publishers_columns() {
        let (dir, opened) = dataset(TWO);
        let data = opened.unwrap();
        let expected = Entry {
            ecg_id: 1,
            patient_id: 7,
            fold: 3,
            labels: [true, false, false, false, false],
            filename_lr: "r/1".into(),
            filename_hr: "h/1".into(),
        };
        assert_eq!(data.entries()[0], expected);
        assert_eq!(data.entries()[1].labels, [false, true, false, false, true], "likelihood 0 counts by default");
        assert_eq!(data.select(&[10, 3]), [0, 1], "a record without superclass is left out");
        let keep = Labelling { keep_unlabelled: true, min_likelihood: 10.0 };
        let data = PtbXl::open_with(dir.path(), keep).unwrap();
        assert_eq!(data.entries()[1].labels, [false, false, false, false, true]);
        assert_eq!(data.select(&[10]), [1, 2]);
        assert_eq!(data.missing(Rate::Hz500), [0, 1, 2]);
        assert!(matches!(data.load(0, Rate::Hz100), Err(DataError::Missing { .. })));
        assert!(matches!(data.load(9, Rate::Hz100), Err(DataError::Missing { .. })));
    }

    #[test]
    fn errors_carry_the_line() {
        // The first row's report has a line break, so the second row starts on line 4.
        for (wrong, with) in [
            ("2,8,x", "two,8,x"),
            ("2,8,x", "1,8,x"),
            ("2,8,x", "2,-8,x"),
            ("10,r/2", "11,r/2"),
            ("10,r/2", "0,r/2"),
            ("'IMI': 0.0", "'IMI' 0.0"),
            ("'IMI': 0.0", "'IMI': nan"),
            ("'IMI'", "'IMJ'"),
            ("'IMI'", "'IMI"),
            ("r/2", "../2"),
            ("2,8,x", "2,8"),
        ] {
            let error = dataset(&TWO.replacen(wrong, with, 1)).1.unwrap_err().to_string();
            assert!(error.contains("ptbxl_database.csv:4: "), "{wrong} -> {with}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(PtbXl::open(dir.path()), Err(DataError::Missing { .. })));
    }

    #[test]
    fn codes_are_read_as_python_wrote_them() {
        let read = |text| parse_codes(text).unwrap();
        assert_eq!(read("{}"), []);
        assert_eq!(read("{'A': 1.5, \"B/C(S)\": 0}"), [("A".to_owned(), 1.5), ("B/C(S)".to_owned(), 0.0)]);
        for wrong in ["", "{", "}", "{A: 1}", "{'A'}", "{'A': }", "{'A: 1}", "{'A': 1 'B': 2}", "{'\\'': 1}", "['A']"] {
            assert!(parse_codes(wrong).is_err(), "{wrong}");
        }
    }

    /// The sample of the real dataset below the folder that `HARNESS_REAL_DATA` names.
    #[test]
    fn real_records_load() {
        let Some(root) = std::env::var_os("HARNESS_REAL_DATA") else {
            println!("skipped: HARNESS_REAL_DATA is not set");
            return;
        };
        let data = PtbXl::open(&Path::new(&root).join("ptb-xl")).unwrap();
        let absent: HashSet<usize> = data.missing(Rate::Hz100).into_iter().collect();
        let present: Vec<usize> = (0..data.entries().len()).filter(|index| !absent.contains(index)).collect();
        assert!(!present.is_empty());
        let records = data.load_many(&present, Rate::Hz100).unwrap();
        for record in &records {
            assert_eq!(record.len(), 12_000);
            for frame in record.chunks(12) {
                let [i, ii, iii] = [frame[0], frame[1], frame[2]];
                // Each lead is rounded to 1 microvolt; the publisher's resampling adds as much.
                assert!((i + iii - ii).abs() < 0.0025, "{i} + {iii} = {ii}");
            }
        }
        // ecg_id 1, first frame, from its header.
        assert_eq!(&records[0][..3], [-0.119, -0.055, 0.064]);
        assert_eq!(data.fingerprint().unwrap().len(), 64);
        let counts: Vec<usize> =
            (0..5).map(|class| data.entries().iter().filter(|entry| entry.labels[class]).count()).collect();
        println!(
            "{} records, per superclass {counts:?}, {} at 500 Hz",
            records.len(),
            data.entries().len() - data.missing(Rate::Hz500).len()
        );
    }
}
