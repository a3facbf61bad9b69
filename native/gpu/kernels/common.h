#pragma once
// What all kernels share: number formats, sums over a warp and a block in a fixed order.
#include "gpu/kernels/dialect.h"

KERNELS_BEGIN

CONSTANT uint32_t kWarp = 32;

// ---- numbers ----

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

__device__ inline bool aligned16(GLOBAL const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// ---- walking: for (EachValue i(at, rows, cols); i.more(); i.next()) ----

// A thread a column; groups of y walk down the rows.
struct EachValue {
  size_t r, c;
  size_t rows, cols, step;
  __device__ EachValue(Place at, uint32_t rowCount, uint32_t colCount)
      : r(at.y), c(at.x * at.threads + at.index), rows(rowCount), cols(colCount), step(at.groupsY) {}
  __device__ bool more() const { return c < cols && r < rows; }
  __device__ void next() { r += step; }
};

// ---- sums: always the same order, so always the same bits ----

__device__ inline float warpSum(float v) {
  for (uint32_t step = 16; step > 0; step >>= 1) v += shuffleXor(v, step);
  return v;
}

__device__ inline float warpMax(float v) {
  for (uint32_t step = 16; step > 0; step >>= 1) v = fmaxf(v, shuffleXor(v, step));
  return v;
}

// Of all threads of a group of `kThreads`, to all of them. `part` has a place for each warp.
template <uint32_t kThreads>
__device__ inline float blockSum(Place at, float v, SHARED float* part) {
  v = warpSum(v);
  groupBarrier();   // part may still be read
  if (at.lane() == 0) part[at.warp()] = v;
  groupBarrier();
  float sum = 0;
  for (uint32_t i = 0; i < kThreads / kWarp; ++i) sum += part[i];
  return sum;
}

template <uint32_t kThreads>
__device__ inline float blockMax(Place at, float v, SHARED float* part) {
  v = warpMax(v);
  groupBarrier();
  if (at.lane() == 0) part[at.warp()] = v;
  groupBarrier();
  float most = part[0];
  for (uint32_t i = 1; i < kThreads / kWarp; ++i) most = fmaxf(most, part[i]);
  return most;
}

KERNELS_END
