// Attention of many rows, as in prefill and vision, on tensor cores: f16 products, sums and softmax in f32. The rows of
// a group of threads are the positions of all heads that share a KV head: their keys are read once.
//
// In shared memory: queries and keys in rows of kDim + 8 values, values turned round, [kDim][keys + 8]: so each pair
// that a product wants is a word, and the lanes of a warp find theirs in different banks. Where there is little of it,
// rows and keys are fewer, and values take the place of keys.
#include "gpu/kernels/attention.h"
#include "gpu/kernels/matrix.h"

KERNELS_BEGIN

// Keys of all rows [first, end); of this lane's two rows their own.
struct FlashRange {
  uint32_t first, end;
  uint32_t rowFirst[2], rowEnd[2];
};

// Wide: 64 rows of queries, 32 keys at a time; else 32 and 16. gpu_device_attention.cpp has the same numbers.
template <uint32_t kHeadDim, bool kWide>
struct FlashShape {
  static CONSTANT uint32_t kDim = kHeadDim, kRows = kWide ? 64 : 32, kKeys = kWide ? 32 : 16;
  static CONSTANT uint32_t kThreads = kRows * 2, kPitch = kDim + 8, kValuePitch = kKeys + 8;
  static CONSTANT uint32_t kKeyValues = kKeys * kPitch, kValueValues = kDim * kValuePitch;
  static CONSTANT bool kBoth = kWide;   // keys and values have their own places
  static CONSTANT uint32_t kShared = kRows * kPitch + (kBoth                       ? kKeyValues + kValueValues
                                                       : kKeyValues > kValueValues ? kKeyValues
                                                                                   : kValueValues);
};

template <class Shape>
struct FlashTiles {
  Place at;
  SHARED uint16_t *queries, *keys, *values;
  __device__ FlashTiles(Place place, SHARED uint16_t* shared)
      : at(place),
        queries(shared),
        keys(shared + Shape::kRows * Shape::kPitch),
        values(keys + (Shape::kBoth ? Shape::kKeyValues : 0)) {}

  // rows.query(i): the query of row i, where rows.there(i)
  template <class Queries>
  __device__ void loadQueries(uint32_t headDim, float scale, LOCAL const Queries& rows) const {
    constexpr uint32_t kPairs = Shape::kDim / 2;
    for (uint32_t i = at.index; i < Shape::kRows * kPairs; i += Shape::kThreads) {
      const uint32_t r = i / kPairs, c = i % kPairs * 2;
      float first = 0, second = 0;
      if (rows.there(r)) {
        GLOBAL const float* q = rows.query(r);
        if (c < headDim) first = q[c] * scale;
        if (c + 1 < headDim) second = q[c + 1] * scale;
      }
      reinterpret_cast<SHARED uint32_t*>(queries)[r * (Shape::kPitch / 2) + c / 2] = packHalves(first, second);
    }
  }

  // Keys [first, first + kKeys); behind end zeros
  template <class Rows, class Keys>
  __device__ void loadKeys(LOCAL const Keys& kv, uint32_t headDim, bool aligned, uint32_t first, uint32_t end) const {
    constexpr uint32_t kEights = Shape::kDim / 8;
    for (uint32_t i = at.index; i < Shape::kKeys * kEights; i += Shape::kThreads) {
      const uint32_t key = i / kEights, c = i % kEights * 8;
      float k[8] = {};
      if (first + key < end) readEight<Rows>(kv.key(first + key), c, headDim, aligned, k);
      *reinterpret_cast<SHARED Words4*>(keys + key * Shape::kPitch + c) = Words4{
          packHalves(k[0], k[1]), packHalves(k[2], k[3]), packHalves(k[4], k[5]), packHalves(k[6], k[7])};
    }
  }

