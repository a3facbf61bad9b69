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
  widen(values, count, headDim_, padded_, wide);
}

void KvTiles::widen(const Rows& rows, int64_t count, int64_t cols, int64_t padded, float* to) const {
  for (int64_t i = 0; i < count; ++i) {
    kernels_.toF32(rows.type, rows.data + rows.stride * size_t(i), to + i * padded, cols);
    std::fill_n(to + i * padded + cols, padded - cols, 0.0f);
  }
}

KvTiles::Rows KvTiles::widen(const Rows& rows, int64_t count, int64_t cols, int64_t padded, Scratch& to) const {
  float* wide = to.get<float>(size_t(kTileGroup * padded));
  widen(rows, count, cols, padded, wide);
  return {DType::f32, reinterpret_cast<const uint8_t*>(wide), size_t(padded) * sizeof(float)};
}

}  // namespace pg
