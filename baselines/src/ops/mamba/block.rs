//! The block in stages. Those over rows are split into runs of [`ROWS_PER_TASK`]; the scan into groups of channels of one
//! stream. What a task computes does not depend on the number of threads, and sums over tasks are taken in order.

use rayon::prelude::*;

use super::conv::{self, Series};
use super::scan::{self, Extent, GROUP, LANES, Reads, Writes, lanes};
use super::{After, MambaShape};
use crate::kernels::{Keep, View, fma, matmul, par_matmul, rms_norm, rms_norm_backward, sigmoid, silu, transposed};
use crate::ops::{ROWS_PER_TASK, add, sum_in_order};
use crate::scratch::Scratch;

/// A block at work on one segment.
pub(super) struct Block {
    pub shape: MambaShape,
    /// `K`.
    pub steps: usize,
    /// The convolution's inputs before the segment, `[B, W - 1, H]`.
    pub inputs: Vec<f32>,
    /// The scan's states before the segment, `[B, H, N]`.
    pub hidden: Vec<f32>,
}

/// What the backward pass needs of the forward pass.
pub(super) struct Recorded {
    /// Inputs of the convolution and of the gate, `[B·K, 2H]`.
    vz: Scratch,
    /// Outputs of the convolution after SiLU, `[B·K, H]`.
    u: Scratch,
    /// `[B·K, R + 2N]`.
    select: Scratch,
    /// Step sizes before softplus, `[B·K, H]`.
    step: Scratch,
    /// Outputs of the scan, `[B, tile, K, LANES]`.
    y: Scratch,
    /// States that the scan kept, per group.
    kept: Scratch,
}

/// The weights after the first.
struct Weights<'a> {
    conv: &'a [f32],
    conv_bias: &'a [f32],
    select: &'a [f32],
    step: &'a [f32],
    step_bias: &'a [f32],
    log_decay: &'a [f32],
    skip: &'a [f32],
    output: &'a [f32],
}

impl<'a> Weights<'a> {
    fn new(shape: &MambaShape, rest: &'a [f32]) -> Self {
        let mut rest = rest;
        let [conv, conv_bias, select, step, step_bias, log_decay, skip, output] = shape.dims().map(|dims| {
            let (own, others) = rest.split_at(dims.iter().product());
            rest = others;
            own
        });
        Self { conv, conv_bias, select, step, step_bias, log_decay, skip, output }
    }
}

impl Block {
    fn groups(&self) -> usize {
        self.shape.channels.div_ceil(GROUP)
    }

    fn streams(&self, rows: usize) -> usize {
        rows / self.steps
    }

    fn series<'a>(&'a self, vz: &'a [f32]) -> Series<'a> {
        let MambaShape { channels, taps, .. } = self.shape;
        let (steps, stride) = (self.steps, 2 * channels);
        Series { steps, channels, remembered: taps - 1, rows: vz, stride, before: &self.inputs }
    }

