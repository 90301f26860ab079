//! Products with a matrix that many of them read: it is laid out once, in the order in which they read it. The library's
//! product lays it out anew for every block of rows, and for the few streams of a recurrent network's step it does not, but
//! then walks across its rows.

use std::slice::from_mut;

use rayon::prelude::*;

use super::{Keep, View, fma};
use crate::scratch::Scratch;

/// Elements of a vector register.
const LANES: usize = 8;
/// Columns of a panel, and of a tile of the result.
const WIDE: usize = 2 * LANES;
/// Rows of a tile: with two registers of columns, twelve sums hide the latency of a fused multiply–add.
const TALL: usize = 6;
/// Rows of a panel that all rows of the left side are taken through before the next: 16 KiB, which stay in the first-level
/// cache.
const DEEP: usize = 256;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Elements from which on threads share the work of laying out.
const MANY: usize = 1 << 15;

type Lane = [f32; LANES];

/// A matrix `[rows, columns]` as panels of 16 columns, `[columns / 16, rows, 16]`, the last filled up with zeros.
pub(crate) struct Panels {
    rows: usize,
    columns: usize,
    values: Scratch,
    /// Where the first panel starts: at a line of the cache, so that every row is one.
    first: usize,
}

impl Panels {
    /// Lays out `matrix`, which has its rows or its columns side by side.
    pub fn of((values, matrix): (&[f32], View)) -> Self {
        let View { rows, columns, row_stride, column_stride } = matrix;
        // Only a bug in a caller of this crate can break these.
        assert!(values.len() >= matrix.extent(), "view exceeds its slice");
        assert!(row_stride == 1 || column_stride == 1, "{matrix:?}");
        let len = columns.div_ceil(WIDE) * rows * WIDE;
        let mut all = Scratch::of(len + WIDE);
        let first = all.as_ptr().align_offset(LINE).min(WIDE);
        let panels = &mut all[first..first + len];
        let lay = |(index, panel): (usize, &mut [f32])| {
            let from = index * WIDE;
            let wide = WIDE.min(columns - from);
            if wide < WIDE {
                panel.fill(0.0);
            }
            if column_stride == 1 {
                for (i, row) in panel.chunks_exact_mut(WIDE).enumerate() {
                    row[..wide].copy_from_slice(&values[i * row_stride + from..][..wide]);
                }
            } else {
                for j in 0..wide {
                    let column = &values[(from + j) * column_stride..][..rows];
                    panel.iter_mut().skip(j).step_by(WIDE).zip(column).for_each(|(to, &x)| *to = x);
                }
            }
        };
        let each = (rows * WIDE).max(1);
        if len < MANY {
            panels.chunks_exact_mut(each).enumerate().for_each(lay);
        } else {
            panels.par_chunks_exact_mut(each).enumerate().for_each(lay);
        }
        Self { rows, columns, values: all, first }
    }
}

/// `dst ← a · b` on the calling thread, with as many of the first rows of `b` as `a` has columns, and as many of its first
/// columns as `dst` has. The rows of `a` and `dst` may be anywhere, their elements are side by side.
pub(crate) fn multiply(dst: (&mut [f32], View), a: (&[f32], View), b: &Panels, keep: Keep) {
    let ((dst, dv), (a, av)) = (dst, a);
    // Only a bug in a caller of this crate can break these: shapes that users give are checked before.
    assert!(dv.rows == av.rows && av.columns <= b.rows && dv.columns <= b.columns, "{dv:?} = {av:?}");
    assert!(dv.column_stride == 1 && av.column_stride == 1, "{dv:?} = {av:?}");
    assert!(dst.len() >= dv.extent() && a.len() >= av.extent(), "view exceeds its slice");
    if dv.columns == 0 || dv.rows == 0 {
        return;
    }
    if av.columns == 0 && keep == Keep::Nothing {
        dst.chunks_mut(dv.row_stride).take(dv.rows).for_each(|row| row[..dv.columns].fill(0.0));
    }
    for from in (0..av.columns).step_by(DEEP) {
        let to = (from + DEEP).min(av.columns);
        let keep = if from == 0 { keep } else { Keep::Sum };
        for (index, panel) in
            b.values[b.first..].chunks_exact(b.rows * WIDE).take(dv.columns.div_ceil(WIDE)).enumerate()
        {
            let panel = &panel.as_chunks().0.as_chunks().0[from..to];
            let wide = WIDE.min(dv.columns - index * WIDE);
            for at in (0..dv.rows).step_by(TALL) {
                let a = (&a[at * av.row_stride + from..], av.row_stride);
                let dst = (&mut dst[at * dv.row_stride + index * WIDE..], dv.row_stride, wide);
                match dv.rows - at {
                    1 => tile::<1>(dst, a, panel, keep),
                    2 => tile::<2>(dst, a, panel, keep),
                    3 => tile::<3>(dst, a, panel, keep),
                    4 => tile::<4>(dst, a, panel, keep),
                    5 => tile::<5>(dst, a, panel, keep),
                    _ => tile::<TALL>(dst, a, panel, keep),
                }
            }
        }
    }
}

