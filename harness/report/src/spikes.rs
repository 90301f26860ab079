//! Spikes per synapse and inference beside published bounds, which come from `reports/spike-bounds.yaml`.

use serde::Deserialize;

use super::catalogue::{count, significant};
use super::group::{Group, Part};
use super::model::{Cell, Column, Place, Table};
use super::{ReportError, provenance};
use metrics::TRAIN_SPLIT as SPLIT;

/// Published bounds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpikeBounds {
    bounds: Vec<Bound>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    /// Authors and year.
    name: String,
    /// Where it is published.
    source: String,
    measure: Measure,
    /// Steps that the spikes of one inference are spread over.
    #[serde(default = "one")]
    steps: u32,
    /// Below it spikes cost less.
    low: f64,
    /// Above it they cost more.
    high: f64,
    /// What it holds for.
    about: String,
}

/// What a bound is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    SpikesPerSynapse,
    SpikesPerNeuron,
}

/// What a bound says of a number of spikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Below,
    Between,
    Above,
}

fn one() -> u32 {
    1
}

impl SpikeBounds {
    /// The bounds that come with the program.
    ///
    /// # Errors
    /// If the file that was built in does not have this form: a mistake of the build.
    pub fn embedded() -> Result<Self, ReportError> {
        Ok(serde_yaml::from_str(include_str!("../../../reports/spike-bounds.yaml"))?)
    }
}

impl Bound {
    /// What this bound is about, of a configuration.
    fn measured(&self, group: &Group) -> Option<f64> {
        let name = match self.measure {
            Measure::SpikesPerSynapse => PER_SYNAPSE,
            Measure::SpikesPerNeuron => PER_NEURON,
        };
        Some(mean(group, name)? / f64::from(self.steps))
    }

    fn verdict(&self, spikes: f64) -> Verdict {
        if spikes < self.low {
            Verdict::Below
        } else if spikes > self.high || self.low >= self.high {
            Verdict::Above
        } else {
            Verdict::Between
        }
    }

    /// `1.72`, or `0.15 to 1.38`.
    fn range(&self) -> String {
        if self.low < self.high { format!("{} to {}", self.low, self.high) } else { self.low.to_string() }
    }

    fn label(&self) -> String {
        let what = match self.measure {
            Measure::SpikesPerSynapse => "per synapse".to_owned(),
            Measure::SpikesPerNeuron => format!("rate over {} steps", self.steps),
        };
        format!("{} ({what}: {})", self.name, self.range())
    }

    fn cell(&self, group: &Group) -> Cell {
        let text = |spikes: f64| {
            let verdict = match self.verdict(spikes) {
                Verdict::Below => "below",
                Verdict::Between => "between",
                Verdict::Above => "above",
            };
            format!("{verdict} ({})", significant(spikes, 3))
        };
        Cell::measured(self.measured(group).map(text))
    }
}

const PER_SYNAPSE: &str = "spikes_per_synapse";
const PER_NEURON: &str = "spikes_per_neuron";

fn mean(group: &Group, name: &str) -> Option<f64> {
    group.metric(name, Some(SPLIT)).estimate().map(|e| e.mean)
}

