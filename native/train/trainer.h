#pragma once
// Training of one LoRA adapter: examples one at a time, a layer at a step, then an optimizer step over their sums.
//
// An example's forward is the engine's own, with a tape. Of as many layers as memory allows the tape is whole; of the
// others it holds what enters them, and the backward pass computes them again. Both give the same bits.
#include <memory>
#include <vector>

#include "model/decoder.h"
#include "model/kv_cache.h"
#include "model/vision.h"
#include "train/lora.h"
#include "train/suffix_loss.h"
#include "train/text_backward.h"
#include "train/vision_backward.h"

namespace pg {

// The model's parts that training uses; all outlive it. No vision: both null.
struct TrainedNet {
  Device& device;
  const Weights& weights;
  const TextConfig& text;
  const VisionConfig& vision;
  Decoder& decoder;
  VisionEncoder* encoder;
};

struct TrainExample {
  std::vector<int32_t> ids;   // as Prompt's: Decoder::kImageRow for pictures, then prefix and suffix
  int64_t prefix = 0;
  std::vector<const uint8_t*> pixels;   // where the tower is trained, of each picture
  std::vector<ConstView> features;      // else its features [imageTokens, hidden]
  bool train = true;                    // false: only the loss is wanted
  Dropout dropout;                      // of what enters the adapter, where it trains
};

class Trainer {
 public:
  // Bytes of tapes beyond what one layer needs.
  static constexpr size_t kTapeBytes = size_t(600) << 20;

  Trainer(const TrainedNet& net, const LoraStart& start, int64_t context, size_t tapeBytes = kTapeBytes);
  Trainer(const Trainer&) = delete;

  Lora& lora() { return lora_; }
  // What it refers to lives until step() says true. Replaces an unfinished one, whose part of the sums stays.
  void begin(TrainExample example);
  // About a layer. True when the example is done.
  bool step();
  // Of the example that is done: -log p of each suffix token.
  const std::vector<float>& losses() const { return losses_; }
  // The gradient of the features of all its pictures [pictures * imageTokens, hidden], where the tower is trained.
  ConstView featureGradient() const;

  // Over all examples trained since the last one; their loss is divided by their suffix tokens.
  double update(const AdamStep& step);
  int64_t tokens() const { return tokens_; }

 private:
  enum class Phase { vision, text, backward, visionBackward };

  void dropFor(uint64_t part);
  void beginVision(size_t image);
  void stepVision();
  void beginText();
  bool stepText();
  bool stepBackward();
  bool stepVisionBackward();
  bool finish();
  void reserve();
  int64_t length() const { return int64_t(example_.ids.size()) - 1; }   // the last token predicts nothing

  TrainedNet net_;
  Lora lora_;
  LinearGrad linear_;
  SuffixLoss loss_;
  TextBackward text_;
  VisionBackward vision_;
  size_t tapeBytes_;
  KvLayout layout_;
  KvPool pool_;   // in f32, whatever the model's cache is
  KvSequence kv_;
  Arena tapes_, scratch_;

  TrainExample example_;
  Phase phase_ = Phase::text;
  int64_t layer_ = 0;
  int64_t firstText_ = 0, firstVision_ = 0;   // the lowest layers that gradients must reach
  int64_t firstKept_ = 0;   // layers from here on have whole tapes
  size_t image_ = 0;
  std::vector<LayerTape> layerTapes_;
  LayerTape repeated_;      // of a layer that is computed again
  View d_;                  // [length, hidden]
  std::vector<std::vector<View>> visionInputs_;   // of each picture, what enters each layer and the last norm
  std::vector<Buffer> features_;
  LayerTape visionTape_;
  View dVision_;
  std::vector<float> losses_;
  int64_t tokens_ = 0;
};

}  // namespace pg