/// `R` rows of `dst`, of which the first `wide` columns are there. The sums stay in registers: no index into them depends on
/// anything, and what is written is a copy of them.
#[inline(always)]
fn tile<const R: usize>(
    (dst, dst_stride, wide): (&mut [f32], usize, usize),
    (a, a_stride): (&[f32], usize),
    panel: &[[Lane; 2]],
    keep: Keep,
) {
    let rows: [&[f32]; R] = std::array::from_fn(|r| &a[r * a_stride..][..panel.len()]);
    let (mut left, mut right) = ([[0.0; LANES]; R], [[0.0; LANES]; R]);
    for (i, b) in panel.iter().enumerate() {
        for r in 0..R {
            let x = rows[r][i];
            left[r] = add_scaled(left[r], x, b[0]);
            right[r] = add_scaled(right[r], x, b[1]);
        }
    }
    write((dst, dst_stride, wide), &(left, right), keep);
}

/// `sum + x b`.
#[inline(always)]
fn add_scaled(mut sum: Lane, x: f32, b: Lane) -> Lane {
    for k in 0..LANES {
        sum[k] = fma(x, b[k], sum[k]);
    }
    sum
}

/// A function of its own, which gets a copy: an index into the sums that is not constant would keep them in memory.
#[inline(never)]
fn write<const R: usize>(
    (dst, dst_stride, wide): (&mut [f32], usize, usize),
    (left, right): &([Lane; R], [Lane; R]),
    keep: Keep,
) {
    for (r, (left, right)) in left.iter().zip(right).enumerate() {
        let dst = &mut dst[r * dst_stride..][..wide];
        if wide == WIDE {
            let (to_left, to_right) = dst.split_at_mut(LANES);
            write_lane(to_left, left, keep);
            write_lane(to_right, right, keep);
        } else {
            dst.iter_mut().zip(left.iter().chain(right)).for_each(|(to, sum)| write_lane(from_mut(to), &[*sum], keep));
        }
    }
}

#[inline(always)]
fn write_lane(dst: &mut [f32], sums: &[f32], keep: Keep) {
    for (dst, &sum) in dst.iter_mut().zip(sums) {
        *dst = if keep == Keep::Sum { *dst + sum } else { sum };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul;

    /// Every height of a tile, depths above and below [`DEEP`], whole panels and parts of one.
    #[test]
    fn products_with_panels_are_those_of_the_library() {
        let value = |i: usize| (i * 7919 % 1000) as f32 / 1000.0 - 0.5;
        for (m, k, n) in [(1, 1, 1), (2, 3, 16), (3, 257, 17), (4, 40, 35), (5, 600, 7), (13, 32, 48), (6, 16, 64)] {
            let (a, b): (Vec<f32>, Vec<f32>) = ((0..m * (k + 3)).map(value).collect(), (0..k * n).map(value).collect());
            let start: Vec<f32> = (0..m * (n + 2)).map(value).collect();
            let (dv, av) = (View::strided(m, n, n + 2), View::strided(m, k, k + 3));
            for (keep, bv) in [(Keep::Nothing, View::new(k, n)), (Keep::Sum, View::new(n, k).t())] {
                let (mut got, mut want) = (start.clone(), start.clone());
                multiply((&mut got, dv), (&a, av), &Panels::of((&b, bv)), keep);
                matmul((&mut want, dv), (&a, av), (&b, bv), keep);
                for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                    // another order of k terms of up to 1/4
                    assert!((g - w).abs() < 1e-6 * k as f32, "{m} × {k} × {n}, element {i}: {g}, expected {w}");
                    assert!(i % (n + 2) < n || g.to_bits() == start[i].to_bits(), "{i} lies beside the result");
                }
            }
        }
    }

    #[test]
    fn the_first_rows_and_columns_of_panels_are_a_matrix() {
        let b: Vec<f32> = (0..20 * 40).map(|i| i as f32).collect();
        let panels = Panels::of((&b, View::new(20, 40)));
        let mut got = vec![0.0; 5];
        multiply((&mut got, View::new(1, 5)), (&[1.0, 10.0], View::new(1, 2)), &panels, Keep::Nothing);
        assert_eq!(got, [400.0, 411.0, 422.0, 433.0, 444.0]);
        multiply((&mut got, View::new(1, 5)), (&[], View::new(1, 0)), &panels, Keep::Nothing);
        assert_eq!(got, [0.0; 5], "an empty sum");
    }

    /// What fills the last panel up is multiplied with everything, also with what is not a number.
    #[test]
    fn what_is_not_a_number_stays_in_its_row() {
        let panels = Panels::of((&[1.0, 2.0, 3.0], View::new(1, 3)));
        let mut got = vec![0.0; 6];
        let a = [f32::NAN, 2.0];
        multiply((&mut got, View::new(2, 3)), (&a, View::new(2, 1)), &panels, Keep::Nothing);
        assert!(got[..3].iter().all(|x| x.is_nan()));
        assert_eq!(got[3..], [2.0, 4.0, 6.0]);
    }
}
