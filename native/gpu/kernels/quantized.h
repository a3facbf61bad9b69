#pragma once
// Weights as they lie in a device's memory. On rows of the device's own, blocks are taken apart and their fields laid
// one kind after another (gpu_weights.cpp), so that the bulk of a row is read in words of 16 bytes. Where host and GPU
// share memory, rows are read where the file has them (kFile): block after block, words at even addresses.
// format/blocks.h says what the bits mean.
//
// Each reader gives 32 consecutive values of a row: group i of a row of `cols` values. Values beyond the row are zero.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

__device__ inline uint32_t load2(GLOBAL const uint8_t* p) { return *reinterpret_cast<GLOBAL const uint16_t*>(p); }
__device__ inline uint32_t load4(GLOBAL const uint8_t* p) { return *reinterpret_cast<GLOBAL const uint32_t*>(p); }

struct Bytes16 {
  uint32_t word[4];
  __device__ uint32_t operator[](int i) const { return word[i / 4] >> (8 * (i % 4)) & 255; }
};

// Bytes of a row at multiples of their number; of a file's row, at even ones.
template <bool kFile>
struct Load {
  __device__ static uint32_t four(GLOBAL const uint8_t* p) { return load4(p); }
  __device__ static Bytes16 sixteen(GLOBAL const uint8_t* p) {
    const Words4 all = load16(p);
    return Bytes16{{all.x, all.y, all.z, all.w}};
  }
};
template <>
struct Load<true> {
  __device__ static uint32_t four(GLOBAL const uint8_t* p) { return load2(p) | load2(p + 2) << 16; }
  __device__ static Bytes16 sixteen(GLOBAL const uint8_t* p) {
    return Bytes16{{four(p), four(p + 4), four(p + 8), four(p + 12)}};
  }
};

// A field of kBytes: in the file from byte kFrom of each block of kBlock bytes on; on a row that was taken apart behind
// kBefore bytes of each of its `blocks`.
template <bool kFile, uint32_t kBlock, uint32_t kBytes, uint32_t kFrom, uint32_t kBefore>
struct Field {
  __device__ static GLOBAL const uint8_t* of(GLOBAL const uint8_t* row, uint32_t blocks, uint32_t block) {
    return kFile ? row + kBlock * block + kFrom : row + kBefore * blocks + kBytes * block;
  }
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
        const Bytes16 b = Load<false>::sixteen(x + 16 * j);
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

template <bool kFile>
struct Q8_0 {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 34, 32, 2, 0> Levels;
  typedef Field<kFile, 34, 2, 0, 32> Scale;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(Scale::of(row, cols / 32, i)));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = (fromSmall(q[j] ^ 128) - 128.0f) * d;
    }
  }
};

template <bool kFile>
struct Q4_0 {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 18, 16, 2, 0> Levels;
  typedef Field<kFile, 18, 2, 0, 16> Scale;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(Scale::of(row, cols / 32, i)));
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i));
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = (fromSmall(low) - 8.0f) * d;
      y[j + 16] = (fromSmall(high) - 8.0f) * d;
    }
  }
};

template <bool kFile>
struct Q4_1 {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 20, 16, 4, 0> Levels;
  typedef Field<kFile, 20, 4, 0, 16> ScaleAndMin;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t dm = Load<kFile>::four(ScaleAndMin::of(row, cols / 32, i));
    const float d = halfToFloat(dm & 0xffff), m = halfToFloat(dm >> 16);
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i));
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = fromSmall(low) * d + m;
      y[j + 16] = fromSmall(high) * d + m;
    }
  }
};

template <bool kFile>
struct Q5_0 {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 22, 16, 6, 0> Levels;
  typedef Field<kFile, 22, 4, 2, 16> Fifth;
  typedef Field<kFile, 22, 2, 0, 20> Scale;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t fifth = Load<kFile>::four(Fifth::of(row, cols / 32, i));
    const float d = halfToFloat(load2(Scale::of(row, cols / 32, i)));
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i));
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = (fromSmall(low | (fifth >> j & 1) << 4) - 16.0f) * d;
      y[j + 16] = (fromSmall(high | (fifth >> (j + 16) & 1) << 4) - 16.0f) * d;
    }
  }
};

