//! What a network on a device asks of it: memory, launches of the kernels in `src/cuda`, and matrix products. Two machines have it: a
//! GPU ([`super::gpu`]), and in tests the host with the same sources compiled for it.

use std::sync::Arc;

use candle_core::Tensor;
use learner::product::View;
use learner::{Error, Result, Targets};

use crate::runs_on::BLOCKS;

/// The sources in `src/cuda`, each with its file and, in a build with CUDA, what `nvcc` made of it.
macro_rules! sources {
    ($($source:ident, $file:literal, $ptx:ident;)*) => {
        /// A source in `src/cuda`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Source {
            $($source,)*
        }

        impl Source {
            /// All of them, and the names of their files.
            #[cfg(test)]
            pub const FILES: &[(Self, &str)] = &[$((Self::$source, concat!($file, ".cu")),)*];

            /// Its name among the modules of a device, and what `nvcc` made of it.
            #[cfg(feature = "cuda")]
            pub fn module(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$source => (concat!("bim_", $file), ptx::$ptx),)*
                }
            }
        }
    };
}

sources! {
    Encode, "encode", BIM_ENCODE;
    Membrane, "membrane", BIM_MEMBRANE;
    Network, "network", BIM_NETWORK;
    Plasticity, "plasticity", BIM_PLASTICITY;
    Readout, "readout", BIM_READOUT;
    Row, "row", BIM_ROW;
    Scan, "scan", BIM_SCAN;
    Trace, "trace", BIM_TRACE;
    TraceCredit, "trace_credit", BIM_TRACE_CREDIT;
    Update, "update", BIM_UPDATE;
}

/// How many blocks, and how many threads each has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: [usize; 3],
    pub threads: usize,
}

impl Grid {
    const THREADS: usize = 128;

    /// A thread for each of `count`.
    pub fn over(count: usize) -> Self {
        Self { blocks: [count.div_ceil(Self::THREADS), 1, 1], threads: Self::THREADS }
    }

    /// A thread for each of `count` in each stream.
    pub fn over_each(count: usize, streams: usize) -> Self {
        Self { blocks: [count.div_ceil(Self::THREADS), streams, 1], threads: Self::THREADS }
    }

    /// A block for each of `rows` and of the pieces of `count` columns.
    pub fn over_rows(rows: usize, count: usize) -> Self {
        Self::over_streams(rows, count, 1)
    }

    /// The same for each of several streams. Rows may be many, as states times channels are: they have the first dimension.
    pub fn over_streams(rows: usize, count: usize, streams: usize) -> Self {
        Self { blocks: [rows, count.div_ceil(Self::THREADS), streams], threads: Self::THREADS }
    }

    /// So many blocks of `threads`.
    pub fn of(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads }
    }
}

/// Numbers of 32 bits on a machine, from an element on. A number of 64 bits takes two.
pub(crate) struct At<'a, M: Machine>(pub &'a M::Buffer, pub usize);

#[allow(clippy::expl_impl_clone_on_copy, reason = "a derived one would ask it of the machine")]
impl<M: Machine> Clone for At<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for At<'_, M> {}

/// What a kernel is given.
pub(crate) enum Arg<'a, M: Machine> {
    /// An array, read or written.
    At(At<'a, M>),
    /// No array.
    Null,
    /// A size, or a flag as 1 and 0.
    Size(usize),
    /// A number.
    F32(f32),
}

impl<'a, M: Machine> Arg<'a, M> {
    /// From the first element on.
    pub fn all(buffer: &'a M::Buffer) -> Self {
        Self::At(At(buffer, 0))
    }

    /// From an element on.
    pub fn from(buffer: &'a M::Buffer, at: usize) -> Self {
        Self::At(At(buffer, at))
    }

    /// An array that may not be there.
    pub fn maybe(at: Option<At<'a, M>>) -> Self {
        at.map_or(Self::Null, Self::At)
    }
}

/// An operand of a product: as many matrices as the product has, each `stride` behind the one before.
pub(crate) struct Matrix<'a, M: Machine> {
    pub at: At<'a, M>,
    pub view: View,
    pub stride: usize,
}

/// A single matrix.
pub(crate) fn matrix<M: Machine>(buffer: &M::Buffer, at: usize, view: View) -> Matrix<'_, M> {
    Matrix { at: At(buffer, at), view, stride: 0 }
}

