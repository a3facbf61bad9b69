// A group of threads works on a row. out may be x: the sums are complete before the first value is written.
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

CONSTANT uint32_t kNormThreads = 256;
CONSTANT uint32_t kNormWarps = kNormThreads / kWarp;

// Sums over a row by all threads of its group
struct RowSums {
  Place at;
  uint32_t n;
  SHARED float* part;

  __device__ float values(GLOBAL const float* x) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c];
    return blockSum<kNormThreads>(at, sum, part);
  }
  // (x - mean)^2
  __device__ float squares(GLOBAL const float* x, float mean) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += (x[c] - mean) * (x[c] - mean);
    return blockSum<kNormThreads>(at, sum, part);
  }
  __device__ float products(GLOBAL const float* x, GLOBAL const float* y) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c] * y[c];
    return blockSum<kNormThreads>(at, sum, part);
  }
  // x y (z - mean) factor
  __device__ float products(GLOBAL const float* x, GLOBAL const float* y, GLOBAL const float* z, float mean,
                            float factor) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c] * y[c] * (z[c] - mean) * factor;
    return blockSum<kNormThreads>(at, sum, part);
  }
};

// out = x / rms(x) * weight; add: out += that
KERNEL(kNormThreads, rms_norm, (RowArgs, float* out, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float* in = x + size_t(at.x) * a.yStride;
  GLOBAL float* to = out + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float factor = 1.0f / sqrtf(sums.squares(in, 0) / float(a.cols) + a.number);
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float y = in[c] * factor * weight[c];
    to[c] = a.add ? to[c] + y : y;
  }
}

KERNEL(kNormThreads, layer_norm, (RowArgs, float* out, const float* x, const float* weight, const float* bias)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float* in = x + size_t(at.x) * a.yStride;
  GLOBAL float* to = out + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), mean = sums.values(in) / n;
  const float factor = 1.0f / sqrtf(sums.squares(in, mean) / n + a.number);
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) to[c] = (in[c] - mean) * factor * weight[c] + bias[c];
}

// With y = x f w, f = 1 / rms(x): dx = f (dy w - x f^2 mean(dy w x)); dx may be dy.
KERNEL(kNormThreads, rms_norm_grad, (RowArgs, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float *d = dy + size_t(at.x) * a.yStride, *in = x + size_t(at.x) * a.zStride;
  GLOBAL float* to = dx + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), squares = sums.squares(in, 0), along = sums.products(d, weight, in, 0, 1);
  const float factor = 1.0f / sqrtf(squares / n + a.number), back = along / n * factor * factor;
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - in[c] * back);
    to[c] = a.add ? to[c] + g : g;
  }
}

// With z = (x - mean) f, y = z w + b: dx = f (dy w - mean(dy w) - z mean(dy w z))
KERNEL(kNormThreads, layer_norm_grad, (RowArgs, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float *d = dy + size_t(at.x) * a.yStride, *in = x + size_t(at.x) * a.zStride;
  GLOBAL float* to = dx + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), mean = sums.values(in) / n;
  const float factor = 1.0f / sqrtf(sums.squares(in, mean) / n + a.number);
  const float level = sums.products(d, weight) / n, along = sums.products(d, weight, in, mean, factor) / n;
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - level - (in[c] - mean) * factor * along);
    to[c] = a.add ? to[c] + g : g;
  }
}

KERNELS_END
