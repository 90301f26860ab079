// An update of all parameters, which stand one after the other in one array, as do their gradients, moments and directions
// (learner's adamw.rs and plasticity.rs are the twins). Chunks are [C, 3]: a chunk's parameter, first element and length; a block of
// 256 threads for each.

#include "block.cuh"

// Sums of squares of v's chunks, to `squares` [C].
extern "C" __global__ void __launch_bounds__(256) update_squares(const unsigned *__restrict__ chunks, const float *__restrict__ v, double *squares) {
  __shared__ double parts[256];
  const unsigned from = chunks[blockIdx.x * 3 + 1], len = chunks[blockIdx.x * 3 + 2];
  double sum = 0.0;
  for (unsigned i = from + threadIdx.x; i < from + len; i += blockDim.x) sum += double(v[i]) * double(v[i]);
  sum = block_sum(sum, parts);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// The sum of `count` numbers, in an order that is always the same; one block.
extern "C" __global__ void __launch_bounds__(256) update_sum(int count, const double *__restrict__ values, double *sum) {
  __shared__ double parts[256];
  double part = 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) part += values[i];
  part = block_sum(part, parts);
  if (threadIdx.x == 0) *sum = part;
}

// Takes gradients g, times `scale`, into the moments m and v and writes the directions d.
extern "C" __global__ void __launch_bounds__(256) update_directions(int count, float beta1, float beta2, float correct1, float correct2, float epsilon,
                                             float scale, const float *__restrict__ g, float *m, float *v, float *d) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float gi = __fmul_rn(g[i], scale);
  m[i] = __fadd_rn(__fmul_rn(beta1, m[i]), __fmul_rn(1.0f - beta1, gi));
  v[i] = __fadd_rn(__fmul_rn(beta2, v[i]), __fmul_rn(__fmul_rn(1.0f - beta2, gi), gi));
  d[i] = __fmul_rn(m[i], correct1) / __fadd_rn(sqrtf(__fmul_rn(v[i], correct2)), epsilon);
}

// w = keep w - rate d, with factors [P, 2] of each parameter: keep and rate. `moved` [C]: sums of squares of the change.
extern "C" __global__ void __launch_bounds__(256) update_weights(const unsigned *__restrict__ chunks, const float *__restrict__ factors,
                                          const float *__restrict__ d, float *w, double *moved) {
  __shared__ double parts[256];
  const unsigned of = chunks[blockIdx.x * 3], from = chunks[blockIdx.x * 3 + 1], len = chunks[blockIdx.x * 3 + 2];
  const float keep = factors[of * 2], rate = factors[of * 2 + 1];
  double squares = 0.0;
  for (unsigned i = from + threadIdx.x; i < from + len; i += blockDim.x) {
    const float old = w[i];
    w[i] = __fsub_rn(__fmul_rn(keep, old), __fmul_rn(rate, d[i]));
    const double by = double(__fsub_rn(w[i], old));
    squares += by * by;
  }
  squares = block_sum(squares, parts);
  if (threadIdx.x == 0) moved[blockIdx.x] = squares;
}

// v = mask v.
extern "C" __global__ void __launch_bounds__(256) synapse_mask(int count, const float *__restrict__ mask, float *v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) v[i] *= mask[i];
}

// Of w [count]: the sum of squares, and how many are not zero. One block.
extern "C" __global__ void __launch_bounds__(256) synapse_size(int count, const float *__restrict__ w, double *sums) {
  __shared__ double parts[256];
  double squares = 0.0, living = 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    squares += double(w[i]) * double(w[i]);
    living += w[i] != 0.0f ? 1.0 : 0.0;
  }
  squares = block_sum(squares, parts);
  living = block_sum(living, parts);
  if (threadIdx.x == 0) {
    sums[0] = squares;
    sums[1] = living;
  }
}

// The root mean square of weights that `synapse_size` looked at, of those that are not zero.
__device__ __forceinline__ double size_of(const double *sums) { return sqrt(sums[0] / fmax(sums[1], 1.0)); }

// Scales STDP's changes by how far each weight is from its bounds, `limit` root mean squares. `symmetric`: 1 - x^2, else soft bounds.
extern "C" __global__ void __launch_bounds__(256) synapse_bound(int count, int symmetric, float limit, const double *__restrict__ sums,
                                         const float *__restrict__ w, float *omega) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const double furthest = double(limit) * size_of(sums);
  const float inverse = furthest > 0.0 ? float(fmin(1.0 / furthest, 3.4028234663852886e38)) : 0.0f;
  const float x = fminf(fmaxf(w[i] * inverse, -1.0f), 1.0f), o = omega[i];
  omega[i] = o * (symmetric ? __fsub_rn(1.0f, __fmul_rn(x, x)) : o > 0.0f ? (1.0f - x) / 2.0f : (1.0f + x) / 2.0f);
}

// Cuts weights off at `limit` root mean squares.
extern "C" __global__ void __launch_bounds__(256) synapse_clip(int count, float limit, const double *__restrict__ sums, float *w) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float furthest = float(double(limit) * size_of(sums));
  w[i] = fminf(fmaxf(w[i], -furthest), furthest);
}
