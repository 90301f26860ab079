//! Products of spikes from events: `y ← y + W s`, where most of `s` is zero.
//!
//! A row of levels is gathered into events, the index and level of each neuron that fired, in order of the neurons. For every event
//! the column of `W` that stands behind its neuron is added, level times: weights behind silent neurons are never read. Every output is
//! the sum over its events in the order of the neurons, a fused multiply–add each, from what stood there before. So a result depends on
//! neither blocking, nor the other rows, nor the width of the vector instructions; it differs from a dense product's by the order in
//! which that rounds.
//!
//! Columns are rows of `Wᵀ`, padded to whole lines of the cache. What limits a product is where they are read from:
//!
//! - **A few rows** (a step of one stream): every column is read once, from wherever the weights are. [`Columns::wide`] runs along
//!   whole columns, which the processor fetches ahead, eight at a time, so that the sums are loaded and stored once for eight.
//! - **Many rows** (a chunk of several streams): columns that several rows want should be found near. [`Columns::tiled`] keeps a tile
//!   of 96 sums in registers, and takes all rows over the weights of that tile behind some neurons before the next: few enough to fit the
//!   second-level cache, or the first where spikes are dense enough. The next weights are asked for meanwhile.

use std::ops::Range;

use super::Real;
use super::lanes::{LANES, Lane, SECOND_LEVEL, prefetch};

/// Numbers of a line of the cache, of 64 bytes, where they are `f32`.
const LINE: usize = 16;
/// Blocks of channels whose sums stay in registers.
const TILE: usize = 12;
/// Neurons of a block: their weights to a tile, 64 · 96 numbers, are 24 KiB as `f32` and fit the first-level cache.
const BLOCK: usize = 64;
/// Blocks are taken together until a row has so many events in them, as each time the tile's sums are loaded anew,
const EVENTS: usize = 6;
/// but no more than so many: their weights to a tile, 96 KiB as `f32`, fit the second-level cache twice.
const BLOCKS: usize = 4;
/// Rows from which on they run side by side.
const TILED_FROM: usize = 4;
/// Columns that are added at once.
const FUSED: usize = 8;

/// What neurons fired, row by row.
#[derive(Clone, Debug, Default)]
pub struct Events<T> {
    /// Neurons that fired, in order within each row; numbers of no meaning behind the last.
    at: Vec<u32>,
    /// Their levels.
    level: Vec<T>,
    /// Where the events of each block of [`BLOCK`] neurons end, of each row.
    ends: Vec<usize>,
    /// Blocks of a row.
    blocks: usize,
}

