//! The network on a device without a GPU: the machine is the host, its kernels the same sources compiled for it, and what comes out is
//! held against the host's own learner.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Predictor, Result, Targets, Update};
use standins::Kernels;

use super::learner::OnDevice;
use super::machine::{Arg, At, Grid, Machine, Matrix, Source};
use crate::config::{
    BimConfig, Bounds, Count, Credit, DecayForm, DeltaInput, DiagnoseConfig, Lag, Levels, Mixing, NeuronConfig,
    NonNegative, Positive, PruneConfig, ReadoutConfig, Reset, Share, StdpConfig, Step, Surrogate,
};
use crate::{Bim, Optimizer};

/// Memory of the machine: kernels write to it through an address, as on a device.
struct Memory(UnsafeCell<Vec<f32>>);

// SAFETY: a test uses a machine from one thread.
unsafe impl Sync for Memory {}

impl Memory {
    #[allow(clippy::mut_from_ref, reason = "as on a device: whoever has the address may write")]
    fn values(&self) -> &mut [f32] {
        // SAFETY: operations go one after the other, and none keeps what this gives.
        unsafe { &mut *self.0.get() }
    }
}

/// The host as a machine.
#[derive(Clone)]
struct OnHost {
    kernels: Arc<BTreeMap<Source, Arc<Kernels>>>,
    launches: Arc<std::sync::Mutex<BTreeMap<&'static str, u64>>>,
}

fn file(source: Source) -> &'static str {
    match source {
        Source::Encode => "encode.cu",
        Source::Network => "network.cu",
        Source::Plasticity => "plasticity.cu",
        Source::Readout => "readout.cu",
        Source::Row => "row.cu",
        Source::Scan => "scan.cu",
        Source::Trace => "trace.cu",
        Source::TraceCredit => "trace_credit.cu",
        Source::Update => "update.cu",
    }
}

const SOURCES: [Source; 9] = [
    Source::Encode,
    Source::Network,
    Source::Plasticity,
    Source::Readout,
    Source::Row,
    Source::Scan,
    Source::Trace,
    Source::TraceCredit,
    Source::Update,
];

fn path(source: Source) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda").join(file(source))
}

/// All sources as they are.
fn kernels() -> &'static Arc<BTreeMap<Source, Arc<Kernels>>> {
    static BUILT: OnceLock<Arc<BTreeMap<Source, Arc<Kernels>>>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = |s| (s, Arc::new(Kernels::build(&path(s)).unwrap_or_else(|e| panic!("{e}"))));
        Arc::new(SOURCES.map(built).into())
    })
}

