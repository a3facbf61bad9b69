#pragma once
// The model's sizes and constants, read from GGUF metadata; every assumption of the forward pass is checked here.
#include <memory>
#include <string>

#include "base/error.h"
#include "format/gguf.h"

namespace pg {

struct VisionConfig {            // SigLIP
  int64_t imageSize = 0;         // px, square
  int64_t patch = 0;             // px
  int64_t tokens = 0;            // (imageSize / patch)^2
  int64_t hidden = 0, ffn = 0, layers = 0, heads = 0;
  float normEps = 1e-6f;
  float mean[3] = {0.5f, 0.5f, 0.5f}, std[3] = {0.5f, 0.5f, 0.5f};
  std::string resizeFilter = "bicubic";
  int64_t headDim() const { return hidden / heads; }
  int64_t patchValues() const { return 3 * patch * patch; }
};

struct TextConfig {              // Gemma 1 and 2
  std::string architecture;      // "gemma", "gemma2"
  int64_t hidden = 0, ffn = 0, layers = 0, heads = 0, kvHeads = 0, headDim = 0, vocab = 0;
  int64_t context = 0;           // tokens the model was trained for
  float normEps = 1e-6f;
  float ropeTheta = 10000;
  float attentionScale = 0;      // query_pre_attn_scalar^-0.5
  float attentionSoftcap = 0;    // 0 = off
  float finalSoftcap = 0;
  int64_t slidingWindow = 0;     // 0 = none; else of the even layers
  bool postNorms = false;        // Gemma 2 also normalises each branch's output
};

// How Gemma 2's sliding layers treat a prefix longer than the window, where published implementations disagree:
// none: no window anywhere, as the code that trained the weights. suffix: the prefix sees itself fully, later tokens
// only the last `slidingWindow` positions. causal: prefix tokens too look back no further than the window.
enum class AttentionWindow { none, suffix, causal };

TextConfig readTextConfig(const GgufFile& file);
// `textHidden`: what the projector must give.
VisionConfig readVisionConfig(const GgufFile& file, int64_t textHidden);
bool hasVision(const GgufFile& file);

}  // namespace pg
