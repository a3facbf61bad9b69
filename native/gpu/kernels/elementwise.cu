// Ops on single values, rows that move, rotation.
#include "gpu/kernels/quantized.h"

KERNELS_BEGIN

// x = gelu(x) * y, or gelu(x) alone where y has no rows
KERNEL(256, gelu, (RowArgs, float* x, const float* y)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) {
    GLOBAL float& v = x[i.r * a.xStride + i.c];
    v = a.yRows ? geluTanh(v) * y[i.r * a.yStride + i.c] : geluTanh(v);
  }
}

// x += y
KERNEL(256, add_rows, (RowArgs, float* x, const float* y)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next())
    x[i.r * a.xStride + i.c] += y[i.r % a.yRows * a.yStride + i.c];
}

KERNEL(256, softcap, (RowArgs, float* x)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) {
    GLOBAL float& v = x[i.r * a.xStride + i.c];
    v = a.number * tanhf(v / a.number);
  }
}

// Rows of words, or of bytes where words do not fit: x = y
KERNEL(256, copy_words, (RowArgs, uint32_t* x, const uint32_t* y)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) x[i.r * a.xStride + i.c] = y[i.r * a.yStride + i.c];
}
KERNEL(256, copy_bytes, (RowArgs, uint8_t* x, const uint8_t* y)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) x[i.r * a.xStride + i.c] = y[i.r * a.yStride + i.c];
}

// Half-split rotation by the row's position, angles in f32 as the reference takes them; a column is a pair of values.
KERNEL(256, rope, (RopeArgs, float* x, const int32_t* positions, const float* frequencies)) {
  const uint32_t pairs = a.headDim / 2;
  for (EachValue v(PLACE, a.rows, a.heads * pairs); v.more(); v.next()) {
    const uint32_t i = uint32_t(v.c) % pairs;
    const float angle = float(positions[v.r]) * frequencies[i];
    const float cosine = cosf(angle), sine = a.sign * sinf(angle);
    GLOBAL float* to = x + v.r * a.stride + uint32_t(v.c) / pairs * a.headDim + i;
    const float first = to[0], second = to[pairs];
    to[0] = first * cosine - second * sine;
    to[pairs] = second * cosine + first * sine;
  }
}

// y[i] = table[ids[i]] * factor, without ids table[i]; a column is 32 values. n: the factor's bits; biases: whether
// there are ids
template <class Type>
__device__ inline void embedRows(Place at, ARGS ProductArgs& a, GLOBAL float* y, GLOBAL const uint8_t* table,
                                 GLOBAL const int32_t* ids) {
  const float factor = asFloat(a.n);
  for (EachValue i(at, a.m, (a.k + 31) / 32); i.more(); i.next()) {
    float values[32];
    Type::read(table + (a.biases ? size_t(ids[i.r]) : i.r) * a.wStrideBytes, a.k, uint32_t(i.c), values);
    GLOBAL float* to = y + i.r * a.yStride + 32 * i.c;
#pragma unroll
    for (uint32_t j = 0; j < 32; ++j)
      if (32 * i.c + j < a.k) to[j] = values[j] * factor;
  }
}

#define PG_EMBED(name, Type)                                                                     \
  KERNEL(256, embed_##name, (ProductArgs, float* y, const uint8_t* table, const int32_t* ids)) { \
    embedRows<Type>(PLACE, a, y, table, ids);                                                    \
  }
PG_WEIGHT_TYPES(PG_EMBED)
#undef PG_EMBED

// Takes blocks apart: see quantized.h. A thread moves two bytes.
KERNEL(256, pack_blocks, (PackArgs, uint16_t* packed, const uint16_t* rows)) {
  const uint32_t units = a.blockBytes / 2;
  for (EachValue i(PLACE, a.rows, a.blocks * units); i.more(); i.next()) {
    const uint32_t block = uint32_t(i.c) / units, byte = uint32_t(i.c) % units * 2;
    uint32_t before = 0;   // bytes of a block in fields before this one
    for (uint32_t f = 0; f < a.fields; ++f) {
      const uint32_t in = byte - a.from[f];
      if (byte >= a.from[f] && in < a.bytes[f]) {
        const size_t to = size_t(before) * a.blocks + block * a.bytes[f] + in;
        packed[(i.r * a.strideBytes + to) / 2] = rows[i.r * a.blocks * units + i.c];
      }
      before += a.bytes[f];
    }
  }
}

