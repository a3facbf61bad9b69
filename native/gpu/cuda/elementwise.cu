// Ops on single values, rows that move, rotation.
#include "quantized.cuh"

namespace pg::gpu {

// Calls body(row, column) for all of rows x cols: a thread a column, blocks of y walk down the rows.
template <class Body>
__device__ inline void eachValue(uint32_t rows, uint32_t cols, const Body& body) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= cols) return;
  for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) body(size_t(r), size_t(c));
}

// x = gelu(x) * y, or gelu(x) alone
KERNEL(256, gelu, (RowArgs a, float* x, const float* y)) {
  eachValue(a.rows, a.cols, [&](size_t r, size_t c) {
    float& v = x[r * a.xStride + c];
    v = y ? geluTanh(v) * y[r * a.yStride + c] : geluTanh(v);
  });
}

// x += y
KERNEL(256, add_rows, (RowArgs a, float* x, const float* y)) {
  eachValue(a.rows, a.cols, [&](size_t r, size_t c) { x[r * a.xStride + c] += y[r % a.yRows * a.yStride + c]; });
}

KERNEL(256, softcap, (RowArgs a, float* x)) {
  eachValue(a.rows, a.cols, [&](size_t r, size_t c) {
    float& v = x[r * a.xStride + c];
    v = a.number * tanhf(v / a.number);
  });
}

// Rows of words, or of bytes where words do not fit: x = y
KERNEL(256, copy_words, (RowArgs a, uint32_t* x, const uint32_t* y)) {
  eachValue(a.rows, a.cols, [&](size_t r, size_t c) { x[r * a.xStride + c] = y[r * a.yStride + c]; });
}
KERNEL(256, copy_bytes, (RowArgs a, uint8_t* x, const uint8_t* y)) {
  eachValue(a.rows, a.cols, [&](size_t r, size_t c) { x[r * a.xStride + c] = y[r * a.yStride + c]; });
}

// Half-split rotation by the row's position, angles in f32 as the reference takes them; a column is a pair of values.
KERNEL(256, rope, (RopeArgs a, float* x, const int32_t* positions, const float* frequencies)) {
  const uint32_t half = a.headDim / 2;
  eachValue(a.rows, a.heads * half, [&](size_t r, size_t c) {
    const uint32_t i = uint32_t(c) % half;
    const float angle = float(positions[r]) * frequencies[i];
    const float cosine = cosf(angle), sine = a.sign * sinf(angle);
    float* at = x + r * a.stride + uint32_t(c) / half * a.headDim + i;
    const float first = at[0], second = at[half];
    at[0] = first * cosine - second * sine;
    at[half] = second * cosine + first * sine;
  });
}

// y[i] = table[ids[i]] * factor, without ids table[i]; a column is 32 values.
template <class Type>
__device__ inline void embedRows(const ProductArgs& a, float factor, float* y, const uint8_t* table,
                                 const int32_t* ids) {
  eachValue(a.m, (a.k + 31) / 32, [&](size_t r, size_t i) {
    float values[32];
    Type::read(table + (ids ? size_t(ids[r]) : r) * a.wStrideBytes, a.k, uint32_t(i), values);
    float* to = y + r * a.yStride + 32 * i;
#pragma unroll
    for (uint32_t j = 0; j < 32; ++j)
      if (32 * i + j < a.k) to[j] = values[j] * factor;
  });
}

#define PG_EMBED(name, Type)                                                                       \
  KERNEL(256, embed_##name, (ProductArgs a, float* y, const uint8_t* table, const int32_t* ids)) { \
    embedRows<Type>(a, asFloat(a.n), y, table, ids);                                               \
  }
PG_WEIGHT_TYPES(PG_EMBED)
#undef PG_EMBED

// Takes blocks apart: see quantized.cuh. A thread moves two bytes.
KERNEL(256, pack_blocks, (PackArgs a, uint16_t* packed, const uint16_t* rows)) {
  const uint32_t units = a.blockBytes / 2;
  eachValue(a.rows, a.blocks * units, [&](size_t r, size_t c) {
    const uint32_t block = uint32_t(c) / units, byte = uint32_t(c) % units * 2;
    uint32_t before = 0;   // bytes of a block in fields before this one
    for (uint32_t f = 0; f < a.fields; ++f) {
      const uint32_t in = byte - a.from[f];
      if (byte >= a.from[f] && in < a.bytes[f]) {
        const size_t to = size_t(before) * a.blocks + block * a.bytes[f] + in;
        packed[(r * a.strideBytes + to) / 2] = rows[r * a.blocks * units + c];
      }
      before += a.bytes[f];
    }
  });
}

