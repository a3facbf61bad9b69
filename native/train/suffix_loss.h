#pragma once
// The loss of a suffix after the last layer, and what it says about the residual stream there.
#include <vector>

#include "device/arena.h"
#include "model/config.h"
#include "model/weights.h"

namespace pg {

class SuffixLoss {
 public:
  SuffixLoss(Device& device, const TextConfig& config, const TextWeights& weights, float softcap)
      : device_(device), config_(config), weights_(weights), softcap_(softcap) {}

  // x [tokens, hidden]: the rows that predict `targets`, one each. Returns each token's -log p. d, where it has memory,
  // [tokens, hidden] becomes the gradient of their sum. Rows pass in parts: a vocabulary's logits are large.
  std::vector<float> operator()(Arena& arena, View d, ConstView x, std::span<const int32_t> targets) const;
  size_t scratchBytes(int64_t rows) const;

 private:
  Device& device_;
  const TextConfig& config_;
  const TextWeights& weights_;
  float softcap_;
};

}  // namespace pg
