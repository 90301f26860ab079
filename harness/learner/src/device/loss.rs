//! The losses in kernels: `cuda/loss.cu` and `cuda/ctc.cu`.

use candle_core::{DType, Tensor};

use super::{Arg, Grid, Kernel, launch, on_graph};
use crate::ctc::Transcripts;
use crate::{Error, Result, Targets};

const fn kernel(name: &'static str) -> Kernel {
    Kernel { module: "learner_loss", ptx: ptx::LEARNER_LOSS, name }
}

/// A block that sums.
const ONE: Grid = Grid { blocks: [1, 1], threads: [256, 1] };

/// [`crate::loss`] on a GPU.
pub(crate) fn loss(logits: &Tensor, y: &Targets) -> Result<Option<Tensor>> {
    loss_and_gradient(logits, y)?.map(|(value, gradient)| known(logits, value, gradient)).transpose()
}

/// The same loss and its gradient with respect to the logits, without a graph. The host waits once, for the value and the sum of the
/// weights.
///
/// # Errors
/// If shapes disagree. A class outside the outputs makes the loss no number: the host does not see it.
pub fn loss_and_gradient(logits: &Tensor, y: &Targets) -> Result<Option<(f64, Tensor)>> {
    let (b, k, o) = logits.dims3()?;
    let device = logits.device();
    y.check([b, k, o])?;
    let (name, target) = match y {
        Targets::Classes { class, .. } => ("loss_classes", class),
        Targets::Labels { label, .. } => ("loss_labels", label),
        Targets::Posteriors { probability, .. } => ("loss_posteriors", probability),
        Targets::Transcripts { transcripts, .. } => return ctc_and_gradient(transcripts, logits),
    };
    let (weight, target, z) = (y.weight().contiguous()?, target.contiguous()?, logits.detach().contiguous()?);
    let rows = b * k;
    let total = Tensor::zeros(1, DType::F64, device)?;
    let losses = Tensor::zeros(rows, DType::F64, device)?;
    let sum = Tensor::zeros(1, DType::F64, device)?;
    let gradient = z.zeros_like()?;
    launch(device, kernel("loss_total_weight"), ONE, &[Arg::Size(rows), Arg::Tensor(&weight), Arg::Tensor(&total)])?;
    let mut args = Vec::new();
    if matches!(y, Targets::Labels { .. }) {
        args.push(Arg::Size(k));
    }
    args.extend([Arg::Size(o), Arg::Tensor(&z), Arg::Tensor(&target), Arg::Tensor(&weight)]);
    args.extend([Arg::Tensor(&total), Arg::Tensor(&losses), Arg::Tensor(&gradient)]);
    launch(device, kernel(name), Grid { blocks: [rows, 1], threads: [32, 1] }, &args)?;
    launch(device, kernel("loss_sum"), ONE, &[Arg::Size(rows), Arg::Tensor(&losses), Arg::Tensor(&sum)])?;
    let read = Tensor::cat(&[&total, &sum], 0)?.to_vec1::<f64>()?;
    let &[total, sum] = read.as_slice() else { return Err(Error::shape("loss", "two numbers", read.len())) };
    if total == 0.0 {
        return Ok(None);
    }
    Ok(Some((sum / total, gradient)))
}

/// A loss of this value and gradient on the graph of `logits`.
fn known(logits: &Tensor, value: f64, gradient: Tensor) -> Result<Tensor> {
    let y = Tensor::new(value as f32, logits.device())?;
    let back = move |upstream: &Tensor| Ok([Some(gradient.broadcast_mul(upstream)?), None, None]);
    Ok(on_graph(&y, [logits, &y, &y], back)?)
}

/// Threads of an utterance.
const CTC: [usize; 2] = [128, 1];

/// [`Transcripts::loss`] on a GPU. The host waits once, for the value.
pub(crate) fn ctc(transcripts: &Transcripts, logits: &Tensor) -> Result<Option<Tensor>> {
    ctc_and_gradient(transcripts, logits)?.map(|(value, gradient)| known(logits, value, gradient)).transpose()
}

fn ctc_and_gradient(transcripts: &Transcripts, logits: &Tensor) -> Result<Option<(f64, Tensor)>> {
    let (b, k, o) = logits.dims3()?;
    transcripts.check([b, k, o])?;
    let total = transcripts.total_steps();
    if total == 0 {
        return Ok(None);
    }
    let device = logits.device();
    let longest = transcripts.labels.iter().map(Vec::len).max().unwrap_or(0);
    let row = |labels: &Vec<u32>| {
        labels.iter().copied().chain(std::iter::repeat_n(0, longest.max(1) - labels.len())).collect()
    };
    let padded: Vec<Vec<u32>> = transcripts.labels.iter().map(row).collect();
    let longest = longest.max(1); // an array of no elements has no address
    let numbers = |n: Vec<u32>| Tensor::from_vec(n, b, device);
    let labels = Tensor::from_vec(padded.concat(), (b, longest), device)?;
    let lengths = numbers(transcripts.labels.iter().map(|l| l.len() as u32).collect())?;
    let steps = numbers(transcripts.steps.iter().map(|&n| n as u32).collect())?;
    let z = logits.detach().contiguous()?;
    let states = 2 * longest + 1;
    let scratch = |n: usize| Tensor::zeros(n, DType::F64, device);
    let (sums, alpha, beta, losses) =
        (scratch(b * k)?, scratch(b * k * states)?, scratch(b * 2 * states)?, scratch(b)?);
    let gradient = z.zeros_like()?;
    let kernel = Kernel { module: "learner_ctc", ptx: ptx::LEARNER_CTC, name: "ctc" };
    let args = [
        Arg::Size(k),
        Arg::Size(o),
        Arg::Size(longest),
        Arg::Size(transcripts.blank as usize),
        Arg::F32(total as f32),
        Arg::Tensor(&z),
        Arg::Tensor(&labels),
        Arg::Tensor(&lengths),
        Arg::Tensor(&steps),
        Arg::Tensor(&sums),
        Arg::Tensor(&alpha),
        Arg::Tensor(&beta),
        Arg::Tensor(&losses),
        Arg::Tensor(&gradient),
    ];
    launch(device, kernel, Grid { blocks: [b, 1], threads: CTC }, &args)?;
    let value = losses.to_vec1::<f64>()?.iter().sum::<f64>() / total as f64;
    Ok(Some((value, gradient)))
}
