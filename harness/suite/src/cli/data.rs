//! `harness data list | fetch | verify | import`: arguments in, the library's answers out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{ArgAction, Args};

use crate::error::{Error, Result, exit};
use data::fetch::import::{self, Manner};
use data::fetch::paths::PathPattern;
use data::fetch::report::Mode;
use data::fetch::report::{Report, human_bytes};
use data::fetch::transfer::Transfer;
use data::fetch::verify::{self, Verdict};
use data::fetch::{FetchError, FetchResult, Lock, list, work};

/// What all data commands take.
#[derive(Args)]
struct Place {
    /// Data directory
    #[arg(long, env = "HARNESS_DATA", default_value = "data")]
    data: PathBuf,
    /// Another lock file than the one that the program was built with
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

impl Place {
    fn lock(&self) -> FetchResult<Lock> {
        self.lock.as_deref().map_or_else(Lock::embedded, Lock::read)
    }
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Machine-readable, with every address and checksum
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct FetchArgs {
    /// Names of datasets; none: all of them
    datasets: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Fetch a part, such as dev-clean.tar.gz or 'chb01/*'; may be repeated
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append)]
    only: Vec<String>,
    /// Another form of the dataset, as `harness data list` shows them
    #[arg(long, value_name = "NAME")]
    form: Option<String>,
    /// Downloads at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Say what would be fetched; write nothing, ask no server
    #[arg(long)]
    dry_run: bool,
    /// Another host that a file without a published checksum may come from; may be repeated
    #[arg(long, value_name = "HOST", action = ArgAction::Append)]
    allow_host: Vec<String>,
    /// Keep archives after they were unpacked
    #[arg(long)]
    keep_archives: bool,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Names of datasets, which must then be whole; none: whatever is there
    datasets: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Verify a part, such as dev-clean.tar.gz or 'chb01/*'; may be repeated
    #[arg(long, value_name = "PATTERN", action = ArgAction::Append)]
    only: Vec<String>,
    /// Form of the dataset; default: the one that is there
    #[arg(long, value_name = "NAME")]
    form: Option<String>,
}

#[derive(Args)]
pub(super) struct ImportArgs {
    /// Folder with archives or unpacked datasets as their publishers ship them
    dir: PathBuf,
    /// Names of datasets; none: whatever is found
    datasets: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Make symbolic links instead of hard links or copies
    #[arg(long, conflicts_with = "copy")]
    link: bool,
    /// Always copy
    #[arg(long)]
    copy: bool,
}

fn patterns(only: &[String]) -> Result<Vec<PathPattern>> {
    only.iter().map(|p| PathPattern::try_from(p.clone()).map_err(|e| Error::Usage(format!("--only {e}")))).collect()
}

/// A transfer that stops, with what it has on disk, when the user interrupts.
fn transfer() -> Result<Transfer> {
    let interrupt = Arc::new(AtomicBool::new(false));
    let transfer = Transfer::new(Arc::clone(&interrupt));
    let client = transfer.client.clone();
    ctrlc::set_handler(move || {
        if interrupt.swap(true, Ordering::Relaxed) {
            // asked twice: at once; whatever is on disk can be gone on from
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
        client.shut_down();
    })
    .map_err(|e| Error::Usage(format!("signals cannot be caught: {e}")))?;
    Ok(transfer)
}

pub(super) fn list(args: &ListArgs) -> Result<u8> {
    let lock = args.place.lock()?;
    if args.json {
        crate::say!("{}", list::as_json(&lock, &args.place.data)?);
    } else {
        crate::say_on!("{}", list::table(&lock, &args.place.data)?);
    }
    Ok(exit::DONE)
}

pub(super) fn fetch(args: &FetchArgs, mode: Mode) -> Result<u8> {
    if args.jobs == 0 {
        return Err(Error::Usage("--jobs 0: expected a number from 1 up".into()));
    }
    let (lock, only, report) = (args.place.lock()?, patterns(&args.only)?, Report::new(mode));
    let order = work::Order {
        lock: &lock,
        data: &args.place.data,
        names: &args.datasets,
        form: args.form.as_deref(),
        only: &only,
        jobs: args.jobs,
        keep_archives: args.keep_archives,
    };
    if args.dry_run {
        for item in work::dry_run(&order, &report)? {
            let size = item.expected.bytes.map_or("unknown size".into(), human_bytes);
            crate::say!("{} {} {size} {}", item.dataset, item.name, item.sources.join(" "));
        }
        return Ok(exit::DONE);
    }
    let transfer = Transfer { hosts: args.allow_host.clone(), ..transfer()? };
    let outcome = work::fetch(&order, &transfer, &report)?;
    report.intent(&format!(
        "{} fetched, {} there already, {} failed",
        outcome.fetched,
        outcome.present,
        outcome.failed.len()
    ));
    Ok(if outcome.failed.is_empty() { exit::DONE } else { exit::DATA })
}

pub(super) fn verify(args: &VerifyArgs, mode: Mode) -> Result<u8> {
    let (lock, only) = (args.place.lock()?, patterns(&args.only)?);
    let (data, form) = (&args.place.data, args.form.as_deref());
    let question = verify::Question { lock: &lock, data, names: &args.datasets, form, only: &only };
    let rows = verify::verify(&question, &transfer()?.interrupt)?;
    for row in rows.iter().filter(|r| mode != Mode::Quiet || r.verdict != Verdict::Ok) {
        let note = if row.note.is_empty() { String::new() } else { format!("  ({})", row.note) };
        crate::say!("{:7}  {}{note}", row.verdict.name(), row.name);
    }
    let count = |v| rows.iter().filter(|r| r.verdict == v).count();
    let (wrong, missing) = (count(Verdict::Wrong), count(Verdict::Missing));
    if mode != Mode::Quiet {
        let (ok, unknown) = (count(Verdict::Ok), count(Verdict::Unknown));
        ::data::tell!("{ok} ok, {wrong} wrong, {missing} missing, {unknown} unknown in {}", data.display());
    }
    if rows.is_empty() {
        let expected = "files of a known dataset, as `harness data list --json` names them".to_owned();
        return Err(FetchError::Missing { path: data.clone(), expected }.into());
    }
    if rows.iter().all(|r| r.verdict == Verdict::Unknown) {
        return Err(FetchError::Unvouched { path: data.clone() }.into());
    }
    Ok(if wrong + missing == 0 { exit::DONE } else { exit::DATA })
}

pub(super) fn import(args: &ImportArgs, mode: Mode) -> Result<u8> {
    let (lock, report) = (args.place.lock()?, Report::new(mode));
    let manner = match (args.link, args.copy) {
        (true, _) => Manner::SymbolicLink,
        (false, true) => Manner::Copy,
        (false, false) => Manner::HardLinkOrCopy,
    };
    let order = import::Order { lock: &lock, data: &args.place.data, from: &args.dir, names: &args.datasets, manner };
    let outcome = import::import(&order, &transfer()?, &report)?;
    let import::Outcome { verified, unverified, present, archives, failed } = outcome;
    if verified + unverified + present + archives + failed.len() == 0 {
        let expected = "files of a dataset, as `harness data list --json` names them".to_owned();
        return Err(FetchError::Missing { path: args.dir.clone(), expected }.into());
    }
    if unverified > 0 {
        report.notice(&format!("{unverified} files were taken whose checksums are not published; theirs are recorded"));
    }
    report.intent(&format!(
        "{verified} files verified and taken, {unverified} taken unverified, {archives} archives unpacked, {present} there \
         already, {} refused",
        failed.len()
    ));
    Ok(if failed.is_empty() { exit::DONE } else { exit::DATA })
}
