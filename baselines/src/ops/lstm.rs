#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::linear::check_last;
use super::{Tape, add, device, fused, gradient, product, sigmoid_slow, slice, sum_in_order, values_of, with_values};
use crate::kernels::{Keep, Panels, STEP_LANES, View, each, load, multiply, par_matmul, sigmoid, tanh};
use crate::scratch::Scratch;

/// Streams that one task steps through side by side: enough rows for the product kernel, few enough for every core to
/// get work from a small batch.
pub(super) const STREAMS_PER_TASK: usize = 4;

/// An LSTM layer over a segment: `x` `[B, K, I]`, `w` `[I + H, 4H]` (rows of the input, then of the hidden state; columns
/// of the input, forget, candidate and output gates), `b` `[4H]`, `hidden` and `cell` `[B, H]` before the segment.
/// Returns the hidden states `[B, K, H]` and the cell after the segment `[B, H]`, detached. Nothing goes back into the
/// state before the segment.
///
/// # Errors
/// If shapes do not fit.
pub fn lstm(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: &Tensor) -> Result<(Tensor, Tensor)> {
    let dims = check(x, w, b, hidden, cell)?;
    if !fused(x) {
        let done = device::lstm(x, w, b, hidden, cell)?;
        return done.map_or_else(|| lstm_slow(x, w, b, hidden, cell), Ok);
    }
    let last_cell = Arc::new(OnceLock::new());
    let op = Lstm {
        dims,
        hidden: values_of(hidden)?,
        cell: values_of(cell)?,
        record: x.track_op() || w.track_op() || b.track_op(),
        last_cell: last_cell.clone(),
        tape: Tape::new(),
    };
    let y = x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)?;
    let Some(last) = last_cell.get() else { bail!("lstm left no cell") };
    Ok((y, Tensor::from_slice(last, cell.dims(), x.device())?))
}

/// [`lstm`] in tensor operations, step by step.
///
/// # Errors
/// If shapes do not fit.
pub fn lstm_slow(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: &Tensor) -> Result<(Tensor, Tensor)> {
    check(x, w, b, hidden, cell)?;
    let (mut h, mut c) = (hidden.to_dtype(x.dtype())?.detach(), cell.to_dtype(x.dtype())?.detach()); // [B, H]
    let mut out = Vec::with_capacity(x.dim(1)?);
    for t in 0..x.dim(1)? {
        let xh = Tensor::cat(&[&x.narrow(1, t, 1)?.squeeze(1)?, &h], 1)?; // [B, I + H]
        let gates = product(&xh, w)?.broadcast_add(b)?.chunk(4, D::Minus1)?;
        let [i, f, g, o] = gates.as_slice() else { bail!("lstm gates: expected 4, got {}", gates.len()) };
        c = ((sigmoid_slow(f)? * &c)? + (sigmoid_slow(i)? * g.tanh()?)?)?;
        h = (sigmoid_slow(o)? * c.tanh()?)?;
        out.push(h.clone());
    }
    Ok((Tensor::stack(&out, 1)?, c.detach()))
}

#[derive(Clone, Copy)]
struct Dims {
    streams: usize,
    steps: usize,
    inputs: usize,
    width: usize,
}

fn check(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: &Tensor) -> Result<Dims> {
    let ((streams, steps, inputs), width) = (x.dims3()?, hidden.dims2()?.1);
    if w.dims() != [inputs + width, 4 * width] {
        bail!("lstm weights: expected [{}, {}], got {:?}", inputs + width, 4 * width, w.dims());
    }
    check_last("lstm input", x, inputs)?;
    check_last("lstm bias", b, 4 * width)?;
    if hidden.dims() != [streams, width] || cell.dims() != [streams, width] {
        bail!("lstm state: expected [{streams}, {width}] twice, got {:?} and {:?}", hidden.dims(), cell.dims());
    }
    Ok(Dims { streams, steps, inputs, width })
}

struct Recorded {
    /// Gates after their nonlinearities, `[B, K, 4H]`.
    gates: Scratch,
    /// Cells, `[B, K, H]`.
    cells: Scratch,
}

