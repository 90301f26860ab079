//! A step of all parameters in kernels: `cuda/adamw.cu`.

use candle_core::{DType, Device, Tensor};

use super::{Arg, Grid, Kernel, address, launch};
use crate::{Error, Result};

/// Elements of a chunk, the work of a block.
const CHUNK: usize = 8192;
/// Threads of a block.
const THREADS: [usize; 2] = [256, 1];

const fn kernel(name: &'static str) -> Kernel {
    Kernel { module: "learner_adamw", ptx: ptx::LEARNER_ADAMW, name }
}

/// How the parameters are cut into chunks.
pub(crate) struct Chunks {
    /// Of each chunk: its parameter, first element and length.
    of: Tensor,
    from: Tensor,
    len: Tensor,
    count: usize,
}

impl Chunks {
    pub fn new(lengths: &[usize], device: &Device) -> Result<Self> {
        let chunks: Vec<[usize; 3]> = lengths
            .iter()
            .enumerate()
            .flat_map(|(p, &len)| (0..len).step_by(CHUNK).map(move |at| [p, at, CHUNK.min(len - at)]))
            .collect();
        let column = |i: usize| -> Result<Tensor> {
            let numbers: Vec<u32> = chunks.iter().map(|chunk| chunk[i] as u32).collect();
            Ok(Tensor::from_vec(numbers, chunks.len(), device)?)
        };
        Ok(Self { of: column(0)?, from: column(1)?, len: column(2)?, count: chunks.len() })
    }
}

/// What a step is made of.
pub(crate) struct Step<'a> {
    pub beta1: f32,
    pub beta2: f32,
    pub correct1: f32,
    pub correct2: f32,
    pub epsilon: f32,
    pub clip: f32,
    /// Of each parameter: what a weight is multiplied with, and how far it goes.
    pub keep: Vec<f32>,
    pub rate: Vec<f32>,
    /// Parameters, moments and gradients, contiguous and `f32`.
    pub weights: Vec<&'a Tensor>,
    pub firsts: Vec<&'a Tensor>,
    pub seconds: Vec<&'a Tensor>,
    pub gradients: Vec<&'a Tensor>,
}

impl Step<'_> {
    /// Makes the step, unless the gradient is not finite. Returns the norms of the gradient and of the change, for which the host
    /// waits once.
    pub fn make(&self, chunks: &Chunks, device: &Device) -> Result<(f64, f64)> {
        let Device::Cuda(gpu) = device else { return Err(Error::shape("optimiser", "a GPU", device)) };
        let parameters = self.weights.len();
        // the addresses may be others at every step: the gradients' are
        let table = [&self.gradients, &self.weights, &self.firsts, &self.seconds].into_iter().flatten();
        let table: Vec<i64> = table.map(|t| Ok(address(t, gpu)?.cast_signed())).collect::<candle_core::Result<_>>()?;
        let table = Tensor::from_vec(table, (4, parameters), device)?;
        let rows = (0..4).map(|i| table.get(i)).collect::<candle_core::Result<Vec<_>>>()?;
        let factors = |v: &[f32]| Tensor::from_slice(v, parameters, device);
        let (keep, rate) = (factors(&self.keep)?, factors(&self.rate)?);
        let squares = Tensor::zeros(chunks.count, DType::F64, device)?;
        let moved = Tensor::zeros(chunks.count, DType::F64, device)?;
        let sums = Tensor::zeros(2, DType::F64, device)?;
        let (sum, way) = (sums.narrow(0, 0, 1)?, sums.narrow(0, 1, 1)?);
        let grid = Grid { blocks: [chunks.count, 1], threads: THREADS };
        let add = Kernel { module: "learner_loss", ptx: ptx::LEARNER_LOSS, name: "loss_sum" };
        let one = Grid { blocks: [1, 1], threads: THREADS };
        let [of, from, len] = [&chunks.of, &chunks.from, &chunks.len].map(Arg::Tensor);
        launch(device, kernel("adamw_squares"), grid, &[of, from, len, Arg::Tensor(&rows[0]), Arg::Tensor(&squares)])?;
        launch(device, add, one, &[Arg::Size(chunks.count), Arg::Tensor(&squares), Arg::Tensor(&sum)])?;
        let numbers = [self.beta1, self.beta2, self.correct1, self.correct2, self.epsilon, self.clip];
        let mut args: Vec<Arg<'_>> = numbers.into_iter().map(Arg::F32).collect();
        args.extend([Arg::Tensor(&sum), of, from, len, Arg::Tensor(&keep), Arg::Tensor(&rate)]);
        args.extend(rows.iter().map(Arg::Tensor));
        args.push(Arg::Tensor(&moved));
        launch(device, kernel("adamw_step"), grid, &args)?;
        launch(device, add, one, &[Arg::Size(chunks.count), Arg::Tensor(&moved), Arg::Tensor(&way)])?;
        let read = sums.to_vec1::<f64>()?;
        Ok((read[0].sqrt(), read[1].sqrt()))
    }
}
