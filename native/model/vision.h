#pragma once
// SigLIP and the projector: pixels -> [tokens, textHidden]. One layer at a time, so that other work can go between.
#include <functional>

#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/weights.h"

namespace pg {

class VisionEncoder {
 public:
  VisionEncoder(Device& device, const VisionConfig& config, Weights& weights)
      : device_(device), config_(config), files_(weights), weights_(weights.vision), ops_(device), arena_(device) {}

  // pixels: [imageSize, imageSize, 3] RGB8; adapters: nullptr = none, else alive until finish(). Replaces an unfinished
  // picture.
  void begin(const uint8_t* pixels, const AdapterSet* adapters);
  // Runs the next layer; true when the features are ready.
  bool step();
  // [tokens, textHidden] of the finished picture.
  void finish(float* features);
  // [tokens, hidden] after the last norm, before the projector (for comparison with the reference).
  void lastHidden(float* states);

 private:
  void attention(const VisionLayer& layer);
  void feedForward(const VisionLayer& layer);

  void matmul(ConstView x, std::span<const MatmulJob> jobs);
  // What the device would unpack for every picture is unpacked once, in place of the file's pages: from the second
  // picture on, for a program that looks at one only should not wait for it.
  void packOnce(std::span<Linear* const> matrices);

  Device& device_;
  const VisionConfig& config_;
  const Weights& files_;
  VisionWeights& weights_;
  AdaptedOps ops_;
  Arena arena_;
  const AdapterSet* adapters_ = nullptr;  // of the picture under way
  View x_;  // [tokens, hidden] residual stream
  int64_t nextLayer_ = 0, pictures_ = 0;
  std::vector<Buffer> packed_;
};

}  // namespace pg
