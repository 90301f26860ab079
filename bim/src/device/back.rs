//! A block backwards: gradients of all its parameters, those that the traces carry included.

use learner::Result;
use learner::product::View;

use super::block::{Block, Place, ROW, Sizes};
use super::machine::{Arg, At, Grid, Machine, Matrix, Source, matrix};
use super::scratch::{Adjoints, Scratch, sum_rows};
use crate::kernels::scan::Through;
use crate::params::BlockParams;

impl<M: Machine> Block<M> {
    /// Reverse mode over the window: `dx` `[K, streams, width]` enters as the gradient of the block's output and leaves as that of its
    /// input. Adds the gradients of all parameters to `g`, those that the traces carry included. Unless `chained`, no credit comes from
    /// later chunks; unless `priced`, spikes cost nothing.
    pub fn reverse(
        &self,
        machine: &M,
        (w, g): (&M::Buffer, &M::Buffer),
        params: &BlockParams<Place>,
        (steps, chained, priced): (usize, bool, bool),
        dx: &M::Buffer,
        (adjoints, scratch): (&Adjoints<M>, &Scratch<M>),
    ) -> Result<()> {
        let Sizes { b, width, j, d, heads, jd, projected, lag, .. } = self.sizes;
        let rows = steps * b;
        let rule = self.spec.rule;
        let Scratch { d_psi, ds, dy, d_gate, .. } = scratch;
        let [price_in, price_out] = if priced { self.spec.prices(steps) } else { [0.0; 2] };
        let on_psi = || matrix(d_psi, 0, View::new(rows, j));
        if let Some(gate) = params.gate {
            let count = rows * width;
            let mut args = vec![Arg::Size(count), Arg::all(&self.y), Arg::all(&self.gate), Arg::all(dx)];
            args.extend([Arg::all(dy), Arg::all(d_gate)]);
            machine.launch(Source::Row, "gate_reverse", Grid::over(count), &args)?;
            let weights = matrix(w, gate.at, View::new(width, j));
            machine.product(1, on_psi(), matrix(d_gate, 0, View::new(rows, width)), weights, 0.0)?;
        } else {
            let args = [Arg::Size(rows * width), Arg::all(dx), Arg::all(dy)];
            machine.launch(Source::Network, "copy", Grid::over(rows * width), &args)?;
        }
        let weights = matrix(w, params.out.at, View::new(width, d));
        machine.product(1, matrix(ds, 0, View::new(rows, d)), matrix(dy, 0, View::new(rows, width)), weights, 0.0)?;
        if let Some(step) = params.post_step {
            let potentials = At(&self.v, (lag + 1) * b * d);
            self.step_reverse(machine, (1, price_out), steps, potentials, ds, (g, step), scratch)?;
        }
        if price_out > 0.0 {
            let args = [Arg::Size(rows * d), Arg::F32(price_out), Arg::all(&self.s), Arg::all(ds)];
            machine.launch(Source::Network, "price_spikes", Grid::over(rows * d), &args)?;
        }
        if !chained {
            adjoints.clear(machine)?;
        }
        let down = if rule.across == rule.own {
            &scratch.own
        } else {
            // what goes down stays within the step; the block's own gradient does not
            self.scan_reverse(machine, steps, rule.across, &scratch.across, (adjoints, scratch))?;
            adjoints.clear(machine)?;
            &scratch.across
        };
        self.scan_reverse(machine, steps, rule.own, &scratch.own, (adjoints, scratch))?;
        let own = At(&down[0], lag * b * projected);
        let dp = Matrix { at: own, view: View::new(rows, projected), stride: 0 };
        let keep = if params.gate.is_some() { 1.0 } else { 0.0 };
        machine.product(1, on_psi(), dp, matrix(w, params.projection.at, View::new(projected, j)), keep)?;
        let dz_at = lag * b * heads;
        if self.sizes.grouped() {
            let mut to = matrix(d_psi, 0, View::strided(rows, jd, j));
            let mut dz = matrix(&down[1], dz_at, View::strided(rows, 1, heads));
            let mut weights = matrix(w, params.delta.at, View::new(1, jd));
            (to.stride, dz.stride, weights.stride) = (jd, 1, jd);
            machine.product(heads, to, dz, weights, 1.0)?;
        } else {
            let dz = matrix(&down[1], dz_at, View::new(rows, heads));
            machine.product(1, on_psi(), dz, matrix(w, params.delta.at, View::new(heads, j)), 1.0)?;
        }
        // before the encoder, which spends what arrives of psi: the rest of the gradients reads the synapses' side alone
        self.dynamics_grads(machine, g, params, steps, scratch)?;
        self.synapse_grads(machine, g, params, steps, (adjoints, scratch))?;
        self.encode_reverse(machine, (w, g), params, (steps, price_in), (adjoints, scratch))?;
        let x = Arg::from(&self.x, (self.sizes.conv - 1) * b * width);
        let args = [Arg::Size(width), x, Arg::all(&self.inverse_rms), Arg::all(&scratch.dx), Arg::all(dx)];
        machine.launch(Source::Row, "normalize_reverse", Grid::of(rows, ROW), &args)
    }

