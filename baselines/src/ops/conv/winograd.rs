//! Convolutions without stride by fewer products: two outputs that lie one dilation apart share some (Winograd 1980; Lavin &
//! Gray 2016, F(2, 3), and F(2, 2) for two taps that are left). Three taps take four products for two outputs instead of
//! six, five taps seven instead of ten.
//!
//! Of a pair with the first output at `t`, products are added to the first, to the second, to both, or to the first and from
//! the second. Those of the latter two see only what both outputs see, so that no output depends on a step, not even by its
//! rounding, that it does not see.

use rayon::prelude::*;

use super::{Dims, FusedConv};
use crate::kernels::{Keep, Panels, View, fma, matmul, multiply, par_filled};
use crate::ops::add;
use crate::scratch::Scratch;

/// Pairs that one task works on, or as many as a dilation has steps: few enough for their sums to stay in the cache.
const PAIRS_PER_TASK: usize = 64;
/// Pairs whose products make the gradient of the weights at a time: bounds the memory that they are laid out in.
const PAIRS_AT_ONCE: usize = 2048;
/// Rows of the weights whose gradient one task computes.
const WEIGHTS_PER_TASK: usize = 128;
/// Output steps from which on it is worth to make the weights of the products.
const ENOUGH_STEPS: usize = 512;

/// What a product is added to.
#[derive(Clone, Copy)]
enum To {
    First,
    Second,
    Both,
    /// Added to the first output, subtracted from the second.
    Difference,
}

impl To {
    const ALL: [Self; 4] = [Self::First, Self::Second, Self::Both, Self::Difference];

    /// What of the two outputs' gradients comes back to it.
    fn back(self) -> Read {
        match self {
            Self::First => Read(0, None),
            Self::Second => Read(1, None),
            Self::Both => Read(0, Some((1, 1.0))),
            Self::Difference => Read(0, Some((1, -1.0))),
        }
    }
}

/// A step, and another one times a factor that is added to it. Steps count dilations from where the pair begins.
struct Read(usize, Option<(usize, f32)>);

impl Read {
    /// Writes it for a block of pairs, of which as many lie side by side as a dilation has steps and the first begins at `at`.
    fn write(&self, rows: &Rows, at: isize, out: &mut [f32]) {
        let dilation = (out.len() / rows.width) as isize;
        let at = |step: usize| at + step as isize * dilation;
        let Some((other, factor)) = self.1 else {
            return rows.copy(at(self.0), out);
        };
        if let (Some(a), Some(b)) = (rows.get(at(self.0), dilation), rows.get(at(other), dilation)) {
            out.iter_mut().zip(a).zip(b).for_each(|((o, &a), &b)| *o = fma(factor, b, a));
            return;
        }
        let mut b = Scratch::of(out.len());
        rows.copy(at(self.0), out);
        rows.copy(at(other), &mut b);
        out.iter_mut().zip(b.iter()).for_each(|(o, &b)| *o = fma(factor, b, *o));
    }
}

/// One product of every pair of outputs.
struct Term {
    /// What it multiplies, from what the first output sees first.
    input: Read,
    /// Taps and their factors in the weights that it is multiplied with.
    weights: Vec<(usize, f32)>,
    to: To,
}

impl Term {
    fn new(input: Read, weights: &[(usize, f32)], to: To) -> Self {
        Self { input, weights: weights.to_vec(), to }
    }

