#include "cpu/kv_tiles.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"

namespace pg {

void KvTiles::begin(int64_t tiles, int64_t headDim, Precision precision) {
  headDim_ = headDim;
  padded_ = roundUp<int64_t>(headDim, 16);
  narrow_ = precision == Precision::fast && kernels_.scores16 && headDim <= kRow16;
  level_ = std::min(32767, int(std::sqrt(2147483647.0 / double(headDim))));   // sums of headDim products fit 31 bits
  keyBytes_ = valueBytes_ = size_t(kTileGroup * padded_) * (narrow_ ? sizeof(int16_t) : sizeof(float));
  tileBytes_ = keyBytes_ + valueBytes_ + (narrow_ ? 2 * kTileGroup * sizeof(float) : 0);
  data_ = memory_.get<uint8_t>(tileBytes_ * size_t(tiles));
}

KvTiles::Tile KvTiles::operator[](int64_t tile) const {
  uint8_t* keys = data_ + tileBytes_ * size_t(tile);
  float* scales = narrow_ ? reinterpret_cast<float*>(keys + keyBytes_ + valueBytes_) : nullptr;
  return {keys, keys + keyBytes_, scales, narrow_ ? scales + kTileGroup : nullptr};
}

void KvTiles::pack(int64_t tile, const Rows& keys, const Rows& values, int64_t count) const {
  const Tile to = (*this)[tile];
  if (narrow_) {
    kernels_.packKeys16(keys.type, keys.data, keys.stride, count, headDim_, level_, reinterpret_cast<int16_t*>(to.keys),
                        to.keyScales);
    kernels_.packValues16(values.type, values.data, values.stride, count, headDim_,
                          reinterpret_cast<int16_t*>(to.values), to.valueScales);
    return;
  }
  float *panels = reinterpret_cast<float*>(to.keys), *wide = reinterpret_cast<float*>(to.values);
  const int64_t height = kernels_.tileRows;
  for (int64_t key = 0; key < count; key += height)
    kernels_.packRows(keys.type, keys.data + keys.stride * size_t(key), keys.stride, std::min(height, count - key), 0,
                      headDim_, panels + key * headDim_);
  for (int64_t i = 0; i < count; ++i) {
    kernels_.toF32(values.type, values.data + values.stride * size_t(i), wide + i * padded_, headDim_);
    std::fill_n(wide + i * padded_ + headDim_, padded_ - headDim_, 0.0f);
  }
}

}  // namespace pg
