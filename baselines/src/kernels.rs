//! Arithmetic over slices: the matrix product, functions that compile to vector code, and rows of RMS norm. Sums run in
//! a fixed order, so that a result does not depend on the number of threads.

#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use std::mem::MaybeUninit;
use std::ptr::from_mut;

use rayon::prelude::*;

use crate::scratch::Scratch;

mod functions;
mod lanes;
mod panels;
mod product;
mod rows;

pub(crate) use functions::{exp, exp2, fma, gelu, sigmoid, silu, softplus, tanh};
pub(crate) use lanes::{STEP_LANES, each, load};
pub(crate) use panels::{Panels, multiply};
pub(crate) use product::{Keep, View, matmul, par_matmul, par_matmul_add};
pub(crate) use rows::{NORM_EPSILON, dot, max, norm_relu, norm_relu_backward, rms_norm, rms_norm_backward, sum};

/// A new vector of `len` elements, in chunks of `chunk` on all threads: `fill` writes a chunk, which it is given as zeros,
/// with its index and what belongs to it.
pub(crate) fn par_filled<T: Send>(
    len: usize,
    chunk: usize,
    beside: impl IndexedParallelIterator<Item = T>,
    fill: impl Fn(usize, &mut [f32], T) + Sync + Send,
) -> Vec<f32> {
    // Only a bug in a caller of this crate can break this.
    assert_eq!(len.div_ceil(chunk), beside.len(), "chunks");
    let mut out = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(chunk).zip(beside).enumerate().for_each(|(i, (chunk, beside))| {
        chunk.fill(MaybeUninit::new(0.0));
        // SAFETY: every element of the chunk was just written, and `MaybeUninit<f32>` lies in memory as `f32` does.
        fill(i, unsafe { &mut *(from_mut(chunk) as *mut [f32]) }, beside);
    });
    // SAFETY: the chunks cover the first `len` elements, each has been written, and a panic in one does not get here.
    unsafe { out.set_len(len) };
    out
}

/// The transpose of rows of `columns`, so that a product that runs against the rows need not pack them again and again.
pub(crate) fn transposed(rows: &[f32], columns: usize) -> Scratch {
    /// Side of a tile: a line of the cache each way.
    const TILE: usize = 16;
    /// Elements from which on threads share the work.
    const MANY: usize = 1 << 16;
    let height = rows.len() / columns;
    let mut out = Scratch::of(rows.len());
    if rows.is_empty() {
        return out;
    }
    let band = |(index, out): (usize, &mut [f32])| {
        // by way of a tile of its own, so that every line is touched once: lines a power of two apart evict each other
        let mut tile = [[0.0; TILE]; TILE];
        let wide = out.len() / height;
        for r0 in (0..height).step_by(TILE) {
            let tall = TILE.min(height - r0);
            for (r, tile) in tile.iter_mut().take(tall).enumerate() {
                let from = (r0 + r) * columns + index * TILE;
                tile[..wide].copy_from_slice(&rows[from..from + wide]);
            }
            for (c, out) in out.chunks_exact_mut(height).enumerate() {
                for (to, row) in out[r0..r0 + tall].iter_mut().zip(&tile) {
                    *to = row[c];
                }
            }
        }
    };
    if rows.len() < MANY {
        out.chunks_mut(TILE * height).enumerate().for_each(band);
    } else {
        out.par_chunks_mut(TILE * height).enumerate().for_each(band);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_swaps_the_indices() {
        let (height, columns) = (19, 35);
        let rows: Vec<f32> = (0..height * columns).map(|i| i as f32).collect();
        let t = transposed(&rows, columns);
        for (i, x) in t.iter().enumerate() {
            assert_eq!(x.to_bits(), rows[i % height * columns + i / height].to_bits());
        }
    }
}
