//! What the command line says about a grid: `--set path=value` and `--only EXPR`; and the conditions that `exclude`
//! shares with `--only`.

use super::RawCell;
use super::error::{ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use super::parse::parse_part;
use super::path::{Names, Target, known_names};
use super::read::expect_list;
use serde_yaml::Value;

/// A parsed `--set`.
#[derive(Clone, Debug)]
pub enum Setting {
    /// A value for a path.
    Path(Target, Node),
    /// Other seeds.
    Seeds(Node),
}

/// Reads one `--set path=value`; the value is YAML.
pub fn parse_set(text: &str, names: &Names, sources: &mut Sources) -> ConfigResult<Setting> {
    let source = sources.add_argument("--set", text);
    let whole = Origin { source, line: 1, column: 1, length: text.chars().count().max(1) };
    let Some((path, value)) = text.split_once('=') else {
        return Err(sources.error(whole, "expected path=value").help("write `--set train.seen=100000`"));
    };
    let path_length = path.chars().count();
    if value.trim().is_empty() {
        let origin = whole.part(path_length, 1);
        return Err(sources.error(origin, "the value is missing").help("write `null` for nothing"));
    }
    let value = parse_part(source, path_length + 1, sources)?;
    let key = trimmed(path, whole.part(0, path_length));
    if key.text == "seeds" {
        return Ok(Setting::Seeds(value));
    }
    Ok(Setting::Path(Target::parse_assignable(&key, names, &["seeds"], sources)?, value))
}

/// What a condition looks at.
#[derive(Clone, Debug)]
enum Field {
    Task,
    Model,
    /// The kind of the task or of the model.
    Kind,
    Seed,
    Path(Target),
}

/// One condition on a cell: it has, or has not, one of some values.
#[derive(Clone, Debug)]
pub struct Condition {
    key: Key,
    field: Field,
    negated: bool,
    values: Vec<Node>,
}

impl Condition {
    /// Reads an entry of an `exclude` rule: a value, or a list of alternatives.
    pub fn parse(key: &Key, value: &Node, names: &Names, sources: &Sources) -> ConfigResult<Self> {
        let field = Field::parse(key, names, sources)?;
        match field {
            Field::Task => drop(known_names(value, "task", &names.tasks, sources)?),
            Field::Model => drop(known_names(value, "model", &names.models, sources)?),
            _ => {}
        }
        let values = match &value.kind {
            Kind::Seq(_) => expect_list(value, &format!("`{}` in `exclude`", key.text), sources)?.to_vec(),
            _ => vec![value.clone()],
        };
        Ok(Self { key: key.clone(), field, negated: false, values })
    }

    /// Whether a cell meets it. A cell that lacks the key has none of the values.
    pub fn matches(&self, cell: &RawCell) -> bool {
        let has = self.field.of(cell);
        let any = self.values.iter().any(|value| has.iter().any(|have| have.is(value)));
        any != self.negated
    }

    /// Refuses a key that none of the cells has: the condition could never be met.
    pub fn check_key(&self, cells: &[RawCell], sources: &Sources) -> ConfigResult<()> {
        if cells.iter().any(|cell| !self.field.of(cell).is_empty()) {
            return Ok(());
        }
        let mut known = Vec::new();
        if let Field::Path(target) = &self.field {
            known = cells.iter().flat_map(|cell| target.siblings(cell)).collect();
            known.sort();
            known.dedup();
        }
        let error = sources.error(self.key.origin, format!("no cell gives `{}` a value", self.key.text));
        Err(error.did_you_mean(&self.key.text, &known).note("only what a grid writes can be a condition, not defaults"))
    }

    /// Refuses values that none of the cells has.
    fn check_values(&self, cells: &[RawCell], sources: &Sources) -> ConfigResult<()> {
        let mut known: Vec<Have> = Vec::new();
        for have in cells.iter().flat_map(|cell| self.field.of(cell)) {
            if !known.contains(&have) {
                known.push(have);
            }
        }
        let Some(unknown) = self.values.iter().find(|value| !known.iter().any(|have| have.is(value))) else {
            return Ok(());
        };
        let text = unknown.one_line();
        let known: Vec<String> = known.into_iter().map(|have| have.text).collect();
        let error = sources.error(unknown.origin, format!("no cell has `{}` = `{text}`", self.key.text));
        Err(error.expected_one_of(&text, &known))
    }
}

impl Field {
    fn parse(key: &Key, names: &Names, sources: &Sources) -> ConfigResult<Self> {
        Ok(match key.text.as_str() {
            "task" => Self::Task,
            "model" => Self::Model,
            "kind" => Self::Kind,
            "seed" => Self::Seed,
            _ => Self::Path(Target::parse(key, names, &["seed", "kind"], sources)?),
        })
    }

    fn of(&self, cell: &RawCell) -> Vec<Have> {
        let name = |text: &str| Have { text: text.to_owned(), value: Value::from(text) };
        let kind = |node: &Node| node.get("kind").and_then(Node::scalar).map(name);
        match self {
            Self::Task => vec![name(cell.task_name())],
            Self::Model => vec![name(cell.model_name())],
            Self::Kind => [kind(&cell.task), kind(&cell.model)].into_iter().flatten().collect(),
            Self::Seed => vec![Have { text: cell.seed.to_string(), value: Value::from(cell.seed) }],
            Self::Path(target) => target
                .find(cell)
                .map(|node| Have { text: node.one_line(), value: node.to_yaml() })
                .into_iter()
                .collect(),
        }
    }
}

/// A value that a cell has.
#[derive(PartialEq)]
struct Have {
    text: String,
    value: Value,
}

impl Have {
    /// Equal as text or as a number: `0.5`, `5e-1` and `.5` are one.
    fn is(&self, wanted: &Node) -> bool {
        let value = wanted.to_yaml();
        let numbers = || self.value.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| a.total_cmp(&b).is_eq());
        wanted.scalar() == Some(self.text.as_str()) || self.value == value || numbers()
    }
}

