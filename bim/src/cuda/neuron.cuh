// Neurons (kernels/neuron.rs is the twin): encode.cu has those before the synapses, scan.cu those behind them.
#pragma once

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

  // What is no number stays none at all levels: a token outside the vocabulary, which the twin is never given, must not pass for silence.
  __device__ float fire(float v) const {
    if (analog) return v;
    if (offset == 0.0f) return v > threshold ? 1.0f : isnan(v) ? v : 0.0f;
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
