// The selective state space with its postsynaptic neurons, all steps of a window in a launch (kernels/scan.rs is the twin).
// Rows are time-major: row (t, b) is t streams + b. D channels, N states, H heads of P = D / H channels; state is [N, D].
// A thread per channel of a stream. `per_state`: a decay for each channel and state, rates [lag + 1, N, D]; without it one for each
// head, rates [lag + 1, H]. What the reverse pass sums over channels and streams it leaves apart, in an order that is always the same.

#include "neuron.cuh"

// p [lag + K, streams, D + 2N]: u, B, C; delta, a [lag + K, streams, H]; v [1 + lag + K, streams, D]; h [streams, N, D] from before to
// after the chunk; s [K, streams, D]; skip [D]; current [D] or null; rates are those of the chunk.
extern "C" __global__ void __launch_bounds__(256) state_forward(int lag, int steps, int streams, int channels, int states,
    int heads, int per_state, const float *__restrict__ constants, const float *__restrict__ p, const float *__restrict__ delta,
    const float *__restrict__ a, const float *__restrict__ rates, const float *__restrict__ skip, const float *__restrict__ current,
    float *v, float *h, float *s) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (d >= channels) return;
  const Neuron neuron(constants, d);
  const int width = channels + 2 * states, head = d / (channels / heads);
  h += size_t(b) * states * channels + d;
  float membrane = v[(size_t(lag) * streams + b) * channels + d];
  for (int t = 0; t < steps; ++t) {
    const size_t row = size_t(lag + t) * streams + b;
    const float u = p[row * width + d], size = delta[row * heads + head], du = __fmul_rn(size, u);
    const float *selected = p + row * width + channels;
    const float shared = per_state ? 0.0f : a[row * heads + head];
    float y = fmaf(skip[d], u, current ? current[d] : 0.0f);
    for (int k = 0; k < states; ++k) {
      const float decay = per_state ? expf(-size * rates[size_t(k) * channels + d]) : shared;
      float &x = h[size_t(k) * channels];
      x = fmaf(decay, x, __fmul_rn(selected[k], du));
      y = fmaf(selected[states + k], x, y);
    }
    membrane = neuron.step(membrane, y);
    v[(row + streams) * channels + d] = membrane;
    s[(size_t(t) * streams + b) * channels + d] = neuron.fire(membrane);
  }
}

