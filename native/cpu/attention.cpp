#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace pg {
namespace {

constexpr int64_t kTile = kPageTokens;   // keys of a tile
constexpr int64_t kStates = 96;          // query rows of a work item: they share the packing of a tile of keys
constexpr int64_t kDenseRows = 264;      // the same for vision, whose short rows, far apart, cost more to pack
constexpr int64_t kSplit = 4 * kTile;    // keys of a piece in decoding
static_assert(kTile == kTileGroup, "rows of scores are as far apart as mix() expects");

int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Work item -> (job, item of the job)
size_t jobOf(const std::vector<int64_t>& firstItem, int64_t item) {
  return size_t(std::upper_bound(firstItem.begin(), firstItem.end(), item) - firstItem.begin() - 1);
}

}  // namespace

Attention::State Attention::begin(Worker& worker, int64_t rows, int64_t headDim) const {
  const int64_t padded = roundUp(headDim, 16), filled = roundUp(rows, kernels_.tileTokens);
  State s{rows, headDim, padded, worker.queries.get<float>(size_t(filled * headDim)), worker.acc.get<float>(size_t(filled * (padded + 2))), nullptr, nullptr};
  std::fill_n(s.acc, filled * padded, 0.0f);
  s.max = s.acc + filled * padded;
  s.sum = s.max + filled;
  std::fill_n(s.max, filled, -INFINITY);
  std::fill_n(s.sum, filled, 0.0f);
  return s;
}

float Attention::softmaxRow(float* scores, int64_t count, Range range, float scale, float softcap, float& max, float& sum) const {
  const int64_t from = std::max<int64_t>(range.from, 0), to = std::min(range.to, count);
  if (from >= to) {   // nothing to see: the state stays as it is, to the bit
    std::fill_n(scores, count, 0.0f);
    return 1;
  }
  if (from > 0) std::fill_n(scores, from, 0.0f);
  if (to < count) std::fill_n(scores + to, count - to, 0.0f);
  return kernels_.softmaxStep(scores + from, scale, softcap, &max, &sum, to - from);
}

template <class Seen>
void Attention::fold(Worker& worker, State& s, DType keyType, const uint8_t* keys, size_t keyStride, const float* values, int64_t count,
                     float scale, float softcap, const Seen& seen) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens;
  float* panels = worker.keys.get<float>(size_t(kTile * s.headDim));
  float* scores = worker.scores.get<float>(size_t(width * (kTile + 1)));
  float* keep = scores + width * kTile;
  for (int64_t key = 0; key < count; key += height)
    kernels_.packRows(keyType, keys + keyStride * size_t(key), keyStride, std::min(height, count - key), 0, s.headDim, panels + key * s.headDim);
  for (int64_t first = 0; first < s.rows; first += width) {
    const int64_t rows = std::min(width, s.rows - first);
    bool any = false;
    for (int64_t r = 0; r < rows && !any; ++r) any = seen(first + r).from < std::min(seen(first + r).to, count);
    if (!any) continue;
    for (int64_t key = 0; key < count; key += height)
      kernels_.tile(scores + key, kTile, panels + key * s.headDim, s.queries + first * s.headDim, s.headDim, false);
    for (int64_t r = 0; r < width; ++r) {
      if (r < rows) {
        keep[r] = softmaxRow(scores + r * kTile, count, seen(first + r), scale, softcap, s.max[first + r], s.sum[first + r]);
      } else {
        std::fill_n(scores + r * kTile, count, 0.0f);
        keep[r] = 1;
      }
    }
    kernels_.mix(s.acc + first * s.padded, s.padded, keep, scores, DType::f32, reinterpret_cast<const uint8_t*>(values), size_t(s.padded) * sizeof(float), count,
                 s.padded, width);
  }
}

void Attention::finish(float* out, const State& s, int64_t row) const {
  std::memcpy(out, s.acc + row * s.padded, size_t(s.headDim) * sizeof(float));
  kernels_.scale(out, 1.0f / s.sum[row], s.headDim);
}

void Attention::paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap) {
  bool single = true;
  for (const AttentionJob& job : jobs) single = single && job.q.rows == 1;
  if (single) return decode(jobs, layer, scale, softcap);
  // rows that come alone among others are computed as they would be alone
  std::vector<AttentionJob> one, many;
  for (const AttentionJob& job : jobs) (job.q.rows == 1 ? one : many).push_back(job);
  if (!one.empty()) decode(one, layer, scale, softcap);
  prefill(many, layer, scale, softcap);
}