    /// The scan backwards: leaves `dp` and `dz` in `to`.
    fn scan_reverse(
        &self,
        machine: &M,
        steps: usize,
        through: Through,
        to: &[M::Buffer; 2],
        (adjoints, scratch): (&Adjoints<M>, &Scratch<M>),
    ) -> Result<()> {
        let Sizes { b, d, n, heads, lag, .. } = self.sizes;
        let Adjoints { buffer, at, .. } = adjoints;
        let mut args = self.scan_sizes(steps);
        args.extend([through.state, through.membrane].map(|on| Arg::Size(usize::from(on))));
        args.extend([&self.neurons[1], &self.p, &self.delta, &self.a, &self.rates, &self.skips].map(Arg::all));
        args.extend([&self.v, &self.h0, &scratch.ds].map(Arg::all));
        args.extend([Arg::from(buffer, at[0]), Arg::from(buffer, at[1])]);
        args.extend([&scratch.states, &scratch.state_adjoints, &scratch.ly, &scratch.dz, &to[0]].map(Arg::all));
        args.extend([&scratch.d_skip, &scratch.d_current, &scratch.d_rate].map(Arg::all));
        machine.launch(Source::Scan, "state_reverse", Grid::over_each(d, b), &args)?;
        let mut args = Vec::from([b, d, n, heads].map(Arg::Size));
        args.extend([&self.p, &self.delta, &scratch.states, &scratch.state_adjoints].map(Arg::all));
        args.extend([&scratch.ly, &scratch.dz, &to[0], &to[1]].map(Arg::all));
        machine.launch(Source::Scan, "state_reverse_sums", Grid::of((lag + steps) * b, 32), &args)
    }

    /// Adds the gradients of what the scan has for itself.
    fn dynamics_grads(
        &self,
        machine: &M,
        g: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let Sizes { b, d, heads, lag, per_state, .. } = self.sizes;
        let layer = self.sizes.layer();
        sum_rows(machine, ((lag + steps) * b, heads, 1), &scratch.own[1], At(g, params.bias.at))?;
        let (columns, per) = if per_state { (layer, 1) } else { (d, d / heads) };
        sum_rows(machine, (b, columns, per), &scratch.d_rate, At(g, params.a_log.at))?;
        sum_rows(machine, (b, d, 1), &scratch.d_skip, At(g, params.skip.at))?;
        if let Some(current) = params.post_current {
            sum_rows(machine, (b, d, 1), &scratch.d_current, At(g, current.at))?;
        }
        Ok(())
    }

    /// Adds the gradients of the projections from the window, the credit that the traces carry from before it, and the gradients of
    /// `W_out` and the gate.
    fn synapse_grads(
        &self,
        machine: &M,
        g: &M::Buffer,
        params: &BlockParams<Place>,
        steps: usize,
        (adjoints, scratch): (&Adjoints<M>, &Scratch<M>),
    ) -> Result<()> {
        let Sizes { b, width, j, d, heads, jd, projected, lag, .. } = self.sizes;
        let (rows, window) = (steps * b, (lag + steps) * b);
        let [dp, dz] = &scratch.own;
        let psi = || matrix(&self.psi, 0, View::new(window, j));
        let to = matrix(g, params.projection.at, View::new(projected, j));
        machine.product(1, to, matrix(dp, 0, View::new(window, projected).t()), psi(), 1.0)?;
        if self.sizes.grouped() {
            let mut to = matrix(g, params.delta.at, View::new(1, jd));
            let mut of_heads = matrix(dz, 0, View::strided(window, 1, heads).t());
            let mut group = matrix(&self.psi, 0, View::strided(window, jd, j));
            (to.stride, of_heads.stride, group.stride) = (jd, 1, jd);
            machine.product(heads, to, of_heads, group, 1.0)?;
        } else {
            let to = matrix(g, params.delta.at, View::new(heads, j));
            machine.product(1, to, matrix(dz, 0, View::new(window, heads).t()), psi(), 1.0)?;
        }
        if let Some(traces) = &self.traces {
            traces.contract(machine, &self.sizes, (adjoints, g), params, scratch)?;
        }
        let s = matrix(&self.s, 0, View::new(rows, d));
        let dy = matrix(&scratch.dy, 0, View::new(rows, width).t());
        machine.product(1, matrix(g, params.out.at, View::new(width, d)), dy, s, 1.0)?;
        if let Some(gate) = params.gate {
            let d_gate = matrix(&scratch.d_gate, 0, View::new(rows, width).t());
            let psi = matrix(&self.psi, lag * b * j, View::new(rows, j));
            machine.product(1, matrix(g, gate.at, View::new(width, j)), d_gate, psi, 1.0)?;
        }
        Ok(())
    }

