//! Operations and energy from the grid to the files: every model is counted, parts are the whole, prices are named.

mod common;

use common::{Folder, stderr, stdout};
use rows::parquet::{read_metadata, read_rows};
use rows::results::read_results;
use rows::{LayerRow, StepRow};

const GRID: &str = "\
experiment: small
task: {kind: language, generate: {train_bytes: 30_000, valid_bytes: 3_000, test_bytes: 5_000}}
energy: horowitz-2014-fp16
models:
  - {kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 2, lambda: 0.9, train: {segment: 16}}
  - {kind: transformer, width: 16, layers: 1, heads: 2}
  - {kind: lstm, width: 16, layers: 1}
  - {kind: rnn, width: 16, layers: 1}
  - {kind: cnn, width: 16, layers: 1}
  - {kind: mamba, width: 16, layers: 1, states: 4}
  - {kind: snn, width: 16, layers: 2}
train: {streams: 4, segment: 25, seen: 1_000, curve_points: 0, eval_streams: 4}
";

/// Picojoules of a product with an activation of 1 to 4 bits, from the file.
const BY_BITS: [f64; 4] = [0.4, 0.4, 0.46875, 0.503_125];

type Column = (&'static str, fn(&StepRow) -> Option<u64>);

/// Columns of the steps that are metrics of the results.
const COLUMNS: [Column; 7] = [
    ("macs_forward", |s| s.macs_forward),
    ("acs_forward", |s| s.acs_forward),
    ("activation_macs_forward", |s| s.activation_macs_forward),
    ("elementwise_forward", |s| s.elementwise_forward),
    ("macs_dense", |s| s.macs_dense),
    ("neurobench_macs", |s| s.neurobench_macs),
    ("syops_acs", |s| s.syops_acs),
];

fn whole(row: &StepRow) -> Option<()> {
    let learning = row.macs_learning? + row.acs_learning? + row.elementwise_learning?;
    let parts = row.operations_reverse? + row.operations_traces? + row.operations_stdp?;
    assert_eq!(learning, parts + row.operations_pruning? + row.operations_optimizer? + row.operations_passes?);
    assert!(row.macs_forward? + row.acs_forward? > 0 && row.macs_dense? > 0);
    assert!(row.activation_macs_forward? <= row.macs_forward?);
    assert_eq!((row.op_coverage?, row.energy_coverage_forward?, row.energy_coverage_learning?), (1.0, 1.0, 1.0));
    // 16-bit prices of the file: 1.5, 0.4 and 1.1 pJ, and those of products of few bits
    let by_bits = |codes: &[u64]| codes.iter().zip(BY_BITS).map(|(n, pj)| *n as f64 * (pj - 1.5)).sum::<f64>();
    let price = |macs: u64, codes: &[u64], acs: u64, each: u64| {
        1.5 * macs as f64 + by_bits(codes) + 0.4 * acs as f64 + 1.1 * each as f64
    };
    let forward = price(row.macs_forward?, &row.code_macs_forward, row.acs_forward?, row.elementwise_forward?);
    let learned = price(row.macs_learning?, &row.code_macs_learning, row.acs_learning?, row.elementwise_learning?);
    assert!(row.events_forward? <= row.acs_forward? && row.events_learning? <= row.acs_learning?);
    assert!(row.events_forward? == 0 || (row.spike_synapses? > 0 && row.spikes? >= row.neurons_fired?));
    for (got, want) in [(row.energy_forward_pj?, forward), (row.energy_learning_pj?, learned)] {
        assert!((got - want).abs() <= 1e-12 * want, "{got} {want}"); // f64 rounding, in another order
    }
    assert!(row.energy_forward_with_traffic_pj? > row.energy_forward_pj?);
    assert!(row.energy_learning_with_traffic_pj? > row.energy_learning_pj?);
    assert!(row.weight_words_forward? > 0 && row.state_words_learning? > 0);
    assert!(row.neurobench_macs? + row.neurobench_acs? > 0 && row.syops_macs? + row.syops_acs? > 0);
    Some(())
}

#[test]
fn every_model_is_counted_whole_and_the_prices_are_named() {
    let folder = Folder::new();
    folder.grid(GRID);
    let output = folder.run("out");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    // a terminal has 100 columns: headings are broken between words, so the file is what holds them whole
    assert!(text.contains("Cost model horowitz-2014-fp16") && text.lines().all(|line| line.len() <= 100), "{text}");
    let page = std::fs::read_to_string(folder.path().join("out/small/report.md")).expect("a report");
    assert!(page.contains("| learning: with traffic |"), "{page}");
    let run = folder.path().join("out/small");
    let rows = read_results(&run.join("results.parquet")).expect("results");
    for kind in ["bim", "transformer", "lstm", "rnn", "cnn", "mamba", "snn"] {
        let of_kind: Vec<_> = rows.iter().filter(|r| r.kind == kind).collect();
        let cell = run.join("cells").join(&of_kind.first().expect("planned").cell);
        let steps = read_rows::<StepRow>(&cell.join("steps.parquet")).expect("steps");
        for row in &steps {
            assert!(whole(row).is_some(), "{kind}: {row:?}");
        }
        let meta = read_metadata(&cell.join("steps.parquet")).expect("metadata");
        assert_eq!(meta["cost_model"], "horowitz-2014-fp16");
        let layers = read_rows::<LayerRow>(&cell.join("layers.parquet")).expect("layers");
        assert!(layers.iter().any(|l| l.quantity == "activation_sparsity"), "{kind}");
        let spiking = kind == "bim" || kind == "snn";
        assert_eq!(layers.iter().any(|l| l.quantity == "spike_sparsity"), spiking, "{kind}");
        // the results' figure is the mean over the last fifth of the segments
        let tail = &steps[steps.len() - steps.len().div_ceil(5)..];
        let before = steps.iter().rev().nth(tail.len()).map_or(0, |row| row.seen);
        let seen = steps.last().expect("steps").seen - before;
        // and what has the name of a column means what the column means
        let count = |n: Option<u64>| n.map(|n| n as f64);
        let weights = |s: &StepRow| Some((s.macs_forward? - s.activation_macs_forward?) as f64);
        let mut sums = vec![
            ("energy_forward_pj", tail.iter().filter_map(|s| s.energy_forward_pj).sum::<f64>()),
            ("energy_learning_pj", tail.iter().filter_map(|s| s.energy_learning_pj).sum::<f64>()),
            ("weight_macs_forward", tail.iter().filter_map(weights).sum::<f64>()),
        ];
        sums.extend(COLUMNS.map(|(name, of)| (name, tail.iter().filter_map(|s| count(of(s))).sum::<f64>())));
        for (name, sum) in sums {
            let stored = of_kind.iter().find(|r| r.metric.as_deref() == Some(name)).expect(name);
            assert_eq!(stored.split.as_deref(), Some("train"));
            let (value, mean) = (stored.value.expect("a value"), sum / seen as f64);
            assert!((value - mean).abs() <= 1e-9 * mean.abs(), "{kind}: {name} {value} {mean}"); // f64 sums in another order
        }
    }
}

/// The twin has no spikes, and what it costs can be worked out again from its files; the report holds both against the grid's
/// reference and tells energy whole.
#[test]
fn the_quantised_twin_is_priced_from_stored_counts() {
    let twin = "  - {name: twin, kind: bim, width: 16, channels: 32, state: 4, heads: 2, layers: 2, lambda: 1.0, \
                pre: {levels: quantised, bits: 4, beta: 0}, post: {levels: quantised, bits: 3, beta: 0}}\n";
    let folder = Folder::new();
    folder.grid(&GRID.replace("train: {streams", &format!("{twin}report: {{reference: lstm}}\ntrain: {{streams")));
    let output = folder.command("out").args(["--only", "model=twin|lstm|bim"]).output().expect("starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("x: of what lstm takes") && text.contains("(1.00x)"), "{text}");
    // a sentence may be broken anywhere between words
    let words = text.split_whitespace().collect::<Vec<&str>>().join(" ");
    assert!(words.contains("training in all is both") && words.contains("Dampfhoffer"), "{text}");
    let run = folder.path().join("out/small");
    let rows = read_results(&run.join("results.parquet")).expect("results");
    let of = |name: &'static str| rows.iter().filter(move |r| r.model == "twin" && r.metric.as_deref() == Some(name));
    assert!(of("acs_forward").all(|r| r.value == Some(0.0)) && of("spikes_per_synapse").all(|r| r.value.is_none()));
    assert!(of("spikes_per_synapse").all(|r| r.split.as_deref() == Some("train")));
    let cell = run.join("cells").join(&of("acs_forward").next().expect("planned").cell);
    for row in &read_rows::<StepRow>(&cell.join("steps.parquet")).expect("steps") {
        assert!(whole(row).is_some(), "{row:?}");
        assert!(row.code_macs_forward.len() == 4 && row.code_macs_forward[..2] == [0, 0], "{row:?}");
        assert!(row.code_macs_forward[2] > 0 && row.code_macs_learning[3] > 0, "{row:?}");
    }
    folder.grid(&GRID.replace("train: {streams", "report: {reference: lstn}\ntrain: {streams"));
    let output = folder.run("out");
    let text = stderr(&output);
    assert!(text.contains("no model `lstn`") && text.contains("did you mean `lstm`"), "{text}");
}

#[test]
fn a_chip_without_prices_for_everything_gives_lower_bounds() {
    let folder = Folder::new();
    folder.grid(GRID);
    let mut command = folder.command("out");
    let output = command.args(["--only", "model=snn", "--cost-model", "loihi-2018"]).output().expect("starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("Cost model loihi-2018") && text.contains(">= ") && text.contains("priced, forward"),
        "{text}"
    );
    let wrong = folder.command("out").args(["--cost-model", "loihi"]).output().expect("starts");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("expected one of `horowitz-2014-fp32`"), "{}", stderr(&wrong));
}

#[test]
fn a_wrong_cost_model_is_shown_where_it_is_written() {
    let folder = Folder::new();
    folder.grid(&GRID.replace("horowitz-2014-fp16", "horowitz-2014-fp61"));
    let output = folder.run("out");
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("grid.yaml:3:9") && text.contains("did you mean `horowitz-2014-fp16`?"), "{text}");
}