// ---- the KV cache ----

// What a cache of this type cannot hold, and what is no number, is told to the host.
enum Trouble : int32_t { kFine = 0, kSpoiled = 1, kTooLarge = 2 };

__device__ inline void report(GLOBAL int32_t* trouble, float x, float limit) {
  if (notFinite(x)) *trouble = kSpoiled;
  else if (fabsf(x) > limit && *trouble == kFine) *trouble = kTooLarge;
}

struct KvPlace {
  GLOBAL uint8_t *key, *value;
  __device__ KvPlace(ARGS StoreKvArgs& a, size_t row, uint32_t head, GLOBAL const int32_t* positions) {
    constexpr uint32_t kPage = 64;
    const uint32_t token = uint32_t(positions[row * a.positionStride]);
    const uint64_t page = reinterpret_cast<GLOBAL const uint64_t*>(a.pages)[token / kPage];
    GLOBAL uint8_t* to =
        reinterpret_cast<GLOBAL uint8_t*>(page) + token % kPage * a.rowBytes + head * a.headBytes;
    key = to + a.keyBytes;
    value = to + a.valueBytes;
  }
};

KERNEL(256, store_kv_f32, (StoreKvArgs, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  for (EachValue i(PLACE, a.rows, a.kvHeads * a.headDim); i.more(); i.next()) {
    const float key = k[i.r * a.kStride + i.c], value = v[i.r * a.vStride + i.c];
    const KvPlace to(a, i.r, uint32_t(i.c) / a.headDim, positions);
    reinterpret_cast<GLOBAL float*>(to.key)[i.c % a.headDim] = key;
    reinterpret_cast<GLOBAL float*>(to.value)[i.c % a.headDim] = value;
    report(trouble, key, INFINITY);
    report(trouble, value, INFINITY);
  }
}

KERNEL(256, store_kv_f16, (StoreKvArgs, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  constexpr float kLargest = 65504;
  for (EachValue i(PLACE, a.rows, a.kvHeads * a.headDim); i.more(); i.next()) {
    const float key = k[i.r * a.kStride + i.c], value = v[i.r * a.vStride + i.c];
    const KvPlace to(a, i.r, uint32_t(i.c) / a.headDim, positions);
    reinterpret_cast<GLOBAL uint16_t*>(to.key)[i.c % a.headDim] = floatToHalf(key);
    reinterpret_cast<GLOBAL uint16_t*>(to.value)[i.c % a.headDim] = floatToHalf(value);
    report(trouble, key, kLargest);
    report(trouble, value, kLargest);
  }
}

// A block of 32 values: a scale, then bytes
__device__ inline void storeQ8(GLOBAL uint8_t* y, GLOBAL const float* x, GLOBAL int32_t* trouble) {
  constexpr float kLargest = 127.0f * 65504.0f;
  float most = 0;
  for (int i = 0; i < 32; ++i) {
    report(trouble, x[i], kLargest);
    most = fmaxf(most, fabsf(x[i]));
  }
  // the scale as it is kept; among subnormals it may have been rounded so far down that the largest is cut off
  uint32_t d = floatToHalf(most / 127.0f);
  if (most > 0 && most < 1 && halfToFloat(d) * 127.5f < most) ++d;
  const float scale = halfToFloat(d), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  *reinterpret_cast<GLOBAL uint16_t*>(y) = uint16_t(d);
  for (int i = 0; i < 32; ++i)
    reinterpret_cast<GLOBAL int8_t*>(y + 2)[i] = int8_t(fminf(127.0f, fmaxf(-127.0f, rintf(x[i] * inverse))));
}

// A column is a block.
KERNEL(256, store_kv_q8_0, (StoreKvArgs, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  const uint32_t blocks = a.headDim / 32;
  for (EachValue i(PLACE, a.rows, a.kvHeads * blocks); i.more(); i.next()) {
    const uint32_t head = uint32_t(i.c) / blocks, block = uint32_t(i.c) % blocks;
    const KvPlace to(a, i.r, head, positions);
    storeQ8(to.key + 34 * block, k + i.r * a.kStride + head * a.headDim + 32 * block, trouble);
    storeQ8(to.value + 34 * block, v + i.r * a.vStride + head * a.headDim + 32 * block, trouble);
  }
}

KERNELS_END
