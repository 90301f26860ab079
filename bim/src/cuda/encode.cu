// The presynaptic side of a block, all steps of a chunk in a launch (kernels/encode.rs and kernels/neuron.rs are the twins):
// convolution (SiLU), gain and current, LIF, axonal delays, post-synaptic kernel. Rows are time-major: row (t, b) is t streams + b.
// A thread per neuron of a stream; neurons run over populations, then channels. Products and sums that the twin rounds one by one
// are kept apart, so that the same inputs give the same spikes.

#include "neuron.cuh"

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// x [conv - 1 + K, streams, channels]; c [K, streams, channels] or null; v [1 + K, streams, J]; s [delays - 1 + K, streams, J];
// last [streams, J]: the last psi of the chunk before, or null without a post-synaptic kernel; psi [K, streams, J].
// gain [J]; current [J] or null; taps [conv, channels] or null, latest first; delay [delays, J] or null, latest first.
extern "C" __global__ void __launch_bounds__(256) encode_forward(int steps, int streams, int channels, int population, int conv,
    int with_silu, int delays, float kernel, const float *__restrict__ constants, const float *__restrict__ gain,
    const float *__restrict__ current, const float *__restrict__ taps, const float *__restrict__ delay, const float *__restrict__ x,
    float *c, float *v, float *s, const float *__restrict__ last, float *psi) {
  const int neurons = channels * population, m = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (m >= neurons) return;
  const Neuron neuron(constants, m);
  const int channel = m % channels;
  const size_t wide_x = size_t(streams) * channels, wide = size_t(streams) * neurons, at = size_t(b) * neurons + m;
  const size_t at_x = size_t(b) * channels + channel;
  const int history = delays - 1;
  float membrane = v[at], before = last ? last[at] : 0.0f;
  for (int t = 0; t < steps; ++t) {
    float drive = x[size_t(t) * wide_x + at_x];
    if (taps) {
      drive = 0.0f;
      for (int i = 0; i < conv; ++i) drive = fmaf(taps[i * channels + channel], x[size_t(t + conv - 1 - i) * wide_x + at_x], drive);
      if (m < channels) c[size_t(t) * wide_x + at_x] = drive;
    }
    float input = __fmul_rn(gain[m], with_silu ? silu(drive) : drive);
    if (current) input = __fadd_rn(input, current[m]);
    membrane = neuron.step(membrane, input);
    v[size_t(t + 1) * wide + at] = membrane;
    s[size_t(history + t) * wide + at] = neuron.fire(membrane);
    float out = s[size_t(history + t) * wide + at];
    if (delay) {
      out = 0.0f;
      for (int i = 0; i < delays; ++i) out = fmaf(delay[size_t(i) * neurons + m], s[size_t(history + t - i) * wide + at], out);
    }
    if (last) out = __fadd_rn(out, __fmul_rn(kernel, before));
    before = out;
    psi[size_t(t) * wide + at] = out;
  }
}

