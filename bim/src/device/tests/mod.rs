//! The network on a device without a GPU: the machine is the host, its kernels the same sources compiled for it, and what comes out is
//! held against the host's own learner.

mod errors;
mod refused;
mod same;

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use learner::{InputKind, Io, Learner, Result, Targets, Update};
use standins::Kernels;

use super::learner::OnDevice;
use super::machine::{Arg, At, Grid, Machine, Matrix, Source};
use crate::config::{BimConfig, Count, NeuronConfig, NonNegative, Positive, Share};
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
    /// Of each kernel, and of products.
    launches: Counts,
    /// Times that the host waited, whatever it waited for.
    waits: Counts,
}

type Counts = Arc<std::sync::Mutex<BTreeMap<&'static str, u64>>>;

impl OnHost {
    fn new(kernels: Arc<BTreeMap<Source, Arc<Kernels>>>) -> Self {
        Self { kernels, launches: Arc::default(), waits: Arc::default() }
    }
}

fn count(counts: &Counts, name: &'static str) {
    *counts.lock().expect("one thread").entry(name).or_default() += 1;
}

/// What was counted since this was last asked.
fn taken(counts: &Counts) -> BTreeMap<&'static str, u64> {
    std::mem::take(&mut *counts.lock().expect("one thread"))
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda").join(file)
}

/// All sources as they are.
fn kernels() -> &'static Arc<BTreeMap<Source, Arc<Kernels>>> {
    static BUILT: OnceLock<Arc<BTreeMap<Source, Arc<Kernels>>>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built =
            |(s, file): &(_, &str)| (*s, Arc::new(Kernels::build(&path(file)).unwrap_or_else(|e| panic!("{e}"))));
        Arc::new(Source::FILES.iter().map(built).collect())
    })
}

/// The host as a machine, unless it has no compiler.
fn machine() -> Option<OnHost> {
    match standins::compiler() {
        Ok(_) => Some(OnHost::new(kernels().clone())),
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
        count(&self.waits, "download");
        into.copy_from_slice(&from.values()[at..at + into.len()]);
        Ok(())
    }

    fn start(&self, source: Source, name: &'static str, grid: Grid, args: &[Arg<'_, Self>]) -> Result<()> {
        count(&self.launches, name);
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
        count(&self.launches, "product");
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

    fn place(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn output(&self, from: &Memory, dims: [usize; 3]) -> Result<Tensor> {
        let [a, b, c] = dims;
        Ok(Tensor::from_slice(&from.values()[..a * b * c], (a, b, c), &Device::Cpu)?)
    }

    fn loss(&self, logits: &Tensor, y: &Targets) -> Result<Option<(f64, Memory)>> {
        count(&self.waits, "loss");
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

/// What a chunk brings: the streams that begin anew with it, inputs and targets.
struct Batch {
    starts: Vec<bool>,
    x: Tensor,
    y: Targets,
}

/// The chunk of that number. Streams begin anew at different chunks, and every fifth chunk is shorter.
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

/// Neurons as bursts at a price, with a threshold low enough that they fire.
fn firing() -> NeuronConfig {
    NeuronConfig { threshold: Positive(0.4), penalty: NonNegative(0.05), ..NeuronConfig::default() }
}
