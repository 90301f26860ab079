//! What neurons send on a sample input: a mark for every spike, and how often each neuron fires.

use super::group::Part;
use super::model::{Form, Loaded, Plot, Point, Series};
use data::account::inert;
use rows::SpikeRow;

/// Models of a task whose spikes are drawn, at most.
pub(super) const MODELS: usize = 3;
/// Neurons of a population that are drawn, at most.
const NEURONS: u64 = 64;
/// Neurons of a population in a file, at most.
const MOST_NEURONS: u64 = 65_536;
/// Bins of a histogram of rates.
const BINS: usize = 10;

/// Rows without characters that act on a terminal.
pub(super) fn quiet(rows: Vec<SpikeRow>) -> Vec<SpikeRow> {
    rows.into_iter().map(|row| SpikeRow { layer: inert(&row.layer), ..row }).collect()
}

/// What a population sent.
struct Population<'a> {
    name: &'a str,
    neurons: u64,
    steps: u64,
    /// Step and neuron of every spike.
    spikes: Vec<(u64, u64)>,
}

/// Populations in the order in which they were written: from the input on.
fn populations(rows: &[SpikeRow]) -> Vec<Population<'_>> {
    let mut all: Vec<Population<'_>> = Vec::new();
    for row in rows {
        if all.last().is_none_or(|last| last.name != row.layer) {
            all.push(Population { name: &row.layer, neurons: row.neurons, steps: row.steps, spikes: Vec::new() });
        }
        if let Some(last) = all.last_mut().filter(|_| row.level != 0.0) {
            last.spikes.push((row.step, row.neuron));
        }
    }
    all
}

/// For each model whose spikes were written down: a raster, and a histogram of rates.
pub(super) fn plots(part: &Part, loaded: &Loaded, id: &str) -> Vec<Plot> {
    let mut all = Vec::new();
    for group in &part.groups {
        let Some((seed, rows)) =
            group.completed().find_map(|run| Some((run.head.seed, loaded.spikes.get(&run.head.cell)?)))
        else {
            continue;
        };
        let (label, look, of) = (part.label(group), part.look(group), populations(rows));
        let steps = of.iter().map(|p| p.steps).max().unwrap_or_default();
        let slug = super::catalogue::slug(&label);
        let series = |points: fn(&Population) -> Vec<Point>| {
            of.iter().map(|p| Series { label: p.name.to_owned(), look, points: points(p) }).collect::<Vec<_>>()
        };
        let plot = |id: String, title: String, caption: String, axes: [&str; 2], form, series| Plot {
            id,
            title,
            caption,
            x_label: axes[0].into(),
            y_label: axes[1].into(),
            log_x: false,
            log_y: false,
            form,
            series,
            frontier: Vec::new(),
            level: None,
        };
        let input = format!("the first {steps} steps of the scored part, after training with seed {seed}");
        all.push(plot(
            format!("{id}-raster-{slug}"),
            format!("{label}: spikes on a sample input"),
            format!("A mark where a neuron sent at least one spike: the first {NEURONS} neurons of each population, on {input}."),
            ["step", "neuron"],
            Form::Spikes,
            series(raster),
        ));
        all.push(plot(
            format!("{id}-rates-{slug}"),
            format!("{label}: how often neurons fire"),
            format!("Neurons of each population, the first 256 of larger ones, by the share of steps in which they sent a spike: {BINS} bins, on {input}."),
            ["steps with a spike (%)", "neurons (%)"],
            Form::Panels,
            series(rates),
        ));
    }
    all
}

fn point(x: f64, y: f64) -> Point {
    Point { x, y, low: y, high: y }
}

fn raster(population: &Population) -> Vec<Point> {
    let shown = population.spikes.iter().filter(|(_, neuron)| *neuron < NEURONS);
    let mut points: Vec<(u64, u64)> = shown.map(|(step, neuron)| (*neuron, *step)).collect();
    points.sort_unstable();
    points.into_iter().map(|(neuron, step)| point(step as f64, neuron as f64)).collect()
}

/// The outline of a histogram: two points for each bin.
fn rates(population: &Population) -> Vec<Point> {
    let mut fired = vec![0_u64; population.neurons.min(MOST_NEURONS) as usize];
    for (_, neuron) in &population.spikes {
        if let Some(n) = fired.get_mut(*neuron as usize) {
            *n += 1;
        }
    }
    let mut bins = [0_u64; BINS];
    for n in &fired {
        let bin = (*n as usize * BINS / (population.steps as usize).max(1)).min(BINS - 1);
        if let Some(bin) = bins.get_mut(bin) {
            *bin += 1;
        }
    }
    let width = 100.0 / BINS as f64;
    let bin = |(i, n): (usize, &u64)| {
        let share = 100.0 * *n as f64 / fired.len().max(1) as f64;
        [point(i as f64 * width, share), point((i + 1) as f64 * width, share)]
    };
    bins.iter().enumerate().flat_map(bin).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::cell;
    use super::super::group::parts;
    use super::*;

    fn row(layer: &str, step: u64, neuron: u64, level: f64) -> SpikeRow {
        SpikeRow { layer: layer.into(), neurons: 4, steps: 10, neuron, step, level }
    }

    #[test]
    fn every_spike_has_its_mark_and_every_neuron_its_bin() {
        let mut rows: Vec<SpikeRow> = (0..10).map(|step| row("pre", step, 1, 2.0)).collect();
        rows.extend([row("pre", 3, 0, -1.0), row("post", 0, 0, 0.0)]);
        let mut loaded = Loaded::default();
        let mut head = cell("bim", 1);
        (head.metric, head.split, head.value) = (Some("loss".into()), Some("test".into()), Some(1.0));
        loaded.spikes.insert(head.cell.clone(), rows);
        loaded.rows.push(head);
        let plots = plots(&parts(&loaded.rows)[0], &loaded, "x");
        let [raster, rates] = plots.as_slice() else { panic!("{plots:?}") };
        let marks: Vec<(f64, f64)> = raster.series[0].points.iter().map(|p| (p.x, p.y)).collect();
        assert_eq!((marks.len(), marks[0], marks[1]), (11, (3.0, 0.0), (0.0, 1.0)));
        assert_eq!((raster.series[1].label.as_str(), raster.series[1].points.len()), ("post", 0), "silent");
        // two neurons never, one in one step of ten, one always
        let shares: Vec<f64> = rates.series[0].points.iter().step_by(2).map(|p| p.y).collect();
        assert_eq!(shares, [50.0, 25.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 25.0]);
        assert_eq!(rates.series[1].points[..2], [point(0.0, 100.0), point(10.0, 100.0)]);
        let page = super::super::plot::html(raster);
        assert!(page.contains("class=\"spikes\"") && page.matches("<svg").count() == 2, "{page}");
    }
}
