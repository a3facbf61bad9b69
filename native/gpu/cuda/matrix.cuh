#pragma once
// Tensor-core products: numbers of 16 bits in pairs, sums in f32. How registers lie over the lanes is PTX's m16n8k16:
// lane l holds rows l / 4 and l / 4 + 8 of a and of the sums, column l / 4 of b; of 16 values along k, pairs l % 4 and
// l % 4 + 4.
#include "quantized.cuh"

namespace pg::gpu {

// ---- pairs ----

__device__ inline uint32_t packHalves(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return uint32_t(floatToHalf(first)) | uint32_t(floatToHalf(second)) << 16;
#endif
}

// a - b and a * b of both halves of a pair
__device__ inline uint32_t subtractHalves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint32_t y;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  return packHalves(halfToFloat(a & 0xffff) - halfToFloat(b & 0xffff), halfToFloat(a >> 16) - halfToFloat(b >> 16));
#endif
}
__device__ inline uint32_t multiplyHalves(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint32_t y;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  return packHalves(halfToFloat(a & 0xffff) * halfToFloat(b & 0xffff), halfToFloat(a >> 16) * halfToFloat(b >> 16));
#endif
}

// ---- weights as 16 pairs of f16 (bf16 where the type is): group i of a row ----

template <class Type>
struct Pairs {
  __device__ static void read(const uint8_t* row, uint32_t cols, uint32_t i, uint32_t* y) {
    float values[32];
    Type::read(row, cols, i, values);
#pragma unroll
    for (int j = 0; j < 16; ++j) y[j] = packHalves(values[2 * j], values[2 * j + 1]);
  }
};

// Placed rows go on with zeros to the end of their last group.
template <bool kBf16>
struct Pairs<Half<kBf16>> {
  __device__ static void read(const uint8_t* row, uint32_t, uint32_t i, uint32_t* y) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Words4 w = load16(row + 64 * i + 16 * j);
      y[4 * j] = w.x, y[4 * j + 1] = w.y, y[4 * j + 2] = w.z, y[4 * j + 3] = w.w;
    }
  }
};

// A small number q in the low bits of an f16 of 1024 is 1024 + q: both halves of a pair at once, exactly.
constexpr uint32_t k1024 = 0x64006400, k1032 = 0x64086408, k1152 = 0x64806480;

// Bytes 2j and 2j + 1 of a word to the low bytes of a pair's halves
__device__ inline uint32_t spreadBytes(uint32_t word, int j) {
  const uint32_t two = j ? word >> 16 : word;
  return (two & 0xff) | (two & 0xff00) << 8;
}

template <>
struct Pairs<Q4_0> {
  __device__ static void read(const uint8_t* row, uint32_t cols, uint32_t i, uint32_t* y) {
    const uint32_t half = load2(row + cols / 2 + 2 * i), d = half | half << 16;
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint32_t two = spreadBytes(q.word[j / 2], j % 2);
      y[j] = multiplyHalves(subtractHalves((two & 0x000f000f) | k1024, k1032), d);
      y[j + 8] = multiplyHalves(subtractHalves((two >> 4 & 0x000f000f) | k1024, k1032), d);
    }
  }
};

template <>
struct Pairs<Q8_0> {
  __device__ static void read(const uint8_t* row, uint32_t cols, uint32_t i, uint32_t* y) {
    const uint32_t half = load2(row + cols + 2 * i), d = half | half << 16;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q(row + 32 * i + 16 * part);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const uint32_t two = spreadBytes(q.word[j / 2] ^ 0x80808080, j % 2);
        y[8 * part + j] = multiplyHalves(subtractHalves(two | k1024, k1152), d);
      }
    }
  }
};

// c[16, 8] += a[16, 16] b[16, 8]
template <bool kBf16>
__device__ inline void multiplyAdd(float* c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                   uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  if constexpr (!kBf16) {
    mma16816F16(c, a, b);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  } else {
    // these cards know f16 alone: weights are small numbers, and activations come scaled
    uint32_t a16[4], b16[2];
    for (int i = 0; i < 4; ++i) a16[i] = packHalves(bf16ToFloat(a[i] & 0xffff), asFloat(a[i] & 0xffff0000));
    for (int i = 0; i < 2; ++i) b16[i] = packHalves(bf16ToFloat(b[i] & 0xffff), asFloat(b[i] & 0xffff0000));
    mma16816F16(c, a16, b16);
#else
  } else {
    mma16816Bf16(c, a, b);
#endif
  }
}

}  // namespace pg::gpu

// Types that tensor cores multiply
#define PG_MATRIX_TYPES(X) X(f16, F16) X(bf16, Bf16) PG_QUANTIZED_TYPES(X)
