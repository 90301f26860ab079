//! A YAML tree in which every key and value knows where it was written.

use super::error::Origin;
use serde_yaml::Value;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it was written; for a mapping or list, where it begins.
    pub origin: Origin,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A number, text, truth value or nothing.
    Scalar {
        /// As written, without quotes.
        text: String,
        /// Whether quotes (or a block style) make it text whatever it looks like.
        quoted: bool,
    },
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the order of the file; no key occurs twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

fn write_canonical(value: &Value, out: &mut String) {
    use std::fmt::Write;
    match value {
        Value::Sequence(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Mapping(entries) => {
            let mut entries: Vec<(&str, &Value)> =
                entries.iter().map(|(key, value)| (key.as_str().unwrap_or_default(), value)).collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                let _ = write!(out, "{key:?}:"); // writing to a String cannot fail
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        // text is quoted, so that `"1"` is no number
        Value::String(text) => drop(write!(out, "{text:?}")),
        Value::Number(number) => drop(write!(out, "{number}")),
        Value::Bool(value) => drop(write!(out, "{value}")),
        Value::Null => out.push('~'),
        Value::Tagged(tagged) => {
            let _ = write!(out, "!{} ", tagged.tag);
            write_canonical(&tagged.value, out);
        }
    }
}

impl Node {
    /// A mapping.
    pub fn map(origin: Origin, entries: Vec<(Key, Node)>) -> Self {
        Self { origin, kind: Kind::Map(entries) }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of a key of a mapping.
    pub fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        self.entries().iter().find(|(k, _)| k.text == key)
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Takes a key and its value out of a mapping.
    pub fn take(&mut self, key: &str) -> Option<(Key, Node)> {
        match &mut self.kind {
            Kind::Map(entries) => {
                let at = entries.iter().position(|(k, _)| k.text == key)?;
                Some(entries.remove(at))
            }
            _ => None,
        }
    }

    /// The text of a scalar, as written.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether this is `null`, `~` or left out.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if resolve(text).is_null())
    }

    /// The same tree without places; plain scalars become what YAML 1.2's core schema says,
    /// and digits may be grouped (`4_000_000`).
    pub fn to_yaml(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, quoted: true } => Value::String(text.clone()),
            Kind::Scalar { text, quoted: false } => resolve(text),
            Kind::Seq(items) => Value::Sequence(items.iter().map(Self::to_yaml).collect()),
            Kind::Map(entries) => Value::Mapping(
                entries.iter().map(|(key, value)| (Value::String(key.text.clone()), value.to_yaml())).collect(),
            ),
        }
    }

    /// Text that is the same for equal values and for no others, whatever the order of keys.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        write_canonical(&self.to_yaml(), &mut text);
        text
    }

    /// On one line: a scalar as written, anything else in flow style.
    pub fn one_line(&self) -> String {
        match &self.kind {
            Kind::Scalar { text, .. } => text.clone(),
            Kind::Seq(items) => format!("[{}]", items.iter().map(Self::one_line).collect::<Vec<_>>().join(", ")),
            Kind::Map(entries) => {
                let entry = |(key, value): &(Key, Node)| format!("{}: {}", key.text, value.one_line());
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// In words, for "expected …, got …".
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Scalar { text, quoted } => match self.to_yaml() {
                Value::Null => "nothing".to_owned(),
                Value::Bool(_) => format!("`{text}`"),
                Value::Number(_) => format!("number `{text}`"),
                _ if *quoted => format!("quoted text `{text}`"),
                _ => format!("text `{text}`"),
            },
            Kind::Seq(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// What a plain scalar means under YAML 1.2's core schema, with two additions: digits may be grouped by underscores
/// (`4_000_000`), and a whole number may be written with an exponent (`1e6` is 1000000).
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::from(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::from(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::from(f64::NEG_INFINITY),
        _ => {}
    }
    let number = ungrouped(text).and_then(|digits| integer(&digits).or_else(|| float(&digits)));
    number.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Without underscores; `None` if one of them does not stand between two digits.
fn ungrouped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit_at = |at: Option<usize>| at.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let grouped = |i: usize| digit_at(i.checked_sub(1)) && digit_at(i.checked_add(1));
    let well_placed = bytes.iter().enumerate().all(|(i, byte)| *byte != b'_' || grouped(i));
    well_placed.then(|| text.replace('_', ""))
}

fn integer(text: &str) -> Option<Value> {
    let based = |digits: &str, radix| {
        // `from_str_radix` would accept a sign here.
        let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Value::from)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return based(digits, 8);
    }
    text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from)).ok()
}

fn float(text: &str) -> Option<Value> {
    // 2^53: the whole numbers up to here are exact in an f64.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Rust would also read `inf`, `nan` and `infinity`.
    let starts_as_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let value = text.parse::<f64>().ok().filter(|_| starts_as_number)?;
    let whole = text.contains(['e', 'E']) && value.fract() == 0.0 && value.abs() <= EXACT;
    Some(if whole && value >= 0.0 {
        Value::from(value as u64)
    } else if whole {
        Value::from(value as i64)
    } else {
        Value::from(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let cases: [(&str, Value); 22] = [
            ("4_000_000", Value::from(4_000_000_u64)),
            ("1e6", Value::from(1_000_000_u64)),
            ("-2E3", Value::from(-2000_i64)),
            ("2.5e-3", Value::from(0.0025)),
            ("1_000.5", Value::from(1000.5)),
            ("1.0", Value::from(1.0)),
            (".5", Value::from(0.5)),
            ("0x1F", Value::from(31_u64)),
            ("0o17", Value::from(15_u64)),
            ("010", Value::from(10_u64)),
            ("-7", Value::from(-7_i64)),
            ("18446744073709551615", Value::from(u64::MAX)),
            ("true", Value::Bool(true)),
            ("~", Value::Null),
            ("-.inf", Value::from(f64::NEG_INFINITY)),
            // YAML 1.1 would make these truth values or a number in base 60; Rust would make `inf` a number.
            ("yes", Value::from("yes")),
            ("off", Value::from("off")),
            ("12:30", Value::from("12:30")),
            ("inf", Value::from("inf")),
            ("_1", Value::from("_1")),
            ("1__0", Value::from("1__0")),
            ("1.2.3", Value::from("1.2.3")),
        ];
        for (text, expected) in cases {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }
}
