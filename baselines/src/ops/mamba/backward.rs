//! The way back through the stages of a block, from the last to the first.

use rayon::prelude::*;

use super::MambaShape;
use super::block::{Block, Recorded, Weights};
use super::conv;
use super::scan::{self, Extent, Writes};
use crate::kernels::{Keep, View, fma, matmul, par_matmul, rms_norm, rms_norm_backward, sigmoid, silu, transposed};
use crate::ops::{ROWS_PER_TASK, add, sum_in_order};
use crate::scratch::Scratch;

impl Block {
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
        let Select { d_selected, d_step, sums } = self.backward_select(r, &w, &scan, &mut du);
        let d_select_weights =
            par_matmul((&r.u, View::new(rows, channels).t()), (&d_selected, View::new(rows, selected)));
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

    /// Back through the selection and the convolution's `SiLU`: `du` leaves as the gradient of the convolution's output.
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
        Select { d_selected: d_select, d_step, sums: sum_in_order(sums, (2 + taps) * channels) }
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
    d_selected: Scratch,
    /// Of the step sizes before softplus, `[B·K, H]`.
    d_step: Scratch,
    /// Of the steps' bias, of the convolution's bias and of its taps, `[(2 + W) H]`.
    sums: Vec<f32>,
}
