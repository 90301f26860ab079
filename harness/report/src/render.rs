//! Turns a computed report into text. Formats differ here and in the templates under `reports/templates`, nowhere else.

use std::collections::BTreeMap;

use serde::Serialize;
use tera::{Context, Delimiters, Kwargs, State, Tera};

use super::model::{Place, Report, Table};
use super::{ReportError, plot};

/// Columns at which the terminal's running text is broken.
const TERMINAL_WIDTH: usize = 100;

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
}

/// Renders a report.
///
/// # Errors
/// `Template` if a template does not fit the data: a mistake of the build.
pub fn render(report: &Report, format: Format) -> Result<String, ReportError> {
    match format {
        Format::Markdown => {
            fill("report.md", include_str!("../../../reports/templates/report.md.tera"), &context(report)?)
        }
        Format::Html => {
            let plots = report.sections.iter().flat_map(|section| &section.plots);
            let drawings: BTreeMap<&str, String> = plots.map(|p| (p.id.as_str(), plot::svg(p))).collect();
            let mut context = context(report)?;
            context.insert("drawings", &drawings);
            fill("index.html", include_str!("../../../reports/templates/index.html.tera"), &context)
        }
        Format::Latex => {
            fill("tables.tex", include_str!("../../../reports/templates/tables.tex.tera"), &context(report)?)
        }
        Format::Csv => Ok(csv(report)),
    }
}

/// The main tables as aligned plain text, ASCII only, for a terminal.
///
/// # Errors
/// As [`render`].
pub fn terminal(report: &Report) -> Result<String, ReportError> {
    let everywhere = |table: &&Table| table.place == Place::Everywhere;
    let sections = report.sections.iter().map(|section| TextSection {
        heading: ascii(&section.heading),
        tables: section.tables.iter().filter(everywhere).map(TextTable::new).collect(),
    });
    let mut context = Context::new();
    context.insert("sections", &sections.collect::<Vec<_>>());
    context.insert("failures", &report.failures.as_ref().map(TextTable::new));
    context.insert("outcome", &report.outcome);
    fill("table.txt", include_str!("../../../reports/templates/table.txt.tera"), &context)
}

fn context(report: &Report) -> Result<Context, ReportError> {
    Context::from_serialize(report).map_err(template("report"))
}

fn template(name: &'static str) -> impl FnOnce(tera::Error) -> ReportError {
    move |source| ReportError::Template { name, source: Box::new(source) }
}

/// Renders one template. HTML is escaped by the engine, which knows it by the name's ending.
fn fill(name: &'static str, text: &str, context: &Context) -> Result<String, ReportError> {
    let mut tera = Tera::default();
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
    tera.register_filter("md", |text: &str, _: Kwargs, _: &State| markdown(text));
    tera.register_filter("tex", |text: &str, _: Kwargs, _: &State| latex(text));
    tera.add_raw_template(name, text).map_err(template(name))?;
    tera.render(name, context).map_err(template(name))
}

