#![allow(clippy::inline_always, reason = "a call inside a loop keeps it from becoming vector code")]

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::linear::check_last;
use super::{Tape, add, device, fused, gradient, product, slice, sum_in_order, values_of, with_values};
use crate::kernels::{Keep, View, fma, matmul, par_matmul, transposed};
use crate::scratch::Scratch;

/// Streams that one task steps through side by side where neurons are connected among themselves: the backward pass
/// multiplies with the recurrent weights at every step. Without them each stream is a task.
const STREAMS_PER_TASK: usize = 4;

/// A leaky integrate-and-fire neuron.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neuron {
    /// What the membrane keeps from step to step, `β`.
    pub decay: f32,
    /// Membrane above which it fires, `ϑ`; also what a spike takes off it.
    pub threshold: f32,
    /// Steepness of the fast sigmoid, `k`.
    pub slope: f32,
    /// Whether its own spikes raise its threshold.
    pub adaptive: Option<Threshold>,
}

/// A threshold that rises with every spike and falls back (Bellec et al. 2018): `ϑ_t = ϑ + strength · a_t` with
/// `a_t = decay · a_{t-1} + s_{t-1}`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What of the rise is left after a step, `ρ`.
    pub decay: f32,
    /// Rise per spike.
    pub strength: f32,
}

impl Neuron {
    /// Decay and strength of the threshold's rise.
    fn adaptation(&self) -> (f32, f32) {
        self.adaptive.map_or((0.0, 0.0), |a| (a.decay, a.strength))
    }
}

/// What a layer carries from one segment to the next. Zeros at the start of a stream.
#[derive(Clone, Debug)]
pub struct LifState {
    /// `[B, H]`.
    pub membrane: Tensor,
    /// `a` of adaptive thresholds, `[B, H]`; absent for fixed ones.
    pub adaptation: Option<Tensor>,
}

/// A layer of leaky integrate-and-fire neurons over a segment, as snnTorch's `Leaky`: with the current
/// `I_t = x_t · w + b` (and `s_{t-1}` times the rows of `w` after those of the input, if it has more: `RLeaky`)
///
/// `u_t = β u_{t-1} + I_t - ϑ s_{t-1}`, `s_t = 1 if u_t > ϑ_t else 0`.
///
/// Gradients take `1 / (1 + k |u_t - ϑ_t|)²` for the derivative of firing (Zenke & Ganguli 2018); none go through the
/// reset, as in snnTorch, nor into the state before the segment.
///
/// `x` `[B, K, I]`, `w` `[I, H]` or `[I + H, H]`, `b` `[H]` → spikes `[B, K, H]` and the state after the segment, detached.
///
/// # Errors
/// If shapes do not fit.
pub fn lif(x: &Tensor, w: &Tensor, b: &Tensor, before: &LifState, neuron: Neuron) -> Result<(Tensor, LifState)> {
    let dims = check(x, w, b, before, neuron)?;
    if !fused(x) {
        let done = device::lif(x, w, b, before, neuron)?;
        return done.map_or_else(|| lif_slow(x, w, b, before, neuron), Ok);
    }
    let after = Arc::new(OnceLock::new());
    let membrane = values_of(&before.membrane)?;
    let adaptation = match &before.adaptation {
        Some(a) => values_of(a)?,
        None => vec![0.0; membrane.len()],
    };
    let record = x.track_op() || w.track_op() || b.track_op();
    let op =
        Lif { dims, neuron, before: Values { membrane, adaptation }, record, after: after.clone(), tape: Tape::new() };
    let spikes = x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, op)?;
    let Some(Values { membrane, adaptation }) = after.get() else { bail!("lif left no state") };
    let tensor = |v: &[f32]| Tensor::from_slice(v, before.membrane.dims(), x.device());
    let adaptation = before.adaptation.is_some().then(|| tensor(adaptation)).transpose()?;
    Ok((spikes, LifState { membrane: tensor(membrane)?, adaptation }))
}