    /// The products for so many taps: by three, then what is left.
    fn all(taps: usize) -> Vec<Self> {
        let less = |step, other| Read(step, Some((other, -1.0)));
        let mut terms = Vec::new();
        for a in (0..taps).step_by(3) {
            let (b, c, d) = (a + 1, a + 2, a + 3);
            terms.extend(match taps - a {
                1 => vec![
                    Self::new(Read(a, None), &[(a, 1.0)], To::First),
                    Self::new(Read(b, None), &[(a, 1.0)], To::Second),
                ],
                2 => vec![
                    Self::new(less(a, b), &[(a, 1.0)], To::First),
                    Self::new(Read(b, None), &[(a, 1.0), (b, 1.0)], To::Both),
                    Self::new(less(c, b), &[(b, 1.0)], To::Second),
                ],
                _ => vec![
                    Self::new(less(a, c), &[(a, 1.0)], To::First),
                    Self::new(Read(b, Some((c, 1.0))), &[(a, 0.5), (b, 0.5), (c, 0.5)], To::Both),
                    Self::new(less(c, b), &[(a, 0.5), (b, -0.5), (c, 0.5)], To::Difference),
                    Self::new(less(d, b), &[(c, 1.0)], To::Second),
                ],
            });
        }
        terms
    }
}

/// Steps of one stream; beside them are zeros.
struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    /// `count` steps, if they are all there.
    fn get(&self, from: isize, count: isize) -> Option<&'a [f32]> {
        let width = self.width as isize;
        let (from, to) = (usize::try_from(from * width).ok()?, usize::try_from((from + count) * width).ok()?);
        self.values.get(from..to)
    }

    /// The steps from `from` on that `out` has room for.
    fn copy(&self, from: isize, out: &mut [f32]) {
        let from = from * self.width as isize;
        let before = out.len().min(usize::try_from(-from).unwrap_or(0));
        let (zeros, out) = out.split_at_mut(before);
        zeros.fill(0.0);
        let there = self.values.get(usize::try_from(from).unwrap_or(0)..).unwrap_or(&[]);
        let there = &there[..there.len().min(out.len())];
        let (out, zeros) = out.split_at_mut(there.len());
        out.copy_from_slice(there);
        zeros.fill(0.0);
    }
}

/// A convolution in this form, one way or the other.
struct Pairs {
    terms: Vec<Term>,
    /// Weights of each, `[inputs, outputs]`.
    weights: Vec<Panels>,
    inputs: usize,
    outputs: usize,
    dilation: usize,
    /// Where the first output's first input is.
    base: isize,
}

impl Pairs {
    fn forward(d: &Dims, w: &[f32]) -> Self {
        let view = View::new(d.inputs, d.outputs);
        Self::new(d, (d.inputs, d.outputs), 0, |tap| (&w[tap * d.inputs * d.outputs..], view))
    }

    /// From outputs to inputs: with the taps in the other order and their weights on their side.
    fn backward(d: &Dims, w: &[f32]) -> Self {
        let base = d.left as isize - ((d.taps - 1) * d.dilation) as isize;
        let view = View::new(d.inputs, d.outputs).t();
        Self::new(d, (d.outputs, d.inputs), base, |tap| (&w[(d.taps - 1 - tap) * d.inputs * d.outputs..], view))
    }

    fn new<'a>(
        d: &Dims,
        (inputs, outputs): (usize, usize),
        base: isize,
        tap: impl Fn(usize) -> (&'a [f32], View) + Sync,
    ) -> Self {
        let terms = Term::all(d.taps);
        let of_term = |term: &Term| {
            if let [(only, 1.0)] = term.weights[..] {
                return Panels::of(tap(only));
            }
            let mut sum = Scratch::zeros(inputs * outputs);
            let mut view = View::new(inputs, outputs);
            for &(index, factor) in &term.weights {
                let (w, of_tap) = tap(index);
                view = of_tap;
                sum.iter_mut().zip(w).for_each(|(sum, &w)| *sum = fma(factor, w, *sum));
            }
            Panels::of((&sum, view))
        };
        let weights = terms.par_iter().map(of_term).collect();
        Self { terms, weights, inputs, outputs, dilation: d.dilation, base }
    }

