//! How many weights each input meets, and what a matrix of inputs makes of that. Everything is a sum of integers, so that
//! neither order nor number of threads matters.

/// What produced the input of a weight product: decides by type, not by value, whether its operations are accumulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Anything but spikes and codes.
    Values,
    /// Spikes: −1, 0, 1, or bursts of them as whole numbers, each spike of which is an accumulate of its own.
    Spikes,
    /// Weighted spikes: a whole number is sent as its signed digits that are not zero ([`digits`]), each an accumulate of a
    /// shifted weight.
    WeightedSpikes,
    /// Whole numbers of so many bits, from 1 to [`super::MOST_BITS`]: multiplied, but at that precision.
    Codes {
        /// Bits of a number, its sign included.
        bits: u8,
    },
}

/// Values whose counts are summed in 32 bits before they go into 64: a burst has at most 2¹⁶ spikes.
const BLOCK: usize = 4096;

/// What passes for spikes where only values are looked at.
const UNITS: [f32; 3] = [0.0, 1.0, -1.0];

/// Digits other than zero of `k` in canonical signed digit form, the fewest powers of two that add up to it with signs:
/// 7 = 8 − 1 has two. `3k` and `k` differ in exactly these places.
#[must_use]
#[inline]
pub const fn digits(k: u32) -> u32 {
    let k = k as u64;
    (k ^ (3 * k)).count_ones()
}

/// How many values are not exactly zero. A NaN is not zero.
#[must_use]
pub fn nonzero(values: &[f32]) -> u64 {
    let [found] = sums(values, |block| [block.iter().map(|v| u32::from(*v != 0.0)).sum()]);
    found
}

/// Sums of what `of_block` finds in at most [`BLOCK`] values. On one thread, because others learn meanwhile and may wait for it:
/// one that shared this with them could be given work of theirs, and wait for itself.
fn sums<const N: usize>(values: &[f32], of_block: impl Fn(&[f32]) -> [u32; N]) -> [u64; N] {
    let add = |a: [u64; N], b: [u64; N]| std::array::from_fn(|i| a[i] + b[i]);
    values.chunks(BLOCK).map(|block| of_block(block).map(u64::from)).fold([0; N], add)
}

/// The weights that each input of a product meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fan {
    inputs: usize,
    outputs: u64,
    nonzero: u64,
    /// Weights that are not zero, by input; absent where none is zero.
    per_input: Option<Vec<u32>>,
}

impl Fan {
    /// Of weights `[inputs, outputs]`.
    #[must_use]
    pub fn of_rows(weights: &[f32], outputs: usize) -> Self {
        let inputs = weights.len() / outputs.max(1);
        let rows = || weights.chunks_exact(outputs.max(1)).map(|row| nonzero(row) as u32).collect();
        Self::new(inputs, outputs, nonzero(weights), rows)
    }

    /// Of weights `[outputs, inputs]`.
    #[must_use]
    pub fn of_columns(weights: &[f32], inputs: usize) -> Self {
        let outputs = weights.len() / inputs.max(1);
        Self::new(inputs, outputs, nonzero(weights), || {
            let mut columns = vec![0; inputs];
            for row in weights.chunks_exact(inputs.max(1)) {
                columns.iter_mut().zip(row).for_each(|(n, w)| *n += u32::from(*w != 0.0));
            }
            columns
        })
    }

    /// Of weights in blocks: each block of `width` inputs meets the same number of outputs, its own `[outputs, width]`.
    #[must_use]
    pub fn of_blocks(weights: &[f32], width: usize, blocks: usize) -> Self {
        let outputs = weights.len() / (width * blocks).max(1);
        Self::new(width * blocks, outputs, nonzero(weights), || {
            let block = |w: &[f32]| Self::of_columns(w, width).counts();
            weights.chunks_exact((outputs * width).max(1)).flat_map(block).collect()
        })
    }

    fn new(inputs: usize, outputs: usize, nonzero: u64, per_input: impl FnOnce() -> Vec<u32>) -> Self {
        let full = nonzero == (inputs * outputs) as u64;
        Self { inputs, outputs: outputs as u64, nonzero, per_input: (!full).then(per_input) }
    }

    fn counts(&self) -> Vec<u32> {
        self.per_input.clone().unwrap_or_else(|| vec![self.outputs as u32; self.inputs])
    }