// The way back through kernel, delays and neurons. d_psi [K, streams, J] is spent; lv [streams, J], ls [delays - 1, streams, J] and
// lpsi [streams, J] or null: the adjoints of membrane, spikes and psi, from later chunks and to earlier ones;
// ds [delays - 1 + K, streams, J] is scratch; d_input [K, streams, J]: gradients of the neurons' inputs; of each stream, to be summed:
// d_gain, d_current [streams, J], d_delay [streams, delays, J].
extern "C" __global__ void __launch_bounds__(256) encode_reverse(int steps, int streams, int channels, int population, int conv,
    int with_silu, int delays, int temporal, float penalty, float kernel, const float *__restrict__ constants,
    const float *__restrict__ delay, const float *__restrict__ drive, const float *__restrict__ v, const float *__restrict__ s,
    float *d_psi, float *lv, float *ls, float *lpsi, float *ds, float *d_input, float *d_gain, float *d_current, float *d_delay) {
  const int neurons = channels * population, m = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (m >= neurons) return;
  const Neuron neuron(constants, m);
  const size_t wide_x = size_t(streams) * channels, wide = size_t(streams) * neurons, at = size_t(b) * neurons + m;
  const size_t at_x = size_t(b) * channels + m % channels;
  const int history = delays - 1;
  if (lpsi && temporal)
    for (int t = steps - 1; t >= 0; --t) {
      const float d = d_psi[size_t(t) * wide + at] += lpsi[at];
      lpsi[at] = kernel * d;
    }
  for (int r = 0; r < history + steps; ++r) ds[size_t(r) * wide + at] = r < steps ? 0.0f : ls[size_t(r - steps) * wide + at];
  if (!delay) {
    for (int t = 0; t < steps; ++t) ds[size_t(t) * wide + at] += d_psi[size_t(t) * wide + at];
  } else {
    for (int i = 0; i < delays; ++i) d_delay[(size_t(b) * delays + i) * neurons + m] = 0.0f;
    for (int t = 0; t < steps; ++t) {
      const float d = d_psi[size_t(t) * wide + at];
      for (int i = 0; i < delays; ++i) {
        const size_t row = size_t(history + t - i) * wide + at;
        if (temporal || i == 0) ds[row] = fmaf(delay[size_t(i) * neurons + m], d, ds[row]);
        // the delay line's own weights see the past even where credit does not reach it
        float &sum = d_delay[(size_t(b) * delays + i) * neurons + m];
        sum = fmaf(s[row], d, sum);
      }
    }
  }
  float adjoint = lv[at], gain_sum = 0.0f, current_sum = 0.0f;
  for (int t = steps - 1; t >= 0; --t) {
    const float now = v[size_t(t + 1) * wide + at], past = v[size_t(t) * wide + at];
    const float spike = s[size_t(history + t) * wide + at], z = drive[size_t(t) * wide_x + at_x];
    const float x = with_silu ? silu(z) : z;
    const float sign = spike > 0.0f ? 1.0f : spike < 0.0f ? -1.0f : 0.0f;
    const float fired = ds[size_t(history + t) * wide + at] + penalty * sign;
    const float through = fmaf(neuron.surrogate(now), fired, adjoint);
    const float input = neuron.gain * through;
    adjoint = temporal ? neuron.carry(past) * through : 0.0f;
    gain_sum = fmaf(input, x, gain_sum);
    current_sum += input;
    d_input[size_t(t) * wide + at] = input;
  }
  lv[at] = adjoint;
  d_gain[at] = gain_sum;
  d_current[at] = current_sum;
  for (int r = 0; r < history; ++r) ls[size_t(r) * wide + at] = ds[size_t(r) * wide + at];
}

// On through gain, SiLU and convolution, a thread per channel of a stream: from d_input to dx [K, streams, channels].
// lx [conv - 1, streams, channels]: the adjoint of the inputs before the chunk; d_drive [conv - 1 + K, streams, channels] is
// scratch; d_taps [streams, conv, channels], to be summed over streams.
extern "C" __global__ void __launch_bounds__(256) encode_reverse_inputs(int steps, int streams, int channels, int population,
    int conv, int with_silu, int temporal, const float *__restrict__ gain, const float *__restrict__ taps,
    const float *__restrict__ drive, const float *__restrict__ x, const float *__restrict__ d_input, float *lx, float *d_drive,
    float *dx, float *d_taps) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y, neurons = channels * population, before = conv - 1;
  if (channel >= channels) return;
  const size_t wide_x = size_t(streams) * channels, wide = size_t(streams) * neurons, at = size_t(b) * channels + channel;
  if (taps) {
    for (int r = 0; r < before + steps; ++r) d_drive[size_t(r) * wide_x + at] = r < steps ? 0.0f : lx[size_t(r - steps) * wide_x + at];
    for (int i = 0; i < conv; ++i) d_taps[(size_t(b) * conv + i) * channels + channel] = 0.0f;
  }
  for (int t = 0; t < steps; ++t) {
    float d = 0.0f;
    for (int p = 0; p < population; ++p)
      d = fmaf(d_input[size_t(t) * wide + size_t(b) * neurons + p * channels + channel], gain[p * channels + channel], d);
    if (with_silu) {
      const float z = drive[size_t(t) * wide_x + at], sigma = 1.0f / (1.0f + expf(-z));
      d *= sigma * (1.0f + z * (1.0f - sigma));
    }
    if (!taps) {
      dx[size_t(t) * wide_x + at] = d;
      continue;
    }
    for (int i = 0; i < conv; ++i) {
      const size_t row = size_t(before + t - i) * wide_x + at;
      float &sum = d_taps[(size_t(b) * conv + i) * channels + channel];
      sum = fmaf(x[row], d, sum);
      if (temporal || i == 0) d_drive[row] = fmaf(taps[i * channels + channel], d, d_drive[row]);
    }
  }
  if (!taps) return;
  for (int r = 0; r < before; ++r) lx[size_t(r) * wide_x + at] = d_drive[size_t(r) * wide_x + at];
  for (int t = 0; t < steps; ++t) dx[size_t(t) * wide_x + at] = d_drive[size_t(before + t) * wide_x + at];
}
