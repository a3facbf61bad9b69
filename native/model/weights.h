#pragma once
// Named views of the model's tensors: what the file must hold, with shapes checked against the config.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "device/device.h"
#include "format/gguf.h"
#include "model/config.h"

namespace pg {

struct Norm {
  ConstView weight;  // [1, n] f32; Gemma's hold w + 1 already
  ConstView bias;    // LayerNorm only
};

struct VisionLayer {
  Norm norm1, norm2;
  Linear q, k, v, out;            // [hidden, hidden]
  Linear up, down;                // [ffn, hidden], [hidden, ffn]
};

struct VisionWeights {
  Linear patch;                   // [hidden, 3 * patch * patch]
  ConstView position;             // [tokens, hidden] f32
  std::vector<VisionLayer> layers;
  Norm postNorm;
  Linear projector;               // [textHidden, hidden]
};

struct TextLayer {
  Norm attnNorm, ffnNorm;         // before attention, before the feed-forward
  Norm postAttnNorm, postFfnNorm; // gemma2 only
  Linear q, k, v, out;  // [heads * headDim, hidden], [kvHeads * headDim, hidden] x 2, [hidden, heads * headDim]
  Linear gate, up, down;  // [ffn, hidden] x 2, [hidden, ffn]
};

struct TextWeights {
  Linear embedding;  // [vocab, hidden]; also the LM head
  std::vector<TextLayer> layers;
  Norm outputNorm;
};

// The views, and the device memory they look into. Read from files first, then placed on a device, then never changed.
class Weights {
 public:
  TextWeights text;
  VisionWeights vision;
  Linear retrieval;  // ColPali: [dims, hidden] with bias, or no weight

  Weights() = default;
  Weights(const Weights&) = delete;   // what waits to be placed points into it
  Weights& operator=(const Weights&) = delete;

  void readText(const std::shared_ptr<const GgufFile>& file, const TextConfig& config);
  void readVision(std::shared_ptr<const GgufFile> file, const VisionConfig& config, int64_t textHidden);
  // Brings all that was read to the device: from here on the views can be used.
  void place(Device& device);
  // Every matrix that is there with its GGUF name without ".weight" ("blk.0.attn_q").
  void eachMatrix(const std::function<void(const std::string&, const Linear&)>& visit) const;

 private:
  using File = std::shared_ptr<const GgufFile>;
  const GgufTensor& require(const GgufFile& file, const std::string& name, int64_t rows, int64_t cols);
  void linear(const File& file, Linear& to, const std::string& name, int64_t out, int64_t in, bool bias,
              bool manyRows = false);
  void vector(const File& file, ConstView& to, const std::string& name, int64_t n);
  void widened(const File& file, ConstView& to, const GgufTensor& tensor, int64_t rows, int64_t cols);

  // Fails where the file has tensors of these prefixes that nothing here reads: they would change what it computes.
  void refuseUnread(const GgufFile& file, std::initializer_list<std::string_view> prefixes) const;

  std::unordered_set<const GgufTensor*> read_;
  std::vector<Placement> waiting_;
  std::vector<std::unique_ptr<float[]>> copies_;   // of what waits
  std::vector<Buffer> memory_;
};

}  // namespace pg
