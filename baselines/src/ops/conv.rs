use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::linear::check_last;
use super::{Tape, add, fused, gradient, rms_norm_slow, slice, sum_in_order, values_of, with_values};
use crate::count;
use crate::kernels::{norm_relu, norm_relu_backward};
use crate::scratch::Scratch;

mod columns;
mod direct;
mod operations;
mod winograd;

/// Steps that one task prepares.
const ROWS_PER_TASK: usize = 256;

/// What happens to every step of a convolution's input before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// `relu(rms norm)` over the step's channels, without gain: a gain would pass through the relu into the weights.
    NormRelu,
}

/// What a convolution sees beyond its input.
#[derive(Clone, Debug)]
pub enum Edge {
    /// The last `(taps − 1) · dilation` steps before the segment, `[B, (taps − 1) · dilation, I]`: step `t` sees `t` and
    /// earlier ones. No gradient reaches them.
    Causal(Tensor),
    /// Zeros on both sides, as many on each. Of stream `b` the first `lengths[b]` steps are there, the others count as
    /// zeros, and so do the outputs beyond `⌈lengths[b] / stride⌉`.
    Centred {
        /// Steps of each stream.
        lengths: Vec<usize>,
        /// Input steps per output step.
        stride: usize,
    },
}

/// A convolution over steps.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Steps that an output step sees; odd if centred.
    pub taps: usize,
    /// Distance between them.
    pub dilation: usize,
    /// Beyond the input.
    pub edge: Edge,
    /// What happens to the input.
    pub before: Before,
}

/// Convolution over steps: `y_t = b + Σ_j before(x)_{t·stride + j·dilation − left} · w_j` with `x` `[B, K, I]`, `w`
/// `[taps · I, O]` (the block of the first tap, `w_0`, belongs to the earliest step), `b` `[O]` →
/// `[B, ⌈K / stride⌉, O]`.
///
/// # Errors
/// If shapes do not fit.
pub fn conv(x: &Tensor, w: &Tensor, b: &Tensor, conv: &Conv) -> Result<Tensor> {
    let dims = conv.check(x, w, b)?;
    if !fused(x) {
        count::unknown(dims.streams * dims.produced() * w.elem_count());
        return conv_slow(x, w, b, conv);
    }
    let context = match &conv.edge {
        Edge::Causal(context) => values_of(context)?,
        Edge::Centred { .. } => Vec::new(),
    };
    let record = x.track_op() || w.track_op() || b.track_op();
    let of_data = !x.track_op();
    let op = FusedConv { dims, before: conv.before, context, record, of_data, tape: Tape::new() };
    x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)
}

/// [`conv`] in tensor operations.
///
/// # Errors
/// If shapes do not fit.
pub fn conv_slow(x: &Tensor, w: &Tensor, b: &Tensor, conv: &Conv) -> Result<Tensor> {
    let d = conv.check(x, w, b)?;
    let zeros = |steps| Tensor::zeros((d.streams, steps, d.inputs), x.dtype(), x.device());
    let kept = x.broadcast_mul(&mask(&d.lengths, d.steps, x)?)?;
    let padded = match &conv.edge {
        Edge::Causal(context) => Tensor::cat(&[&context.to_dtype(x.dtype())?.detach(), &kept], 1)?,
        Edge::Centred { .. } => Tensor::cat(&[&zeros(d.left)?, &kept, &zeros(d.left)?], 1)?,
    };
    let padded = match conv.before {
        Before::Nothing => padded,
        Before::NormRelu => rms_norm_slow(&padded)?.relu()?,
    };
    let outputs = d.outputs_of(d.steps);
    let mut y = b.reshape((1, 1, d.outputs))?.broadcast_as((d.streams, outputs, d.outputs))?.contiguous()?;
    for tap in 0..d.taps {
        let rows: Vec<u32> = (0..outputs).map(|t| (t * d.stride + tap * d.dilation) as u32).collect();
        let rows = Tensor::from_vec(rows, outputs, x.device())?;
        let seen = padded.index_select(&rows, 1)?; // [B, K', I]
        y = (y + super::matmul_slow(&seen, &w.narrow(0, tap * d.inputs, d.inputs)?)?)?;
    }
    let lengths: Vec<usize> = d.lengths.iter().map(|&n| d.outputs_of(n)).collect();
    y.broadcast_mul(&mask(&lengths, outputs, x)?)
}

