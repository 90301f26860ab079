//! Eligibility traces through the postsynaptic membrane on a device: `[streams, ...]` of what
//! [`crate::kernels::trace::MembraneTraces`] has for one stream.

use learner::Result;

use super::block::{Block, Place, Sizes};
use super::machine::{Arg, At, Grid, Machine, Source};
use super::scratch::{Adjoints, Scratch, sum_rows};
use super::traces::Traces;
use crate::params::BlockParams;

/// Traces of all streams in a layer.
pub(crate) struct MembraneTraces<M: Machine> {
    u: M::Buffer,
    b: M::Buffer,
    c: M::Buffer,
    delta: M::Buffer,
    bias: M::Buffer,
    a_log: M::Buffer,
    skip: M::Buffer,
    current: M::Buffer,
}

/// What an advance leaves on its way.
pub(crate) struct MembraneScratch<M: Machine> {
    /// Of `W_u`, `W_B`, `W_C` and `W_Δ`.
    sources: [M::Buffer; 4],
    /// What is left of the membrane's traces, by channel and by state, and what of the state's enters them.
    left: M::Buffer,
    left_states: M::Buffer,
    entering: M::Buffer,
}

impl<M: Machine> MembraneScratch<M> {
    pub fn new(machine: &M, s: &Sizes, steps: usize) -> Result<Self> {
        let (rows, layer) = (steps * s.b, s.layer());
        let zeros = |n: usize| machine.zeros(n);
        Ok(Self {
            sources: [zeros(rows * s.d)?, zeros(rows * layer)?, zeros(rows * layer)?, zeros(rows * s.d)?],
            left: zeros(s.b * s.d)?,
            left_states: zeros(s.b * layer)?,
            entering: zeros(s.b * layer)?,
        })
    }
}

impl<M: Machine> MembraneTraces<M> {
    /// No history.
    pub fn new(machine: &M, s: &Sizes) -> Result<Self> {
        let zeros = |n: usize| machine.zeros(s.b * n);
        let layer = s.layer();
        Ok(Self {
            u: zeros(s.d * s.j)?,
            b: zeros(layer * s.j)?,
            c: zeros(layer * s.j)?,
            delta: zeros(s.d * s.jd)?,
            bias: zeros(s.d)?,
            a_log: zeros(if s.per_state { layer } else { s.d })?,
            skip: zeros(s.d)?,
            current: zeros(s.d)?,
        })
    }

    /// Names in checkpoints, and numbers of a stream.
    pub fn named(&self, s: &Sizes) -> impl Iterator<Item = (&'static str, &M::Buffer, usize)> {
        let layer = s.layer();
        [
            ("trace.v_u", &self.u, s.d * s.j),
            ("trace.v_b", &self.b, layer * s.j),
            ("trace.v_c", &self.c, layer * s.j),
            ("trace.v_delta", &self.delta, s.d * s.jd),
            ("trace.v_bias", &self.bias, s.d),
            ("trace.v_a_log", &self.a_log, if s.per_state { layer } else { s.d }),
            ("trace.v_skip", &self.skip, s.d),
            ("trace.v_current", &self.current, s.d),
        ]
        .into_iter()
    }

