//! Whether weight updates decay with the spike time difference as the STDP window does (paper §4.6): curves, fits, verdicts.

mod measured;

use bim::time_differences::Quantity;

use super::catalogue::{self, significant};
use super::group::{Group, Part};
use super::look::{Kind, Look};
use super::model::{Cell, Column, Form, Loaded, Outcome, Place, Plot, Point, Series, Table};
use measured::{Fitted, Measured, Side, SideFit};
use statistics::fit::Exponential;

/// Kinds of pathway, by the end of their name, with what they connect.
const KINDS: [(&str, &str); 2] = [("input", "input synapses (W_u)"), ("output", "output synapses (W_out)")];
/// Share of the variance over the differences that an exponential must explain before its τ is worth comparing. Noise about
/// a level stays far below it, the window itself as the STDP term gives it back far above.
const LEAST_R_SQUARED: f64 = 0.9;
/// Share of the window's τ by which another may differ and still be called the same, however narrow its interval: pairs further
/// apart than were looked at leak into the last differences.
const SAME_TAU: f64 = 0.05;
/// The end of the table's identifier.
const TABLE: &str = "-time-differences";
/// What a note begins with where not even STDP came back.
const LOST: &str = "The control did not come back as its window";
/// The paper's claim, as a verdict.
const AS_THE_WINDOW: &str = "decays as the window does";

/// The STDP window of a configuration, eq. 6.
#[derive(Clone, Copy, Debug)]
struct Window {
    plus: WindowSide,
    minus: WindowSide,
    at_zero: f64,
}

/// One side of the window: `amplitude · e^{−|Δ|/τ}`.
#[derive(Clone, Copy, Debug)]
struct WindowSide {
    amplitude: f64,
    tau: f64,
}

impl Window {
    fn of(group: &Group) -> Option<Self> {
        let config = &group.runs.first()?.head.config;
        let value = |key: &str| config.get(&format!("model.stdp.{key}"))?.parse::<f64>().ok();
        Some(Self {
            plus: WindowSide { amplitude: value("a_plus")?, tau: value("tau_plus")? },
            minus: WindowSide { amplitude: -value("a_minus")?, tau: value("tau_minus")? },
            at_zero: value("at_zero")?,
        })
    }

    fn side(&self, side: Side) -> WindowSide {
        if side == Side::After { self.plus } else { self.minus }
    }

    fn at(&self, lag: i64) -> f64 {
        let part = if lag > 0 { self.plus } else { self.minus };
        if lag == 0 { self.at_zero } else { part.amplitude * (-(lag.abs() as f64) / part.tau).exp() }
    }
}

fn name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Gradient => "gradient",
        Quantity::Direction => "optimiser's direction",
        Quantity::Stdp => "STDP term",
        Quantity::Mixed => "mixed update",
        Quantity::Pairs => "pairs",
    }
}

/// Place of fits among the ordered hues.
const FITTED: usize = 6;

/// Updates are no models: they have the ordered hues, far apart.
fn look(quantity: Quantity) -> Look {
    let hue = match quantity {
        Quantity::Gradient | Quantity::Pairs => 0,
        Quantity::Direction => 3,
        Quantity::Stdp => 5,
        Quantity::Mixed => 8,
    };
    Look { kind: Kind::Other, hue: Some(hue) }
}

fn side_name(side: Side) -> &'static str {
    if side == Side::After { "pre before post" } else { "post before pre" }
}

/// What was measured of each configuration and kind of pathway.
fn all<'a>(part: &'a Part, loaded: &'a Loaded) -> Vec<(&'a Group<'a>, usize, Measured)> {
    let kinds = |group: &'a Group<'a>| {
        let of = move |(i, (kind, _))| Some((group, i, Measured::collect(group, loaded, kind)?));
        KINDS.into_iter().enumerate().filter_map(of)
    };
    part.groups.iter().flat_map(kinds).collect()
}

