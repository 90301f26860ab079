use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor, bail};
use learner::operations::Source;
use rayon::prelude::*;

use super::attend::Head;
use super::linear::check_last;
use super::rotary::Rotary;
use super::{ROWS_PER_TASK, Tape, fused, gradient, matmul_slow, product, rms_norm_slow, slice, values_of, with_values};
use crate::count::{self, Watch, see};
use crate::kernels::{Keep, Panels, View, multiply, par_filled, par_matmul, rms_norm, rms_norm_backward};
use crate::scratch::Scratch;

/// What attention is given besides its input and weights.
#[derive(Clone, Debug)]
pub struct AttentionShape {
    /// Number of heads.
    pub heads: usize,
    /// Angles of `M + K` positions or more.
    pub rotary: Arc<Rotary>,
    /// Keys and values of the `M` steps before the segment, not rotated: `[B, M, 2D]`. No gradient reaches them.
    pub memory: Tensor,
    /// How many of the last of them belong to each stream's present recording.
    pub valid: Vec<usize>,
    /// What a step sees of the segment.
    pub sight: Sight,
}

/// What a step sees of its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Itself and the steps before it.
    Causal,
    /// All steps of its stream that are there, so many of each stream, and none of the padding behind them. A stream without
    /// any counts as one of one step.
    Whole(Vec<usize>),
}

impl Sight {
    /// Steps of a stream that all of its queries see; none if each sees those up to its own.
    fn length(&self, stream: usize) -> Option<usize> {
        match self {
            Self::Causal => None,
            Self::Whole(lengths) => Some(lengths[stream].max(1)),
        }
    }

    /// Pairs of a step and one that it sees, over all streams of so many steps.
    fn pairs(&self, streams: usize, steps: usize) -> usize {
        (0..streams).map(|s| self.length(s).map_or(steps * (steps + 1) / 2, |length| steps * length)).sum()
    }
}

/// Self-attention with memory and its residual, `x + attend(norm(x) · w_qkv) · w_o`: `x` `[B, K, D]`, `w_qkv`
/// `[D, 3D]`, `w_o` `[D, D]`. Returns the output `[B, K, D]` and the memory for the next segment `[B, M, 2D]`.
///
/// # Errors
/// If shapes do not fit, or `valid` or `sight` not the streams.
pub fn attention(x: &Tensor, w_qkv: &Tensor, w_o: &Tensor, shape: &AttentionShape) -> Result<(Tensor, Tensor)> {
    shape.check(x, w_qkv, w_o)?;
    if !fused(x) {
        let keys = shape.memory.dim(1)? + x.dim(1)?;
        count::unknown(x.elem_count() * (4 * x.dim(2)? + 2 * keys));
        return attention_slow(x, w_qkv, w_o, shape);
    }
    let (streams, steps, width) = x.dims3()?;
    let remembered = shape.memory.dim(1)?;
    let out = Arc::new(OnceLock::new());
    let op = Attention {
        heads: shape.heads,
        rotary: shape.rotary.clone(),
        valid: shape.valid.clone(),
        sight: shape.sight.clone(),
        memory: values_of(&shape.memory)?,
        dims: Dims { streams, steps, width, remembered, head: width / shape.heads },
        record: x.track_op() || w_qkv.track_op() || w_o.track_op(),
        next_memory: out.clone(),
        tape: Tape::new(),
    };
    let y = x.contiguous()?.apply_op3(&w_qkv.contiguous()?, &w_o.contiguous()?, op)?;
    let Some(next) = out.get() else { bail!("attention left no memory") };
    Ok((y, Tensor::from_slice(next, (streams, remembered, 2 * width), x.device())?))
}

