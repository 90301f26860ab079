//! `sweep:` → the points that each pair of task and model is run at.

use super::error::{ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use super::path::{Names, Target, known_names};
use super::read::{expect_list, expect_map};
use super::sample::{self, Draws};
use super::select::Condition;

const WORDS: [&str; 5] = ["zip", "sample", "product", "include", "exclude"];

/// A path and one value for it.
pub type Assignment = (Target, Node);

/// A sweep as written, checked.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    axes: Vec<Axis>,
    include: Vec<Include>,
    exclude: Vec<Vec<Condition>>,
    origin: Option<Origin>,
}

/// Paths whose lists are walked in step; a product axis has one path.
#[derive(Clone, Debug)]
struct Axis {
    columns: Vec<(Target, Vec<Node>)>,
    length: usize,
}

/// A point beside the product.
#[derive(Clone, Debug)]
struct Include {
    models: Option<Vec<String>>,
    tasks: Option<Vec<String>>,
    assignments: Vec<Assignment>,
}

impl Sweep {
    /// Reads `sweep:`.
    pub fn parse(node: &Node, names: &Names, sources: &Sources) -> ConfigResult<Self> {
        let map = expect_map(node, "`sweep`", sources)?;
        if map.entries().is_empty() {
            return Err(sources.error(node.origin, "`sweep` is empty").help("leave the key out, or give it paths"));
        }
        let mut sweep = Self { origin: Some(node.origin), ..Self::default() };
        for (key, value) in map.entries() {
            match key.text.as_str() {
                "zip" => sweep.add_zips(value, names, sources)?,
                "sample" => sweep.add_samples(value, names, sources)?,
                "product" => {
                    for (key, value) in filled(value, "`product`", sources)?.entries() {
                        sweep.axes.push(product_axis(key, value, names, sources)?);
                    }
                }
                "include" => {
                    for item in expect_list(value, "`include`", sources)? {
                        sweep.include.push(Include::parse(item, names, sources)?);
                    }
                }
                "exclude" => {
                    for item in expect_list(value, "`exclude`", sources)? {
                        let conditions = filled(item, "an entry of `exclude`", sources)?;
                        let conditions = conditions.entries().iter();
                        let rule = conditions.map(|(key, value)| Condition::parse(key, value, names, sources));
                        sweep.exclude.push(rule.collect::<ConfigResult<_>>()?);
                    }
                }
                _ => sweep.axes.push(product_axis(key, value, names, sources)?),
            }
        }
        sweep.refuse_clashes(names, sources)?;
        Ok(sweep)
    }

    fn add_zips(&mut self, node: &Node, names: &Names, sources: &Sources) -> ConfigResult<()> {
        for group in groups(node, "`zip`", sources)? {
            let mut axis = Axis { columns: Vec::new(), length: 0 };
            for (key, value) in filled(group, "`zip`", sources)?.entries() {
                let Axis { mut columns, length } = product_axis(key, value, names, sources)?;
                if let Some((first, _)) = axis.columns.first().filter(|_| length != axis.length) {
                    let message = format!("`{}` has {length} values, `{}` has {}", key.text, first.text, axis.length);
                    let error = sources.error(value.origin, message);
                    return Err(error.note("lists in a `zip` are walked in step and have to be equally long"));
                }
                axis.length = length;
                axis.columns.append(&mut columns);
            }
            self.axes.push(axis);
        }
        Ok(())
    }

    fn add_samples(&mut self, node: &Node, names: &Names, sources: &Sources) -> ConfigResult<()> {
        for group in groups(node, "`sample`", sources)? {
            let group = filled(group, "`sample`", sources)?;
            let draws = Draws::parse(&group, sources)?;
            let paths = group.entries().iter().filter(|(key, _)| !sample::WORDS.contains(&key.text.as_str()));
            let column =
                |(key, values): &(Key, Node)| Ok((swept(key, names, sources)?, draws.column(key, values, sources)?));
            let columns = paths.map(column).collect::<ConfigResult<Vec<_>>>()?;
            let Some(length) = columns.first().map(|(_, values)| values.len()) else {
                return Err(sources.error(node.origin, "`sample` names no path to draw values for"));
            };
            self.axes.push(Axis { columns, length });
        }
        Ok(())
    }

