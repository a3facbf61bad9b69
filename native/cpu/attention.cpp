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

// Query heads that share a KV head
int64_t groupOf(const PagedJob& job) { return job.q.cols / job.layout->headDim / job.layout->kvHeads; }
int64_t firstPage(const PagedJob& job) { return job.mask.first(job.position) / kTile; }
// Columns of values, and floats of a piece's result
int64_t paddedOf(const KvLayout& layout) { return roundUp<int64_t>(layout.headDim, 16); }
int64_t resultSize(const KvLayout& layout) { return paddedOf(layout) + 2; }

// Work item -> (job, item of the job)
size_t jobOf(const std::vector<int64_t>& firstItem, int64_t item) {
  return size_t(std::upper_bound(firstItem.begin(), firstItem.end(), item) - firstItem.begin() - 1);
}

}  // namespace

void Attention::paged(std::span<const PagedJob> jobs, const AttentionParams& params) {
  const auto single = [](const PagedJob& job) { return job.q.rows == 1; };
  if (std::all_of(jobs.begin(), jobs.end(), single)) return decode(jobs, params);
  // rows that come alone among others are computed as they would be alone
  std::vector<PagedJob> one, many;
  for (const PagedJob& job : jobs) (single(job) ? one : many).push_back(job);
  if (!one.empty()) decode(one, params);
  prefill(many, params);
}

void Attention::prefill(std::span<const PagedJob> jobs, const AttentionParams& params) {
  const KvLayout& layout = *jobs.front().layout;
  const int64_t kvHeads = layout.kvHeads;
  const int64_t queryRows = std::max<int64_t>(1, kStates / groupOf(jobs.front()));

  // work items: (job, block of query rows, KV head); tiles: (job, page, KV head)
  firstItem_.assign(1, 0);
  firstTile_.assign(1, 0);
  for (const PagedJob& job : jobs) {
    firstItem_.push_back(firstItem_.back() + ceilDiv(job.q.rows, queryRows) * kvHeads);
    firstTile_.push_back(firstTile_.back() + (ceilDiv(job.keyEnd(), kTile) - firstPage(job)) * kvHeads);
  }
  tiles_.begin(firstTile_.back(), layout.headDim, params.precision);
  packKeys(jobs, params.layer);
  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const int64_t of = item - firstItem_[j];
    prefillRows(jobs[j], firstTile_[j], of / kvHeads * queryRows, of % kvHeads, params, workers_[size_t(index)]);
  });
}

void Attention::packKeys(std::span<const PagedJob> jobs, int64_t layer) {
  const KvLayout& layout = *jobs.front().layout;
  pool_.forRange(firstTile_.back(), 1, [&](int64_t tile, int64_t, int) {
    if (cancelled()) return;
    const size_t j = jobOf(firstTile_, tile);
    const PagedJob& job = jobs[j];
    const int64_t of = tile - firstTile_[j], kvHead = of % layout.kvHeads, page = firstPage(job) + of / layout.kvHeads;
    const auto rows = [&](int64_t value) {
      return KvTiles::Rows{layout.type, job.head(page, layer, value, kvHead), layout.rowBytes()};
    };
    tiles_.pack(tile, rows(0), rows(1), std::min(kTile, job.keyEnd() - page * kTile));
  });
}

// A block of query rows, of all heads that share a KV head; firstTile: the job's.
void Attention::prefillRows(const PagedJob& job, int64_t firstTile, int64_t rowBegin, int64_t kvHead,
                            const AttentionParams& params, Worker& worker) const {
  const int64_t group = groupOf(job), headDim = job.layout->headDim;
  const int64_t rowEnd = std::min(rowBegin + std::max<int64_t>(1, kStates / group), job.q.rows);
  worker.queries.clear();
  for (int64_t row = rowBegin; row < rowEnd; ++row)
    for (int64_t g = 0; g < group; ++g)
      worker.queries.push_back(job.q.row<float>(row) + (kvHead * group + g) * headDim);
  worker.block.begin(worker.queries, tiles_, params.scale, params.softcap);

  const int64_t keyBegin = job.mask.first(job.position + rowBegin), keyEnd = job.mask.end(job.position + rowEnd - 1);
  for (int64_t page = keyBegin / kTile; page * kTile < keyEnd; ++page) {
    worker.seen.clear();
    for (int64_t row = rowBegin; row < rowEnd; ++row) {
      const int64_t position = job.position + row;
      worker.seen.insert(worker.seen.end(), size_t(group),
                         {job.mask.first(position) - page * kTile, job.mask.end(position) - page * kTile});
    }
    worker.block.fold(firstTile + (page - firstPage(job)) * job.layout->kvHeads + kvHead,
                      std::min(kTile, keyEnd - page * kTile), worker.seen);
  }
  for (int64_t row = rowBegin, state = 0; row < rowEnd; ++row)
    for (int64_t g = 0; g < group; ++g)
      worker.block.finish(state++, job.out.row<float>(row) + (kvHead * group + g) * headDim);
}