// ---- the KV cache ----

// What a cache of this type cannot hold, and what is no number, is told to the host.
enum Trouble : int32_t { kFine = 0, kSpoiled = 1, kTooLarge = 2 };

__device__ inline void report(int32_t* trouble, float x, float limit) {
  if (notFinite(x)) *trouble = kSpoiled;
  else if (fabsf(x) > limit && *trouble == kFine) *trouble = kTooLarge;
}

struct KvPlace {
  uint8_t *key, *value;
  __device__ KvPlace(const StoreKvArgs& a, size_t row, uint32_t head, const int32_t* positions) {
    constexpr uint32_t kPage = 64;
    const uint32_t token = uint32_t(positions[row * a.positionStride]);
    const uint64_t page = reinterpret_cast<const uint64_t*>(a.pages)[token / kPage];
    uint8_t* at = reinterpret_cast<uint8_t*>(page) + token % kPage * a.rowBytes + head * a.headBytes;
    key = at + a.keyBytes;
    value = at + a.valueBytes;
  }
};

KERNEL(256, store_kv_f32, (StoreKvArgs a, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  eachValue(a.rows, a.kvHeads * a.headDim, [&](size_t r, size_t c) {
    const float key = k[r * a.kStride + c], value = v[r * a.vStride + c];
    const KvPlace to(a, r, uint32_t(c) / a.headDim, positions);
    reinterpret_cast<float*>(to.key)[c % a.headDim] = key;
    reinterpret_cast<float*>(to.value)[c % a.headDim] = value;
    report(trouble, key, INFINITY);
    report(trouble, value, INFINITY);
  });
}

KERNEL(256, store_kv_f16, (StoreKvArgs a, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  constexpr float kLargest = 65504;
  eachValue(a.rows, a.kvHeads * a.headDim, [&](size_t r, size_t c) {
    const float key = k[r * a.kStride + c], value = v[r * a.vStride + c];
    const KvPlace to(a, r, uint32_t(c) / a.headDim, positions);
    reinterpret_cast<uint16_t*>(to.key)[c % a.headDim] = floatToHalf(key);
    reinterpret_cast<uint16_t*>(to.value)[c % a.headDim] = floatToHalf(value);
    report(trouble, key, kLargest);
    report(trouble, value, kLargest);
  });
}

// A column is a block of 32 values: a scale, then bytes.
KERNEL(256, store_kv_q8_0,
       (StoreKvArgs a, const float* k, const float* v, const int32_t* positions, int32_t* trouble)) {
  constexpr float kLargest = 127.0f * 65504.0f;
  const uint32_t blocks = a.headDim / 32;
  eachValue(a.rows, a.kvHeads * blocks, [&](size_t r, size_t c) {
    const uint32_t head = uint32_t(c) / blocks, block = uint32_t(c) % blocks;
    const KvPlace to(a, r, head, positions);
    for (int which = 0; which < 2; ++which) {
      const float* x = (which ? v + r * a.vStride : k + r * a.kStride) + head * a.headDim + 32 * block;
      uint8_t* y = (which ? to.value : to.key) + 34 * block;
      float most = 0;
      for (int i = 0; i < 32; ++i) {
        report(trouble, x[i], kLargest);
        most = fmaxf(most, fabsf(x[i]));
      }
      // the scale as it is kept; among subnormals it may have been rounded so far down that the largest is cut off
      uint32_t d = floatToHalf(most / 127.0f);
      if (most > 0 && most < 1 && halfToFloat(d) * 127.5f < most) ++d;
      const float scale = halfToFloat(d), inverse = scale > 0 ? 1.0f / scale : 0.0f;
      *reinterpret_cast<uint16_t*>(y) = uint16_t(d);
      for (int i = 0; i < 32; ++i)
        reinterpret_cast<int8_t*>(y + 2)[i] = int8_t(fminf(127.0f, fmaxf(-127.0f, rintf(x[i] * inverse))));
    }
  });
}

}  // namespace pg::gpu