/// The host as a machine, unless it has no compiler.
fn machine() -> Option<OnHost> {
    match standins::compiler() {
        Ok(_) => Some(OnHost { kernels: kernels().clone(), launches: Arc::default() }),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

impl Machine for OnHost {
    type Buffer = Memory;

    fn zeros(&self, len: usize) -> Result<Memory> {
        Ok(Memory(UnsafeCell::new(vec![0.0; len.max(1)])))
    }

    fn upload(&self, values: &[f32], At(to, at): At<'_, Self>) -> Result<()> {
        to.values()[at..at + values.len()].copy_from_slice(values);
        Ok(())
    }

    fn download(&self, At(from, at): At<'_, Self>, into: &mut [f32]) -> Result<()> {
        into.copy_from_slice(&from.values()[at..at + into.len()]);
        Ok(())
    }

    fn launch(&self, source: Source, name: &'static str, grid: Grid, args: &[Arg<'_, Self>]) -> Result<()> {
        *self.launches.lock().expect("one thread").entry(name).or_default() += 1;
        assert!(grid.blocks.iter().all(|n| *n > 0), "{name}: {grid:?}");
        let mut args: Vec<standins::Arg<'_>> = args
            .iter()
            .map(|arg| match arg {
                Arg::At(At(memory, at)) => {
                    assert!(*at < memory.values().len(), "{name}: an array without an element");
                    standins::Arg::Address(memory.values()[*at..].as_ptr() as u64)
                }
                Arg::Null => standins::Arg::Null,
                Arg::Size(n) => standins::Arg::I32(*n as i32),
                Arg::F32(x) => standins::Arg::F32(*x),
            })
            .collect();
        self.kernels[&source].launch(name, grid.blocks.map(|n| n as u32), [grid.threads as u32, 1, 1], &mut args);
        Ok(())
    }

    fn product(
        &self,
        batch: usize,
        to: Matrix<'_, Self>,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        keep: f32,
    ) -> Result<()> {
        *self.launches.lock().expect("one thread").entry("product").or_default() += 1;
        let part = |m: &Matrix<'_, Self>, i: usize| m.at.0.values()[m.at.1 + i * m.stride..].to_vec();
        for i in 0..batch {
            let (a_values, b_values) = (part(&a, i), part(&b, i));
            let to_values = &mut to.at.0.values()[to.at.1 + i * to.stride..];
            learner::product::matmul((to_values, to.view), (&a_values, a.view), (&b_values, b.view), keep);
        }
        Ok(())
    }

    fn input(&self, x: &Tensor) -> Result<Memory> {
        let values = if x.dtype() == DType::U32 {
            super::machine::words(&x.flatten_all()?.to_vec1::<u32>()?)
        } else {
            learner::read_f32(x)?
        };
        Ok(Memory(UnsafeCell::new(values)))
    }

    fn output(&self, from: &Memory, dims: [usize; 3]) -> Result<Tensor> {
        let [a, b, c] = dims;
        Ok(Tensor::from_slice(&from.values()[..a * b * c], (a, b, c), &Device::Cpu)?)
    }

    fn loss(&self, logits: &Tensor, y: &Targets) -> Result<Option<(f64, Memory)>> {
        let mut gradient = vec![0.0; logits.elem_count()];
        let loss = learner::loss_and_gradient(logits, y, &mut gradient)?;
        Ok(loss.map(|loss| (loss, Memory(UnsafeCell::new(gradient)))))
    }
}

const VOCABULARY: usize = 11;
const STREAMS: usize = 5;
const SEGMENT: usize = 40;

fn io(input: InputKind) -> Io {
    Io { input, outputs: VOCABULARY, streams: STREAMS, segment: SEGMENT }
}

fn tokens() -> Io {
    io(InputKind::Tokens { vocabulary: VOCABULARY })
}

/// Two small blocks. Chunks of 40 steps deal five streams into groups of three and two on the host.
fn small() -> BimConfig {
    BimConfig {
        width: Count(12),
        channels: Count(20),
        state: Count(5),
        heads: Count(4),
        layers: Count(2),
        lambda: Share(1.0),
        ..BimConfig::default()
    }
}

/// Every task's batch: streams that begin anew at different chunks, and a last chunk that is shorter.
struct Batch {
    starts: Vec<bool>,
    x: Tensor,
    y: Targets,
}

fn batch(io: &Io, chunk: usize) -> Result<Batch> {
    let steps = if chunk % 5 == 4 { 3.min(io.segment) } else { io.segment };
    let token = |b: usize, t: usize| ((t * t * (b + 3) + t / 3 + b + 17 * chunk) % VOCABULARY) as u32;
    let all = |shift: usize| (0..io.streams).flat_map(move |b| (0..steps).map(move |t| token(b, t + shift)));
    let x = match io.input {
        InputKind::Tokens { .. } => Tensor::from_iter(all(0), &Device::Cpu)?.reshape((io.streams, steps))?,
        InputKind::Frames { width } => {
            let value = |i: usize| ((i * 7919 + chunk * 31) % 23) as f32 / 11.0 - 1.0;
            let values: Vec<f32> = (0..io.streams * steps * width).map(value).collect();
            Tensor::from_vec(values, (io.streams, steps, width), &Device::Cpu)?
        }
    };
    let class = Tensor::from_iter(all(1), &Device::Cpu)?.reshape((io.streams, steps))?;
    // some steps without a target; the fourth chunk has none at all
    let weight = |i: usize| if chunk == 3 || i % 9 == 4 { 0.0 } else { 1.0 };
    let weight =
        Tensor::from_vec((0..io.streams * steps).map(weight).collect::<Vec<f32>>(), (io.streams, steps), &Device::Cpu)?;
    let starts = (0..io.streams).map(|b| chunk == 0 || (chunk + b).is_multiple_of(6)).collect();
    Ok(Batch { starts, x, y: Targets::Classes { class, weight } })
}

fn step(learner: &mut dyn Learner, batch: &Batch) -> Result<Update> {
    if batch.starts.contains(&true) {
        learner.reset(&batch.starts)?;
    }
    learner.predict(&batch.x)?;
    learner.learn(&batch.y)
}

fn pair(config: &BimConfig, io: Io, machine: &OnHost) -> Result<(Bim, OnDevice<OnHost>)> {
    clipped_pair(config, io, machine, 1.0)
}

fn clipped_pair(config: &BimConfig, io: Io, machine: &OnHost, clip: f64) -> Result<(Bim, OnDevice<OnHost>)> {
    let train = Optimizer { clip, ..Optimizer::constant(0.01) };
    Ok((Bim::new(config, io, train, 3, &Device::Cpu)?, OnDevice::new(machine, config, io, train, 3)?))
}

/// What two learners made of the same chunks.
#[derive(Default)]
struct Compared {
    /// Furthest apart of losses and norms, relative to what is above 1.
    furthest: f64,
    updates: u64,
    layers: usize,
}

/// Two learners over the same chunks; counts of operations, sparsity and diagnostics are the same. Says what is not.
fn compare(
    a: &mut dyn Learner,
    b: &mut dyn Learner,
    io: &Io,
    chunks: Range<usize>,
) -> std::result::Result<Compared, String> {
    let mut found = Compared::default();
    for chunk in chunks {
        let batch = batch(io, chunk).map_err(|e| e.to_string())?;
        let (x, y) = (step(a, &batch), step(b, &batch));
        let (x, y) = (x.map_err(|e| e.to_string())?, y.map_err(|e| e.to_string())?);
        let equal = |what: &str, equal: bool| if equal { Ok(()) } else { Err(format!("chunk {chunk}: {what}")) };
        equal("whether it was learned from", (x.updates, x.loss.is_some()) == (y.updates, y.loss.is_some()))?;
        let losses = (x.loss.unwrap_or(0.0), y.loss.unwrap_or(0.0));
        for (x, y) in [losses, (x.grad_norm, y.grad_norm), (x.update_norm, y.update_norm)] {
            let apart = (x - y).abs() / x.abs().max(1.0);
            equal(&format!("{x} and {y}"), apart < SAME)?;
            found.furthest = found.furthest.max(apart);
        }
        equal(&format!("{:?} and {:?}", x.operations, y.operations), x.operations == y.operations)?;
        equal(&format!("{:?} and {:?}", x.activity, y.activity), x.activity == y.activity)?;
        let names = |u: &Update| u.layers.iter().map(|l| (l.layer.clone(), l.quantity)).collect::<Vec<_>>();
        equal("names of layers", names(&x) == names(&y))?;
        for (x, y) in x.layers.iter().zip(&y.layers) {
            let apart = (x.value - y.value).abs() / x.value.abs().max(1.0);
            equal(&format!("{x:?} and {y:?}"), apart < SAME)?;
        }
        (found.updates, found.layers) = (found.updates + x.updates, found.layers + x.layers.len());
    }
    Ok(found)
}

/// How far apart two learners may be: sums of `f32` in another order, over a few updates.
const SAME: f64 = 1e-5;

/// A host's learner and one on a machine, over so many chunks.
fn same(name: &str, config: &BimConfig, io: Io, chunks: usize) -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let (mut host, mut device) = pair(config, io, &machine)?;
    let found = compare(&mut host, &mut device, &io, 0..chunks).unwrap_or_else(|e| panic!("{name}: {e}"));
    println!("{name}: {:.1e} apart over {} updates", found.furthest, found.updates);
    assert!(found.updates + 1 >= chunks as u64 && found.layers > 0, "{name}: the test tests nothing");
    Ok(())
}

