//! A causal convolution over time, each channel on its own, for a run of rows of `[B·K, …]`.

use crate::kernels::fma;

/// Where the convolution's inputs are: rows of a segment and what was carried from before it.
#[derive(Clone, Copy)]
pub(super) struct Series<'a> {
    /// Steps of a segment, `K`.
    pub steps: usize,
    /// Channels, `H`.
    pub channels: usize,
    /// Remembered steps, `W - 1`.
    pub remembered: usize,
    /// `[B·K, stride]`, of which the first `H` columns are read.
    pub rows: &'a [f32],
    /// Distance of rows.
    pub stride: usize,
    /// `[B, W - 1, H]`, the oldest first.
    pub before: &'a [f32],
}

impl<'a> Series<'a> {
    /// The input `lag` steps before row `row`.
    pub fn at(&self, row: usize, lag: usize) -> &'a [f32] {
        let t = row % self.steps;
        if t >= lag {
            &self.rows[(row - lag) * self.stride..][..self.channels]
        } else {
            self.remembered(row / self.steps, self.remembered + t - lag)
        }
    }

    fn remembered(&self, stream: usize, i: usize) -> &'a [f32] {
        &self.before[(stream * self.remembered + i) * self.channels..][..self.channels]
    }

    /// What the next segment needs of this one, `[B, W - 1, H]`.
    pub fn after(&self, streams: usize) -> Vec<f32> {
        let mut after = Vec::with_capacity(self.before.len());
        for stream in 0..streams {
            for i in 0..self.remembered {
                // counted from the start of the remembered steps
                let at = self.steps + i;
                after.extend_from_slice(match at.checked_sub(self.remembered) {
                    Some(t) => self.at(stream * self.steps + t, 0),
                    None => self.remembered(stream, at),
                });
            }
        }
        after
    }
}

/// `out_t = bias + Σ_j w_j v_{t - (W - 1 - j)}` for one row; `w` `[W, H]`.
pub(super) fn forward(series: &Series, row: usize, w: &[f32], bias: &[f32], out: &mut [f32]) {
    out.copy_from_slice(bias);
    for (j, w) in w.chunks_exact(series.channels).enumerate() {
        let v = series.at(row, series.remembered - j);
        for ((o, &w), &v) in out.iter_mut().zip(w).zip(v) {
            *o = fma(w, v, *o);
        }
    }
}

/// Adds one row's share to the gradients of `w` `[W, H]` and `bias` `[H]`.
pub(super) fn backward_weights(series: &Series, row: usize, d_out: &[f32], dw: &mut [f32], d_bias: &mut [f32]) {
    for (j, dw) in dw.chunks_exact_mut(series.channels).enumerate() {
        let v = series.at(row, series.remembered - j);
        for ((dw, &d), &v) in dw.iter_mut().zip(d_out).zip(v) {
            *dw = fma(d, v, *dw);
        }
    }
    for (db, &d) in d_bias.iter_mut().zip(d_out) {
        *db += d;
    }
}

/// The gradient of the input of one row, from `d_out` `[B·K, H]`.
pub(super) fn backward_input(d_out: &[f32], row: usize, steps: usize, w: &[f32], dv: &mut [f32]) {
    let channels = dv.len();
    let taps = w.len() / channels;
    dv.fill(0.0);
    for (j, w) in w.chunks_exact(channels).enumerate() {
        let lag = taps - 1 - j;
        if row % steps + lag < steps {
            let d = &d_out[(row + lag) * channels..][..channels];
            for ((dv, &w), &d) in dv.iter_mut().zip(w).zip(d) {
                *dv = fma(w, d, *dv);
            }
        }
    }
}