/// Fits and verdicts; `None` if nothing was measured by time difference.
pub(super) fn table(part: &Part, loaded: &Loaded, id: &str) -> Option<Table> {
    let all = all(part, loaded);
    let (_, _, first) = all.first()?;
    let seeds = all.iter().map(|(_, _, m)| m.seeds()).max().unwrap_or(0);
    let resampled = match seeds {
        1 => "measured updates (1 seed: how seeds differ is not in it)",
        _ => "seeds and measured updates within each",
    };
    let caption = format!(
        "The update that goes with a pair of spikes Δ = t_post − t_pre steps apart (1 to {}), pairs at all other differences \
         being equal: least squares of each update on the pairs at every difference at once, then the mean weighted by pairs \
         over all layers and seeds and the updates measured in the last half of training; up to {} a seed. Fitted on either side of Δ = 0 by \
         A e^(−|Δ|/τ), least squares weighted by pairs. R²: share of the variance about the mean. Intervals of τ: 95 % \
         percentile bootstrap over {resampled}, as if these were independent. The STDP term is the control: the window is all \
         there is in it, so what it loses is lost by the measure. Updates are descent: before the optimiser (gradient), behind \
         it (direction), and with STDP (mixed).",
        first.furthest(),
        all.iter().map(|(_, _, m)| m.most_updates()).max().unwrap_or(0),
    );
    let mut table =
        Table::empty(format!("{id}{TABLE}"), "Updates by spike time difference (paper, section 4.6)", caption);
    (table.place, table.open) = (Place::Everywhere, true);
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut lost: Vec<String> = Vec::new();
    for (group, kind, measured) in &all {
        let window = Window::of(group);
        let (label, kind) = (part.label(group), KINDS.get(*kind).map_or("", |kind| kind.1));
        for (quantity, side, fit) in measured.fits() {
            let window = window.map(|w| w.side(side));
            // of spikes in random order of time the window must not come back
            if quantity == Quantity::Stdp && !shuffled(group) && verdict(fit.as_ref(), window) != AS_THE_WINDOW {
                lost.push(format!("{label}, {kind}, {}", side_name(side)));
            }
            rows.push(row(&label, kind, quantity, side, fit.as_ref(), window));
        }
    }
    let numbers = |label: &str| Column::number(label);
    let columns = [Column::text("model"), Column::text("synapses"), Column::text("update"), Column::text("spikes")]
        .into_iter()
        .chain(["A", "τ (steps)", "95 % of τ", "R²", "τ of the window"].map(numbers))
        .chain([Column::text("verdict")]);
    (table.columns, table.rows, table.labels) = (columns.collect(), rows, 4);
    table.notes.push(format!(
        "\"decays as the window does\": R² of {LEAST_R_SQUARED} or more, the window's sign, and the window's τ within the interval \
         or no more than {:.0} % away. \
         \"flat or not exponential\": R² below that, or no best τ within the range that was searched.",
        100.0 * SAME_TAU,
    ));
    if !lost.is_empty() {
        table.notes.push(format!(
            "{LOST} for: {}. There this measure cannot tell an update that decays as the \
             window does from one that does not.",
            lost.join("; ")
        ));
    }
    Some(table)
}

/// Whether a table is the one of [`table`].
pub(super) fn is_table(table: &Table) -> bool {
    table.id.ends_with(TABLE)
}

/// What the table says of the paper's claim, by the mixed updates, or by the gradients where nothing is mixed; configurations with
/// shuffled spikes are controls and do not count.
pub(super) fn claim(table: &Table) -> (Outcome, String, String) {
    let text = |row: &[Cell], i: usize| row.get(i).map_or_else(String::new, |cell| cell.text.clone());
    let count = |quantity: Quantity| {
        let rows =
            || table.rows.iter().filter(|row| text(row, 2) == name(quantity) && !text(row, 0).contains("shuffled"));
        let decays = rows().filter(|row| row.last().is_some_and(|cell| cell.text == AS_THE_WINDOW)).count();
        (decays, rows().count())
    };
    let (mixed, gradient) = (count(Quantity::Mixed), count(Quantity::Gradient));
    let (decays, all) = if mixed.1 > 0 { mixed } else { gradient };
    let lost = table.notes.iter().any(|note| note.starts_with(LOST));
    let outcome = match decays {
        _ if all == 0 || lost => Outcome::Undecided,
        0 => Outcome::DidNotHold,
        n if n == all => Outcome::Held,
        _ => Outcome::InPart,
    };
    let words = if lost { "undecided: the control was lost".to_owned() } else { outcome.words().to_owned() };
    let of = |(decays, all): (usize, usize), name: &str| (all > 0).then(|| format!("{name} {decays} of {all} fits"));
    let texts: Vec<String> =
        [of(mixed, "mixed updates"), of(gradient, "gradients alone")].into_iter().flatten().collect();
    (outcome, words, format!("decay as the window does: {}", texts.join("; ")))
}

