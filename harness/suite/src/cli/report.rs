//! `harness report`: tables and pages from what is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::unwritable;
use crate::error::{Error, Result, exit};
use crate::schedule::table;
use crate::store::seal;
use rows::results::ResultRow;

#[derive(Args)]
pub(super) struct ReportArgs {
    /// Run directories or results files
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write to; default: each run directory. Of a results file only the tables are printed
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs) -> Result<u8> {
    let stored = args.runs.iter().map(|run| as_stored(run)).collect::<Result<Vec<_>>>()?;
    let print = |stored: &[::report::Stored], out: &Path| {
        let (text, written) = render(stored, out)?;
        written.map_err(unwritable)?;
        crate::say_on!("{text}");
        Ok::<(), Error>(())
    };
    if let Some(out) = &args.out {
        print(&stored, out)?;
        return Ok(exit::DONE);
    }
    for stored in stored {
        match &stored {
            // it may lie beside others, whose report one of it would replace
            ::report::Stored::Table(_) => crate::say_on!("{}", ::report::terminal(&compute_report(&[stored])?)?),
            ::report::Stored::Run { dir, .. } => {
                let dir = dir.clone();
                print(&[stored], &dir)?;
            }
        }
    }
    Ok(exit::DONE)
}

/// A results file as it is, a run directory as its cells are now; a folder that has only a table left is that table.
pub(super) fn as_stored(path: &Path) -> Result<::report::Stored> {
    if path.is_file() || path.extension().is_some_and(|extension| extension == "parquet") {
        return Ok(::report::Stored::Table(path.to_owned()));
    }
    let dir = path.to_owned();
    if path.join("plan.json").exists() || path.join("cells").exists() {
        let rows = table::rows(path, &BTreeMap::new())?;
        return Ok(::report::Stored::Run { dir, rows });
    }
    let rows = rows::results::read_results(&path.join("results.parquet"))?;
    Ok(::report::Stored::Run { dir, rows })
}

fn compute_report(stored: &[::report::Stored]) -> Result<::report::Report> {
    Ok(::report::compute(&::report::load(stored)?, &::report::Paper::embedded()?))
}

/// What was printed of a run directory the last time, if its report and its table were written from the same rows by the same
/// program and are there as they were written.
///
/// # Errors
/// If the system refuses to read.
pub(super) fn unchanged(rows: &[ResultRow], dir: &Path) -> Result<Option<String>> {
    let known: Option<Rendered> = seal::read(&dir.join(RENDERED))?.whole();
    let same = |known: &Rendered| known.key == Rendered::key(rows) && known.files == written_files(dir);
    Ok(known.filter(same).map(|known| known.text))
}

/// Where it is kept what a report was rendered from.
const RENDERED: &str = "report/.rendered.json";

/// What a report was rendered from, and what was printed of it.
#[derive(Serialize, Deserialize)]
struct Rendered {
    key: String,
    /// Digests of the files that were written with it.
    files: Vec<Option<String>>,
    text: String,
}

/// Digests of the table and the page of a run directory.
fn written_files(dir: &Path) -> Vec<Option<String>> {
    let digest = |name| std::fs::read(dir.join(name)).ok().map(|bytes| ::data::files::sha256_hex(&bytes));
    ["results.parquet", "report/index.html"].map(digest).into()
}

impl Rendered {
    /// Of the rows and of the program's file.
    fn key(rows: &[ResultRow]) -> String {
        let program = std::env::current_exe().and_then(std::fs::metadata);
        let program = program.map(|file| (file.len(), file.modified().ok())).ok();
        format!("{} {program:?}", rows::results::digest(rows))
    }
}

/// Renders every format of one report over these results: the table for the terminal, and whether the files could be written.
pub(super) fn render(stored: &[::report::Stored], out: &Path) -> Result<(String, Result<()>)> {
    let report = compute_report(stored)?;
    let text = ::report::terminal(&report)?;
    let written = ::report::write_all(out, &report).map(drop).map_err(Error::from).map_err(Error::of_output);
    if let (Ok(()), [::report::Stored::Run { dir, rows }]) = (&written, stored)
        && dir == out
    {
        let rendered = Rendered { key: Rendered::key(rows), files: written_files(out), text: text.clone() };
        let kept = seal::write(&out.join(RENDERED), &rendered);
        return Ok((text, kept));
    }
    Ok((text, written))
}
