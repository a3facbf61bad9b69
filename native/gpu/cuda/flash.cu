// Attention of many rows, as in prefill and vision, on tensor cores: 64 rows of queries at a time, f16 products, sums
// and softmax in f32. The rows of a block are the positions of all heads that share a KV head: their keys are read
// once.
//
// In shared memory: queries and keys in rows of kDim + 8 values, values turned round, [kDim][keys + 8]: so each pair
// that a product wants is a word, and the lanes of a warp find theirs in different banks.
#include "attention.cuh"
#include "matrix.cuh"

namespace pg::gpu {

constexpr uint32_t kFlashThreads = 128, kFlashRows = 64, kFlashKeys = 32, kValuePitch = kFlashKeys + 8;

// Queries of a block, [first, end) of all rows' keys that one of them sees; of this lane's two rows their own.
struct FlashRange {
  uint32_t first, end;
  uint32_t rowFirst[2], rowEnd[2];
};

template <uint32_t kDim>
struct FlashTiles {
  static constexpr uint32_t kPitch = kDim + 8;
  static constexpr uint32_t kBytes = 2 * (kFlashRows * kPitch + kFlashKeys * kPitch + kDim * kValuePitch);
  uint16_t *queries, *keys, *values;
  __device__ explicit FlashTiles(uint16_t* shared)
      : queries(shared), keys(shared + kFlashRows * kPitch), values(keys + kFlashKeys * kPitch) {}

  // row(i): the query of row i, or null
  template <class Row>
  __device__ void loadQueries(uint32_t headDim, float scale, const Row& row) const {
    for (uint32_t i = threadIdx.x; i < kFlashRows * kDim / 2; i += kFlashThreads) {
      const uint32_t r = i / (kDim / 2), c = i % (kDim / 2) * 2;
      const float* q = row(r);
      const float first = q && c < headDim ? q[c] * scale : 0.0f;
      const float second = q && c + 1 < headDim ? q[c + 1] * scale : 0.0f;
      reinterpret_cast<uint32_t*>(queries)[r * (kPitch / 2) + c / 2] = packHalves(first, second);
    }
  }

  // Keys [first, first + kFlashKeys); behind end zeros
  template <class Rows, class Keys>
  __device__ void load(const Keys& kv, uint32_t headDim, bool aligned, uint32_t first, uint32_t end) const {
    for (uint32_t i = threadIdx.x; i < kFlashKeys * kDim / 8; i += kFlashThreads) {
      const uint32_t key = i / (kDim / 8), c = i % (kDim / 8) * 8;
      float k[8] = {};
      if (first + key < end) readEight<Rows>(kv.key(first + key), c, headDim, aligned, k);
      *reinterpret_cast<Words4*>(keys + key * kPitch + c) = {packHalves(k[0], k[1]), packHalves(k[2], k[3]),
                                                             packHalves(k[4], k[5]), packHalves(k[6], k[7])};
    }
    for (uint32_t i = threadIdx.x; i < kFlashKeys / 2 * kDim / 8; i += kFlashThreads) {
      const uint32_t pair = i % (kFlashKeys / 2), c = i / (kFlashKeys / 2) * 8, key = first + 2 * pair;
      float even[8] = {}, odd[8] = {};
      if (key < end) readEight<Rows>(kv.value(key), c, headDim, aligned, even);
      if (key + 1 < end) readEight<Rows>(kv.value(key + 1), c, headDim, aligned, odd);
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j)
        reinterpret_cast<uint32_t*>(values)[(c + j) * (kValuePitch / 2) + pair] = packHalves(even[j], odd[j]);
    }
  }
};

