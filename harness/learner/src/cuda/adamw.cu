// AdamW over all parameters in three launches, none of which the host waits for (adamw.rs is the twin).
// Parameters are cut into chunks: `of` [C] is a chunk's parameter, `from` and `len` [C] its elements. Addresses of the
// parameters' arrays are in tables of 64 bits. 256 threads a block, a block per chunk.

__device__ __forceinline__ double block_sum(double v, double *parts) {
  parts[threadIdx.x] = v;
  __syncthreads();
  for (int by = blockDim.x / 2; by > 0; by /= 2) {
    if (int(threadIdx.x) < by) parts[threadIdx.x] += parts[threadIdx.x + by];
    __syncthreads();
  }
  return parts[0];
}

// Sums of squares of the gradients' chunks, to `squares` [C].
extern "C" __global__ void __launch_bounds__(256) adamw_squares(const unsigned *__restrict__ of, const unsigned *__restrict__ from,
    const unsigned *__restrict__ len, const unsigned long long *__restrict__ gradients, double *squares) {
  __shared__ double parts[256];
  const int chunk = blockIdx.x;
  const float *g = (const float *)gradients[of[chunk]] + from[chunk];
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < len[chunk]; i += blockDim.x) sum += double(g[i]) * double(g[i]);
  sum = block_sum(sum, parts);
  if (threadIdx.x == 0) squares[chunk] = sum;
}

// A step, unless the gradient's norm is not finite: then nothing is changed. `sum` [1] is the gradient's sum of squares; its norm is
// clipped to `clip`. `keep` and `rate` [P]: what a weight is multiplied with and how far it goes; `moved` [C]: sums of squares of
// the change.
extern "C" __global__ void __launch_bounds__(256) adamw_step(float beta1, float beta2, float correct1, float correct2,
    float epsilon, float clip, const double *__restrict__ sum, const unsigned *__restrict__ of, const unsigned *__restrict__ from,
    const unsigned *__restrict__ len, const float *__restrict__ keep, const float *__restrict__ rate,
    const unsigned long long *__restrict__ gradients, const unsigned long long *__restrict__ weights,
    const unsigned long long *__restrict__ firsts, const unsigned long long *__restrict__ seconds, double *moved) {
  __shared__ double parts[256];
  const int chunk = blockIdx.x;
  const unsigned p = of[chunk];
  const double norm = sqrt(*sum);
  double squares = 0.0;
  if (isfinite(norm)) {
    const float scale = norm > double(clip) ? float(double(clip) / norm) : 1.0f;
    const float *g = (const float *)gradients[p] + from[chunk];
    float *w = (float *)weights[p] + from[chunk], *m = (float *)firsts[p] + from[chunk], *v = (float *)seconds[p] + from[chunk];
    for (unsigned i = threadIdx.x; i < len[chunk]; i += blockDim.x) {
      const float gi = g[i] * scale;
      m[i] = beta1 * m[i] + (1.0f - beta1) * gi;
      v[i] = beta2 * v[i] + (1.0f - beta2) * gi * gi;
      const float direction = m[i] * correct1 / (sqrtf(v[i] * correct2) + epsilon);
      const float old = w[i];
      w[i] = keep[p] * old - rate[p] * direction;
      squares += double(w[i] - old) * double(w[i] - old);
    }
  }
  squares = block_sum(squares, parts);
  if (threadIdx.x == 0) moved[chunk] = squares;
}
