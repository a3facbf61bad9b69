#include "cpu/query_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/math.h"

namespace pg {
float softmaxTileRow(const Kernels& kernels, float* scores, int64_t count, SeenKeys seen, float scale, float softcap,
                     float& max, float& sum) {
  const int64_t from = std::max<int64_t>(seen.from, 0), to = std::min(seen.to, count);
  if (from >= to) {   // nothing to see: the state stays as it is, to the bit
    std::fill_n(scores, count, 0.0f);
    return 1;
  }
  if (from > 0) std::fill_n(scores, from, 0.0f);
  if (to < count) std::fill_n(scores + to, count - to, 0.0f);
  return kernels.softmaxStep(scores + from, scale, softcap, &max, &sum, to - from);
}

void QueryBlock::begin(std::span<const float* const> queries, const KvTiles& tiles, float scale, float softcap) {
  const int64_t width = kernels_.tileTokens, filled = roundUp(int64_t(queries.size()), width);
  tiles_ = &tiles;
  rows_ = int64_t(queries.size()), headDim_ = tiles.headDim(), padded_ = tiles.padded();
  scale_ = scale, softcap_ = softcap;
  acc_ = accMemory_.get<float>(size_t(filled * (padded_ + 2)));
  max_ = acc_ + filled * padded_;
  sum_ = max_ + filled;
  std::fill_n(acc_, filled * padded_, 0.0f);
  std::fill_n(max_, filled, -INFINITY);
  std::fill_n(sum_, filled, 0.0f);

  if (tiles.narrow()) {
    queries16_ = queryMemory_.get<int16_t>(size_t(filled * kRow16 + 2 * filled));
    queryScales_ = reinterpret_cast<float*>(queries16_ + filled * kRow16);
    std::fill_n(queries16_ + rows_ * kRow16, (filled - rows_) * kRow16, int16_t(0));
    for (int64_t r = 0; r < filled; ++r) {
      float quantum = 0;
      if (r < rows_)
        kernels_.packQueries16(queries[size_t(r)], headDim_, tiles.level(), queries16_ + r * kRow16, &quantum);
      queryScales_[r] = quantum * scale * kLog2E;
    }
    return;
  }
  queries_ = queryMemory_.get<float>(size_t(filled * headDim_));
  float* gathered = wide_.get<float>(size_t(width * headDim_));
  for (int64_t first = 0; first < rows_; first += width) {
    const int64_t count = std::min(width, rows_ - first);
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(gathered + i * headDim_, queries[size_t(first + i)], size_t(headDim_) * sizeof(float));
    kernels_.packTokens(gathered, headDim_, count, headDim_, queries_ + first * headDim_);
  }
}

bool QueryBlock::nothingSeen(int64_t first, int64_t count, std::span<const SeenKeys> seen) const {
  const int64_t end = std::min(first + kernels_.tileTokens, rows_);
  return std::all_of(seen.begin() + first, seen.begin() + end,
                     [&](SeenKeys s) { return s.from >= std::min(s.to, count); });
}

void QueryBlock::fold(int64_t tile, int64_t count, std::span<const SeenKeys> seen) {
  tiles_->narrow() ? fold16((*tiles_)[tile], count, seen) : fold32((*tiles_)[tile], count, seen);
}

void QueryBlock::fold32(const KvTiles::Tile& tile, int64_t count, std::span<const SeenKeys> seen) {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens;
  const float* panels = reinterpret_cast<const float*>(tile.keys);
  float* scores = scoreMemory_.get<float>(size_t(width * (kTileGroup + 1)));
  float* keep = scores + width * kTileGroup;
  for (int64_t first = 0; first < rows_; first += width) {
    if (nothingSeen(first, count, seen)) continue;
    for (int64_t key = 0; key < count; key += height)
      kernels_.tile(scores + key, kTileGroup, panels + key * headDim_, queries_ + first * headDim_, headDim_, false);
    for (int64_t r = 0; r < width; ++r) {
      const int64_t row = std::min(first + r, rows_ - 1);
      keep[r] = softmaxTileRow(kernels_, scores + r * kTileGroup, count,
                               first + r < rows_ ? seen[size_t(row)] : SeenKeys{0, 0}, scale_, softcap_, max_[row],
                               sum_[row]);
    }
    kernels_.mix(acc_ + first * padded_, padded_, keep, scores, DType::f32, tile.values,
                 size_t(padded_) * sizeof(float), count, padded_, width);
  }
}

void QueryBlock::fold16(const KvTiles::Tile& tile, int64_t count, std::span<const SeenKeys> seen) {
  const int64_t width = kernels_.tileTokens;
  const int16_t *keys = reinterpret_cast<const int16_t*>(tile.keys),
                *values = reinterpret_cast<const int16_t*>(tile.values);
  float* scores = scoreMemory_.get<float>(size_t(width * (kTileGroup + 2)));
  float *keep = scores + width * kTileGroup, *weights = keep + width;
  int16_t* p = reinterpret_cast<int16_t*>(wide_.get<float>(size_t(width * kTileGroup)));
  for (int64_t first = 0; first < rows_; first += width) {
    if (nothingSeen(first, count, seen)) continue;
    kernels_.scores16(scores, queries16_ + first * kRow16, queryScales_ + first, keys, tile.keyScales, headDim_);
    for (int64_t r = 0; r < width; ++r) {
      const int64_t row = first + r;
      const int64_t from = row < rows_ ? std::max<int64_t>(seen[size_t(row)].from, 0) : 0,
                    to = row < rows_ ? std::min(seen[size_t(row)].to, count) : 0;
      if (from < to) {
        keep[r] = kernels_.softmax16(scores + r * kTileGroup, from, to, softcap_, tile.valueScales, max_ + row,
                                     sum_ + row, p + r * kTileGroup, weights + r);
      } else {   // nothing to see: the state stays as it is, to the bit
        std::fill_n(p + r * kTileGroup, kTileGroup, int16_t(0));
        keep[r] = 1, weights[r] = 0;
      }
    }
    kernels_.mix16(acc_ + first * padded_, padded_, keep, weights, p, values, padded_);
  }
}

void QueryBlock::finish(int64_t row, float* out) const {
  std::memcpy(out, acc_ + row * padded_, size_t(headDim_) * sizeof(float));
  kernels_.scale(out, 1.0f / sum_[row], headDim_);
}

}  // namespace pg