fn shuffled(group: &Group) -> bool {
    group.runs.first().is_some_and(|run| run.head.config.get("model.stdp.shuffled").is_some_and(|v| v == "true"))
}

fn row(
    model: &str,
    kind: &str,
    quantity: Quantity,
    side: Side,
    fit: Option<&SideFit>,
    window: Option<WindowSide>,
) -> Vec<Cell> {
    let steps = |tau: f64| significant(tau, 3);
    let found = fit.map(|f| f.fit);
    let tau = found.map(|f| if f.inside { steps(f.tau) } else { "none".into() });
    let interval = fit.and_then(|f| {
        let (low, high) = f.tau?;
        let high = if high >= f.longest { "no limit".into() } else { steps(high) };
        Some(format!("[{}, {high}]", steps(low)))
    });
    let absent = |text: Option<String>, why: &str| text.map_or_else(|| Cell::absent(why), Cell::new);
    vec![
        Cell::new(model),
        Cell::new(kind),
        Cell::new(name(quantity)),
        Cell::new(side_name(side)),
        // at an end of the range that was searched, A belongs to no τ
        absent(found.filter(|f| f.inside).map(|f| significant(f.amplitude, 3)), "no fit"),
        absent(tau, "no fit"),
        absent(interval, "no interval"),
        absent(found.map(|f| format!("{:.3}", f.r_squared)), "no fit"),
        absent(window.map(|w| steps(w.tau)), "not recorded"),
        Cell::new(verdict(fit, window)),
    ]
}

fn verdict(fit: Option<&SideFit>, window: Option<WindowSide>) -> &'static str {
    let (Some(fit), Some(window)) = (fit, window) else { return "not measured" };
    let found = fit.fit;
    if !found.inside || found.r_squared < LEAST_R_SQUARED {
        return "flat or not exponential";
    }
    if window.amplitude == 0.0 {
        return "decays; the window has no such side";
    }
    if found.amplitude.signum() != window.amplitude.signum() {
        return "decays, with the other sign than the window";
    }
    match fit.tau {
        None => "decays; without an interval its τ cannot be compared",
        Some((low, high)) if (low..=high).contains(&window.tau) => AS_THE_WINDOW,
        _ if (found.tau / window.tau - 1.0).abs() <= SAME_TAU => AS_THE_WINDOW,
        Some((low, _)) if window.tau < low => "decays, slower than the window",
        Some(_) => "decays, faster than the window",
    }
}

/// Update per pair against the difference, beside the window, each line in units of its largest absolute value.
pub(super) fn plots(part: &Part, loaded: &Loaded, id: &str) -> Vec<Plot> {
    let plot = |(group, kind, measured): &(&Group, usize, Measured)| {
        let (short, long) = *KINDS.get(*kind)?;
        let label = part.label(group);
        let mut series: Vec<Series> = measured.quantities().filter_map(|q| line(measured, q)).collect();
        series.extend(Window::of(group).and_then(|w| window_line(&w, measured.furthest())));
        let fits = fit_lines(measured, Quantity::Mixed);
        let fitted = if fits.is_empty() { "" } else { " Fits are exponentials through the mixed update." };
        series.extend(fits);
        Some(Plot {
            id: format!("{id}-time-differences-{}-{short}", catalogue::slug(&label)),
            title: format!("Update by spike time difference: {label}, {long}"),
            caption: format!(
                "Update per pair of spikes, other pairs being equal, each line divided by its largest absolute value so that shapes can be compared; \
                 the table has sizes.{fitted} {} The spikes of a pair at Δ > 0 come pre before post.",
                if measured.seeds() > 1 { "Bands span the seeds." } else { "1 seed, no interval." }
            ),
            x_label: "Δ = t_post − t_pre (steps)".into(),
            y_label: "update per pair, scaled".into(),
            log_x: false,
            log_y: false,
            form: Form::Lines,
            series,
            frontier: Vec::new(),
            level: None,
        })
    };
    all(part, loaded).iter().filter_map(plot).collect()
}

