//! Synthetic results for the tests of the report.

use bim::time_differences::Quantity;

use rows::EvalRow;
use rows::results::ResultRow;

use super::model::{Difference, Loaded};

/// A completed cell without metrics.
pub(super) fn cell(model: &str, seed: u64) -> ResultRow {
    ResultRow {
        experiment: "quickstart".into(),
        scale: "mini".into(),
        cell: format!("{model}-{seed}"),
        task: "language".into(),
        model: model.into(),
        kind: model.into(),
        seed,
        outcome: "completed".into(),
        parameters: Some(123_456),
        seen: 100_000,
        updates: 400,
        train_s: 12.5 + seed as f64 / 8.0,
        data_wait_s: Some(0.125),
        state_bytes: Some(65_536),
        peak_bytes: (model != "rnn").then_some(34_567_890),
        data_identity: Some("published: every file is as published".into()),
        device: "cpu".into(),
        threads: 2,
        ..ResultRow::default()
    }
}

/// The cell with more configuration; its id changes with it.
pub(super) fn config(mut row: ResultRow, pairs: &[(&str, &str)]) -> ResultRow {
    row.config.extend(pairs.iter().map(|&(path, value)| (path.to_owned(), value.to_owned())));
    row.cell = format!("{}-{}-{}", row.model, row.seed, pairs.iter().map(|p| p.1).collect::<Vec<_>>().join("-"));
    row
}

/// One row per metric of a cell.
fn metrics(cell: &ResultRow, split: &str, values: &[(&str, f64)]) -> Vec<ResultRow> {
    let row = |&(metric, value): &(&str, f64)| ResultRow {
        split: Some(split.into()),
        metric: Some(metric.into()),
        value: Some(value),
        n: Some(5000),
        low: metric.ends_with("_macro").then_some(value - 0.02),
        high: metric.ends_with("_macro").then_some(value + 0.02),
        ..cell.clone()
    };
    values.iter().map(row).collect()
}

fn curve(metric: &str, from: f64, to: f64) -> Vec<EvalRow> {
    let at = |i: u32| {
        let seen = 1000 * 3u64.pow(i);
        let value = to + (from - to) * 0.4f64.powi(i.cast_signed());
        let split = "valid".to_owned();
        EvalRow {
            step: seen / 250,
            seen,
            split,
            metric: metric.into(),
            value: Some(value),
            n: 4096,
            low: None,
            high: None,
        }
    };
    (0..5).map(at).collect()
}

/// Two tasks on generated data: three models with two seeds on language (one of them diverged), two with one on cardio.
pub(super) fn quickstart() -> Loaded {
    let mut loaded = Loaded::default();
    for (model, bits) in [("bim", 2.31), ("lstm", 2.25), ("rnn", 2.8)] {
        for seed in [1, 2] {
            let pairs = [("task.vocabulary", "byte"), ("task.generate.train_bytes", "200000")];
            let mut cell = config(cell(model, seed), &pairs);
            if model == "rnn" && seed == 2 {
                cell.outcome = "diverged".into();
                cell.reason = Some("loss is not finite at update 37 | <nan>".into());
                loaded.rows.push(cell);
                continue;
            }
            let bits = bits + 0.02 * seed as f64;
            let values = [("bits_per_byte", bits), ("perplexity", bits.exp2()), ("loss", bits * 0.693)];
            loaded.rows.extend(metrics(&cell, "test", &values));
            loaded.rows.extend(metrics(&cell, "test", &[("scored_bytes", 5000.0), ("scored_tokens", 5000.0)]));
            let floor = metrics(&cell, "test", &[("entropy_floor_bits_per_byte", 1.9)]);
            loaded.rows.extend(floor.into_iter().map(|row| ResultRow { split: None, ..row }));
            let articles = metrics(&cell, "test", &[("scored_articles", 60.0)]);
            loaded.rows.extend(articles.into_iter().map(|row| ResultRow { n: Some(60), ..row }));
            loaded.evals.insert(cell.cell.clone(), curve("bits_per_byte", 7.5, bits));
        }
    }
    for (model, area) in [("bim", 0.81), ("cnn", 0.84)] {
        let pairs = [("task.train_folds", "[1,2,3]"), ("task.test_folds", "[10]"), ("task.generate", "120")];
        let cell = ResultRow { task: "cardio".into(), ..config(cell(model, 1), &pairs) };
        let values = [
            ("auc_roc_macro", area),
            ("auc_pr_macro", area - 0.2),
            ("auc_roc_NORM", area + 0.01),
            ("auc_pr_NORM", area - 0.1),
            ("prevalence_NORM", 0.4),
            ("auc_roc_MI", area - 0.01),
            ("auc_pr_MI", area - 0.3),
            ("prevalence_MI", 0.25),
            ("loss", 0.43),
        ];
        loaded.rows.extend(metrics(&cell, "test", &values));
        loaded.evals.insert(cell.cell.clone(), curve("auc_roc_macro", 0.5, area));
    }
    loaded
}

