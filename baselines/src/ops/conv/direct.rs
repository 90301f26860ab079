//! Convolutions tap by tap, from the padded input as it lies: for long streams, whose blocks of rows the tasks share.

use rayon::prelude::*;

use super::{Dims, FusedConv};
use crate::kernels::{Keep, Panels, View, matmul, multiply, par_filled};
use crate::scratch::Scratch;

/// Steps that one task works on. More than elsewhere, because a convolution has more weights to pack per output.
const ROWS_PER_TASK: usize = 256;
/// Rows of the weights whose gradient one task computes: enough for the product kernel, few enough to keep every core
/// busy.
const WEIGHTS_PER_TASK: usize = 128;
/// Blocks of rows from which on weights are laid out for the products with them.
const READ_OFTEN: usize = 2;

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

impl Dims {
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

    /// Blocks of rows in all, as if every stream were whole: bits do not depend on lengths.
    fn blocks(&self) -> usize {
        self.streams * self.produced().div_ceil(ROWS_PER_TASK)
    }
}

impl FusedConv {
    pub(super) fn forward_directly(&self, padded: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
        let Dims { streams, outputs, ref lengths, .. } = self.dims;
        let per_stream = self.dims.produced() * outputs;
        let weights = Weights::new(w, (self.dims.pieces().1, outputs), false, self.dims.blocks());
        par_filled(streams * per_stream, per_stream, lengths.par_iter(), |s, y, &length| {
            let padded = &padded[s * self.dims.padded_len()..][..self.dims.padded_len()];
            self.products(padded, (&weights, b), &mut y[..self.dims.outputs_of(length) * outputs]);
        })
    }

    /// Outputs `[rows, O]` of one stream.
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

    pub(super) fn input_gradient_directly(&self, x: &[f32], w: &[f32], padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let Dims { steps, inputs, outputs, ref lengths, .. } = self.dims;
        let weights = Weights::new(w, (inputs, outputs), true, self.dims.blocks());
        let per_stream = self.dims.produced() * outputs;
        par_filled(x.len(), steps * inputs, lengths.par_iter(), |s, dx, &length| {
            let mut d = Scratch::zeros(length * inputs); // of padded steps from `left` on
            self.products_back(&weights, &dy[s * per_stream..], self.dims.outputs_of(length), &mut d);
            self.through_preparation((x, padded), (s, 0), &mut d, dx);
        })
    }

    /// Adds to `d`, padded steps of one stream from `left` on, what its first `rows` output steps give back.
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
    pub(super) fn weight_gradient_directly(&self, padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let Dims { inputs, outputs, taps, dilation, stride, ref lengths, .. } = self.dims;
        let piece = self.dims.pieces().1;
        let per_stream = self.dims.produced() * outputs;
        let mut dw = vec![0.0; taps * inputs * outputs];
        dw.par_chunks_mut(piece * outputs).enumerate().for_each(|(p, dw)| {
            dw.par_chunks_mut(WEIGHTS_PER_TASK * outputs).enumerate().for_each(|(block, dw)| {
                let columns = dw.len() / outputs;
                for (s, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
                    let rows = self.dims.outputs_of(length);
                    let first = s * self.dims.padded_len() + p * dilation * inputs + block * WEIGHTS_PER_TASK;
                    let seen = (&padded[first..], View::strided(rows, columns, stride * inputs).t());
                    let back = (&dy[s * per_stream..], View::new(rows, outputs));
                    matmul((dw, View::new(columns, outputs)), seen, back, Keep::Sum);
                }
            });
        });
        dw
    }
}
