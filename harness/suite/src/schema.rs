//! What a grid file may say, as JSON Schema: made from the structs that read it, so that keys, words, ranges and defaults are theirs.
//! Whether the parts of a grid fit together, only `harness plan` says. It also takes a few odd ways of writing that the schema refuses,
//! such as a null for a mapping that could be left out.
//!
//! Editors that know JSON Schema complete and check grids with it. `harness explain` looks keys up in it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::cluster::resources::Resources;
use crate::models::ModelConfig;
use crate::report_config::Written;
use crate::tasks::TaskConfig;
use crate::train::TrainConfig;

/// Numbers as YAML may have them: `4_000_000`, which JSON Schema takes for text.
const GROUPED: &str = "^[+-]?[0-9]+(_[0-9]+)*([.][0-9]+)?([eE][+-]?[0-9]+)?$";

/// The kinds of entries, by the word for them.
pub struct Kinds {
    /// What they are: `model` or `task`.
    pub what: &'static str,
    /// Each kind with its keys.
    pub entries: Vec<(&'static str, Value)>,
}

/// The schema and the parts of it that `harness explain` looks keys up in.
pub struct Language {
    /// Keys of the grid file.
    pub top: Value,
    /// Models and tasks.
    pub kinds: [Kinds; 2],
    /// What `$ref` names.
    definitions: Map<String, Value>,
}

/// A type's schema, and what it refers to in `generator`.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

impl Language {
    /// All of it.
    #[must_use]
    pub fn new() -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let train = of::<TrainConfig>(&mut generator);
        let (report, resources) = (of::<Written>(&mut generator), of::<Resources>(&mut generator));
        let (models, tasks) = (ModelConfig::schemas(&mut generator), TaskConfig::schemas(&mut generator));
        let mut definitions = generator.take_definitions(true);
        definitions.values_mut().for_each(tidy);
        let on_tasks = json!({
            "description": "This model on one task: its keys there, by the task's name",
            "type": "object", "additionalProperties": {"type": "object"}
        });
        let only = json!({
            "description": "Names of the tasks that this model runs on; all without it",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        });
        let all = |what, kinds: Vec<(&'static str, Value)>, more: &[(&str, &Value)]| {
            let one = |(kind, schema)| (kind, entry(what, kind, &resolved(&schema, &definitions), &train, more));
            Kinds { what, entries: kinds.into_iter().map(one).collect() }
        };
        let kinds = [all("model", models, &[("tasks", &on_tasks), ("only", &only)]), all("task", tasks, &[])];
        let [models, tasks] = &kinds;
        let mut top = top(&any_of(models), &any_of(tasks), &train, &report, &resources);
        tidy(&mut top);
        Self { top, kinds, definitions }
    }

    /// One document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut all = self.top.clone();
        all["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        all["title"] = json!("An experiment grid of harness");
        all["$defs"] = Value::Object(self.definitions.clone());
        all
    }

    /// The mapping or value behind a `$ref`, or behind the alternative to null.
    #[must_use]
    pub fn resolve(&self, schema: &Value) -> Value {
        resolved(schema, &self.definitions)
    }
}

fn resolved(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let mut found = schema.clone();
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array)
        && let [one, other] = alternatives.as_slice()
        && other.get("type") == Some(&json!("null"))
    {
        found = merged(schema, &resolved(one, definitions));
    }
    let name = found.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    match name.and_then(|name| definitions.get(name)) {
        Some(definition) => merged(&found, definition),
        None => found,
    }
}

/// A definition with what the place that names it says beside the name.
fn merged(place: &Value, definition: &Value) -> Value {
    let mut all = definition.as_object().cloned().unwrap_or_default();
    for (key, value) in place.as_object().into_iter().flatten() {
        if key != "$ref" && key != "anyOf" {
            all.insert(key.clone(), value.clone());
        }
    }
    Value::Object(all)
}

