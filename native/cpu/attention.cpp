#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/math.h"

namespace pg {
namespace {

constexpr int64_t kTile = kPageTokens;   // keys of a tile
constexpr int64_t kStates = 96;          // query rows of a work item
constexpr int64_t kSplit = 4 * kTile;    // keys of a piece in decoding
static_assert(kTile == kTileGroup, "a page is a tile of the kernels");

// Work item -> (job, item of the job)
size_t jobOf(const std::vector<int64_t>& firstItem, int64_t item) {
  return size_t(std::upper_bound(firstItem.begin(), firstItem.end(), item) - firstItem.begin() - 1);
}

}  // namespace

void Attention::paged(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                      Precision precision) {
  bool single = true;
  for (const AttentionJob& job : jobs) single = single && job.q.rows == 1;
  if (single) return decode(jobs, layer, scale, softcap);
  // rows that come alone among others are computed as they would be alone
  std::vector<AttentionJob> one, many;
  for (const AttentionJob& job : jobs) (job.q.rows == 1 ? one : many).push_back(job);
  if (!one.empty()) decode(one, layer, scale, softcap);
  prefill(many, layer, scale, softcap, precision);
}

void Attention::prefill(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                        Precision precision) {
  const KvLayout& layout = *jobs.front().kv.layout;
  const int64_t headDim = layout.headDim, kvHeads = layout.kvHeads;
  const int64_t group = jobs.front().q.cols / headDim / kvHeads;   // query heads that share a KV head
  const int64_t queryRows = std::max<int64_t>(1, kStates / group);
  const auto firstPage = [](const AttentionJob& job) { return job.mask.first(job.position) / kTile; };

  // work items: (job, block of query rows, KV head); tiles: (job, page, KV head)
  firstItem_.assign(1, 0);
  firstTile_.assign(1, 0);
  for (const AttentionJob& job : jobs) {
    const int64_t pages = ceilDiv(job.mask.end(job.position + job.q.rows - 1), kTile) - firstPage(job);
    firstItem_.push_back(firstItem_.back() + ceilDiv(job.q.rows, queryRows) * kvHeads);
    firstTile_.push_back(firstTile_.back() + pages * kvHeads);
  }
  tiles_.begin(firstTile_.back(), headDim, precision);
  pool_.forRange(firstTile_.back(), 1, [&](int64_t tile, int64_t, int) {
    if (cancelled()) return;
    const size_t j = jobOf(firstTile_, tile);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (tile - firstTile_[j]) % kvHeads, page = firstPage(job) + (tile - firstTile_[j]) / kvHeads;
    const int64_t keyEnd = job.mask.end(job.position + job.q.rows - 1);
    const auto rows = [&](int64_t which) {
      return KvTiles::Rows{layout.type, job.kv.pages[page] + layout.headOffset(layer, which, kvHead),
                           layout.rowBytes()};
    };
    tiles_.pack(tile, rows(0), rows(1), std::min(kTile, keyEnd - page * kTile));
  });

  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (item - firstItem_[j]) % kvHeads;
    const int64_t rowBegin = (item - firstItem_[j]) / kvHeads * queryRows,
                  rowEnd = std::min(rowBegin + queryRows, job.q.rows);
    Worker& worker = workers_[size_t(index)];
    worker.queries.clear();
    for (int64_t row = rowBegin; row < rowEnd; ++row)
      for (int64_t g = 0; g < group; ++g)
        worker.queries.push_back(job.q.row<float>(row) + (kvHead * group + g) * headDim);
    worker.block.begin(worker.queries, tiles_, scale, softcap);

    const int64_t keyBegin = job.mask.first(job.position + rowBegin), keyEnd = job.mask.end(job.position + rowEnd - 1);
    for (int64_t page = keyBegin / kTile; page * kTile < keyEnd; ++page) {
      worker.seen.clear();
      for (int64_t row = rowBegin; row < rowEnd; ++row) {
        const int64_t position = job.position + row;
        worker.seen.insert(worker.seen.end(), size_t(group),
                           {job.mask.first(position) - page * kTile, job.mask.end(position) - page * kTile});
      }
      worker.block.fold(firstTile_[j] + (page - firstPage(job)) * kvHeads + kvHead,
                        std::min(kTile, keyEnd - page * kTile), worker.seen);
    }
    for (int64_t row = rowBegin, state = 0; row < rowEnd; ++row)
      for (int64_t g = 0; g < group; ++g)
        worker.block.finish(state++, job.out.row<float>(row) + (kvHead * group + g) * headDim);
  });
}

