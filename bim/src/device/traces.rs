//! Eligibility traces on a device: `[streams, ...]` of what [`crate::kernels::trace::Traces`] has for one stream.

use learner::Result;

use super::block::{Block, Place, Sizes};
use super::machine::{Arg, At, Grid, Machine, Source};
use super::membrane::MembraneTraces;
use super::scratch::{Adjoints, Scratch, clear, sum_rows};
use crate::params::BlockParams;

/// Traces of all streams in a layer.
pub(crate) struct Traces<M: Machine> {
    pub u: M::Buffer,
    pub b: M::Buffer,
    pub delta: M::Buffer,
    pub bias: M::Buffer,
    pub a_log: M::Buffer,
    /// The membrane's, where they are carried.
    pub membrane: Option<MembraneTraces<M>>,
}

/// Rows of a stream's traces of `W_u` and `W_B`.
pub(super) fn rows(sizes: &Sizes) -> [usize; 2] {
    if sizes.per_state { [sizes.layer(); 2] } else { [sizes.heads * sizes.n, sizes.d] }
}

impl<M: Machine> Traces<M> {
    /// No history.
    pub fn new(machine: &M, sizes: &Sizes, with_membrane: bool) -> Result<Self> {
        let zeros = |n: usize| machine.zeros(sizes.b * n);
        let ([u, b], layer) = (rows(sizes), sizes.layer());
        Ok(Self {
            u: zeros(u * sizes.j)?,
            b: zeros(b * sizes.j)?,
            delta: zeros(layer * sizes.jd)?,
            bias: zeros(layer)?,
            a_log: zeros(layer)?,
            membrane: if with_membrane { Some(MembraneTraces::new(machine, sizes)?) } else { None },
        })
    }

    /// Names in checkpoints, and numbers of a stream.
    pub fn named(&self, sizes: &Sizes) -> impl Iterator<Item = (&'static str, &M::Buffer, usize)> {
        let ([u, b], layer) = (rows(sizes), sizes.layer());
        [
            ("trace.u", &self.u, u * sizes.j),
            ("trace.b", &self.b, b * sizes.j),
            ("trace.delta", &self.delta, layer * sizes.jd),
            ("trace.bias", &self.bias, layer),
            ("trace.a_log", &self.a_log, layer),
        ]
        .into_iter()
        .chain(self.membrane.iter().flat_map(|membrane| membrane.named(sizes)))
    }

    /// Adds the credit that reaches back before the window: the state's adjoints at its start times the traces as they stand there.
    pub fn contract(
        &self,
        machine: &M,
        sizes: &Sizes,
        (adjoints, g): (&Adjoints<M>, &M::Buffer),
        params: &BlockParams<Place>,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let &Sizes { b, j, d, n, heads, jd, per_state, .. } = sizes;
        let layer = sizes.layer();
        let lambda = || Arg::from(&adjoints.buffer, adjoints.at[0]);
        let (u_at, b_at) = (params.projection.at, params.projection.at + d * j);
        let mut args = Vec::from([b, d, n, heads, j, usize::from(per_state)].map(Arg::Size));
        args.extend([lambda(), Arg::all(&self.u), Arg::from(g, u_at)]);
        machine.launch(Source::TraceCredit, "trace_credit_inputs", Grid::over_rows(d, j), &args)?;
        let mut args = Vec::from([b, d, n, j, usize::from(per_state)].map(Arg::Size));
        args.extend([lambda(), Arg::all(&self.b), Arg::from(g, b_at)]);
        machine.launch(Source::TraceCredit, "trace_credit_states", Grid::over_rows(n, j), &args)?;
        clear(machine, &scratch.d_delta, b * heads * jd)?;
        let mut args = Vec::from([d, n, heads, jd].map(Arg::Size));
        args.extend([lambda(), Arg::all(&self.delta), Arg::all(&scratch.d_delta)]);
        machine.launch(Source::Trace, "trace_contract", Grid::over_streams(heads, jd, b), &args)?;
        sum_rows(machine, (b, heads * jd, 1), &scratch.d_delta, At(g, params.delta.at))?;
        for (trace, place, by_state) in [(&self.bias, params.bias, false), (&self.a_log, params.a_log, per_state)] {
            let args = [Arg::Size(b * layer), lambda(), Arg::all(trace), Arg::all(&scratch.products)];
            machine.launch(Source::TraceCredit, "trace_credit_dynamics", Grid::over(b * layer), &args)?;
            let shape = if by_state { (b, layer, 1) } else { (b * n, d, d / heads) };
            sum_rows(machine, shape, &scratch.products, At(g, place.at))?;
        }
        match &self.membrane {
            Some(membrane) => membrane.contract(machine, sizes, (adjoints, g), params, scratch),
            None => Ok(()),
        }
    }

