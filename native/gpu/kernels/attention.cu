// Attention in f32, for every kind of cache, head size and mask: a group of threads works on one query row and the
// heads that share a KV head. Keys are taken in pieces of fixed length, with an online softmax; no score outlives its
// piece.
#include "gpu/kernels/attention.h"

KERNELS_BEGIN

CONSTANT uint32_t kFoldThreads = 128, kFoldWarps = kFoldThreads / kWarp, kFoldHeads = 8;
CONSTANT uint32_t kPieceKeys = 256;
CONSTANT uint32_t kMostHeadDim = 512, kValuesOfThread = kMostHeadDim / kFoldThreads;

// ---- one row's state ----

struct Fold {
  Place at;
  SHARED float *q, *weights;            // [head][padded], [head][kPieceKeys]
  SHARED float *top, *sum, *keep;       // [head]
  uint32_t heads, headDim, padded;      // heads: of this group, at most kFoldHeads
  float scale, softcap;                 // softcap 0: none
  float acc[kFoldHeads][kValuesOfThread];   // of values at.index, at.index + kFoldThreads, ...

  __device__ Fold(Place place, SHARED float* queries, SHARED float* ofKeys, SHARED float* states, uint32_t dim,
                  float factor, float cap)
      : at(place),
        q(queries),
        weights(ofKeys),
        top(states),
        sum(states + kFoldHeads),
        keep(states + 2 * kFoldHeads),
        heads(1),
        headDim(dim),
        padded((dim + 7) / 8 * 8),
        scale(factor),
        softcap(cap) {
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h)
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) acc[h][j] = 0;
  }

  __device__ void begin(GLOBAL const float* query) {
    for (uint32_t i = at.index; i < heads * padded; i += kFoldThreads) {
      const uint32_t head = i / padded, c = i % padded;
      q[i] = c < headDim ? query[head * headDim + c] : 0.0f;
    }
    if (at.index < kFoldHeads) top[at.index] = -INFINITY, sum[at.index] = 0;
    groupBarrier();
  }

  // Keys [first, end), at most kPieceKeys.
  template <class Rows, class Keys>
  __device__ void keys(LOCAL const Keys& kv, uint32_t first, uint32_t end, bool aligned) {
    scores<Rows>(kv, first, end, aligned);
    groupBarrier();
    softmax(end - first);
    groupBarrier();
    values<Rows>(kv, first, end);
    groupBarrier();   // weights are about to be written again
  }

  // A warp a key
  template <class Rows, class Keys>
  __device__ void scores(LOCAL const Keys& kv, uint32_t first, uint32_t end, bool aligned) {
    for (uint32_t token = first + at.warp(); token < end; token += kFoldWarps) {
      GLOBAL const uint8_t* row = kv.key(token);
      float score[kFoldHeads] = {};
      for (uint32_t c = 8 * at.lane(); c < headDim; c += 8 * kWarp) {
        float k[8];
        readEight<Rows>(row, c, headDim, aligned, k);
#pragma unroll
        for (uint32_t h = 0; h < kFoldHeads; ++h) {
          if (h >= heads) break;
          SHARED const float* query = q + h * padded + c;
#pragma unroll
          for (uint32_t j = 0; j < 8; j += 4) {
            const Words4 w = loadShared16(query + j);
            score[h] = fmaf(asFloat(w.x), k[j], score[h]);
            score[h] = fmaf(asFloat(w.y), k[j + 1], score[h]);
            score[h] = fmaf(asFloat(w.z), k[j + 2], score[h]);
            score[h] = fmaf(asFloat(w.w), k[j + 3], score[h]);
          }
        }
      }
#pragma unroll
      for (uint32_t h = 0; h < kFoldHeads; ++h) {
        if (h >= heads) break;
        float all = warpSum(score[h]) * scale;
        if (softcap > 0) all = softcap * tanhf(all / softcap);
        if (at.lane() == 0) weights[h * kPieceKeys + token - first] = all;
      }
    }
  }

  // A warp a head
  __device__ void softmax(uint32_t count) {
    for (uint32_t h = at.warp(); h < heads; h += kFoldWarps) {
      SHARED float* w = weights + h * kPieceKeys;
      float most = top[h], all = 0;
      for (uint32_t i = at.lane(); i < count; i += kWarp) most = fmaxf(most, w[i]);
      most = warpMax(most);
      for (uint32_t i = at.lane(); i < count; i += kWarp) all += w[i] = expf(w[i] - most);
      all = warpSum(all);
      warpBarrier();
      if (at.lane() == 0) {
        keep[h] = expf(top[h] - most);
        sum[h] = sum[h] * keep[h] + all;
        top[h] = most;
      }
    }
  }

  // A thread a value
  template <class Rows, class Keys>
  __device__ void values(LOCAL const Keys& kv, uint32_t first, uint32_t end) {
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) acc[h][j] *= keep[h];
    }
    for (uint32_t token = first; token < end; ++token) {
      GLOBAL const uint8_t* row = kv.value(token);
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) {
        const uint32_t c = at.index + j * kFoldThreads;
        if (c >= headDim) break;
        const float v = Rows::one(row, c);
#pragma unroll
        for (uint32_t h = 0; h < kFoldHeads; ++h)
          if (h < heads) acc[h][j] = fmaf(weights[h * kPieceKeys + token - first], v, acc[h][j]);
      }
    }
  }

  // What this thread holds, heads `stride` apart; divided by the weights' sum or not.
  __device__ void store(GLOBAL float* to, size_t stride, bool divided) const {
#pragma unroll
    for (uint32_t h = 0; h < kFoldHeads; ++h) {
      if (h >= heads) break;
#pragma unroll
      for (uint32_t j = 0; j < kValuesOfThread; ++j) {
        const uint32_t c = at.index + j * kFoldThreads;
        if (c < headDim) to[h * stride + c] = divided ? acc[h][j] / sum[h] : acc[h][j];
      }
    }
  }
};

