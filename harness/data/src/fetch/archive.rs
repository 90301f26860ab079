//! From a verified archive to its members in place, with their records.

use std::path::Path;

use super::checksum::Measured;
use super::error::FetchResult;
use super::lock::Unpack;
use super::place;
use super::plan::Item;
use super::record::{ArchiveRecord, Journal, Records, now_s};
use super::report::Report;
use super::transfer::Transfer;
use super::unpack::{StagingFolder, unpack};

/// A whole archive that was verified as far as that is possible.
pub struct Archive<'a> {
    /// What it is.
    pub item: &'a Item,
    /// How it is unpacked.
    pub rules: &'a Unpack,
    /// Where it lies.
    pub path: &'a Path,
    /// What it measures.
    pub measured: Measured,
    /// Address or path it came from.
    pub source: String,
}

impl Archive<'_> {
    /// Unpacks it beside its place, moves the members there and records them. Returns their number.
    ///
    /// # Errors
    /// If it is damaged, holds what it must not, does not fit, or other content is in the way; then nothing was changed.
    pub fn into_place(
        self,
        data: &Path,
        records: &Records,
        journal: &Journal,
        transfer: &Transfer,
        report: &Report,
    ) -> FetchResult<u64> {
        let into = self.rules.into.below(data);
        let staging = StagingFolder::create(&into, &self.item.name)?;
        let members = unpack(self.path, self.rules, &staging, &transfer.room, &transfer.interrupt)?;
        let basis = self.item.expected.record_basis();
        let archive = (self.item.name.as_str(), basis);
        let placed = place::place(data, self.rules, archive, staging.path(), members, &transfer.interrupt)?;
        // several archives bring the same licence; that theirs differ is worth a word, not an error
        for path in placed
            .kept
            .iter()
            .filter(|p| records.files.get(p).is_none_or(|r| r.archive.as_deref() != Some(&self.item.name)))
        {
            report.notice(&format!("{path}: kept; {} has another version of it", self.item.name));
        }
        let files = placed.records.len() as u64;
        let m = self.measured;
        let record = ArchiveRecord {
            archive: self.item.name.clone(),
            bytes: m.bytes,
            sha256: m.sha256,
            md5: m.md5,
            basis,
            source: self.source,
            files,
            at_s: now_s(),
        };
        journal.archive(placed.records, record)?;
        Ok(files)
    }
}