  // Their values
  template <class Rows, class Keys>
  __device__ void loadValues(LOCAL const Keys& kv, uint32_t headDim, bool aligned, uint32_t first,
                             uint32_t end) const {
    constexpr uint32_t kPairs = Shape::kKeys / 2;
    for (uint32_t i = at.index; i < kPairs * Shape::kDim / 8; i += Shape::kThreads) {
      const uint32_t pair = i % kPairs, c = i / kPairs * 8, key = first + 2 * pair;
      float even[8] = {}, odd[8] = {};
      if (key < end) readEight<Rows>(kv.value(key), c, headDim, aligned, even);
      if (key + 1 < end) readEight<Rows>(kv.value(key + 1), c, headDim, aligned, odd);
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j)
        reinterpret_cast<SHARED uint32_t*>(values)[(c + j) * (Shape::kValuePitch / 2) + pair] =
            packHalves(even[j], odd[j]);
    }
  }
};

// What a warp knows of its 16 rows. Of products' sums, [..][0] and [1] are of the lane's first row, [2] and [3] of its
// second.
template <class Shape>
struct FlashState {
  Place at;
  float out[Shape::kDim / 8][4];
  float top[2], sum[2];

  __device__ explicit FlashState(Place place) : at(place) {
#pragma unroll
    for (uint32_t i = 0; i < Shape::kDim / 8; ++i)
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) out[i][j] = 0;
    top[0] = top[1] = -INFINITY;
    sum[0] = sum[1] = 0;
  }

  // scores[key / 8]: of keys first + 8 i + 2 matrixPair and the next
  __device__ void scores(LOCAL const FlashTiles<Shape>& tiles, LOCAL float (&s)[Shape::kKeys / 8][4]) const {
    constexpr uint32_t kWords = Shape::kPitch / 2;
    const uint32_t lane = at.lane(), own = matrixRow(lane) * kWords + matrixPair(lane);
    SHARED const uint32_t* q = reinterpret_cast<SHARED const uint32_t*>(tiles.queries) + 16 * at.warp() * kWords + own;
    SHARED const uint32_t* k = reinterpret_cast<SHARED const uint32_t*>(tiles.keys) + own;
#pragma unroll
    for (uint32_t c = 0; c < Shape::kDim / 2; c += 8)
#pragma unroll
      for (uint32_t i = 0; i < Shape::kKeys / 8; ++i)
        multiplyAdd<false>(s[i], q[c], q[8 * kWords + c], q[c + 4], q[8 * kWords + c + 4],
                           matrixColumns(k[8 * i * kWords + c], lane), matrixColumns(k[8 * i * kWords + c + 4], lane));
  }

  // Scores become weights; what was there before is scaled to the new largest score.
  __device__ void softmax(LOCAL float (&s)[Shape::kKeys / 8][4], LOCAL const FlashRange& range, uint32_t first,
                          float softcap) {
    const uint32_t column = first + matrixPair(at.lane()) * 2;
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (uint32_t i = 0; i < Shape::kKeys / 8; ++i)
#pragma unroll
        for (uint32_t j = 0; j < 2; ++j) {
          LOCAL float& score = s[i][2 * h + j];
          const uint32_t key = column + 8 * i + j;
          if (softcap > 0) score = softcap * tanhf(score / softcap);
          if (key < range.rowFirst[h] || key >= range.rowEnd[h]) score = -INFINITY;
          most = fmaxf(most, score);
        }
      most = fmaxf(most, shuffleXor(most, kPairBit));
      most = fmaxf(most, shuffleXor(most, kOtherPairBit));
      const float base = most == -INFINITY ? 0.0f : most, keep = expf(top[h] - base);
      top[h] = most;
      sum[h] *= keep;
#pragma unroll
      for (uint32_t i = 0; i < Shape::kKeys / 8; ++i)
#pragma unroll
        for (uint32_t j = 0; j < 2; ++j) sum[h] += s[i][2 * h + j] = expf(s[i][2 * h + j] - base);
#pragma unroll
      for (uint32_t i = 0; i < Shape::kDim / 8; ++i) out[i][2 * h] *= keep, out[i][2 * h + 1] *= keep;
    }
  }

  // The scores' registers lie as a product's first factor wants them.
  __device__ void values(LOCAL const FlashTiles<Shape>& tiles, LOCAL const float (&s)[Shape::kKeys / 8][4]) {
    constexpr uint32_t kWords = Shape::kValuePitch / 2;
    const uint32_t lane = at.lane();
    SHARED const uint32_t* v =
        reinterpret_cast<SHARED const uint32_t*>(tiles.values) + matrixRow(lane) * kWords + matrixPair(lane);
#pragma unroll
    for (uint32_t i = 0; i < Shape::kKeys / 8; i += 2) {
      const uint32_t a0 = packHalves(s[i][0], s[i][1]), a1 = packHalves(s[i][2], s[i][3]);
      const uint32_t a2 = packHalves(s[i + 1][0], s[i + 1][1]), a3 = packHalves(s[i + 1][2], s[i + 1][3]);
#pragma unroll
      for (uint32_t c = 0; c < Shape::kDim / 8; ++c)
        multiplyAdd<false>(out[c], a0, a1, a2, a3, matrixColumns(v[8 * c * kWords + 4 * i], lane),
                           matrixColumns(v[8 * c * kWords + 4 * i + 4], lane));
    }
  }

  // rows.out(i): where row i goes, where rows.there(i)
  template <class Queries>
  __device__ void store(uint32_t headDim, LOCAL const Queries& rows) const {
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      float all = sum[h];
      all += shuffleXor(all, kPairBit);
      all += shuffleXor(all, kOtherPairBit);
      const uint32_t row = 16 * at.warp() + matrixRow(at.lane()) + 8 * h;
      if (!rows.there(row)) continue;
      GLOBAL float* to = rows.out(row);
#pragma unroll
      for (uint32_t i = 0; i < Shape::kDim / 8; ++i)
#pragma unroll
        for (uint32_t j = 0; j < 2; ++j) {
          const uint32_t c = 8 * i + matrixPair(at.lane()) * 2 + j;
          if (c < headDim) to[c] = out[i][2 * h + j] / all;
        }
    }
  }
};

