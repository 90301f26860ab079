// The read-out's neurons and the gain in front of it (network.rs is the twin), and the credit of learned steps (fold.rs). Rows are
// time-major: row (t, b) is t streams + b.

#include "neuron.cuh"

// x [rows, width] = normed gain, or what a neuron fires there.
extern "C" __global__ void __launch_bounds__(256) readout_forward(int count, int width, const float *__restrict__ constants, const float *__restrict__ gain,
                                           const float *__restrict__ normed, float *x) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float v = normed[i] * gain[i % width];
  x[i] = constants ? Neuron(constants, i % width).fire(v) : v;
}

// Back: d [K, streams, width], the gradient of x, becomes that of normed; d_gain and, where steps are learned, d_step (else null)
// [streams, width], to be summed. `price`: what a spike adds to the loss. A thread per channel of a stream.
extern "C" __global__ void __launch_bounds__(256) readout_reverse(int steps, int streams, int width, float price, const float *__restrict__ constants,
                                           const float *__restrict__ gain, const float *__restrict__ normed, float *d, float *d_gain,
                                           float *d_step) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (i >= width) return;
  float sum = 0.0f, step_sum = 0.0f;
  for (int t = 0; t < steps; ++t) {
    const size_t at = (size_t(t) * streams + b) * width + i;
    float back = d[at];
    if (constants) {
      const Neuron neuron(constants, i);
      const float v = normed[at] * gain[i], spike = neuron.fire(v);
      const float priced = back + price * (spike > 0.0f ? 1.0f : spike < 0.0f ? -1.0f : 0.0f);
      step_sum += back * spike - priced * (neuron.surrogate(v) * v);
      back = neuron.surrogate(v) * priced;
    }
    sum = fmaf(back, normed[at], sum);
    d[at] = back * gain[i];
  }
  d_gain[size_t(b) * width + i] = sum;
  if (d_step) d_step[size_t(b) * width + i] = step_sum;
}

// d_step [streams, wide], to be summed: the gradient of the logarithm of each neuron's step, from v and `wanted` [K, streams, wide], its
// potentials and the gradient of its spikes without their price. A thread per neuron of a stream.
extern "C" __global__ void __launch_bounds__(256) step_reverse(int steps, int streams, int wide, float price, const float *__restrict__ constants,
                                        const float *__restrict__ v, const float *__restrict__ wanted, float *d_step) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (i >= wide) return;
  const Neuron neuron(constants, i);
  float sum = 0.0f;
  for (int t = 0; t < steps; ++t) {
    const size_t at = (size_t(t) * streams + b) * wide + i;
    const float spike = neuron.fire(v[at]), priced = wanted[at] + price * (spike > 0.0f ? 1.0f : spike < 0.0f ? -1.0f : 0.0f);
    sum += wanted[at] * spike - priced * (neuron.surrogate(v[at]) * v[at]);
  }
  d_step[size_t(b) * wide + i] = sum;
}

// to [count] = exp(from): steps of their logarithms.
extern "C" __global__ void __launch_bounds__(256) fold_steps(int count, const float *__restrict__ from, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = expf(from[i]);
}

// to [rows, width] = from, each column times its step; row r reads the part r % parts of steps [parts, width]. The arrays may be one.
extern "C" __global__ void __launch_bounds__(256) fold_columns(int rows, int width, int parts, const float *__restrict__ steps, const float *from, float *to) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size_t(rows) * width) to[i] = from[i] * steps[(i / width) % parts * width + i % width];
}
