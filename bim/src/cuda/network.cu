// What stands around a network's blocks, and what the host does not see of it: input rows, output rows, sums over rows, histories
// (network.rs and block.rs are the twins). Rows are time-major: row (t, b) is t streams + b.

#include "block.cuh"

// x [K, streams, width]: rows of `table` [vocabulary, width] for tokens [streams, K], a block of columns for each row. A token outside the
// vocabulary has no row: its numbers are none.
extern "C" __global__ void __launch_bounds__(256) embed(int steps, int streams, int width, int vocabulary, const unsigned *__restrict__ tokens,
                                 const float *__restrict__ table, float *x) {
  const int i = blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x;
  if (i >= width) return;
  const unsigned token = tokens[size_t(row % streams) * steps + row / streams];
  x[size_t(row) * width + i] = token < unsigned(vocabulary) ? table[size_t(token) * width + i] : nanf("");
}

// Added to d_table [vocabulary, width]: the rows of dx [K, streams, width] by their tokens, a block of columns for each token.
extern "C" __global__ void __launch_bounds__(256) embed_reverse(int steps, int streams, int width, const unsigned *__restrict__ tokens,
                                         const float *__restrict__ dx, float *d_table) {
  const int i = blockIdx.y * blockDim.x + threadIdx.x;
  const unsigned token = blockIdx.x;
  if (i >= width) return;
  float sum = d_table[size_t(token) * width + i];
  for (int row = 0; row < steps * streams; ++row)
    if (tokens[size_t(row % streams) * steps + row / streams] == token) sum += dx[size_t(row) * width + i];
  d_table[size_t(token) * width + i] = sum;
}

// to [inner, outer, width] = from [outer, inner, width].
extern "C" __global__ void __launch_bounds__(256) swap_rows(int outer, int inner, int width, const float *__restrict__ from, float *to) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size_t(outer) * inner * width) return;
  const size_t row = i / width, o = row / inner, n = row % inner;
  to[(n * outer + o) * width + i % width] = from[i];
}

// Every row of to [rows, width] is `row`.
extern "C" __global__ void __launch_bounds__(256) repeat_row(int rows, int width, const float *__restrict__ row, float *to) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size_t(rows) * width) to[i] = row[i % width];
}

extern "C" __global__ void __launch_bounds__(256) fill(int count, float value, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = value;
}

extern "C" __global__ void __launch_bounds__(256) copy(int count, const float *__restrict__ from, float *to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = from[i];
}

// Added to to [columns / per]: the sum over rows of from [rows, columns], `per` neighbours together. A block of a power of two
// threads, at most 256, for each sum.
extern "C" __global__ void __launch_bounds__(256) sum_rows(int rows, int columns, int per, const float *__restrict__ from, float *to) {
  __shared__ float parts[256];
  const int c = blockIdx.x;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < rows * per; i += blockDim.x) sum += from[size_t(i / per) * columns + size_t(c) * per + i % per];
  sum = block_sum(sum, parts);
  if (threadIdx.x == 0) to[c] += sum;
}

// The rows behind the first `steps` of v [.., wide] become its first `rows`. A thread per column, which goes down the rows in order:
// they may overlap.
extern "C" __global__ void __launch_bounds__(256) shift_rows(int rows, int steps, int wide, float *v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= wide) return;
  for (int r = 0; r < rows; ++r) v[size_t(r) * wide + i] = v[size_t(r + steps) * wide + i];
}

// What was in force in a chunk of `steps` steps becomes history: v [lag + 1, len], whose last row is the chunk's.
extern "C" __global__ void __launch_bounds__(256) shift_in_force(int lag, int steps, int len, float *v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= len) return;
  const int kept = max(lag - steps, 0);
  for (int r = 0; r < kept; ++r) v[size_t(r) * len + i] = v[size_t(r + steps) * len + i];
  for (int r = kept; r < lag; ++r) v[size_t(r) * len + i] = v[size_t(lag) * len + i];
}

// Zeros in those streams of v [rows, streams, columns] that are marked, in all rows. A thread for each column of each stream.
extern "C" __global__ void __launch_bounds__(256) reset_streams(int rows, int streams, int columns, const unsigned *__restrict__ marks, float *v) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= columns) return;
  for (int r = 0; r < rows; ++r)
    if (marks[blockIdx.y]) v[(size_t(r) * streams + blockIdx.y) * columns + i] = 0.0f;
}

// The largest magnitude of v [count], or what is no number; one block of a power of two threads, at most 256. With `more` the
// largest that stands in `largest` takes part.
extern "C" __global__ void __launch_bounds__(256) largest(int count, int more, const float *__restrict__ v, double *largest) {
  __shared__ double parts[256];
  double most = more && threadIdx.x == 0 ? *largest : 0.0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const double x = fabs(double(v[i]));
    if (!(x <= most)) most = isnan(most) ? most : x;
  }
  most = block_fold(most, parts, [](double a, double b) { return isnan(a) || a > b ? a : b; });
  if (threadIdx.x == 0) *largest = most;
}

// A block's step sizes and what is in force in the chunk: delta [lag + K, streams, H] = softplus(z [K, streams, H] + bias [H]) behind
// the lag; with a decay per head a [lag + K, streams, H] = exp(-delta rate) too; rates [lag + 1, decays] = exp(a_log) and
// skips [lag + 1, D] = skip in their last rows. A thread for each of the longest of them.
extern "C" __global__ void __launch_bounds__(256) step_sizes(int lag, int steps, int streams, int channels, int heads, int decays, int per_state,
                                      const float *__restrict__ z, const float *__restrict__ bias, const float *__restrict__ a_log,
                                      const float *__restrict__ skip, float *delta, float *a, float *rates, float *skips) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, start = lag * streams * heads;
  if (i < channels) skips[size_t(lag) * channels + i] = skip[i];
  if (i < decays) rates[size_t(lag) * decays + i] = expf(a_log[i]);
  if (i >= steps * streams * heads) return;
  const int h = i % heads;
  const float x = __fadd_rn(z[i], bias[h]);
  const float size = __fadd_rn(fmaxf(x, 0.0f), log1pf(expf(-fabsf(x))));
  delta[start + i] = size;
  if (!per_state) a[start + i] = expf(__fmul_rn(-size, expf(a_log[h])));
}

// Added to ds [count]: the price of each spike s [count], along its sign.
extern "C" __global__ void __launch_bounds__(256) price_spikes(int count, float price, const float *__restrict__ s, float *ds) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) ds[i] += s[i] > 0.0f ? price : s[i] < 0.0f ? -price : 0.0f;
}