    fn encode_reverse(
        &self,
        machine: &M,
        (w, g): (&M::Buffer, &M::Buffer),
        params: &BlockParams<Place>,
        (steps, price): (usize, f32),
        (adjoints, scratch): (&Adjoints<M>, &Scratch<M>),
    ) -> Result<()> {
        let Sizes { b, width, j, conv, delays, silu, population, .. } = self.sizes;
        let Adjoints { buffer, at, .. } = adjoints;
        let [_, _, at_x, at_v, at_s, at_psi] = *at;
        let temporal = Arg::Size(usize::from(self.spec.rule.across.state));
        if let Some(step) = params.pre_step {
            // a learned step has neither delays nor a kernel behind it: what is wanted of psi is wanted of the spikes
            self.step_reverse(machine, (0, price), steps, At(&self.pre_v, b * j), &scratch.d_psi, (g, step), scratch)?;
        }
        let drive = || Arg::all(if params.conv.is_some() { &self.c } else { &self.x });
        let maybe = |place: Option<Place>| Arg::maybe(place.map(|p| At(w, p.at)));
        let mut args = self.encode_sizes(steps);
        args.extend([temporal, Arg::F32(price), Arg::F32(self.spec.kernel), Arg::all(&self.neurons[0])]);
        args.extend([maybe(params.delays), drive(), Arg::all(&self.pre_v), Arg::all(&self.pre_s)]);
        args.extend([Arg::all(&scratch.d_psi), Arg::from(buffer, at_v), Arg::from(buffer, at_s)]);
        args.push(if self.pre_psi.is_some() { Arg::from(buffer, at_psi) } else { Arg::Null });
        args.extend([&scratch.d_spikes, &scratch.d_input, &scratch.d_gain, &scratch.d_input_current].map(Arg::all));
        args.push(Arg::all(&scratch.d_delay));
        machine.launch(Source::Encode, "encode_reverse", Grid::over_each(j, b), &args)?;
        let temporal = Arg::Size(usize::from(self.spec.rule.across.state));
        let sizes = [steps, b, width, population, conv, usize::from(silu)].map(Arg::Size);
        let mut args = Vec::from(sizes);
        args.extend([temporal, Arg::from(w, params.gain.at), maybe(params.conv), drive(), Arg::all(&self.x)]);
        args.extend([Arg::all(&scratch.d_input), Arg::from(buffer, at_x)]);
        args.extend([&scratch.d_drive, &scratch.dx, &scratch.d_taps].map(Arg::all));
        machine.launch(Source::Encode, "encode_reverse_inputs", Grid::over_each(width, b), &args)?;
        sum_rows(machine, (b, j, 1), &scratch.d_gain, At(g, params.gain.at))?;
        for (place, columns, from) in [
            (params.current, j, &scratch.d_input_current),
            (params.conv, conv * width, &scratch.d_taps),
            (params.delays, delays * j, &scratch.d_delay),
        ] {
            if let Some(place) = place {
                sum_rows(machine, (b, columns, 1), from, At(g, place.at))?;
            }
        }
        Ok(())
    }

    /// Adds the gradient of the learned steps of one population, `which` of the two.
    fn step_reverse(
        &self,
        machine: &M,
        (which, price): (usize, f32),
        steps: usize,
        potentials: At<'_, M>,
        wanted: &M::Buffer,
        (g, place): (&M::Buffer, Place),
        scratch: &Scratch<M>,
    ) -> Result<()> {
        let (b, count) = (self.sizes.b, place.len);
        let mut args = Vec::from([steps, b, count].map(Arg::Size));
        args.extend([Arg::F32(price), Arg::all(&self.neurons[which]), Arg::At(potentials)]);
        args.extend([Arg::all(wanted), Arg::all(&scratch.d_step)]);
        machine.launch(Source::Readout, "step_reverse", Grid::over_each(count, b), &args)?;
        sum_rows(machine, (b, count, 1), &scratch.d_step, At(g, place.at))
    }
}
