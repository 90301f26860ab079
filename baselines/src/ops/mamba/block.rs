//! The block in stages. Those over rows are split into runs of [`ROWS_PER_TASK`]; the scan into groups of channels of one
//! stream. What a task computes does not depend on the number of threads, and sums over tasks are taken in order.

use rayon::prelude::*;

use super::conv::{self, Series};
use super::operations::Watches;
use super::scan::{self, Extent, GROUP, LANES, Reads, lanes};
use super::{After, MambaShape};
use crate::count::see;
use crate::kernels::{Keep, View, fma, matmul, rms_norm, silu};
use crate::ops::ROWS_PER_TASK;
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
    pub vz: Scratch,
    /// Outputs of the convolution after `SiLU`, `[B·K, H]`.
    pub u: Scratch,
    /// `[B·K, R + 2N]`.
    pub select: Scratch,
    /// Step sizes before softplus, `[B·K, H]`.
    pub step: Scratch,
    /// Outputs of the scan, `[B, tile, K, LANES]`.
    pub y: Scratch,
    /// States that the scan kept, per group.
    pub kept: Scratch,
}

/// The weights after the first.
pub(super) struct Weights<'a> {
    pub conv: &'a [f32],
    pub conv_bias: &'a [f32],
    pub select: &'a [f32],
    pub step: &'a [f32],
    pub step_bias: &'a [f32],
    pub log_decay: &'a [f32],
    pub skip: &'a [f32],
    pub output: &'a [f32],
}

impl<'a> Weights<'a> {
    pub fn new(shape: &MambaShape, rest: &'a [f32]) -> Self {
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
    pub fn groups(&self) -> usize {
        self.shape.channels.div_ceil(GROUP)
    }

    pub fn streams(&self, rows: usize) -> usize {
        rows / self.steps
    }

    pub fn series<'a>(&'a self, vz: &'a [f32]) -> Series<'a> {
        let MambaShape { channels, taps, .. } = self.shape;
        let (steps, stride) = (self.steps, 2 * channels);
        Series { steps, channels, remembered: taps - 1, rows: vz, stride, before: &self.inputs }
    }

    /// What task `task` of the scan reads: group after group of stream after stream.
    pub fn reads<'a>(
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
    pub fn gather(&self, tiles: &[f32], row: usize, out: &mut [f32]) {
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
        let watches = Watches::new(&self.shape, input, &w);
        let vz = self.project(x, input, &watches);
        let [u, select, step] = self.select(&vz, &w, &watches);
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
            see(Some(&watches.output), &gated);
            let (gated, output) = ((&*gated, View::new(count, channels)), (w.output, View::new(channels, width)));
            matmul((out, View::new(count, width)), gated, output, Keep::Sum);
        });
        watches.count(rows, self.shape);
        let inputs = self.series(&vz).after(self.streams(rows));
        let hidden = self.unpacked_state(&after, self.streams(rows));
        (out, Recorded { vz, u, select, step, y, kept }, After { inputs, hidden })
    }

    /// `norm(x) · input`, `[B·K, 2H]`.
    fn project(&self, x: &[f32], input: &[f32], watches: &Watches) -> Scratch {
        let (width, wide) = (self.shape.width, 2 * self.shape.channels);
        let mut vz = Scratch::of(x.len() / width * wide);
        (x.par_chunks(ROWS_PER_TASK * width), vz.par_chunks_mut(ROWS_PER_TASK * wide)).into_par_iter().for_each(
            |(x, vz)| {
                let rows = x.len() / width;
                let mut n = Scratch::of(x.len());
                rms_norm(x, &mut n, width);
                see(Some(&watches.input), &n);
                let (n, input) = ((&*n, View::new(rows, width)), (input, View::new(width, wide)));
                matmul((vz, View::new(rows, wide)), n, input, Keep::Nothing);
            },
        );
        vz
    }

    /// The scan's inputs: `u` `[B·K, H]`, what it selects `[B·K, R + 2N]`, step sizes before softplus `[B·K, H]`.
    fn select(&self, vz: &[f32], w: &Weights, watches: &Watches) -> [Scratch; 3] {
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
                    for u in u.iter_mut() {
                        *u = silu(*u).0;
                    }
                }
                let (wide, narrow) = (View::new(rows, channels), View::new(rows, selected));
                matmul((select, narrow), (u, wide), (w.select, View::new(channels, selected)), Keep::Nothing);
                step.chunks_exact_mut(channels).for_each(|row| row.copy_from_slice(w.step_bias));
                let low_rank = (&*select, View::strided(rows, rank, selected));
                matmul((step, wide), low_rank, (w.step, View::new(rank, channels)), Keep::Sum);
                watches.see(&self.shape, &series, run * ROWS_PER_TASK, [u, select]);
            });
        [u, select, step]
    }

    /// `[B, tile, N, LANES]` → `[B, H, N]`.
    pub fn unpacked_state(&self, tiles: &[f32], streams: usize) -> Vec<f32> {
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
}
