#pragma once
// CUDA's words for the emulator: kernels that include gpu/kernels/dialect.h compile as C++ with these. Only what ours
// use.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "gpu/emulator/kernel_table.h"
#include "gpu/emulator/simt.h"

#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

#define threadIdx (pg::gpu::simt::runner->thread().index)
#define blockIdx (pg::gpu::simt::runner->group())
#define blockDim (pg::gpu::simt::runner->launch().groupSize)
#define gridDim (pg::gpu::simt::runner->launch().groups)
#define warpSize 32

#define KERNEL(maxThreads, name, parameters)                                                                         \
  static void name PG_PARAMETERS parameters;                                                                         \
  static const pg::gpu::KernelRegistration register_##name(pg::gpu::cudaKernels(),                                   \
                                                           pg::gpu::KernelCall<&name>::describe(#name, maxThreads)); \
  static void name PG_PARAMETERS parameters
#define TG_ARRAY(T, name, n)        \
  static const char name##_key = 0; \
  T(&name)[n] = *static_cast<T(*)[n]>(pg::gpu::simt::runner->sharedArray(&name##_key, sizeof(T) * (n)))
#define TG_LARGE(T, name, n) T* const name = static_cast<T*>(pg::gpu::simt::runner->dynamicShared(sizeof(T) * (n)))

// Vectors are as aligned as on the card, so that UBSan sees a load that would fault there.
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

static inline void __syncthreads(int line = __builtin_LINE()) { pg::gpu::simt::runner->barrier(line); }

// Warp operations are for whole warps.
static inline void pgWholeWarp(uint32_t mask) {
  if (mask != 0xffffffffu) pg::gpu::simt::runner->stop("a warp operation of some lanes only");
}
static inline void __syncwarp(uint32_t mask = 0xffffffffu, int line = __builtin_LINE()) {
  pgWholeWarp(mask);
  pg::gpu::simt::runner->warpBarrier(line);
}
template <class T>
T pgShuffle(uint32_t mask, T value, uint32_t from, int line) {
  static_assert(sizeof(T) <= pg::gpu::simt::kSlotBytes);
  pgWholeWarp(mask);
  pg::gpu::simt::Runner& r = *pg::gpu::simt::runner;
  if (from >= r.lanes()) r.stop("a shuffle from lane " + std::to_string(from) + ", which is not there");
  const uint8_t* slots = r.exchange(&value, sizeof value, line);
  std::memcpy(&value, slots + from * pg::gpu::simt::kSlotBytes, sizeof value);
  return value;
}
// width: lanes in a segment of their own, as on the card.
template <class T>
T __shfl_sync(uint32_t mask, T value, int from, int width = 32, int line = __builtin_LINE()) {
  const uint32_t lane = pg::gpu::simt::runner->lane();
  return pgShuffle(mask, value, (lane & ~uint32_t(width - 1)) + (uint32_t(from) & uint32_t(width - 1)), line);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  const uint32_t lane = pg::gpu::simt::runner->lane(), from = lane ^ uint32_t(bits);
  return pgShuffle(mask, value, from / uint32_t(width) > lane / uint32_t(width) ? lane : from, line);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, int by, int width = 32, int line = __builtin_LINE()) {
  const uint32_t lane = pg::gpu::simt::runner->lane();
  return pgShuffle(mask, value, lane % uint32_t(width) + uint32_t(by) < uint32_t(width) ? lane + uint32_t(by) : lane,
                   line);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, int by, int width = 32, int line = __builtin_LINE()) {
  const uint32_t lane = pg::gpu::simt::runner->lane();
  return pgShuffle(mask, value, lane % uint32_t(width) >= uint32_t(by) ? lane - uint32_t(by) : lane, line);
}
static inline uint32_t __ballot_sync(uint32_t mask, int predicate, int line = __builtin_LINE()) {
  pgWholeWarp(mask);
  const int32_t mine = predicate != 0;
  pg::gpu::simt::Runner& r = *pg::gpu::simt::runner;
  const uint8_t* slots = r.exchange(&mine, sizeof mine, line);
  uint32_t bits = 0;
  for (uint32_t lane = 0; lane < r.lanes(); ++lane) bits |= uint32_t(slots[lane * pg::gpu::simt::kSlotBytes]) << lane;
  return bits;
}

static inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i) sum += int8_t(a >> (8 * i)) * int8_t(b >> (8 * i));
  return sum;
}
template <class T>
T __ldg(const T* address) {
  return *address;
}
static inline float pgRsqrt(float x) { return 1.0f / std::sqrt(x); }
// macros, for C libraries have functions of these names
#define rsqrtf pgRsqrt
#define __expf expf
static inline float __fdividef(float a, float b) { return a / b; }
static inline int __popc(uint32_t x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(uint32_t(x)) : 32; }
static inline uint32_t __float_as_uint(float x) { return pg::floatToBits(x); }
static inline float __uint_as_float(uint32_t bits) { return pg::bitsToFloat(bits); }
static inline float pgHalfToFloat(uint32_t half) { return pg::f16ToF32(uint16_t(half)); }
static inline uint16_t pgFloatToHalf(float x) { return pg::f32ToF16(x); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

// c += a b of m16n8k16 with the lanes' registers as PTX lays them out: a is 16 x 16, b is 16 x 8, c is 16 x 8.
template <class ToFloat>
void pgMma16816(float c[4], const uint32_t a[4], const uint32_t b[2], ToFloat toFloat, int line) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  pg::gpu::simt::Runner& r = *pg::gpu::simt::runner;
  if (r.lanes() != 32) r.stop("mma16816 in a warp of fewer than 32 lanes");
  const uint8_t* slots = r.exchange(mine, sizeof mine, line);
  // 16-bit value `column` of a row of registers: lane row * 4 + column % 8 / 2 holds it
  const auto at = [&](uint32_t row, uint32_t column, uint32_t slot) {
    uint32_t word;
    std::memcpy(&word, slots + (row * 4 + column % 8 / 2) * pg::gpu::simt::kSlotBytes + slot * 4, 4);
    return toFloat(uint16_t(column % 2 ? word >> 16 : word));
  };
  const uint32_t row = r.lane() / 4, column = r.lane() % 4 * 2;
  for (uint32_t i = 0; i < 4; ++i) {
    float sum = 0;
    for (uint32_t k = 0; k < 16; ++k) sum += at(row, k, i / 2 + k / 8 * 2) * at(column + i % 2, k, 4 + k / 8);
    c[i] += sum;
  }
}
static inline void mma16816F16(float c[4], const uint32_t a[4], const uint32_t b[2], int line = __builtin_LINE()) {
  pgMma16816(c, a, b, pg::f16ToF32, line);
}
static inline void mma16816Bf16(float c[4], const uint32_t a[4], const uint32_t b[2], int line = __builtin_LINE()) {
  pgMma16816(c, a, b, pg::bf16ToF32, line);
}
