//! `harness explain` and `harness schema`: what a grid file may say.

use std::borrow::Cow;
use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use crate::error::{Error, Result, exit};
use crate::schema::Language;

#[derive(Args)]
pub(super) struct ExplainArgs {
    /// A key of a grid file, such as bim.lambda, train.clip, language.vocabulary or threshold; without one, what there is
    key: Option<String>,
}

pub(super) fn run(args: &ExplainArgs) -> Result<u8> {
    let language = Language::new();
    let all = paths(&language);
    let Some(wanted) = args.key.as_deref().map(str::trim).filter(|key| !key.is_empty()) else {
        crate::say!("{}", overview(&language));
        return Ok(exit::DONE);
    };
    let wanted = &*as_listed(wanted, &language);
    let found: Vec<&(String, Value)> = match all.iter().find(|(path, _)| path == wanted) {
        Some(whole) => vec![whole],
        None => all.iter().filter(|(path, _)| path.ends_with(wanted) && ends_a_word(path, wanted)).collect(),
    };
    match found.as_slice() {
        [] => {
            let mut words: Vec<&str> = all.iter().flat_map(|(path, _)| [path.as_str(), last(path)]).collect();
            words.sort_unstable();
            words.dedup();
            let meant =
                grid::nearest(wanted, &words).map_or_else(String::new, |near| format!("\n  did you mean: {near}"));
            let next = "next: `harness explain` names what there is";
            return Err(Error::Usage(format!(
                "no grid has a key `{}`{meant}\n  {next}",
                ::data::account::inert(wanted)
            )));
        }
        [(path, schema)] => crate::say!("{}", explained(path, schema, &language)),
        several => several.iter().for_each(|(path, schema)| crate::say!("{}", line(path, schema, &language))),
    }
    Ok(exit::DONE)
}

/// A path of a grid as paths are listed: `model.layers` is a key of every model that has it, the training of one model has the keys of all
/// training, and every scale has the same keys.
fn as_listed<'a>(path: &'a str, language: &Language) -> Cow<'a, str> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let is_kind = language.kinds.iter().flat_map(|kinds| &kinds.entries).any(|(kind, _)| *kind == first);
    match rest {
        "" => path.into(),
        _ if first == "model" || first == "task" => rest.into(),
        _ if is_kind && rest.starts_with("train.") => rest.into(),
        _ if first == "scales" => match rest.split_once('.') {
            Some((_, key)) => format!("scales.NAME.{key}").into(),
            None => first.into(),
        },
        _ => path.into(),
    }
}

pub(super) fn schema() -> Result<u8> {
    let text = serde_json::to_string_pretty(&Language::new().document()).map_err(|e| Error::Report(e.to_string()))?;
    crate::say!("{text}");
    Ok(exit::DONE)
}

fn ends_a_word(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.ends_with('.'))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Where the names of a mapping are the grid's own, what stands behind each of them.
fn behind_names(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|each| each.get("properties").is_some())
}

/// Every path with its schema: `train.clip`, `bim`, `bim.pre.levels`.
fn paths(language: &Language) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let kinds = language.kinds.iter().flat_map(|kinds| &kinds.entries);
    for (kind, schema) in kinds {
        all.push(((*kind).to_owned(), schema.clone()));
        below(kind, schema, language, &mut all);
    }
    for (key, schema) in properties(&language.top) {
        all.push((key.clone(), schema.clone()));
        below(key, schema, language, &mut all);
    }
    all
}

