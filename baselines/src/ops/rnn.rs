#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::linear::check_last;
use super::lstm::STREAMS_PER_TASK;
use super::{Tape, add, device, fused, gradient, product, sigmoid_slow, slice, sum_in_order, values_of, with_values};
use crate::kernels::{Keep, Panels, STEP_LANES, View, each, load, multiply, par_matmul, sigmoid, tanh};
use crate::scratch::Scratch;

/// The recurrence of an RNN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Gated recurrent unit (Cho et al. 2014), with the reset gate applied after the hidden state's product as in
    /// `PyTorch` and cuDNN (variant v1 of arXiv:1406.1078):
    /// `r = σ(W_r x + U_r h + b_r)`, `z = σ(W_z x + U_z h + b_z)`, `n = tanh(W_n x + b_n + r ∘ (U_n h + c))`,
    /// `h' = (1 − z) ∘ n + z ∘ h`.
    #[default]
    Gru,
    /// Simple recurrent network (Elman 1990): `h' = tanh(W x + U h + b)`.
    Vanilla,
}

impl Cell {
    /// Blocks of `H` columns in the weights, `G`: candidate, reset and update of a GRU.
    #[must_use]
    pub fn columns(self) -> usize {
        match self {
            Self::Gru => 3,
            Self::Vanilla => 1,
        }
    }

    /// Blocks of `H` sums per step, `S`. A GRU keeps the candidate's two sums apart: `[n | r | z | u]`, of which the
    /// input's product reaches the first three and the hidden state's product (`u = U_n h + c`) the last three.
    #[must_use]
    pub fn sums(self) -> usize {
        match self {
            Self::Gru => 4,
            Self::Vanilla => 1,
        }
    }
}

/// A recurrent layer over a segment: `x` `[B, K, I]`, `w` `[I + H, G·H]`, `b` `[S·H]`, `hidden` `[B, H]` before the
/// segment → hidden states `[B, K, H]`. Nothing goes back into the state before the segment.
///
/// | cell | `G` | rows of the input, `w[..I]` | rows of the hidden state, `w[I..]` | `S` | `b` |
/// |---|---|---|---|---|---|
/// | GRU | 3 | candidate, reset, update | reset, update, candidate | 4 | `b_n`, `b_r`, `b_z`, `c` |
/// | vanilla | 1 | candidate | candidate | 1 | `b` |
///
/// # Errors
/// If shapes do not fit.
pub fn rnn(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: Cell) -> Result<Tensor> {
    let dims = check(x, w, b, hidden, cell)?;
    if !fused(x) {
        let done = device::rnn(x, w, b, hidden, cell)?;
        return done.map_or_else(|| rnn_slow(x, w, b, hidden, cell), Ok);
    }
    let record = x.track_op() || w.track_op() || b.track_op();
    let op = Rnn { dims, cell, hidden: values_of(hidden)?, record, tape: Tape::new() };
    x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)
}

/// [`rnn`] in tensor operations, step by step.
///
/// # Errors
/// If shapes do not fit.
pub fn rnn_slow(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: Cell) -> Result<Tensor> {
    let Dims { steps, inputs, width, .. } = check(x, w, b, hidden, cell)?;
    let (w_in, w_hidden) = (w.narrow(0, 0, inputs)?, w.narrow(0, inputs, width)?);
    let mut h = hidden.to_dtype(x.dtype())?.detach(); // [B, H]
    let mut out = Vec::with_capacity(steps);
    for t in 0..steps {
        let from_x = product(&x.narrow(1, t, 1)?.squeeze(1)?.contiguous()?, &w_in)?; // [B, G·H]
        let from_h = product(&h, &w_hidden)?;
        h = match cell {
            Cell::Vanilla => (from_x + from_h)?.broadcast_add(b)?.tanh()?,
            Cell::Gru => {
                let block = |t: &Tensor, i: usize| t.narrow(D::Minus1, i * width, width);
                let r = sigmoid_slow(&(block(&from_x, 1)? + block(&from_h, 0)?)?.broadcast_add(&block(b, 1)?)?)?;
                let z = sigmoid_slow(&(block(&from_x, 2)? + block(&from_h, 1)?)?.broadcast_add(&block(b, 2)?)?)?;
                let u = block(&from_h, 2)?.broadcast_add(&block(b, 3)?)?;
                let n = (block(&from_x, 0)?.broadcast_add(&block(b, 0)?)? + (r * u)?)?.tanh()?;
                (&n + (z * (&h - &n)?)?)?
            }
        };
        out.push(h.clone());
    }
    Tensor::stack(&out, 1)
}

