//! Nodes → typed values. Serde says what is wrong, its path says where, and this file puts both in the user's words.

use super::error::{ConfigError, ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// Reads a typed value.
///
/// # Errors
/// Whatever the type refuses: unknown, missing and out-of-range values, at the place where they were written.
pub fn read<T: DeserializeOwned>(node: &Node, sources: &Sources) -> ConfigResult<T> {
    read_as(node, "", sources)
}

/// [`read`] with a name for the whole, as in ``model `bim` ``, for messages about its keys.
///
/// # Errors
/// As [`read`].
pub fn read_as<T: DeserializeOwned>(node: &Node, what: &str, sources: &Sources) -> ConfigResult<T> {
    serde_path_to_error::deserialize(node.to_yaml()).map_err(|e| {
        let place = Place::find(node, e.path());
        explain(&e.inner().to_string(), &place, what, sources)
    })
}

/// Takes the `kind` key out of a mapping, and says which of the known kinds it is.
///
/// # Errors
/// If it is missing, not text or unknown.
pub fn take_kind(node: &Node, known: &[&str], sources: &Sources) -> ConfigResult<(String, Node)> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Err(sources.error(node.origin, format!("expected a mapping with a `kind`, got {}", node.describe())));
    }
    let mut rest = node.clone();
    let Some((_, kind)) = rest.take("kind") else {
        return Err(sources.error(node.origin, "missing key `kind`").expected_one_of("", known));
    };
    match kind.scalar() {
        Some(text) if known.contains(&text) => Ok((text.to_owned(), rest)),
        Some(text) => {
            let error = sources.error(kind.origin, format!("unknown kind `{text}`"));
            Err(error.expected_one_of(text, known))
        }
        None => Err(sources.error(kind.origin, format!("expected the name of a kind, got {}", kind.describe()))),
    }
}

/// Refuses keys that are not known; `what` names the mapping, as in ``model `bim` ``.
pub(super) fn check_keys(map: &Node, known: &[&str], what: &str, sources: &Sources) -> ConfigResult<()> {
    match map.entries().iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
        None => Ok(()),
        Some((key, _)) => {
            let error = sources.error(key.origin, format!("unknown key `{}`{}", key.text, inside(what)));
            Err(error.expected_one_of(&key.text, known))
        }
    }
}

/// A mapping; nothing counts as an empty one.
pub(super) fn expect_map(node: &Node, what: &str, sources: &Sources) -> ConfigResult<Node> {
    match &node.kind {
        Kind::Map(_) => Ok(node.clone()),
        _ if node.is_null() => Ok(Node::map(node.origin, Vec::new())),
        _ => Err(sources.error(node.origin, format!("{what}: expected a mapping, got {}", node.describe()))),
    }
}

/// A list with at least one item.
pub(super) fn expect_list<'a>(node: &'a Node, what: &str, sources: &Sources) -> ConfigResult<&'a [Node]> {
    match &node.kind {
        Kind::Seq(items) if items.is_empty() => {
            Err(sources.error(node.origin, format!("{what}: the list is empty")).help("leave the key out, or fill it"))
        }
        Kind::Seq(items) => Ok(items),
        _ => Err(sources.error(node.origin, format!("{what}: expected a list, got {}", node.describe()))),
    }
}

fn inside(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" in {what}") }
}

/// Where serde's path leads.
struct Place<'a> {
    /// The value the path ends at, or the mapping that was to hold it.
    node: &'a Node,
    /// The last key on the way.
    key: Option<&'a Key>,
    /// The key before it: the mapping that holds it.
    holder: Option<&'a Key>,
}

impl<'a> Place<'a> {
    fn find(root: &'a Node, path: &Path) -> Self {
        let mut place = Place { node: root, key: None, holder: None };
        for segment in path {
            let next = match (segment, &place.node.kind) {
                (Segment::Seq { index }, Kind::Seq(items)) => items.get(*index).map(|item| (None, item)),
                (Segment::Map { key }, _) => place.node.entry(key).map(|(key, value)| (Some(key), value)),
                _ => None,
            };
            let Some((key, node)) = next else { break };
            if key.is_some() {
                place.holder = place.key;
                place.key = key;
            }
            place.node = node;
        }
        place
    }

    /// Where an unknown key was written. Serde loses the way to it inside flattened and tagged types.
    fn key_named(&self, name: &str) -> Option<&'a Key> {
        self.key.filter(|key| key.text == name).or_else(|| deep_key(self.node, name))
    }
}

fn deep_key<'a>(node: &'a Node, name: &str) -> Option<&'a Key> {
    match &node.kind {
        Kind::Map(entries) => {
            entries.iter().find_map(|(key, value)| if key.text == name { Some(key) } else { deep_key(value, name) })
        }
        Kind::Seq(items) => items.iter().find_map(|item| deep_key(item, name)),
        Kind::Scalar { .. } => None,
    }
}