fn line(measured: &Measured, quantity: Quantity) -> Option<Series> {
    let curve = measured.curve(quantity);
    let largest = curve.iter().map(|p| p.1.abs()).fold(0.0, f64::max);
    let of_seeds: Vec<_> = (0..measured.seeds()).map(|seed| measured.curve_of_seed(seed, quantity)).collect();
    let point = |&(lag, mean): &(i64, f64)| {
        let seeds = || of_seeds.iter().flat_map(|c| c.iter().filter(|p| p.0 == lag).map(|p| p.1 / largest));
        let y = mean / largest;
        Point { x: lag as f64, y, low: seeds().fold(y, f64::min), high: seeds().fold(y, f64::max) }
    };
    (largest > 0.0).then(|| Series {
        label: name(quantity).into(),
        look: look(quantity),
        points: curve.iter().map(point).collect(),
    })
}

/// The exponential through each side of a quantity that has one which explains it, scaled as its line is.
fn fit_lines(measured: &Measured, quantity: Quantity) -> Vec<Series> {
    let largest = measured.curve(quantity).iter().map(|p| p.1.abs()).fold(0.0, f64::max);
    let point = |fit: &Exponential, lag: i64| {
        let y = fit.amplitude * (-(lag.abs() as f64) / fit.tau).exp() / largest;
        Point { x: lag as f64, y, low: y, high: y }
    };
    let explains = |fitted: &Fitted| fitted.fit.inside && fitted.fit.r_squared >= LEAST_R_SQUARED;
    let line = |Fitted { side, fit, mut lags }: Fitted| {
        lags.sort_unstable();
        let label = format!("fit, {}: τ {}", side_name(side), significant(fit.tau, 3));
        let points = lags.into_iter().map(|lag| point(&fit, lag)).collect();
        Series { label, look: Look { kind: Kind::Other, hue: Some(FITTED) }, points }
    };
    measured.fitted(quantity).into_iter().filter(explains).map(line).collect()
}

