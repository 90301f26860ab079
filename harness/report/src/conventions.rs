//! Operations as other tools would count them, and the prices at which the order of models turns over.

use super::catalogue;
use super::energy::{is_bound, mean};
use super::group::{Group, Part};
use super::model::{Cell, Column, Place, Table};
use super::provenance;
use super::tables::label_columns;

/// Crossings of models that are listed.
const MOST_CROSSINGS: usize = 12;

/// Forward weight products in four conventions, and where the order of models turns over.
pub(super) fn table(part: &Part, id: &str) -> Option<Table> {
    part.groups.iter().find(|group| mean(group, "neurobench_macs").is_some())?;
    let unit = provenance::unit(part);
    let caption = format!(
        "Multiply–accumulates (MAC) and accumulates (AC) of the forward weight products per {}, mean over the last fifth of \
         training. Ours: neither weight nor input zero; AC where the input is a spike by type, a burst of n as n. NeuroBench: \
         AC where a whole input tensor is -1, 0 or 1. SpikingJelly: AC where it is 0 or 1; zero weights count. syops-counter: \
         as SpikingJelly, with biases. Attention, scans and element-wise work are in none of them.",
        unit.strip_suffix('s').unwrap_or(unit)
    );
    let mut table = Table::empty(format!("{id}-conventions"), "Operations in four conventions", caption);
    table.place = Place::Detail;
    label_columns(&mut table, part, None);
    for (label, names) in CONVENTIONS {
        for (kind, name) in ["MAC", "AC"].into_iter().zip(names) {
            let cell = |group: &Group| {
                let count = |n: f64| catalogue::count(n.round() as u64);
                let bound = if is_bound(group, "op_coverage") { "≥ " } else { "" };
                Cell::measured(mean(group, name).map(|n| format!("{bound}{}", count(n))))
            };
            table.push_column(Column::number(format!("{label} {kind}")), part.groups.iter().map(cell).collect());
        }
    }
    for (label, names) in CONVENTIONS {
        table.notes.extend(crossings(part, label, names));
    }
    Some(table)
}

const CONVENTIONS: [(&str, [&str; 2]); 4] = [
    ("ours", ["weight_macs_forward", "acs_forward"]),
    ("NeuroBench", ["neurobench_macs", "neurobench_acs"]),
    ("SpikingJelly", ["spikingjelly_macs", "spikingjelly_acs"]),
    ("syops", ["syops_macs", "syops_acs"]),
];

/// Price of a multiply–accumulate in accumulates at which two models cost the same; `None` where one always costs less.
fn crossing(a: [f64; 2], b: [f64; 2]) -> Option<f64> {
    let ratio = (b[1] - a[1]) / (a[0] - b[0]);
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn crossings(part: &Part, convention: &str, [macs, acs]: [&str; 2]) -> Option<String> {
    let counted: Vec<(String, [f64; 2])> =
        part.groups.iter().filter_map(|g| Some((part.label(g), [mean(g, macs)?, mean(g, acs)?]))).collect();
    let mut found = Vec::new();
    for (i, (first, a)) in counted.iter().enumerate() {
        for (second, b) in counted.iter().skip(i + 1) {
            if let Some(ratio) = crossing(*a, *b) {
                // above it, whoever has more multiply–accumulates costs more
                let (less, more) = if a[0] < b[0] { (first, second) } else { (second, first) };
                found.push((ratio, format!("{less} below {more} from {}", catalogue::significant(ratio, 3))));
            }
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = found.len();
    let mut texts: Vec<String> = found.into_iter().take(MOST_CROSSINGS).map(|(_, text)| text).collect();
    if all > texts.len() {
        texts.push(format!("and {} more", all - texts.len()));
    }
    let what = "price of a MAC in ACs at which the order of two models turns over";
    (!texts.is_empty()).then(|| format!("By {convention} counts, {what}: {}.", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::energy::tests::counted;
    use super::super::group::parts;
    use super::*;

    #[test]
    fn the_order_turns_over_where_the_prices_say() {
        assert_eq!(crossing([100.0, 900.0], [400.0, 0.0]), Some(3.0)); // 100·3 + 900 = 400·3
        assert_eq!(crossing([100.0, 0.0], [400.0, 900.0]), None);
        assert_eq!(crossing([100.0, 0.0], [100.0, 900.0]), None);
        let all = [counted("bim", 2.0, 1.0, [100.0, 900.0], 1.0), counted("lstm", 2.2, 2.0, [400.0, 0.0], 1.0)];
        let rows = all.concat();
        let parts = parts(&rows);
        let table = table(&parts[0], "x").unwrap();
        assert!(table.notes[0].ends_with("turns over: bim below lstm from 3.00."), "{:?}", table.notes);
    }
}