fn explain(message: &str, place: &Place, what: &str, sources: &Sources) -> ConfigError {
    let at = |origin: Origin, text: String| sources.error(origin, text);
    let of = |key: Option<&Key>| key.map_or(inside(what), |k| format!(" in `{}`", k.text));
    if let Some((name, rest)) = quoted(message, "unknown field `") {
        let key = place.key_named(name);
        let holder = if key == place.key { place.holder } else { place.key };
        let origin = key.map_or(place.node.origin, |k| k.origin);
        return at(origin, format!("unknown key `{name}`{}", of(holder))).expected_one_of(name, &names(rest));
    }
    if let Some((name, rest)) = quoted(message, "unknown variant `") {
        let of_key = place.key.map_or_else(String::new, |k| format!(" for `{}`", k.text));
        let error = at(place.node.origin, format!("unknown value `{name}`{of_key}"));
        return error.expected_one_of(name, &names(rest));
    }
    if let Some((name, _)) = quoted(message, "missing field `") {
        return at(place.node.origin, format!("missing key `{name}`{}", of(place.key)));
    }
    if message.starts_with("data did not match any variant of untagged enum") {
        let of_key = place.key.map_or_else(String::new, |k| format!(" of `{}`", k.text));
        return at(place.node.origin, format!("{} is none of the accepted forms{of_key}", place.node.describe()));
    }
    at(place.node.origin, mismatch(message, place.node).unwrap_or_else(|| message.to_owned()))
}

/// Serde's "invalid …: GOT, expected WHAT" in the user's words.
fn mismatch(message: &str, node: &Node) -> Option<String> {
    if let Some(rest) = message.strip_prefix("invalid length ") {
        let (length, expected) = rest.split_once(", expected ")?;
        return Some(format!("expected {}, got {length} values", in_words(expected)));
    }
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (got, expected) = rest.rsplit_once(", expected ")?;
    Some(format!("expected {}, got {}", in_words(expected), got_in_words(got, node)))
}

/// The value at the end of serde's path if it is what serde speaks of, else serde's words for it.
fn got_in_words(got: &str, node: &Node) -> String {
    let is_node = match &node.kind {
        Kind::Scalar { .. } => !(got == "map" || got == "sequence"),
        Kind::Seq(_) => got == "sequence",
        Kind::Map(_) => got == "map",
    };
    if is_node {
        return node.describe();
    }
    let number = ["integer ", "floating point "].iter().find_map(|prefix| got.strip_prefix(prefix));
    match (got, number) {
        (_, Some(number)) => format!("number {number}"),
        ("map", _) => "a mapping".to_owned(),
        ("sequence", _) => "a list".to_owned(),
        ("unit value", _) => "nothing".to_owned(),
        _ => got.strip_prefix("string ").map_or(got.to_owned(), |text| format!("text {}", text.replace('"', "`"))),
    }
}

/// What a type accepts. Serde names Rust's types; grids have numbers, text, lists and mappings.
fn in_words(expected: &str) -> String {
    let counted = ["an array of length ", "a tuple of size "].iter().find_map(|p| expected.strip_prefix(p));
    if let Some(length) = counted {
        return format!("a list of {length} values");
    }
    if expected.starts_with("struct ") || expected == "a map" {
        return "a mapping".to_owned();
    }
    if let Some(inner) = expected.strip_prefix("a nonzero ") {
        let most = most(inner).map_or(" up".to_owned(), |most| format!(" to {most}"));
        return if inner.starts_with('u') {
            format!("a whole number from 1{most}")
        } else {
            "a whole number other than 0".to_owned()
        };
    }
    match expected {
        "u64" | "usize" | "u128" => "a whole number from 0 up".to_owned(),
        "u8" | "u16" | "u32" => most(expected).map_or(expected.to_owned(), |n| format!("a whole number from 0 to {n}")),
        "i8" => format!("a whole number from {} to {}", i8::MIN, i8::MAX),
        "i16" => format!("a whole number from {} to {}", i16::MIN, i16::MAX),
        "i32" => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        "i64" | "isize" | "i128" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" | "a borrowed string" => "text".to_owned(),
        "a character" => "a single character".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "path string" => "a path".to_owned(),
        "unit" => "nothing".to_owned(),
        "a Value::Tagged enum" => "one of a few names".to_owned(),
        other => other.to_owned(),
    }
}

fn most(unsigned: &str) -> Option<u64> {
    match unsigned {
        "u8" => Some(u8::MAX.into()),
        "u16" => Some(u16::MAX.into()),
        "u32" => Some(u32::MAX.into()),
        _ => None,
    }
}

/// The backquoted word behind `prefix`, and what follows it.
fn quoted<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(prefix)?.rsplit_once("`, expected ").or_else(|| {
        let (name, rest) = message.strip_prefix(prefix)?.split_once('`')?;
        Some((name, rest))
    })
}

