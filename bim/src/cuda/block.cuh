// Sums over a block.
#pragma once

// The sum of `v` over a block of a power of two threads, which is what `parts` has room for; every thread gets it.
template <class T> __device__ __forceinline__ T block_sum(T v, T *parts) {
  __syncthreads();  // whoever still reads the sum before
  parts[threadIdx.x] = v;
  __syncthreads();
  for (int by = blockDim.x / 2; by > 0; by /= 2) {
    if (int(threadIdx.x) < by) parts[threadIdx.x] += parts[threadIdx.x + by];
    __syncthreads();
  }
  return parts[0];
}
