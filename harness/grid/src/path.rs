//! Dotted paths into a cell, as sweeps, `--set` and conditions use them: `train.learning_rate`, `bim.neuron.beta`.

use super::RawCell;
use super::error::{ConfigResult, Origin, Sources};
use super::node::{Key, Node};

/// The names a grid gives to its tasks and models.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of tasks.
    pub tasks: Vec<String>,
    /// Of models.
    pub models: Vec<String>,
}

impl Names {
    /// What a path may start with.
    fn starts(&self) -> Vec<&str> {
        let names = self.models.iter().chain(&self.tasks).map(String::as_str);
        ["train", "model", "task"].into_iter().chain(names).collect()
    }
}

/// The part of a cell that a path leads into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Keys of the task.
    Task,
    /// Keys of the model.
    Model,
    /// Keys of training.
    Train,
}

/// A path whose first part is known to mean something.
#[derive(Clone, Debug)]
pub struct Target {
    /// The path as written.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
    tree: Tree,
    /// The only model it concerns.
    model: Option<String>,
    /// The only task it concerns.
    task: Option<String>,
    keys: Vec<Key>,
}

impl Target {
    /// Reads a path; `others` are words that could have stood in its place.
    pub fn parse(path: &Key, names: &Names, others: &[&str], sources: &Sources) -> ConfigResult<Self> {
        let mut keys = parts(path);
        if let Some(empty) = keys.iter().find(|key| key.text.is_empty()) {
            return Err(sources.error(empty.origin, format!("a part of the path `{}` is empty", path.text)));
        }
        let first = keys.remove(0);
        let mut target =
            Self { text: path.text.clone(), origin: path.origin, tree: Tree::Model, model: None, task: None, keys };
        match first.text.as_str() {
            "train" => target.tree = Tree::Train,
            "model" => {}
            "task" => target.tree = Tree::Task,
            name if names.models.iter().any(|n| n == name) => target.model = Some(first.text),
            name if names.tasks.iter().any(|n| n == name) => {
                target.tree = Tree::Task;
                target.task = Some(first.text);
            }
            unknown => {
                let error = sources.error(first.origin, format!("nothing in this grid is called `{unknown}`"));
                let known: Vec<&str> = others.iter().copied().chain(names.starts()).collect();
                return Err(error.expected_one_of(unknown, &known));
            }
        }
        if target.tree != Tree::Train && target.keys.first().is_some_and(|key| key.text == "train") {
            target.tree = Tree::Train;
            target.keys.remove(0);
        }
        if target.keys.is_empty() {
            let error = sources.error(path.origin, format!("the path `{}` names no key", path.text));
            return Err(error.help(format!("write `{}.KEY`", path.text)));
        }
        Ok(target)
    }

    /// [`Target::parse`] for a path that a value is given to.
    pub fn parse_assignable(path: &Key, names: &Names, others: &[&str], sources: &Sources) -> ConfigResult<Self> {
        let target = Self::parse(path, names, others, sources)?;
        let fixed = ["kind", "name", "only", "tasks"];
        match target.keys.first() {
            Some(key) if target.tree != Tree::Train && fixed.contains(&key.text.as_str()) => {
                let message = format!("`{}` of a task or model cannot be changed by a path", key.text);
                Err(sources.error(key.origin, message).help("list another task or model instead"))
            }
            _ => Ok(target),
        }
    }

    /// The part of a cell it leads into.
    pub fn tree(&self) -> Tree {
        self.tree
    }

    /// Whether it concerns this task and model.
    pub fn applies(&self, task: &str, model: &str) -> bool {
        self.model.as_deref().is_none_or(|m| m == model) && self.task.as_deref().is_none_or(|t| t == task)
    }

    /// Whether both lead to the same key (of tasks and models that both concern).
    pub fn same_key(&self, other: &Self) -> bool {
        self.tree == other.tree && self.keys.iter().map(|k| &k.text).eq(other.keys.iter().map(|k| &k.text))
    }

    /// A mapping that holds nothing but `value` at this path.
    pub fn overlay(&self, value: &Node) -> Node {
        let wrap = |inner: Node, key: &Key| Node::map(key.origin, vec![(key.clone(), inner)]);
        self.keys.iter().rev().fold(value.clone(), wrap)
    }

    /// The value here in a cell, if it concerns the cell and the cell has the key.
    pub fn find<'a>(&self, cell: &'a RawCell) -> Option<&'a Node> {
        if !self.applies(cell.task_name(), cell.model_name()) {
            return None;
        }
        self.keys.iter().try_fold(self.tree_of(cell), |node, key| node.get(&key.text))
    }

    /// The paths of all values that this one could have meant in a cell it concerns.
    pub fn siblings(&self, cell: &RawCell) -> Vec<String> {
        let mut paths = Vec::new();
        if self.applies(cell.task_name(), cell.model_name()) {
            let keys_length: usize = self.keys.iter().map(|key| key.text.len() + 1).sum();
            let prefix = self.text.len().checked_sub(keys_length).and_then(|at| self.text.get(..at)).unwrap_or("");
            leaves(self.tree_of(cell), prefix, &mut paths);
        }
        paths
    }

    fn tree_of<'a>(&self, cell: &'a RawCell) -> &'a Node {
        match self.tree {
            Tree::Task => &cell.task,
            Tree::Model => &cell.model,
            Tree::Train => &cell.train,
        }
    }
}

/// The parts between the dots, each with its own place if the path is written as it is meant.
fn parts(path: &Key) -> Vec<Key> {
    let length = path.text.chars().count();
    let quotes = path.origin.length.checked_sub(length).filter(|extra| [0, 2].contains(extra)).map(|extra| extra / 2);
    let mut skip = 0;
    let mut keys = Vec::new();
    for part in path.text.split('.') {
        let part_length = part.chars().count();
        let origin = quotes.map_or(path.origin, |quote| path.origin.part(quote + skip, part_length));
        keys.push(Key { text: part.to_owned(), origin });
        skip += part_length + 1;
    }
    keys
}

fn leaves(node: &Node, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in node.entries() {
        let path = format!("{prefix}.{}", key.text);
        leaves(value, &path, out);
        out.push(path);
    }
}

/// One name or a list of names, each of which has to be known.
pub fn known_names(node: &Node, what: &str, known: &[String], sources: &Sources) -> ConfigResult<Vec<String>> {
    let one = std::slice::from_ref(node);
    let items = match &node.kind {
        super::node::Kind::Seq(_) => super::read::expect_list(node, what, sources)?,
        _ => one,
    };
    let check = |item: &Node| match item.scalar() {
        Some(name) if known.iter().any(|k| k == name) => Ok(name.to_owned()),
        Some(name) => {
            let error = sources.error(item.origin, format!("this grid has no {what} `{name}`"));
            Err(error.expected_one_of(name, known))
        }
        None => Err(sources.error(item.origin, format!("expected the name of a {what}, got {}", item.describe()))),
    };
    items.iter().map(check).collect()
}
