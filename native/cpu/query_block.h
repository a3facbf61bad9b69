#pragma once
// Query rows of one head with their running softmax: tiles of keys and values are folded in one after the other, so
// that no score matrix larger than a tile exists.
#include <span>

#include "cpu/kernels/common/kernels.h"
#include "cpu/kv_tiles.h"
#include "cpu/scratch.h"

namespace pg {

// Which of a tile's keys [from, to) a query row sees.
struct SeenKeys {
  int64_t from, to;
};

// scores[count] become probabilities, 0 for keys that are not seen; returns the factor for what was accumulated before.
float softmaxTileRow(const Kernels& kernels, float* scores, int64_t count, SeenKeys seen, float scale, float softcap,
                     float& max, float& sum);

class QueryBlock {
 public:
  explicit QueryBlock(const Kernels& kernels) : kernels_(kernels) {}

  void begin(std::span<const float* const> queries, const KvTiles& tiles, float scale, float softcap);
  // The first `count` keys and values of a tile; one SeenKeys a query row.
  void fold(int64_t tile, int64_t count, std::span<const SeenKeys> seen);
  void finish(int64_t row, float* out) const;

 private:
  void fold32(const KvTiles::Tile& tile, int64_t count, std::span<const SeenKeys> seen);
  void fold16(const KvTiles::Tile& tile, int64_t count, std::span<const SeenKeys> seen);
  bool nothingSeen(int64_t first, int64_t count, std::span<const SeenKeys> seen) const;

  const Kernels& kernels_;
  const KvTiles* tiles_ = nullptr;
  int64_t rows_ = 0, headDim_ = 0, padded_ = 0;
  float scale_ = 1, softcap_ = 0;
  float *acc_ = nullptr, *max_ = nullptr, *sum_ = nullptr;  // acc[row][padded]; the last tile of rows is filled up
  float* queries_ = nullptr;  // [tile][headDim][tileTokens], or
  int16_t* queries16_ = nullptr;  // [row][kRow16] with
  float* queryScales_ = nullptr;
  Scratch queryMemory_, accMemory_, scoreMemory_, wide_;
};

}  // namespace pg