void Attention::decode(std::span<const PagedJob> jobs, const AttentionParams& params) {
  const KvLayout& layout = *jobs.front().layout;
  const int64_t kvHeads = layout.kvHeads, perItem = groupOf(jobs.front()) * resultSize(layout);
  const auto pieces = [](const PagedJob& job) {
    return (job.mask.end(job.position) - 1) / kSplit - job.mask.first(job.position) / kSplit + 1;
  };
  firstItem_.assign(1, 0);
  for (const PagedJob& job : jobs) firstItem_.push_back(firstItem_.back() + pieces(job) * kvHeads);
  float* results = partial_.get<float>(size_t(firstItem_.back() * perItem));

  pool_.forRange(firstItem_.back(), 1, [&](int64_t item, int64_t, int index) {
    if (cancelled()) return;
    const size_t j = jobOf(firstItem_, item);
    const int64_t of = item - firstItem_[j];
    decodePiece(jobs[j], jobs[j].mask.first(jobs[j].position) / kSplit + of / kvHeads, of % kvHeads, params,
                workers_[size_t(index)], results + item * perItem);
  });
  if (cancelled()) return;
  for (size_t j = 0; j < jobs.size(); ++j) combine(jobs[j], pieces(jobs[j]), results + firstItem_[j] * perItem);
}

// results: of each query head the sum of values, then the largest score and the sum of weights.
void Attention::decodePiece(const PagedJob& job, int64_t piece, int64_t kvHead, const AttentionParams& params,
                            Worker& worker, float* results) const {
  const KvLayout& layout = *job.layout;
  const int64_t headDim = layout.headDim, padded = paddedOf(layout), group = groupOf(job);
  const int64_t keyFirst = job.mask.first(job.position), keyEnd = job.mask.end(job.position);
  // values are read where they lie if whole vectors fit a row
  const bool inPlace =
      padded == headDim && (layout.type == DType::f32 || layout.type == DType::f16 || layout.type == DType::q8_0);
  float* acc = worker.acc.get<float>(size_t(group * padded));
  float* scores =
      worker.scores.get<float>(size_t(group * (kTile * 2 + 3)));   // [group][kTile], the same dense, max, sum, keep
  float *dense = scores + group * kTile, *max = dense + group * kTile, *sum = max + group, *keep = sum + group;
  std::fill_n(acc, group * padded, 0.0f);
  std::fill_n(max, group, -INFINITY);
  std::fill_n(sum, group, 0.0f);
  const float* q = job.q.row<float>(0) + kvHead * group * headDim;
  for (int64_t tile = std::max(piece * kSplit, keyFirst) / kTile; tile * kTile < std::min((piece + 1) * kSplit, keyEnd);
       ++tile) {
    const int64_t count = std::min(kTile, keyEnd - tile * kTile);
    const uint8_t *keys = job.head(tile, params.layer, 0, kvHead), *rows = job.head(tile, params.layer, 1, kvHead);
    for (int64_t g = 0; g < group; g += kMaxDecodeTokens)
      kernels_.dotRows(layout.type, keys, layout.rowBytes(), count, headDim, q + g * headDim, headDim,
                       std::min(kMaxDecodeTokens, group - g), dense + g * count);
    for (int64_t g = 0; g < group; ++g) {
      std::copy_n(dense + g * count, count, scores + g * kTile);
      keep[g] = softmaxTileRow(kernels_, scores + g * kTile, count, {keyFirst - tile * kTile, keyEnd - tile * kTile},
                               params.scale, params.softcap, max[g], sum[g]);
    }
    KvTiles::Rows values{layout.type, rows, layout.rowBytes()};
    if (!inPlace) values = tiles_.widen(values, count, headDim, padded, worker.values);
    for (int64_t g = 0; g < group; g += 4)
      kernels_.mix(acc + g * padded, padded, keep + g, scores + g * kTile, values.type, values.data, values.stride,
                   count, padded, std::min<int64_t>(4, group - g));
  }
  for (int64_t g = 0; g < group; ++g) {
    float* result = results + g * resultSize(layout);
    std::copy_n(acc + g * padded, padded, result);
    result[padded] = max[g];
    result[padded + 1] = sum[g];
  }
}

// Pieces in the order of their keys.
void Attention::combine(const PagedJob& job, int64_t pieces, float* results) const {
  const KvLayout& layout = *job.layout;
  const int64_t headDim = layout.headDim, padded = paddedOf(layout), group = groupOf(job);
  for (int64_t head = 0; head < layout.kvHeads * group; ++head) {
    float* out = job.out.row<float>(0) + head * headDim;
    const auto result = [&](int64_t piece) {
      return results + ((piece * layout.kvHeads + head / group) * group + head % group) * resultSize(layout);
    };
    float top = -INFINITY, sum = 0;
    for (int64_t p = 0; p < pieces; ++p) top = std::max(top, result(p)[padded]);
    std::fill_n(out, headDim, 0.0f);
    for (int64_t p = 0; p < pieces; ++p) {
      float* r = result(p);
      const float weight = std::exp(r[padded] - top);
      sum += r[padded + 1] * weight;
      kernels_.scale(r, weight, headDim);
      kernels_.add(out, r, headDim);
    }
    kernels_.scale(out, 1.0f / sum, headDim);
  }
}

void Attention::dense(HostView out, ConstHostView q, ConstHostView k, ConstHostView v, int64_t heads, float scale,
                      Precision precision) {
  const int64_t headDim = q.cols / heads, tokens = k.rows;
  const int64_t blocks = ceilDiv(q.rows, kStates), tiles = ceilDiv(tokens, kTile);
  tiles_.begin(tiles * heads, headDim, precision);
  pool_.forRange(tiles * heads, 1, [&](int64_t item, int64_t, int) {
    if (cancelled()) return;
    const int64_t head = item % heads, tile = item / heads, column = head * headDim,
                  key = tile * kTile;   // heads share pages of memory
    const auto rows = [&](const ConstHostView& x) {
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
