//! Layers: one mapping over another, and grid files that extend others.

use super::error::{ConfigError, ConfigResult, Origin, Sources};
use super::node::{Kind, Node};
use super::parse::parse_part;
use super::read::expect_map;
use std::path::{Path, PathBuf};

/// `over` on top of `base`: mappings are merged key by key, anything else is replaced, and what is kept keeps its
/// place. A mapping of another `kind` replaces the whole, since the keys of one kind mean nothing to another.
pub fn merge(base: &Node, over: &Node) -> Node {
    let (Kind::Map(below), Kind::Map(above)) = (&base.kind, &over.kind) else {
        return over.clone();
    };
    let kind = |node: &Node| node.get("kind").map(Node::to_yaml);
    if matches!((kind(base), kind(over)), (Some(below), Some(above)) if below != above) {
        return over.clone();
    }
    let mut entries = below.clone();
    for (key, value) in above {
        match entries.iter_mut().find(|(k, _)| k.text == key.text) {
            Some(entry) => *entry = (key.clone(), merge(&entry.1, value)),
            None => entries.push((key.clone(), value.clone())),
        }
    }
    Node::map(base.origin, entries)
}

/// Reads a grid file and everything it extends, merged, without the `extends` key.
///
/// # Errors
/// Unreadable files, wrong YAML, and files that extend each other in a circle.
pub fn load_extended(path: &Path, sources: &mut Sources) -> ConfigResult<Node> {
    load(path, None, &mut Vec::new(), sources)
}

fn load(path: &Path, from: Option<Origin>, open: &mut Vec<PathBuf>, sources: &mut Sources) -> ConfigResult<Node> {
    let fail = |message: String, sources: &Sources| match from {
        Some(origin) => sources.error(origin, message),
        None => ConfigError::new(message),
    };
    let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if open.contains(&identity) {
        let circle: Vec<String> = open.iter().chain([&identity]).map(|p| file_name(p)).collect();
        return Err(fail(format!("grid files extend each other in a circle: {}", circle.join(" → ")), sources));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| fail(format!("cannot read the grid file {}: {e}", path.display()), sources))?;
    let source = sources.add_file(path.display().to_string(), text);
    let mut root = expect_map(&parse_part(source, 0, sources)?, "a grid", sources)?;
    let Some((_, base)) = root.take("extends") else { return Ok(root) };
    let relative = match base.scalar() {
        Some(text) if !base.is_null() => text,
        _ => {
            let message = format!("`extends`: expected the path of a grid file, got {}", base.describe());
            return Err(sources.error(base.origin, message));
        }
    };
    let below = path.with_file_name(relative);
    if let Err(problem) = check_inside(&below, open.first().unwrap_or(&identity)) {
        return Err(sources.error(base.origin, problem));
    }
    open.push(identity);
    let below = load(&below, Some(base.origin), open, sources)?;
    open.pop();
    Ok(over_inherited(below, &root))
}

/// Refuses to extend what is no grid of this project: nothing else is read, and so nothing of it is shown.
fn check_inside(file: &Path, first: &Path) -> Result<(), String> {
    let is_yaml = file.extension().is_some_and(|extension| ["yaml", "yml"].iter().any(|known| extension == *known));
    if !is_yaml {
        return Err(format!("`extends`: expected a grid file, .yaml or .yml, got {}", file.display()));
    }
    // a file that is not there is said to be missing by whoever opens it
    let Ok(file) = file.canonicalize() else { return Ok(()) };
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let inside = [first.parent(), here.as_deref()].into_iter().flatten().any(|folder| file.starts_with(folder));
    if inside {
        Ok(())
    } else {
        Err("`extends`: expected a file beside the grid, or under the current folder".to_owned())
    }
}

/// `task` and `tasks` are two spellings of one thing: either replaces an inherited other.
fn over_inherited(mut below: Node, root: &Node) -> Node {
    for (own, inherited) in [("task", "tasks"), ("tasks", "task")] {
        if root.get(own).is_some() {
            below.take(inherited);
        }
    }
    // What is missing is missing in this file, not in the one it extends.
    Node { origin: root.origin, ..merge(&below, root) }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_text;
    use super::*;

    fn merged(base: &str, over: &str) -> String {
        let mut sources = Sources::default();
        let [base, over] = [base, over].map(|text| parse_text("t", text, &mut sources).unwrap());
        merge(&base, &over).one_line()
    }

    #[test]
    fn mappings_merge_and_everything_else_is_replaced() {
        assert_eq!(merged("{a: 1, b: {c: 2, d: 3}}", "{b: {d: 4, e: 5}, f: 6}"), "{a: 1, b: {c: 2, d: 4, e: 5}, f: 6}");
        assert_eq!(merged("{a: [1, 2]}", "{a: [3]}"), "{a: [3]}");
        assert_eq!(merged("{a: {b: 1}}", "{a: null}"), "{a: null}");
    }

    #[test]
    fn another_kind_replaces_the_whole() {
        assert_eq!(merged("{t: {kind: x, a: 1}}", "{t: {kind: y}}"), "{t: {kind: y}}");
        assert_eq!(merged("{t: {kind: x, a: 1}}", "{t: {kind: x, b: 2}}"), "{t: {kind: x, a: 1, b: 2}}");
        assert_eq!(merged("{t: {kind: x, a: 1}}", "{t: {b: 2}}"), "{t: {kind: x, a: 1, b: 2}}");
    }
}