struct Lstm {
    dims: Dims,
    /// State before the segment, `[B, H]`.
    hidden: Vec<f32>,
    cell: Vec<f32>,
    record: bool,
    last_cell: Arc<OnceLock<Vec<f32>>>,
    tape: Tape<Recorded>,
}

impl Lstm {
    /// One task's streams: fills `gates` `[S, K, 4H]`, `cells` and `out` `[S, K, H]`.
    fn forward(
        &self,
        x: &[f32],
        ([w_in, w_hidden], b): (&[Panels; 2], &[f32]),
        before: (&[f32], &[f32]),
        [gates, cells, out]: [&mut [f32]; 3],
    ) {
        let Dims { steps, inputs, width, .. } = self.dims;
        let streams = before.0.len() / width;
        gates.chunks_exact_mut(4 * width).for_each(|row| row.copy_from_slice(b));
        let rows = streams * steps;
        let wide = View::new(rows, 4 * width);
        multiply((gates, wide), (x, View::new(rows, inputs)), w_in, Keep::Sum);
        // one step of all streams: rows a whole segment apart
        let one_step = View::strided(streams, 4 * width, steps * 4 * width);
        for t in 0..steps {
            let now = &mut gates[t * 4 * width..];
            if t == 0 {
                multiply((now, one_step), (before.0, View::new(streams, width)), w_hidden, Keep::Sum);
            } else {
                let h = (&out[(t - 1) * width..], View::strided(streams, width, steps * width));
                multiply((now, one_step), h, w_hidden, Keep::Sum);
            }
            for s in 0..streams {
                let at = (s * steps + t) * width;
                let (past, rest) = cells.split_at_mut(at);
                let c_before = if t == 0 { &before.1[s * width..(s + 1) * width] } else { &past[at - width..] };
                step(&mut gates[4 * at..4 * (at + width)], c_before, &mut rest[..width], &mut out[at..at + width]);
            }
        }
    }

    /// One task's streams: fills `d_gates` `[S, K, 4H]` (before the nonlinearities) from `dy` `[S, K, H]`.
    fn backward(
        &self,
        w_hidden_t: &Panels,
        before: &[f32],
        gates: &[f32],
        cells: &[f32],
        dy: &[f32],
        d_gates: &mut [f32],
    ) {
        let Dims { steps, width, .. } = self.dims;
        let streams = before.len() / width;
        let (mut dh, mut dc) = (Scratch::zeros(streams * width), Scratch::zeros(streams * width));
        for t in (0..steps).rev() {
            for s in 0..streams {
                let at = (s * steps + t) * width;
                let c_before = if t == 0 { &before[s * width..(s + 1) * width] } else { &cells[at - width..at] };
                let own = s * width..(s + 1) * width;
                add(&mut dh[own.clone()], &dy[at..at + width]);
                let forward = (&gates[4 * at..4 * (at + width)], c_before, &cells[at..at + width]);
                step_backward(forward, &dh[own.clone()], &mut dc[own], &mut d_gates[4 * at..4 * (at + width)]);
            }
            let now = (&d_gates[t * 4 * width..], View::strided(streams, 4 * width, steps * 4 * width));
            multiply((&mut dh, View::new(streams, width)), now, w_hidden_t, Keep::Nothing);
        }
    }

