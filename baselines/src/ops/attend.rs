//! Attention of one head over one stream's segment, in blocks of queries: no `T × T` matrix is kept, only the log
//! of each query's normaliser (Dao et al. 2022).

use crate::kernels::{Keep, Panels, View, dot, exp, matmul, max, multiply, sum};
use crate::scratch::Scratch;

/// Queries per block.
const BLOCK: usize = 64;

/// Rotated and scaled operands of one head: query `t` sees keys `0 ..= seen + t`, or the first
/// `length`.
pub(super) struct Head {
    /// Values per key, `d`.
    pub dim: usize,
    /// Queries, `K`.
    pub steps: usize,
    /// Remembered keys before the segment.
    pub seen: usize,
    /// Keys that every query sees, the remembered ones among them: more than `seen`, at most `seen + K`. None if each sees
    /// those up to its own step.
    pub length: Option<usize>,
    /// `[K, d]`, already divided by `√d`.
    pub q: Scratch,
    /// `[seen + K, d]`.
    pub k: Scratch,
    /// `[seen + K, d]`.
    pub v: Scratch,
}

impl Head {
    fn keys(&self) -> usize {
        self.seen + self.steps
    }

    /// Keys that query `t` sees.
    fn visible(&self, t: usize) -> usize {
        self.length.unwrap_or(self.seen + t + 1)
    }

    /// Rows of keys or values on their side: `[d, seen + K]`.
    fn turned(&self, rows: &[f32]) -> Panels {
        Panels::of((rows, View::new(self.keys(), self.dim).t()))
    }

    /// `a · bᵀ` of a block's queries with its visible keys: `[queries, visible]`.
    fn against_keys(&self, a: &[f32], bt: &Panels, visible: usize, dst: &mut [f32]) {
        let queries = a.len() / self.dim;
        multiply((dst, View::new(queries, visible)), (a, View::new(queries, self.dim)), bt, Keep::Nothing);
    }

    /// Output `[K, d]` and the log of each query's normaliser, `[K]`.
    pub fn forward(&self, out: &mut [f32], log_sums: &mut [f32]) {
        let d = self.dim;
        let (kt, v) = (self.turned(&self.k), Panels::of((&self.v, View::new(self.keys(), d))));
        let mut scores = Scratch::of(BLOCK.min(self.steps) * self.keys());
        for start in (0..self.steps).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.steps);
            let (visible, queries) = (self.visible(end - 1), end - start);
            let p = &mut scores[..queries * visible];
            self.against_keys(&self.q[start * d..end * d], &kt, visible, p);
            for (i, row) in p.chunks_exact_mut(visible).enumerate() {
                let (own, future) = row.split_at_mut(self.visible(start + i));
                let top = max(own);
                for s in own.iter_mut() {
                    *s = exp(*s - top);
                }
                let total = sum(own);
                for s in own.iter_mut() {
                    *s /= total;
                }
                future.fill(0.0);
                log_sums[start + i] = top + total.ln();
            }
            let o = (&mut out[start * d..end * d], View::new(queries, d));
            multiply(o, (p, View::new(queries, visible)), &v, Keep::Nothing);
        }
    }

    /// Gradients of the (scaled, rotated) queries and of the segment's own keys and values, `[K, d]` each. Nothing goes
    /// back into what is remembered.
    pub fn backward(&self, out: &[f32], log_sums: &[f32], d_out: &[f32], [dq, dk, dv]: [&mut [f32]; 3]) {
        let d = self.dim;
        let (kt, vt) = (self.turned(&self.k), self.turned(&self.v));
        let k = Panels::of((&self.k, View::new(self.keys(), d)));
        let mut scores = Scratch::of(BLOCK.min(self.steps) * self.keys());
        let mut d_scores = Scratch::of(scores.len());
        for start in (0..self.steps).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.steps);
            let (visible, queries) = (self.visible(end - 1), end - start);
            let block = start * d..end * d;
            let (p, ds) = (&mut scores[..queries * visible], &mut d_scores[..queries * visible]);
            self.against_keys(&self.q[block.clone()], &kt, visible, p);
            self.against_keys(&d_out[block.clone()], &vt, visible, ds);
            for (i, (p, ds)) in p.chunks_exact_mut(visible).zip(ds.chunks_exact_mut(visible)).enumerate() {
                let t = start + i;
                let (own, future) = p.split_at_mut(self.visible(t));
                let (d_own, d_future) = ds.split_at_mut(self.visible(t));
                let mean = dot(&out[t * d..(t + 1) * d], &d_out[t * d..(t + 1) * d]); // Σ_j p_j dp_j
                let log_sum = log_sums[t];
                for (p, ds) in own.iter_mut().zip(d_own) {
                    *p = exp(*p - log_sum);
                    *ds = *p * (*ds - mean);
                }
                future.fill(0.0);
                d_future.fill(0.0);
            }
            let all = View::new(queries, visible);
            let rows = View::new(queries, d);
            multiply((&mut dq[block.clone()], rows), (ds, all), &k, Keep::Nothing);
            let keys = visible - self.seen; // of the segment
            let (own, sums) = (View::strided(queries, keys, visible).t(), View::new(keys, d));
            matmul((&mut dv[..keys * d], sums), (&p[self.seen..], own), (&d_out[block.clone()], rows), Keep::Sum);
            matmul((&mut dk[..keys * d], sums), (&ds[self.seen..], own), (&self.q[block], rows), Keep::Sum);
        }
    }
}