    /// What task `task` of the scan reads: group after group of stream after stream.
    fn reads<'a>(
        &'a self,
        task: usize,
        u: &'a [f32],
        step: &'a [f32],
        select: &'a [f32],
        w: &Weights<'a>,
    ) -> Reads<'a> {
        let (shape, steps) = (self.shape, self.steps);
        let stream = task / self.groups();
        let rows = |s: &'a [f32], width: usize| &s[stream * steps * width..(stream + 1) * steps * width];
        let state = shape.channels * shape.states;
        Reads {
            shape,
            first: task % self.groups() * GROUP,
            u: rows(u, shape.channels),
            step: rows(step, shape.channels),
            select: rows(select, shape.selected()),
            log_decay: w.log_decay,
            before: &self.hidden[stream * state..(stream + 1) * state],
        }
    }

    /// Row `row` of a buffer `[B, tile, K, LANES]`, channels side by side.
    fn gather(&self, tiles: &[f32], row: usize, out: &mut [f32]) {
        let (stream, t) = (row / self.steps, row % self.steps);
        let own = &lanes(tiles)[stream * self.groups() * GROUP / LANES * self.steps..];
        let mut tiles = own.chunks_exact(self.steps).map(|tile| tile[t]);
        let (whole, part) = out.as_chunks_mut();
        for (out, tile) in whole.iter_mut().zip(&mut tiles) {
            *out = tile;
        }
        for (out, &y) in part.iter_mut().zip(tiles.next().iter().flatten()) {
            *out = y;
        }
    }

    /// Outputs `[B·K, D]`, what the backward pass needs, and the state after the segment.
    pub fn forward(&self, x: &[f32], input: &[f32], rest: &[f32]) -> (Vec<f32>, Recorded, After) {
        let MambaShape { width, channels, states, .. } = self.shape;
        let rows = x.len() / width;
        let w = Weights::new(&self.shape, rest);
        let vz = self.project(x, input);
        let [u, select, step] = self.select(&vz, &w);
        let tasks = self.streams(rows) * self.groups();
        let extent = Extent::new(states, self.steps);
        let mut y = Scratch::of(tasks * extent.series);
        let (mut kept, mut after) = (Scratch::of(tasks * extent.kept), Scratch::of(tasks * extent.state));
        (y.par_chunks_mut(extent.series), kept.par_chunks_mut(extent.kept), after.par_chunks_mut(extent.state))
            .into_par_iter()
            .enumerate()
            .for_each(|(task, (y, kept, after))| {
                scan::forward(&self.reads(task, &u, &step, &select, &w), y, kept, after);
            });
        let mut out = x.to_vec();
        out.par_chunks_mut(ROWS_PER_TASK * width).enumerate().for_each(|(run, out)| {
            let count = out.len() / width;
            let mut gated = Scratch::of(count * channels);
            for (i, gated) in gated.chunks_exact_mut(channels).enumerate() {
                let row = run * ROWS_PER_TASK + i;
                self.gather(&y, row, gated);
                let (u, z) = (&u[row * channels..][..channels], &vz[(2 * row + 1) * channels..][..channels]);
                for (((g, &u), &z), &skip) in gated.iter_mut().zip(u).zip(z).zip(w.skip) {
                    *g = fma(skip, u, *g) * silu(z).0;
                }
            }
            let (gated, output) = ((&*gated, View::new(count, channels)), (w.output, View::new(channels, width)));
            matmul((out, View::new(count, width)), gated, output, Keep::Sum);
        });
        let inputs = self.series(&vz).after(self.streams(rows));
        let hidden = self.unpacked_state(&after, self.streams(rows));
        (out, Recorded { vz, u, select, step, y, kept }, After { inputs, hidden })
    }

    /// `norm(x) · input`, `[B·K, 2H]`.
    fn project(&self, x: &[f32], input: &[f32]) -> Scratch {
        let (width, wide) = (self.shape.width, 2 * self.shape.channels);
        let mut vz = Scratch::of(x.len() / width * wide);
        (x.par_chunks(ROWS_PER_TASK * width), vz.par_chunks_mut(ROWS_PER_TASK * wide)).into_par_iter().for_each(
            |(x, vz)| {
                let rows = x.len() / width;
                let mut n = Scratch::of(x.len());
                rms_norm(x, &mut n, width);
                let (n, input) = ((&*n, View::new(rows, width)), (input, View::new(width, wide)));
                matmul((vz, View::new(rows, wide)), n, input, Keep::Nothing);
            },
        );
        vz
    }

    /// The scan's inputs: `u` `[B·K, H]`, what it selects `[B·K, R + 2N]`, step sizes before softplus `[B·K, H]`.
    fn select(&self, vz: &[f32], w: &Weights) -> [Scratch; 3] {
        let MambaShape { channels, rank, .. } = self.shape;
        let selected = self.shape.selected();
        let rows = vz.len() / (2 * channels);
        let series = self.series(vz);
        let (mut u, mut step) = (Scratch::of(rows * channels), Scratch::of(rows * channels));
        let mut select = Scratch::of(rows * selected);
        (
            u.par_chunks_mut(ROWS_PER_TASK * channels),
            select.par_chunks_mut(ROWS_PER_TASK * selected),
            step.par_chunks_mut(ROWS_PER_TASK * channels),
        )
            .into_par_iter()
            .enumerate()
            .for_each(|(run, (u, select, step))| {
                let rows = u.len() / channels;
                for (i, u) in u.chunks_exact_mut(channels).enumerate() {
                    conv::forward(&series, run * ROWS_PER_TASK + i, w.conv, w.conv_bias, u);
                    u.iter_mut().for_each(|u| *u = silu(*u).0);
                }
                let (wide, narrow) = (View::new(rows, channels), View::new(rows, selected));
                matmul((select, narrow), (u, wide), (w.select, View::new(channels, selected)), Keep::Nothing);
                step.chunks_exact_mut(channels).for_each(|row| row.copy_from_slice(w.step_bias));
                let low_rank = (&*select, View::strided(rows, rank, selected));
                matmul((step, wide), low_rank, (w.step, View::new(rank, channels)), Keep::Sum);
            });
        [u, select, step]
    }

    /// `[B, tile, N, LANES]` → `[B, H, N]`.
    fn unpacked_state(&self, tiles: &[f32], streams: usize) -> Vec<f32> {
        let MambaShape { channels, states, .. } = self.shape;
        let per_stream = self.groups() * GROUP * states;
        let mut out = Vec::with_capacity(streams * channels * states);
        for tiles in tiles.chunks_exact(per_stream).take(streams) {
            for channel in 0..channels {
                let (tile, k) = (channel / LANES, channel % LANES);
                out.extend((0..states).map(|n| tiles[(tile * states + n) * LANES + k]));
            }
        }
        out
    }

    /// Gradients of `x`, of the input weights and of the others, packed as they came.
    pub fn backward(&self, x: &[f32], input: &[f32], rest: &[f32], r: &Recorded, dout: &[f32]) -> [Vec<f32>; 3] {
        let MambaShape { width, channels, rank, .. } = self.shape;
        let (rows, selected) = (x.len() / width, self.shape.selected());
        let w = Weights::new(&self.shape, rest);
        let mut d_vz = Scratch::of(rows * 2 * channels);
        let Gate { gated, dy, mut du, d_skip } = self.backward_gate(r, &w, dout, &mut d_vz);
        let d_output = par_matmul((&gated, View::new(rows, channels).t()), (dout, View::new(rows, width)));
        drop(gated);
        let scan = self.backward_scan(r, &w, &dy);
        drop(dy);
        // d_step takes the place of what the convolution's gradient needs later
        let Select { d_select, d_step, sums } = self.backward_select(r, &w, &scan, &mut du);
        let d_select_weights =
            par_matmul((&r.u, View::new(rows, channels).t()), (&d_select, View::new(rows, selected)));
        let low_rank = View::strided(rows, rank, selected).t();
        let d_step_weights = par_matmul((&r.select, low_rank), (&d_step, View::new(rows, channels)));
        let (dx, n) = self.backward_input(x, input, &w, &du, dout, &mut d_vz);
        let d_input = par_matmul((&n, View::new(rows, width).t()), (&d_vz, View::new(rows, 2 * channels)));
        let (d_step_bias, d_conv) = sums.split_at(channels);
        let (d_conv_bias, d_conv) = d_conv.split_at(channels);
        let parts = [
            d_conv,
            d_conv_bias,
            &d_select_weights,
            &d_step_weights,
            d_step_bias,
            &scan.d_log_decay,
            &d_skip,
            &d_output,
        ];
        [dx, d_input, parts.concat()]
    }

    /// Back through the output, the gate and the skip; fills the gate's half of `d_vz`.
    fn backward_gate(&self, r: &Recorded, w: &Weights, dout: &[f32], d_vz: &mut [f32]) -> Gate {
        let MambaShape { width, channels, .. } = self.shape;
        let rows = dout.len() / width;
        let output_t = transposed(w.output, width);
        let (mut gated, mut dy) = (Scratch::of(rows * channels), Scratch::of(rows * channels));
        let mut du = Scratch::of(rows * channels);
        let run_len = ROWS_PER_TASK * channels;
        let outputs = (gated.par_chunks_mut(run_len), dy.par_chunks_mut(run_len), du.par_chunks_mut(run_len));
        let inputs = (dout.par_chunks(ROWS_PER_TASK * width), d_vz.par_chunks_mut(2 * run_len));
        let d_skip = (inputs.into_par_iter(), outputs.into_par_iter())
            .into_par_iter()
            .enumerate()
            .map(|(run, ((dout, d_vz), (gated, dy, du)))| {
                let count = dout.len() / width;
                let (dout, output_t) = ((dout, View::new(count, width)), (&*output_t, View::new(width, channels)));
                matmul((dy, View::new(count, channels)), dout, output_t, Keep::Nothing);
                let mut d_skip = vec![0.0; channels];
                for i in 0..count {
                    let row = run * ROWS_PER_TASK + i;
                    let own = i * channels..(i + 1) * channels;
                    let (gated, dy, du) = (&mut gated[own.clone()], &mut dy[own.clone()], &mut du[own]);
                    self.gather(&r.y, row, gated);
                    let u = &r.u[row * channels..][..channels];
                    let z = &r.vz[(2 * row + 1) * channels..][..channels];
                    let dz = &mut d_vz[(2 * i + 1) * channels..][..channels];
                    for c in 0..channels {
                        let y = fma(w.skip[c], u[c], gated[c]);
                        let (gate, slope) = silu(z[c]);
                        gated[c] = y * gate;
                        dz[c] = dy[c] * y * slope;
                        dy[c] *= gate;
                        du[c] = dy[c] * w.skip[c];
                        d_skip[c] = fma(dy[c], u[c], d_skip[c]);
                    }
                }
                d_skip
            })
            .collect();
        Gate { gated, dy, du, d_skip: sum_in_order(d_skip, channels) }
    }

    fn backward_scan(&self, r: &Recorded, w: &Weights, dy: &[f32]) -> Scan {
        let MambaShape { channels, states, .. } = self.shape;
        let streams = self.streams(dy.len() / channels);
        let (groups, tasks) = (self.groups(), streams * self.groups());
        let extent = Extent::new(states, self.steps);
        let shared = self.steps * 2 * states;
        let (mut d_delta, mut du) = (Scratch::of(tasks * extent.series), Scratch::of(tasks * extent.series));
        let (mut d_select, mut d_log_decay) = (Scratch::of(tasks * shared), Scratch::of(tasks * extent.state));
        let outputs = (
            d_delta.par_chunks_mut(extent.series),
            du.par_chunks_mut(extent.series),
            d_select.par_chunks_mut(shared),
            d_log_decay.par_chunks_mut(extent.state),
        );
        (r.kept.par_chunks(extent.kept), outputs.into_par_iter()).into_par_iter().enumerate().for_each(
            |(task, (kept, (d_delta, du, d_select, d_log_decay)))| {
                let stream = task / groups;
                let dy = &dy[stream * self.steps * channels..(stream + 1) * self.steps * channels];
                let reads = self.reads(task, &r.u, &r.step, &r.select, w);
                scan::backward(&reads, dy, kept, Writes { d_delta, du, d_select, d_log_decay });
            },
        );
        // streams and groups in order
        let mut decay = Scratch::zeros(groups * extent.state);
        d_log_decay.chunks_exact(groups * extent.state).for_each(|stream| add(&mut decay, stream));
        for stream in d_select.chunks_exact_mut(groups * shared) {
            let (first, others) = stream.split_at_mut(shared);
            others.chunks_exact(shared).for_each(|group| add(first, group));
        }
        Scan { d_delta, du, d_select, d_log_decay: self.unpacked_state(&decay, 1) }
    }

    /// Back through the selection and the convolution's SiLU: `du` leaves as the gradient of the convolution's output.
    fn backward_select(&self, r: &Recorded, w: &Weights, scan: &Scan, du: &mut [f32]) -> Select {
        let MambaShape { channels, states, rank, taps, .. } = self.shape;
        let (rows, selected) = (du.len() / channels, self.shape.selected());
        let (select_t, step_t) = (transposed(w.select, selected), transposed(w.step, channels));
        let (mut d_select, mut d_step) = (Scratch::of(rows * selected), Scratch::of(rows * channels));
        let series = self.series(&r.vz);
        let outputs = (
            d_select.par_chunks_mut(ROWS_PER_TASK * selected),
            d_step.par_chunks_mut(ROWS_PER_TASK * channels),
            du.par_chunks_mut(ROWS_PER_TASK * channels),
        );
        let sums = outputs
            .into_par_iter()
            .enumerate()
            .map(|(run, (d_select, d_step, du))| {
                let (first, count) = (run * ROWS_PER_TASK, du.len() / channels);
                let (wide, narrow) = (View::new(count, channels), View::new(count, selected));
                let mut sums = vec![0.0; (2 + taps) * channels];
                let (d_step_bias, rest) = sums.split_at_mut(channels);
                let (d_conv_bias, d_conv) = rest.split_at_mut(channels);
                let mut from_scan = Scratch::of(channels);
                for i in 0..count {
                    let own = i * channels..(i + 1) * channels;
                    let d_step = &mut d_step[own.clone()];
                    self.gather(&scan.d_delta, first + i, d_step);
                    for (d, &step) in d_step.iter_mut().zip(&r.step[(first + i) * channels..][..channels]) {
                        *d *= sigmoid(step); // the derivative of softplus
                    }
                    add(d_step_bias, d_step);
                    self.gather(&scan.du, first + i, &mut from_scan);
                    add(&mut du[own], &from_scan);
                    let (stream, t) = ((first + i) / self.steps, (first + i) % self.steps);
                    let of_stream = &scan.d_select[stream * self.groups() * self.steps * 2 * states..];
                    d_select[i * selected + rank..(i + 1) * selected]
                        .copy_from_slice(&of_stream[t * 2 * states..(t + 1) * 2 * states]);
                }
                let low_rank = View::strided(count, rank, selected);
                matmul((d_select, low_rank), (d_step, wide), (&step_t, View::new(channels, rank)), Keep::Nothing);
                matmul((du, wide), (d_select, narrow), (&select_t, View::new(selected, channels)), Keep::Sum);
                let mut before_silu = Scratch::of(channels);
                for (i, du) in du.chunks_exact_mut(channels).enumerate() {
                    conv::forward(&series, first + i, w.conv, w.conv_bias, &mut before_silu);
                    du.iter_mut().zip(before_silu.iter()).for_each(|(d, &c)| *d *= silu(c).1);
                    conv::backward_weights(&series, first + i, du, d_conv, d_conv_bias);
                }
                sums
            })
            .collect();
        Select { d_select, d_step, sums: sum_in_order(sums, (2 + taps) * channels) }
    }

    /// Back through the convolution, the input weights and the norm. Fills the other half of `d_vz`; returns the gradient
    /// of `x` and `norm(x)`.
    fn backward_input(
        &self,
        x: &[f32],
        input: &[f32],
        w: &Weights,
        d_conv_out: &[f32],
        dout: &[f32],
        d_vz: &mut [f32],
    ) -> (Vec<f32>, Scratch) {
        let MambaShape { width, channels, .. } = self.shape;
        let wide = 2 * channels;
        let input_t = transposed(input, wide);
        let (mut dx, mut n) = (dout.to_vec(), Scratch::of(x.len()));
        let outputs = (
            d_vz.par_chunks_mut(ROWS_PER_TASK * wide),
            n.par_chunks_mut(ROWS_PER_TASK * width),
            dx.par_chunks_mut(ROWS_PER_TASK * width),
        );
        (x.par_chunks(ROWS_PER_TASK * width), outputs.into_par_iter()).into_par_iter().enumerate().for_each(
            |(run, (x, (d_vz, n, dx)))| {
                let count = x.len() / width;
                for (i, d_vz) in d_vz.chunks_exact_mut(wide).enumerate() {
                    let dv = &mut d_vz[..channels];
                    conv::backward_input(d_conv_out, run * ROWS_PER_TASK + i, self.steps, w.conv, dv);
                }
                let mut dn = Scratch::of(x.len());
                let (d_vz, input_t) = ((&*d_vz, View::new(count, wide)), (&*input_t, View::new(wide, width)));
                matmul((&mut dn, View::new(count, width)), d_vz, input_t, Keep::Nothing);
                rms_norm(x, n, width);
                rms_norm_backward(x, n, &dn, dx, width);
            },
        );
        (dx, n)
    }
}

/// What comes back through the gate.
struct Gate {
    /// What the output weights were multiplied with, `[B·K, H]`.
    gated: Scratch,
    /// Gradient of the scan's output, `[B·K, H]`.
    dy: Scratch,
    /// Gradient of `u` through the skip, `[B·K, H]`.
    du: Scratch,
    d_skip: Vec<f32>,
}

/// What comes back through the scan.
struct Scan {
    /// `[B, tile, K, LANES]`.
    d_delta: Scratch,
    du: Scratch,
    /// Of `B` and `C`: `[B, group, K, 2N]`, of which the first group holds the sum.
    d_select: Scratch,
    /// `[H, N]`.
    d_log_decay: Vec<f32>,
}

/// What comes back through the selection.
struct Select {
    /// `[B·K, R + 2N]`.
    d_select: Scratch,
    /// Of the step sizes before softplus, `[B·K, H]`.
    d_step: Scratch,
    /// Of the steps' bias, of the convolution's bias and of its taps, `[(2 + W) H]`.
    sums: Vec<f32>,
}
