//! A block of Mamba (Gu & Dao 2023, figure 3) with its residual, from the norm to the sum.
//!
//! `block.rs` is the block in stages over rows, `backward.rs` the way back through them, `conv.rs` the causal convolution,
//! `scan.rs` the selective scan.

mod backward;
mod block;
mod conv;
mod operations;
mod scan;

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use self::block::{Block, Recorded};
use super::linear::check_last;
use super::{Tape, device, fused, gradient, matmul_slow, rms_norm_slow, sigmoid_slow, slice, values_of, with_values};
use crate::count;

/// Sizes of a Mamba block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MambaShape {
    /// Channels of the residual stream, `D`.
    pub width: usize,
    /// Channels inside the block, `H`.
    pub channels: usize,
    /// States per channel, `N`.
    pub states: usize,
    /// Rank of the step sizes' projection, `R`.
    pub rank: usize,
    /// Taps of the convolution, `W`.
    pub taps: usize,
}

impl MambaShape {
    /// What a step selects: the low-rank step sizes, `B` and `C`.
    fn selected(&self) -> usize {
        self.rank + 2 * self.states
    }

    /// Shapes of the weights after the first, in the order of [`MambaWeights`].
    fn dims(&self) -> [Vec<usize>; 8] {
        let Self { width, channels, states, rank, taps } = *self;
        [
            vec![taps, channels],
            vec![channels],
            vec![channels, self.selected()],
            vec![rank, channels],
            vec![channels],
            vec![channels, states],
            vec![channels],
            vec![channels, width],
        ]
    }
}

/// The weights of a Mamba block.
#[derive(Clone, Debug)]
pub struct MambaWeights {
    /// `[D, 2H]`: columns of the scanned path, then of the gate.
    pub input: Tensor,
    /// `[W, H]`: the tap of the oldest step first.
    pub conv: Tensor,
    /// `[H]`.
    pub conv_bias: Tensor,
    /// `[H, R + 2N]`: columns of the low-rank step sizes, of `B`, of `C`.
    pub select: Tensor,
    /// `[R, H]`.
    pub step: Tensor,
    /// `[H]`.
    pub step_bias: Tensor,
    /// `ln(-A)`, `[H, N]`.
    pub log_decay: Tensor,
    /// `D` of the paper, `[H]`.
    pub skip: Tensor,
    /// `[H, D]`.
    pub output: Tensor,
}

impl MambaWeights {
    /// All but the first.
    fn rest(&self) -> [&Tensor; 8] {
        let Self { conv, conv_bias, select, step, step_bias, log_decay, skip, output, .. } = self;
        [conv, conv_bias, select, step, step_bias, log_decay, skip, output]
    }

    /// All but the first in one row: an operation takes three tensors.
    fn packed(&self) -> Result<Tensor> {
        let rows = self.rest().into_iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&rows, 0)
    }
}

/// What a Mamba block carries from one segment to the next. Zeros at the start of a stream.
#[derive(Clone, Debug)]
pub struct MambaState {
    /// The last inputs of the convolution, the oldest first, `[B, W - 1, H]`.
    pub inputs: Tensor,
    /// The scan's states, `[B, H, N]`.
    pub hidden: Tensor,
}

/// A Mamba block over a segment, with its residual: `x + (y ⊙ silu(z)) · output`, where `[v, z] = norm(x) · input`,
/// `u = silu(conv(v))`, `[r, B, C] = u · select`, `Δ = softplus(r · step + step_bias)` and `y` is the selective scan
/// `h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t`, `y_t = C_t h_t + skip ⊙ u_t` (Gu & Dao 2023, algorithm 2).
///
/// `x` `[B, K, D]` → `[B, K, D]` and the state after the segment, detached. Nothing goes back into the state before it.
///
/// # Errors
/// If shapes do not fit.
pub fn mamba(x: &Tensor, w: &MambaWeights, before: &MambaState, shape: MambaShape) -> Result<(Tensor, MambaState)> {
    let (streams, steps) = check(x, w, before, shape)?;
    if !fused(x) {
        let MambaShape { width, channels, states, taps, .. } = shape;
        let per_row = channels * (3 * width + shape.selected() + shape.rank + taps + 2 * states);
        count::unknown(streams * steps * per_row);
        return mamba_slow(x, w, before, shape);
    }
    let rest = w.packed()?;
    let after = Arc::new(OnceLock::new());
    let block = Block { shape, steps, inputs: values_of(&before.inputs)?, hidden: values_of(&before.hidden)? };
    let record = x.track_op() || w.input.track_op() || rest.track_op();
    let op = Mamba { block, record, after: after.clone(), tape: Tape::new() };
    let y = x.contiguous()?.apply_op3(&w.input.contiguous()?, &rest, op)?;
    let Some(After { inputs, hidden }) = after.get() else { bail!("mamba left no state") };
    let tensor = |v: &[f32], dims: [usize; 3]| Tensor::from_slice(v, &dims, x.device());
    let inputs = tensor(inputs, [streams, shape.taps - 1, shape.channels])?;
    Ok((y, MambaState { inputs, hidden: tensor(hidden, [streams, shape.channels, shape.states])? }))
}