#define PG_FOLD(softcap)                                \
  TG_ARRAY(float, queries, kFoldHeads* kMostHeadDim);   \
  TG_ARRAY(float, weights, kFoldHeads* kPieceKeys);     \
  TG_ARRAY(float, states, 3 * kFoldHeads);              \
  Fold fold(PLACE, queries, weights, states, a.headDim, a.scale, softcap)

// The heads of a group of threads: some of those that share a KV head.
struct HeadsOf {
  uint32_t kvHead, first, count;
  __device__ HeadsOf(ARGS AttentionArgs& a, uint32_t index) {
    const uint32_t parts = (a.group + kFoldHeads - 1) / kFoldHeads;
    kvHead = index / parts;
    first = kvHead * a.group + index % parts * kFoldHeads;
    count = smaller(kFoldHeads, a.group - index % parts * kFoldHeads);
  }
};

// group = (row, heads): all keys of a row
template <class Rows>
__device__ inline void wholeRow(ARGS AttentionArgs& a, LOCAL Fold& fold, GLOBAL float* out, GLOBAL const float* q,
                                GLOBAL const int32_t* positions) {
  const QueryRow of(a, fold.at.x, positions);
  const HeadsOf heads(a, fold.at.y);
  const PagedKeys kv = pagedKeys(a, *of.sequence, heads.kvHead);
  fold.heads = heads.count;
  fold.begin(q + of.sequence->qOffset + size_t(of.row) * a.qStride + heads.first * a.headDim);
  for (uint32_t first = of.first / kPieceKeys * kPieceKeys; first < of.end; first += kPieceKeys)
    fold.template keys<Rows>(kv, first > of.first ? first : of.first, smaller(first + kPieceKeys, of.end),
                             a.headDim % 8 == 0);
  fold.store(out + of.sequence->outOffset + size_t(of.row) * a.outStride + heads.first * a.headDim, a.headDim, true);
}