    /// Advances all traces, and the state before the window with them, over the window's first `steps` steps.
    pub fn advance(&self, machine: &M, block: &Block<M>, steps: usize, scratch: &Scratch<M>) -> Result<()> {
        if let Some(membrane) = &self.membrane {
            // it reads the state's traces as they stood at the chunk's start
            membrane.advance(machine, (block, self), steps, scratch)?;
        }
        let Sizes { b, j, d, n, heads, jd, per_state, lag, .. } = block.sizes;
        let layer = block.sizes.layer();
        let Scratch { behind, left, left_by_heads, sources, sources_by_heads, .. } = scratch;
        let shape = || Vec::from([lag, steps, b, d, n, heads].map(Arg::Size));
        let own = || [&self.bias, &self.a_log, &block.h0].map(Arg::all);
        let mut of_steps = (left, &sources[2]);
        if per_state {
            let mut args = shape();
            args.extend([&block.p, &block.delta, &block.rates, left].map(Arg::all));
            args.extend(sources.each_ref().map(Arg::all));
            args.extend(own());
            machine.launch(Source::Trace, "trace_sources_per_state", Grid::over_each(layer, b), &args)?;
            for (from, to, rows) in [(&sources[2], sources_by_heads, b * steps), (left, left_by_heads, b)] {
                let mut args = Vec::from([rows, d, n, heads].map(Arg::Size));
                args.extend([Arg::all(from), Arg::all(to)]);
                machine.launch(Source::Trace, "trace_by_heads", Grid::over(rows * layer), &args)?;
            }
            of_steps = (left_by_heads, sources_by_heads);
        } else {
            let mut args = Vec::from([steps, b, heads].map(Arg::Size));
            args.extend([&block.a, behind, left].map(Arg::all));
            machine.launch(Source::Trace, "trace_left", Grid::over_each(heads, b), &args)?;
            let mut args = shape();
            args.extend([&block.p, &block.delta, &block.a, &block.rates, behind, left].map(Arg::all));
            args.extend(sources.each_ref().map(Arg::all));
            args.extend(own());
            machine.launch(Source::Trace, "trace_sources", Grid::over_each(d, b), &args)?;
        }
        let ([rows_u, rows_b], per) = (rows(&block.sizes), d / heads);
        let shared = |rows: usize| if per_state { 1 } else { rows };
        let offset = if block.sizes.grouped() { jd } else { 0 };
        for (trace, rows, columns, per_left, offset, left, source) in [
            (&self.u, rows_u, j, shared(n), 0, left, &sources[0]),
            (&self.b, rows_b, j, shared(per), 0, left, &sources[1]),
            (&self.delta, layer, jd, shared(n * per), offset, of_steps.0, of_steps.1),
        ] {
            let sizes = [steps, b, rows, columns, j, per_left, n * per, offset];
            let mut args = Vec::from(sizes.map(Arg::Size));
            args.extend([left, source, &block.psi, trace].map(Arg::all));
            machine.launch(Source::Trace, "trace_advance", Grid::over_streams(rows, columns, b), &args)?;
        }
        Ok(())
    }
}
