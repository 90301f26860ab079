//! The one place that calls the matrix product.

use learner::performed;

use super::Real;

/// A strided matrix view: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

impl View {
    /// A row-major matrix.
    #[must_use]
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    #[must_use]
    pub fn strided(rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed view.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// Elements a slice must have to hold this view.
    fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// Runs one product on the calling thread and on every other: the library keeps half a megabyte for packing on each from its first product on, and
/// whether a thread comes to its first sooner or later is chance. Afterwards memory is what it stays.
pub fn warm_up() {
    const SIDE: usize = 64; // wide enough to be packed
    let product = || {
        let (a, view) = (vec![0f32; SIDE * SIDE], View::new(SIDE, SIDE));
        let mut product = vec![0f32; SIDE * SIDE];
        matmul((&mut product, view), (&a, view), (&a, view), 0.0);
    };
    product();
    rayon::broadcast(|_| product());
}

/// `dst ← keep · dst + a · b`, single-threaded. `keep = 0` overwrites without reading.
///
/// # Panics
/// If a slice is shorter than its view or the views do not chain: a bug in the caller, never bad input.
pub fn matmul<T: Real>(dst: (&mut [T], View), a: (&[T], View), b: (&[T], View), keep: T) {
    let ((dst, dv), (a, av), (b, bv)) = (dst, a, b);
    assert!(av.columns == bv.rows && dv.rows == av.rows && dv.columns == bv.columns, "{dv:?} = {av:?} · {bv:?}");
    assert!(dst.len() >= dv.extent() && a.len() >= av.extent() && b.len() >= bv.extent(), "view exceeds its slice");
    performed::note(dv.rows * dv.columns * av.columns);
    let s = |x: usize| x as isize;
    // SAFETY: the three views lie within their slices (asserted above), and `dst` is borrowed mutably, so it overlaps
    // neither operand.
    unsafe {
        gemm::gemm(
            dv.rows,
            dv.columns,
            av.columns,
            dst.as_mut_ptr(),
            s(dv.column_stride),
            s(dv.row_stride),
            keep != T::zero(),
            a.as_ptr(),
            s(av.column_stride),
            s(av.row_stride),
            b.as_ptr(),
            s(bv.column_stride),
            s(bv.row_stride),
            keep,
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_triple_loop_for_plain_transposed_and_strided_views() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64).sin()).collect();
        let b: Vec<f64> = (0..k * (n + 2)).map(|i| (i as f64).cos()).collect();
        let mut dst: Vec<f64> = (0..m * n).map(|i| i as f64).collect();
        let expected: Vec<f64> = (0..m * n)
            .map(|i| {
                let (r, c) = (i / n, i % n);
                0.5 * i as f64 + (0..k).map(|l| a[l * m + r] * b[l * (n + 2) + c]).sum::<f64>()
            })
            .collect();
        matmul((&mut dst, View::new(m, n)), (&a, View::new(k, m).t()), (&b, View::strided(k, n, n + 2)), 0.5);
        for (x, y) in dst.iter().zip(&expected) {
            assert!((x - y).abs() < 1e-12);
        }
    }
}