// group = (row, heads, piece): of each head the sum of values, then the largest score and the sum of weights
template <class Rows>
__device__ inline void pieceOfRow(ARGS AttentionArgs& a, LOCAL Fold& fold, GLOBAL float* partial,
                                  GLOBAL const float* q, GLOBAL const int32_t* positions) {
  const Place at = fold.at;
  const QueryRow of(a, at.x, positions);
  const HeadsOf heads(a, at.y);
  const uint32_t first = (of.first / kPieceKeys + at.z) * kPieceKeys;
  if (first >= of.end) return;
  const PagedKeys kv = pagedKeys(a, *of.sequence, heads.kvHead);
  fold.heads = heads.count;
  fold.begin(q + of.sequence->qOffset + size_t(of.row) * a.qStride + heads.first * a.headDim);
  fold.template keys<Rows>(kv, first > of.first ? first : of.first, smaller(first + kPieceKeys, of.end),
                           a.headDim % 8 == 0);
  const size_t all = size_t(a.kvHeads) * a.group, size = a.headDim + 2;
  GLOBAL float* to = partial + ((size_t(at.x) * a.pieces + at.z) * all + heads.first) * size;
  fold.store(to, size, false);
  if (at.index < fold.heads) {
    to[at.index * size + a.headDim] = fold.top[at.index];
    to[at.index * size + a.headDim + 1] = fold.sum[at.index];
  }
}

#define PG_ATTENTION(name, Rows)                                                      \
  KERNEL(kFoldThreads, attention_rows_##name,                                         \
         (AttentionArgs, float* out, const float* q, const int32_t* positions)) {     \
    PG_FOLD(a.softcap);                                                               \
    wholeRow<Rows>(a, fold, out, q, positions);                                       \
  }                                                                                   \
  KERNEL(kFoldThreads, attention_pieces_##name,                                       \
         (AttentionArgs, float* partial, const float* q, const int32_t* positions)) { \
    PG_FOLD(a.softcap);                                                               \
    pieceOfRow<Rows>(a, fold, partial, q, positions);                                 \
  }
PG_ATTENTION(f32, RowsF32)
PG_ATTENTION(f16, RowsF16)
PG_ATTENTION(q8_0, RowsQ8)
#undef PG_ATTENTION

// group = (row, head): pieces in the order of their keys
KERNEL(kFoldThreads, attention_combine, (AttentionArgs, float* out, const float* partial, const int32_t* positions)) {
  const Place at = PLACE;
  const QueryRow of(a, at.x, positions);
  const uint32_t head = at.y, pieces = (of.end - 1) / kPieceKeys - of.first / kPieceKeys + 1;
  const size_t all = size_t(a.kvHeads) * a.group, size = a.headDim + 2;
  GLOBAL const float* from = partial + (size_t(at.x) * a.pieces * all + head) * size;
  float top = -INFINITY, sum = 0;
  for (uint32_t p = 0; p < pieces; ++p) top = fmaxf(top, from[p * all * size + a.headDim]);
  for (uint32_t p = 0; p < pieces; ++p)
    sum = fmaf(from[p * all * size + a.headDim + 1], expf(from[p * all * size + a.headDim] - top), sum);
  GLOBAL float* to = out + of.sequence->outOffset + size_t(of.row) * a.outStride + head * a.headDim;
  for (uint32_t c = at.index; c < a.headDim; c += kFoldThreads) {
    float v = 0;
    for (uint32_t p = 0; p < pieces; ++p)
      v = fmaf(from[p * all * size + c], expf(from[p * all * size + a.headDim] - top), v);
    to[c] = v / sum;
  }
}

// group = (row, head): every row sees every row
KERNEL(kFoldThreads, dense_rows, (DenseArgs, float* out, const float* q, const float* k, const float* v)) {
  PG_FOLD(0);
  const Place at = fold.at;
  const size_t column = size_t(at.y) * a.headDim;
  const DenseKeys kv{reinterpret_cast<GLOBAL const uint8_t*>(k + column),
                     reinterpret_cast<GLOBAL const uint8_t*>(v + column), size_t(a.kStride) * 4, size_t(a.vStride) * 4};
  const bool aligned = a.headDim % 8 == 0 && a.kStride % 4 == 0 && aligned16(kv.keys);
  fold.begin(q + size_t(at.x) * a.qStride + column);
  for (uint32_t first = 0; first < a.keys; first += kPieceKeys)
    fold.keys<RowsF32>(kv, first, smaller(first + kPieceKeys, a.keys), aligned);
  fold.store(out + size_t(at.x) * a.outStride + column, 0, true);
}

KERNELS_END
