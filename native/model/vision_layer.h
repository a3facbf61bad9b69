#pragma once
// One layer of SigLIP over the patches of pictures: the function that encoding and training share.
#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/tape.h"
#include "model/weights.h"

namespace pg {

class VisionLayers {
 public:
  VisionLayers(Device& device, AdaptedOps& ops, const VisionConfig& config, const VisionWeights& weights)
      : device_(device), ops_(ops), config_(config), weights_(weights) {}

  // x [pictures * tokens, hidden] becomes what leaves the layer; `arena` has scratchBytes(its rows). Pictures see only
  // themselves; several are one block, which shares each product.
  void forward(Arena& arena, int64_t layer, View x, const AdapterSet* adapters, const LayerTape& tape = {}) const;
  size_t scratchBytes(int64_t rows) const;

 private:
  int64_t blockRows(int64_t rows) const;
  void attention(Arena& arena, const VisionLayer& layer, View x, const AdapterSet* adapters,
                 const LayerTape& tape) const;
  void feedForward(Arena& arena, const VisionLayer& layer, View x, const AdapterSet* adapters,
                   const LayerTape& tape) const;

  Device& device_;
  AdaptedOps& ops_;
  const VisionConfig& config_;
  const VisionWeights& weights_;
};

}  // namespace pg