/// Spikes of the models that have them, beside the bounds; `None` if no model spikes, or spikes were not counted.
pub(super) fn table(part: &Part, SpikeBounds { bounds }: &SpikeBounds, id: &str) -> Option<Table> {
    let groups: Vec<&Group> = part.groups.iter().filter(|group| mean(group, PER_SYNAPSE).is_some()).collect();
    groups.first()?;
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let caption = format!(
        "Models with spikes, forward, mean over the last fifth of training. An inference is one {one}. Per synapse: accumulates \
         over the weights behind spikes that are not zero; a burst of k is k spikes, a weighted level as many as its signed digits \
         that are not zero, and either is one event where a machine sends it as one graded spike. Products per {one}: accumulates (AC) behind spikes, multiply–accumulates (MAC) behind \
         anything else, those of states and attention among them, to which no bound applies."
    );
    let mut table = Table::empty(format!("{id}-spikes"), "Spikes per synapse and inference", caption);
    table.place = Place::Everywhere;
    table.push_column(Column::text("model"), groups.iter().map(|group| Cell::new(part.label(group))).collect());
    let mut add = |label: &str, name: &str, text: &dyn Fn(f64) -> String| {
        let cells = groups.iter().map(|group| Cell::measured(mean(group, name).map(text)));
        table.push_column(Column::number(label), cells.collect());
    };
    let three = |x: f64| significant(x, 3);
    let whole = |x: f64| count(x.round() as u64);
    add("spikes per synapse", PER_SYNAPSE, &three);
    add("events per synapse", "events_per_synapse", &three);
    add("spikes per neuron", PER_NEURON, &three);
    add("share of neurons that spike", "spike_rate", &three);
    add("AC", "acs_forward", &whole);
    add("MAC", "macs_forward", &whole);
    for bound in bounds {
        let cells = groups.iter().map(|group| bound.cell(group));
        table.push_column(Column::text(bound.label()), cells.collect());
    }
    for bound in bounds {
        table.notes.push(format!("{}: {} ({}).", bound.name, bound.about, bound.source));
    }
    table.notes.push(
        "Below: by that source spikes cost less energy than the network it compares with. Above: they cost more. Between: it \
         depends on the machine."
            .into(),
    );
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::super::group::parts;
    use super::super::{ResultRow, fixture};
    use super::*;

    fn rows(model: &str, metrics: &[(&str, Option<f64>)]) -> Vec<ResultRow> {
        let cell = fixture::config(fixture::cell(model, 1), &[("task.vocabulary", "byte")]);
        let row = |&(name, value): &(&str, Option<f64>)| ResultRow {
            split: Some(SPLIT.into()),
            metric: Some(name.into()),
            value,
            ..cell.clone()
        };
        metrics.iter().map(row).collect()
    }

    #[test]
    fn verdicts_are_those_of_the_published_bounds() {
        let SpikeBounds { bounds } = SpikeBounds::embedded().unwrap();
        let of = |i: usize, spikes: f64| bounds[i].verdict(spikes);
        assert_eq!([1.71, 1.73].map(|s| of(0, s)), [Verdict::Below, Verdict::Above]);
        assert_eq!([0.14, 0.16, 1.37, 1.39].map(|s| of(1, s)), {
            use Verdict::{Above, Below, Between};
            [Below, Between, Between, Above]
        });
        assert_eq!([0.056, 0.06, 0.065].map(|s| of(2, s)), [Verdict::Below, Verdict::Between, Verdict::Above]);
        assert!(bounds.iter().all(|b| b.low <= b.high && !b.source.is_empty() && b.steps > 0));
    }

    #[test]
    fn only_models_with_spikes_are_judged() {
        let spiking = [(PER_SYNAPSE, Some(0.4)), ("events_per_synapse", Some(0.25)), (PER_NEURON, Some(0.5))];
        let all = [rows("bim", &spiking), rows("lstm", &[(PER_SYNAPSE, None), (PER_NEURON, None)])].concat();
        let parts = parts(&all);
        let table = table(&parts[0], &SpikeBounds::embedded().unwrap(), "x").unwrap();
        let text: Vec<&str> = table.rows[0].iter().map(|c| c.text.as_str()).collect();
        assert_eq!(text, ["bim", "0.40", "0.25", "0.50", "below (0.40)", "between (0.40)", "above (0.10)"]);
        assert_eq!(table.rows.len(), 1);
        let labels: Vec<&str> = table.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels[5], "Dampfhoffer et al. 2022 (per synapse: 0.15 to 1.38)");
        assert_eq!(labels[6], "Yan et al. 2024 (rate over 5 steps: 0.057 to 0.064)");
        let silent = rows("lstm", &[(PER_SYNAPSE, None)]);
        assert!(super::table(&super::super::group::parts(&silent)[0], &SpikeBounds::default(), "x").is_none());
    }
}
