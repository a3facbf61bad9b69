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
  const float* weight = nullptr;  // [n]; Gemma's hold w + 1 already
  const float* bias = nullptr;    // LayerNorm only
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

// Holds the files, the views, and f32 copies of small tensors (norms, biases): one that was read in the file would
// bring the pages around it back to memory, of matrices that were given back.
class Weights {
 public:
  TextWeights text;
  VisionWeights vision;
  Linear retrieval;  // ColPali: [dims, hidden] with bias, or no weight

  void readText(std::shared_ptr<const GgufFile> file, const TextConfig& config);
  void readVision(std::shared_ptr<const GgufFile> file, const VisionConfig& config, int64_t textHidden);
  // The matrix is not needed for a while: its pages of the file's map may go.
  void releasePages(const Linear& linear) const;
  // Every matrix that is there with its GGUF name without ".weight" ("blk.0.attn_q"); they stay where they are from
  // when all is read.
  void eachMatrix(const std::function<void(const std::string&, const Linear&)>& visit) const;

 private:
  const GgufTensor& require(const GgufFile& file, const std::string& name, int64_t rows, int64_t cols);
  Linear linear(const GgufFile& file, const std::string& name, int64_t out, int64_t in, bool bias);
  const float* vector(const GgufFile& file, const std::string& name, int64_t n);
  const float* widened(const GgufFile& file, const GgufTensor& tensor);
  const float* copied(const GgufFile& file, const GgufTensor& tensor);
  // Fails where the file has tensors of these prefixes that nothing here reads: they would change what it computes.
  void refuseUnread(const GgufFile& file, std::initializer_list<std::string_view> prefixes) const;

  std::vector<std::shared_ptr<const GgufFile>> files_;
  std::vector<std::unique_ptr<float[]>> copies_;
  std::unordered_set<const GgufTensor*> read_;
};

}  // namespace pg
