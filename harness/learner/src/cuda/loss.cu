// Losses in nats of logits [R, O], a warp per row, and their gradients (loss.rs is the twin). A block has 32 threads.
// `weight` [R]; `total` [1] is the sum of the weights; `losses` [R] are weight times the row's loss; `gradient` [R, O] is that of
// the sum of the losses divided by the total. Rows of weight 0 have no loss and no gradient.

__device__ __forceinline__ float warp_max(float v) {
  for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, by));
  return v;
}

__device__ __forceinline__ double warp_sum(double v) {
  for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
  return v;
}

// Writes softmax(z) and returns the logarithm of the sum of the exponentials.
__device__ __forceinline__ double softmax(const float *z, float *out, int outputs) {
  float top = -INFINITY;
  for (int i = threadIdx.x; i < outputs; i += 32) top = fmaxf(top, z[i]);
  top = warp_max(top);
  double sum = 0.0;
  for (int i = threadIdx.x; i < outputs; i += 32) {
    const float e = expf(z[i] - top);
    out[i] = e;
    sum += e;
  }
  sum = warp_sum(sum);
  const float inverse = float(1.0 / sum);
  for (int i = threadIdx.x; i < outputs; i += 32) out[i] *= inverse;
  return double(top) + log(sum);
}

// The sum of `count` values, in an order that is always the same; one block.
template <class T> __device__ __forceinline__ void total_of(int count, const T *values, double *sum) {
  __shared__ double parts[256];
  double part = 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) part += values[i];
  parts[threadIdx.x] = part;
  __syncthreads();
  if (threadIdx.x == 0) {
    double all = 0.0;
    for (int i = 0; i < int(blockDim.x); ++i) all += parts[i];
    *sum = all;
  }
}

extern "C" __global__ void __launch_bounds__(256) loss_total_weight(int count, const float *__restrict__ values, double *sum) {
  total_of(count, values, sum);
}

extern "C" __global__ void __launch_bounds__(256) loss_sum(int count, const double *__restrict__ values, double *sum) {
  total_of(count, values, sum);
}

// Whether a row has no weight, and then its gradient and loss, whatever its logits are.
__device__ __forceinline__ bool unweighted(float weight, int outputs, float *g, double *loss) {
  if (weight != 0.0f) return false;
  for (int i = threadIdx.x; i < outputs; i += 32) g[i] = 0.0f;
  if (threadIdx.x == 0) *loss = 0.0;
  return true;
}

// One class per row: softmax cross-entropy. A class that is no output makes the loss no number.
extern "C" __global__ void __launch_bounds__(32) loss_classes(int outputs, const float *__restrict__ logits,
    const unsigned *__restrict__ classes, const float *__restrict__ weight, const double *__restrict__ total, double *losses,
    float *gradient) {
  const int row = blockIdx.x;
  const float *z = logits + size_t(row) * outputs;
  float *g = gradient + size_t(row) * outputs;
  if (unweighted(weight[row], outputs, g, losses + row)) return;
  const double log_sum = softmax(z, g, outputs);
  const float scale = float(weight[row] / *total);
  const unsigned wanted = classes[row];
  for (int i = threadIdx.x; i < outputs; i += 32) g[i] = (g[i] - (unsigned(i) == wanted ? 1.0f : 0.0f)) * scale;
  if (threadIdx.x == 0) losses[row] = wanted < unsigned(outputs) ? weight[row] * (log_sum - double(z[wanted])) : nan("");
}

// A distribution over outputs per row, `target` [R, O].
extern "C" __global__ void __launch_bounds__(32) loss_posteriors(int outputs, const float *__restrict__ logits,
    const float *__restrict__ target, const float *__restrict__ weight, const double *__restrict__ total, double *losses,
    float *gradient) {
  const int row = blockIdx.x;
  const float *z = logits + size_t(row) * outputs, *p = target + size_t(row) * outputs;
  float *g = gradient + size_t(row) * outputs;
  if (unweighted(weight[row], outputs, g, losses + row)) return;
  const double log_sum = softmax(z, g, outputs);
  const float scale = float(weight[row] / *total);
  double nll = 0.0;
  for (int i = threadIdx.x; i < outputs; i += 32) {
    nll += double(p[i]) * (log_sum - double(z[i]));
    g[i] = (g[i] - p[i]) * scale;
  }
  nll = warp_sum(nll);
  if (threadIdx.x == 0) losses[row] = weight[row] * nll;
}

// Yes or no for every output of a stream's rows: `label` [R / steps, O]; the loss is the mean over outputs.
extern "C" __global__ void __launch_bounds__(32) loss_labels(int steps, int outputs, const float *__restrict__ logits,
    const float *__restrict__ label, const float *__restrict__ weight, const double *__restrict__ total, double *losses,
    float *gradient) {
  const int row = blockIdx.x;
  const float *z = logits + size_t(row) * outputs, *y = label + size_t(row / steps) * outputs;
  float *g = gradient + size_t(row) * outputs;
  if (unweighted(weight[row], outputs, g, losses + row)) return;
  const float scale = float(weight[row] / *total) / float(outputs);
  double bce = 0.0;
  for (int i = threadIdx.x; i < outputs; i += 32) {
    // max(z, 0) - z y + ln(1 + e^-|z|): finite for any logit
    bce += double(fmaxf(z[i], 0.0f) - z[i] * y[i]) + log1p(double(expf(-fabsf(z[i]))));
    g[i] = (1.0f / (1.0f + expf(-z[i])) - y[i]) * scale;
  }
  bce = warp_sum(bce);
  if (threadIdx.x == 0) losses[row] = weight[row] * bce / outputs;
}
