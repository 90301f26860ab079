//! `harness data inspect`: what the library finds, as text or JSON.

use std::fmt::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::error::{Result, exit};
use data::inspect::{Annotations, Fact, Folder, Part, Recording, Report, inspect};

#[derive(Args)]
pub(super) struct InspectArgs {
    /// Recordings (FLAC, EDF, EDF+, WFDB with or without .hea), annotation or token files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Machine-readable: a list with an object for each path
    #[arg(long)]
    json: bool,
}

/// Reports on every path. What cannot be read is told on standard error, and makes the exit code that of wrong data.
pub(super) fn run(args: &InspectArgs) -> Result<u8> {
    let (mut reports, mut code) = (Vec::new(), exit::DONE);
    for path in &args.paths {
        match inspect(path) {
            Ok(report) => {
                if let Report::Folder(folder) = &report {
                    for problem in &folder.problems {
                        code = exit::DATA;
                        ::data::tell!("error: {}", problem.message);
                    }
                }
                if args.json {
                    reports.push(report);
                } else {
                    crate::say_on!("{}", Text(&report));
                }
            }
            Err(error) => {
                code = exit::DATA;
                ::data::tell!("error: {error}");
            }
        }
    }
    if args.json {
        let text = serde_json::to_string_pretty(&reports);
        crate::say!("{}", text.map_err(|e| crate::error::Error::Report(e.to_string()))?);
    }
    Ok(code)
}

/// A report for people.
struct Text<'a>(&'a Report);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Report::Recording(recording) => whole(recording, f),
            Report::Annotations(annotations) => one_source(annotations, "", f),
            Report::Text(part) => one_part(part, f),
            Report::Folder(all) => folder(all, f),
        }
    }
}

/// A recording with a line for each channel.
fn whole(r: &Recording, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}: {}, {} channels", r.path.display(), r.format, r.channels.len())?;
    if let Some(seconds) = r.duration_s {
        write!(f, ", {seconds} s")?;
    }
    if !r.start.trim().is_empty() {
        write!(f, ", from {}", r.start)?;
    }
    writeln!(f)?;
    let header = ["channel", "unit", "rate Hz", "samples", "digital range", "steps per unit", "at zero", "missing"];
    let mut rows = vec![header.map(str::to_owned)];
    for c in &r.channels {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| value.to_string());
        let range = c.lowest.zip(c.highest).map_or("-".to_owned(), |(low, high)| format!("{low} to {high}"));
        rows.push([
            c.name.clone(),
            if c.unit.is_empty() { "-".to_owned() } else { c.unit.clone() },
            number(c.rate_hz),
            c.samples.to_string(),
            range,
            number(c.steps_per_unit),
            number(c.at_zero),
            c.missing.to_string(),
        ]);
    }
    if !r.channels.is_empty() {
        f.write_str(&aligned(&rows))?;
    }
    for annotations in &r.annotations {
        one_source(annotations, "  ", f)?;
    }
    for repair in &r.repairs {
        writeln!(f, "  repaired: {repair}")?;
    }
    writeln!(f, "  sha256 {}", r.sha256)
}

/// Columns as wide as their longest text, two blanks apart; the first to the left, the others to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        for (place, (text, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if place == 0 { write!(out, "  {text:width$}") } else { write!(out, "  {text:>width$}") };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

fn one_source(a: &Annotations, indent: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{indent}{}: {} annotations", a.source, a.count)?;
    if let Some((first, last)) = a.first_s.zip(a.last_s) {
        write!(f, " from {first} s to {last} s")?;
    }
    for (place, (label, count)) in a.labels.iter().enumerate() {
        write!(f, "{} {} x {}", if place == 0 { ":" } else { "," }, count, label.escape_debug())?;
    }
    let more = a.distinct.saturating_sub(a.labels.len() as u64);
    if more > 0 {
        write!(f, " and {more} other labels")?;
    }
    writeln!(f)
}

fn one_part(part: &Part, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}:", part.name)?;
    for (place, (name, fact)) in part.facts.iter().enumerate() {
        write!(f, "{} {name} ", if place == 0 { "" } else { "," })?;
        match fact {
            Fact::Count(n) => write!(f, "{n}")?,
            Fact::Number(x) => write!(f, "{x}")?,
            Fact::Text(text) => write!(f, "{text}")?,
        }
    }
    writeln!(f)
}

/// A folder with a line for each recording: digest, shape, rate, duration, path.
fn folder(all: &Folder, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}: {}", all.path.display(), all.layout)?;
    for part in &all.parts {
        f.write_str("  ")?;
        one_part(part, f)?;
    }
    for r in &all.recordings {
        let seconds = r.duration_s.map_or("-".to_owned(), |s| format!("{s} s"));
        let annotations: u64 = r.annotations.iter().map(|a| a.count).sum();
        let said = if annotations > 0 { format!(" {annotations} annotations") } else { String::new() };
        let (shape, rates) = (shape(r), rates(r));
        writeln!(f, "{}  {}  {} {shape} {rates} Hz {seconds}{said}", r.sha256, r.path.display(), r.format)?;
    }
    for group in &all.notices {
        writeln!(f, "  {group}")?;
    }
    let seconds: f64 = all.recordings.iter().filter_map(|r| r.duration_s).sum();
    let (good, bad) = (all.recordings.len(), all.problems.len());
    if good + bad > 0 {
        writeln!(
            f,
            "  {good} recordings, {seconds:.1} s, {bad} that cannot be read; sha256 of their list {}",
            all.sha256
        )?;
    }
    Ok(())
}

/// `12x1000`, or `3x300000/75000` where channels differ: lengths in the order in which they first appear.
fn shape(r: &Recording) -> String {
    let mut lengths: Vec<String> = Vec::new();
    for channel in &r.channels {
        let length = channel.samples.to_string();
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }
    format!("{}x{}", r.channels.len(), lengths.join("/"))
}

/// Rates in the order in which they first appear.
fn rates(r: &Recording) -> String {
    let mut rates: Vec<String> = Vec::new();
    for channel in &r.channels {
        let rate = channel.rate_hz.map_or("-".to_owned(), |rate| rate.to_string());
        if !rates.contains(&rate) {
            rates.push(rate);
        }
    }
    if rates.is_empty() { "-".to_owned() } else { rates.join("/") }
}
