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
struct dim3 { unsigned x, y, z; };
using cudaStream_t = void *;
#define WARP_SIZE 32
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float normcdff(float x) { return .5f * std::erfc(-x * .70710678f); }
inline double normcdf(double x) { return .5 * std::erfc(-x * .7071067811865476); }
inline int __float_as_int(float f) {
  int i;
  std::memcpy(&i, &f, 4);
  return i;
}
inline float __int_as_float(int i) {
  float f;
  std::memcpy(&f, &i, 4);
  return f;
}
