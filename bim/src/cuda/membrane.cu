// Eligibility traces through the postsynaptic membrane (kernels/trace/membrane.rs is the twin), where a window has no history. Rows of p,
// delta and a are time-major: row (t, b) is t streams + b. D channels, N states, H heads of P = D / H channels. `per_state`: a decay for
// each channel and state.

#include "neuron.cuh"

// A thread per channel of a stream, backwards through the chunk with a unit adjoint on its membrane. Sources s_u, s_delta [streams, K, D]
// and s_b, s_c [streams, K, N, D]; what is left of the membrane's own traces, r [streams, D] and r_states [streams, N, D], and what of the
// state's traces enters them, g [streams, N, D]. The traces of b_delta, A_log, skip and current advance here: bias, skip, current
// [streams, D], a_log [streams, D] or per state [streams, N, D], from those of the state, e_bias and e_a_log [streams, N, D].
// Scratch: states_of [K + 1, streams, N, D].
extern "C" __global__ void __launch_bounds__(256) membrane_sources(int steps, int streams, int channels, int states, int heads, int per_state,
                                            const float *__restrict__ constants, const float *__restrict__ p,
                                            const float *__restrict__ delta, const float *__restrict__ rates,
                                            const float *__restrict__ skips, const float *__restrict__ v,
                                            const float *__restrict__ h0, const float *__restrict__ e_bias,
                                            const float *__restrict__ e_a_log, float *states_of, float *s_u, float *s_b, float *s_c,
                                            float *s_delta, float *r, float *r_states, float *g, float *bias, float *a_log,
                                            float *skip, float *current) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (d >= channels) return;
  const Neuron neuron(constants, d);
  const int width = channels + 2 * states, head = d / (channels / heads);
  const size_t layer = size_t(states) * channels, of_stream = size_t(b) * layer + d, at = size_t(b) * channels + d;
  for (int k = 0; k < states; ++k) {
    const size_t cell = size_t(k) * channels;
    states_of[of_stream + cell] = h0[of_stream + cell];
    g[of_stream + cell] = 0.0f;
  }
  for (int t = 0; t < steps; ++t) {
    const size_t row = size_t(t) * streams + b;
    const float size = delta[row * heads + head];
    for (int k = 0; k < states; ++k) {
      const size_t cell = size_t(k) * channels;
      const float decay = expf(-size * rates[per_state ? cell + d : size_t(head)]);
      states_of[size_t(t + 1) * streams * layer + of_stream + cell] =
          decay * states_of[size_t(t) * streams * layer + of_stream + cell] + size * p[row * width + channels + k] * p[row * width + d];
    }
  }
  float left = 1.0f, of_bias = 0.0f, of_a_log = 0.0f, of_skip = 0.0f, of_current = 0.0f;
  if (per_state)
    for (int k = 0; k < states; ++k) r_states[of_stream + size_t(k) * channels] = 0.0f;  // sums of A_log, until the end
  for (int t = steps - 1; t >= 0; --t) {
    const size_t row = size_t(t) * streams + b, to = size_t(b) * steps + t;
    const float u = p[row * width + d], size = delta[row * heads + head], dy = neuron.gain * left;
    const float *selected = p + row * width + channels;
    float through_input = 0.0f, through_decay = 0.0f;
    for (int k = 0; k < states; ++k) {
      const size_t cell = size_t(k) * channels;
      const float rate = rates[per_state ? cell + d : size_t(head)], decay = expf(-size * rate);
      const float wanted = g[of_stream + cell] + dy * selected[states + k];
      s_b[to * layer + cell + d] = wanted * size * u;
      s_c[to * layer + cell + d] = dy * states_of[size_t(t + 1) * streams * layer + of_stream + cell];
      through_input += wanted * selected[k];
      const float decayed = rate * decay * wanted * states_of[size_t(t) * streams * layer + of_stream + cell];
      through_decay += decayed;
      if (per_state)
        r_states[of_stream + cell] -= size * decayed;
      else
        of_a_log -= size * decayed;
      g[of_stream + cell] = wanted * decay;
    }
    const float source = (u * through_input - through_decay) * -expm1f(-size);
    s_u[to * channels + d] = dy * skips[d] + size * through_input;
    s_delta[to * channels + d] = source;
    of_bias += source;
    of_skip += dy * u;
    of_current += dy;
    left *= neuron.carry(v[row * channels + d]);
  }
  for (int k = 0; k < states; ++k) {
    const size_t cell = of_stream + size_t(k) * channels;
    of_bias += g[cell] * e_bias[cell];
    if (per_state)
      a_log[cell] = left * a_log[cell] + g[cell] * e_a_log[cell] + r_states[cell];
    else
      of_a_log += g[cell] * e_a_log[cell];
    r_states[cell] = left;
  }
  r[at] = left;
  bias[at] = left * bias[at] + of_bias;
  if (!per_state) a_log[at] = left * a_log[at] + of_a_log;
  skip[at] = left * skip[at] + of_skip;
  current[at] = left * current[at] + of_current;
}

