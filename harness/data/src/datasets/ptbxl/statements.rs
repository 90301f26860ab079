//! SCP-ECG statements and what counts as a label: which statements, under which name, from which likelihood on.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::table::{Row, Table};
use super::{STATEMENTS, SUPERCLASSES};
use crate::error::DataResult;

/// Most statements that are read; the publisher has 71. Each record of the database has a label for each.
const MAX_STATEMENTS: usize = 1024;

/// Which statements are the classes; the publisher's benchmark (Strodthoff et al., 2021) has a task for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelSet {
    /// The five [`SUPERCLASSES`] of the diagnostic statements (column `diagnostic_class`).
    #[default]
    Superclass,
    /// The 23 subclasses of the diagnostic statements (column `diagnostic_subclass`).
    Subclass,
    /// The 44 diagnostic statements themselves.
    Diagnostic,
    /// The 19 statements on the form of waves; four of them are diagnostic too.
    Form,
    /// The 12 statements on rhythm.
    Rhythm,
    /// All 71 statements.
    All,
}

impl LabelSet {
    /// Whether a threshold on the likelihood makes sense: the tables give one for diagnostic statements. Of those on
    /// form and rhythm nearly all have 0, which means "not given".
    pub fn has_likelihoods(self) -> bool {
        !matches!(self, Self::Form | Self::Rhythm)
    }
}

/// What counts as a label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Labelling {
    /// Which statements.
    pub set: LabelSet,
    /// Lowest likelihood, in percent, of a diagnostic statement that counts; statements that are not diagnostic always
    /// count. The publisher's example counts every statement present, even at 0, which means "likelihood not given":
    /// so does the default.
    pub min_likelihood: f64,
    /// Whether [`super::PtbXl::select`] keeps records without any label. The default leaves them out, as the published
    /// benchmark does.
    pub keep_unlabelled: bool,
}

/// What a statement means for the labels.
struct Meaning {
    /// Place in [`Statements::classes`], if it counts at all.
    class: Option<usize>,
    /// Whether its likelihood decides.
    is_diagnostic: bool,
}

/// The statements, and the classes they belong to.
pub(super) struct Statements {
    /// Names of the classes.
    pub(super) classes: Vec<String>,
    meanings: HashMap<String, Meaning>,
    min_likelihood: f64,
}

impl Statements {
    /// Reads `scp_statements.csv`; of its columns only those that this set of labels needs.
    pub(super) fn read(table: &mut Table, labelling: Labelling) -> DataResult<Self> {
        let code = table.column("")?; // the publisher's first column has no name
        let diagnostic = if labelling.set.has_likelihoods() { Some(table.column("diagnostic")?) } else { None };
        let other = match labelling.set {
            LabelSet::Superclass => Some(table.column("diagnostic_class")?),
            LabelSet::Subclass => Some(table.column("diagnostic_subclass")?),
            LabelSet::Form => Some(table.column("form")?),
            LabelSet::Rhythm => Some(table.column("rhythm")?),
            LabelSet::Diagnostic | LabelSet::All => None,
        };
        let mut classes: Vec<String> = match labelling.set {
            LabelSet::Superclass => SUPERCLASSES.map(str::to_owned).into(),
            _ => Vec::new(),
        };
        let mut meanings = HashMap::new();
        while let Some(row) = table.next_row()? {
            let code = row.field(code);
            let is_diagnostic = diagnostic.map_or(Ok(false), |column| flag(&row, column, "diagnostic"))?;
            let class = class_of(&row, labelling.set, code, is_diagnostic, other)?;
            let class = class.map(|name| place_of(name, &mut classes));
            if meanings.insert(code.to_owned(), Meaning { class, is_diagnostic }).is_some() {
                return Err(row.wrong("each statement once", format!("`{code}` again")));
            }
            if meanings.len() > MAX_STATEMENTS {
                return Err(row.wrong(format!("at most {MAX_STATEMENTS} statements"), "more of them"));
            }
        }
        Ok(Self { classes, meanings, min_likelihood: labelling.min_likelihood })
    }

    /// Which classes the statements of a row (its `scp_codes`) belong to.
    pub(super) fn labels(&self, row: &Row<'_>, field: &str) -> DataResult<Vec<bool>> {
        let codes = parse_codes(field)
            .map_err(|problem| row.wrong("scp_codes such as `{'NORM': 100.0, 'SR': 0.0}`", problem + " in " + field))?;
        let mut labels = vec![false; self.classes.len()];
        for (code, likelihood) in codes {
            let Some(meaning) = self.meanings.get(&code) else {
                return Err(row.wrong(format!("statements that {STATEMENTS} lists"), format!("`{code}`")));
            };
            if let Some(label) = meaning.class.and_then(|index| labels.get_mut(index)) {
                *label |= !meaning.is_diagnostic || likelihood >= self.min_likelihood;
            }
        }
        Ok(labels)
    }
}

/// Name of the class a statement belongs to, if to any.
fn class_of<'r>(
    row: &'r Row<'_>,
    set: LabelSet,
    code: &'r str,
    is_diagnostic: bool,
    column: Option<usize>,
) -> DataResult<Option<&'r str>> {
    let field = column.map_or("", |column| row.field(column));
    Ok(match set {
        LabelSet::Superclass if is_diagnostic => {
            if !SUPERCLASSES.contains(&field) {
                return Err(row.wrong(format!("one of {}", SUPERCLASSES.join(", ")), field));
            }
            Some(field)
        }
        LabelSet::Subclass if is_diagnostic => {
            if field.is_empty() {
                return Err(row.wrong("a diagnostic_subclass of a diagnostic statement", "nothing"));
            }
            Some(field)
        }
        LabelSet::Diagnostic if is_diagnostic => Some(code),
        LabelSet::Form => flag(row, column.unwrap_or_default(), "form")?.then_some(code),
        LabelSet::Rhythm => flag(row, column.unwrap_or_default(), "rhythm")?.then_some(code),
        LabelSet::All => Some(code),
        LabelSet::Superclass | LabelSet::Subclass | LabelSet::Diagnostic => None,
    })
}

/// Place of a class among those found so far.
fn place_of(name: &str, classes: &mut Vec<String>) -> usize {
    classes.iter().position(|class| class == name).unwrap_or_else(|| {
        classes.push(name.to_owned());
        classes.len() - 1
    })
}

/// A flag of the publisher's: `1.0` or nothing.
fn flag(row: &Row<'_>, column: usize, name: &str) -> DataResult<bool> {
    match row.field(column) {
        "" => Ok(false),
        "1" | "1.0" => Ok(true),
        other => Err(row.wrong(format!("`1.0` or nothing as `{name}`"), other)),
    }
}

/// Reads the Python literal of the `scp_codes` column, a dict from text to number, in its order.
pub(super) fn parse_codes(text: &str) -> Result<Vec<(String, f64)>, String> {
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or("no braces")?;
    let mut rest = inner.trim();
    let mut codes = Vec::new();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c)).ok_or("a key without quotes")?;
        let (key, behind) =
            rest.strip_prefix(quote).and_then(|key| key.split_once(quote)).ok_or("a key without its second quote")?;
        if key.contains('\\') {
            return Err("an escaped key".into());
        }
        let behind = behind.trim_start().strip_prefix(':').ok_or("a key without `:`")?;
        let (value, next) = behind.split_once(',').unwrap_or((behind, ""));
        let number = value.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        codes.push((key.to_owned(), number.ok_or_else(|| format!("`{}` for a number", value.trim()))?));
        rest = next.trim_start();
    }
    Ok(codes)
}
