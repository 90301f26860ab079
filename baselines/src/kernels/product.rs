//! Matrix views and the library's product of them.

use gemm::Parallelism;

/// A strided matrix view: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl View {
    /// A row-major matrix.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self::strided(rows, columns, columns)
    }

    /// A row-major matrix whose rows are `row_stride` apart.
    pub fn strided(rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// Elements a slice must have to hold this view.
    pub fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// What happens to the destination of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is overwritten.
    Nothing,
    /// The product is added to it.
    Sum,
}

/// `dst ← a · b` on the calling thread.
pub(crate) fn matmul(dst: (&mut [f32], View), a: (&[f32], View), b: (&[f32], View), keep: Keep) {
    let (values, view) = dst;
    // Only a bug in a caller of this crate can break this: shapes that users give are checked before.
    assert!(values.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: the view lies within its slice, which is borrowed mutably, so that it overlaps neither operand.
    unsafe { product((values.as_mut_ptr(), view), a, b, keep, Parallelism::None) }
}

/// `a · b` into a new row-major matrix, on all threads. Threads split the result, never a sum.
pub(crate) fn par_matmul(a: (&[f32], View), b: (&[f32], View)) -> Vec<f32> {
    let view = View::new(a.1.rows, b.1.columns);
    let len = view.rows * view.columns;
    let mut dst = Vec::with_capacity(len);
    if a.1.columns == 0 || view.rows == 1 || view.columns == 1 {
        dst.resize(len, 0.0); // an empty sum writes nothing, and the library takes a vector as a slice
    }
    // SAFETY: there is room for the view, nobody else has it, and of a matrix the product of one term or more writes every
    // element without reading one.
    unsafe {
        product((dst.as_mut_ptr(), view), a, b, Keep::Nothing, Parallelism::Rayon(0));
        dst.set_len(len);
    }
    dst
}

/// Adds `a · b` to a row-major matrix, on all threads. Threads split the result, never a sum.
pub(crate) fn par_matmul_add(dst: &mut [f32], a: (&[f32], View), b: (&[f32], View)) {
    let view = View::new(a.1.rows, b.1.columns);
    // Only a bug in a caller of this crate can break this.
    assert!(dst.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: as in `matmul`.
    unsafe { product((dst.as_mut_ptr(), view), a, b, Keep::Sum, Parallelism::Rayon(0)) }
}

/// `dst ← a · b`.
///
/// # Safety
/// The view must lie within memory that nobody else reads or writes meanwhile, and that holds values if they are kept.
unsafe fn product(
    (dst, dv): (*mut f32, View),
    (a, av): (&[f32], View),
    (b, bv): (&[f32], View),
    keep: Keep,
    parallelism: Parallelism,
) {
    // Only a bug in a caller of this crate can break these: shapes that users give are checked before.
    assert!(av.columns == bv.rows && dv.rows == av.rows && dv.columns == bv.columns, "{dv:?} = {av:?} · {bv:?}");
    assert!(a.len() >= av.extent() && b.len() >= bv.extent(), "view exceeds its slice");
    let s = |x: usize| x as isize;
    // SAFETY: the operands' views lie within their slices (asserted above), the destination's as the caller says.
    unsafe {
        gemm::gemm(
            dv.rows,
            dv.columns,
            av.columns,
            dst,
            s(dv.column_stride),
            s(dv.row_stride),
            keep == Keep::Sum,
            a.as_ptr(),
            s(av.column_stride),
            s(av.row_stride),
            b.as_ptr(),
            s(bv.column_stride),
            s(bv.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_equals_the_triple_loop_for_plain_transposed_and_strided_views() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32).sin()).collect();
        let b: Vec<f32> = (0..k * (n + 2)).map(|i| (i as f32).cos()).collect();
        let start: Vec<f32> = (0..m * n).map(|i| i as f32).collect();
        let expected = |keep: f32, i: usize| -> f32 {
            let (r, c) = (i / n, i % n);
            keep * i as f32 + (0..k).map(|l| a[l * m + r] * b[l * (n + 2) + c]).sum::<f32>()
        };
        let (av, bv) = (View::new(k, m).t(), View::strided(k, n, n + 2));
        for (keep, share) in [(Keep::Nothing, 0.0), (Keep::Sum, 1.0)] {
            let mut dst = start.clone();
            matmul((&mut dst, View::new(m, n)), (&a, av), (&b, bv), keep);
            for (i, x) in dst.iter().enumerate() {
                assert!((x - expected(share, i)).abs() < 1e-5, "{i}: {x} {}", expected(share, i)); // three f32 terms up to 35
            }
        }
        for (i, x) in par_matmul((&a, av), (&b, bv)).iter().enumerate() {
            assert!((x - expected(0.0, i)).abs() < 1e-6);
        }
    }
}
