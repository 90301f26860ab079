use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::linear::check_last;
use super::{Tape, add, fused, gradient, rms_norm_slow, slice, sum_in_order, with_values};
use crate::count;
use crate::kernels::{Keep, Panels, View, matmul, multiply, norm_relu, norm_relu_backward, par_filled};
use crate::scratch::Scratch;

mod operations;

/// Steps that one task works on. More than elsewhere, because a convolution has more weights to pack per output.
const ROWS_PER_TASK: usize = 256;
/// Rows of the weights whose gradient one task computes: enough for the product kernel, few enough to keep every core
/// busy.
const WEIGHTS_PER_TASK: usize = 128;
/// Blocks of rows from which on weights are laid out for the products with them.
const READ_OFTEN: usize = 2;
/// Streams with fewer output steps are joined, because every product packs the weights anew.
const ENOUGH_ROWS: usize = 128;

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
        Edge::Causal(context) => with_values(context, <[f32]>::to_vec)?,
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

    /// Steps of a stream with what is beside them, `P`: whole strides, so that streams in a row are one long stream.
    fn padded(&self) -> usize {
        (self.left + self.steps + self.right).next_multiple_of(self.stride)
    }

    /// Streams that are worked on as one long stream. Between two of them lie outputs that nobody wants.
    fn joined(&self) -> usize {
        let unwanted = self.padded() / self.stride - self.produced();
        let worth_it = unwanted <= self.produced(); // against packing the weights for every stream
        if worth_it { (ENOUGH_ROWS / self.produced()).clamp(1, self.streams) } else { 1 }
    }

    /// The taps as pieces of the padded input that one view can cover, as (pieces, elements of each): neighbouring taps
    /// are neighbours in memory, so that the rows of the view may overlap and nothing is copied.
    fn pieces(&self) -> (usize, usize) {
        if self.dilation == 1 { (1, self.taps * self.inputs) } else { (self.taps, self.inputs) }
    }

    /// Of the first `outputs` output steps those that see the padded input's steps `from .. to` through `tap`.
    fn through(&self, tap: usize, from: usize, to: usize, outputs: usize) -> std::ops::Range<usize> {
        // output t sees step t·stride + tap·dilation
        let first = |step: usize| step.saturating_sub(tap * self.dilation).div_ceil(self.stride);
        let end = first(to).min(outputs);
        first(from).min(end)..end
    }

    fn runs(&self) -> Vec<Run> {
        let joined = self.joined();
        let starts = (0..self.streams).step_by(joined);
        starts.map(|first| Run { first, streams: joined.min(self.streams - first) }).collect()
    }

    /// Output steps of a run as one long stream.
    fn rows(&self, run: Run) -> usize {
        match run.streams {
            1 => self.outputs_of(self.lengths[run.first]),
            n => (n - 1) * self.slots() + self.produced(),
        }
    }

    /// Blocks of rows in all.
    fn blocks(&self) -> usize {
        self.runs().iter().map(|&run| self.rows(run).div_ceil(ROWS_PER_TASK)).sum()
    }

    /// Output steps from one stream to the next in a run.
    fn slots(&self) -> usize {
        self.padded() / self.stride
    }

    /// Elements of the padded input of one stream.
    fn padded_len(&self) -> usize {
        self.padded() * self.inputs
    }
}

/// Streams that are worked on as one.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    streams: usize,
}

/// Weights of the products on the right side.
enum Weights<'a> {
    /// Piece by piece, laid out for many products.
    Panels(Vec<Panels>),
    /// As they are, piece by piece, `[columns, O]` or its transpose: few products read them.
    Once(&'a [f32], usize, View),
}