#[derive(Clone, Copy)]
struct Dims {
    streams: usize,
    steps: usize,
    inputs: usize,
    width: usize,
}

fn check(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: Cell) -> Result<Dims> {
    let ((streams, steps, inputs), width) = (x.dims3()?, hidden.dims2()?.1);
    if w.dims() != [inputs + width, cell.columns() * width] {
        bail!("{cell:?} weights: expected [{}, {}], got {:?}", inputs + width, cell.columns() * width, w.dims());
    }
    check_last("rnn input", x, inputs)?;
    check_last("rnn bias", b, cell.sums() * width)?;
    if hidden.dims() != [streams, width] {
        bail!("rnn state: expected [{streams}, {width}], got {:?}", hidden.dims());
    }
    Ok(Dims { streams, steps, inputs, width })
}

struct Rnn {
    dims: Dims,
    cell: Cell,
    /// State before the segment, `[B, H]`.
    hidden: Vec<f32>,
    record: bool,
    /// Sums after their nonlinearities, `[B, K, S·H]`.
    tape: Tape<Scratch>,
}

impl Rnn {
    /// Elements per step of the weights' columns, of the sums, and where the hidden state's product starts in the sums.
    fn sizes(&self) -> (usize, usize, usize) {
        let (columns, sums) = (self.cell.columns() * self.dims.width, self.cell.sums() * self.dims.width);
        (columns, sums, sums - columns)
    }

    /// One task's streams: fills `sums` `[T, K, S·H]` and `out` `[T, K, H]`.
    fn forward(
        &self,
        x: &[f32],
        ([w_in, w_hidden], b): (&[Panels; 2], &[f32]),
        before: &[f32],
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        let Dims { steps, inputs, width, .. } = self.dims;
        let (columns, per_step, skip) = self.sizes();
        let streams = before.len() / width;
        sums.chunks_exact_mut(per_step).for_each(|row| row.copy_from_slice(b));
        let rows = streams * steps;
        let from_input = View::strided(rows, columns, per_step);
        multiply((sums, from_input), (x, View::new(rows, inputs)), w_in, Keep::Sum);
        // one step of all streams: rows a whole segment apart
        let one_step = View::strided(streams, columns, steps * per_step);
        for t in 0..steps {
            let now = (&mut sums[t * per_step + skip..], one_step);
            if t == 0 {
                multiply(now, (before, View::new(streams, width)), w_hidden, Keep::Sum);
            } else {
                let h = (&out[(t - 1) * width..], View::strided(streams, width, steps * width));
                multiply(now, h, w_hidden, Keep::Sum);
            }
            for s in 0..streams {
                let at = s * steps + t;
                let (past, rest) = out.split_at_mut(at * width);
                let h_before = if t == 0 { &before[s * width..(s + 1) * width] } else { &past[(at - 1) * width..] };
                let sums = &mut sums[at * per_step..(at + 1) * per_step];
                match self.cell {
                    Cell::Gru => in_lanes(width, GruStep { sums, before: h_before, out: &mut rest[..width] }),
                    Cell::Vanilla => in_lanes(width, VanillaStep { sums, out: &mut rest[..width] }),
                }
            }
        }
    }

    /// One task's streams: fills `d_sums` `[T, K, S·H]` (before the nonlinearities) from `dy` `[T, K, H]`.
    fn backward(
        &self,
        w_hidden_t: &Panels,
        before: &[f32],
        sums: &[f32],
        (y, dy): (&[f32], &[f32]),
        d_sums: &mut [f32],
    ) {
        let Dims { steps, width, .. } = self.dims;
        let (columns, per_step, skip) = self.sizes();
        let streams = before.len() / width;
        let mut dh = Scratch::zeros(streams * width);
        for t in (0..steps).rev() {
            for s in 0..streams {
                let at = s * steps + t;
                let own = s * width..(s + 1) * width;
                let h_before = if t == 0 { &before[own.clone()] } else { &y[(at - 1) * width..at * width] };
                add(&mut dh[own.clone()], &dy[at * width..(at + 1) * width]);
                let block = at * per_step..(at + 1) * per_step;
                let (sums, d_sums) = (&sums[block.clone()], &mut d_sums[block]);
                let dh = &mut dh[own];
                match self.cell {
                    Cell::Gru => in_lanes(width, GruBack { sums, before: h_before, dh, d_sums }),
                    Cell::Vanilla => in_lanes(width, VanillaBack { sums, dh, d_sums }),
                }
            }
            let now = (&d_sums[t * per_step + skip..], View::strided(streams, columns, steps * per_step));
            multiply((&mut dh, View::new(streams, width)), now, w_hidden_t, Keep::Sum);
        }
    }

