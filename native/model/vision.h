#pragma once
// SigLIP and the projector: pixels -> [tokens, textHidden]. One layer at a time, so that other work can go between.
#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/vision_layer.h"
#include "model/weights.h"

namespace pg {

class VisionEncoder {
 public:
  VisionEncoder(Device& device, const VisionConfig& config, const VisionWeights& weights)
      : device_(device),
        config_(config),
        weights_(weights),
        ops_(device),
        layers_(device, ops_, config, weights),
        arena_(device) {}

  // pixels: [imageSize, imageSize, 3] RGB8; adapters: nullptr = none, else alive until finish(). Replaces unfinished
  // pictures.
  void begin(const uint8_t* pixels, const AdapterSet* adapters) { begin({&pixels, 1}, adapters); }
  // At most mostPictures(). Each gets the features that it gets alone.
  void begin(std::span<const uint8_t* const> pictures, const AdapterSet* adapters);
  // As many as share their products, see DeviceLimits::jointRows.
  int64_t mostPictures() const;
  // Runs the next layer; true when the features are ready. tape: gets what a backward pass needs of that layer;
  // beforeNorm, after the last one, what enters the last norm.
  bool step(const LayerTape& tape = {}, View beforeNorm = {});
  // Computes a layer again from what entered it, tape.attention: for what else a tape wants. Ends the picture under
  // way.
  void repeatLayer(int64_t layer, const LayerTape& tape);
  // The features of a finished picture, on the device: [tokens, textHidden].
  void finish(View features, int64_t picture = 0);
  // Of one picture alone, [tokens, hidden] after the last norm, before the projector (for comparison with the
  // reference).
  void lastHidden(float* states);

 private:
  Device& device_;
  const VisionConfig& config_;
  const VisionWeights& weights_;
  AdaptedOps ops_;
  VisionLayers layers_;
  Arena arena_;
  const AdapterSet* adapters_ = nullptr;  // of the pictures under way
  View x_;  // [pictures * tokens, hidden] residual stream
  int64_t nextLayer_ = 0;
};

}  // namespace pg
