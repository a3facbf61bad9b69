#pragma once
// The backward pass of SigLIP and the projector for one picture: the mirror of VisionLayers.
#include "model/config.h"
#include "model/tape.h"
#include "train/linear_grad.h"

namespace pg {

class VisionBackward {
 public:
  VisionBackward(Device& device, const LinearGrad& linear, const VisionConfig& config, const VisionWeights& weights)
      : device_(device), linear_(linear), config_(config), weights_(weights) {}

  // d [tokens, hidden] becomes the gradient of what entered the last norm, given that of the features [tokens,
  // textHidden]. `arena` has scratchBytes().
  void projector(Arena& arena, View d, ConstView features, ConstView beforeNorm) const;
  // As TextBackward's.
  void layer(Arena& arena, int64_t layer, View d, const LayerTape& tape, bool through) const;
  size_t scratchBytes() const;
  LayerTape wholeTape(Arena& arena) const;
  size_t tapeBytes() const;
  bool trains(int64_t layer) const;

 private:
  void feedForward(Arena& arena, const VisionLayer& layer, View d, const LayerTape& tape) const;
  void attention(Arena& arena, const VisionLayer& layer, View d, const LayerTape& tape, bool through) const;

  Device& device_;
  const LinearGrad& linear_;
  const VisionConfig& config_;
  const VisionWeights& weights_;
};

}  // namespace pg
