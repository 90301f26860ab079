//! YAML text → [`Node`]: saphyr's events give every scalar its place.

use super::error::{ConfigError, ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use std::borrow::Cow;

/// Deeper nesting is a mistake, and would endanger the stack.
const MAX_DEPTH: usize = 64;

/// Parses a text (YAML, or JSON) that errors call `name`.
///
/// # Errors
/// Syntax errors, several documents, duplicate keys, and the parts of YAML that grids do without: anchors, aliases,
/// tags, and keys that are not text.
pub fn parse_text(name: &str, text: &str, sources: &mut Sources) -> ConfigResult<Node> {
    let source = sources.add_file(name, text);
    parse_part(source, 0, sources)
}

/// Parses a source from its `skip`-th character on, which has to be on its first line.
pub(super) fn parse_part(source: usize, skip: usize, sources: &Sources) -> ConfigResult<Node> {
    let text = sources.text(source);
    let start = text.char_indices().nth(skip).map_or(text.len(), |(at, _)| at);
    let part = text.get(start..).unwrap_or("");
    // A byte order mark is no part of the first key.
    let part = part.strip_prefix('\u{feff}').unwrap_or(part);
    Reader { parser: Parser::new_from_str(part), sources, source, skip }.document()
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    sources: &'a Sources,
    source: usize,
    skip: usize,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> ConfigResult<Node> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, span) => {
                    let origin = self.origin(span);
                    return root.ok_or_else(|| self.sources.error(origin, "there is no YAML in it"));
                }
                (Event::DocumentStart(_), span) if root.is_some() => {
                    return Err(self.error(span, "expected one YAML document, got a second one"));
                }
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> ConfigResult<Node> {
        if depth > MAX_DEPTH {
            return Err(self.error(span, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let origin = self.origin(span);
        let kind = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(span, anchor, tag.as_ref())?;
                Kind::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(span, anchor, tag.as_ref())?;
                self.sequence(depth)?
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(span, anchor, tag.as_ref())?;
                self.mapping(depth)?
            }
            Event::Alias(_) => {
                return Err(self.error(span, "aliases (`*name`) are not supported").help("write the value out"));
            }
            _ => return Err(self.error(span, "expected a value")),
        };
        Ok(Node { origin, kind })
    }

    fn sequence(&mut self, depth: usize) -> ConfigResult<Kind> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::Seq(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> ConfigResult<Kind> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Kind::Map(entries));
            }
            let key_node = self.node(event, span, depth + 1)?;
            let key = match key_node.kind {
                Kind::Scalar { text, .. } if !text.is_empty() => Key { text, origin: key_node.origin },
                _ => return Err(self.error(span, "a key has to be text")),
            };
            if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == key.text) {
                let place = self.sources.locate(first.origin);
                let error = self.error(span, format!("key `{}` is given twice", key.text));
                return Err(error.note(format!("first given at {place}")));
            }
            let (event, span) = self.next()?;
            let mut value = self.node(event, span, depth + 1)?;
            if matches!(&value.kind, Kind::Scalar { text, quoted: false } if text.is_empty()) {
                // The parser puts a value that is left out at the next token, which may be lines away.
                value.origin = key.origin;
            }
            entries.push((key, value));
        }
    }

    fn next(&mut self) -> ConfigResult<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(self.error(Span::empty(*e.marker()), format!("wrong YAML: {}", e.info()))),
            None => Err(ConfigError::new("the YAML text ended unexpectedly")),
        }
    }

    fn refuse(&self, span: Span, anchor: usize, tag: Option<&Cow<'_, Tag>>) -> ConfigResult<()> {
        if anchor != 0 {
            return Err(self.error(span, "anchors (`&name`) are not supported").help("write the value out"));
        }
        tag.map_or(Ok(()), |tag| {
            Err(self.error(span, format!("tags such as `{tag}` are not supported")).help("leave the tag out"))
        })
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ConfigError {
        self.sources.error(self.origin(span), message)
    }

    fn origin(&self, span: Span) -> Origin {
        let Span { start, end } = span;
        let length = if start.line() == end.line() { end.index().saturating_sub(start.index()) } else { 1 };
        Origin { source: self.source, line: start.line().max(1), column: self.column(start), length: length.max(1) }
    }

    fn column(&self, marker: Marker) -> usize {
        let skip = if marker.line() <= 1 { self.skip } else { 0 };
        marker.col() + 1 + skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(node: &Node, out: &mut Vec<(String, usize, usize, usize)>) {
        let mut push = |text: &str, o: Origin| out.push((text.to_owned(), o.line, o.column, o.length));
        match &node.kind {
            Kind::Scalar { text, .. } => push(text, node.origin),
            Kind::Seq(items) => items.iter().for_each(|item| places(item, out)),
            Kind::Map(entries) => {
                for (key, value) in entries {
                    let o = key.origin;
                    out.push((key.text.clone(), o.line, o.column, o.length));
                    places(value, out);
                }
            }
        }
    }

    #[test]
    fn every_key_and_scalar_knows_its_place() {
        let text = "a: 1   # one\nliste:\n  - {x: 'q r', é: 2.5}\n  - plain text # c\nempty:\nlast: 3\n";
        let node = parse_text("t.yaml", text, &mut Sources::default()).unwrap();
        let mut got = Vec::new();
        places(&node, &mut got);
        let expected = [
            ("a", 1, 1, 1),
            ("1", 1, 4, 1),
            ("liste", 2, 1, 5),
            ("x", 3, 6, 1),
            ("q r", 3, 9, 5),
            ("é", 3, 16, 1),
            ("2.5", 3, 19, 3),
            ("plain text", 4, 5, 10),
            ("empty", 5, 1, 5),
            ("", 5, 1, 5),
            ("last", 6, 1, 4),
            ("3", 6, 7, 1),
        ];
        let expected: Vec<_> = expected.iter().map(|(t, l, c, n)| ((*t).to_owned(), *l, *c, *n)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn files_from_other_systems_read_the_same() {
        let node = parse_text("t.yaml", "\u{feff}a: 1\r\nb:\r\n  - x\r\n", &mut Sources::default()).unwrap();
        assert_eq!(node.one_line(), "{a: 1, b: [x]}");
        assert_eq!(node.get("b").map(Node::describe).as_deref(), Some("a list"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let text = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let error = parse_text("t.yaml", &text, &mut Sources::default()).unwrap_err();
        assert_eq!(error.message(), "nested more than 64 levels deep");
    }
}
