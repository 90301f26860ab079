//! Traces with a decay per head (Mamba-2). All three kinds of trace share the right-hand side `Ψ`, and their rows come from
//! the same walk through the chunk's states; what is left is `E ← Π · E + Sᵀ Ψ` for few rows of `S` at a time. A library's
//! product would pack `S` and `Ψ` anew for every head, which for matrices this thin costs as much as the product.

use learner::performed;

use super::{Side, StepCredit, Traces};
use crate::kernels::lanes::{FIRST_LEVEL, LANES, Lane, load, prefetch, store};
use crate::kernels::scan::{ScanTape, Scratch, Span, Step, softplus_slope};
use crate::kernels::{Dims, Real};

/// Two blocks of columns: what a tile of the product is wide.
pub(in crate::kernels) type Wide<T> = [Lane<T>; 2];

/// Columns of a tile.
const COLUMNS: usize = 2 * LANES;

/// Rows of a tile: with two registers of columns, eight sums hide the latency of a fused multiply–add.
const ROWS: usize = LANES / 2;

/// Tiles of `Ψ` that all rows are taken through before the next: 8 KiB at 32 steps, which stay in the first-level cache.
const RESIDENT: usize = 4;

/// Sources of the traces of one head, step by step, eight rows to a block.
#[derive(Clone, Debug, Default)]
pub(in crate::kernels) struct Sources<T> {
    /// Of `W_u`: rows are states `[N / 8, K]`.
    u: Vec<Lane<T>>,
    /// Of `W_B`: rows are channels `[P / 8, K]`.
    b: Vec<Lane<T>>,
    /// Of `W_Δ`, for one state: rows are channels `[2, K]`.
    delta: Vec<Lane<T>>,
    /// `ψ` of all inputs `[J / 16, K]`.
    psi: Vec<Wide<T>>,
    /// `ψ` of the inputs to the step size, where they are some.
    psi_delta: Vec<Wide<T>>,
    /// The same two for each right-hand side beside `ψ`.
    sides: Vec<[Vec<Wide<T>>; 2]>,
    times: Vec<Step<T>>,
}

/// `Ψ` of one stream, tile by tile `[columns / 16, K]`: inputs `from .. from + columns`.
fn gather<T: Real>(psi: &[T], row: usize, from: usize, columns: usize, steps: usize, out: &mut Vec<Wide<T>>) {
    out.clear();
    for at in (0..columns).step_by(COLUMNS) {
        let widths = halves(columns - at);
        out.extend((0..steps).map(|t| {
            let at = t * row + from + at;
            [load(psi, at, widths[0]), load(psi, at + widths[0], widths[1])]
        }));
    }
}

/// Widths of the two registers of a tile that `left` columns remain for.
fn halves(left: usize) -> [usize; 2] {
    [left.min(LANES), left.saturating_sub(LANES).min(LANES)]
}

