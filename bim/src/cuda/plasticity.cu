// What acts on single synapses beside the gradient: pairs of spikes (kernels/stdp.rs) and mixing (plasticity.rs). Rows are time-major: row
// (t, b) is t streams + b. The sums over steps and streams are products: of what stands here with the postsynaptic spikes.

#include "block.cuh"

// The presynaptic side of the pairs, a thread per neuron of a stream: `spikes` [K, streams, J] → `weighted` [K, streams, J], what a
// postsynaptic spike of a step is paired with, and `after` [streams, J], what those before the chunk are; `trace` [streams, J] is the
// decaying sum before and after the chunk.
extern "C" __global__ void __launch_bounds__(256) stdp_pre(int steps, int wide, float a_plus, float a_minus, float keep_pre,
    float keep_post, float at_zero, const float *__restrict__ spikes, float *trace, float *weighted, float *after) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= wide) return;
  float p = trace[i];
  for (int t = 0; t < steps; ++t) {
    const float s = spikes[size_t(t) * wide + i];
    weighted[size_t(t) * wide + i] = fmaf(a_plus, p, at_zero * s);
    p = keep_pre * (p + s);
  }
  trace[i] = p;
  float later = 0.0f;
  for (int t = steps - 1; t >= 0; --t) {
    const float decayed = keep_post * later;
    weighted[size_t(t) * wide + i] -= a_minus * decayed;
    later = spikes[size_t(t) * wide + i] + decayed;
  }
  after[i] = -a_minus * later;
}

// The postsynaptic sum over the chunk: `spikes` [K, streams, D], `trace` [streams, D].
extern "C" __global__ void __launch_bounds__(256) stdp_post(int steps, int wide, float keep_post, const float *__restrict__ spikes,
    float *trace) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= wide) return;
  float q = trace[i];
  for (int t = 0; t < steps; ++t) q = keep_post * (q + spikes[size_t(t) * wide + i]);
  trace[i] = q;
}

// Sums over all synapses, one block of a power of two threads, at most 256: direction², omega², direction omega.
extern "C" __global__ void __launch_bounds__(256) mix_moments(int count, const float *__restrict__ direction,
    const float *__restrict__ omega, double *sums) {
  __shared__ double parts[256];
  double g2 = 0.0, o2 = 0.0, go = 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const double g = direction[i], o = omega[i];
    g2 += g * g;
    o2 += o * o;
    go += g * o;
  }
  g2 = block_sum(g2, parts);
  o2 = block_sum(o2, parts);
  go = block_sum(go, parts);
  if (threadIdx.x == 0) {
    sums[0] = g2;
    sums[1] = o2;
    sums[2] = go;
  }
}

// direction = keep direction - add omega; omega starts again. As printed, direction = -(keep raw + add omega).
extern "C" __global__ void __launch_bounds__(256) mix(int count, float keep, float add, const float *__restrict__ raw,
    float *direction, float *omega) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  direction[i] = raw ? -__fadd_rn(__fmul_rn(keep, raw[i]), __fmul_rn(add, omega[i]))
                     : __fsub_rn(__fmul_rn(keep, direction[i]), __fmul_rn(add, omega[i]));
  omega[i] = 0.0f;
}

// to [rows, width]: of neurons in populations [rows, population, width] one signed count of spikes per channel; OFF cells, the odd ones,
// count negative.
extern "C" __global__ void __launch_bounds__(256) stdp_channels(int count, int width, int population, const float *__restrict__ spikes, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0.0f;
  for (int c = 0; c < population; ++c) {
    const float s = spikes[(size_t(i / width) * population + c) * width + i % width];
    sum += c % 2 == 0 ? s : -s;
  }
  to[i] = sum;
}

// to [K, streams, width]: the spikes of each stream in another order of time, order [streams, K].
extern "C" __global__ void __launch_bounds__(256) stdp_shuffle(int steps, int streams, int width, const unsigned *__restrict__ order,
                                        const float *__restrict__ spikes, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, b = blockIdx.y;
  if (i >= width) return;
  for (int t = 0; t < steps; ++t)
    to[(size_t(t) * streams + b) * width + i] = spikes[(size_t(order[size_t(b) * steps + t]) * streams + b) * width + i];
}
