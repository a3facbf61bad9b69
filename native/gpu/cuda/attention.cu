// Attention in f32, for every kind of cache, head size and mask: a block of threads works on one query row and the
// heads that share a KV head. Keys are taken in pieces of fixed length, with an online softmax; no score outlives its
// piece.
#include "attention.cuh"

namespace pg::gpu {

constexpr uint32_t kFoldThreads = 128, kFoldWarps = kFoldThreads / kWarp, kFoldHeads = 8;
constexpr uint32_t kPieceKeys = 256;
constexpr uint32_t kMostHeadDim = 512, kValuesOfThread = kMostHeadDim / kFoldThreads;

// ---- one row's state; heads: of this block, at most kFoldHeads ----

struct Fold {
  float *q, *weights, *top, *sum, *keep;   // shared: [head][padded], [head][kPieceKeys], [head] three times
  uint32_t heads, headDim, padded;
  float scale, softcap;
  float acc[kFoldHeads][kValuesOfThread];   // of values threadIdx.x, threadIdx.x + kFoldThreads, ...

  __device__ void begin(const float* query) {
    for (uint32_t i = threadIdx.x; i < heads * padded; i += kFoldThreads) {
      const uint32_t head = i / padded, c = i % padded;
      q[i] = c < headDim ? query[head * headDim + c] : 0.0f;
    }
    if (threadIdx.x < kFoldHeads) top[threadIdx.x] = -INFINITY, sum[threadIdx.x] = 0;
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h)
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) acc[h][j] = 0;
    __syncthreads();
  }

  // Keys [first, end), at most kPieceKeys.
  template <class Rows, class Keys>
  __device__ void keys(const Keys& kv, uint32_t first, uint32_t end, bool aligned) {
    scores<Rows>(kv, first, end, aligned);
    __syncthreads();
    softmax(end - first);
    __syncthreads();
    values<Rows>(kv, first, end);
    __syncthreads();   // weights are about to be written again
  }

  // A warp a key
  template <class Rows, class Keys>
  __device__ void scores(const Keys& kv, uint32_t first, uint32_t end, bool aligned) {
    const uint32_t lane = threadIdx.x % kWarp;
    for (uint32_t token = first + threadIdx.x / kWarp; token < end; token += kFoldWarps) {
      const uint8_t* row = kv.key(token);
      float score[kFoldHeads] = {};
      for (uint32_t c = 8 * lane; c < headDim; c += 8 * kWarp) {
        float k[8];
        readEight<Rows>(row, c, headDim, aligned, k);
#pragma unroll
        for (uint32_t h = 0; h < kFoldHeads; ++h) {
          if (h >= heads) break;
          float query[8];
          RowsF32::whole(reinterpret_cast<const uint8_t*>(q + h * padded), c, query);
#pragma unroll
          for (uint32_t j = 0; j < 8; ++j) score[h] = fmaf(query[j], k[j], score[h]);
        }
      }
#pragma unroll
      for (uint32_t h = 0; h < kFoldHeads; ++h) {
        if (h >= heads) break;
        float all = warpSum(score[h]) * scale;
        if (softcap > 0) all = softcap * tanhf(all / softcap);
        if (lane == 0) weights[h * kPieceKeys + token - first] = all;
      }
    }
  }

  // A warp a head
  __device__ void softmax(uint32_t count) {
    const uint32_t lane = threadIdx.x % kWarp;
    for (uint32_t h = threadIdx.x / kWarp; h < heads; h += kFoldWarps) {
      float* w = weights + h * kPieceKeys;
      float most = top[h], all = 0;
      for (uint32_t i = lane; i < count; i += kWarp) most = fmaxf(most, w[i]);
      most = warpMax(most);
      for (uint32_t i = lane; i < count; i += kWarp) all += w[i] = expf(w[i] - most);
      all = warpSum(all);
      __syncwarp();
      if (lane == 0) {
        keep[h] = expf(top[h] - most);
        sum[h] = sum[h] * keep[h] + all;
        top[h] = most;
      }
    }
  }

  // A thread a value
  template <class Rows, class Keys>
  __device__ void values(const Keys& kv, uint32_t first, uint32_t end) {
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) acc[h][j] *= keep[h];
    }
    for (uint32_t token = first; token < end; ++token) {
      const uint8_t* row = kv.value(token);
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) {
        const uint32_t c = threadIdx.x + j * kFoldThreads;
        if (c >= headDim) break;
        const float v = Rows::one(row, c);
#pragma unroll
        for (uint32_t h = 0; h < kFoldHeads; ++h)
          if (h < heads) acc[h][j] = fmaf(weights[h * kPieceKeys + token - first], v, acc[h][j]);
      }
    }
  }

  // Calls put(head, column, value) for what this thread holds.
  template <class Put>
  __device__ void each(const Put& put) const {
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) {
        const uint32_t c = threadIdx.x + j * kFoldThreads;
        if (c < headDim) put(h, c, acc[h][j]);
      }
    }
  }
};

