// The credit that the traces of W_u, W_B, b_delta and A_log carry from before the window (kernels/trace.rs, contract, is the twin): the
// adjoint lambda [streams, N, D] at its start times the traces, summed over streams. `per_state`: a decay for each channel and state.

// Added to d_u [D, J]: of the trace [streams, H, N, J], or [streams, N, D, J] per state. A block of columns for each channel.
extern "C" __global__ void __launch_bounds__(256) trace_credit_inputs(int streams, int channels, int states, int heads, int columns, int per_state,
                                               const float *__restrict__ lambda, const float *__restrict__ trace, float *d_u) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, d = blockIdx.x, head = d / (channels / heads);
  if (j >= columns) return;
  float sum = d_u[size_t(d) * columns + j];
  for (int b = 0; b < streams; ++b)
    for (int k = 0; k < states; ++k) {
      const size_t row = per_state ? (size_t(b) * states + k) * channels + d : (size_t(b) * heads + head) * states + k;
      sum = fmaf(lambda[(size_t(b) * states + k) * channels + d], trace[row * columns + j], sum);
    }
  d_u[size_t(d) * columns + j] = sum;
}

// Added to d_b [N, J]: of the trace [streams, D, J], or [streams, N, D, J] per state. A block of columns for each state.
extern "C" __global__ void __launch_bounds__(256) trace_credit_states(int streams, int channels, int states, int columns, int per_state,
                                               const float *__restrict__ lambda, const float *__restrict__ trace, float *d_b) {
  const int j = blockIdx.y * blockDim.x + threadIdx.x, k = blockIdx.x;
  if (j >= columns) return;
  float sum = d_b[size_t(k) * columns + j];
  for (int b = 0; b < streams; ++b)
    for (int d = 0; d < channels; ++d) {
      const size_t row = per_state ? (size_t(b) * states + k) * channels + d : size_t(b) * channels + d;
      sum = fmaf(lambda[(size_t(b) * states + k) * channels + d], trace[row * columns + j], sum);
    }
  d_b[size_t(k) * columns + j] = sum;
}

// product [count] = lambda trace, to be summed: of b_delta and A_log, whose traces are [streams, N, D].
extern "C" __global__ void __launch_bounds__(256) trace_credit_dynamics(int count, const float *__restrict__ lambda, const float *__restrict__ trace,
                                                 float *product) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) product[i] = lambda[i] * trace[i];
}
