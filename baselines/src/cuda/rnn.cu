// A GRU or a simple recurrent layer over a segment, K steps a launch, a block per stream (ops/rnn.rs is the twin).
// Arrays are row-major. B streams, K steps, H units.

__device__ __forceinline__ float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// from_x [B, K, 3H]: the input's product, candidate, reset, update; w [H, 3H]: the hidden state's rows, columns of reset,
// update, candidate; b [4H]: of n, r, z, u; hidden [B, H]; sums [B, K, 4H]: n, r, z after their nonlinearities and u; out [B, K, H].
extern "C" __global__ void __launch_bounds__(1024) gru_forward(int steps, int width, const float *__restrict__ from_x,
    const float *__restrict__ w, const float *__restrict__ b, const float *__restrict__ hidden, float *sums, float *out) {
  const size_t stream = size_t(blockIdx.x) * width;
  from_x += stream * steps * 3;
  sums += stream * steps * 4;
  out += stream * steps;
  for (int t = 0; t < steps; ++t) {
    if (t) __syncthreads();  // all of the hidden state before is there
    const float *h = t == 0 ? hidden + stream : out + size_t(t - 1) * width;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      const float *x = from_x + size_t(t) * 3 * width + k;
      float r = x[width] + b[width + k], z = x[2 * width] + b[2 * width + k], u = b[3 * width + k];
      for (int j = 0; j < width; ++j) {
        const float *column = w + size_t(j) * 3 * width + k;
        r = fmaf(h[j], column[0], r);
        z = fmaf(h[j], column[width], z);
        u = fmaf(h[j], column[2 * width], u);
      }
      r = sigmoid(r);
      z = sigmoid(z);
      const float n = tanhf(x[0] + b[k] + r * u);
      float *row = sums + size_t(t) * 4 * width + k;
      row[0] = n;
      row[width] = r;
      row[2 * width] = z;
      row[3 * width] = u;
      out[size_t(t) * width + k] = n + z * (h[k] - n);
    }
  }
}

// d_sums [B, K, 4H] from dy [B, K, H]; w_t [3H, H]; y: what gru_forward put out; dh [B, H] is scratch and arrives as zeros.
extern "C" __global__ void __launch_bounds__(1024) gru_backward(int steps, int width, const float *__restrict__ w_t,
    const float *__restrict__ hidden, const float *__restrict__ sums, const float *__restrict__ y, const float *__restrict__ dy,
    float *dh, float *d_sums) {
  const size_t stream = size_t(blockIdx.x) * width;
  sums += stream * steps * 4;
  d_sums += stream * steps * 4;
  y += stream * steps;
  dy += stream * steps;
  dh += stream;
  for (int t = steps - 1; t >= 0; --t) {
    __syncthreads();  // all gradients of the step after are there
    const float *before = t == 0 ? hidden + stream : y + size_t(t - 1) * width;
    const float *after = d_sums + (size_t(t + 1) * 4 + 1) * width;  // of the sums that the hidden state reaches
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      float d = dy[size_t(t) * width + k] + dh[k];
      if (t + 1 < steps)
        for (int j = 0; j < 3 * width; ++j) d = fmaf(after[j], w_t[size_t(j) * width + k], d);
      const float *row = sums + size_t(t) * 4 * width + k;
      const float n = row[0], r = row[width], z = row[2 * width], u = row[3 * width];
      const float dn = d * (1.0f - z) * (1.0f - n * n);
      float *to = d_sums + size_t(t) * 4 * width + k;
      to[0] = dn;
      to[width] = dn * u * r * (1.0f - r);
      to[2 * width] = d * (before[k] - n) * z * (1.0f - z);
      to[3 * width] = dn * r;
      dh[k] = d * z;
    }
  }
}

// out [B, K, H] arrives as x w + b and leaves as tanh of it and of the hidden state's product; w [H, H]; hidden [B, H].
extern "C" __global__ void __launch_bounds__(1024) vanilla_forward(int steps, int width, const float *__restrict__ w,
    const float *__restrict__ hidden, float *out) {
  const size_t stream = size_t(blockIdx.x) * width;
  out += stream * steps;
  for (int t = 0; t < steps; ++t) {
    if (t) __syncthreads();
    const float *h = t == 0 ? hidden + stream : out + size_t(t - 1) * width;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      float sum = out[size_t(t) * width + k];
      for (int j = 0; j < width; ++j) sum = fmaf(h[j], w[size_t(j) * width + k], sum);
      out[size_t(t) * width + k] = tanhf(sum);
    }
  }
}

// d_sums [B, K, H] from y and dy [B, K, H]; w_t [H, H].
extern "C" __global__ void __launch_bounds__(1024) vanilla_backward(int steps, int width, const float *__restrict__ w_t,
    const float *__restrict__ y, const float *__restrict__ dy, float *d_sums) {
  const size_t stream = size_t(blockIdx.x) * width;
  y += stream * steps;
  dy += stream * steps;
  d_sums += stream * steps;
  for (int t = steps - 1; t >= 0; --t) {
    __syncthreads();
    const float *after = d_sums + size_t(t + 1) * width;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      const size_t at = size_t(t) * width + k;
      float d = dy[at];
      if (t + 1 < steps)
        for (int j = 0; j < width; ++j) d = fmaf(after[j], w_t[size_t(j) * width + k], d);
      d_sums[at] = d * (1.0f - y[at] * y[at]);
    }
  }
}
