// Products of many rows, as in prefill and vision: tiles of 128 rows of x by 64 of the weight, whose groups are
// dequantized into shared memory once for all 128.
//
// gelu is not among the ends: unrolled here it would be most of the code, and it is an op of its own.
// Shared rows are 64 values and 8 more: then the words that a warp's lanes read for a product, and the 16 bytes that
// eight neighbours write, lie in different banks.
// Products on tensor cores (Apple's simdgroup matrices): c[16, 8] += a[16, 16] b[16, 8], numbers of 16 bits in pairs,
// sums in f32. Lane l holds rows matrixRow(l) and that + 8 of a and of c, column matrixRow(l) of b; of 16 values along
// k, pairs matrixPair(l) and that + 4; of c, columns 2 matrixPair(l) and the next. b's pairs go through matrixColumns()
// first. Lanes of a row differ in kPairBit and kOtherPairBit of their numbers.
// Weights as they lie in a device's memory: a row's blocks are taken apart and their fields laid one kind after another
// (gpu_weights.cpp), so that the bulk of a row is read in words of 16 bytes. format/blocks.h says what the bits mean.
//
// Each reader gives 32 consecutive values of a row: group i of a row of `cols` values. Values beyond the row are zero.
// What all kernels share: number formats, sums over a warp and a block in a fixed order.
// The words of kernels/dialect.h in the Metal shading language, for Apple's GPUs (families 7 and newer). The emulator
// compiles the same with a metal_stdlib of its own, which brings other heads for kernels.
#include <metal_stdlib>

// What kernels are told beside their buffers: parameter 0 of each, in C++, CUDA and Metal alike. Words of 32 and 64
// bits only, each at a multiple of its size, so that all three lay them out the same way.
//
// Strides are in values of the tensor, offsets too, unless a name says bytes.
#ifdef __METAL_VERSION__
#include <metal_stdlib>
#else
#include <cstdint>
#endif

namespace pg {
namespace gpu {

// Rows of up to three tensors of one shape.
struct RowArgs {
  uint32_t rows, cols;
  uint32_t xStride, yStride, zStride;
  uint32_t yRows;   // y's rows repeat after so many; 0: there is no y
  uint32_t add;     // 1: results are added to what is there
  float number;     // eps, cap or factor: the kernel says which
};

// Fields of blocks, in the order in which they lie in a device's row: all blocks' first field, then all second ones.
struct PackArgs {
  uint32_t rows, blocks, blockBytes, strideBytes;
  uint32_t fields, from[4], bytes[4];
};

// y[m, n] = x[m, k] w[n, k]^T and what becomes of it.
struct ProductArgs {
  uint32_t m, n, k;
  uint32_t xStride, yStride, wStrideBytes;
  uint32_t epilogue;   // ProductEnd
  uint32_t parts;      // of x, where it is rounded: see HalvesArgs
  uint32_t biases;     // 1: the first weight has one; 2: the second
};

// Rows of x as 16-bit numbers: [row][part][padded].
struct HalvesArgs {
  uint32_t rows, cols, xStride, padded;
  uint32_t parts, brain;   // brain: bf16, not f16
};

enum ProductEnd : uint32_t { kStore = 0, kGelu = 1, kAdd = 2, kGeglu = 3 };

struct RopeArgs {
  uint32_t rows, heads, headDim, stride;
  float sign;   // -1: back
};

struct StoreKvArgs {
  uint64_t pages;   // address of the page table
  uint64_t headBytes, rowBytes, keyBytes, valueBytes;   // offsets in a page: of a head, a token, layer's K and V
  uint32_t rows, kvHeads, headDim;
  uint32_t kStride, vStride, positionStride;
};

// One sequence of an attention; see AttentionJob. Offsets from the launch's buffers.
struct AttentionSequence {
  uint64_t pages;
  int64_t qOffset, outOffset, positionOffset;
  int32_t prefix, window, windowInPrefix;
  uint32_t tokens;           // that its cache holds
  uint32_t rows, firstRow;   // its rows are numbered from firstRow on among those of the launch
};

enum : uint32_t { kAttentionSequences = 32 };

struct AttentionArgs {
  uint64_t headBytes, rowBytes, keyBytes, valueBytes;
  uint32_t kvHeads, group, headDim;
  uint32_t qStride, outStride;
  uint32_t sequences, rows, mostRows, pieces;   // rows of all and of the longest; pieces that keys of one may fill
  float scale, softcap;
  AttentionSequence sequence[kAttentionSequences];
};

// Every row sees every row.
struct DenseArgs {
  uint32_t rows, keys, heads, headDim;
  uint32_t qStride, kStride, vStride, outStride;
  float scale;
};

struct TopArgs {
  uint32_t rows, count, stride;   // values or keys of a row
  uint32_t k, chunks;
  uint32_t idStride, valueStride;
};

struct DropoutArgs {
  uint64_t key;
  uint32_t rows, cols, outStride, xStride;
  uint32_t threshold;   // values whose random bits are below it become zero
  float factor;         // of the others
  uint32_t add;
};

struct OuterArgs {
  uint32_t m, rows, cols;
  uint32_t outStride, yStride, xStride;
  float scale;
};

// One KV head's queries and keys.
struct AttentionGradArgs {
  uint32_t n, group, headDim, firstHead, kvHead;
  uint32_t qStride, kStride, doutStride, dqStride, dkStride, dvStride, vStride;
  int32_t prefix, window, windowInPrefix;
  float scale, softcap;
};

}  // namespace gpu
}  // namespace pg


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

