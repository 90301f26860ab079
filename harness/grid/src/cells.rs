//! A grid's layers → its cells.

use super::error::{ConfigResult, Origin, Sources};
use super::layout::{Entry, Overrides, Scale, parse_seeds};
use super::merge::merge;
use super::node::Node;
use super::path::Tree;
use super::select::{Setting, chosen, parse_set};
use super::sweep::Assignment;
use super::{Grid, RawCell, Selection};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// More cells than anyone trains: a sweep that makes more is a slip.
const MOST_CELLS: u128 = 1_000_000;

impl Grid {
    /// The cells to run, each once, in the order of tasks, models, sweep points and seeds.
    ///
    /// # Errors
    /// Unknown scales, `--set` paths and `--only` conditions, and selections that leave nothing.
    pub fn cells(&self, selection: &Selection, sources: &mut Sources) -> ConfigResult<Vec<RawCell>> {
        let scale = self.scale(selection.scale.as_deref(), sources)?;
        let settings: Vec<Setting> =
            selection.set.iter().map(|text| parse_set(text, &self.names, sources)).collect::<ConfigResult<_>>()?;
        let set_seeds = settings.iter().rev().find_map(|setting| match setting {
            Setting::Seeds(node) => Some(node),
            Setting::Path(..) => None,
        });
        let seeds = match (set_seeds, scale.and_then(|s| s.seeds.as_ref())) {
            (Some(node), _) => parse_seeds(node, sources)?,
            (None, Some(seeds)) => seeds.clone(),
            (None, None) => self.seeds.clone(),
        };
        let name = selection.scale.as_ref().unwrap_or(&self.default_scale);
        self.check_number(seeds.len(), sources)?;
        let mut cells = self.expand(name, scale, &settings, &seeds);
        cells.retain(|cell| !self.excluded(cell));
        if cells.is_empty() {
            return Err(sources.error(self.origin, "nothing is left to run: `only` and `exclude` leave every cell out"));
        }
        match &selection.only {
            Some(expression) => {
                let mut kept = chosen(expression, &self.names, &cells, sources)?.into_iter();
                cells.retain(|_| kept.next().unwrap_or_default());
                Ok(cells)
            }
            None => Ok(cells),
        }
    }

    /// Which of the grid's cells `--only` chooses; all of them without it.
    ///
    /// # Errors
    /// If a condition is wrong, or no cell meets all of them.
    pub fn chosen(&self, cells: &[RawCell], selection: &Selection, sources: &mut Sources) -> ConfigResult<Vec<bool>> {
        match &selection.only {
            Some(expression) => chosen(expression, &self.names, cells, sources),
            None => Ok(vec![true; cells.len()]),
        }
    }

    /// Refuses a grid of more cells than anyone means.
    fn check_number(&self, seeds: usize, sources: &Sources) -> ConfigResult<()> {
        let models = |task: &Entry| {
            let runs = |model: &&Entry| model.only.as_ref().is_none_or(|only| only.contains(&task.name));
            self.models.iter().filter(runs).map(|model| self.sweep.number(&task.name, &model.name)).sum::<u128>()
        };
        let number = self.tasks.iter().map(models).sum::<u128>() * seeds as u128;
        if number <= MOST_CELLS {
            return Ok(());
        }
        let error = sources.error(self.sweep.origin().unwrap_or(self.origin), format!("this makes {number} cells"));
        Err(error
            .note(format!("expected {MOST_CELLS} at most"))
            .help("give `sweep` fewer values, or `zip` axes that go together"))
    }

    /// Refuses `exclude` conditions on keys that no cell has at any scale, with which a rule would never apply.
    pub(super) fn check_exclude(&self, sources: &Sources) -> ConfigResult<()> {
        if self.sweep.exclude().is_empty() {
            return Ok(());
        }
        // every point is made for this
        self.check_number(1, sources)?;
        let scales = self.scales.iter().map(Some).chain([None]);
        let cells: Vec<RawCell> = scales.flat_map(|scale| self.expand("", scale, &[], &[1])).collect();
        self.sweep.exclude().iter().flatten().try_for_each(|condition| condition.check_key(&cells, sources))
    }

    fn excluded(&self, cell: &RawCell) -> bool {
        self.sweep.exclude().iter().any(|rule| rule.iter().all(|condition| condition.matches(cell)))
    }

