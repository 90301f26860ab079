//! `harness report`: tables and pages from what is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use report::{Format, ReportError};
use serde::{Deserialize, Serialize};

use super::unwritable;
use crate::error::{Error, Result, exit};
use crate::measure::energy::CostModel;
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
    /// Formats to write, separated by commas; default: md,html,tex
    #[arg(long, value_enum, value_delimiter = ',')]
    format: Vec<FormatName>,
    /// A Tera template of your own, filled in with what reports/templates/README.md describes; the file is named after it, without
    /// `.tera`
    #[arg(long)]
    template: Option<PathBuf>,
    /// Columns of the tables to keep, by their labels, separated by commas; those that name a row always stay
    #[arg(long)]
    columns: Vec<String>,
    /// Metrics to keep, by their names in the result files, separated by commas
    #[arg(long, value_delimiter = ',')]
    metrics: Vec<String>,
}

/// A format by its short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Md,
    Html,
    Tex,
    Csv,
    Json,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Md => Self::Markdown,
            FormatName::Html => Self::Html,
            FormatName::Tex => Self::Latex,
            FormatName::Csv => Self::Csv,
            FormatName::Json => Self::Json,
        }
    }
}

impl ReportArgs {
    /// Whether it asks for something else than what a run leaves behind.
    fn is_special(&self) -> bool {
        !(self.format.is_empty() && self.template.is_none() && self.columns.is_empty() && self.metrics.is_empty())
    }

    /// Writes what was asked for and names the files.
    fn write_special(&self, stored: &[::report::Stored], out: &Path) -> Result<()> {
        let own = self.template.as_deref().map(|path| Ok::<_, Error>((path, template(path)?))).transpose()?;
        let mut report = compute_report(stored)?;
        let metrics = self.metrics.iter().map(|name| name.trim().to_owned()).collect();
        let choice = ::report::Choice { columns: self.columns.clone(), metrics };
        let usage = |e: ReportError| match e {
            ReportError::OwnTemplate { .. } | ReportError::Unknown { .. } => Error::Usage(e.to_string()),
            ReportError::Data(_) | ReportError::Paper(_) | ReportError::Template { .. } | ReportError::Json(_) => {
                Error::from(e)
            }
        };
        ::report::choose(&mut report, &choice).map_err(usage)?;
        let formats: Vec<Format> = match (self.format.as_slice(), &own) {
            ([], None) => Format::OF_A_RUN.to_vec(),
            (names, _) => names.iter().map(|name| Format::from(*name)).collect(),
        };
        let filled = own.map(|(path, text)| {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let name = name.strip_suffix(".tera").unwrap_or(&name).to_owned();
            let target = out.join(&name);
            let file = |path: &Path| std::fs::canonicalize(path).ok();
            if OWN_FILES.contains(&name.as_str()) || (target.exists() && file(&target) == file(path)) {
                let next = "give the template another name, or another folder with --out";
                return Err(Error::Usage(format!("{}: it would be overwritten\n  next: {next}", target.display())));
            }
            let text = ::report::render_own(&report, &name, &text).map_err(usage)?;
            Ok::<_, Error>((out.join(name), text))
        });
        let filled = filled.transpose()?;
        let written = ::report::write(out, &report, &formats).map_err(Error::from).map_err(Error::of_output);
        let mut paths = written.map_err(unwritable)?;
        if let Some((path, text)) = filled {
            std::fs::create_dir_all(out).map_err(Error::io(out)).map_err(unwritable)?;
            ::data::files::write_whole(&path, text.as_bytes())
                .map_err(Error::from)
                .map_err(Error::of_output)
                .map_err(unwritable)?;
            paths.push(path);
        }
        for path in paths.iter().filter(|path| path.extension().is_none_or(|extension| extension != "svg")) {
            crate::say_on!("{}", path.display());
        }
        Ok(())
    }
}

/// Files of a run directory that no report replaces.
const OWN_FILES: [&str; 3] = ["results.parquet", "plan.json", "cells"];

/// Reads a template of the user's own.
fn template(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        let next = "name a Tera template; reports/templates/README.md describes what it is given";
        Error::Usage(format!("{}: {e}\n  next: {next}", path.display()))
    })
}

pub(super) fn run(args: &ReportArgs) -> Result<u8> {
    let stored = args.runs.iter().map(|run| as_stored(run)).collect::<Result<Vec<_>>>()?;
    let print = |stored: &[::report::Stored], out: &Path| {
        let (text, written) = render(stored, out)?;
        written.map_err(unwritable)?;
        crate::say_on!("{text}");
        Ok::<(), Error>(())
    };
    if args.is_special() {
        if let Some(out) = &args.out {
            args.write_special(&stored, out)?;
            return Ok(exit::DONE);
        }
        for one in stored {
            let ::report::Stored::Run { dir, .. } = &one else {
                let problem = "a results file has no folder of its own to write to";
                return Err(Error::Usage(format!("{problem}\n  next: name one with --out")));
            };
            args.write_special(std::slice::from_ref(&one), &dir.clone())?;
        }
        return Ok(exit::DONE);
    }
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
    let paper = ::report::Paper { prices: CostModel::known_in_words(), ..::report::Paper::embedded()? };
    Ok(::report::compute(&::report::load(stored)?, &paper))
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

/// Digests of what a report was made from and of what was made: the plan has the question that the page begins with.
fn written_files(dir: &Path) -> Vec<Option<String>> {
    let digest = |name| std::fs::read(dir.join(name)).ok().map(|bytes| ::data::files::sha256_hex(&bytes));
    ["plan.json", "results.parquet", "report.md", "tables.tex", "report/index.html"].map(digest).into()
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
