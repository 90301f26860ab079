// Leaky integrate-and-fire neurons over a segment, K steps a launch (ops/lif.rs is the twin). Arrays are row-major.
// B streams, K steps, H neurons. `w` are the recurrent weights or null; with them a block has a stream to itself, without
// them the neurons of a stream may be spread over blocks.

// current [B, K, H] arrives as x w + b and leaves as u - threshold; membrane, adaptation [B, H] go from before to after;
// before [B, H]: spikes of the step before the segment; spikes [B, K, H]; w [H, H]: from row to column.
extern "C" __global__ void __launch_bounds__(1024) lif_forward(int steps, int width, float decay, float threshold, float rho,
    float strength, const float *__restrict__ w, float *current, float *membrane, float *adaptation, float *before, float *spikes) {
  const int first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
  const size_t stream = size_t(blockIdx.y) * width;
  float *u = membrane + stream, *a = adaptation + stream, *s_before = before + stream;
  current += stream * steps;
  spikes += stream * steps;
  for (int k = first; k < width; k += stride)
    // products and sums apart, as the twin rounds them: no fused operation
    s_before[k] = u[k] > __fadd_rn(threshold, __fmul_rn(strength, a[k])) ? 1.0f : 0.0f;
  for (int t = 0; t < steps; ++t) {
    if (w) __syncthreads();
    const float *past = t == 0 ? s_before : spikes + size_t(t - 1) * width;
    for (int k = first; k < width; k += stride) {
      const size_t at = size_t(t) * width + k;
      float sum = current[at];
      if (w)
        for (int j = 0; j < width; ++j)
          if (past[j] > 0.0f) sum += w[size_t(j) * width + k];
      const float reset = fmaf(-threshold, past[k], sum);
      u[k] = fmaf(decay, u[k], reset);
      a[k] = fmaf(rho, a[k], past[k]);
      const float over = __fsub_rn(u[k], __fadd_rn(threshold, __fmul_rn(strength, a[k])));
      current[at] = over;
      // a membrane that is no number must not pass for a silent one
      spikes[at] = over > 0.0f ? 1.0f : over <= 0.0f ? 0.0f : over;
    }
  }
}

// d_current [B, K, H] from excess = u - threshold and dy [B, K, H]; du, da [B, H] are scratch and arrive as zeros;
// w_t [H, H]: the recurrent weights transposed, or null.
extern "C" __global__ void __launch_bounds__(1024) lif_backward(int steps, int width, float decay, float slope, float rho,
    float strength, const float *__restrict__ w_t, const float *__restrict__ excess, const float *__restrict__ dy, float *du,
    float *da, float *d_current) {
  const int first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
  const size_t stream = size_t(blockIdx.y) * width;
  du += stream;
  da += stream;
  excess += stream * steps;
  dy += stream * steps;
  d_current += stream * steps;
  for (int t = steps - 1; t >= 0; --t) {
    if (w_t) __syncthreads();
    for (int k = first; k < width; k += stride) {
      const size_t at = size_t(t) * width + k;
      float ds = 0.0f;  // from the currents of the step after
      if (w_t && t + 1 < steps)
        for (int j = 0; j < width; ++j) ds = fmaf(d_current[at - k + width + j], w_t[size_t(j) * width + k], ds);
      const float steep = fmaf(slope, fabsf(excess[at]), 1.0f);
      const float fired = (dy[at] + ds + da[k]) / (steep * steep);
      du[k] = fmaf(decay, du[k], fired);
      da[k] = fmaf(rho, da[k], -strength * fired);
      d_current[at] = du[k];
    }
  }
}
