#pragma once
// The words of kernels/dialect.h in the Metal shading language, for Apple's GPUs (families 7 and newer). The emulator
// compiles the same with a metal_stdlib of its own, which brings other heads for kernels.
#include <metal_stdlib>

#include "gpu/gpu_args.h"

#ifndef KERNEL
#define KERNEL(maxThreads, name, parameters) \
  [[kernel, max_total_threads_per_threadgroup(maxThreads)]] void name PG_PARAMETERS parameters
#define PG_PARAMETERS(Args, ...)                                                                                    \
  (constant Args & a [[buffer(0)]], PG_BUFFERS(__VA_ARGS__, PG_7, PG_6, PG_5, PG_4, PG_3, PG_2, PG_1)(__VA_ARGS__), \
   uint3 pgThread [[thread_position_in_threadgroup]], uint3 pgThreads [[threads_per_threadgroup]],                  \
   uint3 pgGroup [[threadgroup_position_in_grid]], uint3 pgGroups [[threadgroups_per_grid]])
#define PG_BUFFERS(b1, b2, b3, b4, b5, b6, b7, list, ...) list
#define PG_1(b) device b [[buffer(1)]]
#define PG_2(b, c) PG_1(b), device c [[buffer(2)]]
#define PG_3(b, c, d) PG_2(b, c), device d [[buffer(3)]]
#define PG_4(b, c, d, e) PG_3(b, c, d), device e [[buffer(4)]]
#define PG_5(b, c, d, e, f) PG_4(b, c, d, e), device f [[buffer(5)]]
#define PG_6(b, c, d, e, f, g) PG_5(b, c, d, e, f), device g [[buffer(6)]]
#define PG_7(b, c, d, e, f, g, h) PG_6(b, c, d, e, f, g), device h [[buffer(7)]]
#define PLACE \
  Place { pgThread.x, pgThreads.x, pgGroup.x, pgGroup.y, pgGroup.z, pgGroups.x, pgGroups.y }
#endif
#ifndef TG_ARRAY
#define TG_ARRAY(T, name, n) alignas(16) threadgroup T name[n]
#endif
#ifndef KERNELS_BEGIN
#define KERNELS_BEGIN
#define KERNELS_END
using namespace metal;
using namespace pg::gpu;
#endif
#define TG_LARGE TG_ARRAY

#define __device__
#define GLOBAL device
#define SHARED threadgroup
#define LOCAL thread
#define ARGS constant
#define CONSTANT constant constexpr
#define groupBarrier() metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define groupBarrierGlobal() \
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device)
#define warpBarrier() metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup)

KERNELS_BEGIN

template <class T>
inline T shuffleXor(T value, uint32_t bits) {
  return metal::simd_shuffle_xor(value, ushort(bits));
}

// ---- numbers ----

inline float expf(float x) { return metal::precise::exp(x); }
inline float logf(float x) { return metal::precise::log(x); }
inline float tanhf(float x) { return metal::precise::tanh(x); }
inline float cosf(float x) { return metal::precise::cos(x); }
inline float sinf(float x) { return metal::precise::sin(x); }
inline float sqrtf(float x) { return metal::precise::sqrt(x); }
inline float rintf(float x) { return metal::rint(x); }
inline float fabsf(float x) { return metal::fabs(x); }
inline float fmaxf(float x, float y) { return metal::fmax(x, y); }
inline float fminf(float x, float y) { return metal::fmin(x, y); }
inline float fmaf(float x, float y, float z) { return metal::fma(x, y, z); }

inline float asFloat(uint32_t bits) { return as_type<float>(bits); }
inline uint32_t asBits(float f) { return as_type<uint32_t>(f); }
inline float halfToFloat(uint32_t h) { return float(as_type<half>(ushort(h))); }
inline uint16_t floatToHalf(float f) { return as_type<ushort>(half(f)); }
inline uint32_t packHalves(float first, float second) { return as_type<uint32_t>(half2{half(first), half(second)}); }
inline uint32_t subtractHalves(uint32_t a, uint32_t b) {
  return as_type<uint32_t>(as_type<half2>(a) - as_type<half2>(b));
}
inline uint32_t multiplyHalves(uint32_t a, uint32_t b) {
  return as_type<uint32_t>(as_type<half2>(a) * as_type<half2>(b));
}

typedef uint4 Words4;

inline Words4 load16(device const void* p) { return *static_cast<device const Words4*>(p); }
inline Words4 loadShared16(threadgroup const void* p) { return *static_cast<threadgroup const Words4*>(p); }

struct Place {
  uint32_t index, threads;   // in its group
  uint32_t x, y, z;            // the group
  uint32_t groupsX, groupsY;
  uint32_t lane() const { return index % 32; }
  uint32_t warp() const { return index / 32; }
};

// ---- simdgroup matrices of 8 x 8; a lane holds two neighbours of a row, these: ----

inline uint32_t matrixRow(uint32_t lane) { return (lane >> 2 & 4) | (lane >> 1 & 3); }
inline uint32_t matrixPair(uint32_t lane) { return (lane >> 2 & 2) | (lane & 1); }
CONSTANT uint32_t kPairBit = 1, kOtherPairBit = 8;

// Of an 8 x 8 block whose rows the lanes hold in pairs: its columns.
inline uint32_t matrixColumns(uint32_t pair, uint32_t lane) {
  const uint32_t row = matrixRow(lane), first = 2 * matrixPair(lane), from = row / 2;
  const uint32_t source = (first & 4) << 2 | (from & 2) << 2 | (first & 2) << 1 | (from & 1);
  const uint32_t one = metal::simd_shuffle(pair, ushort(source)), two = metal::simd_shuffle(pair, ushort(source + 2));
  return row % 2 ? one >> 16 | (two & 0xffff0000) : (one & 0xffff) | two << 16;
}

inline void multiplyAdd8(thread float* c, uint32_t a, uint32_t b) {
  metal::simdgroup_matrix<float, 8, 8> sums;
  metal::simdgroup_matrix<half, 8, 8> x, y;
  reinterpret_cast<thread float2&>(sums.thread_elements()) = float2{c[0], c[1]};
  reinterpret_cast<thread half2&>(x.thread_elements()) = as_type<half2>(a);
  reinterpret_cast<thread half2&>(y.thread_elements()) = as_type<half2>(b);
  metal::simdgroup_multiply_accumulate(sums, x, y, sums);
  const float2 all = reinterpret_cast<thread float2&>(sums.thread_elements());
  c[0] = all.x, c[1] = all.y;
}

// bf16 as f16: weights are small numbers, and activations come scaled.
template <bool kBf16>
inline void multiplyAdd16(thread float* c, thread const uint32_t* a, thread const uint32_t* b) {
  for (uint32_t half_ = 0; half_ < 2; ++half_) {
    const uint32_t y = kBf16 ? packHalves(asFloat(b[half_] << 16), asFloat(b[half_] & 0xffff0000)) : b[half_];
    for (uint32_t rows = 0; rows < 2; ++rows) {
      const uint32_t pair = a[2 * half_ + rows];
      const uint32_t x = kBf16 ? packHalves(asFloat(pair << 16), asFloat(pair & 0xffff0000)) : pair;
      multiplyAdd8(c + 2 * rows, x, y);
    }
  }
}

KERNELS_END