/// Text for Markdown, also within a table: nothing in it is markup, and it stays on one line.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // what would make a link: a target behind brackets, and addresses that readers of Markdown link by themselves
        let links = match c {
            '(' | ':' | '[' if out.ends_with(']') => true,
            ':' => ["http", "https", "ftp", "mailto", "xmpp"].iter().any(|scheme| ends_with(&out, scheme)),
            '.' => ends_with(&out, "www"),
            '@' => true,
            _ => false,
        };
        if links {
            out.push('\\');
        }
        match c {
            '\\' | '`' | '*' | '_' | '|' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Whether a text ends with these small letters, whatever their case.
fn ends_with(text: &str, letters: &str) -> bool {
    let end = text.len().checked_sub(letters.len()).and_then(|at| text.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(letters))
}

/// Text for LaTeX, also as the first of a table's row.
fn latex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        match c {
            // after a row's end a bracket would be an argument
            '[' if i == 0 => out.push_str("{[}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            'λ' => out.push_str("$\\lambda$"),
            'τ' => out.push_str("$\\tau$"),
            'Δ' => out.push_str("$\\Delta$"),
            '²' => out.push_str("$^2$"),
            '×' => out.push_str("$\\times$"),
            '±' => out.push_str("$\\pm$"),
            '≥' => out.push_str("$\\geq$"),
            '≤' => out.push_str("$\\leq$"),
            '−' => out.push_str("$-$"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text in ASCII; what has no spelling becomes `?`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '–' | '—' | '−' => out.push('-'),
            '×' => out.push('x'),
            'λ' => out.push_str("lambda"),
            'τ' => out.push_str("tau"),
            'Δ' => out.push_str("dt"),
            '²' => out.push_str("^2"),
            'µ' | 'μ' => out.push('u'),
            '≥' => out.push_str(">="),
            '≤' => out.push_str("<="),
            '±' => out.push_str("+/-"),
            '…' => out.push_str("..."),
            '’' => out.push('\''),
            c if c.is_ascii_graphic() => out.push(c),
            c if c.is_whitespace() => out.push(' '),
            _ => out.push('?'),
        }
    }
    out
}

#[derive(Serialize)]
struct TextSection {
    heading: String,
    tables: Vec<TextTable>,
}

/// A table as lines of text.
#[derive(Serialize)]
struct TextTable {
    title: String,
    caption: Vec<String>,
    lines: Vec<String>,
    notes: Vec<String>,
}

impl TextTable {
    fn new(table: &Table) -> Self {
        let head = table.columns.iter().map(|column| ascii(&column.label)).collect();
        let cell = |cell: &super::model::Cell| ascii(&cell.text) + if cell.best { " *" } else { "" };
        let body = table.rows.iter().map(|row| row.iter().map(cell).collect());
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
        let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&table.columns).zip(&widths).map(|((text, column), &width)| {
                if column.numeric { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        lines.insert(1, rule.join("  "));
        let mut notes: Vec<String> = table
            .marks_best
            .then(|| {
                "* cannot be told from the best at 5 % (paired t tests over seeds, Holm over all pairs)".to_owned()
            })
            .into_iter()
            .collect();
        notes.extend(table.notes.iter().flat_map(|note| wrap(&ascii(note))));
        Self { title: ascii(&table.title), caption: wrap(&ascii(&table.caption)), lines, notes }
    }
}

/// Breaks running text between words.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= TERMINAL_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn csv(report: &Report) -> String {
    let mut out = String::from("experiment,scale,task,model,kind,settings,split,metric,mean,low,high,seeds\n");
    for s in &report.summaries {
        let texts = [&s.experiment, &s.scale, &s.task, &s.model, &s.kind, &s.settings, &s.split, &s.metric];
        let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        let mut fields: Vec<String> = texts.into_iter().map(|text| quote(text)).collect();
        fields.extend([number(Some(s.mean)), number(s.low), number(s.high), s.seeds.to_string()]);
        out += &fields.join(",");
        out.push('\n');
    }
    out
}

/// A field of a CSV file (RFC 4180).
fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{Paper, compute, fixture};
    use super::*;

    fn report(loaded: &super::super::Loaded) -> Report {
        compute(loaded, &Paper::embedded().unwrap())
    }

    fn assert_has(text: &str, part: &str) {
        assert!(text.contains(part), "expected\n{part}\nin\n{text}");
    }

    #[test]
    fn markdown_of_generated_language() {
        let text = render(&report(&fixture::quickstart()), Format::Markdown).unwrap();
        assert_has(
            &text,
            "\
# quickstart

8 cells were planned, 7 completed.

## Language modelling (generated data)

### Results

Generated data in the file format of WikiText-103, not WikiText-103: no number here compares with a published one. \
Trains on its train split and evaluates on its test split. Scale mini. \
The text's source has an entropy of 1.900 bits per byte: no model can go below it.

| model | bits per byte | above the floor | seeds | outcome | verdict |
|:---|---:|---:|---:|:---|:---|
| bim | 2.340 [2.213, 2.467] | 0.440 | 2 | completed | not comparable at this scale |
| lstm | 2.280 [2.153, 2.407] | 0.380 | 2 | completed | not comparable at this scale |
| rnn | 2.820 (1 seed) | 0.920 | 1 | 1 completed, 1 diverged | no published value |

- Lower is better: bits per byte.
",
        );
        assert_has(&text, "- Mean with its 95 % t interval over 2 seeds.\n- 1 seed, no interval.\n");
        assert_has(&text, "- Learning rates: as this grid gives them; it names no grid that chose them.\n");
        assert_has(
            &text,
            "Intervals here are 95 % bootstrap intervals over the 60 articles of the evaluation, not over seeds",
        );
        assert_has(&text, "Intervals here are 95 % bootstrap intervals over the 5,000 recordings of the evaluation");
        assert_has(&text, "| lstm | -0.060 [-0.060, -0.060] | &lt; 0.001 | 2 |\n");
        assert_has(&text, "| rnn | 123,456 | 100,000 | 12.6 s | 7,921 | not measured | 64.0 KiB |\n");
        assert_has(&text, "| prevalence | 0.400 | 0.250 |\n");
        assert_has(&text, "Trains on its folds 1, 2, 3 and evaluates on its fold 10.");
        assert_has(&text, "](report/quickstart-language-mini-learning-curve.svg)");
        assert_has(&text, "diverged | 400 | loss is not finite at update 37 \\| &lt;nan&gt; | rnn-2-byte-200000 |\n");
    }

    #[test]
    fn terminal_of_a_sweep_is_aligned_ascii() {
        let text = terminal(&report(&fixture::sweep())).unwrap();
        assert!(text.is_ascii());
        assert_has(
            &text,
            "\
Trains on WikiText-103's valid split and evaluates on its test split. Published results train on the
train split. Scale sample.
",
        );
        assert_has(
            &text,
            "\
bim: bits per byte by lambda and target
Rows: lambda. Columns: target. Values as in the table of results.

lambda              target 0.5            target 0.9
------  ----------------------  --------------------
   0.0  2.020 [1.995, 2.045] *  2.070 [2.045, 2.095]
   0.5    2.120 [2.095, 2.145]  2.170 [2.145, 2.195]
   1.0    2.220 [2.195, 2.245]  2.270 [2.245, 2.295]
* cannot be told from the best at 5 % (paired t tests over seeds, Holm over all pairs)
",
        );
        assert_has(
            &text,
            "lstm   does not apply  does not apply    2.200 [2.200, 2.200]  280.0 [280.0, 280.0] *      3  ",
        );
        assert!(text.lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn links_in_foreign_text_are_text() {
        for (text, expected) in [
            ("[here](javascript:x)", "[here]\\(javascript:x)"),
            ("see HTTPS://h/x or www.h.x", "see HTTPS\\://h/x or www\\.h.x"),
            ("[a]: //h", "[a]\\: //h"),
            ("[a][b]", "[a]\\[b]"),
            ("2.01 [1.98, 2.04] (3 seeds)", "2.01 [1.98, 2.04] (3 seeds)"),
        ] {
            assert_eq!(markdown(text), expected);
        }
    }

    #[test]
    fn latex_is_escaped_and_bold() {
        let text = render(&report(&fixture::quickstart()), Format::Latex).unwrap();
        assert_has(&text, "    lstm & 2.280 [2.153, 2.407] & 0.380 & 2 & completed &");
        let swept = render(&report(&fixture::sweep()), Format::Latex).unwrap();
        assert_has(&swept, "\\textbf{2.020 [1.995, 2.045]}");
        assert_has(&text, "with its 95 \\% t interval over 2 seeds");
        assert_has(&text, "37 \\textbar{} \\textless{}nan\\textgreater{} &");
        for pair in [("\\begin{table}", "\\end{table}"), ("\\begin{tabular}", "\\end{tabular}"), ("{", "}")] {
            assert_eq!(text.matches(pair.0).count(), text.matches(pair.1).count(), "{pair:?}");
        }
        assert_eq!(latex("[a] 50% & x_1 ~ λ"), "{[}a] 50\\% \\& x\\_1 \\textasciitilde{} $\\lambda$");
    }

    #[test]
    fn html_is_escaped_and_loads_nothing() {
        let text = render(&report(&fixture::quickstart()), Format::Html).unwrap();
        assert_has(&text, "loss is not finite at update 37 | &lt;nan&gt;");
        let swept = render(&report(&fixture::sweep()), Format::Html).unwrap();
        assert_has(&swept, "<strong>2.020 [1.995, 2.045]</strong>");
        assert_eq!(text.matches("<svg").count(), 2);
        for foreign in ["src=", "<link", "<script", "@import", "url("] {
            assert!(!text.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn csv_holds_unrounded_numbers() {
        let text = render(&report(&fixture::sweep()), Format::Csv).unwrap();
        assert_has(&text, "experiment,scale,task,model,kind,settings,split,metric,mean,low,high,seeds\n");
        assert_has(&text, ",bim,bim,model.lambda=0.5;model.sparsity.target=0.9,test,bits_per_byte,2.17,");
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn what_never_ran_is_said_and_nothing_else() {
        let text = render(&report(&fixture::all_failed()), Format::Markdown).unwrap();
        assert_has(&text, "2 cells were planned, 0 completed.");
        assert_has(&text, "| bim | 0 | out of memory |");
        assert_has(&text, "| bim | 1 | out of memory | 0 | no reason recorded | bim-1 |");
        assert!(!text.contains("### Costs") && !text.contains("### Learning") && !text.contains("Bold"), "{text}");
    }
}