/// [`lif`] in tensor operations, step by step.
///
/// # Errors
/// If shapes do not fit.
pub fn lif_slow(x: &Tensor, w: &Tensor, b: &Tensor, before: &LifState, neuron: Neuron) -> Result<(Tensor, LifState)> {
    let Dims { steps, inputs, width, recurrent, .. } = check(x, w, b, before, neuron)?;
    let (rho, strength) = neuron.adaptation();
    let dtype = x.dtype();
    let threshold = |a: &Tensor| a.affine(f64::from(strength), f64::from(neuron.threshold));
    let mut u = before.membrane.to_dtype(dtype)?.detach(); // [B, H]
    let mut a = match &before.adaptation {
        Some(a) => a.to_dtype(dtype)?.detach(),
        None => u.zeros_like()?,
    };
    let mut s = u.gt(&threshold(&a)?)?.to_dtype(dtype)?;
    let mut out = Vec::with_capacity(steps);
    for t in 0..steps {
        let mut current =
            product(&x.narrow(1, t, 1)?.squeeze(1)?.contiguous()?, &w.narrow(0, 0, inputs)?)?.broadcast_add(b)?;
        if recurrent {
            current = (current + product(&s, &w.narrow(0, inputs, width)?)?)?;
        }
        let reset = s.detach().affine(-f64::from(neuron.threshold), 0.0)?;
        u = (((u * f64::from(neuron.decay))? + current)? + reset)?;
        a = ((a * f64::from(rho))? + &s)?;
        s = fire_slow(&(&u - threshold(&a)?)?, neuron.slope)?;
        out.push(s.clone());
    }
    let adaptation = before.adaptation.is_some().then(|| a.detach());
    Ok((Tensor::stack(&out, 1)?, LifState { membrane: u.detach(), adaptation }))
}

/// A step function whose derivative is that of the fast sigmoid `v / (1 + k |v|)`, which adds nothing to its value.
fn fire_slow(v: &Tensor, slope: f32) -> Result<Tensor> {
    let smooth = (v / v.abs()?.affine(f64::from(slope), 1.0)?)?;
    v.detach().gt(0.0)?.to_dtype(v.dtype())? + (&smooth - smooth.detach())?
}

#[derive(Clone, Copy)]
struct Dims {
    streams: usize,
    steps: usize,
    inputs: usize,
    width: usize,
    recurrent: bool,
}

fn check(x: &Tensor, w: &Tensor, b: &Tensor, before: &LifState, neuron: Neuron) -> Result<Dims> {
    let ((streams, steps, inputs), width) = (x.dims3()?, before.membrane.dims2()?.1);
    let recurrent = w.dims() == [inputs + width, width];
    if !recurrent && w.dims() != [inputs, width] {
        bail!("lif weights: expected [{inputs}, {width}] or [{}, {width}], got {:?}", inputs + width, w.dims());
    }
    check_last("lif input", x, inputs)?;
    check_last("lif bias", b, width)?;
    if before.membrane.dims() != [streams, width] {
        bail!("lif membrane: expected [{streams}, {width}], got {:?}", before.membrane.dims());
    }
    let adaptation = before.adaptation.as_ref().map(Tensor::dims);
    if adaptation.is_some() != neuron.adaptive.is_some() || adaptation.is_some_and(|d| d != [streams, width]) {
        let expected = if neuron.adaptive.is_some() { format!("[{streams}, {width}]") } else { "none".into() };
        bail!("lif adaptation: expected {expected}, got {adaptation:?}");
    }
    Ok(Dims { streams, steps, inputs, width, recurrent })
}

/// Membranes and adaptation, `[B, H]` each.
struct Values {
    membrane: Vec<f32>,
    adaptation: Vec<f32>,
}

struct Lif {
    dims: Dims,
    neuron: Neuron,
    before: Values,
    record: bool,
    after: Arc<OnceLock<Values>>,
    /// `u_t - ϑ_t`, `[B, K, H]`.
    tape: Tape<Scratch>,
}

impl Lif {
    fn streams_per_task(&self) -> usize {
        if self.dims.recurrent { STREAMS_PER_TASK } else { 1 }
    }

