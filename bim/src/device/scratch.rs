//! Arrays that all blocks of a network share while it learns.

use learner::Result;

use super::block::Sizes;
use super::machine::{Arg, At, Grid, Machine, Source};
use super::membrane::MembraneScratch;

/// Threads of a sum.
const SUM: usize = 128;

/// Adjoints of what a block carries, in one array: of the state, the postsynaptic membrane, and the encoder's inputs, membrane, spikes
/// and `ψ`. No credit comes from later chunks, so they begin as zeros.
pub(crate) struct Adjoints<M: Machine> {
    pub buffer: M::Buffer,
    pub at: [usize; 6],
    len: usize,
}

impl<M: Machine> Adjoints<M> {
    pub fn new(machine: &M, s: &Sizes) -> Result<Self> {
        let lengths = [
            s.b * s.layer(),
            s.b * s.d,
            (s.conv - 1) * s.b * s.width,
            s.b * s.j,
            (s.delays - 1) * s.b * s.j,
            s.b * s.j,
        ];
        let mut len = 0;
        let at = lengths.map(|n| {
            len += n;
            len - n
        });
        Ok(Self { buffer: machine.zeros(len)?, at, len })
    }

    /// Forgets what later chunks want of the marked streams, which began anew after this one.
    pub fn cut(&self, machine: &M, s: &Sizes, marks: &M::Buffer) -> Result<()> {
        let shapes = [(1, s.layer()), (1, s.d), (s.conv - 1, s.width), (1, s.j), (s.delays - 1, s.j), (1, s.j)];
        for (at, (rows, columns)) in self.at.into_iter().zip(shapes).filter(|(_, (rows, _))| *rows > 0) {
            let mut args = Vec::from([rows, s.b, columns].map(Arg::Size));
            args.extend([Arg::all(marks), Arg::from(&self.buffer, at)]);
            machine.launch(Source::Network, "reset_streams", Grid::over_each(columns, s.b), &args)?;
        }
        Ok(())
    }

    pub fn clear(&self, machine: &M) -> Result<()> {
        let args = [Arg::Size(self.len), Arg::F32(0.0), Arg::all(&self.buffer)];
        machine.launch(Source::Network, "fill", Grid::over(self.len), &args)
    }
}

/// The arrays. What is summed over streams afterwards has them in front.
pub(crate) struct Scratch<M: Machine> {
    pub adjoints: Adjoints<M>,
    /// Gradients of `p` and `z` over the window: the block's own, and what goes down where that is another.
    pub own: [M::Buffer; 2],
    pub across: [M::Buffer; 2],
    pub d_psi: M::Buffer,
    pub ds: M::Buffer,
    pub dx: M::Buffer,
    pub dy: M::Buffer,
    pub d_gate: M::Buffer,
    /// States and adjoints of the window `[window + 1, streams, N, D]`, and per channel the adjoints of `y` and of the step sizes.
    pub states: M::Buffer,
    pub state_adjoints: M::Buffer,
    pub ly: M::Buffer,
    pub dz: M::Buffer,
    pub d_skip: M::Buffer,
    pub d_current: M::Buffer,
    pub d_rate: M::Buffer,
    pub d_step: M::Buffer,
    pub d_spikes: M::Buffer,
    pub d_input: M::Buffer,
    pub d_gain: M::Buffer,
    pub d_input_current: M::Buffer,
    pub d_delay: M::Buffer,
    pub d_drive: M::Buffer,
    pub d_taps: M::Buffer,
    /// Credit of the traces, before it is summed.
    pub d_delta: M::Buffer,
    pub products: M::Buffer,
    /// Sources of the traces of `W_u`, `W_B` and `W_Δ`, what is left of them, and the same by heads.
    pub sources: [M::Buffer; 3],
    pub sources_by_heads: M::Buffer,
    pub behind: M::Buffer,
    pub left: M::Buffer,
    pub left_by_heads: M::Buffer,
    pub membrane: Option<MembraneScratch<M>>,
}

impl<M: Machine> Scratch<M> {
    /// For chunks of up to `steps` steps; `carries` traces, those of the membrane too, and whether what goes down is another gradient than
    /// a block's own.
    pub fn new(machine: &M, s: &Sizes, steps: usize, (carries, membrane, split): (bool, bool, bool)) -> Result<Self> {
        let &Sizes { b, width, j, d, heads, jd, projected, conv, delays, per_state, lag, .. } = s;
        let (rows, window, layer) = (steps * b, (lag + steps) * b, s.layer());
        let zeros = |n: usize| machine.zeros(n);
        let of_traces = |n: usize| machine.zeros(if carries { n } else { 0 });
        let by_heads = |n: usize| machine.zeros(if carries && per_state { n } else { 0 });
        let across = |n: usize| machine.zeros(if split { n } else { 0 });
        let [rows_u, rows_b] = super::traces::rows(s);
        Ok(Self {
            adjoints: Adjoints::new(machine, s)?,
            own: [zeros(window * projected)?, zeros(window * heads)?],
            across: [across(window * projected)?, across(window * heads)?],
            d_psi: zeros(rows * j)?,
            ds: zeros(rows * d)?,
            dx: zeros(rows * width)?,
            dy: zeros(rows * width)?,
            d_gate: zeros(rows * width)?,
            states: zeros((window + b) * layer)?,
            state_adjoints: zeros(window * layer)?,
            ly: zeros(window * d)?,
            dz: zeros(window * d)?,
            d_skip: zeros(b * d)?,
            d_current: zeros(b * d)?,
            d_rate: zeros(b * if per_state { layer } else { d })?,
            d_step: zeros(b * j.max(d))?,
            d_spikes: zeros((delays - 1) * b * j + rows * j)?,
            d_input: zeros(rows * j)?,
            d_gain: zeros(b * j)?,
            d_input_current: zeros(b * j)?,
            d_delay: zeros(b * delays * j)?,
            d_drive: zeros((conv - 1) * b * width + rows * width)?,
            d_taps: zeros(b * conv * width)?,
            d_delta: of_traces(b * heads * jd)?,
            products: of_traces(b * layer)?,
            sources: [of_traces(rows * rows_u)?, of_traces(rows * rows_b)?, of_traces(rows * layer)?],
            sources_by_heads: by_heads(rows * layer)?,
            behind: of_traces(b * heads * steps)?,
            left: of_traces(b * if per_state { layer } else { heads })?,
            left_by_heads: by_heads(b * layer)?,
            membrane: if membrane { Some(MembraneScratch::new(machine, s, steps)?) } else { None },
        })
    }
}

/// Zeros in the first elements.
pub(super) fn clear<M: Machine>(machine: &M, buffer: &M::Buffer, len: usize) -> Result<()> {
    let args = [Arg::Size(len), Arg::F32(0.0), Arg::all(buffer)];
    machine.launch(Source::Network, "fill", Grid::over(len), &args)
}

/// Adds the sums over the rows of `from` `[rows, columns]`, `per` neighbours together, to `to` `[columns / per]`.
pub(super) fn sum_rows<M: Machine>(
    machine: &M,
    (rows, columns, per): (usize, usize, usize),
    from: &M::Buffer,
    to: At<'_, M>,
) -> Result<()> {
    let mut args = Vec::from([rows, columns, per].map(Arg::Size));
    args.extend([Arg::all(from), Arg::At(to)]);
    machine.launch(Source::Network, "sum_rows", Grid::of(columns / per, SUM), &args)
}
