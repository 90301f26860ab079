//! Points drawn from ranges.

use super::*;

/// The values of `m.v`, one for each cell.
fn drawn(sample: &str) -> Vec<f64> {
    values(sample, "m.v")
}

fn values(sample: &str, path: &str) -> Vec<f64> {
    let yaml = format!("experiment: x\ntask: {{kind: t}}\nmodels: [m]\nsweep:\n  sample: {sample}\n");
    let (cells, _, _dir) = cells_of(&[("grid.yaml", &yaml)], &Selection::default());
    let value = |cell: &RawCell| {
        let found = cell.sweep_point.iter().find(|(at, _)| at == path).unwrap();
        found.1.parse().unwrap()
    };
    cells.unwrap_or_else(|e| panic!("{e}")).iter().map(value).collect()
}

#[test]
fn a_latin_hypercube_has_one_value_in_each_part_of_each_range() {
    let sample = "{points: 40, m.v: {low: 2, high: 4}, m.w: {low: 1e-4, high: 1, scale: log}}";
    let count = |values: Vec<f64>, part: &dyn Fn(f64) -> f64| {
        let mut parts: Vec<usize> = values.iter().map(|v| (part(*v) * 40.0) as usize).collect();
        parts.sort_unstable();
        parts
    };
    let each: Vec<usize> = (0..40).collect();
    assert_eq!(count(drawn(sample), &|v| (v - 2.0) / 2.0), each);
    assert_eq!(count(values(sample, "m.w"), &|w| 1.0 + w.log10() / 4.0), each);
    let (v, w) = (drawn(sample), values(sample, "m.w"));
    let falls = v.windows(2).zip(w.windows(2)).filter(|(v, w)| (v[0] < v[1]) != (w[0] < w[1])).count();
    assert!((10..30).contains(&falls), "the two columns go together: {v:?} {w:?}");
}

#[test]
fn random_points_stay_when_more_are_asked_for() {
    let few = drawn("{points: 8, seed: 3, method: random, m.v: {low: 0, high: 1}}");
    let more = drawn("{points: 30, seed: 3, method: random, m.v: {low: 0, high: 1}}");
    assert_eq!(few, more[..8]);
    let with_another = drawn("{points: 8, seed: 3, method: random, m.w: {low: 0, high: 1}, m.v: {low: 0, high: 1}}");
    assert_eq!(few, with_another, "a path that is added changes the values of another");
    assert_ne!(few, drawn("{points: 8, seed: 4, method: random, m.v: {low: 0, high: 1}}"));
    let many = drawn("{points: 2000, method: random, m.v: {low: 10, high: 30}}");
    let mean = many.iter().sum::<f64>() / many.len() as f64;
    assert!((mean - 20.0).abs() < 0.5, "{mean}"); // five standard errors: 5 · 20/√12/√2000 = 0.65
}

#[test]
fn the_values_of_a_seed_are_these() {
    // so that a grid names the same cells on every machine and in every later version
    let sample = "{points: 4, seed: 7, m.v: {low: 0, high: 1}}";
    assert_eq!(drawn(sample), [0.8361, 0.3381, 0.6537, 0.1087]);
}

#[test]
fn values_are_multiples_or_of_a_list_where_that_is_said() {
    let widths = drawn("{points: 64, m.v: {low: 20, high: 130, multiple_of: 32}}");
    let mut kinds: Vec<u64> = widths.iter().map(|w| *w as u64).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [32, 64, 96, 128]);
    let widths = drawn("{points: 64, method: random, m.v: {low: 8, high: 300, scale: log, multiple_of: 8}}");
    assert!(widths.iter().all(|w| w % 8.0 == 0.0 && (8.0..=296.0).contains(w)), "{widths:?}");
    let listed = drawn("{points: 9, m.v: [2, 3, 5], m.w: {low: 0, high: 1}}");
    let number = |v: f64| listed.iter().filter(|l| l.total_cmp(&v).is_eq()).count();
    assert_eq!([2.0, 3.0, 5.0].map(number), [3, 3, 3]);
}

/// Four digits are enough to read, and not always enough to stay inside.
#[test]
fn no_value_is_rounded_out_of_its_range() {
    let values = drawn("{points: 50, m.v: {low: 0.99991, high: 0.99998}}");
    assert!(values.iter().all(|v| (0.99991..=0.99998).contains(v)), "{values:?}");
}

#[test]
fn samples_multiply_with_other_axes() {
    let yaml = "experiment: x\ntask: {kind: t}\nmodels: [m]\nsweep:\n  m.w: [1, 2]\n  sample: [{points: 3, m.v: {low: 0, high: 1}}]\n";
    let (cells, _, _dir) = cells_of(&[("grid.yaml", yaml)], &Selection::default());
    assert_eq!(cells.unwrap_or_else(|e| panic!("{e}")).len(), 6);
}