/// For each mask of [`LANES`] bits the places of its ones, in order.
static PLACES: [[u8; LANES]; 1 << LANES] = {
    let mut places = [[0; LANES]; 1 << LANES];
    let mut mask = 0;
    while mask < places.len() {
        let (mut bit, mut next) = (0, 0);
        while bit < LANES {
            if mask >> bit & 1 == 1 {
                places[mask][next] = bit as u8;
                next += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    places
};

impl<T: Real> Events<T> {
    /// Gathers the rows of levels `[rows, width]`.
    pub fn gather(&mut self, width: usize, levels: &[T]) {
        self.blocks = width.div_ceil(BLOCK);
        self.ends.clear();
        let mut n = 0;
        for row in levels.chunks_exact(width) {
            // room for every neuron of the row, and for what the last places write beyond it
            if self.at.len() < n + width + LANES {
                self.at.resize(n + width + LANES, 0);
                self.level.resize(n + width + LANES, T::zero());
            }
            let start = n;
            for (b, block) in row.chunks(BLOCK).enumerate() {
                let (lanes, rest) = block.as_chunks::<LANES>();
                let first = |lane: usize| (b * BLOCK + lane * LANES) as u32;
                for (i, lane) in lanes.iter().enumerate() {
                    n += place(lane, first(i), &mut self.at[n..]);
                }
                if !rest.is_empty() {
                    let mut lane = [T::zero(); LANES];
                    lane[..rest.len()].copy_from_slice(rest);
                    n += place(&lane, first(lanes.len()), &mut self.at[n..]);
                }
                self.ends.push(n);
            }
            for (level, &at) in self.level[start..n].iter_mut().zip(&self.at[start..n]) {
                *level = row[at as usize];
            }
        }
    }

    /// Events of all rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Rows gathered last.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len() / self.blocks.max(1)
    }

    /// Neurons and levels of the blocks `blocks` of a row.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "between two tiles")]
    fn part(&self, row: usize, blocks: Range<usize>) -> (&[u32], &[T]) {
        let end = |i: usize| if i == 0 { 0 } else { self.ends[i - 1] };
        let first = row * self.blocks;
        let events = end(first + blocks.start)..end(first + blocks.end);
        (&self.at[events.clone()], &self.level[events])
    }
}

/// Writes where `levels` are not zero, counted from `first`; returns how many there are. Behind them it writes what is to be
/// overwritten.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a call would take longer than the block")]
fn place<T: Real>(levels: &Lane<T>, first: u32, to: &mut [u32]) -> usize {
    let mut mask = 0u32;
    for i in 0..LANES {
        mask |= u32::from(levels[i] != T::zero()) << i;
    }
    if let Some(to) = to.first_chunk_mut::<LANES>() {
        let places = &PLACES[mask as usize];
        for i in 0..LANES {
            to[i] = first + u32::from(places[i]);
        }
    }
    mask.count_ones() as usize
}

/// A matrix whose columns are contiguous: `Wᵀ` by rows, each at the beginning of a line of the cache.
#[derive(Debug)]
pub struct Columns<T> {
    outputs: usize,
    inputs: usize,
    stride: usize,
    values: Vec<T>,
    /// Where the first line of the cache begins.
    start: usize,
}

impl<T: Real> Columns<T> {
    /// The columns of `weights` `[outputs, inputs]`.
    #[must_use]
    pub fn new(outputs: usize, inputs: usize, weights: &[T]) -> Self {
        // four lines more than a multiple of eight: a tile of neighbouring columns then lies in different sets of the cache
        let stride = (outputs.div_ceil(LINE).next_multiple_of(8) + 4) * LINE;
        let mut values = vec![T::zero(); inputs * stride + LINE];
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        // a line of every column at a time: rows are read along
        for from in (0..outputs).step_by(LINE) {
            let rows = LINE.min(outputs - from);
            for (j, column) in values[start..].chunks_exact_mut(stride).take(inputs).enumerate() {
                for (o, value) in column[from..from + rows].iter_mut().enumerate() {
                    *value = weights[(from + o) * inputs + j];
                }
            }
        }
        Self { outputs, inputs, stride, values, start }
    }

    /// `y ← y + W s` for each row of events and of `y` `[rows, outputs]`.
    pub fn add(&self, events: &Events<T>, y: &mut [T]) {
        if events.rows() < TILED_FROM { self.wide(events, 0, y) } else { self.tiled(events, y) }
    }

    /// The columns from output `from` on.
    fn columns(&self, from: usize) -> &[T] {
        &self.values[self.start + from..]
    }

    /// [`Columns::add`] for the outputs from `from` on, row by row.
    fn wide(&self, events: &Events<T>, from: usize, y: &mut [T]) {
        let columns = self.columns(from);
        for (row, y) in y.chunks_exact_mut(self.outputs).enumerate().take(events.rows()) {
            let y = &mut y[from..];
            let (at, level) = events.part(row, 0..events.blocks);
            let (at, level) = fused::<T, FUSED>(columns, self.stride, at, level, y);
            let (at, level) = fused::<T, { FUSED / 2 }>(columns, self.stride, at, level, y);
            fused::<T, 1>(columns, self.stride, at, level, y);
        }
    }

    /// [`Columns::add`], tile by tile of outputs and block by block of neurons.
    fn tiled(&self, events: &Events<T>, y: &mut [T]) {
        let (rows, blocks, tile) = (events.rows(), events.blocks, TILE * LANES);
        // how the work is cut changes no sum: each is taken in order of the neurons, whatever comes between two terms
        let step = (EVENTS * rows * blocks).div_ceil(events.count().max(1)).clamp(1, BLOCKS);
        let whole = self.outputs / tile * tile;
        let parts = |from: usize| (0..blocks).step_by(step).map(move |block| (from, block));
        let parts: Vec<_> = (0..whole).step_by(tile).flat_map(parts).collect();
        let fetch = events.count() >= self.inputs;
        for (i, &(from, block)) in parts.iter().enumerate() {
            let columns = self.columns(from);
            let next = parts.get(i + 1).filter(|_| fetch);
            for (row, y) in y.chunks_exact_mut(self.outputs).enumerate().take(rows) {
                if let Some(&(from, block)) = next {
                    self.fetch(from, block * BLOCK..(block + step) * BLOCK, row, rows);
                }
                let (at, level) = events.part(row, block..(block + step).min(blocks));
                add_tile(columns, self.stride, at, level, &mut y[from..]);
            }
        }
        if whole < self.outputs {
            self.wide(events, whole, y);
        }
    }

    /// Asks for the row's share of the tile's weights behind `neurons`, so that all rows together ask for all of them. Columns are
    /// further apart than what the processor fetches ahead of its own accord.
    fn fetch(&self, from: usize, neurons: Range<usize>, row: usize, rows: usize) {
        let n = neurons.len();
        let columns = self.columns(from);
        for j in neurons.start + n * row / rows..(neurons.start + n * (row + 1) / rows).min(self.inputs) {
            for line in (0..TILE * LANES).step_by(LINE) {
                prefetch::<SECOND_LEVEL, T>(columns, j * self.stride + line);
            }
        }
    }
}

/// `y ← y + Σ level · column`, `N` columns at once, as far as there are so many; the events that are left.
fn fused<'a, T: Real, const N: usize>(
    columns: &[T],
    stride: usize,
    at: &'a [u32],
    level: &'a [T],
    y: &mut [T],
) -> (&'a [u32], &'a [T]) {
    let ((ats, at), (levels, level)) = (at.as_chunks::<N>(), level.as_chunks::<N>());
    for (at, level) in ats.iter().zip(levels) {
        let columns = at.map(|j| &columns[j as usize * stride..][..y.len()]);
        for o in 0..y.len() {
            let mut sum = y[o];
            for k in 0..N {
                sum = level[k].mul_add(columns[k][o], sum);
            }
            y[o] = sum;
        }
    }
    (at, level)
}

/// `y ← y + Σ level · column` for the first tile of `y`, whose sums stay in registers.
#[inline(never)] // with a caller around them, not all of them do
fn add_tile<T: Real>(columns: &[T], stride: usize, at: &[u32], level: &[T], y: &mut [T]) {
    let Some(y) = y.as_chunks_mut::<LANES>().0.first_chunk_mut::<TILE>() else { return };
    let mut sums = *y;
    for (&j, &level) in at.iter().zip(level) {
        let column = columns[j as usize * stride..][..TILE * LANES].as_chunks::<LANES>().0;
        let Some(column) = column.first_chunk::<TILE>() else { return };
        for v in 0..TILE {
            for i in 0..LANES {
                sums[v][i] = level.mul_add(column[v][i], sums[v][i]);
            }
        }
    }
    *y = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    /// Levels of which a share is not zero, and weights.
    fn operands<T: Real>(rows: usize, inputs: usize, outputs: usize, rate: f64) -> (Vec<T>, Vec<T>, Vec<T>) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut level = || {
            let k: i32 = rng.random_range(1..=4) * if rng.random::<bool>() { 1 } else { -1 };
            if rng.random::<f64>() < rate { T::of(k.into()) } else { T::zero() }
        };
        let levels = (0..rows * inputs).map(|_| level()).collect();
        let mut wave = |n: usize| (0..n).map(|_| T::of(rng.random::<f64>() - 0.5)).collect();
        (levels, wave(outputs * inputs), wave(rows * outputs))
    }

    /// The product from its definition: each sum in order of the neurons.
    fn twin<T: Real>(levels: &[T], weights: &[T], inputs: usize, y: &mut [T]) {
        let outputs = weights.len() / inputs;
        for (levels, y) in levels.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            for (weights, y) in weights.chunks_exact(inputs).zip(y) {
                for (w, s) in weights.iter().zip(levels).filter(|(_, s)| **s != T::zero()) {
                    *y = s.mul_add(*w, *y);
                }
            }
        }
    }

    fn equals_its_twin<T: Real>() {
        let sizes = [(1, 1), (7, 3), (8, 96), (64, 97), (65, 200), (200, 96), (301, 250)];
        for ((inputs, outputs), rows) in sizes.into_iter().flat_map(|s| [1, 3, 4, 5, 33].map(|rows| (s, rows))) {
            for rate in [0.0, 0.02, 0.1, 0.3, 1.0] {
                let (levels, weights, start) = operands::<T>(rows, inputs, outputs, rate);
                let mut want = start.clone();
                twin(&levels, &weights, inputs, &mut want);
                let columns = Columns::new(outputs, inputs, &weights);
                let mut events = Events::default();
                // what an earlier, fuller chunk left must not be seen
                events.gather(inputs, &vec![T::one(); (rows + 2) * inputs]);
                events.gather(inputs, &levels);
                let fired = levels.iter().filter(|s| **s != T::zero()).count();
                assert_eq!((events.rows(), events.count()), (rows, fired));
                let case = format!("{inputs} to {outputs}, {rows} rows at {rate}");
                // the same sums in the same order: equal to the last bit, however they are cut
                for (name, add) in [
                    ("add", &(|y: &mut [T]| columns.add(&events, y)) as &dyn Fn(&mut [T])),
                    ("wide", &|y: &mut [T]| columns.wide(&events, 0, y)),
                    ("tiled", &|y: &mut [T]| columns.tiled(&events, y)),
                ] {
                    let mut y = start.clone();
                    add(&mut y);
                    assert!(y == want, "{case}: {name}");
                }
            }
        }
    }

    #[test]
    fn every_way_equals_the_sum_in_order_of_the_neurons() {
        equals_its_twin::<f32>();
        equals_its_twin::<f64>();
    }

    #[test]
    fn weights_behind_silent_neurons_are_not_read() {
        let (inputs, outputs) = (20, 100);
        for rows in [1, 8] {
            let mut weights = vec![f32::NAN; outputs * inputs];
            weights.iter_mut().skip(13).step_by(inputs).for_each(|w| *w = 0.5);
            let mut levels = vec![0.0; rows * inputs];
            levels.iter_mut().skip(13).step_by(inputs).for_each(|s| *s = -3.0);
            let mut events = Events::default();
            events.gather(inputs, &levels);
            let mut y = vec![1.0; rows * outputs];
            Columns::new(outputs, inputs, &weights).add(&events, &mut y);
            assert_eq!(y, vec![-0.5; y.len()]);
        }
    }

    /// Columns begin where lines of the cache do, wherever the allocator puts them.
    #[test]
    fn columns_are_aligned() {
        for outputs in [1, 16, 100, 1568] {
            let columns = Columns::new(outputs, 3, &vec![1f32; outputs * 3]);
            assert_eq!(columns.columns(0).as_ptr().align_offset(64), 0, "{outputs}");
            assert!(columns.stride >= outputs && columns.stride % LINE == 0 && columns.stride / LINE % 8 == 4);
        }
    }
}