#[test]
fn cuda_kernels_train_in_every_credit_mode() -> Result<()> {
    let credits =
        [Credit::Hybrid, Credit::Exact, Credit::Diagonal, Credit::Eprop, Credit::Spatial, Credit::Tbptt, Credit::Bptt];
    for credit in credits {
        let layers = Count(if credit == Credit::Exact { 1 } else { 2 });
        same(&format!("{credit:?}"), &BimConfig { credit, layers, ..small() }, tokens(), 7)?;
    }
    Ok(())
}

/// Neurons as bursts at a price, with a threshold low enough that they fire.
fn firing() -> NeuronConfig {
    NeuronConfig { threshold: Positive(0.4), penalty: NonNegative(0.05), ..NeuronConfig::default() }
}

#[test]
fn cuda_kernels_train_every_kind_of_block() -> Result<()> {
    let frames = io(InputKind::Frames { width: 6 });
    let (pre, post) = (firing(), firing());
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    let binary =
        NeuronConfig { levels: Levels::Binary, surrogate: Surrogate::FastSigmoid, reset: Reset::Subtract, ..pre };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.5), ..ReadoutConfig::default() };
    let readout = ReadoutConfig { penalty: NonNegative(0.1), ..readout };
    let kinds = [
        ("price", BimConfig { pre, post, ..small() }, tokens()),
        ("frames", BimConfig { pre, post, ..small() }, frames),
        ("no gate, no convolution", BimConfig { gate: false, conv: Count(1), pre, ..small() }, tokens()),
        (
            "delays and kernel",
            BimConfig { conv: Count(1), delays: Count(3), kernel: Share(0.5), pre, ..small() },
            frames,
        ),
        ("silu", BimConfig { silu: true, pre, post, ..small() }, tokens()),
        ("silu alone", BimConfig { silu: true, conv: Count(1), ..small() }, tokens()),
        ("population", BimConfig { population: Count(2), currents: true, pre: binary, post, ..small() }, tokens()),
        ("no neurons", BimConfig { pre: NeuronConfig::none(), post: NeuronConfig::none(), ..small() }, frames),
        ("a decay per state", BimConfig { decay: DecayForm::ChannelState, pre, post, ..small() }, tokens()),
        ("step sizes from all", BimConfig { delta_input: DeltaInput::Full, pre, post, ..small() }, tokens()),
        ("both", BimConfig { decay: DecayForm::ChannelState, delta_input: DeltaInput::Full, pre, ..small() }, frames),
        ("read-out", BimConfig { readout, pre, post, ..small() }, tokens()),
        (
            "learned steps",
            BimConfig {
                pre: learned,
                post: learned,
                readout: ReadoutConfig { step: Step::Learned, ..readout },
                ..small()
            },
            tokens(),
        ),
        (
            "learned steps of the read-out",
            BimConfig { readout: ReadoutConfig { step: Step::Learned, ..readout }, ..small() },
            frames,
        ),
        (
            "learned steps, step sizes from all",
            BimConfig { pre: learned, delta_input: DeltaInput::Full, gate: false, ..small() },
            tokens(),
        ),
    ];
    for (name, config, io) in kinds {
        same(name, &config, io, 6)?;
    }
    Ok(())
}