/// A model swept over two settings with three seeds, another over none, on real text at scale `sample`.
pub(super) fn sweep() -> Loaded {
    let mut loaded = Loaded::default();
    let base = |model: &str, seed| ResultRow {
        experiment: "ablation_lambda".into(),
        scale: "sample".into(),
        ..cell(model, seed)
    };
    for seed in 1..=3 {
        for (i, lambda) in ["0.0", "0.5", "1.0"].into_iter().enumerate() {
            for (j, target) in ["0.5", "0.9"].into_iter().enumerate() {
                let pairs =
                    [("model.lambda", lambda), ("model.sparsity.target", target), ("task.train_split", "valid")];
                let cell = config(base("bim", seed), &pairs);
                let bits = 2.0 + 0.1 * i as f64 + 0.05 * j as f64 + 0.01 * seed as f64;
                loaded.rows.extend(metrics(&cell, "test", &[("bits_per_byte", bits), ("perplexity_per_word", 300.0)]));
            }
        }
        let cell = config(base("lstm", seed), &[("task.train_split", "valid")]);
        loaded.rows.extend(metrics(&cell, "test", &[("bits_per_byte", 2.2), ("perplexity_per_word", 280.0)]));
    }
    loaded
}

/// Cells that never got as far as a metric.
pub(super) fn all_failed() -> Loaded {
    let failed = |model: &str| ResultRow {
        outcome: "out_of_memory".into(),
        parameters: None,
        seen: 0,
        updates: 0,
        train_s: 0.0,
        data_wait_s: None,
        state_bytes: None,
        peak_bytes: None,
        ..cell(model, 1)
    };
    Loaded { rows: vec![failed("bim"), failed("lstm")], ..Loaded::default() }
}

/// Cells that measured updates by spike time difference. STDP comes back as its window (τ 5 before, 3 behind), what descent
/// does is level, and the mixed update decays with another τ; seeds differ by a hundredth.
pub(super) fn time_differences(seeds: &[u64]) -> Loaded {
    let mut loaded = Loaded::default();
    for &seed in seeds {
        let pairs = [
            (super::load::FURTHEST, "8"),
            ("model.stdp.a_plus", "1"),
            ("model.stdp.a_minus", "1.5"),
            ("model.stdp.tau_plus", "5"),
            ("model.stdp.tau_minus", "3"),
            ("model.stdp.at_zero", "0"),
        ];
        let mut cell = config(cell("bim", seed), &pairs);
        cell.updates = 100;
        let mut rows = Vec::new();
        for step in (1..=91i32).step_by(10) {
            // what is early does not count
            let early = if step <= 50 { 100.0 } else { 1.0 + 0.01 * seed as f64 + 1e-4 * f64::from(step) };
            for (lag, layer) in (-8..=8i64).flat_map(|lag| [(lag, 0), (lag, 1)]) {
                let dt = lag as f64;
                // noise of its own at every update and difference
                let noise = 0.01 * (f64::from(step) * 1.7 + dt * 2.3 + f64::from(layer) + 0.9 * seed as f64).sin();
                let decay = |plus: f64, minus: f64| match lag {
                    1.. => (-dt / plus).exp(),
                    0 => 0.0,
                    _ => -1.5 * (dt / minus).exp(),
                };
                let mut put = |quantity, value: f64| {
                    let (step, pathway) = (u64::from(step.unsigned_abs()), format!("layers.{layer}.input"));
                    rows.push(Difference { step, pathway, quantity, lag, value });
                };
                put(Quantity::Pairs, 100.0 + 50.0 * f64::from(layer));
                put(Quantity::Gradient, 1e-4 * (1.0 + noise) * early);
                put(Quantity::Stdp, (decay(5.0, 3.0) + noise) * early);
                put(Quantity::Mixed, 0.1 * (decay(2.0, 3.0) + 0.1 * noise) * early);
            }
        }
        loaded.differences.insert(cell.cell.clone(), rows);
        loaded.rows.extend(metrics(&cell, "test", &[("bits_per_byte", 2.0)]));
    }
    loaded
}
