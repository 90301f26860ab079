//! Fixed-width blocks of channels. Loops over a [`Lane`] compile to vector code, and their order of additions does not
//! depend on how the compiler vectorises.

use super::Real;

/// Channels of a block: one AVX2 register of `f32`.
pub const LANES: usize = 8;

/// One value per channel of a block.
pub type Lane<T> = [T; LANES];

/// The `len` values at `at`; zeros behind them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a call here would keep the caller's loops from becoming vector code")]
pub fn load<T: Real>(v: &[T], at: usize, len: usize) -> Lane<T> {
    if let (LANES, Some(full)) = (len, v[at..].first_chunk::<LANES>()) {
        return *full;
    }
    let mut out = [T::zero(); LANES];
    out[..len].copy_from_slice(&v[at..at + len]);
    out
}

/// Writes the first `len` values at `at`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for load")]
pub fn store<T: Real>(v: &mut [T], at: usize, len: usize, x: &Lane<T>) {
    if let (LANES, Some(full)) = (len, v[at..].first_chunk_mut::<LANES>()) {
        *full = *x;
    } else {
        v[at..at + len].copy_from_slice(&x[..len]);
    }
}

/// Sum of a block, pairwise. A call of its own: inlined, the shape of this tree spreads into the loops before it, and they
/// are compiled to pairs instead of whole registers.
#[inline(never)]
pub fn sum<T: Real>(x: &Lane<T>) -> T {
    ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
}

/// Blocks of `n` channels: offset and length of each.
pub fn blocks(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).step_by(LANES).map(move |at| (at, LANES.min(n - at)))
}

/// The first-level cache, for [`prefetch`].
pub const FIRST_LEVEL: i32 = 3;
/// The second-level cache, for [`prefetch`].
pub const SECOND_LEVEL: i32 = 2;

/// Asks for the cache line at `v[at]`, which may lie behind `v`'s end, in the cache of level `CACHE`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "one instruction")]
pub fn prefetch<const CACHE: i32, T>(v: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault, whatever the address; every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<CACHE>(v.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (v, at);
}
