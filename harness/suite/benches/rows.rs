//! What ten million step rows cost: `cargo bench -p harness --bench rows -- [rows] [cells] [folder]`.
//!
//! Prints how long writing takes (and of that how long the training thread is held up), the size of the files, how long reading them back
//! takes, and time and memory of the report over them. Rows vary as those of a spiking model do.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rows::parquet::{Kept, Metadata, PartWriter, discard_parts, read_rows};
use rows::results::{ResultRow, read_results, write_results};
use rows::{EvalRow, Event, LayerRow, StepRow};
use suite::measure::{Counting, allocator, keep_memory};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Steps between layer diagnostics, and points of a learning curve.
const DIAGNOSE_EVERY: u64 = 100;
const CURVE: u64 = 8;
const LAYERS: [&str; 6] = ["input", "layers.0", "layers.0.pre", "layers.0.post", "layers.1", "output"];
const QUANTITIES: [&str; 4] = ["macs", "acs", "activation_sparsity", "spike_sparsity"];

fn row(step: u64, rng: &mut ChaCha8Rng) -> StepRow {
    let mut noisy = |base: f64, share: f64| base * (1.0 + share * rng.random_range(-1.0..1.0));
    let loss = f64::from(noisy(1.2 + 3.0 / (step as f64).sqrt(), 0.05) as f32);
    let spikes = noisy(4e5, 0.1);
    let (macs, acs) = (31_457_280, (spikes * 160.0) as u64);
    let whole = |x: f64| Some(x as u64);
    StepRow {
        step,
        seen: 256 * step,
        elapsed_s: step as f64 * 3.4e-3,
        loss: Some(loss),
        learning_rate: 4e-3 / (1.0 + step as f64 / 1e5),
        grad_norm: noisy(0.4, 0.3),
        update_norm: noisy(0.05, 0.2),
        state_bytes: Some(1_474_560),
        live_bytes: Some(8_412_160 + step % 3 * 4096),
        peak_bytes: Some(9_412_160 + step % 7 * 4096),
        peak_bytes_forward: Some(8_912_160 + step % 7 * 4096),
        peak_bytes_learning: Some(9_412_160 + step % 7 * 4096),
        rss_bytes: Some(61_000_000 + step / 1000 * 4096),
        spike_sparsity: Some(1.0 - spikes / 1e6),
        activation_sparsity: Some(noisy(0.4, 0.02)),
        connection_sparsity: Some(0.0),
        macs_forward: Some(macs),
        acs_forward: Some(acs),
        macs_learning: Some(4 * macs),
        acs_learning: Some(2 * acs),
        macs_dense: Some(5 * macs),
        op_coverage: Some(1.0),
        energy_forward_pj: Some(macs as f64 * 4.6 + acs as f64 * 0.9),
        energy_learning_pj: Some(4.0 * macs as f64 * 4.6 + 2.0 * acs as f64 * 0.9),
        elementwise_forward: Some(7_340_032),
        elementwise_learning: Some(35_340_032),
        activation_macs_forward: Some(2_097_152),
        activation_macs_learning: Some(14_680_064),
        neuron_updates: Some(147_456),
        weight_words_forward: whole(spikes * 150.0),
        weight_words_learning: whole(spikes * 450.0),
        state_words_forward: Some(1_310_720),
        state_words_learning: Some(12_310_720),
        operations_reverse: whole(spikes * 700.0),
        operations_traces: whole(spikes * 300.0),
        operations_stdp: whole(spikes * 60.0),
        operations_pruning: Some(0),
        operations_optimizer: Some(1_619_856),
        operations_passes: Some(0),
        updates: step,
        energy_forward_with_traffic_pj: Some(noisy(2.5e9, 0.1)),
        energy_learning_with_traffic_pj: Some(noisy(1.5e10, 0.1)),
        energy_coverage_forward: Some(1.0),
        energy_coverage_learning: Some(1.0),
        neurobench_macs: Some(macs),
        neurobench_acs: whole(spikes * 150.0),
        spikingjelly_macs: Some(macs),
        spikingjelly_acs: Some(acs),
        syops_macs: Some(macs),
        syops_acs: Some(acs),
        data_wait_s: step as f64 * 1e-6,
        ..StepRow::default()
    }
}