// What a warp knows of its 16 rows. Of products' sums, [..][0] and [1] are of the lane's first row, [2] and [3] of its
// second.
template <uint32_t kDim>
struct FlashState {
  float out[kDim / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {};

  // scores[key / 8]: of keys first + 8 i + 2 (lane % 4) and the next
  __device__ void scores(const FlashTiles<kDim>& tiles, float (&s)[kFlashKeys / 8][4]) const {
    constexpr uint32_t kWords = FlashTiles<kDim>::kPitch / 2;
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const uint32_t* q = reinterpret_cast<const uint32_t*>(tiles.queries) + (16 * warp + lane / 4) * kWords + lane % 4;
    const uint32_t* k = reinterpret_cast<const uint32_t*>(tiles.keys) + lane / 4 * kWords + lane % 4;
#pragma unroll
    for (uint32_t c = 0; c < kDim / 2; c += 8)
#pragma unroll
      for (uint32_t i = 0; i < kFlashKeys / 8; ++i)
        multiplyAdd<false>(s[i], q[c], q[8 * kWords + c], q[c + 4], q[8 * kWords + c + 4], k[8 * i * kWords + c],
                           k[8 * i * kWords + c + 4]);
  }

  // Scores become weights; what was there before is scaled to the new largest score.
  __device__ void softmax(float (&s)[kFlashKeys / 8][4], const FlashRange& range, uint32_t first, float softcap) {
    const uint32_t column = first + threadIdx.x % 4 * 2;
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (uint32_t i = 0; i < kFlashKeys / 8; ++i)
#pragma unroll
        for (uint32_t j = 0; j < 2; ++j) {
          float& score = s[i][2 * h + j];
          const uint32_t key = column + 8 * i + j;
          if (softcap > 0) score = softcap * tanhf(score / softcap);
          if (key < range.rowFirst[h] || key >= range.rowEnd[h]) score = -INFINITY;
          most = fmaxf(most, score);
        }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == -INFINITY ? 0.0f : most, keep = expf(top[h] - base);
      top[h] = most;
      sum[h] *= keep;
#pragma unroll
      for (uint32_t i = 0; i < kFlashKeys / 8; ++i)
#pragma unroll
        for (uint32_t j = 0; j < 2; ++j) sum[h] += s[i][2 * h + j] = expf(s[i][2 * h + j] - base);
#pragma unroll
      for (uint32_t i = 0; i < kDim / 8; ++i) out[i][2 * h] *= keep, out[i][2 * h + 1] *= keep;
    }
  }

  // The scores' registers lie as a product's first factor wants them.
  __device__ void values(const FlashTiles<kDim>& tiles, const float (&s)[kFlashKeys / 8][4]) {
    constexpr uint32_t kWords = kValuePitch / 2;
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t* v = reinterpret_cast<const uint32_t*>(tiles.values) + lane / 4 * kWords + lane % 4;
#pragma unroll
    for (uint32_t i = 0; i < kFlashKeys / 8; i += 2) {
      const uint32_t a0 = packHalves(s[i][0], s[i][1]), a1 = packHalves(s[i][2], s[i][3]);
      const uint32_t a2 = packHalves(s[i + 1][0], s[i + 1][1]), a3 = packHalves(s[i + 1][2], s[i + 1][3]);
#pragma unroll
      for (uint32_t c = 0; c < kDim / 8; ++c)
        multiplyAdd<false>(out[c], a0, a1, a2, a3, v[8 * c * kWords + 4 * i], v[8 * c * kWords + 4 * i + 4]);
    }
  }
};

