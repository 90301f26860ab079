//! The one place that calls the library's matrix product, for every crate.
//!
//! The library chooses its kernels when the program starts, by what the processor has: AVX-512 or AVX2 with FMA on x86-64, NEON
//! on aarch64. A kernel of another width may block its sums otherwise, so numbers may differ by rounding between processors.
//! `HARNESS_ISA=avx2` keeps every product to the narrower kernels; [`InstructionSet::in_use`] says which ones run, and results
//! store it.

use std::str::FromStr;
use std::sync::OnceLock;

use gemm::Parallelism;

use crate::performed;

/// Names an instruction set to keep to: `avx2`, or `avx512` (which is an error where the processor lacks it).
pub const ISA_VARIABLE: &str = "HARNESS_ISA";

/// The vector instructions that matrix products use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// x86-64 with AVX-512 (foundation).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64's vectors.
    Neon,
    /// One number at a time.
    Scalar,
}

impl InstructionSet {
    /// Name in files and in [`ISA_VARIABLE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    /// The widest that this processor has, which is what the library takes.
    #[must_use]
    pub fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                Self::Avx512
            } else if std::arch::is_x86_feature_detected!("fma") {
                Self::Avx2
            } else {
                Self::Scalar
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if cfg!(target_arch = "aarch64") { Self::Neon } else { Self::Scalar }
    }

    /// What products run on in this process: the widest, unless [`ISA_VARIABLE`] asks for a narrower one.
    ///
    /// # Errors
    /// A sentence, if the variable names no instruction set, or one that cannot be kept to here.
    pub fn choose() -> Result<Self, String> {
        let widest = Self::widest();
        let Ok(asked) = std::env::var(ISA_VARIABLE) else { return Ok(widest) };
        match (asked.parse(), widest) {
            (Ok(asked), widest) if asked == widest => Ok(widest),
            (Ok(Self::Avx2), Self::Avx512) => Ok(Self::Avx2),
            (Ok(asked), widest) => Err(format!(
                "{ISA_VARIABLE}={}: this processor's products run on {}{}; unset the variable or choose that",
                asked.name(),
                widest.name(),
                if widest == Self::Avx512 { " or avx2" } else { "" },
            )),
            (Err(problem), _) => Err(format!("{ISA_VARIABLE}={asked}: {problem}")),
        }
    }

    /// [`InstructionSet::choose`], once for the process; the widest where the variable is no help.
    #[must_use]
    pub fn in_use() -> Self {
        static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::choose().unwrap_or_else(|_| Self::widest()))
    }
}

impl FromStr for InstructionSet {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar]
            .into_iter()
            .find(|set| set.name() == name)
            .ok_or_else(|| "expected avx512, avx2, neon or scalar".to_owned())
    }
}

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
        Self::strided(rows, columns, columns)
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
    #[must_use]
    pub fn extent(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// A destination for the library: first element and view, how much of what stands there is kept (0 overwrites without
/// reading).
type Destination<T> = (*mut T, View, T);

/// An element type that products are made in.
pub trait Element: Copy + PartialEq + Send + Sync + 'static {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// `dst ← keep · dst + a · b` by AVX2 kernels, whatever else the processor has.
    ///
    /// # Safety
    /// As for the library's product: the views lie within memory that is there, `dst` is nobody else's, and the processor
    /// has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn narrow(dst: Destination<Self>, a: (*const Self, View), b: (*const Self, View), parallelism: Parallelism);
}