/// Memory, kernels and products of a device. Work is done in the order in which it is asked for; nothing waits but `download` and what
/// is given to the host.
pub(crate) trait Machine: Clone + Send + Sync + 'static {
    /// An array of 32-bit numbers.
    type Buffer: Send + Sync;

    /// An array of zeros; of none at least one, since nothing has no address.
    fn zeros(&self, len: usize) -> Result<Self::Buffer>;

    /// Copies from the host.
    fn upload(&self, values: &[f32], to: At<'_, Self>) -> Result<()>;

    /// Copies to the host.
    fn download(&self, from: At<'_, Self>, into: &mut [f32]) -> Result<()>;

    /// Launches a kernel: what [`Machine::launch`] found to fit.
    fn start(&self, source: Source, name: &'static str, grid: Grid, args: &[Arg<'_, Self>]) -> Result<()>;

    /// Launches a kernel, unless it is given a size that has no room in 32 bits, or a launch has no room for its blocks.
    fn launch(&self, source: Source, name: &'static str, grid: Grid, args: &[Arg<'_, Self>]) -> Result<()> {
        let sizes = args.iter().filter_map(|arg| if let Arg::Size(n) = arg { Some(*n) } else { None });
        sizes.chain([grid.blocks[0]]).try_for_each(|n| fits(name, n))?;
        if let Some(n) = grid.blocks[1..].iter().find(|n| **n > BLOCKS) {
            let expected = format!("at most {BLOCKS} streams, or blocks of columns; lower streams, or width");
            return Err(Error::shape(format!("launch of {name} on a GPU"), expected, n));
        }
        self.start(source, name, grid, args)
    }

    /// `batch` products `to ← keep · to + a · b`.
    fn product(
        &self,
        batch: usize,
        to: Matrix<'_, Self>,
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        keep: f32,
    ) -> Result<()>;

    /// A learner's input, contiguous and as it is.
    fn input(&self, x: &Tensor) -> Result<Self::Buffer>;

    /// A tensor of the host, where a learner's inputs are.
    fn place(&self, x: &Tensor) -> Result<Tensor>;

    /// A tensor of the contract that holds the first elements.
    fn output(&self, from: &Self::Buffer, dims: [usize; 3]) -> Result<Tensor>;

    /// A loss and its gradient with respect to the logits `[B, K, O]`; `None` without any weight.
    fn loss(&self, logits: &Tensor, y: &Targets) -> Result<Option<(f64, Self::Buffer)>>;
}

/// Refuses what kernels cannot count: they do it in 32 bits.
pub(crate) fn fits(what: &str, count: usize) -> Result<()> {
    if i32::try_from(count).is_ok() {
        return Ok(());
    }
    let expected = "fewer than 2^31 numbers; lower width, channels, state, segment or streams, or use --device cpu";
    Err(Error::shape(format!("{what} on a GPU"), expected, count))
}

/// Marks of streams as kernels read them.
pub(crate) fn marks<M: Machine>(machine: &M, starts: &[bool]) -> Result<Arc<M::Buffer>> {
    array(machine, &words(&starts.iter().map(|start| u32::from(*start)).collect::<Vec<_>>()))
}

/// Numbers of 64 bits that kernels leave for the host: pairs of 32-bit elements.
pub(crate) fn wide<M: Machine>(machine: &M, from: &M::Buffer, at: usize, count: usize) -> Result<Vec<f64>> {
    let mut words = vec![0.0; 2 * count];
    machine.download(At(from, 2 * at), &mut words)?;
    let pair = |w: &[f32]| f64::from_bits(u64::from(w[0].to_bits()) | u64::from(w[1].to_bits()) << 32);
    Ok(words.chunks_exact(2).map(pair).collect())
}

/// Whole numbers as the words that an array holds.
pub(crate) fn words(values: &[u32]) -> Vec<f32> {
    values.iter().map(|v| f32::from_bits(*v)).collect()
}

/// An array from the host's values.
pub(crate) fn array<M: Machine>(machine: &M, values: &[f32]) -> Result<Arc<M::Buffer>> {
    let buffer = machine.zeros(values.len())?;
    if !values.is_empty() {
        machine.upload(values, At(&buffer, 0))?;
    }
    Ok(Arc::new(buffer))
}
