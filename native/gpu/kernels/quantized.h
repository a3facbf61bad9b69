#pragma once
// Weights as they lie in a device's memory: a row's blocks are taken apart and their fields laid one kind after another
// (gpu_weights.cpp), so that the bulk of a row is read in words of 16 bytes. format/blocks.h says what the bits mean.
//
// Each reader gives 32 consecutive values of a row: group i of a row of `cols` values. Values beyond the row are zero.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

__device__ inline uint32_t load2(GLOBAL const uint8_t* p) { return *reinterpret_cast<GLOBAL const uint16_t*>(p); }
__device__ inline uint32_t load4(GLOBAL const uint8_t* p) { return *reinterpret_cast<GLOBAL const uint32_t*>(p); }

struct Bytes16 {
  uint32_t word[4];
  __device__ explicit Bytes16(GLOBAL const uint8_t* p) {
    const Words4 all = load16(p);
    word[0] = all.x, word[1] = all.y, word[2] = all.z, word[3] = all.w;
  }
  __device__ uint32_t operator[](int i) const { return word[i / 4] >> (8 * (i % 4)) & 255; }
};

// ---- plain numbers ----

struct F32 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    GLOBAL const float* x = reinterpret_cast<GLOBAL const float*>(row) + 32 * i;
    if (32 * i + 32 <= cols && aligned16(x)) {
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        const Words4 w = load16(x + j);
        y[j] = asFloat(w.x), y[j + 1] = asFloat(w.y), y[j + 2] = asFloat(w.z), y[j + 3] = asFloat(w.w);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 32; ++j) y[j] = 32 * i + j < cols ? x[j] : 0.0f;
    }
  }
};

template <bool kBf16>
struct Half {
  static CONSTANT bool kBrain = kBf16;
  __device__ static float widen(uint32_t h) { return kBf16 ? bf16ToFloat(h) : halfToFloat(h); }
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    GLOBAL const uint8_t* x = row + 64 * i;
    if (32 * i + 32 <= cols && aligned16(x)) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const Bytes16 b(x + 16 * j);
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          y[8 * j + 2 * l] = widen(b.word[l] & 0xffff);
          y[8 * j + 2 * l + 1] = widen(b.word[l] >> 16);
        }
      }
    } else {
#pragma unroll
      for (int j = 0; j < 32; ++j) y[j] = 32 * i + j < cols ? widen(load2(x + 2 * j)) : 0.0f;
    }
  }
};
using F16 = Half<false>;
using Bf16 = Half<true>;

// ---- blocks of 32 ----

struct Q8_0 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(row + cols + 2 * i));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q(row + 32 * i + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = (fromSmall(q[j] ^ 128) - 128.0f) * d;
    }
  }
};

struct Q4_0 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(row + cols / 2 + 2 * i));
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = (fromSmall(low) - 8.0f) * d;
      y[j + 16] = (fromSmall(high) - 8.0f) * d;
    }
  }
};

struct Q4_1 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t dm = load4(row + cols / 2 + 4 * i);
    const float d = halfToFloat(dm & 0xffff), m = halfToFloat(dm >> 16);
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = fromSmall(low) * d + m;
      y[j + 16] = fromSmall(high) * d + m;
    }
  }
};

struct Q5_0 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t fifth = load4(row + cols / 2 + 4 * i);
    const float d = halfToFloat(load2(row + cols / 2 + cols / 8 + 2 * i));
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = (fromSmall(low | (fifth >> j & 1) << 4) - 16.0f) * d;
      y[j + 16] = (fromSmall(high | (fifth >> (j + 16) & 1) << 4) - 16.0f) * d;
    }
  }
};

struct Q5_1 {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t fifth = load4(row + cols / 2 + 4 * i), dm = load4(row + cols / 2 + cols / 8 + 4 * i);
    const float d = halfToFloat(dm & 0xffff), m = halfToFloat(dm >> 16);
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = fromSmall(low | (fifth >> j & 1) << 4) * d + m;
      y[j + 16] = fromSmall(high | (fifth >> (j + 16) & 1) << 4) * d + m;
    }
  }
};

// Sixteen levels, in four words: a table in memory would be read by every value.
__device__ inline float iq4Level(uint32_t q) {
  constexpr uint32_t kLevels[4] = {0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535};
  const uint32_t low = q & 4 ? kLevels[1] : kLevels[0], high = q & 4 ? kLevels[3] : kLevels[2];
  const uint32_t byte = (q & 8 ? high : low) >> (8 * (q & 3)) & 255;
  return fromSmall(byte ^ 128) - 128.0f;
}

struct Iq4Nl {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(row + cols / 2 + 2 * i));
    const Bytes16 q(row + 16 * i);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = d * iq4Level(low);
      y[j + 16] = d * iq4Level(high);
    }
  }
};

// ---- blocks of 256: s is the block, g the group of 32 in it ----

