//! The report: load the stored results, compute plain data, render it. Nothing is measured here.

mod across;
mod argument;
mod catalogue;
mod claims;
mod conventions;
mod curves;
mod detail;
mod energy;
#[cfg(test)]
mod fixture;
mod group;
mod heat;
mod load;
mod look;
mod memory;
mod model;
mod online;
mod overview;
mod paper;
mod phases;
mod plot;
mod provenance;
mod raster;
mod render;
mod select;
mod silence;
mod spikes;
mod tables;
mod time_differences;
mod unlearned;

use std::path::{Path, PathBuf};

use data::error::DataError;
use data::identity::Identity;
use rows::results::ResultRow;

pub use self::load::{Stored, load};
pub use self::model::{Loaded, Report};
pub use self::paper::Paper;
pub use self::render::{Format, render, render_own, terminal};
pub use self::select::{Choice, choose};

use self::group::{Found, Part};
use self::model::{Section, Summary};

/// Configuration path of the name of the model that the others are compared with.
const REFERENCE: &str = "report.reference";

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Stored results are missing or corrupt, or the system refused.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The published values that were built in are not readable: a mistake of the build.
    #[error("reports/paper.yaml or reports/spike-bounds.yaml: {0}")]
    Paper(#[from] serde_yaml::Error),
    /// A template that was built in is wrong: a mistake of the build.
    #[error("reports/templates/{name}: {source}")]
    Template {
        /// The template.
        name: &'static str,
        /// The engine's answer.
        source: Box<tera::Error>,
    },
    /// A template of the user's own is wrong.
    #[error("template {name}: {causes}\n  next: reports/templates/README.md describes what a template is given")]
    OwnTemplate {
        /// The template.
        name: String,
        /// The engine's answer, with what it comes from.
        causes: String,
    },
    /// A chosen column or metric is in no table.
    #[error("no table has a {what} `{name}`\n  expected: one of {}", .known.join(", "))]
    Unknown {
        /// `column` or `metric`.
        what: &'static str,
        /// As it was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The report could not be written as JSON: a mistake of the build.
    #[error("report.json: {0}")]
    Json(serde_json::Error),
}

/// Computes the report of stored results: the same results give an equal report.
pub fn compute(loaded: &Loaded, paper: &Paper) -> Report {
    let parts = group::parts(&loaded.rows);
    let title = match parts.as_slice() {
        [first, rest @ ..] if rest.iter().all(|part| part.experiment == first.experiment) => {
            first.experiment.to_owned()
        }
        _ => format!("{}: results of several experiments", paper.title),
    };
    let cells = parts.iter().flat_map(Part::runs).count();
    let completed = parts.iter().flat_map(Part::runs).filter(|run| run.completed()).count();
    let waiting = parts.iter().flat_map(Part::runs).filter(|run| run.head.outcome == tables::SKIPPED).count();
    let waiting = if waiting == 0 { String::new() } else { format!(", {waiting} not begun") };
    let mut sections: Vec<Section> = parts.iter().map(|part| section(part, &parts, loaded, paper)).collect();
    let claims = claims::claims(&parts, &sections, paper);
    sections.extend(across::sections(&parts));
    Report {
        schema: model::REPORT_SCHEMA,
        paper: format!("{}, {}", paper.title, paper.source),
        outcome: format!("{cells} cells were planned, {completed} completed{waiting}."),
        questions: overview::questions(&parts, loaded),
        claims,
        run: overview::facts(&parts),
        commands: overview::commands(&parts),
        sections,
        failures: tables::failures(&parts),
        summaries: parts.iter().flat_map(summaries).collect(),
        title,
    }
}

fn section(part: &Part, parts: &[Part], loaded: &Loaded, paper: &Paper) -> Section {
    let id = catalogue::slug(&format!("{} {} {}", part.experiment, part.task, part.scale));
    let identity = part.identity();
    let mut heading = match (part.info, identity) {
        (None, _) => part.family.to_owned(),
        (Some(info), Identity::Unverified) => format!("{} (unverified data)", info.title),
        (Some(info), Identity::Generated) if info.dataset.is_some() => format!("{} (generated data)", info.title),
        (Some(info), Identity::Published | Identity::Subset | Identity::Generated) => info.heading(),
    };
    if part.task != part.family {
        heading = format!("{heading}, {}", part.task);
    }
    let several = |key: fn(&Part<'_>) -> String| parts.iter().any(|other| key(other) != key(part));
    if several(|p| p.experiment.to_owned()) {
        heading = format!("{}: {heading}", part.experiment);
    }
    if several(|p| p.scale.to_owned()) {
        heading = format!("{heading}, scale {}", part.scale);
    }
    let mut all = vec![tables::results(part, paper, &id)];
    all.extend(heat::maps(part, &id));
    all.extend(detail::classes(part, &id));
    all.extend(detail::differences(part, &id));
    all.extend(time_differences::table(part, loaded, &id));
    all.extend(online::table(part, &id));
    all.extend(phases::transfers(part, &id));
    all.extend(phases::changes(part, &id));
    all.extend(phases::matrix(part, &id));
    all.extend(memory::table(part, &id));
    all.extend(memory::crossovers(part, &id));
    all.extend(tables::costs(part, &id));
    all.extend(energy::energies(part, &id));
    all.extend(spikes::table(part, &paper.spikes, &id));
    all.extend(silence::table(part, loaded, &id));
    all.extend(conventions::table(part, &id));
    if identity.has_name() {
        all.extend(paper.table(part.family, format!("{id}-published")));
    }
    all.push(detail::runs(part, &id));
    let mut plots: Vec<_> = curves::learning(part, loaded, &id).into_iter().collect();
    plots.extend(phases::plot(part, loaded, &id));
    plots.extend(curves::sweeps(part, &id));
    plots.extend(time_differences::plots(part, loaded, &id));
    plots.extend(memory::plot(part, &id));
    let (argument, front) = (argument::argument(part), energy::pareto(part, &id));
    let mut folded: Vec<_> = silence::plot(part, loaded, &id).into_iter().collect();
    folded.extend(raster::plots(part, loaded, &id));
    if plots.iter().all(|plot| plot.id != format!("{id}-stream")) {
        folded.extend(online::plot(part, loaded, &id));
    }
    Section {
        heading,
        short: part.task.into(),
        argument,
        tables: all,
        front,
        plots,
        folded,
        provenance: provenance::facts(part, paper),
        id,
    }
}

/// Every metric of every configuration over its completed seeds.
fn summaries(part: &Part) -> Vec<Summary> {
    let mut all = Vec::new();
    for group in &part.groups {
        let mut names: Vec<(Option<&str>, &str)> = Vec::new();
        for row in group.completed().flat_map(|run| &run.metrics) {
            let name = row.metric.as_deref().map(|metric| (row.split.as_deref(), metric));
            names.extend(name.filter(|name| !names.contains(name)));
        }
        let settings: Vec<String> =
            group.point.iter().filter_map(|(path, value)| value.map(|value| format!("{path}={value}"))).collect();
        for (split, metric) in names {
            let Found::Value(e) = group.metric(metric, split) else { continue };
            all.push(Summary {
                experiment: part.experiment.into(),
                scale: part.scale.into(),
                task: part.task.into(),
                model: group.model.into(),
                kind: group.kind.into(),
                settings: settings.join(";"),
                split: split.unwrap_or_default().into(),
                metric: metric.into(),
                mean: e.mean,
                low: e.interval.map(|i| i.0),
                high: e.interval.map(|i| i.1),
                seeds: e.n,
            });
        }
    }
    all
}

/// Writes what a run leaves in its directory: `report.md`, `tables.tex`, `report/index.html` and `report/<plot>.svg`. Returns the paths.
///
/// # Errors
/// As [`write`].
pub fn write_all(dir: &Path, report: &Report) -> Result<Vec<PathBuf>, ReportError> {
    write(dir, report, &Format::OF_A_RUN)
}

/// Writes a report in some formats into a directory, with Markdown the plots as files; each file is written beside its name and renamed
/// when whole. Returns the paths.
///
/// # Errors
/// `Data` if the system refuses, `Template` if a template is wrong.
pub fn write(dir: &Path, report: &Report, formats: &[Format]) -> Result<Vec<PathBuf>, ReportError> {
    // everything is rendered before the first file is touched
    let mut files = Vec::new();
    for format in formats {
        files.push((dir.join(format.file()), render(report, *format)?));
    }
    if formats.contains(&Format::Markdown) {
        files.extend(report.plots().map(|p| (dir.join(format!("report/{}.svg", p.id)), plot::svg(p))));
    }
    for (path, text) in &files {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        }
        data::files::write_whole(path, text.as_bytes())?;
    }
    Ok(files.into_iter().map(|file| file.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_whole_and_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let report = compute(&fixture::quickstart(), &Paper::embedded().unwrap());
        let paths = write_all(dir.path(), &report).unwrap();
        assert_eq!(paths.len(), 5, "{paths:?}");
        let first: Vec<String> = paths.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
        let again = compute(&fixture::quickstart(), &Paper::embedded().unwrap());
        write_all(dir.path(), &again).unwrap();
        let second: Vec<String> = paths.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
        assert_eq!(first, second);
        let files = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
        assert_eq!((files(dir.path()), files(&dir.path().join("report"))), (3, 3), "nothing partial may be left");
    }

    #[test]
    fn every_table_is_whole_and_no_cell_is_empty() {
        for loaded in [fixture::quickstart(), fixture::sweep(), fixture::all_failed()] {
            let report = compute(&loaded, &Paper::embedded().unwrap());
            for table in report.sections.iter().flat_map(|s| &s.tables).chain(&report.failures) {
                for row in &table.rows {
                    assert_eq!(row.len(), table.columns.len(), "{}", table.id);
                    assert!(row.iter().all(|cell| !cell.text.trim().is_empty()), "{}: {row:?}", table.id);
                }
            }
        }
    }

    #[test]
    fn no_results_are_a_report_that_says_so() {
        let report = compute(&Loaded::default(), &Paper::embedded().unwrap());
        assert_eq!(report.outcome, "0 cells were planned, 0 completed.");
        assert!(render(&report, Format::Html).unwrap().contains("0 cells were planned"));
    }
}