macro_rules! element {
    ($type: ident, $library: ident, $lanes: literal) => {
        impl Element for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            #[cfg(target_arch = "x86_64")]
            unsafe fn narrow(
                (dst, dv, keep): Destination<Self>,
                a: (*const Self, View),
                b: (*const Self, View),
                parallelism: Parallelism,
            ) {
                use gemm_common::simd::MixedSimd;
                use $library::microkernel::fma::$type::{H_M, H_N, H_UKR, MR_DIV_N, NR, UKR};
                // the kernels want the destination's rows side by side: otherwise (a b)ᵀ = bᵀ aᵀ, as the library does it
                let turned = dv.column_stride < dv.row_stride;
                let (dv, (a, av), (b, bv)) = if turned { (dv.t(), (b.0, b.1.t()), (a.0, a.1.t())) } else { (dv, a, b) };
                let s = |x: usize| x as isize;
                let Some(simd) = <gemm_common::simd::V3 as MixedSimd<$type, $type, $type, $type>>::try_new() else {
                    unreachable!("chosen only where the processor has AVX2 and FMA")
                };
                // SAFETY: as the caller says.
                unsafe {
                    gemm_common::gemm::gemm_basic_generic::<
                        _,
                        $type,
                        $lanes,
                        { MR_DIV_N * $lanes },
                        NR,
                        MR_DIV_N,
                        H_M,
                        H_N,
                    >(
                        simd,
                        dv.rows,
                        dv.columns,
                        av.columns,
                        dst,
                        s(dv.column_stride),
                        s(dv.row_stride),
                        keep != 0.0,
                        a,
                        s(av.column_stride),
                        s(av.row_stride),
                        b,
                        s(bv.column_stride),
                        s(bv.row_stride),
                        keep,
                        1.0,
                        false,
                        false,
                        false,
                        |a, b, c| a * b + c,
                        &UKR,
                        &H_UKR,
                        false,
                        parallelism,
                    );
                }
            }
        }
    };
}

element!(f32, gemm_f32, 8);
element!(f64, gemm_f64, 4);

