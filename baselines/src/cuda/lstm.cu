// An LSTM layer over a segment, K steps a launch, a block per stream (ops/lstm.rs is the twin). Arrays are row-major.
// B streams, K steps, H units; columns of the input, forget, candidate and output gates.

__device__ __forceinline__ float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

// gates [B, K, 4H] arrive as x w + b and leave after their nonlinearities; w [H, 4H]: the hidden state's rows;
// hidden, cell [B, H] before the segment; cells, out [B, K, H].
extern "C" __global__ void __launch_bounds__(1024) lstm_forward(int steps, int width, const float *__restrict__ w,
    const float *__restrict__ hidden, const float *__restrict__ cell, float *gates, float *cells, float *out) {
  const size_t stream = size_t(blockIdx.x) * width;
  gates += stream * steps * 4;
  cells += stream * steps;
  out += stream * steps;
  for (int t = 0; t < steps; ++t) {
    if (t) __syncthreads();  // all of the hidden state before is there
    const float *h = t == 0 ? hidden + stream : out + size_t(t - 1) * width;
    const float *c_before = t == 0 ? cell + stream : cells + size_t(t - 1) * width;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      float *row = gates + size_t(t) * 4 * width + k;
      float i = row[0], f = row[width], g = row[2 * width], o = row[3 * width];
      for (int j = 0; j < width; ++j) {
        const float *column = w + size_t(j) * 4 * width + k;
        i = fmaf(h[j], column[0], i);
        f = fmaf(h[j], column[width], f);
        g = fmaf(h[j], column[2 * width], g);
        o = fmaf(h[j], column[3 * width], o);
      }
      i = sigmoid(i);
      f = sigmoid(f);
      g = tanhf(g);
      o = sigmoid(o);
      const float c = f * c_before[k] + i * g;
      row[0] = i;
      row[width] = f;
      row[2 * width] = g;
      row[3 * width] = o;
      cells[size_t(t) * width + k] = c;
      out[size_t(t) * width + k] = o * tanhf(c);
    }
  }
}

// d_gates [B, K, 4H] before the nonlinearities, from dy [B, K, H]; w_t [4H, H]; dc [B, H] is scratch and arrives as zeros.
extern "C" __global__ void __launch_bounds__(1024) lstm_backward(int steps, int width, const float *__restrict__ w_t,
    const float *__restrict__ cell, const float *__restrict__ gates, const float *__restrict__ cells, const float *__restrict__ dy,
    float *dc, float *d_gates) {
  const size_t stream = size_t(blockIdx.x) * width;
  gates += stream * steps * 4;
  d_gates += stream * steps * 4;
  cells += stream * steps;
  dy += stream * steps;
  dc += stream;
  for (int t = steps - 1; t >= 0; --t) {
    __syncthreads();  // all gradients of the step after are there
    const float *c_before = t == 0 ? cell + stream : cells + size_t(t - 1) * width;
    const float *after = d_gates + size_t(t + 1) * 4 * width;
    for (int k = threadIdx.x; k < width; k += blockDim.x) {
      const size_t at = size_t(t) * width + k;
      float dh = dy[at];
      if (t + 1 < steps)
        for (int j = 0; j < 4 * width; ++j) dh = fmaf(after[j], w_t[size_t(j) * width + k], dh);
      const float *row = gates + size_t(t) * 4 * width + k;
      const float i = row[0], f = row[width], g = row[2 * width], o = row[3 * width];
      const float squashed = tanhf(cells[at]);
      const float d_cell = dc[k] + dh * o * (1.0f - squashed * squashed);
      float *d = d_gates + size_t(t) * 4 * width + k;
      d[0] = d_cell * g * i * (1.0f - i);
      d[width] = d_cell * c_before[k] * f * (1.0f - f);
      d[2 * width] = d_cell * i * (1.0f - g * g);
      d[3 * width] = dh * squashed * o * (1.0f - o);
      dc[k] = d_cell * f;
    }
  }
}