    /// Adds the credit through the membrane that reaches back before the chunk.
    pub fn contract(
        &self,
        machine: &M,
        s: &Sizes,
        (adjoints, g): (&Adjoints<M>, &M::Buffer),
        params: &BlockParams<Place>,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let &Sizes { b, j, d, n, heads, jd, per_state, .. } = s;
        let (per, at) = (d / heads, params.projection.at);
        let lambda = || Arg::from(&adjoints.buffer, adjoints.at[1]);
        for (trace, per, columns, to) in [(&self.u, 1, j, at), (&self.delta, per, jd, params.delta.at)] {
            let mut args = Vec::from([b, d, per, columns].map(Arg::Size));
            args.extend([lambda(), Arg::all(trace), Arg::from(g, to)]);
            machine.launch(Source::Membrane, "membrane_credit", Grid::over_rows(d / per, columns), &args)?;
        }
        for (trace, to) in [(&self.b, at + d * j), (&self.c, at + (d + n) * j)] {
            let mut args = Vec::from([b, d, n, j].map(Arg::Size));
            args.extend([lambda(), Arg::all(trace), Arg::from(g, to)]);
            machine.launch(Source::Membrane, "membrane_credit_states", Grid::over_rows(n, j), &args)?;
        }
        let by_head = if per_state { None } else { Some(params.a_log) };
        for (trace, place, per) in [
            (&self.bias, Some(params.bias), per),
            (&self.a_log, by_head, per),
            (&self.skip, Some(params.skip), 1),
            (&self.current, params.post_current, 1),
        ] {
            let Some(place) = place else { continue };
            let args = [Arg::Size(b * d), lambda(), Arg::all(trace), Arg::all(&scratch.products)];
            machine.launch(Source::TraceCredit, "trace_credit_dynamics", Grid::over(b * d), &args)?;
            sum_rows(machine, (b, d, per), &scratch.products, At(g, place.at))?;
        }
        if per_state {
            let mut args = Vec::from([b, d, n].map(Arg::Size));
            args.extend([lambda(), Arg::all(&self.a_log), Arg::from(g, params.a_log.at)]);
            machine.launch(Source::Membrane, "membrane_credit_decays", Grid::over(s.layer()), &args)?;
        }
        Ok(())
    }

    /// Advances the traces over the chunk. The state's, `of_state`, are still those of its start.
    pub fn advance(
        &self,
        machine: &M,
        (block, of_state): (&Block<M>, &Traces<M>),
        steps: usize,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Some(own) = &scratch.membrane else { return Ok(()) };
        let Sizes { b, j, d, n, heads, jd, per_state, .. } = block.sizes;
        let (layer, per) = (block.sizes.layer(), d / heads);
        let MembraneScratch { sources, left, left_states, entering } = own;
        let [s_u, s_b, s_c, s_delta] = sources;
        let mut args = Vec::from([steps, b, d, n, heads, usize::from(per_state)].map(Arg::Size));
        args.extend([&block.neurons[1], &block.p, &block.delta, &block.rates, &block.skips, &block.v].map(Arg::all));
        args.extend([&block.h0, &of_state.bias, &of_state.a_log, &scratch.states].map(Arg::all));
        args.extend([s_u, s_b, s_c, s_delta, left, left_states, entering].map(Arg::all));
        args.extend([&self.bias, &self.a_log, &self.skip, &self.current].map(Arg::all));
        machine.launch(Source::Membrane, "membrane_sources", Grid::over_each(d, b), &args)?;
        let offset = if block.sizes.grouped() { jd } else { 0 };
        for (trace, rows, columns, group, offset, left, source) in [
            (&self.u, d, j, d, 0, left, s_u),
            (&self.b, layer, j, layer, 0, left_states, s_b),
            (&self.c, layer, j, layer, 0, left_states, s_c),
            (&self.delta, d, jd, per, offset, left, s_delta),
        ] {
            let mut args = Vec::from([steps, b, rows, columns, j, 1, group, offset].map(Arg::Size));
            args.extend([left, source, &block.psi, trace].map(Arg::all));
            machine.launch(Source::Trace, "trace_advance", Grid::over_streams(rows, columns, b), &args)?;
        }
        let rows = usize::from(per_state);
        for (from, to, columns, rows) in [(&of_state.u, &self.u, j, rows), (&of_state.delta, &self.delta, jd, 2)] {
            let mut args = Vec::from([d, n, heads, columns, rows].map(Arg::Size));
            args.extend([entering, from, to].map(Arg::all));
            machine.launch(Source::Membrane, "membrane_enter", Grid::over_streams(d, columns, b), &args)?;
        }
        let mut args = Vec::from([d, n, j, usize::from(per_state)].map(Arg::Size));
        args.extend([entering, &of_state.b, &self.b].map(Arg::all));
        machine.launch(Source::Membrane, "membrane_enter_states", Grid::over_streams(layer, j, b), &args)
    }
}
