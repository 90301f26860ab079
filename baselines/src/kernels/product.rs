//! The matrix product as this crate's operations call it.

use learner::product;
pub(crate) use learner::product::{View, par_matmul, par_matmul_add};

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
    let keep = match keep {
        Keep::Nothing => 0.0,
        Keep::Sum => 1.0,
    };
    product::matmul(dst, a, b, keep);
}