#define PG_FOLD_MEMORY                                \
  TG_ARRAY(float, queries, kFoldHeads* kMostHeadDim); \
  TG_ARRAY(float, weights, kFoldHeads* kPieceKeys);   \
  TG_ARRAY(float, states, 3 * kFoldHeads)
// A fold in that memory; softcap 0: none.
#define PG_FOLD(heads, softcap)                                                                                        \
  PG_FOLD_MEMORY;                                                                                                      \
  Fold fold {                                                                                                          \
    queries, weights, states, states + kFoldHeads, states + 2 * kFoldHeads, heads, a.headDim, (a.headDim + 7) / 8 * 8, \
        a.scale, softcap, {}                                                                                           \
  }

// The heads of a block: some of those that share a KV head.
struct HeadsOf {
  uint32_t kvHead, first, count;
  __device__ HeadsOf(const AttentionArgs& a, uint32_t index) {
    const uint32_t parts = (a.group + kFoldHeads - 1) / kFoldHeads;
    kvHead = index / parts;
    first = kvHead * a.group + index % parts * kFoldHeads;
    count = smaller(kFoldHeads, a.group - index % parts * kFoldHeads);
  }
};

// block = (row, heads): all keys of a row
template <class Rows>
__device__ inline void wholeRow(const AttentionArgs& a, Fold& fold, float* out, const float* q,
                                const int32_t* positions) {
  const QueryRow of(a, blockIdx.x, positions);
  const HeadsOf heads(a, blockIdx.y);
  const PagedKeys kv = pagedKeys(a, *of.sequence, heads.kvHead);
  fold.heads = heads.count;
  fold.begin(q + of.sequence->qOffset + size_t(of.row) * a.qStride + heads.first * a.headDim);
  for (uint32_t first = of.first / kPieceKeys * kPieceKeys; first < of.end; first += kPieceKeys)
    fold.keys<Rows>(kv, first > of.first ? first : of.first, smaller(first + kPieceKeys, of.end), a.headDim % 8 == 0);
  float* to = out + of.sequence->outOffset + size_t(of.row) * a.outStride + heads.first * a.headDim;
  fold.each([&](uint32_t h, uint32_t c, float v) { to[h * a.headDim + c] = v / fold.sum[h]; });
}

// block = (row, heads, piece): of each head the sum of values, then the largest score and the sum of weights
template <class Rows>
__device__ inline void pieceOfRow(const AttentionArgs& a, Fold& fold, float* partial, const float* q,
                                  const int32_t* positions) {
  const QueryRow of(a, blockIdx.x, positions);
  const HeadsOf heads(a, blockIdx.y);
  const uint32_t first = (of.first / kPieceKeys + blockIdx.z) * kPieceKeys;
  if (first >= of.end) return;
  const PagedKeys kv = pagedKeys(a, *of.sequence, heads.kvHead);
  fold.heads = heads.count;
  fold.begin(q + of.sequence->qOffset + size_t(of.row) * a.qStride + heads.first * a.headDim);
  fold.keys<Rows>(kv, first > of.first ? first : of.first, smaller(first + kPieceKeys, of.end), a.headDim % 8 == 0);
  const size_t all = size_t(a.kvHeads) * a.group, size = a.headDim + 2;
  float* to = partial + ((size_t(blockIdx.x) * a.pieces + blockIdx.z) * all + heads.first) * size;
  fold.each([&](uint32_t h, uint32_t c, float v) { to[h * size + c] = v; });
  if (threadIdx.x < fold.heads) {
    to[threadIdx.x * size + a.headDim] = fold.top[threadIdx.x];
    to[threadIdx.x * size + a.headDim + 1] = fold.sum[threadIdx.x];
  }
}

