#pragma once
// What a model is loaded with, and what it then says of itself.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image/mask_decoder.h"
#include "model/adapters.h"
#include "model/config.h"
#include "text/added_tokens.h"

namespace pg {

struct LoadOptions {
  std::string path;
  std::string visionPath;            // empty: vision tensors are in `path`
  std::string maskDecoderPath;       // GGUF with mask tensors; empty: those of `path`, if any
  MaskDecoder::Lookup maskTensors;   // or a source of tensors (an npz read by the caller)
  FileAccess weights = FileAccess::mapped;
  std::string device = "auto";       // auto, cpu, cuda, cuda:1, metal
  int threads = 0;                   // 0 = defaultThreads()
  std::shared_ptr<const std::string> cudaKernels;  // where a card may be asked for: what gpu/cuda/ptx.h reads
  std::string isa;                   // of the CPU's kernels; empty: the best. For `verify`
  int64_t contextSize = 0;           // tokens per sequence; 0 = what the model was trained for
  int maxSequences = 4;
  DType kvCacheType = DType::f16;    // f16, q8_0, f32
  AttentionWindow attentionWindow = AttentionWindow::none;
  bool finalSoftcap = true;          // false: logits are never capped
  std::vector<AdapterSource> adapters;
  std::vector<AddedToken> tokens;    // names that came with the adapters
  bool importance = false;           // true: inputs of all matrices are observed, for Importance requests
};

struct ModelInfo {
  std::string architecture;          // "gemma", "gemma2"
  std::string name;                  // general.name or empty
  std::string quantization;          // the type most weight bytes have, "Q4_K"
  std::string device = "cpu", isa;   // "avx512vnni", or the GPU's name
  std::string deviceNote;            // why "auto" took no GPU
  int threads = 0;
  int64_t imageSize = 0, imageTokens = 0;  // px, tokens a picture becomes; 0 without vision
  int64_t textLayers = 0, textHidden = 0, visionLayers = 0, visionHidden = 0;
  int64_t vocab = 0, contextSize = 0, parameters = 0, bytes = 0;
  bool hasVision = false, hasMaskDecoder = false;
  bool hasRetrieval = false;
  int64_t retrievalDims = 0;         // width of an embedding of Embed requests
  std::string retrievalFlavour;      // whose prompts the checkpoint wants, as the file says, or empty
  std::vector<AdapterInfo> adapters;
  std::string resizeFilter = "bicubic";    // the recipe the file states
};

}  // namespace pg