    /// One task's streams: `excess` `[S, K, H]` becomes `u - ϑ`, `state` `[S, H]` twice goes from before to after.
    fn forward(
        &self,
        x: &[f32],
        (w, b): (&[f32], &[f32]),
        [membrane, adaptation]: [&mut [f32]; 2],
        [excess, spikes]: [&mut [f32]; 2],
    ) {
        let Dims { steps, inputs, width, recurrent, .. } = self.dims;
        let rows = x.len() / inputs;
        let (w_in, w_recurrent) = w.split_at(inputs * width);
        excess.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(b));
        let (x, w_in) = ((x, View::new(rows, inputs)), (w_in, View::new(inputs, width)));
        matmul((excess, View::new(rows, width)), x, w_in, Keep::Sum);
        let states = membrane.chunks_exact_mut(width).zip(adaptation.chunks_exact_mut(width));
        let segments = excess.chunks_exact_mut(steps * width).zip(spikes.chunks_exact_mut(steps * width));
        for ((u, a), (excess, spikes)) in states.zip(segments) {
            let (_, strength) = self.neuron.adaptation();
            let fires = |(&u, &a): (&f32, &f32)| f32::from(u > self.neuron.threshold + strength * a);
            let before: Vec<f32> = u.iter().zip(a.iter()).map(fires).collect();
            for t in 0..steps {
                let (past, now) = spikes.split_at_mut(t * width);
                let s_before = if t == 0 { &*before } else { &past[(t - 1) * width..] };
                let excess = &mut excess[t * width..(t + 1) * width];
                if recurrent {
                    // only the rows of neurons that fired
                    for (w, _) in w_recurrent.chunks_exact(width).zip(s_before).filter(|(_, s)| **s > 0.0) {
                        add(excess, w);
                    }
                }
                step(self.neuron, s_before, u, a, excess, &mut now[..width]);
            }
        }
    }

    /// One task's streams: `d_current` `[S, K, H]` from `dy` and `excess` `[S, K, H]`.
    fn backward(&self, w_recurrent_t: &[f32], excess: &[f32], dy: &[f32], d_current: &mut [f32]) {
        let Dims { steps, width, recurrent, .. } = self.dims;
        let streams = excess.len() / (steps * width);
        let mut du = Scratch::zeros(streams * width);
        let mut da = Scratch::zeros(streams * width);
        let mut ds = Scratch::zeros(streams * width); // from the currents of the step after
        for t in (0..steps).rev() {
            for s in 0..streams {
                let own = s * width..(s + 1) * width;
                let now = (s * steps + t) * width..(s * steps + t + 1) * width;
                let forward = (&excess[now.clone()], &dy[now.clone()], &ds[own.clone()]);
                let state = (&mut du[own.clone()], &mut da[own]);
                step_backward(self.neuron, forward, state, &mut d_current[now]);
            }
            if recurrent {
                let now = (&d_current[t * width..], View::strided(streams, width, steps * width));
                let w_t = (w_recurrent_t, View::new(width, width));
                matmul((&mut ds, View::new(streams, width)), now, w_t, Keep::Nothing);
            }
        }
    }

    /// Gradients of `x`, `w`, `b`.
    fn gradients(&self, x: &[f32], w: &[f32], spikes: &[f32], excess: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let Dims { streams, steps, inputs, width, recurrent } = self.dims;
        let (w_in, w_recurrent) = w.split_at(inputs * width);
        let (w_in_t, w_recurrent_t) = (transposed(w_in, width), transposed(w_recurrent, width));
        let per_task = self.streams_per_task() * steps;
        let mut d_current = Scratch::of(excess.len());
        let mut dx = vec![0.0; x.len()];
        let outputs = (d_current.par_chunks_mut(per_task * width), dx.par_chunks_mut(per_task * inputs));
        let db = (excess.par_chunks(per_task * width), dy.par_chunks(per_task * width), outputs.into_par_iter())
            .into_par_iter()
            .map(|(excess, dy, (d_current, dx))| {
                self.backward(&w_recurrent_t, excess, dy, d_current);
                let rows = d_current.len() / width;
                let back = (&*d_current, View::new(rows, width));
                matmul((dx, View::new(rows, inputs)), back, (&w_in_t, View::new(width, inputs)), Keep::Nothing);
                let mut db = vec![0.0; width];
                d_current.chunks_exact(width).for_each(|row| add(&mut db, row));
                db
            })
            .collect();
        let rows = streams * steps;
        let back = (&*d_current, View::new(rows, width));
        let mut dw = par_matmul((x, View::new(rows, inputs).t()), back);
        if recurrent {
            let before = self.spikes_before(spikes);
            dw.extend(par_matmul((&before, View::new(rows, width).t()), back));
        }
        [dx, dw, sum_in_order(db, width)]
    }

    /// The spikes of the step before each step, `[B·K, H]`.
    fn spikes_before(&self, spikes: &[f32]) -> Scratch {
        let Dims { steps, width, .. } = self.dims;
        let (_, strength) = self.neuron.adaptation();
        let mut shifted = Scratch::of(spikes.len());
        let segments = shifted.chunks_exact_mut(steps * width).zip(spikes.chunks_exact(steps * width));
        for (stream, (shifted, spikes)) in segments.enumerate() {
            let (first, later) = shifted.split_at_mut(width);
            later.copy_from_slice(&spikes[..(steps - 1) * width]);
            let own = stream * width..(stream + 1) * width;
            let state = self.before.membrane[own.clone()].iter().zip(&self.before.adaptation[own]);
            for (s, (u, a)) in first.iter_mut().zip(state) {
                *s = f32::from(*u > self.neuron.threshold + strength * a);
            }
        }
        shifted
    }
}

