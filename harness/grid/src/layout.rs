//! A grid file's tree → its tasks, models and scales, with every key checked that this language owns. Keys of tasks,
//! models and training are left for those who know them.

use super::error::{ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use super::path::{Names, known_names};
use super::read::{check_keys, expect_list, expect_map};

/// Words that paths, conditions and grids use themselves.
const RESERVED: [&str; 14] = [
    "train",
    "task",
    "model",
    "tasks",
    "models",
    "seed",
    "seeds",
    "kind",
    "zip",
    "product",
    "include",
    "exclude",
    "scale",
    "experiment",
];

/// Keys laid over those of a task or model.
#[derive(Clone, Debug)]
pub struct Overrides {
    /// Its own keys.
    pub body: Node,
    /// Keys of training.
    pub train: Option<Node>,
    /// Of a model: further keys on one task.
    tasks: Vec<(String, Overrides)>,
}

/// A task or model in the list of them.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the grid.
    pub name: String,
    /// Of a model: the only tasks it is run on.
    pub only: Option<Vec<String>>,
    /// Its keys, `kind` and `name` among them.
    pub base: Overrides,
}

/// A named scale.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Its name.
    pub name: String,
    /// Other seeds.
    pub seeds: Option<Vec<u64>>,
    /// Over all training.
    pub train: Option<Node>,
    task: Option<Overrides>,
    tasks: Vec<(String, Overrides)>,
    model: Option<Overrides>,
    models: Vec<(String, Overrides)>,
    /// Keys over those of `report`.
    pub report: Option<Node>,
}

impl Overrides {
    /// The keys for one task.
    pub fn on_task(&self, task: &str) -> Option<&Overrides> {
        named(&self.tasks, task)
    }

    fn parse(node: &Node, what: &str, of_model: bool, context: Context) -> ConfigResult<Self> {
        let mut body = expect_map(node, what, context.sources)?;
        if let Some((key, _)) = body.entries().iter().find(|(key, _)| ["kind", "name", "only"].contains(&&*key.text)) {
            let message = format!("`{}` cannot be changed in {what}", key.text);
            return Err(context.sources.error(key.origin, message).help("list another task or model instead"));
        }
        let train = take_train(&mut body, what, context.sources)?;
        let mut tasks = Vec::new();
        if of_model && let Some((_, node)) = body.take("tasks") {
            tasks = by_name(&node, what, "task", &context.names.tasks, false, context)?;
        }
        Ok(Self { body, train, tasks })
    }
}

impl Scale {
    /// Layers over a task, lowest first.
    pub fn over_task(&self, task: &str) -> impl Iterator<Item = &Overrides> {
        self.task.iter().chain(named(&self.tasks, task))
    }

    /// Layers over a model on a task, lowest first.
    pub fn over_model<'a>(&'a self, model: &str, task: &'a str) -> impl Iterator<Item = &'a Overrides> {
        self.model
            .iter()
            .chain(named(&self.models, model))
            .flat_map(move |over| [Some(over), over.on_task(task)])
            .flatten()
    }

    /// Reads an entry of `scales`.
    pub fn parse(key: &Key, node: &Node, context: Context) -> ConfigResult<Self> {
        let what = format!("scale `{}`", key.text);
        let sources = context.sources;
        let mut map = expect_map(node, &what, sources)?;
        check_keys(&map, &["seeds", "train", "task", "tasks", "model", "models", "report"], &what, sources)?;
        let train = take_train(&mut map, &what, sources)?;
        let of_all = |word: &str, of_model| {
            map.get(word).map(|n| Overrides::parse(n, &format!("`{word}` of {what}"), of_model, context)).transpose()
        };
        let of_named = |word: &str, singular, known, of_model| match map.get(word) {
            Some(node) => by_name(node, &what, singular, known, of_model, context),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            name: key.text.clone(),
            seeds: map.get("seeds").map(|node| parse_seeds(node, sources)).transpose()?,
            task: of_all("task", false)?,
            tasks: of_named("tasks", "task", &context.names.tasks, false)?,
            model: of_all("model", true)?,
            models: of_named("models", "model", &context.names.models, true)?,
            report: map.get("report").cloned(),
            train,
        })
    }
}

/// What reading overrides needs to know.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Tasks and models of the grid.
    pub names: &'a Names,
    /// The grid file itself, as opposed to the files that it extends.
    pub file: usize,
    /// For errors.
    pub sources: &'a Sources,
}

fn named<'a, T>(list: &'a [(String, T)], name: &str) -> Option<&'a T> {
    list.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

fn take_train(map: &mut Node, what: &str, sources: &Sources) -> ConfigResult<Option<Node>> {
    map.take("train").map(|(_, node)| expect_map(&node, &format!("`train` of {what}"), sources)).transpose()
}

/// Overrides by task or model name. An inherited file may speak of tasks and models that this grid does not have.
fn by_name(
    node: &Node,
    what: &str,
    singular: &str,
    known: &[String],
    of_model: bool,
    context: Context,
) -> ConfigResult<Vec<(String, Overrides)>> {
    let map = expect_map(node, &format!("`{singular}s` of {what}"), context.sources)?;
    let mut list = Vec::new();
    for (key, value) in map.entries() {
        if known.contains(&key.text) {
            let what = format!("{singular} `{}` of {what}", key.text);
            list.push((key.text.clone(), Overrides::parse(value, &what, of_model, context)?));
        } else if key.origin.source == context.file {
            let error = context.sources.error(key.origin, format!("this grid has no {singular} `{}`", key.text));
            return Err(error.expected_one_of(&key.text, known));
        }
    }
    Ok(list)
}