/// Which cells meet `--only EXPR`, such as `model=bim|lstm,seed!=1`; some do.
pub fn chosen(expression: &str, names: &Names, cells: &[RawCell], sources: &mut Sources) -> ConfigResult<Vec<bool>> {
    let source = sources.add_argument("--only", expression);
    let whole = Origin { source, line: 1, column: 1, length: expression.chars().count().max(1) };
    let mut conditions = Vec::new();
    for part in pieces(expression, ',', whole) {
        let condition = parse_condition(&part, names, sources)?;
        condition.check_key(cells, sources)?;
        condition.check_values(cells, sources)?;
        conditions.push(condition);
    }
    let kept: Vec<bool> = cells.iter().map(|cell| conditions.iter().all(|condition| condition.matches(cell))).collect();
    if !kept.contains(&true) {
        return Err(sources.error(whole, "no cell meets all of these conditions"));
    }
    Ok(kept)
}

fn parse_condition(part: &Key, names: &Names, sources: &Sources) -> ConfigResult<Condition> {
    let usage = "write `model=bim|lstm,seed!=1`: conditions joined by `,`, alternatives by `|`";
    let Some((left, right)) = part.text.split_once('=') else {
        return Err(sources.error(part.origin, "expected a condition key=value").help(usage));
    };
    let (left, negated) = left.strip_suffix('!').map_or((left, false), |left| (left, true));
    let right_at = part.text.chars().count() - right.chars().count();
    let key = trimmed(left, part.origin.part(0, left.chars().count()));
    let values = pieces(right, '|', part.origin.part(right_at, right.chars().count()));
    if let Some(empty) = std::iter::once(&key).chain(&values).find(|piece| piece.text.is_empty()) {
        return Err(sources.error(empty.origin, "a key or value is missing here").help(usage));
    }
    let field = Field::parse(&key, names, sources)?;
    let scalar = |Key { text, origin }| Node { origin, kind: Kind::Scalar { text, quoted: false } };
    Ok(Condition { key, field, negated, values: values.into_iter().map(scalar).collect() })
}

/// The parts between separators, each with its own place, without spaces around it.
fn pieces(text: &str, separator: char, origin: Origin) -> Vec<Key> {
    let mut skip = 0;
    let mut out = Vec::new();
    for piece in text.split(separator) {
        let length = piece.chars().count();
        out.push(trimmed(piece, origin.part(skip, length)));
        skip += length + 1;
    }
    out
}

fn trimmed(text: &str, origin: Origin) -> Key {
    let skip = text.chars().take_while(|c| c.is_whitespace()).count();
    let text = text.trim();
    Key { text: text.to_owned(), origin: origin.part(skip, text.chars().count()) }
}