/// `dst ← keep · dst + a · b` on the calling thread. `keep = 0` overwrites without reading.
///
/// # Panics
/// If a slice is shorter than its view or the views do not chain: a bug in the caller, never bad input.
pub fn matmul<T: Element>((values, view): (&mut [T], View), a: (&[T], View), b: (&[T], View), keep: T) {
    assert!(values.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: the view lies within its slice, which is borrowed mutably, so that it overlaps neither operand.
    unsafe { product((values.as_mut_ptr(), view, keep), a, b, Parallelism::None, InstructionSet::in_use()) }
}

/// `a · b` into a new row-major matrix, on all threads. Threads split the result, never a sum.
///
/// # Panics
/// As [`matmul`].
pub fn par_matmul<T: Element>(a: (&[T], View), b: (&[T], View)) -> Vec<T> {
    let view = View::new(a.1.rows, b.1.columns);
    let len = view.rows * view.columns;
    let mut dst = Vec::with_capacity(len);
    if a.1.columns == 0 || view.rows == 1 || view.columns == 1 {
        dst.resize(len, T::ZERO); // an empty sum writes nothing, and the library takes a vector as a slice
    }
    // SAFETY: there is room for the view, nobody else has it, and of a matrix the product of one term or more writes every
    // element without reading one.
    unsafe {
        product((dst.as_mut_ptr(), view, T::ZERO), a, b, Parallelism::Rayon(0), InstructionSet::in_use());
        dst.set_len(len);
    }
    dst
}

/// Adds `a · b` to a row-major matrix, on all threads. Threads split the result, never a sum.
///
/// # Panics
/// As [`matmul`].
pub fn par_matmul_add<T: Element>(dst: &mut [T], a: (&[T], View), b: (&[T], View)) {
    let view = View::new(a.1.rows, b.1.columns);
    assert!(dst.len() >= view.extent(), "view exceeds its slice");
    // SAFETY: as in `matmul`.
    unsafe { product((dst.as_mut_ptr(), view, T::ONE), a, b, Parallelism::Rayon(0), InstructionSet::in_use()) }
}

/// `dst ← keep · dst + a · b`.
///
/// # Safety
/// The destination's view must lie within memory that nobody else reads or writes meanwhile, and that holds values if they are
/// kept.
unsafe fn product<T: Element>(
    dst: Destination<T>,
    (a, av): (&[T], View),
    (b, bv): (&[T], View),
    parallelism: Parallelism,
    set: InstructionSet,
) {
    let dv = dst.1;
    // Only a bug in a caller of this crate can break these: shapes that users give are checked before.
    assert!(av.columns == bv.rows && dv.rows == av.rows && dv.columns == bv.columns, "{dv:?} = {av:?} · {bv:?}");
    assert!(a.len() >= av.extent() && b.len() >= bv.extent(), "view exceeds its slice");
    performed::note(dv.rows * dv.columns * av.columns);
    #[cfg(target_arch = "x86_64")]
    if set == InstructionSet::Avx2 {
        // SAFETY: the operands' views lie within their slices (asserted above), the destination's as the caller says, and
        // AVX2 is in use only where the processor has it.
        unsafe { T::narrow(dst, (a.as_ptr(), av), (b.as_ptr(), bv), parallelism) };
        return;
    }
    let _ = set; // elsewhere the library has one kind of kernel
    let (dst, _, keep) = dst;
    let s = |x: usize| x as isize;
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            dv.rows,
            dv.columns,
            av.columns,
            dst,
            s(dv.column_stride),
            s(dv.row_stride),
            keep != T::ZERO,
            a.as_ptr(),
            s(av.column_stride),
            s(av.row_stride),
            b.as_ptr(),
            s(bv.column_stride),
            s(bv.row_stride),
            keep,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Runs one product on the calling thread and on every other: the library keeps half a megabyte for packing on each from its
/// first product on, and whether a thread comes to its first sooner or later is chance. Afterwards memory is what it stays.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn operands(m: usize, n: usize, k: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let wave = |len: usize, step: f64| (0..len).map(|i| (i as f64 * step).sin()).collect();
        (wave(m * k, 0.7), wave(k * (n + 2), 1.3), wave(m * n, 0.3))
    }

    /// Plain, transposed and strided views, of every kind of kernel that this processor has.
    #[test]
    fn equals_the_triple_loop_in_every_instruction_set() {
        let narrower = (InstructionSet::widest() == InstructionSet::Avx512).then_some(InstructionSet::Avx2);
        for set in [Some(InstructionSet::widest()), narrower].into_iter().flatten() {
            for (m, n, k) in [(5, 7, 3), (1, 9, 4), (33, 1, 17), (130, 70, 65), (0, 3, 2)] {
                let (a, b, start) = operands(m, n, k);
                for keep in [0.0, 1.0, 0.5] {
                    for (dv, at) in [(View::new(m, n), (n, 1)), (View::new(n, m).t(), (1, m))] {
                        let mut dst = start.clone();
                        let (av, bv) = (View::new(k, m).t(), View::strided(k, n, n + 2));
                        // SAFETY: the view covers the whole of its vector.
                        unsafe {
                            product((dst.as_mut_ptr(), dv, keep), (&a, av), (&b, bv), Parallelism::None, set);
                        }
                        for (r, c) in (0..m).flat_map(|r| (0..n).map(move |c| (r, c))) {
                            let i = r * at.0 + c * at.1;
                            let sum: f64 = (0..k).map(|l| a[l * m + r] * b[l * (n + 2) + c]).sum();
                            let want = keep * start[i] + sum;
                            // k ≤ 65 terms of at most 1, rounded to 2⁻⁵³ each
                            assert!((dst[i] - want).abs() < 1e-13, "{set:?} {m}×{n}×{k} at {r}, {c}: {}", dst[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_on_all_threads_equal_those_on_one() {
        let (m, n, k) = (130, 70, 65);
        let (a, b, start) = operands(m, n, k);
        let (a, b) = ((&a[..], View::new(m, k)), (&b[..], View::new(k, n)));
        let mut one = vec![0.0; m * n];
        matmul((&mut one, View::new(m, n)), a, b, 0.0);
        assert_eq!(par_matmul(a, b), one);
        let (mut sum, mut par_sum) = (start.clone(), start);
        matmul((&mut sum, View::new(m, n)), a, b, 1.0);
        par_matmul_add(&mut par_sum, a, b);
        assert_eq!(par_sum, sum);
    }

    #[test]
    fn an_instruction_set_has_one_name() {
        for set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Neon, InstructionSet::Scalar] {
            assert_eq!(set.name().parse(), Ok(set));
        }
        assert!("sse9".parse::<InstructionSet>().is_err_and(|e| e.contains("avx2")));
    }
}