/// One cell of so many steps; seconds for which pushing its rows held up the thread that pushed them.
fn cell(dir: &Path, steps: u64, seed: u64) -> Result<f64, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(dir)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut writer = PartWriter::open(dir, Kept::default(), Metadata::new(), || ())?;
    let mut held = 0.0;
    for step in 1..=steps {
        let event = Event::Step(row(step, &mut rng));
        let clock = Instant::now();
        writer.push(event)?;
        held += clock.elapsed().as_secs_f64();
        if step.is_multiple_of(DIAGNOSE_EVERY) {
            for (layer, quantity) in LAYERS.iter().flat_map(|l| QUANTITIES.map(|q| (l, q))) {
                let (layer, quantity, value) = ((*layer).to_owned(), quantity.to_owned(), rng.random());
                writer.push(Event::Layer(LayerRow { step, layer, quantity, value }))?;
            }
        }
        if step.is_multiple_of((steps / CURVE).max(1)) {
            let (split, metric, value) = ("valid".to_owned(), "bits_per_byte".to_owned(), Some(rng.random()));
            let (seen, n, low, high) = (256 * step, 5000, None, None);
            writer.push(Event::Eval(EvalRow { step, seen, split, metric, value, n, low, high }))?;
        }
    }
    writer.publish()?;
    discard_parts(dir)?;
    Ok(held)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    keep_memory();
    // cargo passes a flag of its own
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |i: usize, default: u64| words.get(i).map_or(Ok(default), |word| word.parse());
    let (rows, cells) = (number(0, 10_000_000)?, number(1, 100)?.max(1));
    let temporary = tempfile::tempdir()?;
    let run = words.get(2).map_or_else(|| temporary.path().join("rows"), PathBuf::from);
    let each = rows / cells;
    let dir = |i: u64| run.join("cells").join(format!("{i:016x}"));
    let (clock, mut held) = (Instant::now(), 0.0);
    for i in 0..cells {
        held += cell(&dir(i), each, i)?;
    }
    println!("written in {:.1} s, of which pushing {held:.1} s", clock.elapsed().as_secs_f64());
    let results: Vec<ResultRow> = (0..cells)
        .map(|i| ResultRow {
            experiment: "rows".into(),
            scale: "mini".into(),
            cell: format!("{i:016x}"),
            task: "language".into(),
            model: "bim".into(),
            kind: "bim".into(),
            seed: i % 5 + 1,
            outcome: "completed".into(),
            split: Some("test".into()),
            metric: Some("bits_per_byte".into()),
            value: Some(2.0 + (i as f64).sin()),
            n: Some(5000),
            seen: 256 * each,
            updates: each,
            train_s: 1.0,
            config: [("model.lambda".to_owned(), format!("{}", i / 5))].into_iter().collect(),
            ..ResultRow::default()
        })
        .collect();
    write_results(&run.join("results.parquet"), &results, &Metadata::new())?;
    let sizes =
        |name: &str| -> u64 { (0..cells).filter_map(|i| Some(std::fs::metadata(dir(i).join(name)).ok()?.len())).sum() };
    let (steps, layers) = (sizes("steps.parquet"), sizes("layers.parquet"));
    let per_row = steps as f64 / (each * cells) as f64;
    println!(
        "steps.parquet {:.1} MB, {per_row:.1} bytes a row; layers.parquet {:.1} MB",
        steps as f64 / 1e6,
        layers as f64 / 1e6
    );
    let (clock, mut read) = (Instant::now(), 0);
    for i in 0..cells {
        read += read_rows::<StepRow>(&dir(i).join("steps.parquet"))?.len();
    }
    println!("{read} rows read back in {:.1} s", clock.elapsed().as_secs_f64());
    let clock = Instant::now();
    allocator::begin_step();
    let stored = report::Stored::Run { dir: run.clone(), rows: read_results(&run.join("results.parquet"))? };
    let before = allocator::live_bytes();
    let report = report::compute(&report::load(&[stored])?, &report::Paper::embedded()?);
    report::write_all(&run, &report)?;
    let peak = (allocator::peaks().step() - before) as f64 / 2f64.powi(20);
    println!("report in {:.2} s, at most {peak:.1} MiB", clock.elapsed().as_secs_f64());
    Ok(())
}