void Attention::prefill(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap) {
  const KvLayout& layout = *jobs.front().kv.layout;
  const int64_t headDim = layout.headDim, kvHeads = layout.kvHeads, width = kernels_.tileTokens;
  const int64_t group = jobs.front().q.cols / headDim / kvHeads;   // query heads that share a KV head
  const int64_t queryRows = std::max<int64_t>(1, kStates / group);

  // work items: (job, block of query rows, KV head)
  firstItem_.assign(1, 0);
  for (const AttentionJob& job : jobs) firstItem_.push_back(firstItem_.back() + (job.q.rows + queryRows - 1) / queryRows * kvHeads);

  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (item - firstItem_[j]) % kvHeads;
    const int64_t rowBegin = (item - firstItem_[j]) / kvHeads * queryRows, rowEnd = std::min(rowBegin + queryRows, job.q.rows);
    Worker& worker = workers_[size_t(index)];
    State s = begin(worker, (rowEnd - rowBegin) * group, headDim);

    // state i: row rowBegin + i / group, head kvHead * group + i % group; gathered so that states lie headDim apart
    const auto rowOf = [&](int64_t state) { return rowBegin + state / group; };
    float* gathered = worker.wide.get<float>(size_t(width * headDim));
    for (int64_t first = 0; first < s.rows; first += width) {
      const int64_t count = std::min(width, s.rows - first);
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(gathered + i * headDim, job.q.row<float>(rowOf(first + i)) + (kvHead * group + (first + i) % group) * headDim, size_t(headDim) * sizeof(float));
      kernels_.packTokens(gathered, headDim, count, headDim, s.queries + first * headDim);
    }

    float* values = worker.values.get<float>(size_t(kTile * s.padded));
    std::fill_n(values, kTile * s.padded, 0.0f);
    const int64_t keyBegin = job.mask.first(job.position + rowBegin);
    const int64_t keyEnd = job.mask.end(job.position + rowEnd - 1);
    for (int64_t tile = keyBegin / kTile; tile * kTile < keyEnd; ++tile) {
      const uint8_t* page = job.kv.pages[tile];
      const int64_t count = std::min(kTile, keyEnd - tile * kTile);
      const uint8_t* keys = page + layout.headOffset(layer, 0, kvHead);
      const uint8_t* rows = page + layout.headOffset(layer, 1, kvHead);
      if (s.padded == headDim) kernels_.toF32(layout.type, rows, values, count * headDim);
      else for (int64_t i = 0; i < count; ++i) kernels_.toF32(layout.type, rows + size_t(i) * layout.rowBytes(), values + i * s.padded, headDim);
      fold(worker, s, layout.type, keys, layout.rowBytes(), values, count, scale, softcap, [&](int64_t state) {
        const int64_t position = job.position + rowOf(state);
        return Range{job.mask.first(position) - tile * kTile, job.mask.end(position) - tile * kTile};
      });
    }
    for (int64_t i = 0; i < s.rows; ++i) finish(job.out.row<float>(rowOf(i)) + (kvHead * group + i % group) * headDim, s, i);
  });
}

