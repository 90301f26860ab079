//! Turns a computed report into text. Formats differ here and in the templates under `reports/templates`, nowhere else.

mod csv;
mod escape;
mod text;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tera::{Context, Delimiters, Kwargs, State, Tera};

use super::model::Report;
use super::{ReportError, plot};
use escape::{latex, markdown};

pub use text::terminal;

/// Sections whose plot of quality against energy stands on the first screen of the page.
const MOST_FRONTS: usize = 4;
/// Characters of label and value that fit half the width of a card on a phone.
const HALF_A_CARD: usize = 22;
/// Tables of the page.
const TABLE: &str = include_str!("../../../../reports/templates/table.html.tera");

/// A form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GitHub's Markdown, with plots as files beside it.
    Markdown,
    /// One HTML file that holds everything.
    Html,
    /// Tables for LaTeX with `booktabs` and `graphicx`.
    Latex,
    /// The numbers behind the tables, unrounded.
    Csv,
    /// The whole computed report, as templates get it.
    Json,
}

impl Format {
    /// The formats that a run leaves in its directory.
    pub const OF_A_RUN: [Self; 3] = [Self::Markdown, Self::Latex, Self::Html];

    /// The file's name in a report's folder.
    pub fn file(self) -> &'static str {
        match self {
            Self::Markdown => "report.md",
            Self::Html => "report/index.html",
            Self::Latex => "tables.tex",
            Self::Csv => "summary.csv",
            Self::Json => "report.json",
        }
    }
}

/// Renders a report. The same report gives the same bytes.
///
/// # Errors
/// `Template` if a template does not fit the data: a mistake of the build.
pub fn render(report: &Report, format: Format) -> Result<String, ReportError> {
    match format {
        Format::Markdown => {
            fill("report.md", include_str!("../../../../reports/templates/report.md.tera"), &context(report)?)
        }
        Format::Html => {
            let mut context = with_drawings(report)?;
            context.insert("most_fronts", &MOST_FRONTS);
            context.insert("script", include_str!("../../../../reports/templates/page.js").trim_end());
            fill("index.html", include_str!("../../../../reports/templates/index.html.tera"), &context)
        }
        Format::Latex => {
            fill("tables.tex", include_str!("../../../../reports/templates/tables.tex.tera"), &context(report)?)
        }
        Format::Csv => Ok(csv::csv(report)),
        Format::Json => serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(ReportError::Json),
    }
}

/// Renders a template of the user's own: Tera, on what `reports/templates/README.md` describes. A name that ends in `.html` or `.xml`
/// has what it inserts escaped.
///
/// # Errors
/// `OwnTemplate` if it is wrong, with the place.
pub fn render_own(report: &Report, name: &str, text: &str) -> Result<String, ReportError> {
    let mut context = with_drawings(report)?;
    let style: &str = &plot::style();
    context.insert("style", style);
    let wrong = |source: tera::Error| {
        let mut causes = source.to_string();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&source);
        while let Some(inner) = cause {
            let _ = write!(causes, ": {inner}");
            cause = inner.source();
        }
        ReportError::OwnTemplate { name: name.to_owned(), causes }
    };
    let mut tera = engine();
    tera.add_raw_template(name, text).map_err(wrong)?;
    tera.render(name, &context).map_err(wrong)
}

fn context(report: &Report) -> Result<Context, ReportError> {
    Context::from_serialize(report).map_err(template("report"))
}

/// The report with its plots drawn, and the rules that the drawings need.
fn with_drawings(report: &Report) -> Result<Context, ReportError> {
    let drawings: BTreeMap<&str, String> = report.plots().map(|p| (p.id.as_str(), plot::html(p))).collect();
    let mut context = context(report)?;
    context.insert("drawings", &drawings);
    let style = format!(
        "{}\n{}\n{}",
        include_str!("../../../../reports/templates/page.css").trim_end(),
        plot::style(),
        card_labels(report)
    );
    context.insert("style", &style);
    Ok(context)
}

/// Rules that name the cells of each table's cards on a phone.
fn card_labels(report: &Report) -> String {
    let mut out = String::from("@media screen and (max-width: 46rem) {\n");
    let tables = report.sections.iter().flat_map(|section| &section.tables).chain(&report.failures);
    for table in tables.filter(|table| !table.map) {
        for (i, column) in table.columns.iter().enumerate().skip(1) {
            let place = format!("[id=\"{}-table\"] td:nth-child({})", table.id, i + 1);
            let _ = writeln!(out, "{place}::before{{content:\"{}\"}}", escape::css(&column.label));
            // what is short shares its line with another
            let longest = table.rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.text.chars().count()).max();
            if longest.unwrap_or(0) + column.label.chars().count() <= HALF_A_CARD {
                let _ = writeln!(out, "{place}{{grid-column:span 1}}");
            }
        }
    }
    out + "}"
}

fn template(name: &'static str) -> impl FnOnce(tera::Error) -> ReportError {
    move |source| ReportError::Template { name, source: Box::new(source) }
}

/// The engine with the filters that templates may use.
fn engine() -> Tera {
    let mut tera = Tera::default();
    tera.register_filter("md", |text: &str, _: Kwargs, _: &State| markdown(text));
    tera.register_filter("tex", |text: &str, _: Kwargs, _: &State| latex(text));
    tera
}

/// Renders one template. HTML is escaped by the engine, which knows it by the name's ending.
fn fill(name: &'static str, text: &str, context: &Context) -> Result<String, ReportError> {
    let mut tera = engine();
    if name == "tables.tex" {
        // braces are LaTeX's own
        let delimiters = Delimiters {
            block_start: "<%".into(),
            block_end: "%>".into(),
            variable_start: "<<".into(),
            variable_end: ">>".into(),
            comment_start: "<#".into(),
            comment_end: "#>".into(),
        };
        tera.set_delimiters(delimiters).map_err(template(name))?;
    }
    let mut templates = vec![(name, text)];
    if name == "index.html" {
        templates.push(("table.html", TABLE));
    }
    tera.add_raw_templates(templates).map_err(template(name))?;
    tera.render(name, context).map_err(template(name))
}

#[cfg(test)]
mod tests;
