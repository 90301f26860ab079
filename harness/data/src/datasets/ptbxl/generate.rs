//! A small PTB-XL in the publisher's layout, made up: hearts as moving dipoles, changed the way the five diagnostic
//! superclasses change them (see `heart`, `findings`), recorded with an irregular rhythm, breathing and noise. For
//! tests and first steps; it says nothing about real patients.

mod findings;
mod heart;
mod plan;
mod signal;
mod tables;

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::datasets::fill::fill;
use crate::datasets::ptbxl::{LEADS, Rate};
use crate::error::{At, DataError, DataResult};
use crate::formats::wfdb::{ChannelToWrite, write_record};
use plan::Planned;
use signal::{Leads, Recording};

/// Rises whenever the same specification gives other bytes.
pub const GENERATOR_VERSION: u32 = 1;

/// Most records: ids have five digits.
const MAX_RECORDS: usize = 99_999;

/// What to generate. The same specification gives the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcgSpec {
    /// Number of records, 1 to 99 999. About 300 suffice to learn something; each takes 25 kB, and 120 kB at 500 Hz.
    pub records: usize,
    /// Seed of everything drawn.
    pub seed: u64,
    /// Whether to write the 500 Hz records too. The 100 Hz records are the same either way.
    pub with_500_hz: bool,
}

/// Writes the dataset to `root`, which appears when it is whole: it is built in a folder beside it and renamed.
/// If `root` already is this dataset, nothing happens.
///
/// # Errors
/// [`DataError::Corrupt`] if the specification has no or too many records, or if `root` exists and is something else;
/// [`DataError::Io`] if the system refuses to write.
pub fn generate(root: &Path, spec: &EcgSpec) -> DataResult<()> {
    if spec.records == 0 || spec.records > MAX_RECORDS {
        let expected = format!("1 to {MAX_RECORDS} records");
        return Err(DataError::corrupt(root, At::File, expected, format!("{} records asked for", spec.records)));
    }
    let plan = plan::plan(spec);
    let database = tables::database(&plan).map_err(|error| DataError::io(root)(std::io::Error::other(error)))?;
    let this = format!(
        "{} generated records (seed {}, generator version {GENERATOR_VERSION}, 500 Hz: {})",
        spec.records, spec.seed, spec.with_500_hz
    );
    // the database names the generator's version
    let is_this = |root: &Path| {
        std::fs::read(root.join("ptbxl_database.csv")).is_ok_and(|found| found == database)
            && (root.join("records500").is_dir() || !spec.with_500_hz)
    };
    fill(root, &this, is_this, |root| {
        let path = root.join("ptbxl_database.csv");
        std::fs::write(&path, &database).map_err(DataError::io(&path))?;
        let path = root.join("scp_statements.csv");
        std::fs::write(&path, tables::STATEMENTS).map_err(DataError::io(&path))?;
        plan.par_iter().try_for_each(|planned| write_recording(root, planned, spec))
    })
}

fn write_recording(root: &Path, planned: &Planned, spec: &EcgSpec) -> DataResult<()> {
    // Stream 0 drew the plan; a stream for each record makes the order of writing irrelevant.
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    rng.set_stream(u64::from(planned.ecg_id));
    let Recording { hz100, hz500 } = signal::record(&planned.patient.heart, &planned.conditions, &mut rng);
    write_leads(root, &tables::filename(planned.ecg_id, "records100", "lr"), Rate::Hz100, &hz100)?;
    if spec.with_500_hz {
        write_leads(root, &tables::filename(planned.ecg_id, "records500", "hr"), Rate::Hz500, &hz500)?;
    }
    Ok(())
}

fn write_leads(root: &Path, filename: &str, rate: Rate, leads: &Leads) -> DataResult<()> {
    let (folder, name) = filename.rsplit_once('/').unwrap_or(("", filename));
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
    let names = LEADS.map(str::to_uppercase); // as the publisher's headers
    let channels: Vec<ChannelToWrite<'_>> = names
        .iter()
        .zip(leads)
        .map(|(name, digital)| ChannelToWrite { name, units: "mV", gain: signal::GAIN, baseline: 0, digital })
        .collect();
    write_record(&folder, name, rate.hz() as f64, &channels)
}

#[cfg(test)]
mod tests;
