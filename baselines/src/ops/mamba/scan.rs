//! The selective scan (Gu & Dao 2023, algorithm 2) over a group of channels of one stream, with `LANES` channels side by
//! side in a register. The forward pass keeps the states at the start of every `BLOCK` steps; the backward pass goes
//! through the blocks from the last to the first and computes the states within a block once more, into a buffer that
//! stays in the nearest cache. Nothing of size `[K, H, N]` exists.

#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use super::MambaShape;
use crate::kernels::{exp2, fma, softplus};
use crate::scratch::Scratch;

/// Channels handled at once.
pub(super) const LANES: usize = 8;
/// Tiles of `LANES` channels that one task scans.
const TILES: usize = 8;
/// Channels of a task.
pub(super) const GROUP: usize = LANES * TILES;
/// Steps between kept states: 16 steps of 16 states are 16 KiB of states and decays.
const BLOCK: usize = 16;

/// One value of each channel of a tile.
pub(super) type Lanes = [f32; LANES];

/// `f(0) … f(LANES - 1)`.
#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (k, o) in out.iter_mut().enumerate() {
        *o = f(k);
    }
    out
}

/// A buffer as lanes.
pub(super) fn lanes(s: &[f32]) -> &[Lanes] {
    s.as_chunks().0
}

fn lanes_mut(s: &mut [f32]) -> &mut [Lanes] {
    s.as_chunks_mut().0
}

/// What a group reads of one stream.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a> {
    pub shape: MambaShape,
    /// First channel of the group.
    pub first: usize,
    /// Convolved inputs `u`, `[K, H]`.
    pub u: &'a [f32],
    /// Step sizes before softplus, `[K, H]`.
    pub step: &'a [f32],
    /// Per step: the step sizes' low-rank form, `B` and `C`; `[K, R + 2N]`.
    pub select: &'a [f32],
    /// `ln(-A)`, `[H, N]`.
    pub log_decay: &'a [f32],
    /// State before the segment, `[H, N]`.
    pub before: &'a [f32],
}

/// Elements of a group's buffers for a segment of `steps`.
pub(super) struct Extent {
    /// Of one value per step and channel, as `[tile, K, LANES]`.
    pub series: usize,
    /// Of one state, as `[tile, N, LANES]`.
    pub state: usize,
    /// Of the kept states, as `[tile, block, N, LANES]`.
    pub kept: usize,
}

impl Extent {
    pub fn new(states: usize, steps: usize) -> Self {
        Self { series: steps * GROUP, state: states * GROUP, kept: steps.div_ceil(BLOCK) * states * GROUP }
    }
}

/// `B_t` and `C_t`.
#[inline(always)]
fn selected(select: &[f32], shape: MambaShape, t: usize) -> (&[f32], &[f32]) {
    let row = &select[t * shape.selected() + shape.rank..(t + 1) * shape.selected()];
    row.split_at(shape.states)
}

/// The group's inputs, tile after tile; channels past the last are zero and stay so.
struct Packed {
    /// `a = A log₂ e`, so that `exp(Δ A) = 2^(Δ a)`; `[tile, N, LANES]`.
    a: Scratch,
    /// `Δ = softplus(…)`, `[tile, K, LANES]`.
    delta: Scratch,
    /// `u`, `[tile, K, LANES]`.
    u: Scratch,
}

impl Packed {
    fn new(reads: &Reads, steps: usize) -> Self {
        let Reads { shape, first, .. } = *reads;
        let extent = Extent::new(shape.states, steps);
        let mut packed =
            Self { a: Scratch::zeros(extent.state), delta: Scratch::of(extent.series), u: Scratch::of(extent.series) };
        for_channels(shape, first, |channel, tile, k| {
            for n in 0..shape.states {
                let a = -reads.log_decay[channel * shape.states + n].exp();
                packed.a[(tile * shape.states + n) * LANES + k] = a * LOG2_E;
            }
        });
        pack(reads.step, shape, first, &mut packed.delta);
        packed.delta.iter_mut().for_each(|d| *d = softplus(*d));
        pack(reads.u, shape, first, &mut packed.u);
        packed
    }
}

/// Calls `f` with every channel of the group, its tile and its lane.
fn for_channels(shape: MambaShape, first: usize, mut f: impl FnMut(usize, usize, usize)) {
    for channel in first..(first + GROUP).min(shape.channels) {
        f(channel, (channel - first) / LANES, (channel - first) % LANES);
    }
}

/// `[K, H]` → `[tile, K, LANES]` of the group; zeros where there is no channel.
fn pack(rows: &[f32], shape: MambaShape, first: usize, out: &mut [f32]) {
    let steps = rows.len() / shape.channels;
    for (tile, out) in lanes_mut(out).chunks_exact_mut(steps).enumerate() {
        let from = (first + tile * LANES).min(shape.channels);
        let to = (from + LANES).min(shape.channels);
        for (row, out) in rows.chunks_exact(shape.channels).zip(out) {
            if let Some(whole) = row[from..].first_chunk() {
                *out = *whole; // a copy of known length: a register instead of a call
            } else {
                out.fill(0.0);
                out[..to - from].copy_from_slice(&row[from..to]);
            }
        }
    }
}

