#pragma once
// SigLIP and the projector: pixels -> [tokens, textHidden]. One layer at a time, so that other work can go between.
#include <functional>

#include "device/arena.h"
#include "model/config.h"
#include "model/weights.h"

namespace pg {

class VisionEncoder {
 public:
  VisionEncoder(Device& device, const VisionConfig& config, const VisionWeights& weights)
      : device_(device), config_(config), weights_(weights), arena_(device) {}

  // pixels: [imageSize, imageSize, 3] RGB8. Replaces an unfinished picture.
  void begin(const uint8_t* pixels);
  // Runs the next layer; true when the features are ready.
  bool step();
  // [tokens, textHidden] of the finished picture.
  void finish(float* features);
  // [tokens, hidden] after the last norm, before the projector (for comparison with the reference).
  void lastHidden(float* states);

 private:
  void attention(const VisionLayer& layer);
  void feedForward(const VisionLayer& layer);

  Device& device_;
  const VisionConfig& config_;
  const VisionWeights& weights_;
  Arena arena_;
  View x_;                 // [tokens, hidden] residual stream
  int64_t nextLayer_ = 0;
};

}  // namespace pg