template <bool kFile>
struct Q5_1 {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 24, 16, 8, 0> Levels;
  typedef Field<kFile, 24, 4, 4, 16> Fifth;
  typedef Field<kFile, 24, 4, 0, 20> ScaleAndMin;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t fifth = Load<kFile>::four(Fifth::of(row, cols / 32, i));
    const uint32_t dm = Load<kFile>::four(ScaleAndMin::of(row, cols / 32, i));
    const float d = halfToFloat(dm & 0xffff), m = halfToFloat(dm >> 16);
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i));
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

template <bool kFile>
struct Iq4Nl {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 18, 16, 2, 0> Levels;
  typedef Field<kFile, 18, 2, 0, 16> Scale;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const float d = halfToFloat(load2(Scale::of(row, cols / 32, i)));
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, cols / 32, i));
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const uint32_t low = q[j] & 15, high = q[j] >> 4;
      y[j] = d * iq4Level(low);
      y[j + 16] = d * iq4Level(high);
    }
  }
};

// ---- blocks of 256: s is the block, g the group of 32 in it ----

template <bool kFile>
struct Q2K {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 84, 64, 16, 0> Levels;
  typedef Field<kFile, 84, 16, 0, 64> Scales;
  typedef Field<kFile, 84, 4, 80, 80> ScaleAndMin;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const uint32_t scales = load2(Scales::of(row, n, s) + 2 * g);
    const uint32_t dm = Load<kFile>::four(ScaleAndMin::of(row, n, s));
    const float d = halfToFloat(dm & 0xffff), dmin = halfToFloat(dm >> 16);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint32_t scale = scales >> (8 * part) & 255;
      const float dl = d * fromSmall(scale & 15), ml = dmin * fromSmall(scale >> 4);
      const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, n, s) + 32 * (g / 4) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = dl * fromSmall(q[j] >> (2 * (g % 4)) & 3) - ml;
    }
  }
};

template <bool kFile>
struct Q3K {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 110, 64, 32, 0> Levels;
  typedef Field<kFile, 110, 32, 0, 64> High;
  typedef Field<kFile, 110, 12, 96, 96> Scales;
  typedef Field<kFile, 110, 2, 108, 108> Scale;
  // Scale of group g of 16 values: six bits in two places
  __device__ static uint32_t scale(GLOBAL const uint8_t* scales, uint32_t g) {
    const uint32_t low = scales[g % 8] >> (g / 8 * 4) & 15, high = scales[8 + g % 4] >> (g / 4 * 2) & 3;
    return low | high << 4;
  }
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const float d = halfToFloat(load2(Scale::of(row, n, s)));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float dl = d * (fromSmall(scale(Scales::of(row, n, s), 2 * g + part)) - 32.0f);
      const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, n, s) + 32 * (g / 4) + 16 * part);
      const Bytes16 h = Load<kFile>::sixteen(High::of(row, n, s) + 16 * part);
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
  __device__ ScaleMin(Bytes16 h, uint32_t g) {
    const uint32_t at = g % 4;
    const uint32_t first = h.word[1] >> (8 * at) & 255, second = h.word[2] >> (8 * at) & 255,
                   third = h.word[3] >> (8 * at) & 255;
    const uint32_t sc = g < 4 ? first & 63 : (third & 15) | (first >> 6) << 4;
    const uint32_t mn = g < 4 ? second & 63 : third >> 4 | (second >> 6) << 4;
    scale = halfToFloat(h.word[0] & 0xffff) * fromSmall(sc);
    min = halfToFloat(h.word[0] >> 16) * fromSmall(mn);
  }
};

template <bool kFile>
struct Q4K {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 144, 128, 16, 0> Levels;
  typedef Field<kFile, 144, 16, 0, 128> Header;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const ScaleMin of(Load<kFile>::sixteen(Header::of(row, n, s)), g);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, n, s) + 32 * (g / 2) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) y[16 * part + j] = of.scale * fromSmall(q[j] >> (4 * (g % 2)) & 15) - of.min;
    }
  }
};

