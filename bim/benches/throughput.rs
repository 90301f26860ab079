//! Training speed of BIM against the matrix products it is made of: `cargo bench -p bim -- [threads]`.
//!
//! Prints, for the same network: tokens per second of the hybrid rule in chunks and of backpropagation through time in long
//! windows, alternately and at equal λ; the rate at which the traces advance; and the rate of one large matrix product, the floor.

use std::time::Instant;

use bim::block::{Block, Spec};
use bim::config::{Count, Credit, Share};
use bim::kernels::scan::Span;
use bim::kernels::trace;
use bim::rule::Membrane;
use bim::{Bim, BimConfig, Optimizer};
use candle_core::{DType, Device, Tensor};
use learner::product::{View, matmul};
use learner::{InputKind, Io, Learner, Predictor, Targets};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STREAMS: usize = 8;
const VOCABULARY: usize = 256;

fn config(credit: Credit, state: usize, lambda: f64) -> BimConfig {
    BimConfig { credit, lambda: Share(lambda), channels: Count(256), state: Count(state), ..BimConfig::default() }
}

struct Runner {
    bim: Bim,
    segment: usize,
    at: u32,
}

impl Runner {
    fn new(credit: Credit, state: usize, lambda: f64, segment: usize) -> learner::Result<Self> {
        let io =
            Io { input: InputKind::Tokens { vocabulary: VOCABULARY }, outputs: VOCABULARY, streams: STREAMS, segment };
        let bim = Bim::new(&config(credit, state, lambda), io, Optimizer::constant(1e-3), 1, &Device::Cpu)?;
        Ok(Self { bim, segment, at: 0 })
    }

    /// Tokens per second over `tokens` tokens.
    fn run(&mut self, tokens: usize) -> learner::Result<f64> {
        let shape = (STREAMS, self.segment);
        let weight = Tensor::ones(shape, DType::F32, &Device::Cpu)?;
        let started = Instant::now();
        let mut seen = 0;
        while seen < tokens {
            let mut next = || {
                self.at = self.at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (self.at >> 20) % 64
            };
            let x: Vec<u32> = (0..STREAMS * self.segment).map(|_| next()).collect();
            let x = Tensor::from_vec(x, shape, &Device::Cpu)?;
            self.bim.predict(&x)?;
            self.bim.learn(&Targets::Classes { class: x, weight: weight.clone() })?;
            seen += STREAMS * self.segment;
        }
        Ok(seen as f64 / started.elapsed().as_secs_f64())
    }
}

/// Best of several runs of `f`, in operations per second.
fn best(operations: f64, mut f: impl FnMut()) -> f64 {
    let mut rate = 0.0f64;
    for _ in 0..7 {
        let started = Instant::now();
        f();
        rate = rate.max(operations / started.elapsed().as_secs_f64());
    }
    rate
}

fn product_rate(rows: usize, inner: usize, columns: usize) -> f64 {
    let (a, b) = (vec![1.0f32; rows * inner], vec![1.0f32; inner * columns]);
    let mut c = vec![0.0f32; rows * columns];
    let repeat = (2e9 / (2.0 * (rows * inner * columns) as f64)).ceil() as usize;
    best(2.0 * (rows * inner * columns * repeat) as f64, || {
        for _ in 0..repeat {
            let (a, b) = ((&a[..], View::new(rows, inner)), (&b[..], View::new(inner, columns)));
            matmul((&mut c, View::new(rows, columns)), a, b, 0.5);
        }
    })
}

/// Operations per second of one stream's trace advance, counting the matrix products alone.
fn advance_rate(c: &BimConfig, steps: usize) -> f64 {
    let spec: Spec<f32> = Spec::new(c, Membrane::Lag(0), 1);
    let mut block = Block::new(spec, steps);
    let d = spec.dims;
    for (i, x) in block.psi.iter_mut().enumerate() {
        *x = (i % 3) as f32 - 1.0;
    }
    block.tape.p.iter_mut().for_each(|x| *x = 0.1);
    block.tape.delta.iter_mut().for_each(|x| *x = 0.05);
    block.tape.a.iter_mut().for_each(|x| *x = 0.9);
    block.tape.rates.fill(1.0);
    block.tape.skips.fill(1.0);
    let span = Span { streams: 1, lag: 0, steps };
    let rows = d.heads * d.state * d.inputs + d.channels * d.inputs + d.states() * d.delta_inputs;
    let mut scratch = bim::kernels::scan::Scratch::default();
    let repeat = 100;
    best(2.0 * (rows * steps * repeat) as f64, || {
        for _ in 0..repeat {
            let traces = &mut block.traces[0];
            trace::advance(&d, &spec.post, span, &mut block.tape, &block.psi, 0, traces, &mut [], None, &mut scratch);
        }
    })
}

/// Speed of the three rules on the same network at the same λ, alternately; medians of seven. Below 1 spikes are paired, which
/// costs every rule the same.
fn training(state: usize, lambda: f64) -> learner::Result<()> {
    let mut hybrid = Runner::new(Credit::Hybrid, state, lambda, 32)?;
    let mut bptt = Runner::new(Credit::Bptt, state, lambda, 256)?;
    let mut tbptt = Runner::new(Credit::Tbptt, state, lambda, 32)?;
    for runner in [&mut hybrid, &mut bptt, &mut tbptt] {
        runner.run(4_096)?;
    }
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..7 {
        for (rates, runner) in rates.iter_mut().zip([&mut hybrid, &mut bptt, &mut tbptt]) {
            rates.push(runner.run(8_192)?);
        }
    }
    let [hybrid_rate, bptt_rate, tbptt_rate] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let share = hybrid_rate / bptt_rate;
    println!("N {state}, λ {lambda}, {} parameters", hybrid.bim.cost().parameters);
    println!("  hybrid, K = 32                  {hybrid_rate:>10.0} tokens/s");
    println!("  tbptt, K = 32                   {tbptt_rate:>10.0} tokens/s");
    println!("  bptt, window 256                {bptt_rate:>10.0} tokens/s  hybrid / bptt = {share:.2}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(0);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    println!("width 128, D 256, 4 layers, 8 streams, {} threads", rayon::current_num_threads());
    for (state, lambda) in [(16, 0.98), (16, 1.0), (8, 0.98)] {
        training(state, lambda)?;
    }
    let c = config(Credit::Hybrid, 16, 1.0);
    let square = product_rate(512, 512, 512);
    let thin = product_rate(4096, 32, 128);
    let advance = advance_rate(&c, 32);
    let full = advance_rate(&BimConfig { delta_input: bim::config::DeltaInput::Full, ..c }, 32);
    println!("matrix product 512³, 1 thread     {:>10.1} GFLOP/s", square / 1e9);
    println!("matrix product [4096×32]·[32×128] {:>10.1} GFLOP/s", thin / 1e9);
    println!("trace advance, Δ from its group   {:>10.1} GFLOP/s  of 512³: {:.2}", advance / 1e9, advance / square);
    println!("trace advance, Δ from all         {:>10.1} GFLOP/s  of 512³: {:.2}", full / 1e9, full / square);
    Ok(())
}