#[test]
fn cuda_kernels_train_with_plasticity() -> Result<()> {
    let (pre, post) = (firing(), firing());
    let mixed = BimConfig { lambda: Share(0.8), pre, post, ..small() };
    let bounds = |bounds, limit| StdpConfig {
        bounds,
        limit: Positive(limit),
        a_minus: NonNegative(0.7),
        ..StdpConfig::default()
    };
    let prune = PruneConfig {
        target: Share(0.4),
        start: 2,
        interval: Count(2),
        hazard: Share(0.9),
        regrow: Share(0.1),
        ..PruneConfig::default()
    };
    let diagnose =
        DiagnoseConfig { time_differences: Lag(5), time_differences_every: Count(3), ..DiagnoseConfig::default() };
    let population = BimConfig { population: Count(2), currents: true, ..mixed.clone() };
    let kinds = [
        ("symmetric bounds", BimConfig { stdp: bounds(Bounds::Symmetric, 4.0), ..mixed.clone() }),
        ("soft bounds", BimConfig { stdp: bounds(Bounds::Soft, 2.0), ..mixed.clone() }),
        ("hard bounds", BimConfig { stdp: bounds(Bounds::Hard, 1.5), ..mixed.clone() }),
        ("no bounds", BimConfig { stdp: bounds(Bounds::None, 4.0), lambda_warmup: 4, ..mixed.clone() }),
        ("as printed", BimConfig { mixing: Mixing::AsPrinted, ..mixed.clone() }),
        ("shuffled", BimConfig { stdp: StdpConfig { shuffled: true, ..StdpConfig::default() }, ..mixed.clone() }),
        ("population", population),
        ("measured by time difference", BimConfig { diagnose, ..mixed.clone() }),
        ("measured without plasticity", BimConfig { diagnose, lambda: Share(1.0), ..mixed.clone() }),
        ("pruning", BimConfig { prune, lambda: Share(1.0), ..mixed.clone() }),
        ("pruning and plasticity", BimConfig { prune, ..mixed }),
    ];
    for (name, config) in kinds {
        same(name, &config, tokens(), 9)?;
    }
    Ok(())
}