/// One step of one stream: `excess` arrives as the current and leaves as `u - ϑ`.
fn step(neuron: Neuron, s_before: &[f32], u: &mut [f32], a: &mut [f32], excess: &mut [f32], s: &mut [f32]) {
    let (rho, strength) = neuron.adaptation();
    let width = s.len();
    let (s_before, u, a, excess) = (&s_before[..width], &mut u[..width], &mut a[..width], &mut excess[..width]);
    for k in 0..width {
        u[k] = fma(neuron.decay, u[k], fma(-neuron.threshold, s_before[k], excess[k]));
        a[k] = fma(rho, a[k], s_before[k]);
        let over = u[k] - (neuron.threshold + strength * a[k]);
        excess[k] = over;
        // a membrane that is no number must not pass for a silent one
        let silent = if over <= 0.0 { 0.0 } else { over };
        s[k] = if over > 0.0 { 1.0 } else { silent };
    }
}

/// One step back: `forward` is `u - ϑ`, the gradient of the spikes and what the step after adds to it; `du` and `da`
/// arrive as the gradients from later steps and leave as those of the step before.
fn step_backward(
    neuron: Neuron,
    (excess, dy, ds): (&[f32], &[f32], &[f32]),
    (du, da): (&mut [f32], &mut [f32]),
    d_current: &mut [f32],
) {
    let (rho, strength) = neuron.adaptation();
    let width = d_current.len();
    let (excess, dy, ds) = (&excess[..width], &dy[..width], &ds[..width]);
    let (du, da) = (&mut du[..width], &mut da[..width]);
    for k in 0..width {
        let steep = fma(neuron.slope, excess[k].abs(), 1.0);
        let fired = (dy[k] + ds[k] + da[k]) / (steep * steep);
        du[k] = fma(neuron.decay, du[k], fired);
        da[k] = fma(rho, da[k], -strength * fired);
        d_current[k] = du[k];
    }
}

impl CustomOp3 for Lif {
    fn name(&self) -> &'static str {
        "lif"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Dims { streams, steps, inputs, width, .. } = self.dims;
        let (x, w, b) = (slice(s1, l1, "x")?, slice(s2, l2, "w")?, slice(s3, l3, "b")?);
        let (mut excess, mut spikes) = (Scratch::of(streams * steps * width), vec![0.0; streams * steps * width]);
        let (mut membrane, mut adaptation) = (self.before.membrane.clone(), self.before.adaptation.clone());
        let of_task = self.streams_per_task() * width;
        let state = (membrane.par_chunks_mut(of_task), adaptation.par_chunks_mut(of_task)).into_par_iter();
        let outputs = (excess.par_chunks_mut(of_task * steps), spikes.par_chunks_mut(of_task * steps)).into_par_iter();
        (x.par_chunks(self.streams_per_task() * steps * inputs), state, outputs)
            .into_par_iter()
            .for_each(|(x, (u, a), (excess, spikes))| self.forward(x, (w, b), [u, a], [excess, spikes]));
        if self.after.set(Values { membrane, adaptation }).is_err() {
            bail!("lif: the forward pass runs once");
        }
        if self.record {
            self.tape.put(excess);
        }
        Ok((CpuStorage::F32(spikes), Shape::from((streams, steps, width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        spikes: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let excess = self.tape.take()?;
        let back = |[x, w, spikes, dy]: [&[f32]; 4]| self.gradients(x, w, spikes, &excess, dy);
        let [dx, dw, db] = with_values([x, w, spikes, dy], back)?;
        Ok((gradient(dx, x)?, gradient(dw, w)?, gradient(db, b)?))
    }
}
