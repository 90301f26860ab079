//! CHB-MIT (Shoeb, 2009; doi 10.13026/C2K01R): scalp EEG of children with epilepsy, in the publisher's layout:
//! `RECORDS`, `chbNN/chbNN-summary.txt`, `chbNN/*.edf` and, for recordings with seizures, `*.edf.seizures`.

pub mod annotations;
pub mod generate;
pub mod montage;
pub mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::account::{Account, Kind as Fate, inert};
use crate::error::{At, DataError, DataResult};
use crate::folders;
use crate::formats::edf::{Header, Kind, Reader};
use crate::plain::Plain;
use montage::{CHANNELS, Derivation};
use summary::Listed;

/// A seizure, in seconds from the start of its recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seizure {
    /// Onset.
    pub start_s: f64,
    /// End; after the onset.
    pub end_s: f64,
}

impl Seizure {
    /// Seconds of it between two times.
    pub fn overlap_s(&self, from_s: f64, to_s: f64) -> f64 {
        (self.end_s.min(to_s) - self.start_s.max(from_s)).max(0.0)
    }
}

/// Patient of a case: chb21 is the patient of chb01, 1.5 years later (the publisher's description); every other case is
/// one patient.
pub fn patient(case: &str) -> &str {
    if case == "chb21" { "chb01" } else { case }
}

/// A recording whose EDF file is there.
#[derive(Clone, Debug)]
pub struct Recording {
    /// As `RECORDS` has it, such as `chb01/chb01_03.edf`.
    pub name: String,
    /// Case, such as `chb01`: the folder.
    pub case: String,
    /// The file.
    pub path: PathBuf,
    /// Its header.
    pub header: Header,
    /// Samples per second.
    pub rate_hz: f64,
    /// How [`CHANNELS`] come from its signals.
    pub derivations: [Derivation; CHANNELS.len()],
    /// Annotated seizures by time.
    pub seizures: Vec<Seizure>,
}

/// The dataset: its index in memory, its signals on disk.
#[derive(Clone, Debug)]
pub struct ChbMit {
    root: PathBuf,
    recordings: Vec<Recording>,
    missing: Vec<String>,
    without_montage: Vec<String>,
    disagreements: Vec<String>,
    account: Account,
}

/// Largest difference, in seconds, between a seizure in the summary and in its annotation file that is rounding.
const ROUNDING_S: f64 = 1.0;
/// Largest number of seconds by which an annotation may end after its recording: times are whole seconds.
const BEYOND_END_S: f64 = 1.0;

/// Cases of the published dataset: `chb01` to this.
const CASES: u32 = 24;
/// A command names so many cases at most; for more it fetches all.
const CASES_NAMED: usize = 4;

/// The command that fetches the cases of which `wanted` is true, with the lists of recordings.
#[must_use]
pub fn fetching(wanted: impl Fn(&str) -> bool) -> String {
    let cases: Vec<String> = (1..=CASES).map(|n| format!("chb{n:02}")).filter(|case| wanted(case)).collect();
    let mut command = "harness data fetch chb-mit".to_owned();
    if (1..=CASES_NAMED).contains(&cases.len()) {
        let only = |name: String| format!(" --only '{name}'");
        command.extend(std::iter::once(only("RECORDS*".into())));
        command.extend(cases.iter().map(|case| only(format!("{case}/*"))));
    }
    command
}

impl ChbMit {
    /// Reads `RECORDS` below `root` and, for the cases of which `wanted` is true, the summaries, annotations and EDF
    /// headers.
    ///
    /// # Errors
    /// [`DataError::Missing`] without `RECORDS` or where nothing says whether a recording has seizures,
    /// [`DataError::Corrupt`] with the place of what is not as it should be.
    pub fn open(root: &Path, wanted: impl Fn(&str) -> bool) -> DataResult<Self> {
        let path = root.join("RECORDS");
        let mut account = Account::new();
        let list = read_list(root, "RECORDS", &mut account)?.ok_or_else(|| DataError::Missing {
            path: path.clone(),
            expected: "the list of recordings of CHB-MIT".into(),
            next: format!(
                "run `{}`, or set `generate` for made-up data, or name the folder with `root`",
                fetching(&wanted)
            ),
        })?;
        let with_seizures = read_list(root, "RECORDS-WITH-SEIZURES", &mut account)?;
        let with_seizures: Option<HashSet<&str>> = with_seizures.as_deref().map(|t| t.lines().map(str::trim).collect());
        let mut data = Self {
            root: root.to_owned(),
            recordings: Vec::new(),
            missing: Vec::new(),
            without_montage: Vec::new(),
            disagreements: Vec::new(),
            account,
        };
        let mut summaries: HashMap<String, HashMap<String, Listed>> = HashMap::new();
        let mut seen = HashSet::new();
        for (number, line) in (1..).zip(list.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let name = line.trim();
            let wrong =
                |expected: &str| DataError::corrupt(&path, At::Line(number), expected, format!("`{}`", inert(name)));
            let (case, file) = name.split_once('/').ok_or_else(|| wrong("`case/file.edf`"))?;
            if case.is_empty() || case.starts_with('.') || file.is_empty() || file.contains(['/', '\\']) {
                return Err(wrong("`case/file.edf`"));
            }
            if !seen.insert(name) {
                return Err(wrong("each recording once"));
            }
            if !wanted(case) {
                continue;
            }
            data.account.expect(1);
            let edf = root.join(case).join(file);
            if !edf.is_file() {
                data.account.add(Fate::Missing, name, "its file is not there");
                data.missing.push(name.to_owned());
                continue;
            }
            if !summaries.contains_key(case) {
                summaries.insert(case.to_owned(), read_summary(root, case, &mut data.account)?);
            }
            let listed = summaries.get(case).and_then(|files| files.get(file));
            let none_said = with_seizures.as_ref().is_some_and(|names| !names.contains(name));
            data.add(name, case, edf, listed, none_said)?;
        }
        for case in summaries.keys().collect::<BTreeSet<_>>() {
            tell_unlisted(root, case, &seen, &mut data.account)?;
        }
        Ok(data)
    }

