//! Elements of slices side by side in registers.

/// Elements handled at once in registers: with arrays of a fixed length the compiler need not prove that the many slices
/// do not overlap.
pub(crate) const STEP_LANES: usize = 16;

/// `f(0) … f(N - 1)`; `std::array::from_fn` is not inlined reliably.
#[inline(always)]
pub(crate) fn each<const N: usize>(f: impl Fn(usize) -> f32) -> [f32; N] {
    let mut out = [0.0; N];
    for (k, o) in out.iter_mut().enumerate() {
        *o = f(k);
    }
    out
}

/// `N` elements of `s` from `at`.
#[inline(always)]
pub(crate) fn load<const N: usize>(s: &[f32], at: usize) -> [f32; N] {
    let s = &s[at..at + N];
    each(|k| s[k])
}