#define PG_ATTENTION(name, Rows)                                                        \
  KERNEL(kFoldThreads, attention_rows_##name,                                           \
         (AttentionArgs a, float* out, const float* q, const int32_t* positions)) {     \
    PG_FOLD(0, a.softcap);                                                              \
    wholeRow<Rows>(a, fold, out, q, positions);                                         \
  }                                                                                     \
  KERNEL(kFoldThreads, attention_pieces_##name,                                         \
         (AttentionArgs a, float* partial, const float* q, const int32_t* positions)) { \
    PG_FOLD(0, a.softcap);                                                              \
    pieceOfRow<Rows>(a, fold, partial, q, positions);                                   \
  }
PG_ATTENTION(f32, RowsF32)
PG_ATTENTION(f16, RowsF16)
PG_ATTENTION(q8_0, RowsQ8)
#undef PG_ATTENTION

// block = (row, head): pieces in the order of their keys
KERNEL(kFoldThreads, attention_combine, (AttentionArgs a, float* out, const float* partial, const int32_t* positions)) {
  const QueryRow of(a, blockIdx.x, positions);
  const uint32_t head = blockIdx.y, pieces = (of.end - 1) / kPieceKeys - of.first / kPieceKeys + 1;
  const size_t all = size_t(a.kvHeads) * a.group, size = a.headDim + 2;
  const float* from = partial + (size_t(blockIdx.x) * a.pieces * all + head) * size;
  float top = -INFINITY, sum = 0;
  for (uint32_t p = 0; p < pieces; ++p) top = fmaxf(top, from[p * all * size + a.headDim]);
  for (uint32_t p = 0; p < pieces; ++p)
    sum = fmaf(from[p * all * size + a.headDim + 1], expf(from[p * all * size + a.headDim] - top), sum);
  float* to = out + of.sequence->outOffset + size_t(of.row) * a.outStride + head * a.headDim;
  for (uint32_t c = threadIdx.x; c < a.headDim; c += kFoldThreads) {
    float v = 0;
    for (uint32_t p = 0; p < pieces; ++p)
      v = fmaf(from[p * all * size + c], expf(from[p * all * size + a.headDim] - top), v);
    to[c] = v / sum;
  }
}

// block = (row, head): every row sees every row
KERNEL(kFoldThreads, dense_rows, (DenseArgs a, float* out, const float* q, const float* k, const float* v)) {
  PG_FOLD(1, 0);
  const size_t column = size_t(blockIdx.y) * a.headDim;
  const DenseKeys kv{reinterpret_cast<const uint8_t*>(k + column), reinterpret_cast<const uint8_t*>(v + column),
                     size_t(a.kStride) * 4, size_t(a.vStride) * 4};
  const bool aligned = a.headDim % 8 == 0 && a.kStride % 4 == 0 && aligned16(kv.keys);
  fold.begin(q + size_t(blockIdx.x) * a.qStride + column);
  for (uint32_t first = 0; first < a.keys; first += kPieceKeys)
    fold.keys<RowsF32>(kv, first, smaller(first + kPieceKeys, a.keys), aligned);
  float* to = out + size_t(blockIdx.x) * a.outStride + column;
  fold.each([&](uint32_t, uint32_t c, float x) { to[c] = x / fold.sum[0]; });
}

}  // namespace pg::gpu