void Attention::decode(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap) {
  const KvLayout& layout = *jobs.front().kv.layout;
  const int64_t headDim = layout.headDim, padded = roundUp<int64_t>(headDim, 16), kvHeads = layout.kvHeads;
  const int64_t group = jobs.front().q.cols / headDim / kvHeads;
  const auto pieces = [](const AttentionJob& job) {
    return (job.mask.end(job.position) - 1) / kSplit - job.mask.first(job.position) / kSplit + 1;
  };
  // values are read where they lie if whole vectors fit a row
  const bool inPlace =
      padded == headDim && (layout.type == DType::f32 || layout.type == DType::f16 || layout.type == DType::q8_0);
  firstItem_.assign(1, 0);
  for (const AttentionJob& job : jobs) firstItem_.push_back(firstItem_.back() + pieces(job) * kvHeads);
  // of an item and query head: sum of values, then largest score and sum of weights
  const int64_t resultSize = padded + 2;
  float* results = partial_.get<float>(size_t(firstItem_.back() * group * resultSize));

  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const AttentionJob& job = jobs[j];
    const int64_t kvHead = (item - firstItem_[j]) % kvHeads, keyFirst = job.mask.first(job.position),
                  keyEnd = job.mask.end(job.position);
    const int64_t piece = keyFirst / kSplit + (item - firstItem_[j]) / kvHeads;
    Worker& worker = workers_[size_t(index)];
    float* acc = worker.acc.get<float>(size_t(group * padded));
    float* scores = worker.scores.get<float>(
        size_t(group * (kTile * 2 + 3)));   // [group][kTile], the same dense, then max, sum, keep
    float *dense = scores + group * kTile, *max = dense + group * kTile, *sum = max + group, *keep = sum + group;
    std::fill_n(acc, group * padded, 0.0f);
    std::fill_n(max, group, -INFINITY);
    std::fill_n(sum, group, 0.0f);
    const float* q = job.q.row<float>(0) + kvHead * group * headDim;
    for (int64_t tile = std::max(piece * kSplit, keyFirst) / kTile;
         tile * kTile < std::min((piece + 1) * kSplit, keyEnd); ++tile) {
      const uint8_t* page = job.kv.pages[tile];
      const int64_t count = std::min(kTile, keyEnd - tile * kTile);
      const uint8_t* keys = page + layout.headOffset(layer, 0, kvHead);
      const uint8_t* rows = page + layout.headOffset(layer, 1, kvHead);
      for (int64_t g = 0; g < group; g += kMaxDecodeTokens)
        kernels_.dotRows(layout.type, keys, layout.rowBytes(), count, headDim, q + g * headDim, headDim,
                         std::min(kMaxDecodeTokens, group - g), dense + g * count);
      for (int64_t g = 0; g < group; ++g) {
        std::copy_n(dense + g * count, count, scores + g * kTile);
        keep[g] = softmaxTileRow(kernels_, scores + g * kTile, count, {keyFirst - tile * kTile, keyEnd - tile * kTile},
                                 scale, softcap, max[g], sum[g]);
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
        kernels_.mix(acc + g * padded, padded, keep + g, scores + g * kTile, type, rows, stride, count, padded,
                     std::min<int64_t>(4, group - g));
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

void Attention::dense(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                      Precision precision) {
  const int64_t headDim = q.cols / heads, tokens = k.rows;
  const int64_t blocks = ceilDiv(q.rows, kStates), tiles = ceilDiv(tokens, kTile);
  tiles_.begin(tiles * heads, headDim, precision);
  pool_.forRange(tiles * heads, 1, [&](int64_t item, int64_t, int) {
    if (cancelled()) return;
    const int64_t head = item % heads, tile = item / heads, column = head * headDim,
                  key = tile * kTile;   // heads share pages of memory
    const auto rows = [&](const ConstView& x) {
      return KvTiles::Rows{DType::f32, reinterpret_cast<const uint8_t*>(x.row<float>(key) + column), x.stride};
    };
    tiles_.pack(head * tiles + tile, rows(k), rows(v), std::min(kTile, tokens - key));
  });
  pool_.forRange(blocks * heads, 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const int64_t head = item / blocks, column = head * headDim, rowBegin = item % blocks * kStates,
                  rowEnd = std::min(rowBegin + kStates, q.rows);
    Worker& worker = workers_[size_t(index)];
    worker.queries.clear();
    for (int64_t row = rowBegin; row < rowEnd; ++row) worker.queries.push_back(q.row<float>(row) + column);
    worker.block.begin(worker.queries, tiles_, scale, 0);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t count = std::min(kTile, tokens - tile * kTile);
      worker.seen.assign(worker.queries.size(), {0, count});
      worker.block.fold(head * tiles + tile, count, worker.seen);
    }
    for (int64_t row = rowBegin; row < rowEnd; ++row) worker.block.finish(row - rowBegin, out.row<float>(row) + column);
  });
}

}  // namespace pg