    /// Takes one recording in.
    fn add(
        &mut self,
        name: &str,
        case: &str,
        path: PathBuf,
        listed: Option<&Listed>,
        none_said: bool,
    ) -> DataResult<()> {
        let header = Reader::open(&path)?.header().clone();
        let montage = match montage::derive(&header) {
            Ok(montage) => montage,
            Err(absent) => {
                self.account.add(Fate::Skipped, name, format!("no signals that give {}", absent.join(", ")));
                self.without_montage.push(name.to_owned());
                return Ok(());
            }
        };
        let derivations = montage.derivations;
        if montage.by_other_names {
            self.account.add(Fate::Repaired, name, "its channels come from electrodes by other names");
        }
        if let Some(repair) = header.repair() {
            self.account.add(Fate::Repaired, name, repair);
        }
        let rate_hz = check(&header, &derivations)?;
        let annotated = path.with_file_name(format!("{}.seizures", path.file_name().unwrap_or_default().display()));
        let annotated = if annotated.is_file() { Some(annotations::read(&annotated, rate_hz)?) } else { None };
        let listed = listed.map(|listed| listed.seizures.clone());
        if let (Some(a), Some(b)) = (&annotated, &listed)
            && !agree(a, b)
        {
            let reason = "its annotation file and the summary differ: the annotation file counts";
            self.account.add(Fate::Repaired, name, reason);
            self.disagreements.push(name.to_owned());
        }
        let seizures = match annotated.or(listed) {
            Some(seizures) => seizures,
            None if none_said => Vec::new(),
            None => {
                return Err(DataError::Missing {
                    path: self.root.join(format!("{name}.seizures")),
                    expected: format!(
                        "seizures of {name} in this file, in {case}-summary.txt, or none by RECORDS-WITH-SEIZURES"
                    ),
                    next: format!("run `{}`", fetching(|of| of == case)),
                });
            }
        };
        let mut before_s = 0.0;
        for seizure in &seizures {
            if seizure.start_s < before_s || seizure.end_s > header.seconds() + BEYOND_END_S {
                let expected = format!("seizures in order within {} s", header.seconds());
                let got = format!("one annotated from {} to {} s", seizure.start_s, seizure.end_s);
                return Err(DataError::corrupt(&path, At::File, expected, got));
            }
            before_s = seizure.end_s;
        }
        self.recordings.push(Recording {
            name: name.into(),
            case: case.into(),
            path,
            header,
            rate_hz,
            derivations,
            seizures,
        });
        Ok(())
    }

    /// The recordings of the wanted cases whose files are there, in the order of `RECORDS`, which is that of time within
    /// a case.
    pub fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    /// Recordings of the wanted cases whose EDF file is absent.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Recordings left out because their signals do not give the channels of [`CHANNELS`].
    pub fn without_montage(&self) -> &[String] {
        &self.without_montage
    }

    /// Recordings whose annotation file and summary give different seizures; the annotation file is used.
    pub fn disagreements(&self) -> &[String] {
        &self.disagreements
    }

    /// What was not taken as it was found, of the wanted cases; its items are their recordings in `RECORDS`.
    pub fn account(&self) -> &Account {
        &self.account
    }
}

/// A list of recordings; `None` without its file.
fn read_list(root: &Path, name: &str, account: &mut Account) -> DataResult<Option<String>> {
    let path = root.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(Plain::of(&path, bytes)?.told(name, account))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::io(&path)(error)),
    }
}

/// Tells of recordings in a case's folder that `RECORDS` does not list, and of what else lies there.
fn tell_unlisted(root: &Path, case: &str, listed: &HashSet<&str>, account: &mut Account) -> DataResult<()> {
    for entry in folders::entries(&root.join(case), root, account)? {
        let name = format!("{case}/{}", entry.name);
        if entry.path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("edf"))
            && !listed.contains(name.as_str())
        {
            account.add(Fate::Foreign, name, "a recording that RECORDS does not list");
        }
    }
    Ok(())
}