    /// Gradients of `x`, `w`, `b`.
    fn gradients(&self, x: &[f32], w: &[f32], y: &[f32], recorded: &Recorded, dy: &[f32]) -> [Vec<f32>; 3] {
        let Dims { streams, steps, inputs, width } = self.dims;
        let (w_in, w_hidden) = w.split_at(inputs * 4 * width);
        let w_in_t = Panels::of((w_in, View::new(inputs, 4 * width).t()));
        let w_hidden_t = Panels::of((w_hidden, View::new(width, 4 * width).t()));
        let per_task = STREAMS_PER_TASK * steps;
        let mut d_gates = Scratch::of(recorded.gates.len());
        let mut dx = vec![0.0; x.len()];
        let before = self.cell.par_chunks(STREAMS_PER_TASK * width);
        let forward = (recorded.gates.par_chunks(per_task * 4 * width), recorded.cells.par_chunks(per_task * width));
        let outputs = (d_gates.par_chunks_mut(per_task * 4 * width), dx.par_chunks_mut(per_task * inputs));
        let db = (before, forward.into_par_iter(), dy.par_chunks(per_task * width), outputs.into_par_iter())
            .into_par_iter()
            .map(|(before, (gates, cells), dy, (d_gates, dx))| {
                self.backward(&w_hidden_t, before, gates, cells, dy, d_gates);
                let rows = d_gates.len() / (4 * width);
                let back = (&*d_gates, View::new(rows, 4 * width));
                multiply((dx, View::new(rows, inputs)), back, &w_in_t, Keep::Nothing);
                let mut db = vec![0.0; 4 * width];
                d_gates.chunks_exact(4 * width).for_each(|row| add(&mut db, row));
                db
            })
            .collect();
        let xh = self.inputs_and_hidden(x, y);
        let (rows, columns) = (streams * steps, inputs + width);
        let dw = par_matmul((&xh, View::new(rows, columns).t()), (&d_gates, View::new(rows, 4 * width)));
        [dx, dw, sum_in_order(db, 4 * width)]
    }

    /// What the weights were multiplied with: `[B·K, I + H]`, the input beside the hidden state of the step before.
    fn inputs_and_hidden(&self, x: &[f32], y: &[f32]) -> Scratch {
        let Dims { steps, inputs, width, .. } = self.dims;
        let mut xh = Scratch::of(x.len() / inputs * (inputs + width));
        xh.par_chunks_mut(steps * (inputs + width)).enumerate().for_each(|(s, xh)| {
            for (t, row) in xh.chunks_exact_mut(inputs + width).enumerate() {
                let (to_x, to_h) = row.split_at_mut(inputs);
                let at = s * steps + t;
                to_x.copy_from_slice(&x[at * inputs..(at + 1) * inputs]);
                to_h.copy_from_slice(if t == 0 {
                    &self.hidden[s * width..(s + 1) * width]
                } else {
                    &y[(at - 1) * width..at * width]
                });
            }
        });
        xh
    }
}

/// `N` elements of each of the four gates from `at`.
#[inline(always)]
fn load_gates<const N: usize>(gates: &[f32], width: usize, at: usize) -> [[f32; N]; 4] {
    [load(gates, at), load(gates, width + at), load(gates, 2 * width + at), load(gates, 3 * width + at)]
}

/// `c = f c₋₁ + i g`, `h = o tanh c`; `gates` arrive before their nonlinearities and leave after them.
fn step(gates: &mut [f32], c_before: &[f32], c: &mut [f32], h: &mut [f32]) {
    let width = c.len();
    let whole = width / STEP_LANES * STEP_LANES;
    (0..whole).step_by(STEP_LANES).for_each(|at| step_at::<STEP_LANES>(at, gates, c_before, c, h));
    (whole..width).for_each(|at| step_at::<1>(at, gates, c_before, c, h));
}

#[inline(always)]
fn step_at<const N: usize>(at: usize, gates: &mut [f32], c_before: &[f32], c: &mut [f32], h: &mut [f32]) {
    let width = c.len();
    let [input, forget, candidate, output]: [[f32; N]; 4] = load_gates(gates, width, at);
    let (i, f): ([f32; N], [f32; N]) = (each(|k| sigmoid(input[k])), each(|k| sigmoid(forget[k])));
    let (g, o): ([f32; N], [f32; N]) = (each(|k| tanh(candidate[k])), each(|k| sigmoid(output[k])));
    let before: [f32; N] = load(c_before, at);
    let cell: [f32; N] = each(|k| f[k] * before[k] + i[k] * g[k]);
    let hidden: [f32; N] = each(|k| o[k] * tanh(cell[k]));
    for (gate, values) in [i, f, g, o].into_iter().enumerate() {
        gates[gate * width + at..][..N].copy_from_slice(&values);
    }
    c[at..at + N].copy_from_slice(&cell);
    h[at..at + N].copy_from_slice(&hidden);
}

