// What candle's kernels name beside CUDA C, so that they compile for the host: f32, f64 and integers run, half types are names.
#pragma once
#include "host.h"
#include <algorithm>
#include <cassert>
#include <limits>
using std::isnan;
using std::max;
using std::min;
struct __half { };
struct __nv_bfloat16 { };
struct __nv_fp8_e4m3 {
  unsigned char __x;
  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float) {}
};
constexpr int __NV_E4M3 = 0;
inline float __nv_cvt_fp8_to_halfraw(unsigned char, int) { return 0; }
inline float __half2float(float x) { return x; }
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
template <class T, class V> T atomicAdd(T *p, V v) {
  T old, sum;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do { sum = old + T(v); } while (!__atomic_compare_exchange(p, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float normcdff(float x) { return .5f * std::erfc(-x * .70710678f); }
inline double normcdf(double x) { return .5 * std::erfc(-x * .7071067811865476); }
