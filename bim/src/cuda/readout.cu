// The read-out's neurons and the gain in front of it (network.rs is the twin), and the credit of learned steps (fold.rs). Rows are
// time-major: row (t, b) is t streams + b.

struct Neuron {
  float beta, gain, threshold, reset, inverse, lowest, highest, offset, slope;
  bool fast_sigmoid, attached, analog;

  // nine numbers, three flags, what a spike takes off in thresholds, and whether steps are learned: then those of all neurons follow,
  // and neuron i has its own
  __device__ Neuron(const float *c, int i)
      : beta(c[0]), gain(c[1]), threshold(c[2]), reset(c[3]), inverse(c[4]), lowest(c[5]), highest(c[6]), offset(c[7]), slope(c[8]),
        fast_sigmoid(c[9] > 0.0f), attached(c[10] > 0.0f), analog(c[11] > 0.0f) {
    if (c[13] > 0.0f) {
      threshold = c[14 + i];
      inverse = 1.0f / threshold;
      reset = c[12] * threshold;
    }
  }

  __device__ static float clip(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
  }

  __device__ float fire(float v) const {
    if (analog) return v;
    if (offset == 0.0f) return v > threshold ? 1.0f : 0.0f;
    return clip(floorf(fmaf(v, inverse, offset)), lowest, highest);
  }

  __device__ float surrogate(float v) const {
    if (analog) return 1.0f;
    if (!fast_sigmoid) {
      const float x = __fmul_rn(v, inverse);
      const float low = offset == 0.0f ? 0.5f : lowest - 0.5f, high = offset == 0.0f ? 1.5f : highest + 0.5f;
      return x >= low && x <= high ? inverse : 0.0f;
    }
    const float nearest =
        offset == 0.0f ? threshold : (clip(floorf(__fmul_rn(v, inverse)), lowest, highest - 1.0f) + 0.5f) * threshold;
    const float x = 1.0f + slope * fabsf(v - nearest);
    return 1.0f / (x * x);
  }

  __device__ float carry(float v) const { return attached ? beta - reset * surrogate(v) : beta; }

  __device__ float step(float v, float current) const {
    return fmaf(beta, v, fmaf(gain, current, __fmul_rn(-reset, fire(v))));
  }
};

// x [rows, width] = normed gain, or what a neuron fires there.
extern "C" __global__ void readout_forward(int count, int width, const float *__restrict__ constants, const float *__restrict__ gain,
                                           const float *__restrict__ normed, float *x) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float v = normed[i] * gain[i % width];
  x[i] = constants ? Neuron(constants, i % width).fire(v) : v;
}

// Back: d [K, streams, width], the gradient of x, becomes that of normed; d_gain and, where steps are learned, d_step (else null)
// [streams, width], to be summed. `price`: what a spike adds to the loss. A thread per channel of a stream.
extern "C" __global__ void readout_reverse(int steps, int streams, int width, float price, const float *__restrict__ constants,
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
extern "C" __global__ void step_reverse(int steps, int streams, int wide, float price, const float *__restrict__ constants,
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
extern "C" __global__ void fold_steps(int count, const float *__restrict__ from, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = expf(from[i]);
}

// to [rows, width] = from, each column times its step; row r reads the part r % parts of steps [parts, width]. The arrays may be one.
extern "C" __global__ void fold_columns(int rows, int width, int parts, const float *__restrict__ steps, const float *from, float *to) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size_t(rows) * width) to[i] = from[i] * steps[(i / width) % parts * width + i % width];
}