    /// Overwrites `out`, steps from `first` on of streams of `steps` steps each, of which `stream` gives what they see.
    fn convolve<'a>(&self, (steps, first): (usize, usize), stream: impl Fn(usize) -> Rows<'a>, out: &mut [f32]) {
        let Self { inputs, outputs, dilation, base, .. } = *self;
        let block = 2 * dilation * outputs;
        let blocks: usize = out.chunks(steps * outputs).map(|of_stream| of_stream.len().div_ceil(block)).sum();
        let pairs = blocks * dilation;
        let mut seen = Scratch::of(pairs * inputs);
        let mut sums = To::ALL.map(|_| Scratch::of(pairs * outputs));
        let mut begun = To::ALL.map(|_| false);
        for (term, weights) in self.terms.iter().zip(&self.weights) {
            let mut to = seen.chunks_exact_mut(dilation * inputs);
            for (index, of_stream) in out.chunks(steps * outputs).enumerate() {
                let rows = stream(index);
                let firsts = (first..).step_by(2 * dilation).take(of_stream.len().div_ceil(block));
                firsts.zip(&mut to).for_each(|(t, to)| term.input.write(&rows, t as isize + base, to));
            }
            let keep = if begun[term.to as usize] { Keep::Sum } else { Keep::Nothing };
            begun[term.to as usize] = true;
            let sum = (&mut *sums[term.to as usize], View::new(pairs, outputs));
            multiply(sum, (&seen, View::new(pairs, inputs)), weights, keep);
        }
        // Only a bug in this crate can break this: three taps or more add to all of them.
        assert_eq!(begun, [true; To::ALL.len()], "a sum that nothing was written to");
        let half = dilation * outputs;
        let [firsts, seconds, both, differences] = sums.each_ref().map(|sum| sum.chunks_exact(half));
        let sums = firsts.zip(seconds).zip(both.zip(differences));
        let out = out.chunks_mut(steps * outputs).flat_map(|of_stream| of_stream.chunks_mut(block));
        for (out, ((a, b), (s, d))) in out.zip(sums) {
            let (first, second) = out.split_at_mut(half.min(out.len()));
            first.iter_mut().zip(a).zip(s).zip(d).for_each(|(((y, &a), &s), &d)| *y = a + (s + d));
            second.iter_mut().zip(b).zip(s).zip(d).for_each(|(((y, &b), &s), &d)| *y = b + (s - d));
        }
    }
}

impl Dims {
    /// Whether this form is the faster one: enough steps for the weights to be worth making, and few pairs that are not whole.
    pub(super) fn in_pairs(&self) -> bool {
        let whole = self.steps.next_multiple_of(2 * self.dilation);
        self.stride == 1 && self.taps >= 3 && self.streams * self.steps >= ENOUGH_STEPS && 5 * whole <= 6 * self.steps
    }

    /// Streams that are worked on together, if one is short.
    fn together(&self) -> usize {
        (2 * PAIRS_PER_TASK / self.steps).clamp(1, self.streams)
    }
}