/// Reads `tasks:` or, as a list of one, `task:`.
pub fn parse_tasks(root: &Node, sources: &Sources) -> ConfigResult<Vec<Entry>> {
    let items = match (root.entry("task"), root.entry("tasks")) {
        (Some((key, _)), Some(_)) => {
            return Err(sources.error(key.origin, "`task` and `tasks` are both given").help("keep one of them"));
        }
        (None, None) => {
            return Err(sources.error(root.origin, "missing key `task` or `tasks`"));
        }
        (Some((_, node)), None) => std::slice::from_ref(node),
        (None, Some((_, node))) => expect_list(node, "`tasks`", sources)?,
    };
    let tasks: Vec<Entry> = items.iter().map(|item| parse_entry(item, "task", sources)).collect::<ConfigResult<_>>()?;
    refuse_twins(&tasks, &[], "task", sources)?;
    Ok(tasks)
}

/// Reads `models:`; `tasks` are those of the grid.
pub fn parse_models(root: &Node, tasks: &[Entry], sources: &Sources) -> ConfigResult<Vec<Entry>> {
    let Some(node) = root.get("models") else {
        return Err(sources.error(root.origin, "missing key `models`"));
    };
    let items = expect_list(node, "`models`", sources)?;
    let mut models: Vec<Entry> = Vec::new();
    for item in items {
        models.push(parse_entry(item, "model", sources)?);
    }
    refuse_twins(&models, tasks, "model", sources)?;
    let names = Names {
        tasks: tasks.iter().map(|t| t.name.clone()).collect(),
        models: models.iter().map(|m| m.name.clone()).collect(),
    };
    let context = Context { names: &names, file: root.origin.source, sources };
    for model in &mut models {
        let what = format!("model `{}`", model.name);
        if let Some((_, node)) = model.base.body.take("tasks") {
            model.base.tasks = by_name(&node, &what, "task", &names.tasks, false, context)?;
        }
        if let Some((_, node)) = model.base.body.take("only") {
            model.only = Some(known_names(&node, "task", &names.tasks, sources)?);
        }
    }
    Ok(models)
}

/// One task or model: a mapping with a `kind`, or just the kind.
fn parse_entry(node: &Node, what: &str, sources: &Sources) -> ConfigResult<Entry> {
    let key = |text: &str, origin: Origin| Key { text: text.to_owned(), origin };
    let mut body = match &node.kind {
        Kind::Scalar { .. } if !node.is_null() => {
            Node::map(node.origin, vec![(key("kind", node.origin), node.clone())])
        }
        _ => expect_map(node, &format!("a {what}"), sources)?,
    };
    let Some((kind_key, kind)) = body.take("kind") else {
        return Err(sources.error(node.origin, format!("this {what} has no `kind`")));
    };
    let (name_key, name) = body.take("name").unwrap_or_else(|| (key("name", kind.origin), kind.clone()));
    let text = name_of(&name, what, sources)?;
    name_of(&kind, "kind", sources)?;
    let train = take_train(&mut body, &format!("{what} `{text}`"), sources)?;
    if let Kind::Map(entries) = &mut body.kind {
        entries.splice(0..0, [(kind_key, kind), (name_key, name)]);
    }
    Ok(Entry { name: text, only: None, base: Overrides { body, train, tasks: Vec::new() } })
}

/// A name that paths and `--only` can spell.
fn name_of(node: &Node, what: &str, sources: &Sources) -> ConfigResult<String> {
    match node.scalar() {
        Some(word) if RESERVED.contains(&word) => {
            Err(sources.error(node.origin, format!("`{word}` has a meaning of its own and cannot name a {what}")))
        }
        Some(text) if is_name(text) && !node.is_null() => Ok(text.to_owned()),
        _ => {
            let message = format!("expected the name of a {what} (a-z, A-Z, 0-9, _ and -), got {}", node.describe());
            Err(sources.error(node.origin, message))
        }
    }
}

/// Whether a text is made of letters, digits, `_` and `-`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Names are how paths tell tasks and models apart.
fn refuse_twins(entries: &[Entry], others: &[Entry], what: &str, sources: &Sources) -> ConfigResult<()> {
    for (i, entry) in entries.iter().enumerate() {
        let origin = entry.base.body.get("name").map_or(entry.base.body.origin, |name| name.origin);
        let message = if entries.iter().take(i).any(|e| e.name == entry.name) {
            format!("two {what}s are called `{}`", entry.name)
        } else if others.iter().any(|e| e.name == entry.name) {
            format!("a task and a model are both called `{}`", entry.name)
        } else {
            continue;
        };
        return Err(sources.error(origin, message).help("give one of them another `name`"));
    }
    Ok(())
}

/// One seed or a list of seeds.
pub fn parse_seeds(node: &Node, sources: &Sources) -> ConfigResult<Vec<u64>> {
    let items = match &node.kind {
        Kind::Seq(_) => expect_list(node, "`seeds`", sources)?,
        _ => std::slice::from_ref(node),
    };
    let mut seeds = Vec::with_capacity(items.len());
    for item in items {
        let seed: u64 = super::read::read(item, sources)?;
        if seeds.contains(&seed) {
            return Err(sources.error(item.origin, format!("seed {seed} is listed twice")));
        }
        seeds.push(seed);
    }
    Ok(seeds)
}