    /// These weights and those of `other`, which read the same inputs.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        debug_assert_eq!(self.inputs, other.inputs, "both read the same inputs");
        let per_input = (self.per_input.is_some() || other.per_input.is_some())
            .then(|| self.counts().iter().zip(other.counts()).map(|(a, b)| a + b).collect());
        let (outputs, nonzero) = (self.outputs + other.outputs, self.nonzero + other.nonzero);
        Self { inputs: self.inputs, outputs, nonzero, per_input }
    }

    /// The weights of a run of the inputs.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> Self {
        let per_input = self.per_input.as_ref().map(|all| all.iter().skip(from).take(len).copied().collect::<Vec<_>>());
        let full = len as u64 * self.outputs;
        let nonzero = per_input.as_ref().map_or(full, |part| part.iter().map(|&n| u64::from(n)).sum());
        Self { inputs: len, outputs: self.outputs, nonzero, per_input }
    }

    /// Inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Weights of each input if none is zero.
    #[must_use]
    pub fn outputs(&self) -> u64 {
        self.outputs
    }

    /// All weights.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.inputs as u64 * self.outputs
    }

    /// Weights that are not zero.
    #[must_use]
    pub fn nonzero(&self) -> u64 {
        self.nonzero
    }

    /// Whether no weight is zero.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.per_input.is_none()
    }

    /// What the taps of a convolution make of their inputs, each input counted for every tap it enters: `at(tap, step)` are
    /// the `inputs / taps` values that a tap meets at a step, or several streams of them side by side.
    #[must_use]
    pub fn see_taps<'a>(
        &self,
        taps: usize,
        steps: usize,
        source: Source,
        at: impl Fn(usize, usize) -> &'a [f32],
    ) -> Seen {
        let width = self.inputs / taps.max(1);
        let mut all = Seen::NOTHING;
        for tap in 0..taps {
            let part = self.part(tap * width, width);
            for step in 0..steps {
                all = all.and(part.see(at(tap, step), source));
            }
        }
        all
    }

    /// What rows of inputs `[rows, inputs]` make of these weights.
    #[must_use]
    pub fn see(&self, x: &[f32], source: Source) -> Seen {
        let seen = Seen::of(x, source);
        self.meet(seen).unwrap_or_else(|| {
            let fan = self.counts();
            let rows = x.chunks_exact(self.inputs.max(1));
            let pairs = rows.clone().map(|row| row.iter().zip(&fan).map(pairs_of).sum::<u64>()).sum();
            let synaptic = match source {
                Source::Values | Source::Codes { .. } => pairs,
                Source::Spikes => rows.map(|row| row.iter().zip(&fan).map(spikes_of).sum::<u64>()).sum(),
                Source::WeightedSpikes => rows.map(|row| row.iter().zip(&fan).map(digits_of).sum::<u64>()).sum(),
            };
            Seen { pairs, synaptic, ..seen }
        })
    }

    /// The same for inputs that have been looked at, if it follows from that: where no weight is zero.
    #[must_use]
    pub fn meet(&self, inputs: Seen) -> Option<Seen> {
        let (pairs, synaptic) = (inputs.nonzero * self.outputs, inputs.events * self.outputs);
        self.is_full().then_some(Seen { pairs, synaptic, ..inputs })
    }
}

/// Whether every value is −1, 0 or 1, and whether 0 or 1. The first value that is neither ends the search.
#[must_use]
pub fn units(values: &[f32]) -> (bool, bool) {
    let unit = values.iter().all(|v| UNITS.contains(v));
    (unit, unit && values.iter().all(|v| *v >= 0.0))
}

/// `|v|` of a whole number below 2²³. Added to 2²³ it is the low bits of the sum: unlike a cast, which has to saturate, that
/// is two instructions of vector code.
fn magnitude(v: f32) -> u32 {
    const POWER: f32 = 8_388_608.0;
    (v.abs() + POWER).to_bits() & (POWER as u32 - 1)
}

fn pairs_of((v, fan): (&f32, &u32)) -> u64 {
    if *v == 0.0 { 0 } else { u64::from(*fan) }
}