/// An entry of `models` or `tasks`: the keys of its kind and those that every entry has.
fn entry(what: &str, kind: &str, settings: &Value, train: &Value, more: &[(&str, &Value)]) -> Value {
    let mut properties = Map::new();
    properties.insert("kind".into(), json!({"const": kind}));
    let name =
        json!({"description": format!("Name of the {what} in this grid; its kind by default"), "type": "string"});
    properties.insert("name".into(), name);
    properties.extend(settings.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
    for (key, schema) in more.iter().copied().chain([("train", train)]) {
        properties.insert(key.into(), schema.clone());
    }
    let description = settings.get("description").cloned().unwrap_or_default();
    json!({
        "description": description, "type": "object", "required": ["kind"], "properties": properties,
        "additionalProperties": false
    })
}

fn any_of(kinds: &Kinds) -> Value {
    let names: Vec<&str> = kinds.entries.iter().map(|(kind, _)| *kind).collect();
    let short = json!({"description": "Short for its kind alone", "enum": names});
    let entries = kinds.entries.iter().map(|(_, schema)| schema.clone());
    json!({"anyOf": std::iter::once(short).chain(entries).collect::<Vec<_>>()})
}

fn top(models: &Value, tasks: &Value, train: &Value, report: &Value, resources: &Value) -> Value {
    let map = |description: &str| json!({"description": description, "type": "object"});
    let seeds = json!({
        "description": "Seeds of weights, order and everything else that is drawn; one number is that seed. Default [1]",
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
        ]
    });
    let scale = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "seeds": seeds, "train": train,
            "task": map("Keys of every task"), "tasks": map("Keys of single tasks, by name"),
            "model": map("Keys of every model"), "models": map("Keys of single models, by name"),
            "report": merged(&json!({"description": "Keys over those of `report`"}), report)
        }
    });
    let points = |description: &str| json!({"description": description, "type": "array", "items": {"type": "object"}});
    let either = |description: &str| json!({"description": description, "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]});
    // over one that `extends` brings, a task says what it changes
    let change = json!({"type": "object", "not": {"required": ["kind"]}});
    let task = json!({"description": "The task; `tasks` has several", "anyOf": [tasks, change]});
    json!({
        "type": "object", "additionalProperties": false,
        "anyOf": [{"required": ["experiment"]}, {"required": ["extends"]}],
        "properties": {
            "experiment": {"description": "Name of the experiment and of its run directory", "type": "string", "pattern": "^[a-z0-9_-]+$"},
            "description": {"description": "The question; the report begins with it", "type": ["string", "null"]},
            "extends": {"description": "A grid beside or below which this one lies; mappings merge, everything else here replaces what it says", "type": "string"},
            "task": task,
            "tasks": {"description": "Tasks; `task` is one", "type": "array", "items": tasks},
            "models": {"description": "Models; every one runs on every task", "type": "array", "items": models},
            "train": merged(&json!({"description": "Training of every cell"}), train),
            "seeds": seeds,
            "sweep": {
                "description": "Values to go through: a path such as `bim.lambda`, `model.layers`, `task.frame` or `train.clip` with a list; several make a product",
                "type": ["object", "null"],
                "properties": {
                    "zip": either("Paths that go in step; a list makes several groups"),
                    "include": points("Points beside the product; `model:` and `task:` limit them"),
                    "exclude": points("Cells to leave out"),
                    "sample": either("Points drawn from ranges: `points`, `seed`, `method` (latin_hypercube or random) and paths with `{low, high}` or a list")
                },
                "additionalProperties": {"type": "array"}
            },
            "scale": {"description": "The default of --scale", "type": "string"},
            "scales": {"description": "What a scale changes, by its name", "type": ["object", "null"], "additionalProperties": scale},
            "report": {"description": "What the tables compare with", "anyOf": [report, {"type": "null"}]},
            "resources": {"description": "What a cell gets on a cluster", "anyOf": [resources, {"type": "null"}]},
            "energy": {"description": "Prices of operations: a known list (`harness list cost-models`) or a .yaml file beside the grid", "type": ["string", "null"]}
        }
    })
}

/// Takes out what only Rust knows, and lets numbers be written in groups.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(tidy),
        Value::Object(map) => {
            map.remove("format");
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = without_links(text);
            }
            let number = |t: &Value| t == "number" || t == "integer";
            let types: Vec<Value> = match map.get("type") {
                Some(Value::Array(all)) => all.clone(),
                Some(one) => vec![one.clone()],
                None => Vec::new(),
            };
            let text = json!("string");
            // what was tidied before is left as it is
            if types.iter().any(number) && !types.contains(&text) && !map.contains_key("enum") {
                map.insert("type".into(), types.into_iter().chain([text]).collect());
                map.insert("pattern".into(), json!(GROUPED));
            }
            map.iter_mut().filter(|(key, _)| *key != "default").for_each(|(_, value)| tidy(value));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Documentation without links between Rust items: ``[`Name`]`` is `` `Name` ``. Lines of a paragraph are one line.
fn without_links(text: &str) -> String {
    let plain = text.replace("[`", "`").replace("`]", "`");
    plain.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests;