/// [`attention`] in tensor operations.
///
/// # Errors
/// As [`attention`].
pub fn attention_slow(x: &Tensor, w_qkv: &Tensor, w_o: &Tensor, shape: &AttentionShape) -> Result<(Tensor, Tensor)> {
    shape.check(x, w_qkv, w_o)?;
    let (b, k, width) = x.dims3()?;
    let (heads, m) = (shape.heads, shape.memory.dim(1)?);
    let split = |t: &Tensor| -> Result<Tensor> {
        t.contiguous()?.reshape((b, t.dim(1)?, heads, width / heads))?.transpose(1, 2)?.contiguous()
    };
    let qkv = matmul_slow(&rms_norm_slow(x)?, w_qkv)?; // [B, K, 3D]
    let kv = Tensor::cat(&[&shape.memory.to_dtype(x.dtype())?, &qkv.narrow(2, width, 2 * width)?], 1)?; // [B, M+K, 2D]
    let q = shape.rotary.rotate_slow(m, &split(&qkv.narrow(2, 0, width)?)?)?; // [B, heads, K, d]
    let keys = shape.rotary.rotate_slow(0, &split(&kv.narrow(2, 0, width)?)?)?; // [B, heads, M+K, d]
    let values = split(&kv.narrow(2, width, width)?)?;
    let scale = ((width / heads) as f64).sqrt().recip();
    let scores = product(&q, &keys.transpose(2, 3)?)?.affine(scale, 0.0)?; // [B, heads, K, M+K]
    let p = candle_nn::ops::softmax(&scores.broadcast_add(&shape.mask(k, x)?)?, D::Minus1)?;
    let o = product(&p, &values)?.transpose(1, 2)?.contiguous()?.reshape((b, k, width))?;
    Ok(((x + matmul_slow(&o, w_o)?)?, kv.narrow(1, k, m)?.contiguous()?.detach()))
}

impl AttentionShape {
    fn check(&self, x: &Tensor, w_qkv: &Tensor, w_o: &Tensor) -> Result<()> {
        let (b, k, d) = x.dims3()?;
        let m = self.memory.dim(1)?;
        check_last("attention input", x, d)?;
        if w_qkv.dims() != [d, 3 * d] || w_o.dims() != [d, d] {
            bail!(
                "attention weights: expected [{d}, {}] and [{d}, {d}], got {:?} and {:?}",
                3 * d,
                w_qkv.dims(),
                w_o.dims()
            );
        }
        if self.memory.dims() != [b, m, 2 * d] || self.valid.len() != b || self.valid.iter().any(|&v| v > m) {
            bail!(
                "attention memory: expected [{b}, M, {}], got {:?}, valid {:?}",
                2 * d,
                self.memory.dims(),
                self.valid
            );
        }
        if let Sight::Whole(lengths) = &self.sight
            && (lengths.len() != b || lengths.iter().any(|&n| n > k))
        {
            bail!("attention lengths: expected {b} of {k} steps or less, got {lengths:?}");
        }
        if self.heads == 0 || d % (2 * self.heads) != 0 || self.rotary.dim() != d / self.heads {
            bail!("attention heads: expected heads of an even size in {d} channels, got {} heads", self.heads);
        }
        if self.rotary.positions() < m + k {
            bail!("attention positions: expected {} or more, got {}", m + k, self.rotary.positions());
        }
        Ok(())
    }

    /// `[B, 1, K, M+K]`, or 1 for `K` if all steps of a stream see the same: 0 where a step may look, far below any score
    /// elsewhere.
    fn mask(&self, k: usize, x: &Tensor) -> Result<Tensor> {
        const HIDDEN: f32 = -1e9;
        let (b, m) = (self.valid.len(), self.memory.dim(1)?);
        let rows = if self.sight == Sight::Causal { k } else { 1 };
        let mut mask = Vec::with_capacity(b * rows * (m + k));
        for (stream, &valid) in self.valid.iter().enumerate() {
            let length = self.sight.length(stream);
            for t in 0..rows {
                let end = m + length.unwrap_or(t + 1);
                mask.extend((0..m + k).map(|j| if (m - valid..end).contains(&j) { 0.0 } else { HIDDEN }));
            }
        }
        Tensor::from_vec(mask, (b, 1, rows, m + k), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
    }
}

#[derive(Clone, Copy)]
struct Dims {
    streams: usize,
    steps: usize,
    width: usize,
    remembered: usize,
    head: usize,
}

struct Recorded {
    /// `norm(x) · w_qkv`, not rotated: `[B, K, 3D]`.
    qkv: Scratch,
    /// `[B, heads, K, d]`.
    out: Scratch,
    /// Log of each query's normaliser, `[B, heads, K]`.
    log_sums: Scratch,
}

/// What is recorded of one stream.
struct OfStream<'a> {
    qkv: &'a [f32],
    out: &'a [f32],
    log_sums: &'a [f32],
}