fn window_line(window: &Window, most: i64) -> Option<Series> {
    let values: Vec<(f64, f64)> = (-most..=most).map(|lag| (lag as f64, window.at(lag))).collect();
    let largest = values.iter().map(|v| v.1.abs()).fold(0.0, f64::max);
    let point = |(x, value): (f64, f64)| {
        let y = value / largest;
        Point { x, y, low: y, high: y }
    };
    let points = values.into_iter().map(point).collect();
    (largest > 0.0).then(|| Series {
        label: "STDP window (set)".into(),
        look: Look { kind: Kind::Other, hue: None },
        points,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    fn cells(table: &Table, update: &str, spikes: &str) -> Vec<String> {
        let row = table.rows.iter().find(|row| row[2].text == update && row[3].text == spikes).unwrap();
        row.iter().skip(4).map(|cell| cell.text.clone()).collect()
    }

    #[test]
    fn verdicts_follow_from_what_was_measured() {
        let loaded = fixture::time_differences(&[1, 2, 3]);
        let parts = parts(&loaded.rows);
        let table = table(&parts[0], &loaded, "x").unwrap();
        assert!(table.caption.contains("over seeds and measured updates") && table.caption.contains("up to 5 a seed"));
        let stdp = cells(&table, "STDP term", "pre before post");
        assert!((stdp[1].parse::<f64>().unwrap() - 5.0).abs() < 0.3, "{stdp:?}");
        assert_eq!((stdp[4].as_str(), stdp[5].as_str()), ("5.00", "decays as the window does"));
        let behind = cells(&table, "STDP term", "post before pre");
        assert!((behind[1].parse::<f64>().unwrap() - 3.0).abs() < 0.2, "{behind:?}");
        assert!(behind[0].starts_with('-') && behind[5] == "decays as the window does", "{behind:?}");
        let mixed = cells(&table, "mixed update", "pre before post");
        assert!((mixed[1].parse::<f64>().unwrap() - 2.0).abs() < 0.1, "{mixed:?}");
        assert_eq!(mixed[5], "decays, faster than the window");
        let gradient = cells(&table, "gradient", "pre before post");
        assert_eq!(gradient[5], "flat or not exponential", "{gradient:?}");
        assert_eq!((gradient[0].as_str(), gradient[1].as_str()), ("no fit", "none"));
        assert_eq!(table.notes.len(), 1, "the control came back: {:?}", table.notes);
        let (outcome, _, number) = claim(&table);
        assert_eq!(outcome, Outcome::InPart, "behind the spike the mixed update has the window's τ");
        assert_eq!(number, "decay as the window does: mixed updates 1 of 2 fits; gradients alone 0 of 2 fits");
        assert_eq!(table.rows.len(), 6, "directions were not measured, output synapses neither");
    }

    /// Where even STDP does not come back as its window, nothing follows about the rest, and the table says so.
    #[test]
    fn a_lost_control_is_named() {
        let mut loaded = fixture::time_differences(&[1, 2]);
        for row in loaded.differences.values_mut().flatten() {
            if row.quantity == Quantity::Stdp && row.lag > 1 {
                row.value = -row.value;
            }
        }
        let parts = parts(&loaded.rows);
        let table = table(&parts[0], &loaded, "x").unwrap();
        let note = &table.notes[1];
        assert!(note.contains("for: bim, input synapses (W_u), pre before post. There"), "{note}");
        assert_eq!(claim(&table).0, Outcome::Undecided);
    }

    #[test]
    fn one_seed_says_so() {
        let loaded = fixture::time_differences(&[1]);
        let parts = parts(&loaded.rows);
        let table = table(&parts[0], &loaded, "x").unwrap();
        assert!(table.caption.contains("1 seed: how seeds differ is not in it"), "{}", table.caption);
        assert!(plots(&parts[0], &loaded, "x")[0].caption.contains("1 seed, no interval"));
    }

    #[test]
    fn lines_are_scaled_and_stand_beside_the_window() {
        let loaded = fixture::time_differences(&[1, 2]);
        let parts = parts(&loaded.rows);
        let plots = plots(&parts[0], &loaded, "x");
        assert_eq!(plots.len(), 1);
        let labels: Vec<&str> = plots[0].series.iter().map(|s| s.label.as_str()).collect();
        let measured = ["gradient", "STDP term", "mixed update", "STDP window (set)"];
        assert_eq!(labels[..4], measured);
        assert!(
            labels[4].starts_with("fit, pre before post: τ 2.0") && labels[5].starts_with("fit, post before pre: τ 3."),
            "{labels:?}"
        );
        let (mixed, fit) = (&plots[0].series[2], &plots[0].series[4]);
        for point in &fit.points {
            let beside = mixed.points.iter().find(|p| p.x.total_cmp(&point.x).is_eq()).unwrap();
            assert!(point.x > 0.0 && (beside.y - point.y).abs() < 0.05, "{point:?} {beside:?}");
        }
        for series in &plots[0].series[..4] {
            let largest = series.points.iter().map(|p| p.y.abs()).fold(0.0, f64::max);
            assert!((largest - 1.0).abs() < 1e-12 && series.points.len() == 17, "{}", series.label);
        }
        let (stdp, window) = (&plots[0].series[1], &plots[0].series[3]);
        let apart = stdp.points.iter().zip(&window.points).map(|(a, b)| (a.y - b.y).abs()).fold(0.0, f64::max);
        assert!(apart < 0.02, "{apart}"); // the noise is 0.01 of 1
    }

    #[test]
    fn cells_that_measured_nothing_have_no_table() {
        let loaded = fixture::quickstart();
        let parts = parts(&loaded.rows);
        assert!(table(&parts[0], &loaded, "x").is_none() && plots(&parts[0], &loaded, "x").is_empty());
    }
}
