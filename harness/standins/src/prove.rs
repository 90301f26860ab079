//! A kernel against its twin, and the proof that the comparison can fail.

use std::path::Path;

use crate::build::compiler;
use crate::kernels::Kernels;

/// What values of a kernel and of its twin may differ by, to be given to [`close`]: exponentials and the order of sums are others.
pub const FORWARD: f32 = 1e-5;
/// The same for gradients: sums of many such values.
pub const GRADIENT: f32 = 1e-4;

/// Compiles the source and runs `check` on it, which must find nothing; then once for each deliberate error, a piece of the text and
/// what stands in its place, which `check` must find. Where there is no C++ compiler it says why and does nothing.
///
/// # Panics
/// With what `check` found, or with the error that it did not find.
pub fn prove(source: &Path, errors: &[(&str, &str)], check: impl Fn(&Kernels) -> Result<(), String>) {
    if let Err(reason) = compiler() {
        println!("skipped: {reason}");
        return;
    }
    let right = Kernels::build(source).unwrap_or_else(|e| panic!("{e}"));
    if let Err(found) = check(&right) {
        panic!("{}: {found}", source.display());
    }
    for error in errors {
        let wrong = Kernels::build_with(source, &[*error]).unwrap_or_else(|e| panic!("{e}"));
        let found = check(&wrong);
        println!("{} for {}: {found:?}", error.1, error.0);
        assert!(found.is_err(), "{}: nothing notices {:?} in place of {:?}", source.display(), error.1, error.0);
    }
}

/// Whether `got` is `want` to within `tolerance` of the largest of `want` and 1, element by element.
///
/// # Errors
/// Where they first differ by more.
pub fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements for {}", got.len(), want.len()));
    }
    let scale = want.iter().filter(|w| w.is_finite()).fold(1f32, |m, w| m.max(w.abs()));
    let error = |i: usize| difference(f64::from(got[i]), f64::from(want[i])) / f64::from(scale);
    let first = (0..got.len()).map(|i| (i, error(i))).find(|(_, e)| *e > f64::from(tolerance));
    match first {
        None => Ok(()),
        Some((i, e)) => {
            Err(format!("{what}[{i}] of {}: {} for {}, off by {e:.2e} of {scale}", got.len(), got[i], want[i]))
        }
    }
}

/// [`close`] for one number.
///
/// # Errors
/// If they differ by more.
pub fn near(what: &str, got: f64, want: f64, tolerance: f32) -> Result<(), String> {
    let error = difference(got, want) / want.abs().max(1.0);
    if error.is_nan() || error > f64::from(tolerance) { Err(format!("{what}: {got} for {want}")) } else { Ok(()) }
}

/// How far apart two numbers are. What is infinite or no number on one side alone is infinitely far off.
fn difference(got: f64, want: f64) -> f64 {
    let error = (got - want).abs();
    if got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()) {
        0.0
    } else if error.is_nan() {
        f64::INFINITY
    } else {
        error
    }
}

/// Numbers that look drawn: from -1 to 1, the same for the same seed.
#[must_use]
pub fn drawn(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