/// Writes the outputs `y` `[tile, K, LANES]`, the kept states and the state after the segment `[tile, N, LANES]`.
pub(super) fn forward(reads: &Reads, y: &mut [f32], kept: &mut [f32], after: &mut [f32]) {
    let Reads { shape, first, select, .. } = *reads;
    let (steps, states) = (y.len() / GROUP, shape.states);
    let packed = Packed::new(reads, steps);
    after.fill(0.0);
    for_channels(shape, first, |channel, tile, k| {
        for n in 0..states {
            after[(tile * states + n) * LANES + k] = reads.before[channel * states + n];
        }
    });
    let blocks = steps.div_ceil(BLOCK);
    let inputs = lanes(&packed.delta).chunks_exact(steps).zip(lanes(&packed.u).chunks_exact(steps));
    let tiles = lanes(&packed.a).chunks_exact(states).zip(inputs);
    let outputs = lanes_mut(y).chunks_exact_mut(steps).zip(lanes_mut(kept).chunks_exact_mut(blocks * states));
    let outputs = outputs.zip(lanes_mut(after).chunks_exact_mut(states));
    for ((a, (delta, u)), ((y, kept), h)) in tiles.zip(outputs) {
        for t in 0..steps {
            if t % BLOCK == 0 {
                kept[t / BLOCK * states..][..states].copy_from_slice(h);
            }
            y[t] = step(a, delta[t], u[t], selected(select, shape, t), h);
        }
    }
}

/// `h ← exp(Δ A) h + Δ B u` and `y = C h` (Gu & Dao 2023, eq. 2 with `B̄ = Δ B`).
#[inline(always)]
fn step(a: &[Lanes], delta: Lanes, u: Lanes, (b, c): (&[f32], &[f32]), h: &mut [Lanes]) -> Lanes {
    let scaled = each(|k| delta[k] * u[k]);
    let mut y = [0.0; LANES];
    for (((a, h), &b), &c) in a.iter().zip(h).zip(b).zip(c) {
        let next = each(|k| fma(exp2(delta[k] * a[k]), h[k], b * scaled[k]));
        y = each(|k| fma(c, next[k], y[k]));
        *h = next;
    }
    y
}

/// Where a group's gradients go.
pub(super) struct Writes<'a> {
    /// Of the step sizes after softplus, `[tile, K, LANES]`.
    pub d_delta: &'a mut [f32],
    /// Of `u`, `[tile, K, LANES]`.
    pub du: &'a mut [f32],
    /// Of `B` and `C`, this group's share, `[K, 2N]`.
    pub d_select: &'a mut [f32],
    /// Of `ln(-A)`, `[tile, N, LANES]`.
    pub d_log_decay: &'a mut [f32],
}

/// From `dy` `[K, H]` and the kept states to the gradients.
pub(super) fn backward(reads: &Reads, dy: &[f32], kept: &[f32], writes: Writes) {
    let Reads { shape, first, select, .. } = *reads;
    let (steps, states) = (dy.len() / shape.channels, shape.states);
    let extent = Extent::new(states, steps);
    let packed = Packed::new(reads, steps);
    let mut dy_packed = Scratch::of(extent.series);
    pack(dy, shape, first, &mut dy_packed);
    let (mut leads, mut block) = (vec![NO_LEAD; states * TILES], Block::new(states));
    let Writes { d_delta, du, d_select, d_log_decay } = writes;
    let blocks = steps.div_ceil(BLOCK);
    for at in (0..blocks).rev() {
        let times = at * BLOCK..((at + 1) * BLOCK).min(steps);
        block.clear_sums();
        for (tile, leads) in leads.chunks_exact_mut(states).enumerate() {
            let series = tile * steps..(tile + 1) * steps;
            let reads = Tile {
                a: &lanes(&packed.a)[tile * states..(tile + 1) * states],
                delta: &lanes(&packed.delta)[series.clone()],
                u: &lanes(&packed.u)[series.clone()],
                dy: &lanes(&dy_packed)[series.clone()],
            };
            let start = &lanes(kept)[(tile * blocks + at) * states..][..states];
            block.recompute(&reads, start, times.clone(), |t| selected(select, shape, t).0);
            let out = (&mut lanes_mut(d_delta)[series.clone()], &mut lanes_mut(du)[series]);
            block.reverse(&reads, times.clone(), |t| selected(select, shape, t), leads, out);
        }
        for (i, t) in times.enumerate() {
            let (d_b, d_c) = d_select[t * 2 * states..(t + 1) * 2 * states].split_at_mut(states);
            block.sums(i, d_b, d_c);
        }
    }
    // dA / d ln(-A) = A, and A = a ln 2
    for ((d, lead), a) in lanes_mut(d_log_decay).iter_mut().zip(&leads).zip(lanes(&packed.a)) {
        *d = each(|k| lead.da[k] * a[k] * LN_2);
    }
}