/// What the forward pass kept of one step of one stream: gates, cell before, cell.
type Step<'a> = (&'a [f32], &'a [f32], &'a [f32]);

/// Gradients before the nonlinearities from `dh`; `dc` arrives as that of this step's cell from later steps and leaves as
/// that of the cell before.
fn step_backward(forward: Step, dh: &[f32], dc: &mut [f32], d_gates: &mut [f32]) {
    let width = dh.len();
    let whole = width / STEP_LANES * STEP_LANES;
    (0..whole).step_by(STEP_LANES).for_each(|at| step_backward_at::<STEP_LANES>(at, forward, dh, dc, d_gates));
    (whole..width).for_each(|at| step_backward_at::<1>(at, forward, dh, dc, d_gates));
}

#[inline(always)]
fn step_backward_at<const N: usize>(
    at: usize,
    (gates, c_before, c): Step,
    dh: &[f32],
    dc: &mut [f32],
    d_gates: &mut [f32],
) {
    let width = dh.len();
    let [i, f, g, o]: [[f32; N]; 4] = load_gates(gates, width, at);
    let (before, dh, later): ([f32; N], [f32; N], [f32; N]) = (load(c_before, at), load(dh, at), load(dc, at));
    let c: [f32; N] = load(c, at);
    let squashed: [f32; N] = each(|k| tanh(c[k]));
    let d_cell: [f32; N] = each(|k| later[k] + dh[k] * o[k] * (1.0 - squashed[k] * squashed[k]));
    let d_input: [f32; N] = each(|k| d_cell[k] * g[k] * i[k] * (1.0 - i[k]));
    let d_forget: [f32; N] = each(|k| d_cell[k] * before[k] * f[k] * (1.0 - f[k]));
    let d_candidate: [f32; N] = each(|k| d_cell[k] * i[k] * (1.0 - g[k] * g[k]));
    let d_output: [f32; N] = each(|k| dh[k] * squashed[k] * o[k] * (1.0 - o[k]));
    for (gate, values) in [d_input, d_forget, d_candidate, d_output].into_iter().enumerate() {
        d_gates[gate * width + at..][..N].copy_from_slice(&values);
    }
    let d_before: [f32; N] = each(|k| d_cell[k] * f[k]);
    dc[at..at + N].copy_from_slice(&d_before);
}

impl CustomOp3 for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
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
        let (w_in, w_hidden) = w.split_at(inputs * 4 * width);
        let panels = [(w_in, inputs), (w_hidden, width)].map(|(w, rows)| Panels::of((w, View::new(rows, 4 * width))));
        let mut gates = Scratch::of(streams * steps * 4 * width);
        let (mut cells, mut out) = (Scratch::of(streams * steps * width), vec![0.0; streams * steps * width]);
        let per_task = STREAMS_PER_TASK * steps;
        let before = (self.hidden.par_chunks(STREAMS_PER_TASK * width), self.cell.par_chunks(STREAMS_PER_TASK * width));
        let outputs = (
            gates.par_chunks_mut(per_task * 4 * width),
            cells.par_chunks_mut(per_task * width),
            out.par_chunks_mut(per_task * width),
        );
        (x.par_chunks(per_task * inputs), before.into_par_iter(), outputs.into_par_iter())
            .into_par_iter()
            .for_each(|(x, before, (gates, cells, out))| self.forward(x, (&panels, b), before, [gates, cells, out]));
        let last = cells.chunks_exact(steps * width).flat_map(|c| &c[(steps - 1) * width..]).copied().collect();
        if self.last_cell.set(last).is_err() {
            bail!("lstm: the forward pass runs once");
        }
        if self.record {
            self.tape.put(Recorded { gates, cells });
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
        let recorded = self.tape.take()?;
        let [dx, dw, db] = with_values([x, w, y, dy], |[x, w, y, dy]| self.gradients(x, w, y, &recorded, dy))?;
        Ok((gradient(dx, x)?, gradient(dw, w)?, gradient(db, b)?))
    }
}
