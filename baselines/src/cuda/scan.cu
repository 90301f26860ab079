// The selective scan (Gu & Dao 2023, algorithm 2), K steps a launch (ops/mamba/scan.rs is the twin). Arrays are row-major.
// B streams, K steps, H channels, N states: h = exp(delta a) h + delta u B, y = sum over N of C h.
// A block is (lanes, channels) threads: lanes is a power of two, at least N and at most 32; a thread has one state of one channel.

constexpr int BLOCK = 16;  // steps between kept states

__device__ __forceinline__ float sum_over_states(float v, int lanes) {
  for (int by = lanes / 2; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by, lanes);
  return v;
}

// du [B, K, 2H]: delta, then u; bc [B, K, 2N]: B, then C; a [H, N]; h [B, H, N] from before to after; kept [B, ceil(K / 16), H, N]:
// states at the start of every 16 steps; y [B, K, H].
extern "C" __global__ void __launch_bounds__(256) scan_forward(int steps, int channels, int states, const float *__restrict__ du,
    const float *__restrict__ bc, const float *__restrict__ a, float *h, float *kept, float *y) {
  const int n = threadIdx.x, c = blockIdx.x * blockDim.y + threadIdx.y, b = blockIdx.y, lanes = blockDim.x;
  const bool here = c < channels && n < states;
  const size_t cell = size_t(c) * states + n;
  const int blocks = (steps + BLOCK - 1) / BLOCK;
  const float rate = here ? a[cell] : 0.0f;
  float state = here ? h[size_t(b) * channels * states + cell] : 0.0f;
  for (int t = 0; t < steps; ++t) {
    if (here && t % BLOCK == 0) kept[(size_t(b) * blocks + t / BLOCK) * channels * states + cell] = state;
    const size_t row = size_t(b) * steps + t;
    float term = 0.0f;
    if (here) {
      const float delta = du[row * 2 * channels + c], u = du[row * 2 * channels + channels + c];
      state = fmaf(expf(delta * rate), state, delta * u * bc[row * 2 * states + n]);
      term = state * bc[row * 2 * states + states + n];
    }
    const float sum = sum_over_states(term, lanes);
    if (here && n == 0) y[row * channels + c] = sum;
  }
  if (here) h[size_t(b) * channels * states + cell] = state;
}

// From dy [B, K, H]: d_du [B, K, 2H]; d_bc [B, blocks of channels, K, 2N], to be summed over the second; d_a [B, H, N], to be
// summed over the first. In an order of its own and always the same: no atomic operations.
extern "C" __global__ void __launch_bounds__(256) scan_backward(int steps, int channels, int states, const float *__restrict__ du,
    const float *__restrict__ bc, const float *__restrict__ a, const float *__restrict__ kept, const float *__restrict__ dy,
    float *d_du, float *d_bc, float *d_a) {
  __shared__ float part_b[1024], part_c[1024];
  const int n = threadIdx.x, r = threadIdx.y, c = blockIdx.x * blockDim.y + r, b = blockIdx.y, lanes = blockDim.x;
  const bool here = c < channels && n < states;
  const size_t cell = size_t(c) * states + n;
  const int blocks = (steps + BLOCK - 1) / BLOCK;
  const float rate = here ? a[cell] : 0.0f;
  float dh = 0.0f, da = 0.0f;  // dh: from later steps
  for (int block = blocks - 1; block >= 0; --block) {
    const int start = block * BLOCK, count = min(BLOCK, steps - start);
    float before[BLOCK], decay[BLOCK];  // the states within the block, once more
    float state = here ? kept[(size_t(b) * blocks + block) * channels * states + cell] : 0.0f;
    for (int i = 0; i < BLOCK; ++i) {
      before[i] = state;
      decay[i] = 0.0f;
      if (i < count && here) {
        const size_t row = size_t(b) * steps + start + i;
        const float delta = du[row * 2 * channels + c], u = du[row * 2 * channels + channels + c];
        decay[i] = expf(delta * rate);
        state = fmaf(decay[i], state, delta * u * bc[row * 2 * states + n]);
      }
    }
    for (int i = BLOCK - 1; i >= 0; --i) {
      if (i >= count) continue;
      const size_t row = size_t(b) * steps + start + i;
      float to_delta = 0.0f, to_scaled = 0.0f, to_b = 0.0f, to_c = 0.0f, delta = 0.0f, u = 0.0f;
      if (here) {
        delta = du[row * 2 * channels + c];
        u = du[row * 2 * channels + channels + c];
        const float gradient = dy[row * channels + c];
        const float g = fmaf(bc[row * 2 * states + states + n], gradient, dh);
        const float scaled = delta * u, in = bc[row * 2 * states + n];
        const float after = fmaf(decay[i], before[i], scaled * in);
        to_c = after * gradient;
        to_b = g * scaled;
        const float carried = g * decay[i];
        const float product = carried * before[i];  // of delta a, through the exponential
        to_delta = product * rate;
        da = fmaf(product, delta, da);
        to_scaled = g * in;
        dh = carried;
      }
      const float delta_sum = sum_over_states(fmaf(to_scaled, u, to_delta), lanes);
      const float scaled_sum = sum_over_states(to_scaled, lanes);
      if (here && n == 0) {
        d_du[row * 2 * channels + c] = delta_sum;
        d_du[row * 2 * channels + channels + c] = scaled_sum * delta;
      }
      part_b[r * lanes + n] = to_b;
      part_c[r * lanes + n] = to_c;
      __syncthreads();
      if (r == 0 && n < states) {
        float sum_b = 0.0f, sum_c = 0.0f;
        for (int k = 0; k < int(blockDim.y); ++k) {
          sum_b += part_b[k * lanes + n];
          sum_c += part_c[k * lanes + n];
        }
        float *to = d_bc + ((size_t(b) * gridDim.x + blockIdx.x) * steps + start + i) * 2 * states;
        to[n] = sum_b;
        to[states + n] = sum_c;
      }
      __syncthreads();  // before the next step writes its parts
    }
  }
  if (here) d_a[size_t(b) * channels * states + cell] = da;
}
