//! Where in a network neurons are silent: the share of (neuron, step) pairs without a spike, population by population.

use super::catalogue::significant;
use super::curves::point;
use super::group::{Group, Part};
use super::model::{Cell, Column, Form, Loaded, Place, Plot, Series, Table};
use data::account::inert;
use rows::LayerRow;

/// Name of the quantity in `layers.parquet`.
const QUANTITY: &str = "spike_sparsity";

/// Silence of a cell's populations at its last update that was looked at, in the order in which they were written: from the input on.
pub(super) fn last(rows: &[LayerRow]) -> Vec<(String, f64)> {
    let of = || rows.iter().filter(|row| row.quantity == QUANTITY);
    let Some(step) = of().map(|row| row.step).max() else { return Vec::new() };
    of().filter(|row| row.step == step).map(|row| (inert(&row.layer), row.value)).collect()
}

/// Every population of any configuration, those of a deeper network behind those that all have.
fn populations<'a>(groups: &[&Group], loaded: &'a Loaded) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    let cells = groups.iter().flat_map(|group| group.completed()).filter_map(|run| loaded.silence.get(&run.head.cell));
    for (name, _) in cells.flatten() {
        if !all.contains(&name.as_str()) {
            all.push(name);
        }
    }
    all
}

/// A value of each completed seed.
fn values<'a>(group: &'a Group, loaded: &'a Loaded, population: &'a str) -> impl Iterator<Item = f64> {
    let cells = group.completed().filter_map(|run| loaded.silence.get(&run.head.cell));
    cells.flatten().filter(move |(name, _)| name == population).map(|(_, silent)| 100.0 * silent)
}

fn spiking<'a>(part: &'a Part, loaded: &Loaded) -> Vec<&'a Group<'a>> {
    let spikes = |group: &&Group| {
        group.completed().any(|run| loaded.silence.get(&run.head.cell).is_some_and(|all| !all.is_empty()))
    };
    part.groups.iter().filter(spikes).collect()
}

/// Silence of every population; `None` if no model spikes, or nothing was looked at.
pub(super) fn table(part: &Part, loaded: &Loaded, id: &str) -> Option<Table> {
    let groups = spiking(part, loaded);
    groups.first()?;
    let caption = "Share of (neuron, step) pairs without a spike, at the last update that was looked at, mean over completed seeds. \
                   Populations stand in the order in which a step goes through them.";
    let mut table = Table::empty(format!("{id}-silence"), "Silence by layer", caption);
    table.place = Place::Detail;
    table.push_column(Column::text("model"), groups.iter().map(|group| Cell::new(part.label(group))).collect());
    for population in populations(&groups, loaded) {
        let cell = |group: &&Group| {
            let silent: Vec<f64> = values(group, loaded, population).collect();
            let mean = (!silent.is_empty()).then(|| silent.iter().sum::<f64>() / silent.len() as f64);
            Cell::number(mean, |percent| significant(percent, 3))
        };
        table.push_column(Column::number(format!("{population} (%)")), groups.iter().map(cell).collect());
    }
    Some(table)
}

/// Silence against depth, a line per configuration; `None` for fewer than two populations.
pub(super) fn plot(part: &Part, loaded: &Loaded, id: &str) -> Option<Plot> {
    let groups = spiking(part, loaded);
    let all = populations(&groups, loaded);
    if all.len() < 2 {
        return None;
    }
    let series = |group: &&Group| {
        let at = |(i, population): (usize, &&str)| point((i + 1) as f64, values(group, loaded, population));
        let points = all.iter().enumerate().filter_map(at).collect();
        Series { label: part.label(group), look: part.look(group), points }
    };
    let names: Vec<String> = all.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1)).collect();
    Some(Plot {
        id: format!("{id}-silence"),
        title: "Silence by layer".into(),
        caption: format!(
            "Share of (neuron, step) pairs without a spike at the last update that was looked at; bands or bars span the seeds. \
             Populations from the input on: {}.",
            names.join(", ")
        ),
        x_label: "population, from the input on".into(),
        y_label: "silent (%)".into(),
        log_x: false,
        log_y: false,
        form: if groups.len() > MOST_LINES { Form::Panels } else { Form::Lines },
        series: groups.iter().map(series).collect(),
        frontier: Vec::new(),
        level: None,
    })
}

/// Lines up to which one drawing has them all.
const MOST_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::fixture::cell;
    use super::super::group::parts;
    use super::*;

    fn row(step: u64, layer: &str, quantity: &str, value: f64) -> LayerRow {
        LayerRow { step, layer: layer.into(), quantity: quantity.into(), value }
    }

    #[test]
    fn the_last_look_counts() {
        let rows = [
            row(1, "layers.0.pre", QUANTITY, 0.1),
            row(101, "layers.0.pre", QUANTITY, 0.5),
            row(101, "layers.0.post", QUANTITY, 0.75),
            row(201, "layers.0.post", "synaptic_acs", 3.0),
        ];
        assert_eq!(last(&rows), [("layers.0.pre".to_owned(), 0.5), ("layers.0.post".to_owned(), 0.75)]);
        assert_eq!(last(&rows[3..]), []);
    }

    #[test]
    fn populations_of_all_spiking_models_have_a_place() {
        let mut loaded = Loaded::default();
        let silent =
            |values: &[(&str, f64)]| values.iter().map(|(name, v)| ((*name).to_owned(), *v)).collect::<Vec<_>>();
        for (model, seed, values) in [
            ("bim", 1, &[("pre", 0.5), ("post", 0.8)][..]),
            ("bim", 2, &[("pre", 0.7), ("post", 0.9)]),
            ("snn", 1, &[("layers.0", 0.25)]),
            ("lstm", 1, &[]),
        ] {
            let mut row = cell(model, seed);
            (row.metric, row.split, row.value) = (Some("loss".into()), Some("test".into()), Some(1.0));
            if !values.is_empty() {
                loaded.silence.insert(row.cell.clone(), silent(values));
            }
            loaded.rows.push(row);
        }
        let all = parts(&loaded.rows);
        let table = table(&all[0], &loaded, "x").unwrap();
        let labels: Vec<&str> = table.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["model", "pre (%)", "post (%)", "layers.0 (%)"]);
        let text = |i: usize| table.rows[i].iter().map(|c| c.text.as_str()).collect::<Vec<_>>();
        assert_eq!(text(0), ["bim", "60.0", "85.0", "not measured"]);
        assert_eq!((text(1)[0], text(1)[3], table.rows.len()), ("snn", "25.0", 2));
        let plot = plot(&all[0], &loaded, "x").unwrap();
        let bim: Vec<(f64, f64)> = plot.series[0].points.iter().map(|p| (p.x, p.y)).collect();
        assert_eq!(bim, [(1.0, 60.0), (2.0, 85.0)]);
        assert!(plot.caption.ends_with("1 pre, 2 post, 3 layers.0."), "{}", plot.caption);
        assert_eq!((plot.series[0].points[0].low, plot.series[0].points[0].high), (50.0, 70.0));
        loaded.silence.clear();
        assert!(super::table(&all[0], &loaded, "x").is_none() && super::plot(&all[0], &loaded, "x").is_none());
    }
}
