//! Tests of the schema: what it accepts is what is read.

use super::*;

/// Whether a value meets a schema, as far as this schema goes: the first thing that is wrong.
fn check(schema: &Value, value: &Value, language: &Language, path: &str) -> Result<(), String> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/$defs/").expect("a definition");
        check(&language.definitions[name], value, language, path)?;
    }
    for alternatives in ["anyOf", "oneOf"].iter().filter_map(|word| schema.get(*word)?.as_array()) {
        let errors: Vec<String> =
            alternatives.iter().filter_map(|one| check(one, value, language, path).err()).collect();
        if errors.len() == alternatives.len() {
            return Err(format!("{path}: none of: {}", errors.join(" | ")));
        }
    }
    let name = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if let Some(types) = schema.get("type") {
        let types: Vec<&str> = types
            .as_array()
            .map_or_else(|| vec![types], |all| all.iter().collect())
            .into_iter()
            .filter_map(Value::as_str)
            .collect();
        let own = name(value);
        if !(types.contains(&own) || own == "integer" && types.contains(&"number")) {
            return Err(format!("{path}: {own} for {types:?}"));
        }
    }
    if schema.get("not").is_some_and(|not| check(not, value, language, path).is_ok()) {
        return Err(format!("{path}: {}", schema["not"]));
    }
    let grouped = |text: &str| text.bytes().all(|c| c.is_ascii_digit() || b"_.eE+-".contains(&c));
    if schema.get("pattern") == Some(&json!(GROUPED)) && value.as_str().is_some_and(|text| !grouped(text)) {
        return Err(format!("{path}: {value} is no number"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{path}: {value} for {}", schema["const"]));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(value)) {
        return Err(format!("{path}: {value} is none of {}", schema["enum"]));
    }
    if let Some(number) = value.as_f64() {
        let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
        if bound("minimum").is_some_and(|low| number < low) || bound("maximum").is_some_and(|high| number > high) {
            return Err(format!("{path}: {number} is out of range"));
        }
    }
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
    if value.as_array().is_some_and(|all| (all.len() as u64) < least) {
        return Err(format!("{path}: fewer than {least} items"));
    }
    if let (Some(items), Some(all)) = (schema.get("items"), value.as_array()) {
        all.iter().enumerate().try_for_each(|(i, item)| check(items, item, language, &format!("{path}[{i}]")))?;
    }
    if let Some(map) = value.as_object() {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in map {
            let path = format!("{path}.{key}");
            match (properties.and_then(|p| p.get(key)), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => check(schema, value, language, &path)?,
                (None, Some(Value::Bool(false))) => return Err(format!("{path}: no such key")),
                (None, _) => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        if let Some(missing) =
            required.into_iter().flatten().filter_map(Value::as_str).find(|key| !map.contains_key(*key))
        {
            return Err(format!("{path}: no {missing}"));
        }
    }
    Ok(())
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("YAML")
}

fn accepts(text: &str) -> Result<(), String> {
    let language = Language::new();
    check(&language.top, &yaml(text), &language, "grid")
}

#[test]
fn every_shipped_grid_meets_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../experiments");
    let language = Language::new();
    let mut grids = 0;
    for file in std::fs::read_dir(folder).expect("the grids").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a grid");
        check(&language.top, &yaml(&text), &language, &file.path().display().to_string())
            .unwrap_or_else(|e| panic!("{e}"));
        grids += 1;
    }
    assert!(grids > 15, "{grids}");
}

#[test]
fn what_is_no_grid_does_not_meet_it() {
    let good = "experiment: e\ntask: {kind: cardio, generate: 4_0}\nmodels: [{kind: bim, lambda: 0.5, pre: {levels: binary}}, lstm]\n";
    assert_eq!(accepts(good), Ok(()));
    assert_eq!(accepts("extends: other.yaml\nmodels: [{kind: lstm, only: cardio}]\nscales: null\n"), Ok(()));
    for (from, to) in [
        ("lambda: 0.5", "lambda: 1.5"),
        ("lambda: 0.5", "lamda: 0.5"),
        ("binary", "ternary"),
        ("pre: {", "pre: {burts: 1, "),
        ("kind: bim", "kind: bin"),
        ("lstm]", "lstn]"),
        ("experiment: e\n", ""),
        ("experiment: e\n", "experiment: e\nseeds: []\n"),
        ("experiment: e\n", "experiment: e\nseeds: [-1]\n"),
        ("task:", "taks:"),
        ("generate: 4_0", "generate: yes"),
    ] {
        assert!(accepts(&good.replace(from, to)).is_err(), "{from} → {to}");
    }
}

/// The keys of the schema are those that the program reads: a key that it names is accepted, with its default.
#[test]
fn defaults_are_those_that_are_read() {
    let language = Language::new();
    let [models, _] = &language.kinds;
    let (kind, bim) = &models.entries[0];
    assert_eq!(*kind, "bim");
    let default = serde_json::to_value(bim::BimConfig::default()).expect("JSON");
    for (key, value) in default.as_object().expect("a mapping") {
        let schema = &bim["properties"][key];
        assert_eq!(schema.get("default"), Some(value), "{key}: {schema}");
        assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty() && !text.contains("[`")), "{key}");
    }
}

