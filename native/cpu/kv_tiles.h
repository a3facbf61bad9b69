#pragma once
// Keys and values of heads, unpacked once in tiles of kTileGroup for all query rows that meet them: as f32 or, where
// f32 is not asked for and the kernel table has products for them, as 16-bit integers.
#include "cpu/kernels/common/kernels.h"
#include "cpu/scratch.h"
#include "device/device.h"

namespace pg {

class KvTiles {
 public:
  // Keys or values of one head
  struct Rows {
    DType type;
    const uint8_t* data;
    size_t stride;   // bytes
  };
  // keys: [panel][headDim][tileRows] or integers as packKeys16 leaves them; values: [key][padded] or as packValues16
  // leaves them. Scales are of keys and of values, and absent with f32.
  struct Tile {
    uint8_t *keys, *values;
    float *keyScales, *valueScales;
  };

  explicit KvTiles(const Kernels& kernels) : kernels_(kernels) {}

  // Room for `tiles` tiles.
  void begin(int64_t tiles, int64_t headDim, Precision precision);
  // Keys of f32, f16, bf16 or q8_0, values of any type of a cache. Calls for different tiles may run at a time.
  void pack(int64_t tile, const Rows& keys, const Rows& values, int64_t count) const;

  // `count` rows of `cols` values as f32, filled up with zeros to `padded`, in `to`.
  Rows widen(const Rows& rows, int64_t count, int64_t cols, int64_t padded, Scratch& to) const;

  bool narrow() const { return narrow_; }
  int level() const { return level_; }        // largest integer of keys, and of queries that meet them
  int64_t headDim() const { return headDim_; }
  int64_t padded() const { return padded_; }  // headDim rounded up to 16: columns of values
  Tile operator[](int64_t tile) const;

 private:
  const Kernels& kernels_;
  int64_t headDim_ = 0, padded_ = 0;
  void widen(const Rows& rows, int64_t count, int64_t cols, int64_t padded, float* to) const;

  bool narrow_ = false;
  int level_ = 0;
  size_t keyBytes_ = 0, valueBytes_ = 0, tileBytes_ = 0;
  uint8_t* data_ = nullptr;
  Scratch memory_;
};

}  // namespace pg