fn spikes_of((v, fan): (&f32, &u32)) -> u64 {
    u64::from(magnitude(*v)) * u64::from(*fan)
}

fn digits_of((v, fan): (&f32, &u32)) -> u64 {
    u64::from(digits(magnitude(*v))) * u64::from(*fan)
}

/// What inputs made of weights. Sums over parts of the inputs are the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Inputs.
    pub values: u64,
    /// Inputs that are not zero.
    pub nonzero: u64,
    /// Spikes, each of a burst or of several digits counted; of other inputs those that are not zero.
    pub events: u64,
    /// Pairs of an input and a weight neither of which is zero.
    pub pairs: u64,
    /// Pairs, each spike of a burst counted.
    pub synaptic: u64,
    /// Whether every input is −1, 0 or 1.
    pub unit: bool,
    /// Whether every input is 0 or 1.
    pub binary: bool,
}

impl Seen {
    /// No inputs.
    pub const NOTHING: Self =
        Self { values: 0, nonzero: 0, events: 0, pairs: 0, synaptic: 0, unit: true, binary: true };

    /// Inputs that have met no weights yet.
    #[must_use]
    pub fn of(x: &[f32], source: Source) -> Self {
        let mut seen = Self { values: x.len() as u64, ..Self::NOTHING };
        match source {
            Source::Values | Source::Codes { .. } => {
                seen.nonzero = nonzero(x);
                seen.events = seen.nonzero;
                (seen.unit, seen.binary) = units(x);
            }
            Source::Spikes => {
                // one pass over memory, in vector code
                let [fired, events, negative] = sums(x, |block| {
                    block.iter().fold([0; 3], |[fired, events, negative], v| {
                        [fired + u32::from(*v != 0.0), events + magnitude(*v), negative + u32::from(*v < 0.0)]
                    })
                });
                (seen.nonzero, seen.events) = (fired, events);
                seen.unit = seen.events == seen.nonzero;
                seen.binary = seen.unit && negative == 0;
            }
            Source::WeightedSpikes => {
                let [fired, events] = sums(x, |block| {
                    block.iter().fold([0; 2], |[fired, events], v| {
                        [fired + u32::from(*v != 0.0), events + digits(magnitude(*v))]
                    })
                });
                (seen.nonzero, seen.events) = (fired, events);
                (seen.unit, seen.binary) = units(x);
            }
        }
        seen
    }

    /// These inputs and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            nonzero: self.nonzero + other.nonzero,
            events: self.events + other.events,
            pairs: self.pairs + other.pairs,
            synaptic: self.synaptic + other.synaptic,
            unit: self.unit && other.unit,
            binary: self.binary && other.binary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// The definition: every pair looked at.
    fn slow(x: &[f32], weight: impl Fn(usize, usize) -> f32, inputs: usize, outputs: usize) -> (u64, u64) {
        let (mut pairs, mut synaptic) = (0, 0);
        for row in x.chunks_exact(inputs) {
            for (i, v) in row.iter().enumerate() {
                for o in 0..outputs {
                    let effective = *v != 0.0 && weight(i, o) != 0.0;
                    pairs += u64::from(effective);
                    synaptic += if effective { v.abs() as u64 } else { 0 };
                }
            }
        }
        (pairs, synaptic)
    }

    #[test]
    fn counts_equal_the_double_loop_in_every_layout() {
        let mut rng = crate::seeded_rng(1, "fan");
        for share in [0.0, 0.3, 1.0] {
            let (rows, inputs, outputs) = (23, 12, 7);
            let w: Vec<f32> =
                (0..inputs * outputs).map(|_| if rng.random_bool(share) { 0.0 } else { rng.random() }).collect();
            let x: Vec<f32> = (0..rows * inputs).map(|_| rng.random_range(-3..=3i8).into()).collect();
            let by_rows = slow(&x, |i, o| w[i * outputs + o], inputs, outputs);
            let seen = Fan::of_rows(&w, outputs).see(&x, Source::Spikes);
            assert_eq!((seen.pairs, seen.synaptic), by_rows);
            let seen = Fan::of_rows(&w, outputs).see(&x, Source::Values);
            assert_eq!((seen.pairs, seen.synaptic, seen.events), (by_rows.0, by_rows.0, seen.nonzero));
            let seen = Fan::of_columns(&w, inputs).see(&x, Source::Spikes);
            assert_eq!((seen.pairs, seen.synaptic), slow(&x, |i, o| w[o * inputs + i], inputs, outputs));
            // three blocks of four inputs with seven outputs each
            let seen = Fan::of_blocks(&w, 4, 3).see(&x, Source::Spikes);
            let blocked = |i: usize, o: usize| w[(i / 4 * outputs + o) * 4 + i % 4];
            assert_eq!((seen.pairs, seen.synaptic), slow(&x, blocked, inputs, outputs));
        }
    }

