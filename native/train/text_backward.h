#pragma once
// The backward pass of one layer of Gemma, from its tape: the mirror of TextLayers.
#include "model/config.h"
#include "model/tape.h"
#include "train/linear_grad.h"

namespace pg {

class TextBackward {
 public:
  TextBackward(Device& device, const LinearGrad& linear, const TextConfig& config, const TextWeights& weights)
      : device_(device), linear_(linear), config_(config), weights_(weights) {}

  struct Pass {
    ConstView positions;
    AttentionMask mask;
  };
  // d [tokens, hidden]: the gradient of what left the layer becomes that of what entered it, where `through`; else only
  // the layer's own gradients are wanted. `tape` is whole and spoiled. `arena` has scratchBytes(tokens).
  void operator()(Arena& arena, int64_t layer, View d, const Pass& pass, const LayerTape& tape, bool through) const;
  size_t scratchBytes(int64_t tokens) const;
  // A layer's tape with all that this needs but what enters the layer.
  LayerTape wholeTape(Arena& arena, int64_t tokens) const;
  size_t tapeBytes(int64_t tokens) const;

 private:
  struct Block;
  void feedForward(const Block& block) const;
  void attention(const Block& block, const Pass& pass, bool through) const;
  ConstView branchGrad(const Block& block, ConstView out, const Norm& postNorm) const;

  Device& device_;
  const LinearGrad& linear_;
  const TextConfig& config_;
  const TextWeights& weights_;
};

}  // namespace pg
