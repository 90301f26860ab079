//! Where configuration text came from, and errors that show it.

use std::fmt;

/// A place in one of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Index of the text among the sources.
    pub source: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to underline; at least 1.
    pub length: usize,
}

impl Origin {
    /// The part of this place that starts `skip` characters further and is `length` long.
    pub(super) fn part(self, skip: usize, length: usize) -> Self {
        Self { column: self.column + skip, length: length.max(1), ..self }
    }
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    /// A command-line argument: its text is a line without a number.
    argument: bool,
}

/// Every text that configuration was read from: files and command-line arguments.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Remembers a file under the name that errors print, and returns its index.
    pub fn add_file(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        self.0.push(Source { name: name.into(), text: text.into(), argument: false });
        self.0.len() - 1
    }

    /// Remembers an argument such as `--set train.steps=5` (`flag` is `--set`), and returns its index.
    pub fn add_argument(&mut self, flag: &str, text: &str) -> usize {
        self.0.push(Source { name: format!("{flag} {text}"), text: text.to_owned(), argument: true });
        self.0.len() - 1
    }

    /// Names and texts of the files, as they were read.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|source| !source.argument).map(|source| (source.name.as_str(), source.text.as_str()))
    }

    /// The text of a source; empty if there is no such source.
    pub fn text(&self, source: usize) -> &str {
        self.0.get(source).map_or("", |s| &s.text)
    }

    /// `file:line:column`, or the argument as it was given.
    pub fn locate(&self, origin: Origin) -> String {
        match self.0.get(origin.source) {
            Some(source) if source.argument => source.name.clone(),
            Some(source) => format!("{}:{}:{}", source.name, origin.line, origin.column),
            None => "unknown place".to_owned(),
        }
    }

    /// An error at `origin`, with the line it is on.
    pub fn error(&self, origin: Origin, message: impl Into<String>) -> ConfigError {
        let origin = self.within(origin);
        let argument = self.0.get(origin.source).is_some_and(|s| s.argument);
        let line = self.text(origin.source).lines().nth(origin.line.saturating_sub(1)).unwrap_or("");
        ConfigError(Box::new(Report {
            message: message.into(),
            place: Some(Place {
                location: self.locate(origin),
                line_number: if argument { String::new() } else { origin.line.to_string() },
                line: line.replace('\t', " "),
                column: origin.column,
                length: origin.length,
            }),
            notes: Vec::new(),
        }))
    }

    /// A place behind the last line, where parsers see the end of a text, becomes the end of that line.
    fn within(&self, origin: Origin) -> Origin {
        match self.text(origin.source).lines().enumerate().last() {
            Some((last, line)) if origin.line > last + 1 => {
                Origin { line: last + 1, column: line.chars().count() + 1, length: 1, ..origin }
            }
            _ => origin,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    location: String,
    line_number: String,
    line: String,
    column: usize,
    length: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Report {
    message: String,
    place: Option<Place>,
    notes: Vec<String>,
}

/// Wrong configuration. Its text says what is wrong, shows where, and what would be right. The harness exits with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Report>);

/// Result of reading configuration.
pub type ConfigResult<T> = Result<T, ConfigError>;

impl ConfigError {
    /// An error that belongs to no line, such as an unreadable file.
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Report { message: message.into(), place: None, notes: Vec::new() }))
    }

    /// Adds a line below the place.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(self, help: impl fmt::Display) -> Self {
        self.note(format!("help: {help}"))
    }

    /// Lists what would have been accepted in place of `got`, and suggests the nearest.
    #[must_use]
    pub fn expected_one_of<S: AsRef<str>>(self, got: &str, known: &[S]) -> Self {
        let named = match known {
            [] => return self,
            [one] => format!("expected `{}`", one.as_ref()),
            many => {
                let quoted: Vec<String> = many.iter().map(|k| format!("`{}`", k.as_ref())).collect();
                format!("expected one of {}", quoted.join(", "))
            }
        };
        self.note(named).did_you_mean(got, known)
    }

    /// Suggests the nearest of `known` to `got`, if one is near.
    #[must_use]
    pub fn did_you_mean<S: AsRef<str>>(self, got: &str, known: &[S]) -> Self {
        match nearest(got, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { message, place, notes } = &*self.0;
        write!(f, "error: {message}")?;
        let gutter = place.as_ref().map_or(0, |p| p.line_number.len().max(1));
        if let Some(place) = place {
            let caret = format!("{}{}", " ".repeat(place.column.saturating_sub(1)), "^".repeat(place.length));
            write!(f, "\n{:gutter$}--> {}\n{:gutter$} |", "", place.location, "")?;
            write!(f, "\n{:>gutter$} | {}", place.line_number, place.line.trim_end())?;
            write!(f, "\n{:gutter$} | {caret}", "")?;
        }
        notes.iter().try_for_each(|note| write!(f, "\n{:gutter$} = {note}", ""))
    }
}

/// The known word that `word` was probably meant to be: at most a third of its letters wrong, swapped or missing.
pub fn nearest<'a, S: AsRef<str>>(word: &str, known: &'a [S]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let allowed = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&word, &plain(k.as_ref())), k.as_ref()))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_looks_like_the_compilers() {
        let mut sources = Sources::default();
        let source = sources.add_file("x.yaml", "a: 1\nmodels:\n  lamda: 0.5\n");
        let error = sources
            .error(Origin { source, line: 3, column: 3, length: 5 }, "unknown key `lamda`")
            .expected_one_of("lamda", &["lambda", "layers"]);
        let expected = "error: unknown key `lamda`\n --> x.yaml:3:3\n  |\n3 |   lamda: 0.5\n  |   ^^^^^\n  \
                        = expected one of `lambda`, `layers`\n  = help: did you mean `lambda`?";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["lambda", "layers", "width"];
        assert_eq!(nearest("lamda", &known), Some("lambda"));
        assert_eq!(nearest("Layers", &known), Some("layers"));
        assert_eq!(nearest("wdith", &known), Some("width"));
        assert_eq!(nearest("seed", &known), None);
        assert_eq!(nearest("", &known), None);
    }
}