impl Recorded {
    /// Of a stream with so many elements of its input, and so many queries.
    fn of_stream(&self, stream: usize, elements: usize, queries: usize) -> OfStream<'_> {
        OfStream {
            qkv: &self.qkv[stream * 3 * elements..][..3 * elements],
            out: &self.out[stream * elements..][..elements],
            log_sums: &self.log_sums[stream * queries..][..queries],
        }
    }
}

struct Attention {
    heads: usize,
    rotary: Arc<Rotary>,
    valid: Vec<usize>,
    sight: Sight,
    memory: Vec<f32>,
    dims: Dims,
    record: bool,
    next_memory: Arc<OnceLock<Vec<f32>>>,
    tape: Tape<Recorded>,
}

impl Attention {
    /// The operands of one head of one stream, whose queries, keys and values are `qkv`, `[K, 3D]`.
    fn head(&self, qkv: &[f32], (stream, head): (usize, usize)) -> Head {
        let Dims { steps, width, remembered, head: d, .. } = self.dims;
        let seen = self.valid[stream];
        let keys = (seen + steps) * d;
        let (q, k, v) = (Scratch::of(steps * d), Scratch::of(keys), Scratch::of(keys));
        let length = self.sight.length(stream).map(|own| seen + own);
        let mut h = Head { dim: d, steps, seen, length, q, k, v };
        let scale = 1.0 / (d as f32).sqrt();
        let memory = &self.memory[stream * remembered * 2 * width..(stream + 1) * remembered * 2 * width];
        let memory = memory.chunks_exact(2 * width).skip(remembered - seen);
        let own = qkv.chunks_exact(3 * width);
        for (t, (row, q)) in own.clone().zip(h.q.chunks_exact_mut(d)).enumerate() {
            self.rotary.rotate(remembered + t, &row[head * d..(head + 1) * d], scale, q);
        }
        let kv = memory.chain(own.map(|row| &row[width..]));
        for (j, ((row, k), v)) in kv.zip(h.k.chunks_exact_mut(d)).zip(h.v.chunks_exact_mut(d)).enumerate() {
            self.rotary.rotate(remembered - seen + j, &row[head * d..(head + 1) * d], 1.0, k);
            v.copy_from_slice(&row[width + head * d..width + (head + 1) * d]);
        }
        h
    }

    /// The last `M` of remembered and new keys and values, `[B, M, 2D]`.
    fn remember(&self, qkv: &[f32]) -> Vec<f32> {
        let Dims { streams, steps, width, remembered, .. } = self.dims;
        let mut next = Vec::with_capacity(streams * remembered * 2 * width);
        for stream in 0..streams {
            let old = &self.memory[stream * remembered * 2 * width..(stream + 1) * remembered * 2 * width];
            next.extend_from_slice(&old[steps.min(remembered) * 2 * width..]);
            let own = qkv[stream * steps * 3 * width..(stream + 1) * steps * 3 * width].chunks_exact(3 * width);
            own.skip(steps.saturating_sub(remembered)).for_each(|row| next.extend_from_slice(&row[width..]));
        }
        next
    }

    /// Rows `first ..` of a stream's `[K, D]` from its `[heads, K, d]`.
    fn rows_of_heads(&self, heads: &[f32], first: usize, rows: &mut [f32]) {
        let Dims { steps, width, head: d, .. } = self.dims;
        for (t, row) in (first..).zip(rows.chunks_exact_mut(width)) {
            for (head, part) in heads.chunks_exact(steps * d).zip(row.chunks_exact_mut(d)) {
                part.copy_from_slice(&head[t * d..(t + 1) * d]);
            }
        }
    }

