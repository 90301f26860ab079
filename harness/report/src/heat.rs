//! Two settings swept in all combinations, as a map of values that says what differs from a reference.

use std::collections::BTreeSet;

use statistics::Better;
use statistics::adjust::adjust;
use statistics::best::FEWEST_SEEDS;
use statistics::paired::by_seed;

use super::catalogue;
use super::group::{Found, Group, Part, compare_values};
use super::model::{Cell, Column, Place, Table};
use super::tables::{mark_best, metric_cell, metric_info};

/// Chance of marking a combination that does not differ, adjusted over all of a map.
const LEVEL: f64 = 0.05;
/// Steps of the colours of a map.
const STEPS: f64 = 5.0;
/// Marks what differs from the reference.
const DIFFERS: &str = "≠";
/// Last part of the paths whose largest value is the reference: gradient alone, without STDP.
const LARGEST_IS_REFERENCE: &str = "lambda";

/// The first main metric of every model that was swept over exactly two settings in all combinations, as maps.
pub(super) fn maps(part: &Part, id: &str) -> Vec<Table> {
    let models: BTreeSet<&str> = part.groups.iter().map(|group| group.model).collect();
    models.into_iter().filter_map(|model| map(part, id, model)).collect()
}

fn map(part: &Part, id: &str, model: &str) -> Option<Table> {
    let groups: Vec<&Group> = part.groups.iter().filter(|group| group.model == model).collect();
    let [(down_path, _), (across_path, _)] = groups.first()?.point.as_slice() else { return None };
    let name = *part.main_metrics().first()?;
    let info = metric_info(part, name);
    let values = |axis: usize| -> Option<Vec<&str>> {
        let values = groups.iter().map(|group| group.point.get(axis).and_then(|setting| setting.1));
        let mut values: Vec<&str> = values.collect::<Option<BTreeSet<&str>>>()?.into_iter().collect();
        values.sort_by(|a, b| compare_values(a, b));
        Some(values)
    };
    let (rows, columns) = (values(0)?, values(1)?);
    let at = |row: &str, column: &str| {
        groups.iter().position(|g| g.point.iter().map(|setting| setting.1).eq([Some(row), Some(column)]))
    };
    if groups.len() != rows.len() * columns.len() || rows.len() < 2 || columns.len() < 2 {
        return None;
    }
    let found: Vec<Found> = groups.iter().map(|group| group.metric(name, Some(part.split))).collect();
    let mut cells: Vec<Cell> = groups.iter().zip(&found).map(|(group, f)| metric_cell(group, f, &info)).collect();
    let seeds: Vec<_> = groups.iter().map(|group| group.by_seed(name, Some(part.split))).collect();
    let marks_best = mark_best(&mut cells, &seeds, info.better);
    colour(&mut cells, info.better);
    let label = |path: &str| part.varying.iter().find(|v| v.path == path).map_or(path.to_owned(), |v| v.label.clone());
    let (down, across) = (label(down_path), label(across_path));
    let (row, column) = (reference(down_path, &rows)?, reference(across_path, &columns)?);
    let title = format!("{}: {} by {down} and {across}", model, info.label);
    let mut caption = format!("Rows: {down}. Columns: {across}. Values as in the table of results.");
    if let Some((adjustment, tests)) = at(row, column).and_then(|i| mark_differences(&mut cells, &seeds, i)) {
        caption = format!(
            "{caption} {DIFFERS}: differs from {down} {row}, {across} {column} at 5 % (paired t tests by seed, adjusted over \
             {tests} by {adjustment})."
        );
    }
    let mut table = Table::empty(format!("{id}-grid-{}", catalogue::slug(model)), title, caption);
    (table.marks_best, table.place, table.open, table.map) = (marks_best, Place::Everywhere, true, true);
    table.push_column(Column::number(&down), rows.iter().map(|row| Cell::new(*row)).collect());
    for column in &columns {
        let column_cells: Option<Vec<Cell>> =
            rows.iter().map(|row| at(row, column).and_then(|i| cells.get(i)).cloned()).collect();
        // a column without a value must stay: the grid is complete, and its cells say why there is none
        table.columns.push(Column::number(format!("{across} {column}")));
        for (row, cell) in table.rows.iter_mut().zip(column_cells?) {
            row.push(cell);
        }
    }
    Some(table)
}