void Attention::decode(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap) {
  const KvLayout& layout = *jobs.front().kv.layout;
  const int64_t headDim = layout.headDim, padded = roundUp(headDim, 16), kvHeads = layout.kvHeads;
  const int64_t group = jobs.front().q.cols / headDim / kvHeads;
  const auto pieces = [](const AttentionJob& job) {
    return (job.mask.end(job.position) - 1) / kSplit - job.mask.first(job.position) / kSplit + 1;
  };
  // values are read where they lie if whole vectors fit a row
  const bool inPlace = padded == headDim && (layout.type == DType::f32 || layout.type == DType::f16 || layout.type == DType::q8_0);
  firstItem_.assign(1, 0);
  for (const AttentionJob& job : jobs) firstItem_.push_back(firstItem_.back() + pieces(job) * kvHeads);
  // of an item and query head: sum of values, then largest score and sum of weights
  const int64_t resultSize = padded + 2;
  float* results = partial_.get<float>(size_t(firstItem_.back() * group * resultSize));

  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (item - firstItem_[j]) % kvHeads, keyFirst = job.mask.first(job.position), keyEnd = job.mask.end(job.position);
    const int64_t piece = keyFirst / kSplit + (item - firstItem_[j]) / kvHeads;
    Worker& worker = workers_[size_t(index)];
    float* acc = worker.acc.get<float>(size_t(group * padded));
    float* scores = worker.scores.get<float>(size_t(group * (kTile * 2 + 3)));   // [group][kTile], the same dense, then max, sum, keep
    float *dense = scores + group * kTile, *max = dense + group * kTile, *sum = max + group, *keep = sum + group;
    std::fill_n(acc, group * padded, 0.0f);
    std::fill_n(max, group, -INFINITY);
    std::fill_n(sum, group, 0.0f);
    const float* q = job.q.row<float>(0) + kvHead * group * headDim;
    for (int64_t tile = std::max(piece * kSplit, keyFirst) / kTile; tile * kTile < std::min((piece + 1) * kSplit, keyEnd); ++tile) {
      const uint8_t* page = job.kv.pages[tile];
      const int64_t count = std::min(kTile, keyEnd - tile * kTile);
      const uint8_t* keys = page + layout.headOffset(layer, 0, kvHead);
      const uint8_t* rows = page + layout.headOffset(layer, 1, kvHead);
      for (int64_t g = 0; g < group; g += kMaxDecodeTokens)
        kernels_.dotRows(layout.type, keys, layout.rowBytes(), count, headDim, q + g * headDim, headDim, std::min(kMaxDecodeTokens, group - g), dense + g * count);
      for (int64_t g = 0; g < group; ++g) {
        std::copy_n(dense + g * count, count, scores + g * kTile);
        keep[g] = softmaxRow(scores + g * kTile, count, {keyFirst - tile * kTile, keyEnd - tile * kTile}, scale, softcap, max[g], sum[g]);
      }
      DType type = layout.type;
      size_t stride = layout.rowBytes();
      if (!inPlace) {
        float* values = worker.values.get<float>(size_t(kTile * padded));
        for (int64_t i = 0; i < count; ++i) {
          kernels_.toF32(type, rows + size_t(i) * stride, values + i * padded, headDim);
          std::fill_n(values + i * padded + headDim, padded - headDim, 0.0f);
        }
        rows = reinterpret_cast<const uint8_t*>(values);
        stride = size_t(padded) * sizeof(float);
        type = DType::f32;
      }
      for (int64_t g = 0; g < group; g += 4)
        kernels_.mix(acc + g * padded, padded, keep + g, scores + g * kTile, type, rows, stride, count, padded, std::min<int64_t>(4, group - g));
    }
    for (int64_t g = 0; g < group; ++g) {
      float* result = results + (item * group + g) * resultSize;
      std::copy_n(acc + g * padded, padded, result);
      result[padded] = max[g];
      result[padded + 1] = sum[g];
    }
  });
  if (cancelled()) return;

  // Pieces in the order of their keys.
  for (size_t j = 0; j < jobs.size(); ++j)
    for (int64_t head = 0; head < kvHeads * group; ++head) {
      float* out = jobs[j].out.row<float>(0) + head * headDim;
      const auto result = [&](int64_t piece) {
        return results + ((firstItem_[j] + piece * kvHeads + head / group) * group + head % group) * resultSize;
      };
      const int64_t count = pieces(jobs[j]);
      float top = -INFINITY, sum = 0;
      for (int64_t p = 0; p < count; ++p) top = std::max(top, result(p)[padded]);
      std::fill_n(out, headDim, 0.0f);
      for (int64_t p = 0; p < count; ++p) {
        float* r = result(p);
        const float weight = std::exp(r[padded] - top);
        sum += r[padded + 1] * weight;
        kernels_.scale(r, weight, headDim);
        kernels_.add(out, r, headDim);
      }
      kernels_.scale(out, 1.0f / sum, headDim);
    }
}

void Attention::dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale) {
  const int64_t headDim = q.cols / heads, tokens = k.rows, width = kernels_.tileTokens;
  const int64_t blocks = (q.rows + kDenseRows - 1) / kDenseRows;
  pool_.forRange(blocks * heads, 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const int64_t head = item % heads, rowBegin = item / heads * kDenseRows, rowEnd = std::min(rowBegin + kDenseRows, q.rows);
    Worker& worker = workers_[size_t(index)];
    State s = begin(worker, rowEnd - rowBegin, headDim);
    for (int64_t first = 0; first < s.rows; first += width)
      kernels_.packTokens(q.row<float>(rowBegin + first) + head * headDim, int64_t(q.stride / sizeof(float)), std::min(width, s.rows - first), headDim,
                          s.queries + first * headDim);
    float* values = worker.values.get<float>(size_t(kTile * s.padded));
    std::fill_n(values, kTile * s.padded, 0.0f);
    for (int64_t key = 0; key < tokens; key += kTile) {
      const int64_t count = std::min(kTile, tokens - key);
      for (int64_t i = 0; i < count; ++i) std::memcpy(values + i * s.padded, v.row<float>(key + i) + head * headDim, size_t(headDim) * sizeof(float));
      const uint8_t* keys = reinterpret_cast<const uint8_t*>(k.row<float>(key) + head * headDim);
      fold(worker, s, DType::f32, keys, k.stride, values, count, scale, 0, [&](int64_t) { return Range{0, count}; });
    }
    for (int64_t i = 0; i < s.rows; ++i) finish(out.row<float>(rowBegin + i) + head * headDim, s, i);
  });
}

}  // namespace pg