    /// Stream by stream, so that what one step leaves to the next is still in the cache.
    fn forward(&self, x: &[f32], w_qkv: &[f32], w_o: &[f32]) -> (Vec<f32>, Recorded) {
        let Dims { steps, width, head: d, .. } = self.dims;
        let narrow = ROWS_PER_TASK * width;
        let panels_qkv = Panels::of((w_qkv, View::new(width, 3 * width)));
        let panels_o = Panels::of((w_o, View::new(width, width)));
        let watches = [Watch::new(w_qkv, 3 * width, Source::Values), Watch::new(w_o, width, Source::Values)];
        let (mut qkv, mut out) = (Scratch::of(3 * x.len()), Scratch::of(x.len()));
        let mut log_sums = Scratch::of(x.len() / d);
        let recorded = (
            qkv.par_chunks_mut(3 * steps * width),
            out.par_chunks_mut(steps * width),
            log_sums.par_chunks_mut(self.heads * steps),
        );
        let beside = (x.par_chunks(steps * width), recorded.into_par_iter()).into_par_iter();
        let y = par_filled(x.len(), steps * width, beside, |stream, y, (x, (qkv, out, log_sums))| {
            (x.par_chunks(narrow), qkv.par_chunks_mut(3 * narrow)).into_par_iter().for_each(|(x, qkv)| {
                let rows = x.len() / width;
                let mut n = Scratch::of(x.len());
                rms_norm(x, &mut n, width);
                see(watches.first(), &n);
                let wide = View::new(rows, 3 * width);
                multiply((qkv, wide), (&n, View::new(rows, width)), &panels_qkv, Keep::Nothing);
            });
            let heads = (out.par_chunks_mut(steps * d), log_sums.par_chunks_mut(steps)).into_par_iter().enumerate();
            heads.for_each(|(head, (out, log_sums))| self.head(qkv, (stream, head)).forward(out, log_sums));
            let blocks = (x.par_chunks(narrow), y.par_chunks_mut(narrow)).into_par_iter().enumerate();
            blocks.for_each(|(block, (x, y))| {
                y.copy_from_slice(x);
                let mut o = Scratch::of(y.len());
                self.rows_of_heads(out, block * ROWS_PER_TASK, &mut o);
                see(watches.last(), &o);
                let thin = View::new(y.len() / width, width);
                multiply((y, thin), (&o, thin), &panels_o, Keep::Sum);
            });
        });
        count::attention(watches, &self.valid, self.sight.pairs(self.dims.streams, steps), steps, width, self.heads);
        (y, Recorded { qkv, out, log_sums })
    }

    /// Gradient of the queries, keys and values of one head, `[3, K, d]`, rotation undone, from that of the stream's heads side
    /// by side, `[K, D]`.
    fn head_backward(&self, head: &Head, index: usize, of: &OfStream, d_rows: &[f32], grads: &mut [f32]) {
        let Dims { steps, width, remembered, head: d, .. } = self.dims;
        let mut d_out = Scratch::of(steps * d);
        for (row, d_out) in d_rows.chunks_exact(width).zip(d_out.chunks_exact_mut(d)) {
            d_out.copy_from_slice(&row[index * d..(index + 1) * d]);
        }
        let out = &of.out[index * steps * d..(index + 1) * steps * d];
        let log_sums = &of.log_sums[index * steps..(index + 1) * steps];
        let (dq, dkv) = grads.split_at_mut(steps * d);
        let (dk, dv) = dkv.split_at_mut(steps * d);
        let (mut rotated_q, mut rotated_k) = (Scratch::zeros(steps * d), Scratch::zeros(steps * d));
        dv.fill(0.0);
        head.backward(out, log_sums, &d_out, [&mut rotated_q, &mut rotated_k, dv]);
        let scale = 1.0 / (d as f32).sqrt();
        for (t, (from, to)) in rotated_q.chunks_exact(d).zip(dq.chunks_exact_mut(d)).enumerate() {
            self.rotary.rotate_back(remembered + t, from, scale, to);
        }
        for (t, (from, to)) in rotated_k.chunks_exact(d).zip(dk.chunks_exact_mut(d)).enumerate() {
            self.rotary.rotate_back(remembered + t, from, 1.0, to);
        }
    }

