// Sums and the like over a block.
#pragma once

// `of` over the `v` of a block of a power of two threads, which is what `parts` has room for, in an order that is always the same; every
// thread gets it.
template <class T, class F> __device__ __forceinline__ T block_fold(T v, T *parts, F of) {
  __syncthreads();  // whoever still reads the result before
  parts[threadIdx.x] = v;
  __syncthreads();
  for (int by = blockDim.x / 2; by > 0; by /= 2) {
    if (int(threadIdx.x) < by) parts[threadIdx.x] = of(parts[threadIdx.x], parts[threadIdx.x + by]);
    __syncthreads();
  }
  return parts[0];
}

template <class T> __device__ __forceinline__ T block_sum(T v, T *parts) {
  return block_fold(v, parts, [](T a, T b) { return a + b; });
}
