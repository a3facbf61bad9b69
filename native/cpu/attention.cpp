#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace pg {
namespace {

constexpr int64_t kTile = kPageTokens;   // keys a tile holds
constexpr int64_t kQueryRows = 16;       // query rows that share one unpacked tile

// Folds keys [0, count) of a tile into one query row's running softmax.
void foldTile(const Kernels& kernels, const float* q, const float* keys, const float* values, int64_t headDim,
              int64_t stride, int64_t valueStride, int64_t count, float scale, float softcap, float& max, float& sum, float* acc) {
  float scores[kTile];
  for (int64_t i = 0; i < count; ++i) scores[i] = kernels.dot(q, keys + i * stride, headDim) * scale;
  if (softcap > 0) kernels.softcap(scores, softcap, count);
  const float newMax = std::max(max, kernels.max(scores, count));
  const float keep = std::exp(max - newMax);   // 0 for the first tile: max is -inf
  if (keep != 1.0f) kernels.scale(acc, keep, headDim);
  sum = sum * keep + kernels.expSum(scores, newMax, count);
  max = newMax;
  for (int64_t i = 0; i < count; ++i) kernels.axpy(acc, values + i * valueStride, scores[i], headDim);
}

void finishRow(const Kernels& kernels, float* out, const float* acc, float sum, int64_t headDim) {
  std::memcpy(out, acc, size_t(headDim) * sizeof(float));
  kernels.scale(out, 1.0f / sum, headDim);
}

}  // namespace

void Attention::paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap) {
  const KvLayout& layout = *jobs.front().kv.layout;
  const int64_t headDim = layout.headDim, kvHeads = layout.kvHeads;
  const int64_t group = jobs.front().q.cols / headDim / kvHeads;   // query heads that share a KV head
  const int64_t queryRows = std::max<int64_t>(1, kQueryRows / group);

  // work items: (job, block of query rows, KV head)
  std::vector<int64_t> firstItem(jobs.size() + 1, 0);
  for (size_t j = 0; j < jobs.size(); ++j)
    firstItem[j + 1] = firstItem[j] + (jobs[j].q.rows + queryRows - 1) / queryRows * kvHeads;

  pool_.forRange(firstItem.back(), 1, [&](int64_t item, int64_t, int worker) {
    if (cancelled()) return;
    const size_t j = size_t(std::upper_bound(firstItem.begin(), firstItem.end(), item) - firstItem.begin() - 1);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (item - firstItem[j]) % kvHeads;
    const int64_t rowBegin = (item - firstItem[j]) / kvHeads * queryRows;
    const int64_t rowEnd = std::min(rowBegin + queryRows, job.q.rows);

    Scratch& s = scratch_[size_t(worker)];
    const int64_t states = (rowEnd - rowBegin) * group;
    s.keys.resize(size_t(kTile * headDim));
    s.values.resize(size_t(kTile * headDim));
    s.max.assign(size_t(states), -INFINITY);
    s.sum.assign(size_t(states), 0);
    s.acc.assign(size_t(states * headDim), 0);

    const int64_t keyBegin = job.mask.first(job.position + rowBegin);
    const int64_t keyEnd = job.mask.end(job.position + rowEnd - 1);
    for (int64_t tile = keyBegin / kTile; tile * kTile < keyEnd; ++tile) {
      const uint8_t* page = job.kv.pages[tile];
      const int64_t count = std::min(kTile, keyEnd - tile * kTile);
      kernels_.toF32(layout.type, page + layout.headOffset(layer, 0, kvHead), s.keys.data(), count * headDim);
      kernels_.toF32(layout.type, page + layout.headOffset(layer, 1, kvHead), s.values.data(), count * headDim);
      for (int64_t r = rowBegin; r < rowEnd; ++r) {
        const int64_t position = job.position + r;
        const int64_t from = std::max(job.mask.first(position), tile * kTile) - tile * kTile;
        const int64_t to = std::min(job.mask.end(position), tile * kTile + count) - tile * kTile;
        if (from >= to) continue;
        for (int64_t g = 0; g < group; ++g) {
          const int64_t state = (r - rowBegin) * group + g;
          const float* q = job.q.row<float>(r) + (kvHead * group + g) * headDim;
          foldTile(kernels_, q, s.keys.data() + from * headDim, s.values.data() + from * headDim, headDim, headDim, headDim,
                   to - from, scale, softcap, s.max[size_t(state)], s.sum[size_t(state)], s.acc.data() + state * headDim);
        }
      }
    }
    for (int64_t r = rowBegin; r < rowEnd; ++r)
      for (int64_t g = 0; g < group; ++g) {
        const int64_t state = (r - rowBegin) * group + g;
        finishRow(kernels_, job.out.row<float>(r) + (kvHead * group + g) * headDim, s.acc.data() + state * headDim,
                  s.sum[size_t(state)], headDim);
      }
  });
}

void Attention::dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale) {
  const int64_t headDim = q.cols / heads, tokens = k.rows;
  const int64_t blocks = (q.rows + kQueryRows - 1) / kQueryRows;
  const int64_t stride = int64_t(k.stride / sizeof(float));   // k and v may be columns of wider matrices
  const int64_t valueStride = int64_t(v.stride / sizeof(float));
  pool_.forRange(blocks * heads, 1, [&](int64_t item, int64_t, int worker) {
    if (cancelled()) return;
    const int64_t head = item % heads, rowBegin = item / heads * kQueryRows;
    const int64_t rowEnd = std::min(rowBegin + kQueryRows, q.rows);
    Scratch& s = scratch_[size_t(worker)];
    s.max.assign(size_t(kQueryRows), -INFINITY);
    s.sum.assign(size_t(kQueryRows), 0);
    s.acc.assign(size_t(kQueryRows * headDim), 0);
    for (int64_t key = 0; key < tokens; key += kTile) {
      const int64_t count = std::min(kTile, tokens - key);
      for (int64_t r = rowBegin; r < rowEnd; ++r)
        foldTile(kernels_, q.row<float>(r) + head * headDim, k.row<float>(key) + head * headDim,
                 v.row<float>(key) + head * headDim, headDim, stride, valueStride, count, scale, 0, s.max[size_t(r - rowBegin)],
                 s.sum[size_t(r - rowBegin)], s.acc.data() + (r - rowBegin) * headDim);
    }
    for (int64_t r = rowBegin; r < rowEnd; ++r)
      finishRow(kernels_, out.row<float>(r) + head * headDim, s.acc.data() + (r - rowBegin) * headDim,
                s.sum[size_t(r - rowBegin)], headDim);
  });
}

}  // namespace pg
