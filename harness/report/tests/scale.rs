//! A thousand cells: the page stays small, is rendered soon and in little memory, and has the same bytes twice.
//!
//! A report reads results, evaluations and what was measured by spike time difference; the 10,000 rows of each cell's steps it never opens.

use std::time::Instant;

use report::{Format, Loaded, Paper, compute, render};
use rows::EvalRow;
use rows::results::ResultRow;

const SEEDS: u64 = 5;
const CURVE_POINTS: u64 = 20;
const BASELINES: [&str; 6] = ["transformer", "mamba", "lstm", "rnn", "cnn", "snn"];

/// Metrics of one cell by split.
fn metrics(task: &str, seed: u64, config: usize) -> Vec<(&'static str, &'static str, f64)> {
    let noise = ((seed * 7 + config as u64 * 13) % 11) as f64 / 100.0;
    let quality = 2.0 + config as f64 / 100.0 + noise;
    let mut all = match task {
        "language" => vec![("test", "bits_per_byte", quality), ("test", "perplexity_per_word", 300.0 * quality)],
        _ => vec![("test", "auc_roc_macro", 0.9 - quality / 10.0), ("test", "auc_pr_macro", 0.8 - quality / 10.0)],
    };
    all.extend([
        ("train", "energy_synaptic_pj", 1e3 * quality),
        ("train", "energy_forward_pj", 4e3 * quality),
        ("train", "energy_forward_with_traffic_pj", 9e3 * quality),
        ("train", "energy_learning_pj", 8e3 * quality),
        ("train", "energy_learning_with_traffic_pj", 3e4 * quality),
        ("train", "op_coverage", 1.0),
        ("train", "energy_coverage_forward", 1.0),
        ("train", "energy_coverage_learning", 1.0),
        ("train", "macs_forward", 1e4),
        ("train", "acs_forward", 2e3),
        ("train", "macs_dense", 2e4),
        ("train", "neurobench_macs", 1e4 + config as f64),
        ("train", "neurobench_acs", 2e3 - config as f64),
        ("train", "spikes_per_synapse", 0.2),
        ("train", "spikes_per_neuron", 0.3),
    ]);
    all
}

/// Two tasks, on each BIM over 8 × 10 settings and 20 other networks, with 5 seeds.
fn thousand() -> Loaded {
    let mut loaded = Loaded::default();
    for task in ["language", "cardio"] {
        for config in 0..100usize {
            let (model, kind) = if config < 80 {
                ("bim".to_owned(), "bim")
            } else {
                (format!("network_{config}"), BASELINES[config % BASELINES.len()])
            };
            for seed in 1..=SEEDS {
                let mut cell = ResultRow {
                    experiment: "thousand".into(),
                    scale: "sample".into(),
                    cell: format!("{task}-{config}-{seed}"),
                    task: task.into(),
                    model: model.clone(),
                    kind: kind.into(),
                    seed,
                    outcome: "completed".into(),
                    parameters: Some(100_000),
                    seen: 1_000_000,
                    updates: 10_000,
                    train_s: 60.0,
                    state_bytes: Some(65_536),
                    peak_bytes: Some(10_000_000),
                    device: "cpu".into(),
                    threads: 2,
                    ..ResultRow::default()
                };
                let mut set = |path: &str, value: String| drop(cell.config.insert(path.into(), value));
                set("energy", "prices".into());
                set("seed", seed.to_string());
                // what a configuration has beside what the report asks for
                (0..100).for_each(|i| set(&format!("model.setting_{i}"), "0.001".into()));
                if config < 80 {
                    set("model.lambda", format!("0.{}", config / 10 + 1));
                    set("model.prune.target", format!("0.{}", config % 10));
                }
                let of = |(split, metric, value): (&str, &str, f64)| ResultRow {
                    split: Some(split.into()),
                    metric: Some(metric.into()),
                    value: Some(value),
                    n: Some(1000),
                    ..cell.clone()
                };
                let all = metrics(task, seed, config);
                let (_, first, last) = all[0];
                loaded.rows.extend(all.into_iter().map(of));
                let at = |i: u64| EvalRow {
                    step: 500 * i,
                    seen: 50_000 * i,
                    split: "valid".into(),
                    metric: first.into(),
                    value: Some(last + 1.0 / i as f64),
                    n: 4096,
                    low: None,
                    high: None,
                };
                loaded.evals.insert(cell.cell.clone(), (1..=CURVE_POINTS).map(at).collect());
            }
        }
    }
    loaded
}

/// Highest resident set of this process in MiB, where the system says it.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// Seconds that processors gave this process: other tests and builds may hold them, and then the clock says nothing.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // behind the name, which may have blanks: state is the first, utime the 12th and stime the 13th, in hundredths
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / 100.0)
}

#[test]
fn a_thousand_cells_are_a_small_page_soon() {
    let loaded = thousand();
    let paper = Paper::embedded().expect("built in");
    let (clock, before) = (Instant::now(), processor_seconds());
    let report = compute(&loaded, &paper);
    let page = render(&report, Format::Html).expect("a page");
    let taken = processor_seconds().zip(before).map_or(clock.elapsed().as_secs_f64(), |(after, before)| after - before);
    println!("{taken:.2} s, {:.2} MiB, peak {:?} MiB", page.len() as f64 / 1_048_576.0, peak_mib());
    assert!(report.outcome.starts_with("1000 cells were planned, 1000 completed"), "{}", report.outcome);
    assert!(page.len() <= 5_000_000, "{} bytes", page.len());
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an identifier stands for one element");
    assert!(page.contains("class=\"map scroll\"") && page.contains("class=\"panels\""), "a map and small multiples");
    assert!((0.01..=10.0).contains(&taken), "{taken} s");
    assert!(peak_mib().is_none_or(|peak| peak <= 1024), "{:?} MiB", peak_mib());
    for format in [Format::Html, Format::Markdown, Format::Latex, Format::Csv, Format::Json] {
        let again = compute(&loaded, &paper);
        assert!(render(&again, format).expect("a form") == render(&report, format).expect("a form"), "{format:?}");
    }
}