/// A run goes on from a checkpoint of the other device as if nothing had happened, and what is saved is the same on both.
#[test]
fn cuda_kernels_checkpoints_go_from_device_to_device() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let (pre, post) = (firing(), firing());
    let prune = PruneConfig { target: Share(0.3), start: 2, interval: Count(3), ..PruneConfig::default() };
    let every = Count(6); // the chunk before the checkpoint is the history of one that is measured
    let diagnose =
        DiagnoseConfig { time_differences: Lag(4), time_differences_every: every, ..DiagnoseConfig::default() };
    let delays = Count(2);
    let config = BimConfig { lambda: Share(0.9), pre, post, prune, delays, kernel: Share(0.3), diagnose, ..small() };
    let io = tokens();
    let ((mut host, mut device), (mut new_host, mut new_device)) =
        (pair(&config, io, &machine)?, pair(&config, io, &machine)?);
    compare(&mut host, &mut device, &io, 0..6).unwrap_or_else(|e| panic!("{e}"));
    let (of_host, of_device) = (host.save()?, device.save()?);
    for (a, b) in [
        (&of_host.weights, &of_device.weights),
        (&of_host.optimizer, &of_device.optimizer),
        (&of_host.state, &of_device.state),
    ] {
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, x) in a {
            let (x, y) = (learner::read_f32(x)?, learner::read_f32(&b[name])?);
            standins::close(name, &y, &x, 1e-4).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    assert_eq!(of_host.counters, of_device.counters);
    new_host.load(&of_device)?;
    new_device.load(&of_host)?;
    for (a, b) in [(&mut host as &mut dyn Learner, &mut new_device as &mut dyn Learner), (&mut device, &mut new_host)] {
        compare(a, b, &io, 6..10).unwrap_or_else(|e| panic!("{e}"));
    }
    // and back on the same device, to the bit
    let mut again = OnDevice::new(&machine, &config, io, Optimizer::constant(0.01), 3)?;
    again.load(&device.save()?)?;
    let (x, y) = (step(&mut device, &batch(&io, 10)?)?, step(&mut again, &batch(&io, 10)?)?);
    assert_eq!((x.loss, x.grad_norm, x.update_norm), (y.loss, y.grad_norm, y.update_norm));
    Ok(())
}