/// `[B, steps, 1]`: 1 for the first `lengths[b]` steps of stream `b`, 0 for the others.
pub(super) fn mask(lengths: &[usize], steps: usize, like: &Tensor) -> Result<Tensor> {
    let there = lengths.iter().flat_map(|&n| (0..steps).map(move |t| f32::from(u8::from(t < n)))).collect();
    Tensor::from_vec(there, (lengths.len(), steps, 1), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
}

impl Conv {
    fn check(&self, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Dims> {
        let ((streams, steps, inputs), (rows, outputs)) = (x.dims3()?, w.dims2()?);
        check_last("convolution input", x, inputs)?;
        check_last("convolution bias", b, outputs)?;
        if self.taps == 0 || self.dilation == 0 || rows != self.taps * inputs {
            bail!("convolution weights: expected [{} · {inputs}, {outputs}], got {:?}", self.taps, w.dims());
        }
        let reach = (self.taps - 1) * self.dilation;
        let (left, right, stride, lengths) = match &self.edge {
            Edge::Causal(context) => {
                if context.dims() != [streams, reach, inputs] {
                    bail!("steps before: expected [{streams}, {reach}, {inputs}], got {:?}", context.dims());
                }
                (reach, 0, 1, vec![steps; streams])
            }
            Edge::Centred { lengths, stride } => {
                if lengths.len() != streams || lengths.iter().any(|&n| n > steps) {
                    bail!("lengths: expected {streams} of {steps} or less, got {lengths:?}");
                }
                if *stride == 0 || self.taps.is_multiple_of(2) {
                    bail!("expected a stride and an odd number of taps, got {stride} and {}", self.taps);
                }
                (reach / 2, reach / 2, *stride, lengths.clone())
            }
        };
        let Self { taps, dilation, .. } = *self;
        Ok(Dims { streams, steps, inputs, outputs, taps, dilation, stride, left, right, lengths })
    }
}

#[derive(Clone)]
struct Dims {
    streams: usize,
    steps: usize,
    inputs: usize,
    outputs: usize,
    taps: usize,
    dilation: usize,
    stride: usize,
    /// Steps before and after the input.
    left: usize,
    right: usize,
    /// Input steps of each stream that are there.
    lengths: Vec<usize>,
}

impl Dims {
    /// Output steps for so many input steps.
    fn outputs_of(&self, steps: usize) -> usize {
        steps.div_ceil(self.stride)
    }

    /// Output steps per stream, `K'`.
    fn produced(&self) -> usize {
        self.outputs_of(self.steps)
    }

    /// Steps of a stream with what is beside them, `P`.
    fn padded(&self) -> usize {
        self.left + self.steps + self.right
    }

    /// The fastest form. It depends on shapes alone, not on values, lengths or threads.
    fn form(&self) -> Form {
        if self.in_pairs() {
            Form::Pairs
        } else if self.short() {
            Form::Columns
        } else {
            Form::Direct
        }
    }

    /// Elements of the padded input of one stream.
    fn padded_len(&self) -> usize {
        self.padded() * self.inputs
    }
}

/// How the products are made.
enum Form {
    /// Two outputs share some of them.
    Pairs,
    /// Many streams are one.
    Columns,
    /// Tap by tap.
    Direct,
}

struct FusedConv {
    dims: Dims,
    before: Before,
    /// Steps before the segment, `[B, left, I]`; empty if they are zeros.
    context: Vec<f32>,
    record: bool,
    /// Whether no gradient goes back into the input.
    of_data: bool,
    /// What the weights were multiplied with, `[B, P, I]`.
    tape: Tape<Scratch>,
}

impl FusedConv {
    /// What the weights are multiplied with, `[B, P, I]`, and how many values of each step are not zero, `[B, P]`; the
    /// latter are left at zero unless `counting`.
    fn prepared(&self, x: &[f32], counting: bool) -> (Scratch, Vec<u32>) {
        let Dims { streams, steps, inputs, left, ref lengths, .. } = self.dims;
        let per_stream = self.dims.padded_len();
        let mut padded = Scratch::of(streams * per_stream);
        let mut nonzero = vec![0; streams * self.dims.padded()];
        let prepare = |x: &[f32], out: &mut [f32], nonzero: &mut [u32]| {
            match self.before {
                Before::Nothing => out.copy_from_slice(x),
                Before::NormRelu => norm_relu(x, out, inputs),
            }
            if counting {
                operations::nonzero_of_rows(out, nonzero);
            }
        };
        let each = (padded.par_chunks_mut(per_stream), nonzero.par_chunks_mut(self.dims.padded()));
        let streams = (each.into_par_iter(), x.par_chunks(steps * inputs)).into_par_iter();
        streams.enumerate().for_each(|(s, ((padded, nonzero), x))| {
            let (head, rest) = padded.split_at_mut(left * inputs);
            let (body, tail) = rest.split_at_mut(lengths[s] * inputs);
            let (of_head, of_rest) = nonzero.split_at_mut(left);
            if self.context.is_empty() {
                head.fill(0.0);
            } else {
                prepare(&self.context[s * left * inputs..(s + 1) * left * inputs], head, of_head);
            }
            body.par_chunks_mut(ROWS_PER_TASK * inputs)
                .zip(of_rest[..lengths[s]].par_chunks_mut(ROWS_PER_TASK))
                .zip(x[..lengths[s] * inputs].par_chunks(ROWS_PER_TASK * inputs))
                .for_each(|((body, nonzero), x)| prepare(x, body, nonzero));
            tail.fill(0.0);
        });
        (padded, nonzero)
    }

    fn forward(&self, padded: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
        match self.dims.form() {
            Form::Pairs => self.forward_in_pairs(padded, w, b),
            Form::Columns => self.forward_by_columns(padded, w, b),
            Form::Direct => self.forward_directly(padded, w, b),
        }
    }

    /// Writes to `dx`, steps of stream `s` from `first` on, what comes back through what happens before a convolution from
    /// `d`, the gradient of its outcome, which is used up. Steps beyond the stream's length are left as they are.
    fn through_preparation(
        &self,
        (x, padded): (&[f32], &[f32]),
        (s, first): (usize, usize),
        d: &mut [f32],
        dx: &mut [f32],
    ) {
        let Dims { steps, inputs, left, ref lengths, .. } = self.dims;
        let there = d.len().min(lengths[s].saturating_sub(first) * inputs);
        let (dx, d) = (&mut dx[..there], &mut d[..there]);
        match self.before {
            Before::Nothing => dx.copy_from_slice(d),
            Before::NormRelu => {
                let a = &padded[s * self.dims.padded_len() + (left + first) * inputs..][..there];
                norm_relu_backward(&x[(s * steps + first) * inputs..][..there], a, d, dx, inputs);
            }
        }
    }

    fn bias_gradient(&self, dy: &[f32]) -> Vec<f32> {
        let Dims { outputs, ref lengths, .. } = self.dims;
        let per_stream = dy.par_chunks(self.dims.produced() * outputs).zip(lengths).map(|(dy, &length)| {
            let mut sum = vec![0.0; outputs];
            dy.chunks_exact(outputs).take(self.dims.outputs_of(length)).for_each(|row| add(&mut sum, row));
            sum
        });
        sum_in_order(per_stream.collect(), outputs)
    }

    /// Gradients of `x`, if wanted, `w` and `b`.
    fn gradients(
        &self,
        (x, padded): (&[f32], &[f32]),
        w: &[f32],
        dy: &[f32],
        wanted: bool,
    ) -> (Option<Vec<f32>>, Vec<f32>, Vec<f32>) {
        let (dx, dw) = match self.dims.form() {
            Form::Pairs => (
                wanted.then(|| self.input_gradient_in_pairs(x, w, padded, dy)),
                self.weight_gradient_in_pairs(padded, dy),
            ),
            Form::Columns => (
                wanted.then(|| self.input_gradient_by_columns(x, w, padded, dy)),
                self.weight_gradient_by_columns(padded, dy),
            ),
            Form::Direct => (
                wanted.then(|| self.input_gradient_directly(x, w, padded, dy)),
                self.weight_gradient_directly(padded, dy),
            ),
        };
        (dx, dw, self.bias_gradient(dy))
    }
}

impl CustomOp3 for FusedConv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let counting = count::active();
        let (padded, nonzero) = self.prepared(slice(s1, l1, "x")?, counting);
        let y = self.forward(&padded, slice(s2, l2, "w")?, slice(s3, l3, "b")?);
        if counting {
            self.count(&padded, &nonzero, slice(s2, l2, "w")?);
        }
        if self.record {
            self.tape.put(padded);
        }
        let shape = (self.dims.streams, self.dims.produced(), self.dims.outputs);
        Ok((CpuStorage::F32(y), Shape::from(shape)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let padded = self.tape.take()?;
        let wanted = x.track_op();
        let back = |[x, w, dy]: [&[f32]; 3]| self.gradients((x, &padded), w, dy, wanted);
        let (dx, dw, db) = with_values([x, w, dy], back)?;
        Ok((dx.map_or(Ok(None), |dx| gradient(dx, x))?, gradient(dw, w)?, gradient(db, b)?))
    }
}