/// Advances the traces of stream `b`, and `tape.h0` with them.
pub(super) fn advance<T: Real>(
    dims: &Dims,
    span: Span,
    tape: &mut ScanTape<T>,
    psi: &[T],
    b: usize,
    traces: &mut Traces<T>,
    sides: &mut [Side<'_, T>],
    mut credit: Option<StepCredit<T>>,
    scratch: &mut Scratch<T>,
) {
    let &Dims { inputs: j, channels: d, state: n, heads, delta_inputs: jd, .. } = dims;
    let (p, Span { streams, steps, .. }) = (dims.per_head(), span);
    let Sources { u, b: s_b, delta: s_delta, psi: all, psi_delta, sides: tiles, times } = &mut scratch.sources;
    let psi = &psi[b * j..];
    let products = heads * (n * j + p * j + n * p * jd);
    performed::note((1 + sides.len()) * steps * products + if credit.is_some() { n * d * jd } else { 0 });
    let none = [T::zero(); LANES];
    gather(psi, streams * j, 0, j, steps, all);
    tiles.resize_with(sides.len(), Default::default);
    for (side, [all, _]) in sides.iter().zip(&mut *tiles) {
        gather(&side.rhs[b * j..], streams * j, 0, j, steps, all);
    }
    u.resize(n.div_ceil(LANES) * steps, none);
    s_b.resize(p.div_ceil(LANES) * steps, none);
    s_delta.resize(2 * steps, none);
    times.resize(steps, Step::default());
    for h in 0..heads {
        let left = coefficients(dims, span, tape, (b, h), times);
        shared_sources(dims, span, tape, (b, h), times, u, s_b);
        let group = if jd == j {
            &*all
        } else {
            gather(psi, streams * j, dims.delta_offset(h), jd, steps, psi_delta);
            &*psi_delta
        };
        if jd < j {
            for (side, [_, group]) in sides.iter().zip(&mut *tiles) {
                gather(&side.rhs[b * j..], streams * j, dims.delta_offset(h), jd, steps, group);
            }
        }
        for k in 0..n {
            for from in (0..p).step_by(COLUMNS) {
                let lens = halves(p - from);
                let (at, factors) = ((b, h, k, from), (&times[..], left));
                if lens == [LANES; 2] {
                    step_sources::<T, true>(dims, span, tape, traces, at, lens, factors, s_delta);
                } else {
                    step_sources::<T, false>(dims, span, tape, traces, at, lens, factors, s_delta);
                }
                let at = k * d + h * p + from;
                let factors =
                    credit.as_ref().map(|c| [load(c.adjoint, at, lens[0]), load(c.adjoint, at + lens[0], lens[1])]);
                let sums = credit.as_mut().map(|c| &mut c.delta[h * jd..][..jd]);
                let credit = factors.as_ref().zip(sums).map(|(factors, sums)| (&factors[..], sums));
                let rows = &mut traces.delta[((h * n + k) * p + from) * jd..][..(lens[0] + lens[1]) * jd];
                advance_rows(rows, jd, left, s_delta, group, steps, credit);
                for (Side { traces, .. }, [all, group]) in sides.iter_mut().zip(&*tiles) {
                    let rows = &mut traces.delta[((h * n + k) * p + from) * jd..][..(lens[0] + lens[1]) * jd];
                    advance_rows(rows, jd, left, s_delta, if jd < j { group } else { all }, steps, None);
                }
            }
        }
        advance_rows(&mut traces.u[h * n * j..][..n * j], j, left, u, all, steps, None);
        advance_rows(&mut traces.b[h * p * j..][..p * j], j, left, s_b, all, steps, None);
        for (Side { traces, .. }, [all, _]) in sides.iter_mut().zip(&*tiles) {
            advance_rows(&mut traces.u[h * n * j..][..n * j], j, left, u, all, steps, None);
            advance_rows(&mut traces.b[h * p * j..][..p * j], j, left, s_b, all, steps, None);
        }
    }
}

/// Factors of each step of head `h`; returns what is left of a trace at the chunk's end, the product of all decays.
fn coefficients<T: Real>(
    dims: &Dims,
    span: Span,
    tape: &ScanTape<T>,
    (b, h): (usize, usize),
    times: &mut [Step<T>],
) -> T {
    let mut left = T::one(); // Π of the decays after a step
    for (t, step) in times.iter_mut().enumerate().rev() {
        let at = (t * span.streams + b) * dims.heads + h;
        let (delta, a, rate) = (tape.delta[at], tape.a[at], tape.rates_at(dims, span.lag, t)[h]);
        let weight = left * delta;
        *step = Step {
            a,
            delta,
            weight,
            decay: -rate * a,                    // ∂a/∂Δ
            slope: softplus_slope(delta) * left, // times what is left of it at the chunk's end
            weighted_decay: -weight * rate * a,
        };
        left *= a;
    }
    left
}

/// Sources of the traces of `W_u` (`Δ B_n`) and of `W_B` (`Δ u_d`) of head `h`.
fn shared_sources<T: Real>(
    dims: &Dims,
    span: Span,
    tape: &ScanTape<T>,
    (b, h): (usize, usize),
    times: &[Step<T>],
    s_u: &mut [Lane<T>],
    s_b: &mut [Lane<T>],
) {
    let (p, width, steps) = (dims.per_head(), dims.projected(), span.steps);
    for (out, first, count) in [(s_u, dims.channels, dims.state), (s_b, h * p, p)] {
        for (block, out) in out.chunks_exact_mut(steps).enumerate() {
            let (at, len) = (block * LANES, LANES.min(count - block * LANES));
            for (t, (out, step)) in out.iter_mut().zip(times).enumerate() {
                *out = load(&tape.p, (t * span.streams + b) * width + first + at, len);
                for x in out {
                    *x *= step.weight;
                }
            }
        }
    }
}

/// Sources of the traces of `W_Δ`, for state `k` of two blocks of channels from `from` on: walks through the chunk's states
/// again. Advances the traces of `b_Δ` and `A_log` and the state itself. Two blocks at once, since each waits for its own
/// state of the step before.
fn step_sources<T: Real, const WHOLE: bool>(
    dims: &Dims,
    span: Span,
    tape: &mut ScanTape<T>,
    traces: &mut Traces<T>,
    (b, h, k, from): (usize, usize, usize, usize),
    lens: [usize; 2],
    (times, left): (&[Step<T>], T),
    out: &mut [Lane<T>],
) {
    let &Dims { channels: d, state: n, .. } = dims;
    let (p, width) = (dims.per_head(), dims.projected());
    let [len_a, len_b] = lens;
    let (at_a, at_b) = (k * d + h * p + from, k * d + h * p + from + len_a);
    let h0 = b * n * d;
    let (mut state_a, mut state_b) =
        (get::<T, WHOLE>(&tape.h0, h0 + at_a, len_a), get::<T, WHOLE>(&tape.h0, h0 + at_b, len_b));
    let (mut bias_a, mut bias_b) =
        (get::<T, WHOLE>(&traces.bias, at_a, len_a), get::<T, WHOLE>(&traces.bias, at_b, len_b));
    let (mut a_log_a, mut a_log_b) =
        (get::<T, WHOLE>(&traces.a_log, at_a, len_a), get::<T, WHOLE>(&traces.a_log, at_b, len_b));
    for trace in [&mut bias_a, &mut bias_b, &mut a_log_a, &mut a_log_b] {
        for i in 0..LANES {
            trace[i] *= left;
        }
    }
    let (out_a, out_b) = out.split_at_mut(times.len());
    for (t, ((step, out_a), out_b)) in times.iter().zip(out_a).zip(out_b).enumerate() {
        let row = (t * span.streams + b) * width;
        let bk = tape.p[row + d + k];
        let u = row + h * p + from;
        let (u_a, u_b) = (get::<T, WHOLE>(&tape.p, u, len_a), get::<T, WHOLE>(&tape.p, u + len_a, len_b));
        *out_a = one_step(step, bk, &u_a, &mut state_a, &mut bias_a, &mut a_log_a);
        *out_b = one_step(step, bk, &u_b, &mut state_b, &mut bias_b, &mut a_log_b);
    }
    for (at, len, state, bias, a_log) in
        [(at_a, len_a, state_a, bias_a, a_log_a), (at_b, len_b, state_b, bias_b, a_log_b)]
    {
        put::<T, WHOLE>(&mut tape.h0, h0 + at, len, &state);
        put::<T, WHOLE>(&mut traces.bias, at, len, &bias);
        put::<T, WHOLE>(&mut traces.a_log, at, len, &a_log);
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "the state stays in registers")]
fn one_step<T: Real>(
    step: &Step<T>,
    bk: T,
    u: &Lane<T>,
    state: &mut Lane<T>,
    bias: &mut Lane<T>,
    a_log: &mut Lane<T>,
) -> Lane<T> {
    let mut out = [T::zero(); LANES];
    for i in 0..LANES {
        out[i] = step.slope * step.decay.mul_add(state[i], bk * u[i]);
    }
    for i in 0..LANES {
        bias[i] += out[i];
    }
    for i in 0..LANES {
        a_log[i] = step.weighted_decay.mul_add(state[i], a_log[i]);
    }
    for i in 0..LANES {
        state[i] = step.a.mul_add(state[i], bk * (step.delta * u[i])); // as the forward pass rounds it
    }
    out
}

/// `E ← left · E + Sᵀ Ψ` for rows `[R, columns]`, with their `S` in blocks of eight `[R / 8, K]` and `Ψ` in tiles
/// `[columns / 16, K]`. With `credit`, a factor for each row in blocks of eight and sums `[columns]`, adds the rows as they
/// stood before.
fn advance_rows<T: Real>(
    rows: &mut [T],
    columns: usize,
    left: T,
    s: &[Lane<T>],
    psi: &[Wide<T>],
    steps: usize,
    mut credit: Option<(&[Lane<T>], &mut [T])>,
) {
    for (chunk, psi) in psi.chunks(RESIDENT * steps).enumerate() {
        let from = chunk * RESIDENT * COLUMNS;
        for (block, (rows, s)) in rows.chunks_mut(LANES * columns).zip(s.chunks_exact(steps)).enumerate() {
            let mut credit = credit.as_mut().map(|(factors, sums)| (factors[block], &mut **sums));
            if rows.len() == LANES * columns && columns.is_multiple_of(COLUMNS) {
                let (first, second) = rows.split_at_mut(ROWS * columns);
                advance_four::<T, 0, true>(first, (from, columns), left, s, psi, &mut credit);
                advance_four::<T, ROWS, true>(second, (from, columns), left, s, psi, &mut credit);
            } else {
                let (first, second) = rows.split_at_mut((ROWS * columns).min(rows.len()));
                advance_four::<T, 0, false>(first, (from, columns), left, s, psi, &mut credit);
                advance_four::<T, ROWS, false>(second, (from, columns), left, s, psi, &mut credit);
            }
        }
    }
}

/// [`advance_rows`] for up to four rows, whose factors start at `FIRST`, and the tiles of columns in `psi`, from `from` on.
/// Loops of fixed length over single registers, so that the sums stay in them; `WHOLE` tiles of four rows come without the
/// branches that others need, which take as long as the products.
#[inline(always)]
#[allow(clippy::inline_always, reason = "FIRST becomes part of the addresses")]
fn advance_four<T: Real, const FIRST: usize, const WHOLE: bool>(
    rows: &mut [T],
    (from, columns): (usize, usize),
    left: T,
    s: &[Lane<T>],
    psi: &[Wide<T>],
    credit: &mut Option<(Lane<T>, &mut [T])>,
) {
    let (len, zero) = (if WHOLE { ROWS } else { rows.len() / columns }, [T::zero(); LANES]);
    for (at, psi) in (from..columns).step_by(COLUMNS).zip(psi.chunks_exact(s.len())) {
        let [width, width_b] = if WHOLE { [LANES; 2] } else { halves(columns - at) };
        let at_b = at + width;
        let (mut a, mut b) = ([zero; ROWS], [zero; ROWS]);
        for r in 0..ROWS {
            if r < len {
                a[r] = get::<T, WHOLE>(rows, r * columns + at, width);
                b[r] = get::<T, WHOLE>(rows, r * columns + at_b, width_b);
            }
        }
        if let Some((factors, sums)) = credit {
            let mut sum_a = get::<T, WHOLE>(sums, at, width);
            let mut sum_b = get::<T, WHOLE>(sums, at_b, width_b);
            for r in 0..ROWS {
                for i in 0..LANES {
                    sum_a[i] = factors[FIRST + r].mul_add(a[r][i], sum_a[i]);
                }
                for i in 0..LANES {
                    sum_b[i] = factors[FIRST + r].mul_add(b[r][i], sum_b[i]);
                }
            }
            put::<T, WHOLE>(sums, at, width, &sum_a);
            put::<T, WHOLE>(sums, at_b, width_b, &sum_b);
        }
        for r in 0..ROWS {
            // a tile takes about as long as a line takes to come from the third-level cache, where the traces live, and its loads
            // start only when the one before is nearly done
            prefetch::<FIRST_LEVEL, T>(rows, (ROWS + r) * columns + at); // the same columns of the next four rows
            for i in 0..LANES {
                a[r][i] *= left;
            }
            for i in 0..LANES {
                b[r][i] *= left;
            }
        }
        for (s, psi) in s.iter().zip(psi) {
            for r in 0..ROWS {
                for i in 0..LANES {
                    a[r][i] = s[FIRST + r].mul_add(psi[0][i], a[r][i]);
                }
                for i in 0..LANES {
                    b[r][i] = s[FIRST + r].mul_add(psi[1][i], b[r][i]);
                }
            }
        }
        for r in 0..ROWS {
            if r < len {
                put::<T, WHOLE>(rows, r * columns + at, width, &a[r]);
                put::<T, WHOLE>(rows, r * columns + at_b, width_b, &b[r]);
            }
        }
    }
}

/// [`load`]; of a whole block without a way for others.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the block stays in a register")]
fn get<T: Real, const WHOLE: bool>(v: &[T], at: usize, len: usize) -> Lane<T> {
    if WHOLE { std::array::from_fn(|i| v[at..at + LANES][i]) } else { load(v, at, len) }
}

/// [`store`]; of a whole block without a way for others.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for get")]
fn put<T: Real, const WHOLE: bool>(v: &mut [T], at: usize, len: usize, x: &Lane<T>) {
    if WHOLE { v[at..at + LANES].copy_from_slice(x) } else { store(v, at, len, x) }
}