    fn scale(&self, wanted: Option<&str>, sources: &mut Sources) -> ConfigResult<Option<&Scale>> {
        let name = wanted.unwrap_or(&self.default_scale);
        let found = self.scales.iter().find(|scale| scale.name == name);
        // A grid without scales runs as written, under the name of its default scale.
        if found.is_some() || (self.scales.is_empty() && name == self.default_scale) {
            return Ok(found);
        }
        let source = sources.add_argument("--scale", name);
        let origin = Origin { source, line: 1, column: 1, length: name.chars().count().max(1) };
        let error = sources.error(origin, format!("this grid has no scale `{name}`"));
        let known: Vec<&str> = self.scales().collect();
        Err(if known.is_empty() { error.note("it defines no scales") } else { error.expected_one_of(name, &known) })
    }

    fn expand(&self, scale_name: &str, scale: Option<&Scale>, settings: &[Setting], seeds: &[u64]) -> Vec<RawCell> {
        let mut cells = Vec::new();
        let mut known = HashSet::new();
        for task in &self.tasks {
            for model in self.models.iter().filter(|m| m.only.as_ref().is_none_or(|only| only.contains(&task.name))) {
                for point in self.sweep.points(&task.name, &model.name) {
                    let trees = self.resolve(task, model, scale, &point, settings);
                    let identity = [&trees.task, &trees.model, &trees.train].map(Node::canonical).join("\n");
                    let identity: [u8; 32] = Sha256::digest(identity.as_bytes()).into();
                    for &seed in seeds.iter().filter(|seed| known.insert((identity, **seed))) {
                        cells.push(RawCell {
                            experiment: self.experiment.clone(),
                            scale: scale_name.to_owned(),
                            task: trees.task.clone(),
                            model: trees.model.clone(),
                            train: trees.train.clone(),
                            seed,
                            sweep_point: trees.sweep_point.clone(),
                        });
                    }
                }
            }
        }
        cells
    }

    /// Lays everything that concerns a task, a model and a point over each other, in the order of precedence.
    fn resolve(
        &self,
        task: &Entry,
        model: &Entry,
        scale: Option<&Scale>,
        point: &[Assignment],
        settings: &[Setting],
    ) -> Trees {
        let (t, m) = (task.name.as_str(), model.name.as_str());
        let task_layers: Vec<&Overrides> =
            [&task.base].into_iter().chain(scale.iter().flat_map(|s| s.over_task(t))).collect();
        let own: Vec<&Overrides> = [Some(&model.base), model.base.on_task(t)].into_iter().flatten().collect();
        let over: Vec<&Overrides> = scale.iter().flat_map(|s| s.over_model(m, t)).collect();

        let training = [self.train.as_ref(), task.base.train.as_ref()].into_iter().flatten();
        let training = training.chain(own.iter().filter_map(|layer| layer.train.as_ref()));
        let training = training.chain(scale.and_then(|s| s.train.as_ref()));
        let training = training.chain(task_layers.iter().skip(1).chain(&over).filter_map(|layer| layer.train.as_ref()));

        let mut trees = Trees {
            task: stack(task_layers.iter().map(|layer| &layer.body), self),
            model: stack(own.iter().chain(&over).map(|layer| &layer.body), self),
            train: stack(training, self),
            sweep_point: Vec::new(),
        };
        let settings: Vec<_> = settings
            .iter()
            .filter_map(|setting| match setting {
                Setting::Path(target, value) if target.applies(t, m) => Some((target, value)),
                _ => None,
            })
            .collect();
        for (target, value) in point.iter().map(|(target, value)| (target, value)).chain(settings.iter().copied()) {
            let tree = match target.tree() {
                Tree::Task => &mut trees.task,
                Tree::Model => &mut trees.model,
                Tree::Train => &mut trees.train,
            };
            *tree = merge(tree, &target.overlay(value));
        }
        // A point that `--set` has overruled is no longer what tells cells apart.
        let swept = point.iter().filter(|(target, _)| !settings.iter().any(|(set, _)| set.same_key(target)));
        trees.sweep_point = swept.map(|(target, value)| (target.text.clone(), value.one_line())).collect();
        trees
    }
}

struct Trees {
    task: Node,
    model: Node,
    train: Node,
    sweep_point: Vec<(String, String)>,
}

/// Layers merged, lowest first; an empty mapping at the head of the file if there are none.
fn stack<'a>(mut layers: impl Iterator<Item = &'a Node>, grid: &Grid) -> Node {
    match layers.next() {
        Some(lowest) => layers.fold(lowest.clone(), |below, layer| merge(&below, layer)),
        None => Node::map(grid.origin, Vec::new()),
    }
}