    /// Two axes for one key would run its product and let the later one win.
    fn refuse_clashes(&self, names: &Names, sources: &Sources) -> ConfigResult<()> {
        let targets: Vec<&Target> = self.axes.iter().flat_map(|axis| axis.columns.iter().map(|(t, _)| t)).collect();
        for (i, second) in targets.iter().enumerate() {
            for first in targets.iter().take(i).filter(|first| first.same_key(second)) {
                let both = |task: &str, model: &str| first.applies(task, model) && second.applies(task, model);
                let clash = names.tasks.iter().any(|task| names.models.iter().any(|model| both(task, model)));
                if clash {
                    let message = format!("`{}` is swept already, as `{}`", second.text, first.text);
                    let place = sources.locate(first.origin);
                    return Err(sources.error(second.origin, message).note(format!("first swept at {place}")));
                }
            }
        }
        Ok(())
    }

    /// Where it is written.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// How many points there are, without making them.
    pub fn number(&self, task: &str, model: &str) -> u128 {
        let applies = |axis: &&Axis| axis.columns.iter().any(|(target, _)| target.applies(task, model));
        let product: u128 = self.axes.iter().filter(applies).map(|axis| axis.length as u128).product();
        product + self.include.len() as u128
    }

    /// The points for a task and model: the product of the axes that concern them, then the included points. Without any axis
    /// that is one point that changes nothing.
    pub fn points(&self, task: &str, model: &str) -> Vec<Vec<Assignment>> {
        let mut points = vec![Vec::new()];
        for axis in &self.axes {
            let columns: Vec<_> = axis.columns.iter().filter(|(target, _)| target.applies(task, model)).collect();
            if columns.is_empty() {
                continue;
            }
            let row = |i: usize| {
                columns.iter().filter_map(move |(target, values)| Some((target.clone(), values.get(i)?.clone())))
            };
            points = points
                .iter()
                .flat_map(|point| (0..axis.length).map(move |i| point.iter().cloned().chain(row(i)).collect()))
                .collect();
        }
        let included = self.include.iter().filter(|include| include.applies(task, model));
        points.extend(included.map(|include| include.assignments.clone()));
        points
    }

    /// The rules that leave cells out; a cell that meets all conditions of one of them is not run.
    pub fn exclude(&self) -> &[Vec<Condition>] {
        &self.exclude
    }
}

impl Include {
    fn parse(node: &Node, names: &Names, sources: &Sources) -> ConfigResult<Self> {
        let mut include = Self { models: None, tasks: None, assignments: Vec::new() };
        for (key, value) in filled(node, "an entry of `include`", sources)?.entries() {
            match key.text.as_str() {
                "model" => include.models = Some(known_names(value, "model", &names.models, sources)?),
                "task" => include.tasks = Some(known_names(value, "task", &names.tasks, sources)?),
                _ => include.assignments.push((swept(key, names, sources)?, value.clone())),
            }
        }
        if include.assignments.is_empty() {
            return Err(sources.error(node.origin, "this entry of `include` gives no path a value"));
        }
        Ok(include)
    }

    /// A point concerns a task and model if every path in it does.
    fn applies(&self, task: &str, model: &str) -> bool {
        let listed =
            |names: &Option<Vec<String>>, name: &str| names.as_ref().is_none_or(|n| n.iter().any(|n| n == name));
        listed(&self.models, model)
            && listed(&self.tasks, task)
            && self.assignments.iter().all(|(target, _)| target.applies(task, model))
    }
}

fn product_axis(key: &Key, value: &Node, names: &Names, sources: &Sources) -> ConfigResult<Axis> {
    let target = swept(key, names, sources)?;
    let values = expect_list(value, &format!("`{}` in `sweep`", key.text), sources)?.to_vec();
    Ok(Axis { length: values.len(), columns: vec![(target, values)] })
}

fn swept(key: &Key, names: &Names, sources: &Sources) -> ConfigResult<Target> {
    if ["seed", "seeds"].contains(&key.text.as_str()) {
        return Err(sources.error(key.origin, "seeds are not swept").help("list them in `seeds:`"));
    }
    Target::parse_assignable(key, names, &WORDS, sources)
}

/// One group, or a list of them.
fn groups<'a>(node: &'a Node, what: &str, sources: &Sources) -> ConfigResult<&'a [Node]> {
    match &node.kind {
        Kind::Seq(_) => expect_list(node, what, sources),
        Kind::Scalar { .. } | Kind::Map(_) => Ok(std::slice::from_ref(node)),
    }
}

/// A mapping with something in it.
fn filled(node: &Node, what: &str, sources: &Sources) -> ConfigResult<Node> {
    let map = expect_map(node, what, sources)?;
    if map.entries().is_empty() {
        return Err(sources.error(node.origin, format!("{what} is empty")));
    }
    Ok(map)
}
