// Eligibility traces over a chunk (kernels/trace.rs is the twin): E = left E + S' psi, all steps in a launch. Rows of p, delta and psi are
// time-major: row (t, b) is t streams + b. D channels, N states, H heads of P = D / H channels.

__device__ __forceinline__ float slope_of(float delta) { return -expm1f(-delta); }  // of softplus where it gave delta

// What is left of a trace behind each step, [streams, H, K], and of one at the chunk's start, [streams, H]: products of decays.
// A thread per head of a stream.
extern "C" __global__ void __launch_bounds__(256) trace_left(int steps, int streams, int heads, const float *__restrict__ a,
    float *behind, float *left) {
  const int h = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (h >= heads) return;
  float product = 1.0f;
  for (int t = steps - 1; t >= 0; --t) {
    behind[(size_t(b) * heads + h) * steps + t] = product;
    product *= a[(size_t(t) * streams + b) * heads + h];
  }
  left[size_t(b) * heads + h] = product;
}

// Sources with a decay per head, a thread per channel of a stream: s_u [streams, K, H, N] and s_b [streams, K, D] of W_u and W_B,
// s_delta [streams, K, H, N, P] of W_delta. The traces of b_delta and A_log, bias and a_log [streams, N, D], and the state
// h0 [streams, N, D] go to the chunk's end. rates [lag + 1, H].
extern "C" __global__ void __launch_bounds__(256) trace_sources(int lag, int steps, int streams, int channels, int states,
    int heads, const float *__restrict__ p, const float *__restrict__ delta, const float *__restrict__ a,
    const float *__restrict__ rates, const float *__restrict__ behind, const float *__restrict__ left, float *s_u, float *s_b,
    float *s_delta, float *bias, float *a_log, float *h0) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (d >= channels) return;
  const int width = channels + 2 * states, per = channels / heads, h = d / per;
  const float *after = behind + (size_t(b) * heads + h) * steps;
  for (int t = 0; t < steps; ++t) {
    const size_t row = size_t(t) * streams + b;
    const float weight = after[t] * delta[row * heads + h];
    s_b[(size_t(b) * steps + t) * channels + d] = weight * p[row * width + d];
    if (d % per == 0)
      for (int k = 0; k < states; ++k)
        s_u[((size_t(b) * steps + t) * heads + h) * states + k] = weight * p[row * width + channels + k];
  }
  for (int k = 0; k < states; ++k) {
    const size_t cell = (size_t(b) * states + k) * channels + d;
    float state = h0[cell], to_bias = bias[cell] * left[size_t(b) * heads + h], to_a = a_log[cell] * left[size_t(b) * heads + h];
    for (int t = 0; t < steps; ++t) {
      const size_t row = size_t(t) * streams + b;
      const float size = delta[row * heads + h], decay = a[row * heads + h], rate = rates[size_t(min(t, lag)) * heads + h];
      const float u = p[row * width + d], in = p[row * width + channels + k];
      const float source = slope_of(size) * after[t] * fmaf(-rate * decay, state, in * u);
      to_bias += source;
      to_a = fmaf(-(after[t] * size) * rate * decay, state, to_a);
      state = fmaf(decay, state, in * (size * u));
      s_delta[(((size_t(b) * steps + t) * heads + h) * states + k) * per + d % per] = source;
    }
    h0[cell] = state;
    bias[cell] = to_bias;
    a_log[cell] = to_a;
  }
}