// row(i): where the block's row i comes from and goes to, or nulls; queries are loaded by it.
template <uint32_t kDim, class Rows, class Keys, class Row>
__device__ inline void flash(uint16_t* shared, const Keys& kv, const FlashRange& range, uint32_t headDim, float scale,
                             float softcap, bool aligned, const Row& row) {
  const FlashTiles<kDim> tiles(shared);
  FlashState<kDim> state;
  tiles.loadQueries(headDim, scale, [&](uint32_t i) { return row(i).from; });
#pragma unroll 1
  for (uint32_t first = range.first / kFlashKeys * kFlashKeys; first < range.end; first += kFlashKeys) {
    __syncthreads();   // the last keys are done with
    tiles.template load<Rows>(kv, headDim, aligned, first, range.end);
    __syncthreads();
    float s[kFlashKeys / 8][4] = {};
    state.scores(tiles, s);
    state.softmax(s, range, first, softcap);
    state.values(tiles, s);
  }
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (uint32_t h = 0; h < 2; ++h) {
    float sum = state.sum[h];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    float* to = row(16 * warp + lane / 4 + 8 * h).to;
    if (!to) continue;
#pragma unroll
    for (uint32_t i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (uint32_t j = 0; j < 2; ++j) {
        const uint32_t c = 8 * i + lane % 4 * 2 + j;
        if (c < headDim) to[c] = state.out[i][2 * h + j] / sum;
      }
  }
}

struct FlashRow {
  const float* from;
  float* to;
};

// block = (rows and heads that share a KV head, KV head, sequence)
template <uint32_t kDim, class Rows>
__device__ inline void flashPaged(const AttentionArgs& a, uint16_t* shared, float* out, const float* q,
                                  const int32_t* positions) {
  const AttentionSequence& sequence = a.sequence[blockIdx.z];
  const uint32_t begin = blockIdx.x * kFlashRows, all = sequence.rows * a.group;
  if (begin >= all) return;
  const auto rowOf = [&](uint32_t i) -> FlashRow {
    const uint32_t r = begin + i, head = blockIdx.y * a.group + r % a.group;
    if (r >= all) return {nullptr, nullptr};
    return {q + sequence.qOffset + size_t(r / a.group) * a.qStride + head * a.headDim,
            out + sequence.outOffset + size_t(r / a.group) * a.outStride + head * a.headDim};
  };
  const auto seen = [&](uint32_t r) {
    return QueryRow(a, sequence.firstRow + smaller(r, all - 1) / a.group, positions);
  };
  // ranges begin and end where those of the first and the last row do
  FlashRange range{seen(begin).first, seen(begin + kFlashRows - 1).end, {}, {}};
  const uint32_t own = begin + threadIdx.x / kWarp * 16 + threadIdx.x % kWarp / 4;
  for (uint32_t h = 0; h < 2; ++h) range.rowFirst[h] = seen(own + 8 * h).first, range.rowEnd[h] = seen(own + 8 * h).end;
  flash<kDim, Rows>(shared, pagedKeys(a, sequence, blockIdx.y), range, a.headDim, a.scale, a.softcap,
                    a.headDim % 8 == 0, rowOf);
}

// block = (rows, head)
template <uint32_t kDim>
__device__ inline void flashDense(const DenseArgs& a, uint16_t* shared, float* out, const float* q, const float* k,
                                  const float* v) {
  const uint32_t begin = blockIdx.x * kFlashRows;
  const size_t column = size_t(blockIdx.y) * a.headDim;
  const auto rowOf = [&](uint32_t i) -> FlashRow {
    if (begin + i >= a.rows) return {nullptr, nullptr};
    return {q + size_t(begin + i) * a.qStride + column, out + size_t(begin + i) * a.outStride + column};
  };
  const DenseKeys kv{reinterpret_cast<const uint8_t*>(k + column), reinterpret_cast<const uint8_t*>(v + column),
                     size_t(a.kStride) * 4, size_t(a.vStride) * 4};
  const bool aligned =
      a.headDim % 8 == 0 && a.kStride % 4 == 0 && a.vStride % 4 == 0 && aligned16(kv.keys) && aligned16(kv.values);
  const FlashRange range{0, a.keys, {0, 0}, {a.keys, a.keys}};
  flash<kDim, RowsF32>(shared, kv, range, a.headDim, a.scale, 0, aligned, rowOf);
}

#define PG_FLASH(dim, name, Rows)                                                   \
  KERNEL(kFlashThreads, flash_##dim##_##name,                                       \
         (AttentionArgs a, float* out, const float* q, const int32_t* positions)) { \
    TG_DYNAMIC(uint16_t, shared);                                                   \
    flashPaged<dim, Rows>(a, shared, out, q, positions);                            \
  }
PG_FLASH(80, f16, RowsF16)
PG_FLASH(80, q8_0, RowsQ8)
PG_FLASH(256, f16, RowsF16)
PG_FLASH(256, q8_0, RowsQ8)
#undef PG_FLASH

#define PG_FLASH_DENSE(dim)                                                           \
  KERNEL(kFlashThreads, flash_dense_##dim,                                            \
         (DenseArgs a, float* out, const float* q, const float* k, const float* v)) { \
    TG_DYNAMIC(uint16_t, shared);                                                     \
    flashDense<dim>(a, shared, out, q, k, v);                                         \
  }
PG_FLASH_DENSE(80)
PG_FLASH_DENSE(256)
#undef PG_FLASH_DENSE

}  // namespace pg::gpu
