#pragma once
// Products on tensor cores (Apple's simdgroup matrices): c[16, 8] += a[16, 16] b[16, 8], numbers of 16 bits in pairs,
// sums in f32. Lane l holds rows matrixRow(l) and that + 8 of a and of c, column matrixRow(l) of b; of 16 values along
// k, pairs matrixPair(l) and that + 4; of c, columns 2 matrixPair(l) and the next. b's pairs go through matrixColumns()
// first. Lanes of a row differ in kPairBit and kOtherPairBit of their numbers.
#include "gpu/kernels/quantized.h"

KERNELS_BEGIN

// ---- weights as 16 pairs of f16 (bf16 where the type is): group i of a row ----

template <class Type>
struct Pairs {
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL uint32_t* y) {
    float values[32];
    Type::read(row, cols, i, values);
#pragma unroll
    for (int j = 0; j < 16; ++j) y[j] = packHalves(values[2 * j], values[2 * j + 1]);
  }
};

// Placed rows go on with zeros to the end of their last group.
template <bool kBf16>
struct Pairs<Half<kBf16>> {
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t, uint32_t i, LOCAL uint32_t* y) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Words4 w = load16(row + 64 * i + 16 * j);
      y[4 * j] = w.x, y[4 * j + 1] = w.y, y[4 * j + 2] = w.z, y[4 * j + 3] = w.w;
    }
  }
};

// A small number q in the low bits of an f16 of 1024 is 1024 + q: both halves of a pair at once, exactly.
CONSTANT uint32_t k1024 = 0x64006400, k1032 = 0x64086408, k1152 = 0x64806480;

// Bytes 2j and 2j + 1 of a word to the low bytes of a pair's halves
__device__ inline uint32_t spreadBytes(uint32_t word, int j) {
  const uint32_t two = j ? word >> 16 : word;
  return (two & 0xff) | (two & 0xff00) << 8;
}

template <bool kFile>
struct Pairs<Q4_0<kFile>> {
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL uint32_t* y) {
    const uint32_t one = load2(Q4_0<kFile>::Scale::of(row, cols / 32, i)), d = one | one << 16;
    const Bytes16 q = Load<kFile>::sixteen(Q4_0<kFile>::Levels::of(row, cols / 32, i));
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const uint32_t two = spreadBytes(q.word[j / 2], j % 2);
      y[j] = multiplyHalves(subtractHalves((two & 0x000f000f) | k1024, k1032), d);
      y[j + 8] = multiplyHalves(subtractHalves((two >> 4 & 0x000f000f) | k1024, k1032), d);
    }
  }
};

template <bool kFile>
struct Pairs<Q8_0<kFile>> {
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL uint32_t* y) {
    const uint32_t one = load2(Q8_0<kFile>::Scale::of(row, cols / 32, i)), d = one | one << 16;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q = Load<kFile>::sixteen(Q8_0<kFile>::Levels::of(row, cols / 32, i) + 16 * part);
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
__device__ inline void multiplyAdd(LOCAL float* c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                   uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  multiplyAdd16<kBf16>(c, a, b);
}

KERNELS_END

// Types that tensor cores multiply
#define PG_MATRIX_TYPES(X) X(f16, F16) X(bf16, Bf16) PG_QUANTIZED_TYPES(X)
