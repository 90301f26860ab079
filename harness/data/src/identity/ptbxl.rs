//! PTB-XL by its tables, and by the signal files whose checksums are known.

use std::path::Path;

use super::list::{Compared, List};
use super::sums::Sums;
use super::{Found, Identity, generated};
use crate::datasets::ptbxl::{DATABASE, STATEMENTS};
use crate::error::DataResult;

/// The versions' tables of records: SHA-256 and records.
///
/// 1.0.3: the checksum that eight public repositories state of this version, with 21,799 records. 1.0.1: SHA256SUMS.txt in
/// RifqiAbbiyu6822/ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.1 @ 7adf2ddaf976d969fe1c065d06c5a3d3069e6baf and in
/// `biolabsel/AY_2526_practical_sessions` @ 8e0b70a54653c18a368751fb4d68859e2f19d234, with 21,837 records.
const DATABASES: [(&str, &str); 2] = [
    ("1.0.3", "7600de9c1b27d181d850b3c6038a35d7c3ddb6bb33b702e3a20252a6859d216b"),
    ("1.0.1", "cd9bf4e6445c5e022605857c4d6f90c90ff0e62df847da52efaebe94de786156"),
];
/// SHA-256 of the table of statements, which the versions share (the same sources).
const STATEMENTS_SHA256: &str = "ad05b0b1fcae83bb1230755ad9cfc7c96f303feddc08a4a9ad5bdc9ca63bac8f";
/// SHA-256 of a table with the first 450 records of 1.0.1, cut from the 500 in `biolabsel/AY_2526_practical_sessions` (as above).
const SAMPLE_SHA256: &str = "1ad087a70099e6a542910bb13519e3a961d8c8db324232d900a5a459feffb1bc";
/// Header and signal files of the records 1 to 450 at 100 Hz and 1 to 40 at 500 Hz, from there. Those of records 1 to 100 are held
/// against the SHA256SUMS.txt beside them, all against the checksums in their headers.
const FILES: &str = include_str!("ptb-xl-450.sha256");

/// What is used of the dataset.
pub struct Used<'a> {
    /// Names of the records, such as `records100/00000/00001_lr`.
    pub records: Vec<&'a str>,
    /// Whether these are all that the tables list, with a label of the set.
    pub whole: bool,
}

/// PTB-XL by its tables and by the signal files that are known.
///
/// # Errors
/// If a file that is there cannot be read.
pub fn ptbxl(root: &Path, used: &Used, sums: &mut Sums) -> DataResult<Found> {
    if let Some(found) = generated(root) {
        return Ok(found);
    }
    let tables = sums.of(&[root.join(DATABASE), root.join(STATEMENTS)])?;
    let [database, statements] = [0, 1].map(|i| tables.get(i).cloned().flatten().unwrap_or_default());
    if statements != STATEMENTS_SHA256 {
        return Ok(Found::unverified(format!("{STATEMENTS} is not the published one")));
    }
    let list = List::of(FILES);
    let files = |ends: &[&str]| -> Vec<String> {
        used.records.iter().flat_map(|record| ends.iter().map(move |end| format!("{record}.{end}"))).collect()
    };
    if database == SAMPLE_SHA256 {
        return Ok(match list.compare(root, files(&["hea", "dat"]), sums)? {
            Compared::Other(what) => Found::unverified(what),
            Compared::Same => Found::new(
                Identity::Subset,
                format!("{} of its records, every file as in a public copy of version 1.0.1", used.records.len()),
            ),
        });
    }
    let Some((version, _)) = DATABASES.iter().find(|(_, sha256)| *sha256 == database) else {
        return Ok(Found::unverified(format!("{DATABASE} is not that of a published version")));
    };
    // headers are written anew by some who convert the dataset; what they say of the signal the reader checks
    let known: Vec<String> = files(&["dat"]).into_iter().filter(|name| list.has(name)).collect();
    let held = known.len();
    if held == 0 {
        return Ok(Found::unverified(
            "the tables are as published; of no signal file that is used a checksum is known",
        ));
    }
    if let Compared::Other(what) = list.compare(root, known, sums)? {
        return Ok(Found::unverified(format!("the tables are as published, but {what}")));
    }
    let reason = format!("version {version}, both tables and {held} signal files have the published checksums");
    let (identity, reason) = if used.whole {
        (Identity::Published, reason)
    } else {
        (Identity::Subset, format!("{} of its records; {reason}", used.records.len()))
    };
    Ok(Found::new(identity, reason))
}