/// By file; empty if the case has no summary.
fn read_summary(root: &Path, case: &str, account: &mut Account) -> DataResult<HashMap<String, Listed>> {
    let name = format!("{case}-summary.txt");
    let path = root.join(case).join(&name);
    if !path.is_file() {
        return Ok(HashMap::new());
    }
    let text = Plain::read(&path)?.told(&format!("{case}/{name}"), account);
    Ok(summary::parse(&path, &text)?.into_iter().map(|listed| (listed.file.clone(), listed)).collect())
}

fn agree(a: &[Seizure], b: &[Seizure]) -> bool {
    let near = |(a, b): (&Seizure, &Seizure)| {
        (a.start_s - b.start_s).abs() <= ROUNDING_S && (a.end_s - b.end_s).abs() <= ROUNDING_S
    };
    a.len() == b.len() && a.iter().zip(b).all(near)
}

/// What the signals that are used must be; their rate.
fn check(header: &Header, derivations: &[Derivation]) -> DataResult<f64> {
    let wrong = |expected: String, got: String| Err(DataError::corrupt(&header.path, At::File, expected, got));
    if header.kind == Kind::PlusDiscontinuous {
        return wrong("a recording without gaps".into(), "EDF+D".into());
    }
    let mut rate = None;
    for signal in used(derivations).into_iter().filter_map(|i| header.signals.get(i)) {
        let this = header.rate_hz(signal).filter(|&rate| rate > 0.0);
        if this.is_none() || (rate.is_some() && rate != this) {
            let hz = |rate: Option<f64>| rate.map_or("no rate".to_owned(), |rate| format!("{rate} Hz"));
            let others = rate.map_or(String::new(), |_| format!(", others at {}", hz(rate)));
            return wrong(
                "channels of one sampling rate; fetch the file again, or take it out of RECORDS".into(),
                format!("`{}` at {}{others}", signal.label, hz(this)),
            );
        }
        rate = this;
        let scale = if signal.scale().is_some() { "a scale" } else { "no scale: its ranges are empty or upside down" };
        if !is_microvolt(&signal.unit) || signal.scale().is_none() {
            let got = format!("`{}` in `{}` with {scale}", signal.label, inert(&signal.unit));
            return wrong("channels in uV with a scale; fetch the file again, or take it out of RECORDS".into(), got);
        }
    }
    rate.map_or_else(|| wrong("channels with samples".into(), "none".into()), Ok)
}

/// Whether a unit is the microvolt: with a `u`, the micro sign or the Greek letter.
fn is_microvolt(unit: &str) -> bool {
    matches!(unit, "uV" | "µV" | "μV" | "UV" | "uv")
}

/// Signals that the derivations read, each once, by index.
fn used(derivations: &[Derivation]) -> Vec<usize> {
    let mut used: Vec<usize> = derivations
        .iter()
        .flat_map(|derivation| match *derivation {
            Derivation::Direct(a) | Derivation::Inverted(a) => [a, a],
            Derivation::Difference(a, b) => [a, b],
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    used
}

impl Recording {
    /// Samples of each channel.
    pub fn samples(&self) -> u64 {
        (self.header.seconds() * self.rate_hz).round() as u64
    }

    /// Samples `range` of every channel of [`CHANNELS`], in microvolts, one list per channel. Reads the records that hold
    /// them and nothing else.
    ///
    /// # Errors
    /// What [`Reader`] says.
    pub fn read(&self, range: std::ops::Range<u64>) -> DataResult<Vec<Vec<f64>>> {
        let mut reader = Reader::open(&self.path)?;
        let used = used(&self.derivations);
        let signal = |i: usize| self.header.signals.get(i);
        let per_record = used.first().and_then(|&i| signal(i)).map_or(1, |s| s.samples_per_record.max(1));
        let records = range.start / per_record..range.end.div_ceil(per_record).min(self.header.records);
        let skip = (range.start - records.start * per_record) as usize;
        let digital = reader.read_records(records, &used)?;
        let wanted = (range.end - range.start) as usize;
        let mut physical: HashMap<usize, Vec<f64>> = HashMap::new();
        for (&i, samples) in used.iter().zip(&digital) {
            let Some(scale) = signal(i).and_then(crate::formats::edf::Signal::scale) else {
                return Err(DataError::corrupt(&self.path, At::File, "a scale", format!("none for signal {i}")));
            };
            physical.insert(i, samples.iter().skip(skip).take(wanted).map(|&sample| scale.physical(sample)).collect());
        }
        let of = |i: usize| physical.get(&i).map(Vec::as_slice).unwrap_or_default();
        let channel = |derivation: &Derivation| match *derivation {
            Derivation::Direct(a) => of(a).to_vec(),
            Derivation::Inverted(a) => of(a).iter().map(|x| -x).collect(),
            Derivation::Difference(a, b) => of(a).iter().zip(of(b)).map(|(a, b)| a - b).collect(),
        };
        Ok(self.derivations.iter().map(channel).collect())
    }
}