// Sources with a decay for each channel and state, a thread per state of a channel of a stream: s_u, s_b and s_delta
// [streams, K, N, D] and left [streams, N, D]. rates [lag + 1, N, D].
extern "C" __global__ void __launch_bounds__(256) trace_sources_per_state(int lag, int steps, int streams, int channels, int states,
    int heads, const float *__restrict__ p, const float *__restrict__ delta, const float *__restrict__ rates, float *left,
    float *s_u, float *s_b, float *s_delta, float *bias, float *a_log, float *h0) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y, layer = states * channels;
  if (cell >= layer) return;
  const int k = cell / channels, d = cell % channels, width = channels + 2 * states, h = d / (channels / heads);
  const size_t at = size_t(b) * layer + cell;
  float state = h0[at];
  for (int t = 0; t < steps; ++t) {
    const size_t row = size_t(t) * streams + b, to = (size_t(b) * steps + t) * layer + cell;
    const float size = delta[row * heads + h], rate = rates[size_t(min(t, lag)) * layer + cell], decay = expf(-size * rate);
    const float u = p[row * width + d], in = p[row * width + channels + k];
    const float source = slope_of(size) * (in * u - rate * decay * state);
    s_u[to] = size * in;
    s_b[to] = size * u;
    s_delta[to] = source;
    a_log[at] = decay * a_log[at] - size * rate * decay * state;
    bias[at] = decay * bias[at] + source;
    state = fmaf(decay, state, in * (size * u));
  }
  h0[at] = state;
  float product = 1.0f;  // of the decays after a step
  for (int t = steps - 1; t >= 0; --t) {
    const size_t row = size_t(t) * streams + b, to = (size_t(b) * steps + t) * layer + cell;
    s_u[to] *= product;
    s_b[to] *= product;
    s_delta[to] *= product;
    product *= expf(-delta[row * heads + h] * rates[size_t(min(t, lag)) * layer + cell]);
  }
  left[at] = product;
}

// trace [streams, rows, columns] = left trace + sum over steps of s [streams, K, rows] psi: a block of columns for each row of each
// stream. `per_left` rows share what is left, left [streams, rows / per_left]; `per_group` rows read the same columns of
// psi [K, streams, inputs], the first group from 0 and each from `step` further on.
extern "C" __global__ void __launch_bounds__(256) trace_advance(int steps, int streams, int rows, int columns, int inputs,
    int per_left, int per_group, int step, const float *__restrict__ left, const float *__restrict__ s,
    const float *__restrict__ psi, float *trace) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, r = blockIdx.x, b = blockIdx.z;
  if (j >= columns) return;
  const size_t at = (size_t(b) * rows + r) * columns + j;
  float sum = trace[at] * left[size_t(b) * (rows / per_left) + r / per_left];
  const size_t from = size_t(r / per_group) * step + j;
  for (int t = 0; t < steps; ++t)
    sum = fmaf(s[(size_t(b) * steps + t) * rows + r], psi[(size_t(t) * streams + b) * inputs + from], sum);
  trace[at] = sum;
}

// The credit through the step sizes that reaches back before the window: added to d_delta [streams, H, columns], the sum over states and
// channels of the adjoint lambda [streams, N, D] times the trace [streams, H, N, P, columns]. A block of columns for each head of
// each stream.
extern "C" __global__ void __launch_bounds__(256) trace_contract(int channels, int states, int heads, int columns,
    const float *__restrict__ lambda, const float *__restrict__ trace, float *d_delta) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, h = blockIdx.x, b = blockIdx.z, per = channels / heads;
  if (j >= columns) return;
  float sum = d_delta[(size_t(b) * heads + h) * columns + j];
  for (int k = 0; k < states; ++k)
    for (int i = 0; i < per; ++i) {
      const size_t row = ((size_t(b) * heads + h) * states + k) * per + i;
      sum = fmaf(lambda[(size_t(b) * states + k) * channels + h * per + i], trace[row * columns + j], sum);
    }
  d_delta[(size_t(b) * heads + h) * columns + j] = sum;
}

// to [rows, H, N, P] = from [rows, N, D]: with a decay for each channel and state the sources of W_delta, and what is left of its traces,
// come by states and are kept by heads.
extern "C" __global__ void __launch_bounds__(256) trace_by_heads(int rows, int channels, int states, int heads, const float *__restrict__ from, float *to) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x, layer = size_t(states) * channels;
  if (i >= rows * layer) return;
  const int per = channels / heads, k = i % layer / channels, d = i % channels;
  to[i / layer * layer + (size_t(d / per) * states + k) * per + d % per] = from[i];
}