impl<'a> Weights<'a> {
    /// `w` `[pieces · rows, O]` for so many blocks of rows; each piece is turned over if it is multiplied from the other side.
    fn new(w: &'a [f32], (rows, outputs): (usize, usize), turned: bool, blocks: usize) -> Self {
        let piece = if turned { View::new(rows, outputs).t() } else { View::new(rows, outputs) };
        let len = rows * outputs;
        if blocks > READ_OFTEN {
            Self::Panels(w.chunks_exact(len).map(|w| Panels::of((w, piece))).collect())
        } else {
            Self::Once(w, len, piece)
        }
    }

    /// Adds the product of `a` with piece `index` to `dst`.
    fn multiply(&self, dst: (&mut [f32], View), a: (&[f32], View), index: usize) {
        match self {
            Self::Panels(pieces) => multiply(dst, a, &pieces[index], Keep::Sum),
            Self::Once(w, len, piece) => matmul(dst, a, (&w[index * len..], *piece), Keep::Sum),
        }
    }
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
        let Dims { streams, outputs, ref lengths, .. } = self.dims;
        let produced = self.dims.produced();
        let per_run = self.dims.joined() * produced * outputs;
        let weights = Weights::new(w, (self.dims.pieces().1, outputs), false, self.dims.blocks());
        par_filled(streams * produced * outputs, per_run, self.dims.runs().into_par_iter(), |_, y, run| {
            let padded = &padded[run.first * self.dims.padded_len()..][..run.streams * self.dims.padded_len()];
            let rows = self.dims.rows(run);
            if run.streams == 1 {
                self.products(padded, (&weights, b), &mut y[..rows * outputs]);
                return;
            }
            let mut long = Scratch::of(rows * outputs);
            self.products(padded, (&weights, b), &mut long);
            for (i, y) in y.chunks_exact_mut(produced * outputs).enumerate() {
                let there = self.dims.outputs_of(lengths[run.first + i]) * outputs;
                y[..there].copy_from_slice(&long[i * self.dims.slots() * outputs..][..there]);
            }
        })
    }

    /// Outputs `[rows, O]` of one long stream.
    fn products(&self, padded: &[f32], (weights, b): (&Weights, &[f32]), y: &mut [f32]) {
        let Dims { inputs, outputs, dilation, stride, .. } = self.dims;
        let (pieces, piece) = self.dims.pieces();
        y.par_chunks_mut(ROWS_PER_TASK * outputs).enumerate().for_each(|(block, y)| {
            let rows = y.len() / outputs;
            y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(b));
            for p in 0..pieces {
                let from = &padded[(block * ROWS_PER_TASK * stride + p * dilation) * inputs..];
                let seen = (from, View::strided(rows, piece, stride * inputs));
                weights.multiply((y, View::new(rows, outputs)), seen, p);
            }
        });
    }

    /// The gradient of the outputs with room between streams that are joined, and zeros there and beyond each length:
    /// `[B, slots, O]`.
    fn spread(&self, dy: &[f32]) -> Scratch {
        let Dims { streams, outputs, ref lengths, .. } = self.dims;
        let (slots, produced) = (self.dims.slots() * outputs, self.dims.produced() * outputs);
        let mut out = Scratch::of(streams * slots);
        (out.par_chunks_mut(slots), dy.par_chunks(produced), lengths).into_par_iter().for_each(|(out, dy, &length)| {
            let (there, rest) = out.split_at_mut(self.dims.outputs_of(length) * outputs);
            there.copy_from_slice(&dy[..there.len()]);
            rest.fill(0.0);
        });
        out
    }

    /// Gradient of `x`; `dy` has `per_stream` elements for each stream.
    fn input_gradient(&self, x: &[f32], w: &[f32], padded: &[f32], (dy, per_stream): (&[f32], usize)) -> Vec<f32> {
        let Dims { steps, inputs, outputs, left, ref lengths, .. } = self.dims;
        let weights = Weights::new(w, (inputs, outputs), true, self.dims.blocks());
        let per_run = self.dims.joined() * steps * inputs;
        par_filled(x.len(), per_run, self.dims.runs().into_par_iter(), |_, dx, run| {
            let kept = match run.streams {
                1 => lengths[run.first],
                n => (n - 1) * self.dims.padded() + steps,
            };
            let mut d = Scratch::zeros(kept * inputs); // of padded steps from `left` on
            self.products_back(&weights, &dy[run.first * per_stream..], self.dims.rows(run), &mut d);
            dx.par_chunks_mut(steps * inputs).zip(d.par_chunks_mut(self.dims.padded_len())).enumerate().for_each(
                |(i, (dx, d))| {
                    let s = run.first + i;
                    let there = lengths[s] * inputs;
                    let (d, dx) = (&mut d[..there], &mut dx[..there]);
                    match self.before {
                        Before::Nothing => dx.copy_from_slice(d),
                        Before::NormRelu => {
                            let a = &padded[s * self.dims.padded_len() + left * inputs..][..there];
                            norm_relu_backward(&x[s * steps * inputs..][..there], a, d, dx, inputs);
                        }
                    }
                },
            );
        })
    }

    /// Adds to `d`, padded steps of one long stream from `left` on, what its first `rows` output steps give back.
    fn products_back(&self, weights: &Weights, dy: &[f32], rows: usize, d: &mut [f32]) {
        let Dims { inputs, outputs, taps, dilation, stride, left, .. } = self.dims;
        d.par_chunks_mut(ROWS_PER_TASK * inputs).enumerate().for_each(|(block, d)| {
            let from = left + block * ROWS_PER_TASK;
            for tap in 0..taps {
                let through = self.dims.through(tap, from, from + d.len() / inputs, rows);
                if through.is_empty() {
                    continue;
                }
                let first = through.start * stride + tap * dilation - from;
                let to = View::strided(through.len(), inputs, stride * inputs);
                let back = (&dy[through.start * outputs..], View::new(through.len(), outputs));
                weights.multiply((&mut d[first * inputs..], to), back, tap);
            }
        });
    }

    /// Gradient of `w`: every task sums over the streams in order.
    fn weight_gradient(&self, padded: &[f32], (dy, per_stream): (&[f32], usize)) -> Vec<f32> {
        let Dims { inputs, outputs, taps, dilation, stride, .. } = self.dims;
        let piece = self.dims.pieces().1;
        let runs = self.dims.runs();
        let mut dw = vec![0.0; taps * inputs * outputs];
        dw.par_chunks_mut(piece * outputs).enumerate().for_each(|(p, dw)| {
            dw.par_chunks_mut(WEIGHTS_PER_TASK * outputs).enumerate().for_each(|(block, dw)| {
                let columns = dw.len() / outputs;
                for &run in runs.iter().filter(|run| self.dims.rows(**run) > 0) {
                    let rows = self.dims.rows(run);
                    let first = run.first * self.dims.padded_len() + p * dilation * inputs + block * WEIGHTS_PER_TASK;
                    let seen = (&padded[first..], View::strided(rows, columns, stride * inputs).t());
                    let back = (&dy[run.first * per_stream..], View::new(rows, outputs));
                    matmul((dw, View::new(columns, outputs)), seen, back, Keep::Sum);
                }
            });
        });
        dw
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
        let spread = (self.dims.joined() > 1).then(|| self.spread(dy));
        let back = match &spread {
            Some(spread) => (&**spread, self.dims.slots() * self.dims.outputs),
            None => (dy, self.dims.produced() * self.dims.outputs),
        };
        let dx = wanted.then(|| self.input_gradient(x, w, padded, back));
        (dx, self.weight_gradient(padded, back), self.bias_gradient(dy))
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
        let (dx, dw, db) = with_values(x, |x| {
            with_values(w, |w| with_values(dy, |dy| self.gradients((x, &padded), w, dy, wanted)))
        })???;
        Ok((dx.map_or(Ok(None), |dx| gradient(dx, x))?, gradient(dw, w)?, gradient(db, b)?))
    }
}