template <bool kFile>
struct Q5K {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 176, 128, 48, 0> Levels;
  typedef Field<kFile, 176, 32, 16, 128> High;
  typedef Field<kFile, 176, 16, 0, 160> Header;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    const ScaleMin of(Load<kFile>::sixteen(Header::of(row, n, s)), g);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, n, s) + 32 * (g / 2) + 16 * part);
      const Bytes16 h = Load<kFile>::sixteen(High::of(row, n, s) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const uint32_t bits = (q[j] >> (4 * (g % 2)) & 15) | (h[j] >> g & 1) << 4;
        y[16 * part + j] = of.scale * fromSmall(bits) - of.min;
      }
    }
  }
};

template <bool kFile>
struct Q6K {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 210, 128, 0, 0> Low;
  typedef Field<kFile, 210, 64, 128, 128> High;
  typedef Field<kFile, 210, 16, 192, 192> Scales;
  typedef Field<kFile, 210, 2, 208, 208> Scale;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8, quarter = g % 4;
    const float d = halfToFloat(load2(Scale::of(row, n, s)));
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint32_t scale = Scales::of(row, n, s)[2 * g + part];
      const float dl = d * (fromSmall(scale ^ 128) - 128.0f);
      const Bytes16 low = Load<kFile>::sixteen(Low::of(row, n, s) + 64 * (g / 4) + 32 * (quarter % 2) + 16 * part);
      const Bytes16 high = Load<kFile>::sixteen(High::of(row, n, s) + 32 * (g / 4) + 16 * part);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const uint32_t bits = (low[j] >> (quarter / 2 * 4) & 15) | (high[j] >> (2 * quarter) & 3) << 4;
        y[16 * part + j] = dl * (fromSmall(bits) - 32.0f);
      }
    }
  }
};

template <bool kFile>
struct Iq4Xs {
  static CONSTANT bool kBrain = false;
  typedef Field<kFile, 136, 128, 8, 0> Levels;
  typedef Field<kFile, 136, 8, 0, 128> Header;
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL float* y) {
    const uint32_t n = cols / 256, s = i / 8, g = i % 8;
    GLOBAL const uint8_t* header = Header::of(row, n, s);
    const uint32_t words = Load<kFile>::four(header), low = Load<kFile>::four(header + 4);
    const uint32_t scale = (low >> (4 * g) & 15) | (words >> 16 >> (2 * g) & 3) << 4;
    const float d = halfToFloat(words & 0xffff) * (fromSmall(scale) - 32.0f);
    const Bytes16 q = Load<kFile>::sixteen(Levels::of(row, n, s) + 16 * g);
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
#define PG_QUANTIZED_IN(X, suffix, kFile) \
  X(q8_0##suffix, Q8_0<kFile>)            \
  X(q4_0##suffix, Q4_0<kFile>)            \
  X(q4_1##suffix, Q4_1<kFile>)            \
  X(q5_0##suffix, Q5_0<kFile>)            \
  X(q5_1##suffix, Q5_1<kFile>)            \
  X(q2_k##suffix, Q2K<kFile>)             \
  X(q3_k##suffix, Q3K<kFile>)             \
  X(q4_k##suffix, Q4K<kFile>)             \
  X(q5_k##suffix, Q5K<kFile>)             \
  X(q6_k##suffix, Q6K<kFile>)             \
  X(iq4_nl##suffix, Iq4Nl<kFile>)         \
  X(iq4_xs##suffix, Iq4Xs<kFile>)
#ifdef __METAL_VERSION__  // CUDA copies all weights
#define PG_QUANTIZED_TYPES(X) PG_QUANTIZED_IN(X, , false) PG_QUANTIZED_IN(X, _file, true)
#else
#define PG_QUANTIZED_TYPES(X) PG_QUANTIZED_IN(X, , false)
#endif
#define PG_WEIGHT_TYPES(X) X(f32, F32) X(f16, F16) X(bf16, Bf16) PG_QUANTIZED_TYPES(X)