/// A key of BIM that came later is stored only where it says something: cells from before it keep their id. The schema has its default.
#[test]
fn later_keys_are_stored_where_they_are_asked_for() {
    let stored = |front| serde_json::to_value(bim::BimConfig { front, ..bim::BimConfig::default() }).expect("JSON");
    assert_eq!(stored(bim::config::Front::Chunk).get("front"), None);
    assert_eq!(stored(bim::config::Front::Traces)["front"], "traces");
    let language = Language::new();
    let (_, bim) = &language.kinds[0].entries[0];
    let inference =
        |inference| serde_json::to_value(bim::BimConfig { inference, ..bim::BimConfig::default() }).expect("JSON");
    assert_eq!(inference(bim::config::Inference::Dense).get("inference"), None);
    assert_eq!(inference(bim::config::Inference::Events)["inference"], "events");
    assert_eq!(bim["properties"]["inference"]["default"], "dense");
    let controlled = |target, rate| {
        let (energy_target, energy_rate) = (bim::config::NonNegative(target), bim::config::Positive(rate));
        let c = bim::BimConfig { energy_target, energy_rate, ..bim::BimConfig::default() };
        let stored = serde_json::to_value(c).expect("JSON");
        ["energy_target", "energy_rate"].map(|key| stored.get(key).and_then(Value::as_f64))
    };
    assert_eq!(controlled(0.0, 0.004), [None, None]);
    assert_eq!(controlled(0.25, 0.004), [Some(0.25), None]);
    assert_eq!(controlled(0.25, 0.01), [Some(0.25), Some(0.01)]);
    let default = serde_json::to_value(bim::BimConfig::default()).expect("JSON");
    assert_eq!((default.get("homeostasis"), default["stdp"].get("third_factor")), (None, None));
    let third_factor = bim::config::Third::Error;
    let c = bim::BimConfig {
        homeostasis: bim::config::HomeostasisConfig { pre: bim::config::NonNegative(0.3), ..Default::default() },
        stdp: bim::config::StdpConfig { third_factor, ..Default::default() },
        ..bim::BimConfig::default()
    };
    let stored = serde_json::to_value(c).expect("JSON");
    assert_eq!((&stored["homeostasis"]["pre"], &stored["stdp"]["third_factor"]), (&0.3.into(), &"error".into()));
    assert_eq!(bim["properties"]["energy_target"]["default"], 0.0);
    assert_eq!(bim["properties"]["energy_rate"]["default"], 0.004);
    let schema = &bim["properties"]["front"];
    assert_eq!(schema["default"], "chunk", "{schema}");
    assert!(schema["description"].as_str().is_some_and(|text| text.contains("convolution")), "{schema}");
}

/// Validators of the standard refuse a list of types that names one twice, and the whole schema with it.
#[test]
fn no_list_of_types_names_one_twice() {
    fn walk(schema: &Value, found: &mut usize) {
        if let Some(types) = schema.get("type").and_then(Value::as_array) {
            *found += 1;
            let mut names: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), types.len(), "{schema}");
        }
        match schema {
            Value::Array(all) => all.iter().for_each(|one| walk(one, found)),
            Value::Object(map) => map.values().for_each(|one| walk(one, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = 0;
    walk(&Language::new().document(), &mut found);
    assert!(found > 50, "{found}");
}