/// The backquoted words of serde's list of what it expected.
fn names(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_text;
    use super::*;
    use serde::Deserialize;

    struct Share;
    impl TryFrom<f64> for Share {
        type Error = String;
        fn try_from(x: f64) -> Result<Self, String> {
            let fits = (0.0..=1.0).contains(&x);
            fits.then_some(Self).ok_or_else(|| format!("expected a number from 0 to 1, got {x}"))
        }
    }
    impl<'de> Deserialize<'de> for Share {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            Self::try_from(f64::deserialize(from)?).map_err(serde::de::Error::custom)
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Reset {
        Subtract,
        Leaky,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Neuron {
        beta: Option<Share>,
        reset: Option<Reset>,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Width {
        One(u64),
        Each(Vec<u64>),
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Model {
        lambda: f64,
        layers: Option<usize>,
        blocks: Option<Vec<Neuron>>,
        neuron: Option<Neuron>,
        bias: Option<bool>,
        name: Option<String>,
        pair: Option<[f64; 2]>,
        width: Option<Width>,
        small: Option<u8>,
        some: Option<std::num::NonZeroU32>,
    }

    fn problem(text: &str) -> String {
        let mut sources = Sources::default();
        let node = parse_text("m.yaml", text, &mut sources).unwrap();
        read_as::<Model>(&node, "model `bim`", &sources).err().unwrap().to_string()
    }

    #[test]
    fn serde_errors_are_placed_and_put_in_words() {
        let keys = "`lambda`, `layers`, `blocks`, `neuron`, `bias`, `name`, `pair`, `width`, `small`, `some`";
        let cases = [
            (
                "lamda: 0.5\n",
                "1:1",
                "lamda: 0.5\n^^^^^",
                "unknown key `lamda` in model `bim`",
                format!("= expected one of {keys}\n= help: did you mean `lambda`?"),
            ),
            (
                "lambda: 1\nneuron: {bta: 1}\n",
                "2:10",
                "neuron: {bta: 1}\n         ^^^",
                "unknown key `bta` in `neuron`",
                "= expected one of `beta`, `reset`\n= help: did you mean `beta`?".to_owned(),
            ),
            (
                "lambda: 1\nblocks:\n  - beta: 0.5\n  - beta: 1.5\n",
                "4:11",
                "  - beta: 1.5\n          ^^^",
                "expected a number from 0 to 1, got 1.5",
                String::new(),
            ),
            (
                "lambda: 1\nneuron: {reset: leeky}\n",
                "2:17",
                "neuron: {reset: leeky}\n                ^^^^^",
                "unknown value `leeky` for `reset`",
                "= expected one of `subtract`, `leaky`\n= help: did you mean `leaky`?".to_owned(),
            ),
            ("layers: 2\n", "1:1", "layers: 2\n^", "missing key `lambda` in model `bim`", String::new()),
        ];
        for (text, place, shown, message, notes) in cases {
            let (line, carets) = shown.split_once('\n').unwrap();
            let number = place.split_once(':').unwrap().0;
            let notes: Vec<String> = notes.lines().map(|n| format!("\n  {n}")).collect();
            let notes = notes.concat();
            let expected =
                format!("error: {message}\n --> m.yaml:{place}\n  |\n{number} | {line}\n  | {carets}{notes}");
            assert_eq!(problem(text), expected);
        }
    }

    #[test]
    fn wrong_types_read_well() {
        let cases = [
            ("layers: abc", "expected a whole number from 0 up, got text `abc`"),
            ("layers: 1.5", "expected a whole number from 0 up, got number `1.5`"),
            ("layers: -1_000", "expected a whole number from 0 up, got number `-1_000`"),
            ("layers: '3'", "expected a whole number from 0 up, got quoted text `3`"),
            ("layers: [1]", "expected a whole number from 0 up, got a list"),
            ("small: 256", "expected a whole number from 0 to 255, got number `256`"),
            ("some: 0", "expected a whole number from 1 to 4294967295, got number `0`"),
            ("neuron: {beta: true}", "expected a number, got `true`"),
            ("neuron: 5", "expected a mapping, got number `5`"),
            ("bias: yes", "expected `true` or `false`, got text `yes`"),
            ("name: 5", "expected text, got number `5`"),
            ("pair: [1]", "expected a list of 2 values, got 1 values"),
            ("blocks: {}", "expected a list, got a mapping"),
            ("neuron: {reset: 5}", "expected one of a few names, got number `5`"),
            ("width: none", "text `none` is none of the accepted forms of `width`"),
        ];
        for (line, message) in cases {
            let shown = problem(&format!("lambda: 1\n{line}\n"));
            assert!(shown.starts_with(&format!("error: {message}\n --> m.yaml:2:")), "{line}: {shown}");
        }
    }

    #[test]
    fn a_kind_is_taken_out_or_refused() {
        let mut sources = Sources::default();
        let node = parse_text("m.yaml", "kind: bim\nwidth: 3\n", &mut sources).unwrap();
        let (kind, rest) = take_kind(&node, &["lstm", "bim"], &sources).unwrap();
        assert_eq!((kind.as_str(), rest.one_line().as_str()), ("bim", "{width: 3}"));
        let error = take_kind(&node, &["bin", "lstm"], &sources).unwrap_err().to_string();
        let expected = "error: unknown kind `bim`\n --> m.yaml:1:7\n  |\n1 | kind: bim\n  |       ^^^\n  \
                        = expected one of `bin`, `lstm`\n  = help: did you mean `bin`?";
        assert_eq!(error, expected);
    }
}