/// Evaluation sees the weights of the learner and has streams of its own.
#[test]
fn cuda_kernels_evaluate_as_the_host() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    for config in [BimConfig { delays: Count(2), ..small() }, BimConfig { pre: learned, post: learned, ..small() }] {
        let io = tokens();
        let (mut host, mut device) = pair(&config, io, &machine)?;
        let (mut of_host, mut of_device) = (host.evaluator(3)?, device.evaluator(3)?);
        for predictor in [&mut of_host, &mut of_device] {
            predictor.count_predictions(true);
        }
        for round in 0..2 {
            compare(&mut host, &mut device, &io, 3 * round..3 * round + 3).unwrap_or_else(|e| panic!("{e}"));
            for chunk in 0..3 {
                let batch = batch(&Io { streams: 3, ..io }, chunk)?;
                let predict = |predictor: &mut Box<dyn Predictor>| -> Result<Vec<f32>> {
                    predictor.reset(&batch.starts)?;
                    learner::read_f32(&predictor.predict(&batch.x)?)
                };
                let (want, got) = (predict(&mut of_host)?, predict(&mut of_device)?);
                standins::close("logits", &got, &want, 1e-4).unwrap_or_else(|e| panic!("{e}"));
            }
            assert_eq!(of_host.predicted(), of_device.predicted());
        }
    }
    Ok(())
}

/// Launches do not grow with the steps of a chunk, nor with the streams.
#[test]
fn cuda_kernels_are_launched_once_per_chunk() -> Result<()> {
    let launches = |segment: usize, streams: usize| -> Result<Option<u64>> {
        let Some(machine) = machine() else { return Ok(None) };
        let config = BimConfig { lambda: Share(0.9), ..small() };
        let io = Io { segment, streams, ..tokens() };
        let mut device = OnDevice::new(&machine, &config, io, Optimizer::constant(0.01), 3)?;
        step(&mut device, &batch(&io, 0)?)?;
        machine.launches.lock().expect("one thread").clear();
        step(&mut device, &batch(&io, 1)?)?;
        let launches = machine.launches.lock().expect("one thread").clone();
        println!("{segment} steps of {streams} streams: {launches:?}");
        Ok(Some(launches.values().sum()))
    };
    let (short, long, wide) = (launches(8, 2)?, launches(40, 2)?, launches(8, 5)?);
    println!("{short:?} launches and products per update of two layers");
    assert_eq!(short, long);
    assert_eq!(short, wide);
    Ok(())
}