template <class Shape, class Rows, class Keys, class Queries>
__device__ inline void flash(Place at, SHARED uint16_t* shared, LOCAL const Keys& kv, LOCAL const FlashRange& range,
                             uint32_t headDim, float scale, float softcap, bool aligned, LOCAL const Queries& rows) {
  const FlashTiles<Shape> tiles(at, shared);
  FlashState<Shape> state(at);
  tiles.loadQueries(headDim, scale, rows);
#pragma unroll 1
  for (uint32_t first = range.first / Shape::kKeys * Shape::kKeys; first < range.end; first += Shape::kKeys) {
    groupBarrier();   // the last keys are done with
    tiles.template loadKeys<Rows>(kv, headDim, aligned, first, range.end);
    if (Shape::kBoth) tiles.template loadValues<Rows>(kv, headDim, aligned, first, range.end);
    groupBarrier();
    float s[Shape::kKeys / 8][4] = {};
    state.scores(tiles, s);
    if (!Shape::kBoth) {
      groupBarrier();
      tiles.template loadValues<Rows>(kv, headDim, aligned, first, range.end);
      groupBarrier();
    }
    state.softmax(s, range, first, softcap);
    state.values(tiles, s);
  }
  state.store(headDim, rows);
}

// Rows of a sequence: those of all heads that share a KV head, position by position
struct PagedQueries {
  GLOBAL const float* q;
  GLOBAL float* to;
  uint32_t begin, count, group, head, headDim, qStride, outStride;
  __device__ bool there(uint32_t i) const { return begin + i < count; }
  __device__ uint32_t column(uint32_t i) const { return (head * group + (begin + i) % group) * headDim; }
  __device__ GLOBAL const float* query(uint32_t i) const {
    return q + size_t((begin + i) / group) * qStride + column(i);
  }
  __device__ GLOBAL float* out(uint32_t i) const { return to + size_t((begin + i) / group) * outStride + column(i); }
};

