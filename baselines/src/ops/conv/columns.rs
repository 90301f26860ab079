//! Convolutions of short streams: what each output sees is laid side by side, and many streams are one product. Each stream by
//! itself would have too few rows for the weights to be worth laying out, and be too little for the threads to share.

use std::ops::Range;

use rayon::prelude::*;

use super::{Dims, FusedConv};
use crate::kernels::{Keep, Panels, View, multiply, par_filled, par_matmul, par_matmul_add, transposed};
use crate::ops::add;
use crate::scratch::Scratch;

/// Streams with fewer output steps count as short.
const SHORT: usize = 128;
/// Outputs that are laid out at a time: bounds the memory for it.
const ROWS_AT_ONCE: usize = 1024;
/// Rows of the weights through which one task goes back.
const WEIGHTS_PER_TASK: usize = 128;

impl Dims {
    /// Whether this form is the faster one.
    pub(super) fn short(&self) -> bool {
        self.produced() < SHORT
    }

    /// Elements that one output sees.
    fn seen(&self) -> usize {
        self.taps * self.inputs
    }

    /// Groups of streams of which each is one product.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let (streams, each) = (self.streams, (ROWS_AT_ONCE / self.produced().max(1)).max(1));
        (0..streams).step_by(each).map(move |first| first..(first + each).min(streams))
    }
}

impl FusedConv {
    /// What each output of some streams sees, `[outputs, taps · I]`.
    fn columns(&self, padded: &[f32], streams: &Range<usize>) -> Scratch {
        let Dims { inputs, dilation, stride, .. } = self.dims;
        let per_stream = self.dims.produced() * self.dims.seen();
        let mut columns = Scratch::of(streams.len() * per_stream);
        columns.par_chunks_mut(per_stream).zip(streams.clone()).for_each(|(columns, s)| {
            let padded = &padded[s * self.dims.padded_len()..][..self.dims.padded_len()];
            for (t, row) in columns.chunks_exact_mut(self.dims.seen()).enumerate() {
                for (tap, part) in row.chunks_exact_mut(inputs).enumerate() {
                    part.copy_from_slice(&padded[(t * stride + tap * dilation) * inputs..][..inputs]);
                }
            }
        });
        columns
    }

    /// Gradient of the outputs of some streams, zeros beyond their lengths.
    fn back(&self, dy: &[f32], streams: &Range<usize>) -> Scratch {
        let Dims { outputs, ref lengths, .. } = self.dims;
        let per_stream = self.dims.produced() * outputs;
        let mut back = Scratch::of(streams.len() * per_stream);
        for (back, s) in back.chunks_exact_mut(per_stream).zip(streams.clone()) {
            let (there, beyond) = back.split_at_mut(self.dims.outputs_of(lengths[s]) * outputs);
            there.copy_from_slice(&dy[s * per_stream..][..there.len()]);
            beyond.fill(0.0);
        }
        back
    }

    pub(super) fn forward_by_columns(&self, padded: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
        let Dims { streams, outputs, ref lengths, .. } = self.dims;
        let (seen, per_stream) = (self.dims.seen(), self.dims.produced() * outputs);
        let mut y = Vec::with_capacity(streams * per_stream);
        for streams in self.dims.groups() {
            let columns = self.columns(padded, &streams);
            let rows = View::new(columns.len() / seen, seen);
            y.extend_from_slice(&par_matmul((&columns, rows), (w, View::new(seen, outputs))));
        }
        for (y, &length) in y.chunks_exact_mut(per_stream).zip(lengths) {
            let (there, beyond) = y.split_at_mut(self.dims.outputs_of(length) * outputs);
            there.chunks_exact_mut(outputs).for_each(|y| add(y, b));
            beyond.fill(0.0);
        }
        y
    }

    pub(super) fn input_gradient_by_columns(&self, x: &[f32], w: &[f32], padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let Dims { steps, inputs, outputs, dilation, stride, left, ref lengths, .. } = self.dims;
        let (seen, produced) = (self.dims.seen(), self.dims.produced());
        let mut dx = Vec::with_capacity(x.len());
        for streams in self.dims.groups() {
            let back = self.back(dy, &streams);
            let rows = back.len() / outputs;
            let panels = Panels::of((&back, View::new(rows, outputs).t()));
            let mut d_seen = Scratch::of(seen * rows); // on their side, so that the weights are read as they lie
            d_seen.par_chunks_mut(WEIGHTS_PER_TASK * rows).enumerate().for_each(|(task, d_seen)| {
                let count = d_seen.len() / rows;
                let w = (&w[task * WEIGHTS_PER_TASK * outputs..], View::new(count, outputs));
                multiply((d_seen, View::new(count, rows)), w, &panels, Keep::Nothing);
            });
            let d_seen = transposed(&d_seen, rows);
            let beside = d_seen.par_chunks_exact(produced * seen);
            dx.extend(par_filled(streams.len() * steps * inputs, steps * inputs, beside, |i, dx, d_seen| {
                let s = streams.start + i;
                let mut d = Scratch::zeros(self.dims.padded_len());
                let there = d_seen.chunks_exact(seen).take(self.dims.outputs_of(lengths[s]));
                for (t, d_seen) in there.enumerate() {
                    for (tap, part) in d_seen.chunks_exact(inputs).enumerate() {
                        add(&mut d[(t * stride + tap * dilation) * inputs..][..inputs], part);
                    }
                }
                self.through_preparation((x, padded), (s, 0), &mut d[left * inputs..][..steps * inputs], dx);
            }));
        }
        dx
    }

    /// Gradient of `w`, summed over groups of streams in order.
    pub(super) fn weight_gradient_by_columns(&self, padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let (seen, outputs) = (self.dims.seen(), self.dims.outputs);
        let mut dw = Vec::new();
        for streams in self.dims.groups() {
            let (columns, back) = (self.columns(padded, &streams), self.back(dy, &streams));
            let rows = back.len() / outputs;
            let (columns, back) = ((&*columns, View::new(rows, seen).t()), (&*back, View::new(rows, outputs)));
            if dw.is_empty() {
                dw = par_matmul(columns, back);
            } else {
                par_matmul_add(&mut dw, columns, back);
            }
        }
        dw
    }
}