    /// The fewest signed powers of two that add up to a number, by trying all of up to three; more are needed from 43 on.
    #[test]
    fn digits_are_the_fewest_signed_powers_of_two() {
        let powers: Vec<i64> = (0..8).flat_map(|i| [1 << i, -(1 << i)]).collect();
        let mut sums = vec![std::collections::BTreeSet::from([0_i64])];
        for _ in 0..3 {
            let last = sums.last().unwrap();
            let next = last.iter().flat_map(|s| powers.iter().map(move |p| s + p)).collect();
            sums.push(next);
        }
        for k in 0..=42_u32 {
            let fewest = sums.iter().position(|all| all.contains(&i64::from(k))).unwrap();
            assert_eq!(digits(k) as usize, fewest, "{k}");
        }
        assert_eq!([43, 85, u32::from(u16::MAX)].map(digits), [4, 4, 2]);
    }

    #[test]
    fn weighted_spikes_are_counted_by_their_digits() {
        let mut rng = crate::seeded_rng(2, "digits");
        let (inputs, outputs) = (12, 7);
        for share in [0.0, 0.3] {
            let w: Vec<f32> =
                (0..inputs * outputs).map(|_| if rng.random_bool(share) { 0.0 } else { rng.random() }).collect();
            let x: Vec<f32> = (0..23 * inputs).map(|_| rng.random_range(-16..=16i8).into()).collect();
            // of 0 to 16, from a table made by hand
            let table = [0, 1, 1, 2, 1, 2, 2, 2, 1, 2, 2, 3, 2, 3, 2, 2, 1];
            let (mut pairs, mut synaptic) = (0, 0);
            for (i, v) in x.iter().enumerate() {
                let living = (0..outputs).filter(|o| w[i % inputs * outputs + o] != 0.0).count() as u64;
                pairs += if *v == 0.0 { 0 } else { living };
                synaptic += table[v.abs() as usize] * living;
            }
            let seen = Fan::of_rows(&w, outputs).see(&x, Source::WeightedSpikes);
            assert_eq!((seen.pairs, seen.synaptic), (pairs, synaptic));
            assert_eq!(seen.events, x.iter().map(|v| table[v.abs() as usize]).sum::<u64>());
            assert!(!seen.unit && !seen.binary);
        }
    }

    #[test]
    fn fans_join_and_split() {
        let a = Fan::of_rows(&[1.0, 0.0, 1.0, 1.0], 2); // two inputs, of which the first meets one weight
        let b = Fan::of_rows(&[1.0; 6], 3);
        let both = a.with(&b);
        assert_eq!((both.outputs(), both.nonzero(), both.weights()), (5, 9, 10));
        let seen = both.see(&[2.0, 1.0], Source::Spikes);
        assert_eq!((seen.pairs, seen.synaptic), (4 + 5, 2 * 4 + 5));
        assert_eq!(both.part(0, 1).see(&[2.0], Source::Spikes).and(both.part(1, 1).see(&[1.0], Source::Spikes)), seen);
    }

    #[test]
    fn what_is_a_spike_by_value_is_told_from_what_is_one_by_type() {
        let fan = Fan::of_rows(&[1.0; 4], 2);
        let flags = |x: &[f32], source| {
            let seen = fan.see(x, source);
            (seen.unit, seen.binary)
        };
        for source in [Source::Values, Source::Spikes] {
            assert_eq!(flags(&[0.0, 1.0], source), (true, true));
            assert_eq!(flags(&[-1.0, 1.0], source), (true, false));
            assert_eq!(flags(&[2.0, 1.0], source), (false, false));
        }
        assert_eq!(fan.see(&[1.0, f32::NAN], Source::Values).nonzero, 2);
    }
}