// The way back. h0 [streams, N, D]: the state before the window; skips [lag + 1, D]; ds [K, streams, D]; through_state,
// through_membrane: what credit may pass; lh [streams, N, D], lv [streams, D]: the adjoints of the state after and before the window.
// Scratch: states_of [window + 1, streams, N, D]. Left for state_reverse_sums: adjoint_of [window, streams, N, D] (of the state at a
// step), ly, dz [window, streams, D]. d_p [window, streams, D + 2N]: of u, here. To be summed over streams: d_skip, d_current
// [streams, D] and d_rate [streams, D] (per head: over its channels too) or [streams, N, D].
extern "C" __global__ void __launch_bounds__(256) state_reverse(int lag, int steps, int streams, int channels, int states,
    int heads, int per_state, int through_state, int through_membrane, const float *__restrict__ constants,
    const float *__restrict__ p, const float *__restrict__ delta, const float *__restrict__ a, const float *__restrict__ rates,
    const float *__restrict__ skips, const float *__restrict__ v, const float *__restrict__ h0, const float *__restrict__ ds,
    float *lh, float *lv, float *states_of, float *adjoint_of, float *ly_of, float *dz_of, float *d_p, float *d_skip,
    float *d_current, float *d_rate) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (d >= channels) return;
  const Neuron neuron(constants, d);
  const int width = channels + 2 * states, head = d / (channels / heads), window = lag + steps;
  const size_t layer = size_t(states) * channels, of_stream = size_t(b) * layer + d;
  const size_t decays = per_state ? layer : size_t(heads);
  // history that never was: its rows are zero, the step sizes included, which no softplus is
  int first = lag;
  for (int t = lag - 1; t >= 0; --t)
    for (int i = 0; i < heads; ++i)
      if (delta[(size_t(t) * streams + b) * heads + i] != 0.0f) first = t;
  for (int k = 0; k < states; ++k) states_of[of_stream + size_t(k) * channels] = h0[of_stream + size_t(k) * channels];
  for (int t = 0; t < window; ++t) {
    const size_t row = size_t(t) * streams + b, in_force = size_t(min(t, lag)) * decays;
    const float size = delta[row * heads + head], du = size * p[row * width + d];
    for (int k = 0; k < states; ++k) {
      const size_t cell = size_t(k) * channels;
      const float decay = per_state ? expf(-size * rates[in_force + cell + d]) : a[row * heads + head];
      states_of[size_t(t + 1) * streams * layer + of_stream + cell] =
          fmaf(decay, states_of[size_t(t) * streams * layer + of_stream + cell], p[row * width + channels + k] * du);
    }
  }
  if (per_state)
    for (int k = 0; k < states; ++k) d_rate[of_stream + size_t(k) * channels] = 0.0f;
  float adjoint_v = lv[size_t(b) * channels + d], skip_sum = 0.0f, current_sum = 0.0f, rate_sum = 0.0f;
  for (int t = window - 1; t >= 0; --t) {
    const size_t row = size_t(t) * streams + b, in_force = size_t(min(t, lag)) * decays;
    const float u = p[row * width + d], size = delta[row * heads + head];
    const float skip = skips[size_t(min(t, lag)) * channels + d];
    const float *selected = p + row * width + channels;
    if (t >= lag)
      adjoint_v = fmaf(neuron.surrogate(v[(row + streams) * channels + d]), ds[(size_t(t - lag) * streams + b) * channels + d], adjoint_v);
    if (t < first) adjoint_v = 0.0f;  // the membrane was at rest there
    const float ly = neuron.gain * adjoint_v;
    skip_sum = fmaf(ly, u, skip_sum);
    current_sum += ly;
    float through_input = 0.0f, through_decay = 0.0f;
    for (int k = 0; k < states; ++k) {
      const size_t cell = size_t(k) * channels;
      const float rate = per_state ? rates[in_force + cell + d] : rates[in_force + head];
      const float decay = per_state ? expf(-size * rate) : a[row * heads + head];
      const float before = states_of[size_t(t) * streams * layer + of_stream + cell];
      const float l = fmaf(ly, selected[states + k], lh[of_stream + cell]);
      adjoint_of[size_t(t) * streams * layer + of_stream + cell] = l;
      through_input = fmaf(l, selected[k], through_input);
      if (per_state) {
        const float decayed = rate * decay * (l * before);  // what of the step size goes through this decay, negative
        through_decay += decayed;
        d_rate[of_stream + cell] -= size * decayed;
      } else {
        through_decay = fmaf(l, before, through_decay);
      }
      lh[of_stream + cell] = through_state ? l * decay : 0.0f;
    }
    if (!per_state) {
      through_decay *= rates[in_force + head] * a[row * heads + head];
      rate_sum -= size * through_decay;
    }
    d_p[row * width + d] = fmaf(ly, skip, size * through_input);
    ly_of[row * channels + d] = ly;
    dz_of[row * channels + d] = u * through_input - through_decay;
    adjoint_v = through_membrane ? adjoint_v * neuron.carry(v[row * channels + d]) : 0.0f;
  }
  lv[size_t(b) * channels + d] = adjoint_v;
  d_skip[size_t(b) * channels + d] = skip_sum;
  d_current[size_t(b) * channels + d] = current_sum;
  if (!per_state) d_rate[size_t(b) * channels + d] = rate_sum;
}

// Sums over channels, a block of 32 threads per row of the window: of B and C into d_p, and of the step sizes into
// d_z [window, streams, H], through softplus.
extern "C" __global__ void __launch_bounds__(32) state_reverse_sums(int streams, int channels, int states, int heads,
    const float *__restrict__ p, const float *__restrict__ delta, const float *__restrict__ states_of,
    const float *__restrict__ adjoint_of, const float *__restrict__ ly_of, const float *__restrict__ dz_of, float *d_p,
    float *d_z) {
  const int lane = threadIdx.x, width = channels + 2 * states, per = channels / heads;
  const size_t row = blockIdx.x, layer = size_t(states) * channels;
  const float *after = states_of + (row + streams) * layer, *adjoint = adjoint_of + row * layer;
  for (int k = 0; k < states; ++k) {
    float to_b = 0.0f, to_c = 0.0f;
    for (int d = lane; d < channels; d += 32) {
      to_b = fmaf(adjoint[size_t(k) * channels + d], delta[row * heads + d / per] * p[row * width + d], to_b);
      to_c = fmaf(ly_of[row * channels + d], after[size_t(k) * channels + d], to_c);
    }
    for (int by = 16; by > 0; by /= 2) {
      to_b += __shfl_xor_sync(0xffffffffu, to_b, by);
      to_c += __shfl_xor_sync(0xffffffffu, to_c, by);
    }
    if (lane == 0) {
      d_p[row * width + channels + k] = to_b;
      d_p[row * width + channels + states + k] = to_c;
    }
  }
  for (int h = 0; h < heads; ++h) {
    float sum = 0.0f;
    for (int i = lane; i < per; i += 32) sum += dz_of[row * channels + h * per + i];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (lane == 0) d_z[row * heads + h] = sum * -expm1f(-delta[row * heads + h]);
  }
}
