// Connectionist temporal classification (Graves et al. 2006) by its posteriors, in f64 and in logarithms, a block per
// utterance, all steps in a launch (ctc.rs is the twin). B utterances, K steps of which `steps` [B] count, O outputs, at most L labels,
// S = 2L + 1 states. 128 threads a block.

__device__ __forceinline__ double log_add(double a, double b) {
  const double high = a > b ? a : b, low = a > b ? b : a;
  return low == -INFINITY ? high : high + log1p(exp(low - high));
}

// The output of state s, and whether it may be reached from s - 2: over a blank, between labels that differ.
__device__ __forceinline__ unsigned output_of(const unsigned *labels, int s, unsigned blank) { return s % 2 ? labels[s / 2] : blank; }
__device__ __forceinline__ bool skips(const unsigned *labels, int s) { return s % 2 && s >= 3 && labels[s / 2] != labels[s / 2 - 1]; }

// logits [B, K, O]; labels [B, L]; lengths [B] of the labels; total: steps of all utterances. Scratch: sums [B, K], alpha [B, K, S],
// beta [B, 2, S]. losses [B]: infinite for labels that do not fit, whose gradient is zero; gradient [B, K, O] of the sum of the
// losses divided by the total.
extern "C" __global__ void __launch_bounds__(128) ctc(int K, int outputs, int L, unsigned blank, float total,
    const float *__restrict__ logits, const unsigned *__restrict__ labels, const unsigned *__restrict__ lengths,
    const unsigned *__restrict__ step_counts, double *sums, double *alpha, double *beta, double *losses, float *gradient) {
  const int b = blockIdx.x, S = 2 * L + 1, steps = step_counts[b], n = 2 * int(lengths[b]) + 1;
  const float *z = logits + size_t(b) * K * outputs;
  float *g = gradient + size_t(b) * K * outputs;
  labels += size_t(b) * L;
  sums += size_t(b) * K;
  alpha += size_t(b) * K * S;
  beta += size_t(b) * 2 * S;
  for (int i = threadIdx.x; i < K * outputs; i += blockDim.x) g[i] = 0.0f;
  if (steps == 0) {
    if (threadIdx.x == 0) losses[b] = n == 1 ? 0.0 : INFINITY;
    return;
  }
  for (int t = threadIdx.x; t < steps; t += blockDim.x) {
    const float *row = z + size_t(t) * outputs;
    double top = -INFINITY, sum = 0.0;
    for (int i = 0; i < outputs; ++i) top = fmax(top, double(row[i]));
    for (int i = 0; i < outputs; ++i) sum += exp(double(row[i]) - top);
    sums[t] = top + log(sum);
  }
  __syncthreads();
  for (int t = 0; t < steps; ++t) {
    const double *past = alpha + size_t(t - 1) * S;
    double *now = alpha + size_t(t) * S;
    for (int s = threadIdx.x; s < n; s += blockDim.x) {
      const double log_p = double(z[size_t(t) * outputs + output_of(labels, s, blank)]) - sums[t];
      double sum = s < 2 ? 0.0 : -INFINITY;
      if (t > 0) {
        sum = past[s];
        if (s >= 1) sum = log_add(sum, past[s - 1]);
        if (skips(labels, s)) sum = log_add(sum, past[s - 2]);
      }
      now[s] = sum + log_p;
    }
    __syncthreads();
  }
  const double *last = alpha + size_t(steps - 1) * S;
  const double all = n == 1 ? last[0] : log_add(last[n - 1], last[n - 2]);
  if (threadIdx.x == 0) losses[b] = isfinite(all) ? -all : isnan(all) ? all : INFINITY;
  if (!isfinite(all)) return;
  for (int t = steps - 1; t >= 0; --t) {
    // beta of a step is that of the step after, with its probabilities
    double *now = beta + size_t(t % 2) * S;
    const double *next = beta + size_t((t + 1) % 2) * S;
    const float *after = z + size_t(t + 1) * outputs;
    for (int s = threadIdx.x; s < n; s += blockDim.x) {
      double sum = s >= n - 2 ? 0.0 : -INFINITY;
      if (t + 1 < steps) {
        const double log_sum = sums[t + 1];
        sum = next[s] + (double(after[output_of(labels, s, blank)]) - log_sum);
        if (s + 1 < n) sum = log_add(sum, next[s + 1] + (double(after[output_of(labels, s + 1, blank)]) - log_sum));
        if (s + 2 < n && skips(labels, s + 2))
          sum = log_add(sum, next[s + 2] + (double(after[output_of(labels, s + 2, blank)]) - log_sum));
      }
      now[s] = sum;
    }
    __syncthreads();
    const float *row = z + size_t(t) * outputs;
    for (int i = threadIdx.x; i < outputs; i += blockDim.x) {
      double gamma = 0.0;
      for (int s = 0; s < n; ++s)
        if (output_of(labels, s, blank) == unsigned(i)) gamma += exp(alpha[size_t(t) * S + s] + now[s] - all);
      g[size_t(t) * outputs + i] = float((exp(double(row[i]) - sums[t]) - gamma) / double(total));
    }
    __syncthreads();  // before the row of two steps later is overwritten
  }
}
