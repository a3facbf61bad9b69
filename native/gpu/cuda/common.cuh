#pragma once
// What all kernels share: number formats, sums over a warp and a block in a fixed order. Compiled by nvcc for cards,
// and as C++ for the emulator; no CUDA header is needed.
#include <cstdint>

#include "gpu/gpu_args.h"

#include "dialect.cuh"

namespace pg::gpu {

constexpr uint32_t kWarp = 32;

// ---- numbers ----

__device__ inline float asFloat(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float f;
  memcpy(&f, &bits, 4);
  return f;
#endif
}

__device__ inline uint32_t asBits(float f) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(f);
#else
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
#endif
}

__device__ inline float halfToFloat(uint32_t h) {
#ifdef __CUDA_ARCH__
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(uint16_t(h)));
  return f;
#else
  const uint32_t sign = (h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return asFloat(sign | 0x7f800000 | (mantissa << 13));
  if (exponent) return asFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
  return asFloat(sign | asBits(float(mantissa) * 5.9604644775390625e-8f));
#endif
}

__device__ inline uint16_t floatToHalf(float f) {
#ifdef __CUDA_ARCH__
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
#else
  const uint32_t bits = asBits(f), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7fff);
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
  if (magnitude >= 0x38800000) {
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return uint16_t(sign | ((rounded - 0x38000000) >> 13));
  }
  return uint16_t(sign | (asBits(asFloat(magnitude) + 0.5f) - 0x3f000000));
#endif
}

__device__ inline float bf16ToFloat(uint32_t h) { return asFloat(h << 16); }

__device__ inline uint16_t floatToBf16(float f) {
  const uint32_t bits = asBits(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 64);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 0 <= q < 2^23, without the slow conversion instruction
__device__ inline float fromSmall(uint32_t q) { return asFloat(0x4b000000u | q) - 8388608.0f; }

__device__ inline float geluTanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

__device__ inline bool notFinite(float x) { return (asBits(x) & 0x7f800000) == 0x7f800000; }

__device__ inline uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

// 16 bytes at a multiple of 16
__device__ inline Words4 load16(const void* p) { return *static_cast<const Words4*>(p); }

__device__ inline bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// ---- sums: always the same order, so always the same bits ----

__device__ inline float warpSum(float v) {
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

__device__ inline float warpMax(float v) {
  for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

// Of all threads of a block of `kThreads`, to all of them. `part` has a place for each warp.
template <uint32_t kThreads>
__device__ inline float blockSum(float v, float* part) {
  v = warpSum(v);
  __syncthreads();   // part may still be read
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
  __syncthreads();
  float sum = 0;
  for (uint32_t i = 0; i < kThreads / kWarp; ++i) sum += part[i];
  return sum;
}

template <uint32_t kThreads>
__device__ inline float blockMax(float v, float* part) {
  v = warpMax(v);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
  __syncthreads();
  float most = part[0];
  for (uint32_t i = 1; i < kThreads / kWarp; ++i) most = fmaxf(most, part[i]);
  return most;
}

}  // namespace pg::gpu