/// [`mamba`] in tensor operations; the scan is step by step, or a kernel on a GPU.
///
/// # Errors
/// If shapes do not fit.
pub fn mamba_slow(
    x: &Tensor,
    w: &MambaWeights,
    before: &MambaState,
    shape: MambaShape,
) -> Result<(Tensor, MambaState)> {
    let (_, steps) = check(x, w, before, shape)?;
    let MambaShape { channels, states, rank, taps, .. } = shape;
    let silu = |z: &Tensor| z * sigmoid_slow(z)?;
    let vz = matmul_slow(&rms_norm_slow(x)?, &w.input)?; // [B, K, 2H]
    let (v, z) = (vz.narrow(2, 0, channels)?, vz.narrow(2, channels, channels)?);
    let v = Tensor::cat(&[&before.inputs.to_dtype(x.dtype())?.detach(), &v], 1)?; // [B, W - 1 + K, H]
    let mut u = w.conv_bias.broadcast_as((x.dim(0)?, steps, channels))?;
    for j in 0..taps {
        u = (u + v.narrow(1, j, steps)?.broadcast_mul(&w.conv.get(j)?)?)?;
    }
    let u = silu(&u)?; // [B, K, H]
    let selected = matmul_slow(&u, &w.select)?; // [B, K, R + 2N]
    let delta = matmul_slow(&selected.narrow(2, 0, rank)?.contiguous()?, &w.step)?.broadcast_add(&w.step_bias)?;
    let delta = (delta.relu()? + delta.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?)?; // softplus
    let a = w.log_decay.exp()?.neg()?; // [H, N]
    let (bc, h) = (selected.narrow(2, rank, 2 * states)?, before.hidden.to_dtype(x.dtype())?.detach());
    let (y, h) = match device::scan(&delta, &u, &bc, &a, &h)? {
        Some(done) => done,
        None => scan_slow(&delta, &u, &bc, &a, h)?,
    };
    let y = (y + u.broadcast_mul(&w.skip)?)?;
    let y = (x + matmul_slow(&(y * silu(&z)?)?, &w.output)?)?;
    Ok((y, MambaState { inputs: v.narrow(1, steps, taps - 1)?.contiguous()?.detach(), hidden: h.detach() }))
}

/// The selective scan in tensor operations, step by step: `delta` and `u` `[B, K, H]`, `B` beside `C` `[B, K, 2N]`, `a` `[H, N]`,
/// the state before the segment `[B, H, N]` → outputs `[B, K, H]` and the state after it, on the graph. The twin of the GPU's kernel.
///
/// # Errors
/// If shapes do not fit.
pub fn scan_slow(delta: &Tensor, u: &Tensor, bc: &Tensor, a: &Tensor, mut h: Tensor) -> Result<(Tensor, Tensor)> {
    let (steps, states) = (u.dim(1)?, a.dim(1)?);
    let mut out = Vec::with_capacity(steps);
    for t in 0..steps {
        let at = |s: &Tensor| s.narrow(1, t, 1)?.squeeze(1);
        let delta = at(delta)?.unsqueeze(2)?; // [B, H, 1]
        let b = at(&bc.narrow(2, 0, states)?)?.unsqueeze(1)?; // [B, 1, N]
        let c = at(&bc.narrow(2, states, states)?)?.unsqueeze(1)?;
        let input = (&delta * at(u)?.unsqueeze(2)?)?.broadcast_mul(&b)?;
        h = ((delta.broadcast_mul(a)?.exp()? * h)? + input)?;
        out.push(h.broadcast_mul(&c)?.sum(2)?);
    }
    Ok((Tensor::stack(&out, 1)?, h))
}

/// Streams and steps.
fn check(x: &Tensor, w: &MambaWeights, before: &MambaState, shape: MambaShape) -> Result<(usize, usize)> {
    let (streams, steps, _) = x.dims3()?;
    let MambaShape { width, channels, states, rank, taps } = shape;
    check_last("mamba input", x, width)?;
    if [width, channels, states, rank, taps].contains(&0) {
        bail!("mamba: expected sizes of 1 or more, got {shape:?}");
    }
    let expect = |operand: &str, t: &Tensor, dims: &[usize]| {
        if t.dims() != dims {
            bail!("mamba {operand}: expected {dims:?}, got {:?}", t.dims());
        }
        Ok(())
    };
    expect("input weights", &w.input, &[width, 2 * channels])?;
    let names = ["conv", "conv_bias", "select", "step", "step_bias", "log_decay", "skip", "output"];
    for ((name, t), dims) in names.iter().zip(w.rest()).zip(shape.dims()) {
        expect(name, t, &dims)?;
    }
    expect("inputs before", &before.inputs, &[streams, taps - 1, channels])?;
    expect("state before", &before.hidden, &[streams, channels, states])?;
    Ok((streams, steps))
}

/// The state after the segment.
struct After {
    inputs: Vec<f32>,
    hidden: Vec<f32>,
}

struct Mamba {
    block: Block,
    record: bool,
    after: Arc<OnceLock<After>>,
    tape: Tape<Recorded>,
}

impl CustomOp3 for Mamba {
    fn name(&self) -> &'static str {
        "mamba"
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
        let (x, input, rest) = (slice(s1, l1, "x")?, slice(s2, l2, "input weights")?, slice(s3, l3, "weights")?);
        let (y, recorded, after) = self.block.forward(x, input, rest);
        if self.after.set(after).is_err() {
            bail!("mamba: the forward pass runs once");
        }
        if self.record {
            self.tape.put(recorded);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        input: &Tensor,
        rest: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let recorded = self.tape.take()?;
        let back = |[x, input, rest, dy]: [&[f32]; 4]| self.block.backward(x, input, rest, &recorded, dy);
        let [dx, d_input, d_rest] = with_values([x, input, rest, dy], back)?;
        Ok((gradient(dx, x)?, gradient(d_input, input)?, gradient(d_rest, rest)?))
    }
}