    /// Gradients of `x`, `w_qkv`, `w_o`. Stream by stream, as forward.
    fn backward(&self, (x, w_qkv, w_o): (&[f32], &[f32], &[f32]), recorded: &Recorded, dy: &[f32]) -> [Vec<f32>; 3] {
        let Dims { steps, width, head: d, .. } = self.dims;
        let (narrow, whole) = (ROWS_PER_TASK * width, steps * width);
        let w_qkv_t = Panels::of((w_qkv, View::new(width, 3 * width).t()));
        let w_o_t = Panels::of((w_o, View::new(width, width).t()));
        // [B·K, D] and [B·K, 3D]
        let (mut o, mut n, mut d_qkv) = (Scratch::of(x.len()), Scratch::of(x.len()), Scratch::of(3 * x.len()));
        let inputs = (x.par_chunks(whole), dy.par_chunks(whole)).into_par_iter();
        let outputs = (o.par_chunks_mut(whole), n.par_chunks_mut(whole), d_qkv.par_chunks_mut(3 * whole));
        let beside = inputs.zip(outputs.into_par_iter());
        let dx = par_filled(x.len(), whole, beside, |stream, dx, ((x, dy), (o, n, d_qkv))| {
            let of = recorded.of_stream(stream, whole, self.heads * steps);
            let mut d_o = Scratch::of(whole); // [K, D]
            let blocks = (dy.par_chunks(narrow), o.par_chunks_mut(narrow), d_o.par_chunks_mut(narrow)).into_par_iter();
            blocks.enumerate().for_each(|(block, (dy, o, d_o))| {
                self.rows_of_heads(of.out, block * ROWS_PER_TASK, o);
                let thin = View::new(dy.len() / width, width);
                multiply((d_o, thin), (dy, thin), &w_o_t, Keep::Nothing);
            });
            let mut d_heads = Scratch::of(3 * whole); // [heads, 3, K, d]
            d_heads.par_chunks_mut(3 * steps * d).enumerate().for_each(|(index, grads)| {
                let head = self.head(of.qkv, (stream, index));
                self.head_backward(&head, index, &of, &d_o, grads);
            });
            let inputs = (x.par_chunks(narrow), dy.par_chunks(narrow)).into_par_iter();
            let outputs = (dx.par_chunks_mut(narrow), n.par_chunks_mut(narrow), d_qkv.par_chunks_mut(3 * narrow));
            inputs.zip(outputs.into_par_iter()).enumerate().for_each(|(block, ((x, dy), (dx, n, d_qkv)))| {
                dx.copy_from_slice(dy);
                let rows = x.len() / width;
                self.rows_of_grads(&d_heads, block * ROWS_PER_TASK, d_qkv);
                let mut dn = Scratch::of(x.len());
                let (thin, wide) = (View::new(rows, width), View::new(rows, 3 * width));
                multiply((&mut dn, thin), (d_qkv, wide), &w_qkv_t, Keep::Nothing);
                rms_norm(x, n, width);
                rms_norm_backward(x, n, &dn, dx, width);
            });
        });
        let rows = x.len() / width;
        let (thin, wide) = (View::new(rows, width), View::new(rows, 3 * width));
        let d_w_qkv = par_matmul((&n, thin.t()), (&d_qkv, wide));
        let d_w_o = par_matmul((&o, thin.t()), (dy, thin));
        [dx, d_w_qkv, d_w_o]
    }

    /// Rows `first ..` of a stream's `[K, 3D]` from its `[heads, 3, K, d]`.
    fn rows_of_grads(&self, heads: &[f32], first: usize, rows: &mut [f32]) {
        let Dims { steps, width, head: d, .. } = self.dims;
        for (t, row) in (first..).zip(rows.chunks_exact_mut(3 * width)) {
            for (j, part) in row.chunks_exact_mut(d).enumerate() {
                let (kind, head) = (j / self.heads, j % self.heads);
                let at = ((head * 3 + kind) * steps + t) * d;
                part.copy_from_slice(&heads[at..at + d]);
            }
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
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
        let (y, recorded) = self.forward(slice(s1, l1, "x")?, slice(s2, l2, "w_qkv")?, slice(s3, l3, "w_o")?);
        if self.next_memory.set(self.remember(&recorded.qkv)).is_err() {
            bail!("attention: the forward pass runs once");
        }
        if self.record {
            self.tape.put(recorded);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w_qkv: &Tensor,
        w_o: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let recorded = self.tape.take()?;
        let back = |[x, qkv, o, dy]: [&[f32]; 4]| self.backward((x, qkv, o), &recorded, dy);
        let [dx, d_qkv, d_o] = with_values([x, w_qkv, w_o, dy], back)?;
        Ok((gradient(dx, x)?, gradient(d_qkv, w_qkv)?, gradient(d_o, w_o)?))
    }
}