    /// Gradients of `x`, `w`, `b`.
    fn gradients(&self, x: &[f32], w: &[f32], y: &[f32], sums: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let Dims { streams, steps, inputs, width } = self.dims;
        let (columns, per_step, skip) = self.sizes();
        let (w_in, w_hidden) = w.split_at(inputs * columns);
        let w_in_t = Panels::of((w_in, View::new(inputs, columns).t()));
        let w_hidden_t = Panels::of((w_hidden, View::new(width, columns).t()));
        let per_task = STREAMS_PER_TASK * steps;
        let mut d_sums = Scratch::of(sums.len());
        let mut dx = vec![0.0; x.len()];
        let forward = (sums.par_chunks(per_task * per_step), y.par_chunks(per_task * width));
        let outputs = (d_sums.par_chunks_mut(per_task * per_step), dx.par_chunks_mut(per_task * inputs));
        let before = self.hidden.par_chunks(STREAMS_PER_TASK * width);
        let db = (before, forward.into_par_iter(), dy.par_chunks(per_task * width), outputs.into_par_iter())
            .into_par_iter()
            .map(|(before, (sums, y), dy, (d_sums, dx))| {
                self.backward(&w_hidden_t, before, sums, (y, dy), d_sums);
                let rows = d_sums.len() / per_step;
                let back = (&*d_sums, View::strided(rows, columns, per_step));
                multiply((dx, View::new(rows, inputs)), back, &w_in_t, Keep::Nothing);
                let mut db = vec![0.0; per_step];
                d_sums.chunks_exact(per_step).for_each(|row| add(&mut db, row));
                db
            })
            .collect();
        let rows = streams * steps;
        let mut dw = par_matmul((x, View::new(rows, inputs).t()), (&d_sums, View::strided(rows, columns, per_step)));
        let h = self.hidden_before(y);
        let from_hidden = (&d_sums[skip..], View::strided(rows, columns, per_step));
        dw.extend(par_matmul((&h, View::new(rows, width).t()), from_hidden));
        [dx, dw, sum_in_order(db, per_step)]
    }

    /// The hidden state before every step, `[B·K, H]`.
    fn hidden_before(&self, y: &[f32]) -> Scratch {
        let Dims { steps, width, .. } = self.dims;
        let mut h = Scratch::of(y.len());
        let per_stream = steps * width;
        let streams = (h.par_chunks_mut(per_stream), y.par_chunks(per_stream), self.hidden.par_chunks(width));
        streams.into_par_iter().for_each(|(h, y, first)| {
            h[..width].copy_from_slice(first);
            h[width..].copy_from_slice(&y[..per_stream - width]);
        });
        h
    }
}

/// Elementwise work on one step of one stream, `N` channels at a time.
trait Lanes {
    fn at<const N: usize>(&mut self, at: usize);
}

fn in_lanes(width: usize, mut work: impl Lanes) {
    let whole = width / STEP_LANES * STEP_LANES;
    (0..whole).step_by(STEP_LANES).for_each(|at| work.at::<STEP_LANES>(at));
    (whole..width).for_each(|at| work.at::<1>(at));
}

struct VanillaStep<'a> {
    sums: &'a mut [f32],
    out: &'a mut [f32],
}

impl Lanes for VanillaStep<'_> {
    #[inline(always)]
    fn at<const N: usize>(&mut self, at: usize) {
        let sum: [f32; N] = load(self.sums, at);
        let h: [f32; N] = each(|k| tanh(sum[k]));
        self.sums[at..at + N].copy_from_slice(&h);
        self.out[at..at + N].copy_from_slice(&h);
    }
}

struct VanillaBack<'a> {
    sums: &'a [f32],
    /// Arrives as the gradient of this step's hidden state; leaves as zero, to which the product with `U` is added.
    dh: &'a mut [f32],
    d_sums: &'a mut [f32],
}

impl Lanes for VanillaBack<'_> {
    #[inline(always)]
    fn at<const N: usize>(&mut self, at: usize) {
        let (h, dh): ([f32; N], [f32; N]) = (load(self.sums, at), load(self.dh, at));
        let d: [f32; N] = each(|k| dh[k] * (1.0 - h[k] * h[k]));
        self.d_sums[at..at + N].copy_from_slice(&d);
        self.dh[at..at + N].fill(0.0);
    }
}