template <>
struct Pairs<Q4_0> {
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL uint32_t* y) {
    const uint32_t one = load2(row + cols / 2 + 2 * i), d = one | one << 16;
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
  __device__ static void read(GLOBAL const uint8_t* row, uint32_t cols, uint32_t i, LOCAL uint32_t* y) {
    const uint32_t one = load2(row + cols + 2 * i), d = one | one << 16;
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
__device__ inline void multiplyAdd(LOCAL float* c, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                   uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  multiplyAdd16<kBf16>(c, a, b);
}

KERNELS_END

// Types that tensor cores multiply
#define PG_MATRIX_TYPES(X) X(f16, F16) X(bf16, Bf16) PG_QUANTIZED_TYPES(X)

// What becomes of a product's sums.

KERNELS_BEGIN

// That of a column, of the first or second of a launch's weights
__device__ inline float biasOf(ARGS ProductArgs& a, GLOBAL const float* bias, uint32_t column, uint32_t which = 1) {
  return a.biases & which ? bias[column] : 0.0f;
}

__device__ inline void store(ARGS ProductArgs& a, GLOBAL float* y, uint32_t row, uint32_t column, float sum,
                             GLOBAL const float* bias) {
  GLOBAL float* to = y + size_t(row) * a.yStride + column;
  sum += biasOf(a, bias, column);
  *to = a.epilogue == kAdd ? *to + sum : sum;
}

__device__ inline void finish(ARGS ProductArgs& a, GLOBAL float* y, uint32_t row, uint32_t column, float sum,
                              GLOBAL const float* bias) {
  if (a.epilogue != kGelu) return store(a, y, row, column, sum, bias);
  y[size_t(row) * a.yStride + column] = geluTanh(sum + biasOf(a, bias, column));
}

KERNELS_END


KERNELS_BEGIN

CONSTANT uint32_t kTileThreads = 128, kTileRows = 128, kTileColumns = 64, kTileDepth = 64, kTilePitch = 72;
CONSTANT uint32_t kPitchWords = kTilePitch / 2;
// A warp has 64 rows by 32 columns: 4 by 4 products of 16 by 8.
CONSTANT uint32_t kWarpRows = 64, kWarpColumns = 32;

__device__ inline void storeShared16(SHARED uint16_t* to, Words4 words) {
  *reinterpret_cast<SHARED Words4*>(to) = words;
}

// Rows of x, values [k, k + kTileDepth); behind the last row zeros
__device__ inline void loadActivations(Place at, ARGS ProductArgs& a, SHARED uint16_t* tile, GLOBAL const uint16_t* x,
                                       uint32_t part, uint32_t k) {
  constexpr uint32_t kWords = kTileDepth / 8;   // of 16 bytes
#pragma unroll
  for (uint32_t i = at.index; i < kTileRows * kWords; i += kTileThreads) {
    const uint32_t row = i / kWords, word = i % kWords, m = at.y * kTileRows + row;
    Words4 words{0, 0, 0, 0};
    if (m < a.m) words = load16(x + (size_t(m) * a.parts + part) * a.xStride + k + 8 * word);
    storeShared16(tile + row * kTilePitch + 8 * word, words);
  }
}

// A thread a group of 32 values
template <class Type>
__device__ inline void loadWeights(Place at, ARGS ProductArgs& a, SHARED uint16_t* tile, GLOBAL const uint8_t* w,
                                   uint32_t k) {
  static_assert(kTileThreads == kTileColumns * kTileDepth / 32, "a thread a group");
  const uint32_t row = at.index / 2, i = k / 32 + at.index % 2, n = at.x * kTileColumns + row;
  uint32_t pairs[16] = {};
  if (n < a.n && 32 * i < a.k) Pairs<Type>::read(w + size_t(n) * a.wStrideBytes, a.k, i, pairs);
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j)
    storeShared16(tile + row * kTilePitch + at.index % 2 * 32 + 8 * j,
                  Words4{pairs[4 * j], pairs[4 * j + 1], pairs[4 * j + 2], pairs[4 * j + 3]});
}

template <bool kBf16>
__device__ inline void multiplyTiles(Place at, SHARED const uint32_t* x, SHARED const uint32_t* w,
                                     LOCAL float (&sums)[4][4][4]) {
  const uint32_t lane = at.lane(), warp = at.warp(), own = matrixRow(lane) * kPitchWords + matrixPair(lane);
  SHARED const uint32_t* rows = x + warp / 2 * kWarpRows * kPitchWords + own;
  SHARED const uint32_t* columns = w + warp % 2 * kWarpColumns * kPitchWords + own;
#pragma unroll
  for (uint32_t k = 0; k < kTileDepth / 2; k += 8) {
    uint32_t b[4][2];
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
      b[j][0] = matrixColumns(columns[8 * j * kPitchWords + k], lane);
      b[j][1] = matrixColumns(columns[8 * j * kPitchWords + k + 4], lane);
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      SHARED const uint32_t* row = rows + 16 * i * kPitchWords + k;
      const uint32_t a0 = row[0], a1 = row[8 * kPitchWords], a2 = row[4], a3 = row[8 * kPitchWords + 4];
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) multiplyAdd<kBf16>(sums[i][j], a0, a1, a2, a3, b[j][0], b[j][1]);
    }
  }
}