/// A tile's inputs, `[N]` and `[K]`.
struct Tile<'a> {
    a: &'a [Lanes],
    delta: &'a [Lanes],
    u: &'a [Lanes],
    dy: &'a [Lanes],
}

/// What the backward pass holds of one state at one step of a block, side by side so that one address leads to all of it.
#[derive(Clone, Copy)]
struct Cell {
    /// `exp(Δ A)`.
    decay: Lanes,
    /// The state before the step.
    hidden: Lanes,
    /// Gradients of `B` and `C`, lane by lane, summed over tiles.
    d_b: Lanes,
    d_c: Lanes,
}

/// The same of one state over all steps.
#[derive(Clone, Copy)]
struct Lead {
    /// Gradient of the state: of the one after the block before it is gone through, of the one before it afterwards.
    dh: Lanes,
    /// Gradient of `A`.
    da: Lanes,
}

const SILENT: Cell = Cell { decay: [0.0; LANES], hidden: [0.0; LANES], d_b: [0.0; LANES], d_c: [0.0; LANES] };
const NO_LEAD: Lead = Lead { dh: [0.0; LANES], da: [0.0; LANES] };

/// `[N, BLOCK + 1]`: the last of a row holds the state after the block.
struct Block(Vec<Cell>);

impl Block {
    fn new(states: usize) -> Self {
        Self(vec![SILENT; states * (BLOCK + 1)])
    }

    fn clear_sums(&mut self) {
        for cell in &mut self.0 {
            (cell.d_b, cell.d_c) = ([0.0; LANES], [0.0; LANES]);
        }
    }

    /// State by state, steps inside: the recurrence stays in a register, and keeps the compiler from going across states
    /// with shuffles.
    fn recompute<'a>(&mut self, tile: &Tile, start: &[Lanes], times: Range<usize>, b: impl Fn(usize) -> &'a [f32]) {
        let mut inputs = [([0.0; LANES], [0.0; LANES], [].as_slice()); BLOCK];
        for (input, t) in inputs.iter_mut().zip(times.clone()) {
            *input = (tile.delta[t], each(|k| tile.delta[t][k] * tile.u[t][k]), b(t));
        }
        let inputs = &inputs[..times.len()];
        let rows = self.0.chunks_exact_mut(BLOCK + 1).zip(tile.a.iter().zip(start));
        for (n, (cells, (a, start))) in rows.enumerate() {
            let mut h = *start;
            for (cell, (delta, scaled, b)) in cells.iter_mut().zip(inputs) {
                let decay = each(|k| exp2(delta[k] * a[k]));
                (cell.decay, cell.hidden) = (decay, h);
                h = each(|k| fma(decay[k], h[k], b[n] * scaled[k]));
            }
            cells[inputs.len()].hidden = h;
        }
    }

    /// Back through the block. Returns nothing but fills `d_delta` and `du` at its steps.
    fn reverse<'a>(
        &mut self,
        tile: &Tile,
        times: Range<usize>,
        select: impl Fn(usize) -> (&'a [f32], &'a [f32]),
        leads: &mut [Lead],
        (d_delta, du): (&mut [Lanes], &mut [Lanes]),
    ) {
        for (i, t) in times.enumerate().rev() {
            let (delta, u, dy) = (tile.delta[t], tile.u[t], tile.dy[t]);
            let scaled = each(|k| delta[k] * u[k]);
            let (mut d_exponent, mut d_scaled) = ([0.0; LANES], [0.0; LANES]);
            let (b, c) = select(t);
            let rows = self.0.chunks_exact_mut(BLOCK + 1).zip(leads.iter_mut().zip(tile.a));
            for ((cells, (lead, a)), (&b, &c)) in rows.zip(b.iter().zip(c)) {
                let [cell, after] = &mut cells[i..i + 2] else { continue };
                let g = each(|k| fma(c, dy[k], lead.dh[k]));
                cell.d_c = each(|k| fma(after.hidden[k], dy[k], cell.d_c[k]));
                cell.d_b = each(|k| fma(g[k], scaled[k], cell.d_b[k]));
                let carried = each(|k| g[k] * cell.decay[k]);
                // of Δ A, through exp(Δ A) h₋₁
                let d_product = each(|k| carried[k] * cell.hidden[k]);
                d_exponent = each(|k| fma(d_product[k], a[k], d_exponent[k]));
                lead.da = each(|k| fma(d_product[k], delta[k], lead.da[k]));
                d_scaled = each(|k| fma(g[k], b, d_scaled[k]));
                lead.dh = carried;
            }
            d_delta[t] = each(|k| fma(d_exponent[k], LN_2, d_scaled[k] * u[k]));
            du[t] = each(|k| d_scaled[k] * delta[k]);
        }
    }

    /// The sums over lanes at step `i` of the block.
    fn sums(&self, i: usize, d_b: &mut [f32], d_c: &mut [f32]) {
        for (cells, (d_b, d_c)) in self.0.chunks_exact(BLOCK + 1).zip(d_b.iter_mut().zip(d_c)) {
            (*d_b, *d_c) = (cells[i].d_b.iter().sum(), cells[i].d_c.iter().sum());
        }
    }
}