struct Q2K {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const uint32_t scales = load2(row + 64 * n + 16 * s + 2 * g), dm = load4(row + 80 * n + 4 * s);
    const float d = halfToFloat(dm & 0xffff), dmin = halfToFloat(dm >> 16);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint32_t scale = scales >> (8 * part) & 255;
      const float dl = d * fromSmall(scale & 15), ml = dmin * fromSmall(scale >> 4);
      const Bytes16 q(row + 64 * s + 32 * (g / 4) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = dl * fromSmall(q[j] >> (2 * (g % 4)) & 3) - ml;
    }
  }
};

struct Q3K {
  static CONSTANT bool kBrain = false;
  // Scale of group g of 16 values: six bits in two places
  __device__ static uint32_t scale(GLOBAL const uint8_t* scales, uint32_t g) {
    const uint32_t low = scales[g % 8] >> (g / 8 * 4) & 15, high = scales[8 + g % 4] >> (g / 4 * 2) & 3;
    return low | high << 4;
  }
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const float d = halfToFloat(load2(row + 108 * n + 2 * s));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float dl = d * (fromSmall(scale(row + 96 * n + 12 * s, 2 * g + part)) - 32.0f);
      const Bytes16 q(row + 64 * s + 32 * (g / 4) + 16 * part), h(row + 64 * n + 32 * s + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const uint32_t bits = (q[j] >> (2 * (g % 4)) & 3) | (h[j] >> g & 1) << 2;
        y[16 * part + j] = dl * (fromSmall(bits) - 4.0f);
      }
    }
  }
};

// d, dmin and twelve bytes of scales of six bits, as in Q4_K and Q5_K
struct ScaleMin {
  float scale, min;
  __device__ ScaleMin(GLOBAL const uint8_t* header, uint32_t g) {
    const Bytes16 h(header);
    const uint32_t at = g % 4;
    const uint32_t first = h.word[1] >> (8 * at) & 255, second = h.word[2] >> (8 * at) & 255,
                   third = h.word[3] >> (8 * at) & 255;
    const uint32_t sc = g < 4 ? first & 63 : (third & 15) | (first >> 6) << 4;
    const uint32_t mn = g < 4 ? second & 63 : third >> 4 | (second >> 6) << 4;
    scale = halfToFloat(h.word[0] & 0xffff) * fromSmall(sc);
    min = halfToFloat(h.word[0] >> 16) * fromSmall(mn);
  }
};

struct Q4K {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const ScaleMin of(row + 128 * n + 16 * s, g);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q(row + 128 * s + 32 * (g / 2) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = of.scale * fromSmall(q[j] >> (4 * (g % 2)) & 15) - of.min;
    }
  }
};

struct Q5K {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const ScaleMin of(row + 160 * n + 16 * s, g);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q(row + 128 * s + 32 * (g / 2) + 16 * part), h(row + 128 * n + 32 * s + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const uint32_t bits = (q[j] >> (4 * (g % 2)) & 15) | (h[j] >> g & 1) << 4;
        y[16 * part + j] = of.scale * fromSmall(bits) - of.min;
      }
    }
  }
};

struct Q6K {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8, quarter = g % 4;
    const float d = halfToFloat(load2(row + 208 * n + 2 * s));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint32_t scale = row[192 * n + 16 * s + 2 * g + part];
      const float dl = d * (fromSmall(scale ^ 128) - 128.0f);
      const Bytes16 low(row + 128 * s + 64 * (g / 4) + 32 * (quarter % 2) + 16 * part);
      const Bytes16 high(row + 128 * n + 64 * s + 32 * (g / 4) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const uint32_t bits = (low[j] >> (quarter / 2 * 4) & 15) | (high[j] >> (2 * quarter) & 3) << 4;
        y[16 * part + j] = dl * (fromSmall(bits) - 32.0f);
      }
    }
  }
};

struct Iq4Xs {
  static CONSTANT bool kBrain = false;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    GLOBAL const uint8_t* header = row + 128 * n + 8 * s;
    const uint32_t words = load4(header), low = load4(header + 4);
    const uint32_t scale = (low >> (4 * g) & 15) | (words >> 16 >> (2 * g) & 3) << 4;
    const float d = halfToFloat(words & 0xffff) * (fromSmall(scale) - 32.0f);
    const Bytes16 q(row + 128 * s + 16 * g);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t lower = q[j] & 15, higher = q[j] >> 4;
      y[j] = d * iq4Level(lower);
      y[j + 16] = d * iq4Level(higher);
    }
  }
};

KERNELS_END

// Types that stay as they are: name in kernels' names, reader
#define PG_QUANTIZED_TYPES(X) \
  X(q8_0, Q8_0)               \
  X(q4_0, Q4_0)               \
  X(q4_1, Q4_1)               \
  X(q5_0, Q5_0)               \
  X(q5_1, Q5_1) X(q2_k, Q2K) X(q3_k, Q3K) X(q4_k, Q4K) X(q5_k, Q5K) X(q6_k, Q6K) X(iq4_nl, Iq4Nl) X(iq4_xs, Iq4Xs)
#define PG_WEIGHT_TYPES(X) X(f32, F32) X(f16, F16) X(bf16, Bf16) PG_QUANTIZED_TYPES(X)