template <class Type>
__device__ inline void tileProduct(Place at, ARGS ProductArgs& a, SHARED uint16_t* xTile, SHARED uint16_t* wTile,
                                   GLOBAL float* y, GLOBAL const uint16_t* x, GLOBAL const float* factors,
                                   GLOBAL const uint8_t* w, GLOBAL const float* bias) {
  float sums[4][4][4] = {};
#pragma unroll 1
  for (uint32_t k = 0; k < a.k; k += kTileDepth)
#pragma unroll 1
    for (uint32_t part = 0; part < a.parts; ++part) {
      groupBarrier();   // the last tiles have been multiplied
      if (part == 0) loadWeights<Type>(at, a, wTile, w, k);
      loadActivations(at, a, xTile, x, part, k);
      groupBarrier();
      multiplyTiles<Type::kBrain>(at, reinterpret_cast<SHARED const uint32_t*>(xTile),
                                  reinterpret_cast<SHARED const uint32_t*>(wTile), sums);
    }
  const uint32_t m = at.y * kTileRows + at.warp() / 2 * kWarpRows + matrixRow(at.lane());
  const uint32_t n = at.x * kTileColumns + at.warp() % 2 * kWarpColumns + matrixPair(at.lane()) * 2;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t row = m + 16 * i + 8 * h;
      if (row >= a.m) continue;
      const float factor = factors[row];
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j)
#pragma unroll
        for (uint32_t c = 0; c < 2; ++c)
          if (n + 8 * j + c < a.n) store(a, y, row, n + 8 * j + c, sums[i][j][2 * h + c] * factor, bias);
    }
}

#define PG_TILE(name, Type)                                                                                       \
  KERNEL(kTileThreads, tile_##name,                                                                               \
         (ProductArgs, float* y, const uint16_t* x, const float* factors, const uint8_t* w, const float* bias)) { \
    TG_ARRAY(uint16_t, xTile, kTileRows* kTilePitch);                                                             \
    TG_ARRAY(uint16_t, wTile, kTileColumns* kTilePitch);                                                          \
    tileProduct<Type>(PLACE, a, xTile, wTile, y, x, factors, w, bias);                                            \
  }
PG_MATRIX_TYPES(PG_TILE)
#undef PG_TILE

KERNELS_END