/// The value of a setting that others are held against: no STDP, no pruning, none of what the sweep adds.
fn reference<'a>(path: &str, values: &[&'a str]) -> Option<&'a str> {
    let largest = path.rsplit('.').next() == Some(LARGEST_IS_REFERENCE);
    if largest { values.last().copied() } else { values.first().copied() }
}

/// Each value's place in the range of all, 0 for the best (or the lowest, where neither direction is good).
fn colour(cells: &mut [Cell], better: Option<Better>) {
    let loss = |value: f64| if better == Some(Better::Higher) { -value } else { value };
    let losses: Vec<f64> = cells.iter().filter_map(|cell| cell.value).map(loss).collect();
    let (low, high) = losses.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    for cell in cells {
        let share = |value: f64| if high > low { (loss(value) - low) / (high - low) } else { 0.0 };
        cell.heat = cell.value.map(|value| (share(value) * STEPS).floor().min(STEPS - 1.0) as u8);
    }
}

/// Marks the cells whose values differ from those of the cell `reference`; how it was adjusted, over how many tests. `None` where no
/// two cells can be compared.
fn mark_differences(
    cells: &mut [Cell],
    seeds: &[std::collections::BTreeMap<u64, f64>],
    reference: usize,
) -> Option<(&'static str, usize)> {
    let base = seeds.get(reference)?;
    let enough = |own: &_| by_seed(own, base).filter(|paired| paired.difference.n >= FEWEST_SEEDS);
    let test = |(i, own): (usize, &_)| Some((i, enough(own)?.t?));
    let tests: Vec<(usize, f64)> = seeds.iter().enumerate().filter(|(i, _)| *i != reference).filter_map(test).collect();
    let (adjusted, adjustment) = adjust(&tests.iter().map(|test| test.1).collect::<Vec<f64>>());
    for ((i, _), p) in tests.iter().zip(adjusted) {
        if let Some(cell) = cells.get_mut(*i).filter(|_| p < LEVEL) {
            cell.text = format!("{} {DIFFERS}", cell.text);
        }
    }
    (!tests.is_empty()).then(|| (adjustment.name(), tests.len()))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    #[test]
    fn a_map_says_what_differs_from_no_stdp_and_no_pruning() {
        let loaded = fixture::sweep();
        let parts = parts(&loaded.rows);
        let maps = maps(&parts[0], "x");
        let map = &maps[0];
        assert!(map.map && map.caption.contains("≠: differs from lambda 1.0, target 0.5 at 5 %"), "{}", map.caption);
        assert!(map.caption.contains("adjusted over 5 by Holm"), "{}", map.caption);
        let cell = |row: usize, column: usize| &map.rows[row][column];
        assert_eq!(cell(2, 1).text, "2.220 [2.195, 2.245]", "the reference itself");
        assert_eq!(cell(0, 2).text, "2.070 [2.045, 2.095] ≠");
        assert_eq!((cell(0, 1).heat, cell(2, 2).heat, cell(1, 1).heat), (Some(0), Some(4), Some(2)));
    }

    #[test]
    fn two_seeds_mark_nothing() {
        for most in [1, 2] {
            let mut loaded = fixture::sweep();
            loaded.rows.retain(|row| row.seed <= most);
            let parts = parts(&loaded.rows);
            let map = &maps(&parts[0], "x")[0];
            let marked = map.rows.iter().flatten().any(|cell| cell.text.contains(DIFFERS));
            assert!(!map.caption.contains(DIFFERS) && !marked, "{most}");
        }
    }
}