struct GruStep<'a> {
    /// `[n | r | z | u]`: arrive as sums, leave after the nonlinearities (`u` has none).
    sums: &'a mut [f32],
    before: &'a [f32],
    out: &'a mut [f32],
}

impl Lanes for GruStep<'_> {
    #[inline(always)]
    fn at<const N: usize>(&mut self, at: usize) {
        let width = self.out.len();
        let [n, r, z, u]: [[f32; N]; 4] = blocks(self.sums, width, at);
        let before: [f32; N] = load(self.before, at);
        let (r, z): ([f32; N], [f32; N]) = (each(|k| sigmoid(r[k])), each(|k| sigmoid(z[k])));
        let n: [f32; N] = each(|k| tanh(n[k] + r[k] * u[k]));
        let h: [f32; N] = each(|k| n[k] + z[k] * (before[k] - n[k]));
        for (block, values) in [n, r, z].into_iter().enumerate() {
            self.sums[block * width + at..][..N].copy_from_slice(&values);
        }
        self.out[at..at + N].copy_from_slice(&h);
    }
}

struct GruBack<'a> {
    sums: &'a [f32],
    before: &'a [f32],
    /// Arrives as the gradient of this step's hidden state; leaves as what goes straight to the one before.
    dh: &'a mut [f32],
    d_sums: &'a mut [f32],
}

impl Lanes for GruBack<'_> {
    #[inline(always)]
    fn at<const N: usize>(&mut self, at: usize) {
        let width = self.dh.len();
        let [n, r, z, u]: [[f32; N]; 4] = blocks(self.sums, width, at);
        let (before, dh): ([f32; N], [f32; N]) = (load(self.before, at), load(self.dh, at));
        let dn: [f32; N] = each(|k| dh[k] * (1.0 - z[k]) * (1.0 - n[k] * n[k]));
        let dr: [f32; N] = each(|k| dn[k] * u[k] * r[k] * (1.0 - r[k]));
        let dz: [f32; N] = each(|k| dh[k] * (before[k] - n[k]) * z[k] * (1.0 - z[k]));
        let du: [f32; N] = each(|k| dn[k] * r[k]);
        for (block, values) in [dn, dr, dz, du].into_iter().enumerate() {
            self.d_sums[block * width + at..][..N].copy_from_slice(&values);
        }
        let straight: [f32; N] = each(|k| dh[k] * z[k]);
        self.dh[at..at + N].copy_from_slice(&straight);
    }
}

/// `N` elements of each of the four blocks from `at`.
#[inline(always)]
fn blocks<const N: usize>(sums: &[f32], width: usize, at: usize) -> [[f32; N]; 4] {
    [load(sums, at), load(sums, width + at), load(sums, 2 * width + at), load(sums, 3 * width + at)]
}

impl CustomOp3 for Rnn {
    fn name(&self) -> &'static str {
        "rnn"
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
        let Dims { streams, steps, inputs, width } = self.dims;
        let (x, w, b) = (slice(s1, l1, "x")?, slice(s2, l2, "w")?, slice(s3, l3, "b")?);
        let (columns, per_step, _) = self.sizes();
        let (w_in, w_hidden) = w.split_at(inputs * columns);
        let panels = [(w_in, inputs), (w_hidden, width)].map(|(w, rows)| Panels::of((w, View::new(rows, columns))));
        let (mut sums, mut out) = (Scratch::of(streams * steps * per_step), vec![0.0; streams * steps * width]);
        let per_task = STREAMS_PER_TASK * steps;
        let outputs = (sums.par_chunks_mut(per_task * per_step), out.par_chunks_mut(per_task * width));
        (x.par_chunks(per_task * inputs), self.hidden.par_chunks(STREAMS_PER_TASK * width), outputs.into_par_iter())
            .into_par_iter()
            .for_each(|(x, before, (sums, out))| self.forward(x, (&panels, b), before, sums, out));
        if self.record {
            self.tape.put(sums);
        }
        Ok((CpuStorage::F32(out), Shape::from((streams, steps, width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sums = self.tape.take()?;
        let [dx, dw, db] = with_values([x, w, y, dy], |[x, w, y, dy]| self.gradients(x, w, y, &sums, dy))?;
        Ok((gradient(dx, x)?, gradient(dw, w)?, gradient(db, b)?))
    }
}
