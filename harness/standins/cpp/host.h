// CUDA C as C++ of the host, for tests. Blocks run one after the other. The threads of a block are fibers that give way
// where a kernel synchronises; with -DHOST_THREADS they are threads of the system, whose races the thread sanitizer sees.
// Shows wrong indices, wrong arithmetic and missing barriers between writes and reads of one block. Cannot show races between
// blocks, faults of the memory model, limits of launches, or speed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

struct Dim3 { unsigned x, y, z; };
// one copy for all objects of a library
#define HOST_STATE __attribute__((weak))
#ifdef HOST_THREADS
#define HOST_PER_THREAD HOST_STATE thread_local
#else
#define HOST_PER_THREAD HOST_STATE
#endif
HOST_PER_THREAD Dim3 threadIdx, blockIdx;
HOST_STATE Dim3 blockDim, gridDim;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))  // sources of one library may have functions of the same name
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)

extern "C" void host_barrier();  // host.cpp
inline void __syncthreads() { host_barrier(); }

// Exchanges within a warp. Every thread of the block must come here, as it must to a barrier.
HOST_STATE unsigned char host_slots[1024][8];
template <class T> T host_exchange(T value, unsigned from, unsigned at) {
  std::memcpy(host_slots[at], &value, sizeof value);
  host_barrier();
  T other;
  std::memcpy(&other, host_slots[from], sizeof other);
  host_barrier();
  return other;
}
inline unsigned host_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int width = 32) {
  unsigned at = host_thread(), lane = at % width, other = lane ^ unsigned(mask);
  unsigned threads = blockDim.x * blockDim.y * blockDim.z, from = at - lane + other;
  return host_exchange(v, other < unsigned(width) && from < threads ? from : at, at);
}
// rounded once each: never fused, whatever the compiler would do
inline float __fadd_rn(float a, float b) { volatile float sum = a + b; return sum; }
inline float __fsub_rn(float a, float b) { volatile float difference = a - b; return difference; }
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
using std::isfinite;
using std::isnan;
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
