//! Inference that skips silent synapses against the dense path, in turn, on one core: `cargo bench -p bim --bench events -- [products|network]`.
//!
//! Width 768, 1536 channels, 4 blocks. Two cases: a step of one stream at a time (latency), and chunks of 32 steps of 8 streams
//! (throughput). For the three products of spikes of a block alone, with levels drawn at a rate, and for the whole network, whose
//! thresholds are set so that its neurons fire at that rate; what silence came of it is measured and printed. Times are medians of
//! rounds in which both paths take turns, and a ratio is the median of the rounds' ratios.

use std::hint::black_box;
use std::time::Instant;

use bim::BimConfig;
use bim::config::{Count, Credit, Inference, Positive};
use bim::kernels::events::{Columns, Events};
use bim::network::Network;
use bim::rule::Membrane;
use candle_core::{DType, Device, Tensor};
use learner::product::{InstructionSet, View, matmul};
use learner::{InputKind, Io, Params, Result, seeded_rng};
use rand::Rng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RATES: [f64; 7] = [0.02, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0];
const ROUNDS: usize = 9;
/// A path's share of a round, in seconds.
const ROUND: f64 = 0.04;
const WIDTH: usize = 768;
const CHANNELS: usize = 1536;
const STATE: usize = 16;
const LAYERS: usize = 4;
const VOCABULARY: usize = 256;
const CASES: [(&str, usize, usize); 2] = [("one stream, step by step", 1, 1), ("8 streams, 32 steps", 8, 32)];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds that each of two takes once, and how many times as long the first takes: medians of rounds in turn.
fn in_turn(mut first: impl FnMut(), mut second: impl FnMut()) -> [f64; 3] {
    let time = |f: &mut dyn FnMut(), times: usize| {
        let started = Instant::now();
        (0..times).for_each(|_| f());
        started.elapsed().as_secs_f64() / times as f64
    };
    let [times_first, times_second] = [&mut first as &mut dyn FnMut(), &mut second].map(|f| {
        let once = time(f, 1).min(time(f, 1));
        (ROUND / once).ceil() as usize
    });
    let rounds: Vec<[f64; 2]> =
        (0..ROUNDS).map(|_| [time(&mut first, times_first), time(&mut second, times_second)]).collect();
    let of = |f: fn(&[f64; 2]) -> f64| median(rounds.iter().map(f).collect());
    [of(|r| r[0]), of(|r| r[1]), of(|r| r[0] / r[1])]
}

/// At what rate the two paths take equally long, between those where the ratio passes 1.
fn crossing(ratios: &[(f64, f64)]) -> String {
    let passes = ratios.windows(2).find(|w| w[0].1 >= 1.0 && w[1].1 < 1.0);
    passes.map_or_else(
        || "the two paths do not cross within these rates".to_owned(),
        |w| {
            let (a, b) = (w[0].1.ln(), w[1].1.ln());
            let rate = (w[0].0.ln() + (w[1].0 / w[0].0).ln() * a / (a - b)).exp();
            format!("the two paths cross at a rate of about {rate:.2}")
        },
    )
}

fn levels(rate: f64, n: usize, seed: &str) -> Vec<f32> {
    let mut rng = seeded_rng(1, seed);
    let mut level = || {
        let k = rng.random_range(1..=4) as f32 * if rng.random::<bool>() { 1.0 } else { -1.0 };
        if rng.random::<f64>() < rate { k } else { 0.0 }
    };
    (0..n).map(|_| level()).collect()
}