/// Keys below a path. The training of an entry is that of the grid: it is told once.
fn below(path: &str, schema: &Value, language: &Language, all: &mut Vec<(String, Value)>) {
    for (key, schema) in properties(&language.resolve(schema)) {
        let path = format!("{path}.{key}");
        all.push((path.clone(), schema.clone()));
        if key != "train" {
            below(&path, schema, language, all);
        }
    }
    if let Some(each) = behind_names(schema) {
        below(&format!("{path}.NAME"), each, language, all);
    }
    if let Some(each) = schema.get("items").filter(|each| language.resolve(each).get("properties").is_some()) {
        below(path, each, language, all);
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The first sentence of a description.
fn summary(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    // an abbreviation ends no sentence
    let mut ends = text.match_indices(". ").map(|(at, _)| at);
    let end = ends.find(|at| !text[..*at].ends_with("eq")).map_or(text.len(), |end| end + 1);
    text[..end].lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn line(path: &str, schema: &Value, language: &Language) -> String {
    let schema = language.resolve(schema);
    format!("{path:<40} {}{}  {}", form(&schema), default(&schema), summary(&schema))
}

/// What is expected there.
fn form(schema: &Value) -> String {
    if let Some(expected) = schema.get("x-expected").and_then(Value::as_str) {
        return expected.to_owned();
    }
    if let Some(only) = schema.get("const").and_then(Value::as_str) {
        return only.to_owned();
    }
    let names = choices(schema).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    if !names.is_empty() {
        return format!("one of {}", names.join(", "));
    }
    if schema.get("anyOf").is_some() {
        return "a value or a list".to_owned();
    }
    let types = match schema.get("type") {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let grouped = schema.get("pattern").is_some() && types.len() > 1;
    let whole = match (schema.get("minimum"), schema.get("maximum")) {
        (Some(low), Some(high)) => format!("a whole number from {low} to {high}"),
        (Some(low), None) => format!("a whole number from {low} up"),
        (None, _) => "a whole number".to_owned(),
    };
    let word = |name: &&str| match *name {
        "integer" => Some(whole.as_str()),
        "number" => Some("a number"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a mapping"),
        "string" if !grouped => Some("text"),
        _ => None,
    };
    let words: Vec<&str> = types.iter().filter_map(word).collect();
    if words.is_empty() { "a value".to_owned() } else { words.join(" or ") }
}

fn default(schema: &Value) -> String {
    match schema.get("default") {
        Some(Value::Null) => "; absent by default".to_owned(),
        Some(Value::Object(_)) | None => String::new(),
        Some(Value::String(text)) => format!("; default {text}"),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("; default {n}"),
            _ => format!("; default {number}"),
        },
        Some(value) => format!("; default {value}"),
    }
}

/// The words that a key may be, each with what it means.
fn choices(schema: &Value) -> Vec<(String, String)> {
    let name = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain =
        schema.get("enum").and_then(Value::as_array).into_iter().flatten().map(|value| (name(value), String::new()));
    let described = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().flat_map(|one| {
        let about = one.get("description").and_then(Value::as_str).unwrap_or_default().replace("\n\n", " ");
        let alone = one.get("const").map(|value| (name(value), about.clone()));
        let several = one.get("enum").and_then(Value::as_array).into_iter().flatten();
        alone.into_iter().chain(several.map(move |value| (name(value), about.clone())))
    });
    plain.chain(described).collect()
}

fn explained(path: &str, schema: &Value, language: &Language) -> String {
    let schema = language.resolve(schema);
    let mut text = format!("{path}: {}{}\n", form(&schema), default(&schema));
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    for paragraph in about.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        // tables of the documentation are for its pages
        if !paragraph.starts_with('|') {
            text += &wrapped(paragraph, 2);
        }
    }
    for (name, about) in choices(&schema).iter().filter(|(_, about)| !about.is_empty()) {
        let _ = write!(text, "  {name}\n{}", wrapped(about, 6));
    }
    let each = behind_names(&schema);
    let mut keys = properties(each.unwrap_or(&schema)).peekable();
    if keys.peek().is_some() {
        text += if each.is_some() { "  keys of each:\n" } else { "  keys:\n" };
    }
    for (key, schema) in keys {
        let schema = language.resolve(schema);
        let _ = writeln!(text, "    {key}: {}{}", form(&schema), default(&schema));
        text += &wrapped(&summary(&schema), 8);
    }
    text.trim_end().to_owned()
}

/// Lines of at most 100 characters, indented.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut all, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > 100 {
            let _ = writeln!(all, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    if line.is_empty() { all } else { format!("{all}{:indent$}{line}\n", "") }
}

fn overview(language: &Language) -> String {
    let mut text = String::from("Keys of a grid file:\n");
    for (key, schema) in properties(&language.top) {
        let _ = writeln!(text, "  {key:<12} {}", summary(&language.resolve(schema)));
    }
    for kinds in &language.kinds {
        let names: Vec<&str> = kinds.entries.iter().map(|(kind, _)| *kind).collect();
        let _ = writeln!(text, "Kinds of {}s: {}", kinds.what, names.join(", "));
    }
    text += "harness explain bim, bim.lambda or train says more; harness schema prints all of it as JSON Schema.";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str) -> String {
        let language = Language::new();
        let all = paths(&language);
        let (path, schema) = all.iter().find(|(path, _)| path == key).expect("a key");
        explained(path, schema, &language)
    }

    #[test]
    fn a_key_has_its_range_default_and_words() {
        assert_eq!(
            of("train.warmup"),
            "train.warmup: a number from 0 to 1; default 0.03\n  Share of the updates over which it rises."
        );
        let levels = of("bim.pre.levels");
        assert!(levels.starts_with(
            "bim.pre.levels: one of binary, signed, integer, unsigned, quantised, analog; default integer\n"
        ));
        assert!(levels.contains("\n  binary\n      0 or 1.\n"), "{levels}");
        assert!(of("bim.pre").contains("\n    bits: a whole number from 1 to 8; default 4\n"));
        assert!(
            of("train.seen").starts_with("train.seen: a whole number from 1 up; absent by default\n"),
            "{}",
            of("train.seen")
        );
        assert!(of("train.eval_limit").starts_with("train.eval_limit: a whole number from 1 up\n"));
        assert!(of("scales").contains("\n  keys of each:\n") && of("scales").contains("\n    report: a mapping\n"));
        assert!(of("scales.NAME.report.rates_from").contains(": text"), "{}", of("scales.NAME.report.rates_from"));
        assert!(of("train.beta1").starts_with("train.beta1: a number from 0 to 0.999999; default 0.9\n"));
        assert!(of("cardio.rate").starts_with("cardio.rate: 100 or 500; default 100\n"));
        assert!(of("lstm.only").starts_with("lstm.only: a value or a list\n"));
    }

    /// No key is without a word on what it is.
    #[test]
    fn every_key_is_described() {
        let language = Language::new();
        let silent: Vec<String> = paths(&language)
            .into_iter()
            .filter(|(path, schema)| last(path) != "kind" && summary(&language.resolve(schema)).is_empty())
            .map(|(path, _)| path)
            .collect();
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn a_word_is_found_wherever_it_stands() {
        let found =
            |word: &str| paths(&Language::new()).into_iter().filter(|(path, _)| ends_a_word(path, word)).count();
        assert_eq!((found("threshold"), found("pre.threshold"), found("hreshold")), (4, 1, 0));
    }

    #[test]
    fn a_path_of_a_grid_is_found_as_it_is_written_there() {
        let language = Language::new();
        let of = |path| as_listed(path, &language);
        assert_eq!([of("model.layers"), of("task.frame"), of("bim.train.clip")], ["layers", "frame", "train.clip"]);
        assert_eq!([of("bim.lambda"), of("train.clip"), of("model")], ["bim.lambda", "train.clip", "model"]);
        assert_eq!([of("scales.mini.report"), of("scales.mini")], ["scales.NAME.report", "scales"]);
    }

    #[test]
    fn a_summary_is_a_whole_sentence() {
        let text = |text: &str| summary(&serde_json::json!({"description": text}));
        assert_eq!(text("A current, `I` of eq. 3. More."), "A current, `I` of eq. 3");
        assert_eq!(text("One. Two."), "One");
    }

    #[test]
    fn lines_fit() {
        let text = wrapped(&"word ".repeat(60), 6);
        assert!(
            text.lines().all(|line| line.len() <= 100 && line.starts_with("      word")) && text.lines().count() == 4
        );
    }
}
