//! CHB-MIT by the publisher's checksum of every file that is used.

use std::collections::BTreeSet;
use std::path::Path;

use super::list::{Compared, List};
use super::sums::Sums;
use super::{Found, Identity, generated};
use crate::error::DataResult;

/// `PhysioNet`'s SHA256SUMS.txt of version 1.0.0, from m-nguyen98/bsc_project info/SHA256SUMS.txt @
/// edad7e82c80e9c81761c04cdc8ba5f5aa86600c6; 13 files from two other repositories have the checksums that it states.
const FILES: &str = include_str!("chb-mit-1.0.0.sha256");
/// Which recordings have seizures, where neither annotations nor a summary tell.
const WITH_SEIZURES: &str = "RECORDS-WITH-SEIZURES";

/// CHB-MIT by the files of the recordings that are `used`, as `RECORDS` names them: signals, annotations and summaries. The dataset is
/// whole if these and those that are `left_out`, because they have another montage, are all its recordings, as published.
///
/// # Errors
/// If a file that is there cannot be read.
pub fn chbmit(root: &Path, used: &[&str], left_out: &[&str], sums: &mut Sums) -> DataResult<Found> {
    if let Some(found) = generated(root) {
        return Ok(found);
    }
    if used.is_empty() {
        return Ok(Found::unverified("no recording is read"));
    }
    against(&List::of(FILES), root, used, left_out, sums)
}

/// The same by any list.
pub(super) fn against(
    list: &List,
    root: &Path,
    used: &[&str],
    left_out: &[&str],
    sums: &mut Sums,
) -> DataResult<Found> {
    let mut names: Vec<String> = used.iter().map(|&name| name.to_owned()).collect();
    names.extend(used.iter().map(|name| format!("{name}.seizures")).filter(|name| root.join(name).is_file()));
    let cases: BTreeSet<&str> = used.iter().filter_map(|name| name.split('/').next()).collect();
    for case in cases {
        let summary = format!("{case}/{case}-summary.txt");
        names.push(if root.join(&summary).is_file() { summary } else { WITH_SEIZURES.to_owned() });
    }
    if let Compared::Other(what) = list.compare(root, names, sums)? {
        return Ok(Found::unverified(what));
    }
    let all = list.count(|name| Path::new(name).extension().is_some_and(|end| end == "edf"));
    let is_all = || used.iter().chain(left_out).collect::<BTreeSet<_>>().len() == all;
    let left_out_files = || left_out.iter().map(|&name| name.to_owned()).collect();
    Ok(if is_all() && matches!(list.compare(root, left_out_files(), sums)?, Compared::Same) {
        let reason = match left_out.len() {
            0 => String::new(),
            n => format!(", and so have those left out for another montage ({n})"),
        };
        let reason = format!("version 1.0.0, every file that is read has the published checksum{reason}");
        Found::new(Identity::Published, reason)
    } else {
        let reason = format!("{} of its {all} recordings, every file with the published checksum", used.len());
        Found::new(Identity::Subset, reason)
    })
}