/// What training over the whole network notices of a kernel that is wrong, in the sources that have no test of their own; the others are
/// in `tests/cuda_kernels`.
#[test]
fn cuda_kernels_errors_are_noticed() -> Result<()> {
    if machine().is_none() {
        return Ok(());
    }
    let (pre, post) = (firing(), firing());
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.5), ..ReadoutConfig::default() };
    let readout = ReadoutConfig { penalty: NonNegative(0.1), step: Step::Learned, ..readout };
    let plain = BimConfig { pre, post, ..small() };
    let stepped = BimConfig { pre: learned, post: learned, readout, ..small() };
    // other exponentials would tip spikes now and then
    let none = NeuronConfig::none();
    let per_state = BimConfig { decay: DecayForm::ChannelState, pre: none, post: none, ..plain.clone() };
    let slow = BimConfig { post: NeuronConfig { beta: Share(0.6), ..none }, ..plain.clone() };
    let truncated = BimConfig { credit: Credit::Tbptt, ..plain.clone() };
    let prune =
        PruneConfig { target: Share(0.4), start: 1, interval: Count(1), hazard: Share(0.9), ..PruneConfig::default() };
    let mixed = BimConfig { lambda: Share(0.7), prune, ..plain.clone() };
    let bounded = |bounds, limit| BimConfig {
        stdp: StdpConfig { bounds, limit: Positive(limit), ..StdpConfig::default() },
        ..mixed.clone()
    };
    let (soft, hard) = (bounded(Bounds::Soft, 2.0), bounded(Bounds::Hard, 1.2));
    let population = BimConfig { population: Count(2), currents: true, ..mixed.clone() };
    let shuffled = BimConfig { stdp: StdpConfig { shuffled: true, ..StdpConfig::default() }, ..mixed.clone() };
    use Source::{Encode, Network, Plasticity, Readout, Scan, Trace, TraceCredit, Update};
    let errors = [
        (Network, "table[size_t(token) * width + i] : nanf", "table[i] : nanf", &plain),
        (Network, "== token) sum += dx[size_t(row) * width + i];", "== token) sum += dx[i];", &plain),
        (Network, "to[(n * outer + o) * width", "to[(o * inner + n) * width", &plain),
        (Network, "to[i] = row[i % width];", "to[i] = row[0];", &plain),
        (Network, "if (i < count) to[i] = value;", "if (i < count) to[i] += value;", &plain),
        (Network, "if (i < count) to[i] = from[i];", "if (i < count) to[i] = 0.0f;", &truncated),
        (Network, "to[c] += parts[0];", "to[c] = parts[0];", &plain),
        (Network, "size_t(c) * per + i % per];", "size_t(c) * per];", &plain),
        (Network, "v[size_t(r + steps) * wide + i];", "v[size_t(r) * wide + i];", &plain),
        (
            Network,
            "r < kept; ++r) v[size_t(r) * len + i] = v[size_t(r + steps)",
            "r < kept; ++r) v[size_t(r) * len + i] = v[size_t(r)",
            &slow,
        ),
        (Network, "v[size_t(r) * len + i] = v[size_t(lag) * len + i];", "v[size_t(r) * len + i] = v[i];", &plain),
        (Network, "if (marks[blockIdx.y])", "if (marks[0])", &plain),
        (Network, "__fadd_rn(z[i], bias[h])", "z[i]", &plain),
        (Network, "expf(__fmul_rn(-size, expf(a_log[h])))", "expf(-size)", &plain),
        (Network, "= skip[i];", "= 1.0f;", &plain),
        (Network, "= expf(a_log[i]);", "= a_log[i];", &per_state),
        (Network, "s[i] < 0.0f ? -price : 0.0f", "s[i] < 0.0f ? price : 0.0f", &plain),
        (Readout, "Neuron(constants, i % width).fire(v) : v", "v : v", &stepped),
        (Readout, "sum = fmaf(back, normed[at], sum);", "sum += back;", &plain),
        (Readout, "d[at] = back * gain[i];", "d[at] = back;", &plain),
        (Readout, "const float priced = back + price", "const float priced = back - price", &stepped),
        (Readout, "step_sum += back * spike - priced", "step_sum += back * spike + priced", &stepped),
        (Readout, "sum += wanted[at] * spike - priced", "sum += wanted[at] * spike + priced", &stepped),
        (Readout, "to[i] = expf(from[i]);", "to[i] = from[i];", &stepped),
        (Readout, "steps[(i / width) % parts * width + i % width]", "steps[i % width]", &stepped),
        (Encode, "reset = c[12] * threshold;", "", &stepped),
        (Scan, "reset = c[12] * threshold;", "", &stepped),
        (Trace, "(size_t(d / per) * states + k) * per + d % per] = from[i];", "i % layer] = from[i];", &per_state),
        (TraceCredit, "(size_t(b) * heads + head) * states + k;", "size_t(b) * heads * states + k;", &plain),
        (TraceCredit, "channels + d : (size_t(b) * heads", "channels : (size_t(b) * heads", &per_state),
        (TraceCredit, ": size_t(b) * channels + d;", ": size_t(b) * channels;", &plain),
        (TraceCredit, "channels + d : size_t(b)", "channels : size_t(b)", &per_state),
        (TraceCredit, "product[i] = lambda[i] * trace[i];", "product[i] = lambda[i];", &plain),
        (Update, "sum += double(v[i]) * double(v[i]);", "sum += double(v[i]);", &plain),
        (Update, "if (threadIdx.x == 0) *sum = part;", "if (threadIdx.x == 0) *sum = values[0];", &plain),
        (Update, "const float gi = __fmul_rn(g[i], scale);", "const float gi = g[i];", &plain),
        (Update, "__fmul_rn(__fmul_rn(1.0f - beta2, gi), gi)", "__fmul_rn(1.0f - beta2, gi)", &plain),
        (Update, "__fmul_rn(keep, old)", "old", &plain),
        (Update, "squares += by * by;", "squares += by;", &plain),
        (Update, "if (i < count) v[i] *= mask[i];", "", &mixed),
        (Update, "living += w[i] != 0.0f ? 1.0 : 0.0;", "living += 1.0;", &mixed),
        (Update, "__fsub_rn(1.0f, __fmul_rn(x, x))", "1.0f", &mixed),
        (Update, "(1.0f - x) / 2.0f", "(1.0f + x) / 2.0f", &soft),
        (Update, "w[i] = fminf(fmaxf(w[i], -furthest), furthest);", "", &hard),
        (Plasticity, "sum += c % 2 == 0 ? s : -s;", "sum += s;", &population),
        (Plasticity, "size_t(order[size_t(b) * steps + t])", "size_t(t)", &shuffled),
    ];
    // a gradient whose norm is clipped, since one error is in that
    let apart = |config: &BimConfig, kernels| -> Result<_> {
        let machine = OnHost { kernels, launches: Arc::default() };
        // of a slow membrane the history is longer than a chunk
        let io = Io { segment: if config.post.beta.0 > 0.1 { 8 } else { SEGMENT }, ..tokens() };
        let (mut host, mut device) = clipped_pair(config, io, &machine, 0.4)?;
        Ok(compare(&mut host, &mut device, &io, 0..7))
    };
    for config in [&plain, &slow, &stepped, &per_state, &truncated, &mixed, &soft, &hard, &population, &shuffled] {
        apart(config, kernels().clone())?.unwrap_or_else(|e| panic!("without an error: {config:?}: {e}"));
    }
    let mut unnoticed = Vec::new();
    for (source, from, to, config) in errors {
        let wrong = Kernels::build_with(&path(source), &[(from, to)]).unwrap_or_else(|e| panic!("{e}"));
        let mut all = (**kernels()).clone();
        all.insert(source, Arc::new(wrong));
        match apart(config, Arc::new(all))? {
            Ok(found) => unnoticed.push(format!("{to:?} for {from:?}: {:.1e} apart", found.furthest)),
            Err(found) => println!("{to:?} for {from:?}: {}", found.chars().take(100).collect::<String>()),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices {unnoticed:#?}");
    Ok(())
}

/// A state beyond numbers is told as on the host, with its layer.
#[test]
fn cuda_kernels_tell_an_explosion() -> Result<()> {
    let Some(machine) = machine() else { return Ok(()) };
    let io = tokens();
    let (mut host, mut device) = pair(&small(), io, &machine)?;
    step(&mut host, &batch(&io, 0)?)?;
    for value in [f32::NAN, f32::INFINITY, 1e20] {
        let mut saved = host.save()?;
        let state = &saved.state["layers.1.h.group.1"];
        let mut values = learner::read_f32(state)?;
        values[3] = value;
        let len = values.len();
        saved.state.insert("layers.1.h.group.1".into(), Tensor::from_vec(values, len, &Device::Cpu)?);
        let mut said = Vec::new();
        for learner in [&mut host as &mut dyn Learner, &mut device] {
            learner.load(&saved)?;
            let batch = Batch { starts: vec![false; STREAMS], ..batch(&io, 1)? };
            said.push(step(learner, &batch).expect_err("an explosion").to_string());
        }
        println!("{said:?}");
        assert!(said.iter().all(|s| s.contains("state is") && s.contains("layers.1")), "{said:?}");
    }
    Ok(())
}