impl FusedConv {
    /// Steps `[B, K, width]` of each of which `fill` writes some: those of one stream from a step on, or all of several
    /// streams. It is given the first stream and step.
    fn in_tasks(&self, width: usize, fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Vec<f32> {
        let Dims { streams, steps, dilation, .. } = self.dims;
        let together = self.dims.together();
        let per_task = (PAIRS_PER_TASK / dilation).max(1) * 2 * dilation;
        let groups = (0..streams.div_ceil(together)).into_par_iter();
        par_filled(streams * steps * width, together * steps * width, groups, |group, out, _| {
            if together > 1 {
                return fill(group * together, 0, out);
            }
            let tasks = out.par_chunks_mut(per_task * width).enumerate();
            tasks.for_each(|(task, out)| fill(group, task * per_task, out));
        })
    }

    pub(super) fn forward_in_pairs(&self, padded: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
        let Dims { steps, inputs, outputs, ref lengths, .. } = self.dims;
        let pairs = Pairs::forward(&self.dims, w);
        let per_stream = self.dims.padded_len();
        self.in_tasks(outputs, |stream, first, y| {
            let rows = |i: usize| Rows { values: &padded[(stream + i) * per_stream..][..per_stream], width: inputs };
            pairs.convolve((steps, first), rows, y);
            for (y, &length) in y.chunks_mut(steps * outputs).zip(&lengths[stream..]) {
                let (there, beyond) = y.split_at_mut(y.len().min(length.saturating_sub(first) * outputs));
                there.chunks_exact_mut(outputs).for_each(|y| add(y, b));
                beyond.fill(0.0);
            }
        })
    }

    pub(super) fn input_gradient_in_pairs(&self, x: &[f32], w: &[f32], padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let Dims { steps, inputs, outputs, ref lengths, .. } = self.dims;
        let pairs = Pairs::backward(&self.dims, w);
        self.in_tasks(inputs, |stream, first, dx| {
            let mut d = Scratch::of(dx.len());
            let rows = |i: usize| Rows {
                values: &dy[(stream + i) * steps * outputs..][..lengths[stream + i] * outputs],
                width: outputs,
            };
            pairs.convolve((steps, first), rows, &mut d);
            for (i, (dx, d)) in dx.chunks_mut(steps * inputs).zip(d.chunks_mut(steps * inputs)).enumerate() {
                self.through_preparation((x, padded), (stream + i, first), d, dx);
            }
        })
    }

    /// Gradient of `w`: every task sums over the pairs in order.
    pub(super) fn weight_gradient_in_pairs(&self, padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let Dims { streams, steps, inputs, outputs, taps, dilation, ref lengths, .. } = self.dims;
        let terms = Term::all(taps);
        let per_stream = steps.div_ceil(2 * dilation);
        let at_once = (PAIRS_AT_ONCE / dilation).max(1);
        let mut products = Scratch::zeros(terms.len() * inputs * outputs);
        for from in (0..streams * per_stream).step_by(at_once) {
            let blocks = from..(from + at_once).min(streams * per_stream);
            let pairs = blocks.len() * dilation;
            let place = |block: usize| (block / per_stream, (block % per_stream * 2 * dilation) as isize);
            let (mut seen, mut back) =
                (Scratch::of(terms.len() * pairs * inputs), Scratch::of(To::ALL.len() * pairs * outputs));
            let lay_seen = |(index, seen): (usize, &mut [f32])| {
                let (stream, first) = place(blocks.start + index % blocks.len());
                let values = &padded[stream * self.dims.padded_len()..][..self.dims.padded_len()];
                terms[index / blocks.len()].input.write(&Rows { values, width: inputs }, first, seen);
            };
            let lay_back = |(index, back): (usize, &mut [f32])| {
                let (stream, first) = place(blocks.start + index % blocks.len());
                let values = &dy[stream * steps * outputs..][..lengths[stream] * outputs];
                To::ALL[index / blocks.len()].back().write(&Rows { values, width: outputs }, first, back);
            };
            rayon::join(
                || seen.par_chunks_mut(dilation * inputs).enumerate().for_each(lay_seen),
                || back.par_chunks_mut(dilation * outputs).enumerate().for_each(lay_back),
            );
            products.par_chunks_mut(inputs * outputs).zip(&terms).enumerate().for_each(|(index, (dw, term))| {
                let seen = &seen[index * pairs * inputs..][..pairs * inputs];
                let back = &back[term.to as usize * pairs * outputs..][..pairs * outputs];
                dw.par_chunks_mut(WEIGHTS_PER_TASK * outputs).enumerate().for_each(|(task, dw)| {
                    let rows = dw.len() / outputs;
                    let seen = (&seen[task * WEIGHTS_PER_TASK..], View::strided(pairs, rows, inputs).t());
                    matmul((dw, View::new(rows, outputs)), seen, (back, View::new(pairs, outputs)), Keep::Sum);
                });
            });
        }
        let mut dw = vec![0.0; taps * inputs * outputs];
        dw.par_chunks_mut(inputs * outputs).enumerate().for_each(|(tap, dw)| {
            for (term, product) in terms.iter().zip(products.chunks_exact(inputs * outputs)) {
                for (_, factor) in term.weights.iter().filter(|(of, _)| *of == tap) {
                    dw.iter_mut().zip(product).for_each(|(dw, &product)| *dw = fma(*factor, product, *dw));
                }
            }
        });
        dw
    }
}
