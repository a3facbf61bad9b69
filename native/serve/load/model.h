#pragma once
// A loaded model: its files, configuration, weights and the parts that run it. Built once, used by one thread.
#include <map>
#include <memory>

#include "device/input_observer.h"
#include "model/adapters.h"
#include "model/config.h"
#include "text/constraint.h"
#include "model/decoder.h"
#include "serve/load/load_options.h"
#include "model/kv_cache.h"
#include "image/mask_decoder.h"
#include "text/tokenizer.h"
#include "model/vision.h"
#include "model/weights.h"
#include "train/trainer.h"

namespace pg {

class Model {
 public:
  // On the device that the options name; a GPU that was not named and turns out too small gives way to the CPU.
  static std::unique_ptr<Model> load(const LoadOptions& options);
  // On a device of the caller's; options.device and options.threads do not count.
  Model(const LoadOptions& options, std::unique_ptr<Device> on);

  ModelInfo info;
  TextConfig textConfig;
  VisionConfig visionConfig;          // tokens = 0 without vision
  std::unique_ptr<Device> device;     // before everything that holds its buffers
  std::unique_ptr<InputObserver> observer;  // the device's tap, if it observes
  Weights weights;
  std::unique_ptr<Adapters> adapters;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ConstraintFactory> constraints;
  std::unique_ptr<MaskDecoder> maskDecoder;   // may be none
  std::unique_ptr<VisionEncoder> vision;      // may be none
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<KvPool> kvPool;
  std::map<uint32_t, std::unique_ptr<Trainer>> trainers;   // by session
  int64_t keptPrefixPages = 0;                // of the pool: for finished prefixes that may be asked again

  // A picture's features [imageTokens, hidden], which stay on the device.
  Buffer newFeatures() { return device->allocate(size_t(visionConfig.tokens * textConfig.hidden) * sizeof(float)); }
  View featureView(const Buffer& features) const {
    return features.view(DType::f32, visionConfig.tokens, textConfig.hidden);
  }
  std::vector<float> hostFeatures(const Buffer& features) const {
    std::vector<float> values(features.bytes() / sizeof(float));
    device->download(values.data(), featureView(features));
    return values;
  }

  // Fails with modelChanged where a file was cut or written to: what was computed with it may be anything.
  void throwIfChanged(bool atPath) const;

 private:
  using File = std::shared_ptr<const GgufFile>;
  File text_, visionFile_;  // the same where one file holds both
  void readNets(const LoadOptions& options, const File& text, const File& visionFile);
  void readVocabulary(const LoadOptions& options, const File& text);
  void readMaskDecoder(const LoadOptions& options, const File& text, const File& visionFile);
  void makeCaches(const LoadOptions& options);
  void describe(const GgufFile& text);
};

}  // namespace pg