// group = (rows and heads that share a KV head, KV head, sequence)
template <class Shape, class Rows>
__device__ inline void flashPaged(Place at, ARGS AttentionArgs& a, SHARED uint16_t* shared, GLOBAL float* out,
                                  GLOBAL const float* q, GLOBAL const int32_t* positions) {
  ARGS AttentionSequence& sequence = a.sequence[at.z];
  const uint32_t begin = at.x * Shape::kRows, all = sequence.rows * a.group;
  if (begin >= all) return;
  const PagedQueries rows{q + sequence.qOffset, out + sequence.outOffset, begin,     all,
                          a.group,              at.y,                     a.headDim, a.qStride,
                          a.outStride};
  // ranges begin and end where those of the first and the last row do
  const QueryRow head(a, sequence.firstRow + begin / a.group, positions);
  const QueryRow tail(a, sequence.firstRow + smaller(begin + Shape::kRows - 1, all - 1) / a.group, positions);
  FlashRange range{head.first, tail.end, {0, 0}, {0, 0}};
  const uint32_t own = begin + at.warp() * 16 + matrixRow(at.lane());
  for (uint32_t h = 0; h < 2; ++h) {
    const QueryRow seen(a, sequence.firstRow + smaller(own + 8 * h, all - 1) / a.group, positions);
    range.rowFirst[h] = seen.first, range.rowEnd[h] = seen.end;
  }
  flash<Shape, Rows>(at, shared, pagedKeys(a, sequence, at.y), range, a.headDim, a.scale, a.softcap,
                     a.headDim % 8 == 0, rows);
}

struct DenseQueries {
  GLOBAL const float* q;
  GLOBAL float* to;
  uint32_t begin, count, qStride, outStride;
  __device__ bool there(uint32_t i) const { return begin + i < count; }
  __device__ GLOBAL const float* query(uint32_t i) const { return q + size_t(begin + i) * qStride; }
  __device__ GLOBAL float* out(uint32_t i) const { return to + size_t(begin + i) * outStride; }
};

// group = (rows, head)
template <class Shape>
__device__ inline void flashDense(Place at, ARGS DenseArgs& a, SHARED uint16_t* shared, GLOBAL float* out,
                                  GLOBAL const float* q, GLOBAL const float* k, GLOBAL const float* v) {
  const size_t column = size_t(at.y) * a.headDim;
  const DenseQueries rows{q + column, out + column, at.x * Shape::kRows, a.rows, a.qStride, a.outStride};
  const DenseKeys kv{reinterpret_cast<GLOBAL const uint8_t*>(k + column),
                     reinterpret_cast<GLOBAL const uint8_t*>(v + column), size_t(a.kStride) * 4, size_t(a.vStride) * 4};
  const bool aligned =
      a.headDim % 8 == 0 && a.kStride % 4 == 0 && a.vStride % 4 == 0 && aligned16(kv.keys) && aligned16(kv.values);
  const FlashRange range{0, a.keys, {0, 0}, {a.keys, a.keys}};
  flash<Shape, RowsF32>(at, shared, kv, range, a.headDim, a.scale, 0, aligned, rows);
}

#define PG_FLASH_PAGED(kernel, Shape, Rows)                                         \
  KERNEL(Shape::kThreads, kernel,                                                   \
         (AttentionArgs, float* out, const float* q, const int32_t* positions)) {   \
    TG_LARGE(uint16_t, shared, Shape::kShared);                                     \
    flashPaged<Shape, Rows>(PLACE, a, shared, out, q, positions);                   \
  }
#define PG_FLASH(prefix, Shape)                                                     \
  PG_FLASH_PAGED(prefix##_f16, Shape, RowsF16)                                      \
  PG_FLASH_PAGED(prefix##_q8_0, Shape, RowsQ8)                                      \
  KERNEL(Shape::kThreads, prefix##_dense,                                           \
         (DenseArgs, float* out, const float* q, const float* k, const float* v)) { \
    TG_LARGE(uint16_t, shared, Shape::kShared);                                     \
    flashDense<Shape>(PLACE, a, shared, out, q, k, v);                              \
  }

typedef FlashShape<80, true> Flash80;
PG_FLASH(flash_80, Flash80)
#ifndef __METAL_VERSION__   // more shared memory than Apple's GPUs have
typedef FlashShape<256, true> Flash256;
PG_FLASH(flash_256, Flash256)
#endif
typedef FlashShape<256, false> FlashNarrow256;
PG_FLASH(flash_narrow_256, FlashNarrow256)
#undef PG_FLASH
#undef PG_FLASH_PAGED

KERNELS_END