/// The products of a block: projection and gate read `ψ`, `W_out` reads the postsynaptic spikes.
fn products(rows: usize) {
    const SIZES: [(usize, usize); 3] = [(CHANNELS + 2 * STATE, WIDTH), (WIDTH, WIDTH), (WIDTH, CHANNELS)];
    let mut rng = seeded_rng(1, "weights");
    let mut weights = |n: usize| (0..n).map(|_| rng.random::<f32>() - 0.5).collect::<Vec<_>>();
    // as many blocks as the network has, so that weights come from where they do there
    let blocks: Vec<[Vec<f32>; 3]> = (0..LAYERS).map(|_| SIZES.map(|(o, i)| weights(o * i))).collect();
    let started = Instant::now();
    let columns: Vec<[Columns<f32>; 3]> =
        blocks.iter().map(|b| std::array::from_fn(|k| Columns::new(SIZES[k].0, SIZES[k].1, &b[k]))).collect();
    println!("  columns of {LAYERS} blocks made in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    let multiplications = (LAYERS * SIZES.iter().map(|(o, i)| o * i).sum::<usize>()) as f64;
    let mut ratios = Vec::new();
    for rate in RATES {
        // other neurons fire each time, so that it is not the same columns that are near
        let sets = 256usize.div_ceil(rows);
        let (all_psi, all_s) = (levels(rate, sets * rows * WIDTH, "psi"), levels(rate, sets * rows * CHANNELS, "s"));
        let set = |i: usize| {
            (
                &all_psi[i % sets * rows * WIDTH..][..rows * WIDTH],
                &all_s[i % sets * rows * CHANNELS..][..rows * CHANNELS],
            )
        };
        let (mut i, mut j) = (0, 0);
        let mut y = SIZES.map(|(o, _)| vec![0f32; rows * o]);
        let mut z = y.clone();
        let mut events = Events::default();
        let dense = || {
            for weights in &blocks {
                let (psi, s) = set(i);
                i += 1;
                for ((&(o, i), w), y) in SIZES.iter().zip(weights).zip(&mut y) {
                    let x = (if i == WIDTH { psi } else { s }, View::new(rows, i));
                    matmul((y, View::new(rows, o)), x, (w, View::new(o, i).t()), 0.0);
                }
            }
            black_box(&y);
        };
        let sparse = || {
            for columns in &columns {
                let (psi, s) = set(j);
                j += 1;
                events.gather(WIDTH, psi);
                for k in 0..3 {
                    if k == 2 {
                        events.gather(CHANNELS, s);
                    }
                    z[k].fill(0.0);
                    columns[k].add(&events, &mut z[k]);
                }
            }
            black_box(&z);
        };
        let [dense, sparse, ratio] = in_turn(dense, sparse);
        ratios.push((rate, ratio));
        let fired =
            all_psi.iter().chain(&all_s).filter(|x| **x != 0.0).count() as f64 / (all_psi.len() + all_s.len()) as f64;
        println!(
            "  silence {:>5.1} %  dense {:>9.1} µs ({:>5.1} GFLOP/s, weights {:>4.1} GB/s)  events {:>9.1} µs ({:>5.1} GFLOP/s, weights {:>4.1} GB/s)  ratio {ratio:>5.2}",
            100.0 * (1.0 - fired),
            dense * 1e6,
            2.0 * multiplications * rows as f64 / dense / 1e9,
            4.0 * multiplications / dense / 1e9,
            sparse * 1e6,
            2.0 * fired * multiplications * rows as f64 / sparse / 1e9,
            4.0 * (1.0 - (1.0 - fired).powi(rows as i32)) * multiplications / sparse / 1e9,
        );
    }
    println!("  {}", crossing(&ratios));
}

fn config(thresholds: [f64; 2], inference: Inference) -> BimConfig {
    let mut c = BimConfig {
        width: Count(WIDTH),
        channels: Count(CHANNELS),
        state: Count(STATE),
        layers: Count(LAYERS),
        credit: Credit::Tbptt, // as evaluations have it: no traces
        inference,
        ..BimConfig::default()
    };
    [c.pre.threshold, c.post.threshold] = thresholds.map(Positive);
    c
}

fn io(streams: usize, segment: usize) -> Io {
    Io { input: InputKind::Tokens { vocabulary: VOCABULARY }, outputs: VOCABULARY, streams, segment }
}

fn network(c: &BimConfig, streams: usize, steps: usize, params: &Params) -> Result<Network<f32>> {
    let mut network = Network::new(c, &io(streams, steps), Membrane::Lag(0), &mut params.bound())?;
    network.freeze(c)?;
    Ok(network)
}

/// Runs a chunk.
fn run(network: &mut Network<f32>, x: &Tensor) -> Result<Tensor> {
    let y = network.forward(x)?;
    network.finish()?;
    Ok(y)
}

/// Shares of the neurons at the blocks' inputs and outputs that fired in the chunk last run.
fn rates(network: &Network<f32>, steps: usize) -> [f64; 2] {
    let share = |spikes: &dyn Fn(&bim::block::Block<f32>) -> (usize, usize)| {
        let blocks = network.groups.iter().flat_map(|g| &g.blocks).map(spikes);
        let (fired, all) = blocks.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        fired as f64 / all as f64
    };
    let fired = |s: &[f32]| (s.iter().filter(|x| **x != 0.0).count(), s.len());
    [share(&|b| fired(b.spikes_in(steps))), share(&|b| fired(b.spikes_out(steps)))]
}

/// Share of all levels in the chunk last run that one network sent otherwise than the other: of membranes within rounding of a
/// threshold, and what followed.
fn differing(a: &Network<f32>, b: &Network<f32>, steps: usize) -> f64 {
    let levels = |n: &Network<f32>| -> Vec<f32> {
        let blocks = n.groups.iter().flat_map(|g| &g.blocks);
        blocks.flat_map(|b| [b.spikes_in(steps), b.spikes_out(steps)].concat()).collect()
    };
    let (a, b) = (levels(a), levels(b));
    a.iter().zip(&b).filter(|(a, b)| **a as i32 != **b as i32).count() as f64 / a.len() as f64
}

/// Thresholds at which neurons of both ends fire at `rate`, by bisection: first those at the blocks' inputs, on which the others
/// depend.
fn thresholds(rate: f64, params: &Params, x: &Tensor) -> Result<[f64; 2]> {
    let mut found = [1.0; 2];
    for end in 0..2 {
        let [mut low, mut high] = [1e-5f64, 1e2].map(f64::ln);
        for _ in 0..14 {
            let middle = f64::midpoint(low, high);
            found[end] = middle.exp();
            let mut network = network(&config(found, Inference::Dense), x.dim(0)?, x.dim(1)?, params)?;
            network.forward(x)?;
            // the higher the threshold, the fewer fire
            let bound = if rates(&network, x.dim(1)?)[end] < rate { &mut high } else { &mut low };
            *bound = middle;
        }
    }
    Ok(found)
}

fn whole(streams: usize, steps: usize, params: &Params) -> Result<()> {
    let mut rng = seeded_rng(1, "tokens");
    let mut chunk = |streams: usize, steps: usize| {
        let ids = (0..streams * steps).map(|_| rng.random_range(0..VOCABULARY as u32)).collect();
        Tensor::from_vec(ids, (streams, steps), &Device::Cpu)
    };
    let (sample, chunks) =
        (chunk(4, 32)?, (0..16).map(|_| chunk(streams, steps)).collect::<std::result::Result<Vec<_>, _>>()?);
    let mut ratios = Vec::new();
    for rate in RATES {
        // nobody fires always: a threshold so low that almost all do
        let at = if rate < 1.0 { thresholds(rate, params, &sample)? } else { [1e-4; 2] };
        let of = |inference| network(&config(at, inference), streams, steps, params);
        let (mut dense, mut events) = (of(Inference::Dense)?, of(Inference::Events)?);
        let (mut differ, mut fired) = (0.0, 0.0);
        for x in &chunks {
            dense.forward(x)?;
            events.forward(x)?;
            differ += differing(&dense, &events, steps) / chunks.len() as f64;
            dense.finish()?;
            let [before, after] = rates(&events, steps);
            fired += (before * WIDTH as f64 + after * CHANNELS as f64) / ((WIDTH + CHANNELS) * chunks.len()) as f64;
            events.finish()?;
        }
        let turn = |network: &mut Network<f32>, i: &mut usize| {
            *i = (*i + 1) % chunks.len();
            black_box(run(network, &chunks[*i]).expect("a chunk"));
        };
        let (mut i, mut j) = (0, 0);
        let [dense, events, ratio] = in_turn(|| turn(&mut dense, &mut i), || turn(&mut events, &mut j));
        ratios.push((fired, ratio));
        println!(
            "  silence {:>5.1} %  dense {:>9.1} µs  events {:>9.1} µs  ratio {ratio:>5.2}  (levels that differ {differ:.0e})",
            100.0 * (1.0 - fired),
            dense * 1e6,
            events * 1e6,
        );
    }
    println!("  {}", crossing(&ratios));
    Ok(())
}

fn main() -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("no pool before this one");
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let asked = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name);
    let isa = InstructionSet::in_use().name();
    println!(
        "width {WIDTH}, {CHANNELS} channels, {LAYERS} blocks, f32, one thread, {isa}; medians of {ROUNDS} rounds in turn"
    );
    if asked("products") {
        for (case, streams, steps) in CASES {
            let group = streams.min(128 / steps); // rows of a product are those of a group of streams
            println!("products of {LAYERS} blocks: {case} ({} rows a product)", group * steps);
            products(group * steps);
        }
    }
    if asked("network") {
        let mut params = Params::new(1, DType::F32, &Device::Cpu);
        Network::<f32>::new(&config([1.0; 2], Inference::Dense), &io(1, 1), Membrane::Lag(0), &mut params)?;
        for (case, streams, steps) in CASES {
            println!("whole network: {case}");
            whole(streams, steps, &params)?;
        }
    }
    Ok(())
}
