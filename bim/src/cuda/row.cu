// Row-wise and element-wise pieces of a block (kernels/row.rs is the twin). A block per row for the norm, a thread per element for
// the gate.

#include "block.cuh"

// y = x / rms(x) of rows of `width`, inverse = 1 / rms(x); a power of two threads a block, at most 256.
extern "C" __global__ void __launch_bounds__(256) normalize(int width, float epsilon, const float *__restrict__ x, float *y,
    float *inverse) {
  __shared__ float parts[256];
  const size_t row = size_t(blockIdx.x) * width;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum = fmaf(x[row + i], x[row + i], sum);
  const float scale = 1.0f / sqrtf(block_sum(sum, parts) / float(width) + epsilon);
  for (int i = threadIdx.x; i < width; i += blockDim.x) y[row + i] = x[row + i] * scale;
  if (threadIdx.x == 0) inverse[blockIdx.x] = scale;
}

// Added to dx: (dy - y (y dy) / width) / rms(x).
extern "C" __global__ void __launch_bounds__(256) normalize_reverse(int width, const float *__restrict__ y,
    const float *__restrict__ inverse, const float *__restrict__ dy, float *dx) {
  __shared__ float parts[256];
  const size_t row = size_t(blockIdx.x) * width;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < width; i += blockDim.x) sum = fmaf(y[row + i], dy[row + i], sum);
  const float along = block_sum(sum, parts) / float(width);
  for (int i = threadIdx.x; i < width; i += blockDim.x) dx[row + i] += (dy[row + i] - y[row + i] * along) * inverse[blockIdx.x];
}

// Added to out: y silu(z).
extern "C" __global__ void __launch_bounds__(256) gate(int count, const float *__restrict__ y, const float *__restrict__ z,
    float *out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] += y[i] * z[i] / (1.0f + expf(-z[i]));
}

extern "C" __global__ void __launch_bounds__(256) gate_reverse(int count, const float *__restrict__ y, const float *__restrict__ z,
    const float *__restrict__ d_out, float *dy, float *dz) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float sigma = 1.0f / (1.0f + expf(-z[i]));
  dy[i] = d_out[i] * z[i] * sigma;
  dz[i] = d_out[i] * y[i] * sigma * (1.0f + z[i] * (1.0f - sigma));
}