// Added to trace [streams, D, columns]: the state's traces `from` times what of them enters the membrane's. `rows` says which there are:
// 0 for [streams, H, N, columns], 1 for [streams, N, D, columns], 2 for [streams, H, N, P, columns]. A block of columns for each channel.
extern "C" __global__ void __launch_bounds__(256) membrane_enter(int channels, int states, int heads, int columns, int rows, const float *__restrict__ g,
                                          const float *__restrict__ from, float *trace) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, d = blockIdx.x, b = blockIdx.z, per = channels / heads, h = d / per;
  if (j >= columns) return;
  float sum = trace[(size_t(b) * channels + d) * columns + j];
  for (int k = 0; k < states; ++k) {
    const size_t in_head = (size_t(b) * heads + h) * states + k, in_state = (size_t(b) * states + k) * channels + d;
    const size_t row = rows == 0 ? in_head : rows == 1 ? in_state : in_head * per + d % per;
    sum = fmaf(g[in_state], from[row * columns + j], sum);
  }
  trace[(size_t(b) * channels + d) * columns + j] = sum;
}

// The same for a trace [streams, N, D, columns], from [streams, D, columns] or per state [streams, N, D, columns].
extern "C" __global__ void __launch_bounds__(256) membrane_enter_states(int channels, int states, int columns, int per_state, const float *__restrict__ g,
                                                 const float *__restrict__ from, float *trace) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x, b = blockIdx.z;
  if (j >= columns) return;
  const size_t cell = size_t(b) * states * channels + row, at = per_state ? cell : size_t(b) * channels + row % channels;
  trace[cell * columns + j] = fmaf(g[cell], from[at * columns + j], trace[cell * columns + j]);
}

// Added to to [D / per, columns]: the adjoint lambda [streams, D] of the membrane times trace [streams, D, columns], summed over streams and
// `per` channels. A block of columns for each row.
extern "C" __global__ void __launch_bounds__(256) membrane_credit(int streams, int channels, int per, int columns, const float *__restrict__ lambda,
                                           const float *__restrict__ trace, float *to) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x;
  if (j >= columns) return;
  float sum = to[size_t(row) * columns + j];
  for (int b = 0; b < streams; ++b)
    for (int i = 0; i < per; ++i) {
      const size_t at = size_t(b) * channels + row * per + i;
      sum = fmaf(lambda[at], trace[at * columns + j], sum);
    }
  to[size_t(row) * columns + j] = sum;
}

// Added to to [N, columns]: of trace [streams, N, D, columns], summed over streams and channels.
extern "C" __global__ void __launch_bounds__(256) membrane_credit_states(int streams, int channels, int states, int columns, const float *__restrict__ lambda,
                                                  const float *__restrict__ trace, float *to) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, k = blockIdx.x;
  if (j >= columns) return;
  float sum = to[size_t(k) * columns + j];
  for (int b = 0; b < streams; ++b)
    for (int d = 0; d < channels; ++d)
      sum = fmaf(lambda[size_t(b) * channels + d], trace[((size_t(b) * states + k) * channels + d) * columns + j], sum);
  to[size_t(k) * columns + j] = sum;
}

// Added to to [N, D]: of A_log's trace [streams, N, D], a decay for each of them.
extern "C" __global__ void __launch_bounds__(256) membrane_credit_decays(int streams, int channels, int states, const float *__restrict__ lambda,
                                                  const float *__restrict__ trace, float *to) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x, layer = states * channels;
  if (cell >= layer) return;
  float sum = to[cell];
  for (int b = 0; b < streams; ++b)
    sum = fmaf(lambda[size_t(b) * channels + cell % channels], trace[size_t(b) * layer + cell], sum);
  to[cell] = sum;
}
